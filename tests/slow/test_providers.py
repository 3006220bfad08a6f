# SPDX-License-Identifier: GPL-3.0-or-later
"""certbot's image for each DNS provider but rfc2136, which the scenarios try against a real name server.

No provider is asked here: the image builds, certbot lists the plugin, and both take the files that the role writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/certbot_wildcard"
FILES = ROLE / "files/certbot"
# Google's library reads the key, so it has to be one; nobody knows it.
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SERVICE_ACCOUNT = {
    "type": "service_account",
    "project_id": "example",
    "private_key": KEY.decode(),
    "client_email": "certbot@example.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}
# As docs/wildcard.md shows them.
SETTINGS = {
    "cloudflare": {"api_token": "example"},
    "route53": {"aws_access_key_id": "example", "aws_secret_access_key": "example"},
    "ovh": {
        "endpoint": "ovh-eu",
        "application_key": "example",
        "application_secret": "example",
        "consumer_key": "example",
    },
    "digitalocean": {"token": "example"},
    "hetzner": {"api_token": "example"},
    "desec": {"token": "example"},
    "gandi": {"token": "example"},
    "google": SERVICE_ACCOUNT,
    "linode": {"key": "example"},
}
# What certbot does with both files before it asks the CA for anything, and what it leaves for the challenge.
ACCEPT = """
import sys
from certbot import configuration
from certbot._internal import cli
from certbot._internal.plugins import disco
plugins = disco.PluginsRegistry.find_all()
arguments = cli.prepare_and_parse_args(plugins, ["certonly", "--config", "/etc/proxme-tunnel/cli.ini"])
config = configuration.NamespaceConfig(arguments)
plugin = plugins[config.authenticator].init(config)
plugin.prepare()
getattr(plugin, "_setup_credentials", lambda: None)()
print(config.authenticator, config.domains if hasattr(config, "domains") else config.sans)
"""


def docker(*arguments: str) -> str:
    """Run docker and return its output; on failure fail the test with it."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def base() -> str:
    """Have the base image that the engines inside the instances get."""
    build = [sys.executable, str(ROOT / "tests/images/build.py"), "served-debian"]
    done = subprocess.run(build, capture_output=True, text=True, check=True)
    # Where a registry answers nothing stands in for its image.
    return json.loads(done.stdout.splitlines()[-1]).get("served-debian", "debian:trixie-slim")


@pytest.fixture(params=SETTINGS)
def provider(request) -> str:
    """One provider after the other."""
    return request.param


@pytest.fixture
def image(provider, base) -> Iterator[str]:
    """The image for the provider, built as the role builds it."""
    name = f"proxme-test/certbot-{provider}"
    arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"PLUGIN=certbot-dns-{provider}"]
    docker("build", *arguments, "--tag", name, str(FILES))
    yield name
    docker("rmi", name)


@pytest.fixture
def configuration(provider, tmp_path) -> Path:
    """The folder of the files that the role writes for the provider."""
    variables = {
        "ansible_python_interpreter": sys.executable,
        "tunnel_tls": "wildcard",
        "tunnel_domain": "proxme.example.com",
        "tunnel_dns_provider": provider,
        "tunnel_dns_settings": SETTINGS[provider],
        "tunnel_dns_propagation_seconds": 30,
    }
    tasks = [{"include_vars": f"{ROLE}/vars/main.yml"}, {"proxme.tunnel.settings": {}, "register": "tunnel"}]
    tasks += [
        {"template": {"src": f"{ROLE}/templates/{name}.j2", "dest": f"{tmp_path}/{name}", "mode": "0600"}}
        for name in ("cli.ini", "credentials")
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
    (tmp_path / "write.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "write.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path


def test_certbot_lists_the_plugin_and_takes_the_configuration(provider, image, configuration):
    run = ("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp")
    run += ("--volume", f"{configuration}:/etc/proxme-tunnel:ro", image)
    listed = docker(*run, "certbot", "plugins", "--config", "/etc/proxme-tunnel/cli.ini")
    assert f"* dns-{provider}\n" in listed
    assert f"dns-{provider}" in docker(*run, "python3", "-c", ACCEPT)
