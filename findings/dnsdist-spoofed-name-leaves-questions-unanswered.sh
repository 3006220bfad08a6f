#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: dnsdist 1.7.3 (Debian 12: dnsdist 1.7.3-2), SpoofAction and no server behind it.
# Guess: a name that a rule answers with SpoofAction("192.0.2.1") exists for dnsdist, so questions for its other types
#   (AAAA, HTTPS, which resolvers and browsers ask beside A) get an empty answer.
# Seen: the rule takes the questions for A and ANY alone. Any other one goes on to the next rule and then to the servers
#   behind; where there are none it gets no answer at all, and who asks for A and AAAA waits for its timeout. A last
#   rule for all questions ends that.
# Output seen: "A: 192.0.2.1", "ANY: 192.0.2.1", "AAAA: no answer", "HTTPS: no answer", and for the name with a last
#   rule "AAAA: empty".
set -euo pipefail

work=$(mktemp -d)
started=()
finish() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dnspython==2.9.2
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/debs" "$work/root"
apt=(apt-get -qq -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
"${apt[@]}" update
# dnsdist and what it is linked with.
(cd "$work/debs" && "${apt[@]}" download dnsdist=1.7.3-2 libcdb1=0.78+b1 libfstrm0=0.6.1-1 \
  libh2o-evloop0.13=2.2.5+dfsg2-7 liblmdb0=0.9.24-1 libluajit-5.1-2=2.1.0~beta3+git20220320+dfsg-4.1+deb12u1 \
  libre2-9=20220601+dfsg-1+b1 libsnmp40=5.9.3+dfsg-2+deb12u1 libwrap0=7.6.q-32 libwslay1=1.1.1-3+b1)
for package in "$work"/debs/*.deb; do dpkg-deb --extract "$package" "$work/root"; done

port=$(free_port)
cat >"$work/dnsdist.conf" <<LUA
setLocal("127.0.0.1:$port")
setACL({ "127.0.0.0/8" })
setSecurityPollSuffix("")
addAction(QNameRule("one.test."), SpoofAction("192.0.2.1"))
addAction(QNameRule("two.test."), SpoofAction("192.0.2.2"))
addAction(QNameRule("two.test."), RCodeAction(DNSRCode.NOERROR))
LUA
LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu "$work/root/usr/bin/dnsdist" --supervised --disable-syslog \
  -C "$work/dnsdist.conf" >"$work/log" 2>&1 &
started+=($!)

cat >"$work/ask.py" <<'PYTHON'
import sys

import dns.exception
import dns.message
import dns.query
import dns.rcode

port, name, kind = sys.argv[1:]
try:
    answer = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", port=int(port), timeout=3)
except dns.exception.Timeout:
    print("no answer")
else:
    print(*[r for rrset in answer.answer for r in rrset] or ["empty" if not answer.rcode() else answer.rcode()])
PYTHON
ask() { "$work/venv/bin/python" "$work/ask.py" "$port" "$1" "$2"; }
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
for _ in $(seq 10); do
  [ "$(ask one.test A)" = "no answer" ] || break
done
expect A 192.0.2.1 "$(ask one.test A)"
expect ANY 192.0.2.1 "$(ask one.test ANY)"
expect AAAA "no answer" "$(ask one.test AAAA)"
expect HTTPS "no answer" "$(ask one.test HTTPS)"
expect "AAAA, with a last rule" empty "$(ask two.test AAAA)"
