"""What watches have told, kept, so that to look at an object that is well costs next to no request.

A cache lags behind, so it is asked only where that does no harm: what is not in it is read from the API server, the
operator's own writes are in it at once, and whoever is about to do what cannot be undone reads live
(``coppice.runtime.controller``). What no event has told of, the next list of the kind puts right.

Objects are kept as JSON text: a third of the memory that they take up as Python objects, and every reader gets one of
its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coppice.core import labels
from coppice.core.key import Key
from coppice.kube.client import FIELD_MANAGER
from coppice.kube.errors import AlreadyExistsError
from coppice.kube.resources import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.core.plan import Manifest, Ref
    from coppice.kube.client import KubeClient

Slot = tuple[str, str | None, str | None]
"""Where an object is filed: under its kind and its namespace, or its kind and its owner's UID."""

_EVERYWHERE: Final = None


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    labels: Mapping[str, str]
    slots: tuple[Slot, ...]
    text: str
    tick: int


class WatchCache:
    """The newest known state of every object of the kinds that are cached.

    Newer is what has the higher ``resourceVersion``: versions of one kind are comparable numbers
    (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions); an object whose version is not a
    number is not kept.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._filed: defaultdict[Slot, dict[Key, None]] = defaultdict(dict)
        self._deleted: dict[Key, tuple[int, int]] = {}
        self._complete: set[str] = set()
        self._tick = 0

    def now(self) -> int:
        """Return a moment for ``listed``: before what is taken in from now on, after everything else."""
        self._tick += 1
        return self._tick

    def take(self, kind: str, manifest: Manifest) -> None:
        """Keep an object as an event or the answer to a write showed it, unless something newer is known."""
        resource, metadata = RESOURCES[kind], manifest["metadata"]
        key, found = Key.of(kind, manifest), metadata.get("labels") or {}
        version = _version(manifest)
        if not resource.cached or version is None:
            return
        # Of an object that the watch does not select, no event will come.
        if not resource.selects(manifest):
            return
        known = self._entries.get(key)
        if version <= self._deleted.get(key, (-1, 0))[0] or (known is not None and version <= known.version):
            return
        self.drop(key)
        slim = {name: value for name, value in metadata.items() if name != "managedFields"}
        body = {"apiVersion": resource.api_version, "kind": kind, **manifest, "metadata": slim}
        owner = found.get(labels.OWNER_UID)
        slots = ((kind, key.namespace, None), (kind, _EVERYWHERE, None), (kind, _EVERYWHERE, owner))
        text = json.dumps(body, separators=(",", ":"))
        self._entries[key] = _Entry(version, dict(found), tuple(dict.fromkeys(slots)), text, self.now())
        for slot in self._entries[key].slots:
            self._filed[slot][key] = None

    def deleted(self, kind: str, manifest: Manifest) -> None:
        """Forget an object that an event says is deleted, unless something newer is known."""
        key, version = Key.of(kind, manifest), _version(manifest)
        known = self._entries.get(key)
        if not RESOURCES[kind].cached or version is None or (known is not None and version < known.version):
            return
        self._deleted[key] = (version, self.now())
        self.drop(key)

    def listed(self, kind: str, found: Iterable[Manifest], begun: int) -> None:
        """Take in a complete list of a kind that was asked for at ``begun``: what is older and not in it is gone."""
        if not RESOURCES[kind].cached:
            return
        for key in [key for key, (_, tick) in self._deleted.items() if key.kind == kind and tick <= begun]:
            del self._deleted[key]
        listed = {Key.of(kind, manifest): manifest for manifest in found}
        versions = {key: _version(manifest) or 0 for key, manifest in listed.items()}
        for key in list(self._filed.get((kind, _EVERYWHERE, None), ())):
            entry = self._entries[key]
            # A list asked for later shows an older state only where the API server's data were restored from a backup.
            if entry.tick <= begun and versions.get(key, -1) < entry.version:
                self.drop(key)
        for manifest in listed.values():
            self.take(kind, manifest)
        self._complete.add(kind)

    def unlisted(self, kind: str) -> None:
        """Forget a kind that the cluster has no more: only a live read says so."""
        self._complete.discard(kind)
        for key in list(self._filed.get((kind, _EVERYWHERE, None), ())):
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Forget an object: the next read of it is live."""
        entry = self._entries.pop(key, None)
        for slot in entry.slots if entry is not None else ():
            filed = self._filed[slot]
            del filed[key]
            if not filed:
                del self._filed[slot]

    def get(self, key: Key) -> Manifest | None:
        """Return an object, or None when it is not known."""
        entry = self._entries.get(key)
        return None if entry is None else _parse(entry)

    def list(self, kind: str, namespace: str | None, wanted: Mapping[str, str]) -> Sequence[Manifest] | None:
        """Return the objects of a kind in the API server's order, or None when not all are known."""
        owner = wanted.get(labels.OWNER_UID)
        if kind not in self._complete:
            return None
        slot = (kind, namespace, None) if owner is None else (kind, _EVERYWHERE, owner)
        return [
            _parse(self._entries[key])
            for key in sorted(self._filed.get(slot, ()))
            if namespace in {None, key.namespace} and wanted.items() <= self._entries[key].labels.items()
        ]

    def __len__(self) -> int:
        return len(self._entries)


class CachedKube:
    """A KubeClient whose reads ask the cache first, and whose writes are in it at once."""

    def __init__(self, client: KubeClient, cache: WatchCache) -> None:
        self._client = client
        self._cache = cache

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return the object; what the cache does not know may yet exist, so it is asked for."""
        known = self._cache.get(Key(kind, namespace, name))
        return known if known is not None else await self._client.get(kind, name, namespace)

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Return all objects of a kind, of one namespace or of all, whose labels match."""
        known = self._cache.list(kind, namespace, labels or {}) if _is_covered(kind, labels) else None
        return known if known is not None else await self._client.list(kind, namespace, labels)

    async def survey(self, kind: str) -> Sequence[Manifest]:
        """Return all objects of a kind that are watched."""
        known = self._cache.list(kind, _EVERYWHERE, {})
        return known if known is not None else await self._client.survey(kind)

    async def events_of(self, manifest: Manifest) -> Sequence[Manifest]:
        """Return the Events about exactly this object."""
        return await self._client.events_of(manifest)

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Return the last lines a container printed."""
        return await self._client.log_tail(namespace, pod, container, lines)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; one that is there already is known from then on, whatever became of its event."""
        try:
            return self._keep(await self._client.create(manifest))
        except AlreadyExistsError:
            kind, metadata = manifest["kind"], manifest["metadata"]
            found = await self._client.get(kind, metadata["name"], metadata.get("namespace"))
            if found is not None:
                self._cache.take(kind, found)
            raise

    async def apply(
        self, manifest: Manifest, *, manager: str = FIELD_MANAGER, force: bool = True, subresource: str | None = None
    ) -> Manifest:
        """Server-side apply."""
        answer = await self._client.apply(manifest, manager=manager, force=force, subresource=subresource)
        return self._keep(answer)

    async def prune(self, manifest: Manifest) -> Manifest:
        """Take away the fields that are null in a merge patch."""
        return self._keep(await self._client.prune(manifest))

    async def delete(self, ref: Ref) -> None:
        """Delete exactly this object; that it is gone, or going, is for an event to tell."""
        await self._client.delete(ref)

    def _keep(self, answer: Manifest) -> Manifest:
        self._cache.take(answer["kind"], answer)
        return answer


def _is_covered(kind: str, wanted: Mapping[str, str] | None) -> bool:
    """Return whether the cache holds all that a list may find: what has an owner's UID, and all of the other kinds."""
    return not RESOURCES[kind].labelled or labels.OWNER_UID in (wanted or {})


def _version(manifest: Manifest) -> int | None:
    version = str(manifest["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else None


def _parse(entry: _Entry) -> Manifest:
    parsed: Manifest = json.loads(entry.text)
    return parsed
