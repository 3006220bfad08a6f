# SPDX-License-Identifier: GPL-3.0-or-later
"""Visitors who ask too much are told so, and others are served; molecule/abuse/molecule.yml has the limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from world import Host, Tunnel, Visitor, Web, World, until


@pytest.fixture(scope="module")
def _tunnels(world: World, web: Web) -> Iterator[Tunnel]:
    with world.client() as client, client.tunnel("guest-busy:80", "guest-calm:80", to=web) as tunnel:
        yield tunnel


@pytest.fixture
def statuses(visitor: Visitor, _tunnels: Tunnel, domain: str) -> Callable[..., Counter]:
    """Ask a name for a path at once from each of these addresses; how often which status came."""

    def ask(name: str, path: str, *addresses: str) -> Counter:
        requests = [
            f'url = "https://{name}.{domain}{path}"\nheader = "X-Forwarded-For: {address}"\noutput = "/dev/null"\n'
            f'cacert = "/run/root.pem"\nwrite-out = "%{{http_code}}\\n"\nsilent\n'
            for address in addresses
        ]
        visitor.write("/run/requests", "next\n".join(requests))
        command = ("curl", "--parallel", "--parallel-immediate", "--parallel-max", "100", "--config", "/run/requests")
        return Counter(visitor.exec(*command).stdout.split())

    assert visitor.get(f"https://guest-busy.{domain}/").status == 200
    return ask


def test_one_address_may_not_send_too_many_requests(
    statuses: Callable[..., Counter], visitor: Visitor, domain: str
) -> None:
    answers = statuses("guest-busy", "/", *["192.0.2.201"] * 90)
    assert answers["429"] > 0
    # Those that come at the same moment meet the limit of open requests, 20.
    assert answers["200"] >= 20
    assert answers["200"] + answers["429"] == 90
    for other in (f"https://guest-busy.{domain}/", f"https://guest-calm.{domain}/"):
        assert visitor.get(other).status == 200


def test_one_name_may_not_have_too_many_requests(
    statuses: Callable[..., Counter], visitor: Visitor, domain: str
) -> None:
    answers = statuses("guest-busy", "/", *(f"198.51.100.{number}" for number in range(1, 251)))
    assert answers["429"] > 0
    assert answers["200"] >= 60
    assert visitor.get(f"https://guest-calm.{domain}/").status == 200


def test_one_address_may_not_have_too_many_open(statuses: Callable[..., Counter]) -> None:
    # Not guest-busy, which may still refuse for its own sake what the test before asked of it.
    answers = statuses("guest-calm", "/slow?s=3", *["192.0.2.202"] * 29)
    assert answers == {"200": 20, "429": 9}


@pytest.mark.usefixtures("_tunnels")
def test_one_address_may_not_have_too_many_open_at_the_edge(host: Host, domain: str) -> None:
    """As nginx is told by the edge who visits; what a visitor claims counts for nothing."""
    lies = "X-Forwarded-For: 192.0.2.9\r\nX-Tunnel-Visitor: \r\nX-Real-IP: 192.0.2.9\r\n"
    asked = f"GET /slow?s=3 HTTP/1.1\r\nHost: guest-calm.{domain}\r\n{lies}Connection: close\r\n\r\n"

    def answers(edge_socket: str) -> Counter:
        header = "PROXY TCP4 192.0.2.204 192.0.2.1 4000 443\r\n"
        socket = f"{host.sockets()}/{edge_socket}"
        return Counter(host.python("at_once.py", socket, "29", stdin=(header + asked).encode()).expect().stdout.split())

    # Whether or not nginx knows already what the service speaks.
    for _ in range(2):
        assert answers("tls.sock") == {"200": 20, "429": 9}
    # Whom Docker's own proxy hides is nobody in particular.
    assert answers("hidden-tls.sock") == {"200": 29}


def test_ipv6_visitors_count_by_their_network(statuses: Callable[..., Counter]) -> None:
    answers = statuses("guest-calm", "/slow?s=3", *(f"2001:db8:1:2:3:4:5:{number}" for number in range(1, 30)))
    assert answers == {"200": 20, "429": 9}


def test_who_is_refused_reads_why(statuses: Callable[..., Counter], visitor: Visitor, domain: str) -> None:
    """And a visitor can't claim to be nobody, for whom no limit counts."""
    url = f"https://guest-busy.{domain}"
    for number in range(20):
        command = ["curl", "-sS", "--cacert", "/run/root.pem", "-H", "X-Forwarded-For: 192.0.2.203"]
        visitor.spawn(*command, "-o", f"/run/slow-{number}", f"{url}/slow?s=6")
    headers = {"X-Forwarded-For": "192.0.2.203", "X-Tunnel-Visitor": "", "X-Real-IP": "192.0.2.9"}

    def refused() -> bool:
        answer = visitor.get(f"{url}/", headers=headers)
        return answer.status == 429 and "too many come from your address" in answer.body

    until("the requests under way fill the limit", refused, within=5)


def test_headers_are_bounded(statuses: Callable[..., Counter], visitor: Visitor, domain: str) -> None:
    for http in ("1.1", "2"):
        answer = visitor.get(f"https://guest-busy.{domain}/echo", http=http, headers={"X-Large": "x" * 100_000})
        assert answer.status in (0, 431), answer
        assert visitor.get(f"https://guest-busy.{domain}/echo", http=http, headers={"X-Small": "x"}).status == 200


def test_the_service_is_not_told_how_visitors_are_counted(
    statuses: Callable[..., Counter], visitor: Visitor, domain: str
) -> None:
    assert visitor.get(f"https://guest-busy.{domain}/echo").sent("X-Tunnel-Visitor") == []
