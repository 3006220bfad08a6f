# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that runs containers: what it asks of Docker in every state that it may find, and what becomes of it.

Most of it is seen on a stand-in for the engine (engine.py), the rest on the engine of this machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from types import ModuleType

import pytest
from ansible.module_utils.testing import patch_module_args
from engine import Engine

NAME = "proxme-tunnel-nginx"
IMAGE = "proxme-tunnel/nginx:1"
DRAIN = {"drain": ["kill", "-QUIT", "1"], "ready": ["test", "-e", "/tmp/serving"], "drain_hours": 1}


@pytest.fixture(scope="module")
def module(root) -> Iterator[ModuleType]:
    """Return the module, imported by its full name."""
    sys.path.insert(0, str(root / ".collections"))
    try:
        from ansible_collections.proxme.tunnel.plugins.modules import container
    finally:
        sys.path.remove(str(root / ".collections"))
    return container


def call(module: ModuleType, options: dict, check: bool = False) -> dict:
    """Run the module with these options; return its result."""
    printed = io.StringIO()
    arguments = {**options, "_ansible_check_mode": check}
    with patch_module_args(arguments), contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        module.main()
    return json.loads(printed.getvalue())


class Host:
    """The module on a host with the stand-in."""

    def __init__(self, module: ModuleType, engine: Engine) -> None:
        """Run the module by an engine."""
        self.module = module
        self.engine = engine

    def run(self, check: bool = False, **options: object) -> dict:
        """Run the module, expecting success. What `old` says is what runs, and check mode changes nothing."""
        before, done = {**self.engine.state, "calls": []}, len([*self.changes()])
        result = call(self.module, {"name": NAME, "image": IMAGE, **options}, check)
        assert not result.get("failed"), result["msg"]
        assert result["changed"] == bool(result["actions"])
        if check:
            assert len([*self.changes()]) == done
            assert {**self.engine.state, "calls": []} == before
        return result

    def fail(self, **options: object) -> str:
        """Run the module, expecting failure; what it says."""
        result = call(self.module, {"name": NAME, "image": IMAGE, **options})
        assert result["failed"] is True
        return result["msg"]

    def changes(self) -> Iterator[str]:
        """Return the first words of the calls that change something."""
        for words in self.engine.state["calls"]:
            if words[:2] not in (["image", "inspect"], ["container", "inspect"]) and words[0] not in ("ps", "top"):
                yield words[0]

    @property
    def identity(self) -> str:
        """Id of the present container."""
        return self.engine.container(NAME)["Id"]

    @property
    def aside(self) -> str:
        """Name that the present container would get."""
        return f"{NAME}-old-{self.identity[:8]}"


@pytest.fixture
def slow_host(module, tmp_path, monkeypatch) -> Host:
    """Return a host with an image, whose engine makes up its mind at once. Each call is a process."""
    engine = Engine(tmp_path)
    engine.image(IMAGE, "sha256:one")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, seconds in {"READY": 0.5, "LOOK": 0.01, "ENDING": 0.5, "TRY": 0.01}.items():
        monkeypatch.setattr(module, name, seconds)
    return Host(module, engine)


@pytest.fixture
def host(slow_host, monkeypatch) -> Host:
    """Return the same without processes."""
    monkeypatch.setattr(slow_host.module.Runner, "run", lambda _, *arguments: slow_host.engine.run(*arguments))
    return slow_host


@pytest.fixture
def running(host) -> Host:
    """Return a host on which the container runs, made from the first image."""
    host.run(**DRAIN)
    host.engine.forget()
    return host


@pytest.fixture
def renewed(running) -> Host:
    """Return the same, where the image has become another one."""
    running.engine.image(IMAGE, "sha256:two")
    return running


# What is created.


def test_a_first_container_is_created_and_started(host):
    result = host.run(command=["serve", "now"])
    assert result["actions"] == ["created", "started"]
    assert (result["old"], result["kept"], result["replaced"]) == ([], "", False)
    assert host.engine.containers() == {NAME: "running"}
    assert host.engine.container(NAME)["Config"]["Cmd"] == ["serve", "now"]
    assert result["diff"]["before"] == {"state": "absent"}
    assert result["diff"]["after"] == {"image": IMAGE, "state": "running"}


def test_every_container_is_hardened_and_limited(host):
    host.run()
    (created,) = host.engine.calls("create")
    line = " ".join(created)
    for option in ("--read-only", "--no-healthcheck"):
        assert option in created
    for option in (
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--restart unless-stopped",
        "--network bridge",
        "--pids-limit 512",
        "--memory 256m --memory-swap 256m",
        "--log-driver json-file --log-opt max-size=10m --log-opt max-file=3",
    ):
        assert f" {option} " in line
    for option in ("--cap-add", "--publish", "--user", "--group-add", "--init", "--hostname", "--stop-signal"):
        assert option not in created


def test_each_option_becomes_one_of_dockers(host):
    host.run(
        network="own",
        labels={"proxme-tunnel": "joined"},
        env={"GOGC": 400, "EMPTY": None, "YES": True},
        user="1:2",
        groups=["3", "people"],
        hostname="here",
        ports=["2222:2222", "443:443/udp"],
        volumes=["/a:/b:ro"],
        tmpfs=["/tmp:size=1m"],
        capabilities=["CHOWN"],
        sysctls={"net.ipv4.tcp_retries2": 5},
        dns=["127.0.0.53"],
        dns_search=["."],
        hosts={"host.docker.internal": "host-gateway"},
        ulimits=["nofile:1024:1024"],
        processes=16,
        memory="32m",
        stop_signal="SIGKILL",
        init=True,
        log=False,
        restart="no",
    )
    (created,) = host.engine.calls("create")
    line = " ".join(created)
    for option in (
        "--network own",
        "--label proxme-tunnel=joined",
        "--label proxme-tunnel.ports=2222:2222 443:443/udp",
        "--env GOGC=400",
        "--env EMPTY= ",
        "--env YES=true",
        "--user 1:2",
        "--group-add 3 --group-add people",
        "--hostname here",
        "--publish 2222:2222 --publish 443:443/udp",
        "--volume /a:/b:ro",
        "--tmpfs /tmp:size=1m",
        "--cap-add CHOWN",
        "--sysctl net.ipv4.tcp_retries2=5",
        "--dns 127.0.0.53",
        "--dns-search .",
        "--add-host host.docker.internal:host-gateway",
        "--ulimit nofile=1024:1024",
        "--pids-limit 16",
        "--memory 32m --memory-swap 32m",
        "--stop-signal SIGKILL",
        "--init",
        "--log-driver none",
        "--restart no",
    ):
        assert f" {option}" in line, option
    assert "--log-opt" not in line


def test_an_image_that_is_not_there_is_fetched(host):
    host.engine.answer("pull", "--quiet", "caddy:2", times=1)
    host.fail(image="caddy:2")
    assert host.engine.calls("pull") == [["pull", "--quiet", "caddy:2"]]
    host.engine.forget()
    host.engine.image("caddy:2", "sha256:2")
    assert host.run(image="caddy:2")["actions"] == ["created", "started"]
    assert host.engine.calls("pull") == []


def test_without_its_image_it_says_what_to_do(host):
    said = host.fail(image="proxme-tunnel/nginx:2")
    assert said.startswith(f"{NAME} can't be run, as its image proxme-tunnel/nginx:2 is neither there nor can it be f")
    assert "pull access denied" in said
    assert host.engine.containers() == {}


def test_without_docker_it_says_what_to_do(host, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(host.module.AnsibleModule, "get_bin_path", lambda *_: None)
    assert "Install Docker" in host.fail()
    assert host.run(check=True)["actions"] == ["created", "started"]
    assert host.run(state="absent")["changed"] is False


def test_an_engine_that_does_not_answer_is_not_taken_for_an_empty_one(host):
    silence = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    for words in (["image"], ["container"], ["ps"]):
        host.engine.answer(*words, code=1, err=silence)
        assert silence in host.fail()
        host.engine.forget()
    host.engine.answer(code=1, err=silence)
    assert silence in host.fail(state="absent")


def test_what_docker_refuses_is_said(host):
    host.engine.answer("create", code=1, err="invalid publish opts format")
    assert host.fail() == f"{NAME} can't be created. (invalid publish opts format)"
    host.engine.forget()
    host.engine.answer("start", code=1, err="port is already\nallocated")
    assert host.fail() == f"{NAME} can't be started. (port is already allocated)"


# Whether it is the container that is wanted.


def test_an_unchanged_one_costs_three_calls_beside_ready_and_reload(running):
    options = {**DRAIN, "reload": ["reload"]}
    result = running.run(**options)
    assert result["actions"] == []
    assert result["diff"]["before"] == result["diff"]["after"]
    assert [words[0] for words in running.engine.state["calls"]] == ["image", "container", "ps", "exec", "exec"]


def test_so_does_one_that_shares_a_network(host):
    host.run(name="holder")
    host.run(network="container:holder")
    host.engine.forget()
    assert host.run(network="container:holder")["actions"] == []
    assert [words[0] for words in host.engine.state["calls"]] == ["image", "container", "ps"]


def test_how_it_is_replaced_is_no_part_of_what_it_is(running):
    result = running.run(drain=["other"], busy=["other"], drain_hours=2, keep="Stay.", ready_log="")
    assert result["actions"] == []


@pytest.mark.parametrize(
    "other",
    [
        {"command": ["other"]},
        {"env": {"A": "1"}},
        {"ports": ["80:80"]},
        {"memory": "1g"},
        {"restart": "no"},
        {"labels": {"a": "b"}},
        {"image": "proxme-tunnel/nginx:2"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_option_is_another_container(running, other):
    running.engine.image("proxme-tunnel/nginx:2", "sha256:one")
    identity = running.identity
    result = running.run(**other)
    assert result["actions"] == ["stopped", "removed", "created", "started"]
    assert result["replaced"] is True
    assert running.identity != identity


def test_the_order_of_what_has_none_does_not_matter(host):
    host.run(env={"A": "1", "B": "2"}, labels={"c": "3", "d": "4"})
    assert host.run(env={"B": "2", "A": "1"}, labels={"d": "4", "c": "3"})["actions"] == []


def test_another_holder_of_the_name_is_another_network(host):
    host.run(name="holder")
    host.run(network="container:holder")
    host.run(name="holder", command=["other"])
    assert host.run(network="container:holder")["replaced"] is True
    host.run(name="holder", state="absent")
    assert "there is no container holder, whose network it shares" in host.fail(network="container:holder")
    assert host.run(check=True, network="container:holder")["changed"] is True


def test_one_that_was_made_without_this_module_is_replaced(running):
    with running.engine.changed() as state:
        state["containers"][0]["Config"]["Labels"] = None
    aside = running.aside
    assert running.run(**DRAIN)["old"] == [aside]


def test_a_stopped_one_that_is_wanted_is_started(running):
    identity = running.identity
    running.engine.status(NAME, "exited")
    assert running.run(**DRAIN)["actions"] == ["started"]
    assert running.identity == identity


@pytest.mark.parametrize("status", ["restarting", "paused"])
def test_one_that_docker_is_about_to_start_is_left_to_it(running, status):
    running.engine.status(NAME, status)
    assert running.run()["actions"] == []


@pytest.mark.parametrize("status", ["exited", "created", "dead"])
def test_a_stopped_one_that_is_another_is_removed(renewed, status):
    renewed.engine.status(NAME, status)
    result = renewed.run(**DRAIN, keep="Stay.")
    assert result["actions"] == ["removed", "created", "started"]
    assert (result["replaced"], result["kept"], result["old"]) == (False, "", [])
    assert renewed.engine.calls("stop") == []


@pytest.mark.parametrize("status", ["dead", "removing"])
def test_one_that_docker_failed_to_remove_is_not_started(running, status):
    running.engine.status(NAME, status)
    assert running.run()["actions"] == ["removed", "created", "started"]


def test_one_that_restarts_all_the_time_is_not_drained(renewed):
    renewed.engine.status(NAME, "restarting")
    assert renewed.run(**DRAIN)["actions"] == ["stopped", "removed", "created", "started"]


# Replacing without draining.


def test_without_draining_it_is_stopped_in_its_own_time(renewed):
    result = renewed.run()
    assert result["actions"] == ["stopped", "removed", "created", "started"]
    # Its image is of no more use.
    assert [*renewed.changes()] == ["stop", "rm", "create", "start", "image"]
    assert renewed.engine.calls("image", "prune")
    assert renewed.engine.calls("stop") == [["stop", NAME]]
    assert renewed.engine.containers() == {NAME: "running"}


def test_a_holder_takes_no_image_away_that_what_joins_it_waits_for(renewed):
    renewed.run(labels={"proxme-tunnel": "holder"})
    assert renewed.engine.calls("image", "prune") == []


def test_one_that_cannot_be_stopped_is_removed_all_the_same(renewed):
    renewed.engine.answer("stop", code=1, err="cannot stop container")
    assert renewed.run()["replaced"] is True


@pytest.mark.parametrize("died", ["stop", "rm", "create", "start"])
def test_a_run_that_died_is_made_up_for(renewed, died):
    """Before each of its steps."""
    renewed.engine.answer(died, code=1, err="died")
    if died == "stop":
        renewed.engine.answer("rm", code=1, err="died")
    renewed.fail()
    renewed.engine.forget()
    renewed.run()
    assert renewed.engine.containers() == {NAME: "running"}
    assert renewed.run()["actions"] == []


def test_one_that_docker_is_removing_already_is_waited_for(renewed):
    renewed.engine.answer("rm", code=1, err=f"removal of container {NAME} is already in progress", times=3)
    assert renewed.run()["replaced"] is True


def test_one_that_is_gone_meanwhile_is_no_failure(running):
    running.engine.answer("rm", code=1, err=f"Error response from daemon: No such container: {NAME}")
    assert running.run(state="absent")["removed"] == [NAME]


def test_a_leftover_that_has_the_name_is_removed(running):
    """The first look doesn't show it."""
    running.engine.status(NAME, "created")
    identity = running.identity
    running.engine.answer("container", code=1, out="[]", err=f"Error: No such container: {NAME}", times=1)
    assert running.run()["actions"] == ["created", "started"]
    assert running.identity != identity
    assert running.engine.calls("rm") == [["rm", "--force", identity]]


def test_somebody_elses_that_took_the_name_and_runs_is_left(running):
    running.engine.answer("container", code=1, out="[]", err=f"Error: No such container: {NAME}", times=1)
    assert "already in use" in running.fail()
    assert running.engine.containers() == {NAME: "running"}


# Replacing beside the old one.


def test_the_old_one_is_set_aside_and_told_once_the_new_one_is_ready(renewed):
    aside, identity = renewed.aside, renewed.identity
    renewed.engine.answer("exec", NAME, "test", code=1, times=2)
    result = renewed.run(**DRAIN)
    assert result["actions"] == [f"set aside as {aside}", "created", "started", f"told {aside} to end"]
    assert (result["old"], result["replaced"]) == ([aside], True)
    assert aside == f"{NAME}-old-{identity[:8]}"
    assert renewed.engine.containers() == {aside: "running", NAME: "running"}
    assert renewed.engine.container(aside)["Id"] == identity
    assert renewed.engine.container(aside)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert renewed.engine.container(NAME)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    done = [words for words in renewed.engine.state["calls"] if words[0] not in ("image", "container", "ps", "top")]
    ready = ["exec", NAME, "test", "-e", "/tmp/serving"]
    assert [words for words in done if words[0] != "create"] == [
        ["update", "--restart", "no", NAME],
        ["rename", NAME, aside],
        ["start", NAME],
        ready,
        ready,
        ready,
        ["exec", aside, "kill", "-QUIT", "1"],
        done[-1],
    ]
    assert done[-1][:5] == ["exec", "--detach", aside, "sh", "-c"]
    assert done[-1][-1] == "drain-3600"
    assert done[-1][-2].endswith("; kill -TERM 1")


def test_variables_of_the_waiter_are_its_own(slow_host, monkeypatch):
    """Ansible would replace those that its own environment has."""
    monkeypatch.setenv("left", "wrong")
    slow_host.run(**DRAIN)
    slow_host.run(**DRAIN, command=["other"], busy=["sh", "-c", "echo $left ~ | grep -q '['"])
    (waiter,) = slow_host.engine.calls("exec", "--detach")
    assert waiter[5] == (
        'left=${0#drain-}; while [ "$left" -gt 0 ] && '
        """{ sh -c 'echo $left ~ | grep -q '"'"'['"'"''; }; do left=$((left - 1)); sleep 1; done; kill -TERM 1"""
    )


def test_the_next_run_does_not_tell_it_again(renewed):
    aside = renewed.aside
    renewed.run(**DRAIN)
    renewed.engine.forget()
    result = renewed.run(**DRAIN)
    assert (result["actions"], result["old"]) == ([], [aside])
    assert [*renewed.changes()] == ["exec"]  # ready


def test_it_is_told_other_hours(renewed):
    aside = renewed.aside
    renewed.run(**DRAIN)
    assert renewed.run(**{**DRAIN, "drain_hours": 0.003})["actions"] == [f"told {aside} to end"]
    assert renewed.engine.container(aside)["Processes"][-1].endswith(" drain-10")
    assert renewed.run(**{**DRAIN, "drain_hours": 10})["actions"] == [f"told {aside} to end"]
    assert renewed.run(**DRAIN)["actions"] == []


def test_what_is_in_its_log_is_waited_for(renewed):
    aside = renewed.aside
    renewed.engine.answer("logs", NAME, err="serving initial configuration\n")
    renewed.engine.answer("logs", NAME, out="starting\n", times=2)
    renewed.run(drain=["drain"], ready_log="serving initial")
    assert len(renewed.engine.calls("logs")) == 3
    # The line may have been rotated away when it no longer matters.
    renewed.engine.forget()
    assert renewed.run(drain=["drain"], ready_log="serving initial", drain_hours=168)["old"] == [aside]
    assert renewed.engine.calls("logs") == []


def test_one_that_never_gets_ready_leaves_the_old_one_as_it_is(renewed):
    aside = renewed.aside
    renewed.engine.answer("exec", NAME, code=1, err="no such file")
    said = renewed.fail(**DRAIN)
    assert f"Type docker logs {NAME} on the host to see why. {aside} went on, so nothing was lost. (no such" in said
    assert renewed.engine.containers() == {aside: "running", NAME: "running"}
    assert renewed.engine.calls("exec", aside) == []
    # The next run has the remedy.
    renewed.engine.forget()
    renewed.engine.image(IMAGE, "sha256:three")
    bad = renewed.aside
    assert renewed.run(**DRAIN)["old"] == sorted([aside, bad])
    assert len(renewed.engine.calls("exec", "--detach")) == 2


def test_one_whose_log_never_says_it_fails_as_well(host):
    host.engine.answer("logs", out="what else\n")
    said = host.fail(ready_log="serving")
    assert f"docker logs {NAME}" in said
    assert "went on" not in said


@pytest.mark.parametrize("died", ["update", "rename", "create", "start", "ready", "drain", "waiter"])
def test_a_run_that_died_amid_a_replacement_is_made_up_for(renewed, died):
    aside = renewed.aside
    words = {"ready": ["exec", NAME], "drain": ["exec", aside], "waiter": ["exec", "--detach"]}.get(died, [died])
    renewed.engine.answer(*words, code=1, err="died")
    renewed.fail(**DRAIN)
    renewed.engine.forget()
    result = renewed.run(**DRAIN)
    assert result["actions"][-1] == f"told {aside} to end"
    assert result["old"] == [aside]
    assert renewed.engine.containers() == {aside: "running", NAME: "running"}
    assert renewed.engine.container(aside)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert renewed.run(**DRAIN)["actions"] == []


def test_one_that_was_not_set_aside_after_all_is_started_again_by_docker(renewed):
    """A run died between the two calls, and the former container is wanted again."""
    renewed.engine.answer("rename", code=1, err="died")
    renewed.fail(**DRAIN)
    renewed.engine.forget()
    renewed.engine.image(IMAGE, "sha256:one")
    assert renewed.run(**DRAIN)["actions"] == ["restarts unless-stopped"]
    assert renewed.engine.container(NAME)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert renewed.run(**DRAIN)["actions"] == []


def test_one_that_ends_before_it_is_set_aside_is_removed(renewed):
    renewed.engine.answer("update", code=1, err="can't be updated", ends=NAME)
    result = renewed.run(**DRAIN)
    assert result["actions"] == ["removed", "created", "started"]
    assert renewed.engine.containers() == {NAME: "running"}


def test_one_that_was_started_again_meanwhile_is_set_aside(renewed):
    renewed.engine.answer("rename", code=1, err="is restarting", times=2)
    aside = renewed.aside
    assert renewed.run(**DRAIN)["old"] == [aside]


@pytest.mark.parametrize("last", ["drain", "waiter"])
def test_one_that_ends_while_it_is_told_is_no_failure(renewed, last):
    aside = renewed.aside
    words = ["exec", aside] if last == "drain" else ["exec", "--detach", aside]
    renewed.engine.answer(*words, code=1, err="OCI runtime exec failed", ends=aside)
    # Docker notices it later.
    renewed.engine.answer(*words, code=126, err="cannot exec in a stopped state", times=2)
    result = renewed.run(**DRAIN)
    assert result["old"] == []
    assert result["actions"] == [f"set aside as {aside}", "created", "started"]
    # The next run tidies up.
    renewed.engine.forget()
    result = renewed.run(**DRAIN)
    assert (result["actions"], result["removed"]) == ([f"removed {aside}"], [aside])
    assert renewed.engine.containers() == {NAME: "running"}
    assert renewed.run(**DRAIN)["actions"] == []


def test_one_that_has_ended_before_it_is_asked_is_no_failure(renewed):
    aside = renewed.aside
    renewed.engine.answer("top", aside, code=1, err=f"Container {aside} is not running", ends=aside)
    assert renewed.run(**DRAIN)["old"] == []


def test_one_that_runs_and_will_not_be_told_is_a_failure(renewed):
    aside = renewed.aside
    renewed.engine.answer("exec", aside, code=1, err="kill: not found")
    assert renewed.fail(**DRAIN) == f"{aside} can't be told to end with its last connection. (kill: not found)"
    renewed.engine.forget()
    renewed.engine.answer("top", aside, code=1, err="ps: not found")
    assert renewed.fail(**DRAIN) == f"It can't be seen whether {aside} knows when to end. (ps: not found)"


def test_containers_of_a_longer_name_are_none_of_its_business(renewed):
    others = (f"{NAME}-two", f"{NAME}-two-old-0123abcd", f"x-{NAME}-old-0123abcd", f"{NAME}-old-fashioned")
    for name in others:
        renewed.run(name=name)
        renewed.engine.status(name, "exited")
    renewed.run(**DRAIN)
    renewed.run(state="absent")
    assert renewed.engine.containers() == dict.fromkeys(others, "exited")


# Keeping.


def test_one_that_is_kept_goes_on(renewed):
    identity = renewed.identity
    result = renewed.run(keep="It would end all tunnels.")
    assert (result["changed"], result["kept"], result["replaced"]) == (False, "It would end all tunnels.", False)
    assert renewed.identity == identity
    assert [*renewed.changes()] == []


def test_nothing_is_kept_where_nothing_else_is_wanted(running):
    assert running.run(keep="It would end all tunnels.")["kept"] == ""


def test_other_ports_are_a_reason_although_it_is_kept(host):
    keep = {"keep": "It would end requests.", "keep_unless_ports": True}
    host.run(ports=["80:80", "443:443"], **keep)
    assert host.run(ports=["443:443", "80:80"], memory="1g", **keep)["kept"] == "It would end requests."
    assert host.run(ports=["443:443", "81:81"], keep="Stay.")["kept"] == "Stay."
    result = host.run(ports=["443:443", "81:81"], **keep)
    assert (result["kept"], result["replaced"]) == ("", True)


# Only created.


def test_one_that_somebody_else_starts_is_only_created(host):
    options = {"started": False, "restart": "no", "log": False}
    assert host.run(**options)["actions"] == ["created"]
    assert host.run(**options)["actions"] == []
    host.engine.status(NAME, "running")
    assert host.run(**options)["actions"] == []
    host.engine.status(NAME, "exited")
    assert host.run(**options)["actions"] == []
    assert host.run(**options, memory="1g")["actions"] == ["removed", "created"]
    host.engine.status(NAME, "running")
    assert host.run(**options)["actions"] == ["stopped", "removed", "created"]
    assert host.engine.containers() == {NAME: "created"}


# Reloading.


def test_what_a_reload_prints_is_a_change(running):
    running.engine.answer("exec", NAME, "reload", out="reloaded\n")
    assert running.run(**DRAIN, reload=["reload", "--now"])["actions"] == ["reloaded"]
    assert running.engine.calls("exec")[-1] == ["exec", NAME, "reload", "--now"]
    running.engine.forget()
    assert running.run(**DRAIN, reload=["reload"])["actions"] == []


def test_a_reload_that_fails_is_said(running):
    running.engine.answer("exec", NAME, "reload", code=1, err="unknown directive")
    assert running.fail(**DRAIN, reload=["reload"]) == (
        f"{NAME} does not apply what has changed. Type docker logs {NAME} on the host to see more. (unknown directive)"
    )


# Draining, with nothing in its place.

DRAINED = {"state": "drained", "image": None, "drain": ["kill", "-QUIT", "1"], "drain_hours": 1}


def test_one_that_is_drained_is_set_aside_and_told_and_nothing_takes_its_place(running):
    aside = running.aside
    result = running.run(**DRAINED)
    assert result["actions"] == [f"set aside as {aside}", f"told {aside} to end"]
    assert (result["old"], result["replaced"]) == ([aside], True)
    assert result["diff"] == {"before": {"image": IMAGE, "state": "running"}, "after": {"state": "absent"}}
    assert running.engine.containers() == {aside: "running"}
    assert running.engine.container(aside)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert running.engine.container(aside)["Processes"][-1].endswith(" drain-3600")
    assert [*running.changes()] == ["update", "rename", "exec", "exec"]
    # It stays as long as it has something to do, and so do those that it had replaced.
    running.engine.forget()
    result = running.run(**DRAINED)
    assert (result["actions"], result["old"]) == ([], [aside])
    assert [*running.changes()] == []
    running.engine.status(aside, "exited")
    assert running.engine.state["images"] == {IMAGE: "sha256:one"}
    assert running.run(**DRAINED)["removed"] == [aside]
    assert running.engine.containers() == {}
    # Nothing uses its image any more.
    assert running.engine.state["images"] == {}
    assert running.run(**DRAINED)["changed"] is False


def test_one_that_is_wanted_again_runs_beside_the_drained_one(running):
    aside = running.aside
    running.run(**DRAINED)
    result = running.run(**DRAIN)
    assert (result["actions"], result["old"]) == (["created", "started"], [aside])
    assert running.engine.containers() == {aside: "running", NAME: "running"}


@pytest.mark.parametrize("died", ["update", "rename", "drain", "waiter"])
def test_a_run_that_died_amid_draining_is_made_up_for(running, died):
    aside = running.aside
    words = {"drain": ["exec", aside], "waiter": ["exec", "--detach"]}.get(died, [died])
    running.engine.answer(*words, code=1, err="died")
    running.fail(**DRAINED)
    running.engine.forget()
    assert running.run(**DRAINED)["actions"][-1] == f"told {aside} to end"
    assert running.engine.containers() == {aside: "running"}
    assert running.run(**DRAINED)["actions"] == []


def test_a_stopped_one_that_is_to_be_drained_is_removed(running):
    running.engine.status(NAME, "exited")
    assert running.run(**DRAINED)["actions"] == ["removed"]
    assert running.engine.containers() == {}


def test_where_there_is_no_docker_nothing_is_drained(host, monkeypatch):
    monkeypatch.setattr(host.module.AnsibleModule, "get_bin_path", lambda *_: None)
    assert host.run(**DRAINED)["changed"] is False


def test_check_mode_says_what_would_be_drained(running):
    aside = running.aside
    result = running.run(check=True, **DRAINED)
    assert (result["actions"], result["old"]) == ([f"set aside as {aside}"], [])
    assert result["msg"] == f"Would be done to {NAME}: set aside as {aside}."
    running.run(**DRAINED)
    assert running.run(check=True, **DRAINED)["actions"] == []


# Removing.


def test_absent_removes_it_and_those_that_were_set_aside(renewed):
    aside = renewed.aside
    renewed.run(**DRAIN)
    renewed.engine.forget()
    assert renewed.run(check=True, state="absent", image=None)["actions"] == [f"removed {NAME}", f"removed {aside}"]
    result = renewed.run(state="absent", image=None)
    assert result["removed"] == [NAME, aside]
    assert renewed.engine.containers() == {}
    assert [*renewed.changes()] == ["rm", "rm"]
    assert renewed.run(state="absent", image=None)["changed"] is False


# Check mode; that it changes nothing is seen by run() itself.


def test_check_mode_says_what_would_be_done(renewed):
    aside = renewed.aside
    result = renewed.run(check=True, **DRAIN)
    assert result["actions"] == [f"set aside as {aside}", "created", "started"]
    assert result["old"] == []
    assert result["msg"] == f"{NAME} would be replaced."
    assert renewed.run(check=True)["actions"] == ["stopped", "removed", "created", "started"]
    assert renewed.run(check=True, keep="Stay.")["kept"] == "Stay."
    renewed.run(**DRAIN)
    assert renewed.engine.container(aside)
    renewed.engine.forget()
    result = renewed.run(check=True, **{**DRAIN, "drain_hours": 2}, reload=["reload"])
    assert result["msg"] == f"Would be done to {NAME}: told {aside} to end."
    assert result["old"] == [aside]
    renewed.engine.status(aside, "exited")
    assert renewed.run(check=True, **DRAIN)["actions"] == [f"removed {aside}"]
    renewed.engine.status(NAME, "exited")
    assert renewed.run(check=True, **DRAIN)["actions"] == ["started", f"removed {aside}"]


def test_in_check_mode_the_image_may_be_missing(host):
    result = host.run(check=True, image="proxme-tunnel/nginx:2")
    assert result["msg"] == f"{NAME} would be run."
    assert host.run(check=True, started=False)["msg"] == f"{NAME} would be created."


# On the engine of this machine.


@pytest.fixture
def image(role_images) -> str:
    """Return an image with a shell."""
    return role_images["sshd"]


@pytest.fixture
def real(module, image) -> Iterator[Host]:
    """Return this machine, with a name for a container of its own, all of which are removed."""
    name = f"proxme-unit-container-{uuid.uuid4().hex[:8]}"

    class Real:
        labels = {"proxme.scenario": "unit"}  # noqa: RUF012

        def __init__(self) -> None:
            self.name = name

        def run(self, **options: object) -> dict:
            result = call(module, {"name": name, "image": image, "labels": self.labels, **options})
            assert not result.get("failed"), result["msg"]
            return result

        def docker(self, *arguments: str) -> str:
            return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()

        def inspect(self, name: str = name) -> dict:
            return json.loads(self.docker("container", "inspect", name))[0]

        def wait(self, what: str, name: str, status: str) -> None:
            deadline = time.monotonic() + 20
            while self.inspect(name)["State"]["Status"] != status:
                assert time.monotonic() < deadline, what
                time.sleep(0.1)

    yield Real()
    call(module, {"name": name, "state": "absent"})
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", f"--filter=name=^{name}"], capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""


# Its last work is a file; TERM ends it, which the first process of a container hears only if it asks to.
SERVE = ["sh", "-c", "trap 'exit 0' TERM; touch /tmp/work /tmp/serving; while :; do sleep 0.1; done"]
WORKS = {
    "command": SERVE,
    "network": "none",
    "tmpfs": ["/tmp:size=1m"],
    "drain": ["touch", "/tmp/told"],
    "busy": ["test", "-e", "/tmp/work"],
    "ready": ["test", "-e", "/tmp/serving"],
}


def test_the_old_one_really_ends_with_its_last_work(real):
    assert real.run(**WORKS)["actions"] == ["created", "started"]
    assert real.run(**WORKS)["actions"] == []
    identity = real.inspect()["Id"]
    result = real.run(**WORKS, env={"OTHER": "yes"})
    (aside,) = result["old"]
    assert aside == f"{real.name}-old-{identity[:8]}"
    assert real.inspect()["State"]["Status"] == "running"
    assert real.inspect()["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert real.inspect(aside)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    real.docker("exec", aside, "test", "-e", "/tmp/told")
    again = real.run(**WORKS, env={"OTHER": "yes"})
    assert (again["actions"], again["old"]) == ([], [aside])
    assert real.inspect(aside)["State"]["Status"] == "running"
    real.docker("exec", aside, "rm", "/tmp/work")
    real.wait("it ends with its last work", aside, "exited")
    last = real.run(**WORKS, env={"OTHER": "yes"})
    assert (last["actions"], last["removed"]) == ([f"removed {aside}"], [aside])


def test_the_old_one_really_ends_when_its_hours_are_over(real):
    real.run(**WORKS)
    (aside,) = real.run(**WORKS, env={"OTHER": "yes"})["old"]
    hours = 1.5 / 3600
    assert real.run(**WORKS, env={"OTHER": "yes"}, drain_hours=hours)["actions"] == [f"told {aside} to end"]
    real.wait("it ends with its hours", aside, "exited")


def test_one_that_is_drained_really_ends_with_its_last_work(real):
    real.run(**WORKS)
    drained = {"state": "drained", "drain": WORKS["drain"], "busy": WORKS["busy"]}
    (aside,) = real.run(**drained)["old"]
    real.docker("exec", aside, "test", "-e", "/tmp/told")
    assert real.run(**drained)["changed"] is False
    real.docker("exec", aside, "rm", "/tmp/work")
    real.wait("it ends with its last work", aside, "exited")
    assert real.run(**drained)["removed"] == [aside]
    assert real.docker("ps", "--all", "--quiet", f"--filter=name=^{real.name}") == ""


def test_its_limits_are_really_set(real, tmp_path):
    real.run(
        command=SERVE,
        user="65532:33",
        hostname="here",
        ports=["127.0.0.1::2222"],
        volumes=[f"{tmp_path}:/given:ro"],
        tmpfs=["/tmp:mode=1777,size=1m"],
        capabilities=["NET_BIND_SERVICE"],
        sysctls={"net.ipv4.ip_unprivileged_port_start": 0},
        dns=["127.0.0.53"],
        dns_search=["."],
        hosts={"other": "192.0.2.1"},
        ulimits=["nofile:1024:1024"],
        processes=16,
        memory="32m",
        stop_signal="SIGKILL",
        init=True,
    )
    shown = real.inspect()
    config, told = shown["HostConfig"], shown["Config"]
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert [capability.removeprefix("CAP_") for capability in config["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert (config["Memory"], config["MemorySwap"], config["PidsLimit"]) == (2**25, 2**25, 16)
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert told["Healthcheck"] == {"Test": ["NONE"]}
    assert (told["User"], told["Hostname"], told["StopSignal"]) == ("65532:33", "here", "SIGKILL")
    status = real.docker("exec", real.name, "cat", "/proc/self/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000400" in status


def test_a_shared_network_is_really_shared(real):
    """Docker keeps the id of the other container, so another one of the name means to start again."""
    holder = f"{real.name}-holder"
    try:
        real.run(name=holder, command=SERVE, network="none", tmpfs=["/tmp"])
        joined = {"command": SERVE, "network": f"container:{holder}", "tmpfs": ["/tmp"]}
        real.run(**joined)
        assert real.inspect()["HostConfig"]["NetworkMode"] == f"container:{real.inspect(holder)['Id']}"
        assert real.run(**joined)["actions"] == []
        real.run(name=holder, command=SERVE, network="none", tmpfs=["/tmp"], env={"OTHER": "yes"}, stop_signal="KILL")
        assert real.run(**joined)["replaced"] is True
    finally:
        real.run(name=holder, state="absent")


def test_a_name_that_is_taken_by_a_leftover_is_really_freed(real, module, monkeypatch):
    """The first look doesn't show it."""
    real.run(**WORKS, started=False)
    found = module.Runner.inspect
    monkeypatch.setattr(
        module.Runner, "inspect", lambda self, *names: [] if names == (real.name,) else found(self, *names)
    )
    assert real.run(**WORKS)["actions"] == ["created", "started"]
