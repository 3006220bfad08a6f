# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action doctor: judges what was seen of a tunnel host, on the control node."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.proxme.tunnel.plugins.plugin_utils import judge

SAID = {"problems": "PROBLEM", "warnings": "Warning", "untested": "Not tested"}


class ActionModule(ActionBase):
    """What is wrong does not fail it: all is to be said first."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module's documentation says."""
        result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            {name: {"type": "dict", "required": True} for name in ("settings", "host", "outside")}
        )[1]
        host, outside = options["host"], options["outside"]
        report = judge.judge(options["settings"], host["before"], host["after"], host["seen"], outside["seen"])
        said = [f"{word}: {sentence}" for kind, word in SAID.items() for sentence in report[kind]]
        return result | {
            "changed": False,
            "fine": report["fine"],
            "report": said or ["All is well."],
            "problems": report["problems"],
        }
