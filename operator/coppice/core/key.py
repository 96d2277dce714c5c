"""How one object is called throughout: by the queue, by a reconciliation and by the dependency index."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """One object by name; ``namespace`` is None for a cluster-scoped kind.

    ``kind`` is a key of ``coppice.kube.resources.RESOURCES``.
    """

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
