"""Waiting for the operator, and telling meanwhile what for.

It asks once in a while: a person's patience is not worth a watch. What may pass (an API server that restarts) is sat
out; somebody who must act is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from rich.text import Text

from coppice.cli.problems import Failure, InVain, explain
from coppice.cli.proposals import is_computed
from coppice.cli.session import Session
from coppice.cli.words import is_ready, is_resting, is_stalled, next_step, title, waited_for
from coppice.core.durations import format_duration
from coppice.core.plan import Manifest
from coppice.kube.errors import TransientError

PAUSE_SECONDS: Final = 0.3
_SPINNER_WIDTH: Final = 3


@dataclass(frozen=True, slots=True)
class Request:
    """Something that was asked for by annotation: where the status echoes it, and as what."""

    echo: str
    token: str

    def is_handled(self, manifest: Manifest) -> bool:
        """Return whether the operator has acted upon it."""
        handled: Mapping[str, Any] = (manifest.get("status") or {}).get("handled") or {}
        return bool(handled.get(self.echo) == self.token)


async def until_settled(
    session: Session, seen: Manifest, patience: timedelta, request: Request | None = None
) -> Manifest:
    """Wait until exactly this object is Ready, or rests as it should; return it as it is then.

    With a ``request`` only what comes after that counts. Raises Failure when it is gone, or somebody must act, and
    InVain at the end of the patience.
    """
    return await _until(session, seen, patience, lambda found: _is_settled(found, request))


async def until_computed(session: Session, seen: Manifest, patience: timedelta) -> Manifest:
    """Wait until a change request says what it would change; return it as it is then.

    Raises Failure when it is gone, or somebody must act, and InVain at the end of the patience.
    """

    def computed(found: Manifest) -> bool:
        if is_computed(found):
            return True
        if is_stalled(found):
            raise Failure(f"{title(found)}: {next_step(found)}")
        return False

    return await _until(session, seen, patience, computed)


async def _until(
    session: Session, seen: Manifest, patience: timedelta, is_done: Callable[[Manifest], bool]
) -> Manifest:
    deadline = session.now() + patience
    with _progress(session) as tell:
        while True:
            found = await _look(session, seen, tell)
            if found is not None:
                if is_done(found):
                    return found
                # Of one that is well it is the request that nobody has seen yet.
                tell("the operator" if is_ready(found) else waited_for(found), f"{title(found)} waits for ")
            if session.now() >= deadline:
                raise _in_vain(found or seen, patience)
            await session.pause(PAUSE_SECONDS)


def _is_settled(manifest: Manifest, request: Request | None) -> bool:
    """Return whether nothing more comes of its own; raises Failure where somebody must act."""
    if request is not None and not request.is_handled(manifest):
        return False
    if is_stalled(manifest):
        raise Failure(f"{title(manifest)}: {next_step(manifest)}")
    return is_ready(manifest) or is_resting(manifest)


async def until_gone(session: Session, seen: Manifest, patience: timedelta) -> None:
    """Wait until exactly this object is gone."""
    deadline = session.now() + patience
    metadata = seen["metadata"]
    with _progress(session) as tell:
        while True:
            found: Manifest | None = seen
            try:
                found = await session.cluster.get(seen["kind"], metadata["name"], metadata["namespace"])
            except TransientError as error:
                tell(explain(error))
            if found is None or found["metadata"]["uid"] != metadata["uid"]:
                return
            if session.now() >= deadline:
                raise InVain(
                    f"{title(seen)} is not gone after {format_duration(patience)}",
                    "It goes by itself once what holds it is gone (docs/operations.md, an object that does not go)",
                )
            tell(f"waiting until {title(seen)} is gone")
            await session.pause(PAUSE_SECONDS)


async def _look(session: Session, seen: Manifest, tell: Tell) -> Manifest | None:
    """Return the object as it is now, or None where that cannot be told at the moment."""
    metadata = seen["metadata"]
    try:
        found = await session.cluster.get(seen["kind"], metadata["name"], metadata["namespace"])
    except TransientError as error:
        tell(explain(error))
        return None
    if found is None or found["metadata"]["uid"] != metadata["uid"]:
        raise Failure(f"{title(seen)} is gone: somebody has deleted it meanwhile")
    return found


def _in_vain(manifest: Manifest, patience: timedelta) -> InVain:
    name, where = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    return InVain(
        f"{title(manifest)} is not ready after {format_duration(patience)}: it waits for {waited_for(manifest)}",
        f"It is left as it is; look again with: coppice status {name} -n {where}",
    )


class Tell(Protocol):
    """Tells what is waited for."""

    def __call__(self, what: str, before: str = "") -> None:
        """Tell it, with some words before."""


@contextmanager
def _progress(session: Session) -> Iterator[Tell]:
    """Tell what is waited for: in place on a terminal, else by a line whenever another thing is."""
    if session.err.is_terminal:
        with session.err.status("") as status:
            yield lambda what, before="": status.update(_one_line(f"{before}{what}", session.err.width))
        return
    told = ""

    def tell(what: str, before: str = "") -> None:
        nonlocal told
        # Condition and reason: how far it is within a step, which the message may say, is no other thing.
        thing = ": ".join(what.split(": ")[:2])
        if thing != told:
            told = thing
            session.say(f"{before}{what}")

    yield tell


def _one_line(text: str, width: int) -> Text:
    """Return a text as it fits beside the spinner: what takes up two lines leaves one behind."""
    line = Text(text.replace("\n", " "))
    line.truncate(width - _SPINNER_WIDTH, overflow="ellipsis")
    return line
