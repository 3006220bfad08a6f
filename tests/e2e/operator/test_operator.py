# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator sees: runs that change only what has to change, and refusals that say what to write instead."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playbook import ROOT, Operator, Run
from world import Client, Container, Host, Scenario, Visitor, Web, World, run, until

CONTAINERS = ("network", "resolver", "sshd", "nginx", "caddy-network", "caddy", "edge", "relay")

# What old and hardened machines may have alone, and `tunnel_ssh_algorithms: compatible` adds.
KEY_EXCHANGES = ("ecdh-sha2-nistp256", "ecdh-sha2-nistp521", "diffie-hellman-group14-sha256")

# It stands in the configuration, and in the page that says what is too large.
CHANGED_BY_BODY_LIMIT = [f"/etc/proxme-tunnel/nginx_subdomains/{name}" for name in ("texts.lua", "nginx.conf")]
CHANGED_IN_NGINX = ["/etc/proxme-tunnel/nginx_subdomains/settings.lua", *CHANGED_BY_BODY_LIMIT]
CHANGED_IN_CADDY = ["/etc/proxme-tunnel/caddy_frontend/Caddyfile"]


def identities(host: Host) -> dict[str, str]:
    """Each container's id and start, which tell whether it was touched."""
    return {name: host.started(f"proxme-tunnel-{name}") for name in CONTAINERS}


def alike(scenario: Scenario, folder: pathlib.Path, hosts: dict[str, dict[str, Any]]) -> pathlib.Path:
    """An inventory with hosts that are all the scenario's, each with variables of its own."""
    reached = {"ansible_connection": "community.docker.docker", "ansible_host": scenario.host}
    path = folder / "inventory.json"
    path.write_text(json.dumps({"tunnel": {"hosts": {name: reached | own for name, own in hosts.items()}}}))
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the collection as `ansible-galaxy` builds and installs it."""
    folder = tmp_path_factory.mktemp("installed")
    galaxy = str(pathlib.Path(sys.executable).with_name("ansible-galaxy"))
    build = [galaxy, "collection", "build", "--output-path", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (artifact,) = folder.glob("proxme-tunnel-*.tar.gz")
    install = [galaxy, "collection", "install", "--offline", "--no-deps", "-p", str(folder), str(artifact)]
    subprocess.run(install, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def preview(operator: Operator, installed: pathlib.Path) -> Run:
    """A run of the installed collection with --check and one changed variable."""
    return operator.run(
        "proxme.tunnel.site",
        "--check",
        "--diff",
        variables={"tunnel_body_limit": "7m"},
        folder=installed,
        environment={"ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_PIPELINING": "true"},
    ).expect()


def test_check_says_what_would_change_and_changes_nothing(preview: Run, host: Host) -> None:
    assert preview.changed == CHANGED_BY_BODY_LIMIT
    assert "+    client_max_body_size 7m;" in preview.output
    assert "client_max_body_size 7m;" not in host.read("/etc/proxme-tunnel/nginx_subdomains/nginx.conf")


@pytest.mark.parametrize(
    ("tag", "changed"),
    [
        ("nginx", CHANGED_IN_NGINX),
        ("caddy", CHANGED_IN_CADDY),
        ("accounts", ["/etc/systemd/system/proxme-tunnel-log.service", *CHANGED_IN_NGINX, *CHANGED_IN_CADDY]),
    ],
)
def test_a_tag_is_one_part_and_all_that_it_needs_to_know(tag: str, changed: list[str], operator: Operator) -> None:
    variables = {"tunnel_body_limit": "7m", "tunnel_hsts": 60, "tunnel_log_days": 15}
    assert operator.run(ROOT / "site.yml", "--check", "--tags", tag, variables=variables).expect().changed == changed


def test_a_run_shows_the_fingerprints_of_the_host_keys(preview: Run, host: Host) -> None:
    key = "/etc/ssh/keys/ssh_host_ed25519_key"
    fingerprint = host.inside("proxme-tunnel-sshd", "ssh-keygen", "-lf", key).expect().stdout.split()[1]
    assert fingerprint in preview.output


def test_changed_variables_touch_only_what_depends_on_them_and_drop_no_tunnel(
    operator: Operator, host: Host, client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    variables = {
        "tunnel_acme_email": "other@proxme.test",
        "tunnel_ssh_connections_per_address": 21,
        "tunnel_guest_names": "visitor-*",
        "tunnel_reserved_labels": ["www", "mail"],
        "tunnel_ssh_algorithms": "compatible",
    }
    tunnel = client.tunnel("8081", to=web)
    assert visitor.get(f"https://8081.{domain}/").status == 200

    def exchanges() -> dict[str, bool]:
        """Whether a client that has no other key exchange gets in; -W to nowhere ends it at once."""
        alone = {name: client.ssh("-v", f"-oKexAlgorithms={name}", "-W", "nowhere:1").stderr for name in KEY_EXCHANGES}
        wrong = "no matching key exchange method found"
        assert [said for said in alone.values() if ("Authenticated to" in said) == (wrong in said)] == []
        return {name: wrong not in said for name, said in alone.items()}

    def expect_run(changed: dict[str, Any], *remembered: str) -> None:
        before = identities(host)
        run = operator.run(variables=changed).expect()
        assert run.changed == [
            "/etc/proxme-tunnel/tunnel_network/filter/filter.nft",
            "/etc/proxme-tunnel/tunnel_network/names/dnsdist.conf",
            "tunnel_network : Run the holder of the network namespace: reloaded",
            "tunnel_network : Run the resolver: stopped",
            "tunnel_network : Run the resolver: removed",
            "tunnel_network : Run the resolver: created",
            "tunnel_network : Run the resolver: started",
            *remembered,
            "/etc/proxme-tunnel/sshd_tunnel/accounts/banners",
            "/etc/proxme-tunnel/sshd_tunnel/sshd_config",
            "sshd_tunnel : Run sshd: reloaded",
            "/etc/proxme-tunnel/nginx_subdomains/settings.lua",
            "nginx_subdomains : Run nginx: reloaded",
            "/etc/proxme-tunnel/caddy_frontend/landing/index.html",
            "/etc/proxme-tunnel/caddy_frontend/landing/without-certificate.html",
            "/etc/proxme-tunnel/caddy_frontend/Caddyfile",
            "caddy_frontend : Run Caddy: reloaded",
        ]
        # What was told to read its configuration again is still started again when it ends.
        assert [name for name in CONTAINERS if host.stays_stopped(f"proxme-tunnel-{name}")] == []
        after = identities(host)
        # dnsdist cannot read its configuration again and is replaced; the tunnels do not notice.
        assert {name for name in CONTAINERS if after[name] != before[name]} == {"resolver"}
        assert tunnel.running
        assert visitor.get(f"https://8081.{domain}/").status == 200

    assert not any(exchanges().values())
    try:
        expect_run(variables, "/var/lib/proxme-tunnel/sshd_tunnel/accounts.json")
        assert all(exchanges().values()), exchanges()
    finally:
        # Also after a failure: all later tests are of the scenario's own variables.
        expect_run({})
    assert not any(exchanges().values())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "scheme": ({"tunnel_domain": "https://proxme.test"}, "Write a bare domain in lower case, such as proxme.example"),
    "upper case": ({"tunnel_domain": "Proxme.test"}, "Write a bare domain in lower case"),
    "wildcard domain": ({"tunnel_domain": "*.proxme.test"}, "Write a bare domain in lower case"),
    "misspelt variable": ({"tunnel_domian": "proxme.test"}, "sets tunnel_domian, which nothing reads"),
    "misspelt variable of a role": ({"sshd_tunnel_memry": "2g"}, "sets sshd_tunnel_memry, which nothing reads"),
    "role's variable of before": ({"sshd_tunnel_port": 2200}, "sets sshd_tunnel_port"),
    "misspelt nested option": ({"tunnel_docker_options": {"registry-mirror": []}}, "registry-mirrors"),
    "port out of range": ({"tunnel_ssh_port": 70000}, "Write a port from 1 to 65535"),
    "text for a list": ({"tunnel_blocked_names": "phish"}, "tunnel_blocked_names is text, where a list belongs"),
    "port that is no number": ({"tunnel_ssh_port": "ssh"}, "tunnel_ssh_port"),
    "one port for two things": ({"tunnel_ssh_port": 443}, "also a port for visitors"),
    "every name for guests": ({"tunnel_guest_names": "*"}, "Write a prefix, a hyphen and an asterisk"),
    "two patterns in one": ({"tunnel_guest_names": "guest-* *"}, "Write a prefix, a hyphen and an asterisk"),
    "reserved guest name": ({"tunnel_reserved_labels": ["guest-mail"]}, "begins like that"),
    "reserved label with dot": ({"tunnel_reserved_labels": ["a.b"]}, "Write labels of a-z, 0-9 and single hyphens"),
    "root as the shared account": ({"tunnel_shared_account_name": "root"}, "an account of the system. Write another"),
    "unknown tls": ({"tunnel_tls": "self"}, "must be one of: on_demand, wildcard, both, files, internal, off"),
    "directory without https": ({"tunnel_acme_directory": "http://pebble/dir"}, "Write the https address"),
    "no e-mail address": ({"tunnel_acme_email": "ops"}, "Write an e-mail address"),
    "CA root that is not there": ({"tunnel_acme_ca_root": "/nowhere/root.pem"}, "is no file on the control node"),
    "memory without unit": ({"tunnel_sshd_memory": "1000000"}, "Write a number and m or g"),
    "too little memory": ({"tunnel_minimum_memory": 99999999}, "Use a larger server"),
}


def host_of(case: str) -> str:
    """The inventory's name for a case of REFUSED."""
    return case.replace(" ", "_").replace("'", "")


@pytest.fixture(scope="module")
def refusals(operator: Operator, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run with a host for each case; all of them are the scenario's host, each with its own bad input."""
    good = {"tunnel_domain": scenario.domain}
    hosts = {host_of(case): good | variables for case, (variables, _) in REFUSED.items()} | {"missing_domain": {}}
    inventory = alike(scenario, tmp_path_factory.mktemp("refused"), hosts)
    return operator.run(ROOT / "site.yml", "--forks", "6", inventory=inventory)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_what_to_write_instead(case: str, refusals: Run) -> None:
    assert REFUSED[case][1] in refusals.message_of(host_of(case))


def test_a_missing_domain_is_refused(refusals: Run) -> None:
    assert "tunnel_domain is missing. Write the domain" in refusals.message_of("missing_domain")


def test_bad_input_is_refused_before_anything_changes(refusals: Run) -> None:
    assert refusals.changed == []


def test_what_one_playbook_registers_another_of_the_same_command_does_not_take_for_the_operators(
    operator: Operator,
) -> None:
    """Each looks at the inventory and at the host by itself."""
    playbooks = [ROOT / "playbooks" / f"{name}.yml" for name in ("accounts", "connections", "block", "accounts")]
    run = operator.run(playbooks).expect()
    assert run.changed == []
    assert run.output.count("TASK [proxme.tunnel.tunnel : Check the accounts]") == 3


@pytest.mark.parametrize("listener", ["a program", "a container"])
def test_a_port_in_use_is_refused_with_its_user_named(listener: str, operator: Operator, host: Host) -> None:
    if listener == "a program":
        host.spawn("python3", "-m", "http.server", "2299")
        user = "python3"
    else:
        options = ("--detach", "--rm", "--name=foreign", "--publish=2299:2299", "--entrypoint=sleep")
        host.docker("run", *options, "debian:trixie-slim", "600").expect()
        user = "foreign"
    try:
        run = operator.run(variables={"tunnel_ssh_port": 2299})
    finally:
        if listener == "a program":
            host.exec("pkill", "-f", "http.server 2299").expect()
        else:
            host.docker("rm", "--force", "foreign").expect()
    assert run.code != 0
    assert run.changed == []
    assert "Port 2299 of this host is in use" in run.message
    assert user in run.message


def test_a_range_that_grows_over_a_port_in_use_is_refused(operator: Operator, host: Host) -> None:
    """That the holder has a part of it says nothing of the rest."""
    host.spawn("python3", "-m", "http.server", "30015")
    try:
        run = operator.run(variables={"tunnel_tcp_ports": "30000-30019", "tunnel_allow_disruption": True})
    finally:
        host.exec("pkill", "-f", "http.server 30015").expect()
    assert run.code != 0
    assert run.changed == []
    assert "Port 30000-30019 of this host is in use" in run.message
    assert "python3" in run.message


def test_a_change_of_ports_that_waits_keeps_nobody_from_being_blocked(operator: Operator) -> None:
    run = operator.run(ROOT / "playbooks/block.yml", variables={"tunnel_tcp_ports": "30000-30019"}).expect()
    assert run.changed == []


def test_containers_that_do_not_run_keep_nobody_from_being_blocked(
    operator: Operator, host: Host, visitor: Visitor, domain: str
) -> None:
    stopped = [f"proxme-tunnel-{name}" for name in ("relay", "edge", "caddy", "nginx")]
    host.docker("stop", *stopped).expect()
    try:
        operator.run(ROOT / "playbooks/block.yml", variables={"tunnel_blocked_names": ["guest-phish"]}).expect()
    finally:
        host.docker("start", *reversed(stopped)).expect()
    try:
        url = f"http://guest-phish.{domain}/"
        until("what has started again knows it", lambda: visitor.get(url).status == 410, within=30)
    finally:
        operator.run(ROOT / "playbooks/block.yml").expect()
    assert visitor.get(url).status == 404


def test_port_22_is_refused_while_the_hosts_own_sshd_has_it(operator: Operator, host: Host) -> None:
    # What counts is the program's name in the kernel's table of listeners.
    host.shell("cp /usr/bin/python3 /tmp/sshd").expect()
    host.spawn("/tmp/sshd", "-m", "http.server", "22")
    try:
        run = operator.run(variables={"tunnel_ssh_port": 22})
    finally:
        host.exec("pkill", "-f", "http.server 22").expect()
    assert run.code != 0
    assert "Move the host's own sshd to another port first" in run.message


def test_a_kernel_without_ipv6_is_refused(operator: Operator, host: Host) -> None:
    host.exec("mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6").expect()
    try:
        run = operator.run()
    finally:
        host.exec("umount", "/proc/sys/net/ipv6").expect()
    assert run.code != 0
    assert run.changed == []
    assert "Remove ipv6.disable=1 from the kernel's command line" in run.message


def inventory_of(machine: Container, folder: pathlib.Path) -> pathlib.Path:
    """An inventory that names a machine as the host."""
    inventory = folder / "inventory"
    inventory.write_text(
        "tunnel:\n  hosts:\n    bare:\n      ansible_connection: community.docker.docker\n"
        f"      ansible_host: {machine.name}\n      ansible_user: root\n      tunnel_domain: proxme.test\n"
    )
    return inventory


@pytest.fixture
def bare(world: World, tmp_path: pathlib.Path) -> Iterator[tuple[Client, pathlib.Path]]:
    """A host without an engine, and an inventory that names it."""
    with world.client("bare") as machine:
        yield machine, inventory_of(machine, tmp_path)


@pytest.fixture
def bare_server(scenario: Scenario, tmp_path: pathlib.Path) -> Iterator[tuple[Container, pathlib.Path]]:
    """The same of the image that the scenario's host is of, on which packages can be installed."""
    image = run("docker", "inspect", "--format={{.Config.Image}}", scenario.host).expect().stdout.strip()
    world = World(dataclasses.replace(scenario, images=scenario.images | {"tools": image}))
    machine = Container(world.container("bare-server", command=("sleep", "600")))
    try:
        yield machine, inventory_of(machine, tmp_path)
    finally:
        machine.remove()


def test_an_unknown_distribution_is_refused(operator: Operator, bare: tuple[Client, pathlib.Path]) -> None:
    machine, inventory = bare
    machine.shell("rm -f /etc/debian_version /etc/lsb-release").expect()
    machine.write("/etc/redhat-release", "Fedora release 42 (Adams)\n")
    machine.write("/etc/os-release", 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=42\n')
    run = operator.run(inventory=inventory)
    assert run.code != 0
    assert run.changed == []
    assert "Fedora 42 is not a distribution that this role can install Docker on. Use Debian 12" in run.message


def test_a_disk_too_small_is_refused(operator: Operator, bare: tuple[Client, pathlib.Path]) -> None:
    _, inventory = bare
    run = operator.run(inventory=inventory, variables={"tunnel_minimum_disk": 10**9})
    assert run.code != 0
    assert run.changed == []
    assert "MiB free; the images need 1000000000 MiB" in run.message


def engine_alone(folder: pathlib.Path) -> pathlib.Path:
    """A playbook that does of the site playbook what the role docker_engine does."""
    play = {
        "hosts": "tunnel",
        "become": True,
        "gather_facts": False,
        "roles": ["proxme.tunnel.docker_engine"],
    }
    playbook = folder / "engine.yml"
    playbook.write_text(json.dumps([play]))
    return playbook


def test_an_engine_of_dockers_own_packages_that_is_down_is_not_replaced(
    operator: Operator, bare_server: tuple[Container, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    machine, inventory = bare_server
    preview = operator.run(ROOT / "site.yml", "--check", "--diff", inventory=inventory).expect()
    assert re.search(r"\bdocker[.]io\b", preview.output), "what a bare host gets is not shown"
    package = "Package: docker-ce\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: x\n"
    machine.write("/run/docker-ce", f"{package}Description: x\n\n")
    machine.shell("cat /run/docker-ce >>/var/lib/dpkg/status").expect()
    preview = operator.run(engine_alone(tmp_path), "--check", "--diff", inventory=inventory).expect()
    assert not re.search(r"\bdocker[.]io\b", preview.output)


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_swarm_is_not_told_to_restore_containers(
    state: str, operator: Operator, bare_server: tuple[Container, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """An engine with live-restore would not start in a swarm."""
    machine, inventory = bare_server
    if state == "up":
        machine.write("/usr/local/bin/docker", '#!/bin/sh\n[ "$1" = info ] && echo active\n')
        machine.exec("chmod", "+x", "/usr/local/bin/docker").expect()
    else:
        machine.exec("mkdir", "-p", "/var/lib/docker/swarm").expect()
        machine.write("/var/lib/docker/swarm/docker-state.json", '{"LocalAddr": "192.0.2.1"}')
    preview = operator.run(engine_alone(tmp_path), "--check", "--diff", inventory=inventory).expect()
    assert "This engine is in a swarm" in preview.output
    assert '+    "log-driver": "json-file"' in preview.output
    assert '"live-restore"' not in preview.output


@pytest.fixture
def remapped(host: Host) -> Iterator[None]:
    """A second engine in the place of the host's own, with an empty network, that gives users in containers others."""
    folder, command = "/run/remapped", "/usr/local/bin/docker"
    options = f"--data-root {folder}/data --exec-root {folder}/run --pidfile {folder}/pid --userns-remap default"
    host.exec("mkdir", folder).expect()
    host.spawn("unshare", "--net", "sh", "-c", f"exec dockerd --host unix://{folder}/sock {options} 2>{folder}/log")
    host.write(command, f'#!/bin/sh\nexec /usr/bin/docker --host unix://{folder}/sock "$@"\n')
    host.exec("chmod", "+x", command).expect()
    try:
        until("the second engine answers", lambda: host.docker("version").code == 0, within=20)
        yield
    finally:
        host.exec("rm", command).expect()
        host.shell(f"kill $(cat {folder}/pid)").expect()
        until("it has ended", lambda: host.exec("test", "-e", f"{folder}/pid").code != 0)
        host.shell(f"umount {folder}/data; rm -r {folder}").expect()


@pytest.mark.usefixtures("remapped")
def test_an_engine_that_gives_users_other_numbers_is_refused(operator: Operator) -> None:
    run = operator.run()
    assert run.code != 0
    assert run.changed == []
    assert "Remove userns-remap from /etc/docker/daemon.json" in run.message


def test_nothing_is_removed_while_the_engine_does_not_answer(
    operator: Operator, bare: tuple[Client, pathlib.Path]
) -> None:
    machine, inventory = bare
    machine.write("/usr/local/bin/dockerd", "#!/bin/sh\n")
    machine.exec("chmod", "+x", "/usr/local/bin/dockerd").expect()
    run = operator.run(ROOT / "playbooks/remove.yml", inventory=inventory)
    assert run.code != 0
    assert run.changed == []
    assert "Docker is installed on this host but does not answer" in run.message


def test_an_engine_of_the_operators_own_is_required_where_none_is_installed(
    operator: Operator, bare: tuple[Client, pathlib.Path]
) -> None:
    _, inventory = bare
    run = operator.run(inventory=inventory, variables={"tunnel_install_docker": False})
    assert run.code != 0
    assert run.changed == []
    assert "No Docker engine answers on this host" in run.message
