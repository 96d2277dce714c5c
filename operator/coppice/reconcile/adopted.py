"""A database that somebody else runs in a store's namespace: what of it is there, and how to ask it.

It is looked at and never written to. Its claim, Service, Pods and Secret are not Coppice's, so that no watch tells of
them and no cache holds them: they are read anew at every look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coppice.api.v1alpha1 import Adopted
from coppice.core import labels
from coppice.core.plan import Manifest, ServerRef
from coppice.engines.base import Endpoint, Engine
from coppice.kube.client import KubeReader
from coppice.manifests.secret import Login, is_meant_for, read_login
from coppice.reconcile.observed import is_deleting, pod_state
from coppice.reconcile.reads import get_each


@dataclass(frozen=True, slots=True)
class Adoption:
    """An adopted database, as far as it is there. ``selected`` are the Pods that the Service leads to.

    ``writes``: the Secret is the one that approved changes are written with, and not the one that Coppice looks with.
    """

    namespace: str
    store: str
    wanted: Adopted
    claim: Manifest | None
    service: Manifest | None
    secret: Manifest | None
    selected: tuple[Manifest, ...]
    writes: bool = False

    @property
    def pod(self) -> Manifest | None:
        """Return the Pod of the server: Ready, selected by the Service, and with the claim on it; None without one.

        Both, for the Service alone may lead to a replica, or to anybody's Pod, and the claim alone may be mounted by a
        Job.
        """
        found = [pod for pod in self.selected if is_up(pod) and _volume_names(pod, self.wanted.claim_name)]
        return min(found, key=lambda pod: str(pod["metadata"]["name"]), default=None)

    @property
    def login(self) -> Login | None:
        """Return the login, if the Secret may be used for this store and is complete."""
        if self.secret is None or not is_meant_for(self.secret, self.store, consent=self.consent):
            return None
        return read_login(self.secret)

    @property
    def consent(self) -> str:
        """Return the annotation by which the Secret may be used."""
        return labels.WRITER_OF if self.writes else labels.STORE

    @property
    def secret_name(self) -> str:
        """Return the name of the Secret, whether it is there or not."""
        if not self.writes:
            return self.wanted.credentials_secret
        if self.wanted.writer is None:
            raise TypeError("nothing is written to a database without a writer")
        return self.wanted.writer.secret_name

    def endpoint(self, engine: Engine) -> Endpoint | None:
        """Return where to log in and as whom, or None while that is not known."""
        pod, login = self.pod, self.login
        if pod is None or login is None:
            return None
        port = self.server_port(engine)
        return Endpoint(str(pod_state(pod).ip), port, login.username, login.password, guarded=True, ca=login.ca)

    def server_ref(self, engine: Engine) -> ServerRef | None:
        """Return the server for a call, or None while there is none."""
        pod = self.pod
        if pod is None:
            return None
        return ServerRef(
            host=str(pod_state(pod).ip),
            port=self.server_port(engine),
            secret_namespace=self.namespace,
            secret_name=self.secret_name,
            adopted_by=self.store,
            writes=self.writes,
        )

    def service_port(self, engine: Engine) -> int:
        """Return the port on which applications find the server."""
        return self._ports(engine)[0]

    def server_port(self, engine: Engine) -> int:
        """Return the port on which the server listens in its Pod."""
        return self._ports(engine)[1]

    def _ports(self, engine: Engine) -> tuple[int, int]:
        """Return the Service's port, and the container's that it leads to.

        Of several it is the one with the engine's own number.
        """
        ports = [] if self.service is None else list(self.service["spec"].get("ports") or ())
        own = [port for port in ports if engine.port in {port["port"], port.get("targetPort")}]
        chosen = own[0] if own else ports[0] if len(ports) == 1 else {"port": engine.port}
        target = chosen.get("targetPort") or chosen["port"]
        if isinstance(target, str):
            target = _container_port(self.pod, target) or engine.port
        return int(chosen["port"]), int(target)

    def user_id(self, engine: Engine) -> int:
        """Return the numeric user that owns the files of the database.

        As root nothing of Coppice's runs: Kubernetes makes the files of a copy its group's instead (``fsGroup``).
        """
        found = self.wanted.user_id or (None if self.pod is None else _runs_as(self.pod, self.wanted.claim_name))
        return found or engine.user_id


async def read_adoption(reader: KubeReader, namespace: str, store: str, wanted: Adopted) -> Adoption:
    """Read what there is of an adopted database."""
    claim, service, secret = await get_each(
        reader,
        namespace,
        ("PersistentVolumeClaim", wanted.claim_name),
        ("Service", wanted.service),
        ("Secret", wanted.credentials_secret),
    )
    pods = await reader.list("Pod", namespace, selector) if (selector := selector_of(service)) else ()
    return Adoption(namespace, store, wanted, claim, service, secret, tuple(pods))


async def read_writer(reader: KubeReader, looked: Adoption) -> Adoption | None:
    """Read what the same database is written to with; None if nothing is."""
    if looked.wanted.writer is None:
        return None
    secret = await reader.get("Secret", looked.wanted.writer.secret_name, looked.namespace)
    return replace(looked, secret=secret, writes=True)


def selector_of(service: Manifest | None) -> Mapping[str, str]:
    """Return by which labels a Service finds its Pods; empty where others say what it leads to."""
    spec = {} if service is None else service["spec"]
    return {} if spec.get("type") == "ExternalName" else dict(spec.get("selector") or {})


def claims_of(pods: tuple[Manifest, ...]) -> list[str]:
    """Return the claims that Pods use, for a message."""
    return sorted(
        {
            str(volume["persistentVolumeClaim"]["claimName"])
            for pod in pods
            for volume in pod["spec"].get("volumes") or ()
            if "persistentVolumeClaim" in volume
        }
    )


def is_up(pod: Manifest) -> bool:
    """Return whether a Pod is Ready, at an address."""
    state = pod_state(pod)
    return state.ready and state.ip is not None and not is_deleting(pod)


def _volume_names(pod: Manifest, claim: str) -> set[str]:
    """Return the names under which a Pod has a claim among its volumes."""
    return {
        str(volume["name"])
        for volume in pod["spec"].get("volumes") or ()
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
    }


def _containers_on(pod: Manifest, claim: str) -> Iterator[Mapping[str, Any]]:
    names = _volume_names(pod, claim)
    for container in pod["spec"].get("containers") or ():
        if names & {mount["name"] for mount in container.get("volumeMounts") or ()}:
            yield container


def _runs_as(pod: Manifest, claim: str) -> int | None:
    """Return the user of the first container that has the claim mounted, where the Pod says it."""
    container = next(_containers_on(pod, claim), {})
    for context in (container.get("securityContext"), pod["spec"].get("securityContext")):
        if context and context.get("runAsUser") is not None:
            return int(context["runAsUser"])
    return None


def _container_port(pod: Manifest | None, name: str) -> int | None:
    containers = [] if pod is None else pod["spec"].get("containers") or ()
    ports = (port for container in containers for port in container.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == name), None)
