"""What people and the owners' rules say of a request as it was observed. Pure."""

from __future__ import annotations

import json

from coppice.api.v1alpha1 import DataChangeRequest, MergePolicy, PatchStatus
from coppice.core.names import digest
from coppice.engines.digests import sealed
from coppice.engines.merging import AssertionResult
from coppice.reconcile.changerequest.approval import Judgement, Proposal, judge
from coppice.reconcile.changerequest.checks import all_have_passed, check_runs
from coppice.reconcile.changerequest.observation import Party, RequestObservation
from coppice.reconcile.changerequest.resolutions import digest_of
from coppice.reconcile.changerequest.rules import rebases, rules_of


def patch_of(request: DataChangeRequest, seen: RequestObservation) -> PatchStatus | None:
    """Return what an approval is of: what would be published now; None before that is known."""
    outcome, proposed = seen.outcome, seen.proposed
    if outcome is None or outcome.changes is None or proposed is None or seen.store is None:
        return None
    return PatchStatus(
        proposal=proposal_digest(request),
        source=proposed.head,
        resolutions=digest_of(request.spec.resolutions),
        digest=sealed(outcome.changes.digest, _seal_of(seen, seen.store)),
    )


def _seal_of(seen: RequestObservation, store: Party) -> str:
    """Return the store's secret, under which everybody may read digests of rows."""
    return store.server.credentials["admin-password"] if seen.patching is None else seen.patching.seal


def proposal_digest(request: DataChangeRequest) -> str:
    """Return what is another for every other request, under whatever name.

    When it is published is no part of it: a maintainer lets an approved request go, and nobody else can.
    """
    spec = request.spec
    bound = [request.metadata.uid, spec.author, spec.store.dump(), spec.from_.dump(), spec.into.dump(), spec.publish]
    return digest(json.dumps(bound, sort_keys=True), length=32)


def judge_request(request: DataChangeRequest, seen: RequestObservation) -> Judgement | None:
    """Return what the reviews come to; None before it is known what they would be of."""
    patch, metadata = patch_of(request, seen), request.metadata
    if patch is None or metadata.creation_timestamp is None:
        return None
    proposal = Proposal(metadata.name, metadata.creation_timestamp, request.spec.author, seen.authors, patch)
    return judge(proposal, seen.reviews, rules_of(seen))


def failed_checks(seen: RequestObservation) -> tuple[AssertionResult, ...]:
    """Return the owners' checks that found something, or could not be asked."""
    return tuple(check for check in seen.checks if check.found or check.error)


def is_due(request: DataChangeRequest, seen: RequestObservation, verdict: Judgement) -> bool:
    """Return whether nothing stands in the way of publishing any more."""
    outcome, spec = seen.outcome, request.spec
    if outcome is None or outcome.result is None or not changes_anything(seen):
        return False
    if failed_checks(seen) or not all_have_passed(check_runs(request, seen)):
        return False
    if seen.unenforced is not None or not verdict.approved:
        return False
    return spec.merge is MergePolicy.WHEN_APPROVED and (spec.not_before is None or spec.not_before <= seen.now)


def changes_anything(seen: RequestObservation) -> bool:
    """Return whether the merge is another version than what is to change: than the target, or than the clone, which
    lacks nothing of the target if that is what both have in common.
    """
    outcome, head = seen.outcome, target_head(seen)
    if outcome is not None and isinstance(seen.request, DataChangeRequest) and rebases(seen.request):
        return outcome.result is not None and outcome.base != head
    return outcome is not None and outcome.result is not None and outcome.result != head


def target_head(seen: RequestObservation) -> str | None:
    """Return where the target's branch is, or None where it cannot be told."""
    content = None if seen.store is None else seen.store.content
    if content is None or not isinstance(seen.request, DataChangeRequest):
        return None
    state = content.state_of(seen.request.spec.into.branch)
    return None if state is None else state.head
