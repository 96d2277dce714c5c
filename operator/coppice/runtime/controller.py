"""One reconciliation: observe, plan, execute.

A ``Reconciler`` says how one kind is observed and what is planned for it. What is done with errors, waiting and
repetition is the same for every kind and stands here once.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from coppice.core.plan import Plan
from coppice.engines.base import EngineError, UnderWayError, UnreachableError
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NameConflictError,
    NotFoundError,
    TransientError,
    WiringConflictError,
)
from coppice.runtime.metrics import CloneMetrics, MirrorMetrics, RequestMetrics, SizeMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from coppice.core.key import Key
    from coppice.core.plan import Manifest
    from coppice.kube.client import KubeReader
    from coppice.runtime.dependencies import Dependencies
    from coppice.runtime.executor import Executor
    from coppice.runtime.metrics import Metrics

logger = logging.getLogger(__name__)

REFUSED_SECONDS: Final = 60.0
"""When a refused write is tried again if the reconciler does not say: a quota may be raised without an event."""

_RETRIED: Final = (TransientError, ConflictError, NotFoundError, AlreadyExistsError, UnreachableError)
_REFUSED: Final = (InvalidError, ForbiddenError, NameConflictError, WiringConflictError, EngineError)


class Observation(Protocol):
    """Everything a plan function may look at; a frozen dataclass per kind, with at least these two fields."""

    @property
    def manifest(self) -> Manifest:
        """The object itself as it was read."""
        ...

    @property
    def now(self) -> datetime:
        """The moment of the observation, the only clock of a plan function."""
        ...


ObservationT = TypeVar("ObservationT", bound=Observation)


class Reconciler(Protocol[ObservationT]):
    """How one kind is kept as its specification says."""

    @property
    def kind(self) -> str:
        """The kind, as in ``RESOURCES``."""
        ...

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> ObservationT | None:
        """Read everything a plan needs; None when the object itself is gone.

        What is read through ``reader`` wakes this key when it changes.
        """
        ...

    def plan(self, observation: ObservationT) -> Plan:
        """Return what to do now: pure, total, and empty (but for the status that is there already) once all is done."""
        ...

    def failed(self, observation: ObservationT, error: KubeError | EngineError) -> Plan:
        """Return the status and event for a write that cannot succeed as things stand.

        Pure. ``error`` is an InvalidError, a ForbiddenError (RBAC or quota), a NameConflictError, a
        WiringConflictError, or an EngineError that is not an UnreachableError. Only the plan's status, whether that
        is ``guarded``, events and ``requeue_after`` count.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the queue has to do next: come back after a delay in seconds, or back off for at least that long."""

    delay: float | None = None
    retry: bool = False


class Controller:
    """Reconciles any key of the kinds it knows; never raises but for cancellation.

    What it reads through ``reader`` may lag behind. A plan that is final is made again from ``live`` reads, and so is
    one after a failure.
    """

    def __init__(
        self,
        *,
        reconcilers: Mapping[str, Reconciler[Any]],
        reader: KubeReader,
        live: KubeReader,
        executor: Executor,
        dependencies: Dependencies,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self.kinds = frozenset(reconcilers)
        self._reconcilers = reconcilers
        self._reader = reader
        self._live = live
        self._executor = executor
        self._dependencies = dependencies
        self._metrics = metrics
        self._clones = CloneMetrics(metrics)
        self._mirrors = MirrorMetrics(metrics)
        self._sizes = SizeMetrics(metrics)
        self._requests = RequestMetrics(metrics)
        self._clock = clock
        self._bugs: dict[Key, tuple[int | None, str]] = {}
        self._failed: set[Key] = set()

    async def run_once(self, key: Key) -> Outcome:
        """Observe, plan and execute once, and say when to come back."""
        with self._metrics.reconcile_seconds.labels(key.kind).time():
            attempt = _Attempt(key)
            try:
                outcome = await self._reconcile(attempt)
            except _RETRIED as error:
                self._count_error(key, error)
                logger.info("will be tried again: %s", error, extra=_fields(key))
                return self._counted(key, "retry", Outcome(getattr(error, "retry_after", None), retry=True))
            except (KubeError, EngineError) as error:
                # Refused before there was anything to report it on: a read that RBAC forbids, or the report itself.
                self._count_error(key, error)
                logger.warning("refused: %s", error, extra=_fields(key))
                return self._counted(key, "refused", Outcome(REFUSED_SECONDS, retry=True))
            except Exception as error:  # noqa: BLE001 - the one place that survives a bug
                self._report_bug(attempt, error)
                return self._counted(key, "bug", Outcome(retry=True))
        self._bugs.pop(key, None)
        return outcome

    async def _reconcile(self, attempt: _Attempt) -> Outcome:
        key, reconciler = attempt.key, self._reconcilers[attempt.key.kind]
        # What failed may have failed for something that is not as it was read.
        reader = self._live if key in self._failed else self._reader
        plan = await self._plan(attempt, reader)
        if plan is not None and plan.is_final and reader is not self._live:
            plan = await self._plan(attempt, self._live)
        observation = attempt.observation
        if plan is None or observation is None:
            self._forget(key)
            return self._counted(key, "done", Outcome())
        try:
            await self._execute(key, plan, observation)
        except _RETRIED:
            raise
        except UnderWayError:
            told = Plan(status=plan.status, events=plan.events, guarded=plan.guarded)
            await self._execute(key, told, observation)
            return self._counted(key, "done", Outcome(plan.requeue_after))
        except _REFUSED as error:
            self._count_error(key, error)
            refusal = reconciler.failed(observation, error)
            report = Plan(status=refusal.status, events=refusal.events, guarded=refusal.guarded)
            await self._execute(key, report, observation)
            return self._counted(key, "refused", Outcome(refusal.requeue_after or REFUSED_SECONDS))
        return self._counted(key, "done", Outcome(plan.requeue_after))

    async def _plan(self, attempt: _Attempt, reader: KubeReader) -> Plan | None:
        """Observe, and return what to do; None when the object is gone."""
        reconciler = self._reconcilers[attempt.key.kind]
        tracking = self._dependencies.track(reader, self._live, attempt.key)
        attempt.observation = await reconciler.observe(tracking, attempt.key, self._clock())
        if attempt.observation is None:
            return None
        tracking.commit()
        return reconciler.plan(attempt.observation)

    async def _execute(self, key: Key, plan: Plan, observation: Observation) -> None:
        manifest = observation.manifest
        if key.kind == CloneMetrics.KIND:
            self._clones.seen(key, manifest)
        status = await self._executor.execute(plan, manifest, observation.now)
        if key.kind == CloneMetrics.KIND:
            self._clones.changed(key, manifest.get("status") or {}, status)
        elif key.kind == MirrorMetrics.KIND:
            self._mirrors.changed(key, status)
            self._sizes.changed(key, status)
        elif key.kind == RequestMetrics.KIND:
            self._requests.changed(key, manifest, status)

    def _forget(self, key: Key) -> None:
        self._dependencies.forget(key)
        self._clones.gone(key)
        self._mirrors.gone(key)
        self._sizes.gone(key)
        self._requests.gone(key)

    def _counted(self, key: Key, outcome: str, result: Outcome) -> Outcome:
        self._metrics.reconciles.labels(key.kind, outcome).inc()
        if outcome == "done":
            self._failed.discard(key)
        else:
            self._failed.add(key)
        return result

    def _count_error(self, key: Key, error: Exception) -> None:
        self._metrics.reconcile_errors.labels(key.kind, type(error).__name__).inc()

    def _report_bug(self, attempt: _Attempt, error: Exception) -> None:
        """Log a bug with its traceback once per object and generation; it repeats with every try until it is fixed."""
        self._count_error(attempt.key, error)
        # Not the exception's own text: it may quote what it stumbled over.
        trace = "".join(traceback.format_tb(error.__traceback__))
        signature = (attempt.generation, f"{type(error).__name__}\n{trace}")
        if self._bugs.get(attempt.key) != signature:
            self._bugs[attempt.key] = signature
            logger.error("bug: %s\n%s", type(error).__name__, trace, extra=_fields(attempt.key))


@dataclass(slots=True)
class _Attempt:
    """One reconciliation as far as it got."""

    key: Key
    observation: Observation | None = None

    @property
    def generation(self) -> int | None:
        return None if self.observation is None else self.observation.manifest["metadata"].get("generation")


def _fields(key: Key) -> dict[str, str | None]:
    return {"kind": key.kind, "namespace": key.namespace, "object": key.name}
