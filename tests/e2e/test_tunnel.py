# SPDX-License-Identifier: GPL-3.0-or-later
"""The main path: whoever opens a tunnel has an HTTPS address."""

import itertools
import json

import pytest
from world import Client, Host, Visitor, Web, World, until

VERSIONS = ["1.1", "2", "3"]


@pytest.mark.parametrize(("forward", "label"), [("8080", "8080"), ("guest-x:80", "guest-x")])
def test_a_forward_becomes_an_address(
    client: Client, web: Web, visitor: Visitor, domain: str, forward: str, label: str
) -> None:
    """-R 8080:… answers at https://8080.<domain>, -R guest-x:80:… at https://guest-x.<domain>, in each HTTP."""
    with client.tunnel(forward, to=web):
        for http in VERSIONS:
            answer = visitor.get(f"https://{label}.{domain}/echo/here?a=b", http=http)
            assert (answer.status, answer.version) == (200, http), answer.error
            assert answer.json()["service"] == "web"
            assert answer.json()["path"] == "/echo/here?a=b"
            assert answer.sent("Host") == [f"{label}.{domain}"]


def test_the_server_chooses_a_port_and_the_client_prints_it(
    client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """-R 0:… answers at the port that ssh prints."""
    with client.tunnel("0", to=web) as tunnel:
        [port] = tunnel.ports
        assert visitor.get(f"https://{port}.{domain}/").status == 200


def test_the_full_host_name_is_the_same_name(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """-R guest-x.<domain>:80:… is what people type, too; it's no second way to the name."""
    with client.tunnel(f"guest-x.{domain}:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        second = client.tunnel("guest-x:80", to=web, wait=False)
        assert second.wait_ended() != 0
        assert second.refused()


def test_several_forwards_share_a_connection(world: World, client: Client, web: Web, visitor: Visitor, domain: str):
    """Several -R in one connection each have their address, and each leads to its own service."""
    with world.web("web-two") as two:
        forwards = [f"8081:{web}", f"guest-one:80:{web}", f"guest-two:80:{two}", f"0:{two}"]
        with client.tunnel(*forwards) as tunnel:
            services = {"8081": "web", "guest-one": "web", "guest-two": "web-two", str(tunnel.ports[0]): "web-two"}
            for label, service in services.items():
                answer = visitor.get(f"https://{label}.{domain}/")
                assert answer.status == 200, label
                assert f"Hello from {service}." in answer.body, label


def test_every_port_is_a_label_like_any_other(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """2222 and 53, where sshd and the resolver listen in their own corners, are free for tunnels."""
    dead = [visitor.get(f"http://{port}.{domain}/", http="1.1").status for port in (2222, 53)]
    assert dead == [404, 404]
    with client.tunnel("2222", "53", to=web):
        for port in (2222, 53):
            answer = visitor.get(f"https://{port}.{domain}/echo")
            assert answer.status == 200, answer.error
            assert answer.json()["service"] == "web"
        # sshd and the resolver are at work as before.
        with client.tunnel("guest-x:80", to=web):
            assert visitor.get(f"https://guest-x.{domain}/").status == 200


def test_a_service_that_speaks_tls(world: World, client: Client, visitor: Visitor, domain: str) -> None:
    """-R guest-x:443:… is dialled with TLS when the name has no port 80; its own certificate isn't verified."""
    with world.web("web-tls", 443, "--tls") as service, client.tunnel("guest-tls:443", to=service):
        answer = visitor.get(f"https://guest-tls.{domain}/echo")
        assert answer.status == 200, answer.error
        assert answer.json()["service"] == "web-tls"
        assert answer.sent("X-Forwarded-Proto") == ["https"]
        assert visitor.websocket(f"wss://guest-tls.{domain}/ws", "one")["answers"] == ["one"]


def test_port_80_of_a_name_comes_before_its_port_443(
    world: World, client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """Somebody who opens both ports of a name at once is visited at port 80."""
    with world.web("web-tls", 443, "--tls") as service:
        both = client.tunnel(f"guest-both:443:{service}", f"guest-both:80:{web}")
        for _ in range(3):
            assert visitor.get(f"https://guest-both.{domain}/echo").json()["service"] == "web"
        both.stop()


def test_a_service_is_told_who_visits(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """X-Forwarded-* and X-Real-IP say who came and over what; what a visitor forges is replaced."""
    address = visitor.exec("hostname", "-i").expect().stdout.strip()
    forged = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Real-IP": "203.0.113.7",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "forged.example",
        "Forwarded": "for=203.0.113.7;host=forged.example",
        "x-forwarded-for": "203.0.113.8",
    }
    with client.tunnel("guest-x:80", to=web):
        for http, headers in itertools.product(VERSIONS, ({}, forged)):
            answer = visitor.get(f"https://guest-x.{domain}/echo", http=http, headers=headers)
            assert answer.status == 200, answer.error
            assert answer.sent("X-Forwarded-For") == [address]
            assert answer.sent("X-Real-IP") == [address]
            assert answer.sent("Via") == []
            assert answer.sent("X-Forwarded-Proto") == ["https"]
            assert answer.sent("X-Forwarded-Host") == [f"guest-x.{domain}"]
            for lie in ("203.0.113", "gopher", "forged.example"):
                assert lie not in answer.body


def test_headers_with_any_name_reach_the_service(world: World, client: Client, visitor: Visitor, domain: str) -> None:
    """With _ or . those that the operator lets in, but nothing that WSGI or PHP take for a header of the host's own."""
    passed = {"user_id": "1", "x.api.version": "2", "A~b": "3"}
    lies = ["X_Forwarded_For", "X-Forwarded~For", "x.forwarded.for", "X_Real_IP", "X~Real~IP", "X!Tunnel!Plain"]
    with world.raw_service() as raw, client.tunnel("guest-x:80", to=raw):
        for http in VERSIONS:
            raw.forget()
            sent = passed | dict.fromkeys(lies, "203.0.113.7")
            assert visitor.get(f"https://guest-x.{domain}/", http=http, headers=sent).status == 200
            [request] = raw.requests()
            told = {name.lower(): value for name, value in request["headers"]}
            assert {name: told.get(name.lower()) for name in passed} == passed
            assert "203.0.113.7" not in told.values()


def test_64_kb_of_headers_pass(world: World, client: Client, visitor: Visitor, domain: str) -> None:
    """In the address, in one header, or in many."""
    with world.raw_service() as raw, client.tunnel("guest-x:80", to=raw):
        for http in VERSIONS:
            for headers, query in (
                ({"Cookie": "x" * 63_000}, ""),
                ({f"X-Many-{number}": "x" * 5_000 for number in range(12)}, ""),
                ({}, "x" * 63_000),
                ({"Cookie": "x" * 31_000}, "x" * 32_000),
            ):
                raw.forget()
                answer = visitor.get(f"https://guest-x.{domain}/none/?{query}", http=http, headers=headers)
                assert answer.status == 200, (http, answer.error, answer.body[:100])
                [request] = raw.requests()
                told = {name.lower(): value for name, value in request["headers"]}
                assert {name: told[name.lower()] for name in headers} == headers
                assert request["line"] == f"GET /none/{query and '?' + query} HTTP/1.1"


def test_a_service_that_closes_a_connection_which_is_used_again_loses_no_visitor(
    client: Client, visitor: Visitor, domain: str
) -> None:
    """What may be asked twice is; what may not is asked once."""
    asked = ["GET"] * 5 + ["POST"] * 5 + ["GET", "POST", "PUT"] * 3
    with client.background("one_each.py", "3000", "/run/asked"), client.tunnel("guest-x:80:localhost:3000"):
        url = f"https://guest-x.{domain}/"
        until("it is served", lambda: visitor.get(url).body == "once")
        client.write("/run/asked", "")
        # In one go, so that connections are still kept.
        script = "; ".join(
            f"curl -sS -o /dev/null -w '%{{http_code}}\n' --cacert /run/root.pem -X {method} {url}"
            + (" -d body" if method != "GET" else "")
            for method in asked
        )
        assert visitor.shell(script).expect().stdout.split() == ["200"] * len(asked)
        assert client.read("/run/asked").split() == asked


def test_plain_http_leads_to_https(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """http:// redirects to https://, same host, path and query; 308 keeps the method."""
    path = "/echo/a%20b/%2e%2e/c?d=e&f=%26&g"
    with client.tunnel("guest-x:80", to=web):
        for method in ("GET", "POST"):
            url = f"http://guest-x.{domain}{path}"
            answer = visitor.get(url, http="1.1", method=method, options=["--path-as-is"])
            assert answer.status == 308
            assert answer.headers["location"] == f"https://guest-x.{domain}{path}"


@pytest.mark.parametrize("end", ["Ctrl-C", "kill -9"])
def test_a_name_is_free_at_once_when_its_client_ends(
    client: Client, web: Web, visitor: Visitor, domain: str, end: str
) -> None:
    """The same command can be typed again at once, and is served again at the same addresses."""
    for _ in range(3):
        tunnel = client.tunnel("8080", "guest-x:80", to=web)
        assert visitor.get(f"https://8080.{domain}/").status == 200
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        if end == "kill -9":
            tunnel.kill()
        else:
            tunnel.stop()


def test_the_address_ends_with_the_tunnel(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A name that nobody holds any more gets a page that says so."""
    with client.tunnel("guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
    until("the name is nobody's", lambda: visitor.get(f"https://guest-x.{domain}/").status == 404, within=3)


def test_the_host_is_reached_over_ipv6_as_well(host: Host, domain: str) -> None:
    """As by an AAAA record: visitors, clients of ssh and public ports. Docker's proxy turns it into IPv4."""
    answers = json.loads(host.python("over_ipv6.py", domain, "80", "443", "443/ssh", "2222").expect().stdout)
    assert answers["80"].startswith("HTTP/1.")
    assert answers["443"].startswith("HTTP/1.")
    assert answers["tls"].startswith("HTTP/1.")
    assert answers["2222"].startswith("SSH-2.0-")
    assert answers["443/ssh"].startswith("SSH-2.0-")
    assert "tcp [::]:30000" in host.listening()
