#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gRPC service without TLS: grpc_service.py PORT FILE. Messages are bytes.

/test/Echo   answers what it was sent, with metadata before and behind it
/test/Told   answers as JSON what it was told: the metadata, and the seconds that are left
/test/Fail   fails with NOT_FOUND
/test/Count  streams the numbers below the one that it was sent
/test/Sum    takes a stream of numbers, and answers their sum
/test/Talk   echoes a stream as it comes
/test/Wait   answers nothing; writes into FILE when its client has gone
"""

import json
import pathlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """With metadata in front and behind."""
    context.send_initial_metadata((("x-first", "1"),))
    context.set_trailing_metadata((("x-last", "2"), ("x-bytes-bin", bytes(range(256)))))
    return request


def told(_: bytes, context: grpc.ServicerContext) -> bytes:
    """What it was told."""
    metadata = [[name, value] for name, value in context.invocation_metadata() if isinstance(value, str)]
    return json.dumps({"metadata": metadata, "left": context.time_remaining()}).encode()


def fail(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Trailers alone."""
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä%")


def wait(_: bytes, context: grpc.ServicerContext) -> bytes:
    """Until the client has gone."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait()
    pathlib.Path(sys.argv[2]).write_text("gone")
    return b""


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Told": grpc.unary_unary_rpc_method_handler(told),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Count": grpc.unary_stream_rpc_method_handler(lambda last, _: (b"%d" % number for number in range(int(last)))),
    "Sum": grpc.stream_unary_rpc_method_handler(lambda numbers, _: b"%d" % sum(map(int, numbers))),
    "Talk": grpc.stream_stream_rpc_method_handler(lambda words, _: words),
}
server = grpc.server(ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", METHODS),))
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
server.wait_for_termination()
