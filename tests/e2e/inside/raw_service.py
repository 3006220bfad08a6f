#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A local service that answers with any bytes: raw_service.py PORT FOLDER.

The answer to /NAME is the file FOLDER/NAME as it is; where that holds a line that is only `~`, the service pauses for
half a second, and what is behind a line that is only `~~` it sends again and again, for as long as it is taken. Any
other path is answered with "plain". Each request is a line of JSON in FOLDER/log:
{"line": "GET / HTTP/1.1", "headers": [[name, value], ...]}.
"""

import json
import pathlib
import socketserver
import sys
import time

FOLDER = pathlib.Path(sys.argv[2])


class Service(socketserver.StreamRequestHandler):
    """One connection."""

    def body(self, headers: list[list[str]]) -> None:
        """Read the body as the headers announce it, and forget it."""
        named = {name.lower(): value for name, value in headers}
        if "chunked" in named.get("transfer-encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(named.get("content-length", "0")))

    def handle(self) -> None:
        """Answer one request after the other."""
        while line := self.rfile.readline().decode("latin-1").strip():
            headers = []
            while header := self.rfile.readline().decode("latin-1").strip():
                name, _, value = header.partition(":")
                headers.append([name, value.strip()])
            with (FOLDER / "log").open("a") as log:
                print(json.dumps({"line": line, "headers": headers}), file=log)
            self.body(headers)
            answer = FOLDER / (line.split(" ")[1].strip("/").partition("/")[0] or "none")
            if not answer.exists():
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nplain")
                continue
            start, _, endless = answer.read_bytes().partition(b"\n~~\n")
            for number, part in enumerate(start.split(b"\n~\n")):
                if number:
                    time.sleep(0.5)
                self.wfile.write(part)
            while endless:
                self.wfile.write(endless)
            return


class Server(socketserver.ThreadingTCPServer):
    """Many connections."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


FOLDER.mkdir(exist_ok=True)
Server(("", int(sys.argv[1])), Service).serve_forever()
