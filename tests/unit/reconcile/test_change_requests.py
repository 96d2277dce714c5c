"""Stories of change requests: proposed, computed, reviewed, published, and taken back."""

import json

import pytest
from tests.fakes.audit import orphans
from tests.fakes.engine import Commit, FakeEngine
from tests.fakes.merging import change_set
from tests.fakes.story import Story, begun

from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.digests import sealed
from coppice.manifests.admission import build_policies
from coppice.manifests.secret import read_secret

AUTHOR, REVIEWER = "anna@example.com", "bob@example.com"
OLD, NEW, OTHER = "price/1=4711", "price/1=4712", "price/2=20"
PROTECTED = ({"branches": ["main"], "approvals": 1},)


async def _with_clone(story: Story) -> None:
    story.policies()
    story.store(protection=PROTECTED)
    story.grant(verbs=["Clone", "Propose"])
    await story.settle()
    story.commit(OLD, OTHER)
    story.clone()
    await story.settle()
    story.world.tick(60)


async def _with_proposal(story: Story) -> None:
    await _with_clone(story)
    write(story)
    story.request()
    await story.settle()
    story.world.tick(5)


async def _with_publication(story: Story) -> None:
    await _with_proposal(story)
    story.review()
    await story.settle()
    story.world.tick(5)


async def _with_conflict(story: Story) -> None:
    await _with_clone(story)
    write(story)
    change_main(story, "price/1=4713")
    story.request()
    await story.settle()
    story.world.tick(5)


@pytest.fixture
def story() -> Story:
    return begun(_with_clone)


@pytest.fixture
def proposed() -> Story:
    return begun(_with_proposal)


@pytest.fixture
def published() -> Story:
    return begun(_with_publication)


@pytest.fixture
def conflicting() -> Story:
    return begun(_with_conflict)


def write(story, *rows, clone="db", namespace="data", without=(OLD,)):
    """Change rows through an app that is bound to a clone, and commit nothing."""
    branch = story.world.login(namespace, f"{clone}-binding").volume.branches["main"]
    branch.rows = (branch.rows - set(without)) | set(rows or (NEW,))


def write_and_commit(story, *rows, clone="db", namespace="data", without=(OLD,)):
    """Change rows of a clone and commit them, as ``coppice commit`` does."""
    write(story, *rows, clone=clone, namespace=namespace, without=without)
    story.world.login(namespace, f"{clone}-binding").volume.commit("main", at=story.world.now)


def change_main(story, *rows, without=(OLD,), branch="main"):
    """Change the target behind the request's back, as another request would."""
    found = story.data_of().branches[branch]
    found.rows -= set(without)
    return story.commit(*rows, branch=branch)


def main(story):
    return story.data_of().branches["main"]


def reason(story, of, name="fix"):
    return story.condition("DataChangeRequest", name, of=of)["reason"]


def status(story, name="fix"):
    return story.status("DataChangeRequest", name)


def scratch(story, name="fix"):
    return status(story, name)["preview"]["clone"]


# -- the whole way --


async def test_what_is_on_a_clone_is_proposed_and_waits_for_somebody_to_approve(proposed):
    found = status(proposed)
    assert found["tables"] == [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]
    assert found["target"] == {"branch": "main", "head": main(proposed).head}
    assert reason(proposed, "Approved") == "ApprovalsMissing"
    assert proposed.reason("DataChangeRequest", "fix") == "ApprovalsMissing"
    assert main(proposed).rows == {OLD, OTHER}


async def test_what_was_not_committed_on_the_clone_is_committed_under_the_authors_name(proposed):
    volume = proposed.world.login("data", "db-binding").volume
    commit = volume.commits[volume.branches["main"].head]
    assert (commit.author, commit.rows) == (f"{AUTHOR} <{AUTHOR}>", {NEW, OTHER})
    assert status(proposed)["source"]["head"] == volume.branches["main"].head


async def test_an_approved_change_becomes_one_commit_that_names_who_proposed_and_approved_it(proposed):
    before = main(proposed).head
    proposed.review()
    await proposed.settle()
    proposed.expect_ready("DataChangeRequest", "fix")
    assert main(proposed).rows == {NEW, OTHER}
    commit = proposed.data_of().commits[main(proposed).head]
    assert commit.parent == before
    assert f"Reviewed-by: {REVIEWER}" in commit.message
    assert commit.author == f"{AUTHOR} <{AUTHOR}>"
    found = status(proposed)["published"]
    assert (found["commit"], found["before"]) == (main(proposed).head, before)
    tags = proposed.data_of().tags
    assert (tags[found["tag"]], tags[f"{found['tag']}/before"]) == (found["commit"], before)
    assert "Published" in proposed.events("DataChangeRequest", "fix")


async def test_nothing_is_left_of_a_published_request_but_what_it_says(published):
    assert published.names("DataClone") == ["db"]
    assert not [name for name in published.names("NetworkPolicy") if name.startswith("fix-")]
    assert "fetcher" not in published.data_of().users


async def test_a_published_request_changes_nothing_any_more(published):
    head = main(published).head
    write(published, "price/9=9", without=())
    published.edit("DataChangeRequest", "fix", title="Another title")
    published.delete("DataReview", "fix-bob")
    await published.operator.live(minutes=5)
    assert main(published).head == head
    published.expect_ready("DataChangeRequest", "fix")
    assert published.names("DataClone") == ["db"]


async def test_without_protection_a_change_merges_by_itself(story):
    story.edit("DataStore", "shop", protection=[])
    write(story)
    story.request()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert main(story).rows == {NEW, OTHER}


async def test_one_branch_goes_into_another(story):
    story.data_of().branches["dev"] = story.data_of().copy().branches["main"]
    change_main(story, NEW, branch="dev")
    story.request(source={"branch": "dev"})
    await story.settle()
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert main(story).rows == {NEW, OTHER}


async def test_a_clone_of_another_namespace_is_proposed_by_a_grant_and_its_way_is_closed_afterwards(story):
    story.clone("db", namespace="app")
    await story.settle()
    write_and_commit(story, namespace="app")
    story.request(source={"clone": {"name": "db", "namespace": "app"}})
    await story.settle()
    assert len([name for name in story.names("NetworkPolicy", "app") if name != "db"]) == 1
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert main(story).rows == {NEW, OTHER}
    assert story.names("NetworkPolicy", "app") == ["db"]
    assert (
        "finalizers" not in story.get("DataChangeRequest", "fix")["metadata"]
        or not story.get("DataChangeRequest", "fix")["metadata"]["finalizers"]
    )


# -- what nobody has committed --


@pytest.mark.parametrize("branch", ["dev", "main"])
async def test_nothing_is_committed_on_a_branch_of_the_store_and_its_last_commit_is_proposed(story, branch):
    target = "main" if branch == "dev" else "dev"
    story.data_of().branches["dev"] = story.data_of().copy().branches["main"]
    change_main(story, NEW, branch=branch)
    found = story.data_of().branches[branch]
    head, found.rows = found.head, found.rows | {"price/9=90"}
    story.request(source={"branch": branch}, into=target, merge="Manual")
    await story.operator.live(minutes=2)
    assert "commit-work" not in story.world.engine.calls
    assert (found.head, status(story)["source"]["head"]) == (head, head)
    said = story.condition("DataChangeRequest", "fix", of="SourceReady")
    assert (said["status"], said["reason"]) == ("True", "FoundInPart")
    assert f"coppice commit shop:{branch} -m MESSAGE" in said["message"]
    assert status(story)["tables"] == [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]


async def test_nothing_is_committed_on_a_clone_next_door_while_nobody_vouches_for_the_author(story):
    story.clone("db", namespace="app")
    await story.settle()
    write(story, namespace="app")
    for policy in build_policies():
        story.kube.remove(policy["kind"], None, policy["metadata"]["name"])
    story.request(source={"clone": {"name": "db", "namespace": "app"}})
    await story.settle()
    assert "commit-work" not in story.world.engine.calls
    hint = "coppice commit db -n app -m MESSAGE"
    assert hint in story.condition("DataChangeRequest", "fix", of="SourceReady")["message"]
    assert hint in story.expect_stalled("DataChangeRequest", "fix", "NothingToMerge")


async def test_what_an_app_wrote_next_door_is_committed_for_an_author_who_has_a_right_to_it(story):
    story.clone("db", namespace="app")
    await story.settle()
    story.world.tick(60)
    write(story, namespace="app")
    story.request(source={"clone": {"name": "db", "namespace": "app"}})
    await story.settle()
    assert reason(story, "SourceReady") == "Found"
    assert status(story)["tables"] == [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]


def writes_without_pause(story):
    """Have an app write a row at once after each commit of what it wrote before."""

    def written(action):
        if action == "commit-work":
            write(story, f"price/{100 + story.world.engine.calls.count(action)}=1", without=())

    story.world.engine.after_call = written
    write(story)


async def test_what_an_app_writes_without_pause_is_committed_with_pauses_and_each_time_reviewed_anew(story):
    writes_without_pause(story)
    story.request()
    await story.operator.live(minutes=2)
    assert 4 <= story.world.engine.calls.count("commit-work") <= 6
    said = story.condition("DataChangeRequest", "fix", of="SourceReady")
    assert (said["status"], said["reason"]) == ("True", "FoundInPart")
    assert "no part of it yet" in said["message"]
    old = status(story)["patch"]
    await story.operator.live(minutes=1)
    story.review(patch=old)
    await story.settle()
    assert [(entry["counts"], entry["why"]) for entry in status(story)["reviews"]] == [(False, "OtherPatch")]
    assert story.reason("DataChangeRequest", "fix") == "ApprovalsMissing"


async def test_an_app_that_never_pauses_keeps_nothing_from_being_approved_and_published(story):
    writes_without_pause(story)
    story.request()
    await story.operator.live(minutes=2)
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert {NEW, "price/101=1"} <= main(story).rows


async def test_a_clone_that_was_quiet_is_taken_up_at_once_and_what_is_approved_is_published_first(story):
    write_and_commit(story)
    story.request(merge="Manual")
    await story.settle()
    story.review()
    await story.settle()
    assert reason(story, "Approved") == "Approved"
    write(story, "price/3=30", without=())
    await story.operator.live(minutes=1)
    assert reason(story, "Approved") == "ApprovalsMissing"

    story.delete("DataReview", "fix-bob")
    story.review()
    await story.settle()
    story.world.tick(60)
    write(story, "price/4=40", without=())
    story.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert "price/3=30" in main(story).rows
    assert "price/4=40" not in main(story).rows


# -- where it waits --


async def test_without_a_grant_to_propose_nothing_is_asked_of_a_clone_elsewhere(story):
    story.edit("DataGrant", "previews", verbs=["Clone"])
    story.clone("db", namespace="app")
    await story.settle()
    story.request(source={"clone": {"name": "db", "namespace": "app"}})
    await story.settle()
    message = story.expect_stalled("DataChangeRequest", "fix", "NotGranted")
    assert "verb Propose" in message
    assert not story.names("NetworkPolicy", "app")[1:]


@pytest.mark.parametrize("source", [{"clone": {"name": "nobody"}}, {"branch": "nobody"}, {"revertOf": "nobody"}])
async def test_a_source_that_is_not_there_is_named(story, source):
    story.request(source=source)
    await story.settle()
    assert "nobody" in story.expect_stalled("DataChangeRequest", "fix", "SourceNotFound")


async def test_a_clone_of_another_store_is_refused(story):
    story.store("other")
    await story.settle()
    story.clone("theirs", store="other")
    await story.settle()
    story.request(source={"clone": {"name": "theirs"}})
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "CloneOfAnotherStore")


async def test_a_target_that_is_not_there_is_named(story):
    story.request(into="nowhere")
    await story.settle()
    assert "nowhere" in story.expect_stalled("DataChangeRequest", "fix", "TargetNotFound")


async def test_what_is_masked_is_never_merged_into_what_is_not(story):
    story.world.engine.maskable = True
    story.mask_job("customer")
    story.edit("DataStore", "shop", mask={"jobTemplate": "shop-mask"})
    story.request()
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "MaskedLineage")


async def test_a_clone_that_was_masked_is_not_merged_although_its_store_masks_no_more(story):
    story.world.engine.maskable = True
    story.mask_job("customer")
    story.edit("DataStore", "shop", mask={"jobTemplate": "shop-mask"})
    await story.settle()
    story.clone("masked")
    await story.settle()
    story.edit("DataStore", "shop", mask=None)
    story.request(source={"clone": {"name": "masked"}})
    await story.settle()
    assert "masked" in story.expect_stalled("DataChangeRequest", "fix", "MaskedLineage")


async def test_an_engine_that_merges_nothing_is_named():
    story = Story(engines={"fake": FakeEngine()})
    story.store()
    story.request()
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "EngineHasNoMerges")


async def test_an_adopted_store_takes_no_change(story):
    story.adopted("theirs")
    story.request(store={"name": "theirs"})
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "StoreNotManaged")


async def test_where_there_is_nothing_new_it_says_so(story):
    story.request()
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "NothingToMerge")


async def test_what_the_owners_check_keeps_a_change_out(story):
    checks = [{"name": "no-cents", "sql": "price/1=4712"}]
    story.edit("DataStore", "shop", protection=[{**PROTECTED[0], "checks": checks}])
    write(story)
    story.request()
    await story.settle()
    story.review()
    await story.settle()
    message = story.expect_stalled("DataChangeRequest", "fix", "ChecksFailed")
    assert "no-cents" in message
    assert status(story)["checks"] == [{"name": "no-cents", "passed": False, "message": "found 1 rows"}]
    assert main(story).rows == {OLD, OTHER}


async def test_a_change_is_published_when_a_maintainer_says_so(proposed):
    proposed.edit("DataChangeRequest", "fix", merge="Manual")
    proposed.review()
    await proposed.settle()
    assert proposed.reason("DataChangeRequest", "fix") == "Manual"
    assert main(proposed).rows == {OLD, OTHER}
    proposed.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await proposed.settle()
    assert main(proposed).rows == {NEW, OTHER}


async def test_a_change_is_not_published_before_its_time(proposed):
    proposed.edit("DataChangeRequest", "fix", notBefore="2026-03-02T09:30:00Z")
    proposed.review()
    await proposed.settle()
    assert proposed.reason("DataChangeRequest", "fix") == "NotBefore"
    await proposed.operator.live(minutes=40)
    assert main(proposed).rows == {NEW, OTHER}


async def test_who_has_many_requests_open_waits_with_the_next_and_nobody_else_does(story):
    story.edit("DataStore", "shop", protection=[])
    write(story)
    for number in range(11):
        story.request(f"fix-{number:02}", merge="Manual")
    await story.settle()
    message = story.expect_stalled("DataChangeRequest", "fix-10", "TooManyRequests")
    assert f"10 of {AUTHOR}" in message
    story.request("theirs", author="dora@example.com", merge="Manual")
    await story.settle()
    assert story.reason("DataChangeRequest", "theirs") == "Manual"
    assert len(story.names("DataClone")) == 1 + 10 + 1

    story.delete("DataChangeRequest", "fix-03")
    await story.settle()
    assert story.reason("DataChangeRequest", "fix-10") == "Manual"


# -- conflicts --


async def test_what_both_changed_waits_for_a_decision_and_is_named_without_its_values(conflicting):
    conflicting.expect_stalled("DataChangeRequest", "fix", "Conflicts")
    found = status(conflicting)["conflicts"]
    assert (found["open"], found["decided"]) == (1, 0)
    assert found["listed"][0]["table"] == "price"
    assert main(conflicting).rows == {"price/1=4713", OTHER}
    assert status(conflicting)["preview"]["ready"]


@pytest.mark.parametrize("take", ["Source", "Target"])
async def test_a_conflict_is_decided_and_the_decision_is_part_of_what_is_approved(conflicting, take):
    [conflict] = status(conflicting)["conflicts"]["listed"]
    write(conflicting, "price/3=30", without=())
    conflicting.edit("DataChangeRequest", "fix", resolutions=[{"conflict": conflict["id"], "take": take}])
    await conflicting.operator.live(minutes=1)
    assert status(conflicting)["conflicts"] == {"open": 0, "decided": 1, "listed": []}
    conflicting.review()
    await conflicting.settle()
    taken = NEW if take == "Source" else "price/1=4713"
    assert main(conflicting).rows == {taken, OTHER, "price/3=30"}


# -- what an approval is of --


async def test_when_the_target_moves_and_the_patch_stays_the_same_the_approval_holds(proposed):
    proposed.edit("DataChangeRequest", "fix", merge="Manual")
    proposed.review()
    await proposed.settle()
    head = change_main(proposed, "price/5=50", without=())
    await proposed.operator.live(minutes=1)
    assert status(proposed)["target"]["head"] == head
    assert proposed.condition("DataChangeRequest", "fix", of="Approved")["status"] == "True"
    proposed.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await proposed.settle()
    assert main(proposed).rows == {NEW, OTHER, "price/5=50"}


async def test_when_something_else_would_be_published_the_approval_is_void(proposed):
    proposed.edit("DataChangeRequest", "fix", merge="Manual")
    proposed.review()
    await proposed.settle()
    assert proposed.condition("DataReview", "fix-bob", of="Counted")["status"] == "True"
    write_and_commit(proposed, "price/6=60", without=())
    proposed.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await proposed.operator.live(minutes=1)
    assert reason(proposed, "Approved") == "ApprovalsMissing"
    assert status(proposed)["reviews"][0]["why"] == "OtherPatch"
    assert proposed.condition("DataReview", "fix-bob", of="Counted")["status"] == "False"
    assert main(proposed).rows == {OLD, OTHER}


async def test_an_approval_is_none_of_a_request_that_was_made_anew_under_its_name_meanwhile(proposed):
    proposed.edit("DataChangeRequest", "fix", merge="Manual")
    await proposed.settle()
    looked_at = status(proposed)["patch"]
    proposed.delete("DataChangeRequest", "fix")
    await proposed.settle()
    proposed.request()
    await proposed.settle()
    proposed.world.tick(5)
    proposed.review(patch=looked_at)
    await proposed.settle()
    found = status(proposed)
    assert {key for key in looked_at if looked_at[key] != found["patch"][key]} == {"proposal"}
    assert found["reviews"][0]["why"] == "OtherPatch"
    assert main(proposed).rows == {OLD, OTHER}


async def test_whoever_asks_for_changes_keeps_it_out_until_they_are_content(proposed):
    proposed.review(reviewer="carl@example.com", verdict="RequestChanges")
    proposed.review()
    await proposed.settle()
    assert "carl@example.com" in proposed.expect_stalled("DataChangeRequest", "fix", "ChangesRequested")
    proposed.delete("DataReview", "fix-carl")
    await proposed.settle()
    assert main(proposed).rows == {NEW, OTHER}


@pytest.mark.parametrize("reviewer", [AUTHOR, "system:serviceaccount:data:robot", "dora@example.com"])
async def test_who_made_the_change_approves_nothing(story, reviewer):
    volume = story.world.login("data", "db-binding").volume
    branch = volume.branches["main"]
    branch.rows = frozenset({NEW, OTHER})
    volume.commits["doras"] = Commit(branch.head, branch.rows, story.world.now, author="dora <dora@example.com>")
    branch.head = "doras"
    story.request()
    await story.settle()
    story.review(reviewer=reviewer)
    await story.settle()
    assert reason(story, "Approved") == "ApprovalsMissing"
    assert main(story).rows == {OLD, OTHER}


async def test_while_the_policies_are_absent_no_review_counts(proposed):
    policy = build_policies()[0]
    proposed.kube.remove(policy["kind"], None, policy["metadata"]["name"])
    proposed.review()
    await proposed.settle()
    proposed.expect_stalled("DataChangeRequest", "fix", "IdentityUnenforced")
    assert not status(proposed)["reviews"][0]["counts"]
    assert main(proposed).rows == {OLD, OTHER}


@pytest.mark.parametrize("approvals", [0, 1])
async def test_while_the_policies_are_absent_nothing_goes_into_a_protected_branch(proposed, approvals):
    policy = build_policies()[0]
    proposed.kube.remove(policy["kind"], None, policy["metadata"]["name"])
    proposed.edit("DataStore", "shop", protection=[{"branches": ["main"], "approvals": approvals}])
    await proposed.settle()
    proposed.expect_stalled("DataChangeRequest", "fix", "IdentityUnenforced")
    assert main(proposed).rows == {OLD, OTHER}


async def test_what_was_written_while_the_policies_were_absent_never_counts(proposed):
    lost = build_policies()[3]
    proposed.kube.remove(lost["kind"], None, lost["metadata"]["name"])
    proposed.review()
    proposed.world.tick(5)
    proposed.kube.add(lost)
    await proposed.operator.live(minutes=3)
    message = proposed.expect_stalled("DataChangeRequest", "fix", "IdentityUnenforced")
    assert "propose it again" in message
    assert status(proposed)["reviews"][0]["why"] == "IdentityUnenforced"
    assert main(proposed).rows == {OLD, OTHER}

    proposed.request("again")
    await proposed.settle()
    proposed.review("again")
    await proposed.settle()
    assert main(proposed).rows == {NEW, OTHER}


# -- the preview --


async def test_an_app_on_the_preview_sees_the_change_merged_in(proposed):
    assert status(proposed)["preview"]["ready"]
    change_main(proposed, "price/5=50", without=())
    await proposed.operator.live(minutes=1)
    assert proposed.world.rows("data", f"{scratch(proposed)}-binding", "main") == {NEW, OTHER, "price/5=50"}


@pytest.mark.parametrize("commits", [True, False])
async def test_a_preview_that_somebody_writes_to_is_not_ready_and_is_set_back_after_a_while(proposed, commits):
    volume = proposed.world.login("data", f"{scratch(proposed)}-binding").volume
    shown = volume.branches["main"].head
    calls = []

    def write_again(action):
        calls.append(action)
        if action == "set-branch":
            volume.write("main", f"price/{len(calls)}=1")
            if commits:
                volume.commit("main", at=proposed.world.now)

    proposed.world.engine.after_call = write_again
    write_again("set-branch")
    await proposed.operator.live(minutes=10)
    assert not status(proposed)["preview"]["ready"]
    assert 5 <= calls.count("set-branch") - 1 <= 11

    proposed.world.engine.after_call = lambda action: None
    await proposed.operator.live(minutes=3)
    assert (volume.branches["main"].head, volume.branches["main"].rows) == (shown, {NEW, OTHER})
    assert status(proposed)["preview"]["ready"]


async def test_who_wants_no_preview_has_none(story):
    write(story)
    story.request(preview=False)
    await story.settle()
    assert "preview" not in status(story)
    [name] = [name for name in story.names("DataClone") if name != "db"]
    assert story.world.rows("data", f"{name}-binding", "main") == {OLD, OTHER}


async def test_what_was_proposed_outlives_the_clone_that_it_was_proposed_from(proposed):
    proposed.delete("DataClone", "db")
    await proposed.settle()
    assert reason(proposed, "SourceReady") == "Kept"
    proposed.review()
    await proposed.settle()
    assert main(proposed).rows == {NEW, OTHER}


@pytest.mark.parametrize("begins_anew", ["reset", "made anew"])
async def test_what_was_proposed_outlives_a_clone_that_begins_anew(proposed, begins_anew):
    proposed.review()
    proposed.edit("DataChangeRequest", "fix", notBefore="2026-03-02T09:12:00Z")
    await proposed.settle()
    before = status(proposed)
    if begins_anew == "reset":
        proposed.annotate("DataClone", "db", reset="now")
    else:
        proposed.delete("DataClone", "db")
        await proposed.settle()
        proposed.clone()
    await proposed.operator.live(minutes=2)
    write_and_commit(proposed, "price/6=60", without=())
    await proposed.operator.live(minutes=2)
    said = proposed.condition("DataChangeRequest", "fix", of="SourceReady")
    assert (said["status"], said["reason"]) == ("True", "KeptOfEarlier")
    assert "make another DataChangeRequest" in said["message"]
    assert (status(proposed)["patch"], status(proposed)["tables"]) == (before["patch"], before["tables"])
    await proposed.operator.live(minutes=10)
    assert main(proposed).rows == {NEW, OTHER}


async def test_a_clone_that_was_only_brought_up_to_date_proposes_what_is_written_on_it_then(story):
    story.request()
    await story.settle()
    assert reason(story, "Mergeable") == "NothingToMerge"
    change_main(story, "price/5=50", without=())
    story.annotate("DataClone", "db", reset="now")
    await story.operator.live(minutes=2)
    write(story)
    await story.operator.live(minutes=1)
    assert reason(story, "SourceReady") == "Found"
    assert status(story)["tables"] == [{"table": "price", "added": 0, "modified": 1, "deleted": 0}]


async def test_what_was_kept_and_is_lost_after_all_is_called_so(proposed):
    proposed.annotate("DataClone", "db", reset="now")
    proposed.delete("DataClone", scratch(proposed))
    await proposed.operator.live(minutes=3)
    assert "is nowhere else" in proposed.expect_stalled("DataChangeRequest", "fix", "SourceLost")


async def test_a_request_at_which_nothing_changes_costs_its_server_no_merge(proposed):
    asked = []
    proposed.world.engine.before_call = asked.append
    await proposed.operator.live(minutes=10)
    assert asked.count("merge") <= 1  # an operator that has just started knows of none


# -- publishing against others --


async def test_of_two_requests_into_one_branch_none_overwrites_the_other(proposed):
    proposed.clone("two")
    await proposed.settle()
    write(proposed, "price/7=70", clone="two", without=())
    proposed.request("second", source={"clone": {"name": "two"}})
    await proposed.settle()
    proposed.review("second")
    proposed.review("fix")
    await proposed.settle()
    proposed.expect_ready("DataChangeRequest", "fix")
    proposed.expect_ready("DataChangeRequest", "second")
    assert main(proposed).rows == {NEW, OTHER, "price/7=70"}


async def test_what_is_published_is_called_so_although_it_cannot_be_tagged(proposed):
    def refuse(action):
        if action == "publish":
            proposed.world.engine.refused["create-tag"] = EngineError("no")

    proposed.world.engine.after_call = refuse
    proposed.review()
    await proposed.operator.live(minutes=3)
    proposed.expect_ready("DataChangeRequest", "fix")
    assert status(proposed)["published"]["commit"] == main(proposed).head
    assert "tag" not in status(proposed)["published"]
    assert proposed.names("DataClone") == ["db"]


async def test_who_objects_while_the_result_is_fetched_is_heard(proposed):
    def object_to_it(action):
        if action == "fetch-result":
            proposed.review(reviewer="carl@example.com", verdict="RequestChanges")

    proposed.world.engine.after_call = object_to_it
    proposed.review()
    await proposed.operator.live(minutes=3)
    proposed.expect_stalled("DataChangeRequest", "fix", "ChangesRequested")
    assert "publish" not in proposed.world.engine.calls
    assert main(proposed).rows == {OLD, OTHER}


@pytest.mark.parametrize("comes", ["an objection", "a rule", "an edit", "a deletion"])
async def test_what_comes_after_the_last_look_at_the_servers_is_seen_before_the_push(proposed, comes):
    engine, asked = proposed.world.engine, []
    log = engine.log

    async def late(at, database, start, *, limit):
        if "fetch-result" in engine.calls and not asked:
            asked.append(start)
            match comes:
                case "an objection":
                    proposed.review(reviewer="carl@example.com", verdict="RequestChanges")
                case "a rule":
                    proposed.edit("DataStore", "shop", protection=[{"branches": ["main"], "approvals": 2}])
                case "an edit":
                    proposed.edit("DataChangeRequest", "fix", merge="Manual")
                case "a deletion":
                    proposed.delete("DataChangeRequest", "fix")
        return await log(at, database, start, limit=limit)

    engine.log = late
    proposed.review()
    await proposed.operator.live(minutes=3)
    assert asked
    assert "publish" not in engine.calls
    assert main(proposed).rows == {OLD, OTHER}


async def test_a_target_that_moves_at_the_last_moment_is_merged_with_once_more(proposed):
    moved = []

    def move(action):
        if action == "publish" and not moved:
            moved.append(change_main(proposed, "price/8=80", without=()))

    proposed.world.engine.before_call = move
    proposed.review()
    await proposed.settle()
    assert moved
    assert main(proposed).rows == {NEW, OTHER, "price/8=80"}
    assert moved[0] in proposed.data_of().ancestors(main(proposed).head)


async def test_a_commit_that_the_store_may_be_about_to_take_stays_the_same_until_it_has(proposed):
    taken = []

    def edit(action):
        if action == "publish" and not taken:
            taken.append(status(proposed)["publishing"])
            proposed.edit("DataChangeRequest", "fix", title="Another title")
            raise UnreachableError("the connection is lost")

    proposed.world.engine.before_call = edit
    proposed.review()
    await proposed.settle()
    proposed.expect_ready("DataChangeRequest", "fix")
    assert status(proposed)["published"]["commit"] == taken[0]


async def test_who_cannot_fetch_says_so_and_tries_again(proposed):
    proposed.world.engine.refused["fetch"] = EngineError("somebody else is fetching")
    change_main(proposed, "price/5=50", without=())
    await proposed.operator.live(minutes=1)
    assert reason(proposed, "Computed") == "FetchFailed"
    del proposed.world.engine.refused["fetch"]
    await proposed.operator.live(minutes=1)
    assert reason(proposed, "Computed") == "Computed"


async def test_servers_of_an_earlier_operator_are_named_and_restarted_once(story):
    write(story)
    story.world.engine.remotes_port = 9999
    story.request()
    for words, role in (("DataStore shop", "store"), ("DataClone data/db", "clone")):
        await story.operator.live(minutes=1)
        message = story.expect_stalled("DataChangeRequest", "fix", "ServerOutdated")
        [pod] = [found for found in story.kube.all("Pod") if found["metadata"]["labels"]["coppice.dev/role"] == role]
        name = pod["metadata"]["name"]
        assert f"the server of {words} " in message
        assert f"kubectl delete pod {name} -n data" in message
        story.delete("Pod", name)
    await story.operator.live(minutes=2)
    assert story.condition("DataChangeRequest", "fix", of="SourceReady")["status"] == "True"


async def test_uncommitted_work_on_the_target_is_not_buried(proposed):
    main(proposed).rows |= {"price/9=90"}
    proposed.review()
    await proposed.settle()
    assert reason(proposed, "Published") == "TargetBusy"
    message = proposed.condition("DataChangeRequest", "fix", of="Published")["message"]
    assert "Secret shop-admin" in message
    assert "dolt_commit" in message
    assert "price/9=90" in main(proposed).rows
    proposed.commit()
    await proposed.operator.live(minutes=1)
    assert main(proposed).rows == {NEW, OTHER, "price/9=90"}


async def test_what_was_begun_is_not_kept_when_something_else_is_decided_and_approved(conflicting):
    [conflict] = status(conflicting)["conflicts"]["listed"]
    conflicting.edit("DataChangeRequest", "fix", resolutions=[{"conflict": conflict["id"], "take": "Source"}])
    main(conflicting).rows |= {"price/9=90"}
    await conflicting.operator.live(minutes=1)
    conflicting.review()
    await conflicting.operator.live(minutes=1)
    assert reason(conflicting, "Published") == "TargetBusy"
    begun_with = status(conflicting)["publishing"]

    conflicting.edit("DataChangeRequest", "fix", resolutions=[{"conflict": conflict["id"], "take": "Target"}])
    await conflicting.operator.live(minutes=1)
    conflicting.review(reviewer="carl@example.com")
    await conflicting.operator.live(minutes=1)
    assert reason(conflicting, "Published") == "TargetBusy"
    main(conflicting).rows -= {"price/9=90"}
    await conflicting.operator.live(minutes=1)
    conflicting.expect_ready("DataChangeRequest", "fix")
    assert main(conflicting).rows == {"price/1=4713", OTHER}
    assert status(conflicting)["published"]["commit"] != begun_with


# -- back --


async def test_a_published_request_is_taken_back_and_what_came_after_stays(published):
    change_main(published, "price/5=50", without=())
    published.request("back", source={"revertOf": "fix"})
    await published.settle()
    published.review("back")
    await published.settle()
    published.expect_ready("DataChangeRequest", "back")
    assert main(published).rows == {OLD, OTHER, "price/5=50"}


async def test_what_is_not_published_cannot_be_taken_back(proposed):
    proposed.request("back", source={"revertOf": "fix"})
    await proposed.settle()
    proposed.expect_stalled("DataChangeRequest", "back", "NotPublished")


async def test_nothing_is_left_of_a_request_that_is_deleted(story):
    story.clone("db", namespace="app")
    await story.settle()
    write_and_commit(story, namespace="app")
    story.request(source={"clone": {"name": "db", "namespace": "app"}})
    await story.settle()
    story.delete("DataChangeRequest", "fix")
    await story.settle()
    assert orphans(story.world) == []
    assert story.names("DataClone", "data") == ["db"]
    assert story.names("NetworkPolicy", "app") == ["db"]
    assert main(story).rows == {OLD, OTHER}


@pytest.mark.parametrize("sweeps", [True, False])
async def test_nobody_may_fetch_any_more_for_a_request_that_is_deleted(proposed, sweeps):
    left = [proposed.data_of(), proposed.world.login("data", "db-binding").volume]
    for volume in left:
        volume.users["fetcher"] = "left by an operator that was killed"
    if not sweeps:
        proposed.world.engine.refused["sweep"] = EngineError("not now")
    proposed.delete("DataChangeRequest", "fix")
    await proposed.operator.live(minutes=3)
    assert proposed.names("DataChangeRequest") == []
    assert ["fetcher" in volume.users for volume in left] == [not sweeps, not sweeps]


async def test_a_request_goes_although_its_store_does_not_answer(proposed):
    proposed.world.login("data", "shop-binding").fault = UnreachableError("silence")
    proposed.delete("DataChangeRequest", "fix")
    await proposed.operator.live(minutes=3)
    assert proposed.names("DataChangeRequest") == []


# -- what is told --


async def test_whoever_sees_the_status_cannot_try_by_the_digest_which_value_a_row_has_got(proposed):
    guess = change_set(frozenset({OLD, OTHER}), frozenset({NEW, OTHER})).digest
    admin = read_secret(proposed.get("Secret", "shop-admin"))["admin-password"]
    told = status(proposed)["patch"]["digest"]
    assert told != guess
    assert told == sealed(guess, admin)


async def test_no_value_of_a_row_is_told_to_anybody(conflicting, caplog):
    caplog.set_level(0)
    [conflict] = status(conflicting)["conflicts"]["listed"]
    conflicting.edit("DataChangeRequest", "fix", resolutions=[{"conflict": conflict["id"], "take": "Source"}])
    await conflicting.settle()
    conflicting.review()
    await conflicting.settle()
    conflicting.expect_ready("DataChangeRequest", "fix")
    told = json.dumps([found for found in conflicting.kube.all() if found["kind"] != "Secret"])
    told += str(conflicting.operator.log.events) + str(conflicting.operator.log.plans) + caplog.text
    assert not [value for value in ("4711", "4712", "4713") if value in told]
