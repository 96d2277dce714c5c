"""Merges of two commits of a TerminusDB database, made on a scratch server.

A result is made on a branch of its own that begins at the target, so that its history is the target's and a store can
take it by fast-forward. What the source has changed since the merge base is written there by the server itself, in one
commit; documents that were in conflict are out of its way before, on branches that go again. Where the schema becomes
another one there are commits before and after that, each of which says what it belongs to (``terminushistory``).
What is there in the end is compared with what was to come of it, before anybody is told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.decisions import Decisions
from coppice.engines.digests import hashed
from coppice.engines.merging import (
    MAX_CONFLICTS,
    Conflict,
    ConflictKind,
    ConflictName,
    MergeInputs,
    MergeOutcome,
    Side,
    Signature,
    UnrelatedError,
)
from coppice.engines.terminusapi import AnswerError, Api, session
from coppice.engines.terminuschanges import as_values, changes_between, differences, documents, settled
from coppice.engines.terminushistory import author_of, base_of, commit_at, commit_of, graph, heads, said
from coppice.engines.terminusmerge import Found, Sides, conflict_of, conflicting, schema_conflict
from coppice.engines.terminuspaths import branch_path, commit_path
from coppice.engines.terminusschema import (
    Clash,
    Schema,
    TighterError,
    documents_of,
    loosened,
    merged,
    properties,
    schema_at,
)

RESULT_PREFIX: Final = "coppice-merge-"
_WORK_PREFIX: Final = "coppice-merging-"
_LOOK_PREFIX: Final = "coppice-look-"
_BROKEN: Final[Mapping[str, ConflictKind]] = {
    "deleted_object_still_referenced": "ForeignKey",
    "entire_object_not_deleted": "ForeignKey",
    "instance_not_of_class": "ForeignKey",
    "instance_not_cardinality_one": "NotNull",
    "no_choice_is_cardinality_one": "NotNull",
}
"""By the server's words, which rule of the schema a document breaks; any other one is a ``Check``."""
_REFUSED: Final = "api:SchemaCheckFailure"


class BrokenError(Exception):
    """The documents of a result break rules of its schema."""

    def __init__(self, witnesses: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"{len(witnesses)} rules are broken")
        self.witnesses = witnesses


@dataclass
class _Tally:
    """What a look at all conflicts has come to."""

    names: list[ConflictName] = field(default_factory=list)
    total: int = 0
    decided: int = 0

    def add(self, conflict: Conflict, side: Side | None) -> None:
        self.total += 1
        if side is not None:
            self.decided += 1
        elif len(self.names) < MAX_CONFLICTS:
            self.names.append(conflict.name)


@dataclass(frozen=True, slots=True)
class Making:
    """A result to be made: on which branch, and from what. ``plain``: it is no merge."""

    inputs: MergeInputs
    base: str
    sides: Sides
    found: Found
    branch: str
    plain: bool = False

    @property
    def at(self) -> str:
        """Return the path of its branch."""
        return branch_path(self.inputs.database, self.branch)

    def written(self, *, last: bool) -> Mapping[str, str]:
        """Return who has made one of its commits, and what that says."""
        inputs = self.inputs
        message = said(inputs.message, inputs.target, inputs.source, last=last)
        if last and self.plain:
            message = inputs.message
        return {"author": author_of(inputs.author), "message": message}


def result_branch(inputs: MergeInputs) -> str:
    """Return the branch that holds the result of a merge: the same for the same inputs."""
    return f"{RESULT_PREFIX}{hashed(asdict(inputs)).hex()[:16]}"


async def merge(at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
    """Merge two commits, or say why they do not merge."""
    async with session(at) as api:
        base = await _base(api, inputs)
        if base == inputs.source:
            none = await changes_between(api, inputs.database, inputs.target, inputs.target)
            return MergeOutcome(base, inputs.target, none, unused=tuple(range(len(inputs.decisions))))
        decisions, tally = Decisions(inputs.decisions), _Tally()
        making = Making(inputs, base, await sides_of(api, inputs, base), Found(), result_branch(inputs))
        async with aclosing(_look(api, making, decisions)) as seen:
            async for conflict, side in seen:
                tally.add(conflict, side)
        result = await _known(api, inputs) if tally.total == tally.decided else None
        if result is None and tally.total == tally.decided:
            try:
                result = await make(api, making)
            except BrokenError as broken:
                for conflict in await _violations(api, making, broken.witnesses):
                    tally.add(conflict, None)
        found = await changes_between(api, inputs.database, inputs.target, result) if result else None
    return MergeOutcome(base, result, found, tuple(tally.names), tally.total, tally.decided, decisions.unused)


async def conflicts(at: Endpoint, inputs: MergeInputs) -> AsyncGenerator[Conflict, None]:
    """Hand out the conflicts of a merge that nothing is kept of."""
    async with session(at) as api:
        base = await _base(api, inputs)
        if base == inputs.source:
            return
        look = f"{_LOOK_PREFIX}{result_branch(inputs)[-16:]}"
        making = Making(inputs, base, await sides_of(api, inputs, base), Found(), look)
        open_ones = 0
        async with aclosing(_look(api, making, Decisions(inputs.decisions))) as seen:
            async for conflict, side in seen:
                open_ones += side is None
                yield conflict
        if open_ones:
            return
        try:
            await make(api, making)
        except BrokenError as broken:
            for conflict in await _violations(api, making, broken.witnesses):
                yield conflict
        finally:
            await drop_branch(api, inputs.database, look)


async def sides_of(api: Api, inputs: MergeInputs, base: str) -> Sides:
    """Return the schemas of a merge, and what becomes of them."""
    old, ours, theirs = [
        await schema_at(api, inputs.database, commit) for commit in (base, inputs.target, inputs.source)
    ]
    return Sides(old, ours, theirs, merged(old, ours, theirs))


async def _base(api: Api, inputs: MergeInputs) -> str:
    for commit in (inputs.target, inputs.source):
        await commit_of(api, inputs.database, commit)
    base = base_of(await graph(api, inputs.database), inputs.target, inputs.source)
    if base is None:
        raise UnrelatedError(f"{inputs.target} and {inputs.source} share no commit: there is nothing to merge by")
    return base


async def _look(api: Api, making: Making, decisions: Decisions) -> AsyncGenerator[tuple[Conflict, Side | None], None]:
    """Hand out all conflicts but those that show when something is written."""
    found = conflicting(api, making.inputs, making.base, making.sides, decisions, making.found)
    clashed = False
    async with aclosing(found) as seen:
        async for conflict, side in seen:
            clashed = clashed or conflict.kind == "Schema"
            yield conflict, side
    if clashed:
        return
    try:
        loosened(making.sides.ours, making.sides.merged.schema)
    except TighterError as error:
        name, sides = error.name, making.sides
        words = f"{error.word} has got another type on one side: no schema holds the documents of both"
        clash = Clash(name, sides.base.get(name), sides.ours.get(name), sides.theirs.get(name), words)
        yield schema_conflict(making.inputs, clash), None


async def _known(api: Api, inputs: MergeInputs) -> str | None:
    """Return the merge if it was made before. Who writes to the server may have put anything on that branch, and what
    is not the very commit that would be made does not count.
    """
    head = (await heads(api, inputs.database)).get(result_branch(inputs))
    if head is None:
        return None
    found = await commit_at(api, inputs.database, head)
    made = (found.parents, Signature(found.author, found.email), found.message)
    wanted = ((inputs.target, inputs.source), inputs.author, inputs.message.strip())
    return head if made == wanted else None


async def make(api: Api, making: Making) -> str:
    """Make the result on its branch, and return the commit; the target itself where nothing is new."""
    inputs, sides = making.inputs, making.sides
    await put_branch(api, inputs.database, making.branch, inputs.target)
    wanted = sides.merged.schema
    first = loosened(sides.ours, wanted) if making.found.changed else wanted
    try:
        if first != sides.ours:
            await _write_schema(api, making, first, last=first == wanted and not making.found.changed)
        if making.found.changed:
            await _write_documents(api, making, last=first == wanted)
        if first != wanted:
            await _write_schema(api, making, wanted, last=True)
    except AnswerError as error:
        if error.kind == _REFUSED and error.witnesses:
            raise BrokenError(error.witnesses) from None
        raise
    result = await commit_of(api, inputs.database, making.branch)
    await _verify(api, making, result)
    return result


async def _write_schema(api: Api, making: Making, schema: Schema, *, last: bool) -> None:
    parameters = {**making.written(last=last), "graph_type": "schema", "full_replace": "true"}
    await api.call("POST", f"document/{making.at}", parameters=parameters, body=documents_of(schema))


async def _write_documents(api: Api, making: Making, *, last: bool) -> None:
    """Write what the source has changed since the merge base; in one commit, whatever was decided."""
    database, base, info = making.inputs.database, making.base, making.written(last=last)
    if not making.found.settled:
        await _apply(api, making.at, base, making.inputs.source, info)
        return
    short = making.branch[-16:]
    ours, theirs = f"{_WORK_PREFIX}{short}", f"{_WORK_PREFIX}{short}-source"
    start = await commit_of(api, database, making.branch)
    try:
        await put_branch(api, database, ours, start)
        await put_branch(api, database, theirs, making.inputs.source)
        ends = {name: end for name, (_, end) in making.found.settled.items()}
        await _put(api, database, ours, ends, info)
        kinds = making.sides.theirs
        unsaid = {
            name: pair.unsaid(end, properties(kinds, pair.table)) for name, (pair, end) in making.found.settled.items()
        }
        await _put(api, database, theirs, unsaid, info)
        source = await commit_of(api, database, theirs)
        await _apply(api, branch_path(database, ours), base, source, info)
        await _apply(api, making.at, start, await commit_of(api, database, ours), info)
    finally:
        for branch in (ours, theirs):
            await drop_branch(api, database, branch)


async def _apply(api: Api, place: str, before: str, after: str, info: Mapping[str, str]) -> None:
    """Have the server write what differs between two commits onto a branch: of which ``before`` is the merge base, or
    the commit that nobody but this merge has ever written upon.
    """
    body = {"before_commit": before, "after_commit": after, "commit_info": info, "match_final_state": True}
    await api.call("POST", f"apply/{place}", body=body)


async def _put(
    api: Api, database: str, branch: str, wanted: Mapping[str, Mapping[str, Any] | None], info: Mapping[str, str]
) -> None:
    """Have documents be on a branch as they are wanted; None: not at all."""
    place = branch_path(database, branch)
    there = await documents(api, database, await commit_of(api, database, branch), list(wanted))
    kept = [document for document in wanted.values() if document is not None]
    gone = [name for name, document in wanted.items() if document is None and name in there]
    if kept:
        await api.call("PUT", f"document/{place}", parameters={**info, "create": "true"}, body=kept)
    if gone:
        await api.call("DELETE", f"document/{place}", parameters=info, body=gone)


async def _verify(api: Api, making: Making, result: str) -> None:
    """See that the result holds what was to come of it: the server passes over what it cannot apply."""
    database, found, schema = making.inputs.database, making.found, making.sides.merged.schema
    if await schema_at(api, database, result) != schema:
        raise EngineError("the server has made another schema of the merge than was asked for")
    async with aclosing(differences(api, database, making.base, making.inputs.source)) as pages:
        async for page in pages:
            names = [each.id for each in page]
            now = await documents(api, database, result, names)
            theirs = await documents(api, database, making.inputs.source, names)
            ours = await documents(api, database, making.inputs.target, names)
            old = await documents(api, database, making.base, names)
            for name in names:
                if name in found.settled:
                    wanted = found.settled[name][1]
                else:
                    wanted = merged_document(old.get(name), ours.get(name), theirs.get(name))
                if settled(now.get(name), schema) != settled(wanted, schema):
                    raise EngineError("the server has made something else of the merge than was asked for")


def merged_document(
    base: Mapping[str, Any] | None, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return what becomes of a document that is in no conflict."""
    if ours is None or theirs is None or base is None:
        return theirs if ours == base else ours
    names = [*ours, *(name for name in theirs if name not in ours)]
    kept = {name: (theirs if ours.get(name) == base.get(name) else ours).get(name) for name in names}
    return {name: value for name, value in kept.items() if value is not None}


async def put_branch(api: Api, database: str, branch: str, commit: str) -> None:
    """Have a branch be at a commit, whatever was there."""
    there = (await heads(api, database)).get(branch)
    if there is None:
        origin = {"origin": commit_path(database, commit)}
        await api.call("POST", f"branch/{branch_path(database, branch)}", body=origin)
    elif there != commit:
        descriptor = {"commit_descriptor": commit_path(database, commit)}
        await api.call("POST", f"reset/{branch_path(database, branch)}", body=descriptor, repeatable=True)


async def drop_branch(api: Api, database: str, branch: str) -> None:
    """Delete a branch, if there is one."""
    if branch in await heads(api, database):
        await api.call("DELETE", f"branch/{branch_path(database, branch)}")


async def _violations(api: Api, making: Making, witnesses: Sequence[Mapping[str, Any]]) -> Sequence[Conflict]:
    """Return the conflicts that the server's words stand for: which document breaks a rule, or is not there."""
    found: dict[str, Conflict] = {}
    prefix = str(making.sides.merged.schema.get("@context", {}).get("@base", ""))
    for witness in witnesses:
        kind = _BROKEN.get(str(witness.get("@type")), "Check")
        named = witness.get("subject") or witness.get("instance") or ""
        name = str(named).removeprefix(prefix)
        word = str(witness.get("predicate") or "").rpartition("#")[2]
        conflict = await _violation(api, making, kind, name, word)
        found[conflict.id] = conflict
    return list(found.values())


async def _violation(api: Api, making: Making, kind: ConflictKind, name: str, word: str) -> Conflict:
    inputs = making.inputs
    document: Mapping[str, Any] | None = None
    for commit in (inputs.source, inputs.target, making.base):
        document = document or (await documents(api, inputs.database, commit, [name])).get(name)
    table = str((document or {}).get("@type", "")) or name.partition("/")[0]
    detail = word if word in properties(making.sides.merged.schema, table) else ""
    conflict = conflict_of(inputs, kind, table, name, detail)
    return replace(conflict, column=None, theirs=None if document is None else as_values(document), detail=detail)
