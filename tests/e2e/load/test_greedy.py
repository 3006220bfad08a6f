# SPDX-License-Identifier: GPL-3.0-or-later
"""Those who take as much of one thing as they get: a name's visits, a service's answers, forwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from bystander import Bystander
from world import Client, Container, Host, RawService, Visitor, Web, World, until

SSHD = "proxme-tunnel-sshd"
# As many as one name may have at a time.
VISITS = 200


def report(container: Container, file: str) -> dict[str, int]:
    """What a script has counted so far."""
    return json.loads(container.exec("cat", file).stdout or "{}")


# Slow uploads.


@pytest.fixture(scope="module")
def target(world: World, visitor: Visitor, domain: str) -> Iterator[str]:
    """The name of the tunnel that they visit."""
    name = f"guest-slow.{domain}"
    with world.web("slow") as web, world.client("slowed") as client, client.tunnel("guest-slow:80", to=web):
        assert visitor.get(f"https://{name}/").status == 200
        yield name


# What is held, and who holds it.
HELD = {
    "400 slow uploads over HTTP/1.1": ["flood.py", "bodies", "400", "/run/flood", "{name}"],
    "400 slow uploads over HTTP/2": ["h2.py", "{name}", "hold", "uploads"],
    "4,000 streams of HTTP/2": ["h2.py", "{name}", "hold", "requests"],
}


@pytest.mark.parametrize("what", HELD)
def test_those_who_hold_all_places_of_a_name_hold_no_more(
    what: str, attacker: Callable[[], Client], bystander: Bystander, target: str, visitor: Visitor
) -> None:
    """Further visitors of that name get a 429, those of others don't notice. Cure: limit_conn, and Caddy's own."""
    slow, url = attacker(), f"https://{target}/"

    def full() -> bool:
        return visitor.get(url).status == 429

    with (
        bystander.unharmed(f"{what} to one name"),
        slow.background(*(argument.format(name=target) for argument in HELD[what])),
    ):
        until("there is no place left", full, within=60)
        began = time.monotonic()
        until("half a minute is over", lambda: time.monotonic() > began + 30, within=40, every=1)
        assert full(), "the places are held"
    until("the places are free again", lambda: visitor.get(url).status == 200, within=20)


# Services that do not answer as they should.


@pytest.fixture(scope="module")
def raw(world: World, visitor: Visitor, domain: str) -> Iterator[RawService]:
    """The service of an attacker, open as guest-raw; both the service and ssh have half a processor."""
    with (
        world.raw_service("--cpus=0.5") as service,
        world.client("holder", "--cpus=0.5") as client,
        client.tunnel("guest-raw:80", to=service),
    ):
        assert visitor.get(f"https://guest-raw.{domain}/").body == "plain"
        yield service


OK = b"HTTP/1.1 200 OK\r\n"
# What it is called, how it begins, what follows without end, and what its visitors get.
ANSWERS: dict[str, tuple[str, list[bytes], bytes, set[str]]] = {
    "garbage": ("garbage without end", [b"\0\xff"], b"\r\n\xfe\0garbage" * 1000, {"HTTP/1.1 502", "closed"}),
    "headers": ("headers without end", [OK], b"X-Endless: yes\r\n" * 1000, {"HTTP/1.1 502", "closed"}),
    "body": ("a body without end, which nobody reads", [OK + b"\r\n"], b"x" * 16_384, {"HTTP/1.1 200"}),
    "silence": ("nothing", [b""] * 300, b"", {"HTTP/1.1 504"}),
    # The time is that of all headers together.
    "slow": ("a header every half second", [OK, *[b"X-Slow: yes\r\n"] * 300], b"", {"HTTP/1.1 504"}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_service_that_answers_badly_harms_its_own_visitors_alone(
    kind: str, world: World, bystander: Bystander, raw: RawService, visitor: Visitor, domain: str
) -> None:
    """Cure: proxy_buffer_size, tunnel_answer_timeout, and the limits that ssh sets to a forward."""
    said, start, endless, expected = ANSWERS[kind]
    raw.answers(kind, *start, endless=endless)
    url = f"https://guest-raw.{domain}/{kind}"
    with (
        world.visitor(None, "--cpus=0.5") as crowd,
        bystander.unharmed(f"{VISITS} visits of a service that answers {said}"),
        crowd.background("crowd.py", str(VISITS), "/run/crowd", url, "/run/root.pem"),
    ):

        def answered() -> bool:
            came = report(crowd, "/run/crowd")
            assert came.keys() <= expected, came
            return sum(came.values()) == VISITS

        until("all have come, and got what they get", answered, within=100, every=1)
    until("the service answers others", lambda: visitor.get(f"https://guest-raw.{domain}/").body == "plain", within=20)


# Forwards.


def test_ten_thousand_forwards_meet_a_limit(
    attacker: Callable[[], Client], bystander: Bystander, host: Host, web: Web
) -> None:
    """In one connection. Cure: the limit of descriptors in sshd's container."""
    client, before = attacker(), host.forwards()
    limit = int(host.docker("inspect", "--format={{.HostConfig.Memory}}", SSHD).expect().stdout)
    seen = 0

    def settled() -> bool:
        nonlocal seen
        last, seen = seen, host.forwards()
        return seen == last > before + 300

    with bystander.unharmed("10,000 forwards asked for in one connection") as most:
        with client.greedy(10_000, web):
            until("it gets no more", settled, within=120, every=2)
            assert seen - before < 1200
        until("all of them are free again", lambda: host.forwards() <= before, within=20)
    assert most[SSHD] < 0.7 * limit, "the kernel would soon have ended a tunnel to make room"
