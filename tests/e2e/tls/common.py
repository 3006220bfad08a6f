# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of certificates have in common."""

from __future__ import annotations

from typing import Any

import yaml
from playbook import CLEARED, ROOT, Operator, Run
from world import Host, Scenario


def refused(run: Run, said: str) -> None:
    """Expect that a run failed with these words before it changed anything."""
    assert run.code != 0
    assert run.changed == []
    assert said in run.message


def idempotent(operator: Operator, variables: dict[str, Any]) -> None:
    """Expect that a second run changes nothing. It may remove a Caddy that the first one has replaced."""
    assert set(operator.run(variables=variables).expect().changed) <= CLEARED


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
