"""What is TerminusDB's own: torn labels, versions that are refused, and what the contract suite asks of others in SQL.

What only the protocol double shows is marked so: ``only_the_double``. The rest runs against the real program, too, where COPPICE_TERMINUSDB_BIN names it.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.engines import terminusrefs, terminusupkeep
from coppice.engines.base import TORN_COPY, Endpoint, EngineError, Reference, UnreachableError, Version
from coppice.engines.terminusapi import Answer, Api, LateAnswerError, TornLabelError
from coppice.engines.terminusdb import TerminusDBEngine
from coppice.engines.upkeep import OPTIMIZE_ACTION, Outcome, Size, UpkeepEngine, parse_size

from .conftest import MARKER, Stage, open_stage, version_of
from .runner import PATIENCE, Server
from .terminus_kit import DOUBLE, REAL, call, documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FACTS = json.loads((DOUBLE.parent / "facts.json").read_text())
only_the_double = pytest.mark.skipif(
    REAL in os.environ, reason="the double is made to do this, the real server cannot be"
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("terminusdb") as stage:
        yield stage


def _label(volume: Path, name: str) -> Path:
    [found] = (volume / "terminusdb/db").glob(f"*{name}.label")
    return found


@pytest.mark.parametrize(
    "torn", ["", "7\n", "seven\n{layer}\n", "7\n{layer}\nmore\n", "7\n0000\n", "7\n" + "0" * 40 + "\n"]
)
@pytest.mark.parametrize("name", ["shop", "system%2fdata"])
async def test_a_copy_with_a_torn_label_is_told_from_any_other_failure(
    stage: Stage, loaded: Path, torn: str, name: str
) -> None:
    label = _label(loaded, name)
    _, layer = label.read_text().splitlines()
    label.write_text(torn.format(layer=layer))
    outcome = await stage.runner.run(stage.preparation(), loaded)
    assert outcome.code == TORN_COPY
    assert name in outcome.reason
    assert "torn" in outcome.reason


async def test_a_layer_that_is_not_there_or_empty_is_found(stage: Stage, loaded: Path) -> None:
    _, layer = _label(loaded, "shop").read_text().splitlines()
    (loaded / "terminusdb/db" / layer[:3] / f"{layer}.larch").write_bytes(b"")
    assert (await stage.runner.run(stage.preparation(), loaded)).code == TORN_COPY


async def test_a_clones_server_does_not_start_on_a_torn_label(stage: Stage, loaded: Path) -> None:
    copy, content = await stage.prepared(loaded)
    _label(copy, "shop").write_text("")
    outcome = await stage.runner.run(stage.clone(version_of(content)), copy, stage.secret())
    assert outcome.code == TORN_COPY


async def test_terminusdb_itself_does_not_start_on_a_torn_label_of_its_system(stage: Stage, loaded: Path) -> None:
    _label(loaded, "system%2fdata").write_text("")
    serve = 'TERMINUSDB_SERVER_DB_PATH="$COPPICE_DATA/terminusdb/db" TERMINUSDB_SERVER_PORT="$COPPICE_PORT" terminusdb serve'
    outcome = await stage.runner.run(stage.store(), loaded, stage.secret(), script=serve)
    assert outcome.code not in {0, TORN_COPY}


async def test_a_server_says_that_it_is_well_while_a_database_does_not_open(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        _label(loaded, "shop").write_text("")
        await call(stage.admin(server), "GET", "ok")
        with pytest.raises(TornLabelError):
            await stage.engine.inspect(stage.admin(server))


@only_the_double
async def test_a_version_that_loses_documents_is_refused_unless_it_is_allowed(
    stage: Stage, loaded: Path, tmp_path: Path
) -> None:
    old = stage.runner.new("old") / "terminusdb"
    old.write_text(f'#!/bin/sh\nexport TERMINUSDB_DOUBLE_VERSION=12.0.5\nexec "{DOUBLE}/terminusdb" "$@"\n')
    old.chmod(0o755)
    stage.runner.path = f"{old.parent}{os.pathsep}{stage.runner.path}"
    for workload in (stage.store(), stage.preparation()):
        outcome = await stage.runner.run(workload, loaded, stage.secret())
        assert outcome.code not in {0, TORN_COPY}
        assert "12.0.5 loses documents" in outcome.reason

    willing = Stage(TerminusDBEngine(any_version=True), stage.kit, stage.runner)
    async with willing.runner.serving(willing.store(), loaded, willing.secret()) as server:
        assert (await willing.engine.inspect(willing.admin(server))).engine_version == "12.0.5"
        with pytest.raises(EngineError, match=r"12\.0\.5 loses documents"):
            await stage.engine.inspect(stage.admin(server))
        admin, product = willing.admin(server), {"@type": "Product", "id": "9", "name": "née"}
        told = await call(admin, "POST", "document/admin/shop?author=a&message=m", product)
        assert told == ["Product/9"]
        assert told[0] not in {document["@id"] for document in await documents(admin, "admin/shop")}


async def test_every_write_is_a_commit_that_has_a_name_a_prefix_and_a_time(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        old = version_of(await engine.inspect(admin))
        await stage.kit.insert(admin)
        new = version_of(await engine.inspect(admin))
        assert new.head != old.head
        assert new.working_root == new.head
        for reference in (Reference(commit=old.head), Reference(commit=old.head[:8])):
            found = await engine.resolve(admin, database, reference)
            assert (found.head, found.new_branch, found.branch) == (old.head, True, "coppice")
        assert (await engine.resolve(admin, database, Reference(time="2999-01-01T00:00:00+01:00"))).head == new.head


async def test_a_branch_is_made_once_and_moves_by_itself(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        head = version_of(await engine.inspect(admin)).head
        make = {"database": database, "branch": "it's-50%-$new", "commit": head}
        await engine.execute(admin, "create-branch", make)
        await engine.execute(admin, "create-branch", make)
        await stage.kit.insert(admin, "it%27s-50%25-%24new")
        content = await engine.inspect(admin)
        assert version_of(content).head == head
        moved = version_of(content, "it's-50%-$new").head
        with pytest.raises(EngineError, match=moved):
            await engine.execute(admin, "create-branch", make)
        with pytest.raises(EngineError, match="slash"):
            await engine.execute(admin, "create-branch", {**make, "branch": "feature/a"})
        _, reported = await stage.prepared(loaded, server)
        assert reported == content


async def test_what_others_commit_is_activity_and_what_coppice_does_is_not(stage: Stage, loaded: Path) -> None:
    engine = stage.engine
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, app = stage.admin(server), await stage.ensure_app(server)
        assert (await engine.activity(admin)).token == ""
        await stage.kit.insert(app)
        token = (await engine.activity(admin)).token
        assert token
        content = await engine.inspect(admin)
        await engine.execute(
            admin, "create-branch", {"database": "shop", "branch": "b", "commit": version_of(content).head}
        )
        await stage.ensure_app(server)
        await engine.schema(admin, "shop")
    async with stage.runner.serving(stage.store(), loaded, server.secret) as server:
        await engine.inspect(stage.admin(server))
        await stage.kit.insert(stage.app(server), "b")
        assert (await engine.activity(stage.admin(server))).token != token


async def test_the_schema_is_told_class_by_class(stage: Stage, loaded: Path) -> None:
    engine = stage.engine
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, app = stage.admin(server), await stage.ensure_app(server)
        before = await engine.schema(admin, "shop")
        assert set(before) == {"class Product", "prefixes"}
        await stage.kit.insert(app)
        assert await engine.schema(admin, "shop") == before
        extra = {"@id": "Extra", "@type": "Class", "note": "xsd:string"}
        await call(app, "POST", "document/admin/shop?graph_type=schema&author=a&message=m", extra)
        after = await engine.schema(admin, "shop")
        assert set(after) - set(before) == {"class Extra"}
        assert {name: after[name] for name in before} == before
        assert await engine.ledger(admin, "shop") is None


async def test_a_clone_of_another_branch_is_bound_to_it(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        admin = stage.admin(source)
        head = version_of(await engine.inspect(admin)).head
        await engine.execute(admin, "create-branch", {"database": database, "branch": "dev", "commit": head})
        await stage.kit.insert(admin, "dev")
        asked = await engine.resolve(admin, database, Reference(branch="dev"))
        copy, content = await stage.prepared(loaded, source)
    assert version_of(content, "dev") == asked
    async with stage.runner.serving(stage.clone(asked), copy, stage.secret()) as clone:
        app = await stage.ensure_app(clone)
        assert await _bound(stage, app, asked) == stage.kit.rows + 1
        assert await stage.kit.count(app) == stage.kit.rows
        state = (await engine.inspect(stage.admin(clone), database=database)).state_of("dev")
        assert state is not None
        assert (state.head, state.working_root) == (asked.head, asked.working_root)


async def test_a_clone_of_a_commit_has_a_branch_of_its_own_cut_once(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        admin = stage.admin(source)
        old = version_of(await engine.inspect(admin))
        await stage.kit.tag(admin, "v1")
        await stage.kit.insert(admin)
        asked = [
            await engine.resolve(admin, database, reference)
            for reference in (Reference(tag="v1"), Reference(commit=old.head), Reference(commit=old.head[:8]))
        ]
        copy, _ = await stage.prepared(loaded, source)
    assert {(version.head, version.branch, version.new_branch) for version in asked} == {(old.head, "coppice", True)}
    version, secret = asked[0], stage.secret()
    for added in range(2):
        async with stage.runner.serving(stage.clone(version), copy, secret) as clone:
            app = await stage.ensure_app(clone)
            assert await _bound(stage, app, version) == stage.kit.rows + added
            assert await stage.kit.count(app) == stage.kit.rows + 1
            if not added:
                state = (await engine.inspect(stage.admin(clone), database=database)).state_of("coppice")
                assert state is not None
                assert state.head == version.head
                await stage.kit.insert(app, "coppice")


async def _bound(stage: Stage, app: Endpoint, version: Version) -> int:
    """Count what an app gets that goes by its binding alone."""
    binding = stage.engine.binding(
        host=app.host, database=version.database, password=app.password, branch=version.branch
    )
    return len(await documents(app, f"admin/{binding['database']}"))


async def test_a_tag_is_a_branch_that_is_shown_as_none(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        before = await engine.inspect(admin)
        await stage.kit.tag(admin, "v1")
        assert await engine.inspect(admin) == before
        [tag] = await engine.tags(admin, database, "v")
        assert (tag.name, tag.commit) == ("v1", version_of(before).head)
        _, reported = await stage.prepared(loaded, server)
        assert reported == before
        with pytest.raises(EngineError, match="is a tag"):
            await engine.execute(
                admin, "create-branch", {"database": database, "branch": "coppice-tag.v2.0", "commit": tag.commit}
            )


async def test_a_branch_is_deleted_where_it_was_seen_only(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        head = version_of(await engine.inspect(admin)).head
        await engine.execute(admin, "create-branch", {"database": database, "branch": "b", "commit": head})
        await stage.kit.insert(admin, "b")
        delete = {"database": database, "branch": "b", "head": head, "keep": "coppice/deleted/b/1"}
        moved = await stage.kit.version(admin, "b")
        with pytest.raises(EngineError, match=moved):
            await engine.execute(admin, "delete-branch", delete)
        assert await engine.tags(admin, database, "") == []
        for _ in range(2):
            await engine.execute(admin, "delete-branch", {**delete, "head": moved})
            assert (await engine.inspect(admin)).state_of("b") is None
            assert await engine.contains(admin, database, head, (moved,)), "a commit stays when its branch goes"


async def test_a_branch_that_is_written_to_while_it_is_deleted_comes_back_with_that(
    stage: Stage, loaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TerminusDB deletes a branch wherever it is by then."""
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        head = version_of(await engine.inspect(admin)).head
        await engine.execute(admin, "create-branch", {"database": database, "branch": "b", "commit": head})
        await engine.execute(admin, "create-branch", {"database": database, "branch": "gone", "commit": head})
        await stage.kit.insert(admin, "gone")
        earlier = await stage.kit.version(admin, "gone")
        await call(admin, "DELETE", "branch/admin/shop/local/branch/gone")
        deletes = terminusrefs._delete

        async def after_another(api: Api, database: str, branch: str) -> None:
            if branch == "b":
                await stage.kit.insert(admin, "b")
                await stage.kit.insert(admin, "b")
            await deletes(api, database, branch)

        monkeypatch.setattr(terminusrefs, "_delete", after_another)
        delete = {"database": database, "branch": "b", "head": head, "keep": "coppice/deleted/b/1"}
        with pytest.raises(EngineError, match="meanwhile"):
            await engine.execute(admin, "delete-branch", delete)
        assert await stage.kit.count(admin, "b") == stage.kit.rows + 2
        assert version_of(await engine.inspect(admin), "b").head != earlier


async def test_the_documents_of_the_example_load_and_are_in_its_clone(stage: Stage) -> None:
    volume, example = stage.runner.new("volume"), Path(__file__).parents[2] / "examples/terminusdb"
    load = stage.runner.load({file.name: file.read_bytes() for file in example.glob("*.json*")})
    async with stage.runner.serving(stage.store(), volume, stage.secret(), load=load) as store:
        assert set(await stage.engine.schema(stage.admin(store), stage.kit.database)) >= {
            "class Track",
            "class Invoice",
        }
        copy, content = await stage.prepared(volume, store)
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        app = await stage.ensure_app(clone)
        [artist] = await call(app, "GET", "document/admin/shop?type=Artist&as_list=true&id=Artist/90")
        assert artist["name"] == "Iron Maiden"
        for kind, number in {"Track": 3503, "Album": 347, "Customer": 59, "Invoice": 412, "Playlist": 18}.items():
            assert len(await documents(app, "admin/shop", kind)) == number


@pytest.mark.parametrize("where", ["", "app/storage/db"])
async def test_a_volume_of_somebody_elses_server_is_adopted(stage: Stage, loaded: Path, where: str) -> None:
    theirs = stage.runner.new("theirs")
    (theirs / "lost+found").mkdir()
    (theirs / "notes.txt").write_text("x")
    (theirs / where).mkdir(parents=True, exist_ok=True)
    for entry in (loaded / "terminusdb/db").iterdir():
        entry.rename(theirs / where / entry.name)
    outcome = await stage.runner.run(stage.preparation(adopted=True), theirs)
    assert outcome.code == 0, outcome.errors
    content = stage.engine.report(outcome.last_line)
    assert {entry.name for entry in theirs.iterdir()} == {"terminusdb", "lost+found"}
    async with stage.runner.serving(stage.clone(version_of(content)), theirs, stage.secret()) as clone:
        assert await stage.kit.count(stage.admin(clone)) == stage.kit.rows


async def test_a_server_is_optimized_part_by_part_and_holds_what_it_held(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        await stage.kit.tag(admin, "v1")
        await stage.kit.insert(admin)
        before, classes = await stage.engine.inspect(admin), await stage.engine.schema(admin, stage.kit.database)
        assert isinstance(stage.engine, UpkeepEngine)
        parts = await stage.engine.parts(admin)
        branches = [f"admin/shop/local/branch/{name}" for name in ("coppice-tag.v1.0", "main")]
        assert parts == ["_system", "admin/shop/_meta", "admin/shop/local/_commits", *branches]
        for number, part in enumerate((*parts, *parts)):
            assert await _optimized(stage.engine, admin, part, turn=str(number)) == Outcome()
        assert await stage.engine.inspect(admin) == before
        assert await stage.engine.schema(admin, stage.kit.database) == classes
        assert [tag.name for tag in await stage.engine.tags(admin, stage.kit.database, "v")] == ["v1"]
        assert await stage.kit.count(admin) == stage.kit.rows + 1
        refused = await _optimized(stage.engine, admin, "admin/nope/_meta", turn="nope")
        assert isinstance(refused.error, EngineError)
        assert not isinstance(refused.error, UnreachableError)
        assert stage.engine.outcome("uid", "0") is None
    gone = await _optimized(stage.engine, admin, "_system", turn="gone")
    assert isinstance(gone.error, UnreachableError)
    _, reported = await stage.prepared(loaded)
    assert reported == before


async def _optimized(engine: UpkeepEngine, at: Endpoint, part: str, *, turn: str, of: str = "uid") -> Outcome:
    """Optimize a part; return what has become of that."""
    wanted = {"part": part, "of": of, "turn": turn}
    for _ in range(PATIENCE):
        await engine.execute(at, OPTIMIZE_ACTION, wanted)
        outcome = engine.outcome(of, turn)
        assert outcome is not None
        if outcome.ended:
            return outcome
    raise AssertionError(f"{part} is not optimized")


async def test_a_part_that_takes_long_is_waited_for_by_nobody_and_done_once(
    stage: Stage, loaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, ended, asked, calls = stage.admin(server), asyncio.Event(), [], Api.call

        async def slow(api: Api, method: str, path: str, **more: Any) -> Answer:
            asked.append(path)
            await ended.wait()
            return await calls(api, method, path, **more)

        monkeypatch.setattr(Api, "call", slow)
        monkeypatch.setattr(terminusupkeep, "PATIENCE", 0.1)
        for turn, part in (("1", "admin/shop/_meta"), ("1", "admin/shop/_meta"), ("2", "_system")):
            await stage.engine.execute(admin, OPTIMIZE_ACTION, {"part": part, "of": "long", "turn": turn})
        assert asked == ["optimize/admin/shop/_meta"]
        assert isinstance(stage.engine, UpkeepEngine)
        assert stage.engine.outcome("long", "1") == Outcome(ended=False)
        assert stage.engine.outcome("long", "2") is None
        ended.set()
        assert await _optimized(stage.engine, admin, "admin/shop/_meta", turn="1", of="long") == Outcome()
        assert asked == ["optimize/admin/shop/_meta"]


async def test_a_part_over_which_the_server_is_late_is_no_server_that_is_silent(
    stage: Stage, loaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(api: Api, method: str, path: str, **more: Any) -> Answer:
        raise LateAnswerError("the server has not finished its answer")

    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        monkeypatch.setattr(Api, "call", late)
        assert isinstance(stage.engine, UpkeepEngine)
        outcome = await _optimized(stage.engine, stage.admin(server), "_system", turn="late")
        assert not isinstance(outcome.error, UnreachableError)
        assert "may still be at it" in str(outcome.error)


async def test_a_stores_server_says_how_large_its_data_are_and_ends_all_the_same(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        size = await _told_size(server)
        files = [entry for entry in (loaded / "terminusdb/db").rglob("*.larch") if entry.is_file()]
        assert 0 < size.layers <= len(files)
        assert size.bytes > 0
        assert server.secret["admin-password"] not in server.log.read_text()
        await server.stop()


async def _told_size(server: Server) -> Size:
    for _ in range(PATIENCE * 20):
        if (size := parse_size(server.log.read_text())) is not None:
            return size
        await asyncio.sleep(0.05)
    raise AssertionError("the server has told no size")


async def test_a_volume_tells_of_the_snapshot_it_is_of(stage: Stage, loaded: Path) -> None:
    copy, _ = await stage.prepared(loaded)
    assert (copy / "terminusdb/marker").read_text() == f"{MARKER}\n"
    assert {entry.name for entry in (copy / "terminusdb").iterdir()} == {"db", "marker"}


@pytest.mark.parametrize("name", sorted(FACTS["answers"]))
async def test_what_was_seen_of_the_real_server_is_what_is_answered(stage: Stage, loaded: Path, name: str) -> None:
    """The double answers as recorded; so must the real one, of whatever version it is."""
    import httpx

    fact = FACTS["answers"][name]
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        login = (admin.username, "wrong" if fact.get("login") == "wrong" else admin.password)
        auth = None if fact.get("login") == "none" else login
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", auth=auth, timeout=PATIENCE) as client:
            for before in fact.get("before", ()):
                await client.request(before["method"], before["path"], json=before.get("body"))
            expected = {"TerminusDB-Data-Version": fact["expects"]} if "expects" in fact else {}
            answer = await client.request(fact["method"], fact["path"], json=fact.get("body"), headers=expected)
    assert answer.status_code == fact["status"]
    if "kind" in fact:
        assert answer.json()["api:error"]["@type"] == fact["kind"]
    if "response" in fact:
        assert answer.json()["@type"] == fact["response"]
    assert set(fact.get("holds", ())) <= (set(answer.json()) if answer.content else set())
    if "empty" in fact:
        assert answer.content == b""
    for header in fact.get("headers", ()):
        assert header in answer.headers
