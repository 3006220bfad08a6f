#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, server of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1 (1:10.0p1-7~bpo12+1).
#
# Guess: the host of PermitListen is a host name, so its case is of no account; at the least, what is spelled like
# the pattern matches it.
#
# Seen: what the client asks for is made small before it is compared, the pattern is not. A pattern in small letters
# matches all spellings, and one with a capital letter matches nothing, not even its own spelling. sshd -t and -T
# take it as it is.
#
# Output seen:
#   PermitListen localhost: -R localhost granted
#   PermitListen localhost: -R LocalHost granted
#   PermitListen LocalHost: -R localhost refused
#   PermitListen LocalHost: -R LocalHost refused

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
PermitListen localhost:*
Match Address 127.0.0.2
  PermitListen LocalHost:*
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

ask() {
    timeout 5 "${ssh[@]}" -o "BindAddress=$1" -o ExitOnForwardFailure=yes \
        -NR "$2:0:127.0.0.1:9" tunnel 2>ssh.log || true
    if grep -q "^Allocated port" ssh.log; then echo granted; else echo refused; fi
}
seen="PermitListen localhost: -R localhost $(ask 127.0.0.1 localhost)
PermitListen localhost: -R LocalHost $(ask 127.0.0.1 LocalHost)
PermitListen LocalHost: -R localhost $(ask 127.0.0.2 localhost)
PermitListen LocalHost: -R LocalHost $(ask 127.0.0.2 LocalHost)"
expected="PermitListen localhost: -R localhost granted
PermitListen localhost: -R LocalHost granted
PermitListen LocalHost: -R localhost refused
PermitListen LocalHost: -R LocalHost refused"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
