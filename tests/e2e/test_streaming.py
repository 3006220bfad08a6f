# SPDX-License-Identifier: GPL-3.0-or-later
"""Big things, slow things and quiet things pass in both directions, as they come."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from world import Client, Container, Host, Tunnel, Visitor, Web, World, until

GIB = 2**30
MIB = 2**20
RISE = 32 * MIB
# More than all buffers on the way hold.
UNREAD = 50_000_000
# Shorter than the 30 minutes that a tunnel may well be idle, with the same settings: each timer of sshd and of the
# namespace that could end an idle tunnel (ClientAlive, LoginGraceTime, TCP keepalive: 20 s at the most) is over then.
IDLE = 60
# Longer than nginx waits for a visitor if it isn't told otherwise (client_body_timeout, send_timeout: 60 s).
PAUSE = 65
# Longer than the time after which an ordinary request that is silent is given up (tunnel_answer_timeout).
QUIET = 13

# A WebSocket conversation with a pause in which neither side says anything, not even a ping.
CONVERSATION = """
import asyncio, ssl, sys, websockets
async def main():
    tls = ssl.create_default_context(cafile="/run/root.pem")
    async with websockets.connect(sys.argv[1], ssl=tls, ping_interval=None, max_size=None) as socket:
        for message in ("before", b"\\0" * 1_000_000):
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.sleep(float(sys.argv[2]))
        await socket.send("after")
        print(await socket.recv())
asyncio.run(main())
"""

# Sends a body in two parts: the first at once (curl itself may hold some of it back), the last when /run/go is there.
FIRST = 100_000
IN_TWO_PARTS = f"rm -f /run/go; (head -c {FIRST} /dev/zero; until [ -e /run/go ]; do sleep 0.1; done; printf last) | "


class Memory:
    """The anonymous memory of the host's containers while a `with` block runs."""

    def __init__(self, host: Host) -> None:
        """Take what is used now for the idle figure."""
        self.host = host
        self.samples: list[dict[str, int]] = []
        self._done = threading.Event()
        ids = host.docker("ps", "--no-trunc", "--filter=name=proxme-tunnel-", "--format={{.Names}} {{.ID}}").expect()
        groups = dict(line.split() for line in ids.stdout.splitlines())
        assert len(groups) == 8, groups
        # One command for all, so that a look takes no longer than a moment. With control groups of version 1 the
        # figure is called total_rss.
        stat = (
            "$(ls /sys/fs/cgroup/memory/*/{id}/memory.stat /sys/fs/cgroup/*/*{id}*/memory.stat 2>/dev/null | head -n1)"
        )
        self._command = "; ".join(
            f"echo {name} $(grep -E '^(anon|total_rss) ' {stat.format(id=id)})" for name, id in groups.items()
        )
        self.idle = self.look()

    def look(self) -> dict[str, int]:
        """Bytes of anonymous memory by container."""
        lines = [line.split() for line in self.host.shell(self._command).expect().stdout.splitlines()]
        return {name: int(size) for name, _, size in lines}

    def __enter__(self) -> Self:
        self.samples.clear()
        self._done.clear()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.3):
            self.samples.append(self.look())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def rise(self) -> dict[str, int]:
        """By container: MiB by which it was above its idle figure at its highest."""
        return {name: max(sample[name] - idle for sample in self.samples) // MIB for name, idle in self.idle.items()}

    def expect_flat(self) -> None:
        """Expect that no container rose much, and that they were looked at while things went on."""
        assert len(self.samples) >= 5
        print(f"rise of anonymous memory, MiB: {self.rise()}, {len(self.samples)} looks")
        assert max(self.rise().values()) * MIB <= RISE, self.rise()


def write_pattern(container: Container, path: str, size: int) -> str:
    """Write a file whose every part is different; its SHA-256."""
    script = (
        f"openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 -in /dev/zero 2>/dev/null "
        f"| head -c {size} >{path}; sha256sum {path}"
    )
    return container.shell(script).expect().stdout.split()[0]


@pytest.fixture(scope="module")
def memory(host: Host) -> Memory:
    """The memory of the host, idle before the tests of this file."""
    return Memory(host)


@pytest.fixture(scope="module")
def idle_tunnel(world: World, web: Web) -> Iterator[tuple[Tunnel, float]]:
    """A tunnel that nobody visits while the tests of this file run, and when it was opened."""
    with world.client("idle") as client:
        yield client.tunnel("guest-idle:80", to=web), time.monotonic()


@pytest.fixture(scope="module")
def paused(world: World, web: Web, visitor: Visitor, domain: str) -> Iterator[None]:
    """Visitors who pause an upload and a download while the tests of this file run."""
    with world.client("paused") as client, client.tunnel("guest-paused:80", to=web):
        name = f"guest-paused.{domain}"
        assert visitor.get(f"https://{name}/").status == 200
        size, seconds = str(UNREAD), str(PAUSE)
        with (
            visitor.background("pause.py", "up", name, "/run/root.pem", size, seconds, "/run/paused-up"),
            visitor.background("pause.py", "down", name, "/run/root.pem", size, seconds, "/run/paused-down"),
        ):
            yield


@pytest.fixture
def files(web: Web) -> Iterator[Callable[[int], str]]:
    """Call it to have the service's machine serve a file of so many bytes at port 81; returns its SHA-256."""
    server = "http { access_log off; sendfile on; server { listen 81; root /tmp; } }"
    web.container.write("/tmp/files.conf", f"events {{}} pid /tmp/files.pid; error_log stderr; {server}")
    web.container.shell("nginx -e stderr -c /tmp/files.conf").expect()
    yield lambda size: write_pattern(web.container, "/tmp/big", size)
    web.container.shell("nginx -e stderr -c /tmp/files.conf -s stop; rm -f /tmp/big")


@pytest.mark.usefixtures("idle_tunnel", "paused")
def test_a_gibibyte_down_takes_no_memory(
    memory: Memory, client: Client, web: Web, visitor: Visitor, domain: str, files: Callable[[int], str]
) -> None:
    """A download of 1 GiB over HTTPS arrives whole, and no container holds it."""
    expected = files(GIB)
    with client.tunnel(f"guest-x:80:{web.name}:81"):
        url = f"https://guest-x.{domain}/big"
        assert visitor.get(url, method="HEAD").headers["content-length"] == str(GIB)
        with memory:
            fetch = f"curl -sS --http2 --cacert /run/root.pem --max-time 200 {url} | sha256sum"
            assert visitor.shell(fetch, timeout=220).expect().stdout.split()[0] == expected
    memory.expect_flat()


@pytest.mark.usefixtures("idle_tunnel", "paused")
def test_a_gibibyte_up_takes_no_memory(memory: Memory, client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """An upload of 1 GiB over HTTPS arrives whole, and no container holds it."""
    expected = write_pattern(visitor, "/tmp/big", GIB)
    with client.tunnel("guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        with memory:
            send = f"curl -sS --http2 --cacert /run/root.pem --max-time 200 -T /tmp/big https://guest-x.{domain}/upload"
            answer = json.loads(visitor.shell(send, timeout=220).expect().stdout)
    visitor.shell("rm /tmp/big").expect()
    assert answer == {"bytes": GIB, "sha256": expected}
    memory.expect_flat()


@pytest.mark.parametrize("http", ["1.1", "2", "3"])
def test_the_first_bytes_of_an_upload_arrive_before_the_last_are_sent(
    client: Client, web: Web, visitor: Visitor, domain: str, http: str
) -> None:
    """A chunked request isn't held back until it is complete."""
    url = f"https://guest-x.{domain}/upload"
    curl = f"curl -sS {Visitor.VERSIONS[http]} --cacert /run/root.pem --max-time 60 -X POST -T - {url} >/run/answer"
    with client.tunnel("guest-x:80", to=web):
        web.get("/upload")  # an empty one, which sets the count to 0
        visitor.shell("rm -f /run/answer").expect()
        visitor.spawn("sh", "-c", IN_TWO_PARTS + curl)
        until("the first bytes are there", lambda: json.loads(web.get("/progress"))["bytes"] > 0)
        visitor.write("/run/go", "")
        answer = until("the upload is answered", lambda: visitor.shell("cat /run/answer").stdout)
    assert json.loads(answer)["bytes"] == FIRST + len("last")


@pytest.mark.parametrize("http", ["1.1", "2", "3"])
def test_events_come_at_once(client: Client, web: Web, visitor: Visitor, domain: str, http: str) -> None:
    """The first of two server-sent events that are 4 s apart is there at once, the stream still being open."""
    with client.tunnel("guest-x:80", to=web):
        visitor.get(f"https://guest-x.{domain}/")
        first, second = visitor.events(f"https://guest-x.{domain}/sse?n=2&gap=4", count=2, http=http)
    assert first < 1
    assert second > 4


def test_quiet_streams_stay(client: Client, web: Web, visitor: Visitor, domain: str) -> None:
    """A WebSocket and an event stream may be silent for longer than an ordinary request."""
    with client.tunnel("guest-x:80", to=web):
        assert visitor.get(f"https://guest-x.{domain}/").status == 200
        events = f"'https://guest-x.{domain}/sse?n=2&gap={QUIET}' -H 'Accept: text/event-stream'"
        listen = f"curl -sSN --cacert /run/root.pem {events} >/run/events 2>&1; echo ended $? >>/run/events"
        visitor.spawn("sh", "-c", listen)
        talk = ("python3", "-", f"wss://guest-x.{domain}/ws", str(QUIET))
        assert visitor.exec(*talk, stdin=CONVERSATION.encode(), timeout=QUIET + 60).expect().stdout == "after\n"
        until("the event stream ends", lambda: "ended" in visitor.read("/run/events"))
    assert visitor.read("/run/events") == "data: 0\n\ndata: 1\n\nended 0\n"


def test_an_idle_tunnel_stays(idle_tunnel: tuple[Tunnel, float], visitor: Visitor, domain: str) -> None:
    """Nobody visited it for a minute, and it serves. The last test of this file: most of the minute has passed."""
    tunnel, opened = idle_tunnel
    left = opened + IDLE - time.monotonic()
    if left > 0:
        time.sleep(left)
    assert tunnel.running, tunnel.output
    answer = visitor.get(f"https://guest-idle.{domain}/")
    assert answer.status == 200, answer.error


def test_a_visitor_may_pause(paused: None, visitor: Visitor) -> None:
    """In the middle of an upload, and of a film. They have paused since the first test of this file."""
    for direction, said in (("down", str(UNREAD)), ("up", f'"bytes": {UNREAD}')):
        ended = until(
            f"the pause ({direction}) is over",
            lambda d=direction: visitor.shell(f"cat /run/paused-{d}").stdout,
            within=PAUSE + 30,
        )
        assert said in ended
