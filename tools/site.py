# SPDX-License-Identifier: GPL-3.0-or-later
"""A hook of MkDocs (mkdocs.yml): pages of the site that are not in docs/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the top level, with their links into docs/ as these are from there."""
    for path in ROOT.glob("*.md"):
        files.append(File.generated(config, path.name, content=path.read_text().replace("](docs/", "](")))
    return files
