# SPDX-License-Identifier: GPL-3.0-or-later
"""The attacks of which docs and design say that they worked once: each is tried, and harms nobody.

Each test fails when its cure (named in its docstring) is taken away.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from world import INSIDE, Client, Host, RawService, Scenario, Tunnel, Visitor, Web, World, until

SSHD, NGINX, NAMES, POD = (f"proxme-tunnel-{name}" for name in ("sshd", "nginx", "resolver", "network"))


@pytest.fixture(scope="module")
def raw(world: World) -> Iterator[RawService]:
    """A service of an attacker."""
    with world.raw_service() as raw:
        yield raw


@pytest.fixture(scope="module")
def _holder(world: World) -> Iterator[Client]:
    with world.client("holder") as client:
        yield client


@pytest.fixture(scope="module")
def raw_tunnel(_holder: Client, raw: RawService, visitor: Visitor, domain: str) -> RawService:
    """The raw service, open as guest-raw for all tests of this file that need nothing else."""
    _holder.tunnel("guest-raw:80", to=raw)
    assert visitor.get(f"https://guest-raw.{domain}/").body == "plain"
    return raw


@pytest.fixture(scope="module")
def web_tunnel(_holder: Client, web: Web, visitor: Visitor, domain: str) -> Tunnel:
    """An honest service, open as 8082 and guest-web for all tests of this file that need nothing else."""
    tunnel = _holder.tunnel("8082", "guest-web:80", to=web)
    for label in ("8082", "guest-web"):
        assert visitor.get(f"https://{label}.{domain}/").status == 200
    return tunnel


@pytest.fixture
def bystander(another_client: Callable[..., Client], web: Web) -> Tunnel:
    """Somebody else's tunnel, guest-two, with `web` behind it; on a machine of its own."""
    return another_client().tunnel("guest-two:80", to=web)


@contextmanager
def nobody_harmed(visitor: Visitor, domain: str, *, slowest: float = 5) -> Iterator[None]:
    """Expect that the bystander's visitors are all served meanwhile, and none of them waits longer than `slowest`."""
    with visitor.visits(f"https://guest-two.{domain}/") as visits:
        yield
        seen = visits.since()
    assert len(seen) > 3
    assert {(visit.status, visit.body.partition("<p>")[2].strip()) for visit in seen} == {(200, "Hello from web.</p>")}
    assert max(later.time - earlier.time for earlier, later in itertools.pairwise(seen)) < slowest


def served_within(client: Client, web: Web, visitor: Visitor, domain: str) -> float:
    """Seconds that a newcomer needs from typing ssh to the first answer; the best of three."""
    times = []
    for _ in range(3):
        start = time.monotonic()
        with client.tunnel("guest-newcomer:80", to=web):
            assert visitor.get(f"https://guest-newcomer.{domain}/").status == 200
            times.append(time.monotonic() - start)
    return min(times)


# A former owner keeps the next owner's visitors.


def test_a_former_owner_loses_the_visitors(
    world: World, client: Client, another_client: Callable[..., Client], web: Web, visitor: Visitor, domain: str
) -> None:
    """`ssh -O cancel` gives a name back; whoever comes all the time meets the next owner within two seconds.

    Cure: keepalive_time and keepalive_timeout of 1 s to the tunnels.
    """
    with (
        world.web("next") as following,
        client.tunnel("guest-x:80", to=web) as former,
        visitor.visits(f"https://guest-x.{domain}/", every=0.02) as visits,
    ):
        visits.wait("visitors see the first owner", lambda visit: "Hello from web." in visit.body)
        former.command("cancel", "-R", f"guest-x:80:{web}").expect()
        with another_client().tunnel("guest-x:80", to=following):
            taken = time.monotonic()
            visits.wait("visitors see the next owner", lambda visit: "Hello from next." in visit.body)
            until("five seconds are over", lambda: time.monotonic() > taken + 5)
            assert former.running, "the former owner is still connected"
            late = visits.since(taken + 2.5)
            assert len(late) > 20
            assert {visit.body.partition("<p>")[2].strip() for visit in late} == {"Hello from next.</p>"}


# Ports as ammunition.


@contextmanager
def settings(host: Host, **values: str) -> Iterator[None]:
    """Give the tunnels' namespace other values of net.ipv4 for a while."""

    def write(name: str, value: str) -> str:
        file = f"/proc/sys/net/ipv4/{name}"
        before = host.in_namespace(POD, "cat", file).expect().stdout.strip()
        host.in_namespace(POD, "sh", "-c", f"echo {value} >{file}").expect()
        return before

    before = {name: write(name, value) for name, value in values.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            write(name, value)


def test_a_tunnel_that_takes_all_ports_stops_nobody(
    client: Client,
    another_client: Callable[..., Client],
    host: Host,
    web: Web,
    visitor: Visitor,
    domain: str,
    bystander,
) -> None:
    """Visits go on when tunnels hold every port that the kernel would dial from. Cure: proxy_bind with a port.

    The kernel is left few ports to choose from, so that one connection can take all of them.
    """
    with (
        settings(host, ip_local_port_range="40000 40149"),
        another_client().tunnel("8081", to=web),
        client.tunnel(*(str(port) for port in range(40000, 40150)), to=web),
        nobody_harmed(visitor, domain),
    ):
        dial = host.in_namespace(POD, "python3", "-c", (INSIDE / "reach.py").read_text(), "tcp:127.0.0.1:8081")
        assert "Cannot assign requested address" in dial.stdout, "the attack did not take all ports"
        # Pauses, so that no connection of before is used.
        for _ in range(3):
            assert visitor.get(f"https://8081.{domain}/").status == 200
            time.sleep(1.2)
        assert "Hello from web." in visitor.get(f"https://guest-two.{domain}/").body


# Many names, many connections.


def test_one_connection_that_asks_for_ten_thousand_forwards_meets_a_limit(
    client: Client,
    another_client: Callable[..., Client],
    host: Host,
    web: Web,
    visitor: Visitor,
    domain: str,
    bystander,
) -> None:
    """Cure: the limit of descriptors in sshd's container."""
    before = host.forwards()
    newcomer = another_client()
    with nobody_harmed(visitor, domain), client.greedy(10_000, web) as greedy:
        until("it has some hundred forwards", lambda: host.forwards() > before + 300, within=30)
        assert served_within(newcomer, web, visitor, domain) <= 2
        seen = 0

        def settled() -> bool:
            nonlocal seen
            last, seen = seen, host.forwards()
            return seen == last

        until("it gets no more", settled, within=60, every=2)
        assert seen - before < 1200
        assert served_within(newcomer, web, visitor, domain) <= 2
        greedy.stop()
    until("all of them are free again", lambda: host.forwards() <= before, within=20)


def test_two_hundred_silent_connections_from_one_address_meet_a_limit(
    client: Client,
    another_client: Callable[..., Client],
    host: Host,
    web: Web,
    visitor: Visitor,
    domain: str,
    bystander,
) -> None:
    """Cure: PerSourceMaxStartups, LoginGraceTime, and the packet filter's count of connections."""
    with nobody_harmed(visitor, domain), client.background("crowd.py", "200", "/run/crowd", f"{client.host}:2222"):

        def came() -> dict[str, int]:
            return json.loads(client.exec("cat", "/run/crowd").stdout or "{}")

        until("all two hundred have tried", lambda: sum(came().values()) >= 200 and not came().get(""), within=20)
        assert served_within(another_client(), web, visitor, domain) <= 2
        assert came().get("SSH-2.0", 0) <= 20
    assert client.tunnel("guest-x:80", to=web).running, "the address may come again afterwards"
    # Whoever is silent is not waited for long; a test that waits itself would take as long.
    effective = host.inside(SSHD, "/usr/sbin/sshd", "-T", "-f", "/etc/proxme-tunnel/sshd_config").expect().stdout
    assert "logingracetime 20\n" in effective


@pytest.mark.parametrize("port", [2222, 443])
def test_more_tunnels_from_one_address_than_allowed_are_refused(
    another_client: Callable[..., Client], web: Web, visitor: Visitor, domain: str, bystander, port: int
) -> None:
    """Thirty logins that succeed, or twenty-four by the https port. Cure: the packet filter's count of connections."""
    client = another_client()
    client.port, many = port, 30 if port == 2222 else 24
    with nobody_harmed(visitor, domain):
        ssh = " ".join(["ssh", "-v", "-N", "-oBatchMode=yes", *client.options(), f"tunnel@{client.host}"])
        client.spawn("sh", "-c", f"for i in $(seq {many}); do {ssh} >/run/login-$i 2>&1 & sleep 0.2; done; wait")

        def said(words: str) -> int:
            return len(client.shell(f"grep -l '{words}' /run/login-*").stdout.split())

        try:
            # The edge has taken the connection before the relay is refused.
            refused = "Connection refused" if port == 2222 else "Connection closed by\\|Connection reset by"
            until("all have tried", lambda: said("Authenticated to") + said(refused) >= many, within=40)
            assert said("Authenticated to") == 20
            assert served_within(another_client(), web, visitor, domain) <= 2
        finally:
            client.shell("pkill -x ssh")
    until("the address may come again", lambda: client.ssh("-O", "check").code != 124)
    assert client.tunnel("guest-x:80", to=web).running


# One after the other, so that the kernel's count is exact.
HIDDEN = """
import socket, sys
came = []
def greeted():
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    came.append(connection)
    try:
        connection.sendall(b"SSH-2.0-test\\r\\n")
        return connection.recv(7) == b"SSH-2.0"
    except ConnectionError:
        return False
print(sum(greeted() for _ in range(8)))
"""


@pytest.mark.parametrize("port", [2222, 443])
def test_those_whose_address_docker_hides_meet_a_limit_together(
    host: Host, scenario: Scenario, web: Web, visitor: Visitor, another_client: Callable[..., Client], port: int
) -> None:
    """What comes by Docker's proxy is counted as well. The file has 200; the test waits for 5."""
    file = "/etc/proxme-tunnel/tunnel_network/filter/filter.nft"
    text = host.read(file)
    image = host.docker("inspect", "--format={{.Config.Image}}", "proxme-tunnel-network").expect().stdout.strip()

    def apply(filtered: str) -> None:
        host.write(file, filtered)
        options = ("--rm", "--network=container:proxme-tunnel-network", "--cap-drop=ALL", "--cap-add=NET_ADMIN")
        mount = "--volume=/etc/proxme-tunnel/tunnel_network/filter:/etc/proxme-tunnel:ro"
        host.docker("run", *options, mount, image, "apply").expect()

    assert text.count("ct count over 200 ") == 1
    try:
        apply(text.replace("ct count over 200 ", "ct count over 5 "))
        assert host.exec("python3", "-c", HIDDEN, str(port)).expect().stdout == "5\n"
        assert served_within(another_client(), web, visitor, scenario.domain) <= 2
    finally:
        apply(text)


KNOCK = """
import socket, sys, time
began, answered = time.monotonic(), 0
for _ in range(int(sys.argv[1])):
    try:
        with socket.create_connection((sys.argv[2], 2222), timeout=5) as knocking:
            answered += knocking.recv(7) == b"SSH-2.0"
    except ConnectionError:
        pass
print(answered, time.monotonic() - began)
"""


def test_an_address_that_comes_too_often_has_to_wait(
    another_client: Callable[..., Client], web: Web, visitor: Visitor, domain: str, bystander
) -> None:
    """Hundreds of connections one after the other. Cure: the packet filter's count of new connections in a minute."""
    knocking = another_client()
    with nobody_harmed(visitor, domain):
        result = knocking.exec("python3", "-c", KNOCK, "400", domain).expect()
        answered, seconds = map(float, result.stdout.split())
        assert 100 <= answered <= 200 + seconds * 200 / 60 + 2
        assert answered < 400
        assert served_within(another_client(), web, visitor, domain) <= 2
    until("the address may come again", lambda: knocking.tunnel("guest-y:80", to=web).running, within=20)


# Labels with aliases.

# 73618 is 8082 modulo 65536, and 4294975378 modulo 2 ** 32.
PORT_ALIASES = "08082 008082 73618 4294975378 0 65536 8082- -8082 8082x 0x1f92 8_082 8082--local--local"
NAME_ALIASES = "guest--web guest-web- guest-web--local--local guest_web xguest-web \uff18\uff10\uff18\uff12 127-0-0-1"
# Where ours listen, or listened once, and what is no name below the domain.
STRANGERS = [
    *("", "{domain}", ".{domain}", "www.{domain}", "localhost.{domain}", "public.{domain}", "example.com", "8082"),
    *(
        "8082.{domain}.example.com",
        "8082.x{domain}",
        "a.8082.{domain}",
        "8082.{domain}..",
        "8082_.{domain}",
        "guest-web",
    ),
    *("127.0.0.1", "127.0.0.1:2222", "[::1]", "127.0.0.53", "unix:/run/tunnel/ask.sock", "ask", "tunnel", "0.0.0.1"),
    *(
        "2222.{domain}",
        "53.{domain}",
        "9123.{domain}",
        "22.{domain}",
        "2222--local.{domain}",
        "8082.{domain}@example.com",
    ),
    *("8082.{domain}/", "8082.{domain}\\", "{long}.{domain}", "8082.{domain},example.com", "8082.{domain} example.com"),
]


@pytest.mark.usefixtures("web_tunnel")
@pytest.mark.parametrize("label", f"{PORT_ALIASES} {NAME_ALIASES}".split())
def test_a_label_has_no_alias(host: Host, domain: str, label: str) -> None:
    """Cure: port_of() in tunnels.lua, names.valid() in names.lua."""
    answer = host.ask_nginx(f"GET / HTTP/1.1\r\nHost: {label}.{domain}\r\nConnection: close\r\n\r\n".encode())
    assert re.match(r"HTTP/1.1 40[04] ", answer)
    assert "Hello from" not in answer


@pytest.mark.usefixtures("web_tunnel")
@pytest.mark.parametrize("name", STRANGERS)
def test_a_host_that_is_no_tunnel_reaches_nothing(host: Host, visitor: Visitor, domain: str, name: str) -> None:
    """Neither a tunnel nor sshd, the resolver, or `ask`. Cure: the default server, and that ours listen elsewhere."""
    name = name.format(domain=domain, long="x" * 300)
    # The question that `ask` would say yes to.
    request = f"GET /?domain=8082.{domain} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
    answer = host.ask_nginx(request)
    assert re.match(r"HTTP/1.1 40[04] ", answer)
    for said in (answer, visitor.send(f"8082.{domain}", request)):
        assert said.startswith("HTTP/1.1 ")
        assert not re.search(r"Hello from|SSH-2\.0|^(yes|not the name)", said, re.MULTILINE)


# A tunnel that steers what stands before it.


def test_x_accel_headers_of_a_tunnel_are_obeyed_by_nobody(
    host: Host, raw_tunnel: RawService, visitor: Visitor, domain: str
) -> None:
    """Cure: proxy_ignore_headers with all five, and proxy_max_temp_file_size 0."""
    body = b"x" * 200_000
    headers = {
        "redirect": b"X-Accel-Redirect: /secret",
        "page": b"X-Accel-Redirect: @nobody",
        "rate": b"X-Accel-Limit-Rate: 1000",
        "charset": b"X-Accel-Charset: koi8-r",
        "expires": b"X-Accel-Expires: 3600",
    }
    url = f"https://guest-raw.{domain}"
    raw_tunnel.forget()
    for name, header in headers.items():
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n\r\n"
        raw_tunnel.answers(name, head % (len(body), header) + body)
        answer = visitor.get(f"{url}/{name}", timeout=10)
        assert (answer.status, answer.size) == (200, len(body)), (name, answer.error)
        assert answer.headers["content-type"] == "text/plain"
    assert "/secret" not in json.dumps(raw_tunnel.requests())

    # An answer that is big, but smaller than the /tmp of nginx, and a visitor who does not read it.
    size = 14_000_000
    raw_tunnel.answers(
        "big", b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: yes\r\nContent-Length: %d\r\n\r\n" % size, bytes(size)
    )
    with visitor.background("crowd.py", "1", "/run/slow", f"{url}/big", "/run/root.pem"):
        # Not by the visitor's file alone: another test may have left one.
        until("it is asked", lambda: raw_tunnel.requests()[-1]["line"] == "GET /big HTTP/1.1", within=20)
        until("the visitor is answered", lambda: "200" in visitor.exec("cat", "/run/slow").stdout)
        # Long enough for megabytes to come.
        time.sleep(2)
        find = "find /tmp/proxy -type f; ls -l /proc/[0-9]*/fd 2>/dev/null | grep /tmp/proxy"
        assert host.inside(NGINX, "sh", "-c", find).stdout == "", "it was spooled to a file"


@pytest.mark.usefixtures("web_tunnel")
@pytest.mark.parametrize("upgrade", ["h2c", "H2C", "h2c, websocket", "websocketx", "TLS/1.0", "foo"])
def test_no_upgrade_but_a_websocket_passes(host: Host, visitor: Visitor, domain: str, upgrade: str) -> None:
    """Cure: the maps of Upgrade and Connection, and the cleared HTTP2-Settings."""
    request = (
        f"GET /echo HTTP/1.1\r\nHost: guest-web.{domain}\r\nUpgrade: {upgrade}\r\n"
        "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ).encode()
    for answer in (host.ask_nginx(request), visitor.send(f"guest-web.{domain}", request)):
        assert answer.startswith("HTTP/1.1 200 ")
        seen = {name.lower(): value for name, value in json.loads(re.search(r"\{.*\}", answer)[0])["headers"]}
        assert seen["host"] == f"guest-web.{domain}"
        assert not seen.keys() & {"upgrade", "http2-settings"}
        assert "upgrade" not in seen.get("connection", "").lower()


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
# Where nginx and Caddy could disagree where an answer ends: interim statuses, and what nginx takes for HTTP/0.9.
NO_ANSWERS = ["100", "101", "102", "103", "199", "000", "099", "+99", "200x", "2000", ""]


@pytest.mark.parametrize("status", NO_ANSWERS)
def test_an_answer_without_an_end_is_refused(host: Host, raw_tunnel: RawService, domain: str, status: str) -> None:
    """Bytes that a tunnel sends after such an answer never get to the front end. Cure: visit.refuse_unclear()."""
    raw_tunnel.answers(
        "endless", f"HTTP/1.1 {status} Early\r\nContent-Length: 100000\r\n\r\n".encode() + EVIL, EVIL * 20
    )
    request = f"GET /endless HTTP/1.1\r\nHost: guest-raw.{domain}\r\nConnection: close\r\n\r\n"
    answer = host.ask_nginx(request.encode())
    assert not answer or answer.startswith("HTTP/1.1 502 ")
    assert "EVIL" not in answer


def test_a_tunnel_never_answers_the_visitors_of_another(
    raw_tunnel: RawService, visitor: Visitor, domain: str, bystander: Tunnel
) -> None:
    """Answers that hide further answers, while visitors come to another tunnel all the time.

    Caddy uses its connections to nginx for all tunnels. Cure: visit.refuse_unclear().
    """
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%s\r\n2\r\nok\r\n0\r\n\r\n"
    answers = {
        "interim": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 100000\r\n\r\n" + ok,
        "old": b"HTTP/1.1 +99 X\r\nContent-Length: 0\r\n\r\n",
        "empty": b"HTTP/1.1 204 No Content\r\nContent-Length: 100000\r\n\r\n",
        "unchanged": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100000\r\n\r\n",
        "short": ok,
        "chunked": chunked % b"",
        "both": chunked % b"Content-Length: 2\r\n",
        "twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 200\r\n\r\nok",
    }
    with nobody_harmed(visitor, domain), nobody_harmed(visitor, domain):
        for name, answer in answers.items():
            raw_tunnel.answers(name, answer, *[EVIL * 20] * 3)
            for _ in range(3):
                visitor.get(f"https://guest-raw.{domain}/{name}", timeout=1)


def test_huge_headers_of_a_tunnel_are_refused(
    host: Host, raw_tunnel: RawService, visitor: Visitor, domain: str, bystander: Tunnel
) -> None:
    """70 KB in one header or in two thousand of them: 502, and nginx lives on."""
    workers = host.inside(NGINX, "cat", "/proc/1/task/1/children").expect().stdout
    end = b"Content-Length: 2\r\n\r\nok"
    raw_tunnel.answers("long", b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n" + end)
    raw_tunnel.answers("many", b"HTTP/1.1 200 OK\r\n" + b"X-Many: and one more of them, as it is\r\n" * 2000 + end)
    with nobody_harmed(visitor, domain):
        for path in ("long", "many"):
            assert visitor.get(f"https://guest-raw.{domain}/{path}").status == 502
    assert host.inside(NGINX, "cat", "/proc/1/task/1/children").expect().stdout == workers


# Visitors who don't read.


def test_a_name_has_only_so_many_visitors_at_once(
    client: Client, web: Web, visitor: Visitor, world: World, domain: str, bystander
) -> None:
    """The 201st gets a 429, the visitors of others don't notice. Cure: limit_conn."""
    with client.tunnel("guest-x:80", to=web), world.visitor() as crowd, nobody_harmed(visitor, domain):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        url = f"https://guest-x.{domain}/slow?s=60"
        with crowd.background("crowd.py", "230", "/run/crowd", url, "/run/root.pem"):

            def came() -> dict[str, int]:
                return json.loads(crowd.exec("cat", "/run/crowd").stdout or "{}")

            until("thirty are sent away, the others wait", lambda: came() == {"": 200, "HTTP/1.1 429": 30}, within=30)
            assert visitor.get(f"https://guest-x.{domain}/").status == 429


def test_visitors_who_do_not_read_take_no_memory_from_others(
    world: World,
    client: Client,
    another_client: Callable[..., Client],
    host: Host,
    web: Web,
    visitor: Visitor,
    domain: str,
    bystander: Tunnel,
) -> None:
    """Two hundred of them, each with up to two MiB in sshd. Cure: the container's memory limit (see test_containers).

    The kernel ends the connection that has all that memory, and no other. A smaller limit and smaller buffers of the
    kernel make it quick.
    """
    [started, limit] = (
        host.docker("inspect", "--format={{.State.StartedAt}} {{.HostConfig.Memory}}", SSHD).expect().stdout.split()
    )
    attack = client.tunnel("guest-x:80", to=web)
    assert visitor.get(f"https://guest-x.{domain}/").status == 200
    buffers = {"tcp_rmem": "4096 65536 65536", "tcp_wmem": "4096 16384 65536"}
    host.docker("update", "--memory=128m", "--memory-swap=128m", SSHD).expect()
    try:
        with settings(host, **buffers), world.visitor() as crowd, nobody_harmed(visitor, domain, slowest=20):
            url = f"https://guest-x.{domain}/bytes/50000000"
            with crowd.background("crowd.py", "200", "/run/crowd", url, "/run/root.pem"):
                until("the attacker's connection is ended", lambda: not attack.running, within=60)
            assert served_within(another_client(), web, visitor, domain) <= 4
    finally:
        host.docker("update", f"--memory={limit}", f"--memory-swap={limit}", SSHD).expect()
    assert host.docker("inspect", "--format={{.State.StartedAt}}", SSHD).expect().stdout.split() == [started]


# Outward.


@contextmanager
def listening(host: Host, port: int) -> Iterator[None]:
    """Something of the operator's listens on every address of the host."""
    host.spawn("python3", "-m", "http.server", str(port))
    until("the host's service listens", lambda: f"tcp 0.0.0.0:{port}" in host.listening())
    try:
        yield
    finally:
        host.shell(f"pkill -f 'http.server {port}'")


@pytest.mark.parametrize("container", [POD, SSHD, NGINX, NAMES])
def test_nothing_outside_can_be_reached_from_the_tunnels_namespace(
    host: Host, scenario: Scenario, visitor: Visitor, container: str
) -> None:
    """Not the host, not its other containers, not the network it is in. Cure: the filter's chain `out`."""
    network = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
    caddy, gateway = (
        host.docker("inspect", f"--format={network}", "proxme-tunnel-caddy-network").expect().stdout.split()
    )
    _, bridge = host.docker("inspect", f"--format={network}", POD).expect().stdout.split()
    targets = [
        *(f"tcp:{address}:9000" for address in (bridge, gateway, scenario.host_address)),
        *(f"tcp:{caddy}:443", f"tcp:{scenario.ca_address}:14000", f"udp:{scenario.ca_address}:53"),
        *(f"ping:{address}" for address in (bridge, caddy, scenario.ca_address)),
    ]
    with listening(host, 9000):
        seen = host.python("reach.py", *targets).expect().stdout.splitlines()
        assert seen == [f"{target} yes" for target in targets], "the host itself reaches them all"
        script = (INSIDE / "reach.py").read_text()
        seen = host.in_namespace(container, "python3", "-c", script, *targets).expect().stdout.splitlines()
    assert len(seen) == len(targets)
    assert [line for line in seen if line.endswith(" yes")] == []


def test_caddy_reaches_nothing_but_the_authority_and_resolvers(host: Host, scenario: Scenario) -> None:
    """Not the host, not its other containers, not its neighbours. Cure: the chain `out` of the front end's filter."""
    network = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
    _, gateway = host.docker("inspect", f"--format={network}", "proxme-tunnel-caddy-network").expect().stdout.split()
    network_address, bridge = host.docker("inspect", f"--format={network}", POD).expect().stdout.split()
    allowed = [f"tcp:{scenario.ca_address}:14000", f"udp:{scenario.ca_address}:53"]
    refused = [
        *(f"tcp:{address}:9000" for address in (bridge, gateway, scenario.host_address)),
        *(f"tcp:{address}:2222" for address in (gateway, scenario.host_address)),
        *(f"ping:{address}" for address in (gateway, network_address, scenario.ca_address)),
    ]
    script = (INSIDE / "reach.py").read_text()
    with listening(host, 9000):
        seen = host.python("reach.py", *allowed, *refused).expect().stdout.splitlines()
        assert seen == [f"{target} yes" for target in allowed + refused], "the host itself reaches them all"
        found = host.in_namespace("proxme-tunnel-caddy", "python3", "-c", script, *allowed, *refused).expect()
    seen = found.stdout.splitlines()
    assert [line for line in seen if line.endswith(" yes")] == [f"{target} yes" for target in allowed]
    assert len(seen) == len(allowed + refused)


def test_nobody_can_knock_at_the_namespace_but_at_sshd(host: Host) -> None:
    """From the host, the neighbour that is nearest. Cure: the filter's chain `in`."""
    network = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = host.docker("inspect", f"--format={network}", POD).expect().stdout.strip()
    with_listener = (
        "import socket, time; s = socket.create_server(('0.0.0.0', 9001)); print('up', flush=True); time.sleep(20)"
    )
    host.spawn("nsenter", f"--net=/proc/{host.main_process(POD)}/ns/net", "python3", "-c", with_listener)
    try:
        until("it listens", lambda: ":9001 " in host.in_namespace(POD, "ss", "-Hltn").stdout)
        seen = (
            host.python("reach.py", f"tcp:{address}:2222", f"tcp:{address}:9001", f"udp:{address}:53").expect().stdout
        )
        assert [line.split(" ")[1] == "yes" for line in seen.splitlines()] == [True, False, False]
    finally:
        host.shell("pkill -f create_server")


# Smuggled requests.

INNER = "GET /smuggled HTTP/1.1\r\nHost: smuggled.invalid\r\nX-Smuggled: yes\r\n\r\n"
CHUNK = f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n"
SMUGGLED = {
    "CL.TE": f"Content-Length: {len(INNER) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}",
    "TE.CL": f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "TE.TE": f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE of an unknown kind": f"Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE with a space": f"Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE with a tab": f"Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE with a vertical tab": f"Transfer-Encoding:\x0bchunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE folded": f"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE behind a line feed": f"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "TE_": f"Transfer_Encoding: chunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "CL twice": f"Content-Length: 0\r\nContent-Length: {len(INNER)}\r\n\r\n{INNER}",
    "CL as a list": f"Content-Length: 0, {len(INNER)}\r\n\r\n{INNER}",
    "CL with a sign": f"Content-Length: +{len(INNER)}\r\n\r\n{INNER}",
    "CL in hexadecimal": f"Content-Length: 0x{len(INNER):x}\r\n\r\n{INNER}",
    "a negative CL": f"Content-Length: -1\r\n\r\n{INNER}",
    "a chunk with a long extension": f"Transfer-Encoding: chunked\r\n\r\n0;{'x' * 20_000}\r\n\r\n{INNER}",
    "a chunk with a line feed": f"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n0\n\n{INNER}",
    "a huge chunk": f"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n\r\n{INNER}",
    "a negative chunk": f"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{INNER}",
    "a trailer": f"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nHost: smuggled.invalid\r\n\r\n{INNER}",
    "two Hosts": f"Host: smuggled.invalid\r\nContent-Length: 0\r\n\r\n{INNER}",
    "a Connection that drops CL": f"Connection: Content-Length\r\nContent-Length: {len(INNER)}\r\n\r\n{INNER}",
    "an Expect": f"Expect: 100-continue\r\nContent-Length: {len(INNER)}\r\n\r\n{INNER}",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_no_request_is_smuggled(host: Host, raw_tunnel: RawService, visitor: Visitor, domain: str, kind: str) -> None:
    """A service sees no request that is hidden in another, whether it comes by Caddy or straight to nginx."""
    name = f"guest-raw.{domain}"
    request = f"POST /first HTTP/1.1\r\nHost: {name}\r\n{SMUGGLED[kind]}GET /after HTTP/1.1\r\nHost: {name}\r\n\r\n"
    raw_tunnel.forget()
    visitor.send(name, request.encode("latin-1"))
    host.ask_nginx(request.encode("latin-1"))
    assert visitor.get(f"https://{name}/last").body == "plain"
    assert raw_tunnel.requests()[-1]["line"] == "GET /last HTTP/1.1"
    raw_tunnel.expect_only(r"(POST /first|GET /(after|last)) HTTP/1.1", name)


# Nothing of ours listens where a tunnel can bind.


def test_a_tunnel_on_the_listeners_own_port_does_not_keep_it_out(
    client: Client, another_client: Callable[..., Client], host: Host, web: Web, visitor: Visitor, domain: str
) -> None:
    """The listener is opened again (SIGHUP) while tunnels hold ports 2222 and 53. Cure: it listens on eth0 alone."""
    with client.tunnel("2222", "53", to=web) as tunnel:
        listener = host.inside(SSHD, "pgrep", "-f", "^sshd: /usr/sbin/sshd").expect().stdout
        host.reload(SSHD)
        with another_client().tunnel("guest-x:80", to=web):
            for label in ("2222", "53", "guest-x"):
                answer = visitor.get(f"https://{label}.{domain}/")
                assert (answer.status, "SSH-2.0" in answer.body) == (200, False), label
        assert tunnel.running
        assert host.inside(SSHD, "pgrep", "-f", "^sshd: /usr/sbin/sshd").expect().stdout == listener


def test_a_tunnel_that_grabs_the_listeners_port_at_its_start_does_not_keep_it_out(
    client: Client, another_client: Callable[..., Client], host: Host, web: Web, visitor: Visitor, domain: str
) -> None:
    """The container of sshd starts again, and a client asks for 2222 as fast as it can. Cure: as above."""
    ssh = " ".join(["ssh", "-NR", f"2222:{web}", "-R", f"53:{web}", "-oExitOnForwardFailure=yes", *client.options()])
    client.spawn("sh", "-c", f"while true; do {ssh} -oBatchMode=yes tunnel@{client.host}; done >/run/grab 2>&1")
    try:

        def answers() -> bool:
            return all("Hello from web." in visitor.get(f"https://{port}.{domain}/").body for port in (2222, 53))

        until("the tunnel on 2222 and 53 answers", answers, within=20)
        host.docker("restart", "--time=1", SSHD).expect()
        with until("sshd takes newcomers", lambda: another_client().tunnel("guest-x:80", to=web), within=20):
            until("the tunnel on 2222 and 53 answers again", answers, within=20)
            assert visitor.get(f"https://guest-x.{domain}/").status == 200
    finally:
        client.shell("pkill -f '[w]hile true'; pkill -x ssh")
    until("2222 is nobody's", lambda: visitor.get(f"https://2222.{domain}/").status == 404)
