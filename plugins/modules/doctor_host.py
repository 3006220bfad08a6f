# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the doctor looks at on the host itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: doctor_host
version_added: 0.1.0
short_description: Read on a tunnel host what the doctor judges
description:
  - Reads what the action M(proxme.tunnel.doctor) makes sentences of. Changes nothing.
options:
  listen:
    description: The plain listener's C(ADDRESS:PORT), or nothing if it is not to be asked.
    type: str
    default: ""
attributes:
  check_mode:
    description: Runs in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at the host
  proxme.tunnel.doctor_host:
    listen: "{{ tunnel.listen if tunnel.tls == 'off' else '' }}"
  register: __tunnel_host_seen
"""

RETURN = r"""
before:
  description: When the control node started the module, in seconds since 1970 of its clock.
  returned: success
  type: float
after:
  description: When it had ended.
  returned: success
  type: float
seen:
  description: What was seen.
  returned: success
  type: dict
  contains:
    time:
      description: Seconds since 1970 of the host's clock.
      type: float
    addresses:
      description: The host's own addresses that are not its loopback's.
      type: list
    containers:
      description: By name, the state, the image, and when that was created.
      type: dict
    unled:
      description: Published ports that no rule of the packet filter leads to their containers.
      type: list
    engine:
      description: Why Docker did not answer, or empty.
      type: str
    keys:
      description: Public host keys, the type and the base64 of each.
      type: list
    certificates:
      description: By path, the first certificate of each file that Caddy keeps. No key leaves the host.
      type: dict
    disks:
      description: By folder, the free and all bytes.
      type: dict
    memory:
      description: The available and all bytes.
      type: list
    listener:
      description: What the plain listener answered (a status line, or why there is none), or empty.
      type: str
"""

import http.client
import json
import pathlib
import re
import shutil
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils.firewall import Published, not_led, read_rules

DATA = pathlib.Path("/var/lib/proxme-tunnel")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PATIENCE = 30  # seconds that a program may take
UNKNOWN = "1970-01-01T00:00:00Z"  # the time of an image that is no more
NAMES = ("network", "caddy-network", "resolver", "sshd", "nginx", "caddy", "edge", "relay")


class SilentError(Exception):
    """A program did not answer; its text says why."""


def said_by(module: AnsibleModule, *command: str, partly: bool = False) -> str:
    """Return a command's output, with `partly` also where it failed for some of what it was asked."""
    code, output, errors = module.run_command(["timeout", str(PATIENCE), *command])
    if code == 124:
        raise SilentError(f"no answer within {PATIENCE} s")
    if code and not partly:
        raise SilentError((errors or output).strip() or f"exit code {code}")
    return output


def inspected(module: AnsibleModule) -> list[dict[str, Any]]:
    """Return what Docker says of all containers of ours."""
    wanted = '{"name": {{json .Name}}, "state": {{json .State.Status}}, "id": {{json .Image}}, '
    wanted += '"image": {{json .Config.Image}}, "ports": {{json .NetworkSettings.Ports}}, '
    wanted += '"networks": {{json .NetworkSettings.Networks}}}'
    names = [f"proxme-tunnel-{name}" for name in NAMES]
    lines = said_by(module, "docker", "inspect", "--type=container", f"--format={wanted}", *names, partly=True)
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


def containers(module: AnsibleModule, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what counts of those containers, by their names."""
    images = sorted({one["id"] for one in found})
    created = {}
    if images:
        lines = said_by(module, "docker", "image", "inspect", "--format={{.Id}} {{.Created}}", *images, partly=True)
        created = dict(line.split(None, 1) for line in lines.splitlines() if line.strip())
    return {
        one["name"].lstrip("/"): {
            "state": one["state"],
            "image": one["image"],
            "created": created.get(one["id"], UNKNOWN).strip(),
        }
        for one in found
    }


def published(one: dict[str, Any]) -> list[Published]:
    """Return each port of the host that a container publishes, and the address and port that it leads to."""
    addresses = [network["IPAddress"] for network in (one["networks"] or {}).values() if network["IPAddress"]]
    return [
        Published(int(host_port), f"{address}:{port.partition('/')[0]}")
        for port, bindings in (one["ports"] or {}).items()
        for host_port in sorted({binding["HostPort"] for binding in bindings or []})
        for address in addresses[:1]
    ]


def unled(module: AnsibleModule, found: list[dict[str, Any]]) -> list[int]:
    """Return the published ports that no rule of the packet filter leads to their containers."""
    rules = read_rules(module)
    wanted = [entry for one in found if one["state"] == "running" for entry in published(one)]
    return [] if rules is None else not_led(rules, wanted)


def engine(module: AnsibleModule) -> str:
    """Return why Docker does not answer, or nothing."""
    if not module.get_bin_path("docker"):
        return "there is no program docker"
    try:
        said_by(module, "docker", "version", "--format={{.Server.Version}}")
    except SilentError as silent:
        return str(silent)
    return ""


def disks(folders: list[str]) -> dict[str, list[int]]:
    """Return the free and all bytes of those folders that there are."""
    found = {}
    for folder in folders:
        if pathlib.Path(folder).exists():
            usage = shutil.disk_usage(folder)
            found[folder] = [usage.free, usage.total]
    return found


def memory() -> list[int]:
    """Return the available and all bytes of memory."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return [kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024]


def addresses(module: AnsibleModule) -> list[str]:
    """Return the host's own addresses."""
    program = module.get_bin_path("ip", required=True)
    found = json.loads(said_by(module, program, "-json", "address", "show", "scope", "global"))
    # Addresses of another scope are there as empty objects.
    return [info["local"] for link in found for info in link.get("addr_info", []) if "local" in info]


def certificates() -> dict[str, str]:
    """Return the first certificate of each file that Caddy keeps."""
    caddy = DATA / "caddy_frontend"
    found = {}
    for path in sorted([*caddy.glob("caddy/certificates/*/*/*.crt"), *caddy.glob("own/*.pem")]):
        if match := CERTIFICATE.search(path.read_text()):
            found[str(path)] = match.group() + "\n"
    return found


def listener(where: str) -> str:
    """Return the status line of the plain listener, or why there is none."""
    host, port = where.rpartition(":")[::2]
    host = host.strip("[]").replace("0.0.0.0", "127.0.0.1")
    try:
        connection = http.client.HTTPConnection(host or "127.0.0.1", int(port), timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    return f"HTTP {answer.status}"


def look(module: AnsibleModule) -> dict[str, Any]:
    """Return what was seen."""
    listen = module.params["listen"]
    silent = engine(module)
    keys = [path.read_text().split()[:2] for path in sorted((DATA / "sshd_tunnel").glob("ssh_host_*_key.pub"))]
    folders = [str(DATA)]
    if not silent:
        folders.append(said_by(module, "docker", "info", "--format={{.DockerRootDir}}").strip())
    found = [] if silent else inspected(module)
    return {
        "time": time.time(),
        "addresses": addresses(module),
        "containers": containers(module, found),
        "unled": unled(module, found),
        "engine": silent,
        "keys": [" ".join(key) for key in keys],
        "certificates": certificates(),
        "disks": disks(folders),
        "memory": memory(),
        "listener": listener(listen) if listen else "",
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"listen": {"type": "str", "default": ""}}, supports_check_mode=True)
    try:
        seen = look(module)
    except SilentError as silent:
        module.fail_json(msg=f"The host can't be looked at: {silent}.")
    module.exit_json(changed=False, seen=seen)


if __name__ == "__main__":
    main()
