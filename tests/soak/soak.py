#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use a converged tunnel host for as long as one likes, and break it: soak.py [--hours 1] [--every 5] [--seed 1].

A client that reconnects holds a tunnel, which is visited five times a second, all the time. In each round (half a
minute) others open and close tunnels, a WebSocket stays open, all of which must pass without an error. After each fifth
round one fault is made, which must heal by itself. All faults come in turn, in an order that the seed decides.

The host is the scenario that PROXME_SCENARIO names by its env.json, else `default`, which is made if there is none.
Ctrl-C ends it with the report of what was done. Exit code: 1 where something was not as docs/reliability.md promises.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from instance import find_world  # noqa: E402
from watch import CONTAINERS, NAME, Watch, gone, steady_client  # noqa: E402
from world import Client, Host, Meter, Tunnel, Visitor, Visits, Web, World, until  # noqa: E402

MIB = 2**20
PARTS = [f"proxme-tunnel-{part}" for part in CONTAINERS]
# The same ones each round, so that they need a certificate once.
FORWARDS = ["guest-soak-1:80", "8201", "guest-soak-2:80", "8202"]
# Seconds that the WebSocket of a round stays open.
HOLD = 20
DOCKER = "systemctl restart docker"
# So many rounds in a row that are broken off end it.
PATIENCE = 3
# By how much each figure of a container may be above that of the first round.
MARGIN = {"memory, MiB": 32, "open files": 64, "processes": 16, "size, MiB": 256}

console = Console(highlight=False, width=132, soft_wrap=True)


@dataclass
class Report:
    """What was seen."""

    begun: float = field(default_factory=time.monotonic)
    tunnels: int = 0
    visits: int = 0
    faults: list[tuple[str, int, float, int]] = field(default_factory=list)
    use: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def blame(self, what: str) -> None:
        """Note what is not as promised, and show it at once."""
        self.wrong.append(what)
        console.print(f"  {what}", style="bold red")

    def note(self, use: dict[tuple[str, str], float]) -> None:
        """Note what the host uses, by container and kind."""
        for key, value in use.items():
            self.use.setdefault(key, []).append(value)

    def judge_use(self) -> None:
        """Blame what grows."""
        for (part, kind), values in self.use.items():
            if max(values) > values[0] + MARGIN[kind]:
                self.blame(f"{part}: {kind} went from {values[0]:.0f} in the first round to {max(values):.0f}.")

    def show(self) -> None:
        """Print it, as Markdown."""
        faults = Table("fault", "times", "failed requests, most", "seconds until healed, most", "reconnects, most")
        for name in sorted({fault for fault, *_ in self.faults}):
            failed, healed, logins = zip(*(seen for fault, *seen in self.faults if fault == name), strict=True)
            faults.add_row(name, str(len(failed)), str(max(failed)), f"{max(healed):.1f}", str(max(logins)))
        use = Table("part", "what", "first round", "most", "last round")
        for (part, kind), values in sorted(self.use.items()):
            use.add_row(part, kind, *(f"{value:,.1f}" for value in (values[0], max(values), values[-1])))
        for table in (faults, use):
            table.box = box.MARKDOWN
            console.print(table)
        hours = (time.monotonic() - self.begun) / 3600
        console.print(f"{hours:.2f} hours, {self.tunnels} tunnels, {self.visits:,} visits, {len(self.faults)} faults.")
        for what in self.wrong:
            console.print(what, style="bold red")
        if not self.wrong:
            console.print("All as promised.")


def measure(host: Host) -> dict[tuple[str, str], float]:
    """What each container and the host's disk use now."""
    found: dict[tuple[str, str], float] = {}
    for name, size in Meter(host, *PARTS).anonymous().items():
        found[name, "memory, MiB"] = size / MIB
    count = (
        "for part; do pids=$(docker top $part -o pid | tail -n +2); "
        "echo $part $(for pid in $pids; do ls /proc/$pid/fd; done 2>/dev/null | wc -l) $(echo $pids | wc -w); done"
    )
    for line in host.exec("sh", "-c", count, "sh", *PARTS).expect().stdout.splitlines():
        name, files, processes = line.split()
        found[name, "open files"], found[name, "processes"] = float(files), float(processes)
    sizes = host.exec("du", "-sm", "/var/lib/proxme-tunnel", "/var/log").expect().stdout
    for size, folder in re.findall(r"^(\d+)\s+(\S+)$", sizes, re.MULTILINE):
        found[folder, "size, MiB"] = float(size)
    return found


class Soak:
    """A host in use."""

    def __init__(self, world: World, visitor: Visitor, steady: Client, guest: Client, web: Web) -> None:
        """Use the host with these."""
        self.world, self.visitor, self.steady, self.guest, self.web = world, visitor, steady, guest, web
        self.report = Report()
        self.listening = world.host.listening()
        self.broken_off = 0

    def faults(self, draw: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
        """All faults, again and again, each time in another order."""
        host = self.world.host

        def kill(part: str) -> None:
            process = host.kill(f"proxme-tunnel-{part}")
            until("it has ended", lambda: gone(host, process))

        def restart() -> None:
            host.shell(DOCKER, timeout=300).expect()
            until("the engine answers", lambda: host.docker("info").code == 0, within=60)

        orders = {f"kill -9 of {part}": lambda part=part: kill(part) for part in CONTAINERS} | {DOCKER: restart}
        while True:
            yield from draw.sample(sorted(orders.items()), len(orders))

    def tunnel(self, forward: str) -> None:
        """One is opened, answers, is closed, and is no more."""
        url = f"https://{forward.removesuffix(':80')}.{self.world.scenario.domain}/"
        tunnel: Tunnel
        with self.guest.tunnel(forward, to=self.web) as tunnel:
            until(f"{url} answers", lambda: self.visitor.get(url).status == 200, within=30)
        assert not tunnel.running
        until(f"{url} is no more", lambda: self.visitor.get(url).status == 404, within=5)
        self.report.tunnels += 1

    def calm(self, visits: Visits) -> None:
        """What must pass without an error while nothing is broken."""
        since, began = self.world.host.started(*PARTS), time.monotonic()
        socket = f"wss://{NAME}.{self.world.scenario.domain}/ws"
        with ThreadPoolExecutor(1) as background:
            held = background.submit(self.visitor.websocket, socket, "hello", hold=HOLD)
            for forward in FORWARDS:
                self.tunnel(forward)
            seen = held.result()
        if seen["closed"] is not None or not seen["answers"]:
            self.report.blame(f"A WebSocket was closed while nothing was broken: {seen}")
        # Of those who came within the last seconds some are not yet answered.
        came = visits.since(began)
        if failed := [visit for visit in came if visit.status != 200]:
            self.report.blame(f"{len(failed)} of {len(came)} visits failed while nothing was broken: {failed[0]}")
        self.report.visits += len(came)
        if self.world.host.started(*PARTS) != since:
            self.report.blame("A container was started again while nothing was broken.")

    def broken(self, visits: Visits, fault: str, order: Callable[[], None]) -> None:
        """One fault, which must heal."""
        watch = Watch(self.steady, visits, self.report.faults)
        with watch.of(fault):
            order()
        if fault == DOCKER and (watch.failed or watch.reconnected):
            self.report.blame(
                f"{fault}: {watch.failed} failed requests, {watch.reconnected} reconnects; both must be 0."
            )
        if watch.healed >= 10:
            self.report.blame(f"{fault}: healed after {watch.healed:.1f} s; 10 s are promised.")
        until("all containers run", self.world.host.all_up, within=60)

    def round(self, number: int, fault: str, order: Callable[[], None] | None) -> None:
        """One round, with a fault if there is an order. What it awaits in vain is noted; the next round comes."""
        title = f"round {number}" + (f", then {fault}" if order else "")
        console.print(f"{time.monotonic() - self.report.begun:6.0f} s  {title}")
        try:
            with self.visitor.steady_visits(f"https://{NAME}.{self.world.scenario.domain}/") as visits:
                self.calm(visits)
                self.report.note(measure(self.world.host))
                if order:
                    self.broken(visits, fault, order)
            self.broken_off = 0
        except (AssertionError, subprocess.TimeoutExpired, ValueError) as error:
            self.report.blame(f"{title}: {error}")
            self.broken_off += 1
        finally:
            self.guest.stop_all()
            # Hours of visits would fill the memory that they stand in.
            self.visitor.shell("rm -f /run/visits-*")
        if grown := self.world.host.listening() - self.listening:
            self.report.blame(f"The host listens on {', '.join(sorted(grown))}, and did not before.")


def main() -> int:
    """Soak, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1, help="how long (default 1); a round that has begun is ended")
    parser.add_argument("--every", type=int, default=5, help="a fault after each so many rounds (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="for the order of the faults (default 1)")
    args = parser.parse_args()
    if args.every < 1:
        parser.error("--every is 1 or more")
    world = find_world()
    with (
        world.web() as web,
        world.visitor("soak") as visitor,
        world.client("guest") as guest,
        steady_client(world, web) as steady,
    ):
        soak = Soak(world, visitor, steady, guest, web)
        url = f"https://{NAME}.{world.scenario.domain}/"
        until("the tunnel answers", lambda: visitor.get(url).status == 200, within=30)
        faults = soak.faults(random.Random(args.seed))
        try:
            for number in itertools.count(1):
                soak.round(number, *(next(faults) if number % args.every == 0 else ("", None)))
                if soak.broken_off == PATIENCE:
                    soak.report.blame(f"Given up, as {PATIENCE} rounds in a row were broken off.")
                    break
                if time.monotonic() - soak.report.begun > args.hours * 3600:
                    break
        except KeyboardInterrupt:
            console.print("Ended by hand.")
        finally:
            soak.report.judge_use()
            soak.report.show()
        return 1 if soak.report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
