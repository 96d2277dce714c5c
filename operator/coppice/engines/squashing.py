"""What an engine can do that begins a branch without the history of what is on it.

A squash never rewrites a branch that is there: a server that moves one does not look at what was committed meanwhile,
and whoever has cloned it would share no commit with it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable

from coppice.engines.base import Endpoint, Engine

SQUASH_ACTION: Final = "create-squashed-branch"
FORGET_ACTION: Final = "forget-squash"
SQUASH_TAGS: Final = "coppice/squash/"
"""What the names of the tags begin with that hold what is squashed."""
LEFT_AFTER: Final = timedelta(days=1)
"""After which such a tag was left there by one that nobody goes on with: no squash takes as long."""
MAX_SINCE: Final = 1000
"""How many commits of a history are looked at for what it begins with."""


@dataclass(frozen=True, slots=True)
class Squash:
    """What a history begins with that has no past: the data of ``commit``, put there for ``maker``."""

    commit: str
    maker: str


@runtime_checkable
class SquashingEngine(Engine, Protocol):
    """An engine that is ``versioned`` and has two actions of ``execute`` more.

    ``create-squashed-branch`` (database, branch, commit, maker, message): make a branch whose only commit has all that
    ``commit`` has, and whose message is this. Done already when there is one whose history begins so, wherever it is
    by now; EngineError when another one is there. UnderWayError, again and again, while it takes long: it goes on, and
    the branch is made by the call that finds it done. It may hold what it works with by tags that begin with
    ``SQUASH_TAGS``, and takes them away with its end.

    ``forget-squash`` (database, maker): end what is under way for ``maker`` and take away what holds it, if anything
    does. A branch that is there stays.
    """

    async def squash_of(self, at: Endpoint, database: str, commit: str) -> Squash | None:
        """Return what the history of a commit begins with, if that is the work of this engine's action, and within
        ``MAX_SINCE`` commits of it; else None. It is no activity.
        """
        ...
