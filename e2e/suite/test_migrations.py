"""On each engine a user's migrations run on a clone before anybody is told of it, once, and mistakes are told."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.data import ITEMS, Clone, Store, login_of, sql
from e2e.suite.manifests import POSTGRESQL, Manifest, data_grant, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine is spoken to: its client, given a statement, and what it calls the place of an app's tables."""

    engine: str
    client: str
    schema: str
    store: dict[str, Any] = field(default_factory=dict)

    def statement(self, text: str) -> str:
        """Return a script that runs a statement."""
        return f'{self.client} "{text}"'

    def tables(self, clone: Clone) -> list[str]:
        """Return the names of the clone's tables, as its app sees them."""
        place = f"table_schema = {self.schema}"
        rows = clone.sql(f"SELECT table_name AS name FROM information_schema.tables WHERE {place} ORDER BY 1")
        return [str(row["name"]) for row in rows]


DIALECTS = [
    Dialect(
        engine="dolt",
        client='dolt --host "$host" --port "$port" --user "$username" --no-tls --use-db "$database" sql -q',
        schema="database()",
    ),
    Dialect(
        engine="postgresql",
        client='PATH=$PATH:$(echo /usr/lib/postgresql/*/bin); psql "$uri" -X -q -v ON_ERROR_STOP=1 -c',
        schema="'public'",
        store={"engine": "postgresql", "managed": POSTGRESQL},
    ),
]


@pytest.fixture(scope="module", params=DIALECTS, ids=[dialect.engine for dialect in DIALECTS])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """The engine that the stories are played on."""
    found: Dialect = request.param
    return found


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str, dialect: Dialect) -> Store:
    """A store of the engine with three rows in it."""
    store = Store(kube, owners, f"{dialect.engine}shop").create(**dialect.store)
    store.sql(ITEMS)
    return store


@pytest.fixture(scope="module")
def tenant(kube: Kube, store: Store, dialect: Dialect) -> Iterator[str]:
    """A namespace that may have clones of the store: of each one another, for what a grant is about does not change."""
    name = kube.new_namespace(f"migrations-{dialect.engine}")
    kube.apply(data_grant(dialect.engine, store.namespace, store=store.name, to=[name]))
    yield name
    kube.delete_namespace(name, wait=False)


def migrating(store: Store, tenant: str, dialect: Dialect) -> tuple[Manifest, Manifest]:
    """Return the Job and the clone of the example, with the cluster's image of the engine, and its client."""
    job, clone = example("migrations/migrations.yaml", tenant, store=store.name, owners=store.namespace)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = store.server["spec"]["containers"][0]["image"]
    if dialect.engine == "dolt":
        return job, clone
    return runs(dialect.statement("CREATE TABLE IF NOT EXISTS review (id INT PRIMARY KEY, stars INT)"), job), clone


def runs(script: str, job: Manifest, **spec: object) -> Manifest:
    """Return a Job like the example's that runs something else."""
    changed = copy.deepcopy(job)
    changed["spec"] |= spec
    changed["spec"]["template"]["spec"]["containers"][0]["args"] = [script]
    changed["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    return changed


def again(kube: Kube, job: Manifest) -> None:
    """Delete the user's Job and apply another, as one does who corrects a migration."""
    kube.run("delete", "-n", job["metadata"]["namespace"], "job/shop-migrate", "--ignore-not-found")
    kube.apply(job)


def test_migrations_run_before_apps_are_told_and_mistakes_are_told(
    kube: Kube, store: Store, tenant: str, dialect: Dialect
) -> None:
    job, wanted = migrating(store, tenant, dialect)
    clone, where = Clone(kube, tenant), ("dclone", "db", tenant)
    kube.apply(wanted)
    assert "Job shop-migrate" in kube.until_reason("MigrationTemplateMissing", *where)["message"]

    again(kube, runs(f'{dialect.statement("CREATE TABLE half (id INT PRIMARY KEY)")}; echo "$password"; exit 3', job))
    told = kube.until_reason("MigrationFailed", *where)["message"]
    assert "exit code 3" in told
    ours = clone.status["migrations"]["job"]
    assert f"kubectl logs -n {tenant} job/{ours}" in told
    assert clone.status["migrations"]["exitCode"] == 3
    login = kube.binding(tenant, ours)
    assert kube.run("logs", "-n", tenant, f"job/{ours}").splitlines()[-1] == login["password"]
    assert login["password"] not in str(kube.get(*where))
    assert kube.get("secret", "db-binding", tenant) is None
    [server] = kube.items("pods", "-n", tenant, "-l", "coppice.dev/role=clone,coppice.dev/owner-name=db")
    assert sql(kube, server, "SELECT COUNT(*) AS found FROM half", login_of(login)) == [{"found": 0}]

    again(kube, runs("sleep 3600", job, activeDeadlineSeconds=5))
    eventually(lambda: "DeadlineExceeded" in kube.condition(*where).get("message", ""), "the time-out is told")

    again(kube, job)
    clone.ready()
    assert dialect.tables(clone) == ["half", "item", "review"]
    status = clone.status["migrations"]
    assert (status["job"], status["changes"], status["changeCount"]) == (ours, ["created table review"], 1)
    assert status["schemaBefore"] != status["schemaAfter"]
    assert kube.binding(tenant, "db-binding")["host"] == f"db.{tenant}.svc"
    assert kube.get("secret", ours, tenant) is None
    assert kube.get("service", ours, tenant) is None


def test_what_has_run_is_not_run_again_and_a_revision_with_other_migrations_has_a_new_copy(
    kube: Kube, store: Store, tenant: str, dialect: Dialect
) -> None:
    job, wanted = migrating(store, tenant, dialect)
    wanted["metadata"]["name"] = "once"
    clone = Clone(kube, tenant, "once")
    again(kube, job)
    kube.apply(wanted)
    clone.ready()
    clone.sql("INSERT INTO review VALUES (1, 5)")
    first = kube.get("job", clone.status["migrations"]["job"], tenant)

    kube.run("patch", "dclone", "once", "-n", tenant, "--subresource=status", "--type=merge", "-p", '{"status":null}')
    again(kube, job)
    clone.patch(revision="same")
    eventually(lambda: clone.status.get("revision") == "same" and clone.reason == "Ready", "the revision is taken")
    assert clone.sql("SELECT stars FROM review") == [{"stars": 5}]
    present = kube.get("job", clone.status["migrations"]["job"], tenant)
    assert (first or {})["metadata"]["uid"] == (present or {})["metadata"]["uid"]

    again(kube, runs(dialect.statement("CREATE TABLE rating (id INT PRIMARY KEY)"), job))
    clone.patch(revision="other")
    eventually(lambda: clone.status.get("copy") == "2" and clone.reason == "Ready", "the new copy serves")
    assert dialect.tables(clone) == ["item", "rating"]
    assert clone.status["migrations"]["changes"] == ["created table rating"]

    clone.sql("INSERT INTO rating VALUES (7)")
    again(kube, runs(dialect.statement("CREATE TABLE more (id INT PRIMARY KEY)"), job))
    clone.patch(revision="third", onRevision="Keep")
    eventually(lambda: "more" in str(clone.status["migrations"].get("changes")), "the edited migration has run")
    clone.ready()
    assert clone.status["copy"] == "2"
    assert dialect.tables(clone) == ["item", "more", "rating"]
    assert clone.sql("SELECT id FROM rating") == [{"id": 7}]
    clone.delete()


def test_a_migration_that_cannot_begin_again_is_told_and_a_reset_cures_it(
    kube: Kube, store: Store, tenant: str, dialect: Dialect
) -> None:
    job, wanted = migrating(store, tenant, dialect)
    wanted["metadata"]["name"] = "halfway"
    clone, where = Clone(kube, tenant, "halfway"), ("dclone", "halfway", tenant)
    creates = dialect.statement("CREATE TABLE half (id INT PRIMARY KEY)")
    again(kube, runs(f"{creates}; exit 3", job))
    kube.apply(wanted)
    kube.until_reason("MigrationFailed", *where)
    again(kube, runs(creates, job))
    eventually(lambda: "exit code 1" in kube.condition(*where).get("message", ""), "it fails on what is there")
    clone.request("reset")
    clone.ready()
    assert dialect.tables(clone) == ["half", "item"]


def test_a_migration_on_its_way_goes_with_its_clone(kube: Kube, store: Store, tenant: str, dialect: Dialect) -> None:
    job, wanted = migrating(store, tenant, dialect)
    again(kube, runs("sleep 3600", job))
    wanted["metadata"]["name"] = "doomed"
    kube.apply(wanted)
    doomed = Clone(kube, tenant, "doomed")
    eventually(
        lambda: kube.items("pods", "-n", tenant, "-l", "coppice.dev/role=migrate,coppice.dev/owner-name=doomed"),
        "the migration runs",
    )
    uid = doomed.uid
    doomed.delete()
    made = ("jobs,pods,pvc,secrets,services", "-n", tenant, "-l", f"coppice.dev/owner-uid={uid}")
    eventually(lambda: kube.items(*made) == [], "all that was made for the clone is gone")
