# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that answer only to localhost: PORT--local and NAME--local, tried with a real Jupyter and a real Django."""

import json
import re
from collections.abc import Iterator

import pytest
from world import Answer, Client, Scenario, Visitor, Web, World, until

# A Django with its checks as they come: ALLOWED_HOSTS, and Origin and token of a POST.
DJANGO = """
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path
settings.configure(
    ALLOWED_HOSTS=["localhost"], SECRET_KEY="test", ROOT_URLCONF=__name__, CSRF_COOKIE_DOMAIN="localhost",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"])
def form(request):
    return HttpResponse("saved" if request.method == "POST" else get_token(request))
def login(request):
    return HttpResponseRedirect(request.build_absolute_uri("/form?next=1"))
urlpatterns = [path("form", form), path("login", login)]
execute_from_command_line(["django", "runserver", "--noreload", "127.0.0.1:8000"])
"""

# Opens a WebSocket as pages of these origins do; prints the status of each answer.
OPEN_WEBSOCKETS = """
import asyncio, ssl, sys, websockets
async def main():
    tls = ssl.create_default_context(cafile="/run/root.pem")
    for origin in sys.argv[2:]:
        try:
            async with websockets.connect(sys.argv[1], ssl=tls, origin=origin):
                print(101)
        except websockets.exceptions.InvalidStatus as error:
            print(error.response.status_code)
asyncio.run(main())
"""


def open_websockets(visitor: Visitor, url: str, *origins: str) -> dict[str, int]:
    """By origin: status of the answer to a WebSocket handshake from a page of it; 101 if it was accepted."""
    result = visitor.exec("python3", "-", url, *origins, stdin=OPEN_WEBSOCKETS.encode()).expect()
    return dict(zip(origins, map(int, result.stdout.split()), strict=True))


def foreign_origins(own: str) -> list[str]:
    """Origins that aren't this one, though some look like it; `own` is a host name with --local."""
    plain = re.sub("--local(-8000)?", "", own)
    hosts = ["evil.example", f"{own}.evil.example", f"evil.example.{own}", f"a.{own}", plain, f"{own}:8443"]
    hosts.append(own.replace("--local", "--local-1", 1))
    return [f"https://{host}" for host in hosts] + [f"http://{own}", "null", f"https://{own}@evil.example"]


@pytest.fixture(scope="module")
def owner(scenario: Scenario) -> Iterator[Client]:
    """A machine on which Jupyter runs at localhost:8888 and Django at localhost:8000, both only for localhost."""
    with World(scenario).with_image("local-servers").client("owner") as owner:
        owner.write("/run/site.py", DJANGO)
        owner.spawn("sh", "-c", "exec python3 /run/site.py >/run/django.log 2>&1")
        jupyter = "jupyter-server --allow-root --no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port=8888"
        jupyter += " --IdentityProvider.token= --ServerApp.password= --ServerApp.root_dir=/tmp"
        owner.spawn("sh", "-c", f"HOME=/root exec {jupyter} >/run/jupyter.log 2>&1")
        for url in ("http://localhost:8888/api", "http://localhost:8000/form"):
            until(f"{url} answers", lambda url=url: owner.exec("curl", "-sSf", url).code == 0, within=60)
        yield owner


@pytest.mark.parametrize(("label", "forward"), [("8888", "8888"), ("guest-jupyter", "guest-jupyter:80")])
def test_jupyter(owner: Client, visitor: Visitor, domain: str, label: str, forward: str) -> None:
    """Jupyter refuses its public name, works under --local, and keeps foreign pages out of its WebSockets there."""
    own = f"{label}--local.{domain}"
    with owner.tunnel(f"{forward}:localhost:8888"):
        assert visitor.get(f"https://{label}.{domain}/api").status == 403, "this Jupyter is no test: it takes any Host"
        for http in ("1.1", "2", "3"):
            answer = visitor.get(f"https://{own}/api", http=http)
            assert answer.status == 200, answer.body
            assert "version" in answer.json()
        socket = f"wss://{own}/api/events/subscribe"
        origins = foreign_origins(own)
        expected = {f"https://{own}": 101, **dict.fromkeys(origins, 403)}
        assert open_websockets(visitor, socket, f"https://{own}", *origins) == expected


@pytest.mark.parametrize(("label", "forward"), [("8000", "8000"), ("guest-django", "guest-django:80")])
def test_django(owner: Client, visitor: Visitor, domain: str, label: str, forward: str) -> None:
    """Django refuses its public name, and works under --local: redirects, cookies and forms, but no foreign form."""
    own = f"{label}--local.{domain}"
    with owner.tunnel(f"{forward}:localhost:8000"):
        assert visitor.get(f"https://{label}.{domain}/form").status == 400, "this Django is no test: it takes any Host"

        answer = visitor.get(f"https://{own}/login")
        assert (answer.status, answer.headers["location"]) == (302, f"https://{own}/form?next=1")

        answer = visitor.get(f"https://{own}/form")
        assert answer.status == 200
        cookie = answer.headers["set-cookie"]
        assert not re.search("domain", cookie, re.IGNORECASE), cookie
        filled = {"Cookie": cookie.split(";")[0], "X-CSRFToken": answer.body}

        def post(origin: str) -> Answer:
            return visitor.get(f"https://{own}/form", method="POST", body=b"", headers={**filled, "Origin": origin})

        assert (post(f"https://{own}").status, post(f"https://{own}").body) == (200, "saved")
        for origin in foreign_origins(own):
            assert post(origin).status == 403, origin


@pytest.fixture(scope="module")
def locals_(world: World, web: Web, domain: str) -> Iterator[dict[str, str]]:
    """A tunnel with both kinds of label; the host names with --local, and what the service is to be told as Host."""
    with world.client() as client, client.tunnel("8080", "guest-x:80", to=web):
        yield {
            f"8080--local.{domain}": "localhost:8080",
            f"guest-x--local.{domain}": "localhost",
            f"guest-x--local-8000.{domain}": "localhost:8000",
        }


def test_the_service_believes_to_be_localhost(locals_: dict[str, str], visitor: Visitor) -> None:
    """Host is localhost, with the port where the label is one, and no other header says otherwise."""
    for own, told in locals_.items():
        for http in ("1.1", "2", "3"):
            answer = visitor.get(f"https://{own}/echo/a?b=c", http=http)
            assert answer.status == 200, answer.error
            assert answer.sent("Host") == [told]
            assert answer.json()["path"] == "/echo/a?b=c"
            named = [name for name, value in answer.json()["headers"] if own in value]
            assert named == []
            assert answer.sent("X-Forwarded-Proto") in ([], ["http"])


def test_own_origin_and_referer_become_localhost(locals_: dict[str, str], visitor: Visitor) -> None:
    """What this very host's pages send is what the service would see at home."""
    for own, told in locals_.items():
        headers = {"Origin": f"https://{own}", "Referer": f"https://{own}/a/page?q=https://{own}/"}
        answer = visitor.get(f"https://{own}/echo", headers=headers)
        assert answer.sent("Origin") == [f"http://{told}"]
        assert answer.sent("Referer") == [f"http://{told}/a/page?q=https://{own}/"]
        assert visitor.get(f"https://{own}/origin", headers=headers).status == 200


def test_foreign_origin_and_referer_stay(locals_: dict[str, str], visitor: Visitor) -> None:
    """A foreign page is foreign to the service as well."""
    for own in locals_:
        for origin in foreign_origins(own):
            headers = {"Origin": origin, "Referer": f"{origin}/page"}
            answer = visitor.get(f"https://{own}/echo", headers=headers)
            assert answer.sent("Origin") == [origin]
            assert answer.sent("Referer") == [f"{origin}/page"]
        assert visitor.get(f"https://{own}/origin", headers=headers).status == 403
        neither = visitor.get(f"https://{own}/echo")
        assert (neither.sent("Origin"), neither.sent("Referer")) == ([], [])
        twice = visitor.get(
            f"https://{own}/echo", options=["-H", "Origin: https://evil.example", "-H", f"origin: https://{own}"]
        )
        assert twice.status == 400 or "http://localhost" not in json.dumps(twice.json()["headers"])


def test_a_page_of_the_visitors_own_localhost_is_foreign(locals_: dict[str, str], visitor: Visitor) -> None:
    """It names itself like the service does, and must not be taken for one of the service's pages."""
    for own, told in locals_.items():
        headers = {"Origin": f"http://{told}", "Referer": f"http://{told}/page"}
        answer = visitor.get(f"https://{own}/echo", headers=headers)
        assert answer.sent("Origin") == ["null"]
        assert answer.sent("Referer") == []
        assert visitor.get(f"https://{own}/origin", headers=headers).status == 403


def test_redirects_lead_back_to_the_visited_host(locals_: dict[str, str], visitor: Visitor) -> None:
    """Location is mended where it names the service itself, and nowhere else."""
    for own, told in locals_.items():
        at_home = [told, told.replace("localhost", "127.0.0.1")]
        mended = {
            f"http://{host}{path}": f"https://{own}{path}" for host in at_home for path in ("/a/b?c=d#e", "", "?x")
        }
        same = ["/a?b", "b/c", "https://example.com/x", "http://localhost:9999/", "http://localhost.example.com/"]
        same += ["//example.com/x", f"http://example.com/?to=http://{told}/", f"http://{told}@example.com/"]
        same += [f"http://{told}0.example.com/", "mailto:a@localhost"]
        for to, location in {**mended, **dict.fromkeys(same)}.items():
            answer = visitor.get(f"https://{own}/redirect", options=["-G", "--data-urlencode", f"to={to}"])
            assert (answer.status, answer.headers["location"]) == (302, location or to)


def test_further_headers_that_name_the_host_are_mended(locals_: dict[str, str], visitor: Visitor) -> None:
    """In both directions: what WebDAV sends, and what an answer says of its own address (docs/how-it-works.md)."""
    for own, told in locals_.items():
        asked = {"Destination": "{}/b", "If": "<{}/a> (<urn:uuid:1>)", "Link": "<{}/c>; rel=up", "Alt-Used": own}
        answer = visitor.get(
            f"https://{own}/echo", headers={key: value.format(f"https://{own}") for key, value in asked.items()}
        )
        del asked["Alt-Used"]
        for name, value in asked.items():
            assert answer.sent(name) == [value.format(f"http://{told}")]
        assert answer.sent("Alt-Used") == []
        said = {
            "content-location": "{}/a",
            "refresh": "5; url={}/a",
            "link": "<{}/a>; rel=next, <https://example.com/?{}>",
            "www-authenticate": 'Bearer resource_metadata="{}/a"',
            "access-control-allow-origin": "{}",
            "content-security-policy": "default-src 'self' {}",
        }
        given = {name: value.replace("{}", f"http://{told}") for name, value in said.items()}
        options = [word for name, value in given.items() for word in ("--data-urlencode", f"{name}={value}")]
        answer = visitor.get(f"https://{own}/headers", options=["-G", *options])
        for name, value in said.items():
            mended = value.replace("{}", f"https://{own}", 1).replace("{}", f"http://{told}")
            assert answer.headers[name] == mended


def test_a_redirect_to_plain_http_of_the_visited_host_leads_to_https(
    locals_: dict[str, str], visitor: Visitor, domain: str
) -> None:
    """Most services take their visitors to come by http, as they do themselves; browsers would block it."""
    for own in (f"guest-x.{domain}", f"8080.{domain}"):
        assert visitor.get(f"https://{own}/redirect").headers["location"] == f"https://{own}/echo/there"
        for other in (
            f"http://{domain}/",
            f"http://{own}:8080/",
            f"http://a.{own}/",
            f"http://example.com/?http://{own}/",
        ):
            answer = visitor.get(f"https://{own}/redirect", options=["-G", "--data-urlencode", f"to={other}"])
            assert answer.headers["location"] == other


def test_cookies_belong_to_the_visited_host(locals_: dict[str, str], visitor: Visitor) -> None:
    """Set-Cookie loses the Domain localhost, keeps all else, and stays as it is where it names another domain."""
    for own in locals_:
        for domain in ("localhost", ".localhost", "LOCALHOST"):
            answer = visitor.get(f"https://{own}/cookie?domain={domain}")
            assert answer.headers["set-cookie"] == "taste=sweet; Path=/"
        for domain in ("example.com", "localhost.example.com", "notlocalhost"):
            answer = visitor.get(f"https://{own}/cookie?domain={domain}")
            assert answer.headers["set-cookie"] == f"taste=sweet; Path=/; Domain={domain}"
        several = ["a=1; Domain=localhost; Path=/; HttpOnly", "b=2; Secure; domain=localhost", "c=3; SameSite=Lax"]
        options = ["-G", *(word for cookie in several for word in ("--data-urlencode", f"Set-Cookie={cookie}"))]
        answer = visitor.get(f"https://{own}/headers", options=options)
        kept = [value for name, value in answer.all_headers if name == "set-cookie"]
        assert kept == ["a=1; Path=/; HttpOnly", "b=2; Secure", "c=3; SameSite=Lax"]


def test_without_local_nothing_is_mended(locals_: dict[str, str], visitor: Visitor) -> None:
    """The same tunnel under its plain name passes everything as it is."""
    for own in locals_:
        plain = re.sub("--local(-8000)?", "", own)
        headers = {"Origin": f"https://{plain}", "Referer": f"https://{plain}/page"}
        answer = visitor.get(f"https://{plain}/echo", headers=headers)
        assert answer.sent("Host") == [plain]
        assert answer.sent("Origin") == [f"https://{plain}"]
        assert answer.sent("Referer") == [f"https://{plain}/page"]
        to = "http://localhost/a"
        assert visitor.get(f"https://{plain}/redirect?to={to}").headers["location"] == to
        cookie = visitor.get(f"https://{plain}/cookie?domain=localhost").headers["set-cookie"]
        assert cookie == "taste=sweet; Path=/; Domain=localhost"


def test_a_websocket_passes_under_local(locals_: dict[str, str], visitor: Visitor) -> None:
    """Echo, as under the plain name."""
    for own in locals_:
        assert visitor.websocket(f"wss://{own}/ws", "one", "two")["answers"] == ["one", "two"]
