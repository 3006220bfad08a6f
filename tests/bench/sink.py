#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes uploads and throws them away: sink.py PORT. Answers with the number of bytes it read, and costs little."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 20


class Sink(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the body, whose length has to be given, into the same piece of memory again and again."""
        size = left = int(self.headers["Content-Length"])
        # Past the buffered reader, after what it holds already.
        left -= len(self.rfile.read(min(left, len(self.rfile.peek()))))
        piece = memoryview(bytearray(PIECE))
        while left:
            got = self.connection.recv_into(piece, min(left, PIECE))
            if not got:
                raise ConnectionError(f"the body ended {left} bytes early")
            left -= got
        answer = str(size).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
