# SPDX-License-Identifier: GPL-3.0-or-later
"""What the containers of the host may do: no more than docs/ says that each needs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from world import Host

MIB = 2**20


@dataclass(frozen=True)
class Least:
    """The least that a container runs with.

    Capabilities are those it may have when it starts, user and group those of its processes once it serves; volumes
    are "path" or "path:ro", tmpfs are paths.
    """

    capabilities: frozenset[str]
    user: int
    group: int
    memory: int
    pids: int
    volumes: frozenset[str]
    tmpfs: frozenset[str] = frozenset()
    ports: frozenset[str] = frozenset()


def set_of(words: str) -> frozenset[str]:
    """The words as a set."""
    return frozenset(words.split())


CONTAINERS = {
    "network": Least(
        capabilities=set_of("NET_ADMIN SETUID SETGID SETPCAP"),
        user=65534,
        group=65534,
        memory=64 * MIB,
        pids=16,
        volumes=set_of("/etc/proxme-tunnel:ro"),
        ports=set_of("2222/tcp:2222") | {f"{port}/tcp:{port}" for port in range(30000, 30010)},
    ),
    "resolver": Least(
        capabilities=set_of(""),
        user=65534,
        group=65534,
        memory=128 * MIB,
        pids=64,
        volumes=set_of("/etc/proxme-tunnel:ro"),
    ),
    "sshd": Least(
        capabilities=set_of("SETUID SETGID SYS_CHROOT CHOWN AUDIT_WRITE"),
        user=0,
        group=0,
        memory=1024 * MIB,
        pids=4096,
        volumes=set_of("/etc/proxme-tunnel:ro /var/lib/extrausers:ro /etc/ssh/keys:ro"),
        tmpfs=set_of("/run/sshd"),
    ),
    "nginx": Least(
        capabilities=set_of(""),
        user=33,
        group=33,
        memory=256 * MIB,
        pids=512,
        volumes=set_of("/etc/proxme-tunnel:ro /etc/proxme-tunnel-resolver:ro /var/lib/tunnel /run/tunnel"),
        tmpfs=set_of("/tmp"),
    ),
    "caddy": Least(
        capabilities=set_of("NET_BIND_SERVICE"),
        user=65532,
        group=33,
        memory=512 * MIB,
        pids=256,
        volumes=set_of("/etc/caddy:ro /data /run/tunnel"),
        tmpfs=set_of("/run/caddy /config"),
    ),
    "edge": Least(
        capabilities=set_of(""),
        user=65532,
        group=33,
        memory=256 * MIB,
        pids=512,
        volumes=set_of("/etc/proxme-tunnel:ro /certificates:ro /own:ro /run/tunnel"),
        tmpfs=set_of("/tmp"),
    ),
    "relay": Least(
        capabilities=set_of("SETUID SETGID NET_RAW"),
        user=33,
        group=33,
        memory=256 * MIB,
        pids=512,
        volumes=set_of("/etc/proxme-tunnel:ro /run/tunnel"),
        tmpfs=set_of("/tmp"),
    ),
    "caddy-network": Least(
        capabilities=set_of("NET_ADMIN SETUID SETGID SETPCAP"),
        user=65534,
        group=65534,
        memory=64 * MIB,
        pids=16,
        volumes=set_of("/etc/proxme-tunnel:ro"),
        ports=set_of("80/tcp:80 443/tcp:443 443/udp:443"),
    ),
}
# The bits of the capabilities above, from linux/capability.h.
BITS = {
    "CHOWN": 0,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "AUDIT_WRITE": 29,
}

each = pytest.mark.parametrize("name", CONTAINERS)


def inspect(host: Host, name: str) -> dict:
    """What Docker knows of a container."""
    return json.loads(host.docker("inspect", f"proxme-tunnel-{name}").expect().stdout)[0]


def processes(host: Host, name: str) -> list[dict[str, str]]:
    """/proc/<pid>/status of all processes of a container, its main process first."""
    listed = host.docker("top", f"proxme-tunnel-{name}", "-o", "pid").expect().stdout.split()[1:]
    main = str(host.main_process(f"proxme-tunnel-{name}"))
    statuses = []
    for process in sorted(listed, key=lambda number: number != main):
        # One that has ended meanwhile does not count.
        lines = host.exec("cat", f"/proc/{process}/status").stdout.splitlines()
        if lines:
            statuses.append({key: value.strip() for key, _, value in (line.partition(":") for line in lines)})
    assert statuses
    return statuses


@each
def test_its_root_is_read_only(host: Host, name: str) -> None:
    assert inspect(host, name)["HostConfig"]["ReadonlyRootfs"] is True
    root = host.exec("grep", " / / ", f"/proc/{host.main_process(f'proxme-tunnel-{name}')}/mountinfo").stdout
    root = root or host.exec("awk", '$5 == "/"', f"/proc/{host.main_process(f'proxme-tunnel-{name}')}/mountinfo").stdout
    assert re.search(r" / ro[, ]", root), root


@each
def test_it_has_only_the_capabilities_that_it_needs(host: Host, name: str) -> None:
    config = inspect(host, name)["HostConfig"]
    added = {capability.removeprefix("CAP_") for capability in config["CapAdd"] or []}
    assert config["CapDrop"] == ["ALL"]
    assert added == CONTAINERS[name].capabilities
    assert config["Privileged"] is False
    assert config["Devices"] in (None, [])


@each
def test_its_processes_have_no_others(host: Host, name: str) -> None:
    """What the kernel says. The holders gave all of their own away, for ever."""
    wanted = CONTAINERS[name].capabilities if name not in ("network", "caddy-network") else frozenset()
    most = sum(1 << BITS[capability] for capability in wanted)
    for status in processes(host, name):
        for kind in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[kind], 16) & ~most == 0, (status["Name"], kind, status[kind])
    if name in ("network", "caddy-network"):
        assert int(processes(host, name)[0]["CapBnd"], 16) == 0


@each
def test_it_gains_no_new_privileges(host: Host, name: str) -> None:
    assert "no-new-privileges" in str(inspect(host, name)["HostConfig"]["SecurityOpt"])
    for status in processes(host, name):
        assert status["NoNewPrivs"] == "1", status["Name"]


@each
def test_it_runs_as_its_own_user(host: Host, name: str) -> None:
    """Nobody is root but in sshd's container, where sshd has to become the account, and who starts the relay's workers.

    The root of the relay has no capability over files, nor one that another user could not have.
    """
    least = CONTAINERS[name]
    for status in processes(host, name):
        if name == "sshd" and status["Name"] not in ("serve", "sshd", "sleep"):
            continue
        # Its workers are those who take clients.
        if name == "relay" and (
            status["Name"] != "nginx" or status["Pid"] == str(host.main_process("proxme-tunnel-relay"))
        ):
            continue
        assert set(status["Uid"].split()) == {str(least.user)}, status["Name"]
        assert set(status["Gid"].split()) == {str(least.group)}, status["Name"]


@each
def test_its_memory_and_processes_are_limited(host: Host, name: str) -> None:
    config = inspect(host, name)["HostConfig"]
    assert 0 < config["Memory"] <= CONTAINERS[name].memory
    assert 0 < config["PidsLimit"] <= CONTAINERS[name].pids
    # What Docker was told is what the kernel does.
    limit = host.inside(f"proxme-tunnel-{name}", "cat", "/sys/fs/cgroup/memory.max")
    if limit.code:
        limit = host.inside(f"proxme-tunnel-{name}", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    assert int(limit.expect().stdout) == config["Memory"]


def test_a_connection_of_sshd_has_only_so_many_descriptors(host: Host) -> None:
    limits = host.read(f"/proc/{host.main_process('proxme-tunnel-sshd')}/limits")
    assert re.search(r"^Max open files +1024 +1024 ", limits, re.MULTILINE)


@each
def test_it_sees_only_its_own_files(host: Host, name: str) -> None:
    found = inspect(host, name)
    mounts = {mount["Destination"] + ("" if mount["RW"] else ":ro") for mount in found["Mounts"]}
    assert mounts == CONTAINERS[name].volumes
    assert set(found["HostConfig"].get("Tmpfs") or ()) == CONTAINERS[name].tmpfs
    # From our own folders and the one volume of our own, and never Docker's socket.
    for mount in found["Mounts"]:
        source = mount["Name"] if mount["Type"] == "volume" else mount["Source"]
        assert re.match(r"(/etc/proxme-tunnel|/var/lib/proxme-tunnel)/\w+|proxme-tunnel-sockets$", source), source


@each
def test_its_namespaces_are_its_own(host: Host, name: str) -> None:
    config = inspect(host, name)["HostConfig"]
    assert config["PidMode"] == ""
    assert config["UTSMode"] == ""
    assert config["IpcMode"] in ("private", "")
    if name in ("resolver", "sshd", "nginx", "caddy", "edge", "relay"):
        holder = "caddy-network" if name in ("caddy", "edge") else "network"
        identity = inspect(host, holder)["Id"]
        assert config["NetworkMode"] in (f"container:{identity}", f"container:proxme-tunnel-{holder}")
    else:
        assert config["NetworkMode"] != "host"


@each
def test_only_the_ports_for_people_are_published(host: Host, name: str) -> None:
    bindings = inspect(host, name)["HostConfig"]["PortBindings"] or {}
    published = {f"{port}:{binding['HostPort']}" for port, hosts in bindings.items() for binding in hosts}
    assert published == CONTAINERS[name].ports


@each
def test_its_log_is_rotated(host: Host, name: str) -> None:
    assert inspect(host, name)["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "10m", "max-file": "3"},
    }


@each
def test_it_starts_again_by_itself(host: Host, name: str) -> None:
    assert inspect(host, name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


# Who listens where.
LISTENERS = {
    "network": set(),
    "resolver": {("tcp", "127.0.0.53:53"), ("udp", "127.0.0.53:53")},
    # For the relay as well, at addresses that no tunnel can bind.
    "sshd": {("tcp", "{eth0}:2222"), ("tcp", "169.254.22.1:2222"), ("tcp", "[fd75::22]:2222")},
    "nginx": set(),
    "relay": set(),
}


@pytest.mark.parametrize("name", LISTENERS)
def test_it_listens_where_no_tunnel_can(host: Host, name: str) -> None:
    """Of all loopback addresses only 127.0.0.53 is taken; nginx has no port at all, sshd one on eth0's address."""
    address = host.in_namespace("proxme-tunnel-network", "ip", "-4", "-br", "address", "show", "eth0").expect().stdout
    eth0 = re.search(r"([\d.]+)/", address)[1]
    # What a connection of sshd listens on are tunnels.
    ours = {status["Pid"] for status in processes(host, name) if status["Name"] != "sshd-session"}
    lines = host.in_namespace(f"proxme-tunnel-{name}", "ss", "-Hlntup").expect().stdout.splitlines()
    found = {
        (parts[0], parts[4])
        for parts in (line.split(maxsplit=6) for line in lines)
        if set(re.findall(r"pid=(\d+)", parts[-1])) & ours
    }
    assert found == {(kind, where.format(eth0=eth0)) for kind, where in LISTENERS[name]}


def test_the_sockets_of_nginx_are_for_nginx_and_caddy(host: Host) -> None:
    listed = host.inside("proxme-tunnel-nginx", "stat", "-c", "%a %u %g %n", "/run/tunnel").expect().stdout
    assert listed.split()[:3] == ["770", "33", "33"]
    sockets = host.inside("proxme-tunnel-nginx", "ls", "/run/tunnel").expect().stdout.split()
    assert sorted(sockets) == ["ask.sock", "hidden-tls.sock", "relay", "tls.sock", "visitors.sock"]


def test_the_sockets_of_the_relay_are_for_the_edge_alone(host: Host) -> None:
    """Who dials them says which address a client has."""
    folder = "/run/tunnel/relay"
    listed = host.inside("proxme-tunnel-nginx", "stat", "-c", "%a %u %g", folder).expect().stdout
    assert listed.split() == ["750", "0", "65531"]
    sockets = host.inside("proxme-tunnel-edge", "ls", folder).expect().stdout.split()
    assert sorted(sockets) == ["hidden-ssh.sock", "passthrough.sock", "ssh.sock"]
    for part in ("nginx", "caddy", "sshd"):
        assert host.inside(f"proxme-tunnel-{part}", "sh", "-c", f"cd {folder}").code != 0


# The numbers are those of section 5 of the CIS Docker Benchmark v1.6.0 and v1.8.0. The tests above show 5.4 to 5.6, 5.9
# to 5.11, 5.13, 5.16 to 5.18, 5.21, 5.26, 5.29 and 5.32. What we don't follow:
#   5.7   sshd in a container: it is what this host is for.
#   5.8   privileged ports: 80 and 443 are where visitors come.
#   5.12  CPU shares: all have the same, so none can be starved by another; a host runs nothing else.
#   5.14  published on all interfaces: visitors and clients come by each of them.
#   5.15  not on-failure:5: a tunnel host that has failed five times shall still come back. We have unless-stopped.
#   5.19  ulimits: only sshd's descriptors need one of their own (test_a_connection_of_sshd_has_only_so_many…).
#   5.27  health checks: each ends by itself when it is of no use, and is started again. Docker starts a process in the
#         container for every look, and when its daemon ended amid one, it overlooks the container's end for 30 s.
#   5.23, 5.24, 5.28 are about what people type.


def test_the_engine_is_no_part_of_a_swarm(host: Host) -> None:
    """CIS 5.1."""
    assert host.docker("info", "--format={{.Swarm.LocalNodeState}}").expect().stdout.strip() == "inactive"


@each
def test_docker_confines_it_as_it_does_by_default(host: Host, name: str) -> None:
    """CIS 5.2 (AppArmor), 5.3 (SELinux), 5.22 (seccomp): nothing is switched off. 5.31: no user namespace is shared."""
    config = inspect(host, name)["HostConfig"]
    assert set(config["SecurityOpt"]) <= {"no-new-privileges", "no-new-privileges:true"}
    assert config["UsernsMode"] != "host"
    # The kernel says that Docker's seccomp filter is there.
    assert {status["Seccomp"] for status in processes(host, name)} == {"2"}


@each
def test_its_mounts_do_not_reach_the_host(host: Host, name: str) -> None:
    """CIS 5.20."""
    assert {mount["Propagation"] for mount in inspect(host, name)["Mounts"]} <= {"", "private", "rprivate"}


@each
def test_its_control_group_is_the_engines_choice(host: Host, name: str) -> None:
    """CIS 5.25."""
    assert inspect(host, name)["HostConfig"]["CgroupParent"] == ""


@each
def test_docker_starts_nothing_in_it_by_itself(host: Host, name: str) -> None:
    """CIS 5.27."""
    assert "Health" not in inspect(host, name)["State"]


@each
def test_only_the_holder_is_on_the_default_network(host: Host, name: str) -> None:
    """CIS 5.30. The holder must be: on any other network Docker's own resolver would answer for names."""
    assert ("bridge" in inspect(host, name)["NetworkSettings"]["Networks"]) == (name == "network")
