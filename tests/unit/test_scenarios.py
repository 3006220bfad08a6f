# SPDX-License-Identifier: GPL-3.0-or-later
"""Every end-to-end test runs in a scenario, and every playbook of a scenario is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from scenarios import NAMES, molecule  # noqa: E402


def test_every_end_to_end_test_belongs_to_a_scenario():
    run = {path for name in NAMES for path in molecule(name).tests}
    there = {path for path in (ROOT / "tests/e2e").rglob("test_*.py") if path.parent.name != "steps"}
    assert there == run


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_makes_its_host_itself_and_removes_it(name):
    steps = molecule(name).steps
    assert steps[0] == "destroy"
    assert steps[-1].startswith("destroy")
    assert steps.index("create") < steps.index("converge") < steps.index("verify")


def test_every_playbook_of_a_scenario_is_used():
    for folder in (path.parent for path in ROOT.glob("molecule/*/molecule.yml")):
        own = yaml.safe_load((folder / "molecule.yml").read_text()) or {}
        used = set(own.get("ansible", {}).get("playbooks", {}).values())
        assert {path.name for path in folder.glob("*.yml")} - {"molecule.yml"} == used, folder.name
