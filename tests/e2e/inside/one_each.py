#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that closes each connection when it is used again: one_each.py PORT FILE.

It promises to keep it, and closes it as soon as the first byte of a second request is there, as one does that was just
about to close an idle connection. The methods that it has answered are the lines of FILE.
"""

import pathlib
import socketserver
import sys


class Service(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer the first request."""
        method = self.rfile.readline().decode().split(" ")[0]
        length = 0
        while header := self.rfile.readline().decode().strip():
            name, _, value = header.partition(":")
            length = int(value) if name.lower() == "content-length" else length
        self.rfile.read(length)
        with pathlib.Path(sys.argv[2]).open("a") as log:
            print(method, file=log)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce")
        self.rfile.read(1)


class Server(socketserver.ThreadingTCPServer):
    """Many connections."""

    allow_reuse_address = True
    daemon_threads = True


Server(("", int(sys.argv[1])), Service).serve_forever()
