#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: paramiko 5.1.0, of PyPI, as client. The server is asyncssh 2.24.1, of PyPI.
#
# Guess: set_keepalive(1) is what ServerAliveInterval=1 is to ssh: with a server that no longer answers, the
# transport is inactive after some seconds, and a program that waits for that can connect again.
#
# Seen: the keepalives are sent, and nobody waits for an answer to them. 20 s after the last sign of the server
# is_active() is still True. asyncssh as client of the same silent server, with keepalive_interval=1, has given up
# long before.
#
# Output seen:
#   paramiko: active after 20 s of silence
#   asyncssh: closed after 20 s of silence

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


async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key])
    print(server.get_port(), flush=True)
    await asyncio.sleep(200)


asyncio.run(main())
END
cat >client.py <<'END'
import asyncio
import os
import signal
import sys

import asyncssh
import paramiko

port, server = map(int, sys.argv[1:])


async def main():
    transport = paramiko.Transport(("127.0.0.1", port))
    transport.start_client(timeout=10)
    transport.auth_none("nobody")
    transport.set_keepalive(1)
    other = await asyncssh.connect(
        "127.0.0.1", port, username="nobody", known_hosts=None, client_keys=None, config=[], keepalive_interval=1
    )
    closed = asyncio.create_task(other.wait_closed())
    await asyncio.sleep(3)
    # From here on the server is silent; the kernel still takes what is sent to it.
    os.kill(server, signal.SIGSTOP)
    await asyncio.sleep(20)
    print("paramiko:", "active" if transport.is_active() else "inactive", "after 20 s of silence")
    print("asyncssh:", "closed" if closed.done() else "open", "after 20 s of silence")
    os.kill(server, signal.SIGCONT)
    transport.close()


asyncio.run(main())
END
venv/bin/python server.py >server.out &
server=$!
pids+=("$server")
for _ in {1..100}; do if [ -s server.out ]; then break; fi; sleep 0.1; done
seen=$(timeout 100 venv/bin/python client.py "$(<server.out)" "$server" 2>client.log || cat client.log)
expected="paramiko: active after 20 s of silence
asyncssh: closed after 20 s of silence"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
