# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the edge share: an edge in a container, hellos for it, and certificates that it finds."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from programs import build_images


@contextmanager
def published(start: str, options: list[str], serves: Callable[[tuple[str, int]], bool]) -> Iterator[tuple[str, int]]:
    """Run the edge's image with a shell command and options of docker, until it serves; where it listens."""
    container = f"proxme-unit-edge-{uuid.uuid4().hex[:8]}"
    command = ["docker", "run", "--rm", "--detach", f"--name={container}", "--label=proxme.scenario=unit"]
    command += ["--publish=127.0.0.1::65443", "--tmpfs=/run/tunnel:mode=1777", *options]
    subprocess.run([*command, build_images()["edge"], "sh", "-euc", start], check=True, capture_output=True)
    try:
        port = subprocess.run(["docker", "port", container, "65443"], check=True, capture_output=True, text=True).stdout
        address = ("127.0.0.1", int(port.split(":")[-1]))
        deadline = time.monotonic() + 20
        while not serves(address):
            assert time.monotonic() < deadline, subprocess.run(["docker", "logs", container], capture_output=True)
            time.sleep(0.1)
        yield address
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True)


def hello(name: str | None, *alpn: str) -> bytes:
    """A ClientHello as OpenSSL makes it, with a name, in capitals or with a dot at its end as well, and protocols."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn) or ["h2", "http/1.1"])
    sent = ssl.MemoryBIO()
    # Python takes neither capitals nor a dot at the end: they replace letters of a name that is as long.
    plain = name and name.lower().rstrip(".").ljust(len(name), "x")
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=plain).do_handshake()
    return sent.read().replace((plain or "").encode(), (name or "").encode())


def pem(name: str, before: timedelta, after: timedelta, kind: str = "ec") -> tuple[str, str]:
    """A certificate that says this name, valid from then until then as seen from now, and its key."""
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now + before).not_valid_after(now + after).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM).decode(), private.decode()
