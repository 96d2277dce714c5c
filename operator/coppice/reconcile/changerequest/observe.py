"""What is read for a request, and what is computed of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from coppice.api.v1alpha1 import DataChangeRequest, InvalidResource, StoreRef, Verb
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Manifest
from coppice.kube.client import KubeReader
from coppice.reconcile.access import Source, reach, read_source
from coppice.reconcile.changerequest.computations import Computations
from coppice.reconcile.changerequest.observation import CloneSeen, RequestObservation
from coppice.reconcile.changerequest.reading import read_check_jobs
from coppice.reconcile.changerequest.readmerges import MergeReading
from coppice.reconcile.changerequest.readpatches import PatchReading
from coppice.reconcile.changerequest.scratch import scratch_name
from coppice.reconcile.changerequest.sources import merging_engine, patching_engine, store_problem
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import is_deleting


async def observe_request(
    reader: KubeReader, environment: Environment, computations: Computations, key: Key, now: datetime
) -> RequestObservation | None:
    """Read a request, and whatever it takes to say what is next."""
    manifest = await reader.get("DataChangeRequest", key.name, key.namespace)
    if manifest is None:
        return None
    request = DataChangeRequest.parse(manifest)
    seen = RequestObservation(manifest, now, request)
    seen = replace(seen, policies=await _read_policies(reader, manifest))
    if isinstance(request, InvalidResource):
        return seen
    if request.status.published is not None:
        scratch = await reader.get("DataClone", scratch_name(request), key.namespace)
        return replace(seen, scratch=CloneSeen(scratch), check_jobs=await read_check_jobs(reader, seen, ()))
    source = await _read_store(reader, environment, request)
    seen = replace(seen, source=source)
    reading = _reading(reader, environment, computations, request, source)
    if reading is None:
        return seen
    if is_deleting(manifest):
        return await reading.to_sweep(seen)
    seen = await reading.scratch(seen)
    if store_problem(request, source) is not None:
        return seen
    return await reading.all(await reading.store(seen))


def _reading(
    reader: KubeReader,
    environment: Environment,
    computations: Computations,
    request: DataChangeRequest,
    source: Source,
) -> MergeReading | PatchReading | None:
    """Return the reads for a request, by what the store's engine can do."""
    merging, patching = merging_engine(source), patching_engine(source)
    if merging is not None:
        return MergeReading(reader, environment, computations, request, merging)
    if patching is not None:
        return PatchReading(reader, environment, computations, request, patching)
    return None


async def _read_policies(reader: KubeReader, manifest: Manifest) -> tuple[Manifest, ...]:
    """Read the passages that were made for a request, wherever they are."""
    return tuple(await reader.list("NetworkPolicy", None, {labels.OWNER_UID: manifest["metadata"]["uid"]}))


async def _read_store(reader: KubeReader, environment: Environment, request: DataChangeRequest) -> Source:
    namespace = request.metadata.namespace
    reference = StoreRef(name=request.spec.store.name)
    source = await read_source(reader, environment, reference, namespace=namespace, verb=Verb.PROPOSE)
    merges, patches = merging_engine(source) is not None, patching_engine(source) is not None
    return await reach(reader, source) if patches or (merges and not source.is_adopted) else source
