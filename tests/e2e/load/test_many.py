# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand tunnels that nobody visits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bystander import MIB, NOTES
from world import Client, Host, Visitor, Web, World, until

SSHD = "proxme-tunnel-sshd"
# As the recipes in docs/clients.md have it, but for the pause before the next try.
RECIPE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o ExitOnForwardFailure=yes"
# One address may have ten that are not yet logged in, and twenty in all.
MACHINES, ADDRESSES, EACH = 10, 10, 10
TUNNELS = MACHINES * ADDRESSES * EACH
SECONDS = 120
# Each in a loop of its own, as people run it; begun one after the other, as sshd gives a login twenty seconds.
START = """
number=0
for address in {addresses}; do
  for turn in $(seq {each}); do
    while true; do
      ssh -b $address {options} -NR {name}-$number:80:{web} tunnel@{host}
      sleep 5
    done 2>>/run/log &
    number=$((number + 1))
    sleep 1
  done
done
wait
"""


def logins(machines: list[Client]) -> int:
    """How often they have connected so far."""
    return sum(machine.read("/run/logins").count("\n") for machine in machines)


@pytest.fixture
def crowd(world: World, web: Web) -> Iterator[list[Client]]:
    """The machines, all of whose tunnels are up."""
    with ExitStack() as stack:
        machines = []
        for number in range(MACHINES):
            machine = stack.enter_context(world.client(f"many-{number}"))
            addresses = world.addresses(machine, ADDRESSES)
            options = [*machine.options(), RECIPE, "-o PermitLocalCommand=yes -o LocalCommand='echo >>/run/logins'"]
            machine.write("/run/logins", "")
            machine.write(
                "/run/start",
                START.format(
                    addresses=" ".join(addresses),
                    each=EACH,
                    options=" ".join(options),
                    name=f"guest-many-{number}",
                    web=web,
                    host=machine.host,
                ),
            )
            machine.spawn("sh", "/run/start")
            machines.append(machine)
        yield machines


def names(host: Host) -> int:
    """How many names are held."""
    return host.inside(SSHD, "ss", "-Hltn").expect().stdout.count("[fd74:")


def test_a_thousand_idle_tunnels_stay_up(
    host: Host, request: pytest.FixtureRequest, visitor: Visitor, domain: str
) -> None:
    """None has to connect again, each takes 2 MiB at the most, and those that are tried answer."""
    # An operator would set tunnel_sshd_memory.
    host.docker("update", "--memory=3g", "--memory-swap=3g", SSHD).expect()
    before, began = host.anonymous_memory(SSHD), time.monotonic()
    held_before = names(host)
    machines = request.getfixturevalue("crowd")
    until("all are up", lambda: names(host) - held_before >= TUNNELS, within=600, every=2)
    up = time.monotonic()
    came = logins(machines)
    until("two minutes are over", lambda: time.monotonic() - up > SECONDS, within=SECONDS + 10, every=5)
    each = (host.anonymous_memory(SSHD) - before) / TUNNELS / MIB
    for number in range(0, TUNNELS, TUNNELS // 50):
        machine, tunnel = divmod(number, ADDRESSES * EACH)
        answer = visitor.get(f"https://guest-many-{machine}-{tunnel}.{domain}/")
        assert (answer.status, "Hello from web." in answer.body) == (200, True), (number, answer)
    NOTES.append(f"{TUNNELS} tunnels were up after {up - began:.0f} s; {each:.2f} MiB each after {SECONDS} s")
    assert logins(machines) == came, "some had to connect again"
    assert names(host) - held_before == TUNNELS
    assert each <= 2
