# SPDX-License-Identifier: GPL-3.0-or-later
"""notice.lua: who is shown the page before a guest's name, once, and that nobody gets round it."""

from __future__ import annotations

import re
import urllib.parse

import pytest
from nginx import DOMAIN

GUEST = f"guest-x.{DOMAIN}"
GO_ON = "/.proxme-tunnel/go-on"
# What a browser says when a person goes to a page.
PERSON = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
FROM_THE_PAGE = PERSON | {"Sec-Fetch-Site": "same-origin"}
SHOWN = "__Host-proxme-tunnel=1"


@pytest.fixture(autouse=True)
def _on(nginx):
    nginx.setting("guest_notice", True)
    nginx.setting("domains", {"show.example.org": "guest-x", "shop.example.org": "shop"})
    nginx.listen("8080", "guest-x:80", "guest-tls:443", "blog:80", "shop:80", "guestbook:80")


def told(visited) -> bool:
    """Whether the notice is shown and the tunnel sees nothing."""
    assert visited.exec in (None, "@notice")
    assert (visited.exec is None) == (visited.var("tunnel_scheme") != "" or visited.exit is not None)
    return visited.exec == "@notice"


# Who is told.


@pytest.mark.parametrize("label", ["8080", "8080--local", "guest-x", "guest-x--local", "guest-tls"])
def test_a_person_is_told_before_a_name_that_needs_no_account(nginx, label):
    assert told(nginx.route(f"{label}.{DOMAIN}", "/a?b", PERSON))


def test_a_custom_domain_of_such_a_name_is_no_way_round(nginx):
    assert told(nginx.route("show.example.org", headers=PERSON))


@pytest.mark.parametrize("host", [f"blog.{DOMAIN}", f"blog--local.{DOMAIN}", f"guestbook.{DOMAIN}", "shop.example.org"])
def test_nobody_is_told_before_a_name_of_an_account(nginx, host):
    assert not told(nginx.route(host, headers=PERSON))


def test_where_there_are_no_guest_names_ports_are_told_of(nginx):
    nginx.setting("guest_prefix", "")
    assert told(nginx.route(f"8080.{DOMAIN}", headers=PERSON))
    assert not told(nginx.route(GUEST, headers=PERSON))


def test_nobody_is_told_where_the_operator_does_not_want_it(nginx):
    nginx.setting("guest_notice", False)
    assert not told(nginx.route(GUEST, headers=PERSON))
    assert nginx.route(GUEST, f"{GO_ON}?/", FROM_THE_PAGE).exit is None


def test_over_plain_http_nobody_is_told(nginx):
    """A browser would not keep the cookie, and would be shown the page for ever."""
    nginx.setting("redirect_to_https", False)
    assert not told(nginx.route(GUEST, headers=PERSON, proto="http"))
    assert nginx.route(GUEST, f"{GO_ON}?/", FROM_THE_PAGE, proto="http").exit is None


def test_a_dead_name_has_its_own_page(nginx):
    for path in ("/", f"{GO_ON}?/"):
        visited = nginx.route(f"guest-nobody.{DOMAIN}", path, FROM_THE_PAGE)
        assert (visited.exit, visited.exec) == (404, None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "*/*"},
        {"Accept": "application/json"},
        *(PERSON | {"Sec-Fetch-Mode": mode} for mode in ("cors", "no-cors", "same-origin", "websocket")),
    ],
)
def test_programs_and_what_a_page_fetches_pass(nginx, headers):
    assert not told(nginx.route(GUEST, headers=headers))


@pytest.mark.parametrize("site", ["none", "cross-site", "same-site", "same-origin"])
def test_a_person_is_told_from_wherever_they_come(nginx, site):
    assert told(nginx.route(GUEST, headers=PERSON | {"Sec-Fetch-Site": site}))


def test_a_browser_that_does_not_say_what_a_request_is_for_is_told(nginx):
    assert told(nginx.route(GUEST, headers={"Accept": "text/html"}))


# Going on.


@pytest.mark.parametrize("label", ["8080", "guest-x", "guest-x--local"])
@pytest.mark.parametrize(
    "target", ["/", "/bytes/3?a=1&b=2", "/?", "//evil.example/", "/?x=https://evil.example/", "/a#b"]
)
def test_who_goes_on_gets_where_they_wanted_and_is_told_no_more(nginx, label, target):
    url = f"https://{label}.{DOMAIN}"
    assert told(nginx.route(f"{label}.{DOMAIN}", target, PERSON))
    page = nginx.page("notice", 200, f"{label}.{DOMAIN}", target)
    link = re.search(r'href="([^"]*)"', page.body)[1].replace("&amp;", "&")
    on = nginx.route(f"{label}.{DOMAIN}", link, FROM_THE_PAGE)
    assert (on.exit, on.headers("location")) == (303, [url + target])
    assert urllib.parse.urlsplit(on.headers("location")[0]).netloc == f"{label}.{DOMAIN}"
    (cookie,) = on.headers("set-cookie")
    assert cookie.split("; ")[0] == SHOWN
    assert not told(nginx.route(f"{label}.{DOMAIN}", target, PERSON | {"Cookie": cookie.split(";")[0]}))


def test_the_cookie_is_this_hosts_alone_for_30_days(nginx):
    """A browser takes a name with __Host- only with Path=/ and Secure and without Domain (RFC 6265bis, 4.1.3.2)."""
    (cookie,) = nginx.route(GUEST, f"{GO_ON}?/", FROM_THE_PAGE).headers("set-cookie")
    name, *attributes = cookie.split("; ")
    assert name == SHOWN
    assert sorted(attributes) == ["HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=None", "Secure"]


def test_the_port_of_https_stays(nginx):
    on = nginx.route(GUEST, f"{GO_ON}?/a", FROM_THE_PAGE, port=":8443")
    assert on.headers("location") == [f"https://{GUEST}:8443/a"]


@pytest.mark.parametrize("site", ["none", "cross-site", "same-site", "same-origin, cross-site", ""])
def test_no_link_from_elsewhere_leads_past_the_page(nginx, site):
    """Neither one in a mail, nor one on somebody else's page, nor one of a neighbour below the domain."""
    visited = nginx.route(GUEST, f"{GO_ON}?/", PERSON | {"Sec-Fetch-Site": site})
    assert told(visited)
    assert visited.headers("set-cookie") == []


@pytest.mark.parametrize(
    "other",
    [
        *("https://evil.example/", "evil.example", "", "@evil.example/", ".evil.example/", ":80@evil.example/"),
        *("\\evil.example/", "%2F", "%2Fevil", "javascript:alert(1)", "?/", " /", "&/"),
    ],
)
def test_what_is_no_path_leads_nowhere(nginx, other):
    visited = nginx.route(GUEST, f"{GO_ON}?{other}", FROM_THE_PAGE)
    assert told(visited)
    assert (visited.headers("location"), visited.headers("set-cookie")) == ([], [])


@pytest.mark.parametrize("other", ["//evil.example/", "/\\evil.example/", "/@evil.example/", "/https://evil.example/"])
def test_what_looks_like_another_host_is_a_path_of_this_one(nginx, other):
    """As a browser reads it (WHATWG: a backslash is a slash)."""
    (location,) = nginx.route(GUEST, f"{GO_ON}?{other}", FROM_THE_PAGE).headers("location")
    assert urllib.parse.urlsplit(location.replace("\\", "/")).netloc == GUEST
    assert location == f"https://{GUEST}{other}"


@pytest.mark.parametrize("path", [f"{GO_ON}/", f"{GO_ON}x", f"/a{GO_ON}", GO_ON.upper(), "/.proxme-tunnel/", GO_ON])
def test_only_that_very_link_goes_on(nginx, path):
    visited = nginx.route(GUEST, path if path == GO_ON else f"{path}?/", FROM_THE_PAGE)
    assert told(visited)
    assert visited.headers("set-cookie") == []


def test_a_browser_that_does_not_say_from_where_it_comes_is_believed(nginx):
    """Those of before 2023 do not."""
    assert nginx.route(GUEST, f"{GO_ON}?/", {"Accept": "text/html"}).exit == 303


# The cookie.


@pytest.mark.parametrize(
    "cookies", [SHOWN, f"a=b; {SHOWN}", f"{SHOWN};a=b", f"a=b;  {SHOWN} ; c=d", f"={SHOWN}; {SHOWN}"]
)
def test_who_has_the_cookie_is_told_no_more(nginx, cookies):
    assert not told(nginx.route(GUEST, headers=PERSON | {"Cookie": cookies}))


def test_the_cookie_may_stand_in_any_of_several_headers(nginx):
    headers = [*PERSON.items(), ("Cookie", "a=b"), ("Cookie", SHOWN)]
    assert not told(nginx.route(GUEST, headers=headers))


@pytest.mark.parametrize(
    "cookies",
    [
        *(
            "",
            "a=b",
            f"a=b,{SHOWN}",
            SHOWN.upper(),
            SHOWN.lower(),
            f"x{SHOWN}",
            f"={SHOWN}",
            f'"{SHOWN}"',
            f"a={SHOWN}",
        ),
        *("__Host-proxme-tunnel=2", "__Host-proxme-tunnel=11", "__Host-proxme-tunnel=", "__Host-proxme-tunnel", "=1"),
        *("__Host-proxme-tunnel =1", "__Host-proxme-tunnel= 1", "__Host-proxme_tunnel=1", "__host_proxme_tunnel=1"),
        *("__Secure-proxme-tunnel=1", "proxme-tunnel=1", f"{SHOWN}, a=b"),
    ],
)
def test_no_other_cookie_counts(nginx, cookies):
    """A neighbour's page may set these for all names, as no rule of browsers is about them."""
    assert told(nginx.route(GUEST, headers=PERSON | {"Cookie": cookies}))


# What a tunnel says.


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["own=1"], ["own=1"]),
        (["own=1; Path=/", "other=2"], ["own=1; Path=/", "other=2"]),
        ([f"{SHOWN}; Path=/; Secure"], []),
        ([f"{SHOWN}; Path=/; Secure", "own=1", "__host-PROXME-tunnel=1"], ["own=1"]),
        ([f" {SHOWN}; Path=/; Secure", f"={SHOWN}; Path=/; Secure", f"\t{SHOWN}"], []),
        (["__Host-proxme-tunnel =1; Path=/; Secure", "__Host-proxme-tunnel=; Max-Age=0"], []),
        ([], []),
    ],
)
@pytest.mark.parametrize("label", ["guest-x", "guest-x--local", "8080", "blog"])
def test_a_tunnel_cannot_say_that_the_page_was_shown(nginx, given, kept, label):
    """Its own cookies pass. A page fetches an image of its own, say, before anybody has seen the notice."""
    visited = nginx.route(f"{label}.{DOMAIN}", headers={"Accept": "image/*"})
    answer = nginx.answer(visited, headers=[("Set-Cookie", cookie) for cookie in given])
    assert answer.headers("set-cookie") == kept


def test_without_the_page_every_cookie_of_a_tunnel_passes(nginx):
    nginx.setting("guest_notice", False)
    answer = nginx.answer(nginx.route(GUEST), headers=[("Set-Cookie", SHOWN)])
    assert answer.headers("set-cookie") == [SHOWN]


def test_what_we_say_ourselves_passes(nginx):
    """The redirect comes by the same filter of headers as a tunnel's answers."""
    on = nginx.route(GUEST, f"{GO_ON}?/", FROM_THE_PAGE)
    said = on.headers("set-cookie")
    assert nginx.answer(on, 303, [("Set-Cookie", said[0])]).headers("set-cookie") == said
