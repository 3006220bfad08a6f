# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor makes of what was seen of a tunnel host, and how the looking itself fails."""

from __future__ import annotations

import base64
import copy
import datetime
import json
import pathlib
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.proxme.tunnel.plugins.module_utils import outside
from ansible_collections.proxme.tunnel.plugins.modules import doctor_host
from ansible_collections.proxme.tunnel.plugins.plugin_utils import judge
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = pathlib.Path(__file__).resolve().parents[2]


DOMAIN, ADDRESS = "proxme.example.com", "192.0.2.10"
NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
KEY, OTHER = (f"ssh-ed25519 {base64.b64encode(text).decode()}" for text in (b"stored", b"another"))
GIB = 1024**3


def issued(begin: int, end: int) -> str:
    """A certificate that is valid from `begin` to `end` days from now."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW + datetime.timedelta(begin))
    builder = builder.not_valid_after(NOW + datetime.timedelta(end))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def well() -> dict[str, Any]:
    """What is seen where all is well."""
    container = {"state": "running", "created": "2026-11-01T00:00:00Z", "image": "an-image"}
    ports = {"ssh": 2222, "http": 80, "https": 443}
    return {
        "settings": {
            "domain": DOMAIN,
            "tls": "on_demand",
            "by_certbot": False,
            "listen": "",
            "own_authority": False,
            "edge": True,
        },
        "before": NOW.timestamp() - 2,
        "after": NOW.timestamp(),
        "host": {
            "time": NOW.timestamp() - 1,
            "addresses": [ADDRESS],
            "containers": {
                f"proxme-tunnel-{name}": dict(container)
                for name in ("network", "caddy-network", "resolver", "sshd", "nginx", "caddy", "edge", "relay")
            },
            "unled": [],
            "engine": "",
            "keys": [KEY],
            "certificates": {},
            "disks": {"/var/lib/proxme-tunnel": [10 * GIB, 20 * GIB]},
            "memory": [GIB, 2 * GIB],
            "listener": "",
        },
        "outside": {
            "addresses": {"domain": [ADDRESS], "below": [ADDRESS], "inventory": []},
            "answers": [{"address": ADDRESS, "port": ports[kind], "for": kind, "said": ""} for kind in ports],
            "keys": {ADDRESS: [KEY]},
            "certificate": {"pem": issued(-10, 80), "distrust": ""},
            "tunnel": {"state": "works", "said": f"https://guest-check.{DOMAIN}"},
        },
    }


def test_where_all_is_well_nothing_is_said_to_be_wrong():
    report = judge.judge(**well())
    assert (report["problems"], report["warnings"], report["untested"]) == ([], [], [])
    assert len(report["fine"]) == 10


def put(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    """A change of what is seen."""

    def _put(seen: dict[str, Any]) -> None:
        for step in path[:-1]:
            seen = seen[step]
        seen[path[-1]] = value

    return _put


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (put([], "outside", "addresses", "domain"), "problems", f"{DOMAIN} has no address. Create A"),
        (put([], "outside", "addresses", "below"), "problems", f"Names below {DOMAIN} have no address"),
        (put(["192.0.2.99"], "outside", "addresses", "below"), "problems", "lead to 192.0.2.99, the domain itself to"),
        (
            put([{"address": ADDRESS, "port": 80, "for": "http", "said": "timed out"}], "outside", "answers"),
            "problems",
            f"Port 80 (http) of {ADDRESS} does not answer: timed out. Open it in every firewall",
        ),
        (
            put([{"address": "::1", "port": 80, "for": "http", "said": "untested: no IPv6"}], "outside", "answers"),
            "untested",
            "Port 80 (http) of ::1: no IPv6.",
        ),
        (put("no answer (refused)", "host", "listener"), "problems", "The plain listener at"),
        (
            put([443, 2222], "host", "unled"),
            "problems",
            "No rule of the host's packet filter leads these ports to the containers: 443, 2222. Something has removed",
        ),
        (put([443], "host", "unled"), "problems", "Run `systemctl restart docker` on the host"),
        (put({ADDRESS: [OTHER]}, "outside", "keys"), "problems", f"shows the host key {judge.fingerprint(OTHER)}"),
        (put({ADDRESS: []}, "outside", "keys"), "untested", "showed none"),
        (put({}, "outside", "keys"), "untested", "no ssh-keyscan"),
        (put([], "host", "keys"), "problems", "There are no host keys"),
        (put("", "outside", "certificate", "pem"), "problems", f"Visitors of https://{DOMAIN} get no certificate"),
        (put(issued(-91, -1), "outside", "certificate", "pem"), "problems", "has expired 1 days ago"),
        (put(issued(-80, 10), "outside", "certificate", "pem"), "warnings", "has 10 days left of 90"),
        (put("unknown authority", "outside", "certificate", "distrust"), "problems", "not trusted: unknown authority"),
        (put({"/own/operator.pem": issued(-91, -3)}, "host", "certificates"), "problems", "operator.pem has expired 3"),
        (put({"state": "fails", "said": "HTTP 404"}, "outside", "tunnel"), "problems", "did not work: HTTP 404"),
        (put({"state": "untested", "said": "off."}, "outside", "tunnel"), "untested", "A real tunnel: off."),
        (put(NOW.timestamp() + 60, "host", "time"), "problems", "differ by 60 s"),
        (put(NOW.timestamp() - 62, "host", "time"), "problems", "differ by 60 s"),
        (put({"/data": [GIB, 20 * GIB]}, "host", "disks"), "warnings", "/data has 1024 MiB free"),
        (put({"/data": [1024**2, 20 * GIB]}, "host", "disks"), "problems", "/data has 1 MiB free"),
        (put([1024**2, GIB], "host", "memory"), "warnings", "1 MiB of 1024 MiB memory are left"),
        (put("no such file", "host", "engine"), "problems", "Docker does not answer: no such file"),
        (put({}, "host", "containers"), "problems", "The container proxme-tunnel-network is missing"),
        (
            put("exited", "host", "containers", "proxme-tunnel-edge", "state"),
            "problems",
            "The container proxme-tunnel-edge is exited",
        ),
        (
            put("exited", "host", "containers", "proxme-tunnel-sshd", "state"),
            "problems",
            "proxme-tunnel-sshd is exited",
        ),
        (
            put("2026-01-01T00:00:00Z", "host", "containers", "proxme-tunnel-caddy", "created"),
            "warnings",
            "The image an-image was built 327 days ago",
        ),
    ],
)
def test_each_fault_is_said(change, kind, said):
    seen = well()
    change(seen)
    report = judge.judge(**seen)
    assert any(said in sentence for sentence in report[kind]), report


def test_all_faults_are_said_at_once():
    seen = well()
    put("exited", "host", "containers", "proxme-tunnel-sshd", "state")(seen)
    put(issued(-91, -1), "outside", "certificate", "pem")(seen)
    put([1024**2, GIB], "host", "memory")(seen)
    report = judge.judge(**seen)
    assert (len(report["problems"]), len(report["warnings"])) == (2, 1)


def test_an_address_is_the_hosts_where_its_host_keys_say_so():
    seen = well()
    seen["host"]["addresses"] = ["10.0.0.5"]
    assert judge.judge(**copy.deepcopy(seen))["problems"] == [], "behind a NAT"
    seen["outside"]["keys"] = {}
    assert f"{DOMAIN} leads to {ADDRESS}, which is not this host (10.0.0.5)" in judge.judge(**seen)["problems"][0]


def test_a_laboratorys_authority_need_not_be_trusted():
    seen = well()
    seen["settings"]["own_authority"] = True
    seen["outside"]["certificate"]["distrust"] = "self-signed certificate in certificate chain"
    report = judge.judge(**seen)
    assert report["problems"] == []
    assert "Its authority is not a public one." in report["warnings"][0]


def test_a_closed_port_and_another_program_are_told_from_an_ssh_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in outside.answer("127.0.0.1", port, "ssh", DOMAIN)
    with outside.web_service(b"hello") as port:
        assert outside.answer("127.0.0.1", port, "http", DOMAIN) == ""
        assert outside.answer("127.0.0.1", port, "https", DOMAIN) != ""


def test_without_an_account_no_tunnel_is_tried():
    given = {"account": "", "why": "the shared account is off."}
    assert outside.tunnel(given) == {"state": "untested", "said": "the shared account is off."}


OPTIONS = {
    "domain": DOMAIN,
    "inventory": "",
    "ssh_port": 2222,
    "https_port": 443,
    "http_port": 80,
    "host_keys": [KEY],
    "shared_account": True,
    "shared_account_name": "tunnel",
    "asks_for_key": False,
    "guest_names": "guest-*",
    "port_labels": True,
}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, {"account": "tunnel", "why": "", "label": "guest-check", "forward": "guest-check:80"}),
        ({"guest_names": ""}, {"account": "tunnel", "why": "", "label": "61999", "forward": "61999"}),
        ({"http_port": 0}, {"ports": {"ssh": 2222, "https": 443}}),
        ({"shared_account": False}, {"account": "", "why": "the shared account is off."}),
        ({"asks_for_key": True}, {"account": "", "why": "the shared account asks for a key."}),
        (
            {"guest_names": "", "port_labels": False},
            {"account": "", "why": "the shared account may take neither guest names nor ports."},
        ),
    ],
)
def test_what_is_asked_follows_from_the_settings(options, asked):
    question = outside.question(OPTIONS | options)
    assert {key: question[key] for key in asked} == asked


def inspected(name: str, state: str = "running") -> str:
    """What `docker inspect` says of a container of ours."""
    said = {"name": f"/proxme-tunnel-{name}", "state": state, "id": f"sha256:{name}", "image": f"image-{name}"}
    bound = [{"HostIp": "0.0.0.0", "HostPort": "22"}, {"HostIp": "::", "HostPort": "22"}]
    ports = {"2222/tcp": bound, "9000/tcp": None} if name == "network" else {}
    return json.dumps({**said, "ports": ports, "networks": {"bridge": {"IPAddress": "172.17.0.2"}}})


@pytest.fixture
def looked(tmp_path, monkeypatch, capsys) -> Callable[..., dict[str, Any]]:
    """Look at a host on which programs answer this (what they print, and exit codes; None hangs)."""
    data, programs = tmp_path / "data", tmp_path / "bin"
    (data / "sshd_tunnel").mkdir(parents=True)
    (data / "sshd_tunnel/ssh_host_ed25519_key.pub").write_text(f"{KEY} a comment\n")
    own = data / "caddy_frontend/own"
    own.mkdir(parents=True)
    (own / "operator.pem").write_text(f"{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")
    programs.mkdir()
    monkeypatch.setattr(doctor_host, "DATA", data)

    def _looked(answers: dict[str, tuple[str, int | None]], listen: str = "", filtered: str = LED) -> dict[str, Any]:
        address = json.dumps([{"addr_info": [{}, {"local": ADDRESS}]}, {}])
        rules = {"nft": {"": ("", 1)}, "iptables-save": {"": (filtered, 0)}}
        for program, known in {"docker": answers, "ip": {"": (address, 0)}, **rules}.items():
            path = programs / program
            path.write_text(
                f"#!{sys.executable}\nimport sys, time\nwords = ' '.join(sys.argv[1:])\n"
                f"for start, (text, code) in {known!r}.items():\n"
                "    if words.startswith(start):\n        print(text)\n"
                "        if code is None:\n            time.sleep(60)\n        sys.exit(code)\n"
            )
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        with patch_module_args({"listen": listen}), pytest.raises(SystemExit):
            doctor_host.main()
        return json.loads(capsys.readouterr().out)

    return _looked


CERTIFICATE = issued(-10, 80)
# What iptables-save shows where Docker's rules are.
JUMP = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"
LED = f"{JUMP}-A DOCKER ! -i docker0 -p tcp -m tcp --dport 22 -j DNAT --to-destination 172.17.0.2:2222\n"


@pytest.fixture
def engine(tmp_path) -> dict[str, tuple[str, int]]:
    """What an engine answers that has two of our containers."""
    return {
        "version": ("28", 0),
        "info": (str(tmp_path), 0),
        "inspect --type=container": (f"{inspected('network')}\n{inspected('sshd', 'exited')}", 1),
        "image inspect": ("sha256:network 2026-11-01T00:00:00Z", 1),
    }


@pytest.mark.parametrize(
    ("filtered", "unled"),
    [
        (LED, []),
        ("", [22]),
        (LED.removeprefix(JUMP), [22]),
        (LED.replace("172.17.0.2", "172.17.0.20"), [22]),
        # As the engine's own nft back end writes it, and as an operator may.
        ("    tcp dport 22 counter packets 0 bytes 0 dnat ip to 172.17.0.2:2222\n", []),
    ],
)
def test_a_packet_filter_that_docker_s_rules_have_gone_from_is_seen(filtered, unled, looked, engine):
    assert looked(engine, filtered=filtered)["seen"]["unled"] == unled


def test_a_host_is_read(looked, tmp_path, engine):
    seen = looked(engine)["seen"]
    assert seen["containers"] == {
        "proxme-tunnel-network": {"state": "running", "image": "image-network", "created": "2026-11-01T00:00:00Z"},
        "proxme-tunnel-sshd": {"state": "exited", "image": "image-sshd", "created": "1970-01-01T00:00:00Z"},
    }
    assert (seen["engine"], seen["keys"], seen["addresses"], seen["listener"]) == ("", [KEY], [ADDRESS], "")
    assert list(seen["certificates"].values()) == [CERTIFICATE]
    assert set(seen["disks"]) == {str(tmp_path), str(tmp_path / "data")}
    assert seen["memory"][0] < seen["memory"][1]
    report = judge.judge(**(well() | {"host": well()["host"] | seen}))
    assert "The container proxme-tunnel-sshd is exited." in " ".join(report["problems"])


def test_a_docker_that_does_not_answer_is_seen(looked, monkeypatch):
    seen = looked({"version": ("is the docker daemon running?", 1)})["seen"]
    assert (seen["engine"], seen["containers"]) == ("is the docker daemon running?", {})
    assert looked({"version": ("", 1)})["seen"]["engine"] == "exit code 1"
    monkeypatch.setattr(doctor_host, "PATIENCE", 2)
    assert looked({"version": ("", None)})["seen"]["engine"] == "no answer within 2 s"


def test_the_plain_listener_is_asked(looked):
    with outside.web_service(b"hello") as port:
        assert looked({"version": ("no", 1)}, listen=f"0.0.0.0:{port}")["seen"]["listener"] == "HTTP 200"
    assert looked({"version": ("no", 1)}, listen=f"127.0.0.1:{port}")["seen"]["listener"].startswith("no answer (")


def test_the_report_has_the_worst_first(run, tmp_path):
    """The playbook's own tasks, with what was seen written into it; the host is looked at by the action."""
    seen = well()
    put("exited", "host", "containers", "proxme-tunnel-sshd", "state")(seen)
    put([1024**2, GIB], "host", "memory")(seen)
    put({"state": "untested", "said": "off."}, "outside", "tunnel")(seen)
    host = {"seen": seen["host"], "before": seen["before"], "after": seen["after"]}
    options = {"settings": seen["settings"], "host": host, "outside": {"seen": seen["outside"]}}
    tasks = [
        {"proxme.tunnel.doctor_host": {}, "register": "host"},
        {"ansible.builtin.debug": {"msg": "clock={{ host.before <= host.seen.time <= host.after }}"}},
        {"proxme.tunnel.doctor": options, "register": "it"},
        {"ansible.builtin.debug": {"msg": "{{ it.problems | length }} of {{ it.report }} not {{ it.fine | length }}"}},
    ]
    book = tmp_path / "book.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    found = str(ROOT / ".collections")
    output = run("ansible-playbook", "--check", book, cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=found).stdout
    assert "clock=True" in output
    assert "1 of ['PROBLEM: The container proxme-tunnel-sshd is exited. Run `docker start" in output
    assert (
        output.index("PROBLEM: ") < output.index("Warning: 1 MiB of") < output.index("Not tested: A real tunnel: off.")
    )
