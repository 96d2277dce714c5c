"""How doubles speak with each other: ``remote``, ``pack``, ``fetch``, ``pull``, ``push``.

The packs are the double's own (JSON); what is refused, and with which status and kind, was read in the source of 12.0.6 or seen on 12.0.2: a fetch brings all commits
of a database, a pull only goes forward, and a push is refused once anything was committed over there since the last fetch, on whichever branch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from databases import Place, place
from refusals import RefusedError

if TYPE_CHECKING:
    from databases import Databases

OK = {"api:status": "api:success"}


class Remotes:
    """The routes about other servers."""

    databases: Databases
    user: str
    body: Any
    parameters: dict[str, str]
    remote_login: str | None

    def remote_post(self, path: str) -> Any:
        self.databases.may(self.user, "meta_write_access", path)
        name = self.body["remote_name"]
        if name in self.databases.meta(path):
            raise RefusedError(400, "api:RemoteExists", f"The remote already exists: {name}")
        return self.remote_put(path)

    def remote_put(self, path: str) -> Any:
        self.databases.may(self.user, "meta_write_access", path)
        name = self.body["remote_name"]
        known = self.databases.meta(path).get(name, {"head": None})
        self.databases.change_meta(path, {name: {**known, "location": self.body["remote_location"]}})
        return {"@type": "api:RemoteResponse", **OK}

    def remote_get(self, path: str) -> Any:
        self.databases.may(self.user, "meta_read_access", path)
        names = [name for name in self.databases.meta(path) if name != "local"]
        return {"@type": "api:RemoteResponse", "api:remote_names": names, **OK}

    def remote_delete(self, path: str) -> Any:
        self.databases.may(self.user, "meta_write_access", path)
        name = self.parameters["remote_name"]
        if name not in self.databases.meta(path):
            raise RefusedError(404, "api:RemoteDoesNotExist", f"The remote does not exist: {name}")
        self.databases.change_meta(path, {}, (name,))
        return {"@type": "api:RemoteResponse", **OK}

    def pack_post(self, path: str) -> Any:
        self.databases.may(self.user, "commit_read_access", path)
        head = self.databases.meta(path)["local"]
        if (self.body or {}).get("repository_head") == head:
            return None
        return {"head": head, "layers": self._layers(head)}

    def unpack_post(self, path: str) -> Any:
        self.databases.may(self.user, "push", path)
        with self.databases.writing():
            for name, text in self.body["layers"].items():
                self.databases.storage.keep(name, text)
            if self.databases.meta(path)["local"] not in self._chain(self.body["head"]):
                raise RefusedError(400, "api:NotALinearHistory", "Not a linear history")
            self.databases.change_meta(path, {"local": self.body["head"]})
        return {"@type": "api:UnpackResponse", **OK}

    def fetch_post(self, path: str) -> Any:
        org, db, name, _ = path.split("/")
        database = f"{org}/{db}"
        self.databases.may(self.user, "fetch", database)
        remote = self.databases.meta(database)[name]
        told = self._ask(remote["location"], "pack", {"repository_head": remote["head"]} if remote["head"] else {})
        if told is not None:
            with self.databases.writing():
                for layer, text in told["layers"].items():
                    self.databases.storage.keep(layer, text)
                self.databases.change_meta(database, {name: {**remote, "head": told["head"]}})
        head = self.databases.meta(database)[name]["head"]
        return {"@type": "api:FetchRequest", "api:head_has_changed": told is not None, "api:head": head, **OK}

    def pull_post(self, path: str) -> Any:
        at, databases = place(path), self.databases
        databases.may(self.user, "instance_write_access", at.database)
        databases.may(self.user, "schema_write_access", at.database)
        self.fetch_post(f"{at.database}/{self.body['remote']}/_commits")
        theirs = Place(at.database, branch=self.body["remote_branch"], repository=self.body["remote"])
        with databases.writing():
            coming, ours = databases.log(theirs), databases.log(at)
            names = [commit["@id"] for commit in coming]
            own = [commit["@id"] for commit in ours]
            if own[0] not in names:
                common = next((commit for commit in ours if commit["@id"] in names), None)
                if common is None:
                    raise RefusedError(400, "api:NoCommonHistoryError", "There is no common history between branches")
                if names[0] not in own:
                    words = f"History diverges from commit {common['identifier']}"
                    raise RefusedError(
                        400, "api:HistoryDivergedError", words, **{"api:common_commit": common["identifier"]}
                    )
                return {"@type": "api:PullResponse", "api:pull_status": "api:pull_ahead", **OK}
            if own[0] == names[0]:
                return {"@type": "api:PullResponse", "api:pull_status": "api:pull_unchanged", **OK}
            databases.copy_commits(theirs)
            databases.move_branch(at, coming[0])
        return {"@type": "api:PullResponse", "api:pull_status": "api:pull_fast_forwarded", **OK}

    def push_post(self, path: str) -> Any:
        at, databases = place(path), self.databases
        databases.may(self.user, "push", at.database)
        remote = databases.meta(at.database)[self.body["remote"]]
        put = {commit["@id"]: commit for commit in databases.log(at)}
        put |= databases.branch(self.body["remote_branch"], databases.head(at)["@id"])
        head = databases.storage.add(remote["head"], put)
        try:
            self._ask(remote["location"], "unpack", {"head": head, "layers": self._layers(head)})
        except RefusedError as error:
            response = error.more.get("api:response") or {}
            if response.get("api:error", {}).get("@type") == "api:NotALinearHistory":
                words = "Remote connection failed: Remote history has diverged"
                raise RefusedError(400, "api:RemoteConnectionFailure", words) from None
            raise
        return {"@type": "api:PushResponse", **OK}

    def _ask(self, location: str, route: str, body: Any) -> Any:
        if self.remote_login is None:
            raise RefusedError(400, "api:RemoteAuthorizationRequired", "No remote authorization was given")
        url = urlsplit(location)
        asked = Request(f"{url.scheme}://{url.netloc}/api/{route}{url.path}", json.dumps(body).encode(), method="POST")
        asked.add_header("Authorization", self.remote_login)
        try:
            with build_opener(ProxyHandler({})).open(asked, timeout=30) as answer:
                read = answer.read()
        except HTTPError as error:
            opening = "Remote authentication failed" if error.code in {401, 403} else "Remote connection failed"
            more = {"api:status": error.code, "api:response": json.loads(error.read() or b"{}")}
            raise RefusedError(400, "api:RemoteConnectionFailure", opening, **more) from None
        except URLError as error:
            raise RefusedError(400, "api:HttpRequestFailed", f"HTTP request failed: {error.reason}") from None
        return json.loads(read) if read else None

    def _chain(self, layer: str | None) -> list[str]:
        found = []
        while layer is not None:
            found.append(layer)
            layer = json.loads(self.databases.storage.text(layer))["parent"]
        return found

    def _layers(self, head: str) -> dict[str, str]:
        names = set(self._chain(head))
        for entry in self.databases.storage.read(head).values():
            for kind in ("schema", "instance"):
                if (layer := entry.get(kind)) is not None and layer.removeprefix("Layer_") not in names:
                    names.update(self._chain(layer.removeprefix("Layer_")))
        return {name: self.databases.storage.text(name) for name in names}
