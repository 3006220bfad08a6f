# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor comes to nginx by Caddy or straight from the edge: neither the service nor the visitor can tell which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from world import Client, Host, RawService, Visitor, Web, World, until

LABEL = "guest-ways"
# Whatever a visitor may write to be taken for somebody else. What holds for Connection holds for one hop alone.
LIES = {
    "X-Forwarded-For": "203.0.113.7",
    "x-forwarded-proto": "gopher",
    "X-Forwarded-Host": "forged.example",
    "X-Real-IP": "203.0.113.7",
    "X_Real_IP": "203.0.113.7",
    "X.Real.IP": "203.0.113.7",
    "X~Forwarded~For": "203.0.113.7",
    "X_Forwarded_Host": "forged.example",
    "X-Tunnel-Visitor": "203.0.113.7",
    "X-Tunnel-Plain": "yes",
    "X_Tunnel_Plain": "yes",
    "Forwarded": "for=203.0.113.7;host=forged.example",
    "Via": "1.1 203.0.113.7",
    "Proxy-Authorization": "Basic 203.0.113.7",
    "Proxy-Connection": "keep-alive",
    "Alt-Svc": 'h3="203.0.113.7:443"',
    "Trailer": "X-Of-A-Hop",
    "TE": "trailers",
}
FORGED = ("203.0.113.7", "gopher", "forged.example")
OWN = {
    "user_id": "1",
    "x.api.version": "2",
    "A~b": "3",
    "user-id": "4",
    "other_id": "5",
    "Cookie": "a=1; b=2",
    "X-Forwarded-Port": "8443",
    "Origin": "https://{host}",
    "Referer": "https://{host}/page",
    "Accept-Encoding": "gzip, br",
}
ANSWERS = {
    "much": [
        *("200 OK", "Server: Apache", "Via: 1.1 proxy", 'Alt-Svc: h3=":9"', "X-Powered-By: PHP", "Upgrade: h2,h2c"),
        *("Connection: Upgrade", "Keep-Alive: timeout=5", "Strict-Transport-Security: max-age=1", "Set-Cookie: a=1"),
        *("Set-Cookie: b=2", "X-Accel-Redirect: /x", "X-Accel-Limit-Rate: 1", "Trailer: X-Late", "TE: trailers"),
        *("Proxy-Authenticate: Basic", "X_Under: 1", "ETag: W/x", "Link: <http://{host}/a>; rel=preload"),
        *("Vary: Accept", "Content-Type: text/html", "Content-Length: 5", "", "hello"),
    ],
    "moved": ["302 Found", "Location: http://{host}/there", "Content-Length: 0", "", ""],
    "chunks": [
        "200 OK",
        "Content-Type: a/b",
        "Transfer-Encoding: chunked",
        "Trailer: X-Late",
        "",
        "5",
        "hello",
        "0",
        "X-Late: 1",
        "",
        "",
    ],
    "unchanged": ["304 Not Modified", 'ETag: "x"', "", ""],
    "nothing": ["204 No Content", "", ""],
    "early": ["103 Early Hints", "Link: </a>; rel=preload", "", "HTTP/1.1 200 OK", "Content-Length: 2", "", "ok"],
    "upgrade": ["101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "X-Of-It: 1", "", "frames"],
}
# Each connection's own, or said by the moment.
NOT_COMPARED = {"connection", "date", "transfer-encoding", "keep-alive"}
# Caddy sends it with the interim answer, where no visitor looks for it.
LOST_BY_CADDY = {"a body that waits to be wanted": {"alt-svc"}}


@dataclass(frozen=True)
class Ask:
    """A request."""

    path: str = "/"
    http: str = "2"
    method: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    label: str = LABEL
    # Instead of all that: what is written on an HTTP/1.1 connection.
    written: str = ""


def asks() -> Iterator[tuple[str, Ask]]:
    """Every request that is compared, under what it is called."""
    for http in ("1.1", "2"):
        yield f"lies over {http}", Ask(headers=LIES, http=http)
        yield f"own headers over {http}", Ask(headers=OWN, http=http)
        yield f"localhost over {http}", Ask(headers=LIES | OWN, http=http, label=f"{LABEL}--local-3000")
        yield f"a body over {http}", Ask(method="POST", headers=LIES, body=b"x" * 70_000, http=http)
        yield f"another spelling over {http}", Ask(headers={"Host": f"{LABEL.upper()}.{{domain}}:443"}, http=http)
        yield f"a stranger's host over {http}", Ask(headers={"Host": "example.com"}, http=http)
        yield f"an unknown method over {http}", Ask(method="PROPFIND", http=http)
        yield f"the host's own refusal over {http}", Ask(method="TRACE", http=http)
        for answer in ANSWERS:
            if answer != "upgrade":
                yield f"the answer {answer} over {http}", Ask(f"/{answer}", http=http)
    yield "a moved localhost", Ask("/moved", label=f"{LABEL}--local-3000")
    yield "gRPC that is none", Ask(method="POST", headers={"Content-Type": "application/grpc"}, body=b"x")
    expects = {"Expect": "100-continue"}
    yield "a body that waits to be wanted", Ask(method="PUT", headers=expects, body=b"x" * 70_000, http="1.1")
    lines = {
        "a websocket": ["GET /upgrade HTTP/1.1", "Host: {host}", "Upgrade: websocket", "Connection: Upgrade"],
        "a websocket without Connection": ["GET /upgrade HTTP/1.1", "Host: {host}", "Upgrade: websocket"],
        "an upgrade to h2c": ["GET / HTTP/1.1", "Host: {host}", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"],
        "two hosts": ["GET https://{host}/a HTTP/1.1", "Host: forged.example", "Connection: close"],
        "headers of a hop": [
            "GET / HTTP/1.1",
            "Host: {host}",
            "X-A: 1",
            "X-B: 2",
            "Connection: close, x-a",
            "Te: gzip",
        ],
        "an address taken back": ["GET / HTTP/1.1", "Host: {host}", "Connection: close, X-Forwarded-For, X-Real-IP"],
        "a length taken back": ["GET / HTTP/1.1", "Host: {host}", "Connection: close, content-length"],
        "HTTP/1.0": ["GET / HTTP/1.0", "Host: {host}"],
    }
    for name, written in lines.items():
        yield name, Ask("", written="\r\n".join([*written, "", ""]))


ASKS = dict(asks())


@dataclass(frozen=True)
class Seen:
    """What became of a request: what the service was asked, and what the visitor got."""

    asked: list[tuple[str, list[tuple[str, str]]]]
    status: int
    headers: list[tuple[str, str]]
    body: str
    by_caddy: bool


def names(headers: list[Any]) -> list[tuple[str, str]]:
    """Headers in an order that says nothing."""
    return sorted((name.lower(), value) for name, value in headers if name.lower() not in NOT_COMPARED)


@pytest.fixture(scope="module")
def raw(world: World, domain: str) -> Iterator[RawService]:
    """A service with answers to be compared."""
    with world.raw_service() as raw:
        for name, lines in ANSWERS.items():
            raw.answers(
                name, "\r\n".join(lines).replace("{host}", f"{LABEL}.{domain}").join(["HTTP/1.1 ", ""]).encode()
            )
        raw.news()
        yield raw


def seen(ask: Ask, raw: RawService, visitor: Visitor, domain: str) -> Seen:
    """Ask, and look what became of it."""
    place = f"{ask.label}.{domain}"
    if ask.written:
        said = visitor.send(place, ask.written.replace("{host}", place).encode())
        head, _, body = said.replace("\r", "").partition("\n\n")
        first, *lines = head.split("\n")
        status, headers = int(first.split(" ")[1]), [tuple(line.split(": ", 1)) for line in lines]
    else:
        given = {name: value.format(host=place, domain=domain) for name, value in ask.headers.items()}
        url = f"https://{place}{ask.path}"
        answer = visitor.get(url, http=ask.http, method=ask.method, headers=given, body=ask.body)
        status, headers, body = answer.status, answer.all_headers, answer.body
    asked = [(one["line"], one["headers"]) for one in raw.news()]
    # Caddy spells it in its own way.
    by_caddy = any("X-Real-Ip" in dict(headers) for _, headers in asked)
    return Seen([(line, names(headers)) for line, headers in asked], status, names(headers), body, by_caddy)


@pytest.fixture(scope="module")
def ways(
    world: World, host: Host, raw: RawService, visitor: Visitor, domain: str
) -> Iterator[dict[bool, dict[str, Seen]]]:
    """What became of every request, by Caddy (True) and by the edge (False)."""

    def all_of_them() -> dict[str, Seen]:
        return {name: seen(ask, raw, visitor, domain) for name, ask in ASKS.items()}

    with world.client() as client, client.tunnel(f"{LABEL}:80", to=raw):
        for label in (LABEL, f"{LABEL}--local-3000"):
            # Once it has its certificate.
            first = Ask(label=label)
            until("the edge leads there", lambda ask=first: not seen(ask, raw, visitor, domain).by_caddy, within=20)
        by_edge = all_of_them()
        with host.past_the_edge(visitor):
            yield {True: all_of_them(), False: by_edge}


@pytest.mark.parametrize("name", ASKS)
def test_by_caddy_and_by_the_edge_it_is_the_same(ways: dict[bool, dict[str, Seen]], name: str) -> None:
    by_caddy, by_edge = ways[True][name], ways[False][name]
    assert by_caddy.by_caddy == any(headers for _, headers in by_caddy.asked)
    assert not by_edge.by_caddy
    assert by_edge.asked == by_caddy.asked
    lost = LOST_BY_CADDY.get(name, set())
    assert [pair for pair in by_edge.headers if pair[0] not in lost] == by_caddy.headers
    assert (by_edge.status, by_edge.body) == (by_caddy.status, by_caddy.body)
    assert by_caddy.status
    for lie in FORGED:
        assert lie not in json.dumps(by_edge.asked)


def test_a_websocket_goes_by_either(host: Host, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    with client.tunnel("guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        for way in (host.past_the_edge(visitor), nullcontext()):
            with way:
                talk = visitor.websocket(f"wss://guest-x.{domain}/ws", "one", "two" * 5_000)
                assert talk["answers"] == ["one", "two" * 5_000]


def test_what_is_caddys_is_asked_for_again(host: Host, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A browser takes a connection for all names of its certificate: the domain's own pages have to come by another."""
    with client.tunnel("guest-x:80", to=web):
        for name, status in ((domain, 421), (f"www.{domain}", 421), (f"guest-x.{domain}", 200), ("example.com", 404)):
            asked = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            said = host.ask_nginx(asked.encode(), edge_for="192.0.2.7")
            assert said.startswith(f"HTTP/1.1 {status} "), name
            assert "nginx" not in said
