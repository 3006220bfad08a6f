#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that people put behind tunnels, each run for real and visited through a tunnel host: apps.py [NAME…].

It tries each server of the table (table.py) in three ways: at its plain name, at NAME--local and at NAME--local-PORT,
and once more at its plain name with the setting that the table says. What came of it has to be what the table says.
`apps.py --docs` writes the table into docs/applications.md.

A try is what a browser does: the first page (with its redirects), one file that the page names, a form, a WebSocket,
all with the Origin of the visited host. The host is the instance of Molecule's scenario `default`. Its domain looks
like a real one, since servers let in any name below .localhost, and it is visited at port 443, as browsers do.

Servers are installed into .cache/apps, with the versions that the table says.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace

import httpx
import websockets.exceptions
import websockets.sync.client
from table import APPS, App

ROOT = pathlib.Path(__file__).resolve().parents[2]
FACTS = pathlib.Path(os.environ.get("PROXME_SCENARIO") or ROOT / ".cache/default/env.json")
CACHE = ROOT / ".cache/apps"
DOCS = ROOT / "docs/applications.md"
BEGIN, END = "<!-- made by tests/apps/apps.py --docs -->\n", "<!-- until here -->\n"
# No server shall ask a question, call home or open a browser.
QUIET = {
    "ASTRO_TELEMETRY_DISABLED": "1",
    "BROWSER": "none",
    "CI": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NEXT_TELEMETRY_DISABLED": "1",
    "NG_CLI_ANALYTICS": "false",
    "NUXT_TELEMETRY_DISABLED": "1",
    "PYTHONUNBUFFERED": "1",
    "STORYBOOK_DISABLE_TELEMETRY": "1",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


class RefusedError(Exception):
    """What a visitor saw instead of what belongs there, in a few words."""


def install(app: App) -> pathlib.Path:
    """Install what a server needs, unless it is there; its folder."""
    folder = CACHE / app.label
    made_of, note = json.dumps([app.pip, app.npm]), folder / "made-of"
    if note.exists() and note.read_text() == made_of:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if app.pip:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
        subprocess.run([folder / "venv/bin/pip", "install", "--quiet", *app.pip], check=True)
    if app.npm:
        (folder / "package.json").write_text(json.dumps({"private": True, "type": app.node_type}))
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *app.npm], cwd=folder, check=True
        )
    note.write_text(made_of)
    return folder


@contextlib.contextmanager
def running(app: App, folder: pathlib.Path, values: dict[str, str]) -> Iterator[None]:
    """Run a server for as long as the `with` block lasts, and wait until it answers on its own machine."""

    def filled(text: str) -> str:
        return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)

    for name, text in app.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(filled(text))
    path = f"{folder}/venv/bin:{folder}/node_modules/.bin:{os.environ['PATH']}"
    environment = os.environ | QUIET | {"PATH": path, "HOME": str(folder)} | app.environment
    for command in map(filled, app.before):
        subprocess.run(shlex.split(command), cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            shlex.split(filled(app.command)),
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,  # some end with their input
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(app, server)
        yield
    except Exception:
        print(f"    what it wrote: {folder / 'log'}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(app: App, server: subprocess.Popen) -> None:
    """Wait until a server answers anything at all to its own machine."""
    deadline = time.monotonic() + app.patience
    while True:
        if server.poll() is not None:
            raise RuntimeError(f"{app.name} has ended by itself")
        try:
            httpx.get(f"http://localhost:{app.port}{app.page}", timeout=30)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Host:
    """The tunnel host, and the way there from this machine."""

    def __init__(self) -> None:
        facts = json.loads(FACTS.read_text())
        self.domain, self.address = facts["domain"], facts["host_address"]
        self.root = facts["root"]
        asked = socket.getaddrinfo
        # This machine's resolver does not know the names below the domain.
        socket.getaddrinfo = lambda name, *more, **options: asked(
            self.address if isinstance(name, str) and name.endswith(self.domain) else name, *more, **options
        )

    @contextlib.contextmanager
    def tunnel(self, app: App) -> Iterator[None]:
        """Keep a tunnel open to a server: the command of docs/clients.md, without the check of the host key."""
        options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR", "-p", "2222"]
        forward = f"{app.label}:80:localhost:{app.port}"
        client = subprocess.Popen(
            ["ssh", *options, "-NR", forward, f"tunnel@{self.address}"], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 30
            while httpx.get(f"http://{app.label}.{self.domain}/", timeout=30).status_code == 404:
                if time.monotonic() > deadline or client.poll() is not None:
                    raise RuntimeError(f"no tunnel for {app.label}")
                time.sleep(0.2)
            yield
        finally:
            client.terminate()
            client.wait()


class Visit:
    """One visitor's browser at one address of a server."""

    def __init__(self, host: Host, app: App, label: str) -> None:
        self.app, self.name, self.root = app, f"{label}.{host.domain}", host.root
        self.origin = f"https://{self.name}"
        self.browser = httpx.Client(
            verify=ssl.create_default_context(cafile=host.root),
            http2=True,
            timeout=60,
            headers={"Accept": "text/html,*/*", "User-Agent": "Mozilla/5.0"},
        )

    def values(self, page: str) -> dict[str, str]:
        """What a form or a WebSocket takes from the page or from the cookies, by name."""
        found = {name: re.search(pattern, page) for name, pattern in self.app.takes.items()}
        return {name: match[1] for name, match in found.items() if match} | dict(self.browser.cookies)

    def ask(
        self, what: str, method: str, url: str, expected: tuple[int, ...] = (200,), **more: object
    ) -> httpx.Response:
        """Ask for something with the redirects that a browser follows: those that stay at https."""
        answer = self.browser.request(method, urllib.parse.urljoin(self.origin, url), **more)
        for _ in range(5):
            if answer.status_code not in (301, 302, 303, 307, 308) or answer.status_code in expected:
                break
            to = urllib.parse.urljoin(str(answer.url), answer.headers["location"])
            if not to.startswith(f"{self.origin}/"):
                raise RefusedError(f"{what}: redirected to {to.replace(self.name, 'its own name')}")
            answer = self.browser.get(to)
        if answer.status_code not in expected:
            raise RefusedError(f"{what}: {answer.status_code}")
        return answer

    def look(self) -> None:
        """Look at everything."""
        app = self.app
        page = self.ask("page", "GET", app.page) if app.page else None
        text = page.text if page else ""
        if app.text not in text:
            raise RefusedError("page: another one")
        if app.never and re.search(app.never, text):
            raise RefusedError("page: leads to localhost")
        asset = app.asset and re.search(app.asset, text)
        # As a page asks for its files: some servers answer with a page to whoever takes one.
        as_page = {"Accept": "*/*", "Referer": str(page.url) if page else f"{self.origin}/"}
        if app.asset:
            if not asset:
                raise RefusedError("page: names no file")
            self.ask("file", "GET", urllib.parse.urljoin(str(page.url), html.unescape(asset[1])), headers=as_page)
        if app.takes_from:
            text = self.ask("script", "GET", app.takes_from, headers=as_page).text
        values = self.values(text)
        for form in app.forms:
            fields = {name: value.format(**values) for name, value in form.fields.items()}
            headers = {"Origin": self.origin, "Referer": f"{self.origin}/"}
            headers |= {name: value.format(**values, here=self.origin) for name, value in form.headers.items()}
            body = {"content": form.body} if form.body is not None else {"data": fields}
            answer = self.ask(
                form.what, form.method, form.path.format(**values), form.expected, headers=headers, **body
            )
            if form.text not in answer.text:
                raise RefusedError(f"{form.what}: another answer")
        if app.socket:
            self.open_websocket(app.socket.format(**values), [one.format(**values) for one in app.protocols])

    def open_websocket(self, path: str, protocols: list[str]) -> None:
        """Open the WebSocket as the page would."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.browser.cookies.items())
        try:
            with websockets.sync.client.connect(
                f"wss://{self.name}{path}",
                ssl=ssl.create_default_context(cafile=self.root),
                origin=self.origin,
                open_timeout=20,
                subprotocols=protocols or None,
                additional_headers={"Cookie": cookies} if cookies else None,
            ) as opened:
                if self.app.says:
                    opened.recv(timeout=20)
        except websockets.exceptions.InvalidStatus as error:
            raise RefusedError(f"WebSocket: {error.response.status_code}") from error
        except (websockets.exceptions.WebSocketException, TimeoutError) as error:
            raise RefusedError(f"WebSocket: {type(error).__name__}") from error

    def result(self) -> str:
        """What came of it: "works", or what did not."""
        try:
            self.look()
        except RefusedError as refusal:
            return str(refusal)
        return "works"


def tried(app: App, host: Host) -> dict[str, str]:
    """What came of each way to a server."""
    folder, seen = install(app), {}
    values = {"port": str(app.port), "domain": host.domain, "host": f"{app.label}.{host.domain}", "folder": str(folder)}
    with running(app, folder, values), host.tunnel(app):
        for way, suffix in (("plain", ""), ("local", "--local"), ("port", f"--local-{app.port}")):
            seen[way] = Visit(host, app, app.label + suffix).result()
    if app.setting:
        changed = replace(app, **app.with_setting)
        with running(changed, folder, values), host.tunnel(app):
            seen["setting"] = Visit(host, changed, app.label).result()
    return seen


def documented() -> str:
    """The table of docs/applications.md."""
    lines = ["| server | version | plain name | `--local` | `--local-PORT` | or this setting, at the plain name |"]
    lines += ["|---|---|---|---|---|---|"]
    for app in sorted(APPS, key=lambda app: app.name.lower()):
        ways = [app.expected[way].replace("works", "yes") for way in ("plain", "local", "port")]
        setting = re.sub(r"@host@", "guest-x.proxme.example.com", app.setting)
        lines.append(f"| {' | '.join([app.name, app.version, *ways, setting])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try the servers that the command line names, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="labels of servers in table.py, such as guest-django")
    parser.add_argument("--docs", action="store_true", help="write docs/applications.md and try nothing")
    parser.add_argument("--check", action="store_true", help="whether docs/applications.md is up to date")
    arguments = parser.parse_args()
    if arguments.docs or arguments.check:
        text = DOCS.read_text()
        before, _, rest = text.partition(BEGIN)
        wanted = before + BEGIN + documented() + END + rest.partition(END)[2]
        if arguments.docs:
            DOCS.write_text(wanted)
        raise SystemExit(f"{DOCS} is old: write it with apps.py --docs" if arguments.check and text != wanted else 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends as well
    chosen = [app for app in APPS if not arguments.names or app.label in arguments.names]
    host, other = Host(), []
    for app in chosen:
        try:
            seen = tried(app, host)
        except Exception as error:
            seen = {"error": repr(error)}
        right = seen == app.expected
        other += [] if right else [app.name]
        print(f"{'ok  ' if right else 'NOT '} {app.name} {app.version}: {seen}", flush=True)
        if not right:
            print(f"     expected {app.expected}", flush=True)
    print(f"{len(chosen) - len(other)} of {len(chosen)} as the table says")
    raise SystemExit(bool(other))


if __name__ == "__main__":
    main()
