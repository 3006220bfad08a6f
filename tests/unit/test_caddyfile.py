# SPDX-License-Identifier: GPL-3.0-or-later
"""Caddy takes what the role writes in each mode and with each choice, and makes of it what they mean.

Each case is adapted and validated by the real program, and its JSON is looked at. Then Caddy runs with some of them,
and visitors come: what they may not say is not believed, and who is blocked gets nothing anywhere.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from ansible.template import trust_as_template
from programs import BIN
from render import ROLES, evaluate, in_every_case, render

ROLE = "caddy_frontend"
DOMAIN = "proxme.example"
GATEWAY = "172.20.0.1"
VISITORS, ASK = "unix//run/tunnel/visitors.sock", "unix//run/tunnel/ask.sock"
PROXIES = ["192.0.2.1", "198.51.100.0/24", "2001:db8::1", "2001:db8:1::/48"]
BLOCKED = ["203.0.113.9", "203.0.114.0/24", "2001:db8:9::/48"]
BLOCKED_RANGES = [
    "203.0.113.9",
    "::ffff:203.0.113.9/128",
    "203.0.114.0/24",
    "::ffff:203.0.114.0/120",
    "2001:db8:9::/48",
]
STAND_IN = "stands-for.the-module"
CONTROL = ROLES / ROLE / "files/control-caddy"
# Two domains of somebody's, of which one is not ended here.
SHOWN = [{"name": "a", "domains": {"shop.example.org": "a", "own.example.org": {"name": "a", "passthrough": True}}}]
SECOND = 10**9  # as Caddy writes it
PLAIN, STRICT = "X-Tunnel-Plain", "Strict-Transport-Security"
GRPC = [
    {
        "header": {"Content-Type": ["application/grpc*"]},
        "not": [{"header": {"Content-Type": ["application/grpc-web*"]}}],
        "protocol": "http/2+",
    }
]
NOT_LOGGED = [
    *("request>remote_ip", "request>remote_port", "request>proto", "request>method", "request>uri"),
    *("request>headers", "request>tls", "resp_headers", "user_id"),
]
SITE = 'http://own.example.org {\n\trespond "my own site"\n}\n'

MODES = ("on_demand", "both", "wildcard", "files", "internal", "off")
BY_DNS = {
    "tunnel_dns_provider": "cloudflare",
    "tunnel_dns_by_caddy": True,
    "tunnel_dns_settings": {"api_token": "S3cret", "zone": "x"},
}
# A key of google's has line breaks, which no configuration of Caddy's could hold.
BY_CERTBOT = {
    "tunnel_dns_provider": "google",
    "tunnel_dns_settings": {"private_key": "-----BEGIN PRIVATE KEY-----\nS3cret\n"},
}
EVERYWHERE: dict[str, dict[str, Any]] = {
    "plain": {},
    "proxies": {"tunnel_trusted_proxies": PROXIES},
    "proxy protocol": {"tunnel_trusted_proxies": PROXIES, "tunnel_proxy_protocol": True},
    "logged": {"tunnel_log_visitors": True, "tunnel_log_days": 3},
    "blocked": {"tunnel_blocked_addresses": BLOCKED, "tunnel_abuse_contact": "abuse@example.org"},
    "hsts": {"tunnel_hsts": 31536000},
    "headers": {"tunnel_headers": ["user_id", "x.api.version", "a_b.c"]},
    "sites": {"tunnel_sites": ["own.caddy"]},
    "passthrough": {"tunnel_accounts": SHOWN},
    "no edge": {"tunnel_edge": False},
}
ORDERED: dict[str, dict[str, Any]] = {
    "email": {"tunnel_acme_email": "me@example.org"},
    "root": {"tunnel_acme_ca_root": "root.pem", "tunnel_acme_directory": "https://ca.lan:14000/dir"},
    "profile": {"tunnel_acme_profile": "shortlived"},
    "eab": {"tunnel_acme_eab": {"key_id": "kid-1", "mac_key": "bWFj"}},
    "fallback": {"tunnel_acme_fallback_directory": "https://second.example/dir"},
    "fallback with all": {
        "tunnel_acme_profile": "shortlived",
        "tunnel_acme_fallback_directory": "https://second.example/dir",
        "tunnel_acme_fallback_eab": {"key_id": "kid-2", "mac_key": "bWFjMg"},
        "tunnel_acme_fallback_ca_root": "root.pem",
    },
}
PORTS = {"tunnel_http_port": 8080, "tunnel_https_port": 8443}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each choice alone in each mode in which it means something, and all of a mode at once."""
    for mode in MODES:
        choices = dict(EVERYWHERE)
        if mode == "off":
            choices["port"] = {"tunnel_listen": "0.0.0.0:8081"}
            choices["asked"] = {"tunnel_ask_port": 9321}
        else:
            choices["ports"] = PORTS
        if mode in ("on_demand", "both"):
            choices |= ORDERED
        if mode in ("both", "wildcard"):
            choices["by certbot"] = BY_CERTBOT
            choices["by DNS"] = BY_DNS
            choices["by DNS, without settings"] = BY_DNS | {"tunnel_dns_settings": {}}
            choices["by DNS, patient"] = BY_DNS | {"tunnel_dns_propagation_seconds": 30}
            choices["by DNS, asking others"] = BY_DNS | {"tunnel_dns_resolvers": ["192.0.2.53", "2001:db8::53"]}
            choices["by DNS, with all"] = {
                name: value for given in (*ORDERED.values(), *choices.values()) for name, value in given.items()
            }
        yield from ((f"{mode}: {name}", {"tunnel_tls": mode, **given}) for name, given in choices.items())
        every = [pair for given in choices.values() for pair in given.items()]
        own = {name: value for name, value in every if "_dns_" not in name and name != "tunnel_edge"}
        yield f"{mode}: everything", {"tunnel_tls": mode, **own}


CASES = dict(cases())
each_case = in_every_case("adapted", CASES)


@dataclass
class Site:
    """What is served for some hosts at an address: each handler in its order, with the conditions that it is under."""

    listen: str
    hosts: list[str]
    steps: list[tuple[list[dict[str, Any]], dict[str, Any]]]

    def before(self, found: dict[str, Any]) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
        """What comes before a handler."""
        return self.steps[: next(number for number, (_, handler) in enumerate(self.steps) if handler is found)]

    def tunnels(self) -> list[dict[str, Any]]:
        """The handlers that lead to nginx."""
        return [handler for _, handler in self.steps if leads_to(handler, VISITORS)]


def leads_to(handler: dict[str, Any], address: str) -> bool:
    """Whether a handler passes requests on to an address."""
    return {"dial": address} in handler.get("upstreams", [])


def steps(routes: list[dict[str, Any]], under: list[dict[str, Any]]) -> Iterator[tuple[list[dict], dict]]:
    """Every handler of these routes and of those within them."""
    for route in routes:
        conditions = [*under, *route.get("match", [])]
        for handler in route["handle"]:
            if handler["handler"] == "subroute":
                yield from steps(handler["routes"], conditions)
            else:
                yield conditions, handler


@dataclass
class Adapted:
    """A case, as Caddy has read it."""

    given: dict[str, Any]
    files: dict[str, str]
    config: dict[str, Any]
    folder: Path

    @property
    def mode(self) -> str:
        """The choice of where certificates come from."""
        return self.given["tunnel_tls"]

    @property
    def asks(self) -> bool:
        """Whether a name may get a certificate of its own."""
        return self.mode in ("on_demand", "both", "internal")

    @property
    def by_dns(self) -> bool:
        """Whether Caddy orders one certificate for all names."""
        return "tunnel_dns_by_caddy" in self.given

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The value of a variable of the case."""
        return self.given.get(f"tunnel_{name}", otherwise)

    @property
    def http(self) -> str:
        """Where plain HTTP is served."""
        port = self.get("listen", "127.0.0.1:8080").split(":")[1] if self.mode == "off" else self.get("http_port", 80)
        return f":{port}"

    @property
    def https(self) -> str:
        """Where HTTPS is served, if it is."""
        return "" if self.mode == "off" else f":{self.get('https_port', 443)}"

    @property
    def ask(self) -> str:
        """Where it is asked whether a name may have a certificate."""
        return "127.0.0.1:9123" if self.asks else "0.0.0.0:9123" if self.get("ask_port") else ""

    @property
    def spare(self) -> str:
        """Where visitors come by the edge for whom nginx is away."""
        return "127.0.0.1:65447" if self.https and self.get("edge", True) else ""

    @property
    def servers(self) -> dict[str, dict[str, Any]]:
        """The servers by where they listen."""
        servers = self.config["apps"]["http"]["servers"].values()
        assert all(len(server["listen"]) == 1 for server in servers)
        return {server["listen"][0]: server for server in servers}

    @functools.cached_property
    def sites(self) -> list[Site]:
        """What visitors come to, without the operator's own sites."""
        found = []
        for listen, server in self.servers.items():
            for route in server["routes"] if listen != self.ask else []:
                hosts = [host for match in route.get("match", []) for host in match["host"]]
                found.append(Site(listen, hosts, list(steps([route], []))))
        return [site for site in found if site.hosts != ["own.example.org"]]

    @property
    def tls(self) -> dict[str, Any]:
        """All about certificates."""
        return self.config["apps"].get("tls", {})

    @property
    def policies(self) -> list[dict[str, Any]]:
        """How certificates come, for whom."""
        return self.tls.get("automation", {}).get("policies", [])


def written_files(given: dict[str, Any], folder: Path) -> dict[str, str]:
    """What the role writes, by the path below /etc/caddy."""
    given = {"tunnel_domain": DOMAIN, "__caddy_frontend_network_made": {"stdout": GATEWAY}, **given}
    if "tunnel_sites" in given:
        (folder / "own.caddy").write_text(SITE)
        given["tunnel_sites"] = [str(folder / "own.caddy")]
    files = {f"{name}.caddy": render(ROLE, f"{name}.caddy.j2", **given) for name in ("blocked", "sites")}
    files |= {
        "passthrough.json": render(ROLE, "passthrough.json.j2", **given),
        "control-caddy": CONTROL.read_text(),
        secrets_name(given): render(ROLE, "secrets.caddy.j2", **given),
        "Caddyfile": render(ROLE, "Caddyfile.j2", **given),
    }
    return files


def secrets_name(given: dict[str, Any]) -> str:
    """The name of the file with the secrets."""
    return evaluate(ROLE, trust_as_template("{{ __caddy_frontend_secrets }}"), **given)


def put(files: dict[str, str], folder: Path, pem: str) -> None:
    """Write the files below a folder, which has the container's other folders as well, with a certificate in them."""
    for made in ("etc/landing", "data/own", "log"):
        (folder / made).mkdir(parents=True)
    for name, text in files.items():
        # No released Caddy has a module for DNS. An option that needs none stands for it and for what it is told.
        text = re.sub(
            r"^\tdns .* \{\n(?:\t\t.*\n)*\t\}\n", f"\tdns_challenge_override_domain {STAND_IN}\n", text, flags=re.M
        )
        text = text.replace("/etc/caddy/", f"{folder}/etc/").replace("/var/log/visitors/", f"{folder}/log/")
        (folder / "etc" / name).write_text(re.sub(r"(?<= )/data\b", f"{folder}/data", text))
    for name in ("etc/acme-ca-root.pem", "etc/acme-fallback-ca-root.pem", "data/own/own.pem"):
        (folder / name).write_text(pem)
    for name in ("index", "without-certificate"):
        (folder / f"etc/landing/{name}.html").write_text(f"the page {name}")


def environment(folder: Path) -> dict[str, str]:
    """An environment in which Caddy keeps everything below a folder."""
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "XDG_DATA_HOME": f"{folder}/data"}


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> str:
    """Return a certificate for the domain and all names below it, with its key."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=own", "-addext", f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}", "-keyout", "key", "-out", "crt"],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    return (folder / "crt").read_text() + (folder / "key").read_text()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, pem):
    """Return a function that gives what Caddy has read of a case, and found valid."""
    known: dict[str, Adapted | str] = {}

    def give(case: str) -> Adapted:
        if case not in known:
            folder = tmp_path_factory.mktemp("caddy")
            files = written_files(dict(CASES[case]), folder)
            put(files, folder, pem)
            # Without the module a DNS challenge can be read, but not tried.
            tried = [] if "tunnel_dns_by_caddy" in CASES[case] else ["--validate"]
            command = [BIN / "caddy", "adapt", *tried, "--adapter=caddyfile", "--config", folder / "etc/Caddyfile"]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(folder))
            if not done.returncode:
                command = ["sh", folder / "etc/control-caddy", "configuration"]
                done = subprocess.run(command, capture_output=True, text=True, env=environment(folder))
            if done.returncode:
                known[case] = f"Caddy refuses {case}:\n{done.stderr}"
            else:
                known[case] = Adapted(CASES[case], files, json.loads(done.stdout.replace(str(folder), "")), folder)
        made = known[case]
        if isinstance(made, str):
            pytest.fail(made, pytrace=False)
        return made

    return give


@each_case
def test_caddy_takes_it_and_listens_where_it_should(made, case):
    wanted = {made.http, made.https, made.ask, made.spare} - {""}
    # The operator's own site is plain, and comes to port 80 or what stands for it.
    assert set(made.servers) == wanted
    assert made.config["admin"] == {"listen": "unix//run/caddy/admin.sock", "config": {"persist": False}}
    for listen, server in made.servers.items():
        assert ("tls_connection_policies" in server) == (listen == made.https)
        assert server.get("automatic_https") == ({"disable": True} if made.mode == "off" else None)
        assert server["read_header_timeout"] == 10 * SECOND
        assert server["idle_timeout"] == 300 * SECOND
        # A visitor may pause.
        assert server["read_idle_timeout"] == server["write_idle_timeout"] == 24 * 3600 * SECOND
        # More than nginx takes (large_client_header_buffers), so that its page says so.
        assert server["max_header_bytes"] == 256_000
        # TLS, and the choice of HTTP, were the edge's.
        assert server.get("protocols") == (["h1", "h2c"] if listen == made.spare else None)
    assert made.config["apps"]["http"]["grace_period"] == 10 * SECOND


@each_case
def test_a_name_gets_a_certificate_only_when_nginx_says_that_its_tunnel_is_live(made, case):
    permission = {"permission": {"module": "http", "endpoint": "http://127.0.0.1:9123/"}}
    assert made.tls.get("automation", {}).get("on_demand") == (permission if made.asks else None)
    # For all names that no other policy is for.
    on_demand = [policy for policy in made.policies if policy.get("on_demand")]
    assert [policy.get("subjects") for policy in on_demand] == ([None] if made.asks else [])
    if made.ask:
        ((conditions, door),) = steps(made.servers[made.ask]["routes"], [])
        assert conditions == []
        assert leads_to(door, ASK)
    for site in made.sites:
        assert not any(leads_to(handler, ASK) for _, handler in site.steps)


@each_case
def test_certificates_come_from_where_the_mode_says(made, case):
    folders = ["/data/own"] if made.mode in ("wildcard", "both", "files") and not made.by_dns else None
    assert made.tls.get("certificates", {}).get("load_folders") == folders
    if made.mode == "off":
        assert made.tls == {}
        return
    subjects = {subject for policy in made.policies for subject in policy.get("subjects", [])}
    own = {DOMAIN, f"www.{DOMAIN}"} if made.mode in ("on_demand", "internal") else set()
    assert subjects == ({DOMAIN, f"*.{DOMAIN}"} if made.by_dns else own)
    if made.mode == "internal":
        assert all(policy["issuers"] == [{"module": "internal"}] for policy in made.policies)
        return
    wanted = [authority(made, "acme", "letsencrypt")]
    if made.get("acme_fallback_directory"):
        wanted.append(authority(made, "acme_fallback", ""))
    for policy in made.policies:
        asked = [
            {name: value for name, value in issuer.items() if name != "challenges"} for issuer in policy["issuers"]
        ]
        assert asked == wanted
        for issuer in policy["issuers"]:
            if "subjects" in policy and made.by_dns:
                assert issuer["challenges"] == {"dns": dns_challenge(made)}
            else:
                ports = {"http": {"alternate_port": int(made.http[1:])}}
                ports["tls-alpn"] = {"alternate_port": int(made.https[1:])}
                assert issuer["challenges"] == ports


@each_case
def test_tls_that_is_passed_through_is_refused_before_all_else(made, case):
    for listen, server in made.servers.items():
        policies = server.get("tls_connection_policies", [])
        dropped = [policy for policy in policies if policy.get("drop")]
        wanted = made.get("accounts") and listen == made.https
        assert dropped == [{"match": {"sni": ["own.example.org"]}, "drop": True}] * bool(wanted)
        assert policies[: len(dropped)] == dropped
        assert len(policies) > len(dropped) or not policies, "who comes for another name is served"


def authority(made: Adapted, prefix: str, name: str) -> dict[str, Any]:
    """What Caddy is to know of an authority."""
    directory = made.get(f"{prefix}_directory", "https://acme-v02.api.letsencrypt.org/directory")
    binding = made.get(f"{prefix}_eab")
    known = {
        "module": "acme",
        "ca": directory,
        "email": made.get("acme_email"),
        "profile": made.get(f"{prefix}_profile"),
        "external_account": binding,
        "trusted_roots_pem_files": [f"/etc/{prefix.replace('_', '-')}-ca-root.pem"]
        if made.get(f"{prefix}_ca_root")
        else None,
    }
    return {name: value for name, value in known.items() if value}


def dns_challenge(made: Adapted) -> dict[str, Any]:
    """How the challenge of the wildcard is to be answered."""
    wanted: dict[str, Any] = {"override_domain": STAND_IN}
    if seconds := made.get("dns_propagation_seconds"):
        wanted |= {"propagation_delay": seconds * SECOND, "propagation_timeout": -1}
    if resolvers := made.get("dns_resolvers"):
        wanted["resolvers"] = resolvers
    return wanted


@each_case
def test_secrets_are_in_their_own_file_alone_which_is_named_by_what_is_in_it(made, case):
    (name,) = [name for name in made.files if name.startswith("secrets-")]
    secrets = made.files[name]
    assert made.files["Caddyfile"].count(f"import /etc/caddy/{name}\n") == 1
    for binding in (made.get("acme_eab"), made.get("acme_fallback_eab")):
        if binding:
            assert f"\teab {binding['key_id']} {binding['mac_key']}\n" in secrets
            assert binding["mac_key"] not in made.files["Caddyfile"]
    # Only who asks for the wildcard gets the provider's settings.
    told = made.by_dns and bool(made.get("dns_settings"))
    assert ("S3cret" in secrets) == told
    assert "S3cret" not in made.files["Caddyfile"]
    # What no released Caddy can read: the module and what it asks for.
    settings = '\t\tapi_token "S3cret"\n\t\tzone "x"\n' if told else ""
    assert (f"(dns) {{\n\tdns cloudflare {{\n{settings}\t}}\n}}\n" in secrets) == made.by_dns
    assert ("(dns)" in secrets) == made.by_dns
    given = CASES[case] | {"tunnel_domain": DOMAIN, "tunnel_acme_eab": {"key_id": "another", "mac_key": "b3RoZXI"}}
    assert secrets_name(given) != name


@each_case
def test_only_the_given_proxies_are_believed_and_only_what_they_themselves_have_seen(made, case):
    proxies = ([GATEWAY] if made.mode == "off" else []) + made.get("trusted_proxies", [])
    for listen, server in made.servers.items():
        if listen == made.spare:
            assert "trusted_proxies" not in server
            assert server["listener_wrappers"] == [{"wrapper": "proxy_protocol", "allow": ["127.0.0.1/32"]}]
            continue
        if proxies:
            assert server["trusted_proxies"] == {"source": "static", "ranges": proxies}
            assert server["trusted_proxies_strict"] == 1
        else:
            assert "trusted_proxies" not in server
        wrappers = server.get("listener_wrappers", [])
        # The edge says for whom it speaks, and while it is off one that was switched off a moment ago.
        speakers = ["127.0.0.1"] * (made.mode != "off") + (proxies if made.get("proxy_protocol") else [])
        if not speakers:
            assert wrappers == []
            continue
        allowed = [proxy if "/" in proxy else f"{proxy}/{128 if ':' in proxy else 32}" for proxy in speakers]
        assert wrappers[0] == {"wrapper": "proxy_protocol", "allow": allowed}
        # TLS begins after it.
        assert wrappers[1:] == ([] if made.mode == "off" else [{"wrapper": "tls"}])


@each_case
def test_there_is_a_site_for_every_host_by_http_and_by_https(made, case):
    hosts = {(site.listen, *sorted(site.hosts)) for site in made.sites}
    both = (DOMAIN, f"www.{DOMAIN}")
    wanted = {(made.http,)}
    if made.https:
        wanted |= {(made.http, *both), (made.https,)}
    if made.mode in ("on_demand", "internal"):
        wanted.add((made.https, *both))
    if made.by_dns:
        wanted.add((made.https, f"*.{DOMAIN}", DOMAIN))
    if made.spare:
        wanted.add((made.spare,))
    assert hosts == wanted


@each_case
def test_a_tunnel_hears_who_the_visitor_is_from_caddy_alone(made, case):
    tunnels = [(site, handler) for site in made.sites for handler in site.tunnels()]
    # Every site but the landing page's by http has two: for gRPC, and for all else.
    assert len(tunnels) == 2 * len(
        [site for site in made.sites if (site.listen, DOMAIN in site.hosts) != (made.http, True)]
    )
    for site, handler in tunnels:
        told = handler["headers"]["request"]
        over_tls = made.mode == "off" or site.listen == made.spare
        forwarded = {"X-Forwarded-Proto": ["https"]} if over_tls else {}
        assert told["set"] == {
            "X-Real-Ip": ["{http.vars.client_ip}"],
            "X-Tunnel-Visitor": ["{visitor}"],
            **forwarded,
        }
        assert told["delete"] == ["Forwarded", "Via"]
        before = [step for _, step in site.before(handler)]
        (visitor,) = [step for step in before if step["handler"] == "map"]
        assert (visitor["source"], visitor["destinations"]) == ("{http.vars.client_ip}", ["{visitor}"])
        assert visitor["mappings"] == [{"input": GATEWAY, "outputs": [""]}]
        assert visitor["defaults"] == ["{http.vars.client_ip}"]


@each_case
def test_only_caddy_says_that_there_is_no_certificate_yet(made, case):
    for site in made.sites:
        for tunnel in site.tunnels():
            (under,) = [conditions for conditions, step in site.steps if step is tunnel]
            under = [condition for condition in under if condition not in GRPC]
            before = [(conditions, step.get("request", {})) for conditions, step in site.before(tunnel)]
            removed = [number for number, (_, request) in enumerate(before) if request.get("delete") == [PLAIN]]
            said = [number for number, (_, request) in enumerate(before) if PLAIN in request.get("set", {})]
            # Of all requests that get to the tunnel.
            assert [before[number][0] for number in removed] == [under]
            plain = site.listen == made.http and made.mode != "off"
            assert len(said) == (1 if plain else 0)
            if plain:
                assert removed[0] < said[0]
                ((*rest, missing), request) = before[said[0]]
                assert (rest, request) == (under, {"set": {PLAIN: ["yes"]}})
                assert missing == {"not": [{"file": {"root": "/data", "try_files": [certificate(made)]}}]}


def certificate(made: Adapted) -> str:
    """Where the certificate lies that all of http waits for."""
    if made.mode in ("wildcard", "both", "files") and not made.by_dns:
        return "/own/*.pem"
    return f"/caddy/certificates/*/{DOMAIN}/{DOMAIN}.crt"


@each_case
def test_whoever_is_blocked_is_refused_before_anything_is_shown_on_each_site(made, case):
    for site in made.sites:
        shown = [handler for _, handler in site.steps if handler["handler"] in ("reverse_proxy", "file_server")]
        assert shown
        for handler in shown:
            refused = [
                (conditions[-1], step["body"])
                for conditions, step in site.before(handler)
                if step["handler"] == "static_response" and step.get("status_code") == 403
            ]
            if not made.get("blocked_addresses"):
                assert refused == []
                continue
            contact = made.get("abuse_contact")
            text = f"Your address is blocked from this host. Is that a mistake? Write to {contact}."
            assert refused == [({"client_ip": {"ranges": BLOCKED_RANGES}}, text)]


@each_case
def test_nobody_learns_what_the_host_is_made_of(made, case):
    for site in made.sites:
        # First of all, so that whatever ends a request comes after it.
        hidden = [
            number
            for number, (conditions, step) in enumerate(site.steps)
            if len(conditions) == bool(site.hosts)
            and step.get("response") == {"deferred": True, "delete": ["Server", "Via"]}
        ]
        ends = ("static_response", "reverse_proxy", "file_server")
        first = next(number for number, (_, step) in enumerate(site.steps) if step["handler"] in ends)
        assert len(hidden) == 1
        assert hidden[0] < first


@each_case
def test_a_reload_cuts_no_stream_and_nothing_of_a_tunnel_is_kept_back(made, case):
    for site in made.sites:
        for tunnel in site.tunnels():
            assert tunnel["stream_close_delay"] == 720 * 3600 * SECOND
            # Of gRPC all is that has no length.
            assert tunnel.get("flush_interval") == (None if "versions" in tunnel["transport"] else -1)
            assert tunnel["transport"]["compression"] is False
            assert tunnel["load_balancing"] == {"try_duration": 5 * SECOND, "try_interval": SECOND // 10}


@each_case
def test_of_headers_with_marks_those_are_let_in_that_were_asked_for(made, case):
    kept = {"expected_underscore_headers": ["user_id", "a_b.c"], "expected_dot_headers": ["x.api.version", "a_b.c"]}
    for server in made.servers.values():
        asked_for = {name: server[name] for name in kept if name in server}
        assert asked_for == (kept if made.get("headers") else {})


@each_case
def test_grpc_alone_is_http_2_all_the_way(made, case):
    for site in made.sites:
        if not site.tunnels():
            continue
        by_grpc, other = site.tunnels()
        under = {id(handler): conditions for conditions, handler in site.steps}
        assert [condition for condition in under[id(by_grpc)] if condition in GRPC] == GRPC
        assert not [condition for condition in under[id(other)] if condition in GRPC]
        assert by_grpc["transport"]["versions"] == ["h2c"]
        assert "versions" not in other["transport"]
        # Shorter than nginx keeps it: no request meets a connection that nginx is closing.
        assert other["transport"]["keep_alive"]["idle_timeout"] == 60 * SECOND


@each_case
def test_whatever_nobody_answers_gets_a_page_of_ours_on_each_site(made, case):
    for server in made.servers.values():
        if server["listen"] == [made.ask]:
            continue
        shown = [handler for _, handler in steps(server["errors"]["routes"], [])]
        pages = [handler["body"] for handler in shown if handler["handler"] == "static_response"]
        assert pages
        for page in pages:
            assert page.startswith("<!doctype html>")
            assert f'href="https://{DOMAIN}' in page
            assert "status of this answer is {http.error.status_code}" in page


@each_case
def test_browsers_are_told_to_come_by_https_alone_only_when_asked_to_and_only_there(made, case):
    for site in made.sites:
        said = [step["response"]["set"] for _, step in site.steps if STRICT in step.get("response", {}).get("set", {})]
        wanted = made.get("hsts") and site.listen in (made.https, made.spare)
        assert said == ([{STRICT: ["max-age=31536000"]}] if wanted else [])
    # Nor anywhere else.
    assert (STRICT in json.dumps(made.config)) == bool(made.get("hsts") and made.https)


@each_case
def test_who_came_is_written_down_only_when_asked_to_and_nothing_of_what_was_asked(made, case):
    logs = {name: log for name, log in made.config.get("logging", {}).get("logs", {}).items() if name != "default"}
    if not made.get("log_visitors"):
        assert logs == {}
        assert not any("logs" in server for server in made.servers.values())
        return
    assert len(logs) == len(made.sites)
    for log in logs.values():
        assert log["writer"]["filename"] == "/log/visitors.log"
        assert log["writer"]["roll_keep_days"] == 3
        assert log["encoder"]["fields"] == {name: {"filter": "delete"} for name in NOT_LOGGED}
    for listen in {made.http, made.https} - {""}:
        assert made.servers[listen]["logs"]["default_logger_name"] in logs


@each_case
def test_the_operators_own_sites_are_served_as_well(made, case):
    own = [
        (listen, route)
        for listen, server in made.servers.items()
        for route in server["routes"]
        if route.get("match") == [{"host": ["own.example.org"]}]
    ]
    assert [listen for listen, _ in own] == ([made.http] if made.get("sites") else [])
    assert ("my own site" in json.dumps(made.config)) == bool(own)


@pytest.mark.parametrize(
    ("known", "gateway"),
    [
        ({"__caddy_frontend_network_seen": {"rc": 0, "stdout": GATEWAY}}, GATEWAY),
        (
            {
                "__caddy_frontend_network_seen": {"rc": 1, "stdout": ""},
                "__caddy_frontend_network_made": {"stdout": GATEWAY},
            },
            GATEWAY,
        ),
        (
            {
                "__caddy_frontend_network_seen": {"rc": 0, "stdout": GATEWAY},
                "__caddy_frontend_network_made": {"skipped": True},
            },
            GATEWAY,
        ),
        (
            {
                "__caddy_frontend_network_seen": {"rc": 1, "stdout": ""},
                "__caddy_frontend_network_made": {"skipped": True},
            },
            "127.0.0.1",
        ),
        (
            {"__caddy_frontend_network_seen": {"skipped": True}, "__caddy_frontend_network_made": {"skipped": True}},
            "127.0.0.1",
        ),
    ],
    ids=["seen", "made", "seen and so not made", "not yet made", "no engine"],
)
def test_the_hosts_own_programs_come_from_the_gateway_of_caddys_network(known, gateway):
    shown = evaluate(ROLE, trust_as_template("{{ __caddy_frontend_gateway }}"), tunnel_domain=DOMAIN, **known)
    assert shown == gateway


# --- Caddy runs ------------------------------------------------------------------------------------------------------


class Upstream(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Stands in for nginx at one of its sockets: answers what it was asked as JSON, with a status."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path, status: int = 200) -> None:
        """Listen at a path."""
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Via", "nginx")
                self.end_headers()
                self.wfile.write(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())

            def do_POST(self) -> None:
                """Break off."""
                asked.append(self.path)
                self.close_connection = True

            def address_string(self) -> str:
                return "caddy"

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(str(path), Handler)


class Running:
    """A Caddy that runs with a case, and what it was asked."""

    def __init__(self, ports: dict[str, int], visitors: Upstream, ask: Upstream) -> None:
        """Speak to its ports."""
        self.ports = ports
        self.visitors = visitors
        self.ask = ask

    def get(self, scheme: str, host: str, path: str = "/", **headers: str) -> httpx.Response:
        """Visit a host."""
        with httpx.Client(verify=False, trust_env=False, timeout=20) as client:
            return client.get(
                f"{scheme}://127.0.0.1:{self.ports[scheme]}{path}",
                headers={"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}},
                extensions={"sni_hostname": host},
            )


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(path: Path, seconds: float = 20) -> None:
    """Wait until there is a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"there is no {path} after {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def running(folder: Path, pem: str, refuse: bool = False, certified: bool = True, **given: Any) -> Iterator[Running]:
    """Run Caddy with what the role writes, and nginx's sockets before something that answers."""
    http_port, https_port, ask_port = free_ports(3)
    given = {
        # Nobody's authority is bothered: what is ordered at once is ordered nowhere.
        "tunnel_acme_directory": "https://127.0.0.1:9/directory",
        "tunnel_http_port": http_port,
        "tunnel_https_port": https_port,
        "tunnel_listen": f"127.0.0.1:{http_port}",
        "tunnel_trusted_proxies": ["127.0.0.1"],
        "tunnel_blocked_addresses": BLOCKED,
        "tunnel_hsts": 31536000,
        **given,
    }
    files = {
        name: text.replace("/run/", f"{folder}/run/").replace(":9123", f":{ask_port}")
        for name, text in written_files(given, folder).items()
    }
    put(files, folder, pem)
    if not certified:
        (folder / "data/own/own.pem").unlink()
    for name in ("caddy", "tunnel"):
        (folder / f"run/{name}").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        upstreams = []
        for name, status in (("visitors", 200), ("ask", 403 if refuse else 200)):
            upstream = stack.enter_context(Upstream(folder / f"run/tunnel/{name}.sock", status))
            threading.Thread(target=upstream.serve_forever, daemon=True).start()
            stack.callback(upstream.shutdown)
            upstreams.append(upstream)
        command = ["sh", folder / "etc/control-caddy", "configuration"]
        with (folder / "given.json").open("w") as file:
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True, env=environment(folder))
        command = [BIN / "caddy", "run", "--config", folder / "given.json"]
        caddy = stack.enter_context(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(folder), cwd=folder)
        )
        stack.callback(caddy.kill)
        said = []
        for line in caddy.stderr:
            said.append(line)
            if "serving initial configuration" in line:
                break
        else:
            pytest.fail(f"Caddy does not start:\n{''.join(said)}", pytrace=False)
        threading.Thread(target=caddy.stderr.read, daemon=True).start()
        if given["tunnel_tls"] == "internal":
            # Made in the first moments.
            wait_for(folder / f"data/caddy/certificates/local/{DOMAIN}/{DOMAIN}.crt")
        yield Running({"http": http_port, "https": https_port}, *upstreams)


@pytest.fixture
def caddy(tmp_path_factory, pem):
    """Return a function that runs Caddy for a while."""
    # The path of a socket is short.
    return lambda **given: running(tmp_path_factory.mktemp("c"), pem, **given)


# By mode: the ways that visitors take, and whether their names have a certificate here. With on_demand they have none:
# no authority is here to ask.
WAYS = {
    "on_demand": ["http"],
    "both": ["http", "https"],
    "wildcard": ["http", "https"],
    "files": ["http", "https"],
    "internal": ["http", "https"],
    "off": ["http"],
}
LIES = {
    "X_Tunnel_Plain": "yes",
    "X_Tunnel_Visitor": "198.51.100.99",
    "X_Real_IP": "198.51.100.99",
    "Forwarded": "for=198.51.100.99;proto=http",
}


@pytest.fixture(scope="module", params=MODES)
def visited(request, tmp_path_factory, pem):
    """Return a mode, and a Caddy that runs in it behind a proxy."""
    with running(tmp_path_factory.mktemp("c"), pem, tunnel_tls=request.param) as server:
        yield request.param, server


def test_what_a_visitor_says_of_itself_is_not_believed(visited):
    mode, server = visited
    for scheme in WAYS[mode]:
        heard = server.get(scheme, f"blog.{DOMAIN}", X_Forwarded_For="198.51.100.5", **LIES).json()
        assert heard["host"] == f"blog.{DOMAIN}"
        assert heard["x-real-ip"] == heard["x-tunnel-visitor"] == "198.51.100.5"
        assert "forwarded" not in heard
        assert heard["x-forwarded-proto"] == ("https" if mode == "off" else scheme)
        # No authority is here from which on_demand could get a certificate.
        assert heard.get("x-tunnel-plain") == ("yes" if mode == "on_demand" else None)


def test_headers_with_marks_come_that_were_asked_for_and_no_others(caddy):
    names = ["user_id", "x.api.version", "a_b.c"]
    with (
        caddy(tunnel_tls="files", tunnel_headers=names) as server,
        httpx.Client(verify=False, trust_env=False) as client,
    ):
        url = f"https://127.0.0.1:{server.ports['https']}/"
        sent = {"Host": f"blog.{DOMAIN}", **dict.fromkeys([*names, "other_id", "X_Real_IP", "x.real.ip"], "1")}
        heard = client.get(url, headers=sent, extensions={"sni_hostname": f"blog.{DOMAIN}"}).json()
        assert {name for name, value in heard.items() if value == "1"} == set(names)


def test_who_is_blocked_gets_nothing_by_any_name(visited):
    mode, server = visited
    before = len(server.visitors.asked)
    for scheme in WAYS[mode]:
        # Of the domain by http at most the way to https, where the same holds.
        hosts = {f"blog.{DOMAIN}": {403}, DOMAIN: {403, 308} if scheme == "http" and mode != "off" else {403}}
        # There is nobody to ask for the certificate of another domain.
        if scheme == "http" or mode == "internal":
            hosts["shop.example.org"] = {403}
        for host, statuses in hosts.items():
            for address in ("203.0.113.9", "::ffff:203.0.113.9", "203.0.114.77", "2001:db8:9::1"):
                assert server.get(scheme, host, X_Forwarded_For=address).status_code in statuses, (
                    scheme,
                    host,
                    address,
                )
    assert len(server.visitors.asked) == before


def test_an_answer_says_nothing_of_the_host(visited):
    mode, server = visited
    for scheme in WAYS[mode]:
        for host in (f"blog.{DOMAIN}", DOMAIN):
            answer = server.get(scheme, host)
            assert {"server", "via"}.isdisjoint(answer.headers)
            assert answer.headers.get(STRICT) == ("max-age=31536000" if scheme == "https" else None)
    if mode != "on_demand":
        assert server.get(WAYS[mode][-1], DOMAIN).text == "the page index"


def test_an_answer_that_is_broken_off_is_a_page_of_ours(visited):
    mode, server = visited
    before = len(server.visitors.asked)
    for scheme in WAYS[mode]:
        with httpx.Client(verify=False, trust_env=False, timeout=20) as client:
            answer = client.post(
                f"{scheme}://127.0.0.1:{server.ports[scheme]}/",
                headers={"Host": f"blog.{DOMAIN}", "X-Forwarded-For": "198.51.100.5"},
                extensions={"sni_hostname": f"blog.{DOMAIN}"},
            )
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert {"server", "via"}.isdisjoint(answer.headers)
        assert "The status of this answer is 502." in answer.text
    # It was not asked again.
    assert len(server.visitors.asked) == before + len(WAYS[mode])


def test_without_a_trusted_proxy_a_visitor_is_who_it_comes_from(caddy):
    with caddy(tunnel_tls="files", tunnel_trusted_proxies=[]) as server:
        heard = server.get("https", f"blog.{DOMAIN}", X_Forwarded_For="203.0.113.9", **LIES).json()
        assert heard["x-real-ip"] == heard["x-tunnel-visitor"] == heard["x-forwarded-for"] == "127.0.0.1"


def test_until_there_is_a_certificate_all_is_shown_by_http(caddy):
    with caddy(tunnel_tls="files", certified=False) as server:
        assert server.get("http", f"blog.{DOMAIN}").json()["x-tunnel-plain"] == "yes"
        assert server.get("http", DOMAIN).text == "the page without-certificate"
        assert server.get("http", DOMAIN, X_Forwarded_For="203.0.113.9").status_code == 403


def test_with_a_certificate_the_landing_page_is_shown_by_https(caddy):
    with caddy(tunnel_tls="files") as server:
        moved = server.get("http", DOMAIN, "/x?y=z")
        assert moved.status_code == 308
        assert moved.headers["location"] == f"https://{DOMAIN}:{server.ports['https']}/x?y=z"


def test_a_name_that_nginx_refuses_gets_no_certificate(caddy):
    with caddy(tunnel_tls="internal", refuse=True) as server:
        with pytest.raises(httpx.ConnectError):
            server.get("https", f"blog.{DOMAIN}")
        assert server.ask.asked == [f"/?domain=blog.{DOMAIN}"]
        assert server.get("https", DOMAIN).text == "the page index"


def test_where_one_certificate_is_for_all_nobody_is_asked_for_another(caddy):
    with caddy(tunnel_tls="wildcard") as server:
        with pytest.raises(httpx.ConnectError):
            server.get("https", "shop.example.org")
        assert server.get("https", f"blog.{DOMAIN}").status_code == 200
        assert server.ask.asked == []


def test_tls_that_is_passed_through_is_refused_in_the_handshake(caddy):
    """Whatever certificate is there, and whatever nginx says."""
    own = f"own.{DOMAIN}"
    accounts = [{"name": "a", "domains": {own: {"name": "a", "passthrough": True}}}]
    for mode in ("files", "internal"):
        with caddy(tunnel_tls=mode, tunnel_accounts=accounts) as server:
            assert server.get("https", f"blog.{DOMAIN}").status_code == 200
            for name in (own, own.upper()):
                with pytest.raises(httpx.ConnectError):
                    server.get("https", name)
            assert f"/?domain={own}" not in server.ask.asked
            # A connection for another name says nothing of whose request comes by it: nginx refuses that one.
            assert server.get("http", own).json()["host"] == own
