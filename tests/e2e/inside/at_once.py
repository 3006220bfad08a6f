#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends the same over many connections at once: at_once.py UNIX-SOCKET NUMBER <BYTES; prints the status of each."""

import socket
import sys

request = sys.stdin.buffer.read()
connections = []
for _ in range(int(sys.argv[2])):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(sys.argv[1])
    connection.sendall(request)
    connections.append(connection)
for connection in connections:
    print(connection.recv(65536).decode(errors="replace").split(" ")[1])
