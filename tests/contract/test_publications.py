"""The store takes a result: by compare-and-set, whoever else writes, and whatever is killed on the way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pymysql.err
import pytest
import pytest_asyncio

from coppice.engines import doltfetching, doltremotes, mysql
from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, Preparation, UnreachableError
from coppice.engines.merging import MergeInputs, TargetBusyError, TargetMovedError

from .conftest import MARKER, Stage, open_stage, version_of
from .merge_cases import PLAIN
from .merge_kit import Database, Databases, run
from .runner import Server, environment_of, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEDULES = int(os.environ.get("COPPICE_MERGE_SCHEDULES", "12"))
SIGHTINGS = 5
"""Of how many statements that make a login an app must have had a look, for its finding nothing to mean something."""
KILLS = int(os.environ.get("COPPICE_MERGE_KILLS", "12"))


class KilledError(Exception):
    """Whoever did it is no more."""


@dataclass
class Pair:
    """A store, and a scratch server that can take any database from it."""

    stage: Stage
    store: Server
    scratch: Server
    databases: Databases

    def host(self, server: Server) -> str:
        return f"127.0.0.1:{server.port + 1}"

    async def let_in(self) -> None:
        """Let the store fetch from the scratch server, and that one from the store."""
        for server, other in ((self.store, self.scratch), (self.scratch, self.store)):
            arguments = {"password": other.secret["remote-password"]}
            await self.stage.engine.execute(self.stage.admin(server), "ensure-fetch-user", arguments)

    async def copy(self, database: Database) -> Database:
        """Give the scratch server what a copy of the store's volume has."""
        at = self.stage.admin(self.scratch)
        await self.let_in()
        url = f"http://{self.host(self.store)}/{database.name}"
        await run(at, None, [f"CALL dolt_clone('--user', 'coppice-fetch', '{url}')"])
        await run(at, database.name, ["CALL dolt_remote('remove', 'origin')"])
        return Database(Databases(at), database.name)

    async def begun(self) -> tuple[Database, Database]:
        """Return a new database of the store, and the scratch server's copy with a branch ``work``."""
        database = await self.databases.new(PLAIN)
        copy = await self.copy(database)
        await copy.branch("work")
        return database, copy

    async def publish(self, inputs: MergeInputs, result: str, branch: str = "main") -> None:
        await self.stage.engine.execute(
            self.stage.admin(self.store),
            "publish",
            {
                "database": inputs.database,
                "branch": branch,
                "expected": inputs.target,
                "source": inputs.source,
                "result": result,
                "host": self.host(self.scratch),
                "password": self.store.secret["remote-password"],
            },
        )

    async def fast_forward(self, database: Database, expected: str, result: str) -> None:
        offered = {"database": database.name, "commit": result}
        await self.stage.engine.execute(self.stage.admin(self.scratch), "offer", offered)
        at, password = self.stage.admin(self.store), self.store.secret["remote-password"]
        move = {"database": database.name, "branch": "main", "expected": expected, "result": result}
        move |= {"host": self.host(self.scratch), "password": password}
        await self.stage.engine.execute(at, "fast-forward", move)

    async def merged_into(self, database: Database, copy: Database, head: str) -> tuple[str, str]:
        """Merge what the first server's branch is at into a commit of the scratch server; return both versions."""
        own = await _head(database)
        fetch = {"database": copy.name, "host": self.host(self.store), "commit": own}
        await copy.server.engine.execute(copy.server.at, "fetch", fetch)
        outcome = await copy.server.engine.merge(copy.server.at, copy.inputs(head, own))
        assert outcome.result is not None
        return own, outcome.result

    async def fetch_result(self, inputs: MergeInputs, result: str) -> None:
        arguments = {"database": inputs.database, "host": self.host(self.scratch), "result": result}
        await self.stage.engine.execute(self.stage.admin(self.store), "fetch-result", arguments)

    async def fetch_result_and_die(
        self, inputs: MergeInputs, result: str, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        """Fetch a result, and be killed where a function of the fetch is called."""

        async def killed(*_: object) -> None:
            raise KilledError

        with monkeypatch.context() as patched:
            patched.setattr(doltfetching, at, killed)
            with pytest.raises(KilledError):
                await self.fetch_result(inputs, result)

    async def sweep(self, database: Database) -> None:
        await self.stage.engine.execute(self.stage.admin(self.store), "sweep", {"database": database.name})

    async def merged(self, database: Database, copy: Database, source: str) -> tuple[MergeInputs, str]:
        """Merge a commit of the scratch server into what the store's branch is at now."""
        [(head,)] = await database.ask("SELECT hash FROM dolt_branches WHERE name = 'main'")
        fetch = {"database": copy.name, "host": self.host(self.store), "commit": head}
        await copy.server.engine.execute(copy.server.at, "fetch", fetch)
        inputs = copy.inputs(head, source)
        outcome = await copy.server.engine.merge(copy.server.at, inputs)
        assert outcome.result is not None
        return inputs, outcome.result


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    with open_stage("dolt") as stage:
        workload, run = stage.store(load=False), stage.runner
        async with (
            run.serving(workload, run.new("volume"), stage.secret()) as store,
            run.serving(workload, run.new("volume"), stage.secret()) as scratch,
        ):
            yield Pair(stage, store, scratch, Databases(stage.admin(store)))


async def _left(database: Database) -> list[object]:
    """Return what a publication has made in the store and not taken away."""
    asked = (
        "SELECT name FROM dolt_remotes",
        "SELECT name FROM dolt_remote_branches",
        "SELECT name FROM dolt_branches WHERE name LIKE 'coppice%'",
        "SELECT user FROM mysql.user WHERE user LIKE 'coppice-push%'",
    )
    return [row for statement in asked for row in await database.ask(statement)]


async def _head(database: Database) -> str:
    [(head,)] = await database.ask("SELECT hash FROM dolt_branches WHERE name = 'main'")
    return str(head)


def _before_each_push(monkeypatch: pytest.MonkeyPatch, step: Callable[[], Awaitable[object]]) -> None:
    """Do something in the middle of a publication: when all is made that its push needs."""
    push = doltremotes._push

    async def after_step(*arguments: Any) -> None:
        await step()
        await push(*arguments)

    monkeypatch.setattr(doltremotes, "_push", after_step)


class TestFetchResult:
    async def test_what_was_fetched_before_is_published_without_asking_anybody_again(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, result = await pair.merged(database, copy, source)
        head = await _head(database)
        for _ in range(2):
            await pair.fetch_result(inputs, result)
            assert await _head(database) == head
        await pair.stage.engine.execute(pair.stage.admin(pair.scratch), "drop-fetch-user", {})
        try:
            await pair.publish(inputs, result)
        finally:
            await pair.let_in()
        assert await _head(database) == result
        assert await _left(database) == []

    @pytest.mark.parametrize("take", ["fetch_result", "publish"])
    async def test_no_tag_comes_with_it(self, pair: Pair, take: str) -> None:
        """In the preview apps may make some, of whatever name."""
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        before = await _head(database)
        await database.ask("CALL dolt_tag('coppice/x/before', 'main')")
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, result = await pair.merged(database, copy, source)
        for (tag,) in await copy.ask("SELECT tag_name FROM dolt_tags"):
            await copy.ask(f"CALL dolt_tag('-d', '{tag}')")
        for tag, commit in (("planted", before), ("coppice/x/before", source), ("coppice/deleted/main/1", result)):
            await copy.ask(f"CALL dolt_tag('{tag}', '{commit}')")
        await getattr(pair, take)(inputs, result)
        assert await database.ask("SELECT tag_name, tag_hash FROM dolt_tags") == (("coppice/x/before", before),)

    @pytest.mark.parametrize("dies", ["_put_back", "_drop"])
    @pytest.mark.parametrize("then", ["publish", "sweep", "create-tag"])
    async def test_tags_that_came_with_a_fetch_go_although_who_fetched_was_killed(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, dies: str, then: str
    ) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        before = await _head(database)
        for tag in ("coppice/x/before", "moved"):
            await database.ask(f"CALL dolt_tag('{tag}', 'main')")
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, result = await pair.merged(database, copy, source)
        for (tag,) in await copy.ask("SELECT tag_name FROM dolt_tags"):
            await copy.ask(f"CALL dolt_tag('-d', '{tag}')")
        for tag in ("planted", "moved"):
            await copy.ask(f"CALL dolt_tag('{tag}', '{source}')")

        await pair.fetch_result_and_die(inputs, result, monkeypatch, dies)
        own = {}
        if then == "publish":
            await pair.publish(inputs, result)
        elif then == "sweep":
            await pair.sweep(database)
        else:
            own = {"mine": before}
            arguments = {"database": database.name, "tag": "mine", "commit": before}
            await pair.stage.engine.execute(pair.stage.admin(pair.store), then, arguments)
        tags = dict(await database.ask("SELECT tag_name, tag_hash FROM dolt_tags"))
        assert tags == {"coppice/x/before": before, "moved": before, **own}
        left = [name for (name,) in await database.ask("SELECT name FROM dolt_branches") if "tags" in name]
        assert left == []

    async def test_what_somebody_has_tagged_long_after_that_is_theirs(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, result = await pair.merged(database, copy, source)
        await copy.ask(f"CALL dolt_tag('planted', '{source}')")
        await pair.fetch_result_and_die(inputs, result, monkeypatch, "_put_back")
        monkeypatch.setattr(doltfetching, "_LONGEST", timedelta(seconds=1))
        await asyncio.sleep(1.5)
        await database.ask("CALL dolt_tag('later', 'main')")
        await pair.sweep(database)
        assert await database.ask("SELECT tag_name FROM dolt_tags") == (("later",),)

    async def test_what_somebody_else_calls_a_record_of_tags_is_none(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        head = await _head(database)
        await database.ask("CALL dolt_tag('theirs', 'main')")
        await database.branch("coppice/tags-before")
        await database.commit("coppice/tags-before", [], '0 {"forged": "' + head + '"}')
        await pair.sweep(database)
        assert await database.ask("SELECT tag_name FROM dolt_tags") == (("theirs",),)

    async def test_what_the_scratch_server_does_not_have_is_refused_and_leaves_nothing(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, _ = await pair.merged(database, copy, source)
        with pytest.raises(EngineError, match="has no commit"):
            await pair.fetch_result(inputs, "0" * 32)
        assert await _left(database) == []


class TestFastForward:
    """A clone takes what its own changes and its parent's have become."""

    async def test_a_clone_comes_up_to_its_parent_and_keeps_what_it_has(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        await copy.branch("parent")
        head = await copy.commit("parent", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        own, result = await pair.merged_into(database, copy, head)
        for _ in range(2):
            await pair.fast_forward(database, own, result)
            assert await _head(database) == result
        assert await database.ask("SELECT a, b FROM t WHERE id = 1") == ((7, "mine"),)
        assert await database.ask("SELECT * FROM dolt_status") == ()
        assert await _left(database) == []
        await database.commit("main", ["DELETE FROM t WHERE id = 2"])
        await pair.fast_forward(database, own, result)

    async def test_nothing_comes_along_that_is_no_part_of_it(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        for branch in ("parent", "aside"):
            await copy.branch(branch)
        head = await copy.commit("parent", ["UPDATE t SET a = 7 WHERE id = 1"])
        aside = await copy.commit("aside", ["UPDATE t SET a = 8 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        own, result = await pair.merged_into(database, copy, head)
        await copy.ask(f"CALL dolt_branch('-f', 'coppice/offered-{result[:16]}', '{aside}')")
        await pair.fast_forward(database, own, result)
        assert await _head(database) == result
        assert await database.ask(f"SELECT count(*) > 0 FROM dolt_log('{head}')") == ((1,),)
        with pytest.raises(pymysql.err.MySQLError):
            await database.ask(f"SELECT * FROM dolt_log('{aside}')")

    async def test_one_that_has_nothing_of_its_own_becomes_its_parent(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        await copy.branch("parent")
        head = await copy.commit("parent", ["UPDATE t SET a = 7 WHERE id = 1"])
        own, result = await pair.merged_into(database, copy, head)
        assert result == head
        await pair.fast_forward(database, own, result)
        assert await _head(database) == head

    async def test_what_was_written_meanwhile_stays_and_so_does_what_is_not_of_the_clone(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        await copy.branch("parent")
        head = await copy.commit("parent", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 2"])
        own, result = await pair.merged_into(database, copy, head)
        with pytest.raises(EngineError, match="not the merge"):
            await pair.fast_forward(database, own, head)
        await database.ask("UPDATE t SET b = 'later'")
        with pytest.raises(TargetBusyError, match="branch main"):
            await pair.fast_forward(database, own, result)
        later = await database.commit("main", ["UPDATE t SET a = 8 WHERE id = 3"])
        with pytest.raises(TargetMovedError, match=f"is at {later}"):
            await pair.fast_forward(database, own, result)
        assert (await _head(database), await _left(database)) == (later, [])

    @pytest.mark.parametrize("seed", range(max(SCHEDULES // 3, 1)))
    async def test_nothing_is_lost_of_what_apps_write_meanwhile(self, pair: Pair, seed: int) -> None:
        chance = random.Random(seed)
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        await copy.branch("parent")
        head = await copy.commit("parent", ["INSERT INTO t VALUES (1000, 0, 'theirs')"])
        written: list[int] = []

        async def write(writer: int) -> None:
            for number in range(6):
                key = 100 * (writer + 1) + number
                await asyncio.sleep(chance.random() / 20)
                with suppress(pymysql.err.MySQLError):
                    await database.ask(f"INSERT INTO t VALUES ({key}, {writer}, 'written')")
                    written.append(key)
                    await database.ask("CALL dolt_commit('-A', '--skip-empty', '-m', 'written')")

        async def rebase() -> None:
            for attempt in range(200):
                own, result = await pair.merged_into(database, copy, head)
                try:
                    await pair.fast_forward(database, own, result)
                except (TargetMovedError, TargetBusyError):
                    await asyncio.sleep(chance.random() * 0.01 * attempt)
                    continue
                return
            pytest.fail("a busy clone starves its rebase")

        await asyncio.gather(rebase(), *(write(writer) for writer in range(3)))
        present = {row[0] for row in await database.ask("SELECT id FROM t")}
        assert {1, 2, 3, 1000, *written} <= present
        assert await _left(database) == []


class TestPublish:
    async def test_a_result_lands_as_the_commit_that_was_made_and_again_changes_nothing(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET b = 'mine' WHERE id = 1"])
        inputs, result = await pair.merged(database, copy, source)
        for _ in range(2):
            await pair.publish(inputs, result)
            assert await _head(database) == result
        assert await database.ask("SELECT a, b FROM t WHERE id = 1") == ((7, "mine"),)
        assert await database.ask("SELECT * FROM dolt_status") == ()
        assert await _left(database) == []
        await database.commit("main", ["DELETE FROM t WHERE id = 2"])
        await pair.publish(inputs, result)

    async def test_a_target_that_has_moved_stays_where_it_is(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        head = await database.commit("main", ["UPDATE t SET b = 'mine'"])
        with pytest.raises(TargetMovedError, match=f"is at {head}"):
            await pair.publish(inputs, result)
        assert await _head(database) == head
        with pytest.raises(TargetMovedError, match="no branch gone"):
            await pair.publish(inputs, result, branch="gone")

    async def test_a_target_with_uncommitted_changes_keeps_them(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        await database.ask("UPDATE t SET b = 'mine'")
        with pytest.raises(TargetBusyError, match="branch main"):
            await pair.publish(inputs, result)
        assert await database.ask("SELECT DISTINCT b FROM t") == (("mine",),)
        assert await _head(database) == inputs.target
        await database.ask("CALL dolt_reset('--hard')")
        await pair.publish(inputs, result)
        assert await _head(database) == result

    async def test_a_commit_that_is_not_the_merge_stays_out(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        source = await copy.commit("work", ["UPDATE t SET a = 7"])
        inputs, result = await pair.merged(database, copy, source)
        await copy.branch("coppice/merge-planted", "main")
        planted = await copy.commit("coppice/merge-planted", ["UPDATE t SET a = 7"], "ceo has looked at it")
        for other in (planted, source):
            with pytest.raises(EngineError, match="not the merge"):
                await pair.publish(inputs, other)
            assert (await _head(database), await _left(database)) == (inputs.target, [])
        await pair.publish(inputs, result)

    async def test_without_the_scratch_server_nothing_happens(self, pair: Pair) -> None:
        database, copy = await pair.begun()
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        await pair.stage.engine.execute(pair.stage.admin(pair.scratch), "drop-fetch-user", {})
        with pytest.raises(EngineError):
            await pair.publish(inputs, result)
        assert (await _head(database), await _left(database)) == (inputs.target, [])
        await pair.let_in()
        with pytest.raises(EngineError, match="no commit"):
            await pair.publish(inputs, "0" * 32)
        assert (await _head(database), await _left(database)) == (inputs.target, [])

    @pytest.mark.parametrize("seed", range(SCHEDULES))
    async def test_nothing_is_lost_of_what_others_write_meanwhile(self, pair: Pair, seed: int) -> None:
        chance = random.Random(seed)
        database, copy = await pair.begun()
        source = await copy.commit("work", ["INSERT INTO t VALUES (1000, 0, 'published')"])
        written: list[int] = []
        commits: list[str] = []

        async def write(writer: int) -> None:
            for number in range(6):
                key = 100 * (writer + 1) + number
                await asyncio.sleep(chance.random() / 20)
                with suppress(pymysql.err.MySQLError):
                    await database.ask(f"INSERT INTO t VALUES ({key}, {writer}, 'written')")
                    written.append(key)
                    if chance.random() < 0.7:
                        await asyncio.sleep(chance.random() / 100)
                    made = await database.ask("CALL dolt_commit('-A', '--skip-empty', '-m', 'written')")
                    commits.extend(commit for (commit,) in made)

        async def publish() -> str:
            for attempt in range(200):
                inputs, result = await pair.merged(database, copy, source)
                await asyncio.sleep(chance.random() / 50)
                try:
                    await pair.publish(inputs, result)
                except (TargetMovedError, TargetBusyError):
                    await asyncio.sleep(chance.random() * 0.01 * attempt)
                    continue
                return result
            pytest.fail("a busy target starves the request")

        result, *_ = await asyncio.gather(publish(), *(write(writer) for writer in range(3)))
        present = {row[0] for row in await database.ask("SELECT id FROM t")}
        assert {1, 2, 3, 1000, *written} <= present
        history = {row[0] for row in await database.ask("SELECT commit_hash FROM dolt_log")}
        assert {result, *filter(None, commits)} <= history
        assert await _left(database) == []


LEFT = (
    "CREATE USER 'coppice-push-0123456789abcdef'@'{host}' IDENTIFIED BY 'x'",
    "GRANT ALL ON *.* TO 'coppice-push-0123456789abcdef'@'{host}'",
    "CALL dolt_remote('add', 'coppice-self-0123456789abcdef', 'http://127.0.0.1:1/x')",
    "CALL dolt_remote('add', 'coppice-0123456789abcdef', 'http://127.0.0.1:1/x')",
    "CALL dolt_branch('coppice/publish-0123456789abcdef', 'main')",
)


class TestLeftovers:
    @pytest.mark.parametrize("host", ["%", "127.0.0.1"])
    async def test_a_publication_takes_away_what_another_one_has_left(self, pair: Pair, host: str) -> None:
        database, copy = await pair.begun()
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        await run(pair.databases.at, database.name, [statement.format(host=host) for statement in LEFT])
        await pair.publish(inputs, result)
        assert (await _head(database), await _left(database)) == (result, [])

    async def test_a_sweep_takes_away_all_that_was_left_and_no_more(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        await pair.let_in()
        mine = ["CALL dolt_remote('add', 'mine', 'http://127.0.0.1:1/x')", "CALL dolt_branch('coppice/mine', 'main')"]
        await run(pair.databases.at, database.name, [*mine, *(statement.format(host="%") for statement in LEFT)])
        async with mysql.session(pair.databases.at) as session:
            await session.ask(f"USE `{database.name}/coppice/publish-0123456789abcdef`; SELECT 1")
            for _ in range(2):
                await pair.sweep(database)
                assert await _left(database) == [("mine",), ("coppice/mine",)]
        assert await database.ask("SELECT user FROM mysql.user WHERE user LIKE 'coppice-%'") == ()
        assert (await database.ask("SELECT COUNT(*) FROM t")) == ((3,),)

    async def test_a_sweep_lets_a_publication_in_the_middle_go_on(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database, copy = await pair.begun()
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        swept: list[int] = []

        async def sweep() -> None:
            made = await _left(database)
            await pair.sweep(database)
            swept.append(len(made))
            assert await _left(database) == made

        _before_each_push(monkeypatch, sweep)
        publication = asyncio.create_task(pair.publish(inputs, result))
        while not publication.done():
            await pair.sweep(database)
            await pair.let_in()
        await publication
        assert len(swept) == 1
        assert swept[0] > 0
        assert (await _head(database), await _left(database)) == (result, [])


class TestWatched:
    async def test_an_app_that_reads_what_others_run_finds_no_password(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        app = await pair.stage.ensure_app(pair.store, database.name)
        admin, secret = pair.stage.admin(pair.store), pair.store.secret
        seen: set[str] = set()
        over = asyncio.Event()

        async def watch() -> None:
            async with mysql.work_session(app) as session:
                while not over.is_set():
                    [rows] = await session.ask("SELECT info FROM information_schema.processlist WHERE user <> 'app'")
                    seen.update(str(statement) for (statement,) in rows)

        watchers = [asyncio.create_task(watch()) for _ in range(2)]
        for number in range(200):
            made = {"username": f"app{number}", "password": secret["app-password"], "database": database.name}
            await pair.stage.engine.execute(admin, "ensure-app-user", made)
            await pair.stage.engine.execute(admin, "ensure-fetch-user", {"password": secret["remote-password"]})
            if len([statement for statement in seen if "CREATE USER" in statement]) >= SIGHTINGS:
                break
        copy = await pair.copy(database)
        await copy.branch("work")
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        await pair.publish(inputs, result)
        over.set()
        await asyncio.gather(*watchers)
        assert len([statement for statement in seen if "CREATE USER" in statement]) >= SIGHTINGS
        assert [text for text in seen for password in secret.values() if password in text] == []

    async def test_the_login_that_pushes_is_let_in_from_the_server_alone_and_may_do_no_more(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database = await pair.databases.new(PLAIN)
        await pair.stage.protect(pair.store, database.name, "main")
        copy = await pair.copy(database)
        await copy.branch("work")
        inputs, result = await pair.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
        rights: list[object] = []

        async def look() -> None:
            for name, host in await database.ask("SELECT user, host FROM mysql.user WHERE user LIKE 'coppice-p%'"):
                rights.extend(right for (right,) in await database.ask(f"SHOW GRANTS FOR '{name}'@'{host}'"))

        _before_each_push(monkeypatch, look)
        await pair.publish(inputs, result)
        assert rights == [f"GRANT SUPER ON *.* TO `coppice-push-{result[:16]}`@`127.0.0.1`"]


class TestKilled:
    @pytest.mark.parametrize("seed", range(KILLS))
    async def test_a_killed_store_is_before_or_after_and_goes_on(self, pair: Pair, seed: int) -> None:
        stage = pair.stage
        volume, port = stage.runner.new("volume"), 0
        workload, secret = stage.store(load=False), stage.secret()
        async with stage.runner.serving(workload, volume, secret) as store:
            port = store.port
            mine = replace(pair, store=store, databases=Databases(stage.admin(store), numbers=count(1000 + seed)))
            database = await mine.databases.new(PLAIN)
            copy = await mine.copy(database)
            await copy.branch("work")
            inputs, result = await mine.merged(database, copy, await copy.commit("work", ["UPDATE t SET a = 7"]))
            publication = asyncio.ensure_future(mine.publish(inputs, result))
            await asyncio.sleep(seed * 0.2 / KILLS)
            await store.stop(signal.SIGKILL)
            with suppress(EngineError):
                await publication
        async with stage.runner.serving(workload, volume, secret, port=port) as store:
            mine = replace(pair, store=store, databases=Databases(stage.admin(store)))
            head = await _head(database)
            assert head in {inputs.target, result}
            assert await database.ask("SELECT * FROM dolt_status") == ()
            expected = {inputs.target: ((1,), (2,), (3,)), result: ((7,), (7,), (7,))}
            assert await database.ask("SELECT a FROM t ORDER BY id") == expected[head]
            await mine.let_in()
            await mine.publish(inputs, result)
            assert (await _head(database), await _left(database)) == (result, [])


class TestFetch:
    async def test_what_a_clone_has_is_fetched_from_it_and_no_app_pushes_to_it(self, pair: Pair) -> None:
        stage, scratch = pair.stage, pair.stage.admin(pair.scratch)
        volume = stage.runner.new("volume")
        async with stage.runner.serving(stage.store(load=False), volume, stage.secret()) as server:
            database = await Databases(stage.admin(server), numbers=count(5000)).new(PLAIN)
            named = await stage.engine.inspect(stage.admin(server), database="fallback")
            prepared = stage.runner.copy(volume, server)
        outcome = await stage.runner.run(
            stage.engine.preparation(Preparation(marker=MARKER, database=database.name)), prepared
        )
        assert outcome.code == 0, outcome.errors
        assert database.name in named.databases
        version = version_of(stage.engine.report(outcome.last_line))
        async with stage.runner.serving(stage.clone(version), prepared, stage.secret()) as clone:
            origin = replace(pair, store=clone)
            mine = Database(Databases(stage.admin(clone)), database.name)
            commit = await mine.commit("main", ["UPDATE t SET a = 8"])
            copy = await origin.copy(mine)
            await copy.branch("old", "main~1")
            assert await copy.ask("SELECT DISTINCT a FROM t", commit) == ((8,),)
            boss = f"CREATE USER boss@'%' IDENTIFIED BY '{pair.scratch.secret['remote-password']}'"
            await run(mine.server.at, None, [boss, f"GRANT ALL ON {database.name}.* TO boss@'%'"])
            url = f"http://{pair.host(clone)}/{database.name}"
            await run(scratch, copy.name, [f"CALL dolt_remote('add', 'up', '{url}')"])
            with pytest.raises(pymysql.err.MySQLError):
                await run(scratch, copy.name, ["CALL dolt_push('--user', 'boss', 'up', 'old:mine')"])
            assert await mine.ask("SELECT name FROM dolt_branches") == (("main",),)

    async def test_who_may_fetch_reads_nothing_by_sql_and_pushes_nothing(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        await pair.let_in()
        guest = Endpoint("127.0.0.1", pair.store.port, "coppice-fetch", pair.scratch.secret["remote-password"])
        for statement in (
            f"SELECT * FROM {database.name}.t",
            f"INSERT INTO {database.name}.t VALUES (9, 9, 'x')",
            f"USE {database.name}",
            "SELECT user FROM mysql.user",
            "CREATE DATABASE mine",
            "CALL dolt_gc()",
            "DROP USER app",
        ):
            with pytest.raises(pymysql.err.MySQLError, match="denied"):
                await run(guest, None, [statement])
        copy = await pair.copy(database)
        await copy.commit("main", ["DELETE FROM t"])
        url = f"http://{pair.host(pair.store)}/{database.name}"
        at = copy.server.at
        await run(at, copy.name, [f"CALL dolt_remote('add', 'up', '{url}')"])
        for force in ("", "'--force', "):
            with pytest.raises(pymysql.err.MySQLError, match=r"(?i)permission|authoriz"):
                await run(at, copy.name, [f"CALL dolt_push('--user', 'coppice-fetch', {force}'up', 'main')"])
        assert await database.ask("SELECT COUNT(*) FROM t") == ((3,),)

    async def test_the_app_of_the_store_may_neither_fetch_nor_push(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        app = await pair.stage.ensure_app(pair.store, database.name)
        url = f"http://{pair.host(pair.store)}/{database.name}"
        at = copy.server.at
        # Who dials sends the password of its own process: for this once it is the app's.
        assert app.password not in environment_of(pair.scratch.process.pid)
        await run(at, copy.name, [f"CALL dolt_remote('add', 'up', '{url}')"])
        for call in ("CALL dolt_push('--user', 'app', 'up', 'main')", "CALL dolt_fetch('--user', 'app', 'up')"):
            with pytest.raises(pymysql.err.MySQLError, match=r"(?i)denied"):
                await run(at, copy.name, [call])

    async def test_nobody_may_once_the_user_is_gone(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        await pair.let_in()
        for _ in range(2):
            await pair.stage.engine.execute(pair.stage.admin(pair.store), "drop-fetch-user", {})
        fetch = {"database": database.name, "host": pair.host(pair.store), "commit": await _head(database)}
        at = pair.stage.admin(pair.scratch)
        await run(at, None, [f"CREATE DATABASE {database.name}"])
        with pytest.raises(EngineError):
            await pair.stage.engine.execute(at, "fetch", fetch)

    async def test_a_commit_is_fetched_from_any_branch_and_then_stays(self, pair: Pair) -> None:
        database = await pair.databases.new(PLAIN)
        copy = await pair.copy(database)
        await database.branch("feature/x")
        commit = await database.commit("feature/x", ["UPDATE t SET a = 9"])
        for _ in range(2):
            fetch = {"database": copy.name, "host": pair.host(pair.store), "commit": commit}
            await copy.server.engine.execute(copy.server.at, "fetch", fetch)
        assert await copy.ask("SELECT DISTINCT a FROM t", commit) == ((9,),)
        assert await copy.ask("SELECT name FROM dolt_remotes") == ()

    async def test_the_password_is_in_no_error(self, pair: Pair) -> None:
        at = pair.stage.admin(pair.store)
        with pytest.raises((EngineError, LoginRefusedError, UnreachableError)) as caught:
            await pair.stage.engine.execute(replace(at, password="wrong"), "ensure-fetch-user", {"password": "hunter2"})
        assert "hunter2" not in str(caught.value)

    async def test_a_servers_second_port_is_the_next_one(self, pair: Pair) -> None:
        workload = pair.stage.store()
        assert workload.remotes_port == (workload.port or 0) + 1
        assert listening(pair.store.port + 1)
