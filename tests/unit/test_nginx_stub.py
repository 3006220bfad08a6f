# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of nginx's Lua are given is what the role's templates give it."""

from __future__ import annotations

import re

import yaml
from nginx import LUA, SETTINGS, TEXTS

ROLE = LUA.parents[1]


def test_the_settings_are_those_of_the_template_and_all_that_the_lua_reads():
    template = (ROLE / "templates/settings.lua.j2").read_text()
    assert sorted(SETTINGS) == sorted(re.findall(r"^  (\w+) = ", template, re.MULTILINE))
    read = {name for file in LUA.glob("*.lua") for name in re.findall(r"\bsettings\.(\w+)", file.read_text())}
    assert read == set(SETTINGS)


def test_the_pages_are_those_of_the_role():
    pages = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__nginx_subdomains_pages"]
    assert list(TEXTS) == [page["name"] for page in pages]


def test_the_variables_that_the_lua_may_write_are_those_of_the_configuration(root):
    configuration = (ROLE / "templates/nginx.conf.j2").read_text()
    (writable,) = re.findall(r"local writable = \{(.*)\}", (root / "tests/unit/nginx_stub.lua").read_text())
    assert set(re.findall(r"(\w+) = true", writable)) == set(
        re.findall(r"^ *set \$(\w+) ", configuration, re.MULTILINE)
    )
