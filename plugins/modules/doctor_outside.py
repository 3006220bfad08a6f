# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the doctor looks at from outside the tunnel host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: doctor_outside
version_added: 0.1.0
short_description: Look at a tunnel host as visitors and clients do
description:
  - Resolves the names, tries the ports, reads host keys and the certificate, and opens and visits a real tunnel.
  - The action M(proxme.tunnel.doctor) makes sentences of it. Changes nothing.
  - Runs on the machine that looks, by C(delegate_to); the tunnel needs C(ssh) there.
options:
  domain:
    description: The domain of the tunnel host.
    type: str
    required: true
  inventory:
    description: The address or name that Ansible connects to, or nothing.
    type: str
    default: ""
  ssh_port:
    description: The port of sshd.
    type: int
    required: true
  https_port:
    description: The port for HTTPS.
    type: int
    required: true
  http_port:
    description: The port for HTTP, or V(0) if it is not to be tried.
    type: int
    default: 0
  host_keys:
    description: The host's stored public keys, the type and the base64 of each.
    type: list
    elements: str
    default: []
  shared_account:
    description: Whether there is a shared account. Without it no tunnel is tried.
    type: bool
    required: true
  shared_account_name:
    description: Its name.
    type: str
    default: tunnel
  asks_for_key:
    description: Whether it asks for a key. Then no tunnel is tried.
    type: bool
    default: false
  guest_names:
    description: The pattern of names that it may take, or nothing.
    type: str
    default: ""
  port_labels:
    description: Whether it may take port labels.
    type: bool
    default: true
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
- name: Look from outside, with a real tunnel
  proxme.tunnel.doctor_outside:
    domain: "{{ tunnel.domain }}"
    ssh_port: "{{ tunnel.ssh_port }}"
    https_port: "{{ tunnel.https_port }}"
    host_keys: "{{ __tunnel_host_seen.seen['keys'] }}"
    shared_account: "{{ tunnel.shared_account }}"
  delegate_to: "{{ tunnel.doctor_from }}"
  become: false
  register: __tunnel_outside_seen
"""

RETURN = r"""
seen:
  description: What was seen.
  returned: success
  type: dict
  contains:
    addresses:
      description: The addresses of the domain, of a random name below it, and of what Ansible connects to.
      type: dict
    answers:
      description: For each address and port what it said, which is empty if all is well.
      type: list
    keys:
      description: By address, the host keys that its ssh port shows. Empty where there is no C(ssh-keyscan).
      type: dict
    certificate:
      description: The certificate that visitors are shown (PEM), and why this machine does not trust it.
      type: dict
    tunnel:
      description: Whether a tunnel works, fails or is untested, and what was said.
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils import outside


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "inventory": {"type": "str", "default": ""},
            "ssh_port": {"type": "int", "required": True},
            "https_port": {"type": "int", "required": True},
            "http_port": {"type": "int", "default": 0},
            "host_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "shared_account": {"type": "bool", "required": True},
            "shared_account_name": {"type": "str", "default": "tunnel"},
            "asks_for_key": {"type": "bool", "default": False, "no_log": False},
            "guest_names": {"type": "str", "default": ""},
            "port_labels": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, seen=outside.look(outside.question(module.params)))


if __name__ == "__main__":
    main()
