"""Jobs that run a user's program with a connection, as often as theirs may be and where theirs may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coppice.core import labels as known
from coppice.core.plan import Manifest
from coppice.manifests.meta import Owner, build_metadata

LOAD_ROLE: Final = "load"
MASK_ROLE: Final = "mask"
MIGRATE_ROLE: Final = "migrate"
CHECK_ROLE: Final = "check"
"""What the program is for, beside the roles of Pods that run an engine."""

_COPIED: Final = ("backoffLimit", "activeDeadlineSeconds", "podFailurePolicy")
"""What says when a Job has failed. How often a Job is to succeed is not the user's to say, and one that goes by itself
(``ttlSecondsAfterFinished``) could go before anybody has seen that it has succeeded."""

_OF_THE_TEMPLATES_JOB: Final = frozenset(
    {"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"}
)
"""Labels that the API server writes into the Pod template of every Job; it refuses another Job's."""


@dataclass(frozen=True, slots=True)
class UserJob:
    """Everything a Job is made from: a user's Job, and the keys of a Secret that its containers get as environment.

    ``labels`` and ``annotations`` are the Job's alone: by a label of its Pods a Service would find them. ``deadline``:
    after how many seconds it has failed if it has not ended, where the user's says nothing of that.
    """

    name: str
    owner: Owner
    role: str
    template: Manifest
    secret: str
    keys: Sequence[str]
    inputs: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    deadline: int | None = None


def copied_spec(job: Manifest) -> dict[str, Any]:
    """Return what another Job takes over of a user's: what it runs, and when it has failed."""
    spec = job["spec"]
    template = spec["template"]
    given = template.get("metadata") or {}
    labels = {key: value for key, value in (given.get("labels") or {}).items() if key not in _OF_THE_TEMPLATES_JOB}
    metadata: dict[str, Any] = {"labels": labels}
    if given.get("annotations"):
        metadata["annotations"] = dict(given["annotations"])
    kept = {key: spec[key] for key in _COPIED if key in spec}
    return {**kept, "template": {"metadata": metadata, "spec": dict(template["spec"])}}


def build_user_job(job: UserJob) -> dict[str, Any]:
    """Return the Job, with the Pod template of the user's and the connection in its containers' environment."""
    spec = copied_spec(job.template)
    if job.deadline is not None:
        spec.setdefault("activeDeadlineSeconds", job.deadline)
    template = spec["template"]
    template["metadata"]["labels"] |= {**job.owner.labels, known.ROLE: job.role}
    for part in ("initContainers", "containers"):
        if part in template["spec"]:
            template["spec"][part] = [_connected(job, container) for container in template["spec"][part]]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": build_metadata(
            job.name,
            job.owner,
            labels={known.ROLE: job.role, **job.labels},
            annotations={known.INPUTS: job.inputs, **job.annotations},
        ),
        "spec": spec,
    }


def _connected(job: UserJob, container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container with the connection in its environment; a name that it has already keeps its value."""
    own = list(container.get("env") or ())
    taken = {entry["name"] for entry in own}
    # Before the container's own, which may then refer to it: $(uri).
    connection = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": job.secret, "key": key}}}
        for key in job.keys
        if key not in taken
    ]
    return {**container, "env": [*connection, *own]}
