#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ansible-core 2.19.14 (PyPI), the parameter `validate` of copy, template and lineinfile with --check.
# Guess: --check has the new file at hand and changes nothing by validating it, so it runs `validate` and fails where a
#   real run would refuse the file.
# Seen: --check never runs it. It says "changed" for a file that the real run then refuses.
# Output seen, of copy, template and lineinfile: "with --check: changed changed changed validations 0" and
#   "without: failed failed failed validations 3".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ansible-core==2.19.14
export HOME=$work ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_STDOUT_CALLBACK=default LC_ALL=C.UTF-8
export ANSIBLE_PYTHON_INTERPRETER=$work/venv/bin/python WORK=$work

# Refuses every file, and counts.
cat >"$work/refuse" <<'SHELL'
#!/bin/sh
echo "$1" >>"$WORK/validations"
exit 1
SHELL
chmod +x "$work/refuse"
echo 'a new line' >"$work/file.j2"
echo 'an old line' >"$work/lines"
cat >"$work/play.yml" <<'YAML'
- name: Write files that are refused
  hosts: localhost
  connection: local
  gather_facts: false
  vars:
    folder: "{{ lookup('ansible.builtin.env', 'WORK') }}"
  tasks:
    - name: Copy
      ansible.builtin.copy:
        content: a new line
        dest: "{{ folder }}/copied"
        mode: "0644"
        validate: "{{ folder }}/refuse %s"
      register: copied
      ignore_errors: true
    - name: Template
      ansible.builtin.template:
        src: "{{ folder }}/file.j2"
        dest: "{{ folder }}/templated"
        mode: "0644"
        validate: "{{ folder }}/refuse %s"
      register: templated
      ignore_errors: true
    - name: Line
      ansible.builtin.lineinfile:
        path: "{{ folder }}/lines"
        line: a new line
        validate: "{{ folder }}/refuse %s"
      register: lined
      ignore_errors: true
    - name: Say what came of it
      ansible.builtin.debug:
        msg: >-
          came: {% for result in [copied, templated, lined] -%}
          {{ 'failed' if result is failed else 'changed' if result is changed else 'same' }}{{ ' ' }}
          {%- endfor %}
YAML
outcome() {
  rm -f "$work/validations"
  touch "$work/validations"
  "$work/venv/bin/ansible-playbook" -i localhost, "$@" "$work/play.yml" >"$work/log" 2>&1
  echo "$(sed -n 's/.*"msg": "came: \(.*\)".*/\1/p' "$work/log")validations $(wc -l <"$work/validations")"
}
expect() {
  if [ "$2" != "$3" ]; then
    echo "changed: $1: \"$2\" was seen, now \"$3\"" >&2
    exit 1
  fi
  echo "$1: $3"
}
expect "with --check" "changed changed changed validations 0" "$(outcome --check)"
expect "without" "failed failed failed validations 3" "$(outcome)"
