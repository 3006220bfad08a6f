# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that are rarer, or slower to make, than those of ../test_faults.py: what they cost a client that reconnects.

Like there, the figures are printed at the end of the run, as the table of docs/reliability.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest
from watch import CONTAINERS, NAME, RECIPE, Watch, gone
from world import Ca, Client, Host, Visitor, Web, World, until

DATA = "/var/lib/proxme-tunnel"


# A part, or what they run on, ends.


@pytest.mark.parametrize("part", CONTAINERS)
def test_a_part_has_no_memory_left(part: str, host: Host, watch: Watch) -> None:
    """The kernel ends its main process, as something in it takes all that the container may have."""
    container = f"proxme-tunnel-{part}"
    with watch.of(f"{part} out of memory"):
        process = host.main_process(container)
        host.write(f"/proc/{process}/oom_score_adj", "1000")
        # Two, so that neither can become as large as what the kernel is told to end first.
        host.inside(container, "sh", "-c", "tail /dev/zero & tail /dev/zero; wait")
        until("it has ended", lambda: gone(host, process))
    assert watch.healed < 10


def test_docker_is_installed_again(host: Host, watch: Watch) -> None:
    order = "apt-get install --reinstall -y docker.io"
    with watch.of(order):
        host.shell(order, timeout=300).expect()
        until("the engine answers", lambda: host.docker("info").code == 0, within=60)
    assert (watch.failed, watch.reconnected) == (0, 0), watch.bad


# A part is paused.


def test_the_clients_ssh_is_paused(watch: Watch) -> None:
    client = watch.client
    with watch.of("client stopped for 10 s"):
        client.shell("pkill -STOP -x ssh").expect()
        time.sleep(10)
        client.shell("pkill -CONT -x ssh").expect()
    assert watch.healed < 20


@pytest.mark.parametrize("part", ["sshd", "nginx", "caddy"])
def test_a_part_is_paused(part: str, host: Host, watch: Watch) -> None:
    """All its processes; the connections wait in the kernel meanwhile."""
    with watch.of(f"{part} stopped for 5 s"):
        processes = host.docker("top", f"proxme-tunnel-{part}", "-o", "pid").expect().stdout.split()[1:]
        # One that ends by itself meanwhile need not be stopped.
        each = f"for pid in {' '.join(processes)}; do kill -%s $pid || test ! -e /proc/$pid || exit 1; done"
        host.shell(each % "STOP").expect()
        try:
            time.sleep(5)
        finally:
            host.shell(each % "CONT").expect()
    assert watch.healed < 10
    assert watch.reconnected == 0


# Something that is needed is missing.


def test_the_resolver_is_gone(host: Host, client: Client, web: Web, watch: Watch) -> None:
    """Open tunnels do not need it; new names have to wait."""
    with watch.of("names stopped for 10 s"):
        host.docker("stop", "proxme-tunnel-resolver").expect()
        try:
            assert client.tunnel("guest-new:80", to=web, wait=False).wait_ended(within=20) != 0
        finally:
            host.docker("start", "proxme-tunnel-resolver").expect()
    assert (watch.failed, watch.reconnected) == (0, 0), watch.bad
    until("a new name is there", lambda: client.tunnel("guest-new:80", to=web), within=10)


def test_the_disk_is_full(host: Host, client: Client, web: Web, visitor: Visitor, domain: str, watch: Watch) -> None:
    """The data folder's file system. Open tunnels go on; new certificates are there once there is room again."""
    # Not one that an earlier run got a certificate for.
    name = f"guest-full-{time.time_ns():x}"
    url = f"https://{name}.{domain}/"

    def asked_in_vain() -> bool:
        """A visitor gets no certificate, though Caddy tries to get one."""
        # Again each time: what others delete meanwhile makes room.
        host.shell(f"head -c 100m /dev/zero >>{DATA}/filler; df {DATA} | grep 100%").expect()
        assert visitor.get(url).status == 0
        # Whether the reason is in the log as well depends on what failed: of the first file that it writes, Caddy says
        # nothing there. So the operator learns it from check.yml.
        log = host.docker("logs", "--since=60s", "proxme-tunnel-caddy").expect().output
        return any("obtaining new certificate" in line and name in line for line in log.splitlines())

    with small_data(host):
        # It writes a list of certificates again when it starts, and goes on without.
        host.shell(f"head -c 100m /dev/zero >>{DATA}/filler; df {DATA} | grep 100%").expect()
        with watch.of("kill -9 of nginx while the disk is full"):
            host.kill("proxme-tunnel-nginx")
        assert watch.healed < 10
        with watch.of("full disk, for as long as it was full"), client.tunnel(f"{name}:80", to=web):
            until("Caddy tries in vain to get a certificate", asked_in_vain, within=30)
            host.exec("rm", f"{DATA}/filler").expect()
            until("it has a certificate", lambda: visitor.get(url).status == 200, within=30)
        assert (watch.failed, watch.reconnected) == (0, 0), watch.bad


@contextmanager
def small_data(host: Host) -> Iterator[None]:
    """The data folder on a file system of 16 MiB."""
    containers = [f"proxme-tunnel-{part}" for part in ("sshd", "nginx", "caddy")]
    host.shell(
        f"cp -a {DATA} /run/data && mount -t tmpfs -o size=16m,mode=0755 data {DATA} && cp -a /run/data/. {DATA}/"
    ).expect()
    host.docker("restart", "--time=5", *containers, timeout=60).expect()
    try:
        yield
    finally:
        host.shell(
            f"rm -f {DATA}/filler; cp -a {DATA}/. /run/data/; docker stop {' '.join(containers)}; umount {DATA}"
        ).expect()
        host.shell(f"rm -rf {DATA}/* && cp -a /run/data/. {DATA}/ && rm -r /run/data").expect()
        host.docker("start", *containers, timeout=60).expect()


def test_the_authority_is_away_for_longer_than_a_certificate_lives(
    ca: Ca, visitor: Visitor, domain: str, watch: Watch
) -> None:
    """What is stored is served for as long as it is valid; a new one is there as soon as the authority is back."""

    def seconds_left() -> float:
        end = re.search(r"Not After : (.*)", visitor.certificate(f"{NAME}.{domain}"))[1]
        return datetime.strptime(end, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp() - time.time()

    with watch.of("authority away for longer than a certificate lives (90 s)"):
        # Not the container, which is the name server as well.
        ca.exec("pkill", "-STOP", "-x", "pebble").expect()
        try:
            valid = seconds_left()
            away = time.monotonic()
            while time.monotonic() - away < valid - 3:
                assert visitor.get(watch.url).status == 200
                time.sleep(1)
            until("it is too old", lambda: time.monotonic() - away > valid + 1)
        finally:
            ca.exec("pkill", "-CONT", "-x", "pebble").expect()
        until("a newcomer is served again", lambda: visitor.get(watch.url).status == 200, within=30)
    assert watch.reconnected == 0


# Many.


def test_many_clients_come_back(world: World, host: Host, web: Web, watch: Watch) -> None:
    """150 tunnels of 15 machines, whose host restarts; clients retry each second."""
    machines, clients = 15, 10
    loop = "while true; do {ssh} -NR 0:{web} tunnel@{host}; sleep 1; done &\n"

    def tunnels() -> int:
        lines = host.inside("proxme-tunnel-sshd", "ss", "-Hltn", "src", "127.0.0.1").stdout.splitlines()
        return len([line for line in lines if not line.split()[3].endswith(":53")])

    with ExitStack() as stack:
        crowd = [stack.enter_context(world.client(f"many-{number}")) for number in range(machines)]
        for machine in crowd:
            ssh = " ".join(["ssh", *machine.options(), RECIPE])
            machine.write("/run/loops", loop.format(ssh=ssh, web=web, host=machine.host) * clients + "wait\n")
            machine.spawn("sh", "-c", "sh /run/loops >/run/log 2>&1")
        until("all tunnels are up", lambda: tunnels() >= machines * clients, within=120, every=0.5)
        host.reboot()
        until(
            "sshd listens",
            lambda: "SSH" in host.exec("bash", "-c", "head -c 4 </dev/tcp/127.0.0.1/2222").stdout,
            within=60,
        )
        up = time.monotonic()
        until("all tunnels are back", lambda: tunnels() >= machines * clients, within=120, every=0.5)
        watch.ledger.append(
            ("150 tunnels after a restart of the machine, since sshd is up", 0, time.monotonic() - up, 150)
        )
        assert time.monotonic() - up < 30
