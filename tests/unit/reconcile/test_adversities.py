"""What goes wrong at the worst moment: nothing is lost, nothing runs in circles, and nothing waits for ever in silence."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.fakes.audit import orphans
from tests.fakes.kube import Crash
from tests.fakes.story import begun

from coppice.core import labels
from coppice.core.key import Key
from coppice.engines.base import Activity
from coppice.kube.errors import ForbiddenError

IMAGE = "example.com/fake:1.0"
UNDO = "coppice.dev/undo-requested-at"


def write(shop, *rows):
    server = shop.world.login("data", "db-binding")
    server.volume.write(server.volume.default_branch, *rows)
    server.uses += 1


async def ask(shop, verb):
    shop.world.tick(2)
    shop.annotate("DataClone", "db", **{verb: "now"})
    await shop.settle()


async def _cloned(story):
    story.store()
    await story.settle()
    story.commit("alice")
    story.clone(revision="a", onRevision="Reset")
    await story.settle()
    write(story, "mine")


async def _reset(story):
    await _cloned(story)
    await ask(story, "reset")
    write(story, "newer")


@pytest.fixture
def shop():
    """A clone with a change of its own."""
    return begun(_cloned)


@pytest.fixture
def fresh():
    """The same after a reset, again with a change of its own."""
    return begun(_reset)


def claims(shop):
    return shop.names("PersistentVolumeClaim", "data")


def is_running(shop, pod):
    found = shop.kube.peek("Pod", "data", pod)
    return found is not None and "running" in str(found.get("status"))


# -- undo --


@pytest.mark.parametrize("newer", ["reset", "revision"])
async def test_data_that_an_undo_was_about_to_bring_back_outlive_a_newer_wish(fresh, newer):
    shop = fresh
    shop.world.broken_images = {IMAGE}
    await ask(shop, "undo")
    if newer == "reset":
        await ask(shop, "reset")
    else:
        shop.edit("DataClone", "db", revision="b")
    await shop.operator.live(minutes=2)
    assert {shop.copy(1), shop.copy(2)} <= set(claims(shop))
    shop.world.broken_images = set()
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice"}
    if newer == "reset":
        await ask(shop, "undo")
        assert shop.rows() == {"alice", "mine"}
    await shop.operator.live(hours=1)
    assert len(claims(shop)) == 2
    assert orphans(shop.world) == []


async def test_an_undo_that_does_not_get_there_can_be_undone_however_late(fresh):
    shop = fresh
    shop.world.broken_images = {IMAGE}
    await ask(shop, "undo")
    await shop.operator.live(minutes=40)
    assert not shop.is_ready("DataClone", "db")
    await ask(shop, "undo")
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "newer"}


async def test_an_undo_that_was_asked_for_in_time_is_in_time_for_an_operator_that_was_away(fresh):
    shop = fresh
    await shop.operator.live(minutes=28)
    shop.annotate("DataClone", "db", undo="now")
    shop.world.tick(600)
    shop.operator.restart()
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}


async def test_a_copy_that_no_image_can_serve_does_not_come_back(shop):
    shop.edit("DataStore", "shop", managed={"version": "2.0"})
    await shop.settle()
    shop.commit("bob")
    await ask(shop, "reset")
    shop.operator.settings = {"images": {"fake": {"2.0": "example.com/fake:2.0"}}}
    shop.operator.restart()
    await ask(shop, "undo")
    shop.expect_ready("DataClone", "db")
    found = shop.condition("DataClone", "db", of="RequestAccepted")
    assert found["reason"] == "UndoRefused"
    assert "fake 1.0" in found["message"]
    assert shop.status("DataClone", "db")["copy"] == "2"


async def test_a_full_copy_that_is_brought_back_gets_its_one_new_pod(fresh):
    shop = fresh
    shop.world.tick(2)
    shop.annotate("DataClone", "db", undo="now")
    await shop.operator.until(lambda: is_running(shop, shop.copy(1)))
    shop.world.fill(shop.get("Pod", shop.copy(1)))
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "mine"}


# -- the way to the server --


async def test_apps_keep_their_copy_until_the_service_can_lead_to_the_next(shop):
    shop.world.tick(2)
    shop.annotate("DataClone", "db", reset="now")
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    for _ in range(60):
        await shop.operator.run_due()
        shop.world.turn()
        if is_running(shop, shop.copy(2)):
            shop.kube.change("Pod", "data", shop.copy(2), lambda found: found["status"].update(unready))
        shop.world.tick(0.1)
    assert shop.copy(2) in shop.condition("DataClone", "db")["message"]
    assert shop.reason("DataClone", "db") == "NotRouted"
    assert shop.get("Service", "db")["spec"]["selector"][labels.COPY] == "1"
    assert shop.rows() == {"alice", "mine"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    shop.kube.change("Pod", "data", shop.copy(2), lambda found: found["status"].update(ready))
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice"}


# -- circles --


async def test_a_busy_server_is_not_looked_at_without_end(shop, monkeypatch):
    looks = []

    async def busy(at):
        looks.append(at)
        return Activity(token=str(len(looks)), connections=1)

    monkeypatch.setattr(shop.world.engine, "activity", busy)
    shop.operator.restart()
    for _ in range(120):
        await shop.operator.run_due()
        shop.world.turn()
        shop.world.tick(1)
    assert 6 <= len(looks) <= 40
    used = shop.status("DataClone", "db")["lastActivityAt"]
    assert used >= (shop.world.now - timedelta(seconds=15)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_branch_that_no_snapshot_lists_has_no_snapshots_made_without_end(story):
    story.store()
    await story.settle()
    branches = story.data_of().branches
    branches.update({f"b{number:03}": branches["main"] for number in range(600)})
    story.clone(source={"branch": "b599"})
    await story.operator.live(minutes=2)
    message = story.expect_stalled("DataClone", "db", "BranchNotListed")
    assert branches["main"].head in message
    # The first may have been captured in the very second in which the clone was asked for.
    assert len(story.names("DataSnapshot")) <= 2


# -- people with a text editor --


@pytest.mark.parametrize("text", ["nonsense", "[]", "{}", '{"turn": "x", "at": 3}', None])
@pytest.mark.parametrize("mark", [labels.VERSION, labels.RECALLED])
async def test_no_mark_on_a_claim_keeps_a_clone_beyond_its_grant(story, text, mark):
    story.store()
    story.grant()
    await story.settle()
    story.clone(namespace="app")
    await story.settle()
    claim = story.copy(namespace="app")

    def scribble(found):
        found["metadata"]["annotations"].pop(mark, None)
        found["metadata"]["annotations"].update({} if text is None else {mark: text})

    story.kube.change("PersistentVolumeClaim", "app", claim, scribble)
    await story.settle()
    if mark == labels.VERSION:
        assert claim in story.expect_stalled("DataClone", "db", "MarksLost", "app")
    else:
        story.expect_ready("DataClone", "db", "app")
    story.delete("DataGrant", "previews")
    await story.settle()
    assert story.names("Pod", "app") == []
    story.grant()
    if mark == labels.VERSION:
        story.delete("PersistentVolumeClaim", claim, "app")
    await story.settle()
    story.expect_ready("DataClone", "db", "app")


# -- the end --


@pytest.mark.parametrize("shortened", [False, True])
@pytest.mark.parametrize("obstacle", ["crash", "refusal"])
async def test_a_clone_that_is_half_removed_at_the_end_of_its_lease_does_not_begin_anew(
    shop, monkeypatch, obstacle, shortened
):
    shop.edit("DataClone", "db", lease={"max": "1h" if shortened else "10m"})
    await shop.settle()
    remove = shop.kube.delete

    async def refuse(ref):
        if ref.kind == "Service":
            raise Crash if obstacle == "crash" else ForbiddenError("a webhook says no")
        await remove(ref)

    monkeypatch.setattr(shop.kube, "delete", refuse)
    if shortened:
        shop.world.tick(1200)
        shop.edit("DataClone", "db", lease={"max": "10m"})
    else:
        shop.world.tick(601)
    for _ in range(200):
        await shop.operator.reconcile(Key("DataClone", "data", "db"))
        if shop.operator.crashes:
            break
        shop.world.turn()
        shop.world.tick(1)
    while shop.world.turn():
        shop.world.tick(1)
    assert claims(shop) == ["shop-data"]
    monkeypatch.undo()
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired")
    assert claims(shop) == ["shop-data"]
    await ask(shop, "extend")
    shop.expect_ready("DataClone", "db")


# -- the queue --


async def test_of_clones_that_look_at_the_same_time_no_more_are_let_in_than_there_is_room_for(story):
    story.store()
    await story.settle()
    names = [f"c{number}" for number in range(4)]
    for name in names:
        story.clone(name, namespace="app")
    await story.settle()
    story.grant(maxClones={"total": 2})
    clones = story.operator.reconcilers["DataClone"]
    looks = (clones.observe(story.kube, Key("DataClone", "app", name), story.world.now) for name in names)
    seen = await asyncio.gather(*looks)
    assert sum(observation.place is None for observation in seen) == 2
    await story.operator.live(minutes=5)
    assert sum(story.is_ready("DataClone", name, "app") for name in names) == 2


async def crowd(story, count, *, room):
    """More clones than there is room for, in two namespaces."""
    story.store()
    await story.settle()
    story.world.add_namespace("other")
    story.grant(to={"namespaces": ["app", "other"]}, maxClones={"total": room})
    for number in range(count):
        story.clone(f"c{number:02}", namespace="app" if number % 2 else "other")
        story.world.tick(1)


def looks(story, name, namespace):
    return sum(key == Key("DataClone", namespace, name) for key, _ in story.operator.log.plans)


def queued(story):
    return sum(story.condition("DataClone", *where)["reason"] == "Queued" for where in clones(story))


def clones(story):
    return [(found["metadata"]["name"], found["metadata"]["namespace"]) for found in story.kube.all("DataClone")]


async def test_who_is_far_back_in_the_queue_is_not_woken_by_what_becomes_of_others(story):
    await crowd(story, 30, room=4)
    await story.settle()
    assert queued(story) == 26
    seen = looks(story, "c29", "app")
    for name in ("c00", "c02", "c20", "c27"):
        namespace = "app" if int(name[1:]) % 2 else "other"
        story.kube.change("DataClone", namespace, name, lambda found: found["metadata"].update(labels={"a": "b"}))
        await story.operator.run_due()
    assert looks(story, "c29", "app") == seen


async def test_a_place_that_becomes_free_is_taken_at_once_by_who_comes_next(story):
    await crowd(story, 8, room=4)
    await story.settle()
    story.delete("DataClone", "c01", "app")
    before = story.world.now
    await story.operator.until(lambda: story.condition("DataClone", "c04", "other")["reason"] != "Queued")
    assert (story.world.now - before).total_seconds() < 2
    assert queued(story) == 3


async def test_when_many_places_become_free_all_are_taken_before_long(story):
    await crowd(story, 30, room=10)
    await story.settle()
    for number in range(10):
        story.delete("DataClone", f"c{number:02}", "app" if number % 2 else "other")
    await story.operator.live(minutes=2)
    assert queued(story) == 10
    assert sum(story.is_ready("DataClone", *where) for where in clones(story)) == 10


@pytest.mark.parametrize("why", ["reset", "refresh", "undo"])
async def test_the_server_that_apps_have_is_seen_to_while_another_copy_does_not_come(fresh, why):
    shop = fresh
    shop.world.snapshot_error = "the backend is down"
    if why == "undo":
        shop.world.crashing = lambda pod: pod["metadata"]["name"] == shop.copy(1)
    shop.commit("bob")
    if why == "refresh":
        shop.edit("DataClone", "db", refresh="*/5 * * * *")
        await shop.operator.live(minutes=6)
    else:
        await ask(shop, why)
    assert not shop.is_ready("DataClone", "db")
    shop.world.evict(shop.get("Pod", shop.copy(2)))
    await shop.operator.live(minutes=1)
    assert shop.rows() == {"alice", "newer"}
    shop.edit("DataClone", "db", power="Off")
    await shop.settle()
    assert [name for name in shop.names("Pod", "data") if name != "shop-server"] == []


CHILDREN = ("PersistentVolumeClaim", "Pod", "Secret", "Service")


def take_label(shop, kind, label):
    """Take a label from everything of a kind that was made for the clone; return the names."""
    made = [name for name in shop.names(kind, "data") if name.startswith("db")]
    for name in made:
        shop.kube.change(kind, "data", name, lambda found: found["metadata"]["labels"].pop(label))
    return made


@pytest.mark.parametrize("kind", CHILDREN)
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_says_of_itself_no_more_who_manages_it_is_still_ours(shop, kind, restarted):
    made = take_label(shop, kind, labels.MANAGED_BY)
    if restarted:
        shop.operator.restart()
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db")
    assert [name for name in shop.names(kind, "data") if name.startswith("db")] == made
    await ask(shop, "reset")
    shop.expect_ready("DataClone", "db")


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_server_that_is_to_stop_does_whatever_it_says_of_who_manages_it(shop, restarted):
    take_label(shop, "Pod", labels.MANAGED_BY)
    shop.edit("DataClone", "db", power="Off")
    if restarted:
        shop.operator.restart()
    await shop.operator.live(minutes=10)
    assert [name for name in shop.names("Pod", "data") if name.startswith("db")] == []


@pytest.mark.parametrize("kind", CHILDREN)
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_says_of_itself_no_more_whose_it_is_is_left_alone(shop, kind, restarted):
    taken = take_label(shop, kind, labels.OWNER_UID)
    before = [shop.get(kind, name) for name in taken]
    if restarted:
        shop.operator.restart()
    await shop.operator.live(minutes=10)
    assert [shop.get(kind, name)["metadata"] for name in taken] == [found["metadata"] for found in before]
    if kind == "Pod":
        shop.expect_stalled("DataClone", "db", "NameConflict")
