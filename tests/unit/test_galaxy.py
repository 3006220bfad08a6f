# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Galaxy server runs on an upload, and what Ansible's own tools say of a collection, find nothing."""

from __future__ import annotations

import logging
import re
import sys
import tarfile
from pathlib import Path

import ansible_test
import pytest
import yaml
from galaxy_importer import collection, constants
from galaxy_importer.config import Config

pytestmark = pytest.mark.galaxy
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# ansible-test fetches pip's installer from a host of its own, which not every network lets through. This does the same
# from the package index that pip is set up for.
GET_PIP = Path("~/.ansible/test/cache").expanduser()
INSTALL_PIP = """\
import subprocess, sys
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=True)
"""


@pytest.fixture(scope="module")
def unpacked(artifact, tmp_path_factory) -> Path:
    """Return the artifact's content, at a place where Ansible's tools see a collection."""
    folder = tmp_path_factory.mktemp("unpacked") / "ansible_collections/proxme/tunnel"
    folder.mkdir(parents=True)
    with tarfile.open(artifact) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_galaxy_server_takes_the_artifact_without_a_warning(artifact, unpacked, environment, monkeypatch, caplog):
    monkeypatch.setenv("PATH", environment["PATH"])
    # It asks ansible-doc for each of 14 kinds of plugins, which takes a second each: here for those that there are.
    there = {folder.name for folder in (unpacked / "plugins").glob("*")}
    kinds = [kind for kind in constants.ANSIBLE_DOC_SUPPORTED_TYPES if {kind, f"{kind}s"} & there]
    monkeypatch.setattr(constants, "ANSIBLE_DOC_SUPPORTED_TYPES", kinds)
    # test_lint.py has ansible-lint look at the same files, and at more.
    settings = Config({"run_ansible_lint": False, "check_required_tags": True})
    name = collection.CollectionFilename(*re.fullmatch(r"(\w+)-(\w+)-(.+)\.tar\.gz", artifact.name).groups())
    with caplog.at_level(logging.WARNING), artifact.open("rb") as file:
        collection.import_collection(file, name, cfg=settings)
    assert not [record.getMessage() for record in caplog.records]


def test_ansible_lint_sees_in_the_checkout_what_it_sees_in_the_artifact(root):
    # The artifact has no .ansible-lint: whatever that says of files (which are playbooks, which are left out) is
    # unknown to a Galaxy server.
    assert not {"kinds", "skip_list", "warn_list"} & set(yaml.safe_load((root / ".ansible-lint").read_text()))


@pytest.mark.slow
def test_the_importer_itself_finds_nothing(run, artifact, tmp_path):
    said = run("python", "-m", "galaxy_importer.main", artifact, cwd=tmp_path).stdout
    assert "Importer processing completed successfully" in said
    assert not re.findall(r"^(?:WARNING|ERROR): .*", said, re.MULTILINE)


def test_the_documentation_of_roles_and_modules_is_well_formed(run, unpacked):
    run("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", ".", cwd=unpacked)


def test_ansible_test_finds_nothing(run, unpacked):
    source = Path(ansible_test.__file__).parent / "_internal/python_requirements.py"
    version = re.search(r"default_packages = dict\(\s*pip='([\d.]+)'", source.read_text()).group(1)
    installer = GET_PIP / f"get_pip_{version.replace('.', '_')}.py"
    if not installer.exists():
        installer.parent.mkdir(parents=True, exist_ok=True)
        installer.write_text(INSTALL_PIP)
    # shebang: it takes every script for one that Ansible runs. Ours among the roles' files run on the host and in
    # containers.
    arguments = ("--local", "--requirements", "--python", PYTHON, "--skip-test", "shebang", "--color", "no")
    run("ansible-test", "sanity", *arguments, cwd=unpacked)
