#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print who is connected to sshd, as the kernel knows it; runs on the tunnel host as root.

Usage: connections.py CONTAINER PASSWD [BARRED]

CONTAINER is the container of sshd; those that it replaced (CONTAINER-old-…) are looked at as well. PASSWD is the file
with the accounts. Output: a JSON list of {"container", "account", "from" (address), "since" (UTC),
"process" (id on the host), "forwards" (["8080", "blog:80"]), "labels" (["8080", the address of a name]), "summary"}.
A name is its address's hash, so it is looked up among those that connections asked for (sshd's log); an address whose
name is no longer in the log is shown as it is.

BARRED is a JSON object {"labels": ["guest-x", "8080"], "addresses": ["192.0.2.0/24"]}. With it the connections that
hold such a label, or that come from there, are ended, and only those are printed.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

SSH_PORT = 2222  # inside the container
PATIENCE = 5  # seconds within which a process that was killed is gone
NAMES = ipaddress.ip_network("fd74::/16")  # their addresses
FIRST_ID = 20000  # of the accounts' user ids
ESTABLISHED, LISTENING = "01", "0A"


class Socket(NamedTuple):
    """A line of /proc/net/tcp or tcp6."""

    state: str
    address: str
    port: int
    peer: str


def address_of(words: str) -> str:
    """Turn the kernel's hexadecimal words, each in the machine's byte order, into an address."""
    parts = [int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8)]
    found = ipaddress.ip_address(b"".join(parts))
    return str(getattr(found, "ipv4_mapped", None) or found)


def sockets(process: pathlib.Path) -> dict[str, Socket]:
    """Return all TCP sockets of a process's network namespace, by inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            (local, port), (remote, _) = fields[1].split(":"), fields[2].split(":")
            found[fields[9]] = Socket(fields[3], address_of(local), int(port, 16), address_of(remote))
    return found


def held(process: pathlib.Path) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    links = []
    for descriptor in (process / "fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # closed since
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def started(process: pathlib.Path) -> datetime.datetime:
    """Return when a process began."""
    ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
    boot = int(re.search(r"^btime (\d+)", pathlib.Path("/proc/stat").read_text(), re.MULTILINE)[1])
    return datetime.datetime.fromtimestamp(boot + ticks / 100, datetime.timezone.utc)  # noqa: UP017 (Python 3.10 on a host)


def address_of_name(name: str) -> str:
    """Return the address that a name is (names.lua)."""
    return str(ipaddress.IPv6Address(b"\xfd\x74" + hashlib.sha256(name.encode()).digest()[:14]))


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a docker command; end with what it said if it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"docker {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done


def containers(container: str) -> list[str]:
    """Return the running containers, the present one first. Ends if there are none."""
    names = docker("ps", "--format", "{{.Names}}").stdout.split()
    found = sorted(name for name in names if name == container or name.startswith(f"{container}-old-"))
    if not found:
        sys.exit(f"{container} does not run, so nobody is connected.")
    return found


def asked_names(container: str) -> dict[str, str]:
    """Return the names that connections asked for, by address."""
    log = docker("logs", container)
    names = {
        name.lower().split(".")[0] for name in re.findall(r"tcpip-forward listen (\S+) port", log.stderr + log.stdout)
    }
    return {address_of_name(name): name for name in names}


def is_of_ssh(socket: Socket) -> bool:
    """Whether a connection came to sshd: to its port at an address of eth0. A visitor comes to a name's."""
    address = ipaddress.ip_address(socket.address)
    return socket.port == SSH_PORT and not address.is_loopback and address not in NAMES


def is_loopback(address: str) -> bool:
    """Whether an address is the host's own."""
    return ipaddress.ip_address(address).is_loopback


def forward(socket: Socket, names: dict[str, str]) -> str:
    """Return a listener as its client wrote it."""
    if is_loopback(socket.address):
        return str(socket.port)
    if ":" not in socket.address:
        return f"public:{socket.port}"
    return f"{names.get(socket.address, socket.address)}:{socket.port}"


def labels(own: list[Socket]) -> list[str]:
    """Return what the listeners of a connection are to visitors: port labels, and addresses of names."""
    listeners = [socket for socket in own if socket.state == LISTENING]
    return sorted({str(s.port) if is_loopback(s.address) else s.address for s in listeners})


def is_barred(connection: dict, barred: dict) -> bool:
    """Whether a connection holds a barred label, or comes from a barred address."""
    held_labels = {label if label.isdigit() else address_of_name(label) for label in barred["labels"]}
    networks = [ipaddress.ip_network(address, strict=False) for address in barred["addresses"]]
    origin = ipaddress.ip_address(connection["from"])
    return bool(held_labels & set(connection["labels"])) or any(origin in network for network in networks)


def end(connection: dict) -> None:
    """End a connection, as its account's process is the one that holds it; say so if it does not end."""
    process = pathlib.Path("/proc") / str(connection["process"])
    try:
        os.kill(connection["process"], signal.SIGKILL)
    except ProcessLookupError:
        return  # ended since
    deadline = time.monotonic() + PATIENCE
    while process.exists():
        if time.monotonic() > deadline:
            sys.exit(f"this connection does not end: {connection['summary']}")
        time.sleep(0.05)


def main(container: str, passwd: str, barred: str = "") -> list[dict]:
    """Return what the module's docstring says."""
    accounts = {}
    for line in pathlib.Path(passwd).read_text().splitlines():
        name, _, uid = line.split(":")[:3]
        accounts[uid] = name
    found = []
    for name in containers(container):
        found += connections(name, accounts)
    found.sort(key=lambda connection: (connection["account"], connection["since"]))
    if not barred:
        return found
    ended = [connection for connection in found if is_barred(connection, json.loads(barred))]
    for connection in ended:
        end(connection)
    return ended


def connections(container: str, accounts: dict[str, str]) -> list[dict]:
    """Return who is connected to one container."""
    names = asked_names(container)
    found = []
    for line in docker("top", container, "-eo", "pid,uid,comm").stdout.splitlines()[1:]:
        pid, uid, command = line.split(None, 2)
        process = pathlib.Path("/proc") / pid
        if int(uid) < FIRST_ID or not command.startswith("sshd"):
            continue
        account = accounts.get(uid, f"removed account {uid}")
        try:
            table, inodes = sockets(process), held(process)
            since = started(process)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since
        own = [table[inode] for inode in inodes if inode in table]
        # One that ends is still listed, without its connection.
        peers = [socket.peer for socket in own if socket.state == ESTABLISHED and is_of_ssh(socket)]
        if not peers:
            continue
        forwards = sorted({forward(socket, names) for socket in own if socket.state == LISTENING})
        when = since.strftime("%Y-%m-%d %H:%M:%S UTC")
        shown = ", ".join(forwards) or "nothing"
        found.append(
            {
                "container": container,
                "account": account,
                "from": peers[0],
                "since": when,
                "process": int(pid),
                "forwards": forwards,
                "labels": labels(own),
                "summary": f"{account} from {peers[0]} since {when} holds {shown}"
                + (f" (in the replaced {container})" if "-old-" in container else ""),
            }
        )
    return found


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
