"""Optimising a TerminusDB server: the layers of a graph, one for each commit, are rolled up, so that to read one is not
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

from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.terminusapi import AnswerError, Api
from coppice.engines.terminuspaths import branch_path, commits_path, path
from coppice.engines.terminusrefs import branches

SECONDS: Final = 240.0
"""For one part: the server says nothing before it is done with it, and who waits longer is taken for one that hangs."""
TRIES: Final = 3
"""The server refuses where a graph was written to meanwhile."""
PAUSE: Final = 0.5
SOON: Final = 30.0
"""Seconds after the first try until which there is another one."""
_SYSTEM: Final = "_system"


async def parts(api: Api) -> list[str]:
    """Return the graphs of a server by their paths: of each database its branches, those that are tags too, their
    commits and its own, and last the system's.
    """
    found: list[str] = []
    for name in sorted(str(entry["path"]) for entry in await api.get("db")):
        heads = sorted(str(entry["name"]) for entry in await branches(api, name) if entry.get("head"))
        found += [branch_path(name, head) for head in heads]
        found += [commits_path(name), f"{path(name)}/_meta"]
    return [*found, _SYSTEM]


async def optimize(api: Api, arguments: Mapping[str, str]) -> None:
    """Optimise one graph."""
    begun = time.monotonic()
    for left in reversed(range(TRIES)):
        try:
            await _ask(api, arguments["part"])
        except AnswerError:
            if not left or time.monotonic() - begun > SOON:
                raise
            await asyncio.sleep(PAUSE)
        else:
            return


async def _ask(api: Api, part: str) -> None:
    begun = time.monotonic()
    try:
        await api.call("POST", f"optimize/{part}", body={}, patience=SECONDS)
    except UnreachableError:
        if time.monotonic() - begun < SECONDS:
            raise
        raise EngineError(f"the server has not optimized it in {SECONDS:.0f} s, and may still be at it") from None
