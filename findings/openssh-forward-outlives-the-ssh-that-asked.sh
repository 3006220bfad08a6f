#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client and server of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1
# (1:10.0p1-7~bpo12+1).
#
# Guess: with a shared connection (ControlMaster) a forward is its ssh's own: end the `ssh -NR` that asked for it,
# and it is gone, whether or not the connection goes on for others.
#
# Seen: the forward becomes the connection's. It stays, and visitors still get through, after the ssh that asked for
# it is gone, until the first ssh, which made the connection, ends or is told `-O cancel`. Asked for once more it is
# granted by the first ssh alone: the server hears of it once.
#
# Output seen:
#   the ssh that asked for the forward: gone
#   a visitor of its forward gets: hello
#   asked for again: 0
#   requests that the server has seen: 1

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

# OpenSSH, with what a small Debian lacks of its libraries: unpacked here, not installed.
packages=("openssh-client=1:9.2p1-*" "openssh-server=1:9.2p1-*" libwrap0 libfido2-1 libcbor0.8 libedit2 libbsd0 libmd0
    libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1)
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

# A server of a user without rights; root takes the account "games" for it.
user=$(id -un)
as=()
if [ "$user" = root ]; then
    user=games
    as=(setpriv --reuid games --regid games --clear-groups)
fi
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
ssh-keygen -q -t ed25519 -N '' -f host_key
ssh-keygen -q -t ed25519 -N '' -f user_key
install -m 600 host_key server_key
echo "[127.0.0.1]:$port $(cat host_key.pub)" >known_hosts
cat >sshd_config <<END
Port $port
ListenAddress 127.0.0.1
HostKey $work/server_key
PidFile none
UsePAM no
StrictModes no
AuthorizedKeysFile $work/user_key.pub
LogLevel VERBOSE
LogVerbose serverloop.c:server_input_global_request():*
END
cat >ssh_config <<END
Host tunnel
    HostName 127.0.0.1
    Port $port
    User $user
    IdentityFile $work/user_key
    IdentitiesOnly yes
    BatchMode yes
    UserKnownHostsFile $work/known_hosts
    GlobalKnownHostsFile /dev/null
    ControlPath $work/control
END
ssh=("$work/root/usr/bin/ssh" -F ssh_config)
: >sshd.log
chmod 755 .
chown "$user" server_key
"${as[@]}" "$work/root/usr/sbin/sshd" -D -e -f sshd_config 2>sshd.log &
pids+=($!)
wait_for() {
    for _ in {1..100}; do if "$@"; then return; fi; sleep 0.1; done
    echo "never came: $*"
    tail sshd.log
    exit 1
}
wait_for grep -q "Server listening" sshd.log

python3 -c '
import socket, sys
service = socket.create_server(("127.0.0.1", 0))
print(service.getsockname()[1], flush=True)
while True:
    visitor, _ = service.accept()
    visitor.sendall(b"hello\n")
    visitor.close()' >service &
pids+=($!)
wait_for test -s service
tunnel=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')

"${ssh[@]}" -MN tunnel &
pids+=($!)
wait_for test -S control
forward=$tunnel:127.0.0.1:$(<service)
"${ssh[@]}" -NR "127.0.0.1:$forward" tunnel >ssh.log 2>&1 &
second=$!
wait_for grep -q "tcpip-forward listen" sshd.log
sleep 1
kill "$second" 2>/dev/null || true
sleep 2
there=gone
if kill -0 "$second" 2>/dev/null; then there="still there"; kill "$second"; fi
got=$(timeout 10 cat <"/dev/tcp/127.0.0.1/$tunnel" || true)
code=0
"${ssh[@]}" -O forward -R "127.0.0.1:$forward" tunnel || code=$?
seen="the ssh that asked for the forward: $there
a visitor of its forward gets: $got
asked for again: $code
requests that the server has seen: $(grep -c "tcpip-forward listen" sshd.log)"
expected="the ssh that asked for the forward: gone
a visitor of its forward gets: hello
asked for again: 0
requests that the server has seen: 1"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
