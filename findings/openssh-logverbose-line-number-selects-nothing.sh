#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1 (1:10.0p1-7~bpo12+1).
#
# Guess: a pattern of LogVerbose is of the form FILE:FUNCTION:LINE, as the manual has it. So the place that a line of
# the log names, written back as the pattern, selects that line.
#
# Seen: it selects nothing. What is compared has the process behind the line's number, "FILE:FUNCTION():LINE
# (pid=…)", and a pattern has to match all of it. So one that ends in a number never matches, the manual's own first
# example among them; only with a * at its end it does. Nothing complains.
#
# Output seen:
#   LogVerbose=kex.c:*: several lines
#   LogVerbose=kex.c:kex_send_kexinit():LINE: 0 lines
#   LogVerbose=kex.c:*:LINE: 0 lines
#   LogVerbose=kex.c:*:LINE*: 1 line

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

talk() { timeout 5 "${ssh[@]}" -o "LogVerbose=$1" -N tunnel 2>&1 || true; }
lines() {
    local count
    count=$(talk "$1" | grep -c "kex\.c" || true)
    case $count in 0) echo "0 lines" ;; 1) echo "1 line" ;; *) echo "several lines" ;; esac
}
line=$(talk "kex.c:*" | sed -n 's/.*kex\.c:kex_send_kexinit():\([0-9]*\).*/\1/p' | head -1)
seen="LogVerbose=kex.c:*: $(lines "kex.c:*")
LogVerbose=kex.c:kex_send_kexinit():LINE: $(lines "kex.c:kex_send_kexinit():$line")
LogVerbose=kex.c:*:LINE: $(lines "kex.c:*:$line")
LogVerbose=kex.c:*:LINE*: $(lines "kex.c:*:$line*")"
expected="LogVerbose=kex.c:*: several lines
LogVerbose=kex.c:kex_send_kexinit():LINE: 0 lines
LogVerbose=kex.c:*:LINE: 0 lines
LogVerbose=kex.c:*:LINE*: 1 line"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
