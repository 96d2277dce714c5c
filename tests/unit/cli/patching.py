"""An engine whose clones can be compared with what they came from: what it has is given to it, and what it is asked is
noted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from tests.fakes.engine import FakeEngine

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.merging import Assertion, AssertionResult, ChangeSet, Conflict, RowChange, TableChanges
from coppice.engines.patching import Begun, Fate, JudgedPatch, Patch, PatchInputs

PRICE = RowChange("track", "Modified", {"id": "1"}, {"id": "1", "price": "0.99"}, {"id": "1", "price": "1.29"})
CELL = Conflict("0123456789abcdef", "fedcba9876543210", "Cell", "track", "price", {"id": "1"}, "0.99", "1.09", "1.29")


@dataclass(frozen=True)
class Change:
    """See ``coppice.engines.patching.Patch``."""

    rows: tuple[RowChange, ...] = (PRICE,)
    digest: str = "all"
    size: int = 0

    @property
    def changes(self) -> ChangeSet:
        modified = len([row for row in self.rows if row.kind == "Modified"])
        return ChangeSet((TableChanges("track", 0, modified, 0),), ("ALTER TABLE track",), self.digest)


@dataclass
class Patching(FakeEngine):
    """See ``coppice.engines.patching.PatchingEngine``."""

    whole: Change = field(default_factory=Change)
    left: Change = field(default_factory=lambda: Change(digest="left"))
    waiting: tuple[Conflict, ...] = ()
    decided: tuple[Conflict, ...] = ()
    refused_patch: EngineError | None = None
    text: str = "BEGIN;\nCOMMIT;\n"

    def __post_init__(self) -> None:
        super().__init__()
        self.compared: list[tuple[Endpoint, Endpoint, str]] = []
        self.judged: list[tuple[Endpoint, str, Patch, PatchInputs]] = []

    async def mark(self, at: Endpoint, database: str) -> str:
        raise AssertionError("a person's command remembers nothing")

    async def patch(self, base: Endpoint, clone: Endpoint, database: str) -> Patch:
        self.compared.append((base, clone, database))
        if self.refused_patch is not None:
            raise self.refused_patch
        return self.whole

    async def differences(self, base: Endpoint, clone: Endpoint, database: str) -> ChangeSet:
        self.compared.append((base, clone, database))
        return self.whole.changes

    async def rows(
        self, base: Endpoint, clone: Endpoint, database: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        self.compared.append((base, clone, database))
        for row in self.patch_rows(self.whole, table):
            yield row

    def patch_rows(self, patch: Patch, table: str | None = None) -> Iterator[RowChange]:
        assert isinstance(patch, Change)
        return (row for row in patch.rows if table in {None, row.table})

    async def judge(self, target: Endpoint, database: str, patch: Patch, inputs: PatchInputs) -> JudgedPatch:
        self.judged.append((target, database, patch, inputs))
        return JudgedPatch(self.left, self.waiting, self.decided)

    def script(self, patch: Patch) -> str:
        return f"-- {patch.changes.digest}\n{self.text}"

    async def try_patch(
        self, base: Endpoint, database: str, patch: Patch, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        raise AssertionError("a person's command asks no check")

    async def write(self, target: Endpoint, database: str, patch: Patch, salt: str, begun: Begun) -> None:
        raise AssertionError("a person's command writes nothing")

    async def fate(self, target: Endpoint, database: str, transaction: str) -> Fate:
        raise AssertionError("a person's command writes nothing")
