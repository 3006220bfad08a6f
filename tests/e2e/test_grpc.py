# SPDX-License-Identifier: GPL-3.0-or-later
"""Services that speak HTTP/2 without TLS: a real gRPC server with a real client, and a web server."""

import json
from collections.abc import Iterator

import pytest
from world import Client, Scenario, Visitor, World, until

# Longer than an ordinary request may be silent (tunnel_answer_timeout).
QUIET = 11


@pytest.fixture(scope="module")
def world(scenario: Scenario) -> World:
    """A world in which all machines have gRPC."""
    return World(scenario).with_image("grpc")


@pytest.fixture(scope="module")
def owner(world: World) -> Iterator[Client]:
    """A machine on which a gRPC service listens at port 50051, and a web server that speaks HTTP/2 alone at 8081."""
    with world.client("owner") as owner, owner.background("grpc_service.py", "50051", "/run/gone"):
        owner.shell("mkdir -p /srv/web; echo by HTTP/2 >/srv/web/page").expect()
        owner.spawn("nghttpd", "--no-tls", "--htdocs=/srv/web", "8081")
        for port in (50051, 8081):
            until(f"port {port} answers", lambda port=port: owner.exec("nc", "-z", "localhost", str(port)).code == 0)
        yield owner


@pytest.fixture(scope="module")
def visitor(world: World) -> Iterator[Visitor]:
    """A visitor with gRPC."""
    with world.visitor() as visitor:
        yield visitor


def test_grpc(owner: Client, visitor: Visitor, domain: str) -> None:
    """Unary calls, streams in both directions, metadata and trailers, statuses, deadlines, and silence."""
    with owner.tunnel("guest-grpc:80:localhost:50051"):
        name = f"guest-grpc.{domain}"
        until("the name has a certificate", lambda: visitor.get(f"https://{name}/").status)
        heard = json.loads(visitor.python("grpc_visitor.py", name, "/run/root.pem", str(QUIET)).expect().stdout)
        told = heard.pop("told")
        assert heard.pop("waited") < 2
        assert heard == {
            "echo": 3_000_000,
            "first": "1",
            "last": ["2", True],
            "many": 100,
            "fail": ["NOT_FOUND", "no such thing: ä%"],
            "unknown": "UNIMPLEMENTED",
            "count": True,
            "sum": 499_500,
            "wait": "DEADLINE_EXCEEDED",
            "talk": ["first", "after", []],
            "talked": "OK",
        }
        assert 0 < told["left"] < 22
        metadata = dict(told["metadata"])
        assert metadata["x-word"] == "here"
        assert metadata["x-forwarded-host"] == f"{name}:443"
        until("the service hears that the deadline is over", lambda: owner.read("/run/gone") == "gone")


def test_a_grpc_service_that_is_down(owner: Client, visitor: Visitor, domain: str) -> None:
    """The client is told to try again."""
    script = """if True:
        import grpc, sys
        root = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
        channel = grpc.secure_channel(sys.argv[1] + ":443", root)
        try:
            channel.unary_unary("/test/Echo")(b"")
        except grpc.RpcError as error:
            print(error.code().name)
    """
    with owner.tunnel("guest-grpc:80:localhost:9999"):
        assert visitor.get(f"https://guest-grpc.{domain}/").status == 502
        said = visitor.exec("python3", "-c", script, f"guest-grpc.{domain}", "/run/root.pem").expect().stdout
        assert said == "UNAVAILABLE\n"


@pytest.mark.parametrize(("forward", "label"), [("guest-h2:80", "guest-h2"), ("8080", "8080")])
def test_a_web_server_that_speaks_http_2_alone(
    owner: Client, visitor: Visitor, domain: str, forward: str, label: str
) -> None:
    """It is found out by the first visit, and that visitor does not notice."""
    with owner.tunnel(f"{forward}:localhost:8081"):
        for http in ("1.1", "2", "3"):
            answer = visitor.get(f"https://{label}.{domain}/page", http=http)
            assert (answer.status, answer.body) == (200, "by HTTP/2\n"), answer.error
        assert visitor.get(f"https://{label}.{domain}/missing").status == 404
        # Another one takes the name, who speaks HTTP/1.
        owner.shell("pkill nghttpd; until ! nc -z localhost 8081; do sleep 0.1; done").expect()
        owner.spawn("python3", "-m", "http.server", "8081", "--directory", "/srv/web")
        until("that one answers", lambda: visitor.get(f"https://{label}.{domain}/page").body == "by HTTP/2\n")
        owner.shell("pkill -f '[h]ttp.server 8081'; until ! nc -z localhost 8081; do sleep 0.1; done").expect()
        assert visitor.get(f"https://{label}.{domain}/page").status == 502
        owner.spawn("nghttpd", "--no-tls", "--htdocs=/srv/web", "8081")
        until("it listens again", lambda: owner.exec("nc", "-z", "localhost", "8081").code == 0)
        # Whoever it was before, it was seen to be down in between. By now visitors come by the edge.
        for http in ("1.1", "2"):
            answer = visitor.get(f"https://{label}.{domain}/page", http=http)
            assert (answer.status, answer.body) == (200, "by HTTP/2\n"), answer.error


@pytest.mark.parametrize("http", ["1.1", "2"])
def test_a_web_server_that_speaks_http_2_alone_from_now_on(
    owner: Client, visitor: Visitor, domain: str, http: str
) -> None:
    """Within the minute for which it is believed to speak HTTP/1, one visitor is told so, and does not wait."""
    url = f"https://guest-later.{domain}/"
    with owner.tunnel("guest-later:80:localhost:8082"):
        owner.spawn("python3", "-m", "http.server", "8082", "--directory", "/srv/web")
        try:
            # The first one comes by Caddy.
            until("it answers", lambda: visitor.get(url, http=http).status == 200)
            assert visitor.get(url, http=http).status == 200
        finally:
            owner.shell("pkill -f '[h]ttp.server 8082'; until ! nc -z localhost 8082; do sleep 0.1; done").expect()
        owner.spawn("nghttpd", "--no-tls", "--htdocs=/srv/web", "8082")
        try:
            until("it listens again", lambda: owner.exec("nc", "-z", "localhost", "8082").code == 0)
            answer = visitor.get(url, http=http)
            assert (answer.status, answer.error) == (502, ""), answer
            assert answer.total < 5
            assert "<h1>" in answer.body
            until("the next one is served", lambda: visitor.get(f"{url}page", http=http).body == "by HTTP/2\n")
        finally:
            owner.shell("pkill -f '[n]ghttpd.*8082'").expect()
