# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action certificate says of an operator's certificate and key."""

from __future__ import annotations

import datetime
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.proxme.tunnel.plugins.plugin_utils.certificate import check
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
DOMAIN = "proxme.example.com"
BOTH = (DOMAIN, f"*.{DOMAIN}")


def pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    """The key as a file holds it."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def issued(
    key: ec.EllipticCurvePrivateKey, *names: str, begin: int = -10, end: int = 80, now: datetime.datetime = NOW
) -> str:
    """A certificate for these names, valid from `begin` to `end` days from now."""
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now + datetime.timedelta(begin))
    builder = builder.not_valid_after(now + datetime.timedelta(end))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def checked(certificate: str, key: str) -> dict[str, Any]:
    """What is said of them."""
    return check(certificate, key, DOMAIN, NOW)


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


def test_what_caddy_cannot_read_as_it_is_is_refused():
    parameters = "-----BEGIN DH PARAMETERS-----\nMAYCAQ==\n-----END DH PARAMETERS-----\n"
    files = (issued(KEY, *BOTH) + parameters, pem(KEY))
    assert checked(*files)["problems"] == []
    (problem,) = check(*files, DOMAIN, NOW, as_it_is=True)["problems"]
    assert problem == "The files hold DH PARAMETERS, which Caddy can't read. Take that part out of them."


def test_files_that_are_taken_as_they_are_stay_whole():
    """As `install-certificate` puts them together: cat, echo, cat."""
    files = ("a word before\n" + issued(KEY, *BOTH), pem(KEY))
    assert check(*files, DOMAIN, NOW, as_it_is=True) == {
        "problems": [],
        "warnings": [],
        "pem": "\n".join(files),
    }


@pytest.fixture
def play(run, tmp_path) -> Callable[..., str]:
    """Run the action with these files, then show the number of letters of what it returned; the output."""

    def _play(*files: str, **options: Any) -> str:
        for name, text in zip(("crt", "key"), files, strict=False):
            (tmp_path / name).write_text(text)
        given = {"certificate": str(tmp_path / "crt"), "key": str(tmp_path / "key"), "domain": DOMAIN, **options}
        tasks = [
            {"proxme.tunnel.certificate": given, "register": "checked"},
            {"ansible.builtin.debug": {"msg": "length={{ checked.pem | length }}"}},
        ]
        book = tmp_path / "book.yml"
        book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        found = str(ROOT / ".collections")
        done = run("ansible-playbook", "-vvv", "--check", book, cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=found)
        return done.stdout + done.stderr

    return _play


@pytest.mark.parametrize("on_host", [False, True])
def test_the_key_is_returned_and_never_shown(play, on_host):
    today = datetime.datetime.now(datetime.UTC)
    certificate, secret = issued(KEY, *BOTH, begin=-80, end=10, now=today), pem(KEY)
    output = play(certificate, secret, on_host=on_host)
    assert f"length={len(certificate + secret) + on_host}" in output
    assert "tunnel_certificate_file: The certificate expires on" in " ".join(output.split())
    assert secret.splitlines()[1] not in output
    assert "PRIVATE KEY" not in output


@pytest.mark.parametrize("on_host", [False, True])
def test_what_cannot_be_used_is_said_with_the_operators_variables(play, tmp_path, on_host):
    with pytest.raises(pytest.fail.Exception) as failed:
        play("hello", pem(KEY), on_host=on_host)
    assert f"tunnel_certificate_key_file (\\\"{tmp_path}/key\\\") can't be used. The certificate's file" in str(
        failed.value
    )
    assert "PRIVATE KEY" not in str(failed.value)


@pytest.mark.parametrize(("on_host", "where"), [(False, "control node"), (True, "host")])
def test_a_file_that_is_missing_is_said(play, tmp_path, on_host, where):
    with pytest.raises(pytest.fail.Exception) as failed:
        play(issued(KEY, *BOTH), on_host=on_host)
    said = f'tunnel_certificate_key_file is "{tmp_path}/key", which can\'t be read on the {where} ('
    assert said in str(failed.value).replace("\\", "")
    with pytest.raises(pytest.fail.Exception, match="tunnel_certificate_file is missing"):
        play(certificate="", on_host=on_host)
