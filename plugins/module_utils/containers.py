# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a container is made from, and how one that was replaced is told to end."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# Says what a container was made from, so that the next run knows whether it is still the one that is wanted.
MADE_OF = "proxme-tunnel.made-of"
# The ports that were asked for, so that it can be told whether a container that is kept publishes others.
PORTS = "proxme-tunnel.ports"


def text(value: object) -> str:
    """Return a value of YAML as Docker reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def ports_label(ports: Iterable[str]) -> str:
    """Return the published ports as they stand in the label; their order does not count."""
    return " ".join(sorted(ports))


def holder_of(network: str) -> str:
    """Return the container whose network namespace is shared, or nothing."""
    kind, name = network.partition(":")[::2]
    return name if kind == "container" else ""


def create_options(wanted: Mapping[str, Any]) -> list[str]:
    """Return the options of `docker create` for what the module's options want, all but the name and the hash."""
    options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--no-healthcheck"]
    options += ["--network", wanted["network"], "--restart", wanted["restart"]]
    options += ["--pids-limit", str(wanted["processes"])]
    # Without swap, or the limit would be double of what it says.
    options += ["--memory", wanted["memory"], "--memory-swap", wanted["memory"]]
    if wanted["log"]:
        options += ["--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    else:
        options += ["--log-driver", "none"]
    for option in ("user", "hostname", "stop_signal"):
        if wanted[option]:
            options += [f"--{option.replace('_', '-')}", wanted[option]]
    if wanted["init"]:
        options.append("--init")
    labels = dict(wanted["labels"])
    if wanted["ports"]:
        labels[PORTS] = ports_label(wanted["ports"])
    for option, pairs in (("label", labels), ("env", wanted["env"]), ("sysctl", wanted["sysctls"])):
        for key in sorted(pairs):
            options += [f"--{option}", f"{key}={text(pairs[key])}"]
    for name in sorted(wanted["hosts"]):
        options += ["--add-host", f"{name}:{text(wanted['hosts'][name])}"]
    for option, values in (
        ("group-add", wanted["groups"]),
        ("publish", wanted["ports"]),
        ("volume", wanted["volumes"]),
        ("tmpfs", wanted["tmpfs"]),
        ("cap-add", wanted["capabilities"]),
        ("dns", wanted["dns"]),
        ("dns-search", wanted["dns_search"]),
        # With a colon like all else; Docker alone wants NAME=SOFT:HARD.
        ("ulimit", [limit.replace(":", "=", 1) if "=" not in limit else limit for limit in wanted["ulimits"]]),
    ):
        for value in values:
            options += [f"--{option}", value]
    return options


def made_of(options: list[str], image: str, command: list[str], image_id: str, holder_id: str) -> str:
    """Return the hash of all that a container is made from.

    The ids are in it because the same name may mean another image tomorrow, and another container's namespace.
    """
    return hashlib.sha256(json.dumps([options, image, command, image_id, holder_id]).encode()).hexdigest()


def set_aside_name(name: str, identity: str) -> str:
    """Return the name of a container that another one has replaced."""
    return f"{name}-old-{identity[:8]}"


def is_set_aside(name: str, found: str) -> bool:
    """Whether `found` is the name of a container that `name` has replaced."""
    return re.fullmatch(re.escape(name) + "-old-[0-9a-f]+", found) is not None


def seconds(hours: float) -> int:
    """Return whole seconds."""
    return int(hours * 3600)


def waiter(hours: float, busy: list[str]) -> list[str]:
    """Return the command that ends a container when it is no longer busy, or when its hours are over.

    Its last word, drain-SECONDS, shows in `docker top` that the container knows when to end.
    """
    condition = shlex.join(busy) if busy else "true"
    script = f'left=${{0#drain-}}; while [ "$left" -gt 0 ] && {{ {condition}; }}; do left=$((left - 1)); sleep 1; done'
    return ["sh", "-c", f"{script}; kill -TERM 1", f"drain-{seconds(hours)}"]


def has_waiter(processes: str, hours: float) -> bool:
    """Whether one that waits as long is among the processes that `docker top` lists."""
    return re.search(rf" drain-{seconds(hours)}\s*$", processes, re.MULTILINE) is not None
