#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Programs: JSch 2.28.8 (com.github.mwiede) and sshj 0.40.0, of Maven Central, as clients; asyncssh 2.24.1, of PyPI,
# as server, and once as client, to compare.
#
# Guess: a visitor of a remote forward who has sent all and closes its sending half, as `nc -N` does, still gets the
# answer, through every client, for ssh's channels have an end of data apart from their close.
#
# Seen: with the forwards that JSch and sshj bring along the visitor gets nothing. At the visitor's end of data they
# close the whole connection to the service, so the service's answer has nowhere to go. To a visitor that leaves its
# half open they bring the same answer.
#
# Output seen:
#   asyncssh: half open: answer, half closed: answer
#   jsch: half open: answer, half closed: nothing
#   sshj: half open: answer, half closed: nothing

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
      <groupId>com.github.mwiede</groupId>
      <artifactId>jsch</artifactId>
      <version>2.28.8</version>
    </dependency>
    <dependency>
      <groupId>com.hierynomus</groupId>
      <artifactId>sshj</artifactId>
      <version>0.40.0</version>
    </dependency>
  </dependencies>
</project>
END
mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -Dmaven.repo.local="$work/repository" -DoutputDirectory="$work/jars" >mvn.log || { cat mvn.log; exit 1; }
cat >Client.java <<'END'
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Session;
import java.net.InetSocketAddress;
import net.schmizz.sshj.SSHClient;
import net.schmizz.sshj.connection.channel.forwarded.RemotePortForwarder.Forward;
import net.schmizz.sshj.connection.channel.forwarded.SocketForwardingConnectListener;
import net.schmizz.sshj.transport.verification.PromiscuousVerifier;
import net.schmizz.sshj.userauth.method.AuthNone;

class Client {
    public static void main(String[] arguments) throws Exception {
        int server = Integer.parseInt(arguments[1]);
        int port = Integer.parseInt(arguments[2]);
        int service = Integer.parseInt(arguments[3]);
        if (arguments[0].equals("jsch")) {
            Session session = new JSch().getSession("nobody", "127.0.0.1", server);
            session.setConfig("StrictHostKeyChecking", "no");
            session.connect();
            session.setPortForwardingR("127.0.0.1", port, "127.0.0.1", service);
        } else {
            SSHClient client = new SSHClient();
            client.addHostKeyVerifier(new PromiscuousVerifier());
            client.connect("127.0.0.1", server);
            client.auth("nobody", new AuthNone());
            client.getRemotePortForwarder().bind(
                    new Forward("127.0.0.1", port),
                    new SocketForwardingConnectListener(new InetSocketAddress("127.0.0.1", service)));
        }
        Thread.sleep(60000);
    }
}
END
cat >asyncssh_client.py <<'END'
import asyncio
import sys

import asyncssh


async def main():
    server, port, service = map(int, sys.argv[1:])
    client = await asyncssh.connect(
        "127.0.0.1", server, username="nobody", known_hosts=None, client_keys=None, config=[]
    )
    await client.forward_remote_port("127.0.0.1", port, "127.0.0.1", service)
    await asyncio.sleep(60)


asyncio.run(main())
END
# Answers half a second after a whole line or the end of data, whichever comes first.
cat >service.py <<'END'
import socket
import threading
import time


def serve(visitor):
    try:
        visitor.makefile().readline()
        time.sleep(0.5)
        visitor.sendall(b"answer")
    except OSError:
        pass
    visitor.close()


service = socket.create_server(("127.0.0.1", 0))
print(service.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(service.accept()[0],)).start()
END
cat >visitor.py <<'END'
import socket
import sys
import time

port = int(sys.argv[1])
for _ in range(200):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        time.sleep(0.1)


def visit(close):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        if close:
            visitor.sendall(b"question")
            visitor.shutdown(socket.SHUT_WR)
        else:
            visitor.sendall(b"question\n")
        try:
            return visitor.makefile().read() or "nothing"
        except OSError:
            return "nothing"


print(f"half open: {visit(False)}, half closed: {visit(True)}")
END

venv/bin/python server.py >server.out &
pids+=($!)
venv/bin/python service.py >service.out &
pids+=($!)
for _ in {1..100}; do if [ -s server.out ] && [ -s service.out ]; then break; fi; sleep 0.1; done

forward() {
    local name=$1 port client
    shift
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$@" "$(<server.out)" "$port" "$(<service.out)" >"$name.log" 2>&1 &
    client=$!
    echo "$name: $(timeout 50 python3 visitor.py "$port")"
    kill "$client"
    wait "$client" 2>/dev/null || true
}
seen="$(forward asyncssh venv/bin/python asyncssh_client.py)
$(forward jsch java -cp "jars/*" Client.java jsch)
$(forward sshj java -cp "jars/*" Client.java sshj)"
expected="asyncssh: half open: answer, half closed: answer
jsch: half open: answer, half closed: nothing
sshj: half open: answer, half closed: nothing"
echo "$seen"
if [ "$seen" != "$expected" ]; then
    echo "No longer so. It was:"
    echo "$expected"
    exit 1
fi
