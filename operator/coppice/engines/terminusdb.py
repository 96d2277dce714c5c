"""TerminusDB: documents with a schema, with branches and commits.

Facts this rests on, each with a test in ``tests/contract`` or ``tests/unit/engines``, and in ``tests/fakes/terminusdb``
where the real server was seen to do so:

- A volume holds ``terminusdb/`` with ``db`` (labels and layers), ``marker`` (``store``, or the UID of the snapshot it
  was prepared for) and, once a server was given its administrator's password, ``armed``.
- Every write is a commit: what is visible on a branch is its head. Commits have identifiers that nothing else has, so
  that the head is the working root, too.
- Layers never change; a label names the newest one of a database and is rewritten in place. A copy that is taken
  between its being emptied and its being written holds an empty one, and that database does not open although the
  server says that it is well.
- A path without a branch is the branch ``main``, on every server; a branch's name is one part of a path.
- The server keeps no list of sessions and does not say who reads: what is seen of others is what they commit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from coppice.engines import terminusrefs as refs
from coppice.engines import terminusupkeep
from coppice.engines.base import (
    PATHS,
    Activity,
    BranchState,
    CloneServer,
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
    UnknownVersionError,
    Version,
    Workload,
)
from coppice.engines.credentials import binding_values, completed
from coppice.engines.shell import script
from coppice.engines.squashing import Squash
from coppice.engines.terminusactions import perform
from coppice.engines.terminusapi import Api, segment, session
from coppice.engines.terminushistory import ADMIN, layers_of
from coppice.engines.terminuslogins import APP_ROLE, ensure_login
from coppice.engines.terminusmerging import TerminusDBMerging
from coppice.engines.terminuspaths import MAIN
from coppice.engines.terminuspaths import path as _path
from coppice.engines.terminussquash import squash_of
from coppice.engines.upkeep import Outcome

OLDEST: Final = "12.0.6"
"""Older versions lose documents with text that is not ASCII, silently."""
MAX_BRANCHES: Final = 500
"""How many branches of a database are listed with their state, the default one first."""

_RIGHTS: Final = (
    "branch",
    "class_frame",
    "commit_read_access",
    "commit_write_access",
    "instance_read_access",
    "instance_write_access",
    "meta_read_access",
    "rebase",
    "schema_read_access",
    "schema_write_access",
)
"""All that is done within a database. Not: to fetch, push or clone, to name remotes, to make or delete databases."""


class TerminusDBEngine(TerminusDBMerging):
    """The TerminusDB engine: see ``coppice.engines.base.Engine`` for the meaning of every method.

    ``any_version``: the administrator takes the risk of versions before OLDEST.
    """

    name = "terminusdb"
    versioned = True
    capture_action: str | None = None
    maskable = True
    locking = False
    port = 6363
    tls: TlsFront | None = TlsFront(port=6364, scheme="https")
    binding_type = "terminusdb"
    user_id = 1000
    admin_user = "admin"
    app_user = "app"

    def __init__(self, *, any_version: bool = False) -> None:
        self._any_version = any_version

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
        load = _program("init", "load") if inputs.has_load else None
        return self._server(_program("init", "measure", "store"), environment, load_script=load)

    def clone_server(self, inputs: CloneServer) -> Workload:
        """Return how a clone runs: its administrator's password is set before anything listens."""
        version = inputs.version
        new = {
            "COPPICE_DATABASE": version.database,
            "COPPICE_NEW_BRANCH": version.branch if version.new_branch else "",
            "COPPICE_HEAD": version.head,
        }
        return self._server(_program("clone"), {"COPPICE_MARKER": inputs.marker, **new})

    def preparation(self, inputs: Preparation) -> Workload:
        """Return the job that takes every login and remote from a raw copy, and opens every database."""
        before = [part for part, wanted in (("adopt", inputs.adopted), ("rewrite", inputs.rewrite)) if wanted]
        return Workload(
            script=_program(*before, "prepare"),
            environment=self._environment(
                COPPICE_MARKER=inputs.marker,
                COPPICE_DATABASE=inputs.database,
                COPPICE_DIRECTORY=inputs.directory or "",
            ),
        )

    def mirror(self, inputs: MirrorInputs) -> None:
        """Return that there is no way: documents alone would not hold branches and commits."""
        del inputs

    def report(self, last_line: str) -> Content:
        """Parse what ``scripts/terminusdb/prepare.sh`` prints.

        {v: version, m: default database, d: a list of {p: path, b: documents of the class Branch}}.
        """
        try:
            told = json.loads(last_line)
            states = {_name(entry["p"]): refs.states(_name(entry["p"]), entry["b"]) for entry in told["d"]}
            return _content(str(told["v"]), str(told["m"]), states)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise EngineError("the preparation did not end with a report: see its log") from None

    def binding(self, *, host: str, database: str, password: str, branch: str | None = None) -> Mapping[str, str]:
        """Return what the application's login needs; the database is one of the organisation ``admin``.

        A path without a branch is ``main`` on every server: of a clone of another one the database is said with it.
        """
        app = Endpoint(host, self.port, self.app_user, password)
        place = database if branch in {None, MAIN} else f"{database}/local/branch/{branch}"
        return binding_values(self.binding_type, self.name, app, place)

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        """Return what the server holds; a document of each database is read, for a label may be torn."""
        async with session(at) as api:
            version = str((await api.get("info"))["api:info"]["terminusdb"]["version"])
            self._refuse(version)
            names = sorted(_name(entry["path"]) for entry in await api.get("db"))
            default = _default(names, database)
            states = {}
            for name in names:
                await api.get(f"document/{_path(name)}", count=1, as_list="true")
                states[name] = refs.states(name, await refs.branches(api, name))
        return _content(version, default, states)

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        """Return the exact version a reference names.

        A commit is its whole identifier or a prefix of at least 7 characters that names only one on a branch or tag. A
        time names the newest commit of ``main`` by then.
        """
        async with session(at) as api:
            documents = await refs.branches(api, database)
            branches = {state.branch: state for state in refs.states(database, documents)}
            if reference.branch is not None:
                found = branches.get(reference.branch)
                if found is None:
                    raise UnknownVersionError(
                        f"there is no branch {reference.branch} in {database}; there are {', '.join(sorted(branches))}"
                    )
                return Version(database, found.branch, found.head, found.working_root)
            head = await _commit_of(api, database, reference, documents)
        return Version(database, _free_name(branches), head, head, new_branch=True)

    async def tables(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return the two graphs of ``main``: each is a layer, which never changes; what a class holds has no token."""
        async with session(at) as api:
            [newest] = await api.get(f"log/{_path(database)}", count=1)
            layers = await layers_of(api, database, newest["identifier"])
        return {name: layers[graph] for name, graph in (("documents", "instance"), ("schema", "schema"))}

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        """Return whether a commit is one of these heads or an ancestor of one; an unknown commit is neither."""
        async with session(at) as api:
            return await refs.contains(api, database, commit, heads)

    async def tags(self, at: Endpoint, database: str, prefix: str) -> Sequence[Tag]:
        """Return the tags whose names begin so."""
        async with session(at) as api:
            return refs.tags(await refs.branches(api, database), prefix)

    async def squash_of(self, at: Endpoint, database: str, commit: str) -> Squash | None:
        """Return what a history begins with, if that is a squash of Coppice's."""
        async with session(at) as api:
            return await squash_of(api, database, commit)

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        """Do one of the actions that every engine has; raises EngineError for one that it has not."""
        async with session(at) as api:
            match action:
                case "ensure-app-user" | "ensure-mask-user":
                    await self._ensure_app_user(api, at, arguments)
                case "commit-load":
                    pass  # every write is a commit
                case "create-branch":
                    await refs.create_branch(api, arguments["database"], arguments["branch"], arguments["commit"])
                case "delete-branch":
                    branch, head = arguments["branch"], arguments["head"]
                    await refs.delete_branch(api, arguments["database"], branch, head, keep=arguments["keep"])
                case "delete-tag":
                    await refs.delete_tag(api, arguments["database"], arguments["tag"])
                case _:
                    if not await perform(api, at, action, arguments):
                        raise EngineError(f"the engine {self.name} has no action {action}")

    async def parts(self, at: Endpoint) -> Sequence[str]:
        """Return what is optimized, graph by graph, in the order in which it is done."""
        async with session(at) as api:
            return await terminusupkeep.parts(api)

    def outcome(self, of: str, turn: str) -> Outcome | None:
        """Return what has become of a store's last turn; None of any other."""
        return terminusupkeep.outcome(of, turn)

    async def activity(self, at: Endpoint) -> Activity:
        """Return what others have committed: a hash of the heads that are theirs.

        Who reads, or is connected, leaves no trace.
        """
        theirs: list[str] = []
        async with session(at) as api:
            for name in sorted(_name(entry["path"]) for entry in await api.get("db")):
                for state in refs.states(name, await refs.branches(api, name)):
                    [commit] = await api.get(f"log/{_path(name)}/local/commit/{segment(state.head)}", count=1)
                    if not str(commit.get("user", ADMIN)).endswith(ADMIN):
                        theirs.append(f"{name} {state.branch} {state.head}")
        return Activity(hashlib.sha256("\n".join(theirs).encode()).hexdigest()[:16] if theirs else "", 0)

    async def schema(self, at: Endpoint, database: str) -> Mapping[str, str]:
        """Return the classes of a database, each by its hash, and its prefixes."""
        async with session(at) as api:
            classes = await api.get(f"document/{_path(database)}", graph_type="schema", as_list="true")
        return {
            f"class {entry['@id']}" if "@id" in entry and entry["@type"] != "@context" else "prefixes": _hash(entry)
            for entry in classes
        }

    async def ledger(self, at: Endpoint, database: str) -> Ledger | None:
        """Return nothing: no migration tool that Coppice knows writes documents."""
        del at, database
        return None

    async def locks(self, at: Endpoint, database: str) -> Sequence[TableLock]:
        """Return nothing: TerminusDB locks nothing, and a writer who comes second is made to try again."""
        del at, database
        return ()

    async def _ensure_app_user(self, api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
        """Make the login, and give it its rights on every database, by a role that is written anew each time."""
        names = sorted(_name(entry["path"]) for entry in await api.get("db"))
        database = _default(names, arguments["database"])
        name, password = arguments["username"], arguments["password"]
        await ensure_login(api, name, password, APP_ROLE, _RIGHTS)
        async with session(replace(at, username=name, password=password)) as app:
            await app.get(f"document/{_path(database)}", count=1, as_list="true")

    def _refuse(self, version: str) -> None:
        if not self._any_version and _numbers(version) < _numbers(OLDEST):
            raise EngineError(
                f"TerminusDB {version} loses documents with text that is not ASCII, silently: use {OLDEST} or later"
            )

    def _server(self, program: str, environment: Mapping[str, str], *, load_script: str | None = None) -> Workload:
        return Workload(
            script=program,
            environment=self._environment(**environment),
            secret_environment={"COPPICE_ADMIN_PASSWORD": "admin-password"},
            load_script=load_script,
            wait_script=script("wait"),
            port=self.port,
        )

    def _environment(self, **more: str) -> Mapping[str, str]:
        versions = {"COPPICE_OLDEST": OLDEST, "COPPICE_ANY_VERSION": "yes" if self._any_version else ""}
        return {**PATHS, "COPPICE_PORT": str(self.port), **versions, **more}


def _program(*parts: str) -> str:
    return script("volume", "terminusdb/common", *(f"terminusdb/{part}" for part in parts))


def _name(path: str) -> str:
    return path.removeprefix("admin/")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _hash(entry: Any) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def _content(version: str, database: str, states: Mapping[str, Sequence[BranchState]]) -> Content:
    kept = [state for found in states.values() for state in found[:MAX_BRANCHES]]
    return Content(
        engine_version=version,
        database=database,
        default_branch=MAIN,
        databases=tuple(sorted(states)),
        branches=tuple(sorted(kept, key=lambda state: (state.database, state.branch))),
        truncated=any(len(found) > MAX_BRANCHES for found in states.values()),
    )


def _default(names: Sequence[str], asked: str | None) -> str:
    if not names:
        raise EngineError("the server holds no database")
    if asked is None:
        if len(names) > 1:
            raise EngineError(f"the server holds several databases ({', '.join(names)}): name the one apps get")
        return names[0]
    if asked not in names:
        raise EngineError(f"the server holds no database {asked}, but {', '.join(names)}")
    return asked


def _free_name(branches: Mapping[str, BranchState]) -> str:
    names = ("coppice", *(f"coppice-{number}" for number in range(1, len(branches) + 1)))
    return next(name for name in names if name not in branches)


async def _commit_of(api: Api, database: str, reference: Reference, documents: refs.Documents) -> str:
    """Return the commit that a tag, a commit's name or a time means."""
    if reference.commit is not None:
        return await refs.commit_of(api, database, reference.commit, documents)
    if reference.time is not None:
        return await refs.commit_by(api, database, reference.time)
    tags = {tag.name: tag.commit for tag in refs.tags(documents)}
    if reference.tag not in tags:
        named = f"there are {', '.join(sorted(tags))}" if tags else "there are none"
        raise UnknownVersionError(f"there is no tag {reference.tag} in {database}; {named}")
    return tags[reference.tag]
