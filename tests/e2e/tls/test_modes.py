# SPDX-License-Identifier: GPL-3.0-or-later
"""One host goes through the choices of tunnel_tls, in this order, with one tunnel that stays.

`internal`, and what else can be chosen, is in test_choices.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from common import (
    CADDY,
    DATA,
    EDGE,
    NAME,
    SITE,
    Authority,
    by_the_edge,
    idempotent,
    known_to,
    planted,
    provider,
    renew,
    serial,
    unbroken,
)
from playbook import ROOT, Operator
from test_certificates import HANDSHAKES
from world import Ca, Client, Container, Host, Scenario, Visitor, Web, World, run, until

pytestmark = pytest.mark.usefixtures("it_is_there_before_and_after")

# on_demand


def test_without_an_authority_all_is_shown_over_http(
    host: Host, ca: Ca, visitor: Visitor, domain: str, world: World
) -> None:
    """The first start of a host whose authority can't be reached; the certificates arrive by themselves."""
    run("docker", "pause", ca.name).expect()
    resolve = ["--resolve", f"{domain}:80:{world.scenario.host_address}"]
    resolve += ["--resolve", f"{NAME}.{domain}:80:{world.scenario.host_address}"]
    try:
        host.exec("sh", "-c", f"rm -rf {DATA}/caddy").expect()
        host.docker("restart", CADDY, timeout=60).expect()
        until("the front end answers", lambda: visitor.get(f"http://{domain}/", http="1.1", options=resolve).status)
        landing = visitor.get(f"http://{domain}/", http="1.1", options=resolve)
        assert landing.status == 200
        assert "There is no certificate yet" in landing.body
        assert f"docker logs {CADDY}" in landing.body
        assert "Hello from web." in visitor.get(f"http://{NAME}.{domain}/", http="1.1", options=resolve).body
    finally:
        run("docker", "unpause", ca.name).expect()
    until("the certificate is there", lambda: visitor.get(f"https://{domain}/").status == 200, within=150, every=1)
    assert visitor.get(f"https://{NAME}.{domain}/").status == 200
    assert visitor.get(f"http://{NAME}.{domain}/", http="1.1").status == 308
    assert visitor.get(f"http://{domain}/", http="1.1").status == 308


# files


def test_a_certificate_of_the_operators(
    operator: Operator, authority: Authority, guest: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """One for all names; nobody is asked for another, and a new one is taken over without closing anything."""
    first = authority.sign("first", domain, f"*.{domain}")
    operator.run(variables=first).expect()
    # Caddy has made another folder since the edge started.
    folders = [f"/proc/{host.main_process(EDGE)}/root/certificates", f"{DATA}/caddy/certificates"]
    assert len(set(host.exec("stat", "-c", "%i %a %u", *folders).expect().stdout.splitlines())) == 1
    orders = ca.orders()
    assert guest.get(f"https://{domain}/").status == 200
    assert "Hello from web." in guest.get(f"https://{NAME}.{domain}/").body
    assert guest.get(f"https://nobody.{domain}/").status == 404
    assert guest.get(f"https://a.{NAME}.{domain}/").status == 0
    by_the_edge(guest, host, f"https://{NAME}.{domain}/")
    before = serial(guest, domain)
    with unbroken(guest, f"wss://{NAME}.{domain}/ws"):
        changed = operator.run(variables=authority.sign("second", domain, f"*.{domain}")).expect().changed_but_cleared
        assert changed == [
            "caddy_frontend : Write the secrets, and the certificate of the operator's",
            "caddy_frontend : Run Caddy: reloaded",
        ]
        until("the new one is served", lambda: serial(guest, domain) != before)
        assert serial(guest, f"{NAME}.{domain}") == serial(guest, domain)
    assert ca.orders() == orders


# off


@pytest.fixture(scope="module")
def front(world: World, authority: Authority, scenario: Scenario, domain: str) -> Iterator[Container]:
    """Programs on the host itself (in its network), with a wildcard certificate of the operator's."""
    image = scenario.images.get("caddy", "caddy:2.11.7")
    name = f"{scenario.network}-front"
    built = world.with_image("fronts", CADDY=image).scenario.tools
    run("docker", "rm", "--force", "--volumes", name)
    run(
        *("docker", "run", "--detach", "--name", name, "--network", f"container:{scenario.host}", "--tmpfs", "/run"),
        *(f"--label=proxme.scenario={scenario.network}", f"--label=proxme.checkout={ROOT}", built),
    ).expect()
    front = Container(name)
    authority.sign("front", domain, f"*.{domain}")
    certificate, key = (authority.folder / "front.pem").read_text(), (authority.folder / "front.key").read_text()
    front.exec("mkdir", "-p", "/etc/ssl/proxme").expect()
    for file, text in {"fullchain": certificate, "privkey": key, "haproxy": certificate + key}.items():
        front.write(f"/etc/ssl/proxme/{file}.pem", text)
    try:
        yield front
    finally:
        front.remove()


def snippet(language: str, domain: str) -> str:
    """What docs/behind-another-server.md says for a program, with our domain."""
    text = (ROOT / "docs/behind-another-server.md").read_text()
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)[1].replace("proxme.example.com", domain)


NGINX = "events {{}}\nhttp {{\n{}\n}}\n"


HAPROXY = "global\n    maxconn 500\ndefaults\n    timeout client 1d\n{}"


FRONTS = {
    "nginx": ("/run/nginx.conf", NGINX, "nginx -c /run/nginx.conf", "nginx -s stop -c /run/nginx.conf"),
    "apache": (
        "/etc/apache2/sites-enabled/tunnel.conf", "{}", "mkdir -p /run/apache2 /run/lock && apachectl start",
        "apachectl stop",
    ),
    "haproxy": (
        "/run/haproxy.cfg", HAPROXY, "haproxy -D -p /run/haproxy.pid -f /run/haproxy.cfg",
        "kill $(cat /run/haproxy.pid)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", [*FRONTS, "haproxy with the PROXY protocol"])
def test_behind_another_web_server(
    behind: dict[str, Any], front: Container, guest: Visitor, domain: str, program: str
) -> None:
    """The documented configuration: pages, WebSockets, and no address that a visitor made up."""
    path, frame, start, stop = FRONTS[program.split()[0]]
    text = snippet(program.split()[0], domain)
    if "PROXY" in program:
        text = text.replace("127.0.0.1:8080", "127.0.0.1:8080 send-proxy-v2").replace(
            "    http-request set-header X-Forwarded-For %[src]\n", ""
        )
    front.write(path, frame.format(text))
    front.shell(start).expect()
    try:
        url = f"https://{NAME}.{domain}"
        until("the program answers", lambda: guest.get(f"{url}/").status == 200)
        address = guest.exec("hostname", "-i").expect().stdout.strip()
        answer = guest.get(f"{url}/echo", headers={"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "http"})
        assert answer.status == 200
        assert answer.sent("X-Forwarded-For")[0].split(",")[0] == address
        assert answer.sent("X-Real-IP") in ([], [address])
        assert answer.sent("X-Forwarded-Proto") == ["https"]
        assert answer.sent("Host") == [f"{NAME}.{domain}"]
        assert guest.websocket(f"wss://{NAME}.{domain}/ws", "hello")["answers"]
        assert guest.get(f"https://{domain}/").status == 200
        assert guest.get(f"https://nobody.{domain}/").status == 404
    finally:
        front.shell(stop)
        until("its port is free", lambda: guest.get(f"https://{domain}/").status == 0)


def test_behind_an_existing_caddy(
    behind: dict[str, Any], front: Container, visitor: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """It asks us which names may have a certificate, and orders it at a real CA."""
    ours = "\tacme_ca https://pebble:14000/dir\n\tacme_ca_root /run/pebble.pem\n\temail ops@proxme.test\n"
    front.write("/run/Caddyfile", snippet("caddyfile", domain).replace("{\n", "{\n" + ours, 1))
    front.write("/run/pebble.pem", ca.exec("cat", "/srv/ca/root.pem").expect().stdout)
    front.shell("XDG_DATA_HOME=/run/data caddy start --config /run/Caddyfile --adapter caddyfile").expect()
    try:
        orders = ca.orders()
        until("Caddy answers", lambda: visitor.get(f"https://{NAME}.{domain}/").status == 200, within=20)
        assert ca.orders() == orders + 1
        assert visitor.get(f"https://nobody.{domain}/").status == 0
        assert ca.orders() == orders + 1
        assert visitor.websocket(f"wss://{NAME}.{domain}/ws", "hello")["answers"]
        assert [entry for entry in host.listening() if entry.endswith(":9123")] == ["tcp 127.0.0.1:9123"]
    finally:
        front.shell("caddy stop")


# wildcard, both


def test_one_certificate_for_all_names(
    operator: Operator, scenario: Scenario, visitor: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """One order, whatever a scanner asks for; and the provider's secret is in one file alone."""
    orders, variables = ca.orders(), provider(scenario, "main")
    secret = variables["tunnel_dns_settings"]["secret"]
    run = operator.run(ROOT / "site.yml", "-vvv", variables=variables).expect()
    # What was typed on this very command line (-e) is shown in its first lines.
    shown = [line for line in run.output.splitlines() if secret in line]
    assert shown == []
    for name in (domain, f"{NAME}.{domain}", f"nobody.{domain}"):
        assert visitor.get(f"https://{name}/").status in (200, 404)
        assert re.findall(r"DNS:([^,\s]+)", visitor.certificate(name)) == [f"*.{domain}", domain]
    scan = visitor.exec("python3", "-", domain, "1000", stdin=HANDSHAKES.encode(), timeout=180).expect()
    assert sum(json.loads(scan.stdout).values()) == 1000
    assert ca.orders() == orders + 1
    by_the_edge(visitor, host, f"https://{NAME}.{domain}/")
    known_to(host, secret, {"600 0"})
    idempotent(operator, variables)


def test_a_renewal_closes_nothing(visitor: Visitor, host: Host, ca: Ca, domain: str) -> None:
    """Three within a minute, while a WebSocket echoes, a slow download runs and others come; each is served."""
    url = f"https://{NAME}.{domain}/bytes/{64 * 2**20}"
    options = "-sS --cacert /run/root.pem --limit-rate 1M -o /dev/null -w '%{size_download} %{http_code}'"
    visitor.exec("rm", "-f", "/run/slow")
    page = f"https://{NAME}.{domain}/"
    with unbroken(visitor, f"wss://{NAME}.{domain}/ws"), visitor.visits(page, every=0.2, new=True) as visits:
        visitor.spawn("sh", "-c", f"curl {options} {url} >/run/slow 2>&1; echo >>/run/slow")
        started, serials = time.monotonic(), {serial(visitor, domain)}
        for turn in range(3):
            renew(host)
            until("the new one is served", lambda turn=turn: len({*serials, serial(visitor, domain)}) == turn + 2)
            serials.add(serial(visitor, domain))
            assert serial(visitor, f"{NAME}.{domain}") in serials, "the edge has another than Caddy"
        assert {visit.status for visit in visits.since()} == {200}
        assert time.monotonic() - started < 60
        assert visitor.exec("cat", "/run/slow").stdout.strip() == "", "the download was over before: it shows nothing"
        until("it is over", lambda: visitor.exec("cat", "/run/slow").stdout.endswith("\n"), within=60)
    assert visitor.read("/run/slow").split() == [str(64 * 2**20), "200"]


def test_custom_domains_beside_the_wildcard(
    operator: Operator, scenario: Scenario, client: Client, web: Web, visitor: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """One order for each custom domain that is live; none for a name of ours, however deep."""
    client.shell("test -e /run/alice || ssh-keygen -q -t ed25519 -N '' -f /run/alice").expect()
    alice = {"name": "alice", "keys": [client.read("/run/alice.pub").strip()], "names": ["alice-shop"]}
    variables = provider(scenario, "main") | {"tunnel_tls": "both"}
    variables |= {"tunnel_accounts": [alice | {"domains": {SITE: "alice-shop", f"closed.{SITE}": "alice-shop"}}]}
    operator.run(variables=variables).expect()
    orders = ca.orders()
    assert visitor.get(f"https://{SITE}/").status == 0, "nobody holds the name"
    with client.tunnel("alice-shop:80", to=web, user="alice", options=["-i", "/run/alice"]):
        assert "Hello from web." in visitor.get(f"https://alice-shop.{domain}/").body
        assert visitor.get(f"https://a.alice-shop.{domain}/").status == 0
        assert ca.orders() == orders
        assert "Hello from web." in visitor.get(f"https://{SITE}/").body
        assert ca.orders() == orders + 1
        for name in (f"alice-shop.{domain}", SITE):
            by_the_edge(visitor, host, f"https://{name}/")
    scan = visitor.exec("python3", "-", domain, "1000", stdin=HANDSHAKES.encode(), timeout=180).expect()
    assert sum(json.loads(scan.stdout).values()) == 1000
    assert ca.orders() == orders + 1


# And back.


def test_back_to_on_demand_nothing_is_ordered_again(
    operator: Operator, visitor: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """The certificates of before are still there."""
    orders = ca.orders()
    operator.run().expect()
    until("the landing page is there", lambda: visitor.get(f"https://{domain}/").status == 200, within=20)
    by_the_edge(visitor, host, f"https://{NAME}.{domain}/")
    assert re.findall(r"DNS:([^,\s]+)", visitor.certificate(f"{NAME}.{domain}")) == [f"{NAME}.{domain}"]
    assert ca.orders() == orders
    idempotent(operator, {})


def test_one_in_its_last_third_is_caddys_until_it_is_renewed(
    client: Client, web: Web, visitor: Visitor, host: Host, ca: Ca, domain: str
) -> None:
    """Its first visitor is shown the old one, and makes Caddy order; then the edge shows what has come."""
    name = f"guest-late.{domain}"
    with client.tunnel("guest-late:80", to=web):
        old = planted(host, name, age=61, left=29)
        orders = ca.orders()
        assert serial(visitor, name) == old
        until("it is renewed", lambda: serial(visitor, name) != old, within=30)
        by_the_edge(visitor, host, f"https://{name}/")
        assert ca.orders() == orders + 1


def test_visitors_have_modern_protocols(visitor: Visitor, domain: str) -> None:
    """TLS 1.2 and 1.3, with hybrid post-quantum keys, and no older one; HTTP/1.1, 2 and 3."""
    for name in (domain, f"{NAME}.{domain}"):
        for http in ("1.1", "2", "3"):
            assert visitor.get(f"https://{name}/", http=http).version == http
        connect = f"openssl s_client -connect {name}:443 -servername {name} -CAfile /run/root.pem </dev/null 2>&1"
        for version, allowed in {"-tls1": False, "-tls1_1": False, "-tls1_2": True, "-tls1_3": True}.items():
            said = visitor.shell(connect.replace("s_client", f"s_client {version} -cipher DEFAULT@SECLEVEL=0")).stdout
            assert ("Verify return code: 0" in said and "Cipher is (NONE)" not in said) is allowed, (version, said)
        assert "X25519MLKEM768" in visitor.shell(connect.replace("s_client", "s_client -groups X25519MLKEM768")).stdout
