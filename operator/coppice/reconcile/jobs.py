"""Jobs made from a user's suspended Job, seen from the object they are made for. Pure.

A Job cannot be changed: whoever corrects one deletes it and applies another. So it is a matter of which Job ours was
made from, not only of what that one says.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from coppice.core import labels
from coppice.core.names import digest
from coppice.core.plan import Manifest
from coppice.manifests.job import copied_spec
from coppice.reconcile.draft import Fact, waits
from coppice.reconcile.observed import annotation, created_at, pod_state
from coppice.reconcile.trouble import find_trouble

LOOK_SECONDS: Final = 10.0
"""Between two looks at what somebody else has to make or change: it is not watched."""
POD_SECONDS: Final = timedelta(seconds=15)
"""How long a Job may be without a Pod before it is said that something keeps it from having one."""


def template_digest(template: Manifest) -> str:
    """Return a digest of what a user's Job runs, the same for every Job that runs the same."""
    return digest(json.dumps(copied_spec(template), sort_keys=True), length=32)


def template_inputs(template: Manifest) -> str:
    """Return which state of a user's Job another one is made from.

    Two digests, and either is enough to know it again. The generation counts what is not copied, too (``suspend``); the
    content changes when an API server is replaced by a newer one, which reads more into the same JSON.
    """
    uid, generation = str(template["metadata"]["uid"]), str(template["metadata"].get("generation"))
    return f"{digest(uid, generation)}-{digest(uid, json.dumps(copied_spec(template), sort_keys=True))}"


def is_made_from(job: Manifest, template: Manifest) -> bool:
    """Return whether a Job of ours was made from a user's as it is now."""
    return are_inputs(annotation(job, labels.INPUTS) or "", template)


def are_inputs(inputs: str, template: Manifest) -> bool:
    """Return whether a user's Job is now as it was when it gave these inputs."""
    return not {*inputs.split("-")}.isdisjoint(template_inputs(template).split("-"))


def still_running(pods: Iterable[Manifest]) -> str | None:
    """Return the name of a Pod that may still do something, if there is one."""
    ended = ((pod["metadata"]["name"], pod_state(pod)) for pod in pods)
    return next((str(name) for name, state in ended if not state.succeeded and not state.failed), None)


def waits_for_pods(kind: str, pods: Iterable[Manifest], namespace: str, *, effect: str = "") -> Fact | None:
    """Return that a Pod of a Job before this one may still do something, if there is one."""
    pod = still_running(pods)
    if pod is None:
        return None
    message = (
        f"Pod {pod} of an earlier Job may still write to the database, and its end is waited for; if it does not come, "
        f"kubectl delete pod {pod} -n {namespace}{effect}"
    )
    return waits(kind, "Leftover", message, retry_after=LOOK_SECONDS)


def lacks_pods(job: Manifest, pods: Collection[Manifest], now: datetime) -> bool:
    """Return whether something keeps a Job from having a Pod."""
    return not pods and now - created_at(job) >= POD_SECONDS


def pods_trouble(pods: Iterable[Manifest]) -> str:
    """Return what the newest Pod that has something to say says of itself; never what its program printed."""
    for pod in sorted(pods, key=created_at, reverse=True):
        trouble = find_trouble(pod)
        if trouble is not None:
            return f": Pod {pod['metadata']['name']}: {trouble.message}"
    return ""
