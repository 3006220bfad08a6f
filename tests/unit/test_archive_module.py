# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action archive packs, and what of it it refuses."""

from __future__ import annotations

import base64
import io
import json
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.proxme.tunnel.plugins.plugin_utils import archive

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "proxme-tunnel/sshd_tunnel/ssh_host_ed25519_key.pub"


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


def test_what_was_packed_is_unpacked(given: dict[str, str]) -> None:
    archive.pack(given)
    unpacked = archive.unpack(given)
    assert unpacked == {"made": given["made"], "host_key": "ssh-ed25519 AAAA example", "tar": given["tar"]}
    assert [path.name for path in pathlib.Path(given["file"]).parent.iterdir()] == ["a.vault"]


def test_an_archive_is_never_overwritten(given: dict[str, str]) -> None:
    archive.pack(given)
    with pytest.raises(FileExistsError):
        archive.pack(given)
    assert [path.name for path in pathlib.Path(given["file"]).parent.iterdir()] == ["a.vault"]


def test_nobody_else_may_read_it(given: dict[str, str]) -> None:
    """Nor what a run that died has left half-written."""
    path = pathlib.Path(given["file"])
    path.parent.mkdir(mode=0o755)
    path.with_suffix(".part").touch(mode=0o666)
    archive.pack(given)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;")


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
def test_nothing_leaves_the_data(given: dict[str, str], member: tuple[str, bytes, str]) -> None:
    given["tar"] = tar(member)
    archive.pack(given)
    with pytest.raises(archive.NoArchiveError, match="leads out of the data"):
        archive.unpack(given)


def test_links_within_the_data_are_kept(given: dict[str, str]) -> None:
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
def test_what_is_no_archive_of_ours_is_refused(given: dict[str, str], content: dict | list, said: str) -> None:
    whole = {"format": 1, "domain": given["domain"], "made": given["made"], "tar": given["tar"]}
    data = json.dumps(whole | content if isinstance(content, dict) else content)
    path = pathlib.Path(given["file"])
    path.parent.mkdir()
    path.write_bytes(archive.vault(given["passphrase"]).encrypt(data))
    with pytest.raises(archive.NoArchiveError, match=said):
        archive.unpack(given)


def test_a_plain_file_is_refused(given: dict[str, str]) -> None:
    path = pathlib.Path(given["file"])
    path.parent.mkdir()
    path.write_text("no vault")
    with pytest.raises(archive.NoArchiveError, match="cannot be decrypted"):
        archive.unpack(given)


Play = Callable[..., str]


@pytest.fixture
def play(run: Callable, tmp_path: pathlib.Path, given: dict[str, str]) -> Play:
    """Run the action, then show what it returned; the output."""

    def _play(*arguments: str, show: str, **options: Any) -> str:
        common = {"passphrase": given["passphrase"], "domain": given["domain"]}
        tasks = [
            {"proxme.tunnel.archive": common | options, "register": "it"},
            {"ansible.builtin.debug": {"msg": show}},
        ]
        book = tmp_path / "book.yml"
        book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        found = str(ROOT / ".collections")
        done = run("ansible-playbook", "-vvv", *arguments, book, cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=found)
        return done.stdout + done.stderr

    return _play


def test_the_action_writes_and_reads(play: Play, given: dict[str, str], tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "backup"
    would = play("--check", state="packed", folder=str(folder), show="file={{ it.file }}")
    assert f"file={folder}/proxme.example-2" in would
    assert not folder.exists()
    output = play(state="packed", folder=str(folder), tar=given["tar"], show="file={{ it.file }} {{ it.changed }}")
    [file] = folder.iterdir()
    assert f"file={file} True" in output
    read = play(state="unpacked", file=str(file), show="{{ it.host_key }} {{ it.tar | length }}")
    assert f"ssh-ed25519 AAAA example {len(given['tar'])}" in read
    for said in (output, read):
        assert given["passphrase"] not in said
        assert given["tar"][:40] not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"state": "unpacked", "file": "/nowhere/a.vault"}, "cannot be read (No such file or directory)"),
        ({"state": "unpacked"}, "tunnel_backup_file"),
        ({"state": "packed", "folder": "/proc/nowhere", "tar": "x"}, "can't be written on the control node ("),
        ({"state": "packed", "folder": "backup"}, "There is no data to be packed"),
        ({"state": "unpacked", "file": "x", "passphrase": ""}, "The passphrase is empty"),
    ],
)
def test_the_action_says_what_it_cannot_do(
    play: Play, given: dict[str, str], options: dict[str, str], said: str
) -> None:
    with pytest.raises(pytest.fail.Exception) as failed:
        play(show="", **options)
    assert said in str(failed.value)
    assert given["passphrase"] not in str(failed.value)
