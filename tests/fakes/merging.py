"""What the engine in memory can do with two versions: the reference for how requests are computed and published.

A row like ``album/1.title=Blue`` is one cell: of the table ``album``, the row ``1``, the column ``title``; without a
column it is ``value``, and one without ``=`` is a row that is there or not. A query of the owners' finds the rows that
begin with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.fakes.engine import Branch, Commit, FakeEngine, Server, Volume, table_of

from coppice.engines.base import Endpoint, EngineError, UnknownVersionError, UnreachableError
from coppice.engines.merging import (
    MAX_CONFLICTS,
    Assertion,
    AssertionResult,
    Authors,
    ChangeSet,
    CommitInfo,
    Conflict,
    ConflictName,
    Decision,
    MergeInputs,
    MergeOutcome,
    RowChange,
    TableChanges,
    TargetBusyError,
    TargetMovedError,
    UnrelatedError,
)

FETCHER = "fetcher"
CHECKER = "checker"
Record = dict[str, str] | None
"""A row's cells by column; None where it is not there."""


def digest(*parts: str, length: int = 16) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:length]


def records(rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return rows by table and key, cell by cell."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        name, _, value = row.partition("=")
        record, _, column = name.partition(".") if "=" in row else (row, "", "")
        found.setdefault(record, {})[column] = value
    return found


def rows_of(found: Mapping[str, Record]) -> frozenset[str]:
    """Return the rows that ``records`` was made of."""
    return frozenset(
        record if not column and not value else f"{record}.{column}={value}" if column else f"{record}={value}"
        for record, cells in found.items()
        for column, value in (cells or {}).items()
    )


@dataclass(frozen=True)
class Merged:
    """Three versions brought together, with what is left for somebody to decide."""

    rows: frozenset[str]
    conflicts: tuple[Conflict, ...]
    decided: int
    unused: tuple[int, ...]
    everything: tuple[Conflict, ...]


def merge_rows(
    base: frozenset[str], ours: frozenset[str], theirs: frozenset[str], salt: str, decisions: Sequence[Decision]
) -> Merged:
    """Bring two versions of one base together, cell by cell."""
    before, mine, other = records(base), records(ours), records(theirs)
    result: dict[str, Record] = {}
    found: list[Conflict] = []
    left: list[Conflict] = []
    used: set[int] = set()

    def decide(conflict: Conflict) -> str | None:
        found.append(conflict)
        place = _closest(conflict, decisions)
        if place is None:
            left.append(conflict)
            return None
        used.add(place)
        return decisions[place].take

    for record in sorted({*before, *mine, *other}):
        result[record] = _merge_record(record, (before.get(record), mine.get(record), other.get(record)), salt, decide)
    unused = tuple(place for place in range(len(decisions)) if place not in used)
    return Merged(rows_of(result), tuple(left), len(found) - len(left), unused, tuple(found))


def _merge_record(
    record: str, sides: tuple[Record, Record, Record], salt: str, decide: Callable[[Conflict], str | None]
) -> Record:
    base, ours, theirs = sides
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    table, _, key = record.rpartition("/")
    names = {"row": digest(salt, "row", record), "table": table or "rows", "key": {"id": key}}
    if ours is None or theirs is None:
        conflict = Conflict(id=digest(salt, "Row", record), kind="Row", base=base, ours=ours, theirs=theirs, **names)
        return theirs if decide(conflict) == "Source" else ours
    merged: dict[str, str] = {}
    for column in sorted({*ours, *theirs}):
        was, mine, other = (base or {}).get(column), ours.get(column), theirs.get(column)
        value = other if mine == was else mine
        if mine != other and was not in {mine, other}:
            conflict = Conflict(
                id=digest(salt, "Cell", record, column),
                kind="Cell",
                column=column,
                base=was,
                ours=mine,
                theirs=other,
                **names,
            )
            value = other if decide(conflict) == "Source" else mine
        if value is not None:
            merged[column] = value
    return merged


def _closest(conflict: Conflict, decisions: Sequence[Decision]) -> int | None:
    """Return the place of the decision that means a conflict most exactly; of two alike the first."""
    for name, value in (("conflict", conflict.id), ("row", conflict.row), ("table", conflict.table)):
        for place, decision in enumerate(decisions):
            if getattr(decision, name) == value:
                return place
    every = (place for place, decision in enumerate(decisions) if not decision.conflict and not decision.row)
    return next((place for place in every if not decisions[place].table), None)


def change_set(before: frozenset[str], after: frozenset[str]) -> ChangeSet:
    """Return how rows differ; what begins with ``table `` is a definition."""
    old, new = records(before), records(after)
    changed = sorted(record for record in {*old, *new} if old.get(record) != new.get(record))
    counts: dict[str, list[int]] = {}
    for record in changed:
        if not record.startswith("table "):
            kind = 0 if record not in old else 2 if record not in new else 1
            counts.setdefault(table_of(record), [0, 0, 0])[kind] += 1
    return ChangeSet(
        tuple(TableChanges(table, *numbers) for table, numbers in sorted(counts.items())),
        tuple(record for record in changed if record.startswith("table ")),
        digest(*(f"{record}: {old.get(record)} -> {new.get(record)}" for record in changed), length=64),
    )


class MergingFakeEngine(FakeEngine):
    """See ``coppice.engines.merging.MergingEngine``."""

    remotes_port = FakeEngine.port + 1
    protects = True
    passwords = ("app-password", "remote-password")

    def __init__(self) -> None:
        super().__init__()
        self.passes: Callable[[str, str], bool] = lambda fetcher, source: True
        """Whether the network lets one server fetch from another, by their addresses."""

    # -- looking --

    async def log(self, at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
        volume = self._enter(at).volume
        return [_info(volume, name) for name in volume.ancestors(_find(volume, start))[:limit]]

    async def authors_between(self, at: Endpoint, database: str, base: str, head: str) -> Authors:
        volume = self._enter(at).volume
        known = set(volume.ancestors(_find(volume, base)))
        made = [_info(volume, name) for name in volume.ancestors(_find(volume, head)) if name not in known]
        return Authors(frozenset(name for commit in made for name in (commit.author, commit.email)))

    async def merge_base(self, at: Endpoint, database: str, one: str, other: str) -> str | None:
        volume = self._enter(at).volume
        return _merge_base(volume, _find(volume, one), _find(volume, other))

    async def changes(self, at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
        volume = self._enter(at).volume
        return change_set(*(volume.commits[_find(volume, name)].rows for name in (before, after)))

    async def rows(
        self, at: Endpoint, database: str, before: str, after: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        volume = self._enter(at).volume
        old, new = (records(volume.commits[_find(volume, name)].rows) for name in (before, after))
        for record in sorted({*old, *new}):
            one, other = old.get(record), new.get(record)
            if one != other and table in {None, table_of(record)}:
                kind = "Added" if one is None else "Deleted" if other is None else "Modified"
                yield RowChange(table_of(record), kind, {"id": record.rpartition("/")[2]}, one, other)

    # -- merging --

    async def merge(self, at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
        self.before_call("merge")
        volume = self._enter(at).volume
        base, merged = self._merged(volume, inputs)
        conflicts = tuple(
            ConflictName(entry.id, entry.row, entry.kind, entry.table, entry.column) for entry in merged.conflicts
        )
        rows = volume.commits[inputs.target].rows
        result: str | None = inputs.target
        if conflicts:
            result = None
        elif inputs.source not in volume.ancestors(inputs.target):
            author = f"{inputs.author.name} <{inputs.author.email}>"
            made = max(volume.commits[inputs.target].at, volume.commits[inputs.source].at)
            commit = Commit(inputs.target, merged.rows, made, inputs.source, author, inputs.message)
            result = digest(inputs.target, inputs.source, author, inputs.message, *sorted(merged.rows), length=32)
            volume.commits[result] = commit
        self.after_call("merge")
        return MergeOutcome(
            base=base,
            result=result,
            changes=None if result is None else change_set(rows, volume.commits[result].rows),
            conflicts=conflicts[:MAX_CONFLICTS],
            total=len(merged.everything),
            decided=merged.decided,
            unused=merged.unused,
        )

    async def conflicts(self, at: Endpoint, inputs: MergeInputs) -> AsyncIterator[Conflict]:
        for conflict in self._merged(self._enter(at).volume, inputs)[1].everything:
            yield conflict

    @staticmethod
    def _merged(volume: Volume, inputs: MergeInputs) -> tuple[str, Merged]:
        for commit in (inputs.target, inputs.source):
            _find(volume, commit)
        base = _merge_base(volume, inputs.target, inputs.source)
        if base is None:
            raise UnrelatedError("the two share no commit")
        versions = [volume.commits[name].rows for name in (base, inputs.target, inputs.source)]
        return base, merge_rows(versions[0], versions[1], versions[2], inputs.salt, inputs.decisions)

    def check_binding(self, *, host: str, database: str, commit: str, password: str) -> Mapping[str, str]:
        return {**self.binding(host=host, database=f"{database}/{commit}", password=password), "username": CHECKER}

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        volume = self._enter(at).volume
        rows = volume.commits[_find(volume, commit)].rows
        return [_checked(check, rows) for check in checks]

    # -- acting --

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        act = getattr(self, f"_do_{action.replace('-', '_')}", None)
        if act is None:
            await super().execute(at, action, arguments)
            return
        self.before_call(action)
        server = self._enter(at)
        self.calls.append(action)
        if action in self.refused:
            raise self.refused[action]
        act(at, server, dict(arguments))
        self.after_call(action)

    @staticmethod
    def _do_commit_work(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        volume = server.volume
        branch = volume.branches[arguments["branch"]]
        before = volume.commits[branch.head]
        if branch.rows != before.rows:
            author = f"{arguments['author']} <{arguments['email']}>"
            made = digest(branch.head, author, arguments["message"], *sorted(branch.rows), length=32)
            volume.commits[made] = Commit(branch.head, branch.rows, before.at, None, author, arguments["message"])
            branch.head = made

    @staticmethod
    def _do_create_tag(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        tags, name, commit = server.volume.tags, arguments["tag"], _find(server.volume, arguments["commit"])
        if name.startswith("coppice/"):
            tags.pop(name, None)
        if tags.setdefault(name, commit) != commit:
            raise EngineError(f"the tag {name} is at {tags[name]}")

    @staticmethod
    def _do_ensure_fetch_user(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.users[FETCHER] = arguments["password"]

    @staticmethod
    def _do_drop_fetch_user(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.users.pop(FETCHER, None)

    @staticmethod
    def _do_ensure_check_user(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.users[CHECKER] = arguments["password"]

    @staticmethod
    def _do_sweep(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.users.pop(FETCHER, None)

    def _do_fetch(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        self._fetch(at, server, arguments, arguments["commit"])

    def _do_fetch_result(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        self._fetch(at, server, arguments, arguments["result"])

    def _fetch(self, at: Endpoint, server: Server, arguments: Mapping[str, str], commit: str) -> None:
        if commit in server.volume.commits:
            return
        host, password = arguments["host"], self._password(server, arguments)
        source = self.servers.get(host)
        if source is None or not source.listening or not self.passes(at.host, host):
            raise UnreachableError(f"nothing answers at {host}:{self.remotes_port}")
        if not password or source.volume.users.get(FETCHER) != password:
            raise EngineError(f"the server at {host} lets nobody fetch with this password")
        for name in source.volume.ancestors(_find(source.volume, commit)):
            server.volume.commits[name] = source.volume.commits[name]

    @staticmethod
    def _password(server: Server, arguments: Mapping[str, str]) -> str:
        """Return with what a server fetches: its own process has it."""
        if arguments["password"] != server.remote_password:
            raise EngineError("this is not the password with which this server fetches")
        return server.remote_password

    @staticmethod
    def _do_undo(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        volume, commit = server.volume, _find(server.volume, arguments["commit"])
        parent = volume.commits[commit].parent
        if parent is None:
            raise EngineError(f"{commit} is the first commit of all")
        rows = volume.commits[parent].rows
        made = digest("undo", commit, length=32)
        volume.commits[made] = Commit(commit, rows, volume.commits[commit].at)
        volume.branches[arguments["branch"]] = Branch(made, rows)

    @staticmethod
    def _do_set_branch(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        commit = _find(server.volume, arguments["commit"])
        server.volume.branches[arguments["branch"]] = Branch(commit, server.volume.commits[commit].rows)

    @staticmethod
    def _do_offer(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.offered.add(_find(server.volume, arguments["commit"]))

    def _do_publish(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        volume, result = server.volume, arguments["result"]
        branch = volume.branches.get(arguments["branch"])
        if branch is None:
            raise UnknownVersionError(f"there is no branch {arguments['branch']}")
        if branch.head == result:
            return
        self._fetch_due(at, server, branch, arguments)
        made = volume.commits[result]
        if (made.parent, made.other) != (branch.head, arguments["source"]):
            raise EngineError(f"{result} is not the merge that is to be published")
        volume.branches[arguments["branch"]] = Branch(result, volume.commits[result].rows)

    def _fetch_due(self, at: Endpoint, server: Server, branch: Branch, arguments: dict[str, str]) -> None:
        """Fetch what a branch is to become, if it is as it is expected to be."""
        if branch.head != arguments["expected"]:
            raise TargetMovedError(f"the branch {arguments['branch']} is at {branch.head}")
        if branch.rows != server.volume.commits[branch.head].rows:
            raise TargetBusyError(f"the branch {arguments['branch']} has uncommitted changes")
        self._fetch(at, server, arguments, arguments["result"])

    def _do_fast_forward(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        volume, result = server.volume, arguments["result"]
        branch = volume.branches[arguments["branch"]]
        if result in volume.ancestors(branch.head):
            return
        source = self.servers.get(arguments["host"])
        if source is not None and result not in source.volume.offered:
            raise EngineError(f"the scratch server offers no commit {result}")
        self._fetch_due(at, server, branch, arguments)
        if branch.head not in volume.ancestors(result):
            raise EngineError(f"{result} does not come from {branch.head}")
        branch.head, branch.rows = result, volume.commits[result].rows


def _checked(check: Assertion, rows: frozenset[str]) -> AssertionResult:
    if not check.query:
        return AssertionResult(check.name, error="the query is empty")
    return AssertionResult(check.name, found=len([row for row in rows if row.startswith(check.query)]))


def _find(volume: Volume, version: str) -> str:
    branch = volume.branches.get(version)
    found = branch.head if branch is not None else volume.tags.get(version, version)
    if found not in volume.commits:
        raise UnknownVersionError(f"there is no {version}")
    return found


def _merge_base(volume: Volume, one: str, other: str) -> str | None:
    common = set(volume.ancestors(one)) & set(volume.ancestors(other))
    old = {name for commit in common for name in volume.ancestors(commit)[1:]}
    return min(common - old, default=None)


def _info(volume: Volume, name: str) -> CommitInfo:
    commit = volume.commits[name]
    author, _, rest = commit.author.partition(" <")
    parents = tuple(parent for parent in (commit.parent, commit.other) if parent is not None)
    return CommitInfo(name, parents, author, rest.rstrip(">"), commit.at, commit.message)
