# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what is wrong with a tunnel host, and what to do.

Runs on the control node (plugins/action/doctor.py), with the library that ansible-core itself needs. `judge` is given

    settings   what the action `settings` returns; read are domain, tls, listen, by_certbot (whether certbot
               obtains the certificate) and own_authority (visitors need not trust it)
    before     when the module doctor_host was started, and `after`, when it had ended: seconds since 1970 of the
               control node
    host       what doctor_host saw
    outside    what doctor_outside saw

and returns {"problems", "warnings", "untested", "fine"}, lists of sentences.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from typing import Any

try:
    from cryptography import x509
except ImportError:  # ansible-core needs it; its sanity test alone imports this without
    x509 = None

CLOCK = 30  # seconds that a clock may be wrong; certificates and logs bear that
OLD = 120  # days after which an image lacks security updates for certain
MIB = 1024 * 1024
FULL, NEARLY_FULL = 300 * MIB, 2048 * MIB  # free bytes of a disk
LITTLE_MEMORY = 100 * MIB

Report = dict[str, list[str]]


def fingerprint(key: str) -> str:
    """Return a key's fingerprint as ssh shows it."""
    kind, blob = key.split()
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def judge_names(report: Report, settings: dict[str, Any], host: dict[str, Any], outside: dict[str, Any]) -> None:
    """Compare the addresses of the domain, and of any name below it, with those of the host."""
    domain, found = settings["domain"], outside["addresses"]
    records = f"Create A (and AAAA) records for {domain} and *.{domain} that lead to the host."
    if not found["domain"]:
        report["problems"].append(f"{domain} has no address. {records}")
        return
    # Behind a NAT the host does not know its public address; its host keys tell that an address leads to it.
    proven = {address for address, keys in outside["keys"].items() if set(keys) & set(host["keys"])}
    own = set(host["addresses"]) | set(found["inventory"]) | proven
    foreign = [address for address in found["domain"] if address not in own]
    if foreign:
        known = ", ".join(sorted(set(host["addresses"]) | set(found["inventory"])))
        report["problems"].append(
            f"{domain} leads to {', '.join(foreign)}, which is not this host ({known}). Correct its A and AAAA records."
        )
    if not found["below"]:
        report["problems"].append(f"Names below {domain} have no address, so no tunnel can be visited. {records}")
    elif set(found["below"]) != set(found["domain"]):
        report["problems"].append(
            f"Names below {domain} lead to {', '.join(found['below'])}, the domain itself to "
            f"{', '.join(found['domain'])}. Let *.{domain} have the same records."
        )
    elif not foreign:
        report["fine"].append(f"{domain} and names below it lead here ({', '.join(found['domain'])}).")


def judge_ports(report: Report, settings: dict[str, Any], host: dict[str, Any], outside: dict[str, Any]) -> None:
    """Look at what the ports answered."""
    program = {"ssh": "sshd", "http": "caddy", "https": "caddy"}
    good = set()
    for answer in outside["answers"]:
        where, said = f"Port {answer['port']} ({answer['for']}) of {answer['address']}", answer["said"]
        if said.startswith("untested: "):
            report["untested"].append(f"{where}: {said.removeprefix('untested: ')}.")
        elif said:
            report["problems"].append(
                f"{where} does not answer: {said}. Open it in every firewall, and look at "
                f"`docker logs proxme-tunnel-{program[answer['for']]}` on the host."
            )
        else:
            good.add(answer["port"])
    if good:
        report["fine"].append(f"Ports that answer: {', '.join(map(str, sorted(good)))}.")
    if host["listener"].startswith("no answer"):
        report["problems"].append(
            f"The plain listener at {settings['listen']} gives {host['listener']}. Look at "
            "`docker logs proxme-tunnel-caddy` on the host."
        )


def judge_keys(report: Report, domain: str, host: dict[str, Any], outside: dict[str, Any]) -> None:
    """Compare the host keys that are shown with those that are stored."""
    if not host["keys"]:
        report["problems"].append("There are no host keys on the host. Run site.yml.")
        return
    if not outside["keys"]:
        report["untested"].append("Host keys: no ssh-keyscan where the check looks from, or no ssh port that answers.")
    for address, keys in outside["keys"].items():
        foreign = [key for key in keys if key not in host["keys"]]
        if not keys:
            report["untested"].append(f"Host keys: {address} showed none; it may limit connections. Try again later.")
        elif foreign:
            report["problems"].append(
                f"The ssh port of {address} shows the host key {fingerprint(foreign[0])}, and stored is "
                f"{' and '.join(map(fingerprint, host['keys']))}. Another ssh server answers for {domain}: look at the "
                "records and at what forwards that port; or sshd was not restarted after its keys had changed."
            )
        else:
            report["fine"].append(f"The ssh port of {address} shows the stored host keys.")


def life(pem: str, now: datetime.datetime) -> tuple[float, float]:
    """Return the days that a certificate has left, and those that it has in all."""
    read = x509.load_pem_x509_certificate(pem.encode())
    # cryptography before 42 knows no aware times, and from then on warns of naive ones.
    begin = getattr(read, "not_valid_before_utc", None) or read.not_valid_before.replace(tzinfo=datetime.UTC)
    end = getattr(read, "not_valid_after_utc", None) or read.not_valid_after.replace(tzinfo=datetime.UTC)
    return (end - now).total_seconds() / 86400, (end - begin).total_seconds() / 86400


def judge_life(report: Report, what: str, pem: str, now: datetime.datetime, todo: str) -> None:
    """Say how long a certificate lives."""
    left, whole = life(pem, now)
    if left <= 0:
        report["problems"].append(f"{what} has expired {-left:.0f} days ago. {todo}")
    elif left < whole / 4:
        report["warnings"].append(f"{what} has {left:.0f} days left of {whole:.0f}, and should be renewed. {todo}")
    else:
        report["fine"].append(f"{what} has {left:.0f} days left.")


def judge_certificates(
    report: Report, settings: dict[str, Any], host: dict[str, Any], outside: dict[str, Any], now: datetime.datetime
) -> None:
    """Look at the certificate that visitors are shown, and at those that the host keeps."""
    domain, shown = settings["domain"], outside["certificate"]
    logs = "systemctl status proxme-tunnel-certificate" if settings["by_certbot"] else "docker logs proxme-tunnel-caddy"
    todo = {
        "files": "Renew tunnel_certificate_file, and run site.yml.",
        "off": "Renew it in the web server that stands before this host.",
    }.get(settings["tls"], f"Look at `{logs}` on the host.")
    if not shown["pem"]:
        report["problems"].append(f"Visitors of https://{domain} get no certificate: {shown['distrust']}. {todo}")
    else:
        judge_life(report, f"The certificate of {domain}", shown["pem"], now, todo)
        if shown["distrust"]:
            kind = "warnings" if settings["own_authority"] else "problems"
            why = " Its authority is not a public one." if settings["own_authority"] else ""
            report[kind].append(f"The certificate of {domain} is not trusted: {shown['distrust']}.{why} {todo}")
    ended = 0
    for path, pem in host["certificates"].items():
        if "/own/" in path:
            judge_life(report, f"The certificate in {path}", pem, now, todo)
        else:
            ended += life(pem, now)[0] <= 0
    # On demand a name's certificate is renewed when the next visitor comes: one that ended alone is no fault.
    report["fine"].append(
        f"Certificates stored: {len(host['certificates'])}, {ended} of them ended with their tunnels."
    )


def judge_clock(report: Report, host: dict[str, Any], before: float, after: float) -> None:
    """Compare the clocks: the host read its own between `before` and `after`."""
    wrong = max(before - host["time"], host["time"] - after, 0)
    if wrong > CLOCK:
        report["problems"].append(
            f"The clocks of the host and of the control node differ by {wrong:.0f} s. Set up time synchronisation "
            "(systemd-timesyncd, chrony) where it is missing: certificates depend on it."
        )
    else:
        report["fine"].append("The clocks agree.")


def judge_machine(report: Report, host: dict[str, Any]) -> None:
    """Look at disks and memory."""
    for folder, sizes in host["disks"].items():
        free = sizes[0]
        if free < NEARLY_FULL:
            kind = "problems" if free < FULL else "warnings"
            report[kind].append(f"{folder} has {free // MIB} MiB free. Make room, or use a larger disk.")
        else:
            report["fine"].append(f"{folder} has {free // MIB} MiB free.")
    available, whole = host["memory"]
    if available < LITTLE_MEMORY:
        report["warnings"].append(
            f"{available // MIB} MiB of {whole // MIB} MiB memory are left. Use a larger server, or allow fewer "
            "connections."
        )
    else:
        report["fine"].append(f"{available // MIB} MiB of memory are left.")


def judge_containers(report: Report, edge: bool, host: dict[str, Any], now: datetime.datetime) -> None:
    """Look at the containers, with or without those of the edge, and the age of their images."""
    if host["engine"]:
        report["problems"].append(
            f"Docker does not answer: {host['engine']}. Run `systemctl start docker` on the host."
        )
        return
    names = ["network", "caddy-network", "resolver", "sshd", "nginx", "caddy", *(["edge", "relay"] if edge else [])]
    wanted = [f"proxme-tunnel-{name}" for name in names]
    wrong, old = False, {}
    for name in wanted:
        found = host["containers"].get(name)
        if not found:
            report["problems"].append(f"The container {name} is missing. Run site.yml.")
        elif found["state"] != "running":
            report["problems"].append(
                f"The container {name} is {found['state']}. Run `docker start {name}`, or site.yml."
            )
        wrong = wrong or not found or found["state"] != "running"
        if found:
            built = datetime.datetime.fromisoformat(found["created"][:19]).replace(tzinfo=datetime.UTC)
            # A reproducible image may say 1970: then its age is unknown.
            if built.year > 2000 and (now - built).days > OLD:
                old[found["image"]] = (now - built).days
    for image, days in old.items():
        report["warnings"].append(
            f"The image {image} was built {days} days ago and lacks security updates since. The section Update "
            "of docs/operate.md says how to have a newer one."
        )
    if not wrong:
        report["fine"].append(f"{len(wanted)} containers run.")


def judge_filter(report: Report, host: dict[str, Any]) -> None:
    """Look whether Docker's rules are in the host's packet filter."""
    if host["unled"]:
        report["problems"].append(
            "No rule of the host's packet filter leads these ports to the containers: "
            f"{', '.join(map(str, host['unled']))}. Something has removed Docker's rules (often a restart of nftables, "
            "or iptables-restore). Until they are back, tunnels and visitors do not come in, or all with one address, "
            "and Caddy reaches no authority. Run `systemctl restart docker` on the host; docs/docker.md says how the "
            "rules stay."
        )


def judge_tunnel(report: Report, outside: dict[str, Any]) -> None:
    """Look at how the real tunnel went."""
    state, said = outside["tunnel"]["state"], outside["tunnel"]["said"]
    if state == "works":
        report["fine"].append(f"A tunnel was opened and visited at {said}.")
    elif state == "untested":
        report["untested"].append(f"A real tunnel: {said}")
    else:
        report["problems"].append(f"A real tunnel did not work: {said}. docs/troubleshooting.md explains the message.")


def judge(
    settings: dict[str, Any], before: float, after: float, host: dict[str, Any], outside: dict[str, Any]
) -> Report:
    """Return what the module's docstring says."""
    report: Report = {"problems": [], "warnings": [], "untested": [], "fine": []}
    now = datetime.datetime.fromtimestamp(after, datetime.UTC)
    judge_names(report, settings, host, outside)
    judge_containers(report, settings["edge"], host, now)
    judge_filter(report, host)
    judge_ports(report, settings, host, outside)
    judge_keys(report, settings["domain"], host, outside)
    judge_certificates(report, settings, host, outside, now)
    judge_tunnel(report, outside)
    judge_clock(report, host, before, after)
    judge_machine(report, host)
    return report
