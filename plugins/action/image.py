# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hands the module image what an image is made from, which stands on the control node."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Reads a role's folder and runs the module on the host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        super().run(tmp, task_vars)
        options = self._task.args.copy()
        if "files" in options:
            raise AnsibleActionFail(
                "The option files is filled in by itself. Name the folder that holds them in folder."
            )
        if options.get("folder"):
            options["files"] = self._read(options["folder"])
        return self._execute_module(module_name="proxme.tunnel.image", module_args=options, task_vars=task_vars)

    def _read(self, name: str) -> list[dict[str, str]]:
        """Return the files of a folder, each with its path in it."""
        try:
            folder = Path(self._find_needle("files", name))
        except AnsibleError as error:
            raise AnsibleActionFail(f"The folder {name} is not below the role's files.") from error
        if not (folder / "Dockerfile").is_file():
            raise AnsibleActionFail(f"The folder {folder} has no Dockerfile, so no image can be built from it.")
        paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return [
            {
                "path": path.relative_to(folder).as_posix(),
                # Of the others a checkout's umask decides.
                "mode": "0755" if path.stat().st_mode & 0o100 else "0644",
                "content": base64.b64encode(path.read_bytes()).decode(),
            }
            for path in sorted(paths)
        ]
