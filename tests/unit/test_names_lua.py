# SPDX-License-Identifier: GPL-3.0-or-later
"""names.lua, which the resolver and nginx share: what is a name, and which address it has.

Runs under lupa's LuaJIT with the system's libcrypto, as it does in the containers.
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
import string
from pathlib import Path

import lupa.luajit21
import pytest

NAMES_LUA = Path(__file__).resolve().parents[2] / "roles/tunnel_network/files/names.lua"


@pytest.fixture(scope="module")
def names():
    """Return the Lua module's table."""
    runtime = lupa.luajit21.LuaRuntime()
    return runtime.execute(NAMES_LUA.read_text())


def some_names(count: int) -> list[str]:
    """Return valid names of all lengths, the same ones in every run."""
    draw = random.Random(3)
    found = ["a", "blog", "guest-x", "x" * 63]
    while len(found) < count:
        length = draw.randint(1, 63)
        name = draw.choice(string.ascii_lowercase) + "".join(
            draw.choices(string.ascii_lowercase + string.digits + "-", k=length - 1)
        )
        if "--" not in name and not name.endswith("-"):
            found.append(name)
    return found


def test_an_address_is_fd74_and_the_first_14_bytes_of_the_names_sha_256(names):
    for name in some_names(400):
        digest = hashlib.sha256(name.encode()).digest()
        assert ipaddress.ip_address(names.address(name)).packed == b"\xfd\x74" + digest[:14], name


@pytest.mark.parametrize("name", ["a", "z9", "blog", "guest-x", "a-b-c", "a1-2-3b", "x" * 63])
def test_one_label_of_letters_digits_and_single_hyphens_is_a_name(names, name):
    assert names.valid(name)


def test_generated_names_are_names(names):
    assert [name for name in some_names(400) if not names.valid(name)] == []


@pytest.mark.parametrize(
    "label",
    [
        "",
        "8080",
        "0x7f",
        "1blog",
        "-blog",
        "blog-",
        "a--b",
        "guest-x--local",
        "Blog",
        "BLOG",
        "a.b",
        "blog.",
        ".",
        "*",
        "a_b",
        "a b",
        " blog",
        "blog ",
        "blog\n",
        "blog\0",
        "bl\0og",
        "blög",
        "a:b",
        "a/b",
        "a%41",
        "::1",
        "x" * 64,
    ],
)
def test_anything_else_is_no_name(names, label):
    assert not names.valid(label)
