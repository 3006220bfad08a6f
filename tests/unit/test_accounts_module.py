# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action accounts makes of a list of accounts, and what it refuses."""

from __future__ import annotations

import base64
import copy
import datetime
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.proxme.tunnel.plugins.module_utils import accounts


def ssh_key(kind: str = "ssh-ed25519", *fields: bytes) -> str:
    """A public key of this type with these fields; it need not be one that anybody has the private part of."""
    parts = [kind.encode(), *(fields or (b"k" * 32,))]
    return f"{kind} " + base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = ssh_key()


# Labels that nobody may have, as the settings name them: those that are always reserved, and one of the operator's.
RESERVED = [
    *(
        "localhost",
        "public",
        "proxme-tunnel-network",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
    ),
    *("ip6-allnodes", "ip6-allrouters", "www"),
]


def settings(*entries: dict[str, Any], shared: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """The settings with these accounts."""
    shared = {"name": "tunnel", "enabled": True, "keys": []} | (shared or {})
    return {
        "domain": "proxme.example.com",
        "accounts": [{"keys": [KEY], **entry} for entry in entries],
        "shared_account": shared.pop("enabled"),
        "shared_account_name": shared.pop("name"),
        "shared_account_keys": shared.pop("keys"),
        "guest_names": "guest-*",
        "port_labels": True,
        "reserved": RESERVED,
        "tcp_ports": "30000-30009",
        "user_ca": [],
        "revoked_keys": "",
        **shared,
        **rest,
    }


def judged(
    *entries: dict[str, Any], state: dict[str, Any] | None = None, today: str = "2026-11-23", **rest: Any
) -> dict[str, Any]:
    """What becomes of these accounts, problems included."""
    day = datetime.date.fromisoformat(today)
    return accounts.Compiler(settings(*entries, **rest), state or {}, day).run()


def compiled(*entries: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """What becomes of these accounts, in which no problem was found."""
    result = judged(*entries, **rest)
    assert result["problems"] == []
    return result


ALICE = {"name": "alice", "names": ["blog", "alice-*"]}
BOB = {"name": "bob", "names": ["bob-db"]}

# The accounts, and a part of what is said.
REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "duplicate account": ([ALICE, {"name": "alice"}], "Account alice: there are two of them"),
    "the shared account's name": ([{"name": "tunnel"}], "Account tunnel: there are two of them"),
    "upper case": ([{"name": "Alice"}], "Account Alice: the name can't be used"),
    "account of the system": ([{"name": "root"}], "Account root: the name can't be used"),
    "same name": (
        [ALICE, {"name": "bob", "names": ["blog"]}],
        'the name "blog" meets "blog", which is a name of alice',
    ),
    "name in a pattern": ([ALICE, {"name": "bob", "names": ["alice-x"]}], 'meets "alice-*", which is a name of alice'),
    "pattern over a name": ([BOB, {"name": "eve", "names": ["bob-*"]}], 'meets "bob-db", which is a name of bob'),
    "two patterns": ([ALICE, {"name": "eve", "names": ["alice-in-*"]}], 'meets "alice-*"'),
    "guest name": ([{"name": "eve", "names": ["guest-eve"]}], "which is the names of the shared account"),
    "guest pattern": ([{"name": "eve", "names": ["guest-*"]}], 'meets "guest-*"'),
    "reserved label": ([{"name": "eve", "names": ["www"]}], 'meets "www", which is a reserved label'),
    "public": ([{"name": "eve", "names": ["public"]}], 'meets "public", which is a reserved label'),
    "everything": ([{"name": "eve", "names": ["*"]}], 'the name "*" can\'t be granted. Write a label'),
    "a letter and everything": ([{"name": "eve", "names": ["e*"]}], 'the name "e*" can\'t be granted'),
    "a pattern with two asterisks": ([{"name": "eve", "names": ["e-*-*"]}], 'the name "e-*-*" can\'t be granted'),
    "digits": ([{"name": "eve", "names": ["8080"]}], 'the name "8080" can\'t be granted'),
    "dots": ([{"name": "eve", "names": ["a.b"]}], 'the name "a.b" can\'t be granted'),
    "punycode": ([{"name": "eve", "names": ["xn--bcher-kva"]}], 'the name "xn--bcher-kva" can\'t be granted'),
    "too long": ([{"name": "eve", "names": ["e" * 64]}], "can't be granted"),
    "no key": ([{"name": "eve", "keys": []}], "Account eve: it has no key, so nobody could log in"),
    "no public key": ([{"name": "eve", "keys": ["hello"]}], '"hello" is no public key. Write a line'),
    "private key": ([{"name": "eve", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}], "is no public key"),
    "damaged key": ([{"name": "eve", "keys": [KEY[:-8]]}], "is damaged. Copy the whole line"),
    "other type inside": ([{"name": "eve", "keys": ["ssh-rsa " + KEY.split()[1]]}], "is damaged"),
    "short rsa": (
        [{"name": "eve", "keys": [ssh_key("ssh-rsa", b"\1\0\1", b"\1" * 128)]}],
        "has fewer than 2048 bits. Make a new one",
    ),
    "dss": ([{"name": "eve", "keys": [ssh_key("ssh-dss")]}], "is no public key"),
    "option that widens": ([{"name": "eve", "keys": [f'command="x" {KEY}']}], "has the option command"),
    "hidden option": ([{"name": "eve", "keys": [f'from="x",command="y" {KEY}']}], "has the option command"),
    "authority": ([{"name": "eve", "keys": [f"cert-authority {KEY}"]}], "has the option cert-authority"),
    "unreadable options": ([{"name": "eve", "keys": [f'from="x"y {KEY}']}], "can't be read"),
    "wrong expiry-time": ([{"name": "eve", "keys": [f'expiry-time="soon" {KEY}']}], "has an expiry-time that is none"),
    "two lines": ([{"name": "eve", "keys": [f"{KEY}\nbob {KEY}"]}], "is no public key"),
    "key file that is not there": (
        [{"name": "eve", "keys": ["/nowhere/key.pub"]}],
        "can't be read on the control node",
    ),
    "key URL without TLS": ([{"name": "eve", "keys": ["http://example.com/k"]}], "Write an https:// address"),
    "unknown reach": ([{"name": "eve", "reach": ["bob-db:22"]}], "but no account has the name bob-db"),
    "reach without port": ([BOB, {"name": "eve", "reach": ["bob-db"]}], 'reach has "bob-db". Write a name and a port'),
    "reach to a port that is none": ([BOB, {"name": "eve", "reach": ["bob-db:70000"]}], "Write a name and a port"),
    "reach to a full-width digit": ([BOB, {"name": "eve", "reach": ["bob-db:5\uff14"]}], "Write a name and a port"),
    "pattern over a host of the container": (
        [{"name": "eve", "names": ["proxme-*"]}],
        'meets "proxme-tunnel-network", which is a reserved label',
    ),
    "reach to a number": ([BOB, {"name": "eve", "reach": ["127.0.0.1:22"]}], "Write a name and a port"),
    "reach to everything": ([BOB, {"name": "eve", "reach": ["*:22"]}], "Write a name and a port"),
    "port outside the range": ([{"name": "eve", "tcp_ports": [80]}], "tcp_ports has 80, but the range is 30000-30009"),
    "port of another": (
        [{"name": "eve", "tcp_ports": [30001]}, {"name": "mallory", "tcp_ports": [30001]}],
        "Account mallory: tcp_ports has 30001, which is eve's",
    ),
    "domain below ours": (
        [ALICE | {"domains": {"shop.proxme.example.com": "blog"}}],
        "the domain shop.proxme.example.com is the tunnel host's own",
    ),
    "our domain": ([ALICE | {"domains": {"proxme.example.com": "blog"}}], "is the tunnel host's own"),
    "domain that is none": ([ALICE | {"domains": {"https://shop.example.org": "blog"}}], "is none. Write it in lower"),
    "domain of another": (
        [ALICE | {"domains": {"shop.example.org": "blog"}}, BOB | {"domains": {"shop.example.org": "bob-db"}}],
        "Account bob: the domain shop.example.org is alice's",
    ),
    "domain for a foreign name": (
        [ALICE | {"domains": {"shop.example.org": "bob-db"}}, BOB],
        'shows "bob-db", which is none of the account\'s names. Write one of blog, alice-*',
    ),
    "domain passed through to a foreign name": (
        [ALICE | {"domains": {"shop.example.org": {"name": "bob-db", "passthrough": True}}}, BOB],
        'the domain shop.example.org shows "bob-db", which is none of the account\'s names. Write one of blog, alice-*',
    ),
    "domain below ours, passed through": (
        [ALICE | {"domains": {"shop.proxme.example.com": {"name": "blog", "passthrough": True}}}],
        "the domain shop.proxme.example.com is the tunnel host's own",
    ),
    "domain with an asterisk": (
        [ALICE | {"domains": {"*.example.org": {"name": "blog", "passthrough": True}}}],
        'the domain "*.example.org" is none.',
    ),
    "principal with a space": ([{"name": "eve", "principals": ["a b"]}], 'principals has "a b". Write words of'),
    "account of systemd": ([{"name": "systemd-network"}], "the name can't be used"),
    "rsa key with one field": ([{"name": "eve", "keys": [ssh_key("ssh-rsa", b"\1\0\1")]}], "is damaged"),
    "past date": ([{"name": "eve", "expires": "2026-11-22"}], "expires is 2026-11-22, which is past"),
    "no date": ([{"name": "eve", "expires": "next year"}], 'expires is "next year". Write a date'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_what_to_write_instead(case):
    entries, said = REFUSED[case]
    problems = judged(*entries)["problems"]
    assert any(said in problem for problem in problems), problems
    assert all(problem.startswith("Account ") for problem in problems)


def test_all_problems_are_said_at_once():
    problems = judged({"name": "eve", "names": ["*"], "keys": ["x"]}, {"name": "Bob"})["problems"]
    assert len(problems) == 3


def test_a_name_is_granted_on_every_port_and_with_our_domain():
    alice = compiled(ALICE)["accounts"][1]
    assert alice["listen"] == ["localhost:*", "blog:*", "alice-*:*", "blog.proxme.example.com:*"]
    assert alice["open"] == ["blog:*"]


def test_the_shared_account_comes_first_and_has_an_empty_password():
    shared = compiled()["accounts"][0]
    assert (shared["name"], shared["uid"], shared["keys"]) == ("tunnel", 20000, None)
    assert shared["listen"] == ["localhost:*", "guest-*:80", "guest-*:443"]


@pytest.mark.parametrize(
    ("choice", "listen"),
    [
        ({"guest_names": ""}, ["localhost:*"]),
        ({"port_labels": False}, ["guest-*:80", "guest-*:443"]),
        ({"port_labels": False, "guest_names": ""}, []),
    ],
)
def test_what_the_shared_account_may_do_is_a_choice(choice, listen):
    assert compiled(shared=choice)["accounts"][0]["listen"] == listen
    assert compiled(shared={"enabled": False})["accounts"] == []
    assert compiled(shared={"keys": [KEY]})["accounts"][0]["keys"] == [KEY]


@pytest.mark.parametrize(
    "line", [KEY, f"{KEY} alice@laptop", f'from="192.0.2.0/24,2001:db8::/32",expiry-time="20270630Z" {KEY} x']
)
def test_keys_keep_their_options_and_lose_their_comments(line):
    (key,) = compiled({"name": "alice", "keys": [line]})["accounts"][1]["keys"]
    assert key == line[: line.index(KEY)] + KEY


def test_real_keys_of_every_type_are_taken(tmp_path):
    for kind, bits in (("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")):
        path = tmp_path / f"{kind}{bits}"
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path), *(["-b", bits] if bits else [])]
        subprocess.run(command, check=True)
        assert compiled({"name": "alice", "keys": [f"{path}.pub"]})["accounts"][1]["keys"]
    for kind in ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"):
        assert compiled({"name": "alice", "keys": [ssh_key(kind)]})["accounts"][1]["keys"]


def test_user_ids_are_never_given_to_another_account():
    first = compiled(ALICE, BOB)
    second = compiled({"name": "carol"}, BOB, state=first["state"])
    third = compiled(ALICE, state=second["state"])
    ids = [{account["name"]: account["uid"] for account in run["accounts"]} for run in (first, second, third)]
    assert ids == [
        {"tunnel": 20000, "alice": 20001, "bob": 20002},
        {"tunnel": 20000, "carol": 20003, "bob": 20002},
        {"tunnel": 20000, "alice": 20001},
    ]


@pytest.mark.parametrize(
    ("later", "ended"),
    [
        ([ALICE, BOB], []),
        ([ALICE | {"names": ["blog", "alice-*", "more"]}, BOB], []),
        ([ALICE | {"keys": [KEY, ssh_key("ssh-ed25519", b"n" * 32)]}, BOB], []),
        ([ALICE | {"keys": [f"{KEY} another comment"]}, BOB], []),
        ([ALICE | {"names": ["alice-*"]}, BOB], [20001]),
        ([ALICE | {"keys": [ssh_key("ssh-ed25519", b"n" * 32)]}, BOB], [20001]),
        ([ALICE | {"keys": [f'from="192.0.2.1" {KEY}']}, BOB], [20001]),
        ([BOB], [20001]),
        ([], [20001, 20002]),
    ],
)
def test_what_an_account_loses_ends_its_connections(later, ended):
    state = compiled(ALICE, BOB)["state"]
    assert compiled(*later, state=state)["ended"] == ended


def test_the_shared_account_ends_when_it_is_closed_but_not_for_other_guest_names():
    state = compiled()["state"]
    assert compiled(state=state, shared={"guest_names": "visitor-*"})["ended"] == []
    assert compiled(state=state, shared={"enabled": False})["ended"] == [20000]
    assert compiled(state=state, shared={"keys": [KEY]})["ended"] == [20000]


def test_a_guest_keeps_a_name_until_it_becomes_an_accounts():
    """A guest may hold a name of a pattern that is no more; nobody else gets it before that one's connection ends."""
    first = compiled()
    second = compiled(state=first["state"], shared={"guest_names": "visitor-*"})
    assert second["ended"] == []
    eve = {"name": "eve", "names": ["guest-eve"]}
    third = compiled(eve, state=second["state"], shared={"guest_names": "visitor-*"})
    assert third["ended"] == [20000]
    died = compiled(eve, state=third["pending"], shared={"guest_names": "visitor-*"})
    assert died["ended"] == [20000]
    fourth = compiled(eve, state=third["state"], shared={"guest_names": "visitor-*"})
    assert fourth["ended"] == []


def test_what_a_run_gave_counts_even_if_it_died():
    """The state that is written first: nothing is forgotten, and no user id is given again."""
    died = compiled(ALICE, BOB, state=compiled(BOB | {"names": ["old"]})["state"])["pending"]
    later = compiled({"name": "carol"}, state=died)
    assert later["ended"] == [20001, 20002]
    assert later["accounts"][1]["uid"] == 20003
    assert compiled(ALICE, BOB, state=died)["ended"] == [20001], "bob lost a name that nobody took from him yet"


def test_values_that_yaml_reads_otherwise_are_taken_for_what_they_look_like():
    """`domains:` with nothing behind it, a name or a principal of digits."""
    compiled({"name": "eve", "domains": None, "names": None, "reach": None, "principals": [2024]})
    problems = judged({"name": "eve", "names": [2024]})["problems"]
    assert any('the name "2024" can\'t be granted' in problem for problem in problems)


def test_the_shared_account_is_none_of_the_systems():
    problems = judged(shared={"name": "nobody"})["problems"]
    assert problems == [
        "tunnel_shared_account_name is nobody, an account of the system. Write another, such as tunnel."
    ]


@pytest.mark.parametrize(
    ("line", "said"), [("hello", "is no public key"), (f'from="192.0.2.1" {KEY}', "has options. Write the key alone")]
)
def test_an_authority_is_a_key_alone(line, said):
    (problem,) = judged(user_ca=[line])["problems"]
    assert problem.startswith("tunnel_user_ca: ")
    assert said in problem
    assert compiled(user_ca=[f"{KEY} a comment"])["user_ca"] == [KEY]


def test_revoked_keys_are_read_before_sshd_does(tmp_path):
    """While it can't read them, sshd lets nobody in."""
    listed, made, key = tmp_path / "list", tmp_path / "krl", tmp_path / "key.pub"
    key.write_text(f"{KEY}\n")
    listed.write_text(f"# lost\n{KEY} alice@laptop\n")
    real = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "real")]
    subprocess.run(real, check=True)
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(made), str(tmp_path / "real.pub")], check=True)
    for path in (listed, made):
        assert compiled(revoked_keys=str(path))["revoked_keys"] == str(path)
    listed.write_text(f"{KEY}\nhello\n")
    for path, said in ((listed, "neither a list of public keys nor"), (tmp_path / "none", "can't be read")):
        (problem,) = judged(revoked_keys=str(path))["problems"]
        assert problem.startswith(f"tunnel_revoked_keys: {path}")
        assert said in problem


def test_an_account_that_ran_out_is_a_warning_and_no_problem():
    alice = ALICE | {"expires": "2026-11-24"}
    first = compiled(alice)
    assert first["accounts"][1]["expires"] == 20781
    later = compiled(alice, state=first["state"], today="2026-12-01")
    assert later["warnings"] == ["Account alice has expired (2026-11-24). Remove it, or write a later date."]


@pytest.fixture
def forge(tmp_path, monkeypatch) -> Iterator[dict[str, str]]:
    """A forge at https://localhost; what it answers by path, and its address as "url"."""
    pem = tmp_path / "forge.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", pem, "-out", tmp_path / "crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "crt"))
    answers: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            if self.path == "/garbage":
                self.wfile.write(b"hello")
                return
            if self.path == "/cut":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + KEY.encode())
                return
            if self.path == "/drip":
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
                for _ in range(100):
                    self.wfile.write(b"#")
                    if stopped.wait(0.1):
                        return
                return
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, "").encode())

        def log_message(self, *_: object) -> None:
            pass

    stopped = threading.Event()
    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    answers["url"] = f"https://localhost:{server.server_port}"
    yield answers
    stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_keys_from_a_url_are_kept_when_it_does_not_answer(forge, monkeypatch):
    other = ssh_key("ssh-ed25519", b"n" * 32)
    forge["/alice.keys"] = f"# two of them\n{KEY}\n{other}\n"
    alice = ALICE | {"keys": [f"{forge['url']}/alice.keys"]}
    first = compiled(alice)
    assert first["accounts"][1]["keys"] == [KEY, other]
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    second = compiled(alice, state=first["state"])
    assert second["accounts"][1]["keys"] == [KEY, other]
    assert second["ended"] == []
    assert "does not answer" in second["warnings"][0]
    assert "the keys that it had at the last run are kept" in second["warnings"][0]
    problems = judged(alice)["problems"]
    assert "does not answer" in problems[0]


def test_a_url_that_answers_something_else_is_refused(forge):
    forge["/page"] = "<!doctype html><title>Sign in</title>"
    for path, said in {"/page": "answers something else than public keys", "/nobody": "does not exist (404)"}.items():
        alice = ALICE | {"keys": [forge["url"] + path]}
        known = {"fetched": {forge["url"] + path: [KEY]}}
        problems = judged(alice, state=known)["problems"]
        assert any(said in problem for problem in problems), problems


def test_a_url_that_is_not_well_keeps_the_keys(forge, monkeypatch):
    """What ends too early, is no HTTP, or takes too long; a redirect is followed to https alone."""
    monkeypatch.setattr(accounts, "PATIENCE", 1)
    for path in ("/cut", "/garbage", "/drip"):
        url = forge["url"] + path
        result = compiled(ALICE | {"keys": [url]}, state={"fetched": {url: [KEY]}})
        assert "does not answer" in result["warnings"][0], path
    forge["/alice.keys"] = KEY
    assert compiled(ALICE | {"keys": [f"{forge['url']}/to/{forge['url']}/alice.keys"]})["accounts"][1]["keys"] == [KEY]
    plain = f"{forge['url']}/to/http://localhost/alice.keys"
    problems = judged(ALICE | {"keys": [plain]})["problems"]
    assert any("which is not https" in problem for problem in problems), problems


def test_a_failure_names_the_operators_variables():
    shared = judged({"name": "eve", "names": ["*"]}, shared={"keys": ["hello", "http://example.com/k"]}, user_ca=["x"])
    said = accounts.message(shared["problems"])
    assert 'tunnel_shared_account_keys: "hello" is no public key. Write a line' in said
    assert "tunnel_shared_account_keys: keys has http://example.com/k. Write an https:// address." in said
    assert 'tunnel_user_ca: "x" is no public key' in said
    assert 'tunnel_accounts: Account eve: the name "*" can\'t be granted.' in said
    assert accounts.message(judged({"name": "Eve"})["problems"]).startswith("tunnel_accounts: Account Eve: the name")


def test_what_is_remembered_is_left_as_it_is():
    """The same registered result may be given to several runs."""
    state = compiled(ALICE)["state"]
    before = copy.deepcopy(state)
    compiled(ALICE, BOB, state=state)
    assert state == before


@pytest.fixture
def play(run, tmp_path) -> Callable[..., str]:
    """Run the action in plays of one command, one for each (settings, remembered); the output."""
    (tmp_path / "key.pub").write_text(f"{KEY} alice@laptop\n")

    def _play(*plays: tuple[dict[str, Any], dict[str, Any]]) -> str:
        paths = []
        for number, (given, remembered) in enumerate(plays):
            tasks = [
                {"proxme.tunnel.accounts": {"settings": given, "remembered": remembered}, "register": "compiled"},
                {"ansible.builtin.debug": {"msg": "ended={{ compiled.ended }} msg={{ compiled.msg }}"}},
                {"ansible.builtin.debug": {"msg": "keys={{ compiled.accounts[1]['keys'] }}"}},
            ]
            paths.append(tmp_path / f"{number}.yml")
            paths[-1].write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        found = ROOT / ".collections"
        done = run("ansible-playbook", "-v", *paths, cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(found))
        return done.stdout + done.stderr

    return _play


def test_each_run_judges_what_is_then(play):
    """Two playbooks in one command, the second with what the first has left: nothing is ended twice."""
    first = compiled(ALICE, BOB)["state"]
    second = compiled(BOB, state=first)["state"]
    output = play((settings(BOB), first), (settings(BOB), second))
    assert "ended=[20001] msg=[]" in output
    assert output.index("ended=[] msg=[]") > output.index("ended=[20001]")


def test_a_relative_key_file_is_sought_where_the_playbook_was_started(play):
    assert f"keys=['{KEY}']" in play((settings(ALICE | {"keys": ["./key.pub"]}), {}))


def test_warnings_are_shown_as_such(play):
    eve = {"name": "eve", "expires": "2026-01-01"}
    state = compiled(eve, today="2025-12-31")["state"]
    output = play((settings(eve), state))
    assert "Account eve has expired (2026-01-01). Remove it, or write a later date." in " ".join(output.split())


def test_bad_accounts_end_the_run(play):
    with pytest.raises(pytest.fail.Exception, match="tunnel_accounts: Account Eve: the name can't be used"):
        play((settings({"name": "Eve"}), {}))
