# SPDX-License-Identifier: GPL-3.0-or-later
"""Who held which name, when and from where, can be said for as many days as the operator wants, and no longer."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import pytest
from world import Client, Host, Visitor, Web, until

FOLDER = "/var/log/proxme-tunnel"


def keep(host: Host) -> str:
    """Let the host keep the log, as its timer does each ten minutes; what is kept so far."""
    host.exec("systemctl", "start", "proxme-tunnel-log.service").expect()
    return host.shell(f"cat {FOLDER}/sshd-*.log").expect().stdout


@pytest.fixture
def name() -> str:
    """A name that no log knows yet."""
    return f"guest-{secrets.token_hex(4)}"


@pytest.fixture
def full(host: Host) -> Iterator[None]:
    """The disk on which the logs are is full."""
    host.shell(f"mkdir /run/logs && mount --bind {FOLDER} /run/logs").expect()
    host.shell(f"mount -t tmpfs -o size=4k tmpfs {FOLDER} && cp -a /run/logs/sshd-kept-until {FOLDER}").expect()
    assert host.shell(f"cat /dev/zero >{FOLDER}/filler").code == 1
    yield
    host.shell(f"umount {FOLDER} /run/logs && rmdir /run/logs").expect()


def test_who_held_a_name_is_kept_once(host: Host, client: Client, web: Web, name: str) -> None:
    with client.tunnel(f"{name}:80", to=web):
        pass
    origin = client.exec("hostname", "-i").expect().stdout.strip()
    # What was logged within these two seconds is kept the next time.
    kept = until("the log is kept", lambda: (f" addr {name}\n" in (found := keep(host))) and found, every=0.5)
    # As docs/abuse.md has it: who asked for the name, whose child that process is, and who logged in there.
    asked = host.shell(f"awk '$4 == \"debug3:\" && $13 ~ /^{name}(\\.|$)/' {FOLDER}/sshd-*.log").expect().stdout
    [(time, process)] = re.findall(r"^(\S+) proxme-tunnel-sshd sshd-session\[(\d+)\]: .*\n", asked, re.M)
    before = kept[: kept.index(asked)]
    parents = re.findall(rf"^\S+ \S+ sshd-session\[(\d+)\]: User child is on pid {process}$", before, re.M)
    origins = re.findall(rf"^\S+ \S+ sshd-session\[{parents[-1]}\]: Accepted none for tunnel from (\S+) ", before, re.M)
    assert origins[-1] == origin
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", time)
    assert keep(host).count(f" addr {name}\n") == 1
    assert host.shell(f"stat -c %a {FOLDER}/sshd-*.log").expect().stdout.split()[-1] == "600"


def test_what_is_older_than_the_days_is_removed(host: Host) -> None:
    host.shell(f"touch -d '14 days ago' {FOLDER}/sshd-2000-01-01.log").expect()
    host.shell(f"touch -d '13 days ago' {FOLDER}/sshd-2000-01-02.log").expect()
    keep(host)
    assert host.exec("test", "-e", f"{FOLDER}/sshd-2000-01-01.log").code == 1
    host.exec("rm", f"{FOLDER}/sshd-2000-01-02.log").expect()


def test_a_full_disk_stops_no_tunnel_and_loses_nothing(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str, name: str, request: pytest.FixtureRequest
) -> None:
    keep(host)
    request.getfixturevalue("full")
    with client.tunnel(f"{name}:80", to=web):
        assert visitor.get(f"https://{name}.{domain}/").status == 200
        assert host.exec("systemctl", "start", "proxme-tunnel-log.service").code == 1
        assert visitor.get(f"https://{name}.{domain}/").status == 200
    host.shell(f"rm {FOLDER}/filler; umount {FOLDER}; mount --bind /run/logs {FOLDER}").expect()
    until("the log is kept", lambda: keep(host).count(f" addr {name}\n") == 1, every=0.5)


def test_visitors_are_logged_where_the_operator_wants_it(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """With what is needed to say who it was, and nothing else."""
    with client.tunnel("guest-seen:80", to=web):
        url = f"https://guest-seen.{domain}/status/418?secret=yes"
        assert visitor.get(url, headers={"X-Forwarded-For": "192.0.2.200", "Cookie": "secret"}).status == 418

    def logged() -> dict:
        lines = host.read(f"{FOLDER}/visitors/visitors.log").splitlines()
        return next((json.loads(line) for line in lines if "192.0.2.200" in line), {})

    entry = until("the visit is logged", logged)
    assert entry["request"] == {"client_ip": "192.0.2.200", "host": f"guest-seen.{domain}"}
    assert entry["status"] == 418
    assert re.match(r"20\d\d-\d\d-\d\dT", entry["ts"])
    assert "secret" not in json.dumps(entry)
