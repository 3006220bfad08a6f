# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the roles' templates in this process, by Ansible's own engine: a case costs milliseconds, not a playbook.

A case says what an operator would: `tunnel_*` variables. The roles read what the action `settings` makes of them. A
check of what is rendered goes through all cases in one test, which says in which of them it fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import PREFIX, read, unread

ROLES = Path(__file__).resolve().parents[2] / "roles"
# What an operator may write.
OPTIONS: dict[str, dict[str, Any]] = yaml.safe_load((ROLES / "tunnel/meta/argument_specs.yml").read_text())[
    "argument_specs"
]["operator"]["options"]

loader = DataLoader()


@functools.cache
def written(role: str, file: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return a YAML file of a role, whose strings may be templates."""
    return loader.load_from_file(str(ROLES / role / file), trusted_as_template=True)


def settings(**variables: object) -> dict[str, Any]:
    """Return what the roles read as `tunnel` with these variables of the operator's.

    Other variables may be among them, but none that only looks like one of the operator's.
    """
    ours = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
    assert list(unread(ours, OPTIONS)) == []
    return read(ours, OPTIONS, Path.cwd(), refuse=False)


def templar(role: str, variables: dict[str, object]) -> Templar:
    """Return an engine whose templates see what a role sees of an operator's variables, and these ones."""
    known = dict(variables)
    known = {**written(role, "defaults/main.yml"), **written(role, "vars/main.yml"), **known}
    known = {**written("tunnel", "vars/main.yml"), **known}
    known |= {"role_path": str(ROLES / role), "ansible_search_path": [str(ROLES / role)]}
    known |= {"tunnel": settings(**variables), "ansible_managed": "Ansible managed"}
    return Templar(loader=loader, variables=known)


def evaluate(role: str, value: object, **variables: object) -> Any:  # noqa: ANN401 - whatever a template makes
    """Return what a role makes of a value."""
    return templar(role, variables).template(value)


def render(role: str, template: str, **variables: object) -> str:
    """Return the text that a role writes, given these variables of the operator's; as the lookup template does it."""
    folder = ROLES / role / "templates"
    engine = templar(role, variables).copy_with_new_env(searchpath=[str(folder)])
    source = trust_as_template((folder / template).read_text())
    # Of an empty file the engine makes nothing at all.
    return engine.template(source, escape_backslashes=False, overrides={"trim_blocks": True}) or ""


def in_every_case(fixture: str, cases: Iterable[str]) -> Callable[[Callable[[Any, str], None]], Callable[..., None]]:
    """Make a test of a check: it gets what the fixture's function gives for a case, and the case, of each of them."""

    def decorate(check: Callable[[Any, str], None]) -> Callable[..., None]:
        def test(request: pytest.FixtureRequest) -> None:
            give, failed = request.getfixturevalue(fixture), {}
            for case in cases:
                try:
                    check(give(case), case)
                except (Exception, pytest.fail.Exception) as failure:
                    failed[case] = failure
            for failure in failed.values():
                failure.add_note(f"This is the first of the failed cases: {', '.join(failed)}")
                raise failure

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate
