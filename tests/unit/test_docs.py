# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents say holds: the reference, the links, the commands."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
# An ssh client that asks for a remote forward: `-R`, alone or at the end of a cluster such as `-NR`.
FORWARD = re.compile(
    r"(?:^|[\s`'\"/>(])(?:auto)?ssh(?:\.exe)?\s(?:[^`\n]*\s)?-[A-Za-z46]*R(?:\s|\d|$)[^`\n]*", re.MULTILINE
)


def documents(root: Path, sources: list[Path]) -> dict[Path, str]:
    """Return the text of every Markdown file of the project."""
    return {path: (root / path).read_text() for path in sources if path.suffix == ".md"}


def anchors(markdown: str) -> set[str]:
    """Return the anchors of a document's headings, formed as code forges form them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", markdown), re.MULTILINE):
        bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        kept = "".join(c for c in bare if c in " -_" or unicodedata.category(c)[0] in "LN")
        anchor = base = kept.replace(" ", "-")
        again = 0
        while anchor in found:
            again += 1
            anchor = f"{base}-{again}"
        found.add(anchor)
    return found


def joined(text: str) -> str:
    """Return the text with lines that end in a backslash joined to the next."""
    return re.sub(r"\\\n\s*", " ", text)


def forwards_that_stay_without_a_tunnel(text: str) -> list[str]:
    """Return each shown ssh command that asks for a forward and would stay connected when it is refused."""
    commands = (match.group().strip() for match in FORWARD.finditer(joined(text)))
    return [command for command in commands if "ExitOnForwardFailure=yes" not in command]


def test_the_reference_is_in_sync_with_the_specs(run, root):
    run(Path(sys.executable).name, root / "tools/reference.py", "--check")


def test_the_table_of_applications_is_what_make_test_apps_expects(run, root):
    run(Path(sys.executable).name, root / "tests/apps/apps.py", "--check")


def test_every_relative_link_leads_somewhere(root, sources):
    broken = []
    for path, markdown in documents(root, sources).items():
        for match in LINK.finditer(FENCE.sub("", markdown)):
            target = match.group(1) or match.group(2)
            if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
                continue
            name, _, fragment = target.partition("#")
            leads_to = (root / path).parent / unquote(name) if name else root / path
            if not leads_to.exists():
                broken.append(f"{path}: {target}")
            elif fragment and leads_to.suffix == ".md" and fragment not in anchors(leads_to.read_text()):
                broken.append(f"{path}: {target} (no such heading)")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("shown", "stays"),
    [
        ("    ssh -NR 8080:localhost:80 tunnel@example.com\n", True),
        ("`ssh -p 2222 -N -R blog:80:localhost:80 alice@example.com`", True),
        ("autossh -M 0 -NR \\\n  8080:localhost:80 tunnel@example.com", True),
        ("/usr/bin/ssh -o BatchMode=yes -NTR 8080:localhost:80 tunnel@example.com", True),
        ("ssh -o ExitOnForwardFailure=yes -NR 8080:localhost:80 tunnel@example.com", False),
        ("ssh -J tunnel@example.com -W blog:22 alice@example.com", False),
        ("ssh-keygen -R example.com", False),
        ("the `-R 8080:localhost:80` form of `ssh`", False),
    ],
)
def test_the_check_of_shown_commands_tells_a_forward_that_stays_from_others(shown, stays):
    assert bool(forwards_that_stay_without_a_tunnel(shown)) == stays


def test_every_shown_ssh_command_that_opens_a_tunnel_ends_when_the_forward_is_refused(root, sources):
    # Not only the documents: the banner, the landing page and the error pages show commands too.
    shown = [
        path
        for path in sources
        if path.suffix == ".md"
        or (path.parts[0] == "roles" and {"templates", "files"} & set(path.parts))
        or path.name == "inventory.example"
    ]
    assert shown
    wrong = [
        f"{path}: {command}"
        for path in shown
        for command in forwards_that_stay_without_a_tunnel((root / path).read_text())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_site_shows_every_document_as_code_forges_do(run, root, sources, tmp_path):
    # Python-Markdown takes a list for a paragraph, or a command for a sentence, where forges' CommonMark doesn't.
    run("mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path)
    wrong = []
    for path, markdown in documents(root, sources).items():
        page = tmp_path / ("index.html" if path.name == "README.md" else f"{path.stem}/index.html")
        if path.parts[0] not in ("docs", path.name):
            continue
        content = re.search(r'role="main">(.*)<footer', page.read_text(), re.DOTALL).group(1)
        forge = MarkdownIt("commonmark").enable("table").render(markdown)
        for tag in ("li", "pre", "tr", "code", "h2", "h3"):
            here, there = (len(re.findall(f"<{tag}[ >]", html)) for html in (content, forge))
            if here != there:
                wrong.append(f"{path}: {here} <{tag}> in the site, {there} in a forge")
    assert not wrong, "\n".join(wrong)
