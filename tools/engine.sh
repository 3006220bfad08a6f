#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Sees to it that a Docker engine answers, and that base images can be had. A running engine is never touched.
set -eu

fail() {
    echo "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] && sudo='' || sudo=sudo

# install WHAT PACKAGE...: WHAT is for the message. A package that this release doesn't have is left out.
install() {
    if ! [ -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then
        fail "$1 is missing, and this script installs it on Debian and Ubuntu only. Install it yourself, then try again."
    fi
    [ -z "$sudo" ] || command -v sudo >/dev/null || fail "$1 is missing; run this as root, or install sudo."
    shift
    echo "installing $*"
    $sudo apt-get update -qq
    for package in "$@"; do
        shift
        if apt-cache show "$package" >/dev/null 2>&1; then
            set -- "$@" "$package"
        fi
    done
    $sudo env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        apt-get install -o Acquire::http::Pipeline-Depth=0 -o Acquire::Retries=5 -y -qq --no-install-recommends "$@" >/dev/null
}

answers() {
    docker info >/dev/null 2>&1
}

await_engine() {
    deadline=$(($(date +%s) + 60))
    until answers; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            docker info 2>&1 | tail -3 >&2
            fail "No Docker engine answers after 60 s. $1"
        fi
        sleep 0.2
    done
}

if ! answers; then
    if ! command -v dockerd >/dev/null; then
        # From Debian 13 on the command line is a package of its own.
        install "A Docker engine" docker.io docker-cli iptables ca-certificates
    fi
    if answers; then
        :
    elif [ -d /run/systemd/system ]; then
        $sudo systemctl enable --now --quiet docker
        await_engine "If it runs (systemctl status docker), you may not be allowed to use it: sudo usermod -aG docker $(id -un), then log in again."
    else
        log=/var/log/dockerd.log
        echo "starting dockerd; it writes to $log"
        $sudo sh -c "setsid dockerd >>$log 2>&1 </dev/null &"
        await_engine "See $log."
    fi
fi

# Without an image registry the base images are made from Debian's packages.
if ! command -v mmdebstrap >/dev/null && ! timeout 60 docker pull --quiet debian:trixie-slim >/dev/null 2>&1; then
    install "mmdebstrap, needed as the engine reaches no image registry" mmdebstrap
fi
