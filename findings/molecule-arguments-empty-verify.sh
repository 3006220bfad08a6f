#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: molecule 26.10.0 with ansible-core 2.19.14 (both PyPI), `molecule test -- ARGUMENTS`.
# Guess: `molecule test -- --tags web` hands the tag to converge (and idempotence), and verify then checks the host as a
#   whole, as its tasks have no tags.
# Seen: verify gets the tag too. Of its tasks none is left, and a check that can only fail is "Executed: Successful".
# Output seen: "without arguments: failed, converge ran, verify ran" and "with -- --tags web: succeeded, converge ran".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ansible-core==2.19.14 molecule==26.10.0
export HOME=$work ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_STDOUT_CALLBACK=default LC_ALL=C.UTF-8
export PATH=$work/venv/bin:$PATH NO_COLOR=1 XDG_CACHE_HOME=$work/cache

mkdir -p "$work/project/molecule/default"
cd "$work/project"
cat >molecule/default/molecule.yml <<'YAML'
---
prerun: false
dependency: {name: galaxy, enabled: false}
driver: {name: default, options: {managed: false}}
platforms: [{name: localhost}]
provisioner:
  name: ansible
  inventory:
    host_vars:
      localhost: {ansible_connection: local}
scenario:
  test_sequence: [converge, verify]
YAML
cat >molecule/default/converge.yml <<'YAML'
- name: Converge
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Set the web server up
      ansible.builtin.debug: {msg: converge ran}
      tags: web
YAML
cat >molecule/default/verify.yml <<'YAML'
- name: Verify
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Check what does not hold
      ansible.builtin.assert: {that: false, fail_msg: verify ran}
YAML

expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
# Whether the run succeeded, and whether a task of converge and of verify ran.
outcome() {
  local end=succeeded playbook
  molecule test "$@" >"$work/log" 2>&1 || end=failed
  for playbook in converge verify; do
    ! grep -q "$playbook ran" "$work/log" || end+=", $playbook ran"
  done
  echo "$end"
}
expect "without arguments" "failed, converge ran, verify ran" "$(outcome)"
expect "with -- --tags web" "succeeded, converge ran" "$(outcome -- --tags web)"
