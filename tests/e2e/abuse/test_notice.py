# SPDX-License-Identifier: GPL-3.0-or-later
"""A browser is told once that a guest's page is not the host's; molecule/abuse/molecule.yml switches that on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from world import Answer, Client, Visitor, Web, World

NAME = "guest-shown"
# What a browser says when a person goes to a page.
PERSON = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
FROM_THE_PAGE = PERSON | {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module", autouse=True)
def _tunnel(world: World, web: Web) -> Iterator[None]:
    with world.client() as client, client.tunnel(f"{NAME}:80", "8123", to=web):
        yield


def told(answer: Answer) -> bool:
    """Whether it is the notice."""
    return answer.status == 200 and "is not ours" in answer.body and "Hello from web." not in answer.body


@pytest.mark.parametrize("label", [NAME, "8123", f"{NAME}--local"])
def test_a_browser_is_told_once(visitor: Visitor, domain: str, label: str) -> None:
    """The link on the page leads on to where the visitor wanted to go."""
    url = f"https://{label}.{domain}"
    shown = visitor.get(f"{url}/bytes/3?a=1&b=2", headers=PERSON)
    assert told(shown)
    assert shown.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    link = re.search('href="(/[^"]*)"', shown.body)[1].replace("&amp;", "&")
    on = visitor.get(url + link, headers=FROM_THE_PAGE)
    assert (on.status, on.headers["location"]) == (303, f"{url}/bytes/3?a=1&b=2")
    cookie = on.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    seen = PERSON | {"Cookie": f"theirs=1; {cookie.split(';')[0]}"}
    assert "Hello from web." in visitor.get(f"{url}/", headers=seen).body


def test_no_link_leads_past_it(visitor: Visitor, domain: str) -> None:
    """Neither one in a mail, nor one of somebody else's page."""
    for site in ("none", "cross-site", "same-site"):
        answer = visitor.get(
            f"https://{NAME}.{domain}/.proxme-tunnel/go-on?/", headers=PERSON | {"Sec-Fetch-Site": site}
        )
        assert told(answer), site
        assert "set-cookie" not in answer.headers
    posted = visitor.get(f"https://{NAME}.{domain}/", method="POST", headers=PERSON | {"Sec-Fetch-Site": "cross-site"})
    assert told(posted)


def test_it_leads_nowhere_else(visitor: Visitor, domain: str) -> None:
    """What looks like another host is a path of this one; what is no path is shown the page."""
    url = f"https://{NAME}.{domain}"
    for path in ("//evil.example/", "/\\evil.example/"):
        answer = visitor.get(f"{url}/.proxme-tunnel/go-on?{path}", headers=FROM_THE_PAGE)
        assert (answer.status, answer.headers["location"]) == (303, url + path)
    for other in ("https://evil.example/", ""):
        assert told(visitor.get(f"{url}/.proxme-tunnel/go-on?{other}", headers=FROM_THE_PAGE)), other


OTHER_COOKIES = ["a=b,__Host-proxme-tunnel=1", "__HOST-proxme-tunnel=1", "x__Host-proxme-tunnel=1"]


@pytest.mark.parametrize("cookie", [*OTHER_COOKIES, "__Host-proxme-tunnel=2"])
def test_no_other_cookie_counts(visitor: Visitor, domain: str, cookie: str) -> None:
    """A neighbour may set these for all names, as no rule of browsers is about them."""
    assert told(visitor.get(f"https://{NAME}.{domain}/", headers=PERSON | {"Cookie": cookie}))


def test_a_tunnel_does_not_say_that_it_was_shown(world: World, client: Client, visitor: Visitor, domain: str) -> None:
    """Its own cookies pass."""
    given = [b"__Host-proxme-tunnel=1; Path=/; Secure", b"own=1", b"__host-PROXME-tunnel=1"]
    cookies = b"".join(b"Set-Cookie: " + value + b"\r\n" for value in given)
    with world.raw_service() as raw, client.tunnel("guest-cookie:80", to=raw):
        raw.answers("image", b"HTTP/1.1 200 OK\r\n" + cookies + b"Content-Length: 2\r\n\r\nok")
        answer = visitor.get(f"https://guest-cookie.{domain}/image")
        assert answer.body == "ok"
        assert [value for name, value in answer.all_headers if name == "set-cookie"] == ["own=1"]


def test_programs_and_what_a_page_fetches_pass(visitor: Visitor, domain: str) -> None:
    url = f"https://{NAME}.{domain}"
    assert "Hello from web." in visitor.get(f"{url}/").body
    assert "Hello from web." in visitor.get(f"{url}/", headers=PERSON | {"Sec-Fetch-Mode": "cors"}).body
    assert visitor.websocket(f"wss://{NAME}.{domain}/ws", "hello")["answers"]
    # The landing page is ours.
    assert not told(visitor.get(f"https://{domain}/", headers=PERSON))
