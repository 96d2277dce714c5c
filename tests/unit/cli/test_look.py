"""``coppice status`` and ``coppice tree``: how it is, in words, and what to do now."""

from __future__ import annotations

import pytest
from tests.fakes.person import Person, words
from tests.fakes.story import Story, begun


def test_a_namespace_is_listed(bea):
    said = words(bea.expect("status"))
    assert "DataClone db Ready data/shop, branch main" in said
    assert words(bea.expect("status", "-n", "data")).count("Ready") == 3
    assert "nothing of Coppice in namespace other" in bea.expect("status", "-n", "other")


def test_what_is_not_ready_is_listed_with_the_next_step(bea):
    bea.story.delete("DataGrant", "previews")
    bea.settle()
    assert "GrantRevoked" in bea.expect("status")
    assert "no DataGrant in namespace data" in words(bea.expect("status"))


def test_a_clone_is_told_condition_by_condition(bea):
    said = words(bea.expect("status", "db"))
    assert said.startswith("DataClone app/db Ready")
    assert "of data/shop, branch main" in said
    assert "holds data/shop main at" in said
    assert "binding Secret db-binding" in said
    assert "server db.app.svc:3306" in said
    assert "lease ends 2026-03-" in said
    assert "✓ SourceReady" in said
    assert "✓ EngineReady Answering answers at db.app.svc:3306" in said
    assert "next step coppice connect db" in said


def test_what_stands_in_the_way_is_told(ann):
    ann.story.delete("DataGrant", "previews")
    ann.story.clone(namespace="app")
    ann.settle()
    said = words(ann.expect("status", "db"))
    assert said.startswith("DataClone app/db NotGranted")
    assert "✗ SourceReady NotGranted" in said
    assert "· VolumeReady Pending" in said
    assert "next step no DataGrant in namespace data gives" in said


def test_what_was_not_looked_at_yet_is_told(ann):
    ann.story.clone(namespace="app")
    said = words(ann.expect("status", "db"))
    assert said.startswith("DataClone app/db Not looked at yet")
    assert "the operator does not run" in said


def test_everything_of_a_name_is_told(owner):
    owner.story.clone("shop")
    owner.settle()
    said = words(owner.expect("status", "shop"))
    assert said.index("DataClone data/shop") < said.index("DataStore data/shop")
    assert "engine fake 1.0.0-fake" in said
    assert [item["kind"] for item in owner.expect_json("status", "shop")["items"]] == ["DataClone", "DataStore"]


def test_each_kind_has_its_words(owner):
    owner.story.branch("autumn")
    owner.story.snapshot("monday")
    owner.settle()
    assert "branch autumn of data/shop" in words(owner.expect("status", "autumn"))
    assert "of data/shop captured 2026-03-02" in words(owner.expect("status", "monday"))
    said = words(owner.expect("status", "previews"))
    assert "store data/shop to app verbs Clone, Branch data Raw" in said


def test_a_name_that_nothing_has_is_told(ann):
    said = ann.expect_refusal("status", "nothing")
    assert "DataReview or DataGrant nothing in namespace app: coppice status lists what there is" in said


def test_no_secret_and_no_password_is_ever_shown(bea):
    password = bea.story.world.login("app", "db-binding").volume.users["app"]
    for asked in (("status",), ("status", "db"), ("tree",), ("status", "db", "--output", "json")):
        assert password not in bea.expect(*asked)


def test_a_store_is_a_tree_of_its_branches_snapshots_and_clones(bea):
    bea.story.branch("autumn")
    bea.settle()
    said = bea.expect("tree", "data/shop")
    lines = [words(line) for line in said.splitlines()]
    assert lines[0] == "DataStore data/shop fake 1.0.0-fake, Ready"
    assert any("branch autumn at" in line and "DataBranch data/autumn, Ready" in line for line in lines)
    snapshot = next(index for index, line in enumerate(lines) if "DataSnapshot shop-00001" in line)
    assert "DataClone app/db branch main, Ready, lease ends" in lines[snapshot + 1]


def test_a_tree_as_json_has_the_same_shape(bea):
    [store] = bea.expect_json("tree", "data/shop")["stores"]
    assert (store["kind"], store["name"]) == ("DataStore", "data/shop")
    [snapshot] = [child for child in store["children"] if child["kind"] == "DataSnapshot"]
    assert [child["name"] for child in snapshot["children"]] == ["app/db"]


def test_who_may_see_nothing_of_the_owners_sees_their_own_clones(bea):
    bea.cluster.denied |= {(verb, kind, None) for verb in ("list",) for kind in ("DataClone", "DataBranch")}
    bea.cluster.denied |= {("list", kind, "data") for kind in ("DataStore", "DataSnapshot")}
    said = words(bea.expect("tree"))
    assert "DataStore data/shop DataStore that is gone, or that you may not read" in said
    assert "DataClone app/db branch main, Ready" in said
    assert words(bea.expect("tree", "data/shop")) == said


def test_a_clone_whose_snapshot_went_is_still_in_the_tree(bea):
    bea.story.delete("DataStore", "shop")
    bea.settle()
    assert "DataClone app/db" in bea.expect("tree", "data/shop")


def test_a_store_that_is_not_there_is_told(owner):
    assert "there is no DataStore other in namespace data" in owner.expect_refusal("tree", "other")
    assert "no DataStore, and no clone of one, in namespace data" in Person(begun(_nothing), "data").expect("tree")


async def _nothing(story: Story) -> None:
    await story.settle()


async def _commits(story: Story) -> None:
    engine = story.world.engine
    engine.versioned, engine.capture_action = False, "flush"
    story.store()
    await story.settle()
    story.clone(durability="Durable")
    await story.settle()
    story.world.tick(60)
    story.commit_clone("autumn-1", story.status("DataClone", "db")["snapshot"]["name"])
    await story.settle()
    story.clone("next", source={"branch": "autumn"})
    await story.settle()


def test_a_commit_stands_below_the_one_it_goes_on_from():
    owner = Person(begun(_commits), "data")
    [store] = owner.expect_json("tree")["stores"]
    [first] = [child for child in store["children"] if child["kind"] == "DataSnapshot"]
    assert [(child["kind"], child["name"]) for child in first["children"]] == [
        ("DataClone", "data/db"),
        ("DataSnapshot", "autumn-1"),
    ]
    assert [child["name"] for child in first["children"][1]["children"]] == ["data/next"]


@pytest.mark.parametrize("asked", [("status",), ("tree",)])
def test_what_one_may_not_read_is_named(ann, asked):
    ann.cluster.denied.add(("list", "DataStore", "app"))
    said = ann.expect_refusal(*asked)
    assert "ann may not list datastores.coppice.dev in namespace app" in said
    assert "for example view" in said
