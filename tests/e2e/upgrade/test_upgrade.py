# SPDX-License-Identifier: GPL-3.0-or-later
"""Each container is replaced while it is used, and nothing ends. The tests follow one story, in this order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from playbook import ROOT, Operator, Run
from world import Client, Host, Scenario, Tunnel, Visitor, Visits, Web, World, until

HOLDERS = ("network", "caddy-network")
REPLACED = ("sshd", "nginx", "caddy", "edge", "relay")
ACCOUNTS, CONNECTIONS = ROOT / "playbooks/accounts.yml", ROOT / "playbooks/connections.yml"
# Whom a slow download comes by, and which name it is of.
FRONTS = {"edge": "guest-stay", "caddy": "guest-caddy"}
TOLD = r": told proxme-tunnel-[a-z]+-old-[0-9a-f]+ to end$"


def containers(host: Host) -> dict[str, tuple[str, str]]:
    """Id and state ("running") of each container, by its name without our prefix."""
    listed = host.docker("ps", "--all", "--no-trunc", "--format={{.Names}} {{.ID}} {{.State}}").expect().stdout
    return {
        name.removeprefix("proxme-tunnel-"): (identity, state)
        for name, identity, state in (line.split() for line in listed.splitlines())
    }


def old(host: Host, name: str) -> dict[str, str]:
    """The containers that `name` has replaced, and their states."""
    return {found: state for found, (_, state) in containers(host).items() if found.startswith(f"{name}-old-")}


@dataclass
class Story:
    """What goes on all the time."""

    operator: Operator
    client: Client
    tunnels: list[Tunnel]
    of_alice: Tunnel
    visits: list[Visits]
    visitor: Visitor
    alice: dict[str, Any]
    began: float = 0

    def drip(self, front: str) -> list[str]:
        """The lines that have come of the slow download by the edge, or by Caddy."""
        return self.visitor.read(f"/run/drip-{front}").splitlines()

    def echoes(self) -> int:
        """How often the WebSocket has answered."""
        return len(self.visitor.read("/run/echo").splitlines())

    def whole(self) -> None:
        """Expect that nothing has ended, and that no visit has failed since it began."""
        assert [tunnel.forwards for tunnel in self.tunnels if not tunnel.running] == []
        for visits in self.visits:
            failed = [visit for visit in visits.since(self.began) if visit.status != 200]
            assert failed == [], (len(visits.since()), failed[:5])
        echoes, lines = self.echoes(), {front: len(self.drip(front)) for front in FRONTS}
        until("the WebSocket answers", lambda: self.echoes() > echoes, within=5)
        for front in FRONTS:
            until("each download goes on", lambda front=front: len(self.drip(front)) > lines[front], within=5)


@pytest.fixture(scope="module")
def story(world: World, scenario: Scenario, host: Host, web: Web) -> Iterator[Story]:
    """Tunnels by both ports, visitors who ask 5 times a second, a WebSocket, and downloads by the edge and by Caddy."""
    operator = Operator(scenario)
    with ExitStack() as stack:
        client = stack.enter_context(world.client("client"))
        visitor = stack.enter_context(world.visitor())
        client.shell("ssh-keygen -q -t ed25519 -N '' -f /run/alice").expect()
        alice = {"name": "alice", "keys": [client.read("/run/alice.pub").strip()], "names": ["blog"]}
        operator.run(ACCOUNTS, variables={"tunnel_accounts": [alice]}).expect()
        tunnels = [client.tunnel("guest-stay:80", "guest-caddy:80", to=web)]
        tunnels.append(Client(client.name, client.host, port=443).tunnel("guest-far:80", to=web))
        of_alice = client.tunnel("blog:80", to=web, user="alice", options=["-i", "/run/alice"])
        url = f"https://guest-stay.{scenario.domain}"
        until("the tunnel answers", lambda: visitor.get(f"{url}/").status == 200)
        # The first handshake of a name is Caddy's, all others are the edge's.
        visitor.get(f"{url}/")
        visits = [stack.enter_context(visitor.visits(f"{url}/", every=0.2, new=new)) for new in (False, True)]
        websocket = f"wss://guest-stay.{scenario.domain}/ws"
        stack.enter_context(visitor.background("echo.py", websocket, "/run/root.pem", "/run/echo"))
        for front, label in FRONTS.items():
            curl = ["curl", "-sSN", "--cacert", "/run/root.pem", "-o", f"/run/drip-{front}"]
            visitor.spawn(*curl, f"https://{label}.{scenario.domain}/drip?n=100000&gap=0.5")
            begun = ["test", "-s", f"/run/drip-{front}"]
            until("each download has begun", lambda begun=begun: visitor.exec(*begun).code == 0, within=30)
        yield Story(operator, client, tunnels, of_alice, visits, visitor, alice)


@pytest.fixture(scope="module")
def variables(story: Story, host: Host) -> dict[str, Any]:
    """What the operator changes: every image has another base, and Caddy another image."""
    host.docker("tag", "debian:trixie-slim", "debian:other").expect()
    host.docker("tag", "caddy:2.11.7", "caddy:other").expect()
    changed = {"tunnel_debian_image": "debian:other", "tunnel_caddy_image": "caddy:other"}
    return {"tunnel_accounts": [story.alice], **changed}


@pytest.fixture(scope="module")
def replaced(story: Story, variables: dict[str, Any], host: Host) -> tuple[Run, dict, dict]:
    """The run that replaces all, and the containers before and after."""
    story.whole()
    before = containers(host)
    run = story.operator.run(variables=variables).expect()
    return run, before, containers(host)


def test_all_but_the_holders_are_replaced_and_nothing_ends(
    replaced: tuple[Run, dict, dict], story: Story, host: Host
) -> None:
    run, before, after = replaced
    story.whole()
    assert story.of_alice.running
    for name in REPLACED:
        assert after[name][0] != before[name][0]
        assert after[name][1] == "running"
        assert set(old(host, name).values()) == {"running"}, (name, after)
    for name in HOLDERS:
        assert after[name] == before[name]
        assert f"proxme-tunnel-{name} stays as it is." in run.output
    assert "still has 3 connections" in run.output


def test_who_comes_now_comes_to_the_new_one(
    replaced: tuple[Run, dict, dict], story: Story, world: World, web: Web, domain: str, host: Host
) -> None:
    """And what is shown of connections says which is which."""
    with world.client("newcomer") as newcomer, newcomer.tunnel("guest-new:80", to=web):
        answer = story.visitor.get(f"https://guest-new.{domain}/")
        assert answer.status == 200
        shown = story.operator.run(CONNECTIONS).expect().output
    (name,) = old(host, "sshd")
    lines = {kind: line for kind in ("guest-stay", "guest-new") for line in shown.splitlines() if f"{kind}:80" in line}
    assert f"(in the replaced proxme-tunnel-{name})" in lines["guest-stay"]
    assert "replaced" not in lines["guest-new"]


def test_what_an_account_loses_ends_on_the_old_one(
    replaced: tuple[Run, dict, dict], story: Story, variables: dict[str, Any]
) -> None:
    variables["tunnel_accounts"] = []
    story.operator.run(ACCOUNTS, variables=variables).expect()
    story.of_alice.wait_ended(within=5)
    story.whole()


def test_a_restart_of_the_docker_daemon_ends_nothing(
    replaced: tuple[Run, dict, dict], story: Story, host: Host
) -> None:
    host.exec("systemctl", "restart", "docker").expect()
    until("all containers run", host.all_up, within=30)
    # Docker writes its firewall rules again, and refuses who comes in that moment.
    story.began = time.monotonic()
    story.whole()
    assert [set(old(host, name).values()) for name in REPLACED] == [{"running"}] * len(REPLACED)


def test_what_was_replaced_ends_when_its_time_is_over(
    replaced: tuple[Run, dict, dict], story: Story, variables: dict[str, Any], host: Host
) -> None:
    """The run has nothing else to change. What has ended is not started again."""
    run = story.operator.run(variables={**variables, "tunnel_drain_hours": 0.003}).expect()
    told = [done for done in run.changed if re.search(TOLD, done)]
    assert told
    # The visitors' requests end with the tunnel, and with them the other containers, before the run comes to these.
    assert run.changed_but_cleared == told
    for tunnel in story.tunnels:
        tunnel.wait_ended(within=15)
    ended = {"exited"}
    until("all have ended", lambda: all(set(old(host, name).values()) <= ended for name in REPLACED), within=15)
    host.exec("systemctl", "restart", "docker", "proxme-tunnel").expect()
    until("all containers run", host.all_up, within=30)
    assert all(set(old(host, name).values()) <= ended for name in REPLACED)


def test_an_upgrade_without_news_replaces_nothing(
    replaced: tuple[Run, dict, dict], story: Story, host: Host, web: Web, domain: str
) -> None:
    """It builds all images again, and removes the containers that have ended."""
    # The images that the host had first; the registry has no others.
    story.operator.run(variables={"tunnel_drain_hours": 0}).expect()
    before = containers(host)
    run = story.operator.run(ROOT / "playbooks/upgrade.yml").expect()
    assert run.changed_but_cleared == []
    after = containers(host)
    assert after == {name: found for name, found in before.items() if "-old-" not in name}
    label = '{{ index .Config.Labels "proxme-tunnel.base" }}'
    assert host.docker("inspect", f"--format={label}", "proxme-tunnel-sshd").expect().stdout == "debian:trixie-slim\n"
    with story.client.tunnel("guest-stay:80", to=web):
        assert story.visitor.get(f"https://guest-stay.{domain}/").status == 200
