"""Which side of a conflict is taken, by what people have decided: the closest decision wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from coppice.engines.merging import Conflict, Decision, Side

_DECIDABLE: Final = frozenset({"Cell", "Row"})


@dataclass
class Decisions:
    """Which side wins where, and which decisions have met a conflict."""

    decisions: Sequence[Decision]
    met: set[int] = field(default_factory=set)

    def side_of(self, conflict: Conflict) -> Side | None:
        """Return the side that the closest decision takes; of two that are as close, the first counts."""
        if conflict.kind not in _DECIDABLE:
            return None
        best, side = -1, None
        for place, decision in enumerate(self.decisions):
            closeness = _closeness(decision, conflict)
            if closeness is not None:
                self.met.add(place)
                if closeness > best:
                    best, side = closeness, decision.take
        return side

    @property
    def unused(self) -> tuple[int, ...]:
        """Return the decisions that have met no conflict, by their place."""
        return tuple(place for place in range(len(self.decisions)) if place not in self.met)


def _closeness(decision: Decision, conflict: Conflict) -> int | None:
    """Return how close a decision is to a conflict, or None where it is about something else."""
    named = ((decision.conflict, conflict.id), (decision.row, conflict.row), (decision.table, conflict.table))
    if any(wanted is not None and wanted != actual for wanted, actual in named):
        return None
    return next((3 - place for place, (wanted, _) in enumerate(named) if wanted is not None), 0)
