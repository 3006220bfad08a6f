# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation only: plugins/action/certificate.py does the work, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificate
version_added: 0.1.0
short_description: Check the operator's certificate and key
description:
  - Reads the two files, and fails with one sentence for each thing that visitors could not use.
  - Puts them together for Caddy. The result holds the private key, so it is never shown.
  - Runs on the control node and changes nothing.
options:
  certificate:
    description: Path of the certificate and those that it is signed by, in PEM.
    type: str
    required: true
  key:
    description: Path of its private key, in PEM.
    type: str
    required: true
  on_host:
    description: Whether the two files are on the host instead of the control node. Caddy then reads them as they are.
    type: bool
    default: false
  domain:
    description: The domain of the tunnel host. The certificate has to be for it and for all names below it.
    type: str
    required: true
attributes:
  check_mode:
    description: Runs in check mode as well.
    support: full
  diff_mode:
    description: There is nothing that may be shown.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Check the operator's certificate
  proxme.tunnel.certificate:
    certificate: "{{ tunnel.certificate_file }}"
    key: "{{ tunnel.certificate_key_file }}"
    on_host: "{{ tunnel.certificate_on_host }}"
    domain: "{{ tunnel.domain }}"
  register: __caddy_frontend_checked
"""

RETURN = r"""
pem:
  description:
    - The certificate, those that it is signed by, and the key.
    - With O(on_host=true) both files as they are, one after the other.
  returned: success
  type: str
"""
