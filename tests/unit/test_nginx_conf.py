# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx takes what the role writes, and the lines that keep tunnels apart are in it; its Lua is told what was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import lupa.luajit21
import pytest
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import ALWAYS_RESERVED
from render import OPTIONS, ROLES, in_every_case, render

ROLE = "nginx_subdomains"
DOMAIN = "proxme.example.com"
FILES = ("nginx.conf", "settings.lua", "texts.lua", "blocked.conf")
NAMES = (ROLES / "tunnel_network/files/names.lua").read_text()

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "port": {"tunnel_https_port": 8443},
    "requests per name": {"tunnel_requests_per_name": 50},
    "requests per address": {"tunnel_requests_per_address": 20},
    "connections per address": {"tunnel_visits_per_address": 9},
    "connections per name": {"tunnel_visits_per_name": 7},
    "body": {"tunnel_body_limit": "100m"},
    "no redirect": {"tunnel_tls": "off"},
    "plain names": {"tunnel_plain_names": ["blog", "8080"]},
    "notice": {"tunnel_guest_notice": True, "tunnel_guest_names": "free-*"},
    "no guest names": {"tunnel_guest_names": ""},
    "no shared account": {"tunnel_shared_account": False, "tunnel_guest_notice": True},
    "one certificate": {"tunnel_tls": "wildcard"},
    "one certificate and others": {"tunnel_tls": "both"},
    "own certificate": {"tunnel_tls": "files"},
    "own authority": {"tunnel_tls": "internal", "tunnel_certificates_per_day": 3},
    "certificates": {
        "tunnel_certificates_always": ["blog"],
        "tunnel_acme_directory": "https://ca.example/dir",
        "tunnel_certificates_per_day": 3,
        "tunnel_certificates_per_week": 0,
    },
    "domains": {
        "tunnel_accounts": [
            {"name": "alice", "domains": {"shop.example.org": "alice-shop"}},
            {"name": "bob", "domains": {"example.net": "blog"}},
            {"name": "eve"},
        ]
    },
    # One of digits is a number to YAML.
    "blocked": {"tunnel_blocked_names": ["guest-phish", 8080, "8081"]},
    "reserved": {"tunnel_reserved_labels": ["www", "mail"]},
    "abuse by mail": {"tunnel_abuse_contact": "abuse@example.org"},
    "abuse by page": {"tunnel_abuse_contact": "https://example.org/abuse?a=1"},
    # A name that would be refused: it shows that a page shows what stands in the command and takes it for nothing else.
    "command": {"tunnel_ssh_port": 22, "tunnel_shared_account_name": "a <b>"},
    "timeout": {"tunnel_answer_timeout": 17},
    "headers": {"tunnel_headers": ["user_id"]},
    "hsts": {"tunnel_hsts": 31536000},
    "blocked addresses": {"tunnel_blocked_addresses": ["203.0.113.9", "2001:db8:9::/48"]},
}
# All at once, in one mode; accounts of their own would take the guests their names.
CASES["everything"] = {
    name: value
    for case, given in CASES.items()
    if case not in ("no guest names", "no shared account", "own certificate", "own authority")
    for name, value in given.items()
} | {"tunnel_tls": "off"}
# What the page of a name that nobody holds shows.
SHOWN = {
    "command": f"<pre>ssh -o ExitOnForwardFailure=yes -NR {{forward}} a &lt;b&gt;@{DOMAIN}</pre>",
    "no shared account": f"<pre>ssh -p 2222 -o ExitOnForwardFailure=yes -NR {{forward}} ACCOUNT@{DOMAIN}</pre>",
}
SHOWN["everything"] = SHOWN["command"]

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
        pairs = self.all("proxy_set_header") + self.all("grpc_set_header")
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
    def visited(self) -> Block:
        """The server of visitors."""
        servers = [block for _, block in self.http.blocks("server")]
        (visited,) = [block for block in servers if block.all("listen")[0][0] == "unix:visitors.sock"]
        return visited

    @property
    def locations(self) -> dict[str, Block]:
        """The ways to a tunnel: by kept connections, by one for each request, and by HTTP/2."""
        found = {arguments[0]: block for arguments, block in self.visited.blocks("location")}
        found.pop("@ourselves")
        assert list(found) == ["/", "@once", "@h2"]
        return found

    @property
    def protocols(self) -> list[tuple[Block, str]]:
        """Each way to a tunnel, and what the names of its directives begin with."""
        return [(block, "grpc" if name == "@h2" else "proxy") for name, block in self.locations.items()]

    def get(self, name: str) -> Any:
        """What the operator has written, or would have."""
        return self.given.get(f"tunnel_{name}", OPTIONS[f"tunnel_{name}"].get("default"))

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
            given = {"tunnel_domain": DOMAIN, **CASES[case]}
            known[case] = Written(given, {name: render(ROLE, f"{name}.j2", **given) for name in FILES})
        return known[case]

    return give


def test_nginx_takes_it(rendered, real_nginx):
    """With the Lua modules of the image and the role's own Lua, as the role tries it before it replaces a file."""
    link = "ln -sfn $(readlink /etc/proxme-tunnel) /etc/proxme-tunnel-resolver"
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
    upstreams = {name: upstream for (name,), upstream in made.http.blocks("upstream")}
    # This one leads to no tunnel: nginx asks itself, and once more if that is broken off.
    ourselves = upstreams.pop("ourselves")
    assert ourselves.all("server") == [["unix:/run/tunnel/visitors.sock", "max_fails=0"]] * 2
    assert list(upstreams) == ["kept", "once"]
    assert upstreams["kept"].one("keepalive_time") == ["1s"]
    assert upstreams["kept"].one("keepalive_timeout") == ["1s"]
    assert upstreams["once"].all("keepalive") == []
    for upstream in upstreams.values():
        assert ("balancer_by_lua_block", [], "visit.dial()") in upstream.directives
        # Nobody is dialled but by the Lua.
        assert upstream.all("server") == [["0.0.0.1"]]


@each_case
def test_an_answer_of_a_tunnel_does_not_steer_nginx(made, case):
    every = ["Redirect", "Expires", "Limit-Rate", "Buffering", "Charset"]
    for location, protocol in made.protocols:
        assert sorted(location.one(f"{protocol}_ignore_headers")) == sorted(f"X-Accel-{name}" for name in every)
        (lua,) = [body for name, _, body in location.directives if name == "header_filter_by_lua_block"]
        assert lua == "visit.refuse_unclear(); visit.mend_answer(); notice.guard(); visit.see_off()"
        if protocol == "proxy":
            assert location.one("proxy_max_temp_file_size") == ["0"]
            assert location.one("proxy_buffering") == ["off"]


@each_case
def test_a_tunnel_is_dialled_where_the_lua_says_and_from_an_address_of_its_own(made, case):
    passed = [block.one(f"{protocol}_pass") for block, protocol in made.protocols]
    assert passed == [["$tunnel_scheme://kept"], ["$tunnel_scheme://once"], ["$tunnel_h2_scheme://once"]]
    for (location, protocol), name in zip(made.protocols, made.locations, strict=True):
        assert location.one(f"{protocol}_bind") == ["$tunnel_source"]
        assert ("rewrite_by_lua_block", [], f'visit.route "{name}"') in location.directives
    # Nothing but the Lua says where: they begin empty.
    sets = dict(made.visited.all("set"))
    assert (sets["$label"], sets["$tunnel_scheme"], sets["$tunnel_source"]) == ("", "", "")
    maps = {tuple(arguments): block.directives for arguments, block in made.http.blocks("map")}
    assert maps["$tunnel_scheme", "$tunnel_h2_scheme"] == [("default", ["grpc"], None), ("https", ["grpcs"], None)]


@each_case
def test_only_what_can_be_sent_again_is(made, case):
    """Over a kept connection nginx asks once more where the service had closed it; with a body it can't."""
    locations = made.locations
    assert [locations[name].one("proxy_request_buffering") for name in ("/", "@once")] == [["on"], ["off"]]
    for location, protocol in made.protocols:
        # A service that is silent is not asked again.
        assert location.one(f"{protocol}_next_upstream") == ["error"]
    assert locations["@once"].headers()["connection"] == "close"


@each_case
def test_a_visitor_may_pause_for_a_day_in_both_directions(made, case):
    assert made.visited.one("client_body_timeout") == made.visited.one("send_timeout") == ["1d"]


@each_case
def test_an_upload_over_http_2_does_not_wait_for_each_64_kb(made, case):
    assert made.visited.one("http2_body_preread_size") == ["256k"]


@each_case
def test_64_kb_of_headers_with_any_name_pass(made, case):
    """Of two lines that have no room in one buffer, the second is in the other."""
    assert made.visited.one("large_client_header_buffers") == ["2", "64k"]
    assert made.visited.one("underscores_in_headers") == ["on"]
    assert made.visited.one("ignore_invalid_headers") == ["off"]
    for location, protocol in made.protocols:
        assert location.one(f"{protocol}_buffer_size") == ["64k"]


@each_case
def test_a_tunnel_hears_of_no_upgrade_but_a_websocket_and_of_nothing_between_caddy_and_nginx(made, case):
    for location in made.locations.values():
        headers = location.headers()
        assert [headers[name] for name in ("http2-settings", "x-tunnel-plain", "x-tunnel-visitor")] == ["", "", ""]
        assert headers["host"] == "$visited_host"
    kept, once, h2 = (location.headers() for location in made.locations.values())
    assert [kept["upgrade"], once["upgrade"], h2["upgrade"]] == ["$websocket", "", ""]
    assert kept["connection"] == "$websocket_connection"
    assert made.locations["/"].one("proxy_http_version") == made.locations["@once"].one("proxy_http_version") == ["1.1"]
    maps = {tuple(arguments): block.directives for arguments, block in made.http.blocks("map")}
    assert maps["$http_upgrade", "$websocket"] == [
        ("default", [""], None),
        ("~*^websocket$", ["websocket"], None),
    ]
    assert maps["$websocket", "$websocket_connection"] == [("default", ["upgrade"], None), ("", [""], None)]


@each_case
def test_a_tunnel_is_told_the_host_and_port_that_visitors_see(made, case):
    told = dict(made.visited.all("set"))["$visited_host"]
    assert told == {443: "$host", 8443: "$host:8443"}[made.get("https_port")]


@each_case
def test_limits_hold_when_they_are_given_and_only_then(made, case):
    http = made.http
    per_address = made.get("visits_per_address")
    zones, limits = [["$label", "zone=names:4m"]], [["names", str(made.get("visits_per_name"))]]
    if per_address:
        zones.append(["$visitor", "zone=addresses:4m"])
        limits.append(["addresses", str(per_address)])
    assert http.all("limit_conn_zone") == zones
    for location in made.locations.values():
        assert location.all("limit_conn") == limits
    rates = {"label": ("name_rate", "requests_per_name"), "visitor": ("address_rate", "requests_per_address")}
    wanted = {key: (zone, made.get(name)) for key, (zone, name) in rates.items() if made.get(name)}
    assert http.all("limit_req_zone") == [
        [f"${key}", f"zone={zone}:4m", f"rate={rate}r/s"] for key, (zone, rate) in wanted.items()
    ]
    for location in made.locations.values():
        assert location.all("limit_req") == [
            [f"zone={zone}", f"burst={rate}", "nodelay"] for zone, rate in wanted.values()
        ]
    assert http.one("limit_conn_status") == http.one("limit_req_status") == ["429"]
    assert made.visited.one("client_max_body_size") == [made.get("body_limit")]


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
    assert [block.all("listen") for block in servers] == [
        [["unix:ask.sock"]],
        [
            ["unix:visitors.sock", "default_server", "backlog=4096"],
            ["unix:tls.sock", "proxy_protocol", "backlog=4096"],
            ["unix:hidden-tls.sock", "proxy_protocol", "backlog=4096"],
        ],
    ]
    ask = {body for block in servers for _, place in block.blocks("location") for name, _, body in place.directives}
    assert "ask.answer()" in ask
    assert "ask." not in str(made.visited)
    assert made.http.one("server_tokens") == made.http.one("access_log") == ["off"]


@each_case
def test_the_lua_is_told_what_was_given(made, case):
    mode, shared = made.get("tls"), made.get("shared_account")
    # An authority of one's own counts nothing.
    counted = mode != "internal"
    every = {
        "below": f".{DOMAIN}",
        "reserved": dict.fromkeys([*ALWAYS_RESERVED, *made.get("reserved_labels")], True),
        "blocked": {str(label): True for label in made.get("blocked_names")},
        "domains": {
            domain: to for account in made.get("accounts") for domain, to in account.get("domains", {}).items()
        },
        "guest_prefix": made.get("guest_names").rstrip("*") if shared else "",
        "guest_notice": made.get("guest_notice") and shared,
        "headers": {"user_id": True, "user-id": False} if "user_id" in made.get("headers") else {},
        "blocked_text": "Your address is blocked from this host."
        + (f" Is that a mistake? Write to {made.get('abuse_contact')}." if made.get("abuse_contact") else ""),
        "caddys": {"www": True},
        "passthrough": {},
        "hsts": made.get("hsts"),
        "alt_svc": f'h3=":{made.get("https_port")}"; ma=2592000',
        "answer_timeout": made.get("answer_timeout"),
        "redirect_to_https": mode != "off",
        "plain": dict.fromkeys(made.get("plain_names"), True),
        "own_certificates": mode in ("on_demand", "internal", "off"),
        "always": dict.fromkeys(made.get("certificates_always"), True),
        "authority": made.get("acme_directory") if counted else "internal",
        "certificates_per_day": made.get("certificates_per_day") if counted else 1_000_000,
        "certificates_per_week": made.get("certificates_per_week") if counted else 1_000_000,
    }
    assert made.lua("settings.lua") == every


def test_blocked_labels_of_digits_are_blocked_as_labels(rendered):
    """visit.lua looks them up by the text of the label."""
    assert rendered("blocked").lua("settings.lua")["blocked"] == {"guest-phish": True, "8080": True, "8081": True}


@each_case
def test_every_page_is_there_and_says_what_was_given(made, case):
    pages = made.lua("texts.lua")
    shown = (ROLES / "nginx_subdomains/files/nginx/pages.conf").read_text() + (
        ROLES / "nginx_subdomains/files/nginx/pages.lua"
    ).read_text()
    assert sorted(pages) == sorted({*re.findall(r'pages\.show\("(\w+)"', shown), "unclear", "down"})
    port = made.get("https_port")
    contact = made.get("abuse_contact")
    for page in pages.values():
        assert page.startswith("<!doctype html>")
        assert page.rstrip().endswith("</html>")
        assert "{{" not in page
        assert f'href="https://{DOMAIN}{"" if port == 443 else f":{port}"}/"' in page
        link = f"{'mailto:' if '@' in contact else ''}{contact}"
        assert (f'<a href="{link}">{contact}</a>' in page) == bool(contact)
    assert f"for {made.get('answer_timeout')} seconds" in pages["silent"]
    assert f"may have {made.get('visits_per_name')} requests" in pages["crowded"]
    assert 'href="{link}"' in pages["notice"]
    assert SHOWN.get(case, "-NR {forward} tunnel@") in pages["nobody"]


@each_case
def test_what_nginx_asks_itself_counts_once_and_waits_for_the_other_half(made, case):
    """Limits, and how long a service may be silent, are those of the request that it makes."""
    ((_, ourselves),) = [found for found in made.visited.blocks("location") if found[0] == ["@ourselves"]]
    assert ourselves.all("limit_conn") == ourselves.all("limit_req") == []
    assert ourselves.one("proxy_pass") == ["http://ourselves"]
    assert ourselves.one("proxy_next_upstream") == ["error"]
    assert ourselves.one("proxy_buffering") == ourselves.one("proxy_request_buffering") == ["off"]
    assert ourselves.one("proxy_max_temp_file_size") == ["0"]
    assert ourselves.one("proxy_read_timeout") == ourselves.one("proxy_send_timeout") == ["2d"]
    headers = ourselves.headers()
    assert headers["host"] == "$http_x_forwarded_host"
    assert (headers["upgrade"], headers["connection"]) == ("$websocket", "$websocket_connection")


@each_case
def test_what_a_service_says_to_the_next_hop_goes_no_further(made, case):
    hidden = ["Alt-Svc", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE"]
    for protocol in ("proxy", "grpc"):
        assert made.visited.all(f"{protocol}_hide_header") == [[name] for name in [*hidden, "Trailer", "Via"]]
        # One of a location would take the place of all of these.
        for location in made.locations.values():
            assert location.all(f"{protocol}_hide_header") == []


def test_who_is_blocked_at_the_edge_is_who_is_blocked_at_caddy(rendered):
    made = rendered("blocked addresses")
    lines = made.files["blocked.conf"].splitlines()
    assert [line for line in lines if not line.startswith("#") and line] == ["2001:db8:9::/48 1;", "203.0.113.9 1;"]
    ((arguments, geo),) = made.http.blocks("geo")
    assert arguments == ["$proxy_protocol_addr", "$blocked_visitor"]
    assert (geo.one("default"), geo.one("include")) == (["0"], ["/etc/proxme-tunnel/blocked.conf"])
