"""PostgreSQL: no history of its own; a copy of its volume is a copy after a crash, and everything else is preparation.

Facts this rests on, each with a test in ``tests/contract`` or ``tests/unit/engines``:

- A volume holds ``postgresql/`` with ``data`` (PGDATA), ``marker`` (``store``, or the UID of the snapshot it was
  prepared for) and, once a server was given its administrator's password, ``armed``.
- Where recovery ends is where the source's write-ahead log ended: the checkpoint that ends it stands there. Timeline
  and place together are the head; it moves with every write, also with one that changes no row (a read may write that
  rows have been seen). The letter between them keeps YAML from taking it for a number.
- What is on a server's command line is stronger than every file on its volume, ALTER SYSTEM's too, but not than what a
  role or database sets for its sessions.
- A shared catalog is seen from every database: a comment on the administrator's role says of which snapshot a copy is.
- Who uses data reads or writes a table; what connections are kept alive by, and made ready with, does neither. Sessions
  with ``track_counts`` off leave no trace in what the server counts of that: Coppice's own are so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from coppice.engines import libpq, pgpatches
from coppice.engines.base import (
    PATHS,
    SOURCE_PATH,
    Activity,
    BranchState,
    CloneServer,
    Content,
    Endpoint,
    EngineError,
    Finding,
    Ledger,
    MirrorInputs,
    MirrorWorkloads,
    Preparation,
    Reference,
    StoreServer,
    TableLock,
    Tag,
    TlsFront,
    UnknownVersionError,
    Version,
    Workload,
)
from coppice.engines.credentials import binding_values, completed
from coppice.engines.ledgers import LOOKUPS, find_ledger, read_report
from coppice.engines.libpq import Session, identifier, literal
from coppice.engines.merging import Assertion, AssertionResult, ChangeSet, RowChange
from coppice.engines.patching import Begun, Fate, JudgedPatch, Patch, PatchInputs
from coppice.engines.shell import script, statements

BRANCH: Final = "main"
MAINTENANCE: Final = "postgres"
"""The database that administrators begin in; apps get it only where it is named."""

PASSIVE_LIBRARIES: Final = (
    "anon",
    "auto_explain",
    "pg_hint_plan",
    "pg_stat_kcache",
    "pg_stat_statements",
    "pg_wait_sampling",
    "pgaudit",
    "plpgsql_check",
    "set_user",
)
"""Libraries that a copy loads if its source did and the image has them: they act on nothing but their own session."""

_CLONE: Final = "coppice-clone"
"""The ``cluster_name`` of a clone: no role and no database can have one of its own."""

_OWN_NAMES: Final = "-c search_path=pg_catalog,pg_temp"
"""No function or operator that somebody has made in the database stands in for the server's own (CVE-2018-1058)."""
_OWN_SESSION: Final = (
    f"{_OWN_NAMES} -c role=none -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=0"
)
"""What holds whatever the database or a role sets for its sessions: settings of a connection are stronger."""
_LOOKING: Final = f"{_OWN_NAMES} -c default_transaction_read_only=on"
"""On somebody else's server nothing is written, whatever the login may."""
_BUSY: Final = """\
SELECT max(clock_timestamp()) FILTER (WHERE state = 'active' AND clock_timestamp() - query_start > '1 s'), count(*)
FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND usename <> %s"""
"""One that asks for no table is use if it takes a while: a short one is a probe."""
_DATABASES: Final = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate"
_USED: Final = """\
SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del
    + CASE WHEN schemaname IN ('pg_catalog', 'information_schema') THEN 0 ELSE seq_scan + coalesce(idx_scan, 0) END), 0)
FROM pg_catalog.pg_stat_all_tables JOIN pg_catalog.pg_class c ON c.oid = relid
WHERE schemaname <> 'pg_toast' AND NOT relisshared
    AND NOT (schemaname = 'pg_catalog' AND c.relname LIKE 'pg\\_statistic%')"""
"""Catalogs are read by whoever connects, written to by whoever defines something, and statistics by the server. Shared
ones are about roles and databases, of which a server's start sets passwords."""
_UNTRACKED: Final = "-c track_activities=off -c track_counts=off"
_PROBE_OPTIONS: Final = (
    f"{_UNTRACKED} -c synchronize_seqscans=off -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC"
    " -c bytea_output=hex -c extra_float_digits=1"
)
"""How rows are read whose text must be the same on every server."""

_SETTINGS: Final = (
    "password_encryption=scram-sha-256",
    "ssl=off",
    "archive_mode=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_statement=none",
    "log_min_duration_statement=-1",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
    "log_parameter_max_length=0",
    # /dev/shm of a container has 64 MB.
    "dynamic_shared_memory_type=sysv",
)
_DISPOSABLE_SETTINGS: Final = (
    # A clone is disposable: what a crash of its node takes is made again. What it has acknowledged outlives its death.
    "fsync=off",
    "full_page_writes=off",
)
_CLONE_SETTINGS: Final = (
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_logical_replication_workers=0",
    "wal_recycle=off",
    "wal_init_zero=off",
    "max_wal_size=256MB",
    "checkpoint_timeout=30min",
    f"cluster_name={_CLONE}",
)


class PostgreSQLEngine:
    """The PostgreSQL engine: see ``coppice.engines.base.Engine`` for the meaning of every method."""

    name = "postgresql"
    versioned = False
    capture_action: str | None = "checkpoint"
    maskable = True
    locking = True
    port = 5432
    tls: TlsFront | None = None
    binding_type = "postgresql"
    user_id = 999
    admin_user = "coppice_admin"
    app_user = "app"

    def credentials(self, secret: Mapping[str, str]) -> Mapping[str, str]:
        """Return the Secret's content, completed with random passwords (192 bits, safe in a URL)."""
        return completed(secret)

    def store_server(self, inputs: StoreServer) -> Workload:
        """Return how a managed store runs; its first boot loads, or makes an empty database."""
        environment = {
            "COPPICE_DATABASE": inputs.database or "",
            "COPPICE_FALLBACK_DATABASE": inputs.fallback_database,
            "COPPICE_HAS_LOAD": "yes" if inputs.has_load else "",
            "COPPICE_OWN_SQL": statements("postgresql/own"),
            **({} if inputs.marker is None else {"COPPICE_MARKER": inputs.marker}),
        }
        return self._server(
            _program("init", "serve", "store"),
            environment,
            _SETTINGS,
            load_script=_program("init", "load") if inputs.has_load else None,
        )

    def clone_server(self, inputs: CloneServer) -> Workload:
        """Return how a clone runs: its administrator's password is set before anything listens."""
        environment = {"COPPICE_MARKER": inputs.marker}
        settings = (*_SETTINGS, *_CLONE_SETTINGS, *(() if inputs.durable else _DISPOSABLE_SETTINGS))
        return self._server(_program("serve", "clone"), environment, settings)

    def preparation(self, inputs: Preparation) -> Workload:
        """Return the job that recovers a raw copy and takes from it every login and all that reaches out.

        Of a masked one it also writes every table anew, and leaves no write-ahead log of before.
        """
        parts = ("roles", "findings", "strip", "own", "rewrite", "probed", "probe", "admin", "report")
        return Workload(
            script=_program("adopt", "prepare") if inputs.adopted else _program("prepare"),
            environment={
                **PATHS,
                "COPPICE_PORT": str(self.port),
                "COPPICE_MARKER": inputs.marker,
                "COPPICE_DATABASE": inputs.database,
                "COPPICE_DIRECTORY": inputs.directory or "",
                "COPPICE_REWRITE": "yes" if inputs.rewrite else "",
                "COPPICE_ORIGIN": inputs.origin or "",
                "COPPICE_PASSIVE_LIBRARIES": " ".join(PASSIVE_LIBRARIES),
                "COPPICE_PROBE_OPTIONS": _PROBE_OPTIONS,
                "COPPICE_LEDGER_SQL": _LEDGER_STATEMENT,
                **{f"COPPICE_{part.upper()}_SQL": statements(f"postgresql/{part}") for part in parts},
            },
        )

    def mirror(self, inputs: MirrorInputs) -> MirrorWorkloads:
        """Return a parallel pg_dump over the network, and the pg_restore of it where nobody can be reached."""
        environment = {
            **PATHS,
            "COPPICE_PORT": str(self.port),
            "COPPICE_MARKER": inputs.marker,
            "COPPICE_JOBS": str(inputs.jobs),
            # What the two programs say of a table; with one job they say only that they have begun.
            "COPPICE_TABLE_DONE": "finished item [0-9]* TABLE DATA"
            if inputs.jobs > 1
            else "dumping contents of table\\|processing data for table",
        }
        expects = "yes" if inputs.expects_rows else ""
        return MirrorWorkloads(
            dump=Workload(
                script=_program("mirror", "dump"),
                environment={**environment, "COPPICE_SOURCE": SOURCE_PATH, "COPPICE_EXPECTS_ROWS": expects},
            ),
            restore=Workload(
                script=_program("init", "serve", "mirror", "restore"),
                environment={
                    **environment,
                    "COPPICE_OWN_SQL": statements("postgresql/own"),
                    "COPPICE_ADMIN_SQL": statements("postgresql/admin"),
                },
            ),
        )

    def report(self, last_line: str) -> Content:
        """Parse what ``scripts/postgresql/report.sql`` prints."""
        try:
            data = json.loads(last_line)
            system, head, database = int(data["s"]), str(data["h"]), str(data["m"])
            findings = tuple(Finding(str(entry["reason"]), str(entry["message"])) for entry in data["f"])
            names = tuple(sorted(str(name) for name in data["d"]))
            told = data.get("l")
            ledger = None if told is None else read_report(told["t"], told["r"])
            content = _content(str(data["v"]), database, names, system, head, findings)
            return replace(content, ledger=ledger)
        except (ValueError, KeyError, TypeError):
            raise EngineError("the preparation did not end with a report: see its log") from None

    def binding(self, *, host: str, database: str, password: str, branch: str | None = None) -> Mapping[str, str]:
        """Return what the application's login needs; the database opens on the right branch by itself."""
        del branch
        app = Endpoint(host, self.port, self.app_user, password)
        return binding_values(self.binding_type, self.name, app, database)

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        """Return what the server holds: one session in the default database, whose first rows it reads.

        A store is where its write-ahead log ends. A clone is what the comment on its administrator says, if the rows
        bear it out. Of somebody else's server the catalog is read, for a login that may read no rows is enough there.
        """
        asked = database or await self._only_database(at)
        try:
            async with libpq.session(at, asked, options=self._options(at)) as session:
                return await _content_of(session, asked, rows=not at.guarded)
        except libpq.StatementError as error:
            if "does not exist" not in error.text:
                raise
            names = ", ".join(await self._databases(at))
            raise EngineError(f"the server holds no database {asked}, but {names}") from None

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        """Return where the one branch is; there is nothing else to name."""
        if reference.branch is None:
            raise UnknownVersionError(f"{self.name} keeps no tags, commits or times: its DataSnapshots are its history")
        if reference.branch != BRANCH:
            raise UnknownVersionError(f"there is no branch {reference.branch} in {database}; there is {BRANCH}")
        try:
            state = (await self.inspect(at, database=database)).state_of(BRANCH)
        except EngineError as error:
            if "holds no database" not in str(error):
                raise
            raise UnknownVersionError(str(error)) from None
        if state is None:
            raise UnknownVersionError(f"there is no database {database}")
        return Version(database, BRANCH, state.head, state.working_root)

    async def tables(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return for each table what changes when its rows or its shape do: the server's count of rows written, and the
        file, which a TRUNCATE or a rewrite replaces.
        """
        async with libpq.session(at, database, options=self._options(at)) as session:
            found = await session.ask(_TABLES)
        return {str(name): str(token) for name, token in found}

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        """Return whether a commit is one of these heads: without a history nothing else is known of it."""
        del at, database
        return commit in heads

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        """Do one of the actions that every engine has, or ``checkpoint``; raises EngineError for any other."""
        match action:
            case "ensure-app-user":
                app = Endpoint(at.host, at.port, arguments["username"], arguments["password"])
                await self._ensure_app_user(at, app, arguments["database"])
            case "ensure-mask-user":
                app = Endpoint(at.host, at.port, arguments["username"], arguments["password"])
                await self._ensure_mask_user(at, app, arguments["database"])
            case "commit-load":
                pass  # there are no versions
            case "checkpoint":
                async with libpq.session(at, MAINTENANCE, options=self._options(at)) as session:
                    await _refuse_tablespaces(session)
                    await session.ask("CHECKPOINT")
            case _:
                raise EngineError(f"the engine {self.name} has no action {action}")

    async def activity(self, at: Endpoint) -> Activity:
        """Return how often others have read and written tables, and changed definitions; now while a statement runs on.

        What asks for no table (``SELECT 1``, ``SET``, a pool's new connections) is none.
        """
        async with libpq.session(at, MAINTENANCE, options=self._options(at)) as session:
            [(busy, connections)] = await session.ask(_BUSY, [self.admin_user])
            databases = [str(name) for (name,) in await session.ask(_DATABASES)]
        used = sum([await self._used(at, database) for database in databases])
        return Activity(token=str(busy or used or ""), connections=int(connections))

    async def _used(self, at: Endpoint, database: str) -> int:
        """Return what others have done in a database; one that was dropped a moment ago has nothing to say."""
        try:
            async with libpq.session(at, database, options=self._options(at)) as session:
                [(counted,)] = await session.ask(_USED)
        except libpq.StatementError:
            return 0
        return int(counted)

    async def schema(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return the definitions of relations, functions, types, schemas and extensions, each by its hash."""
        async with libpq.session(at, database, options=self._options(at)) as session:
            return {str(name): str(found) for name, found in await session.ask(statements("postgresql/schema"))}

    async def ledger(self, at: Endpoint, database: str) -> Ledger | None:
        """Return what a migration tool has written down in the schema ``public``."""
        async with libpq.session(at, database, options=self._options(at)) as session:
            tables = await session.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            found = find_ledger(str(name) for (name,) in tables)
            if found is None:
                return None
            return found.read(await session.ask(found.statement(f"public.{identifier(found.table)}")))

    async def tags(self, at: Endpoint, database: str, prefix: str) -> Sequence[Tag]:
        """Return nothing: there are no tags."""
        del at, database, prefix
        return ()

    async def locks(self, at: Endpoint, database: str) -> Sequence[TableLock]:
        """Return who has a table in the mode ACCESS EXCLUSIVE, or waits for it."""
        async with libpq.session(at, database, options=self._options(at)) as session:
            found = await session.ask(_LOCKS, [self.admin_user])
        return [
            TableLock(str(table), str(holder), float(when), waits=bool(waits)) for table, holder, when, waits in found
        ]

    # -- patches: see ``coppice.engines.patching.PatchingEngine`` --

    async def mark(self, at: Endpoint, database: str) -> str:
        """Return where the write-ahead log ends."""
        async with libpq.session(at, database, options=self._options(at)) as session:
            [(place,)] = await session.ask(pgpatches.MARK)
        return str(place)

    async def patch(self, base: Endpoint, clone: Endpoint, database: str) -> Patch:
        """Return what a clone has changed, tried on the base."""
        return await pgpatches.patch(base, clone, database)

    async def differences(self, base: Endpoint, clone: Endpoint, database: str) -> ChangeSet:
        """Return how many rows a clone has changed, and which definitions."""
        return await pgpatches.differences(base, clone, database)

    def rows(
        self, base: Endpoint, clone: Endpoint, database: str, table: str | None = None
    ) -> AsyncGenerator[RowChange, None]:
        """Hand out the rows that a clone has changed."""
        return pgpatches.rows(base, clone, database, table)

    def patch_rows(self, patch: Patch, table: str | None = None) -> Iterator[RowChange]:
        """Hand out the rows of a patch."""
        return pgpatches.patch_rows(patch, table)

    async def judge(self, target: Endpoint, database: str, patch: Patch, inputs: PatchInputs) -> JudgedPatch:
        """Merge a patch with the live rows."""
        return await pgpatches.judge(target, database, patch, inputs)

    def script(self, patch: Patch) -> str:
        """Return a patch as guarded SQL."""
        return pgpatches.script(patch).text

    async def try_patch(
        self, base: Endpoint, database: str, patch: Patch, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        """Ask checks of the base in the transaction that tries a patch."""
        return await pgpatches.try_patch(base, database, patch, checks)

    async def write(self, target: Endpoint, database: str, patch: Patch, salt: str, begun: Begun) -> None:
        """Write a judged patch in one transaction."""
        await pgpatches.write(target, database, patch, salt, begun)

    async def fate(self, target: Endpoint, database: str, transaction: str) -> Fate:
        """Return what became of a transaction."""
        return await pgpatches.fate(target, database, transaction)

    def _server(
        self,
        program: str,
        environment: Mapping[str, str],
        settings: tuple[str, ...],
        *,
        load_script: str | None = None,
    ) -> Workload:
        return Workload(
            script=program,
            environment={
                **PATHS,
                "COPPICE_PORT": str(self.port),
                "COPPICE_SETTINGS": "\n".join(settings),
                **environment,
            },
            secret_environment={"COPPICE_ADMIN_PASSWORD": "admin-password"},
            load_script=load_script,
            wait_script=f"({script('wait')})\n{script('postgresql/ready')}",
            port=self.port,
        )

    def _options(self, at: Endpoint) -> str:
        """Return the settings of a session; only an administrator may be untracked."""
        if at.guarded:
            return _LOOKING
        return f"{_OWN_SESSION} {_PROBE_OPTIONS}" if at.username == self.admin_user else _OWN_SESSION

    async def _databases(self, at: Endpoint) -> list[str]:
        async with libpq.session(at, MAINTENANCE, options=self._options(at)) as session:
            rows = await session.ask(
                "SELECT datname FROM pg_database WHERE datname NOT IN ('template0', 'template1') ORDER BY 1"
            )
        return [str(name) for (name,) in rows]

    async def _only_database(self, at: Endpoint) -> str:
        names = await self._databases(at)
        own = [name for name in names if name != MAINTENANCE] or names
        if len(own) > 1:
            raise EngineError(f"the server holds several databases ({', '.join(own)}): name the one apps get")
        return own[0]

    async def _ensure_app_user(self, at: Endpoint, app: Endpoint, database: str) -> None:
        if database not in await self._databases(at):
            raise EngineError(f"the server holds no database {database}")
        async with libpq.session(at, database, options=self._options(at)) as session:
            role, verifier = identifier(app.username), session.verifier(app.username, app.password)
            if not await session.ask("SELECT 1 FROM pg_roles WHERE rolname = %s", [app.username]):
                await session.ask(f"CREATE ROLE {role}")
            await session.ask(f"ALTER ROLE {role} {_OWNS_DATA_ONLY} {_MAY_LOG_IN} PASSWORD {literal(verifier)}")
            owning = statements("postgresql/own").replace(":'app'", literal(app.username))
            for (statement,) in await session.ask(owning):
                await session.ask(statement)
        # No statement is run: this is no use of the database.
        async with libpq.session(app, database):
            pass

    async def _ensure_mask_user(self, at: Endpoint, app: Endpoint, database: str) -> None:
        """Let the applications' role do everything: triggers, row security and owners are in nobody's way then."""
        async with libpq.session(at, database, options=self._options(at)) as session:
            role, verifier = identifier(app.username), session.verifier(app.username, app.password)
            if not await session.ask("SELECT 1 FROM pg_roles WHERE rolname = %s", [app.username]):
                await session.ask(f"CREATE ROLE {role}")
            await session.ask(f"ALTER ROLE {role} SUPERUSER {_MAY_LOG_IN} PASSWORD {literal(verifier)}")
        async with libpq.session(app, database):
            pass


_MAY_LOG_IN: Final = "LOGIN VALID UNTIL 'infinity' CONNECTION LIMIT -1"
"""Whatever the source had for a role of this name."""
_OWNS_DATA_ONLY: Final = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION"


def _program(*parts: str) -> str:
    return script("volume", "postgresql/common", *(f"postgresql/{part}" for part in parts))


def _content(
    version: str, database: str, names: tuple[str, ...], system: int, head: str, findings: tuple[Finding, ...] = ()
) -> Content:
    """Return the content of a server with this system identifier at this head; together they name the data."""
    root = f"{system:016x}-{head}"
    return Content(
        engine_version=version,
        database=database,
        default_branch=BRANCH,
        databases=names,
        branches=(BranchState(database, BRANCH, head, root),),
        findings=findings,
    )


_TABLES: Final = """\
SELECT format('%I.%I', n.nspname, c.relname),
  concat_ws(' ', pg_relation_filenode(c.oid), n_tup_ins, n_tup_upd, n_tup_del,
    (SELECT md5(string_agg(concat_ws(' ', attnum, attname, atttypid), ' ' ORDER BY attnum)) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""

_LOCKS: Final = """\
SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname, l.virtualtransaction,
    extract(epoch FROM statement_timestamp())::float8, NOT l.granted
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p', 'm')
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND a.backend_type = 'client backend' AND a.usename <> %s
ORDER BY 1, 2"""
"""A table that was made in a transaction under way is not in what others see of ``pg_class``."""


def _find_and_read_ledger() -> str:
    """Return what finds a migration tool's table in the schema ``public`` and says how to read it, as JSON."""
    read = "SELECT json_build_object('t', {tool}, 'r', coalesce(json_agg(n), '[]')) FROM ({query}) n"
    known = ", ".join(
        f"({place}, {literal(lookup.table)}, {literal(lookup.beside or '')}, "
        + literal(read.format(tool=literal(lookup.tool), query=lookup.query.format(table="public.%I")))
        + ")"
        for place, lookup in enumerate(LOOKUPS)
    )
    return (
        f"SELECT format(query, tablename) FROM (VALUES {known}) AS known(place, needed, beside, query)"  # noqa: S608 - constants
        " JOIN pg_tables ON schemaname = 'public' AND lower(tablename) = needed"
        # What turns a type of somebody's own into JSON may be a function of theirs.
        " AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid"
        " WHERE c.relname = tablename AND relnamespace = 'public'::regnamespace AND attnum > 0 AND atttypid >= 16384)"
        " WHERE beside = '' OR EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND lower(tablename) = beside)"
        " ORDER BY place, tablename LIMIT 1"
    )


_LEDGER_STATEMENT: Final = _find_and_read_ledger()

_CONTENT: Final = """\
SELECT split_part(current_setting('server_version'), ' ', 1), s.system_identifier, c.timeline_id,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint,
    (SELECT array_agg(datname::text ORDER BY datname) FROM pg_database
        WHERE NOT datistemplate AND datname <> 'postgres' OR datname = current_database()),
    (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'coppice_admin'),
    current_setting('cluster_name')
FROM pg_control_system() s, pg_control_checkpoint() c"""


async def _content_of(session: Session, database: str, *, rows: bool) -> Content:
    # Rows before the place: to read one may write to the log that it has been seen.
    [(version, system, _, _, _, origin, cluster)] = await session.ask(_CONTENT)
    is_clone = cluster == _CLONE
    _, head, *probe = (origin or "").split(" ") if is_clone else ("", "")
    found = await _probe(session, probe[0] if probe else await _probed(session)) if rows else None
    [(_, _, timeline, place, names, _, _)] = await session.ask(_CONTENT)
    if not is_clone:
        head = f"{timeline:x}w{place:016x}"
    elif probe and found != probe[1]:
        head = f"{head}-with-other-rows"
    return _content(str(version), database, tuple(names), int(system) % 2**64, head)


async def _probed(session: Session) -> str | None:
    found = await session.ask(statements("postgresql/probed"))
    return str(found[0][0]) if found else None


async def _probe(session: Session, table: str | None) -> str | None:
    """Return the hash of a table's first rows; None for no table."""
    if table is None:
        return None
    [(statement,)] = await session.ask(statements("postgresql/probe").replace(":table", str(int(table))))
    [(found,)] = await session.ask(statement)
    return str(found)


async def _refuse_tablespaces(session: Session) -> None:
    """Raise EngineError for what is not in the data directory, and so not in a copy of the volume."""
    found = await session.ask(
        "SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY 1"
    )
    if found:
        named = ", ".join(f"{name} ({place})" for name, place in found)
        raise EngineError(
            f"these tablespaces are not in the data directory and would be missing in copies: {named}. Move what is in"
            " them to pg_default and drop them"
        )
