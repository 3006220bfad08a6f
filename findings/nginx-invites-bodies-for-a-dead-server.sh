#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: nginx 1.22.1 (Debian 12: nginx 1.22.1-9+deb12u11), proxy_pass with proxy_request_buffering off.
# Guess: as nothing is buffered, a visitor who asks before sending (Expect: 100-continue) is answered by the server
#   behind: it gets the Expect, and where it can't be reached or says no there is no "100 Continue" and no upload.
# Seen: nginx itself says "100 Continue" before it has dialled anybody, and keeps the Expect to itself. The visitor is
#   invited to upload to a server that is not there, or that would have refused by the header alone.
# Output seen: "nobody listens: 100 502", "a server that refuses: 100 403", "it was sent an Expect: no",
#   "asked directly: 403".
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

mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/debs" "$work/root"
apt=(apt-get -qq -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/debs" && "${apt[@]}" download nginx=1.22.1-9+deb12u11)
for package in "$work"/debs/*.deb; do dpkg-deb --extract "$package" "$work/root"; done

# Refuses by the header alone, and notes whether it was asked with Expect.
cat >"$work/service.py" <<'PYTHON'
import http.server
import sys


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_expect_100(self):
        return True

    def do_POST(self):
        with open(sys.argv[2], "w") as noted:
            noted.write("yes" if "Expect" in self.headers else "no")
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
PYTHON
service=$(free_port)
python3 "$work/service.py" "$service" "$work/noted" &
started+=($!)
front=$(free_port)
nobody=$(free_port)
cat >"$work/nginx.conf" <<NGINX
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path $work/body;
  proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi;
  scgi_temp_path $work/scgi;
  server {
    listen 127.0.0.1:$front;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    location /nobody { proxy_pass http://127.0.0.1:$nobody; }
    location /refused { proxy_pass http://127.0.0.1:$service; }
  }
}
NGINX
"$work/root/usr/sbin/nginx" -e "$work/nginx.log" -c "$work/nginx.conf" &
started+=($!)
answers "$service"
answers "$front"

# The statuses of all the answers to a small upload that asks first.
statuses() {
  curl --silent --max-time 10 --expect100-timeout 5 --header 'Expect: 100-continue' --data hello --dump-header - \
    --output /dev/null "http://127.0.0.1:$1" | awk '/^HTTP\// { print $2 }' | paste -sd' '
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect "nobody listens" "100 502" "$(statuses "$front/nobody")"
expect "a server that refuses" "100 403" "$(statuses "$front/refused")"
expect "it was sent an Expect" no "$(cat "$work/noted")"
expect "asked directly" 403 "$(statuses "$service/")"
