# SPDX-License-Identifier: GPL-3.0-or-later
"""Bystander and attacker, and the table of what the attacks have cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from bystander import NOTES, ROWS, Bystander
from world import Client, Host, Visitor, Web, World


@pytest.fixture(scope="session")
def bystander(world: World, host: Host, web: Web, visitor: Visitor, domain: str) -> Iterator[Bystander]:
    """The one whom all attacks meet."""
    url = f"https://guest-bystander.{domain}/"
    with world.client("bystander") as client, client.tunnel("guest-bystander:80", to=web):
        assert visitor.get(url).status == 200
        yield Bystander(host, visitor, url)


@pytest.fixture
def attacker(world: World) -> Iterator[Callable[[], Client]]:
    """Call it for a machine of an attacker, who has half a processor and trusts nobody."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(world.client(None, "--cpus=0.5"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of docs/reliability.md."""
    for note in NOTES:
        terminalreporter.write_line(note)
    if not ROWS:
        return
    terminalreporter.section("what the attacks have cost a bystander")
    terminalreporter.write_line(
        "| attack | visits meanwhile | failed | p99, ms | largest rise in memory, MiB | that is left of it |"
    )
    terminalreporter.write_line("|---|---|---|---|---|---|")
    for row in ROWS:
        terminalreporter.write_line(row)
