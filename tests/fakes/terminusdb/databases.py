"""What the double knows of databases: documents with a schema, branches, commits, users and their rights."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from checks import check
from refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from layers import Content, Storage

SYSTEM = "terminusdb:///system/data"
SCHEMAS = (
    "terminusdb:///system/schema",
    "http://terminusdb.com/schema/repository",
    "http://terminusdb.com/schema/ref",
    "http://terminusdb.com/schema/woql",
)
ADMIN = "User/admin"
ANONYMOUS = "User/anonymous"
READING = [
    "class_frame",
    "clone",
    "fetch",
    "meta_read_access",
    "commit_read_access",
    "instance_read_access",
    "schema_read_access",
]
EVERYTHING = [
    *READING, "create_database", "delete_database", "push", "branch", "rebase", "instance_write_access", "schema_write_access",
    "meta_write_access", "commit_write_access", "manage_capabilities",
]  # fmt: skip
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Place:
    """A path: a branch or a commit of a database, or one of its own graphs (``_meta``, ``_commits``)."""

    database: str
    branch: str | None = None
    commit: str | None = None
    graph: str | None = None
    repository: str = "local"


def place(path: str) -> Place:
    """Resolve ``org/db``, ``org/db/local/branch/B``, ``org/db/local/commit/C``, ``org/db/local/_commits`` and ``org/db/_meta``. A branch's name is one
    part of the path: it holds no slash.
    """
    match [part for part in path.split("/") if part]:
        case [org, db] | [org, db, "local"]:
            return Place(f"{org}/{db}", branch="main")
        case [org, db, "_meta"]:
            return Place(f"{org}/{db}", graph="_meta")
        case [org, db, repository, "_commits"]:
            return Place(f"{org}/{db}", graph="_commits", repository=repository)
        case [org, db, repository, "branch", branch]:
            return Place(f"{org}/{db}", branch=branch, repository=repository)
        case [org, db, repository, "commit", commit]:
            return Place(f"{org}/{db}", commit=commit, repository=repository)
    raise RefusedError(400, "api:BadAbsoluteDescriptor", f"Bad descriptor path: {path}")


def hashed(password: str, salt: str | None = None) -> str:
    salt = salt or secrets.token_hex(8)
    return f"{salt}${hashlib.sha256((salt + password).encode()).hexdigest()}"


class Databases:
    """All databases of one storage directory."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._turn = threading.RLock()
        self._depth = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._turn, nullcontext() if self._depth else self.storage.locked():
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    # The system's own database.

    def initialise(self, key: str) -> None:
        self.storage.create()
        for name in SCHEMAS:
            self.storage.set_label(name, self.storage.add(None, {}))
        content = {
            "Organization/admin": {"name": "admin"},
            "Role/admin": {"name": "Admin Role", "action": EVERYTHING},
            "Role/consumer": {"name": "Consumer Role", "action": READING},
            "Capability/server_access": {"scope": "Organization/admin", "role": ["Role/admin"]},
            ADMIN: {"name": "admin", "key_hash": hashed(key), "capability": ["Capability/server_access"]},
            ANONYMOUS: {"name": "anonymous", "capability": []},
        }
        self.storage.set_label(SYSTEM, self.storage.add(None, content))

    def system(self) -> Content:
        found = self.storage.label(SYSTEM)
        if found is None:
            raise RefusedError(500, "", "no system database")
        return self.storage.read(found[1])

    def change_system(self, put: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        found = self.storage.label(SYSTEM)
        self.storage.set_label(SYSTEM, self.storage.add(found[1] if found else None, put, drop))

    def login(self, name: str, password: str) -> str | None:
        found = self.system().get(f"User/{quote(name, safe='')}")
        if found is None or "key_hash" not in found:
            return None
        given = hashed(password, found["key_hash"].partition("$")[0])
        return f"User/{quote(name, safe='')}" if secrets.compare_digest(given, found["key_hash"]) else None

    def users(self) -> list[Content]:
        return [
            {"@id": key, "@type": "User", **{name: value for name, value in entry.items() if name != "key_hash"}}
            for key, entry in sorted(self.system().items())
            if key.startswith("User/")
        ]

    def set_user(self, name: str, password: str, *, new: bool) -> str:
        with self.writing():
            key = f"User/{quote(name, safe='')}"
            found = self.system().get(key)
            if new and found is not None:
                raise RefusedError(400, "api:DocumentIdAlreadyExists", f"Tried to insert a new document with id {key}")
            if not new and found is None:
                raise RefusedError(404, "api:UnknownUser", f"Unknown user: {name}")
            self.change_system({key: {"capability": [], **(found or {}), "name": name, "key_hash": hashed(password)}})
            return key

    def delete_user(self, key: str) -> None:
        with self.writing():
            if key not in self.system():
                raise RefusedError(404, "api:UnknownUser", f"Unknown user: {key}")
            self.change_system({}, (key,))

    def roles(self) -> list[Content]:
        return [
            {"@id": key, "@type": "Role", **entry} for key, entry in self.system().items() if key.startswith("Role/")
        ]

    def set_role(self, name: str, actions: list[str]) -> str:
        with self.writing():
            self.change_system({f"Role/{quote(name, safe='')}": {"name": name, "action": actions}})
        return f"Role/{quote(name, safe='')}"

    def grant(self, user: str, scope: str, roles: list[str]) -> None:
        with self.writing():
            system = self.system()
            named = {entry["name"]: key for key, entry in system.items() if key.startswith("Role/")}
            if unknown := [role for role in roles if role not in named]:
                raise RefusedError(404, "api:UnknownRole", f"Unknown role: {unknown[0]}")
            key, target = f"User/{quote(user, safe='')}", self.record(scope)
            if key not in system:
                raise RefusedError(404, "api:UnknownUser", f"Unknown user: {user}")
            made = f"Capability/{secrets.token_hex(16)}"
            held = [known for known in system[key]["capability"] if system[known]["scope"] != target]
            made_now = {made: {"scope": target, "role": [named[role] for role in roles]}} if roles else {}
            self.change_system({**made_now, key: {**system[key], "capability": [*held, *made_now]}})

    def may(self, user: str, action: str, database: str | None = None) -> None:
        """Refuse what a user has no right to; without a database, on the whole server."""
        if user == ADMIN:
            return
        system = self.system()
        scope = self.record(database) if database is not None else "Organization/admin"
        for key in system.get(user, {}).get("capability", ()):
            if system[key]["scope"] == scope and any(action in system[role]["action"] for role in system[key]["role"]):
                return
        raise RefusedError(403, "", f"Access to {scope} is not authorised with action {action}")

    # Databases.

    def record(self, database: str) -> str:
        for key, entry in self.system().items():
            if key.startswith("UserDatabase/") and entry["path"] == database:
                return key
        org, _, name = database.partition("/")
        raise RefusedError(404, "api:UnknownDatabase", f"Unknown database: {org}/{name}")

    def names(self, user: str = ADMIN) -> list[str]:
        system = self.system()
        names = []
        for name in sorted(entry["path"] for key, entry in system.items() if key.startswith("UserDatabase/")):
            try:
                self.may(user, "meta_read_access", name)
            except RefusedError:
                continue
            names.append(name)
        return names

    def create(self, database: str, label: str) -> None:
        with self.writing():
            if database in self.names():
                raise RefusedError(400, "api:DatabaseAlreadyExists", f"Database {database} already exists.")
            context = self.storage.add(
                None,
                {"@context": {"@type": "@context", "@schema": "terminusdb:///schema#", "@base": "terminusdb:///data/"}},
            )
            commit = self._commit(None, "system", "create initial schema", ADMIN, schema=context, instance=None)
            commits = self.storage.add(None, {commit["@id"]: commit, **self.branch("main", commit["@id"])})
            self.storage.set_label(_label(database), self.storage.add(None, {"local": commits}))
            self.change_system({f"UserDatabase/{secrets.token_hex(16)}": {"path": database, "label": label}})

    def delete(self, database: str) -> None:
        with self.writing():
            self.change_system({}, (self.record(database),))
            self.storage.drop_label(_label(database))

    def meta(self, database: str) -> Content:
        self.record(database)
        found = self.storage.label(_label(database))
        if found is None:
            raise RefusedError(500, "", f"no label of {database}")
        return self.storage.read(found[1])

    def optimize(self, at: Place) -> None:
        """Roll up: of commits and branches a file beside the newest layer; of a database's own graph a new layer of all that it holds."""
        with self.writing():
            if at.graph == "_meta":
                self.storage.set_label(_label(at.database), self.storage.add(None, self.meta(at.database)))
                return
            self.storage.roll_up(self.meta(at.database)["local"])
            if at.graph is None:
                for kind in ("schema", "instance"):
                    if layer := self.head(at)[kind]:
                        self.storage.roll_up(layer.removeprefix("Layer_"))

    def optimize_system(self) -> None:
        with self.writing():
            self.storage.set_label(SYSTEM, self.storage.add(None, self.system()))

    def change_meta(self, database: str, put: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        with self.writing():
            _, layer = self.storage.label(_label(database)) or (0, "")
            self.storage.set_label(_label(database), self.storage.add(layer, put, drop))

    def commits(self, database: str, repository: str = "local") -> Content:
        known = self.meta(database).get(repository, {"head": None})
        layer = known if repository == "local" else known["head"]
        if layer is None:
            raise RefusedError(404, "api:UnresolvableAbsoluteDescriptor", f"{database}/{repository} does not resolve")
        return self.storage.read(layer)

    def change_commits(self, database: str, put: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        with self.writing():
            self.change_meta(database, {"local": self.storage.add(self.meta(database)["local"], put, drop)})

    def head(self, at: Place) -> Content:
        """Return the commit of a branch or the commit itself."""
        commits = self.commits(at.database, at.repository)
        if at.branch is not None:
            branch = commits.get(f"Branch/{quote(at.branch, safe='')}")
            if branch is not None:
                return commits[branch["head"]]
        else:
            for kind in ("ValidCommit", "InitialCommit"):
                if (found := commits.get(f"{kind}/{at.commit}")) is not None:
                    return found
        raise RefusedError(
            404, "api:UnresolvableAbsoluteDescriptor", f"Unable to resolve an invalid absolute path for {at.database}"
        )

    def graph(self, at: Place, kind: str) -> Content:
        """Return the documents of a graph, by id."""
        if at.graph == "_commits":
            return self.commits(at.database, at.repository)
        if at.graph == "_meta":
            meta = self.meta(at.database)
            return {
                f"Remote/{name}": {"@id": f"Remote/{name}", "@type": "Remote", "name": name}
                for name in meta
                if name != "local"
            }
        return self.layer(self.head(at), kind)

    def layer(self, commit: Content, kind: str) -> Content:
        """Return the documents of a commit's graph."""
        name = commit[kind]
        return {} if name is None else self.storage.read(name.removeprefix("Layer_"))

    def squash(self, database: str, head: Content, info: Mapping[str, str]) -> Content:
        """Make a commit that has what another one has and comes from none; no branch leads to it."""
        with self.writing():
            layers = {
                kind: None if head[kind] is None else self.storage.add(None, self.layer(head, kind))
                for kind in ("schema", "instance")
            }
            made = self._commit(None, info["author"], info["message"], info["user"], **layers)
            made |= {"@type": "ValidCommit", "@id": f"ValidCommit/{made['identifier']}"}
            self.change_commits(database, {made["@id"]: made})
            return made

    def commit_upon(self, parent: Content, graphs: Mapping[str, Content], info: Mapping[str, str]) -> Content:
        """Return a commit that follows another one, with these documents, to which no branch leads yet."""
        layers = {}
        for kind, documents in graphs.items():
            before = self.layer(parent, kind)
            put = {name: document for name, document in documents.items() if before.get(name) != document}
            drop = tuple(before.keys() - documents.keys())
            name = (parent[kind] or "").removeprefix("Layer_") or None
            layers[kind] = self.storage.add(name, put, drop) if put or drop or name is None else name
        return self._commit(parent["@id"], info["author"], info["message"], info["user"], **layers)

    def log(self, at: Place, start: int = 0, count: int = -1) -> list[Content]:
        commits, found = self.commits(at.database, at.repository), []
        commit: Content | None = self.head(at)
        while commit is not None:
            found.append(commit)
            commit = commits.get(commit.get("parent", ""))
        return found[start:] if count < 0 else found[start : start + count]

    def create_branch(self, at: Place, origin: Place) -> None:
        with self.writing():
            commits = self.commits(at.database)
            ((name, entry),) = self.branch(at.branch or "", self.head(origin)["@id"]).items()
            if name in commits:
                raise RefusedError(400, "api:BranchExistsError", f"Branch {at.branch} already exists")
            self.copy_commits(origin)
            self.change_commits(at.database, {name: entry})

    def copy_commits(self, origin: Place) -> None:
        """Have the commits up to one that was fetched as our own."""
        if origin.repository != "local":
            known = self.commits(origin.database)
            new = {commit["@id"]: commit for commit in self.log(origin) if commit["@id"] not in known}
            self.change_commits(origin.database, new)

    def move_branch(self, at: Place, commit: Content) -> None:
        self.change_commits(at.database, self.branch(at.branch or "", commit["@id"]))

    @staticmethod
    def branch(name: str, head: str) -> dict[str, Content]:
        key = f"Branch/{quote(name, safe='')}"
        return {key: {"@id": key, "@type": "Branch", "name": name, "head": head}}

    def delete_branch(self, at: Place) -> None:
        with self.writing():
            name = f"Branch/{quote(at.branch or '', safe='')}"
            if at.branch == "main":
                raise RefusedError(
                    400, "api:BranchMainDeletionError", "Branch 'main' should not be deleted as it is special"
                )
            if name not in self.commits(at.database):
                raise RefusedError(400, "api:BranchDoesNotExistError", f"Branch {at.branch} does not exist")
            self.change_commits(at.database, {}, (name,))

    def write(
        self, at: Place, graph: str, put: Mapping[str, Any], drop: tuple[str, ...], info: Mapping[str, str]
    ) -> str:
        """Commit a change of one graph to a branch, checked against the schema; return the commit's identifier."""
        with self.writing():
            head = self.head(at)
            layers = {kind: (head[kind] or "").removeprefix("Layer_") or None for kind in ("schema", "instance")}
            before = self.storage.read(layers[graph]) if layers[graph] else {}
            drop = tuple(name for name in drop if name in before)
            if not drop and all(before.get(name) == value for name, value in put.items()):
                return str(head["identifier"])  # what changes nothing is no commit
            layers[graph] = self.storage.add(layers[graph], put, drop)
            instance = self.storage.read(layers["instance"]) if layers["instance"] else {}
            names = put if graph == "instance" else instance
            check(self.storage.read(layers["schema"] or ""), instance, names, drop if graph == "instance" else ())
            commit = self._commit(head["@id"], info["author"], info["message"], info["user"], **layers)
            self.change_commits(at.database, {commit["@id"]: commit, **self.branch(at.branch or "", commit["@id"])})
            return str(commit["identifier"])

    def _commit(
        self, parent: str | None, author: str, message: str, user: str, *, schema: str | None, instance: str | None
    ) -> Content:
        identifier = "".join(secrets.choice(ALPHABET) for _ in range(31))
        kind = "ValidCommit" if parent else "InitialCommit"
        return {
            "@id": f"{kind}/{identifier}", "@type": kind, "identifier": identifier, "author": author, "message": message,
            "timestamp": time.time(), "user": f"terminusdb://system/data/{user}", "schema": f"Layer_{schema}",
            "instance": f"Layer_{instance}" if instance else None, **({"parent": parent} if parent else {}),
        }  # fmt: skip


def identified(documents: Iterable[Any], graph: str, classes: Content) -> dict[str, Content]:
    """Return documents by their ids, made as their class says where they have none."""
    found: dict[str, Content] = {}
    for document in documents:
        if graph == "schema":
            name = "@context" if document.get("@type") == "@context" else str(document["@id"])
            found[name] = document
            continue
        kind = str(document.get("@type", ""))
        key = classes.get(kind, {}).get("@key", {"@type": "Random"})
        name = "+".join(
            quote(str(document.get(field)), safe="") for field in key.get("@fields", ())
        ) or secrets.token_hex(16)
        found[document.get("@id", f"{kind}/{name}")] = document
    return {name: {**document, "@id": name} if graph == "instance" else document for name, document in found.items()}


def _label(database: str) -> str:
    if not re.fullmatch("[^/]+/[^/]+", database):
        raise RefusedError(400, "api:InvalidAbsolutePath", f"Invalid absolute path: {database}")
    return database.replace("/", "|")
