"""How two versions of a TerminusDB database differ: counts, documents, schema.

What Coppice calls a table is a class of documents, a row is a document, its key the document's identifier, and a column
one of its properties. Facts this rests on, each with a test in ``tests/contract``:

- ``diff`` of two commits names the documents that differ, whichever of them is the older one, and knows nothing of the
  schema. Of a document that differs it tells a patch; the documents themselves are read at either commit.
- The elements of a set come in any order.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from coppice.engines.base import Endpoint, UnknownVersionError
from coppice.engines.digests import addend, hashed, summary
from coppice.engines.merging import ChangeKind, ChangeSet, RowChange, TableChanges, Value
from coppice.engines.terminusapi import Api, session
from coppice.engines.terminushistory import commit_of
from coppice.engines.terminusjson import canonical
from coppice.engines.terminuspaths import commit_path, path
from coppice.engines.terminusschema import CONTEXT, Schema, properties, schema_at, statements

PAGE: Final = 500
"""How many documents are in memory at once, on each side."""
_UNORDERED: Final = frozenset({"Set", "Cardinality"})
_DIGITS: Final = 400
"""Of a number that is written out; a longer one keeps its exponent."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A document that differs, and on which side it is."""

    id: str
    table: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True)
class Change:
    """A document that differs, as it is on either side."""

    difference: Difference
    before: Document | None
    after: Document | None


async def differences(api: Api, database: str, before: str, after: str) -> AsyncGenerator[Sequence[Difference], None]:
    """Hand out the documents that differ between two commits, a page at a time."""
    start = 0
    while True:
        body = {
            "before_data_version": f"commit:{before}",
            "after_data_version": f"commit:{after}",
            "keep": {"@id": True, "@type": True},
            "start": start,
            "count": PAGE,
        }
        found = (await api.call("POST", f"diff/{path(database)}", body=body, repeatable=True)).content
        if found:
            yield [_difference(patch) for patch in found]
        if len(found) < PAGE:
            return
        start += PAGE


async def documents(api: Api, database: str, commit: str, names: Sequence[str]) -> Mapping[str, Document]:
    """Return those of some documents that are in a commit, by their identifiers."""
    if not names:
        return {}
    found = await api.call(
        "POST",
        f"document/{commit_path(database, commit)}",
        body={"ids": list(names), "as_list": True},
        headers={"X-HTTP-Method-Override": "GET"},
        repeatable=True,
    )
    return {str(each["@id"]): each for each in found.content or ()}


async def changed(api: Api, database: str, before: str, after: str) -> AsyncGenerator[Change, None]:
    """Hand out the documents that differ, with what they are on either side."""
    async for page in differences(api, database, before, after):
        old = await documents(api, database, before, [each.id for each in page if each.kind != "Added"])
        new = await documents(api, database, after, [each.id for each in page if each.kind != "Deleted"])
        for each in page:
            yield Change(each, old.get(each.id), new.get(each.id))


async def changes(at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
    """Count and hash what differs between two versions."""
    async with session(at) as api:
        return await changes_between(api, database, *await _commits(api, database, before, after))


async def changes_between(api: Api, database: str, before: str, after: str) -> ChangeSet:
    """Count and hash what differs between two commits."""
    schemas = [await schema_at(api, database, commit) for commit in (before, after)]
    old, new = schemas
    counts: dict[str, dict[ChangeKind, int]] = {}
    totals: dict[str, int] = {}
    async for change in changed(api, database, before, after):
        table = change.difference.table
        counted = counts.setdefault(table, {"Added": 0, "Modified": 0, "Deleted": 0})
        counted[change.difference.kind] += 1
        row = [
            settled(document, schema) for document, schema in zip((change.before, change.after), schemas, strict=True)
        ]
        totals[table] = totals.get(table, 0) + addend(row)
    redefined = {name for name in (*old, *new) if old.get(name) != new.get(name)}
    tables, digests = [], []
    for table in sorted({*counts, *redefined}):
        count = counts.get(table, {"Added": 0, "Modified": 0, "Deleted": 0})
        tables.append(TableChanges(table, count["Added"], count["Modified"], count["Deleted"], table in redefined))
        definitions = [old.get(table), new.get(table)] if table in redefined else None
        digests.append([table, definitions, *summary(count, totals.get(table, 0))])
    return ChangeSet(tuple(tables), tuple(statements(old, new)), hashed(digests).hex())


async def rows(
    at: Endpoint, database: str, before: str, after: str, table: str | None = None
) -> AsyncGenerator[RowChange, None]:
    """Hand out the documents that differ, of one class or of all."""
    async with session(at) as api:
        commits = await _commits(api, database, before, after)
        if table is not None:
            await _expect_class(api, database, table, commits)
        async for change in changed(api, database, *commits):
            found = change.difference
            if table is None or table == found.table:
                yield RowChange(found.table, found.kind, {"@id": found.id}, _row(change.before), _row(change.after))


def settled(document: Document | None, schema: Schema) -> Any:
    """Return what is the same for equal documents, in whatever order a server tells of them."""
    return None if document is None else _settled(document, schema)


def as_value(value: Any) -> Value:
    """Return a property's value as a person would write it: what is no single value as JSON."""
    match value:
        case None | bool() | str() | int():
            return value
        case Decimal():
            return _number(value)
        case _:
            return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def as_values(document: Document) -> Mapping[str, Value]:
    """Return a document's properties as a person would write them."""
    return {name: as_value(value) for name, value in document.items() if not name.startswith("@")}


def _row(document: Document | None) -> Mapping[str, Value] | None:
    return None if document is None else as_values(document)


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return _number(value)
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value


def _number(number: Decimal) -> str:
    return format(number, "f") if abs(number.adjusted()) < _DIGITS else str(number)


def _settled(value: Any, schema: Schema) -> Any:
    if not isinstance(value, Mapping):
        return [[], *(_settled(each, schema) for each in value)] if isinstance(value, list) else canonical(value)
    known = properties(schema, str(value.get("@type", "")))
    found: dict[str, Any] = {}
    for name, each in value.items():
        kind = known.get(name)
        told = _settled(each, schema)
        if isinstance(kind, Mapping) and kind.get("@type") in _UNORDERED and isinstance(told, list):
            told = sorted(told, key=json.dumps)
        found[name] = told
    return found


def _difference(patch: Mapping[str, Any]) -> Difference:
    match patch.get("@op"):
        case "Insert":
            whole, kind = patch["@insert"], "Added"
        case "Delete":
            whole, kind = patch["@delete"], "Deleted"
        case _:
            whole, kind = patch, "Modified"
    return Difference(str(whole["@id"]), str(whole["@type"]), kind)  # type: ignore[arg-type]


async def _commits(api: Api, database: str, before: str, after: str) -> tuple[str, str]:
    return await commit_of(api, database, before), await commit_of(api, database, after)


async def _expect_class(api: Api, database: str, table: str, commits: Sequence[str]) -> None:
    for commit in commits:
        if table != CONTEXT and table in await schema_at(api, database, commit):
            return
    raise UnknownVersionError(f"there is no class {table} in {database}")
