# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh at the https port: beside visitors, through proxies for the web, and with the client's true address."""

from __future__ import annotations

import pathlib
import re
import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from playbook import ROOT, Operator
from world import Client, Container, Host, Scenario, Visitor, Web, World, until

PAGE = (pathlib.Path(__file__).parents[2] / "docs/clients.md").read_text()
SSHD, EDGE, RELAY = "proxme-tunnel-sshd", "proxme-tunnel-edge", "proxme-tunnel-relay"
SOCKETS = "/var/lib/docker/volumes/proxme-tunnel-sockets/_data"
GREETING = b"SSH-2.0-test\r\n"


@pytest.fixture
def far(another_client: Callable[..., Client]) -> Client:
    """A client whose way out is open to port 443 alone."""
    client = another_client()
    client.port = 443
    return client


def address(machine: Container) -> str:
    """Where a machine comes from."""
    return machine.exec("hostname", "-i").expect().stdout.split()[0]


def asked(host: Host, name: str) -> str:
    """What a visitor of a name gets who comes to nginx itself: no certificate has to be ordered for it."""
    return host.ask_nginx(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())


def test_a_tunnel_by_the_https_port_serves_and_its_client_is_known_by_its_address(
    far: Client, web: Web, visitor: Visitor, host: Host, operator: Operator, domain: str
) -> None:
    with far.tunnel("guest-far:80", "2222", to=web):
        for label in ("guest-far", "2222"):
            assert visitor.get(f"https://{label}.{domain}/").status == 200
        came = address(far)
        assert f"Accepted none for tunnel from {came} port " in host.docker("logs", SSHD).output
        shown = operator.run(ROOT / "playbooks/connections.yml").expect().output
        assert re.search(rf"tunnel from {re.escape(came)} since \S+ \S+ UTC holds 2222, guest-far:80\"", shown)


def test_a_blocked_address_is_let_in_by_no_port(
    far: Client, client: Client, operator: Operator, web: Web, host: Host, domain: str
) -> None:
    tunnel, other = far.tunnel("guest-blocked:80", to=web), client.tunnel("guest-spared:80", to=web)
    block = ROOT / "playbooks/block.yml"
    operator.run(block, variables={"tunnel_blocked_addresses": [address(far)]}).expect()
    try:
        tunnel.wait_ended(within=5)
        assert far.ssh("-N", timeout=5).code == 255
    finally:
        operator.run(block).expect()
    assert other.running
    with far.tunnel("guest-blocked:80", to=web):
        assert "Hello from web." in asked(host, f"guest-blocked.{domain}")


def relayed(host: Host, header: str) -> str:
    """What sshd answers to a client that the edge announces to the relay by this PROXY header."""
    return host.python("exchange.py", f"unix:{SOCKETS}/relay/ssh.sock", stdin=header.encode() + GREETING).stdout


def test_the_relay_speaks_from_the_clients_address_or_not_at_all(host: Host) -> None:
    assert "SSH-2.0-" in relayed(host, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n")
    assert "SSH-2.0-" in relayed(host, "PROXY TCP4 192.0.2.7 192.0.2.1 4712 443\r\n")
    # Without an address it would be sshd's own, and everybody one.
    assert relayed(host, "PROXY UNKNOWN\r\n") == ""
    log = host.docker("logs", "--since=1m", SSHD).output
    assert {"2001:db8::7 port 4711", "192.0.2.7 port 4712"} <= set(re.findall(r"by (\S+ port 471\d)", log))


def test_nobody_but_the_edge_may_say_who_a_client_is(host: Host) -> None:
    """The proxy hears what tunnels answer, and Caddy what visitors ask."""
    for container, code in (("proxme-tunnel-nginx", 2), ("proxme-tunnel-caddy", 1), (EDGE, 0)):
        seen = host.inside(container, "ls", "/run/tunnel/relay/ssh.sock")
        assert bool(seen.code) == bool(code), (container, seen)


@pytest.mark.parametrize("part", ["relay", "edge"])
def test_who_is_killed_heals_and_the_sockets_of_before_do_no_harm(far: Client, host: Host, web: Web, part: str) -> None:
    host.kill(f"proxme-tunnel-{part}")
    killed = time.monotonic()

    def served() -> bool:
        tunnel = far.tunnel("guest-healed:80", to=web, wait=False)
        try:
            return bool(tunnel.wait_up(within=3))
        finally:
            tunnel.kill()

    until("a newcomer is let in", served, within=30)
    assert time.monotonic() - killed < 10


def test_edge_and_relay_are_replaced_while_tunnels_go_through_them(
    far: Client, host: Host, operator: Operator, web: Web, domain: str
) -> None:
    before = host.started(EDGE, RELAY)
    tunnel = far.tunnel("guest-stays:80", to=web)
    for memory in ("257m", "256m"):
        operator.run(ROOT / "site.yml", "--tags=edge", variables={"tunnel_edge_memory": memory}).expect()
        assert tunnel.running
        assert "Hello from web." in asked(host, f"guest-stays.{domain}")
        with far.tunnel("guest-newer:80", to=web):
            assert "Hello from web." in asked(host, f"guest-newer.{domain}")
    after = host.started(EDGE, RELAY)
    assert not set(before.splitlines()) & set(after.splitlines())


# --- through proxies --------------------------------------------------------------------------------------------------


def recipes() -> list[str]:
    """The commands of the page that go through a proxy."""
    part = PAGE.partition("## Where only port 443 is let out")[2].partition("\n## ")[0]
    return re.findall(r"^    (.*proxy\.example\.com.*)$", part, re.M)


@pytest.fixture(scope="module")
def confined(scenario: Scenario) -> Iterator[Client]:
    """A machine with two proxies that let nobody out but to port 443, and a service at port 3000."""
    with World(scenario).with_image("proxies").client("confined") as client:
        client.spawn("tinyproxy", "-d", "-c", "/etc/proxies/tinyproxy.conf")
        client.spawn("squid", "-N", "-f", "/etc/proxies/squid.conf")
        client.spawn("web.py", "--port", "3000", "--name", "confined")
        client.shell("mkdir -p -m 700 ~/.ssh").expect()
        for port in (8888, 3128):
            until("the proxies listen", lambda port=port: client.shell(f"nc -z localhost {port}").code == 0)
        yield client


def test_each_recipe_gets_through_each_proxy_that_lets_out_to_443_alone(
    confined: Client, host: Host, domain: str
) -> None:
    # Not at 443: ssh-keyscan waits for the server to speak first.
    confined.shell(f"ssh-keyscan -p 2222 {domain} 2>/dev/null | sed s/:2222/:443/ >~/.ssh/known_hosts").expect()
    known = confined.shell("ssh-keygen -lf ~/.ssh/known_hosts").expect().stdout
    fingerprint = re.search(r"SHA256:\S+(?=.*ED25519)", known)[0]
    commands = {}
    for port in (8888, 3128):
        for number, recipe in enumerate(recipes()):
            label = f"guest-by-{port}-{number}"
            command = recipe.replace("proxy.example.com", "localhost").replace("3128", str(port))
            command = command.replace("proxme.example.com", domain).replace("guest-x", label)
            command = command.replace("plink ", f"plink -hostkey {fingerprint} ").replace("dbclient ", "dbclient -y ")
            commands[label] = command
            confined.spawn("sh", "-c", f"{command} </dev/null >/run/{label}.log 2>&1")
    assert len(commands) == 16
    for label in commands:
        until(
            f"{commands[label]} serves: {confined.read(f'/run/{label}.log')}",
            lambda label=label: "Hello from confined." in asked(host, f"{label}.{domain}"),
            within=20,
        )


@pytest.mark.parametrize("port", [8888, 3128])
def test_these_proxies_let_nobody_out_to_the_usual_port(confined: Client, port: int, domain: str) -> None:
    refused = confined.exec("nc", "-X", "connect", "-x", f"localhost:{port}", domain, "2222")
    assert re.search(r"Proxy error: .*HTTP/1.[01] 403", refused.output), shlex.join(refused.command)
