#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket visitor: websocket.py URL CA-FILE [--hold SECONDS] MESSAGE...

Sends each message, waits for its answer, and prints one JSON object: {"answers": [...], "subprotocol": ...,
"seconds": [...], "closed": code or null}. With --hold it then keeps the connection open for that long and reports in
"closed" the code with which the other side closed it meanwhile.
"""

import argparse
import asyncio
import json
import ssl
import time

import websockets


async def main() -> None:
    """Run the conversation that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("ca")
    parser.add_argument("messages", nargs="*")
    parser.add_argument("--hold", type=float, default=0)
    parser.add_argument("--header", action="append", default=[])
    args = parser.parse_args()
    tls = ssl.create_default_context(cafile=args.ca) if args.url.startswith("wss:") else None
    headers = [tuple(part.strip() for part in line.split(":", 1)) for line in args.header]
    answers: list[str] = []
    seconds: list[float] = []
    closed = None
    async with websockets.connect(args.url, ssl=tls, additional_headers=headers, max_size=None) as socket:
        for message in args.messages:
            start = time.monotonic()
            await socket.send(message)
            answers.append(str(await asyncio.wait_for(socket.recv(), 20)))
            seconds.append(time.monotonic() - start)
        if args.hold:
            try:
                await asyncio.wait_for(socket.wait_closed(), args.hold)
                closed = socket.close_code
            except TimeoutError:
                pass
    print(json.dumps({"answers": answers, "seconds": seconds, "closed": closed}))


asyncio.run(main())
