"""Which branches of a store nobody writes to directly, and whether its server sees to that. Pure.

The server itself refuses: what would guard a branch outside of it would guard one way to it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from coppice.api.v1alpha1 import DataStore
from coppice.core.plan import EngineCall, ServerRef
from coppice.engines.base import Content, Engine
from coppice.engines.merging import MergingEngine
from coppice.engines.patching import PatchingEngine
from coppice.reconcile.changerequest.approval import matches
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls

PROTECTED: Final = "BranchesProtected"
"""The condition; there only where protection is asked for."""
ACTION: Final = "protect"


def wanted_patterns(store: DataStore) -> list[str]:
    """Return what the protected branches are called, in an order that depends on nothing else."""
    return sorted({pattern for entry in store.spec.protection for pattern in entry.branches})


def protecting_patterns(store: DataStore, branch: str) -> list[str]:
    """Return the patterns that protect a branch."""
    return [pattern for pattern in wanted_patterns(store) if matches(pattern, branch)]


def protect(
    draft: Draft, store: DataStore, engine: Engine, server: ServerRef, *, content: Content, pod_uid: str | None
) -> None:
    """Plan the call that puts protection in force as it is wanted, unless it is; again whenever a branch has moved.

    Apps have their rights table by table while a branch is protected: who has made a table gets those to it then.
    """
    if not isinstance(engine, MergingEngine) or not engine.protects:
        return
    patterns = wanted_patterns(store)
    if not _is_in_force(store, pod_uid) or (patterns and _has_moved(store, content)):
        arguments = {"database": content.database, "branches": json.dumps(patterns), "username": engine.app_user}
        draft.calls.append(EngineCall(store.spec.engine, server, ACTION, arguments))


def _has_moved(store: DataStore, content: Content) -> bool:
    """Return whether a branch, or its working set, is elsewhere than the status says: always, where not all are listed
    there.
    """
    told = {(entry.name, entry.head, entry.working_root) for entry in store.status.branches}
    seen = {
        (state.branch, state.head, state.working_root)
        for state in content.branches
        if state.database == content.database
    }
    return told != seen


def _is_in_force(store: DataStore, pod_uid: str | None) -> bool:
    """Return whether the server is known to protect what is wanted.

    One that has not answered this store yet may have data of an earlier store of its name, which protected others.
    """
    wanted, status = wanted_patterns(store), store.status
    if status.version is None or wanted != sorted(status.protected):
        return False
    return not wanted or status.protected_on == pod_uid


def protection_status(draft: Draft, store: DataStore, pod_uid: str | None) -> dict[str, Any]:
    """Return the part of the status that says what is in force, once the plan has been carried out."""
    if any(call.action == ACTION for call in draft.calls):
        return {"protected": wanted_patterns(store), "protectedOn": pod_uid}
    return {"protected": list(store.status.protected), "protectedOn": store.status.protected_on}


def is_protected(store: DataStore) -> Fact:
    """Return that what is asked for is in force."""
    patterns = ", ".join(wanted_patterns(store))
    return holds(PROTECTED, "Protected", f"nobody writes to these branches but by an approved request: {patterns}")


def reviews_alone(store: DataStore, engine: Engine | None) -> bool:
    """Return whether protection means that requests are reviewed and checked, and nothing else: of a live database that
    applications, or others, write to as they always have.
    """
    return isinstance(engine, PatchingEngine) and not isinstance(engine, MergingEngine) and store.spec.mirror is None


def unguarded(store: DataStore, engine: Engine | None) -> Fact | None:
    """Return, beside the chain, that protection is no more than that, where it is asked for; the store is well."""
    if not store.spec.protection or not reviews_alone(store, engine):
        return None
    message = (
        "approvals and checks hold for DataChangeRequests; who has a login to the database writes to it past them, for "
        f"engine {store.spec.engine} keeps no branches"
    )
    return rests(PROTECTED, "RequestsAlone", message)


def unprotectable(store: DataStore, engine: Engine) -> Fact | None:
    """Return that a store cannot have the protection it asks for, if so."""
    if not store.spec.protection or reviews_alone(store, engine):
        return None
    if store.spec.managed is None:
        kind = "an adopted database" if store.spec.adopted is not None else "a mirror"
        why = f"{kind} is written to elsewhere, past any protection of Coppice's"
    elif not isinstance(engine, MergingEngine):
        why = f"engine {store.spec.engine} keeps no versions that could be reviewed and merged"
    elif not engine.protects:
        why = f"engine {store.spec.engine} has no rights by branch, so that who may write to one may write to all"
    else:
        return None
    message = f"no branch can be protected: {why}. Remove spec.protection, or make a managed DataStore of engine dolt"
    return stalls(PROTECTED, "EngineHasNoProtection", message)
