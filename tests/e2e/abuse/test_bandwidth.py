# SPDX-License-Identifier: GPL-3.0-or-later
"""What visitors and names take of the bandwidth is bounded by waiting: nothing fails, and others have theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from playbook import Operator, Run
from world import Host, Tunnel, Visitor, Web, World, until

MB = 10**6
# Mbit/s. Two visitors' downloads fit into the bound of a name.
ADDRESS, NAME = 40, 80
# Its SHA-256 begins with 0000, and so its address looks like those that nginx dials from.
LIKE_NGINX = "guest-129363"
# By how much a measured time may be shorter than the bound says: what fits into the buffers on the way comes at once.
SLACK = 0.75


@pytest.fixture(scope="module")
def _tunnels(world: World, web: Web) -> Iterator[Tunnel]:
    with (
        world.client() as client,
        client.tunnel("guest-busy:80", "8777", f"{LIKE_NGINX}:80", "guest-calm:80", to=web) as tunnel,
    ):
        yield tunnel
        assert tunnel.running


@pytest.fixture(scope="module")
def crowd(world: World) -> Iterator[list[Visitor]]:
    """Visitors from four addresses."""
    with ExitStack() as stack:
        yield [stack.enter_context(world.visitor(f"crowd-{number}")) for number in range(4)]


@pytest.fixture(scope="module")
def bound(operator: Operator, host: Host, _tunnels: Tunnel) -> Iterator[Callable[..., Run]]:
    """Run the playbook with bounds, and without them at the end. No container is started for it."""

    def run(**variables: Any) -> Run:
        before = host.started()
        # The scenario trusts every container as a proxy, which speaks for many and is not bounded.
        done = operator.run(variables={"tunnel_trusted_proxies": []} | variables).expect()
        assert host.started() == before
        return done

    yield run
    operator.run().expect()


def test_a_visitor_has_so_much_and_a_name_has_so_much(
    bound: Callable[..., Run], crowd: list[Visitor], visitor: Visitor, domain: str
) -> None:
    bound(tunnel_bandwidth_per_address=ADDRESS, tunnel_bandwidth_per_name=NAME)
    calm = f"https://guest-calm.{domain}/"
    for label in ("guest-busy", "8777", LIKE_NGINX):
        url = f"https://{label}.{domain}"
        until("the tunnel answers", lambda url=url: visitor.get(url).status == 200)
        for http in ("1.1", "2"):
            answer = crowd[0].download(f"{url}/bytes/{20 * MB}", http=http)
            assert (answer.status, answer.size) == (200, 20 * MB)
            assert 20 * 8 / ADDRESS * SLACK < answer.total < 20 * 8 / ADDRESS * 3, (label, http)
        with ThreadPoolExecutor(len(crowd)) as pool:
            downloads = [pool.submit(one.download, f"{url}/bytes/{30 * MB}") for one in crowd]
            # Who visits another name notices nothing.
            others = [visitor.get(calm) for _ in range(20)]
            answers = [download.result() for download in downloads]
        assert {(answer.status, answer.size) for answer in answers} == {(200, 30 * MB)}
        assert max(answer.total for answer in answers) > 120 * 8 / NAME * SLACK, label
        assert {answer.status for answer in others} == {200}
        assert max(answer.total for answer in others) < 1
        answer = crowd[0].upload(f"{url}/upload", 40 * MB)
        assert answer.status == 200
        assert 40 * 8 / NAME * SLACK < answer.total < 40 * 8 / NAME * 3, label


def test_without_a_bound_there_is_none(bound: Callable[..., Run], crowd: list[Visitor], domain: str) -> None:
    bound()
    answer = crowd[0].download(f"https://guest-busy.{domain}/bytes/{20 * MB}")
    assert answer.size == 20 * MB
    assert answer.total < 20 * 8 / NAME


def test_a_bound_that_cannot_be_is_refused(operator: Operator, host: Host) -> None:
    before = host.started()
    run = operator.run(variables={"tunnel_bandwidth_per_name": 100_000})
    assert run.code != 0
    assert "Write 1 to 10000 Mbit/s" in run.message
    assert host.started() == before
