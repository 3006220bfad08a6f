# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action certificate: checks the operator's certificate and key, on the control node."""

from __future__ import annotations

import base64
import datetime
import pathlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.proxme.tunnel.plugins.plugin_utils import certificate


class ActionModule(ActionBase):
    """What it returns holds the private key, and is never shown."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module's documentation says."""
        result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            {
                "certificate": {"type": "str", "required": True},
                "key": {"type": "str", "required": True},
                "on_host": {"type": "bool", "default": False},
                "domain": {"type": "str", "required": True},
            }
        )[1]
        # Or the connection would show with -vvv what slurp answers.
        self._play_context.no_log = True
        files = {"certificate": "tunnel_certificate_file", "key": "tunnel_certificate_key_file"}
        texts = {
            option: self.read(variable, options[option], options["on_host"], task_vars)
            for option, variable in files.items()
        }
        checked = certificate.check(
            texts["certificate"],
            texts["key"],
            options["domain"],
            datetime.datetime.now(datetime.UTC),
            as_it_is=options["on_host"],
        )
        if checked["problems"]:
            named = " and ".join(f'{variable} ("{options[option]}")' for option, variable in files.items())
            raise AnsibleActionFail(f"{named} can't be used. {' '.join(checked['problems'])}")
        return result | {
            "changed": False,
            "pem": checked["pem"],
            "warnings": [f"tunnel_certificate_file: {warning}" for warning in checked["warnings"]],
            "_ansible_no_log": True,
        }

    def read(self, variable: str, path: str, on_host: bool, task_vars: dict[str, Any] | None) -> str:
        """Return the text of a file."""
        where, other = ("host", "control node") if on_host else ("control node", "host")
        if not path:
            raise AnsibleActionFail(f"{variable} is missing. Write the path of the file on the {where}.")
        try:
            content = self.on_host(path, task_vars) if on_host else pathlib.Path(path).expanduser().read_bytes()
        except OSError as error:
            raise AnsibleActionFail(
                f'{variable} is "{path}", which can\'t be read on the {where} ({error.strerror or error}). Write the '
                f"path of a file that is there. If it is on the {other}, set tunnel_certificate_on_host to "
                f"{str(not on_host).lower()}."
            ) from error
        # What is no text is no PEM either, and is told so.
        return content.decode(errors="replace")

    def on_host(self, path: str, task_vars: dict[str, Any] | None) -> bytes:
        """Return the content of a file of the host; raise OSError if it can't be read."""
        answer = self._execute_module("ansible.builtin.slurp", {"src": path}, task_vars=task_vars)
        if answer.get("failed"):
            raise OSError(str(answer.get("msg", "no answer")).rstrip("."))
        return base64.b64decode(answer["content"])
