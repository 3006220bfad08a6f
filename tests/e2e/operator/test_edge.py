# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge is switched off and on, and replaced, while it is used: nothing ends. One story, in this order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from playbook import ROOT, Operator, Run
from world import Client, Host, Tunnel, Visitor, Visits, Web, World, until

# curl keeps its connection, and repeats by itself what a browser would.
KEPT = {"h1": ["--http1.1"], "h2": ["--http2"], "posts": ["--http2", "--data", "x"]}


@dataclass
class Story:
    """What goes on all the time."""

    operator: Operator
    host: Host
    visitor: Visitor
    tunnels: list[Tunnel]
    new: Visits

    def run(self, *options: str, **variables: Any) -> Run:
        """Run the site, and expect that nothing has ended."""
        run = self.operator.run(ROOT / "site.yml", *options, variables=variables).expect()
        self.whole()
        return run

    def visits(self, kind: str) -> list[list[str]]:
        """Of each visit over a kept connection its status, new connections, version, and what curl says."""
        lines = self.visitor.read(f"/run/{kind}").splitlines(keepends=True)
        return [line.rstrip("\n").split(" ", 3) for line in lines if line.endswith("\n")]

    def count(self, file: str) -> int:
        """How much has been said of the download, or by the WebSocket."""
        return int(self.visitor.exec("wc", "-c", file).expect().stdout.split()[0])

    def whole(self) -> None:
        """Expect that nothing has ended, and that no visit has failed so far."""
        assert [tunnel.forwards for tunnel in self.tunnels if not tunnel.running] == []
        seen = {kind: self.visits(kind) for kind in KEPT}
        for kind, visits in seen.items():
            assert [visit for visit in visits if visit[0] != "200"] == [], (kind, len(visits))
        assert [visit for visit in self.new.since() if visit.status != 200] == [], len(self.new.since())
        for kind, visits in seen.items():
            until(f"{kind} go on", lambda kind=kind, visits=visits: len(self.visits(kind)) > len(visits), within=5)
        for file in ("/run/download", "/run/echo"):
            before = self.count(file)
            until(f"{file} goes on", lambda file=file, before=before: self.count(file) > before, within=5)

    def states(self) -> dict[str, str]:
        """The states of the containers of the edge, and of those that were set aside ("edge-old")."""
        listed = self.host.docker(
            "ps", "--all", "--format={{.Names}} {{.State}}", "--filter=name=(edge|relay)"
        ).expect()
        found = dict(line.removeprefix("proxme-tunnel-").split() for line in listed.stdout.splitlines())
        return {re.sub(r"-old-.*", "-old", name): state for name, state in found.items()}


@pytest.fixture(scope="module")
def story(world: World, operator: Operator, host: Host, web: Web, domain: str) -> Iterator[Story]:
    """Tunnels by 443 and by 2222, and visitors of all kinds, some of the one and some of the other."""
    with ExitStack() as stack:
        client = stack.enter_context(world.client("steady"))
        visitor = stack.enter_context(world.visitor("curious"))
        tunnels = [
            client.tunnel("guest-ssh:80", to=web),
            Client(client.name, client.host, port=443).tunnel("guest-https:80", to=web),
        ]
        urls = [f"https://guest-{way}.{domain}" for way in ("ssh", "https")]
        for url in urls:
            until(f"{url} answers", lambda url=url: visitor.get(f"{url}/").status == 200)
            # The first handshake of a name is Caddy's.
            visitor.get(f"{url}/")
        for number, (kind, options) in enumerate(KEPT.items()):
            curl = ["curl", "-s", *options, "--cacert", "/run/root.pem", "--rate", "10/s", "--max-time", "5"]
            curl += ["-o", "/dev/null", "-w", "%{stderr}%{http_code} %{num_connects} %{http_version} %{errormsg}\n"]
            curl += [f"{urls[number % 2]}/echo?[1-100000]"]
            visitor.spawn("sh", "-c", f"{shlex.join(curl)} 2>/run/{kind}")
        new = stack.enter_context(visitor.visits(f"{urls[1]}/", every=0.1, new=True))
        wss = urls[1].replace("https:", "wss:")
        stack.enter_context(visitor.background("echo.py", f"{wss}/ws", "/run/root.pem", "/run/echo"))
        slow = ["curl", "-sSN", "--cacert", "/run/root.pem", "--limit-rate", "2M", f"{urls[1]}/bytes/9999999999"]
        # dd says each second what has come.
        visitor.spawn("sh", "-c", f"{shlex.join(slow)} | dd of=/dev/null bs=64k status=progress 2>/run/download")
        story = Story(operator, host, visitor, tunnels, new)
        until("all goes on", lambda: [story.whole()], within=20)
        yield story
    # What is left ends by itself; the next run removes it.
    until(
        "all that was set aside has ended",
        lambda: "running" not in {state for name, state in story.states().items() if name.endswith("-old")},
        within=40,
    )
    # All of it, as what says whether there is an edge stands in other parts too.
    operator.run(ROOT / "site.yml").expect()


def test_switched_off_it_goes_on_for_those_who_are_there(story: Story) -> None:
    run = story.run(tunnel_edge=False)
    assert story.states() == {"edge-old": "running", "relay-old": "running"}
    told = [done for done in run.changed if done.startswith("edge : ")]
    assert [re.sub(r"-old-[0-9a-f]+", "-old", done) for done in told] == [
        "edge : Apply it",
        "edge : Let the edge end with its last connection: set aside as proxme-tunnel-edge-old",
        "edge : Let the edge end with its last connection: told proxme-tunnel-edge-old to end",
        "edge : Let the relay end with its last tunnel: set aside as proxme-tunnel-relay-old",
        "edge : Let the relay end with its last tunnel: told proxme-tunnel-relay-old to end",
        "edge : Remove the configuration, which both have read",
    ]
    assert story.run("--tags", "edge", tunnel_edge=False).changed == []


def test_switched_on_again_it_runs_beside_the_former_one(story: Story, domain: str) -> None:
    story.run("--tags", "edge")
    assert story.states() == dict.fromkeys(("edge", "relay", "edge-old", "relay-old"), "running")
    with Client(story.tunnels[0].client.name, domain, port=443).tunnel("guest-again:80", to="web:80"):
        assert story.visitor.get(f"https://guest-again.{domain}/").status == 200


def test_replacing_it_and_nginx_ends_nothing(story: Story) -> None:
    other = {"tunnel_edge_memory": "200m", "tunnel_nginx_memory": "200m"}
    run = story.run("--tags", "nginx,edge", **other)
    assert len([done for done in run.changed if ": created" in done]) == 3
    # And back, which ends no more.
    story.run("--tags", "nginx,edge")


def test_reloading_it_and_nginx_ends_nothing(story: Story) -> None:
    for name in ("edge", "relay", "nginx"):
        container = f"proxme-tunnel-{name}"
        # It finds another configuration than it began with.
        story.host.inside(container, "sh", "-c", "echo other >/tmp/configuration").expect()
        assert story.host.inside(container, "reload").expect().stdout == "reloaded\n"
    story.whole()
