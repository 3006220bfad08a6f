# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `files`: what it leaves on a host, what it refuses, and what it says about either."""

from __future__ import annotations

import functools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from run_module import run_module

ROOT = Path(__file__).resolve().parents[2]
# Says what it finds in the file, and refuses it if it holds "bad".
JUDGE = 'sh -c \'cat "$1"; ! grep -q bad "$1"\' judge %s'


@pytest.fixture
def files(tmp_path):
    """Return a function that runs the module."""
    (tmp_path / "tmp").mkdir()
    return functools.partial(run_module, "files", tmpdir=tmp_path / "tmp")


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder on the host."""
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def tree(folder: Path) -> dict[str, tuple[str, str]]:
    """Everything in a folder, with its mode and its text."""
    return {
        str(path.relative_to(folder)): (mode(path), path.read_text() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def test_folders_come_first_then_files_then_what_is_to_go(files, folder):
    (folder / "old").write_text("old")
    (folder / "olds/in").mkdir(parents=True)
    (folder / "olds/in/one").write_text("old")
    options = {
        "folders": [{"path": f"{folder}/a/b", "mode": "0700"}],
        "files": [
            {"path": f"{folder}/a/b/one", "content": "Grüße {{ x }} $HOME\n"},
            {"path": f"{folder}/a/b/two", "content": "no newline", "mode": "0755"},
        ],
        "absent": [f"{folder}/old", f"{folder}/olds", f"{folder}/never"],
    }
    wanted = [f"{folder}/{name}" for name in ("a/b", "a/b/one", "a/b/two", "old", "olds")]
    before = tree(folder)
    told = files(check=True, **options)
    assert (told["changed"], told["written"]) == (True, wanted)
    assert tree(folder) == before
    mask = os.umask(0o077)
    try:
        told = files(**options)
    finally:
        os.umask(mask)
    assert (told["changed"], told["written"]) == (True, wanted)
    assert tree(folder) == {
        "a": ("0755", ""),
        "a/b": ("0700", ""),
        "a/b/one": ("0644", "Grüße {{ x }} $HOME\n"),
        "a/b/two": ("0755", "no newline"),
    }
    for check in (True, False):
        again = files(check=check, **options)
        assert (again["changed"], again["written"], again["diff"]) == (False, [], [])


def test_a_difference_shows_what_changes_and_the_rest_of_the_answer_no_content(files, folder):
    path = folder / "one"
    path.write_text("before\n")
    path.chmod(0o644)
    told = files(files=[{"path": str(path), "content": "after\n"}])
    assert told.pop("diff") == [
        {"before": "before\n", "after": "after\n", "before_header": str(path), "after_header": str(path)}
    ]
    assert "after" not in json.dumps(told)
    told = files(files=[{"path": str(path), "content": "after\n", "mode": "0600"}], folders=[{"path": f"{folder}/f"}])
    owned = {"path": str(path), "owner": os.getuid(), "group": os.getgid()}
    assert told["diff"] == [
        {"before": {"path": f"{folder}/f", "state": "absent"}, "after": {"path": f"{folder}/f", "state": "directory"}},
        {"before": {"mode": "0644", **owned}, "after": {"mode": "0600", **owned}},
    ]
    assert mode(path) == "0600"


def test_a_new_secret_is_never_readable_for_others(files, folder, monkeypatch):
    seen = []
    move = os.rename

    def rename(source, target, **options):
        seen.append(mode(Path(os.fsdecode(source))))
        move(source, target, **options)
        seen.append(mode(Path(os.fsdecode(target))))

    monkeypatch.setattr(os, "rename", rename)
    (folder / "there").write_text("public")
    files(files=[{"path": f"{folder}/{name}", "content": "secret", "mode": "0400"} for name in ("new", "there")])
    assert set(seen) == {"0400"}
    assert tree(folder) == {"new": ("0400", "secret"), "there": ("0400", "secret")}


def test_a_file_that_is_to_be_kept_is_left_alone_in_every_way(files, folder):
    kept = {"path": f"{folder}/kept", "content": "first", "mode": "0600", "keep": True}
    assert files(files=[kept])["changed"]
    assert not files(files=[{**kept, "content": "second", "mode": "0644", "validate": "false %s"}])["changed"]
    assert tree(folder) == {"kept": ("0600", "first")}


def test_an_owner_is_a_name_or_a_number_and_stays_without_one(files, folder):
    given = [{"path": f"{folder}/one", "content": "1", "owner": "nobody", "group": "12"}]
    parents = [{"path": f"{folder}/f", "owner": "65534", "group": "daemon"}]
    files(files=given, folders=parents)
    assert ((folder / "one").stat().st_uid, (folder / "one").stat().st_gid) == (65534, 12)
    assert ((folder / "f").stat().st_uid, (folder / "f").stat().st_gid) == (65534, 1)
    assert not files(files=given, folders=parents)["changed"]
    files(files=[{"path": f"{folder}/one", "content": "2"}])
    assert ((folder / "one").stat().st_uid, (folder / "one").stat().st_gid) == (65534, 12)
    assert files(files=[{"path": f"{folder}/one", "content": "2", "owner": "root"}])["written"] == [f"{folder}/one"]
    assert ((folder / "one").stat().st_uid, (folder / "one").stat().st_gid) == (0, 12)


def test_an_owner_who_is_not_there_yet_is_only_an_error_when_it_counts(files, folder):
    options = {"files": [{"path": f"{folder}/one", "content": "1", "owner": "nosuchuser"}]}
    assert files(check=True, **options)["changed"]
    assert "has no user nosuchuser" in files(**options)["msg"]
    assert tree(folder) == {}


def test_links_are_replaced_and_removed_and_what_they_lead_to_stays(files, folder):
    (folder / "real").mkdir()
    (folder / "real/one").write_text("1")
    (folder / "real/one").chmod(0o644)
    for name, target in {"file": "real/one", "gone": "nowhere", "way": "real", "old": "real"}.items():
        (folder / name).symlink_to(target)
    options = {
        "folders": [{"path": f"{folder}/way", "mode": "0750"}],
        "files": [{"path": f"{folder}/{name}", "content": "1", "mode": "0600"} for name in ("file", "gone")],
        "absent": [f"{folder}/old"],
    }
    assert files(**options)["written"] == [f"{folder}/{name}" for name in ("way", "file", "gone", "old")]
    assert (folder / "way").is_symlink()
    assert tree(folder) | {"way": ""} == {
        "file": ("0600", "1"),
        "gone": ("0600", "1"),
        "real": ("0750", ""),
        "real/one": ("0644", "1"),
        "way": "",
    }
    assert not files(**options)["changed"]


def test_a_refused_file_leaves_the_old_one_and_says_why(files, folder, tmp_path):
    (folder / "two").write_text("good")
    options = {
        "files": [
            {"path": f"{folder}/one", "content": "1"},
            {"path": f"{folder}/two", "content": "bad line 3", "validate": JUDGE},
            {"path": f"{folder}/three", "content": "3"},
        ]
    }
    told = files(**options)
    assert told["failed"]
    assert f"The new {folder}/two is refused" in told["msg"]
    assert "sh says: bad line 3" in told["msg"]
    assert told["written"] == [f"{folder}/one"]
    assert {name: text for name, (_, text) in tree(folder).items()} == {"one": "1", "two": "good"}
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_program_sees_the_new_file_with_its_mode_and_no_shell_runs_it(files, folder):
    seen = folder / "seen $HOME;x"
    command = f"cp --preserve=mode %s '{seen}'"
    files(files=[{"path": f"{folder}/one", "content": "1", "mode": "0751", "validate": command}])
    assert tree(folder) == {"one": ("0751", "1"), seen.name: ("0751", "1")}
    seen.unlink()
    assert not files(files=[{"path": f"{folder}/one", "content": "1", "mode": "0751", "validate": command}])["changed"]
    assert not seen.exists(), "a file that stays as it is was validated"


def test_check_mode_validates_where_that_means_something(files, folder):
    bad = {"path": f"{folder}/one", "content": "bad", "validate": JUDGE}
    told = files(check=True, files=[bad])
    assert told["failed"]
    assert "sh says: bad" in told["msg"]
    # What comes before it may be what it lacks.
    # As a program: in a process of the control node's a warning is shown instead of told.
    given = {"_ansible_check_mode": True, "files": [{"path": f"{folder}/before", "content": ""}, bad]}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.proxme.tunnel.plugins.modules.files"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout)
    assert told["written"] == [f"{folder}/before", f"{folder}/one"]
    assert "sh says: bad" in json.dumps(told["warnings"])
    assert files(check=True, files=[{**bad, "path": f"{folder}/no/folder"}])["changed"]
    for missing in ("nosuchprogram %s", "sh -c 'exit 125' %s"):
        asked = {"files": [{**bad, "validate": missing}]}
        assert files(check=True, **asked)["changed"]
        assert files(**asked)["failed"]
    assert tree(folder) == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"absent": ["/"]}, "is not the path of a file or a folder"),
        ({"absent": ["//."]}, "is not the path of a file or a folder"),
        ({"absent": ["etc/x"]}, "is not the path of a file or a folder"),
        ({"folders": [{"path": ""}]}, "is not the path of a file or a folder"),
        ({"folders": [{"path": "/tmp/never", "mode": 493}]}, "/tmp/never can't have the mode 493. Write it as text"),
        ({"folders": [{"path": "/tmp/never", "mode": "u=rwx"}]}, "can't have the mode u=rwx"),
        (
            {"files": [{"path": "/tmp/never", "content": {"a": 1}}]},
            "is of the type dict. Make it a text",
        ),
        ({"files": [{"path": "/tmp/never", "content": "", "validate": "true"}]}, "lacks %s"),
        ({"files": [{"path": "/tmp/never/ever", "content": ""}]}, "The folder of /tmp/never/ever is not there"),
        ({"files": [{"path": "/tmp", "content": ""}]}, "/tmp is a folder, and a file is to be there"),
        ({"folders": [{"path": "/etc/passwd"}]}, "/etc/passwd is there, but is no folder"),
        ({"files": [{"path": "/etc/passwd/x", "content": ""}]}, "The folder of /etc/passwd/x is not there"),
        ({"folders": [{"path": "/etc/passwd/x/y"}]}, "/etc/passwd/x/y can't be made: "),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(files, options, said):
    told = files(**options)
    assert told["failed"]
    assert said in told["msg"]
    assert not Path("/tmp/never").exists()


# Of each kind that the roles have, by the name of the template.
TEMPLATES = {
    "config.j2": "{# SPDX #}\n{{ ansible_managed | comment }}\nPort {{ number }}\n"
    "{% for it in names %}\n\tallow {{ it }}\n{% endfor %}\n\n{% if not names %}\nnobody\n{% endif %}\nend\n",
    "empty.j2": "{# SPDX #}\n{% for it in [] %}\n{{ it }}\n{% endfor %}\n",
    "without-newline.j2": "ExecStart=/bin/x %i \\\n  --y {{ number }} {{ names | join(',') }}",
    "json.j2": "{# SPDX #}\n{{ {'key': '-----BEGIN\\nx\\\\y', 'number': number} | to_nice_json }}\n",
    "includes.j2": "{% for item in names %}\n  {{ item }} = [==[\n{% include 'page.html' %}]==],\n{% endfor %}\n",
    "macro.j2": "{% macro dir(n) %}\n\tdir {{ n }}\n{% endmacro %}\n{{ dir(number) | indent('\t', first=true) }}end\n",
    "lookup.j2": "{{ lookup('ansible.builtin.template', 'config.j2') | hash('sha256') }}\n"
    "{{ lookup('ansible.builtin.file', 'braces.txt') }}\n",
    "braces.j2": "{% raw %}{{ .Id }}{% endraw %} {{ '{{' }} Grüße {{ '}}' }} {{ '\\u2026' }}\n  \n\n",
}
INCLUDED = "{% set x = 1 %}\n<p>{{ item }} {host} {{ x }}\n\n"
COPIES = {
    "braces.txt": "docker inspect --format '{{ .Id }}' {% x %}\n\n  \n",
    "tail.txt": "one\r\nno newline",
    "json.txt": '{"a": [1, true]}\n',
}


def test_lookups_give_the_bytes_that_template_and_copy_write(run, tmp_path):
    """In a role, as the roles have it; one task of `files` writes all of them."""
    role, there, here = (tmp_path / name for name in ("roles/part", "there", "here"))
    for path in (role / "templates", role / "files", role / "tasks", there):
        path.mkdir(parents=True)
    for folder, texts in (("templates", {**TEMPLATES, "page.html": INCLUDED}), ("files", COPIES)):
        for name, text in texts.items():
            (role / folder / name).write_bytes(text.encode())
    sources = {name: f"lookup('ansible.builtin.template', '{name}')" for name in TEMPLATES}
    sources |= {name: f"lookup('ansible.builtin.file', '{name}', rstrip=false)" for name in COPIES}
    files = [{"path": f"{here}/{name}", "content": f"{{{{ {source} }}}}"} for name, source in sources.items()]
    to_there = {"src": "{{ name }}", "dest": f"{there}/{{{{ name }}}}"}
    tasks = [
        {"proxme.tunnel.files": {"folders": [{"path": str(here)}], "files": files}},
        {"ansible.builtin.template": to_there, "loop": [*TEMPLATES], "loop_control": {"loop_var": "name"}},
        {"ansible.builtin.copy": to_there, "loop": [*COPIES], "loop_control": {"loop_var": "name"}},
    ]
    (role / "tasks/main.yml").write_text(json.dumps(tasks))
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["part"]}
    play["vars"] = {"number": 2222, "names": ["a", "b"], "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    run("ansible-playbook", tmp_path / "play.yml", "-i", "localhost,")
    for name in sources:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert (here / "config.j2").read_text().endswith("Port 2222\n\tallow a\n\tallow b\n\nend\n")
    assert (here / "tail.txt").read_bytes() == b"one\r\nno newline"
