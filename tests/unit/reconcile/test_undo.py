"""Undo of a reset: the old copy serves again with its data, the newer one waits in its place, and a refusal says why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.audit import orphans
from tests.fakes.story import begun

from coppice.core.conditions import timestamp

RESET = "coppice.dev/reset-requested-at"
UNDO = "coppice.dev/undo-requested-at"


def write(shop, *rows, namespace="data"):
    server = shop.world.login(namespace, "db-binding")
    server.volume.write(server.volume.default_branch, *rows)
    server.uses += 1


async def ask(shop, verb, namespace="data"):
    shop.world.tick(2)
    shop.annotate("DataClone", "db", namespace, **{verb: "now"})
    await shop.settle()


async def cloned(story):
    story.store()
    await story.settle()
    story.commit("alice")
    story.clone()
    await story.settle()
    write(story, "mine")


@pytest.fixture
def shop():
    """A clone with a change of its own."""
    return begun(cloned)


async def reset(story):
    await cloned(story)
    story.commit("bob")
    await ask(story, "reset")
    assert story.rows() == {"alice", "bob"}


@pytest.fixture
def fresh():
    """The same after a reset to a source that has moved."""
    return begun(reset)


def refusal(shop, reason, namespace="data"):
    """Return the words of a refused undo, and see that nothing else is said or done."""
    shop.expect_ready("DataClone", "db", namespace)
    found = shop.condition("DataClone", "db", namespace, of="RequestAccepted")
    assert (found["status"], found["reason"]) == ("False", reason)
    asked = shop.get("DataClone", "db", namespace)["metadata"]["annotations"][UNDO]
    assert asked in found["message"]
    assert shop.status("DataClone", "db", namespace)["handled"]["undoRequestedAt"] == asked
    assert shop.events("DataClone", "db").count(reason) == 1
    return found["message"]


async def test_the_old_copy_serves_again_under_the_same_names_and_the_newer_one_is_kept(fresh):
    shop, secret = fresh, fresh.get("Secret", "db-binding")["data"]
    write(shop, "newer")
    await ask(shop, "undo")
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "mine"}
    assert shop.get("Secret", "db-binding")["data"] == secret
    status = shop.status("DataClone", "db")
    assert (status["copy"], status["previous"]["copy"]) == ("1", "2")
    annotations = shop.get("DataClone", "db")["metadata"]["annotations"]
    assert status["handled"] == {"resetRequestedAt": annotations[RESET], "undoRequestedAt": annotations[UNDO]}
    assert shop.names("Pod", "data") == sorted(["shop-server", shop.copy(1)], key=shop.names("Pod", "data").index)
    assert shop.events("DataClone", "db").count("Undoing") == 1
    await shop.operator.live(minutes=29)
    assert shop.copy(2) in shop.names("PersistentVolumeClaim"), "its own undo window has begun with the undo"
    await shop.operator.live(minutes=3)
    assert shop.copy(2) not in shop.names("PersistentVolumeClaim")
    assert shop.rows() == {"alice", "mine"}


async def test_an_undo_is_undone(fresh):
    shop = fresh
    write(shop, "newer")
    await ask(shop, "undo")
    await ask(shop, "undo")
    assert shop.rows() == {"alice", "bob", "newer"}
    status = shop.status("DataClone", "db")
    assert (status["copy"], status["previous"]["copy"]) == ("2", "1")
    await ask(shop, "undo")
    assert shop.rows() == {"alice", "mine"}


async def test_an_undo_is_done_once_whatever_the_operator_forgets(fresh):
    shop = fresh
    await ask(shop, "undo")
    before = len(shop.world.writes)
    shop.operator.restart()
    await shop.settle()
    assert len(shop.world.writes) == before
    shop.kube.change("DataClone", "data", "db", lambda found: found.update(status={}))
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    assert "RequestAccepted" not in str(shop.status("DataClone", "db"))


async def test_a_reset_after_an_undo_makes_a_new_copy_and_keeps_the_one_that_served(fresh):
    shop = fresh
    await ask(shop, "undo")
    await ask(shop, "reset")
    assert shop.rows() == {"alice", "bob"}
    status = shop.status("DataClone", "db")
    assert (status["copy"], status["previous"]["copy"]) == ("4", "1")
    assert len(shop.names("PersistentVolumeClaim")) == 3
    await ask(shop, "undo")
    assert shop.rows() == {"alice", "mine"}


async def test_after_the_window_an_undo_is_refused_and_stays_so(fresh):
    shop = fresh
    await shop.operator.live(minutes=31)
    await ask(shop, "undo")
    assert "30m" in refusal(shop, "NothingToUndo")
    await shop.operator.live(minutes=5)
    refusal(shop, "NothingToUndo")
    await ask(shop, "reset")
    assert shop.status("DataClone", "db")["copy"] == "3", "a refused undo does not come back when there is something"
    await shop.operator.live(minutes=5)
    assert shop.status("DataClone", "db")["copy"] == "3"


async def test_however_long_a_reset_takes_the_window_is_whole(shop):
    shop.commit("bob")
    shop.world.broken_images = {"example.com/fake:1.0"}
    await ask(shop, "reset")
    await shop.operator.live(minutes=45)  # the window is half an hour
    shop.world.broken_images = set()
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "bob"}
    await shop.operator.live(minutes=15)
    await ask(shop, "undo")
    assert shop.rows() == {"alice", "mine"}


async def test_without_a_reset_there_is_nothing_to_undo_and_nothing_changes(shop):
    before = {found["metadata"]["name"]: found for found in shop.kube.all("PersistentVolumeClaim", "data")}
    await ask(shop, "undo")
    refusal(shop, "NothingToUndo")
    assert {found["metadata"]["name"]: found for found in shop.kube.all("PersistentVolumeClaim", "data")} == before
    assert shop.rows() == {"alice", "mine"}
    await ask(shop, "undo")
    assert shop.events("DataClone", "db").count("NothingToUndo") == 2, "another request is another answer"
    shop.kube.change("DataClone", "data", "db", lambda found: found["metadata"]["annotations"].pop(UNDO))
    await shop.settle()
    assert "RequestAccepted" not in str(shop.status("DataClone", "db"))


async def test_the_copy_before_a_new_revision_is_not_kept(story):
    story.store()
    await story.settle()
    story.clone(revision="a", onRevision="Reset")
    await story.settle()
    story.edit("DataClone", "db", revision="b")
    await story.settle()
    await ask(story, "undo")
    refusal(story, "NothingToUndo")


async def test_an_undo_is_no_new_revision(story):
    story.store()
    await story.settle()
    story.clone(revision="a", onRevision="Reset")
    await story.settle()
    write(story, "mine")
    await ask(story, "reset")
    await ask(story, "undo")
    assert story.rows() == {"mine"}
    story.edit("DataClone", "db", revision="b")
    await story.settle()
    assert story.rows() == frozenset()


async def test_a_reset_that_cannot_begin_is_called_off(shop):
    shop.delete("DataStore", "shop")
    await ask(shop, "reset")
    shop.expect_stalled("DataClone", "db", "StoreNotFound")
    await ask(shop, "undo")
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "mine"}
    assert shop.status("DataClone", "db")["copy"] == "1"
    shop.store()
    await shop.operator.live(minutes=5)
    assert shop.rows() == {"alice", "mine"}


@pytest.mark.parametrize("obstacle", ["image", "room"])
async def test_a_reset_on_its_way_is_called_off_without_touching_the_server_that_serves(shop, obstacle):
    pod = shop.get("Pod", shop.copy())["metadata"]["uid"]
    shop.world.full = obstacle == "room"
    shop.world.broken_images = {"example.com/fake:1.0"} if obstacle == "image" else set()
    await ask(shop, "reset")
    assert shop.copy(2) in shop.names("PersistentVolumeClaim")
    await shop.operator.live(hours=1)
    await ask(shop, "undo")
    shop.expect_ready("DataClone", "db")
    assert shop.get("Pod", shop.copy())["metadata"]["uid"] == pod
    assert shop.rows() == {"alice", "mine"}
    assert shop.copy(2) not in shop.names("PersistentVolumeClaim"), "nobody was ever told of it"
    await ask(shop, "undo")
    refusal(shop, "NothingToUndo")


async def test_a_clone_in_another_namespace(story):
    story.store()
    story.grant()
    await story.settle()
    story.clone(namespace="app")
    await story.settle()
    write(story, "mine", namespace="app")
    await ask(story, "reset", "app")
    assert story.rows(namespace="app") == frozenset()
    story.delete("DataGrant", "previews")
    await ask(story, "undo", "app")
    story.expect_stalled("DataClone", "db", "GrantRevoked", "app")
    assert "undoRequestedAt" not in story.status("DataClone", "db", "app")["handled"]
    story.grant()
    await story.settle()
    assert story.rows(namespace="app") == {"mine"}
    assert orphans(story.world) == []


async def test_a_copy_that_the_grant_gives_no_more_does_not_come_back(story):
    story.store()
    story.grant()
    await story.settle()
    story.clone(namespace="app")
    await story.settle()
    await ask(story, "reset", "app")

    def masked(claim):
        annotations = claim["metadata"]["annotations"]
        annotations["coppice.dev/version"] = annotations["coppice.dev/version"].replace("false", "true")

    story.kube.change("PersistentVolumeClaim", "app", story.copy(2, namespace="app"), masked)
    story.edit("DataGrant", "previews", data="Masked")
    await ask(story, "undo", "app")
    assert "previews" in refusal(story, "UndoRefused", "app")
    assert story.status("DataClone", "db", "app")["copy"] == "2"


async def test_a_copy_whose_credentials_are_lost_does_not_come_back(shop):
    name = next(name for name in shop.names("Secret") if name.endswith("-engine"))
    shop.delete("Secret", name)
    await shop.operator.live(minutes=2)
    await ask(shop, "reset")
    shop.expect_ready("DataClone", "db")
    await ask(shop, "undo")
    assert name in refusal(shop, "UndoRefused")
    assert shop.rows() == {"alice"}


async def test_a_clone_that_follows_its_branch_would_lose_it_at_once(fresh):
    shop = fresh
    shop.edit("DataClone", "db", refresh="OnHeadChange")
    await ask(shop, "undo")
    assert "spec.refresh" in refusal(shop, "UndoRefused")
    shop.edit("DataClone", "db", refresh="Never")
    await ask(shop, "undo")
    assert shop.rows() == {"alice", "mine"}
    assert "RequestAccepted" not in str(shop.status("DataClone", "db"))


async def test_what_is_brought_back_stays_until_the_next_time_of_a_schedule(fresh):
    shop = fresh
    shop.edit("DataClone", "db", refresh="0 * * * *")
    await ask(shop, "undo")
    await shop.operator.live(minutes=20)
    assert shop.rows() == {"alice", "mine"}
    await shop.operator.live(minutes=50)
    assert shop.rows() == {"alice", "bob"}


async def test_an_undo_in_the_future_waits_for_its_time(fresh):
    shop = fresh
    shop.annotate("DataClone", "db", undo=timestamp(shop.world.now + timedelta(minutes=10)))
    await shop.operator.live(minutes=5)
    assert shop.status("DataClone", "db")["copy"] == "2"
    await shop.operator.live(minutes=7)
    assert shop.rows() == {"alice", "mine"}


async def test_an_undo_while_the_server_is_off_is_seen_when_it_is_on(fresh):
    shop = fresh
    shop.edit("DataClone", "db", power="Off")
    await shop.settle()
    await ask(shop, "undo")
    assert shop.reason("DataClone", "db") == "PoweredOff"
    await shop.operator.live(hours=2)
    shop.edit("DataClone", "db", power="On")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}


async def test_an_undo_counts_as_use(fresh):
    shop = fresh
    shop.edit("DataClone", "db", lease={"idle": "20m", "max": "1d"})
    await shop.operator.live(minutes=15)
    await ask(shop, "undo")
    await shop.operator.live(minutes=15)
    shop.expect_ready("DataClone", "db")


async def test_an_undo_of_an_expired_clone_is_refused_when_it_is_back(fresh):
    shop = fresh
    shop.edit("DataClone", "db", lease={"max": "10m"})
    await shop.operator.live(minutes=20)
    await ask(shop, "undo")
    shop.expect_stalled("DataClone", "db", "Expired")
    assert shop.condition("DataClone", "db", of="RequestAccepted")["reason"] == "NothingToUndo"
    await ask(shop, "extend")
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "bob"}


@dataclass
class Model:
    """What a user knows of a clone: the mark of the copy that serves, and of the one before, with its end."""

    serves: str = "copy-0"
    before: tuple[str, datetime] | None = None
    copies: int = 0

    def reset(self, now: datetime) -> None:
        self.copies += 1
        self.before = (self.serves, now + timedelta(minutes=30))
        self.serves = f"copy-{self.copies}"

    def undo(self, now: datetime) -> bool:
        if self.before is None or now >= self.before[1]:
            return False
        self.serves, self.before = self.before[0], (self.serves, now + timedelta(minutes=30))
        return True


async def for_ever(story):
    story.store()
    await story.settle()
    story.clone(lease={"max": "Never"})
    await story.settle()


async def play(shop, steps):
    model = Model()
    for step in steps:
        if not shop.rows():
            write(shop, model.serves)
        if step == "kill":
            shop.kube.crash_after(2)
        elif step == "wait":
            await shop.operator.live(minutes=12)
        elif step == "reset":
            model.reset(shop.world.now)
            await ask(shop, "reset")
            assert shop.rows() == frozenset()
        else:
            done = model.undo(shop.world.now)
            await ask(shop, "undo")
            assert shop.rows() == {model.serves}
            assert ("NothingToUndo" in str(shop.status("DataClone", "db"))) is not done
        shop.expect_ready("DataClone", "db")
    assert orphans(shop.world) == []


@settings(max_examples=12, derandomize=True)
@given(st.lists(st.sampled_from(["reset", "undo", "undo", "wait", "kill"]), min_size=2, max_size=12))
def test_resets_and_undos_in_any_order_serve_what_a_user_expects(steps):
    asyncio.run(play(begun(for_ever, idle=None), steps))
