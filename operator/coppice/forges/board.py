"""What is to be said on pull requests, and the one loop that says it.

Whoever wants something said says the whole of it, again and again; here it is written when it is another than before.
Nothing of that outlives the process: the first time, a comment is compared with what stands there, and a mark is set
anew. A forge that is away is asked again, ever more seldom, and holds up nobody but its own postings.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from coppice.core.pullrequests import Mark, Posting
from coppice.forges.client import CommitStatus, ForgeClient
from coppice.forges.errors import ForgeError, RateLimitedError
from coppice.forges.posting import keep_comment

logger = logging.getLogger(__name__)

PAUSE: Final = timedelta(seconds=15)
"""Between two postings of one object: what changes every second is told as it is in the end."""
FIRST_RETRY: Final = timedelta(minutes=1)
LAST_RETRY: Final = timedelta(minutes=30)
MARK: Final = "coppice"
MOST_TEXT: Final = 140
"""What GitHub takes as the text of a mark."""


class Writers(Protocol):
    """Who writes to which forge."""

    def client(self, host: str) -> ForgeClient | None:
        """Return who writes to a forge, or None where there is none of this name."""
        ...


@dataclass(slots=True)
class _Notice:
    """What is wanted of one object, what stands there as far as is known, and when it may be written next."""

    wanted: Posting
    due: datetime
    posted: Posting | None = None
    retry: timedelta = FIRST_RETRY
    is_last: bool = False
    """The object is gone: once this is said there is nothing to remember."""

    @property
    def is_open(self) -> bool:
        return self.wanted != self.posted


class Board:
    """Keeps what is said on pull requests up to date."""

    def __init__(self, writers: Writers, *, clock: Callable[[], datetime]) -> None:
        self._writers, self._clock = writers, clock
        self._notices: dict[str, _Notice] = {}
        self._woken = asyncio.Event()

    def want(self, posting: Posting) -> None:
        """Have this said of an object from now on."""
        notice = self._notices.get(posting.subject)
        if notice is None or notice.is_last:
            self._notices[posting.subject] = _Notice(posting, self._clock())
        elif notice.wanted != posting:
            notice.wanted = posting
        else:
            return
        self._woken.set()

    def gone(self, subject: str) -> None:
        """Say of an object that it was deleted, and then nothing more; of one that nothing was wanted of, nothing."""
        notice = self._notices.get(subject)
        if notice is None or notice.wanted.comment is None:
            self._notices.pop(subject, None)
            return
        marker = notice.wanted.comment.partition("\n")[0]
        notice.wanted = replace(notice.wanted, comment=f"{marker}\n**Database `{subject}`: deleted**", mark=None)
        notice.is_last = True
        self._woken.set()

    @property
    def open(self) -> int:
        """Return how much there is to say."""
        return sum(notice.is_open for notice in self._notices.values())

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            seconds = await self.step()
            self._woken.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def step(self) -> float | None:
        """Write what is due; return in how many seconds there is more, None where nothing is wanted."""
        for subject in [name for name, notice in self._notices.items() if notice.is_open]:
            notice = self._notices.get(subject)
            if notice is not None and notice.due <= self._clock():
                await self._write(notice)
        dues = [notice.due for notice in self._notices.values() if notice.is_open]
        return max((min(dues) - self._clock()).total_seconds(), 0.0) if dues else None

    async def _write(self, notice: _Notice) -> None:
        wanted, before = notice.wanted, notice.posted
        try:
            await self._post(wanted, before)
        except RateLimitedError as error:
            notice.due = max(error.retry_at, self._clock() + PAUSE)
        except ForgeError as error:
            logger.warning("what is said on %s is not up to date: %s", wanted.key, error)
            self._put_off(notice)
        except Exception as error:  # noqa: BLE001 - the one place that survives a bug
            # Not the exception's own text: it may quote what it stumbled over.
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("bug: %s while writing to %s\n%s", type(error).__name__, wanted.key.host, trace)  # noqa: TRY400
            self._put_off(notice)
        else:
            notice.posted, notice.due, notice.retry = wanted, self._clock() + PAUSE, FIRST_RETRY
            if notice.is_last and not notice.is_open:
                self._notices.pop(wanted.subject, None)

    def _put_off(self, notice: _Notice) -> None:
        notice.due, notice.retry = self._clock() + notice.retry, min(notice.retry * 2, LAST_RETRY)

    async def _post(self, wanted: Posting, before: Posting | None) -> None:
        client = self._writers.client(wanted.key.host)
        if client is None:
            return
        repository, number = wanted.key.repository, wanted.key.number
        if wanted.mark is not None and (before is None or before.mark != wanted.mark):
            await client.set_status(repository, wanted.mark.commit, _status(wanted.subject, wanted.mark))
        if wanted.comment is not None and (before is None or before.comment != wanted.comment):
            await keep_comment(client, repository, number, wanted.comment)


def _status(subject: str, mark: Mark) -> CommitStatus:
    return CommitStatus(mark.state, f"{MARK}/{subject}", mark.text[:MOST_TEXT])
