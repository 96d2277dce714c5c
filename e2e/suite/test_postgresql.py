"""PostgreSQL, as its users meet it: the example, copies of a database that works, and servers that are killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.harness.shell import CommandError
from e2e.suite.data import Clone, Store, administrator, ask_clones, sql
from e2e.suite.manifests import EXAMPLES, POSTGRESQL, data_clone, data_grant, data_snapshot, python_pod, resource
from e2e.suite.theirs import KEEPER, PROGRAMS, their_server
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

ACCOUNTS = """
    CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
    INSERT INTO account SELECT n, 100 FROM generate_series(1, 50) AS n;
    CREATE TABLE transfer (id bigserial PRIMARY KEY);
    ALTER TABLE account OWNER TO app; ALTER TABLE transfer OWNER TO app;
"""
HELD = "SELECT (SELECT sum(balance)::int FROM account) AS total, array_agg(id) AS transfers FROM transfer"
CLONES = 5


@pytest.fixture(scope="module")
def bank(kube: Kube) -> Iterator[Store]:
    """A store with accounts whose balances always add up."""
    namespace = kube.new_namespace("bank")
    store = Store(kube, namespace, "bank").create(engine="postgresql", managed=POSTGRESQL)
    store.sql(ACCOUNTS)
    yield store
    kube.delete_namespace(namespace, wait=False)


@pytest.fixture
def branch_office(kube: Kube, bank: Store) -> Iterator[str]:
    """A namespace that may have clones of the bank."""
    namespace = kube.new_namespace("office")
    kube.apply(data_grant("offices", bank.namespace, store=bank.name, to=[namespace]))
    yield namespace
    kube.delete_namespace(namespace, wait=False)


@pytest.fixture
def writers(kube: Kube, bank: Store) -> Iterator[Any]:
    """Two that write to the bank; called, it returns what they have told."""
    uri = kube.binding(bank.namespace, f"{bank.name}-binding")["uri"]
    kube.apply(python_pod("writer", bank.namespace, image=kube.operator_image(), runs="pg_writer", env={"URI": uri}))
    kube.run("wait", "-n", bank.namespace, "--for=condition=Ready", "pod/writer", "--timeout=60s")

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in kube.run("logs", "-n", bank.namespace, "writer").splitlines()]

    eventually(lambda: len(told()) > 10, "the writers have written")
    yield told
    kube.run("delete", "-n", bank.namespace, "pod/writer", "--ignore-not-found", "--wait")


def test_the_example_is_a_store_and_a_copy_of_its_own(kube: Kube) -> None:
    namespace = "data-pg"
    kube.delete_namespace(namespace)
    kube.make_namespace(namespace, **{"pod-security.kubernetes.io/enforce": "restricted"})
    kube.run("apply", "--server-side", "-k", str(EXAMPLES / "postgresql"))
    store, clone = Store(kube, namespace, "music"), Clone(kube, namespace, "music-db").ready()
    assert store.status["databases"] == ["chinook"]
    assert store.status["version"].startswith("15.")
    assert clone.sql("SELECT count(*) AS n FROM track") == [{"n": 3503}]
    assert clone.binding["DATABASE_URL"] == clone.binding["uri"]
    clone.sql("UPDATE track SET unit_price = 7.77 WHERE track_id = 1; ALTER TABLE track ADD COLUMN mine int")
    assert store.sql("SELECT unit_price::text AS price FROM track WHERE track_id = 1") == [{"price": "0.99"}]
    uid = clone.uid
    clone.delete()
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the clone")
    kube.delete_namespace(namespace, wait=False)


def test_copies_of_a_working_database_hold_all_that_was_acknowledged_and_nothing_torn(
    kube: Kube, bank: Store, branch_office: str, writers: Any
) -> None:
    before = {entry["transfer"] for entry in writers()}
    names = [f"db-{number}" for number in range(CLONES)]
    kube.apply(*(data_clone(name, branch_office, store=bank.name, owners=bank.namespace) for name in names))
    for name in names:
        kube.ready(branch_office, f"dclone/{name}")
    for name, [held] in ask_clones(kube, branch_office, HELD).items():
        assert held["total"] == 5000, name
        assert before <= set(held["transfers"]), name
    assert [entry for entry in writers() if "error" in entry] == []


def test_the_sources_passwords_open_no_copy(kube: Kube, bank: Store, branch_office: str) -> None:
    bank.sql("CREATE ROLE auditor LOGIN SUPERUSER PASSWORD 'hunter2'")
    clone = Clone(kube, branch_office).apply(bank).ready()
    theirs = kube.binding(bank.namespace, f"{bank.name}-binding")["password"]
    for user, password in (
        ("auditor", "hunter2"),
        ("app", theirs),
        ("coppice_admin", bank.passwords["admin-password"]),
    ):
        login = administrator(clone.pod, password, "bank")
        with pytest.raises(CommandError, match="password authentication failed"):
            sql(kube, clone.pod, "SELECT 1", type(login)(user, password, "bank"))


def test_a_server_that_is_killed_comes_back_with_what_it_acknowledged(
    kube: Kube, bank: Store, branch_office: str
) -> None:
    clone = Clone(kube, branch_office).apply(bank).ready()
    clone.sql("CREATE TABLE mine (n int); INSERT INTO mine VALUES (1)")
    before = clone.pod["metadata"]["uid"]
    kube.run("exec", "-n", branch_office, clone.pod["metadata"]["name"], "--", "/bin/sh", "-c", "kill -QUIT 1")
    kube.run("delete", "-n", branch_office, f"pod/{clone.pod['metadata']['name']}", "--now", "--wait")
    eventually(lambda: any(pod["metadata"]["uid"] != before for pod in clone.pods), "the server has a new Pod")
    clone.ready()
    eventually(lambda: clone.sql("SELECT n FROM mine") == [{"n": 1}], "the copy has what it acknowledged")


# As the official image lays it out, and as CloudNativePG does: another user, and the data below the mount.
SERVERS = [("pgdata", 999), ("data/pgdata", 26)]


@pytest.mark.parametrize(("directory", "user"), SERVERS)
def test_a_server_that_somebody_else_runs_is_cloned_and_notices_nothing(
    kube: Kube, branch_office: str, directory: str, user: int
) -> None:
    namespace = kube.new_namespace("ledger")
    kube.apply(*their_server(namespace, directory, user))
    kube.ready(namespace, "dstore/ledger")
    store = Store(kube, namespace, "ledger")
    assert store.status["version"].startswith("15.")
    kube.apply(data_grant("offices", namespace, store="ledger", to=[branch_office]))
    clone = Clone(kube, branch_office, "books").apply(store).ready()
    assert clone.sql("SELECT count(*) AS n FROM entry") == [{"n": 1000}]
    clone.sql("ALTER TABLE entry ADD COLUMN mine int; DELETE FROM entry WHERE n > 10")
    server = kube.get("pod", "pg-0", namespace)
    assert server is not None
    assert sql(kube, server, "SELECT count(*) AS n FROM entry", KEEPER) == [{"n": 1000}]
    assert server["status"]["containerStatuses"][0]["restartCount"] == 0
    with pytest.raises(CommandError, match="password authentication failed"):
        sql(kube, clone.pod, "SELECT 1", KEEPER)
    # The source goes; the copy stays.
    kube.run("delete", "-n", namespace, "statefulset/pg", "pod/pg-0", "--now", "--wait")
    kube.run("delete", "-n", namespace, "pvc/data-pg-0", "--wait")
    assert clone.sql("SELECT count(*) AS n FROM entry") == [{"n": 10}]
    later = (
        Clone(kube, branch_office, "later").apply(store, source={"snapshot": clone.status["snapshot"]["name"]}).ready()
    )
    assert later.sql("SELECT count(*) AS n FROM entry") == [{"n": 1000}]
    kube.delete_namespace(namespace, wait=False)


def test_a_volume_that_lacks_the_write_ahead_log_is_refused_and_the_condition_says_why(kube: Kube) -> None:
    namespace = kube.new_namespace("ledger")
    kube.apply(*their_server(namespace, "pgdata", 999, options="-X /elsewhere/pg_wal"))
    kube.ready(namespace, "dstore/ledger")
    kube.apply(data_snapshot("torn", namespace, store="ledger"))
    kube.until_reason("PreparationFailed", "dsnap", "torn", namespace)
    message = kube.condition("dsnap", "torn", namespace)["message"]
    assert "the write-ahead log is not on the volume: pg_wal is a link to /elsewhere/pg_wal" in message
    kube.delete_namespace(namespace, wait=False)


HISTORY = """
    CREATE TABLE flyway_schema_history (installed_rank int PRIMARY KEY, version text, type text, success boolean);
    INSERT INTO flyway_schema_history VALUES (1, '1', 'SQL', true), (2, '1.1', 'SQL', true);
"""
MIGRATE = """
    {programs}/psql -X -q -v ON_ERROR_STOP=1 "$uri" \
      -c "BEGIN; ALTER TABLE account ADD COLUMN more int; SELECT pg_sleep(10); COMMIT"
"""


def migration(namespace: str, image: str) -> Manifest:
    """Return a suspended Job that alters a table, and takes its time before it lets go of that."""
    container = {
        "name": "migrate", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-eu", "-c", MIGRATE.format(programs=PROGRAMS)],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    security = {"runAsNonRoot": True, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate", "namespace": namespace},
        "spec": {"suspend": True, "backoffLimit": 0, "template": {"spec": pod}},
    }  # fmt: skip


def test_a_release_has_data_that_are_not_beyond_it_and_hears_what_its_migration_locks(
    kube: Kube, bank: Store, branch_office: str
) -> None:
    bank.sql(HISTORY)
    kube.apply(data_snapshot("at-1", bank.namespace, store=bank.name))
    kube.ready(bank.namespace, "dsnap/at-1")
    assert kube.status("dsnap", "at-1", bank.namespace)["ledger"]["versions"] == ["1", "1.1"]
    bank.sql("INSERT INTO flyway_schema_history VALUES (3, '2', 'SQL', true)")
    server = kube.get("pod", f"{bank.name}-server", bank.namespace)
    assert server is not None
    kube.apply(migration(branch_office, server["spec"]["containers"][0]["image"]))
    migrations = {"jobTemplate": "migrate", "versions": ["1", "1.2"]}
    behind = Clone(kube, branch_office, "behind").apply(bank, source={"migration": "1.5"}, migrations=migrations)
    ahead = Clone(kube, branch_office, "ahead").apply(bank, source={"migration": "0.9"})
    assert (
        "at-1 is at flyway 1.1" in kube.until_reason("NoSnapshotFits", "dclone", ahead.name, branch_office)["message"]
    )
    status = behind.ready().status
    assert status["snapshot"]["name"] == "at-1"
    assert status["migrations"]["changes"] == ["altered table account"]
    [lock] = status["migrations"]["locks"]
    assert lock["table"] == "account"
    assert lock["heldSeconds"] > 0
    told = kube.condition("dclone", behind.name, branch_office, "LedgerDiverged")
    assert told["status"] == "True"
    assert "has not: 1.1." in told["message"]


def test_a_commit_names_a_snapshot_and_a_branch_cannot_be_made(kube: Kube, bank: Store) -> None:
    kube.apply({
        "apiVersion": "coppice.dev/v1alpha1", "kind": "DataBranch",
        "metadata": {"name": "autumn", "namespace": bank.namespace},
        "spec": {"store": {"name": bank.name}, "branchName": "autumn", "from": {"branch": "main"}},
    })  # fmt: skip
    assert kube.until_reason("EngineHasNoBranches", "dbranch", "autumn", bank.namespace)
    kube.apply(data_snapshot("kept", bank.namespace, store=bank.name))
    kube.ready(bank.namespace, "dsnap/kept")
    head = kube.status("dsnap", "kept", bank.namespace)["branches"][0]["head"]
    bank.sql("CREATE TABLE since (n int)")
    clone = Clone(kube, bank.namespace, "then").apply(bank, source={"commit": head}).ready()
    assert clone.status["snapshot"]["name"] == "kept"
    assert clone.sql("SELECT to_regclass('since') IS NULL AS absent") == [{"absent": True}]


def test_a_branch_goes_from_clone_to_commit_to_clone(kube: Kube, bank: Store, branch_office: str) -> None:
    kube.apply(data_grant("workers", bank.namespace, store=bank.name, to=[branch_office], verbs=["Branch"]))
    work = Clone(kube, branch_office, "work").apply(bank, durability="Durable").ready()
    work.sql("CREATE TABLE season (name text); INSERT INTO season VALUES ('autumn')")
    first = work.status["snapshot"]["name"]
    kube.apply(commit("autumn-1", bank, parent=first, clone=work))
    kube.ready(bank.namespace, "dsnap/autumn-1")
    status = kube.status("dsnap", "autumn-1", bank.namespace)
    assert (status["commit"]["sequence"], status["commit"]["cloneUID"]) == (1, work.uid)
    found = kube.get("dsnap", "autumn-1", bank.namespace)
    assert found is not None
    uid = found["metadata"]["uid"]
    eventually(
        lambda: kube.owned_by(uid) == ["volumesnapshot.snapshot.storage.k8s.io/autumn-1"],
        "nothing is left of the commit but the commit",
    )
    follower = Clone(kube, bank.namespace, "follower").apply(bank, source={"branch": "autumn"}, refresh="OnHeadChange")
    more = Clone(kube, branch_office, "more").apply(bank, source={"branch": "autumn"}, durability="Durable").ready()
    assert more.sql("SELECT name FROM season") == [{"name": "autumn"}]
    more.sql("INSERT INTO season VALUES ('winter'); ALTER TABLE account ADD COLUMN note text")
    kube.apply(commit("autumn-2", bank, parent="autumn-1", clone=more))
    kube.ready(bank.namespace, "dsnap/autumn-2")
    follower.ready()
    eventually(
        lambda: follower.ready().sql("SELECT name FROM season") == [{"name": "autumn"}, {"name": "winter"}],
        "what follows the branch has the second commit",
    )
    # It knows nothing of the second commit, and cannot overwrite it.
    kube.apply(commit("autumn-3", bank, parent="autumn-2", clone=work))
    assert kube.until_reason("NotOfParent", "dsnap", "autumn-3", bank.namespace)
    log = kube.run("get", "-n", bank.namespace, "dsnap", "--sort-by=.status.commit.sequence", "--no-headers")
    names = [line.split()[0] for line in log.splitlines()]
    assert names[-2:] == ["autumn-1", "autumn-2"]
    assert bank.sql("SELECT to_regclass('season') IS NULL AS absent") == [{"absent": True}]


def test_a_disposable_clone_is_committed_once_it_is_off(kube: Kube, bank: Store, branch_office: str) -> None:
    kube.apply(data_grant("workers", bank.namespace, store=bank.name, to=[branch_office], verbs=["Branch"]))
    fast = Clone(kube, branch_office, "fast").apply(bank).ready()
    fast.sql("CREATE TABLE season AS SELECT n FROM generate_series(1, 10000) n")
    kube.apply(commit("spring-1", bank, parent=fast.status["snapshot"]["name"], clone=fast))
    assert kube.until_reason("CloneNotDurable", "dsnap", "spring-1", bank.namespace)
    fast.patch(power="Off")
    kube.ready(bank.namespace, "dsnap/spring-1")
    again = Clone(kube, bank.namespace, "spring").apply(bank, source={"branch": "spring"}).ready()
    assert again.sql("SELECT count(*) AS n FROM season") == [{"n": 10000}]


def commit(name: str, store: Store, *, parent: str, clone: Clone) -> Manifest:
    """Return the commit of a clone to the branch that its name says."""
    branch = name.rpartition("-")[0]
    spec = {
        "store": {"name": store.name},
        "from": {"clone": {"name": clone.name, "namespace": clone.namespace}},
        "commit": {"branch": branch, "parent": parent},
    }
    return resource("DataSnapshot", name, store.namespace, spec)
