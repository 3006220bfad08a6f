#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor who pauses in the middle: pause.py up|down HOST CA-FILE SIZE SECONDS FILE.

Sends a body of SIZE bytes to /upload, or takes one of /bytes/SIZE, over HTTP/1.1. How that ended is written into FILE:
what was answered, or how many bytes came.
"""

import http.client
import pathlib
import ssl
import sys
import time

direction, host, root, size, seconds, file = sys.argv[1:]
connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=root), timeout=60)
half = int(size) // 2
try:
    if direction == "up":
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Length", size)
        connection.endheaders()
        connection.send(bytes(half))
        time.sleep(float(seconds))
        connection.send(bytes(int(size) - half))
        said = connection.getresponse().read().decode()
    else:
        connection.request("GET", f"/bytes/{size}")
        answer = connection.getresponse()
        # What is on the way is more than all buffers hold.
        came = len(answer.read(1_000_000))
        time.sleep(float(seconds))
        said = str(came + len(answer.read()))
except (OSError, http.client.HTTPException) as error:
    said = repr(error)
pathlib.Path(file).write_text(said)
