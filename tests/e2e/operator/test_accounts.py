# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts with names of their own: who may take and reach what, and what a change does to whom."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import pathlib
import re
import ssl
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playbook import ROOT, Operator, Run, slowness
from world import Client, Host, Result, Scenario, Tunnel, Visitor, Web, World, until

PLAYBOOK = ROOT / "playbooks/accounts.yml"
SHOP = "shop.example.org"
OWN = f"own.{SHOP}"


@dataclasses.dataclass
class Person:
    """Somebody with an account, at a machine."""

    machine: Client
    account: str
    key: str = ""

    @property
    def options(self) -> list[str]:
        """What ssh needs to log in as this account."""
        return ["-o", "IdentitiesOnly=yes", "-i", self.key] if self.key else []

    def tunnel(self, *forwards: str, to: Web | str | None = None, **rest: Any) -> Tunnel:
        """Open `ssh -NR`; see Client.tunnel."""
        return self.machine.tunnel(*forwards, to=to, user=self.account, options=self.options, **rest)

    def ssh(self, *arguments: str, **rest: Any) -> Result:
        """Run one ssh to the end; see Client.ssh."""
        return self.machine.ssh(*self.options, *arguments, user=self.account, **rest)

    def logs_in(self, *options: str) -> bool:
        """Whether ssh gets in; -W to nowhere ends it at once."""
        result = self.ssh("-v", *options, "-W", "nowhere:1")
        assert result.code == 255
        return "Authenticated to" in result.stderr


class Accounts:
    """The accounts of a host, as its operator writes them."""

    def __init__(self, operator: Operator, machine: Client) -> None:
        """Make keys for all on one machine."""
        self.operator = operator
        self.machine = machine
        self.variables: dict[str, Any] = {}

    def key(self, name: str) -> str:
        """The public key of somebody, made at the first call."""
        path = f"/run/{name}"
        self.machine.shell(f"test -e {path} || ssh-keygen -q -t ed25519 -N '' -C {name} -f {path}").expect()
        return self.machine.read(f"{path}.pub").strip()

    def person(self, name: str) -> Person:
        """Somebody at the machine."""
        return Person(self.machine, name, "" if name == "tunnel" else f"/run/{name}")

    def entry(self, name: str, **rest: Any) -> dict[str, Any]:
        """An account with one key."""
        return {"name": name, "keys": [self.key(name)], **rest}

    def apply(self, *entries: dict[str, Any], **variables: Any) -> Run:
        """Write these accounts and run accounts.yml."""
        self.variables = {"tunnel_accounts": list(entries), **variables}
        return self.operator.run(PLAYBOOK, variables=self.variables)


@pytest.fixture(scope="module")
def machine(scenario: Scenario) -> Iterator[Client]:
    """The machine at which all sit, with PostgreSQL, git and sshd."""
    with World(scenario).with_image("services").client("people") as machine:
        yield machine


@pytest.fixture(scope="module")
def accounts(operator: Operator, machine: Client) -> Iterator[Accounts]:
    """No accounts yet; those that a test makes are removed at the end of the module."""
    accounts = Accounts(operator, machine)
    yield accounts
    operator.run(PLAYBOOK).expect()


def alice_and_bob(accounts: Accounts) -> list[dict[str, Any]]:
    """Alice, who shows things and may use Bob's database; and Bob."""
    return [
        accounts.entry(
            "alice",
            names=["blog", "alice-*"],
            domains={SHOP: "alice-shop", f"closed.{SHOP}": "alice-closed", OWN: "alice-own"},
            tcp_ports=[30001],
            reach=["bob-db:5432", "bob-box:22"],
        ),
        accounts.entry("bob", names=["bob-db", "bob-box"], tcp_ports=[30002]),
    ]


@pytest.fixture(scope="module")
def granted(accounts: Accounts) -> Accounts:
    """Alice and Bob have their accounts."""
    accounts.apply(*alice_and_bob(accounts)).expect()
    return accounts


@pytest.fixture(scope="module")
def alice(granted: Accounts) -> Person:
    """Alice."""
    return granted.person("alice")


@pytest.fixture(scope="module")
def bob(granted: Accounts) -> Person:
    """Bob."""
    return granted.person("bob")


@pytest.fixture(autouse=True)
def nothing_stays_open(machine: Client) -> Iterator[None]:
    """The tunnels that a test opened are stopped at its end."""
    yield
    machine.stop_all()


# Who may listen where. {x57} is 57 times x, and so on.
LISTENS: list[tuple[str, str, bool]] = [
    ("alice", "blog:80", True),
    ("alice", "blog:443", True),
    ("alice", "blog:22", True),
    ("alice", "blog:30001", True),
    ("alice", "blog.{domain}:80", True),
    ("alice", "alice-anything:80", True),
    ("alice", "alice-anything.{domain}:80", True),
    ("alice", "BLOG:80", True),
    ("alice", "alice-UPPER:80", True),
    ("alice", "alice-dot.:80", True),
    ("alice", "alice-{x57}:80", True),
    ("alice", "8080", True),
    ("alice", "public:30001", True),
    ("bob", "bob-db:5432", True),
    ("bob", "bob-box:22", True),
    ("bob", "public:30002", True),
    ("tunnel", "guest-x:80", True),
    ("tunnel", "8080", True),
    # Somebody else's.
    ("alice", "bob-db:80", False),
    ("alice", "bob-db:5432", False),
    ("alice", "bob-box.{domain}:22", False),
    ("bob", "blog:80", False),
    ("bob", "blog.{domain}:443", False),
    ("bob", "alice-anything:80", False),
    ("bob", "public:30001", False),
    ("tunnel", "blog:80", False),
    ("tunnel", "blog.{domain}:80", False),
    ("tunnel", "alice-x:80", False),
    ("tunnel", "public:30001", False),
    ("alice", "guest-x:80", False),
    # Nobody's.
    ("alice", "nobody:80", False),
    ("alice", "alice:80", False),
    ("alice", "alicex:80", False),
    ("alice", "www:80", False),
    ("alice", "public:30003", False),
    ("alice", "public:80", False),
    ("alice", "public:2222", False),
    ("alice", "proxme-tunnel-network:30001", False),
    ("alice", "ip6-loopback:80", False),
    # Other spellings.
    ("alice", "blog.:80", False),
    ("alice", "alice-ü:80", False),
    ("alice", "alice-{x58}:80", False),
    ("alice", "alice-xn--bcher-kva:80", False),
    ("alice", "xn--blog:80", False),
    ("alice", "12345:80", False),
    ("alice", "a.blog:80", False),
    ("alice", "a.blog.{domain}:80", False),
    ("alice", "alice-x.y:80", False),
    ("alice", "alice-*:80", False),
    ("alice", "*:80", False),
    ("alice", "*:30001", False),
    ("alice", "0.0.0.0:30001", False),
    ("alice", "[::]:30001", False),
    ("alice", "127.0.0.1:30001", False),
    ("alice", "[{bob-db}]:5432", False),
    ("alice", "[{blog}]:80", False),
    ("alice", "{eth0}:30001", False),
    ("bob", "{eth0}:2222", False),
    ("bob", "127.0.0.53:53", False),
]


def filled(text: str, domain: str, host: Host) -> str:
    """A case's text with what is only known on the host."""
    known = {"domain": domain, "x57": "x" * 57, "x58": "x" * 58}
    for name in re.findall(r"{([^}]+)}", text):
        if name in ("blog", "bob-db"):
            known[name] = host.inside("proxme-tunnel-sshd", "getent", "ahostsv6", name).expect().stdout.split()[0]
        if name in ("eth0", "sshd"):
            known[name] = host.inside("proxme-tunnel-sshd", "getent", "ahostsv4", "public").expect().stdout.split()[0]
    return re.sub(r"{([^}]+)}", lambda match: known[match[1]], text)


@pytest.mark.parametrize(("account", "forward", "allowed"), LISTENS, ids=lambda value: str(value))
def test_who_may_listen(
    granted: Accounts, web: Web, host: Host, domain: str, account: str, forward: str, allowed: bool
) -> None:
    forward = filled(forward, domain, host)
    if allowed:
        with granted.person(account).tunnel(forward, to=web) as tunnel:
            assert tunnel.running
    else:
        result = granted.person(account).ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{forward}:{web}")
        assert result.code == 255
        assert "Error: remote port forwarding failed" in result.stderr


# Who may open what with -W, which -L and -J are made of. The live ones are bob-db:5432, bob-box:22 and blog:80.
REACHES: list[tuple[str, str, bool]] = [
    ("alice", "bob-db:5432", True),
    ("alice", "blog:80", True),
    ("bob", "bob-db:5432", True),
    ("alice", "bob-db:22", False),
    ("alice", "bob-box:80", False),
    ("alice", "bob-db.{domain}:5432", False),
    ("alice", "[{bob-db}]:5432", False),
    ("alice", "alice-x:80", False),
    ("alice", "localhost:8080", False),
    ("alice", "127.0.0.53:53", False),
    ("alice", "{sshd}:2222", False),
    ("alice", "public:2222", False),
    ("alice", "public:30002", False),
    ("alice", "172.17.0.1:22", False),
    ("alice", "proxme-tunnel-caddy:80", False),
    ("alice", "1.1.1.1:443", False),
    ("bob", "blog:80", False),
    ("bob", "localhost:8080", False),
    ("tunnel", "bob-db:5432", False),
    ("tunnel", "blog:80", False),
]


@pytest.mark.parametrize(("account", "target", "allowed"), REACHES, ids=lambda value: str(value))
def test_who_may_reach(
    granted: Accounts, alice: Person, bob: Person, web: Web, host: Host, domain: str,
    account: str, target: str, allowed: bool,
) -> None:  # fmt: skip
    alice.tunnel("blog:80", to=web)
    bob.tunnel("bob-db:5432", "bob-box:22", to=web)
    target = filled(target, domain, host)
    result = granted.person(account).ssh("-W", target, stdin=b"GET / HTTP/1.0\r\n\r\n")
    if allowed:
        assert "Hello from web." in result.stdout
    else:
        assert result.code == 255
        assert "Hello" not in result.stdout
        assert re.search("administratively prohibited|Bad stdio forwarding", result.stderr)


def test_an_accounts_key_may_be_the_ninth_of_the_agent(alice: Person, machine: Client) -> None:
    """Each of the others is offered before it."""
    machine.shell(
        "ssh-agent -a /run/agent9 >/run/agent9.log && export SSH_AUTH_SOCK=/run/agent9 && for n in $(seq 8); do "
        "ssh-keygen -q -t ed25519 -N '' -f /run/other$n && ssh-add -q /run/other$n; done && ssh-add -q /run/alice"
    ).expect()
    ssh = ["timeout", "3", "ssh", "-o", "BatchMode=yes", *machine.options(), f"{alice.account}@{machine.host}"]
    assert "There is no shell here" in machine.exec(*ssh, env={"SSH_AUTH_SOCK": "/run/agent9"}).output


def test_a_name_stays_its_owners(alice: Person, bob: Person, web: Web, visitor: Visitor, domain: str) -> None:
    """Also while she is away, and a second client of hers waits for the first."""
    refused = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"blog:80:{web}")
    with alice.tunnel("blog:80", to=web):
        assert visitor.get(f"https://blog.{domain}/").status == 200
        assert bob.ssh(*refused).code == 255
        assert alice.ssh(*refused).code == 255
    assert bob.ssh(*refused).code == 255
    with alice.tunnel("blog:80", to=web):
        assert visitor.get(f"https://blog.{domain}/").status == 200


def test_names_and_patterns_are_addresses(alice: Person, web: Web, visitor: Visitor, domain: str) -> None:
    with alice.tunnel("blog:80", "alice-any-thing:80", to=web):
        for label in ("blog", "alice-any-thing"):
            assert "Hello from web." in visitor.get(f"https://{label}.{domain}/").body


def test_the_banner_names_what_is_theirs(alice: Person, bob: Person, domain: str) -> None:
    hers, his = (person.ssh("-W", "nowhere:1").stderr for person in (alice, bob))
    for told in (f"https://blog.{domain}", f"-NR alice-x:80:localhost:3000 alice@{domain}", "public:30001:"):
        assert told in hers
        assert told not in his
    assert f"https://bob-db.{domain}" in his


def test_a_custom_domain_shows_a_name(alice: Person, web: Web, visitor: Visitor, domain: str) -> None:
    url = f"https://{SHOP}/echo"
    assert visitor.get(f"https://closed.{SHOP}/").status == 0, "nobody holds the name, so there is no certificate"
    with alice.tunnel("alice-shop:80", to=web):
        for http in ("1.1", "2", "3"):
            answer = visitor.get(url, http=http)
            assert answer.status == 200, answer.error
            assert answer.sent("Host") == [SHOP]
            assert answer.sent("X-Forwarded-Host") == [SHOP]
            assert answer.sent("X-Forwarded-Proto") == ["https"]
        assert f"DNS:{SHOP}" in visitor.certificate(SHOP)
        redirected = visitor.get(f"http://{SHOP}/a?b", http="1.1")
        assert (redirected.status, redirected.headers["location"]) == (308, f"https://{SHOP}/a?b")
    until("the page says that nobody holds it", lambda: "Nobody holds" in visitor.get(url).body)
    assert visitor.get(f"https://other.{SHOP}/").status == 0


# TLS that is not ended by the host.


def with_tls_of_her_own(accounts: Accounts) -> list[dict[str, Any]]:
    """One of Alice's domains is passed through."""
    alice, bob = alice_and_bob(accounts)
    return [alice | {"domains": alice["domains"] | {OWN: {"name": "alice-own", "passthrough": True}}}, bob]


@contextlib.contextmanager
def caddy_of_her_own(person: Person, web: Web, scenario: Scenario, challenge: str) -> Iterator[Tunnel]:
    """A Caddy at somebody's machine that gets a certificate for OWN by one kind of challenge, and its tunnel."""
    machine, other = person.machine, {"tlsalpn": "http", "http": "tlsalpn"}[challenge]
    if machine.exec("test", "-x", "/usr/local/bin/caddy").code:
        machine.copy_in(pathlib.Path(sys.executable).with_name("caddy"), "/usr/local/bin/caddy")
        machine.exec("chmod", "+x", "/usr/local/bin/caddy").expect()
    machine.copy_in(scenario.folder / "pebble.pem", "/run/pebble.pem")
    machine.write(
        "/run/Caddyfile",
        f"{{\nadmin off\nhttp_port 8080\nhttps_port 8443\nstorage file_system /run/own-{challenge}\n}}\n"
        f"{OWN} {{\nreverse_proxy {web}\ntls {{\nissuer acme https://pebble:14000/dir {{\n"
        f"trusted_roots /run/pebble.pem\ndisable_{other}_challenge\n}}\n}}\n}}\n",
    )
    with person.tunnel("alice-own:443:localhost:8443", "alice-own:80:localhost:8080") as tunnel:
        run = "caddy run --config /run/Caddyfile --adapter caddyfile >/run/own.log 2>&1"
        machine.spawn("sh", "-c", f"echo $$ >/run/own.pid; exec {run}")
        try:
            yield tunnel
        finally:
            machine.shell("kill $(cat /run/own.pid)")


def hello(name: str) -> bytes:
    """What a visitor's TLS begins with."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def test_tls_goes_unbroken_to_a_certificate_of_ones_own(
    granted: Accounts, alice: Person, web: Web, visitor: Visitor, scenario: Scenario, machine: Client, host: Host,
    domain: str,
) -> None:  # fmt: skip
    """The host has had a certificate for the domain, and shows it no more, also not by HTTP/3."""
    url, found = f"https://{OWN}/echo", "/run/own-tlsalpn/certificates/*/*/*.crt"
    with alice.tunnel("alice-own:80", to=web):
        until("the host has a certificate", lambda: visitor.get(url, http="3").status == 200)
        with ThreadPoolExecutor(1) as pool:
            # Who has come before goes on.
            held = pool.submit(visitor.websocket, f"wss://alice-own.{domain}/ws", "hello", hold=12)
            granted.apply(*with_tls_of_her_own(granted)).expect()
            assert held.result() == {"answers": ["hello"], "seconds": held.result()["seconds"], "closed": None}
    nobody = visitor.get(url)
    assert (nobody.status, nobody.total < 5) == (0, True), "the tunnel has no port 443, so it is closed at once"
    with caddy_of_her_own(alice, web, scenario, "tlsalpn") as tunnel:
        answer = until("she has a certificate", lambda: (a := visitor.get(url)).status == 200 and a)
        # Nobody on the way has written anything: her Caddy sees her own ssh.
        assert answer.sent("X-Forwarded-For")[0] in ("127.0.0.1", "::1")
        hers = machine.shell(f"openssl x509 -noout -text -in {found}").expect().stdout
        for name in (OWN, OWN.upper()):
            assert visitor.certificate(name) == hers, name
        came = visitor.exec("hostname", "-i").expect().stdout.strip()
        seen = [ipaddress.ip_address(each) for each in re.findall(r"originator (fd74:\S+) port", tunnel.output)]
        assert ipaddress.ip_address(came).packed in [each.packed[-4:] for each in seen], "her ssh -v says who comes"
        # One after the other from the same port.
        volume = host.docker("volume", "inspect", "--format={{.Mountpoint}}", "proxme-tunnel-sockets").expect().stdout
        header = b"PROXY TCP4 198.51.100.7 192.0.2.1 5555 443\r\n"
        for _ in range(2):
            sent = header + hello(OWN)
            said = (
                host.python("exchange.py", f"unix:{volume.strip()}/relay/passthrough.sock", stdin=sent).expect().stdout
            )
            assert said.startswith("\x16\x03\x03"), "a handshake"
        for options in ([], ["--insecure"]):
            refused = visitor.get(url, http="3", options=options)
            assert refused.status == 0, "by HTTP/3 nobody else answers"
            assert "QUIC" in refused.error
        # By a connection for another name of hers.
        other = f"https://alice-own.{domain}/echo"
        until("the other name answers", lambda: visitor.get(other).status)
        for http in ("1.1", "2", "3"):
            assert visitor.get(other, http=http, headers={"Host": OWN}).status == 421
        redirected = visitor.get(f"http://{OWN}/a?b", http="1.1")
        assert (redirected.status, redirected.headers["location"]) == (308, f"https://{OWN}/a?b")
        ended = visitor.websocket(f"wss://{OWN}/ws", "hello", hold=3)
        assert (ended["answers"], ended["closed"]) == (["hello"], None)
    with caddy_of_her_own(alice, web, scenario, "http"):
        until("she has a certificate by plain http", lambda: visitor.get(url).status == 200)
    granted.apply(*alice_and_bob(granted)).expect()
    with alice.tunnel("alice-own:80", to=web):
        answer = until("the host answers again", lambda: (a := visitor.get(url)).status == 200 and a)
        assert answer.sent("X-Forwarded-For") == [came]


# Services that are no web sites.


@pytest.fixture(scope="module")
def database(machine: Client) -> int:
    """Port of a PostgreSQL on the machine, which lets `postgres` in with the password `secret`."""
    script = (
        "cluster=$(pg_lsclusters --no-header | cut -d' ' -f1,2) && pg_ctlcluster $cluster start && "
        'su postgres -c "psql -c \\"ALTER USER postgres PASSWORD \'secret\'\\""'
    )
    machine.shell(script).expect()
    return 5432


def ask_database(machine: Client, host: str, port: int) -> str:
    """The answer of the PostgreSQL at host:port to a question."""
    url = f"postgresql://postgres:secret@{host}:{port}/postgres?connect_timeout=5"
    return machine.exec("psql", "--tuples-only", "--no-align", "-c", "SELECT 6*7", url).expect().stdout.strip()


def test_a_database_at_a_public_port(
    alice: Person, database: int, machine: Client, world: World, host: Host, domain: str
) -> None:
    with alice.tunnel(f"public:30001:localhost:{database}"):
        assert ask_database(machine, domain, 30001) == "42"
    refused = machine.exec("psql", "-c", "SELECT 1", f"postgresql://postgres:secret@{domain}:30001/postgres")
    assert refused.code != 0, "the port is closed with the tunnel"


def test_a_database_in_a_private_tunnel(
    alice: Person, bob: Person, database: int, machine: Client, domain: str
) -> None:
    with bob.tunnel(f"bob-db:{database}:localhost:{database}"):
        alice.tunnel().stop()
        with alice.machine.tunnel(user="alice", options=[*alice.options, "-L", f"5433:bob-db:{database}"]) as tunnel:
            until("the client listens", lambda: "Local forwarding listening" in tunnel.output)
            assert ask_database(machine, "localhost", 5433) == "42"


def test_git_over_a_jump(alice: Person, bob: Person, machine: Client, granted: Accounts) -> None:
    """An sshd behind a NAT, reached with ssh -J by whom `reach` allows."""
    machine.shell(
        "mkdir -p /run/sshd /root/.ssh && cp /run/alice.pub /root/.ssh/authorized_keys && chmod -R go= /root/.ssh && "
        "/usr/sbin/sshd -p 2200 && git init -q --bare /root/project && git clone -q /root/project /run/work && "
        "cd /run/work && git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m first && git push -q"
    ).expect()
    jump = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes"

    def clone(person: Person, to: str) -> Result:
        login = f"ssh {jump} -i /run/alice -p {machine.port} -W %h:%p {person.account}@{machine.host}"
        command = f"ssh {jump} -i /run/alice -o 'ProxyCommand={login}'"
        return machine.exec("git", "clone", "root@bob-box:/root/project", to, env={"GIT_SSH_COMMAND": command})

    with bob.tunnel("bob-box:22:localhost:2200"):
        clone(alice, "/run/cloned").expect()
        assert "first" in machine.exec("git", "-C", "/run/cloned", "log", "--oneline").expect().stdout
        refused = clone(granted.person("tunnel"), "/run/stolen")
        assert refused.code != 0
        assert "administratively prohibited" in refused.stderr


# Keys and certificates.


def test_options_of_a_key_count(granted: Accounts, operator: Operator, machine: Client) -> None:
    """Also: a key of the shared account, who may no more come without."""
    elsewhere = f'from="192.0.2.1" {granted.key("dave")}'
    over = f'expiry-time="20200101" {granted.key("erin")}'
    entries = [
        *alice_and_bob(granted),
        {"name": "dave", "keys": [elsewhere]},
        {"name": "erin", "keys": [over]},
        {"name": "frank", "keys": [granted.key("frank")], "expires": "2999-12-31"},
    ]
    granted.apply(*entries, tunnel_shared_account_keys=[granted.key("bob")]).expect()
    for name, allowed in {"alice": True, "frank": True, "dave": False, "erin": False, "tunnel": False}.items():
        assert granted.person(name).logs_in() is allowed, name
    assert Person(machine, "tunnel", "/run/bob").logs_in()
    assert not Person(machine, "alice", "/run/bob").logs_in(), "a key of somebody else"
    granted.apply(*alice_and_bob(granted)).expect()
    assert granted.person("tunnel").logs_in()


def test_certificates_of_users(granted: Accounts, machine: Client, tmp_path: pathlib.Path) -> None:
    """A short-lived certificate lets in as long as it is valid, for the account that it names."""

    def certificate(holder: str, principals: str, validity: str) -> Person:
        machine.shell(
            f"test -e /run/{holder} || ssh-keygen -q -t ed25519 -N '' -f /run/{holder}; "
            f"ssh-keygen -q -s /run/authority -I {holder} -n {principals} -V {validity} /run/{holder}.pub"
        ).expect()
        return Person(machine, "carol", f"/run/{holder}")

    authority = granted.key("authority")
    carol = {"name": "carol", "names": ["carol"], "principals": ["developers"]}
    certificate("lost", "carol", "+1h")
    revoked = tmp_path / "revoked"
    revoked.write_text(machine.read("/run/lost.pub"))
    variables = {"tunnel_user_ca": [authority], "tunnel_revoked_keys": str(revoked)}
    granted.apply(*alice_and_bob(granted), carol, **variables).expect()
    assert certificate("own", "carol", "+1h").logs_in()
    assert certificate("team", "developers", "+1h").logs_in()
    assert not certificate("other", "alice", "+1h").logs_in()
    assert not certificate("old", "carol", "-2h:-1h").logs_in()
    assert not Person(machine, "carol", "/run/lost").logs_in(), "its key is revoked"
    short = certificate("short", "carol", "-1h:+4s")
    assert short.logs_in()
    until("the certificate has ended", lambda: not short.logs_in(), within=15)
    granted.apply(*alice_and_bob(granted)).expect()
    assert not certificate("late", "carol", "+1h").logs_in()


def test_an_account_ends_on_its_day(granted: Accounts, host: Host, web: Web) -> None:
    """The day is over: sshd refuses logins, and live connections end."""
    granted.apply(*alice_and_bob(granted), granted.entry("gina", names=["gina"], expires="2999-12-31")).expect()
    gina, bob = granted.person("gina"), granted.person("bob")
    hers, his = gina.tunnel("gina:80", to=web), bob.tunnel("bob-box:80", to=web)
    shadow = "/etc/proxme-tunnel/sshd_tunnel/accounts/shadow"
    yesterday = int(time.time() / 86400) - 1
    host.exec("sed", "-i", rf"s/^\(gina:.*::\)[0-9]*:$/\1{yesterday}:/", shadow).expect()
    assert f"::{yesterday}:" in host.read(shadow)
    until("her connection has ended", lambda: not hers.running, within=20)
    assert not gina.logs_in()
    assert his.running


# Changes.


def test_a_new_account_disturbs_nobody(
    granted: Accounts, alice: Person, web: Web, visitor: Visitor, domain: str
) -> None:
    """Adding one takes at most 20 s (longer on a slow machine), and a download through another's tunnel goes on."""
    granted.apply(*alice_and_bob(granted)).expect()
    with alice.tunnel("blog:80", to=web) as tunnel:
        size = 256 * 2**20
        script = "curl -sS --cacert /run/root.pem --limit-rate 6M -o /dev/null -w '%{size_download} %{http_code}' "
        script += f"https://blog.{domain}/bytes/{size} >/run/slow 2>&1; echo >>/run/slow"
        visitor.exec("rm", "-f", "/run/slow")
        visitor.spawn("sh", "-c", script)
        run = granted.apply(*alice_and_bob(granted), granted.entry("henry", names=["henry"])).expect()
        assert visitor.exec("cat", "/run/slow").stdout.strip() == "", (
            "the download was over before: this test shows nothing"
        )
        assert run.seconds <= 20 or run.seconds <= 20 * slowness(granted.operator.scenario.host), (
            f"it took {run.seconds:.0f} s"
        )
        with granted.person("henry").tunnel("henry:80", to=web):
            assert visitor.get(f"https://henry.{domain}/").status == 200
        until("the download is over", lambda: visitor.exec("cat", "/run/slow").stdout.strip(), within=90)
        assert visitor.exec("cat", "/run/slow").stdout.split() == [str(size), "200"]
        assert tunnel.running


def test_what_an_account_loses_ends_its_connections(granted: Accounts, web: Web, host: Host) -> None:
    """Not those of others, and not when it gains something. A user id is never given to another account."""
    henry = granted.entry("henry", names=["henry"])
    granted.apply(*alice_and_bob(granted), henry).expect()
    tunnels = {name: granted.person(name).tunnel(f"{port}", to=web) for name, port in
               {"alice": 8101, "bob": 8102, "henry": 8103, "tunnel": 8104}.items()}  # fmt: skip
    before = host.read("/etc/proxme-tunnel/sshd_tunnel/accounts/passwd")

    # Henry gains a name, Bob loses one.
    alice, bob = alice_and_bob(granted)
    bob["names"].remove("bob-box")
    alice["reach"].remove("bob-box:22")
    alice["reach"].remove("bob-db:5432")
    alice["reach"].append("henry:22")
    granted.apply(alice | {"reach": []}, bob, henry | {"names": ["henry", "henry-*"]}).expect()
    ended = time.monotonic()
    assert tunnels["bob"].wait_ended(within=5) == 255
    assert tunnels["alice"].wait_ended(within=5) == 255
    assert time.monotonic() - ended < 5
    assert tunnels["henry"].running
    assert tunnels["tunnel"].running
    until("bob is back with what is left", lambda: granted.person("bob").logs_in(), within=5)

    # Henry is removed, a new one comes.
    granted.apply(alice | {"reach": []}, bob, granted.entry("ines", names=["ines"])).expect()
    tunnels["henry"].wait_ended(within=5)
    assert not granted.person("henry").logs_in()
    assert granted.person("ines").logs_in()
    assert tunnels["tunnel"].running
    users = dict(
        re.findall(r"^(\w+):x:(\d+):", before + host.read("/etc/proxme-tunnel/sshd_tunnel/accounts/passwd"), re.M)
    )
    assert len(set(users.values())) == len(users), users


def less_of_alice(accounts: Accounts) -> list[dict[str, Any]]:
    """Alice has lost blog."""
    alice, bob = alice_and_bob(accounts)
    return [alice | {"names": ["alice-*"]}, bob]


def test_a_run_that_died_is_made_up_for(granted: Accounts, alice: Person, bob: Person, web: Web, host: Host) -> None:
    """The files are written, sshd is not told: the next run tells it, and ends what is to be ended."""
    granted.apply(*alice_and_bob(granted)).expect()
    hers, his = alice.tunnel("blog:80", to=web), bob.tunnel("bob-box:80", to=web)
    host.docker("pause", "proxme-tunnel-sshd").expect()
    try:
        died = granted.apply(*less_of_alice(granted))
    finally:
        host.docker("unpause", "proxme-tunnel-sshd").expect()
    assert died.code != 0
    assert "paused" in died.message + died.output
    assert "/etc/proxme-tunnel/sshd_tunnel/sshd_config" in died.changed
    assert hers.running
    granted.apply(*less_of_alice(granted)).expect()
    hers.wait_ended(within=5)
    refused = alice.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"blog:80:{web}")
    assert "remote port forwarding failed" in refused.stderr
    assert his.running


def test_who_is_still_logging_in_comes_in_with_what_is_left(
    granted: Accounts, machine: Client, web: Web, host: Host
) -> None:
    """Someone who types a passphrase while a name is taken away begins again."""
    granted.apply(*alice_and_bob(granted)).expect()

    def in_force() -> str:
        return host.inside("proxme-tunnel-sshd", "cat", "/run/sshd/configuration").expect().stdout

    machine.shell(
        "cp /run/alice /run/locked && cp /run/alice.pub /run/locked.pub && "
        "ssh-keygen -q -p -N secret -f /run/locked && "
        "printf '#!/bin/sh\\nuntil [ -e /run/go ]; do sleep 0.1; done; echo secret' >/run/ask && chmod +x /run/ask && "
        "rm -f /run/go /run/late-*"
    ).expect()
    options = " ".join([*machine.options(), "-v", "-o IdentitiesOnly=yes -o ExitOnForwardFailure=yes -i /run/locked"])
    login = f"ssh {options} -NR blog:80:{web} alice@{machine.host}"
    ask = "SSH_ASKPASS=/run/ask SSH_ASKPASS_REQUIRE=force"
    old, tries, late = in_force(), 0, None
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(granted.apply, *less_of_alice(granted))
        # A login may take 20 s, and a run longer on a slow machine: one begins every 4 s until sshd is reloaded.
        while in_force() == old and not run.done():
            tries, started = tries + 1, time.monotonic()
            name = f"/run/late-{tries}"
            machine.spawn("sh", "-c", f"{ask} {login} >{name}.log 2>&1; echo $? >{name}.code")
            until("ssh asks for the passphrase", lambda name=name: "Server accepts key" in machine.read(f"{name}.log"))
            if in_force() == old:
                late = (name, started)
            until("4 s are over", lambda at=started: in_force() != old or run.done() or time.monotonic() > at + 4)
        run.result().expect()
    assert late, "sshd was reloaded before the first login: this shows nothing"
    name, started = late
    machine.shell("touch /run/go").expect()
    until("ssh has ended", lambda: machine.exec("cat", f"{name}.code").stdout == "255\n")
    assert time.monotonic() - started < 20, "it would have been cut off anyway"
    for number in range(1, tries + 1):
        said = machine.read(f"/run/late-{number}.log")
        assert "Authenticated to" not in said
        assert "remote forward success" not in said


def test_who_comes_back_at_once_spares_nobody(granted: Accounts, machine: Client, web: Web, host: Host) -> None:
    """Clients that reconnect without a pause do not keep the host from ending the connections of others."""
    henry = granted.entry("henry", names=["henry"])
    granted.apply(*alice_and_bob(granted), henry).expect()
    tunnel = granted.person("henry").tunnel("henry:80", to=web)
    options = " ".join([*machine.options(), "-o IdentitiesOnly=yes -i /run/alice"])
    machine.shell("rm -f /run/enough")
    for port in range(8200, 8204):
        loop = f"while [ ! -e /run/enough ]; do ssh {options} -NR {port}:{web} alice@{machine.host}; done"
        machine.spawn("sh", "-c", f"{loop} >/dev/null 2>&1")
    until("they are there", lambda: len(host.sessions()) >= 5)
    try:
        granted.apply(*less_of_alice(granted)).expect()
        tunnel.wait_ended(within=5)
    finally:
        machine.shell("touch /run/enough; pkill -f 'NR 820'")


def test_a_second_run_changes_nothing(granted: Accounts) -> None:
    granted.apply(*alice_and_bob(granted)).expect()
    assert granted.apply(*alice_and_bob(granted)).expect().changed == []


def test_who_is_connected(
    granted: Accounts, operator: Operator, alice: Person, bob: Person, web: Web, client: Client, machine: Client,
    host: Host,
) -> None:  # fmt: skip
    granted.apply(*alice_and_bob(granted)).expect()
    alice.tunnel("blog:80", "alice-some-thing:22", "public:30001", to=web)
    bob.tunnel("8190", to=web)
    client.tunnel("guest-seen:80", to=web)
    addresses = {c.name: c.exec("hostname", "-i").expect().stdout.strip() for c in (machine, client)}
    run = operator.run(ROOT / "playbooks/connections.yml").expect()
    assert run.changed == []
    shown = re.findall(r"(\w+) from (\S+) since \S+ \S+ UTC holds ([^\"]+)\"", run.output)
    # Once by the module, and once to be read.
    assert sorted(shown)[::2] == sorted(shown)[1::2]
    assert sorted(set(shown)) == [
        ("alice", addresses[machine.name], "alice-some-thing:22, blog:80, public:30001"),
        ("bob", addresses[machine.name], "8190"),
        ("tunnel", addresses[client.name], "guest-seen:80"),
    ]
    passwd = "/etc/proxme-tunnel/sshd_tunnel/accounts/passwd"
    uid = re.search(r"^bob:x:(\d+)", host.read(passwd), re.M)[1]
    host.exec("sed", "-i", "/^bob:/d", passwd).expect()
    run = operator.run(ROOT / "playbooks/connections.yml").expect()
    assert f"removed account {uid} from {addresses[machine.name]} since" in run.output
    granted.apply(*alice_and_bob(granted)).expect()


def median_login(person: Person) -> float:
    """Seconds that a login takes, the median of nine."""
    times = []
    for _ in range(9):
        started = time.monotonic()
        assert person.logs_in()
        times.append(time.monotonic() - started)
    return statistics.median(times)


def test_two_hundred_accounts(granted: Accounts, alice: Person) -> None:
    one = granted.apply(alice_and_bob(granted)[0] | {"reach": []}).expect()
    alone = median_login(alice)
    key = granted.key("crowd")
    crowd = [
        {"name": f"user{n}", "keys": [key], "names": [f"user{n}-{word}" for word in ("a", "b", "c", "d", "e-*")]}
        for n in range(199)
    ]
    many = granted.apply(alice_and_bob(granted)[0] | {"reach": []}, *crowd).expect()
    crowded = median_login(alice)
    assert many.seconds <= 2 * one.seconds, f"{one.seconds:.1f} s with one account, {many.seconds:.1f} s with 200"
    assert crowded <= 1.3 * alone, f"a login takes {alone:.3f} s with one account, {crowded:.3f} s with 200"
    assert Person(granted.machine, "user198", "/run/crowd").logs_in()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([{"names": ["bob-*"]}, {}], 'Account bob: the name "bob-db" meets "bob-*", which is a name of alice.'),
        ([{"keys": ["ssh-ed25519 AAAAB3Nza broken"]}, {}], "Account alice: The key"),
        ([{"reach": ["nobody-box:22"]}, {}], "but no account has the name nobody-box"),
        ([{"tcp_ports": [31000]}, {}], "Account alice: tcp_ports has 31000, but the range is 30000-30009"),
    ],
    ids=["overlapping names", "damaged key", "unknown reach", "port outside the range"],
)
def test_bad_input_is_refused_before_anything_changes(
    granted: Accounts, changes: Sequence[dict[str, Any]], said: str
) -> None:
    """All kinds of it are in tests/unit/test_accounts_script.py; these show that a run stops."""
    run = granted.apply(*(entry | change for entry, change in zip(alice_and_bob(granted), changes, strict=True)))
    assert run.code != 0
    assert run.changed == []
    assert said in run.message


def test_a_range_of_ports_is_not_changed_unasked(operator: Operator) -> None:
    run = operator.run(variables={"tunnel_tcp_ports": "30000-30004"})
    assert run.code != 0
    assert run.changed == []
    assert "That ends all tunnels once. Set tunnel_allow_disruption to true" in run.message
