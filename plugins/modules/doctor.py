# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: plugins/action/doctor.py does the work, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: doctor
version_added: 0.1.0
short_description: Say what is wrong with a tunnel host, and what to do
description:
  - Makes sentences of what M(proxme.tunnel.doctor_host) and M(proxme.tunnel.doctor_outside) have seen.
  - Runs on the control node, changes nothing, and does not fail for what it finds.
options:
  settings:
    description: What the action M(proxme.tunnel.settings) returned.
    type: dict
    required: true
  host:
    description: The result of M(proxme.tunnel.doctor_host).
    type: dict
    required: true
  outside:
    description: The result of M(proxme.tunnel.doctor_outside).
    type: dict
    required: true
attributes:
  check_mode:
    description: Runs in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Judge what was seen
  proxme.tunnel.doctor:
    settings: "{{ tunnel }}"
    host: "{{ __tunnel_host_seen }}"
    outside: "{{ __tunnel_outside_seen }}"
  register: __tunnel_judged
"""

RETURN = r"""
fine:
  description: What is well.
  returned: success
  type: list
  elements: str
report:
  description: What is wrong and what to do, what to be warned of, and what could not be tested, worst first.
  returned: success
  type: list
  elements: str
  sample: ["PROBLEM: The container proxme-tunnel-sshd is exited. Run `docker start proxme-tunnel-sshd`, or site.yml."]
problems:
  description: The sentences about what is wrong, without the word before them.
  returned: success
  type: list
  elements: str
"""
