"""One call at a time per volume or snapshot.

The CSI specification lets a driver answer ABORTED while another call works on the same object; callers try again.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from coppice.csi.errors import aborted


class Locks:
    """Shared and exclusive locks by id that never wait: whoever comes second is refused."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._exclusive: set[str] = set()
        self._shared: Counter[str] = Counter()

    @contextmanager
    def exclusive(self, identifier: str) -> Iterator[None]:
        """Hold the object alone; raises ABORTED while anybody else holds it."""
        with self._guard:
            if identifier in self._exclusive or self._shared[identifier]:
                raise aborted(f"another call works on {identifier}: try again")
            self._exclusive.add(identifier)
        try:
            yield
        finally:
            with self._guard:
                self._exclusive.remove(identifier)

    @contextmanager
    def shared(self, identifier: str) -> Iterator[None]:
        """Keep the object from being changed or deleted, together with others who do; raises ABORTED while it is."""
        with self._guard:
            if identifier in self._exclusive:
                raise aborted(f"another call changes {identifier}: try again")
            self._shared[identifier] += 1
        try:
            yield
        finally:
            with self._guard:
                self._shared[identifier] -= 1
                if not self._shared[identifier]:
                    del self._shared[identifier]
