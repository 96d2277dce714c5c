"""Requests into a live database: looked at and printed by the logins of the person who asks, and of nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.person import Person, words
from tests.fakes.source import add_secret, add_source
from tests.unit.cli.patching import CELL, PRICE, Change, Patching
from tests.unit.cli.requested import ask, computed, condition, tell

from coppice.engines.base import EngineError, LoginRefusedError, UnreachableError
from coppice.engines.digests import sealed
from coppice.engines.patching import RefusedError

CLONE = {"clone": {"name": "db"}}


def prepared(person: Person) -> Patching:
    """Let there be the clone ``db``, and the copy that a request into the live database is computed on."""
    for name in ("db", "change-autumn"):
        person.story.clone(name)
    person.settle()
    engine = Patching()
    person.engine = engine
    return engine


@pytest.fixture
def engine(owner: Person) -> Patching:
    return prepared(owner)


def propose(person: Person, publish: str = "Database", *, name: str = "autumn", **status: Any) -> None:
    ask(person, computed(scratch="change-autumn", **status), name=name, publish=publish, **{"from": CLONE})


def password(person: Person, name: str) -> str:
    return str(person.story.world.login("data", f"{name}-binding").volume.users["app"])


def handed_over(person: Person, **more: Any) -> dict[str, Any]:
    """Return the status of a request whose patch waits for somebody to run it."""
    result = sealed("left", password(person, "change-autumn"))
    status = computed(**{"scratch": "change-autumn", "result": result, **more})
    status["conditions"] = [
        *(entry for entry in status["conditions"] if entry["type"] not in {"Approved", "Published"}),
        condition("Approved", "Approved", holds=True),
        condition("Published", "HandOver", holds=False, message="coppice patch autumn prints it"),
    ]
    return status


def test_what_is_left_to_write_is_computed_with_the_persons_own_logins(owner, engine):
    propose(owner)
    said = words(owner.expect("diff", "request/autumn"))
    assert "TABLE ADDED CHANGED DELETED track 1" in said
    [(base, clone, database)] = engine.compared
    assert (base.host, clone.host, database) == ("127.0.0.1", "127.0.0.1", "shop")
    assert (base.password, clone.password) == (password(owner, "change-autumn"), password(owner, "db"))
    [(live, of, patch, inputs)] = engine.judged
    assert (live.password, of, patch) == (password(owner, "shop"), "shop", engine.whole)
    assert inputs.salt == owner.story.get("DataChangeRequest", "autumn")["metadata"]["uid"]


def test_rows_are_shown_as_they_are_there_and_will_be(owner, engine):
    engine.left = Change((PRICE, PRICE))
    propose(owner)
    said = owner.expect("diff", "request/autumn", "--rows", "-o", "json").splitlines()
    assert [json.loads(line)["before"] for line in said] == [{"id": "1", "price": "0.99"}] * 2
    assert owner.expect("diff", "request/autumn", "--rows", "--table", "album") == ""
    assert owner.expect("diff", "request/autumn", "--sql").splitlines() == [
        "ALTER TABLE track;",
        *["UPDATE `track` SET `price` = '1.29' WHERE `id` = '1';"] * 2,
    ]


def test_who_may_not_read_live_rows_sees_what_the_clone_has_changed(owner, engine):
    propose(owner)
    deny_secret(owner, "shop-binding")
    done = owner.run("diff", "request/autumn", "--rows")
    assert done.exit_code == 0, done.output
    assert engine.judged == []
    assert "live rows are not looked at" in done.stderr
    assert "this is what the clone has changed" in done.stderr
    assert "may not get secrets" in owner.expect_refusal("diff", "request/autumn", "--conflicts")


def deny_secret(person: Person, name: str) -> None:
    """Refuse a person one Secret of their namespace."""
    get = person.cluster.get

    async def refusing(kind: str, wanted: str, namespace: str | None = None) -> Any:
        if (kind, wanted) == ("Secret", name):
            person.cluster.denied.add(("get", "Secret", "data"))
        return await get(kind, wanted, namespace)

    person.cluster.get = refusing  # type: ignore[method-assign]


def test_who_may_not_read_the_clone_sees_nothing(owner, engine):
    propose(owner)
    owner.cluster.denied.add(("get", "Secret", "data"))
    assert "may not get secrets" in owner.expect_refusal("diff", "request/autumn")
    assert engine.compared == []


@pytest.mark.parametrize("form", [[], ["--rows"]])
def test_what_cannot_be_written_is_named_and_shown_all_the_same(owner, engine, form):
    engine.refused_patch = RefusedError("view v differs")
    propose(owner)
    done = owner.run("diff", "request/autumn", *form)
    assert done.exit_code == 0, done.output
    assert "track" in done.stdout
    assert "this cannot be written: view v differs" in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineError("odd"), "a server of DataChangeRequest data/autumn: odd"),
        (UnreachableError("no"), "a server of DataChangeRequest data/autumn does not answer: no"),
        (LoginRefusedError("no"), "a server of DataChangeRequest data/autumn refuses the login"),
    ],
)
def test_what_a_server_refuses_is_told(owner, engine, error, said):
    engine.refused_patch = error
    propose(owner)
    assert said in owner.expect_refusal("diff", "request/autumn")


def test_conflicts_are_shown_cell_by_cell_with_those_that_are_decided(owner, engine):
    engine.waiting, engine.decided = (CELL,), (CELL,)
    propose(owner)
    done = owner.run("diff", "request/autumn", "--conflicts")
    assert "base target source price 0.99 1.09 1.29" in words(done.stdout)
    assert "2 conflicts" in done.stderr
    assert "1 conflict is left out" in owner.run("diff", "request/autumn").stderr


def test_a_request_that_is_computed_on_no_copy_yet_has_nothing_to_show(owner, engine):
    ask(owner, computed(), publish="Database", **{"from": CLONE})
    assert "has nothing to show yet" in owner.expect_refusal("diff", "request/autumn")


def test_of_what_is_published_there_is_nothing_to_compare(owner, engine):
    propose(owner, published={"commit": "xid:7", "at": "2026-03-01T12:00:00Z"})
    assert "which keeps no earlier version" in owner.expect_refusal("diff", "request/autumn")
    said = words(owner.expect("review", "autumn"))
    assert "published xid:7 at 2026-03-01T12:00:00Z TABLE" in said
    assert "make the opposite change on a new clone" in said
    assert "make the opposite change on a new clone" in owner.expect_refusal("revert", "autumn")


def test_an_engine_that_cannot_is_named(owner):
    prepared(owner)
    owner.engine = owner.story.world.engine
    propose(owner)
    assert "has no way to look at DataChangeRequest data/autumn" in owner.expect_refusal("diff", "request/autumn")


# -- patch --


def test_what_was_approved_is_printed_to_the_letter(owner, engine):
    engine.text = "SELECT '\x1b[31m\r\nü';\nCOMMIT;\n"
    propose(owner, "Patch")
    tell(owner, handed_over(owner))
    done = owner.run("patch", "autumn")
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == f"-- left\n{engine.text}".encode()
    assert owner.expect_json("patch", "autumn") == {"request": "autumn", "sql": f"-- left\n{engine.text}"}


def test_a_terminal_gets_no_orders(owner, engine, monkeypatch):
    propose(owner, "Patch")
    tell(owner, handed_over(owner))
    run = owner.run

    def at_a_terminal(*said: str) -> Any:
        monkeypatch.setattr("coppice.cli.patches.sys", Terminal)
        return run(*said)

    owner.run = at_a_terminal  # type: ignore[method-assign]
    assert owner.expect("patch", "autumn") == "-- left\nBEGIN;\nCOMMIT;\n"
    engine.text = "\x1b[31m"
    assert "write it into a file" in owner.expect_refusal("patch", "autumn")


class Terminal:
    """In the place of ``sys``."""

    class stdout:  # noqa: N801 - its name there
        isatty: Callable[[], bool] = staticmethod(lambda: True)


def test_another_change_than_was_approved_is_not_printed(owner, engine):
    propose(owner, "Patch")
    tell(owner, handed_over(owner))
    engine.left = Change(digest="other")
    done = owner.run("patch", "autumn")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not what was approved any more" in done.stderr


@pytest.mark.parametrize(
    ("publish", "status", "said"),
    [
        ("Database", {}, "is published by the operator, and nothing is handed over"),
        ("Patch", {}, "is not handed over yet (ApprovalsMissing)"),
        (
            "Patch",
            {"published": {"commit": "patch:d", "at": "2026-03-01T12:00:00Z"}},
            "is in the live database already",
        ),
    ],
)
def test_what_is_not_to_be_run_is_not_printed(owner, engine, publish, status, said):
    propose(owner, publish, **status)
    assert said in owner.expect_refusal("patch", "autumn")
    assert engine.compared == []


def test_what_was_changed_since_is_not_printed(owner, engine):
    propose(owner, "Patch")
    tell(owner, handed_over(owner, observedGeneration=0))
    assert "is not handed over yet" in owner.expect_refusal("patch", "autumn")


def test_a_branch_has_no_patch(owner):
    ask(owner, computed())
    assert "is published by the operator" in owner.expect_refusal("patch", "autumn")


# -- an adopted database --


@pytest.fixture
def theirs(owner: Person) -> Patching:
    """A store that is somebody else's, with a request whose copies are those of another store in this world."""
    engine = prepared(owner)
    engine.versioned = False
    add_source(owner.story, "alice")
    return engine


def adopt(person: Person, **adopted: Any) -> None:
    def change(found: dict[str, Any]) -> None:
        found["spec"] = {
            "engine": "fake",
            "adopted": {"claimName": "data-pg-0", "service": "pg", "credentialsSecret": "pg-coppice", **adopted},
        }
        found["status"]["source"] = {"pod": "pg-0", "port": 5433, "userID": 26}

    person.story.kube.change("DataStore", "data", "shop", change)


def test_live_rows_of_an_adopted_database_are_read_with_its_writer_and_guarded(owner, theirs):
    add_secret(owner.story, name="pg-writer", username="writer", password="writes", ca_crt="PEM")
    adopt(owner, writer={"secretName": "pg-writer"})
    dialled = []
    dial = owner.cluster.dial

    async def noting(namespace: str, pod: str, port: int) -> Any:
        dialled.append((pod, port))
        return await dial(namespace, pod, port)

    owner.cluster.dial = noting
    propose(owner)
    owner.expect("diff", "request/autumn")
    [(live, *_)] = theirs.judged
    assert (live.username, live.password, live.guarded, live.ca) == ("writer", "writes", True, "PEM")
    assert ("pg-0", 5433) in dialled


def test_without_a_writer_it_is_what_the_clone_has_changed(owner, theirs):
    adopt(owner)
    propose(owner, "Patch")
    tell(owner, handed_over(owner, result=sealed("all", password(owner, "change-autumn"))))
    done = owner.run("patch", "autumn")
    assert done.stdout == "-- all\nBEGIN;\nCOMMIT;\n"
    assert "has no login for a look at live rows" in done.stderr


def test_a_writers_secret_that_is_not_there_is_named(owner, theirs):
    adopt(owner, writer={"secretName": "pg-writer"})
    propose(owner)
    assert "Secret data/pg-writer, with which DataStore data/shop is written to" in owner.expect_refusal(
        "diff", "request/autumn"
    )


# -- propose --


@pytest.mark.parametrize("publish", ["database", "patch"])
def test_a_clone_is_proposed_for_the_live_database(owner, engine, publish):
    owner.expect("propose", "--from", "db", "--into", "main", "--title", "Autumn", "--publish", publish, "--no-wait")
    spec = owner.story.get("DataChangeRequest", "autumn")["spec"]
    assert (spec["publish"], spec["from"]) == (publish.capitalize(), CLONE)
    assert "(the live database, by publish:" in words(owner.expect("review", "autumn"))


def test_a_branch_is_not(owner):
    said = owner.expect_refusal(
        "propose", "--from", "shop:x", "--into", "main", "--title", "A", "--publish", "patch", code=2
    )
    assert "name a clone with --from" in said
