"""Every label and annotation Coppice writes or reads, in one place.

Labels find things (watches select on them), annotations carry facts that must outlive status. None is copied from a
user's object to a child: a copied tracking label makes a GitOps tool prune the child.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "coppice.dev"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "coppice"

OWNER_KIND: Final = f"{PREFIX}/owner-kind"
OWNER_NAME: Final = f"{PREFIX}/owner-name"
OWNER_NAMESPACE: Final = f"{PREFIX}/owner-namespace"
OWNER_UID: Final = f"{PREFIX}/owner-uid"

STORE: Final = f"{PREFIX}/store"
"""Label: name of the DataStore a snapshot or claim belongs to. As an annotation on a user's Secret: the DataStore that
may use it to look into the database that it adopts, or to read the one that it mirrors, or whose server may take TLS
with the certificate in it."""

WRITER_OF: Final = f"{PREFIX}/writer-of"
"""Annotation on a user's Secret: the DataStore whose adopted database approved changes may be written to with it."""

COPY: Final = f"{PREFIX}/copy"
"""Which copy of a clone or mirror a claim, Pod or Service selector means; a reset or refresh makes another copy."""

ROLE: Final = f"{PREFIX}/role"
"""What a Pod is for: ``store``, ``clone``, ``prepare``, ``scratch``, ``dump``, ``restore``, ``load``, ``mask``,
``migrate`` or ``check``."""

PURPOSE: Final = f"{PREFIX}/purpose"
"""Why the operator made a DataSnapshot: ``schedule`` or ``clone``. A user's own has none and is never pruned."""

INPUTS: Final = f"{PREFIX}/inputs"
"""Digest of the inputs a Pod or Job was made from; it is replaced when its owner asks for others."""

ANSWERING: Final = f"{PREFIX}/answering"
"""On a server's Pod that answered before kubelet called it Ready: the change makes kubelet look again."""

CONTENT: Final = f"{PREFIX}/content"
"""On a prepared VolumeSnapshot: what preparation found in it, as JSON (heads, hashes, versions of migrations; no rows).
"""

SNAPSHOT: Final = f"{PREFIX}/snapshot"
SNAPSHOT_UID: Final = f"{PREFIX}/snapshot-uid"
CAPTURED_AT: Final = f"{PREFIX}/captured-at"
VERSION: Final = f"{PREFIX}/version"
"""On a clone's claim: the resolved version it is made for, as JSON."""

RESET_TOKEN: Final = f"{PREFIX}/reset"
UNDO_TOKEN: Final = f"{PREFIX}/undo"
REVISION_TOKEN: Final = f"{PREFIX}/revision"
"""On a clone's claim: the requests (reset, undo) and the revision it was made or brought back for, so that none is
acted upon twice.
"""
RECALLED: Final = f"{PREFIX}/recalled"
"""On a clone's claim: when an undo brought the copy back, and its new place in the order of the copies, as JSON."""
PROVEN: Final = f"{PREFIX}/proven"
"""On a clone's claim: the copy held what was asked for when its server first answered; since then migrations and apps
may change it. The value is the UID of the Secret with the credentials that the server took over.
"""
TLS_CA: Final = f"{PREFIX}/tls-ca"
"""On a server's Pod before which a proxy takes TLS: the certificate of the authority by which that is known, in PEM."""
SERVES_SINCE: Final = f"{PREFIX}/serves-since"
"""On a clone's claim: when apps were first told of the copy; how long the one before it is kept counts from then."""
MIGRATED: Final = f"{PREFIX}/migrated"
"""On a clone's claim: the migrations that have run on the copy, as JSON (names, hashes and times)."""
MIGRATION: Final = f"{PREFIX}/migration"
"""On a migration's Job: what it runs, on which claim, and what there was before, as JSON."""
SCHEMA: Final = f"{PREFIX}/schema"
"""On a migration's Job: hashes of what was defined in the database before, by name, packed."""
LOCKS: Final = f"{PREFIX}/locks"
"""On a clone's claim: the tables that the migration of the copy was seen to lock so far, and for how long, as JSON."""
ENGINE: Final = f"{PREFIX}/engine"
"""On a claim: which engine wrote what is on it."""
LOAD: Final = f"{PREFIX}/load"
"""On a store's claim: ``Pending`` from its making until the Job that is to fill it has succeeded, then ``Done``. A
claim without it is never filled by a Job.
"""
MIRRORED: Final = f"{PREFIX}/mirrored"
"""On a claim of a mirror: what the copy is made for and, from the moment on that it is complete, what it holds, as JSON
(times, versions, counts and hashes). The newest complete one is served."""
MASKING: Final = f"{PREFIX}/masking"
"""On the scratch claim of a snapshot that is masked: by which server and Job, with what the tables were before, and how
it ended, as JSON (names and hashes, never rows). It is there before the Job can log in.
"""
RAW: Final = f"{PREFIX}/raw"
"""On a snapshot's scratch claim: the UID of the raw VolumeSnapshot it was made from; the next one has the same name."""
CHECKED_ON: Final = f"{PREFIX}/checked-on"
"""On the Job of a check: the UID of the server's Pod that it was started on. That it fails after that one went says
nothing of the data.
"""
STORE_UID: Final = f"{PREFIX}/store-uid"
"""On a raw VolumeSnapshot: the DataStore it was taken of; one recreated under the same name is another."""

BACKING: Final = f"{PREFIX}/backing"
"""On a raw VolumeSnapshot: what was known of the volume when it was captured, as JSON."""

SOURCE: Final = f"{PREFIX}/source"
"""On the raw VolumeSnapshots of a commit: of which clone, as what, and when captured, as JSON."""

FINALIZER: Final = f"{PREFIX}/cleanup"
RELEASED: Final = f"{PREFIX}/released"
"""On what was taken from the garbage collector, because its owner's finalizer removes it: its own UID, so that what
somebody restores from a backup is none of it."""

RESET_REQUESTED_AT: Final = f"{PREFIX}/reset-requested-at"
UNDO_REQUESTED_AT: Final = f"{PREFIX}/undo-requested-at"
EXTEND_REQUESTED_AT: Final = f"{PREFIX}/extend-requested-at"
WAKE_REQUESTED_AT: Final = f"{PREFIX}/wake-requested-at"
REFRESH_REQUESTED_AT: Final = f"{PREFIX}/refresh-requested-at"
OPTIMIZE_REQUESTED_AT: Final = f"{PREFIX}/optimize-requested-at"
PULL_REQUEST: Final = f"{PREFIX}/pull-request"
"""Label on a user's Namespace: the number of the pull request that it is for, or ``any`` for whichever its objects say.
"""
FORK: Final = f"{PREFIX}/fork"
"""Label on a user's Namespace: whether that pull request comes from a fork, ``true`` or ``false``."""
CLONE_OPT_IN: Final = f"{PREFIX}/clone"
"""On a user's Deployment: the DataClone it wants to be wired to. On a user's Secret: the DataClone that may take TLS
with the certificate in it."""
SLEEP_OPT_IN: Final = f"{PREFIX}/sleep-with-clone"
"""On a user's Deployment: the DataClone with which it is to sleep, without Pods, and to wake."""
ASLEEP_WITH: Final = f"{PREFIX}/asleep-with"
"""On a user's Deployment, by the operator and as long as it sleeps: the DataClone that it sleeps with."""
