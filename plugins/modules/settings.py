# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Describes what the action of this name does."""

DOCUMENTATION = r"""
module: settings
short_description: Checks the operator's variables of a tunnel host
version_added: 0.1.0
description:
  - Reads the variables C(tunnel_*) of the host, checks each by itself and all against each other, and returns them with
    their types and defaults, and what follows from several of them.
  - The variables, their types, defaults and meanings are those of the role C(proxme.tunnel.tunnel).
  - What is secret is checked and not returned.
  - Runs on the control node.
options:
  refuse:
    type: bool
    default: true
    description:
      - Whether variables that can't work are refused. With V(false) those that have the right type are returned.
attributes:
  check_mode:
    description: Changes nothing at any time.
    support: full
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read what the operator wants
  proxme.tunnel.settings:
  register: tunnel

- name: Use it
  ansible.builtin.debug:
    msg: ssh -p {{ tunnel.ssh_port }}
"""

RETURN = r"""
domain:
  description: And likewise each variable, by its name without C(tunnel_).
  returned: always
  type: str
command:
  description: The command that people type; C({forward}) stands for the forward.
  returned: always
  type: str
reserved:
  description: All labels that no tunnel may take.
  returned: always
  type: list
  elements: str
"""
