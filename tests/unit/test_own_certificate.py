# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles/caddy_frontend/files/check_certificate.py says of an operator's certificate and key."""

from __future__ import annotations

import datetime
import importlib.util
import pathlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
    "check_certificate", ROOT / "roles/caddy_frontend/files/check_certificate.py"
)
check_certificate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_certificate)

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
DOMAIN = "proxme.example.com"
BOTH = (DOMAIN, f"*.{DOMAIN}")


def pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    """The key as a file holds it."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def issued(key: ec.EllipticCurvePrivateKey, *names: str, begin: int = -10, end: int = 80) -> str:
    """A certificate for these names, valid from `begin` to `end` days from now."""
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW + datetime.timedelta(begin))
    builder = builder.not_valid_after(NOW + datetime.timedelta(end))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def checked(certificate: str, key: str) -> dict[str, Any]:
    """What the script says."""
    return check_certificate.check(certificate, key, DOMAIN, NOW)


def test_a_good_pair_is_put_together():
    certificate, issuer = issued(KEY, *BOTH), issued(OTHER, "an issuer")
    result = checked(certificate + issuer, pem(KEY))
    assert (result["problems"], result["warnings"]) == ([], [])
    assert result["pem"] == certificate + issuer + pem(KEY)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (issued(KEY, *BOTH), pem(OTHER), "The key does not belong to the certificate"),
        (issued(KEY, DOMAIN), pem(KEY), f"not for *.{DOMAIN}. Order one for"),
        (issued(KEY, f"*.{DOMAIN}"), pem(KEY), f"not for {DOMAIN}. Order one for"),
        (issued(KEY, *BOTH, end=-1), pem(KEY), "The certificate has expired (2026-11-22 00:00 UTC). Renew it."),
        (issued(KEY, *BOTH, begin=1), pem(KEY), "valid from 2026-11-24 00:00 UTC on only"),
        (issued(KEY, *BOTH), pem(KEY, b"secret"), "The key is encrypted"),
        (issued(KEY, *BOTH), "hello", "holds no private key in PEM"),
        ("hello", pem(KEY), "holds no certificate in PEM"),
        (pem(KEY), issued(KEY, *BOTH), "holds no certificate in PEM"),
    ],
)
def test_what_visitors_could_not_use_is_refused(certificate, key, said):
    problems = checked(certificate, key)["problems"]
    assert any(said in problem for problem in problems), problems


def test_one_that_ends_soon_is_warned_of():
    (warning,) = checked(issued(KEY, *BOTH, begin=-80, end=10), pem(KEY))["warnings"]
    assert warning == "The certificate expires on 2026-12-03 00:00 UTC. Renew it, and run again."
    assert checked(issued(KEY, *BOTH, begin=-1, end=6), pem(KEY))["warnings"] == [], "it lives six days in all"


def test_what_caddy_can_not_read_as_it_is_is_refused():
    parameters = "-----BEGIN DH PARAMETERS-----\nMAYCAQ==\n-----END DH PARAMETERS-----\n"
    files = (issued(KEY, *BOTH) + parameters, pem(KEY))
    assert checked(*files)["problems"] == []
    (problem,) = check_certificate.check(*files, DOMAIN, NOW, as_it_is=True)["problems"]
    assert problem == "The files hold DH PARAMETERS, which Caddy can't read. Take that part out of them."


def test_files_that_are_taken_as_they_are_stay_whole():
    """As `install-certificate` puts them together: cat, echo, cat."""
    files = ("a word before\n" + issued(KEY, *BOTH), pem(KEY))
    assert check_certificate.check(*files, DOMAIN, NOW, as_it_is=True) == {
        "problems": [],
        "warnings": [],
        "pem": "\n".join(files),
    }
