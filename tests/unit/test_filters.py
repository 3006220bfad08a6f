# SPDX-License-Identifier: GPL-3.0-or-later
"""The two packet filters and the list of the blocked: nft takes them, and packets are let through as they say.

Each case is loaded by the image's own script in a network namespace with a cable to a second one, which stands for all
the world. Then the same packets are sent by everybody to everybody, and nft's own tables say which of them got through.
At the end it is seen that the script changes what has to be changed, and nothing else.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from programs import Program
from render import evaluate, in_every_case, render, written

POD, FRONT = "tunnel_network", "caddy_frontend"
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
# As the role has them tried.
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
  apply >/dev/null
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
$(for address in FAR; do echo "address add $address dev lo nodad"; done)
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
        """Try what the files say."""
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
    "ports": {"tunnel_tcp_ports": "30000-30009"},
    "one port": {"tunnel_tcp_ports": "30000"},
    "bandwidth": {"tunnel_bandwidth_per_name": 5},
    "limits": {"tunnel_ssh_connections_per_address": 3, "tunnel_ssh_connections_per_minute": 7},
    "blocked": {"tunnel_blocked_addresses": [VISITOR, "2001:db8:7::/48", "198.51.100.0/30", VISITOR]},
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


def bandwidth(role: str, given: dict[str, Any]) -> str:
    """What a role writes of the rates."""
    (text,) = [
        file["content"]
        for file in written(role, "vars/main.yml")[f"__{role}_files"]
        if isinstance(file, dict) and file["path"].endswith("/filter/bandwidth")
    ]
    return evaluate(role, text, **given)


def pod_files(given: dict[str, Any]) -> dict[str, str]:
    """The filter of the tunnels, who is blocked, and the rate of names."""
    given = {"tunnel_domain": "proxme.example.com", **given}
    files = {name: render(POD, f"{name}.j2", **given) for name in ("filter.nft", "blocked.nft")}
    return files | {"bandwidth": bandwidth(POD, given)}


def test_a_filter_that_nft_does_not_know_is_refused(holder):
    files = pod_files({})
    broken = files["filter.nft"].replace("policy drop", "policy deny")
    done = holder.read(files | {"filter.nft": broken}, "nft -c -D gateway=192.0.2.1 -f /etc/proxme-tunnel/filter.nft")
    assert done.returncode
    assert "deny" in done.stderr


@each_pod
def test_connections_come_in_to_sshd_and_the_public_ports_alone(made, case):
    first, _, last = PODS[case].get("tunnel_tcp_ports", "").partition("-")
    published = range(int(first), int(last or first) + 1) if first else ()
    blocked = {VISITOR, VISITOR6} if "tunnel_blocked_addresses" in PODS[case] else set()
    assert made.came_in == {
        (protocol, far, port)
        for protocol, far, port in IN
        if protocol == "tcp" and (port == 2222 or port in published) and far not in blocked
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
    count = PODS[case].get("tunnel_ssh_connections_per_address", 20)
    rate = PODS[case].get("tunnel_ssh_connections_per_minute", 200)
    for table, value in {"hidden": 10 * count, "per_source4": count, "per_source6": count}.items():
        assert f'"set": "@{table}", "stmt": [{{"ct count": {{"val": {value}, "inv": true}}}}]' in rules
    for table in ("rate4", "rate6"):
        limit = f'{{"rate": {rate}, "burst": {rate}, "per": "minute", "inv": true}}'
        assert f'"set": "@{table}", "stmt": [{{"limit": {limit}}}]' in rules


@each_pod
def test_names_are_sorted_into_classes_only_when_they_are_bounded(made, case):
    assert ("pace" in made.chains) == ("tunnel_bandwidth_per_name" in PODS[case])


# --- the front end's namespace ---------------------------------------------------------------------------------------

ROOTED = {"tunnel_acme_directory": "https://ca.lan:14000/dir", "tunnel_acme_ca_root": "/root.pem"}
FALLBACK = {"tunnel_acme_fallback_directory": "https://second.example:8555/dir"}
MODES = ("on_demand", "both", "wildcard", "files", "internal", "off")
FRONTS: dict[str, dict[str, Any]] = {mode: {"tunnel_tls": mode} for mode in MODES}
FRONTS |= {
    "other ports": {"tunnel_http_port": 8080, "tunnel_https_port": 8443},
    "authority within the network": ROOTED,
    "second authority": FALLBACK,
    "second authority within the network": FALLBACK | {"tunnel_acme_fallback_ca_root": "/root.pem"},
    "both, with authorities": {"tunnel_tls": "both", **ROOTED, **FALLBACK},
    "wildcard, with authorities": {"tunnel_tls": "wildcard", **ROOTED, **FALLBACK},
    "wildcard by Caddy": {"tunnel_tls": "wildcard", "tunnel_dns_provider": "cloudflare", "tunnel_dns_by_caddy": True},
    "both by Caddy": {"tunnel_tls": "both", "tunnel_dns_provider": "cloudflare", "tunnel_dns_by_caddy": True},
    "sites": {"tunnel_tls": "internal", "tunnel_sites": [__file__]},
    "off at another port": {"tunnel_tls": "off", "tunnel_listen": "192.0.2.9:8081"},
    "off and asked": {"tunnel_tls": "off", "tunnel_ask_port": 9321},
    "bandwidth": {
        "tunnel_bandwidth_per_address": 5,
        "tunnel_trusted_proxies": ["203.0.113.9", "2001:db8::/32"],
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
            given = {"tunnel_domain": "proxme.example.com", **FRONTS[case]}
            files = {"filter.nft": render(FRONT, "filter.nft.j2", **given), "bandwidth": bandwidth(FRONT, given)}
            known[case] = Filtered(holder, files)
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


# --- who is blocked ---------------------------------------------------------------------------------------------------

BLOCKED: dict[str, list[str]] = {
    "nobody": [],
    "one": ["198.51.100.7"],
    "one of IPv6": ["2001:db8:7::7"],
    "networks that overlap": ["198.51.100.0/24", "198.51.100.7", "2001:db8:7::/48", "2001:db8:7::7"],
}


@pytest.mark.parametrize("case", BLOCKED)
def test_who_is_blocked_reaches_nothing(holder, case):
    files = pod_files({"tunnel_tcp_ports": "30000", "tunnel_blocked_addresses": BLOCKED[case]})
    # The role has the list tried alone.
    holder.accept(files, "nft -c -f /etc/proxme-tunnel/blocked.nft")
    blocked = {VISITOR} & {line.replace("0/24", "7") for line in BLOCKED[case]}
    blocked |= {VISITOR6} & {line.replace("::/48", "::7") for line in BLOCKED[case]}
    assert Filtered(holder, files).came_in == {
        ("tcp", far, port) for far in FAR if far not in blocked for port in (2222, 30000)
    }


def test_who_is_blocked_is_written_the_same_in_whatever_order_it_is_said():
    """What is written again is loaded again."""

    def text(*addresses: str) -> str:
        return pod_files({"tunnel_blocked_addresses": list(addresses)})["blocked.nft"]

    assert text("192.0.2.7", "192.0.2.8") == text("192.0.2.8", "192.0.2.7", "192.0.2.7")
    assert len({text(), text("192.0.2.7"), text("192.0.2.7", "192.0.2.8")}) == 3


# --- who comes by the relay ------------------------------------------------------------------------------------------

# As the relay dials sshd: from a client's address, by the loopback interface.
RELAYED = r"""
unshare -n sh -eu <<'END'
ip link set lo up
for version in '-4 169.254.22.1/32' '-6 fd75::22/128'; do
  set -- $version
  ip $1 address add $2 dev lo
  ip $1 rule add from $2 iif lo lookup 22
  ip $1 route replace local default dev lo table 22
done
apply >/dev/null
exec perl -MSocket=:all -e '
  sub address { (getaddrinfo($_[0], $_[1], { flags => AI_NUMERICHOST, socktype => SOCK_STREAM }))[1] }
  for (["169.254.22.1", 2222], ["fd75::22", 2222], ["127.0.0.1", 2222], ["169.254.22.1", 8080]) {
    my $here = address(@$_);
    socket my $socket, $here->{family}, SOCK_STREAM, 0 or die $!;
    bind $socket, $here->{addr} or die "@$_: $!";
    listen $socket, 99 or die $!;
    push @kept, $socket;
  }
  for (split /\n/, $ENV{DIALS}) {
    my ($count, $from, $to, $port) = split;
    my @dialled;
    for (1 .. $count) {
      my ($here, $there) = (address($from, 0), address($to, $port));
      socket my $socket, $here->{family}, SOCK_STREAM | SOCK_NONBLOCK, 0 or die $!;
      # IPV6_TRANSPARENT, IP_TRANSPARENT
      my ($level, $option) = $from =~ /:/ ? (IPPROTO_IPV6, 75) : (IPPROTO_IP, 19);
      setsockopt $socket, $level, $option, 1 or die $!;
      bind $socket, $here->{addr} or die "$from: $!";
      connect $socket, $there->{addr};
      push @dialled, $socket;
    }
    # On the loopback interface all is over when connect returns.
    print scalar(grep { getpeername $_ } @dialled), "\n";
    push @kept, @dialled;
  }
'
END
"""


def relayed(holder: Program, given: dict[str, Any], *dials: tuple[int, str, str, int]) -> list[int]:
    """How many of each row of connections come in: a number, from where, to where, and to which port."""
    lines = "\n".join(" ".join(map(str, dial)) for dial in dials)
    said = holder.accept(pod_files(given), f"export DIALS='{lines}'\n{RELAYED}")
    return [int(line) for line in said.split()]


def test_who_comes_by_the_relay_is_counted_by_address_as_all_others(holder):
    dials = [
        (5, client, sshd, 2222)
        for client, sshd in ((VISITOR, "169.254.22.1"), (NEIGHBOUR, "169.254.22.1"), (VISITOR6, "fd75::22"))
    ]
    assert relayed(holder, {"tunnel_ssh_connections_per_address": 3}, *dials) == [3, 3, 3]
    assert relayed(holder, {"tunnel_ssh_connections_per_minute": 10}, (12, VISITOR, "169.254.22.1", 2222)) == [10]


def test_who_is_blocked_does_not_come_by_the_relay(holder):
    blocked = {"tunnel_blocked_addresses": [VISITOR, "2001:db8:7::/48"]}
    dials = [(2, VISITOR, "169.254.22.1", 2222), (2, VISITOR6, "fd75::22", 2222), (2, CA, "169.254.22.1", 2222)]
    assert relayed(holder, blocked, *dials) == [0, 0, 2]


def test_a_relay_that_took_no_address_is_let_in_nowhere_and_tunnels_are_free(holder):
    """It would dial from sshd's own, so that all of its clients were one."""
    dials = [(2, "169.254.22.1", "169.254.22.1", 2222), (2, "fd75::22", "fd75::22", 2222)]
    dials += [(2, VISITOR, "169.254.22.1", 8080), (9, "127.0.0.1", "127.0.0.1", 2222)]
    assert relayed(holder, {"tunnel_ssh_connections_per_address": 3}, *dials) == [0, 0, 0, 9]


# --- what brings them into force -------------------------------------------------------------------------------------

# Folders that the script is to find, one after the other. `had` keeps what is in force with the numbers that the kernel
# has given, which are others after each loading.
BEGIN = r"""
folders=$(readlink /etc/proxme-tunnel)
trap 'rm -rf /tmp/away' EXIT
mkdir -p /tmp/away
export folders
unshare -n sh -eu <<'END'
to() { ln -sfn "$folders/$1" /etc/proxme-tunnel; }
had() { nft -a list table inet "$1" || true; }
# A program that is away: what is given stands in for it, once.
away() { program=$1; shift; printf '#!/bin/sh\n%s\n' "$*" >/tmp/away/"$program"; chmod +x /tmp/away/"$program"; }
"""
WITHOUT = "PATH=/tmp/away:$PATH"
FAILING_TC = 'case "$*" in *batch*) cat >/dev/null; exit 1;; esac; exec /usr/sbin/tc "$@"'
ALL = ["bandwidth", "blocked.nft", "filter.nft"]


def act(holder: Program, states: dict[str, dict[str, str]], script: str) -> list[list[str]]:
    """Run a script in a fresh namespace with the files of each state in a folder; the lines between its dashes."""
    files = {f"{state}/{name}": text for state, given in states.items() for name, text in given.items()}
    said = holder.accept(files, f"{BEGIN}{script}\nEND\n")
    return [part.split("\n")[1:-1] if number else part.split("\n")[:-1] for number, part in enumerate(said.split("--"))]


def test_a_second_call_changes_nothing_and_says_nothing(holder):
    files = pod_files({"tunnel_bandwidth_per_name": 5, "tunnel_blocked_addresses": [VISITOR]})
    script = """
    to all; apply; echo --; nft -a list ruleset; tc qdisc show; tc class show dev lo
    echo --; apply; echo --; nft -a list ruleset; tc qdisc show; tc class show dev lo
    """
    first, before, second, after = act(holder, {"all": files}, script)
    assert (first, second) == (ALL, [])
    assert before == after
    # A class for each of those into which names are sorted, both ways, and all as fast as was said.
    classes = [line.split() for line in before if line.startswith("class htb")]
    assert {line[2] for line in classes} == {f"1:{number:x}" for number in range(1, 2049)}
    assert {line[line.index("rate") + 1] for line in classes} == {"5Mbit"}


@pytest.mark.parametrize(("name", "table"), [("blocked.nft", "blocked"), ("filter.nft", "tunnel"), ("bandwidth", "")])
def test_each_file_counts_alone(holder, name, table):
    """The front end's holder has no list of the blocked."""
    files = pod_files({"tunnel_bandwidth_per_name": 5})
    script = "to one; apply; echo --; apply; echo --; nft list tables; echo --; tc qdisc show dev lo"
    first, second, tables, queues = act(holder, {"one": {name: files[name]}}, script)
    assert (first, second) == ([name], [])
    assert tables == ([f"table inet {table}"] if table else [])
    assert ("htb" in "".join(queues)) == (name == "bandwidth")


def test_without_files_nothing_is_done(holder):
    assert act(holder, {"none": {"other": ""}}, "to none; apply; echo --; nft list ruleset") == [[], []]


def test_what_could_not_be_loaded_once_is_loaded_by_the_next_call(holder):
    """Also where the file is the same as before."""
    files = pod_files({})
    script = f"""
    to all; away nft exit 1
    {WITHOUT} apply && exit 1
    echo --; nft list tables; echo --; apply; echo --; nft list tables
    """
    said, before, second, after = act(holder, {"all": files}, script)
    assert (said, before) == ([], [])
    assert second == ["blocked.nft", "filter.nft"]
    assert after == ["table inet blocked", "table inet tunnel"]


def test_of_what_failed_half_way_the_rest_is_loaded_by_the_next_call(holder):
    files = pod_files({})
    script = f"""
    to all
    # All but the loading of the filter, which comes by standard input.
    away nft 'case "$*" in *-f*) ! grep -q filter.nft || exit 1; set -- -f $folders/all/blocked.nft;; esac
      exec /usr/sbin/nft "$@"'
    {WITHOUT} apply && exit 1
    echo --; apply
    """
    first, second = act(holder, {"all": files}, script)
    # The stand-in marks nothing, so the list is loaded again.
    assert first == ["blocked.nft"]
    assert second == ["blocked.nft", "filter.nft"]


def test_a_rate_that_cannot_be_bounded_leaves_the_filters_loaded_and_is_tried_again(holder):
    """As on a kernel without sch_htb."""
    files = pod_files({"tunnel_bandwidth_per_name": 5})
    script = f"""
    to all; away tc '{FAILING_TC}'
    {WITHOUT} apply 2>/tmp/away/said || echo $?
    cat /tmp/away/said
    echo --; apply; echo --; apply
    """
    first, second, third = act(holder, {"all": files}, script)
    assert first[:3] == ["blocked.nft", "filter.nft", "3"]
    assert "sch_htb" in first[3]
    assert (second, third) == (["bandwidth"], [])


def test_a_rate_that_cannot_be_bounded_hides_no_filter_that_cannot_be_loaded(holder):
    """Whatever status nft itself ends with: the holder goes on where it is 3."""
    files = pod_files({"tunnel_bandwidth_per_name": 5})
    script = f"to all; away tc '{FAILING_TC}'; away nft exit 3; {WITHOUT} apply || echo $?"
    ((code,),) = act(holder, {"all": files}, script)
    assert code == "1"


def test_a_rate_of_0_after_a_rate_ends_the_bound_and_another_rate_replaces_it(holder):
    rates = {f"r{rate}": pod_files({"tunnel_bandwidth_per_name": rate}) for rate in (5, 50, 0)}
    states = {name: {"bandwidth": files["bandwidth"]} for name, files in rates.items()}
    look = "tc qdisc show dev lo; tc class show dev lo classid 1:800"
    script = ";".join(
        f"to {name}; apply; echo --; {look}; echo --; apply; echo --" for name in ("r5", "r50", "r0", "r5")
    )
    r5, has5, again5, r50, has50, again50, r0, has0, again0, back, has_back, again_back, _ = act(holder, states, script)
    assert r5 == r50 == r0 == back == ["bandwidth"]
    assert again5 == again50 == again0 == again_back == []
    assert "rate 5Mbit" in has5[-1]
    assert "rate 50Mbit" in has50[-1]
    assert [line.split()[1] for line in has0] == ["noqueue"]
    assert has_back == has5


def test_a_change_of_one_table_forgets_no_counts_of_the_other(holder):
    states = {
        "first": pod_files({}),
        "blocked": pod_files({"tunnel_blocked_addresses": [VISITOR]}),
        "limits": pod_files({"tunnel_blocked_addresses": [VISITOR], "tunnel_ssh_connections_per_minute": 7}),
    }
    script = """
    to first; apply
    nft add element inet tunnel per_source4 '{ 198.51.100.9 ct count over 20 }'
    echo --; had tunnel; echo --
    to blocked; apply
    echo --; had tunnel; echo --; had blocked; echo --
    to limits; apply
    echo --; had blocked; echo --; had tunnel
    """
    _, tunnel, of_blocked, same_tunnel, blocked, of_limits, same_blocked, other_tunnel = act(holder, states, script)
    assert (of_blocked, of_limits) == (["blocked.nft"], ["filter.nft"])
    assert any("198.51.100.9 ct count over 20" in line for line in tunnel)
    assert same_tunnel == tunnel
    assert any(VISITOR in line for line in blocked)
    assert same_blocked == blocked
    assert any("7/minute" in line for line in other_tunnel)
    assert not any("200/minute" in line for line in other_tunnel)


def test_a_flushed_ruleset_is_loaded_again(holder):
    script = "to all; apply; echo --; nft flush ruleset; apply; echo --; nft list tables"
    first, second, tables = act(holder, {"all": pod_files({})}, script)
    assert first == second == ["blocked.nft", "filter.nft"]
    assert tables == ["table inet blocked", "table inet tunnel"]


@pytest.mark.parametrize(("name", "table"), [("blocked.nft", "blocked"), ("filter.nft", "tunnel")])
def test_a_wrong_file_is_refused_and_the_former_one_stays_in_force(holder, name, table):
    good = pod_files({})
    wrong = good | {name: good[name].replace("type filter hook input", "type filter hook imput")}
    assert wrong != good
    script = f"""
    to good; apply >/dev/null; had {table}; echo --
    to wrong
    apply 2>/tmp/away/said && exit 1
    grep -o imput /tmp/away/said | head -1
    echo --; had {table}; echo --; to good; apply
    """
    before, said, after, back = act(holder, {"good": good, "wrong": wrong}, script)
    assert said == ["imput"]
    assert after == before
    # What is in force is what is wanted again.
    assert back == []


HOLD = """
# As Docker does.
ip link set lo up
hold-namespace fd74::/16 & holder=$!
trap 'kill $holder 2>/dev/null || true' EXIT
tries=0
until ps=$(grep -s CapBnd /proc/$holder/status) && [ "${ps##*[[:space:]]}" = 0000000000000000 ]; do
  tries=$((tries + 1)); [ $tries -lt 200 ] || exit 1
  kill -0 $holder 2>/dev/null || { wait $holder || echo "ended with $?"; exit 0; }
  sleep 0.05
done
grep -E '^(Uid|Gid|CapEff|CapBnd)' /proc/$holder/status | tr '\\t' ' '
nft list tables
ip -6 route show table local | grep -o 'local fd74::/16'
kill $holder; wait $holder; echo "ended with $?"
"""


def test_the_holder_gives_all_up_once_its_files_are_in_force_and_ends_when_told(holder):
    (said,) = act(holder, {"all": pod_files({})}, f"to all\n{HOLD}")
    assert said == [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "CapEff: 0000000000000000",
        "CapBnd: 0000000000000000",
        "table inet blocked",
        "table inet tunnel",
        "local fd74::/16",
        "ended with 0",
    ]


def test_there_is_no_holder_without_its_filter(holder):
    files = pod_files({})
    wrong = files | {"filter.nft": files["filter.nft"].replace("policy drop", "policy deny")}
    (said,) = act(holder, {"wrong": wrong}, f"to wrong\n{HOLD}")
    assert said == ["ended with 1"]


def test_there_is_a_holder_though_the_rate_cannot_be_bounded(holder):
    files = pod_files({"tunnel_bandwidth_per_name": 5})
    (said,) = act(holder, {"all": files}, f"to all; away tc '{FAILING_TC}'; {WITHOUT}\n{HOLD}")
    assert said[-1] == "ended with 0"
    assert "table inet tunnel" in said
