# SPDX-License-Identifier: GPL-3.0-or-later
"""What GitHub and GitLab are told is the same, and names what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from scenarios import NAMES  # noqa: E402

GITHUB = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
GITLAB = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())


def text(path: str) -> str:
    """Return a template's text, without what only GitHub reads at its head."""
    return re.sub(r"\A---\n.*?^---\n", "", (ROOT / path).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_pipelines_run_each_scenario():
    assert GITHUB["molecule"]["strategy"]["matrix"]["scenario"] == sorted(NAMES)
    assert GITLAB["molecule"]["parallel"]["matrix"] == [{"SCENARIO": sorted(NAMES)}]


def test_the_pipelines_run_all_checks():
    assert {"run": ".ci/run"} in GITHUB["checks"]["steps"]
    assert GITLAB["checks"]["script"] == [".ci/run"]


@pytest.mark.parametrize(
    ("github", "gitlab"),
    [
        ("pull_request_template.md", "merge_request_templates/Default.md"),
        ("ISSUE_TEMPLATE/bug.md", "issue_templates/Bug.md"),
        ("ISSUE_TEMPLATE/idea.md", "issue_templates/Idea.md"),
    ],
)
def test_the_templates_are_the_same(github, gitlab):
    assert text(f".github/{github}") == text(f".gitlab/{gitlab}")
