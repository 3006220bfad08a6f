# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stock OpenSSH client asks for in vain: everything but remote forwards of free ports and guest names."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator

import pytest
from world import Client, Host, Visitor, Web, World, until

GUEST = "guest-bystander"


def address(name: str) -> str:
    """The IPv6 address that a name hashes to (roles/tunnel_network/files/names.lua)."""
    digits = "fd74" + hashlib.sha256(name.encode()).hexdigest()[:28]
    return ":".join(digits[start : start + 4] for start in range(0, 32, 4))


@pytest.fixture(scope="module")
def listening_before(host: Host) -> set[str]:
    """What the host listened on before the first attempt."""
    return host.listening()


@pytest.fixture(scope="module", autouse=True)
def bystander(world: World, web: Web, listening_before: set[str]) -> Iterator[Client]:
    """Somebody whose tunnel was there before all attempts: port 8500 and a name."""
    with world.client("bystander") as client:
        client.tunnel("8500", f"{GUEST}:80", to=web)
        yield client


def expect_refused(client: Client, forward: str) -> None:
    """Expect that ssh -R with this forward ends, and says why."""
    result = client.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", forward, timeout=10)
    assert result.code == 255, f"-R {forward}: code {result.code}\n{result.output}"
    assert "Error: remote port forwarding failed" in result.stderr


# No shell, no command, no files.


@pytest.mark.parametrize("options", [[], ["-t"], ["-tt"]], ids=lambda options: " ".join(options) or "plain")
def test_no_shell(client: Client, options: list[str]) -> None:
    result = client.ssh(*options, stdin=b"echo $((6 * 7))-$(id -u)\nexit\n" * 3, terminal="-t" in options, timeout=3)
    assert result.code == 124, "the connection ended"
    assert "There is no shell here." in result.output
    assert not re.search(r"42-\d", result.output)


@pytest.mark.parametrize("command", ["echo $((6 * 7))", "; echo $((6 * 7))"])
def test_no_command(client: Client, command: str) -> None:
    result = client.ssh("--", command, timeout=3)
    assert result.code == 124
    assert "There is no shell here." in result.output
    assert not re.search(r"^42", result.output, re.MULTILINE)


@pytest.mark.parametrize("subsystem", ["sftp", "netconf", "/usr/lib/openssh/sftp-server"])
def test_no_subsystem(client: Client, subsystem: str) -> None:
    result = client.ssh("-s", "--", subsystem, timeout=10)
    assert result.code != 124, "it stayed connected"
    assert "subsystem request failed" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["sftp", "-b", "/dev/stdin"],
        ["scp", "-s", "/etc/hostname"],
        ["scp", "-O", "/etc/hostname"],
        ["scp", "-O", "-f"],
    ],
    ids=" ".join,
)
def test_no_files(client: Client, command: list[str]) -> None:
    """Neither sftp nor the old scp move a file in either direction."""
    remote = f"tunnel@{client.host}"
    arguments = {
        "sftp": [remote],
        "-f": [f"{remote}:/etc/passwd", "/run/stolen"],
    }.get(command[-1] if command[-1] == "-f" else command[0], [f"{remote}:/tmp/planted"])
    program = [part for part in command if part != "-f"]
    options = [option.replace("-p", "-P") for option in client.options()]
    result = client.exec(
        "timeout", "10", program[0], *options, *program[1:], *arguments, stdin=b"get /etc/passwd /run/stolen\n"
    )
    assert result.code not in (0, 124)
    assert client.exec("test", "-e", "/run/stolen").code != 0


# No way into the host's network.

INWARD = ["localhost:8500", "127.0.0.1:8500", f"{GUEST}:80", "localhost:22", "localhost:2222", "127.0.0.53:53"]


@pytest.mark.parametrize("target", [*INWARD, "caddy:80", "172.17.0.1:22", "1.1.1.1:443"])
def test_no_forward_to_a_target(client: Client, target: str) -> None:
    """-W: not even to the live tunnel of somebody else."""
    result = client.ssh("-W", target, timeout=10, stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert result.code == 255
    assert "administratively prohibited" in result.stderr
    assert "Hello" not in result.stdout


@pytest.mark.parametrize("target", ["localhost:8500", f"{GUEST}:80", "/run/tunnel/ask.sock"])
def test_no_local_forward(client: Client, target: str) -> None:
    """-L: the client listens, but what comes is not passed on. The same for a unix socket over there."""
    with client.tunnel(options=["-L", f"4000:{target}"]) as tunnel:
        until("the client listens", lambda: "Local forwarding listening" in tunnel.output)
        assert client.exec("curl", "-sS", "--max-time", "5", "http://localhost:4000/").stdout == ""
        until("the refusal is told", lambda: "open failed" in tunnel.output)


def test_no_dynamic_forward(client: Client) -> None:
    """-D: no proxy."""
    with client.tunnel(options=["-D", "4001"]) as tunnel:
        until("the client listens", lambda: "Local forwarding listening" in tunnel.output)
        for target in ("http://localhost:8500/", f"http://{GUEST}/", "http://172.17.0.1/"):
            got = client.exec("curl", "-sS", "--max-time", "5", "--socks5-hostname", "localhost:4001", target)
            assert got.code != 0
            assert got.stdout == ""
        assert "administratively prohibited" in tunnel.output


def test_no_jump(client: Client) -> None:
    """-J: no way over this host to another."""
    result = client.exec(
        *("timeout", "15", "ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
        *("-o", f"ProxyCommand=ssh {shlex.join(client.options())} -W %h:%p tunnel@{client.host}", "root@localhost"),
    )
    assert result.code == 255
    assert "administratively prohibited" in result.stderr


def environment(host: Host) -> str:
    """The environment of the one session that is held now."""
    sleeper = until("the session is held", lambda: host.exec("pgrep", "-f", "^tail -f --pid=").stdout.split())
    return host.exec("cat", f"/proc/{sleeper[-1]}/environ").expect().stdout


def test_no_agent_and_no_variables(client: Client, host: Host) -> None:
    """-A gives the session no agent, SetEnv no variable."""
    client.shell("ssh-agent -a /run/agent >/run/agent.log").expect()
    command = [
        "env",
        "SSH_AUTH_SOCK=/run/agent",
        "ssh",
        "-v",
        "-A",
        "-o",
        "SetEnv=LD_PRELOAD=/x LC_ALL=C",
        *client.options(),
    ]
    client.spawn(*command, "-o", "BatchMode=yes", f"tunnel@{client.host}")
    try:
        names = {line.partition("=")[0] for line in environment(host).split("\0")}
        assert "SSH_CONNECTION" in names
        assert not names & {"SSH_AUTH_SOCK", "LD_PRELOAD", "LC_ALL", "DISPLAY"}
    finally:
        client.shell("pkill -x ssh; pkill -x ssh-agent; rm -f /run/agent")


def test_no_windows(client: Client) -> None:
    """-Y, and with it -X."""
    display = ["env", "DISPLAY=:0", "ssh", *client.options(), "-Y"]
    result = client.exec("timeout", "3", *display, f"tunnel@{client.host}")
    assert "X11 forwarding request failed" in result.stderr


@pytest.mark.parametrize("mode", ["point-to-point", "ethernet"])
def test_no_tun_device(world: World, mode: str) -> None:
    """-w, from a client that may make such a device on its own side."""
    with world.client("tun", "--device=/dev/net/tun", "--cap-add=NET_ADMIN") as client:
        result = client.ssh("-v", "-N", "-o", f"Tunnel={mode}", "-w", "any:any", "-o", "ExitOnForwardFailure=yes")
    assert result.code == 255
    assert "Tunnel forwarding using interface" in result.stderr, "the client could not make its own end"
    assert "Server has rejected tunnel device forwarding" in result.stderr


@pytest.mark.parametrize("path", ["/run/tunnel.sock", "/tmp/tunnel.sock", "/dev/shm/tunnel.sock"])
def test_no_unix_socket_over_there(client: Client, web: Web, path: str) -> None:
    """-R with a path."""
    result = client.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{path}:{web}", timeout=10)
    assert result.code == 255
    assert "remote port forwarding failed for listen p" in result.stderr


# No other address to listen on.

OTHER_ADDRESSES = {
    "every address": ["*:8600", "0.0.0.0:8600", "[::]:8600", ":8600", "[::ffff:0.0.0.0]:8600", "0:8600"],
    "this host by number": ["127.0.0.1:8600", "[::1]:8600", "[::ffff:127.0.0.1]:8600", "127.0.0.53:8600"],
    "this host by an odd number": ["127.1:8600", "2130706433:8600", "0x7f000001:8600", "0177.0.0.1:8600"],
    "a numeric address with a name's port": ["127.0.0.1:80", "0.0.0.0:80", "[::]:80", ":443", "*:443", "172.17.0.2:80"],
    "a name's address": [f"[{address(name)}]:80" for name in ("guest-free", GUEST, "blog", "www")],
    "a part of a pattern": ["guest-*:80", "*:80", "guest-?:80", "*-x:80", "guest-*:443"],
    "this host by another name": ["ip6-localhost:8600", "localhost.:8600", "tunnel-host:8600"],
    "the reserved names": ["www:80", "www:443", "public:80", "public:8600", "localhost.{domain}:80", "www.{domain}:80"],
    "the bare domain": ["{domain}:80", "{domain}:443"],
    "somebody's name": ["blog:80", "alice:80", "blog.{domain}:80", "tunnel:80", "guest:80", "guestx:80", "xguest-x:80"],
    "no name": ["guest--x:80", "guest-x--local:80", "guest-:80", "guest-x-:80", "guest_x:80", "guest-ü:80"],
    "a name that is too long": ["guest-" + "x" * 58 + ":80", "guest-" + "x" * 300 + ":80"],
    "more than one label": ["guest-a.guest-b:80", "guest-a.guest-b.{domain}:80", "guest-x.org:80"],
    "another port of a guest name": ["guest-x:22", "guest-x:81", "guest-x:8080", "guest-x:0", "guest-x:65535"],
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_ADDRESSES)
def test_no_forward_of(client: Client, domain: str, web: Web, kind: str) -> None:
    """-R with any other address than localhost's and the guest names'."""
    for bind in OTHER_ADDRESSES[kind]:
        expect_refused(client, f"{bind.format(domain=domain)}:{web}")


def test_a_free_port_and_a_free_name_are_not_refused(client: Client, web: Web) -> None:
    """The refusals above are no accident: the same client, the same ports and a name of 63 characters."""
    with client.tunnel("8600", "guest-free:80", "guest-free:443", f"guest-{'x' * 57}:80", to=web) as tunnel:
        assert tunnel.running


# Nothing that somebody else holds.


@pytest.mark.parametrize(
    "forward",
    [
        *("8500", "localhost:8500", "LOCALHOST:8500"),
        *(f"{GUEST}:80", f"{GUEST.upper()}:80", f"{GUEST.capitalize()}:80", f"{GUEST}.:80"),
        *(f"{GUEST}.{{domain}}:80", f"{GUEST}.{{domain}}.:80", f"{GUEST}.{{DOMAIN}}:80"),
    ],
)
def test_what_is_held_stays_with_its_holder(
    world: World, client: Client, visitor: Visitor, domain: str, forward: str
) -> None:
    """A second client is refused, however it spells the port or the name, and the first keeps serving."""
    expect_refused(client, f"{forward.format(domain=domain, DOMAIN=domain.upper())}:thief:80")
    for label in ("8500", GUEST):
        assert "Hello from web." in visitor.get(f"https://{label}.{domain}/").body


@pytest.mark.parametrize(("first", "second"), [("80", "443"), ("443", "80")])
def test_the_other_port_of_a_name_takes_no_visitors_away(
    world: World, client: Client, another_client, visitor: Visitor, domain: str, first: str, second: str
) -> None:
    """Names have two ports. Whoever is visited at one of them stays so when another client takes the other."""
    with world.web("plain") as plain, world.web("encrypted", 443, "--tls") as encrypted:
        services = {"80": plain, "443": encrypted}
        with client.tunnel(f"guest-ports:{first}", to=services[first]):
            url = f"https://guest-ports.{domain}/"
            assert f"Hello from {services[first].name}." in visitor.get(url).body
            with another_client().tunnel(f"guest-ports:{second}", to=services[second]), visitor.visits(url) as visits:
                until("there were 60 visits", lambda: len(visits.since()) > 60)
                assert {visit.body.partition("<p>")[2].strip() for visit in visits.since()} == {
                    f"Hello from {services[first].name}.</p>"
                }


# Nobody else.

ASKPASS = "/run/empty-password"


@pytest.mark.parametrize(
    "user", ["root", "sshd", "nobody", "www-data", "daemon", "Tunnel", "tunnel2", "alice", "*", "tunnel*"]
)
def test_nobody_else_logs_in(client: Client, user: str) -> None:
    """No other account, with no password, the empty one, or a key."""
    client.write(ASKPASS, "#!/bin/sh\necho\n")
    client.shell(f"chmod +x {ASKPASS}; test -e /run/key || ssh-keygen -q -t ed25519 -N '' -f /run/key").expect()
    result = client.exec(
        *("timeout", "20", "env", f"SSH_ASKPASS={ASKPASS}", "SSH_ASKPASS_REQUIRE=force", "ssh", "-v"),
        *(*client.options(), "-i", "/run/key", "-o", "NumberOfPasswordPrompts=3", "-N", "-l", user, client.host),
    )
    assert result.code == 255
    assert "Permission denied" in result.stderr
    assert "Authenticated to" not in result.stderr


def test_the_shared_account_needs_no_password(client: Client) -> None:
    """The same command as above logs the shared account in."""
    result = client.exec("timeout", "3", "ssh", "-v", *client.options(), "-N", "-l", "tunnel", client.host)
    assert result.code == 124
    assert "Authenticated to" in result.stderr


# After all of them.


def test_afterwards_the_host_listens_where_it_did(host: Host, listening_before: set[str]) -> None:
    until("the host listens where it did before", lambda: host.listening() == listening_before)


def test_afterwards_the_tunnel_of_the_bystander_answers(visitor: Visitor, domain: str) -> None:
    for label in ("8500", GUEST):
        answer = visitor.get(f"https://{label}.{domain}/")
        assert answer.status == 200
        assert "Hello from web." in answer.body
