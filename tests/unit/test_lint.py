# SPDX-License-Identifier: GPL-3.0-or-later
"""The linters find nothing. Each is a test of its own, which fails with the tool's output."""

from __future__ import annotations

import re
from pathlib import Path

import lupa.luajit21
import pytest

LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
# Text and data, not source: documents, the licence itself, and what antsibull-changelog writes.
WITHOUT_LICENCE_LINE = {"words.txt", ".md", ".png", ".svg", ".gitignore", ".gitkeep", ".dockerignore", "go.sum"}
SHELL = re.compile(rb"#!\s*/\S*/(?:env\s+(?:-S\s+)?)?(?:ba|da)?sh\b")
GENERATED = {Path("changelogs/changelog.yaml")}
# Calls note(name, is_written, line) for each global that Lua code names: luacheck is in no registry of Python or Node.
# Each word of LuaJIT's bytecode has the operation in its lowest 8 bits, and the name's number in its highest 16.
GLOBALS = """
local util = require "jit.util"
local function opcode(code, at) return util.funcbc(loadstring(code), at) % 256 end
local get, set = opcode("return x", 1), opcode("x = 1", 2)
return function(code, note)
  local function visit(func)
    for at = 1, util.funcinfo(func).bytecodes - 1 do
      local word = util.funcbc(func, at)
      local operation = word % 256
      if operation == get or operation == set then
        local name = util.funck(func, -1 - math.floor(word / 65536))
        note(name, operation == set, util.funcinfo(func, at).currentline)
      end
    end
    local index = -1
    while true do
      local constant = util.funck(func, index)
      if constant == nil then break end
      if type(constant) == "proto" then visit(constant) end
      index = index - 1
    end
  end
  visit(assert(loadstring(code)))
end
"""


def is_shell(path: Path) -> bool:
    """Tell whether a file is a shell script, by its name or by its first line."""
    with path.open("rb") as file:
        return path.suffix in (".sh", ".bash") or bool(SHELL.match(file.readline(200)))


def test_ansible_lint_finds_nothing(run):
    run("ansible-lint", "--offline", "--strict", "--profile", "production")


def test_yamllint_finds_nothing(run):
    run("yamllint", "--strict", ".")


def test_ruff_finds_nothing(run):
    run("ruff", "check", "--no-cache", ".")


def test_python_is_formatted(run):
    run("ruff", "format", "--no-cache", "--check", "--diff", ".")


def test_shellcheck_finds_nothing(run, root, sources):
    scripts = [path for path in sources if is_shell(root / path)]
    if not scripts:
        pytest.fail("no shell script found: the search is broken")
    run("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts)


def test_the_words_are_spelt_right_and_plain(run, root, sources):
    # What holds the words of other programs, or of a former version.
    left_out = {Path("tools/words.txt"), Path("plugins/plugin_utils/settings.py"), Path("tests/unit/test_settings.py")}
    files = [path for path in sources if path not in left_out and path.name != "versions.txt"]
    run("codespell", "--dictionary", root / "tools/words.txt", "--dictionary", "-", *files)


def test_hadolint_finds_nothing(run, sources):
    run("hadolint", "--no-color", *(path for path in sources if path.name == "Dockerfile"))


def test_pymarkdown_finds_nothing(run, sources):
    # Templates of issues have no title of their own, and antsibull-changelog writes as it does.
    documents = [path for path in sources if path.suffix == ".md" and not str(path).startswith((".", "CHANGELOG"))]
    run("pymarkdown", "--strict-config", "scan", *documents)


def lua_globals(code: str) -> list[tuple[str, bool, int]]:
    """Return each use of a global in Lua code: its name, whether it is written, and the line."""
    found: list[tuple[str, bool, int]] = []
    lupa.luajit21.LuaRuntime().execute(GLOBALS)(code, lambda *use: found.append(use))
    return found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("local a = 1\nreturn a", []),
        ("local a = 1\nb = a", [("b", True, 2)]),
        ("return function()\nreturn function() return elsewhere end end", [("elsewhere", False, 2)]),
    ],
)
def test_a_global_of_lua_is_seen(code, found):
    assert lua_globals(code) == found


def test_lua_uses_no_global_but_those_that_there_are(root, sources):
    known = {*lupa.luajit21.LuaRuntime().globals(), "ngx"}
    scripts = [path for path in sources if path.suffix == ".lua" and path.parts[0] == "roles"]
    assert scripts
    unknown = []
    for path in scripts:
        for name, written, line in lua_globals((root / path).read_text()):
            if written or name not in known:
                unknown.append(f"{path}:{line}: {'sets' if written else 'names'} the global {name}")
    assert not unknown, "\n".join(unknown)


def test_changelog_fragments_are_well_formed(run):
    run("antsibull-changelog", "lint")


def test_every_source_file_names_its_licence(root, sources):
    bare = []
    for path in sources:
        if path.name == "LICENSE" or path in GENERATED or {path.suffix, path.name} & WITHOUT_LICENCE_LINE:
            continue
        head = (root / path).read_text().splitlines()[:10]
        if not any(LICENCE in line for line in head):
            bare.append(str(path))
    assert not bare, "no SPDX line in: " + ", ".join(bare)
