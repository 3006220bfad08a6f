# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of a Docker engine, and of the files that it and its packages are described in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

OLDEST = "20.10"
# Relative to the host's root.
DAEMON = "etc/docker/daemon.json"
RECORD = "etc/proxme-tunnel/docker_engine"
SWARM = "var/lib/docker/swarm/docker-state.json"


class Engine(NamedTuple):
    """What an engine says of itself. A version, if it answers; else the error."""

    version: str
    error: str
    installed: bool
    swarm: bool

    @property
    def answers(self) -> bool:
        """Tell whether it answers."""
        return self.version != ""


def ask_engine(module: AnsibleModule, root: Path) -> Engine:
    """Ask the engine for its version, and whether it is in a swarm."""
    installed = module.get_bin_path("dockerd") is not None
    docker = module.get_bin_path("docker")
    if docker is None:
        return Engine("", "there is no program docker", installed, knows_swarm(root))
    asked = [docker, "info", "--format", "{{ .Swarm.LocalNodeState }}\n{{ .ServerVersion }}"]
    code, out = module.run_command(asked)[:2]
    state, version = (*out.split("\n"), "", "")[:2]
    error = ""
    if code != 0 or not version:
        # Older versions of `docker info` end well without an engine, or with an error that says nothing.
        code, out, error = module.run_command([docker, "version", "--format", "{{ .Server.Version }}"])
        version = out.strip() if code == 0 else ""
    swarm = state not in ("", "inactive") or (not version and knows_swarm(root))
    return Engine(version, "" if version else error.strip() or "docker version says nothing", installed, swarm)


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
