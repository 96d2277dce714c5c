"""The contract every database engine fulfils.

An engine says, as data, how its server runs on a volume, how a raw copy is prepared, and what an app must know to
connect; only the ``async`` methods talk to a server. Nothing here knows Kubernetes: ``coppice.manifests`` turns a
``Workload`` into a Pod. A third party's engine is registered under the entry-point group ``coppice.engines`` and passes
the suite in ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, Protocol

DATA_PATH = "/var/lib/coppice/data"
"""Where every server finds its volume. It is owned by the engine's user."""

RUN_PATH = "/run/coppice"
"""An empty, writable directory of the Pod: HOME, sockets, generated configuration. Never on the volume."""

LOAD_PATH = "/coppice/load"
"""Where a store's initial load (a ConfigMap or claim) is mounted read-only, when there is one."""

REASON_PATH = "/dev/termination-log"
"""Where a script that fails says why, in one line without anything of rows: kubelet hands it on with the exit code."""

SOURCE_PATH = "/coppice/source"
"""Where the login to a mirror's source is mounted read-only, a file for each key of its Secret: ``host``, ``port``,
``username``, ``password``, ``database``, ``sslmode``, ``ca.crt``; those that the Secret lacks are not there."""

PATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "COPPICE_DATA": DATA_PATH,
        "COPPICE_RUN": RUN_PATH,
        "COPPICE_LOAD": LOAD_PATH,
        "COPPICE_REASON": REASON_PATH,
        "COPPICE_HOST": "0.0.0.0",  # noqa: S104 - in a Pod
    }
)
"""Part of every ``Workload.environment``, with ``COPPICE_PORT``: scripts know these names only, so that they also run
outside a container."""

OUT_OF_BYTES: Final = 122
"""With this code a server's ``script`` ends before the server starts if its volume takes no more bytes of its own (122
is Linux's EDQUOT): a new Pod finds room to start."""

TORN_COPY: Final = 75
"""With this code a preparation ends, before it has changed anything, on a copy that was taken in the middle of a write
and so does not open, though what it was taken of is whole (75 is EX_TEMPFAIL of ``sysexits.h``): the volume is captured
anew, and what was captured before is never used. A ``script`` of a server ends with it, too, and stays so."""

PUBLISH_ACTION: Final = "publish-changes"
"""The action that writes an approved change set to a live database, of an engine that has one (see
``coppice.engines.patching``): the only one that is ever done with the writer of a database that somebody else runs."""

CommitPolicy = Literal["Explicit", "PerTransaction"]


class EngineError(Exception):
    """The server answered, but not as it must; the message is fit for a condition and holds no row values."""


class UnreachableError(EngineError):
    """Nothing answered, or not in time: the server may still be starting."""


class LoginRefusedError(EngineError):
    """The server refused the credentials."""


class UnguardedError(EngineError):
    """A server that somebody else runs wants the password in a way that would give it away; it was not sent."""


class UnknownVersionError(EngineError):
    """There is no such branch, tag, commit or time in the database; the message names it and what exists."""


class UnderWayError(EngineError):
    """What was asked for takes longer than anybody waits for it, and goes on: ask for it again."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect and as whom.

    ``guarded``: the server is somebody else's, and may be an impostor's. The password is shown only to one that proves
    by TLS, with a certificate that a chain of ``ca`` (PEM) leads to, that it is the right one; to any other it is not
    sent in any form from which it could be had, but by trying: UnguardedError where that is asked for. ``ca`` alone
    demands TLS. The certificate's names are not looked at: the address is that of a Pod.
    """

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    guarded: bool = False
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class TlsFront:
    """How a proxy that takes TLS stands before a server: on which port, and what a URI begins with that leads there."""

    port: int
    scheme: str


@dataclass(frozen=True, slots=True)
class BranchState:
    """The exact state of one branch: its newest commit, and the hash of all that is visible on it (uncommitted too)."""

    database: str
    branch: str
    head: str
    working_root: str


def server_of(working_root: str) -> str | None:
    """Return what the server calls itself that a working root is of: an engine that is not versioned writes that before
    it, with a dash. None for the hash of an engine whose versions name the data by themselves.
    """
    server, dash, _ = working_root.partition("-")
    return server if dash else None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that whoever gets the data should know, for example tables that are empty in every copy.

    ``reason`` is one word in CamelCase, ``message`` names the things in question: never rows, never credentials.
    """

    reason: str
    message: str


LedgerTool = Literal["flyway", "liquibase", "alembic", "django", "rails"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a migration tool has written down in the database: versions in the order in which they were applied, and
    those that failed and were not put right.
    """

    tool: LedgerTool
    applied: tuple[str, ...]
    failed: tuple[str, ...] = ()

    @property
    def newest(self) -> str | None:
        """Return the version that was applied last, or None before there is one."""
        return self.applied[-1] if self.applied else None


@dataclass(frozen=True, slots=True)
class Content:
    """What a server or snapshot holds, by hashes.

    ``database`` is the one apps get by default, and ``default_branch`` the branch an app that names none works on
    there.
    ``truncated`` says that there are more branches than are listed. ``findings`` are a preparation's, and so is
    ``ledger``, with the newest versions alone, of the default database on its default branch.
    """

    engine_version: str
    database: str
    default_branch: str
    databases: tuple[str, ...]
    branches: tuple[BranchState, ...]
    truncated: bool = False
    findings: tuple[Finding, ...] = ()
    ledger: Ledger | None = None

    def state_of(self, branch: str) -> BranchState | None:
        """Return the state of a branch of the default database, or None."""
        for state in self.branches:
            if state.database == self.database and state.branch == branch:
                return state
        return None


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody asked for, in the words of ``spec.from``: exactly one is set. ``time`` is RFC 3339."""

    branch: str | None = None
    tag: str | None = None
    commit: str | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Tag:
    """A name that stays with a commit, and when it was given."""

    name: str
    commit: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One exact state of the default database, resolved.

    ``branch`` is the engine's branch a clone works on: the one asked for, or a new one (``coppice``) cut at ``head``
    for a tag, commit or time.
    ``working_root`` is the hash of the data itself; two equal ones are equal row by row.
    """

    database: str
    branch: str
    head: str
    working_root: str
    new_branch: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """How to run something on a volume mounted at ``DATA_PATH``: one container of the engine's image.

    ``script`` is run by ``/bin/sh -eu -c``; ``load_script`` runs before it, at every start, in a container of its own
    that also sees ``LOAD_PATH``.
    ``environment`` is plain and the same for all of them; ``secret_environment``, for ``script`` alone, maps a variable
    to a key of the server's Secret.
    ``remotes_port`` is where others fetch from the server, if they do.
    ``wait_script`` returns 0 as soon as the server listens: it waits by itself, costs next to nothing, and has no time
    limit of its own.
    """

    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)
    load_script: str | None = None
    wait_script: str | None = None
    port: int | None = None
    remotes_port: int | None = None


@dataclass(frozen=True, slots=True)
class StoreServer:
    """Inputs of a store's server.

    ``database`` is the name asked for, if any; ``fallback_database`` is made where the load made none.
    ``marker``: the volume is one that a mirror's refresh of this marker has filled; an empty or another one is refused.
    """

    database: str | None
    fallback_database: str
    commit_policy: CommitPolicy
    has_load: bool
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class CloneServer:
    """Inputs of a clone's server: the state it must come up with, and the marker its volume must carry.

    ``durable``: its volume is captured, then or while it runs, so that what it acknowledges must survive the loss of
    its node. Without it, what it has acknowledged is on its volume once it has ended and that was unmounted.
    """

    version: Version
    commit_policy: CommitPolicy
    marker: str
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Preparation:
    """Inputs of a preparation.

    ``marker`` (the DataSnapshot's UID) is written to the volume: the proof against an empty or foreign one.
    ``adopted``: the volume is of a server that somebody else ran, laid out in their way. ``directory``, a path from the
    volume's root, is where its data are; None: where there is one, and only one, that the engine knows for its own.
    ``rewrite``: the copy was prepared before, and a mask has run on it, under a ``clone_server`` of this marker that
    has been stopped since. What that server and the mask's login have left goes as what came with the source did; so
    does every trace of the rows that the mask has changed or removed: old row versions, logs, statistics with sample
    values, files of dropped tables. Like any preparation it may be begun again on what an interrupted one has left.
    ``origin``: the copy is of the volume of a clone, whose marker this is: one that bears another is refused. What the
    clone's server has left goes as what came with a source does, and the head is one that nothing else has: clones of
    one snapshot may have written as much as each other, and not the same.
    """

    marker: str
    database: str
    adopted: bool = False
    directory: str | None = None
    rewrite: bool = False
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class MirrorInputs:
    """Inputs of a mirror's refresh.

    ``marker`` (the claim's UID) is written to the volume, and is what the server of it is told to expect. ``jobs``
    tables are read and restored at the same time. ``expects_rows``: the copy that there is has some; a source that has
    none is taken for the wrong one.
    """

    marker: str
    jobs: int
    expects_rows: bool


@dataclass(frozen=True, slots=True)
class MirrorWorkloads:
    """How a new, empty volume becomes a copy of a database elsewhere: two programs, one after the other.

    ``dump`` has the login (``SOURCE_PATH``) and the network, and runs nothing of what it reads; ``restore``, which may,
    has neither. Both can be begun again at any time. Each prints lines of JSON, the last of which tells how it is:
    ``{"phase", "done", "total"}`` (tables) on its way, ``{"phase": "Done"}`` at the end, that of ``restore`` with
    ``at`` (RFC 3339: what was committed at the source before is in the copy), ``version`` (the source's), ``tables``,
    ``filled`` (those with rows), ``database`` and ``findings`` (``reason`` and ``message``); or ``{"failed",
    "detail"}`` with one of ``MirrorFailure`` and the names of things: no rows.
    """

    dump: Workload
    restore: Workload


MirrorFailure = Literal[
    "SourceUnreachable",
    "SourceRefusesLogin",
    "SourceNotGuarded",
    "SourceTooNew",
    "SourceEmpty",
    "SourceLocked",
    "ReadForbidden",
    "ExtensionsMissing",
    "VolumeFull",
    "DumpFailed",
    "RestoreFailed",
]


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened on a server.

    ``token`` changes when somebody else than Coppice used it; compare with the last one seen.

    An empty one says that nobody has since the server started: a restart alone is not use. ``connections`` are open
    ones, idle or not.
    """

    token: str
    connections: int


@dataclass(frozen=True, slots=True)
class TableLock:
    """A table that a transaction has locked against everybody, who only reads included; or, if it ``waits``, is about
    to lock, and who comes after it waits already.

    ``holder`` is one and the same for as long as the transaction lasts, and no other's. ``seen_at``: when it was seen,
    in seconds by the server's clock.
    """

    table: str
    holder: str
    seen_at: float
    waits: bool = False


class Engine(Protocol):
    """One database engine. The pure half describes, the ``async`` half does."""

    name: str
    versioned: bool
    """Whether the database keeps branches, tags and commits itself. One that does not has the one branch ``main``,
    whose head moves with every write, and its DataSnapshots are its history: it is asked for no tag, commit or time."""
    capture_action: str | None
    """What ``execute`` is to do before the volume is captured, each time; None for nothing."""
    maskable: bool
    """Whether a copy can be masked: ``preparation`` knows ``rewrite``, ``execute`` knows ``ensure-mask-user``, and
    ``tables`` answers. The history of one that is ``versioned`` holds rows as they were: ``rewrite`` leaves none of it,
    and no branch but the default one."""
    locking: bool
    """Whether statements lock whole tables against everybody: ``locks`` is asked every second of a migration."""
    port: int
    tls: TlsFront | None
    """For a server without TLS whose clients begin with it: a proxy can take it. None for any other: TLS within the
    engine's own protocol is none that a proxy could take."""
    binding_type: str
    """``type`` in the binding Secret, as servicebinding.io uses it: ``mysql`` for Dolt."""
    user_id: int
    """Numeric user the image's server runs as; it owns the files on the volume."""
    admin_user: str
    app_user: str

    def credentials(self, secret: Mapping[str, str]) -> Mapping[str, str]:
        """Return the whole content of a server's Secret: what it holds already, and random values for what it lacks.

        Keys: ``admin-password``, ``app-password``, and those of ``Workload.secret_environment``.
        """
        ...

    def store_server(self, inputs: StoreServer) -> Workload:
        """Return how a managed store runs."""
        ...

    def clone_server(self, inputs: CloneServer) -> Workload:
        """Return how a clone runs.

        Its own HOME and configuration, no outbound features, no listener before its own credentials are in force.
        """
        ...

    def preparation(self, inputs: Preparation) -> Workload:
        """Return the job that makes a raw copy safe to hand out; the last line it prints is its report."""
        ...

    def mirror(self, inputs: MirrorInputs) -> MirrorWorkloads | None:
        """Return how a new volume becomes a copy of a database elsewhere; None where the engine has no such way."""
        ...

    def report(self, last_line: str) -> Content:
        """Parse a preparation's report; raises EngineError when it is not one."""
        ...

    def binding(self, *, host: str, database: str, password: str, branch: str | None = None) -> Mapping[str, str]:
        """Return the binding Secret's keys: type, provider, host, port, username, password, database, uri.

        ``branch`` is the one that a clone's server was started for, None for a store's. Where its database does not
        open on that by itself, ``database`` and ``uri`` lead there.
        """
        ...

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        """Return what the server holds, proving that it reads: one real query per database.

        ``database`` is the default one if known. Raises UnreachableError, LoginRefusedError, EngineError.
        """
        ...

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        """Return the exact version a reference names now; raises UnknownVersionError."""
        ...

    async def tables(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return a token for each table of a database, by its name (with its schema, where there are schemas).

        Only one that is ``maskable`` is asked. A token is cheap and says nothing of the rows. Between two questions to
        a server that was not restarted it changes when rows were written, or the table was made anew or altered, by
        anybody whose session has ended; it stays when rows were only read, and when ``ensure-mask-user`` gave rights.
        Raises UnreachableError, LoginRefusedError, EngineError.
        """
        ...

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        """Return whether a commit is reachable from any of these heads."""
        ...

    async def tags(self, at: Endpoint, database: str, prefix: str) -> Sequence[Tag]:
        """Return the tags whose names begin so. It is no activity.

        Nothing where the engine is not ``versioned``.
        """
        ...

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        """Do one thing; safe to repeat.

        Actions every engine has, but those about branches and tags of one that is not ``versioned``:

        ``ensure-app-user`` (username, password, database): make the application's login, with all rights on the
        databases and none on the server, and prove it by logging in with it.
        ``commit-load`` (): make a version, "Initial load", of what an initial load wrote and made no version of;
        nothing where there is no such thing, or where the engine has no versions.
        The one that ``capture_action`` names (): make ready for a copy of the volume that is taken next, so that it
        starts fast; EngineError, naming it, for data that such a copy would lack.
        Of one that is ``maskable``: ``ensure-mask-user`` (username, password, database): make the login of a mask's
        program, which may change every row of every table, whatever triggers, row security or owners are in its way,
        and prove it by logging in with it. Asked for on a scratch copy alone, and gone after ``rewrite``.
        ``create-branch`` (database, branch, commit): make a branch; done already when it exists at that commit,
        EngineError when elsewhere.
        ``delete-branch`` (database, branch, head, keep): delete a branch if it still is at ``head``, which has the tag
        ``keep`` before, as of now; EngineError when elsewhere.
        ``delete-tag`` (database, tag): nothing where there is none.
        """
        ...

    async def activity(self, at: Endpoint) -> Activity:
        """Return what has been going on, Coppice's own sessions left out."""
        ...

    async def schema(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return what is defined in a database, on the branch that an app gets: by kind and name, a hash of the
        definition.

        A key is a word for the kind, a blank, and the name as an app would write it without quotes, with its schema
        where that is not the default one: ``table album``, ``view x``, ``function audit.stamp()``. Whatever an app can
        create, alter or drop there stands in the definition of exactly one key: columns, defaults, indexes, constraints
        and comments in that of their table. The engine's own catalogs and temporary objects are left out.
        Two values are equal if and only if the definitions are: neither rows nor what they move (counters, sequence
        positions, statistics), identifiers of the server, owners, or the order of creation change one, so that a copy
        of a volume says the same. The value is at least 12 hexadecimal digits; nothing of a definition can be read
        from it. It is no activity, and sees one moment.
        """
        ...

    async def ledger(self, at: Endpoint, database: str) -> Ledger | None:
        """Return what a migration tool has written down in the database, or None where none has
        (``coppice.engines.ledgers`` knows the tools). It is no activity.
        """
        ...

    async def locks(self, at: Endpoint, database: str) -> Sequence[TableLock]:
        """Return the tables of a database that others' transactions have locked against everybody at this moment, by
        their names as ``schema`` has them; one that nobody else can see yet is none. It is no activity.

        Nothing where the engine is not ``locking``.
        """
        ...
