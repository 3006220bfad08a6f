# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that look at a running tunnel host from outside; world.py says what they can do."""

import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import docker
import pytest
from playbook import Operator
from world import Ca, Client, Host, Scenario, Visitor, Web, World


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    """The facts of the scenario that molecule made."""
    path = os.environ.get("PROXME_SCENARIO")
    if not path:
        pytest.fail(
            "These tests need a running scenario: use `molecule verify`, or set PROXME_SCENARIO to the env.json that "
            "`molecule create` wrote (its folder is shown by `molecule create`)."
        )
    return Scenario.read(pathlib.Path(path))


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """The outer engine."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def world(scenario: Scenario) -> World:
    """Starts further containers."""
    return World(scenario)


@pytest.fixture(scope="session")
def domain(scenario: Scenario) -> str:
    """The tunnel host's domain."""
    return scenario.domain


@pytest.fixture(scope="session")
def host(world: World) -> Host:
    """The tunnel host, as its operator sees it."""
    return world.host


@pytest.fixture(scope="session")
def operator(scenario: Scenario) -> Operator:
    """An operator with the scenario's inventory."""
    return Operator(scenario)


@pytest.fixture(scope="session")
def ca(world: World) -> Ca:
    """Pebble."""
    return world.ca


@pytest.fixture(scope="session")
def web(world: World) -> Iterator[Web]:
    """One local web service for all tests, `web:80`. A test that stops or changes a service makes its own."""
    with world.web() as web:
        yield web


@pytest.fixture(scope="session")
def visitor(world: World) -> Iterator[Visitor]:
    """One visitor for all tests."""
    with world.visitor() as visitor:
        yield visitor


@pytest.fixture(scope="session")
def _client(world: World) -> Iterator[Client]:
    with world.client("client") as client:
        yield client


@pytest.fixture
def client(_client: Client) -> Iterator[Client]:
    """A client; the tunnels that a test opened are stopped at its end."""
    yield _client
    _client.stop_all()


@pytest.fixture
def another_client(world: World) -> Iterator[Callable[..., Client]]:
    """Call it for a further client, on a machine (address) of its own."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(world.client(None, *options))
