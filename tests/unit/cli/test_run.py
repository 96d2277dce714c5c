"""``coppice run``: the command has the data to itself, its exit code is handed on, and the clone goes whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.fakes.kube import Object

from coppice.cli.run import lease_length
from coppice.kube.errors import ForbiddenError, TransientError

FROM = ("--from", "data/shop:main")
PRINT_ENVIRONMENT = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
CONNECT = """
import os, socket, sys
with socket.create_connection((os.environ["COPPICE_HOST"], int(os.environ["COPPICE_PORT"]))) as connection:
    file = connection.makefile("rw")
    sys.argv[1:] = [file.readline()]
    file.write("hello\\n"); file.flush()
    sys.exit(0 if (sys.argv[1].startswith("db-") or sys.argv[1].startswith("run-")) and file.readline() == "hello\\n" else 9)
"""


def python(code: str, *arguments: object) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code, *map(str, arguments))


def clones(person) -> list[Object]:
    """Return the clones that nobody has deleted."""
    return [
        found for found in person.story.kube.all("DataClone", "app") if "deletionTimestamp" not in found["metadata"]
    ]


def seen(tmp_path: Path) -> dict[str, str]:
    return dict(json.loads((tmp_path / "seen").read_text()))


def test_a_command_runs_on_a_clone_of_its_own_that_is_gone_afterwards(ann):
    done = ann.run("run", *FROM, *python(CONNECT))
    assert done.exit_code == 0, done.output
    assert clones(ann) == []
    ann.settle()
    assert ann.story.kube.all(None, "app") == []


def test_the_version_of_the_data_is_told_beside_the_commands_own_output(ann):
    done = ann.run("run", *FROM, "--", "true")
    head = ann.story.data_of().branches["main"].head
    assert f"data: data/shop main at {head[:12]}" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("code", [0, 1, 5, 77])
def test_the_exit_code_is_handed_on(ann, code):
    assert ann.run("run", *FROM, "--", "sh", "-c", f"exit {code}").exit_code == code
    assert clones(ann) == []


def test_a_command_that_a_signal_ends_has_a_code_as_in_a_shell(ann):
    assert ann.run("run", *FROM, "--", "sh", "-c", "kill -KILL $$").exit_code == 128 + signal.SIGKILL
    assert clones(ann) == []


def test_what_belongs_to_the_command_is_not_read_as_ours(ann):
    assert ann.run("run", *FROM, "sh", "-c", 'test "$1 $2" = "--env x"', "sh", "--env", "x").exit_code == 0


def test_the_command_finds_the_connection_in_its_environment(ann, tmp_path, monkeypatch):
    monkeypatch.setenv("MYSQL_HOST", "production")
    monkeypatch.setenv("MYSQL_UNIX_PORT", "/run/production.sock")
    monkeypatch.setenv("DATABASE_URL", "mysql://production")
    monkeypatch.setenv("PORT", "8080")
    asked = ("--env", "DB={username}@{host}:{port}/{database}", "--env", "BRACES={{}}")
    done = ann.run("run", *FROM, *asked, *python(PRINT_ENVIRONMENT, tmp_path / "seen"))
    assert done.exit_code == 0, done.output
    found = seen(tmp_path)
    port = found["COPPICE_PORT"]
    password = found["COPPICE_PASSWORD"]
    assert found["DATABASE_URL"] == found["COPPICE_URI"] == f"mysql://app:{password}@127.0.0.1:{port}/shop"
    assert (found["MYSQL_HOST"], found["MYSQL_TCP_PORT"], found["MYSQL_PWD"]) == ("127.0.0.1", port, password)
    assert (found["DB"], found["BRACES"]) == (f"app@127.0.0.1:{port}/shop", "{}")
    assert "MYSQL_UNIX_PORT" not in found
    assert found["PORT"] == "8080"
    assert found["COPPICE_STORE"] == "data/shop"
    assert (found["COPPICE_BRANCH"], found["COPPICE_HEAD"]) == ("main", ann.story.data_of().branches["main"].head)
    assert found["COPPICE_CLONE"].startswith("app/run-")
    assert password not in done.output


def test_a_wrong_template_is_refused_before_anything_is_made(ann):
    for template in ("DB", "DB={nothing}", "=x", "a b=x"):
        assert "is not NAME=TEMPLATE" in ann.expect_refusal("run", *FROM, "--env", template, "--", "true", code=2)
    assert clones(ann) == []


@pytest.mark.parametrize(("program", "code"), [("there-is-no-such-program", 127), ("./there", 126), ("./not", 127)])
def test_a_command_that_cannot_be_run_needs_no_clone(ann, tmp_path, monkeypatch, program, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("no program")
    before = len(ann.story.kube.calls)
    said = ann.expect_refusal("run", *FROM, "--", program, code=code)
    assert f"{program}: " in said
    assert "no clone was made" in said
    assert ann.story.kube.calls[before:] == []


def test_the_clone_has_a_lease_so_that_it_goes_when_nobody_deletes_it(ann):
    made = []
    ann.story.kube.subscribe(lambda event, found: made.append(found) if event == "ADDED" else None)
    ann.run("run", *FROM, "--lease", "10m", "--profile", "large", "--", "true")
    [clone] = [found for found in made if found["kind"] == "DataClone"]
    assert clone["spec"]["lease"] == {"max": "10m"}
    assert clone["spec"]["profile"] == "large"


def test_the_lease_is_extended_while_the_command_runs(ann, tmp_path, monkeypatch):
    monkeypatch.setattr("coppice.cli.run.RENEWALS", 10**5)

    def extended(event, found):
        if "coppice.dev/extend-requested-at" in found["metadata"].get("annotations", {}):
            (tmp_path / "extended").touch()

    ann.story.kube.subscribe(extended)
    waits = f"until test -e {tmp_path}/extended; do sleep 0.02; done"
    done = ann.run("run", *FROM, "--", "sh", "-c", waits)
    assert done.exit_code == 0, done.output
    assert ann.cluster.managers[0] == "coppice-command-extend"


def test_a_shorter_lease_that_a_grant_gives_is_extended_in_time():
    clone = {"spec": {"lease": {"max": "30m"}}}
    assert lease_length(clone) == timedelta(minutes=30)
    clone["status"] = {"renewedAt": "2026-03-02T09:00:00Z", "expiresAt": "2026-03-02T09:10:00Z"}
    assert lease_length(clone) == timedelta(minutes=10)
    clone["status"]["expiresAt"] = "2026-03-05T09:10:00Z"
    assert lease_length(clone) == timedelta(minutes=30)


def test_the_clone_of_a_command_that_failed_is_kept_if_that_is_asked_for(ann):
    said = ann.expect_refusal("run", *FROM, "--keep-on-failure", "--", "false")
    [clone] = clones(ann)
    name = clone["metadata"]["name"]
    assert f"DataClone app/{name} is kept for 30m" in said
    assert f"coppice connect {name} -n app" in said
    assert "coppice.dev/extend-requested-at" in clone["metadata"]["annotations"]
    ann.expect("delete", name, "--yes")


def test_the_clone_of_a_command_that_did_well_is_not_kept(ann):
    assert ann.run("run", *FROM, "--keep-on-failure", "--", "true").exit_code == 0
    assert clones(ann) == []


def test_where_the_clone_cannot_be_had_the_command_is_not_run_and_nothing_stays(ann, tmp_path):
    ann.story.delete("DataGrant", "previews")
    said = ann.expect_refusal("run", *FROM, "--keep-on-failure", "--", "touch", str(tmp_path / "ran"), code=125)
    assert "no DataGrant in namespace data" in said
    assert clones(ann) == []
    assert not (tmp_path / "ran").exists()


def test_a_clone_that_does_not_come_in_time_is_not_waited_for_longer(ann):
    ann.story.edit("DataGrant", "previews", maxClones={"total": 1})
    ann.expect("clone", "first", *FROM)
    said = ann.expect_refusal("run", *FROM, "--timeout", "20s", "--", "true", code=125)
    assert "is not ready after 20s" in said
    assert "left as it is" not in said
    assert [found["metadata"]["name"] for found in clones(ann)] == ["first"]


@pytest.mark.parametrize("denied", [("create", "DataClone", "app"), ("create", "Pod", "app"), ("get", "Secret", "app")])
def test_what_one_may_not_is_told_and_nothing_stays(ann, denied):
    ann.cluster.denied.add(denied)
    said = ann.expect_refusal("run", *FROM, "--", "true", code=125)
    expected = {"DataClone": "dataclones.coppice.dev", "Pod": "pods/portforward", "Secret": "get secrets"}
    assert expected[denied[1]] in said
    assert "edit" in said
    assert clones(ann) == []


def test_a_creation_whose_answer_is_lost_leaves_no_clone_behind(ann):
    ann.cluster.after_create.append(TransientError("POST /x: connection reset"))
    assert ann.run("run", *FROM, "--", "true").exit_code == 0
    assert clones(ann) == []


def test_a_creation_that_fails_is_told(ann):
    ann.cluster.faults += [TransientError("POST /x: connection refused")]
    assert "connection refused" in ann.expect_refusal("run", *FROM, "--", "true", code=125)
    assert clones(ann) == []


def test_a_deletion_that_fails_is_told_and_does_not_change_the_code(ann):
    ann.cluster.denied.add(("delete", "DataClone", "app"))
    said = ann.expect_refusal("run", *FROM, "--", "sh", "-c", "exit 7", code=7)
    assert "could not be deleted, and goes when its lease ends" in said


def test_a_bug_of_ours_leaves_no_clone_behind(ann):
    async def stumble(*where):
        raise RuntimeError("a bug")

    ann.cluster.dial = stumble
    assert isinstance(ann.run("run", *FROM, "--", "true").exception, RuntimeError)
    assert clones(ann) == []


def test_only_the_clone_that_was_made_is_deleted(ann):
    ask = ann.cluster.delete

    async def replaced(ref):
        ann.story.delete("DataClone", ref.name, "app")
        await ann.story.settle()
        ann.story.clone(ref.name, namespace="app")
        await ask(ref)

    ann.cluster.delete = replaced
    assert ann.run("run", *FROM, "--", "true").exit_code == 0
    assert len(clones(ann)) == 1


def test_a_database_that_was_taken_away_meanwhile_is_named(ann, tmp_path):
    ask = ann.cluster.get

    async def taken(kind, name, namespace):
        if (tmp_path / "ran").exists():
            ann.story.delete("DataGrant", "previews")
            await ann.story.settle()
            ann.cluster.get = ask
        return await ask(kind, name, namespace)

    ann.cluster.get = taken
    said = ann.expect_refusal("run", *FROM, "--", "sh", "-c", f"touch {tmp_path}/ran; exit 4", code=4)
    assert "is not ready any more (GrantRevoked)" in said
    assert clones(ann) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_handed_on_and_the_clone_goes(ann, tmp_path, number, monkeypatch):
    monkeypatch.setattr("coppice.cli.child._has_terminal", lambda: False)
    code = f"""
import os, pathlib, signal, sys, time
signal.signal({int(number)}, lambda *_: (pathlib.Path({str(tmp_path / "told")!r}).touch(), sys.exit(33)))
os.kill(os.getppid(), {int(number)})
while True: time.sleep(0.01)
"""
    done = ann.run("run", *FROM, "--keep-on-failure", *python(code))
    assert done.exit_code == 33, done.output
    assert (tmp_path / "told").exists()
    assert clones(ann) == []


def test_a_signal_that_is_to_be_ignored_is_ignored(ann):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ann.run("run", *FROM, "--", "sh", "-c", "kill -HUP $PPID; exit 5").exit_code == 5
    finally:
        signal.signal(signal.SIGHUP, before)
    assert clones(ann) == []


def test_what_is_typed_into_a_terminal_is_told_once(ann, monkeypatch):
    monkeypatch.setattr("coppice.cli.child._has_terminal", lambda: True)
    code = f"""
import os, signal, sys
os.kill(os.getppid(), {int(signal.SIGINT)})
os.kill(os.getppid(), {int(signal.SIGTERM)})
signal.pause()
"""
    assert ann.run("run", *FROM, *python(code)).exit_code == 128 + signal.SIGTERM
    assert clones(ann) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_and_the_clone_goes(ann, tmp_path, number):
    pause = ann._pause

    async def told(seconds):
        os.kill(os.getpid(), number)
        await asyncio.sleep(0)
        await pause(seconds)

    ann._pause = told
    done = ann.run("run", *FROM, "--keep-on-failure", "--", "touch", str(tmp_path / "ran"))
    assert done.exit_code == 128 + number
    assert clones(ann) == []
    assert not (tmp_path / "ran").exists()


def test_a_signal_before_there_is_a_clone_makes_none_that_stays(ann):
    create = ann.cluster.create

    async def told(manifest):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        return await create(manifest)

    ann.cluster.create = told
    assert ann.run("run", *FROM, "--", "true").exit_code == 128 + signal.SIGTERM
    assert clones(ann) == []


def test_a_lease_that_cannot_be_extended_is_told(ann):
    async def refused(manifest, *, manager, **how):
        raise ForbiddenError('User "ann" cannot patch resource "dataclones" in API group "coppice.dev"', status=403)

    ann.cluster.apply = refused
    said = ann.expect_refusal("run", *FROM, "--keep-on-failure", "--", "false")
    assert "its lease cannot be extended: ann may not patch dataclones.coppice.dev" in said
