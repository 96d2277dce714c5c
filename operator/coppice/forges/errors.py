"""What a forge can answer, as a small tree of exceptions: mapped from HTTP once, handled once.

Their messages go into conditions and logs: they name the forge and what was asked, never a token, nor the words that
the forge answered with.
"""

from __future__ import annotations

from datetime import datetime


class ForgeError(Exception):
    """Any answer of a forge that is not what was asked for."""


class UnreachableError(ForgeError):
    """No answer in time, a broken connection, or a 5xx: the same question may be answered later."""


class RateLimitedError(ForgeError):
    """The forge wants to be left alone until ``retry_at``."""

    def __init__(self, message: str, retry_at: datetime) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class UnauthorizedError(ForgeError):
    """401, or no usable token in the file: the administrator has to put the token right."""


class ForbiddenError(ForgeError):
    """403 without a rate limit: the token has no right to this."""


class MissingError(ForgeError):
    """404 or 410: there is no such thing, or the token must not know of it. The two cannot be told apart."""


class RefusedError(ForgeError):
    """Any other 4xx: repeating the same cannot help. ``answer`` is for the client to tell apart, and never shown."""

    def __init__(self, message: str, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


class BadAnswerError(ForgeError):
    """An answer that is not of the documented form, or not whole: nothing is concluded from it."""
