# SPDX-License-Identifier: GPL-3.0-or-later
"""The two packet filters and the list of the barred: nft takes them, and packets are let through as they say.

Each case is loaded by the image's own script in a network namespace with a cable to a second one, which stands for all
the world. Then the same packets are sent by everybody to everybody, and nft's own tables say which of them got through.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from programs import Program
from render import in_every_case, render

POD, FRONT = "tunnel_pod", "caddy_frontend"
GATEWAY, VISITOR, NEIGHBOUR, CA = "192.0.2.1", "198.51.100.7", "10.9.9.9", "203.0.113.80"
GATEWAY6, VISITOR6, NEIGHBOUR6, CA6 = "2001:db8::1", "2001:db8:7::7", "fd00::9", "2001:db8:80::80"
INSIDE, INSIDE6 = "192.0.2.2", "2001:db8::2"
FAR = (GATEWAY, VISITOR, NEIGHBOUR, CA, GATEWAY6, VISITOR6, NEIGHBOUR6, CA6)

# A protocol, the address at the far end, the port that it goes to, and the one that it comes from where that matters.
Packet = tuple[str, str, int] | tuple[str, str, int, int]
IN: list[Packet] = [
    (protocol, far, port)
    for far in FAR
    for protocol, ports in {
        "tcp": (22, 53, 80, 443, 2019, 2221, 2222, 2223, 8080, 8081, 8443, 9123, 9321, 29999, 30000, 30009, 30010),
        "udp": (53, 80, 443, 2222, 8443, 30000),
    }.items()
    for port in ports
]
OUT: list[Packet] = [
    (protocol, far, port)
    for far in FAR
    for protocol in ("tcp", "udp")
    for port in (22, 25, 53, 80, 443, 2222, 8555, 14000)
]
# From the ports that answers come from; and to itself, which is always free and shows that packets are seen at all.
ANSWERED = [
    (protocol, far, 4433, port) for far in (CA, CA6) for protocol in ("tcp", "udp") for port in (2222, 443, 8443)
]
SELF: list[Packet] = [("tcp", INSIDE, 25), ("udp", INSIDE6, 25)]
OUT += [*ANSWERED, *SELF]

TRY = r"""
nft -c -D gateway=192.0.2.1 -f /etc/proxme-tunnel/filter.nft
unshare -n sleep 60 & inside=$!
unshare -n sleep 60 & outside=$!
trap 'kill $inside $outside' EXIT
for holder in $inside $outside; do
  while [ "$(readlink /proc/$holder/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
done
# Whoever is at an end of the cable is known to the other from the start.
nsenter -t $inside -n sh -euc '
  ip link add eth0 address 02:00:00:00:00:02 type veth peer name eth0 address 02:00:00:00:00:01 netns '$outside'
  ip -batch - <<END
    link set lo up
    link set eth0 up
    address add 192.0.2.2/24 dev eth0
    address add 2001:db8::2/64 dev eth0 nodad
    neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0
    neigh replace 2001:db8::1 lladdr 02:00:00:00:00:01 dev eth0
    route add default via 192.0.2.1
    route add default via 2001:db8::1
END
  apply-filter
  nft -j list ruleset
  # What comes to the filter, what it lets in, and what it lets out: first packets of TCP, and all of UDP.
  nft -f - <<END
    table inet seen {
      set in4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 999; }
      set in6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic; size 999; }
      set out4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 999; }
      set out6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic; size 999; }
      set come4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 999; }
      set come6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic; size 999; }
      chain come {
        type filter hook prerouting priority -400;
        iif eth0 tcp flags & (syn | ack) == syn jump note_come
        iif eth0 meta l4proto udp jump note_come
      }
      chain note_come {
        add @come4 { meta l4proto . ip saddr . th sport . ip daddr . th dport }
        add @come6 { meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport }
      }
      chain in {
        type filter hook input priority 100;
        tcp flags & (syn | ack) == syn jump note_in
        meta l4proto udp jump note_in
      }
      chain note_in {
        iif != eth0 return
        add @in4 { meta l4proto . ip saddr . th sport . ip daddr . th dport }
        add @in6 { meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport }
      }
      chain out {
        type filter hook postrouting priority 100;
        tcp flags & (syn | ack) == syn jump note_out
        meta l4proto udp jump note_out
      }
      chain note_out {
        add @out4 { meta l4proto . ip saddr . th sport . ip daddr . th dport }
        add @out6 { meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport }
      }
    }
END
'
nsenter -t $outside -n ip -batch - <<END
  link set lo up
  link set eth0 up
  address add 192.0.2.1/24 dev eth0
  address add 2001:db8::1/64 dev eth0 nodad
  neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev eth0
  neigh replace 2001:db8::2 lladdr 02:00:00:00:00:02 dev eth0
$(for address in FAR; do echo "address add $address dev lo"; done)
END
for way in "$outside in" "$inside out"; do
  nsenter -t ${way% *} -n perl -MSocket=:all -ne '
    my ($protocol, @ends) = split;
    my ($here, $there) = map { (getaddrinfo(shift @ends, shift @ends, {
      flags => AI_NUMERICHOST, socktype => $protocol eq "tcp" ? SOCK_STREAM : SOCK_DGRAM }))[1] } 1, 2;
    socket my $socket, $here->{family}, $here->{socktype} | SOCK_NONBLOCK, 0 or die $!;
    bind $socket, $here->{addr} or die "$_: $!";
    connect $socket, $there->{addr};
    send $socket, "x", 0 if $protocol eq "udp";
    push @kept, $socket;' /etc/proxme-tunnel/${way#* }
done
seen() { for set in "$@"; do nsenter -t $inside -n nft -j list set inet seen $set; done; }
tries=0
until [ "$(seen come4 come6 | grep -o concat | wc -l)" -eq "$(wc -l </etc/proxme-tunnel/in)" ]; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || { echo "not all packets came to the filter" >&2; exit 1; }
  sleep 0.05
done
seen in4 in6 out4 out6
""".replace("in FAR;", f"in {' '.join(address for address in FAR if address not in (GATEWAY, GATEWAY6))};")


def tuples(way: str) -> dict[tuple[int, str, int, str, int], Packet]:
    """All packets of one way, by what nft sees of them."""
    found = {}
    for number, packet in enumerate({"in": IN, "out": OUT}[way]):
        protocol, far, port, *source = packet
        near = INSIDE6 if ":" in far else INSIDE
        here, there = (far, near) if way == "in" else (near, far)
        found[{"tcp": 6, "udp": 17}[protocol], here, source[0] if source else 40000 + number, there, port] = packet
    return found


PROTOCOLS = {6: "tcp", 17: "udp"}
SENT = {
    way: "".join(f"{PROTOCOLS[number]} {' '.join(map(str, rest))}\n" for number, *rest in tuples(way))
    for way in ("in", "out")
}


class Filtered:
    """What a filter made of all packets."""

    def __init__(self, holder: Program, files: dict[str, str]) -> None:
        """Try the file filter.nft and what it includes."""
        self.files = files
        text = holder.accept(files | SENT, TRY)
        decoder, tables = json.JSONDecoder(), []
        while text := text.lstrip():
            table, end = decoder.raw_decode(text)
            tables.append(table["nftables"])
            text = text[end:]
        ruleset, *sets = tables
        own = [thing for entry in ruleset for thing in entry.items() if thing[1].get("table") in ("tunnel", "front")]
        self.chains = {chain["name"]: chain | {"rules": []} for kind, chain in own if kind == "chain"}
        for rule in (rule for kind, rule in own if kind == "rule"):
            self.chains[rule["chain"]]["rules"].append(rule["expr"])
        seen = [
            {tuple(entry["concat"]) for item in found if "set" in item for entry in item["set"].get("elem", [])}
            for found in sets
        ]
        self.came_in = {tuples("in")[packet] for packet in seen[0] | seen[1]}
        self.went_out = {tuples("out")[packet] for packet in seen[2] | seen[3]}


# --- the tunnels' namespace ------------------------------------------------------------------------------------------

PODS: dict[str, dict[str, Any]] = {
    "default": {},
    "ports": {"tunnel_pod_tcp_ports": "30000-30009"},
    "one port": {"tunnel_pod_tcp_ports": "30000"},
    "bandwidth": {"tunnel_pod_bandwidth_per_name": 5},
    "limits": {"tunnel_pod_connections_per_address": 3, "tunnel_pod_connections_per_minute": 7},
    "barred": {"tunnel_pod_barred_addresses": [VISITOR, "2001:db8:7::/48", "198.51.100.0/30", VISITOR]},
}
PODS["everything"] = {name: value for case in PODS.values() for name, value in case.items()}
each_pod = in_every_case("pod", PODS)


@pytest.fixture(scope="module")
def pod(holder):
    """Return a function that gives what the filter of a case does."""
    known: dict[str, Filtered] = {}

    def give(case: str) -> Filtered:
        if case not in known:
            known[case] = Filtered(holder, pod_files(PODS[case]))
        return known[case]

    return give


def pod_files(given: dict[str, Any]) -> dict[str, str]:
    """The filter of the tunnels, and who is barred."""
    given = {"tunnel_pod_domain": "proxme.example.com", **given}
    return {name: render(POD, f"{name}.j2", **given) for name in ("filter.nft", "barred.nft")}


def test_a_filter_that_nft_does_not_know_is_refused(holder):
    files = pod_files({})
    broken = files["filter.nft"].replace("policy drop", "policy deny")
    done = holder.read(files | {"filter.nft": broken}, "nft -c -D gateway=192.0.2.1 -f /etc/proxme-tunnel/filter.nft")
    assert done.returncode
    assert "deny" in done.stderr


@each_pod
def test_connections_come_in_to_sshd_and_the_public_ports_alone(made, case):
    first, _, last = PODS[case].get("tunnel_pod_tcp_ports", "").partition("-")
    published = range(int(first), int(last or first) + 1) if first else ()
    barred = {VISITOR, VISITOR6} if "tunnel_pod_barred_addresses" in PODS[case] else set()
    assert made.came_in == {
        (protocol, far, port)
        for protocol, far, port in IN
        if protocol == "tcp" and (port == 2222 or port in published) and far not in barred
    }
    assert made.chains["in"]["policy"] == "drop"


@each_pod
def test_nothing_goes_out_of_the_tunnels_by_itself(made, case):
    """Not even from the ports that answers come from."""
    assert made.went_out == set(SELF)
    chain = made.chains["out"]
    assert (chain["hook"], chain["policy"]) == ("output", "drop")
    # To itself, answers, who the neighbours are, and that a port of ours is closed.
    assert len(chain["rules"]) == 4
    assert chain["rules"][0][0]["match"]["right"] == "lo"
    assert chain["rules"][1][0]["match"]["right"] == ["established", "related"]
    assert chain["rules"][2][0]["match"]["right"] == {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]}
    assert chain["rules"][3][-2]["match"]["right"] == "rst"


@each_pod
def test_one_address_has_the_connections_that_were_given_and_the_gateway_ten_times_as_many(made, case):
    rules = json.dumps(made.chains["in"]["rules"])
    count = PODS[case].get("tunnel_pod_connections_per_address", 20)
    rate = PODS[case].get("tunnel_pod_connections_per_minute", 200)
    for table, value in {"hidden": 10 * count, "per_source4": count, "per_source6": count}.items():
        assert f'"set": "@{table}", "stmt": [{{"ct count": {{"val": {value}, "inv": true}}}}]' in rules
    for table in ("rate4", "rate6"):
        limit = f'{{"rate": {rate}, "burst": {rate}, "per": "minute", "inv": true}}'
        assert f'"set": "@{table}", "stmt": [{{"limit": {limit}}}]' in rules


@each_pod
def test_names_are_sorted_into_classes_only_when_they_are_bounded(made, case):
    assert ("pace" in made.chains) == ("tunnel_pod_bandwidth_per_name" in PODS[case])


# --- the front end's namespace ---------------------------------------------------------------------------------------

ROOTED = {"caddy_frontend_acme_directory": "https://ca.lan:14000/dir", "caddy_frontend_acme_ca_root": "/root.pem"}
FALLBACK = {"caddy_frontend_acme_fallback_directory": "https://second.example:8555/dir"}
MODES = ("on_demand", "both", "wildcard", "files", "internal", "off")
FRONTS: dict[str, dict[str, Any]] = {mode: {"caddy_frontend_tls": mode} for mode in MODES}
FRONTS |= {
    "other ports": {"caddy_frontend_http_port": 8080, "caddy_frontend_https_port": 8443},
    "authority within the network": ROOTED,
    "second authority": FALLBACK,
    "second authority within the network": FALLBACK | {"caddy_frontend_acme_fallback_ca_root": "/root.pem"},
    "both, with authorities": {"caddy_frontend_tls": "both", **ROOTED, **FALLBACK},
    "wildcard, with authorities": {"caddy_frontend_tls": "wildcard", **ROOTED, **FALLBACK},
    "wildcard by Caddy": {"caddy_frontend_tls": "wildcard", "caddy_frontend_dns_provider": "cloudflare"},
    "both by Caddy": {"caddy_frontend_tls": "both", "caddy_frontend_dns_provider": "cloudflare"},
    "sites": {"caddy_frontend_tls": "internal", "caddy_frontend_sites": [__file__]},
    "off at another port": {"caddy_frontend_tls": "off", "caddy_frontend_listen": "192.0.2.9:8081"},
    "off and asked": {"caddy_frontend_tls": "off", "caddy_frontend_ask_port": 9321},
    "bandwidth": {
        "caddy_frontend_bandwidth_per_address": 5,
        "caddy_frontend_trusted_proxies": ["203.0.113.9", "2001:db8::/32"],
    },
}
# Ports that Caddy listens at: TCP, UDP.
LISTENED = {
    "other ports": ([8080, 8443], [8443]),
    "off": ([8080], []),
    "off at another port": ([8081], []),
    "off and asked": ([8080, 9123], []),
}
# Where new connections may go, beside resolvers: ports at any address, and at public ones alone.
ORDERS: dict[str, tuple[list[int], list[int]]] = {
    "wildcard": ([], [80]),
    "files": ([], [80]),
    "internal": ([], []),
    "off": ([], []),
    "off at another port": ([], []),
    "off and asked": ([], []),
    "authority within the network": ([14000], [80]),
    "second authority": ([], [80, 443, 8555]),
    "second authority within the network": ([8555], [80, 443]),
    "both, with authorities": ([14000], [80, 8555]),
    "wildcard, with authorities": ([], [80]),
}
OPEN = ("wildcard by Caddy", "both by Caddy", "sites")
each_front = in_every_case("front", FRONTS)


@pytest.fixture(scope="module")
def front(holder):
    """Return a function that gives what the filter of a case does."""
    known: dict[str, Filtered] = {}

    def give(case: str) -> Filtered:
        if case not in known:
            given = {"caddy_frontend_domain": "proxme.example.com", **FRONTS[case]}
            known[case] = Filtered(holder, {"filter.nft": render(FRONT, "filter.nft.j2", **given)})
        return known[case]

    return give


@each_front
def test_visitors_come_in_to_the_published_ports_alone(made, case):
    tcp, udp = LISTENED.get(case, ([80, 443], [443]))
    assert made.came_in == {
        (protocol, far, port) for protocol, far, port in IN if port in {"tcp": tcp, "udp": udp}[protocol]
    }
    assert made.chains["in"]["policy"] == "drop"


@each_front
def test_the_front_end_reaches_resolvers_and_authorities_and_no_neighbour(made, case):
    anywhere, public = ORDERS.get(case, ([], [80, 443]))
    udp = LISTENED.get(case, ([], [443]))[1]

    def passes(protocol: str, far: str, port: int, source: int = 0) -> bool:
        if case in OPEN or port == 53 or (protocol, far, port) in SELF:
            return True
        # Answers of HTTP/3 are no new connections, but nft doesn't know that any more after minutes of silence.
        if protocol == "udp":
            return source in udp
        return port in anywhere or (port in public and far not in (NEIGHBOUR, NEIGHBOUR6))

    assert made.went_out == {packet for packet in OUT if passes(*packet)}
    assert made.chains["out"]["policy"] == ("accept" if case in OPEN else "drop")


@each_front
def test_visitors_are_sorted_into_classes_only_when_they_are_bounded(made, case):
    chains = made.chains
    assert ("pace" in chains) == (case == "bandwidth")
    if case == "bandwidth":
        # Who speaks for many: the gateway, and the proxies as far as they have IPv4.
        assert chains["pace"]["rules"][0][0]["match"]["right"] == {"set": [GATEWAY, "203.0.113.9"]}
        assert chains["pace"]["rules"][0][1] == {"accept": None}


# --- who is barred ---------------------------------------------------------------------------------------------------

BARRED: dict[str, list[str]] = {
    "nobody": [],
    "one": ["198.51.100.7"],
    "one of IPv6": ["2001:db8:7::7"],
    "networks that overlap": ["198.51.100.0/24", "198.51.100.7", "2001:db8:7::/48", "2001:db8:7::7"],
}


@pytest.mark.parametrize("case", BARRED)
def test_who_is_barred_reaches_nothing(holder, case):
    files = pod_files({"tunnel_pod_tcp_ports": "30000", "tunnel_pod_barred_addresses": BARRED[case]})
    # The role has the list tried alone.
    holder.accept(files, "nft -c -f /etc/proxme-tunnel/barred.nft")
    barred = {VISITOR} & {line.replace("0/24", "7") for line in BARRED[case]}
    barred |= {VISITOR6} & {line.replace("::/48", "::7") for line in BARRED[case]}
    assert Filtered(holder, files).came_in == {
        ("tcp", far, port) for far in FAR if far not in barred for port in (2222, 30000)
    }


def test_the_list_of_the_barred_says_which_it_is():
    """By the comment the role knows whether it is the one that is applied."""

    def comment(*addresses: str) -> str:
        return pod_files({"tunnel_pod_barred_addresses": list(addresses)})["barred.nft"].split('"')[1]

    assert comment("192.0.2.7", "192.0.2.8") == comment("192.0.2.8", "192.0.2.7", "192.0.2.7")
    assert len({comment(), comment("192.0.2.7"), comment("192.0.2.7", "192.0.2.8")}) == 3
