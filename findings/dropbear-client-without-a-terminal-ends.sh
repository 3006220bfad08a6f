#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Programs: dbclient of Dropbear 2022.83 (dropbear-bin 2022.83-1+deb12u3) and ssh of OpenSSH 9.2p1 (1:9.2p1-2+deb12u10),
# of Debian 12, as clients; asyncssh 2.24.1, of PyPI, as server.
#
# Guess: where standard input is no terminal, dbclient opens a session without one, as ssh does. So a forward that is
# opened without -N goes on below cron, a service or nohup.
#
# Seen: it asks for a terminal all the same, cannot read the modes of one, and ends with all its forwards. With -T, or
# with -N, it stays.
#
# Output seen:
#   ssh: stays
#   dbclient: ended with 1 (Failed reading termmodes)
#   dbclient -T: stays

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
# With what a small Debian lacks of their libraries: unpacked here, not installed.
packages=("dropbear-bin=2022.83-*" libtomcrypt1 libtommath1 "openssh-client=1:9.2p1-*" libfido2-1 libcbor0.8 libedit2
    libbsd0 libmd0 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1)
apt=(apt-get -qq -o APT::Sandbox::User=root)
if ! "${apt[@]}" download "${packages[@]}" 2>download.log; then
    mkdir -p lists/partial
    apt+=(-o "Dir::State::lists=$work/lists")
    "${apt[@]}" update
    "${apt[@]}" download "${packages[@]}"
fi
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$(printf %s: root/usr/lib/*-linux-gnu root/lib/*-linux-gnu | sed "s|root/|$work/root/|g")

# A server that lets in anybody, grants a terminal and a shell, and says nothing. dbclient needs its own favourite first.
cat >server.py <<'END'
import asyncio

import asyncssh


class Host(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False


async def say_nothing(process):
    await asyncio.sleep(60)


async def main():
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Host,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        process_factory=say_nothing,
        kex_algs=["curve25519-sha256"],
    )
    print(server.get_port(), flush=True)
    await asyncio.sleep(100)


asyncio.run(main())
END
venv/bin/python server.py >port 2>server.log &
pids+=($!)
for _ in {1..100}; do if [ -s port ]; then break; fi; sleep 0.1; done
port=$(cat port)

# A client without -N, whose standard input is no terminal: whether it is there after three seconds.
try() {
    local code=0
    env HOME="$work" LD_LIBRARY_PATH="$LD_LIBRARY_PATH" timeout 3 "$@" >client.log 2>&1 </dev/null || code=$?
    if [ "$code" = 124 ]; then
        echo stays
    else
        echo "ended with $code ($(grep -o 'Failed reading termmodes' client.log || tail -1 client.log))"
    fi
}
dbclient=(root/usr/bin/dbclient -y -y -p "$port")
seen="ssh: $(try root/usr/bin/ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p "$port" x@127.0.0.1)
dbclient: $(try "${dbclient[@]}" x@127.0.0.1)
dbclient -T: $(try "${dbclient[@]}" -T x@127.0.0.1)"
expected="ssh: stays
dbclient: ended with 1 (Failed reading termmodes)
dbclient -T: stays"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
