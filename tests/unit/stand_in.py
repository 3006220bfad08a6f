# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of files and programs that are made up, on which a module of the collection runs."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

COLLECTIONS = Path(__file__).resolve().parents[2] / ".collections"

# Answers as answers.json says: the first of the program's answers whose words stand in this order among the arguments.
PROGRAM = """#!{python} -ISs
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([name, *arguments]) + "\\n")
for program, words, code, out, error in json.loads((folder / "answers.json").read_text()):
    left = iter(arguments)
    if program == name and all(word in left for word in words.split()):
        sys.stdout.write(out)
        sys.stderr.write(error)
        sys.exit(code)
sys.exit("no answer to " + " ".join(sys.argv))
"""


class StandIn:
    """A host that has only what a test gives it."""

    def __init__(self, module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(COLLECTIONS))
        self.module: ModuleType = importlib.import_module(f"ansible_collections.proxme.tunnel.plugins.modules.{module}")
        self.root = folder / "root"
        self.programs = folder / "programs"
        for made in (self.root, self.programs):
            made.mkdir()
        self.answers: list[tuple[str, str, int, str, str]] = []
        self.log = folder / "calls"
        monkeypatch.setattr(self.module, "ROOT", self.root)
        monkeypatch.setenv("PATH", str(self.programs))
        # It would look at the real host's folders for root's programs as well.
        monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda _, name, *__, **___: shutil.which(name))

    def write(self, path: str, text: str) -> Path:
        """Write a file of the host."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def answer(self, program: str, words: str = "", out: str = "", code: int = 0, error: str = "") -> None:
        """Let a program answer arguments with these words; what is told later counts first."""
        self.answers.insert(0, (program, words, code, out, error))
        (self.log.parent / "answers.json").write_text(json.dumps(self.answers))
        self.install(program)

    def install(self, program: str) -> None:
        """Put a program there."""
        path = self.programs / program
        path.write_text(PROGRAM.format(python=sys.executable, folder=str(self.log.parent)))
        path.chmod(0o755)

    def calls(self, program: str = "") -> list[list[str]]:
        """Return the calls of a program without its name, or all calls."""
        calls = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [call[1:] for call in calls if call[0] == program] if program else calls

    def run(self, capsys: pytest.CaptureFixture[str], check: bool = False, **options: object) -> dict[str, Any]:
        """Run the module, and return its result."""
        common = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_tmpdir": str(self.log.parent)}
        with patch_module_args({**options, **common}), pytest.raises(SystemExit):
            self.module.main()
        return json.loads(capsys.readouterr().out)
