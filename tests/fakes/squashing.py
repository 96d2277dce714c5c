"""An engine in memory that squashes: the reference for how branches without history are made."""

from __future__ import annotations

import re

from tests.fakes.engine import Branch, Commit, Server
from tests.fakes.merging import MergingFakeEngine, digest
from tests.fakes.world import World

from coppice.engines.base import Endpoint, EngineError, UnderWayError
from coppice.engines.squashing import SQUASH_TAGS, Squash

_SAID = re.compile(r"\nsquash: (\S+) (\S+)")


class SquashingFakeEngine(MergingFakeEngine):
    """See ``coppice.engines.squashing.SquashingEngine``. ``rounds``: how often a squash is not done yet; ``failing``: how
    often one fails when it has written everything.
    """

    rounds = 0
    failing = 0

    async def squash_of(self, at: Endpoint, database: str, commit: str) -> Squash | None:
        volume = self._enter(at).volume
        said = _SAID.search(volume.commits[volume.ancestors(commit)[-1]].message)
        return Squash(*said.groups()) if said else None

    def _do_create_squashed_branch(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        volume, name, commit = server.volume, arguments["branch"], arguments["commit"]
        said = f"{arguments['message']}\nsquash: {commit} {arguments['maker']}"
        if name in volume.branches:
            if volume.commits[volume.ancestors(volume.branches[name].head)[-1]].message != said:
                raise EngineError(f"the branch {name} is there already")
            return
        if self.rounds:
            self.rounds -= 1
            raise UnderWayError("it is being squashed")
        tag = f"{SQUASH_TAGS}{arguments['maker']}"
        volume.tags[tag] = commit
        volume.tagged_at[tag] = self.clock()
        self.between("tag")
        if self.failing:
            self.failing -= 1
            raise EngineError("the disk is full")
        rows, made = volume.commits[commit].rows, digest("squash", commit, str(len(volume.commits)), length=32)
        volume.commits[made] = Commit(None, rows, volume.commits[commit].at, message=said)
        self.between("squash")
        if name in volume.branches:
            raise EngineError(f"the branch {name} already exists")
        volume.branches[name] = Branch(made, rows)
        self.between("branch")
        self._do_forget_squash(at, server, arguments)

    def _do_forget_squash(self, at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        server.volume.tags.pop(f"{SQUASH_TAGS}{arguments['maker']}", None)


class SquashingWorld(World):
    """A world whose databases squash."""

    engine_class = SquashingFakeEngine
    engine: SquashingFakeEngine
