# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's ports say to who comes to ::1: over_ipv6.py DOMAIN PORT...

A port is "443/ssh" where the client speaks ssh. Prints the begin of each answer as JSON. "tls" is that of port 443 to a
visitor of the domain, who verifies nothing.
"""

import json
import socket
import ssl
import sys

QUESTION = b"GET / HTTP/1.0\r\n\r\n"


def dial(port: str) -> socket.socket:
    """A connection to a port."""
    return socket.create_connection(("::1", int(port.partition("/")[0])), timeout=10)


domain, *ports = sys.argv[1:]
answers = {}
for port in ports:
    with dial(port) as connection:
        # sshd speaks first, but at 443 to who has begun. What visitors are answered by waits for a question.
        if port != "2222":
            connection.sendall(b"SSH-2.0-test\r\n" if port.endswith("/ssh") else QUESTION)
        answers[port] = connection.recv(12).decode(errors="replace")
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with context.wrap_socket(dial("443"), server_hostname=domain) as connection:
    connection.sendall(QUESTION)
    answers["tls"] = connection.recv(12).decode(errors="replace")
print(json.dumps(answers))
