#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client and server of Debian 12 (1:9.2p1-2+deb12u10).
#
# Guess: ClientAliveInterval 1 and ClientAliveCountMax 2 end a client that has said nothing for some three seconds, a
# stopped one (SIGSTOP) too, whose kernel still acknowledges.
#
# Seen: that is so only while nobody connects to its remote forward. sshd asks "are you there?" when nothing has
# happened for a second, and each connection to the forward is something. With five of them a second, which all hang,
# a stopped client keeps the port: it is still taken after 15 seconds, and free three seconds after the last one.
#
# Output seen:
#   nobody connects: the port is free within 10 s
#   somebody connects: the port is still taken after 15 s
#   nobody connects any more: the port is free within 10 s

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
ClientAliveInterval 1
ClientAliveCountMax 2
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

taken() { ss -Hltn "sport = :$1" | grep -q .; }
free() { ! taken "$1"; }
within_10_s() {
    for _ in {1..100}; do
        if free "$1"; then echo "the port is free within 10 s"; return; fi
        sleep 0.1
    done
    echo "the port is still taken after 10 s"
}
# Leaves a stopped client with a forward.
stopped_client() {
    forward=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "${ssh[@]}" -S none -N -R "127.0.0.1:$forward:127.0.0.1:9" tunnel 2>client.log &
    client=$!
    pids+=("$client")
    wait_for taken "$forward"
    kill -STOP "$client"
}
stopped_client
seen="nobody connects: $(within_10_s "$forward")"
kill -KILL "$client"
wait "$client" 2>/dev/null || true
stopped_client
visit() {
    python3 - "$forward" <<'END'
import socket
import sys
import time

kept = []
end = time.monotonic() + 15
while time.monotonic() < end:
    try:
        kept.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    except ConnectionRefusedError:
        sys.exit("the port was freed")
    time.sleep(0.2)
END
}
if visit 2>visit.log && taken "$forward"; then
    seen+=$'\n'"somebody connects: the port is still taken after 15 s"
else
    seen+=$'\n'"somebody connects: $(cat visit.log)"
fi
seen+=$'\n'"nobody connects any more: $(within_10_s "$forward")"
kill -KILL "$client"
wait "$client" 2>/dev/null || true
expected="nobody connects: the port is free within 10 s
somebody connects: the port is still taken after 15 s
nobody connects any more: the port is free within 10 s"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
