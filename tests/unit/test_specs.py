# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator may write stands in one spec, and is read; what roles and playbooks read is there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import OURS, PARTS, PREFIX, derive
from jinja2 import nodes
from render import OPTIONS, settings

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
# Keys whose values are expressions without braces.
EXPRESSIONS = ("when", "that", "until", "changed_when", "failed_when")
# What a part may read of the role that all depend on, beside what is registered.
OF_ALL = {"__tunnel_engine_answers"}
# What playbooks may tell that role.
TOLD = {"__tunnel_checks"}
# What a play may say of a part.
STATES = {f"{part}_state" for part in PARTS}
SECRET = {name for name, option in OPTIONS.items() if option.get("no_log")}
# Those, and mappings with a key that is one.
HOLDING_SECRETS = SECRET | {
    name for name, option in OPTIONS.items() for key in option.get("options", {}).values() if key.get("no_log")
}

each_part = pytest.mark.parametrize("part", PARTS)
each_role = pytest.mark.parametrize("role", ROLES)


def load(path: Path) -> dict:
    """Return a YAML file's mapping, empty when the file is missing or empty."""
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


def specs(role: str) -> dict[str, dict]:
    """Return the options of a role, by entry point."""
    entries = load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    return {name: entry.get("options") or {} for name, entry in entries.items()}


def defaults(role: str) -> dict:
    """Return a role's defaults."""
    return load(ROOT / "roles" / role / "defaults/main.yml")


def options(tree: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Yield every option with its path, nested ones too."""
    for name, option in tree.items():
        yield f"{path}{name}", option
        yield from options(option.get("options") or {}, f"{path}{name}.")


def pairs(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield everything in a YAML file with the key that it is under; a list's items are under the list's."""
    yield key, value
    if isinstance(value, dict):
        for name, below in value.items():
            yield from pairs(below, str(name))
    elif isinstance(value, list):
        for below in value:
            yield from pairs(below, key)


def chain(node: nodes.Node) -> list[str]:
    """The words of `a.b['c']`; none where it doesn't begin with a name."""
    if isinstance(node, nodes.Name):
        return [node.name]
    if isinstance(node, nodes.Getattr):
        return (before := chain(node.node)) and [*before, node.attr]
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return (before := chain(node.node)) and [*before, node.arg.value]
    return []


class Code:
    """What templates and expressions read, and what is set beside them."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.read: set[tuple[str, ...]] = set()
        self.set: set[str] = set()
        self.registered: set[str] = set()

    def template(self, text: str) -> None:
        """Take what a template reads. Ansible's filters and tests need no meaning here: it is parsed, not rendered."""
        parsed = jinja2.Environment().parse(text)
        self.set |= {name.name for name in parsed.find_all(nodes.Name) if name.ctx in ("store", "param")}
        self.read |= {
            tuple(words) for kind in (nodes.Name, nodes.Getattr, nodes.Getitem) for node in parsed.find_all(kind)
            if (words := chain(node))
        }  # fmt: skip

    def yaml(self, path: Path, variables: bool = False) -> None:
        """Take a file of tasks, or of variables."""
        whole = yaml.safe_load(path.read_text())
        if variables:
            self.set |= set(whole or {})
        for key, value in pairs(whole):
            if key == "vars" and isinstance(value, dict):
                self.set |= set(value)
            elif key == "register":
                self.registered.add(str(value))
            elif isinstance(value, str):
                self.template(f"{{{{ ({value}) }}}}" if key in EXPRESSIONS else value)

    @property
    def names(self) -> set[str]:
        """The variables that are read."""
        return {words[0] for words in self.read}


@cache
def code_of(role: str) -> Code:
    """What is in a role."""
    found, folder = Code(), ROOT / "roles" / role
    for path in sorted(folder.glob("tasks/*.yml")) + sorted(folder.glob("handlers/*.yml")):
        found.yaml(path)
    for name in ("vars", "defaults"):
        if (path := folder / name / "main.yml").exists():
            found.yaml(path, variables=True)
    for path in folder.glob("templates/*"):
        found.template(path.read_text())
    return found


@cache
def code_of_playbooks() -> Code:
    """What is in the playbooks."""
    found = Code()
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        found.yaml(path)
    return found


@cache
def every_code() -> dict[str, Code]:
    """All that reads variables, by where it is."""
    return {role: code_of(role) for role in ROLES} | {"playbooks": code_of_playbooks()}


def test_what_is_looked_at_is_there():
    """Else the tests below would hold of nothing."""
    assert set(ROLES) == {*PARTS, "tunnel"}
    assert ("tunnel", "certificate_budget", "day") in code_of("nginx_subdomains").read
    assert ("__tunnel_checks",) in code_of("tunnel").read
    assert ("tunnel", "by_certbot") in code_of_playbooks().read
    assert "__sshd_tunnel_image" in code_of("sshd_tunnel").registered


# --- the parts -------------------------------------------------------------------------------------------------------


@each_part
def test_a_parts_spec_and_its_defaults_are_the_same(part):
    documented = {name: option["default"] for name, option in specs(part)["main"].items() if "default" in option}
    assert documented == defaults(part)
    for name, option in specs(part)["main"].items():
        assert ("default" in option) != bool(option.get("required")), name


@each_part
def test_every_public_variable_of_a_part_begins_with_its_name(part):
    told = {name for entry in specs(part).values() for name in entry}
    assert [name for name in {*told, *defaults(part)} if not name.startswith(f"{part}_")] == []


@each_part
def test_a_part_has_no_setting_but_whether_it_is_there(part):
    assert {name for entry in specs(part).values() for name in entry} == {f"{part}_state"}
    assert load(ROOT / "roles" / part / "meta/main.yml")["dependencies"] == [{"role": "proxme.tunnel.tunnel"}]


@each_part
def test_every_option_of_a_part_has_a_type_and_a_description(part):
    every = [option for entry in specs(part).values() for option in options(entry)]
    assert [path for path, option in every if not (option.get("type") and option.get("description"))] == []


@each_role
def test_every_internal_variable_begins_with_two_underscores_and_the_roles_name(role):
    internals = load(ROOT / "roles" / role / "vars/main.yml")
    assert [name for name in internals if not name.startswith(f"__{role}_")] == []


def owner(name: str) -> str | None:
    """The role that a variable belongs to by its name; of several the one with the longest name."""
    bare = name.removeprefix("__")
    return max((role for role in ROLES if bare.startswith(f"{role}_")), key=len, default=None)


@each_role
def test_no_role_reads_what_is_anothers(role):
    """Only what is registered for all, and the settings."""
    foreign = {name for name in code_of(role).names if owner(name) not in (role, None)}
    assert foreign - (OURS - STATES) - HOLDING_SECRETS - OF_ALL == set()


@each_role
def test_whatever_a_role_reads_of_its_own_it_has(role):
    code = code_of(role)
    known = (
        code.set | code.registered | {name for entry in specs(role).values() for name in entry} | (OURS - STATES) | TOLD
    )
    assert {name for name in code.names if owner(name) == role} - known == set()
    # And of what all may read.
    assert {name for name in OF_ALL if name in code.names} <= set(load(ROOT / "roles/tunnel/vars/main.yml"))


@each_role
def test_whatever_a_role_makes_it_reads(role):
    """A variable that nobody reads is left of something that is gone."""
    everywhere = {name for code in every_code().values() for name in code.names}
    made = set(load(ROOT / "roles" / role / "vars/main.yml")) | code_of(role).registered
    assert made - everywhere == set()


def test_playbooks_read_no_internals_of_a_part():
    names = code_of_playbooks().names
    assert {name for name in names if name.startswith("__") and owner(name) in PARTS} == set()
    assert {name for name in names if name.startswith("__")} <= code_of_playbooks().set | code_of_playbooks().registered


# --- what an operator writes -----------------------------------------------------------------------------------------


def test_every_operator_variable_has_the_prefix_a_type_a_description_and_a_default():
    assert [name for name in OPTIONS if not name.startswith(PREFIX)] == []
    bare = [path for path, option in options(OPTIONS) if not (option.get("type") and option.get("description"))]
    assert bare == []
    # An option of an option may be left out.
    wrong = [name for name, option in OPTIONS.items() if ("default" in option) == bool(option.get("required"))]
    assert wrong == []


def test_an_operator_variable_belongs_to_no_part_and_is_nothing_that_is_registered():
    assert [name for name in OPTIONS if name in OURS or owner(name) in PARTS] == []


def test_what_the_operator_says_is_checked_by_us_first_and_has_no_default_elsewhere():
    """Ansible checks an entry point main before all else, in words of its own."""
    assert set(defaults("tunnel")) == TOLD
    assert list(specs("tunnel")) == ["operator"]
    assert [name for name, option in OPTIONS.items() if option.get("required")] == ["tunnel_domain"]


def test_the_settings_hold_every_operator_variable_but_the_secrets():
    given = settings(tunnel_domain="proxme.example")
    assert {f"{PREFIX}{name}" for name in given} >= set(OPTIONS) - SECRET
    assert {f"{PREFIX}{name}" for name in given} & SECRET == set()


class Noting(dict[str, Any]):
    """Settings that know what was read of them."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Take the settings."""
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """Return one, and note it."""
        self.read.add(name)
        return super().__getitem__(name)


def test_every_operator_variable_is_read_by_more_than_its_check():
    noting = Noting(settings(tunnel_domain="proxme.example", tunnel_tls="wildcard"))
    derive(noting)
    read = noting.read
    read |= {words[1] for code in every_code().values() for words in code.read if words[0] == "tunnel" and words[1:]}
    plugins = [*(ROOT / "plugins/module_utils").glob("*.py"), *(ROOT / "plugins/action").glob("*.py")]
    for path in [*plugins, ROOT / "plugins/plugin_utils/judge.py"]:
        read |= set(re.findall(r"""\bsettings(?:\[|\.get\()["'](\w+)["']""", path.read_text()))
    by_name = {name for code in every_code().values() for name in code.names}
    unread = [
        name for name in OPTIONS if name not in by_name and (name in SECRET or name.removeprefix(PREFIX) not in read)
    ]
    # Says what the check itself is to let be.
    assert unread == ["tunnel_foreign_variables"]


@pytest.mark.parametrize("place", [*ROLES, "playbooks"])
def test_whatever_is_read_of_the_settings_is_in_them(place):
    given = settings(tunnel_domain="proxme.example")
    unknown = []
    for words in sorted(every_code()[place].read):
        found: object = given
        for word in words[1:] if words[0] == "tunnel" else ():
            if not isinstance(found, dict):
                break
            if word not in found:
                unknown.append(".".join(words))
                break
            found = found[word]
    assert unknown == []


@pytest.mark.parametrize("place", [*ROLES, "playbooks"])
def test_only_secrets_are_read_by_the_operators_names(place):
    """All else has no default there, and text for a number."""
    names = {name for name in every_code()[place].names if name in OPTIONS}
    assert names - HOLDING_SECRETS == set()


@pytest.mark.parametrize("place", [*ROLES, "playbooks"])
def test_nothing_is_read_that_the_operator_was_not_told_of(place):
    names = {name for name in every_code()[place].names if name.startswith(PREFIX)}
    assert names - set(OPTIONS) - OURS == set()


# --- what is registered ----------------------------------------------------------------------------------------------


def test_what_is_registered_for_others_is_known_and_no_variable_of_an_inventory():
    registered = {name for code in every_code().values() for name in code.registered}
    public = {name for name in registered if not name.startswith("__")}
    assert public == {"tunnel", *OURS} - STATES
    assert {name for name in registered - public if owner(name) is None} == set()


@pytest.mark.parametrize("word", ["set_fact", "from_json"])
def test_results_are_registered_where_they_are_used_and_need_no_parsing(word):
    places = [path for name in ("roles", "playbooks") for path in (ROOT / name).rglob("*") if path.is_file()]
    assert [str(path.relative_to(ROOT)) for path in places if word in path.read_text()] == []


# --- the example -----------------------------------------------------------------------------------------------------


def test_the_example_inventory_works_as_it_is_and_knows_only_variables_of_the_spec(run, tmp_path):
    shutil.copy(ROOT / "inventory.example", tmp_path / "inventory")
    listing = json.loads(run("ansible-inventory", "-i", tmp_path / "inventory", "--list", cwd=tmp_path).stdout)
    hosts = listing["_meta"]["hostvars"]
    assert hosts, "inventory.example names no host, or its format isn't recognised"
    active = {name for variables in hosts.values() for name in variables}
    offered = set(re.findall(r"^[#\s]*(\w+)\s*[=:]", (ROOT / "inventory.example").read_text(), re.MULTILINE))
    known = set(OPTIONS) | {name for part in PARTS for entry in specs(part).values() for name in entry}
    ours = {name for name in active | offered if name.startswith((PREFIX, *(f"{part}_" for part in PARTS)))}
    assert ours, "inventory.example shows none of the operator's variables"
    assert ours <= known
    required = {name for name, option in OPTIONS.items() if option.get("required")}
    assert required <= active


def tasks_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a file, those in blocks as well, in their order."""
    left = yaml.safe_load(path.read_text()) or []
    while left:
        task = left.pop(0)
        left = [*task.get("block", []), *task.get("rescue", []), *task.get("always", []), *left]
        yield task


def test_whatever_installs_packages_waits_for_others_that_do():
    found = [
        task["ansible.builtin.apt"]
        for path in ROOT.glob("roles/*/tasks/*.yml")
        for task in tasks_of(path)
        if "ansible.builtin.apt" in task
    ]
    assert found
    assert {options.get("lock_timeout") for options in found} == {600}


def test_no_trial_of_a_file_pulls_an_image_in_check_mode():
    """An own image is never pulled: a stranger may have its name."""
    files = [*ROOT.glob("roles/*/vars/main.yml"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/files/*")]
    texts = {path: path.read_text() for path in files if path.is_file()}
    calls = [(path, call) for path, text in texts.items() for call in re.findall(r"docker run --[^#]{0,120}", text)]
    assert calls
    for path, call in calls:
        assert re.search(r"--pull (never|\{\{ 'never' if ansible_check_mode)", call), f"{path}: {call}"


def test_what_runs_by_a_timer_is_stopped_before_its_files_go():
    names = [task["name"] for task in tasks_of(ROOT / "roles/caddy_frontend/tasks/configure.yml")]
    stopped = names.index("Stop a timer of before, and what it has started")
    assert stopped < names.index("Write the configuration, the landing page and the packet filter")
