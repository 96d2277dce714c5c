"""One reconciliation: observe, plan, execute.

A ``Reconciler`` says how one kind is observed and what is planned for it. What is done with errors, waiting and
repetition is the same for every kind and stands here once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.core.key import Key
    from coppice.core.plan import Manifest, Plan
    from coppice.engines.base import EngineError
    from coppice.kube.client import KubeReader
    from coppice.kube.errors import KubeError


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

    kind: str

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

        Pure. ``error`` is an InvalidError, a ForbiddenError (RBAC or quota), a NameConflictError, or an EngineError that
        is not an UnreachableError. Only the plan's status, events and ``requeue_after`` count.
        """
        ...
