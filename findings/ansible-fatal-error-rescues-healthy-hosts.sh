#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ansible-core 2.19.14 (PyPI), any_errors_fatal together with a block that has a rescue.
# Guess: the rescue is for the host whose task failed. The other host, where the task went well, goes on with the block,
#   or the play ends for both.
# Seen: both hosts leave the block and run its rescue, the one without a failure too: it undoes what went well. Both go
#   on after it, the run ends with 0, and the recap counts a rescue for the failed host alone.
# Output seen: "rest of the block: none", "rescue: bad good", "after it: bad good", "rescued in the recap: bad".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ansible-core==2.19.14
export HOME=$work ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_STDOUT_CALLBACK=default LC_ALL=C.UTF-8
export ANSIBLE_PYTHON_INTERPRETER=$work/venv/bin/python

cat >"$work/play.yml" <<'YAML'
- name: Change two hosts
  hosts: all
  connection: local
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Change, or put back
      block:
        - name: Change
          ansible.builtin.command: "{{ 'false' if inventory_hostname == 'bad' else 'true' }}"
        - name: Rest
          ansible.builtin.debug:
            msg: "rest: {{ inventory_hostname }}"
      rescue:
        - name: Put back
          ansible.builtin.debug:
            msg: "rescue: {{ inventory_hostname }}"
    - name: Go on
      ansible.builtin.debug:
        msg: "after: {{ inventory_hostname }}"
YAML
code=0
"$work/venv/bin/ansible-playbook" -i bad,good, "$work/play.yml" >"$work/log" 2>&1 || code=$?

# The hosts that printed the word.
hosts() { sed -n "s/.*\"msg\": \"$1: \(.*\)\".*/\1/p" "$work/log" | sort | paste -sd' '; }
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: ${3:-none}"
}
expect "exit code" 0 "$code"
expect "rest of the block" "" "$(hosts rest)"
expect rescue "bad good" "$(hosts rescue)"
expect "after it" "bad good" "$(hosts after)"
expect "rescued in the recap" bad "$(sed -n 's/^\([a-z]*\) .*rescued=1.*/\1/p' "$work/log")"
