# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is connected to sshd, as the kernel knows it, and the end of those who are to be."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: connections
version_added: 0.1.0
short_description: List the connections to sshd, or end some of them
description:
  - Reads who is connected from the kernel's tables and Docker, in the container of sshd and in those that it replaced.
  - Ends the connections that hold a label of O(labels), that come from one of O(addresses), or that are of one of
    O(accounts). A connection ends with all that it holds.
  - A name is its address's hash, so it is looked up among those that connections asked for (sshd's log); an address
    whose name is no longer in the log is shown as it is.
options:
  container:
    description: The container of sshd. Those that it replaced are called like it, followed by C(-old-).
    type: str
    default: proxme-tunnel-sshd
  passwd:
    description: The file with the accounts and their user ids.
    type: path
    default: /etc/proxme-tunnel/sshd_tunnel/accounts/passwd
  labels:
    description: Names and port labels whose connections end, such as V(guest-x) or V(8080).
    type: list
    elements: str
    default: []
  addresses:
    description: Addresses and networks whose connections end.
    type: list
    elements: str
    default: []
  accounts:
    description:
      - User ids of accounts whose connections end.
      - Those who have not logged in yet end with them, since they would come in with what their account had.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    description: Says which connections would end.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: List the connections
  proxme.tunnel.connections:
  register: connections

- name: End the connections that are blocked
  proxme.tunnel.connections:
    labels: [guest-phish, "8080"]
    addresses: [192.0.2.0/24]

- name: End the connections of accounts that lost something
  proxme.tunnel.connections:
    accounts: "{{ tunnel_accounts_compiled.ended }}"
"""

RETURN = r"""
connections:
  description: The connections that there were.
  returned: success
  type: list
  elements: dict
  contains:
    container:
      description: The container that it is held by.
      type: str
    account:
      description: The account that logged in.
      type: str
    uid:
      description: Its user id.
      type: int
    from:
      description: The client's address.
      type: str
    since:
      description: When it logged in, UTC.
      type: str
    process:
      description: Id of its process on the host.
      type: int
    forwards:
      description: What it holds, as its client wrote it, such as V(8080) or V(blog:80).
      type: list
    labels:
      description: What that is to visitors; port labels, and the addresses of names.
      type: list
    summary:
      description: All that in one sentence.
      type: str
ended:
  description: Those of them that were ended, or would be.
  returned: success
  type: list
  elements: dict
"""

import datetime
import hashlib
import ipaddress
import os
import pathlib
import re
import signal
import sys
import time
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

PROC = pathlib.Path("/proc")
SSH_PORT = 2222  # inside the container
PATIENCE = 5  # seconds within which a process that was killed is gone
NAMES = ipaddress.ip_network("fd74::/16")  # their addresses
FIRST_ID = 20000  # of the accounts' user ids
ESTABLISHED = "01"
LISTENING = "0A"


class RefusedError(Exception):
    """A sentence about what could not be done."""


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
            (local, port), remote = fields[1].split(":"), fields[2].split(":")[0]
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
    boot = int(re.search(r"^btime (\d+)", (PROC / "stat").read_text(), re.MULTILINE)[1])
    return datetime.datetime.fromtimestamp(boot + ticks / 100, datetime.timezone.utc)


def address_of_name(name: str) -> str:
    """Return the address that a name is (names.lua)."""
    return str(ipaddress.IPv6Address(b"\xfd\x74" + hashlib.sha256(name.encode()).digest()[:14]))


class Engine:
    """Docker, by its program."""

    def __init__(self, module: AnsibleModule, container: str) -> None:
        """`container` is that of sshd."""
        self.module = module
        self.container = container

    def run(self, *arguments: str) -> str:
        """Return what a docker command said, a log whole; raise RefusedError if it fails."""
        code, output, errors = self.module.run_command(["docker", *arguments])
        if code:
            raise RefusedError(f"docker {' '.join(arguments)} failed: {(errors or output).strip()}")
        return errors + output if arguments[0] == "logs" else output

    def containers(self) -> list[str]:
        """Return the running containers, the present one first."""
        names = self.run("ps", "--format", "{{.Names}}").split()
        return sorted(name for name in names if name == self.container or name.startswith(f"{self.container}-old-"))

    def run_for(self, container: str, *arguments: str) -> str | None:
        """Do as `run` does; None if it failed since the container has ended: a replaced one does with its last one."""
        try:
            return self.run(*arguments)
        except RefusedError:
            if container in self.containers():
                raise
            return None


def asked_names(log: str) -> dict[str, str]:
    """Return the names that connections asked for, by address."""
    # The second is of containers from before an update.
    asked = re.findall(r" (?:wildcard \d addr|tcpip-forward listen) (\S+)(?: port \d+)?\s*$", log, re.MULTILINE)
    names = {name.lower().split(".")[0] for name in asked}
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


def is_to_end(connection: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a connection holds a blocked label, comes from a blocked address, or is of an account that is to end."""
    held_labels = {label if label.isdigit() else address_of_name(label) for label in options["labels"]}
    networks = [ipaddress.ip_network(address, strict=False) for address in options["addresses"]]
    origin = ipaddress.ip_address(connection["from"])
    return (
        bool(held_labels & set(connection["labels"]))
        or any(origin in network for network in networks)
        or connection["uid"] in options["accounts"]
    )


def end(connection: dict[str, Any]) -> None:
    """End a connection, as its account's process is the one that holds it; raise RefusedError if it does not end."""
    process = PROC / str(connection["process"])
    try:
        os.kill(connection["process"], signal.SIGKILL)
    except ProcessLookupError:
        return  # ended since
    deadline = time.monotonic() + PATIENCE
    while process.exists():
        if time.monotonic() > deadline:
            raise RefusedError(f"This connection does not end: {connection['summary']}.")
        time.sleep(0.05)


def end_accounts(engine: Engine, container: str, accounts: list[int]) -> None:
    """End who has not logged in yet and all connections of these accounts, by the container's own programs."""
    ids = [str(account) for account in accounts]
    if engine.run_for(container, "exec", container, "end-logins") is not None:
        engine.run_for(container, "exec", container, "end-sessions", *ids)


def account_names(passwd: str) -> dict[str, str]:
    """Return the accounts by user id."""
    try:
        lines = pathlib.Path(passwd).read_text().splitlines()
    except OSError as error:
        raise RefusedError(f"{passwd} can't be read ({error.strerror}). Run site.yml first.") from error
    entries = [line.split(":") for line in lines]
    return {entry[2]: entry[0] for entry in entries if len(entry) > 2}


def connections(engine: Engine, container: str, accounts: dict[str, str]) -> list[dict[str, Any]]:
    """Return who is connected to one container."""
    log, processes = (
        engine.run_for(container, *command)
        for command in (("logs", container), ("top", container, "-eo", "pid,uid,comm"))
    )
    names = asked_names(log or "")
    found = []
    for line in (processes or "").splitlines()[1:]:
        pid, uid, command = line.split(None, 2)
        process = PROC / pid
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
                "uid": int(uid),
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


def run(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result; raise RefusedError if something cannot be done."""
    options = module.params
    ends = bool(options["labels"] or options["addresses"] or options["accounts"])
    engine = Engine(module, options["container"])
    running = engine.containers() if module.get_bin_path("docker") else []
    if not running:
        # In check mode a new host has none of it.
        if ends and module.check_mode:
            return {"changed": False, "connections": [], "ended": []}
        raise RefusedError(
            f"{options['container']} does not run on this host, so nobody is connected. Run site.yml, or look at "
            f"`docker logs {options['container']}`."
        )
    accounts = account_names(options["passwd"])
    found = [connection for name in running for connection in connections(engine, name, accounts)]
    found.sort(key=lambda connection: (connection["account"], connection["since"]))
    ended = [connection for connection in found if is_to_end(connection, options)]
    if not module.check_mode:
        for connection in ended:
            if connection["uid"] not in options["accounts"]:
                end(connection)
        for name in running if options["accounts"] else ():
            end_accounts(engine, name, options["accounts"])
    # Who has not logged in yet is not listed.
    return {"changed": bool(ended or options["accounts"]), "connections": found, "ended": ended}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "default": "proxme-tunnel-sshd"},
            "passwd": {"type": "path", "default": "/etc/proxme-tunnel/sshd_tunnel/accounts/passwd"},
            "labels": {"type": "list", "elements": "str", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "accounts": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (RefusedError, ValueError) as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
