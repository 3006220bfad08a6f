# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of tunnel_tls meet: a tunnel that stays, an operator's own authority, and authorities of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from common import NAME, Authority, Strict, strict_ca
from playbook import Operator
from world import Tunnel, Visitor, Web, World


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The operator's authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guest(world: World, authority: Authority) -> Iterator[Visitor]:
    """A visitor who trusts the operator's authority alone."""
    with world.visitor("guest") as guest:
        guest.trust(authority.root)
        yield guest


@pytest.fixture(scope="module")
def tunnel(world: World, web: Web) -> Iterator[Tunnel]:
    """The tunnel that stays. Its ssh is not started again: it runs at the end, or the test there fails."""
    with world.client("keeper") as keeper:
        yield keeper.tunnel(f"{NAME}:80", to=web)


@pytest.fixture(scope="module")
def one(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    """The operator's first CA in some tests."""
    with strict_ca(world, "one", tmp_path_factory.mktemp("one")) as one:
        yield one


@pytest.fixture(scope="module")
def other(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    """And the second one."""
    with strict_ca(world, "other", tmp_path_factory.mktemp("other")) as other:
        yield other


@pytest.fixture(scope="module")
def behind(operator: Operator) -> dict[str, Any]:
    """The tunnel host speaks plain HTTP on its loopback; the variables that say so."""
    variables = {"tunnel_tls": False, "tunnel_ask_port": 9123, "tunnel_proxy_protocol": True}
    operator.run(variables=variables).expect()
    return variables


@pytest.fixture
def it_is_there_before_and_after(tunnel: Tunnel) -> Iterator[None]:
    """No change of the front end drops a tunnel."""
    assert tunnel.running
    yield
    assert tunnel.running
