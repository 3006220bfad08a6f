# SPDX-License-Identifier: GPL-3.0-or-later
"""login.py HOST WAY [PASSWORD]: logs in as `tunnel` with paramiko, which asks for nothing before the one way named.

Ways: none, password, key (one that the host has never seen). Prints the banner, then how it went.
"""

import sys

import paramiko

host, way, *password = sys.argv[1:]
transport = paramiko.Transport((host, 2222))
transport.start_client(timeout=10)
try:
    if way == "none":
        transport.auth_none("tunnel")
    elif way == "password":
        transport.auth_password("tunnel", password[0], fallback=False)
    else:
        transport.auth_publickey("tunnel", paramiko.RSAKey.generate(2048))
    transport.request_port_forward("guest-login", 80)
    said = "a tunnel is open"
except paramiko.SSHException as error:
    said = f"{type(error).__name__}: {error}"
print((transport.get_banner() or b"no banner").decode())
print(said)
transport.close()
