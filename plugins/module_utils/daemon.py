# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of a Docker engine, and of the files that it and its packages are described in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = "20.10"
# Relative to the host's root.
DAEMON = "etc/docker/daemon.json"
RECORD = "etc/proxme-tunnel/docker_engine"
SWARM = "var/lib/docker/swarm/docker-state.json"


# The first whose daemon.json may name proxies; an older one would not start with them.
KNOWS_PROXIES = "23.0"
PODMAN = "the program docker is podman's"
# What gives each container a kernel of its own, so that none can join another one's network.
ENCLOSING = ("runsc", "kata")


class Engine(NamedTuple):
    """What an engine says of itself. A version, if it answers; else the error. `info` is what `docker info` shows."""

    version: str
    error: str
    installed: bool
    swarm: bool
    info: dict[str, Any]

    @property
    def answers(self) -> bool:
        """Tell whether it answers."""
        return self.version != ""


def ask_engine(module: AnsibleModule, root: Path) -> Engine:
    """Ask the engine for its version, and whether it is in a swarm."""
    installed = module.get_bin_path("dockerd") is not None
    docker = module.get_bin_path("docker")
    if docker is None:
        return Engine("", "there is no program docker", installed, knows_swarm(root), {})
    asked = [docker, "info", "--format", "{{ .Swarm.LocalNodeState }}\n{{ .ServerVersion }}\n{{ json . }}"]
    code, out = module.run_command(asked)[:2]
    state, version, shown = (*out.split("\n"), "", "", "")[:3]
    error = ""
    if code != 0 or not version:
        shown = ""
        # Podman has no swarm to tell of.
        if "podman" in module.run_command([docker, "--version"])[1]:
            return Engine("", PODMAN, installed, knows_swarm(root), {})
        # Older versions of `docker info` end well without an engine, or with an error that says nothing.
        code, out, error = module.run_command([docker, "version", "--format", "{{ .Server.Version }}"])
        version = out.strip() if code == 0 else ""
    swarm = state not in ("", "inactive") or (not version and knows_swarm(root))
    error = "" if version else error.strip() or "docker version says nothing"
    return Engine(version, error, installed, swarm, json.loads(shown or "{}"))


def knows_swarm(root: Path) -> bool:
    """Tell whether an engine that does not answer has noted that it is in a swarm."""
    state = root / SWARM
    return state.is_file() and state.stat().st_size > 0


def numbers(version: str) -> list[int]:
    """Return a version as one that can be compared."""
    return [int(number) for number in re.findall(r"\d+", version)]


def too_old(version: str) -> str:
    """Return the sentence that refuses an engine's version, or nothing."""
    if numbers(version) >= numbers(OLDEST):
        return ""
    return f"Docker {version} is too old; the tunnel host needs {OLDEST} or newer. Upgrade the engine."


def unsuitable(engine: Engine, options: dict[str, Any], translated: bool | None) -> Iterator[str]:
    """Yield a sentence for each way in which an engine is set up that the tunnel host can't work with.

    `options` are those of daemon.json, which count even before an engine is installed. `translated` tells whether a
    rule of the host's packet filter gives containers the host's address on their way out; None if that is not known.
    """
    file, restart = f"/{DAEMON}", "restart Docker (systemctl restart docker)"
    security = [text.partition("name=")[2].partition(",")[0] for text in engine.info.get("SecurityOptions") or []]
    if engine.error == PODMAN:
        yield (
            "The command docker of this host is podman's (the package podman-docker), and the tunnel host needs "
            "Docker's own engine. Remove that package (apt remove podman-docker); podman itself may stay."
        )
    if "rootless" in security:
        yield (
            "This Docker is rootless: it may not open ports below 1024, and hides the addresses of all clients. Let "
            "root's docker command use an engine that runs as root (docker context use default, no DOCKER_HOST)."
        )
    elif "userns" in security or options.get("userns-remap"):
        yield (
            "This Docker gives the users in containers other numbers (userns-remap), and as those they can't read what "
            f"is theirs on the host. Remove userns-remap from {file} (or from the command line of dockerd) and "
            f"{restart}. Images and containers of now are out of sight from then on, until it is there again; if you "
            "need both, use another server."
        )
    if engine.info.get("DockerRootDir", "").startswith("/var/snap/"):
        yield (
            "This Docker comes from snap, and does not see /etc/proxme-tunnel and /var/lib/proxme-tunnel of the host. "
            "Remove it (snap remove docker), and let the playbook install the distribution's, or install Docker's own "
            "packages."
        )
    if options.get("bridge") == "none":
        yield (
            f'This Docker has no default network ("bridge": "none" in {file}), which the tunnels arrive at. Remove '
            f"that line and {restart}."
        )
    if engine.info.get("IPv4Forwarding") is False:
        yield (
            "This host's kernel passes no packets on to containers (net.ipv4.ip_forward is 0). Remove the line that "
            'says so from /etc/sysctl.conf or /etc/sysctl.d, and "ip-forward": false from '
            f"{file}, then type sysctl net.ipv4.ip_forward=1."
        )
    off = [name for name in ("iptables", "ip-masq") if options.get(name) is False]
    if off and translated is False:
        yield (
            f"Docker is told to write no rules for the packet filter ({' and '.join(off)}: false in {file}), and no "
            "rule of yours lets containers out (masquerade), so no image could be built. Remove that from the file "
            f"and {restart}, or write such rules: docs/docker.md."
        )
    runtime = engine.info.get("DefaultRuntime") or options.get("default-runtime", "")
    if str(runtime).startswith(ENCLOSING):
        yield (
            f"Docker runs containers by {runtime} (default-runtime in {file}), which gives each a kernel of its own, "
            f'and these have to share a network. Write "default-runtime": "runc" there and {restart}; others may still '
            f"be run with --runtime {runtime}."
        )


def silent(error: str) -> str:
    """Return the sentence that refuses to go on without an engine."""
    return (
        f"No Docker engine answers on this host ({error}). Start it, or let the playbook install one "
        "(tunnel_install_docker: true)."
    )


def unremovable(error: str) -> str:
    """Return the sentence that refuses to remove what is on an engine that is there but does not answer."""
    return (
        f"Docker is installed on this host but does not answer ({error}), so what it holds can't be removed. Start it "
        "(systemctl start docker), or remove Docker itself first."
    )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; without a file, or of an empty one, it is empty too. ValueError says what to correct."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if text.strip() else {}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as problem:
        raise ValueError(f"{path} can't be read as JSON ({problem}). Correct it, or remove it.") from problem
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object. Correct it, or remove it.")
    return value


def list_packages(module: AnsibleModule, *names: str) -> dict[str, str]:
    """Return the state of each package that dpkg knows, such as `installed`; of those named, or of all."""
    query = module.get_bin_path("dpkg-query")
    if query is None:
        return {}
    # Names that it does not know make it end with 1.
    out = module.run_command([query, "-W", "-f", "${db:Status-Status} ${Package}\n", *names])[1]
    lines = [line.split() for line in out.splitlines()]
    return {line[1]: line[0] for line in lines if len(line) == 2 and line[0] != "not-installed"}
