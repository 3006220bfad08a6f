# SPDX-License-Identifier: GPL-3.0-or-later
"""The Molecule scenarios: what molecule/NAME/molecule.yml says of each, and how a step of one is run."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).parents[2]
# Molecule finds its base by itself only in a git checkout.
BASE = ROOT / ".config/molecule/config.yml"
CACHE = ROOT / ".cache"
# `demo` is tested by `make demo` itself.
NAMES = sorted({path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - {"demo"})


@dataclass(frozen=True)
class Molecule:
    """A scenario as its files describe it.

    `steps` are those of its test sequence, in order, with repeated ones numbered: ("create", "check", …, "check-2").
    `tests` are the files that look at its host, in the place of the step `verify`.
    """

    name: str
    steps: tuple[str, ...]
    tests: frozenset[pathlib.Path]
    slow: bool
    alone: bool

    @property
    def facts(self) -> pathlib.Path:
        """Where molecule/shared/create.yml says where everything is."""
        return CACHE / self.name / "env.json"

    def log(self, step: str) -> pathlib.Path:
        """What a step said."""
        return CACHE / "logs" / self.name / f"{step}.log"

    def run(self, step: str) -> Done:
        """Run one step; all that it says goes to its log."""
        environment = {**os.environ, "MOLECULE_COMMAND_BORDERS": "false", "COLUMNS": "160", "NO_COLOR": "1"}
        environment |= {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
        environment["PATH"] = f"{pathlib.Path(sys.executable).parent}:{environment['PATH']}"
        action = step.partition("-")[0].replace("_", "-")
        command = [sys.executable, "-m", "molecule", "--base-config", str(BASE), action, "--scenario-name", self.name]
        log = self.log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with log.open("w") as file:
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode
        return Done(code, log.read_text(errors="replace"), time.monotonic() - started)


@dataclass(frozen=True)
class Done:
    """A finished step: exit code, output, seconds."""

    code: int
    output: str
    seconds: float

    @property
    def reason(self) -> str:
        """What a failed play said of its first failure: from that task's name to the next task or the recap."""
        for task in re.split(r"^(?=TASK \[|PLAY )", self.output, flags=re.MULTILINE):
            if re.search(r"^(fatal|failed): |^\[ERROR\]", task, re.MULTILINE) and "...ignoring" not in task:
                return task[:6000].strip()
        return self.output[-2000:].strip()


@cache
def molecule(name: str) -> Molecule:
    """Read what describes a scenario."""
    base, own = (yaml.safe_load(path.read_text()) or {} for path in (BASE, ROOT / "molecule" / name / "molecule.yml"))
    variables = {**_variables(base), **_variables(own)}
    sequence = {**base["scenario"], **own.get("scenario", {})}["test_sequence"]
    counts: dict[str, int] = {}
    steps = []
    for step in sequence:
        counts[step] = counts.get(step, 0) + 1
        steps.append(step if counts[step] == 1 else f"{step}-{counts[step]}")
    found = {pattern: list(ROOT.glob(pattern)) for pattern in variables["scenario_tests"]}
    if nowhere := [pattern for pattern, paths in found.items() if not paths]:
        raise ValueError(f"scenario_tests of {name}: there is no {', '.join(nowhere)}")
    tests = frozenset(path for paths in found.values() for path in paths)
    return Molecule(name, tuple(steps), tests, variables["scenario_slow"], variables["scenario_alone"])


def _variables(config: dict[str, Any]) -> dict[str, Any]:
    """The variables that a molecule.yml gives to all hosts."""
    return config.get("provisioner", {}).get("inventory", {}).get("group_vars", {}).get("all", {})
