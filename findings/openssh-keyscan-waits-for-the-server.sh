#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ssh and ssh-keyscan of OpenSSH 9.2p1, client of Debian 12 (1:9.2p1-2+deb12u10).
#
# Guess: ssh-keyscan opens a connection as ssh does, which sends its version at once, without waiting for the server's.
#
# Seen: ssh sends its version first, ssh-keyscan says nothing until the server has. So where a port is shared by ssh and
# TLS, and whoever connects has to speak first to be told from the others, ssh gets through and ssh-keyscan finds no key.
#
# Output seen:
#   ssh: SSH-2.0-OpenSSH_9.2p1
#   ssh-keyscan: nothing within 5 s

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# OpenSSH, with what a small Debian lacks of its libraries: unpacked here, not installed.
packages=("openssh-client=1:9.2p1-*" libfido2-1 libcbor0.8 libedit2 libbsd0 libmd0 libgssapi-krb5-2 libkrb5-3
    libk5crypto3 libkrb5support0 libkeyutils1)
apt=(apt-get -qq -o APT::Sandbox::User=root)
if ! "${apt[@]}" download "${packages[@]}" 2>download.log; then
    mkdir -p lists/partial
    apt+=(-o "Dir::State::lists=$work/lists")
    "${apt[@]}" update
    "${apt[@]}" download "${packages[@]}"
fi
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$(printf %s: root/usr/lib/*-linux-gnu root/lib/*-linux-gnu | sed "s|root/|$work/root/|g")
export LD_LIBRARY_PATH

# A server that waits for the client's word, and prints it. PORT stands for its port in the client's command.
cat >listen.py <<'END'
import socket, subprocess, sys

with socket.create_server(("127.0.0.1", 0)) as server:
    command = [word.replace("PORT", str(server.getsockname()[1])) for word in sys.argv[1:]]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        server.settimeout(10)
        connection, _ = server.accept()
        connection.settimeout(5)
        try:
            # With the name of the distribution's package behind it.
            print(connection.recv(255).decode().split()[0])
        except TimeoutError:
            print("nothing within 5 s")
        connection.close()
        client.kill()
END
seen="ssh: $(python3 listen.py root/usr/bin/ssh -F none -p PORT -o BatchMode=yes 127.0.0.1)
ssh-keyscan: $(python3 listen.py root/usr/bin/ssh-keyscan -T 9 -p PORT -t ed25519 127.0.0.1)"
expected="ssh: SSH-2.0-OpenSSH_9.2p1
ssh-keyscan: nothing within 5 s"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
