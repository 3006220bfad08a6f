# SPDX-License-Identifier: GPL-3.0-or-later
"""What a visitor sees where no tunnel answers, and on the bare domain."""

import html
import html.parser
import re
import time
from contextlib import nullcontext

import pytest
from world import Answer, Client, Host, Scenario, Visitor, Web, World, until

VERSIONS = ["1.1", "2", "3"]


class Tags(html.parser.HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def meta(self, name: str) -> str:
        """Content of a <meta name=…>."""
        return next((a.get("content", "") for tag, a in self.found if tag == "meta" and a.get("name") == name), "")


def expect_plain(page: str) -> Tags:
    """Expect a page that works on a phone, in light and dark, without JavaScript and without any other file."""
    tags = Tags(page)
    assert "width=device-width" in tags.meta("viewport")
    assert {"light", "dark"} <= set(tags.meta("color-scheme").split())
    assert ("html", {"lang": "en"}) in tags.found
    for tag, attributes in tags.found:
        assert tag not in ("script", "link", "iframe", "img", "object", "embed", "base"), tag
        assert not {"src", "srcset", "action", "data", "background"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not attributes.get("href", "").startswith("javascript:")
    assert not re.search(r"@import|url\(", page)
    return tags


def expect_page(answer: Answer, status: int, *words: str) -> None:
    """Expect a page of ours with this status, with words for the visitor and for the owner, and the way to more."""
    assert answer.status == status, (answer, answer.error)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert "Is it yours?" in answer.body
    expect_plain(answer.body)
    for word in words:
        assert word in html.unescape(answer.body), word


def test_a_name_that_nobody_holds(visitor: Visitor, domain: str) -> None:
    """Over plain http, as no certificate exists for it: status 404, and the command that would open the tunnel."""
    command = f"ssh -p 2222 -o ExitOnForwardFailure=yes -NR {{}} tunnel@{domain}"
    for label, forward in (("guest-nobody", "guest-nobody:80:localhost:3000"), ("8099", "8099:localhost:80")):
        for label_or_local in (label, f"{label}--local"):
            answer = visitor.get(f"http://{label_or_local}.{domain}/some/path?a=b", http="1.1")
            words = (f"{label_or_local}.{domain}", command.format(forward), f"https://{domain}/")
            expect_page(answer, 404, *words)


@pytest.mark.parametrize("forward", ["guest-x:80", "8080"])
def test_a_name_that_nobody_holds_any_more(
    client: Client, web: Web, visitor: Visitor, domain: str, forward: str
) -> None:
    """Over https once it has a certificate: the page comes within 2 s after the end of the tunnel."""
    name = f"{forward.split(':')[0]}.{domain}"
    with client.tunnel(forward, to=web):
        for http in VERSIONS:
            assert visitor.get(f"https://{name}/", http=http).status == 200
    ended = time.monotonic()
    for http in VERSIONS:
        # Each worker of nginx looks for itself.
        while visitor.get(f"https://{name}/", http=http).status != 404:
            # What a look itself takes, on a busy machine, comes on top of the 2 s.
            assert time.monotonic() < ended + 2 + 1, "2 s after the end of the tunnel its name still answers"
    for http in VERSIONS:
        expect_page(visitor.get(f"https://{name}/", http=http), 404, name)
    expect_page(visitor.get(f"https://{name}/", method="POST", body=b"x" * 100_000), 404, name)


def test_any_method_to_a_dead_name(visitor: Visitor, domain: str) -> None:
    """A POST with a body gets the page too, and HEAD its status."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = visitor.get(f"http://guest-nobody.{domain}/", http="1.1", method=method, body=b"x" * 100_000)
        expect_page(answer, 404, f"guest-nobody.{domain}")
    assert visitor.get(f"http://guest-nobody.{domain}/", http="1.1", method="HEAD").status == 404


def test_a_service_that_is_down(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """The tunnel is open, but at its other end nobody listens: 502."""
    with client.tunnel(f"guest-x:80:{web.name}:9999", f"8080:{web.name}:9999"):
        for name in (f"guest-x.{domain}", f"8080.{domain}"):
            for method in ("GET", "POST"):
                answer = visitor.get(f"https://{name}/", method=method, body=b"x" if method == "POST" else None)
                expect_page(answer, 502, name, "The service behind")


def test_a_service_that_answers_what_cannot_be_passed_on(
    world: World, host: Host, client: Client, visitor: Visitor, domain: str
) -> None:
    """It is not said to be down: too many headers, interim answers, no HTTP, an answer that is broken off."""
    answers = {
        "headers": b"HTTP/1.1 200 OK\r\n" + b"X-Many: and one more of them, as it is\r\n" * 2000 + b"\r\n",
        "header": b"HTTP/1.1 200 OK\r\nSet-Cookie: " + b"x" * 70_000 + b"\r\n\r\n",
        "interim": b"HTTP/1.1 102 Processing\r\n\r\n",
        "half": b"HTTP/1.1 200 OK\r\nContent-",
        "ssh": b"SSH-2.0-OpenSSH_10.0\r\n",
    }
    url = f"https://guest-x.{domain}"
    with world.raw_service() as raw, client.tunnel("guest-x:80", to=raw):
        for name, answer in answers.items():
            raw.answers(name, answer)
            words = (f"guest-x.{domain}", "64 KB of headers")
            for way in (nullcontext(), host.past_the_edge(visitor)):
                with way:
                    expect_page(visitor.get(f"{url}/{name}"), 502, *words)
        until(
            "the edge leads there",
            lambda: visitor.get(url) and "X-Real-IP" in dict(raw.requests()[-1]["headers"]),
        )
        # What may not be asked twice is not, whoever asks. Caddy has a page of its own for it.
        for http in ("1.1", "2"):
            for way, said in ((nullcontext(), words), (host.past_the_edge(visitor), ("No answer", "may be no HTTP"))):
                with way:
                    answer = visitor.get(f"{url}/ssh", method="POST", body=b"x", http=http)
                    expect_page(answer, 502, *said)
                    assert "server" not in answer.headers


def test_a_request_that_is_too_large(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """By its address, one header or many of them."""
    name = f"guest-x.{domain}"
    with client.tunnel("guest-x:80", to=web):
        for headers, query, status in (
            ({}, "x" * 70_000, 414),
            ({"Cookie": "x" * 70_000}, "", 431),
            ({f"X-Many-{number}": "x" * 7_000 for number in range(25)}, "", 431),
        ):
            expect_page(
                visitor.get(f"https://{name}/?{query}", http="3", headers=headers), status, "too large", "64 KB"
            )
            # By hand: curl over HTTP/2 sends no more, and over 1.1 it fails at times ("bad length") on a busy machine.
            lines = [f"GET /?{query} HTTP/1.1", f"Host: {name}", "Connection: close"]
            lines += [f"{header}: {value}" for header, value in headers.items()]
            said = visitor.send(name, "\r\n".join([*lines, "", ""]).encode())
            assert said.startswith(f"HTTP/1.1 {status} "), said
            assert "too large" in said
            assert "64 KB" in said


def test_a_method_that_nobody_serves(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """TRACE is refused by nginx itself."""
    with client.tunnel("guest-x:80", to=web):
        expect_page(visitor.get(f"https://guest-x.{domain}/", method="TRACE"), 405, "method")


def test_nginx_is_away(host: Host, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """The front end has a page of its own, also for visitors whom the edge would have led there."""
    away = f"cd {host.sockets()} && mv visitors.sock visitors.sock.away && mv tls.sock tls.sock.away"
    back = f"cd {host.sockets()} && mv visitors.sock.away visitors.sock && mv tls.sock.away tls.sock"
    with client.tunnel("guest-x:80", to=web):
        url = f"https://guest-x.{domain}"
        until("the edge leads there", lambda: visitor.comes_by_edge(url))
        for way in (host.past_the_edge(visitor), nullcontext()):
            with way:
                host.shell(away).expect()
                try:
                    # What comes over a connection that is kept would still be served.
                    host.reload("proxme-tunnel-nginx")
                    for http in ("2", "1.1"):
                        answer = until(
                            "it is missed",
                            lambda http=http: (got := visitor.get(url, method="POST", http=http)).status != 200 and got,
                        )
                        expect_page(answer, 502, "No answer")
                    # A visitor who waits is served as soon as it is back.
                    visitor.spawn("sh", "-c", f"curl -sS --cacert /run/root.pem {url}/echo >/run/waited 2>&1")
                finally:
                    host.shell(back).expect()
                until("the visitor is served", lambda: '"service": "web"' in visitor.read("/run/waited"))
        assert visitor.get(url).status == 200


def test_a_service_that_comes_back(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """As soon as the service runs it is served through the same tunnel."""
    with client.tunnel("guest-x:80:localhost:3000"):
        expect_page(visitor.get(f"https://guest-x.{domain}/"), 502)
        client.spawn("web.py", "--port", "3000", "--name", "late")
        until("the service is served", lambda: "Hello from late." in visitor.get(f"https://guest-x.{domain}/").body)
        client.shell("pkill -f '[/]web.py --port 3000'").expect()
        until("the page says that it is down", lambda: visitor.get(f"https://guest-x.{domain}/").status == 502)


def test_a_service_that_is_silent(host: Host, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A service that took the request and doesn't answer: 504 after the time that the host grants."""
    settings = host.read("/etc/proxme-tunnel/nginx_subdomains/settings.lua")
    granted = int(re.findall(r"answer_timeout = (\d+)", settings)[0])
    assert granted <= 30, "set tunnel_answer_timeout for this scenario, or this test takes too long"
    with client.tunnel("guest-x:80", to=web):
        answer = visitor.get(f"https://guest-x.{domain}/silent", timeout=granted + 20)
        expect_page(answer, 504, f"guest-x.{domain}", f"{granted} seconds")
        assert answer.total >= granted
        # Shorter silence is none.
        assert visitor.get(f"https://guest-x.{domain}/slow?s={granted / 3}").body == "late\n"


def test_a_services_own_errors_pass_untouched(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A 404 or 502 that the service answers is its own, not ours."""
    with client.tunnel("guest-x:80", to=web):
        for status in (400, 404, 413, 429, 500, 502, 503, 504):
            answer = visitor.get(f"https://guest-x.{domain}/status/{status}")
            assert (answer.status, answer.body) == (status, f"status {status}\n")


def test_a_label_has_one_spelling(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Other spellings of a port (leading zeros, modulo 65536) and what no port is: 404, by any door."""
    with client.tunnel("8080", to=web):
        assert visitor.get(f"https://8080.{domain}/").status == 200
        for label in ("08080", "73616", "65536", "0", "8080-", "-8080", "8080--", "008080", "80800", "4294975376"):
            host = {"Host": f"{label}.{domain}"}
            expect_page(visitor.get(f"http://8080.{domain}/", http="1.1", headers=host), 404)
            # With the certificate of the live name, too.
            expect_page(visitor.get(f"https://8080.{domain}/", headers=host), 404)


def test_a_host_that_is_no_name_of_ours(
    host: Host, client: Client, web: Web, visitor: Visitor, scenario: Scenario, domain: str
) -> None:
    """A host outside the domain, a deeper name, an address: 404; bare domain, www, reserved labels: no tunnel."""
    with client.tunnel("80", "guest-x:80", to=web):
        until("the edge leads there", lambda: visitor.comes_by_edge(f"https://guest-x.{domain}"))
        strangers = ["example.com", f"guest-x.{domain}.example.com", f"a.guest-x.{domain}", f"guest-x{domain}"]
        strangers += [scenario.host_address, "localhost", "127.0.0.1", f"public.{domain}", f"localhost.{domain}"]
        strangers += [
            f"public--local.{domain}",
            f"localhost--local.{domain}",
            f"guest_x.{domain}",
            f"127-0-0-1.{domain}",
        ]
        for name in strangers:
            for url, http in ((f"http://guest-x.{domain}/", "1.1"), (f"https://guest-x.{domain}/", "2")):
                answer = visitor.get(url, http=http, headers={"Host": name})
                expect_page(answer, 404)
        for name in (domain, f"www.{domain}"):
            for url, http in ((f"http://guest-x.{domain}/", "1.1"), (f"https://guest-x.{domain}/", "2")):
                with host.past_the_edge(visitor):
                    answer = visitor.get(url, http=http, headers={"Host": name})
                assert answer.status in (200, 308)
                assert "Hello from" not in answer.body
                # Whom the edge has led to nginx is told to come again.
                if url.startswith("https:"):
                    assert visitor.get(url, http=http, headers={"Host": name}).status == 421
        # Nobody can stand behind a reserved label either.
        for label in ("www", "public", domain, f"www.{domain}"):
            refused = client.tunnel(f"{label}:80", to=web, wait=False)
            assert refused.wait_ended() != 0
            assert refused.refused(), label


def test_other_spellings_of_a_live_name(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Upper case, a trailing dot and a port in Host are the same name."""
    with client.tunnel("guest-x:80", to=web):
        for name in (f"GUEST-X.{domain.upper()}", f"guest-x.{domain}.", f"guest-x.{domain}:443"):
            for http in VERSIONS:
                answer = visitor.get(f"https://guest-x.{domain}/echo", http=http, headers={"Host": name})
                assert answer.status == 200, (name, http, answer.error)
                assert answer.sent("Host") == [f"guest-x.{domain}"]
            answer = visitor.get(f"http://guest-x.{domain}/a", http="1.1", headers={"Host": name})
            assert (answer.status, answer.headers["location"]) == (308, f"https://guest-x.{domain}/a")
        assert visitor.get(f"https://GUEST-X.{domain}./").status == 200


def test_a_page_repeats_nothing_dangerous(visitor: Visitor, domain: str) -> None:
    """Whatever a visitor writes into Host, path or query, no markup of theirs is on the page."""
    for name in (f"<b>x</b>.{domain}", f'"><script>x</script>.{domain}', f"guest-x<b>.{domain}", "{host}", "%3Cb%3E"):
        answer = visitor.get(f"http://guest-x.{domain}/<b>x</b>?<script>", http="1.1", headers={"Host": name})
        assert answer.status in (400, 404), name
        assert not [tag for tag, _ in Tags(answer.body).found if tag in ("b", "script")], name


def test_the_landing_page(client: Client, visitor: Visitor, domain: str) -> None:
    """The bare domain shows what to type, with this host's domain and port, and its host keys' fingerprints."""
    for http in VERSIONS:
        answer = visitor.get(f"https://{domain}/", http=http)
        assert (answer.status, answer.version) == (200, http), answer.error
    assert answer.headers["content-type"].startswith("text/html")
    expect_plain(answer.body)
    text = html.unescape(answer.body)
    assert f"ssh -p 2222 -o ExitOnForwardFailure=yes -NR 8080:localhost:80 tunnel@{domain}" in text
    for words in ("-R 0:localhost:80", "-R guest-x:80:localhost:3000", "-R guest-x:443:localhost:8443", "ServerAlive"):
        assert words in text, words
    for label in ("8080", "guest-x", "8080--local", "guest-x--local"):
        assert f"https://{label}.{domain}" in text, label
    scan = f"ssh-keyscan -p 2222 {domain} 2>/dev/null | ssh-keygen -lf -"
    seen = client.shell(scan).expect().stdout.splitlines()
    # 256 SHA256:… [proxme.test]:2222 (ED25519)
    keys = {(line.split()[1], line.split()[-1]) for line in seen}
    assert {kind for _, kind in keys} == {"(ED25519)", "(RSA)"}
    shown = {(line.split()[1], line.split()[-1]) for line in text.splitlines() if re.search(r"SHA256:", line)}
    assert {(re.sub(r"<.*?>", "", key), re.sub(r"<.*?>", "", kind)) for key, kind in shown} == keys


def test_every_way_to_the_landing_page(visitor: Visitor, domain: str) -> None:
    """http:// and www. lead there."""
    for url in (f"http://{domain}/", f"http://www.{domain}/", f"https://www.{domain}/"):
        answer = visitor.get(url, http="1.1")
        assert (answer.status, answer.headers["location"]) == (308, f"https://{domain}/"), (url, answer.error)


def test_no_header_says_what_the_host_is_made_of(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Neither on our own pages nor on those of a tunnel."""
    with client.tunnel("guest-x:80", to=web):
        for url in (
            f"https://guest-x.{domain}/",
            f"https://{domain}/",
            f"http://{domain}/",
            f"http://guest-no.{domain}/",
        ):
            answer = visitor.get(url, http="1.1")
            assert answer.status in (200, 308, 404), (url, answer.error)
            assert not {"server", "via", "x-powered-by"} & answer.headers.keys(), (url, answer.headers)


def test_nothing_else_is_on_the_bare_domain(visitor: Visitor, domain: str) -> None:
    """A path that is no page there."""
    for http in VERSIONS:
        expect_page(visitor.get(f"https://{domain}/robots.txt", http=http), 404, "No answer", f"https://{domain}/")
