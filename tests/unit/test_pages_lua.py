# SPDX-License-Identifier: GPL-3.0-or-later
"""pages.lua: our own pages say whose name it is and what its owner would type, and repeat nothing dangerous."""

from __future__ import annotations

import html
import html.parser
import re

import pytest
from nginx import DOMAIN, TEXTS


def shown(page, tag: str) -> str:
    """The text in a page's first element of this kind, as a browser shows it."""
    return html.unescape(re.search(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page.body, re.DOTALL)[1])


class Tags(html.parser.HTMLParser):
    """The tags of a page and their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("status", [200, 404, 410, 429, 502, 504])
def test_a_page_has_its_status_and_is_kept_by_nobody(nginx, name, status):
    page = nginx.page(name, status, f"guest-x.{DOMAIN}")
    assert page.status == status
    assert page.headers("content-type") == ["text/html; charset=utf-8"]
    assert page.headers("cache-control") == ["no-store"]
    assert shown(page, "h1") == f"{name}: guest-x.{DOMAIN}"


def test_what_is_no_place_to_fill_in_stays(nginx):
    assert "<style>p { margin: 0 }</style>" in nginx.page("nobody", 404, f"guest-x.{DOMAIN}").body


# What the owner would type.

GUEST_FORWARD = "guest-x:80:localhost:3000"


@pytest.mark.parametrize(
    ("label", "forward"),
    [
        ("8080", "8080:localhost:80"),
        ("8080--local", "8080:localhost:80"),
        ("8080--local-3000", "8080:localhost:80"),
        ("guest-abc--local-8000", "guest-abc:80:localhost:3000"),
        ("guest-abc", "guest-abc:80:localhost:3000"),
        ("guest-abc--local", "guest-abc:80:localhost:3000"),
        # Nobody may take these: a name that would be granted.
        *((label, GUEST_FORWARD) for label in ("blog", "blog--local", "www", "guest", "guestbook", "xguest-abc", "a")),
    ],
)
def test_the_page_says_the_forward_for_its_label(nginx, label, forward):
    assert shown(nginx.page("nobody", 404, f"{label}.{DOMAIN}"), "pre") == forward


@pytest.mark.parametrize(
    "label",
    [
        *("08080", "73616", "0", "65536", "99999", "123456", "08080--local", "8080--local-0"),
        *("guest-", "guest--x", "guest-x-", "guest-x--local--local", "guest-" + "x" * 58),
    ],
)
def test_a_label_that_nobody_can_open_is_in_no_command(nginx, label):
    """With ssh and sshd each of these is an error, or opens another port."""
    assert shown(nginx.page("nobody", 404, f"{label}.{DOMAIN}"), "pre") == GUEST_FORWARD
    nginx.setting("guest_prefix", "")
    assert shown(nginx.page("nobody", 404, f"{label}.{DOMAIN}"), "pre") == "8080:localhost:80"


@pytest.mark.parametrize("host", ["example.com", DOMAIN, f"a.b.{DOMAIN[1:]}", "127.0.0.1"])
def test_a_host_that_is_none_of_ours_is_told_of_a_guests_name(nginx, host):
    assert shown(nginx.page("nobody", 404, host), "pre") == GUEST_FORWARD


def test_guest_names_begin_as_the_operator_wants(nginx):
    nginx.setting("guest_prefix", "free-")
    assert shown(nginx.page("nobody", 404, f"free-z.{DOMAIN}"), "pre") == "free-z:80:localhost:3000"
    assert shown(nginx.page("nobody", 404, f"guest-z.{DOMAIN}"), "pre") == "free-x:80:localhost:3000"


@pytest.mark.parametrize(
    ("label", "forward"),
    [("8099", "8099:localhost:80"), ("guest-x", "8080:localhost:80"), ("blog--local", "8080:localhost:80")],
)
def test_without_guest_names_the_page_says_a_port(nginx, label, forward):
    nginx.setting("guest_prefix", "")
    assert shown(nginx.page("nobody", 404, f"{label}.{DOMAIN}"), "pre") == forward


# What a visitor wrote.


@pytest.mark.parametrize(
    "host",
    ["<b>x</b>", '"><script>x</script>', "<script>", "&lt;b&gt;", "{forward}", "{host}", "%1", "'><b>", "a&b", ""],
)
def test_a_host_is_text_on_the_page(nginx, host):
    page = nginx.page("nobody", 404, host)
    assert shown(page, "h1") == f"nobody: {host}"
    assert [tag for tag, _ in Tags(page.body).found] == ["style", "h1", "a", "pre"]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a?b&c=d",
        "/<b>x</b>?<script>",
        '/"onmouseover="x',
        '/"><script>',
        "/&quot;>",
        "/{host}",
        "/%00%22",
        "//e",
        "/'",
    ],
)
def test_the_link_to_go_on_is_one_address_on_this_host(nginx, target):
    tags = Tags(nginx.page("notice", 200, f"guest-x.{DOMAIN}", target).body).found
    assert [tag for tag, _ in tags] == ["style", "h1", "a", "pre"]
    assert tags[2] == ("a", {"href": f"/.proxme-tunnel/go-on?{target}"})


# Dialling failed.


@pytest.mark.parametrize(
    ("label", "forward"), [("8080", "8080"), ("guest-x", "guest-x:80"), ("guest-x--local", "guest-x:443")]
)
def test_a_service_that_is_down_is_told_from_a_tunnel_that_has_just_ended(nginx, label, forward):
    nginx.listen(forward)

    def failed(received=None):
        request = nginx.request(f"{label}.{DOMAIN}")
        request.vars.label, request.vars.tunnel_scheme = label, "http"
        request.vars.upstream_bytes_received = received
        return nginx.run("content", request, nginx.worker.pages.failed)

    page = failed()
    assert (page.status, shown(page, "h1")) == (502, f"down: {label}.{DOMAIN}")
    # By try: over a kept connection that its service had closed, and over a new one.
    for received, name in (("0", "down"), ("0, 0", "down"), ("0, 70", "unclear"), ("65536", "unclear")):
        page = failed(received)
        assert (page.status, shown(page, "h1")) == (502, f"{name}: {label}.{DOMAIN}")
    nginx.end(forward)
    nginx.wait(1)
    page = failed()
    assert (page.status, shown(page, "h1")) == (404, f"nobody: {label}.{DOMAIN}")
