"""What was changed on a clone outlives it on a branch of the store, where its owner has said so beforehand."""

from __future__ import annotations

import pytest
from tests.fakes.source import add_source
from tests.fakes.story import Story, begun

SAID = {"provider": "github", "repository": "acme/shop", "number": 42}
OLD, NEW, LATER = "price/1=4711", "price/2=4712", "price/3=4713"


async def _open(story: Story) -> None:
    """A shop whose data are granted to pull requests, which may propose; number 42 is open."""
    story.policies()
    story.store()
    story.grant(verbs=["Clone", "Propose"])
    found = {"coppice.dev/pull-request": "42"}
    story.kube.change("Namespace", None, "app", lambda one: one["metadata"].update(labels=found))
    story.world.forges.open()
    await story.settle()
    story.commit(OLD)


async def _of_an_engine_without_branches(story: Story) -> None:
    story.world.engine.versioned, story.world.engine.capture_action = False, "flush"
    await _open(story)


@pytest.fixture
def story() -> Story:
    return begun(_open)


@pytest.fixture
def unversioned() -> Story:
    return begun(_of_an_engine_without_branches)


@pytest.fixture(params=["story", "unversioned"])
def either(request) -> Story:
    return request.getfixturevalue(request.param)


@pytest.fixture
def empty() -> Story:
    return Story()


async def cloned(story: Story, **spec) -> None:
    story.clone(namespace="app", **{"onClose": "KeepChanges", "pullRequest": SAID, **spec})
    await story.settle()
    story.expect_ready("DataClone", "db", "app")


def work(story: Story, *rows: str, committed: bool = True) -> None:
    server = story.world.login("app", "db-binding")
    if committed:
        server.volume.commit("main", *server.volume.branches["main"].rows, *rows, at=story.world.now)
    else:
        server.volume.branches["main"].rows |= frozenset(rows)
    story.world.tick(60)


async def close(story: Story, minutes: int = 15) -> None:
    story.world.forges.close()
    await story.operator.live(minutes=minutes)


def kept(story: Story):
    return story.status("DataClone", "db", "app").get("kept")


def told(story: Story) -> tuple[str, str]:
    found = story.condition("DataClone", "db", "app", of="ChangesKept")
    return found["status"], found["reason"]


def branch_rows(story: Story) -> frozenset[str]:
    return story.data_of().branches[kept(story)["branch"]].rows


def leftovers(story: Story):
    kinds = ("Pod", "PersistentVolumeClaim", "Secret", "Service", "NetworkPolicy", "VolumeSnapshot")
    return {kind: names for kind in kinds if (names := story.names(kind, "app"))}


def expect_gone(story: Story) -> None:
    assert story.reason("DataClone", "db", "app") == "PullRequestClosed"
    assert leftovers(story) == {}


# -- an engine that merges --


async def test_what_was_changed_is_on_a_branch_of_the_store_before_the_data_go(story):
    await cloned(story)
    assert told(story) == ("True", "KeptAtTheEnd")
    work(story, NEW)
    await close(story)
    expect_gone(story)
    assert told(story) == ("True", "Kept")
    assert branch_rows(story) == {OLD, NEW}
    assert story.data_of().branches["main"].rows == {OLD}
    comment = story.status("DataClone", "db", "app")["comment"]
    assert (
        f"| Kept | what was changed is on branch `{kept(story)['branch']}`, by DataChangeRequest `kept-db-" in comment
    )


async def test_what_nobody_has_committed_is_kept_as_well(story):
    await cloned(story)
    work(story, NEW, committed=False)
    await close(story)
    expect_gone(story)
    assert branch_rows(story) == {OLD, NEW}


async def test_a_clone_on_which_nothing_was_changed_leaves_nothing(story):
    await cloned(story)
    await close(story)
    expect_gone(story)
    assert told(story) == ("True", "NothingChanged")
    assert story.names("DataBranch") == []
    assert story.names("DataChangeRequest") == []


async def test_one_that_says_nothing_keeps_nothing(story):
    await cloned(story, onClose="Discard")
    work(story, NEW)
    await close(story)
    expect_gone(story)
    assert kept(story) is None
    assert story.names("DataChangeRequest") == []


async def test_a_lease_that_ends_keeps_first_and_the_server_wakes_for_that(story):
    await cloned(story, lease={"max": "1h"})
    work(story, NEW)
    story.edit("DataClone", "db", "app", power="Off")
    await story.operator.live(minutes=75)
    assert story.reason("DataClone", "db", "app") == "Expired"
    assert leftovers(story) == {}
    assert branch_rows(story) == {OLD, NEW}


async def test_a_clone_that_comes_back_and_closes_again_keeps_on_a_branch_of_its_own(story):
    await cloned(story)
    work(story, NEW)
    await close(story)
    first = kept(story)["branch"]
    story.world.forges.open()
    await story.operator.live(minutes=6)
    story.expect_ready("DataClone", "db", "app")
    assert kept(story)["branch"] == first
    work(story, LATER)
    await close(story)
    expect_gone(story)
    assert kept(story)["branch"] != first
    assert branch_rows(story) == {OLD, LATER}
    assert story.data_of().branches[first].rows == {OLD, NEW}


async def test_without_the_verb_propose_it_says_so_from_the_beginning_and_the_data_stay(story):
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await cloned(story)
    assert told(story) == ("False", "NotGranted")
    work(story, NEW)
    await close(story)
    story.expect_ready("DataClone", "db", "app")
    assert story.rows(namespace="app") == {OLD, NEW}
    assert "endedAt" not in story.status("DataClone", "db", "app")["pullRequest"]
    assert "Until then the data stay" in story.condition("DataClone", "db", "app", of="ChangesKept")["message"]
    story.edit("DataGrant", "previews", verbs=["Clone", "Propose"])
    await story.operator.live(minutes=6)
    expect_gone(story)
    assert branch_rows(story) == {OLD, NEW}


async def test_what_cannot_be_kept_goes_once_somebody_says_that_it_may(story):
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await cloned(story)
    work(story, NEW)
    await close(story)
    story.edit("DataClone", "db", "app", onClose="Discard")
    await story.operator.live(minutes=1)
    expect_gone(story)


async def test_a_branch_that_the_owners_protect_is_not_made_and_the_clone_says_which(story):
    story.edit("DataStore", "shop", protection=[{"branches": ["kept-*"], "approvals": 1}])
    await cloned(story)
    work(story, NEW)
    await close(story)
    assert told(story) == ("False", "KeepingStalled")
    assert "spec.protection" in story.condition("DataClone", "db", "app", of="ChangesKept")["message"]
    assert story.rows(namespace="app") == {OLD, NEW}


async def test_masked_rows_have_no_branch_to_go_to(story):
    await cloned(story)
    work(story, NEW)
    story.mask_job("price")
    story.edit("DataStore", "shop", mask={"jobTemplate": "shop-mask"})
    await close(story)
    assert told(story) == ("False", "MaskedLineage")
    assert story.rows(namespace="app") == {OLD, NEW}


async def test_nothing_is_left_in_a_database_that_somebody_else_runs_and_that_is_said_from_the_beginning(empty):
    add_source(empty, OLD)
    empty.policies()
    empty.adopted()
    await empty.settle()
    empty.clone(onClose="KeepChanges")
    await empty.settle()
    empty.expect_ready("DataClone", "db")
    assert empty.condition("DataClone", "db", of="ChangesKept")["reason"] == "StoreNotManaged"


async def test_one_that_is_reopened_meanwhile_keeps_what_comes_later_when_it_closes_again(story):
    await cloned(story)
    work(story, NEW)
    story.world.full = True
    await close(story)
    assert told(story) == ("False", "Keeping")
    story.world.forges.open()
    await story.operator.live(minutes=6)
    story.expect_ready("DataClone", "db", "app")
    assert told(story) == ("True", "KeptAtTheEnd")
    story.world.full = False
    work(story, LATER)
    await close(story)
    expect_gone(story)
    assert branch_rows(story) == {OLD, NEW, LATER}


async def test_what_is_changed_after_it_was_kept_and_reopened_is_kept_the_next_time(story):
    """The pull request is reopened between the moment when all is kept and the one when the data go."""
    await cloned(story)
    work(story, NEW)

    firsts = []

    def reopen(_event, found):
        known = (found.get("status") or {}).get("kept") or {}
        if "finishedAt" in known and not firsts:
            firsts.append(known["branch"])
            story.world.forges.open()

    story.kube.subscribe(reopen)
    await close(story)
    [first] = firsts
    story.expect_ready("DataClone", "db", "app")
    assert told(story) == ("True", "KeptAtTheEnd")
    work(story, LATER)
    await close(story)
    expect_gone(story)
    assert kept(story)["branch"] != first
    assert branch_rows(story) == {OLD, NEW, LATER}


async def test_while_data_wait_to_be_kept_no_copy_takes_their_place(story):
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await cloned(story, refresh="OnHeadChange", lease={"max": "1h"})
    work(story, NEW)
    await story.operator.live(minutes=75)
    assert told(story) == ("False", "NotGranted")
    story.commit(OLD, LATER)
    await story.operator.live(minutes=5)
    assert story.rows(namespace="app") == {OLD, NEW}


async def test_an_idle_clone_that_wakes_to_keep_is_not_used_by_that(story):
    await cloned(story, lease={"idle": "2h"})
    work(story, NEW)
    await story.operator.live(minutes=150)
    assert story.reason("DataClone", "db", "app") == "Expired"
    assert branch_rows(story) == {OLD, NEW}


# -- an engine without branches --


async def test_of_an_engine_without_branches_a_commit_is_kept(unversioned):
    story = unversioned
    await cloned(story, durability="Durable")
    work(story, NEW)
    await close(story)
    expect_gone(story)
    name = kept(story)["snapshot"]
    story.expect_ready("DataSnapshot", name)
    story.clone("again", source={"branch": kept(story)["branch"]})
    await story.settle()
    assert story.rows("again") == {OLD, NEW}


async def test_the_server_of_one_that_is_not_durable_stops_before_it_is_captured(unversioned):
    story = unversioned
    await cloned(story)
    work(story, NEW)
    await close(story)
    expect_gone(story)
    story.clone("again", source={"branch": kept(story)["branch"]})
    await story.settle()
    assert story.rows("again") == {OLD, NEW}


async def test_the_snapshot_that_such_a_clone_came_from_stays_for_that(unversioned):
    story = unversioned
    story.edit("DataStore", "shop", snapshots={"keep": {"last": 1}})
    await cloned(story)
    origin = story.status("DataClone", "db", "app")["snapshot"]["name"]
    work(story, NEW)
    for number in range(3):
        story.commit(OLD, f"more/1={number}")
        story.snapshot(f"later-{number}")
        await story.operator.live(minutes=5)
    assert origin in story.names("DataSnapshot")
    await close(story)
    expect_gone(story)


# -- a clone that is deleted --


def exists(story: Story) -> bool:
    return story.kube.peek("DataClone", "app", "db") is not None


async def test_a_clone_that_is_deleted_goes_once_its_changes_are_kept(either):
    story = either
    await cloned(story)
    work(story, NEW)
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert leftovers(story) == {}
    if story.world.engine.versioned:
        [request] = story.names("DataChangeRequest")
        into = story.get("DataChangeRequest", request)["spec"]["into"]["branch"]
        assert story.data_of().branches[into].rows == {OLD, NEW}
    else:
        [line] = [name for name in story.names("DataSnapshot") if name.startswith("kept-")]
        story.clone("again", source={"branch": line.removesuffix("-1")})
        await story.settle()
        assert story.rows("again") == {OLD, NEW}
    assert "ChangesLost" not in story.events("DataClone", "db")


async def test_one_in_the_stores_own_namespace_is_held_as_well(story):
    story.clone(onClose="KeepChanges")
    await story.settle()
    server = story.world.login("data", "db-binding")
    server.volume.commit("main", OLD, NEW, at=story.world.now)
    story.delete("DataClone", "db")
    await story.operator.live(minutes=5)
    assert story.kube.peek("DataClone", "data", "db") is None
    [request] = story.names("DataChangeRequest")
    into = story.get("DataChangeRequest", request)["spec"]["into"]["branch"]
    assert story.data_of().branches[into].rows == {OLD, NEW}


async def test_one_that_is_deleted_and_cannot_keep_its_changes_stays_until_somebody_decides(story):
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await cloned(story)
    work(story, NEW)
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=5)
    assert told(story) == ("False", "NotGranted")
    assert story.rows(namespace="app") == {OLD, NEW}
    said = [event for key, event in story.operator.log.events if key.name == "db" and event.reason == "NotGranted"]
    assert "Until then this DataClone, and its data, stay" in said[-1].message
    assert "set spec.onClose to Discard" in said[-1].message
    story.edit("DataClone", "db", "app", onClose="Discard")
    await story.operator.live(minutes=1)
    assert not exists(story)
    assert leftovers(story) == {}


async def test_what_the_owners_have_taken_back_is_held_no_longer_than_the_lease(story):
    await cloned(story, lease={"max": "1h"})
    work(story, NEW)
    story.delete("DataGrant", "previews")
    await story.operator.live(minutes=30)
    assert told(story) == ("False", "NotGranted")
    assert story.world.volume("app", story.copy(namespace="app")).branches["main"].rows == {OLD, NEW}
    await story.operator.live(minutes=45)
    assert story.reason("DataClone", "db", "app") == "Expired"
    assert leftovers(story) == {}
    assert told(story) == ("False", "ChangesLost")
    assert "ChangesLost" in story.events("DataClone", "db")


async def test_a_grant_that_is_made_anew_takes_nothing_back(story):
    await cloned(story, lease={"max": "1h"})
    work(story, NEW)
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await story.operator.live(minutes=75)
    assert told(story) == ("False", "NotGranted")
    grant = story.get("DataGrant", "previews")
    story.delete("DataGrant", "previews")
    await story.operator.live(minutes=2)
    story.add("DataGrant", "previews", {**grant["spec"], "verbs": ["Clone", "Propose"]}, "data")
    await story.operator.live(minutes=10)
    assert story.reason("DataClone", "db", "app") == "Expired"
    assert branch_rows(story) == {OLD, NEW}


async def test_a_grant_that_is_taken_away_while_it_is_being_kept_holds_it_until_it_is_back(story):
    await cloned(story)
    work(story, NEW)
    story.world.full = True
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=2)
    story.world.full = False
    grant = story.get("DataGrant", "previews")
    story.delete("DataGrant", "previews")
    await story.operator.live(minutes=10)
    assert told(story) == ("False", "NotGranted")
    assert story.world.volume("app", story.copy(namespace="app")).branches["main"].rows == {OLD, NEW}
    story.add("DataGrant", "previews", grant["spec"], "data")
    await story.operator.live(minutes=15)
    assert not exists(story)
    [request] = story.names("DataChangeRequest")
    into = story.get("DataChangeRequest", request)["spec"]["into"]["branch"]
    assert story.data_of().branches[into].rows == {OLD, NEW}


async def test_one_whose_namespace_goes_is_let_go_and_says_what_is_lost(story):
    await cloned(story)
    work(story, NEW)
    story.kube.remove("Namespace", None, "app")
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert "ChangesLost" in story.events("DataClone", "db")


async def test_one_whose_store_is_gone_is_let_go_and_says_what_is_lost(story):
    await cloned(story)
    work(story, NEW)
    story.delete("DataStore", "shop")
    await story.operator.live(minutes=1)
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert "ChangesLost" in story.events("DataClone", "db")


async def test_one_that_is_deleted_in_the_foreground_keeps_its_changes_too(either):
    """Kubernetes deletes what the clone owns at once, finalizer or not: its data are none of that."""
    story = either
    await cloned(story)
    work(story, NEW)
    story.kube.remove_in_foreground("DataClone", "app", "db")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert leftovers(story) == {}
    assert "ChangesLost" not in story.events("DataClone", "db")
    if story.world.engine.versioned:
        [request] = story.names("DataChangeRequest")
        into = story.get("DataChangeRequest", request)["spec"]["into"]["branch"]
        assert story.data_of().branches[into].rows == {OLD, NEW}


async def test_the_garbage_collector_may_come_when_the_server_is_stopped_already(unversioned):
    story = unversioned
    await cloned(story)
    work(story, NEW)
    seen = []

    def collect(_event, found):
        if found["kind"] == "DataSnapshot" and found["metadata"]["name"].startswith("kept-") and not seen:
            seen.append(found)
            story.kube.remove_in_foreground("DataClone", "app", "db")

    story.kube.subscribe(collect)
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=10)
    assert seen
    assert not exists(story)
    assert leftovers(story) == {}
    [line] = [name for name in story.names("DataSnapshot") if name.startswith("kept-")]
    story.clone("again", source={"branch": line.removesuffix("-1")})
    await story.settle()
    assert story.rows("again") == {OLD, NEW}


@pytest.mark.parametrize("after", ["KeepChanges", "Discard"])
async def test_what_was_taken_from_the_garbage_collector_goes_whatever_is_said_later(story, after):
    await cloned(story, onClose="Discard")
    story.edit("DataClone", "db", "app", onClose="KeepChanges")
    await story.settle()
    claim = story.get("PersistentVolumeClaim", story.copy(namespace="app"), "app")
    assert "ownerReferences" not in claim["metadata"]
    story.edit("DataClone", "db", "app", onClose=after)
    await story.settle()
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert leftovers(story) == {}


async def test_one_whose_volume_somebody_deletes_says_what_is_lost(story):
    await cloned(story)
    work(story, NEW)
    story.delete("DataClone", "db", "app")
    story.delete("PersistentVolumeClaim", story.copy(namespace="app"), "app")
    story.delete("Pod", story.copy(namespace="app"), "app")
    await story.operator.live(minutes=5)
    assert not exists(story)
    assert "ChangesLost" in story.events("DataClone", "db")


async def test_one_that_has_kept_its_changes_already_goes_at_once(story):
    await cloned(story)
    work(story, NEW)
    await close(story)
    story.delete("DataClone", "db", "app")
    await story.settle()
    assert not exists(story)
    assert len(story.names("DataChangeRequest")) == 1
    assert "ChangesLost" not in story.events("DataClone", "db")
