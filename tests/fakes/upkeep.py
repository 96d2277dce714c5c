"""An engine in memory whose data have parts that can be put in order: the reference for how that is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.fakes.merging import MergingFakeEngine
from tests.fakes.world import World

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.upkeep import OPTIMIZE_ACTION, Outcome

PARTS = ("shop/commits", "shop/main", "system")


class KeptEngine(MergingFakeEngine):
    """See ``coppice.engines.upkeep.UpkeepEngine``."""

    def __init__(self) -> None:
        super().__init__()
        self.there = list(PARTS)
        self.spoiled: dict[str, EngineError] = {}
        """By part: what becomes of it instead."""
        self.endless = False
        """Whatever is begun now goes on."""
        self.parts_asked = 0
        """How often it was asked for its parts."""
        self.turns: dict[str, tuple[str, Outcome]] = {}

    @property
    def put_in_order(self) -> list[str]:
        """What was done to the parts of all its volumes."""
        volumes = {id(server.volume): server.volume for server in self.servers.values()}
        return [part for volume in volumes.values() for part in volume.put_in_order]

    async def parts(self, at: Endpoint) -> Sequence[str]:
        self.parts_asked += 1
        self._enter(at)
        return tuple(sorted(self.there))

    def outcome(self, of: str, turn: str) -> Outcome | None:
        known, outcome = self.turns.get(of, ("", None))
        return outcome if known == turn else None

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        if action != OPTIMIZE_ACTION:
            await super().execute(at, action, arguments)
            return
        self.before_call(action)
        part, error = arguments["part"], self.spoiled.get(arguments["part"])
        try:
            volume = self._enter(at).volume
            if error is None and not self.endless:
                volume.put_in_order += (part,)
        except EngineError as refusal:
            error = refusal
        # Who dies in here never hears of it.
        self.after_call(action)
        self.turns[arguments["of"]] = arguments["turn"], Outcome(ended=not self.endless, error=error)

    def end(self, of: str) -> None:
        """Bring what goes on to its end."""
        self.endless = False
        self.turns[of] = self.turns[of][0], Outcome()


class KeptWorld(World):
    """A world whose databases have parts."""

    engine: KeptEngine

    def _servers(self) -> KeptEngine:
        engine = KeptEngine()
        engine.named, engine.passes, engine.clock = self._named, self._passes, self._clock
        return engine
