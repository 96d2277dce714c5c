"""Migrations of a clone: they run on each copy, once, before apps are told of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.fakes.audit import orphans
from tests.fakes.operator import Operator
from tests.fakes.story import begun
from tests.unit.reconcile.foreign import add_foreign

from coppice.core import labels
from coppice.engines.base import EngineError, TableLock, UnreachableError
from coppice.manifests.secret import read_secret
from coppice.reconcile.observed import is_true

WANTED = {"migrations": {"jobTemplate": "shop-migrate"}}
ALBUM = "table album: id"
TITLE = "table album: title"


async def stored(story):
    story.store()
    await story.settle()
    story.commit("alice", ALBUM, "flyway 1")


@pytest.fixture
def shop():
    """A store with data, and a Job that migrates."""
    story = begun(stored)
    story.job("shop-migrate", TITLE, "table genre: id", "flyway 2")
    return story


@pytest.fixture
async def ready(shop):
    """A clone whose migrations have run."""
    shop.clone(**WANTED)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    return shop


def job_of(shop, number=1):
    """Return the name of the Job for a copy, and of its Secret and its Service."""
    return f"{shop.copy(number)}-migrate"


def runs(shop):
    """Return how often a program was started."""
    return sum(write.startswith("ADDED Pod data/db-") and "-migrate-" in write for write in shop.world.writes)


def replace_job(shop, *rows, **spec):
    shop.delete("Job", "shop-migrate")
    shop.job("shop-migrate", *rows, **spec)


def told(shop):
    return "db-binding" in shop.names("Secret")


def hang(shop):
    shop.world.broken_images.add("example.com/loader")


def go_on(shop):
    shop.world.broken_images.discard("example.com/loader")


def fail(shop, word="wrong"):
    shop.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args", [""])[0] == word


# -- the usual way --


async def test_a_job_begins_once_the_name_that_it_connects_to_leads_to_the_server(shop):
    shop.world.untold = lambda service: service.endswith("-migrate")
    shop.clone(**WANTED)
    await shop.operator.settle(patience=5)
    assert "nothing answers" in shop.condition("DataClone", "db", of="Migrated")["message"]
    assert runs(shop) == 0
    shop.world.untold = lambda service: False
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 1


async def test_an_operator_that_services_lead_nowhere_for_lets_a_job_begin_all_the_same(shop):
    shop.world.untold = lambda service: service.endswith("-migrate") and not runs(shop)
    shop.clone(**WANTED)
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")


async def test_migrations_run_before_apps_are_told_and_status_says_what_they_did(ready):
    shop = ready
    assert shop.rows() >= {"alice", ALBUM, TITLE, "flyway 2"}
    assert runs(shop) == 1
    status = shop.status("DataClone", "db")["migrations"]
    assert status.keys() == {
        "job",
        "hash",
        "startedAt",
        "finishedAt",
        "durationSeconds",
        "schemaBefore",
        "schemaAfter",
        "changes",
        "changeCount",
        "ledger",
    }
    assert status["job"] == job_of(shop)
    assert status["changes"] == ["altered table album", "created table genre"]
    assert status["changeCount"] == 2
    assert status["schemaBefore"] != status["schemaAfter"]
    assert status["ledger"] == {"tool": "flyway", "versionBefore": "1", "versionAfter": "2"}
    condition = shop.condition("DataClone", "db", of="Migrated")
    assert (condition["status"], condition["reason"]) == ("True", "Migrated")
    assert [entry for entry in shop.events("DataClone", "db") if entry.startswith("Migrat")] == ["Migrating"]


async def test_the_job_stays_for_its_log_and_nothing_else_of_it(ready):
    shop = ready
    assert shop.names("Job") == sorted(["shop-migrate", job_of(shop)], key=shop.names("Job").index)
    assert job_of(shop) not in shop.names("Secret")
    assert job_of(shop) not in shop.names("Service")
    assert shop.get("Job", "shop-migrate")["spec"]["suspend"] is True


async def test_until_they_have_run_the_job_alone_can_connect(shop):
    hang(shop)
    shop.clone(binding={"keys": {"DATABASE_URL": "{uri}"}}, **WANTED)
    await shop.operator.live(minutes=5)
    assert not told(shop)
    assert shop.reason("DataClone", "db") == "Migrating"
    assert "ImagePullBackOff" in shop.condition("DataClone", "db")["message"]
    assert shop.condition("DataClone", "db", of="EngineReady")["status"] == "True"
    secret = read_secret(shop.get("Secret", job_of(shop)))
    assert secret["host"] == f"{job_of(shop)}.data.svc"
    assert secret["DATABASE_URL"] == secret["uri"]
    [container] = shop.get("Job", job_of(shop))["spec"]["template"]["spec"]["containers"]
    references = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"]}
    assert references == {key: {"name": job_of(shop), "key": key} for key in secret}
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_no_service_leads_to_the_jobs_pod(shop):
    hang(shop)
    shop.clone(**WANTED)
    await shop.settle()
    [pod] = [pod for pod in shop.kube.all("Pod") if pod["metadata"]["name"].startswith(job_of(shop))]
    for kind, selector in (("Service", "selector"), ("NetworkPolicy", "podSelector")):
        for found in shop.kube.all(kind):
            wanted = found["spec"][selector]
            wanted = wanted.get("matchLabels", wanted) if kind == "NetworkPolicy" else wanted
            assert not wanted.items() <= pod["metadata"]["labels"].items(), found["metadata"]["name"]


async def test_a_clone_without_migrations_says_nothing_of_them(shop):
    shop.clone()
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert "Migrated" not in str(shop.status("DataClone", "db"))
    assert "migrations" not in shop.status("DataClone", "db")
    assert shop.names("Job") == ["shop-migrate"]


async def test_a_clone_next_door_runs_the_job_of_its_own_namespace(shop):
    shop.grant()
    shop.job("shop-migrate", "table app: id", namespace="app")
    shop.clone(namespace="app", **WANTED)
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == {"alice", ALBUM, "flyway 1", "table app: id"}
    assert shop.status("DataClone", "db", "app")["migrations"]["changes"] == ["created table app"]


# -- once --


async def test_what_has_run_is_not_run_again_whatever_is_forgotten(ready):
    shop = ready
    before = shop.status("DataClone", "db")["migrations"]
    shop.operator.restart()
    await shop.settle()
    shop.kube.change("DataClone", "data", "db", lambda found: found.update(status={}))
    await shop.settle()
    shop.kube.change(
        "Job", "data", job_of(shop), lambda found: found["metadata"].update(finalizers=["example.com/slow"])
    )
    shop.delete("Job", job_of(shop))
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    replace_job(shop, TITLE, "table genre: id", "flyway 2", backoffLimit=5)
    await shop.operator.live(minutes=3)
    shop.delete("Pod", shop.copy())
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 1
    assert shop.status("DataClone", "db")["migrations"] == before


async def test_an_api_server_that_reads_more_into_the_job_runs_nothing_again(ready):
    shop = ready
    generation = shop.get("Job", "shop-migrate")["metadata"]["generation"]
    for edit in (
        lambda found: found["spec"]["template"]["spec"].update(dnsPolicy="ClusterFirst"),
        lambda found: found["metadata"].update(generation=generation),
    ):
        shop.kube.change("Job", "data", "shop-migrate", edit)
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 1


async def test_a_leader_that_has_not_heard_of_the_last_ones_work_runs_nothing_again(shop):
    shop.clone(**WANTED)
    await shop.operator.until(lambda: any(is_true(job, "Complete") for job in shop.kube.all("Job") if "status" in job))
    heir = Operator(shop.world)
    heir.deaf_to = frozenset({"PersistentVolumeClaim", "Secret", "Job"})
    await shop.settle()
    await heir.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 1


# -- another migration --


@pytest.mark.parametrize("policy", ["Keep", "Reset"])
async def test_an_edited_migration_runs_at_once_on_the_data_that_are_kept(shop, policy):
    shop.clone(revision="a", onRevision=policy, **WANTED)
    await shop.settle()
    shop.world.login("data", "db-binding").volume.write("main", "mine")
    replace_job(shop, "table band: id", "flyway 3")
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"mine", "table genre: id", "table band: id"}
    status = shop.status("DataClone", "db")
    assert status["copy"] == "1"
    assert status["migrations"]["changes"] == ["created table band"]
    assert status["migrations"]["ledger"]["versionBefore"] == "2"
    assert runs(shop) == 2


async def test_apps_keep_their_binding_while_an_edited_migration_runs(ready):
    shop = ready
    hang(shop)
    replace_job(shop, "table band: id")
    await shop.operator.live(minutes=2)
    assert shop.reason("DataClone", "db") == "Migrating"
    assert told(shop)
    assert shop.status("DataClone", "db")["binding"] == {"name": "db-binding"}
    assert "alice" in shop.rows()


async def test_what_has_run_before_does_not_run_again_when_it_comes_back(ready):
    shop = ready
    first = shop.status("DataClone", "db")["migrations"]["hash"]
    replace_job(shop, "table band: id")
    await shop.operator.live(minutes=2)
    replace_job(shop, TITLE, "table genre: id", "flyway 2")
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 2
    assert shop.status("DataClone", "db")["migrations"]["hash"] != first


async def test_a_reset_runs_them_on_the_new_copy_while_the_old_one_serves(ready):
    shop = ready
    shop.world.login("data", "db-binding").volume.write("main", "mine")
    shop.commit("bob")
    hang(shop)
    shop.world.tick(60)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert "mine" in shop.rows()
    message = shop.condition("DataClone", "db")["message"]
    assert "Copy 1 serves meanwhile" in message
    assert shop.status("DataClone", "db")["migrations"]["job"] == job_of(shop, 2)
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"alice", "bob", TITLE}
    assert "mine" not in shop.rows()
    assert runs(shop) == 2


async def test_an_undo_finds_what_has_run_on_the_old_copy(ready):
    shop = ready
    for verb in ("reset", "undo", "undo"):
        shop.world.tick(60)
        shop.annotate("DataClone", "db", **{verb: "now"})
        await shop.settle()
        shop.expect_ready("DataClone", "db")
    assert shop.status("DataClone", "db")["copy"] == "2"
    assert runs(shop) == 2


async def test_a_refresh_runs_them_on_each_copy(shop):
    shop.clone(refresh="OnHeadChange", **WANTED)
    await shop.settle()
    shop.commit("bob")
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"bob", TITLE}
    assert runs(shop) == 2
    assert len([name for name in shop.names("Job") if name != "shop-migrate"]) == 1


# -- revisions --

IF_CHANGED = {**WANTED, "onRevision": "ResetIfMigrationsChanged"}


async def with_own_data(shop):
    shop.clone(revision="a", **IF_CHANGED)
    await shop.settle()
    shop.world.login("data", "db-binding").volume.write("main", "mine")


async def test_a_revision_with_the_same_migrations_keeps_the_data(shop):
    await with_own_data(shop)
    shop.edit("DataClone", "db", revision="b")
    replace_job(shop, TITLE, "table genre: id", "flyway 2")
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert "mine" in shop.rows()
    assert shop.status("DataClone", "db")["revision"] == "b"
    assert runs(shop) == 1


@pytest.mark.parametrize("first", ["revision", "migrations"])
async def test_a_revision_with_other_migrations_makes_a_new_copy_whichever_comes_first(shop, first):
    await with_own_data(shop)
    changes = {
        "revision": lambda: shop.edit("DataClone", "db", revision="b"),
        "migrations": lambda: replace_job(shop, "table band: id"),
    }
    changes.pop(first)()
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert "mine" in shop.rows()
    [(_, change)] = changes.items()
    change()
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", ALBUM, "flyway 1", "table band: id"}
    assert shop.status("DataClone", "db")["copy"] == "2"
    assert runs(shop) == 2


async def test_migrations_that_change_without_a_revision_wait_for_one_and_it_is_said(shop):
    await with_own_data(shop)
    replace_job(shop, "table band: id")
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert "next spec.revision" in shop.condition("DataClone", "db", of="Migrated")["message"]
    assert runs(shop) == 1


async def test_without_a_revision_there_is_none_to_wait_for(shop):
    shop.clone(**IF_CHANGED)
    await shop.settle()
    shop.world.login("data", "db-binding").volume.write("main", "mine")
    replace_job(shop, "table band: id")
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"mine", "table band: id"}


async def test_an_undo_of_a_reset_with_other_migrations_is_not_undone_by_itself(shop):
    await with_own_data(shop)
    shop.world.tick(60)
    replace_job(shop, "table band: id")
    shop.edit("DataClone", "db", revision="b")
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert shop.status("DataClone", "db")["copy"] == "2"
    shop.world.tick(60)
    shop.annotate("DataClone", "db", undo="now")
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db")
    assert shop.status("DataClone", "db")["copy"] == "1"
    assert "mine" in shop.rows()
    assert runs(shop) == 2


@pytest.mark.parametrize("cut", ["replaced", "deleted", "off"])
async def test_what_has_run_counts_no_more_once_another_was_left_half_done(ready, cut):
    shop = ready
    fail(shop)
    if cut != "replaced":
        hang(shop)
    replace_job(shop, "wrong")
    await shop.operator.live(minutes=2)
    assert not shop.is_ready("DataClone", "db")
    if cut == "deleted":
        shop.delete("Job", "shop-migrate")
        shop.delete("Job", job_of(shop))
        await shop.operator.live(minutes=1)
        assert shop.reason("DataClone", "db") == "MigrationTemplateMissing"
        shop.job("shop-migrate", "wrong")
    if cut == "off":
        shop.edit("DataClone", "db", power="Off")
        await shop.settle()
        shop.edit("DataClone", "db", power="On")
    go_on(shop)
    replace_job(shop, TITLE, "table genre: id", "flyway 2")
    before = runs(shop)
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == before + 1


async def test_a_half_done_migration_is_not_gone_on_with_by_another_revision(shop):
    fail(shop)
    replace_job(shop, "wrong")
    shop.clone(revision="a", **IF_CHANGED)
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "MigrationFailed")
    replace_job(shop, "table band: id")
    shop.edit("DataClone", "db", revision="b")
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", ALBUM, "flyway 1", "table band: id"}


# -- what goes wrong --


async def test_a_failure_keeps_the_copy_tells_no_app_and_is_not_tried_again_by_itself(shop):
    fail(shop)
    replace_job(shop, "wrong", "row of secrets")
    shop.clone(**WANTED)
    await shop.settle()
    message = shop.expect_stalled("DataClone", "db", "MigrationFailed")
    for word in (
        job_of(shop),
        "BackoffLimitExceeded",
        "exit code 1",
        f"kubectl logs -n data job/{job_of(shop)}",
        "Job shop-migrate ",
        f"Secret {job_of(shop)}",
        "reset",
    ):
        assert word in message
    assert "row" not in message
    assert not told(shop)
    assert runs(shop) == 2
    assert shop.events("DataClone", "db").count("MigrationFailed") == 1
    status = shop.status("DataClone", "db")["migrations"]
    assert (status["job"], status["exitCode"]) == (job_of(shop), 1)
    assert "schemaAfter" not in status
    writes = len(shop.world.writes)
    await shop.operator.live(minutes=30)
    assert len(shop.world.writes) == writes

    looked_at = shop.world.login("data", job_of(shop)).volume
    assert "wrong" in looked_at.branches["main"].rows


@pytest.mark.parametrize("rows", [("table band: id",), ("wrong",)])
async def test_a_failed_migration_is_tried_again_when_it_is_applied_again(shop, rows):
    fail(shop)
    replace_job(shop, "wrong")
    shop.clone(**WANTED)
    await shop.settle()
    shop.world.crashing = lambda pod: False
    shop.delete("Job", "shop-migrate")
    await shop.operator.live(seconds=30)
    shop.expect_stalled("DataClone", "db", "MigrationFailed")
    shop.job("shop-migrate", *rows)
    await shop.operator.live(seconds=30)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"wrong", *rows}, "it goes on with what the failed one has left"


async def test_a_failure_on_a_new_copy_leaves_the_old_one_serving(ready):
    shop = ready
    fail(shop)
    replace_job(shop, "wrong")
    shop.world.tick(60)
    shop.annotate("DataClone", "db", reset="now")
    await shop.operator.live(minutes=5)
    assert "Copy 1 serves meanwhile" in shop.expect_stalled("DataClone", "db", "MigrationFailed")
    assert shop.rows() >= {"alice", TITLE}
    assert "wrong" not in shop.rows()
    replace_job(shop, "table band: id")
    shop.world.tick(60)
    shop.annotate("DataClone", "db", reset="now")
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", ALBUM, "flyway 1", "table band: id"}


async def test_a_time_out_is_a_failure_that_a_longer_one_cures(shop):
    hang(shop)
    replace_job(shop, TITLE, activeDeadlineSeconds=60)
    shop.clone(**WANTED)
    await shop.operator.live(minutes=5)
    assert "DeadlineExceeded" in shop.expect_stalled("DataClone", "db", "MigrationFailed")
    assert not told(shop)
    go_on(shop)
    shop.kube.change("Job", "data", "shop-migrate", lambda found: found["spec"].update(activeDeadlineSeconds=600))
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")


async def test_a_migration_that_hangs_is_replaced_by_an_edited_one_and_two_never_run_at_once(shop):
    hang(shop)
    shop.clone(**WANTED)
    await shop.settle()

    def running():
        return [name for name in shop.names("Pod") if name.startswith(job_of(shop))]

    first = running()
    replace_job(shop, "table band: id")
    await shop.operator.until(lambda: running() != first)
    assert running() == [], "another Pod was there before the first had gone"
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", ALBUM, "flyway 1", "table band: id"}


async def test_a_migration_goes_on_when_the_same_is_applied_again_or_taken_away(shop):
    hang(shop)
    shop.clone(**WANTED)
    await shop.settle()
    begun_job = shop.get("Job", job_of(shop))["metadata"]["uid"]
    replace_job(shop, TITLE, "table genre: id", "flyway 2", backoffLimit=3)
    await shop.operator.live(minutes=1)
    shop.delete("Job", "shop-migrate")
    await shop.operator.live(minutes=1)
    assert shop.get("Job", job_of(shop))["metadata"]["uid"] == begun_job
    go_on(shop)
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 1
    assert "not there any more" in shop.condition("DataClone", "db", of="Migrated")["message"]


async def test_a_job_that_comes_late_is_waited_for(shop):
    shop.delete("Job", "shop-migrate")
    shop.clone(**WANTED)
    await shop.settle()
    condition = shop.condition("DataClone", "db")
    assert condition["reason"] == "MigrationTemplateMissing"
    assert "spec.suspend: true" in condition["message"]
    assert not told(shop)
    shop.job("shop-migrate", TITLE)
    await shop.operator.live(seconds=30)
    shop.expect_ready("DataClone", "db")


async def test_a_job_that_runs_by_itself_is_said_and_not_run_again(shop):
    replace_job(shop, TITLE, suspend=False)
    shop.clone(**WANTED)
    await shop.settle()
    assert "Job shop-migrate" in shop.expect_stalled("DataClone", "db", "MigrationNotSuspended")
    assert runs(shop) == 0
    replace_job(shop, TITLE)
    await shop.operator.live(seconds=30)
    shop.expect_ready("DataClone", "db")


async def test_a_job_deleted_in_the_middle_is_made_anew_when_its_pods_are_gone(shop):
    hang(shop)
    shop.clone(**WANTED)
    await shop.settle()
    [pod] = [name for name in shop.names("Pod") if name.startswith(job_of(shop))]
    shop.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=["example.com/grace"]))
    shop.delete("Job", job_of(shop))
    await shop.settle()
    assert [name for name in shop.names("Pod") if name.startswith(job_of(shop))] == [pod]
    assert shop.reason("DataClone", "db") == "Leftover"
    assert pod in shop.condition("DataClone", "db")["message"]
    go_on(shop)
    shop.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=[]))
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 2


async def test_a_namespace_that_refuses_the_jobs_pods_is_said(shop):
    shop.world.podless = True
    shop.clone(**WANTED)
    await shop.operator.live(minutes=1)
    message = shop.expect_stalled("DataClone", "db", "MigrationNotStarted")
    assert f"kubectl describe job {job_of(shop)}" in message
    shop.world.podless = False
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")


@pytest.mark.parametrize("kind", ["Job", "Secret"])
async def test_what_has_the_jobs_name_and_is_not_ours_is_left_alone_and_said(shop, kind):
    hang(shop)
    shop.clone(**WANTED)
    await shop.operator.until(lambda: shop.kube.all("DataClone")[0].get("status"))
    add_foreign(shop, kind, job_of(shop))
    before = shop.get(kind, job_of(shop))
    await shop.settle()
    assert job_of(shop) in shop.expect_stalled("DataClone", "db", "NameConflict")
    assert shop.get(kind, job_of(shop)) == before
    go_on(shop)
    shop.delete(kind, job_of(shop))
    await shop.operator.live(minutes=6)
    shop.expect_ready("DataClone", "db")


async def test_a_volume_that_is_lost_takes_its_record_with_it(ready):
    shop = ready
    shop.delete("PersistentVolumeClaim", shop.copy())
    shop.delete("Pod", shop.copy())
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() >= {"alice", TITLE}
    assert runs(shop) == 2


# -- the clone's own life, in the middle --


@pytest.fixture
async def under_way(shop):
    """A clone next door in whose middle of a migration something happens."""
    shop.grant()
    shop.job("shop-migrate", TITLE, namespace="app")
    hang(shop)
    shop.clone(namespace="app", lease={"max": "2h"}, **WANTED)
    await shop.settle()
    assert shop.reason("DataClone", "db", "app") == "Migrating"
    return shop


def is_over(shop):
    """Return whether neither the Job nor a Pod of it is there."""
    return [name for kind in ("Job", "Pod") for name in shop.names(kind, "app")] == ["shop-migrate"]


async def test_power_off_ends_it_and_power_on_begins_it_anew(under_way):
    shop = under_way
    shop.edit("DataClone", "db", "app", power="Off")
    await shop.settle()
    assert shop.reason("DataClone", "db", "app") == "PoweredOff"
    assert is_over(shop)
    go_on(shop)
    shop.edit("DataClone", "db", "app", power="On")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_a_grant_that_is_revoked_ends_it_and_another_one_begins_it_anew(under_way):
    shop = under_way
    shop.delete("DataGrant", "previews")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "GrantRevoked", "app")
    assert is_over(shop)
    go_on(shop)
    shop.grant()
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


@pytest.mark.parametrize("end", ["deleted", "expired"])
async def test_the_end_of_the_clone_is_its_end(under_way, end):
    shop = under_way
    if end == "deleted":
        shop.delete("DataClone", "db", "app")
    else:
        await shop.operator.live(hours=3)
        assert shop.reason("DataClone", "db", "app") == "Expired"
    await shop.settle()
    assert is_over(shop)
    assert shop.names("Secret", "app") == []
    assert shop.names("Service", "app") == []
    assert orphans(shop.world) == []


async def test_migrations_that_are_not_asked_for_any_more_end(under_way):
    shop = under_way
    shop.edit("DataClone", "db", "app", migrations=None)
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert [name for name in shop.names("Job", "app") if name != "shop-migrate"] == []
    assert shop.rows(namespace="app") == {"alice", ALBUM, "flyway 1"}
    assert "migrations" not in shop.status("DataClone", "db", "app")


@pytest.fixture
def drowsy():
    story = begun(stored, sleep=timedelta(hours=1))
    story.job("shop-migrate", TITLE)
    return story


async def test_a_clone_does_not_fall_asleep_under_a_migration_and_does_after_it(drowsy):
    shop = drowsy
    shop.clone(**WANTED)
    await shop.settle()
    hang(shop)
    replace_job(shop, "table band: id")
    await shop.operator.live(hours=3)
    assert shop.reason("DataClone", "db") == "Migrating"
    go_on(shop)
    await shop.operator.live(hours=3)
    assert shop.reason("DataClone", "db") == "Asleep"
    shop.annotate("DataClone", "db", wake="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert runs(shop) == 2


async def test_a_reset_in_the_middle_ends_the_one_that_runs(under_way):
    shop = under_way
    shop.world.tick(60)
    shop.annotate("DataClone", "db", "app", reset="now")
    await shop.settle()
    jobs = [name for name in shop.names("Job", "app") if name != "shop-migrate"]
    assert len(jobs) == 1
    assert shop.copy(2, namespace="app") in jobs[0]
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_a_copy_is_not_asked_any_more_what_it_holds_once_a_migration_may_have_changed_it(shop):
    async def refuse(at, database=None):
        raise EngineError("the table that was looked at is gone")

    hang(shop)
    shop.clone(**WANTED)
    await shop.settle()
    shop.world.engine.inspect = refuse
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_a_table_that_only_looks_like_a_ledger_holds_up_nothing(shop):
    async def refuse(at, database):
        raise EngineError("there is no column version")

    shop.world.engine.ledger = refuse
    shop.clone(**WANTED)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert "ledger" not in shop.status("DataClone", "db")["migrations"]


async def test_a_server_whose_schema_cannot_be_read_is_asked_again(shop):
    async def refuse(at, database):
        raise EngineError("the catalog is locked")

    told_schema = shop.world.engine.schema
    shop.world.engine.schema = refuse
    shop.clone(**WANTED)
    await shop.settle()
    assert shop.reason("DataClone", "db") == "EngineError"
    assert "catalog" in shop.condition("DataClone", "db")["message"]
    assert runs(shop) == 0
    shop.world.engine.schema = told_schema
    await shop.operator.live(seconds=30)
    shop.expect_ready("DataClone", "db")


# -- what it locks --


def locked(shop):
    """Have somebody lock a table from now on."""
    shop.world.engine.locking = True
    shop.world.engine.locked = lambda: (TableLock("album", "3/7", shop.world.now.timestamp()),)


async def test_a_lock_is_told_while_it_is_held_and_of_what_has_run(shop):
    hang(shop)
    locked(shop)
    shop.clone(**WANTED)
    await shop.operator.live(seconds=12)
    [held] = shop.status("DataClone", "db")["migrations"]["locks"]
    assert (held["table"], held["waitedSeconds"]) == ("album", 0)
    assert held["heldSeconds"] >= 8
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    [after] = shop.status("DataClone", "db")["migrations"]["locks"]
    assert after["heldSeconds"] >= held["heldSeconds"]
    claim = shop.get("PersistentVolumeClaim", shop.copy())
    assert labels.LOCKS not in claim["metadata"]["annotations"]
    shop.kube.change("DataClone", "data", "db", lambda found: found.pop("status"))
    await shop.settle()
    assert shop.status("DataClone", "db")["migrations"]["locks"] == [after]


async def test_the_locks_of_one_that_failed_are_told(shop):
    hang(shop)
    locked(shop)
    fail(shop)
    replace_job(shop, "wrong", backoffLimit=0)
    shop.clone(**WANTED)
    await shop.operator.live(seconds=5)
    go_on(shop)
    await shop.operator.live(seconds=30)
    shop.expect_stalled("DataClone", "db", "MigrationFailed")
    assert shop.status("DataClone", "db")["migrations"]["locks"][0]["table"] == "album"

    replace_job(shop, "table genre: id")
    shop.world.engine.locked = tuple
    await shop.operator.live(seconds=30)
    shop.expect_ready("DataClone", "db")
    assert "locks" not in shop.status("DataClone", "db")["migrations"]


async def test_an_engine_without_locks_is_not_asked_for_them(shop):
    hang(shop)

    def locked_by_nobody():
        raise AssertionError

    shop.world.engine.locked = locked_by_nobody
    shop.clone(**WANTED)
    await shop.operator.live(seconds=30)
    assert shop.reason("DataClone", "db") == "Migrating"
    assert "locks" not in shop.status("DataClone", "db")["migrations"]


async def test_a_server_that_does_not_tell_its_locks_holds_up_nothing(shop):
    hang(shop)

    def fails():
        raise UnreachableError("too many clients")

    shop.world.engine.locking, shop.world.engine.locked = True, fails
    shop.clone(**WANTED)
    await shop.operator.live(seconds=5)
    go_on(shop)
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_nobody_looks_for_locks_when_nothing_runs(ready):
    shop = ready
    looks = []
    shop.world.engine.locking = True
    shop.world.engine.locked = lambda: looks.append(1) or ()
    await shop.operator.live(minutes=10)
    assert looks == []


# -- what the release has --


def released(*versions):
    return {"migrations": {"jobTemplate": "shop-migrate", "versions": list(versions)}}


def diverged(shop):
    return shop.condition("DataClone", "db", of="LedgerDiverged")


async def test_versions_that_the_data_have_and_the_release_has_not_are_named_and_hold_up_nothing(shop):
    shop.commit("flyway 1.5", "flyway 7")
    shop.clone(**released("1", "2"))
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    found = diverged(shop)
    assert (found["status"], found["reason"]) == ("True", "VersionsUnknown")
    assert "flyway that spec.migrations.versions has not: 1.5, 7. Bring the release" in found["message"]
    assert shop.events("DataClone", "db").count("VersionsUnknown") == 1
    [event] = [event for _, event in shop.operator.log.events if event.reason == "VersionsUnknown"]
    assert event.type == "Warning"

    shop.edit("DataClone", "db", **released("1", "1.5", "2.0", "7"))
    await shop.operator.live(minutes=2)
    assert (diverged(shop)["status"], diverged(shop)["reason"]) == ("False", "LedgerKnown")
    shop.edit("DataClone", "db", migrations={"versions": []})
    await shop.operator.live(minutes=2)
    assert "has not: 1, 1.5, 2, 7." in diverged(shop)["message"]


async def test_it_is_said_before_the_migration_runs_and_while_it_does(shop):
    shop.commit("flyway 9")
    hang(shop)
    shop.clone(**released("1", "2"))
    await shop.operator.live(seconds=30)
    assert shop.reason("DataClone", "db") == "Migrating"
    assert "has not: 9." in diverged(shop)["message"]


async def test_a_failed_migration_has_it_said_beside_its_failure(shop):
    shop.commit("flyway 9")
    fail(shop)
    replace_job(shop, "wrong", backoffLimit=0)
    shop.clone(**released("1"))
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "MigrationFailed")
    assert diverged(shop)["status"] == "True"


async def test_without_a_word_of_what_the_release_has_nothing_is_said_nor_asked(ready):
    shop = ready
    assert "LedgerDiverged" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}
    asked = []

    async def ledger(at, database):
        asked.append(database)

    shop.world.engine.ledger = ledger
    await shop.operator.live(minutes=10)
    assert asked == []


async def test_what_was_said_stays_while_nobody_can_be_asked(shop):
    shop.commit("flyway 9")
    shop.clone(**released("1", "2"))
    await shop.settle()

    async def refuse(at, database):
        raise UnreachableError("nobody there")

    before, shop.world.engine.ledger = diverged(shop), refuse
    await shop.operator.live(minutes=10)
    assert diverged(shop) == before
    shop.edit("DataClone", "db", power="Off")
    await shop.operator.live(minutes=2)
    assert diverged(shop)["message"] == before["message"]
    shop.kube.change("DataClone", "data", "db", lambda found: found["spec"]["migrations"].pop("versions"))
    await shop.operator.live(minutes=2)
    assert "LedgerDiverged" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}


async def test_data_that_no_tool_has_touched_have_nothing_that_could_diverge(shop):
    shop.data_of().branches["main"].rows -= {"flyway 1"}
    replace_job(shop, "table genre: id")
    shop.clone(**released("1"))
    await shop.settle()
    assert (diverged(shop)["status"], diverged(shop)["reason"]) == ("False", "NoLedger")


async def test_of_very_many_the_first_ones_are_named(shop):
    shop.commit(*(f"flyway {number}" for number in range(100, 150)))
    shop.clone(**released("1", "2"))
    await shop.settle()
    assert "118, 119 and 30 more." in diverged(shop)["message"]
