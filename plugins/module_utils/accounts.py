# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn the list of accounts into what sshd is told, or say what is wrong with it.

Runs on the control node (plugins/action/accounts.py). `Compiler(settings, remembered, today).run()` is given

    settings     what the action `settings` returns: the operator's variables without their prefix; read are domain,
                 accounts, shared_account, shared_account_name, shared_account_keys, guest_names, port_labels, reserved
                 (labels that nobody may have), tcp_ports, user_ca and revoked_keys
    remembered   the state that the last run wrote; {} before the first one:
                   ids      user id by account, never given to another one
                   fetched  lines that a key URL answered, by URL
                   granted  what each account has now
                   guest_names  patterns whose names a guest may hold now
    today        the date (UTC)

and returns

    problems     sentences about what is wrong; if there are any, nothing may be changed
    warnings     sentences about what an operator should know
    accounts     [{"name", "uid", "keys", "listen", "open", "principals", "expires", "names", "tcp_ports"}]; the shared
                 account comes first, and its "keys" are null while it has an empty password
    user_ca      the keys, without options
    revoked_keys the file's path
    ended        user ids of the accounts that lost something: their connections are to be ended
    pending      state to be written before anything is applied: what was and what will be, since a run may die between
    state        state to be written when all is applied
"""

from __future__ import annotations

import base64
import binascii
import datetime
import http.client
import pathlib
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

FIRST_ID = 20000  # user id of the shared account; the others get the following ones. The host has none of them.
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*")
KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Options of authorized_keys that narrow what a key may do. Others would widen it, or have no effect here.
KEY_OPTIONS = ("from", "expiry-time", "verify-required", "permitlisten", "permitopen")
OPTION = r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?'
# Accounts of the image itself.
SYSTEM_ACCOUNTS = (
    *("root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data"),
    *("backup", "list", "irc", "nobody", "sshd", "messagebus"),
)
PRINCIPAL = re.compile(r"[A-Za-z0-9._@+-]+")
KRL = b"SSHKRL\n\0"  # what ssh-keygen -k makes begins so (PROTOCOL.krl)
LARGEST_ANSWER = 256 * 1024  # bytes that a key URL may answer
PATIENCE = 10  # seconds that a key URL may take, and that it may be silent


class RefusedError(Exception):
    """A sentence about what is wrong, and what to write instead."""


def is_system_account(name: str) -> bool:
    """Whether the image has an account of that name."""
    return name in SYSTEM_ACCOUNTS or name.startswith("systemd-")


def split_options(line: str) -> tuple[str, str]:
    """Split a line of authorized_keys into its options ("" if it has none) and the key."""
    if line.split(None, 1)[0] in KEY_TYPES:
        return "", line
    quoted = False
    for position, character in enumerate(line):
        if character == '"' and line[position - 1 : position] != "\\":
            quoted = not quoted
        elif character in " \t" and not quoted:
            return line[:position], line[position:].strip()
    return "", line


def checked_key(line: str) -> str:
    """Return a public key as "[options ]type base64", without its comment; raise RefusedError if it is none."""
    line = line.strip()
    options, key = split_options(line) if line.isprintable() and line else ("", "")
    shown = line if len(line) < 60 else f"{line[:56]}…"
    kind, rest = key.partition(" ")[::2]
    if kind not in KEY_TYPES:
        raise RefusedError(
            f'"{shown}" is no public key. Write a line of an authorized_keys file, such as "ssh-ed25519 AAAA… '
            f'alice@laptop"; the types are {", ".join(KEY_TYPES)}.'
        )
    if options and not re.fullmatch(f"{OPTION}(,{OPTION})*", options):
        raise RefusedError(f'The options of the key "{shown}" can\'t be read. Write them as in from="192.0.2.0/24".')
    for option, value in re.findall(OPTION, options):
        if option.lower() not in KEY_OPTIONS:
            raise RefusedError(
                f'The key "{shown}" has the option {option}, which is not for tunnels. Remove it; possible are '
                f"{', '.join(KEY_OPTIONS)}."
            )
        if option.lower() == "expiry-time" and not re.fullmatch(r"\d{8}(\d{4}(\d{2})?)?Z?", value):
            raise RefusedError(
                f'The key "{shown}" has an expiry-time that is none. Write it as 20270630 or 202706301200Z.'
            )
    encoded = rest.split(None, 1)[0] if rest.strip() else ""
    try:
        blob = base64.b64decode(encoded, validate=True)
        fields = ssh_strings(blob)
    except (binascii.Error, ValueError):
        fields = []
    if len(fields) < (3 if kind == "ssh-rsa" else 2) or fields[0] != kind.encode():
        raise RefusedError(f'The key "{shown}" is damaged. Copy the whole line of the .pub file again.')
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < 2048:
        raise RefusedError(f'The key "{shown}" has fewer than 2048 bits. Make a new one: ssh-keygen -t ed25519.')
    return f"{options} {kind} {encoded}".lstrip()


def ssh_strings(blob: bytes) -> list[bytes]:
    """Return the length-prefixed fields of a key (RFC 4251); raise ValueError if it does not consist of such."""
    found, position = [], 0
    while position < len(blob):
        length = int.from_bytes(blob[position : position + 4], "big")
        if position + 4 + length > len(blob):
            raise ValueError("truncated")
        found.append(blob[position + 4 : position + 4 + length])
        position += 4 + length
    return found


def key_lines(text: str) -> list[str]:
    """Return the lines of an authorized_keys file that are keys."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


class NoPlainRedirects(urllib.request.HTTPRedirectHandler):
    """Keys that came without TLS could be anybody's."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN201, D102
        if not newurl.startswith("https://"):
            raise RefusedError(f"{req.full_url} leads to {newurl}, which is not https. Correct the address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def read_in_time(answer: http.client.HTTPResponse) -> bytes:
    """Return the answer's body, or as much of it as shows that it is too long; raise OSError if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    text = b""
    while len(text) <= LARGEST_ANSWER:
        piece = answer.read1(LARGEST_ANSWER)
        if not piece:
            break
        text += piece
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer takes more than {PATIENCE} s")
    length = answer.headers["Content-Length"]
    if length is not None and len(text) < int(length) and len(text) <= LARGEST_ANSWER:
        raise OSError(f"the answer ends after {len(text)} of {length} bytes")
    return text


def fetch(url: str) -> list[str]:
    """Return the lines that a URL answers with.

    Raises OSError if it can't be reached or says that it is not well, RefusedError if it answers anything but keys.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "proxme.tunnel"})
        with urllib.request.build_opener(NoPlainRedirects).open(request, timeout=PATIENCE) as answer:
            text = read_in_time(answer)
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise RefusedError(f"{url} does not exist ({error.code}). Correct the address.") from error
        raise
    if len(text) > LARGEST_ANSWER:
        raise RefusedError(
            f"{url} answers more than {LARGEST_ANSWER // 1024} KiB, so it is no list of keys. Correct it."
        )
    lines = key_lines(text.decode(errors="replace"))
    for line in lines:
        try:
            checked_key(line)
        except RefusedError as refused:
            raise RefusedError(f"{url} answers something else than public keys: {refused}") from refused
    return lines


def fetched(urls: list[str], known: dict[str, list[str]]) -> tuple[dict[str, list[str] | RefusedError], list[str]]:
    """Ask all URLs. Returns the lines (or why they are refused) by URL, and warnings about those that don't answer."""
    found: dict[str, list[str] | RefusedError] = {}
    warnings = []

    def ask(url: str) -> list[str] | Exception:
        try:
            return fetch(url)
        except (RefusedError, OSError) as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        for url, answer in zip(urls, pool.map(ask, urls), strict=True):
            if isinstance(answer, OSError):
                if url in known:
                    found[url] = known[url]
                    warnings.append(f"{url} does not answer ({answer}); the keys that it had at the last run are kept.")
                else:
                    found[url] = RefusedError(f"{url} does not answer: {answer}. Run again later, or write the keys.")
            else:
                found[url] = answer  # type: ignore[assignment]
    return found, warnings


def is_url(source: str) -> bool:
    """Whether a source of keys is a URL."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) is not None


def keys_of(sources: list[str], answers: dict[str, list[str] | RefusedError]) -> list[str]:
    """Return the keys of an account from its sources: keys, files of the control node, URLs."""
    found: list[str] = []
    for source in sources:
        if is_url(source):
            answer = answers[source]
            if isinstance(answer, RefusedError):
                raise answer
            lines = answer
        elif source.startswith(("/", "~", "./", "../")):
            path = pathlib.Path(source).expanduser()
            try:
                lines = key_lines(path.read_text())
            except (OSError, UnicodeDecodeError) as error:
                raise RefusedError(f"The file {path} can't be read on the control node: {error}.") from error
        else:
            lines = [source]
        found += [checked_key(line) for line in lines]
    return list(dict.fromkeys(found))


def prefix_of(name: str) -> str | None:
    """Return the prefix of a pattern ("alice-" of "alice-*"), None for a name without an asterisk."""
    return name[:-1] if name.endswith("*") else None


def meet(one: str, other: str) -> bool:
    """Whether there is a label that both names or patterns cover."""
    prefix, other_prefix = prefix_of(one), prefix_of(other)
    if prefix is not None and other_prefix is not None:
        return prefix.startswith(other_prefix) or other_prefix.startswith(prefix)
    if prefix is not None:
        return other.startswith(prefix)
    if other_prefix is not None:
        return one.startswith(other_prefix)
    return one == other


def checked_authority(line: str) -> str:
    """Return the public key of who signs certificates; raise RefusedError if it is none."""
    key = checked_key(line)
    if key.split()[0] not in KEY_TYPES:
        raise RefusedError(f'"{line}" has options. Write the key alone: who it lets in is said by its principals.')
    return key


def check_revoked(path: pathlib.Path) -> None:
    """Raise RefusedError if sshd could not read this list of revoked keys: it would then let no key in at all."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path} can't be read on the control node: {error.strerror}.") from error
    if content.startswith(KRL):
        return
    for line in key_lines(content.decode(errors="replace")):
        try:
            checked_authority(line)
        except RefusedError as refused:
            raise RefusedError(
                f"{path} is neither a list of public keys nor what ssh-keygen -k makes: {refused}"
            ) from refused


def port_range(text: str) -> range:
    """Return "30000-30009" as a range; "" is empty. The settings were checked for the form."""
    if not text:
        return range(0)
    first, last = text.partition("-")[::2]
    return range(int(first), int(last or first) + 1)


def complete(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of tunnel_accounts with all its keys, in the types that the argument spec takes them for."""
    listed = {
        key: value.split(",") if isinstance(value := entry.get(key) or [], str) else [str(item) for item in value]
        for key in ("keys", "names", "tcp_ports", "reach", "principals")
    }
    return {
        "name": str(entry["name"]),
        **listed,
        "tcp_ports": [int(port) for port in listed["tcp_ports"]],
        "domains": {
            domain: shows["name"] if isinstance(shows, dict) else str(shows)
            for domain, shows in (entry.get("domains") or {}).items()
        },
        "expires": str(entry.get("expires") or ""),
    }


class Compiler:
    """Checks the accounts one after the other; every problem is collected."""

    def __init__(self, settings: dict[str, Any], remembered: dict[str, Any], today: datetime.date) -> None:
        """The module's docstring says what they are."""
        self.domain: str = settings["domain"]
        self.accounts: list[dict[str, Any]] = [complete(entry) for entry in settings["accounts"]]
        self.shared: dict[str, Any] = {
            "enabled": settings["shared_account"],
            "name": settings["shared_account_name"],
            "keys": settings["shared_account_keys"],
            "guest_names": settings["guest_names"],
            "port_labels": settings["port_labels"],
        }
        self.reserved: list[str] = settings["reserved"]
        self.tcp_ports = port_range(settings["tcp_ports"])
        self.user_ca: list[str] = settings["user_ca"]
        self.revoked_keys: str = settings["revoked_keys"]
        self.today = today
        self.state: dict[str, Any] = {
            "ids": dict(remembered.get("ids", {})),
            "fetched": remembered.get("fetched", {}),
            "granted": remembered.get("granted", {}),
            "guest_names": remembered.get("guest_names", []),
        }
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def say(self, account: str, what: str) -> None:
        """Remember a problem of an account."""
        self.problems.append(f"Account {account}: {what}")

    def say_of_keys(self, account: str, what: str) -> None:
        """Remember a problem of the keys of an account, which may be the shared one."""
        if self.shared["enabled"] and account == self.shared["name"]:
            self.problems.append(f"tunnel_shared_account_keys: {what}")
        else:
            self.say(account, what)

    # --- checks -----------------------------------------------------------------------------------------------------

    def check_account_names(self) -> None:
        """Names of accounts: possible ones, each once."""
        seen = {self.shared["name"]: "the shared account, tunnel_shared_account_name"} if self.shared["enabled"] else {}
        if is_system_account(self.shared["name"]):
            self.problems.append(
                f"tunnel_shared_account_name is {self.shared['name']}, an account of the system. Write another, such "
                "as tunnel."
            )
        for entry in self.accounts:
            name = entry["name"]
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name) or is_system_account(name):
                self.say(
                    name,
                    "the name can't be used. Write up to 32 of a-z, 0-9 and hyphens, a letter first, and no "
                    "account of the system, such as alice.",
                )
            if name in seen:
                self.say(name, f"there are two of them (the other is {seen[name]}). Rename or remove one.")
            seen[name] = "in tunnel_accounts"

    def check_names(self) -> None:
        """Names of tunnels: possible ones, and no two accounts share one."""
        taken = [(label, "a reserved label (tunnel_reserved_labels)") for label in self.reserved]
        if self.shared["enabled"] and self.shared["guest_names"]:
            taken.append((self.shared["guest_names"], "the names of the shared account (tunnel_guest_names)"))
        for entry in self.accounts:
            own = []
            for name in entry["names"]:
                prefix = prefix_of(name)
                label = name if prefix is None else prefix.removesuffix("-")
                if not NAME.fullmatch(label) or len(label) > 63 or (prefix is not None and not prefix.endswith("-")):
                    self.say(
                        entry["name"],
                        f'the name "{name}" can\'t be granted. Write a label of a-z, 0-9 and single hyphens that '
                        "starts with a letter, such as blog, or a prefix, a hyphen and an asterisk, such as alice-*.",
                    )
                    continue
                for other, owner in taken:
                    if meet(name, other):
                        self.say(
                            entry["name"],
                            f'the name "{name}" meets "{other}", which is {owner}. Change or remove one of them.',
                        )
                own.append((name, f"a name of {entry['name']}"))
            taken += own

    def owns(self, entry: dict[str, Any], label: str) -> bool:
        """Whether an account may take a label."""
        return NAME.fullmatch(label) is not None and any(meet(name, label) for name in entry["names"])

    def check_reach(self) -> None:
        """What an account may open: a port of somebody's name."""
        for entry in self.accounts:
            for reached in entry["reach"]:
                label, port = reached.rpartition(":")[::2]
                if not NAME.fullmatch(label) or not (
                    port == "*" or (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536)
                ):
                    self.say(
                        entry["name"],
                        f'reach has "{reached}". Write a name and a port, such as bob-db:5432 or bob-db:*.',
                    )
                elif not any(self.owns(other, label) for other in self.accounts):
                    self.say(
                        entry["name"],
                        f'reach has "{reached}", but no account has the name {label}. Correct it, or give the name to '
                        "an account.",
                    )

    def check_tcp_ports(self) -> None:
        """Public TCP ports: within the range, each for one account."""
        owners: dict[int, str] = {}
        for entry in self.accounts:
            for port in entry["tcp_ports"]:
                if port not in self.tcp_ports:
                    within = (
                        f"the range is {self.tcp_ports.start}-{self.tcp_ports.stop - 1}"
                        if self.tcp_ports
                        else "no range is published"
                    )
                    self.say(
                        entry["name"], f"tcp_ports has {port}, but {within} (tunnel_tcp_ports). Write a port of it."
                    )
                if port in owners:
                    self.say(entry["name"], f"tcp_ports has {port}, which is {owners[port]}'s. Choose another.")
                owners[port] = entry["name"]

    def check_domains(self) -> None:
        """Custom domains: not ours, each once, and leading to a name of the account."""
        owners: dict[str, str] = {}
        for entry in self.accounts:
            for domain, label in entry["domains"].items():
                if not DOMAIN.fullmatch(domain):
                    self.say(
                        entry["name"],
                        f'the domain "{domain}" is none. Write it in lower case, such as shop.example.org.',
                    )
                elif domain == self.domain or domain.endswith(f".{self.domain}"):
                    self.say(
                        entry["name"],
                        f"the domain {domain} is the tunnel host's own. Add the label to names instead of domains.",
                    )
                if domain in owners:
                    self.say(entry["name"], f"the domain {domain} is {owners[domain]}'s. Remove one of them.")
                owners[domain] = entry["name"]
                if not self.owns(entry, label):
                    self.say(
                        entry["name"],
                        f'the domain {domain} shows "{label}", which is none of the account\'s names. Write one of '
                        f"{', '.join(entry['names']) or 'its names (it has none yet)'}.",
                    )

    def check_principals(self) -> None:
        """Principals of certificates: words that a line of a file can hold."""
        for entry in self.accounts:
            for principal in entry["principals"]:
                if not PRINCIPAL.fullmatch(principal):
                    self.say(
                        entry["name"],
                        f'principals has "{principal}". Write words of letters, digits and . _ @ + -, such as '
                        "developers.",
                    )

    def checked_authorities(self) -> list[str]:
        """Return the keys of those who sign certificates."""
        found = []
        for line in self.user_ca:
            try:
                found.append(checked_authority(str(line)))
            except RefusedError as refused:
                self.problems.append(f"tunnel_user_ca: {refused}")
        return found

    def checked_revoked_keys(self) -> str:
        """Return the path of the revoked keys, as the control node finds it from wherever it works."""
        if not self.revoked_keys:
            return ""
        path = pathlib.Path(self.revoked_keys).expanduser().resolve()
        try:
            check_revoked(path)
        except RefusedError as refused:
            self.problems.append(f"tunnel_revoked_keys: {refused}")
        return str(path)

    def expiry(self, entry: dict[str, Any]) -> int | None:
        """Return the last day of an account as days since 1970, None if it has none."""
        written = entry["expires"]
        if not written:
            return None
        try:
            day = datetime.date.fromisoformat(written)
        except ValueError:
            self.say(entry["name"], f'expires is "{written}". Write a date, such as 2027-06-30.')
            return None
        if day < self.today:
            known = self.state["granted"].get(entry["name"], {}).get("expires")
            if known == written:
                self.warnings.append(
                    f"Account {entry['name']} has expired ({written}). Remove it, or write a later date."
                )
            else:
                self.say(
                    entry["name"], f"expires is {written}, which is past. Write a later date or remove the account."
                )
        return (day - datetime.date(1970, 1, 1)).days

    # --- results ----------------------------------------------------------------------------------------------------

    def all_keys(self) -> dict[str, list[str]]:
        """Return the keys of each account, the shared one included."""
        sources = {self.shared["name"]: self.shared["keys"]} if self.shared["enabled"] else {}
        sources |= {entry["name"]: entry["keys"] for entry in self.accounts}
        urls = sorted({source for listed in sources.values() for source in listed if is_url(source)})
        for url in [url for url in urls if not url.startswith("https://")]:
            urls.remove(url)
            for name in (name for name, listed in sources.items() if url in listed):
                self.say_of_keys(name, f"keys has {url}. Write an https:// address.")
        answers, warnings = fetched(urls, self.state["fetched"])
        self.warnings += warnings
        self.state["fetched"] = {url: answer for url, answer in answers.items() if not isinstance(answer, RefusedError)}
        found = {}
        for name, listed in sources.items():
            try:
                found[name] = keys_of([source for source in listed if not is_url(source) or source in answers], answers)
            except RefusedError as refused:
                self.say_of_keys(name, str(refused))
        return found

    def compiled(self, keys: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return what each account is given."""
        ids = self.state["ids"]
        for name in (entry["name"] for entry in self.accounts):
            ids.setdefault(name, FIRST_ID + 1 + len(ids))
        found = []
        shared = self.shared
        if shared["enabled"]:
            listen = ["localhost:*"] if shared["port_labels"] else []
            # Two web ports, so that no guest holds a private port of a name that everybody may take.
            listen += [f"{shared['guest_names']}:{port}" for port in (80, 443) if shared["guest_names"]]
            found.append(
                {
                    "name": shared["name"],
                    "uid": FIRST_ID,
                    "keys": keys.get(shared["name"], []) if shared["keys"] else None,
                    "listen": listen,
                    "open": [],
                    "principals": [shared["name"]],
                    "expires": None,
                    "names": [shared["guest_names"]] if shared["guest_names"] else [],
                    "tcp_ports": [],
                }
            )
        for entry in self.accounts:
            exact = [name for name in entry["names"] if prefix_of(name) is None]
            # Never 127.0.0.1: to sshd localhost is ::1 as well, whatever /etc/hosts says, and one of the two is enough.
            # So a port that somebody held as 127.0.0.1 would be granted to the next who asks for localhost.
            listen = ["localhost:*"]
            # A pattern covers the whole host name as well; sshd compares what the client typed.
            listen += [f"{name}:*" for name in entry["names"]] + [f"{name}.{self.domain}:*" for name in exact]
            listen += [f"public:{port}" for port in entry["tcp_ports"]]
            found.append(
                {
                    "name": entry["name"],
                    "uid": ids[entry["name"]],
                    "keys": keys.get(entry["name"], []),
                    "listen": listen,
                    "open": list(dict.fromkeys([f"{name}:*" for name in exact] + entry["reach"])),
                    "principals": list(dict.fromkeys([entry["name"], *entry["principals"]])),
                    "expires": self.expiry(entry),
                    "names": entry["names"],
                    "tcp_ports": entry["tcp_ports"],
                }
            )
        return found

    def granted(self, account: dict[str, Any], authorities: list[str]) -> dict[str, Any]:
        """Return what is remembered of an account, so that the next run knows what it lost."""
        ways = ["anybody"] if account["keys"] is None else account["keys"]
        ways = ways + [f"{ca} {principal}" for ca in authorities for principal in account["principals"]]
        # Only accounts of their own have an entry. Other names for guests count from their next connection on: they are
        # everybody's tunnels.
        expires = {entry["name"]: entry["expires"] for entry in self.accounts}
        if account["name"] in expires:
            ways = ways + account["listen"] + [f"open {opened}" for opened in account["open"]]
        return {
            "uid": account["uid"],
            "has": sorted(set(ways)),
            "expires": expires.get(account["name"], ""),
        }

    def ended(self, after: dict[str, Any]) -> list[int]:
        """Return the user ids of the accounts that lost something, or that hold what is now another's."""
        found = {
            was["uid"]
            for name, was in self.state["granted"].items()
            if name not in after or after[name]["uid"] != was["uid"] or not set(was["has"]) <= set(after[name]["has"])
        }
        # A guest keeps what a former pattern gave, but not when it becomes the name of an account.
        names = [name for entry in self.accounts for name in entry["names"]]
        if any(meet(pattern, name) for pattern in self.state["guest_names"] for name in names):
            found.add(FIRST_ID)
        return sorted(found)

    def states(self, after: dict[str, Any], ended: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what is to be remembered before anything is applied, and what when all is."""
        before, shared = self.state["granted"], self.shared
        patterns = [shared["guest_names"]] if shared["enabled"] and shared["guest_names"] else []
        held = sorted({*self.state["guest_names"], *patterns})
        both = {
            name: {**had, "has": sorted({*had["has"], *before.get(name, had)["has"]})}
            for name, had in (before | after).items()
        }
        pending = {**self.state, "granted": both, "guest_names": held}
        final = {**self.state, "granted": after, "guest_names": patterns if FIRST_ID in ended else held}
        return pending, final

    def run(self) -> dict[str, Any]:
        """Return what the module's docstring says of standard output."""
        for check in (self.check_account_names, self.check_names, self.check_reach, self.check_tcp_ports):
            check()
        self.check_domains()
        self.check_principals()
        authorities = self.checked_authorities()
        revoked_keys = self.checked_revoked_keys()
        keys = self.all_keys()
        accounts = self.compiled(keys)
        for account in accounts:
            if keys.get(account["name"]) == [] and account["keys"] is not None and not authorities:
                self.say_of_keys(account["name"], "it has no key, so nobody could log in. Write one into keys.")
        after = {account["name"]: self.granted(account, authorities) for account in accounts}
        ended = self.ended(after)
        pending, final = self.states(after, ended)
        return {
            "problems": self.problems,
            "warnings": self.warnings,
            "accounts": accounts,
            "user_ca": authorities,
            "revoked_keys": revoked_keys,
            "ended": ended,
            "pending": pending,
            "state": final,
        }


def message(problems: list[str]) -> str:
    """Return all problems as one text that names the variable of each."""
    of_accounts = [problem for problem in problems if problem.startswith("Account ")]
    others = [problem for problem in problems if problem not in of_accounts]
    return " ".join([*others, *(["tunnel_accounts:"] if of_accounts else []), *of_accounts])
