# SPDX-License-Identifier: GPL-3.0-or-later
"""One host goes through the choices of tunnel_tls, in this order, with one tunnel that stays.

The scenario `tls` runs those that are not marked slow, and the scenario `choices` those that are.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from common import idempotent, known_to, provider, refused
from playbook import ROOT, Operator
from test_certificates import HANDSHAKES
from world import Ca, Client, Container, Host, Scenario, Tunnel, Visitor, Web, World, run, until

CADDY = "proxme-tunnel-caddy"
DATA = "/var/lib/proxme-tunnel/caddy_frontend"
NAME = "guest-live"
SITE = "shop.example.org"
WIKI = "wiki.shop.example.org"


class Authority:
    """An authority of the tests' own that signs what an operator brings."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Make its key and root in `folder`."""
        self.folder = folder
        root = ["-days", "30", "-subj", "/CN=Root of the operator", "-addext", "keyUsage=keyCertSign,cRLSign"]
        self._openssl("req", "-x509", *self._new("root"), *root)
        self.root = (folder / "root.pem").read_text()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def _new(self, name: str) -> list[str]:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        return [*key, "-keyout", f"{name}.key", "-out", f"{name}.pem"]

    def sign(self, name: str, *hosts: str, days: int = 30) -> dict[str, Any]:
        """The variables for a certificate for these hosts, in files that begin with `name`."""
        names = ",".join(f"DNS:{host}" for host in hosts)
        signed = ["-CA", "root.pem", "-CAkey", "root.key", "-days", str(days)]
        what = [f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"]
        extensions = [word for extension in what for word in ("-addext", extension)]
        self._openssl("req", "-x509", *self._new(name), *signed, "-subj", "/CN=x", *extensions)
        return {
            "tunnel_tls": "files",
            "tunnel_certificate_file": str(self.folder / f"{name}.pem"),
            "tunnel_certificate_key_file": str(self.folder / f"{name}.key"),
        }


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


@dataclass(frozen=True)
class Strict:
    """A further CA, which registers nobody without the external account binding that it gave out."""

    ca: Ca
    binding: dict[str, str]
    trusted: pathlib.Path

    # Where overhear.py stands before it, and what that notes.
    OVERHEARD = 14443
    ORDERS = "/run/orders"

    def directory(self, port: int = 14000) -> str:
        """Address of its directory."""
        return f"https://{self.ca.name.rpartition('-')[2]}:{port}/dir"

    @property
    def variables(self) -> dict[str, Any]:
        """What an operator writes who has the binding and wants a profile."""
        return {
            "tunnel_acme_directory": self.directory(self.OVERHEARD),
            "tunnel_acme_ca_root": str(self.trusted),
            "tunnel_acme_eab": self.binding,
            "tunnel_acme_profile": "shortlived",
        }

    def orders(self) -> list[dict[str, Any]]:
        """The orders that were sent to the port that is listened in to."""
        return [json.loads(line) for line in self.ca.read(self.ORDERS).splitlines()]


@contextmanager
def strict_ca(world: World, name: str, folder: pathlib.Path) -> Iterator[Strict]:
    """Such a CA, for as long as the `with` block lasts."""
    binding = {"key_id": f"key-of-{name}", "mac_key": secrets.token_urlsafe(32)}
    scenario = world.scenario
    options = [f"--env=EAB={binding['key_id']}:{binding['mac_key']}", f"--env=CHALLENGES={scenario.dns_address}"]
    start = f'exec ca {scenario.domain} {scenario.host_address} "$(hostname -i)"'
    ca = Ca(world.container(name, *options, command=["sh", "-c", start]))
    try:
        until("the CA answers", ca.root)
        trusted = folder / f"{name}.pem"
        trusted.write_text(ca.read("/srv/ca/root.pem"))
        with ca.background("overhear.py", str(Strict.OVERHEARD), Strict.ORDERS):
            until("its orders are noted", lambda: ca.exec("test", "-e", Strict.ORDERS).code == 0)
            yield Strict(ca, binding, trusted)
    finally:
        ca.remove()


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


@pytest.fixture(autouse=True)
def it_is_there_before_and_after(tunnel: Tunnel) -> Iterator[None]:
    """No change of the front end drops a tunnel."""
    assert tunnel.running
    yield
    assert tunnel.running


def serial(visitor: Visitor, name: str) -> str:
    """Serial number of the certificate that a name is shown with."""
    return re.search(r"Serial Number:\s*(\S+)", visitor.certificate(name))[1]


@contextmanager
def unbroken(visitor: Visitor, url: str) -> Iterator[None]:
    """An open WebSocket that must still be there at the end of the block and answer once a second meanwhile."""
    script = (
        "import asyncio, ssl, sys, websockets\n"
        "async def main():\n"
        "    tls = ssl.create_default_context(cafile='/run/root.pem') if sys.argv[1].startswith('wss') else None\n"
        "    async with websockets.connect(sys.argv[1], ssl=tls) as socket:\n"
        "        for turn in range(600):\n"
        "            await socket.send(str(turn))\n"
        "            assert str(turn) in await asyncio.wait_for(socket.recv(), 5)\n"
        "            print(turn, flush=True)\n"
        "            await asyncio.sleep(1)\n"
        "            if open('/run/enough').read(): return print('whole', flush=True)\n"
        "asyncio.run(main())\n"
    )
    visitor.write("/run/echo.py", script)
    visitor.write("/run/enough", "")
    visitor.spawn("sh", "-c", f"python3 /run/echo.py {url} >/run/echo.log 2>&1")
    until("the WebSocket is open", lambda: "0" in visitor.exec("cat", "/run/echo.log").stdout)
    yield
    visitor.write("/run/enough", "yes")
    until("the echo ends", lambda: not visitor.exec("pgrep", "-f", "[/]run/echo.py").stdout)
    log = visitor.read("/run/echo.log")
    assert log.endswith("whole\n"), log


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


@pytest.mark.slow
def test_a_day_has_a_budget(operator: Operator, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Names that are always allowed and names that have a certificate do not count; the rest is said in the log."""
    variables = {"tunnel_certificates_per_day": 0, "tunnel_certificates_always": ["guest-always"]}
    assert visitor.get(f"https://{NAME}.{domain}/").status == 200
    operator.run(variables=variables).expect()
    with client.tunnel("guest-late:80", "guest-always:80", to=web):
        assert visitor.get(f"https://guest-late.{domain}/").status == 0
        assert visitor.get(f"https://guest-always.{domain}/").status == 200
        assert visitor.get(f"https://{NAME}.{domain}/").status == 200
    said = operator.scenario.host
    assert f"no certificate for guest-late.{domain}" in Host(said).docker("logs", "proxme-tunnel-nginx").output


@pytest.mark.slow
def test_plain_names_and_hsts_are_choices(operator: Operator, visitor: Visitor, domain: str) -> None:
    assert "strict-transport-security" not in visitor.get(f"https://{NAME}.{domain}/").headers
    operator.run(variables={"tunnel_plain_names": [NAME], "tunnel_hsts": 3600}).expect()
    started = time.monotonic()
    until("http stays http", lambda: visitor.get(f"http://{NAME}.{domain}/", http="1.1").status == 200)
    assert time.monotonic() - started < 5
    assert visitor.get(f"https://{NAME}.{domain}/").headers["strict-transport-security"] == "max-age=3600"


@pytest.mark.slow
def test_a_second_authority_is_asked_when_the_first_one_refuses(
    operator: Operator, client: Client, web: Web, world: World, host: Host, one: Strict, other: Strict, domain: str
) -> None:
    """The first one gives nothing without its external account binding; the other has got its own."""
    # A name that has no certificate yet.
    url = f"https://guest-second.{domain}/"
    variables = {
        "tunnel_acme_directory": one.directory(),
        "tunnel_acme_ca_root": str(one.trusted),
        "tunnel_acme_fallback_directory": other.directory(),
        "tunnel_acme_fallback_ca_root": str(other.trusted),
        "tunnel_acme_fallback_eab": other.binding,
    }
    told = operator.run(ROOT / "site.yml", "-vvv", "--diff", variables=variables).expect()
    assert other.binding["mac_key"] not in told.output
    with client.tunnel("guest-second:80", to=web), world.visitor() as visitor:
        visitor.trust(other.ca.root())
        until("the other's certificate is there", lambda: visitor.get(url).status == 200, within=30)
    assert one.ca.issued() == 0
    assert "externalAccountRequired" in host.docker("logs", CADDY).output


@pytest.mark.slow
def test_an_authority_that_wants_an_account_and_has_profiles(
    operator: Operator, client: Client, web: Web, world: World, host: Host, one: Strict, other: Strict, domain: str
) -> None:
    """With its binding it issues, by the profile that was chosen; nobody else is told the binding's key."""
    url = f"https://guest-bound.{domain}/"
    told = operator.run(ROOT / "site.yml", "-vvv", "--diff", variables=one.variables).expect()
    # Nor what is no longer in use.
    assert not [secret for secret in (one, other) if secret.binding["mac_key"] in told.output]
    with client.tunnel("guest-bound:80", to=web), world.visitor() as visitor:
        visitor.trust(one.ca.root())
        until("its certificate is there", lambda: visitor.get(url).status == 200, within=30)
    assert {order.get("profile") for order in one.orders()} == {"shortlived"}
    known_to(host, one.binding["mac_key"], {"400 65532"})
    idempotent(operator, one.variables)


# files


@pytest.mark.slow
def test_a_certificate_that_can_not_be_used_is_refused(operator: Operator, authority: Authority, domain: str) -> None:
    good = authority.sign("good", domain, f"*.{domain}")
    other = authority.sign("other", domain, f"*.{domain}")
    mixed = good | {"tunnel_certificate_key_file": other["tunnel_certificate_key_file"]}
    refused(operator.run(variables=mixed), "The key does not belong to the certificate")
    narrow = authority.sign("narrow", domain)
    refused(operator.run(variables=narrow), f"The certificate is for {domain}, not for *.{domain}")
    nowhere = good | {"tunnel_certificate_file": "/nowhere/fullchain.pem"}
    refused(operator.run(variables=nowhere), 'There is no file "/nowhere/fullchain.pem" on the control node')


def test_a_certificate_of_the_operators(
    operator: Operator, authority: Authority, guest: Visitor, ca: Ca, domain: str
) -> None:
    """One for all names; nobody is asked for another, and a new one is taken over without closing anything."""
    first = authority.sign("first", domain, f"*.{domain}")
    operator.run(variables=first).expect()
    orders = ca.orders()
    assert guest.get(f"https://{domain}/").status == 200
    assert "Hello from web." in guest.get(f"https://{NAME}.{domain}/").body
    assert guest.get(f"https://nobody.{domain}/").status == 404
    assert guest.get(f"https://a.{NAME}.{domain}/").status == 0
    before = serial(guest, domain)
    with unbroken(guest, f"wss://{NAME}.{domain}/ws"):
        changed = operator.run(variables=authority.sign("second", domain, f"*.{domain}")).expect().changed
        assert changed == [
            "caddy_frontend : Copy the operator's certificate and key",
            "caddy_frontend : Reload Caddy",
        ]
        until("the new one is served", lambda: serial(guest, domain) != before)
    assert ca.orders() == orders


@pytest.mark.slow
def test_sites_of_the_operator_stand_beside_the_tunnels(
    operator: Operator,
    authority: Authority,
    visitor: Visitor,
    guest: Visitor,
    host: Host,
    domain: str,
    tmp_path: pathlib.Path,
) -> None:
    """They get certificates of their own; a broken one is refused with what Caddy says of it, and all goes on."""
    site = tmp_path / "shop.caddy"
    site.write_text(f'{WIKI} {{\n\trespond "the shop"\n}}\n')
    # A path from where the playbook is started.
    folder = os.path.relpath(tmp_path, ROOT)
    variables = authority.sign("sites", domain, f"*.{domain}") | {"tunnel_sites": [folder]}
    operator.run(variables=variables).expect()
    until("the shop is there", lambda: visitor.get(f"https://{WIKI}/").body == "the shop", within=20)
    with unbroken(guest, f"wss://{NAME}.{domain}/ws"):
        site.write_text(f"{WIKI} {{\n\tresponnd oops\n}}\n")
        strict = variables | {"tunnel_hsts": 3600}
        broken = operator.run(variables=strict)
        assert broken.code != 0
        assert "unrecognized directive: responnd" in broken.output
        assert visitor.get(f"https://{WIKI}/").body == "the shop"
        # What that run had written before it ended is made up for, though now no file changes.
        site.write_text(f'{WIKI} {{\n\trespond "the shop"\n}}\n')
        assert operator.run(variables=strict).expect().changed == ["caddy_frontend : Reload Caddy"]
        assert guest.get(f"https://{NAME}.{domain}/").headers["strict-transport-security"] == "max-age=3600"
        site.write_text(f'{WIKI} {{\n\trespond "the new shop"\n}}\n')
        operator.run(variables=variables).expect()
        until("the new shop is there", lambda: visitor.get(f"https://{WIKI}/").body == "the new shop")
        # What lies on the host is there as well when a configuration is tried.
        host.exec("mkdir", "-p", "/srv/shop").expect()
        host.write("/srv/shop/answer.caddy", 'respond "the shop on the host"\n')
        site.write_text(f"{WIKI} {{\n\timport /srv/shop/answer.caddy\n}}\n")
        variables["tunnel_sites_volumes"] = ["/srv/shop:/srv/shop:ro"]
        operator.run(variables=variables).expect()
        until("the shop of the host", lambda: visitor.get(f"https://{WIKI}/").body == "the shop on the host")
    idempotent(operator, variables)


@pytest.mark.slow
def test_a_certificate_that_lies_on_the_host(
    operator: Operator, authority: Authority, guest: Visitor, host: Host, domain: str
) -> None:
    """The host itself takes a new one over, and does not take a wrong one."""
    variables = authority.sign("there", domain, f"*.{domain}") | {"tunnel_certificate_on_host": True}

    def bring(certificate: str, key: str) -> None:
        for name, file in (("there.pem", f"{certificate}.pem"), ("there.key", f"{key}.key")):
            host.write(f"/root/own/{name}", (authority.folder / file).read_text())

    host.exec("mkdir", "-p", "/root/own").expect()
    variables |= {
        "tunnel_certificate_file": "/root/own/there.pem",
        "tunnel_certificate_key_file": "/root/own/there.key",
    }
    bring("there", "there")
    operator.run(variables=variables).expect()
    idempotent(operator, variables)
    before = serial(guest, domain)
    assert "active" in host.exec("systemctl", "is-active", "proxme-tunnel-own-certificate.timer").stdout
    authority.sign("next", domain, f"*.{domain}")
    bring("next", "there")
    host.exec("systemctl", "start", "proxme-tunnel-own-certificate.service")
    assert host.exec("systemctl", "is-failed", "proxme-tunnel-own-certificate.service").stdout.strip() == "failed"
    assert serial(guest, domain) == before
    bring("next", "next")
    # A Caddy that can't be told now is told the next time.
    host.docker("pause", CADDY).expect()
    host.exec("systemctl", "start", "proxme-tunnel-own-certificate.service")
    host.docker("unpause", CADDY).expect()
    assert serial(guest, domain) == before
    host.exec("systemctl", "start", "proxme-tunnel-own-certificate.service").expect()
    until("the new one is served", lambda: serial(guest, domain) != before)
    assert guest.get(f"https://{NAME}.{domain}/").status == 200


@pytest.mark.slow
def test_a_wildcard_that_can_not_be_had_takes_no_certificate_away(
    operator: Operator, scenario: Scenario, guest: Visitor, host: Host, domain: str
) -> None:
    """The run fails with the reason, and visitors are shown the certificates of before, as are those who come anew."""
    before = serial(guest, domain)
    variables = provider(scenario, "challenges")
    variables["tunnel_dns_settings"] |= {"secret": "bm90LXRoaXMtc2VjcmV0"}
    told = operator.run(variables=variables)
    assert told.code != 0
    assert "visitors are shown the present ones as before" in told.message
    assert "The peer didn't like the signature we sent" in told.output
    assert "nginx_subdomains : Write the settings for the Lua" not in told.changed
    host.docker("restart", CADDY, timeout=60).expect()
    until("it is served", lambda: guest.get(f"https://{NAME}.{domain}/").status == 200, within=20)
    assert serial(guest, domain) == before


# internal


@pytest.mark.slow
def test_an_authority_of_the_hosts_own(operator: Operator, world: World, host: Host, domain: str) -> None:
    operator.run(variables={"tunnel_tls": "internal"}).expect()
    with world.visitor() as visitor:
        until(
            "there is a root", lambda: host.exec("test", "-e", f"{DATA}/caddy/pki/authorities/local/root.crt").code == 0
        )
        visitor.trust(host.read(f"{DATA}/caddy/pki/authorities/local/root.crt"))
        until("the landing page is there", lambda: visitor.get(f"https://{domain}/").status == 200)
        for http in ("1.1", "2", "3"):
            assert visitor.get(f"https://{NAME}.{domain}/", http=http).status == 200
        assert visitor.get(f"https://nobody.{domain}/").status == 0
    assert host.exec("ls", f"{DATA}/own").stdout == "", "what is left of the other choices is gone"


# off


@pytest.fixture(scope="module")
def behind(operator: Operator) -> dict[str, Any]:
    """The tunnel host speaks plain HTTP on its loopback; the variables that say so."""
    variables = {"tunnel_tls": False, "tunnel_ask_port": 9123, "tunnel_proxy_protocol": True}
    operator.run(variables=variables).expect()
    return variables


@pytest.fixture(scope="module")
def front(world: World, authority: Authority, scenario: Scenario, domain: str) -> Iterator[Container]:
    """Programs on the host itself (in its network), with a wildcard certificate of the operator's."""
    image = "proxme-test/caddy:2.11.7"
    if run("docker", "image", "inspect", image).code != 0:
        image = "caddy:2.11.7"
    name = f"{scenario.network}-front"
    built = world.with_image("fronts", CADDY=image).scenario.tools
    run("docker", "rm", "--force", "--volumes", name)
    run(
        *("docker", "run", "--detach", "--name", name, "--network", f"container:{scenario.host}", "--tmpfs", "/run"),
        *("--label", f"proxme.scenario={scenario.scenario}", built),
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


@pytest.mark.slow
def test_off_changes_nothing_the_second_time(operator: Operator, behind: dict[str, Any]) -> None:
    idempotent(operator, behind)


# wildcard, both


def renew(host: Host) -> None:
    """Let certbot renew the certificate now, though it is not due."""
    ini = "/etc/proxme-tunnel/certbot_wildcard/certbot/cli.ini"
    host.exec("sed", "-i", "s/^keep-until-expiring.*/force-renewal = true/", ini).expect()
    host.exec("systemctl", "start", "proxme-tunnel-certificate.service", timeout=120).expect()


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

    known_to(host, secret, {"600 0"})
    idempotent(operator, variables)


def test_a_renewal_closes_nothing(visitor: Visitor, host: Host, ca: Ca, domain: str) -> None:
    """Three within a minute, while a WebSocket echoes and a slow download runs; each is served."""
    url = f"https://{NAME}.{domain}/bytes/{64 * 2**20}"
    options = "-sS --cacert /run/root.pem --limit-rate 1M -o /dev/null -w '%{size_download} %{http_code}'"
    visitor.exec("rm", "-f", "/run/slow")
    with unbroken(visitor, f"wss://{NAME}.{domain}/ws"):
        visitor.spawn("sh", "-c", f"curl {options} {url} >/run/slow 2>&1; echo >>/run/slow")
        started, serials = time.monotonic(), {serial(visitor, domain)}
        for turn in range(3):
            renew(host)
            until("the new one is served", lambda turn=turn: len({*serials, serial(visitor, domain)}) == turn + 2)
            serials.add(serial(visitor, domain))
        assert time.monotonic() - started < 60
        assert visitor.exec("cat", "/run/slow").stdout.strip() == "", "the download was over before: it shows nothing"
        until("it is over", lambda: visitor.exec("cat", "/run/slow").stdout.endswith("\n"), within=60)
    assert visitor.read("/run/slow").split() == [str(64 * 2**20), "200"]


def test_custom_domains_beside_the_wildcard(
    operator: Operator, scenario: Scenario, client: Client, web: Web, visitor: Visitor, ca: Ca, domain: str
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
    scan = visitor.exec("python3", "-", domain, "1000", stdin=HANDSHAKES.encode(), timeout=180).expect()
    assert sum(json.loads(scan.stdout).values()) == 1000
    assert ca.orders() == orders + 1


@pytest.mark.slow
def test_a_key_for_a_zone_of_challenges_alone(
    operator: Operator, scenario: Scenario, visitor: Visitor, host: Host, domain: str
) -> None:
    """_acme-challenge is a CNAME into a zone that serves nothing else; the host has no key for the main one."""
    change = f"server 127.0.0.1\nzone {domain}\nupdate delete _acme-challenge.{domain}\n"
    change += f"update add _acme-challenge.{domain} 5 CNAME proxme.challenges.example.\nsend\n"
    Container(scenario.dns).exec("nsupdate", "-k", "/run/named/session.key", stdin=change.encode()).expect()
    operator.run(variables=provider(scenario, "challenges")).expect()
    before = serial(visitor, domain)
    renew(host)
    until("the new one is served", lambda: serial(visitor, domain) != before)


@pytest.mark.slow
def test_the_wildcard_of_an_authority_that_wants_an_account_and_has_profiles(
    operator: Operator, scenario: Scenario, world: World, host: Host, one: Strict, domain: str
) -> None:
    """The binding is given to certbot as it is to Caddy, and as secretly."""
    orders = one.orders()
    variables = provider(scenario, "challenges") | one.variables
    told = operator.run(ROOT / "site.yml", "-vvv", "--diff", variables=variables).expect()
    assert one.binding["mac_key"] not in told.output
    with world.visitor() as visitor:
        visitor.trust(one.ca.root())
        assert visitor.get(f"https://{NAME}.{domain}/").status == 200
        assert re.findall(r"DNS:([^,\s]+)", visitor.certificate(domain)) == [f"*.{domain}", domain]
    assert [order.get("profile") for order in one.orders()[len(orders) :]] == ["shortlived"]
    known_to(host, one.binding["mac_key"], {"400 65532", "600 0"})


# And back.


def test_back_to_on_demand_nothing_is_ordered_again(operator: Operator, visitor: Visitor, ca: Ca, domain: str) -> None:
    """The certificates of before are still there."""
    orders = ca.orders()
    operator.run().expect()
    until("the landing page is there", lambda: visitor.get(f"https://{domain}/").status == 200, within=20)
    assert visitor.get(f"https://{NAME}.{domain}/").status == 200
    assert ca.orders() == orders
    idempotent(operator, {})


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
