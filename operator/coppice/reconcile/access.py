"""The store that another object names: found, allowed, and its server. Shared by branches and clones."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from coppice.api.v1alpha1 import DataClone, DataStore, InvalidResource, StoreRef, Verb
from coppice.core.plan import Manifest
from coppice.core.pullrequests import Forges, PullRequestKey
from coppice.engines.base import Endpoint, Engine
from coppice.kube.client import KubeReader
from coppice.reconcile.adopted import Adoption, read_adoption
from coppice.reconcile.belief import Alleged, Refusal, look_up
from coppice.reconcile.draft import Fact, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.grants import OWN_NAMESPACE, Request, Terms, find_terms
from coppice.reconcile.observed import is_deleting
from coppice.reconcile.reads import Server, get_each
from coppice.reconcile.storenames import admin_secret_name, server_pod_name


@dataclass(frozen=True, slots=True)
class Source:
    """A store as seen from another object. ``terms`` is None where no grant allows what is asked, and ``refusal`` says
    why if there is one that might; ``server`` is empty until it is reached for.
    """

    namespace: str
    name: str
    manifest: Manifest | None
    store: DataStore | InvalidResource | None
    engine: Engine | None
    terms: Terms | None
    refusal: Refusal | None = None
    server: Server | Adoption = field(default_factory=Server)

    @property
    def endpoint(self) -> Endpoint | None:
        """Return where the store's server can be asked, or None."""
        return None if self.engine is None else self.server.endpoint(self.engine)

    @property
    def speaks_for(self) -> PullRequestKey | None:
        """Return the pull request that the other object's namespace speaks for, allowed or not."""
        said = self.terms or self.refusal
        return None if said is None else said.speaks_for

    @property
    def is_adopted(self) -> bool:
        """Return whether somebody else runs the database, so that nothing may be written there."""
        return isinstance(self.store, DataStore) and self.store.spec.adopted is not None

    @property
    def database(self) -> str | None:
        """Return the store's default database as its status says, or None before its server ever answered."""
        databases = ((self.manifest or {}).get("status") or {}).get("databases") or [None]
        first: str | None = databases[0]
        return first


async def read_source(
    reader: KubeReader,
    environment: Environment,
    reference: StoreRef,
    *,
    namespace: str,
    verb: Verb,
    alleged: Alleged | None = None,
) -> Source:
    """Read a store and the consent to use it from ``namespace``."""
    where = reference.namespace or namespace
    manifest, consent = await gather(
        reader.get("DataStore", reference.name, where),
        read_consent(reader, Asked(reference.name, where, namespace, verb, alleged)),
    )
    store = DataStore.parse(manifest) if manifest is not None else None
    engine = environment.engines.get(store.spec.engine) if isinstance(store, DataStore) else None
    return Source(where, reference.name, manifest, store, engine, consent.terms, consent.refusal)


async def reach(reader: KubeReader, source: Source) -> Source:
    """Read a store's server, for who has something to ask it; from then on its changes wake them, unless it is somebody
    else's.
    """
    store = source.store
    if isinstance(store, DataStore) and store.spec.adopted is not None:
        return replace(source, server=await read_adoption(reader, source.namespace, source.name, store.spec.adopted))
    pod, secret = await get_each(
        reader,
        source.namespace,
        ("Pod", server_pod_name(source.name)),
        ("Secret", admin_secret_name(source.name)),
    )
    return replace(source, server=Server(pod, secret))


@dataclass(frozen=True, slots=True)
class Asked:
    """What consent is asked for: to do something from ``namespace`` with a store in the namespace ``where``.

    ``alleged`` and ``settled`` are those of ``coppice.reconcile.grants.Request``.
    """

    store: str
    where: str
    namespace: str
    verb: Verb
    alleged: Alleged | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Consent:
    """What is allowed, or, if there is a grant that might allow it, why not."""

    terms: Terms | None
    refusal: Refusal | None = None


async def read_consent(reader: KubeReader, asked: Asked) -> Consent:
    """Read whether something is allowed."""
    if asked.where == asked.namespace:
        return Consent(OWN_NAMESPACE)
    grants, own = await gather(reader.list("DataGrant", asked.where), reader.get("Namespace", asked.namespace))
    labels: Mapping[str, str] = (own or {}).get("metadata", {}).get("labels") or {}
    request = Request(asked.namespace, labels, asked.store, asked.verb, asked.alleged, asked.settled)
    found = find_terms(grants, request)
    return Consent(None, found) if isinstance(found, Refusal) else Consent(found)


async def read_consent_for(reader: KubeReader, forges: Forges, asked: Asked, clone: str) -> Consent:
    """Read whether something is allowed that is done with a clone of ``asked.namespace``."""
    if asked.where == asked.namespace:
        return Consent(OWN_NAMESPACE)
    manifest = await reader.get("DataClone", clone, asked.namespace)
    found = None if manifest is None else DataClone.parse(manifest)
    said = found.spec.pull_request if isinstance(found, DataClone) else None
    return await read_consent(reader, replace(asked, alleged=look_up(said, forges), settled=manifest is None))


def refused(kind: str, refusal: Refusal) -> Fact:
    """Return a refusal as a fact of the condition ``kind``."""
    if refusal.waits:
        return waits(kind, refusal.reason, refusal.message, retry_after=10)
    return stalls(kind, refusal.reason, refusal.message, retry_after=300)


def source_problem(source: Source, *, kind: str, namespace: str, verb: Verb) -> Fact | None:
    """Return why the store cannot be used, as a fact of the condition ``kind``; None if it can.

    Without a grant, a store that exists and one that does not read the same: nobody learns the names of another
    team's stores.
    """
    where = "this namespace" if source.namespace == namespace else f"namespace {source.namespace}"
    name = f"DataStore {source.name} in {where}"
    if source.refusal is not None:
        return refused(kind, source.refusal)
    if source.terms is None:
        return stalls(
            kind,
            "NotGranted",
            f"no DataGrant in {where} gives namespace {namespace} the verb {verb.value} on DataStore {source.name}: "
            "ask the owners of that namespace for one",
            retry_after=300,
        )
    if source.manifest is None or source.store is None:
        message = f"there is no {name}: create it, or make this object anew with the right name"
        return stalls(kind, "StoreNotFound", message, retry_after=60)
    if is_deleting(source.manifest):
        return stalls(kind, "StoreDeleting", f"{name} is being deleted", retry_after=60)
    if isinstance(source.store, InvalidResource) or source.engine is None:
        return waits(kind, "StoreNotReady", f"{name} is not usable yet: see its conditions", retry_after=30)
    return None
