# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd logs can be relied on: each line is sshd's own, nothing is in it that nobody needs, and it stops no one."""

from __future__ import annotations

import re
import secrets

import pytest
from world import Client, Host, Visitor, Web, until

SSHD = "proxme-tunnel-sshd"
# serve speaks for itself, and so does sshd before it has read its configuration.
LINE = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (sshd\S*\[\d+\]:|watch-log:|syslogd started:) |serve: ")


@pytest.fixture
def name() -> str:
    """A name that no log knows yet."""
    return f"guest-{secrets.token_hex(4)}"


def log(host: Host) -> str:
    """What sshd has logged."""
    return host.docker("logs", SSHD).expect().output


def test_what_a_client_sends_begins_no_line(host: Host, client: Client, web: Web, name: str) -> None:
    """The name of a forward, of two lines. What the shared account may have begins like it."""
    client.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{name}\nsecond of {name}:80:{web}", timeout=3)
    until("it is logged", lambda: log(host).count(f"second of {name}") >= 2)
    said = log(host).splitlines()
    assert [line for line in said if not LINE.match(line)] == []
    assert all(f"{name}\\nsecond of {name}" in line for line in said if f"second of {name}" in line)


def test_a_keepalive_is_not_logged(host: Host, client: Client, web: Web, name: str) -> None:
    with client.tunnel(f"{name}:80", to=web, options=["-vv", "-o", "ServerAliveInterval=1"]) as tunnel:
        until("the name is logged", lambda: f" addr {name}\n" in log(host))
        [process] = re.findall(rf"sshd-session\[(\d+)\]: .* addr {name}$", log(host), re.MULTILINE)
        before = log(host).count(f"sshd-session[{process}]: ")
        until("three keepalives are answered", lambda: len(re.findall("receive packet: type 8[12]", tunnel.output)) > 3)
        assert log(host).count(f"sshd-session[{process}]: ") == before
        assert "keepalive" not in log(host)


def test_a_syslogd_that_hangs_or_dies_is_started_again_and_stops_no_login(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str, name: str
) -> None:
    def logged(name: str) -> bool:
        with client.tunnel(f"{name}:80", to=web):
            return f" addr {name}\n" in log(host)

    def stopped() -> bool:
        return "T" in host.inside(SSHD, "ps", "-C", "busybox", "-o", "s=").stdout

    started = host.started(SSHD)
    with client.tunnel(f"{name}:80", to=web) as tunnel:
        host.inside(SSHD, "pkill", "-STOP", "-x", "busybox").expect()
        assert stopped()
        # More lines than fit into its queue.
        for number in range(3):
            client.tunnel(f"{name}-{number}:80", to=web).stop()
        until("it is started again", lambda: not stopped(), within=20)
        until("logins are logged", lambda: logged(f"{name}-hung"))
        host.inside(SSHD, "pkill", "-KILL", "-x", "busybox").expect()
        until("logins are logged again", lambda: logged(f"{name}-died"))
        assert tunnel.running
        assert visitor.get(f"https://{name}.{domain}/").status == 200
    assert host.started(SSHD) == started
