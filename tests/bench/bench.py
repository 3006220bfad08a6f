#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a converged tunnel host: bench.py [--rounds 3] [--seconds 4].

What is measured, on which way, and what the result must reach stands below, in Bench.ways() and Bench.bars().
docs/performance.md says how to read the table. The host is the scenario that PROXME_SCENARIO names by its env.json,
else the scenario `default`, which is made if there is no instance of it. Exit code: 1 where a bar is missed, else 0.

Everything is measured in rounds, all ways in turn, and each figure is the median of its rounds: what else the machine
does then disturbs all ways alike. The load generators run in the network namespace of the first part of their way, so
that what is compared are the parts and not Docker's bridges. They are h2load (requests) and curl (streams); the
backend is nginx next to the client's ssh, and a sink (sink.py) for uploads.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import math
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from instance import find_world  # noqa: E402
from world import Client, Container, Meter, Result, Visitor, World, until  # noqa: E402

PARTS = ("network", "sshd", "nginx", "caddy", "edge", "relay")
POD, SSHD, NGINX, CADDY, EDGE, RELAY = (f"proxme-tunnel-{part}" for part in PARTS)
# Where the edge listens in its namespace.
EDGE_PORT = 65443
PAGE, SINK = "guest-bench", "guest-bench-sink"
BY_443 = "raw tunnel by 443"
MIB = 2**20
STREAM = 256 * MIB
UPLOAD = 1024 * MIB
VISITORS = 32
# The host lets ten clients of one address in at the same time; so each ten need an address of their own.
MACHINES, CLIENTS = 10, 10
# Seconds after which no further round begins, so that all ends within six minutes on a machine that is slow or busy.
LAST_ROUND = 200

BACKEND = """
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=10;
  server { listen 127.0.0.1:80; root /run/site; }
}
"""

console = Console(highlight=False, width=200, soft_wrap=True)
started = time.monotonic()


def say(text: str) -> None:
    """Show a step."""
    console.print(f"[dim]{time.monotonic() - started:4.0f} s[/dim]  {text}", markup=True)


def address_of(name: str) -> str:
    """The loopback address that a tunnel's name is (names.lua computes the same)."""
    return str(ipaddress.IPv6Address(b"\xfd\x74" + hashlib.sha256(name.encode()).digest()[:14]))


@dataclass(frozen=True)
class Way:
    """A way from a visitor to the backend: where the load generators run, and how they are told to get there."""

    title: str
    container: Container
    enter: tuple[str, ...]
    url: Callable[[str], str]
    curl: tuple[str, ...]
    h2load: tuple[str, ...]
    meter: Meter

    def exec(self, *command: str, timeout: float = 120) -> Result:
        """Run a load generator."""
        return self.container.exec(*self.enter, *command, timeout=timeout)

    def fetch(self, *options: str, name: str = PAGE, path: str = "/") -> dict:
        """Run curl and return its report (see curl's --write-out); raise AssertionError unless the answer is a 200."""
        command = ["curl", "--silent", "--show-error", "--fail", "--cacert", "/run/root.pem", "--max-time", "120"]
        command += ["--output", "/dev/null", "--write-out", "%{json}", *self.curl, *options, self.url(name) + path]
        report = json.loads(self.exec(*command).expect().stdout)
        assert report["http_code"] == 200, f"{self.title}: status {report['http_code']}"
        return report

    def download(self, size: int = STREAM) -> float:
        """Fetch a file; MB (10^6 bytes) per second."""
        report = self.fetch(path=f"/{size}")
        assert report["size_download"] == size, f"{self.title}: {report['size_download']} bytes of {size} came"
        return size / report["time_total"] / 1e6

    def upload(self, size: int = STREAM) -> float:
        """Send a file; MB (10^6 bytes) per second."""
        report = self.fetch("--header", "Expect:", "--request", "POST", "--upload-file", f"/run/site/{size}", name=SINK)
        assert report["size_upload"] == size, f"{self.title}: {report['size_upload']} bytes of {size} were sent"
        return size / report["time_total"] / 1e6

    def requests(self, seconds: float) -> tuple[int, float, float]:
        """Send small requests; their number, requests per second, and the time in ms that 99 % of them took."""
        command = ["h2load", f"--clients={VISITORS}", f"--duration={seconds}", "--log-file=/run/requests"]
        report = self.exec(*command, *self.h2load, self.url(PAGE) + "/").expect().stdout
        counts = re.search(r"requests: (\d+) total, .* (\d+) succeeded", report)
        total, succeeded = map(int, counts.groups()) if counts else (0, 0)
        if not total == succeeded > 0 or "0 3xx, 0 4xx, 0 5xx" not in report:
            raise AssertionError(f"{self.title}: not every request succeeded\n{report}")
        times = sorted(int(line.split("\t")[2]) for line in self.container.read("/run/requests").splitlines())
        return total, total / seconds, times[len(times) * 99 // 100] / 1000


def tls_ways(title: str, load: Container, enter: Sequence[str], domain: str, port: int, meter: Meter) -> list[Way]:
    """Both versions of HTTP over TLS, at a port of a namespace's loopback."""
    return [
        Way(
            f"{title}, HTTP/{version}",
            load,
            (*enter,),
            lambda name: f"https://{name}.{domain}",
            (f"--http{version}", "--connect-to", f"::127.0.0.1:{port}"),
            (f"--connect-to=127.0.0.1:{port}", *options),
            meter,
        )
        for version, options in (("1.1", ["--h1"]), ("2", []))
    ]


def front_ways(world: World, load: Container, title: str, port: int, *parts: str) -> list[Way]:
    """The ways of visitors over TLS to a host of ours, at a port of the front end's namespace."""
    enter = ("nsenter", f"--net=/proc/{world.host.main_process(CADDY)}/ns/net")
    return tls_ways(title, load, enter, world.scenario.domain, port, Meter(world.host, *parts))


def warm(ways: Sequence[Way]) -> None:
    """Wait until each way answers, also for uploads."""
    for way in ways:
        for name, options in ((PAGE, []), (SINK, ["--data", "x"])):
            until(f"{way.title} answers", lambda way=way, n=name, o=options: way.fetch(*o, name=n), within=30)


@contextmanager
def load_of(world: World) -> Iterator[Visitor]:
    """A machine for load generators: it sees the processes of the host, and so can enter their network namespaces."""
    powers = [f"--pid=container:{world.host.name}", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]
    powers += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
    with world.visitor("bench-load", *powers) as load:
        yield load


@dataclass
class Figures:
    """What one way reached, a value for each round."""

    rate: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)

    def __getitem__(self, name: str) -> float:
        """The median of one of them."""
        return statistics.median(getattr(self, name))


@dataclass(frozen=True)
class Bar:
    """What a figure must reach at least, or be at most."""

    what: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it does."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        """One line for the reader."""
        wanted = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{'met   ' if self.met else 'MISSED'}  {self.what}: {self.value:.3g}, {wanted}"


class Bench:
    """One run."""

    def __init__(self, world: World, load: Visitor, client: Client) -> None:
        """Measure with a backend in the container of `client` and load generators in that of `load`."""
        self.world = world
        self.host = world.host
        self.load = load
        self.client = client
        self.figures: dict[str, Figures] = {}
        self.rise: dict[str, float] = {}
        self.idle_tunnel = math.nan
        self.all_up = math.nan
        self.tries = 0

    def fill(self) -> None:
        """Start the backend, and make the files that are sent."""
        for container in (self.client, self.load):
            # Files without content: all zeros, and no disk.
            script = "mkdir /run/site && cd /run/site && printf %0128d 0 >index.html && "
            script += " && ".join(f"truncate -s {size} {size}" for size in (STREAM, UPLOAD))
            container.shell(script).expect()
        self.client.write("/run/backend.conf", BACKEND)
        self.client.exec("nginx", "-c", "/run/backend.conf").expect()
        self.client.copy_in(pathlib.Path(__file__).with_name("sink.py"), "/run/sink.py")
        self.client.spawn("python3", "/run/sink.py", "81")

    def prepare(self) -> None:
        """Start the backend and its tunnel, and take the memory of earlier visitors from nginx and Caddy."""
        self.fill()
        self.client.tunnel(f"{PAGE}:80:127.0.0.1:80", f"{SINK}:80:127.0.0.1:81")
        self.host.docker("restart", NGINX, CADDY).expect()
        until("nginx and Caddy are back", self.host.all_up, within=30)

    def ways(self, plain: int) -> list[Way]:
        """Every way, each with one part more than the one before; `plain` is the port of bench_site()."""
        processes = {part: self.host.main_process(part) for part in (POD, NGINX, CADDY)}
        domain = self.world.scenario.domain
        socket = f"/proc/{processes[NGINX]}/root/run/tunnel/visitors.sock"

        def inside(part: str) -> tuple[str, ...]:
            return ("nsenter", f"--net=/proc/{processes[part]}/ns/net")

        def way(title: str, curl: list[str], h2load: list[str], *parts: str) -> Way:
            enter, meter = inside(CADDY if CADDY in parts else POD), Meter(self.host, *parts)
            return Way(title, self.load, enter, lambda name: f"http://{name}.{domain}", (*curl,), (*h2load,), meter)

        def backend(name: str) -> str:
            return f"http://127.0.0.1:{80 if name == PAGE else 81}"

        def raw(name: str) -> str:
            return f"http://[{address_of(name)}]"

        def raw_by_443(name: str) -> str:
            return raw(f"{name}-443")

        all_parts = (SSHD, NGINX, CADDY)
        return [
            Way("backend", self.client, (), backend, (), ("--h1",), Meter(self.host)),
            Way("raw tunnel", self.load, inside(POD), raw, (), ("--h1",), Meter(self.host, SSHD)),
            Way(BY_443, self.load, inside(POD), raw_by_443, (), ("--h1",), Meter(self.host, SSHD, EDGE, RELAY)),
            way("+ nginx", ["--unix-socket", socket], ["--h1", f"--base-uri=unix:{socket}"], SSHD, NGINX),
            way(
                "+ Caddy, HTTP",
                ["--connect-to", f"::127.0.0.1:{plain}"],
                [f"--connect-to=127.0.0.1:{plain}", "--h1"],
                *all_parts,
            ),
            *front_ways(self.world, self.load, "HTTPS", 443, *all_parts),
            # The first visitor of a name in an hour is led to Caddy.
            *front_ways(self.world, self.load, "edge", EDGE_PORT, *all_parts, EDGE),
        ]

    @contextmanager
    def bench_site(self, port: int = 9180) -> Iterator[int]:
        """Let Caddy serve tunnels over plain HTTP on a port of its own loopback, as long as the `with` block lasts.

        A tunnel's visitor on port 80 is sent to HTTPS, so that what Caddy does without TLS could not be measured. This
        gives the running Caddy a second server with the very handler of the first, which tells nginx that it is HTTPS.
        """
        socket = f"/proc/{self.host.main_process(CADDY)}/root/run/caddy/admin.sock"
        url = "http://localhost/config/apps/http/servers"

        def admin(*arguments: str) -> str:
            command = ["curl", "--silent", "--show-error", "--fail-with-body", "--unix-socket", socket, *arguments]
            return self.load.exec(*command).expect().stdout

        def handlers(node: object) -> Iterator[dict]:
            """All reverse proxies to nginx below a node of the configuration, but those of gRPC."""
            found = isinstance(node, dict) and {"dial": "unix//run/tunnel/visitors.sock"} in (
                node.get("upstreams") or []
            )
            if found and "versions" not in node["transport"]:
                yield node
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
                yield from handlers(child)

        handler = until("Caddy has its configuration", lambda: next(handlers(json.loads(admin(url))), None))
        handler["headers"]["request"]["set"]["X-Forwarded-Proto"] = ["https"]
        site = {
            "listen": [f"127.0.0.1:{port}"],
            "routes": [{"handle": [handler]}],
            "automatic_https": {"disable": True},
        }
        admin("--request", "PUT", "--json", json.dumps(site), f"{url}/bench")
        try:
            yield port
        finally:
            admin("--request", "DELETE", f"{url}/bench")

    def memory_over_upload(self, way: Way) -> None:
        """The rise of each container's anonymous memory, in MiB, over its idle figure while a file is sent."""
        meter = Meter(self.host, *self.host.parts())
        idle = peak = meter.anonymous()
        with ThreadPoolExecutor() as pool:
            upload = pool.submit(way.upload, UPLOAD)
            while not upload.done():
                peak = {part: max(size, peak[part]) for part, size in meter.anonymous().items()}
            upload.result()
        self.rise = {part: (peak[part] - idle[part]) / MIB for part in idle}

    def round(self, ways: list[Way], seconds: float) -> None:
        """One round of everything that is compared with the raw tunnel."""
        for way in ways:
            figures = self.figures.setdefault(way.title, Figures())
            before = way.meter.cpu()
            number, rate, p99 = way.requests(seconds)
            figures.cpu.append((way.meter.cpu() - before) / number * 1e6)
            figures.rate.append(rate)
            figures.p99.append(p99)
        for way in ways:
            self.figures[way.title].down.append(way.download())
            self.figures[way.title].up.append(way.upload())

    def many_tunnels(self) -> None:
        """Memory of one idle tunnel in MiB (PSS), and the seconds until all clients that come at once are up."""
        table = f"/proc/{self.host.main_process(POD)}/net/tcp6"

        def listeners() -> int:
            return len(re.findall(r"^ *\d+: \S+ \S+ 0A ", self.host.read(table), re.MULTILINE))

        def memory() -> float:
            lines = self.host.docker("top", SSHD, "-eo", "pid").expect().stdout.split()
            files = [f"/proc/{process}/smaps_rollup" for process in lines if process.isdigit()]
            # A process may have ended meanwhile (the entry script sleeps in one).
            text = self.host.exec("cat", *files).stdout
            return sum(map(int, re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE))) / 1024

        with ExitStack() as stack, ThreadPoolExecutor(MACHINES) as pool:
            machines = list(pool.map(lambda _: stack.enter_context(self.world.client()), range(MACHINES)))
            for number, machine in enumerate(machines):
                options = " ".join([*machine.options(), "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"])
                forward = f"guest-bench-{number}-$client:80:127.0.0.1:80"
                ssh = f"ssh -N {options} -R {forward} tunnel@{machine.host} </dev/null >>/run/log 2>&1"
                # One that fails tries again, as clients that are meant to last do.
                loop = f"until {ssh}; do echo again >>/run/log; sleep 1; done &"
                machine.write("/run/clients", f"for client in $(seq {CLIENTS}); do\n{loop}\ndone\nwait\n")
            before, there = memory(), listeners()
            begin = time.monotonic()
            list(pool.map(lambda machine: machine.spawn("sh", "/run/clients"), machines))
            wanted = there + MACHINES * CLIENTS
            try:
                until(f"{MACHINES * CLIENTS} tunnels are up", lambda: listeners() >= wanted, within=60)
            except AssertionError:
                # What was measured before is worth showing: the figures stay "nan", and miss their bar.
                said = "".join(machine.read("/run/log") for machine in machines)
                console.print(
                    f"Only {listeners() - there} tunnels came up. Clients said:\n{said[-2000:]}", markup=False
                )
                return
            self.all_up = time.monotonic() - begin
            self.tries = sum(machine.read("/run/log").count("again") for machine in machines)
            self.idle_tunnel = (memory() - before) / (MACHINES * CLIENTS)

    def ratio(self, title: str, name: str) -> float:
        """A way's figure as a part of the raw tunnel's."""
        return self.figures[title][name] / self.figures["raw tunnel"][name]

    def bars(self) -> list[Bar]:
        """What must be reached."""
        plain, h2 = "+ Caddy, HTTP", "HTTPS, HTTP/2"

        def to_caddy(version: str, name: str) -> float:
            return self.figures[f"edge, {version}"][name] / self.figures[f"HTTPS, {version}"][name]

        return [
            Bar("requests/s through the edge to those through Caddy, HTTP/2", to_caddy("HTTP/2", "rate"), least=2.5),
            Bar("requests/s through the edge to those through Caddy, HTTP/1.1", to_caddy("HTTP/1.1", "rate"), least=2),
            Bar("server CPU through the edge to that through Caddy, HTTP/2", to_caddy("HTTP/2", "cpu"), most=0.4),
            Bar("p99 through the edge to that through Caddy, HTTP/2", to_caddy("HTTP/2", "p99"), most=0.5),
            Bar("stream down through the edge to that through Caddy, HTTP/2", to_caddy("HTTP/2", "down"), least=1.5),
            Bar("stream up through the edge to that through Caddy, HTTP/2", to_caddy("HTTP/2", "up"), least=1.8),
            Bar("requests/s through nginx, as a part of the raw tunnel's", self.ratio("+ nginx", "rate"), least=0.6),
            Bar("requests/s through Caddy, HTTP", self.ratio(plain, "rate"), least=0.15),
            *(Bar(f"stream {way} of a tunnel by 443", self.ratio(BY_443, way), least=0.75) for way in ("down", "up")),
            *(Bar(f"stream {way} through Caddy, HTTP", self.ratio(plain, way), least=0.8) for way in ("down", "up")),
            *(Bar(f"stream {way} through Caddy, HTTP/2", self.ratio(h2, way), least=0.4) for way in ("down", "up")),
            Bar("MiB for an idle tunnel", self.idle_tunnel, most=2),
            *(Bar(f"MiB that {part} rises by over a 1 GiB upload", self.rise[part], most=32) for part in self.rise),
        ]

    def table(self) -> Table:
        """The result; Markdown, so that it can be put into docs/performance.md as it is."""
        titles = list(self.figures)
        table = Table("", *titles, box=box.MARKDOWN)
        for column in table.columns[1:]:
            column.justify = "right"

        def row(what: str, name: str, pattern: str) -> None:
            # The backend is no part of the server and has no time of it.
            values = (self.figures[title][name] for title in titles)
            table.add_row(what, *(pattern.format(value) if value else "" for value in values))

        def ratios(name: str) -> None:
            table.add_row("… to the raw tunnel", *(f"{self.ratio(title, name):.2f}" for title in titles))

        def single(what: str, pattern: str, **values: float) -> None:
            """Values stand in the column of the part that they are about."""
            at = {"sshd": "raw tunnel", "nginx": "+ nginx", "caddy": "HTTPS, HTTP/2", "edge": "edge, HTTP/2"}
            cells = {at[part]: pattern.format(value) for part, value in values.items()}
            table.add_row(what, *(cells.get(title, "") for title in titles))

        row(f"requests/s, {VISITORS} visitors", "rate", "{:,.0f}")
        ratios("rate")
        row("p99, ms", "p99", "{:.1f}")
        row("server CPU, ms per 1,000 requests", "cpu", "{:.0f}")
        row(f"{STREAM // MIB} MiB down, MB/s", "down", "{:.0f}")
        ratios("down")
        row(f"{STREAM // MIB} MiB up, MB/s", "up", "{:.0f}")
        ratios("up")
        parts = {"sshd": SSHD, "nginx": NGINX, "caddy": CADDY, "edge": EDGE}
        single("memory rise over 1 GiB up, MiB", "{:.1f}", **{part: self.rise[parts[part]] for part in parts})
        single("memory of an idle tunnel, MiB", "{:.2f}", sshd=self.idle_tunnel)
        single(f"{MACHINES * CLIENTS} clients at once, s until all are up", "{:.1f}", sshd=self.all_up)
        single("… of their attempts failed and were repeated", "{:.0f}", sshd=self.tries)
        return table


def main() -> int:
    """Measure, print the table and the bars."""
    parser = argparse.ArgumentParser(description="Measure a converged tunnel host.")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="of small requests, for each way and round (default 4)")
    args = parser.parse_args()
    world = find_world()
    load_before, cores = os.getloadavg()[0], os.cpu_count() or 1
    say(f"{cores} cores, load {load_before:.1f} before the measurement")
    if load_before > cores / 2:
        say("Other work runs on this machine: what follows are not figures to keep")
    begin = time.monotonic()
    with load_of(world) as load, world.client("bench-client") as client:
        bench = Bench(world, load, client)
        say("The backend and its tunnels are started; nginx and Caddy are restarted")
        bench.prepare()
        by_443 = Client(client.name, client.host, port=443)
        by_443.tunnel(f"{PAGE}-443:80:127.0.0.1:80", f"{SINK}-443:80:127.0.0.1:81")
        with bench.bench_site() as plain:
            ways = bench.ways(plain)
            warm(ways)
            say("1 GiB is sent while memory is watched")
            bench.memory_over_upload(ways[-1])
            for number in range(args.rounds):
                if number and time.monotonic() - begin > LAST_ROUND:
                    say(f"No further round: the {number} before took long")
                    break
                say(f"Round {number + 1} of {args.rounds}")
                bench.round(ways, args.seconds)
        say(f"{MACHINES * CLIENTS} clients come at once")
        bench.many_tunnels()
    say("Done")
    console.print(bench.table())
    bars = bench.bars()
    for bar in bars:
        console.print(str(bar), style=None if bar.met else "bold red")
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
