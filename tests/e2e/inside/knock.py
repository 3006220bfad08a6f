#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor who comes again and again: knock.py URL CA-FILE OUTPUT [EVERY [new]].

The connection is kept until the host closes it, or is a new one for each visit with "new".

Writes a line of JSON for each visit: {"time": monotonic seconds of this machine when the answer came, "seconds": how
long the visit took, "status": 0 if there was no answer, "body": its first 200 characters, or the reason why there was
none}.
"""

import http.client
import json
import pathlib
import select
import ssl
import sys
import time
import urllib.parse


def main() -> None:
    """Knock until ended."""
    url = urllib.parse.urlsplit(sys.argv[1])
    context = ssl.create_default_context(cafile=sys.argv[2])
    every = float(sys.argv[4]) if len(sys.argv) > 4 else 0.05
    new = sys.argv[5:] == ["new"]
    connection = None
    with pathlib.Path(sys.argv[3]).open("w", buffering=1) as output:
        while True:
            # A host may close a connection with an answer (then there is no socket any more), or between two visits;
            # clients look whether it has.
            if connection and (new or not connection.sock or select.select([connection.sock], [], [], 0)[0]):
                connection.close()
                connection = None
            came = time.monotonic()
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
            now = time.monotonic()
            line = {"time": now, "seconds": now - came, "status": status, "body": body[:200]}
            print(json.dumps(line), file=output)
            time.sleep(every)


main()
