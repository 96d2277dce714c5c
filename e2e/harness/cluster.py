"""The one interface between a cluster and the tests: what it is called, how to reach it, what it can do."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from e2e.harness import settings as settings_module
from e2e.harness import shell, transfer

if TYPE_CHECKING:
    from e2e.harness.settings import Profile, Provider, Settings

STATE_FILE: Final = "cluster.json"
LOADED_FILE: Final = "loaded-images.json"


class ClusterError(RuntimeError):
    """There is no such cluster, or it cannot do what was asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster; `state` is the harness's directory for it."""

    name: str
    provider: Provider
    profile: Profile
    kubeconfig: Path
    kubectl: Path
    state: Path
    storage_class: str
    snapshot_class: str
    network_policies_enforced: bool = False
    docker_host: str | None = None
    load_image_command: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to reach the cluster and, where there is one, the engine it runs in."""
        docker = {"DOCKER_HOST": self.docker_host} if self.docker_host else {}
        return {"KUBECONFIG": str(self.kubeconfig), **docker}

    @property
    def has_local_storage(self) -> bool:
        """Whether its volumes are those of coppice-local, which is installed with the chart."""
        return self.storage_class == settings_module.LOCAL_CLASS

    @property
    def node(self) -> transfer.Node:
        """The node, where the harness made it."""
        name = f"{self.name}-control-plane"
        return transfer.Node(name=name, environment=self.environment, scratch=self.state / "transfer")

    def run_kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster and return its output. Raises CommandError."""
        return shell.run([self.kubectl, *words], env=self.environment, stdin=stdin)

    def is_healthy(self) -> bool:
        """Whether the API server calls itself ready."""
        ready: list[str | Path] = [self.kubectl, "get", "--raw=/readyz", "--request-timeout=5s"]
        return self.kubeconfig.is_file() and shell.succeeds(ready, env=self.environment)

    def load_image(self, ref: str) -> bool:
        """Make an image of the local engine available to Pods; False if the very same image already was.

        Raises ClusterError where the harness does not know how, CommandError where it fails.
        """
        if self.load_image_command:
            shell.run(shlex.split(self.load_image_command.replace("{image}", shlex.quote(ref))), env=self.environment)
            return True
        if self.provider == "existing":
            raise ClusterError(
                f"the harness did not make this cluster and cannot load {ref} into it: set COPPICE_E2E_LOAD_IMAGE to a "
                "command that can, with {image} in the place of the name (for example: minikube image load {image})"
            )
        return self._load_into_kind(ref)

    def _load_into_kind(self, ref: str) -> bool:
        identity = shell.run(["docker", "image", "inspect", "--format={{.Id}}", ref], env=self.environment).strip()
        record = self.state / LOADED_FILE
        loaded: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
        if loaded.get(ref) == identity:
            return False
        if self.provider == "offline":
            self.node.load(ref)
        else:
            # `kind load docker-image` asks for all platforms: of those that an index names, Docker's containerd image
            # store has but the one it pulled (kind#3795, kind#4224, containerd#12908).
            form = "--format={{.Os}}/{{.Architecture}}"
            platform = shell.run(["docker", "image", "inspect", form, ref], env=self.environment).strip()
            ctr = ["docker", "exec", "-i", self.node.name, "ctr", "-n=k8s.io"]
            into = [*ctr, "images", "import", f"--platform={platform}", "-"]
            shell.pipe(["docker", "save", ref], into, env=self.environment)
        record.write_text(json.dumps({**loaded, ref: identity}, indent=2))
        return True

    def write(self) -> None:
        """Record this cluster, so that `current` finds it."""
        self.state.mkdir(parents=True, exist_ok=True)
        record = self.state / STATE_FILE
        record.with_suffix(".new").write_text(json.dumps(asdict(self), default=str, indent=2))
        record.with_suffix(".new").rename(record)

    @classmethod
    def read(cls, state: Path) -> Self | None:
        """The cluster recorded in this directory, if any."""
        record = state / STATE_FILE
        if not record.exists():
            return None
        values: dict[str, Any] = json.loads(record.read_text())
        paths = {name: Path(values[name]) for name in ("kubeconfig", "kubectl", "state")}
        return cls(**{**values, **paths})


def current(settings: Settings | None = None) -> Cluster:
    """The cluster tests run on: the one COPPICE_E2E_KUBECONFIG names, else the one `up` made. Raises ClusterError."""
    settings = settings or settings_module.from_environment(os.environ)
    if settings.kubeconfig is not None:
        return existing(settings)
    cluster = Cluster.read(settings.state)
    if cluster is None:
        raise ClusterError("there is no cluster: run `make cluster-up`, or set COPPICE_E2E_KUBECONFIG to use another")
    return cluster


def existing(settings: Settings) -> Cluster:
    """Somebody else's cluster, as COPPICE_E2E_KUBECONFIG and its companions describe it. Raises ClusterError."""
    if settings.kubeconfig is None or not settings.kubeconfig.is_file():
        raise ClusterError(f"COPPICE_E2E_KUBECONFIG={settings.kubeconfig or ''}: there is no such file")
    described = Cluster(
        name="existing",
        provider="existing",
        profile="stock",
        kubeconfig=settings.kubeconfig,
        kubectl=kubectl_in_path(),
        state=settings.state,
        storage_class=settings.storage_class,
        snapshot_class=settings.snapshot_class,
        load_image_command=settings.load_image_command,
    )
    checked = Cluster.read(settings.state)
    if checked is not None and checked.kubeconfig == described.kubeconfig:
        return replace(described, network_policies_enforced=checked.network_policies_enforced)
    return described


def kubectl_in_path() -> Path:
    """The kubectl of the machine. Raises ClusterError."""
    found = shutil.which("kubectl")
    if found is None:
        raise ClusterError("no `kubectl` in PATH: install it (https://kubernetes.io/docs/tasks/tools/)")
    return Path(found)
