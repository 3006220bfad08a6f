# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles are told of an inventory: with types and defaults, and what follows from several variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.proxme.tunnel.plugins.plugin_utils.settings import ALWAYS_RESERVED, LETS_ENCRYPT, read
from render import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "proxme.example"
HERE = Path("/where/it/was/started")
KEY = "ssh-ed25519 AAAA"


def told(**given: object) -> dict[str, Any]:
    """What the roles read with these variables, whether or not they could work."""
    return read({"tunnel_domain": DOMAIN, **given}, OPTIONS, HERE, refuse=False)


# --- types and defaults ----------------------------------------------------------------------------------------------


def test_without_further_variables_all_is_as_the_spec_says():
    shown = told()
    for name, option in OPTIONS.items():
        if not option.get("required") and not option.get("no_log") and name != "tunnel_guest_notice":
            assert shown[name.removeprefix("tunnel_")] == option["default"], name
            assert type(shown[name.removeprefix("tunnel_")]).__name__ == option["type"], name
    assert shown["domain"] == DOMAIN


def test_a_default_is_nobodys_to_change():
    told()["reserved_labels"].append("changed")
    assert told()["reserved_labels"] == ["www"]


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        # As -e gives them.
        ("ssh_port", "22", 22),
        ("shared_account", "false", False),
        ("shared_account", "yes", True),
        ("drain_hours", "0.5", 0.5),
        # One of digits is a number to YAML, a bare off is false, and nothing at all is null.
        ("blocked_names", [8080, "phish"], ["8080", "phish"]),
        ("body_limit", 0, "0"),
        ("tcp_ports", 30000, "30000"),
        ("tls", False, "off"),
        ("reserved_labels", None, ["www"]),
        ("ssh_port", None, 2222),
        ("guest_names", "", ""),
        ("blocked_names", "", []),
    ],
)
def test_a_value_has_the_type_of_the_spec(name, given, shown):
    found = told(**{f"tunnel_{name}": given})[name]
    assert found == shown
    assert type(found) is type(shown)


def test_an_account_has_all_that_it_may_have():
    (account,) = told(tunnel_accounts=[{"name": "alice", "tcp_ports": ["30001"]}])["accounts"]
    given = {"name": "alice", "tcp_ports": [30001]}
    assert {name: value for name, value in account.items() if value} == given
    assert set(account) == set(OPTIONS["tunnel_accounts"]["options"])


def test_a_key_of_an_account_without_a_value_is_as_if_it_were_not_there():
    """Such as `names:` above lines that are commented out."""
    empty = dict.fromkeys(OPTIONS["tunnel_accounts"]["options"]) | {"name": "alice"}
    assert told(tunnel_accounts=[empty]) == told(tunnel_accounts=[{"name": "alice"}])


def test_secrets_are_not_among_the_settings():
    """They would be shown by -vvv."""
    secret = "S3cret"
    shown = told(
        tunnel_dns_settings={"api_token": secret},
        tunnel_acme_eab={"key_id": "x", "mac_key": secret},
        tunnel_acme_fallback_eab={"key_id": "x", "mac_key": secret},
        tunnel_backup_passphrase=secret,
    )
    assert secret not in json.dumps(shown)
    assert {name for name, option in OPTIONS.items() if option.get("no_log")} == {
        *("tunnel_dns_settings", "tunnel_acme_eab", "tunnel_acme_fallback_eab", "tunnel_backup_passphrase")
    }


# --- paths -----------------------------------------------------------------------------------------------------------


def test_a_relative_path_begins_where_the_playbook_was_started(monkeypatch):
    """Ansible's own tests, lookups and modules begin in different folders."""
    monkeypatch.setenv("HOME", "/home/me")
    given = {
        "tunnel_sites": ["sites/", "/srv/sites", "~/sites"],
        "tunnel_revoked_keys": "./revoked",
        "tunnel_certificate_file": "own/fullchain.pem",
        "tunnel_certificate_key_file": "own/key.pem",
        "tunnel_acme_fallback_ca_root": "~/root.pem",
        "tunnel_backup_file": "backup/x.vault",
        "tunnel_backup_folder": "backup",
    }
    shown = told(**given)
    assert shown["sites"] == [f"{HERE}/sites", "/srv/sites", "/home/me/sites"]
    assert shown["revoked_keys"] == f"{HERE}/revoked"
    assert shown["certificate_file"] == f"{HERE}/own/fullchain.pem"
    assert shown["certificate_key_file"] == f"{HERE}/own/key.pem"
    assert shown["acme_fallback_ca_root"] == "/home/me/root.pem"
    assert shown["acme_ca_root"] == ""
    assert (shown["backup_file"], shown["backup_folder"]) == (f"{HERE}/backup/x.vault", f"{HERE}/backup")
    there = told(**given, tunnel_certificate_on_host=True)
    assert (there["certificate_file"], there["certificate_key_file"]) == ("own/fullchain.pem", "own/key.pem")


# --- certificates ----------------------------------------------------------------------------------------------------

# By mode: whether there is one certificate for all names, and whether each name has one.
MODES = {
    "on_demand": (False, True),
    "wildcard": (True, False),
    "both": (True, False),
    "files": (False, False),
    "internal": (False, True),
    "off": (False, True),
}


@pytest.mark.parametrize("by_caddy", [pytest.param(False, id="certbot"), pytest.param(True, id="Caddy")])
@pytest.mark.parametrize("mode", MODES)
def test_one_asks_for_the_wildcard_and_nobody_where_there_is_none(mode, by_caddy):
    wildcard, each = MODES[mode]
    shown = told(tunnel_tls=mode, tunnel_dns_provider="cloudflare", tunnel_dns_by_caddy=by_caddy)
    assert shown["by_certbot"] == (wildcard and not by_caddy)
    assert shown["by_caddy_dns"] == (wildcard and by_caddy)
    assert shown["certificate_each"] == each


LETS_ENCRYPTS = "acme-v02.api.letsencrypt.org-directory"


@pytest.mark.parametrize(
    ("given", "asked", "folders"),
    [
        ({"tunnel_tls": "on_demand"}, True, [LETS_ENCRYPTS]),
        ({"tunnel_tls": "both"}, True, [LETS_ENCRYPTS]),
        ({"tunnel_tls": "internal"}, True, ["local"]),
        ({"tunnel_tls": "wildcard"}, False, []),
        ({"tunnel_tls": "wildcard", "tunnel_dns_by_caddy": True}, False, [LETS_ENCRYPTS]),
        ({"tunnel_tls": "files"}, False, []),
        ({"tunnel_tls": "off"}, False, []),
        (
            {
                "tunnel_acme_directory": " https://CA.lan:14000/dir/",
                "tunnel_acme_fallback_directory": "https://[fd00::1]/acme/acme/directory",
            },
            True,
            ["ca.lan-14000-dir", "fd00--1-acme-acme-directory"],
        ),
    ],
)
def test_caddy_keeps_certificates_by_who_gave_them(given, asked, folders):
    shown = told(**given)
    assert (shown["certificate_asked"], shown["certificate_folders"]) == (asked, folders)


def test_certbot_is_told_its_plugin_of_the_provider():
    shown = told(tunnel_tls="wildcard", tunnel_dns_provider="cloudflare")
    assert (shown["certbot_plugin"], shown["certbot_authenticator"]) == ("certbot-dns-cloudflare", "dns-cloudflare")
    # For this one we have our own.
    shown = told(tunnel_tls="wildcard", tunnel_dns_provider="rfc2136")
    assert (shown["certbot_plugin"], shown["certbot_authenticator"]) == ("/opt/dns-update", "dns-update")


@pytest.mark.parametrize("mode", MODES)
def test_an_authority_of_ones_own_counts_nothing(mode):
    given = {"tunnel_certificates_per_day": 3, "tunnel_certificates_per_week": 0, "tunnel_acme_directory": LETS_ENCRYPT}
    shown = told(tunnel_tls=mode, **given)
    if mode == "internal":
        assert shown["certificate_authority"] == "internal"
        assert shown["certificate_budget"] == {"day": 1_000_000, "week": 1_000_000}
    else:
        assert shown["certificate_authority"] == LETS_ENCRYPT
        assert shown["certificate_budget"] == {"day": 3, "week": 0}


@pytest.mark.parametrize(
    ("mode", "directory", "own"),
    [
        ("on_demand", LETS_ENCRYPT, False),
        ("on_demand", "https://ca.lan:14000/dir", True),
        ("wildcard", "https://acme-staging-v02.api.letsencrypt.org/directory", True),
        ("internal", LETS_ENCRYPT, True),
        ("files", "https://ca.lan:14000/dir", False),
        ("off", "https://ca.lan:14000/dir", False),
    ],
)
def test_browsers_know_not_every_authority(mode, directory, own):
    assert told(tunnel_tls=mode, tunnel_acme_directory=directory)["own_authority"] == own


# --- names and accounts ----------------------------------------------------------------------------------------------


def test_who_and_what_is_blocked_is_told_as_it_is_written():
    names, addresses = ["phish", "8666"], ["192.0.2.1", "2001:db8::/32"]
    shown = told(tunnel_blocked_names=names, tunnel_blocked_addresses=addresses)
    assert (shown["blocked_names"], shown["blocked_addresses"]) == (names, addresses)


def test_some_labels_are_always_reserved():
    assert told()["reserved"] == [*ALWAYS_RESERVED, "www"]
    assert told(tunnel_reserved_labels=["public", "mail"])["reserved"] == [*ALWAYS_RESERVED, "mail"]
    assert {"localhost", "public", "proxme-tunnel-network"} <= set(ALWAYS_RESERVED)


def test_guests_are_those_of_the_shared_account():
    shown = told(tunnel_guest_notice=True)
    assert (shown["guests"], shown["guest_notice"], shown["anyone_takes_ports"]) == ("guest-*", True, True)
    shown = told(tunnel_guest_notice=True, tunnel_shared_account=False, tunnel_port_labels=False)
    # Every account of its own may take ports.
    assert (shown["guests"], shown["guest_notice"], shown["anyone_takes_ports"]) == ("", False, True)
    assert told(tunnel_port_labels=False)["anyone_takes_ports"] is False


@pytest.mark.parametrize(
    ("given", "is_open"),
    [
        ({}, True),
        ({"tunnel_shared_account_keys": [KEY]}, False),
        ({"tunnel_shared_account": False}, False),
        ({"tunnel_shared_account": False, "tunnel_shared_account_keys": [KEY]}, False),
    ],
)
def test_it_is_open_where_no_key_is_asked_for(given, is_open):
    assert told(**given)["open"] is is_open


@pytest.mark.parametrize(
    ("given", "forward"),
    [
        ({}, "8080:localhost:80"),
        ({"tunnel_port_labels": False}, "guest-x:80:localhost:80"),
        ({"tunnel_port_labels": False, "tunnel_guest_names": "free-*"}, "free-x:80:localhost:80"),
        ({"tunnel_port_labels": False, "tunnel_guest_names": ""}, "8080:localhost:80"),
        ({"tunnel_port_labels": False, "tunnel_shared_account": False}, "8080:localhost:80"),
    ],
)
def test_a_run_ends_with_a_forward_that_ssh_understands(given, forward):
    shown = told(**given)["shown"]
    assert shown == {"forward": forward, "label": forward.split(":")[0]}


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, f"ssh -p 2222 -o ExitOnForwardFailure=yes -NR {{forward}} tunnel@{DOMAIN}"),
        ({"tunnel_ssh_port": 22}, f"ssh -o ExitOnForwardFailure=yes -NR {{forward}} tunnel@{DOMAIN}"),
        (
            {"tunnel_ssh_port": 2200, "tunnel_shared_account_name": "everybody"},
            f"ssh -p 2200 -o ExitOnForwardFailure=yes -NR {{forward}} everybody@{DOMAIN}",
        ),
        (
            {"tunnel_ssh_port": 22, "tunnel_shared_account": False, "tunnel_shared_account_name": "everybody"},
            f"ssh -o ExitOnForwardFailure=yes -NR {{forward}} ACCOUNT@{DOMAIN}",
        ),
    ],
)
def test_the_command_is_what_one_types(given, command):
    assert told(**given)["command"] == command


def test_the_custom_domains_are_those_of_all_accounts():
    accounts = [
        {"name": "alice", "domains": {"shop.example.org": "alice-shop", "www.example.org": "alice-shop"}},
        {"name": "bob"},
        {"name": "eve", "domains": None},
        {"name": "mallory", "domains": {"example.net": "m"}},
    ]
    domains = {"shop.example.org": "alice-shop", "www.example.org": "alice-shop", "example.net": "m"}
    assert told(tunnel_accounts=accounts)["domains"] == domains
    assert told()["domains"] == told()["passthrough"] == {}


def test_the_custom_domains_whose_tls_is_passed_through_are_others():
    shown = {
        "shop.example.org": {"name": "alice-shop", "passthrough": "yes"},
        "blog.example.org": {"name": "alice-blog", "passthrough": False},
        "www.example.org": {"name": "alice-www"},
        "old.example.org": "alice-old",
    }
    found = told(tunnel_accounts=[{"name": "alice", "domains": shown}])
    assert found["passthrough"] == {"shop.example.org": "alice-shop"}
    assert found["domains"] == {f"{name}.example.org": f"alice-{name}" for name in ("blog", "www", "old")}


# --- other forms of one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "each"),
    [("", []), ("30000", [30000]), ("30000-30003", [30000, 30001, 30002, 30003]), ("30000-30000", [30000])],
)
def test_a_range_of_ports_is_all_of_them(ports, each):
    assert told(tunnel_tcp_ports=ports)["tcp_port_list"] == each


@pytest.mark.parametrize(("port", "suffix"), [(443, ""), (8443, ":8443")])
def test_an_address_has_a_port_only_where_it_needs_one(port, suffix):
    assert told(tunnel_https_port=port)["https_suffix"] == suffix


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("abuse@example.org", "mailto:abuse@example.org"),
        ("https://example.org/abuse?a=1", "https://example.org/abuse?a=1"),
    ],
)
def test_a_contact_is_a_link_to_write_to_or_to_go_to(contact, link):
    assert told(tunnel_abuse_contact=contact)["abuse_link"] == link


# --- the action ------------------------------------------------------------------------------------------------------


def test_a_play_has_them_from_the_role_also_the_second_time(run, tmp_path):
    """What roles register is no variable of the inventory's, and templates in it are filled in."""
    role = {"name": "proxme.tunnel.tunnel", "tasks_from": "settings"}
    first = [
        {"ansible.builtin.include_role": role},
        {
            "ansible.builtin.assert": {
                "that": [
                    f"tunnel.domain == '{DOMAIN}'",
                    "tunnel.https_suffix == ':8443'",
                    f"tunnel.backup_file == '{tmp_path}/x.vault'",
                    "tunnel.tls == 'off'",
                    "'dns_settings' not in tunnel and tunnel_dns_settings.api_token == 'S3cret'",
                ]
            }
        },
        *({"ansible.builtin.debug": {"msg": "x"}, "register": name} for name in ("tunnel_host_keys", "tunnel_host")),
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play | {"tasks": first}, play | {"tasks": first}]))
    given = {
        "base": 8000,
        "tunnel_domain": DOMAIN,
        "tunnel_https_port": "{{ base + 443 }}",
        "tunnel_tls": False,
        "tunnel_backup_file": "x.vault",
        "tunnel_dns_settings": {"api_token": "S3cret"},
    }
    inventory = {"all": {"hosts": {"localhost": given}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    collections = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")}
    run("ansible-playbook", "-i", "inventory.yml", tmp_path / "play.yml", cwd=tmp_path, **collections)


# --- visitors --------------------------------------------------------------------------------------------------------


def test_the_labels_of_sites_are_caddys(tmp_path):
    """Wherever they stand in a file, so that no visitor of a site is led past it."""
    folder = tmp_path / "sites"
    folder.mkdir()
    (folder / "a.caddy").write_text(f"Status.{DOMAIN}, https://wiki.{DOMAIN}:443 {{\n}}\n")
    (folder / "b.caddy").write_text(f"*.{DOMAIN}, www.{DOMAIN}, own.example.org, {DOMAIN} {{\n}}\n")
    (folder / "no-site.txt").write_text(f"other.{DOMAIN}\n")
    alone = tmp_path / "one"
    alone.write_text(f"http://alone.{DOMAIN} {{\n}}\n")
    shown = told(tunnel_sites=[str(folder), str(alone), "nowhere.caddy"])
    assert shown["caddys_labels"] == ["www", "*", "alone", "status", "wiki"]
    assert told()["caddys_labels"] == ["www"]


def test_who_is_blocked_reads_whom_to_ask():
    assert told()["blocked_text"] == "Your address is blocked from this host."
    said = told(tunnel_abuse_contact="abuse@example.org")["blocked_text"]
    assert said == "Your address is blocked from this host. Is that a mistake? Write to abuse@example.org."


def test_without_a_tls_of_ours_there_is_no_edge():
    assert [told(tunnel_tls=mode)["edge"] for mode in ("on_demand", "internal", "off")] == [True, True, False]
    assert not told(tunnel_edge=False)["edge"]
