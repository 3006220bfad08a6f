#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Programs: dbclient of Dropbear 2022.83, of Debian 12 (dropbear-bin 2022.83-1+deb12u3), as client; asyncssh 2.24.1,
# of PyPI, as server.
#
# Guess: the two have much in common, curve25519-sha256 and ssh-ed25519 among it, so they agree and dbclient
# connects.
#
# Seen: asyncssh ends every such connection during the key exchange. dbclient sends the first packet of its favourite
# exchange, curve25519-sha256, before it knows what the server likes. asyncssh, whose favourite is another, agrees to
# curve25519-sha256 and takes that packet as good; dbclient takes the guess as failed, for the favourites differ, and
# sends it again; and the second one is too much for asyncssh. With an asyncssh whose favourite is curve25519-sha256
# too, the guess is right for both, and the connection comes up.
#
# Output seen:
#   asyncssh as it is: refused, Key exchange not in progress
#   asyncssh with curve25519-sha256 as the first: connected

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
venv/bin/pip -q --disable-pip-version-check install asyncssh==2.24.1
packages=("dropbear-bin=2022.83-*" libtomcrypt1 libtommath1)
apt=(apt-get -qq -o APT::Sandbox::User=root)
if ! "${apt[@]}" download "${packages[@]}" 2>download.log; then
    mkdir -p lists/partial
    apt+=(-o "Dir::State::lists=$work/lists")
    "${apt[@]}" update
    "${apt[@]}" download "${packages[@]}"
fi
for package in *.deb; do dpkg -x "$package" root; done

cat >server.py <<'END'
import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        print("connected", flush=True)
        return False

    def connection_lost(self, error):
        if error:
            print("refused,", error, flush=True)


async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    more = {"kex_algs": sys.argv[1:]} if sys.argv[1:] else {}
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], **more)
    print(server.get_port(), flush=True)
    await asyncio.sleep(100)


asyncio.run(main())
END

# One server, one connection to it: what becomes of it.
connect() {
    local server port result
    : >server.out
    venv/bin/python server.py "$@" >server.out &
    server=$!
    for _ in {1..100}; do if [ -s server.out ]; then break; fi; sleep 0.1; done
    port=$(head -1 server.out)
    env HOME="$work" LD_LIBRARY_PATH="$(printf '%s:' "$work"/root/usr/lib/*-linux-gnu)" \
        timeout 5 root/usr/bin/dbclient -y -y -N -p "$port" nobody@127.0.0.1 >client.log 2>&1 </dev/null || true
    result=$(sed -n 2p server.out)
    kill "$server"
    wait "$server" 2>/dev/null || true
    echo "$result"
}
seen="asyncssh as it is: $(connect)
asyncssh with curve25519-sha256 as the first: $(connect curve25519-sha256 mlkem768x25519-sha256)"
expected="asyncssh as it is: refused, Key exchange not in progress
asyncssh with curve25519-sha256 as the first: connected"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
