# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection in this process, as Ansible does on a host: options in, one JSON object out."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"


def run_module(name: str, /, check: bool = False, tmpdir: Path | None = None, **options: object) -> dict[str, Any]:
    """Return what the module answers, whether or not it fails. Its temporary files are in the folder `tmpdir`."""
    told = io.StringIO()
    asked = {**options, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_tmpdir": str(tmpdir or "/tmp")}
    with patch_module_args(asked), contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        runpy.run_path(str(MODULES / f"{name}.py"), run_name="__main__")
    return json.loads(told.getvalue())
