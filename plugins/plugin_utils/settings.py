# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the operator wants: the variables of the inventory, checked, with their types, and what follows from them."""

from __future__ import annotations

import contextlib
import copy
import difflib
import fnmatch
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean

PREFIX = "tunnel_"
# Whether what can't be made again is removed as well: that has to be understood even where nothing else has.
ORDER = "tunnel_purge"
PARTS = (
    "caddy_frontend",
    "certbot_wildcard",
    "docker_engine",
    "edge",
    "nginx_subdomains",
    "sshd_tunnel",
    "tunnel_network",
)
# What no operator writes: registered by the roles, or set by a play.
OURS = {
    "tunnel_accounts_compiled",
    "tunnel_engine",
    "tunnel_holder_image",
    "tunnel_host",
    "tunnel_host_keys",
    *(f"{part}_state" for part in PARTS),
}
# Variables of before, and what to write instead. Others of a part only lose its name (sshd_tunnel_accounts).
RENAMED: dict[str, str] = {
    "caddy_frontend_image": "tunnel_caddy_image",
    "caddy_frontend_memory": "tunnel_caddy_memory",
    "caddy_frontend_open": "tunnel_shared_account_keys",
    "caddy_frontend_own_certificate": "tunnel_certificate_file",
    "caddy_frontend_own_files_on_host": "tunnel_certificate_on_host",
    "caddy_frontend_own_key": "tunnel_certificate_key_file",
    "caddy_frontend_volumes": "tunnel_sites_volumes",
    "certbot_wildcard_base_image": "tunnel_debian_image",
    "certbot_wildcard_ca_root": "tunnel_acme_ca_root",
    "certbot_wildcard_directory": "tunnel_acme_directory",
    "certbot_wildcard_eab": "tunnel_acme_eab",
    "certbot_wildcard_email": "tunnel_acme_email",
    "certbot_wildcard_profile": "tunnel_acme_profile",
    "docker_engine_daemon_options": "tunnel_docker_options",
    "docker_engine_install": "tunnel_install_docker",
    "nginx_subdomains_barred_labels": "tunnel_blocked_names",
    "nginx_subdomains_base_image": "tunnel_debian_image",
    "nginx_subdomains_certificate_authority": "tunnel_acme_directory",
    "nginx_subdomains_connections_per_address": "tunnel_visits_per_address",
    "nginx_subdomains_connections_per_name": "tunnel_visits_per_name",
    "nginx_subdomains_domains": "tunnel_accounts",
    "nginx_subdomains_memory": "tunnel_nginx_memory",
    "nginx_subdomains_own_certificates": "tunnel_tls",
    "nginx_subdomains_redirect_to_https": "tunnel_tls",
    "sshd_tunnel_barred_labels": "tunnel_blocked_names",
    "sshd_tunnel_base_image": "tunnel_debian_image",
    "sshd_tunnel_memory": "tunnel_sshd_memory",
    "sshd_tunnel_pids": "tunnel_sshd_processes",
    "sshd_tunnel_port": "tunnel_ssh_port",
    "sshd_tunnel_shared_account_port_labels": "tunnel_port_labels",
    "tunnel_barred_addresses": "tunnel_blocked_addresses",
    "tunnel_barred_names": "tunnel_blocked_names",
    "tunnel_check_from": "tunnel_doctor_from",
    "tunnel_connections_per_address": "tunnel_ssh_connections_per_address",
    "tunnel_pod_base_image": "tunnel_debian_image",
    "tunnel_pod_connections_per_address": "tunnel_ssh_connections_per_address",
    "tunnel_pod_connections_per_minute": "tunnel_ssh_connections_per_minute",
}

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
# The last ones stand in the containers' /etc/hosts, and so have addresses that are no name's: a pattern that covers
# proxme-tunnel-network would give every public port away.
# A token (RFC 9110, 5.6.2) with a mark that Caddy keeps out.
MARKED_HEADER = r"(?=.*[_.])[A-Za-z0-9!#$%&'+^_`|~.-]+"
# What the hosts says to services, and what they believe of a browser: headers.lua drops the doubles of these as well.
OWN_HEADERS = {
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-tunnel-plain", "x-tunnel-visitor"),
    *("sec-fetch-mode", "sec-fetch-site", "content-length", "transfer-encoding", "http2-settings", "keep-alive"),
    *("proxy-connection", "proxy-authenticate", "proxy-authorization"),
}
ALWAYS_RESERVED = [
    "localhost",
    "public",
    "proxme-tunnel-network",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
]
# An authority of one's own counts nothing.
UNBOUNDED = 1_000_000

# What certbot's plugin of a provider is installed from, its name in certbot, and what it can't do without: one of the
# lists must be there as a whole. As the plugins' sources have it; their versions stand in the role's versions.txt.
PROVIDERS: dict[str, dict[str, Any]] = {
    "rfc2136": {
        "plugin": "/opt/dns-update",
        "authenticator": "dns-update",
        "settings": [["server", "name", "secret", "algorithm"]],
    },
    "cloudflare": {"settings": [["api_token"], ["email", "api_key"]]},
    "route53": {"settings": [["aws_access_key_id", "aws_secret_access_key"]]},
    "ovh": {"settings": [["endpoint", "application_key", "application_secret", "consumer_key"]]},
    "digitalocean": {"settings": [["token"]]},
    "hetzner": {"settings": [["api_token"]]},
    "desec": {"settings": [["token"]]},
    "gandi": {"settings": [["token"]]},
    "google": {"settings": [["type", "project_id", "private_key", "client_email", "token_uri"]]},
    "linode": {"settings": [["key"]]},
}
ALGORITHMS = ["HMAC-SHA1", "HMAC-SHA224", "HMAC-SHA256", "HMAC-SHA384", "HMAC-SHA512", "HMAC-MD5"]

DOMAIN = r"(?=.{1,190}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+"
NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
LABEL = rf"({NAME}|[1-9][0-9]{{0,4}})"
EMAIL = r'([^\s@{}"]+@(?!example[.](com|net|org)$)[^\s@{}"]+)?'
DIRECTORY = r'https://[^\s"\\{}]+'
# Nothing in it means something to HTML, Lua or Caddy.
CONTACT = r"([A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|https://[A-Za-z0-9._~:/?#@!*+,=%-]+)?"
MEMORY = r"[1-9][0-9]*[mg]"
SPAN = r"[1-9][0-9]*(s|min|h|d)"
BASE64 = r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)"
# An address or a network; what is still wrong with it nft refuses. IPv4 is written as such, not as ::ffff:192.0.2.7.
OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
ADDRESS = (
    rf"({OCTET}(\.{OCTET}){{3}}(/([1-9]|[12][0-9]|3[0-2]))?"
    r"|(?!::ffff:)[0-9a-f]*:[0-9a-f:]*(/([1-9][0-9]?|1[01][0-9]|12[0-8]))?)"
)

# What stands for a custom domain, where it is not the name alone.
SHOWN_BY_DOMAIN: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "passthrough": {"type": "bool", "default": False},
}
LISTEN = rf"{OCTET}(\.{OCTET}){{3}}:[1-9][0-9]{{0,4}}"
LOOPBACKS = ("127.0.0.1", "0.0.0.0")
# In the front end's namespace: where the packet filter leads visitors, where the edge goes on with each kind of them,
# and where Caddy stands in for nginx.
EDGE_PORTS = {"visitors": 65443, "ssh": 65444, "tls": 65445, "caddy": 65446, "spare": 65447, "passthrough": 65448}
TCP_PORTS = "[1-9][0-9]{3,4}(-[1-9][0-9]{3,4})?"

# What a type is called, and what to write where another one is.
TYPES = {
    "str": ("text", "Write it in quotation marks."),
    "int": ("a whole number", "Write digits alone, such as {example}."),
    "float": ("a number", "Write digits alone, such as {example}."),
    "bool": ("a boolean", "Write true or false."),
    "list": ("a list", "Write brackets around it; on the command line that is -e '{{\"{name}\": [{value}]}}'."),
    "dict": ("a mapping", 'Write names and values; on the command line that is -e \'{{"{name}": {{"…": "…"}}}}\'.'),
}

Settings = dict[str, Any]


class Refused(Exception):  # noqa: N818 - what it says is for the operator
    """The inventory can't work; the problems are sentences for the operator."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def read(given: dict[str, Any], spec: dict[str, dict[str, Any]], here: Path, refuse: bool = True) -> Settings:
    """Check what an inventory says, and return it with types and defaults, without what is secret.

    `given` has the variables of the host that begin like ours, `spec` the options of the role `tunnel`, and `here` is
    where relative paths begin. Raise Refused with all that is wrong; without `refuse`, as where all is removed, only if
    it can't be told what of it to remove. What has another wrong type counts as not given then.
    """
    problems: list[str] = []
    mistyped: list[str] = []
    every: Settings = {}
    for name, option in spec.items():
        told: list[str] = []
        value = typed(name, given.get(name), option, told)
        if name == "tunnel_accounts":
            type_domains(value, told)
        counts = refuse or name == ORDER or not told
        every[name.removeprefix(PREFIX)] = value if counts else typed(name, None, option, [])
        mistyped += told if counts else []
    if refuse:
        problems += unread(given, spec, every["foreign_variables"])
    if mistyped:
        raise Refused(problems + mistyped)
    secret = {name.removeprefix(PREFIX) for name, option in spec.items() if option.get("no_log")}
    settings = {name: value for name, value in every.items() if name not in secret}
    text = list(withheld(given, settings, spec))
    make_paths_absolute(settings, here)
    if refuse:
        problems += text
        problems += dict.fromkeys(wrong(settings, {name: every[name] for name in secret}))
    if problems:
        raise Refused(problems)
    return settings | derive(settings)


def withheld(given: dict[str, Any], settings: Settings, spec: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Take the secret keys out of mappings, which roles read as they were written; yield where that can't be done."""
    for variable, option in spec.items():
        for key in [key for key, inner in option.get("options", {}).items() if inner.get("no_log")]:
            mapping = settings.get(variable.removeprefix(PREFIX), {})
            if option["type"] == "dict" and mapping.pop(key, None) and isinstance(given[variable], str):
                yield f'{variable} is text and has {key}. Write it as a mapping: -e \'{{"{variable}": {{"…": "…"}}}}\'.'


def is_ours(name: str) -> bool:
    """Tell whether a variable looks like one that the operator writes for us."""
    return name.startswith((PREFIX, *(f"{part}_" for part in PARTS))) and name not in OURS


def unread(given: dict[str, Any], spec: dict[str, Any], foreign: Iterable[str] = ()) -> Iterator[str]:
    """Yield a sentence for each variable that looks like ours and that nothing reads. Its value may be a secret.

    `foreign` are those that another role reads, as the operator says; they may be patterns.
    """
    theirs = "If another role reads it, list it in tunnel_foreign_variables"
    for name in sorted(name for name in given if is_ours(name) and name not in spec):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in foreign):
            continue
        part = [f"{part}_" for part in (*PARTS, "tunnel_pod", "tunnel") if name.startswith(f"{part}_")][0]  # noqa: RUF015
        former = {PREFIX + old.removeprefix(part): new for old, new in RENAMED.items() if old.startswith(part)}
        known, meant = {new: new for new in spec} | RENAMED | former, PREFIX + name.removeprefix(part)
        if meant in known:
            yield f"The inventory sets {name}, which nothing reads any more. Write {known[meant]} instead."
        # What all begin with would make them all alike.
        elif near := difflib.get_close_matches(
            meant.removeprefix(PREFIX),
            ends := {known_name.removeprefix(PREFIX): new for known_name, new in known.items()},
            1,
            0.75,
        ):
            yield f"The inventory sets {name}, which nothing reads. Is {ends[near[0]]} meant? {theirs}."
        else:
            yield (
                f"The inventory sets {name}, which nothing reads. {theirs}; else remove it. docs/reference.md lists "
                "ours."
            )


def typed(name: str, value: Any, option: dict[str, Any], problems: list[str], hidden: bool = False) -> Any:  # noqa: ANN401
    """Return a value with the type that the spec has for it, and the default for none; add what is wrong to `problems`.

    Ansible's own check would split a text at commas into a list, take true for 1 or text, and say its sentences without
    the value or, in a dict, with that of a secret.
    """
    kind, default = option["type"], copy.deepcopy(option.get("default", ""))
    hidden = hidden or option.get("no_log", False)
    if value is None or (value == "" and kind in ("list", "dict")):
        value = default
    # YAML reads a bare `off` as false. What was a boolean once goes on working.
    choices = option.get("choices", [])
    if value is False and "off" in choices:
        value = "off"
    elif {"on", "off"} <= {*choices} and value not in choices:
        with contextlib.suppress(TypeError, ValueError):
            value = "on" if boolean(value) else "off"
    try:
        found = converted(value, kind, hidden)
    except (ArithmeticError, TypeError, ValueError):
        told, advice = TYPES[kind]
        # Only a whole variable can be given there.
        advice = f"{advice.partition('; on')[0].rstrip('.')}." if "[" in name else advice
        problems.append(
            f"{name} is {kind_of(value)}, where {told} belongs{'' if hidden else f': {shown(value)}'}. "
            + advice.format(name=name, example=default or 1, value="…" if hidden else shown(value))
        )
        return default
    if found not in option.get("choices", [found]):
        problems.append(f"{name} is {shown(found)}. It must be one of: {', '.join(option['choices'])}.")
    if kind == "list":
        element = {"type": option["elements"], "options": option.get("options")}
        return [typed(f"{name}[{index}]", each, element, problems, hidden) for index, each in enumerate(found)]
    return typed_keys(name, found, option["options"], problems) if option.get("options") else found


def typed_keys(name: str, value: dict[str, Any], options: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return a mapping with its keys' types, and those that have a default; add what is wrong to `problems`."""
    unknown = [key for key in value if key not in options]
    if unknown:
        problems.append(f"{name} has {', '.join(unknown)}, which nothing reads. Write some of {', '.join(options)}.")
    for key in [key for key, option in options.items() if option.get("required") and value.get(key) in (None, "")]:
        problems.append(f"{name} has no {key}: {shown(value)}. Write one.")
    there = {key: option for key, option in options.items() if value.get(key) is not None or "default" in option}
    return {key: typed(f"{name}.{key}", value.get(key), option, problems) for key, option in there.items()}


def type_domains(accounts: list[dict[str, Any]], problems: list[str]) -> None:
    """Let a mapping stand for each custom domain, also where the name alone is written."""
    option = {"type": "dict", "options": SHOWN_BY_DOMAIN}
    for number, account in enumerate(accounts):
        # What is no account has been found before.
        domains = account["domains"] if isinstance(account, dict) else {}
        for domain, shows in domains.items():
            mapping = shows if isinstance(shows, dict) else {"name": shows}
            domains[domain] = typed(f"tunnel_accounts[{number}].domains[{domain}]", mapping, option, problems)


def converted(value: Any, kind: str, hidden: bool) -> Any:  # noqa: ANN401
    """Return a value as another type, also from text as the command line gives it; raise if it is none of it."""
    # What is hidden is read by the roles as it was written, and must have its type by itself.
    if kind in ("list", "dict"):
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and not hidden:
            value = json.loads(value)
        if kind == "list" and isinstance(value, (list, tuple)):
            return list(value)
        if kind == "dict" and isinstance(value, dict):
            return {str(key): each for key, each in value.items()}
    elif kind == "bool":
        return boolean(value)
    elif kind == "str" and isinstance(value, str):
        return value
    elif kind == "str" and not hidden and not isinstance(value, (bool, dict, list, tuple)):
        return str(value)
    elif kind in ("int", "float") and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (kind == "float" or number.is_integer()):
            return int(number) if kind == "int" else number
    raise TypeError(kind)


def kind_of(value: object) -> str:
    """Return what a value is called."""
    names = {bool: "bool", int: "float", float: "float", list: "list", tuple: "list", dict: "dict"}
    return TYPES[next((name for kind, name in names.items() if isinstance(value, kind)), "str")][0]


def shown(value: object) -> str:
    """Return a value as a person would write it, not longer than a line or two."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = "what can't be shown"
    return text if len(text) <= 200 else f"{text[:200]}…"


def make_paths_absolute(settings: Settings, here: Path) -> None:
    """Let the paths of files on the control node begin where the playbook was started."""

    def absolute(path: str) -> str:
        # pathlib's raises where there is no such user.
        return str(here / os.path.expanduser(path)) if path else path  # noqa: PTH111

    names = ["revoked_keys", "acme_ca_root", "acme_fallback_ca_root", "backup_folder", "backup_file"]
    if not settings["certificate_on_host"]:
        names += ["certificate_file", "certificate_key_file"]
    for name in names:
        settings[name] = absolute(settings[name])
    settings["sites"] = [absolute(site) for site in settings["sites"]]


def matches(pattern: str, text: object) -> bool:
    """Tell whether a text is wholly of a pattern."""
    return re.fullmatch(pattern, str(text)) is not None


def others(pattern: str, texts: list[Any]) -> list[str]:
    """Return the texts that are not wholly of a pattern."""
    return [str(text) for text in texts if not matches(pattern, text)]


def is_there(path: str, file: bool = True) -> bool:
    """Tell whether a path leads to a file, or to a file or folder, that may be looked at."""
    try:
        return Path(path).is_file() or (not file and Path(path).is_dir())
    except OSError:
        return False


def ports_of(tcp_ports: str) -> list[int]:
    """Return the ports of a range such as 30000-30009, of one port, or none, also where it is no range."""
    if not matches(TCP_PORTS, tcp_ports):
        return []
    first, last = tcp_ports.partition("-")[::2]
    return list(range(int(first), int(last or first) + 1))


def wrong(settings: Settings, secrets: Settings) -> Iterator[str]:
    """Yield a sentence for each thing that can't work: the variable, its value, what to write."""
    yield from wrong_names(settings)
    yield from wrong_ports(settings)
    yield from wrong_numbers(settings)
    yield from wrong_certificates(settings, secrets)
    yield from wrong_front(settings)
    yield from wrong_passthrough(settings)


def wrong_names(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the domain, names and addresses."""
    if not settings["domain"]:
        yield (
            "tunnel_domain is missing. Write the domain of the tunnel host into the inventory, such as "
            '"tunnel_domain: proxme.example.com".'
        )
    elif not matches(DOMAIN, settings["domain"]):
        yield (
            f'tunnel_domain is "{settings["domain"]}". Write a bare domain in lower case, such as proxme.example.com: '
            "no scheme, port, path or asterisk."
        )
    if not matches("[a-z][a-z0-9-]{0,31}", settings["shared_account_name"]):
        yield (
            f'tunnel_shared_account_name is "{settings["shared_account_name"]}". Write up to 32 of a-z, 0-9 and '
            "hyphens, a letter first, such as tunnel."
        )
    guests = settings["guest_names"]
    if not matches(rf"({NAME}-\*)?", guests):
        yield (
            f'tunnel_guest_names is "{guests}". Write a prefix, a hyphen and an asterisk, such as guest-*, or leave it '
            "empty. A bare asterisk would give every name to everybody."
        )
    elif guests and [label for label in settings["reserved_labels"] if label.startswith(guests[:-1])]:
        yield (
            f'tunnel_guest_names is "{guests}", and one of tunnel_reserved_labels '
            f"({', '.join(settings['reserved_labels'])}) begins like that. Change one of them."
        )
    if odd := others(NAME, settings["reserved_labels"]):
        yield (
            f"tunnel_reserved_labels has {shown(odd)}. Write labels of a-z, 0-9 and single hyphens that "
            "start with a letter, such as www."
        )
    for name in ("plain_names", "certificates_always"):
        if odd := others(LABEL, settings[name]):
            yield f"tunnel_{name} has {shown(odd)}. Write labels, such as blog or 8080."
    if odd := others(MARKED_HEADER, settings["headers"]):
        yield f"tunnel_headers has {shown(odd)}. Write names of headers with _ or . in them, such as user_id."
    if ours := [name for name in settings["headers"] if re.sub("[^a-z0-9]", "-", name.lower()) in OWN_HEADERS]:
        yield f"tunnel_headers has {shown(ours)}. Services take that for a header of the host's own: leave it out."
    if odd := others(LABEL, settings["blocked_names"]):
        yield f"tunnel_blocked_names has {shown(odd)}. Write labels without the domain, such as guest-phish or 8080."
    if odd := others(ADDRESS, settings["blocked_addresses"]):
        yield (
            f"tunnel_blocked_addresses has {shown(odd)}. Write addresses or networks, such as "
            "192.0.2.7, 192.0.2.0/24 or 2001:db8::/48."
        )
    if not matches(CONTACT, settings["abuse_contact"]):
        yield (
            f'tunnel_abuse_contact is "{settings["abuse_contact"]}". Write an e-mail address, such as '
            "abuse@example.com, or an https:// address, or leave it empty."
        )
    if settings["revoked_keys"] and not is_there(settings["revoked_keys"]):
        yield (
            f'tunnel_revoked_keys is "{settings["revoked_keys"]}", which is no file on the control node. Write the '
            "path of a file of keys, or leave it empty."
        )


def wrong_ports(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the ports."""
    for name, example in (("ssh_port", 2222), ("http_port", 80), ("https_port", 443)):
        if settings[name] not in range(1, 65536):
            yield f"tunnel_{name} is {settings[name]}. Write a port from 1 to 65535, such as {example}."
    if settings["http_port"] == settings["https_port"]:
        yield (
            f"tunnel_http_port is {settings['http_port']}, and so is tunnel_https_port. Write two different ports, "
            "such as 80 and 443."
        )
    for name, example in (("http_port", 80), ("https_port", 443)):
        if settings[name] in EDGE_PORTS.values() and settings["edge"]:
            yield (
                f"tunnel_{name} is {settings[name]}, which is a port of the edge's own. Write another one, such as "
                f"{example}, or set tunnel_edge to false."
            )
    text = settings["tcp_ports"]
    ports = ports_of(text)
    taken = {2222, settings["ssh_port"], *range(1024), *range(65536, 100000)}
    if (text and len(ports) not in range(1, 101)) or taken & {*ports}:
        yield (
            f'tunnel_tcp_ports is "{text}". Write a range of at most 100 ports from 1024 to 65535, without 2222 and '
            f"tunnel_ssh_port ({settings['ssh_port']}), such as 30000-30009, or leave it empty."
        )
    ours = {settings["ssh_port"], *ports}
    if settings["tls"] != "off" and {settings["http_port"], settings["https_port"]} & ours:
        yield (
            f"tunnel_ssh_port ({settings['ssh_port']}) or tunnel_tcp_ports ({text}) is also a port for visitors, "
            f"tunnel_http_port ({settings['http_port']}) or tunnel_https_port ({settings['https_port']}). "
            "Choose another."
        )
    port = int(settings["listen"].rpartition(":")[2]) if matches(LISTEN, settings["listen"]) else 0
    if port not in range(1, 65536):
        yield (
            f'tunnel_listen is "{settings["listen"]}". Write an IPv4 address of the host and a port, such as '
            "127.0.0.1:8080."
        )
    elif settings["tls"] == "off" and port in ours:
        yield (
            f'tunnel_listen is "{settings["listen"]}", whose port is also tunnel_ssh_port ({settings["ssh_port"]}) or '
            f"one of tunnel_tcp_ports ({text}). Choose another."
        )
    if settings["ask_port"] not in range(65536):
        yield f"tunnel_ask_port is {settings['ask_port']}. Write a port such as 9123, or 0 for none."
    elif settings["ask_port"] and settings["tls"] != "off":
        yield (
            f"tunnel_ask_port is {settings['ask_port']}, but this front end asks by itself. Leave it 0, or set "
            'tunnel_tls to "off".'
        )
    elif settings["ask_port"] and (
        settings["ask_port"] in ours or settings["listen"] in {f"{ip}:{settings['ask_port']}" for ip in LOOPBACKS}
    ):
        yield (
            f"tunnel_ask_port is {settings['ask_port']}, which is also tunnel_ssh_port ({settings['ssh_port']}), one "
            f"of tunnel_tcp_ports ({text}) or the port of tunnel_listen ({settings['listen']}). Choose another."
        )


def wrong_numbers(settings: Settings) -> Iterator[str]:
    """Yield the numbers, sizes and spans that can't be."""
    bounds = {
        "ssh_connections_per_address": (1, None, "Write 1 or more, such as 20."),
        "ssh_connections_per_minute": (1, None, "Write 1 or more, such as 200."),
        "descriptors_per_connection": (64, 65536, "Write 64 to 65536, such as 1024."),
        "sshd_processes": (64, None, "Write 64 or more, such as 4096."),
        "log_days": (1, None, "Write 1 or more, such as 14."),
        "answer_timeout": (1, None, "Write 1 or more seconds, such as 300."),
        "visits_per_name": (1, None, "Write 1 or more, such as 200."),
        "certificates_per_day": (0, None, "Write 0 or more, such as 20."),
        "certificates_per_week": (0, None, "Write 0 or more, such as 50."),
        "requests_per_name": (0, None, "Write 0 for no limit, or more."),
        "requests_per_address": (0, None, "Write 0 for no limit, or more."),
        "visits_per_address": (0, None, "Write 0 for no limit, or more."),
        "bandwidth_per_name": (0, 10000, "Write 1 to 10000 Mbit/s, or 0 for no bound."),
        "bandwidth_per_address": (0, 10000, "Write 1 to 10000 Mbit/s, or 0 for no bound."),
        "hsts": (0, None, "Write seconds, such as 31536000, or 0 for none."),
        "drain_hours": (0, None, "Write hours, such as 168, or 0 to end them with the next run."),
        "dns_propagation_seconds": (0, 3600, "Write up to 3600 seconds, or 0 for the provider's own."),
        "minimum_memory": (0, None, "Write MiB, such as 400."),
        "minimum_disk": (0, None, "Write MiB, such as 2000."),
    }
    for name, (least, most, advice) in bounds.items():
        if settings[name] < least or (most is not None and settings[name] > most):
            yield f"tunnel_{name} is {settings[name]}. {advice}"
    for name, example in (
        ("sshd_memory", "1g"),
        ("nginx_memory", "256m"),
        ("edge_memory", "256m"),
        ("caddy_memory", "512m"),
    ):
        if not matches(MEMORY, settings[name]):
            yield f'tunnel_{name} is "{settings[name]}". Write a number and m or g, such as {example}.'
    if not matches("[0-9]+[kmg]?", settings["body_limit"]):
        yield (
            f'tunnel_body_limit is "{settings["body_limit"]}". Write a number and k, m or g, such as 100m, or 0 for no '
            "limit."
        )
    for name, example in (("renew_every", "12h"), ("retry_every", "5min")):
        if not matches(SPAN, settings[name]):
            yield f'tunnel_{name} is "{settings[name]}". Write a number and s, min, h or d, such as {example}.'


def wrong_certificates(settings: Settings, secrets: Settings) -> Iterator[str]:
    """Yield what is wrong with where certificates come from. Names settings, and no value that may be a secret."""
    if not matches(EMAIL, settings["acme_email"]):
        yield (
            f'tunnel_acme_email is "{settings["acme_email"]}". Write an e-mail address of yours, or leave it empty; '
            "authorities refuse those of example.com."
        )
    if not matches(DIRECTORY, settings["acme_directory"]):
        yield (
            f'tunnel_acme_directory is "{settings["acme_directory"]}". Write the https address of the directory of the '
            f"ACME authority, such as {LETS_ENCRYPT}."
        )
    if not matches(f"({DIRECTORY})?", settings["acme_fallback_directory"]):
        yield (
            f'tunnel_acme_fallback_directory is "{settings["acme_fallback_directory"]}". Write the https address of a '
            "second authority's directory, or leave it empty."
        )
    if not matches("[A-Za-z0-9._-]*", settings["acme_profile"]):
        yield (
            f'tunnel_acme_profile is "{settings["acme_profile"]}". Write the name of one of the authority\'s profiles, '
            "such as shortlived, or leave it empty."
        )
    for name in ("acme_ca_root", "acme_fallback_ca_root"):
        if settings[name] and not is_there(settings[name]):
            yield (
                f'tunnel_{name} is "{settings[name]}", which is no file on the control node. Write the path of a PEM '
                "file, or leave it empty for the public roots."
            )
    for name in ("acme_eab", "acme_fallback_eab"):
        given = secrets[name]
        unknown = sorted(set(given) - {"key_id", "mac_key"})
        if unknown:
            yield f"tunnel_{name} has {', '.join(unknown)}, which nothing reads. Write key_id and mac_key."
        elif given and others("[A-Za-z0-9._~+/=-]+", [given.get("key_id", ""), given.get("mac_key", "")]):
            yield f"tunnel_{name} can't be. Write it as the authority gives it: a key_id, and a mac_key in base64url."
    if secrets["acme_fallback_eab"] and not settings["acme_fallback_directory"]:
        yield (
            "tunnel_acme_fallback_eab is there, but no tunnel_acme_fallback_directory that it is for. Write both or "
            "none."
        )
    if odd := others("[0-9a-fA-F.:]+", settings["dns_resolvers"]):
        yield f"tunnel_dns_resolvers has {shown(odd)}. Write addresses, such as 192.0.2.53."
    if settings["tls"] in ("wildcard", "both"):
        yield from wrong_wildcard(settings, secrets["dns_settings"])


def wrong_wildcard(settings: Settings, given: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a certificate for all names."""
    provider = settings["dns_provider"]
    if not provider:
        yield (
            f"tunnel_tls is {settings['tls']}, but tunnel_dns_provider is missing. Write who keeps the domain's DNS "
            'records, such as "tunnel_dns_provider: rfc2136"; docs/wildcard.md lists them.'
        )
    elif settings["dns_by_caddy"]:
        if not matches("[a-z0-9][a-z0-9_-]*", provider):
            yield (
                f'tunnel_dns_provider is "{provider}". Write the name of a module without "dns.providers.", such as '
                "cloudflare."
            )
        if others("[a-z][a-z0-9_]*", list(given)) or [v for v in given.values() if re.search('["\\\\{}\n\r]', str(v))]:
            yield (
                "tunnel_dns_settings can't be written to Caddy's configuration. Write names such as api_token, and "
                "values without quotation marks, backslashes, braces and line breaks."
            )
    elif provider not in PROVIDERS:
        yield f'tunnel_dns_provider is "{provider}". Write one of {", ".join(PROVIDERS)}.'
    else:
        yield from wrong_dns_settings(provider, given)


def wrong_dns_settings(provider: str, given: dict[str, Any]) -> Iterator[str]:
    """Yield what a provider's plugin of certbot can't work with."""
    needed = PROVIDERS[provider]["settings"]
    odd = sorted(others("[a-z][a-z0-9_]*", list(given)))
    if odd:
        yield (
            f"tunnel_dns_settings has {', '.join(odd)}. Write the names as in docs/wildcard.md, with underscores and "
            f'without "dns_{provider}_".'
        )
    if not [names for names in needed if set(names) <= set(given)]:
        yield (
            f"tunnel_dns_settings has {', '.join(sorted(given)) or 'nothing'}. For {provider} write "
            f"{'; or '.join(', '.join(names) for names in needed)}."
        )
    empty = sorted(name for name, value in given.items() if value in ("", None))
    if empty:
        yield f"tunnel_dns_settings: {', '.join(empty)} is empty. Write what the provider gives for it, or nothing."
    # The file that it is written to has no way to write these. Google's is JSON, which has.
    unwritable = sorted(name for name, value in given.items() if re.search(r'["\n\r]|%\(', str(value)))
    if unwritable and provider != "google":
        yield (
            f'tunnel_dns_settings: {", ".join(unwritable)} holds a quotation mark, a line break or "%(", which certbot '
            "can't read from its file. Is it the right value?"
        )
    if provider == "rfc2136":
        if not matches("([0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)", given.get("server", "")):
            yield (
                f'tunnel_dns_settings: server is "{given.get("server", "")}". Write the name server\'s address, such '
                "as 192.0.2.1; a name is not possible."
            )
        if given.get("algorithm") not in ALGORITHMS:
            yield (
                f'tunnel_dns_settings: algorithm is "{given.get("algorithm", "")}". Write that of the TSIG key, one of '
                f"{', '.join(ALGORITHMS)}."
            )
        if not matches(BASE64, given.get("secret", "")):
            yield "tunnel_dns_settings: secret is not base64. Write the TSIG key's secret as tsig-keygen prints it."


def wrong_front(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with images, proxies, and sites beside the tunnels."""
    for name, example in (("debian_image", "debian:trixie-slim"), ("caddy_image", "caddy:2")):
        if not matches(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", settings[name]):
            yield f'tunnel_{name} is "{settings[name]}". Write the name of an image, such as {example}.'
    if odd := others(r"[0-9a-fA-F.:]+(/[0-9]{1,3})?", settings["trusted_proxies"]):
        yield f"tunnel_trusted_proxies has {shown(odd)}. Write addresses, such as 192.0.2.1 or 192.0.2.0/24."
    if settings["proxy_protocol"] and settings["tls"] != "off" and not settings["trusted_proxies"]:
        yield (
            "tunnel_proxy_protocol is true, but tunnel_trusted_proxies is empty: anybody could claim any address. "
            "Write the proxies' addresses."
        )
    missing = [site for site in settings["sites"] if not is_there(site, file=False)]
    if missing:
        yield (
            f"tunnel_sites has {', '.join(missing)}, which is neither a file nor a folder on the control node. Write "
            "the paths of files of a Caddyfile's blocks."
        )


def wrong_passthrough(settings: Settings) -> Iterator[str]:
    """Yield the custom domains whose TLS can't be passed through."""
    without = "tunnel_tls is off" if settings["tls"] == "off" else "tunnel_edge is false"
    for account in settings["accounts"] if settings["tls"] == "off" or not settings["edge"] else []:
        for domain in [domain for domain, shows in account["domains"].items() if shows["passthrough"]]:
            yield (
                f"tunnel_accounts: the domain {domain} of {account['name']} has passthrough: true, but {without}, so "
                "that nothing of ours stands before its TLS. Write "
                + ("another tunnel_tls" if settings["tls"] == "off" else "tunnel_edge: true")
                + ", or leave passthrough out."
            )


def labels_of_sites(sites: list[str], domain: str) -> list[str]:
    """Return the labels below the domain that stand anywhere in the operator's sites; an asterisk may be among them."""
    files = [file for site in map(Path, sites) for file in (sorted(site.glob("*.caddy")) if site.is_dir() else [site])]
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    found = {label for text in texts for label in re.findall(rf"([a-z0-9*-]+)\.{re.escape(domain)}", text.lower())}
    return sorted(found - {"www"})


def folder_of(directory: str) -> str:
    """Return the name of the folder where Caddy keeps what an ACME authority gives (certmagic: issuerKey and Safe)."""
    url = urlsplit(directory.strip())
    words = [url.netloc, url.path.replace("/", "-").strip("-")]
    return re.sub(r"[^\w@.-]", "", "-".join(filter(None, words)).lower().replace(":", "-"))


def derive(settings: Settings) -> Settings:
    """Return what follows from several settings, or is another form of one."""
    tls, domain, port = settings["tls"], settings["domain"], settings["ssh_port"]
    shared = settings["shared_account"]
    guests = settings["guest_names"] if shared else ""
    # Every account but the shared one may take them.
    port_labels = settings["port_labels"] or not shared
    wildcard = tls in ("wildcard", "both")
    budget = {name: settings[f"certificates_per_{name}"] for name in ("day", "week")}
    shown = {domain: shows for account in settings["accounts"] for domain, shows in account["domains"].items()}
    # The label and the forward that a newcomer is shown, as on the landing page.
    label = "8080" if port_labels or not guests else guests.replace("*", "x")
    forward = "8080:localhost:80" if label == "8080" else f"{label}:80:localhost:80"
    provider = PROVIDERS.get(settings["dns_provider"], {})
    by_certbot = wildcard and not settings["dns_by_caddy"]
    by_caddy_dns = wildcard and settings["dns_by_caddy"]
    asked = tls in ("on_demand", "both", "internal")
    directories = [settings["acme_directory"], settings["acme_fallback_directory"]]
    return {
        # Who obtains the certificate for all names.
        "by_certbot": by_certbot,
        "by_caddy_dns": by_caddy_dns,
        "certbot_plugin": provider.get("plugin", f"certbot-dns-{settings['dns_provider']}"),
        "certbot_authenticator": provider.get("authenticator", f"dns-{settings['dns_provider']}"),
        # Whether names below the domain have certificates of their own.
        "certificate_each": tls in ("on_demand", "internal", "off"),
        # Whether Caddy gets one at the first handshake of a name; and the folders of whom it asks, the first one first.
        "certificate_asked": asked,
        "certificate_folders": ["local"]
        if tls == "internal"
        else [folder_of(directory) for directory in directories if directory and (asked or by_caddy_dns)],
        "certificate_authority": "internal" if tls == "internal" else settings["acme_directory"],
        "certificate_budget": dict.fromkeys(budget, UNBOUNDED) if tls == "internal" else budget,
        "own_authority": tls == "internal"
        or (tls not in ("files", "off") and settings["acme_directory"].strip() != LETS_ENCRYPT),
        "edge_ports": EDGE_PORTS,
        "https_suffix": "" if settings["https_port"] == 443 else f":{settings['https_port']}",
        # What everybody may take, and whether that takes no key.
        "guests": guests,
        "anyone_takes_ports": port_labels,
        "open": shared and not settings["shared_account_keys"],
        "guest_notice": settings["guest_notice"] and shared,
        "command": (
            f"ssh {'' if port == 22 else f'-p {port} '}-o ExitOnForwardFailure=yes -NR {{forward}} "
            f"{settings['shared_account_name'] if shared else 'ACCOUNT'}@{domain}"
        ),
        "shown": {"label": label, "forward": forward},
        "reserved": list(dict.fromkeys([*ALWAYS_RESERVED, *settings["reserved_labels"]])),
        "tcp_port_list": ports_of(settings["tcp_ports"]),
        # Custom domains and what they show: those whose TLS is ended here, and those of which it is passed through.
        "domains": {domain: shows["name"] for domain, shows in shown.items() if not shows["passthrough"]},
        "passthrough": {domain: shows["name"] for domain, shows in shown.items() if shows["passthrough"]},
        # What visitors from a blocked address read.
        "blocked_text": "Your address is blocked from this host."
        + (f" Is that a mistake? Write to {settings['abuse_contact']}." if settings["abuse_contact"] else ""),
        # Without a TLS of ours there is nothing to tell ssh from.
        "edge": settings["edge"] and tls != "off",
        "caddys_labels": ["www", *labels_of_sites(settings["sites"], domain)],
        "abuse_link": ("" if settings["abuse_contact"].startswith("https:") else "mailto:") + settings["abuse_contact"],
    }
