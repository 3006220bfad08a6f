# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks the operator's variables, and returns them with their types and defaults: the role `tunnel` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible import release
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.compat.version import LooseVersion
from ansible.plugins.action import ActionBase
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import ORDER, Refused, is_ours, read

SPEC = Path(__file__).resolve().parents[2] / "roles/tunnel/meta/argument_specs.yml"
OLDEST = "2.19"


class ActionModule(ActionBase):
    """Reads the host's variables; touches no host."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the settings as keys of the result, or fail with all that is wrong with them."""
        result = super().run(tmp, task_vars)
        if LooseVersion(release.__version__) < LooseVersion(OLDEST):
            raise AnsibleActionFail(
                f"This is ansible-core {release.__version__}, and the collection needs {OLDEST} or newer. "
                "Distributions often have an older one; pipx install ansible-core has the newest."
            )
        # By whatever name: what is called main Ansible checks by itself, before this action and in other words.
        (entry,) = yaml.safe_load(SPEC.read_text(encoding="utf-8"))["argument_specs"].values()
        spec = entry["options"]
        options = self.validate_argument_spec({"refuse": {"type": "bool", "default": True}})[1]
        # What nothing reads is refused for its name, whatever its value.
        given = {name: value for name, value in (task_vars or {}).items() if is_ours(name)}
        for name in [name for name in given if name in spec]:
            try:
                given[name] = self.templated(name, given[name])
            except AnsibleActionFail:
                if options["refuse"] or name == ORDER:
                    raise
                del given[name]
        try:
            settings = read(given, spec, Path.cwd(), options["refuse"])
        except Refused as refused:
            raise AnsibleActionFail(" ".join(refused.problems)) from None
        return {**result, "changed": False, **settings}

    def templated(self, name: str, value: Any) -> Any:  # noqa: ANN401
        """Return a variable's value; where its template can't be, say which variable it is, and show no other line."""
        try:
            return self._templar.template(value)
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"{name} can't be read: {error.message.rstrip('.')}. Define what its template asks for, or write the "
                "value itself."
            ) from None
