# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the project's playbooks as an operator does, and says what they changed."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from world import Scenario

ROOT = pathlib.Path(__file__).parents[2]
# Seconds that a task which does nothing takes on a usual machine.
PACE = 0.17
# What a run does about a container that an earlier one has replaced, once it has ended.
CLEARED = r": removed proxme-tunnel-[a-z]+-old-[0-9a-f]+$"


def slowness(host: str) -> float:
    """How many times as long as usual a task that does nothing takes in a container, beside all else; 1 or more."""
    command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), str(ROOT / "tests/e2e/pace.yml")]
    command += ["-i", f"{host},", "-e", "ansible_connection=community.docker.docker"]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    # It has 20 of them.
    return max(1, (time.monotonic() - started) / 20 / PACE)


@dataclass(frozen=True)
class Run:
    """A finished run, with -v: exit code, output, seconds, and what has changed."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> list[str]:
        """What has changed, in order: files, "role : task: action" of a container, or "role : task" of other tasks."""
        found, task = [], ""
        for line in self.output.splitlines():
            if heading := re.match(r"(?:TASK|RUNNING HANDLER) \[(?:proxme[.]tunnel[.])?(.*?)\] \*", line):
                task = heading[1]
            elif result := re.match(r"changed: \[[^]]*\](?: => (\{.*))?", line):
                told = json.loads(result[1] or "{}")
                done = told.get("written", []) + [f"{task}: {action}" for action in told.get("actions", [])]
                found += done or [task] * (not found or found[-1] != task)
        return found

    @property
    def changed_but_cleared(self) -> list[str]:
        """What has changed, but for what is left of containers that an earlier run has replaced."""
        return [done for done in self.changed if not re.search(CLEARED, done)]

    def message_of(self, host: str = r"[^]]*") -> str:
        """What the last failure of a host (a regular expression) said; empty if it did not fail."""
        said = re.findall(rf'^fatal: \[{host}\]: .*?"msg": "((?:[^"\\]|\\.)*)"', self.output, re.MULTILINE)
        return json.loads(f'"{said[-1]}"') if said else ""

    @property
    def message(self) -> str:
        """What the last failure said."""
        return self.message_of()

    def expect(self) -> Run:
        """Return self, or raise AssertionError with the end of the output if the run failed."""
        assert self.code == 0, f"the playbook failed: {self.message}\n{self.output[-6000:]}"
        return self


class Operator:
    """Runs playbooks with the inventory of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        """Work on this scenario's host."""
        self.scenario = scenario

    def run(
        self,
        playbook: str | pathlib.Path | list[pathlib.Path] = ROOT / "site.yml",
        *options: str,
        variables: dict[str, Any] | None = None,
        folder: pathlib.Path = ROOT,
        environment: dict[str, str] | None = None,
        inventory: pathlib.Path | None = None,
    ) -> Run:
        """Run `ansible-playbook` in `folder`, with one playbook or several.

        `variables` are set on top of the inventory's (-e); without an `inventory` it is the scenario's.
        """
        playbooks = playbook if isinstance(playbook, list) else [playbook]
        command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), *map(str, playbooks)]
        command += ["-i", str(inventory or self.scenario.inventory), *options]
        if not any(option.startswith("-v") for option in options):
            command.append("-v")
        if variables:
            command += ["-e", json.dumps(variables)]
        # Molecule's own settings, such as its roles_path, are not an operator's.
        own = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        # The scenario's inventory asks for these two.
        added = {
            "MOLECULE_EPHEMERAL_DIRECTORY": str(self.scenario.inventory.parent),
            "MOLECULE_SCENARIO_NAME": self.scenario.scenario,
        }
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=folder,
            env={**own, **added, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout, time.monotonic() - started)
