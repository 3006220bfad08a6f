// SPDX-License-Identifier: GPL-3.0-or-later

// Caddy with a module for DNS challenges, as xcaddy would make it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddy-dns/rfc2136"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() {
	caddycmd.Main()
}
