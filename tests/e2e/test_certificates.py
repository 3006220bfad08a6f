# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets a certificate: live names, so many new ones a week, and nobody else."""

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from world import Ca, Client, Host, Visitor, Web, until

LEDGER = "/var/lib/proxme-tunnel/nginx_subdomains/certificates"
NGINX, CADDY = "proxme-tunnel-nginx", "proxme-tunnel-caddy"
REFUSED = "tlsv1 alert internal error|TLS alert|internal error|ALERT"

# Handshakes for random names below a domain, a few at a time; prints how each ended.
HANDSHAKES = r"""
import asyncio, collections, json, secrets, socket, ssl, sys
domain, count = sys.argv[1], int(sys.argv[2])
address = socket.gethostbyname(domain)  # once: the name server is not what is tested
context = ssl.create_default_context(cafile="/run/root.pem")
context.check_hostname = False
results = collections.Counter()

async def shake(name, turn):
    async with turn:
        try:
            _, writer = await asyncio.wait_for(
                asyncio.open_connection(address, 443, ssl=context, server_hostname=name), 60)
            writer.close()
            results["certificate for " + name] += 1
        except ssl.SSLError as error:
            results[error.reason] += 1

async def main():
    turn = asyncio.Semaphore(100)
    words = ["{}", "guest-{}", "guest-{}--local", "a.{}", "www-{}"]
    names = [words[i % len(words)].format(secrets.token_hex(6)) + "." + domain for i in range(count)]
    await asyncio.gather(*(shake(name, turn) for name in names))
    print(json.dumps(results))

asyncio.run(main())
"""


def new_name() -> str:
    """A name that no test took before."""
    return f"guest-{secrets.token_hex(4)}"


def no_certificate(visitor: Visitor, url: str) -> None:
    """Expect that the handshake fails, and that it was the host who ended it."""
    answer = visitor.get(url)
    assert answer.status == 0
    assert re.search(REFUSED, answer.error), answer.error


def restart(host: Host, container: str) -> None:
    """Restart one of the host's containers and wait until it runs again."""
    host.docker("restart", container, timeout=60).expect()
    until("every container runs", host.all_up, within=30)
    if container == NGINX:
        until("nginx listens", lambda: host.inside(NGINX, "test", "-e", "/tmp/serving").code == 0)


@pytest.fixture
def budget(host: Host) -> Iterator[Callable[[int], None]]:
    """Call it to leave a budget of so many certificates; what was used up is given back at the end."""
    before = host.read(LEDGER)
    settings = host.read("/etc/proxme-tunnel/nginx_subdomains/settings.lua")
    week = int(re.findall(r"certificates_per_week = (\d+)", settings)[0])

    def leave(left: int) -> None:
        last_week = time.time() - 7 * 86400
        used = sum(int(line.split()[0]) > last_week for line in before.splitlines())
        fresh = [f"{int(time.time())} guest-filler-{number}\n" for number in range(week - used - left)]
        # Older than a week: they may be renewed, and count no more.
        old = [f"{int(last_week) - 60} guest-old-{number}\n" for number in range(10)]
        host.write(LEDGER, before + "".join(fresh + old))
        restart(host, NGINX)

    yield leave
    used = [line for line in host.read(LEDGER).splitlines() if not re.search(r" guest-(filler|old)-", line)]
    host.write(LEDGER, "".join(f"{line}\n" for line in used))
    restart(host, NGINX)


def test_the_certificate_is_the_ca_s(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """What a visitor is shown comes from the ACME CA and is for this very name."""
    with client.tunnel("guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        text = visitor.certificate(f"guest-x.{domain}")
    assert re.search(r"Issuer: .*Pebble Intermediate", text), text
    assert re.findall(r"DNS:(\S+)", text) == [f"guest-x.{domain}"]


def test_a_new_name_costs_one_order(client: Client, web: Web, visitor: Visitor, ca: Ca, domain: str) -> None:
    """Though its first visitors come all at once, and however often they come back."""
    name = new_name()
    with client.tunnel(f"{name}:80", to=web):
        before = ca.orders()
        url = f"https://{name}.{domain}/echo"
        one = shlex.join(["curl", "-sS", "--cacert", "/run/root.pem", "-o", "/dev/null", "-w", "%{http_code}\n", url])
        visitors = visitor.shell(f"for i in 1 2 3 4 5 6 7 8; do {one} & done; wait").expect()
        assert visitors.stdout.split() == ["200"] * 8, visitors.output
        assert visitor.get(url).status == 200
        assert ca.orders() == before + 1
    # Nor does its end cost one, or a visit after that.
    until("the name is nobody's", lambda: visitor.get(url).status == 404)
    assert ca.orders() == before + 1


def test_a_dead_name_gets_no_certificate(
    client: Client, web: Web, visitor: Visitor, ca: Ca, host: Host, domain: str
) -> None:
    """Nor does a name that can't be one; nobody asks the CA for it, and it costs nothing of the budget."""
    ledger, orders = host.read(LEDGER), ca.orders()
    names = [new_name(), "8099", "08080", f"a.b.{new_name()}", "public", "localhost", "x--y", "8099--local"]
    with client.tunnel("8080", "guest-x:80", to=web):
        for name in [*names, "a.guest-x", "08080", "73616", "guest-x--local--local"]:
            no_certificate(visitor, f"https://{name}.{domain}/")
    outside = visitor.get("https://stranger.example/", options=["--connect-to", f"stranger.example:443:{domain}:443"])
    assert outside.status == 0
    assert ca.orders() == orders
    assert host.read(LEDGER) == ledger


def test_a_thousand_dead_names_leave_no_order(
    client: Client, web: Web, visitor: Visitor, ca: Ca, host: Host, domain: str
) -> None:
    """A scanner that tries names gets nothing, and a new live name has its certificate all the same."""
    ledger, orders, names = host.read(LEDGER), ca.orders(), ca.ordered_names()
    scan = visitor.exec("python3", "-", domain, "1000", stdin=HANDSHAKES.encode(), timeout=180).expect()
    results = json.loads(scan.stdout)
    assert sum(results.values()) == 1000
    assert not [result for result in results if result.startswith("certificate for")], results
    assert (ca.orders(), ca.ordered_names()) == (orders, names)
    assert host.read(LEDGER) == ledger
    name = new_name()
    with client.tunnel(f"{name}:80", to=web):
        assert visitor.get(f"https://{name}.{domain}/").status == 200
    assert ca.ordered_names() - names == {f"{name}.{domain}"}


def test_new_names_have_a_budget(
    budget: Callable[[int], None], host: Host, client: Client, web: Web, visitor: Visitor, ca: Ca, domain: str
) -> None:
    """The shared account's names get so many new certificates a week; what was granted before may be renewed."""
    known, last, late = new_name(), new_name(), new_name()
    with client.tunnel(f"{known}:80", f"{last}:80", f"{late}:80", to=web):
        assert visitor.get(f"https://{known}.{domain}/").status == 200
        # One of the two is the known name's own, which the filling doesn't know of.
        budget(1)
        host.exec("sh", "-c", f"echo '{int(time.time())} {known}' >>{LEDGER}").expect()
        host.exec("sed", "-i", "0,/guest-filler/{/guest-filler/d}", LEDGER).expect()
        restart(host, NGINX)

        assert visitor.get(f"https://{last}.{domain}/").status == 200, "one was left"
        orders = ca.orders()
        no_certificate(visitor, f"https://{late}.{domain}/")
        no_certificate(visitor, f"https://{late}--local.{domain}/")
        # The ledger is read again, and says the same.
        restart(host, NGINX)
        no_certificate(visitor, f"https://{late}.{domain}/")
        assert ca.orders() == orders
        assert f"no certificate for {late}.{domain}" in host.docker("logs", NGINX).output
        for name in (known, last):
            assert visitor.get(f"https://{name}.{domain}/").status == 200

        # A known name whose certificate has to be ordered again.
        for folder in host.shell("ls -d /var/lib/proxme-tunnel/caddy_frontend/caddy/certificates/*").stdout.split():
            host.exec("rm", "-r", f"{folder}/{known}.{domain}").expect()
        restart(host, CADDY)
        until("the known name is served", lambda: visitor.get(f"https://{known}.{domain}/").status == 200)
        assert ca.orders() == orders + 1
        no_certificate(visitor, f"https://{late}.{domain}/")


def test_a_name_stays_known_while_it_is_renewed_and_to_its_own_authority_alone(
    budget: Callable[[int], None], host: Host, client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """The ledger remembers a name from the last question on, and which authority the answer was for."""
    ours, theirs = new_name(), new_name()
    settings = host.read("/etc/proxme-tunnel/nginx_subdomains/settings.lua")
    (authority,) = re.findall(r'authority = "(\S+)"', settings)
    budget(0)
    long_ago = int(time.time()) - 80 * 86400
    lines = f"{long_ago} {ours} {long_ago} {authority}\n{long_ago} {theirs} {long_ago} https://ca.example/directory\n"
    host.write(LEDGER, host.read(LEDGER) + lines)
    restart(host, NGINX)

    def remembered(name: str) -> list[list[str]]:
        return [line.split() for line in host.read(LEDGER).splitlines() if line.split()[1] == name]

    with client.tunnel(f"{ours}:80", f"{theirs}:80", to=web):
        assert visitor.get(f"https://{ours}.{domain}/").status == 200
        no_certificate(visitor, f"https://{theirs}.{domain}/")
    first, _, asked, _ = remembered(ours)[-1]
    assert (int(first), int(asked) > time.time() - 600) == (long_ago, True)
    assert remembered(theirs) == [[str(long_ago), theirs, str(long_ago), "https://ca.example/directory"]]
    restart(host, NGINX)
    assert remembered(ours) == [[first, ours, asked, authority]]
    assert len(remembered(theirs)) == 1


def test_a_restart_orders_nothing_again(
    client: Client, web: Web, visitor: Visitor, ca: Ca, host: Host, domain: str
) -> None:
    """Certificates and the ACME account outlive Caddy's container."""
    with client.tunnel("guest-x:80", "8080", to=web):
        urls = [f"https://{name}.{domain}/" for name in ("guest-x", "8080")] + [f"https://{domain}/"]
        assert [visitor.get(url).status for url in urls] == [200, 200, 200]
        certificate, orders = visitor.certificate(f"guest-x.{domain}"), ca.orders()
        accounts = len(re.findall("POST /sign-me-up", ca.logs()))
        restart(host, CADDY)
        until("the front end answers", lambda: visitor.get(urls[-1]).status == 200, within=20)
        assert [visitor.get(url).status for url in urls] == [200, 200, 200]
        assert visitor.certificate(f"guest-x.{domain}") == certificate
        assert ca.orders() == orders
        assert len(re.findall("POST /sign-me-up", ca.logs())) == accounts


def test_private_keys_are_shown_to_none_but_those_who_end_tls(
    client: Client, web: Web, visitor: Visitor, host: Host, domain: str
) -> None:
    """In no other container is a visitors' key, not even for Caddy's user; an authority's account is Caddy's own."""
    name = f"{new_name()}.{domain}"
    with client.tunnel(f"{name.partition('.')[0]}:80", to=web):
        until("it has a certificate", lambda: visitor.get(f"https://{name}/").status == 200)
    folder = "/var/lib/proxme-tunnel/caddy_frontend/caddy"
    [key] = host.shell(f"ls {folder}/certificates/*/{name}/{name}.key").expect().stdout.split()
    [account] = host.shell(f"ls {folder}/acme/*/users/*/*.key").expect().stdout.split()
    modes = host.exec("stat", "-c", "%a %u", folder, f"{folder}/certificates", key, account).expect().stdout
    assert modes.splitlines() == ["700 65532", "700 65532", "600 65532", "600 65532"]
    # All that is no program.
    script = (
        "cd /; for top in *; do case $top in bin|dev|lib*|proc|sbin|sys|usr) ;; *) grep -rlsF {} $top ;; esac; done"
    )
    script = script.format(" ".join(f"-e {shlex.quote(host.read(path).splitlines()[1])}" for path in (key, account)))
    found = set()
    for container in host.docker("ps", "--format", "{{.Names}}").expect().stdout.split():
        paths = host.docker("exec", "--user=65532", container, "sh", "-c", script).stdout.split()
        found |= {(container.partition("-old-")[0], path.rpartition("/")[2]) for path in paths}
    key, account = key.rpartition("/")[2], account.rpartition("/")[2]
    assert found == {(CADDY, key), (CADDY, account), ("proxme-tunnel-edge", key)}


def test_the_ask_door_is_not_to_be_reached(client: Client, web: Web, visitor: Visitor, host: Host, domain: str) -> None:
    """Nobody outside learns from it what is live, or uses up the budget: neither by port nor by any Host."""
    name = new_name()
    with client.tunnel(f"{name}:80", "guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        ledger = host.read(LEDGER)
        for address in (domain, f"guest-x.{domain}", f"ask.{domain}"):
            answer = visitor.get(f"http://{address}:9123/?domain={name}.{domain}", http="1.1", timeout=5)
            assert answer.status == 0
            assert "Failed to connect" in answer.error or "timed out" in answer.error, answer.error
        # Not even the host itself can come in, only Caddy in its own network namespace.
        assert not [entry for entry in host.listening() if entry.endswith(":9123")]

        hosts = [
            "ask",
            "127.0.0.1:9123",
            "127.0.0.1",
            "localhost",
            "localhost:9123",
            "[::1]:9123",
            "ask.sock",
            "tunnel",
        ]
        for asked in hosts:
            for path in ("/", "//127.0.0.1:9123/"):
                for url, http in ((f"http://guest-x.{domain}", "1.1"), (f"https://guest-x.{domain}", "2")):
                    target = f"{url}{path}?domain={name}.{domain}"
                    answer = visitor.get(target, http=http, headers={"Host": asked})
                    assert answer.status == 404, (asked, target, answer.body)
                    assert "<h1>" in answer.body
        # As a proxy is asked.
        proxied = visitor.get(
            f"http://127.0.0.1:9123/?domain={name}.{domain}", http="1.1", options=["-x", f"http://{domain}:80"]
        )
        assert proxied.status == 404
        assert "<h1>" in proxied.body
        assert host.read(LEDGER) == ledger
