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
  <dependencies><dependency>
    <groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
  </dependency></dependencies>
</project>
"""
HELD = "guest-held-by-another"


def section(title: str) -> tuple[str, str]:
    """The version that the heading of a program names, and the first program or command below it."""
    part = re.search(rf"^## (?:.*: )?{re.escape(title)} v?([\d.]+).*?\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert part, f"docs/libraries.md has no section {title}"
    block = re.search(r"^```\w+\n(.*?)^```|^    (.+?)\n", part[2], re.M | re.S)
    assert block, f"{title}: no program"
    return part[1], block[1] or block[2]


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


def java(group: str, artifact: str) -> Callable[[Path, str, str], list[str]]:
    """How to run a program with a library of Maven Central."""

    def prepare(folder: Path, version: str, program: str) -> list[str]:
        if not (folder / "jars").exists():
            (folder / "pom.xml").write_text(POM.format(group=group, artifact=artifact, version=version))
            call("mvn", "--quiet", "--batch-mode", MAVEN, f"-DoutputDirectory={folder}/jars", folder=folder)
        (folder / "Tunnel.java").write_text(program)
        return ["java", "-cp", "jars/*", "Tunnel.java"]

    return prepare


LIBRARIES = {
    "paramiko": python("paramiko"),
    "asyncssh": python("asyncssh"),
    "golang.org/x/crypto": go,
    "ssh2": node,
    "JSch": java("com.github.mwiede", "jsch"),
    "sshj": java("com.hierynomus", "sshj"),
}
# By title: the package of Debian whose version the heading names.
PROGRAMS = {"libssh2": "libssh2-1-dev", "plink": "putty-tools", "Dropbear": "dropbear-bin"}


@dataclass
class Client:
    """A program of the page, ready to run: its command, and how to say that it has ended."""

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
    """The host's key as known_hosts has it, for its address; and its fingerprint."""
    scan = ["ssh-keyscan", "-p", "2222", "-t", "ed25519", world.scenario.host_address]
    line = subprocess.run(scan, capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=line, capture_output=True, text=True, check=True).stdout
    return line, listed.split()[1]


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
        machine.write("/root/.ssh/known_hosts", scanned + bare)
        yield machine


@pytest.fixture
def client(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Callable[[str, str], Client]]:
    """Call it with a title of the page and the name to take."""
    with ExitStack() as stack:

        def made(title: str, name: str) -> Client:
            kind = here if title in LIBRARIES else there
            one = kind(request, world, tmp_path, title, name)
            stack.callback(one.end)
            one.start()
            return one

        yield made


def here(request: pytest.FixtureRequest, world: World, tmp_path: Path, title: str, name: str) -> Client:
    """A program that runs on this machine."""
    version, program = section(title)
    (line, fingerprint), port = request.getfixturevalue("known"), request.getfixturevalue("service")
    for shown, real in {
        "proxme.example.com": world.scenario.host_address,
        "guest-x": name,
        "3000": str(port),
        "SHA256:…": fingerprint,
    }.items():
        program = program.replace(shown, real)
    folder = CACHE / f"{title.replace('/', '-')}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    command = LIBRARIES[title](folder, version, program)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(line)
    log = tmp_path / "log"
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

    return Client(start, end, lambda: running[0].poll(), log.read_text)


def there(request: pytest.FixtureRequest, world: World, tmp_path: Path, title: str, name: str) -> Client:
    """A program that runs in a container with Debian's clients."""
    machine: Container = request.getfixturevalue("machine")
    version, program = section(title)
    installed = machine.exec("dpkg-query", "--show", "--showformat=${Version}", PROGRAMS[title]).expect().stdout
    assert installed.startswith(version), f"{title}: the page has {version}, Debian {installed}"
    program = program.replace("proxme.example.com", world.scenario.domain).replace("guest-x", name)
    file = f"/run/{title}-{name}"
    command = program
    if title == "libssh2":
        machine.write(f"{file}.c", program)
        # /run may run no programs.
        command = f"/usr/local/bin/{name}"
        machine.exec("gcc", "-Wall", "-Werror", "-o", command, f"{file}.c", "-lssh2").expect()
    elif title == "plink":
        # -v, since it is silent otherwise; PuTTY has a list of host keys of its own.
        key = re.findall(r"SHA256:\S+", machine.shell("ssh-keygen -lf ~/.ssh/known_hosts").expect().stdout)[0]
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


@pytest.mark.parametrize("title", [*LIBRARIES, *PROGRAMS])
def test_a_program_of_the_page_opens_the_tunnel(client, visitor, world, title) -> None:
    name = f"guest-{re.sub(r'[^a-z0-9]+', '-', title.lower())}"
    one = client(title, name)
    url = f"https://{name}.{world.scenario.domain}/"

    def served() -> bool:
        assert one.code() is None, f"it has ended:\n{one.said()}"
        return "Hello from here." in visitor.get(url).body

    until(f"{title} serves", served, within=40, every=0.5)
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
        # 126 and 127 are the shell's: there is no such program.
        assert one.code() not in (0, 126, 127), one.said()
