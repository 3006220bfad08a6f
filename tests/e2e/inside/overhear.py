#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands before Pebble and notes what is ordered: overhear.py PORT FILE.

Hands everything on, and appends each order, as the client has sent it, to FILE, one JSON object a line. It offers the
profile shortlived, as a CA must before a client asks for it: Pebble 2.6 has no profiles, and takes no notice of the one
that an order names.
"""

import asyncio
import base64
import json
import pathlib
import ssl
import sys

from aiohttp import ClientSession, TCPConnector, web

PEBBLE = "https://localhost:14000"
FOLDER = pathlib.Path("/srv/ca")
PROFILES = {"shortlived": "The tests' own."}


def note(signed: bytes, file: pathlib.Path) -> None:
    """Append what a signed request asks for."""
    payload = json.loads(base64.urlsafe_b64decode(json.loads(signed)["payload"] + "=="))
    with file.open("a") as notes:
        print(json.dumps(payload), file=notes)


async def main(port: int, file: pathlib.Path) -> None:
    """Listen until the end."""
    file.touch()
    trusted = ssl.create_default_context(cafile=FOLDER / "root.pem")
    session = ClientSession(connector=TCPConnector(ssl=trusted), auto_decompress=False)

    async def hand_on(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/order-plz":
            note(body, file)
        # With the client's Host, as the address of each request is signed.
        handed = session.request(request.method, PEBBLE + request.path_qs, headers=request.headers, data=body or None)
        async with handed as answer:
            said = await answer.read()
            headers = answer.headers.copy()
            headers.popall("Transfer-Encoding", None)
        if request.path == "/dir":
            directory = json.loads(said)
            directory["meta"]["profiles"] = PROFILES
            said = json.dumps(directory).encode()
            headers.popall("Content-Length", None)
        return web.Response(status=answer.status, headers=headers, body=said)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hand_on)
    runner = web.AppRunner(app)
    await runner.setup()
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(FOLDER / "pebble.pem", FOLDER / "pebble.key")
    await web.TCPSite(runner, port=port, ssl_context=own).start()
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), pathlib.Path(sys.argv[2])))
