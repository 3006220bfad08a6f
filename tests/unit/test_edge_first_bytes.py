# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the edge leads a connection by its first bytes: TLS by the name in its hello, ssh, and all else to Caddy.

The edge runs from its image, and a second nginx in its container stands for all that is behind it: each of its sockets
says its name to whoever comes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from edge import hello, pem, published
from render import render

DOMAIN = "proxme.example.com"
HELD = f"guest-held.{DOMAIN}"
BEHIND = """
load_module modules/ngx_stream_module.so;
pid /tmp/behind.pid;
error_log /dev/null;
events { worker_connections 2048; }
stream {
  # Who ends a connection with something unread takes back what it said.
  ssl_preread on;
  server { listen 127.0.0.1:443; return caddy; }
  server { listen unix:/run/tunnel/relay/hidden-ssh.sock; return hidden-ssh; }
  server { listen unix:/run/tunnel/relay/ssh.sock; return ssh; }
}
"""
START = "mkdir /run/tunnel/relay && nginx -c /etc/proxme-tunnel/behind.conf && exec serve edge"


@pytest.fixture(scope="module")
def edge(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """Run the edge, with a certificate for the name that is held; where it listens."""
    folder = tmp_path_factory.mktemp("edge")
    folder.chmod(0o755)
    given = {"tunnel_domain": DOMAIN}
    for name in ("edge.conf", "settings.js"):
        (folder / name).write_text(render("edge", f"{name}.j2", **given))
    (folder / "behind.conf").write_text(BEHIND)
    store = folder / "certificates/acme-v02.api.letsencrypt.org-directory" / HELD
    store.mkdir(parents=True)
    certificate, key = pem(HELD, timedelta(-1), timedelta(30))
    (store / f"{HELD}.key").write_text(key)
    (store / f"{HELD}.crt").write_text(certificate)
    options = ["--cap-drop=ALL", "--user=65532:33", "--tmpfs=/tmp:mode=1777"]
    options += ["--sysctl=net.ipv4.ip_unprivileged_port_start=0"]
    options += [f"--volume={folder}:/etc/proxme-tunnel:ro", f"--volume={folder}/certificates:/certificates:ro"]
    options += ["--volume=/dev/null:/own:ro"]
    with published(START, options, lambda address: led(address, b"SSH-2.0-x\r\n") == b"hidden-ssh") as address:
        # The first hello of a name in an hour is Caddy's in any case.
        assert led(address, offering(HELD)) == b"caddy"
        yield address


def offering(name: str | None, protocols: int = 1) -> bytes:
    """A hello with so many protocols of 255 letters to choose from, besides the usual ones."""
    return hello(name, "h2", "http/1.1", *(f"{number:x<255}" for number in range(protocols)))


def in_records(size: int) -> Callable[[bytes], list[bytes]]:
    """Cut a hello into TLS records that hold no more than `size` bytes each, and send them at once."""

    def cut(data: bytes) -> list[bytes]:
        message = data[5:]
        parts = [message[start : start + size] for start in range(0, len(message), size)]
        return [b"".join(data[:3] + len(part).to_bytes(2, "big") + part for part in parts)]

    return cut


def at(*places: int) -> Callable[[bytes], list[bytes]]:
    """Cut bytes into segments at these places."""
    return lambda data: [data[start:end] for start, end in zip((0, *places), (*places, None), strict=True)]


CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": at(),
    "after one byte": at(1),
    "after three": at(3),
    "within the head of the record": at(5),
    "in the name": lambda data: at(data.lower().find(b"guest") + 3)(data),
    "byte by byte": lambda data: [bytes([byte]) for byte in data],
    "two records": in_records(300),
    "records of 40 bytes": in_records(40),
}


def led(address: tuple[str, int], *segments: bytes, pause: float = 0.0) -> bytes:
    """Send segments and return what the answer begins with, at least once in five; b"" if there is none.

    The stand-ins close without having read what they were sent: now and then that overtakes their answer.
    """
    answers = (answered(address, segments, pause) for _ in range(5))
    return next(filter(None, answers), b"")


def answered(address: tuple[str, int], segments: tuple[bytes, ...], pause: float) -> bytes:
    """Send segments and return what the answer begins with; b"" where the connection ends without one."""
    with socket.create_connection(address, timeout=15) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            connection.sendall(segment)
            # So that they arrive one by one.
            time.sleep(pause)
        try:
            return connection.recv(64)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", [HELD, HELD.upper(), f"{HELD}.", f"guest-other.{DOMAIN}", DOMAIN, None], ids=str)
def test_a_hello_is_led_by_its_name_however_it_comes(edge, name, cut):
    """A handshake of TLS (22) is the edge's own answer."""
    segments = CUTS[cut](offering(name))
    answer = led(edge, *segments, pause=0.0002 if len(segments) > 3 else 0.05)
    if name and name.lower().rstrip(".") == HELD:
        assert answer[:1] == b"\x16", answer
    else:
        assert answer == b"caddy"


@pytest.mark.parametrize("offers", [30, 62, 65], ids=lambda offers: f"{offers * 256} bytes")
def test_a_long_hello_is_led_by_its_name(edge, offers):
    """16 KB is what one record holds."""
    assert led(edge, *at(9000)(offering(HELD, offers)), pause=0.05)[:1] == b"\x16"
    assert led(edge, offering(DOMAIN, offers)) == b"caddy"


@pytest.mark.parametrize("cut", ["whole", "after one byte", "after three", "byte by byte"])
def test_ssh_is_who_says_so(edge, cut):
    # From the gateway of the container's network, behind which Docker's proxy hides many.
    assert led(edge, *CUTS[cut](b"SSH-2"), pause=0.01) == b"hidden-ssh"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"S", b"SSH", b"\x00\x00\x00\x00", b"\r\n\r\n\r\n"], ids=repr)
def test_what_is_neither_is_caddys(edge, said):
    with socket.create_connection(edge, timeout=5) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(64) in (b"caddy", b"")


def test_a_thousand_silent_ones_disturb_nobody_and_are_ended(edge):
    silent = [socket.create_connection(edge, timeout=20) for _ in range(1000)]
    try:
        began = time.monotonic()
        assert led(edge, b"SSH-2.0-x\r\n") == b"hidden-ssh"
        assert led(edge, offering(HELD))[:1] == b"\x16"
        assert led(edge, offering(DOMAIN)) == b"caddy"
        assert time.monotonic() - began < 2
        assert [connection.recv(1) for connection in silent] == [b""] * 1000
        assert time.monotonic() - began < 20
    finally:
        for connection in silent:
            connection.close()
