# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `host`: what it tells of a host, and what it refuses."""

from __future__ import annotations

import json

import pytest
from stand_in import StandIn

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
SSH = {"port": 2222, "variable": "tunnel_ssh_port", "container": "proxme-tunnel-network"}
RANGE = {"first": 30000, "last": 30019, "variable": "tunnel_tcp_ports", "container": "proxme-tunnel-network"}
HTTP3 = {"port": 443, "protocol": "udp", "variable": "tunnel_https_port", "container": "proxme-tunnel-caddy-network"}
POD = {
    "Name": "/proxme-tunnel-network",
    "Image": "sha256:0123",
    "State": {"Status": "running"},
    "Config": {"Image": "proxme-tunnel/holder:0123456789ab", "Labels": {"proxme-tunnel": "holder"}},
    "HostConfig": {
        "PortBindings": {
            "30000/tcp": [{"HostIp": "", "HostPort": "30000"}],
            "2222/tcp": [{"HostIp": "", "HostPort": "2222"}],
        }
    },
    "NetworkSettings": {
        "Ports": {
            "2222/tcp": [{"HostIp": "0.0.0.0", "HostPort": "2222"}, {"HostIp": "::", "HostPort": "2222"}],
            "30000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "30000"}],
            "80/tcp": None,
        }
    },
}


@pytest.fixture
def host(tmp_path, monkeypatch) -> StandIn:
    """A bare Debian host with iproute2."""
    host = StandIn("host", tmp_path, monkeypatch)
    host.write("etc/os-release", DEBIAN)
    host.write("proc/meminfo", "MemTotal:        1024000 kB\nMemFree:          1000 kB\n")
    host.write("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n")
    (host.root / "var/lib").mkdir(parents=True)
    host.answer("ss")
    host.answer("dpkg-query", out="installed ca-certificates\nnot-installed docker.io\nconfig-files iptables\n", code=1)
    return host


@pytest.fixture
def served(host) -> StandIn:
    """The same with an engine that has nothing on it."""
    host.install("dockerd")
    host.answer("docker", "info", "inactive\n20.10.24+dfsg1\n")
    for nothing in ("ps", "images", "volume ls", "network ls"):
        host.answer("docker", nothing)
    return host


@pytest.fixture
def tunnel_host(served) -> StandIn:
    """The same with our holder on it, and another container."""
    lines = [
        "a1\tproxme-tunnel-network\t0.0.0.0:2222->2222/tcp, :::2222->2222/tcp, 0.0.0.0:30000->30000/tcp",
        "b2\tforeign,other/alias\t0.0.0.0:443->443/udp, [::]:8080-8089->80-89/tcp, 9000/tcp",
    ]
    served.answer("docker", "ps", "\n".join(lines) + "\n")
    served.answer("docker", "container inspect a1", json.dumps([POD]))
    return served


def listening(host: StandIn, *lines: str) -> None:
    """Let these be the lines of `ss`."""
    host.answer("ss", out="".join(f"{line}\n" for line in lines))


def test_a_host_without_an_engine_is_told(host, capsys):
    told = host.run(capsys, install=True)
    assert told["engine"] == {
        "answers": False,
        "version": "",
        "error": "there is no program docker",
        "installed": False,
        "swarm": False,
        "ours": False,
    }
    assert told["distribution"] == {"id": "debian", "version": "12"}
    assert (told["memory"], told["ipv6"], told["systemd"], told["certbot"]) == (1000, True, False, False)
    assert told["packages"] == ["ca-certificates"]
    assert told["missing"] == ["docker.io", "iptables"]
    assert (told["containers"], told["accounts"], told["changed"]) == ({}, {}, False)


def test_a_tunnel_host_is_told_with_four_processes(tunnel_host, capsys):
    tunnel_host.write("etc/docker/daemon.json", '{"debug": true}')
    tunnel_host.write("etc/proxme-tunnel/docker_engine/options.json", "{}")
    tunnel_host.write("etc/proxme-tunnel/certbot_wildcard/x", "")
    tunnel_host.write("var/lib/proxme-tunnel/sshd_tunnel/accounts.json", '{"uids": {"alice": 7}}')
    (tunnel_host.root / "run/systemd/system").mkdir(parents=True)
    told = tunnel_host.run(capsys, ports=[SSH, RANGE], minimum_memory=400, minimum_disk=10**9)
    assert told["engine"]["answers"]
    assert told["engine"]["ours"]
    assert told["engine"]["version"] == "20.10.24+dfsg1"
    assert told["containers"] == {
        "proxme-tunnel-network": {
            "state": "running",
            "image": "proxme-tunnel/holder:0123456789ab",
            "image_id": "sha256:0123",
            "labels": {"proxme-tunnel": "holder"},
            "ports": ["2222/tcp", "30000/tcp"],
        }
    }
    assert told["daemon_options"] == {"debug": True}
    assert told["accounts"] == {"uids": {"alice": 7}}
    assert (told["systemd"], told["certbot"], told["missing"], told["problems"]) == (True, True, [], [])
    assert len(tunnel_host.calls()) == 4


@pytest.mark.parametrize("what", ["images", "volume ls", "network ls"])
def test_what_is_left_of_ours_on_an_engine_is_seen(what, served, capsys):
    assert not served.run(capsys)["engine"]["ours"]
    served.answer("docker", what, "1234\n")
    assert served.run(capsys)["engine"]["ours"]


def test_docker_cli_is_a_package_of_its_own_from_debian_13_on(host, capsys):
    host.write("etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    assert "docker-cli" in host.run(capsys, install=True)["missing"]
    host.write("etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\n')
    assert "docker-cli" not in host.run(capsys, install=True)["missing"]


def test_an_engine_of_dockers_own_packages_that_is_down_is_not_replaced(host, capsys):
    host.answer("dpkg-query", out="installed docker-ce\n", code=1)
    assert host.run(capsys, install=True)["missing"] == []


@pytest.mark.parametrize(
    ("release", "named"),
    [
        ('NAME="Fedora Linux"\nID=fedora\nVERSION_ID=42\n', "Fedora 42"),
        ('ID=debian\nVERSION_ID="11"\n', "Debian 11"),
        ('ID=ubuntu\nVERSION_ID="20.04"\n', "Ubuntu 20.04"),
        ("ID=debian\n", "Debian"),
        ("", "This"),
    ],
)
def test_an_unknown_distribution_is_refused(release, named, host, capsys):
    host.write("etc/os-release", release)
    message = host.run(capsys, install=True)["msg"]
    assert message.startswith(f"{named} is not a distribution that this role can install Docker on. Use Debian 12")
    assert "tunnel_install_docker: false" in message


def test_an_engine_that_answers_is_used_on_any_distribution(served, capsys):
    served.write("etc/os-release", "ID=fedora\nVERSION_ID=42\n")
    assert served.run(capsys, install=True)["problems"] == []


def test_an_engine_is_required_where_none_is_installed(host, capsys):
    message = host.run(capsys)["msg"]
    assert message.startswith("No Docker engine answers on this host (there is no program docker). Start it, or let")
    assert "tunnel_install_docker: true" in message
    assert host.run(capsys, check=True)["problems"] == []


@pytest.mark.parametrize(("code", "out"), [(0, "\n\n"), (1, ""), (64, "")])
def test_an_engine_that_does_not_answer_is_told_with_its_reason(code, out, host, capsys):
    """What `docker info` does without an engine depends on its version."""
    host.install("dockerd")
    host.answer("docker", "info", out, code, "template: :1:2: nil pointer")
    host.answer("docker", "version", "", 1, "Cannot connect to the Docker daemon.\n")
    told = host.run(capsys, refuse=False)
    assert not told["engine"]["answers"]
    assert told["engine"]["installed"]
    assert told["engine"]["error"] == "Cannot connect to the Docker daemon."
    assert "(Cannot connect to the Docker daemon.)" in told["problems"][0]


@pytest.mark.parametrize(("version", "refused"), [("19.03.15", True), ("20.10.24+dfsg1", False), ("28.2.2", False)])
def test_an_engine_that_is_too_old_is_refused(version, refused, served, capsys):
    served.answer("docker", "info", f"inactive\n{version}\n")
    problems = served.run(capsys, refuse=False, install=True)["problems"]
    assert problems == (
        [f"Docker {version} is too old; the tunnel host needs 20.10 or newer. Upgrade the engine."] * refused
    )


def test_a_swarm_is_seen_whether_the_engine_answers_or_not(host, capsys):
    host.write("var/lib/docker/swarm/docker-state.json", "{}")
    assert host.run(capsys, install=True)["engine"]["swarm"]
    host.write("var/lib/docker/swarm/docker-state.json", "")
    assert not host.run(capsys, install=True)["engine"]["swarm"]
    host.answer("docker", "info", "active\n28.2.2\n")
    for nothing in ("ps", "images", "volume ls", "network ls"):
        host.answer("docker", nothing)
    assert host.run(capsys)["engine"]["swarm"]


def test_too_little_memory_and_disk_and_no_ipv6_are_refused_in_one_message(host, capsys):
    (host.root / "proc/sys/net/ipv6/conf/all/disable_ipv6").unlink()
    told = host.run(capsys, install=True, minimum_memory=1001, minimum_disk=10**9)
    assert told["failed"]
    assert "This host has 1000 MiB of memory; the tunnel host needs 1001 MiB. Use a larger server" in told["msg"]
    assert "lower tunnel_minimum_memory" in told["msg"]
    assert "MiB free; the images need 1000000000 MiB" in told["msg"]
    assert "lower tunnel_minimum_disk" in told["msg"]
    assert "Remove ipv6.disable=1 from the kernel's command line" in told["msg"]


def test_images_of_ours_need_no_room_any_more(served, capsys):
    assert served.run(capsys, refuse=False, minimum_disk=10**9)["problems"] != []
    served.answer("docker", "images --filter label=proxme-tunnel", "1234\n")
    assert served.run(capsys, refuse=False, minimum_disk=10**9)["problems"] == []


def test_a_port_that_a_program_has_is_refused_with_its_name(host, capsys):
    listening(host, 'tcp LISTEN 0 5 192.0.2.7:2222 0.0.0.0:* users:(("python3",pid=7,fd=3),("python3",pid=7,fd=4))')
    assert host.run(capsys, install=True, ports=[SSH])["msg"] == (
        "Port 2222 of this host is in use: python3 (process 7) at 192.0.2.7:2222. Stop what uses it, or choose another "
        "port (tunnel_ssh_port)."
    )


def test_the_hosts_own_sshd_is_to_be_moved(host, capsys):
    listening(host, 'tcp LISTEN 0 128 [::]:2222 [::]:* users:(("sshd",pid=7,fd=3),("systemd",pid=1,fd=9))')
    message = host.run(capsys, install=True, ports=[SSH])["msg"]
    assert "sshd (process 7) and systemd (process 1) at [::]:2222. Move the host's own sshd to another port" in message


def test_what_the_holder_publishes_is_not_in_use(tunnel_host, capsys):
    proxy = 'users:(("docker-proxy",pid=7,fd=4))'
    own = [f"tcp LISTEN 0 9 {address}:2222 *:* {proxy}" for address in ("0.0.0.0", "[::]")]
    listening(tunnel_host, *own, f"tcp LISTEN 0 9 0.0.0.0:30000 0.0.0.0:* {proxy}", "udp UNCONN 0 0 0.0.0.0:2222 *:*")
    assert tunnel_host.run(capsys, ports=[SSH, RANGE])["problems"] == []


def test_a_range_that_grows_over_a_port_in_use_is_refused(tunnel_host, capsys):
    """That the holder has a part of it says nothing of the rest."""
    listening(tunnel_host, "tcp LISTEN 0 9 0.0.0.0:30000 0.0.0.0:*", "tcp LISTEN 0 9 *:30015 *:*")
    message = tunnel_host.run(capsys, ports=[SSH, RANGE])["msg"]
    assert message.startswith("Port 30000-30019 of this host is in use: an unnamed program at *:30015. Stop")
    assert "(tunnel_tcp_ports)" in message


@pytest.mark.parametrize(
    ("port", "user"),
    [
        (HTTP3, "Port 443/udp of this host is in use: the container foreign."),
        (HTTP3 | {"protocol": "tcp"}, ""),
        (HTTP3 | {"port": 8085, "protocol": "tcp"}, "Port 8085 of this host is in use: the container foreign."),
        (HTTP3 | {"port": 9000, "protocol": "tcp"}, ""),
        (
            SSH | {"container": "proxme-tunnel-caddy-network"},
            "2222 of this host is in use: the container proxme-tunnel-network.",
        ),
    ],
)
def test_a_port_that_another_container_publishes_is_refused(port, user, tunnel_host, capsys):
    problems = tunnel_host.run(capsys, ports=[port], refuse=False)["problems"]
    assert user in " ".join(problems)
    assert bool(problems) == bool(user)


def test_a_host_without_ss_is_refused(host, capsys):
    (host.programs / "ss").unlink()
    assert "Install the package iproute2" in host.run(capsys, install=True, ports=[SSH])["msg"]


def test_nothing_is_removed_while_the_engine_does_not_answer(host, capsys):
    assert host.run(capsys, remove=True)["problems"] == []
    host.install("dockerd")
    message = host.run(capsys, remove=True, minimum_memory=10**6)["msg"]
    assert message.startswith("Docker is installed on this host but does not answer (there is no program docker), so")
    assert "memory" not in message


@pytest.mark.parametrize(
    "path", ["etc/docker/daemon.json", "var/lib/proxme-tunnel/sshd_tunnel/accounts.json"], ids=["options", "accounts"]
)
def test_a_file_that_cannot_be_read_is_refused_and_not_taken_for_empty(path, served, capsys):
    served.write(path, "{")
    told = served.run(capsys, refuse=False)
    assert told["failed"]
    assert "can't be read as JSON" in told["msg"]
    assert path in told["msg"]
    assert served.run(capsys, remove=True)["problems"] == []
    served.write(path, "[]")
    assert "holds no JSON object" in served.run(capsys)["msg"]


def test_an_engine_that_does_not_tell_its_containers_is_an_error(served, capsys):
    served.answer("docker", "ps", "", 1, "the engine went away")
    assert served.run(capsys, remove=True)["failed"]


def info(host: StandIn, **said: object) -> None:
    """Let this be what `docker info` shows beside the version."""
    host.answer("docker", "info", f"inactive\n28.2.2\n{json.dumps(said)}\n")


@pytest.mark.parametrize(
    ("said", "options", "sentence"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}, {}, "Remove userns-remap from /etc/"),
        ({}, {"userns-remap": "default"}, "Remove userns-remap from /etc/docker/daemon.json"),
        ({"SecurityOptions": ["name=rootless", "name=userns"]}, {}, "This Docker is rootless: it may not open ports"),
        ({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, "This Docker comes from snap, and does not"),
        ({}, {"bridge": "none"}, 'This Docker has no default network ("bridge": "none" in /etc/docker/daemon.json)'),
        ({"IPv4Forwarding": False}, {}, "then type sysctl net.ipv4.ip_forward=1."),
        ({}, {"iptables": False}, "no rules for the packet filter (iptables: false in /etc/docker/daemon.json)"),
        ({}, {"iptables": False, "ip-masq": False}, "(iptables and ip-masq: false in /etc/docker/daemon.json)"),
        ({"DefaultRuntime": "runsc"}, {}, 'Write "default-runtime": "runc" there and restart Docker (systemctl'),
        ({}, {"default-runtime": "kata-runtime"}, "Docker runs containers by kata-runtime (default-runtime in"),
    ],
)
def test_a_setup_of_docker_that_cannot_work_is_refused(said, options, sentence, served, capsys):
    info(served, **said)
    served.write("etc/docker/daemon.json", json.dumps(options))
    served.answer("iptables-save", "-t nat", "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n")
    told = served.run(capsys)
    assert told["failed"]
    assert sentence in told["msg"]
    assert served.run(capsys, remove=True)["problems"] == []


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns", "name=apparmor"]}, {}),
        (
            {"DockerRootDir": "/srv/docker", "IPv4Forwarding": True, "DefaultRuntime": "crun"},
            {"data-root": "/srv/docker"},
        ),
        ({}, {"icc": False, "userland-proxy": False, "live-restore": False, "log-driver": "none"}),
        ({}, {"ipv6": True, "bridge": "br0", "default-runtime": "nvidia", "firewall-backend": "nftables"}),
    ],
)
def test_other_setups_of_docker_are_taken(said, options, served, capsys):
    info(served, **said)
    served.write("etc/docker/daemon.json", json.dumps(options))
    served.answer("iptables-save")
    assert served.run(capsys)["problems"] == []


def test_who_writes_the_rules_himself_may_tell_docker_not_to(served, capsys):
    served.write("etc/docker/daemon.json", '{"iptables": false}')
    assert served.run(capsys)["problems"] == [], "without a program that shows the rules nothing is claimed"
    served.answer("iptables-save", "-t nat", "-A POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE\n")
    assert served.run(capsys)["problems"] == []


def test_podman_in_place_of_docker_is_refused_and_not_replaced(host, capsys):
    host.answer("docker", "info", "", 125, "can't evaluate field Swarm in type *define.Info")
    host.answer("docker", "--version", "podman version 5.4.2\n")
    for install in (True, False):
        told = host.run(capsys, install=install)
        assert told["msg"].startswith("The command docker of this host is podman's (the package podman-docker)")


def test_the_disk_is_asked_that_docker_is_on(served, capsys):
    served.write("etc/docker/daemon.json", '{"data-root": "/srv/docker"}')
    message = served.run(capsys, minimum_disk=10**9)["msg"]
    assert message.startswith("/srv/docker has ")
    info(served, DockerRootDir="/mnt/large/docker")
    assert served.run(capsys, minimum_disk=10**9)["msg"].startswith("/mnt/large/docker has ")


def test_the_disk_of_an_engine_to_come_is_asked(host, capsys):
    assert host.run(capsys, install=True, minimum_disk=10**9)["msg"].startswith("/var/lib/docker has ")
    assert host.run(capsys, install=True, minimum_disk=10**9, docker_options={"data-root": "/srv/d"})["msg"].startswith(
        "/srv/d has "
    )


@pytest.mark.parametrize(("version", "refused"), [("20.10.24+dfsg1", True), ("23.0.1", False), ("28.2.2", False)])
def test_an_engine_that_would_not_start_with_proxies_gets_none(version, refused, served, capsys):
    served.answer("docker", "info", f"inactive\n{version}\n")
    problems = served.run(capsys, proxies=True, refuse=False)["problems"]
    assert [problem[:66] for problem in problems] == [
        f"Docker {version} would not start with proxies in its daemon.json"[:66]
    ] * refused
    assert served.run(capsys)["problems"] == []


def test_the_engine_of_debian_12_would_not_start_with_proxies(host, capsys):
    assert "would not start with proxies" in host.run(capsys, install=True, proxies=True)["msg"]
    host.write("etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    assert host.run(capsys, install=True, proxies=True)["problems"] == []


def test_a_proxys_password_is_not_told(served, capsys):
    proxies = '{"debug": true, "proxies": {"http-proxy": "http://user:hidden@proxy.example.com:3128"}}'
    served.write("etc/docker/daemon.json", proxies)
    served.write("etc/proxme-tunnel/docker_engine/options.json", proxies)
    told = served.run(capsys)
    assert told["daemon_options"] == told["our_daemon_options"] == {"debug": True}
    assert "hidden" not in json.dumps(told)


def test_the_buffers_that_the_kernel_has_in_force_are_told(served, capsys):
    assert served.run(capsys)["udp_buffers"] == 0
    served.write("proc/sys/net/core/rmem_max", "7500000\n")
    served.write("proc/sys/net/core/wmem_max", "212992\n")
    assert served.run(capsys)["udp_buffers"] == 212992
