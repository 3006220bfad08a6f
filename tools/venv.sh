#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes .venv with what requirements-dev.txt pins: tools/venv.sh [PYTHON]
set -eu
python=${1:-python3}

fail() {
    echo "$*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "There is no $python here. Install Python 3.11 or newer, or name it: make PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: 3.11 or newer is needed. Name another: make PYTHON=python3.12"

# Debian packs this part of Python by itself.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || fail "$python can't make virtual environments: it lacks the module venv or ensurepip."
    sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing python3-venv"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        apt-get install -o Acquire::http::Pipeline-Depth=0 -o Acquire::Retries=5 -y -qq --no-install-recommends python3-venv >/dev/null
fi

"$python" -m venv --clear .venv
# uv installs in seconds what pip takes a minute for; where it can't (its certificates aren't the system's), pip does.
echo "installing the tools of requirements-dev.txt into .venv"
pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"
}
if ! pip install uv || ! .venv/bin/uv pip install --quiet --no-cache --python .venv/bin/python -r requirements-dev.txt; then
    pip install --requirement requirements-dev.txt
fi
touch .venv/ready
