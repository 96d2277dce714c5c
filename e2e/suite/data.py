"""Stores and clones as their users meet them: an object in the cluster, and a database to ask."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from e2e.harness.shell import CommandError
from e2e.suite.manifests import data_clone, data_store, program, python_pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

Row = dict[str, Any]
CLIENT = "client"
ITEMS = """
CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(64) NOT NULL, price INT NOT NULL);
INSERT INTO item VALUES (1, 'apple', 10), (2, 'pear', 20), (3, 'plum', 30)
"""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in to a server, and where it begins."""

    user: str
    password: str
    database: str


def sql(kube: Kube, server: Manifest, statements: str, login: Login) -> list[Row]:
    """Run statements on the server in a Pod, from another Pod of its namespace; return the rows of all of them.

    Raises CommandError.
    """
    return sql_each(kube, server["metadata"]["namespace"], [(server, login)], statements)[0]


def sql_each(kube: Kube, namespace: str, servers: Sequence[tuple[Manifest, Login]], statements: str) -> list[list[Row]]:
    """Run the same statements on several servers of a namespace; return the rows of each. Raises CommandError.

    The client has a Pod of its own because a Dolt client in the server's would use up its memory.
    """
    where = [{"host": pod["status"]["podIP"], "port": port_of(pod), **asdict(login)} for pod, login in servers]
    asked = json.dumps({"servers": where, "statements": statements, "token": secrets.token_hex(8)})
    words = ("exec", "-i", "-n", namespace, CLIENT, "--", "python3", "-c", program("client"))
    try:
        text = kube.run(*words, stdin=asked)
    except CommandError as error:
        if f'pods "{CLIENT}" not found' not in str(error):
            raise
        kube.apply(python_pod(CLIENT, namespace, image=kube.operator_image(), runs="sleeper"))
        kube.run("wait", "-n", namespace, "--for=condition=Ready", f"pod/{CLIENT}", "--timeout=60s")
        text = kube.run(*words, stdin=asked)
    # kubectl exec ends well now and then, and has lost what was printed at the end.
    rows: list[list[Row]] = json.loads(text or kube.run(*words, stdin=asked))
    return rows


def port_of(pod: Manifest) -> int:
    """Return where the server in a Pod listens; Dolt's port where somebody else's Pod does not say."""
    ports = pod["spec"]["containers"][0].get("ports") or [{"containerPort": 3306}]
    return int(ports[0]["containerPort"])


def administrator(pod: Manifest, password: str, database: str) -> Login:
    """Return the login of a server's administrator."""
    return Login("coppice_admin" if port_of(pod) == 5432 else "root", password, database)


def login_of(binding: dict[str, str]) -> Login:
    """Return the login in a binding Secret."""
    return Login(binding["username"], binding["password"], binding["database"])


@dataclass(frozen=True, slots=True)
class Store:
    """A DataStore that its owners work with."""

    kube: Kube
    namespace: str
    name: str = "shop"

    def create(self, **how: Any) -> Store:
        """Apply the store and wait until it is Ready."""
        self.kube.apply(data_store(self.name, self.namespace, **how))
        self.kube.ready(self.namespace, f"dstore/{self.name}")
        return self

    @property
    def status(self) -> Manifest:
        """Return the store's status."""
        return self.kube.status("dstore", self.name, self.namespace)

    @property
    def passwords(self) -> dict[str, str]:
        """Return the passwords of the administrator and of apps, by key."""
        return self.kube.binding(self.namespace, f"{self.name}-admin")

    @property
    def server(self) -> Manifest:
        """Return the server's Pod."""
        found = self.kube.get("pod", f"{self.name}-server", self.namespace)
        assert found is not None, f"the server of {self.name} is not there"
        return found

    def sql(self, statements: str) -> list[Row]:
        """Run statements as the server's administrator."""
        server = self.server
        login = administrator(server, self.passwords["admin-password"], self.status["databases"][0])
        return sql(self.kube, server, statements, login)

    def commit(self, statements: str, message: str = "change") -> str:
        """Run statements, make a Dolt commit of them, and return its hash."""
        self.sql(f"{statements}; CALL dolt_commit('-A', '-m', '{message}')")
        return str(self.sql("SELECT dolt_hashof('HEAD') AS head")[0]["head"])


@dataclass(frozen=True, slots=True)
class Clone:
    """A DataClone that somebody works with."""

    kube: Kube
    namespace: str
    name: str = "db"

    def apply(self, store: Store, **how: Any) -> Clone:
        """Apply the clone as its user does."""
        owners = store.namespace if store.namespace != self.namespace else None
        self.kube.apply(data_clone(self.name, self.namespace, store=store.name, owners=owners, **how))
        return self

    def ready(self) -> Clone:
        """Wait until the clone is Ready."""
        self.kube.ready(self.namespace, f"dclone/{self.name}")
        return self

    @property
    def manifest(self) -> Manifest:
        """Return the object."""
        found = self.kube.get("dclone", self.name, self.namespace)
        assert found is not None, f"there is no DataClone {self.name}"
        return found

    @property
    def uid(self) -> str:
        """Return the object's UID."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def status(self) -> Manifest:
        """Return the object's status."""
        return self.kube.status("dclone", self.name, self.namespace)

    @property
    def reason(self) -> str:
        """Return the reason of the condition Ready."""
        return self.kube.reason("dclone", self.name, self.namespace)

    @property
    def binding(self) -> dict[str, str]:
        """Return what apps are told."""
        return self.kube.binding(self.namespace, self.status["binding"]["name"])

    @property
    def pods(self) -> list[Manifest]:
        """Return the servers' Pods."""
        return self.kube.items("pods", "-n", self.namespace, "-l", f"coppice.dev/owner-uid={self.uid}")

    @property
    def pod(self) -> Manifest:
        """Return the Pod of the copy that apps are told of."""
        secret = self.kube.get("secret", self.status["binding"]["name"], self.namespace)
        assert secret is not None, f"clone {self.name} has no binding"
        number = secret["metadata"]["annotations"]["coppice.dev/copy"]
        labels = f"coppice.dev/owner-name={self.name},coppice.dev/copy={number}"
        pods = self.kube.items("pods", "-n", self.namespace, "-l", labels)
        return next(pod for pod in pods if "deletionTimestamp" not in pod["metadata"])

    @property
    def admin_password(self) -> str:
        """Return the password of the clone's own administrator."""
        selector = f"coppice.dev/owner-uid={self.uid}"
        names = self.kube.run("get", "secrets", "-n", self.namespace, "-l", selector, "-o", "name").split()
        name = next(name for name in names if name.endswith("-engine"))
        return self.kube.binding(self.namespace, name.removeprefix("secret/"))["admin-password"]

    def sql(self, statements: str) -> list[Row]:
        """Run statements with the login that apps have."""
        return sql(self.kube, self.pod, statements, login_of(self.binding))

    def admin_sql(self, statements: str) -> list[Row]:
        """Run statements as the clone's administrator."""
        login = administrator(self.pod, self.admin_password, self.binding["database"])
        return sql(self.kube, self.pod, statements, login)

    def request(self, verb: str) -> str:
        """Ask for something (reset, extend) as the documentation says; return the time that was written."""
        moment = self.kube.time()
        annotation = f"coppice.dev/{verb}-requested-at={moment}"
        self.kube.run("annotate", "-n", self.namespace, f"dclone/{self.name}", "--overwrite", annotation)
        return moment

    def patch(self, **spec: Any) -> None:
        """Change the specification."""
        self.kube.patch("dclone", self.name, self.namespace, {"spec": spec})

    def delete(self) -> None:
        """Delete the clone and wait until it is gone."""
        self.kube.run("delete", "-n", self.namespace, f"dclone/{self.name}", "--wait", "--timeout=240s")


def ask_clones(kube: Kube, namespace: str, statements: str) -> dict[str, list[Row]]:
    """Run the same statements on all clones of a namespace as their apps; return the rows by the clone's name."""
    found = kube.items("pods", "-n", namespace, "-l", "coppice.dev/role=clone")
    pods = {str(pod["metadata"]["labels"]["coppice.dev/owner-name"]): pod for pod in found}
    logins = {name: login_of(kube.binding(namespace, f"{name}-binding")) for name in pods}
    rows = sql_each(kube, namespace, [(pod, logins[name]) for name, pod in pods.items()], statements)
    return dict(zip(pods, rows, strict=True))
