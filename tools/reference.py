#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/reference.md from the specs: the operator's variables first, then every role's.

Usage: reference.py [--check]

With --check nothing is written; the exit code is 1 when docs/reference.md differs from what would be written.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
OPERATOR_SPEC = Path("playbooks/tunnel_variables.yml")
REFERENCE = Path("docs/reference.md")

INTRODUCTION = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Generated from the specs by tools/reference.py: change those, then run it again. -->

# Variables

An operator needs only [the operator's variables](#the-operators-variables). `playbooks/role_variables.yml` maps them to
roles.
The rest is for those who use a role by itself; but what `role_variables.yml` does not set of it (memory, limits) may
stand in the inventory as well.

In the tables, `a.b` is the key `b` of the dictionary `a`, and `a[].b` the key `b` of each dictionary in the list `a`.
"""


# Ansible's documentation markup and what it is in Markdown.
MARKUP = (
    (re.compile(r"\b(?:C|E|M|O|P|RV|V)\(([^)]*)\)"), r"`\1`"),
    (re.compile(r"\bB\(([^)]*)\)"), r"**\1**"),
    (re.compile(r"\bI\(([^)]*)\)"), r"*\1*"),
    (re.compile(r"\bU\(([^)]*)\)"), r"<\1>"),
    (re.compile(r"\bL\(([^,)]*),\s*([^)]*)\)"), r"[\1](\2)"),
)


def paragraphs(value: str | list[str] | None) -> list[str]:
    """Return a description (a string or a list of paragraphs) as Markdown, one line for each paragraph."""
    found = [" ".join(str(paragraph).split()) for paragraph in ([value] if isinstance(value, str) else value or [])]
    for pattern, markdown in MARKUP:
        found = [pattern.sub(markdown, paragraph) for paragraph in found]
    return found


def cell(value: str | list[str] | None) -> str:
    """Return a description as one line that fits into a table's cell."""
    return " ".join(paragraphs(value)).replace("|", "\\|")


def code(value: object) -> str:
    """Return a value as inline code: strings as they are, everything else as JSON, which is YAML as well."""
    shown = value if isinstance(value, str) and value.strip() else json.dumps(value, ensure_ascii=False)
    shown = " ".join(shown.split()).replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def kind(option: dict[str, Any]) -> str:
    """Return an option's type in words; argument specs mean a string when they name none."""
    name = option.get("type", "str")
    return f"{name} of {option['elements']}" if "elements" in option else name


def default(option: dict[str, Any]) -> str:
    """Return the cell that says what holds when the option isn't given."""
    if option.get("required"):
        return "**required**"
    return code(option["default"]) if option.get("default") is not None else ""


def meaning(option: dict[str, Any]) -> str:
    """Return the description, followed by the choices and whether the value is kept out of the output."""
    parts = [cell(option.get("description"))]
    if option.get("choices"):
        parts.append(f"One of {', '.join(code(choice) for choice in option['choices'])}.")
    if option.get("no_log"):
        parts.append("Secret: never shown in the output.")
    return " ".join(part for part in parts if part)


def rows(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield one table row for each option, nested ones right after the option that holds them."""
    for name, option in options.items():
        path = f"{prefix}{name}"
        yield f"| `{path}` | {kind(option)} | {default(option)} | {meaning(option)} |"
        nested = f"{path}[]." if option.get("type") == "list" else f"{path}."
        yield from rows(option.get("options") or {}, nested)


def table(options: dict[str, Any]) -> str:
    """Return a table of the options, or a sentence when there are none."""
    if not options:
        return "Takes no variables.\n"
    return "\n".join(["| variable | type | default | meaning |", "|---|---|---|---|", *rows(options), ""])


def entry_point(role: str, name: str, spec: dict[str, Any]) -> str:
    """Return the section of one entry point of a role; `main` stands for the role itself."""
    title = f"## Role {role}" if name == "main" else f"### Role {role}, entry point {name}"
    summary = f"{str(spec.get('short_description', '')).rstrip('.')}."
    body = [*paragraphs(summary if len(summary) > 1 else None), *paragraphs(spec.get("description"))]
    return "\n\n".join([title, *body, table(spec.get("options") or {})])


def reference(root: Path = ROOT) -> str:
    """Return the whole reference as Markdown, from the specs below root."""
    operator = yaml.safe_load((root / OPERATOR_SPEC).read_text())["argument_spec"]
    sections = [INTRODUCTION, f"## The operator's variables\n\n{table(operator)}"]
    for path in sorted((root / "roles").glob("*/meta/argument_specs.yml")):
        role = path.parent.parent.name
        entry_points = yaml.safe_load(path.read_text())["argument_specs"]
        for name in sorted(entry_points, key=lambda name: (name != "main", name)):
            sections.append(entry_point(role, name, entry_points[name]))
    return "\n".join(sections)


def main() -> int:
    """Write or check docs/reference.md; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is not in sync")
    arguments = parser.parse_args()
    wanted = reference()
    path = ROOT / REFERENCE
    if not arguments.check:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted)
        return 0
    found = path.read_text() if path.exists() else ""
    if found == wanted:
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            found.splitlines(keepends=True), wanted.splitlines(keepends=True), str(REFERENCE), "from the specs"
        )
    )
    print(f"{REFERENCE} is not in sync with the specs: run tools/reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
