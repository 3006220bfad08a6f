# SPDX-License-Identifier: GPL-3.0-or-later
"""Who ends a visitor's TLS: the edge, with a certificate that it finds in Caddy's storage, or Caddy itself.

The edge runs with all that the role writes for it, by the image that the role builds. Others stand for Caddy and for
nginx in the pod; a visitor sees by the certificate which of them he has come to.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from edge import pem
from render import evaluate, render, written

ROLE = "edge"
DOMAIN = "proxme.example"
PORT = 8443  # the programs of the test may have no other right than the edge has
CADDY = "Caddy"
ACME, STAGING, ZERO = "ca.example-directory", "staging.example-14000-dir", "zero.example-dir"
ACCOUNTS = [{"name": "alice", "domains": {"shop.example.org": "alice-shop"}}]
DAY = timedelta(days=1)
BY_CADDY = {"tunnel_dns_provider": "cloudflare", "tunnel_dns_by_caddy": True}
BY_CERTBOT = {"tunnel_dns_provider": "cloudflare"}

STAND_INS = f"""
load_module modules/ngx_stream_module.so;
pid /tmp/stand-ins.pid;
error_log stderr warn;
events {{ }}
stream {{
  server {{ listen unix:/sockets/visitor.sock; proxy_pass 127.0.0.1:65443; }}
  server {{
    listen 127.0.0.1:{PORT} ssl proxy_protocol;
    ssl_certificate /stand-ins/caddy.pem;
    ssl_certificate_key /stand-ins/caddy.pem;
    return caddy;
  }}
  server {{ listen unix:/run/tunnel/tls.sock proxy_protocol; return tunnel; }}
}}
"""
RUN = """
echo '127.0.0.99 hidden-;' >/tmp/hidden.conf
nginx -c /stand-ins/nginx.conf
until [ -e /tmp/stand-ins.pid ]; do sleep 0.02; done
nginx -c /etc/proxme-tunnel/edge.conf -g 'worker_processes 2;' &
edge=$!
until [ -s /tmp/nginx.pid ]; do sleep 0.02; done
echo started
cat
kill $edge
"""


@dataclass
class Edge:
    """An edge that runs, and what it can read."""

    folder: Path
    container: str

    @property
    def visits(self) -> Path:
        """Where visitors come."""
        return self.folder / "sockets/visitor.sock"

    def put(
        self,
        name: str,
        said: str = "",
        *,
        by: str = ACME,
        before: timedelta = -DAY,
        after: timedelta = 89 * DAY,
        **more: str,
    ) -> Path:
        """Write a certificate for a name as Caddy does: the key first."""
        certificate, key = pem(said or f"of {name}", before, after, **more)
        folder = self.folder / "certificates" / by / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.key").write_text(key)
        path = folder / f"{name}.crt"
        path.write_text(certificate)
        return path

    def bring(self, file: str, said: str, *, before: timedelta = -DAY, after: timedelta = 89 * DAY) -> None:
        """Put a certificate of others in its place: both in one file."""
        new = self.folder / "own/new"
        new.write_text("".join(pem(said, before, after)))
        new.rename(self.folder / "own" / file)

    def visit(self, name: str | None, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> str:
        """The name in the certificate that a visitor is shown; the answer has to come from the same one."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(10)
            plain.connect(str(self.visits))
            with context.wrap_socket(plain, server_hostname=name) as visitor:
                shown = x509.load_der_x509_certificate(visitor.getpeercert(binary_form=True))
                answer = visitor.recv(100)
        (attribute,) = shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert (answer == b"caddy") is (attribute.value == CADDY), (answer, attribute)
        return attribute.value

    def settled(self, name: str) -> str:
        """The same, once Caddy has had its one visitor of the hour."""
        self.visit(name)
        return self.visit(name)


@contextmanager
def running(image: str, folder: Path, **variables: Any) -> Iterator[Edge]:
    """An edge with these variables of the operator's, for as long as the `with` block lasts."""
    for part in ("certificates", "own", "sockets", "etc", "stand-ins"):
        (folder / part).mkdir(parents=True)
        (folder / part).chmod(0o777)
    given = {"tunnel_domain": DOMAIN, "tunnel_https_port": PORT, "tunnel_accounts": ACCOUNTS}
    given |= {"tunnel_acme_directory": "https://ca.example/directory"} | variables
    for name in ("edge.conf", "settings.js"):
        (folder / "etc" / name).write_text(render(ROLE, f"{name}.j2", **given))
    (folder / "stand-ins/nginx.conf").write_text(STAND_INS)
    (folder / "stand-ins/caddy.pem").write_text("".join(pem(CADDY, -DAY, DAY)))
    container = f"proxme-unit-edge-{uuid.uuid4().hex[:8]}"
    command = ["docker", "run", "--rm", "--interactive", f"--name={container}", "--label=proxme.scenario=unit"]
    command += ["--network=none", "--user=65532:33", "--cap-drop=ALL", "--tmpfs=/tmp", "--tmpfs=/run/tunnel:mode=1777"]
    mounts = {"etc": "/etc/proxme-tunnel:ro", "certificates": "/certificates:ro", "own": "/own:ro"}
    mounts |= {"stand-ins": "/stand-ins:ro", "sockets": "/sockets"}
    command += [f"--volume={folder / part}:{there}" for part, there in mounts.items()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, image, "sh", "-c", RUN], **pipes) as process:
        lines = []
        while not lines or (lines[-1] and lines[-1] != "started\n"):
            lines.append(process.stdout.readline())
        assert lines[-1] == "started\n", "".join(lines)
        try:
            yield Edge(folder, container)
        finally:
            print(process.communicate()[0])  # what the programs said


@pytest.fixture(scope="module")
def start(role_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A function that runs an edge."""
    return lambda **variables: running(role_images["edge"], tmp_path_factory.mktemp("edge"), **variables)


@pytest.fixture(scope="module")
def edge(start: Callable[..., Any]) -> Iterator[Edge]:
    """An edge where each name has a certificate of its own."""
    with start(tunnel_acme_fallback_directory="https://zero.example/dir") as edge:
        yield edge


# --- whose a name is -------------------------------------------------------------------------------------------------


def test_a_tunnel_with_a_certificate_is_the_edges_and_caddy_has_one_visitor_an_hour(edge):
    edge.put(f"guest-x.{DOMAIN}")
    assert [edge.visit(f"guest-x.{DOMAIN}") for _ in range(4)] == [CADDY, *[f"of guest-x.{DOMAIN}"] * 3]


@pytest.mark.parametrize("written", [f"GUEST-Dots.{DOMAIN}", f"guest-dots.{DOMAIN}.", f"Guest-dots.{DOMAIN.upper()}."])
def test_neither_case_nor_a_dot_at_the_end_make_another_name(edge, written):
    edge.put(f"guest-dots.{DOMAIN}")
    edge.visit(f"guest-dots.{DOMAIN}")
    assert edge.visit(written) == f"of guest-dots.{DOMAIN}"


def test_a_custom_domain_has_its_own(edge):
    edge.put("shop.example.org")
    assert edge.settled("shop.example.org") == "of shop.example.org"
    assert edge.settled("SHOP.example.org.") == "of shop.example.org"


@pytest.mark.parametrize(
    "name",
    [
        None,
        DOMAIN,
        f"www.{DOMAIN}",
        f"a.guest-x.{DOMAIN}",
        "example.net",
        f"x{DOMAIN}",
        f"guest-x.{DOMAIN}.example.net",
        f"guest_x.{DOMAIN}",
        # What every object of the language has.
        "constructor",
    ],
)
def test_what_is_no_tunnels_is_caddys(edge, name):
    """Though there are certificates, such as for its own sites."""
    if name:
        edge.put(name)
    assert edge.settled(name) == CADDY


def test_a_label_that_every_object_has_is_a_tunnels(edge):
    edge.put(f"constructor.{DOMAIN}")
    assert edge.settled(f"constructor.{DOMAIN}") == f"of constructor.{DOMAIN}"


def test_a_challenge_is_caddys(edge):
    """A visitor's certificate would fail it."""
    name = f"guest-challenged.{DOMAIN}"
    edge.put(name)
    assert edge.settled(name) == f"of {name}"
    assert edge.visit(name, alpn=("acme-tls/1",)) == CADDY
    assert edge.visit(name, alpn=("h2", "acme-tls/1")) == CADDY
    assert edge.visit(name, alpn=()) == f"of {name}"


def test_labels_of_the_operators_sites_are_caddys(start, tmp_path):
    site = tmp_path / "own.caddy"
    site.write_text(f"Wiki.{DOMAIN}, https://files.{DOMAIN}:{PORT} {{\n\trespond hello\n}}\n")
    with start(tunnel_sites=[str(site)]) as edge:
        for label in ("wiki", "files", "guest-x"):
            edge.put(f"{label}.{DOMAIN}")
        assert edge.settled(f"wiki.{DOMAIN}") == CADDY
        assert edge.settled(f"files.{DOMAIN}") == CADDY
        assert edge.settled(f"guest-x.{DOMAIN}") == f"of guest-x.{DOMAIN}"


def test_a_site_for_all_labels_leaves_the_edge_custom_domains(start, tmp_path):
    (tmp_path / "all.caddy").write_text(f"*.{DOMAIN} {{\n\trespond hello\n}}\n")
    with start(tunnel_sites=[str(tmp_path)]) as edge:
        edge.put(f"guest-x.{DOMAIN}")
        edge.put("shop.example.org")
        assert edge.settled(f"guest-x.{DOMAIN}") == CADDY
        assert edge.settled("shop.example.org") == "of shop.example.org"


# --- which certificates are good -------------------------------------------------------------------------------------

# By label: its certificate is valid from then until then, and whether it is shown.
TIMES = {
    "young": (-29 * DAY, 61 * DAY, True),
    "last-third": (-61 * DAY, 29 * DAY, False),
    "hours": (-timedelta(hours=7), timedelta(hours=5), True),
    "last-hours": (-timedelta(hours=9), timedelta(hours=3), False),
    "expired": (-91 * DAY, -DAY, False),
    "not-yet": (DAY, 90 * DAY, False),
    # Times after 2049 are written in another way (RFC 5280, 4.1.2.5), and two digits of a year mean 1950 and later.
    "generalized": (-DAY, 365 * 40 * DAY, True),
    "since-1970": (-365 * 50 * DAY, 365 * 20 * DAY, False),
    "since-1990": (-365 * 30 * DAY, 365 * 70 * DAY, True),
}


@pytest.mark.parametrize("label", TIMES)
def test_a_certificate_is_shown_while_it_is_valid_and_not_to_be_renewed(edge, label):
    before, after, shown = TIMES[label]
    name = f"{label}.{DOMAIN}"
    edge.put(name, before=before, after=after)
    assert edge.settled(name) == (f"of {name}" if shown else CADDY)


def test_keys_of_both_kinds(edge):
    edge.put(f"guest-rsa.{DOMAIN}", kind="rsa")
    assert edge.settled(f"guest-rsa.{DOMAIN}") == f"of guest-rsa.{DOMAIN}"


def test_one_with_its_chain_and_text_around_it(edge):
    path = edge.put(f"guest-chain.{DOMAIN}")
    issuer = pem("issuer", -DAY, 3000 * DAY)[0]
    path.write_text(f"subject=CN = x\n{path.read_text()}\r\n{issuer}".replace("\n", "\r\n"))
    assert edge.settled(f"guest-chain.{DOMAIN}") == f"of guest-chain.{DOMAIN}"


@pytest.mark.parametrize(
    "text", ["", "nothing of the kind\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_left_to_caddy(edge, text):
    name = f"guest-text-{len(text)}.{DOMAIN}"
    edge.put(name).write_text(text)
    assert edge.settled(name) == CADDY


@pytest.mark.parametrize("missing", [".crt", ".key"])
def test_half_a_pair_is_left_to_caddy(edge, missing):
    name = f"guest-without-{missing[1:]}.{DOMAIN}"
    edge.put(name).with_suffix(missing).unlink()
    assert edge.settled(name) == CADDY


def test_a_name_without_any_is_left_to_caddy_until_it_has_got_one(edge):
    name = f"guest-new.{DOMAIN}"
    assert edge.settled(name) == CADDY
    edge.put(name)
    assert edge.settled(name) == f"of {name}"


def test_a_renewal_is_taken_over_at_once(edge):
    name = f"guest-renewed.{DOMAIN}"
    edge.put(name, "first")
    assert edge.settled(name) == "first"
    edge.put(name, "second")
    assert edge.visit(name) == "second"


def test_one_in_its_last_third_comes_back_when_it_is_renewed(edge):
    name = f"guest-late.{DOMAIN}"
    edge.put(name, before=-61 * DAY, after=29 * DAY)
    assert [edge.visit(name) for _ in range(3)] == [CADDY] * 3
    edge.put(name)
    assert edge.settled(name) == f"of {name}"


def test_between_two_writes_of_caddys_nobody_is_shown_a_key_of_another_certificate(edge):
    name = f"guest-between.{DOMAIN}"
    path = edge.put(name)
    assert edge.settled(name) == f"of {name}"
    time.sleep(0.01)  # files have a time of their own, which goes in steps of some milliseconds
    path.with_suffix(".key").write_text(pem("next", -DAY, DAY)[1])
    assert edge.visit(name) == CADDY


def test_what_is_taken_away_is_left_to_caddy_at_once(edge):
    name = f"guest-gone.{DOMAIN}"
    path = edge.put(name)
    assert edge.settled(name) == f"of {name}"
    path.unlink()
    assert edge.visit(name) == CADDY


# --- whose certificates are shown ------------------------------------------------------------------------------------


def test_the_second_authority_helps_out(edge):
    name = f"guest-two.{DOMAIN}"
    edge.put(name, "the second's", by=ZERO)
    assert edge.settled(name) == "the second's"
    edge.put(name, "the first's")
    assert edge.visit(name) == "the first's"
    edge.put(name, "the first's", before=-61 * DAY, after=29 * DAY)
    assert edge.visit(name) == "the second's"


@dataclass
class Mode:
    """What an operator writes, and what is shown then to visitors of a label, and of a custom domain."""

    variables: dict[str, Any]
    label: str = CADDY
    domain: str = CADDY


# There is all that any mode has ever left.
LEFT = {f"guest-x.{DOMAIN}": "each", "shop.example.org": "domain", f"wildcard_.{DOMAIN}": "wildcard"}
MODES = {
    "on_demand": Mode({}, "each by ACME", "domain by ACME"),
    "another authority": Mode(
        {"tunnel_acme_directory": "https://Staging.example:14000/dir/"}, "each by staging", "domain by staging"
    ),
    "a new authority": Mode({"tunnel_acme_directory": "https://new.example/dir"}),
    "internal": Mode({"tunnel_tls": "internal"}, "each by local", "domain by local"),
    "files": Mode({"tunnel_tls": "files"}, "operator.pem"),
    "wildcard": Mode({"tunnel_tls": "wildcard"} | BY_CERTBOT, "wildcard.pem"),
    "wildcard by Caddy": Mode({"tunnel_tls": "wildcard"} | BY_CADDY, "wildcard by ACME"),
    "both": Mode({"tunnel_tls": "both"} | BY_CERTBOT, "wildcard.pem", "domain by ACME"),
    "both by Caddy": Mode({"tunnel_tls": "both"} | BY_CADDY, "wildcard by ACME", "domain by ACME"),
}


@pytest.mark.parametrize("name", MODES)
def test_only_certificates_of_the_present_mode_are_shown(start, name):
    """As Caddy does: it would not show the trial's or the host's own authority's once there is another."""
    mode = MODES[name]
    with start(**mode.variables) as edge:
        for by, said in {ACME: "ACME", STAGING: "staging", "local": "local"}.items():
            for folder, what in LEFT.items():
                edge.put(folder, f"{what} by {said}", by=by)
        for file in ("operator.pem", "wildcard.pem", "a.pem"):
            edge.bring(file, file)
        shown = (edge.settled(f"guest-x.{DOMAIN}"), edge.settled("shop.example.org"))
        assert shown == (mode.label, mode.domain)
        assert edge.settled(f"a.guest-x.{DOMAIN}") == CADDY


def test_what_others_bring_is_shown_to_its_end_and_never_caddys_to_renew(start):
    name = f"guest-x.{DOMAIN}"
    with start(tunnel_tls="files") as edge:
        assert edge.visit(name) == CADDY
        edge.bring("operator.pem", "late", before=-89 * DAY, after=DAY)
        assert edge.visit(name) == "late"
        edge.bring("operator.pem", "next")
        assert edge.visit(name) == "next"
        edge.bring("operator.pem", "expired", before=-90 * DAY, after=-DAY)
        assert edge.visit(name) == CADDY


# --- what the role writes --------------------------------------------------------------------------------------------

FLAGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ports": {"tunnel_http_port": 8080, "tunnel_https_port": PORT},
    "domains": {"tunnel_accounts": ACCOUNTS},
    "one proxy": {"tunnel_trusted_proxies": ["192.0.2.1"]},
    "proxies": {"tunnel_trusted_proxies": ["192.0.2.1", "198.51.100.0/24", "2001:db8::1", "2001:db8:1::/48"]},
    "proxies that overlap": {
        "tunnel_trusted_proxies": ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8", "fd00::1"]
    },
    "a proxy written twice": {"tunnel_trusted_proxies": ["192.0.2.1", "192.0.2.1"]},
    "mapped proxies": {"tunnel_trusted_proxies": ["::ffff:192.0.2.1"]},
    "everybody": {"tunnel_trusted_proxies": ["0.0.0.0/0", "::/0"]},
    "proxy protocol": {"tunnel_trusted_proxies": ["192.0.2.1"], "tunnel_proxy_protocol": True},
    "fallback": {"tunnel_acme_fallback_directory": "https://zero.example/dir"},
    "without": {"tunnel_edge": False},
}
WRITTEN = {
    f"{name}: {flag}": {"tunnel_domain": DOMAIN, **mode.variables, **given}
    for name, mode in (MODES | {"off": Mode({"tunnel_tls": "off"})}).items()
    for flag, given in FLAGS.items()
}


# As the role has it tried.
TRY = """
top=$(readlink -f /etc/proxme-tunnel)
for case in "$top"/*; do
  ln -sfn "$case" /etc/proxme-tunnel
  for tried in "$case"/edge.conf "$case"/relay.conf; do
    [ -e "$tried" ] || continue
    ln -sfn "$tried" /tried.conf
    echo "$tried:"
    serve "$(basename "$tried" .conf)" try 2>&1
  done
done
"""


def texts(*templates: str) -> list[dict[str, str]]:
    """What the role writes in all cases, each text once."""
    found = {tuple(render(ROLE, f"{name}.j2", **given) for name in templates): None for given in WRITTEN.values()}
    return [dict(zip(templates, case, strict=True)) for case in found]


def test_nginx_takes_it(real_edge):
    """Of the settings one is enough: every edge here reads others."""
    settings = texts("settings.js")[0]
    cases = [
        *(case | settings for case in texts("edge.conf")),
        *texts("relay.conf", "passthrough.conf", "blocked.conf"),
    ]
    files = {f"{number}/{name}": text for number, case in enumerate(cases) for name, text in case.items()}
    said = real_edge.accept(files, TRY)
    assert said.count("test is successful") == len(cases)
    assert "[warn]" not in said


def test_nft_takes_it(holder):
    files = {f"{number}.nft": case["lead.nft"] for number, case in enumerate(texts("lead.nft"))}
    holder.accept(files, 'for file in /etc/proxme-tunnel/*.nft; do echo "$file"; nft -c -f "$file"; done')


def test_whoever_comes_by_a_proxy_comes_to_caddy_and_all_others_to_the_edge(holder):
    """Both say where a connection goes before anything else does, so the order of the lines is all that there is."""

    def lines(flag: str) -> list[str]:
        text = render(ROLE, "lead.nft.j2", **WRITTEN[f"on_demand: {flag}"])
        said = holder.accept(
            {"lead.nft": text}, "unshare -n sh -euc 'nft -f /etc/proxme-tunnel/lead.nft; nft list ruleset'"
        )
        return [line.strip() for line in said.splitlines() if "saddr" in line or "redirect" in line]

    assert lines("plain") == ['iif != "lo" tcp dport 443 redirect to :65443']
    assert lines("ports") == [f'iif != "lo" tcp dport {PORT} redirect to :65443']
    by4, by6, *rest = lines("proxies")
    assert (by4, by6) == (
        "ip saddr { 192.0.2.1, 198.51.100.0/24 } accept",
        "ip6 saddr { 2001:db8::1, 2001:db8:1::/48 } accept",
    )
    assert rest == lines("mapped proxies") == lines("plain")
    assert lines("without") == []


def test_folders_that_caddy_has_not_made_yet_are_caddys():
    """One of root's above them would be where Caddy can write nothing."""
    [writes] = [
        task["proxme.tunnel.files"] for task in written(ROLE, "tasks/configure.yml") if "proxme.tunnel.files" in task
    ]
    folders = evaluate(ROLE, writes["folders"], tunnel_domain=DOMAIN)
    data = "/var/lib/proxme-tunnel/caddy_frontend"
    own = {each["path"]: (int(each["owner"]), each["mode"]) for each in folders if each["path"].startswith(data)}
    assert list(own) == [f"{data}/caddy", f"{data}/caddy/certificates"]
    assert set(own.values()) == {(65532, "0700")}
