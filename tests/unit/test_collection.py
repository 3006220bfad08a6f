# SPDX-License-Identifier: GPL-3.0-or-later
"""The built artifact holds what an operator needs and nothing else, and works once installed."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

# All that the artifact may hold at its top level; MANIFEST.json and FILES.json are made by the build.
TOP_LEVEL = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "docs",
    "inventory.example",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


@pytest.fixture(scope="module")
def files(artifact) -> set[str]:
    """Return the names of the artifact's files."""
    with tarfile.open(artifact) as archive:
        return {member.name for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def installed(run, artifact, tmp_path_factory) -> Path:
    """Return the folder of collections into which the artifact was installed."""
    folder = tmp_path_factory.mktemp("collections")
    run("ansible-galaxy", "collection", "install", artifact, "--no-deps", "--offline", "-p", folder, cwd=folder)
    return folder


def test_the_artifact_holds_nothing_that_only_developers_need(files):
    assert {name.split("/")[0] for name in files} <= TOP_LEVEL
    assert not [name for name in files if "__pycache__" in name or name.endswith((".pyc", ".tar.gz", ".retry"))]


def test_the_artifact_holds_every_role_playbook_and_document(root, sources, files):
    wanted = {
        str(path) for path in sources if path.parts[0] in ("roles", "playbooks", "docs") or path.name == "LICENSE"
    }
    assert {"playbooks/site.yml", "docs/reference.md", "LICENSE", "README.md"} <= files
    assert not wanted - files


def test_the_installed_collection_runs_by_its_full_name(run, root, installed, tmp_path):
    collection = installed / "ansible_collections/proxme/tunnel"
    inventory = tmp_path / "inventory"
    inventory.write_bytes((collection / "inventory.example").read_bytes())
    arguments = ("proxme.tunnel.site", "-i", inventory)
    run("ansible-playbook", *arguments, "--syntax-check", cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed))
    check = ("proxme.tunnel.doctor", "-i", inventory)
    run("ansible-playbook", *check, "--syntax-check", cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed))
    listed = run("ansible-playbook", *arguments, "--list-tasks", cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed))
    for role in sorted(path.name for path in (root / "roles").iterdir() if path.is_dir()):
        assert role in listed.stdout, f"the installed playbook doesn't run the role {role}"
