# SPDX-License-Identifier: GPL-3.0-or-later
"""What else an operator may choose: one host goes through it, in this order, with one tunnel that stays."""

from __future__ import annotations

import os
import pathlib
import re
import time
from typing import Any

import pytest
from common import (
    CADDY,
    DATA,
    EDGE,
    NAME,
    Authority,
    Strict,
    by_the_edge,
    idempotent,
    known_to,
    paused,
    provider,
    refused,
    renew,
    serial,
    unbroken,
)
from playbook import ROOT, Operator
from world import Client, Container, Host, Scenario, Visitor, Web, World, until

pytestmark = pytest.mark.usefixtures("it_is_there_before_and_after")

WIKI = "wiki.shop.example.org"


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


def test_plain_names_and_hsts_are_choices(operator: Operator, visitor: Visitor, domain: str) -> None:
    assert "strict-transport-security" not in visitor.get(f"https://{NAME}.{domain}/").headers
    operator.run(variables={"tunnel_plain_names": [NAME], "tunnel_hsts": 3600}).expect()
    started = time.monotonic()
    until("http stays http", lambda: visitor.get(f"http://{NAME}.{domain}/", http="1.1").status == 200)
    assert time.monotonic() - started < 5
    assert visitor.get(f"https://{NAME}.{domain}/").headers["strict-transport-security"] == "max-age=3600"


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


def test_a_certificate_that_cannot_be_used_is_refused(operator: Operator, authority: Authority, domain: str) -> None:
    good = authority.sign("good", domain, f"*.{domain}")
    other = authority.sign("other", domain, f"*.{domain}")
    mixed = good | {"tunnel_certificate_key_file": other["tunnel_certificate_key_file"]}
    refused(operator.run(variables=mixed), "The key does not belong to the certificate")
    narrow = authority.sign("narrow", domain)
    refused(operator.run(variables=narrow), f"The certificate is for {domain}, not for *.{domain}")
    nowhere = good | {"tunnel_certificate_file": "/nowhere/fullchain.pem"}
    refused(
        operator.run(variables=nowhere),
        'tunnel_certificate_file is "/nowhere/fullchain.pem", which can\'t be read on the control node',
    )


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
        assert operator.run(variables=strict).expect().changed == ["caddy_frontend : Run Caddy: reloaded"]
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
    assert serial(guest, f"{NAME}.{domain}") == serial(guest, domain)
    by_the_edge(guest, host, f"https://{NAME}.{domain}/")


def test_a_wildcard_that_cannot_be_had_takes_no_certificate_away(
    operator: Operator, scenario: Scenario, guest: Visitor, host: Host, domain: str
) -> None:
    """The run fails with the reason, and visitors are shown the certificates of before, as are those who come again."""
    before = serial(guest, domain)
    variables = provider(scenario, "challenges")
    variables["tunnel_dns_settings"] |= {"secret": "bm90LXRoaXMtc2VjcmV0"}
    told = operator.run(variables=variables)
    assert told.code != 0
    assert "visitors are shown the present ones as before" in told.message
    assert "The peer didn't like the signature we sent" in told.output
    assert "/etc/proxme-tunnel/nginx_subdomains/settings.lua" not in told.changed
    host.docker("restart", CADDY, timeout=60).expect()
    until("it is served", lambda: guest.get(f"https://{NAME}.{domain}/").status == 200, within=20)
    assert serial(guest, domain) == before


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
        by_the_edge(visitor, host, f"https://{NAME}.{domain}/")
        assert visitor.get(f"https://nobody.{domain}/").status == 0
    assert host.exec("ls", f"{DATA}/own").stdout == "", "what is left of the other choices is gone"
    timers = host.exec("systemctl", "list-units", "--all", "--plain", "proxme-tunnel-own-certificate.*").expect()
    assert "own-certificate" not in timers.stdout


def test_other_ports_and_a_proxy_that_says_who_visits(
    operator: Operator, world: World, host: Host, domain: str
) -> None:
    """Who comes by a trusted proxy comes to Caddy itself. All others come to the edge, which believes nobody."""
    with world.visitor() as proxy, world.visitor() as visitor:
        own = {each: each.exec("hostname", "-i").expect().stdout.strip() for each in (proxy, visitor)}
        variables = {"tunnel_tls": "internal", "tunnel_http_port": 8080, "tunnel_https_port": 8443}
        variables |= {"tunnel_trusted_proxies": [own[proxy]], "tunnel_proxy_protocol": True}
        operator.run(variables=variables).expect()
        url, said = f"https://{NAME}.{domain}:8443/echo", ["--haproxy-protocol", "--haproxy-clientip", "203.0.113.7"]
        for each in (proxy, visitor):
            each.trust(host.read(f"{DATA}/caddy/pki/authorities/local/root.crt"))
        until("the landing page is there", lambda: visitor.get(f"https://{domain}:8443/").status == 200)
        by_the_edge(visitor, host, url)
        assert visitor.get(url).sent("X-Forwarded-For") == [own[visitor]]
        assert visitor.get(url, options=said).status == 0
        plain = visitor.get(f"http://{NAME}.{domain}:8080/a", http="1.1")
        assert (plain.status, plain.headers["location"]) == (308, f"https://{NAME}.{domain}:8443/a")
        with paused(host, EDGE):
            assert proxy.get(url, options=said).sent("X-Forwarded-For") == ["203.0.113.7"]
            assert proxy.get(f"https://{domain}:8443/", options=said).status == 200


def test_off_changes_nothing_the_second_time(operator: Operator, behind: dict[str, Any], host: Host) -> None:
    """Nor is there an edge, which has nothing to tell apart."""
    idempotent(operator, behind)
    assert not [container for container in host.containers() if container.startswith((EDGE, "proxme-tunnel-relay"))]


def test_a_key_for_a_zone_of_challenges_alone(
    operator: Operator, scenario: Scenario, visitor: Visitor, host: Host, domain: str
) -> None:
    """_acme-challenge is a CNAME into a zone that serves nothing else; the host has no key for the main one."""
    change = f"server 127.0.0.1\nzone {domain}\nupdate delete _acme-challenge.{domain}\n"
    change += f"update add _acme-challenge.{domain} 5 CNAME proxme.challenges.example.\nsend\n"
    Container(scenario.dns).exec("nsupdate", "-k", "/run/named/session.key", stdin=change.encode()).expect()
    operator.run(variables=provider(scenario, "challenges")).expect()
    by_the_edge(visitor, host, f"https://{NAME}.{domain}/")
    before = serial(visitor, domain)
    renew(host)
    until("the new one is served", lambda: serial(visitor, domain) != before)


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
