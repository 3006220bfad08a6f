# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that are not a fresh OpenSSH: libraries, old and hardened machines, full agents, odd ~/.ssh/config."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

import pytest
from world import Client, Visitor, Web, until

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "clients.md").read_text()
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()
# Valid, and each line does harm to a recipe that lets it count.
CONFIG = """
Host *
  ControlMaster auto
  ControlPath ~/.ssh/shared-%C
  ControlPersist yes
  ForkAfterAuthentication yes
  ExitOnForwardFailure no
  RemoteForward 52698 localhost:52698
  LocalForward 5000 localhost:5000
  RemoteCommand true
  RequestTTY force
  ServerAliveInterval 0
  User somebody
"""


# What the clients of hardened machines and older libraries offer, as ssh's options: all that they have of a kind.
FIPS_CIPHERS = "aes256-gcm@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr"
FIPS_MACS = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512"
MACHINES = {
    "RHEL 8 and 9, FIPS": {
        "KexAlgorithms": "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
        "diffie-hellman-group-exchange-sha256,diffie-hellman-group14-sha256,diffie-hellman-group16-sha512,"
        "diffie-hellman-group18-sha512",
        "Ciphers": FIPS_CIPHERS,
        "MACs": FIPS_MACS,
        "HostKeyAlgorithms": "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-256,rsa-sha2-512",
    },
    "Ubuntu, STIG": {
        "KexAlgorithms": "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
        "diffie-hellman-group-exchange-sha256",
        "Ciphers": "aes256-ctr,aes192-ctr,aes128-ctr",
        "MACs": "hmac-sha2-512,hmac-sha2-256",
        "HostKeyAlgorithms": "ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256",
    },
    "Net::SSH without X25519": {
        "KexAlgorithms": "ecdh-sha2-nistp521,ecdh-sha2-nistp384,ecdh-sha2-nistp256,"
        "diffie-hellman-group-exchange-sha256,diffie-hellman-group14-sha256",
        "Ciphers": "aes256-ctr,aes192-ctr,aes128-ctr",
        "MACs": "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512,hmac-sha2-256",
        "HostKeyAlgorithms": "ecdsa-sha2-nistp256,rsa-sha2-256,rsa-sha2-512",
    },
    "group16 alone": {"KexAlgorithms": "diffie-hellman-group16-sha512"},
    "no post-quantum": {"KexAlgorithms": "curve25519-sha256", "HostKeyAlgorithms": "ssh-ed25519"},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_hardened_or_old_machine_has_an_algorithm_of_each_kind_in_common(
    client: Client, web: Web, visitor: Visitor, domain: str, machine: str
) -> None:
    options = [f"-o{option}={listed}" for option, listed in MACHINES[machine].items()]
    with client.tunnel("8701", to=web, options=options):
        assert visitor.get(f"https://8701.{domain}/").status == 200


@pytest.mark.parametrize(
    ("option", "only", "words"),
    [
        ("KexAlgorithms", "ecdh-sha2-nistp256", "no matching key exchange method found. Their offer: mlkem768x25519"),
        ("Ciphers", "aes256-cbc", "no matching cipher found. Their offer: aes128-gcm"),
        ("MACs", "hmac-sha1", "no matching MAC found. Their offer: hmac-sha2-256-etm"),
        ("HostKeyAlgorithms", "ecdsa-sha2-nistp256", "no matching host key type found. Their offer: "),
    ],
)
def test_what_is_missing_is_told_in_the_words_that_the_documents_explain(
    client: Client, option: str, only: str, words: str
) -> None:
    # CBC has no MAC of its own, and AES-GCM none at all.
    said = client.ssh("-N", f"-o{option}={only}", *(["-oCiphers=aes256-ctr"] if option == "MACs" else [])).output
    assert words in said
    kind = words.partition("no matching ")[2].partition(" found")[0]
    assert f"`{kind}`" in TROUBLESHOOTING


@pytest.mark.parametrize("way", [["none"], ["password", ""], ["key"]], ids=" ".join)
def test_whatever_a_client_begins_with_lets_it_in(client: Client, domain: str, way: list[str]) -> None:
    """Many libraries never ask without a password or a key."""
    assert client.python("login.py", domain, *way).expect().stdout.endswith("\na tunnel is open\n")


def test_a_wrong_password_is_refused_and_the_banner_says_what_to_do(client: Client, domain: str) -> None:
    said = client.python("login.py", domain, "password", "guessed").expect().stdout
    assert "AuthenticationException: Authentication failed" in said
    assert "There is no password: leave it empty." in said


def test_a_full_agent_is_asked_to_its_last_key(another_client: Callable[..., Client]) -> None:
    """A forgotten user name is told as such, not as too many keys."""
    client = another_client()
    client.shell(
        "ssh-agent -a /run/agent >/run/agent.log && for n in $(seq 9); do "
        "ssh-keygen -q -t ed25519 -N '' -f /run/key$n && SSH_AUTH_SOCK=/run/agent ssh-add -q /run/key$n; done"
    ).expect()
    ssh = ["ssh", "-o", "BatchMode=yes", *client.options(), f"somebody@{client.host}"]
    said = client.exec(*ssh, env={"SSH_AUTH_SOCK": "/run/agent"}).output
    assert f"somebody@{client.host}: Permission denied (publickey)." in said


@pytest.mark.parametrize("address", ["", "*", "0.0.0.0", "127.0.0.1"])
def test_an_address_that_is_refused_is_one_that_banner_and_page_name(client: Client, address: str) -> None:
    """What libraries ask for unless they are told to say localhost. The protocol carries no reason."""
    refused = client.tunnel(f"{address}:8702:localhost:80", wait=False)
    assert refused.wait_ended() == 255
    assert refused.refused()
    listed = re.search(r"A library gives localhost as the address .*: (.*) are refused", refused.output)
    assert listed
    assert (address or '""') in re.split(r", | and ", listed[1])
    assert "`{}`".format(address or '""') in TROUBLESHOOTING.partition("### remote port forwarding failed")[2]


def recipes() -> dict[str, str]:
    """The commands that the page has for a tunnel for weeks, by the program that repeats them."""
    part = PAGE.partition("## Keep a tunnel for weeks")[2].replace("\\\n", " ")
    found = {
        "systemd": r"^    ExecStart=(.+)$",
        "autossh": r"^    (AUTOSSH_GATETIME=0 autossh .+)$",
        "shell": r"^    while true; do\n +(ssh .+)$",
        "Windows": r"^    while \(\$true\) \{\n +(ssh .+)$",
    }
    return {name: re.search(pattern, part, re.M)[1] for name, pattern in found.items()}


def test_each_recipe_holds_whatever_stands_in_the_users_configuration(
    another_client: Callable[..., Client], visitor: Visitor, domain: str
) -> None:
    client = another_client()
    client.shell("mkdir -m 700 ~/.ssh").expect()
    client.shell(f"ssh-keyscan -p 2222 -t ed25519 {domain} >~/.ssh/known_hosts").expect()
    client.write("/root/.ssh/config", CONFIG)
    client.spawn("web.py", "--port", "3000", "--name", "mine")
    # Another ssh of the user's, whose connection the recipes shall not share.
    client.shell(f"ssh -N -p 2222 tunnel@{domain} >/run/master.log 2>&1").expect()
    urls = {}
    for name, recipe in recipes().items():
        label = f"guest-{name.lower()}"
        urls[name] = f"https://{label}.{domain}/"
        command = recipe.replace("proxme.example.com", domain).replace("guest-x", label)
        # What autossh and systemd start is this one process, which has to stay.
        client.spawn("sh", "-c", f"echo $$ >/run/{name}.pid; exec env {command} </dev/null >/run/{name}.log 2>&1")
    for name, url in urls.items():
        until(f"{name}'s tunnel serves", lambda url=url: "Hello from mine." in visitor.get(url).body, within=20)
    for name in urls:
        assert client.shell(f"kill -TERM $(cat /run/{name}.pid)").code == 0, client.read(f"/run/{name}.log")
    for name, url in urls.items():
        until(f"{name}'s tunnel ends with it", lambda url=url: visitor.get(url).status == 404, within=10)
