# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is there while others attack, and what it costs them."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from world import Host, Meter, Visitor, until

PARTS = [f"proxme-tunnel-{part}" for part in ("resolver", "sshd", "nginx", "caddy", "edge", "relay")]
HOLDERS = ["proxme-tunnel-network", "proxme-tunnel-caddy-network"]
MIB = 2**20
# How far above its figure before an attack a container's memory may stay, in MiB. The edge keeps what 400 connections
# have taken for the next ones: the same again takes no more.
STAYS = dict.fromkeys(PARTS, 32) | {"proxme-tunnel-edge": 64}
ROWS: list[str] = []
NOTES: list[str] = []


@contextmanager
def most_memory(meter: Meter) -> Iterator[dict[str, int]]:
    """The most anonymous memory (bytes) of each container while the block lasts, looked at each second."""
    most, over = meter.anonymous(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            most.update({part: max(size, most[part]) for part, size in meter.anonymous().items()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


@dataclass
class Bystander:
    """Somebody whose tunnel is visited while others attack: by one who stays connected, and by newcomers."""

    host: Host
    visitor: Visitor
    url: str

    @contextmanager
    def unharmed(self, attack: str) -> Iterator[dict[str, int]]:
        """Expect that the attack in the block harms nobody.

        All the bystander's visitors, twenty a second, are served, 99 of 100 in less than a second; no container ends;
        the host listens where it did; and within five minutes each container's memory is back, but for what STAYS.
        Yields the most memory of each so far (bytes).
        """
        started, listening, meter = self.host.started(*HOLDERS, *PARTS), self.host.listening(), Meter(self.host, *PARTS)
        idle = meter.anonymous()
        with (
            most_memory(meter) as most,
            self.visitor.visits(self.url, every=0.1) as kept,
            self.visitor.visits(self.url, every=0.1, new=True) as new,
        ):
            yield most
            # Some attacks are over at once, and of less than a hundred visits one would decide.
            until("there were enough visits", lambda: min(len(kept.since()), len(new.since())) > 50, within=30)
            visits = [*kept.since(), *new.since()]
        failed = [visit for visit in visits if visit.status != 200 or "Hello from web." not in visit.body]
        slowest = statistics.quantiles([visit.seconds for visit in visits], n=100, method="inclusive")[98]

        def rise(sizes: dict[str, int]) -> str:
            part = max(PARTS, key=lambda part: sizes[part] - idle[part])
            return f"{part.removeprefix('proxme-tunnel-')} {(sizes[part] - idle[part]) / MIB:.0f}"

        assert not failed, failed[:5]
        assert slowest < 1, sorted(visits, key=lambda visit: visit.seconds)[-3:]
        assert self.host.started(*HOLDERS, *PARTS) == started
        assert self.host.listening() == listening

        def back() -> dict[str, int]:
            now = meter.anonymous()
            assert all(now[part] <= idle[part] + STAYS[part] * MIB for part in PARTS), rise(now)
            return now

        # Caddy gives garbage back by two collections, each up to two minutes after the last one.
        now = until(f"the memory is back after: {attack}", back, within=300, every=1)
        ROWS.append(f"| {attack} | {len(visits)} | {len(failed)} | {slowest * 1000:.0f} | {rise(most)} | {rise(now)} |")
