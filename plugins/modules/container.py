#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a container, and replaces it beside the old one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container
short_description: Runs a container, and replaces it without dropping a connection
version_added: 0.1.0
author: The proxme.tunnel maintainers (!UNKNOWN)
description:
  - Runs a hardened container by the C(docker) command on the host. Its root is read-only, it has no capabilities but
    those in O(capabilities), gains no new privileges, and has no health check, not even one of the image's own.
  - A label, C(proxme-tunnel.made-of), holds the hash of what the container was made from. These are the options
    from O(image) to O(restart), the id of the image, and the id of the container whose network it shares. A container
    that was made from something else is replaced.
  - With O(drain), one that runs is replaced beside itself. It is renamed to C(NAME-old-ID) and is not started again
    when it ends. The new one starts. Once that is ready, the old one is told to take nobody new. It ends with its last
    connection, or when O(drain_hours) are over.
  - Without O(drain), the container is stopped (as C(docker stop) does it) and removed, and the new one is started.
  - A run that died between any two steps is made up for by the next one. Containers that were set aside and have ended
    are removed.
options:
  name:
    description: Name of the container.
    type: str
    required: true
  state:
    description:
      - V(drained) lets it end as one that was replaced ends, with O(drain) and O(drain_hours), and runs nothing in its
        place. It is set aside, takes nobody new, and is removed by a later run once it has ended.
      - V(absent) removes the container at once, and those that were set aside.
    type: str
    choices: [present, drained, absent]
    default: present
  image:
    description:
      - Full name of the image. Required with O(state=present).
      - It has to be there, as it is not pulled. In check mode it may be missing.
    type: str
  command:
    description: Command and its arguments. Empty means the image's own.
    type: list
    elements: str
    default: []
  network:
    description: A network, or C(container:NAME) to share the network namespace of another container.
    type: str
    default: bridge
  labels:
    description: Labels. The module adds its own, C(proxme-tunnel.made-of), and C(proxme-tunnel.ports) if it has ports.
    type: dict
    default: {}
  env:
    description: Variables of its environment. Nothing secret, as C(docker inspect) shows them.
    type: dict
    default: {}
  user:
    description: User, or C(USER:GROUP), names or numbers. Empty means the image's own.
    type: str
    default: ""
  groups:
    description: Further groups of that user, names or numbers.
    type: list
    elements: str
    default: []
  hostname:
    description: Host name in the container. Empty means Docker's choice.
    type: str
    default: ""
  ports:
    description:
      - Published ports as C(docker create --publish) takes them, such as V(2222:2222), V(127.0.0.1:9123:9123),
        V(443:443/udp) or V(30000-30009:30000-30009).
      - Without an address it is all addresses, of IPv4 and IPv6.
    type: list
    elements: str
    default: []
  volumes:
    description: Volumes and folders of the host, as C(docker create --volume) takes them.
    type: list
    elements: str
    default: []
  tmpfs:
    description: File systems in memory, as C(docker create --tmpfs) takes them.
    type: list
    elements: str
    default: []
  capabilities:
    description: Capabilities that it has. All others are dropped.
    type: list
    elements: str
    default: []
  sysctls:
    description: Kernel parameters of its namespaces.
    type: dict
    default: {}
  dns:
    description: Addresses of its name servers.
    type: list
    elements: str
    default: []
  dns_search:
    description: Its search domains. A dot means none.
    type: list
    elements: str
    default: []
  hosts:
    description: Addresses in its /etc/hosts, by name.
    type: dict
    default: {}
  ulimits:
    description: Limits of each process, such as V(nofile:1024:1024).
    type: list
    elements: str
    default: []
  processes:
    description: How many processes it may have.
    type: int
    default: 512
  memory:
    description: How much memory it may have, with a unit such as V(256m). It has no swap beyond that.
    type: str
    default: 256m
  stop_signal:
    description: Signal that C(docker stop) sends. Empty means the image's own.
    type: str
    default: ""
  init:
    description: Whether Docker's own first process runs in it, which hands signals on.
    type: bool
    default: false
  log:
    description: Whether Docker keeps what it prints, in three files of 10 MB.
    type: bool
    default: true
  restart:
    description: When Docker starts it again. V(unless-stopped) is whenever it ends, and when the engine starts.
    type: str
    choices: [unless-stopped, "no"]
    default: unless-stopped
  started:
    description:
      - Whether it runs. With V(false) it is only created, for somebody else to start, and it does not matter whether it
        runs.
    type: bool
    default: true
  ready:
    description:
      - Command that succeeds in the container once it serves. It is waited for up to 30 seconds, in each run. Only
        then others are drained.
      - Not for a program that can't serve before the old one is drained.
    type: list
    elements: str
    default: []
  ready_log:
    description:
      - Text in the container's log that says that it serves. It is waited for up to 30 seconds, where the container
        was started or another one has to be drained.
    type: str
    default: ""
  reload:
    description:
      - Command that is run in the container once it is ready, in each run. It has to find out by itself whether there
        is something to do, and print something if it did. Then the task has changed something.
    type: list
    elements: str
    default: []
  drain:
    description:
      - Command that is run in a container that was replaced. It takes nobody new then, and ends with its last
        connection. The image needs C(sh) for what ends it when its hours are over.
      - Empty means that the container is stopped and started again.
    type: list
    elements: str
    default: []
  busy:
    description:
      - For a program that does not end by itself. Command that is run in the replaced container each second, and
        succeeds while that still has something to do. After that it is ended.
    type: list
    elements: str
    default: []
  drain_hours:
    description: Hours after which a container that was replaced ends in any case.
    type: float
    default: 168
  keep:
    description:
      - Not empty where a container that runs has to stay although another one is wanted. It is the sentence that says
        what to do about it, which is returned as RV(kept).
    type: str
    default: ""
  keep_unless_ports:
    description: Whether other O(ports) are a reason to replace the container although O(keep) is set.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would be done, and changes nothing. O(ready) and O(reload) are not run.
    support: full
  diff_mode:
    description: Shows the image and the state of the container.
    support: full
"""

EXAMPLES = r"""
- name: Run nginx, and let an old one finish what it has begun
  proxme.tunnel.container:
    name: proxme-tunnel-nginx
    image: proxme-tunnel/nginx:0123456789ab
    network: container:proxme-tunnel-network
    labels: {proxme-tunnel: joined}
    volumes: [/etc/proxme-tunnel/nginx_subdomains:/etc/proxme-tunnel:ro]
    tmpfs: ["/tmp:mode=1777,size=16m"]
    ready: [test, -e, /tmp/serving]
    reload: [reload]
    drain: [kill, -QUIT, "1"]
    drain_hours: 24

- name: Run a container that is only replaced when the operator says so
  proxme.tunnel.container:
    name: proxme-tunnel-network
    image: proxme-tunnel/holder:0123456789ab
    ports: [127.0.0.1:2222:2222]
    capabilities: [NET_ADMIN]
    stop_signal: SIGKILL
    keep: It would be another one now, and that would end all tunnels once.

- name: Let nginx finish what it has begun, and run none any more
  proxme.tunnel.container:
    name: proxme-tunnel-nginx
    state: drained
    drain: [kill, -QUIT, "1"]
    drain_hours: 24

- name: Remove nginx, and those that it has replaced
  proxme.tunnel.container:
    name: proxme-tunnel-nginx
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, in this order.
  returned: success
  type: list
  elements: str
  sample:
    - set aside as proxme-tunnel-nginx-old-0a1b2c3d
    - created
    - started
    - told proxme-tunnel-nginx-old-0a1b2c3d to end
replaced:
  description: Whether another container of this name ran before.
  returned: success
  type: bool
old:
  description: Names of the containers that were set aside and still run.
  returned: success
  type: list
  elements: str
  sample: [proxme-tunnel-nginx-old-0a1b2c3d]
removed:
  description: Names of the containers that were removed, as they had been set aside and have ended.
  returned: success
  type: list
  elements: str
kept:
  description: The sentence in O(keep) if another container is wanted and was not run for that reason, else empty.
  returned: success
  type: str
"""

import json
import re
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils import containers

# Seconds that a new container has to get ready, and those between two looks.
READY = 30
LOOK = 0.1
# Seconds in which Docker has to make up its mind about a container that is ending, and those between two tries.
ENDING = 5
TRY = 1


class Found:
    """A container that is there, as `docker container inspect` shows it."""

    def __init__(self, shown: dict[str, Any]) -> None:
        """Take what is of interest."""
        labels = shown["Config"].get("Labels") or {}
        self.identity: str = shown["Id"]
        self.name: str = shown["Name"].lstrip("/")
        self.image: str = shown["Config"]["Image"]
        self.status: str = shown["State"]["Status"]
        # Also of one that Docker is about to start again.
        self.running: bool = shown["State"]["Running"]
        self.restart: str = shown["HostConfig"]["RestartPolicy"]["Name"] or "no"
        self.made_of: str = labels.get(containers.MADE_OF, "")
        self.ports: str = containers.ports_label(labels.get(containers.PORTS, "").split())

    @property
    def usable(self) -> bool:
        """Whether it could be started; Docker may have failed to remove it, or be about to."""
        return self.status not in ("dead", "removing")


class Runner:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        """Begin with nothing done."""
        self.module = module
        self.wanted = module.params
        self.name: str = module.params["name"]
        self.docker = module.get_bin_path("docker")
        self.actions: list[str] = []
        self.old: list[str] = []
        self.removed: list[str] = []
        self.kept = ""
        self.replaced = False
        self.before: dict[str, str] = {"state": "absent"}
        self.after: dict[str, str] = {"state": "absent"}

    # Docker.

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run docker; return how it ended, what it printed, and its errors."""
        # Nothing in an argument is a variable of ours, as $left in the waiter.
        return self.module.run_command([self.docker, *arguments], expand_user_and_vars=False)

    def fail(self, sentence: str, said: str = "") -> NoReturn:
        """Fail with a sentence, and what Docker said; and say what was done before."""
        said = " ".join(said.split())
        self.module.fail_json(msg=f"{sentence} ({said})" if said else sentence, **self.result())

    def must(self, sentence: str, *arguments: str) -> str:
        """Run docker and return what it printed; fail with a sentence if it ends badly."""
        code, out, err = self.run(*arguments)
        if code:
            self.fail(sentence, err or out)
        return out

    def inspect(self, *names: str) -> list[Found]:
        """Return those containers that are there."""
        code, out, err = self.run("container", "inspect", *names)
        if code and "no such container" not in err.lower():
            self.fail("Docker does not say which containers there are; see whether it runs.", err)
        return [Found(shown) for shown in json.loads(out or "[]")]

    def runs(self, name: str) -> bool:
        """Whether a container runs."""
        _code, out, err = self.run("container", "inspect", "--format", "{{.State.Running}}", name)
        # What can't be asked may run.
        return out.strip() != "false" and "no such container" not in err.lower()

    def set_aside(self) -> list[tuple[str, str]]:
        """Return state and name of the containers that were set aside."""
        pattern = f"^/?{re.escape(self.name)}-old-"
        listed = self.must(
            "Docker does not list its containers; see whether it runs.",
            *("ps", "--all", "--filter", f"name={pattern}", "--format", "{{.State}} {{.Names}}"),
        )
        found = [(line.split()[0], line.split()[1]) for line in listed.splitlines()]
        return sorted(entry for entry in found if containers.is_set_aside(self.name, entry[1]))

    def remove(self, *names: str) -> None:
        """Remove containers at once; their volumes stay."""
        deadline = time.monotonic() + READY
        while True:
            code, out, err = self.run("rm", "--force", *names)
            if not code or "no such container" in err.lower():
                return
            # Docker may be at it already.
            if "already in progress" not in err or time.monotonic() > deadline:
                self.fail(f"{' and '.join(names)} can't be removed.", err or out)
            time.sleep(TRY)

    # What is wanted.

    def image_id(self) -> str:
        """Return the id of the image; nothing if it is not there, which only check mode lets pass."""
        image = self.wanted["image"]
        inspect = ("image", "inspect", "--format", "{{.Id}}", image)
        code, out, err = self.run(*inspect)
        if not code:
            return out.strip()
        if "no such image" not in err.lower():
            self.fail("Docker does not say which images there are; see whether it runs.", err)
        if self.module.check_mode:
            return ""
        code, out, err = self.run("pull", "--quiet", image)
        if code:
            self.fail(
                f"{self.name} can't be run, as its image {image} is neither there nor can it be fetched. See whether "
                "the name is right, and whether the host reaches the registry.",
                err or out,
            )
        return self.must(f"The image {image} was fetched and is not there.", *inspect).strip()

    # The steps.

    def absent(self) -> None:
        """Remove the container, and those that were set aside."""
        if self.docker is None:
            return
        found = self.inspect(self.name)
        if found:
            self.before = {"image": found[0].image, "state": found[0].status}
        names = [one.name for one in found] + [name for state, name in self.set_aside()]
        if names:
            self.actions += [f"removed {name}" for name in names]
            self.removed += names
            if not self.module.check_mode:
                # One call for each, or one that is gone would hide that another one stays.
                for name in names:
                    self.remove(name)

    def drained(self) -> None:
        """Let the container end with its last connection, and run nothing in its place."""
        if self.docker is None:
            return
        old = self.set_aside()
        for found in self.inspect(self.name):
            self.before = {"image": found.image, "state": found.status}
            self.replaced = found.running
            self.clear(found)
        self.tell_all(self.untold([name for state, name in old if state == "running"]))
        self.tidy([name for state, name in old if state != "running"])
        if self.removed and not self.module.check_mode:
            self.remove_images()

    def present(self) -> None:
        """Run the container that is wanted, and let others end."""
        wanted = self.wanted
        self.after = {"image": wanted["image"], "state": "running" if wanted["started"] else "created"}
        if self.docker is None:
            if not self.module.check_mode:
                self.fail(f"{self.name} can't be run, as there is no docker command on this host. Install Docker.")
            self.actions += ["created", "started"] if wanted["started"] else ["created"]
            return
        image_id = self.image_id()
        holder_name = containers.holder_of(wanted["network"])
        there = self.inspect(self.name, *([holder_name] if holder_name else []))
        found = next((one for one in there if one.name == self.name), None)
        holder = next((one for one in there if one.name != self.name), None)
        if holder_name and not holder and not self.module.check_mode:
            self.fail(f"{self.name} can't be run, as there is no container {holder_name}, whose network it shares.")
        options = containers.create_options(wanted)
        made_of = containers.made_of(
            options, wanted["image"], wanted["command"], image_id, holder.identity if holder else ""
        )
        create = ["create", "--name", self.name, "--label", f"{containers.MADE_OF}={made_of}", *options]
        create += [wanted["image"], *wanted["command"]]
        old = self.set_aside()
        if found:
            self.before = {"image": found.image, "state": found.status}

        right = found is not None and found.usable and found.made_of == made_of
        running = found is not None and found.running
        if right:
            self.mend_restart(found)
        elif found and found.status == "running" and self.has_to_stay(found):
            self.kept = wanted["keep"]
            self.after = dict(self.before)
        else:
            if found:
                self.replaced = found.running
                self.clear(found)
            self.create(create)
            running = False
        if wanted["started"]:
            started = not running
            if started:
                self.actions.append("started")
                if not self.module.check_mode:
                    self.must(f"{self.name} can't be started.", "start", self.name)
            self.let_end([name for state, name in old if state == "running"], started)
        self.tidy([name for state, name in old if state != "running"])
        # When a holder is replaced, the images of those that join it may be there and not yet used.
        holder = wanted["labels"].get("proxme-tunnel") == "holder"
        if (self.removed or "removed" in self.actions) and not holder and not self.module.check_mode:
            self.remove_images()

    def has_to_stay(self, found: Found) -> bool:
        """Whether one that runs stays although another one is wanted."""
        if not self.wanted["keep"]:
            return False
        return not self.wanted["keep_unless_ports"] or found.ports == containers.ports_label(self.wanted["ports"])

    def mend_restart(self, found: Found) -> None:
        """Put the restart policy right: a run may have died when it had begun to set the container aside."""
        if found.restart != self.wanted["restart"]:
            self.actions.append(f"restarts {self.wanted['restart']}")
            if not self.module.check_mode:
                self.must(
                    f"The restart policy of {self.name} can't be set.",
                    *("update", "--restart", self.wanted["restart"], self.name),
                )

    def clear(self, found: Found) -> None:
        """Make room for another container of the name."""
        if found.status == "running" and self.wanted["drain"] and self.wanted["started"]:
            aside = containers.set_aside_name(self.name, found.identity)
            if self.module.check_mode or self.move(aside):
                self.actions.append(f"set aside as {aside}")
                # In check mode it still has its own name.
                self.old += [] if self.module.check_mode else [aside]
                return
            # It has ended, so there is nothing to stop.
        elif found.running:
            self.actions.append("stopped")
            if not self.module.check_mode:
                # In its own time. If it can't be, it is removed all the same.
                self.run("stop", self.name)
        self.actions.append("removed")
        if not self.module.check_mode:
            self.remove(self.name)

    def move(self, aside: str) -> bool:
        """Set the present container aside. False if it has ended meanwhile, as its namespace did.

        It is not started again, and the unit that starts containers after a boot knows it by its name. One that has
        ended has nobody left who would have to be waited for; one that was started again can be set aside.
        """
        deadline = time.monotonic() + ENDING
        while True:
            code, out, err = self.run("update", "--restart", "no", self.name)
            if not code:
                code, out, err = self.run("rename", self.name, aside)
            if not code:
                return True
            if not self.runs(self.name):
                return False
            if time.monotonic() > deadline:
                self.fail(f"{self.name} can't be set aside.", err or out)
            time.sleep(TRY)

    def create(self, command: list[str]) -> None:
        """Create the container."""
        self.actions.append("created")
        if self.module.check_mode:
            return
        deadline = time.monotonic() + ENDING
        while True:
            code, out, err = self.run(*command)
            if not code:
                return
            # Docker knows the name of one that it has made or removed by half.
            taken = re.search(r'already in use by container "?([0-9a-f]+)', err)
            if not taken or time.monotonic() > deadline or any(one.running for one in self.inspect(taken[1])):
                self.fail(f"{self.name} can't be created.", err or out)
            self.remove(taken[1])
            time.sleep(LOOK)

    def let_end(self, running: list[str], started: bool) -> None:
        """Wait until the container serves, apply what has changed, and let those that were set aside end."""
        untold = self.untold(running)
        if not self.module.check_mode:
            self.wait(started or bool(untold), untold)
        self.tell_all(untold)
        if self.wanted["reload"] and not self.module.check_mode:
            self.reload()

    def untold(self, running: list[str]) -> list[str]:
        """Return those of the containers that were set aside that don't know when to end."""
        told = {name: self.is_told(name, self.wanted["drain_hours"]) for name in running + self.old}
        self.old = [name for name, known in told.items() if known is not None]
        return [name for name, known in told.items() if known is False]

    def tell_all(self, untold: list[str]) -> None:
        """Let containers that were set aside end with their last connection."""
        for name in untold:
            if self.module.check_mode or self.tell(name, self.wanted["drain_hours"]):
                self.actions.append(f"told {name} to end")
            else:
                self.old.remove(name)

    def is_told(self, name: str, hours: float) -> bool | None:
        """Whether a container that was set aside knows when to end. None if it has ended meanwhile."""
        code, out, err = self.run("top", name, "-eo", "pid,args")
        if not code:
            return containers.has_waiter(out, hours)
        if "is not running" not in err and "no such container" not in err.lower():
            self.fail(f"It can't be seen whether {name} knows when to end.", err or out)
        return None

    def wait(self, needed: bool, untold: list[str]) -> None:
        """Wait until the container serves."""
        looks = [self.look_inside] if self.wanted["ready"] else []
        # A log is not kept for ever, so it is only read where it matters.
        looks += [self.look_at_log] if self.wanted["ready_log"] and needed else []
        deadline = time.monotonic() + READY
        for look in looks:
            while True:
                served, said = look()
                if served:
                    break
                if time.monotonic() > deadline:
                    goes_on = f" {' and '.join(untold)} went on, so nothing was lost." if untold else ""
                    self.fail(
                        f"{self.name} does not serve {READY} seconds after it was asked for. Type docker logs "
                        f"{self.name} on the host to see why.{goes_on}",
                        said,
                    )
                time.sleep(LOOK)

    def look_inside(self) -> tuple[bool, str]:
        """Ask the container whether it serves; return what it says besides."""
        code, out, err = self.run("exec", self.name, *self.wanted["ready"])
        return not code, err or out

    def look_at_log(self) -> tuple[bool, str]:
        """Look into the container's log whether it serves; return what Docker says if it shows none."""
        code, out, err = self.run("logs", self.name)
        served = not code and (self.wanted["ready_log"] in out or self.wanted["ready_log"] in err)
        return served, err if code else ""

    def tell(self, name: str, hours: float) -> bool:
        """Let a container take nobody new, and end with its last connection or when the time is over.

        False if it has ended meanwhile. One that is idle may end at the first word, and Docker says many things of one
        that is ending.
        """
        deadline = time.monotonic() + ENDING
        while True:
            code, out, err = self.run("exec", name, *self.wanted["drain"]) if self.wanted["drain"] else (0, "", "")
            if not code:
                code, out, err = self.run("exec", "--detach", name, *containers.waiter(hours, self.wanted["busy"]))
            if not code:
                return True
            if not self.runs(name):
                return False
            if time.monotonic() > deadline:
                self.fail(f"{name} can't be told to end with its last connection.", err or out)
            time.sleep(TRY)

    def reload(self) -> None:
        """Let the container apply what has changed."""
        code, out, err = self.run("exec", self.name, *self.wanted["reload"])
        if code:
            self.fail(
                f"{self.name} does not apply what has changed. Type docker logs {self.name} on the host to see more.",
                err or out,
            )
        if out.strip():
            self.actions.append("reloaded")

    def tidy(self, ended: list[str]) -> None:
        """Remove those that were set aside and have ended."""
        for name in ended:
            self.actions.append(f"removed {name}")
            self.removed.append(name)
            if not self.module.check_mode:
                self.remove(name)

    def remove_images(self) -> None:
        """Remove those images of ours that no container uses any more."""
        # The role tunnel_network removes the holders': the newest one may wait for its holder.
        filters = ("--filter", "label=proxme-tunnel", "--filter", "label!=proxme-tunnel=holder")
        self.must("Images that nothing uses any more can't be removed.", "image", "prune", "--all", "--force", *filters)

    def forecast(self) -> str:
        """Say what would be done."""
        if "created" not in self.actions:
            return f"Would be done to {self.name}: {', '.join(self.actions)}."
        if self.before["state"] != "absent":
            return f"{self.name} would be replaced."
        return f"{self.name} would be {'run' if self.wanted['started'] else 'created'}."

    def result(self) -> dict[str, Any]:
        """Return what the module returns."""
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "old": self.old,
            "removed": self.removed,
            "kept": self.kept,
            "replaced": self.replaced,
        }


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "default": []}
    pairs = {"type": "dict", "default": {}}
    word = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "drained", "absent"], "default": "present"},
            "image": {"type": "str"},
            "network": {"type": "str", "default": "bridge"},
            **dict.fromkeys(("labels", "env", "sysctls", "hosts"), pairs),
            **dict.fromkeys(("user", "hostname", "stop_signal", "ready_log", "keep"), word),
            **dict.fromkeys(("command", "ports", "volumes", "tmpfs", "capabilities", "dns", "dns_search"), words),
            **dict.fromkeys(("groups", "ulimits", "ready", "reload", "drain", "busy"), words),
            "processes": {"type": "int", "default": 512},
            "memory": {"type": "str", "default": "256m"},
            "init": {"type": "bool", "default": False},
            "log": {"type": "bool", "default": True},
            "restart": {"type": "str", "choices": ["unless-stopped", "no"], "default": "unless-stopped"},
            "started": {"type": "bool", "default": True},
            "drain_hours": {"type": "float", "default": 168},
            "keep_unless_ports": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    runner = Runner(module)
    {"present": runner.present, "drained": runner.drained, "absent": runner.absent}[module.params["state"]]()
    result = runner.result()
    if module.check_mode and result["actions"]:
        result["msg"] = runner.forecast()
    after = runner.after if result["actions"] else runner.before
    module.exit_json(**result, diff={"before": runner.before, "after": after})


if __name__ == "__main__":
    main()
