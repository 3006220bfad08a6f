# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of each Molecule scenario, but for `verify`: those are the tests in the other files, which run in between.

After a failed step nothing more of that scenario is tried but to destroy it.
"""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest
from playbook import slowness
from scenarios import CACHE, Molecule

# Seconds that the second run may take on a usual machine; in proportion on one that is slower (playbook.slowness).
SECOND_RUN = 60


def keep_images(host: str) -> None:
    """Keep the images that a host has built, for the hosts of other scenarios (molecule/shared/prepare.yml)."""
    docker = ["docker", "exec", host, "docker"]
    listed = [*docker, "images", "--filter=label=proxme-tunnel", "--format={{.Repository}}:{{.Tag}}"]
    names = subprocess.run(listed, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    whole, growing = CACHE / "images.tar", CACHE / f"images.tar.{host}"
    with growing.open("wb") as file:
        subprocess.run([*docker, "save", *names], stdout=file, check=True)
    growing.rename(whole)


def test_step(scenario_step: tuple[Molecule, str]) -> None:
    scenario, step = scenario_step
    done = scenario.run(step)
    if done.code:
        pytest.fail(
            f"molecule {step} of {scenario.name} failed:\n{done.reason}\nAll it said: {where(scenario, step)}",
            pytrace=False,
        )
    if step == "converge" and scenario.name == "default":
        keep_images(json.loads(scenario.facts.read_text())["host"])
    if step == "idempotence" and done.seconds > SECOND_RUN:
        limit = SECOND_RUN * slowness(json.loads(scenario.facts.read_text())["host"])
        assert done.seconds < limit, f"the second run took {done.seconds:.0f} s; it may take {limit:.0f}"


def where(scenario: Molecule, step: str) -> pathlib.Path:
    """Where all that a step said can be read."""
    return scenario.log(step).relative_to(CACHE.parent)
