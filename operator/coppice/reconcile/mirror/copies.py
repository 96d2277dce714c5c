"""The copies of a mirror: its claims by number, each with what it holds written on it. Pure but for one read.

A refresh makes the claim with the next number; creating it is the compare-and-set. That the copy on it is complete is
one write, and the switch: from then on the newest complete one is what the store holds, whatever else fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import DataStore
from coppice.core import labels
from coppice.core.names import child, digest, sequence_name
from coppice.core.plan import Manifest
from coppice.engines.base import Finding
from coppice.kube.client import KubeReader
from coppice.manifests.secret import SourceLogin
from coppice.reconcile.observed import annotation, claim_state, format_time, is_deleting, label, parse_time, read_mark
from coppice.reconcile.storenames import admin_secret_name, claim_name


@dataclass(frozen=True, slots=True)
class Held:
    """What a complete copy holds. ``admin`` is the UID of the Secret with the only password that its server knows."""

    refreshed_at: datetime
    source_version: str
    database: str
    tables: int
    filled: int
    findings: tuple[Finding, ...]
    admin: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a copy is made for: the version that holds it, where the data come from, and the request that stood then.

    ``store`` is the UID of the store that serves it: one that is made anew under the same name, for another source, has
    its own grants. ``login`` is the state of the login. ``attempt`` counts the tries since the last one
    that succeeded.
    """

    store: str
    version: str
    source: str
    login: str
    requested: str
    attempt: int


@dataclass(frozen=True, slots=True)
class MirrorCopy:
    """One copy that exists; ``held`` is None until it is complete."""

    number: int
    claim: Manifest
    wish: Wish
    held: Held | None

    @property
    def uid(self) -> str:
        """Return the UID of the claim: the marker on its volume."""
        return str(self.claim["metadata"]["uid"])

    def can_be_served(self, admin: Manifest | None) -> bool:
        """Return whether it is complete, there to stay, and has a password that somebody has."""
        if self.held is None or is_deleting(self.claim) or claim_state(self.claim).lost:
            return False
        return admin is not None and self.held.admin == admin["metadata"]["uid"]


def source_digest(login: SourceLogin) -> str:
    """Return what tells one source from another; nothing of the login is in it."""
    return digest(login.host, str(login.port), login.database, length=16)


def copy_name(store: str, number: int) -> str:
    """Return the name of a copy's claim."""
    return sequence_name(child(store, "mirror"), number)


def mark_text(wish: Wish, held: Held | None) -> str:
    """Return the annotation's value."""
    data: dict[str, Any] = asdict(wish)
    if held is not None:
        findings = [asdict(finding) for finding in held.findings]
        data["held"] = {**asdict(held), "refreshed_at": format_time(held.refreshed_at), "findings": findings}
    return json.dumps(data, separators=(",", ":"))


def find_mirror_copies(claims: Iterable[Manifest]) -> tuple[MirrorCopy, ...]:
    """Return the copies among a store's claims, the newest last; a claim without a copy's marks is none."""
    copies = []
    for claim in claims:
        number, wish = label(claim, labels.COPY), _wish(read_mark(claim, labels.MIRRORED))
        if number is not None and number.isdigit() and wish is not None:
            copies.append(MirrorCopy(int(number), claim, wish, _held(read_mark(claim, labels.MIRRORED))))
    return tuple(sorted(copies, key=lambda copy: copy.number))


def _wish(data: Mapping[str, Any]) -> Wish | None:
    try:
        keys = ("store", "version", "source", "login", "requested")
        store, version, source, login, requested = (str(data[key]) for key in keys)
        return Wish(store, version, source, login, requested, int(data["attempt"]))
    except (KeyError, TypeError, ValueError):
        return None


def _held(data: Mapping[str, Any]) -> Held | None:
    try:
        held = data["held"]
        moment = parse_time(held["refreshed_at"])
        if moment is None:
            return None
        return Held(
            refreshed_at=moment,
            source_version=str(held["source_version"]),
            database=str(held["database"]),
            tables=int(held["tables"]),
            filled=int(held["filled"]),
            findings=tuple(Finding(str(entry["reason"]), str(entry["message"])) for entry in held["findings"]),
            admin=str(held["admin"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def served_copy(copies: Sequence[MirrorCopy], store: str, admin: Manifest | None) -> MirrorCopy | None:
    """Return the copy that the store of this UID holds: the newest complete one of its own that can be served."""
    own = (copy for copy in reversed(copies) if copy.wish.store == store)
    return next((copy for copy in own if copy.can_be_served(admin)), None)


def inherited_copy(copies: Sequence[MirrorCopy], source: str, admin: Manifest | None) -> MirrorCopy | None:
    """Return the newest one that can be served of a source, whichever store of this name it was made for."""
    return next((copy for copy in reversed(copies) if copy.wish.source == source and copy.can_be_served(admin)), None)


def current_copy(copies: Sequence[MirrorCopy], store: str, served: MirrorCopy | None) -> MirrorCopy | None:
    """Return the copy that a refresh of the store of this UID is filling, or has failed to fill: the newest one that is
    newer than the served one.
    """
    own = [copy for copy in copies if copy.held is None and copy.wish.store == store]
    return next((copy for copy in reversed(own) if served is None or copy.number > served.number), None)


async def read_mirror_copies(reader: KubeReader, namespace: str, store: str) -> tuple[MirrorCopy, ...]:
    """Read a store's copies, those of an earlier store of its name as well."""
    selector = {labels.OWNER_KIND: DataStore.__name__, labels.OWNER_NAME: store, labels.STORE: store}
    return find_mirror_copies(await reader.list("PersistentVolumeClaim", namespace, selector))


async def read_store_claim(reader: KubeReader, namespace: str, name: str, store: DataStore | None) -> Manifest | None:
    """Read the claim that a store's server has, or is about to have."""
    if store is None or store.spec.mirror is None:
        return await reader.get("PersistentVolumeClaim", claim_name(name), namespace)
    admin = await reader.get("Secret", admin_secret_name(name), namespace)
    served = served_copy(await read_mirror_copies(reader, namespace, name), store.metadata.uid, admin)
    return None if served is None else served.claim


def copy_of(claim: Manifest) -> MirrorCopy | None:
    """Return the copy on a claim, if it is one of a mirror's."""
    return next(iter(find_mirror_copies([claim])), None)


def is_of_engine(copy: MirrorCopy, engine: str) -> bool:
    """Return whether an engine wrote what is on a copy."""
    return annotation(copy.claim, labels.ENGINE) == engine
