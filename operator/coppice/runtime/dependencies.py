"""Who read what: which keys must be looked at again when an object changes.

Every read of a reconciliation is recorded, the vain ones too, so that the appearance of what was missing wakes those
who looked for it; nobody has to write down which kind depends on which. A read is recorded before it is made: an event
that arrives in between finds it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from coppice.core.key import Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.core.plan import Manifest
    from coppice.kube.client import KubeReader

Label = tuple[str, str]


class Selection(NamedTuple):
    """A list that was read: all objects of a kind, of one namespace or of all, with these labels."""

    kind: str
    namespace: str | None
    labels: frozenset[Label]

    def matches(self, key: Key, labels: Mapping[str, str]) -> bool:
        """Return whether an object is in the list."""
        return (
            self.kind == key.kind
            and self.namespace in {None, key.namespace}
            and all(labels.get(name) == value for name, value in self.labels)
        )


Read = Key | Selection
Slot = tuple[str, Label | None]
"""Where a selection is filed: under its kind and one of its labels, so that an event looks at few."""


class Dependencies:
    """The reads of every key's last reconciliation, and the way back; a key that is gone has none."""

    def __init__(self) -> None:
        self._reads: dict[Key, set[Read]] = {}
        self._readers: defaultdict[Read, set[Key]] = defaultdict(set)
        self._filed: defaultdict[Slot, set[Selection]] = defaultdict(set)

    def track(self, reader: KubeReader, live: KubeReader, key: Key) -> Tracking:
        """Return a reader that records for ``key``, to be ended with ``commit``, or left as it is after a failure.

        The object itself is read from ``live``: nothing may be made for one that is gone.
        """
        return Tracking(self, reader, live, key)

    def readers_of(self, key: Key, labels: Mapping[str, str]) -> set[Key]:
        """Return the keys that read an object, by name or in a list."""
        found = set(self._readers.get(key, ()))
        for slot in ((key.kind, None), *((key.kind, label) for label in labels.items())):
            for selection in self._filed.get(slot, ()):
                if selection.matches(key, labels):
                    found |= self._readers[selection]
        return found

    def forget(self, key: Key) -> None:
        """Drop what a key read."""
        for read in self._reads.pop(key, set()):
            self._drop(key, read)

    def __len__(self) -> int:
        return sum(map(len, self._reads.values()))

    def _add(self, key: Key, read: Read) -> None:
        self._reads.setdefault(key, set()).add(read)
        self._readers[read].add(key)
        if isinstance(read, Selection):
            self._filed[_slot(read)].add(read)

    def _keep_only(self, key: Key, reads: set[Read]) -> None:
        for read in self._reads.get(key, set()) - reads:
            self._drop(key, read)
        self._reads[key] = reads

    def _drop(self, key: Key, read: Read) -> None:
        readers = self._readers[read]
        readers.discard(key)
        if readers:
            return
        del self._readers[read]
        if isinstance(read, Selection):
            filed = self._filed[_slot(read)]
            filed.discard(read)
            if not filed:
                del self._filed[_slot(read)]


class Tracking:
    """A KubeReader that remembers every read of one reconciliation."""

    def __init__(self, dependencies: Dependencies, reader: KubeReader, live: KubeReader, key: Key) -> None:
        self._dependencies, self._reader, self._live, self._key = dependencies, reader, live, key
        self._made: set[Read] = set()

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Read an object, and depend on it."""
        key = Key(kind, namespace, name)
        self._record(key)
        reader = self._live if key == self._key else self._reader
        return await reader.get(kind, name, namespace)

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Read a list, and depend on everything that is or will be in it."""
        self._record(Selection(kind, namespace, frozenset((labels or {}).items())))
        return await self._reader.list(kind, namespace, labels)

    async def survey(self, kind: str) -> Sequence[Manifest]:
        """Read all objects of a kind that are watched; their changes wake nobody."""
        return await self._reader.survey(kind)

    async def events_of(self, manifest: Manifest) -> Sequence[Manifest]:
        """Read the Events about an object; new ones wake nobody."""
        return await self._reader.events_of(manifest)

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Read a log; its growth wakes nobody."""
        return await self._reader.log_tail(namespace, pod, container, lines)

    def commit(self) -> None:
        """Depend on these reads and no others: the reconciliation is complete."""
        self._dependencies._keep_only(self._key, self._made)  # noqa: SLF001 - two halves of one thing

    def _record(self, read: Read) -> None:
        self._made.add(read)
        self._dependencies._add(self._key, read)  # noqa: SLF001 - two halves of one thing


def _slot(selection: Selection) -> Slot:
    """Return where a selection is filed: its longest label value is the most selective (a UID rather than a role)."""
    return selection.kind, max(selection.labels, key=lambda label: (len(label[1]), label), default=None)
