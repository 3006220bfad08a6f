#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the files of a part in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Writes all files of a part in one call
version_added: 0.1.0
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
description:
  - Makes folders, writes files one after the other, and removes others, in this order.
  - A file is replaced at once or not at all. Before that a program may look at the new one, and refuse it.
  - It ends at the first that can't be written. What it wrote before stays, and RV(written) names it.
  - No content gets into the host's log or into the result, unless O(files[].validate) prints it. A difference shows
    it; a task with secrets says C(no_log) and C(diff=false).
options:
  folders:
    description: Folders that are to be there. Those above them are made with the mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the folder.
        type: path
        required: true
      mode:
        description: Its mode, as text with a leading zero.
        type: str
        default: "0755"
      owner:
        description: Name or number of the user that it belongs to. Without one a folder that is there keeps its owner.
        type: str
      group:
        description: Name or number of its group. Without one a folder that is there keeps its group.
        type: str
  files:
    description: Files that are to hold a text.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path of the file. Its folder has to be there, or to be one of O(folders).
          - A symbolic link is replaced, not followed.
        type: path
        required: true
      content:
        description:
          - The text, which is written as it is, in UTF-8. None is an empty text, which is what a template without any
            output gives.
          - Anything but a text is refused, as there is more than one way to write it.
        type: raw
        required: true
      mode:
        description: Its mode, as text with a leading zero.
        type: str
        default: "0644"
      owner:
        description: Name or number of the user that it belongs to. Without one a file that is there keeps its owner.
        type: str
      group:
        description: Name or number of its group. Without one a file that is there keeps its group.
        type: str
      keep:
        description: Whether a file that is there is left alone, with its content, its mode and its owner.
        type: bool
        default: false
      validate:
        description:
          - Command that ends with 0 if the new file is a good one. C(%s) stands for the path of the new file, which
            has its mode and its owner already.
          - It is split as a shell does it, but no shell runs it, so nothing but C(%s) is replaced.
        type: str
  absent:
    description: Absolute paths of files, links and folders (with all that is in them) that are not to be there.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Says what would change. A new file is validated if its folder is there.
    support: full
  diff_mode:
    description: Shows what changes.
    support: full
notes:
  - In check mode a file that is refused while others before it would change is only warned of, as it may depend on
    them. A program that can't be run, such as one of an image that would be built, is no error then.
"""

EXAMPLES = r"""
- name: Write nginx's configuration
  proxme.tunnel.files:
    folders:
      - {path: /etc/proxme-tunnel/nginx_subdomains, mode: "0755"}
    files:
      - path: /etc/proxme-tunnel/nginx_subdomains/settings.lua
        content: "{{ lookup('ansible.builtin.template', 'settings.lua.j2') }}"
      - path: /etc/proxme-tunnel/nginx_subdomains/nginx.conf
        content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
        validate: nginx -t -c %s
      - path: /etc/proxme-tunnel/nginx_subdomains/pages.lua
        content: "{{ lookup('ansible.builtin.file', 'pages.lua', rstrip=false) }}"
    absent:
      - /etc/proxme-tunnel/nginx_subdomains/old.conf
  register: __nginx_subdomains_files
"""

RETURN = r"""
written:
  description: Paths that were made, written or removed, or got another mode or owner, in this order.
  returned: always
  type: list
  elements: str
  sample: [/etc/proxme-tunnel/nginx_subdomains/nginx.conf]
"""

import grp
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWNED = {
    "path": {"type": "path", "required": True},
    "mode": {"type": "str", "default": "0755"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}
SPEC = {
    "folders": {"type": "list", "elements": "dict", "default": [], "options": OWNED},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **OWNED,
            "mode": {"type": "str", "default": "0644"},
            "content": {"type": "raw", "required": True},
            "keep": {"type": "bool", "default": False},
            "validate": {"type": "str"},
        },
    },
    "absent": {"type": "list", "elements": "path", "default": []},
}
# Exit codes for a program that could not be run: docker's own, "not executable" and "not found".
NOT_RUN = (125, 126, 127)


class Attributes(NamedTuple):
    """The mode of a file or a folder, and the numbers of the user and the group that it belongs to."""

    mode: int
    user: int
    group: int

    @classmethod
    def of(cls, path: Path) -> Attributes:
        """Return those of what is there."""
        there = path.stat()
        return cls(stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid)

    def apply(self, path: Path) -> None:
        """Give them to what is there."""
        present = self.of(path)
        if self[1:] != present[1:]:
            os.chown(path, self.user, self.group)
        # After the owner, as another one takes bits of the mode away.
        if self != self.of(path):
            path.chmod(self.mode)

    def shown(self) -> dict[str, Any]:
        """Return them as a person writes them."""
        return {"mode": f"{self.mode:04o}", "owner": self.user, "group": self.group}


class Writer:
    """Does what the options of a module ask for, and remembers what it changed."""

    def __init__(self, module: AnsibleModule) -> None:
        """Work for this module."""
        self.module = module
        self.check: bool = module.check_mode
        self.written: list[str] = []
        self.differences: list[dict[str, Any]] = []

    def run(self) -> None:
        """Do all of it."""
        options = self.module.params
        self.look_at_options()
        for folder in options["folders"]:
            with self.failing_for(folder["path"], "made"):
                self.make(folder)
        for file in options["files"]:
            with self.failing_for(file["path"], "written"):
                self.write(file)
        for path in options["absent"]:
            with self.failing_for(path, "removed"):
                self.remove(Path(path))

    def result(self) -> dict[str, Any]:
        """Return what the module answers, without any content."""
        options = self.module.params
        shown = [{name: value for name, value in file.items() if name != "content"} for file in options["files"]]
        return {
            "changed": bool(self.written),
            "written": self.written,
            "invocation": {"module_args": {**options, "files": shown}},
            **({"diff": self.differences} if self.module._diff else {}),
        }

    def fail(self, sentence: str) -> None:
        """End with what is wrong and what to do."""
        self.module.fail_json(msg=sentence, **self.result())

    @contextmanager
    def failing_for(self, path: str, what: str) -> Iterator[None]:
        """Say in a sentence which path the system refuses to change."""
        try:
            yield
        except OSError as error:
            self.fail(f"{path} can't be {what}: {error.strerror or error}.")

    def look_at_options(self) -> None:
        """Refuse what can't be meant, before anything changes."""
        options = self.module.params
        named = options["folders"] + options["files"]
        for path in [item["path"] for item in named] + options["absent"]:
            if not path.startswith("/") or not os.path.normpath(path).strip("/"):
                self.fail(f"{path!r} is not the path of a file or a folder. Write an absolute one, such as /etc/x.")
        for item in named:
            if not re.fullmatch("0[0-7]{3,4}", item["mode"]):
                self.fail(f"{item['path']} can't have the mode {item['mode']}. Write it as text, such as '0644'.")
        for file in options["files"]:
            if file["content"] is None:
                file["content"] = ""
            if not isinstance(file["content"], str):
                kind = type(file["content"]).__name__
                self.fail(f"The content of {file['path']} is of the type {kind}. Make it a text, with to_nice_json.")
            if file["validate"] and "%s" not in file["validate"]:
                self.fail(f"The command that validates {file['path']} lacks %s, the path of the new file.")

    def make(self, folder: dict[str, Any]) -> None:
        """Have a folder."""
        # One that is a link stays one.
        path = Path(os.path.realpath(folder["path"]))
        if path.is_dir():
            self.settle(path, folder)
            return
        if os.path.lexists(path):
            self.fail(f"{path} is there, but is no folder. Look at it, and remove it.")
        if not self.check:
            make_above(path)
            path.mkdir(0o700)
            self.attributes(folder, Attributes.of(path)).apply(path)
        self.note(folder["path"], {"state": "absent"}, {"state": "directory"})

    def write(self, file: dict[str, Any]) -> None:
        """Let a file hold its content."""
        path, content = Path(file["path"]), file["content"].encode()
        if file["keep"] and os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            self.fail(f"{path} is a folder, and a file is to be there. Look at it, and remove it.")
        present = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        if present == content:
            self.settle(path, file)
            return
        if path.parent.is_dir():
            if file["validate"] or not self.check:
                self.replace(path, content, file)
        elif not self.check:
            self.fail(f"The folder of {path} is not there. Name it in folders.")
        self.note(file["path"], (present or b"").decode(errors="replace"), file["content"])

    def replace(self, path: Path, content: bytes, file: dict[str, Any]) -> None:
        """Put a file in place if its program likes it."""
        descriptor, name = tempfile.mkstemp(dir=self.module.tmpdir)
        candidate = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
            there = path if path.is_file() and not path.is_symlink() else candidate
            wanted = self.attributes(file, Attributes.of(there))
            wanted.apply(candidate)
            if file["validate"]:
                self.validate(path, candidate, file["validate"])
            if not self.check:
                self.land(candidate, path, wanted)
        finally:
            if candidate.exists():
                candidate.unlink()

    def land(self, candidate: Path, path: Path, wanted: Attributes) -> None:
        """Replace a file at once; at no moment can more people read what is in the new one than should."""
        link = path.is_symlink()
        if path.exists() and not link:
            # The new file takes them over from the old one, with an access control list and the like.
            wanted.apply(path)
        mask = os.umask(0o077)
        try:
            self.module.atomic_move(str(candidate), str(path), keep_dest_attrs=not link)
        except OSError:
            raise
        except Exception as error:  # what it raises itself is of no kind of its own
            self.fail(f"{path} can't be written: {error}")
        finally:
            os.umask(mask)
        wanted.apply(path)

    def validate(self, path: Path, candidate: Path, command: str) -> None:
        """Refuse a file that its program refuses."""
        try:
            words = [word.replace("%s", str(candidate)) for word in shlex.split(command)]
        except ValueError as error:
            self.fail(f"The command that validates {path} can't be read ({error}): {command}")
        try:
            code, output, errors = self.module.run_command(words, expand_user_and_vars=False, handle_exceptions=False)
        except OSError as error:
            if not self.check:
                self.fail(f"{path} can't be validated, as {words[0]} can't be run: {error.strerror}.")
            return
        if code == 0 or (self.check and code in NOT_RUN):
            return
        said = (errors + output).strip().replace(str(candidate), str(path)) or f"it ended with {code}"
        refused = f"The new {path} is refused, and what is there stays. {words[0]} says: {said}"
        if self.check and self.written:
            self.module.warn(f"{refused}\nThat may be otherwise once what comes before it is written.")
        else:
            self.fail(refused)

    def remove(self, path: Path) -> None:
        """Have nothing at a path."""
        if not os.path.lexists(path):
            return
        folder = path.is_dir() and not path.is_symlink()
        if folder and not self.check:
            shutil.rmtree(path)
        elif not self.check:
            path.unlink()
        self.note(str(path), {"state": "directory" if folder else "file"}, {"state": "absent"})

    def settle(self, path: Path, item: dict[str, Any]) -> None:
        """Give what is there the mode and the owner that it should have."""
        present = Attributes.of(path)
        wanted = self.attributes(item, present)
        if wanted != present:
            if not self.check:
                wanted.apply(path)
            self.note(item["path"], present.shown(), wanted.shown())

    def attributes(self, item: dict[str, Any], present: Attributes) -> Attributes:
        """Return those that are asked for; an owner or a group that is not stays as it is."""
        return Attributes(
            int(item["mode"], 8),
            self.number(item["owner"], "user", lambda name: pwd.getpwnam(name).pw_uid, present.user),
            self.number(item["group"], "group", lambda name: grp.getgrnam(name).gr_gid, present.group),
        )

    def number(self, name: str | None, kind: str, find: Callable[[str], int], present: int) -> int:
        """Return the number of a user or a group; the present one where no name is given."""
        if not name:
            return present
        if name.isdecimal():
            return int(name)
        try:
            return find(name)
        except KeyError:
            # In check mode somebody may not have been created yet.
            if not self.check:
                self.fail(f"This host has no {kind} {name}. Create it first, or write a number.")
            return present

    def note(self, path: str, before: str | dict[str, Any], after: str | dict[str, Any]) -> None:
        """Remember that something changed, and how: a text, or what is said of the path."""
        self.written.append(path)
        if isinstance(before, str):
            shown = {"before": before, "after": after, "before_header": path, "after_header": path}
        else:
            shown = {"before": {"path": path, **before}, "after": {"path": path, **after}}
        self.differences.append(shown)


def make_above(path: Path) -> None:
    """Make the folders above a path, with a mode on which the umask has no influence."""
    above = path.parent
    if not above.is_dir():
        make_above(above)
        above.mkdir()
        above.chmod(0o755)


def main() -> None:
    """Run the module."""
    # The options hold secrets, which the host's log must not.
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, no_log=True)
    writer = Writer(module)
    writer.run()
    module.exit_json(**writer.result())


if __name__ == "__main__":
    main()
