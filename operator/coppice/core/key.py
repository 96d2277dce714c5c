"""How one object is called throughout: by the queue, by a reconciliation and by the dependency index."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from coppice.core.plan import Manifest


class Key(NamedTuple):
    """One object by name; ``namespace`` is None for a cluster-scoped kind.

    ``kind`` is a key of ``coppice.kube.resources.RESOURCES``.
    """

    kind: str
    namespace: str | None
    name: str

    @classmethod
    def of(cls, kind: str, manifest: Manifest) -> Key:
        """Return the key of an object as read from the API, where an item of a list may not say its kind."""
        metadata = manifest["metadata"]
        return cls(kind, metadata.get("namespace"), metadata["name"])

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
