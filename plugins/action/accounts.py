# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action accounts: checks the list of accounts and compiles it, on the control node."""

from __future__ import annotations

import datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.proxme.tunnel.plugins.module_utils import accounts


class ActionModule(ActionBase):
    """Keeps nothing from one task to the next: the accounts are judged again by each."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module's documentation says."""
        result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            {"settings": {"type": "dict", "required": True}, "remembered": {"type": "dict", "default": {}}}
        )[1]
        today = datetime.datetime.now(datetime.UTC).date()
        compiled = accounts.Compiler(options["settings"], options["remembered"], today).run()
        problems = compiled.pop("problems")
        if problems:
            raise AnsibleActionFail(accounts.message(problems))
        return result | compiled | {"changed": False, "msg": compiled["warnings"]}
