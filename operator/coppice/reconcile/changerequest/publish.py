"""How the store takes a result from the scratch server: by fast-forward only, which is the compare-and-set. Pure."""

from __future__ import annotations

from coppice.api.v1alpha1 import DataChangeRequest
from coppice.core.names import digest
from coppice.core.plan import EngineCall
from coppice.engines.merging import MergingEngine
from coppice.reconcile.changerequest.observation import REMOTE_PASSWORD, Party, Proposed
from coppice.reconcile.changerequest.scratch import let_fetch


def tag_of(request: DataChangeRequest) -> str:
    """Return the tag at what a request has brought; the UID is in it, for names are used again and tags are kept."""
    return f"coppice/{request.metadata.name}-{digest(request.metadata.uid, length=5)}"


def publication(
    request: DataChangeRequest,
    engine: MergingEngine,
    database: str,
    versions: tuple[str, str],
    result: str,
    store: Party,
    scratch: Party,
) -> list[EngineCall]:
    """Return the calls by which a merge of two versions, the target's and the source's, is published: the tag by which
    it can be undone is there before, wherever an earlier try has left it.
    """
    before, merged = versions
    at, source, tag = store.ref(engine), scratch.ref(engine), f"{tag_of(request)}/before"
    move = {"branch": request.spec.into.branch, "expected": before, "source": merged}
    move |= {"result": result, "host": source.host}
    return [
        EngineCall(engine.name, at, "delete-tag", {"database": database, "tag": tag}),
        EngineCall(engine.name, at, "create-tag", {"database": database, "tag": tag, "commit": before}),
        EngineCall(engine.name, at, "publish", {"database": database, **move}, {"password": REMOTE_PASSWORD}),
    ]


def fetching(engine: MergingEngine, database: str, result: str, store: Party, scratch: Party) -> list[EngineCall]:
    """Return the calls by which the store has the result before it is asked to publish it: what takes long is over
    when it is judged for the last time whether it may.
    """
    source = scratch.ref(engine)
    arguments = {"database": database, "host": source.host, "result": result}
    taken = EngineCall(engine.name, store.ref(engine), "fetch-result", arguments, {"password": REMOTE_PASSWORD})
    return [let_fetch(engine, scratch, store), taken]


def rebasing(
    request: DataChangeRequest,
    engine: MergingEngine,
    database: str,
    proposed: Proposed,
    result: str,
    clone: Party,
    scratch: Party,
) -> list[EngineCall]:
    """Return the calls by which a clone takes what its changes and the branch have become: where it was is tagged
    before, and nobody may fetch from the scratch server afterwards. Nothing else comes along: the scratch server has
    what other branches have become, and what others propose.
    """
    at, source, tag = clone.ref(engine), scratch.ref(engine), f"{tag_of(request)}/before"
    move = {"branch": proposed.branch, "expected": proposed.head, "result": result, "host": source.host}
    return [
        EngineCall(engine.name, at, "create-tag", {"database": database, "tag": tag, "commit": proposed.head}),
        EngineCall(engine.name, source, "offer", {"database": database, "commit": result}),
        let_fetch(engine, scratch, clone),
        EngineCall(engine.name, at, "fast-forward", {"database": database, **move}, {"password": REMOTE_PASSWORD}),
        EngineCall(engine.name, source, "drop-fetch-user", {}),
    ]
