"""How the double refuses."""

from __future__ import annotations

from typing import Any


class RefusedError(Exception):
    """What the real server answers: a status, a kind, and words."""

    def __init__(self, status: int, kind: str, words: str, *, response: str = "api:ErrorResponse", **more: Any) -> None:
        super().__init__(words)
        self.status, self.kind, self.response, self.more = status, kind, response, more
