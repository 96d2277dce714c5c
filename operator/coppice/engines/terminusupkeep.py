"""Optimizing a TerminusDB server: the layers of a graph, one for each commit, are rolled up, so that to read one is not
to read them all.

Facts this rests on (source of 12.0.6, ``src/core/api/api_optimize.pl``): of branches and of the graph of commits it
writes further files beside the layers, and moves nothing; of the system's graph and a database's own it makes a new
layer of all there is and points the label to it, if nobody else has done so meanwhile, else it refuses. No commit, no
branch and no document changes, and nothing there removes a layer: the volume holds more afterwards, not less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.terminusapi import AnswerError, Api, LateAnswerError, session
from coppice.engines.terminuspaths import branch_path, commits_path, path
from coppice.engines.terminusrefs import branches
from coppice.engines.upkeep import Outcome

PATIENCE: Final = 3.0
"""Seconds for which a part is waited for: most are done by then."""
SECONDS: Final = 240.0
"""For one part: the server says nothing before it is done with it, and who waits longer is taken for one that hangs."""
TRIES: Final = 3
"""The server refuses where a graph was written to meanwhile."""
PAUSE: Final = 0.5
SOON: Final = 30.0
"""Seconds after the first try until which there is another one."""
_SYSTEM: Final = "_system"
_TURNS: Final[dict[str, tuple[str, asyncio.Task[EngineError | None]]]] = {}
"""The last turn of each store."""


async def parts(api: Api) -> list[str]:
    """Return the graphs of a server by their paths: of each database its branches, those that are tags too, their
    commits and its own, and the system's.
    """
    found = [_SYSTEM]
    for name in [str(entry["path"]) for entry in await api.get("db")]:
        heads = [str(entry["name"]) for entry in await branches(api, name) if entry.get("head")]
        found += [branch_path(name, head) for head in heads]
        found += [commits_path(name), f"{path(name)}/_meta"]
    return sorted(found)


async def optimize(at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Begin to optimize one graph, or go on with it, and wait for it a little."""
    of, turn = arguments["of"], arguments["turn"]
    if of not in _TURNS or (_TURNS[of][0] != turn and _TURNS[of][1].done()):
        _TURNS[of] = turn, asyncio.ensure_future(_turn(at, arguments["part"]))
    task = _TURNS[of][1]
    await asyncio.wait({task}, timeout=PATIENCE)
    if task.done() and _is_lost(task):
        del _TURNS[of]
        task.result()


def outcome(of: str, turn: str) -> Outcome | None:
    """Return what has become of a store's last turn; None of any other."""
    known, task = _TURNS.get(of, (None, None))
    if task is None or known != turn or _is_lost(task):
        return None
    return Outcome(error=task.result()) if task.done() else Outcome(ended=False)


def _is_lost(task: asyncio.Task[EngineError | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _turn(at: Endpoint, part: str) -> EngineError | None:
    try:
        async with session(at) as api:
            await _optimize(api, part)
    except EngineError as error:
        return error
    return None


async def _optimize(api: Api, part: str) -> None:
    begun = time.monotonic()
    for left in reversed(range(TRIES)):
        try:
            await _ask(api, part)
        except AnswerError:
            if not left or time.monotonic() - begun > SOON:
                raise
            await asyncio.sleep(PAUSE)
        else:
            return


async def _ask(api: Api, part: str) -> None:
    try:
        await api.call("POST", f"optimize/{part}", body={}, patience=SECONDS)
    except LateAnswerError:
        raise EngineError(f"the server has not optimized it in {SECONDS:.0f} s, and may still be at it") from None
