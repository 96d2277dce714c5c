"""How the double refuses."""

from __future__ import annotations

from typing import Any


class RefusedError(Exception):
    """What the real server answers: a status, a kind, and words."""

    def __init__(self, status: int, kind: str, words: str, **more: Any) -> None:
        super().__init__(words)
        self.status, self.kind, self.more = status, kind, more
