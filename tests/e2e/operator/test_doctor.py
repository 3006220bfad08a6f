# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/doctor.yml says that all is well where it is, and which fault there is where it is not."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest
from playbook import ROOT, Operator, Run
from world import Client, Host, Scenario, Web, World

CHECK = ROOT / "playbooks/doctor.yml"


@pytest.fixture(scope="module")
def vantage(world: World) -> Iterator[Client]:
    """A machine outside that trusts the scenario's CA; this one here does not know the domain."""
    with world.client("vantage") as machine:
        machine.write("/usr/local/share/ca-certificates/scenario.crt", world.ca.root())
        machine.exec("update-ca-certificates").expect()
        yield machine


@pytest.fixture(scope="module")
def inventory(scenario: Scenario, vantage: Client, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An inventory that has that machine beside the scenario's host."""
    path = tmp_path_factory.mktemp("check") / "inventory.json"
    reached = {"ansible_connection": "community.docker.docker", "ansible_host": vantage.name}
    path.write_text(json.dumps({"all": {"hosts": {"vantage": reached}}}))
    return path


def checked(scenario: Scenario, inventory: pathlib.Path, *options: str, **variables: object) -> Run:
    """A run of the check that looks from the vantage."""
    return Operator(scenario).run(
        CHECK, "-i", str(inventory), *options, variables={"tunnel_doctor_from": "vantage", **variables}
    )


def test_all_is_well(scenario: Scenario, inventory: pathlib.Path, host: Host, domain: str) -> None:
    before = host.containers().keys()
    # With --check, which looks as well and must do the same.
    run = checked(scenario, inventory, "--check").expect()
    assert "PROBLEM" not in run.output
    assert f"A tunnel was opened and visited at https://guest-check.{domain}." in run.output
    assert f"{domain} and names below it lead here ({scenario.host_address})." in run.output
    assert "shows the stored host keys." in run.output
    assert "Ports that answer: 80, 443, 2222." in run.output
    assert "Not tested" not in run.output
    assert "not trusted" not in run.output
    assert run.changed == []
    assert host.containers().keys() == before


def test_all_faults_are_said_in_one_run(scenario: Scenario, inventory: pathlib.Path, host: Host) -> None:
    host.docker("stop", "proxme-tunnel-sshd").expect()
    try:
        run = checked(scenario, inventory, tunnel_https_port=444)
    finally:
        host.docker("start", "proxme-tunnel-sshd").expect()
    assert run.code != 0
    assert run.changed == []
    assert "PROBLEM: The container proxme-tunnel-sshd is exited." in run.output
    assert f"PROBLEM: Port 2222 (ssh) of {scenario.host_address} does not answer" in run.output
    assert f"PROBLEM: Port 444 (https) of {scenario.host_address} does not answer" in run.output
    assert "PROBLEM: A real tunnel did not work" in run.output


def test_rules_of_docker_that_something_has_removed_are_said_and_the_cure_drops_nothing(
    scenario: Scenario, inventory: pathlib.Path, host: Host, client: Client, web: Web
) -> None:
    """What `systemctl restart nftables` does where the operator's file begins with `flush ruleset`."""
    address = client.shell("hostname -i").expect().stdout.split()[0]

    def seen() -> bool:
        """Whether sshd sees the client by its own address."""
        with client.tunnel("8082", to=web):
            return f"[::ffff:{address}]" in shown() or f" {address}:" in shown()

    def shown() -> str:
        return host.inside("proxme-tunnel-sshd", "ss", "-Htn").expect().stdout

    assert seen()
    host.shell("iptables --table nat --flush PREROUTING && iptables --table nat --flush DOCKER").expect()
    before = host.started()
    try:
        assert not seen()
        told = checked(scenario, inventory, tunnel_shared_account=False)
    finally:
        host.exec("systemctl", "restart", "docker").expect()
    assert told.code != 0
    assert (
        "PROBLEM: No rule of the host's packet filter leads these ports to the containers: 80, 443, 2222, "
        in told.output
    )
    assert "Run `systemctl restart docker` on the host" in told.output
    assert host.started() == before
    assert seen()


def test_a_domain_that_leads_elsewhere_is_said(
    scenario: Scenario, inventory: pathlib.Path, vantage: Client, domain: str
) -> None:
    # For the domain alone the hosts file goes before the name server: names below it still lead to the host.
    vantage.shell(f"cp /etc/hosts /run/hosts && echo '{scenario.ca_address} {domain}' >>/etc/hosts").expect()
    try:
        run = checked(scenario, inventory, tunnel_shared_account=False)
    finally:
        vantage.shell("cat /run/hosts >/etc/hosts").expect()
    assert run.code != 0
    assert f"PROBLEM: {domain} leads to {scenario.ca_address}, which is not this host" in run.output
    assert f"PROBLEM: Names below {domain} lead to {scenario.host_address}" in run.output
    assert "Not tested: A real tunnel: the shared account is off." in run.output
