# SPDX-License-Identifier: GPL-3.0-or-later
"""What watch-log makes of sshd's lines and of the kernel's tables: lines are passed on, frozen clients alone end."""

from __future__ import annotations

import pytest
from programs import FOLDER

HEAD = "Nov  8 05:15:47"
# A client of process 42, which logged in by 41 and holds a name's port 80 and, over IPv6, port 8080.
LINES = [
    f"{HEAD} sshd-session[41]: Accepted none for tunnel from 192.0.2.7 port 5555 ssh2",
    f"{HEAD} sshd-session[41]: User child is on pid 42",
    f"{HEAD} sshd-session[42]: debug3: channels.c:channel_setup_fwd_listener_tcpip():3790 (bin=sshd-session, pid=42): "
    "type 4 wildcard 0 addr guest-x",
    f"{HEAD} sshd-session[42]: debug1: channels.c:channel_setup_fwd_listener_tcpip():3850 (bin=sshd-session, pid=42): "
    "Local forwarding listening on fd74::1 port 80.",
]
REFUSED = [
    f"{HEAD} sshd-session[{process}]: {level}: channels.c:x():3939 (bin=sshd-session, pid={process}): {text}"
    for process in (42, 52)
    for level, text in (
        ("debug1", "Local forwarding listening on fd74::1 port 80."),
        ("error", "bind [fd74::1]:80: Address already in use"),
    )
]
# The client without a word for 24 s; the visitor's request of 100 bytes waits since 21 s.
CLIENT = (
    "0 0 172.17.0.2:2222 192.0.2.7:5555 timer:(keepalive,1sec,0) ino:1 sk:2 cubic lastsnd:900 lastrcv:24000 lastack:900"
)
VISITOR = "ESTAB 100 0 [fd74::1]:80 [::1]:4000 cubic lastsnd:21000 lastrcv:21000 bytes_received:100 lastack:9"
# Says what a file has; and what was asked for is written down.
SS = f"""#!/bin/sh
case $* in *established*) cat {FOLDER}/clients;; *) cat {FOLDER}/visitors;; esac
"""
KILL = '#!/bin/sh\necho "$@" >>/tmp/killed\n'


@pytest.fixture
def watch(sshd):
    """Return a function that gives what watch-log says, and what it ends, where the kernel has these connections."""

    def _watch(clients: str = CLIENT, visitors: str = VISITOR, lines: list[str] = LINES) -> tuple[list[str], list[str]]:
        files = {"ss": SS, "setpriv": KILL, "ps": "#!/bin/sh\necho 20000\n", "clients": f"{clients}\n"}
        files |= {"visitors": f"{visitors}\n", "lines": "".join(f"{line}\n" for line in [*lines, f"{HEAD} tick: ."])}
        said = sshd.accept(
            files,
            f"""
            rm -rf /tmp/bin /tmp/killed /run/sshd/ticked
            mkdir -p /tmp/bin /run/sshd
            for name in ss setpriv ps; do cp {FOLDER}/$name /tmp/bin; chmod +x /tmp/bin/$name; done
            PATH=/tmp/bin:$PATH watch-log <{FOLDER}/lines
            rm /run/sshd/ticked
            echo ===
            [ ! -e /tmp/killed ] || cat /tmp/killed
            """,
        )
        passed, killed = said.split("===\n")
        return passed.splitlines(), killed.splitlines()

    return _watch


def test_a_frozen_client_is_ended_by_its_account(watch):
    passed, killed = watch()
    assert killed == ["--reuid 20000 --regid 65534 --clear-groups kill 42"]
    assert passed == [*LINES, f"{HEAD} watch-log: 192.0.2.7:5555 does not answer: process 42 ends"]


@pytest.mark.parametrize(
    ("at", "silent", "waits", "ended"),
    [
        ("169.254.22.1", 16000, 13000, True),
        ("[fd75::22]", 16000, 13000, True),
        ("169.254.22.1", 15900, 13000, False),
        ("169.254.22.1", 16000, 12900, False),
        # Whoever came straight to sshd has its time.
        ("172.17.0.2", 16000, 13000, False),
    ],
)
def test_who_came_by_the_https_port_is_ended_earlier_since_one_that_is_cut_off_looks_frozen(
    watch, at, silent, waits, ended
):
    client = CLIENT.replace("172.17.0.2", at).replace("24000", str(silent))
    visitor = VISITOR.replace("21000", str(waits))
    assert len(watch(client, visitor)[1]) == ended


def test_a_frozen_client_over_ipv6_is_ended(watch):
    lines = [line.replace("192.0.2.7", "2001:db8::7") for line in LINES]
    assert len(watch(CLIENT.replace("192.0.2.7:", "[2001:db8::7]:"), lines=lines)[1]) == 1


def test_a_frozen_client_is_known_whoever_asked_for_its_name_since(watch):
    assert watch(lines=[*LINES, *REFUSED[2:]])[1] == watch()[1]


def test_one_that_reads_nothing_more_is_frozen_however_much_waits_for_it(watch):
    full = CLIENT.replace("0 0 ", "0 500000 ").replace("timer:(keepalive", "timer:(persist")
    assert len(watch(full)[1]) == 1


def test_a_visitor_who_has_gone_shows_it_too(watch):
    gone = VISITOR.replace("ESTAB", "CLOSE-WAIT").replace("received:100", "received:101")
    assert len(watch(visitors=gone)[1]) == 1


HONEST = {
    "one who has said something": {"clients": CLIENT.replace("24000", "22000")},
    "a slow line, on which there is still something": {"clients": CLIENT.replace("0 0 ", "0 500000 ")},
    "an upload that its service does not take": {"visitors": VISITOR.replace("received:100", "received:90000")},
    "a service that has not answered yet": {"visitors": VISITOR.replace("ESTAB 100", "ESTAB 0")},
    "a visitor who has come just now": {"visitors": VISITOR.replace("rcv:21000", "rcv:900")},
    "one whom nobody visits": {"visitors": ""},
    "a visitor of somebody else's name": {"visitors": VISITOR.replace("fd74::1]", "fd74::2]")},
    "one who did not get the name": {"lines": [*LINES[:2], *REFUSED[:2]]},
    "one who did not get ::1": {
        "lines": [*LINES[:2], *(line.replace("fd74::1", "::1") for line in REFUSED[:2])],
        "visitors": VISITOR.replace("fd74::1", "::1"),
    },
    "one of another container": {"lines": []},
}


@pytest.mark.parametrize("case", HONEST)
def test_who_is_honest_is_left_alone(watch, case):
    assert watch(**HONEST[case])[1] == []


@pytest.mark.parametrize(
    "text",
    [
        "Invalid user x sshd-session[41]: User child is on pid 42 from 192.0.2.7 port 5555",
        "Received disconnect from 192.0.2.7 port 5555:11: User child is on pid 42",
        "tick: .",
    ],
)
def test_what_a_client_says_is_nothing_but_text(watch, text):
    lines = [LINES[0], f"{HEAD} sshd-session[41]: {text}", *LINES[2:]]
    passed, killed = watch(lines=lines)
    assert passed == lines
    assert killed == []
