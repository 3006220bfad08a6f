#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a host holds, one thing a line: its files with their content's hash, accounts, packages, services, listening
# ports, links, routes, firewall rules, and what its Docker has. Two lists of a host that was left as it was found are the same.
# Left out is what changes by itself, and what Debian's packages of Docker leave behind when they are removed: a group,
# an empty folder, and until the next boot the bridge docker0 with the rules that lead to it.
set -u
find /etc /opt /root /srv /usr/local /var/lib /var/spool /home -xdev \
    \( -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/docker -o -path /var/lib/systemd \
       -o -path /var/lib/containerd -o -path /root/.ansible -o -path /root/.cache -o -name __pycache__ \
       -o -name '*-' -o -path /etc/ld.so.cache -o -path /etc/machine-id -o -path /var/lib/dbus \
       -o -path /var/lib/ucf -o -path /var/lib/pam -o -path /etc/cni \
       -o -path /etc/group -o -path /etc/gshadow \) -prune \
    -o -type f -exec sha256sum {} + -o -type d -printf 'folder %p\n' -o -printf 'other %p\n' | sort -k 2
sort /etc/passwd /etc/group | grep -v '^docker:' | sed 's/^/account /'
dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | grep '^ii' | sed 's/^ii */package /'
systemctl list-unit-files --state=enabled --no-legend --plain | sed 's/ .*//; s/^/enabled /'
# 127.0.0.11 is the outer engine's; it and containerd have new ports at each start.
ss -Hlntup | grep -v -e 127.0.0.11 -e '"containerd"' | awk '{ print "listens", $1, $5 }' | sort -u
ip -o link show | awk '{ print "link", $2 }' | sed 's/@.*//' | grep -v -e ' eth' -e ' veth' -e ' docker0:'
ip route show | grep -v 'dev docker0' | sed 's/^/route /; s/ *$//'
iptables-save 2>/dev/null | grep '^-A' | sed 's/^/rule /' |
    grep -v -E -e '127\.0\.0\.11|DOCKER_(OUTPUT|POSTROUTING)' \
        -e '-A (FORWARD|DOCKER-USER|DOCKER-ISOLATION-STAGE-[12]) |-j (DOCKER|RETURN)$|! -o docker0 -j MASQUERADE$'
if command -v docker >/dev/null; then
    docker ps --all --no-trunc --format 'container {{.ID}} {{.Names}} {{.Image}} {{.State}}'
    docker network ls --no-trunc --format 'network {{.Name}}' | grep -vE ' (bridge|host|none)$'
    docker volume ls --format 'volume {{.Name}}'
    docker images --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}'
fi
# The last command found nothing: that is no failure.
true
