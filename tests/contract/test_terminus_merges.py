"""What is TerminusDB's alone in merging: what the server would lose, schemas, what a merge says of itself. The cases are in ``test_merge_cases.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from coppice.engines import terminusresult
from coppice.engines.base import Endpoint, EngineError, UnknownVersionError
from coppice.engines.merging import MAX_CONFLICTS, Assertion, Decision, MergeInputs, TableChanges
from coppice.engines.terminusresult import result_branch

from .conftest import open_stage
from .merge_kit import AUTHOR
from .terminus_kit import call
from .terminus_merging import Database, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from coppice.engines.merging import Conflict, MergeOutcome, Side

pytestmark = pytest.mark.asyncio(loop_scope="module")

THING = {
    "@id": "Thing", "@type": "Class", "@key": {"@type": "Lexical", "@fields": ["id"]}, "id": "xsd:string", "a": "xsd:integer", "b": "xsd:string",
    "tags": {"@type": "Set", "@class": "xsd:string"},
}  # fmt: skip
PART = {
    "@id": "Part",
    "@type": "Class",
    "@key": {"@type": "Lexical", "@fields": ["id"]},
    "id": "xsd:string",
    "a": "xsd:integer",
}


def thing(number: int | str, a: int = 1, b: str = "one", **more: Any) -> dict[str, Any]:
    return {"@id": f"Thing/{number}", "@type": "Thing", "id": str(number), "a": a, "b": b, **more}


def part(number: int, a: int) -> dict[str, Any]:
    return {"@id": f"Part/{number}", "@type": "Part", "id": str(number), "a": a}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store() -> AsyncIterator[Store]:
    with open_stage("terminusdb") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield Store(stage.admin(server))


async def _things(database: Database, commit: str) -> Mapping[str, tuple[int, str]]:
    return {each["id"]: (each["a"], each["b"]) for each in await database.documents(commit) if each["@type"] == "Thing"}


async def _merge(database: Database, target: str, source: str, *decisions: Decision) -> MergeOutcome:
    return await database.store.engine.merge(database.store.at, database.inputs(target, source, decisions))


async def _refused(database: Database, method: str, path: str, body: Any) -> httpx.Response:
    at = database.store.at
    login = (at.username, at.password)
    async with httpx.AsyncClient(base_url=f"http://{at.host}:{at.port}/api", auth=login, verify=False) as client:
        return await client.request(method, path, json=body)


class TestWhatTheServerWouldLose:
    """Its ``apply`` is told which two versions are compared: what we never tell it, and what it does then."""

    async def _moved(self, store: Store) -> tuple[Database, str, str, str]:
        database = await store.new([THING], [thing(1), thing(2)])
        base = await database.head()
        await database.branch("work")
        target = await database.write("main", [thing(2, b="renamed meanwhile")])
        source = await database.write("work", [thing(1, a=7)])
        return database, base, target, source

    def _apply(self, before: str, after: str) -> dict[str, Any]:
        return {"before_commit": before, "after_commit": after, "commit_info": {"author": "x", "message": "x"}}

    async def test_two_heads_take_back_what_the_target_has_changed(self, store: Store) -> None:
        database, _, target, source = await self._moved(store)
        answer = await _refused(
            database, "POST", f"apply/admin/{database.name}/local/branch/main", self._apply(target, source)
        )
        assert answer.status_code == 200, "and it says nothing"
        assert (await _things(database, await database.head()))["2"] == (1, "one")

    async def test_we_do_not(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        database, base, target, source = await self._moved(store)
        told = []
        apply = terminusresult._apply

        async def listened(api: Any, place: str, before: str, after: str, info: Any) -> None:
            told.append((before, after))
            await apply(api, place, before, after, info)

        monkeypatch.setattr(terminusresult, "_apply", listened)
        outcome = await _merge(database, target, source)
        assert told == [(base, source)]
        assert outcome.base == base
        assert await _things(database, str(outcome.result)) == {"1": (7, "one"), "2": (1, "renamed meanwhile")}

    async def test_even_by_the_base_a_deletion_does_not_look_and_we_do(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        base = await database.head()
        await database.branch("work")
        target = await database.write("main", [thing(1, b="somebody's work")])
        source = await database.write("work", gone=["Thing/1"])
        outcome = await _merge(database, target, source)
        assert [(each.kind, each.table) for each in outcome.conflicts] == [("Row", "Thing")]
        path = f"apply/admin/{database.name}/local/branch/main"
        assert (await _refused(database, "POST", path, self._apply(base, source))).status_code == 200
        assert await _things(database, await database.head()) == {}

    async def test_what_the_server_passes_over_is_found(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        database, _, target, source = await self._moved(store)

        async def passed_over(*_: Any) -> None:
            pass

        monkeypatch.setattr(terminusresult, "_apply", passed_over)
        with pytest.raises(EngineError, match="something else"):
            await _merge(database, target, source)

    async def test_a_conflict_has_witnesses_and_leaves_the_branch_alone(self, store: Store) -> None:
        database, base, _, source = await self._moved(store)
        head = await database.write("main", [thing(1, a=8)])
        path = f"apply/admin/{database.name}/local/branch/main"
        answer = await _refused(database, "POST", path, self._apply(base, source))
        assert answer.status_code == 409
        [witness] = answer.json()["api:witnesses"]
        assert witness == {"@id": "Thing/1", "a": {"@op": "Conflict", "@expected": 1, "@found": 8}}
        assert await database.head() == head

    async def test_a_set_that_both_have_changed_is_not_united(self, store: Store) -> None:
        database = await store.new([THING], [thing(1, tags=["old"])])
        await database.branch("work")
        target = await database.write("main", [thing(1, tags=["old", "mine"])])
        source = await database.write("work", [thing(1, tags=["old", "yours"])])
        [conflict] = await database.conflicts(database.inputs(target, source))
        assert (conflict.kind, conflict.column, conflict.base) == ("Cell", "tags", '["old"]')

    async def test_the_order_in_a_set_is_no_change(self, store: Store) -> None:
        database = await store.new([THING], [thing(1, tags=["x", "y"])])
        await database.branch("work")
        target = await database.write("main", [thing(1, tags=["z", "x"])])
        source = await database.write("work", [thing(1, a=2, tags=["x", "z"])])
        outcome = await _merge(database, target, source)
        assert outcome.total == 0
        [only] = await database.documents(str(outcome.result))
        assert (only["a"], sorted(only["tags"])) == (2, ["x", "z"])

    async def test_a_decision_in_a_class_that_is_another_on_the_source(self, store: Store) -> None:
        database = await store.new([THING], [thing(1), thing(2)])
        await database.branch("work")
        target = await database.write("main", [thing(1, b="mine"), thing(2, b="mine")])
        other = {**{word: kind for word, kind in THING.items() if word != "a"}, "c": "xsd:string"}
        source = await database.redefine(
            "work", [other], [{"@type": "Thing", "id": str(number), "b": "yours", "c": "new"} for number in (1, 2)]
        )
        wanted: tuple[tuple[Side, str], ...] = (("Source", "yours"), ("Target", "mine"))
        for side, b in wanted:
            outcome = await _merge(database, target, source, Decision(side))
            assert (outcome.total, outcome.decided) == (2, 2)
            found = [(each["b"], each["c"], "a" in each) for each in await database.documents(str(outcome.result))]
            assert found == [(b, "new", False)] * 2


class TestDecisions:
    async def _conflicting(self, store: Store) -> tuple[Database, MergeInputs, dict[str, Conflict]]:
        database = await store.new([THING, PART], [thing(1), thing(2), thing(3), part(1, 1)])
        await database.branch("work")
        target = await database.write("main", [thing(1, 10, "mine"), thing(2, 10, "mine"), part(1, 10)])
        source = await database.write("work", [thing(1, 11, "yours"), thing(2, 11, "yours"), part(1, 11)])
        inputs = database.inputs(target, source)
        return database, inputs, {f"{each.key['@id']} {each.column}": each for each in await database.conflicts(inputs)}

    async def test_the_closest_one_wins(self, store: Store) -> None:
        database, inputs, known = await self._conflicting(store)
        assert sorted(known) == ["Part/1 a", "Thing/1 a", "Thing/1 b", "Thing/2 a", "Thing/2 b"]
        first = known["Thing/1 a"]
        assert (first.base, first.ours, first.theirs, first.row) == (1, 10, 11, known["Thing/1 b"].row)
        decisions = (
            Decision("Source", conflict=first.id),
            Decision("Target", row=first.row),
            Decision("Source", table="Thing"),
            Decision("Target"),
        )
        outcome = await store.engine.merge(store.at, replace(inputs, decisions=decisions))
        assert (outcome.total, outcome.decided, outcome.unused) == (5, 5, ())
        assert await _things(database, str(outcome.result)) == {"1": (11, "mine"), "2": (11, "yours"), "3": (1, "one")}
        assert part(1, 10) in await database.documents(str(outcome.result))
        again = await store.engine.merge(store.at, replace(inputs, decisions=decisions))
        assert again == outcome

    async def test_what_is_left_is_named_and_what_meets_nothing_too(self, store: Store) -> None:
        _, inputs, known = await self._conflicting(store)
        decisions = (
            Decision("Source", conflict="0" * 16),
            Decision("Source", row=known["Thing/1 a"].row),
            Decision("Target", table="nothing"),
            Decision("Target", conflict=known["Part/1 a"].id),
        )
        outcome = await store.engine.merge(store.at, replace(inputs, decisions=decisions))
        assert (outcome.result, outcome.total, outcome.decided, outcome.unused) == (None, 5, 3, (0, 2))
        assert {name.id for name in outcome.conflicts} == {known["Thing/2 a"].id, known["Thing/2 b"].id}

    async def test_names_are_the_same_wherever_the_branches_have_moved_on_to(self, store: Store) -> None:
        database, inputs, known = await self._conflicting(store)
        target = await database.write("main", [thing(1, 12, "mine"), thing(7)])
        source = await database.write("work", [thing(2, 11, "again")])
        moved = await database.conflicts(database.inputs(target, source))
        assert {each.id for each in moved} == {each.id for each in known.values()}
        salted = await database.conflicts(replace(inputs, salt="another"))
        assert not {each.id for each in salted} & {each.id for each in known.values()}

    async def test_all_for_the_target_is_the_target(self, store: Store) -> None:
        _, inputs, _ = await self._conflicting(store)
        outcome = await store.engine.merge(store.at, replace(inputs, decisions=(Decision("Target"),)))
        assert (outcome.result, outcome.decided) == (inputs.target, 5)


class TestSchemas:
    async def test_what_both_sides_add_is_there_and_told(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        await database.branch("work")
        own = {**THING, "mine": {"@type": "Optional", "@class": "xsd:string"}}
        target = await database.redefine("main", [own], [thing(1, mine="m")])
        source = await database.redefine("work", [THING, PART], [thing(1, a=2), part(1, 1)])
        outcome = await _merge(database, target, source)
        assert outcome.changes is not None
        assert outcome.changes.tables == (
            TableChanges("Part", added=1, modified=0, deleted=0, schema=True),
            TableChanges("Thing", added=0, modified=1, deleted=0),
        )
        [statement] = outcome.changes.statements
        assert statement.startswith('ADD class Part {"@id": "Part"')
        documents = {each["@id"]: each for each in await database.documents(str(outcome.result))}
        assert documents == {"Thing/1": thing(1, a=2, mine="m"), "Part/1": part(1, 1)}
        [made, step] = await store.engine.log(store.at, database.name, str(outcome.result), limit=2)
        assert made.parents == (target, source)
        assert (step.parents, step.author) == ((target,), AUTHOR.name)

    async def test_a_property_that_is_gone_goes_from_what_it_was_in_too(self, store: Store) -> None:
        database = await store.new([THING], [thing(1), thing(2)])
        await database.branch("work")
        target = await database.write("main", [thing(2, a=5)])
        less = {word: kind for word, kind in THING.items() if word != "b"}
        without = [{name: value for name, value in thing(number).items() if name != "b"} for number in (1, 2)]
        source = await database.redefine("work", [less], without)
        outcome = await _merge(database, target, source)
        assert outcome.changes is not None
        assert outcome.changes.statements == ("ALTER class Thing DROP b",)
        found = {each["id"]: (each["a"], "b" in each) for each in await database.documents(str(outcome.result))}
        assert found == {"1": (1, False), "2": (5, False)}

    async def test_another_type_is_refused_by_name(self, store: Store) -> None:
        database = await store.new([THING], [thing(1), thing(2)])
        await database.branch("work")
        target = await database.write("main", [thing(2, b="mine")])
        source = await database.redefine(
            "work", [{**THING, "a": "xsd:string"}], [{**thing(number), "a": "1"} for number in (1, 2)]
        )
        outcome = await _merge(database, target, source, Decision("Source"))
        [conflict] = outcome.conflicts
        assert (conflict.kind, conflict.table, conflict.detail.split()[0]) == ("Schema", "Thing", "a")
        assert outcome.unused == (0,)

    @pytest.mark.parametrize("version", ["main", "commit"])
    async def test_what_a_merge_would_break_is_named_by_the_document(self, store: Store, version: str) -> None:
        database = await store.new([THING], [thing(1)])
        await database.branch("work")
        target = await database.write("main", [thing("secret-key", b="secret-value")])
        required = {**THING, "c": "xsd:string"}
        source = await database.redefine("work", [required], [thing(1, c="there")])
        outcome = await _merge(database, target, source)
        [conflict] = outcome.conflicts
        assert (conflict.kind, conflict.table, conflict.detail) == ("NotNull", "Thing", "c")
        assert "secret" not in repr(outcome)
        [told] = await database.conflicts(database.inputs(target, source))
        assert told.key == {"@id": "Thing/secret-key"}
        assert "secret" not in repr(told)
        at = target if version == "commit" else "main"
        assert (await store.engine.changes(store.at, database.name, at, target)).tables == ()


class TestWhatAMergeSaysOfItself:
    async def test_what_was_merged_once_is_the_base_of_the_next(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        await database.branch("work")
        source = await database.write("work", [thing(1, a=7)])
        target = await database.write("main", [thing(2)])
        first = await _merge(database, target, source)
        await call(
            store.at, "POST", f"reset/admin/{database.name}/local/branch/main",
            {"commit_descriptor": f"admin/{database.name}/local/commit/{first.result}"},
        )  # fmt: skip
        target = await database.write("main", [thing(1, a=8), thing(2)])
        source = await database.write("work", [thing(1, a=7), thing(3)])
        second = await _merge(database, target, source)
        assert second.base == (await _parents(store, database, str(first.result)))[1]
        assert await _things(database, str(second.result)) == {"1": (8, "one"), "2": (1, "one"), "3": (1, "one")}
        people = await store.engine.authors_between(store.at, database.name, target, source)
        assert (people.names, people.cut) == (frozenset({"Ed", "ed@example.org"}), False)

    async def test_what_somebody_else_says_in_a_message_are_words(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        base = await database.head()
        await database.branch("work")
        source = await database.write("work", [thing(1, a=7)])
        app = {"username": "preview", "password": "x", "database": database.name}
        await store.engine.execute(store.at, "ensure-app-user", app)
        at = Endpoint(store.at.host, store.at.port, "preview", "x")
        lie = f"harmless%0A%0ACoppice-Merge: {base} {source}"
        await call(at, "POST", f"{database.path()}?author=x&message={lie}", [thing(5)])
        target = await database.head()
        assert await _parents(store, database, target) == (base,)
        outcome = await _merge(database, target, source)
        assert outcome.base == base
        assert (await _things(database, str(outcome.result)))["1"] == (7, "one")

    async def test_what_somebody_has_put_in_the_place_of_a_merge_does_not_count(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        await database.branch("work")
        source = await database.write("work", [thing(1, a=7)])
        target = await database.write("main", [thing(2)])
        inputs = database.inputs(target, source)
        await database.branch(result_branch(inputs))
        planted = await database.write(result_branch(inputs), [thing(1, a=7), thing(666)])
        outcome = await store.engine.merge(store.at, inputs)
        assert outcome.result not in {None, planted}
        assert await store.engine.merge(store.at, inputs) == outcome

    async def test_one_that_was_begun_and_not_ended_is_made_anew(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        await database.branch("work")
        source = await database.write("work", [thing(1, a=7)])
        target = await database.write("main", [thing(2)])
        inputs = database.inputs(target, source)
        await database.branch(result_branch(inputs))
        outcome = await store.engine.merge(store.at, inputs)
        assert await _things(database, str(outcome.result)) == {"1": (7, "one"), "2": (1, "one")}

    async def test_a_source_with_nothing_new_gives_the_target(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        old = await database.head()
        target = await database.write("main", [thing(1, a=5)])
        for source in (old, target):
            outcome = await _merge(database, target, source, Decision("Source"))
            assert (outcome.result, outcome.base, outcome.unused) == (target, source, (0,))
            assert outcome.changes is not None
            assert outcome.changes.tables == ()


async def _parents(store: Store, database: Database, commit: str) -> tuple[str, ...]:
    [found] = await store.engine.log(store.at, database.name, commit, limit=1)
    return found.parents


class TestVersions:
    async def test_any_two_are_compared_whichever_is_the_older(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        first = await database.head()
        second = await database.write("main", [thing(1, a=2), thing(2)])
        await database.write("main", gone=["Thing/1"])
        there = await store.engine.changes(store.at, database.name, first, second)
        back = await store.engine.changes(store.at, database.name, second, first)
        assert there.tables == (TableChanges("Thing", added=1, modified=1, deleted=0),)
        assert back.tables == (TableChanges("Thing", added=0, modified=1, deleted=1),)
        assert there.digest != back.digest
        rows = [row async for row in store.engine.rows(store.at, database.name, first, second, "Thing")]
        assert [(row.kind, dict(row.key)) for row in rows] == [
            ("Modified", {"@id": "Thing/1"}),
            ("Added", {"@id": "Thing/2"}),
        ]
        assert rows[0].before == {"id": "1", "a": 1, "b": "one"}
        assert rows[0].after == {"id": "1", "a": 2, "b": "one"}

    async def test_the_same_change_elsewhere_has_the_same_digest(self, store: Store) -> None:
        found = []
        for more in ([], [thing(9)]):
            database = await store.new([THING], [thing(1), *more])
            before = await database.head()
            after = await database.write("main", [thing(1, a=2)])
            found.append((await store.engine.changes(store.at, database.name, before, after)).digest)
        assert found[0] == found[1]

    async def test_more_than_a_page_is_found(self, store: Store) -> None:
        database = await store.new([THING], [thing(number) for number in range(1200)])
        before = await database.head()
        await database.branch("work")
        source = await database.write("work", [thing(number, a=2) for number in range(1200)])
        changes = await store.engine.changes(store.at, database.name, before, source)
        assert changes.tables == (TableChanges("Thing", added=0, modified=1200, deleted=0),)
        target = await database.write("main", [thing(number, a=3) for number in range(MAX_CONFLICTS + 7)])
        outcome = await _merge(database, target, source)
        assert (len(outcome.conflicts), outcome.total) == (MAX_CONFLICTS, MAX_CONFLICTS + 7)
        decided = await _merge(database, target, source, Decision("Source"))
        assert {a for a, _ in (await _things(database, str(decided.result))).values()} == {2}

    async def test_what_is_not_there_is_named(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        head, engine = await database.head(), store.engine
        with pytest.raises(UnknownVersionError, match="0000"):
            await _merge(database, head, "0" * 31)
        with pytest.raises(UnknownVersionError, match="nowhere"):
            await engine.changes(store.at, "nowhere", head, head)
        with pytest.raises(UnknownVersionError, match="Nothing"):
            [row async for row in engine.rows(store.at, database.name, head, head, "Nothing")]
        other = await store.new([THING], [thing(1)])
        assert await engine.merge_base(store.at, database.name, "main", head) == head
        assert await engine.log(store.at, other.name, "main", limit=1) != await engine.log(
            store.at, database.name, "main", limit=1
        )

    @pytest.mark.parametrize("schema", [False, True])
    async def test_what_a_merge_brought_is_taken_back(self, store: Store, *, schema: bool) -> None:
        database = await store.new([THING], [thing(1), thing(2)])
        await database.branch("work")
        target = await database.write("main", [thing(2, b="mine")])
        classes = [THING, PART] if schema else [THING]
        documents = [thing(1, a=7), thing(2), *([part(1, 1)] if schema else [])]
        source = await database.redefine("work", classes, documents)
        merged = str((await _merge(database, target, source)).result)
        arguments = {"database": database.name, "branch": "revert", "commit": merged}
        for _ in range(2):
            await store.engine.execute(store.at, "undo", arguments)
        undone = await database.head("revert")
        assert (await store.engine.changes(store.at, database.name, target, undone)).digest == (
            await store.engine.changes(store.at, database.name, target, target)
        ).digest
        assert await store.engine.merge_base(store.at, database.name, undone, merged) == merged
        later = await _merge(database, merged, undone)
        assert await _things(database, str(later.result)) == {"1": (1, "one"), "2": (1, "mine")}

    async def test_a_branch_is_set_to_a_commit_whatever_was_there(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        first = await database.head()
        second = await database.write("main", [thing(2)])
        for commit in (first, second, first):
            arguments = {"database": database.name, "branch": "set", "commit": commit}
            await store.engine.execute(store.at, "set-branch", arguments)
            assert await database.head("set") == commit


class TestRights:
    async def test_a_branch_cannot_be_protected_and_it_is_said_so(self, store: Store) -> None:
        assert not store.engine.protects
        with pytest.raises(EngineError, match="no action protect"):
            await store.engine.execute(store.at, "protect", {"database": "d0", "branches": "[]", "username": "app"})

    async def test_checks_read_a_commit_and_nobody_writes_meanwhile(self, store: Store) -> None:
        database = await store.new([THING], [thing(1)])
        head = await database.head()
        app = {"username": "app", "password": "x", "database": database.name}
        await store.engine.execute(store.at, "ensure-app-user", app)
        check = {"username": "app", "password": "check", "database": database.name}
        for _ in range(2):
            await store.engine.execute(store.at, "ensure-check-user", check)
        found = store.engine.check_binding(host="h", database=database.name, commit=head, password="check")
        reader = Endpoint(store.at.host, store.at.port, found["username"], found["password"])
        assert await call(reader, "GET", f"document/{found['path']}?as_list=true") == [thing(1)]
        for at in (reader, Endpoint(store.at.host, store.at.port, "app", "x")):
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                await call(at, "POST", f"{database.path()}?author=x&message=x", [thing(2)])
        [result] = await store.engine.assertions(store.at, database.name, head, [Assertion("a", "SELECT 1")])
        assert "no SQL" in result.error
