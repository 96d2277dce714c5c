"""A user's migrations run on a clone before anybody is told of it, once, and what goes wrong is told."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from e2e.suite.data import Clone, login_of, sql
from e2e.suite.manifests import Manifest, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.kube import Kube

TABLES = "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database() ORDER BY 1"


def migrating(kube: Kube, store: Store, tenant: str) -> tuple[Manifest, Manifest]:
    """Return the Job and the clone of the example, with the cluster's image of the engine."""
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    job, clone = example("migrations/migrations.yaml", tenant, store=store.name, owners=store.namespace)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = server["spec"]["containers"][0]["image"]
    return job, clone


def runs(script: str, job: Manifest, **spec: object) -> Manifest:
    """Return a Job like the example's that runs something else."""
    changed = copy.deepcopy(job)
    changed["spec"] |= spec
    changed["spec"]["template"]["spec"]["containers"][0]["args"] = [script]
    changed["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    return changed


def statement(text: str) -> str:
    """Return a script that runs a statement."""
    client = 'dolt --host "$host" --port "$port" --user "$username" --no-tls --use-db "$database" sql'
    return f'{client} -q "{text}"'


def again(kube: Kube, job: Manifest) -> None:
    """Delete the user's Job and apply another, as one does who corrects a migration."""
    kube.run("delete", "-n", job["metadata"]["namespace"], "job/shop-migrate", "--ignore-not-found")
    kube.apply(job)


def tables(clone: Clone) -> list[str]:
    """Return the names of the clone's tables, as its app sees them."""
    return [str(row["name"]) for row in clone.sql(TABLES)]


def test_migrations_run_before_apps_are_told_and_mistakes_are_told(kube: Kube, store: Store, tenant: str) -> None:
    job, wanted = migrating(kube, store, tenant)
    clone, where = Clone(kube, tenant), ("dclone", "db", tenant)
    kube.apply(wanted)
    assert "Job shop-migrate" in kube.until_reason("MigrationTemplateMissing", *where)["message"]

    again(kube, runs(f'{statement("CREATE TABLE half (id INT PRIMARY KEY)")}; echo "$password"; exit 3', job))
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
    assert tables(clone) == ["half", "item", "review"]
    status = clone.status["migrations"]
    assert (status["job"], status["changes"], status["changeCount"]) == (ours, ["created table review"], 1)
    assert status["schemaBefore"] != status["schemaAfter"]
    assert kube.binding(tenant, "db-binding")["host"] == f"db.{tenant}.svc"
    assert kube.get("secret", ours, tenant) is None
    assert kube.get("service", ours, tenant) is None


def test_what_has_run_is_not_run_again_and_a_revision_with_other_migrations_has_a_new_copy(
    kube: Kube, store: Store, tenant: str
) -> None:
    job, wanted = migrating(kube, store, tenant)
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

    again(kube, runs(statement("CREATE TABLE rating (id INT PRIMARY KEY)"), job))
    clone.patch(revision="other")
    eventually(lambda: clone.status.get("copy") == "2" and clone.reason == "Ready", "the new copy serves")
    assert tables(clone) == ["item", "rating"]
    assert clone.status["migrations"]["changes"] == ["created table rating"]


def test_a_migration_on_its_way_goes_with_its_clone(kube: Kube, store: Store, tenant: str) -> None:
    job, wanted = migrating(kube, store, tenant)
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
