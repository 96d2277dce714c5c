"""What conflicts in a merge of two commits of a TerminusDB database, by the commit that they come from.

The server has no merge. Its ``apply`` writes what differs between two versions onto a branch, and which two is for the
caller to say: with the heads of both sides it takes back what the target has changed since, without a word. So the
before-state is always the merge base. Even then it deletes a document that the target has changed, and says nothing of
one that the target has deleted: what conflicts is found here, and the server is asked to write when nothing does.

A property is one value: a list, a set or a subdocument that both sides have changed is a conflict.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from coppice.engines.decisions import Decisions
from coppice.engines.digests import hashed
from coppice.engines.merging import Conflict, ConflictKind, MergeInputs, Side
from coppice.engines.terminusapi import Api
from coppice.engines.terminuschanges import Difference, Document, as_value, as_values, differences, documents, settled
from coppice.engines.terminusschema import KEY, Clash, Merged, Schema

_WHOLE: Final = frozenset({"@id", KEY})
"""Of a class that is gone, or whose documents are named by something else, no document of the other side's stays."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The three schemas of a merge, what becomes of them, and what each document is called on."""

    base: Schema
    ours: Schema
    theirs: Schema
    merged: Merged


@dataclass(frozen=True, slots=True)
class Both:
    """A document that both sides have changed: as it was, and as it is on either side. ``cells`` are the properties in
    which they conflict; ``None``: the document as a whole does.
    """

    id: str
    table: str
    base: Document | None
    ours: Document | None
    theirs: Document | None
    same: bool
    cells: tuple[str, ...] | None

    @property
    def unread(self) -> bool:
        """Return whether the source alone has changed it."""
        return self.base is None and self.ours is None and self.theirs is None

    @property
    def listed(self) -> bool:
        """Return whether both sides have changed a property that is no single value."""
        base, ours, theirs = self.base or {}, self.ours or {}, self.theirs or {}
        return any(
            isinstance(side[name], list | dict) and _changed(base, ours, name) and _changed(base, theirs, name)
            for side in (base, ours, theirs)
            for name in side
        )

    def unsaid(self, end: Document | None, kinds: Mapping[str, Any]) -> Document | None:
        """Return what the document is to be on the source, so that nothing of it is to be merged: as it was, as far as
        the source's class has the same properties, and with those that it must have.
        """
        if self.base is None:
            return None
        found = {name: value for name, value in self.base.items() if name.startswith("@") or name in kinds}
        needed = {name for name, kind in kinds.items() if isinstance(kind, str) and name not in found}
        return {**found, **{name: value for name, value in (end or {}).items() if name in needed}}

    def settled(self, taken: Iterable[str], side: Side | None) -> Document | None:
        """Return what becomes of it: ``taken`` are the cells that are decided for the source, and ``side`` is the
        decision about the whole.
        """
        if self.cells is None:
            return self.theirs if side == "Source" else self.ours
        base, ours, theirs = self.base or {}, self.ours or {}, self.theirs or {}
        alone = {name for name in {*ours, *theirs} if name not in self.cells and _changed(base, theirs, name)}
        found = {**ours}
        for name in {*alone, *taken}:
            if name in theirs:
                found[name] = theirs[name]
            else:
                found.pop(name, None)
        return found


@dataclass
class Found:
    """What a look at both sides has come to: how many documents the target is to get another content of, and those that
    the server is not to merge, with what becomes of them: they were decided, or it would compare lists by their order.
    """

    changed: int = 0
    settled: dict[str, tuple[Both, Document | None]] = field(default_factory=dict)

    def add(self, pair: Both, decided: Mapping[str | None, Side | None], sides: Sides) -> None:
        """Count a document of which nothing is left to decide."""
        taken = [name for name, side in decided.items() if name is not None and side == "Source"]
        end = pair.settled(taken, decided.get(None))
        if decided or pair.listed:
            self.settled[pair.id] = (pair, end)
        self.changed += pair.unread or settled(end, sides.merged.schema) != settled(pair.ours, sides.merged.schema)


async def conflicting(
    api: Api, inputs: MergeInputs, base: str, sides: Sides, decisions: Decisions, found: Found
) -> AsyncGenerator[tuple[Conflict, Side | None], None]:
    """Hand out what conflicts, with the side that is decided for; what is not in conflict is counted in ``found``."""
    replaced = dict[tuple[str, str], Clash]()
    for clash in sides.merged.clashes:
        yield schema_conflict(inputs, clash), None
    ours = {each.id: each async for each in _each(api, inputs.database, base, inputs.target)}
    async with aclosing(_documents(api, inputs, base, sides, ours)) as pages:
        async for pair in pages:
            words = _misplaced(sides, pair)
            for word in words:
                name = (pair.table, word)
                if name not in replaced:
                    replaced[name] = _clash(sides, pair.table, word)
                    yield schema_conflict(inputs, replaced[name]), None
            if words or pair.same:
                continue
            decided: dict[str | None, Side | None] = {}
            for conflict in _conflicts_of(inputs, pair, sides):
                decided[conflict.column] = decisions.side_of(conflict)
                yield conflict, decided[conflict.column]
            if None not in decided.values():
                found.add(pair, decided, sides)


async def _each(api: Api, database: str, before: str, after: str) -> AsyncGenerator[Difference, None]:
    async with aclosing(differences(api, database, before, after)) as pages:
        async for page in pages:
            for each in page:
                yield each


async def _documents(
    api: Api, inputs: MergeInputs, base: str, sides: Sides, ours: Mapping[str, Difference]
) -> AsyncGenerator[Both, None]:
    """Hand out the documents that the source has changed, and those that the target has changed in a class that is not
    the same on the source. Those of the source alone are not read: the server writes them.
    """
    seen: set[str] = set()
    async with aclosing(differences(api, inputs.database, base, inputs.source)) as pages:
        async for page in pages:
            redefined = sides.merged.replaced["Target"]
            read = [each for each in page if each.id in ours or each.table in redefined]
            seen.update(each.id for each in read)
            for each in page:
                if each not in read:
                    yield Both(each.id, each.table, None, None, None, same=False, cells=())
            for pair in await _read(api, inputs, base, sides, read):
                yield pair
    waiting = [each for each in ours.values() if each.table in sides.merged.replaced["Source"] and each.id not in seen]
    for start in range(0, len(waiting), 500):
        for pair in await _read(api, inputs, base, sides, waiting[start : start + 500]):
            yield replace(pair, same=True)


async def _read(api: Api, inputs: MergeInputs, base: str, sides: Sides, page: Sequence[Difference]) -> Sequence[Both]:
    names = [each.id for each in page]
    old, mine, other = [
        await documents(api, inputs.database, commit, names) for commit in (base, inputs.target, inputs.source)
    ]
    return [_both(each, sides, old.get(each.id), mine.get(each.id), other.get(each.id)) for each in page]


def _both(
    difference: Difference, sides: Sides, base: Document | None, ours: Document | None, theirs: Document | None
) -> Both:
    versions = (settled(base, sides.base), settled(ours, sides.ours), settled(theirs, sides.theirs))
    same = versions[1] == versions[2]
    return Both(difference.id, difference.table, base, ours, theirs, same=same, cells=_cells(*versions))


def _cells(base: Any, ours: Any, theirs: Any) -> tuple[str, ...] | None:
    if base in (ours, theirs):
        return ()
    if ours is None or theirs is None or ours.get("@type") != theirs.get("@type"):
        return None
    old = base or {}
    return tuple(
        name
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
        and (base is None or old.get(name) not in (ours.get(name), theirs.get(name)))
    )


def _changed(base: Document, side: Document, name: str) -> bool:
    return base.get(name) != side.get(name)


def _misplaced(sides: Sides, pair: Both) -> Sequence[str]:
    """Return the words of its class that one side has taken away or changed, and by which the other says something new
    in this document.
    """
    found: set[str] = set()
    for side, document in (("Target", pair.theirs), ("Source", pair.ours)):
        words = sides.merged.replaced[side].get(pair.table, frozenset())  # type: ignore[index]
        if not words or document is None:
            continue
        changed = {name for name in {*document, *(pair.base or {})} if _changed(pair.base or {}, document, name)}
        found.update(words & (_WHOLE if changed else frozenset()), words & changed)
    return sorted(found)


def _clash(sides: Sides, table: str, word: str) -> Clash:
    gone = {"@id": "the class is gone on one side", KEY: "documents have other identifiers on one side"}
    detail = gone.get(word, f"{word} is gone or another on one side")
    versions = (sides.base.get(table), sides.ours.get(table), sides.theirs.get(table))
    return Clash(table, *versions, f"{detail}, and the other has changed documents")


def _conflicts_of(inputs: MergeInputs, pair: Both, sides: Sides) -> Iterable[Conflict]:
    if pair.cells is None:
        yield replace(
            conflict_of(inputs, "Row", pair.table, pair.id, None),
            base=None if pair.base is None else as_values(pair.base),
            ours=None if pair.ours is None else as_values(pair.ours),
            theirs=None if pair.theirs is None else as_values(pair.theirs),
        )
        return
    replaced = {word for words in sides.merged.replaced.values() for word in words.get(pair.table, ())}
    for name in pair.cells:
        if name not in replaced:
            yield replace(
                conflict_of(inputs, "Cell", pair.table, pair.id, name),
                base=as_value((pair.base or {}).get(name)),
                ours=as_value((pair.ours or {}).get(name)),
                theirs=as_value((pair.theirs or {}).get(name)),
            )


def conflict_of(inputs: MergeInputs, kind: ConflictKind, table: str, name: str, column: str | None) -> Conflict:
    """Return a conflict about a document; its names are the same wherever the branches have moved on to."""
    named = [inputs.salt, table, name]
    return Conflict(
        id=hashed([*named, kind, column]).hex()[:16],
        row=hashed(named).hex()[:16],
        kind=kind,
        table=table,
        column=column,
        key={"@id": name},
    )


def schema_conflict(inputs: MergeInputs, clash: Clash) -> Conflict:
    """Return the conflict of a class."""
    found = conflict_of(inputs, "Schema", clash.name, clash.detail, None)
    return replace(found, row="", key={}, base=clash.base, ours=clash.ours, theirs=clash.theirs, detail=clash.detail)
