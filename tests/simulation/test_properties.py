"""Whatever people, nodes and storage do, in whatever order: the end is in order, and nothing that lives is lost.

Each plan on the way is checked by ``tests.fakes.operator.check_plan``. ``COPPICE_THOROUGH=1`` plays many more days.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.audit import orphans
from tests.fakes.kube import Object
from tests.fakes.story import Story
from tests.fakes.world import key_of

from coppice.core import labels
from coppice.kube.errors import ConflictError, ForbiddenError, KubeError, TransientError

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
ERRORS: tuple[KubeError, ...] = (
    ConflictError("modified", status=409),
    TransientError("too many requests", status=429, retry_after=1.0),
    TransientError("timed out"),
    ForbiddenError("exceeded quota", status=403),
)
COMMIT_REASONS = {
    "BranchMovedOn",
    "CaptureLost",
    "CloneNotDurable",
    "CloneNotFound",
    "CloneNotReady",
    "CloneReplaced",
    "CloneStopping",
    "NotOfParent",
    "ParentNotFound",
    "ParentNotReady",
    "SnapshotPending",
}
NAMESPACES = ("data", "app", "app2")
MIGRATING = {"migrations": {"jobTemplate": "shop-migrate"}}


class Day:
    """A day with a store, of which an operation each changes something. ``masked``: others get masked rows of it.
    ``branching``: its engine keeps no branches, and clones are committed.
    """

    def __init__(self, *, masked: bool = False, branching: bool = False) -> None:
        self.story = Story(idle=None)
        self.story.operator.late = True
        self.story.world.add_namespace("app2")
        self.masked, self.branching = masked, branching
        engine = self.story.world.engine
        engine.versioned = not (masked or branching)
        if masked:
            engine.maskable = True
            self.story.mask_job("rows")
        self.make_store()
        self.story.grant(to={"namespaces": ["app", "app2"]}, maxLease="12h")
        self.committed: set[str] = set()
        self.rows = 0
        self.story.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args") == ["wrong"]
        for namespace in NAMESPACES:
            self.apply_migration(namespace, "table album: id")

    def make_store(self) -> None:
        mask = {"mask": {"jobTemplate": "shop-mask"}} if self.masked else {}
        self.story.store(clones={"profiles": {"large": {"memory": "1Gi"}}}, snapshots={"keep": {"last": 2}}, **mask)

    def apply_migration(self, namespace: str, row: str) -> None:
        if self.find("Job", namespace, "shop-migrate") is not None:
            self.story.delete("Job", "shop-migrate", namespace)
        if self.lives(namespace):
            self.story.job("shop-migrate", row, namespace=namespace)

    # Each operation gets a number to choose by, so that a failing day shrinks to a short list.

    def make_clone(self, pick: random.Random) -> None:
        name, namespace = f"db-{pick.randrange(3)}", pick.choice(NAMESPACES)
        if self.find("DataClone", namespace, name) is None and self.lives(namespace):
            self.story.clone(
                name,
                namespace=namespace,
                source=pick.choice(
                    [
                        {"branch": "main"},
                        {"branch": "main", "maxAge": "1h"},
                        {"tag": "v1"},
                        {"snapshot": "mine-0"},
                        {"migration": "3"},
                    ]
                ),
                revision=pick.choice(["a", "b"]),
                **pick.choice(
                    [
                        {"onRevision": "Keep"},
                        {"onRevision": "Reset"},
                        {"onRevision": "Keep", **MIGRATING},
                        {"onRevision": "Reset", **MIGRATING},
                        {"onRevision": "ResetIfMigrationsChanged", **MIGRATING},
                    ]
                ),
                lease=pick.choice([{"max": "1h"}, {"max": "Never"}, {}]),
                profile=pick.choice(["default", "large"]),
                power=pick.choice(["Auto", "Auto", "Off"]),
            )

    def make_working_clone(self, pick: random.Random) -> None:
        """Somebody wants to work on a branch."""
        name, namespace = f"work-{pick.randrange(2)}", pick.choice(NAMESPACES)
        if self.find("DataClone", namespace, name) is None and self.lives(namespace):
            self.story.clone(
                name,
                namespace=namespace,
                source=pick.choice([{"branch": "main"}, {"branch": "line"}, {"branch": "line"}]),
                durability=pick.choice(["Durable", "Durable", "Fast"]),
                refresh=pick.choice(["Never", "Never", "OnHeadChange"]),
                onRevision="Keep",
                power=pick.choice(["Auto", "On", "Off"]),
                lease={"max": "Never"} if namespace == "data" else {},
            )

    def commit(self, pick: random.Random) -> None:
        """Somebody commits a clone: as the next of its branch, or of what is the next by some other count."""
        for found in self.some("DataClone", pick):
            name, namespace = self.where(found)
            parent = ((found.get("status") or {}).get("snapshot") or {}).get("name")
            before = re.fullmatch("line-([0-9]+)", parent or "")
            number = 1 if before is None else int(before[1]) + 1
            commit = f"line-{number}"
            if parent is not None and self.find("DataSnapshot", "data", commit) is None:
                self.story.commit_clone(commit, parent, clone=name, namespace=namespace)

    def change_clone(self, pick: random.Random) -> None:
        for found in self.some("DataClone", pick):
            change = pick.choice(
                [
                    {"power": "Off"},
                    {"power": "On"},
                    {"revision": str(pick.randrange(9))},
                    {"lease": {"max": "2h"}},
                    {"onRevision": "Reset"},
                    {"onRevision": "Keep", "migrations": None},
                    MIGRATING,
                    {"profile": "large"},
                ]
            )
            self.story.edit("DataClone", *self.where(found), **change)

    def migrate(self, pick: random.Random) -> None:
        """Somebody applies another migration, the same one again, or one that fails."""
        row = pick.choice(["table album: id", "table band: id", "table genre: id", "wrong"])
        self.apply_migration(pick.choice(NAMESPACES), row)

    def reset(self, pick: random.Random) -> None:
        for found in self.some("DataClone", pick):
            self.story.annotate("DataClone", *self.where(found), reset="now")

    def undo(self, pick: random.Random) -> None:
        for found in self.some("DataClone", pick):
            self.story.annotate("DataClone", *self.where(found), undo="now")

    def extend(self, pick: random.Random) -> None:
        for found in self.some("DataClone", pick):
            self.story.annotate("DataClone", *self.where(found), extend="now")

    def delete_something(self, pick: random.Random) -> None:
        for found in self.some(pick.choice(["DataClone", "DataClone", "DataSnapshot", "DataBranch"]), pick):
            self.story.delete(found["kind"], *self.where(found))

    def make_snapshot(self, pick: random.Random) -> None:
        name = f"mine-{pick.randrange(2)}"
        if self.find("DataSnapshot", "data", name) is None:
            self.story.snapshot(name)

    def make_branch(self, pick: random.Random) -> None:
        name = f"line-{pick.randrange(3)}"
        if self.find("DataBranch", "data", name) is None:
            self.story.branch(name, deletionPolicy=pick.choice(["Retain", "Delete"]))

    def write(self, pick: random.Random) -> None:
        """An app of the store commits, and so do apps of clones that can be reached."""
        del pick
        self.rows += 1
        if (claim := self.find("PersistentVolumeClaim", "data", "shop-data")) is not None:
            volume = self.story.world.volumes.get(claim["metadata"]["uid"])
            if volume is not None and not volume.empty:
                head = volume.commit("main", f"row-{self.rows}", f"flyway {self.rows}", at=self.story.world.now)
                volume.tags.setdefault("v1", head)
                self.committed.add(f"row-{self.rows}")
        for server in self.story.world.engine.servers.values():
            if server.volume.cloned and "app" in server.volume.users:
                server.volume.write(server.volume.default_branch, f"own-{self.rows}")
                server.uses += 1

    def turn_consent(self, pick: random.Random) -> None:
        if self.find("DataGrant", "data", "previews") is None:
            self.story.grant(to={"namespaces": ["app", "app2"]}, maxLease=pick.choice(["1h", "12h"]))
        elif pick.random() < 0.5:
            self.story.delete("DataGrant", "previews")
        else:
            self.story.edit("DataGrant", "previews", data=pick.choice(["Masked", "Raw"]))

    def turn_mask(self, pick: random.Random) -> None:
        """The owners change their mask, or it does not do what they meant."""
        world = self.story.world
        if not self.masked:
            return
        if self.find("Job", "data", "shop-mask") is None:
            self.story.mask_job("rows", *pick.choice([(), ("more",)]), suspend=pick.random() < 0.9)
        elif pick.random() < 0.5:
            self.story.delete("Job", "shop-mask")
        elif self.find("DataStore", "data", "shop") is not None:
            self.story.edit("DataStore", "shop", mask=pick.choice([None, {"jobTemplate": "shop-mask"}]))
        fails, hangs = pick.random() < 0.2, pick.random() < 0.3
        world.hanging = lambda pod: hangs
        world.crashing = lambda pod: fails and "-masking-" in pod["metadata"]["name"]

    def replace_store(self, pick: random.Random) -> None:
        del pick
        if self.find("DataStore", "data", "shop") is not None:
            self.story.delete("DataStore", "shop")
        else:
            self.make_store()

    def deploy(self, pick: random.Random) -> None:
        """An app that sleeps with a clone comes, goes, is scaled, or turns to another clone, or to none."""
        namespace, kube = pick.choice(NAMESPACES), self.story.kube
        if not self.lives(namespace):
            return
        if self.find("Deployment", namespace, "web") is None:
            template = {"spec": {"containers": [{"name": "app", "image": "web:1"}]}}
            spec = {"template": template, **pick.choice([{}, {}, {"replicas": 2}])}
            kube.add(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": "web", "namespace": namespace, "annotations": {labels.SLEEP_OPT_IN: "db-0"}},
                    "spec": spec,
                }
            )
            return
        deed = pick.randrange(6)
        if deed == 0:
            kube.remove("Deployment", namespace, "web")
        elif deed == 1:
            kube.scale(namespace, "web", pick.randrange(3), by=pick.choice(["scale", "Update"]))
        else:
            asked = pick.choice([None, *(f"db-{number}" for number in range(3))])
            kube.change("Deployment", namespace, "web", lambda found: self.ask(found, asked))

    @staticmethod
    def ask(deployment: Object, clone: str | None) -> None:
        annotations = deployment["metadata"].setdefault("annotations", {})
        annotations.pop(labels.SLEEP_OPT_IN, None)
        if clone is not None:
            annotations[labels.SLEEP_OPT_IN] = clone

    def end_namespace(self, pick: random.Random) -> None:
        del pick
        if self.lives("app2"):
            self.story.kube.remove_namespace("app2")
        elif self.find("Namespace", None, "app2") is None:
            self.story.world.add_namespace("app2")

    def end_pod(self, pick: random.Random) -> None:
        for found in self.some("Pod", pick):
            if pick.random() < 0.5 and (found.get("status") or {}).get("nodeName"):
                self.story.world.evict(found)
            else:
                self.story.kube.remove(*key_of(found))

    def meddle(self, pick: random.Random) -> None:
        """Somebody deletes what is the operator's, but for what holds a store's data and the key to them."""
        kind = pick.choice(["Secret", "Service", "NetworkPolicy", "PersistentVolumeClaim", "VolumeSnapshot", "Job"])
        for found in self.some(kind, pick):
            if found["metadata"]["labels"].get(labels.OWNER_KIND) != "DataStore":
                self.story.kube.remove(*key_of(found))

    def break_storage(self, pick: random.Random) -> None:
        world = self.story.world
        world.full = pick.random() < 0.3
        world.snapshot_error = "no" if pick.random() < 0.2 else None
        world.broken_images = {"example.com/fake:1.0"} if pick.random() < 0.1 else set()

    def kill(self, pick: random.Random) -> None:
        self.story.kube.crash_after(pick.randrange(1, 8))

    def refuse(self, pick: random.Random) -> None:
        self.story.kube.fail_at(pick.randrange(1, 8), pick.choice(ERRORS))

    def wait(self, pick: random.Random) -> None:
        self.story.world.tick(pick.choice([1, 30, 600, 4000]))

    # -- looking around --

    def find(self, kind: str, namespace: str | None, name: str) -> Object | None:
        found: Object | None = self.story.kube.peek(kind, namespace, name)
        return found

    def lives(self, namespace: str) -> bool:
        found = self.find("Namespace", None, namespace)
        return found is not None and "deletionTimestamp" not in found["metadata"]

    def some(self, kind: str, pick: random.Random) -> list[Object]:
        """Return one object of a kind, if there is any."""
        there = [
            found
            for found in self.story.kube.all(kind)
            if "deletionTimestamp" not in found["metadata"]
            and (
                found["apiVersion"].startswith("coppice.dev") or labels.OWNER_UID in found["metadata"].get("labels", {})
            )
        ]
        return [pick.choice(sorted(there, key=lambda found: str(key_of(found))))] if there else []

    @staticmethod
    def where(found: Object) -> tuple[str, str]:
        return found["metadata"]["name"], found["metadata"]["namespace"]

    # -- time --

    async def go_on(self, pick: random.Random) -> None:
        """Let a few things happen, in any order: moves of the world, and looks of the operator at anything."""
        world, operator = self.story.world, self.story.operator
        for _ in range(pick.randrange(12)):
            world.kube.collect_garbage()
            actions = list(world.actions())
            keys = sorted(operator.due, key=str)
            if actions and pick.random() < 0.6:
                pick.choice(actions).run()
            elif keys:
                await operator.reconcile(pick.choice(keys))
            operator.hear(pick)
            world.tick(0.1)
            self.check()

    def check(self) -> None:
        assert not self.story.world.violations
        claim = self.find("PersistentVolumeClaim", "data", "shop-data")
        if self.committed:
            assert claim is not None, "the store's claim is gone"
            rows = self.story.world.volumes[claim["metadata"]["uid"]].branches["main"].rows
            assert self.committed <= rows, "committed rows are lost"

    async def mend(self) -> None:
        """Put right what is broken in the surroundings; everything else mends itself."""
        world = self.story.world
        world.full, world.snapshot_error, world.broken_images = False, None, set()
        world.hanging = world.crashing = lambda pod: False
        if self.masked:
            if self.find("Job", "data", "shop-mask") is not None:
                self.story.delete("Job", "shop-mask")
            self.story.mask_job("rows")
        self.story.kube._faults.clear()
        for namespace in NAMESPACES:
            self.apply_migration(namespace, "table end: id")
        await self.story.operator.live(minutes=3)
        self.check()
        assert orphans(world) == []

    async def finish(self) -> None:
        await self.mend()
        before = self.story.kube.mutations
        self.story.operator.restart()
        await self.story.operator.run_due()
        assert self.story.kube.mutations == before, "a settled world is written to"
        if self.find("DataStore", "data", "shop") is None:
            self.make_store()
        await self.story.operator.live(minutes=3)
        self.expect_all_well()
        await self.clear()

    def expect_all_well(self) -> None:
        """Everything that can be is Ready, and what is not says why."""
        story = self.story
        story.expect_ready("DataStore", "shop")
        allowed = {
            "Expired",
            "PoweredOff",
            "NotGranted",
            "GrantRevoked",
            "MaskedOnly",
            "SnapshotNotFound",
            "UnknownVersion",
            "CredentialsRefused",
            "SnapshotLost",
            "PreparationFailed",
            "StoreReplaced",
            "BranchLost",
            "SnapshotNotReady",
            "NoSnapshotFits",
            *(("EngineHasNoBranches",) if self.masked or self.branching else ()),
            *(COMMIT_REASONS if self.branching else ()),
        }
        for kind in ("DataClone", "DataSnapshot", "DataBranch"):
            for found in story.kube.all(kind):
                name, namespace = self.where(found)
                reason = story.reason(kind, name, namespace)
                well = story.is_ready(kind, name, namespace) or reason in allowed
                assert well, story.operator.trace(f"{kind} {namespace}/{name} is not well")
                if kind == "DataClone" and story.is_ready(kind, name, namespace):
                    self.expect_migrated(found)

        for found in story.kube.all("Deployment"):
            self.expect_awake(found)

    def expect_awake(self, deployment: Object) -> None:
        """Nobody's Pods are kept away for a clone that is there for them, or not there at all."""
        metadata = deployment["metadata"]
        annotations = metadata.get("annotations") or {}
        asked = annotations.get(labels.SLEEP_OPT_IN)
        clone = None if asked is None else self.find("DataClone", metadata["namespace"], asked)
        if clone is None or self.story.is_ready("DataClone", asked, metadata["namespace"]):
            assert "coppice-scaling" not in {entry["manager"] for entry in metadata["managedFields"]}
        elif self.story.reason("DataClone", asked, metadata["namespace"]) in {"PoweredOff", "Expired"}:
            alone = deployment["spec"]["replicas"] == 1 and labels.ASLEEP_WITH not in annotations
            assert not alone, "an app that nobody scales sleeps with its clone"

    def expect_migrated(self, clone: Object) -> None:
        """What is asked for has run on what the clone's apps see, if it was not to wait for a revision."""
        spec, (name, namespace) = clone["spec"], self.where(clone)
        if "migrations" in spec and spec["onRevision"] != "ResetIfMigrationsChanged":
            volume = self.story.world.volume(namespace, self.story.copy(self.copy_of(clone), name, namespace))
            assert "table end: id" in volume.branches[volume.default_branch].rows

    @staticmethod
    def copy_of(clone: Object) -> int:
        return int(clone["status"]["copy"])

    async def clear(self) -> None:
        """Delete everything, and find nothing."""
        story = self.story
        story.edit("DataStore", "shop", deletionPolicy="Delete")
        for namespace in NAMESPACES:
            if self.find("Job", namespace, "shop-migrate") is not None:
                story.delete("Job", "shop-migrate", namespace)
        await story.settle()
        for kind in ("DataClone", "DataBranch", "DataSnapshot", "DataStore", "DataGrant"):
            for found in story.kube.all(kind):
                if "deletionTimestamp" not in found["metadata"]:
                    story.delete(kind, *self.where(found))
        await story.operator.live(minutes=3)
        for found in story.kube.all("Deployment"):
            self.expect_awake(found)
            story.kube.remove(*key_of(found))
        if self.masked:
            story.delete("Job", "shop-mask")
        # Events go by themselves after an hour.
        kept = [found for found in story.kube.all() if found["metadata"].get("namespace") and found["kind"] != "Event"]
        left = [str(key_of(found)) for found in kept]
        assert left == []
        assert story.names("VolumeSnapshotContent") == []
        assert (story.world.volumes, story.world.snapshots) == ({}, {})


OPERATIONS: tuple[Callable[[Day, random.Random], None], ...] = (
    Day.make_clone,
    Day.make_clone,
    Day.make_clone,
    Day.change_clone,
    Day.migrate,
    Day.reset,
    Day.undo,
    Day.extend,
    Day.delete_something,
    Day.make_snapshot,
    Day.make_branch,
    Day.write,
    Day.write,
    Day.turn_consent,
    Day.replace_store,
    Day.end_namespace,
    Day.end_pod,
    Day.meddle,
    Day.break_storage,
    Day.kill,
    Day.kill,
    Day.refuse,
    Day.wait,
)


async def play(operations: list[tuple[Callable[[Day, random.Random], None], int]], **kind: bool) -> None:
    day = Day(**kind)
    await day.story.settle()
    for operation, seed in operations:
        pick = random.Random(seed)
        operation(day, pick)
        await day.go_on(pick)
    await day.finish()


@settings(
    max_examples=150 if THOROUGH else 6,
    derandomize=not THOROUGH,
)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2**16)), min_size=5, max_size=120 if THOROUGH else 40
    )
)
def test_any_day_ends_in_order(operations):
    asyncio.run(play(operations))


MASKING = (
    *(Day.make_snapshot, Day.make_snapshot, Day.make_clone, Day.turn_mask, Day.turn_mask, Day.write, Day.end_pod),
    *(Day.end_pod, Day.meddle, Day.meddle, Day.delete_something, Day.kill, Day.refuse, Day.wait, Day.replace_store),
)


@pytest.mark.parametrize("seed", range(60 if THOROUGH else 4))
async def test_a_day_with_a_mask_hands_out_no_row_that_it_says_is_masked_and_is_not(seed):
    pick = random.Random(seed)
    await play([(pick.choice(MASKING), pick.randrange(2**16)) for _ in range(40)], masked=True)


BRANCHING = (
    *(Day.make_working_clone, Day.make_working_clone, Day.commit, Day.commit, Day.commit, Day.write, Day.write),
    *(Day.change_clone, Day.reset, Day.undo, Day.delete_something, Day.turn_consent, Day.end_namespace, Day.end_pod),
    *(Day.meddle, Day.break_storage, Day.kill, Day.refuse, Day.wait, Day.replace_store),
)


@pytest.mark.parametrize("seed", range(60 if THOROUGH else 4))
async def test_a_day_with_branches_commits_nothing_that_is_torn_and_leaves_nothing(seed):
    pick = random.Random(seed)
    await play([(pick.choice(BRANCHING), pick.randrange(2**16)) for _ in range(60)], branching=True)


@pytest.mark.parametrize("seed", range(20 if THOROUGH else 1))
async def test_two_hundred_operations_leave_nothing_behind(seed):
    pick = random.Random(seed)
    await play([(pick.choice(OPERATIONS), pick.randrange(2**16)) for _ in range(200)])


SLEEPING = (
    *(Day.make_clone, Day.make_clone, Day.deploy, Day.deploy, Day.deploy, Day.change_clone, Day.change_clone),
    *(Day.extend, Day.delete_something, Day.turn_consent, Day.end_namespace, Day.reset, Day.kill, Day.kill, Day.refuse),
    *(Day.wait, Day.wait),
)


@pytest.mark.parametrize("seed", range(60 if THOROUGH else 4))
async def test_a_day_with_apps_that_sleep_leaves_none_without_pods(seed):
    pick = random.Random(seed)
    await play([(pick.choice(SLEEPING), pick.randrange(2**16)) for _ in range(60)])
