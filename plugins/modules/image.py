#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Has one of the collection's own images, or one of somebody else's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Has an image, built or fetched
version_added: 0.1.0
author:
  - The proxme.tunnel maintainers (!UNKNOWN)
description:
  - With O(name) builds one of the collection's own images, unless it is there. The tag is a hash of all that it is made
    from, so an unchanged image is never built again and a changed one always is.
  - With O(pull) fetches an image from its registry, unless it is there.
  - Docker builds from its standard input. Nothing is left on the host but the image.
  - Other versions of an own image that no container uses any more are removed. That counts as a change only with
    O(state=absent), since what was asked for stays the same.
options:
  name:
    description: Name of an own image, without C(proxme-tunnel/) and the tag.
    type: str
  pull:
    description: Full name of somebody else's image.
    type: str
  base:
    description: Image that O(name) is built from, the Dockerfile's argument C(BASE).
    type: str
  folder:
    description:
      - Folder that holds the Dockerfile and all that it copies. It is read on the control node, below the role's
        C(files), and may have folders in it. What Python leaves there, C(__pycache__), does not count.
      - Of a file's mode only counts whether it can be executed.
    type: str
  args:
    description: Further arguments of the Dockerfile. Nothing secret, as an image's history shows them.
    type: dict
    default: {}
  upgrade:
    description:
      - Whether the image, or its base, is fetched again although it is there.
      - An own image is then built again without the engine's cache. It replaces the one that is there if it has
        another base or other packages of Debian's.
    type: bool
    default: false
  state:
    description:
      - V(present) has the image.
      - V(absent) removes every version of it that no container uses.
    type: str
    choices: [present, absent]
    default: present
  files:
    description: What O(folder) holds. It is filled in on the control node.
    type: list
    elements: dict
    suboptions:
      path:
        description: Path below the folder.
        type: str
        required: true
      mode:
        description: Its mode, as text.
        type: str
        required: true
      content:
        description: Its content, in Base64.
        type: str
        required: true
attributes:
  check_mode:
    description: >-
      Says what would change. Whether an upgrade would bring anything new is only known once it is done, so it says no.
    support: full
  diff_mode:
    description: There is nothing to see.
    support: none
"""

EXAMPLES = r"""
- name: Build sshd's image
  proxme.tunnel.image:
    name: sshd
    base: debian:trixie-slim
    folder: sshd
    upgrade: "{{ tunnel.upgrade }}"
  register: __sshd_tunnel_image

- name: Have Caddy's image
  proxme.tunnel.image:
    pull: caddy:2
    upgrade: "{{ tunnel.upgrade }}"

- name: Remove sshd's image
  proxme.tunnel.image:
    name: sshd
    state: absent
"""

RETURN = r"""
image:
  description: Full name of the image.
  returned: with O(state=present)
  type: str
  sample: proxme-tunnel/sshd:0123456789ab
removed:
  description: What was removed, each by its name, or by its ID if it had none any more.
  returned: always
  type: list
  elements: str
"""

import base64
import hashlib
import io
import json
import re
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proxme.tunnel.plugins.module_utils.daemon import DAEMON, read_object

SPEC = {
    "name": {"type": "str"},
    "pull": {"type": "str"},
    "base": {"type": "str"},
    "folder": {"type": "str"},
    "args": {"type": "dict", "default": {}},
    "upgrade": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {
        "type": "list",
        "elements": "dict",
        "options": {
            "path": {"type": "str", "required": True},
            "mode": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
        },
    },
}
# Docker builds by itself with this, whether or not its plugin buildx is there.
ENVIRONMENT = {"DOCKER_BUILDKIT": "0"}
# The exit code that stands for "there is no such program".
NO_DOCKER = 127
# In place of a proxy's user and password.
HIDDEN = "xxxxx:xxxxx@"
ROOT = Path("/")
# What Docker says of an image that a container uses, or another image is made from.
IN_USE = ("is using", "is being used", "has dependent child images")


class Answer(NamedTuple):
    """How a call of docker ended."""

    code: int
    output: str
    errors: str

    @property
    def lacks_image(self) -> bool:
        """Whether it says that an image is not there, and not that something is wrong."""
        return self.code != 0 and "no such image" in self.errors.lower()


class Version(NamedTuple):
    """One version of an own image: its ID, and its full name, with C(<none>) where it has none."""

    identity: str
    name: str

    @property
    def handle(self) -> str:
        """By what it is removed."""
        return self.identity if "<none>" in self.name else self.name


class Images:
    """The images of an engine, as a module needs them."""

    def __init__(self, module: AnsibleModule) -> None:
        """Speak to the engine for this module."""
        self.module = module
        self.removed: list[str] = []

    def end(self, changed: bool, image: str | None = None) -> None:
        """Answer."""
        self.module.exit_json(changed=changed, **({"image": image} if image else {}), **self.told())

    def fail(self, sentence: str) -> None:
        """End with what is wrong and what to do."""
        self.module.fail_json(msg=sentence, **self.told())

    def told(self) -> dict[str, Any]:
        """Return what is said in either case: without the content of any file."""
        shown = {name: value for name, value in self.module.params.items() if name != "files"}
        return {"removed": self.removed, "invocation": {"module_args": shown}}

    def ask(self, *words: str, data: bytes | None = None, environment: dict[str, str] | None = None) -> Answer:
        """Call docker; return how it ended. Without docker that is as if no engine answered."""
        try:
            return Answer(
                *self.module.run_command(
                    ["docker", *words],
                    data=data,
                    binary_data=True,
                    environ_update={**ENVIRONMENT, **(environment or {})},
                    expand_user_and_vars=False,
                    handle_exceptions=False,
                )
            )
        except OSError as error:
            return Answer(NO_DOCKER, "", f"docker: {error.strerror}")

    def tell(self, *words: str, data: bytes | None = None) -> str:
        """Call docker; return what it says, and fail if it ends badly."""
        answer = self.ask(*words, data=data)
        if answer.code:
            self.fail(f"docker {' '.join(words[:2])} failed: {answer.errors.strip() or answer.output.strip()}")
        return answer.output

    def is_silent(self, answer: Answer) -> bool:
        """Whether no engine answers where that is allowed; fail where it is not."""
        if answer.code == 0 or answer.lacks_image:
            return False
        # An engine may be installed before it comes to this; and without docker there is nothing to remove.
        if self.module.check_mode or (self.module.params["state"] == "absent" and answer.code == NO_DOCKER):
            return True
        self.fail(
            f"No Docker engine answers on this host ({answer.errors.strip()}). Start it (systemctl start docker), or "
            "let the role docker_engine install one."
        )
        return True

    def identity(self, image: str) -> str:
        """Return an image's ID, empty if it is not there."""
        answer = self.ask("image", "inspect", "--format", "{{ .Id }}", image)
        return "" if self.is_silent(answer) else answer.output.strip()

    def fetch(self, image: str) -> bool:
        """Fetch an image from its registry, and return whether that brought another one."""
        answer = self.ask("pull", image)
        if answer.code:
            other = ", or run site.yml, which takes the images that are there" if self.module.params["upgrade"] else ""
            self.fail(
                f"The image {image} cannot be fetched: {answer.errors.strip()}. What runs goes on. Look at the host's "
                f"way to the registry{other}."
            )
        return "Downloaded newer image" in answer.output

    def proxies(self) -> dict[str, str]:
        """Return the proxies that the engine pulls through, as programs in a build read them."""
        try:
            options = read_object(ROOT / DAEMON).get("proxies") or {}
        except ValueError as problem:
            self.fail(str(problem))
        told = json.loads(self.tell("info", "--format", "{{ json . }}"))
        fields = {"http": "HttpProxy", "https": "HttpsProxy", "no": "NoProxy"}
        found = {f"{kind}_proxy": options.get(f"{kind}-proxy") or told.get(field) for kind, field in fields.items()}
        # The engine shows no passwords. Docker itself gives builds what the file ~/.docker/config.json says.
        return {name: value for name, value in found.items() if value and HIDDEN not in value}

    def versions(self, name: str) -> list[Version]:
        """List the versions of an own image."""
        words = ["--no-trunc", "--filter", f"label=proxme-tunnel={name}"]
        answer = self.ask("image", "ls", *words, "--format", "{{ .ID }} {{ .Repository }}:{{ .Tag }}")
        lines = [] if self.is_silent(answer) else answer.output.splitlines()
        return [Version(*line.split(" ", 1)) for line in lines]

    def remove(self, versions: list[Version]) -> None:
        """Remove those that no container uses."""
        for version in versions:
            answer = self.ask("image", "rm", version.handle)
            if answer.code == 0:
                self.removed.append(version.handle)
            elif not answer.lacks_image and not any(words in answer.errors for words in IN_USE):
                self.module.warn(f"The image {version.handle} can't be removed: {answer.errors.strip()}")


class OwnImage:
    """One of the collection's own images."""

    def __init__(self, images: Images) -> None:
        """Take what it is made from out of the module's options."""
        options = images.module.params
        self.images = images
        self.name: str = options["name"]
        self.base: str = options["base"]
        self.args = {name: str(value) for name, value in options["args"].items()}
        self.files = sorted(options["files"], key=lambda file: file["path"])
        self.upgrade: bool = options["upgrade"]
        self.full = f"proxme-tunnel/{self.name}:{self.sum()}"

    def sum(self) -> str:
        """Return what stands for all that it is made from."""
        files = [[file["path"], file["mode"], file["content"]] for file in self.files]
        made_from = json.dumps([self.base, sorted(self.args.items()), files])
        return hashlib.sha256(made_from.encode()).hexdigest()[:12]

    def have(self) -> bool:
        """Build it if it has to be, and return whether it is another one now."""
        # The one call that an unchanged image costs, unless there are others to remove.
        versions = self.images.versions(self.name)
        is_there = self.full in [version.name for version in versions]
        if self.images.module.check_mode:
            return not is_there
        changed = False
        if self.upgrade or not is_there:
            changed = self.rebuild() if is_there else self.build(self.full)
            versions = self.images.versions(self.name)
        self.images.remove([version for version in versions if version.name != self.full])
        return changed

    def build(self, full: str) -> bool:
        """Build it by a name."""
        if self.upgrade or not self.images.identity(self.base):
            self.images.fetch(self.base)
        labels = {
            "proxme-tunnel": self.name,
            "proxme-tunnel.base": self.base,
            "proxme-tunnel.base-id": self.images.identity(self.base),
            "proxme-tunnel.built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        words = ["--tag", full, "--force-rm", *(["--no-cache"] if self.upgrade else [])]
        for option, values in (("--build-arg", {"BASE": self.base, **self.args}), ("--label", labels)):
            for name, value in values.items():
                words += [option, f"{name}={value}"]
        # By their names alone: they may have a password, and the environment is nobody else's to see.
        proxies = self.images.proxies()
        for name in proxies:
            words += ["--build-arg", name]
        answer = self.images.ask("build", *words, "-", data=self.context(), environment=proxies)
        if answer.code:
            # The end of what the steps have said tells why one failed.
            said = re.sub(r"\x1b\[[0-9;]*m", "", answer.output + answer.errors)
            said = "\n".join(said.strip().splitlines()[-30:])
            self.images.fail(
                f"The image {self.name} can't be built. What runs goes on. The end of what was said:\n{said}"
            )
        return True

    def rebuild(self) -> bool:
        """Build it although it is there; take the new one if it holds something else, and return whether it does."""
        candidate = f"proxme-tunnel/{self.name}:candidate"
        self.build(candidate)
        newer = self.holds(candidate) != self.holds(self.full)
        if newer:
            self.images.tell("tag", candidate, self.full)
        self.images.tell("image", "rm", candidate)
        return newer

    def holds(self, full: str) -> tuple[str, str]:
        """Return which base an image was built from, and its packages with their versions."""
        label = '{{ index .Config.Labels "proxme-tunnel.base-id" }}'
        return (
            self.images.tell("image", "inspect", "--format", label, full),
            self.images.tell(
                *("run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "dpkg-query", full, "--show")
            ),
        )

    def context(self) -> bytes:
        """Return the archive that Docker builds from."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in self.files:
                content = base64.b64decode(file["content"])
                member = tarfile.TarInfo(file["path"])
                member.size, member.mode = len(content), int(file["mode"], 8)
                archive.addfile(member, io.BytesIO(content))
        return packed.getvalue()


def have_foreign(images: Images, image: str) -> bool:
    """Fetch somebody else's image if it has to be, and return whether it is another one now."""
    is_there = images.identity(image) != ""
    if images.module.check_mode:
        return not is_there
    return (images.module.params["upgrade"] or not is_there) and images.fetch(image)


def remove_all(images: Images, name: str | None, foreign: str | None) -> bool:
    """Remove an image, and return whether something was, or would be, removed."""
    if name:
        versions = images.versions(name)
    else:
        versions = [Version(identity, foreign) for identity in [images.identity(foreign)] if identity]
    if images.module.check_mode:
        return bool(versions)
    images.remove(versions)
    return bool(images.removed)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("name", "pull"), ("pull", "base"), ("pull", "folder")],
        required_one_of=[("name", "pull")],
        required_together=[("base", "folder", "files")],
        # What it's made from is long, and stands in the checkout.
        no_log=True,
    )
    images = Images(module)
    options = module.params
    if options["state"] == "absent":
        images.end(remove_all(images, options["name"], options["pull"]))
    if options["pull"]:
        images.end(have_foreign(images, options["pull"]), options["pull"])
    if not options["base"]:
        images.fail(f"The image {options['name']} can't be built without base and folder.")
    own = OwnImage(images)
    images.end(own.have(), own.full)


if __name__ == "__main__":
    main()
