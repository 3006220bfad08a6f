# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: plugins/action/accounts.py does the work, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: accounts
version_added: 0.1.0
short_description: Check the list of accounts, and make of it what sshd is told
description:
  - Checks the accounts of the operator's variables, reads key files and asks key URLs, and fails with one sentence for
    each problem.
  - Says which accounts lost something since the last run, so that their connections can be ended.
  - Runs on the control node and changes nothing. A relative path of a key file begins in the folder in which the
    playbook was started.
options:
  settings:
    description: What the action M(proxme.tunnel.settings) returned.
    type: dict
    required: true
  remembered:
    description: The state that the last run wrote on the host; empty before the first one.
    type: dict
    default: {}
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
- name: Compile the accounts
  proxme.tunnel.accounts:
    settings: "{{ tunnel }}"
    remembered: "{{ tunnel_host.accounts }}"
  register: tunnel_accounts_compiled
"""

RETURN = r"""
accounts:
  description:
    - What each account has, the shared one first.
    - RV(accounts[].keys) is null while an account has an empty password.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The account.
      type: str
    uid:
      description: Its user id, never given to another one.
      type: int
    keys:
      description: Lines of an authorized_keys file, without comments.
      type: list
    listen:
      description: What it may take, as sshd's PermitListen has it.
      type: list
    open:
      description: What it may open, as sshd's PermitOpen has it.
      type: list
    principals:
      description: Principals of certificates that it has.
      type: list
    expires:
      description: Its last day, in days since 1970, or null.
      type: int
    names:
      description: The names and patterns that are its own.
      type: list
    tcp_ports:
      description: The public TCP ports that are its own.
      type: list
user_ca:
  description: Keys of those who sign certificates, without comments.
  returned: success
  type: list
  elements: str
revoked_keys:
  description: Absolute path of the list of revoked keys on the control node, or empty.
  returned: success
  type: str
ended:
  description: User ids of the accounts that lost something, whose connections are to be ended.
  returned: success
  type: list
  elements: int
pending:
  description: The state to be written before anything is applied.
  returned: success
  type: dict
state:
  description: The state to be written when all is applied.
  returned: success
  type: dict
msg:
  description: What an operator should know. These sentences are warnings as well.
  returned: success
  type: list
  elements: str
"""
