# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look at a tunnel host as visitors and clients do (plugins/modules/doctor_outside.py).

`look` is given what `question` makes of the module's options:

    domain       of the tunnel host, and `inventory`, the address or name that Ansible connects to ("" for none)
    ports        {"ssh": 2222, "http": 80, "https": 443}; one that is not to be tried is left out
    keys         the host's stored public keys, "TYPE BASE64" each
    account      the shared account, "" if there is no tunnel to be tried, and `why` there is none
    label        the label that the tunnel shall have, and `forward`, what stands for it before the target after -R

and returns what judge.py makes sentences of:

    addresses    {"domain", "below" (a random name below it), "inventory"} -> addresses, empty if there are none
    answers      [{"address", "port", "for" (ssh, http, https), "said"}]; said is "" if all is well, else the reason
    keys         address -> the host keys that its ssh port shows; left out where there is no ssh-keyscan
    certificate  of the domain: {"pem" ("" if none came), "distrust" (why this machine does not trust it, or "")}
    tunnel       {"state": "works", "fails" or "untested", "said"}
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import http.server
import pathlib
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

PATIENCE = 10  # seconds for one connection
FIRST_VISIT = 40  # seconds for the first answer through a tunnel: a certificate may have to be ordered for it


def resolve(name: str) -> list[str]:
    """Return the addresses of a name, as this machine's resolver has them."""
    try:
        return sorted({info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except socket.gaierror:
        return []


def unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate: whether it is trusted is asked separately."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def answer(address: str, port: int, kind: str, domain: str) -> str:
    """Try one port; "" if it answers as it should, "untested: …" if this machine can't reach any such address."""
    try:
        with socket.create_connection((address, port), PATIENCE) as connection:
            if kind == "ssh":
                banner = connection.recv(64)
                return "" if banner.startswith(b"SSH-2") else f"it said {banner!r}, which is no ssh server"
            if kind == "https":
                with unverified().wrap_socket(connection, server_hostname=domain):
                    return ""
            connection.sendall(f"HEAD / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
            start = connection.recv(64)
            return "" if start.startswith(b"HTTP/") else f"it said {start!r}, which is no web server"
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
            return f"untested: {error.strerror}"
        return str(error) or type(error).__name__


def shown_keys(address: str, port: int) -> list[str]:
    """Return the host keys that an ssh port shows, "TYPE BASE64" each."""
    command = ["ssh-keyscan", "-T", str(PATIENCE), "-t", "ed25519,rsa,ecdsa", "-p", str(port), address]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=6 * PATIENCE)
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    return sorted(" ".join(line[1:3]) for line in lines if len(line) >= 3)


@contextlib.contextmanager
def secured(domain: str, port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Connect with TLS."""
    address = (domain, port)
    with socket.create_connection(address, PATIENCE) as plain, context.wrap_socket(plain, server_hostname=domain) as it:
        yield it


def certificate(domain: str, port: int) -> dict[str, str]:
    """Return the certificate that visitors of the domain are shown, and why they would not trust it."""
    pem, distrust = "", ""
    trusting = ssl.create_default_context()
    # As browsers do: from 3.13 on Python asks for more than they do.
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        with secured(domain, port, unverified()) as connection:
            pem = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
        with secured(domain, port, trusting):
            pass
    except ssl.SSLCertVerificationError as error:
        distrust = error.verify_message
    except OSError as error:
        distrust = str(error) or type(error).__name__
    return {"pem": pem, "distrust": distrust}


@contextlib.contextmanager
def web_service(text: bytes) -> Iterator[int]:
    """Serve a text at a free port of this machine's loopback; yields the port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing: standard output is the report."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def visit(name: str, port: int) -> bytes | str:
    """Return the body of a name's page, or why there is none."""
    try:
        connection = http.client.HTTPSConnection(name, port, timeout=PATIENCE, context=unverified())
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return body if response.status == 200 else f"HTTP {response.status}"


def tunnel(given: dict[str, Any]) -> dict[str, str]:
    """Open a tunnel to a web service of our own, and visit it under its public name."""
    if not given["account"]:
        return {"state": "untested", "said": given["why"]}
    if not shutil.which("ssh"):
        return {"state": "untested", "said": "There is no ssh here."}
    domain, ports, text = given["domain"], given["ports"], secrets.token_hex(16).encode()
    name = f"{given['label']}.{domain}"
    with tempfile.TemporaryDirectory() as folder, web_service(text) as service:
        known, log = pathlib.Path(folder, "known_hosts"), pathlib.Path(folder, "log")
        where = domain if ports["ssh"] == 22 else f"[{domain}]:{ports['ssh']}"
        known.write_text("".join(f"{where} {key}\n" for key in given["keys"]))
        options = [
            "BatchMode=yes",
            f"ConnectTimeout={PATIENCE}",
            "ExitOnForwardFailure=yes",
            "StrictHostKeyChecking=yes",
        ]
        options += [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null"]
        command = ["ssh", "-F", "none", "-p", str(ports["ssh"]), *(f"-o{option}" for option in options)]
        command += ["-NR", f"{given['forward']}:127.0.0.1:{service}", f"{given['account']}@{domain}"]
        with log.open("w") as output:
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline, seen = time.monotonic() + FIRST_VISIT, visit(name, ports["https"])
            while seen != text and client.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
                seen = visit(name, ports["https"])
        finally:
            client.terminate()
            client.wait(PATIENCE)
        if seen == text:
            return {"state": "works", "said": f"https://{name}"}
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = f"https://{name}: {seen if isinstance(seen, str) else 'another page'}"
        return {"state": "fails", "said": f"{said}; ssh said: {lines[-1] if lines else 'nothing'}"}


def question(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is to be looked at, from the module's options."""
    why = ""
    if not options["shared_account"]:
        why = "the shared account is off."
    elif options["asks_for_key"]:
        why = "the shared account asks for a key."
    elif not options["guest_names"] and not options["port_labels"]:
        why = "the shared account may take neither guest names nor ports."
    # Always the same label: where certificates are ordered on demand, each new one would cost one of the week's.
    label = options["guest_names"].replace("*", "check") or "61999"
    ports = {kind: options[f"{kind}_port"] for kind in ("ssh", "https", "http") if options[f"{kind}_port"]}
    return {
        "domain": options["domain"],
        "inventory": options["inventory"],
        "ports": ports,
        "keys": options["host_keys"],
        "account": "" if why else options["shared_account_name"],
        "why": why,
        "label": label,
        "forward": f"{label}:80" if options["guest_names"] else label,
    }


def look(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the module's docstring says."""
    domain, ports = given["domain"], given["ports"]
    addresses = {
        "domain": resolve(domain),
        "below": resolve(f"check-{secrets.token_hex(4)}.{domain}"),
        "inventory": resolve(given["inventory"]) if given["inventory"] else [],
    }
    answers = [
        {"address": address, "port": port, "for": kind, "said": answer(address, port, kind, domain)}
        for address in addresses["domain"]
        for kind, port in ports.items()
    ]
    keys = {}
    if shutil.which("ssh-keyscan"):
        open_ones = [answered["address"] for answered in answers if answered["for"] == "ssh" and not answered["said"]]
        keys = {address: shown_keys(address, ports["ssh"]) for address in open_ones}
    return {
        "addresses": addresses,
        "answers": answers,
        "keys": keys,
        "certificate": certificate(domain, ports["https"]),
        "tunnel": tunnel(given),
    }
