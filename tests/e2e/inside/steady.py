#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visitors who come at a steady pace, whether or not those before have been answered: steady.py URL CA-FILE OUTPUT.

One every 0.2 s; each waits for at most 3 s. Writes a line of JSON for each: {"time": monotonic seconds of this machine
when it came, "status": 0 if there was no answer, "body": the start of it, or the reason why there was none}.
"""

import asyncio
import json
import pathlib
import ssl
import sys
import time
from typing import TextIO

import aiohttp

EVERY, PATIENCE = 0.2, 3


async def visit(session: aiohttp.ClientSession, output: TextIO) -> None:
    """One of them."""
    came = time.monotonic()
    try:
        async with session.get(sys.argv[1]) as answer:
            status, body = answer.status, await answer.text()
    except (aiohttp.ClientError, OSError) as error:
        status, body = 0, repr(error)
    print(json.dumps({"time": came, "status": status, "body": body[:200]}), file=output)


async def main() -> None:
    """All of them, until ended."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=sys.argv[2]))
    patience = aiohttp.ClientTimeout(total=PATIENCE)
    with pathlib.Path(sys.argv[3]).open("w", buffering=1) as output:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=patience) as session,
            asyncio.TaskGroup() as group,
        ):
            start = time.monotonic()
            turn = 0
            while True:
                group.create_task(visit(session, output))
                turn += 1
                await asyncio.sleep(max(0, start + turn * EVERY - time.monotonic()))


asyncio.run(main())
