"""The double's HTTP API: the routes of TerminusDB 12 that Coppice uses, with their statuses and bodies."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from comparing import Comparing
from databases import ADMIN, ANONYMOUS, identified, place
from layers import STORAGE_VERSION, StorageError
from refusals import RefusedError
from remotes import Remotes
from rewriting import Rewriting

if TYPE_CHECKING:
    from databases import Databases

OK = {"api:status": "api:success"}
LOSES_NOTHING = (12, 0, 6)


class Call(Comparing, Remotes, Rewriting):
    """One request, with whoever makes it."""

    def __init__(
        self,
        databases: Databases,
        version: str,
        user: str,
        parameters: dict[str, str],
        body: Any,
        remote_login: str | None,
        expected: str | None,
    ) -> None:
        self.databases, self.version, self.user, self.remote_login = databases, version, user, remote_login
        self.expected = expected
        self.parameters, self.body = parameters, body
        self.headers: dict[str, str] = {}

    def info_get(self, _: str) -> Any:
        if self.user == ANONYMOUS:
            raise RefusedError(403, "", "not authorised")
        versions = {"terminusdb": {"version": self.version}, "storage": {"version": STORAGE_VERSION}}
        return {"@type": "api:InfoResponse", "api:info": {"authority": self.user, **versions}, **OK}

    def db_get(self, path: str) -> Any:
        if path:
            self.databases.may(self.user, "meta_read_access", path)
            return {"path": path}
        return [{"path": name} for name in self.databases.names(self.user)]

    def db_post(self, path: str) -> Any:
        self.databases.may(self.user, "create_database")
        self.databases.create(path, self.body["label"])
        return {"@type": "api:DbCreateResponse", **OK}

    def db_delete(self, path: str) -> Any:
        self.databases.may(self.user, "delete_database", path)
        self.databases.delete(path)
        return {"@type": "api:DbDeleteResponse", **OK}

    def document_get(self, path: str) -> Any:
        at, kind = place(path), self._graph
        action = (
            "commit_read_access"
            if at.graph == "_commits"
            else "meta_read_access"
            if at.graph
            else f"{kind}_read_access"
        )
        self.databases.may(self.user, action, at.database)
        found = self.databases.graph(at, kind)
        if (names := (self.body or {}).get("ids")) is not None:
            found = {name: found[name] for name in names if name in found}
        documents = [
            {"@id": key, **document}
            for key, document in found.items()
            if self.parameters.get("type", document.get("@type")) == document.get("@type")
            and self.parameters.get("id", key) == key
        ]
        skip, count = int(self.parameters.get("skip", 0)), self.parameters.get("count")
        return documents[skip : None if count is None else skip + int(count)]

    def document_post(self, path: str) -> Any:
        at, kind = place(path), self._graph
        self.databases.may(self.user, f"{kind}_write_access", at.database)
        given = self.body if isinstance(self.body, list) else [self.body]
        with self.databases.writing():
            before = self.databases.graph(at, kind)
            documents = identified(given, kind, self.databases.graph(at, "schema"))
            drop: tuple[str, ...] = ()
            if self.parameters.get("full_replace") == "true":
                drop = tuple(name for name in before if name not in documents)
            elif taken := [name for name in documents if name in before]:
                raise RefusedError(
                    400, "api:DocumentIdAlreadyExists", f"Tried to insert a new document with id {taken[0]}"
                )
            self._write(path, kind, self._kept(documents), drop)
        return list(documents)

    def _kept(self, documents: dict[str, Any]) -> dict[str, Any]:
        """Return what a version keeps of documents that it says it has written."""
        if tuple(int(number) for number in self.version.split(".")) >= LOSES_NOTHING:
            return documents
        return {
            name: document for name, document in documents.items() if json.dumps(document, ensure_ascii=False).isascii()
        }

    def document_put(self, path: str) -> Any:
        at, kind = place(path), self._graph
        self.databases.may(self.user, f"{kind}_write_access", at.database)
        given = self.body if isinstance(self.body, list) else [self.body]
        with self.databases.writing():
            documents = identified(given, kind, self.databases.graph(at, "schema"))
            unknown = [name for name in documents if name not in self.databases.graph(at, kind)]
            if unknown and self.parameters.get("create") != "true":
                raise RefusedError(404, "api:DocumentNotFound", f"Document not found: {unknown[0]}")
            self._write(path, kind, documents, ())
        return list(documents)

    def document_delete(self, path: str) -> Any:
        at, kind = place(path), self._graph
        self.databases.may(self.user, f"{kind}_write_access", at.database)
        names = (self.parameters["id"],) if "id" in self.parameters else tuple(self.body)
        there = self.databases.graph(at, kind)
        if unknown := [name for name in names if name not in there]:
            raise RefusedError(404, "api:DocumentNotFound", f"Document not found: {unknown[0]}")
        self._write(path, kind, {}, names)
        return None

    def branch_post(self, path: str) -> Any:
        at = place(path)
        self.databases.may(self.user, "branch", at.database)
        self.databases.create_branch(at, place(self.body["origin"]))
        return {"@type": "api:BranchResponse", **OK}

    def branch_delete(self, path: str) -> Any:
        at = place(path)
        self.databases.may(self.user, "branch", at.database)
        self.databases.delete_branch(at)
        return {"@type": "api:BranchResponse", **OK}

    def optimize_post(self, path: str) -> Any:
        if path == "_system":
            if self.user != ADMIN:
                raise RefusedError(403, "api:RequiresSuperuserAuthority", "requires super user authority")
            self.databases.optimize_system()
        else:
            at = place(path)
            self.databases.may(self.user, "meta_write_access", at.database)
            self.databases.optimize(at)
        return {"@type": "api:OptimizeResponse", **OK}

    def log_get(self, path: str) -> Any:
        at = place(path)
        self.databases.may(self.user, "meta_read_access", at.database)
        return self.databases.log(at, int(self.parameters.get("start", 0)), int(self.parameters.get("count", -1)))

    def users_get(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        return self.databases.users()

    def users_post(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        return self.databases.set_user(self.body["name"], self.body["password"], new=True)

    def users_put(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        self.databases.set_user(self.body["name"], self.body["password"], new=False)
        return {"@type": "api:UsersResponse", **OK}

    def users_delete(self, name: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        self.databases.delete_user(f"User/{quote(name, safe='')}")
        return {"@type": "api:UsersResponse", **OK}

    def roles_get(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        return self.databases.roles()

    def roles_post(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        return self.databases.set_role(self.body["name"], self.body["action"])

    roles_put = roles_post

    def capabilities_post(self, _: str) -> Any:
        self.databases.may(self.user, "manage_capabilities")
        roles = self.body["roles"] if self.body["operation"] == "grant" else []
        self.databases.grant(self.body["user"], self.body["scope"], roles)
        return {"@type": "api:CapabilityResponse", **OK}

    @property
    def _graph(self) -> str:
        return self.parameters.get("graph_type", "instance")

    def _write(self, path: str, kind: str, put: Any, drop: tuple[str, ...]) -> None:
        info = {"author": self.parameters["author"], "message": self.parameters["message"], "user": self.user}
        with self.databases.writing():
            self._expect_version(path)
            written = self.databases.write(place(path), kind, put, drop, info)
        self.headers["TerminusDB-Data-Version"] = f"branch:{written}"

    def _expect_version(self, path: str) -> None:
        """Refuse where the caller says what he has seen, and it is not what is there."""
        there = f"branch:{self.databases.head(place(path))['identifier']}"
        if self.expected not in {None, there}:
            words = "Requested data version in header does not match actual data version."
            more = {"api:requested_data_version": self.expected, "api:actual_data_version": there}
            raise RefusedError(400, "api:DataVersionMismatch", words, **more)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class asks by these names

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        name, _, path = url.path.removeprefix("/api/").partition("/")
        if name == "ok":
            self._send(200, b"", "application/octets")
            return
        headers: dict[str, str] = {}
        try:
            status, content, headers = 200, *self._called(name, unquote(path), url.query, body)
        except RefusedError as error:
            status, content = error.status, _refusal(error)
        except StorageError as error:
            status, content = (
                500,
                {"@type": "api:ErrorResponse", "api:status": "api:server_error", "api:message": f"Error: {error}"},
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            status, content = (
                400,
                {"@type": "api:BadAPIDocumentErrorResponse", "api:status": "api:failure", "api:message": repr(error)},
            )
        self._send(status, b"" if content is None else json.dumps(content).encode(), "application/json", headers)

    def _called(self, name: str, path: str, query: str, body: bytes) -> tuple[Any, dict[str, str]]:
        user = self._user()
        method = (self.headers.get("X-HTTP-Method-Override") or self.command).lower()
        parameters = {key: values[-1] for key, values in parse_qs(query).items()}
        given = json.loads(body) if body else None
        login = self.headers.get("Authorization-Remote")
        expected = self.headers.get("TerminusDB-Data-Version")
        call = Call(self.server.databases, self.server.version, user, parameters, given, login, expected)
        act = getattr(call, f"{name}_{method}", None)
        if act is None:
            raise RefusedError(404, "", f"no route {method} {name}")
        return act(path), call.headers

    def _user(self) -> str:
        given = self.headers.get("Authorization")
        if given is None:
            return ANONYMOUS
        name, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        user = self.server.databases.login(name, password)
        if user is None:
            raise RefusedError(401, "api:IncorrectAuthenticationError", "Incorrect authentication information")
        return user

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, databases: Databases, version: str) -> None:
        self.databases, self.version = databases, version
        super().__init__(("", port), Handler)


def _refusal(error: RefusedError) -> dict[str, Any]:
    states = {403: "api:forbidden", 404: "api:not_found", 401: "api:failure", 400: "api:failure", 409: "api:conflict"}
    if error.status == 409:
        return {"@type": error.kind, "api:status": "api:conflict", **error.more}
    told: dict[str, Any] = {"@type": error.response, "api:status": states.get(error.status, "api:server_error")}
    return {
        **told,
        "api:message": str(error),
        **({"api:error": {"@type": error.kind, **error.more}} if error.kind else {}),
    }
