# SPDX-License-Identifier: GPL-3.0-or-later
"""listeners.lua: who listens, as the kernel says it; for how long that is believed, and how often it is asked."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from nginx import address_of, row

# Of a machine with Linux 6.18 on x86_64: two listeners of IPv4 and one of IPv6, each before
# connections. The words are little endian, as on all machines that the images are for.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:A1E5 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 551557 2 0000000004e48e9b 100 0 0 10 0
   3: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 118 1 00000000ed50b533 100 0 0 10 0
   4: 0100007F:8812 0100007F:46A0 06 00000000:00000000 03:000012DB 00000000     0        0 0 3 00000000c324ae2a
   6: 0100007F:A1E5 0100007F:94F4 01 00000000:00000000 00:00000000 00000000     0        0 0 1 00000000132ab26e 20 0 0 10 -1
  10: 020200C0:A416 507100CB:0050 06 00000000:00000000 03:00000564 00000000     0        0 0 3 0000000081d8643a
  22: 0100007F:94F4 0100007F:A1E5 01 00000000:00000000 00:00000000 00000000     0        0 551558 2 0000000064ce8862 20 0 0 10 -1
"""  # noqa: E501
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 551559 2 000000000c5fe04c 100 0 0 10 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:D3A0 01 00000000:00000000 00:00000000 00000000     0        0 0 1 00000000a35b82ac 20 0 0 10 -1
   2: 00000000000000000000000001000000:D3A0 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000     0        0 551560 2 00000000d4c532c1 20 0 0 10 -1
"""  # noqa: E501
LONG_ONE = ipaddress.IPv6Address("::1").exploded


@pytest.mark.parametrize(
    ("address", "port", "listens"),
    [
        ("127.0.0.1", 41445, True),
        ("0.0.0.0", 2024, True),
        (LONG_ONE, 8080, True),
        # They listen elsewhere.
        *(("127.0.0.1", port, False) for port in (2024, 8080, 41446, 58785)),
        *(("1.0.0.127", 41445, False), ("127.0.0.2", 41445, False), (LONG_ONE, 41445, False)),
        # Connections, established and gone.
        *(("127.0.0.1", 38132, False), ("127.0.0.1", 34834, False), ("192.0.2.2", 42006, False)),
        *((LONG_ONE, 54176, False), ("127.0.0.1", 18080, False)),
    ],
)
def test_what_a_kernel_wrote_is_understood(nginx, address, port, listens):
    nginx.proc("tcp", TCP)
    nginx.proc("tcp6", TCP6)
    assert nginx.listens(address, port) is listens


def test_which_socket_listens_is_known_of_the_last_look(nginx):
    """What was learned of a tunnel is not believed of the next one that has its name."""
    nginx.proc("tcp", TCP)
    nginx.proc("tcp6", TCP6)
    listeners = nginx.worker.listeners
    local, long_one = listeners.written("127.0.0.1"), listeners.written(LONG_ONE)
    assert listeners.socket(local, 41445) is None
    assert nginx.listens("127.0.0.1", 41445)
    assert (listeners.socket(local, 41445), listeners.socket(long_one, 8080)) == ("551557", "551559")
    assert listeners.socket(local, 38132) is None


def test_what_listens_on_this_very_machine_is_found(nginx):
    """The judge is the kernel: one socket that listens, and the two ends of a connection."""
    (nginx.folder / "proc/net/tcp").unlink()
    (nginx.folder / "proc/net/tcp").symlink_to("/proc/net/tcp")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port, other = server.getsockname()[1], client.getsockname()[1]
        assert nginx.listens("127.0.0.1", port)
        assert not nginx.listens("127.0.0.1", other)
    nginx.wait(1)
    assert not nginx.listens("127.0.0.1", port)


@pytest.mark.parametrize("port", [1, 80, 255, 256, 443, 4096, 43981, 65535])
@pytest.mark.parametrize("name", [None, "guest-x", "guest-y", "a"])
def test_any_port_of_any_address_is_found_and_no_other(nginx, name, port):
    """The addresses of the names begin with any byte after fd74, also with zeros and letters."""
    nginx.listen(f"{name}:{port}" if name else str(port))
    address = address_of(name).exploded if name else "127.0.0.1"
    assert nginx.listens(address, port)
    others = {"127.0.0.1", "127.0.1.0", *(address_of(other).exploded for other in ("guest-x", "a", "b"))} - {address}
    assert [other for other in others if nginx.listens(other, port)] == []
    assert [other for other in (port - 1, port + 1, port ^ 0x100) if nginx.listens(address, other)] == []


def test_leading_zeros_of_an_address_are_no_matter(nginx):
    addresses = ["fd74:1:2:3:4:5:6:7", "fd74::1", "fd74:0:0:abcd::", "fd74:ffff:00ff:0f0f:f0f0:1000:0001:0"]
    nginx.proc("tcp6", "header\n" + "".join(row(i, address, 80) for i, address in enumerate(addresses)))
    for address in addresses:
        assert nginx.listens(ipaddress.ip_address(address).exploded, 80), address
    nginx.wait(0.05)
    assert not nginx.listens(ipaddress.ip_address("fd74:1:2:3:4:5:7:6").exploded, 80)


@pytest.mark.parametrize("state", [state for state in range(1, 13) if state != 0x0A])
def test_who_is_connected_does_not_listen(nginx, state):
    """A tunnel has ended, but a visit of it has not: the name is nobody's (man 7 tcp: 0A is TCP_LISTEN)."""
    for file, address in (("tcp", "127.0.0.1"), ("tcp6", str(address_of("guest-x")))):
        nginx.proc(file, "header\n" + row(0, address, 8080, state))
    assert not nginx.listens("127.0.0.1", 8080)
    assert not nginx.listens(address_of("guest-x").exploded, 8080)


def test_connections_of_ipv4_hide_no_listener_of_ipv6(nginx):
    name = str(address_of("guest-x"))
    nginx.proc("tcp", "header\n" + row(0, "127.0.0.1", 8080) + row(1, "127.0.0.1", 9090, 1))
    nginx.proc("tcp6", "header\n" + row(0, name, 443) + row(1, name, 80) + row(2, name, 80, 1))
    assert nginx.listens("127.0.0.1", 8080)
    assert nginx.listens(address_of("guest-x").exploded, 443)
    assert nginx.listens(address_of("guest-x").exploded, 80)


def test_nobody_listens_where_nothing_does(nginx):
    assert not nginx.listens("127.0.0.1", 80)


def test_that_something_listens_is_believed_for_a_second(nginx):
    """A busy name costs one look a second, and a tunnel that has ended is gone after a second."""
    nginx.listen("8080")
    for _ in range(100):
        assert nginx.listens("127.0.0.1", 8080)
    assert nginx.looks == 1
    nginx.end("8080")
    nginx.wait(0.99)
    assert nginx.listens("127.0.0.1", 8080)
    assert nginx.looks == 1
    nginx.wait(0.01)
    assert not nginx.listens("127.0.0.1", 8080)


def test_each_second_begins_with_the_look_of_the_one_before(nginx):
    nginx.listen("8080")
    for _ in range(50):
        assert nginx.listens("127.0.0.1", 8080)
        nginx.wait(0.1)
    assert nginx.looks == 5


def test_a_tunnel_that_was_just_opened_is_found_at_once(nginx):
    """Though the last look was a moment ago and did not see it; at the most the visitor waits 0.05 s."""
    for port, pause in ((8080, 0), (8081, 0.01), (8082, 0.049), (8083, 0.051), (8084, 0.5), (8085, 10)):
        assert not nginx.listens("127.0.0.1", port)
        nginx.wait(pause)
        nginx.listen(str(port))
        asked = nginx.now
        assert nginx.listens("127.0.0.1", port)
        assert nginx.now - asked == pytest.approx(0.05 if pause < 0.05 else 0, abs=1e-6), port


def test_a_thousand_dead_names_cost_no_more_than_twenty_looks_a_second(nginx):
    nginx.listen("8080")
    has, written = nginx.worker.listeners.has, nginx.worker.listeners.written
    dead = [nginx.bind(has, written(address_of(f"guest-{i}").exploded), 80) for i in range(1000)]
    nginx.together("rewrite", *((nginx.request(), action) for action in dead), every=0.001)
    assert nginx.results == [False] * 1000
    assert nginx.looks <= 21


def test_all_who_wait_for_a_look_are_told_what_it_saw(nginx):
    """Of a hundred who come at once, some to a name that was opened after the last look and some to a dead one."""
    assert not nginx.listens("127.0.0.1", 8080)
    nginx.listen("8080")
    has, address = nginx.worker.listeners.has, nginx.worker.listeners.written("127.0.0.1")
    came = [(nginx.request(), nginx.bind(has, address, port)) for port in (8080, 9090) * 50]
    nginx.together("rewrite", *came)
    assert nginx.results[1:] == [True, False] * 50
    assert nginx.looks == 2


def test_who_came_after_the_look_began_is_not_told_what_it_saw(nginx):
    """It may have begun before that tunnel was opened: a look takes time with many tunnels."""
    nginx.look_takes(0.2)
    assert not nginx.listens("127.0.0.1", 8080)
    nginx.listen("8080")
    assert nginx.listens("127.0.0.1", 8080)
    assert nginx.looks == 2
    nginx.end("8080")
    nginx.wait(0.9)
    assert nginx.listens("127.0.0.1", 8080), "the second is counted from the end of the look"


@pytest.mark.parametrize("back", [0.01, 1, 3600])
def test_a_clock_that_is_set_back_changes_nothing(nginx, back):
    """As one is that was wrong when the machine started: tunnels come and go as before."""
    nginx.listen("8080")
    assert nginx.listens("127.0.0.1", 8080)
    nginx.now -= back
    nginx.listen("8081")
    asked = nginx.now
    assert nginx.listens("127.0.0.1", 8081)
    assert nginx.now - asked < 0.06
    nginx.end("8080")
    nginx.wait(1)
    assert not nginx.listens("127.0.0.1", 8080)
