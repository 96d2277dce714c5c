"""A copy that has written all of its own bytes: its server cannot start any more, for it finds no room for a lock file.

The driver coppice-local keeps some room for the server of a new Pod. The operator gives a copy one such Pod, and no
more: with each, the copy would outgrow its bound further. Nobody can see how much room there is, so what was found is
said until a server starts in a Pod that it was not given for that. Pure.
"""

from __future__ import annotations

from coppice.core.plan import Manifest
from coppice.reconcile.clone.names import ENGINE
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy
from coppice.reconcile.draft import Draft, Fact, stalls, waits
from coppice.reconcile.observed import condition, is_deleting, pod_state

ROOM = "OwnBytesLeft"
"""A condition beside the chain, there only for a copy that has been full since its server was last started for another
reason.
"""
_WAY_OUT = (
    "Make space in the database now and have it collected (Dolt: CALL dolt_gc()), or ask for a reset; for more, have "
    "the store's clones.ownBytes raised first"
)


def starts_without_room(at: Situation, draft: Draft, copy: Copy) -> Fact | None:
    """Return that a copy's server cannot start for want of room, if so; give it a new Pod if it had none yet."""
    if copy.pod is None or is_deleting(copy.pod) or not pod_state(copy.pod).out_of_bytes:
        return None
    name, told = copy.pod["metadata"]["name"], _told(at, copy)
    # First it is written down for which Pod another one comes: an operator that ends in between knows.
    if told is None or _since(copy.pod) in told:
        if told is not None:
            draft.drop(copy.pod)
        return waits(ENGINE, "Restarting", f"Pod {name} is replaced by one that finds room to start", retry_after=1)
    message = (
        f"{_words(copy)} again, and the room that is kept for a start: ask for a reset, or save what matters by "
        f"deleting Pod {name}, which makes room once more"
    )
    return stalls(ENGINE, "OwnBytesUsedUp", message, retry_after=60)


def room_left(at: Situation) -> Fact | None:
    """Return that a copy has no room left, from when that was found until something has changed: the copy that is
    wanted, else the one that serves meanwhile.
    """
    found = (_message(at, copy) for copy in (at.target.copy, at.seen.serving) if copy is not None)
    return next((stalls(ROOM, "OwnBytesUsedUp", message) for message in found if message is not None), None)


def _message(at: Situation, copy: Copy) -> str | None:
    told, pod = _told(at, copy), copy.pod
    if pod is None or is_deleting(pod):
        return told
    state = pod_state(pod)
    if state.out_of_bytes and told is None:
        found = "could not start: it gets one new Pod, which finds some room"
        return f"{_words(copy)} and its server, {_since(pod)}, {found}. {_WAY_OUT}"
    if told is None or state.out_of_bytes or not state.ready:
        return told
    if _GIVEN not in told and _since(pod) not in told:
        return f"{_words(copy)} and was {_given(pod)}, whose server found some room. {_WAY_OUT}"
    return told if _given(pod) in told else None


def _told(at: Situation, copy: Copy) -> str | None:
    """Return what the status says of this very copy's room; one that is lost costs one more Pod."""
    before = condition(at.seen.manifest, ROOM)
    return str(before["message"]) if before is not None and before["message"].startswith(_words(copy)) else None


def _words(copy: Copy) -> str:
    return f"the copy on claim {copy.claim['metadata']['name']} has written all of its own bytes"


_GIVEN = "given the Pod of"


def _given(pod: Manifest) -> str:
    return f"{_GIVEN} {pod['metadata']['creationTimestamp']}"


def _since(pod: Manifest) -> str:
    return f"in the Pod of {pod['metadata']['creationTimestamp']}"
