# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS that is passed through: which hellos the edge leads to the relay, and what the relay is told.

The edge runs from the image that the role builds. Another nginx in its container stands for all that is behind it: each
of its sockets says its name to whoever comes.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from edge import hello, published
from render import render

DOMAIN = "proxme.example.com"
LONG = ".".join("abc"[each] * 63 for each in range(3)) + "." + "d" * 49 + ".example.org"
PASSED = {"name": "alice-own", "passthrough": True}
SHOWN = {"own.example.org": PASSED, LONG: PASSED, "shop.example.org": "alice-shop"}
GIVEN = {
    "tunnel_domain": DOMAIN,
    "tunnel_accounts": [{"name": "alice", "domains": SHOWN}, {"name": "bob"}],
    "tunnel_blocked_addresses": ["203.0.113.0/24", "2001:db8:9::/48"],
    "tunnel_visits_per_address": 3,
}
BEHIND = """
load_module modules/ngx_stream_module.so;
pid /tmp/behind.pid;
error_log /dev/null;
events { }
stream {
  # Who ends a connection with something unread takes back what it said.
  ssl_preread on;
  server { listen 127.0.0.1:443; return caddy; }
  # It takes its time, so that its visitors stay.
  server {
    listen unix:/run/tunnel/relay/passthrough.sock proxy_protocol;
    proxy_pass unix:/tmp/relay.sock;
    proxy_download_rate 5;
  }
  server { listen unix:/tmp/relay.sock; return "relay, and so on for as long as this is not read to its end"; }
  server { listen unix:/run/tunnel/relay/ssh.sock; return ssh; }
}
"""
START = """
for part in edge relay; do
  ln -sfn /given/$part /etc/proxme-tunnel
  : >/tmp/hidden.conf
  [ $part = edge ] || echo 'default 127.0.0.1:1;' >/tmp/hidden.conf
  nginx -t -c /etc/proxme-tunnel/$part.conf
done
ln -sfn /given/edge /etc/proxme-tunnel
: >/tmp/hidden.conf
mkdir /run/tunnel/relay
nginx -c /given/behind.conf
exec nginx -c /etc/proxme-tunnel/edge.conf
"""


@pytest.fixture(scope="module")
def edge(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """Run the edge; where it listens."""
    folder = tmp_path_factory.mktemp("edge")
    for name in (
        "edge/edge.conf",
        "edge/settings.js",
        "relay/relay.conf",
        "relay/passthrough.conf",
        "relay/blocked.conf",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(render("edge", f"{name.partition('/')[2]}.j2", **GIVEN))
    (folder / "behind.conf").write_text(BEHIND)
    options = ["--user=0", f"--volume={folder}:/given:ro"]
    with published(START, options, lambda address: led(address, b"SSH-2.0-x\r\n") == "ssh") as address:
        yield address


def led(address: tuple[str, int], data: bytes) -> str:
    """Send bytes; what the other end says its name is, "" where there is none."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=15) as connection:
        connection.sendall(data)
        return connection.recv(5).decode()
    return ""


@pytest.mark.parametrize("name", ["own.example.org", "OWN.example.ORG", "own.example.org.", "Own.Example.Org.", LONG])
@pytest.mark.parametrize("alpn", [(), ("acme-tls/1",)], ids=["visitor", "challenge"])
def test_a_domain_that_is_passed_through_is_led_to_the_relay(edge, name, alpn):
    assert led(edge, hello(name, *alpn)) == "relay"


@pytest.mark.parametrize(
    "name",
    [
        *("shop.example.org", "x.own.example.org", "example.org", "own.example.org.example.com", "xown.example.org"),
        *(f"alice-own.{DOMAIN}", DOMAIN, "constructor", "__proto__", "own.example.org..", None),
    ],
)
def test_no_other_name_is(edge, name):
    assert led(edge, hello(name)) == "caddy"


def test_an_address_has_so_many_connections_at_once(edge):
    """Here what is asked can't be counted."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            held = stack.enter_context(socket.create_connection(edge, timeout=15))
            held.sendall(hello("own.example.org"))
            assert held.recv(5) == b"relay"
        assert led(edge, hello("own.example.org")) == ""
        assert led(edge, hello("shop.example.org")) == "caddy"
    deadline = time.monotonic() + 10
    while led(edge, hello("own.example.org")) != "relay":
        assert time.monotonic() < deadline, "they have ended, and count no more"


def test_the_relay_is_told_which_tunnel_a_domain_shows_and_who_is_blocked():
    told = [line for line in render("edge", "passthrough.conf.j2", **GIVEN).splitlines() if not line.startswith("#")]
    assert told == [f"{LONG} alice-own:443;", "own.example.org alice-own:443;"]
    told = [line for line in render("edge", "blocked.conf.j2", **GIVEN).splitlines() if not line.startswith("#")]
    assert told == ["deny 2001:db8:9::/48;", "deny 203.0.113.0/24;"]
