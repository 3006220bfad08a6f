# SPDX-License-Identifier: GPL-3.0-or-later
"""The landing page tells people only what they may do here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles/caddy_frontend"


@pytest.fixture
def page(run, tmp_path):
    """Return a function that renders the page with some of the role's variables."""

    def render(**variables: object) -> str:
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"item": "index", "ansible_python_interpreter": sys.executable},
            "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
            "tasks": [
                {
                    "ansible.builtin.copy": {
                        "content": f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/landing.html.j2') }}}}",
                        "dest": str(tmp_path / "page.html"),
                    }
                }
            ],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        given = json.dumps({"caddy_frontend_domain": "proxme.example", **variables})
        run("ansible-playbook", "-i", "localhost,", "-e", given, tmp_path / "play.yml", cwd=tmp_path)
        return (tmp_path / "page.html").read_text()

    return render


def test_everybody_may_take_ports_and_guest_names(page):
    shown = page()
    assert "-NR 8080:localhost:80 tunnel@proxme.example" in shown
    assert "<code>https://8080.proxme.example</code> shows your port 80" in shown
    assert "-R guest-x:80:localhost:3000" in shown
    assert "and no password." in shown


def test_without_port_labels_a_name_is_shown(page):
    shown = page(caddy_frontend_port_labels=False)
    assert "8080" not in shown
    assert "-R 0:" not in shown
    assert shown.count("-NR guest-x:80:localhost:80 tunnel@proxme.example") == 2
    assert "<code>https://guest-x.proxme.example</code> shows your port 80" in shown
    assert "https://guest-x--local.proxme.example" in shown


def test_whoever_needs_a_key_is_told_so(page):
    shown = page(caddy_frontend_open=False, caddy_frontend_guest_names="")
    assert "your key must be known to this host" in shown
    assert "no password" not in shown
    assert "-NR 8080:localhost:80" in shown
