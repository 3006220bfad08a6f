#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ansible-core 2.19.14 (PyPI), the task keyword `timeout`.
# Guess: when the time is over, the command that the task runs is ended on the host as well as the task.
# Seen: the task fails ("Timed out after 1 second(s)."), the command goes on in the background and does all its work,
#   beside whatever a rescue or the next run does.
# Output seen: "when the task failed: absent", "some seconds later: there".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ansible-core==2.19.14
export HOME=$work ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_STDOUT_CALLBACK=default LC_ALL=C.UTF-8
export ANSIBLE_PYTHON_INTERPRETER=$work/venv/bin/python WORK=$work

cat >"$work/play.yml" <<'YAML'
- name: Run what takes long
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Take four seconds
      ansible.builtin.command: sh -c 'sleep 4; echo done >"$WORK/late"'
      timeout: 1
YAML
if "$work/venv/bin/ansible-playbook" -i localhost, "$work/play.yml" >"$work/log" 2>&1; then
  echo "changed: the task no longer fails" >&2
  exit 1
fi
grep -q 'Timed out after 1 second' "$work/log"

state() { if [ -e "$work/late" ]; then echo there; else echo absent; fi; }
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect "when the task failed" absent "$(state)"
# However slow the machine is.
for _ in $(seq 20); do
  [ ! -e "$work/late" ] || break
  sleep 1
done
expect "some seconds later" there "$(state)"
