"""Which rules of the store's owners a request has to keep. Pure."""

from __future__ import annotations

from coppice.api.v1alpha1 import DataChangeRequest, DataStore
from coppice.reconcile.changerequest.approval import Rules, rules_for
from coppice.reconcile.changerequest.observation import RequestObservation


def rules_of(seen: RequestObservation) -> Rules:
    """Return the rules that the store's owners have made for the target's branch."""
    store = None if seen.source is None else seen.source.store
    if not isinstance(store, DataStore) or not isinstance(seen.request, DataChangeRequest):
        return Rules()
    return rules_for(store.spec.protection, seen.request.spec.into.branch)
