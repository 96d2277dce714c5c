"""Everything a clone's plan may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from coppice.api.v1alpha1 import DataClone, InvalidResource
from coppice.core.plan import Manifest
from coppice.engines.base import Activity, EngineError, Ledger, Version
from coppice.reconcile.access import Source
from coppice.reconcile.belief import Alleged
from coppice.reconcile.choice import Choice
from coppice.reconcile.clone.keepseen import KeepSeen
from coppice.reconcile.clone.queue import Place
from coppice.reconcile.copies import Copy, serving_copy
from coppice.reconcile.migrations import MigrationSeen
from coppice.reconcile.provisioning import Complaint
from coppice.reconcile.reads import Answer


@dataclass(frozen=True, slots=True)
class Handle:
    """Where the storage backend keeps a prepared snapshot."""

    driver: str
    handle: str
    snapshot_class: str | None


@dataclass(frozen=True, slots=True)
class Misbound:
    """A prepared VolumeSnapshot whose status names a content that is not its own: whoever may write it can name any."""

    snapshot: str
    content: str


@dataclass(frozen=True, slots=True)
class CloneObservation:
    """A DataClone and everything around it; what was not needed was not read, and is None or empty.

    ``alleged``: the pull request that it says it is for, and what the forge has told of that.
    ``base_class``: the StorageClass of the volume that the snapshot was made from.
    ``live``: what the store's server says the reference names now; ``ledger``: what a migration tool has written down
    there, for a clone that names a migration. ``storage_class``, ``choice`` and ``handle``: for a
    copy that has no volume yet; ``origin_gone``: its snapshot went; ``complaint``: why its driver makes none.
    ``place``: in the queue behind the grant's caps, None with room.
    ``certificate``: the user's Secret with which the server is to take TLS.
    ``unmarked_claims``: ours, but somebody took away what says which copy they are.
    ``released``: what is there that Kubernetes would not collect; read only for a clone under deletion.
    ``answer``: what the newest copy's server holds, asked until it is proven; from then on ``activity``.
    ``requests``: the change requests that propose what was changed here, for a clone of a pull request.
    ``keeping``: what there is of its changes in the store's namespace, for a clone that is to keep them.
    ``unwired`` and ``unscaled``: why the API server has just refused to have Deployments wired, or scaled, by name.
    """

    manifest: Manifest
    now: datetime
    clone: DataClone | InvalidResource
    source: Source | None = None
    alleged: Alleged | None = None
    base_class: str | None = None
    storage_class: Manifest | None = None
    snapshots: tuple[Manifest, ...] = ()
    live: Version | EngineError | None = None
    ledger: Ledger | EngineError | None = None
    choice: Choice | None = None
    handle: Handle | Misbound | None = None
    origin_gone: bool = False
    complaint: Complaint | None = None
    place: Place | None = None
    copies: tuple[Copy, ...] = ()
    unmarked_claims: tuple[Manifest, ...] = ()
    unbound_claims: tuple[Manifest, ...] = ()
    released: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secret: Manifest | None = None
    added: Manifest | None = None
    binding: Manifest | None = None
    service: Manifest | None = None
    policy: Manifest | None = None
    certificate: Manifest | None = None
    alias_snapshots: tuple[Manifest, ...] = ()
    alias_contents: tuple[Manifest, ...] = ()
    answer: Answer | None = None
    activity: Activity | EngineError | None = None
    migration: MigrationSeen = field(default_factory=MigrationSeen)
    deployments: tuple[Manifest, ...] = ()
    requests: tuple[Manifest, ...] = ()
    keeping: KeepSeen = field(default_factory=KeepSeen)
    unwired: Mapping[str, str] | None = None
    unscaled: Mapping[str, str] | None = None
    fresh_credentials: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def newest(self) -> Copy | None:
        """Return the copy that was made or brought back last, or None before there is one."""
        return self.copies[-1] if self.copies else None

    @property
    def serving(self) -> Copy | None:
        """Return the copy that apps have been told of, if it is there."""
        return serving_copy(self.copies, self.binding)


def is_foreign(clone: DataClone) -> bool:
    """Return whether the store is in another namespace, so that alias objects are needed."""
    where = clone.spec.from_.store.namespace
    return where is not None and where != clone.metadata.namespace
