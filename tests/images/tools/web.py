#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local web service at a tunnel's end: web.py [--port 80] [--name web] [--tls].

/                 a small page that names the service
/echo/...         the request as JSON: method, path, query, headers (list of pairs), body length, peer
/bytes/N          N bytes, streamed (zeros)
/upload           counts the body as it comes; JSON {"bytes": N, "sha256": ...}
/progress         JSON: bytes that the running or last upload has counted so far
/ws               WebSocket echo
/sse?n=3&gap=1    n server-sent events, gap seconds apart, the first at once
/slow?s=5         answers after s seconds
/silent           never answers
/drip?n=5&gap=1   n lines, chunked, gap seconds apart
/redirect?to=URL  302 to URL (default: absolute, to this host as the Host header names it)
/cookie?domain=D  sets a cookie, for domain D if given
/status/N         answers with status N
/headers?k=v      answers with these response headers
/origin           403 unless Origin is absent or equals the Host, as servers that answer only to localhost do
"""

import argparse
import asyncio
import hashlib
import json
import pathlib
import ssl
import subprocess
import tempfile

from aiohttp import WSMsgType, web

NAME = web.AppKey("name", str)
COUNT = web.AppKey("count", dict)
routes = web.RouteTableDef()


@routes.get("/")
async def page(request: web.Request) -> web.Response:
    """A small page."""
    text = f"<!doctype html><title>{request.app[NAME]}</title><p>Hello from {request.app[NAME]}.</p>\n"
    return web.Response(text=text, content_type="text/html")


@routes.route("*", "/echo{rest:.*}")
async def echo(request: web.Request) -> web.Response:
    """The request as it arrived."""
    body = await request.read()
    return web.json_response(
        {
            "service": request.app[NAME],
            "method": request.method,
            "path": request.raw_path,
            "headers": [[key.decode("latin-1"), value.decode("latin-1")] for key, value in request.raw_headers],
            "body": len(body),
            "peer": request.remote,
        }
    )


@routes.get("/bytes/{count}")
async def download(request: web.Request) -> web.StreamResponse:
    """As many zero bytes as asked for."""
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Length": str(left), "Content-Type": "application/octet-stream"})
    await response.prepare(request)
    chunk = bytes(256 * 1024)
    while left > 0:
        await response.write(chunk[:left] if left < len(chunk) else chunk)
        left -= len(chunk)
    return response


@routes.route("*", "/upload")
async def upload(request: web.Request) -> web.Response:
    """Count the body while it streams in."""
    size, digest = 0, hashlib.sha256()
    request.app[COUNT]["bytes"] = 0
    async for chunk in request.content.iter_chunked(256 * 1024):
        size += len(chunk)
        digest.update(chunk)
        request.app[COUNT]["bytes"] = size
    return web.json_response({"bytes": size, "sha256": digest.hexdigest()})


@routes.get("/progress")
async def progress(request: web.Request) -> web.Response:
    """How far the upload has come."""
    return web.json_response(request.app[COUNT])


@routes.get("/ws")
async def socket(request: web.Request) -> web.WebSocketResponse:
    """Echo each message."""
    response = web.WebSocketResponse(max_msg_size=0)
    await response.prepare(request)
    async for message in response:
        if message.type == WSMsgType.TEXT:
            await response.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await response.send_bytes(message.data)
    return response


async def in_pieces(request: web.Request, content_type: str, piece: str) -> web.StreamResponse:
    """Send n pieces, gap seconds apart, the first at once."""
    response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
    await response.prepare(request)
    gap = float(request.query.get("gap", "1"))
    for number in range(int(request.query.get("n", "3"))):
        if number:
            await asyncio.sleep(gap)
        await response.write(piece.format(number).encode())
    return response


@routes.get("/sse")
async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events."""
    return await in_pieces(request, "text/event-stream", "data: {}\n\n")


@routes.get("/drip")
async def drip(request: web.Request) -> web.StreamResponse:
    """A page that comes line by line."""
    return await in_pieces(request, "text/plain", "line {}\n")


@routes.get("/slow")
async def slow(request: web.Request) -> web.Response:
    """An answer that takes its time."""
    await asyncio.sleep(float(request.query.get("s", "5")))
    return web.Response(text="late\n")


@routes.get("/silent")
async def silent(request: web.Request) -> web.Response:
    """No answer at all."""
    await asyncio.Event().wait()
    return web.Response()


@routes.get("/redirect")
async def redirect(request: web.Request) -> web.Response:
    """A redirect, by default an absolute one to this very host."""
    return web.Response(status=302, headers={"Location": request.query.get("to", f"http://{request.host}/echo/there")})


@routes.get("/cookie")
async def cookie(request: web.Request) -> web.Response:
    """A cookie."""
    domain = request.query.get("domain")
    return web.Response(headers={"Set-Cookie": "taste=sweet; Path=/" + (f"; Domain={domain}" if domain else "")})


@routes.route("*", "/status/{status}")
async def status(request: web.Request) -> web.Response:
    """Any status."""
    return web.Response(status=int(request.match_info["status"]), text=f"status {request.match_info['status']}\n")


@routes.get("/headers")
async def headers(request: web.Request) -> web.Response:
    """Any response headers."""
    return web.Response(headers=list(request.query.items()), text="headers\n")


@routes.route("*", "/origin")
async def origin(request: web.Request) -> web.Response:
    """Refuse foreign pages, as a careful local server does."""
    sender = request.headers.get("Origin")
    own = sender is None or sender.split("://", 1)[-1] == request.host
    return web.Response(status=200 if own else 403, text=f"{request.host} {sender}\n")


def self_signed() -> ssl.SSLContext:
    """A certificate for localhost that nobody can verify."""
    folder = pathlib.Path(tempfile.mkdtemp())
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "30", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--name", default="web")
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args()
    app = web.Application(client_max_size=2**40)
    app[NAME] = args.name
    app[COUNT] = {"bytes": 0}
    app.add_routes(routes)
    print(json.dumps({"serving": args.name, "port": args.port}))
    web.run_app(app, port=args.port, ssl_context=self_signed() if args.tls else None, print=None)


if __name__ == "__main__":
    main()
