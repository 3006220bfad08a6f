# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory may say: what is refused and in which words, what is understood, what the action makes of it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.proxme.tunnel.plugins.action import settings as action
from ansible_collections.proxme.tunnel.plugins.plugin_utils import settings
from programs import BIN

ROOT = Path(__file__).resolve().parents[2]
(ENTRY,) = yaml.safe_load((ROOT / "roles/tunnel/meta/argument_specs.yml").read_text())["argument_specs"].values()
SPEC: dict[str, dict[str, Any]] = ENTRY["options"]
DOMAIN = "proxme.example.com"
HERE = Path("/here")

RFC2136 = {"tunnel_tls": "wildcard", "tunnel_dns_provider": "rfc2136"}
CLOUDFLARE = {"tunnel_tls": "wildcard", "tunnel_dns_provider": "cloudflare"}
KEY = {"server": "192.0.2.1", "name": "key.", "secret": "c2VjcmV0", "algorithm": "HMAC-SHA256"}

# What is given beside a domain, and what is said of it. What may be a secret is called hidden here.
# An account with a domain whose TLS is passed through.
PASSED = {"name": "alice", "domains": {"a.example.org": {"name": "blog", "passthrough": True}}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"tunnel_domian": "x"},
        (
            "The inventory sets tunnel_domian, which nothing reads. Is tunnel_domain meant? If another role reads it, "
            "list it in tunnel_foreign_variables."
        ),
    ),
    (
        {"sshd_tunnel_memry": "2g"},
        (
            "The inventory sets sshd_tunnel_memry, which nothing reads. Is tunnel_sshd_memory meant? If another role "
            "reads it, list it in tunnel_foreign_variables."
        ),
    ),
    (
        {"tunnel_wholly_other_thing": 1},
        (
            "The inventory sets tunnel_wholly_other_thing, which nothing reads. If another role reads it, list it in "
            "tunnel_foreign_variables; else remove it. docs/reference.md lists ours."
        ),
    ),
    # Another role's: none of ours is like it but for how all begin.
    (
        {"tunnel_mtu": 1400},
        (
            "The inventory sets tunnel_mtu, which nothing reads. If another role reads it, list it in "
            "tunnel_foreign_variables; else remove it. docs/reference.md lists ours."
        ),
    ),
    (
        {"tunnel_docker_options": '{"proxies": {"http-proxy": "http://hidden:hidden@proxy.example.com"}}'},
        (
            "tunnel_docker_options is text and has proxies. Write it as a mapping: -e "
            '\'{"tunnel_docker_options": {"…": "…"}}\'.'
        ),
    ),
    (
        {"sshd_tunnel_port": 22},
        "The inventory sets sshd_tunnel_port, which nothing reads any more. Write tunnel_ssh_port instead.",
    ),
    (
        {"nginx_subdomains_domain": "x"},
        ("The inventory sets nginx_subdomains_domain, which nothing reads any more. Write tunnel_domain instead."),
    ),
    (
        {"tunnel_ssh_port": "ssh"},
        'tunnel_ssh_port is text, where a whole number belongs: "ssh". Write digits alone, such as 2222.',
    ),
    (
        {"tunnel_ssh_port": True},
        "tunnel_ssh_port is a boolean, where a whole number belongs: true. Write digits alone, such as 2222.",
    ),
    (
        {"tunnel_ssh_port": 2222.5},
        "tunnel_ssh_port is a number, where a whole number belongs: 2222.5. Write digits alone, such as 2222.",
    ),
    (
        {"tunnel_drain_hours": "long"},
        'tunnel_drain_hours is text, where a number belongs: "long". Write digits alone, such as 168.',
    ),
    ({"tunnel_upgrade": "perhaps"}, 'tunnel_upgrade is text, where a boolean belongs: "perhaps". Write true or false.'),
    (
        {"tunnel_acme_profile": True},
        "tunnel_acme_profile is a boolean, where text belongs: true. Write it in quotation marks.",
    ),
    (
        {"tunnel_domain": {"a": 1}},
        'tunnel_domain is a mapping, where text belongs: {"a": 1}. Write it in quotation marks.',
    ),
    (
        {"tunnel_blocked_names": "phish"},
        (
            'tunnel_blocked_names is text, where a list belongs: "phish". Write brackets around it; on the '
            'command line that is -e \'{"tunnel_blocked_names": ["phish"]}\'.'
        ),
    ),
    (
        {"tunnel_blocked_names": [False]},
        "tunnel_blocked_names[0] is a boolean, where text belongs: false. Write it in quotation marks.",
    ),
    (
        {"tunnel_docker_options": "live-restore"},
        (
            'tunnel_docker_options is text, where a mapping belongs: "live-restore". Write names and values; on '
            'the command line that is -e \'{"tunnel_docker_options": {"…": "…"}}\'.'
        ),
    ),
    (
        {"tunnel_dns_settings": "api_token=hidden"},
        (
            "tunnel_dns_settings is text, where a mapping belongs. Write names and values; on the command line "
            'that is -e \'{"tunnel_dns_settings": {"…": "…"}}\'.'
        ),
    ),
    (
        {"tunnel_acme_eab": ["hidden"]},
        (
            "tunnel_acme_eab is a list, where a mapping belongs. Write names and values; on the command line "
            'that is -e \'{"tunnel_acme_eab": {"…": "…"}}\'.'
        ),
    ),
    (
        {"tunnel_backup_passphrase": 123456789012},
        "tunnel_backup_passphrase is a number, where text belongs. Write it in quotation marks.",
    ),
    (
        {"tunnel_tls": "self"},
        'tunnel_tls is "self". It must be one of: on_demand, wildcard, both, files, internal, off.',
    ),
    (
        {"tunnel_tls": "False"},
        'tunnel_tls is "False". It must be one of: on_demand, wildcard, both, files, internal, off.',
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "key": [], "name2": 1}]},
        (
            "tunnel_accounts[0] has key, name2, which nothing reads. Write some of name, keys, names, domains, "
            "tcp_ports, reach, principals, expires."
        ),
    ),
    ({"tunnel_accounts": [{"names": ["blog"]}]}, 'tunnel_accounts[0] has no name: {"names": ["blog"]}. Write one.'),
    (
        {"tunnel_accounts": [{"name": "alice", "tcp_ports": ["x"]}]},
        ('tunnel_accounts[0].tcp_ports[0] is text, where a whole number belongs: "x". Write digits alone, such as 1.'),
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "keys": "ssh-ed25519 AAAA"}]},
        'tunnel_accounts[0].keys is text, where a list belongs: "ssh-ed25519 AAAA". Write brackets around it.',
    ),
    (
        {"tunnel_accounts": ["alice"]},
        'tunnel_accounts[0] is text, where a mapping belongs: "alice". Write names and values.',
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "domains": ["a.example.org"]}]},
        ('tunnel_accounts[0].domains is a list, where a mapping belongs: ["a.example.org"]. Write names and values.'),
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "domains": {"a.example.org": {"passthrough": True}}}]},
        ('tunnel_accounts[0].domains[a.example.org] has no name: {"passthrough": true}. Write one.'),
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "domains": {"a.example.org": {"name": "blog", "pass": True}}}]},
        "tunnel_accounts[0].domains[a.example.org] has pass, which nothing reads. Write some of name, passthrough.",
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "domains": {"a.example.org": {"name": "b", "passthrough": "tls"}}}]},
        (
            'tunnel_accounts[0].domains[a.example.org].passthrough is text, where a boolean belongs: "tls". Write true '
            "or false."
        ),
    ),
    (
        {"tunnel_accounts": [{"name": "alice", "domains": {"a.example.org": ["blog"]}}]},
        (
            'tunnel_accounts[0].domains[a.example.org].name is a list, where text belongs: ["blog"]. Write it in '
            "quotation marks."
        ),
    ),
    (
        {"tunnel_accounts": [PASSED], "tunnel_edge": False},
        (
            "tunnel_accounts: the domain a.example.org of alice has passthrough: true, but tunnel_edge is false, so "
            "that nothing of ours stands before its TLS. Write tunnel_edge: true, or leave passthrough out."
        ),
    ),
    (
        {"tunnel_accounts": [PASSED], "tunnel_tls": "off"},
        (
            "tunnel_accounts: the domain a.example.org of alice has passthrough: true, but tunnel_tls is off, so "
            "that nothing of ours stands before its TLS. Write another tunnel_tls, or leave passthrough out."
        ),
    ),
    (
        {"tunnel_domain": None},
        (
            "tunnel_domain is missing. Write the domain of the tunnel host into the inventory, such as "
            '"tunnel_domain: proxme.example.com".'
        ),
    ),
    (
        {"tunnel_domain": "https://proxme.example.com"},
        (
            'tunnel_domain is "https://proxme.example.com". Write a bare domain in lower case, such as '
            "proxme.example.com: no scheme, port, path or asterisk."
        ),
    ),
    (
        {"tunnel_shared_account_name": "Tunnel"},
        (
            'tunnel_shared_account_name is "Tunnel". Write up to 32 of a-z, 0-9 and hyphens, a letter first, '
            "such as tunnel."
        ),
    ),
    (
        {"tunnel_guest_names": "*"},
        (
            'tunnel_guest_names is "*". Write a prefix, a hyphen and an asterisk, such as guest-*, or leave it '
            "empty. A bare asterisk would give every name to everybody."
        ),
    ),
    (
        {"tunnel_reserved_labels": ["guest-mail"]},
        (
            'tunnel_guest_names is "guest-*", and one of tunnel_reserved_labels (guest-mail) begins like that. '
            "Change one of them."
        ),
    ),
    (
        {"tunnel_reserved_labels": ["www", "a.b"]},
        (
            'tunnel_reserved_labels has ["a.b"]. Write labels of a-z, 0-9 and single hyphens that start with a '
            "letter, such as www."
        ),
    ),
    ({"tunnel_plain_names": ["a.b"]}, 'tunnel_plain_names has ["a.b"]. Write labels, such as blog or 8080.'),
    (
        {"tunnel_certificates_always": ["blog", "-a"]},
        'tunnel_certificates_always has ["-a"]. Write labels, such as blog or 8080.',
    ),
    (
        {"tunnel_blocked_names": ["x.proxme.example.com", 8080]},
        (
            'tunnel_blocked_names has ["x.proxme.example.com"]. Write labels without the domain, such as '
            "guest-phish or 8080."
        ),
    ),
    (
        {"tunnel_blocked_addresses": ["192.0.2.7", "::ffff:192.0.2.7"]},
        (
            'tunnel_blocked_addresses has ["::ffff:192.0.2.7"]. Write addresses or networks, such as 192.0.2.7, '
            "192.0.2.0/24 or 2001:db8::/48."
        ),
    ),
    (
        {"tunnel_abuse_contact": "abuse"},
        (
            'tunnel_abuse_contact is "abuse". Write an e-mail address, such as abuse@example.com, or an https:// '
            "address, or leave it empty."
        ),
    ),
    (
        {"tunnel_revoked_keys": "/nowhere/keys"},
        (
            'tunnel_revoked_keys is "/nowhere/keys", which is no file on the control node. Write the path of a '
            "file of keys, or leave it empty."
        ),
    ),
    ({"tunnel_ssh_port": 0}, "tunnel_ssh_port is 0. Write a port from 1 to 65535, such as 2222."),
    ({"tunnel_http_port": 65536}, "tunnel_http_port is 65536. Write a port from 1 to 65535, such as 80."),
    (
        {"tunnel_https_port": 65446},
        "tunnel_https_port is 65446, which is a port of the edge's own. Write another one, such as 443, or set "
        "tunnel_edge to false.",
    ),
    ({"tunnel_https_port": -1}, "tunnel_https_port is -1. Write a port from 1 to 65535, such as 443."),
    (
        {"tunnel_http_port": 443},
        "tunnel_http_port is 443, and so is tunnel_https_port. Write two different ports, such as 80 and 443.",
    ),
    (
        {"tunnel_tcp_ports": "30009-30000"},
        (
            'tunnel_tcp_ports is "30009-30000". Write a range of at most 100 ports from 1024 to 65535, without '
            "2222 and tunnel_ssh_port (2222), such as 30000-30009, or leave it empty."
        ),
    ),
    (
        {"tunnel_ssh_port": 443},
        (
            "tunnel_ssh_port (443) or tunnel_tcp_ports () is also a port for visitors, tunnel_http_port (80) or "
            "tunnel_https_port (443). Choose another."
        ),
    ),
    (
        {"tunnel_http_port": 8080, "tunnel_tcp_ports": "8075-8085"},
        (
            "tunnel_ssh_port (2222) or tunnel_tcp_ports (8075-8085) is also a port for visitors, "
            "tunnel_http_port (8080) or tunnel_https_port (443). Choose another."
        ),
    ),
    (
        {"tunnel_listen": "localhost:8080"},
        ('tunnel_listen is "localhost:8080". Write an IPv4 address of the host and a port, such as 127.0.0.1:8080.'),
    ),
    (
        {"tunnel_tls": False, "tunnel_listen": "192.0.2.1:2222"},
        (
            'tunnel_listen is "192.0.2.1:2222", whose port is also tunnel_ssh_port (2222) or one of '
            "tunnel_tcp_ports (). Choose another."
        ),
    ),
    ({"tunnel_ask_port": 65536}, "tunnel_ask_port is 65536. Write a port such as 9123, or 0 for none."),
    (
        {"tunnel_ask_port": 9123},
        'tunnel_ask_port is 9123, but this front end asks by itself. Leave it 0, or set tunnel_tls to "off".',
    ),
    (
        {"tunnel_tls": "off", "tunnel_ask_port": 8080},
        (
            "tunnel_ask_port is 8080, which is also tunnel_ssh_port (2222), one of tunnel_tcp_ports () or the "
            "port of tunnel_listen (127.0.0.1:8080). Choose another."
        ),
    ),
    (
        {"tunnel_ssh_connections_per_address": 0},
        "tunnel_ssh_connections_per_address is 0. Write 1 or more, such as 20.",
    ),
    ({"tunnel_ssh_connections_per_minute": 0}, "tunnel_ssh_connections_per_minute is 0. Write 1 or more, such as 200."),
    (
        {"tunnel_descriptors_per_connection": 63},
        "tunnel_descriptors_per_connection is 63. Write 64 to 65536, such as 1024.",
    ),
    ({"tunnel_sshd_processes": 63}, "tunnel_sshd_processes is 63. Write 64 or more, such as 4096."),
    ({"tunnel_log_days": 0}, "tunnel_log_days is 0. Write 1 or more, such as 14."),
    ({"tunnel_answer_timeout": 0}, "tunnel_answer_timeout is 0. Write 1 or more seconds, such as 300."),
    ({"tunnel_visits_per_name": 0}, "tunnel_visits_per_name is 0. Write 1 or more, such as 200."),
    ({"tunnel_certificates_per_day": -1}, "tunnel_certificates_per_day is -1. Write 0 or more, such as 20."),
    ({"tunnel_certificates_per_week": -1}, "tunnel_certificates_per_week is -1. Write 0 or more, such as 50."),
    ({"tunnel_requests_per_name": -1}, "tunnel_requests_per_name is -1. Write 0 for no limit, or more."),
    ({"tunnel_requests_per_address": -1}, "tunnel_requests_per_address is -1. Write 0 for no limit, or more."),
    ({"tunnel_visits_per_address": -1}, "tunnel_visits_per_address is -1. Write 0 for no limit, or more."),
    (
        {"tunnel_bandwidth_per_name": 10001},
        "tunnel_bandwidth_per_name is 10001. Write 1 to 10000 Mbit/s, or 0 for no bound.",
    ),
    (
        {"tunnel_bandwidth_per_address": 10001},
        "tunnel_bandwidth_per_address is 10001. Write 1 to 10000 Mbit/s, or 0 for no bound.",
    ),
    (
        {"tunnel_headers": ["user_id", "X-Plain", "a b_c", "x_ä", "api_*"]},
        (
            'tunnel_headers has ["X-Plain", "a b_c", "x_ä", "api_*"]. Write names of headers with _ or . in '
            "them, such as user_id."
        ),
    ),
    (
        {"tunnel_headers": ["X_Real.IP", "user.id"]},
        'tunnel_headers has ["X_Real.IP"]. Services take that for a header of the host\'s own: leave it out.',
    ),
    ({"tunnel_hsts": -1}, "tunnel_hsts is -1. Write seconds, such as 31536000, or 0 for none."),
    (
        {"tunnel_drain_hours": -0.5},
        "tunnel_drain_hours is -0.5. Write hours, such as 168, or 0 to end them with the next run.",
    ),
    (
        {"tunnel_dns_propagation_seconds": 3601},
        "tunnel_dns_propagation_seconds is 3601. Write up to 3600 seconds, or 0 for the provider's own.",
    ),
    ({"tunnel_minimum_memory": -1}, "tunnel_minimum_memory is -1. Write MiB, such as 400."),
    ({"tunnel_minimum_disk": -1}, "tunnel_minimum_disk is -1. Write MiB, such as 2000."),
    ({"tunnel_sshd_memory": "1000000"}, 'tunnel_sshd_memory is "1000000". Write a number and m or g, such as 1g.'),
    ({"tunnel_nginx_memory": "0m"}, 'tunnel_nginx_memory is "0m". Write a number and m or g, such as 256m.'),
    ({"tunnel_edge_memory": "256"}, 'tunnel_edge_memory is "256". Write a number and m or g, such as 256m.'),
    ({"tunnel_caddy_memory": "1G"}, 'tunnel_caddy_memory is "1G". Write a number and m or g, such as 512m.'),
    (
        {"tunnel_body_limit": "1.5g"},
        'tunnel_body_limit is "1.5g". Write a number and k, m or g, such as 100m, or 0 for no limit.',
    ),
    ({"tunnel_renew_every": "12"}, 'tunnel_renew_every is "12". Write a number and s, min, h or d, such as 12h.'),
    ({"tunnel_retry_every": "0s"}, 'tunnel_retry_every is "0s". Write a number and s, min, h or d, such as 5min.'),
    (
        {"tunnel_acme_email": "ops@example.com"},
        (
            'tunnel_acme_email is "ops@example.com". Write an e-mail address of yours, or leave it empty; '
            "authorities refuse those of example.com."
        ),
    ),
    (
        {"tunnel_acme_directory": "http://acme.example.com"},
        (
            'tunnel_acme_directory is "http://acme.example.com". Write the https address of the directory of the '
            "ACME authority, such as https://acme-v02.api.letsencrypt.org/directory."
        ),
    ),
    (
        {"tunnel_acme_fallback_directory": "acme.example.com"},
        (
            'tunnel_acme_fallback_directory is "acme.example.com". Write the https address of a second '
            "authority's directory, or leave it empty."
        ),
    ),
    (
        {"tunnel_acme_profile": "a b"},
        (
            'tunnel_acme_profile is "a b". Write the name of one of the authority\'s profiles, such as '
            "shortlived, or leave it empty."
        ),
    ),
    (
        {"tunnel_acme_ca_root": "/nowhere/root.pem"},
        (
            'tunnel_acme_ca_root is "/nowhere/root.pem", which is no file on the control node. Write the path of '
            "a PEM file, or leave it empty for the public roots."
        ),
    ),
    (
        {"tunnel_acme_fallback_ca_root": "/nowhere/root.pem"},
        (
            'tunnel_acme_fallback_ca_root is "/nowhere/root.pem", which is no file on the control node. Write '
            "the path of a PEM file, or leave it empty for the public roots."
        ),
    ),
    (
        {"tunnel_acme_eab": {"key_id": "a", "mac_key": "b", "mac": "hidden"}},
        "tunnel_acme_eab has mac, which nothing reads. Write key_id and mac_key.",
    ),
    (
        {"tunnel_acme_eab": {"key_id": "hidden"}},
        "tunnel_acme_eab can't be. Write it as the authority gives it: a key_id, and a mac_key in base64url.",
    ),
    (
        {
            "tunnel_acme_fallback_directory": "https://acme.example.com/dir",
            "tunnel_acme_fallback_eab": {"key_id": "hidden", "mac_key": "hid den"},
        },
        (
            "tunnel_acme_fallback_eab can't be. Write it as the authority gives it: a key_id, and a mac_key in "
            "base64url."
        ),
    ),
    (
        {"tunnel_acme_fallback_eab": {"key_id": "hidden", "mac_key": "hidden"}},
        (
            "tunnel_acme_fallback_eab is there, but no tunnel_acme_fallback_directory that it is for. Write both "
            "or none."
        ),
    ),
    (
        {"tunnel_dns_resolvers": ["ns.example.com"]},
        'tunnel_dns_resolvers has ["ns.example.com"]. Write addresses, such as 192.0.2.53.',
    ),
    (
        {"tunnel_tls": "both"},
        (
            "tunnel_tls is both, but tunnel_dns_provider is missing. Write who keeps the domain's DNS records, "
            'such as "tunnel_dns_provider: rfc2136"; docs/wildcard.md lists them.'
        ),
    ),
    (
        {"tunnel_tls": "wildcard", "tunnel_dns_by_caddy": True, "tunnel_dns_provider": "dns.providers.x"},
        (
            'tunnel_dns_provider is "dns.providers.x". Write the name of a module without "dns.providers.", such '
            "as cloudflare."
        ),
    ),
    (
        {
            "tunnel_tls": "wildcard",
            "tunnel_dns_by_caddy": True,
            "tunnel_dns_provider": "cloudflare",
            "tunnel_dns_settings": {"api_token": 'hid"den'},
        },
        (
            "tunnel_dns_settings can't be written to Caddy's configuration. Write names such as api_token, and "
            "values without quotation marks, backslashes, braces and line breaks."
        ),
    ),
    (
        {"tunnel_tls": "wildcard", "tunnel_dns_provider": "nowhere"},
        (
            'tunnel_dns_provider is "nowhere". Write one of rfc2136, cloudflare, route53, ovh, digitalocean, '
            "hetzner, desec, gandi, google, linode."
        ),
    ),
    (
        {**RFC2136, "tunnel_dns_settings": {**KEY, "dns-key": "hidden"}},
        (
            "tunnel_dns_settings has dns-key. Write the names as in docs/wildcard.md, with underscores and "
            'without "dns_rfc2136_".'
        ),
    ),
    (
        {**CLOUDFLARE, "tunnel_dns_settings": {"email": "hidden"}},
        "tunnel_dns_settings has email. For cloudflare write api_token; or email, api_key.",
    ),
    ({**CLOUDFLARE}, "tunnel_dns_settings has nothing. For cloudflare write api_token; or email, api_key."),
    (
        {**CLOUDFLARE, "tunnel_dns_settings": {"api_token": ""}},
        "tunnel_dns_settings: api_token is empty. Write what the provider gives for it, or nothing.",
    ),
    (
        {**CLOUDFLARE, "tunnel_dns_settings": {"api_token": "hidden%(x)s"}},
        (
            'tunnel_dns_settings: api_token holds a quotation mark, a line break or "%(", which certbot can\'t '
            "read from its file. Is it the right value?"
        ),
    ),
    (
        {**RFC2136, "tunnel_dns_settings": {**KEY, "server": "ns.example.com"}},
        (
            'tunnel_dns_settings: server is "ns.example.com". Write the name server\'s address, such as '
            "192.0.2.1; a name is not possible."
        ),
    ),
    (
        {**RFC2136, "tunnel_dns_settings": {**KEY, "algorithm": "SHA256"}},
        (
            'tunnel_dns_settings: algorithm is "SHA256". Write that of the TSIG key, one of HMAC-SHA1, '
            "HMAC-SHA224, HMAC-SHA256, HMAC-SHA384, HMAC-SHA512, HMAC-MD5."
        ),
    ),
    (
        {**RFC2136, "tunnel_dns_settings": {**KEY, "secret": "hidden!"}},
        "tunnel_dns_settings: secret is not base64. Write the TSIG key's secret as tsig-keygen prints it.",
    ),
    ({"tunnel_debian_image": ""}, 'tunnel_debian_image is "". Write the name of an image, such as debian:trixie-slim.'),
    ({"tunnel_caddy_image": "a b"}, 'tunnel_caddy_image is "a b". Write the name of an image, such as caddy:2.'),
    (
        {"tunnel_trusted_proxies": ["192.0.2.1", "proxy.example.com"]},
        ('tunnel_trusted_proxies has ["proxy.example.com"]. Write addresses, such as 192.0.2.1 or 192.0.2.0/24.'),
    ),
    (
        {"tunnel_proxy_protocol": True},
        (
            "tunnel_proxy_protocol is true, but tunnel_trusted_proxies is empty: anybody could claim any "
            "address. Write the proxies' addresses."
        ),
    ),
    (
        {"tunnel_sites": ["/nowhere/site.caddy"]},
        (
            "tunnel_sites has /nowhere/site.caddy, which is neither a file nor a folder on the control node. "
            "Write the paths of files of a Caddyfile's blocks."
        ),
    ),
]

# The variables of the roles as they were before the operator's were the only ones, by what replaces them.
FORMER = {
    "": (
        "caddy_frontend_client_command caddy_frontend_fingerprints caddy_frontend_holder_image "
        "certbot_wildcard_caddy_container certbot_wildcard_install_to certbot_wildcard_required "
        "nginx_subdomains_client_command"
    ),
    "tunnel_abuse_contact": "caddy_frontend_abuse_contact nginx_subdomains_abuse_contact",
    "tunnel_accounts": "nginx_subdomains_domains sshd_tunnel_accounts",
    "tunnel_acme_ca_root": "caddy_frontend_acme_ca_root certbot_wildcard_ca_root",
    "tunnel_acme_directory": (
        "caddy_frontend_acme_directory certbot_wildcard_directory nginx_subdomains_certificate_authority"
    ),
    "tunnel_acme_eab": "caddy_frontend_acme_eab certbot_wildcard_eab",
    "tunnel_acme_email": "caddy_frontend_acme_email certbot_wildcard_email",
    "tunnel_acme_fallback_ca_root": "caddy_frontend_acme_fallback_ca_root",
    "tunnel_acme_fallback_directory": "caddy_frontend_acme_fallback_directory",
    "tunnel_acme_fallback_eab": "caddy_frontend_acme_fallback_eab",
    "tunnel_acme_profile": "caddy_frontend_acme_profile certbot_wildcard_profile",
    "tunnel_allow_disruption": "tunnel_pod_allow_disruption",
    "tunnel_answer_timeout": "nginx_subdomains_answer_timeout",
    "tunnel_ask_port": "caddy_frontend_ask_port",
    "tunnel_bandwidth_per_address": "caddy_frontend_bandwidth_per_address",
    "tunnel_bandwidth_per_name": "tunnel_pod_bandwidth_per_name",
    "tunnel_blocked_addresses": (
        "caddy_frontend_barred_addresses sshd_tunnel_barred_addresses tunnel_pod_barred_addresses "
        "tunnel_barred_addresses"
    ),
    "tunnel_blocked_names": (
        "nginx_subdomains_barred_labels sshd_tunnel_barred_labels tunnel_pod_barred_names tunnel_barred_names"
    ),
    "tunnel_body_limit": "nginx_subdomains_body_limit",
    "tunnel_caddy_image": "caddy_frontend_image",
    "tunnel_caddy_memory": "caddy_frontend_memory",
    "tunnel_certificate_file": "caddy_frontend_own_certificate",
    "tunnel_certificate_key_file": "caddy_frontend_own_key",
    "tunnel_certificate_on_host": "caddy_frontend_own_files_on_host",
    "tunnel_certificates_always": "nginx_subdomains_certificates_always",
    "tunnel_certificates_per_day": "nginx_subdomains_certificates_per_day",
    "tunnel_certificates_per_week": "nginx_subdomains_certificates_per_week",
    "tunnel_debian_image": (
        "certbot_wildcard_base_image nginx_subdomains_base_image sshd_tunnel_base_image tunnel_pod_base_image"
    ),
    "tunnel_descriptors_per_connection": "sshd_tunnel_descriptors_per_connection",
    "tunnel_dns_propagation_seconds": (
        "caddy_frontend_dns_propagation_seconds certbot_wildcard_dns_propagation_seconds"
    ),
    "tunnel_dns_provider": "caddy_frontend_dns_provider certbot_wildcard_dns_provider",
    "tunnel_dns_resolvers": "caddy_frontend_dns_resolvers",
    "tunnel_dns_settings": "caddy_frontend_dns_settings certbot_wildcard_dns_settings",
    "tunnel_docker_options": "docker_engine_daemon_options",
    "tunnel_doctor_from": "tunnel_check_from",
    "tunnel_domain": (
        "caddy_frontend_domain certbot_wildcard_domain nginx_subdomains_domain sshd_tunnel_domain tunnel_pod_domain"
    ),
    "tunnel_drain_hours": "caddy_frontend_drain_hours nginx_subdomains_drain_hours sshd_tunnel_drain_hours",
    "tunnel_guest_names": "caddy_frontend_guest_names nginx_subdomains_guest_names sshd_tunnel_guest_names",
    "tunnel_guest_notice": "nginx_subdomains_guest_notice",
    "tunnel_hsts": "caddy_frontend_hsts",
    "tunnel_http_port": "caddy_frontend_http_port",
    "tunnel_https_port": "caddy_frontend_https_port nginx_subdomains_https_port sshd_tunnel_https_port",
    "tunnel_install_docker": "docker_engine_install",
    "tunnel_listen": "caddy_frontend_listen",
    "tunnel_log_days": "caddy_frontend_log_days sshd_tunnel_log_days",
    "tunnel_log_visitors": "caddy_frontend_log_visitors",
    "tunnel_minimum_disk": "docker_engine_minimum_disk",
    "tunnel_minimum_memory": "docker_engine_minimum_memory",
    "tunnel_nginx_memory": "nginx_subdomains_memory",
    "tunnel_plain_names": "nginx_subdomains_plain_names",
    "tunnel_port_labels": "caddy_frontend_port_labels sshd_tunnel_shared_account_port_labels",
    "tunnel_proxy_protocol": "caddy_frontend_proxy_protocol",
    "tunnel_purge": "caddy_frontend_purge certbot_wildcard_purge nginx_subdomains_purge sshd_tunnel_purge",
    "tunnel_renew_every": "certbot_wildcard_renew_every",
    "tunnel_requests_per_address": "nginx_subdomains_requests_per_address",
    "tunnel_requests_per_name": "nginx_subdomains_requests_per_name",
    "tunnel_reserved_labels": (
        "nginx_subdomains_reserved_labels sshd_tunnel_reserved_labels tunnel_pod_reserved_labels"
    ),
    "tunnel_retry_every": "certbot_wildcard_retry_every",
    "tunnel_revoked_keys": "sshd_tunnel_revoked_keys",
    "tunnel_shared_account": "sshd_tunnel_shared_account",
    "tunnel_shared_account_keys": "caddy_frontend_open sshd_tunnel_shared_account_keys",
    "tunnel_shared_account_name": "sshd_tunnel_shared_account_name",
    "tunnel_sites": "caddy_frontend_sites",
    "tunnel_sites_volumes": "caddy_frontend_volumes",
    "tunnel_ssh_connections_per_address": "tunnel_connections_per_address tunnel_pod_connections_per_address",
    "tunnel_ssh_connections_per_minute": "tunnel_pod_connections_per_minute",
    "tunnel_ssh_port": "sshd_tunnel_port tunnel_pod_ssh_port",
    "tunnel_sshd_memory": "sshd_tunnel_memory",
    "tunnel_sshd_processes": "sshd_tunnel_pids",
    "tunnel_tcp_ports": "sshd_tunnel_tcp_ports tunnel_pod_tcp_ports",
    "tunnel_tls": "caddy_frontend_tls nginx_subdomains_own_certificates nginx_subdomains_redirect_to_https",
    "tunnel_trusted_proxies": "caddy_frontend_trusted_proxies",
    "tunnel_upgrade": "docker_engine_upgrade",
    "tunnel_user_ca": "sshd_tunnel_user_ca",
    "tunnel_visits_per_address": "nginx_subdomains_connections_per_address",
    "tunnel_visits_per_name": "nginx_subdomains_connections_per_name",
}

# A value that each option may have, other than its default; what is needed beside it.
POSSIBLE: dict[str, Any] = {
    "tunnel_domain": "tunnel.example.org",
    "tunnel_acme_email": "ops@example.info",
    "tunnel_tls": "internal",
    "tunnel_certificate_file": "fullchain.pem",
    "tunnel_certificate_key_file": "privkey.pem",
    "tunnel_dns_provider": "hetzner",
    "tunnel_dns_settings": {"api_token": "hidden"},
    "tunnel_dns_propagation_seconds": 60,
    "tunnel_dns_resolvers": ["192.0.2.53", "2001:db8::53"],
    "tunnel_listen": "0.0.0.0:80",
    "tunnel_trusted_proxies": ["192.0.2.0/24", "2001:db8::1"],
    "tunnel_ask_port": 9123,
    "tunnel_sites": ["site.caddy", "."],
    "tunnel_sites_volumes": ["/srv/www:/srv/www:ro"],
    "tunnel_plain_names": ["blog", "8080"],
    "tunnel_hsts": 31536000,
    "tunnel_acme_directory": "https://acme.example.com/directory",
    "tunnel_acme_ca_root": "site.caddy",
    "tunnel_acme_profile": "shortlived",
    "tunnel_acme_eab": {"key_id": "hidden", "mac_key": "hidden_-"},
    "tunnel_acme_fallback_directory": "https://acme.example.com/directory",
    "tunnel_acme_fallback_eab": {"key_id": "hidden", "mac_key": "hidden_-"},
    "tunnel_acme_fallback_ca_root": "site.caddy",
    "tunnel_certificates_always": ["blog"],
    "tunnel_certificates_per_day": 0,
    "tunnel_certificates_per_week": 1000,
    "tunnel_ssh_port": 22,
    "tunnel_ssh_algorithms": "compatible",
    "tunnel_http_port": 8080,
    "tunnel_https_port": 8443,
    "tunnel_shared_account_name": "everybody",
    "tunnel_guest_names": "try-it-*",
    "tunnel_shared_account_keys": ["https://keys.example.com/all"],
    "tunnel_accounts": [
        {
            "name": "alice",
            "keys": ["./alice.pub"],
            "names": ["blog"],
            "domains": {"blog.example.org": {"name": "blog", "passthrough": True}},
            "tcp_ports": [30001],
            "reach": ["bob-db:*"],
            "principals": ["staff"],
            "expires": "2027-06-30",
        }
    ],
    "tunnel_tcp_ports": "30000-30099",
    "tunnel_user_ca": ["ssh-ed25519 AAAA"],
    "tunnel_revoked_keys": "site.caddy",
    "tunnel_drain_hours": 0.5,
    "tunnel_reserved_labels": ["www", "mail"],
    "tunnel_blocked_names": ["guest-phish", "8080"],
    "tunnel_blocked_addresses": ["192.0.2.7", "192.0.2.0/24", "2001:db8::/48"],
    "tunnel_abuse_contact": "abuse@example.com",
    "tunnel_log_days": 1,
    "tunnel_requests_per_name": 100,
    "tunnel_requests_per_address": 100,
    "tunnel_visits_per_address": 100,
    "tunnel_bandwidth_per_name": 10000,
    "tunnel_bandwidth_per_address": 1,
    "tunnel_ssh_connections_per_address": 1,
    "tunnel_docker_options": {"registry-mirrors": ["https://mirror.example.com"]},
    "tunnel_debian_image": "registry.example.com:5000/debian@sha256:0123abcd",
    "tunnel_caddy_image": "own/caddy:2",
    "tunnel_backup_passphrase": "hidden hidden",
    "tunnel_backup_folder": "archives",
    "tunnel_backup_file": "archives/one.vault",
    "tunnel_doctor_from": "elsewhere",
    "tunnel_ssh_connections_per_minute": 1,
    "tunnel_descriptors_per_connection": 65536,
    "tunnel_sshd_memory": "512m",
    "tunnel_sshd_processes": 64,
    "tunnel_nginx_memory": "1g",
    "tunnel_edge_memory": "512m",
    "tunnel_caddy_memory": "2g",
    "tunnel_answer_timeout": 1,
    "tunnel_visits_per_name": 1,
    "tunnel_body_limit": "100m",
    "tunnel_headers": ["user_id"],
    "tunnel_renew_every": "2d",
    "tunnel_retry_every": "90s",
    "tunnel_minimum_memory": 0,
    "tunnel_minimum_disk": 0,
    "tunnel_foreign_variables": ["tunnel_mtu", "tunnel_vpn_*"],
}
NEEDED: dict[str, dict[str, Any]] = {
    "tunnel_ask_port": {"tunnel_tls": "off"},
    "tunnel_proxy_protocol": {"tunnel_trusted_proxies": ["192.0.2.1"]},
    "tunnel_dns_provider": {"tunnel_tls": "wildcard", "tunnel_dns_settings": {"api_token": "hidden"}},
    "tunnel_dns_settings": CLOUDFLARE,
    "tunnel_dns_by_caddy": {**CLOUDFLARE, "tunnel_dns_settings": {"anything_else": "hidden"}},
    "tunnel_acme_fallback_eab": {"tunnel_acme_fallback_directory": "https://acme.example.com/directory"},
}


def read(given: dict[str, Any], *, here: Path = HERE, refuse: bool = True) -> dict[str, Any]:
    """What is made of an inventory that says this beside a domain."""
    return settings.read({"tunnel_domain": DOMAIN, **given}, SPEC, here, refuse)


def refused(given: dict[str, Any], *, refuse: bool = True) -> list[str]:
    """The sentences that refuse it."""
    with pytest.raises(settings.Refused) as caught:
        read(given, refuse=refuse)
    return caught.value.problems


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(given, sentence):
    assert refused(given) == [sentence]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_a_sentence_names_a_variable_that_was_written_and_its_value_unless_it_is_a_secret(given, sentence):
    assert [name for name in [*given, *SPEC] if name in sentence]
    assert "hidden" not in sentence
    open_ones = [name for name in given if name in sentence and not SPEC.get(name, {"no_log": True}).get("no_log")]
    for name in open_ones:
        atoms = re.findall(r"[\w./:@!*-]+", json.dumps(given[name]))
        assert given[name] in (None, "") or any(atom in sentence for atom in atoms)


def statements_that_refuse() -> Iterator[ast.stmt]:
    """The statements of settings.py that yield a sentence or add one to the problems."""
    for node in ast.walk(ast.parse(Path(settings.__file__).read_text())):
        if isinstance(node, ast.Expr) and (
            isinstance(node.value, ast.Yield)
            or (isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith(".append"))
        ):
            yield node


def test_every_refusal_has_a_case():
    ran: set[int] = set()

    def trace(frame: FrameType, event: str, _: object) -> Callable | None:
        if frame.f_code.co_filename != settings.__file__:
            return None
        if event == "line":
            ran.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for given, _ in REFUSED:
            refused(given)
    finally:
        sys.settrace(before)
    found = list(statements_that_refuse())
    assert len(found) > 50
    missing = [node.lineno for node in found if not ran & {*range(node.lineno, (node.end_lineno or 0) + 1)}]
    assert not missing, "no case of REFUSED reaches these lines of settings.py"


def test_every_number_size_and_span_has_a_bound_and_a_case():
    said = " ".join(sentence for _, sentence in REFUSED)
    numbers = [name for name, option in SPEC.items() if option["type"] in ("int", "float")]
    assert [name for name in numbers if f"{name} is " not in said] == []
    for name in [name for name, option in SPEC.items() if option["type"] in ("int", "float")]:
        assert any(f"{name} is " in problem for problem in refused({name: -(10**6)}))


def test_all_that_is_wrong_is_said_at_once():
    given = {"tunnel_domian": "x", "tunnel_ssh_port": 0, "tunnel_log_days": 0}
    assert [problem.split()[0] for problem in refused(given)] == ["The", "tunnel_ssh_port", "tunnel_log_days"]
    given = {"tunnel_domian": "x", "tunnel_ssh_port": "x", "tunnel_log_days": []}
    assert len(refused(given)) == 3


@pytest.mark.parametrize("option", SPEC)
def test_the_spec_uses_only_what_is_checked(option):
    def check(told: dict[str, Any]) -> None:
        assert not set(told) - {
            "type",
            "elements",
            "choices",
            "default",
            "required",
            "no_log",
            "options",
            "description",
        }
        assert told["type"] in settings.TYPES
        assert told.get("elements", "str") in settings.TYPES
        for below in (told.get("options") or {}).values():
            check(below)

    check(SPEC[option])


@pytest.mark.parametrize("option", [name for name, told in SPEC.items() if "default" in told])
def test_a_default_may_be_written_and_an_empty_variable_means_it(option):
    assert read({option: SPEC[option]["default"]}) == read({option: None}) == read({})


@pytest.mark.parametrize(
    ("given", "meant"),
    [(True, "on"), (False, "off"), ("true", "on"), ("no", "off"), (1, "on"), ("on", "on"), ("third", "third")],
)
def test_a_boolean_that_got_a_third_mode_is_still_taken_as_one(given, meant):
    problems = []
    assert settings.typed("tunnel_x", given, {"type": "str", "choices": ["off", "on", "third"]}, problems) == meant
    assert problems == []


@pytest.mark.parametrize("option", SPEC)
def test_every_option_can_be_given(option, tmp_path):
    (tmp_path / "site.caddy").write_text("")
    default = SPEC[option].get("default")
    value = not default if SPEC[option]["type"] == "bool" else POSSIBLE.get(option)
    assert value is not None, f"Write a value of {option} other than the default into POSSIBLE."
    assert value != default
    found = read({**NEEDED.get(option, {}), option: value}, here=tmp_path)
    name = option.removeprefix("tunnel_")
    if SPEC[option].get("no_log"):
        assert name not in found
        assert "hidden" not in json.dumps(found)
    elif isinstance(value, str) and str(found[name]).startswith("/"):
        assert found[name] == str(tmp_path / value)
    elif option != "tunnel_sites":
        assert found[name] == value
        assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("tunnel_ssh_port", "2200", 2200),
        ("tunnel_ssh_port", 2200.0, 2200),
        ("tunnel_drain_hours", "1.5", 1.5),
        ("tunnel_drain_hours", 2, 2.0),
        *(("tunnel_upgrade", text, True) for text in ("true", "True", "yes", "on", "1", 1)),
        *(("tunnel_port_labels", text, False) for text in ("false", "False", "no", "off", "0", 0)),
        ("tunnel_tls", False, "off"),
        ("tunnel_tls", "off", "off"),
        ("tunnel_tcp_ports", 30000, "30000"),
        ("tunnel_body_limit", 0, "0"),
        ("tunnel_plain_names", '["blog", 8080]', ["blog", "8080"]),
        ("tunnel_plain_names", ["blog", 8080], ["blog", "8080"]),
        ("tunnel_plain_names", ("blog",), ["blog"]),
        ("tunnel_reserved_labels", "", ["www"]),
        ("tunnel_reserved_labels", [], []),
        ("tunnel_docker_options", '{"debug": true}', {"debug": True}),
        ("tunnel_docker_options", "", {}),
        ("tunnel_guest_names", "", ""),
    ],
)
def test_a_value_is_understood_as_the_command_line_and_yaml_give_it(variable, text, value):
    found = read({variable: text})[variable.removeprefix("tunnel_")]
    assert found == value
    assert type(found) is type(value)


def test_an_account_has_all_its_keys_whatever_was_left_out_or_empty():
    written = yaml.safe_load("[{name: alice, domains: null, tcp_ports: ['30001'], names: [8080], expires: 2027-06-30}]")
    assert read({"tunnel_accounts": written})["accounts"] == [
        {
            "name": "alice",
            "keys": [],
            "names": ["8080"],
            "domains": {},
            "tcp_ports": [30001],
            "reach": [],
            "principals": [],
            "expires": "2027-06-30",
        }
    ]


STRANGE = [
    *(
        "",
        "x",
        "x" * 100_000,
        "é.example",
        "~nobody-is-called-so/x",
        "\0",
        "a\nb",
        "[",
        "{",
        "{}",
        "[]",
        "nan",
        "1e400",
    ),
    *(
        "9" * 5000,
        "30009-30000",
        "30000-",
        "1000-99999",
        "-0",
        -1,
        10**5000,
        1.5,
        float("inf"),
        float("nan"),
        True,
        False,
    ),
    *([None], [True], [[]], [{}], {}, {1: 2}, {"a": None}, {"name": None}, [{"names": ["a"]}], [{"name": {}, "x": 1}]),
    *([{"name": "a", "domains": None}], (1, 2), b"x", {(1, 2): 3}, {1: 2, "a": 3}),
]


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("option", SPEC)
def test_nothing_that_can_be_written_is_more_than_refused(option, refuse):
    for value in STRANGE:
        for beside in ({}, RFC2136, {**CLOUDFLARE, "tunnel_dns_by_caddy": True}, {"tunnel_tls": "off"}):
            problems = []
            try:
                read({**beside, option: value}, refuse=refuse)
            except settings.Refused as told:
                problems = told.problems
            assert [problem for problem in problems if "tunnel_" not in problem] == []


def test_what_another_role_reads_is_let_be_once_it_is_named():
    named = {"tunnel_foreign_variables": ["tunnel_mtu", "tunnel_vpn_*"]}
    assert read({"tunnel_mtu": 1400, "tunnel_vpn_peer": "x", **named})["domain"] == DOMAIN
    (sentence,) = refused({"tunnel_mtu": 1400, "tunnel_vpm_peer": "x", **named})
    assert sentence.startswith("The inventory sets tunnel_vpm_peer, ")


def test_a_proxy_is_no_result_as_it_may_have_a_password():
    options = {"debug": True, "proxies": {"https-proxy": "http://user:hidden@proxy.example.com:3128"}}
    assert read({"tunnel_docker_options": options})["docker_options"] == {"debug": True}


def test_what_cannot_work_can_be_removed():
    for given in (
        {"tunnel_tcp_ports": "many"},
        {"tunnel_domain": ""},
        {"tunnel_domian": 1},
        {"tunnel_http_port": 443},
        {"tunnel_ssh_port": "ssh"},
        {"tunnel_accounts": "alice"},
        {"tunnel_tls": ["self"]},
        {"tunnel_minimum_memory": {}, "tunnel_listen": "nowhere", "tunnel_docker_options": {"x": 1}},
    ):
        assert read(given, refuse=False)["purge"] is False
    assert refused({"tunnel_purge": "perhaps"}, refuse=False)


@pytest.mark.parametrize("instead", FORMER)
def test_a_variable_of_before_is_refused_with_the_one_that_replaces_it(instead):
    assert not instead or instead in SPEC
    for former in FORMER[instead].split():
        (sentence,) = refused({former: "hidden"})
        assert sentence.startswith(f"The inventory sets {former}, which nothing reads")
        assert "hidden" not in sentence
        assert sentence.endswith(f" any more. Write {instead} instead.") == bool(instead)


def test_the_table_of_renamed_variables_holds_no_stranger():
    assert not set(settings.RENAMED) - {name for names in FORMER.values() for name in names.split()}


def test_what_the_roles_register_and_plays_set_is_not_taken_for_the_operators():
    registered = {
        name
        for folder in ("roles", "playbooks")
        for path in (ROOT / folder).rglob("*.yml")
        for name in re.findall(r"^ *register: (\w+)", path.read_text(), re.MULTILINE)
    }
    assert [name for name in registered if settings.is_ours(name)] == []
    assert read(dict.fromkeys(settings.OURS, "present"))


@pytest.mark.parametrize("on_host", [False, True])
def test_paths_begin_where_the_playbook_was_started(on_host, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "keys").write_text("")
    found = read(
        {
            "tunnel_revoked_keys": "~/keys",
            "tunnel_certificate_file": "./a.pem",
            "tunnel_certificate_key_file": "/etc/b.pem",
            "tunnel_certificate_on_host": on_host,
            "tunnel_backup_folder": "a~b",
            "tunnel_sites": ["keys", "~"],
        },
        here=tmp_path,
    )
    assert found["revoked_keys"] == f"{tmp_path}/keys"
    assert found["certificate_file"] == ("./a.pem" if on_host else f"{tmp_path}/a.pem")
    assert found["certificate_key_file"] == "/etc/b.pem"
    assert found["backup_folder"] == f"{tmp_path}/a~b"
    assert found["backup_file"] == ""
    assert found["sites"] == [f"{tmp_path}/keys", str(tmp_path)]


def test_the_command_and_what_newcomers_are_shown_follow_from_the_account_and_the_port():
    assert read({})["command"] == f"ssh -p 2222 -o ExitOnForwardFailure=yes -NR {{forward}} tunnel@{DOMAIN}"
    found = read({"tunnel_ssh_port": 22, "tunnel_shared_account": False})
    assert found["command"] == f"ssh -o ExitOnForwardFailure=yes -NR {{forward}} ACCOUNT@{DOMAIN}"
    assert (found["guests"], found["open"], found["anyone_takes_ports"]) == ("", False, True)
    found = read({"tunnel_port_labels": False})
    assert found["shown"] == {"label": "guest-x", "forward": "guest-x:80:localhost:80"}
    assert read({"tunnel_shared_account_keys": ["./a.pub"]})["open"] is False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"by_certbot": False, "by_caddy_dns": False, "certificate_each": True, "own_authority": False}),
        ({"tunnel_tls": "internal"}, {"own_authority": True, "certificate_authority": "internal"}),
        ({"tunnel_tls": False}, {"certificate_each": True, "own_authority": False}),
        ({"tunnel_acme_directory": "https://acme.example.com/d"}, {"own_authority": True}),
        (
            {**RFC2136, "tunnel_dns_settings": KEY},
            {"by_certbot": True, "certbot_plugin": "/opt/dns-update", "certbot_authenticator": "dns-update"},
        ),
        (
            {**CLOUDFLARE, "tunnel_dns_settings": {"api_token": "hidden"}},
            {"certbot_plugin": "certbot-dns-cloudflare", "certbot_authenticator": "dns-cloudflare"},
        ),
        (
            {**CLOUDFLARE, "tunnel_dns_by_caddy": True},
            {"by_certbot": False, "by_caddy_dns": True, "certificate_each": False},
        ),
        ({"tunnel_https_port": 8443}, {"https_suffix": ":8443"}),
        ({"tunnel_tcp_ports": "30000-30002"}, {"tcp_port_list": [30000, 30001, 30002]}),
        ({"tunnel_abuse_contact": "a@example.com"}, {"abuse_link": "mailto:a@example.com"}),
        ({"tunnel_abuse_contact": "https://example.com/"}, {"abuse_link": "https://example.com/"}),
        (
            {"tunnel_accounts": [{"name": "a", "domains": {"x.example.org": "blog"}}, {"name": "b"}]},
            {"domains": {"x.example.org": "blog"}},
        ),
    ],
)
def test_what_follows_from_several(given, expected):
    found = read(given)
    assert {name: found[name] for name in expected} == expected


Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def play(tmp_path, environment) -> Play:
    """A function that runs the action in a play with this inventory, and shows what it registers."""

    def _play(variables: str = "", *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        text = "".join(f"    {line}\n" for line in f"tunnel_domain: {DOMAIN}\n{variables}".splitlines())
        (tmp_path / "inventory.yml").write_text(f"all:\n  hosts:\n    host.invalid:\n  vars:\n{text}")
        (tmp_path / "elsewhere/play.yml").write_text(
            "- hosts: all\n"
            "  gather_facts: false\n"
            "  tasks:\n"
            "    - proxme.tunnel.settings:\n"
            "      register: tunnel\n"
            "    - ansible.builtin.copy:\n"
            "        content: '{{ tunnel | to_json }}'\n"
            f"        dest: {tmp_path}/registered.json\n"
            "      delegate_to: localhost\n"
            "      connection: local\n"
            "      check_mode: false\n"
        )
        return subprocess.run(
            [BIN / "ansible-playbook", "--inventory", "inventory.yml", "elsewhere/play.yml", *arguments],
            cwd=tmp_path,
            env=environment | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
            capture_output=True,
            text=True,
            check=False,
        )

    return _play


def test_the_action_registers_values_with_types_and_no_secret_is_shown(play, tmp_path):
    (tmp_path / "site.caddy").write_text("")
    done = play(
        "base: 2200\n"
        "tunnel_ssh_port: '{{ base + 22 }}'\n"
        "tunnel_tls: off\n"
        "tunnel_accounts:\n"
        "tunnel_plain_names: \"{{ ['a', 'b'] | map('replace', 'b', 'c') }}\"\n"
        "tunnel_abuse_contact: \"{{ lookup('ansible.builtin.env', 'NOWHERE_SET') or 'a@example.com' }}\"\n"
        "tunnel_sites: [site.caddy]\n"
        "secret: hidden-one\n"
        "tunnel_dns_settings: {api_token: '{{ secret }}'}\n"
        "tunnel_acme_eab: {key_id: hidden-two, mac_key: hidden-three}\n"
        "tunnel_backup_passphrase: hidden-passphrase\n",
        *("-vvv", "-e", "tunnel_upgrade=true", "-e", "tunnel_log_days=3", "-e", '{"tunnel_blocked_names": ["phish"]}'),
        "--check",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hidden" not in done.stdout + done.stderr
    found = json.loads((tmp_path / "registered.json").read_text())
    assert "hidden" not in json.dumps(found)
    expected = {
        "changed": False,
        "domain": DOMAIN,
        "ssh_port": 2222,
        "tls": "off",
        "accounts": [],
        "plain_names": ["a", "c"],
        "abuse_contact": "a@example.com",
        "sites": [f"{tmp_path}/site.caddy"],
        "upgrade": True,
        "log_days": 3,
        "blocked_names": ["phish"],
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ("tunnel_log_days: 0", "tunnel_log_days is 0. Write 1 or more, such as 14."),
        (
            "tunnel_dns_settings: {b: '{{ nowhere }}'}",
            "tunnel_dns_settings can't be read: 'nowhere' is undefined. Define",
        ),
        ("tunnel_ssh_port: '{{ base }}'\nbase: '{{ nowhere }}'", "tunnel_ssh_port can't be read: "),
        ('tunnel_sites: [\'{{ lookup("file", "/nowhere") }}\']', "tunnel_sites can't be read: "),
        ("tunnel_ssh_port: '{{ 1 +'", "tunnel_ssh_port can't be read: "),
        ("tunnel_nowhere: '{{ nowhere }}'", "The inventory sets tunnel_nowhere, which nothing reads."),
        ("tunnel_acme_eab: {key_id: 'hidden ', mac_key: hidden}", "tunnel_acme_eab can't be. Write it"),
        ("tunnel_dns_settings: [hidden]", "tunnel_dns_settings is a list, where a mapping belongs. Write names and"),
    ],
)
def test_the_action_says_what_is_wrong_and_shows_no_secret(play, variables, sentence):
    done = play(f"tunnel_acme_fallback_eab: {{a: hidden}}\n{variables}\ntunnel_backup_passphrase: hidden too", "-vvv")
    assert done.returncode
    message = json.loads(re.search(r"FAILED! => (\{.*?^\})", done.stdout, re.DOTALL | re.MULTILINE)[1])["msg"]
    assert sentence in message
    assert "nowhere" not in variables or "nowhere" in message
    assert "hidden" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_in_a_vault_is_checked_and_not_shown(play, tmp_path, run):
    (tmp_path / "password").write_text("opens it")
    vault = ("--vault-password-file", tmp_path / "password")
    secret = run("ansible-vault", "encrypt_string", *vault, "hidden", cwd=tmp_path).stdout.strip()
    done = play(f"tunnel_acme_eab: {secret}", *vault, "-vvv")
    assert "tunnel_acme_eab is text, where a mapping belongs. Write" in done.stdout
    assert "hidden" not in done.stdout + done.stderr
    nested = secret.replace("\n", "\n  ")
    done = play(
        f"tunnel_backup_passphrase: {secret}\ntunnel_acme_eab:\n  key_id: a\n  mac_key: {nested}", *vault, "-vvv"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hidden" not in done.stdout + done.stderr + (tmp_path / "registered.json").read_text()


def test_an_old_ansible_is_refused(monkeypatch):
    monkeypatch.setattr(action.release, "__version__", "2.18.9")
    module = action.ActionModule(
        MagicMock(async_val=0, args={}), MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock()
    )
    with pytest.raises(
        AnsibleActionFail, match=r"This is ansible-core 2\.18\.9, and the collection needs 2\.19 or newer"
    ):
        module.run(None, {})
