#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor who comes again and again over one kept connection: knock.py URL CA-FILE OUTPUT [EVERY].

Writes a line of JSON for each visit: {"time": monotonic seconds of this machine when the answer came, "status": 0 if
there was no answer, "body": its first 200 characters, or the reason why there was none}.
"""

import http.client
import json
import pathlib
import ssl
import sys
import time
import urllib.parse


def main() -> None:
    """Knock until ended."""
    url = urllib.parse.urlsplit(sys.argv[1])
    context = ssl.create_default_context(cafile=sys.argv[2])
    every = float(sys.argv[4]) if len(sys.argv) > 4 else 0.05
    connection = None
    with pathlib.Path(sys.argv[3]).open("w", buffering=1) as output:
        while True:
            try:
                connection = connection or http.client.HTTPSConnection(url.netloc, timeout=3, context=context)
                connection.request("GET", url.path or "/")
                answer = connection.getresponse()
                status, body = answer.status, answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                status, body = 0, repr(error)
                if connection:
                    connection.close()
                connection = None
            print(json.dumps({"time": time.monotonic(), "status": status, "body": body[:200]}), file=output)
            time.sleep(every)


main()
