"""Which rules of the store's owners a request has to keep. Pure."""

from __future__ import annotations

from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest, DataStore, ProtectedBranches, Publish
from coppice.reconcile.changerequest.approval import Rules, rules_for
from coppice.reconcile.changerequest.observation import RequestObservation

UNSAID: Final = ProtectedBranches(branches=("*",))
"""What holds for a database that somebody else runs until its owners say something else: somebody has to approve."""


def rebases(request: DataChangeRequest) -> bool:
    """Return whether it is the clone that changes, and not the branch."""
    return request.spec.publish is Publish.REBASE


def rules_of(seen: RequestObservation) -> Rules:
    """Return the rules that the store's owners have made for the target's branch: none where it stays as it is."""
    store, request = None if seen.source is None else seen.source.store, seen.request
    if not isinstance(store, DataStore) or not isinstance(request, DataChangeRequest) or rebases(request):
        return Rules()
    found = rules_for(store.spec.protection, request.spec.into.branch)
    unsaid = store.spec.adopted is not None and request.spec.publish is Publish.DATABASE and not found.protected
    return Rules((UNSAID,)) if unsaid else found
