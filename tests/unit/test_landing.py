# SPDX-License-Identifier: GPL-3.0-or-later
"""The landing page tells people only what they may do here."""

from __future__ import annotations

import pytest
from render import render


def page(**variables: object) -> str:
    """The page with some of the operator's variables."""
    return render("caddy_frontend", "landing.html.j2", item="index", tunnel_domain="proxme.example", **variables)


def test_everybody_may_take_ports_and_guest_names():
    shown = page()
    assert "-NR 8080:localhost:80 tunnel@proxme.example" in shown
    assert "<code>https://8080.proxme.example</code> shows your port 80" in shown
    assert "-R guest-x:80:localhost:3000" in shown
    assert "and no password." in shown


def test_without_port_labels_a_name_is_shown():
    shown = page(tunnel_port_labels=False)
    assert "8080" not in shown
    assert "-R 0:" not in shown
    assert shown.count("-NR guest-x:80:localhost:80 tunnel@proxme.example") == 3
    assert "<code>https://guest-x.proxme.example</code> shows your port 80" in shown
    assert "https://guest-x--local.proxme.example" in shown
    assert "https://guest-x--local-8000.proxme.example" in shown


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"tunnel_shared_account": False}, id="accounts alone"),
        pytest.param({"tunnel_shared_account_keys": ["ssh-ed25519 AAAA"], "tunnel_guest_names": ""}, id="with keys"),
    ],
)
def test_whoever_needs_a_key_is_told_so(given):
    shown = page(**given)
    assert "your key must be known to this host" in shown
    assert "no password" not in shown
    assert "-NR 8080:localhost:80" in shown
    assert "guest-x" not in shown


@pytest.mark.parametrize("port", [22, 2222])
def test_who_can_reach_https_alone_is_told_how(port):
    shown = page(tunnel_ssh_port=port, tunnel_https_port=8443)
    assert "<pre>ssh -p 8443 -o ExitOnForwardFailure=yes -NR 8080:localhost:80 tunnel@proxme.example</pre>" in shown
    assert "-p 8443" not in page(tunnel_ssh_port=port, tunnel_https_port=8443, tunnel_edge=False)


def test_the_fingerprints_are_shown_once_they_are_known():
    shown = page(tunnel_host_keys={"fingerprints": ["256 SHA256:one (ED25519)", "3072 SHA256:two <RSA>"]})
    assert "<pre>256 SHA256:one (ED25519)\n3072 SHA256:two &lt;RSA&gt;</pre>" in shown
    # In check mode on a new host, and where the role is run alone.
    for known in ({"tunnel_host_keys": {"skipped": True}}, {}):
        assert "fingerprints" not in page(**known)
