# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the instance that a program works on which is no test, such as bench.py."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from world import Scenario, World, run, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Molecule finds it by itself only in a git checkout.
BASE = str(ROOT / ".config/molecule/config.yml")


def find_scenario() -> Scenario:
    """The scenario to measure: PROXME_SCENARIO's, else `default`, which is created and converged if it isn't there.

    An instance that is there is never changed: somebody may be at work on it.
    """
    if path := os.environ.get("PROXME_SCENARIO"):
        return Scenario.read(pathlib.Path(path))
    name = "proxme-default-host"
    if run("docker", "inspect", name).code:
        print("There is no instance of the scenario `default`: `molecule converge` makes it, in about 3 minutes.")
        environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = [sys.executable, "-m", "molecule", "--base-config", BASE, "converge", "--scenario-name", "default"]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            raise SystemExit("molecule converge failed; see above.")
        print("It is left running; `molecule destroy` removes it.")
    # Its folder is where its resolv.conf comes from.
    mounts = json.loads(run("docker", "inspect", "--format={{json .Mounts}}", name).expect().stdout)
    source = next(mount["Source"] for mount in mounts if mount["Destination"] == "/etc/resolv.conf")
    return Scenario.read(pathlib.Path(source).with_name("env.json"))


def find_world() -> World:
    """The world of that scenario; ends the program if its host is not whole."""
    world = World(find_scenario())
    try:
        until("all its containers run", world.host.all_up, within=15)
    except AssertionError as error:
        raise SystemExit(
            f"{world.host.name} is no whole tunnel host. {error}\n`molecule converge` mends it."
        ) from error
    return world
