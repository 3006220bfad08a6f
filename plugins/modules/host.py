#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks at a host, and refuses one that can't become a tunnel host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host
short_description: Looks at a host before it becomes a tunnel host
description:
  - Tells in one call all that the roles have to know of a host, and changes nothing.
  - Refuses a host that can't become a tunnel host, with one message that holds all reasons.
version_added: 0.1.0
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
options:
  ports:
    description: Ports of the host that must be free, or held by the container of ours that is to hold them.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port. Either this, or O(ports[].first) and O(ports[].last).
        type: int
      first:
        description: First port of a range.
        type: int
      last:
        description: Last port of a range.
        type: int
      protocol:
        description: Protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      variable:
        description: The operator's variable that the port comes from.
        type: str
        required: true
      container:
        description: Name of the container that may hold it.
        type: str
        required: true
  minimum_memory:
    description: Memory that the host must have, in MiB.
    type: int
    default: 0
  minimum_disk:
    description: Free space that Docker's folder must have, in MiB. Not asked for once images of ours are there.
    type: int
    default: 0
  docker_options:
    description: Options for C(daemon.json) that an engine is going to have, without its proxies.
    type: dict
    default: {}
  proxies:
    description: Whether C(daemon.json) is to name proxies, which only newer engines know.
    type: bool
    default: false
  install:
    description:
      - Whether Docker may be installed where no engine answers, for which the distribution must be a known one.
      - With V(false) an engine must answer, except in check mode.
    type: bool
    default: false
  remove:
    description:
      - Whether the tunnel host is to be removed. Then all that is refused is an engine that is there but does not
        answer, as what it holds could not be removed.
    type: bool
    default: false
  refuse:
    description: Whether to fail where there is something to refuse. With V(false) it is only told (RV(problems)).
    type: bool
    default: true
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Look at the host
  proxme.tunnel.host:
    ports:
      - port: 2222
        variable: tunnel_ssh_port
        container: proxme-tunnel-network
      - first: 30000
        last: 30009
        variable: tunnel_tcp_ports
        container: proxme-tunnel-network
      - port: 443
        protocol: udp
        variable: tunnel_https_port
        container: proxme-tunnel-caddy-network
    minimum_memory: 400
    minimum_disk: 2000
    install: true
  register: tunnel_host
"""

RETURN = r"""
problems:
  description: What there is to refuse, a sentence each.
  returned: success
  type: list
  elements: str
engine:
  description: The Docker engine.
  returned: success
  type: dict
  contains:
    answers:
      description: Whether it answers.
      type: bool
    version:
      description: Its version, empty where it does not answer.
      type: str
    error:
      description: Why it does not answer.
      type: str
    installed:
      description: Whether the program dockerd is there.
      type: bool
    swarm:
      description: Whether it is in a swarm.
      type: bool
    ours:
      description: Whether a container, image, volume or network of ours is on it.
      type: bool
distribution:
  description: The distribution, as C(/etc/os-release) has it.
  returned: success
  type: dict
  contains:
    id:
      description: Its name, such as V(debian).
      type: str
    version:
      description: Its version, such as V(12).
      type: str
systemd:
  description: Whether systemd runs.
  returned: success
  type: bool
memory:
  description: The host's memory, in MiB.
  returned: success
  type: int
disk:
  description: Space that is free where Docker's folder is, or is going to be, in MiB.
  returned: success
  type: int
ipv6:
  description: Whether the kernel has IPv6.
  returned: success
  type: bool
udp_buffers:
  description: The largest buffer that the kernel lets a UDP socket have, in bytes. V(0) where it does not tell.
  returned: success
  type: int
containers:
  description: Our containers by their names.
  returned: success
  type: dict
  sample:
    proxme-tunnel-network:
      state: running
      image: proxme-tunnel/holder:0123456789ab
      image_id: sha256:0123456789abcdef
      labels: {proxme-tunnel: holder}
      ports: [2222/tcp]
packages:
  description:
    - Those of the packages that an engine is installed from, and of Docker's own, that are installed.
    - Not asked for, and empty, where an engine answers.
  returned: success
  type: list
  elements: str
missing:
  description: Packages that have to be installed. None where an engine answers, or is installed by Docker's own.
  returned: success
  type: list
  elements: str
daemon_options:
  description: What C(/etc/docker/daemon.json) holds, but for its proxies, which may have a password.
  returned: success
  type: dict
our_daemon_options:
  description: What of it came from here.
  returned: success
  type: dict
accounts:
  description: What is remembered of the accounts.
  returned: success
  type: dict
certbot:
  description: Whether something of the role certbot_wildcard is there.
  returned: success
  type: bool
"""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils.daemon import (
    DAEMON,
    KNOWS_PROXIES,
    PODMAN,
    RECORD,
    Engine,
    ask_engine,
    list_packages,
    numbers,
    read_object,
    silent,
    too_old,
    unremovable,
    unsuitable,
)
from ansible_collections.proxme.tunnel.plugins.module_utils.firewall import lets_out, read_rules

ROOT = Path("/")
PREFIX = "proxme-tunnel-"
ACCOUNTS = "var/lib/proxme-tunnel/sshd_tunnel/accounts.json"
CERTBOT = "etc/proxme-tunnel/certbot_wildcard"
IPV6 = "proc/sys/net/ipv6/conf/all/disable_ipv6"

# The oldest version of each distribution whose packages are known.
DISTRIBUTIONS = {"debian": "12", "raspbian": "12", "ubuntu": "22.04"}
# The engine that Debian 12 has.
DEBIAN_12 = "20.10"
PACKAGES = ["docker.io", "iptables", "ca-certificates"]
# A package of its own from Debian 13 on.
CLI = "docker-cli"
# One of Docker's own packages, beside which the distribution's cannot be.
FOREIGN = "docker-ce"


class Published(NamedTuple):
    """Ports of the host that a running container publishes."""

    container: str
    protocol: str
    first: int
    last: int


class Listener(NamedTuple):
    """A socket of the host that somebody listens at, and the programs that have it."""

    protocol: str
    address: str
    port: int
    programs: tuple[tuple[str, str], ...]


def parse_published(name: str, text: str) -> list[Published]:
    """Return what `docker ps` shows as a container's ports, such as `0.0.0.0:80->80/tcp, [::]:81-82->81-82/udp`."""
    found = re.findall(r":(\d+)(?:-(\d+))?->[^/]*/(\w+)", text)
    return [Published(name, protocol, int(first), int(last or first)) for first, last, protocol in found]


def parse_listeners(text: str) -> list[Listener]:
    """Return what `ss -Hlntup` shows."""
    listeners = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5 or not fields[4].rpartition(":")[2].isdigit():
            continue
        address, port = fields[4].rpartition(":")[::2]
        programs = re.findall(r'\("([^"]*)",pid=(\d+)', line)
        listeners.append(Listener(fields[0], address.strip("[]"), int(port), tuple(dict.fromkeys(programs))))
    return listeners


def parse_container(data: dict[str, Any]) -> dict[str, Any]:
    """Return what the roles need of what `docker inspect` says of a container."""
    bindings = data["HostConfig"].get("PortBindings") or {}
    ports = {
        (int(binding["HostPort"]), port.rpartition("/")[2])
        for port, bound in bindings.items()
        for binding in bound or []
        if binding["HostPort"].isdigit()
    }
    return {
        "state": data["State"]["Status"],
        "image": data["Config"]["Image"],
        "image_id": data["Image"],
        "labels": data["Config"].get("Labels") or {},
        "ports": [f"{port}/{protocol}" for port, protocol in sorted(ports)],
    }


def held(data: dict[str, Any]) -> set[tuple[str, str, int]]:
    """Return the addresses that a running container's ports are published at, each with protocol and port."""
    published = (data.get("NetworkSettings") or {}).get("Ports") or {}
    return {
        (port.rpartition("/")[2], binding["HostIp"], int(binding["HostPort"]))
        for port, bound in published.items()
        for binding in bound or []
        if binding["HostPort"].isdigit()
    }


def read_distribution() -> dict[str, str]:
    """Read the distribution's name and version."""
    try:
        lines = shlex.split((ROOT / "etc/os-release").read_text(encoding="utf-8"), comments=True)
    except (OSError, ValueError):
        lines = []
    named = dict(line.split("=", 1) for line in lines if "=" in line)
    return {"id": named.get("ID", ""), "version": named.get("VERSION_ID", "")}


def read_memory() -> int:
    """Read the host's memory, in MiB."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", (ROOT / "proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def read_disk(folder: str) -> int:
    """Read the space that is free in a folder of the host, or where it is going to be, in MiB."""
    path = ROOT / folder.lstrip("/")
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize // 2**20


def read_sysctl(name: str) -> int:
    """Read a number that the kernel has in force; 0 where it does not tell, as in a container."""
    path = ROOT / "proc/sys" / name.replace(".", "/")
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def is_known(distribution: dict[str, str]) -> bool:
    """Tell whether a distribution's packages are known."""
    oldest = DISTRIBUTIONS.get(distribution["id"])
    return oldest is not None and numbers(distribution["version"]) >= numbers(oldest)


def needed_packages(distribution: dict[str, str]) -> list[str]:
    """Return the packages that an engine is installed from."""
    apart = distribution["id"] in ("debian", "raspbian") and numbers(distribution["version"]) >= [13]
    return [*PACKAGES, CLI] if apart else PACKAGES


class Host:
    """The host, and what is asked of it."""

    def __init__(self, module: AnsibleModule, daemon_options: dict[str, Any]) -> None:
        self.module = module
        self.daemon_options = daemon_options
        self.engine: Engine = ask_engine(module, ROOT)
        self.distribution = read_distribution()
        self.memory = read_memory()
        self.images_folder: str = (
            self.engine.info.get("DockerRootDir")
            or daemon_options.get("data-root")
            or module.params["docker_options"].get("data-root")
            or "/var/lib/docker"
        )
        self.disk = read_disk(self.images_folder)
        self.published: list[Published] = []
        self.inspected: dict[str, dict[str, Any]] = {}
        self.installed: list[str] = []
        self.images = False
        self.ours = False
        if self.engine.answers:
            self.look_at_containers()
            self.look_for_ours()
        else:
            states = list_packages(module, *PACKAGES, CLI, FOREIGN)
            self.installed = sorted(name for name, state in states.items() if state == "installed")

    def docker(self, *arguments: str, whole: bool = True) -> str:
        """Ask the engine. Not whole is an answer that lacks what has ended meanwhile."""
        return self.module.run_command(["docker", *arguments], check_rc=whole)[1]

    def look_at_containers(self) -> None:
        """Look which container publishes what, and at ours more closely."""
        ours = []
        # Not {{ json . }}, for which the engine would measure each container's size.
        shown = "{{ .ID }}\t{{ .Names }}\t{{ .Ports }}"
        for line in self.docker("ps", "--all", "--no-trunc", "--format", shown).splitlines():
            identity, names, ports = (*line.split("\t"), "", "")[:3]
            # Others than its own are those that linked containers have for it.
            name = next((name for name in names.split(",") if "/" not in name), names)
            self.published += parse_published(name, ports)
            if name.startswith(PREFIX):
                ours.append(identity)
        if ours:
            found = json.loads(self.docker("container", "inspect", *ours, whole=False) or "[]")
            self.inspected = {data["Name"].lstrip("/"): data for data in found}

    def look_for_ours(self) -> None:
        """Look whether anything of ours is on the engine. Where a container is, its image is."""
        self.images = bool(self.inspected) or self.docker("images", "--quiet", "--filter", "label=proxme-tunnel") != ""
        self.ours = (
            self.images
            or self.docker("volume", "ls", "--quiet", "--filter", f"name=^{PREFIX}") != ""
            or self.docker("network", "ls", "--quiet", "--filter", "name=^proxme-tunnel") != ""
        )

    def unsuitable(self) -> list[str]:
        """Return what of the engine's setup the tunnel host can't work with."""
        rules = read_rules(self.module) if False in self.daemon_options.values() else None
        return list(unsuitable(self.engine, self.daemon_options, None if rules is None else lets_out(rules)))

    def missing(self) -> list[str]:
        """Return the packages that have to be installed for an engine."""
        if self.engine.answers or FOREIGN in self.installed:
            return []
        return [name for name in needed_packages(self.distribution) if name not in self.installed]

    def uses_of(self, wanted: dict[str, Any], listeners: list[Listener]) -> tuple[list[str], bool]:
        """Return who uses ports, other than the container that may, and whether it is the host's own sshd."""
        first, last, protocol = wanted["first"], wanted["last"], wanted["protocol"]
        containers = [
            entry.container
            for entry in self.published
            if entry.container != wanted["container"]
            and (entry.protocol == protocol and entry.first <= last and entry.last >= first)
        ]
        if containers:
            return [f"the container {name}" for name in dict.fromkeys(containers)], False
        # What the container itself publishes may well be listened at, by Docker's proxy.
        own = held(self.inspected.get(wanted["container"], {}))
        found = [
            entry
            for entry in listeners
            if entry.protocol == protocol
            and first <= entry.port <= last
            and (protocol, entry.address, entry.port) not in own
        ]
        uses = [
            (" and ".join(f"{name} (process {process})" for name, process in entry.programs) or "an unnamed program")
            + f" at {'[' + entry.address + ']' if ':' in entry.address else entry.address}:{entry.port}"
            for entry in found
        ]
        return uses, any(program[0] == "sshd" for entry in found for program in entry.programs)

    def ports_in_use(self, ports: list[dict[str, Any]]) -> list[str]:
        """Return a sentence for each of the ports that somebody else uses."""
        if not ports:
            return []
        program = self.module.get_bin_path("ss")
        if program is None:
            return ["The program ss is missing, which says whether ports are in use. Install the package iproute2."]
        code, out, error = self.module.run_command([program, "-Hlntup"])
        if code != 0:
            return [f"The program ss does not say whether ports are in use: {error.strip()}."]
        listeners = parse_listeners(out)
        sentences = []
        for entry in ports:
            first = entry["port"] if entry["port"] is not None else entry["first"]
            last = entry["port"] if entry["port"] is not None else entry["last"]
            uses, is_sshd = self.uses_of({**entry, "first": first, "last": last}, listeners)
            if uses:
                shown = f"{first}{'' if first == last else f'-{last}'}{'' if entry['protocol'] == 'tcp' else '/udp'}"
                stop = (
                    "Move the host's own sshd to another port first (Port in /etc/ssh/sshd_config)"
                    if is_sshd
                    else "Stop what uses it"
                )
                sentences.append(
                    f"Port {shown} of this host is in use: {', '.join(uses)}. {stop}, or choose another port "
                    f"({entry['variable']})."
                )
        return sentences

    def problems(self, options: dict[str, Any], check_mode: bool) -> list[str]:
        """Return what there is to refuse, a sentence each."""
        engine = self.engine
        if options["remove"]:
            return [unremovable(engine.error)] if engine.installed and not engine.answers else []
        found = self.unsuitable()
        version = engine.version or (DEBIAN_12 if self.distribution == {"id": "debian", "version": "12"} else "")
        if options["proxies"] and version and numbers(version) < numbers(KNOWS_PROXIES):
            found.append(
                f"Docker {version} would not start with proxies in its daemon.json (tunnel_docker_options); "
                f"{KNOWS_PROXIES} is the first that knows them. Remove them there, and let its service have the proxy: "
                "docs/docker.md."
            )
        if engine.answers:
            found.append(too_old(engine.version))
        elif engine.error == PODMAN:
            pass
        elif not options["install"]:
            found.append("" if check_mode else silent(engine.error))
        elif self.missing() and not is_known(self.distribution):
            named = " ".join([self.distribution["id"].capitalize() or "This", self.distribution["version"]]).strip()
            found.append(
                f"{named} is not a distribution that this role can install Docker on. Use Debian 12 or newer or Ubuntu "
                "22.04 or newer, or install Docker yourself and set tunnel_install_docker: false."
            )
        if self.memory < options["minimum_memory"]:
            found.append(
                f"This host has {self.memory} MiB of memory; the tunnel host needs {options['minimum_memory']} MiB. "
                "Use a larger server, or lower tunnel_minimum_memory if you know better."
            )
        if self.disk < options["minimum_disk"] and not self.images:
            found.append(
                f"{self.images_folder} has {self.disk} MiB free; the images need {options['minimum_disk']} MiB. Free "
                "some space, mount a larger disk there, or lower tunnel_minimum_disk if you know better."
            )
        if not has_ipv6():
            found.append(
                "This host's kernel has no IPv6, and the tunnels need its addresses (not its connectivity: the host "
                "may be reached over IPv4 alone). Remove ipv6.disable=1 from the kernel's command line and reboot."
            )
        return [sentence for sentence in [*found, *self.ports_in_use(options["ports"])] if sentence]

    def result(self) -> dict[str, Any]:
        """Return what is told of the host."""
        engine = self.engine
        return {
            "engine": {
                **{name: value for name, value in engine._asdict().items() if name != "info"},
                "answers": engine.answers,
                "ours": self.ours,
            },
            "distribution": self.distribution,
            "systemd": (ROOT / "run/systemd/system").is_dir(),
            "memory": self.memory,
            "disk": self.disk,
            "ipv6": has_ipv6(),
            "udp_buffers": min(read_sysctl(f"net.core.{name}mem_max") for name in ("r", "w")),
            "containers": {name: parse_container(data) for name, data in self.inspected.items()},
            "packages": self.installed,
            "missing": self.missing(),
            "certbot": (ROOT / CERTBOT).exists(),
        }


def has_ipv6() -> bool:
    """Tell whether the kernel has IPv6."""
    return (ROOT / IPV6).exists()


def read_files() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return what our files hold, and a sentence for each that can't be read."""
    files = {"daemon_options": DAEMON, "our_daemon_options": f"{RECORD}/options.json", "accounts": ACCOUNTS}
    held, unreadable = {}, []
    for key, path in files.items():
        try:
            held[key] = read_object(ROOT / path)
        except ValueError as problem:
            held[key] = {}
            unreadable.append(str(problem))
    return held, unreadable


def main() -> None:
    """Run the module."""
    port = {
        "port": {"type": "int"},
        "first": {"type": "int"},
        "last": {"type": "int"},
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        "variable": {"type": "str", "required": True},
        "container": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": port,
                "mutually_exclusive": [("port", "first"), ("port", "last")],
                "required_one_of": [("port", "first")],
                "required_together": [("first", "last")],
            },
            "minimum_memory": {"type": "int", "default": 0},
            "minimum_disk": {"type": "int", "default": 0},
            "docker_options": {"type": "dict", "default": {}},
            "proxies": {"type": "bool", "default": False},
            "install": {"type": "bool", "default": False},
            "remove": {"type": "bool", "default": False},
            "refuse": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    files, unreadable = read_files()
    if unreadable and not module.params["remove"]:
        # Even where nothing is refused: whoever goes on would lose what they hold.
        module.fail_json(msg=" ".join(unreadable))
    host = Host(module, files["daemon_options"])
    problems = host.problems(module.params, module.check_mode)
    if problems and module.params["refuse"]:
        module.fail_json(msg=" ".join(problems))
    # Proxies may have a password.
    for options in (files["daemon_options"], files["our_daemon_options"]):
        options.pop("proxies", None)
    module.exit_json(changed=False, problems=problems, **host.result(), **files)


if __name__ == "__main__":
    main()
