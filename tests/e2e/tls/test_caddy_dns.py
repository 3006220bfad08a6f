# SPDX-License-Identifier: GPL-3.0-or-later
"""Caddy obtains the certificate for all names itself, with a DNS module that the operator's image has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from common import idempotent, known_to, provider, refused
from playbook import ROOT, Operator
from test_certificates import HANDSHAKES
from world import Ca, Client, Host, Scenario, Visitor, Web, until

NAME = "guest-live"


@pytest.fixture(scope="module")
def chosen(scenario: Scenario) -> dict[str, Any]:
    """What the operator writes."""
    key = provider(scenario, "main")["tunnel_dns_settings"]
    return {
        "tunnel_tls": "wildcard",
        "tunnel_dns_by_caddy": True,
        "tunnel_dns_provider": "rfc2136",
        "tunnel_dns_settings": {
            "server": f"{key['server']}:53",
            "key_name": key["name"],
            "key_alg": "hmac-sha256",
            "key": key["secret"],
        },
        "tunnel_dns_resolvers": [scenario.dns_address],
    }


@pytest.fixture(scope="module")
def image(host: Host) -> str:
    """The operator's image, which is there on the host."""
    build = [sys.executable, ROOT / "tests/images/build.py", "caddy-dns"]
    built = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout
    name = json.loads(built.splitlines()[-1])["caddy-dns"]
    saved = subprocess.run(["docker", "save", name], capture_output=True, check=True)
    host.exec("docker", "load", stdin=saved.stdout).expect()
    return name


def test_an_image_without_the_module_is_refused(operator: Operator, chosen: dict[str, Any]) -> None:
    """Before anything changes, and with the way out."""
    run = operator.run(variables=chosen)
    refused(run, "The image caddy:2.11.7 (tunnel_caddy_image) has no module dns.providers.rfc2136")
    assert "Its DNS modules are: none. Build an image that has it, as docs/wildcard.md shows." in run.message


def test_one_certificate_for_all_names(
    operator: Operator,
    image: str,
    chosen: dict[str, Any],
    client: Client,
    web: Web,
    visitor: Visitor,
    host: Host,
    ca: Ca,
    domain: str,
) -> None:
    """Ordered once, whatever a scanner asks for, while a tunnel stays; the provider's secret is in one file alone."""
    variables = chosen | {"tunnel_caddy_image": image}
    secret = variables["tunnel_dns_settings"]["key"]
    with client.tunnel(f"{NAME}:80", to=web) as tunnel:
        orders = ca.orders()
        run = operator.run(ROOT / "site.yml", "-vvv", "--diff", variables=variables).expect()
        assert secret not in run.output
        until("the page is there", lambda: visitor.get(f"https://{NAME}.{domain}/").status == 200, within=30)
        until("so is the landing page", lambda: visitor.get(f"https://{domain}/").status == 200, within=30)
        assert tunnel.running
        assert re.findall(r"DNS:([^,\s]+)", visitor.certificate(f"{NAME}.{domain}")) == [f"*.{domain}"]
        assert visitor.get(f"https://nobody.{domain}/").status == 404
        assert visitor.get(f"https://a.{NAME}.{domain}/").status == 0
        # One for the domain, one for all names below it.
        assert ca.orders() == orders + 2
        scan = visitor.exec("python3", "-", domain, "1000", stdin=HANDSHAKES.encode(), timeout=180).expect()
        assert sum(json.loads(scan.stdout).values()) == 1000
        assert ca.orders() == orders + 2
    known_to(host, secret, {"400 65532"})
    idempotent(operator, variables)


def test_custom_domains_beside_it(
    operator: Operator,
    image: str,
    chosen: dict[str, Any],
    client: Client,
    web: Web,
    visitor: Visitor,
    ca: Ca,
    domain: str,
) -> None:
    """With `both` a live custom domain gets one of its own, and no name of ours, however deep."""
    site = "shop.example.org"
    client.shell("test -e /run/alice || ssh-keygen -q -t ed25519 -N '' -f /run/alice").expect()
    alice = {"name": "alice", "keys": [client.read("/run/alice.pub").strip()], "names": ["alice-shop"]}
    variables = chosen | {"tunnel_caddy_image": image, "tunnel_tls": "both"}
    operator.run(variables=variables | {"tunnel_accounts": [alice | {"domains": {site: "alice-shop"}}]}).expect()
    with client.tunnel("alice-shop:80", to=web, user="alice", options=["-i", "/run/alice"]):
        orders = ca.orders()
        until("it answers", lambda: "Hello from web." in visitor.get(f"https://alice-shop.{domain}/").body)
        assert visitor.get(f"https://a.alice-shop.{domain}/").status == 0
        assert ca.orders() == orders
        assert "Hello from web." in visitor.get(f"https://{site}/").body
        assert ca.orders() == orders + 1


def test_back_to_the_stock_image(operator: Operator, visitor: Visitor, ca: Ca, domain: str) -> None:
    """The certificates of before are still there, and the secret is not."""
    orders = ca.orders()
    operator.run().expect()
    until("the landing page is there", lambda: visitor.get(f"https://{domain}/").status == 200, within=20)
    assert ca.orders() == orders
