#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests over HTTP/1.1 with too much in them: bombs.py KIND COUNT HOST, ten at a time.

KIND is many (20,000 headers), huge (one of 4 MB), long (one of 100 KB) or uri (a path of 100 KB). Prints, as JSON, how
many were answered with each status; "closed" is none.
"""

import collections
import concurrent.futures
import contextlib
import json
import socket
import ssl
import sys

KIND, COUNT, HOST = sys.argv[1], int(sys.argv[2]), sys.argv[3]
CONTEXT = ssl._create_unverified_context()
PATH = "/" + ("x" * 100_000 if KIND == "uri" else "")
MORE = {"many": "X-Many: yes\r\n" * 20_000, "huge": f"X: {'x' * 4_000_000}\r\n", "long": f"X: {'x' * 100_000}\r\n"}
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{MORE.get(KIND, '')}\r\n".encode()


def ask(_: int) -> str:
    """Send one; the status."""
    try:
        with CONTEXT.wrap_socket(socket.create_connection((HOST, 443), 20), server_hostname=HOST) as connection:
            # The host may have heard enough before the end; its answer is there then.
            with contextlib.suppress(OSError):
                connection.sendall(REQUEST)
            return connection.recv(12).decode().partition(" ")[2] or "closed"
    except OSError:
        return "closed"


with concurrent.futures.ThreadPoolExecutor(10) as pool:
    print(json.dumps(collections.Counter(pool.map(ask, range(COUNT)))))
