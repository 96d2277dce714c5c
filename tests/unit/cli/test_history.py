"""``coppice log``, ``commit`` and ``tag``: versions as the person who calls sees, makes and names them."""

from __future__ import annotations

import json

import pytest
from tests.fakes.person import Person, words
from tests.unit.cli.comparing import FIRST, SECOND, THIRD, Comparing, commit

from coppice.engines.base import EngineError
from coppice.kube.client import Caller


def engine_of(person: Person) -> Comparing:
    engine = Comparing(commits=[commit(SECOND, "Prices\n\nfor autumn"), commit(FIRST, "Initial load", "root")])
    person.engine = engine
    return engine


@pytest.fixture
def engine(bea) -> Comparing:
    return engine_of(bea)


@pytest.fixture
def owners(owner) -> Comparing:
    return engine_of(owner)


def test_the_commits_of_a_clones_branch_are_listed(bea, engine):
    said = words(bea.expect("log", "db"))
    assert engine.compared == [("shop", "main", "", None)]
    assert "bbbbbbbbbbbb 2026-03-01 12:00 ann Prices aaaaaaaaaaaa 2026-03-01 12:00 root Initial load" in said
    assert "for autumn" not in said


def test_any_version_can_be_the_newest_of_a_log(owner, owners):
    owner.expect("log", "shop:autumn")
    assert owners.compared == [("shop", "autumn", "", None)]
    owner.expect("log", "shop")
    assert owners.compared[-1] == ("shop", "coppice", "", None)


def test_a_log_may_be_longer_than_what_is_asked_for(bea, engine):
    done = bea.run("log", "db", "--limit", "1", "-o", "json")
    assert [entry["hash"] for entry in json.loads(done.stdout)["commits"]] == [SECOND]
    assert "the newest 1 commit; --limit shows more" in done.stderr
    assert "--limit" not in bea.run("log", "db").stderr


def test_nothing_in_a_message_gives_the_terminal_an_order(bea, engine):
    engine.commits = [commit(FIRST, "a\x1b[2J")]
    said = bea.expect("log", "db")
    assert r"a\x1b[2J" in said
    assert "\x1b" not in said


def test_a_branch_of_an_engine_that_keeps_none_is_a_line_of_snapshots(bea):
    bea.namespace = "data"
    bea.story.world.engine.versioned = False
    parent = bea.story.status("DataClone", "db", "app")["snapshot"]["name"]
    bea.story.commit_clone("autumn-1", parent, namespace="app")
    bea.story.commit_clone("autumn-2", "autumn-1", namespace="app")
    bea.story.commit_clone("autumn-10", "autumn-2", namespace="app")
    bea.story.commit_clone("winter-1", parent, namespace="app")
    told = bea.expect_json("log", "shop:autumn")
    assert [entry["name"] for entry in told["commits"]] == ["autumn-10", "autumn-2", "autumn-1"]
    assert words(bea.expect("log", "shop:autumn", "--limit", "1")).count("autumn") == 2
    assert "has no branch spring" in bea.expect_refusal("log", "shop:spring")
    assert "no commits on main, which is the live server" in bea.expect_refusal("log", "shop")


def test_what_was_written_is_committed_in_the_persons_name(bea, engine):
    engine.uncommitted.add("main")
    assert "commit cccccccccccc on main of DataClone app/db" in bea.expect("commit", "db", "-m", "Prices")
    [(action, arguments)] = engine.done
    assert action == "commit-work"
    assert arguments == {
        "database": "shop",
        "branch": "main",
        "author": "ann",
        "email": "ann@users.coppice.invalid",
        "message": "Prices",
    }


@pytest.mark.parametrize(
    ("user", "name", "email"),
    [
        ("ann@example.com", "ann@example.com", "ann@example.com"),
        ("oidc:ann", "oidc:ann", "oidc-ann@users.coppice.invalid"),
        ("ann <root@x>", "ann root@x", "ann-root-x@users.coppice.invalid"),
        ("秋", "秋", "somebody@users.coppice.invalid"),
    ],
)
def test_a_user_signs_with_their_name(bea, engine, user, name, email):
    bea.cluster.caller = Caller(user)
    bea.expect("commit", "db", "-m", "Prices")
    assert [(said["author"], said["email"]) for _, said in engine.done] == [(name, email)]


def test_nothing_to_commit_is_told(bea, engine):
    assert "nothing to commit on main" in bea.expect("commit", "db", "-m", "Prices")
    assert bea.expect_json("commit", "db", "-m", "Prices") == {"branch": "main", "commit": FIRST, "committed": False}


def test_a_branch_of_a_store_is_committed(owner, owners):
    owners.uncommitted.add("autumn")
    told = owner.expect_json("commit", "shop:autumn", "-m", "Prices")
    assert told == {"branch": "autumn", "commit": THIRD, "committed": True}


def test_a_protected_branch_refuses_and_that_is_told(owner, owners):
    owners.refused["commit-work"] = EngineError("branch main is protected")
    assert "DataStore data/shop: branch main is protected" in owner.expect_refusal("commit", "shop:main", "-m", "x")


def test_a_commit_says_what_was_changed(bea, engine):
    assert "--message" in bea.expect_refusal("commit", "db", code=2)
    said = bea.expect_refusal("commit", "db", "-m", "x", "--branch", "autumn", code=2)
    assert "name the one that is meant behind a colon" in said
    assert engine.done == []


@pytest.fixture
def plain(bea) -> Person:
    """Somebody with a clone of an engine that keeps no branches."""
    bea.story.world.engine.versioned = False
    return bea


def test_a_clone_of_an_engine_without_branches_becomes_a_snapshot(plain):
    done = plain.run("commit", "db", "-m", "Prices", "--branch", "autumn", "--no-wait")
    assert "DataSnapshot data/autumn-1 is asked for" in done.stdout
    assert "which has no message: it is left out" in done.stderr
    spec = plain.story.get("DataSnapshot", "autumn-1")["spec"]
    parent = plain.story.status("DataClone", "db", "app")["snapshot"]["name"]
    assert spec["commit"] == {"branch": "autumn", "parent": parent}
    assert spec["from"] == {"clone": {"name": "db", "namespace": "app"}}


def test_the_live_branch_gets_no_commit(plain):
    assert "say with --branch which one" in plain.expect_refusal("commit", "db")
    assert "keeps no branches: commit a clone of it" in plain.expect_refusal("commit", "data/shop")


def test_a_commit_goes_on_with_the_branch_that_its_clone_is_of(plain):
    plain.story.kube.change("DataClone", "app", "db", lambda found: found["status"]["source"].update(branch="autumn"))
    plain.expect("commit", "db", "--no-wait")
    assert plain.story.get("DataSnapshot", "autumn-1")["spec"]["commit"]["branch"] == "autumn"


def test_a_tag_is_put_where_the_branch_is(owner, owners):
    assert "tag spring is at bbbbbbbbbbbb of DataStore data/shop" in owner.expect("tag", "shop:autumn", "spring")
    assert owners.done == [("create-tag", {"database": "shop", "tag": "spring", "commit": SECOND})]


def test_a_branch_that_is_not_there_gets_no_tag(owner, owners):
    assert "there is no branch winter; there are main, autumn" in owner.expect_refusal("tag", "shop:winter", "spring")


def test_an_engine_without_tags_is_named(plain):
    assert "keeps no tags: a DataSnapshot of it has a name" in plain.expect_refusal("tag", "data/shop:main", "x")


def test_a_store_that_others_run_has_no_login_for_people(owner, owners):
    owner.story.adopted("legacy")
    said = owner.expect_refusal("log", "legacy:main")
    assert "coppice clone NAME --from data/legacy" in said


def test_a_store_that_has_no_server_yet_is_told(owner, owners):
    owner.story.store("young")
    assert "DataStore data/young is not there yet (Not looked at yet)" in owner.expect_refusal("log", "young")
    assert owners.logins == []
