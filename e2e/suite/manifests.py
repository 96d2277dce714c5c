"""The objects that the stories apply, with what is the same in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

API = "coppice.dev/v1alpha1"
PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parents[2] / "examples"
Manifest = dict[str, Any]


def resource(kind: str, name: str, namespace: str, spec: Manifest) -> Manifest:
    """Return an object of Coppice's API group."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def data_store(name: str, namespace: str, *, managed: Manifest | None = None, **spec: Any) -> Manifest:
    """Return a small managed Dolt store; ``managed`` and ``spec`` add to what it says."""
    server = {"version": "1.83", "storage": {"size": "1Gi"}, "resources": {"memory": "512Mi"}, **(managed or {})}
    return resource("DataStore", name, namespace, {"engine": "dolt", "managed": server, **spec})


POSTGRESQL = {"version": "15", "storage": {"size": "1Gi"}, "resources": {"memory": "256Mi"}}
"""What ``managed`` of a small PostgreSQL store says."""


def data_grant(name: str, namespace: str, *, store: str, to: list[str], **terms: Any) -> Manifest:
    """Return a grant to namespaces by name: clones of all rows, unless ``terms`` say otherwise."""
    spec = {"store": store, "to": {"namespaces": to}, "verbs": ["Clone"], "data": "Raw", **terms}
    return resource("DataGrant", name, namespace, spec)


def data_clone(name: str, namespace: str, *, store: str, owners: str | None = None, **spec: Any) -> Manifest:
    """Return a clone of a store's main branch, or of what ``source`` names instead."""
    source = spec.pop("source", {"branch": "main"})
    where = {"name": store} if owners is None else {"name": store, "namespace": owners}
    return resource("DataClone", name, namespace, {"from": {"store": where, **source}, **spec})


def data_snapshot(name: str, namespace: str, *, store: str) -> Manifest:
    """Return a snapshot of a store."""
    return resource("DataSnapshot", name, namespace, {"store": {"name": store}})


def example(path: str, namespace: str, *, store: str, owners: str) -> list[Manifest]:
    """Return the objects of an example as they stand, but for this namespace and this store in the place of theirs."""
    manifests: list[Manifest] = list(yaml.safe_load_all((EXAMPLES / path).read_text(encoding="utf-8")))
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
        match manifest["kind"]:
            case "DataClone":
                manifest["spec"]["from"]["store"] = {"name": store, "namespace": owners}
            case "DataSnapshot":
                manifest["spec"]["store"] = {"name": store}
    return manifests


def program(name: str) -> str:
    """Return the source of one of ``programs/``."""
    return (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")


def client_pod(name: str, namespace: str, server: Manifest, script: str, *, secret: str) -> Manifest:
    """Return a Pod that runs a script, once, with the programs of a server's image and the values of a binding."""
    container = {
        "name": name,
        "image": server["spec"]["containers"][0]["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", f"PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)\n{script}"],
        "envFrom": [{"secretRef": {"name": secret}}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return _once(name, namespace, container, user=999)


def python_pod(
    name: str, namespace: str, *, image: str, runs: str, env: dict[str, str] | None = None, **spec: Any
) -> Manifest:
    """Return a Pod that runs one of ``programs/`` with the operator's Python, once."""
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "-c", program(runs)],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return _once(name, namespace, container, user=65532, **spec)


def _once(name: str, namespace: str, container: Manifest, *, user: int, **spec: Any) -> Manifest:
    """Return a Pod that runs a container once, as the strictest namespaces admit it."""
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": pod}
