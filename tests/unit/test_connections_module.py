# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the module connections lists from the kernel's tables, and whom it ends."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.proxme.tunnel.plugins.modules import connections

# Says what a file of its name has, and keeps a record of what it was asked for.
DOCKER = """#!{python}
import pathlib, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with (folder / "asked").open("a") as asked:
    asked.write(" ".join(words) + "\\n")
if words[0] == "exec" and (folder / "ends-meanwhile").exists():
    running = (folder / "ps").read_text().split()
    (folder / "ps").write_text("\\n".join(name for name in running if name != words[1]))
    sys.exit(137)
if (folder / ("fails-" + words[0])).exists():
    sys.exit("it is not well")
answer = folder / (words[0] if words[0] == "ps" else words[0] + "-" + words[1])
text = answer.read_text() if answer.exists() else ""
print(text, end="", file=sys.stderr if words[0] == "logs" else sys.stdout)
"""
TABLE = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def hexadecimal(address: str) -> str:
    """An address as the kernel's tables have it."""
    packed = connections.ipaddress.ip_address(address).packed
    words = [int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words)


class Kernel:
    """A host with containers of sshd, and who is connected to them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.proc.mkdir()
        (self.proc / "stat").write_text("cpu 1\nbtime 1700000000\n")
        program = folder / "bin/docker"
        program.parent.mkdir()
        program.write_text(DOCKER.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        (folder / "passwd").write_text("tunnel:x:20000:1::/:/x\nalice:x:20001:1::/:/x\n")
        self.inode = 100
        self.top: dict[str, list[str]] = {}

    def runs(self, *containers: str) -> None:
        """These containers run."""
        (self.folder / "ps").write_text("".join(f"{name}\n" for name in containers))

    def connect(
        self, process: int, uid: int, origin: str, *listeners: tuple[str, int], container: str = "proxme-tunnel-sshd"
    ) -> None:
        """Somebody is connected, and holds these listeners."""
        self.top.setdefault(container, ["PID UID COMMAND", "1 0 sshd", "2 0 sshd-session"])
        self.top[container].append(f"{process} {uid} sshd-session")
        (self.folder / f"top-{container}").write_text("\n".join(self.top[container]))
        folder = self.proc / str(process)
        (folder / "fd").mkdir(parents=True)
        (folder / "net").mkdir()
        (folder / "stat").write_text(f"{process} (sshd (x) y) " + "S " * 19 + "100 0 0\n")
        (folder / "fd/0").symlink_to("/dev/null")
        rows = {"tcp": TABLE, "tcp6": TABLE}
        own = [("01", "172.17.0.2", 2222, origin), *(("0A", address, port, "0.0.0.0") for address, port in listeners)]
        for state, address, port, peer in own:
            self.inode += 1
            row = (
                f" 0: {hexadecimal(address)}:{port:04X} {hexadecimal(peer)}:0400 {state} 0:0 0:0 0 0 0 {self.inode} 1\n"
            )
            rows["tcp6" if ":" in address else "tcp"] += row
            (folder / f"fd/{self.inode}").symlink_to(f"socket:[{self.inode}]")
        for table, text in rows.items():
            (folder / "net" / table).write_text(text)

    def log(self, *lines: str, container: str = "proxme-tunnel-sshd") -> None:
        """What sshd has logged."""
        (self.folder / f"logs-{container}").write_text("".join(f"{line}\n" for line in lines))

    def asked(self) -> list[str]:
        """What Docker was asked to do in containers."""
        return [line for line in (self.folder / "asked").read_text().splitlines() if line.startswith("exec")]


BLOG = connections.address_of_name("blog")
Module = Callable[..., dict[str, Any]]


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> Kernel:
    """A host on which alice holds a name and a port label, and a guest another port label, in a replaced container."""
    kernel = Kernel(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(connections, "PROC", kernel.proc)
    kernel.runs("proxme-tunnel-sshd", "proxme-tunnel-sshd-old-1", "proxme-tunnel-sshd2", "web")
    kernel.log(
        "Nov  8 05:15:47 sshd-session[11]: debug3: x.c:x():1 (bin=x, pid=11): type 4 wildcard 0 addr Blog.example"
    )
    kernel.connect(11, 20001, "192.0.2.7", (BLOG, 80), ("127.0.0.1", 8080), ("172.17.0.2", 30001))
    kernel.connect(12, 20000, "198.51.100.9", ("127.0.0.1", 8190), container="proxme-tunnel-sshd-old-1")
    return kernel


@pytest.fixture
def killed(kernel, monkeypatch) -> list[int]:
    """The processes that were killed; they are gone then."""
    found = []

    def _kill(process: int, _signal: int) -> None:
        found.append(process)
        (kernel.proc / str(process)).rename(kernel.folder / f"gone-{process}")

    monkeypatch.setattr(connections.os, "kill", _kill)
    return found


@pytest.fixture
def module(kernel, capsys) -> Module:
    """Run the module with these options; its result."""

    def _module(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"passwd": str(kernel.folder / "passwd"), "_ansible_check_mode": check, **options}
        with patch_module_args(given), pytest.raises(SystemExit):
            connections.main()
        return json.loads(capsys.readouterr().out)

    return _module


def test_who_is_connected_is_listed_with_what_they_hold(module, killed):
    result = module()
    alice, guest = result["connections"]
    assert alice | {"labels": None} == {
        "container": "proxme-tunnel-sshd",
        "account": "alice",
        "uid": 20001,
        "from": "192.0.2.7",
        "since": "2023-11-14 22:13:21 UTC",
        "process": 11,
        "forwards": ["8080", "blog:80", "public:30001"],
        "labels": None,
        "summary": "alice from 192.0.2.7 since 2023-11-14 22:13:21 UTC holds 8080, blog:80, public:30001",
    }
    assert set(alice["labels"]) >= {"8080", BLOG}
    assert guest["summary"].endswith("holds 8190 (in the replaced proxme-tunnel-sshd-old-1)")
    assert (result["ended"], result["changed"], killed) == ([], False, [])


def test_a_name_that_a_container_from_before_an_update_has_logged_is_known(module, kernel):
    kernel.log("debug1: tcpip-forward listen Blog.proxme.example.com port 80\r")
    assert "blog:80" in module()["connections"][0]["forwards"]


def test_a_name_that_is_no_longer_in_the_log_is_shown_as_its_address(module, kernel):
    kernel.log("nothing")
    assert f"{BLOG}:80" in module()["connections"][0]["forwards"]


def test_a_removed_account_is_shown_as_one(module, kernel):
    (kernel.folder / "passwd").write_text("tunnel:x:20000:1::/:/x\n")
    assert [found["account"] for found in module()["connections"]] == ["removed account 20001", "tunnel"]


@pytest.mark.parametrize(
    ("blocked", "ended"),
    [
        ({"labels": ["blog"]}, [11]),
        ({"labels": ["8190"]}, [12]),
        ({"labels": [8080, "other"]}, [11]),
        ({"labels": ["80"]}, []),
        ({"addresses": ["192.0.2.0/24"]}, [11]),
        ({"addresses": ["198.51.100.9"], "labels": ["blog"]}, [11, 12]),
        ({"addresses": ["2001:db8::/32"]}, []),
    ],
)
def test_who_is_blocked_ends(module, killed, blocked, ended):
    would = module(check=True, **blocked)
    assert killed == []
    result = module(**blocked)
    assert sorted(killed) == ended
    assert sorted(found["process"] for found in result["ended"]) == ended
    assert would == result
    assert result["changed"] == bool(ended)


def test_one_that_does_not_end_is_said(module, monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0)
    monkeypatch.setattr(connections.os, "kill", lambda *_: None)
    result = module(labels=["blog"])
    assert result["failed"]
    assert result["msg"].startswith("This connection does not end: alice from 192.0.2.7 since")


def test_one_that_ended_meanwhile_is_no_failure(module, monkeypatch):
    def _kill(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(connections.os, "kill", _kill)
    assert not module(labels=["blog"]).get("failed")


def test_accounts_end_in_every_container_by_its_own_programs(module, kernel, killed):
    assert module(check=True, accounts=[20001])["changed"]
    assert kernel.asked() == []
    result = module(accounts=[20001, 20005])
    assert kernel.asked() == [
        f"exec {name} {program}"
        for name in ("proxme-tunnel-sshd", "proxme-tunnel-sshd-old-1")
        for program in ("end-logins", "end-sessions 20001 20005")
    ]
    assert [found["account"] for found in result["ended"]] == ["alice"]
    assert killed == []
    assert result["changed"]


def test_a_container_that_ends_meanwhile_is_no_failure(module, kernel):
    (kernel.folder / "ends-meanwhile").touch()
    assert module(accounts=[20001])["changed"]
    assert [line.split()[1:] for line in kernel.asked()] == [
        ["proxme-tunnel-sshd", "end-logins"],
        ["proxme-tunnel-sshd-old-1", "end-logins"],
    ]


@pytest.mark.parametrize("command", ["exec", "top", "logs", "ps"])
def test_what_docker_cannot_do_is_said(module, kernel, command):
    (kernel.folder / f"fails-{command}").touch()
    result = module(accounts=[20001])
    assert result["failed"]
    assert f"docker {command} " in result["msg"]
    assert result["msg"].endswith("failed: it is not well")


def test_without_sshd_nobody_is_connected(module, kernel):
    kernel.runs("web")
    for options in ({}, {"accounts": [20001]}):
        result = module(**options)
        assert result["msg"].startswith("proxme-tunnel-sshd does not run on this host, so nobody is connected. Run")


def test_check_mode_bears_a_new_host(module, kernel, monkeypatch):
    kernel.runs()
    nothing = {"changed": False, "connections": [], "ended": []}
    assert {key: module(check=True, labels=["blog"])[key] for key in nothing} == nothing
    monkeypatch.setenv("PATH", str(kernel.folder))
    assert {key: module(check=True, accounts=[20001])[key] for key in nothing} == nothing
    assert "does not run on this host" in module(check=True)["msg"]


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("172.17.0.2", 2222, True),
        ("172.17.0.2", 30001, False),
        ("127.0.0.1", 2222, False),
        ("fd74:aa00::1", 2222, False),
    ],
    ids=["sshd", "public port", "port label", "name"],
)
def test_a_visitor_of_a_tunnel_is_not_taken_for_its_owner(address, port, expected):
    socket = connections.Socket(connections.ESTABLISHED, address, port, "192.0.2.7")
    assert connections.is_of_ssh(socket) is expected
