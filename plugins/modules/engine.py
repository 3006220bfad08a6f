#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sets up the Docker engine's options, and remembers what came from here, so that it can be taken away again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine
short_description: Sets up a Docker engine, and takes back what was set up
description:
  - Adds options to C(/etc/docker/daemon.json), where a key that the operator has written keeps the operator's value,
    and lets a running engine reload them. A reload keeps every container; what only a restart takes over waits for the
    engine's next one.
  - Remembers below C(/etc/proxme-tunnel/docker_engine) which options and packages came from here, and the operator's
    own text of the options.
  - Installs no packages and removes none; it says which are to be removed (RV(purge)).
version_added: 0.1.0
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
options:
  state:
    description:
      - With V(absent) the options are taken back, and the rest that an engine leaves whose packages came from here.
      - An engine from here stays as long as containers or volumes are on it. While packages are to be removed
        (RV(purge)), what was remembered is kept; it is forgotten by the call after that.
    type: str
    choices: [present, absent]
    default: present
  options:
    description:
      - Options for C(/etc/docker/daemon.json). C(live-restore) is left out in a swarm, which does not start with it,
        and so are bounds for logs beside a log driver that knows none.
      - Without any the file is not touched, nor whether the engine starts at boot.
    type: dict
  list_packages:
    description: Whether to list the installed packages (RV(packages)), as is done before some are installed.
    type: bool
    default: false
  installed_before:
    description: Packages that were installed before. All others that are installed now are remembered.
    type: list
    elements: str
  required:
    description: Whether to fail if no engine answers, except in check mode.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Shows the daemon's options before and after.
    support: full
"""

EXAMPLES = r"""
- name: Set the engine up
  proxme.tunnel.engine:
    options:
      live-restore: true
    required: true
  register: tunnel_engine

- name: Take back what was set up
  proxme.tunnel.engine:
    state: absent
  register: __docker_engine_absent
"""

RETURN = r"""
answers:
  description: Whether an engine answers.
  returned: success
  type: bool
version:
  description: Its version, empty where it does not answer.
  returned: success
  type: str
notes:
  description: Sentences for the operator.
  returned: success
  type: list
  elements: str
packages:
  description: The installed packages.
  returned: with O(list_packages)
  type: list
  elements: str
purge:
  description: Packages from here that are still installed and are to be removed.
  returned: with O(state=absent)
  type: list
  elements: str
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils.daemon import (
    DAEMON,
    RECORD,
    Engine,
    ask_engine,
    list_packages,
    read_object,
    silent,
    too_old,
    unremovable,
)

ROOT = Path("/")
# What tells that the engine itself came from here.
ENGINE_PACKAGE = "docker.io"
WANTED_AT_BOOT = "etc/systemd/system/multi-user.target.wants/docker.service"
SHARED = ("etc/proxme-tunnel", "var/lib/proxme-tunnel")

# The drivers whose logs have a bound.
BOUNDED = ("json-file", "local")
BOUNDS = ("max-size", "max-file")
IN_A_SWARM = (
    "This engine is in a swarm, which does not start with live-restore. So that option is left out, and a restart of "
    "the engine interrupts the tunnels."
)
WAITING = "No Docker engine answers yet. The images would be built and the containers created once it is installed."
WITHOUT_PROXY = (
    "Docker takes over its proxies only when it starts. Until then it pulls images without: type systemctl restart "
    "docker on the host; with live-restore no container ends."
)
IN_USE = "The Docker engine stays, because containers or volumes that are not ours use it."


def show(options: dict[str, Any]) -> str:
    """Return options as a text for people."""
    return json.dumps(options, indent=4, sort_keys=True) + "\n"


def without_passwords(text: str) -> str:
    """Return a text whose addresses have lost user and password."""
    return re.sub(r"://[^/@\s\"]*@", "://…@", text)


def in_force(info: dict[str, Any], options: dict[str, Any]) -> bool:
    """Tell whether an engine has taken over what a reload lets it take over, as far as `docker info` shows that."""
    registries = info.get("RegistryConfig") or {}
    insecure = [name for name, shown in (registries.get("IndexConfigs") or {}).items() if not shown["Secure"]]
    shown = {
        "live-restore": info.get("LiveRestoreEnabled"),
        "debug": info.get("Debug"),
        "registry-mirrors": {mirror.rstrip("/") for mirror in registries.get("Mirrors") or []},
        "insecure-registries": {*insecure, *(registries.get("InsecureRegistryCIDRs") or [])},
    }
    wanted = {name: options[name] for name in shown if name in options} if info else {}
    return all(
        shown[name] >= {text.rstrip("/") for text in value} if isinstance(value, list) else shown[name] == value
        for name, value in wanted.items()
    )


def theirs(now: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return those of the present options that did not come from here, or were changed since."""
    return {key: value for key, value in now.items() if key not in added or added[key] != value}


class Setup:
    """The engine's options, and the record of what came from here."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.engine: Engine = ask_engine(module, ROOT)
        self.daemon = ROOT / DAEMON
        self.record = ROOT / RECORD
        self.own_text = self.record / "daemon.json"
        self.added_file = self.record / "options.json"
        self.packages_file = self.record / "packages"
        try:
            self.now = read_object(self.daemon)
            self.added = read_object(self.added_file)
        except ValueError as problem:
            module.fail_json(msg=str(problem))
        self.changed = False
        self.diff: list[dict[str, str]] = []
        self.notes: list[str] = []
        self.told: dict[str, Any] = {}

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a program that changes something, outside of check mode."""
        self.changed = True
        return (0, "", "") if self.module.check_mode else self.module.run_command(list(command))

    def make_folder(self, path: Path) -> None:
        """Make a folder that everybody may read, and those that it is in."""
        if path.is_dir():
            return
        self.changed = True
        if not self.module.check_mode:
            self.make_folder(path.parent)
            path.mkdir()
            path.chmod(0o755)

    def write(self, path: Path, text: str, mode: int = 0o644) -> bool:
        """Write a file unless it has this text and mode already. One with a password is for root alone."""
        mode = mode if without_passwords(text) == text else 0o600
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if path.exists() and before == text and path.stat().st_mode & 0o7777 == mode:
            return False
        self.make_folder(path.parent)
        self.changed = True
        if path == self.daemon:
            self.show_change(before, text)
        if not self.module.check_mode:
            handle, candidate = tempfile.mkstemp(dir=self.module.tmpdir)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            self.module.atomic_move(candidate, str(path))
            path.chmod(mode)
        return True

    def remove(self, path: Path) -> bool:
        """Remove a file, or a folder with all that it holds."""
        if not path.exists():
            return False
        self.changed = True
        if path == self.daemon:
            self.show_change(path.read_text(encoding="utf-8"), "")
        if not self.module.check_mode:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return True

    def show_change(self, before: str, after: str) -> None:
        """Note how the daemon's options change."""
        shown = str(self.daemon)
        before, after = without_passwords(before), without_passwords(after)
        self.diff.append({"before": before, "after": after, "before_header": shown, "after_header": shown})

    # What is set up.

    def configure(self, options: dict[str, Any]) -> None:
        """Add options to the operator's own."""
        if self.engine.swarm and "live-restore" in options:
            self.notes.append(IN_A_SWARM)
            options = {key: value for key, value in options.items() if key != "live-restore"}
        own = theirs(self.now, self.added)
        if own == self.now and self.daemon.exists():
            text = self.daemon.read_text(encoding="utf-8")
            self.write(self.own_text, text, self.daemon.stat().st_mode & 0o7777)
        if own.get("log-driver", options.get("log-driver")) not in (None, *BOUNDED):
            # With bounds that its driver does not know the engine would not start the next time.
            rest = {key: value for key, value in options.get("log-opts", {}).items() if key not in BOUNDS}
            options = {key: value for key, value in options.items() if key != "log-opts"}
            options |= {"log-opts": rest} if rest else {}
        # First: a run that dies between must not take ours for the operator's the next time.
        added = {key: value for key, value in options.items() if key not in own}
        if added != self.added:
            self.write(self.added_file, show(added))
        wanted = {**options, **own}
        if wanted != self.now:
            self.write(self.daemon, show(wanted))
        # Also where a run that wrote them has died.
        if wanted != self.now or not in_force(self.engine.info, wanted):
            self.reload()
        told = self.engine.info
        if told and wanted.get("proxies") and not (told.get("HttpProxy") or told.get("HttpsProxy")):
            self.notes.append(WITHOUT_PROXY)

    def reload(self) -> None:
        """Let a running engine read its options."""
        if not self.engine.answers:
            return
        code, error = 1, "without systemd"
        if (ROOT / "run/systemd/system").is_dir():
            code, error = self.run("systemctl", "reload", "docker")[::2]
        if code != 0:
            self.notes.append(
                f"Docker's service can't be told to reload its options ({error.strip()}). They count from its next "
                "start."
            )

    def enable(self) -> None:
        """Let the engine start at boot."""
        if not (ROOT / "run/systemd/system").is_dir() or (ROOT / WANTED_AT_BOOT).exists():
            return
        # One that is started in some other way says another word.
        if self.module.run_command(["systemctl", "is-enabled", "docker"])[1].strip() == "disabled":
            code, error = self.run("systemctl", "enable", "docker")[::2]
            if code != 0:
                self.module.fail_json(msg=f"Docker's service can't be enabled at boot: {error.strip()}")

    def installed(self) -> list[str]:
        """Return the packages that are installed."""
        return sorted(name for name, state in list_packages(self.module).items() if state == "installed")

    def remembered(self) -> list[str]:
        """Return the packages that were installed from here."""
        return self.packages_file.read_text(encoding="utf-8").split() if self.packages_file.exists() else []

    def remember(self, before: list[str]) -> None:
        """Remember the packages that were installed since."""
        known = self.remembered()
        new = [name for name in self.installed() if name not in before and name not in known]
        if new:
            self.write(self.packages_file, "".join(f"{name}\n" for name in [*known, *new]))

    def require(self) -> None:
        """Fail if no engine answers, or one that is too old."""
        refusal = too_old(self.engine.version) if self.engine.answers else silent(self.engine.error)
        if not self.engine.answers and self.module.check_mode:
            self.notes.append(WAITING)
        elif refusal:
            self.module.fail_json(msg=refusal)

    # What is taken back.

    def is_used(self) -> bool:
        """Tell whether containers or volumes are on the engine."""
        asked = (["ps", "--all", "--quiet"], ["volume", "ls", "--quiet"])
        return self.engine.answers and any(
            self.module.run_command(["docker", *words], check_rc=True)[1].strip() for words in asked
        )

    def take_back(self) -> None:
        """Take back what was set up, as far as nobody else uses it."""
        if self.engine.installed and not self.engine.answers:
            self.module.fail_json(msg=unremovable(self.engine.error))
        remembered = self.remembered()
        states = list_packages(self.module, *remembered) if remembered else {}
        ours = ENGINE_PACKAGE in remembered
        stays = ours and self.is_used()
        purge = [] if stays else [name for name in remembered if name in states]
        self.told["purge"] = purge
        if self.take_options_back() and ENGINE_PACKAGE not in purge:
            self.reload()
        if stays:
            self.notes.append(IN_USE)
        elif purge:
            if ours and self.engine.answers:
                self.prune()
        else:
            if ours:
                self.remove_leftovers()
            self.remove(self.record)
            for folder in SHARED:
                self.remove_if_empty(ROOT / folder, apart_from={"images"})

    def take_options_back(self) -> bool:
        """Leave of the options what is the operator's, in the operator's own text if it says just that."""
        rest = theirs(self.now, self.added)
        try:
            is_own_text = self.own_text.exists() and read_object(self.own_text) == rest
        except ValueError:
            is_own_text = False
        if is_own_text:
            mode = self.own_text.stat().st_mode & 0o7777
            return self.write(self.daemon, self.own_text.read_text(encoding="utf-8"), mode)
        if self.added and rest:
            return rest != self.now and self.write(self.daemon, show(rest))
        return bool(self.added) and self.remove(self.daemon)

    def prune(self) -> None:
        """Remove the images of an engine that goes."""
        for words in (["image", "prune", "--all", "--force"], ["builder", "prune", "--force"]):
            self.changed = True
            if not self.module.check_mode:
                # Without it the builder would be a plugin, which may be missing.
                self.module.run_command(["docker", *words], check_rc=True, environ_update={"DOCKER_BUILDKIT": "0"})

    def remove_leftovers(self) -> None:
        """Remove what an engine leaves whose packages are gone. Its firewall rules and bridge go with the next boot."""
        for top in (ROOT / "etc/docker", ROOT / "etc/cni"):
            self.remove(top / "key.json")
            for folder in [found[0] for found in os.walk(top, topdown=False)]:
                self.remove_if_empty(Path(folder))
        groups = (ROOT / "etc/group").read_text(encoding="utf-8") if (ROOT / "etc/group").exists() else ""
        if re.search(r"^docker:", groups, re.MULTILINE):
            code, error = self.run("groupdel", "docker")[::2]
            if code != 0:
                self.module.fail_json(msg=f"The group docker can't be removed: {error.strip()}")

    def remove_if_empty(self, folder: Path, apart_from: frozenset[str] | set[str] = frozenset()) -> None:
        """Remove a folder that holds nothing, apart from what earlier versions built their images from."""
        if folder.is_dir() and not folder.is_symlink() and {path.name for path in folder.iterdir()} <= apart_from:
            self.remove(folder)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "options": {"type": "dict"},
            "list_packages": {"type": "bool", "default": False},
            "installed_before": {"type": "list", "elements": "str"},
            "required": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        # Proxies may have a password.
        no_log=True,
    )
    options = dict(module.params)
    # What is said of the call shows no password.
    module.params["options"] = json.loads(without_passwords(json.dumps(options["options"])))
    setup = Setup(module)
    if options["state"] == "absent":
        setup.take_back()
    else:
        # An engine that is there is asked for first.
        if options["installed_before"] is not None:
            setup.remember(options["installed_before"])
        if options["required"]:
            setup.require()
        if options["list_packages"]:
            setup.told["packages"] = setup.installed()
        if options["options"] is not None:
            setup.configure(options["options"])
            if setup.engine.answers:
                setup.enable()
    module.exit_json(
        changed=setup.changed,
        answers=setup.engine.answers,
        version=setup.engine.version,
        notes=setup.notes,
        diff=setup.diff,
        **setup.told,
    )


if __name__ == "__main__":
    main()
