#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: paramiko 5.1.0, of PyPI, as client. The server is asyncssh 2.24.1, of PyPI.
#
# Guess: request_port_forward(address, port, handler), called twice with two handlers, gives each forward its own:
# visitors of the first forward come to the first handler. And cancel_port_forward of one leaves the other alone.
#
# Seen: a connection has one handler, that of the last call. It gets the visitors of all forwards, those of the first
# too, and can tell them apart only by the server's address that it is handed. Cancel one forward, and the other has
# no handler either: its port stays open on the server, but its visitors are turned away.
#
# Output seen:
#   visitor of the first forward: second handler
#   visitor of the second forward: second handler
#   visitor of the first forward, the second cancelled: nobody

set -euo pipefail

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install paramiko==5.1.0 asyncssh==2.24.1

cat >server.py <<'END'
import asyncio

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

    def server_requested(self, listen_host, listen_port):
        return True


async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key])
    print(server.get_port(), flush=True)
    await asyncio.sleep(100)


asyncio.run(main())
END
cat >client.py <<'END'
import socket
import sys

import paramiko


def handler(name):
    def handle(channel, origin, server):
        channel.sendall(name.encode())
        channel.close()

    return handle


def visit(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        try:
            return visitor.makefile().read() or "nobody"
        except ConnectionResetError:
            return "nobody"


transport = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
transport.start_client(timeout=10)
transport.auth_none("nobody")
first = transport.request_port_forward("127.0.0.1", 0, handler("first handler"))
second = transport.request_port_forward("127.0.0.1", 0, handler("second handler"))
print("visitor of the first forward:", visit(first))
print("visitor of the second forward:", visit(second))
transport.cancel_port_forward("127.0.0.1", second)
print("visitor of the first forward, the second cancelled:", visit(first))
transport.close()
END
venv/bin/python server.py >server.out &
pids+=($!)
for _ in {1..100}; do if [ -s server.out ]; then break; fi; sleep 0.1; done
seen=$(timeout 60 venv/bin/python client.py "$(<server.out)")
expected="visitor of the first forward: second handler
visitor of the second forward: second handler
visitor of the first forward, the second cancelled: nobody"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
