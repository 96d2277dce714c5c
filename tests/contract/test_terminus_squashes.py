"""TerminusDB's histories made anew: what its ``squash`` and ``rebase`` do, and branches that begin with a squash."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from coppice.engines import terminusrefs, terminussquash
from coppice.engines.base import EngineError, UnderWayError, UnreachableError
from coppice.engines.merging import MergeInputs, MergingEngine, Signature, UnrelatedError
from coppice.engines.squashing import FORGET_ACTION, SQUASH_ACTION, Squash, SquashingEngine
from coppice.engines.terminusapi import Answer, Api

from .conftest import Stage, open_stage
from .terminus_kit import call, documents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from coppice.engines.base import Endpoint

    from .runner import Server

MAIN = "admin/shop/local/branch/main"
CLASS_OF_NOTES = {
    "@id": "Note",
    "@type": "Class",
    "@key": {"@type": "Lexical", "@fields": ["id"]},
    "id": "xsd:string",
    "words": {"@type": "Set", "@class": "xsd:string"},
}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("terminusdb") as stage:
        yield stage


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does, a squash is waited for."""
    monkeypatch.setattr(terminussquash, "PATIENCE", 60)


@pytest.fixture
async def server(stage: Stage, loaded: Path) -> AsyncIterator[Server]:
    """Return a store's server with a few documents."""
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        yield server


@pytest.fixture
def admin(stage: Stage, server: Server) -> Endpoint:
    return stage.admin(server)


async def _log(at: Endpoint, path: str = "admin/shop") -> list[Any]:
    found: list[Any] = await call(at, "GET", f"log/{path}")
    return found


async def _branch(at: Endpoint, name: str, origin: str = MAIN) -> str:
    await call(at, "POST", f"branch/admin/shop/local/branch/{name}", {"origin": origin})
    return f"admin/shop/local/branch/{name}"


async def _rename(at: Endpoint, path: str, name: str) -> None:
    product = {"@type": "Product", "@id": "Product/1", "id": "1", "name": name}
    await call(at, "PUT", f"document/{path}?author=a&message=m", product)


async def test_a_squash_has_the_documents_and_no_history_and_no_branch_leads_to_it(admin: Endpoint) -> None:
    info = {"commit_info": {"author": "a", "message": "all in one"}}
    before = await _log(admin)
    squashed = await call(admin, "POST", "squash/admin/shop", info)
    assert await _log(admin) == before
    assert squashed["api:old_commit"].endswith(before[0]["identifier"])
    [only] = await _log(admin, squashed["api:commit"])
    assert (only["message"], "parent" in only) == ("all in one", False)
    assert await documents(admin, squashed["api:commit"]) == await documents(admin, "admin/shop")
    assert only["user"].endswith("User/admin")
    [main] = await call(admin, "GET", "document/admin/shop/local/_commits?type=Branch&as_list=true")
    assert main["head"].endswith(before[0]["identifier"])


async def test_a_database_that_its_owners_have_squashed_is_read_as_any_other(stage: Stage, admin: Endpoint) -> None:
    """By the two calls of TerminusDB's own documentation."""
    info = {"commit_info": {"author": "a", "message": "all in one"}}
    await stage.kit.insert(admin)
    squashed = await call(admin, "POST", "squash/admin/shop", info)
    await call(admin, "POST", f"reset/{MAIN}", {"commit_descriptor": squashed["api:commit"]})
    [state] = (await stage.engine.inspect(admin)).branches
    assert squashed["api:commit"].endswith(state.head)
    tokens = await stage.engine.tables(admin, "shop")
    assert set(tokens) == {"documents", "schema"}
    await stage.kit.insert(admin)
    after = await stage.engine.tables(admin, "shop")
    assert (after["schema"], after["documents"] == tokens["documents"]) == (tokens["schema"], False)
    assert await stage.kit.count(admin) == stage.kit.rows + 2


async def test_two_branches_that_are_rebased_upon_each_other_have_one_history(stage: Stage, admin: Endpoint) -> None:
    work = await _branch(admin, "work")
    await _rename(admin, work, "work's")
    await stage.kit.insert(admin)
    for path, onto in ((work, MAIN), (MAIN, work)):
        await call(admin, "POST", f"rebase/{path}", {"author": "a", "rebase_from": onto})
    assert await _log(admin, work) == await _log(admin)
    found = await documents(admin, "admin/shop")
    assert len(found) == stage.kit.rows + 1
    assert "work's" in {document["name"] for document in found}


async def test_a_rebase_that_conflicts_is_refused_and_changes_nothing(admin: Endpoint) -> None:
    work = await _branch(admin, "work")
    await _rename(admin, work, "work's")
    await _rename(admin, MAIN, "main's")
    before = await _log(admin, work)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await call(admin, "POST", f"rebase/{work}", {"author": "a", "rebase_from": MAIN})
    told = refused.value.response.json()
    assert (refused.value.response.status_code, told["@type"]) == (400, "api:RebaseErrorResponse")
    assert told["api:error"]["@type"] == "api:RebaseSchemaValidationError"
    assert told["api:error"]["api:their_commit"] == before[0]["identifier"]
    assert [each["@type"] for each in told["api:error"]["api:witness"]] == ["instance_not_cardinality_one"]
    assert await _log(admin, work) == before


async def test_a_rebase_unites_the_values_of_both_and_says_nothing(admin: Endpoint) -> None:
    await call(admin, "POST", "document/admin/shop?graph_type=schema&author=a&message=m", CLASS_OF_NOTES)
    note = {"@type": "Note", "@id": "Note/1", "id": "1"}
    await call(admin, "POST", "document/admin/shop?author=a&message=m", {**note, "words": ["old"]})
    work = await _branch(admin, "work")
    for path, words in ((work, ["one"]), (MAIN, ["two"])):
        await call(admin, "PUT", f"document/{path}?author=a&message=m", {**note, "words": words})
    await call(admin, "POST", f"rebase/{work}", {"author": "a", "rebase_from": MAIN})
    [found] = await documents(admin, work, "Note")
    assert sorted(found["words"]) == ["one", "two"]


MAKER = "4b1c8a9e-0000-4000-8000-000000000001"


def _wish(commit: str, branch: str = "small", maker: str = MAKER) -> dict[str, str]:
    said = {"maker": maker, "message": f"Squash of data/shop at {commit}"}
    return {"database": "shop", "branch": branch, "commit": commit, **said}


async def _tags(stage: Stage, at: Endpoint) -> list[str]:
    return [tag.name for tag in await stage.engine.tags(at, "shop", "coppice/")]


async def test_a_squashed_branch_has_the_documents_in_one_commit_that_says_where_they_are_from(
    stage: Stage, loaded: Path, server: Server, admin: Endpoint
) -> None:
    before = await _log(admin)
    head = before[0]["identifier"]
    for _ in range(2):
        await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    small = "admin/shop/local/branch/small"
    assert await documents(admin, small) == await documents(admin, "admin/shop")
    schema = "?graph_type=schema&as_list=true"
    assert await call(admin, "GET", f"document/{small}{schema}") == await call(
        admin, "GET", f"document/admin/shop{schema}"
    )
    assert await _log(admin) == before
    engine = stage.engine
    assert isinstance(engine, MergingEngine)
    [only] = await engine.log(admin, "shop", "small", limit=10)
    assert (only.message, only.author) == (f"Squash of data/shop at {head}", "coppice")
    assert await _tags(stage, admin) == []
    _, reported = await stage.prepared(loaded, server)
    assert reported == await engine.inspect(admin)
    # A branch of our own that has gone on is not squashed again, and not moved.
    await stage.kit.insert(admin, "small")
    moved = await stage.kit.version(admin, "small")
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await stage.kit.version(admin, "small") == moved
    assert await _squash_of(stage, admin, moved) == Squash(head, MAKER)
    assert await _squash_of(stage, admin, head) is None


async def _squash_of(stage: Stage, at: Endpoint, commit: str) -> Squash | None:
    engine = stage.engine
    assert isinstance(engine, SquashingEngine)
    return await engine.squash_of(at, "shop", commit)


async def test_what_is_committed_while_it_is_squashed_stays_on_the_source_and_is_not_squashed(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await stage.kit.version(admin)
    tags = terminusrefs.create_tag

    async def busy(api: Api, database: str, tag: str, commit: str) -> None:
        await stage.kit.insert(admin)
        await tags(api, database, tag, commit)
        await stage.kit.insert(admin)

    monkeypatch.setattr(terminusrefs, "create_tag", busy)
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await stage.kit.count(admin) == stage.kit.rows + 4
    assert await stage.kit.count(admin, "small") == stage.kit.rows


async def test_a_branch_that_somebody_else_makes_meanwhile_stays_theirs(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await stage.kit.version(admin)
    cuts = terminusrefs._cut

    async def overtaken(api: Api, database: str, branch: str, commit: str) -> None:
        if branch == "small":
            await _branch(admin, "small")
        await cuts(api, database, branch, commit)

    monkeypatch.setattr(terminusrefs, "_cut", overtaken)
    for words in ("api:BranchExistsError", f"there already, at {head}"):
        with pytest.raises(EngineError, match=words):
            await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
        assert await stage.kit.version(admin, "small") == head
    assert await _squash_of(stage, admin, head) is None


async def test_an_operator_that_dies_goes_on_from_what_was_squashed(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await stage.kit.version(admin)
    with monkeypatch.context() as patched:
        patched.setattr(terminusrefs, "create_branch", _dies)
        with pytest.raises(ConnectionError):
            await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    [held] = await stage.engine.tags(admin, "shop", "coppice/")
    assert (await stage.engine.inspect(admin)).state_of("small") is None
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await stage.kit.version(admin, "small") == held.commit
    assert await _tags(stage, admin) == []


async def _dies(*_: object) -> None:
    raise ConnectionError


async def test_one_that_dies_before_the_server_has_answered_squashes_the_same_once_more(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await stage.kit.version(admin)
    calls = Api.call

    async def unheard(api: Api, method: str, path: str, **more: Any) -> Answer:
        answer = await calls(api, method, path, **more)
        if path.startswith("squash/"):
            raise ConnectionError
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(Api, "call", unheard)
        with pytest.raises(ConnectionError):
            await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    await stage.kit.insert(admin)
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await stage.kit.count(admin, "small") == stage.kit.rows
    assert await _squash_of(stage, admin, await stage.kit.version(admin, "small")) == Squash(head, MAKER)


async def test_a_squash_that_takes_long_is_waited_for_by_nobody_and_done_once(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, ended, asked = await stage.kit.version(admin), asyncio.Event(), []
    calls = Api.call

    async def slow(api: Api, method: str, path: str, **more: Any) -> Answer:
        if path.startswith("squash/"):
            asked.append(more["patience"])
            await ended.wait()
        return await calls(api, method, path, **more)

    monkeypatch.setattr(Api, "call", slow)
    monkeypatch.setattr(terminussquash, "PATIENCE", 0.2)
    for _ in range(2):
        with pytest.raises(UnderWayError):
            await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    ended.set()
    monkeypatch.setattr(terminussquash, "PATIENCE", 30)
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert len(asked) == 1
    assert asked[0] >= 3600
    assert await stage.kit.count(admin, "small") == stage.kit.rows


@pytest.mark.parametrize("wrong", [{"branch": "feature/a"}, {"branch": "coppice-tag.v.0"}, {"commit": "0" * 31}])
async def test_what_cannot_be_is_refused_before_anything_is_squashed(
    stage: Stage, admin: Endpoint, wrong: dict[str, str]
) -> None:
    head = await stage.kit.version(admin)
    with pytest.raises(EngineError, match=r"slash|is a tag|no commit"):
        await stage.engine.execute(admin, SQUASH_ACTION, {**_wish(head), **wrong})
    assert await _tags(stage, admin) == []


async def test_an_operator_that_dies_when_the_branch_is_there_has_the_tag_taken_away_afterwards(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await stage.kit.version(admin)
    with monkeypatch.context() as patched:
        patched.setattr(terminusrefs, "delete_tag", _dies)
        # To move the tag to the outcome is to delete it first: with that it goes on.
        patched.setattr(terminusrefs, "create_tag", _cut_anew)
        with pytest.raises(ConnectionError):
            await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    there = await stage.kit.version(admin, "small")
    assert await _tags(stage, admin) != []
    for _ in range(2):
        await stage.engine.execute(admin, FORGET_ACTION, {"database": "shop", "maker": MAKER})
    assert await _tags(stage, admin) == []
    assert await stage.kit.version(admin, "small") == there


async def _cut_anew(api: Api, database: str, tag: str, commit: str) -> None:
    found = terminusrefs.tags(await terminusrefs.branches(api, database), tag)
    await terminusrefs._cut(api, database, terminusrefs.tag_branch(tag, int(time.time()) + len(found)), commit)


async def test_a_squash_that_is_forgotten_ends_and_leaves_nothing(
    stage: Stage, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, asked, ended, calls = await stage.kit.version(admin), asyncio.Event(), [], Api.call

    async def slow(api: Api, method: str, path: str, **more: Any) -> Answer:
        if path.startswith("squash/"):
            asked.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.append(path)
        return await calls(api, method, path, **more)

    monkeypatch.setattr(Api, "call", slow)
    monkeypatch.setattr(terminussquash, "PATIENCE", 0.2)
    with pytest.raises(UnderWayError):
        await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    await asyncio.wait_for(asked.wait(), 60)
    assert await _tags(stage, admin) == [f"coppice/squash/{MAKER}"]
    await stage.engine.execute(admin, FORGET_ACTION, {"database": "shop", "maker": MAKER})
    assert len(ended) == 1
    assert await _tags(stage, admin) == []
    assert [state.branch for state in (await stage.engine.inspect(admin)).branches] == ["main"]


@pytest.mark.parametrize("age", [60, -600])
async def test_of_several_tags_of_the_name_one_counts_and_all_go(stage: Stage, admin: Endpoint, age: int) -> None:
    """A call of an earlier try may come late, and whoever may write may make any branch."""
    for seconds in (age, age + 90_000):
        await _branch(admin, terminusrefs.tag_branch(f"coppice/squash/{MAKER}", int(time.time()) - seconds))
    await stage.kit.insert(admin)
    head = await stage.kit.version(admin)
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await _squash_of(stage, admin, await stage.kit.version(admin, "small")) == Squash(head, MAKER)
    assert await stage.kit.count(admin, "small") == await stage.kit.count(admin)
    assert await _tags(stage, admin) == []


async def test_where_the_same_commit_is_held_twice_the_squash_goes_on(stage: Stage, admin: Endpoint) -> None:
    head = await stage.kit.version(admin)
    for age in (60, 30):
        await _branch(admin, terminusrefs.tag_branch(f"coppice/squash/{MAKER}", int(time.time()) - age))
    await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert await stage.kit.count(admin, "small") == await stage.kit.count(admin)
    assert await _tags(stage, admin) == []


async def test_a_server_that_goes_away_over_it_counts_as_a_failure(
    stage: Stage, server: Server, admin: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not answer is asked again and again, and each time all is written once more."""
    head, calls = await stage.kit.version(admin), Api.call

    async def gone(api: Api, method: str, path: str, **more: Any) -> Answer:
        if path.startswith("squash/"):
            raise UnreachableError("the server does not answer (ReadError)")
        return await calls(api, method, path, **more)

    monkeypatch.setattr(Api, "call", gone)
    with pytest.raises(EngineError, match="came to no end") as raised:
        await stage.engine.execute(admin, SQUASH_ACTION, _wish(head))
    assert not isinstance(raised.value, UnreachableError)


async def test_a_squash_that_somebody_else_claims_to_be_is_none(stage: Stage, server: Server, admin: Endpoint) -> None:
    """Only the administrator's own words count."""
    app = await stage.ensure_app(server)
    head = await stage.kit.version(admin)
    message = f"mine\n\nCoppice-Squash: {head} {MAKER}"
    squashed = await call(app, "POST", "squash/admin/shop", {"commit_info": {"author": "a", "message": message}})
    assert await _squash_of(stage, admin, squashed["api:commit"].rpartition("/")[2]) is None


async def test_neither_of_two_histories_is_merged_into_the_other(stage: Stage, admin: Endpoint) -> None:
    engine = stage.engine
    assert isinstance(engine, MergingEngine)
    await engine.execute(admin, SQUASH_ACTION, _wish(await stage.kit.version(admin)))
    await stage.kit.insert(admin, "small")
    heads = [await stage.kit.version(admin, branch) for branch in ("main", "small")]
    assert await engine.merge_base(admin, "shop", *heads) is None
    for target, source in (heads, heads[::-1]):
        inputs = MergeInputs("shop", target, source, Signature("a", "a@example.com"), "merge", "salt")
        with pytest.raises(UnrelatedError, match="share no commit"):
            await engine.merge(admin, inputs)
