# SPDX-License-Identifier: GPL-3.0-or-later
"""visit.lua and headers.lua: what becomes of a visitor's request, and of the answer of a tunnel's service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import OWN_HEADERS
from nginx import DOMAIN, address_of

GUEST = f"guest-x.{DOMAIN}"
# Each kind of label with --local: its host, and what the service is told as Host.
LOCALS = {
    f"8080--local.{DOMAIN}": "localhost:8080",
    f"guest-x--local.{DOMAIN}": "localhost",
    f"8080--local-8000.{DOMAIN}": "localhost:8000",
    f"guest-x--local-8000.{DOMAIN}": "localhost:8000",
}
local = pytest.mark.parametrize(("own", "told"), LOCALS.items(), ids=["port", "name", "port-8000", "name-8000"])


@pytest.fixture(autouse=True)
def _tunnels(nginx):
    nginx.listen("8080", "guest-x:80", "guest-tls:443", "guest-plain:80", "shop:80", "guest-phish:80", "8666", "www:80")


# Where a request goes.


@pytest.mark.parametrize(
    ("host", "label", "scheme"),
    [
        (f"8080.{DOMAIN}", "8080", "http"),
        (GUEST, "guest-x", "http"),
        (f"guest-tls.{DOMAIN}", "guest-tls", "https"),
        ("shop.example.org", "shop", "http"),
    ],
)
def test_a_visitor_of_a_live_name_is_led_to_its_tunnel(nginx, host, label, scheme):
    visited = nginx.route(host, "/a/b?c=d", {"Origin": f"https://{host}", "Referer": f"https://{host}/"})
    assert (visited.exit, visited.exec) == (None, None)
    assert (visited.var("label"), visited.var("tunnel_scheme")) == (label, scheme)
    assert visited.var("tunnel_source").startswith("127." if label == "8080" else "[fd74:0:")
    # Nothing is mended without --local.
    assert visited.var("visited_host") == host
    assert visited.sent("Origin") == [f"https://{host}"]
    assert visited.sent("Referer") == [f"https://{host}/"]


@pytest.mark.parametrize("proto", ["https", "http"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (f"{label}.{DOMAIN}", 404)
            for label in ("guest-nobody", "9090", "08080", "guest-x--local--local", "www", "a.b")
        ),
        *((host, 404) for host in ("", DOMAIN, "example.com", "127.0.0.1", f"{GUEST}.example.com", f"{GUEST}:80")),
        *((f"{label}.{DOMAIN}", 410) for label in ("guest-phish", "guest-phish--local", "8666", "8666--local")),
        ("phish.example.org", 410),
    ],
)
def test_nobodys_host_ends_with_404_and_a_blocked_one_with_410(nginx, host, status, proto):
    """Also over plain http, where no certificate exists: there is nothing to redirect to."""
    visited = nginx.route(host, proto=proto)
    assert (visited.exit, visited.exec, visited.headers("location")) == (status, None, [])
    assert (visited.var("tunnel_scheme"), visited.var("tunnel_source"), visited.request.ctx.tunnel) == ("", "", None)


def test_a_blocked_name_is_blocked_whether_or_not_somebody_holds_it(nginx):
    nginx.end("guest-phish:80")
    assert nginx.route(f"guest-phish.{DOMAIN}").exit == 410


@pytest.mark.parametrize("target", ["/", "/a%20b/%2e%2e/c?d=e&f=%26&g", "//evil.example/", "/?https://evil.example"])
def test_plain_http_is_sent_to_https_of_the_same_host(nginx, target):
    for host in (GUEST, f"8080--local.{DOMAIN}", "shop.example.org"):
        visited = nginx.route(host, target, proto="http")
        assert (visited.exit, visited.headers("location")) == (308, [f"https://{host}{target}"])
        assert visited.request.ctx.tunnel is None


def test_the_redirect_names_the_port_of_https(nginx):
    visited = nginx.route(GUEST, "/a", proto="http", port=":8443")
    assert visited.headers("location") == [f"https://{GUEST}:8443/a"]


def test_plain_http_is_served_where_the_front_end_has_no_certificate_yet(nginx):
    assert nginx.route(GUEST, headers={"X-Tunnel-Plain": "yes"}, proto="http").exit is None
    for other in ("no", "", "YES", "yes, no"):
        assert nginx.route(GUEST, headers={"X-Tunnel-Plain": other}, proto="http").exit == 308, other


def test_plain_http_is_served_for_names_of_the_operators_choice_alone(nginx):
    assert nginx.route(f"guest-plain.{DOMAIN}", proto="http").exit is None
    assert nginx.route(f"guest-plain--local.{DOMAIN}", proto="http").exit == 308
    nginx.setting("redirect_to_https", False)
    assert nginx.route(GUEST, proto="http").exit is None


def test_https_is_never_redirected(nginx):
    for headers in ({}, {"X-Tunnel-Plain": "yes"}):
        visited = nginx.route(GUEST, headers=headers)
        assert (visited.exit, visited.headers("location")) == (None, [])


# A domain whose TLS is passed through.

CHALLENGE = "/.well-known/acme-challenge/a_-b"


@pytest.mark.parametrize("target", ["/", CHALLENGE])
def test_nothing_of_tls_that_is_passed_through_is_read_here(nginx, target):
    """Who comes has a connection for another name, or of before: the status makes a browser come again."""
    assert nginx.route("shop.example.org", target).exit is None
    for given in ({}, {"X-Tunnel-Plain": "yes"}):
        for proto in ("https", None):
            visited = nginx.route("tls.example.org", target, given, proto=proto)
            assert (visited.exit, visited.request.ctx.tunnel) == (421, None)


def test_plain_http_of_a_tunnel_with_tls_of_its_own_is_sent_to_https(nginx):
    for given in ({}, {"X-Tunnel-Plain": "yes"}):
        for target in ("/a?b", "/.well-known/acme-challenge", f"/x{CHALLENGE}"):
            visited = nginx.route("tls.example.org", target, given, proto="http")
            assert (visited.exit, visited.headers("location")) == (308, [f"https://tls.example.org{target}"])
    assert nginx.route("tls-phish.example.org", CHALLENGE, proto="http").exit == 410
    nginx.end("shop:80")
    nginx.wait(2)
    assert nginx.route("tls.example.org", CHALLENGE, proto="http").exit == 404


def test_a_challenge_reaches_port_80_of_a_tunnel_with_tls_of_its_own(nginx):
    nginx.end("shop:80")
    nginx.listen("shop:443")
    # No port 80: an authority follows to https.
    assert nginx.route("tls.example.org", CHALLENGE, proto="http").exit == 308
    nginx.listen("shop:80")
    nginx.wait(2)
    visited = nginx.route("tls.example.org", CHALLENGE, proto="http")
    assert (visited.exit, visited.request.ctx.tunnel.port, visited.var("tunnel_scheme")) == (None, 80, "http")
    # A domain whose TLS ends here has its certificate from us.
    assert nginx.route("shop.example.org", CHALLENGE, proto="http").exit == 308


# By which location.


@pytest.mark.parametrize(
    ("method", "headers", "location"),
    [
        *((method, {}, None) for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT")),
        ("PUT", {"Content-Length": "0"}, None),
        ("GET", {"Upgrade": "websocket"}, None),
        # May not be done twice, or can't be sent twice.
        *((method, {}, "@once") for method in ("POST", "PATCH", "LOCK", "MKCOL", "get", "X")),
        *((method, {"Content-Length": "1"}, "@once") for method in ("POST", "PUT", "GET", "DELETE")),
        *((method, {"Transfer-Encoding": "chunked"}, "@once") for method in ("POST", "PUT", "GET")),
    ],
)
def test_what_may_be_asked_twice_shares_connections_and_all_else_has_its_own(nginx, method, headers, location):
    visited = nginx.route(GUEST, headers=headers, method=method)
    assert (visited.exec, visited.exit) == (location, None)
    if location:
        led = nginx.led(visited)
        assert (led.exec, led.exit, led.var("visited_host")) == (None, None, GUEST)
        assert nginx.dial(led).request.peer[2] == 80


def test_grpc_goes_on_as_http_2_and_may_be_silent_for_a_day(nginx):
    for method, kind in (("POST", "application/grpc"), ("GET", "application/grpc+proto")):
        visited = nginx.route(GUEST, headers={"Content-Type": kind}, method=method, http2=True)
        assert visited.exec == "@h2"
        assert nginx.dial(nginx.led(visited)).request.timeouts[3] == 86400


def test_nothing_else_goes_on_as_http_2(nginx):
    for kind, http2 in (("application/grpc-web+proto", True), ("text/html", True), ("application/grpc", False)):
        visited = nginx.route(GUEST, headers={"Content-Type": kind}, method="POST", http2=http2)
        assert visited.exec == "@once"
        assert nginx.dial(nginx.led(visited)).request.timeouts[3] == 60


def failed(nginx, **given):
    request = nginx.request(GUEST, **given)
    request.vars.label = "guest-x"
    request.vars.tunnel_scheme = "http"
    return nginx.run("content", request, nginx.worker.pages.failed)


def test_a_service_that_speaks_http_2_alone_is_spoken_to_in_it_from_its_first_answer_on(nginx):
    assert nginx.answer(nginx.route(GUEST), http_version=0.9).exit == 444
    again = nginx.route(GUEST)
    assert again.exec == "@h2"
    assert nginx.answer(nginx.led(again)).exit is None
    nginx.wait(60)
    assert [nginx.route(GUEST, method=method).exec for method in ("GET", "POST")] == ["@h2", "@h2"]
    assert nginx.route(f"8080.{DOMAIN}").exec is None
    # Another service is there now: it is asked as all are.
    assert failed(nginx).exec == "@once"
    assert nginx.route(GUEST).exec is None


def test_what_greets_but_is_no_http_is_told_so(nginx):
    nginx.answer(nginx.route(GUEST), http_version=0.9)
    assert failed(nginx).status == 502
    assert nginx.route(GUEST).exec is None
    # Nor is that remembered where nobody asks again.
    nginx.answer(nginx.route(GUEST), http_version=0.9)
    nginx.wait(3)
    assert nginx.route(GUEST).exec is None


def test_a_request_that_may_not_be_made_again_is_not(nginx):
    nginx.answer(nginx.route(GUEST), http_version=0.9)
    nginx.answer(nginx.led(nginx.route(GUEST)))
    page = failed(nginx, method="POST")
    assert (page.exec, page.status) == (None, 502)


def test_local_is_mended_in_each_location(nginx):
    own = f"8080--local.{DOMAIN}"
    led = nginx.led(nginx.route(own, headers={"Origin": f"https://{own}"}, method="POST"))
    assert (led.var("visited_host"), led.sent("Origin")) == ("localhost:8080", ["http://localhost:8080"])


# What comes straight from the edge.

VISITOR = "203.0.113.7"


def by_edge(nginx, host=GUEST, headers=(), **given):
    """A request that Caddy has not seen, to a service that is known."""
    nginx.answer(nginx.route(GUEST))
    return nginx.route(host, headers=headers, edge=VISITOR, **given)


def test_a_service_is_told_who_visits_by_the_edge_and_no_lie(nginx):
    lies = ["X-Forwarded-For", "X-Real-IP", "X-Tunnel-Visitor", "X-Forwarded-Proto", "x-forwarded-host", "Forwarded"]
    lies += ["Via", "X-Tunnel-Plain", "X_Real_IP", "X.Forwarded.For", "X~Tunnel~Visitor"]
    visited = by_edge(nginx, headers=[(name, "lie") for name in lies * 2])
    assert visited.exit is None
    told = {name: visited.sent(name) for name in lies}
    assert told == {name: [] for name in lies} | {
        "X-Forwarded-For": [VISITOR],
        "X-Real-IP": [VISITOR],
        "X-Tunnel-Visitor": [VISITOR],
        "X-Forwarded-Proto": ["https"],
        "x-forwarded-host": [GUEST],
    }


def test_who_is_hidden_behind_dockers_proxy_counts_for_no_limit(nginx):
    visited = by_edge(nginx, headers={"X-Tunnel-Visitor": "lie"}, hidden=True)
    assert visited.sent("X-Tunnel-Visitor") == [""]
    assert visited.sent("X-Forwarded-For") == [VISITOR]


def test_of_names_with_other_marks_those_pass_the_edge_that_caddy_lets_in(nginx):
    given = [("user_id", "1"), ("user-id", "2"), ("x.api.version", "3"), ("other_id", "4"), ("other.id", "5")]
    visited = by_edge(nginx, headers=[*given, ("A~b", "6"), ("X-Api-Version", "7")])
    assert [visited.sent(name) for name in ("user_id", "x.api.version", "A~b")] == [["1"], ["3"], ["6"]]
    for name in ("user-id", "other_id", "other.id", "x-api-version"):
        assert visited.sent(name) == []
    # Nor one that comes twice: which of them would the service read?
    assert by_edge(nginx, headers=[("user_id", "1"), ("user_id", "2")]).sent("user_id") == []


def test_what_is_meant_for_one_hop_goes_no_further_than_the_edge(nginx):
    hop = ["Alt-Svc", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Trailer", "X-A"]
    given = [*((name, "x") for name in hop), ("Connection", "close, x-a ,Host, Content-Length"), ("X-B", "x")]
    visited = by_edge(nginx, headers=[*given, ("Content-Length", "1")])
    assert [visited.sent(name) for name in hop] == [[]] * len(hop)
    # But nothing that frames the request.
    assert [visited.sent(name) for name in ("X-B", "Host", "Content-Length")] == [["x"], [GUEST], ["1"]]


def test_an_upgrade_that_the_connection_does_not_know_of_is_none(nginx):
    for connection, upgrade in (("Upgrade", ["websocket"]), ("keep-alive, upgrade", ["websocket"]), ("close", [])):
        headers = {"Upgrade": "websocket", "Connection": connection}
        assert by_edge(nginx, headers=headers).sent("Upgrade") == upgrade


def test_where_a_host_is_written_twice_the_one_that_counts_is_told(nginx):
    for written, told in ((f"{GUEST.upper()}.:443", f"{GUEST.upper()}.:443"), ("evil.example", GUEST)):
        request = nginx.request(GUEST, edge=VISITOR)
        request.headers[1][2] = written
        assert nginx.run("rewrite", request, nginx.worker.visit.route, "/").sent("X-Forwarded-Host") == [told]


def test_what_is_caddys_is_not_answered_for_the_edge(nginx):
    """A browser takes one connection for all names of a certificate; it comes again by another."""
    for host in (DOMAIN, f"www.{DOMAIN}", f"status.{DOMAIN}"):
        visited = nginx.route(host, edge=VISITOR)
        assert (visited.exit, visited.status, visited.sent("X-Forwarded-For")) == (421, 421, [])
        # Caddy asks for what it has found to be nobody's.
        assert nginx.route(host).exit == 404
    for host in ("example.com", f"a.{GUEST}", f"guest-nobody.{DOMAIN}", "127.0.0.1"):
        assert nginx.route(host, edge=VISITOR).exit == 404
    nginx.setting("caddys", {"*": True})
    assert nginx.route(GUEST, edge=VISITOR).exit == 421


def test_a_blocked_address_reads_that_it_is_whatever_it_asks_for(nginx):
    for host in (GUEST, DOMAIN, "example.com"):
        request = nginx.request(host, edge=VISITOR)
        request.vars.blocked_visitor = "1"
        visited = nginx.run("rewrite", request, nginx.worker.visit.route, "/")
        assert (visited.exit, visited.status) == (403, 403)
        assert visited.body == "Your address is blocked from this host."
        answer = nginx.answer(visited, 403, http_version=1.1)
        assert (answer.exit, answer.headers("alt-svc")) == (403, ['h3=":443"; ma=2592000'])


def test_as_long_as_nothing_is_known_of_a_service_nginx_asks_itself_as_caddy_would(nginx):
    """What comes without a status line is then asked for once more."""
    for method in ("GET", "POST"):
        assert nginx.route(GUEST, edge=VISITOR, method=method).exec == "@ourselves"
    headers = {"Content-Type": "application/grpc"}
    assert nginx.route(GUEST, headers=headers, edge=VISITOR, http2=True).exec == "@h2"
    # Of gRPC nothing follows for other requests.
    nginx.answer(nginx.led(nginx.route(GUEST, headers=headers, http2=True)), http_version=2.0)
    assert nginx.route(GUEST, edge=VISITOR).exec == "@ourselves"
    nginx.answer(nginx.route(GUEST))
    assert [nginx.route(GUEST, edge=VISITOR, method=method).exec for method in ("GET", "POST")] == [None, "@once"]
    assert nginx.route(f"8080.{DOMAIN}", edge=VISITOR).exec == "@ourselves"
    nginx.wait(61)
    assert nginx.route(GUEST, edge=VISITOR).exec == "@ourselves"
    nginx.answer(nginx.route(GUEST), http_version=0.9)
    assert nginx.route(GUEST, edge=VISITOR).exec == "@h2"


def test_a_service_that_has_changed_is_asked_anew(nginx):
    assert by_edge(nginx).exec is None
    failed(nginx)
    assert nginx.route(GUEST, edge=VISITOR).exec == "@ourselves"


def test_what_nginx_has_asked_itself_changes_nothing_that_is_known(nginx):
    nginx.answer(nginx.route(GUEST), http_version=0.9)
    page = nginx.run("content", nginx.request(GUEST, edge=VISITOR), nginx.worker.pages.failed)
    assert (page.exec, page.status) == (None, 404)  # without a label
    request = nginx.request(GUEST, edge=VISITOR)
    request.vars.label = "guest-x"
    page = nginx.run("content", request, nginx.worker.pages.failed)
    assert (page.exec, page.status) == (None, 502)
    assert page.body.startswith("<style>")
    assert "unclear" in page.body
    assert nginx.route(GUEST).exec == "@h2"


def test_of_an_answer_without_a_status_line_the_edges_visitors_read_a_page(nginx):
    """Where that has made nginx believe that the visitor takes no header, it comes with one all the same."""
    for http2 in (True, False):
        visited = by_edge(nginx, http2=http2)
        assert nginx.answer(visited, http_version=0.9).exit == 502
        page = failed(nginx, http2=http2, http_version=0.9)
        assert page.status == 502
        head, _, body = page.body.rpartition("\r\n\r\n")
        assert head.split("\r\n")[0] == ("" if http2 else "HTTP/1.1 502 Bad Gateway")
        assert ("Cache-Control: no-store" in head) == (not http2)
        assert (f"Content-Length: {len(body.encode())}\r\n" in head) == (not http2)
        assert body.startswith("<style>")
        # Nobody would ask a second time.
        assert nginx.route(GUEST).exec is None


def test_answers_to_visitors_of_the_edge_are_as_caddys(nginx):
    service = [("Server", "Apache"), ("Alt-Svc", 'h3=":9"'), ("Strict-Transport-Security", "max-age=1"), ("X-A", "1")]
    answer = nginx.answer(by_edge(nginx), headers=[*service, ("Upgrade", "h2")])
    assert {name: answer.headers(name) for name in ("server", "alt-svc", "upgrade", "x-a")} == {
        "server": [],
        "alt-svc": ['h3=":443"; ma=2592000'],
        "upgrade": [],
        "x-a": ["1"],
    }
    assert answer.headers("strict-transport-security") == ["max-age=31536000"]
    nginx.setting("hsts", 0)
    assert nginx.answer(by_edge(nginx), headers=service).headers("strict-transport-security") == ["max-age=1"]
    # Caddy does it to those that come by it.
    answer = nginx.answer(nginx.route(GUEST), headers=service)
    assert answer.headers("server") == ["Apache"]
    upgraded = by_edge(nginx, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert nginx.answer(upgraded, 101, [("Upgrade", "websocket")]).headers("upgrade") == ["websocket"]


# Headers with other names than usual.


def test_headers_with_any_name_reach_the_service(nginx):
    given = {"X_Signature": "1", "x.y": "2", "X-Forwarded_Port": "3", "a_b.c-d!e": "4", "X_Forwarded": "5"}
    visited = nginx.route(GUEST, headers=given)
    assert {name: visited.sent(name) for name in given} == {name: [value] for name, value in given.items()}


@pytest.mark.parametrize("mark", "_.!#$%&'*+^`|~")
def test_what_a_service_could_take_for_a_header_of_ours_is_dropped(nginx, mark):
    """WSGI, CGI and PHP read X_Real.IP as X-Real-IP; so do nginx's own variables."""
    ours = [
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Tunnel-Plain",
        "X-Tunnel-Visitor",
    ]
    ours += ["Content-Length", "Transfer-Encoding", "Sec-Fetch-Site", "Sec-Fetch-Mode", "HTTP2-Settings"]
    for name in ours:
        for double in (name.replace("-", mark), name.replace("-", mark, 1), name[::-1].replace("-", mark, 1)[::-1]):
            visited = nginx.route(GUEST, headers=[(double, "lie"), (double.upper(), "lie"), (name, "true")])
            assert visited.sent(double) == []
            assert visited.sent(name)[0] == "true"


def test_a_double_redirects_nobody(nginx):
    """Of http and https the front end alone says which it was."""
    assert nginx.route(GUEST, headers={"X_Forwarded_Proto": "https", "X_Tunnel_Plain": "yes"}, proto="http").exit == 308


# A service that believes to be localhost.


def foreign_origins(own: str, told: str) -> list[str]:
    """Origins that are neither this host's nor the service's, though some look like it."""
    plain = own.replace("--local", "")
    hosts = ["evil.example", f"{own}.evil.example", f"evil.example.{own}", f"a.{own}", plain, f"{own}:8443", f"{own}@e"]
    hosts += [f"{told}.evil.example", f"{own}0"]
    return [
        *(f"https://{host}" for host in hosts),
        f"http://{own}",
        f"https://{told}",
        "http://localhost:1",
        "null",
        "",
    ]


@local
def test_the_service_is_told_that_it_is_localhost_and_nothing_else(nginx, own, told):
    headers = {"X-Forwarded-Host": own, "X-Forwarded-For": "192.0.2.7", "X-Real-IP": "192.0.2.7", "Accept": "*/*"}
    visited = nginx.route(own, headers=headers)
    assert visited.var("visited_host") == told
    assert visited.sent("X-Forwarded-Host") == visited.sent("X-Forwarded-Proto") == []
    assert visited.sent("X-Forwarded-For") == visited.sent("X-Real-IP") == ["192.0.2.7"]
    assert visited.sent("Accept") == ["*/*"]
    assert visited.sent("Origin") == visited.sent("Referer") == []


@local
def test_nothing_else_is_dialled_for_the_port_that_the_visitor_says(nginx, own, told):
    peer = nginx.dial(nginx.route(own)).request.peer
    plain = nginx.dial(nginx.route(f"{own.partition('--')[0]}.{DOMAIN}")).request.peer
    assert (peer[1], peer[2]) == (plain[1], plain[2])


@local
def test_limits_count_by_the_name_whatever_a_visitor_writes_behind_it(nginx, own, told):
    """nginx.conf.j2 counts by $label. With a count for each port of --local there would be no limit."""
    assert nginx.route(own).var("label") == own.partition("--")[0]


@local
@pytest.mark.parametrize("port", ["", ":8443"])
def test_this_hosts_own_origin_and_referer_become_localhost(nginx, own, told, port):
    for path in ("/", f"/a/page?q=https://{own}{port}/"):
        headers = {"Origin": f"https://{own}{port}", "Referer": f"https://{own}{port}{path}"}
        visited = nginx.route(own, headers=headers, port=port)
        assert visited.sent("Origin") == [f"http://{told}"]
        assert visited.sent("Referer") == [f"http://{told}{path}"]


@local
def test_a_foreign_origin_and_referer_stay_as_they_are(nginx, own, told):
    for origin in foreign_origins(own, told):
        visited = nginx.route(own, headers={"Origin": origin, "Referer": f"{origin}/page"})
        assert visited.sent("Origin") == [origin]
        assert visited.sent("Referer") == [f"{origin}/page"]
    # As long as the own one, but not all of it: no path follows.
    assert nginx.route(own, headers={"Referer": f"https://{own}"}).sent("Referer") == [f"https://{own}"]


@local
def test_a_page_of_the_visitors_own_localhost_is_foreign(nginx, own, told):
    """It names itself like the service does, and must not be taken for one of the service's pages."""
    for spelling in ("localhost", "127.0.0.1", "[::1]"):
        page = "http://" + told.replace("localhost", spelling)
        headers = {"Origin": page, "Referer": f"{page}/page", "Sec-WebSocket-Origin": page}
        visited = nginx.route(own, headers=headers)
        assert visited.sent("Origin") == visited.sent("Sec-WebSocket-Origin") == ["null"]
        assert visited.sent("Referer") == []


@local
def test_an_older_websocket_has_its_origin_in_another_header(nginx, own, told):
    """Tornado, and what is made of it, still reads it where there is no Origin."""
    visited = nginx.route(own, headers={"Sec-WebSocket-Origin": f"https://{own}"})
    assert visited.sent("Sec-WebSocket-Origin") == [f"http://{told}"]
    for origin in foreign_origins(own, told):
        visited = nginx.route(own, headers={"Sec-WebSocket-Origin": origin})
        assert visited.sent("Sec-WebSocket-Origin") == [origin]


def foreign_urls(host: str, told: str) -> list[str]:
    """URLs that do not begin with this host, though some look like it."""
    hosts = [f"{host}.example.com", f"{host}@example.com", f"example.com/https://{host}", f"{host}0", f"user@{host}"]
    hosts += [f"{host}\\@example.com", f"a.{host}", f"example.com/?to=https://{host}/", "example.com"]
    return [f"https://{foreign}/x" for foreign in hosts] + [f"ftp://{host}/x", f"//{host}/x", f"/{host}/x", told, ""]


@local
def test_every_header_of_a_request_that_names_the_host_names_localhost(nginx, own, told):
    """docs/how-it-works.md lists them."""
    here, there = f"https://{own}", f"http://{told}"
    for name in ("Destination", "Content-Location", "Ping-From", "Ping-To"):
        for path in ("", "/", "/a%20b,c;d?e=f#g"):
            assert nginx.route(own, headers={name: here + path}).sent(name) == [there + path]
        for url in foreign_urls(own, told):
            assert nginx.route(own, headers={name: url}).sent(name) == [url]
    lock = f'<{here}/a> (<urn:uuid:1> ["x"]) <{here}/b?c=<>> (Not <urn:uuid:2>) <https://example.com/?{here}>'
    links = [f'<{here}/a>; rel="self", <{here}>; rel=up, <https://example.com/{here}>', f"<{here}/b>; rel=x"]
    visited = nginx.route(own, headers=[("If", lock), *(("Link", link) for link in links)])
    assert visited.sent("If") == [lock.replace(f"<{here}", f"<{there}")]
    assert visited.sent("Link") == [link.replace(f"<{here}", f"<{there}") for link in links]
    for url in foreign_urls(own, told):
        visited = nginx.route(own, headers={"If": f"<{url}> (<urn:x>)", "Link": f"<{url}>; rel=self"})
        assert (visited.sent("If"), visited.sent("Link")) == ([f"<{url}> (<urn:x>)"], [f"<{url}>; rel=self"])


@local
def test_what_only_the_front_end_knows_is_not_told(nginx, own, told):
    headers = {"Alt-Used": own, "X-Forwarded-Port": "443", "X-Forwarded-Server": own, "X-Forwarded-Host": own}
    visited = nginx.route(own, headers=headers)
    assert [visited.sent(name) for name in headers] == [[], [], [], []]


def test_a_service_with_tls_sees_origins_of_https(nginx):
    own = f"guest-tls--local.{DOMAIN}"
    visited = nginx.route(own, headers={"Origin": f"https://{own}", "Referer": f"https://{own}/a"})
    assert (visited.sent("Origin"), visited.sent("Referer")) == (["https://localhost"], ["https://localhost/a"])
    visited = nginx.route(own, headers={"Origin": "https://localhost", "Referer": "https://localhost/a"})
    assert (visited.sent("Origin"), visited.sent("Referer")) == (["null"], [])
    visited = nginx.route(own, headers={"Origin": "http://localhost", "Referer": "http://localhost/a"})
    assert (visited.sent("Origin"), visited.sent("Referer")) == (["http://localhost"], ["http://localhost/a"])


@local
@pytest.mark.parametrize("name", ["Origin", "Referer"])
def test_of_two_origins_none_is_made_localhost(nginx, own, told, name):
    """A service that reads one of them would see its own page where the other one says who it was."""
    given = (
        [f"https://{own}/", "https://evil.example/"]
        if name == "Referer"
        else [f"https://{own}", "https://evil.example"]
    )
    for two in (given, given[::-1]):
        assert nginx.route(own, headers=[(name, value) for value in two]).sent(name) == two


@local
def test_a_hundred_other_headers_hide_no_origin(nginx, own, told):
    """The first hundred headers are what ngx.req.get_headers() gives by itself."""
    others = [(f"A-{number}", "1") for number in range(200)]
    for host, origin, referer in ((own, f"http://{told}", [f"http://{told}/a"]), (told, "null", [])):
        scheme = "https" if host == own else "http"
        asked = [*others, ("Origin", f"{scheme}://{host}"), ("Referer", f"{scheme}://{host}/a")]
        visited = nginx.route(own, headers=asked)
        assert (visited.sent("Origin"), visited.sent("Referer")) == ([origin], referer)


def test_a_custom_domain_may_lead_to_a_localhost(nginx):
    own = "8080.example.org"
    visited = nginx.route(own, headers={"Origin": f"https://{own}"})
    assert (visited.var("visited_host"), visited.sent("Origin")) == ("localhost:8080", ["http://localhost:8080"])


# Dialling.


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (f"8080.{DOMAIN}", "127.0.0.1", 8080),
        (f"8080--local.{DOMAIN}", "127.0.0.1", 8080),
        (GUEST, f"[{address_of('guest-x').exploded}]", 80),
        (f"guest-tls.{DOMAIN}", f"[{address_of('guest-tls').exploded}]", 443),
        ("shop.example.org", f"[{address_of('shop').exploded}]", 80),
    ],
)
def test_the_tunnels_own_address_is_dialled(nginx, host, address, port):
    peer = nginx.dial(nginx.route(host)).request.peer
    assert (peer[1], peer[2]) == (address, port)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 60),
        ({"Accept": "text/html,*/*"}, 60),
        ({"Accept": "text/event-stream"}, 86400),
        ({"Accept": "text/html, text/event-stream;q=0.5"}, 86400),
        ({"Upgrade": "websocket"}, 86400),
        ({"Upgrade": "WebSocket"}, 86400),
        ({"Upgrade": "h2c"}, 60),
        ({"Accept": "text/event_stream"}, 60),
        ({"Accept": "textXevent-stream"}, 60),
    ],
)
def test_a_service_may_be_silent_for_the_operators_time_and_a_stream_for_a_day(nginx, headers, seconds):
    """Who does not take the connection has five seconds."""
    timeouts = nginx.dial(nginx.route(GUEST, headers=headers)).request.timeouts
    assert (timeouts[1], timeouts[2], timeouts[3]) == (5, seconds, seconds)


# What a service answers.


@pytest.mark.parametrize("status", [0, 99, 100, 101, 102, 103, 199])
@pytest.mark.parametrize("upgrade", [None, "h2c"])
def test_an_interim_answer_is_refused(nginx, status, upgrade):
    """It is passed on as the answer, but the front end waits for another one: that would be of the tunnel's making."""
    visited = nginx.route(GUEST, headers={"Upgrade": upgrade} if upgrade else {})
    assert nginx.answer(visited, status).exit == 502


@pytest.mark.parametrize(
    ("status", "refused"), [(101, None), (100, 502), (102, 502), (103, 502), (0, 502), (200, None)]
)
def test_of_these_only_the_101_that_a_websocket_asked_for_passes(nginx, status, refused):
    assert nginx.answer(nginx.route(GUEST, headers={"Upgrade": "websocket"}), status).exit == refused


@pytest.mark.parametrize("upgrade", ["", "websocket"])
@pytest.mark.parametrize("status", [200, 101])
def test_an_answer_without_a_status_line_is_cut_off(nginx, status, upgrade):
    """It is taken for HTTP/0.9, which has no header: not even a page of ours could be put in its place."""
    visited = nginx.route(GUEST, headers={"Upgrade": upgrade} if upgrade else {})
    assert nginx.answer(visited, status, http_version=0.9).exit == 444


@pytest.mark.parametrize("http_version", [1.0, 1.1, 2.0])
@pytest.mark.parametrize("status", [200, 204, 206, 301, 304, 400, 404, 410, 429, 500, 502, 504, 599])
def test_every_other_answer_passes_as_it_is(nginx, status, http_version):
    headers = [("Location", "http://localhost/a"), ("Set-Cookie", "a=b; Domain=localhost"), ("Set-Cookie", "c=d")]
    answer = nginx.answer(nginx.route(GUEST), status, headers, http_version)
    assert (answer.exit, answer.status) == (None, status)
    assert answer.headers("location") == ["http://localhost/a"]
    assert answer.headers("set-cookie") == ["a=b; Domain=localhost", "c=d"]


# What it says of the visited host: it is spoken to by plain http, and many believe that their visitors came so.

FOLLOWED = {
    "location": "{}",
    "content-location": "{}",
    "link": "<{}>; rel=preload",
    "refresh": "5; url={}",
}


@pytest.mark.parametrize("port", ["", ":8443"])
@pytest.mark.parametrize(("name", "written"), FOLLOWED.items())
def test_what_leads_to_plain_http_of_the_visited_host_leads_to_https(nginx, name, written, port):
    """From a page of https a browser would not even ask for it, so that no redirect could help."""
    for host in (GUEST, f"8080.{DOMAIN}", f"guest-tls.{DOMAIN}", "shop.example.org"):
        for authority in (host, f"{host}:80", f"{host}{port}"):
            for path in ("/a/b?c=d#e", "/", "", f"/?to=http://{host}/"):
                visited = nginx.route(host, port=port)
                answer = nginx.answer(visited, 302, [(name, written.format(f"http://{authority}{path}"))])
                assert answer.headers(name) == [written.format(f"https://{host}{port}{path}")]


@pytest.mark.parametrize(("name", "written"), FOLLOWED.items())
def test_nothing_else_is_led_to_https(nginx, name, written):
    elsewhere = [f"https://{GUEST}/", f"https://{GUEST}:80/", f"http://{GUEST}:8080/", f"http://{GUEST}:443/", "/a", ""]
    elsewhere += [f"http://guest-y.{DOMAIN}/", f"http://{DOMAIN}/", f"http://guest-x--local.{DOMAIN}/", f"//{GUEST}/"]
    elsewhere += [url.replace("https:", "http:") for url in foreign_urls(GUEST, "localhost")]
    for url in elsewhere:
        answer = nginx.answer(nginx.route(GUEST), 302, [(name, written.format(url))])
        assert answer.headers(name) == [written.format(url)]


def test_where_plain_http_is_served_nothing_leads_away_from_it(nginx):
    """A name of the operator's choice by either way, and any name for as long as there is no certificate."""
    plain, headers = f"guest-plain.{DOMAIN}", {"X-Tunnel-Plain": "yes"}
    for host, visited in (
        (plain, nginx.route(plain)),
        (plain, nginx.route(plain, proto="http")),
        (GUEST, nginx.route(GUEST, headers=headers, proto="http")),
    ):
        answer = nginx.answer(visited, 302, [("Location", f"http://{host}/a")])
        assert answer.headers("location") == [f"http://{host}/a"]


# What it says of itself under --local.


@local
def test_a_redirect_to_the_service_itself_leads_to_the_visited_host(nginx, own, told):
    for home in (told, told.replace("localhost", "127.0.0.1"), told.replace("localhost", "[::1]")):
        for path in ("/a/b?c=d#e", "/", "", "?x", "#y", f"/?to=http://{told}/"):
            for scheme in ("http", "https"):
                answer = nginx.answer(nginx.route(own), 302, [("Location", f"{scheme}://{home}{path}")])
                assert answer.headers("location") == [f"https://{own}{path}"]


@local
def test_any_other_redirect_stays(nginx, own, told):
    elsewhere = ["/a?b", "b/c", "", "https://example.com/x", "http://localhost:9999/", "http://localhost.example.com/"]
    elsewhere += ["//example.com/x", f"http://example.com/?to=http://{told}/", f"http://{told}@example.com/"]
    elsewhere += [f"http://{told}0.example.com/", f"http://user@{told}/", f"ftp://{told}/", "mailto:a@localhost"]
    elsewhere += [f"http://{told}\\@example.com/", f"//{told}/", f"xhttp://{told}/", "http://127.0.0.2/", "http:///a"]
    for location in elsewhere:
        answer = nginx.answer(nginx.route(own), 302, [("Location", location)])
        assert answer.headers("location") == [location]


# Headers that hold nothing but a URL, and others: how they hold it.
URLS = ["location", "content-location", "sourcemap", "x-sourcemap", "service-worker-allowed"]
WORDS = {
    "refresh": ["5; url={}", "0;URL='{}'", '0; url="{}"', "0 ; {}", "{}"],
    "link": ["<{}>; rel=preload", "</a>; rel=next, <{}>; rel=self; title=x,<{}>"],
    "www-authenticate": ['Bearer resource_metadata="{}", scope="a"', 'Digest realm="a", domain="{} {}", nonce="x"'],
    "access-control-allow-origin": ["{}"],
    "timing-allow-origin": ["{}", "https://example.com, {}"],
    "content-security-policy": ["default-src 'self' {}; connect-src {} https://example.com; frame-ancestors {}"],
    "content-security-policy-report-only": ["report-uri {}"],
    "permissions-policy": ['camera=(self "{}"), microphone=("{}")'],
    "reporting-endpoints": ['default="{}", other="{}"'],
    "report-to": ['{{"group":"a","endpoints":[{{"url":"{}"}}]}}'],
    "speculation-rules": ['"{}"'],
}


@local
def test_every_header_of_an_answer_that_names_localhost_names_the_visited_host(nginx, own, told):
    """docs/how-it-works.md lists them."""
    for name, ways in {**{key: ["{}"] for key in URLS}, **WORDS}.items():
        for way in ways:
            for path in ("", "/a/b"):
                for home in (told, told.replace("localhost", "127.0.0.1")):
                    given, mended = (way.replace("{}", url + path) for url in (f"http://{home}", f"https://{own}"))
                    answer = nginx.answer(nginx.route(own), headers=[(name, given)])
                    assert answer.headers(name) == [mended]
            for url in foreign_urls(told, ""):
                given = way.replace("{}", url)
                answer = nginx.answer(nginx.route(own), headers=[(name, given)])
                assert answer.headers(name) == [given]


@local
def test_a_policy_names_hosts_without_a_scheme_and_websockets_too(nginx, own, told):
    given = f"connect-src ws://{told} wss://{told}/a 'self' {told}; img-src {told}, x.{told} {told}.example.com {told}0"
    kept = f"connect-src wss://{own} wss://{own}/a 'self' {own}; img-src {own}, x.{told} {told}.example.com {told}0"
    for name in ("content-security-policy", "content-security-policy-report-only"):
        assert nginx.answer(nginx.route(own), headers=[(name, given)]).headers(name) == [kept]
    realm = f'Basic realm="{told}"'
    assert nginx.answer(nginx.route(own), headers=[("WWW-Authenticate", realm)]).headers("www-authenticate") == [realm]


@local
def test_another_port_of_the_services_machine_is_not_offered(nginx, own, told):
    headers = [("Alt-Svc", 'h3=":8443"; ma=86400')]
    assert nginx.answer(nginx.route(own), headers=headers).headers("alt-svc") == []
    assert nginx.answer(nginx.route(GUEST), headers=headers).headers("alt-svc") == [headers[0][1]]


@local
def test_the_visited_host_keeps_its_port(nginx, own, told):
    answer = nginx.answer(nginx.route(own, port=":8443"), 302, [("Location", f"http://{told}/a")])
    assert answer.headers("location") == [f"https://{own}:8443/a"]


@local
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a=1; Domain=localhost", "a=1"),
        ("a=1; Domain=localhost; Path=/; HttpOnly", "a=1; Path=/; HttpOnly"),
        ("a=1; Secure; domain=.localhost", "a=1; Secure"),
        ("a=1;DOMAIN=LOCALHOST;Secure", "a=1;Secure"),
        ("a=1; Domain=127.0.0.1; Secure", "a=1; Secure"),
        *((same, same) for same in ("a=1; Domain=127.0.0.10", "a=1; Domain=1127.0.0.1", "a=1; Domain=127.0.0.1.x")),
        ("a=1 ; Domain = localhost ; Secure", "a=1 ; Secure"),
        ("a=1; Domain=localhost; Domain=localhost; Path=/", "a=1; Path=/"),
        # Of another domain, or none.
        *((same, same) for same in ("a=1; Path=/", "a=1; Domain=example.com", "a=1; Domain=localhost.example.com", "")),
        *(
            (same, same)
            for same in ("a=1; Domain=notlocalhost", "a=1; Domain=localhost.", "a=1; Domain=", "a=1; Domain")
        ),
        *((same, same) for same in ("a=1; Path=localhost", "a=1; XDomain=localhost", "Domain=localhost", "domain=1")),
        *((same, same) for same in ("a=1; Domain=localhost:8080", "a=1; Domain=localhostx; Secure")),
    ],
)
def test_a_cookie_of_localhost_is_the_visited_hosts(nginx, own, told, given, kept):
    """Without a Domain a browser takes it for the host that it visits; with that of localhost it throws it away."""
    assert nginx.answer(nginx.route(own), headers=[("Set-Cookie", given)]).headers("set-cookie") == [kept]


@local
def test_each_of_several_cookies_is_mended(nginx, own, told):
    several = ["a=1; Domain=localhost; Path=/; HttpOnly", "b=2; Secure; domain=localhost", "c=3; SameSite=Lax"]
    answer = nginx.answer(nginx.route(own), headers=[("Set-Cookie", cookie) for cookie in several])
    assert answer.headers("set-cookie") == ["a=1; Path=/; HttpOnly", "b=2; Secure", "c=3; SameSite=Lax"]
    assert nginx.answer(nginx.route(own)).headers("set-cookie") == []


def test_an_operator_cannot_let_in_what_would_be_dropped():
    """A header that looks like one of the host's own is refused in tunnel_headers, and dropped if it comes."""
    lua = Path(__file__).resolve().parents[2] / "roles/nginx_subdomains/files/nginx/headers.lua"
    assert set(re.search(r"\[\[(.*?)\]\]", lua.read_text(), re.DOTALL)[1].split()) == OWN_HEADERS
