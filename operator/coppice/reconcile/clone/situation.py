"""A valid clone as its plan sees it: what was observed, under which settings, and the facts that follow at once."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.api.v1alpha1 import DataClone, DataStore
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.manifests.secret import lacking_keys
from coppice.reconcile.access import Source
from coppice.reconcile.certificate import Tls, Wish
from coppice.reconcile.clone.names import engine_secret_name, service_name
from coppice.reconcile.clone.observation import CloneObservation
from coppice.reconcile.clone.target import Target, target_of
from coppice.reconcile.copies import Copy, copy_name
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import job_state, label


@dataclass(frozen=True, slots=True)
class Situation:
    """What every link of the chain starts from."""

    environment: Environment
    seen: CloneObservation
    clone: DataClone

    @property
    def name(self) -> str:
        """Return the clone's name."""
        return self.clone.metadata.name

    @property
    def namespace(self) -> str:
        """Return the clone's namespace."""
        return self.clone.metadata.namespace

    @property
    def source(self) -> Source:
        """Return the store, as far as it is there and allowed."""
        if self.seen.source is None:
            raise TypeError("a valid clone has a source")
        return self.seen.source

    @property
    def source_words(self) -> str:
        """Return the store and the grant that gives it, for messages."""
        by = f", by DataGrant {self.grant}" if self.grant else ""
        return f"DataStore {self.source.namespace}/{self.source.name}{by}"

    @property
    def grant(self) -> str:
        """Return the grant's name; empty in the store's own namespace, and without one."""
        terms = self.source.terms
        return "" if terms is None else terms.grant or ""

    @property
    def store(self) -> DataStore | None:
        """Return the store's specification, or None where it cannot be had."""
        return self.source.store if isinstance(self.source.store, DataStore) else None

    @property
    def target(self) -> Target:
        """Return the copy that is wanted."""
        return target_of(self.seen, self.clone)

    @property
    def wanted_copy(self) -> Copy:
        """Return the copy that is wanted, once it has a claim."""
        copy = self.target.copy
        if copy is None:
            raise TypeError("the chain goes on without a copy")
        return copy

    @property
    def host(self) -> str:
        """Return the host name under which apps find the server."""
        return f"{service_name(self.clone)}.{self.namespace}.svc"

    @property
    def engine_secret(self) -> str:
        """Return the name of the Secret that opens the server to the operator."""
        return engine_secret_name(self.name, self.clone.metadata.uid)

    @property
    def lacking_credentials(self) -> list[str]:
        """Return what that Secret lacks of what a server is to have, because an older operator made it."""
        return lacking_keys(self.seen.secret, self.seen.fresh_credentials)

    @property
    def secret_uid(self) -> str:
        """Return the UID of that Secret."""
        return str((self.seen.secret or {})["metadata"]["uid"])

    @property
    def aliases(self) -> tuple[Manifest, ...]:
        """Return what makes a snapshot of another namespace visible in this one."""
        return (*self.seen.alias_snapshots, *self.seen.alias_contents)

    def copy_name(self, number: int) -> str:
        """Return the name of a copy's claim, Pod and alias snapshot."""
        return copy_name(self.name, self.clone.metadata.uid, number)

    def is_migrating(self, copy: Copy) -> bool:
        """Return whether a migration runs on a copy."""
        jobs = (job for job in self.seen.migration.jobs if label(job, labels.COPY) == str(copy.number))
        return any(job_state(job).is_on_its_way for job in jobs)

    def tls(self, engine: Engine) -> Tls:
        """Return what there is of TLS before the clone's servers."""
        wanted = self.clone.spec.tls
        wish = None if wanted is None else Wish(wanted.secret_name, labels.CLONE_OPT_IN, self.name, "spec.tls")
        return Tls(engine, wish, self.seen.certificate, self.environment.tls_image)

    def engine_of(self, copy: Copy) -> Engine | None:
        """Return the engine that wrote a copy, or None if this operator has it no more."""
        return self.environment.engines.get(copy.origin.engine)
