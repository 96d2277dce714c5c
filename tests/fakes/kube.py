"""A Kubernetes API in memory: the world that plans are executed in.

It keeps the rules that a reconciliation relies on, and refuses what the API server would refuse: identity (uid), server-side apply with field
ownership, finalizers, preconditions, immutable specifications, generations, the status subresource. What controllers do (bind a claim, start a Pod,
collect garbage) a test asks for. Faults are counted in mutating calls, so that a test can stop the world between any two writes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coppice.core.conditions import timestamp
from coppice.core.key import Key
from coppice.core.plan import Manifest, Ref
from coppice.kube.client import FIELD_MANAGER
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
)
from coppice.kube.resources import RESOURCES

Object = dict[str, Any]
Path = tuple[Any, ...]
WatchCallback = Callable[[str, Manifest], None]

LOG_PIECE = 16 * 1024
"""In pieces of how many characters a container runtime writes a long line."""

# List types as the schemas of these fields declare them; every other list is atomic.
_LIST_KEYS: dict[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
}
_SETS = {"finalizers"}
_ATOMIC_MAPS = {
    "selector",
    "podSelector",
    "namespaceSelector",
    "nodeSelector",
    "dataSource",
    "dataSourceRef",
    "secretKeyRef",
}
_FOREGROUND = "foregroundDeletion"
_WITHOUT_STATUS = {"Secret", "ConfigMap", "Event", "Lease", "StorageClass", "VolumeSnapshotClass", "NetworkPolicy"}
_IMMUTABLE_SPECS = {"Pod", "PersistentVolumeClaim", "VolumeSnapshot"}
_SERVER_FIELDS = {"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields"}


class Crash(BaseException):
    """The operator is killed here; nothing that handles errors may catch it."""


@dataclass(frozen=True)
class Call:
    """One request of the operator, for assertions about what it did."""

    verb: str
    key: Key
    manager: str = ""
    subresource: str = ""


class FakeKube:
    """A KubeClient (and the lease's client) over a dictionary, with a world's controls beside it."""

    def __init__(self, *objects: Manifest, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._objects: dict[Key, Object] = {}
        self._owned: dict[Key, dict[str, dict[Path, Any]]] = {}
        self._version = 0
        self._uids = 0
        self._watchers: list[WatchCallback] = []
        self._faults: dict[int, tuple[BaseException, bool]] = {}
        self.clock = clock
        self.logs: dict[tuple[str, str, str], str] = {}
        self.unlogged: KubeError | None = None
        """What everybody gets who asks for a log: the Pod's node does not answer the API server."""
        self.missing_kinds: set[str] = set()
        """Kinds whose CRD is not installed."""
        self.calls: list[Call] = []
        self.mutations = 0
        """Mutating calls so far, the failed ones included."""
        self.written: Callable[[], None] = lambda: None
        """Called after each mutating call that was carried out."""
        for manifest in objects:
            self.add(manifest)

    # --- the operator's side: KubeClient -------------------------------------------------------------------------------

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        key = self._key(kind, namespace, name)
        self.calls.append(Call("get", key))
        self._require_kind(kind)
        return self.peek(*key)

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        self.calls.append(Call("list", Key(kind, namespace, "")))
        self._require_kind(kind)
        wanted = (labels or {}).items()
        return [
            found for found in self.all(kind, namespace) if wanted <= (found["metadata"].get("labels") or {}).items()
        ]

    async def survey(self, kind: str) -> Sequence[Manifest]:
        return [found for found in await self.list(kind) if RESOURCES[kind].selects(found)]

    async def events_of(self, manifest: Manifest) -> Sequence[Manifest]:
        metadata = manifest["metadata"]
        return [
            found
            for found in await self.list("Event", metadata.get("namespace"))
            if found["regarding"].get("uid") == metadata["uid"]
        ]

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Return the last pieces, of which a long line has several, as kubelet finds them in what the runtime wrote."""
        if self.unlogged is not None:
            raise self.unlogged
        pieces: list[str] = []
        for line in self.logs.get((namespace, pod, container), "").splitlines():
            starts = range(0, max(len(line), 1), LOG_PIECE)
            pieces += [line[at : at + LOG_PIECE] + ("\n" if at + LOG_PIECE >= len(line) else "") for at in starts]
        return "".join(pieces[-lines:])

    async def create(self, manifest: Manifest) -> Manifest:
        key = self._key_of(manifest)
        return await self._mutate(
            Call("create", key, FIELD_MANAGER), lambda: self._create(key, manifest, FIELD_MANAGER)
        )

    async def apply(
        self, manifest: Manifest, *, manager: str = FIELD_MANAGER, force: bool = True, subresource: str | None = None
    ) -> Manifest:
        key = self._key_of(manifest)
        call = Call("apply", key, manager, subresource or "")
        return await self._mutate(call, lambda: self._apply(key, manifest, manager, subresource, force=force))

    async def replace(self, manifest: Manifest) -> Manifest:
        key = self._key_of(manifest)
        return await self._mutate(Call("replace", key), lambda: self._replace(key, manifest))

    async def prune(self, manifest: Manifest) -> Manifest:
        key = self._key_of(manifest)
        return await self._mutate(Call("prune", key, FIELD_MANAGER), lambda: self._prune(key, manifest))

    async def delete(self, ref: Ref) -> None:
        key = self._key(ref.kind, ref.namespace, ref.name)
        await self._mutate(Call("delete", key), lambda: self._delete_for_operator(key, ref.uid))

    def _delete_for_operator(self, key: Key, uid: str) -> None:
        current = self._objects.get(key)
        if current is not None and current["metadata"]["uid"] == uid and RESOURCES[key.kind].outlasts:
            held = current["metadata"].get("finalizers", [])
            if _FOREGROUND not in held:
                self.change(*key, lambda found: found["metadata"].update(finalizers=[*held, _FOREGROUND]))
        self._delete(key, uid)

    # --- the world's side ------------------------------------------------------------------------------------------------

    def add(self, manifest: Manifest) -> Manifest:
        """Create an object as somebody else than the operator."""
        key = self._key_of(manifest)
        created = self._create(key, manifest, "somebody")
        if "status" in manifest:
            return self.change(*key, lambda found: found.update(status=copied(manifest["status"])))
        return created

    def change(self, kind: str, namespace: str | None, name: str, edit: Callable[[Object], Any]) -> Manifest:
        """Edit an object in place as somebody else; specification, metadata and status alike."""
        key = self._key(kind, namespace, name)
        draft = copied(self._objects[key])
        edit(draft)
        self._store(key, draft)
        for fields in self._owned.get(key, {}).values():
            # Nobody owns what is not there any more.
            for path in [path for path in fields if _read(draft, path) is None]:
                del fields[path]
        return copied(draft)

    def scale(self, namespace: str, name: str, replicas: int, *, manager: str = "kubectl", by: str = "scale") -> None:
        """Scale a Deployment as somebody else, who owns the number from then on: by its subresource, or another ``by``
        (``Update``, ``Apply``) of the Deployment itself.
        """
        key, path = self._key("Deployment", namespace, name), ("spec", "replicas")
        slot = {"scale": f"{manager}/Update/scale", "Update": f"{manager}/Update", "Apply": manager}[by]
        self._take(key, slot, path, replicas)

    def annotate(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Write annotations of a Deployment as somebody else, who owns them from then on."""
        key = self._key("Deployment", namespace, name)
        for annotation, value in annotations.items():
            self._take(key, "kubectl/Update", ("metadata", "annotations", annotation), value)

    def _take(self, key: Key, slot: str, path: Path, value: Any) -> None:
        """Write a field as somebody else; with another value nobody else owns it any more."""
        owners, draft = self._owned.setdefault(key, {}), copied(self._objects[key])
        if _read(draft, path) != value:
            for fields in owners.values():
                fields.pop(path, None)
        owners.setdefault(slot, {})[path] = value
        _write(draft, path, value)
        self._store(key, draft)

    def remove(self, kind: str, namespace: str | None, name: str) -> None:
        """Delete an object as somebody else; finalizers hold it."""
        key = self._key(kind, namespace, name)
        self._delete(key, self._objects[key]["metadata"]["uid"])

    def remove_in_foreground(self, kind: str, namespace: str | None, name: str) -> None:
        """Delete an object as somebody else who wants all that it owns deleted before: at once, whatever holds it."""
        self.change(
            kind, namespace, name, lambda found: found["metadata"].setdefault("finalizers", []).append(_FOREGROUND)
        )
        self.remove(kind, namespace, name)
        self.collect_garbage()

    def remove_namespace(self, name: str) -> None:
        """Delete a namespace and everything in it."""
        self._delete(self._key("Namespace", None, name), None)
        for key in [key for key in self._objects if key.namespace == name]:
            self._delete(key, None)

    def collect_garbage(self) -> None:
        """Delete every object none of whose owners exists any more, like kube-controller-manager; repeat until none is left."""
        self._end_foreground_deletions()
        while True:
            alive = {found["metadata"]["uid"] for found in self._objects.values()}
            doomed = [
                key
                for key, found in self._objects.items()
                if (owners := found["metadata"].get("ownerReferences"))
                and not any(owner["uid"] in alive for owner in owners)
                and "deletionTimestamp" not in found["metadata"]
            ]
            if not doomed:
                return
            for key in doomed:
                self._delete(key, None)

    def _end_foreground_deletions(self) -> None:
        """Delete what is owned by those that go after it, and let them go once it is gone."""
        held = [key for key, found in self._objects.items() if _FOREGROUND in found["metadata"].get("finalizers", [])]
        for key in held:
            uid = self._objects[key]["metadata"]["uid"]
            for other in self._dependents(uid):
                self._delete(other, None)
            if not any(self._blocks(other, uid) for other in self._dependents(uid)):
                self.change(*key, lambda found: found["metadata"]["finalizers"].remove(_FOREGROUND))

    def _blocks(self, key: Key, uid: str) -> bool:
        owners = self._objects[key]["metadata"]["ownerReferences"]
        return any(owner["uid"] == uid and owner.get("blockOwnerDeletion", True) for owner in owners)

    def _dependents(self, uid: str) -> list[Key]:
        return [
            key
            for key, found in self._objects.items()
            if any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or ())
        ]

    def peek(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return an object without leaving a trace in ``calls``."""
        key = self._key(kind, namespace, name)
        return self._shown(key) if key in self._objects else None

    def all(self, kind: str | None = None, namespace: str | None = None) -> list[Object]:
        """Return every object of a kind (or of all), by key."""
        return [
            self._shown(key)
            for key in sorted(self._objects, key=str)
            if kind in {None, key.kind} and namespace in {None, key.namespace}
        ]

    def _shown(self, key: Key) -> Object:
        """Return an object as it is read; field ownership is shown where somebody else's object is shared with us."""
        shown = copied(self._objects[key])
        if key.kind == "Deployment":
            shown["metadata"]["managedFields"] = [
                _managed_fields(slot, fields) for slot, fields in self._owned.get(key, {}).items() if fields
            ]
        return shown

    def subscribe(self, callback: WatchCallback) -> None:
        """Call back with (ADDED | MODIFIED | DELETED, object) at every change from now on."""
        self._watchers.append(callback)

    def fail_at(self, mutation: int, error: KubeError) -> None:
        """Refuse the n-th mutating call from now (1 is the next) with this error, before anything is written."""
        self._faults[self.mutations + mutation] = (error, False)

    def crash_after(self, mutations: int) -> None:
        """Kill the operator after n mutating calls from now: the n-th is written, and its answer never arrives."""
        self._faults[self.mutations + mutations] = (Crash(), True)

    def counts(self) -> Counter[str]:
        """Return how many requests of each verb the operator made."""
        return Counter(call.verb for call in self.calls)

    # --- the API server's rules ------------------------------------------------------------------------------------------

    async def _mutate(self, call: Call, act: Callable[[], Any]) -> Any:
        self.calls.append(call)
        self.mutations += 1
        error, afterwards = self._faults.pop(self.mutations, (None, False))
        if error is not None and not afterwards:
            raise error
        self._require_kind(call.key.kind)
        result = act()
        self.written()
        if error is not None:
            raise error
        return result

    def _require_kind(self, kind: str) -> None:
        if kind in self.missing_kinds:
            raise NotFoundError(f"the API server has no kind {kind}", status=404)

    def _create(self, key: Key, manifest: Manifest, manager: str) -> Manifest:
        if key in self._objects:
            raise AlreadyExistsError(f"{key} already exists", status=409, reason="AlreadyExists")
        self._refuse_in_dying_namespace(key)
        draft = self._admit(key, manifest)
        fields = _leaves(_owned_part(draft, None))
        self._owned[key] = {f"{manager}/Update": fields}
        self._store(key, draft, fresh=True)
        return copied(draft)

    def _apply(self, key: Key, manifest: Manifest, manager: str, subresource: str | None, *, force: bool) -> Manifest:
        current = self._objects.get(key)
        uid = manifest["metadata"].get("uid")
        if current is None:
            if subresource is not None:
                raise NotFoundError(f"{key} not found", status=404, reason="NotFound")
            if uid is not None:
                raise ConflictError(f"{key} is gone: uid {uid} expected", status=409, reason="Conflict")
            self._refuse_in_dying_namespace(key)
            draft = self._admit(key, manifest)
            self._owned[key] = {manager: _leaves(_owned_part(manifest, None))}
            self._store(key, draft, fresh=True)
            return copied(draft)
        if uid is not None and uid != current["metadata"]["uid"]:
            raise ConflictError(f"{key} was recreated: uid {uid} expected", status=409, reason="Conflict")
        version = manifest["metadata"].get("resourceVersion")
        if version not in {None, current["metadata"]["resourceVersion"]}:
            raise ConflictError(f"{key} has been modified", status=409, reason="Conflict")
        wanted = _leaves(_owned_part(_encode(manifest), self._subresource_of(key, subresource)))
        slot = f"{manager}/{subresource}" if subresource else manager
        draft = copied(current)
        self._merge(key, draft, slot, wanted, force=force)
        self._store(key, draft)
        return copied(self._objects.get(key, draft))

    @staticmethod
    def _subresource_of(key: Key, subresource: str | None) -> str | None:
        if subresource is None and key.kind not in _WITHOUT_STATUS:
            return "main"
        return subresource

    def _merge(self, key: Key, draft: Object, slot: str, wanted: dict[Path, Any], *, force: bool) -> None:
        owners = self._owned.setdefault(key, {})
        others = {other: fields for other, fields in owners.items() if other != slot}
        for path, value in wanted.items():
            rivals = [other for other, fields in others.items() if path in fields and _read(draft, path) != value]
            if rivals and not force:
                raise ConflictError(
                    f"{key}: {_show(path)} is owned by {', '.join(rivals)}", status=409, reason="Conflict"
                )
            for rival in rivals:
                del others[rival][path]
        for path in owners.get(slot, {}):
            if path not in wanted and not any(path in fields for fields in others.values()):
                _remove(draft, path)
        for path, value in wanted.items():
            _write(draft, path, value)
        owners[slot] = wanted

    def _replace(self, key: Key, manifest: Manifest) -> Manifest:
        current = self._objects.get(key)
        if current is None:
            raise NotFoundError(f"{key} not found", status=404, reason="NotFound")
        if manifest["metadata"].get("resourceVersion") != current["metadata"]["resourceVersion"]:
            raise ConflictError(f"{key} has been modified", status=409, reason="Conflict")
        draft = copied(manifest)
        self._store(key, draft)
        return copied(draft)

    def _prune(self, key: Key, manifest: Manifest) -> Manifest:
        current = self._objects.get(key)
        if current is None:
            raise NotFoundError(f"{key} not found", status=404, reason="NotFound")
        for field in ("uid", "resourceVersion"):
            if manifest["metadata"][field] != current["metadata"][field]:
                raise ConflictError(f"{key} has been modified", status=409, reason="Conflict")
        said = _leaves(_owned_part(manifest, None))
        doomed = [path for path, value in said.items() if value is None]
        draft = copied(current)
        for path, value in said.items():
            if value is not None:
                _write(draft, path, value)
        for path in doomed:
            _remove(draft, path)
            for fields in self._owned.get(key, {}).values():
                for owned in [other for other in fields if other[: len(path)] == path]:
                    fields.pop(owned)
        self._store(key, draft)
        return copied(draft)

    def _delete(self, key: Key, uid: str | None) -> None:
        current = self._objects.get(key)
        if current is None or (uid is not None and current["metadata"]["uid"] != uid):
            return
        if not current["metadata"].get("finalizers"):
            self._drop(key)
        elif "deletionTimestamp" not in current["metadata"]:
            draft = copied(current)
            draft["metadata"]["deletionTimestamp"] = timestamp(self.clock())
            self._store(key, draft)

    def _drop(self, key: Key) -> None:
        gone = self._objects.pop(key)
        self._owned.pop(key, None)
        self._notify("DELETED", gone)

    def _admit(self, key: Key, manifest: Manifest) -> Object:
        draft = copied(_encode(manifest))
        for field in _SERVER_FIELDS:
            draft["metadata"].pop(field, None)
        if key.kind not in _WITHOUT_STATUS:
            draft.pop("status", None)
        if key.kind == "Deployment":
            draft.setdefault("spec", {}).setdefault("replicas", 1)
        self._uids += 1
        draft["metadata"] |= {
            "uid": f"uid-{self._uids:04}",
            "creationTimestamp": timestamp(self.clock()),
            "generation": 1,
        }
        return draft

    def _store(self, key: Key, draft: Object, *, fresh: bool = False) -> None:
        current = self._objects.get(key)
        if current is not None:
            if draft == current:
                return
            self._refuse_immutable(key, current, draft)
            if _without_status(draft) != _without_status(current):
                draft["metadata"]["generation"] = current["metadata"].get("generation", 1) + 1
        if key.kind == "Deployment":
            draft.setdefault("spec", {}).setdefault("replicas", 1)
        self._version += 1
        draft["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = draft
        if "deletionTimestamp" in draft["metadata"] and not draft["metadata"].get("finalizers"):
            self._drop(key)
            return
        self._notify("ADDED" if fresh else "MODIFIED", draft)

    def _refuse_immutable(self, key: Key, current: Object, draft: Object) -> None:
        if current.get("immutable") and current.get("data") != draft.get("data"):
            raise InvalidError(f"{key} is immutable", status=422, reason="Invalid")
        if key.kind not in _IMMUTABLE_SPECS:
            return
        before, after = dict(current.get("spec") or {}), dict(draft.get("spec") or {})
        if key.kind == "PersistentVolumeClaim":
            for spec in (before, after):
                spec.pop("resources", None)
                spec.pop("volumeName", None)
        if key.kind == "Pod":
            for spec in (before, after):
                spec.pop("nodeName", None)
        if before != after:
            raise InvalidError(f"{key}: spec is immutable after creation", status=422, reason="Invalid")

    def _refuse_in_dying_namespace(self, key: Key) -> None:
        namespace = self._objects.get(Key("Namespace", None, key.namespace or ""))
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            raise ForbiddenError(
                f"{key} cannot be created: namespace {key.namespace} is being terminated",
                status=403,
                reason="Forbidden",
            )

    def _notify(self, kind: str, manifest: Object) -> None:
        for watcher in self._watchers:
            watcher(kind, copied(manifest))

    @staticmethod
    def _key(kind: str, namespace: str | None, name: str) -> Key:
        return Key(kind, namespace if RESOURCES[kind].namespaced else None, name)

    def _key_of(self, manifest: Manifest) -> Key:
        kind = manifest["kind"]
        expected = RESOURCES[kind].api_version
        if manifest["apiVersion"] != expected:
            raise InvalidError(f"{kind} is {expected}, not {manifest['apiVersion']}", status=400)
        if RESOURCES[kind].namespaced and not manifest["metadata"].get("namespace"):
            raise InvalidError(f"{kind} {manifest['metadata']['name']} has no namespace", status=400)
        return self._key(kind, manifest["metadata"].get("namespace"), manifest["metadata"]["name"])


def copied(value: Any) -> Any:
    """Return a copy of a JSON value as it comes back from the API server; TypeError for what is no JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no JSON")


# --- field sets: server-side apply, as far as it matters here ----------------------------------------------------------------


def _encode(manifest: Manifest) -> Object:
    """Move a Secret's ``stringData`` to ``data``, as the API server does."""
    encoded = dict(manifest)
    encoded["metadata"] = dict(manifest["metadata"])
    plain = encoded.pop("stringData", None) if manifest["kind"] == "Secret" else None
    if plain:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        encoded["data"] = {**encoded.get("data", {}), **data}
    return encoded


def _owned_part(manifest: Manifest, subresource: str | None) -> Object:
    """Return what an apply can own: no identity, no server fields; only the status, or all but the status, as asked."""
    part = {key: value for key, value in manifest.items() if key not in {"apiVersion", "kind", "metadata"}}
    if subresource == "status":
        return {"status": part.get("status", {})}
    if subresource == "main":
        part.pop("status", None)
    metadata = manifest["metadata"]
    if own := {key: metadata[key] for key in metadata if key not in {"name", "namespace", *_SERVER_FIELDS}}:
        part["metadata"] = own
    return part


def _leaves(value: Any, path: Path = (), field: str = "") -> dict[Path, Any]:
    """Return the fields of a value that have an owner each: path -> value."""
    if isinstance(value, Mapping) and value and field not in _ATOMIC_MAPS:
        return {leaf: item for key in value for leaf, item in _leaves(value[key], (*path, key), key).items()}
    if isinstance(value, list | tuple) and value:
        if field in _SETS:
            return {(*path, ("set", item)): item for item in value}
        if field in _LIST_KEYS:
            return _keyed_leaves(value, path, _LIST_KEYS[field])
    return {path: copied(value)} if path else {}


def _managed_fields(slot: str, fields: Iterable[Path]) -> Object:
    """Return an entry of ``metadata.managedFields``."""
    manager, operation, subresource = (*slot.split("/"), "", "")[:3]
    tree: Object = {}
    for path in fields:
        node = tree
        for step in path:
            node = node.setdefault(_field_key(step), {})
    entry = {"manager": manager, "operation": operation or "Apply", "fieldsType": "FieldsV1", "fieldsV1": tree}
    return {**entry, "subresource": subresource} if subresource else entry


def _field_key(step: Any) -> str:
    if not _is_element(step):
        return f"f:{step}"
    kind, wanted = step
    return f"v:{json.dumps(wanted)}" if kind == "set" else f"k:{json.dumps(dict(wanted), separators=(',', ':'))}"


def _keyed_leaves(items: Iterable[Mapping[str, Any]], path: Path, keys: tuple[str, ...]) -> dict[Path, Any]:
    return {
        leaf: value
        for item in items
        for leaf, value in _leaves(item, (*path, ("item", tuple((key, item.get(key)) for key in keys)))).items()
    }


def _is_element(step: Any) -> bool:
    return isinstance(step, tuple)


def _find(items: list[Any], step: tuple[str, Any]) -> int | None:
    kind, wanted = step
    for index, item in enumerate(items):
        if item == wanted if kind == "set" else all(item.get(key) == value for key, value in wanted):
            return index
    return None


def _read(node: Any, path: Path) -> Any:
    for step in path:
        if node is None:
            return None
        if _is_element(step):
            index = _find(node, step)
            node = None if index is None else node[index]
        else:
            node = node.get(step)
    return node


def _write(node: Any, path: Path, value: Any) -> None:
    for position, step in enumerate(path):
        last = position == len(path) - 1
        if _is_element(step):
            index = _find(node, step)
            if index is None:
                node.append(copied(value) if last else dict(step[1]))
                index = len(node) - 1
            elif last:
                node[index] = copied(value)
            node = node[index]
        elif last:
            if value != {} or not isinstance(node.get(step), dict):
                node[step] = copied(value)
        else:
            if node.get(step) is None:
                node[step] = [] if _is_element(path[position + 1]) else {}
            node = node[step]


def _remove(node: Any, path: Path) -> None:
    """Remove a leaf, and the containers that are empty without it."""
    step, rest = path[0], path[1:]
    if _is_element(step):
        index = _find(node, step)
        if index is None:
            return
        keys = {key for key, _ in step[1]} if rest else set()
        if rest and rest[0] not in keys:
            _remove(node[index], rest)
        if not rest or not set(node[index]) - keys:
            del node[index]
    elif step in node:
        if rest:
            _remove(node[step], rest)
        if not rest or not node[step]:
            del node[step]


def _without_status(manifest: Object) -> Object:
    return {key: value for key, value in manifest.items() if key not in {"status", "metadata"}}


def _show(path: Path) -> str:
    return ".".join(str(step[1]) if _is_element(step) else str(step) for step in path)
