#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel host on this machine: demo.py up | down | clean.

up     makes an instance (Molecule's scenario `demo`), runs the site playbook on it, keeps a tunnel to a small page
       open, fetches that page over verified HTTPS, and says how to try it by hand. May be run again at any time.
down   removes every trace of it.
clean  removes all scenarios of this checkout, and the images they were made from.

The instance is reached at 127.0.0.1, at TUNNEL_SSH_PORT (2222), TUNNEL_HTTP_PORT (8080) and TUNNEL_HTTPS_PORT (8443).
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import docker
import httpx
from docker.errors import NotFound
from rich.console import Console

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/images"))
from build import LABEL, building  # noqa: E402

FOLDER = ROOT / ".demo"
# Where molecule/shared/create.yml says where everything is.
FACTS = ROOT / ".cache/demo/env.json"
LOG = FOLDER / "log"
MADE = FOLDER / "ports.json"
DOMAIN = "proxme.localhost"
NAME = "guest-demo"
# On every container and network of this checkout's scenarios.
OURS = f"proxme.checkout={ROOT}"
ROOT_CERTIFICATE = "/var/lib/proxme-tunnel/caddy_frontend/caddy/pki/authorities/local/root.crt"
# A step that takes longer, in seconds, is worth a line of its own.
LONG = 4

console = Console(highlight=False)
started = time.monotonic()


def port(name: str, default: int) -> int:
    """A port from the environment."""
    text = os.environ.get(f"TUNNEL_{name}_PORT") or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise SystemExit(f"TUNNEL_{name}_PORT={text} is no port: write a number from 1 to 65535.")
    return int(text)


PORTS = {"SSH": port("SSH", 2222), "HTTP": port("HTTP", 8080), "HTTPS": port("HTTPS", 8443)}


def say(text: str) -> None:
    """Show a step that is done."""
    console.print(f"[dim]{time.monotonic() - started:4.0f} s[/dim]  {text}", soft_wrap=True)


def molecule(*arguments: str, announce: str) -> None:
    """Run molecule on the scenario; show its tasks as they come, the long ones for good; all it says is in the log."""
    environment = {
        **os.environ,
        **{f"TUNNEL_{name}_PORT": str(number) for name, number in PORTS.items()},
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(FOLDER / "molecule"),
        "MOLECULE_COMMAND_BORDERS": "false",
        "ANSIBLE_FORCE_COLOR": "0",
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }
    # Molecule finds its base by itself only in a git checkout.
    base = str(ROOT / ".config/molecule/config.yml")
    command = [sys.executable, "-m", "molecule", "--base-config", base, *arguments, "--scenario-name", "demo"]
    FOLDER.mkdir(exist_ok=True)
    with LOG.open("a") as log, console.status(announce) as status:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout
        task, since = "starting Ansible", time.monotonic()
        for line in process.stdout:
            log.write(line)
            if found := re.match(r"TASK \[(.*?)\] \*", line):
                if time.monotonic() - since > LONG:
                    say(f"{announce}: {task}")
                task, since = found[1], time.monotonic()
                status.update(f"{announce}: {task}")
        code = process.wait()
    if code:
        tail = [line for line in LOG.read_text().splitlines() if line.strip()][-40:]
        console.print("\n".join(tail), markup=False)
        raise SystemExit(f"molecule {arguments[0]} failed; all it said is in {LOG.relative_to(ROOT)}")


def engine() -> docker.DockerClient:
    """The Docker engine of this machine."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise SystemExit(f"No Docker engine answers ({error}). `make setup` installs one.") from error
    return client


def check_ports() -> None:
    """Refuse ports that somebody has, before anything starts."""
    if len(set(PORTS.values())) < len(PORTS):
        raise SystemExit(f"The three ports must differ: {', '.join(f'TUNNEL_{k}_PORT={v}' for k, v in PORTS.items())}")
    for name, number in PORTS.items():
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)[: 2 if name == "HTTPS" else 1]:
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", number))
                except OSError as error:
                    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
                    free = number + 10000 if number < 50000 else number - 10000
                    raise SystemExit(
                        f"Port {number}/{protocol} of 127.0.0.1 can't be had ({error.strerror}). "
                        f"Choose another: make demo TUNNEL_{name}_PORT={free}"
                    ) from error


def wake(client: docker.DockerClient) -> bool:
    """Start what is stopped of an earlier demo; whether there is a whole one, with the wanted ports."""
    if not FACTS.exists() or not MADE.exists() or json.loads(MADE.read_text()) != PORTS:
        return False
    network = facts()["network"]
    try:
        with contextlib.suppress(NotFound):
            # Where a registry answers there is none.
            client.containers.get(f"{network}-registry").start()
        for part in ("ca", "host"):
            # Does nothing where it runs.
            client.containers.get(f"{network}-{part}").start()
    except docker.errors.DockerException:
        return False
    return True


def facts() -> dict[str, Any]:
    """Where everything is."""
    return json.loads(FACTS.read_text())


def user_side(client: docker.DockerClient) -> None:
    """What a user of the tunnel host brings: a web page, and ssh that keeps a tunnel to it open."""
    known = facts()
    network = known["network"]
    command = ["ssh", "-N", "-p", str(PORTS["SSH"]), "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=5"]
    command += ["-o", "StrictHostKeyChecking=accept-new", "-R", f"{NAME}:80:web:80", f"tunnel@{DOMAIN}"]
    for name, what in (("web", ["web.py", "--name", "the demo"]), ("client", command)):
        full = f"{network}-{name}"
        with contextlib.suppress(NotFound):
            client.containers.get(full).remove(force=True, v=True)
        networking = client.api.create_networking_config({network: client.api.create_endpoint_config(aliases=[name])})
        config = client.api.create_host_config(
            dns=[known["ca_address"]], network_mode=network, restart_policy={"Name": "unless-stopped"}
        )
        labels = {"proxme.scenario": network, "proxme.checkout": str(ROOT)}
        image = known["images"]["tools"]
        client.api.create_container(
            image, what, name=full, hostname=name, labels=labels, host_config=config, networking_config=networking
        )
        client.api.start(full)


def in_container(client: docker.DockerClient, name: str, *command: str) -> str:
    """Output of a command in a container; "" if it fails."""
    code, output = client.containers.get(name).exec_run(list(command), demux=True)
    return (output[0] or b"").decode() if code == 0 else ""


def await_text(awaited: str, probe: Callable[[], str], seconds: float = 30) -> str:
    """Poll until `probe` returns text; fail with what was awaited."""
    deadline = time.monotonic() + seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if text := probe():
                return text
        except httpx.HTTPError as error:
            last = f" Last seen: {error!r}"
        time.sleep(0.3)
    raise SystemExit(f"Waited {seconds:.0f} s for {awaited}, in vain.{last}\nThe log is {LOG.relative_to(ROOT)}")


def fetch(url: str, ca: pathlib.Path) -> str:
    """Body of a URL below our domain, fetched from 127.0.0.1 with the certificate verified; "" if it isn't 200."""
    wanted = httpx.URL(url)
    with httpx.Client(verify=ssl.create_default_context(cafile=ca), http2=True, timeout=10) as client:
        answer = client.get(
            wanted.copy_with(host="127.0.0.1"),
            headers={"Host": f"{wanted.host}:{wanted.port}"},
            extensions={"sni_hostname": wanted.host},
        )
    return answer.text if answer.status_code == 200 else ""


def resolves(name: str) -> bool:
    """Whether this machine finds a name below .localhost by itself; not every resolver does."""
    try:
        return any(entry[4][0] in ("127.0.0.1", "::1") for entry in socket.getaddrinfo(name, None))
    except OSError:
        return False


def up() -> None:
    """Make the demo, or bring it up to date."""
    client = engine()
    if not wake(client):
        if FOLDER.exists():
            molecule("destroy", announce="Removing what is left of an earlier demo")
        check_ports()
        shutil.rmtree(FOLDER, ignore_errors=True)
        # Molecule would do it, too, but show nothing meanwhile.
        with console.status("Building the images"):
            build = [sys.executable, str(ROOT / "tests/images/build.py"), "host-trixie", "tools", "registry"]
            if subprocess.run(build, stdout=subprocess.DEVNULL, check=False).returncode:
                raise SystemExit("The images can't be built; see above.")
        molecule("create", announce="Making the instance")
        MADE.write_text(json.dumps(PORTS))
        say("the instance has booted")
    molecule("converge", announce="Running the site playbook")
    say("the tunnel host is set up")

    ca = FOLDER / "ca.pem"
    ca.write_text(
        await_text("Caddy's root certificate", lambda: in_container(client, facts()["host"], "cat", ROOT_CERTIFICATE))
    )
    user_side(client)
    url = f"https://{NAME}.{DOMAIN}:{PORTS['HTTPS']}/"
    keys = await_text(
        "the host's keys",
        lambda: in_container(client, f"{facts()['network']}-client", "ssh-keyscan", "-p", str(PORTS["SSH"]), DOMAIN),
    )
    (FOLDER / "known_hosts").write_text(keys + keys.replace(f"[{DOMAIN}]", "[127.0.0.1]"))
    await_text(f"the page at {url}", lambda: fetch(url, ca))
    say(f"{url} answers, its certificate verified")

    host = DOMAIN if resolves(DOMAIN) else "127.0.0.1"
    told = {
        "TUNNEL_HOST": host,
        "TUNNEL_SSH_PORT": PORTS["SSH"],
        "TUNNEL_HTTP_PORT": PORTS["HTTP"],
        "TUNNEL_HTTPS_PORT": PORTS["HTTPS"],
        "TUNNEL_DOMAIN": DOMAIN,
        "TUNNEL_USER": "tunnel",
        "TUNNEL_CA": ca,
    }
    (FOLDER / "env").write_text("".join(f"{key}={shlex.quote(str(value))}\n" for key, value in told.items()))
    ssh = f"ssh -p {PORTS['SSH']} -o ExitOnForwardFailure=yes -o UserKnownHostsFile=.demo/known_hosts"
    console.print(
        f"""
A page behind a tunnel:   {url}
The CA to trust for it:   .demo/ca.pem
                          curl --cacert .demo/ca.pem {url}

A tunnel of your own, to port 3000 of this machine:
  {ssh} -NR guest-me:80:localhost:3000 tunnel@{host}
  curl --cacert .demo/ca.pem https://guest-me.{DOMAIN}:{PORTS["HTTPS"]}/

For scripts: .demo/env     Commands and explanations: https://{DOMAIN}:{PORTS["HTTPS"]}/
Away with it: make demo-down""",
        soft_wrap=True,
        markup=False,
    )


def remove_images(client: docker.DockerClient) -> None:
    """Remove the images that no scenario uses, of this checkout or another."""
    with building():
        for image in client.images.list(filters={"reference": "proxme-test/*"}):
            for tag in image.tags:
                with contextlib.suppress(docker.errors.APIError):
                    # Refused while a container is made from it.
                    client.images.remove(tag)
        # Former ones, and stages of a build.
        for label in (LABEL, "proxme.stage"):
            client.images.prune(filters={"dangling": True, "label": label})


def down() -> None:
    """Remove every trace of the demo."""
    client = engine()
    molecule("destroy", announce="Removing the instance")
    if client.containers.list(all=True, filters={"label": "proxme.checkout"}):
        say("the images stay, as other scenarios use them")
    else:
        remove_images(client)
    shutil.rmtree(FOLDER, ignore_errors=True)
    say("nothing of the demo is left")


def clean() -> None:
    """Remove all scenarios of this checkout, and the images that no other uses."""
    client = engine()
    for container in client.containers.list(all=True, filters={"label": OURS}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": OURS}):
        network.remove()
    remove_images(client)
    shutil.rmtree(FOLDER, ignore_errors=True)
    say("the scenarios are gone, and the images that no other checkout uses")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "down", "clean"])
    {"up": up, "down": down, "clean": clean}[parser.parse_args().action]()


if __name__ == "__main__":
    main()
