# SPDX-License-Identifier: GPL-3.0-or-later
"""The main path: whoever opens a tunnel has an HTTPS address."""

import pytest
from world import Client, Visitor, Web, until

VERSIONS = ["1.1", "2", "3"]


@pytest.mark.parametrize("http", VERSIONS)
def test_a_port_becomes_an_address(client: Client, web: Web, visitor: Visitor, domain: str, http: str) -> None:
    """-R 8080:… answers at https://8080.<domain>."""
    with client.tunnel("8080", to=web):
        answer = visitor.get(f"https://8080.{domain}/echo/here?a=b", http=http)
    assert (answer.status, answer.version) == (200, http), answer.error
    assert answer.json()["path"] == "/echo/here?a=b"
    assert answer.sent("Host") == [f"8080.{domain}"]


def test_the_server_chooses_a_port_and_the_client_prints_it(
    client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """-R 0:… answers at the port that ssh prints."""
    with client.tunnel("0", to=web) as tunnel:
        [port] = tunnel.ports
        assert visitor.get(f"https://{port}.{domain}/").status == 200


@pytest.mark.parametrize("http", VERSIONS)
def test_a_name_becomes_an_address(client: Client, web: Web, visitor: Visitor, domain: str, http: str) -> None:
    """-R guest-x:80:… answers at https://guest-x.<domain>."""
    with client.tunnel("guest-x:80", to=web):
        answer = visitor.get(f"https://guest-x.{domain}/", http=http)
    assert (answer.status, answer.version) == (200, http), answer.error
    assert "Hello from web." in answer.body


def test_the_full_host_name_is_the_same_name(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """-R guest-x.<domain>:80:… is what people type, too."""
    with client.tunnel(f"guest-full.{domain}:80", to=web):
        assert visitor.get(f"https://guest-full.{domain}/").status == 200


def test_several_forwards_share_a_connection(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Several -R in one connection each have their address."""
    with client.tunnel("8081", "guest-one:80", "guest-two:80", "0", to=web) as tunnel:
        for label in (8081, "guest-one", "guest-two", *tunnel.ports):
            assert visitor.get(f"https://{label}.{domain}/").status == 200, label


def test_plain_http_leads_to_https(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """http:// redirects to https://, same host and path."""
    with client.tunnel("guest-x:80", to=web):
        answer = visitor.get(f"http://guest-x.{domain}/echo/a?b=c", http="1.1")
    assert answer.status in (301, 302, 307, 308)
    assert answer.headers["location"] == f"https://guest-x.{domain}/echo/a?b=c"


def test_a_websocket_passes(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A WebSocket echo."""
    with client.tunnel("guest-ws:80", to=web):
        assert visitor.websocket(f"wss://guest-ws.{domain}/ws", "one", "two")["answers"] == ["one", "two"]


def test_events_come_at_once(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Server-sent events aren't held back: the first of three that are 2 s apart comes before the second is sent."""
    with client.tunnel("guest-sse:80", to=web):
        visitor.get(f"https://guest-sse.{domain}/")
        first, second = visitor.events(f"https://guest-sse.{domain}/sse?n=2&gap=2", count=2)
    assert first < 1
    assert second > 1.5


def test_the_address_ends_with_the_tunnel(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A name that nobody holds any more gets a page that says so."""
    with client.tunnel("guest-gone:80", to=web):
        assert visitor.get(f"https://guest-gone.{domain}/").status == 200
    until("the name is free", lambda: visitor.get(f"https://guest-gone.{domain}/").status == 404, within=3)
