"""What the stories do with a cluster: kubectl, as a user has it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from e2e.harness import shell
from e2e.harness.shell import CommandError
from e2e.waiting import eventually

if TYPE_CHECKING:
    from typing import IO

    from e2e.harness.cluster import Cluster

OWNED_KINDS = "pods,persistentvolumeclaims,secrets,services,networkpolicies,volumesnapshots,volumesnapshotcontents"
OWNER_KINDS = "datastores,datagrants,datasnapshots,databranches,dataclones"
SYSTEM = "coppice-system"
OPERATOR = ("-n", SYSTEM)
OPERATOR_PODS = (*OPERATOR, "-l", "app.kubernetes.io/component=operator")
TIMEOUT = "--timeout=240s"
THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
"""Whether stories about many of something take as many as anybody asked for, as once a week."""


@dataclass(frozen=True, slots=True)
class Kube:
    """One cluster."""

    cluster: Cluster
    made: set[str] = field(default_factory=set)
    """The namespaces that stories made."""

    def run(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints. Raises CommandError."""
        return self.cluster.run_kubectl(*words, stdin=stdin)

    def start(self, *words: str, output: IO[str] | int, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start kubectl in the background; what it prints goes to ``output``."""
        command = [str(self.cluster.kubectl), *words]
        environment = shell.environment(self.cluster.environment)
        return subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=output, stderr=subprocess.DEVNULL, text=True
        )

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply manifests as `kubectl apply -f -` does."""
        self.run("apply", "-f", "-", stdin=self.yaml(*manifests))

    def yaml(self, *manifests: dict[str, Any]) -> str:
        """Return manifests as kubectl reads them."""
        return str(yaml.safe_dump_all(manifests))

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

    def patch(self, kind: str, name: str, namespace: str, change: dict[str, Any]) -> None:
        """Merge a change into an object."""
        self.run("patch", "-n", namespace, kind, name, "--type=merge", "-p", json.dumps(change))

    def status(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """Return an object's status, empty where there is none."""
        found = self.get(kind, name, namespace) or {}
        status: dict[str, Any] = found.get("status") or {}
        return status

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

    def until_reason(
        self, reason: str, kind: str, name: str, namespace: str, condition: str = "Ready"
    ) -> dict[str, Any]:
        """Wait until a condition has this reason; return it."""
        return eventually(
            lambda: (
                found if (found := self.condition(kind, name, namespace, condition)).get("reason") == reason else {}
            ),
            f"{condition} of {kind}/{name} in {namespace} says {reason}",
        )

    def events(self, kind: str, name: str, namespace: str) -> list[dict[str, Any]]:
        """Return the Events of an object, oldest first."""
        selector = f"involvedObject.name={name},involvedObject.kind={kind}"
        order = "--sort-by=.metadata.creationTimestamp"
        return self.items("events", "-n", namespace, f"--field-selector={selector}", order)

    def time(self) -> str:
        """Return the time as requests to a clone have it; on the machine that the cluster runs on, its clock's."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def new_namespace(self, test: str, **labels: str) -> str:
        """Make a namespace named after a test; one of an earlier run that failed is removed first."""
        name = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:40].strip("-")
        name = f"{name}-{hashlib.sha256(test.encode()).hexdigest()[:4]}"
        self.delete_namespace(name)
        self.make_namespace(name, **labels)
        return name

    def make_namespace(self, name: str, **labels: str) -> None:
        """Make a namespace as strict as users have it."""
        security = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.made.add(name)
        metadata = {"name": name, "labels": {**security, **labels}}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        # Without it, no Pod that a story makes itself is admitted.
        self.run("wait", "-n", name, "--for=create", "--timeout=60s", "serviceaccount/default")

    def delete_namespace(self, name: str, *, wait: bool = True) -> None:
        """Delete a namespace; with ``wait`` until it is gone."""
        patience = ("--wait", TIMEOUT) if wait else ("--wait=false",)
        self.run("delete", "namespace", name, "--ignore-not-found", *patience)

    def operator_image(self) -> str:
        """Return the operator's image, whose Python has what the suite's own programs need."""
        found = self.get("deployment", "coppice", SYSTEM)
        assert found is not None, "there is no operator"
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    def metrics(self) -> str:
        """Return what the operator serves to Prometheus."""
        return self.run("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/services/coppice-metrics:8080/proxy/metrics")

    def binding(self, namespace: str, secret: str) -> dict[str, str]:
        """Return a Secret's values as text."""
        found = self.get("secret", secret, namespace)
        assert found is not None, f"there is no Secret {secret}"
        return {key: b64decode(value).decode() for key, value in found["data"].items()}

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
