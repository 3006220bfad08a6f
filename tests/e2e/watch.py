# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that reconnects, and what its visitors see of a fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from world import Client, Host, Visit, Visits, Web, World, until

CONTAINERS = ["pod", "names", "sshd", "nginx", "front", "caddy"]
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


class Watch:
    """What the visitors of one tunnel see of a fault."""

    def __init__(self, client: Client, visits: Visits, ledger: list[tuple[str, int, float, int]]) -> None:
        """Watch a client's tunnel by these visits; what was seen goes into `ledger`."""
        self.client, self.ledger, self._visits = client, ledger, visits
        self.failed = 0
        self.healed = 0.0
        self.reconnected = 0

    def logins(self) -> int:
        """How often the client has connected so far."""
        return self.client.read("/run/logins").count("\n")

    def well(self, since: float) -> list[Visit]:
        """All visits from `since` on, once nobody who came within the last three seconds of them was refused."""
        visits = sorted(self._visits.since(since), key=lambda visit: visit.time)
        bad = [visit.time for visit in visits if visit.status != 200]
        return visits if visits and visits[-1].time - max([since, *bad]) > QUIET else []

    @contextmanager
    def of(self, fault: str, within: float = 60) -> Iterator[None]:
        """Count what fails from the start of the block until all is well again after it."""
        until("all is well before", lambda: self.well(time.monotonic() - 4), within=60)
        logins, start = self.logins(), time.monotonic()
        yield
        visits = until(f"all is well after: {fault}", lambda: self.well(start), within=within)
        bad = [visit for visit in visits if visit.status != 200]
        self.failed = len(bad)
        # The first visitor who was served again came this long after the fault.
        self.healed = bad[-1].time + 0.2 - start if bad else 0.0
        self.reconnected = self.logins() - logins
        self.ledger.append((fault, self.failed, self.healed, self.reconnected))


def gone(host: Host, process: int) -> bool:
    """Whether a process of the host has ended."""
    return host.exec("test", "-e", f"/proc/{process}").code != 0
