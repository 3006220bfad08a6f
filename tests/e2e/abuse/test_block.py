# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator blocks ends at once and does not come back, and nobody else notices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playbook import ROOT, Operator, Run
from world import Client, Host, Visitor, Web, World, until

BLOCK, ACCOUNTS = ROOT / "playbooks/block.yml", ROOT / "playbooks/accounts.yml"
NAMES = ["guest-phish", "8666", "blog"]
# Not in use here; the proxies in front claim to speak for visitors from there.
NETWORK = "192.0.2.0/25"


def address(machine: Client | Visitor) -> str:
    """Where a machine comes from."""
    return machine.exec("hostname", "-i").expect().stdout.split()[0]


@pytest.fixture(scope="module")
def culprit(world: World) -> Iterator[Client]:
    """Whose tunnels are ended."""
    with world.client("culprit") as client:
        yield client


@pytest.fixture(scope="module")
def accounts(operator: Operator, culprit: Client) -> list[dict[str, Any]]:
    """An account of the culprit's, with a name of its own."""
    culprit.shell("ssh-keygen -q -t ed25519 -N '' -f /run/alice").expect()
    alice = {"name": "alice", "keys": [culprit.read("/run/alice.pub").strip()], "names": ["blog"]}
    operator.run(ACCOUNTS, variables={"tunnel_accounts": [alice]}).expect()
    return [alice]


@pytest.fixture
def bystander(world: World, web: Web, visitor: Visitor, domain: str, host: Host) -> Iterator[None]:
    """Somebody else's tunnel, which is visited all the time; no container restarts."""
    url = f"https://guest-stay.{domain}/"
    with world.client("bystander") as client, client.tunnel("guest-stay:80", to=web) as tunnel:
        until("the tunnel answers", lambda: visitor.get(url).status == 200)
        before = host.started()
        with visitor.visits(url, every=0.1) as kept, visitor.visits(url, every=0.1, new=True) as new:
            yield
            for visits in (kept, new):
                assert {visit.status for visit in visits.since()} == {200}
        assert tunnel.running
        assert host.started() == before


def refused(client: Client, forward: str, web: Web, *options: str, user: str = "tunnel") -> bool:
    """Whether a forward is refused to a client that may log in."""
    tunnel = client.tunnel(forward, to=web, wait=False, options=options, user=user)
    return tunnel.wait_ended() == 255 and tunnel.refused() != []


def test_a_blocked_name_ends_at_once_and_nobody_gets_it_again(
    operator: Operator,
    accounts: list[dict[str, Any]],
    culprit: Client,
    bystander: None,
    web: Web,
    visitor: Visitor,
    domain: str,
) -> None:
    """A connection ends with all that it holds; others stay. A port label can be asked for, but leads nowhere."""
    key = ["-i", "/run/alice"]
    held = [
        culprit.tunnel("guest-phish:80", "guest-too:80", to=web),
        culprit.tunnel("8666", to=web),
        culprit.tunnel("blog:443", to=web, user="alice", options=key),
    ]
    spared = culprit.tunnel("guest-spared:80", to=web)
    assert visitor.get(f"https://guest-phish.{domain}/").status == 200
    assert visitor.get(f"https://8666.{domain}/").status == 200

    variables = {"tunnel_accounts": accounts, "tunnel_blocked_names": NAMES}
    run = operator.run(BLOCK, variables=variables).expect()
    for tunnel in held:
        tunnel.wait_ended(within=5)
    assert spared.running
    # It says whom it ended.
    assert re.search(
        rf"tunnel from {re.escape(address(culprit))} since .* holds guest-phish:80, guest-too:80", run.output
    )
    assert run.seconds < 60
    assert operator.run(BLOCK, variables=variables).expect().changed == []

    for name in ("guest-phish:80", "guest-phish:443", "Guest-Phish:80", f"guest-phish.{domain}:80"):
        assert refused(culprit, name, web), name
    assert refused(culprit, "blog:80", web, *key, user="alice")
    with culprit.tunnel("8666", to=web):
        for label in ("guest-phish", "8666"):
            answer = visitor.get(f"https://{label}.{domain}/")
            assert answer.status == 410
            assert f"{label}.{domain} is blocked" in answer.body
        for label in ("8666--local", "blog", "guest-phish--local"):
            assert visitor.get(f"http://{label}.{domain}/").status == 410


def test_a_blocked_address_is_let_in_neither_by_ssh_nor_as_a_visitor(
    operator: Operator,
    host: Host,
    culprit: Client,
    bystander: None,
    web: Web,
    visitor: Visitor,
    world: World,
    domain: str,
) -> None:
    url = f"https://guest-stay.{domain}/"
    claims = {"X-Forwarded-For": "192.0.2.7"}
    with world.visitor("nuisance") as nuisance, nuisance.visits(url) as kept:
        blocked = [address(culprit), address(nuisance), NETWORK]
        tunnel = culprit.tunnel("guest-x:80", to=web)
        # Connected, but not logged in.
        culprit.spawn("sh", "-c", f"sleep 60 | timeout 60 nc {domain} 2222 >/run/silent; echo $? >/run/silent.code")
        until("sshd has answered", lambda: "SSH-2.0" in culprit.read("/run/silent"))
        assert visitor.get(url, headers=claims).status == 200
        assert nuisance.get(url).status == 200

        run = operator.run(BLOCK, variables={"tunnel_blocked_addresses": blocked}).expect()
        tunnel.wait_ended(within=5)
        assert f"tunnel from {address(culprit)} since" in run.output
        again = culprit.ssh("-v")
        assert again.code == 255
        assert "Connection refused" in again.output or "reset" in again.output

        for http in Visitor.VERSIONS:
            for page in (url, f"https://{domain}/", f"https://8080.{domain}/"):
                answer = nuisance.get(page, http=http)
                # A name without a certificate shows none to anybody.
                assert answer.status == (0 if "8080" in page else 403), (http, page, answer)
        assert nuisance.get(f"http://guest-stay.{domain}/", http="1.1").status == 403
        kept.wait("an open connection is refused, too", lambda visit: visit.status == 403)
        # As proxies in front write it, who listen at IPv4 and IPv6 with one socket.
        for form in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "198.51.100.1, 192.0.2.7"):
            assert visitor.get(url, headers={"X-Forwarded-For": form}).status == 403, form
        for form in ("192.0.2.128", "2001:db8::7", "192.0.2.7, 198.51.100.1"):
            assert visitor.get(url, headers={"X-Forwarded-For": form}).status == 200, form
        # As the edge names them.
        for form, status in (("192.0.2.7", 403), ("192.0.2.128", 200)):
            asked = f"GET / HTTP/1.1\r\nHost: guest-stay.{domain}\r\nConnection: close\r\n\r\n"
            assert host.ask_nginx(asked.encode(), edge_for=form).startswith(f"HTTP/1.1 {status} "), form
        assert operator.run(BLOCK, variables={"tunnel_blocked_addresses": blocked}).expect().changed == []


def test_a_blocked_address_stays_blocked_when_the_holder_starts_again(
    operator: Operator, host: Host, culprit: Client, client: Client
) -> None:
    operator.run(BLOCK, variables={"tunnel_blocked_addresses": [address(culprit)]}).expect()
    before = host.kill("proxme-tunnel-network")
    until("it starts again", lambda: host.main_process("proxme-tunnel-network") not in (0, before), within=30)
    until("others are let in", lambda: "open failed" in client.ssh("-W", "x:1").output, within=60)
    assert "Connection refused" in culprit.ssh("-v").output


def test_what_is_blocked_no_longer_is_let_in_again(
    operator: Operator, culprit: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    operator.run(BLOCK).expect()
    with culprit.tunnel("guest-phish:80", to=web):
        assert visitor.get(f"https://guest-phish.{domain}/").status == 200


REFUSALS = {
    "a whole host name": ({"tunnel_blocked_names": ["guest-x.example.com"]}, "without the domain"),
    "another way to write a port": ({"tunnel_blocked_names": ["08080"]}, "without the domain"),
    "no address": ({"tunnel_blocked_addresses": ["example.com"]}, "Write addresses or networks"),
    "an IPv4 address as IPv6": ({"tunnel_blocked_addresses": ["::ffff:192.0.2.7"]}, "Write addresses or networks"),
    "a contact with a script": ({"tunnel_abuse_contact": "https://x/<script>"}, "Write an e-mail address"),
    "a contact that is none": ({"tunnel_abuse_contact": "me"}, "Write an e-mail address"),
    "everybody": ({"tunnel_blocked_addresses": ["0.0.0.0/0"]}, "Write addresses or networks"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_blocked_is_refused_in_words(operator: Operator, case: str) -> None:
    variables, words = REFUSALS[case]
    run: Run = operator.run(BLOCK, variables=variables)
    assert run.code != 0
    assert run.changed == []
    assert words in run.message
