"""What forges have told, for stories: pull requests are opened and closed by a line, and read when the story says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from coppice.core.pullrequests import ForgeTerms, PullRequest, PullRequestKey, State, Unknown, UnknownReason

KEY = PullRequestKey("github.com", "acme/shop", 42)


@dataclass
class Told:
    """The memory of an operator that reads its forges; ``clock`` is the world's.

    ``away``: the forge does not answer, and what is known is what it told before. A forge tells at once otherwise.
    """

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    grace: timedelta = timedelta(minutes=10)
    dry_run: bool = False
    writes: bool = False
    """Whether the operator may write there."""
    away: bool = False
    there: dict[PullRequestKey, PullRequest] = field(default_factory=dict)
    known: dict[PullRequestKey, PullRequest] = field(default_factory=dict)
    looked: list[PullRequestKey] = field(default_factory=list)

    def open(self, key: PullRequestKey = KEY, *, head: str = "abc", fork: bool | None = False) -> None:
        """Open a pull request, or reopen it."""
        self.there[key] = PullRequest(key, State.OPEN, head, fork, url=f"https://{key.place}/pull/{key.number}")

    def close(self, key: PullRequestKey = KEY) -> None:
        """Close a pull request."""
        self.there[key] = replace(self.there[key], state=State.CLOSED, closed_at=self.clock().replace(microsecond=0))

    def forget(self) -> None:
        """Start anew, as an operator does that was killed."""
        self.known.clear()

    def look(self, key: PullRequestKey) -> PullRequest | Unknown:
        """Return what the forge told last."""
        self.looked.append(key)
        if not self.away and key in self.there:
            self.known[key] = replace(self.there[key], read_at=self.clock())
        if key in self.known:
            return self.known[key]
        if self.away:
            return Unknown(UnknownReason.UNAVAILABLE, f"{key.host} has not answered yet")
        return Unknown(UnknownReason.NOT_FOUND, f"{key.host} knows no {key}, or its token may not read it")

    def terms(self, host: str) -> ForgeTerms | None:
        """Return what the forge's word may do."""
        del host
        return ForgeTerms(grace=self.grace, dry_run=self.dry_run, comments=self.writes, statuses=self.writes)
