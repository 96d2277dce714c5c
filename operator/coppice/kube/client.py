"""The few verbs that Coppice needs of the Kubernetes API, over plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coppice.core.plan import Manifest, Ref

FIELD_MANAGER = "coppice"
STATUS_MANAGER = "coppice-status"
FINALIZER_MANAGER = "coppice-finalizer"
WIRING_MANAGER = "coppice-wiring"
SCALING_MANAGER = "coppice-scaling"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()


class KubeReader(Protocol):
    """Reads. Those of the API server are not older than the call; those of a cache may be (``coppice.kube.cache``)."""

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return the object, or None when there is none. ``kind`` is a key of ``coppice.kube.resources.RESOURCES``."""
        ...

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Return all objects of a kind, of one namespace or of all, whose labels match."""
        ...

    async def survey(self, kind: str) -> Sequence[Manifest]:
        """Return all objects of a kind that are watched; unlike with ``list``, what changes among them wakes nobody."""
        ...

    async def events_of(self, manifest: Manifest) -> Sequence[Manifest]:
        """Return the Events about exactly this object; new ones wake nobody."""
        ...

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Return the last lines a container printed; empty when the Pod is gone."""
        ...


class KubeClient(KubeReader, Protocol):
    """Reads and writes. Every method raises ``coppice.kube.errors.KubeError``."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; raises AlreadyExistsError when the name is taken."""
        ...

    async def apply(
        self, manifest: Manifest, *, manager: str = FIELD_MANAGER, force: bool = True, subresource: str | None = None
    ) -> Manifest:
        """Server-side apply. With ``metadata.uid`` set, an object that was recreated meanwhile is a ConflictError, and
        a vanished one is not made anew.
        """
        ...

    async def prune(self, manifest: Manifest) -> Manifest:
        """Take away the fields that are null in a merge patch with ``metadata.uid`` and ``metadata.resourceVersion``.

        ConflictError when the object has changed since, NotFoundError when it is gone.
        """
        ...

    async def delete(self, ref: Ref) -> None:
        """Delete exactly this object (``preconditions.uid``); one that is gone or was recreated counts as deleted."""
        ...
