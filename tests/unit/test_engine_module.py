# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `engine`: whose options the daemon gets, and what is taken back."""

from __future__ import annotations

import json

import pytest
from stand_in import StandIn

OPTIONS = {
    "live-restore": True,
    "log-driver": "json-file",
    "log-opts": {"max-file": "3", "max-size": "10m"},
}
DAEMON = "etc/docker/daemon.json"
RECORD = "etc/proxme-tunnel/docker_engine"


@pytest.fixture
def bare(tmp_path, monkeypatch) -> StandIn:
    """A host without an engine."""
    host = StandIn("engine", tmp_path, monkeypatch)
    host.write("etc/hostname", "host\n")
    host.answer("dpkg-query", out="installed bash\nconfig-files nano\n")
    return host


@pytest.fixture
def host(bare) -> StandIn:
    """A host with systemd and an engine that has nothing on it."""
    (bare.root / "run/systemd/system").mkdir(parents=True)
    bare.install("dockerd")
    bare.answer("docker", "info", "inactive\n28.2.2\n")
    for nothing in ("ps", "volume ls", "image prune", "builder prune"):
        bare.answer("docker", nothing)
    bare.answer("systemctl")
    bare.answer("systemctl", "is-enabled", "enabled\n")
    return bare


def read(host: StandIn, path: str = DAEMON) -> dict[str, object]:
    """Return what a JSON file of the host holds."""
    return json.loads((host.root / path).read_text())


def reloads(host: StandIn) -> int:
    """Return how often the daemon was told to reload its options."""
    return host.calls("systemctl").count(["reload", "docker"])


def test_options_are_added_once_and_the_daemon_reloads_them_once(host, capsys):
    first = host.run(capsys, options=OPTIONS, required=True)
    assert (first["changed"], first["answers"], first["version"], first["notes"]) == (True, True, "28.2.2", [])
    assert read(host) == read(host, f"{RECORD}/options.json") == OPTIONS
    assert (host.root / DAEMON).stat().st_mode & 0o7777 == 0o644
    assert (host.root / RECORD).stat().st_mode & 0o7777 == 0o755
    assert '    "log-driver": "json-file"' in first["diff"][0]["after"]
    before = (host.root / DAEMON).stat()
    second = host.run(capsys, options=OPTIONS, required=True)
    assert (second["changed"], second["diff"]) == (False, [])
    assert (host.root / DAEMON).stat() == before
    assert reloads(host) == 1


def test_a_second_run_starts_two_programs(host, capsys):
    """One where the link is there that enables the service."""
    host.run(capsys, options=OPTIONS)
    host.log.unlink()
    host.run(capsys, options=OPTIONS)
    assert [call[:2] for call in host.calls()] == [["docker", "info"], ["systemctl", "is-enabled"]]
    host.write("etc/systemd/system/multi-user.target.wants/docker.service", "")
    host.log.unlink()
    host.run(capsys, options=OPTIONS)
    assert [call[:2] for call in host.calls()] == [["docker", "info"]]


def test_the_operators_keys_win_and_are_not_taken_for_ours(host, capsys):
    own = '{"log-driver": "journald",\n "debug": true}\n'
    host.write(DAEMON, own).chmod(0o600)
    host.run(capsys, options=OPTIONS)
    # With a bound for logs that journald does not know the engine would not start again.
    assert read(host) == {"live-restore": True, "log-driver": "journald", "debug": True}
    assert read(host, f"{RECORD}/options.json") == {"live-restore": True}
    assert (host.root / RECORD / "daemon.json").read_text() == own
    host.run(capsys, state="absent")
    assert (host.root / DAEMON).read_text() == own
    assert (host.root / DAEMON).stat().st_mode & 0o7777 == 0o600
    assert not (host.root / "etc/proxme-tunnel").exists()
    assert reloads(host) == 2


@pytest.mark.parametrize(
    ("driver", "bound"), [("json-file", True), ("local", True), ("journald", False), ("syslog", False), ("none", False)]
)
def test_only_drivers_that_know_a_bound_for_logs_get_one(driver, bound, host, capsys):
    host.write(DAEMON, json.dumps({"log-driver": driver}))
    host.run(capsys, options=OPTIONS)
    assert ("log-opts" in read(host)) == bound
    host.write(DAEMON, "{}")
    host.run(capsys, options=OPTIONS | {"log-driver": driver})
    assert ("log-opts" in read(host)) == bound
    host.run(capsys, options=OPTIONS | {"log-driver": driver, "log-opts": {"tag": "x"}})
    assert read(host)["log-opts"] == {"tag": "x"}


def test_options_that_the_operator_has_already_stay_as_they_are_written(host, capsys):
    own = json.dumps(OPTIONS)
    host.write(DAEMON, own)
    host.run(capsys, options=OPTIONS)
    assert (host.root / DAEMON).read_text() == own
    host.run(capsys, state="absent")
    assert (host.root / DAEMON).read_text() == own
    assert reloads(host) == 0


def test_what_the_operator_changed_since_stays(host, capsys):
    host.run(capsys, options=OPTIONS)
    host.write(DAEMON, json.dumps(OPTIONS | {"live-restore": False, "debug": True}))
    assert host.run(capsys, options=OPTIONS | {"debug": False})["changed"]
    assert read(host) == OPTIONS | {"live-restore": False, "debug": True}
    host.run(capsys, state="absent")
    assert read(host) == {"live-restore": False, "debug": True}


def test_an_option_that_is_given_up_goes_and_one_that_changes_changes(host, capsys):
    host.run(capsys, options=OPTIONS | {"mtu": 1400, "registry-mirrors": ["https://one.example.com"]})
    host.run(capsys, options=OPTIONS | {"registry-mirrors": ["https://two.example.com"]})
    assert read(host) == OPTIONS | {"registry-mirrors": ["https://two.example.com"]}


def test_options_that_were_all_ours_go_with_their_file(host, capsys):
    host.run(capsys, options=OPTIONS)
    assert host.run(capsys, state="absent")["changed"]
    assert not (host.root / DAEMON).exists()
    assert (host.root / "etc/docker").exists(), "an engine that was there keeps its folder"
    assert not host.run(capsys, state="absent")["changed"]


@pytest.mark.parametrize("own", ["", "{}\n"])
def test_the_operators_file_without_options_is_put_back(own, host, capsys):
    host.write(DAEMON, own)
    host.run(capsys, options=OPTIONS)
    assert read(host) == OPTIONS
    host.run(capsys, state="absent")
    assert (host.root / DAEMON).read_text() == own


def test_a_file_that_is_no_json_is_left_alone(host, capsys):
    host.write(DAEMON, "{")
    assert "can't be read as JSON" in host.run(capsys, options=OPTIONS)["msg"]
    assert (host.root / DAEMON).read_text() == "{"


def test_a_swarm_gets_no_live_restore(host, capsys):
    host.run(capsys, options=OPTIONS)
    host.answer("docker", "info", "active\n28.2.2\n")
    told = host.run(capsys, options=OPTIONS)
    assert told["notes"][0].startswith("This engine is in a swarm, which does not start with live-restore. So that")
    assert read(host) == {key: value for key, value in OPTIONS.items() if key != "live-restore"}


def test_check_mode_shows_the_options_and_writes_nothing(host, capsys):
    told = host.run(capsys, check=True, options=OPTIONS, required=True)
    assert told["changed"]
    assert told["diff"][0]["before"] == ""
    assert json.loads(told["diff"][0]["after"]) == OPTIONS
    assert not (host.root / "etc/docker").exists()
    assert not (host.root / "etc/proxme-tunnel").exists()
    assert reloads(host) == 0


def test_an_engine_that_does_not_start_at_boot_is_enabled(host, capsys):
    host.answer("systemctl", "is-enabled", "disabled\n", 1)
    assert host.run(capsys, options={})["changed"]
    assert host.calls("systemctl")[-1] == ["enable", "docker"]


def test_without_options_the_operators_engine_is_only_asked(host, capsys):
    told = host.run(capsys, required=True)
    assert (told["changed"], told["answers"]) == (False, True)
    assert [call[:2] for call in host.calls()] == [["docker", "info"]]


def test_a_service_that_cannot_reload_is_told_and_no_failure(host, capsys):
    host.answer("systemctl", "reload", "", 5, "Unit docker.service not found.")
    told = host.run(capsys, options=OPTIONS)
    assert told["notes"] == [
        "Docker's service can't be told to reload its options (Unit docker.service not found.). They count from its "
        "next start."
    ]


def test_a_host_without_an_engine_gets_the_options_first_and_is_refused_only_outside_of_check_mode(bare, capsys):
    told = bare.run(capsys, options=OPTIONS, list_packages=True)
    assert (told["answers"], told["packages"]) == (False, ["bash"])
    assert read(bare) == OPTIONS
    waiting = bare.run(capsys, check=True, required=True)
    assert (waiting["answers"], waiting["changed"]) == (False, False)
    assert waiting["notes"][0].startswith("No Docker engine answers yet. The images would be built and the containers")
    refusal = bare.run(capsys, required=True)["msg"]
    assert refusal.startswith("No Docker engine answers on this host (there is no program docker). Start it, or let")


def test_an_engine_that_is_too_old_is_refused(host, capsys):
    host.answer("docker", "info", "inactive\n19.03.1\n")
    assert "Docker 19.03.1 is too old" in host.run(capsys, required=True)["msg"]


def test_what_was_installed_is_remembered_even_if_the_engine_does_not_answer(bare, capsys):
    bare.answer("dpkg-query", out="installed bash\ninstalled docker.io\ninstalled runc\nconfig-files nano\n")
    assert "msg" in bare.run(capsys, installed_before=["bash"], required=True)
    assert (bare.root / RECORD / "packages").read_text() == "docker.io\nrunc\n"
    bare.answer("dpkg-query", out="installed bash\ninstalled docker.io\ninstalled runc\ninstalled iptables\n")
    assert bare.run(capsys, installed_before=["bash", "docker.io", "runc"])["changed"]
    assert (bare.root / RECORD / "packages").read_text() == "docker.io\nrunc\niptables\n"
    assert not bare.run(capsys, installed_before=["bash"])["changed"]


@pytest.fixture
def installed(host, capsys) -> StandIn:
    """A host whose engine was installed and set up from here."""
    host.answer("dpkg-query", out="installed bash\ninstalled docker.io\nconfig-files runc\n")
    host.write(f"{RECORD}/packages", "docker.io\nrunc\niptables\n")
    host.run(capsys, options=OPTIONS)
    return host


def test_an_engine_from_here_goes_in_two_steps(installed, capsys):
    installed.write("etc/docker/key.json", "{}")
    installed.write("etc/cni/net.d/x/../.keep", "")
    (installed.root / "etc/cni/net.d/.keep").unlink()
    installed.write("etc/group", "root:x:0:\ndocker:x:999:\n")
    installed.write("etc/proxme-tunnel/images/sshd/Dockerfile", "")
    installed.write("var/lib/proxme-tunnel/sshd_tunnel/ssh_host_ed25519_key", "")
    installed.answer("groupdel")
    first = installed.run(capsys, state="absent")
    assert first["purge"] == ["docker.io", "runc"], "what is gone need not be removed"
    assert ["image", "prune", "--all", "--force"] in installed.calls("docker")
    assert not (installed.root / DAEMON).exists()
    assert (installed.root / RECORD / "packages").exists(), "a run that dies now would forget them"
    assert reloads(installed) == 1, "an engine that goes need not reload"
    # The packages are removed.
    installed.answer("dpkg-query", out="", code=1)
    for program in ("docker", "dockerd"):
        (installed.programs / program).unlink()
    second = installed.run(capsys, state="absent")
    assert (second["purge"], second["changed"]) == ([], True)
    assert installed.calls("groupdel") == [["docker"]]
    for gone in ("etc/docker", "etc/cni", "etc/proxme-tunnel"):
        assert not (installed.root / gone).exists(), gone
    assert (installed.root / "var/lib/proxme-tunnel").exists()


@pytest.mark.parametrize("what", ["ps", "volume ls"])
def test_an_engine_from_here_that_others_use_stays_and_is_remembered(what, installed, capsys):
    installed.answer("docker", what, "1234\n")
    told = installed.run(capsys, state="absent")
    assert told["purge"] == []
    assert told["notes"] == ["The Docker engine stays, because containers or volumes that are not ours use it."]
    assert not (installed.root / DAEMON).exists()
    assert (installed.root / RECORD / "packages").exists()
    assert ["image", "prune", "--all", "--force"] not in installed.calls("docker")
    assert not installed.run(capsys, state="absent")["changed"]
    installed.answer("docker", what)
    assert installed.run(capsys, state="absent")["purge"] == ["docker.io", "runc"]


def test_packages_beside_an_engine_of_the_operators_go_and_its_images_stay(host, capsys):
    host.write(f"{RECORD}/packages", "iptables\n")
    host.answer("dpkg-query", out="installed iptables\n")
    host.answer("docker", "ps", "1234\n")
    assert host.run(capsys, state="absent")["purge"] == ["iptables"]
    host.answer("dpkg-query", code=1)
    assert host.run(capsys, state="absent")["changed"]
    assert not (host.root / "etc/proxme-tunnel").exists()
    assert [call[0] for call in host.calls("docker") if call[0] != "info"] == []


def test_nothing_is_taken_back_while_the_engine_does_not_answer(installed, capsys):
    installed.answer("docker", "info", code=1)
    installed.answer("docker", "version", "", 1, "Cannot connect.")
    assert (
        "is installed on this host but does not answer (Cannot connect.)"
        in installed.run(capsys, state="absent")["msg"]
    )
    assert read(installed) == OPTIONS


def test_a_host_that_nothing_was_done_to_stays_as_it_is(bare, capsys):
    bare.write(DAEMON, '{"debug": true}')
    told = bare.run(capsys, state="absent")
    assert (told["changed"], told["purge"], told["notes"]) == (False, [], [])
    assert (bare.root / DAEMON).read_text() == '{"debug": true}'


def test_check_mode_takes_nothing_back(installed, capsys):
    told = installed.run(capsys, check=True, state="absent")
    assert told["purge"] == ["docker.io", "runc"]
    assert read(installed) == OPTIONS
    assert ["image", "prune", "--all", "--force"] not in installed.calls("docker")


def in_force(host: StandIn, live: bool = True, **said: object) -> None:
    """Let the engine say what it has in force."""
    told = {"LiveRestoreEnabled": live, "Debug": False, "RegistryConfig": {}} | said
    host.answer("docker", "info", f"inactive\n28.2.2\n{json.dumps(told)}\n")


def test_what_a_run_has_written_that_died_before_the_reload_is_reloaded_by_the_next(host, capsys):
    options = OPTIONS | {
        "registry-mirrors": ["https://mirror.example.com"],
        "insecure-registries": ["192.0.2.1:5000", "192.0.2.0/24"],
    }
    in_force(host)
    host.run(capsys, options=options)
    insecure = {"IndexConfigs": {"192.0.2.1:5000": {"Secure": False}}, "InsecureRegistryCIDRs": ["192.0.2.0/24"]}
    mirrors = {"Mirrors": ["https://mirror.example.com/"]}
    for stale in ({"live": False}, {"RegistryConfig": insecure}, {"RegistryConfig": mirrors}):
        before = reloads(host)
        in_force(host, **stale)
        assert host.run(capsys, options=options)["changed"]
        assert reloads(host) == before + 1
    in_force(host, RegistryConfig=insecure | mirrors)
    assert not host.run(capsys, options=options)["changed"]


def test_proxies_wait_for_the_next_start_and_their_password_is_shown_nowhere(host, capsys):
    proxies = {"proxies": {"https-proxy": "http://user:hidden@proxy.example.com:3128"}}
    in_force(host)
    told = host.run(capsys, options=OPTIONS | proxies)
    assert "systemctl restart docker" in told["notes"][0]
    assert "hidden" not in json.dumps(told)
    assert "http://…@proxy.example.com:3128" in told["diff"][0]["after"]
    for path in (DAEMON, f"{RECORD}/options.json"):
        assert read(host, path) == OPTIONS | proxies
        assert (host.root / path).stat().st_mode & 0o7777 == 0o600
    in_force(host, HttpsProxy="http://xxxxx:xxxxx@proxy.example.com:3128")
    again = host.run(capsys, options=OPTIONS | proxies)
    assert (again["changed"], again["notes"]) == (False, [])
