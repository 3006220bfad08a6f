# SPDX-License-Identifier: GPL-3.0-or-later
"""dnsdist takes what the role writes, and the Lua in it answers names and nothing else.

What is asked of the Lua is asked under lupa's LuaJIT, with dnsdist's own functions replaced by ones that take notes.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any

import lupa.luajit21
import pytest
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import ALWAYS_RESERVED
from render import ROLES, evaluate, in_every_case, render, written

ROLE = "tunnel_network"
DOMAIN = "proxme.example.com"
NAMES = (ROLES / ROLE / "files/names.lua").read_text()

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "hyphens in the domain": {"tunnel_domain": "my-host.t-1.example"},
    "nothing reserved": {"tunnel_reserved_labels": []},
    "reserved": {"tunnel_reserved_labels": ["www", "mail", "my-own"]},
    # A port label has no address anyway.
    "blocked": {"tunnel_blocked_names": ["guest-phish", 8080, "8081", "blog"]},
}
CASES["everything"] = {name: value for case in CASES.values() for name, value in case.items()}
each_case = in_every_case("resolver_of", CASES)


def files(case: str) -> dict[str, str]:
    """What the role writes for the resolver."""
    given = {"tunnel_domain": DOMAIN, **CASES[case]}
    (blocked,) = [
        file["content"]
        for file in written(ROLE, "vars/main.yml")["__tunnel_network_blocked_files"]
        if file["path"].endswith("/blocked")
    ]
    return {
        "dnsdist.conf": render(ROLE, "dnsdist.conf.j2", **given),
        "blocked": evaluate(ROLE, blocked, **given) or "",
        "names.lua": NAMES,
    }


def test_only_names_stand_in_the_list_of_the_blocked():
    assert files("default")["blocked"] == ""
    assert files("blocked")["blocked"] == "guest-phish\nblog\n"


class Resolver:
    """The Lua of a case's configuration, as dnsdist would have it."""

    def __init__(self, folder, case: str) -> None:
        """Run the configuration where its files are."""
        self.domain = CASES[case].get("tunnel_domain", DOMAIN)
        self.calls: list[tuple[str, tuple]] = []
        self.rules: list[tuple[Any, Any]] = []
        for name, text in files(case).items():
            (folder / name).write_text(text.replace("/etc/proxme-tunnel", str(folder)))
        lua = lupa.luajit21.LuaRuntime()
        self.lua = lua
        names = lua.globals()
        for name in ("setLocal", "setACL", "setSecurityPollSuffix"):
            names[name] = lambda *given, name=name: self.calls.append((name, given))
        names["addAction"] = lambda rule, action: self.rules.append((rule, action))
        for name in ("QTypeRule", "AndRule", "QNameRule", "AllRule", "LuaAction", "SpoofAction", "RCodeAction"):
            names[name] = lambda *given, name=name: (name, *given)
        for table, words in {"DNSQType": "A AAAA", "DNSRCode": "NXDOMAIN", "DNSAction": "Spoof Nxdomain"}.items():
            names[table] = lua.table_from({word: word for word in words.split()})
        lua.execute((folder / "dnsdist.conf").read_text())

    def address(self, name: str) -> str | None:
        """The IPv6 address of a name; None where there is none."""
        ask = self.rules[0][1][1]
        qname = self.lua.eval("function(name) return { toStringNoDot = function() return name end } end")(name)
        action, answer = ask(self.lua.table_from({"qname": qname}))
        assert (action == "Spoof") == bool(answer)
        return answer or None


@pytest.fixture
def resolver_of(tmp_path):
    """Return a function that gives the Lua of a case."""
    return lambda case: Resolver(tmp_path, case)


def hashed(name: str) -> str:
    """The address of a name."""
    return str(ipaddress.ip_address(b"\xfd\x74" + hashlib.sha256(name.encode()).digest()[:14]))


def test_dnsdist_takes_it(resolver):
    for case in CASES:
        said = resolver.accept(files(case), "dnsdist --check-config -C /etc/proxme-tunnel/dnsdist.conf")
        assert "OK!" in said


def test_the_trial_refuses_what_dnsdist_does_not_know(resolver):
    broken = files("default")["dnsdist.conf"].replace("addAction(AllRule()", "addAktion(AllRule()")
    done = resolver.read(
        files("default") | {"dnsdist.conf": broken}, "dnsdist --check-config -C /etc/proxme-tunnel/dnsdist.conf"
    )
    assert done.returncode
    assert "addAktion" in done.stdout + done.stderr


@each_case
def test_a_name_has_the_same_address_with_and_without_the_domain(found, case):
    for name in ("a", "guest-x", "alice-shop"):
        for written_so in (name, name.upper(), f"{name}.{found.domain}", f"{name}.{found.domain}".upper()):
            assert ipaddress.ip_address(found.address(written_so)) == ipaddress.ip_address(hashed(name)), written_so


@each_case
def test_what_is_reserved_blocked_or_no_name_has_no_address(found, case):
    given = CASES[case]
    reserved = given.get("tunnel_reserved_labels", ["www"])
    blocked = [str(label) for label in given.get("tunnel_blocked_names", [])]
    for name in [*ALWAYS_RESERVED, *reserved, *blocked]:
        assert found.address(name) is None, name
        assert found.address(f"{name}.{found.domain}") is None, name
    for label in ("8080", "a--b", "", "a.b", f"a.b.{found.domain}", found.domain, "a.example.org", "127.0.0.1"):
        assert found.address(label) is None, label
    for name in {"www", "mail", "my-own", "blog", "guest-phish"} - {*reserved, *blocked}:
        assert found.address(name), name
    # A dot or a hyphen of the domain stands for itself alone.
    for other in (found.domain.replace(".", "x", 1), found.domain.replace("-", "", 1), f"x{found.domain}"):
        if other != found.domain:
            assert found.address(f"blog.{other}") is None, other


@each_case
def test_it_serves_the_host_alone_and_anything_else_has_no_answer(found, case):
    calls = dict(found.calls)
    assert calls["setLocal"] == ("127.0.0.53:53",)
    assert list(calls["setACL"][0].values()) == ["127.0.0.0/8"]
    assert calls["setSecurityPollSuffix"] == ("",)
    questions = [rule for rule, _ in found.rules]
    assert questions[0] == ("QTypeRule", "AAAA")
    assert questions[1][0] == "AndRule"
    assert list(questions[1][1].values()) == [("QTypeRule", "A"), ("QNameRule", "public.")]
    assert found.rules[1][1][0] == "SpoofAction"
    assert found.rules[2:] == [(("AllRule",), ("RCodeAction", "NXDOMAIN"))]
