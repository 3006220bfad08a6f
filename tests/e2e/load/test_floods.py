# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks by number, by machines that have half a processor: a bystander is not harmed, and nothing is left of them.

bystander.py says what "not harmed" is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from bystander import Bystander
from world import INSIDE, Client, Container, Host, Visitor, Web, World, until

SSHD = "proxme-tunnel-sshd"
MANY = 1000


def report(container: Container) -> dict[str, int]:
    """What flood.py has counted so far."""
    return {"opened": 0, **json.loads(container.exec("cat", "/run/flood").stdout or "{}")}


# Slow ones.


@pytest.mark.parametrize("kind", ["handshakes", "headers"])
def test_slow_visitors_are_cut_off(
    kind: str, attacker: Callable[[], Client], bystander: Bystander, domain: str
) -> None:
    """Cure: read_header in the Caddyfile, which counts for the handshake as well."""
    slow = attacker()
    with (
        bystander.unharmed(f"1,000 slow {kind}"),
        slow.background("flood.py", kind, str(MANY), "/run/flood", domain),
    ):
        until("all are there", lambda: report(slow)["opened"] >= MANY, within=60)
        until("all were cut off, and came again", lambda: report(slow)["opened"] >= 2 * MANY, within=60)


def test_slow_clients_of_ssh_are_cut_off(
    attacker: Callable[[], Client],
    another_client: Callable[..., Client],
    world: World,
    bystander: Bystander,
    host: Host,
    web: Web,
    domain: str,
) -> None:
    """From a hundred addresses, as one may have ten. Cure: MaxStartups fits the memory, LoginGraceTime."""
    slow = attacker()
    addresses = world.addresses(slow, MANY // 10)
    with (
        bystander.unharmed("1,000 slow clients of ssh") as most,
        slow.background("flood.py", "ssh", str(MANY), "/run/flood", domain, *addresses),
    ):
        until("all have come", lambda: report(slow)["opened"] + report(slow)["refused"] >= MANY, within=60)
        until("hundreds were cut off", lambda: report(slow)["closed"] >= 300, within=60)
    limit = int(host.docker("inspect", "--format={{.HostConfig.Memory}}", SSHD).expect().stdout)
    assert another_client().tunnel("guest-newcomer:80", to=web).running, "whoever comes afterwards is let in"
    assert most[SSHD] < 0.7 * limit, "the kernel would soon have ended a tunnel to make room"


# Logins.

LOGINS = """
for name in $(seq 300); do
  address=$(echo "$ADDRESSES" | cut -d ' ' -f $((name % 4 + 1)))
  ssh -b $address {options} -o BatchMode=yes -N user-$name@{host} 2>>/run/logins &
  # Ten at a time.
  [ $((name % 10)) -ne 0 ] || wait
done
wait
"""


def test_nobody_gets_in_by_guessing_users(
    attacker: Callable[[], Client], world: World, bystander: Bystander, host: Host
) -> None:
    """Three hundred names that are no accounts. Cure: AllowUsers."""
    guesser = attacker()
    addresses = world.addresses(guesser, 4)
    sessions = len(host.sessions())
    with bystander.unharmed("300 logins as unknown users"):
        script = LOGINS.format(options=" ".join(guesser.options()), host=guesser.host)
        guesser.exec("sh", "-c", script, env={"ADDRESSES": " ".join(addresses)}, timeout=200).expect()
    said = guesser.read("/run/logins")
    assert said.count("Permission denied") == 300
    log = host.docker("logs", "--since=5m", SSHD).expect().output
    assert log.count("Invalid user user-") >= 300
    assert "for user-" not in "".join(line for line in log.splitlines() if "Accepted" in line)
    until("none of them is left", lambda: len(host.sessions()) <= sessions, within=20)


# Header bombs.


@pytest.fixture(scope="module")
def target(world: World, web: Web, visitor: Visitor, domain: str) -> Iterator[str]:
    """The name of an attacker's own tunnel, as one name has only so many requests at a time."""
    name = f"guest-bombed.{domain}"
    with world.client("bombed", "--cpus=0.5") as client, client.tunnel("guest-bombed:80", to=web):
        assert visitor.get(f"https://{name}/").status == 200
        yield name


BOMBS = {
    "many": "20,000 headers",
    "huge": "a header of 4 MB",
    "long": "a header of 100 KB",
    "uri": "a path of 100 KB",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_header_bombs_over_http1_are_refused(
    kind: str, attacker: Callable[[], Client], bystander: Bystander, target: str
) -> None:
    """Cure: the limits that Caddy and nginx have by default, 1 MiB and 32 KiB."""
    bomber = attacker()
    with bystander.unharmed(f"200 requests with {BOMBS[kind]}"):
        answers = json.loads(bomber.python("bombs.py", kind, "200", target, timeout=200).expect().stdout)
    assert sum(answers.values()) == 200
    assert not [status for status in answers if status.startswith("2")]


MUCH = {"resets", "streams", "pings", "settings"}


@pytest.mark.parametrize("kind", ["continuation", *sorted(MUCH)])
def test_bombs_over_http2_are_refused(
    kind: str, attacker: Callable[[], Client], bystander: Bystander, target: str
) -> None:
    """Twenty connections, five at a time. Cure: Caddy's own limits."""
    bomber = attacker()
    bomber.copy_in(INSIDE / "h2.py", "/run/h2.py")
    with bystander.unharmed(f"HTTP/2: {kind}"):
        once = f"python3 /run/h2.py {target} bomb {kind}"
        said = bomber.shell(f"seq 20 | xargs -P 5 -I @ {once}", timeout=200).expect().stdout.replace('"', "")
    # What is no more than much to do may be answered in the end.
    allowed = {"closed", "refused", "silent", "400", "another status", *(["200"] if kind in MUCH else [])}
    assert set(said.splitlines()) <= allowed
