# SPDX-License-Identifier: GPL-3.0-or-later
"""tunnels.lua: to which tunnel a host leads."""

from __future__ import annotations

import ipaddress

import pytest
from nginx import DOMAIN, address_of

# The label of a host.


@pytest.mark.parametrize(
    ("host", "label"),
    [
        *((f"{label}.{DOMAIN}", label) for label in ("8080", "guest-x", "guest-x--local", "a", "g" * 63 + "--local")),
        ("shop.example.org", "shop"),
        ("8080.example.org", "8080--local"),
    ],
)
def test_a_host_below_the_domain_or_a_custom_one_has_a_label(nginx, host, label):
    assert nginx.worker.tunnels.label_of(host) == label


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            ".",
            DOMAIN,
            f".{DOMAIN}",
            f"x{DOMAIN}",
            "example.com",
            f"guest-x.{DOMAIN}.",
            f"guest-x.{DOMAIN}.example.com",
        ),
        *(
            f"{label}.{DOMAIN}"
            for label in ("a.guest-x", "GUEST-X", "guest_x", "*", "<b>", "a b", "a/b", "%3Cb%3E", "ü")
        ),
        *(f"{label}.{DOMAIN}" for label in ("a\n", "a\0", "g" * 71, "x" * 300, "..", "a:80")),
        *("x.shop.example.org", "shop.example.org.", "SHOP.example.org", "shopxexample.org"),
        *("127.0.0.1", "::1", "guest-x", "guest-x.proxmexexample", "localhost"),
        *(f"guest-x{DOMAIN}", f"guest-xx{DOMAIN}", f"guest-x-{DOMAIN}"),
    ],
)
def test_any_other_host_has_none(nginx, host):
    assert not nginx.worker.tunnels.label_of(host)


# What a label leads to.


@pytest.mark.parametrize("port", [1, 80, 443, 2222, 8080, 9999, 10000, 65535])
def test_a_port_leads_to_this_port_of_localhost(nginx, port):
    assert nginx.find(str(port)) is False
    nginx.listen(str(port))
    nginx.wait(0.05)
    found = nginx.find(str(port))
    assert (found.name, found.address, found.port, found.scheme) == (str(port), "127.0.0.1", port, "http")
    assert found.localhost is None


@pytest.mark.parametrize("name", ["a", "guest-x", "blog", "shop2", "x" * 63])
@pytest.mark.parametrize(("port", "scheme"), [(80, "http"), (443, "https")])
def test_a_name_leads_to_port_80_or_443_of_the_address_that_it_hashes_to(nginx, name, port, scheme):
    assert nginx.find(name) is False
    nginx.listen(f"{name}:{port}")
    nginx.wait(0.05)
    found = nginx.find(name)
    assert (found.name, ipaddress.ip_address(found.address), found.port) == (name, address_of(name), port)
    assert (found.scheme, found.localhost) == (scheme, None)


@pytest.mark.parametrize(
    ("label", "name", "localhost"),
    [
        ("8080--local", "8080", "localhost:8080"),
        ("80--local", "80", "localhost:80"),
        ("guest-x--local", "guest-x", "localhost"),
        # The visitor says the port; what is dialled stays.
        *((f"guest-x--local-{port}", "guest-x", f"localhost:{port}") for port in (1, 80, 8000, 65535)),
        ("8080--local-8000", "8080", "localhost:8000"),
    ],
)
def test_under_local_the_same_tunnel_is_told_that_it_is_localhost(nginx, label, name, localhost):
    nginx.listen("8080", "80", "guest-x:80")
    found, plain = nginx.find(label), nginx.find(name)
    assert (found.name, found.address, found.port) == (plain.name, plain.address, plain.port)
    assert (found.localhost, plain.localhost) == (localhost, None)


@pytest.mark.parametrize(
    "label",
    [
        # 8080 written otherwise, also modulo 2 ** 16 and 2 ** 32; and what is no port.
        *(
            "08080",
            "008080",
            "73616",
            "4294975376",
            "8080-",
            "-8080",
            "8080--",
            "8080x",
            "0x1f90",
            "8e3",
            "8080.0",
            "+8080",
        ),
        *("0", "00", "65536", "65537", "99999", "100000", "8080--local--local", "08080--local", "73616--local"),
        # guest-x written otherwise.
        *("guest--x", "guest-x-", "-guest-x", "guest-x--", "guest-x--local--local", "guest-x--locale", "xguest-x"),
        # What follows --local is written in one way, too.
        *(
            f"guest-x--local{port}"
            for port in ("-", "-0", "-08000", "-65536", "-80000", "8000", "--8000", "-8000-", "-x")
        ),
        *(f"guest-x--local-8000{more}" for more in ("--local", "--local-8000", "-1", "x")),
        *("guest-x--local--local-8000", "08080--local-8000", "--local-8000", "-8000", "guest-x-local-8000"),
        *("--local", "", "-", "--", "local", "1guest", "127-0-0-1", "g" * 64, "g" * 70),
    ],
)
def test_a_label_has_no_alias(nginx, label):
    nginx.listen("8080", "1", "80", "65535", "guest-x:80", "guest:80", f"{'g' * 63}:80")
    assert nginx.find(label) is False


def test_an_alias_does_not_even_lead_to_an_address_of_its_own(nginx):
    """Something listens there, but nobody could have got that from sshd."""
    aliases = ["guest--x", "guest-x--local", "guest-x-", "08080", "1guest"]
    nginx.listen("guest-x:80", *(f"{alias}:80" for alias in aliases))
    assert [alias for alias in aliases if nginx.find(alias) and nginx.find(alias).name != "guest-x"] == []
    assert nginx.find("guest-x--local").name == "guest-x"


@pytest.mark.parametrize("label", ["www", "public", "localhost", "www--local", "public--local", "www--local-8000"])
def test_a_reserved_label_leads_nowhere(nginx, label):
    nginx.listen("www:80", "public:80", "localhost:80", "www:443")
    assert nginx.find(label) is False


@pytest.mark.parametrize(
    "label", ["guest-phish", "guest-phish--local", "guest-phish--local-8000", "8666", "8666--local", "8666--local-1"]
)
def test_a_blocked_label_leads_nowhere(nginx, label):
    nginx.listen("guest-phish:80", "8666")
    assert nginx.worker.tunnels.is_blocked(label)
    assert nginx.find(label) is False


@pytest.mark.parametrize("label", ["guest-x", "guest-phish2", "guest-phis", "8665", "guest-phish--local--local"])
def test_no_other_label_is_blocked(nginx, label):
    assert not nginx.worker.tunnels.is_blocked(label)


def test_a_name_of_another_port_is_no_tunnel(nginx):
    nginx.listen("guest-x:8080", "guest-x:81")
    assert nginx.find("guest-x") is False


def test_a_name_that_ends_like_it_is_its_own(nginx):
    """A name has no double hyphen: guest-x-local-8000 is one, and not guest-x."""
    nginx.listen("guest-x-local-8000:80")
    assert nginx.find("guest-x-local-8000").localhost is None
    assert nginx.find("guest-x-local-8000--local-8000").localhost == "localhost:8000"
    assert nginx.find("guest-x--local-8000") is False


def test_what_is_asked_for_before_it_is_there_is_found_later_and_gone_later(nginx):
    """What a label means is remembered; whether somebody holds it is not."""
    for label, forward in (("guest-x", "guest-x:80"), ("8080", "8080")):
        for _ in range(2):
            assert nginx.find(label) is False
            nginx.listen(forward)
            nginx.wait(0.05)
            assert nginx.find(label)
            nginx.end(forward)
            nginx.wait(1)
            assert nginx.find(label) is False


# Which of a name's two ports.


def test_port_80_comes_before_443(nginx):
    nginx.listen("guest-x:443", "guest-x:80")
    assert nginx.find("guest-x").port == 80


@pytest.mark.parametrize(("first", "second"), [(80, 443), (443, 80)])
def test_whoever_is_visited_stays_so_when_another_client_takes_the_other_port(nginx, first, second):
    nginx.listen(f"guest-x:{first}")
    assert nginx.find("guest-x").port == first
    nginx.listen(f"guest-x:{second}")
    for wait in (0, 0.1, 1, 5, 3600, 100 * 86400):
        nginx.wait(wait)
        assert nginx.find("guest-x").port == first, wait
        assert nginx.find("guest-x--local").port == first, wait
    # In another worker and after a reload, too.
    nginx.reload()
    assert nginx.find("guest-x").port == first


@pytest.mark.parametrize(("first", "second"), [(80, 443), (443, 80)])
def test_when_the_visited_one_ends_the_other_one_is_visited_and_stays_so(nginx, first, second):
    nginx.listen(f"guest-x:{first}")
    assert nginx.find("guest-x").port == first
    nginx.listen(f"guest-x:{second}")
    nginx.end(f"guest-x:{first}")
    nginx.wait(1)
    assert nginx.find("guest-x").port == second
    nginx.listen(f"guest-x:{first}")
    nginx.wait(1)
    assert nginx.find("guest-x").port == second


def test_when_a_name_was_nobodys_port_80_comes_first_again(nginx):
    nginx.listen("guest-x:443")
    assert nginx.find("guest-x").port == 443
    nginx.end("guest-x:443")
    nginx.wait(1)
    assert nginx.find("guest-x") is False
    nginx.listen("guest-x:80", "guest-x:443")
    nginx.wait(0.05)
    assert nginx.find("guest-x").port == 80


def test_names_are_held_each_for_itself(nginx):
    nginx.listen("guest-x:443", "guest-y:443", "guest-y:80")
    assert [nginx.find(name).port for name in ("guest-x", "guest-y")] == [443, 80]


# Where it is dialled from.


@pytest.mark.parametrize("label", ["8080", "8080--local", "guest-x", "guest-x--local"])
def test_the_source_is_a_random_port_of_a_random_address_that_no_tunnel_can_hold(nginx, label):
    """So nobody can take all ports to dial from. Tunnels have 127.0.0.1 and the addresses of names alone."""
    nginx.listen("8080", "guest-x:80")
    find, found = nginx.worker.tunnels.find, []
    for _ in range(3000):
        address, _, port = nginx.call(find, label).source.rpartition(":")
        found.append((ipaddress.ip_address(address.strip("[]")), int(port)))
        assert address.startswith("[") == (found[-1][0].version == 6)
    addresses, ports = {address for address, _ in found}, {port for _, port in found}
    assert all(1024 <= port <= 65535 for port in ports)
    assert (min(ports) < 2000, max(ports) > 64000, len(ports) > 2500) == (True, True, True)
    assert len(addresses) > 2900
    if label.startswith("8080"):
        network = ipaddress.ip_network("127.64.0.0/10")
        assert {address.packed[3] for address in addresses} == set(range(1, 255))
    else:
        network = ipaddress.ip_network("fd74::/32")
        assert {address.packed[-4:] for address in addresses} == {b"\0\0\0\1"}
    assert [address for address in addresses if address not in network] == []
    # All of the network is used.
    half = network.network_address + network.num_addresses // 2
    assert 0.4 < sum(address > half for address in addresses) / len(addresses) < 0.6


@pytest.mark.parametrize("label", ["8080", "guest-x"])
def test_what_a_service_speaks_is_known_of_this_tunnel_and_not_of_the_next(nginx, label):
    nginx.listen("8080", "guest-x:80")
    speaks, tunnel = nginx.worker.tunnels.speaks, nginx.find(label)
    assert speaks(tunnel) is None
    speaks(tunnel, "h1")
    assert speaks(nginx.find(label)) == "h1"
    tunnel.socket = "4711"
    assert speaks(tunnel) is None
