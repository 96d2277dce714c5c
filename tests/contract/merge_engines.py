"""The engines that bring two lines of data together, each behind what a case asks of one.

One that merges versions has a commit for a result. One that keeps none has a change set, which is judged by what the
live database holds, and written there.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from coppice.engines.merging import Conflict, Decision, MergeInputs, TableChanges, TargetMovedError
from coppice.engines.patching import JudgedPatch, PatchInputs, RefusedError
from coppice.engines.pgcompare import change_set, definitions_query
from coppice.engines.pgpatches import script
from coppice.engines.pgpublish import publish
from coppice.engines.postgresql import PostgreSQLEngine

from .conftest import open_stage
from .merge_cases import MYSQL, POSTGRESQL, TERMINUSDB, Case, Dialect
from .merge_kit import SALT, Database, Databases
from .pg_kit import Trio, ask, connect, serving_cluster
from .terminus_merging import Parting, Store, unplaced
from .terminus_merging import part as part_documents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ENGINES = (MYSQL.engine, POSTGRESQL.engine, TERMINUSDB.engine)


@dataclass(frozen=True)
class Merged:
    """What came of a merge: ``conflicts`` are those that wait for a decision, ``decided`` counts the others.

    ``refused`` and ``moved`` are what was said of a source that cannot be merged, and of a result that was not written.
    """

    conflicts: tuple[Conflict, ...] = ()
    decided: int = 0
    unused: tuple[int, ...] = ()
    refused: str = ""
    moved: str = ""
    tables: tuple[TableChanges, ...] = ()

    @property
    def done(self) -> bool:
        """Return whether the result is there."""
        return not (self.conflicts or self.refused or self.moved)


class Parted(Protocol):
    """A target and a source that have parted."""

    async def merge(self, decisions: tuple[Decision, ...] = ()) -> Merged:
        """Merge, and see that nothing is changed by what is not done."""
        ...

    async def ask(self, select: str) -> Sequence[tuple[Any, ...]]:
        """Ask the result."""
        ...


class Merging(Protocol):
    """A server of an engine."""

    dialect: Dialect

    async def part(self, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parted:
        """Make a base, and let target and source part from there."""
        ...


async def part(merging: Merging, case: Case) -> Parted:
    """Make what a case begins with."""
    return await merging.part(*(merging.dialect.statements(side) for side in (case.base, case.ours, case.theirs)))


@asynccontextmanager
async def serving(engine: str) -> AsyncIterator[Merging]:
    """Run a server for a module's tests."""
    if engine == POSTGRESQL.engine:
        async with serving_cluster() as cluster:
            yield PostgreSQLMerging(await cluster.new(""))
        return
    with open_stage(engine) as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            at = stage.admin(server)
            yield DoltMerging(Databases(at)) if engine == MYSQL.engine else TerminusDBMerging(Store(at))


@dataclass
class DoltMerging:
    databases: Databases
    dialect: Dialect = MYSQL

    async def part(self, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parted:
        database = await self.databases.new(base)
        return DoltParted(database, await database.diverged(ours, theirs))


@dataclass
class DoltParted:
    database: Database
    inputs: MergeInputs
    result: str = ""

    async def merge(self, decisions: tuple[Decision, ...] = ()) -> Merged:
        server, inputs = self.database.server, replace(self.inputs, decisions=decisions)
        outcome = await server.engine.merge(server.at, inputs)
        assert (outcome.result is None) == (outcome.changes is None) == bool(outcome.conflicts)
        self.result = outcome.result or ""
        known = {conflict.id: conflict for conflict in await self.database.conflicts(inputs)}
        if not decisions:
            assert [conflict.name for conflict in known.values()] == list(outcome.conflicts)
        await self._untouched()
        return Merged(
            tuple(known.get(name.id, unplaced(name)) for name in outcome.conflicts),
            outcome.decided,
            outcome.unused,
            tables=outcome.changes.tables if outcome.changes else (),
        )

    async def _untouched(self) -> None:
        """See that the branches are where they were, and that none is left over."""
        branches = dict(await self.database.ask("SELECT name, hash FROM dolt_branches"))
        assert (branches["main"], branches["work"]) == (self.inputs.target, self.inputs.source)
        assert [name for name in branches if not name.startswith(("main", "work", "coppice/merge-"))] == []

    async def ask(self, select: str) -> Sequence[tuple[Any, ...]]:
        return await self.database.ask(select, self.result)


@dataclass
class TerminusDBMerging:
    store: Store
    dialect: Dialect = TERMINUSDB

    async def part(self, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parted:
        return TerminusDBParted(await part_documents(self.store, base, ours, theirs))


@dataclass
class TerminusDBParted:
    parting: Parting

    async def merge(self, decisions: tuple[Decision, ...] = ()) -> Merged:
        parting, inputs = self.parting, replace(self.parting.inputs, decisions=decisions)
        store = parting.database.store
        outcome = await store.engine.merge(store.at, inputs)
        assert (outcome.result is None) == (outcome.changes is None) == bool(outcome.conflicts)
        parting.result = outcome.result or ""
        known = {each.id: parting.told(each) for each in await parting.database.conflicts(inputs)}
        if not decisions:
            assert [conflict.name for conflict in known.values()] == list(outcome.conflicts)
        await parting.untouched()
        return Merged(
            tuple(known.get(name.id, unplaced(name)) for name in outcome.conflicts),
            outcome.decided,
            outcome.unused,
            tables=outcome.changes.tables if outcome.changes else (),
        )

    async def ask(self, select: str) -> Sequence[tuple[Any, ...]]:
        return await self.parting.ask(select)


@dataclass
class PostgreSQLMerging:
    """Makes everything in three databases, one part after the other: new ones would take most of the time."""

    trio: Trio
    dialect: Dialect = POSTGRESQL

    async def part(self, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parted:
        trio = self.trio
        for place, change in ((trio.base, ()), (trio.target, ours), (trio.clone, theirs)):
            async with await connect(place) as connection:
                await connection.execute("; ".join(["DROP OWNED BY CURRENT_USER", *base]))
                await connection.execute("; ".join(change))
        return PostgreSQLParted(trio)


@dataclass
class PostgreSQLParted:
    trio: Trio
    engine: PostgreSQLEngine = field(default_factory=PostgreSQLEngine)

    async def merge(self, decisions: tuple[Decision, ...] = ()) -> Merged:
        before = await self._sums()
        found = await self._merged(decisions)
        assert await self._sums() == before or found.done
        return found

    async def _merged(self, decisions: tuple[Decision, ...]) -> Merged:
        target = self.trio.target
        try:
            patch = await change_set(self.trio.base, self.trio.clone)
        except RefusedError as error:
            return Merged(refused=str(error))
        judged = await self.engine.judge(target.at, target.database, patch, PatchInputs(SALT, decisions))
        assert len(judged.names) == len(judged.conflicts)
        try:
            broken = () if judged.conflicts or judged.complete else await self._written(judged)
        except TargetMovedError as error:
            return Merged(moved=str(error))
        changes = judged.patch.changes
        return Merged((*judged.conflicts, *broken), len(judged.decided), judged.unused, tables=changes.tables)

    async def _written(self, judged: JudgedPatch) -> Sequence[Conflict]:
        return await publish(self.trio.target, script(judged.patch), SALT, _begun)

    async def _sums(self) -> list[Any]:
        """Return what is another for other rows or definitions on the target."""
        async with await connect(self.trio.target) as connection:
            found = await (await connection.execute(_TABLES)).fetchall()
            sums = [
                f"SELECT count(*), sum(hashtextextended(format('%s', t.*), 0)) FROM {table} t" for (table,) in found
            ]
            queries = [definitions_query(), *sums]
            return [await (await connection.execute(query)).fetchall() for query in queries]

    async def ask(self, select: str) -> Sequence[tuple[Any, ...]]:
        return await ask(self.trio.target, select)


_TABLES = """\
SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"""


async def _begun(number: str) -> None:
    """Take no note."""
