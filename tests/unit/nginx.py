# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx for the tests of its Lua: nginx_stub.lua stands in for OpenResty, and here is what a test does with it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lupa.luajit21

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "roles/nginx_subdomains/files/nginx"
DOMAIN = "proxme.example"
AUTHORITY = "https://ca.example/directory"
NOON = 1_767_268_800  # 2026-01-01 12:00 UTC: the clock when nginx starts
DAY = 86400

# As templates/settings.lua.j2 writes them.
SETTINGS = {
    "below": f".{DOMAIN}",
    "reserved": dict.fromkeys(["www", "public", "localhost"], True),
    "blocked": {"guest-phish": True, "8666": True},
    "domains": {"shop.example.org": "shop", "phish.example.org": "guest-phish", "8080.example.org": "8080--local"},
    "passthrough": {"tls.example.org": "shop", "tls-phish.example.org": "guest-phish"},
    "guest_prefix": "guest-",
    "guest_notice": False,
    "headers": {"user_id": True, "user-id": False, "x.api.version": True, "x-api-version": False},
    "blocked_text": "Your address is blocked from this host.",
    "caddys": {"www": True, "status": True},
    "hsts": 31536000,
    "alt_svc": 'h3=":443"; ma=2592000',
    "answer_timeout": 60,
    "redirect_to_https": True,
    "plain": {"guest-plain": True},
    "own_certificates": True,
    "always": {"guest-always": True},
    "authority": AUTHORITY,
    "certificates_per_day": 3,
    "certificates_per_week": 5,
}
# As templates/texts.lua.j2 writes them, but shorter.
TEXTS = {
    name: f'<style>p {{ margin: 0 }}</style><h1>{name}: {{host}}</h1><a href="{{link}}">on</a><pre>{{forward}}</pre>'
    for name in ("notice", "nobody", "blocked", "down", "unclear", "silent", "crowded", "large", "unread", "broken")
}


def address_of(name: str) -> ipaddress.IPv6Address:
    """The address that a name hashes to (docs/how-it-works.md)."""
    return ipaddress.IPv6Address(b"\xfd\x74" + hashlib.sha256(name.encode()).digest()[:14])


def row(number: int, address: str, port: int, state: int = 0x0A) -> str:
    """A line of /proc/net/tcp or tcp6: words of 32 bits, each as a number of this machine (man 5 proc)."""
    packed = ipaddress.ip_address(address).packed
    words = "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
    remote = "0" * len(words) + ":0000"
    return (
        f"{number:4}: {words}:{port:04X} {remote} {state:02X} 00000000:00000000 00:00000000 00000000"
        f"     0        0 {20000 + number} 1 0000000000000000 100 0 0 10 0\n"
    )


@dataclass(frozen=True)
class Reply:
    """What became of a request in a phase."""

    request: Any

    @property
    def exit(self) -> int | None:
        """The status that the phase ended the request with."""
        return self.request.exit

    @property
    def exec(self) -> str | None:
        """The named location that nginx goes on with."""
        return self.request.exec

    @property
    def body(self) -> str:
        """What was written."""
        return self.request.body

    @property
    def status(self) -> int:
        """The answer's status."""
        return self.request.status

    def headers(self, name: str) -> list[str]:
        """Values of one of the answer's headers."""
        return [value for key, value in pairs(self.request.answer) if key.lower() == name]

    def sent(self, name: str) -> list[str]:
        """Values of a header that the tunnel's service is sent."""
        return [value for key, value in pairs(self.request.headers) if key.lower() == name.lower()]

    def var(self, name: str) -> Any:  # noqa: ANN401
        """A variable of nginx."""
        return self.request.vars[name]


def pairs(headers: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """A Lua list of { name, value } as a list of pairs."""
    return [(headers[i][1], headers[i][2]) for i in range(1, len(headers) + 1)]


class Nginx:
    """One nginx, with the files and the settings that it is given and a clock that the test turns."""

    def __init__(self, folder: Path, **settings: Any) -> None:  # noqa: ANN401
        """Start it with the settings above, changed by `settings`; its files are below `folder`."""
        self.folder = folder
        self.ledger = folder / "var/lib/tunnel/certificates"
        self.ledger.parent.mkdir(parents=True)
        self._proc = folder / "proc/net"
        self._proc.mkdir(parents=True)
        self._listening: list[tuple[str, int]] = []
        self.listen()
        self._lua = lupa.luajit21.LuaRuntime()
        self._settings = self._lua.table_from({**SETTINGS, **settings}, recursive=True)
        self._lua.globals().package.path = f"{LUA}/?.lua;{ROOT}/roles/tunnel_network/files/?.lua"
        for name, value in {"settings": self._settings, "texts": self._lua.table_from(TEXTS)}.items():
            self._lua.globals().package.loaded[name] = value
        self._stub = self._lua.globals().dofile(str(Path(__file__).with_name("nginx_stub.lua")))
        self._stub.folder = str(folder)
        self._stub.clock = NOON
        self.restart()

    def setting(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Change a setting; a running worker sees it."""
        self._settings[name] = self._lua.table_from(value) if isinstance(value, dict) else value

    def restart(self) -> None:
        """Start with empty shared memory, and read the ledger."""
        self._stub.start()
        self.reload()

    def reload(self) -> None:
        """Read the ledger again and begin a new worker, with the shared memory as it is."""
        self.worker = self.new_worker()
        self.worker.ask.load()

    def new_worker(self) -> Any:  # noqa: ANN401
        """Return the Lua modules of another worker, which shares what workers share."""
        return self._stub.worker()

    # The clock, and what is around.

    @property
    def now(self) -> float:
        """The clock, in seconds."""
        return self._stub.clock

    @now.setter
    def now(self, seconds: float) -> None:
        self._stub.clock = seconds

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds

    @property
    def log(self) -> list[str]:
        """The lines of the error log."""
        return list(self._stub.log.values())

    @property
    def looks(self) -> int:
        """How often the kernel was asked who listens."""
        return self._stub.looks

    def look_takes(self, seconds: float) -> None:
        """Let the kernel take its time to say who listens."""
        self._stub.look_takes = seconds

    def on_count(self, happens: str | None) -> None:
        """What happens to a worker that begins to count certificates: "switch" to another worker, or "die"."""
        self._stub.on_count = happens

    def proc(self, file: str, text: str) -> None:
        """Let /proc/net/tcp or tcp6 say this."""
        (self._proc / file).write_text(text)

    def listen(self, *forwards: str) -> None:
        """Let tunnels listen: "8080" for a port, "guest-x:80" for a port of a name."""
        for forward in forwards:
            name, _, port = forward.rpartition(":")
            self._listening.append((str(address_of(name)) if name else "127.0.0.1", int(port)))
        self._write_proc()

    def end(self, *forwards: str) -> None:
        """Let tunnels end."""
        for forward in forwards:
            name, _, port = forward.rpartition(":")
            self._listening.remove((str(address_of(name)) if name else "127.0.0.1", int(port)))
        self._write_proc()

    def _write_proc(self) -> None:
        for file, version in (("tcp", 4), ("tcp6", 6)):
            found = [each for each in self._listening if ipaddress.ip_address(each[0]).version == version]
            self.proc(file, "  sl  local_address …\n" + "".join(row(i, *each) for i, each in enumerate(found)))

    # Requests.

    def request(
        self,
        host: str = f"guest-x.{DOMAIN}",
        target: str = "/",
        headers: dict[str, str] | list[tuple[str, str]] = (),
        *,
        proto: str | None = "https",
        port: str = "",
        method: str = "GET",
        http2: bool = False,
        edge: str | None = None,
        hidden: bool = False,
        **given: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return a request for a host as nginx has it from the front end, with the variables of nginx.conf.j2.

        With `edge`, an address, it comes straight from the edge for that visitor: without a word of Caddy's.
        """
        path, mark, arguments = target.partition("?")
        headers = list(headers.items() if isinstance(headers, dict) else headers)
        upgrade = dict(headers).get("Upgrade", "")
        variables = {
            "host": host,
            "uri": path,
            "request_uri": target,
            "args": arguments if mark else None,
            "label": "",
            "visited_host": host + port,
            "tunnel_scheme": "",
            "tunnel_source": "",
            "websocket": "websocket" if upgrade.lower() == "websocket" else "",
            "request_method": method,
            "server_protocol": "HTTP/2.0" if http2 else "HTTP/1.1",
            "proxy_protocol_addr": edge,
            "server_addr": f"unix:{'hidden-' if hidden else ''}tls.sock" if edge else "unix:visitors.sock",
            "blocked_visitor": "0",
        }
        if edge:
            headers.append(("Host", host + port))
        elif proto:
            headers.append(("X-Forwarded-Proto", proto))
        variables = {name: value for name, value in variables.items() if value is not None}
        blank = {"ctx": {}, "answer": [], "body": "", "status": 200, "http_version": 1.1}
        everything = {**blank, "vars": variables, "headers": [list(header) for header in headers], **given}
        return self._lua.table_from(everything, recursive=True)

    def together(self, phase: str, *work: tuple[Any, Callable[[], Any]], every: float = 0) -> list[Reply]:
        """Run a phase of several requests, (request, function of a module) each, of which one begins every so often."""
        turns = [
            {"request": request, "phase": phase, "action": action, "delay": number * every}
            for number, (request, action) in enumerate(work)
        ]
        self._stub.together(self._lua.table_from([self._lua.table_from(turn) for turn in turns]))
        return [Reply(request) for request, _ in work]

    def run(self, phase: str, request: Any, action: Callable[..., Any], *arguments: Any) -> Reply:  # noqa: ANN401
        """Run a phase of one request."""
        return self.together(phase, (request, self.bind(action, *arguments)))[0]

    def bind(self, action: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """Return a function that calls another one of Lua with arguments; what that returns is in `results`."""
        return self._stub.bind(action, *arguments)

    @property
    def results(self) -> list[Any]:
        """What all bound functions returned; False for nil."""
        return list(self._stub.results.values())

    def call(self, action: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """Return what a function of Lua returns to a visitor's request; False for nil."""
        self.run("rewrite", self.request(), action, *arguments)
        return self._stub.results[len(self._stub.results)]

    def find(self, label: str) -> Any:  # noqa: ANN401
        """What a label leads to: the table of tunnels.find(), or False."""
        return self.call(self.worker.tunnels.find, label)

    def listens(self, address: str, port: int) -> bool:
        """Whether a visitor's request is told that something listens there."""
        listeners = self.worker.listeners
        return self.call(listeners.has, listeners.written(address), port)

    def ask(self, domain: str, worker: Any = None) -> tuple[int, str]:  # noqa: ANN401
        """Status and text of the answer to the front end's question for a certificate."""
        reply = self.run("content", self.request(target=f"/?domain={domain}"), (worker or self.worker).ask.answer)
        return reply.status, reply.body.rstrip("\n")

    def may(self, label: str) -> bool:
        """Whether a label of ours gets a certificate."""
        return self.ask(f"{label}.{DOMAIN}")[0] == 200

    def route(self, host: str, target: str = "/", headers: Any = (), **given: Any) -> Reply:  # noqa: ANN401
        """A visitor's request up to the point where the tunnel is dialled, or where another location goes on."""
        return self.run("rewrite", self.request(host, target, headers, **given), self.worker.visit.route, "/")

    def led(self, visited: Reply) -> Reply:
        """What the location does that a request was led to."""
        location = visited.exec
        visited.request.exec = None
        return self.run("rewrite", visited.request, self.worker.visit.route, location)

    def dial(self, visited: Reply) -> Reply:
        """Dial the tunnel of a request that was routed."""
        return self.run("balancer", visited.request, self.worker.visit.dial)

    def answer(
        self,
        visited: Reply,
        status: int = 200,
        headers: list[tuple[str, str]] = (),
        http_version: float = 1.1,
    ) -> Reply:
        """What the visitor of a routed request gets when the tunnel's service answers so."""
        request = visited.request
        request.status, request.http_version = status, http_version
        request.answer = self._lua.table_from([list(header) for header in headers], recursive=True)
        (_, filters) = re.findall(
            r"header_filter_by_lua_block \{(.*?)\}",
            (ROOT / "roles/nginx_subdomains/templates/nginx.conf.j2").read_text(),
        )
        run = self._lua.execute(f"return function(visit, notice) return function() {filters} end end")
        return self.run("header_filter", request, run(self.worker.visit, self.worker.notice))

    def page(self, name: str, status: int, host: str, target: str = "/", **given: Any) -> Reply:  # noqa: ANN401
        """One of our own pages, as it is shown in place of a tunnel at this host."""
        request = self.request(host, target, **given)
        request.vars.label = host.removesuffix(f".{DOMAIN}") if host.endswith(f".{DOMAIN}") else ""
        return self.run("content", request, self.worker.pages.show, name, status)
