# ruff: noqa: S608 - every name in a statement is quoted by identifier(), every value is bound or quoted by literal()
"""Dolt: a MySQL-compatible database with branches, commits and merges.

Facts this rests on, each with a test in ``tests/contract`` or ``tests/unit/engines``:

- A volume holds ``dolt/`` with ``databases`` (Dolt's data directory), ``users`` (privileges and branch control),
  ``marker`` (``store``, or the UID of the snapshot it was prepared for) and, in a clone, ``clone`` (its first start is
  done).
- Dolt makes its administrator from ``DOLT_ROOT_PASSWORD`` and ``DOLT_ROOT_HOST`` before it listens, and only when there
  are no users yet.
- An SQL commit is not a Dolt commit: what is visible on a branch is its working root (``dolt_hashof_db()``), not its
  head.
- Every transaction that begins in a database is recorded as a use of the branch (``dolt_branch_activity``), one that
  begins in none is not. All that Coppice asks is therefore asked in a transaction begun before any ``USE``: it is
  consistent, and leaves no trace in ``activity``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from coppice.engines import doltassertions, doltchanges, doltmerge, doltrefs, mysql
from coppice.engines.base import (
    PATHS,
    Activity,
    BranchState,
    CloneServer,
    CommitPolicy,
    Content,
    Endpoint,
    EngineError,
    Ledger,
    MirrorInputs,
    Preparation,
    Reference,
    StoreServer,
    TableLock,
    Tag,
    TlsFront,
    Version,
    Workload,
)
from coppice.engines.credentials import binding_values, completed
from coppice.engines.doltactions import LONG_ACTIONS, perform
from coppice.engines.doltprotection import grants
from coppice.engines.doltrefs import (
    commit_of_prefix,
    commit_of_tag,
    commit_of_time,
    resolve_branch,
    state_statements,
    transaction,
    use,
    user_databases,
    version_of_commit,
)
from coppice.engines.ledgers import LOOKUPS, find_ledger, read_report
from coppice.engines.merging import (
    Assertion,
    AssertionResult,
    Authors,
    ChangeSet,
    CommitInfo,
    Conflict,
    MergeInputs,
    MergeOutcome,
    RowChange,
)
from coppice.engines.mysql import Session, identified, identifier, literal
from coppice.engines.shell import script

MAX_BRANCHES: Final = 500
"""How many branches of a database are listed with their state, the default one first; ``scripts/prepare.sh`` asks for
one more, to know whether there are."""

LEDGER_MARK: Final = "/* ledger, */ "
"""What a statement begins with that ``scripts/prepare.sh`` runs by itself, for it may fail. The comma has Dolt quote
the line."""

_COUNTER: Final = re.compile(r" AUTO_INCREMENT=\d+(?=[^\n]*\Z)")
"""The next value of a counter, in the last line of a table's definition."""
_BRANCH_PREFIX: Final = "refs/heads/"

_CLI_CONFIG: Final[Mapping[str, str]] = MappingProxyType(
    {
        "metrics.disabled": "true",
        "versioncheck.disabled": "true",
        "user.name": "coppice",
        "user.email": "coppice@localhost",
    }
)
_CLONE_CLI_CONFIG: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_CLI_CONFIG,
        # A clone keeps the snapshot's column statistics. Collecting them takes 1 % of a core and writes for ever, also
        # in a clone that nobody uses. Only this file can pause it: Dolt overrules its configuration at the start.
        "sqlserver.global.dolt_stats_paused": "1",
    }
)


class DoltEngine:
    """The Dolt engine: see ``coppice.engines.base.Engine`` for the meaning of every method."""

    name = "dolt"
    versioned = True
    capture_action: str | None = None
    maskable = False
    locking = False
    port = 3306
    tls: TlsFront | None = None
    remotes_port = 3307
    protects = True
    """Always the one after the port for SQL: the scripts count on it, and so does who dials."""
    binding_type = "mysql"
    user_id = 999
    admin_user = "root"
    app_user = "app"

    def credentials(self, secret: Mapping[str, str]) -> Mapping[str, str]:
        """Return the Secret's content, completed with random passwords (192 bits, safe in a URL)."""
        return completed(secret, "remote-password")

    def store_server(self, inputs: StoreServer) -> Workload:
        """Return how a managed store runs; its first boot loads, or makes an empty database."""
        environment = {
            "COPPICE_DATABASE": inputs.database or "",
            "COPPICE_FALLBACK_DATABASE": inputs.fallback_database,
            "COPPICE_HAS_LOAD": "yes" if inputs.has_load else "",
        }
        return self._server(
            script("volume", "common", "init", "serve", "store"),
            environment,
            _server_config(inputs.commit_policy, clone=False),
            load_script=script("volume", "common", "init", "load") if inputs.has_load else None,
        )

    def clone_server(self, inputs: CloneServer) -> Workload:
        """Return how a clone runs: its first start makes the wanted branch the default one, cut if new."""
        version = inputs.version
        environment = {
            "COPPICE_MARKER": inputs.marker,
            "COPPICE_DATABASE": version.database,
            "COPPICE_CUT": _cut(version) if version.new_branch else "",
            "COPPICE_REPO_STATE": _repo_state(version.branch),
        }
        config = _server_config(inputs.commit_policy, clone=True)
        workload = self._server(script("volume", "common", "serve", "clone"), environment, config)
        settings = json.dumps(dict(_CLONE_CLI_CONFIG))
        return replace(workload, environment={**workload.environment, "COPPICE_CLI_CONFIG": settings})

    def preparation(self, inputs: Preparation) -> Workload:
        """Return the job that strips a raw copy of users, remotes, backups and settings, and opens every database."""
        environment = {
            "COPPICE_MARKER": inputs.marker,
            "COPPICE_DATABASE": inputs.database,
            "COPPICE_LEDGER_SQL": _LEDGER_STATEMENTS,
        }
        if not inputs.adopted:
            return Workload(script=script("volume", "common", "prepare"), environment=self._environment(**environment))
        return Workload(
            script=script("volume", "common", "adopt", "prepare"),
            environment=self._environment(COPPICE_DIRECTORY=inputs.directory or "", **environment),
        )

    def mirror(self, inputs: MirrorInputs) -> None:
        """Return that there is no way: a dump of rows would not hold branches and commits."""
        del inputs

    def report(self, last_line: str) -> Content:
        """Parse what ``scripts/prepare.sh`` prints.

        Rows of {v: version, m: default database}, {d, c: current branch} and {d, b: branch, h: head, w: working root};
        where there is a ledger, {t: tool} and its rows come last.
        """
        try:
            rows: list[dict[str, Any]] = json.loads(last_line)["rows"]
            version = next(str(row["v"]) for row in rows if "v" in row)
            database = next(str(row["m"]) for row in rows if "m" in row)
            current = {str(row["d"]): str(row["c"]) for row in rows if "c" in row}
            states = [_state(row["d"], row["b"], row["h"], row["w"]) for row in rows if "w" in row]
            return replace(_content(version, database, current, states), ledger=_reported_ledger(rows))
        except (ValueError, KeyError, TypeError, StopIteration):
            raise EngineError("the preparation did not end with a report: see its log") from None

    def binding(self, *, host: str, database: str, password: str, branch: str | None = None) -> Mapping[str, str]:
        """Return what the application's login needs; the database opens on the right branch by itself."""
        del branch
        app = Endpoint(host, self.port, self.app_user, password)
        return binding_values(self.binding_type, self.name, app, database)

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        """Return what the server holds: three round trips after the login, all in one transaction."""
        async with transaction(at) as session:
            [((version,),), databases] = await session.ask("SELECT dolt_version(); SHOW DATABASES")
            names = user_databases(databases)
            default = _default_database(names, database)
            listed = await session.ask("; ".join(_list_statements(names)))
            current: dict[str, str] = {}
            statements: list[str] = []
            for name, ((branch,),), branches, keys, tables in zip(
                names, listed[0::4], listed[1::4], listed[2::4], listed[3::4], strict=True
            ):
                current[name] = branch
                statements.extend(_first_rows(name, keys, tables))
                statements.extend(state_statements(name, (row[0] for row in branches)))
            answers = await session.ask("; ".join(statements))
        states = [_state(*answer[0]) for answer in answers if answer and len(answer[0]) == 4]
        return _content(version, default, current, states)

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        """Return the exact version a reference names.

        A commit is its whole hash or a prefix of at least 7 characters that names only one. A time names the newest
        commit that was the head of the default branch by then: the branch is followed by its first parents, as what was
        merged in later was not on it at that time.
        """
        async with transaction(at) as session:
            await use(session, database)
            if reference.branch is not None:
                return await resolve_branch(session, database, reference.branch)
            if reference.tag is not None:
                commit = await commit_of_tag(session, database, reference.tag)
            elif reference.commit is not None:
                commit = await commit_of_prefix(session, database, reference.commit)
            elif reference.time is not None:
                commit = await commit_of_time(session, database, reference.time)
            else:
                raise ValueError("a reference names a branch, tag, commit or time")
        async with transaction(at) as session:
            return await version_of_commit(session, database, commit)

    async def tables(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Refuse: the history of a copy holds the rows as they were, so that none is ever masked."""
        del at
        raise EngineError(f"the database {database} cannot be masked: Dolt keeps what rows were")

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        """Return whether a commit is one of these heads or an ancestor of one; an unknown commit is neither."""
        if commit in heads:
            return True
        async with transaction(at) as session:
            await use(session, database)
            asked = [commit, *heads]
            places = ", ".join(["%s"] * len(asked))
            [found] = await session.ask(f"SELECT commit_hash FROM dolt_commits WHERE commit_hash IN ({places})", asked)
            known = {row[0] for row in found}
            candidates = [head for head in heads if head in known]
            if commit not in known or not candidates:
                return False
            bases = ", ".join(f"dolt_merge_base({literal(head)}, {literal(commit)})" for head in candidates)
            [(row,)] = await session.ask(f"SELECT {bases}")
            return commit in row

    async def tags(self, at: Endpoint, database: str, prefix: str) -> Sequence[Tag]:
        """Return the tags whose names begin so."""
        async with transaction(at) as session:
            return await doltrefs.tags(session, database, prefix)

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        """Do one of the actions that every engine has; raises EngineError for one that it has not."""
        if action == "ensure-app-user":
            app = Endpoint(at.host, at.port, arguments["username"], arguments["password"])
            await _ensure_app_user(at, app, arguments["database"])
            return
        async with mysql.work_session(at) if action in LONG_ACTIONS else mysql.session(at) as session:
            if action == "commit-load":
                await _commit_load(session)
            elif not await perform(session, at, action, arguments, self.remotes_port):
                raise EngineError(f"the engine {self.name} has no action {action}")

    async def log(self, at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
        """Return commits from a version backwards."""
        return await doltchanges.log(at, database, start, limit=limit)

    async def authors_between(self, at: Endpoint, database: str, base: str, head: str) -> Authors:
        """Return who made the commits that ``head`` has and ``base`` has not."""
        return await doltchanges.authors_between(at, database, base, head)

    async def merge_base(self, at: Endpoint, database: str, one: str, other: str) -> str | None:
        """Return the newest commit that two versions share."""
        return await doltchanges.merge_base(at, database, one, other)

    async def changes(self, at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
        """Return how two versions differ, by Dolt's own walk over what does."""
        return await doltchanges.changes(at, database, before, after)

    def rows(
        self, at: Endpoint, database: str, before: str, after: str, table: str | None = None
    ) -> AsyncGenerator[RowChange, None]:
        """Hand out the rows that differ."""
        return doltchanges.rows(at, database, before, after, table)

    async def merge(self, at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
        """Merge two commits; the result stays on a branch that is named by a hash of the inputs."""
        return await doltmerge.merge(at, inputs)

    def conflicts(self, at: Endpoint, inputs: MergeInputs) -> AsyncGenerator[Conflict, None]:
        """Hand out the conflicts of a merge, made for that alone on a branch that goes again."""
        return doltmerge.conflicts(at, inputs)

    def check_binding(self, *, host: str, database: str, commit: str, password: str) -> Mapping[str, str]:
        """Return what reads a commit: as a database it is ``database/commit``, which nobody can write to."""
        reader = Endpoint(host, self.port, doltassertions.PROGRAM_USER, password)
        return binding_values(self.binding_type, self.name, reader, f"{database}/{commit}")

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        """Ask checks of a commit, by a login that may read and nothing else."""
        return await doltassertions.assertions(at, database, commit, checks)

    async def activity(self, at: Endpoint) -> Activity:
        """Return when others last began a transaction, by the server's clock; now while one of them runs a statement.

        Idle connections and the MySQL protocol's ping begin none; a pool that tests its connections with a statement
        does. What reads without a current database is seen while it runs only.
        """
        async with transaction(at) as session:
            databases, sessions = await session.ask("SHOW DATABASES; SHOW FULL PROCESSLIST")
            others = [row for row in sessions if row[1] not in {self.admin_user, "unauthenticated user"}]
            answers = await session.ask(
                "; ".join(
                    f"USE {identifier(name)}; SELECT MAX(last_read), MAX(last_write), NOW(6) FROM dolt_branch_activity"
                    for name in user_databases(databases)
                )
            )
        times = [time for ((*used, _),) in answers for time in used if time is not None]
        if any(row[4] == "Query" for row in others):
            times.append(answers[0][0][2])
        return Activity(token=str(max(times)) if times else "", connections=len(others))

    async def schema(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return the definitions of tables, views, triggers, events and procedures, each by its hash."""
        async with transaction(at) as session:
            await use(session, database)
            tables, fragments, procedures = await session.ask(
                "SELECT table_name FROM information_schema.tables"
                " WHERE table_schema = database() AND table_type = 'BASE TABLE';"
                " SELECT type, name, fragment FROM dolt_schemas;"
                " SELECT name, create_stmt FROM dolt_procedures"
            )
            names = [name for (name,) in tables]
            statements = "; ".join(f"SHOW CREATE TABLE {identifier(name)}" for name in names)
            shown = await session.ask(statements) if names else []
        found = {f"table {name}": _COUNTER.sub("", row[1]) for name, (row,) in zip(names, shown, strict=True)}
        found |= {f"{kind} {name}": fragment for kind, name, fragment in fragments}
        found |= {f"procedure {name}": statement for name, statement in procedures}
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in found.items()}

    async def ledger(self, at: Endpoint, database: str) -> Ledger | None:
        """Return what a migration tool has written down on the default branch."""
        async with transaction(at) as session:
            await use(session, database)
            [tables] = await session.ask(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = database()"
            )
            found = find_ledger(name for (name,) in tables)
            if found is None:
                return None
            [rows] = await session.ask(found.statement(identifier(found.table)))
            return found.read(rows)

    async def locks(self, at: Endpoint, database: str) -> Sequence[TableLock]:
        """Return nothing: Dolt locks no tables, and who changes one is in no reader's way."""
        del at, database
        return ()

    def _server(
        self, program: str, environment: Mapping[str, str], config: str, *, load_script: str | None = None
    ) -> Workload:
        return Workload(
            script=program,
            environment=self._environment(COPPICE_SERVER_CONFIG=config, DOLT_ROOT_HOST="%", **environment),
            secret_environment={"DOLT_ROOT_PASSWORD": "admin-password", "DOLT_REMOTE_PASSWORD": "remote-password"},
            load_script=load_script,
            wait_script=script("wait"),
            port=self.port,
            remotes_port=self.remotes_port,
        )

    def _environment(self, **more: str) -> Mapping[str, str]:
        return {**PATHS, "COPPICE_PORT": str(self.port), "COPPICE_CLI_CONFIG": json.dumps(dict(_CLI_CONFIG)), **more}


def _server_config(commit_policy: CommitPolicy, *, clone: bool) -> str:
    """Return the configuration file; Dolt replaces ``${...}`` by the environment: nothing of a user's may stand in it.

    Without ``secure_file_priv`` Dolt lets every user read and write the server's files: the administrator's password in
    ``/proc/self/environ``, for one. A clone runs no events, and collects no garbage: that would rewrite, and so
    unshare, the bytes it has from the snapshot. Others may fetch from any server, if they have a login for it, and it
    pushes to itself (``doltremotes``).
    """
    per_transaction = "true" if commit_policy == "PerTransaction" else "false"
    return f"""\
log_level: warning
behavior:
  autocommit: true
  dolt_transaction_commit: {per_transaction}
  event_scheduler: "{"OFF" if clone else "ON"}"
  auto_gc_behavior:
    enable: {"false" if clone else "true"}
  branch_activity_tracking: true
listener:
  host: "${{COPPICE_HOST}}"
  port: ${{COPPICE_PORT}}
  socket: "${{COPPICE_RUN}}/mysql.sock"
remotesapi:
  port: ${{COPPICE_REMOTES_PORT}}
data_dir: "${{COPPICE_DATA}}/dolt/databases"
cfg_dir: "${{COPPICE_DATA}}/dolt/users"
privilege_file: "${{COPPICE_DATA}}/dolt/users/privileges.db"
branch_control_file: "${{COPPICE_DATA}}/dolt/users/branch_control.db"
system_variables:
  secure_file_priv: "${{COPPICE_RUN}}/no-such-directory"
"""


def _repo_state(branch: str) -> str:
    """Return Dolt's file that names the branch a database opens on, without remotes (``env.RepoState``)."""
    return json.dumps({"head": _BRANCH_PREFIX + branch, "remotes": {}, "backups": {}, "branches": {}}, indent=2)


def _cut(version: Version) -> str:
    """Return what cuts a clone's own branch; forced, as a crash may have come before the note that it is done."""
    branch, head = literal(version.branch), literal(version.head)
    return f"USE {identifier(version.database)}; CALL dolt_branch('-f', {branch}, {head});"


def _state(qualified: str, branch: str, head: str, working_root: str) -> BranchState:
    """Return a state; ``qualified`` is what ``database()`` says in a branch: ``database/branch``."""
    return BranchState(qualified.partition("/")[0], branch, head, working_root)


def _content(version: str, database: str, current: Mapping[str, str], states: Iterable[BranchState]) -> Content:
    """Return at most MAX_BRANCHES states of each database, and say whether there are more."""
    kept: list[BranchState] = []
    counts = dict.fromkeys(current, 0)
    for state in states:
        counts[state.database] += 1
        if counts[state.database] <= MAX_BRANCHES:
            kept.append(state)
    return Content(
        engine_version=version,
        database=database,
        default_branch=current[database],
        databases=tuple(sorted(current)),
        branches=tuple(sorted(kept, key=lambda state: (state.database, state.branch))),
        truncated=max(counts.values()) > MAX_BRANCHES,
    )


def _find_and_read_ledger() -> str:
    """Return what finds the tables of migration tools in a database, the one that counts first, and says how to read
    each.
    """
    return "\n".join(
        f"SELECT CONCAT({literal(f'{LEDGER_MARK}SELECT {literal(lookup.tool)} AS t; {before}`')},"
        f" REPLACE(table_name, '`', '``'), {literal(f'`{after};')}) AS line FROM information_schema.tables"
        f" WHERE table_schema = database() AND LOWER(table_name) = {literal(lookup.table)}{_beside(lookup.beside)};"
        for lookup in LOOKUPS
        for before, after in [lookup.query.split("{table}")]
    )


def _beside(table: str | None) -> str:
    if table is None:
        return ""
    return (
        " AND EXISTS (SELECT 1 FROM information_schema.tables"
        f" WHERE table_schema = database() AND LOWER(table_name) = {literal(table)})"
    )


_LEDGER_STATEMENTS: Final = _find_and_read_ledger()


def _reported_ledger(rows: list[dict[str, Any]]) -> Ledger | None:
    place = next((place for place, row in enumerate(rows) if "t" in row), None)
    return None if place is None else read_report(rows[place]["t"], rows[place + 1 :])


def _default_database(names: list[str], asked: str | None) -> str:
    if not names:
        raise EngineError("the server holds no database")
    if asked is None:
        if len(names) > 1:
            raise EngineError(f"the server holds several databases ({', '.join(names)}): name the one apps get")
        return names[0]
    for name in names:
        if name.lower() == asked.lower():
            return name
    raise EngineError(f"the server holds no database {asked}, but {', '.join(names)}")


def _list_statements(names: list[str]) -> Iterable[str]:
    for name in names:
        yield f"USE {identifier(name)}"
        yield "SELECT active_branch()"
        yield f"SELECT name FROM dolt_branches ORDER BY name <> active_branch(), name LIMIT {MAX_BRANCHES + 1}"
        yield (
            "SELECT table_name, column_name FROM information_schema.statistics"
            " WHERE table_schema = database() AND index_name = 'PRIMARY' AND seq_in_index = 1 LIMIT 1"
        )
        yield (
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = database() AND table_type = 'BASE TABLE' LIMIT 1"
        )


def _first_rows(database: str, keys: Iterable[tuple[Any, ...]], tables: Iterable[tuple[Any, ...]]) -> Iterable[str]:
    """Return what reads a row of one table: in the order of its primary key, if any table has one.

    Without an order Dolt first divides the whole table for a parallel scan: 0.25 s for a gigabyte in a new server.
    """
    for table, column in keys:
        yield f"SELECT 1 FROM {identifier(database)}.{identifier(table)} ORDER BY {identifier(column)} LIMIT 1"
        return
    for (table,) in tables:
        yield f"SELECT 1 FROM {identifier(database)}.{identifier(table)} LIMIT 1"


async def _ensure_app_user(at: Endpoint, app: Endpoint, database: str) -> None:
    user, password = f"{literal(app.username)}@'%'", identified(app.password)
    async with mysql.session(at) as session:
        [databases] = await session.ask("SHOW DATABASES")
        names = user_databases(databases)
        name = _default_database(names, database)
        rights = "; ".join([await grants(at, each, app.username) for each in names])
        try:
            await session.ask(f"CREATE USER IF NOT EXISTS {user} {password}; ALTER USER {user} {password}; {rights}")
        except mysql.StatementError as error:  # the server's words may quote the statement, hash and all
            raise EngineError(f"the server refused to make the login {app.username}: error {error.code}") from None
    async with transaction(app) as session:
        await session.ask(f"USE {identifier(name)}; SELECT database()")


async def _commit_load(session: Session) -> None:
    [databases] = await session.ask("SHOW DATABASES")
    for name in user_databases(databases):
        await use(session, name)
        await session.ask("CALL dolt_add('-A'); CALL dolt_commit('--skip-empty', '-m', 'Initial load')")
