"""Which rules of the store's owners a request has to keep. Pure."""

from __future__ import annotations

from coppice.api.v1alpha1 import DataChangeRequest, DataStore, Publish
from coppice.reconcile.changerequest.approval import Rules, rules_for
from coppice.reconcile.changerequest.observation import RequestObservation


def rebases(request: DataChangeRequest) -> bool:
    """Return whether it is the clone that changes, and not the branch."""
    return request.spec.publish is Publish.REBASE


def rules_of(seen: RequestObservation) -> Rules:
    """Return the rules that the store's owners have made for the target's branch: none where it stays as it is."""
    store = None if seen.source is None else seen.source.store
    if not isinstance(store, DataStore) or not isinstance(seen.request, DataChangeRequest) or rebases(seen.request):
        return Rules()
    return rules_for(store.spec.protection, seen.request.spec.into.branch)
