# SPDX-License-Identifier: GPL-3.0-or-later
"""certbot's plugin for signed updates (RFC 2136), which writes the challenge to where a CNAME leads.

certbot-dns-rfc2136 5.8.0 asks for the zone of _acme-challenge.DOMAIN and writes there, also where that name is a CNAME
of one in another zone, as the CA follows it. This is the same plugin with another name to write to. It is no hook of
certbot's: certbot goes on when a hook has failed, and the CA counts the validation that then fails.
"""

import functools
import secrets

import dns.exception
import dns.resolver
from certbot import errors
from certbot_dns_rfc2136._internal import dns_rfc2136


@functools.cache
def end_of_aliases(name: str) -> str:
    """Return the name that a CNAME leads to, or the name itself; it stays the same for this run, to clean up there.

    A CNAME of *.DOMAIN covers every name that has no record, and no longer covers this one once it has one: it is not
    followed.
    """
    target = canonical(name)
    anything = f"{secrets.token_hex(8)}.{name.partition('.')[2]}"
    return name if target == canonical(anything) else target


def canonical(name: str) -> str:
    """Ask the host's resolver where a name's CNAMEs lead."""
    try:
        return dns.resolver.canonical_name(f"{name}.").to_text(omit_final_dot=True)
    except dns.exception.DNSException as error:
        raise errors.PluginError(f"Can't find out whether {name} is a CNAME: {error}") from error


class Authenticator(dns_rfc2136.Authenticator):
    """The plugin certbot-dns-rfc2136, which follows CNAMEs."""

    description = "Obtain certificates using a DNS TXT record, updated by RFC 2136 where a CNAME leads."

    def _perform(self, domain: str, validation_name: str, validation: str) -> None:
        super()._perform(domain, end_of_aliases(validation_name), validation)

    def _cleanup(self, domain: str, validation_name: str, validation: str) -> None:
        super()._cleanup(domain, end_of_aliases(validation_name), validation)
