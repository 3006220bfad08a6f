#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client and server of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1
# (1:10.0p1-7~bpo12+1).
#
# Guess: -R PORT of a port at which another program of the server's machine listens on 127.0.0.1 is refused, since
# that is the address of "localhost" for most who visit it; with ExitOnForwardFailure=yes ssh ends.
#
# Seen: the server tries 127.0.0.1 and ::1, and one that it gets is enough. The forward is granted, ssh has no
# complaint, and who visits 127.0.0.1 comes to the other program. Only `-R 127.0.0.1:PORT` is refused.
#
# Output seen:
#   -R 127.0.0.1:PORT is refused
#   -R PORT is granted
#   127.0.0.1 answers: another program
#   ::1 answers: the tunnel

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
GatewayPorts clientspecified
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

if ! grep -q "^0\{31\}1 " /proc/net/if_inet6; then
    echo "This needs IPv6 on the loopback device."
    exit 1
fi
say='
import socket, sys
service = socket.create_server(("127.0.0.1", 0))
print(service.getsockname()[1], flush=True)
while True:
    visitor, _ = service.accept()
    visitor.sendall(sys.argv[1].encode())
    visitor.close()'
python3 -c "$say" "another program" >taken &
pids+=($!)
python3 -c "$say" "the tunnel" >service &
pids+=($!)
wait_for test -s taken -a -s service
taken=$(<taken)

# timeout's own status is 124.
tunnel() {
    local code=0
    timeout "$1" "${ssh[@]}" -o ExitOnForwardFailure=yes \
        -NR "$2$taken:127.0.0.1:$(<service)" tunnel 2>ssh.log || code=$?
    if [ "$code" = 124 ]; then echo "-R $2PORT is granted"; else echo "-R $2PORT is refused"; fi
}
visit() { timeout 10 python3 -c '
import socket, sys
visitor = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(visitor.makefile().read())' "$1" "$taken" || true; }

seen=$(tunnel 20 127.0.0.1:)
tunnel 15 "" >granted &
second=$!
wait_for bash -c "exec 2>/dev/null; : >/dev/tcp/::1/$taken"
four=$(visit 127.0.0.1)
six=$(visit ::1)
wait "$second"
seen+="
$(<granted)
127.0.0.1 answers: $four
::1 answers: $six"
expected="-R 127.0.0.1:PORT is refused
-R PORT is granted
127.0.0.1 answers: another program
::1 answers: the tunnel"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
