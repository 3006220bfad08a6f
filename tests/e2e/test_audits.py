# SPDX-License-Identifier: GPL-3.0-or-later
"""What outside judges say of the host: ssh-audit of the ssh port, testssl.sh of the front end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from world import Scenario, Visitor, World

# What ssh-audit objects to, and why it is there all the same: Dropbear has no other MACs ("encrypt-and-MAC").
ACCEPTED = {"hmac-sha2-256", "hmac-sha2-512"}


@pytest.fixture(scope="module")
def judge(scenario: Scenario) -> Iterator[Visitor]:
    """A visitor who has the judges."""
    with World(scenario).with_image("audits").visitor("judge") as judge:
        yield judge


def test_ssh_audit_objects_to_nothing_that_is_not_explained(judge: Visitor, domain: str) -> None:
    # Its test of rates looks for DHEat, an attack by finite-field Diffie-Hellman: what a stranger costs with the two of
    # that kind is in docs/performance.md, and how many connections one address may begin is shown in test_attacks.py.
    # Codes 2 and 3 are for warnings and failures.
    command = ("ssh-audit", "--json", "--skip-rate-test", "--port", "2222", domain)
    report = json.loads(judge.exec(*command).expect(0, 2, 3).stdout)
    assert report["enc"][0]["algorithm"] == "aes128-gcm@openssh.com"
    assert {found["algorithm"] for found in report["key"]} == {"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"}
    finite = [found["algorithm"] for found in report["kex"] if found["algorithm"].startswith("diffie-hellman")]
    assert finite == ["diffie-hellman-group16-sha512", "diffie-hellman-group-exchange-sha256"]
    objections = {
        found["algorithm"]: notes
        for kind in ("kex", "key", "enc", "mac")
        for found in report[kind]
        if (notes := {level: said for level, said in found["notes"].items() if level in ("warn", "fail")})
    }
    wanted = {algorithm: {"warn": ["using encrypt-and-MAC mode"]} for algorithm in ACCEPTED}
    assert objections == wanted
    assert report["cves"] == []


def test_testssl_objects_to_nothing(judge: Visitor, domain: str) -> None:
    """Protocols, kinds of ciphers, forward secrecy and the order of ciphers; all is said on the line of its finding."""
    parts = ("--protocols", "--std", "--fs", "--server-preference")
    command = ("testssl", "--quiet", "--warnings", "batch", *parts, "--jsonfile", "/run/testssl.json", f"{domain}:443")
    judge.exec(*command, timeout=300).expect()
    findings = {found["id"]: found for found in json.loads(judge.read("/run/testssl.json"))}
    objections = {name: found for name, found in findings.items() if found["severity"] not in ("OK", "INFO")}
    # It misses GOST ciphers in its own openssl.
    assert set(objections) <= {"engine_problem"}, objections
    offered = {"TLS1_2": "offered", "TLS1_3": "offered with final", "TLS1": "not offered", "TLS1_1": "not offered"}
    assert {name: findings[name]["finding"] for name in offered} == offered
    assert "X25519MLKEM768" in findings["FS_KEMs"]["finding"]
