"""A versioned database in memory: what the reconcilers' promises are checked against.

A ``Volume`` is what stands on a claim: it is copied as a storage driver copies bytes, passwords, remotes and all. A
``Server`` serves one at an address. The engine's workloads say what to run as JSON instead of a shell script, so that
the world (``tests/fakes/world.py``) can run them.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from coppice.engines.base import (
    Activity,
    BranchState,
    CloneServer,
    Content,
    Endpoint,
    EngineError,
    Ledger,
    LoginRefusedError,
    MirrorInputs,
    MirrorWorkloads,
    Preparation,
    Reference,
    StoreServer,
    TableLock,
    Tag,
    TlsFront,
    UnguardedError,
    UnknownVersionError,
    UnreachableError,
    Version,
    Workload,
)

MAIN = "main"
CUT = "coppice"
ADMIN = "root"
APP = "app"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


def table_of(row: str) -> str:
    """Return the table of a row: what stands before a slash."""
    return row.partition("/")[0] if "/" in row else "rows"


def masked(row: str) -> str:
    return row if is_masked(row) else f"{table_of(row)}/masked-{_hash(row)[:8]}"


def is_masked(row: str) -> bool:
    return "/masked-" in row


@dataclass(frozen=True)
class Commit:
    """One state of all rows, and where it came from."""

    parent: str | None
    rows: frozenset[str]
    at: datetime
    other: str | None = None
    """What was merged into the parent, if it is a merge."""
    author: str = "root <root@localhost>"
    message: str = ""


@dataclass
class Branch:
    """A branch: its newest commit and the rows that an app sees, committed or not."""

    head: str
    rows: frozenset[str]

    @property
    def working_root(self) -> str:
        return _hash("rows", *sorted(self.rows))


@dataclass
class Volume:
    """The bytes on a claim; an empty one has no database."""

    database: str = ""
    server: str = ""
    """What the server calls itself whose data these are, where the engine knows."""
    marker: str = ""
    default_branch: str = MAIN
    branches: dict[str, Branch] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tagged_at: dict[str, datetime] = field(default_factory=dict)
    """When, for those that the engine itself has made."""
    users: dict[str, str] = field(default_factory=dict)
    remotes: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)
    """Commits that a clone may fetch."""
    dead: set[str] = field(default_factory=set)
    """Rows as they were, which no query shows and whoever reads the bytes finds."""
    cloned: bool = False
    layout: str = "managed"
    """``managed``, or the directory in which somebody else's server has its data."""
    owner: int = 999
    """The user whose files they are: nobody else can read them."""
    dumped: frozenset[str] | None = None
    """The rows of a dump that lies on it."""
    mask_run: str = ""
    """How far a program came that masks it: ``begun``, or ``ended``."""
    protected: tuple[str, ...] = ()
    """Branches that apps do not write to."""
    transactions: dict[str, str] = field(default_factory=dict)
    """What became of those that were to be committed, by their names."""
    put_in_order: tuple[str, ...] = ()
    """The parts that were, each as often as it was."""
    torn: bool = False
    """It was captured while a server held back what it had acknowledged."""
    halved: bool = False
    """It was captured in the middle of a write, and does not open."""

    @property
    def empty(self) -> bool:
        return not self.database

    def copy(self) -> Volume:
        """Return the same bytes on another device."""
        branches = {name: replace(branch) for name, branch in self.branches.items()}
        parts = {
            "commits": dict(self.commits),
            "tags": dict(self.tags),
            "tagged_at": dict(self.tagged_at),
            "users": dict(self.users),
            "transactions": dict(self.transactions),
        }
        sets = {"remotes": set(self.remotes), "offered": set(self.offered), "dead": set(self.dead)}
        return replace(self, branches=branches, **sets, **parts)

    def initialise(self, database: str, rows: frozenset[str], at: datetime) -> None:
        self.database, self.marker = database, "store"
        first = self._add(None, rows, at)
        self.branches = {MAIN: Branch(first, rows)}

    def write(self, branch: str, *rows: str) -> None:
        """Change rows without a commit."""
        self.branches[branch].rows |= set(rows)

    def commit(self, branch: str, *rows: str, at: datetime) -> str:
        found = self.branches[branch]
        self.write(branch, *rows)
        found.head = self._add(found.head, found.rows, at)
        return found.head

    def _add(self, parent: str | None, rows: frozenset[str], at: datetime) -> str:
        name = _hash("commit", parent or "", *sorted(rows))
        self.commits[name] = Commit(parent, rows, at)
        return name

    def mask(self, branch: str, *tables: str, count: int | None = None) -> None:
        """Change the rows of some tables, of all if none is named, or of them only the first ones."""
        chosen = sorted(row for row in self.branches[branch].rows if not tables or table_of(row) in tables)[:count]
        self.dead |= {row for row in chosen if not is_masked(row)}
        self.branches[branch].rows = (self.branches[branch].rows - set(chosen)) | {masked(row) for row in chosen}

    def rewrite(self) -> None:
        """Forget what was: the default branch, on which the mask was, begins anew with the rows that it has."""
        last = max(commit.at for commit in self.commits.values())
        self.dead, self.commits, self.tags = set(), {}, {}
        only = self.branches[self.default_branch]
        only.head = self._add(None, only.rows, last)
        self.branches = {self.default_branch: only}

    @property
    def old_rows(self) -> frozenset[str]:
        """Every row that is in the bytes but on no branch."""
        there = frozenset[str]().union(*(branch.rows for branch in self.branches.values()))
        return frozenset(self.dead).union(*(commit.rows for commit in self.commits.values())) - there

    def ancestors(self, head: str) -> list[str]:
        """Return a commit and all that it comes from, nearest first."""
        found = dict.fromkeys([head] if head in self.commits else [])
        todo = deque(found)
        while todo:
            commit = self.commits[todo.popleft()]
            new = [name for name in (commit.parent, commit.other) if name is not None and name not in found]
            found |= dict.fromkeys(new)
            todo.extend(new)
        return list(found)

    def states(self) -> tuple[BranchState, ...]:
        server = f"{self.server}-" if self.server else ""
        return tuple(
            BranchState(self.database, name, branch.head, f"{server}{branch.working_root}")
            for name, branch in sorted(self.branches.items())
        )

    def definitions(self) -> dict[str, str]:
        """Return what rows like ``table album: id, title`` define, if no row ``drop table album`` takes it away."""
        rows = self.branches[self.default_branch].rows
        parts = [row.partition(": ") for row in sorted(rows) if row.startswith(("table ", "view "))]
        found: dict[str, str] = {}
        for name, _, definition in parts:
            if f"drop {name}" not in rows:
                found[name] = _hash(found.get(name, ""), definition)
        return found

    def ledger(self) -> Ledger | None:
        """Return what rows like ``flyway 3`` have written down."""
        rows = sorted(self.branches[self.default_branch].rows)
        versions = tuple(row.removeprefix("flyway ") for row in rows if row.startswith("flyway "))
        return Ledger("flyway", versions) if versions else None

    def content(self) -> Content:
        return Content("1.0.0-fake", self.database, self.default_branch, (self.database,), self.states())


@dataclass
class Server:
    """A running server. ``fault``, if set, is what everybody who asks it gets."""

    volume: Volume
    pod_uid: str
    listening: bool = False
    uses: int = 0
    fault: Exception | None = None
    wants_clear: bool = False
    """It asks for the password itself, as an impostor would."""
    durable: bool = True
    """What it has acknowledged is on its volume."""
    remote_password: str = ""
    """With what it fetches from others."""


class FakeEngine:
    """See ``coppice.engines.base.Engine``; ``servers`` is the network: what listens at which address."""

    name = "fake"
    tls: TlsFront | None = None
    versioned = True
    capture_action: str | None = None
    maskable = False
    locking = False
    passwords: tuple[str, ...] = ("app-password",)
    """What its servers know besides the administrator's."""
    mirrors = True
    """Whether it has a way to mirror."""
    remotes_port: int | None = None
    port = 3306
    binding_type = "mysql"
    user_id = 999
    admin_user = ADMIN
    app_user = APP

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.named: Callable[[str], Server | None] = lambda host: None
        """Which server answers under the name of a Service."""
        self.refused: dict[str, EngineError] = {}
        """By action: what ``execute`` raises instead of doing it."""
        self.before_call: Callable[[str], None] = lambda action: None
        self.after_call: Callable[[str], None] = lambda action: None
        self.between: Callable[[str], None] = lambda done: None
        """Called in the middle of an action, with what is done of it."""
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.calls: list[str] = []
        self.logins: list[Endpoint] = []
        """As whom anybody asked a server anything."""
        self.locked: Callable[[], Sequence[TableLock]] = tuple
        """What somebody has locked now."""
        self.asked = 0
        """How often anybody asked a server anything."""
        self._passwords = 0

    # -- the pure half --

    def credentials(self, secret: Mapping[str, str]) -> Mapping[str, str]:
        self._passwords += 1
        return {
            key: secret.get(key) or f"password-{key}-{self._passwords}" for key in ("admin-password", *self.passwords)
        }

    def store_server(self, inputs: StoreServer) -> Workload:
        return self._server(
            {
                "run": "store",
                "database": inputs.database or inputs.fallback_database,
                "policy": inputs.commit_policy,
                "load": inputs.has_load,
                "marker": inputs.marker,
            },
            load_script=json.dumps({"run": "load"}) if inputs.has_load else None,
        )

    def clone_server(self, inputs: CloneServer) -> Workload:
        version = inputs.version
        return self._server(
            {
                "run": "clone",
                "marker": inputs.marker,
                "database": version.database,
                "branch": version.branch,
                "head": version.head,
                "cut": version.new_branch,
                "policy": inputs.commit_policy,
                "durable": inputs.durable,
            }
        )

    def preparation(self, inputs: Preparation) -> Workload:
        script = {
            "run": "prepare",
            "marker": inputs.marker,
            "database": inputs.database,
            "adopted": inputs.adopted,
            "directory": inputs.directory,
            "rewrite": inputs.rewrite,
            "origin": inputs.origin,
        }
        return Workload(script=json.dumps(script))

    def mirror(self, inputs: MirrorInputs) -> MirrorWorkloads | None:
        if not self.mirrors:
            return None
        script = {"marker": inputs.marker, "jobs": inputs.jobs, "expects": inputs.expects_rows}
        dump, restore = ({"run": program, **script} for program in ("dump", "restore"))
        return MirrorWorkloads(Workload(script=json.dumps(dump)), Workload(script=json.dumps(restore)))

    def report(self, last_line: str) -> Content:
        try:
            data = json.loads(last_line)
            return Content(
                data["version"],
                data["database"],
                data["default"],
                (data["database"],),
                tuple(BranchState(*entry) for entry in data["branches"]),
                ledger=None if data["ledger"] is None else Ledger("flyway", tuple(data["ledger"])),
            )
        except (ValueError, KeyError, TypeError):
            raise EngineError("the preparation did not end with a report") from None

    def binding(self, *, host: str, database: str, password: str, branch: str | None = None) -> Mapping[str, str]:
        del branch
        return {
            "type": self.binding_type,
            "provider": self.name,
            "host": host,
            "port": str(self.port),
            "username": APP,
            "password": password,
            "database": database,
            "uri": f"mysql://{APP}:{password}@{host}:{self.port}/{database}",
        }

    def _server(self, script: Mapping[str, object], load_script: str | None = None) -> Workload:
        return Workload(
            script=json.dumps(script),
            secret_environment={
                "ADMIN_PASSWORD": "admin-password",
                **({"REMOTE_PASSWORD": "remote-password"} if "remote-password" in self.passwords else {}),
            },
            load_script=load_script,
            wait_script="wait",
            port=self.port,
            remotes_port=self.remotes_port,
        )

    # -- the half that talks --

    def _enter(self, at: Endpoint) -> Server:
        self.asked += 1
        server = self.servers.get(at.host) or self.named(at.host)
        if server is None or not server.listening:
            raise UnreachableError(f"nothing answers at {at.host}:{at.port}")
        self.logins.append(at)
        if server.fault is not None:
            raise server.fault
        if at.guarded and server.wants_clear:
            raise UnguardedError("the server asks for the password in clear")
        if server.volume.users.get(at.username) != at.password:
            raise LoginRefusedError(f"the server at {at.host} refuses the login {at.username}")
        return server

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        volume = self._enter(at).volume
        if database is not None and database != volume.database:
            raise EngineError(f"the server holds no database {database}, but {volume.database}")
        return volume.content()

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        volume = self._enter(at).volume
        if reference.branch is not None:
            branch = volume.branches.get(reference.branch)
            if branch is None:
                known = ", ".join(sorted(volume.branches))
                raise UnknownVersionError(f"there is no branch {reference.branch} in {database}; there is {known}")
            return Version(database, reference.branch, branch.head, branch.working_root)
        commit = self._commit(volume, reference)
        return Version(database, CUT, commit, Branch(commit, volume.commits[commit].rows).working_root, new_branch=True)

    @staticmethod
    def _commit(volume: Volume, reference: Reference) -> str:
        if reference.tag is not None:
            found = volume.tags.get(reference.tag)
        elif reference.commit is not None:
            found = reference.commit if reference.commit in volume.commits else None
        else:
            wanted = datetime.fromisoformat(reference.time or "").astimezone(UTC)
            line = volume.ancestors(volume.branches[volume.default_branch].head)
            found = next((name for name in line if volume.commits[name].at <= wanted), None)
        if found is None:
            raise UnknownVersionError(f"there is no {reference} in {volume.database}")
        return found

    async def tables(self, at: Endpoint, database: str) -> Mapping[str, str]:
        volume = self._enter(at).volume
        rows = sorted(volume.branches[volume.default_branch].rows)
        return {
            table: _hash(*(row for row in rows if table_of(row) == table)) for table in {table_of(row) for row in rows}
        }

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        volume = self._enter(at).volume
        return any(commit in volume.ancestors(head) for head in heads)

    async def tags(self, at: Endpoint, database: str, prefix: str) -> Sequence[Tag]:
        volume = self._enter(at).volume
        return [
            Tag(name, commit, volume.tagged_at.get(name) or volume.commits[commit].at)
            for name, commit in sorted(volume.tags.items())
            if name.startswith(prefix)
        ]

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        self.before_call(action)
        volume = self._enter(at).volume
        self.calls.append(action)
        if action in self.refused:
            raise self.refused[action]
        match action:
            case "ensure-app-user" | "ensure-mask-user":
                volume.users[arguments["username"]] = arguments["password"]
            case "flush":
                pass
            case "commit-load":
                self._commit_load(volume)
            case "create-branch":
                self._create_branch(volume, arguments["branch"], arguments["commit"])
            case "delete-branch":
                self._delete_branch(volume, arguments["branch"], arguments["head"], arguments["keep"])
            case "delete-tag":
                volume.tags.pop(arguments["tag"], None)
            case "protect":
                volume.protected = tuple(json.loads(arguments["branches"]))
            case _:
                raise EngineError(f"no action {action}")
        self.after_call(action)

    @staticmethod
    def _commit_load(volume: Volume) -> None:
        branch = volume.branches[volume.default_branch]
        last = volume.commits[branch.head]
        if branch.rows != last.rows:
            volume.commit(volume.default_branch, at=last.at)

    @staticmethod
    def _create_branch(volume: Volume, name: str, commit: str) -> None:
        there = volume.branches.get(name)
        if there is None:
            volume.branches[name] = Branch(commit, volume.commits[commit].rows)
        elif there.head != commit:
            raise EngineError(f"the branch {name} is at {there.head}, not at {commit}")

    def _delete_branch(self, volume: Volume, name: str, head: str, keep: str) -> None:
        there = volume.branches.get(name)
        if there is None:
            return
        if there.head != head:
            raise EngineError(f"the branch {name} has moved from {head} to {there.head}: it is kept")
        volume.tags[keep], volume.tagged_at[keep] = head, self.clock()
        self.between("tag")
        del volume.branches[name]

    async def activity(self, at: Endpoint) -> Activity:
        server = self._enter(at)
        return Activity(token=str(server.uses or ""), connections=0)

    async def schema(self, at: Endpoint, database: str) -> Mapping[str, str]:
        return self._enter(at).volume.definitions()

    async def ledger(self, at: Endpoint, database: str) -> Ledger | None:
        return self._enter(at).volume.ledger()

    async def locks(self, at: Endpoint, database: str) -> Sequence[TableLock]:
        self._enter(at)
        return self.locked()
