"""What is believed of a clone's pull request, where a grant is for repositories. Pure.

Whoever may write a DataClone may write any pull request into it: a fork's manifest claims not to be one, a repository
claims another's name. So nothing that is said there counts before somebody else has said it too:

- the repository: the grant, which says for which repositories its namespaces speak;
- the number: the label ``coppice.dev/pull-request`` of the namespace. Who labels namespaces decides already which are
  meant by a grant; without it the number is anybody's word, and might be that of a pull request that is no fork. With
  ``any`` whoever may write there is believed: a CI system that has one namespace for all its pull requests;
- fork or not: the forge, and where none is configured the label ``coppice.dev/fork`` of the namespace. Who labels for
  a fork is believed in any case. What is not known counts as a fork.

A refusal never depends on a forge that is away: until it has told, nothing is refused and nothing is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from coppice.api.v1alpha1 import PullRequestRef
from coppice.core import labels
from coppice.core.pullrequests import Forges, PullRequest, PullRequestKey, Unknown, UnknownReason

ANY = "any"
"""The number of whichever pull request the objects of a namespace say."""
FORGE_UNAVAILABLE = str(UnknownReason.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Alleged:
    """What a clone says of its pull request, and what the forge has told of that one."""

    key: PullRequestKey
    known: PullRequest | Unknown


def look_up(said: PullRequestRef | None, forges: Forges) -> Alleged | None:
    """Return the pull request that is said, with what its forge has told; None where none is said."""
    if said is None:
        return None
    key = PullRequestKey.named_by(said)
    return Alleged(key, forges.look(key))


@dataclass(frozen=True, slots=True)
class Speaker:
    """A namespace with its labels, and the grant's name and namespace, for messages."""

    namespace: str
    labels: Mapping[str, str]
    grant: str
    where: str

    def vouches_for(self, key: PullRequestKey) -> bool | None:
        """Return whether the namespace is for a pull request of this number, or None where that is not said."""
        said = self.labels.get(labels.PULL_REQUEST)
        return None if said is None else said in {str(key.number), ANY}

    @property
    def grant_words(self) -> str:
        """Return the grant, for messages."""
        return f"DataGrant {self.grant} in namespace {self.where}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a grant does not give what is asked. ``waits``: the forge may yet change that; else somebody must act.
    ``speaks_for`` is that of ``coppice.reconcile.grants.Terms``.
    """

    reason: str
    message: str
    waits: bool = False
    speaks_for: PullRequestKey | None = None


class Origin(Enum):
    """Where the commits of a pull request come from, as far as anybody knows who is believed."""

    OWN = auto()
    FORK = auto()
    UNKNOWN = auto()
    UNTOLD = auto()


def judge_alleged(
    alleged: Alleged | None, speaker: Speaker, repositories: tuple[str, ...], *, forks: bool
) -> Refusal | None:
    """Return why a clone is not of a pull request that a grant for ``repositories`` is for, or None if it is."""
    if alleged is None:
        return _required(speaker)
    if alleged.key.place not in {place.lower() for place in repositories}:
        return _not_granted(alleged, speaker)
    if speaker.vouches_for(alleged.key) is False:
        return _mismatch(alleged, speaker)
    return None if forks else _judge_origin(alleged, speaker)


def believed(alleged: Alleged | None, speaker: Speaker, repositories: tuple[str, ...]) -> PullRequestKey | None:
    """Return the pull request that a namespace speaks for, where both its repository and its number are believed."""
    if alleged is None or alleged.key.place not in {place.lower() for place in repositories}:
        return None
    return alleged.key if speaker.vouches_for(alleged.key) else None


def origin_of(alleged: Alleged, speaker: Speaker) -> Origin:
    """Return where the commits come from."""
    if not speaker.vouches_for(alleged.key):
        return Origin.UNKNOWN
    said = speaker.labels.get(labels.FORK)
    if said == "true":
        return Origin.FORK
    known = alleged.known
    if isinstance(known, PullRequest):
        return {True: Origin.FORK, False: Origin.OWN, None: Origin.UNKNOWN}[known.fork]
    if known.reason is UnknownReason.UNAVAILABLE:
        return Origin.UNTOLD
    return Origin.OWN if known.reason is UnknownReason.NOT_CONFIGURED and said == "false" else Origin.UNKNOWN


def _judge_origin(alleged: Alleged, speaker: Speaker) -> Refusal | None:
    match origin_of(alleged, speaker):
        case Origin.OWN:
            return None
        case Origin.FORK:
            message = f"{alleged.key} comes from a fork, and {speaker.grant_words} is not for forks (spec.forks)"
            return Refusal("ForkNotGranted", message)
        case Origin.UNTOLD:
            message = f"waits to be told whether {alleged.key} comes from a fork: {_words(alleged)}"
            return Refusal(FORGE_UNAVAILABLE, message, waits=True)
        case Origin.UNKNOWN:
            message = (
                f"whether {alleged.key} comes from a fork is not known, which counts as one, and {speaker.grant_words} "
                f"is not for forks (spec.forks): {_missing(alleged, speaker)}"
            )
            return Refusal("ForkNotGranted", message)


def _missing(alleged: Alleged, speaker: Speaker) -> str:
    """Return what would have to be there for the origin to be known."""
    if not speaker.vouches_for(alleged.key):
        return (
            f"have whoever makes namespace {speaker.namespace} label it {labels.PULL_REQUEST}=<number>, for the number "
            "in this object is anybody's word"
        )
    if isinstance(alleged.known, PullRequest):
        return f"{alleged.key.host} does not say it, as where the other repository is gone"
    if alleged.known.reason is UnknownReason.NOT_FOUND:
        return alleged.known.message
    return (
        f"have whoever makes namespace {speaker.namespace} label it {labels.FORK}=false, or the administrator "
        f"configure the forge {alleged.key.host}"
    )


def _words(alleged: Alleged) -> str:
    return alleged.known.message if isinstance(alleged.known, Unknown) else ""


def _required(speaker: Speaker) -> Refusal:
    message = (
        f"{speaker.grant_words} is for pull requests of its repositories only: make the DataClone anew with "
        "spec.pullRequest, or ask its owners for a grant without repositories"
    )
    return Refusal("PullRequestRequired", message)


def _not_granted(alleged: Alleged, speaker: Speaker) -> Refusal:
    message = (
        f"{speaker.grant_words} is not for {alleged.key.place}: if this namespace speaks for that repository, ask its "
        "owners to add it to spec.repositories"
    )
    return Refusal("RepositoryNotGranted", message)


def _mismatch(alleged: Alleged, speaker: Speaker) -> Refusal:
    label = f"{labels.PULL_REQUEST}={speaker.labels[labels.PULL_REQUEST]}"
    message = (
        f"namespace {speaker.namespace} has the label {label}, and spec.pullRequest "
        f"says {alleged.key.number}: make the DataClone anew with the number of the label, or have whoever makes the "
        "namespace correct that"
    )
    return Refusal("PullRequestMismatch", message)
