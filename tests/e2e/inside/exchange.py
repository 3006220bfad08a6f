#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends bytes as they are and prints what comes back: exchange.py TARGET [CA-FILE] <BYTES.

TARGET is tls:HOST (port 443, the name verified), tcp:HOST:PORT or unix:PATH. Ends when the other side closes, or after
a silent second.
"""

import socket
import ssl
import sys


def dial(target: str) -> socket.socket:
    """A connection to the target."""
    kind, _, where = target.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(where)
        return connection
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host, int(port)), 5)
    context = ssl.create_default_context(cafile=sys.argv[2])
    return context.wrap_socket(socket.create_connection((where, 443), 5), server_hostname=where)


def main() -> None:
    """Send standard input, print the answer."""
    connection = dial(sys.argv[1])
    connection.sendall(sys.stdin.buffer.read())
    connection.settimeout(1)
    try:
        while piece := connection.recv(65536):
            sys.stdout.buffer.write(piece)
    except (TimeoutError, ConnectionError):
        pass


main()
