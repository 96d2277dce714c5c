"""The operator is killed at every write and every engine call, or refused at every write in turn, or hears of what
happens as on a bad day: all runs end alike, with no orphan and no loss.

``COPPICE_THOROUGH=1`` tries every error at every write of every story; without it the errors take turns, and only the
stories of ``WHOLE`` are disturbed at every write, the others at every third, of which several are refused on one day.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest
from tests.fakes.audit import fingerprint, orphans
from tests.fakes.deaths import Deaths
from tests.fakes.operator import Mood
from tests.fakes.source import NAMES, add_source, touched
from tests.fakes.story import Story

from coppice.core import labels
from coppice.engines.base import TableLock
from coppice.kube.errors import ConflictError, ForbiddenError, InvalidError, KubeError, TransientError
from coppice.reconcile.clone.pullrequest import LOOK_PERIOD

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
ERRORS: tuple[KubeError, ...] = (
    ConflictError("the object has been modified", status=409, reason="Conflict"),
    TransientError("too many requests", status=429, retry_after=1.0),
    TransientError("etcdserver: leader changed", status=500),
    TransientError("timed out", status=0),
)
Act = Callable[[Story], None]


async def with_store(story: Story) -> None:
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")


def take_torn_copy(story: Story) -> None:
    story.world.tears = 1
    story.snapshot("then")


async def with_clone(story: Story) -> None:
    await with_store(story)
    story.clone(revision="a", onRevision="Reset")
    await story.settle()
    story.world.login("data", "db-binding").volume.write("main", "mine")
    story.commit("bob")
    story.world.tick(60)


async def with_reset_clone(story: Story) -> None:
    await with_clone(story)
    story.annotate("DataClone", "db", reset="now")
    await story.settle()
    story.world.tick(60)


async def with_undone_reset(story: Story) -> None:
    await with_reset_clone(story)
    story.annotate("DataClone", "db", undo="now")
    await story.settle()
    story.world.tick(60)


async def with_reset_on_its_way(story: Story) -> None:
    await with_clone(story)
    story.world.broken_images.add("example.com/fake:1.0")
    story.annotate("DataClone", "db", reset="now")
    await story.settle()
    story.world.tick(60)
    await story.settle()


def undo(story: Story) -> None:
    story.world.broken_images.clear()
    story.annotate("DataClone", "db", undo="now")


async def with_scheduled_clone(story: Story) -> None:
    await with_store(story)
    story.clone(refresh="0 * * * *")
    await story.settle()
    story.commit("bob")


def pass_the_hour(story: Story) -> None:
    story.world.tick(3600 - story.world.now.minute * 60)


async def with_foreign_clone(story: Story) -> None:
    await with_store(story)
    story.clone(namespace="app", lease={"max": "1h"})
    await story.settle()


async def with_pending_foreign_clone(story: Story) -> None:
    await with_store(story)
    story.snapshot("mine")
    await story.settle()
    story.world.full = True
    story.clone(namespace="app")
    await story.settle()


async def with_branch(story: Story) -> None:
    await with_store(story)
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()


async def with_doomed_store(story: Story) -> None:
    await with_store(story)
    story.edit("DataStore", "shop", deletionPolicy="Delete")
    story.snapshot("keepsake")
    story.clone()
    await story.settle()
    story.delete("DataClone", "db")
    await story.settle()


async def with_retained_store(story: Story) -> None:
    await with_store(story)
    story.delete("DataStore", "shop")
    await story.settle()


async def with_expired_clone(story: Story) -> None:
    await with_foreign_clone(story)
    await story.operator.live(minutes=65)


async def with_app(story: Story) -> None:
    """An app that sleeps with its clone, in the clone's own namespace, where nothing else needs the finalizer."""
    await with_store(story)
    story.clone()
    await story.settle()
    template = {"spec": {"containers": [{"name": "app", "image": "web:1"}]}}
    metadata = {"name": "web", "namespace": "data", "annotations": {labels.SLEEP_OPT_IN: "db"}}
    story.kube.add(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
    )
    await story.settle()


async def with_sleeping_app(story: Story) -> None:
    await with_app(story)
    story.edit("DataClone", "db", power="Off")
    await story.settle()


async def with_source(story: Story) -> None:
    story.world.engine.capture_action = "flush"
    add_source(story, "alice")
    await story.settle()


async def with_adopted(story: Story) -> None:
    await with_source(story)
    story.adopted()
    story.grant()
    await story.settle()


async def with_durable_clone(story: Story) -> None:
    engine = story.world.engine
    engine.versioned, engine.capture_action = False, "flush"
    await with_store(story)
    story.clone(namespace="app", durability="Durable")
    await story.settle()
    story.world.login("app", "db-binding").volume.commit("main", "mine", at=story.world.now)
    story.world.tick(60)


async def with_clone_that_is_off(story: Story) -> None:
    story.world.engine.versioned = False
    await with_store(story)
    story.clone()
    await story.settle()
    story.edit("DataClone", "db", power="Off")
    await story.settle()
    story.world.tick(60)


async def with_commit(story: Story) -> None:
    await with_durable_clone(story)
    commit(story)
    await story.settle()
    story.clone("two", source={"branch": "feature"}, durability="Durable")
    story.clone("follower", source={"branch": "feature"}, refresh="OnHeadChange")
    await story.settle()
    story.world.login("data", "two-binding").volume.commit("main", "more", at=story.world.now)
    story.world.tick(120)


async def with_commit_that_is_not_captured(story: Story) -> None:
    await with_durable_clone(story)
    story.world.snapshot_error = "no"
    commit(story)
    await story.settle()


async def with_commit_that_is_not_copied(story: Story) -> None:
    await with_durable_clone(story)
    story.world.full = True
    commit(story)
    await story.settle()


def commit(story: Story, namespace: str = "app") -> None:
    parent = story.status("DataClone", "db", namespace)["snapshot"]["name"]
    story.commit_clone("feature-1", parent, namespace=namespace)


def lose_the_clone(story: Story) -> None:
    story.world.full = False
    story.delete("DataClone", "db", "app")


def lose_the_namespace(story: Story) -> None:
    story.kube.remove_namespace("app")


async def with_adopted_clone(story: Story) -> None:
    await with_adopted(story)
    story.snapshot("mine")
    story.clone()
    await story.settle()


async def with_elsewhere(story: Story) -> None:
    story.source("album/1")
    story.source_secret()
    await story.settle()


async def with_mirror(story: Story) -> None:
    await with_elsewhere(story)
    story.mirror(mirror={"schedule": "0 * * * *"})
    story.grant()
    await story.settle()


async def with_mirrored_clone(story: Story) -> None:
    await with_mirror(story)
    story.clone()
    await story.settle()
    story.world.elsewhere["db.example.com"].rows = frozenset({"album/1", "album/2"})


async def with_retained_copy(story: Story) -> None:
    await with_mirror(story)
    story.delete("DataStore", "shop")
    await story.settle()


def mirror_another_source(story: Story) -> None:
    story.source("album/9", host="other.example.com")
    story.delete("Secret", "prod-read")
    story.source_secret(host="other.example.com")
    story.mirror()


async def with_failed_refresh(story: Story) -> None:
    await with_mirror(story)
    story.world.dump_fails = "DumpFailed"
    story.annotate("DataStore", "shop", refresh="now")
    await story.settle()


async def with_refresh_under_way(story: Story) -> None:
    await with_mirror(story)
    story.edit("DataStore", "shop", deletionPolicy="Delete")
    story.world.silent = True
    story.annotate("DataStore", "shop", refresh="now")
    await story.settle()


def put_source_right(story: Story) -> None:
    story.world.dump_fails = None
    story.world.tick(60)
    story.annotate("DataStore", "shop", refresh="now")


def name_another_source(story: Story) -> None:
    story.world.silent = False
    story.source("album/9", host="other.example.com")
    story.delete("Secret", "prod-read")
    story.source_secret(host="other.example.com")


def lose_the_dump(story: Story) -> None:
    story.world.silent = False
    story.delete("Pod", "shop-dump")


def retain(story: Story) -> None:
    story.edit("DataStore", "shop", deletionPolicy="Retain")
    story.delete("DataStore", "shop")


async def with_job(story: Story) -> None:
    story.job("shop-load", "alice", "bob")
    await story.settle()


async def with_failed_load(story: Story) -> None:
    story.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args") == ["wrong"]
    story.job("shop-load", "wrong")
    story.store(deletionPolicy="Delete", managed={"load": {"jobTemplate": "shop-load"}})
    await story.settle()


async def with_migrations(story: Story) -> None:
    await with_store(story)
    story.job("shop-migrate", "table album: id", "flyway 1")
    await story.settle()


async def with_migrated_clone(story: Story) -> None:
    await with_migrations(story)
    story.clone(migrations={"jobTemplate": "shop-migrate"}, revision="a", onRevision="ResetIfMigrationsChanged")
    await story.settle()
    story.commit("bob")
    story.world.tick(60)


async def with_failed_migration(story: Story) -> None:
    story.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args") == ["wrong"]
    await with_store(story)
    story.job("shop-migrate", "wrong")
    story.clone(migrations={"jobTemplate": "shop-migrate"})
    await story.settle()


async def with_locking_migration(story: Story) -> None:
    await with_migrations(story)
    engine = story.world.engine
    engine.locking, engine.locked = True, lambda: (TableLock("album", "3/7", 1000.0),)
    story.world.broken_images.add("example.com/loader")
    story.clone(migrations={"jobTemplate": "shop-migrate", "versions": ["2"]})
    await story.settle()


async def with_ledger(story: Story) -> None:
    await with_store(story)
    story.commit("flyway 1")


def migrate_anew(story: Story) -> None:
    story.delete("Job", "shop-migrate")
    story.job("shop-migrate", "table genre: id", "flyway 2")


def migrate_with_revision(story: Story) -> None:
    migrate_anew(story)
    story.edit("DataClone", "db", revision="b")


def put_right(story: Story) -> None:
    story.delete("Job", "shop-load")
    story.job("shop-load", "alice", "bob")


async def with_masked_store(story: Story) -> None:
    engine = story.world.engine
    engine.versioned, engine.maskable = False, True
    story.mask_job("customer")
    story.store(mask={"jobTemplate": "shop-mask"})
    story.grant(data="Masked", verbs=["Clone"])
    await story.settle()
    story.commit("customer/alice", "customer/bob", "order/1")


async def with_failed_mask(story: Story) -> None:
    await with_masked_store(story)
    story.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args") == ["mask", "customer"]
    story.snapshot("mine")
    await story.settle()


async def with_half_a_mask(story: Story) -> None:
    await with_masked_store(story)
    story.world.hanging = lambda pod: True
    story.snapshot("mine")
    await story.settle()


def mask_better(story: Story) -> None:
    story.world.hanging = lambda pod: False
    story.delete("Job", "shop-mask")
    story.mask_job("customer", "order")


def lose_the_scratch_server(story: Story) -> None:
    story.world.hanging = lambda pod: False
    [server] = [pod for pod in story.kube.all("Pod") if pod["metadata"]["name"].endswith("-scratch")]
    story.world.evict(server)


def unmask(story: Story) -> None:
    story.world.hanging = lambda pod: False
    story.edit("DataStore", "shop", mask=None)


async def with_protected_store(story: Story) -> None:
    story.store(protection=[{"branches": ["main"]}])
    await story.settle()


async def with_old_clone(story: Story) -> None:
    story.world.engine.passwords = ("app-password",)
    await with_clone(story)


def protect_others_on_another_server(story: Story) -> None:
    story.edit("DataStore", "shop", protection=[{"branches": ["release/*"]}])
    story.delete("Pod", "shop-server")


def know_more(story: Story) -> None:
    """Servers of a newer operator have one password more, and somebody has them started anew."""
    story.world.engine.passwords = ("app-password", "remote-password")
    for name in ("shop-server", story.copy()):
        story.delete("Pod", name)


async def nothing(story: Story) -> None:
    await story.settle()


def fill(story: Story) -> None:
    story.world.tick(60)
    story.world.fill(story.get("Pod", story.copy()))


def lose_source(story: Story) -> None:
    for kind, name in NAMES.items():
        story.delete(kind, name)


def expire(story: Story) -> None:
    story.world.tick(3700)


async def with_pull_request(story: Story) -> None:
    story.world.forges.open()
    story.store()
    story.grant(repositories=["github.com/acme/shop"])
    label = {"coppice.dev/pull-request": "42"}
    story.kube.change("Namespace", None, "app", lambda found: found["metadata"].update(labels=label))
    await story.settle()
    story.commit("alice")
    said = {"provider": "github", "repository": "acme/shop", "number": 42}
    story.clone(namespace="app", pullRequest=said, lease={"max": "Never"})
    await story.settle()


def close(story: Story) -> None:
    story.world.forges.close()
    story.world.tick(660)


async def with_closed_pull_request(story: Story) -> None:
    await with_pull_request(story)
    close(story)
    await story.settle()
    story.commit("bob")


def reopen(story: Story) -> None:
    story.world.forges.open()
    story.world.tick(LOOK_PERIOD)


STORIES: dict[str, tuple[Callable[[Story], Awaitable[None]], Act]] = {
    "make a store": (nothing, lambda story: story.store(deletionPolicy="Delete")),
    "take a torn copy anew": (with_store, take_torn_copy),
    "make a store that a Job fills": (
        with_job,
        lambda story: story.store(managed={"load": {"jobTemplate": "shop-load"}}),
    ),
    "make a protected store": (
        nothing,
        lambda story: story.store(protection=[{"branches": ["main"]}]),
    ),
    "protect other branches on another server": (with_protected_store, protect_others_on_another_server),
    "start servers anew that have to know more": (with_old_clone, know_more),
    "put a failed load right": (with_failed_load, put_right),
    "make a clone that migrates": (
        with_migrations,
        lambda story: story.clone(migrations={"jobTemplate": "shop-migrate"}),
    ),
    "put a failed migration right": (with_failed_migration, migrate_anew),
    "migrate on the data that are there": (
        with_migrated_clone,
        lambda story: (migrate_anew(story), story.edit("DataClone", "db", onRevision="Keep"))[0],
    ),
    "migrate a new copy with a revision": (with_migrated_clone, migrate_with_revision),
    "go on with a migration that locks": (with_locking_migration, lambda story: story.world.broken_images.clear()),
    "make a clone at a migration": (with_ledger, lambda story: story.clone(source={"migration": "2"})),
    "turn a clone off that migrates": (
        with_failed_migration,
        lambda story: (migrate_anew(story), story.edit("DataClone", "db", power="Off"))[0],
    ),
    "delete a clone that migrates": (with_failed_migration, lambda story: story.delete("DataClone", "db")),
    "give a failed load up": (with_failed_load, lambda story: story.delete("DataStore", "shop")),
    "take a store over": (with_retained_store, lambda story: story.store()),
    "delete a store and its data": (with_doomed_store, lambda story: story.delete("DataStore", "shop")),
    "make a snapshot": (with_store, lambda story: story.snapshot("mine")),
    "make a masked snapshot": (with_masked_store, lambda story: story.snapshot("mine")),
    "make a masked clone next door": (with_masked_store, lambda story: story.clone(namespace="app")),
    "put a failed mask right": (with_failed_mask, mask_better),
    "change a mask in the middle": (with_half_a_mask, mask_better),
    "lose the server in the middle of a mask": (with_half_a_mask, lose_the_scratch_server),
    "take a mask out of the store in the middle": (with_half_a_mask, unmask),
    "delete a snapshot in the middle of its mask": (
        with_half_a_mask,
        lambda story: story.delete("DataSnapshot", "mine"),
    ),
    "make a branch": (with_store, lambda story: story.branch("autumn", deletionPolicy="Delete")),
    "delete a branch": (with_branch, lambda story: story.delete("DataBranch", "autumn")),
    "make a clone": (with_store, lambda story: story.clone()),
    "make a clone next door": (with_store, lambda story: story.clone(namespace="app")),
    "reset a clone": (with_clone, lambda story: story.annotate("DataClone", "db", reset="now")),
    "refresh by a schedule": (with_scheduled_clone, pass_the_hour),
    "undo a reset": (with_reset_clone, undo),
    "undo an undo": (with_undone_reset, undo),
    "call a reset off": (with_reset_on_its_way, undo),
    "undo what was never reset": (with_clone, undo),
    "reset what was undone": (with_undone_reset, lambda story: story.annotate("DataClone", "db", reset="now")),
    "give a clone a new revision": (with_clone, lambda story: story.edit("DataClone", "db", revision="b")),
    "fill a clone up": (with_clone, fill),
    "turn a clone off": (with_clone, lambda story: story.edit("DataClone", "db", power="Off")),
    "delete a clone": (with_clone, lambda story: story.delete("DataClone", "db")),
    "delete a clone next door": (with_foreign_clone, lambda story: story.delete("DataClone", "db", "app")),
    "delete a clone on its way": (with_pending_foreign_clone, lambda story: story.delete("DataClone", "db", "app")),
    "let a clone expire": (with_foreign_clone, expire),
    "extend an expired clone": (
        with_expired_clone,
        lambda story: story.annotate("DataClone", "db", "app", extend="now"),
    ),
    "close a pull request": (with_pull_request, close),
    "reopen a pull request": (with_closed_pull_request, reopen),
    "adopt a database": (with_source, lambda story: story.adopted()),
    "make a snapshot of an adopted database": (with_adopted, lambda story: story.snapshot("mine")),
    "make a clone of an adopted database next door": (with_adopted, lambda story: story.clone(namespace="app")),
    "give an adopted database up": (with_adopted_clone, lambda story: story.delete("DataStore", "shop")),
    "lose an adopted database": (with_adopted_clone, lose_source),
    "commit a clone next door": (with_durable_clone, commit),
    "commit a clone that is off": (with_clone_that_is_off, lambda story: commit(story, "data")),
    "go on with a branch that is followed": (
        with_commit,
        lambda story: story.commit_clone("feature-2", "feature-1", clone="two"),
    ),
    "delete a commit that is not captured": (
        with_commit_that_is_not_captured,
        lambda story: story.delete("DataSnapshot", "feature-1"),
    ),
    "delete a commit that is not copied": (
        with_commit_that_is_not_copied,
        lambda story: story.delete("DataSnapshot", "feature-1"),
    ),
    "lose the clone of a commit that is not copied": (with_commit_that_is_not_copied, lose_the_clone),
    "lose the namespace of a commit that is not copied": (with_commit_that_is_not_copied, lose_the_namespace),
    "mirror a database": (with_elsewhere, lambda story: story.mirror(mirror={"schedule": "0 * * * *"})),
    "mirror a database again": (with_retained_copy, lambda story: story.mirror(mirror={"schedule": "0 * * * *"})),
    "mirror another database under the same name": (with_retained_copy, mirror_another_source),
    "refresh a mirror by its schedule": (with_mirrored_clone, pass_the_hour),
    "refresh a mirror on request": (
        with_mirrored_clone,
        lambda story: story.annotate("DataStore", "shop", refresh="now"),
    ),
    "put a failed refresh right": (with_failed_refresh, put_source_right),
    "change the source in the middle of a refresh": (with_refresh_under_way, name_another_source),
    "lose a program in the middle of a refresh": (with_refresh_under_way, lose_the_dump),
    "delete a mirror in the middle of a refresh": (
        with_refresh_under_way,
        lambda story: story.delete("DataStore", "shop"),
    ),
    "delete a mirror in the middle of a refresh, and keep the copy": (with_refresh_under_way, retain),
    "make a snapshot of a mirror": (with_mirror, lambda story: story.snapshot("mine")),
    "put an app to sleep with its clone": (with_app, lambda story: story.edit("DataClone", "db", power="Off")),
    "wake an app with its clone": (with_sleeping_app, lambda story: story.edit("DataClone", "db", power="On")),
    "delete a clone whose app sleeps": (with_sleeping_app, lambda story: story.delete("DataClone", "db")),
    "delete a namespace": (with_foreign_clone, lambda story: story.kube.remove_namespace("app")),
}


WHOLE = {
    "make a clone of an adopted database next door",
    "make a clone next door",
    "make a protected store",
    "protect other branches on another server",
    "start servers anew that have to know more",
    "make a masked snapshot",
    "take a torn copy anew",
    "reset a clone",
    "undo a reset",
    "refresh a mirror on request",
    "make a clone that migrates",
    "delete a clone next door",
    "delete a clone on its way",
    "commit a clone next door",
    "put an app to sleep with its clone",
    "wake an app with its clone",
    "delete a clone whose app sleeps",
}


async def resumed(start: Story) -> Story:
    """Go on from a settled start."""
    story = start.fork()
    await story.settle()
    assert story.kube.mutations == start.kube.mutations, "the start is not settled"
    return story


async def play(start: Story, act: Act, disturb: Callable[[Story], None] = lambda story: None) -> Story:
    """Go on from a settled start with the operator disturbed from the moment somebody acts."""
    story = await resumed(start)
    act(story)
    disturb(story)
    await story.operator.settle(patience=61)
    assert orphans(story.world) == []
    assert touched(story) == []
    return story


@dataclass(frozen=True)
class Day:
    """A story's start, what somebody does then, how it ends undisturbed, and after how many writes."""

    name: str
    start: Story
    act: Act
    end: list[str]
    writes: int

    @property
    def stride(self) -> int:
        """At which of its writes it is disturbed: at each, or at each third."""
        return 1 if THOROUGH or self.name in WHOLE else 3


async def played(name: str) -> Day:
    prepare, act = STORIES[name]
    start = Story()
    await prepare(start)
    start.operator.restart()
    await start.settle()
    end = await play(start, act)
    return Day(name, start, act, fingerprint(end.world), end.kube.mutations - start.kube.mutations)


@pytest.fixture(scope="module", params=STORIES)
def day(request: pytest.FixtureRequest) -> Day:
    """Each story in turn: all tests of one come one after the other, and it is played to its start once for them."""
    return asyncio.run(played(request.param))


async def test_killed_at_any_write_or_call_it_ends_as_if_nothing_had_happened(day: Day) -> None:
    story = await resumed(day.start)
    day.act(story)
    deaths = Deaths(story, every=day.stride)
    await story.operator.settle(patience=61)
    deaths.stop()
    assert fingerprint(story.world) == day.end
    assert deaths.moments or not day.writes
    for when, after in deaths.moments:
        await after.operator.settle(patience=61)
        assert fingerprint(after.world) == day.end, f"killed {when}"
        assert orphans(after.world) == []
        assert touched(after) == []


async def test_refused_at_any_write_it_ends_as_if_nothing_had_happened(day: Day) -> None:
    for refused in refusals(day):
        story = await play(day.start, day.act, lambda story, refused=refused: refuse(story, refused))
        assert fingerprint(story.world) == day.end, refused


def refusals(day: Day) -> list[dict[int, KubeError]]:
    """Return what is refused on each of some days, by the number of the write: one write, or several far apart."""
    numbers = range(1, day.writes + 1, day.stride)
    if THOROUGH:
        return [{number: error} for number in numbers for error in ERRORS]
    if day.name in WHOLE:
        return [{number: ERRORS[number % len(ERRORS)]} for number in numbers]
    groups = [numbers[first::3] for first in range(3)]
    return [{number: ERRORS[number % len(ERRORS)] for number in group} for group in groups if group]


def refuse(story: Story, refused: Mapping[int, KubeError]) -> None:
    for number, error in refused.items():
        story.kube.fail_at(number, error)


@pytest.mark.parametrize(
    "day", ["make a clone next door", "reset a clone", "delete a clone next door"], indirect=True, scope="module"
)
@pytest.mark.parametrize("error", [ForbiddenError("exceeded quota", status=403), InvalidError("no", status=422)])
async def test_a_refusal_that_ends_is_forgotten(day: Day, error: KubeError) -> None:
    for number in range(1, day.writes + 1, 1 if THOROUGH else 4):
        story = await play(day.start, day.act, lambda story, number=number: story.kube.fail_at(number, error))
        assert fingerprint(story.world) == day.end, f"{error} at write {number}"


QUIET = 8
"""Seconds without a write after which an operator that is started again is taken to have nothing to do."""


async def test_an_operator_that_hears_nothing_and_is_started_again_now_and_then_ends_alike(day: Day) -> None:
    story = day.start.fork()
    day.act(story)
    story.operator.deaf = True
    quiet = 0
    for _ in range(200):
        before = len(story.world.writes)
        story.operator.restart()
        await story.operator.run_due()
        story.world.turn()
        story.world.tick(1)
        quiet = quiet + 1 if len(story.world.writes) == before else 0
        if quiet == QUIET:
            break
    story.operator.deaf = False
    story.operator.restart()
    await story.operator.settle(patience=61)
    assert fingerprint(story.world) == day.end
    assert orphans(story.world) == []


@pytest.mark.parametrize("mood", Mood, ids=lambda mood: mood.name.lower())
async def test_however_it_hears_of_things_it_ends_as_on_a_quiet_day(day: Day, mood: Mood) -> None:
    def act_on_a_bad_day(story: Story) -> None:
        story.operator.mood = mood
        day.act(story)

    story = await play(day.start, act_on_a_bad_day)
    assert fingerprint(story.world) == day.end
