"""What the stories do with a cluster: kubectl, as a user has it, and SQL through a Pod."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from e2e.harness.shell import CommandError
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.harness.cluster import Cluster

OWNED_KINDS = "pods,persistentvolumeclaims,secrets,services,networkpolicies,volumesnapshots,volumesnapshotcontents"
OPERATOR = ("-n", "coppice-system")
TIMEOUT = "--timeout=240s"


@dataclass(frozen=True, slots=True)
class Kube:
    """One cluster."""

    cluster: Cluster

    def run(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints. Raises CommandError."""
        return self.cluster.run_kubectl(*words, stdin=stdin)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply manifests as `kubectl apply -f -` does."""
        self.run("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def refused(self, *manifests: dict[str, Any]) -> str:
        """Apply manifests that must be refused; return the message."""
        try:
            self.apply(*manifests)
        except CommandError as error:
            return str(error)
        raise AssertionError("the API server accepted what it must refuse")

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return an object, or None."""
        where = ("-n", namespace) if namespace else ()
        text = self.run("get", kind, name, *where, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text else None

    def items(self, kinds: str, *words: str) -> list[dict[str, Any]]:
        """Return all objects of some kinds that the words (-n, -A, -l) select."""
        found: list[dict[str, Any]] = json.loads(self.run("get", kinds, *words, "-o", "json"))["items"]
        return found

    def ready(self, namespace: str, *names: str) -> None:
        """Wait until all of these (kind/name) are Ready."""
        self.run("wait", "-n", namespace, "--for=condition=Ready", *names, TIMEOUT)

    def reason(self, kind: str, name: str, namespace: str, condition: str = "Ready") -> str:
        """Return the reason of a condition, or an empty string."""
        return str(self.condition(kind, name, namespace, condition).get("reason", ""))

    def condition(self, kind: str, name: str, namespace: str, condition: str = "Ready") -> dict[str, Any]:
        """Return a condition, or an empty mapping."""
        found = self.get(kind, name, namespace) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == condition), {})

    def until_reason(self, reason: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """Wait until Ready has this reason; return the condition."""
        return eventually(
            lambda: found if (found := self.condition(kind, name, namespace)).get("reason") == reason else {},
            f"{kind}/{name} says {reason}; it says {self.condition(kind, name, namespace)}",
        )

    def new_namespace(self, test: str, **labels: str) -> str:
        """Make a namespace named after a test; one of an earlier run that failed is removed first."""
        name = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:40].strip("-")
        name = f"{name}-{hashlib.sha256(test.encode()).hexdigest()[:4]}"
        self.delete_namespace(name)
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted", **labels}},
        }
        self.apply(manifest)
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace and wait until it is gone."""
        self.run("delete", "namespace", name, "--ignore-not-found", "--wait", TIMEOUT)

    def binding(self, namespace: str, secret: str) -> dict[str, str]:
        """Return a Secret's values as text."""
        found = self.get("secret", secret, namespace)
        assert found is not None, f"there is no Secret {secret}"
        return {key: b64decode(value).decode() for key, value in found["data"].items()}

    def sql(
        self, namespace: str, pod: str, query: str, *, user: str, password: str, database: str
    ) -> list[dict[str, Any]]:
        """Run a query on a Dolt server from inside its own Pod, over TCP, with the given login. Raises CommandError."""
        client = [
            "dolt", "--host", "127.0.0.1", "--port", "3306", "--no-tls", "--user", user, "--password", password,
            "--use-db", database, "sql", "-r", "json", "-q", query,
        ]  # fmt: skip
        # HOME is where the Pod lets anybody write; the server's own HOME must not be touched.
        text = self.run(
            "exec", "-n", namespace, pod, "-c", "engine", "--", "env", "HOME=/tmp", "DOLT_ROOT_PATH=/tmp", *client
        )
        return json.loads(text).get("rows", []) if text.strip() else []

    def owned_by(self, uid: str) -> list[str]:
        """Return the names of everything made for the object with this UID."""
        return self.run("get", OWNED_KINDS, "-A", "-l", f"coppice.dev/owner-uid={uid}", "-o", "name").split()

    def describe_trouble(self) -> str:
        """Return the state of all Coppice objects, the latest events, and the operator's log."""
        parts = [
            self.run("get", "dstore,dgrant,dsnap,dbranch,dclone", "-A"),
            self.run("get", "pods,pvc,volumesnapshots", "-A"),
            self.run("get", "events", "-A", "--sort-by=.metadata.creationTimestamp")[-6000:],
            self.run("logs", *OPERATOR, "deployment/coppice", "--tail=60"),
        ]
        return "\n\n".join(parts)
