# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/files/judge.py makes of what was seen of a tunnel host, and how the looking itself fails."""

from __future__ import annotations

import base64
import copy
import datetime
import importlib.util
import pathlib
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = pathlib.Path(__file__).resolve().parents[2]


def loaded(name: str) -> ModuleType:
    """A script of playbooks/files, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"playbooks/files/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


judge, outside = loaded("judge"), loaded("look_from_outside")

DOMAIN, ADDRESS = "proxme.example.com", "192.0.2.10"
NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
KEY, OTHER = (f"ssh-ed25519 {base64.b64encode(text).decode()}" for text in (b"stored", b"another"))
GIB = 1024**3


def issued(begin: int, end: int) -> str:
    """A certificate that is valid from `begin` to `end` days from now."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW + datetime.timedelta(begin))
    builder = builder.not_valid_after(NOW + datetime.timedelta(end))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def well() -> dict[str, Any]:
    """What is seen where all is well."""
    container = {"state": "running", "created": "2026-11-01T00:00:00Z", "image": "an-image"}
    ports = {"ssh": 2222, "http": 80, "https": 443}
    return {
        "settings": {"domain": DOMAIN, "tls": "on_demand", "certbot": False, "listen": "", "own_authority": False},
        "before": NOW.timestamp() - 2,
        "after": NOW.timestamp(),
        "host": {
            "time": NOW.timestamp() - 1,
            "addresses": [ADDRESS],
            "containers": {
                f"proxme-tunnel-{name}": dict(container) for name in ("pod", "front", "names", "sshd", "nginx", "caddy")
            },
            "engine": "",
            "keys": [KEY],
            "certificates": {},
            "disks": {"/var/lib/proxme-tunnel": [10 * GIB, 20 * GIB]},
            "memory": [GIB, 2 * GIB],
            "listener": "",
        },
        "outside": {
            "addresses": {"domain": [ADDRESS], "below": [ADDRESS], "inventory": []},
            "answers": [{"address": ADDRESS, "port": ports[kind], "for": kind, "said": ""} for kind in ports],
            "keys": {ADDRESS: [KEY]},
            "certificate": {"pem": issued(-10, 80), "distrust": ""},
            "tunnel": {"state": "works", "said": f"https://guest-check.{DOMAIN}"},
        },
    }


def test_where_all_is_well_nothing_is_said_to_be_wrong():
    report = judge.judge(**well())
    assert (report["problems"], report["warnings"], report["untested"]) == ([], [], [])
    assert len(report["fine"]) == 10


def put(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    """A change of what is seen."""

    def _put(seen: dict[str, Any]) -> None:
        for step in path[:-1]:
            seen = seen[step]
        seen[path[-1]] = value

    return _put


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (put([], "outside", "addresses", "domain"), "problems", f"{DOMAIN} has no address. Create A"),
        (put([], "outside", "addresses", "below"), "problems", f"Names below {DOMAIN} have no address"),
        (put(["192.0.2.99"], "outside", "addresses", "below"), "problems", "lead to 192.0.2.99, the domain itself to"),
        (
            put([{"address": ADDRESS, "port": 80, "for": "http", "said": "timed out"}], "outside", "answers"),
            "problems",
            f"Port 80 (http) of {ADDRESS} does not answer: timed out. Open it in every firewall",
        ),
        (
            put([{"address": "::1", "port": 80, "for": "http", "said": "untested: no IPv6"}], "outside", "answers"),
            "untested",
            "Port 80 (http) of ::1: no IPv6.",
        ),
        (put("no answer (refused)", "host", "listener"), "problems", "The plain listener at"),
        (put({ADDRESS: [OTHER]}, "outside", "keys"), "problems", f"shows the host key {judge.fingerprint(OTHER)}"),
        (put({ADDRESS: []}, "outside", "keys"), "untested", "showed none"),
        (put({}, "outside", "keys"), "untested", "no ssh-keyscan"),
        (put([], "host", "keys"), "problems", "There are no host keys"),
        (put("", "outside", "certificate", "pem"), "problems", f"Visitors of https://{DOMAIN} get no certificate"),
        (put(issued(-91, -1), "outside", "certificate", "pem"), "problems", "has expired 1 days ago"),
        (put(issued(-80, 10), "outside", "certificate", "pem"), "warnings", "has 10 days left of 90"),
        (put("unknown authority", "outside", "certificate", "distrust"), "problems", "not trusted: unknown authority"),
        (put({"/own/operator.pem": issued(-91, -3)}, "host", "certificates"), "problems", "operator.pem has expired 3"),
        (put({"state": "fails", "said": "HTTP 404"}, "outside", "tunnel"), "problems", "did not work: HTTP 404"),
        (put({"state": "untested", "said": "off."}, "outside", "tunnel"), "untested", "A real tunnel: off."),
        (put(NOW.timestamp() + 60, "host", "time"), "problems", "differ by 60 s"),
        (put(NOW.timestamp() - 62, "host", "time"), "problems", "differ by 60 s"),
        (put({"/data": [GIB, 20 * GIB]}, "host", "disks"), "warnings", "/data has 1024 MiB free"),
        (put({"/data": [1024**2, 20 * GIB]}, "host", "disks"), "problems", "/data has 1 MiB free"),
        (put([1024**2, GIB], "host", "memory"), "warnings", "1 MiB of 1024 MiB memory are left"),
        (put("no such file", "host", "engine"), "problems", "Docker does not answer: no such file"),
        (put({}, "host", "containers"), "problems", "The container proxme-tunnel-pod is missing"),
        (
            put("exited", "host", "containers", "proxme-tunnel-sshd", "state"),
            "problems",
            "proxme-tunnel-sshd is exited",
        ),
        (
            put("2026-01-01T00:00:00Z", "host", "containers", "proxme-tunnel-caddy", "created"),
            "warnings",
            "The image an-image was built 327 days ago",
        ),
    ],
)
def test_each_fault_is_said(change, kind, said):
    seen = well()
    change(seen)
    report = judge.judge(**seen)
    assert any(said in sentence for sentence in report[kind]), report


def test_all_faults_are_said_at_once():
    seen = well()
    put("exited", "host", "containers", "proxme-tunnel-sshd", "state")(seen)
    put(issued(-91, -1), "outside", "certificate", "pem")(seen)
    put([1024**2, GIB], "host", "memory")(seen)
    report = judge.judge(**seen)
    assert (len(report["problems"]), len(report["warnings"])) == (2, 1)


def test_an_address_is_the_hosts_where_its_host_keys_say_so():
    seen = well()
    seen["host"]["addresses"] = ["10.0.0.5"]
    assert judge.judge(**copy.deepcopy(seen))["problems"] == [], "behind a NAT"
    seen["outside"]["keys"] = {}
    assert f"{DOMAIN} leads to {ADDRESS}, which is not this host (10.0.0.5)" in judge.judge(**seen)["problems"][0]


def test_a_laboratorys_authority_need_not_be_trusted():
    seen = well()
    seen["settings"]["own_authority"] = True
    seen["outside"]["certificate"]["distrust"] = "self-signed certificate in certificate chain"
    report = judge.judge(**seen)
    assert report["problems"] == []
    assert "Its authority is not a public one." in report["warnings"][0]


def test_a_closed_port_and_another_program_are_told_from_an_ssh_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in outside.answer("127.0.0.1", port, "ssh", DOMAIN)
    with outside.web_service(b"hello") as port:
        assert outside.answer("127.0.0.1", port, "http", DOMAIN) == ""
        assert outside.answer("127.0.0.1", port, "https", DOMAIN) != ""


def test_without_an_account_no_tunnel_is_tried():
    given = {"account": "", "why": "the shared account is off."}
    assert outside.tunnel(given) == {"state": "untested", "said": "the shared account is off."}
