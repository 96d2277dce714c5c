"""The scratch server of a request: a clone of the target's branch that merges are computed on, and that shows what
would be published; or, where an engine does not merge, of what the proposed clone came from, to compare it with. Pure.

It stays while the request is open, so that what it has fetched is kept although the clone that was proposed from goes;
where the target moves on it fetches the rest, which takes less than another copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from coppice.api.v1alpha1 import API_VERSION, NEVER, DataChangeRequest, Power
from coppice.core.names import child, digest
from coppice.core.plan import EngineCall, Manifest
from coppice.engines.merging import MergingEngine
from coppice.manifests.meta import Owner, build_metadata
from coppice.manifests.network import Peer, build_passage
from coppice.reconcile.changerequest.observation import REMOTE_PASSWORD, Party

MAX_OPEN_OF_AUTHOR: Final = 10
MAX_OPEN: Final = 50
"""How many open requests of one author, and of all, into one store have a scratch server: each is a server that runs
until its request is published or deleted.
"""
_NAME_KEPT: Final = 24


def scratch_name(request: DataChangeRequest) -> str:
    """Return the name of the scratch clone; the UID is in it, for a request that is made anew under its name."""
    name, uid = request.metadata.name, request.metadata.uid
    return f"change-{name[:_NAME_KEPT].rstrip('-')}-{digest(uid)}"


def build_scratch(request: DataChangeRequest, owner: Owner, *, snapshot: str | None = None) -> dict[str, Any]:
    """Return the scratch clone: of the target's branch, or of the DataSnapshot that the proposed clone came from."""
    of = {"branch": request.spec.into.branch} if snapshot is None else {"snapshot": snapshot}
    source = {"store": {"name": request.spec.store.name}, **of}
    return {
        "apiVersion": API_VERSION,
        "kind": "DataClone",
        "metadata": build_metadata(scratch_name(request), owner),
        "spec": {"from": source, "lease": {"idle": NEVER, "max": NEVER}, "power": Power.ON.value},
    }


def build_passages(
    owner: Owner, engine: MergingEngine, *, scratch: Peer, store: Peer, origin: Peer | None, rebases: bool = False
) -> list[Manifest]:
    """Return the NetworkPolicies by which the scratch server fetches from the store and the clone, and who takes the
    result from the scratch server: the store, or the clone that is rebased. No clone reaches the store.
    """
    ways = {"store": (scratch, store)}
    taker = origin if rebases else store
    if taker is not None:
        ways["result"] = (taker, scratch)
    if origin is not None:
        ways["clone"] = (scratch, origin)
    policies = [
        policy
        for what, (fetcher, source) in ways.items()
        for policy in build_passage(
            child(owner.name, what), owner, fetcher=fetcher, source=source, port=engine.remotes_port
        )
    ]
    return _joined(policies)


def _joined(policies: Iterable[Manifest]) -> list[Manifest]:
    """Return one policy for each name: both ways of a clone in another namespace are of one."""
    found: dict[tuple[str, str], Manifest] = {}
    for policy in policies:
        place = policy["metadata"]["namespace"], policy["metadata"]["name"]
        before = found.get(place, {}).get("spec", {})
        types = [*before.get("policyTypes", ()), *policy["spec"]["policyTypes"]]
        found[place] = {**policy, "spec": {**before, **policy["spec"], "policyTypes": sorted(types)}}
    return list(found.values())


def fetch(engine: MergingEngine, database: str, commit: str, *, by: Party, of: Party) -> list[EngineCall]:
    """Return the calls by which one server fetches a commit of another; nobody may fetch there afterwards."""
    source, fetcher = of.ref(engine), by.ref(engine)
    wanted = {"database": database, "host": source.host, "commit": commit}
    return [
        let_fetch(engine, of, by),
        EngineCall(engine.name, fetcher, "fetch", wanted, {"password": REMOTE_PASSWORD}),
        EngineCall(engine.name, source, "drop-fetch-user", {}),
    ]


def let_fetch(engine: MergingEngine, of: Party, by: Party) -> EngineCall:
    """Return the call that lets one server fetch from another."""
    return EngineCall(
        engine.name, of.ref(engine), "ensure-fetch-user", {}, borrowed_arguments={"password": by.remote_password}
    )


def revert_branch(commit: str) -> str:
    """Return the branch on the scratch server whose one commit takes back what another brought."""
    return f"revert-{commit}"
