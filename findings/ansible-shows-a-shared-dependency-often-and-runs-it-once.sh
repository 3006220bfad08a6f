#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: ansible-core 2.19.14, of PyPI.
#
# Guess: three roles of a play have different tags and depend on one role, whose only task is tagged "always". Each hands
# its tag down, so there are three different copies of the dependency (--list-tasks shows three, each with its own tag),
# and a run makes all three.
#
# Seen: it runs once, by whichever role comes first; also where --tags chooses the last role alone, of whose forerunners
# nothing else runs. Where `when` skips the first role, the second one's copy runs instead. So what a dependency registers
# is there for all, for the price of one run, and the list says otherwise.
#
# Output seen:
#   listed: 3
#   run: 1
#   run with --tags c: 1
#   run where the first role is skipped: 1

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install ansible-core==2.19.14

for role in a b c; do
    mkdir -p "roles/$role/tasks" "roles/$role/meta"
    printf -- '---\ndependencies:\n  - role: base\n' >"roles/$role/meta/main.yml"
    printf -- '---\n- ansible.builtin.debug:\n    msg: role %s\n' "$role" >"roles/$role/tasks/main.yml"
done
mkdir -p roles/base/tasks
printf -- '---\n- name: Look\n  ansible.builtin.debug:\n    msg: looked\n  tags: always\n' >roles/base/tasks/main.yml
cat >play.yml <<'END'
---
- hosts: localhost
  gather_facts: false
  roles:
    - role: a
      tags: a
      when: first | default(true) | bool
    - role: b
      tags: b
    - role: c
      tags: c
END

play() {
    ANSIBLE_NOCOLOR=1 ANSIBLE_LOCALHOST_WARNING=false venv/bin/ansible-playbook play.yml "$@" 2>/dev/null
}

listed=$(play --list-tasks | grep -c 'base : Look')
run=$(play | grep -c '"msg": "looked"')
tagged=$(play --tags c | grep -c '"msg": "looked"')
skipped=$(play -e first=false | grep -c '"msg": "looked"')
echo "listed: $listed"
echo "run: $run"
echo "run with --tags c: $tagged"
echo "run where the first role is skipped: $skipped"
[ "$listed $run $tagged $skipped" = "3 1 1 1" ]
