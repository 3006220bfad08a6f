# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/files/archive.py packs, and what of it it refuses."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import pathlib
import tarfile
import types

import pytest

PATH = pathlib.Path(__file__).parents[2] / "playbooks/files/archive.py"
KEY = "proxme-tunnel/sshd_tunnel/ssh_host_ed25519_key.pub"


@pytest.fixture(scope="module")
def archive() -> types.ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("archive", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tar(*members: tuple[str, bytes, str]) -> str:
    """A gzipped tar in base64 of (name, type, content or target) besides the host key."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as file:
        for name, kind, content in ((KEY, tarfile.REGTYPE, "ssh-ed25519 AAAA example"), *members):
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            file.addfile(member, io.BytesIO(content.encode()))
    return base64.b64encode(output.getvalue()).decode()


@pytest.fixture
def given(tmp_path: pathlib.Path) -> dict[str, str]:
    """What the playbook hands over."""
    return {
        "passphrase": "correct horse battery",
        "file": str(tmp_path / "new" / "a.vault"),
        "domain": "proxme.example",
        "made": "2026-11-24T03:00:00Z",
        "tar": tar(),
    }


def test_what_was_packed_is_unpacked(archive: types.ModuleType, given: dict[str, str]) -> None:
    archive.pack(given)
    unpacked = archive.unpack(given)
    assert unpacked == {
        "problems": [], "made": given["made"], "host_key": "ssh-ed25519 AAAA example", "tar": given["tar"],
    }  # fmt: skip
    assert [path.name for path in pathlib.Path(given["file"]).parent.iterdir()] == ["a.vault"]


def test_an_archive_is_never_overwritten(archive: types.ModuleType, given: dict[str, str]) -> None:
    archive.pack(given)
    with pytest.raises(FileExistsError):
        archive.pack(given)


LINK, HARD, PIPE, FILE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.REGTYPE


@pytest.mark.parametrize(
    "member",
    [
        ("/etc/cron.d/x", FILE, "x"),
        ("proxme-tunnel/../x", FILE, "x"),
        ("other/x", FILE, "x"),
        ("proxme-tunnel/x", LINK, "/etc/shadow"),
        ("proxme-tunnel/x", LINK, "../../etc"),
        ("proxme-tunnel/x", HARD, "etc/shadow"),
        ("proxme-tunnel/x", PIPE, ""),
    ],
)
def test_nothing_leaves_the_data(
    archive: types.ModuleType, given: dict[str, str], member: tuple[str, bytes, str]
) -> None:
    given["tar"] = tar(member)
    archive.pack(given)
    with pytest.raises(archive.NoArchiveError, match="leads out of the data"):
        archive.unpack(given)


def test_links_within_the_data_are_kept(archive: types.ModuleType, given: dict[str, str]) -> None:
    """As certbot has them."""
    given["tar"] = tar(("proxme-tunnel/certbot/live/x.pem", LINK, "../archive/x1.pem"))
    archive.pack(given)
    assert archive.unpack(given)["tar"] == given["tar"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"format": 2}, "has format 2"),
        ({"domain": "other.example"}, "is of other.example"),
        ({"tar": "bm8gdGFy"}, "holds no data of a tunnel host"),
        ({"tar": "no base64"}, "holds no data of a tunnel host"),
        (["something"], "holds something else"),
    ],
)
def test_what_is_no_archive_of_ours_is_refused(
    archive: types.ModuleType, given: dict[str, str], content: dict | list, said: str
) -> None:
    whole = {"format": 1, "domain": given["domain"], "made": given["made"], "tar": given["tar"]}
    data = json.dumps(whole | content if isinstance(content, dict) else content)
    path = pathlib.Path(given["file"])
    path.parent.mkdir()
    path.write_bytes(archive.vault(given["passphrase"]).encrypt(data))
    with pytest.raises(archive.NoArchiveError, match=said):
        archive.unpack(given)


def test_a_plain_file_is_refused(archive: types.ModuleType, given: dict[str, str]) -> None:
    path = pathlib.Path(given["file"])
    path.parent.mkdir()
    path.write_text("no vault")
    with pytest.raises(archive.NoArchiveError, match="can not be decrypted"):
        archive.unpack(given)
