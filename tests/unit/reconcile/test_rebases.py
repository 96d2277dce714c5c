"""Stories of rebases: a clone is brought up to its parent, keeps what it has, and nobody else is changed."""

from __future__ import annotations

import pytest
from tests.fakes.kube import Crash
from tests.fakes.merging import FETCHER
from tests.fakes.story import Story, begun

AUTHOR = "anna@example.com"
OLD, MINE, THEIRS, OTHER = "price/1=4711", "price/1=4712", "price/1=4713", "price/2=20"
PROTECTED = ({"branches": ["main"], "approvals": 2, "checks": [{"name": "none", "sql": "price/"}]},)


async def _with_clone(story: Story) -> None:
    story.policies()
    story.store(protection=PROTECTED)
    story.grant(verbs=["Clone", "Propose"], data="Raw")
    await story.settle()
    story.commit(OLD)
    story.clone()
    story.clone("far", namespace="app")
    await story.settle()
    story.world.tick(60)


@pytest.fixture
def story() -> Story:
    return begun(_with_clone)


def clone_of(story, clone="db", namespace="data"):
    return story.world.login(namespace, f"{clone}-binding").volume


def rows(story, clone="db", namespace="data"):
    return clone_of(story, clone, namespace).branches["main"].rows


def write(story, *rows, clone="db", namespace="data", without=(OLD,)):
    """Change rows through an app that is bound to a clone, and commit nothing."""
    branch = clone_of(story, clone, namespace).branches["main"]
    branch.rows = (branch.rows - set(without)) | set(rows)


def writes_without_pause(story):
    """Have an app write a row at once after each commit of what it wrote before."""

    def written(action):
        if action == "commit-work":
            write(story, f"price/{100 + story.world.engine.calls.count(action)}=1", without=())

    story.world.engine.after_call = written
    write(story, MINE)


def change_main(story, *rows, without=(OLD,)):
    story.data_of().branches["main"].rows -= set(without)
    return story.commit(*rows)


def rebase(story, name="up", clone=None, **spec):
    source = {"clone": clone or {"name": "db"}}
    story.request(name, source=source, publish="Rebase", **spec)


def reason(story, of, name="up"):
    return story.condition("DataChangeRequest", name, of=of)["reason"]


def published(story, name="up"):
    return story.status("DataChangeRequest", name)["published"]


async def test_a_clone_comes_up_to_its_parent_and_keeps_its_own_changes(story):
    write(story, MINE)
    head = change_main(story, OTHER, without=())
    rebase(story)
    await story.settle()
    story.expect_ready("DataChangeRequest", "up")
    assert rows(story) == {MINE, OTHER}
    assert story.data_of().branches["main"].head == head
    assert story.data_of().branches["main"].rows == {OLD, OTHER}
    volume, said = clone_of(story), published(story)
    made = volume.commits[volume.branches["main"].head]
    assert said["commit"] == volume.branches["main"].head
    assert (made.parent, made.other) == (head, said["before"])
    assert volume.commits[said["before"]].author == f"{AUTHOR} <{AUTHOR}>"
    assert (volume.tags[said["tag"]], volume.tags[f"{said['tag']}/before"]) == (said["commit"], said["before"])
    assert story.data_of().tags == {}
    assert set(story.names("NetworkPolicy", "data")) == {"db", "shop"}


async def test_what_comes_afterwards_is_proposed_as_its_own_changes_alone(story):
    write(story, MINE)
    change_main(story, OTHER, without=())
    rebase(story)
    await story.settle()
    story.request()
    await story.settle()
    tables = [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]
    assert story.status("DataChangeRequest", "fix")["tables"] == tables


async def test_a_clone_without_changes_of_its_own_becomes_its_parent(story):
    head = change_main(story, OTHER)
    rebase(story)
    await story.settle()
    story.expect_ready("DataChangeRequest", "up")
    assert clone_of(story).branches["main"].head == head
    assert rows(story) == {OTHER}


async def test_where_the_parent_has_nothing_new_the_clone_stays_as_it_is(story):
    write(story, MINE)
    rebase(story)
    await story.settle()
    assert "has all of branch main" in story.expect_stalled("DataChangeRequest", "up", "NothingToMerge")
    assert rows(story) == {MINE}


@pytest.mark.parametrize(("take", "wins"), [("Source", MINE), ("Target", THEIRS)])
async def test_a_conflict_waits_for_a_decision_and_until_then_the_clone_stays_as_it_is(story, take, wins):
    write(story, MINE)
    change_main(story, THEIRS)
    rebase(story)
    await story.settle()
    assert story.reason("DataChangeRequest", "up") == "Conflicts"
    [conflict] = story.status("DataChangeRequest", "up")["conflicts"]["listed"]
    assert (conflict["kind"], conflict["table"]) == ("Cell", "price")
    assert rows(story) == {MINE}

    story.edit("DataChangeRequest", "up", resolutions=[{"conflict": conflict["id"], "take": take}])
    await story.settle()
    story.expect_ready("DataChangeRequest", "up")
    assert rows(story) == {wins}


async def test_what_an_app_writes_at_the_last_moment_is_kept(story):
    write(story, MINE)
    change_main(story, OTHER, without=())

    def written(action):
        if action == "fast-forward":
            story.world.engine.before_call = lambda action: None
            write(story, "price/3=30", without=())

    story.world.engine.before_call = written
    rebase(story)
    await story.operator.live(minutes=2)
    story.expect_ready("DataChangeRequest", "up")
    assert rows(story) == {MINE, OTHER, "price/3=30"}


@pytest.mark.parametrize(
    "action", ["commit-work", "create-tag", "offer", "ensure-fetch-user", "fast-forward", "drop-fetch-user"]
)
async def test_wherever_it_is_interrupted_it_happens_once_and_whole(story, action):
    write(story, MINE)
    change_main(story, OTHER, without=())
    crashed = []

    def killed(done):
        before = rows(story)
        assert before in ({MINE}, {MINE, OTHER})
        if done == action and not crashed:
            crashed.append(done)
            raise Crash

    story.world.engine.after_call = killed
    rebase(story)
    await story.operator.live(minutes=2)
    assert crashed
    story.expect_ready("DataChangeRequest", "up")
    volume = clone_of(story)
    assert rows(story) == {MINE, OTHER}
    assert volume.branches["main"].head == published(story)["commit"]
    assert volume.commits[published(story)["before"]].rows == {MINE}


async def test_what_is_written_without_pause_is_committed_with_pauses_and_a_rebase_waits_for_one(story):
    writes_without_pause(story)
    change_main(story, OTHER, without=())
    rebase(story)
    await story.operator.live(minutes=2)
    assert 4 <= story.world.engine.calls.count("commit-work") <= 6
    assert story.condition("DataChangeRequest", "up", of="SourceReady")["reason"] == "FoundInPart"
    assert story.reason("DataChangeRequest", "up") == "TargetMoved"
    story.world.engine.after_call = lambda action: None
    await story.operator.live(minutes=1)
    story.expect_ready("DataChangeRequest", "up")
    assert {OTHER, "price/101=1", "price/103=1"} <= rows(story)


async def test_a_clone_that_was_reset_meanwhile_is_rebased_as_it_is_then(story):
    write(story, MINE)
    change_main(story, THEIRS)
    rebase(story)
    await story.settle()
    assert story.reason("DataChangeRequest", "up") == "Conflicts"
    story.annotate("DataClone", "db", reset="now")
    await story.operator.live(minutes=5)
    assert rows(story) == {THEIRS}
    story.expect_stalled("DataChangeRequest", "up", "NothingToMerge")
    write(story, OTHER, without=())
    change_main(story, "price/3=30", without=())
    await story.operator.live(minutes=2)
    story.expect_ready("DataChangeRequest", "up")
    assert rows(story) == {THEIRS, OTHER, "price/3=30"}


async def test_a_clone_of_another_namespace_takes_its_owners_word_and_a_grant_of_raw_data(story):
    far = {"name": "far", "namespace": "app"}
    write(story, MINE, clone="far", namespace="app")
    change_main(story, OTHER, without=())
    rebase(story, clone=far)
    await story.settle()
    story.expect_ready("DataChangeRequest", "up")
    assert rows(story, "far", "app") == {MINE, OTHER}
    assert story.names("NetworkPolicy", "app") == ["far"]

    change_main(story, THEIRS)
    for policy in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        for name in story.names(policy):
            story.delete(policy, name)
    rebase(story, "again", clone=far)
    await story.settle()
    story.expect_stalled("DataChangeRequest", "again", "IdentityUnenforced")
    assert THEIRS not in rows(story, "far", "app")


async def test_no_rows_are_brought_where_no_grant_gives_them_as_they_are_any_more(story):
    story.edit("DataGrant", "previews", data="Masked")
    change_main(story, OTHER)
    rebase(story, clone={"name": "far", "namespace": "app"})
    await story.settle()
    assert "raw data" in story.expect_stalled("DataChangeRequest", "up", "NotGranted")
    assert "fast-forward" not in story.world.engine.calls


@pytest.mark.parametrize("masked", [True, False])
async def test_a_grant_that_goes_in_the_middle_takes_the_way_to_the_rows_with_it(story, masked):
    def written(action):
        if action == "fast-forward":
            story.world.engine.before_call = lambda action: None
            write(story, "price/3=30", without=(), clone="far", namespace="app")
            if masked:
                story.edit("DataGrant", "previews", data="Masked")
            else:
                story.delete("DataGrant", "previews")

    write(story, MINE, clone="far", namespace="app")
    change_main(story, OTHER, without=())
    story.world.engine.before_call = written
    rebase(story, clone={"name": "far", "namespace": "app"})
    await story.operator.live(minutes=3)
    assert story.reason("DataChangeRequest", "up") == "NotGranted"
    assert story.names("NetworkPolicy", "app") == ["far"]
    assert not [server for server in story.world.engine.servers.values() if FETCHER in server.volume.users]


async def test_a_rebase_is_not_taken_back_by_a_request(story):
    change_main(story, OTHER)
    rebase(story)
    await story.settle()
    story.request("back", source={"revertOf": "up"})
    await story.settle()
    assert "changed a clone alone" in story.expect_stalled("DataChangeRequest", "back", "NotPublished")
