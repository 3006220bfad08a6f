#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls each method of grpc_service.py: grpc_visitor.py HOST CA-FILE QUIET. What it heard is a line of JSON.

Between two words of /test/Talk are QUIET silent seconds.
"""

import json
import pathlib
import queue
import sys
import time
from collections.abc import Callable

import grpc

host, root, quiet = sys.argv[1], pathlib.Path(sys.argv[2]).read_bytes(), float(sys.argv[3])
channel = grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials(root))
grpc.channel_ready_future(channel).result(20)
unary = {name: channel.unary_unary(f"/test/{name}") for name in ("Echo", "Told", "Fail", "Wait", "Unknown")}


def code(call: Callable[[], object]) -> list[str]:
    """How a call that fails ends."""
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


heard: dict[str, object] = {}
words: queue.Queue = queue.Queue()
talk = channel.stream_stream("/test/Talk")(iter(words.get, None))
words.put(b"first")
heard["talk"] = [next(talk).decode()]
began = time.monotonic()

answer, call = unary["Echo"].with_call(b"\0" * 3_000_000, timeout=20)
heard["echo"] = len(answer)
heard["first"] = dict(call.initial_metadata()).get("x-first")
behind = dict(call.trailing_metadata())
heard["last"] = [behind.get("x-last"), list(behind.get("x-bytes-bin", b"")) == list(range(256))]
heard["many"] = len([unary["Echo"](b"%d" % number, timeout=20) for number in range(100)])
heard["told"] = json.loads(unary["Told"](b"", timeout=20, metadata=(("x-word", "here"),)))
heard["fail"] = code(lambda: unary["Fail"](b"", timeout=20))
heard["unknown"] = code(lambda: unary["Unknown"](b"", timeout=20))[0]
heard["count"] = [int(number) for number in channel.unary_stream("/test/Count")(b"1000", timeout=20)] == list(
    range(1000)
)
heard["sum"] = int(channel.stream_unary("/test/Sum")((b"%d" % number for number in range(1000)), timeout=20))
late = time.monotonic()
heard["wait"] = code(lambda: unary["Wait"](b"", timeout=1))[0]
heard["waited"] = time.monotonic() - late

time.sleep(max(0.0, began + quiet - time.monotonic()))
words.put(b"after")
heard["talk"].append(next(talk).decode())
words.put(None)
heard["talk"].append(list(talk))
heard["talked"] = talk.code().name
print(json.dumps(heard))
