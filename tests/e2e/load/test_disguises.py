# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that are not what they look like: HTTP/2 that would be another HTTP/1.1, one name within another, `ask`.

What HTTP/1.1 alone can do is in test_attacks.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from world import Ca, Host, RawService, Visitor, World

NGINX = "proxme-tunnel-nginx"
INNER = "GET /smuggled HTTP/1.1\r\nHost: smuggled.invalid\r\nX-Smuggled: yes\r\n\r\n"
CHUNK = f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n"
HEADER = "\r\nX-Smuggled: yes"


@pytest.fixture(scope="module")
def raw(world: World, visitor: Visitor, domain: str) -> Iterator[RawService]:
    """A service that says what it was asked, open as guest-raw."""
    with (
        world.raw_service() as service,
        world.client("holder") as client,
        client.tunnel("guest-raw:80", to=service),
    ):
        assert visitor.get(f"https://guest-raw.{domain}/").body == "plain"
        yield service


# Requests over HTTP/2 that would be two, or others, over HTTP/1.1.

# What is sent beside the four pseudo-headers, unless these are among it, and the body.
DOWNGRADES: dict[str, tuple[list[tuple[str, str]], str]] = {
    "CL of less": ([("content-length", "0")], INNER),
    "CL of more": ([("content-length", "10000")], INNER),
    "CL twice": ([("content-length", "0"), ("content-length", str(len(INNER)))], INNER),
    "CL as a list": ([("content-length", f"0, {len(INNER)}")], INNER),
    "CL with a sign": ([("content-length", f"+{len(INNER)}")], INNER),
    "CL with an underscore": ([("content_length", "0")], INNER),
    "TE": ([("transfer-encoding", "chunked")], f"0\r\n\r\n{INNER}"),
    "TE and CL": ([("transfer-encoding", "chunked"), ("content-length", "4")], CHUNK),
    "TE in upper case": ([("Transfer-Encoding", "chunked")], f"0\r\n\r\n{INNER}"),
    "TE with an underscore": ([("transfer_encoding", "chunked")], f"0\r\n\r\n{INNER}"),
    "TE behind a line's end in a value": ([("x-a", "b\r\nTransfer-Encoding: chunked")], f"0\r\n\r\n{INNER}"),
    "TE behind a line's end in a name": ([("x: a\r\ntransfer-encoding", "chunked")], f"0\r\n\r\n{INNER}"),
    "a header behind a line's end": ([("x-a", f"b{HEADER}")], ""),
    "a header behind a line feed": ([("x-a", "b\nX-Smuggled: yes")], ""),
    "a header behind a NUL": ([("x-a", "b\0\r\nX-Smuggled: yes")], ""),
    "a request behind a line's end": ([("x-a", f"b\r\n\r\n{INNER}")], ""),
    "a header in the method": ([(":method", f"GET / HTTP/1.1{HEADER}\r\nX: ")], ""),
    "a request as the method": ([(":method", f"GET / HTTP/1.1\r\nHost: guest-raw.{{domain}}\r\n\r\n{INNER}GET")], ""),
    "a header in the path": ([(":path", f"/first HTTP/1.1{HEADER}\r\nX: ")], ""),
    "a space in the path": ([(":path", "/first HTTP/1.1")], ""),
    "a path of another host": ([(":path", "http://smuggled.invalid/smuggled")], ""),
    "a header in the scheme": ([(":scheme", f"https{HEADER}\r\nX")], ""),
    "a host in the scheme": ([(":scheme", "http://smuggled.invalid/smuggled?")], ""),
    "a header in the authority": ([(":authority", f"guest-raw.{{domain}}{HEADER}")], ""),
    "a user in the authority": ([(":authority", "guest-raw.{domain}:80@smuggled.invalid")], ""),
    "another Host": ([("host", "smuggled.invalid")], ""),
    "two authorities": ([(":authority", "guest-raw.{domain}"), (":authority", "smuggled.invalid")], ""),
    "two paths": ([(":path", "/first"), (":path", "/smuggled")], ""),
    "a pseudo-header at the end": ([("x-a", "b"), (":path", "/first")], ""),
    "an unknown pseudo-header": ([(":smuggled", "yes")], ""),
    "a Connection that drops CL": ([("connection", "content-length")], INNER),
    "an Upgrade": ([("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")], ""),
    "a TE of another kind": ([("te", "chunked")], INNER),
    "a CONNECT": ([(":method", "CONNECT"), (":protocol", "websocket")], INNER),
    "a trailer in the headers": ([("trailer", "content-length, host, x-smuggled")], INNER),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOWNGRADES)
def test_no_request_is_smuggled_by_http2(kind: str, host: Host, raw: RawService, visitor: Visitor, domain: str) -> None:
    """The service sees the one request, with its body where it ends, or none; by Caddy and by the edge."""
    name = f"guest-raw.{domain}"
    given, body = DOWNGRADES[kind]
    headers = [(header, value.replace("{domain}", domain)) for header, value in given]
    usual = {":method": "POST", ":scheme": "https", ":authority": name, ":path": "/first"}
    missing = [(header, value) for header, value in usual.items() if header not in dict(headers)]
    request = json.dumps([{"headers": [*missing, *headers], "body": body}]).encode()
    for way in (host.past_the_edge(visitor), nullcontext()):
        raw.forget()
        with way:
            visitor.python("h2.py", name, stdin=request).expect()
            assert visitor.get(f"https://{name}/last").body == "plain"
        assert raw.requests()[-1]["line"] == "GET /last HTTP/1.1"
        raw.expect_only(r"(POST /first(%20HTTP/1.1)?|GET /last) HTTP/1.1", name)


# One name within another.

TWO, LANDING, NOBODY, ELSEWHERE = "Hello from two.", "ssh -p 2222", "Nobody", "a connection of its own"
# Host, and what Caddy and the edge answer to it: status, and what is on the page. The connection is that of guest-one.
HOSTS = {
    "guest-two.{domain}": ((200, TWO), (200, TWO)),
    "GUEST-TWO.{DOMAIN}": ((200, TWO), (200, TWO)),
    "guest-two.{domain}.": ((200, TWO), (200, TWO)),
    "guest-two.{domain}:443": ((200, TWO), (200, TWO)),
    "guest-two.{domain}:1": ((200, TWO), (200, TWO)),
    "guest-two--local.{domain}": ((200, TWO), (200, TWO)),
    "{domain}": ((200, LANDING), (421, ELSEWHERE)),
    "{DOMAIN}": ((200, LANDING), (421, ELSEWHERE)),
    "{domain}:443": ((200, LANDING), (421, ELSEWHERE)),
    "{domain}.": ((404, NOBODY), (421, ELSEWHERE)),
    "www.{domain}": ((308, ""), (421, ELSEWHERE)),
    "guest-none.{domain}": ((404, NOBODY), (404, NOBODY)),
    "guest-two.example.com": ((404, NOBODY), (404, NOBODY)),
    "guest-two.{domain}@guest-one.{domain}": ((400, ""), (404, NOBODY)),
    "guest-two.{domain}/": ((400, ""), (400, "")),
    "guest-two.{domain}, guest-one.{domain}": ((400, ""), (400, "")),
    "guest-two.{domain} guest-one.{domain}": ((400, ""), (400, "")),
    "": ((400, ""), (400, "")),
}


@pytest.fixture(scope="module")
def two_tunnels(world: World, visitor: Visitor, domain: str) -> Iterator[None]:
    """guest-one and guest-two, of two clients."""
    with (
        world.web("one") as one,
        world.web("two") as two,
        world.client("first") as first,
        world.client("second") as second,
        first.tunnel("guest-one:80", to=one),
        second.tunnel("guest-two:80", to=two),
    ):
        for name in ("one", "two"):
            # The first visitor of a name comes by Caddy.
            for _ in range(2):
                assert f"Hello from {name}." in visitor.get(f"https://guest-{name}.{domain}/").body
        yield


@pytest.mark.usefixtures("two_tunnels")
@pytest.mark.parametrize("named", HOSTS)
def test_the_host_alone_decides_whose_page_it_is(named: str, host: Host, visitor: Visitor, domain: str) -> None:
    """The name in the TLS handshake (SNI) chooses the certificate and nothing else."""
    name = named.format(domain=domain, DOMAIN=domain.upper())
    request = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    for way, (status, page) in zip((host.past_the_edge(visitor), nullcontext()), HOSTS[named], strict=True):
        with way:
            answer = visitor.send(f"guest-one.{domain}", request.encode())
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert page in answer
        assert "Hello from one." not in answer


@pytest.mark.usefixtures("two_tunnels")
def test_a_handshake_for_no_name_or_a_strange_one_gets_no_certificate(
    host: Host, ca: Ca, visitor: Visitor, domain: str
) -> None:
    """Not even one that would make a question for `ask` out of an answer. Cure: Caddy, and label_of()."""
    orders = ca.orders()
    strange = [
        "example.com",
        f"guest-none.{domain}",
        f"x&domain=guest-one.{domain}",
        f"guest-none.{domain}?domain=guest-one.{domain}",
        f"guest-one.{domain}/../x",
        f"guest-one.{domain}%0d%0a",
        f"guest-one.{domain}\r\nHost: x",
        f"guest-one.{domain}#.example.com",
        f"*.{domain}",
        f"a.guest-one.{domain}",
        "127.0.0.1:9123",
    ]
    connect = ("openssl", "s_client", "-connect", f"{domain}:443")
    for options in [["-noservername"], *(["-servername", name] for name in strange)]:
        said = visitor.exec("timeout", "10", *connect, *options, stdin=b"").output
        assert "no peer certificate available" in said, options
    assert ca.orders() == orders


# The door for the front end.

QUESTION = "/?domain=guest-one.{domain}"
DOORS = ["127.0.0.1:9123", "localhost:9123", "[::1]:9123", "127.0.0.1", "ask", "unix:ask.sock", "{domain}:9123"]


@pytest.mark.usefixtures("two_tunnels")
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("door", DOORS)
def test_no_visitor_comes_to_the_door_for_the_front_end(door: str, scheme: str, visitor: Visitor, domain: str) -> None:
    """By Host, absolute form, path, or CONNECT. Cure: a socket of its own, and a port that only Caddy can dial."""
    door, question, name = door.format(domain=domain), QUESTION.format(domain=domain), f"guest-one.{domain}"
    requests = {
        "Host": f"GET {question} HTTP/1.1\r\nHost: {door}",
        "absolute form": f"GET http://{door}{question} HTTP/1.1\r\nHost: {name}",
        "absolute form, Host": f"GET http://{door}{question} HTTP/1.1\r\nHost: {door}",
        "path": f"GET //{door}{question} HTTP/1.1\r\nHost: {name}",
        "path with dots": f"GET /../../{door}{question} HTTP/1.1\r\nHost: {name}",
        "no name": f"GET {question} HTTP/1.0\r\nX-Forwarded-Host: {door}",
        "CONNECT": f"CONNECT {door} HTTP/1.1\r\nHost: {door}",
        "forwarded": f"GET {question} HTTP/1.1\r\nHost: {name}\r\nX-Forwarded-Host: {door}\r\nForwarded: host={door}",
    }
    for how, request in requests.items():
        sent = f"{request}\r\nConnection: close\r\n\r\n".encode()
        target = f"tcp:{name}:80" if scheme == "tcp" else f"tls:{name}"
        answer = visitor.python("exchange.py", target, "/run/root.pem", stdin=sent).expect().stdout
        assert answer.startswith("HTTP/1."), how
        assert not re.search(r"^(yes|not the name)", answer, re.MULTILINE), how


def test_the_doors_port_is_closed_to_all(host: Host, visitor: Visitor, domain: str) -> None:
    said = visitor.python("reach.py", f"tcp:{domain}:443", f"tcp:{domain}:9123").expect().stdout.splitlines()
    assert said[0].endswith(" yes")
    assert "refused" in said[1]
