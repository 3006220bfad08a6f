#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor whose HTTP/2 is as it was told, right or wrong: h2.py HOST <REQUESTS, or HOST bomb KIND, or HOST hold WHAT.

REQUESTS is JSON: [{"headers": [[name, value], ...], "body": "..."}, ...], pseudo-headers among the headers. Each is
sent on a connection of its own. Prints how each ended, as JSON: the status, "refused" (the stream), "closed" (the
connection), or "silent" after two seconds.

KIND is what is sent on one connection, until the host closes it or all was sent; prints the same for it, where the
status is that of a plain request that is sent last:

continuation  a request whose headers never end, in 4,000 frames of 1 KiB
table         a header of 4,000 bytes, and 12,000 times one byte that means the same header again
resets        4,000 requests, each taken back at once
streams       4,000 requests at the same time
pings         20,000 pings
settings      20,000 settings

WHAT is requests that it begins all at once and holds until it is ended; it reads no answers:

uploads       400 on four connections, with a body of 10 MB that is sent a byte a second
requests      4,000 on sixteen connections, each for a megabyte, for which it makes no room
"""

import json
import socket
import ssl
import struct
import sys
import time

HOST = sys.argv[1]
HEADERS, DATA, RESET, SETTINGS, PING, GOAWAY, CONTINUATION = 1, 0, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
# What an HPACK index of the static table means, as far as answers to us begin with it.
STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


def number(value: int, bits: int, first: int) -> bytes:
    """An integer as HPACK writes it (RFC 7541, 5.1)."""
    most = 2**bits - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def literal(name: str, value: str, first: int = 0) -> bytes:
    """A header, spelled out; with 0x40 as `first` it is kept in the table."""
    parts = [part.encode("latin-1") for part in (name, value)]
    return bytes([first]) + b"".join(number(len(part), 7, 0) + part for part in parts)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def plain(stream: int) -> bytes:
    """A request without fault."""
    named = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, b"".join(literal(*pair) for pair in named))


class Connection:
    """A connection whose host is asked for nothing else than that it speaks HTTP/2."""

    def __init__(self) -> None:
        """Connect."""
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2"])
        self.socket = context.wrap_socket(socket.create_connection((HOST, 443), 5), server_hostname=HOST)
        self.socket.settimeout(2)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        self.received = b""

    def take(self, count: int) -> bytes:
        """So many bytes that came."""
        while len(self.received) < count:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError
            self.received += piece
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def end_of(self, stream: int) -> object:
        """How a stream ended."""
        try:
            while True:
                head = self.take(9)
                payload = self.take(int.from_bytes(head[:3], "big"))
                kind, about = head[3], int.from_bytes(head[5:], "big")
                if kind == GOAWAY and payload[4:8] != bytes(4):
                    return "closed"
                if about == stream and kind == RESET:
                    return "refused"
                if about == stream and kind == HEADERS:
                    # The first header is the status, after a change of the table's size perhaps.
                    block = payload.lstrip(b"\x20\x3f\xe1\x1f")
                    return STATUS.get(block[0], "another status")
        except TimeoutError:
            return "silent"
        except (ConnectionError, ssl.SSLError):
            return "closed"

    def send(self, *frames: bytes) -> bool:
        """Send frames; whether the host was there to the end."""
        try:
            for piece in frames:
                self.socket.sendall(piece)
        except (OSError, ssl.SSLError):
            return False
        return True


def ask(request: dict) -> object:
    """Send one request; how it ended."""
    connection, body = Connection(), request.get("body", "").encode("latin-1")
    block = b"".join(literal(*header) for header in request["headers"])
    frames = [frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), 1, block)]
    if body:
        frames.append(frame(DATA, END_STREAM, 1, body))
    connection.send(*frames)
    return connection.end_of(1)


def bomb(kind: str) -> object:
    """Send one bomb; how the connection ended."""
    connection = Connection()
    named = b"".join(literal(*pair) for pair in ((":method", "GET"), (":scheme", "https"), (":authority", HOST)))
    many, streams = 4000, range(1, 8001, 2)
    filler = literal("x-filler", "x" * 1000)
    frames = {
        "continuation": lambda: [
            frame(HEADERS, END_STREAM, 1, named + literal(":path", "/")),
            *[frame(CONTINUATION, 0, 1, filler)] * many,
        ],
        "table": lambda: [
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                named + literal(":path", "/") + literal("x", "x" * 4000, 0x40) + bytes([0x80 | 62]) * 12_000,
            )
        ],
        "resets": lambda: [plain(n) + frame(RESET, 0, n, struct.pack("!I", 8)) for n in streams],
        "streams": lambda: [plain(n) for n in streams],
        "pings": lambda: [frame(PING, 0, 0, bytes(8))] * 20_000,
        "settings": lambda: [frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65535))] * 20_000,
    }[kind]()
    if not connection.send(*frames, plain(9001)):
        return "closed"
    return connection.end_of(9001)


HOLD = {"uploads": (4, 100, "POST", "/upload"), "requests": (16, 250, "GET", "/bytes/1000000")}


def hold(count: int, each: int, method: str, path: str) -> None:
    """Hold so many requests on each of so many connections."""
    connections, streams, upload = [Connection() for _ in range(count)], range(1, 2 * each, 2), method == "POST"
    named = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
    block = b"".join(literal(*pair) for pair in [*named, *([("content-length", "10000000")] if upload else [])])
    flags = END_HEADERS | (0 if upload else END_STREAM)
    for connection in connections:
        connection.send(*(frame(HEADERS, flags, stream, block) for stream in streams))
    pieces = [frame(DATA, 0, stream, b"x") for stream in streams] if upload else []
    while all(connection.send(*pieces) for connection in connections):
        time.sleep(1)
    sys.exit("The host has closed a connection.")


if sys.argv[2:3] == ["hold"]:
    hold(*HOLD[sys.argv[3]])
elif sys.argv[2:3] == ["bomb"]:
    # In one piece, as several may write to one pipe.
    sys.stdout.write(json.dumps(bomb(sys.argv[3])) + "\n")
else:
    print(json.dumps([ask(request) for request in json.load(sys.stdin)]))
