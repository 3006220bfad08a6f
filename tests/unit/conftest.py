# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share: the checkout, its files, and the tools of the interpreter's own environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader
from nginx import Nginx
from programs import BIN, Program, build_images, started

# Before any test imports from the collection: what Python itself has found, Ansible's own finder would not know.
init_plugin_loader([])

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the checkout."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sources(root) -> list[Path]:
    """Return every file that git has or would take, relative to the checkout's top."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(Path(name) for name in set(listed.split("\0")) if name and (root / name).is_file())


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Return an environment in which the interpreter's tools come first and no setting of Ansible leaks in."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    return own | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_HOME": str(tmp_path_factory.mktemp("ansible")),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def run(root, environment) -> Run:
    """Return a function that runs a tool of the interpreter's environment and fails the test with the tool's output."""

    def _run(tool, *arguments, cwd=root, **variables):
        command = [str(BIN / tool), *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"{tool} exited with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
        return done

    return _run


@pytest.fixture(scope="session")
def artifact(run, tmp_path_factory) -> Path:
    """Return the collection's artifact, built from the checkout."""
    folder = tmp_path_factory.mktemp("build")
    run("ansible-galaxy", "collection", "build", "--output-path", folder)
    (built,) = folder.glob("proxme-tunnel-*.tar.gz")
    return built


@pytest.fixture
def nginx(tmp_path) -> Nginx:
    """Return an nginx of the role nginx_subdomains without tunnels, at the first second of its life."""
    return Nginx(tmp_path)


@pytest.fixture(scope="session")
def role_images() -> dict[str, str]:
    """Return the full names of the roles' own images."""
    return build_images()


@pytest.fixture(scope="session")
def sshd(role_images, tmp_path_factory) -> Iterator[Program]:
    """Return the sshd that tunnels end at."""
    with started("sshd", role_images["sshd"], tmp_path_factory.mktemp("sshd")) as program:
        yield program


@pytest.fixture(scope="session")
def real_nginx(role_images, tmp_path_factory) -> Iterator[Program]:
    """Return the nginx that leads visitors to tunnels."""
    with started("nginx", role_images["nginx"], tmp_path_factory.mktemp("nginx")) as program:
        yield program


@pytest.fixture(scope="session")
def resolver(role_images, tmp_path_factory) -> Iterator[Program]:
    """Return the dnsdist that says which address a name has."""
    with started("resolver", role_images["resolver"], tmp_path_factory.mktemp("resolver")) as program:
        yield program


@pytest.fixture(scope="session")
def holder(role_images, tmp_path_factory) -> Iterator[Program]:
    """Return what loads the packet filters."""
    with started("holder", role_images["holder"], tmp_path_factory.mktemp("holder")) as program:
        yield program


@pytest.fixture(scope="session")
def real_edge(role_images, tmp_path_factory) -> Iterator[Program]:
    """Return the nginx at the https port."""
    with started("edge", role_images["edge"], tmp_path_factory.mktemp("edge")) as program:
        yield program
