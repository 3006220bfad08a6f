# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of certificates have in common."""

from __future__ import annotations

import json
import pathlib
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playbook import ROOT, Operator, Run
from world import Ca, Host, Scenario, Visitor, World, until

CADDY, EDGE = "proxme-tunnel-caddy", "proxme-tunnel-edge"
DATA = "/var/lib/proxme-tunnel/caddy_frontend"
NAME = "guest-live"
SITE = "shop.example.org"


class Authority:
    """An authority of the tests' own that signs what an operator brings."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Make its key and root in `folder`."""
        self.folder = folder
        root = ["-days", "30", "-subj", "/CN=Root of the operator", "-addext", "keyUsage=keyCertSign,cRLSign"]
        self._openssl("req", "-x509", *self._new("root"), *root)
        self.root = (folder / "root.pem").read_text()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def _new(self, name: str) -> list[str]:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        return [*key, "-keyout", f"{name}.key", "-out", f"{name}.pem"]

    def sign(self, name: str, *hosts: str, days: int = 30) -> dict[str, Any]:
        """The variables for a certificate for these hosts, in files that begin with `name`."""
        names = ",".join(f"DNS:{host}" for host in hosts)
        signed = ["-CA", "root.pem", "-CAkey", "root.key", "-days", str(days)]
        what = [f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"]
        extensions = [word for extension in what for word in ("-addext", extension)]
        self._openssl("req", "-x509", *self._new(name), *signed, "-subj", "/CN=x", *extensions)
        return {
            "tunnel_tls": "files",
            "tunnel_certificate_file": str(self.folder / f"{name}.pem"),
            "tunnel_certificate_key_file": str(self.folder / f"{name}.key"),
        }


@dataclass(frozen=True)
class Strict:
    """A further CA, which registers nobody without the external account binding that it gave out."""

    ca: Ca
    binding: dict[str, str]
    trusted: pathlib.Path

    # Where overhear.py stands before it, and what that notes.
    OVERHEARD = 14443
    ORDERS = "/run/orders"

    def directory(self, port: int = 14000) -> str:
        """Address of its directory."""
        return f"https://{self.ca.name.rpartition('-')[2]}:{port}/dir"

    @property
    def variables(self) -> dict[str, Any]:
        """What an operator writes who has the binding and wants a profile."""
        return {
            "tunnel_acme_directory": self.directory(self.OVERHEARD),
            "tunnel_acme_ca_root": str(self.trusted),
            "tunnel_acme_eab": self.binding,
            "tunnel_acme_profile": "shortlived",
        }

    def orders(self) -> list[dict[str, Any]]:
        """The orders that were sent to the port that is listened in to."""
        return [json.loads(line) for line in self.ca.read(self.ORDERS).splitlines()]


@contextmanager
def strict_ca(world: World, name: str, folder: pathlib.Path) -> Iterator[Strict]:
    """Such a CA, for as long as the `with` block lasts."""
    binding = {"key_id": f"key-of-{name}", "mac_key": secrets.token_urlsafe(32)}
    scenario = world.scenario
    options = [f"--env=EAB={binding['key_id']}:{binding['mac_key']}", f"--env=CHALLENGES={scenario.dns_address}"]
    start = f'exec ca {scenario.domain} {scenario.host_address} "$(hostname -i)"'
    ca = Ca(world.container(name, *options, command=["sh", "-c", start]))
    try:
        until("the CA answers", ca.root)
        trusted = folder / f"{name}.pem"
        trusted.write_text(ca.read("/srv/ca/root.pem"))
        with ca.background("overhear.py", str(Strict.OVERHEARD), Strict.ORDERS):
            until("its orders are noted", lambda: ca.exec("test", "-e", Strict.ORDERS).code == 0)
            yield Strict(ca, binding, trusted)
    finally:
        ca.remove()


def serial(visitor: Visitor, name: str) -> str:
    """Serial number of the certificate that a name is shown with."""
    return re.search(r"Serial Number:\s*(\S+)", visitor.certificate(name))[1]


@contextmanager
def paused(host: Host, container: str) -> Iterator[None]:
    """A container whose processes stand still for as long as the `with` block lasts."""
    host.docker("pause", container).expect()
    try:
        yield
    finally:
        host.docker("unpause", container).expect()


def by_the_edge(visitor: Visitor, host: Host, url: str) -> None:
    """Expect that visitors of a tunnel need no Caddy, once one made it get a certificate, and one came for the hour."""
    for _ in range(2):
        assert visitor.get(url).status == 200
    with paused(host, CADDY):
        assert visitor.get(url, timeout=5).status == 200


@contextmanager
def unbroken(visitor: Visitor, url: str) -> Iterator[None]:
    """An open WebSocket that must still be there at the end of the block and answer once a second meanwhile."""
    script = (
        "import asyncio, ssl, sys, websockets\n"
        "async def main():\n"
        "    tls = ssl.create_default_context(cafile='/run/root.pem') if sys.argv[1].startswith('wss') else None\n"
        "    async with websockets.connect(sys.argv[1], ssl=tls) as socket:\n"
        "        for turn in range(600):\n"
        "            await socket.send(str(turn))\n"
        "            assert str(turn) in await asyncio.wait_for(socket.recv(), 5)\n"
        "            print(turn, flush=True)\n"
        "            await asyncio.sleep(1)\n"
        "            if open('/run/enough').read(): return print('whole', flush=True)\n"
        "asyncio.run(main())\n"
    )
    visitor.write("/run/echo.py", script)
    visitor.write("/run/enough", "")
    visitor.spawn("sh", "-c", f"python3 /run/echo.py {url} >/run/echo.log 2>&1")
    until("the WebSocket is open", lambda: "0" in visitor.exec("cat", "/run/echo.log").stdout)
    yield
    visitor.write("/run/enough", "yes")
    until("the echo ends", lambda: not visitor.exec("pgrep", "-f", "[/]run/echo.py").stdout)
    log = visitor.read("/run/echo.log")
    assert log.endswith("whole\n"), log


def planted(host: Host, name: str, *, age: int, left: int) -> str:
    """Put a certificate into Caddy's storage that is so many days old and valid for so many more; its serial number."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject, number = x509.Name([]), x509.random_serial_number()
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), number, now - timedelta(age), now + timedelta(left)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    [folder] = host.shell(f"ls -d {DATA}/caddy/certificates/pebble-*").expect().stdout.split()
    host.exec("install", "-d", "-m", "0700", f"{folder}/{name}").expect()
    parts = {
        "key": private,
        "crt": builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM),
        "json": json.dumps({"sans": [name], "issuer_data": {"url": "https://pebble:14000/certZ/1"}}).encode(),
    }
    for end, content in parts.items():
        host.write(f"{folder}/{name}/{name}.{end}", content)
    host.exec("chown", "-R", "65532", f"{folder}/{name}").expect()
    return number.to_bytes((number.bit_length() + 7) // 8).hex(":")


def renew(host: Host) -> None:
    """Let certbot renew the certificate now, though it is not due."""
    ini = "/etc/proxme-tunnel/certbot_wildcard/certbot/cli.ini"
    host.exec("sed", "-i", "s/^keep-until-expiring.*/force-renewal = true/", ini).expect()
    host.exec("systemctl", "start", "proxme-tunnel-certificate.service", timeout=120).expect()


def refused(run: Run, said: str) -> None:
    """Expect that a run failed with these words before it changed anything."""
    assert run.code != 0
    assert run.changed == []
    assert said in run.message


def idempotent(operator: Operator, variables: dict[str, Any]) -> None:
    """Expect that a second run changes nothing. It may remove a Caddy that the first one has replaced."""
    assert operator.run(variables=variables).expect().changed_but_cleared == []


def known_to(host: Host, secret: str, readers: set[str]) -> None:
    """Expect a secret in files of these modes and owners alone, and nowhere in what Docker and `ps` show."""
    described = host.shell("docker inspect $(docker ps -aq); docker history --no-trunc -q $(docker images -q); ps axww")
    assert secret not in described.output
    holding = host.shell(f"grep -rlF -e '{secret}' /etc /var/lib/proxme-tunnel /run /tmp /root").stdout.split()
    assert {host.exec("stat", "-c", "%a %u", path).stdout.strip() for path in holding} == readers, holding


def provider(scenario: Scenario, key: str) -> dict[str, Any]:
    """The variables for the scenario's own name server, with one of its two keys."""
    given = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())
    secrets = given["provisioner"]["inventory"]["group_vars"]["all"]["scenario_dns_secrets"]
    settings = {"server": scenario.dns_address, "name": f"{key}.", "algorithm": "HMAC-SHA256", "secret": secrets[key]}
    variables = {"tunnel_tls": "wildcard", "tunnel_dns_provider": "rfc2136", "tunnel_dns_settings": settings}
    return variables | {"tunnel_dns_propagation_seconds": 2}
