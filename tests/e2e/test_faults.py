# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks heals by itself, and a broken configuration never replaces a working one.

One client that reconnects, and its visitors, see most of it (watch.py). What it has cost them is printed at the end of
the run, as the table of docs/reliability.md. Rarer faults are in faults/.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from playbook import ROOT, Operator
from watch import CONTAINERS, Watch, gone, is_page
from world import Client, Host, Scenario, Visitor, Web, World, until


def served(visitor: Visitor, url: str) -> bool:
    """Whether a visitor gets the page."""
    answer = visitor.get(url, timeout=3)
    assert is_page(answer), answer
    return True


# Something ends.


@pytest.mark.parametrize("part", CONTAINERS)
def test_a_killed_part_heals_by_itself(
    client: Client, host: Host, web: Web, visitor: Visitor, domain: str, watch: Watch, part: str
) -> None:
    """Kill -9 of the main process. Within 10 s newcomers are served; who reconnects is served again at the same URL."""

    def newcomer_served() -> bool:
        tunnel = client.tunnel("guest-newcomer:80", to=web, wait=False)
        try:
            tunnel.wait_up(within=3)
            return served(visitor, f"https://guest-newcomer.{domain}/")
        finally:
            tunnel.kill()

    with watch.of(f"kill -9 of {part}"):
        process = host.kill(f"proxme-tunnel-{part}")
        killed = time.monotonic()
        until("the process is gone", lambda: gone(host, process))
        until("a newcomer is served", newcomer_served, within=30)
        assert time.monotonic() - killed < 10
        until("all containers run", host.all_up, within=30)
    assert watch.healed < 10
    if part in ("resolver", "nginx", "caddy"):
        assert watch.reconnected == 0


def test_the_tunnels_outlive_a_restart_of_the_docker_daemon(host: Host, visitor: Visitor, watch: Watch) -> None:
    """With live-restore not even a tunnel drops; and what is killed afterwards heals as before."""
    with watch.of("systemctl restart docker"):
        host.exec("systemctl", "restart", "docker").expect()
        until("all containers run", host.all_up, within=30)
    assert (watch.failed, watch.reconnected) == (0, 0), watch.bad
    logins = watch.logins()
    process = host.kill("proxme-tunnel-nginx")
    until("the process is gone", lambda: gone(host, process))
    until("the tunnel answers again", lambda: served(visitor, watch.url), within=10)
    assert watch.logins() == logins


def test_a_reload_of_sshd_keeps_tunnels(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str, watch: Watch
) -> None:
    """SIGHUP: tunnels and visitors notice nothing, and newcomers are let in."""
    started = host.started("proxme-tunnel-sshd")
    with watch.of("three reloads of sshd"), visitor.visits(watch.url) as visits:
        for _ in range(3):
            host.reload("proxme-tunnel-sshd")
            with until("a newcomer is let in", lambda: client.tunnel("guest-newcomer:80", to=web)):
                assert served(visitor, f"https://guest-newcomer.{domain}/")
        assert {visit.status for visit in visits.since()} == {200}
    assert (watch.failed, watch.reconnected) == (0, 0), watch.bad
    assert host.started("proxme-tunnel-sshd") == started


def slow_lines(stack: contextlib.ExitStack, host: Host, *clients: Client) -> None:
    """From now on what the host sends to these clients comes at 64 kbit/s, or 256 kbit/s by the https port."""
    lines = ["tc qdisc add dev eth0 root handle 1: htb"]
    for number, client in enumerate(clients, 1):
        address = client.exec("hostname", "-i").expect().stdout.strip()
        rate = 64 if client.port == 2222 else 256
        lines.append(f"tc class add dev eth0 parent 1: classid 1:{number} htb rate {rate}kbit quantum 1500")
        lines.append(f"tc filter add dev eth0 parent 1: protocol ip u32 match ip dst {address} flowid 1:{number}")
    host.network("\n".join(lines))
    stack.callback(host.network, "tc qdisc del dev eth0 root")


def test_a_client_that_is_cut_off_or_frozen_loses_its_name_and_a_slow_one_does_not(
    world: World, client: Client, scenario: Scenario, host: Host, web: Web, visitor: Visitor, domain: str
) -> None:
    """Another client can take the name, whether or not visitors keep knocking at it.

    No FIN: within 20 s. Stopped, so that only the kernel acknowledges: within 30 s, and it may come back then. By the
    https port, where the edge acknowledges for whoever is cut off, it is 20 s for both.
    """
    within = {"unplugged": 20, "down": 20, "stopped": 30, "unplugged-443": 20, "stopped-443": 20}
    cases = {
        f"guest-cut-{how}-{visits}": (how, visits) for how, visits in itertools.product(within, ["visited", "alone"])
    }
    with contextlib.ExitStack() as stack:
        slow_ones = {}
        for port, label in ((2222, 8077), (443, 8078)):
            machine, name = stack.enter_context(world.client(f"slow-{port}")), f"guest-slow-{port}"
            machine.port = port
            slow_ones[label] = machine.tunnel(f"{name}:80", str(label), to=web)
            until("its tunnel answers", lambda name=name: served(visitor, f"https://{name}.{domain}/"), within=20)
            stack.enter_context(visitor.visits(f"https://{name}.{domain}/", every=1))
        slow_lines(stack, host, *(slow.client for slow in slow_ones.values()))
        for label in slow_ones:
            # Past nginx, which does not wait for long in these tests (tunnel_answer_timeout).
            head = r"POST /upload HTTP/1.0\r\nContent-Length: 20000000\r\n\r\n"
            upload = f"{{ printf '{head}'; timeout 199 cat /dev/zero; }} | busybox nc 127.0.0.1 {label}"
            host.docker("exec", "--detach", "proxme-tunnel-sshd", "sh", "-c", upload).expect()
        following = stack.enter_context(world.web("next"))
        clients = {name: stack.enter_context(world.client(name)) for name in cases}
        for name, (_, visits) in cases.items():
            clients[name].port = 443 if "443" in name else 2222
            clients[name].tunnel(f"{name}:80", to=web)
            until("its tunnel answers", lambda name=name: served(visitor, f"https://{name}.{domain}/"), within=20)
            # Visitors of several minds, as one of them alone would wait for an answer.
            for every in (0.2, 0.3, 0.5) if visits == "visited" else ():
                stack.enter_context(visitor.visits(f"https://{name}.{domain}/", every=every))
        lost = {}
        for name, (how, _) in cases.items():
            if how.startswith("unplugged"):
                clients[name].unplug(scenario.network)
            elif how.startswith("stopped"):
                clients[name].shell("kill -STOP $(cat /run/tunnel-*.pid)").expect()
            else:
                clients[name].link(up=False)
            lost[name] = time.monotonic()

        def taken(name: str) -> float:
            """Seconds from the loss of its client until the next one has got the name."""
            options = ["-o", "ExitOnForwardFailure=yes", "-R", f"{name}:80:{following}"]
            until(
                f"the next client has got {name}",
                lambda: client.ssh("-N", *options, timeout=1).code == 124,
                within=60,
                every=0.3,
            )
            # It was granted about when it was asked for, a second ago.
            return time.monotonic() - 1 - lost[name]

        with ThreadPoolExecutor() as pool:
            seconds = dict(zip(cases, pool.map(taken, cases), strict=True))
        assert all(taken < within[cases[name][0]] + 1 for name, taken in seconds.items()), seconds
        for label, slow in slow_ones.items():
            assert slow.running, slow.output
            uploads = host.inside("proxme-tunnel-sshd", "pgrep", "--full", f"nc 127.0.0.1 {label}")
            assert uploads.code == 0, "the upload ended"
        name = "guest-cut-down-visited"
        with client.tunnel(f"{name}:80", to=following):
            assert "Hello from next." in visitor.get(f"https://{name}.{domain}/").body


# A broken configuration.

# Role and template, the file that it becomes below /etc/proxme-tunnel, and what the program says.
BROKEN = {
    ("tunnel_network", "filter.nft.j2"): ("tunnel_network/filter/filter.nft", "syntax error"),
    ("tunnel_network", "dnsdist.conf.j2"): ("tunnel_network/names/dnsdist.conf", "Fatal error: [string"),
    ("sshd_tunnel", "sshd_config.j2"): ("sshd_tunnel/sshd_config", "Bad configuration option"),
    ("nginx_subdomains", "nginx.conf.j2"): ("nginx_subdomains/nginx.conf", "unknown directive"),
    ("caddy_frontend", "Caddyfile.j2"): ("caddy_frontend/Caddyfile", "adapting config using caddyfile"),
}


def with_broken_templates(copy: pathlib.Path) -> pathlib.Path:
    """A playbook in a copy of this project: the site playbook, but one template after the other is broken.

    It goes on after a role has failed, so that one run shows all of them.
    """
    shutil.copy(ROOT / "ansible.cfg", copy)
    for part in (".collections", "playbooks", "plugins", "roles"):
        shutil.copytree(ROOT / part, copy / part, symlinks=True)
    for role, template in BROKEN:
        file = copy / "roles" / role / "templates" / template
        nonsense = "{% if broken == '" + template + "' %}\nthis is nonsense {\n{% endif %}\n"
        file.write_text(file.read_text() + nonsense)
    [play] = yaml.safe_load((copy / "playbooks" / "site.yml").read_text())
    del play["pre_tasks"], play["post_tasks"], play["roles"]
    play["tasks"] = [
        {
            "block": [
                {"ansible.builtin.include_role": {"name": f"proxme.tunnel.{role}"}, "vars": {"broken": template}}
            ],
            "rescue": [{"ansible.builtin.debug": {"msg": f"{template} failed"}}],
        }
        for role, template in BROKEN
    ]
    playbook = copy / "playbooks" / "broken.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))
    return playbook


def working(host: Host) -> list[str]:
    """The configuration files and the containers, in a form that changes with them."""
    files = host.shell("cd /etc/proxme-tunnel && find . -type f -print0 | sort -z | xargs -0 sha256sum")
    names = [f"proxme-tunnel-{name}" for name in CONTAINERS]
    return [*files.expect().stdout.splitlines(), *host.started(*names).splitlines()]


def test_a_broken_configuration_never_replaces_a_working_one(
    scenario: Scenario, host: Host, watch: Watch, tmp_path: pathlib.Path
) -> None:
    """Each of five templates is refused in the words of the program that reads it; files and containers stay."""
    before = working(host)
    assert {line.split("  ./")[-1] for line in before} >= {file for file, _ in BROKEN.values()}
    # The landing page shows what sshd_tunnel finds when it is whole.
    keys = host.inside(
        "proxme-tunnel-sshd", "sh", "-c", 'for key in /etc/ssh/keys/*.pub; do ssh-keygen -lf "$key"; done'
    )
    known = {"tunnel_host_keys": {"fingerprints": keys.expect().stdout.splitlines()}}
    with watch.of("five broken configurations, each refused"):
        run = Operator(scenario).run(with_broken_templates(tmp_path), folder=tmp_path, variables=known).expect()
    failures = re.findall(r"^fatal: .*", run.output, re.MULTILINE)
    assert len(failures) == len(BROKEN), "\n".join(failures)
    for failure, (template, (_, words)) in zip(failures, BROKEN.items(), strict=True):
        assert "is refused" in failure, template
        assert words in failure, template
    assert run.changed == []
    assert working(host) == before
    assert (watch.failed, watch.reconnected) == (0, 0), watch.bad


def test_a_configuration_that_nginx_refuses_is_not_called_applied(host: Host, visitor: Visitor, watch: Watch) -> None:
    """One that somebody wrote by hand. nginx goes on with the former one, and the order to take it over fails."""
    file = "/etc/proxme-tunnel/nginx_subdomains/nginx.conf"
    good = host.read(file)
    try:
        host.write(file, f"{good}nonsense\n")
        for _ in range(2):
            refused = host.inside("proxme-tunnel-nginx", "reload")
            assert refused.code == 1
            assert "nginx goes on with the former configuration" in refused.output
    finally:
        host.write(file, good)
    assert host.inside("proxme-tunnel-nginx", "reload").expect().stdout == ""
    assert served(visitor, watch.url)


# The whole machine; last, as it takes the longest.


def test_all_comes_back_after_a_reboot(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str, watch: Watch
) -> None:
    """The reconnecting client is served again at the same URL."""
    with watch.of("restart of the machine"):
        # systemd waits for each process that does not hear TERM; live-restore leaves it all containers.
        assert host.reboot() < 20
        until("all containers run", host.all_up, within=60)
        until("the reconnecting client is served", lambda: served(visitor, watch.url), within=30)
        with client.tunnel("guest-x:80", to=web):
            assert served(visitor, f"https://guest-x.{domain}/")
