"""The `coppice` command in the hands of somebody who has the role `edit` in one namespace, and nothing else."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from e2e.suite.data import ITEMS, Clone, Store
from e2e.suite.editor import Editor, query
from e2e.suite.manifests import POSTGRESQL, data_grant
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

COUNT = "SELECT COUNT(*) FROM item"
WRITE = "DELETE FROM item"


@pytest.fixture(scope="module")
def ann(kube: Kube, tenant: str, tmp_path_factory: pytest.TempPathFactory) -> Editor:
    """The person."""
    return Editor.of(kube, tenant, tmp_path_factory.mktemp("ann"))


@pytest.fixture(scope="module")
def source(store: Store) -> str:
    """The branch they work on copies of."""
    return f"{store.namespace}/{store.name}:main"


def clones(kube: Kube, namespace: str) -> list[str]:
    """Return the clones that there are, by name."""
    return kube.run("get", "dclone", "-n", namespace, "-o", "name").split()


def gone(kube: Kube, namespace: str) -> None:
    """Wait until no clone is there any more."""
    eventually(lambda: not clones(kube, namespace), "the clones are gone")


def test_a_command_runs_on_a_copy_of_its_own_which_is_gone_afterwards(
    kube: Kube, store: Store, tenant: str, ann: Editor, source: str
) -> None:
    script = f"{shlex.join(query(WRITE))} 2>/dev/null; {shlex.join(query(COUNT))}; exit 7"
    done = ann.run("run", "--from", source, "--", "sh", "-c", script, code=7)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0]]
    head = store.sql("SELECT dolt_hashof('main') AS head")[0]["head"]
    assert f"data: {store.namespace}/{store.name} main at {head[:12]}" in done.stderr
    gone(kube, tenant)
    assert store.sql(COUNT) == [{"COUNT(*)": 3}]


def test_the_clone_of_a_command_that_failed_is_kept_and_cared_for(
    kube: Kube, store: Store, tenant: str, ann: Editor, source: str
) -> None:
    ann.run("run", "--from", source, "--keep-on-failure", "--", "false", code=1)
    [name] = [found.partition("/")[2] for found in clones(kube, tenant)]
    clone = Clone(kube, tenant, name)
    uid = clone.uid
    password = clone.binding["password"]

    said = ann.run("status", name).stdout
    assert f"DataClone {tenant}/{name}  Ready" in said
    assert "EngineReady" in said
    assert password not in said
    [root] = ann.json("tree")["stores"]
    assert root["name"] == f"{store.namespace}/{store.name}"
    assert [child["name"] for child in root["children"]] == [f"{tenant}/{name}"]

    ends = clone.status["expiresAt"]
    ann.run("extend", name)
    assert clone.status["expiresAt"] >= ends
    clone.sql("INSERT INTO item VALUES (99, 'mine', 1)")
    ann.run("reset", name)
    assert clone.status["copy"] == "2"
    assert clone.sql(COUNT) == [{"COUNT(*)": 3}]

    ann.run("delete", name, code=1)
    assert f"DataClone {tenant}/{name} is gone" in ann.run("delete", name, "--yes").stdout
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the clone")


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until the command that was started has its data."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("data: "):
            return
    raise AssertionError(f"it ended with {process.wait()} before it had any data")


def test_who_is_told_to_end_takes_the_clone_along(kube: Kube, tenant: str, ann: Editor, source: str) -> None:
    process = ann.start("run", "--from", source, "--", "sleep", "600")
    begun(process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    gone(kube, tenant)


def test_who_is_killed_leaves_no_data_behind(kube: Kube, tenant: str, ann: Editor, source: str) -> None:
    process = ann.start("run", "--from", source, "--lease", "15s", "--", "sleep", "30")
    begun(process)
    [name] = [found.partition("/")[2] for found in clones(kube, tenant)]
    clone = Clone(kube, tenant, name)
    first = clone.status["renewedAt"]
    eventually(lambda: clone.status["renewedAt"] > first, "the lease is extended while the command runs")
    process.kill()
    process.wait()
    uid = clone.uid
    kube.until_reason("Expired", "dclone", name, tenant)
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the data")
    ann.run("delete", name, "--yes")
    # What it ran has outlived it, and has the other end.
    process.communicate()


def test_what_an_editor_may_not_is_named(ann: Editor, store: Store, tenant: str) -> None:
    said = ann.run("snapshot", "mine", "--from", f"{store.namespace}/{store.name}", code=1).stderr
    assert f"may not create datasnapshots.coppice.dev in namespace {store.namespace}" in said
    assert "coppice-store-admin" in said
    said = ann.run("run", "--from", f"{store.namespace}/other", "--", "true", code=125).stderr
    assert f"no DataGrant in namespace {store.namespace} gives namespace {tenant}" in said


def test_postgresql_is_found_by_what_its_own_programs_read(kube: Kube, owners: str, tenant: str, ann: Editor) -> None:
    crm = Store(kube, owners, "crm").create(engine="postgresql", managed=POSTGRESQL)
    crm.sql(ITEMS)
    kube.apply(data_grant("crm", owners, store=crm.name, to=[tenant]))
    done = ann.run("run", "--from", f"{owners}/crm", "--", *query("SELECT name FROM item ORDER BY id"))
    assert json.loads(done.stdout) == [["apple"], ["pear"], ["plum"]]
    gone(kube, tenant)
