# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd itself makes of the configuration that the role writes: who gets in, how, and what he may there."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.proxme.tunnel.plugins.module_utils.accounts import Compiler
from programs import Program
from render import in_every_case, render, settings, written
from test_accounts_module import KEY, ssh_key

ROLE = "sshd_tunnel"
DOMAIN = "proxme.example.com"
AUTHORITY = ssh_key("ssh-ed25519", b"a" * 32)
ALICE = {"name": "alice", "keys": [KEY], "names": ["blog", "alice-*"]}
BOB = {"name": "bob", "keys": [KEY], "names": ["bob-db"], "reach": ["blog:22"], "tcp_ports": [30001]}
EVE = {"name": "eve", "keys": [KEY]}

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "no port labels": {"tunnel_port_labels": False},
    "no guest names": {"tunnel_guest_names": ""},
    "neither": {"tunnel_port_labels": False, "tunnel_guest_names": ""},
    "shared with keys": {"tunnel_shared_account_keys": [KEY]},
    "shared by another name": {"tunnel_shared_account_name": "everybody", "tunnel_guest_names": "free-*"},
    "nobody": {"tunnel_shared_account": False},
    "accounts": {"tunnel_accounts": [ALICE, BOB, EVE], "tunnel_tcp_ports": "30000-30009"},
    "accounts alone": {"tunnel_accounts": [ALICE], "tunnel_shared_account": False},
    "user CA": {"tunnel_accounts": [ALICE | {"keys": []}], "tunnel_user_ca": [AUTHORITY]},
    "compatible": {"tunnel_ssh_algorithms": "compatible"},
    "little memory": {"tunnel_sshd_memory": "64m"},
    "everything": {
        "tunnel_accounts": [ALICE | {"expires": "2999-01-01", "principals": ["staff"]}, BOB, EVE],
        "tunnel_tcp_ports": "30000-30009",
        "tunnel_user_ca": [AUTHORITY],
        "tunnel_shared_account_keys": [KEY],
        "tunnel_sshd_memory": "4g",
    },
}
ACCOUNT_FILES = ("keys", "principals", "banners", "shadow", "passwd")

# What one may listen on: with the shared account by case, with an account of one's own always.
SHARED = ["localhost:*", "guest-*:80", "guest-*:443"]
SHARED_LISTENS = {
    "no port labels": ["guest-*:80", "guest-*:443"],
    "no guest names": ["localhost:*"],
    "neither": ["none"],
    "shared by another name": ["localhost:*", "free-*:80", "free-*:443"],
}
LISTENS = {
    "alice": ["localhost:*", "blog:*", "alice-*:*", f"blog.{DOMAIN}:*"],
    "bob": ["localhost:*", "bob-db:*", f"bob-db.{DOMAIN}:*", "public:30001"],
    "eve": ["localhost:*"],
}
OPENS = {"alice": ["blog:*"], "bob": ["bob-db:*", "blog:22"], "eve": ["none"]}

each_case = in_every_case("told", CASES)


def compiled(**variables: Any) -> dict[str, Any]:
    """What the action `accounts` makes of the operator's variables on a host that remembers nothing."""
    today = datetime.datetime.now(datetime.UTC).date()
    result = Compiler(settings(**variables), {}, today).run()
    assert result["problems"] == []
    return result


class Sshd:
    """The real sshd with the configuration of one case."""

    def __init__(self, program: Program, case: str) -> None:
        """Render the case."""
        self.program = program
        variables = {"tunnel_domain": DOMAIN, **CASES[case]}
        self.accounts = compiled(**variables)
        variables["tunnel_accounts_compiled"] = self.accounts
        self.files = {name: render(ROLE, f"{name}.j2", **variables) for name in ("sshd_config", "user_ca")}
        self.files |= {f"accounts/{name}": render(ROLE, f"{name}.j2", **variables) for name in ACCOUNT_FILES}
        self.files["revoked"] = ""
        asked = [*(account["name"] for account in self.accounts["accounts"]), "mallory", "root"]
        # One call for all of them, each answer behind a line with the name.
        said = program.accept(
            self.files,
            f"""
            /usr/sbin/sshd -t -f /etc/proxme-tunnel/sshd_config
            for user in {" ".join(asked)}; do
              echo "=== $user"
              /usr/sbin/sshd -T -f /etc/proxme-tunnel/sshd_config -C "user=$user,host=client,addr=192.0.2.7"
            done
            """,
        )
        self.answers = {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in said.split("=== ")[1:]}

    def says(self, user: str, option: str) -> list[str]:
        """The words of an option that holds for a user, those of all of its lines."""
        lines = [line.split() for line in self.answers[user].splitlines()]
        return [word for line in lines if line[0] == option for word in line[1:]]

    @property
    def shared(self) -> str | None:
        """The shared account's name, if there is one."""
        own = {"alice", "bob", "eve"}
        return next((name for name in self.answers if name not in own | {"mallory", "root"}), None)

    @property
    def own(self) -> list[str]:
        """The accounts that have an owner."""
        return [name for name in self.answers if name in ("alice", "bob", "eve")]


@pytest.fixture(scope="module")
def told(sshd):
    """Return a function that gives the sshd of a case, which is asked once."""
    # The role makes them with the same program.
    sshd.accept(
        {},
        """
        mkdir -p /etc/ssh/keys /run/sshd/banners
        for type in ed25519 rsa; do ssh-keygen -q -t $type -N '' -f /etc/ssh/keys/ssh_host_${type}_key; done
        """,
    )
    known: dict[str, Sshd] = {}
    return lambda case: known.get(case) or known.setdefault(case, Sshd(sshd, case))


@each_case
def test_whoever_has_an_account_gets_in_and_nobody_else(server, case):
    """As sshd is told: that it refuses whoever is not among AllowUsers is its own business."""
    accounts = [*([server.shared] if server.shared else []), *server.own]
    for user in server.answers:
        if accounts:
            assert server.says(user, "allowusers") == accounts
            assert server.says(user, "denyusers") == []
        else:
            assert server.says(user, "denyusers") == ["*"]
        assert server.says(user, "permitrootlogin") == ["no"]
    assert (server.shared is None) == (CASES[case].get("tunnel_shared_account") is False)
    given = CASES[case].get("tunnel_accounts", [])
    assert server.own == [account["name"] for account in given]


@each_case
def test_an_empty_password_opens_the_shared_account_alone_and_only_while_it_has_no_keys(server, case):
    for user in server.answers:
        empty = user == server.shared and "tunnel_shared_account_keys" not in CASES[case]
        assert server.says(user, "permitemptypasswords") == ["yes" if empty else "no"], user
        assert server.says(user, "passwordauthentication") == ["yes" if empty else "no"], user
        assert server.says(user, "kbdinteractiveauthentication") == ["no"]
        assert server.says(user, "usepam") == ["no"]
        if user in ("mallory", "root"):
            continue
        assert server.says(user, "authenticationmethods") == ["any" if empty else "publickey"], user
        # Any key, once it is shown to be the client's.
        any_key = server.says(user, "authorizedkeyscommand") == ["/usr/bin/echo", "%t", "%k"]
        assert any_key == empty, user


@each_case
def test_one_may_listen_on_what_is_ones_own_and_on_nothing_else(server, case):
    for user in server.answers:
        expected = LISTENS.get(user, ["none"])
        if user == server.shared:
            expected = SHARED_LISTENS.get(case, SHARED)
        assert server.says(user, "permitlisten") == expected, user
        assert server.says(user, "gatewayports") == ["clientspecified"]


@each_case
def test_one_may_dial_ones_own_names_and_what_was_granted_and_the_shared_account_nothing(server, case):
    for user in server.answers:
        assert server.says(user, "permitopen") == OPENS.get(user, ["none"]), user
        dials = OPENS.get(user, ["none"]) != ["none"]
        assert server.says(user, "allowtcpforwarding") == ["yes" if dials else "remote"], user


@each_case
def test_nobody_gets_anything_but_tunnels(server, case):
    fixed = {
        "forcecommand": ["exec", "hold-session"],
        "allowstreamlocalforwarding": ["no"],
        "allowagentforwarding": ["no"],
        "x11forwarding": ["no"],
        "permittunnel": ["no"],
        "permituserenvironment": ["no"],
        "permituserrc": ["no"],
        "maxsessions": ["1"],
        "disableforwarding": ["no"],
        "hostbasedauthentication": ["no"],
    }
    for user in server.answers:
        assert {option: server.says(user, option) for option in fixed} == fixed, user


@each_case
def test_keys_come_from_the_roles_files_alone(server, case):
    # Where the shared account has no keys, any does: above.
    user = server.own[0] if server.own else "mallory"
    known = "/etc/proxme-tunnel/accounts"
    assert server.says(user, "authorizedkeysfile") == ["none"]
    assert server.says(user, "authorizedkeyscommand") == f'/usr/bin/sed -n "s/^%u //p" {known}/keys'.split()
    assert server.says(user, "authorizedkeyscommanduser") == ["nobody"]
    assert server.says(user, "revokedkeys") == ["/etc/proxme-tunnel/revoked"]
    signed = "tunnel_user_ca" in CASES[case]
    assert server.says(user, "trustedusercakeys") == (["/etc/proxme-tunnel/user_ca"] if signed else ["none"])
    # Without it a certificate for any user's name would do.
    command = f'/usr/bin/sed -n "s/^%u //p" {known}/principals'.split()
    assert server.says(user, "authorizedprincipalscommand") == (command if signed else ["none"])


@each_case
def test_a_silent_client_is_gone_after_15_seconds_and_newcomers_are_bounded_by_the_memory(server, case):
    user = next(iter(server.answers))
    most = {"little memory": 10, "everything": 682}.get(case, 170)
    assert server.says(user, "maxstartups") == [f"{most // 2}:30:{most}"]
    assert server.says(user, "persourcemaxstartups") == ["10"]
    assert server.says(user, "persourcepenalties") == ["no"]
    assert server.says(user, "logingracetime") == ["20"]
    assert server.says(user, "maxauthtries") == ["12"]
    interval, count = server.says(user, "clientaliveinterval"), server.says(user, "clientalivecountmax")
    assert int(interval[0]) * int(count[0]) == 15


@pytest.mark.parametrize("case", ["default", "compatible"])
def test_the_algorithms_are_those_of_the_role_without_sha_1_and_cbc_and_nists_curves_on_demand_alone(told, case):
    server, role = told(case), written(ROLE, "vars/main.yml")
    more = role["__sshd_tunnel_compatible_key_exchanges"] if case == "compatible" else []
    assert server.says("tunnel", "kexalgorithms") == [",".join(role["__sshd_tunnel_key_exchanges"] + more)]
    assert server.says("tunnel", "macs") == [",".join(role["__sshd_tunnel_macs"])]
    offered = [server.says("tunnel", option)[0] for option in ("kexalgorithms", "macs", "ciphers")]
    assert offered[0].startswith("mlkem768x25519-sha256,sntrup761x25519-sha512,")
    for weak in ("sha1", "cbc", "umac-64", "chacha20", *([] if more else ["nistp", "group14", "group18"])):
        assert weak not in ",".join(offered)
    keys = ["/etc/ssh/keys/ssh_host_ed25519_key", "/etc/ssh/keys/ssh_host_rsa_key"]
    assert server.says("tunnel", "hostkey") == keys


def test_sshd_reads_few_and_middling_primes_for_a_stranger(sshd):
    sizes = sshd.accept({}, "awk '{ print $5 }' /etc/ssh/moduli").split()
    assert set(sizes) == {"3071", "4095"}
    assert len(sizes) <= 60


@each_case
def test_a_banner_says_what_its_account_may_do(server, case):
    parts = {part.split("\n", 1)[0]: part for part in server.files["accounts/banners"].split("=== ")[1:]}
    assert list(parts) == [account["name"] for account in server.accounts["accounts"]]
    for account in server.accounts["accounts"]:
        name, shown = account["name"], parts[account["name"]]
        assert server.says(name, "banner") == [f"/run/sshd/banners/{name}"]
        assert ("-NR 8080:localhost:80" in shown) == ("localhost:*" in account["listen"])
        assert ("gives localhost as the address" in shown) == ("localhost:*" in account["listen"])
        assert ("leave it empty" in shown) == (account["keys"] is None)
        assert "to port 2222: ssh -p 443 does the same" in shown
        for own in account["names"]:
            assert f"-NR {own.replace('*', 'x')}:80:localhost:3000 {name}@{DOMAIN}" in shown
        assert ("--local-3000" in shown) == bool(account["names"])
        for port in account["tcp_ports"]:
            assert f"-NR public:{port}:localhost:22 {name}@{DOMAIN}" in shown
    assert server.says("mallory", "banner") == ["none"]


@each_case
def test_the_system_knows_each_account_once_and_only_the_shared_one_without_a_password(server, case):
    passwd = [line.split(":") for line in server.files["accounts/passwd"].splitlines()]
    shadow = [line.split(":") for line in server.files["accounts/shadow"].splitlines()]
    names = [account["name"] for account in server.accounts["accounts"]]
    assert [line[0] for line in passwd] == [line[0] for line in shadow] == names
    assert len({line[2] for line in passwd}) == len(passwd)
    assert all(int(line[2]) >= 20000 and line[3] == "65534" for line in passwd)
    empty = [line[0] for line in shadow if line[1] == ""]
    assert empty == ([server.shared] if server.shared and "tunnel_shared_account_keys" not in CASES[case] else [])
    assert [line[7] for line in shadow] == [
        "375835" if (case, name) == ("everything", "alice") else "" for name in names
    ]
    # The program that sshd asks for keys finds those of each name, and none by the beginning of another's name.
    keys = server.files["accounts/keys"].splitlines()
    for account in server.accounts["accounts"]:
        found = [line.split(" ", 1)[1] for line in keys if line.split(" ", 1)[0] == account["name"]]
        assert found == (account["keys"] or [])
