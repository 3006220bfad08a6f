# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs each Molecule scenario, one step of it a test, in order.

The tests of tests/e2e, which the step `verify` runs, are reported one by one as its subtests. After a failed step the
following ones fail at once. The instance is destroyed at the end, unless KEEP=1.
"""

import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from playbook import slowness  # noqa: E402

# `demo` is tested by `make demo` itself.
FOUND = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - {"demo"}
SCENARIOS = sorted(FOUND, key=lambda name: (name != "default", name))
# All scenarios together take longer than CI may. `make test-slow` runs these, with the same asserts, and so does ONLY.
SLOW = {"abuse", "caddy_dns", "choices", "faults", "load", "restore", "upgrade"}
# Seconds that the second run may take on a usual machine; in proportion on one that is slower (playbook.slowness).
SECOND_RUN = 60


def steps(scenario: str) -> list[str]:
    """The steps of a scenario, in order, with repeated ones numbered: ["create", "check", ..., "check-2", ...]."""
    shared = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())
    own = yaml.safe_load((ROOT / "molecule" / scenario / "molecule.yml").read_text()) or {}
    sequence = own.get("scenario", {}).get("test_sequence") or shared["scenario"]["test_sequence"]
    counts: dict[str, int] = {}
    numbered = []
    for step in sequence:
        counts[step] = counts.get(step, 0) + 1
        numbered.append(step if counts[step] == 1 else f"{step}-{counts[step]}")
    return numbered


class Scenario:
    """One scenario's run."""

    def __init__(self, name: str) -> None:
        """The output of the step `verify` goes to a folder of our own."""
        self.name = name
        self.folder = ROOT / ".cache" / name
        self.failed: str | None = None

    def molecule(self, action: str) -> tuple[int, str]:
        """Run one action with its output shown as it comes; its exit code and its output."""
        environment = {
            **os.environ,
            "MOLECULE_COMMAND_BORDERS": "false",
            "COLUMNS": "160",
            "PROXME_VERIFY_FOLDER": str(self.folder),
        }
        # Molecule finds its base by itself only in a git checkout.
        base = str(ROOT / ".config/molecule/config.yml")
        command = [sys.executable, "-m", "molecule", "--base-config", base, action, "--scenario-name", self.name]
        environment["PATH"] = f"{pathlib.Path(sys.executable).parent}:{environment['PATH']}"
        self.folder.mkdir(parents=True, exist_ok=True)
        done = threading.Event()
        follower = threading.Thread(target=follow, args=(self.folder / "verify.log", done))
        if action == "verify":
            (self.folder / "verify.log").unlink(missing_ok=True)
            follower.start()
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert process.stdout
            lines = []
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
            return process.wait(), "".join(lines)
        finally:
            done.set()
            if action == "verify":
                follower.join()


def reason(output: str) -> str:
    """What a failed play said of its first failure: from that task's name to the next task or the recap."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", output)
    for task in re.split(r"^(?=TASK \[|PLAY )", plain, flags=re.MULTILINE):
        if re.search(r"^(fatal|failed): |^\[ERROR\]", task, re.MULTILINE) and "...ignoring" not in task:
            return task[:6000].strip()
    return plain[-2000:].strip()


def follow(log: pathlib.Path, done: threading.Event) -> None:
    """Show what is written to `log`, while Ansible keeps it back, until `done` is set."""
    shown = 0
    while True:
        last = done.is_set()
        if log.exists():
            data = log.read_bytes()
            sys.stdout.write(data[shown:].decode(errors="replace"))
            sys.stdout.flush()
            shown = len(data)
        if last:
            return
        time.sleep(0.3)


@pytest.fixture(scope="module")
def scenarios() -> Iterator[dict[str, Scenario]]:
    """The runs so far; what is left of them is destroyed at the end, also when the tests are interrupted."""
    runs: dict[str, Scenario] = {}
    yield runs
    if not os.environ.get("KEEP"):
        for run in runs.values():
            run.molecule("destroy")


@pytest.mark.scenario
@pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param(name, step, id=f"{name}-{step}", marks=[pytest.mark.slow] if name in SLOW else [])
        for name in SCENARIOS
        for step in steps(name)
    ],
)
def test_scenario(
    name: str,
    step: str,
    scenarios: dict[str, Scenario],
    subtests: pytest.Subtests,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = scenarios.setdefault(name, Scenario(name))
    if run.failed:
        pytest.fail(f"not tried, as the step {run.failed} of {name} failed before", pytrace=False)
    last = step.startswith("destroy") and step == steps(name)[-1]
    if last and os.environ.get("KEEP"):
        return
    # Until it has passed; also if it is interrupted.
    run.failed = step
    with capfd.disabled():
        print(f"\n=== {name}: {step}", flush=True)
        started = time.monotonic()
        code, output = run.molecule(step.partition("-")[0].replace("_", "-"))
        seconds = time.monotonic() - started
    report = run.folder / "verify.xml"
    if step.startswith("verify") and report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            with subtests.test(f"{case.get('classname')}::{case.get('name')}"):
                for kind in ("failure", "error", "skipped"):
                    if (found := case.find(kind)) is not None:
                        text = f"{kind}: {found.text or found.get('message')}"
                        if kind == "skipped":
                            pytest.skip(text)
                        pytest.fail(text, pytrace=False)
    if code:
        pytest.fail(f"molecule {step} of the scenario {name} failed:\n{reason(output)}", pytrace=False)
    if step == "check-2" and "changed=0 " not in re.sub(r"\x1b\[[\d;]*m", "", output):
        pytest.fail(f"--check on the converged host of {name} would change something; see above", pytrace=False)
    if step == "idempotence" and seconds > SECOND_RUN:
        limit = SECOND_RUN * slowness(f"proxme-{name}-host")
        if seconds > limit:
            pytest.fail(f"the second run on {name} took {seconds:.0f} s; it may take {limit:.0f}", pytrace=False)
    run.failed = None
