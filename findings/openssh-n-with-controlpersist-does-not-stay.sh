#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: OpenSSH 9.2p1, client and server of Debian 12 (1:9.2p1-2+deb12u10). The same with 10.0p1
# (1:10.0p1-7~bpo12+1).
#
# Guess: ControlMaster=auto and ControlPersist=3 change nothing for `ssh -N` that has no session to leave: it stays
# in the foreground for as long as it is connected, like any `ssh -N`, and so does its remote forward.
#
# Seen: ssh ends at once with 0, as if with -f, and leaves a process behind that holds the tunnel. A remote forward
# that nobody visits counts for nothing: after 3 s that process ends too, and with it the tunnel. So what waits for
# ssh to end does not wait at all, and the tunnel is gone after its first rest.
#
# Output seen:
#   ssh -N: ended by itself with 0
#   the tunnel after that: there
#   the tunnel after ControlPersist's time: gone

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

state() { if (exec 3<>"/dev/tcp/127.0.0.1/$tunnel") 2>/dev/null; then echo there; else echo gone; fi; }

# timeout's own status is 124.
code=0
timeout 20 "${ssh[@]}" -o ControlMaster=auto -o ControlPersist=3 -o ExitOnForwardFailure=yes \
    -NR 0:127.0.0.1:9 tunnel 2>ssh.log || code=$?
tunnel=$(sed -n 's/^Allocated port \([0-9]*\) .*/\1/p' ssh.log)
left=$("${ssh[@]}" -O check tunnel 2>&1 | sed -n 's/.*pid=\([0-9]*\).*/\1/p' || true)
if [ -n "$left" ]; then pids+=("$left"); fi
after=$(state)
# The look at it was a visit, from whose end the time counts.
sleep 8
seen="ssh -N: ended by itself with $code
the tunnel after that: $after
the tunnel after ControlPersist's time: $(state)"
expected="ssh -N: ended by itself with 0
the tunnel after that: there
the tunnel after ControlPersist's time: gone"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
