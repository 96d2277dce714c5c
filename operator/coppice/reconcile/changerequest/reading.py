"""What is read for every request that is open: the servers that take part, the owners' checks, and what people say."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Sequence
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest, DataClone, DataReview, InvalidResource
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.kube.client import KubeReader
from coppice.manifests.admission import build_policies
from coppice.manifests.job import CHECK_ROLE, MIGRATE_ROLE
from coppice.manifests.network import Peer
from coppice.reconcile.changerequest.computations import Computations
from coppice.reconcile.changerequest.identity import identity_problem, unvouched
from coppice.reconcile.changerequest.observation import CheckJobs, CloneSeen, Party, RequestObservation
from coppice.reconcile.changerequest.rules import rules_of
from coppice.reconcile.changerequest.scratch import scratch_name
from coppice.reconcile.clone.keepseen import is_gone
from coppice.reconcile.clone.names import engine_secret_name, secret_name
from coppice.reconcile.copies import find_copies, serving_copy
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import is_deleting, is_true, label
from coppice.reconcile.reads import Server, ask, get_each

_PASSWORD_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Reading:
    """The reads for one request."""

    reader: KubeReader
    environment: Environment
    computations: Computations
    request: DataChangeRequest
    engine: Engine

    async def store(self, seen: RequestObservation) -> RequestObservation:
        """Ask the store's server what it holds."""
        raise NotImplementedError

    async def all(self, seen: RequestObservation) -> RequestObservation:
        """Read on for as long as what was found allows it."""
        raise NotImplementedError

    async def to_sweep(self, seen: RequestObservation) -> RequestObservation:
        """Ask the servers that others may have been let into for the request's sake: where nothing fetches, none."""
        return seen

    async def scratch(self, seen: RequestObservation) -> RequestObservation:
        """Read the scratch clone; its server is there once it is Ready."""
        scratch = await self.clone(scratch_name(self.request), self.request.metadata.namespace)
        if scratch.manifest is None:
            return replace(seen, scratch=scratch, ahead=await self._ahead())
        if not is_true(scratch.manifest, "Ready"):
            return replace(seen, scratch=replace(scratch, party=None))
        return replace(seen, scratch=scratch)

    async def _ahead(self) -> tuple[DataChangeRequest, ...]:
        """Read the open requests into the same store that came before this one."""
        listed = await self.reader.list("DataChangeRequest", self.request.metadata.namespace)
        parsed = [DataChangeRequest.parse(found) for found in listed if not is_deleting(found)]
        return tuple(
            other
            for other in parsed
            if isinstance(other, DataChangeRequest)
            and other.spec.store == self.request.spec.store
            and other.status.published is None
            and _age(other) < _age(self.request)
        )

    async def clone(self, name: str, namespace: str) -> CloneSeen:
        """Read a clone and what runs of it."""
        manifest = await self.reader.get("DataClone", name, namespace)
        clone = None if manifest is None else DataClone.parse(manifest)
        if manifest is None or clone is None or isinstance(clone, InvalidResource):
            return CloneSeen(manifest, clone)
        mine = {labels.OWNER_UID: clone.metadata.uid}
        key = engine_secret_name(name, clone.metadata.uid)
        claims, pods, (binding, secret) = await gather(
            self.reader.list("PersistentVolumeClaim", namespace, mine),
            self.reader.list("Pod", namespace, mine),
            get_each(self.reader, namespace, ("Secret", secret_name(clone)), ("Secret", key)),
        )
        servers = [pod for pod in pods if label(pod, labels.ROLE) != MIGRATE_ROLE]
        serving = serving_copy(find_copies(claims, servers), binding)
        if serving is None or is_gone(manifest, clone):
            return CloneSeen(manifest, clone)
        peer = Peer(namespace, clone.metadata.uid, "clone")
        return CloneSeen(manifest, clone, serving, Party(peer, key, Server(serving.pod, secret)))

    async def asked(self, seen: CloneSeen) -> CloneSeen:
        """Ask a clone's server what it holds."""
        if seen.party is None or seen.serving is None:
            return seen
        endpoint = seen.party.server.endpoint(self.engine)
        answer = await ask(self.engine, endpoint, database=seen.serving.origin.version.database)
        return replace(seen, party=replace(seen.party, answer=answer))

    async def check_jobs(self, seen: RequestObservation) -> RequestObservation:
        """Read the owners' checks that are programs, and what has become of them."""
        if seen.outcome is None:
            return seen
        names = sorted({check.job_template for check in rules_of(seen).checks if check.job_template is not None})
        return replace(seen, check_jobs=await read_check_jobs(self.reader, seen, names))

    async def reviews(self, seen: RequestObservation) -> RequestObservation:
        """Read what people say, and whether anybody vouches for who they are."""
        metadata = self.request.metadata
        listed = await self.reader.list("DataReview", metadata.namespace)
        parsed = [DataReview.parse(found) for found in listed]
        ours = (review for review in parsed if isinstance(review, DataReview))
        reviews = tuple(review for review in ours if review.spec.request == metadata.name)
        seen = replace(seen, listed=frozenset(str(found["metadata"]["uid"]) for found in listed))
        if not rules_of(seen).protected:
            return replace(seen, reviews=reviews)
        return replace(seen, reviews=reviews, unenforced=await self.unenforced())

    async def unenforced(self) -> str | None:
        """Return why the API server vouches for nobody's name, and for no author's right to a clone; or None."""
        found: dict[tuple[str, str], Manifest | None] = {}
        for policy in build_policies():
            kind, name = str(policy["kind"]), str(policy["metadata"]["name"])
            found[kind, name] = await self.reader.get(kind, name)
        made = self.request.metadata.creation_timestamp
        return identity_problem(found) or (None if made is None else unvouched(found, made))

    async def decided(self, seen: RequestObservation) -> RequestObservation | None:
        """Read once more what decides whether something may be published, for all that was computed since may have
        taken long; None if it is something else that is asked for now.
        """
        namespace, name = self.request.metadata.namespace, self.request.metadata.name
        now = await self.reader.get("DataChangeRequest", name, namespace)
        rules = await self.reader.get("DataStore", self.request.spec.store.name, namespace)
        store = None if seen.source is None else seen.source.manifest
        if not _is_same(seen.manifest, now) or not _is_same(store, rules):
            return None
        return await self.reviews(await self.check_jobs(seen))


async def read_check_jobs(reader: KubeReader, seen: RequestObservation, names: Sequence[str]) -> CheckJobs:
    """Read the Jobs of these names that the owners' checks are made from, and all that was made for checks."""
    metadata = seen.manifest["metadata"]
    mine, namespace = {labels.OWNER_UID: metadata["uid"], labels.ROLE: CHECK_ROLE}, metadata["namespace"]
    jobs, pods, secrets = await gather(*(reader.list(kind, namespace, mine) for kind in ("Job", "Pod", "Secret")))
    found = await get_each(reader, namespace, *(("Job", name) for name in names))
    templates = dict(zip(names, found, strict=True))
    return CheckJobs(templates, tuple(jobs), tuple(pods), tuple(secrets), password=token_urlsafe(_PASSWORD_BYTES))


def pod_of(party: Party) -> str:
    """Return which server it is that computes: another one knows nothing of what this one has made."""
    if party.server.pod is None:
        raise TypeError("a server that answers has a Pod")
    return str(party.server.pod["metadata"]["uid"])


def _is_same(before: Manifest | None, now: Manifest | None) -> bool:
    """Return whether an object asks for the same as before."""
    if before is None or now is None:
        return False
    return all(before["metadata"].get(key) == now["metadata"].get(key) for key in ("uid", "generation")) and (
        not is_deleting(now)
    )


def _age(request: DataChangeRequest) -> tuple[str, str]:
    """Return by what requests stand in line."""
    made = request.metadata.creation_timestamp
    return "" if made is None else made.isoformat(), request.metadata.name
