# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry that stands in for the public one comes back after the engine has ended."""

import pathlib
import sys
import uuid

import docker

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "images"))
from build import run_registry, wait_for_registry


def test_a_registry_whose_network_is_gone_is_replaced(docker_client: docker.DockerClient) -> None:
    name = f"proxme-test-registry-{uuid.uuid4().hex[:8]}"
    network = docker_client.networks.create(name)
    try:
        run_registry(docker_client, name)
        network.connect(name)
        docker_client.containers.get(name).stop(timeout=5)
        network.remove()
        network = None
        wait_for_registry(run_registry(docker_client, name))
    finally:
        docker_client.containers.get(name).remove(force=True, v=True)
        if network:
            network.remove()
