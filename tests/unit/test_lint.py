# SPDX-License-Identifier: GPL-3.0-or-later
"""The linters find nothing. Each is a test of its own, which fails with the tool's output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
# Text and data, not source: documents, the licence itself, and what antsibull-changelog writes.
WITHOUT_LICENCE_LINE = {".md", ".png", ".svg", ".gitignore", ".gitkeep", ".dockerignore", "go.sum"}
SHELL = re.compile(rb"#!\s*/\S*/(?:env\s+(?:-S\s+)?)?(?:ba|da)?sh\b")
GENERATED = {Path("changelogs/changelog.yaml")}


def is_shell(path: Path) -> bool:
    """Tell whether a file is a shell script, by its name or by its first line."""
    with path.open("rb") as file:
        return path.suffix in (".sh", ".bash") or bool(SHELL.match(file.readline(200)))


def test_ansible_lint_finds_nothing(run):
    run("ansible-lint", "--offline", "--strict", "--profile", "production")


def test_yamllint_finds_nothing(run):
    run("yamllint", "--strict", ".")


def test_ruff_finds_nothing(run):
    run("ruff", "check", "--no-cache", ".")


def test_python_is_formatted(run):
    run("ruff", "format", "--no-cache", "--check", "--diff", ".")


def test_shellcheck_finds_nothing(run, root, sources):
    scripts = [path for path in sources if is_shell(root / path)]
    if not scripts:
        pytest.fail("no shell script found: the search is broken")
    run("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts)


def test_changelog_fragments_are_well_formed(run):
    run("antsibull-changelog", "lint")


def test_every_source_file_names_its_licence(root, sources):
    bare = []
    for path in sources:
        if path.name == "LICENSE" or path in GENERATED or {path.suffix, path.name} & WITHOUT_LICENCE_LINE:
            continue
        head = (root / path).read_text().splitlines()[:10]
        if not any(LICENCE in line for line in head):
            bare.append(str(path))
    assert not bare, "no SPDX line in: " + ", ".join(bare)
