"""The initial load of a store: what it comes from, and whether it is in.

A ConfigMap or claim is read by the server's own Pod before its first start, and the volume says that it has been. A Job
needs a server that runs, so that the volume cannot say it: the store's claim does. It is made with the annotation
``coppice.dev/load: Pending``, and until that says ``Done`` nobody but the Job is told how to connect. A claim without
it, because it was restored or is older than the wish, is never filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from coppice.api.v1alpha1 import BINDING_KEYS, DataStore, InvalidResource
from coppice.api.v1alpha1.datastore import Load
from coppice.core import labels
from coppice.core.names import child
from coppice.core.plan import Manifest
from coppice.kube.client import KubeReader
from coppice.manifests.job import LOAD_ROLE, UserJob, build_user_job
from coppice.manifests.meta import is_owned
from coppice.manifests.pod import LOAD_CONTAINER
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.jobs import (
    LOOK_SECONDS,
    is_made_from,
    lacks_pods,
    pods_trouble,
    template_inputs,
    waits_for_pods,
)
from coppice.reconcile.observed import annotation, is_deleting, is_initialized_by, job_state, label
from coppice.reconcile.reads import get_each, read_words
from coppice.reconcile.told import Progress, parse_told

PENDING: Final = "Pending"
DONE: Final = "Done"


def loading_name(store: str) -> str:
    """Return the name of the Job that fills a store, and of the Secret it connects with."""
    return child(store, "loading")


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """What a store's load names, and what is on the way if that is a Job: ours, its Pods, and its Secret."""

    source: Manifest | None = None
    job: Manifest | None = None
    pods: tuple[Manifest, ...] = ()
    secret: Manifest | None = None
    progress: Progress | None = None
    """How far the server's own Pod is that reads the files; None where none does at the moment."""


async def read_progress(reader: KubeReader, pod: Manifest | None) -> Progress | None:
    """Return how many files of the load are in, of how many, by what the server's Pod has said of it last."""
    if pod is None or not is_initialized_by(pod, LOAD_CONTAINER):
        return None
    log = await read_words(reader, pod, LOAD_CONTAINER)
    told = (parse_told(line) for line in reversed(log.splitlines()))
    return next((entry for entry in told if isinstance(entry, Progress) and entry.total), None)


async def observe_load(reader: KubeReader, store: DataStore | InvalidResource, claim: Manifest | None) -> LoadSeen:
    """Read what the load names, and what a Job that is to fill the claim, or was, has left."""
    namespace, name = store.metadata.namespace, store.metadata.name
    load = None if isinstance(store, InvalidResource) else _load_of(store)
    source = None if load is None else await reader.get(*_named(load), namespace)
    if claim is None or annotation(claim, labels.LOAD) is None:
        return LoadSeen(source)
    ours = loading_name(name)
    job, secret = await get_each(reader, namespace, ("Job", ours), ("Secret", ours))
    if not is_pending(claim) or (job is not None and job_state(job).succeeded):
        return LoadSeen(source, job, (), secret)
    # Without a Job, those of one that somebody deleted, or of an earlier store of this name: they may outlive it.
    owner = {labels.OWNER_KIND: DataStore.__name__, labels.OWNER_NAME: name}
    if job is not None:
        owner = {labels.OWNER_UID: str(label(job, labels.OWNER_UID))}
    pods = await reader.list("Pod", namespace, {**owner, labels.ROLE: LOAD_ROLE})
    return LoadSeen(source, job, tuple(pods), secret)


def _load_of(store: DataStore) -> Load | None:
    return None if store.spec.managed is None else store.spec.managed.load


def _named(load: Load) -> tuple[str, str]:
    """Return the kind and name of what a load names."""
    if load.config_map is not None:
        return "ConfigMap", load.config_map.name
    if load.claim is not None:
        return "PersistentVolumeClaim", load.claim.name
    return "Job", str(load.job_template)


def is_read_by_server(load: Load | None) -> bool:
    """Return whether the server's own Pod reads the load."""
    return load is not None and load.job_template is None


def load_volume(load: Load | None) -> dict[str, Any] | None:
    """Return the load as a Kubernetes volume, where the server's own Pod reads it."""
    if load is None:
        return None
    if load.config_map is not None:
        # Optional: what was loaded once is not needed again, and its absence must not keep the server from starting.
        return {"configMap": {"name": load.config_map.name, "optional": True}}
    if load.claim is not None:
        return {"persistentVolumeClaim": {"claimName": load.claim.name, "readOnly": True}}
    return None


def first_mark(load: Load | None) -> dict[str, str]:
    """Return the annotations of a new claim that say whether a Job is to fill it."""
    return {} if load is None or load.job_template is None else {labels.LOAD: PENDING}


def kept_mark(claim: Manifest) -> dict[str, str]:
    """Return the same annotations of a claim that is there."""
    found = annotation(claim, labels.LOAD)
    return {} if found is None else {labels.LOAD: found}


def is_pending(claim: Manifest | None) -> bool:
    """Return whether a claim is still to be filled by a Job."""
    return claim is not None and annotation(claim, labels.LOAD) == PENDING


def source_is_there(load: Load | None, seen: LoadSeen, kind: str) -> Fact:
    """Return whether what the load names can be read, or run."""
    if load is None:
        return holds(kind, "LoadFound", "no initial data are asked for")
    of, name = _named(load)
    if seen.source is None or is_deleting(seen.source):
        how = "create it in this namespace"
        if of == "Job":
            how = "apply it in this namespace with spec.suspend: true"
        return waits(
            kind, "LoadNotFound", f"waits for {_word(of)} {name} with the initial data: {how}", retry_after=LOOK_SECONDS
        )
    if of == "Job" and seen.source["spec"].get("suspend") is not True:
        return stalls(
            kind,
            "LoadNotSuspended",
            f"Job {name} is not suspended, so that it runs by itself and without the connection: delete it and apply "
            "it again with spec.suspend: true",
            retry_after=LOOK_SECONDS,
        )
    return holds(kind, "LoadFound", "the initial data is there")


def _word(kind: str) -> str:
    return "claim" if kind == "PersistentVolumeClaim" else kind


def run_load(draft: Draft, load: Load | None, seen: LoadSeen, kind: str) -> Fact:
    """Plan the Job that fills the empty database; return whether it has succeeded.

    There is one at a time. It is made anew when the Job it is made from is: whoever puts that right is heard at once,
    also while ours still hangs.
    """
    job, name = seen.job, loading_name(draft.owner.name)
    if job is not None and job_state(job).succeeded and is_owned(job, draft.owner.uid):
        return holds(kind, "Loaded", f"Job {name} has filled the database")
    if load is None or load.job_template is None:
        return stalls(
            kind,
            "LoadNotFound",
            "the store waits for the Job that its load once named: name one in spec.managed.load.jobTemplate, or "
            "delete the store with its claim and begin anew",
        )
    if job is None:
        return _begin(draft, load, seen, kind)
    problem = draft.make_once({}, job, kind)
    if problem is not None:
        return problem
    usable = source_is_there(load, seen, kind).holds
    if usable and seen.source is not None and not is_made_from(job, seen.source):
        draft.drop(job)
        return waits(kind, "Loading", f"Job {load.job_template} is another one now, and Job {name} begins anew")
    failure = job_state(job).failure
    if failure is not None:
        return stalls(
            kind,
            "LoadFailed",
            f"Job {name}, made from Job {load.job_template}, failed ({failure}){pods_trouble(seen.pods)}. Read "
            f"`kubectl logs -n {draft.owner.namespace} job/{name} --all-containers`, put it right, then delete Job "
            f"{load.job_template} and apply it again: it is tried anew, on what the failed one has left",
            retry_after=LOOK_SECONDS,
        )
    return _progress(job, seen, name, kind, draft.now)


def _begin(draft: Draft, load: Load, seen: LoadSeen, kind: str) -> Fact:
    found = source_is_there(load, seen, kind)
    if not found.holds or seen.source is None:
        return found
    leftover = waits_for_pods(kind, seen.pods, draft.owner.namespace)
    if leftover is not None:
        return leftover
    name = loading_name(draft.owner.name)
    job = UserJob(
        name=name,
        owner=draft.owner,
        role=LOAD_ROLE,
        template=seen.source,
        secret=name,
        keys=BINDING_KEYS,
        inputs=template_inputs(seen.source),
    )
    draft.create.append(build_user_job(job))
    return waits(kind, "Loading", f"Job {name} is being started, made from Job {load.job_template}")


def _progress(job: Manifest, seen: LoadSeen, name: str, kind: str, now: datetime) -> Fact:
    if lacks_pods(job, seen.pods, now):
        return stalls(
            kind,
            "LoadNotStarted",
            f"Job {name} has no Pod: something in this namespace refuses it (PodSecurity, a quota, a missing "
            f"ServiceAccount); the events of `kubectl describe job {name}` say what",
            retry_after=LOOK_SECONDS,
        )
    return waits(kind, "Loading", f"Job {name} fills the database{pods_trouble(seen.pods)}", retry_after=LOOK_SECONDS)
