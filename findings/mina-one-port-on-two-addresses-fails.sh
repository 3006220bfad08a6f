#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Program: Apache MINA SSHD 2.20.0 (sshd-core), of Maven Central, as client. The server is asyncssh 2.24.1, of PyPI.
#
# Guess: startRemotePortForwarding for one port on two addresses, 127.0.0.1:PORT and 127.0.0.2:PORT, in one session
# works as it does with ssh, since the protocol names a forward by address and port together.
#
# Seen: MINA knows its forwards by the port alone. The second call throws an IOException, and only after the server
# has been asked for the forward and has granted it. So tunnels with names of their own at port 80 need a session
# each. asyncssh as client, to compare, gets both from the same server.
#
# Output seen:
#   asyncssh, 127.0.0.1: forwarded
#   asyncssh, 127.0.0.2: forwarded
#   MINA, 127.0.0.1: forwarded
#   MINA, 127.0.0.2: Multiple remote port forwarding bindings on port=PORT
#   the server has granted 4

set -euo pipefail

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install asyncssh==2.24.1
cat >server.py <<'END'
import asyncio

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

    def server_requested(self, listen_host, listen_port):
        print("granted", flush=True)
        return True


async def main():
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key])
    print(server.get_port(), flush=True)
    await asyncio.sleep(100)


asyncio.run(main())
END

cat >pom.xml <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>findings</groupId>
  <artifactId>client</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.sshd</groupId>
      <artifactId>sshd-core</artifactId>
      <version>2.20.0</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -Dmaven.repo.local="$work/repository" -DoutputDirectory="$work/jars" >mvn.log || { cat mvn.log; exit 1; }
cat >Client.java <<'END'
import java.io.IOException;
import org.apache.sshd.client.SshClient;
import org.apache.sshd.client.session.ClientSession;
import org.apache.sshd.common.util.net.SshdSocketAddress;
import org.apache.sshd.server.forward.AcceptAllForwardingFilter;

class Client {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[1]);
        SshClient client = SshClient.setUpDefaultClient();
        client.setServerKeyVerifier((session, address, key) -> true);
        client.setForwardingFilter(AcceptAllForwardingFilter.INSTANCE);
        client.start();
        int server = Integer.parseInt(arguments[0]);
        ClientSession session = client.connect("nobody", "127.0.0.1", server).verify(20000).getSession();
        session.auth().verify(20000);
        for (String address : new String[] {"127.0.0.1", "127.0.0.2"}) {
            String result = "forwarded";
            try {
                session.startRemotePortForwarding(
                        new SshdSocketAddress(address, port), new SshdSocketAddress("127.0.0.1", 9));
            } catch (IOException error) {
                result = error.getMessage().replaceAll(":.*", "").replace("port=" + port, "port=PORT");
            }
            System.out.println("MINA, " + address + ": " + result);
        }
        System.exit(0);
    }
}
END

cat >asyncssh_client.py <<'END'
import asyncio
import sys

import asyncssh


async def main():
    server, port = map(int, sys.argv[1:])
    async with asyncssh.connect(
        "127.0.0.1", server, username="nobody", known_hosts=None, client_keys=None, config=[]
    ) as client:
        for address in ("127.0.0.1", "127.0.0.2"):
            await client.forward_remote_port(address, port, "127.0.0.1", 9)
            print(f"asyncssh, {address}: forwarded")


asyncio.run(main())
END

venv/bin/python server.py >server.out &
pids+=($!)
for _ in {1..100}; do if [ -s server.out ]; then break; fi; sleep 0.1; done
server=$(head -1 server.out)
free() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
seen="$(timeout 20 venv/bin/python asyncssh_client.py "$server" "$(free)")
$(timeout 60 java -cp "jars/*" Client.java "$server" "$(free)" 2>client.log || tail client.log)
the server has granted $(grep -c granted server.out)"
expected="asyncssh, 127.0.0.1: forwarded
asyncssh, 127.0.0.2: forwarded
MINA, 127.0.0.1: forwarded
MINA, 127.0.0.2: Multiple remote port forwarding bindings on port=PORT
the server has granted 4"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
