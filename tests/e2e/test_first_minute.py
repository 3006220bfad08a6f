# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunneller's first minute: what ssh shows, and what happens to those who type something else."""

import re
import time

from world import Client, Host, Visitor, Web, until

REFUSED = "remote port forwarding failed"


def shown_commands(text: str) -> list[str]:
    """The ssh commands that a text shows."""
    return re.findall(r"^\s*(ssh .*?)\s*$", text, re.MULTILINE)


def test_the_banner_says_what_to_type_and_where_to_look(client: Client, web: Web, domain: str) -> None:
    """Shown even with -N: URLs, commands, and what to do when the forward was refused."""
    with client.tunnel("guest-x:80", to=web) as tunnel:
        output = tunnel.output
    commands = shown_commands(output)
    assert len(commands) >= 2, output
    for command in commands:
        assert "-o ExitOnForwardFailure=yes" in command
        assert command.endswith(f"tunnel@{domain}")
    assert any("-NR 8080:" in command for command in commands)
    assert any("-NR guest-x:80:" in command for command in commands)
    assert f"https://8080.{domain}" in output
    assert f"https://guest-x.{domain}" in output
    assert REFUSED in output
    assert re.search(rf"https://{re.escape(domain)}(\s|/|$)", output), "the landing page isn't named"
    banner = output[: output.rindex(f"https://{domain}")].splitlines()
    assert max(len(line) for line in banner if not line.startswith("debug1:")) <= 120


def test_the_shown_commands_work_as_typed(another_client: Client, host: Host, visitor: Visitor, domain: str) -> None:
    """A newcomer copies the commands of the banner, word for word, and looks at the URLs that it names."""
    newcomer = another_client()
    newcomer.shell(
        "mkdir -p ~/.ssh && printf 'StrictHostKeyChecking accept-new\nLogLevel INFO\n' >~/.ssh/config"
    ).expect()
    banner = newcomer.ssh("-N", timeout=3).output
    commands = shown_commands(banner)
    # A label with "--" is another way to the same tunnel.
    urls = re.findall(rf"(https://[a-z0-9]+(?:-[a-z0-9]+)*\.{re.escape(domain)})(?=\s)", banner)
    assert len(commands) == len(urls) >= 2, banner
    for command, url in zip(commands, urls, strict=True):
        # The service that the command names runs on the newcomer's own machine.
        port = re.search(r":localhost:(\d+) ", command)
        assert port, command
        newcomer.spawn("web.py", "--port", port[1], "--name", f"mine-{port[1]}")
        newcomer.spawn("sh", "-c", f"{command} </dev/null >/run/typed.log 2>&1")

        def served(url: str = url, port: str = port[1]) -> bool:
            return f"Hello from mine-{port}." in visitor.get(url).body

        until(f"{command} is served at {url}", served, within=20)


# What people type instead of -N: further options, and whether a terminal is there.
SESSIONS = [((), True), (("-t",), True), (("-tt",), True), ((), False), (("-T",), False), (("-tt",), False)]


def test_a_connection_without_n_stays_open_quietly(
    host: Host, client: Client, web: Web, visitor: Visitor, domain: str
) -> None:
    """No shell, but a sentence; then nothing until Ctrl-C. No process is left behind."""
    until("no session of an earlier test is left", lambda: not host.sessions(), within=30)
    sessions = {
        f"guest-{number}": client.session(f"guest-{number}:80", to=web, options=options, terminal=terminal)
        for number, (options, terminal) in enumerate(SESSIONS)
    }
    said = {}
    for name, session in sessions.items():
        until(
            f"{name} is told that there is no shell", lambda session=session: "There is no shell here" in session.said
        )
        said[name] = session.said
        assert "Ctrl-C" in session.said
        assert f"https://guest-x.{domain}" in session.said, "the banner is missing"
    time.sleep(3)  # what is awaited here is that nothing happens
    for name, session in sessions.items():
        assert session.running, session.output
        assert session.said == said[name], f"{name} did not stay quiet"
        # No certificate is needed to see that the tunnel serves: a live name leads to https.
        assert visitor.get(f"http://{name}.{domain}/", http="1.1").status == 308
    assert host.sessions()

    for session in sessions.values():
        session.interrupt()
    for session in sessions.values():
        session.wait_ended(within=10)
    until("no process of the sessions is left", lambda: not host.sessions(), within=30)


def test_typing_into_it_does_nothing(host: Host, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """Commands, Ctrl-D and Ctrl-Z neither run anything nor end it."""
    session = client.session("guest-x:80", to=web, terminal=True)
    until("it says that there is no shell", lambda: "There is no shell here" in session.said)
    session.type("id; touch /tmp/typed; echo uid=$((6*7))\n\x1a\x04\x04exit\n")
    time.sleep(2)  # what is awaited here is that nothing happens
    assert session.running
    assert "uid=" not in session.said.replace("echo uid=", "")
    assert visitor.get(f"https://guest-x.{domain}/").status == 200
    session.interrupt()
    session.wait_ended(within=10)


def test_a_killed_client_leaves_no_process(host: Host, client: Client, web: Web) -> None:
    """Within 30 s after a kill -9 of the client nothing of its session is left in sshd's container."""
    sessions = [client.session(f"guest-{end}:80", to=web, terminal=end == "x") for end in ("x", "y")]
    for session in sessions:
        until("it says that there is no shell", lambda session=session: "There is no shell here" in session.said)
    assert host.sessions()
    for session in sessions:
        session.kill()
    until("no process of the sessions is left", lambda: not host.sessions(), within=30)


def test_a_refused_forward_says_the_words_that_the_banner_explains(
    client: Client, another_client: Client, web: Web
) -> None:
    """Without ExitOnForwardFailure ssh stays and says it; with it ssh ends and says it."""
    with client.tunnel("guest-x:80", to=web):
        stays = another_client().tunnel("guest-x:80", to=web, exit_on_failure=False, wait=False)
        until("ssh says that the forward failed", stays.refused)
        assert re.search(rf"^Warning: {REFUSED} for listen port 80", stays.output, re.MULTILINE), stays.output
        assert stays.running
        ends = another_client().tunnel("guest-x:80", to=web, wait=False)
        assert ends.wait_ended() == 255
        assert re.search(rf"^Error: {REFUSED} for listen port 80", ends.output, re.MULTILINE), ends.output
    assert f'"{REFUSED}"' in stays.output, "the banner does not explain these words"
