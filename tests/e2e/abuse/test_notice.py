# SPDX-License-Identifier: GPL-3.0-or-later
"""A browser is told once that a guest's page is not the host's; molecule/abuse/molecule.yml switches that on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from world import Answer, Visitor, Web, World

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
    for query in ("//evil.example/", "/\\evil.example/", "https://evil.example/", ""):
        answer = visitor.get(f"https://{NAME}.{domain}/.proxme-tunnel/go-on?{query}", headers=FROM_THE_PAGE)
        assert answer.headers.get("location", f"https://{NAME}.{domain}/").startswith(f"https://{NAME}.{domain}/"), (
            query
        )


def test_programs_and_what_a_page_fetches_pass(visitor: Visitor, domain: str) -> None:
    url = f"https://{NAME}.{domain}"
    assert "Hello from web." in visitor.get(f"{url}/").body
    assert "Hello from web." in visitor.get(f"{url}/", headers=PERSON | {"Sec-Fetch-Mode": "cors"}).body
    assert visitor.websocket(f"wss://{NAME}.{domain}/ws", "hello")["answers"]
    # The landing page is ours.
    assert not told(visitor.get(f"https://{domain}/", headers=PERSON))
