"""Stories of requests for a live database: compared with what the clone came from, judged, written or handed over."""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta
from itertools import pairwise

import pytest
from tests.fakes.audit import orphans
from tests.fakes.engine import ADMIN, APP, FakeEngine
from tests.fakes.patching import PatchingWorld
from tests.fakes.source import add_secret, add_source, server_of, touched
from tests.fakes.story import Story

from coppice.core import labels
from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.merging import TargetBusyError, TargetMovedError
from coppice.reconcile.changerequest.computations import Patches

OLD, NEW, OTHER = "price/1=4711", "price/1=4712", "price/2=20"
PROTECTED = ({"branches": ["main"], "approvals": 1},)


@functools.cache
def _opened() -> Story:
    story = Story(PatchingWorld())

    async def play() -> None:
        story.policies()
        story.store(protection=PROTECTED)
        story.grant(verbs=["Clone", "Propose"], data="Raw")
        await story.settle()
        story.commit(OLD, OTHER)
        story.clone()
        await story.settle()
        story.world.tick(60)
        write(story)

    asyncio.run(play())
    return story


@pytest.fixture
def story() -> Story:
    return _opened().fork()


def write(story, *rows, clone="db", namespace="data", without=(OLD,)):
    branch = story.world.login(namespace, f"{clone}-binding").volume.branches["main"]
    branch.rows = (branch.rows - set(without)) | set(rows or (NEW,))


def live(story):
    return story.data_of().branches["main"].rows


def reason(story, of, name="fix"):
    return story.condition("DataChangeRequest", name, of=of)["reason"]


def status(story, name="fix"):
    return story.status("DataChangeRequest", name)


# -- what can be proposed --


@pytest.mark.parametrize("wanted", [{}, {"publish": "Rebase"}, {"source": {"revertOf": "other"}}])
async def test_what_has_no_branches_merges_nothing_and_it_is_said_what_to_do(story, wanted):
    story.request(**wanted)
    await story.settle()
    assert "publish: Database or Patch" in story.expect_stalled("DataChangeRequest", "fix", "EngineHasNoMerges")
    assert story.names("DataClone") == ["db"]


@pytest.mark.parametrize("publish", ["Database", "Patch"])
async def test_what_merges_has_no_use_for_it(publish):
    story = Story()
    story.policies()
    story.store()
    story.clone()
    await story.settle()
    story.request(publish=publish)
    await story.settle()
    assert "publish: Branch" in story.expect_stalled("DataChangeRequest", "fix", "EngineMerges")


async def test_what_can_do_neither_is_told_as_before():
    story = Story()
    story.world.engine = FakeEngine()
    story = Story(story.world)
    story.store()
    await story.settle()
    story.request(publish="Database")
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "EngineHasNoMerges")


async def test_the_live_server_is_the_branch_that_it_says(story):
    story.request(into="test", publish="Database")
    await story.settle()
    assert "is branch main" in story.expect_stalled("DataChangeRequest", "fix", "TargetNotFound")


async def test_a_masked_store_is_refused(story):
    story.mask_job()
    story.edit("DataStore", "shop", mask={"jobTemplate": "mask"})
    story.request(publish="Database")
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "MaskedLineage")


async def test_a_clone_next_door_needs_a_grant_and_is_no_preview_here(story):
    story.clone("theirs", namespace="app")
    await story.settle()
    write(story, clone="theirs", namespace="app")
    source = {"clone": {"name": "theirs", "namespace": "app"}}
    story.request(source=source, publish="Database")
    await story.settle()
    assert reason(story, "Approved") == "ApprovalsMissing"
    assert "preview" not in status(story)
    story.edit("DataGrant", "previews", verbs=["Clone"])
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "NotGranted")


async def test_the_clone_is_the_preview_if_one_is_wanted(story):
    story.request(publish="Database")
    story.request("quiet", publish="Database", preview=False)
    await story.settle()
    assert status(story)["preview"] == {"clone": "db", "ready": True}
    assert "preview" not in status(story, "quiet")


async def test_a_clone_that_sleeps_is_waited_for(story):
    story.edit("DataClone", "db", power="Off")
    await story.settle()
    story.request(publish="Database")
    await story.settle()
    assert reason(story, "SourceReady") == "SourceNotReady"
    story.edit("DataClone", "db", power="Auto")
    await story.operator.live(minutes=1)
    assert reason(story, "Approved") == "ApprovalsMissing"


# -- what it is compared with --


async def test_the_scratch_clone_is_of_the_snapshot_that_the_clone_came_from(story):
    story.commit("price/3=30")
    story.request(publish="Database")
    await story.settle()
    scratch, clone = status(story)["scratch"], story.get("DataClone", "db")
    assert story.get("DataClone", scratch)["spec"]["from"]["snapshot"] == clone["status"]["snapshot"]["name"]
    assert story.rows(scratch) == {OLD, OTHER}
    assert status(story)["base"] == clone["status"]["snapshot"]["name"]


async def test_without_that_snapshot_nobody_can_tell_what_has_changed(story):
    snapshot = story.get("DataClone", "db")["status"]["snapshot"]["name"]
    story.delete("DataSnapshot", snapshot)
    await story.settle()
    story.request(publish="Database")
    await story.settle()
    assert snapshot in story.expect_stalled("DataChangeRequest", "fix", "SnapshotGone")


async def test_a_snapshot_that_goes_later_is_not_missed(story):
    story.request(publish="Database")
    await story.settle()
    story.delete("DataSnapshot", story.get("DataClone", "db")["status"]["snapshot"]["name"])
    await story.operator.live(minutes=2)
    story.review()
    await story.operator.live(minutes=1)
    story.expect_ready("DataChangeRequest", "fix")
    assert live(story) == {NEW, OTHER}


async def test_a_clone_that_was_reset_is_compared_with_what_it_is_of_now(story):
    story.request(publish="Database")
    await story.settle()
    story.review()
    story.commit("price/3=30")
    story.edit("DataChangeRequest", "fix", merge="Manual")
    story.annotate("DataClone", "db", reset="now")
    await story.operator.live(minutes=5)
    assert reason(story, "Mergeable") == "NothingToMerge"
    write(story, "price/1=4713")
    await story.operator.live(minutes=2)
    assert reason(story, "Approved") == "ApprovalsMissing"
    assert story.rows(status(story)["scratch"]) == {OLD, OTHER, "price/3=30"}
    assert status(story)["tables"] == [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]


async def test_what_cannot_be_written_is_refused_until_it_is_taken_back(story):
    write(story, "view cheap: 1")
    story.request(publish="Database")
    await story.settle()
    assert "a view differs" in story.expect_stalled("DataChangeRequest", "fix", "Refused")
    compared = story.world.engine.compared
    await story.operator.live(minutes=5)
    assert story.world.engine.compared == compared
    write(story, NEW, without=("view cheap: 1",))
    await story.operator.live(minutes=1)
    assert reason(story, "Approved") == "ApprovalsMissing"


@pytest.mark.parametrize("error", [EngineError("out of memory"), TargetBusyError("busy"), UnreachableError("gone")])
async def test_what_goes_wrong_is_tried_again(story, error):
    errors = [error, error]
    story.world.engine.untold = lambda row: errors.pop() if errors else None
    story.request(publish="Database")
    await story.operator.run_due()
    story.world.turn()
    await story.operator.live(minutes=2)
    assert (errors, reason(story, "Approved")) == ([], "ApprovalsMissing")


async def test_a_comparison_that_takes_long_holds_up_nobody_and_is_made_once(story, monkeypatch):
    monkeypatch.setattr(Patches.__init__, "__kwdefaults__", {"patience": 0.001})
    story = story.fork()
    engine = story.world.engine
    engine.slow, before = asyncio.Event(), engine.compared
    story.request(publish="Database")
    await story.operator.live(minutes=1)
    assert reason(story, "Computed") == "Comparing"
    engine.slow.set()
    await story.operator.live(minutes=1)
    assert (reason(story, "Approved"), engine.compared) == ("ApprovalsMissing", before + 1)


async def test_with_nothing_changed_there_is_nothing_to_merge(story):
    write(story, OLD, without=(NEW,))
    story.request(publish="Database")
    await story.settle()
    assert "change more" in story.expect_stalled("DataChangeRequest", "fix", "NothingToMerge")


# -- the owners' checks --


async def test_the_owners_queries_are_asked_of_what_the_clone_would_bring(story):
    story.edit("DataStore", "shop", protection=[{**PROTECTED[0], "checks": [{"name": "bad", "sql": "price/1=4712"}]}])
    story.request(publish="Database")
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "ChecksFailed")
    assert status(story)["checks"] == [{"name": "bad", "passed": False, "message": "found 1 rows"}]
    write(story, "price/1=4713", without=(NEW,))
    await story.operator.live(minutes=1)
    assert reason(story, "ChecksPassed") == "ChecksPassed"


async def test_a_check_that_is_a_program_is_never_skipped(story):
    story.job("smoke")
    rule = {**PROTECTED[0], "checks": [{"name": "program", "jobTemplate": "smoke"}]}
    story.edit("DataStore", "shop", protection=[rule])
    story.request(publish="Database")
    await story.settle()
    assert "program" in story.expect_stalled("DataChangeRequest", "fix", "CheckNotSupported")
    [told] = status(story)["checks"]
    assert (told["name"], told["passed"]) == ("program", False)
    story.review()
    await story.operator.live(minutes=5)
    assert live(story) == {OLD, OTHER}


# -- the live database --


async def test_nothing_is_compared_judged_or_written_as_administrator(story):
    asked = []
    engine = story.world.engine
    engine.after_call = lambda action: asked.append((action, engine.logins[-1].username))
    story.request(publish="Database")
    await story.settle()
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    told = {user for action, user in asked if action in {"patch", "judge", "write"}}
    assert told == {APP}
    assert ADMIN not in told


@pytest.mark.parametrize(
    ("error", "told", "words", "pause"),
    [
        (TargetBusyError("somebody holds a lock on a table"), "TargetBusy", "holds a lock", 15),
        (TargetMovedError("1 things are not as they were: Lost tea"), "TargetMoved", "Lost tea", 15),
        (EngineError("the server refused it (SQLSTATE 42501)"), "WriteFailed", "42501", 300),
    ],
)
async def test_what_the_live_server_does_not_let_pass_is_said_and_tried_again(story, error, told, words, pause):
    story.request(publish="Database")
    await story.settle()
    errors, tries = [error], []

    def refuse(action):
        if action == "write" and errors:
            tries.append(story.world.now)
            raise error

    story.world.engine.before_call = refuse
    story.review()
    await story.operator.live(minutes=6)
    assert len(tries) > 1
    assert min(later - before for before, later in pairwise(tries)) >= timedelta(seconds=pause)
    assert story.reason("DataChangeRequest", "fix") == told
    assert words in story.condition("DataChangeRequest", "fix")["message"]
    assert live(story) == {OLD, OTHER}
    errors.clear()
    await story.operator.live(minutes=6)
    story.expect_ready("DataChangeRequest", "fix")


async def test_only_when_it_is_due_and_a_maintainer_lets_it(story):
    story.request(publish="Database", merge="Manual", notBefore="2026-03-02T11:00:00Z")
    await story.settle()
    story.review()
    await story.settle()
    assert reason(story, "Published") == "Manual"
    story.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await story.settle()
    assert reason(story, "Published") == "NotBefore"
    await story.operator.live(hours=3)
    story.expect_ready("DataChangeRequest", "fix")


async def test_a_request_that_is_deleted_while_it_is_open_leaves_nothing_behind(story):
    story.request(publish="Database")
    await story.settle()
    story.delete("DataChangeRequest", "fix")
    await story.operator.live(minutes=2)
    assert orphans(story.world) == []
    assert story.names("DataClone") == ["db"]


# -- databases that somebody else runs --


async def adopted(story, *, writer=True, protection=PROTECTED):
    """Return a store whose database is somebody else's, with a clone on which a row was changed."""
    add_source(story, OLD, OTHER)
    server_of(story).volume.users["writer"] = "writers-own"
    if writer:
        add_secret(
            story,
            name="pg-writer",
            store=None,
            consent={labels.WRITER_OF: "shop"},
            username="writer",
            password="writers-own",
        )
    named = {"claimName": "data-pg-0", "service": "pg", "credentialsSecret": "pg-coppice"}
    story.policies()
    story.adopted(
        adopted={**named, **({"writer": {"secretName": "pg-writer"}} if writer else {})}, protection=protection
    )
    await story.settle()
    story.clone()
    await story.settle()
    story.world.tick(60)
    write(story)


def theirs(story):
    return server_of(story).volume.branches["main"].rows


async def test_an_adopted_database_is_written_to_by_its_writer_alone():
    story = Story(PatchingWorld())
    await adopted(story)
    engine, users = story.world.engine, []
    engine.after_call = lambda action: users.append(engine.logins[-1].username) if action == "write" else None
    story.request(publish="Database")
    await story.settle()
    assert theirs(story) == {OLD, OTHER}
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert (theirs(story), users, touched(story)) == ({NEW, OTHER}, ["writer"], [])


ELSEWHERE = ({"branches": ["dev"], "approvals": 0},)


@pytest.mark.parametrize("protection", [(), ELSEWHERE])
async def test_an_adopted_database_takes_an_approval_where_its_owners_have_said_nothing(protection):
    story = Story(PatchingWorld())
    await adopted(story, protection=protection)
    story.request(publish="Database")
    await story.operator.live(minutes=2)
    assert story.reason("DataChangeRequest", "fix") == "ApprovalsMissing"
    assert "0 of 1 approvals" in story.condition("DataChangeRequest", "fix", of="Approved")["message"]
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        for name in story.names(kind):
            story.delete(kind, name)
    story.review()
    await story.settle()
    assert (story.reason("DataChangeRequest", "fix"), theirs(story)) == ("IdentityUnenforced", {OLD, OTHER})
    story.policies()
    story.delete("DataReview", "fix-bob")
    story.delete("DataChangeRequest", "fix")
    await story.settle()
    story.request("again", publish="Database")
    await story.settle()
    story.review("again")
    await story.settle()
    story.expect_ready("DataChangeRequest", "again")
    assert theirs(story) == {NEW, OTHER}


async def test_an_adopted_database_takes_none_where_its_owners_say_so():
    story = Story(PatchingWorld())
    await adopted(story, protection=[{"branches": ["main"], "approvals": 0}])
    story.request(publish="Database")
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")


async def test_what_is_handed_over_takes_no_approval_where_its_owners_have_said_nothing():
    story = Story(PatchingWorld())
    await adopted(story, protection=())
    story.request(publish="Patch")
    await story.settle()
    assert reason(story, "Published") == "HandOver"


async def test_without_a_writer_an_adopted_database_is_not_written_to():
    story = Story(PatchingWorld())
    await adopted(story, writer=False)
    story.request(publish="Database")
    await story.settle()
    assert "spec.adopted.writer" in story.expect_stalled("DataChangeRequest", "fix", "WriterMissing")
    assert "patch" not in status(story)


async def test_without_a_writer_a_patch_is_handed_over_unjudged():
    story = Story(PatchingWorld())
    await adopted(story, writer=False)
    story.request(publish="Patch")
    await story.settle()
    assert story.world.engine.judged == 0
    story.review()
    await story.operator.live(minutes=1)
    assert reason(story, "Published") == "HandOver"
    assert "delete this DataChangeRequest" in story.condition("DataChangeRequest", "fix", of="Published")["message"]
    server_of(story).volume.branches["main"].rows = frozenset({NEW, OTHER})
    await story.operator.live(minutes=2)
    assert reason(story, "Published") == "HandOver"


async def test_a_writer_that_is_taken_back_is_not_used():
    story = Story(PatchingWorld())
    await adopted(story)
    story.request(publish="Database")
    await story.settle()
    story.kube.change("Secret", "data", "pg-writer", lambda found: found["metadata"].pop("annotations"))
    story.review()
    await story.operator.live(minutes=2)
    story.expect_stalled("DataChangeRequest", "fix", "WriterNotMeant")
    assert theirs(story) == {OLD, OTHER}


async def test_what_was_handed_over_is_not_taken_for_what_the_clone_holds_later(story):
    story.request(publish="Patch")
    await story.settle()
    story.review()
    await story.operator.live(minutes=1)
    assert reason(story, "Published") == "HandOver"
    write(story, OLD, without=(NEW,))
    await story.operator.live(minutes=2)
    assert "published" not in status(story)
    assert reason(story, "Mergeable") == "NothingToMerge"


async def test_what_may_have_been_written_is_not_taken_for_what_the_clone_holds_later(story):
    engine = story.world.engine
    engine.fates = lambda name: "Unknown"

    def fail(action):
        if action == "write":
            raise EngineError("the connection was lost")

    engine.between = lambda moment: fail("write")
    story.request(publish="Database")
    await story.settle()
    story.review()
    await story.operator.live(minutes=1)
    assert reason(story, "Published") == "OutcomeUnknown"
    write(story, OLD, without=(NEW,))
    await story.operator.live(minutes=2)
    assert "published" not in status(story)
    assert live(story) == {OLD, OTHER}


@pytest.mark.parametrize("error", [TargetBusyError("locked"), TargetMovedError("Lost tea")])
async def test_a_live_server_that_goes_on_refusing_is_asked_ever_less_often(story, error):
    tries = []

    def refuse(action):
        if action == "write":
            tries.append(story.world.now)
            raise error

    story.world.engine.before_call = refuse
    story.request(publish="Database")
    await story.settle()
    story.review()
    await story.operator.live(minutes=60)
    pauses = [later - before for before, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert timedelta(minutes=5) <= pauses[-1] < timedelta(minutes=6)


async def test_a_store_that_is_away_for_a_moment_changes_nothing_that_was_said(story):
    story.request(publish="Database")
    await story.settle()
    before = status(story)
    story.edit("DataStore", "shop", mask={"jobTemplate": "mask"})
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "MaskedLineage")
    assert status(story).get("preview", before["preview"]) == before["preview"]


@pytest.mark.parametrize(("of", "stops"), [("fix", True), ("other", False)])
async def test_who_asks_for_changes_while_it_is_written_stops_it(story, of, stops):
    story.request(publish="Database")
    await story.settle()
    story.review()

    def veto(action):
        if action == "write":
            spec = {"request": of, "reviewer": "cleo@example.com", "verdict": "RequestChanges"}
            story.add("DataReview", "veto", spec, "data")
            story.world.engine.before_call = lambda action: None

    story.world.engine.before_call = veto
    await story.operator.live(minutes=1)
    assert live(story) == ({OLD, OTHER} if stops else {NEW, OTHER})
    assert reason(story, "Approved") == ("ChangesRequested" if stops else "Published")


async def test_an_approval_that_is_taken_back_while_it_is_written_stops_it(story):
    story.request(publish="Database")
    await story.settle()
    story.review()
    taken = []

    def take_back(action):
        if action == "write":
            taken.extend(story.names("DataReview"))
            for name in story.names("DataReview"):
                story.delete("DataReview", name)

    story.world.engine.before_call = take_back
    await story.operator.live(minutes=1)
    assert taken
    assert live(story) == {OLD, OTHER}
    assert reason(story, "Approved") == "ApprovalsMissing"
