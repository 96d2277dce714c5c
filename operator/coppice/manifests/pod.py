"""Pods that run an engine: a store's server, a clone's server, a preparation, the server of a scratch copy, and the two
that fill a mirror's new copy.

They meet PodSecurity ``restricted``, carry no service account token, and get the administrator's image for the
engine's version: nothing of a user's object reaches the Pod but names, sizes and the node selector of the store.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from coppice.core import labels as known
from coppice.engines.base import DATA_PATH, LOAD_PATH, RUN_PATH, SOURCE_PATH, Workload
from coppice.engines.tls import CERTIFICATE_PATH
from coppice.manifests.meta import Owner, build_metadata
from coppice.manifests.secret import added_name

Role = Literal["store", "clone", "prepare", "scratch", "dump", "restore"]
ROLES: Final[Container[str]] = frozenset(get_args(Role))
_RESTARTED: Final[Container[Role]] = ("store", "clone")
_LISTENING: Final[Container[Role]] = ("store", "clone", "scratch")
ENGINE_CONTAINER = "engine"
LOAD_CONTAINER = "load"
TLS_CONTAINER = "tls"
"""Kubelet tells of containers in the order of their names: that of the engine stays the first."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Memory and CPU of a server, as Kubernetes quantities; memory is both request and limit, CPU is a request only,
    so that idle clones can burst.
    """

    memory: str
    cpu: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """What takes TLS before a server: the user's Secret of the type kubernetes.io/tls, and the authority's certificate
    by which the operator knows the proxy.
    """

    image: str
    workload: Workload
    secret: str
    ca: str
    resources: Resources = Resources(memory="32Mi", cpu="10m")


@dataclass(frozen=True, slots=True)
class ServerPod:
    """Everything a server's Pod is made from. ``load_volume`` is the source of the initial load as a Kubernetes
    volume (configMap or claim); ``source`` is the user's Secret with the login to a mirror's source; ``added`` are the
    keys that are in the Secret beside ``secret``, by which an older one is completed.
    """

    name: str
    owner: Owner
    role: Role
    image: str
    user_id: int
    workload: Workload
    claim: str
    secret: str | None
    resources: Resources
    node_selector: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    load_volume: Mapping[str, Any] | None = None
    source: str | None = None
    added: Collection[str] = ()
    proxy: Proxy | None = None
    grace_seconds: int = 30


def build_pod(pod: ServerPod) -> dict[str, Any]:
    """Return the Pod: restarted on failure for a server, run once for everything else, where what is half done is begun
    anew and not gone on with.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": build_metadata(
            pod.name,
            pod.owner,
            labels={known.ROLE: pod.role, **pod.labels},
            annotations={**pod.annotations, **({} if pod.proxy is None else {known.TLS_CA: pod.proxy.ca})},
        ),
        "spec": _spec(pod),
    }


def _spec(pod: ServerPod) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always" if pod.role in _RESTARTED else "Never",
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "securityContext": _pod_security(pod.user_id),
    }
    if pod.node_selector:
        spec["nodeSelector"] = dict(pod.node_selector)
    if pod.workload.load_script is not None and pod.load_volume is not None:
        spec["initContainers"] = [_load_container(pod, pod.workload.load_script)]
    spec["containers"] = [_engine_container(pod), *([] if pod.proxy is None else [_proxy_container(pod.proxy)])]
    spec["volumes"] = _volumes(pod)
    return spec


def _pod_security(user_id: int) -> dict[str, Any]:
    # OnRootMismatch: with the default policy kubelet walks the whole copy and changes the modes a server checks
    # (PostgreSQL refuses such a directory).
    return {
        "runAsNonRoot": True,
        "runAsUser": user_id,
        "runAsGroup": user_id,
        "fsGroup": user_id,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(pod: ServerPod, name: str, script: str, *, secret_environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": _shell(script),
        "env": _environment(pod, secret_environment),
        "resources": {
            "requests": {"cpu": pod.resources.cpu, "memory": pod.resources.memory},
            "limits": {"memory": pod.resources.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_PATH},
            {"name": "run", "mountPath": RUN_PATH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount point of the Pod, an emptyDir of its own
        ],
    }


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-eu", "-c", _literal(script)]


def _literal(text: str) -> str:
    """Return what a container is to be given so that it gets this text: kubelet reads ``$(NAME)`` as a reference and
    ``$$`` as a dollar, in commands, probes and environment alike
    (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#entrypoint).
    """
    return text.replace("$", "$$")


def _environment(pod: ServerPod, secret_environment: Mapping[str, str]) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": _literal(value)} for name, value in sorted(pod.workload.environment.items())]
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": _secret_of(pod, key), "key": key}}}
        for name, key in sorted(secret_environment.items())
    ]
    return plain + secret


def _secret_of(pod: ServerPod, key: str) -> str | None:
    return added_name(pod.secret) if pod.secret is not None and key in pod.added else pod.secret


def _load_container(pod: ServerPod, script: str) -> dict[str, Any]:
    # It runs what somebody else wrote: without a password.
    container = _container(pod, LOAD_CONTAINER, script, secret_environment={})
    container["volumeMounts"].append({"name": "load", "mountPath": LOAD_PATH, "readOnly": True})
    return container


def _engine_container(pod: ServerPod) -> dict[str, Any]:
    workload = pod.workload
    container = _container(pod, ENGINE_CONTAINER, workload.script, secret_environment=workload.secret_environment)
    if pod.source is not None:
        container["volumeMounts"].append({"name": "source", "mountPath": SOURCE_PATH, "readOnly": True})
    if pod.role not in _LISTENING:
        return container
    port = pod.workload.port
    container["ports"] = [{"name": "engine", "containerPort": port, "protocol": "TCP"}]
    if workload.remotes_port is not None:
        container["ports"].append({"name": "remotes", "containerPort": workload.remotes_port, "protocol": "TCP"})
    if pod.workload.wait_script is not None:
        # Kubelet runs the first readiness probe as the container starts and the next one a period later, so a probe
        # that waits by itself makes the Pod Ready the moment the server answers, and a long period keeps twenty idle
        # clones from costing twenty processes a second.
        container["readinessProbe"] = {
            "exec": {"command": _shell(pod.workload.wait_script)},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 2,
        }
    container["livenessProbe"] = {
        "tcpSocket": {"port": port},
        "initialDelaySeconds": 10,
        "periodSeconds": 10,
        "failureThreshold": 30,
    }
    return container


def _proxy_container(proxy: Proxy) -> dict[str, Any]:
    """Return the container that takes TLS: without the data, and without the server's passwords."""
    port, environment = proxy.workload.port, proxy.workload.environment
    return {
        "name": TLS_CONTAINER,
        "image": proxy.image,
        "imagePullPolicy": "IfNotPresent",
        "command": _shell(proxy.workload.script),
        "env": [{"name": name, "value": _literal(value)} for name, value in sorted(environment.items())],
        "ports": [{"name": "tls", "containerPort": port, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": proxy.resources.cpu, "memory": proxy.resources.memory},
            "limits": {"memory": proxy.resources.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Once: the container ends with the proxy, which writes each connection without TLS into its log as an error.
        "startupProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 60},
        "volumeMounts": [
            {"name": "certificate", "mountPath": CERTIFICATE_PATH, "readOnly": True},
            {"name": "tls-run", "mountPath": RUN_PATH},
        ],
    }


def tls_of(pod: Mapping[str, Any]) -> tuple[int, str | None] | None:
    """Return the port on which a Pod takes TLS, and the authority by which it is known; None for one without TLS.

    One whose authority somebody took away is not one without TLS.
    """
    ca = (pod["metadata"].get("annotations") or {}).get(known.TLS_CA)
    takers = (entry for entry in pod["spec"]["containers"] if entry["name"] == TLS_CONTAINER)
    return next(((int(entry["ports"][0]["containerPort"]), ca) for entry in takers), None)


def _volumes(pod: ServerPod) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": pod.claim}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if pod.load_volume is not None:
        volumes.append({"name": "load", **pod.load_volume})
    if pod.proxy is not None:
        items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
        certificate = {"secretName": pod.proxy.secret, "defaultMode": 0o440, "items": items}
        volumes.append({"name": "certificate", "secret": certificate})
        volumes.append({"name": "tls-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if pod.source is not None:
        volumes.append({"name": "source", "secret": {"secretName": pod.source, "defaultMode": 0o440}})
    return volumes
