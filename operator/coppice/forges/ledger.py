"""What is known of the pull requests of one forge, and what to ask next. Pure: no I/O, and every moment is given.

A pull request is known by one of two questions: the list of a repository's open ones, which answers for many at once,
or the pull request itself. Whichever takes fewer requests is asked at intervals. Only the second can tell that one is
closed: what a list lacks may have been left out by mistake, so it is asked for by itself, and a closed one again right
after its grace, for it may have been reopened meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from coppice.core.pullrequests import PullRequest, PullRequestKey, State, Unknown, UnknownReason
from coppice.forges.client import Listing
from coppice.forges.errors import (
    ForbiddenError,
    ForgeError,
    MissingError,
    RateLimitedError,
    UnauthorizedError,
    UnreachableError,
)
from coppice.forges.limit import Limit

BACKOFF: Final = timedelta(seconds=1)
"""Before a forge is asked again that did not answer; twice as long each time, up to the interval."""
MOST_MISSES: Final = 8
"""What is not there is asked for ever less often, up to once in so many intervals: anybody may name anything."""
FOLLOWED_PER_INTERVAL: Final = 20
"""How many that a list lacks are asked for by themselves in an interval: a list that is empty by mistake may lack all,
every time."""


@dataclass(frozen=True, slots=True)
class ListOpen:
    """Ask for the open pull requests of a repository."""

    repository: str


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for one pull request."""

    key: PullRequestKey

    @property
    def repository(self) -> str:
        """Return where it is."""
        return self.key.repository


@dataclass(frozen=True, slots=True)
class Rest:
    """Ask nothing until a moment; None: until somebody wants to know something."""

    until: datetime | None


Question = ListOpen | Read


@dataclass(slots=True)
class _Entry:
    """One pull request that somebody wants to know about."""

    since: datetime
    wanted_at: datetime
    told: PullRequest | None = None
    unknown: Unknown | None = None
    checked_at: datetime | None = None
    """When a list or an answer of its own last told something of it, or that there is nothing to be told."""
    missing_at: datetime | None = None
    """When a list lacked it, until it is asked for by itself."""
    quiet_until: datetime | None = None
    """It is not asked for by itself before: it was not there."""
    misses: int = 0
    """How often in a row it was not there."""


@dataclass(slots=True)
class _Repository:
    pages: int = 1
    """How many requests a list takes."""
    listed_at: datetime | None = None
    trouble: str = ""
    """Why the last question was not answered, if it was not."""
    failures: int = 0
    retry_at: datetime | None = None
    misses: int = 0


class _Due(NamedTuple):
    moment: datetime
    told: bool
    """Who waits for a first answer comes before who waits for the next."""
    question: Question


@dataclass(slots=True)
class Ledger:
    """One forge. ``interval``: how old an answer may become; ``grace``: what a closed pull request has.

    ``keep``: for how long it is asked for what nobody has looked at.
    """

    host: str
    interval: timedelta
    grace: timedelta
    keep: timedelta
    entries: dict[PullRequestKey, _Entry] = field(default_factory=dict)
    repositories: defaultdict[str, _Repository] = field(default_factory=lambda: defaultdict(_Repository))
    trouble: str = ""
    """Why the forge answers nobody, if it does not."""
    failures: int = 0
    retry_at: datetime | None = None
    asked_at: datetime | None = None
    followed_at: datetime | None = None

    # --- who wants to know what -------------------------------------------------------------------------------------

    def want(self, key: PullRequestKey, now: datetime) -> bool:
        """Note that somebody looks at a pull request; return whether nobody did before."""
        entry = self.entries.get(key)
        if entry is None:
            self.entries[key] = _Entry(now, now)
            return True
        entry.wanted_at = now
        return False

    def look(self, key: PullRequestKey) -> PullRequest | Unknown:
        """Return what the forge told last, or why it told nothing."""
        entry = self.entries.get(key)
        known = None if entry is None else entry.told or entry.unknown
        if known is not None:
            return known
        repository = self.repositories.get(key.repository)
        trouble = self.trouble or (repository.trouble if repository is not None else "")
        return Unknown(UnknownReason.UNAVAILABLE, trouble or f"{self.host} has not been asked for {key} yet")

    def forget(self, now: datetime) -> None:
        """Drop what nobody has looked at for long."""
        for key in [key for key, entry in self.entries.items() if now - entry.wanted_at > self.keep]:
            del self.entries[key]
        known = {key.repository for key in self.entries}
        for repository in [name for name in self.repositories if name not in known]:
            del self.repositories[repository]

    def oldest(self) -> datetime | None:
        """Return of when the oldest answer is; where there is none yet, since when it is wanted."""
        return min((entry.checked_at or entry.since for entry in self.entries.values()), default=None)

    # --- what to ask ------------------------------------------------------------------------------------------------

    def next(self, now: datetime, limit: Limit) -> Question | Rest:
        """Return what to ask now, or when to look again."""
        due = min(self._due(), default=None, key=lambda due: (max(due.moment, now), due.told, due.moment))
        if due is None:
            return Rest(None)
        bounds = (limit.paused_until, self.retry_at, self.asked_at and self.asked_at + limit.gap(now))
        moment = max([due.moment, *(bound for bound in bounds if bound is not None)])
        return due.question if moment <= now else Rest(moment)

    def _due(self) -> Iterator[_Due]:
        groups: defaultdict[str, list[tuple[PullRequestKey, _Entry]]] = defaultdict(list)
        for key, entry in self.entries.items():
            groups[key.repository].append((key, entry))
        for name, group in groups.items():
            retry_at = self.repositories[name].retry_at
            for due in self._due_in(name, group):
                yield due if retry_at is None else due._replace(moment=max(due.moment, retry_at))

    def _due_in(self, name: str, group: list[tuple[PullRequestKey, _Entry]]) -> Iterator[_Due]:
        repository = self.repositories[name]
        by_list = len(group) > repository.pages
        if by_list:
            new = [entry.since for _, entry in group if entry.checked_at is None]
            if repository.listed_at is None or len(new) > repository.pages:
                yield _Due(min(new, default=group[0][1].since), told=False, question=ListOpen(name))
            else:
                yield _Due(repository.listed_at + self.interval, told=True, question=ListOpen(name))
        for key, entry in group:
            checked = entry.checked_at
            stale = entry.since if checked is None else None if by_list else checked + self.interval
            moments = [at for at in (stale, self._follow_at(entry), self._confirm_at(entry)) if at is not None]
            if moments:
                moment = max([min(moments), *([entry.quiet_until] if entry.quiet_until is not None else [])])
                yield _Due(moment, entry.told is not None, Read(key))

    def _follow_at(self, entry: _Entry) -> datetime | None:
        """Return when one that a list lacked is asked for."""
        if entry.missing_at is None or self.followed_at is None:
            return entry.missing_at
        return max(entry.missing_at, self.followed_at + self.interval / FOLLOWED_PER_INTERVAL)

    def _confirm_at(self, entry: _Entry) -> datetime | None:
        """Return when a closed one is asked for again."""
        told = entry.told
        if told is None or told.state is not State.CLOSED or told.closed_at is None or told.read_at is None:
            return None
        ends = told.closed_at + self.grace
        return ends if told.read_at < ends else None

    # --- what was answered ------------------------------------------------------------------------------------------

    def asked(self, question: Question, now: datetime) -> None:
        """Note that a question is on its way."""
        self.asked_at = now
        if isinstance(question, Read) and self._missing(question.key):
            self.followed_at = now

    def listed(self, repository: str, listing: Listing, now: datetime) -> set[PullRequestKey]:
        """Note a list; return of whom something new is known."""
        self._answered(repository)
        known = self.repositories[repository]
        known.pages, known.listed_at, known.misses = listing.pages, now, 0
        open_ones = {found.key: found for found in listing.pull_requests}
        changed = {key for key, found in open_ones.items() if self._tell(key, found)}
        for key, entry in self._of(repository):
            entry.checked_at, entry.missing_at = now, None
            if key not in open_ones and not _is_settled(entry):
                entry.missing_at = now
        return changed

    def was_read(self, key: PullRequestKey, found: PullRequest, now: datetime) -> set[PullRequestKey]:
        """Note an answer about one pull request; return of whom something new is known."""
        self._answered(key.repository)
        changed = self._tell(key, found)
        if entry := self.entries.get(key):
            entry.checked_at, entry.missing_at, entry.quiet_until, entry.misses = now, None, None, 0
        return {key} if changed else set()

    def failed(self, question: Question, error: ForgeError, now: datetime) -> set[PullRequestKey]:
        """Note what came instead of an answer; return of whom something new is known."""
        if isinstance(error, MissingError | ForbiddenError):
            return self._not_there(question, error, now)
        if isinstance(error, UnreachableError | UnauthorizedError | RateLimitedError):
            self.trouble = str(error)
        if isinstance(error, UnreachableError | UnauthorizedError):
            self.failures += 1
            self.retry_at = now + self._backoff(self.failures)
        if not isinstance(error, RateLimitedError):  # then the limit says when
            repository = self.repositories[question.repository]
            repository.trouble, repository.failures = str(error), repository.failures + 1
            repository.retry_at = now + self._backoff(repository.failures)
        return set()

    def _not_there(self, question: Question, error: ForgeError, now: datetime) -> set[PullRequestKey]:
        """What is not there, or not for us to see, is not closed by that: what was told before stands."""
        self._answered(question.repository)
        unknown = Unknown(UnknownReason.NOT_FOUND, str(error))
        concerned = [question.key] if isinstance(question, Read) else [key for key, _ in self._of(question.repository)]
        if isinstance(question, ListOpen):
            repository = self.repositories[question.repository]
            repository.listed_at, repository.misses = now, repository.misses + 1
            repository.retry_at = now + self._absence(repository.misses)
        changed = set()
        for key in concerned:
            if entry := self.entries.get(key):
                entry.checked_at, entry.missing_at, entry.misses = now, None, entry.misses + 1
                entry.quiet_until = now + self._absence(entry.misses)
                if entry.told is None and entry.unknown != unknown:
                    entry.unknown = unknown
                    changed.add(key)
        return changed

    def _answered(self, repository: str) -> None:
        self.trouble, self.failures, self.retry_at = "", 0, None
        known = self.repositories[repository]
        known.trouble, known.failures, known.retry_at = "", 0, None

    def _tell(self, key: PullRequestKey, found: PullRequest) -> bool:
        entry = self.entries.get(key)
        if entry is None:
            return False
        before, entry.told, entry.unknown = entry.told, found, None
        return before is None or replace(before, read_at=found.read_at) != found or self._outlasts(before, found)

    def _outlasts(self, before: PullRequest, found: PullRequest) -> bool:
        """Return whether a closed one is known to have remained so for its grace, and was not before."""
        if found.closed_at is None or before.read_at is None or found.read_at is None:
            return False
        return before.read_at < found.closed_at + self.grace <= found.read_at

    def _backoff(self, failures: int) -> timedelta:
        return min(BACKOFF * float(1 << min(failures - 1, 16)), self.interval)

    def _absence(self, misses: int) -> timedelta:
        return self.interval * min(1 << min(misses - 1, 16), MOST_MISSES)

    def _missing(self, key: PullRequestKey) -> bool:
        entry = self.entries.get(key)
        return entry is not None and entry.missing_at is not None

    def _of(self, repository: str) -> Iterable[tuple[PullRequestKey, _Entry]]:
        return [(key, entry) for key, entry in self.entries.items() if key.repository == repository]


def _is_settled(entry: _Entry) -> bool:
    """Return whether a list that lacks a pull request says nothing new: it is closed, or there is none."""
    if entry.told is None:
        return entry.unknown is not None
    return entry.told.state is State.CLOSED
