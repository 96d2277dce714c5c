"""Everything a request's plan may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from coppice.api.v1alpha1 import DataChangeRequest, DataClone, DataReview, InvalidResource
from coppice.core.plan import Manifest, SecretKey, ServerRef
from coppice.engines.base import Content, Endpoint, Engine, EngineError
from coppice.engines.merging import AssertionResult, Authors, CommitInfo, MergeOutcome
from coppice.engines.patching import Fate, Patch
from coppice.kube.errors import KubeError
from coppice.manifests.network import Peer
from coppice.reconcile.access import Source
from coppice.reconcile.adopted import Adoption
from coppice.reconcile.belief import Refusal
from coppice.reconcile.copies import Copy
from coppice.reconcile.grants import Terms
from coppice.reconcile.reads import Answer, Server, ref_of

REMOTE_PASSWORD = "remote-password"  # noqa: S105 - the name of a key


@dataclass(frozen=True, slots=True)
class Party:
    """A server that takes part in a merge: whose Pods, which Secret opens it, and what it says it holds."""

    peer: Peer
    secret_name: str
    server: Server
    answer: Answer | None = None

    @property
    def content(self) -> Content | None:
        """Return what the server holds, or None while it does not answer."""
        return None if self.answer is None else self.answer.content

    @property
    def remote_password(self) -> SecretKey:
        """Return where the password is kept with which this server fetches from others."""
        return SecretKey(self.peer.namespace, self.secret_name, REMOTE_PASSWORD)

    def endpoint(self, engine: Engine) -> Endpoint:
        """Return where to log in as administrator; only of a server that answers."""
        found = self.server.endpoint(engine)
        if found is None:
            raise TypeError("a call needs a server that answers")
        return found

    def ref(self, engine: Engine) -> ServerRef:
        """Return the same for a plan, without the password."""
        return ref_of(self.endpoint(engine), self.peer.namespace, self.secret_name)

    def app_endpoint(self, engine: Engine) -> Endpoint | None:
        """Return where to log in as applications do, or None while nothing runs there."""
        found, password = self.server.endpoint(engine), self.server.credentials.get("app-password")
        return (
            None if found is None or password is None else replace(found, username=engine.app_user, password=password)
        )


@dataclass(frozen=True, slots=True)
class CloneSeen:
    """A clone: the scratch server, or the one whose changes are proposed. ``serving`` is the copy that apps have."""

    manifest: Manifest | None = None
    clone: DataClone | InvalidResource | None = None
    serving: Copy | None = None
    party: Party | None = None


@dataclass(frozen=True, slots=True)
class CheckJobs:
    """The owners' checks that are programs: the Jobs that they name, and what was made for the request, of whatever
    result. ``password``: a new one, for a Secret that is not there yet.
    """

    templates: Mapping[str, Manifest | None] = field(default_factory=dict)
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secrets: tuple[Manifest, ...] = ()
    password: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Proposed:
    """Where a branch is that is proposed, or that people look at. ``unsaved``: it has writes that are no
    commit yet. ``kept``: its server cannot be asked, or does not have it any more, and this is what it had when it last
    could be asked. ``superseded``: it can be asked, and has begun anew from something else since.
    """

    head: str
    branch: str
    unsaved: bool = False
    kept: bool = False
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A live server that is written to: where to log in, and the same for a plan."""

    endpoint: Endpoint
    ref: ServerRef


@dataclass(frozen=True, slots=True)
class PatchSeen:
    """What a request for a live database is about.

    ``snapshot``: the DataSnapshot that the clone came from, while it is there. ``based``: the scratch server is of it.
    ``writer``: what somebody else's database is written to with, and ``answer`` what the server says to that.
    ``target``: the live server; None where it cannot be told what its rows are. ``seal``: the secret under which
    digests are shown to everybody, ``mark`` the one that whoever may read the scratch server's rows has.
    ``patch``: what is to be written. ``fate``: what became of the transaction that the status names. ``landed``: the
    name of what is in the live database.
    """

    snapshot: Manifest | None = None
    based: bool = False
    writer: Adoption | None = None
    answer: Answer | None = None
    target: Target | None = None
    seal: str = field(default="", repr=False)
    mark: str = field(default="", repr=False)
    patch: Patch | None = field(default=None, repr=False)
    fate: Fate | None = None
    landed: str | None = None


@dataclass(frozen=True, slots=True)
class RequestObservation:
    """A DataChangeRequest and everything around it; what was not needed was not read, and is None or empty.

    ``store``: the store's server. ``terms``: whether the clone's namespace may propose; ``refusal``: why not, where
    there is a grant that might allow it. ``receives``: whether it may have the store's rows. ``may_finish``: what
    nobody has committed at the source is the author's to commit. ``reverted``: the request that is to be undone.
    ``passages``: the NetworkPolicies that are wanted; ``policies``: those that there are, in whatever namespace.
    ``lacking``: the commits that the scratch server has yet to fetch. ``merged``: the merge as it is reviewed;
    ``fetched``: the store has the commit that the status says is to be published. ``final``: the same with the message
    that it is published under. ``checks``: what the owners' queries found; ``check_jobs``: their programs. ``landed``:
    the commit that the status says was to be published, once it is in the history of the target. ``previewed``: what
    people see on the scratch server's branch. ``listed``: the UIDs of all reviews in the namespace. ``unenforced``: why
    nobody can tell who reviews are of. ``refused``: why the store has just refused to publish. ``patching``: what there
    is beside all that where the engine does not merge.
    """

    manifest: Manifest
    now: datetime
    request: DataChangeRequest | InvalidResource
    source: Source | None = None
    store: Party | None = None
    terms: Terms | None = None
    refusal: Refusal | None = None
    receives: bool = True
    origin: CloneSeen = field(default_factory=CloneSeen)
    reverted: DataChangeRequest | InvalidResource | None = None
    proposed: Proposed | None = None
    may_finish: bool = False
    scratch: CloneSeen = field(default_factory=CloneSeen)
    ahead: tuple[DataChangeRequest, ...] = ()
    passages: tuple[Manifest, ...] = ()
    policies: tuple[Manifest, ...] = ()
    lacking: tuple[str, ...] = ()
    merged: MergeOutcome | EngineError | None = None
    authors: Authors = field(default_factory=Authors)
    checks: tuple[AssertionResult, ...] = ()
    check_jobs: CheckJobs = field(default_factory=CheckJobs)
    reviews: tuple[DataReview, ...] = ()
    listed: frozenset[str] = frozenset()
    unenforced: str | None = None
    final: MergeOutcome | EngineError | None = None
    fetched: bool = False
    landed: CommitInfo | None = None
    previewed: Proposed | None = None
    refused: KubeError | EngineError | None = None
    patching: PatchSeen | None = None

    def policy(self, wanted: Manifest) -> Manifest | None:
        """Return one of the passages as it is, or None while it is not there."""
        return next((found for found in self.policies if _place(found) == _place(wanted)), None)

    @property
    def strays(self) -> tuple[Manifest, ...]:
        """Return the passages that lead nowhere any more."""
        wanted = [_place(entry) for entry in self.passages]
        return tuple(found for found in self.policies if _place(found) not in wanted)

    @property
    def has_landed(self) -> bool:
        """Return whether what was to be published is in the target."""
        return self.landed is not None or (self.patching is not None and self.patching.landed is not None)

    @property
    def outcome(self) -> MergeOutcome | None:
        """Return the merge as it is reviewed, if it has been computed."""
        return self.merged if isinstance(self.merged, MergeOutcome) else None


def _place(policy: Manifest) -> tuple[str, str]:
    return policy["metadata"]["namespace"], policy["metadata"]["name"]
