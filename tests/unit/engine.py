# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Docker's engine: a `docker` command that keeps its state in a JSON file and records every call.

A test makes an Engine, which puts the command into a folder for the PATH. The command is this very file, run as a
program; Engine.run does the same without a process, which is much faster. The state is {"images": {name: id},
"containers": [as `docker container inspect` shows them, and their "Processes"], "calls": [[argument, ...], ...],
"answers": [see Engine.answer]}.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

State = dict
# Options of `docker create` that take no value.
FLAGS = ("--read-only", "--no-healthcheck", "--init")


class Engine:
    """The test's side."""

    def __init__(self, folder: Path) -> None:
        """Put a `docker` without images and containers into a folder."""
        self.folder = folder
        self.file = folder / "state.json"
        self.file.write_text(json.dumps({"images": {}, "containers": [], "calls": [], "answers": []}))
        self.command = folder / "docker"
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{self.file}" "$@"\n')
        self.command.chmod(0o755)

    @contextmanager
    def changed(self) -> Iterator[State]:
        """Hand the state out, and keep what was made of it."""
        state = json.loads(self.file.read_text())
        yield state
        self.file.write_text(json.dumps(state))

    @property
    def state(self) -> State:
        """The state as it is."""
        return json.loads(self.file.read_text())

    def image(self, name: str, identity: str) -> None:
        """Have an image, or have it again under another id."""
        with self.changed() as state:
            state["images"][name] = identity

    def container(self, name: str) -> dict | None:
        """Return a container, or nothing."""
        return find(self.state, name)

    def containers(self) -> dict[str, str]:
        """Return the status of each container by its name."""
        return {one["Name"][1:]: one["State"]["Status"] for one in self.state["containers"]}

    def status(self, name: str, status: str) -> None:
        """Let a container be in another state."""
        with self.changed() as state:
            set_status(find(state, name), status)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Do what the command does; return how it ends, what it prints, and its errors."""
        return perform(self.file, list(arguments))

    def answer(self, *start: str, code: int = 0, out: str = "", err: str = "", times: int = -1, ends: str = "") -> None:
        """Answer calls that start with these words in this way, so often (-1: always); a container may end with it."""
        with self.changed() as state:
            answer = {"start": start, "code": code, "out": out, "err": err, "times": times, "ends": ends}
            state["answers"].insert(0, answer)

    def calls(self, *start: str) -> list[list[str]]:
        """Return the calls that start with these words."""
        return [call for call in self.state["calls"] if call[: len(start)] == list(start)]

    def forget(self) -> None:
        """Forget all calls, and all answers that were asked for."""
        with self.changed() as state:
            state["calls"], state["answers"] = [], []


# The program's side.


class Refused(Exception):  # noqa: N818
    """What Docker says instead of doing it, and what it prints all the same."""

    def __init__(self, said: str, out: str = "") -> None:
        """Refuse."""
        super().__init__(said)
        self.out = out


def find(state: State, name: str) -> dict | None:
    """Return the container of a name or an id."""
    for one in state["containers"]:
        if one["Name"] == f"/{name}" or one["Id"].startswith(name):
            return one
    return None


def need(state: State, name: str) -> dict:
    """Return the container of a name or an id, or refuse."""
    found = find(state, name)
    if found is None:
        raise Refused(f"Error response from daemon: No such container: {name}")
    return found


def set_status(one: dict, status: str) -> None:
    """Let a container be in a state."""
    one["State"] = {"Status": status, "Running": status in ("running", "restarting", "paused")}
    if not one["State"]["Running"]:
        one["Processes"] = []


def options_of(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Split arguments into the options' values by their names, and the rest from the first that is none."""
    options: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name = rest.pop(0)
        options.setdefault(name, []).append("" if name in FLAGS else rest.pop(0))
    return options, rest


def image(state: State, arguments: list[str]) -> str:
    """`docker image inspect --format {{.Id}} NAME`."""
    if arguments[0] == "prune":
        return prune(state)
    name = arguments[-1]
    if name not in state["images"]:
        raise Refused(f"Error response from daemon: No such image: {name}")
    return state["images"][name]


def prune(state: State) -> str:
    """`docker image prune --all --force --filter …`: removes what no container uses."""
    used = {one["Config"]["Image"] for one in state["containers"]}
    state["images"] = {name: identity for name, identity in state["images"].items() if name in used}
    return ""


def pull(state: State, arguments: list[str]) -> str:
    """`docker pull --quiet NAME`: there is no registry."""
    raise Refused(f"Error response from daemon: pull access denied for {arguments[-1]}")


def container(state: State, arguments: list[str]) -> str:
    """`docker container inspect NAME...`, as JSON, or whether it runs."""
    if "--format" in arguments:
        return str(need(state, arguments[-1])["State"]["Running"]).lower()
    found = {name: find(state, name) for name in arguments[1:]}
    missing = [name for name, one in found.items() if one is None]
    shown = json.dumps([one for one in found.values() if one])
    if missing:
        raise Refused("\n".join(f"Error response from daemon: No such container: {name}" for name in missing), shown)
    return shown


def ps(state: State, arguments: list[str]) -> str:
    """`docker ps --all --filter name=PATTERN --format '{{.State}} {{.Names}}'`."""
    options, _ = options_of([argument for argument in arguments if argument != "--all"])
    pattern = options["--filter"][0].removeprefix("name=")
    shown = [one for one in state["containers"] if re.search(pattern, one["Name"])]
    return "\n".join(f"{one['State']['Status']} {one['Name'][1:]}" for one in shown)


def create(state: State, arguments: list[str]) -> str:
    """`docker create OPTION... IMAGE COMMAND...`."""
    options, rest = options_of(arguments)
    (name,) = options["--name"]
    taken = find(state, name)
    if taken:
        raise Refused(
            f'Error response from daemon: Conflict. The container name "/{name}" is already in use by container '
            f'"{taken["Id"]}". You have to remove (or rename) that container to be able to reuse that name.'
        )
    # It says itself how many there have been, so that each has an id of its own.
    number = len(state["calls"])
    one = {
        "Id": f"{number:08x}" * 8,
        "Name": f"/{name}",
        "Image": state["images"][rest[0]],
        "Config": {
            "Image": rest[0],
            "Cmd": rest[1:],
            "Labels": dict(label.split("=", 1) for label in options.get("--label", [])),
        },
        "HostConfig": {"RestartPolicy": {"Name": options["--restart"][0]}},
    }
    set_status(one, "created")
    state["containers"].append(one)
    return one["Id"]


def start(state: State, arguments: list[str]) -> str:
    """`docker start NAME`."""
    set_status(need(state, arguments[0]), "running")
    return arguments[0]


def stop(state: State, arguments: list[str]) -> str:
    """`docker stop NAME`."""
    set_status(need(state, arguments[0]), "exited")
    return arguments[0]


def rm(state: State, arguments: list[str]) -> str:
    """`docker rm --force NAME`."""
    state["containers"].remove(need(state, arguments[-1]))
    return arguments[-1]


def rename(state: State, arguments: list[str]) -> str:
    """`docker rename NAME OTHER`."""
    need(state, arguments[0])["Name"] = f"/{arguments[1]}"
    return ""


def update(state: State, arguments: list[str]) -> str:
    """`docker update --restart POLICY NAME`."""
    need(state, arguments[-1])["HostConfig"]["RestartPolicy"]["Name"] = arguments[1]
    return arguments[-1]


def needs_running(state: State, name: str) -> dict:
    """Return a container that runs, or refuse."""
    one = need(state, name)
    if not one["State"]["Running"]:
        raise Refused(f"Error response from daemon: Container {one['Id']} is not running")
    return one


def top(state: State, arguments: list[str]) -> str:
    """`docker top NAME -eo pid,args`."""
    shown = needs_running(state, arguments[0]).get("Processes", [])
    return "\n".join(["PID COMMAND", *(f"{number} {line}" for number, line in enumerate(shown, 1))])


def execute(state: State, arguments: list[str]) -> str:
    """`docker exec [--detach] NAME COMMAND...`; what is detached stays."""
    detached = arguments[0] == "--detach"
    name, *command = arguments[1:] if detached else arguments
    one = needs_running(state, name)
    if detached:
        one["Processes"].append(" ".join(command))
    return ""


def logs(state: State, arguments: list[str]) -> str:
    """`docker logs NAME`."""
    need(state, arguments[0])
    return ""


COMMANDS: dict[str, Callable[[State, list[str]], str]] = {
    "image": image,
    "container": container,
    "ps": ps,
    "pull": pull,
    "create": create,
    "start": start,
    "stop": stop,
    "rm": rm,
    "rename": rename,
    "update": update,
    "top": top,
    "exec": execute,
    "logs": logs,
}


def perform(file: Path, arguments: list[str]) -> tuple[int, str, str]:
    """Do what a call says, or answer it as the test has asked for; return code, output and errors."""
    state = json.loads(file.read_text())
    state["calls"].append(arguments)
    try:
        for answer in state["answers"]:
            if answer["times"] and arguments[: len(answer["start"])] == answer["start"]:
                answer["times"] -= 1
                if answer["ends"]:
                    set_status(need(state, answer["ends"]), "exited")
                return answer["code"], answer["out"], answer["err"]
        printed = COMMANDS[arguments[0]](state, arguments[1:])
    except Refused as refused:
        return 1, refused.out, f"{refused}\n"
    else:
        return 0, f"{printed}\n" if printed else "", ""
    finally:
        file.write_text(json.dumps(state))


if __name__ == "__main__":
    ended, out, err = perform(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(ended)
