# SPDX-License-Identifier: GPL-3.0-or-later
"""Each program of docs/libraries.md, read out of the page, against a real host: `make test-clients`.

The host is the scenario that PROXME_SCENARIO names by its env.json, else `default`, which is made if there is none.
Libraries run on this machine, which has to have Python, Go, Node.js and Java with Maven; the version that a heading
names is installed into .cache/clients. What Debian has runs in a container.
"""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from instance import find_world  # noqa: E402
from world import Container, Visitor, World, until  # noqa: E402

PAGE = (ROOT / "docs/libraries.md").read_text()
CACHE = ROOT / ".cache/clients"
MAVEN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>clients</groupId><artifactId>client</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
DEPENDENCY = """<dependency>
    <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
  </dependency>"""
HELD = "guest-held-by-another"


def section(title: str) -> tuple[str, str]:
    """The version that the heading of a program names, and the first program or command below it."""
    part = re.search(rf"^## (?:.*: )?{re.escape(title)} v?([\d.]+).*?\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert part, f"docs/libraries.md has no section {title}"
    block = re.search(r"^```\w+\n(.*?)^```|^    (.+?)\n", part[2], re.M | re.S)
    assert block, f"{title}: no program"
    return part[1], block[1] or block[2]


def name_for(title: str) -> str:
    """The name that a program takes."""
    return f"guest-{re.sub(r'[^a-z0-9]+', '-', title.lower())}"


def call(*command: str, folder: Path) -> None:
    """Run a command of the preparation; fail with what it says."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def python(package: str) -> Callable[[Path, str, str], list[str]]:
    """How to run a program with a package of PyPI."""

    def prepare(folder: Path, version: str, program: str) -> list[str]:
        interpreter = folder / "venv/bin/python"
        if not interpreter.exists():
            call(sys.executable, "-m", "venv", "venv", folder=folder)
            call(str(interpreter), "-m", "pip", "--quiet", "install", f"{package}=={version}", folder=folder)
        (folder / "tunnel.py").write_text(program)
        return [str(interpreter), "tunnel.py"]

    return prepare


def go(folder: Path, version: str, program: str) -> list[str]:
    """How to run a program with Go's library."""
    (folder / "main.go").write_text(program)
    if not (folder / "go.mod").exists():
        call("go", "mod", "init", "example.com/tunnel", folder=folder)
        call("go", "get", f"golang.org/x/crypto@v{version}", folder=folder)
    call("go", "build", "-o", "tunnel", ".", folder=folder)
    return ["./tunnel"]


def node(folder: Path, version: str, program: str) -> list[str]:
    """How to run a program with ssh2 of npm."""
    if not (folder / "node_modules/ssh2").exists():
        call("npm", "install", "--silent", "--ignore-scripts", f"ssh2@{version}", folder=folder)
    (folder / "tunnel.js").write_text(program)
    return ["node", "tunnel.js"]


def java(library: str, *others: str) -> Callable[[Path, str, str], list[str]]:
    """How to run a program with a library of Maven Central, and others whose version the page has too."""

    def prepare(folder: Path, version: str, program: str) -> list[str]:
        if not (folder / "jars").exists():
            wanted = [f"{library}:{version}", *(re.search(rf"`({other}:[\d.]+)`", PAGE)[1] for other in others)]
            dependencies = "".join(DEPENDENCY.format(*one.split(":")) for one in wanted)
            (folder / "pom.xml").write_text(POM.format(dependencies=dependencies))
            call("mvn", "--quiet", "--batch-mode", MAVEN, f"-DoutputDirectory={folder}/jars", folder=folder)
        (folder / "Tunnel.java").write_text(program)
        return ["java", "-cp", "jars/*", "Tunnel.java"]

    return prepare


LIBRARIES = {
    "paramiko": python("paramiko"),
    "Fabric": python("fabric"),
    "asyncssh": python("asyncssh"),
    "Twisted Conch": python("twisted[conch]"),
    "golang.org/x/crypto": go,
    "ssh2": node,
    "JSch": java("com.github.mwiede:jsch"),
    "sshj": java("com.hierynomus:sshj"),
    "Apache MINA SSHD": java("org.apache.sshd:sshd-core", "org.bouncycastle:bcprov-jdk18on"),
}
# By title: the package of Debian whose version the heading names.
PROGRAMS = {
    "Net::SSH": "ruby-net-ssh",
    "Erlang/OTP": "erlang-ssh",
    "libssh": "libssh-dev",
    "libssh2": "libssh2-1-dev",
    "plink": "putty-tools",
    "Dropbear": "dropbear-bin",
}
# By title: how a program of theirs that is no command runs, from its file; a C program is built before.
RUNS = {"Net::SSH": "ruby {}", "Erlang/OTP": "escript {}", "libssh": "-lssh", "libssh2": "-lssh2"}


@dataclass
class Client:
    """A program of the page: how to start it (again), how to end it, its exit code once it has ended, what it said."""

    start: Callable[[], None]
    end: Callable[[], None]
    code: Callable[[], int | None]
    said: Callable[[], str]


@pytest.fixture(scope="module")
def world() -> World:
    """The world of the host."""
    return find_world()


@pytest.fixture(scope="module")
def visitor(world: World) -> Iterator[Visitor]:
    """A visitor of the tunnels."""
    with world.visitor() as visitor:
        yield visitor


@pytest.fixture(scope="module", autouse=True)
def holder(world: World) -> Iterator[None]:
    """Somebody who holds a name that all programs are refused."""
    with world.web() as web, world.client("holder") as client, client.tunnel(f"{HELD}:80", to=web):
        yield


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """A service on this machine; its port."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"Hello from here."
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def known(world: World) -> tuple[str, str]:
    """The host's key as known_hosts has it, for its address at both ports; and its fingerprint."""
    scan = ["ssh-keyscan", "-p", "2222", "-t", "ed25519", world.scenario.host_address]
    line = subprocess.run(scan, capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=line, capture_output=True, text=True, check=True).stdout
    return line + line.replace("]:2222", "]:443"), listed.split()[1]


@pytest.fixture(scope="module")
def machine(world: World) -> Iterator[Container]:
    """A machine with the clients that Debian has, and a service at port 3000."""
    with world.with_image("clients").client("other") as machine:
        machine.spawn("web.py", "--port", "3000", "--name", "here")
        until("the service answers", lambda: machine.exec("curl", "-sSf", "http://localhost:3000/").code == 0)
        scanned = machine.exec("ssh-keyscan", "-p", "2222", "-t", "ed25519", world.scenario.domain).expect().stdout
        # Dropbear notes no port.
        bare = re.sub(r"^\[(.*)\]:2222", r"\1", scanned, flags=re.M)
        machine.shell("mkdir -p ~/.ssh").expect()
        machine.write("/root/.ssh/known_hosts", scanned + scanned.replace("]:2222", "]:443") + bare)
        yield machine


@pytest.fixture
def client(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Call it with a title of the page, the name to take, and the port to come by."""
    with ExitStack() as stack:

        def made(title: str, name: str, port: int = 2222) -> Client:
            kind = here if title in LIBRARIES else there
            one = kind(request, world, tmp_path, title, name, port)
            stack.callback(one.end)
            one.start()
            return one

        yield made


def here(request: pytest.FixtureRequest, world: World, tmp_path: Path, title: str, name: str, port: int) -> Client:
    """A program that runs on this machine."""
    version, program = section(title)
    (line, fingerprint), serves = request.getfixturevalue("known"), request.getfixturevalue("service")
    # Ports first: what is put in may have digits.
    for shown, real in {
        "2222": str(port),
        "proxme.example.com": world.scenario.host_address,
        "guest-x": name,
        "3000": str(serves),
        "SHA256:…": fingerprint,
    }.items():
        program = program.replace(shown, real)
    folder = CACHE / f"{re.sub('[ /]', '-', title)}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    command = LIBRARIES[title](folder, version, program)
    (tmp_path / ".ssh").mkdir(exist_ok=True)
    (tmp_path / ".ssh/known_hosts").write_text(line)
    log = tmp_path / f"{name}.log"
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        # `-Duser.home`: Java does not ask HOME.
        options = {"HOME": str(tmp_path), "JAVA_TOOL_OPTIONS": f"-Duser.home={tmp_path}"}
        with log.open("wb") as output:
            running.append(
                subprocess.Popen(command, cwd=folder, env=os.environ | options, stdout=output, stderr=output)
            )

    def end() -> None:
        for process in running:
            process.kill()
            process.wait()

    return Client(start, end, lambda: running[-1].poll(), log.read_text)


def there(request: pytest.FixtureRequest, world: World, tmp_path: Path, title: str, name: str, port: int) -> Client:
    """A program that runs in a container with Debian's clients."""
    machine: Container = request.getfixturevalue("machine")
    version, program = section(title)
    installed = machine.exec("dpkg-query", "--show", "--showformat=${Version}", PROGRAMS[title]).expect().stdout
    # Before a colon stands Debian's epoch.
    assert installed.rpartition(":")[2].startswith(version), f"{title}: the page has {version}, Debian {installed}"
    key = re.findall(r"SHA256:\S+", machine.shell("ssh-keygen -lf ~/.ssh/known_hosts").expect().stdout)[0]
    shows = {"2222": str(port), "proxme.example.com": world.scenario.domain, "guest-x": name, "SHA256:…": key}
    for shown, real in shows.items():
        program = program.replace(shown, real)
    file = f"/run/{name_for(title)}-{name}"
    command = program
    if title in RUNS:
        machine.write(f"{file}.c", program)
        command = RUNS[title].format(f"{file}.c")
    if command.startswith("-l"):
        # /run may run no programs.
        built = f"/usr/local/bin/{name_for(title)}"
        machine.exec("gcc", "-Wall", "-Werror", "-o", built, f"{file}.c", command).expect()
        command = built
    elif title == "plink":
        # -v, since it is silent otherwise; PuTTY has a list of host keys of its own.
        command = program.replace("plink ", f"plink -v -hostkey {key} ")

    def start() -> None:
        script = f"{command} </dev/null >{file}.log 2>&1 & echo $! >{file}.pid; wait $!; echo $? >{file}.code"
        machine.shell(f"rm -f {file}.code; touch {file}.log").expect()
        machine.spawn("sh", "-c", script)

    def code() -> int | None:
        found = machine.exec("cat", f"{file}.code")
        return int(found.stdout) if found.code == 0 and found.stdout.strip() else None

    return Client(
        start, lambda: machine.shell(f"kill $(cat {file}.pid)") and None, code, lambda: machine.read(f"{file}.log")
    )


@pytest.mark.parametrize("port", [2222, 443])
@pytest.mark.parametrize("title", [*LIBRARIES, *PROGRAMS])
def test_a_program_of_the_page_opens_the_tunnel(client, visitor, world, title, port) -> None:
    name = name_for(title)
    one = client(title, name, port)
    url = f"https://{name}.{world.scenario.domain}/"

    def served() -> bool:
        return "Hello from here." in visitor.get(url).body

    until(f"{title} serves", lambda: one.code() is not None or served(), within=40, every=0.5)
    for _ in range(3):
        assert "Hello from here." in visitor.get(url).body
    assert one.code() is None, one.said()
    one.end()
    until("the name is free", lambda: visitor.get(url).status == 404, within=25)


@pytest.mark.parametrize("title", [*LIBRARIES, *PROGRAMS])
def test_a_program_of_the_page_ends_when_the_name_is_refused(client, title) -> None:
    one = client(title, HELD)
    if title == "plink":
        until("plink is refused", lambda: f"Remote port forwarding from {HELD}:80 refused" in one.said(), within=20)
        time.sleep(1)  # what is awaited here is that it stays, as the page says
        assert one.code() is None
    else:
        until(f"{title} ends", lambda: one.code() is not None, within=40)
        # 126 and 127 are the shell's: there is no such program. escript ends with 127 wherever it fails.
        wrong = (0, 126) if title == "Erlang/OTP" and "{error,not_accepted}" in one.said() else (0, 126, 127)
        assert one.code() not in wrong, one.said()


def test_programs_of_the_page_outlast_silence_end_with_their_connection_and_come_back(client, visitor, world) -> None:
    def connections() -> set[str]:
        return set(world.host.exec("pgrep", "-x", "sshd-session").stdout.split())

    def served(title: str) -> bool:
        return "Hello from here." in visitor.get(f"https://{name_for(title)}.{world.scenario.domain}/").body

    def ended() -> dict[str, str]:
        return {title: one.said() for title, one in programs.items() if one.code() is not None}

    others = connections()
    programs = {}
    for title in [*LIBRARIES, *PROGRAMS]:
        programs[title] = client(title, name_for(title))
        until(f"{title} serves", partial(served, title), within=40, every=0.5)
    time.sleep(30)  # what is awaited here is that nothing happens
    assert not ended()
    assert [title for title in programs if not served(title)] == []
    # A connection is two processes, and one may end with the other before its turn comes.
    world.host.exec("kill", *(connections() - others))
    for title, one in programs.items():
        until(f"{title} ends", lambda one=one: one.code() is not None, within=20)
    # As whatever starts them again does.
    for title, one in programs.items():
        one.start()
        until(f"{title} serves again", partial(served, title), within=40, every=0.5)
