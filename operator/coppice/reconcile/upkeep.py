"""Putting a store's data in order when somebody asks for it, and how large they are.

It is asked for by annotation and done part by part, one at a time and beside everything else. The status says which
part is next before it is begun, so that whoever comes after a crash begins that one again and goes on. A part that
cannot be optimized is noted and passed over: the store serves all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from coppice.api.v1alpha1 import DataStore, InvalidResource
from coppice.api.v1alpha1.datastore import OptimizationStatus, SizeStatus
from coppice.core import labels
from coppice.core.plan import EngineCall, Manifest, ServerRef
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import Endpoint, Engine, EngineError, UnreachableError
from coppice.engines.upkeep import OPTIMIZE_ACTION, Outcome, Size, UpkeepEngine, parse_size
from coppice.kube.client import KubeReader
from coppice.manifests.pod import ENGINE_CONTAINER
from coppice.reconcile.draft import Draft, Fact, holds, stalls
from coppice.reconcile.observed import format_time, pod_state
from coppice.reconcile.reads import read_words
from coppice.reconcile.requests import ACCEPTED, Request, not_a_time, read_request, unreadable

SOON: Final = 0.5
"""Seconds until the next part."""
LOOK_SECONDS: Final = 5.0
"""Between two looks at a part that takes long."""
MAX_TRIES: Final = 3
"""How often a part may leave the server silent: it may be that it kills it."""
MAX_FAILED: Final = 20
MAX_WORDS: Final = 256
MAX_SAMPLES: Final = 8
SAMPLED_EVERY: Final = timedelta(hours=23, minutes=30)
"""A day, less the time by which two looks may differ."""
ROOM: Final = 2
"""How many times the data must fit onto the volume before a part is rolled up: it may be written once more, whole. Of
each part that was done since they were measured, once more again."""


class Stage(Enum):
    """What there is of an optimization that is asked for."""

    NEW = "new"
    UNDER_WAY = "under way"
    OVER = "over"


def stage(told: OptimizationStatus | None, request: Request) -> Stage:
    """Return what there is of what a request asks for, by the status."""
    if told is None or told.requested_at != request.token:
        return Stage.NEW
    return Stage.UNDER_WAY if told.finished_at is None else Stage.OVER


@dataclass(frozen=True, slots=True)
class UpkeepSeen:
    """How large the data are, by the last that the server said; what has become of the part that the status names; and
    the parts that there are: None where nobody is to know them.
    """

    size: Size | None = None
    parts: tuple[str, ...] | None = None
    outcome: Outcome | None = None


async def observe_upkeep(
    reader: KubeReader,
    store: DataStore | InvalidResource,
    manifest: Manifest,
    engine: Engine | None,
    pod: Manifest | None,
    at: Endpoint | None,
) -> UpkeepSeen:
    """Read what a server says of its size; ask for its parts where an optimization is to be begun or to go on."""
    if isinstance(store, InvalidResource) or pod is None or not pod_state(pod).running:
        return UpkeepSeen()
    if not isinstance(engine, UpkeepEngine):
        return UpkeepSeen()
    seen = UpkeepSeen(parse_size(await read_words(reader, pod, ENGINE_CONTAINER)))
    request, told = read_request(manifest, labels.OPTIMIZE_REQUESTED_AT), store.status.optimization
    if request is None or at is None or stage(told, request) is Stage.OVER:
        return seen
    if told is not None and stage(told, request) is Stage.UNDER_WAY:
        seen = replace(seen, outcome=engine.outcome(store.metadata.uid, _turn(told)))
    if seen.outcome is not None and not seen.outcome.ended:
        return seen
    try:
        return replace(seen, parts=tuple(await engine.parts(at)))
    except EngineError:
        return seen


def size_status(told: SizeStatus | None, size: Size | None) -> dict[str, Any] | None:
    """Return how large the data are, with what they were day by day; what was said last if nothing is now."""
    if size is None:
        return None if told is None else told.dump()
    samples = [] if told is None else [sample.dump() for sample in told.samples]
    if told is None or not told.samples or size.at - told.samples[-1].at >= SAMPLED_EVERY:
        samples.append({"at": format_time(size.at), "bytes": size.bytes, "layers": size.layers})
    return {"bytes": size.bytes, "layers": size.layers, "samples": samples[-MAX_SAMPLES:]}


def unanswerable(store: DataStore, manifest: Manifest, engine: Engine | None) -> list[Fact]:
    """Return why nothing comes of a request for upkeep, whatever else the store does; nothing where something does."""
    if odd := unreadable(manifest, (labels.OPTIMIZE_REQUESTED_AT,)):
        return [not_a_time(odd[0])]
    optimize = read_request(manifest, labels.OPTIMIZE_REQUESTED_AT)
    if optimize is None or (store.spec.managed is not None and (engine is None or isinstance(engine, UpkeepEngine))):
        return []
    why = f"engine {store.spec.engine} has nothing to optimize"
    if store.spec.managed is None:
        why = "the server is not run by Coppice, or for a mirror alone"
    return [stalls(ACCEPTED, "OptimizeUnsupported", f"nothing is optimized: {why}. Remove the annotation")]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The optimization of one store that is asked for."""

    store: DataStore
    request: Request
    seen: UpkeepSeen
    capacity: str | None
    now: datetime

    def run(self, draft: Draft, server: ServerRef) -> OptimizationStatus | None:
        """Plan the next part, if nothing else is to be done in the database; return how far it is."""
        told = self.store.status.optimization
        match stage(told, self.request), told:
            case Stage.UNDER_WAY, OptimizationStatus():
                return self._go_on(draft, server, told)
            case Stage.OVER, OptimizationStatus():
                return _tell(draft, self._measured(told))
            case _:
                return self._begin(draft) or told

    def _begin(self, draft: Draft) -> OptimizationStatus | None:
        size, parts = self.seen.size, self.seen.parts
        if not parts:
            return None
        begun = OptimizationStatus(
            requested_at=self.request.token,
            started_at=self._moment,
            part=parts[0],
            done=0,
            total=len(parts),
            bytes_before=None if size is None else size.bytes,
            layers_before=None if size is None else size.layers,
        )
        lack = self._lack(begun)
        if lack is not None:
            draft.asides.append(lack)
            return None
        draft.goes_on_after = SOON
        return _tell(draft, begun)

    def _go_on(self, draft: Draft, server: ServerRef, told: OptimizationStatus) -> OptimizationStatus:
        """Begin the part that the status names, or name the next one if that has ended."""
        parts, outcome = self.seen.parts, self.seen.outcome
        draft.goes_on_after = LOOK_SECONDS if parts is None else SOON
        if parts is None or told.part is None:
            return _tell(draft, told)
        if outcome is not None:
            return _tell(draft, self._after(told, parts, outcome.error))
        if told.part not in parts:
            return _tell(draft, self._next(told, parts, did=False))
        lack = self._lack(told)
        if lack is not None:
            draft.goes_on_after = None
            draft.asides.append(lack)
            return told
        if not draft.calls:
            draft.calls.append(self._call(server, told, told.part))
        return _tell(draft, told)

    def _call(self, server: ServerRef, told: OptimizationStatus, part: str) -> EngineCall:
        arguments = {"part": part, "of": self.store.metadata.uid, "turn": _turn(told)}
        return EngineCall(self.store.spec.engine, server, OPTIMIZE_ACTION, arguments)

    def _after(self, told: OptimizationStatus, parts: Sequence[str], error: EngineError | None) -> OptimizationStatus:
        """Return how far it is after a try at a part; whether one that left the server silent wrote nobody knows."""
        tries = (told.silent_tries or 0) + 1
        if isinstance(error, UnreachableError) and tries < MAX_TRIES:
            return self._spent(told).model_copy(update={"silent_tries": tries})
        if error is not None:
            words = f"{told.part} ({error})"[:MAX_WORDS]
            update = {"failed": (*told.failed, words)[:MAX_FAILED], "failed_count": (told.failed_count or 0) + 1}
            told = told.model_copy(update=update)
        return self._next(self._spent(told), parts, did=True)

    def _spent(self, told: OptimizationStatus) -> OptimizationStatus:
        """Return what is told with one more part that may have been written since the data were measured."""
        return told.model_copy(update={"unmeasured": self._unmeasured(told) + 1, "last_part_at": self._moment})

    def _next(self, told: OptimizationStatus, parts: Sequence[str], *, did: bool) -> OptimizationStatus:
        """Name the part that follows by name, for others come and go meanwhile."""
        following, done = [part for part in parts if part > (told.part or "")], told.done + did
        return told.model_copy(
            update={
                "done": done,
                "total": done + len(following),
                "part": following[0] if following else None,
                "silent_tries": None,
                "finished_at": None if following else self._moment,
            }
        )

    def _unmeasured(self, told: OptimizationStatus) -> int:
        """Return how many parts were done since the data were measured."""
        size, last = self.seen.size, told.last_part_at
        return 0 if size is not None and last is not None and size.at > last else told.unmeasured or 0

    def _lack(self, told: OptimizationStatus) -> Fact | None:
        """Return what the next part waits for: that there is room for it, as far as anybody knows; None if there is."""
        size, known, so_far = self.seen.size, self.store.status.size, _so_far(told)
        taken = size.bytes if size is not None else None if known is None else known.bytes
        if taken is None or self.capacity is None:
            return _unmeasured(so_far)
        room = quantity_bytes(self.capacity)
        if taken * ROOM > room:
            return stalls(
                ACCEPTED,
                "OptimizeNeedsRoom",
                f"{so_far}: the data take {taken} bytes, and what is rolled up is written once more; the volume has "
                f"{self.capacity}. Ask for more in spec.managed.storage.size: it goes on by itself then",
            )
        if taken * (ROOM + self._unmeasured(told)) <= room:
            return None
        if size is None:
            return _unmeasured(so_far)
        return holds(ACCEPTED, "Optimizing", f"{so_far}; the next one waits until the data are measured again")

    def _measured(self, told: OptimizationStatus) -> OptimizationStatus:
        """Return what ended with how large the data were afterwards, once that was measured."""
        size, ended = self.seen.size, told.finished_at
        if told.bytes_after is not None or size is None or ended is None or size.at <= ended:
            return told
        return told.model_copy(update={"bytes_after": size.bytes, "layers_after": size.layers})

    @property
    def _moment(self) -> datetime:
        return self.now.replace(microsecond=0)


def _turn(told: OptimizationStatus) -> str:
    """Return the name of the next try at the part that the status names."""
    return f"{told.requested_at} {told.part} {told.silent_tries or 0}"


def _unmeasured(so_far: str) -> Fact:
    return stalls(
        ACCEPTED,
        "OptimizeUnmeasured",
        f"{so_far}: the server does not say how large the data are, so that nobody knows whether there is room for "
        "more. One that an older version of Coppice has started never does: delete its Pod, and it is made anew",
    )


def _so_far(told: OptimizationStatus) -> str:
    return f"{told.done} of {told.total} parts are done"


def _tell(draft: Draft, told: OptimizationStatus) -> OptimizationStatus:
    draft.asides.append(_fact(told))
    return told


def _fact(told: OptimizationStatus) -> Fact:
    if told.finished_at is None:
        return holds(ACCEPTED, "Optimizing", f"{_so_far(told)}; the next one is {told.part}")
    if told.failed:
        more = (told.failed_count or 0) - len(told.failed)
        return stalls(
            ACCEPTED,
            "OptimizeFailed",
            f"{told.done} parts were gone through, and these were not optimized: {', '.join(told.failed)}"
            f"{f' and {more} more' if more > 0 else ''}. They are as they were; a new request tries again",
        )
    return holds(ACCEPTED, "Optimized", f"{told.done} parts were optimized")
