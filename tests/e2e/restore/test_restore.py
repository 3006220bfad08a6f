# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup, the loss of the host, and a restore on another machine; in this order."""

from __future__ import annotations

import pathlib
import re

import pytest
from playbook import ROOT, Operator, Run
from world import Ca, Client, Host, Scenario, Visitor, Web, run, until

BACKUP, RESTORE = ROOT / "playbooks/backup.yml", ROOT / "playbooks/restore.yml"
NAME = "guest-kept"
# Which host has them, as a client's ssh shows them.
KEYS = "ssh-keyscan -p 2222 -t ed25519,rsa {host} 2>/dev/null | sort"


def archives(scenario: Scenario) -> list[pathlib.Path]:
    """The archives that there are, the oldest first."""
    return sorted((scenario.folder / "backup").glob("*.vault"))


def serial(visitor: Visitor, name: str) -> str:
    """Serial number of the certificate that a name is shown with."""
    return re.search(r"Serial Number:\s*(\S+)", visitor.certificate(name))[1]


@pytest.fixture(scope="module")
def before(operator: Operator, client_of_old: Client, web: Web, visitor: Visitor, ca: Ca, domain: str) -> dict:
    """What clients and visitors know of the first host, and its archive."""
    accounts = []
    for name in ("first", "second"):
        client_of_old.shell(f"ssh-keygen -q -t ed25519 -N '' -f /run/{name}").expect()
        accounts.append({"name": name, "keys": [client_of_old.read(f"/run/{name}.pub").strip()], "names": [name]})
    operator.run(variables={"tunnel_accounts": accounts}).expect()
    # An id that only the state knows: the account in front of it is gone.
    operator.run(ROOT / "playbooks/accounts.yml", variables={"tunnel_accounts": accounts[1:]}).expect()
    with client_of_old.tunnel(f"{NAME}:80", to=web):
        until("it has a certificate", lambda: visitor.get(f"https://{NAME}.{domain}/").status == 200)
        serials = {name: serial(visitor, name) for name in (domain, f"{NAME}.{domain}")}
    keys = client_of_old.shell(KEYS.format(host=client_of_old.host)).expect().stdout
    done = operator.run(BACKUP).expect()
    return {"serials": serials, "keys": keys, "accounts": accounts[1:], "run": done, "orders": ca.orders()}


@pytest.fixture(scope="module")
def client_of_old(_client: Client) -> Client:
    """A client that knows the first host."""
    return _client


def uids(host: Host) -> dict[str, str]:
    """User ids of the accounts."""
    lines = host.read("/etc/proxme-tunnel/sshd_tunnel/accounts/passwd").splitlines()
    return {name: uid for name, _, uid, *_ in (line.split(":") for line in lines if not line.startswith("#"))}


def refused(done: Run, said: str) -> None:
    """Expect that a run failed with these words before it changed anything."""
    assert done.code != 0
    assert done.changed == []
    assert said in done.message


def test_the_archive_can_be_read_by_nobody_else(before: dict, scenario: Scenario, domain: str) -> None:
    [archive] = archives(scenario)
    assert str(archive) in before["run"].output
    assert archive.stat().st_mode & 0o777 == 0o600
    data = archive.read_bytes()
    assert data.startswith(b"$ANSIBLE_VAULT;")
    assert b"PRIVATE KEY" not in data
    assert domain.encode() not in data
    assert "correct horse" not in before["run"].output


def test_a_missing_passphrase_is_refused(before: dict, operator: Operator) -> None:
    refused(operator.run(BACKUP, variables={"tunnel_backup_passphrase": ""}), "tunnel_backup_passphrase is missing")


@pytest.mark.parametrize("damage", ["wrong passphrase", "flipped byte", "cut off", "foreign domain", "no file"])
def test_what_cannot_be_restored_is_refused(
    damage: str, before: dict, operator: Operator, scenario: Scenario, tmp_path: pathlib.Path
) -> None:
    """With a sentence, and before anything changes; a host with other keys as well (below)."""
    [archive] = archives(scenario)
    bad = tmp_path / "bad.vault"
    data = archive.read_bytes()
    middle = len(data) // 2
    variables = {"tunnel_backup_file": str(bad)}
    said = "cannot be decrypted"
    if damage == "wrong passphrase":
        variables["tunnel_backup_passphrase"] = "another passphrase"
    elif damage == "flipped byte":
        data = data[:middle] + (b"6" if data[middle : middle + 1] != b"6" else b"7") + data[middle + 1 :]
    elif damage == "cut off":
        data = data[:middle]
    elif damage == "foreign domain":
        variables["tunnel_domain"], said = "other.example", f"is of {scenario.domain}, and this host is other.example"
    bad.write_bytes(data)
    if damage == "no file":
        bad.unlink()
        said = "cannot be read (No such file or directory)"
    refused(operator.run(RESTORE, variables=variables), said)


def test_another_machine_takes_over(
    before: dict, operator: Operator, scenario: Scenario, host: Host, client_of_old: Client, web: Web,
    visitor: Visitor, ca: Ca, domain: str,
) -> None:  # fmt: skip
    """Clients that trust none but the first host's key connect; visitors see the same certificates; none is ordered."""
    old = uids(host)
    replace_host(operator, scenario)
    assert host.shell("ls /var/lib/proxme-tunnel").code != 0
    [archive] = archives(scenario)
    variables = {"tunnel_backup_file": str(archive), "tunnel_accounts": before["accounts"]}
    operator.run(RESTORE, variables=variables).expect()

    assert client_of_old.shell(KEYS.format(host=client_of_old.host)).expect().stdout == before["keys"]
    client_of_old.write("/run/known_hosts", before["keys"])
    strict = ["-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/run/known_hosts"]
    with client_of_old.tunnel(f"{NAME}:80", to=web, options=strict):
        until("the landing page is there", lambda: visitor.get(f"https://{domain}/").status == 200, within=20)
        assert "Hello from web." in visitor.get(f"https://{NAME}.{domain}/").body
        assert {name: serial(visitor, name) for name in before["serials"]} == before["serials"]
    assert ca.orders() == before["orders"]
    assert uids(host) == old
    assert operator.run(variables={"tunnel_accounts": before["accounts"]}).expect().changed == []


def replace_host(operator: Operator, scenario: Scenario) -> None:
    """Stop the scenario's host for good, and start a new, bare machine with its address."""
    run("docker", "stop", "--time=30", scenario.host).expect()
    run("docker", "rename", scenario.host, f"{scenario.host}-old").expect()
    create = ROOT / "molecule/shared/create.yml"
    operator.run(create).expect()


def test_other_host_keys_are_replaced_only_when_told(
    before: dict, operator: Operator, scenario: Scenario, host: Host, client_of_old: Client
) -> None:
    """The host has made new keys; the present data is kept beside."""
    [archive] = archives(scenario)
    host.shell("rm /var/lib/proxme-tunnel/sshd_tunnel/ssh_host_*").expect()
    operator.run(variables={"tunnel_accounts": before["accounts"]}).expect()
    variables = {"tunnel_backup_file": str(archive), "tunnel_accounts": before["accounts"]}
    refused(operator.run(RESTORE, variables=variables), "This host has other host keys than the archive")
    operator.run(RESTORE, variables=variables | {"tunnel_restore_over_other_keys": True}).expect()
    assert client_of_old.shell(KEYS.format(host=client_of_old.host)).expect().stdout == before["keys"]
    kept = "/var/lib/proxme-tunnel.before-restore/sshd_tunnel/ssh_host_ed25519_key.pub"
    assert host.read(kept).split()[1] not in before["keys"]


def test_a_second_backup_stands_beside_the_first(operator: Operator, scenario: Scenario, before: dict) -> None:
    operator.run(BACKUP).expect()
    assert len(archives(scenario)) == 2
