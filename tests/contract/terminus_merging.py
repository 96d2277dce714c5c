"""TerminusDB as the merge cases ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from coppice.engines.merging import Conflict, ConflictName, Decision, MergeInputs
from coppice.engines.terminusdb import TerminusDBEngine

from .merge_kit import AUTHOR, SALT
from .terminus_kit import call
from .terminus_tables import Document, Tables, ask, scales

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.engines.base import Endpoint

INFO = "author=Ed%20%3Ced%40example.org%3E&message=work"


@dataclass
class Store:
    """A server on which each test makes databases of its own."""

    at: Endpoint
    engine: TerminusDBEngine = field(default_factory=TerminusDBEngine)
    numbers: Iterable[int] = field(default_factory=count)

    async def new(self, schema: Sequence[Document] = (), documents: Sequence[Document] = ()) -> Database:
        name = f"d{next(iter(self.numbers))}"
        await call(self.at, "POST", f"db/admin/{name}", {"label": name})
        database = Database(self, name)
        await database.redefine("main", schema, documents)
        return database


@dataclass
class Database:
    store: Store
    name: str

    def path(self, branch: str = "main") -> str:
        return f"document/admin/{self.name}/local/branch/{branch}"

    async def head(self, branch: str = "main") -> str:
        [newest] = await call(self.store.at, "GET", f"log/admin/{self.name}/local/branch/{branch}?count=1")
        return str(newest["identifier"])

    async def branch(self, name: str, start: str = "main") -> None:
        body = {"origin": f"admin/{self.name}/local/branch/{start}"}
        await call(self.store.at, "POST", f"branch/admin/{self.name}/local/branch/{name}", body)

    async def redefine(self, branch: str, schema: Sequence[Document], documents: Sequence[Document]) -> str:
        """Have a branch hold these classes and documents, and no others."""
        at, path = self.store.at, self.path(branch)
        known = await call(at, "GET", f"{path}?graph_type=schema&as_list=true")
        context = next(each for each in known if each["@type"] == "@context")
        await call(at, "POST", f"{path}?{INFO}&full_replace=true", [])
        await call(at, "POST", f"{path}?{INFO}&graph_type=schema&full_replace=true", [context, *schema])
        await call(at, "POST", f"{path}?{INFO}", list(documents))
        return await self.head(branch)

    async def write(self, branch: str, put: Sequence[Document] = (), gone: Sequence[str] = ()) -> str:
        """Have a branch hold documents, and some not any more."""
        if put:
            await call(self.store.at, "PUT", f"{self.path(branch)}?{INFO}&create=true", list(put))
        if gone:
            await call(self.store.at, "DELETE", f"{self.path(branch)}?{INFO}", list(gone))
        return await self.head(branch)

    async def documents(self, commit: str, graph: str = "instance") -> list[Document]:
        path = f"document/admin/{self.name}/local/commit/{commit}?graph_type={graph}&as_list=true"
        found: list[Document] = await call(self.store.at, "GET", path)
        return found

    async def branches(self) -> Mapping[str, str]:
        found = await call(self.store.at, "GET", f"document/admin/{self.name}/local/_commits?type=Branch&as_list=true")
        return {each["name"]: each["head"].rpartition("/")[2] for each in found}

    def inputs(self, target: str, source: str, decisions: tuple[Decision, ...] = ()) -> MergeInputs:
        return MergeInputs(self.name, target, source, AUTHOR, "Autumn prices: ünïcode", SALT, decisions)

    async def conflicts(self, inputs: MergeInputs) -> list[Conflict]:
        return [conflict async for conflict in self.store.engine.conflicts(self.store.at, inputs)]


@dataclass
class Parting:
    """A target and a source of a database, as tables and as documents."""

    database: Database
    inputs: MergeInputs
    tables: Sequence[Tables]
    scales: Mapping[tuple[str, str], Any]
    result: str = ""

    async def ask(self, select: str) -> Sequence[tuple[Any, ...]]:
        schema = await self.database.documents(self.result, "schema")
        return ask(schema, await self.database.documents(self.result), self.scales, select)

    def told(self, conflict: Conflict) -> Conflict:
        """Return a conflict with the row's key as the cases name it."""
        name = conflict.key.get("@id")
        return conflict if name is None else replace(conflict, key=self._keys[str(name)])

    @cached_property
    def _keys(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: key for tables in self.tables for name, key in tables.keys().items()}

    async def untouched(self) -> None:
        """See that the branches are where they were, and that none is left over."""
        branches = await self.database.branches()
        assert (branches["main"], branches["work"]) == (self.inputs.target, self.inputs.source)
        assert [name for name in branches if not name.startswith(("main", "work", "coppice-merge-"))] == []


async def part(store: Store, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Parting:
    """Make a base, and let target and source part from there."""
    tables = Tables("")
    tables.run(base)
    before = tables.documents()
    database = await store.new(list(tables.schema().values()), list(before.values()))
    await database.branch("work")
    parted, heads = [tables], []
    for branch, side, change in (("main", "ours", ours), ("work", "theirs", theirs)):
        own = tables.parted(side)
        own.run(change)
        heads.append(await _bring(database, branch, before, own, tables.schema()))
        parted.append(own)
    return Parting(database, database.inputs(heads[0], heads[1]), parted, scales(tables))


async def _bring(
    database: Database, branch: str, before: Mapping[str, Document], own: Tables, known: Mapping[str, Document]
) -> str:
    after = own.documents()
    if known != own.schema():
        return await database.redefine(branch, list(own.schema().values()), list(after.values()))
    put = [document for name, document in after.items() if before.get(name) != document]
    return await database.write(branch, put, [name for name in before if name not in after])


def unplaced(name: ConflictName) -> Conflict:
    """Return a conflict of which only the name is known."""
    return Conflict(name.id, name.row, name.kind, name.table, name.column, detail=name.detail)
