# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the tests that look at a tunnel host from outside, each on the hosts of its scenarios; and their fixtures.

Without PROXME_SCENARIO each chosen scenario is made, looked at and destroyed: its steps (test_steps.py) are tests as
well. With it, the tests look at the host that is there. world.py says what the fixtures can do.
"""

import json
import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playbook import Operator
from scenarios import NAMES, Molecule, molecule

# What the tests of faults need, and the table that they print.
from watch import pytest_terminal_summary, steady, watch  # noqa: F401
from world import Ca, Client, Host, Scenario, Visitor, Web, World
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

THERE = os.environ.get("PROXME_SCENARIO")
# The scenarios that a failed step has ended, in this process.
ended: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let scenarios be chosen."""
    parser.addoption("--scenario", action="append", choices=NAMES, help="a scenario to run; default: all")


def chosen(config: pytest.Config) -> list[Molecule]:
    """The scenarios to run; first those that build the images that the others get."""
    names = config.getoption("scenario", None)
    if THERE and names:
        raise pytest.UsageError("PROXME_SCENARIO names an instance that is there: unset it, or leave --scenario out")
    if THERE:
        return [molecule(json.loads(pathlib.Path(THERE).read_text())["scenario"])]
    found = [molecule(name) for name in names or NAMES]
    return sorted(found, key=lambda scenario: "prepare" in scenario.steps)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Leave out the tests that belong to no chosen scenario. What the command line names is never asked for here."""
    if not collection_path.name.startswith("test_"):
        return None
    if collection_path.name == "test_steps.py":
        return bool(THERE)
    return not any(collection_path in scenario.tests for scenario in chosen(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test once in each of its scenarios."""
    scenarios, path = chosen(metafunc.config), metafunc.definition.path
    if "scenario_step" in metafunc.fixturenames:
        steps = [(one, step) for one in scenarios for step in one.steps if step != "verify"]
        cases = [pytest.param(step, id=f"{step[0].name}-{step[1]}", marks=marks(step[0])) for step in steps]
        metafunc.parametrize("scenario_step", cases)
    elif "scenario" not in metafunc.fixturenames:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} asks for no scenario: add the fixture `scenario`")
    else:
        mine = [one for one in scenarios if THERE or path in one.tests]
        cases = [pytest.param(one.name, id=one.name, marks=marks(one)) for one in mine]
        metafunc.parametrize("scenario", cases, indirect=True, scope="session")


def marks(scenario: Molecule) -> list[pytest.MarkDecorator]:
    """How the tests of a scenario are marked."""
    return [pytest.mark.slow] * scenario.slow + [pytest.mark.alone] * scenario.alone


def place(item: pytest.Item) -> tuple[Molecule, int] | None:
    """The scenario of a test, and its place there: the number of its step, where `verify` stands for all others."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if "scenario_step" in given:
        scenario, step = given["scenario_step"]
        return scenario, scenario.steps.index(step)
    if "scenario" in given:
        scenario = molecule(given["scenario"])
        return scenario, scenario.steps.index("verify")
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Put the steps around the tests; -k and -m choose among the tests alone."""
    steps = [item for item in items if "scenario_step" in getattr(item, "fixturenames", ())]
    result = yield
    tests = [item for item in items if item not in set(steps)]
    wanted = {found[0].name for item in tests if (found := place(item))}
    for item in steps:
        scenario, number = place(item)
        keep = os.environ.get("KEEP") and number == len(scenario.steps) - 1
        if scenario.name in wanted and not keep:
            tests.append(item)
    order = {scenario.name: number for number, scenario in enumerate(chosen(config))}
    items[:] = sorted(tests, key=lambda item: (order[found[0].name], found[1]) if (found := place(item)) else (-1, 0))
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Pass over what a failed step has made pointless; the step itself is the failure that is reported."""
    found = place(item)
    if not found or found[0].name not in ended or found[1] == len(found[0].steps) - 1:
        return None
    item.session._setupstate.teardown_exact(nextitem)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note the failed steps."""
    report = yield
    if report.failed and (found := place(item)) and "scenario_step" in item.callspec.params:
        ended[found[0].name] = found[0].steps[found[1]]
    return report


def group(nodeid: str) -> str:
    """Which tests belong together, so that one process runs them in order: a scenario's, or those of a file."""
    of_scenario = re.match(r"tests/e2e/.*?\[(\w+)", nodeid)
    return of_scenario[1] if of_scenario else nodeid.partition("::")[0]


class Together(LoadScopeScheduling):
    """Gives each process of pytest-xdist a scenario after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Not xdist's own loadgroup: version 3.8.0 tells no groups apart under pytest 9.2."""
    return Together(config, log)


class Progress:
    """How far each scenario is, in the process that hears of all tests."""

    def __init__(self) -> None:
        """Begin with none."""
        self.all: dict[str, list[str]] = {}
        self.over: dict[str, list[str]] = {}
        self.begun: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Take note of the tests that there are."""
        self.all = {}
        for one in ids:
            self.all.setdefault(group(one), []).append(one)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Take note of a test that begins."""
        self.begun.add(group(nodeid))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Take note of a test that is over."""
        self.over.setdefault(group(nodeid), []).append(nodeid)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Destroy what a run that was cut off has left."""
        if exitstatus == pytest.ExitCode.INTERRUPTED and not os.environ.get("KEEP"):
            for name in self.begun & set(NAMES):
                if len(self.over.get(name, [])) < len(self.all.get(name, [])):
                    molecule(name).run("destroy")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how far those came that did not come to their end."""
        for name, ids in self.all.items():
            over = self.over.get(name, [])
            if len(over) < len(ids):
                last = f"; the last was {over[-1]}" if over else ""
                terminalreporter.write_line(f"{name}: {len(over)} of {len(ids)} tests were tried{last}")


def pytest_configure(config: pytest.Config) -> None:
    """Tell how far all came, also when the run is cut off."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress())
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """The facts of the scenario that molecule made."""
    path = pathlib.Path(THERE) if THERE else molecule(request.param).facts
    if not path.exists():
        pytest.fail(f"There is no instance of the scenario ({path}): see CONTRIBUTING.md, Work on one instance.")
    return Scenario.read(path)


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
