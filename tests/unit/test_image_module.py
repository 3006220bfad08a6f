# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `image` on this machine's engine, and its action: what is built, when, and what is removed."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_module import run_module

# Passes calls on to the real program and notes them; answers those itself that the file `answers` has an answer for.
STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
for start, (code, output, errors) in json.loads((here / "answers").read_text()).items():
    if " ".join(words).startswith(start):
        sys.stdout.write(output)
        sys.stderr.write(errors)
        sys.exit(code)
os.execv({docker!r}, ["docker", *words])
"""
# Starts no container, so that it is quick.
DOCKERFILE = """ARG BASE
FROM $BASE
ARG VERSION=first
ENV PACKAGES=$VERSION
COPY bin/dpkg-query /usr/local/bin/
CMD ["dpkg-query"]
"""
FOLDER = {
    "Dockerfile": (DOCKERFILE, "0644"),
    "bin/dpkg-query": ("#!/bin/sh\ncat /packages 2>/dev/null || echo $PACKAGES\n", "0755"),
}


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


class Host:
    """The module on a host whose docker is the stand-in."""

    def __init__(self, path: Path, base: str) -> None:
        """Put the stand-in into a folder; images are built from `base`."""
        self.path, self.base, self.name = path, base, f"unit-{uuid.uuid4().hex[:8]}"
        (path / "docker").write_text(STAND_IN.format(docker=shutil.which("docker")))
        (path / "docker").chmod(0o755)
        self.answer({"pull": (0, "Status: Image is up to date\n", "")})

    def answer(self, answers: dict[str, tuple[int, str, str]]) -> None:
        """Let calls that start so end with these codes and outputs."""
        (self.path / "answers").write_text(json.dumps(answers))

    def run(self, files: dict[str, tuple[str, str]] | None = None, **options: object) -> dict[str, Any]:
        """Run the module; the calls that it made are in the answer as `calls`."""
        (self.path / "calls").write_text("")
        if options.get("state") != "absent" and "pull" not in options:
            content = [
                {"path": path, "mode": mode, "content": base64.b64encode(text.encode()).decode()}
                for path, (text, mode) in (files or FOLDER).items()
            ]
            options = {"base": self.base, "folder": self.name, "files": content, **options}
        if "pull" not in options:
            options = {"name": self.name, **options}
        told = run_module("image", tmpdir=self.path, **options)
        calls = [json.loads(line) for line in (self.path / "calls").read_text().splitlines()]
        return {**told, "calls": [" ".join(words[:2]) for words in calls], "words": calls}

    def images(self) -> set[str]:
        """IDs of the image's versions."""
        return set(docker("images", "--quiet", "--no-trunc", "--filter", f"label=proxme-tunnel={self.name}").split())


@pytest.fixture(scope="module")
def base(role_images) -> Iterator[str]:
    """A base image of our own, which has a shell."""
    base = f"proxme-test/unit-base:{uuid.uuid4().hex[:8]}"
    docker("tag", role_images["holder"], base)
    yield base
    docker("image", "rm", base)


@pytest.fixture
def host(tmp_path, base, monkeypatch) -> Iterator[Host]:
    """A host without an image, which is cleared at the end."""
    host = Host(tmp_path, base)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    yield host
    for kind, listed in (("container", ["ps", "--all"]), ("image", ["images"])):
        found = docker(*listed, "--quiet", "--filter", f"label=proxme-tunnel={host.name}").split()
        if found:
            docker(kind, "rm", "--force", *found)


@pytest.fixture
def mute(tmp_path, monkeypatch) -> Host:
    """A host on which nothing answers but what a test says."""
    host = Host(tmp_path, "debian:trixie-slim")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return host


def test_an_image_is_built_once_and_then_costs_one_call(host):
    told = host.run()
    assert told["changed"]
    assert told["image"].startswith(f"proxme-tunnel/{host.name}:")
    assert len(told["image"].split(":")[1]) == 12
    assert "pull" not in " ".join(told["calls"])
    assert "Dockerfile" not in json.dumps(told["invocation"])
    labels = json.loads(docker("image", "inspect", "--format", "{{ json .Config.Labels }}", told["image"]))
    assert labels["proxme-tunnel"] == host.name
    assert labels["proxme-tunnel.base"] == host.base
    assert labels["proxme-tunnel.base-id"] == docker("image", "inspect", "--format", "{{ .Id }}", host.base)
    assert labels["proxme-tunnel.built"].endswith("Z")
    # What could be executed still can.
    assert docker("run", "--rm", "--network=none", told["image"]) == "first"
    again = host.run()
    assert (again["changed"], again["image"], again["calls"]) == (False, told["image"], ["image ls"])
    assert host.images() == {docker("image", "inspect", "--format", "{{ .Id }}", told["image"])}


def test_a_tag_stands_for_all_that_an_image_is_made_from_and_not_for_the_order(mute):
    def tag(files=FOLDER, **options):
        return mute.run(files, check=True, **options)["image"]

    mute.answer({"": (0, "", "")})
    others = [
        tag(),
        tag(base="debian:bookworm-slim"),
        tag(args={"A": "1"}),
        tag(args={"A": "2"}),
        tag(args={"A": "1", "B": "2"}),
        tag(FOLDER | {"Dockerfile": (DOCKERFILE + "\n", "0644")}),
        tag(FOLDER | {"bin/dpkg-query": (FOLDER["bin/dpkg-query"][0], "0644")}),
        tag(FOLDER | {"other": ("", "0644")}),
    ]
    assert len(set(others)) == len(others)
    shuffled = random.sample(sorted(FOLDER.items()), len(FOLDER))
    assert tag(dict(shuffled)) == tag(dict(reversed(shuffled))) == others[0]
    assert tag(args={"B": 2, "A": "1"}) == others[4]


def test_check_mode_names_the_image_and_builds_nothing(host):
    told = host.run(check=True)
    assert (told["changed"], told["calls"]) == (True, ["image ls"])
    built = host.run()
    assert built["image"] == told["image"]
    for upgrade in (False, True):
        told = host.run(check=True, upgrade=upgrade)
        assert (told["changed"], told["image"], told["calls"]) == (False, built["image"], ["image ls"])
    assert host.run(check=True, state="absent")["changed"]
    assert host.images()


def test_superseded_versions_go_once_no_container_uses_them(host):
    first = host.run()["image"]
    container = docker("create", "--label", f"proxme-tunnel={host.name}", first)
    second = host.run(args={"VERSION": "other"})
    assert (second["changed"], second["removed"]) == (True, [])
    third = host.run(args={"VERSION": "third"})
    assert third["removed"] == [second["image"]]
    assert "warnings" not in third
    assert len(host.images()) == 2
    docker("rm", container)
    told = host.run(args={"VERSION": "third"})
    assert (told["changed"], told["removed"]) == (False, [first])
    assert len(host.images()) == 1


def test_a_build_goes_through_the_engines_proxies_and_no_image_keeps_them(host):
    told = {
        "HttpProxy": "http://192.0.2.1:3128",
        "HttpsProxy": "http://xxxxx:xxxxx@192.0.2.1:3128",
        "NoProxy": "a.example",
    }
    host.answer({"info": (0, json.dumps(told), "")})
    shown = "RUN printenv http_proxy https_proxy no_proxy > /packages || true\n"
    built = host.run(FOLDER | {"Dockerfile": (DOCKERFILE + shown, "0644")})
    # The engine shows no passwords, and so none can be used.
    assert docker("run", "--rm", "--network=none", built["image"]).split() == ["http://192.0.2.1:3128", "a.example"]
    for shown in (
        docker("history", "--no-trunc", built["image"]),
        docker("inspect", built["image"]),
        str(built["words"]),
    ):
        assert "192.0.2.1" not in shown


def test_an_upgrade_takes_an_image_with_other_packages_and_no_equal_one(host):
    first = host.run()
    identity = host.images()
    same = host.run(upgrade=True)
    assert (same["changed"], same["image"], host.images()) == (False, first["image"], identity)
    assert "--no-cache" in next(words for words in same["words"] if words[0] == "build")
    assert ["pull", host.base] in same["words"]

    # Other packages in each build without the cache.
    moving = FOLDER | {"Dockerfile": (f"{DOCKERFILE}RUN date +%s%N > /packages\n", "0644")}
    newer = host.run(moving)["image"]
    identity = host.images()
    container = docker("create", "--label", f"proxme-tunnel={host.name}", newer)
    told = host.run(moving, upgrade=True)
    assert (told["changed"], told["image"]) == (True, newer)
    # The old one has no name any more, and stays for its container.
    assert host.images() > identity
    docker("rm", container)
    assert host.run(moving)["removed"] == [*identity]
    names = docker("images", "--format", "{{ .Tag }}", f"proxme-tunnel/{host.name}").split()
    assert names == [newer.split(":")[1]]


def test_an_upgrade_takes_an_image_with_another_base(host, role_images):
    host.base = f"proxme-test/unit-moving:{uuid.uuid4().hex[:8]}"
    docker("tag", role_images["holder"], host.base)
    try:
        first = host.run()
        docker("tag", role_images["sshd"], host.base)
        assert not host.run()["changed"]
        told = host.run(upgrade=True)
        assert (told["changed"], told["image"]) == (True, first["image"])
    finally:
        docker("image", "rm", host.base)


def test_an_upgrade_without_a_way_to_the_registry_fails_and_keeps_what_is_there(host):
    host.run()
    before = host.images()
    host.answer({"pull": (1, "", "dial tcp: lookup registry: no such host\n")})
    told = host.run(upgrade=True)
    assert told["msg"] == (
        f"The image {host.base} cannot be fetched: dial tcp: lookup registry: no such host. What runs goes on. Look "
        "at the host's way to the registry, or run site.yml, which takes the images that are there."
    )
    assert host.images() == before


def test_a_failed_build_says_what_failed_and_keeps_what_is_there(host):
    host.run()
    before = host.images()
    broken = FOLDER | {"Dockerfile": (f"{DOCKERFILE}RUN echo {host.name} broke >&2; exit 3\n", "0644")}
    told = host.run(broken)
    assert told["failed"]
    assert "can't be built" in told["msg"]
    assert f"\n{host.name} broke" in told["msg"]
    # Not even the container of the step that failed.
    assert f"{host.name} broke" not in docker("ps", "--all", "--no-trunc")
    assert host.images() == before


def test_absent_removes_every_version_that_no_container_uses(host):
    first = host.run()["image"]
    container = docker("create", "--label", f"proxme-tunnel={host.name}", first)
    second = host.run(args={"VERSION": "other"})["image"]
    told = host.run(state="absent")
    assert (told["changed"], told["removed"]) == (True, [second])
    assert not host.run(state="absent")["changed"]
    docker("rm", container)
    assert host.run(state="absent")["removed"] == [first]
    told = host.run(state="absent")
    assert (told["changed"], told["calls"]) == (False, ["image ls"])
    assert "image" not in told


def test_a_foreign_image_is_fetched_when_it_is_missing_and_in_an_upgrade(mute):
    there = {"image inspect": (0, "sha256:1\n", "")}
    missing = {"image inspect": (1, "\n", "Error: No such image: caddy:2\n")}
    new = {"pull": (0, "Status: Downloaded newer image for caddy:2\n", "")}
    same = {"pull": (0, "Status: Image is up to date for caddy:2\n", "")}

    def run(answers, **options):
        mute.answer(answers)
        told = mute.run(pull="caddy:2", **options)
        assert told["image"] == "caddy:2"
        return told["changed"], told["calls"]

    assert run(there | new) == (False, ["image inspect"])
    assert run(missing | new) == (True, ["image inspect", "pull caddy:2"])
    assert run(there | same, upgrade=True) == (False, ["image inspect", "pull caddy:2"])
    assert run(there | new, upgrade=True) == (True, ["image inspect", "pull caddy:2"])
    assert run(missing | new, check=True) == (True, ["image inspect"])
    assert run(there | new, check=True, upgrade=True) == (False, ["image inspect"])
    mute.answer(missing | {"pull": (1, "", "denied\n")})
    assert mute.run(pull="caddy:2")["msg"] == (
        "The image caddy:2 cannot be fetched: denied. What runs goes on. Look at the host's way to the registry."
    )


def test_a_foreign_image_is_removed_unless_somebody_uses_it(mute):
    there = {"image inspect": (0, "sha256:1\n", "")}
    mute.answer(there | {"image rm caddy:2": (0, "Untagged: caddy:2\n", "")})
    told = mute.run(pull="caddy:2", state="absent")
    assert (told["changed"], told["removed"]) == (True, ["caddy:2"])
    used = "Error response from daemon: conflict: unable to remove repository reference (must force) - container 1 is "
    mute.answer(there | {"image rm": (1, "", f"{used}using its referenced image 2\n")})
    told = mute.run(pull="caddy:2", state="absent")
    assert (told["changed"], told["removed"], "warnings" in told) == (False, [], False)
    mute.answer({"image inspect": (1, "\n", "Error response from daemon: No such image: caddy:2\n")})
    assert not mute.run(pull="caddy:2", state="absent")["changed"]


def test_an_engine_that_does_not_answer_is_only_an_error_when_something_is_to_be_done(mute, monkeypatch):
    said = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    mute.answer({"": (1, "", f"{said}\n")})
    sentence = f"No Docker engine answers on this host ({said}). Start it (systemctl start docker), or let the role"
    for options in ({}, {"pull": "caddy:2"}, {"state": "absent"}, {"pull": "caddy:2", "state": "absent"}):
        assert mute.run(**options)["msg"].startswith(sentence)
        assert mute.run(check=True, **options)["changed"] == ("state" not in options)
    # Without docker there is nothing to remove.
    (mute.path / "docker").unlink()
    monkeypatch.setenv("PATH", str(mute.path))
    assert mute.run()["msg"].startswith("No Docker engine answers on this host (docker: No such file or directory).")
    assert mute.run(check=True)["changed"]
    for options in ({}, {"pull": "caddy:2"}):
        assert not mute.run(state="absent", **options)["changed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of the following is required: name, pull"),
        ({"name": "x", "pull": "y"}, "mutually exclusive: name|pull"),
        ({"name": "x"}, "The image x can't be built without base and folder."),
        ({"name": "x", "base": "y"}, "base, folder, files"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said):
    assert said in run_module("image", **options)["msg"]


def test_the_action_reads_the_roles_folder_whatever_the_checkouts_modes_are(run, tmp_path, mute):
    """It hands over every file but what Python leaves; a file's mode only says whether it can be executed."""
    role = tmp_path / "roles/part"
    kept = {"Dockerfile": 0o600, "serve": 0o700, "lib/deep/a.lua": 0o664, ".hidden": 0o644}
    for name, mode in {**kept, "__pycache__/x.pyc": 0o644}.items():
        path = role / "files/some" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        path.chmod(mode)
    (role / "files/empty").mkdir()
    (role / "tasks").mkdir()
    image = {"name": "some", "base": "debian:trixie-slim"}
    tasks = [
        {"proxme.tunnel.image": {**image, "folder": folder, **more}, "ignore_errors": True, "register": register}
        for register, folder, more in (
            ("found", "some", {"args": {"A": 1}}),
            ("missing", "nowhere", {}),
            ("empty", "empty", {}),
            ("given", "some", {"files": []}),
        )
    ]
    told = tmp_path / "told"
    results = "{{ [found, missing, empty, given] | to_json }}"
    tasks.append({"ansible.builtin.copy": {"content": results, "dest": str(told)}})
    (role / "tasks/main.yml").write_text(json.dumps(tasks))
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["part"]}
    play["vars"] = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    mute.answer({"image ls": (0, "", ""), "image inspect": (0, "sha256:1\n", ""), "build": (0, "", "")})
    wanted = mute.run(
        {name: (f"{name}\n", "0755" if name == "serve" else "0644") for name in kept},
        name="some",
        folder="some",
        args={"A": "1"},
        check=True,
    )
    run("ansible-playbook", tmp_path / "play.yml", "-i", "localhost,", PATH=os.environ["PATH"])
    found, missing, empty, given = json.loads(told.read_text())
    assert (found["changed"], found["image"]) == (True, wanted["image"])
    assert "The folder nowhere is not below the role's files" in missing["msg"]
    assert "has no Dockerfile" in empty["msg"]
    assert "The option files is filled in by itself" in given["msg"]
