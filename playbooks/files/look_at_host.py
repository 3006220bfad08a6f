#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read on the host what check.yml judges: look_at_host.py LISTEN, with LISTEN the plain listener's ADDRESS:PORT or "-".

Changes nothing, and prints one JSON object; judge.py says what it makes of each entry:

    time           seconds since 1970
    addresses      the host's own addresses that are not its loopback's
    containers     name -> {"state", "created" (of the image), "image"}
    engine         why Docker did not answer, or ""
    keys           public host keys, "TYPE BASE64" each
    certificates   path -> the first certificate of that file (PEM), of those that Caddy keeps; no key leaves the host
    disks          folder -> [free bytes, all bytes]
    memory         [available bytes, all bytes]
    listener       what the plain listener answered (a status line, or why there is none); "" if it was not asked for
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import Any

DATA = pathlib.Path("/var/lib/proxme-tunnel")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
NAMES = ("pod", "front", "names", "sshd", "nginx", "caddy")


def said_by(*command: str) -> str:
    """Return a command's output; raises OSError or subprocess.SubprocessError."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def container(name: str) -> dict[str, str] | None:
    """Return what Docker says of a container of ours, or None if there is none."""
    wanted = '{"state": {{json .State.Status}}, "image": {{json .Image}}}'
    try:
        found = json.loads(said_by("docker", "inspect", "--type=container", f"--format={wanted}", name))
        found["created"] = said_by("docker", "image", "inspect", "--format={{.Created}}", found["image"]).strip()
        found["image"] = said_by("docker", "inspect", "--format={{.Config.Image}}", name).strip()
    except subprocess.CalledProcessError:
        return None
    return found


def containers() -> tuple[dict[str, Any], str]:
    """Return all containers of ours, and why Docker did not answer."""
    try:
        said_by("docker", "version", "--format={{.Server.Version}}")
    except (OSError, subprocess.SubprocessError) as error:
        return {}, (getattr(error, "stderr", "") or str(error)).strip()
    found = {f"proxme-tunnel-{name}": container(f"proxme-tunnel-{name}") for name in NAMES}
    return {name: value for name, value in found.items() if value}, ""


def disks(engine: bool) -> dict[str, list[int]]:
    """Return the free and all bytes of the folders that grow."""
    folders = [str(DATA)]
    if engine:
        folders.append(said_by("docker", "info", "--format={{.DockerRootDir}}").strip())
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


def addresses() -> list[str]:
    """Return the host's own addresses."""
    found = json.loads(said_by("ip", "-json", "address", "show", "scope", "global"))
    return [info["local"] for link in found for info in link.get("addr_info", [])]


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
    host, _, port = where.rpartition(":")
    host = host.strip("[]").replace("0.0.0.0", "127.0.0.1")
    try:
        connection = http.client.HTTPConnection(host or "127.0.0.1", int(port), timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    return f"HTTP {answer.status}"


def main(listen: str) -> dict[str, Any]:
    """Return what the module's docstring says."""
    running, engine = containers()
    keys = [path.read_text().split()[:2] for path in sorted((DATA / "sshd_tunnel").glob("ssh_host_*_key.pub"))]
    return {
        "time": time.time(),
        "addresses": addresses(),
        "containers": running,
        "engine": engine,
        "keys": [" ".join(key) for key in keys],
        "certificates": certificates(),
        "disks": disks(not engine),
        "memory": memory(),
        "listener": "" if listen == "-" else listener(listen),
    }


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    json.dump(main(sys.argv[1]), sys.stdout)
