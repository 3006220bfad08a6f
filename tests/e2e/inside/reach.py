#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says which targets answer: reach.py KIND:ADDRESS[:PORT]..., one line each, "yes" or the reason why not.

tcp connects. udp sends a question for a name to a name server. ping sends one echo request (needs root).
"""

import concurrent.futures
import socket
import struct
import sys


def ping(address: str) -> None:
    """Ask for one echo and wait for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as connection:
        connection.settimeout(2)
        checksum = 0xFFFF - (0x0800 + 0x7072)
        connection.sendto(struct.pack("!BBHHH", 8, 0, checksum, 0x7072, 0), (address, 0))
        while True:
            packet, (sender, _) = connection.recvfrom(2048)
            if sender == address and packet[20] == 0 and packet[24:26] == b"pr":
                return


def ask(address: str, port: int) -> None:
    """Ask a name server for a name and wait for any answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(2)
        connection.connect((address, port))
        connection.send(bytes.fromhex("707201000001000000000000") + b"\x06pebble\x00\x00\x01\x00\x01")
        connection.recv(512)


def answers(target: str) -> str:
    """What is known of one target."""
    kind, address, *port = target.split(":")
    try:
        if kind == "ping":
            ping(address)
        elif kind == "udp":
            ask(address, int(port[0]))
        else:
            socket.create_connection((address, int(port[0])), 2).close()
    except OSError as error:
        return f"{target} {error!r}"
    return f"{target} yes"


with concurrent.futures.ThreadPoolExecutor(len(sys.argv)) as pool:
    print(*pool.map(answers, sys.argv[1:]), sep="\n")
