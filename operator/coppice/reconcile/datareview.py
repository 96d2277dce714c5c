"""DataReview: judged where it counts, with its request; here it is only looked at, so that whoever wrote it sees what
it comes to.

It is its reviewer's alone: nothing but its status is ever written, whatever becomes of the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest, DataReview, InvalidResource, ReviewStatus, Verdict
from coppice.api.v1alpha1.datachangerequest import MAX_REVIEWS
from coppice.core.key import Key
from coppice.core.plan import Manifest, Plan
from coppice.engines.base import EngineError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.observed import condition, is_deleting

COUNTED: Final = "Counted"
TYPES = (COUNTED,)
UNENFORCED: Final = "IdentityUnenforced"

_WHY: Final[Mapping[str, str]] = {
    "OfEarlierRequest": "it is older than the DataChangeRequest, which was made anew: delete it, and review what is "
    "proposed now",
    "ServiceAccount": "a service account is nobody who can have looked at the change",
    "Author": "whoever proposes a change does not approve it",
    "CommitAuthor": "whoever made one of the proposed commits does not approve them",
    "TooManyAuthors": "the proposed commits have more authors than are looked at, and whoever reviews may be one of "
    "them: have them proposed in parts, or as one commit",
    "NotAReviewer": "spec.protection of the DataStore names others as reviewers of this branch; a group counts that "
    "spec.groups names",
    "OtherPatch": "what would be published now is not what was looked at: look again, and approve what is there now "
    "(coppice review)",
}


@dataclass(frozen=True, slots=True)
class ReviewObservation:
    """A DataReview and the request it speaks of."""

    manifest: Manifest
    now: datetime
    review: DataReview | InvalidResource
    request: Manifest | None


@dataclass(frozen=True, slots=True)
class DataReviewReconciler:
    """Keeps the status of DataReviews."""

    environment: Environment
    kind: str = "DataReview"

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> ReviewObservation | None:
        """Read the review and its request."""
        manifest = await reader.get("DataReview", key.name, key.namespace)
        if manifest is None:
            return None
        review = DataReview.parse(manifest)
        if isinstance(review, InvalidResource):
            return ReviewObservation(manifest, now, review, None)
        request = await reader.get("DataChangeRequest", review.spec.request, key.namespace)
        return ReviewObservation(manifest, now, review, request)

    def plan(self, observation: ReviewObservation) -> Plan:
        """Return the status of the review."""
        if is_deleting(observation.manifest):
            return Plan()
        draft = Draft(observation.manifest, observation.now)
        review = observation.review
        if isinstance(review, InvalidResource):
            draft.facts.append(stalls(COUNTED, "InvalidSpec", review.message))
        else:
            draft.facts.append(_is_counted(review, observation.request))
        return draft.finish(TYPES, {})

    def failed(self, observation: ReviewObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)


def _is_counted(review: DataReview, manifest: Manifest | None) -> Fact:
    """Return what the request's status says of the review."""
    name = f"DataChangeRequest {review.spec.request}"
    request = None if manifest is None else DataChangeRequest.parse(manifest)
    if manifest is None or request is None:
        message = f"there is no {name} in this namespace: delete this DataReview, unless the request is yet to come"
        return stalls(COUNTED, "RequestNotFound", message, retry_after=None)
    entry = _entry(request, review)
    if isinstance(request, InvalidResource) or entry is None:
        return _not_listed(request, name)
    if entry.verdict != review.spec.verdict.value:
        return waits(COUNTED, "Pending", f"{name} has yet to take the new verdict into account")
    if entry.why is not None and entry.why in _WHY:
        return rests(COUNTED, entry.why, _WHY[entry.why])
    if entry.why == UNENFORCED:
        approved = condition(manifest, "Approved") or {"message": f"see the conditions of {name}"}
        return rests(COUNTED, UNENFORCED, str(approved["message"]))
    if not entry.counts:
        return rests(COUNTED, "NotCounted", f"{name} does not count it")
    if review.spec.verdict is Verdict.REQUEST_CHANGES:
        return holds(COUNTED, "Blocks", f"{name} is not published while this stands")
    return holds(COUNTED, "Counts", f"it approves what {name} would publish")


def _entry(request: DataChangeRequest | InvalidResource, review: DataReview) -> ReviewStatus | None:
    if isinstance(request, InvalidResource):
        return None
    listed = (entry for entry in request.status.reviews if entry.review == review.metadata.name)
    return next((entry for entry in listed if entry.reviewer == review.spec.reviewer), None)


def _not_listed(request: DataChangeRequest | InvalidResource, name: str) -> Fact:
    """Return why a request's status does not speak of the review."""
    if isinstance(request, DataChangeRequest):
        if request.status.published is not None:
            return rests(COUNTED, "Published", f"{name} was published before this review")
        if len(request.status.reviews) >= MAX_REVIEWS:
            return rests(COUNTED, "TooMany", f"{name} has more than {MAX_REVIEWS} reviews, and lists no more")
    return waits(COUNTED, "Pending", f"{name} counts it as soon as it has something to be reviewed; see its conditions")
