#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ansible-core 2.19.14 (PyPI), `meta: end_host`, `end_batch` and `end_play` after a task that notified.
# Guess: the host did not fail, so a handler that was notified before runs at the end of the play, as it does elsewhere.
# Seen: with each of the three the handler never runs, and nothing says so. The next run finds nothing changed and does
#   not notify again: the service goes on with what it was started with. `meta: end_role` leaves the handler to the end.
# Output seen: "end_host: 0", "end_batch: 0", "end_play: 0", "end_role: 1" (how often the handler ran).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ansible-core==2.19.14
export HOME=$work ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_STDOUT_CALLBACK=default LC_ALL=C.UTF-8
export ANSIBLE_PYTHON_INTERPRETER=$work/venv/bin/python

mkdir -p "$work/roles/service/tasks" "$work/roles/service/handlers"
cat >"$work/roles/service/tasks/main.yml" <<'YAML'
- name: Change the configuration
  ansible.builtin.command: /bin/true
  changed_when: true
  notify: Restart the service
- name: Leave early
  ansible.builtin.meta: noop
YAML
cat >"$work/roles/service/handlers/main.yml" <<'YAML'
- name: Restart the service
  ansible.builtin.debug:
    msg: it was restarted
YAML
cat >"$work/play.yml" <<'YAML'
- name: Set a service up
  hosts: localhost
  connection: local
  gather_facts: false
  roles: [service]
YAML
# How often the handler runs when the role leaves early in this way, which cannot be a variable.
restarts() {
  sed -i "s/meta: .*/meta: $1/" "$work/roles/service/tasks/main.yml"
  "$work/venv/bin/ansible-playbook" -i localhost, "$work/play.yml" >"$work/log" 2>&1 || return
  grep -q 'changed=[1-9]' "$work/log" || return
  grep -c 'it was restarted' "$work/log" || true
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
for way in end_host end_batch end_play; do
  expect "$way" 0 "$(restarts "$way")"
done
expect end_role 1 "$(restarts end_role)"
