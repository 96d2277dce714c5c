"""A database that somebody else runs: a StatefulSet's Pod on its claim, a Service, and a Secret for Coppice.

None of its objects is Coppice's, and ``touched`` names what the operator has written to any of them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tests.fakes.engine import Server, Volume
from tests.fakes.kube import Object
from tests.fakes.story import Story

from coppice.core.key import Key

NAMES = {
    "PersistentVolumeClaim": "data-pg-0",
    "Pod": "pg-0",
    "Service": "pg",
    "Secret": "pg-coppice",
}
ADDRESS = "10.9.0.1"
OWNER = 26


def encoded(**values: str) -> dict[str, str]:
    return {key.replace("_", "."): b64encode(value.encode()).decode() for key, value in values.items()}


def add_source(story: Story, *rows: str, user: int | None = OWNER, **secret: str) -> Server:
    """Bring up a database with these rows; the operator's login is ``coppice``."""
    add_claim(story)
    story.world.turn()
    story.world.turn()
    volume = story.world.volume("data", NAMES["PersistentVolumeClaim"])
    volume.initialise("shop", frozenset(rows), story.world.now)
    volume.marker, volume.layout, volume.owner = "", "pgdata", 999 if user is None else user
    volume.users = {"boss": "bosses-own", "coppice": "looks"}
    volume.remotes = {"elsewhere"}
    add_service(story)
    add_secret(story, **{"username": "coppice", "password": "looks", **secret})
    return add_pod(story, volume, user=user)


def add_claim(
    story: Story, name: str = NAMES["PersistentVolumeClaim"], *, storage_class: str | None = "fast", **more: Any
) -> None:
    named = {} if storage_class is None else {"storageClassName": storage_class}
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "data", "labels": {"app": "pg"}},
            "spec": {**named, "resources": {"requests": {"storage": "3Gi"}}},
            **more,
        }
    )


def add_service(story: Story, **spec: Any) -> None:
    ports = [{"name": "sql", "port": 3306, "targetPort": "sql"}]
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAMES["Service"], "namespace": "data", "labels": {"app": "pg"}},
            "spec": {"selector": {"app": "pg"}, "ports": ports, **spec},
        }
    )


def add_secret(
    story: Story,
    *,
    name: str = NAMES["Secret"],
    store: str | None = "shop",
    consent: Mapping[str, str] = MappingProxyType({}),
    **values: str,
) -> None:
    given = {**({} if store is None else {"coppice.dev/store": store}), **consent}
    annotations = {"annotations": given} if given else {}
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "data", **annotations},
            "data": encoded(**values),
        }
    )


def add_pod(
    story: Story,
    volume: Volume,
    *,
    name: str = NAMES["Pod"],
    claim: str = NAMES["PersistentVolumeClaim"],
    user: int | None = OWNER,
    address: str = ADDRESS,
    before: Sequence[Object] = (),
    labels: Mapping[str, str] = MappingProxyType({"app": "pg"}),
    **of_container: Any,
) -> Server:
    """Start the server's Pod, as its StatefulSet would: Ready at an address."""
    container = {
        "name": "pg",
        "image": "example.com/theirs",
        "ports": [{"name": "sql", "containerPort": 3306}],
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/data"}],
        **of_container,
    }
    pod = story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "data", "labels": dict(labels)},
            "spec": {
                "containers": [*before, container],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
                **({} if user is None else {"securityContext": {"runAsUser": user}}),
            },
            "status": {
                "phase": "Running",
                "nodeName": "node-1",
                "podIP": address,
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "pg", "state": {"running": {}}}],
            },
        }
    )
    server = Server(volume, pod["metadata"]["uid"], listening=True)
    story.world.engine.servers[address] = server
    return server


def unready(pod: Object) -> None:
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]


def server_of(story: Story) -> Server:
    return story.world.engine.servers[ADDRESS]


def touched(story: Story) -> list[str]:
    """Return what the operator wrote to the source: it must be nothing."""
    objects = {Key(kind, "data", name) for kind, name in NAMES.items()}
    written = [f"{call.verb} {call.key}" for call in story.kube.calls if call.verb not in {"get", "list"}]
    return [entry for entry in written if any(entry.endswith(f" {key}") for key in objects)]


def stands(story: Story) -> dict[str, Any]:
    """Return what is there of the source, as its owners left it; the cluster's own marks on the claim are not theirs."""
    found = {}
    for kind, name in NAMES.items():
        one = story.kube.peek(kind, "data", name)
        if one is not None:
            metadata = one["metadata"]
            kept = {key: metadata.get(key) for key in ("uid", "labels", "annotations", "ownerReferences")}
            found[kind] = (kept, one.get("spec") or one.get("data"))
    return found
