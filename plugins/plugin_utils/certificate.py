# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check the operator's certificate and key, and put them together for Caddy.

Runs on the control node (plugins/action/certificate.py), with the library that ansible-core itself needs. `check` is
given both files (PEM), the domain, the time (UTC), and `as_it_is`, whether Caddy reads the two files as they are. It
returns

    problems   sentences about what is wrong; if there are any, nothing may be changed
    warnings   sentences about what an operator should know
    pem        the certificate, those that it is signed by, and the key; with `as_it_is` both files as
               install-certificate puts them together, or each would undo the other's work
"""

from __future__ import annotations

import datetime
import re
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
except ImportError:  # ansible-core needs it; its sanity test alone imports this without
    x509 = serialization = None

READABLE = re.compile(r"CERTIFICATE|EC PARAMETERS|([A-Z]+ )?PRIVATE KEY")  # to Caddy
SOON = datetime.timedelta(days=21)  # an operator has weeks to renew by hand


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the host names that a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def check(certificate: str, key: str, domain: str, now: datetime.datetime, *, as_it_is: bool = False) -> dict[str, Any]:
    """Return what the module's docstring says."""
    problems, warnings = [], []
    odd = [kind for kind in re.findall(r"-----BEGIN ([^-]+)-----", certificate + key) if not READABLE.fullmatch(kind)]
    if as_it_is and odd:
        problems.append(f"The files hold {', '.join(odd)}, which Caddy can't read. Take that part out of them.")
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        chain = []
        problems.append("The certificate's file holds no certificate in PEM. Write the path of a fullchain.pem.")
    try:
        secret = serialization.load_pem_private_key(key.encode(), password=None)
    except TypeError:
        secret = None
        problems.append("The key is encrypted. Caddy can't ask for its password: write it out with openssl pkey.")
    except ValueError:
        secret = None
        problems.append("The key's file holds no private key in PEM. Write the path of a privkey.pem.")
    if not chain or secret is None:
        return {"problems": problems, "warnings": warnings, "pem": ""}
    leaf, names = chain[0], names_of(chain[0])
    if public(leaf.public_key()) != public(secret.public_key()):
        problems.append("The key does not belong to the certificate. Write the two files of one order.")
    for wanted in (domain, f"*.{domain}"):
        if wanted not in names:
            problems.append(
                f"The certificate is for {', '.join(names) or 'no name'}, not for {wanted}. Order one for {domain} and "
                f"*.{domain}."
            )
    # cryptography before 42 knows no aware times, and from then on warns of naive ones.
    begin = getattr(leaf, "not_valid_before_utc", None) or leaf.not_valid_before.replace(tzinfo=datetime.UTC)
    end = getattr(leaf, "not_valid_after_utc", None) or leaf.not_valid_after.replace(tzinfo=datetime.UTC)
    if end <= now:
        problems.append(f"The certificate has expired ({end:%Y-%m-%d %H:%M} UTC). Renew it.")
    elif begin > now:
        problems.append(
            f"The certificate is valid from {begin:%Y-%m-%d %H:%M} UTC on only. Look at the clocks, or wait."
        )
    elif end - now < SOON and end - now < (end - begin) / 3:
        warnings.append(f"The certificate expires on {end:%Y-%m-%d %H:%M} UTC. Renew it, and run again.")
    parts = [piece.public_bytes(serialization.Encoding.PEM).decode() for piece in chain]
    pem = f"{certificate}\n{key}" if as_it_is else "".join(parts) + key.strip() + "\n"
    return {"problems": problems, "warnings": warnings, "pem": pem}


def public(key: Any) -> bytes:  # noqa: ANN401 (the library has a type for each kind)
    """Return a public key in a form that can be compared."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
