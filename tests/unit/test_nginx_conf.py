# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx takes what the role writes, and the lines that keep tunnels apart are in it; its Lua is told what was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import lupa.luajit21
import pytest
from render import ROLES, in_every_case, render, written

ROLE = "nginx_subdomains"
DOMAIN = "proxme.example.com"
FILES = ("nginx.conf", "settings.lua", "texts.lua")
NAMES = (ROLES / "tunnel_pod/files/names.lua").read_text()

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "port": {"nginx_subdomains_https_port": 8443},
    "requests per name": {"nginx_subdomains_requests_per_name": 50},
    "requests per address": {"nginx_subdomains_requests_per_address": 20},
    "connections per address": {"nginx_subdomains_connections_per_address": 9},
    "connections per name": {"nginx_subdomains_connections_per_name": 7},
    "body": {"nginx_subdomains_body_limit": "100m"},
    "no redirect": {"nginx_subdomains_redirect_to_https": False},
    "plain names": {"nginx_subdomains_plain_names": ["blog", "8080"]},
    "notice": {"nginx_subdomains_guest_notice": True, "nginx_subdomains_guest_names": "free-*"},
    "no guest names": {"nginx_subdomains_guest_names": ""},
    "one certificate": {"nginx_subdomains_own_certificates": False},
    "certificates": {
        "nginx_subdomains_certificates_always": ["blog"],
        "nginx_subdomains_certificate_authority": "https://ca.example/dir",
        "nginx_subdomains_certificates_per_day": 3,
        "nginx_subdomains_certificates_per_week": 0,
    },
    "domains": {"nginx_subdomains_domains": {"shop.example.org": "alice-shop", "example.net": "blog"}},
    # One of digits is a number to YAML.
    "barred": {"nginx_subdomains_barred_labels": ["guest-phish", 8080, "8081"]},
    "reserved": {"nginx_subdomains_reserved_labels": ["www", "mail"]},
    "abuse by mail": {"nginx_subdomains_abuse_contact": "abuse@example.org"},
    "abuse by page": {"nginx_subdomains_abuse_contact": "https://example.org/abuse?a=1"},
    "command": {"nginx_subdomains_client_command": "ssh -R {forward} 'a <b>'@" + DOMAIN},
    "timeout": {"nginx_subdomains_answer_timeout": 17},
}
CASES["everything"] = {name: value for case in CASES.values() for name, value in case.items()}

each_case = in_every_case("rendered", CASES)


@dataclass
class Block:
    """The directives of a file or of a block."""

    directives: list[tuple[str, list[str], Block | str | None]] = field(default_factory=list)

    def all(self, name: str) -> list[list[str]]:
        """The arguments of each directive of this name."""
        return [arguments for found, arguments, _ in self.directives if found == name]

    def one(self, name: str) -> list[str]:
        """The arguments of the only directive of this name."""
        (arguments,) = self.all(name)
        return arguments

    def blocks(self, name: str) -> Iterator[tuple[list[str], Block]]:
        """The blocks of this name, each with its arguments."""
        for found, arguments, body in self.directives:
            if found == name and isinstance(body, Block):
                yield arguments, body

    def headers(self) -> dict[str, str]:
        """What is set for the tunnel, by the header's name in lower case."""
        pairs = self.all("proxy_set_header")
        assert len({name.lower() for name, _ in pairs}) == len(pairs)
        return {name.lower(): value for name, value in pairs}


TOKEN = re.compile(r"""\s+|\#[^\n]*|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<mark>[{};])|(?P<word>[^\s{};"']+)""")


def parsed(text: str) -> Block:
    """The directives of nginx's configuration; of a block of Lua its text."""
    position, words = 0, []
    stack = [Block()]
    while position < len(text):
        found = TOKEN.match(text, position)
        assert found, text[position : position + 40]
        position = found.end()
        mark = found["mark"]
        if mark == ";":
            stack[-1].directives.append((words[0], words[1:], None))
            words = []
        elif mark == "{" and words[0].endswith("_by_lua_block"):
            start = position
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[position], 0)
                position += 1
            stack[-1].directives.append((words[0], words[1:], text[start : position - 1].strip()))
            words = []
        elif mark == "{":
            block = Block()
            stack[-1].directives.append((words[0], words[1:], block))
            stack.append(block)
            words = []
        elif mark == "}":
            stack.pop()
        else:
            words += [word for word in (found["double"], found["single"], found["word"]) if word is not None]
    assert len(stack) == 1
    return stack[0]


@dataclass
class Written:
    """What the role writes for a case."""

    given: dict[str, Any]
    files: dict[str, str]

    @property
    def http(self) -> Block:
        """All of HTTP."""
        ((_, block),) = parsed(self.files["nginx.conf"]).blocks("http")
        return block

    @property
    def location(self) -> Block:
        """Where a visitor is led to a tunnel."""
        servers = [block for _, block in self.http.blocks("server")]
        (visited,) = [block for block in servers if block.one("listen")[0] == "unix:visitors.sock"]
        ((arguments, block),) = visited.blocks("location")
        assert arguments == ["/"]
        return block

    def get(self, name: str) -> Any:
        """The value of a variable."""
        return self.given.get(name, written(ROLE, "defaults/main.yml").get(name))

    def lua(self, name: str) -> Any:
        """The table of a file of Lua, as Python's."""
        return plain(lupa.luajit21.LuaRuntime().execute(self.files[name]))


def plain(value: Any) -> Any:
    """A Lua table as a dictionary, and those in it."""
    return {key: plain(below) for key, below in value.items()} if lupa.luajit21.lua_type(value) == "table" else value


@pytest.fixture(scope="module")
def rendered():
    """Return a function that gives what is written for a case."""
    known: dict[str, Written] = {}

    def give(case: str) -> Written:
        if case not in known:
            given = {"nginx_subdomains_domain": DOMAIN, **CASES[case]}
            known[case] = Written(given, {name: render(ROLE, f"{name}.j2", **given) for name in FILES})
        return known[case]

    return give


def test_nginx_takes_it(rendered, real_nginx):
    """With the Lua modules of the image and the role's own Lua, as the role tries it before it replaces a file."""
    link = "ln -sfn $(readlink /etc/proxme-tunnel) /etc/proxme-tunnel-names"
    for case in CASES:
        real_nginx.accept(
            rendered(case).files | {"names.lua": NAMES}, f"{link}; nginx -t -c /etc/proxme-tunnel/nginx.conf"
        )


def test_the_trial_refuses_what_nginx_does_not_know(rendered, real_nginx):
    files = rendered("default").files
    broken = {"nginx.conf": files["nginx.conf"].replace("proxy_buffering", "proxy_bufferin")}
    done = real_nginx.read(files | broken, "nginx -t -c /etc/proxme-tunnel/nginx.conf")
    assert done.returncode
    assert 'unknown directive "proxy_bufferin"' in done.stderr


@each_case
def test_a_kept_connection_never_outlives_its_tunnel_by_more_than_a_second(made, case):
    """Else a name's next owner would lose visitors to the former one."""
    ((name, upstream),) = made.http.blocks("upstream")
    assert name == ["tunnel"]
    assert upstream.one("keepalive_time") == ["1s"]
    assert upstream.one("keepalive_timeout") == ["1s"]
    assert ("balancer_by_lua_block", [], "visit.dial()") in upstream.directives
    # Nobody is dialled but by the Lua.
    assert upstream.all("server") == [["0.0.0.1"]]


@each_case
def test_an_answer_of_a_tunnel_does_not_steer_nginx(made, case):
    location = made.location
    every = ["Redirect", "Expires", "Limit-Rate", "Buffering", "Charset"]
    assert sorted(location.one("proxy_ignore_headers")) == sorted(f"X-Accel-{name}" for name in every)
    (lua,) = [body for name, _, body in location.directives if name == "header_filter_by_lua_block"]
    assert lua == "visit.understand(); visit.mend(); notice.guard()"
    assert location.one("proxy_max_temp_file_size") == ["0"]
    assert location.one("proxy_buffering") == location.one("proxy_request_buffering") == ["off"]


@each_case
def test_a_tunnel_is_dialled_where_the_lua_says_and_from_an_address_of_its_own(made, case):
    location = made.location
    assert location.one("proxy_pass") == ["$tunnel_scheme://tunnel"]
    assert location.one("proxy_bind") == ["$tunnel_source"]
    assert ("rewrite_by_lua_block", [], "visit.route()") in location.directives
    # Nothing but the Lua says where: they begin empty.
    sets = dict(location.all("set"))
    assert (sets["$tunnel_scheme"], sets["$tunnel_source"]) == ("", "")


@each_case
def test_a_tunnel_hears_of_no_upgrade_but_a_websocket_and_of_nothing_between_caddy_and_nginx(made, case):
    headers = made.location.headers()
    assert headers["upgrade"] == "$websocket"
    assert headers["connection"] == "$websocket_connection"
    assert [headers[name] for name in ("http2-settings", "x-tunnel-plain", "x-tunnel-visitor")] == ["", "", ""]
    assert headers["host"] == "$told_host"
    assert made.location.one("proxy_http_version") == ["1.1"]
    maps = {tuple(arguments): block.directives for arguments, block in made.http.blocks("map")}
    assert maps["$http_upgrade", "$websocket"] == [
        ("default", [""], None),
        ("~*^websocket$", ["websocket"], None),
    ]
    assert maps["$websocket", "$websocket_connection"] == [("default", ["upgrade"], None), ("", [""], None)]


@each_case
def test_a_tunnel_is_told_the_host_and_port_that_visitors_see(made, case):
    told = dict(made.location.all("set"))["$told_host"]
    assert told == {443: "$host", 8443: "$host:8443"}[made.get("nginx_subdomains_https_port")]


@each_case
def test_limits_hold_when_they_are_given_and_only_then(made, case):
    http, location = made.http, made.location
    per_address = made.get("nginx_subdomains_connections_per_address")
    zones, limits = [["$label", "zone=names:4m"]], [["names", str(made.get("nginx_subdomains_connections_per_name"))]]
    if per_address:
        zones.append(["$visitor", "zone=addresses:4m"])
        limits.append(["addresses", str(per_address)])
    assert (http.all("limit_conn_zone"), location.all("limit_conn")) == (zones, limits)
    rates = {"label": ("name_rate", "requests_per_name"), "visitor": ("address_rate", "requests_per_address")}
    wanted = {
        key: (zone, made.get(f"nginx_subdomains_{name}"))
        for key, (zone, name) in rates.items()
        if made.get(f"nginx_subdomains_{name}")
    }
    assert http.all("limit_req_zone") == [
        [f"${key}", f"zone={zone}:4m", f"rate={rate}r/s"] for key, (zone, rate) in wanted.items()
    ]
    assert location.all("limit_req") == [[f"zone={zone}", f"burst={rate}", "nodelay"] for zone, rate in wanted.values()]
    assert http.one("limit_conn_status") == http.one("limit_req_status") == ["429"]
    assert location.one("client_max_body_size") == [made.get("nginx_subdomains_body_limit")]


@each_case
def test_of_ipv6_a_whole_network_counts_as_one_visitor(made, case):
    maps = {tuple(arguments): block.directives for arguments, block in made.http.blocks("map")}
    (default, network) = maps["$http_x_tunnel_visitor", "$visitor"]
    assert default == ("default", ["$http_x_tunnel_visitor"], None)
    pattern, (value,), _ = network
    assert value == "$network"
    found = re.match(pattern.removeprefix("~").replace("?<", "?P<"), "2001:db8:1:2:3:4:5:6")
    assert found
    assert found["network"] == "2001:db8:1:2"


@each_case
def test_no_visitor_reaches_the_door_for_certificates(made, case):
    """It has a socket of its own, and the server of visitors is for every host."""
    servers = [block for _, block in made.http.blocks("server")]
    assert [block.one("listen") for block in servers] == [
        ["unix:ask.sock"],
        ["unix:visitors.sock", "default_server", "backlog=4096"],
    ]
    ask = {body for block in servers for _, place in block.blocks("location") for name, _, body in place.directives}
    assert "ask.answer()" in ask
    assert "ask." not in str(made.location)
    assert made.http.one("server_tokens") == made.http.one("access_log") == ["off"]


@each_case
def test_the_lua_is_told_what_was_given(made, case):
    always = written(ROLE, "vars/main.yml")["__nginx_subdomains_always_reserved"]
    every = {
        "below": f".{DOMAIN}",
        "reserved": dict.fromkeys([*always, *made.get("nginx_subdomains_reserved_labels")], True),
        "barred": {str(label): True for label in made.get("nginx_subdomains_barred_labels")},
        "domains": made.get("nginx_subdomains_domains"),
        "guest_prefix": made.get("nginx_subdomains_guest_names").rstrip("*"),
        "guest_notice": made.get("nginx_subdomains_guest_notice"),
        "answer_timeout": made.get("nginx_subdomains_answer_timeout"),
        "redirect_to_https": made.get("nginx_subdomains_redirect_to_https"),
        "plain": dict.fromkeys(made.get("nginx_subdomains_plain_names"), True),
        "own_certificates": made.get("nginx_subdomains_own_certificates"),
        "always": dict.fromkeys(made.get("nginx_subdomains_certificates_always"), True),
        "authority": made.get("nginx_subdomains_certificate_authority"),
        "certificates_per_day": made.get("nginx_subdomains_certificates_per_day"),
        "certificates_per_week": made.get("nginx_subdomains_certificates_per_week"),
    }
    assert made.lua("settings.lua") == every


def test_barred_labels_of_digits_are_barred_as_labels(rendered):
    """visit.lua looks them up by the text of the label."""
    assert rendered("barred").lua("settings.lua")["barred"] == {"guest-phish": True, "8080": True, "8081": True}


@each_case
def test_every_page_is_there_and_says_what_was_given(made, case):
    pages = made.lua("texts.lua")
    assert sorted(pages) == ["barred", "crowded", "down", "nobody", "notice", "silent"]
    port = made.get("nginx_subdomains_https_port")
    contact = made.get("nginx_subdomains_abuse_contact")
    for page in pages.values():
        assert page.startswith("<!doctype html>")
        assert page.rstrip().endswith("</html>")
        assert "{{" not in page
        assert f'href="https://{DOMAIN}{"" if port == 443 else f":{port}"}/"' in page
        link = f"{'mailto:' if '@' in contact else ''}{contact}"
        assert (f'<a href="{link}">{contact}</a>' in page) == bool(contact)
    assert f"for {made.get('nginx_subdomains_answer_timeout')} seconds" in pages["silent"]
    assert f"may have {made.get('nginx_subdomains_connections_per_name')} requests" in pages["crowded"]
    assert 'href="{link}"' in pages["notice"]
    assert ("-NR {forward} tunnel@" if case not in ("command", "everything") else "&lt;b&gt;") in pages["nobody"]
