# SPDX-License-Identifier: GPL-3.0-or-later
"""The specs, the defaults, the site playbook's mapping and the example inventory say the same."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml
from jinja2 import nodes

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml") if path.name != "tunnel_variables.yml")
EXPRESSIONS = ("when", "that", "until")  # keys whose values are expressions without braces
FOREIGN_NAME = object()  # a default that is no literal, as in `| default(omit)`

each_role = pytest.mark.parametrize("role", ROLES)


def load(path: Path) -> dict:
    """Return a YAML file's mapping, empty when the file is missing or empty."""
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


def spec(role: str) -> dict:
    """Return the options of a role's main entry point."""
    return load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}


def defaults(role: str) -> dict:
    """Return a role's defaults."""
    return load(ROOT / "roles" / role / "defaults/main.yml")


def operator_spec() -> dict:
    """Return the operator's variables in the format of an argument spec's options."""
    return load(ROOT / "playbooks/tunnel_variables.yml")["argument_spec"]


def options(tree: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Yield every option with its path, nested ones too."""
    for name, option in tree.items():
        yield f"{path}{name}", option
        yield from options(option.get("options") or {}, f"{path}{name}.")


def mappings(playbook: str = "site.yml") -> list[tuple[str, str]]:
    """Return what a playbook gives to roles and modules: pairs of a variable and its value's template."""
    found = []

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                walk(below, str(name))
        elif isinstance(value, list):
            for below in value:
                walk(below, key)
        elif isinstance(value, str) and "tunnel_" in value:
            found.append((key, f"{{{{ ({value}) }}}}" if key in EXPRESSIONS else value))

    walk(yaml.safe_load((ROOT / "playbooks" / playbook).read_text()))
    return found


def literal(node: nodes.Expr) -> object:
    """Return an expression's value where it is a literal, else FOREIGN_NAME."""
    try:
        return node.as_const()
    except nodes.Impossible:
        return FOREIGN_NAME


def defaulted(template: str) -> Iterator[tuple[str, object]]:
    """Yield each variable of a template that goes through `default`, with the default's value."""
    # Ansible's own filters and tests need no meaning here: the template is parsed, not rendered.
    for node in jinja2.Environment().parse(template).find_all(nodes.Filter):
        if node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            yield node.node.name, literal(node.args[0]) if node.args else ""


def plain(template: str) -> str | None:
    """Return the variable's name when a template is nothing but that variable, with or without a default and a type."""
    body = jinja2.Environment().parse(template.strip()).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    node = body[0].nodes[0]
    while isinstance(node, nodes.Filter) and node.name in ("default", "d", "int", "bool"):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


@each_role
def test_every_default_stands_in_the_spec_with_the_same_value(role):
    documented = {name: option["default"] for name, option in spec(role).items() if "default" in option}
    assert documented == defaults(role)


@each_role
def test_a_spec_option_without_a_default_is_required_or_has_none_anywhere(role):
    for name, option in spec(role).items():
        if "default" not in option:
            assert name not in defaults(role), f"{name} has a default in defaults/main.yml only"
        assert not ("default" in option and option.get("required")), f"{name} is required and has a default"


@each_role
def test_every_public_variable_starts_with_the_roles_name(role):
    entry_points = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"].values()
    told = {name for entry_point in entry_points for name in entry_point.get("options") or {}}
    strays = [name for name in {*told, *defaults(role)} if not name.startswith(f"{role}_")]
    assert not strays


@each_role
def test_every_internal_variable_starts_with_two_underscores_and_the_roles_name(role):
    internals = load(ROOT / "roles" / role / "vars/main.yml")
    assert not [name for name in internals if not name.startswith(f"__{role}_")]


@each_role
def test_every_option_has_a_type_and_a_description(role):
    bare = [path for path, option in options(spec(role)) if not (option.get("type") and option.get("description"))]
    assert not bare


@each_role
def test_a_role_reads_no_other_roles_variables(role):
    others = {name for other in ROLES if other != role for name in spec(other)} | set(operator_spec())
    pattern = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, others))) + r")\b")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for folder in ("tasks", "handlers", "templates", "vars", "defaults")
        for path in sorted((ROOT / "roles" / role / folder).rglob("*"))
        if path.is_file()
        for match in pattern.finditer(path.read_text())
    ]
    assert not found


def test_every_operator_variable_has_the_tunnel_prefix_a_type_and_a_description():
    assert [name for name in operator_spec() if not name.startswith("tunnel_")] == []
    bare = [path for path, option in options(operator_spec()) if not (option.get("type") and option.get("description"))]
    assert not bare


def test_every_operator_variable_is_used_by_a_playbook():
    playbooks = "\n".join((ROOT / "playbooks" / playbook).read_text() for playbook in PLAYBOOKS)
    unused = [name for name in operator_spec() if not re.search(rf"\b{name}\b", playbooks)]
    assert not unused


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_reads_no_variable_that_the_operator_was_not_told_of(playbook):
    known = set(operator_spec()) | {name for role in ROLES for name in spec(role)}
    found = {
        node.name
        for _, template in mappings(playbook)
        if "{{" in template
        for node in jinja2.Environment().parse(template).find_all(nodes.Name)
        if node.name.startswith("tunnel_")
    }
    assert not found - known


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_the_operators_defaults_are_those_of_the_playbook(playbook):
    told = operator_spec()
    wrong = [
        f"{name}: the spec says {json.dumps(told[name].get('default'))}, {playbook} {value!r} (for {variable})"
        for variable, template in mappings(playbook)
        if "{{" in template
        for name, value in defaulted(template)
        if name in told and value is not FOREIGN_NAME and value != told[name].get("default", "")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_the_operators_defaults_are_those_of_the_roles_they_map_to(playbook):
    told = operator_spec()
    known = {name: option for role in ROLES for name, option in spec(role).items()}
    wrong = []
    for variable, template in mappings(playbook):
        mine, theirs = told.get(plain(template), {}), known.get(variable, {})
        if "default" in mine and "default" in theirs and mine["default"] != theirs["default"]:
            wrong.append(f"{variable} is {theirs['default']!r}, {plain(template)} is {mine['default']!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_every_role_variable_that_a_playbook_sets_exists(playbook):
    entry_points = [load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"] for role in ROLES]
    known = {name for role in entry_points for entry_point in role.values() for name in entry_point["options"]}
    text = (ROOT / "playbooks" / playbook).read_text()
    keys = set(re.findall(rf"^\s*(?:-\s+)?((?:{'|'.join(ROLES)})_\w+)\s*:", text, re.MULTILINE))
    assert not keys - known


def told_to_roles(run, folder: Path, given: dict, *that: str) -> None:
    """Expect these conditions on the roles' variables with such an inventory, started in `folder`."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROOT / "playbooks/role_variables.yml")],
        "tasks": [{"ansible.builtin.assert": {"that": list(that)}}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    run("ansible-playbook", "-i", "localhost,", "-e", json.dumps(given), folder / "play.yml", cwd=folder)


@pytest.mark.parametrize("by_caddy", [pytest.param(False, id="certbot"), pytest.param(True, id="Caddy")])
def test_only_who_asks_for_the_wildcard_gets_the_providers_settings(run, tmp_path, by_caddy):
    """A key of google's for certbot has line breaks, which no configuration of Caddy's could hold."""
    given = {
        "tunnel_domain": "proxme.example",
        "tunnel_tls": "wildcard",
        "tunnel_dns_provider": "google",
        "tunnel_dns_by_caddy": by_caddy,
        "tunnel_dns_settings": {"private_key": "-----BEGIN PRIVATE KEY-----\nbase64\n"},
    }
    told_to_roles(
        run,
        tmp_path,
        given,
        f"(certbot_wildcard_state == 'present') == {not by_caddy}",
        f"caddy_frontend_dns_settings == {'tunnel_dns_settings' if by_caddy else '{}'}",
        f"caddy_frontend_dns_provider == '{'google' if by_caddy else ''}'",
    )


def test_a_relative_path_begins_where_the_playbook_was_started(run, tmp_path):
    """Ansible's own tests, lookups and modules begin in different folders."""
    given = {
        "tunnel_domain": "proxme.example",
        "tunnel_sites": ["sites/", "/srv/sites"],
        "tunnel_revoked_keys": "./revoked",
        "tunnel_certificate_file": "own/fullchain.pem",
        "tunnel_acme_fallback_ca_root": "~/root.pem",
    }
    told_to_roles(
        run,
        tmp_path,
        given,
        f"caddy_frontend_sites == ['{tmp_path}/sites/', '/srv/sites']",
        f"sshd_tunnel_revoked_keys == '{tmp_path}/./revoked'",
        f"caddy_frontend_own_certificate == '{tmp_path}/own/fullchain.pem'",
        "caddy_frontend_acme_fallback_ca_root == lookup('ansible.builtin.env', 'HOME') ~ '/root.pem'",
        "caddy_frontend_acme_ca_root == '' and certbot_wildcard_ca_root == ''",
    )
    there = given | {"tunnel_certificate_on_host": True}
    told_to_roles(run, tmp_path, there, "caddy_frontend_own_certificate == 'own/fullchain.pem'")


def test_who_and_what_is_barred_is_told_to_every_part_that_refuses_it(run, tmp_path):
    names, addresses = ["phish", "8666"], ["192.0.2.1", "2001:db8::/32"]
    told_to_roles(
        run,
        tmp_path,
        {"tunnel_domain": "proxme.example", "tunnel_barred_names": names, "tunnel_barred_addresses": addresses},
        # The resolver knows names alone.
        "tunnel_pod_barred_names == ['phish']",
        f"sshd_tunnel_barred_labels == nginx_subdomains_barred_labels == {names}",
        f"tunnel_pod_barred_addresses == {addresses}",
        f"sshd_tunnel_barred_addresses == caddy_frontend_barred_addresses == {addresses}",
    )


@pytest.mark.parametrize(
    ("given", "forward"),
    [
        ({}, "8080:localhost:80"),
        ({"tunnel_port_labels": False}, "guest-x:80:localhost:80"),
        ({"tunnel_port_labels": False, "tunnel_guest_names": ""}, "8080:localhost:80"),
        ({"tunnel_port_labels": False, "tunnel_shared_account": False}, "8080:localhost:80"),
    ],
)
def test_a_run_ends_with_a_forward_that_ssh_understands(run, tmp_path, given, forward):
    told_to_roles(run, tmp_path, {"tunnel_domain": "proxme.example", **given}, f"__tunnel_forward_shown == '{forward}'")


def test_what_a_playbook_sets_is_known_to_the_next_one_of_the_same_command():
    def facts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from value.get("ansible.builtin.set_fact") or {}
        for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from facts(below)

    files = [*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "playbooks").glob("*.yml")]
    public = {name for file in files for name in facts(yaml.safe_load(file.read_text())) if not name.startswith("__")}
    refusal = next(
        task for task in load(ROOT / "playbooks/check_inventory.yml") if "__tunnel_facts" in task.get("vars", {})
    )
    assert public == set(refusal["vars"]["__tunnel_facts"])


def test_the_example_inventory_works_as_it_is_and_knows_only_variables_of_the_spec(run, tmp_path):
    shutil.copy(ROOT / "inventory.example", tmp_path / "inventory")
    listing = json.loads(run("ansible-inventory", "-i", tmp_path / "inventory", "--list", cwd=tmp_path).stdout)
    hosts = listing["_meta"]["hostvars"]
    assert hosts, "inventory.example names no host, or its format isn't recognised"
    active = {name for variables in hosts.values() for name in variables}
    offered = set(re.findall(r"^[#\s]*(\w+)\s*[=:]", (ROOT / "inventory.example").read_text(), re.MULTILINE))
    known = set(operator_spec()) | {name for role in ROLES for name in spec(role)}
    ours = {name for name in active | offered if name.startswith(("tunnel_", *(f"{role}_" for role in ROLES)))}
    assert ours, "inventory.example shows none of the operator's variables"
    assert ours <= known
    required = {name for name, option in operator_spec().items() if option.get("required")}
    assert required <= active
