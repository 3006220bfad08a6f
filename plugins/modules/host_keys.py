# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host keys of sshd: made once, and never again."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_keys
version_added: 0.1.0
short_description: Make the host keys of sshd that are missing
description:
  - Makes an ed25519 and an RSA key with C(ssh-keygen) of an image, each if it is missing. One that is there is never
    replaced, since clients know the host by it.
  - Returns the fingerprints that clients are shown.
options:
  folder:
    description: The folder with the keys, C(ssh_host_ed25519_key) and C(ssh_host_rsa_key).
    type: path
    required: true
  image:
    description: The image that has C(ssh-keygen). It is asked for only where a key is missing.
    type: str
    required: true
  domain:
    description: The domain of the tunnel host, which becomes the comment of a new key.
    type: str
    required: true
attributes:
  check_mode:
    description: Says which keys would be made, and returns the fingerprints of those that are there.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the host keys
  proxme.tunnel.host_keys:
    folder: /var/lib/proxme-tunnel/sshd_tunnel
    image: "{{ __sshd_tunnel_image.image }}"
    domain: "{{ tunnel.domain }}"
  register: __sshd_tunnel_host_keys
"""

RETURN = r"""
fingerprints:
  description: The fingerprints of the keys, as C(ssh-keygen -lf) says them.
  returned: success
  type: list
  elements: str
  sample: ["256 SHA256:F0Pn7lZ1p3vJ8hQZb8cQn4YxqKk2m0Jv3m2n8qVQx1E proxme.example.com (ED25519)"]
made:
  description: The types of the keys that were made, or would be.
  returned: success
  type: list
  elements: str
  sample: [ed25519, rsa]
"""

import base64
import binascii
import hashlib
import pathlib
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

TYPES = ("ed25519", "rsa")


class RefusedError(Exception):
    """A sentence about what could not be done."""


def fields(blob: bytes) -> list[bytes]:
    """Return the length-prefixed fields of a key (RFC 4251)."""
    found = []
    position = 0
    while position < len(blob):
        length = int.from_bytes(blob[position : position + 4], "big")
        found.append(blob[position + 4 : position + 4 + length])
        position += 4 + length
    return found


def fingerprint(line: str) -> str:
    """Return what `ssh-keygen -lf` says of a public key; raise ValueError if it is none."""
    kind, encoded, *comment = line.strip().split(None, 2)
    blob = base64.b64decode(encoded, validate=True)
    parts = fields(blob)
    if parts[0] != kind.encode():
        raise ValueError("the type is another one")
    if kind == "ssh-rsa":
        bits = int.from_bytes(parts[2], "big").bit_length()
    elif kind.startswith("ecdsa-sha2-nistp"):
        bits = int(kind[len("ecdsa-sha2-nistp") :])
    else:
        bits = 8 * len(parts[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    shown = kind.replace("ssh-", "").split("-")[0].upper()
    return f"{bits} SHA256:{digest} {comment[0] if comment else 'no comment'} ({shown})"


def fingerprints(folder: pathlib.Path) -> list[str]:
    """Return the fingerprints of all public keys of the folder."""
    found = []
    for path in sorted(folder.glob("*.pub")):
        try:
            found.append(fingerprint(path.read_text()))
        except (OSError, ValueError, IndexError, binascii.Error) as error:
            raise RefusedError(
                f"{path} is no public key ({error}). Write it again on the host, with ssh-keygen -y -f "
                f"{path.with_suffix('')} > {path}, or take it from a backup."
            ) from error
    return found


def make(module: AnsibleModule, kind: str) -> None:
    """Make a key beside its place and move it there whole, so that a run that dies leaves no half of one."""
    options = module.params
    folder = pathlib.Path(options["folder"])
    name = f"ssh_host_{kind}_key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    except OSError as error:
        raise RefusedError(
            f"There can be no key in {folder} ({error.strerror}). Make it a folder of root's with some room."
        ) from error
    try:
        code, output, errors = module.run_command(
            [
                *("docker", "run", "--rm", "--network", "none", "--volume", f"{new}:/keys", options["image"]),
                *("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", options["domain"], "-f", f"/keys/{name}"),
            ]
        )
        if code or not (new / name).exists():
            raise RefusedError(
                f"The host key {folder / name} could not be made: {(errors or output).strip()}. Look whether Docker "
                f"and its image {options['image']} are well, and run again."
            )
        for suffix in (".pub", ""):
            (new / f"{name}{suffix}").replace(folder / f"{name}{suffix}")
    finally:
        # What is wrong with the folder was said above, or the key is already in its place.
        shutil.rmtree(new, ignore_errors=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "image": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    folder = pathlib.Path(module.params["folder"])
    missing = [kind for kind in TYPES if not (folder / f"ssh_host_{kind}_key").exists()]
    try:
        for kind in [] if module.check_mode else missing:
            make(module, kind)
        found = fingerprints(folder)
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    module.exit_json(changed=bool(missing), made=missing, fingerprints=found)


if __name__ == "__main__":
    main()
