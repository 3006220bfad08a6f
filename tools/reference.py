#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what is generated from the specs: docs/reference.md, and a README for each role.

Usage: reference.py [--check]

With --check nothing is written; the exit code is 1 when a file differs from what would be written.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "proxme.tunnel"
OPERATOR_ROLE = "tunnel"
REFERENCE = Path("docs/reference.md")

INTRODUCTION = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Generated from the specs by tools/reference.py: change those, then run it again. -->

# Variables

[The operator's variables](#the-operators-variables) are what an inventory says. All roles read them; what a role has
besides is for a playbook of one's own.

In the tables, `a.b` is the key `b` of the dictionary `a`, and `a[].b` the key `b` of each dictionary in the list `a`.
"""

README = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Generated from meta/argument_specs.yml by tools/reference.py: change that, then run it again. -->

# {collection}.{role}

{about}

## Example

{before}

```yaml
{play}```

## Variables

{variables}"""

# The roles in the order in which a play runs them. Each needs those before it, except what is only for some hosts.
ORDER = (
    *("docker_engine", "tunnel_network", "sshd_tunnel", "certbot_wildcard", "nginx_subdomains", "caddy_frontend"),
    "edge",
)
FOR_SOME = ("certbot_wildcard",)
# What an example has to say to make sense, beyond the variables that are required.
EXAMPLE_VALUES = {
    "tunnel_domain": "proxme.example.com",
}
EXAMPLE_EXTRA = {
    "certbot_wildcard": {
        "tunnel_tls": "wildcard",
        "tunnel_dns_provider": "desec",
        "tunnel_dns_settings": "{{ vault_dns_settings }}",
    },
}


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


def table(options: dict[str, Any], empty: str = "Takes no variables.") -> str:
    """Return a table of the options, or a sentence when there are none."""
    if not options:
        return f"{empty}\n"
    return "\n".join(["| variable | type | default | meaning |", "|---|---|---|---|", *rows(options), ""])


def about(spec: dict[str, Any]) -> list[str]:
    """Return the paragraphs that say what an entry point is for."""
    summary = str(spec.get("short_description", "")).rstrip(".")
    return [*paragraphs(f"{summary}." if summary else None), *paragraphs(spec.get("description"))]


def entry_point(role: str, name: str, spec: dict[str, Any]) -> str:
    """Return the section of one entry point of a role; `main` stands for the role itself."""
    title = f"## Role {role}" if name == "main" else f"### Role {role}, entry point {name}"
    return "\n\n".join([title, *about(spec), table(spec.get("options") or {})])


def specs(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return each role's entry points by name, `main` first."""
    found = {}
    for path in sorted((root / "roles").glob("*/meta/argument_specs.yml")):
        entry_points = yaml.safe_load(path.read_text())["argument_specs"]
        names = sorted(entry_points, key=lambda name: (name != "main", name))
        found[path.parent.parent.name] = {name: entry_points[name] for name in names}
    return found


def modules(root: Path = ROOT) -> dict[str, str]:
    """Return each module's name and what it does, in one line."""
    found = {}
    for path in sorted((root / "plugins/modules").glob("*.py")):
        for statement in ast.parse(path.read_text()).body:
            names = [target.id for target in getattr(statement, "targets", []) if isinstance(target, ast.Name)]
            if "DOCUMENTATION" in names:
                documentation = yaml.safe_load(ast.literal_eval(statement.value))
                found[documentation["module"]] = cell(documentation["short_description"]).rstrip(".")
    return found


def module_section(found: dict[str, str]) -> str:
    """Return the section that lists the modules."""
    lines = [f"| `{name}` | {does} |" for name, does in found.items()]
    text = f"The roles are written with them. `ansible-doc {COLLECTION}.NAME` describes one, with its options."
    return "\n".join(["## Modules", "", text, "", "| module | what it does |", "|---|---|", *lines, ""])


def reference(root: Path = ROOT) -> str:
    """Return the whole reference as Markdown, from the specs below root."""
    found = specs(root)
    operator = found.pop(OPERATOR_ROLE)["operator"]["options"]
    sections = [INTRODUCTION, f"## The operator's variables\n\n{table(operator)}"]
    for role, entry_points in found.items():
        sections += [entry_point(role, name, spec) for name, spec in entry_points.items()]
    if found := modules(root):
        sections.append(module_section(found))
    return "\n".join(sections)


def example(role: str, operator: dict[str, Any]) -> str:
    """Return a play that runs a role, with those that it needs."""
    before = ORDER[: ORDER.index(role)] if role in ORDER else ()
    roles = [name for name in before if name not in FOR_SOME]
    values = {name: EXAMPLE_VALUES[name] for name, option in operator.items() if option.get("required")}
    play = {
        "name": "Set up a tunnel host, or a part of it",
        "hosts": "tunnel",
        "become": True,
        "vars": values | EXAMPLE_EXTRA.get(role, {}),
        "roles": [f"{COLLECTION}.{name}" for name in (*roles, role)],
    }
    text = yaml.dump(play, sort_keys=False, width=110).replace("'", '"')
    text = text.replace("\n- ", "\n  - ")
    return "- " + text.replace("\n", "\n  ").rstrip() + "\n"


def readme(role: str, spec: dict[str, Any], operator: dict[str, Any]) -> str:
    """Return a role's README."""
    options = spec.get("options") or {}
    up = "../../docs/reference.md"
    if role == OPERATOR_ROLE:
        before = (
            "The other roles depend on it, so that a play need not name it. This one checks variables and host only:"
        )
        required = {name: option for name, option in options.items() if option.get("required")}
        all_of_them = f"[All {len(options)} of them]({up}#the-operators-variables) are in the reference."
        variables = f"Those that have to be set. {all_of_them}\n\n{table(required)}"
    else:
        before = f"`{COLLECTION}.site` is the playbook that runs all roles. A play of one's own names what it wants:"
        read = f"It reads [the operator's variables]({up}#the-operators-variables), and has these of its own:"
        variables = f"{read}\n\n{table(options)}"
    return README.format(
        collection=COLLECTION,
        role=role,
        about="\n\n".join(about(spec)),
        before=before,
        play=example(role, operator),
        variables=variables,
    )


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of each generated file."""
    found = specs(root)
    operator = found[OPERATOR_ROLE]["operator"]["options"]
    # Each has one entry point.
    readmes = {
        Path("roles") / role / "README.md": readme(role, next(iter(spec.values())), operator)
        for role, spec in found.items()
    }
    return {REFERENCE: reference(root)} | readmes


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not in sync")
    arguments = parser.parse_args()
    differ = []
    for name, wanted in generated().items():
        path = ROOT / name
        if not arguments.check:
            path.write_text(wanted)
            continue
        found = path.read_text() if path.exists() else ""
        if found != wanted:
            differ.append(name)
            lines = found.splitlines(keepends=True), wanted.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(*lines, str(name), "from the specs"))
    if not differ:
        return 0
    print(f"not in sync with the specs, run tools/reference.py: {', '.join(map(str, differ))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
