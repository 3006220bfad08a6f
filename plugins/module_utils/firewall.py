# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the host's packet filter translates: where it leads published ports, and whether it lets containers out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

# iptables shows what Docker has written by the same program, nft what others may have written.
PROGRAMS = (["iptables-save", "-t", "nat"], ["nft", "list", "ruleset"])


class Published(NamedTuple):
    """A TCP port of the host, and the address and port of the container that it leads to."""

    port: int
    target: str


def read_rules(module: AnsibleModule) -> str | None:
    """Return all rules that translate addresses, as the programs show them; None where none can be asked."""
    told = None
    for program, *words in PROGRAMS:
        path = module.get_bin_path(program)
        if path:
            code, out = module.run_command([path, *words])[:2]
            told = (told or "") + out if code == 0 else told
    return told


def lets_out(rules: str) -> bool:
    """Tell whether some rule gives what leaves the address of the host."""
    return re.search(r"masquerade|\bsnat\b", rules, re.IGNORECASE) is not None


def not_led(rules: str, published: Iterable[Published]) -> list[int]:
    """Return those published ports that no rule leads to their container."""
    lines = [line for line in rules.splitlines() if "dnat" in line.lower()]
    # A chain of Docker's that nothing jumps to leads nowhere.
    jumps = "-A DOCKER " not in rules or re.search(r"^-A PREROUTING .*-j DOCKER$", rules, re.MULTILINE)
    return sorted(
        {
            entry.port
            for entry in published
            if not jumps or not any(re.search(rf"\b{re.escape(entry.target)}\b", line) for line in lines)
        }
    )
