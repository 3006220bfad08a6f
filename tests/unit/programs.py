# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that read what the roles write, each in a container of the role's own image."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

# Where the tools of the interpreter's own environment are.
BIN = Path(sys.executable).parent
BUILD = Path(__file__).resolve().parents[1] / "images/build.py"
# By image: what its container may, beyond Docker's own choice. The holder's makes network namespaces to try packets in.
CONTAINERS = {
    "sshd": [],
    "nginx": ["--user=0"],
    "resolver": ["--user=0", "--env=PUBLIC_ADDRESS=192.0.2.1"],
    "edge": ["--user=0"],
    "holder": ["--cap-add=NET_ADMIN", "--cap-add=SYS_ADMIN"],
}
FOLDER = "/etc/proxme-tunnel"


def build_images() -> dict[str, str]:
    """Have the images, or fail with what build.py says; their full names by those in CONTAINERS."""
    command = [sys.executable, str(BUILD), *(f"role-{name}" for name in CONTAINERS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(
            f"The programs that these tests ask can't be had. {done.stdout}{done.stderr}".rstrip(), pytrace=False
        )
    built = json.loads(done.stdout.splitlines()[-1])
    return {name: built[f"role-{name}"] for name in CONTAINERS}


class Program:
    """A container that waits for cases."""

    def __init__(self, container: str, shared: Path) -> None:
        """Speak to a container that sees the folder `shared` as /cases."""
        self.container = container
        self.shared = shared
        self.count = itertools.count()

    def read(self, files: Mapping[str, str], command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command where these files, by name, are the role's folder; return how it ended."""
        case = self.shared / str(next(self.count))
        for name, text in files.items():
            (case / name).parent.mkdir(parents=True, exist_ok=True)
            (case / name).write_text(text)
        put = f"ln -sfn /cases/{case.name} {FOLDER}"
        return subprocess.run(
            ["docker", "exec", self.container, "sh", "-euc", f"{put}\n{command}"], capture_output=True, text=True
        )

    def accept(self, files: Mapping[str, str], command: str) -> str:
        """Run it and return its output; fail with what it says if it ends badly."""
        done = self.read(files, command)
        if done.returncode:
            pytest.fail(f"{command}: exited with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
        return done.stdout


@contextmanager
def started(name: str, image: str, shared: Path) -> Iterator[Program]:
    """Run the container of an image, without a network. It ends with its standard input, also if pytest is killed."""
    container = f"proxme-unit-{name}-{uuid.uuid4().hex[:8]}"
    command = ["docker", "run", "--rm", "--interactive", f"--name={container}", "--label=proxme.scenario=unit"]
    command += ["--network=none", f"--volume={shared}:/cases:ro", *CONTAINERS[name], image]
    command += ["sh", "-c", "echo started; exec cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as running:
        said = running.stdout.readline()
        if said != "started\n":
            pytest.fail(f"The container of {name} does not start: {said}{running.communicate()[0]}", pytrace=False)
        yield Program(container, shared)
        running.communicate()
