# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action archive: writes or reads an encrypted archive, on the control node."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.proxme.tunnel.plugins.plugin_utils import archive


class ActionModule(ActionBase):
    """Neither the passphrase nor the data is ever shown."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module's documentation says."""
        result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["packed", "unpacked"], "required": True},
                "passphrase": {"type": "str", "required": True, "no_log": True},
                "domain": {"type": "str", "required": True},
                "folder": {"type": "str", "default": ""},
                "tar": {"type": "str", "default": "", "no_log": True},
                "file": {"type": "str", "default": ""},
            },
            required_if=[("state", "packed", ["folder"]), ("state", "unpacked", ["file"])],
        )[1]
        if not options["passphrase"]:
            raise AnsibleActionFail("The passphrase is empty. Write one into tunnel_backup_passphrase.")
        return result | (self.packed(options) if options["state"] == "packed" else self.unpacked(options))

    def packed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Write an archive that is named after the domain and the time."""
        now = datetime.datetime.now(datetime.UTC)
        folder = pathlib.Path(options["folder"]).expanduser()
        file = folder / f"{options['domain']}-{now:%Y%m%dT%H%M%SZ}.vault"
        if not self._task.check_mode:
            if not options["tar"]:
                raise AnsibleActionFail("There is no data to be packed: tar is empty. Run site.yml first.")
            try:
                archive.pack(options | {"file": str(file), "made": f"{now:%Y-%m-%dT%H:%M:%SZ}"})
            except OSError as error:
                raise AnsibleActionFail(
                    f'The archive "{file}" can\'t be written on the control node ({error.strerror or error}). Write '
                    "another folder into tunnel_backup_folder, or make room there."
                ) from error
        return {"changed": True, "file": str(file)}

    @staticmethod
    def unpacked(options: dict[str, Any]) -> dict[str, Any]:
        """Read an archive."""
        if not options["file"]:
            raise AnsibleActionFail("The archive's file is missing. Write its path into tunnel_backup_file.")
        try:
            found = archive.unpack(options | {"file": str(pathlib.Path(options["file"]).expanduser())})
        except archive.NoArchiveError as refused:
            raise AnsibleActionFail(str(refused)) from None
        return {"changed": False, **found, "_ansible_no_log": True}
