# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the instance that a program works on which is no test, such as bench.py."""

from __future__ import annotations

import os
import pathlib

from scenarios import molecule
from world import Scenario, World, run, until


def find_scenario() -> Scenario:
    """The scenario to measure: PROXME_SCENARIO's, else `default`, which is created and converged if it isn't there.

    An instance that is there is never changed: somebody may be at work on it.
    """
    if path := os.environ.get("PROXME_SCENARIO"):
        return Scenario.read(pathlib.Path(path))
    there = molecule("default")
    made = there.facts.exists() and run("docker", "inspect", Scenario.read(there.facts).host).code == 0
    if not made:
        # Molecule itself may think that there is one.
        there.run("destroy")
        print("There is no instance of the scenario `default`: `molecule converge` makes it, in about 3 minutes.")
        done = there.run("converge")
        if done.code:
            raise SystemExit(f"molecule converge failed; all that it said is in {there.log('converge')}\n{done.reason}")
        print("It is left running; `molecule destroy` removes it.")
    return Scenario.read(there.facts)


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
