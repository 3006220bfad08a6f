#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client and server of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1
# (1:10.0p1-7~bpo12+1).
#
# Guess: port 0 asks for any free port, so each -R 0 gets one of its own: two ports for two.
#
# Seen: two with the same target are one, and get one port. So it is on the command line, with no word about it, and
# so it is with a running connection: a second `-O forward` asks the server for nothing, and prints the first one's
# port once more. With targets that differ in any way, "localhost" and "127.0.0.1" say, there are two.
#
# Output seen:
#   -R 0:127.0.0.1:9 -R 0:127.0.0.1:9: 1 port
#   -R 0:127.0.0.1:9 -R 0:localhost:9: 2 ports
#   -O forward twice: 1 port

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

count() { sort -u | grep -c . | sed 's/^1$/1 port/; s/^[0-9]*$/& ports/'; }
ask() { (timeout 6 "${ssh[@]}" "$@" -N tunnel 2>&1 || true) | sed -n 's/^Allocated port \([0-9]*\) .*/\1/p' | count; }

"${ssh[@]}" -MN tunnel 2>master.log &
pids+=($!)
wait_for test -S control
seen="-R 0:127.0.0.1:9 -R 0:127.0.0.1:9: $(ask -S none -R 0:127.0.0.1:9 -R 0:127.0.0.1:9)
-R 0:127.0.0.1:9 -R 0:localhost:9: $(ask -S none -R 0:127.0.0.1:9 -R 0:localhost:9)
-O forward twice: $(for _ in 1 2; do "${ssh[@]}" -O forward -R 0:127.0.0.1:9 tunnel; done | count)"
expected="-R 0:127.0.0.1:9 -R 0:127.0.0.1:9: 1 port
-R 0:127.0.0.1:9 -R 0:localhost:9: 2 ports
-O forward twice: 1 port"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
