"""``coppice diff``: values reach a person as that person, row by row, and nothing of them is kept."""

from __future__ import annotations

import itertools
import json

import pytest
from tests.fakes.engine import FakeEngine
from tests.fakes.person import Person, words
from tests.unit.cli.comparing import FIRST, SECOND, THIRD, Comparing, added
from tests.unit.cli.requested import ask, computed, conflicting

from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.merging import Binary, ChangeSet, Conflict, RowChange
from coppice.manifests.secret import CA

PRICE = RowChange(
    "track", "Modified", {"id": 1}, {"id": 1, "price": "0.99", "name": "x"}, {"id": 1, "price": "1.29", "name": "x"}
)
CELL = Conflict("0123456789abcdef", "fedcba9876543210", "Cell", "track", "price", {"id": 1}, "0.99", "1.09", "1.29")


def engine_of(person: Person) -> Comparing:
    engine = Comparing()
    person.engine = engine
    return engine


@pytest.fixture
def engine(bea) -> Comparing:
    return engine_of(bea)


@pytest.fixture
def owners(owner) -> Comparing:
    return engine_of(owner)


def came_from(person: Person, name: str = "db", namespace: str = "app") -> str:
    return str(person.story.status("DataClone", name, namespace)["source"]["head"])


def test_a_clone_is_compared_with_what_it_came_from(bea, engine):
    said = words(bea.expect("diff", "db"))
    assert engine.compared == [("shop", came_from(bea), "main", None)]
    assert "TABLE ADDED CHANGED DELETED track 2 1 definition ALTER TABLE track" in said


def test_it_is_asked_with_the_login_of_the_persons_own_clone(bea, engine):
    bea.expect("diff", "db")
    [login] = {(at.host, at.username, at.password) for at in engine.logins}
    assert login == ("127.0.0.1", "app", bea.story.world.login("app", "db-binding").volume.users["app"])


def test_a_server_behind_a_proxy_is_known_by_the_authority_in_the_secret(bea, engine):
    bea.story.kube.change("Secret", "app", "db-binding", lambda secret: secret["data"].update({CA: "YXV0aG9yaXR5"}))
    bea.expect("diff", "db")
    assert {at.ca for at in engine.logins} == {"authority"}


def test_who_may_not_read_the_secret_sees_no_row(bea, engine):
    bea.cluster.denied.add(("get", "Secret", "app"))
    assert "may not get secrets in namespace app" in bea.expect_refusal("diff", "db")
    assert engine.logins == []


def test_rows_stand_side_by_side(bea, engine):
    engine.found = [
        PRICE,
        added(2, name="new"),
        RowChange("track", "Deleted", {"id": 3}, {"id": 3, "name": None}, None),
    ]
    said = words(bea.expect("diff", "db", "--rows"))
    assert "~ track id=1 price 0.99 1.29 + track id=2" in said
    assert "name — new" in said
    assert "- track id=3 id 3 — name NULL —" in said
    assert "name x" not in said


def test_rows_are_statements(bea, engine):
    engine.found = [PRICE, added(2, name="it's", cover=Binary("0xff"))]
    said = bea.expect("diff", "db", "--sql").splitlines()
    assert said == [
        "ALTER TABLE track;",
        "UPDATE `track` SET `price` = '1.29' WHERE `id` = 1;",
        "INSERT INTO `track` (`id`, `name`, `cover`) VALUES (2, 'it''s', 0xff);",
    ]


def test_rows_of_one_table_are_statements_without_the_definitions_of_all(bea, engine):
    engine.found = [PRICE]
    said = bea.expect("diff", "db", "--sql", "--table", "track").splitlines()
    assert said == ["UPDATE `track` SET `price` = '1.29' WHERE `id` = 1;"]
    assert engine.compared[-1][-1] == "track"


def test_rows_are_one_json_object_a_line(bea, engine):
    engine.found = [PRICE, added(2)]
    lines = [json.loads(line) for line in bea.expect("diff", "db", "--rows", "-o", "json").splitlines()]
    assert lines[0] == {
        "table": "track",
        "kind": "Modified",
        "key": {"id": 1},
        "before": {"id": 1, "price": "0.99", "name": "x"},
        "after": {"id": 1, "price": "1.29", "name": "x"},
    }
    assert lines[1]["before"] is None


def test_a_summary_is_one_json_document(bea, engine):
    told = bea.expect_json("diff", "db")
    assert told == {
        "tables": [{"table": "track", "added": 2, "modified": 1, "deleted": 0, "schema": True}],
        "statements": ["ALTER TABLE track"],
        "digest": "d",
    }


def test_nothing_that_differs_is_told(bea, engine):
    engine.change_set = ChangeSet((), (), "d")
    assert bea.expect("diff", "db") == "nothing differs\n"


@pytest.mark.parametrize("form", [["--rows"], ["--sql"], ["--rows", "-o", "json"]])
def test_rows_that_were_written_are_not_kept(bea, engine, form):
    engine.found = (added(number) for number in range(2000))
    assert bea.expect("diff", "db", *form).count("track") >= 2000
    assert engine.handed_out == 2000
    assert engine.kept <= 2


def test_who_wants_a_few_rows_ends_the_stream(bea, engine):
    engine.found = (added(number) for number in itertools.count())
    done = bea.run("diff", "db", "--rows", "--limit", "3", "-o", "json")
    assert len(done.stdout.splitlines()) == 3
    assert "the first 3 rows; there are more" in done.stderr
    assert engine.ended == 1
    assert engine.handed_out == 4


def test_a_limit_that_is_not_reached_is_not_mentioned(bea, engine):
    engine.found = [added(1), added(2)]
    done = bea.run("diff", "db", "--rows", "--limit", "2")
    assert "2 rows" in done.stderr
    assert "there are more" not in done.stderr


def test_nothing_in_a_row_gives_the_terminal_an_order(bea, engine):
    engine.found = [added(1, name="a\x1b]0;owned\x07b\nc")]
    said = bea.expect("diff", "db", "--rows")
    assert "\x1b" not in said
    assert "\x07" not in said
    assert r"a\x1b]0;owned\x07b\nc" in said


def test_changes_that_are_not_committed_are_said_not_to_be_shown(bea, engine):
    assert "not committed" not in bea.run("diff", "db").stderr
    engine.uncommitted.add("main")
    assert "branch main has changes that are not committed, and not shown" in bea.run("diff", "db").stderr


def test_a_branch_of_a_clone_is_compared_with_what_the_clone_came_from(bea, engine):
    bea.expect("diff", "db:autumn")
    assert engine.compared == [("shop", came_from(bea), "autumn", None)]


def test_two_branches_of_a_store_are_compared(owner, owners):
    owner.expect("diff", "shop:main..autumn")
    assert owners.compared == [("shop", "main", "autumn", None)]
    [at] = set(owners.logins)
    assert at.password == owner.story.world.login("data", "shop-binding").volume.users["app"]


def test_three_dots_show_what_a_branch_has_since_it_left(owner, owners):
    owner.expect("diff", "shop:main...autumn")
    assert owners.compared == [("shop", FIRST, "autumn", None)]
    owners.base = None
    assert "have nothing in common" in owner.expect_refusal("diff", "shop:main...autumn")


def test_a_store_is_compared_by_two_versions(owner, owners):
    assert "name two versions of DataStore data/shop" in owner.expect_refusal("diff", "shop")
    assert "for example main..autumn" in owner.expect_refusal("diff", "shop:autumn")


def test_two_branches_are_those_of_something(owner, owners):
    said = owner.expect_refusal("diff", "main..feature/autumn", code=2)
    assert "write it before, shop:main..feature/autumn" in said


def test_dots_with_nothing_on_one_side_are_a_mistake(owner, owners):
    assert "lacks a version on one side of the dots" in owner.expect_refusal("diff", "shop:main..", code=2)


def test_a_name_that_a_clone_and_a_store_have_is_told_apart(owner, owners):
    owner.story.clone("shop")
    owner.settle()
    said = owner.expect_refusal("diff", "shop:main..autumn")
    assert "shop is the name of several in namespace data: write store/shop or clone/shop" in said
    owner.expect("diff", "store/shop:main..autumn")
    assert [entry[1] for entry in owners.compared] == ["main"]
    assert "DataClone data/shop is not there yet (NameConflict)" in owner.expect_refusal("diff", "clone/shop")


def test_what_is_not_there_is_named(bea, engine):
    assert "there is no DataClone or DataStore x in namespace app" in bea.expect_refusal("diff", "x")
    bea.cluster.denied.add(("get", "DataStore", "data"))
    assert "may not get datastores" in bea.expect_refusal("diff", "data/shop:main..autumn")


def test_a_request_has_no_data_of_its_own(owner, owners):
    assert "DataChangeRequest autumn has no data of its own" in owner.expect_refusal("log", "request/autumn")


def test_a_clone_can_be_compared_by_who_may_not_see_stores(bea, engine):
    bea.cluster.denied.add(("get", "DataStore", "app"))
    bea.expect("diff", "db")
    assert len(engine.compared) == 1


def test_an_engine_that_cannot_compare_is_named(bea):
    bea.engine = FakeEngine()
    assert "has the engine fake, whose versions cannot be compared here" in bea.expect_refusal("diff", "db")


def test_an_engine_that_is_not_installed_is_named(bea, engine):
    engine.name = "other"
    assert "this command has no engine fake: install its package" in bea.expect_refusal("diff", "db")


@pytest.mark.parametrize(
    ("error", "words_of_it"),
    [
        (EngineError("there is no table x"), "DataClone app/db: there is no table x"),
        (UnreachableError("the connection was lost"), "does not answer: the connection was lost. Look at it with"),
    ],
)
def test_what_the_server_refuses_is_told(bea, engine, error, words_of_it):
    def broken():
        yield added(1)
        raise error

    engine.found = broken()
    assert words_of_it in bea.expect_refusal("diff", "db", "--rows")


def test_a_login_that_is_not_taken_is_told(bea, engine):
    engine.password = "another"
    assert "DataClone app/db refuses the login in its Secret" in bea.expect_refusal("diff", "db")


def preview(person: Person) -> None:
    person.story.clone("autumn-preview")
    person.settle()


def test_a_request_shows_what_it_would_change_on_the_target(owner, owners):
    preview(owner)
    ask(owner, computed(preview={"clone": "autumn-preview", "ready": True}))
    done = owner.run("diff", "request/autumn", "--rows")
    assert done.exit_code == 0, done.output
    assert owners.compared == [("shop", FIRST, THIRD, None)]
    [at] = set(owners.logins)
    assert at.password == owner.story.world.login("data", "autumn-preview-binding").volume.users["app"]
    assert "no preview" not in done.stderr


def test_without_a_preview_a_request_shows_what_its_source_changes(owner, owners):
    ask(owner, computed(preview={"clone": "autumn-preview", "ready": False}))
    done = owner.run("diff", "request/autumn")
    assert done.exit_code == 0, done.output
    assert owners.compared == [("shop", FIRST, SECOND, None)]
    assert "there is no preview of the result: this is what the source changes" in done.stderr


def test_the_source_may_be_a_clone_elsewhere(bea, engine):
    ask(bea, computed(), **{"from": {"clone": {"name": "db", "namespace": "app"}}})
    bea.expect("diff", "request/data/autumn")
    assert engine.compared == [("shop", FIRST, SECOND, None)]
    [at] = set(engine.logins)
    assert at.password == bea.story.world.login("app", "db-binding").volume.users["app"]


def test_a_published_request_shows_what_it_brought(owner, owners):
    published = {"commit": THIRD, "before": FIRST, "tag": "t", "at": "2026-03-01T12:00:00Z"}
    ask(owner, computed(published=published, target={"branch": "main", "head": SECOND}))
    owner.expect("diff", "request/autumn")
    assert owners.compared == [("shop", FIRST, THIRD, None)]


def test_a_request_that_was_changed_since_says_so(owner, owners):
    ask(owner, computed(observedGeneration=0))
    assert "has been changed since this was computed" in owner.run("diff", "request/autumn").stderr


def test_a_request_that_is_not_computed_has_nothing_to_show(owner, owners):
    ask(owner)
    said = owner.expect_refusal("diff", "request/autumn")
    assert "DataChangeRequest data/autumn has nothing to show yet (Not looked at yet): wait" in said
    ask(owner, computed(), name="undo", **{"from": {"revertOf": "autumn"}})
    assert "data/undo has nothing to show yet" in owner.expect_refusal("diff", "request/undo")


def test_conflicts_are_shown_cell_by_cell(owner, owners):
    preview(owner)
    ask(owner, conflicting(preview={"clone": "autumn-preview", "ready": False}))
    owners.conflicting = [CELL]
    done = owner.run("diff", "request/autumn", "--conflicts")
    said = words(done.stdout)
    assert "0123456789abcdef Cell track.price id=1" in said
    assert "row fedcba9876543210" in said
    assert "base target source price 0.99 1.09 1.29" in said
    assert "coppice resolve autumn --conflict ID --take source|target" in done.stderr
    [merge] = owners.merges
    assert (merge.database, merge.target, merge.source) == ("shop", FIRST, SECOND)
    assert merge.salt == owner.story.get("DataChangeRequest", "autumn")["metadata"]["uid"]
    [at] = set(owners.logins)
    assert at.password == owner.story.world.login("data", "autumn-preview-binding").volume.users["app"]


def test_the_store_has_both_sides_of_a_branchs_conflicts(owner, owners):
    ask(owner, conflicting())
    owners.conflicting = [CELL, Conflict("f" * 16, "", "Schema", "album", base="a", ours="b", theirs="c")]
    said = words(owner.expect("diff", "request/autumn", "--conflicts"))
    assert "ffffffffffffffff Schema album base target source definition a b c" in said
    lines = owner.expect("diff", "request/autumn", "--conflicts", "--table", "album", "-o", "json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["f" * 16]


def test_without_a_preview_a_clones_conflicts_cannot_be_had(owner, owners):
    ask(owner, conflicting(), **{"from": {"clone": {"name": "db"}}})
    assert "has no preview, which alone has both sides" in owner.expect_refusal("diff", "request/autumn", "--conflicts")


@pytest.mark.parametrize(
    ("resolutions", "taken"),
    [
        ([], None),
        ([{"take": "Target"}], "Target"),
        ([{"take": "Target"}, {"table": "track", "take": "Source"}], "Source"),
        ([{"row": CELL.row, "take": "Target"}, {"table": "track", "take": "Source"}], "Target"),
        ([{"row": CELL.row, "take": "Target"}, {"conflict": CELL.id, "take": "Source"}], "Source"),
        ([{"table": "album", "take": "Source"}], None),
    ],
)
def test_the_side_that_is_taken_stands_beside_a_conflict(owner, owners, resolutions, taken):
    ask(owner, conflicting(), resolutions=resolutions)
    owners.conflicting = [CELL]
    told = json.loads(owner.expect("diff", "request/autumn", "--conflicts", "-o", "json"))
    assert told["taken"] == taken
    assert (told["base"], told["ours"], told["theirs"]) == ("0.99", "1.09", "1.29")
    said = owner.expect("diff", "request/autumn", "--conflicts")
    assert (f"{taken} is taken" in said) == (taken is not None)


def test_a_row_that_one_side_deleted_is_missing_there(owner, owners):
    ask(owner, conflicting())
    row = {"id": 1, "price": "0.99"}
    owners.conflicting = [Conflict("e" * 16, "e" * 16, "Row", "track", None, {"id": 1}, row, None, row)]
    said = words(owner.expect("diff", "request/autumn", "--conflicts"))
    assert "id 1 — 1 price 0.99 — 0.99" in said


def test_conflicts_are_of_a_request(owner, owners):
    said = owner.expect_refusal("diff", "shop:main..autumn", "--conflicts", code=2)
    assert "--conflicts is of a request" in said
