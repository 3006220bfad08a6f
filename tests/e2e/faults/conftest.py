# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows at the end what the faults have cost."""

import pytest

LEDGER: list[tuple[str, int, float, int]] = []


@pytest.fixture(scope="session")
def ledger() -> list[tuple[str, int, float, int]]:
    """Fault, failed requests, seconds until it was healed, how often the client had to connect anew."""
    return LEDGER


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of docs/reliability.md."""
    if not LEDGER:
        return
    terminalreporter.section("what the faults have cost")
    terminalreporter.write_line("| fault | failed requests | seconds until healed | reconnects |")
    terminalreporter.write_line("|---|---|---|---|")
    for fault, failed, healed, reconnected in LEDGER:
        terminalreporter.write_line(f"| {fault} | {failed} | {healed:.1f} | {reconnected} |")
