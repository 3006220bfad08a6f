#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor with an open WebSocket: echo.py URL CA-FILE OUTPUT.

Says the number of the turn each second, and writes a line with what came back; ends when that is something else, or
when nothing came within 5 s.
"""

import asyncio
import pathlib
import ssl
import sys

import websockets


async def main() -> None:
    """Talk until ended."""
    context = ssl.create_default_context(cafile=sys.argv[2])
    with pathlib.Path(sys.argv[3]).open("w", buffering=1) as output:
        async with websockets.connect(sys.argv[1], ssl=context) as socket:
            turn = 0
            while True:
                await socket.send(str(turn))
                answer = str(await asyncio.wait_for(socket.recv(), 5))
                print(answer, file=output)
                if str(turn) not in answer:
                    return
                turn += 1
                await asyncio.sleep(1)


asyncio.run(main())
