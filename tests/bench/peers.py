#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a converged tunnel host with sish, frp and other states of it: peers.py [--other ENV.JSON] [--rounds 3].

sish and frp are built from their releases, for which this machine needs Go, and run with one tunnel each. Everything is
measured as bench.py does it: in rounds, all in turn, each figure the median of its rounds. The host is found as
bench.py finds it; each `--other` is the env.json of another checkout's converged scenario.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench import (
    CADDY,
    EDGE,
    EDGE_PORT,
    MIB,
    NGINX,
    PAGE,
    ROOT,
    SINK,
    SSHD,
    STREAM,
    Bench,
    Way,
    console,
    find_world,
    front_ways,
    load_of,
    say,
    tls_ways,
    warm,
)
from rich import box
from rich.table import Table
from world import Client, Container, Meter, Result, Scenario, Visitor, World, run, until

PEERS = {"antoniomika/sish": ("v2.23.0", "."), "fatedier/frp": ("v0.70.1", "./cmd/...")}
CACHE = ROOT / ".cache/peers"
DOMAIN = "bench.test"
# Handshakes in so many seconds, by so many threads at once.
HANDSHAKES = """
import socket, ssl, sys, threading, time
name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
context = ssl.create_default_context(cafile="/run/root.pem")
context.set_alpn_protocols(["h2", "http/1.1"])
counts, end = [], time.monotonic() + seconds
def shake():
    count = 0
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_hostname=name):
            count += 1
    counts.append(count)
threads = [threading.Thread(target=shake) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(counts))
"""


class ThisMachine:
    """What Meter asks of a host, for containers that run beside it."""

    def main_process(self, container: str) -> int:
        """The process id of a container's first process."""
        return int(run("docker", "inspect", "--format={{.State.Pid}}", container).expect().stdout)

    def read(self, path: str) -> str:
        """A file's text."""
        return pathlib.Path(path).read_text()

    def exec(self, *command: str) -> Result:
        """Run a command."""
        return run(*command)


def build() -> pathlib.Path:
    """Build the peers from their repositories, each at its release; the folder of their programs."""
    programs = CACHE / "bin"
    # Without frp's dashboard, for which it would need Node.js.
    environment = {**os.environ, "GOBIN": str(programs), "CGO_ENABLED": "0", "GOFLAGS": "-tags=noweb -buildvcs=false"}
    for repository, (tag, packages) in PEERS.items():
        source = CACHE / f"{repository.replace('/', '-')}-{tag}"
        if not source.exists():
            clone = ["git", "clone", "--quiet", "--branch", tag, f"https://github.com/{repository}", str(source)]
            subprocess.run(clone, check=True)
        subprocess.run(["go", "install", packages], cwd=source, env=environment, check=True)
    return programs


@contextmanager
def state(scenario: Scenario, title: str) -> Iterator[list[Way]]:
    """A host of ours, with one tunnel: by its edge, if it has one, else by Caddy."""
    world = World(scenario)
    with load_of(world) as load, world.client("bench-client") as client:
        Bench(world, load, client).prepare()
        has_edge = world.host.docker("inspect", EDGE).code == 0
        port, parts = (EDGE_PORT, (SSHD, NGINX, CADDY, EDGE)) if has_edge else (443, (SSHD, NGINX, CADDY))
        # The certificates; after them the first visitor of a name in an hour is led to Caddy.
        warm(front_ways(world, load, title, 443, *parts))
        ways = front_ways(world, load, title, port, *parts)
        warm(ways)
        yield ways


@contextmanager
def peer(world: World, programs: pathlib.Path, start: Callable[..., list[Way]]) -> Iterator[list[Way]]:
    """A peer with one tunnel. The load shares the network of its server."""
    name = start.__name__
    server, client = (
        Container(world.container(f"peers-{name}")),
        Client(world.container(f"peers-{name}-client"), DOMAIN),
    )
    load = Visitor(f"{server.name}-load")
    labels = (f"--label=proxme.scenario={world.scenario.network}", f"--label=proxme.checkout={ROOT}")
    shared = ("--network", f"container:{server.name}", "--tmpfs", "/run", *labels)
    try:
        run("docker", "run", "--detach", "--name", load.name, *shared, world.scenario.tools).expect()
        for container in (server, client):
            for program in programs.iterdir():
                run("docker", "cp", str(program), f"{container.name}:/usr/local/bin/{program.name}").expect()
        Bench(world, load, client).fill()
        ways = start(server, client, load)
        warm(ways)
        yield ways
    finally:
        for container in (load, client, server):
            container.remove()


def serve(server: Container, command: str, port: int) -> None:
    """Start a peer's server, and wait until it listens; what it says is shown if it never does."""
    server.spawn("sh", "-c", f"exec {command} >/run/log 2>&1")

    def listens() -> bool:
        assert server.exec("nc", "-z", "localhost", str(port)).code == 0, server.read("/run/log")
        return True

    until(f"{command.split()[0]} listens", listens, within=20)


def sish(server: Container, client: Client, load: Visitor) -> list[Way]:
    """Start sish with TLS; its client is ssh."""
    server.shell(
        "mkdir -p /run/keys /run/accounts /run/tls && cd /run/tls && "
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
        f"-nodes -days 2 -subj /CN={DOMAIN} -addext subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN} "
        f"-keyout {DOMAIN}.key -out {DOMAIN}.crt"
    ).expect()
    load.write("/run/root.pem", server.read(f"/run/tls/{DOMAIN}.crt"))
    options = "--ssh-address=:2222 --http-address=:80 --https-address=:443 --https --authentication=false"
    options += f" --https-certificate-directory=/run/tls --private-keys-directory=/run/keys --domain={DOMAIN}"
    options += " --authentication-keys-directory=/run/accounts --load-templates=false --bind-random-subdomains=false"
    serve(server, f"sish {options}", 2222)
    ssh = "ssh -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -N"
    forwards = f"-R {PAGE}:80:127.0.0.1:80 -R {SINK}:80:127.0.0.1:81"
    client.spawn("sh", "-c", f"exec {ssh} {forwards} x@peers-sish >/run/log 2>&1 </dev/null")
    return tls_ways("sish", load, (), DOMAIN, 443, Meter(ThisMachine(), server.name))


def frp(server: Container, client: Client, load: Visitor) -> list[Way]:
    """Start frp over plain HTTP, as its server ends no TLS for visitors; its client is frpc."""
    server.write("/run/frps.toml", f'bindPort = 7000\nvhostHTTPPort = 80\nsubDomainHost = "{DOMAIN}"\n')
    proxies = "".join(
        f'[[proxies]]\nname = "{name}"\ntype = "http"\nlocalPort = {port}\nsubdomain = "{name}"\n'
        for name, port in ((PAGE, 80), (SINK, 81))
    )
    client.write("/run/frpc.toml", f'serverAddr = "peers-frp"\nserverPort = 7000\n{proxies}')
    serve(server, "frps -c /run/frps.toml", 7000)
    client.spawn("sh", "-c", "exec frpc -c /run/frpc.toml >/run/log 2>&1")
    meter = Meter(ThisMachine(), server.name)
    curl, h2load = ("--connect-to", "::127.0.0.1:80"), ("--connect-to=127.0.0.1:80", "--h1")
    return [Way("frp, plain HTTP", load, (), lambda name: f"http://{name}.{DOMAIN}", curl, h2load, meter)]


def measure(way: Way, seconds: int) -> dict[str, float]:
    """What one way reaches in one round."""

    def cpu(work: Callable[[], tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
        before = way.meter.cpu()
        done = work()
        return (way.meter.cpu() - before) / done[0] * 1e6, done

    used, (_, rate, p99) = cpu(lambda: way.requests(seconds))
    found = {"requests/s": rate, "p99, ms": p99, "server CPU, ms per 1,000 requests": used}
    if "--http2" in way.curl:
        command = ["python3", "-c", HANDSHAKES, way.url(PAGE).removeprefix("https://"), way.curl[-1].rpartition(":")[2]]
        used, (shaken,) = cpu(lambda: (int(way.exec(*command, str(seconds)).expect().stdout),))
        found |= {"new TLS connections/s": shaken / seconds, "server CPU, ms per 1,000 of them": used}
    megabytes = f"{STREAM // MIB} MiB"
    return found | {f"{megabytes} down, MB/s": way.download(), f"{megabytes} up, MB/s": way.upload()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Compare a converged tunnel host with others.")
    parser.add_argument("--other", action="append", default=[], type=pathlib.Path, help="env.json of another state")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="of small requests, for each way and round (default 4)")
    args = parser.parse_args()
    programs, world = build(), find_world()
    figures: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        ways = [*stack.enter_context(state(world.scenario, "here"))]
        for number, file in enumerate(args.other):
            ways += stack.enter_context(state(Scenario.read(file), f"other {number + 1}"))
        for start in (sish, frp):
            ways += stack.enter_context(peer(world, programs, start))
        for number in range(args.rounds):
            say(f"Round {number + 1} of {args.rounds}, load {os.getloadavg()[0]:.1f}")
            for way in ways:
                for what, value in measure(way, args.seconds).items():
                    figures.setdefault(what, {}).setdefault(way.title, []).append(value)
    titles = [way.title for way in ways]
    table = Table("", *titles, box=box.MARKDOWN)
    for what, found in figures.items():
        values = (f"{statistics.median(found[title]):,.1f}" if title in found else "" for title in titles)
        table.add_row(what, *values)
    console.print(table)


if __name__ == "__main__":
    main()
