"""``coppice clone``, ``branch`` and ``snapshot``: what is made, what is said meanwhile, and what is refused."""

from __future__ import annotations

import pytest
from tests.fakes.person import Person
from tests.fakes.story import Story, begun

from coppice.kube.errors import TransientError


def test_a_clone_is_made_and_waited_for(ann):
    said = ann.expect("clone", "db", "--from", "data/shop:main")
    assert "DataClone app/db: Ready" in said
    assert "Secret db-binding" in said
    assert ann.story.rows(namespace="app") == {"alice"}


def test_what_is_waited_for_is_told_line_by_line_where_there_is_no_terminal(ann):
    told = ann.run("clone", "db", "--from", "data/shop:main").stderr.splitlines()
    assert told[0] == "DataClone app/db waits for the operator"
    assert len(told) == len({line.rpartition(": ")[0] for line in told})
    assert any("VolumeReady: " in line for line in told)


def test_main_is_meant_where_no_branch_is_named(ann):
    ann.expect("clone", "db", "--from", "data/shop", "--no-wait")
    assert ann.story.get("DataClone", "db", "app")["spec"] == {
        "from": {"store": {"name": "shop", "namespace": "data"}, "branch": "main"}
    }


def test_a_clone_has_what_is_asked_for(ann):
    asked = ("--lease", "3d", "--idle", "2h", "--profile", "large", "--secret", "login")
    made = ann.expect_json("clone", "db", "--from", "data/shop:feature/autumn", *asked, "--no-wait")
    assert made["metadata"]["name"] == "db"
    assert ann.story.get("DataClone", "db", "app")["spec"] == {
        "from": {"store": {"name": "shop", "namespace": "data"}, "branch": "feature/autumn"},
        "lease": {"max": "3d", "idle": "2h"},
        "profile": "large",
        "binding": {"secretName": "login"},
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tag", "v1"),
        ("commit", "1a2b3c4d"),
        ("snapshot", "shop-00001"),
        ("time", "2026-03-02T09:00:00Z"),
        ("migration", "42"),
    ],
)
def test_every_point_of_a_store_can_be_named(ann, option, value):
    ann.expect("clone", "db", "--from", "data/shop", f"--{option}", value, "--no-wait")
    assert ann.story.get("DataClone", "db", "app")["spec"]["from"] == {
        "store": {"name": "shop", "namespace": "data"},
        option: value,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "data/shop:main", "--tag", "v1"), "branch and tag are two points of the store: name one"),
        (("--from", "data/shop:"), "names no branch"),
        (("--from", "a/b/c"), "is not [NAMESPACE/]NAME"),
        (("--from", "/shop"), "is not [NAMESPACE/]NAME"),
        (("--from", "data/shop", "--lease", "soon"), "max 'soon': "),
        (("--from", "data/shop", "--time", "yesterday"), "time 'yesterday': "),
        (("--from", "data/Shop"), "name 'Shop': "),
        (("--from", "data/shop:a b"), "branch 'a b': "),
        (("--from", "data/shop", "--timeout", "0"), "is not a duration"),
        ((), "Missing option '--from'"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_anything_is_made(ann, words, said):
    assert said in ann.expect_refusal("clone", "db", *words, code=2)
    assert ann.story.names("DataClone") == []


def test_a_name_that_is_taken_is_told(bea):
    said = bea.expect_refusal("clone", "db", "--from", "data/shop:main")
    assert "already exists: choose another name" in said


def test_what_somebody_must_act_upon_is_not_waited_for(ann):
    ann.story.delete("DataGrant", "previews")
    said = ann.expect_refusal("clone", "db", "--from", "data/shop:main")
    assert "DataClone app/db: no DataGrant in namespace data" in said
    assert "ask the owners of that namespace for one" in said
    assert ann.story.names("DataClone", "app") == ["db"]


def test_what_is_waited_for_in_vain_is_left_as_it_is(ann):
    ann.story.edit("DataGrant", "previews", maxClones={"total": 1})
    ann.expect("clone", "first", "--from", "data/shop:main")
    said = ann.expect_refusal("clone", "second", "--from", "data/shop:main", "--timeout", "30s", code=3)
    assert "is not ready after 30s: it waits for" in said
    assert "It is left as it is; look again with:" in said
    assert "Queued" in said
    assert "coppice status second -n app" in said
    assert ann.story.names("DataClone", "app") == ["first", "second"]


def test_an_api_server_that_is_away_for_a_while_is_sat_out(ann):
    create = ann.cluster.create

    async def then_away(manifest):
        made = await create(manifest)
        ann.cluster.faults += [TransientError("GET /x: no answer within 30 s")] * 3
        return made

    ann.cluster.create = then_away
    done = ann.run("clone", "db", "--from", "data/shop:main")
    assert done.exit_code == 0
    assert "the API server does not answer" in done.stderr


def test_a_clone_that_somebody_deletes_meanwhile_is_not_waited_for(ann):
    pause = ann._pause

    async def gone(seconds):
        ann.story.delete("DataClone", "db", "app")
        await pause(seconds)

    ann._pause = gone
    assert "is gone: somebody has deleted it meanwhile" in ann.expect_refusal("clone", "db", "--from", "data/shop")


def test_a_branch_is_made_under_the_engines_own_name(owner):
    said = owner.expect("branch", "feature/Autumn", "--from", "shop:main")
    assert "DataBranch data/feature-autumn: Ready" in said
    assert "feature/Autumn" in owner.story.data_of().branches


def test_a_branch_of_another_namespaces_store_can_have_a_name_of_ones_own(ann):
    ann.expect("branch", "autumn", "--from", "data/shop:main", "--name", "mine", "--no-wait")
    assert ann.story.get("DataBranch", "mine", "app")["spec"] == {
        "store": {"name": "shop", "namespace": "data"},
        "branchName": "autumn",
        "from": {"branch": "main"},
    }


def test_a_branch_without_history_is_asked_for_by_a_word(ann):
    ann.expect("branch", "small", "--from", "data/shop:main", "--squash", "--no-wait")
    assert ann.story.get("DataBranch", "small", "app")["spec"] == {
        "store": {"name": "shop", "namespace": "data"},
        "branchName": "small",
        "from": {"branch": "main"},
        "history": "Squashed",
    }


def test_a_branch_that_no_engine_would_have_is_refused(owner):
    assert "branchName 'a..b': " in owner.expect_refusal("branch", "a..b", "--from", "shop", code=2)


def test_a_snapshot_of_a_store_is_made_in_its_namespace(owner):
    said = owner.expect("snapshot", "monday", "--from", "shop")
    assert "DataSnapshot data/monday: Ready" in said
    assert "main at" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("monday",), "say what is captured"),
        (("monday", "--from", "shop", "--clone", "db"), "say what is captured"),
        (("--from", "shop"), "needs a NAME"),
        (("monday", "--from", "shop", "--branch", "autumn"), "go with --clone"),
        (("--clone", "db"), "--clone goes with --branch"),
    ],
)
def test_a_snapshot_is_of_one_thing(owner, words, said):
    assert said in owner.expect_refusal("snapshot", *words, code=2)


async def _unversioned(story: Story) -> None:
    engine = story.world.engine
    engine.versioned, engine.capture_action = False, "flush"
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")
    story.clone(namespace="app", durability="Durable")
    await story.settle()
    story.world.tick(60)


def test_a_clone_is_committed_to_a_branch_step_by_step():
    owner = Person(begun(_unversioned), "data")
    parent = owner.story.status("DataClone", "db", "app")["snapshot"]["name"]
    said = owner.expect("snapshot", "--clone", "app/db", "--branch", "autumn")
    assert "DataSnapshot data/autumn-1: Ready" in said
    assert owner.story.get("DataSnapshot", "autumn-1")["spec"] == {
        "store": {"name": "shop"},
        "from": {"clone": {"name": "db", "namespace": "app"}},
        "commit": {"branch": "autumn", "parent": parent},
    }

    owner.story.clone("next", source={"branch": "autumn"}, durability="Durable")
    owner.settle()
    owner.story.world.tick(60)
    said = owner.expect("snapshot", "--clone", "next", "--branch", "autumn")
    assert "DataSnapshot data/autumn-2: Ready" in said
    assert owner.story.get("DataSnapshot", "autumn-2")["spec"]["from"] == {"clone": {"name": "next"}}


def test_a_clone_without_a_copy_cannot_be_committed(ann):
    ann.expect("clone", "db", "--from", "data/shop", "--no-wait")
    said = ann.expect_refusal("snapshot", "--clone", "db", "--branch", "autumn", code=2)
    assert "has no copy yet" in said


def test_a_clone_that_is_not_there_is_named_with_those_that_are(bea):
    said = bea.expect_refusal("snapshot", "--clone", "dc", "--branch", "autumn")
    assert "there is no DataClone dc in namespace app: there are db" in said


def test_a_verb_that_one_lacks_is_named(ann):
    ann.cluster.denied = {("create", "DataClone", "app"), ("create", "DataSnapshot", "data")}
    said = ann.expect_refusal("clone", "db", "--from", "data/shop:main")
    assert "ann may not create dataclones.coppice.dev in namespace app" in said
    assert "for example edit" in said
    said = ann.expect_refusal("snapshot", "monday", "--from", "data/shop")
    assert "for example coppice-store-admin" in said


def test_a_cluster_without_coppice_is_told(ann):
    ann.story.kube.missing_kinds.add("DataClone")
    said = ann.expect_refusal("clone", "db", "--from", "data/shop:main")
    assert "this cluster has no Coppice of this version" in said


def test_options_for_all_may_stand_before_or_after_the_command(owner):
    words = ("clone", "db", "--from", "data/shop", "--no-wait")
    owner.expect("--namespace", "app", "--context", "one", *words)
    assert owner.story.names("DataClone", "app") == ["db"]
    owner.expect("--namespace", "nowhere", "--kubeconfig", "file", *words, "-n", "data", "--context", "two")
    assert owner.story.names("DataClone", "data") == ["db"]
    assert owner.asked_for == [(None, "one"), ("file", "two")]
