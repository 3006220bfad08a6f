# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pack the data of a tunnel host into an encrypted archive, or read one and say what is wrong with it.

Runs on the control node (plugins/action/archive.py). The archive is what `ansible-vault encrypt` makes, so that
`ansible-vault view` shows it; inside is a JSON object: "format", "domain", "made" (time in UTC), and "tar", the gzipped
tar of the folder proxme-tunnel in base64.

`pack` is given passphrase, file, domain, made and tar, and writes the file, which only its owner may read. `unpack` is
given passphrase, file and domain, and returns

    made      when it was packed
    host_key  the host's public ed25519 key
    tar       as above
"""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import posixpath
import tarfile
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret

FORMAT = 1
FOLDER = "proxme-tunnel"
HOST_KEY = f"{FOLDER}/sshd_tunnel/ssh_host_ed25519_key"


class NoArchiveError(Exception):
    """The file cannot be restored; its text says why, and what to do."""


def vault(passphrase: str) -> VaultLib:
    """What encrypts with a passphrase."""
    return VaultLib([("default", VaultSecret(passphrase.encode()))])


def pack(given: dict[str, str]) -> None:
    """Write the archive. A file of that name is never overwritten. Raises OSError."""
    content = {"format": FORMAT, **{key: given[key] for key in ("domain", "made", "tar")}}
    encrypted = vault(given["passphrase"]).encrypt(json.dumps(content))
    path = pathlib.Path(given["file"])
    part = path.with_suffix(".part")
    before = os.umask(0o077)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with part.open("xb") as output:
            output.write(encrypted)
            output.flush()
            os.fsync(output.fileno())
        path.hardlink_to(part)
    finally:
        os.umask(before)
        part.unlink(missing_ok=True)


def stays_inside(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file, folder or link that neither lies nor leads out of the folder."""
    places = [member.name]
    if member.issym():
        places.append(posixpath.join(posixpath.dirname(member.name), member.linkname))
    known = member.isreg() or member.isdir() or member.issym()
    return known and all(posixpath.normpath(place).split("/")[0] == FOLDER for place in places)


def unpack(given: dict[str, str]) -> dict[str, Any]:
    """Return what the module's docstring says. Raises NoArchiveError."""
    name = f'The archive "{given["file"]}"'
    try:
        encrypted = pathlib.Path(given["file"]).read_bytes()
    except OSError as error:
        said = f"cannot be read ({error.strerror}). Write the path of one that backup.yml made."
        raise NoArchiveError(f"{name} {said}") from None
    try:
        content = json.loads(vault(given["passphrase"]).decrypt(encrypted))
        found = (content["format"], content["domain"], content["made"], content["tar"])
    except AnsibleError:
        raise NoArchiveError(
            f"{name} cannot be decrypted: the passphrase is another one, or the file is damaged or no archive. Give "
            "the passphrase that backup.yml had, or take another archive."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise NoArchiveError(f"{name} holds something else. Take one that backup.yml made.") from None
    if found[0] != FORMAT:
        raise NoArchiveError(
            f"{name} has format {found[0]}, and this version reads {FORMAT}. Use the version it is of."
        )
    if found[1] != given["domain"]:
        raise NoArchiveError(f"{name} is of {found[1]}, and this host is {given['domain']}. Take one of this domain.")
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(found[3], validate=True)), mode="r:gz") as tar:
            outside = [member.name for member in tar if not stays_inside(member)]
            key = tar.extractfile(f"{HOST_KEY}.pub")
            host_key = key.read().decode() if key else ""
    except (tarfile.TarError, ValueError, EOFError, OSError, KeyError):
        raise NoArchiveError(f"{name} holds no data of a tunnel host. Take one that backup.yml made.") from None
    if outside:
        raise NoArchiveError(f"{name} holds {outside[0]}, which lies or leads out of the data. Take another one.")
    return {"made": found[2], "host_key": host_key.strip(), "tar": found[3]}
