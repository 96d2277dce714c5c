"""Putting a store's data in order when somebody asks for it, and how large they are.

It is asked for by annotation and done part by part: one call in one reconciliation, and the status says which part is
next before it is done, so that whoever comes after a crash does that one again and goes on. A part that cannot be
optimized is noted and passed over: the store serves all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from coppice.api.v1alpha1 import DataStore
from coppice.api.v1alpha1.datastore import OptimizationStatus, SizeStatus
from coppice.core import labels
from coppice.core.plan import EngineCall, Manifest, Plan, ServerRef
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import Endpoint, Engine, EngineError
from coppice.engines.upkeep import OPTIMIZE_ACTION, Size, UpkeepEngine, parse_size
from coppice.kube.client import KubeReader
from coppice.manifests.pod import ENGINE_CONTAINER
from coppice.reconcile.draft import Draft, Fact, beside, holds, stalls
from coppice.reconcile.observed import format_time, pod_state
from coppice.reconcile.reads import read_words
from coppice.reconcile.requests import Request, read_request, unreadable

ACCEPTED: Final = "RequestAccepted"
"""The condition: beside the chain, there only while a request stands in the object."""
SOON: Final = 0.5
"""Seconds until the next part."""
MAX_FAILED: Final = 20
MAX_WORDS: Final = 256
MAX_SAMPLES: Final = 8
SAMPLED_EVERY: Final = timedelta(hours=23, minutes=30)
"""A day, less the time by which two looks may differ."""
ROOM: Final = 2
"""How many times the data must fit onto the volume before they are rolled up: each graph once more, at most."""


@dataclass(frozen=True, slots=True)
class UpkeepSeen:
    """How large the data are, by the last that the server said, and its parts: None where nobody is to know them."""

    size: Size | None = None
    parts: tuple[str, ...] | None = None


async def observe_upkeep(
    reader: KubeReader, manifest: Manifest, engine: Engine | None, pod: Manifest | None, at: Endpoint | None
) -> UpkeepSeen:
    """Read what a server says of its size; ask for its parts where an optimization is to be begun or to go on."""
    if not isinstance(engine, UpkeepEngine) or pod is None or not pod_state(pod).running:
        return UpkeepSeen()
    log = await read_words(reader, pod, ENGINE_CONTAINER)
    seen, request = UpkeepSeen(parse_size(log)), read_request(manifest, labels.OPTIMIZE_REQUESTED_AT)
    told = ((manifest.get("status") or {}).get("optimization")) or {}
    over = request is None or (told.get("requestedAt") == request.token and told.get("finishedAt") is not None)
    if over or at is None:
        return seen
    try:
        return replace(seen, parts=tuple(await engine.parts(at)))
    except EngineError:
        return seen


def size_status(told: SizeStatus | None, size: Size | None) -> dict[str, Any] | None:
    """Return how large the data are, with what they were on the days before; what was said last if nothing is now."""
    if size is None:
        return None if told is None else told.dump()
    samples = [] if told is None else [sample.dump() for sample in told.samples]
    if told is None or not told.samples or size.at - told.samples[-1].at >= SAMPLED_EVERY:
        samples.append({"at": format_time(size.at), "bytes": size.bytes, "layers": size.layers})
    return {"bytes": size.bytes, "layers": size.layers, "samples": samples[-MAX_SAMPLES:]}


def unanswerable(store: DataStore, manifest: Manifest, engine: Engine | None) -> Fact | None:
    """Return why nothing comes of a request for upkeep, whatever else the store does; None where something does."""
    if odd := unreadable(manifest, (labels.OPTIMIZE_REQUESTED_AT,)):
        return stalls(ACCEPTED, "NotATime", f"annotation {odd[0]} is not a time in RFC 3339 and is not acted upon")
    optimize = read_request(manifest, labels.OPTIMIZE_REQUESTED_AT)
    if optimize is None or (store.spec.managed is not None and (engine is None or isinstance(engine, UpkeepEngine))):
        return None
    why = f"engine {store.spec.engine} has nothing to optimize"
    if store.spec.managed is None:
        why = "the server is not run by Coppice, or for a mirror alone"
    return stalls(ACCEPTED, "OptimizeUnsupported", f"nothing is optimized: {why}. Remove the annotation")


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The optimization of one store that is asked for."""

    store: DataStore
    request: Request
    seen: UpkeepSeen
    capacity: str | None
    now: datetime

    @property
    def _has_more(self) -> bool:
        told = self.store.status.optimization
        if not self.seen.parts:
            return False
        if told is None or told.requested_at != self.request.token:
            return not self._lacks_room
        return told.finished_at is None

    @property
    def _lacks_room(self) -> bool:
        size = self.seen.size
        return size is not None and self.capacity is not None and size.bytes * ROOM > quantity_bytes(self.capacity)

    def run(self, draft: Draft, server: ServerRef) -> None:
        """Plan the next part and what the status says of it, if nothing else is to be done in the database; the server
        answers.
        """
        draft.goes_on_after = SOON if self._has_more else None
        told = self.store.status.optimization
        if told is None or told.requested_at != self.request.token:
            self._begin(draft)
        elif told.finished_at is not None:
            self._tell(draft, self._measured(told))
        else:
            self._go_on(draft, server, told)

    def _begin(self, draft: Draft) -> None:
        size, parts = self.seen.size, self.seen.parts
        if size is not None and self._lacks_room:
            draft.asides.append(
                stalls(
                    ACCEPTED,
                    "OptimizeNeedsRoom",
                    f"nothing is optimized: the data take {size.bytes} bytes, and what is rolled up is written once "
                    f"more; the volume has {self.capacity}. Ask for more in spec.managed.storage.size first",
                )
            )
        elif parts:
            self._tell(
                draft,
                OptimizationStatus(
                    requested_at=self.request.token,
                    started_at=self.now.replace(microsecond=0),
                    part=parts[0],
                    done=0,
                    total=len(parts),
                    bytes_before=None if size is None else size.bytes,
                    layers_before=None if size is None else size.layers,
                ),
            )

    def _go_on(self, draft: Draft, server: ServerRef, told: OptimizationStatus) -> None:
        """Do the part that the status names, and name the next one."""
        parts, part = self.seen.parts, told.part
        if draft.calls or parts is None or part is None:
            self._tell(draft, told)
            return
        if part in parts:
            draft.calls.append(EngineCall(self.store.spec.engine, server, OPTIMIZE_ACTION, {"part": part}))
        following = _following(parts, part, told.done)
        self._tell(
            draft,
            told.model_copy(
                update={
                    "done": told.done + 1,
                    "total": told.done + 1 + len(following),
                    "part": following[0] if following else None,
                    "finished_at": None if following else self.now.replace(microsecond=0),
                }
            ),
        )

    def _measured(self, told: OptimizationStatus) -> OptimizationStatus:
        """Return what ended with how large the data were afterwards, once that was measured."""
        size, ended = self.seen.size, told.finished_at
        if told.bytes_after is not None or size is None or ended is None or size.at <= ended:
            return told
        return told.model_copy(update={"bytes_after": size.bytes, "layers_after": size.layers})

    def _tell(self, draft: Draft, told: OptimizationStatus) -> None:
        draft.status["optimization"] = told.dump()
        draft.asides.append(_fact(told))


def _following(parts: Sequence[str], part: str, done: int) -> Sequence[str]:
    """Return the parts after one; of one that is gone meanwhile, those after as many as are done."""
    return parts[parts.index(part) + 1 :] if part in parts else parts[done:]


def _fact(told: OptimizationStatus) -> Fact:
    if told.finished_at is None:
        return holds(ACCEPTED, "Optimizing", f"{told.done} of {told.total} parts are done; the next one is {told.part}")
    if told.failed:
        return stalls(
            ACCEPTED,
            "OptimizeFailed",
            f"{told.done} parts were gone through, and these were not optimized: {', '.join(told.failed)}. They are as "
            "they were; a new request tries again",
        )
    return holds(ACCEPTED, "Optimized", f"{told.done} parts were optimized")


def failed_part(manifest: Manifest, plan: Plan, error: Exception) -> Plan | None:
    """Return what to do when the call of a plan failed, if that was to optimize a part: note it and go on. None for any
    other plan.
    """
    actions = [call.action for call in plan.calls]
    if actions != [OPTIMIZE_ACTION] or plan.status is None or not isinstance(error, EngineError):
        return None
    part = plan.calls[0].arguments["part"]
    told = OptimizationStatus.model_validate(plan.status["optimization"])
    told = told.model_copy(update={"failed": (*told.failed, f"{part} ({error})"[:MAX_WORDS])[:MAX_FAILED]})
    others = [entry for entry in plan.status["conditions"] if entry["type"] != ACCEPTED]
    status: Mapping[str, Any] = {**plan.status, "optimization": told.dump(), "conditions": others}
    return beside(Plan(status=status, requeue_after=SOON), _fact(told), manifest)
