# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: plugins/action/archive.py does the work, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: archive
version_added: 0.1.0
short_description: Write or read an encrypted archive of a tunnel host's data
description:
  - The archive is what C(ansible-vault encrypt) makes. A file that is there is never overwritten.
  - Runs on the control node. Neither the passphrase nor the data is ever shown.
options:
  state:
    description: V(packed) writes an archive; V(unpacked) reads one, and fails if it cannot be restored.
    type: str
    choices: [packed, unpacked]
    required: true
  passphrase:
    description: The passphrase that it is encrypted with.
    type: str
    required: true
  domain:
    description: The domain of the tunnel host. An archive of another one is refused.
    type: str
    required: true
  folder:
    description: With O(state=packed), the folder of the archive, which gets the name C(DOMAIN-TIME.vault).
    type: str
    default: ""
  tar:
    description:
      - With O(state=packed), the gzipped tar of the folder C(proxme-tunnel) in base64. Not needed in check mode.
    type: str
    default: ""
  file:
    description: With O(state=unpacked), the path of the archive.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says which file would be written; reads one as well.
    support: full
  diff_mode:
    description: There is nothing that may be shown.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Write the archive
  proxme.tunnel.archive:
    state: packed
    passphrase: "{{ tunnel_backup_passphrase }}"
    domain: "{{ tunnel.domain }}"
    folder: "{{ tunnel.backup_folder }}"
    tar: "{{ __tunnel_tar.stdout }}"
  register: __tunnel_archive

- name: Read the archive
  proxme.tunnel.archive:
    state: unpacked
    passphrase: "{{ tunnel_backup_passphrase }}"
    domain: "{{ tunnel.domain }}"
    file: "{{ tunnel.backup_file }}"
  register: __tunnel_archive
"""

RETURN = r"""
file:
  description: The archive that was written, or would be.
  returned: O(state=packed)
  type: str
made:
  description: When the archive was packed, UTC.
  returned: O(state=unpacked)
  type: str
host_key:
  description: The public ed25519 host key in it.
  returned: O(state=unpacked)
  type: str
tar:
  description: The gzipped tar in base64.
  returned: O(state=unpacked)
  type: str
"""
