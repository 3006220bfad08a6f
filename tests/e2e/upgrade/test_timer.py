# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer in docs/operate.md that upgrades each week. The host's systemd stands in for the operator's machine."""

from __future__ import annotations

import re

from playbook import ROOT
from world import Host

FOLDER = "/root/.config/systemd/user"


def test_systemd_takes_the_units_as_they_stand_in_the_docs(host: Host) -> None:
    recipe = re.search(r"^```ini\n(.*?)^```", (ROOT / "docs/operate.md").read_text(), re.DOTALL | re.MULTILINE)
    assert recipe is not None
    host.exec("mkdir", "-p", FOLDER, "/run/user/0").expect()
    units = []
    for unit in re.split(r"^# (?=proxme-upgrade\.)", recipe[1], flags=re.MULTILINE)[1:]:
        name, _, text = unit.partition("\n")
        host.write(f"{FOLDER}/{name}", text)
        units.append(name)
    assert units == ["proxme-upgrade.service", "proxme-upgrade.timer"]
    verify = ["systemd-analyze", "--user", "verify", *(f"{FOLDER}/{name}" for name in units)]
    environment = {"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}
    host.exec("ln", "-s", "/usr/bin/true", "/usr/bin/ansible-playbook").expect()
    verified = host.exec(*verify, env=environment)
    assert (verified.code, verified.stdout, verified.stderr) == (0, "", "")
    host.exec("rm", "/usr/bin/ansible-playbook").expect()
    assert "ansible-playbook is not executable" in host.exec(*verify, env=environment).stderr
