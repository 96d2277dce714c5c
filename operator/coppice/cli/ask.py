"""``coppice reset``, ``extend``, ``wake`` and ``delete``: what is asked of a clone that is there.

A request is an annotation, applied with a field manager of its own: an apply takes away what an earlier one of the same
manager set, and an extension must not call off a reset.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import click

from coppice.cli import options
from coppice.cli.completion import names_of
from coppice.cli.read import the
from coppice.cli.session import MANAGER, Session, command, plain
from coppice.cli.waiting import Request, until_gone, until_settled
from coppice.cli.wishes import request_of
from coppice.cli.words import is_ready, lease_of, next_step, state, title, what_goes
from coppice.core import labels
from coppice.core.plan import Manifest, Ref
from coppice.kube.errors import ForbiddenError

_VERBS: Final = {
    labels.RESET_REQUESTED_AT: ("reset", "resetRequestedAt"),
    labels.EXTEND_REQUESTED_AT: ("extend", "extendRequestedAt"),
    labels.WAKE_REQUESTED_AT: ("wake", "wakeRequestedAt"),
}
"""By annotation: the verb, and where the status echoes it."""


async def request(session: Session, clone: Manifest, annotation: str) -> Request:
    """Ask for something of exactly this clone."""
    verb, echo = _VERBS[annotation]
    token = token_of(session.now())
    await session.cluster.apply(request_of(clone, annotation, token), manager=f"{MANAGER}-{verb}")
    return Request(echo, token)


def token_of(moment: datetime) -> str:
    """Return a time as a request has it: fine enough for two requests in a second to be two."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _ask(session: Session, name: str, annotation: str, patience: timedelta | None) -> Manifest:
    clone = await the(session, "DataClone", name, session.namespace)
    asked = await request(session, clone, annotation)
    if patience is None:
        return clone
    return await until_settled(session, clone, patience, asked)


@command("reset")
@click.argument("clone", shell_complete=names_of("DataClone"))
@options.waiting
async def reset(session: Session, clone: str, wait: bool, patience: timedelta) -> None:  # noqa: FBT001
    """Replace the data of a CLONE by a new copy of its source, under the same names. Changes in it go."""
    found = await _ask(session, clone, labels.RESET_REQUESTED_AT, patience if wait else None)
    kept = (found.get("status") or {}).get("previous") if wait else None
    undo = f"; the copy before it is kept until {kept['keptUntil']}" if kept else ""
    session.show(plain(found), f"{title(found)} {'has a new copy' if wait else 'is asked for a new copy'}{undo}")


@command("extend")
@click.argument("clone", shell_complete=names_of("DataClone"))
@options.waiting
async def extend(session: Session, clone: str, wait: bool, patience: timedelta) -> None:  # noqa: FBT001
    """Let the lease of a CLONE begin anew. One that has expired comes back, with a new copy."""
    found = await _ask(session, clone, labels.EXTEND_REQUESTED_AT, patience if wait else None)
    said = lease_of(found.get("status") or {}, session.now())
    session.show(plain(found), f"{title(found)}: the lease {said}" if wait else f"{title(found)} is asked to stay")


@command("wake")
@click.argument("clone", shell_complete=names_of("DataClone"))
@options.waiting
async def wake(session: Session, clone: str, wait: bool, patience: timedelta) -> None:  # noqa: FBT001
    """Start the server of a CLONE that sleeps."""
    found = await _ask(session, clone, labels.WAKE_REQUESTED_AT, patience if wait else None)
    awake = "is awake" if is_ready(found) else f"is not awake ({state(found)}): {next_step(found)}"
    session.show(plain(found), f"{title(found)} {awake if wait else 'is asked to wake'}")


@command("delete")
@click.argument("clone", shell_complete=names_of("DataClone"))
@click.option("--yes", "-y", "sure", is_flag=True, help="Do not ask.")
@options.waiting
async def delete(
    session: Session,
    clone: str,
    sure: bool,  # noqa: FBT001
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Delete a CLONE, and say before what goes with it."""
    found = await the(session, "DataClone", clone, session.namespace)
    for line in what_goes(found, await _commits_of(session, found), session.now()):
        session.say(line)
    if not sure:
        click.confirm("Delete it?", abort=True, err=True)
    # Exactly the one that was looked at: one of its name that was made meanwhile is another.
    await session.cluster.delete(Ref.of(found))
    if wait:
        await until_gone(session, found, patience)
    session.show(plain(found), f"{title(found)} {'is gone' if wait else 'is being deleted'}")


async def _commits_of(session: Session, clone: Manifest) -> list[str]:
    """Return the DataSnapshots that are still being made of a clone, where they can be seen."""
    metadata = clone["metadata"]
    store = clone["spec"]["from"]["store"].get("namespace") or metadata["namespace"]
    try:
        snapshots = await session.cluster.list("DataSnapshot", store)
    except ForbiddenError:
        return []
    return [title(found) for found in snapshots if _is_made_of(found, metadata) and not is_ready(found)]


def _is_made_of(snapshot: Manifest, clone: Manifest) -> bool:
    reference = (snapshot["spec"].get("from") or {}).get("clone")
    if reference is None or reference["name"] != clone["name"]:
        return False
    return bool((reference.get("namespace") or snapshot["metadata"]["namespace"]) == clone["namespace"])
