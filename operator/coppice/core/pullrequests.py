"""What is known of a pull request, and whom to ask. Pure: whoever answers has read it before, and nothing here waits.

A pull request is a repository on a forge and a number. Branch names are not in it: a renamed branch, a force-push and
a new title are the same pull request. GitLab calls it a merge request, and what is said here holds for it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from coppice.api.v1alpha1 import PullRequestRef

GRACE = timedelta(minutes=10)
"""How long a closed pull request keeps its data where nobody has set another time: who closes by mistake reopens."""


class PullRequestKey(NamedTuple):
    """One pull request. ``host`` is the forge's (github.com), ``repository`` the path on it, in lower case: forges do
    not tell two repositories apart by the case of their names.
    """

    host: str
    repository: str
    number: int

    @classmethod
    def of(cls, host: str, repository: str, number: int) -> PullRequestKey:
        """Return the key, however its names were written."""
        return cls(host.lower(), repository.lower(), number)

    @classmethod
    def named_by(cls, reference: PullRequestRef) -> PullRequestKey:
        """Return the key of the pull request that an object names."""
        return cls.of(reference.forge, reference.repository, reference.number)

    @property
    def place(self) -> str:
        """Return the repository as grants write it: github.com/acme/shop."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.place}#{self.number}"


class State(StrEnum):
    """Whether a pull request is open. A merged one is closed: nobody works on it any more."""

    OPEN = "Open"
    CLOSED = "Closed"


class UnknownReason(StrEnum):
    """Why nobody knows how a pull request is."""

    NOT_CONFIGURED = "NotConfigured"
    UNAVAILABLE = "ForgeUnavailable"
    NOT_FOUND = "NotFound"


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request as its forge last told. ``CLOSED`` only where the forge said so of this one pull request: that it
    is missing in a list says nothing.

    ``fork``: its commits come from another repository; None where the forge cannot tell, as when that one is deleted.
    """

    key: PullRequestKey
    state: State
    head: str
    fork: bool | None
    closed_at: datetime | None = None
    url: str = ""
    read_at: datetime | None = None
    """When the forge said so. What ends by a closed pull request ends by a reading that is younger than its grace: one
    that was reopened meanwhile is live, though the forge may be away since.
    """


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing is known of a pull request. ``message`` says why, without a token or what the forge answered."""

    reason: UnknownReason
    message: str


@dataclass(frozen=True, slots=True)
class ForgeTerms:
    """What the administrator lets a forge's word do. ``dry_run``: nothing ends by it; ``comments`` and ``statuses``:
    the operator may write there.
    """

    grace: timedelta = GRACE
    dry_run: bool = False
    comments: bool = False
    statuses: bool = False


class Forges(Protocol):
    """What all forges have told so far."""

    def look(self, key: PullRequestKey) -> PullRequest | Unknown:
        """Return what is known of a pull request: what its forge told last, however long ago.

        Reads from memory. Whoever looks is interested: the forge is asked for it from now on.
        """
        ...

    def terms(self, host: str) -> ForgeTerms | None:
        """Return what a forge's word may do, None where no forge of this name is configured."""
        ...


@dataclass(frozen=True, slots=True)
class NoForges:
    """No forge is configured: nobody is asked."""

    def look(self, key: PullRequestKey) -> PullRequest | Unknown:
        """Return that nobody knows."""
        return Unknown(
            UnknownReason.NOT_CONFIGURED,
            f"no forge is configured for {key.host}: whether {key} is open is not known (forges in the chart's values)",
        )

    def terms(self, host: str) -> ForgeTerms | None:
        """Return None: there is no forge."""
        del host
        return None


@dataclass(frozen=True, slots=True)
class Posting:
    """What is to be said on a pull request of one object, ``subject``: a comment that is kept up to date, and a mark
    beside a commit. Either may be None.
    """

    subject: str
    key: PullRequestKey
    comment: str | None = None
    mark: Mark | None = None


class MarkState(StrEnum):
    """What a mark says: it is on its way, it is there, or somebody must act. Spelt as GitHub does."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is shown beside a commit; forges call it a commit status."""

    commit: str
    state: MarkState
    text: str
