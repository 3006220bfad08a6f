# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that installs what certbot has obtained, with a docker of the test's own in its path."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

SCRIPT = Path(__file__).resolve().parents[2] / "roles/certbot_wildcard/files/obtain-certificate"
# Says what it was called with, and fails where the test has left a file that says so.
DOCKER = """#!/bin/sh
echo "$*" >>"$FOLDER/calls"
case "$*" in
    start*) [ ! -e "$FOLDER/certbot-fails" ] ;;
    *inspect*) if [ -e "$FOLDER/caddy-is-down" ]; then echo false; else echo true; fi ;;
    exec*) [ ! -e "$FOLDER/reload-fails" ] ;;
esac
"""


class Host:
    """A folder that has what the script needs of a host."""

    def __init__(self, folder: Path) -> None:
        """Lay out settings, an empty certbot and the docker."""
        self.folder = folder
        self.lineage = folder / "data/certbot/live/proxme.test-1"
        self.installed = folder / "own/wildcard.pem"
        for path in (self.lineage, self.installed.parent, folder / "bin"):
            path.mkdir(parents=True)
        shutil.copy(SCRIPT, folder / "obtain-certificate")
        (folder / "bin/docker").write_text(DOCKER)
        (folder / "bin/docker").chmod(0o755)
        settings = {
            "CERTBOT": "certbot",
            "CERTIFICATE": "proxme.test-1",
            "DATA": folder / "data",
            "INSTALL_TO": self.installed.parent,
            "OWNER": os.getuid(),
            "CADDY": "caddy",
            "SERVICE": "no-such-service",
        }
        (folder / "settings").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def issue(self, days: int = 30) -> str:
        """Put a new certificate where certbot puts it, and return what shall be installed."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxme.test")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        (self.lineage / "fullchain.pem").write_text(certificate)
        (self.lineage / "privkey.pem").write_text(secret)
        return certificate + secret

    def let(self, what: str, happen: bool = True) -> None:
        """Let certbot fail, a reload fail, or Caddy be down, or no longer."""
        (self.folder / what).touch() if happen else (self.folder / what).unlink()

    def run(self, *arguments: str) -> int:
        """Run the script and return how it ended."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "FOLDER": str(self.folder)}
        command = [str(self.folder / "obtain-certificate"), *arguments]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    @property
    def reloads(self) -> int:
        """How often Caddy was told."""
        return (self.folder / "calls").read_text().count("caddy reload")


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_new_certificate_is_installed_for_its_owner_alone_and_caddy_is_told_once(host):
    wanted = host.issue()
    assert (host.run(), host.run()) == (0, 0)
    assert host.installed.read_text() == wanted
    assert host.installed.stat().st_mode & 0o777 == 0o400
    assert [path.name for path in host.installed.parent.iterdir()] == ["wildcard.pem"]
    assert host.reloads == 1


def test_a_renewed_one_takes_its_place(host):
    host.issue()
    host.run()
    wanted = host.issue()
    assert host.run() == 0
    assert host.installed.read_text() == wanted
    assert host.reloads == 2


def test_a_reload_that_failed_is_done_again(host):
    host.issue()
    host.let("reload-fails")
    assert host.run() != 0
    host.let("reload-fails", False)
    assert (host.run(), host.run()) == (0, 0)
    assert host.reloads == 2


def test_caddy_is_not_told_while_it_is_down(host):
    host.issue()
    host.let("caddy-is-down")
    assert host.run() == 0
    assert host.installed.exists()
    assert host.reloads == 0


def test_a_failure_of_certbot_is_the_services_and_leaves_the_installed_one(host):
    wanted = host.issue()
    host.run()
    host.let("certbot-fails")
    assert host.run() != 0
    assert host.installed.read_text() == wanted


def test_a_failure_of_certbot_with_nothing_obtained_installs_nothing(host):
    host.let("certbot-fails")
    assert host.run() != 0
    assert not host.installed.exists()


def test_a_key_of_another_certificate_is_not_installed(host):
    wanted = host.issue()
    host.run()
    host.issue()
    (host.lineage / "privkey.pem").write_text(wanted[wanted.index("-----BEGIN PRIVATE KEY") :])
    assert host.run() != 0
    assert host.installed.read_text() == wanted


def test_check_wants_the_one_that_certbot_has_now_and_not_an_old_one(host):
    assert host.run("check") != 0
    host.issue()
    assert host.run("check") != 0
    host.run()
    assert host.run("check") == 0
    host.issue(days=-1)
    host.run()
    assert host.run("check") != 0
