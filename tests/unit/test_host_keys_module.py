# SPDX-License-Identifier: GPL-3.0-or-later
"""The module host_keys makes the keys that are missing, and none again."""

from __future__ import annotations

import json
import pathlib
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.proxme.tunnel.plugins.modules import host_keys

# Runs the ssh-keygen of this machine in place of the image's, and keeps a record of what it was asked for.
DOCKER = """#!{python}
import pathlib, subprocess, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with (folder / "asked").open("a") as asked:
    asked.write(" ".join(words) + "\\n")
if (folder / "fails").exists():
    sys.exit("no space left")
volume = words[words.index("--volume") + 1].removesuffix(":/keys")
command = [word.replace("/keys", volume) for word in words[words.index("ssh-keygen"):]]
sys.exit(subprocess.run(["/usr/bin/env", *command]).returncode)
"""
Module = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder for the keys, on a host with a Docker."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    keys = tmp_path / "keys"
    keys.mkdir()
    return keys


@pytest.fixture
def module(folder, capsys) -> Module:
    """Run the module; its result."""

    def _module(check: bool = False) -> dict[str, Any]:
        given = {"folder": str(folder), "image": "sshd:1", "domain": "proxme.example.com", "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit):
            host_keys.main()
        return json.loads(capsys.readouterr().out)

    return _module


def shown(path: pathlib.Path) -> str:
    """What ssh-keygen says of a key."""
    return subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout.strip()


def test_missing_keys_are_made_once(module, folder):
    first = module()
    assert (first["changed"], first["made"]) == (True, ["ed25519", "rsa"])
    names = ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / names[0]).stat().st_mode & 0o777 == 0o600
    assert first["fingerprints"] == [shown(folder / name) for name in names if name.endswith(".pub")]
    assert all("proxme.example.com" in line for line in first["fingerprints"])
    before = {name: (folder / name).read_bytes() for name in names}
    again = module()
    assert (again["changed"], again["made"], again["fingerprints"]) == (False, [], first["fingerprints"])
    assert {name: (folder / name).read_bytes() for name in names} == before
    asked = (folder.parent / "asked").read_text().splitlines()
    assert [line.split(" --volume ")[0] for line in asked] == ["run --rm --network none"] * 2


def test_one_that_is_there_stays(module, folder):
    module()
    kept = (folder / "ssh_host_ed25519_key").read_bytes()
    (folder / "ssh_host_rsa_key").unlink()
    result = module()
    assert result["made"] == ["rsa"]
    assert result["fingerprints"][1] == shown(folder / "ssh_host_rsa_key.pub") == shown(folder / "ssh_host_rsa_key")
    assert (folder / "ssh_host_ed25519_key").read_bytes() == kept


def test_check_mode_says_which_would_be_made(module, folder):
    """Also where there is not even the folder."""
    result = module(check=True)
    assert (result["changed"], result["made"], result["fingerprints"]) == (True, ["ed25519", "rsa"], [])
    folder.rmdir()
    assert module(check=True)["made"] == ["ed25519", "rsa"]
    assert not (folder.parent / "asked").exists()


def test_a_key_that_could_not_be_made_leaves_nothing(module, folder):
    (folder.parent / "fails").touch()
    result = module()
    assert result["failed"]
    assert f"The host key {folder}/ssh_host_ed25519_key could not be made: no space left." in result["msg"]
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_missing_is_made(module, folder):
    folder.rmdir()
    assert module()["changed"] is True
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_is_said(module, folder):
    folder.rmdir()
    folder.write_text("")
    assert f"There can be no key in {folder} (File exists)" in module()["msg"]


def test_a_damaged_public_key_is_said(module, folder):
    module()
    (folder / "ssh_host_rsa_key.pub").write_text("ssh-rsa AAAA")
    assert f"{folder}/ssh_host_rsa_key.pub is no public key" in module()["msg"]


@pytest.mark.parametrize("options", ["ed25519", "rsa -b 2048", "ecdsa -b 384", "ed25519 -C two_words"])
def test_fingerprints_are_those_of_ssh_keygen(tmp_path, options):
    path = tmp_path / "key"
    kind, *rest = options.split()
    comment = [] if "-C" in rest else ["-C", ""]
    command = ["ssh-keygen", "-q", "-N", "", "-f", path, "-t", kind, *rest, *comment]
    subprocess.run(command, check=True)
    line = path.with_suffix(".pub").read_text().replace("two_words", "two words")
    path.with_suffix(".pub").write_text(line)
    assert host_keys.fingerprint(line) == shown(path.with_suffix(".pub"))


def test_the_image_has_what_makes_them(role_images, tmp_path, capsys):
    given = {"folder": str(tmp_path), "image": role_images["sshd"], "domain": "proxme.example.com"}
    with patch_module_args(given), pytest.raises(SystemExit):
        host_keys.main()
    assert len(json.loads(capsys.readouterr().out)["fingerprints"]) == 2
