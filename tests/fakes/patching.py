"""An engine in memory that keeps no versions: the reference for how requests for a live database are computed and
written. Its rows are those of ``tests.fakes.merging``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.fakes.engine import FakeEngine, Volume, table_of
from tests.fakes.merging import Record, change_set, digest, merge_rows, records, rows_of
from tests.fakes.world import World

from coppice.engines.base import Endpoint
from coppice.engines.merging import (
    Assertion,
    AssertionResult,
    ChangeSet,
    ConflictName,
    RowChange,
    TargetMovedError,
)
from coppice.engines.patching import (
    Begun,
    BrokenRulesError,
    Fate,
    JudgedPatch,
    Patch,
    PatchInputs,
    RefusedError,
)

Records = Mapping[str, Record]


@dataclass(frozen=True)
class FakePatch:
    """The records that differ, as they are to be found and as they are to become."""

    before: Records
    after: Records

    @property
    def changes(self) -> ChangeSet:
        return change_set(rows_of(self.before), rows_of(self.after))

    @property
    def size(self) -> int:
        return sum(map(len, (*rows_of(self.before), *rows_of(self.after))))


def patch_between(before: Iterable[str], after: Iterable[str]) -> FakePatch:
    old, new = records(before), records(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return FakePatch({name: old.get(name) for name in names}, {name: new.get(name) for name in names})


def own(patch: Patch) -> FakePatch:
    assert isinstance(patch, FakePatch)
    return patch


class PatchingFakeEngine(FakeEngine):
    """See ``coppice.engines.patching.PatchingEngine``."""

    versioned = False

    def __init__(self) -> None:
        super().__init__()
        self.compared = 0
        """How often a clone was compared with what it came from."""
        self.judged = 0
        self.slow: asyncio.Event | None = None
        """Comparisons take until then."""
        self.untold: Callable[[str], Exception | None] = lambda row: None
        """What is said of a row that is in no change set."""
        self.breaks: Callable[[frozenset[str]], str] = lambda rows: ""
        """The rule of the live database that rows would break, if any."""
        self.written: Callable[[FakePatch, frozenset[str]], None] = lambda patch, before: None
        """Called when something was committed, with what the database held before."""
        self.fates: Callable[[str], Fate | None] = lambda name: None
        """What is said of a transaction whatever became of it."""

    def _rows(self, at: Endpoint) -> frozenset[str]:
        volume = self._enter(at).volume
        return volume.branches[volume.default_branch].rows

    async def mark(self, at: Endpoint, database: str) -> str:
        return digest(*sorted(self._rows(at)))

    async def patch(self, base: Endpoint, clone: Endpoint, database: str) -> Patch:
        self.before_call("patch")
        self.compared += 1
        if self.slow is not None:
            await self.slow.wait()
        before, after = self._rows(base), self._rows(clone)
        for row in sorted(after - before):
            error = self.untold(row)
            if error is not None:
                raise error
        if any(row.startswith("view ") for row in before ^ after):
            raise RefusedError("a view differs, which is in no change set")
        self.after_call("patch")
        return patch_between(before, after)

    async def differences(self, base: Endpoint, clone: Endpoint, database: str) -> ChangeSet:
        return change_set(self._rows(base), self._rows(clone))

    async def rows(
        self, base: Endpoint, clone: Endpoint, database: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        for row in self.patch_rows(patch_between(self._rows(base), self._rows(clone)), table):
            yield row

    def patch_rows(self, patch: Patch, table: str | None = None) -> Iterator[RowChange]:
        found = own(patch)
        for name, before in found.before.items():
            after = found.after[name]
            if table in {None, table_of(name)}:
                kind = "Added" if before is None else "Deleted" if after is None else "Modified"
                yield RowChange(table_of(name), kind, {"id": name.rpartition("/")[2]}, before, after)

    async def judge(self, target: Endpoint, database: str, patch: Patch, inputs: PatchInputs) -> JudgedPatch:
        self.before_call("judge")
        self.judged += 1
        found, live = own(patch), records(self._rows(target))
        ours = {name: live.get(name) for name in found.before}
        merged = merge_rows(*map(rows_of, (found.before, ours, found.after)), inputs.salt, inputs.decisions)
        named = {conflict.id for conflict in merged.conflicts}
        decided = tuple(conflict for conflict in merged.everything if conflict.id not in named)
        self.after_call("judge")
        return JudgedPatch(
            patch_between(rows_of(ours), merged.rows),
            merged.conflicts,
            decided,
            merged.unused,
            complete=ours == dict(found.after),
        )

    def script(self, patch: Patch) -> str:
        return f"-- {patch.changes.digest}"

    async def try_patch(
        self, base: Endpoint, database: str, patch: Patch, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        rows = rows_of({**records(self._rows(base)), **own(patch).after})
        return [
            AssertionResult(check.name, found=len([row for row in rows if row.startswith(check.query)]))
            for check in checks
        ]

    async def write(self, target: Endpoint, database: str, patch: Patch, salt: str, begun: Begun) -> None:
        self.before_call("write")
        volume, name = self._enter(target).volume, ""
        self._guard(volume, own(patch))
        try:
            broken = self.breaks(self._after(volume, own(patch)))
            if broken:
                raise BrokenRulesError([ConflictName("0" * 16, "1" * 16, "Unique", "album", detail=broken)])
            name = f"xid:{len(volume.transactions) + 700}@fake-1"
            volume.transactions[name] = "Open"
            await begun(name)
            self.between("noted")
            self._commit(volume, own(patch), name)
        finally:
            # Whoever has begun it is gone, or it is over.
            if volume.transactions.get(name) == "Open":
                volume.transactions[name] = "Aborted"
        self.between("committed")
        self.after_call("write")

    def _commit(self, volume: Volume, patch: FakePatch, name: str) -> None:
        self._guard(volume, patch)
        branch = volume.branches[volume.default_branch]
        before, branch.rows = branch.rows, self._after(volume, patch)
        volume.transactions[name] = "Committed"
        self.written(patch, before)

    @staticmethod
    def _guard(volume: Volume, patch: FakePatch) -> None:
        live = records(volume.branches[volume.default_branch].rows)
        moved = sorted({table_of(name) for name, row in patch.before.items() if live.get(name) != row})
        if moved:
            raise TargetMovedError(f"{len(moved)} things are not as they were: Row {', '.join(moved)}")

    @staticmethod
    def _after(volume: Volume, patch: FakePatch) -> frozenset[str]:
        live = records(volume.branches[volume.default_branch].rows)
        return rows_of({**live, **patch.after})

    async def fate(self, target: Endpoint, database: str, transaction: str) -> Fate:
        transactions = self._enter(target).volume.transactions
        told = self.fates(transaction)
        if told is not None:
            return told
        match transactions.get(transaction):
            case "Committed":
                return "Committed"
            case "Aborted":
                return "Aborted"
            case "Open":
                return "Open"
            case _:
                return "Unknown"


class PatchingWorld(World):
    """A cluster whose databases keep no versions."""

    def _servers(self) -> PatchingFakeEngine:  # type: ignore[override]
        engine = PatchingFakeEngine()
        engine.named = self._named
        engine.clock = self._clock
        return engine
