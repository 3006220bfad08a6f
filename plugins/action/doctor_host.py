# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action doctor_host: runs the module and says when, by the control node's clock."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The host's clock is right if it is between the two times."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module's documentation says."""
        result = super().run(tmp, task_vars)
        before = time.time()
        answer = self._execute_module("proxme.tunnel.doctor_host", self._task.args, task_vars=task_vars)
        return result | answer | {"before": before, "after": time.time()}
