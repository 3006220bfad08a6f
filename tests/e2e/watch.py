# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that reconnects, what its visitors see of a fault, and the table of what the faults have cost.

conftest.py takes the fixtures and the table from here, for all tests that break something.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from world import Answer, Client, Host, Scenario, Visit, Visitor, Visits, Web, World, until

CONTAINERS = ["network", "resolver", "sshd", "nginx", "caddy-network", "caddy", "edge", "relay"]
NAME = "guest-steady"
# Seconds without a failed visit after which all is well: one that gets no answer is known to have failed after 3.
QUIET = 4
# As the recipes in docs/clients.md have it, but for the pause before the next try.
RECIPE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o ExitOnForwardFailure=yes"


@contextmanager
def steady_client(world: World, web: Web) -> Iterator[Client]:
    """A client that starts ssh again when it ends, and notes each login in /run/logins."""
    with world.client("steady") as client:
        ssh = " ".join(
            ["ssh", *client.options(), RECIPE, "-o PermitLocalCommand=yes", "-o LocalCommand='echo >>/run/logins'"]
        )
        client.write("/run/loop", f"while true; do {ssh} -NR {NAME}:80:{web} tunnel@{client.host}; sleep 1; done\n")
        client.write("/run/logins", "")
        client.spawn("sh", "-c", "sh /run/loop >/run/log 2>&1")
        yield client


def is_page(answer: Answer | Visit) -> bool:
    """Whether a visitor got the page of the fixture `web`."""
    return answer.status == 200 and "Hello from web." in answer.body


class Watch:
    """What the visitors of one tunnel see of a fault."""

    def __init__(self, client: Client, visits: Visits, ledger: list[tuple[str, int, float, int]]) -> None:
        """Watch a client's tunnel by these visits; what was seen goes into `ledger`."""
        self.client, self.ledger, self._visits = client, ledger, visits
        self.url = f"https://{NAME}.{client.host}/"
        # Those who were not served.
        self.bad: list[Visit] = []
        self.failed = 0
        self.healed = 0.0
        self.reconnected = 0

    def logins(self) -> int:
        """How often the client has connected so far."""
        return self.client.read("/run/logins").count("\n")

    def well(self, since: float) -> list[Visit]:
        """All visits from `since` on, once nobody who came within the last QUIET seconds of them was refused."""
        visits = sorted(self._visits.since(since), key=lambda visit: visit.time)
        bad = [visit.time for visit in visits if not is_page(visit)]
        return visits if visits and visits[-1].time - max([since, *bad]) > QUIET else []

    @contextmanager
    def of(self, fault: str, within: float = 30) -> Iterator[None]:
        """Count what fails from the start of the block until all is well again, `within` seconds after it."""
        until("all is well before", lambda: self.well(time.monotonic() - 2 * QUIET), within=60)
        logins, start = self.logins(), time.monotonic()
        yield
        visits = until(f"all is well after: {fault}", lambda: self.well(start), within=within + QUIET)
        self.bad = [visit for visit in visits if not is_page(visit)]
        self.failed = len(self.bad)
        # The first visitor who was served again came this long after the fault.
        self.healed = self.bad[-1].time + 0.2 - start if self.bad else 0.0
        self.reconnected = self.logins() - logins
        self.ledger.append((fault, self.failed, self.healed, self.reconnected))


def gone(host: Host, process: int) -> bool:
    """Whether a process of the host has ended."""
    return host.exec("test", "-e", f"/proc/{process}").code != 0


# For the tests.


@pytest.fixture(scope="module")
def steady(world: World, web: Web, visitor: Visitor, domain: str) -> Iterator[tuple[Client, Visits]]:
    """The client that all faults of a module meet, and its visitors, who come five times a second."""
    url = f"https://{NAME}.{domain}/"
    with steady_client(world, web) as client:
        until("the tunnel answers", lambda: is_page(visitor.get(url)), within=30)
        with visitor.steady_visits(url) as visits:
            yield client, visits


@pytest.fixture
def watch(
    steady: tuple[Client, Visits], scenario: Scenario, host: Host, request: pytest.FixtureRequest
) -> Iterator[Watch]:
    """What these visitors see of a test's faults, which begin on a host that is whole."""
    until("all containers run", host.all_up, within=30)
    watch = Watch(*steady, ledger=[])
    yield watch
    # In the test's report, so that it doesn't matter which process has made it.
    request.node.user_properties += [("fault", (scenario.scenario, *cost)) for cost in watch.ledger]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of docs/reliability.md, one for each scenario."""
    tables: dict[str, list[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":
            for scenario, fault, failed, healed, reconnected in (
                value for name, value in report.user_properties if name == "fault"
            ):
                row = f"| {fault} | {failed} | {healed:.1f} | {reconnected} |"
                tables.setdefault(scenario, []).append(row)
    for scenario, rows in tables.items():
        terminalreporter.section(f"what the faults have cost on {scenario}")
        terminalreporter.write_line("| fault | failed requests | seconds until healed | reconnects |")
        terminalreporter.write_line("|---|---|---|---|")
        for row in rows:
            terminalreporter.write_line(row)
