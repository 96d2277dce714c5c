"""Argo CD for the stories: the released one of the cluster where there is one, else its programs beside the cluster.

Where no registry is, no image of Argo CD can be had; its controllers and its repository server are programs that need
nothing but an API server, git and a Redis, and run as processes of this machine. They end with whoever started them.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import debian, toolchain
from e2e.harness.settings import from_environment
from e2e.suite.processes import LOOPBACK, free_ports, process
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

NAMESPACE: Final = "argocd"
KINDS: Final = ("applicationsets.argoproj.io", "applications.argoproj.io", "appprojects.argoproj.io")
ADDRESS: Final = "COPPICE_E2E_ARGOCD"
"""The address under which Pods reach this machine: the Argo CD that the cluster has is used, and finds git and the
forge there.
"""
ASKPASS: Final = Path("/tmp/reposerver-ask-pass.sock")
"""Argo CD's own name for a socket of its repository server; it cannot be told another."""


@dataclass(frozen=True, slots=True)
class ArgoCD:
    """A running Argo CD; ``address`` is where it finds what is served on this machine."""

    kube: Kube
    address: str
    logs: Path

    def application(self, name: str) -> Manifest:
        """Return an Application, or an empty mapping."""
        return self.kube.get("applications.argoproj.io", name, NAMESPACE) or {}

    def health(self, name: str) -> str:
        """Return an Application's health."""
        return str(self.application(name).get("status", {}).get("health", {}).get("status", ""))

    def look(self, application_set: str) -> None:
        """Have the forge asked now: what a webhook of it does."""
        self._nudge("applicationset", application_set, "application-set-refresh=true")

    def refresh(self, application: str) -> None:
        """Have git asked now: what a webhook of it does."""
        self._nudge("application", application, "refresh=normal")

    def until_synced(self, name: str, revision: str, *, health: str = "Healthy") -> Manifest:
        """Wait until an Application is Synced to a revision, by an operation that has ended well, and has this health;
        return it.
        """

        def synced() -> Manifest:
            found = self.application(name)
            status = found.get("status", {})
            operation, sync = status.get("operationState", {}), status.get("sync", {})
            revisions = {sync.get("revision"), operation.get("syncResult", {}).get("revision")}
            states = (operation.get("phase"), sync.get("status"), status.get("health", {}).get("status"))
            return found if revisions == {revision} and states == ("Succeeded", "Synced", health) else {}

        try:
            return eventually(synced, f"Application {name} is Synced to {revision[:7]} and {health}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(name)}") from error

    def describe(self, name: str) -> str:
        """Return what somebody would look at who wonders about an Application."""
        logs = (f"--- {log.stem}\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(self.logs.glob("*.log")))
        return "\n".join([json.dumps(self.application(name).get("status"), indent=1), *logs])

    def _nudge(self, kind: str, name: str, annotation: str) -> None:
        where = ("-n", NAMESPACE, f"{kind}s.argoproj.io", name)
        self.kube.run("annotate", "--overwrite", *where, f"argocd.argoproj.io/{annotation}")


@contextmanager
def running(kube: Kube, folder: Path, settings: str) -> Iterator[ArgoCD]:
    """Give an Argo CD with these settings besides its own; of one that is started here nothing is left."""
    address = os.environ.get(ADDRESS)
    if address:
        _set(kube, settings)
        yield ArgoCD(kube, address, folder)
        return
    debian.install_host_packages(debian.GITOPS_PACKAGES)
    programs = toolchain.build(toolchain.ARGOCD, from_environment(os.environ))
    try:
        _install(kube, programs / "manifests")
        # Before it starts: what it has read of the cluster until it sees them, it judges without.
        _set(kube, settings)
        with _processes(kube, programs, folder):
            yield ArgoCD(kube, LOOPBACK, folder)
    finally:
        _uninstall(kube, programs / "manifests")


def _install(kube: Kube, manifests: Path) -> None:
    """Apply what the release has besides its programs."""
    kube.delete_namespace(NAMESPACE)
    kube.run("apply", "--server-side", *_files(manifests / "crds"))
    eventually(lambda: _served(kube) == set(KINDS), "Argo CD's kinds are served", patience=60)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    kube.run("apply", "-n", NAMESPACE, *_files(manifests / "base/config"))
    kube.patch("secret", "argocd-secret", NAMESPACE, {"stringData": {"server.secretkey": secrets.token_hex(16)}})


def _set(kube: Kube, settings: str) -> None:
    """Hand settings over as docs/argocd.md has it."""
    kube.run("patch", "configmap", "argocd-cm", "-n", NAMESPACE, "--type=merge", "--patch", settings)


def _uninstall(kube: Kube, manifests: Path) -> None:
    """Remove it, and the finalizers that nobody is there to serve any more."""
    for kind in _served(kube):
        for item in kube.items(kind, "-n", NAMESPACE):
            kube.patch(kind, item["metadata"]["name"], NAMESPACE, {"metadata": {"finalizers": None}})
    kube.delete_namespace(NAMESPACE)
    kube.run("delete", "--ignore-not-found", *_files(manifests / "crds"), "--timeout=60s")
    ASKPASS.unlink(missing_ok=True)


def _served(kube: Kube) -> set[str]:
    return set(kube.run("api-resources", "--api-group=argoproj.io", "--output=name", "--cached=false").split())


def _files(folder: Path) -> list[str]:
    return [f"--filename={path}" for path in sorted(folder.glob("*.yaml")) if path.stem != "kustomization"]


@contextmanager
def _processes(kube: Kube, programs: Path, folder: Path) -> Iterator[None]:
    """Run them; each waits for those that it needs."""
    own = {"HOME": "home", "TMPDIR": "tmp", "ARGOCD_TLS_DATA_PATH": "tls", "ARGOCD_SSH_DATA_PATH": "ssh"}
    own |= {"ARGOCD_PLUGINSOCKFILEPATH": "plugins", "ARGOCD_APP_CONF_PATH": "config"}
    for name in own.values():
        (folder / name).mkdir()
    environment = {
        **kube.cluster.environment,
        **{name: str(folder / value) for name, value in own.items()},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
    }
    redis, repository, *others = (f"{LOOPBACK}:{port}" for port in free_ports(7))
    port = [address.rpartition(":")[2] for address in (redis, repository, *others)]
    plain = "--repo-server-plaintext"
    commands: dict[str, list[str]] = {
        "redis-server": ["--port", port[0], "--bind", LOOPBACK, "--save", ""],
        "argocd-repo-server": [
            *(f"--address={LOOPBACK}", f"--port={port[1]}", f"--metrics-address={LOOPBACK}"),
            *(f"--metrics-port={port[2]}", f"--redis={redis}", "--disable-tls"),
        ],
        "argocd-application-controller": [
            *(f"--namespace={NAMESPACE}", f"--redis={redis}", f"--repo-server={repository}", plain),
            f"--metrics-port={port[3]}",
        ],
        "argocd-applicationset-controller": [
            *(f"--namespace={NAMESPACE}", f"--argocd-repo-server={repository}", plain),
            *(f"--metrics-addr={others[2]}", f"--probe-addr={others[3]}", f"--webhook-addr={others[4]}"),
        ],
    }
    with ExitStack() as stack:
        for name, words in commands.items():
            program = name if name == "redis-server" else programs / "argocd"
            role = {**environment, "ARGOCD_BINARY_NAME": name}
            stack.enter_context(process(name, [program, *words], folder, role))
        yield
