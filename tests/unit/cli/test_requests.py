"""``coppice propose``, ``review``, ``resolve``, ``revert`` and ``rebase``: as the person who calls, and of what they saw."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.person import Person, words
from tests.unit.cli.comparing import FIRST, SECOND, THIRD
from tests.unit.cli.requested import PATCH, WAITS, ask, computed, condition, conflicting, tell

from coppice.cli.wishes import review_name
from coppice.kube.client import Caller
from coppice.kube.errors import TransientError

PUBLISHED = {"commit": THIRD, "before": FIRST, "tag": "published-autumn", "at": "2026-03-01T12:00:00Z"}
ALBUM = {"id": "aaaaaaaaaaaaaaaa", "kind": "Schema", "table": "album"}


def spec_of(person: Person, name: str) -> dict[str, Any]:
    return dict(person.story.get("DataChangeRequest", name)["spec"])


def answering(person: Person, *statuses: dict[str, Any]) -> None:
    """Let the operator say these things of the one request that somebody waits for, one after the other."""
    said = list(statuses)

    async def pause(seconds: float) -> None:
        if said:
            [name] = [name for name in person.story.names("DataChangeRequest", "data") if name != "published"]
            tell(person, said.pop(0), name)
        person.story.world.tick(seconds)

    person._pause = pause  # type: ignore[method-assign]


# -- propose --


def test_the_changes_of_a_clone_are_proposed_beside_the_store(bea):
    answering(bea, {}, computed())
    done = bea.run(
        "propose", "--from", "db", "--into", "main", "--title", "Autumn prices", "--description", "They rise."
    )
    assert done.exit_code == 0, done.output
    assert spec_of(bea, "autumn-prices") == {
        "title": "Autumn prices",
        "description": "They rise.",
        "store": {"name": "shop"},
        "author": "ann",
        "from": {"clone": {"name": "db", "namespace": "app"}},
        "into": {"branch": "main"},
    }
    said = words(done.stdout)
    assert "DataChangeRequest data/autumn-prices ApprovalsMissing" in said
    assert "from DataClone app/db" in said
    assert "track 2 1" in said
    assert "next step somebody else looks with coppice diff request/autumn-prices --rows" in said
    assert "DataChangeRequest data/autumn-prices waits for the operator" in done.stderr


def test_a_branch_is_proposed_for_another(owner):
    words_ = ["propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn", "--manual", "--no-wait"]
    assert "is asked for" in owner.expect(*words_, "--name", "x")
    spec = spec_of(owner, "x")
    assert (spec["from"], spec["merge"]) == ({"branch": "autumn"}, "Manual")


def test_a_clone_of_the_stores_own_namespace_needs_none_named(owner):
    owner.story.clone("db")
    owner.settle()
    owner.expect("propose", "--from", "db", "--into", "main", "--title", "Autumn", "--no-wait")
    assert spec_of(owner, "autumn")["from"] == {"clone": {"name": "db"}}


def test_a_title_of_which_no_name_can_be_made_gets_one(owner):
    owner.expect("propose", "--from", "shop:autumn", "--into", "main", "--title", "秋", "--no-wait")
    [name] = owner.story.names("DataChangeRequest", "data")
    assert name.startswith("change-")


def test_a_title_of_several_lines_is_refused(owner):
    said = owner.expect_refusal("propose", "--from", "shop:x", "--into", "main", "--title", "a\nb", code=2)
    assert "title" in said
    assert owner.story.names("DataChangeRequest", "data") == []


def test_a_name_that_is_taken_is_told(owner):
    ask(owner)
    said = owner.expect_refusal("propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn")
    assert "choose another name" in said


def test_somebody_who_must_act_is_not_waited_for(owner):
    stalled = {
        "observedGeneration": 100,
        "conditions": [
            condition("SourceReady", "MaskedLineage", holds=False, message="clone db is of masked data"),
            condition("Ready", "MaskedLineage", holds=False, message="clone db is of masked data"),
            condition("Stalled", "MaskedLineage", holds=True),
        ],
    }
    answering(owner, stalled)
    said = owner.expect_refusal("propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn")
    assert "DataChangeRequest data/autumn: clone db is of masked data" in said


def test_what_is_not_computed_in_time_is_left(owner):
    answering(owner)
    said = owner.expect_refusal(
        "propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn", "--timeout", "10s", code=3
    )
    assert "look again with: coppice status autumn -n data" in said


def test_conflicts_are_the_next_step(owner):
    answering(owner, conflicting())
    said = words(owner.expect("propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn"))
    assert "conflicts 1 to be decided" in said
    assert "coppice diff request/autumn --conflicts shows what both sides changed, coppice resolve autumn" in said


def test_a_check_that_found_something_is_the_next_step(owner):
    answering(owner, computed(checks=[{"name": "no-negative", "passed": False, "message": "3 rows"}]))
    said = words(owner.expect("propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn"))
    assert "checks no-negative 3 rows" in said
    assert "mend on the source what no-negative found" in said


def test_a_check_that_still_runs_has_found_nothing_yet(owner):
    status = computed(
        checks=[{"name": "smoke", "passed": False, "message": "Job fix-check-1 runs", "job": "fix-check-1"}]
    )
    status["conditions"].append(
        condition("ChecksPassed", "ChecksRunning", holds=False, message="waits for checks: smoke")
    )
    answering(owner, status)
    said = words(owner.expect("propose", "--from", "shop:autumn", "--into", "main", "--title", "Autumn"))
    assert "checks smoke Job fix-check-1 runs" in said
    assert "waits for checks: smoke" in said
    assert "mend" not in said


# -- revert, rebase --


def test_what_was_published_is_taken_back_by_a_request(owner):
    ask(owner, computed(published=PUBLISHED), name="published")
    answering(owner, computed())
    owner.expect("revert", "published")
    spec = spec_of(owner, "revert-published")
    assert spec["from"] == {"revertOf": "published"}
    assert (spec["into"], spec["title"], spec["author"]) == ({"branch": "main"}, "Revert: Autumn prices", "ann")


def test_what_is_not_published_cannot_be_taken_back(owner):
    ask(owner, computed())
    assert "is not published (ApprovalsMissing): delete it" in owner.expect_refusal("revert", "autumn")


def test_a_branch_is_brought_up_to_the_one_that_it_was_made_from(owner):
    owner.story.branch("autumn", source={"branch": "test"})
    owner.expect("rebase", "shop:autumn", "--no-wait")
    [name] = owner.story.names("DataChangeRequest", "data")
    assert name.startswith("rebase-autumn-")
    spec = spec_of(owner, name)
    assert (spec["from"], spec["into"]) == ({"branch": "test"}, {"branch": "autumn"})
    assert spec["title"] == "Bring autumn up to test"


def test_the_branch_may_be_somebody_elses(ann):
    ann.story.branch("autumn", namespace="app")
    ann.expect("rebase", "data/shop:autumn", "--no-wait", "--name", "x")
    assert spec_of(ann, "x")["from"] == {"branch": "main"}


def test_a_branch_that_nothing_is_known_of_is_brought_up_to_what_is_named(owner):
    owner.story.branch("other")
    assert "name it with --onto" in owner.expect_refusal("rebase", "shop:autumn")
    owner.expect("rebase", "shop:autumn", "--onto", "main", "--no-wait", "--name", "x")
    assert spec_of(owner, "x")["from"] == {"branch": "main"}


def test_a_branch_is_named_with_its_store(owner):
    assert "is not [NAMESPACE/]STORE:BRANCH" in owner.expect_refusal("rebase", "autumn", code=2)


def test_a_clone_is_brought_up_to_the_branch_that_it_is_of(bea):
    bea.expect("rebase", "clone/db", "--no-wait")
    [name] = bea.story.names("DataChangeRequest", "data")
    assert name.startswith("rebase-db-")
    assert spec_of(bea, name) == {
        "title": "Bring clone db up to main",
        "store": {"name": "shop"},
        "author": "ann",
        "from": {"clone": {"name": "db", "namespace": "app"}},
        "into": {"branch": "main"},
        "publish": "Rebase",
    }
    bea.expect("rebase", "clone/app/db", "--onto", "dev", "--no-wait", "--name", "x")
    assert spec_of(bea, "x")["into"] == {"branch": "dev"}


def test_a_clone_of_no_branch_is_brought_up_to_what_is_named(owner):
    owner.expect("clone", "old", "--from", "shop", "--tag", "v1", "--no-wait")
    assert "name with --onto" in owner.expect_refusal("rebase", "clone/old")


def test_a_clone_that_was_rebased_says_where_it_was_and_is_not_reverted_or_reviewed(owner):
    ask(owner, computed(published=PUBLISHED), name="up", **{"from": {"clone": {"name": "db"}}, "publish": "Rebase"})
    said = owner.expect_refusal("revert", "up")
    assert "changed a clone alone" in said
    assert f"dolt_reset to {FIRST} takes it back" in said
    assert "nobody has to approve" in owner.expect_refusal("review", "up", "--approve")


# -- review --


def reviews(person: Person) -> list[dict[str, Any]]:
    return [dict(found["spec"]) for found in person.story.kube.all("DataReview", "data")]


def test_an_approval_is_of_what_was_shown(owner):
    ask(owner, computed())
    done = owner.run("review", "autumn", "--approve", "-m", "fine", typed="y\n")
    assert done.exit_code == 0, done.output
    assert "track" in done.stderr
    assert "reviewed source bbbbbbbbbbbb, patch d1d1" in words(done.stderr)
    assert reviews(owner) == [
        {
            "request": "autumn",
            "reviewer": "ann",
            "groups": [],
            "verdict": "Approve",
            "patch": PATCH,
            "comment": "fine",
        }
    ]


def test_an_approval_is_of_what_was_shown_even_if_it_changes_while_somebody_thinks(owner):
    ask(owner, computed())
    whoami = owner.cluster.whoami

    async def meanwhile() -> Caller:
        tell(owner, computed(patch={**PATCH, "digest": "another"}))
        return await whoami()

    owner.cluster.whoami = meanwhile
    owner.expect("review", "autumn", "--approve", "--yes")
    assert reviews(owner)[0]["patch"] == PATCH


def test_a_review_goes_with_its_request(owner):
    ask(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    [owned] = owner.story.kube.all("DataReview", "data")[0]["metadata"]["ownerReferences"]
    assert owned == {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataChangeRequest",
        "name": "autumn",
        "uid": owner.story.get("DataChangeRequest", "autumn")["metadata"]["uid"],
    }


def test_who_says_no_has_said_nothing(owner):
    ask(owner, computed())
    owner.expect_refusal("review", "autumn", "--approve", typed="n\n")
    assert reviews(owner) == []


def test_without_a_verdict_it_is_shown_and_nothing_is_said(owner):
    ask(owner, computed(preview={"clone": "autumn-preview", "ready": True}))
    said = words(owner.expect("review", "autumn"))
    assert "title Autumn prices author bea from branch autumn into shop:main preview DataClone autumn-preview" in said
    assert reviews(owner) == []


def test_the_groups_are_those_that_the_rules_name(owner):
    rules = [{"branches": ["main"], "reviewers": {"groups": ["data-owners", "others"]}}]
    owner.story.edit("DataStore", "shop", protection=rules)
    ask(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    assert reviews(owner)[0]["groups"] == ["data-owners"]


def test_who_may_not_see_the_rules_speaks_for_all_their_groups(owner):
    owner.cluster.denied.add(("get", "DataStore", "data"))
    owner.cluster.caller = Caller("ann", tuple(f"g{number}" for number in range(30)))
    ask(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    assert reviews(owner)[0]["groups"] == [f"g{number}" for number in range(20)]


def test_nobody_approves_their_own(owner):
    owner.cluster.caller = Caller("bea")
    ask(owner, computed())
    assert "is your own (bea): somebody else has to approve it" in owner.expect_refusal("review", "autumn", "--approve")
    owner.expect("review", "autumn", "--request-changes", "--yes")


def test_what_was_changed_since_cannot_be_approved(owner):
    ask(owner, computed(observedGeneration=0))
    said = owner.expect_refusal("review", "autumn", "--approve", "--yes")
    assert "has been changed since its change was computed" in said
    assert reviews(owner) == []


def test_what_has_conflicts_cannot_be_approved_but_changes_can_be_asked_for(owner):
    ask(owner, conflicting())
    said = owner.expect_refusal("review", "autumn", "--approve", "--yes")
    assert "nothing that could be approved" in said
    assert "coppice resolve autumn" in said
    owner.expect("review", "autumn", "--request-changes", "--yes", "--comment", "mend it")
    assert reviews(owner) == [
        {"request": "autumn", "reviewer": "ann", "groups": [], "verdict": "RequestChanges", "comment": "mend it"}
    ]


def test_what_is_published_cannot_be_approved(owner):
    ask(owner, computed(published=PUBLISHED))
    assert "coppice revert autumn takes it back" in owner.expect_refusal("review", "autumn", "--approve", "--yes")


def test_a_later_review_takes_the_place_of_an_earlier_one(owner):
    ask(owner, conflicting())
    owner.expect("review", "autumn", "--request-changes", "--yes", "--comment", "mend it")
    tell(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    [review] = reviews(owner)
    assert (review["verdict"], review["patch"]) == ("Approve", PATCH)
    assert "comment" not in review
    owner.cluster.caller = Caller("cid")
    owner.expect("review", "autumn", "--approve", "--yes")
    assert len(reviews(owner)) == 2


def test_a_review_of_an_earlier_request_of_the_name_is_left_as_it_is(owner):
    ask(owner, computed())
    owner.expect("review", "autumn", "--request-changes", "--yes")
    owner.story.delete("DataChangeRequest", "autumn")
    ask(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    assert sorted(review["verdict"] for review in reviews(owner)) == ["Approve", "RequestChanges"]


def test_a_name_that_somebody_else_has_taken_keeps_nobody_from_reviewing(owner):
    ask(owner, computed())
    taken = {"request": "autumn", "reviewer": "mallory", "verdict": "RequestChanges"}
    request = owner.story.get("DataChangeRequest", "autumn")
    owner.story.add("DataReview", review_name(request, "ann"), taken, "data")
    owner.expect("review", "autumn", "--approve", "--yes")
    assert sorted(review["reviewer"] for review in reviews(owner)) == ["ann", "mallory"]


# -- resolve --


def test_conflicts_that_wait_are_listed_without_their_values(owner):
    ask(owner, conflicting(conflicts={"open": 102, "decided": 0, "listed": [WAITS, ALBUM]}))
    done = owner.run("resolve", "autumn")
    assert done.stdout.splitlines() == [
        "0123456789abcdef  row fedcba9876543210  Cell  track.price",
        "aaaaaaaaaaaaaaaa  Schema  album",
        "and 100 more, which are listed once these are decided",
    ]
    assert "Schema album: no side can be taken, mend it on the source" in done.stderr


def test_no_conflict_is_told(owner):
    ask(owner, computed())
    assert owner.expect("resolve", "autumn") == "no conflict waits for a decision\n"
    assert owner.expect_json("resolve", "autumn") == {"open": 0, "decided": 0}


def test_a_conflict_is_decided_and_the_change_computed_anew(owner):
    ask(owner, conflicting(), resolutions=[{"table": "album", "take": "Target"}])
    tell(owner, conflicting(observedGeneration=1))
    answering(owner, computed())
    said = words(owner.expect("resolve", "autumn", "--conflict", WAITS["id"], "--take", "source"))
    assert spec_of(owner, "autumn")["resolutions"] == [
        {"table": "album", "take": "Target"},
        {"conflict": WAITS["id"], "take": "Source"},
    ]
    assert "coppice review autumn" in said


def test_rows_tables_and_everything_are_decided(owner):
    ask(owner, conflicting())
    owner.expect("resolve", "autumn", "--row", WAITS["row"], "--table", "track", "--take", "target", "--no-wait")
    owner.expect("resolve", "autumn", "--all", "--take", "source", "--no-wait")
    assert spec_of(owner, "autumn")["resolutions"] == [
        {"row": WAITS["row"], "take": "Target"},
        {"table": "track", "take": "Target"},
        {"take": "Source"},
    ]


def test_a_later_decision_takes_the_place_of_an_earlier_one(owner):
    ask(owner, conflicting())
    for side in ("source", "target"):
        owner.expect("resolve", "autumn", "--conflict", WAITS["id"], "--take", side, "--no-wait")
    assert spec_of(owner, "autumn")["resolutions"] == [{"conflict": WAITS["id"], "take": "Target"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--all"], "say which side"),
        (["--take", "source"], "name what is decided"),
        (["--take", "source", "--all", "--table", "x"], "name what is decided"),
        (["--take", "source", "--conflict", "xyz"], "conflict"),
    ],
)
def test_a_decision_says_what_and_which_side(owner, options, said):
    ask(owner, conflicting())
    assert said in owner.expect_refusal("resolve", "autumn", *options, code=2)
    assert "resolutions" not in spec_of(owner, "autumn")


def test_a_conflict_that_there_is_not_is_told(owner):
    ask(owner, conflicting())
    said = owner.expect_refusal("resolve", "autumn", "--conflict", "f" * 16, "--take", "source")
    assert f"has no conflict {'f' * 16}: coppice resolve autumn lists those it has" in said


def test_a_conflict_that_may_be_among_those_not_listed_is_not_refused(owner):
    ask(owner, conflicting(conflicts={"open": 200, "decided": 0, "listed": [WAITS]}))
    owner.expect("resolve", "autumn", "--conflict", "f" * 16, "--take", "source", "--no-wait")


def meanwhile(person: Person, act: Any) -> None:
    """Let something happen between the look at a request and the edit of it."""
    amend = person.cluster.amend

    async def late(manifest: Any) -> Any:
        person.cluster.amend = amend  # type: ignore[method-assign]
        act()
        return await amend(manifest)

    person.cluster.amend = late  # type: ignore[method-assign]


def test_a_decision_of_somebody_else_is_not_overwritten(owner):
    ask(owner, conflicting())
    theirs = [{"table": "track", "take": "Target"}]
    meanwhile(owner, lambda: owner.story.edit("DataChangeRequest", "autumn", resolutions=theirs))
    said = owner.expect_refusal("resolve", "autumn", "--all", "--take", "source")
    assert "somebody else has changed or replaced it meanwhile" in said
    assert spec_of(owner, "autumn")["resolutions"] == theirs


def test_the_operator_writing_the_status_is_in_nobodys_way(owner):
    ask(owner, conflicting())
    meanwhile(owner, lambda: tell(owner, conflicting(base=SECOND)))
    owner.expect("resolve", "autumn", "--all", "--take", "source", "--no-wait")
    assert spec_of(owner, "autumn")["resolutions"] == [{"take": "Source"}]


def test_an_answer_that_is_lost_is_told(owner):
    ask(owner, conflicting())
    meanwhile(owner, lambda: owner.cluster.faults.append(TransientError("PATCH /x: no answer")))
    assert "the API server does not answer" in owner.expect_refusal("resolve", "autumn", "--all", "--take", "source")


# -- status --


def test_requests_and_reviews_are_part_of_the_status(owner):
    ask(owner, computed())
    owner.expect("review", "autumn", "--approve", "--yes")
    said = words(owner.expect("status"))
    assert "DataChangeRequest autumn ApprovalsMissing Autumn prices; bea; data/shop, branch main" in said
    assert "Approve; autumn; ann" in said
    assert "next step somebody else looks with coppice diff request/autumn --rows" in words(
        owner.expect("status", "autumn")
    )
    tell(
        owner,
        computed(conditions=[condition("Published", "Published", holds=True)], published=PUBLISHED),
    )
    assert "DataChangeRequest data/autumn Published" in words(owner.expect("status", "autumn"))
