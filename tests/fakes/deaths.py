"""The moments at which an operator may die. What it knew is gone then, and what comes after depends on the world alone:
so a day is played once to its end, and from each of its moments another operator goes on in a copy of the world.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.story import Story
from tests.fakes.world import World


class Deaths:
    """A story as it is after each write of its operator, and before and after each of its calls to an engine. Where
    nothing has happened in the world between two of them they are one.
    """

    def __init__(self, story: Story, *, every: int = 1) -> None:
        """Watch a story from now on; of its writes, only each so manieth is a moment."""
        self.moments: list[tuple[str, Story]] = []
        self._story, self._every = story, every
        self._writes = self._calls = 0
        self._seen = _state(story.world)
        kube, engine = story.kube, story.world.engine
        self._quiet = kube.written, engine.before_call, engine.after_call
        self._watching = self._after_write, self._before_call, self._after_call
        self._hook(self._watching)

    def stop(self) -> None:
        self._hook(self._quiet)

    def _hook(self, hooks: tuple[Callable[[], None], Callable[[str], None], Callable[[str], None]]) -> None:
        kube, engine = self._story.kube, self._story.world.engine
        kube.written, engine.before_call, engine.after_call = hooks

    def _after_write(self) -> None:
        self._quiet[0]()
        self._writes += 1
        if self._writes % self._every == 1 % self._every:
            self._look(f"after write {self._writes}")

    def _before_call(self, action: str) -> None:
        self._quiet[1](action)
        self._calls += 1
        self._look(f"before {action}, engine call {self._calls}")

    def _after_call(self, action: str) -> None:
        self._quiet[2](action)
        self._look(f"after {action}, engine call {self._calls}")

    def _look(self, when: str) -> None:
        state = _state(self._story.world)
        if state != self._seen:
            self._seen = state
            self._hook(self._quiet)
            self.moments.append((when, self._story.fork()))
            self._hook(self._watching)


def _state(world: World) -> tuple[int, str]:
    """Return what tells whether anything has happened in a world: writes to the API server, and what servers hold."""
    return len(world.writes), repr((world.now, world.volumes, world.snapshots, world.engine.servers))
