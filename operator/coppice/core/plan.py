"""What a reconciliation decides, as data.

A plan function looks at an observation and returns a ``Plan``; only the executor acts on it. The fields are executed
in the order in which they stand here, each one safe to repeat, so that a crash between any two writes leaves a state
from which the same plan function goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from coppice.core.pullrequests import Posting

Manifest = Mapping[str, Any]
"""A Kubernetes object as JSON."""

_BEYOND_RECALL: Final = {"Job", "VolumeSnapshot", "VolumeSnapshotContent"}
"""Kinds of which to make one is final: a user's program runs, data are fixed as what they are said to be, or leave
their namespace."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One existing Kubernetes object, by identity: a recreated object of the same name is another one.

    ``uid`` becomes the delete's precondition.
    """

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Ref:
        """Return the reference of an object as read from the API."""
        metadata = manifest["metadata"]
        return cls(
            manifest["apiVersion"], manifest["kind"], metadata["name"], metadata["uid"], metadata.get("namespace")
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One line for ``kubectl describe``, recorded on a transition only."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One value of a Secret, by where it is kept."""

    namespace: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class EngineCall:
    """Something to do inside a database, as data; the engine's adapter executes it.

    ``action`` and ``arguments`` are the engine's vocabulary (see ``coppice.engines.base``). ``target`` names the
    server; its Secret is read only when the call is executed, so that no password stands in a plan:
    ``secret_arguments`` are further arguments, by the Secret's key that holds the value, and ``borrowed_arguments``
    those that another server's Secret holds.
    """

    engine: str
    target: ServerRef
    action: str
    arguments: Mapping[str, str]
    secret_arguments: Mapping[str, str] = field(default_factory=dict)
    borrowed_arguments: Mapping[str, SecretKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scale:
    """A server-side apply to a user's Deployment exactly as it was observed: ``metadata.resourceVersion`` is in it.

    ``force``: what it sets has an owner by the API server's default, and is nobody's choice.
    """

    patch: Manifest
    force: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """An object as it was observed, by what changes when it asks for something else or is another one."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int | None

    def is_still(self, manifest: Manifest | None) -> bool:
        """Return whether an object is this one, unchanged."""
        metadata = {} if manifest is None else manifest["metadata"]
        same = (metadata.get("uid"), metadata.get("generation")) == (self.uid, self.generation)
        return same and not metadata.get("deletionTimestamp")


@dataclass(frozen=True, slots=True)
class Company:
    """All objects of a kind that say the same in a field of their specification: none comes to those that are known."""

    kind: str
    namespace: str
    field: str
    value: str
    uids: frozenset[str]

    def is_joined_by(self, manifest: Manifest) -> bool:
        """Return whether an object is one of them, and new."""
        same = (manifest.get("spec") or {}).get(self.field) == self.value
        return same and manifest["metadata"]["uid"] not in self.uids


@dataclass(frozen=True, slots=True)
class Publication:
    """What is written to a live database in one transaction.

    ``patch`` is the engine's own, rows and all (``coppice.engines.patching``). When all is written and nothing is
    committed, the transaction's name and what it is ``of`` (see ``noted``) are put into the field ``note`` of the
    object's status, if the object still is as it was observed; if it is not, nothing is committed either. So whoever
    looks next can ask what became of it. ``rests_on`` is what must be as it was by then, too, and ``company`` what
    nothing may have come to: to write takes its time.
    """

    engine: str
    target: ServerRef
    database: str
    salt: str
    note: str
    of: str
    patch: Any = field(repr=False)
    rests_on: tuple[Witness, ...] = ()
    company: Company | None = None


def noted(name: str, of: str) -> str:
    """Return what is noted before something is written: its name, and a digest of all that it is of."""
    return f"{name}/{of}"


def read_note(note: str | None) -> tuple[str, str]:
    """Return the name and the digest of a note; both are empty where there is none."""
    name, _, of = (note or "").partition("/")
    return name, of


@dataclass(frozen=True, slots=True)
class ServerRef:
    """Where a database server listens and which Secret opens it.

    ``adopted_by``: the server is somebody else's, and so is the Secret, which is used only if it names this DataStore.
    ``writes``: it is the Secret that such a server is written to with, by approved changes alone.
    ``as_app``: it is opened with the applications' login, which is no administrator.
    ``ca``: a proxy before it takes TLS, and is known by a certificate of this authority, in PEM.
    """

    host: str
    port: int
    secret_namespace: str
    secret_name: str
    adopted_by: str | None = None
    writes: bool = False
    as_app: bool = False
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to write for one object, in the order of execution.

    ``add_finalizer`` comes first, because nothing may be made that cannot be cleaned up; ``remove_finalizer`` last.
    ``calls`` come before ``create`` and ``apply``, so that a binding Secret is written only after the engine has
    taken the credentials over.
    ``create`` is for objects made once (claims, snapshots, contents, Secrets with generated passwords, Pods): one
    that exists is left as it is.
    ``prune`` takes fields away from what is the operator's own, whoever set them: the manifests are merge patches in
    which they are null, with the ``resourceVersion`` that was observed; what else stands in them is written with it. It
    comes before ``apply``, which changes that.
    ``apply`` is server-side apply with the operator's field manager.
    ``discard`` is for what the next plan would make again if it were needed after all; it is deleted like the rest, but
    that is nothing final.
    ``scale`` makes users' Deployments that asked for it sleep or wake. It comes before ``wire``, which changes their
    versions; one that cannot be scaled holds up nothing but the report of it.
    ``wire`` is server-side apply to users' own objects, with a field manager of its own and never by force. It comes
    after the deletions, so that a user's object that cannot be wired holds up nothing but the report of it.
    ``publication`` is written to a live database after all that and before the status.
    ``posting`` is what people read where a pull request is discussed; it is written later, if ever.
    ``status`` is the whole desired status, or None to leave it; with ``guarded`` it is written only if nobody has
    changed the object since it was observed. ``requeue_after`` is in seconds; None waits for events.
    """

    add_finalizer: bool = False
    calls: tuple[EngineCall, ...] = ()
    create: tuple[Manifest, ...] = ()
    prune: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    discard: tuple[Ref, ...] = ()
    scale: tuple[Scale, ...] = ()
    wire: tuple[Manifest, ...] = ()
    publication: Publication | None = None
    posting: Posting | None = None
    status: Mapping[str, Any] | None = None
    guarded: bool = False
    remove_finalizer: bool = False
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None

    @property
    def is_final(self) -> bool:
        """Return whether carrying it out does something that the next plan could not put right again."""
        begun = any(manifest["kind"] in _BEYOND_RECALL for manifest in self.create)
        written = self.calls or self.publication is not None
        return bool(begun or written or self.prune or self.delete or self.remove_finalizer)
