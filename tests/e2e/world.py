# SPDX-License-Identifier: GPL-3.0-or-later
"""The world around a tunnel host, in the user's words.

A scenario (made by molecule/shared/create.yml) is a network with the host and a name server with a CA. The tests add
what a user brings: a `Client` with the stock ssh, a `Web` service next to it, and a `Visitor` with curl. Each is a
container in the scenario's network, so that everything is seen from outside the host:

    web = ...                                          # fixtures, see conftest.py
    with client.tunnel("guest-blog:80", to=web) as tunnel:
        answer = visitor.get(f"https://guest-blog.{scenario.domain}/")
        assert answer.status == 200

All go through the command line of Docker, as a person would. Times are seconds.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import pathlib
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, TypeVar

ROOT = pathlib.Path(__file__).parents[2]
# Scripts that run inside the containers.
INSIDE = pathlib.Path(__file__).with_name("inside")

_numbers = itertools.count(1)
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a command returned: exit code, standard output and standard error."""

    command: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything the command said."""
        return self.stdout + self.stderr

    def expect(self, *codes: int) -> Self:
        """Return self if the exit code is one of these (default 0), else raise AssertionError with the output."""
        if self.code not in (codes or (0,)):
            raise AssertionError(f"{shlex.join(self.command)}: exit code {self.code}\n{self.output}")
        return self


def run(*command: str, stdin: bytes | None = None, timeout: float = 120) -> Result:
    """Run a command on this machine; the caller decides what its exit code means."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    return Result(command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def until(awaited: str, probe: Callable[[], T], *, within: float = 10, every: float = 0.1) -> T:
    """Ask `probe` until it returns something true, and return that.

    Raises AssertionError that says what was `awaited` and what the probe returned last, if that takes longer than
    `within`. An AssertionError of the probe counts as "not yet".
    """
    deadline = time.monotonic() + within
    while True:
        try:
            last: object = probe()
            if last:
                return last  # type: ignore[return-value]
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {within} s for this, in vain: {awaited}. Last seen: {last!r}")
        time.sleep(every)


@dataclass(frozen=True)
class Scenario:
    """The facts of a scenario, as molecule/shared/create.yml wrote them into env.json.

    `inventory` is what `ansible-playbook -i` takes for its host (its group is `tunnel`), `images` the full names of the
    images that tests/images/build.py has built, by their short ones.
    """

    scenario: str
    suite: str
    folder: pathlib.Path
    inventory: pathlib.Path
    network: str
    domain: str
    images: dict[str, str]
    host: str
    host_address: str
    ca: str
    ca_address: str
    root: pathlib.Path
    dns: str = ""
    dns_address: str = ""
    docker_options: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: pathlib.Path) -> Self:
        """Read env.json."""
        facts = json.loads(path.read_text())
        return cls(**facts | {name: pathlib.Path(facts[name]) for name in ("folder", "inventory", "root")})

    @property
    def tools(self) -> str:
        """The image that clients, visitors and services run on."""
        return self.images["tools"]


class Container:
    """A container of the outer engine."""

    def __init__(self, name: str) -> None:
        """Speak to the running container `name`."""
        self.name = name

    def exec(
        self, *command: str, stdin: bytes | None = None, timeout: float = 120, env: dict[str, str] | None = None
    ) -> Result:
        """Run a command in it."""
        options = [f"--env={key}={value}" for key, value in (env or {}).items()]
        if stdin is not None:
            options.append("--interactive")
        return run("docker", "exec", *options, self.name, *command, stdin=stdin, timeout=timeout)

    def shell(self, script: str, *, timeout: float = 120) -> Result:
        """Run a shell script in it."""
        return self.exec("sh", "-c", script, timeout=timeout)

    def spawn(self, *command: str) -> None:
        """Start a command in it and don't wait for it."""
        run("docker", "exec", "--detach", self.name, *command).expect()

    def python(self, script: str, *arguments: str, stdin: bytes | None = None, timeout: float = 120) -> Result:
        """Run a script of tests/e2e/inside in it."""
        return self.exec("python3", "-c", (INSIDE / script).read_text(), *arguments, stdin=stdin, timeout=timeout)

    @contextmanager
    def background(self, script: str, *arguments: str) -> Iterator[str]:
        """Let a script of tests/e2e/inside run in it as long as the `with` block lasts; gives the file of its pid."""
        note = f"/run/{script}-{next(_numbers)}.pid"
        code = (INSIDE / script).read_text()
        self.spawn("sh", "-c", f'echo $$ >{note}; exec python3 -c "$@" 2>{note}.error', "sh", code, *arguments)
        until(f"{script} has started", lambda: self.exec("test", "-s", note).code == 0)
        try:
            yield note
        finally:
            self.shell(f"kill -9 $(cat {note})")

    def read(self, path: str) -> str:
        """A file's text."""
        return self.exec("cat", path).expect().stdout

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file."""
        data = text.encode() if isinstance(text, str) else text
        self.exec("sh", "-c", f"cat >{shlex.quote(path)}", stdin=data).expect()

    def copy_in(self, source: pathlib.Path, path: str) -> None:
        """Copy a file of this machine into it."""
        self.write(path, source.read_bytes())

    def logs(self) -> str:
        """Everything it wrote."""
        return run("docker", "logs", self.name).output

    def unplug(self, network: str) -> None:
        """Cut it off from a network, without a word to anybody (no FIN)."""
        run("docker", "network", "disconnect", "--force", network, self.name).expect()

    def link(self, *, up: bool) -> None:
        """Take its link down or up; what it sends while the link is down is lost, and no connection is told."""
        self.network(f"ip link set eth0 {'up' if up else 'down'}")

    def network(self, script: str) -> None:
        """Run a shell script in its network, as one who may change that."""
        run(
            *("docker", "run", "--rm", f"--network=container:{self.name}", "--cap-add=NET_ADMIN"),
            *(run("docker", "inspect", "--format={{.Config.Image}}", self.name).expect().stdout.strip(),),
            *("sh", "-ec", script),
        ).expect()

    def is_gone(self) -> bool:
        """Whether it was removed."""
        return "No such container" in run("docker", "container", "inspect", self.name).output

    def remove(self) -> None:
        """Remove it."""
        run("docker", "rm", "--force", "--volumes", self.name)


class Host(Container):
    """The tunnel host, seen as its operator does."""

    def docker(self, *arguments: str, timeout: float = 120) -> Result:
        """Run the command line of the Docker inside the host."""
        return self.exec("docker", *arguments, timeout=timeout)

    def inside(self, container: str, *command: str, timeout: float = 60) -> Result:
        """Run a command in a container of the host, for example "ss", "-tln" in "proxme-tunnel-sshd"."""
        return self.docker("exec", container, *command, timeout=timeout)

    def containers(self) -> dict[str, str]:
        """The host's own containers and their status, e.g. {"proxme-tunnel-sshd": "Up 3 minutes"}."""
        lines = self.docker("ps", "--all", "--format={{.Names}}\t{{.Status}}").expect().stdout.splitlines()
        return dict(line.split("\t") for line in lines)

    def started(self, *containers: str) -> str:
        """Which containers these (default: all that run) are, and since when they run."""
        names = containers or sorted(self.docker("ps", "--format={{.Names}}").expect().stdout.split())
        return self.docker("inspect", "--format={{.Name}} {{.Id}} {{.State.StartedAt}}", *names).expect().stdout

    def forwards(self) -> int:
        """How many forwards are open."""
        return len(self.inside("proxme-tunnel-sshd", "ss", "-Hltn").expect().stdout.splitlines())

    def sessions(self) -> list[str]:
        """The processes, user and command line, that the connections of clients have in sshd's container."""
        lines = self.inside("proxme-tunnel-sshd", "ps", "-eo", "user:32=,args=").expect().stdout.splitlines()
        return [line for line in lines if re.match(r"tunnel\s", line) or "sshd-session" in line]

    def main_process(self, container: str) -> int:
        """The process id, as the host sees it, of a container's main process."""
        return int(self.docker("inspect", "--format={{.State.Pid}}", container).expect().stdout)

    def kill(self, container: str) -> int:
        """End a container's main process by kill -9 (`docker kill` counts as a wish to stop it); its process id."""
        process = self.main_process(container)
        self.exec("kill", "-9", str(process)).expect()
        return process

    def reload(self, container: str) -> None:
        """Let a container's main process read its configuration again (`docker kill` counts as a wish to stop it)."""
        self.inside(container, "sh", "-c", "kill -HUP 1").expect()

    def stays_stopped(self, container: str) -> bool:
        """Whether Docker takes it for stopped by hand, so that it will not start it again when it ends."""
        identity = self.docker("inspect", "--format={{.Id}}", container).expect().stdout.strip()
        config = json.loads(self.read(f"/var/lib/docker/containers/{identity}/config.v2.json"))
        return bool(config["HasBeenManuallyStopped"])

    def parts(self) -> dict[str, str]:
        """Our containers and their status, without those that were replaced: they have ended, or will."""
        return {
            name: status
            for name, status in self.containers().items()
            if name.startswith("proxme-tunnel-") and "-old-" not in name
        }

    def all_up(self) -> bool:
        """Whether every container of ours runs."""
        statuses = self.parts().values()
        return bool(statuses) and all(status.startswith("Up") for status in statuses)

    def in_namespace(self, container: str, *command: str, timeout: float = 60) -> Result:
        """Run a command of the host in the network of one of its containers."""
        return self.exec("nsenter", f"--net=/proc/{self.main_process(container)}/ns/net", *command, timeout=timeout)

    def sockets(self) -> str:
        """The folder of the sockets between the parts."""
        volume = self.docker("volume", "inspect", "--format={{.Mountpoint}}", "proxme-tunnel-sockets").expect().stdout
        return volume.strip()

    def ask_nginx(self, request: bytes, edge_for: str = "") -> str:
        """Send bytes to nginx as Caddy does, or as the edge for an address; what came until a silent second later."""
        header = f"PROXY TCP4 {edge_for} 192.0.2.1 4000 443\r\n".encode() if edge_for else b""
        socket = f"unix:{self.sockets()}/{'tls' if edge_for else 'visitors'}.sock"
        return self.python("exchange.py", socket, stdin=header + request).expect().stdout

    @contextmanager
    def past_the_edge(self, visitor: Visitor) -> Iterator[None]:
        """Lead new connections of a visitor to Caddy, as those of all where there is no edge."""
        address = visitor.exec("hostname", "-i").expect().stdout.split()[0]
        chain = ("rule", "inet", "edge", "in")
        nft = ("proxme-tunnel-caddy-network", "nft")
        added = self.inside(*nft, "--echo", "--handle", "insert", *chain, "ip", "saddr", address, "accept").expect()
        [number] = re.findall(r"# handle (\d+)", added.stdout)
        try:
            yield
        finally:
            self.inside(*nft, "delete", *chain, "handle", number).expect()

    def anonymous_memory(self, container: str) -> int:
        """Bytes of anonymous memory (without page cache) that a container uses, summed over its control group."""
        stat = self.inside(container, "cat", "/sys/fs/cgroup/memory.stat")
        if stat.code:
            stat = self.inside(container, "cat", "/sys/fs/cgroup/memory/memory.stat")
        numbers = dict(line.split() for line in stat.expect().stdout.splitlines())
        return int(numbers.get("anon") or numbers.get("total_rss") or 0)

    def listening(self) -> set[str]:
        """What the host itself listens on, e.g. {"tcp 0.0.0.0:443"}; the outer engine's resolver left out."""
        lines = self.exec("ss", "-Hlntu").expect().stdout.splitlines()
        found = {f"{parts[0]} {parts[4]}" for parts in (line.split() for line in lines)}
        return {entry for entry in found if "127.0.0.11:" not in entry}

    def reboot(self) -> float:
        """Restart the instance and wait until it has booted; for how many seconds it was going down."""
        began = time.monotonic()
        run("docker", "stop", "--time=60", self.name).expect()
        down = time.monotonic() - began
        run("docker", "start", self.name).expect()
        until(
            "the host has booted",
            lambda: self.exec("systemctl", "is-system-running", "--wait").stdout.strip() == "running",
            within=60,
        )
        return down


class Meter:
    """What the host's containers use, read in their control groups (version 1 or 2) all at once."""

    def __init__(self, host: Host, *containers: str) -> None:
        """Read for these containers; make a new one after one of them was restarted."""
        self.host = host
        self.containers = containers
        self._cpu: list[str] = []
        self._memory: list[str] = []
        for container in containers:
            process = host.main_process(container)
            lines = [line.split(":", 2) for line in host.read(f"/proc/{process}/cgroup").splitlines()]
            groups = {controller: path for _, controllers, path in lines for controller in controllers.split(",")}
            if "memory" in groups:
                self._cpu.append(f"/sys/fs/cgroup/cpuacct{groups['cpuacct']}/cpuacct.usage")
                self._memory.append(f"/sys/fs/cgroup/memory{groups['memory']}/memory.stat")
            else:
                self._cpu.append(f"/sys/fs/cgroup{groups['']}/cpu.stat")
                self._memory.append(f"/sys/fs/cgroup{groups['']}/memory.stat")

    def cpu(self) -> float:
        """Seconds of processor time that all of them used so far, together."""
        if not self._cpu:
            return 0.0
        text = self.host.exec("cat", *self._cpu).expect().stdout
        microseconds = re.findall(r"^usage_usec (\d+)$", text, re.MULTILINE)
        return sum(map(int, microseconds)) / 1e6 if microseconds else sum(map(int, text.split())) / 1e9

    def anonymous(self) -> dict[str, int]:
        """Bytes of anonymous memory (without page cache) of each."""
        text = self.host.exec("cat", *self._memory).expect().stdout
        sizes = re.findall(r"^(?:anon|total_rss) (\d+)$", text, re.MULTILINE)
        return dict(zip(self.containers, map(int, sizes), strict=True))


class Ca(Container):
    """Pebble, the CA of the scenario."""

    def root(self) -> str:
        """The root that it issues with (PEM); a new one after each start."""
        return self.api("roots/0")

    def api(self, path: str) -> str:
        """Answer of its management interface."""
        url = f"https://localhost:15000/{path}"
        return self.exec("curl", "-sSf", "--cacert", "/srv/ca/root.pem", url).expect().stdout

    def orders(self) -> int:
        """How many orders it has been sent so far."""
        return len(re.findall(r"POST /order-plz", self.logs()))

    def ordered_names(self) -> set[str]:
        """The names that it was asked to validate so far."""
        return set(re.findall(r'Identifier\{Type:"dns", Value:"([^"]+)"', self.logs()))

    def issued(self) -> int:
        """How many certificates it has issued so far."""
        return len(re.findall(r"Issued certificate serial", self.logs()))


@dataclass(frozen=True)
class Web:
    """A local web service (tests/images/tools/web.py says what it serves), known to clients as `name`:`port`."""

    container: Container
    name: str
    port: int = 80

    def __str__(self) -> str:
        """How -R names it."""
        return f"{self.name}:{self.port}"

    def get(self, path: str) -> str:
        """Ask it directly, not through the tunnel."""
        return self.container.exec("curl", "-sSfk", f"http://localhost:{self.port}{path}").expect().stdout

    def stop(self) -> None:
        """End the service; its container stays, so the connection is refused from now on."""
        self.container.shell("pkill -f '[/]web.py'")

    def start(self, *options: str) -> None:
        """Start the service and wait until it answers."""
        self.container.spawn("web.py", "--port", str(self.port), "--name", self.name, *options)
        scheme = "https" if "--tls" in options else "http"
        url = f"{scheme}://localhost:{self.port}/"
        until(f"{self.name} answers", lambda: self.container.exec("curl", "-sSfk", url).code == 0)


class RawService:
    """A local service that answers with any bytes, known to clients as `raw:80`."""

    def __init__(self, container: Container) -> None:
        """Start it there (inside/raw_service.py says what it does)."""
        self._container = container
        self._known = 0
        container.write("/run/raw_service.py", (INSIDE / "raw_service.py").read_bytes())
        container.spawn("python3", "/run/raw_service.py", "80", "/run/raw")
        until("the raw service answers", lambda: "plain" in container.exec("curl", "-s", "http://localhost/").stdout)

    def __str__(self) -> str:
        """How -R names it."""
        return "raw:80"

    def answers(self, name: str, *parts: bytes, endless: bytes = b"") -> None:
        """Answer /`name` with these bytes, half a second apart, and then with those that are endless."""
        self._container.write(f"/run/raw/{name}", b"\n~\n".join(parts) + (b"\n~~\n" + endless if endless else b""))

    def requests(self) -> list[dict]:
        """What it was asked so far: {"line": "GET / HTTP/1.1", "headers": [[name, value], ...]}."""
        return [json.loads(line) for line in self._container.read("/run/raw/log").splitlines()]

    def news(self) -> list[dict]:
        """What it was asked since this was called before."""
        found = self.requests()
        new, self._known = found[self._known :], len(found)
        return new

    def forget(self) -> None:
        """Forget what it was asked."""
        self._known = 0
        self._container.write("/run/raw/log", "")

    def expect_only(self, line: str, name: str) -> None:
        """Expect that it was asked nothing else than this (a pattern), for this name, and that nothing was smuggled."""
        for request in self.requests():
            assert re.fullmatch(line, request["line"]), request
            headers = [(header.lower(), value) for header, value in request["headers"]]
            assert [value for header, value in headers if header == "host"] == [name], request
            assert "x-smuggled" not in dict(headers), request


class Tunnel:
    """A running `ssh -NR` in a client's container."""

    def __init__(self, client: Client, number: int, forwards: tuple[str, ...]) -> None:
        """Made by Client.tunnel."""
        self.client = client
        self.forwards = forwards
        self._file = f"/run/tunnel-{number}"

    @property
    def output(self) -> str:
        """What ssh said so far, banner and -v lines included."""
        return self.client.read(f"{self._file}.log")

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        result = self.client.exec("cat", f"{self._file}.code")
        return int(result.stdout) if result.code == 0 and result.stdout.strip() else None

    @property
    def running(self) -> bool:
        """Whether ssh still runs."""
        return self.exit_code is None

    @property
    def ports(self) -> list[int]:
        """The ports that the server chose for `0:` forwards, in order."""
        return [int(port) for port in re.findall(r"Allocated port (\d+) for remote forward", self.output)]

    def refused(self) -> list[str]:
        """The lines that say that a forward was refused."""
        return [
            line
            for line in self.output.splitlines()
            if re.search(r"remote port forwarding failed|remote forward failure", line)
        ]

    def up(self) -> bool:
        """Whether all forwards were granted. Raises AssertionError with ssh's output if ssh has ended."""
        granted = len(re.findall(r"remote forward success for", self.output))
        if granted < len(self.forwards) and not self.running:
            raise TunnelEndedError(f"ssh ended with code {self.exit_code}:\n{self.output}")
        return granted >= len(self.forwards)

    def wait_up(self, within: float = 20) -> Self:
        """Wait until all forwards were granted; fail at once if ssh ends first."""
        try:
            until(f"forwards {', '.join(self.forwards)} are granted", self.up, within=within)
        except TunnelEndedError as error:
            raise AssertionError(str(error)) from None
        return self

    def wait_ended(self, within: float = 20) -> int:
        """Wait until ssh has ended by itself; its exit code."""
        until(f"ssh -R {', '.join(self.forwards)} ends", lambda: not self.running, within=within)
        code = self.exit_code
        assert code is not None
        return code

    def _signal(self, signal: str) -> None:
        self.client.shell(f"kill -{signal} $(cat {self._file}.pid) 2>/dev/null")
        # A machine that was removed has taken it along.
        until(f"ssh has ended after SIG{signal}", lambda: not self.running or self.client.is_gone(), within=10)

    def stop(self) -> None:
        """End it as Ctrl-C does; ssh takes leave of the server."""
        if self.running:
            # Not SIGINT: the shell has it ignored for what runs in the background.
            self._signal("TERM")

    def kill(self) -> None:
        """End it as a crash does (kill -9)."""
        if self.running:
            self._signal("KILL")

    def command(self, *arguments: str) -> Result:
        """Give an order to its control socket (ssh -O), for example "cancel", "-R", "guest-x:80:web:80"."""
        order, *rest = arguments
        return self.client.exec("ssh", "-S", f"{self._file}.sock", "-O", order, *rest, "any")

    def __enter__(self) -> Self:
        """Use it in a `with` block, which stops it at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


class Session(Tunnel):
    """A running ssh without -N, as people type it who forget the -N."""

    def __init__(self, client: Client, number: int, forwards: tuple[str, ...], terminal: bool) -> None:
        """Made by Client.session."""
        super().__init__(client, number, forwards)
        self._terminal = terminal

    @property
    def said(self) -> str:
        """What a person sees: the output without the lines of -v."""
        lines = self.output.replace("\r", "").splitlines()
        shown = [line for line in lines if not re.match(r"debug\d: |OpenSSH_|Script (started|done)", line)]
        return "\n".join(shown).strip()

    def type(self, text: str) -> None:
        """Type into its terminal."""
        self.client.write(f"{self._file}.keys", text)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        if self._terminal:
            self.type("\x03")
        else:
            self.client.shell(f"kill -INT $(cat {self._file}.pid)").expect()


class TunnelEndedError(RuntimeError):
    """ssh ended while its forwards were awaited."""


class Client(Container):
    """A machine behind a NAT, with the stock OpenSSH client."""

    def __init__(self, name: str, host: str, port: int = 2222) -> None:
        """Reach the tunnel host at host:port."""
        super().__init__(name)
        self.host = host
        self.port = port
        self._numbers = itertools.count(1)
        self._tunnels: list[Tunnel] = []

    def options(self) -> list[str]:
        """Options that each ssh gets: no questions, no keep of host keys, and failing fast."""
        wanted = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10")
        return ["-p", str(self.port), *itertools.chain(*(("-o", option) for option in wanted))]

    def tunnel(
        self,
        *forwards: str,
        to: Web | str | None = None,
        user: str = "tunnel",
        wait: bool = True,
        options: Sequence[str] = (),
        exit_on_failure: bool = True,
    ) -> Tunnel:
        """Open `ssh -NR` with these forwards and wait until they are granted.

        A forward is "name:port" or "port" (each gets `to` as its destination), or a whole "name:port:host:port".
        With wait=False it returns at once: for forwards that will be refused.
        """
        whole = tuple(f"{forward}:{to}" if to is not None else forward for forward in forwards)
        number = next(_numbers)
        command = ["ssh", "-v", "-N", *self.options(), *itertools.chain(*(("-R", forward) for forward in whole))]
        command += ["-o", f"ExitOnForwardFailure={'yes' if exit_on_failure else 'no'}"]
        command += ["-o", "BatchMode=yes", "-M", "-S", f"/run/tunnel-{number}.sock", *options, f"{user}@{self.host}"]
        script = (
            f"{shlex.join(command)} </dev/null >/run/tunnel-{number}.log 2>&1 & "
            f"echo $! >/run/tunnel-{number}.pid; wait $!; echo $? >/run/tunnel-{number}.code"
        )
        self.exec("touch", f"/run/tunnel-{number}.log").expect()
        self.spawn("sh", "-c", script)
        tunnel = Tunnel(self, number, whole)
        self._tunnels.append(tunnel)
        return tunnel.wait_up() if wait else tunnel

    def greedy(self, count: int, to: Web | str) -> Tunnel:
        """Ask for so many forwards in one connection, for names and ports in turn, and take what is granted."""
        half = count // 2
        asked = ((f"guest-many-{number}:80 {to}", f"{20000 + number} {to}") for number in range(half))
        self.write("/run/many", "".join(f"RemoteForward {one}\n" for one in itertools.chain(*asked)))
        return self.tunnel(options=["-F", "/run/many", "-q"], exit_on_failure=False, wait=False)

    def session(
        self, *forwards: str, to: Web, options: Sequence[str] = (), terminal: bool = True, user: str = "tunnel"
    ) -> Session:
        """Open `ssh -R` without -N, in front of a terminal or with its input from /dev/null; wait until it is up."""
        whole = tuple(f"{forward}:{to}" for forward in forwards)
        number = next(_numbers)
        file = f"/run/tunnel-{number}"
        command = ["ssh", "-v", *self.options(), *options, *itertools.chain(*(("-R", forward) for forward in whole))]
        command += ["-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes", f"{user}@{self.host}"]
        # Without a terminal the shell has SIGINT ignored for what runs in the background.
        script = f"echo $$ >{file}.pid; exec env --default-signal=INT {shlex.join(command)}"
        if terminal:
            script = shlex.join(["script", "--quiet", "--flush", "--return", "--command", script, "/dev/null"])
            script = f"mkfifo {file}.keys; exec 3<>{file}.keys; {script} <&3"
        else:
            script = f"sh -c {shlex.quote(script)} </dev/null"
        self.exec("touch", f"{file}.log").expect()
        self.spawn("sh", "-c", f"{{ {script}; }} >{file}.log 2>&1; echo $? >{file}.code")
        session = Session(self, number, whole, terminal)
        self._tunnels.append(session)
        session.wait_up()
        return session

    def ssh(
        self, *arguments: str, user: str = "tunnel", timeout: float = 20, stdin: bytes = b"", terminal: bool = False
    ) -> Result:
        """Run one ssh to the end, for example with "-W", "localhost:22" or with "--", "id".

        Arguments stand before the destination, those after a "--" behind it (the remote command). An ssh that is
        still connected after `timeout` is ended; its code is then 124.
        """
        split = arguments.index("--") if "--" in arguments else len(arguments)
        before, after = arguments[:split], arguments[split + 1 :]
        command = ["timeout", "--foreground", str(timeout), "ssh", *self.options(), "-o", "BatchMode=yes", *before]
        command += [f"{user}@{self.host}", *after]
        if terminal:
            command = ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"]
        return self.exec(*command, stdin=stdin, timeout=timeout + 20)

    def stop_all(self) -> None:
        """End all its tunnels."""
        while self._tunnels:
            self._tunnels.pop().stop()


@dataclass(frozen=True)
class Visit:
    """One of many visits: monotonic time of this machine, status (0: no answer), start of the body (or the reason).

    `seconds` is how long it took, where the script that visits says so.
    """

    time: float
    status: int
    body: str
    seconds: float = 0


class Visits:
    """A visitor who comes again and again, over one kept connection (made by Visitor.visits)."""

    def __init__(self, visitor: Visitor, file: str) -> None:
        """Look into the file that inside/knock.py writes."""
        self._visitor = visitor
        self._file = file

    def since(self, moment: float = 0) -> list[Visit]:
        """The visits that were answered at or after `moment` (time.monotonic())."""
        lines = self._visitor.exec("cat", self._file).stdout.splitlines(keepends=True)
        found = [Visit(**json.loads(line)) for line in lines if line.endswith("\n")]
        return [visit for visit in found if visit.time >= moment]

    def wait(self, awaited: str, wanted: Callable[[Visit], bool], *, within: float = 10) -> Visit:
        """Wait for the first visit from now on that is as `wanted`."""
        now = time.monotonic()
        return until(awaited, lambda: next((visit for visit in self.since(now) if wanted(visit)), None), within=within)


@dataclass(frozen=True)
class Answer:
    """What a visitor got: status, headers (lower-case names, last one wins), body, HTTP version, times."""

    status: int
    headers: dict[str, str]
    all_headers: list[tuple[str, str]]
    body: str
    version: str
    first_byte: float
    total: float
    size: int
    error: str

    def json(self) -> dict:
        """The body, parsed."""
        return json.loads(self.body)

    def sent(self, header: str) -> list[str]:
        """From an /echo answer: the values of a request header as the local service saw it."""
        return [value for name, value in self.json()["headers"] if name.lower() == header.lower()]


class Visitor(Container):
    """A visitor out on the internet, with curl; verifies every certificate against the CA's root."""

    VERSIONS: ClassVar = {"1.1": "--http1.1", "2": "--http2", "3": "--http3-only"}

    def trust(self, root: str) -> None:
        """Trust this CA (PEM)."""
        self.write("/run/root.pem", root)

    def get(
        self,
        url: str,
        *,
        http: str = "2",
        headers: dict[str, str] | None = None,
        method: str | None = None,
        body: bytes | None = None,
        options: Sequence[str] = (),
        timeout: float = 30,
    ) -> Answer:
        """Ask for a URL over HTTP/1.1, 2 or 3; redirects aren't followed.

        A failed connection is no exception: its status is 0, and `error` says what curl said.
        """
        command = ["curl", "--silent", "--show-error", self.VERSIONS[http], "--cacert", "/run/root.pem"]
        command += ["--max-time", str(timeout), "--dump-header", "-", "--output", "-"]
        command += [
            "--write-out",
            "%{stderr}\n%{json}",
            *itertools.chain(*(("--header", f"{key}: {value}") for key, value in (headers or {}).items())),
        ]
        if method:
            command += ["--head"] if method == "HEAD" else ["--request", method]
        if body is not None:
            command += ["--data-binary", "@-"]
        result = self.exec(*command, *options, url, stdin=body, timeout=timeout + 10)
        error, _, report = result.stderr.rpartition("\n")
        facts = json.loads(report) if report.startswith("{") else {}
        return self._answer(result.stdout, facts, error.strip())

    @staticmethod
    def _answer(text: str, facts: dict, error: str) -> Answer:
        head, body = "", text
        while re.match(r"HTTP/[\d.]+ \d+", body):
            head, _, body = re.sub(r"\A((?:[^\r\n]+\r\n)+)\r\n", r"\1\0", body, count=1).partition("\0")
            if not re.match(r"HTTP/[\d.]+ 1\d\d", head):
                break
        pairs = [
            (key.lower(), value.strip())
            for key, colon, value in (line.partition(":") for line in head.splitlines()[1:])
            if colon
        ]
        return Answer(
            status=int(facts.get("http_code", 0)),
            headers=dict(pairs),
            all_headers=pairs,
            body=body,
            version=str(facts.get("http_version", "")),
            first_byte=float(facts.get("time_starttransfer", 0)),
            total=float(facts.get("time_total", 0)),
            size=int(facts.get("size_download", 0)),
            error=error,
        )

    def comes_by_edge(self, url: str) -> bool:
        """Whether a web service is asked for a visit straight from the edge: Caddy spells headers in its own way."""
        return "X-Real-IP" in dict(self.get(f"{url}/echo").json()["headers"])

    def download(self, url: str, *, http: str = "2", timeout: float = 300) -> Answer:
        """Fetch a big thing and throw it away; `size` and `total` say how much and how fast."""
        command = ["curl", "-sS", self.VERSIONS[http], "--cacert", "/run/root.pem", "--max-time", str(timeout)]
        result = self.exec(*command, "-o", "/dev/null", "-w", "%{stderr}\n%{json}", url, timeout=timeout + 10)
        error, _, report = result.stderr.rpartition("\n")
        return self._answer("", json.loads(report) if report.startswith("{") else {}, error.strip())

    def upload(self, url: str, size: int, *, http: str = "2", timeout: float = 300) -> Answer:
        """Send `size` zero bytes, streamed with a Content-Length; the answer is the service's count."""
        command = ["curl", "-sS", self.VERSIONS[http], "--cacert", "/run/root.pem", "--max-time", str(timeout)]
        command += ["-X", "POST", "-D", "-", "-o", "-", "-w", "%{stderr}\n%{json}"]
        # A sparse file: no disk is written, and curl knows the length.
        script = (
            f"truncate -s {size} /tmp/upload-{size} && {shlex.join(command)} -T /tmp/upload-{size} {shlex.quote(url)}"
        )
        result = self.shell(script, timeout=timeout + 10)
        error, _, report = result.stderr.rpartition("\n")
        return self._answer(result.stdout, json.loads(report) if report.startswith("{") else {}, error.strip())

    def websocket(
        self, url: str, *messages: str, hold: float = 0, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> dict:
        """Talk to a WebSocket echo (wss:// URL); {"answers": [...], "seconds": [...], "closed": code or None}."""
        options = itertools.chain(*(("--header", f"{key}: {value}") for key, value in (headers or {}).items()))
        command = ["websocket.py", "--hold", str(hold), *options, url, "/run/root.pem", *messages]
        return json.loads(self.exec(*command, timeout=timeout + hold).expect().stdout)

    def events(self, url: str, *, count: int = 3, http: str = "2", timeout: float = 20) -> list[float]:
        """Seconds after the request at which the first `count` lines of a stream with text arrived."""
        script = (
            "import subprocess, sys, time; start = time.monotonic(); got = 0\n"
            "p = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)\n"
            "for line in p.stdout:\n"
            "    if line.strip():\n"
            "        print(time.monotonic() - start); got += 1\n"
            "    if got == int(sys.argv[1]): break\n"
            "p.kill()"
        )
        command = ["curl", "-sSN", self.VERSIONS[http], "--cacert", "/run/root.pem", "--max-time", str(timeout), url]
        result = self.exec("python3", "-c", script, str(count), *command, timeout=timeout + 10).expect()
        return [float(line) for line in result.stdout.split()]

    @contextmanager
    def visits(self, url: str, *, every: float = 0.05, new: bool = False) -> Iterator[Visits]:
        """Visit a URL again and again, `every` so many seconds, for as long as the `with` block lasts.

        The connection is kept, or a `new` one is made for each visit.
        """
        with self._visits("knock.py", url, str(every), *(["new"] if new else [])) as visits:
            yield visits

    @contextmanager
    def steady_visits(self, url: str) -> Iterator[Visits]:
        """Visit a URL five times a second, also while answers are missing, for as long as the `with` block lasts."""
        with self._visits("steady.py", url) as visits:
            yield visits

    @contextmanager
    def _visits(self, script: str, url: str, *options: str) -> Iterator[Visits]:
        file = f"/run/visits-{next(_numbers)}"
        with self.background(script, url, "/run/root.pem", file, *options) as note:
            visits = Visits(self, file)
            until(f"the first visit of {url} is over", visits.since)
            yield visits
            # Without this, a script that died would be a visitor with no complaint.
            assert self.shell(f"kill -0 $(cat {note})").code == 0, self.read(f"{note}.error")

    def send(self, name: str, request: bytes) -> str:
        """Send bytes to the host over TLS, as a visitor of `name`; what came back until a silent second later."""
        return self.python("exchange.py", f"tls:{name}", "/run/root.pem", stdin=request).expect().stdout

    def certificate(self, name: str, port: int = 443) -> str:
        """The certificate that the host shows for a name, as openssl prints it; "" if it shows none."""
        connect = shlex.join(["openssl", "s_client", "-connect", f"{name}:{port}", "-servername", name])
        return self.shell(f"{connect} </dev/null 2>/dev/null | openssl x509 -noout -text 2>/dev/null").stdout


class World:
    """Starts the containers of the tests and removes them again."""

    def __init__(self, scenario: Scenario) -> None:
        """Work in this scenario."""
        self.scenario = scenario
        self.host = Host(scenario.host)
        self.ca = Ca(scenario.ca)
        self._taken = 0

    def addresses(self, container: Container, count: int) -> list[str]:
        """Give a container so many further addresses, from the end of the scenario's network."""
        described = run("docker", "network", "inspect", "--format={{json .IPAM.Config}}", self.scenario.network)
        subnet = ipaddress.ip_network(json.loads(described.expect().stdout)[0]["Subnet"])
        # The last is the broadcast address.
        first = self._taken + 2
        self._taken += count
        assert first + count < subnet.num_addresses - 256, "the engine hands out the first ones"
        given = [str(subnet[-number]) for number in range(first, first + count)]
        container.network("\n".join(f"ip address add {address}/{subnet.prefixlen} dev eth0" for address in given))
        return given

    def with_image(self, name: str, **arguments: str) -> World:
        """The same world, whose containers have what tests/images/`name` adds to the tools' image.

        `arguments` are further build arguments of its Dockerfile.
        """
        folder = ROOT / "tests/images" / name
        image = f"proxme-test/{name}:{self.scenario.network}"
        given = (f"--build-arg={key}={value}" for key, value in {"BASE": self.scenario.tools, **arguments}.items())
        label = "--label=proxme.test-image=yes"
        run("docker", "build", "--quiet", *given, label, "--tag", image, str(folder), timeout=300).expect()
        return World(replace(self.scenario, images=self.scenario.images | {"tools": image}))

    def container(self, name: str, *options: str, command: Sequence[str] = ()) -> str:
        """Start a container of the tools' image in the scenario's network; its full name."""
        full = f"{self.scenario.network}-{name}"
        run("docker", "rm", "--force", "--volumes", full)
        run(
            *("docker", "run", "--detach", "--name", full, "--hostname", name, "--network", self.scenario.network),
            *("--network-alias", name, "--dns", self.scenario.ca_address, "--tmpfs", "/run"),
            *(f"--label=proxme.scenario={self.scenario.network}", f"--label=proxme.checkout={ROOT}", *options),
            *(self.scenario.tools, *command),
        ).expect()
        return full

    @contextmanager
    def client(self, name: str | None = None, *options: str) -> Iterator[Client]:
        """A client, for as long as the `with` block lasts."""
        name = name or f"client-{next(_numbers)}"
        client = Client(self.container(name, *options), self.scenario.domain)
        try:
            yield client
        finally:
            client.remove()

    @contextmanager
    def web(self, name: str = "web", port: int = 80, *options: str) -> Iterator[Web]:
        """A local web service, for as long as the `with` block lasts; options are those of web.py."""
        web = Web(Container(self.container(name)), name, port)
        try:
            web.start(*options)
            yield web
        finally:
            web.container.remove()

    @contextmanager
    def raw_service(self, *options: str) -> Iterator[RawService]:
        """A local service that answers with any bytes, for as long as the `with` block lasts."""
        container = Container(self.container("raw", *options))
        try:
            yield RawService(container)
        finally:
            container.remove()

    @contextmanager
    def visitor(self, name: str | None = None, *options: str) -> Iterator[Visitor]:
        """A visitor who trusts the scenario's CA, for as long as the `with` block lasts."""
        visitor = Visitor(self.container(name or f"visitor-{next(_numbers)}", *options))
        try:
            visitor.trust(self.ca.root())
            yield visitor
        finally:
            visitor.remove()
