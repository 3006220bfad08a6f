#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many visitors at once, who ask and then don't read: crowd.py COUNT REPORT URL CA-FILE, or COUNT REPORT HOST:PORT.

With a URL each asks for it over a TLS connection of its own and reads no more than the start of the status line. With
HOST:PORT each connects and is silent. REPORT is a file of JSON, written again all the time: the number of connections
for each of the first words that came ("HTTP/1.1 429", "SSH-2.0"), "" for open ones where nothing came, and "closed".
"""

import asyncio
import collections
import json
import pathlib
import socket
import ssl
import sys
import urllib.parse

COUNT, REPORT, TARGET = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
said: dict[int, str] = {}


async def visit(number: int) -> None:
    """One of them; keeps its connection until the end."""
    url = urllib.parse.urlsplit(TARGET if "//" in TARGET else f"//{TARGET}")
    origin = f"{url.scheme}://{url.netloc}"
    context = ssl.create_default_context(cafile=sys.argv[4]) if url.scheme == "https" else None
    try:
        connection = socket.socket()
        # Or this machine would take some megabytes off each before anybody noticed that nobody reads.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        address = socket.gethostbyname(url.hostname), url.port or 443
        await asyncio.get_running_loop().sock_connect(connection, address)
        name = url.hostname if context else None
        reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=name, limit=1024)
        said[number] = ""
        if context:
            writer.write(f"GET {TARGET.removeprefix(origin)} HTTP/1.1\r\nHost: {url.hostname}\r\n\r\n".encode())
        first = (await reader.readexactly(12 if context else 7)).decode()
        said[number] = first
        if not context:
            while await reader.read(100):
                pass
            said[number] = "closed"
    except (OSError, asyncio.IncompleteReadError):
        said[number] = "closed"
        return
    await asyncio.Event().wait()


async def main() -> None:
    """All of them, until ended."""
    crowd = [asyncio.create_task(visit(number)) for number in range(COUNT)]
    while crowd:
        REPORT.with_suffix(".new").write_text(json.dumps(collections.Counter(said.values())))
        REPORT.with_suffix(".new").rename(REPORT)
        await asyncio.sleep(0.2)


asyncio.run(main())
