"""Builds the pinned Go programs under e2e/toolchain once and keeps them in the cache.

Each directory there is a Go module that pins one program and all it is made of. A built program is named by the hash of
go.mod, go.sum, its own sources, the build flags and the Go version.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import cachekey, shell
from e2e.harness.settings import CHECKOUT

if TYPE_CHECKING:
    from e2e.harness.settings import Settings

MODULES: Final = CHECKOUT / "e2e" / "toolchain"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One module; `programs` maps the name of each binary to the package it is built from. `manifests` are folders of
    the pinned module whose YAML is kept beside the binaries.
    """

    module: str
    programs: dict[str, str]
    cgo: bool = False
    tags: str = ""
    pinned: str = ""
    stamp: str = ""
    manifests: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where its go.mod is."""
        return MODULES / self.module

    @property
    def version(self) -> str:
        """The version that go.mod pins for the module that counts, as "v1.2.3"."""
        return self.required(self.pinned)

    def required(self, module: str) -> str:
        """The version of another module that go.mod requires. Raises LookupError."""
        return required_version((self.directory / "go.mod").read_text(), module)

    @property
    def flags(self) -> tuple[str, ...]:
        """Arguments of `go build`, without output and packages."""
        linker = " ".join(["-s -w", *self._stamps()])
        return ("-trimpath", *(("-tags", self.tags) if self.tags else ()), "-ldflags", linker)

    def _stamps(self) -> list[str]:
        if not self.stamp:
            return []
        major, minor, *_ = self.version.removeprefix("v").split(".")
        values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor}
        return [f"-X {self.stamp}.{name}={value}" for name, value in values.items()]


def _kubernetes(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


KUBERNETES: Final = Tool(
    module="kubernetes",
    programs=_kubernetes(
        "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "kubeadm"
    ),
    pinned="k8s.io/kubernetes",
    stamp="k8s.io/component-base/version",
)
ETCD: Final = Tool(module="etcd", programs={"etcd": "go.etcd.io/etcd/server/v3"}, pinned="go.etcd.io/etcd/server/v3")
COREDNS: Final = Tool(
    module="coredns", programs={"coredns": "github.com/coredns/coredns"}, pinned="github.com/coredns/coredns"
)
KIND: Final = Tool(module="kind", programs={"kind": "sigs.k8s.io/kind"}, pinned="sigs.k8s.io/kind")
PAUSE: Final = Tool(module="pause", programs={"pause": "coppice.dev/e2e/toolchain/pause"})
DOLT: Final = Tool(
    module="dolt",
    programs={"dolt": "github.com/dolthub/dolt/go/cmd/dolt"},
    cgo=True,
    tags="gms_pure_go",
    pinned="github.com/dolthub/dolt/go",
)
CSI: Final = Tool(
    module="csi",
    programs={
        "csi-resizer": "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
        "csi-snapshotter": "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
        "snapshot-controller": "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
    },
)
CSI_PROVISIONER: Final = Tool(
    module="csi-provisioner",
    programs={"csi-provisioner": "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"},
)
SANITY: Final = Tool(module="sanity", programs={"csi-sanity": "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"})
HELM: Final = Tool(module="helm", programs={"helm": "helm.sh/helm/v3/cmd/helm"})
ARGOCD: Final = Tool(
    module="argocd",
    # Which of Argo CD's programs it is, the name under which it is started says; it runs kustomize itself.
    programs={"argocd": "github.com/argoproj/argo-cd/v3/cmd", "kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
    pinned="github.com/argoproj/argo-cd/v3",
    manifests=("manifests/crds", "manifests/base/config"),
)
TOOLS: Final = {
    tool.module: tool
    for tool in (KUBERNETES, ETCD, COREDNS, KIND, PAUSE, DOLT, CSI, CSI_PROVISIONER, SANITY, HELM, ARGOCD)
}


def installed_or_built(name: str, settings: Settings) -> Path:
    """The program of this name that the machine has, else the pinned one, which is built. Raises CommandError."""
    found = shutil.which(name)
    return Path(found) if found else build(TOOLS[name], settings) / name


def required_version(go_mod: str, module: str) -> str:
    """The version that the text of a go.mod requires of a module. Raises LookupError."""
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise LookupError(f"go.mod requires no {module}")
    return found.group(1)


def key(tool: Tool, *, go_version: str) -> str:
    """The name of the built result in the cache."""
    sources = cachekey.digest_tree(tool.directory)
    return cachekey.digest([sources, go_version, str(tool.cgo), *tool.flags, *tool.programs.values(), *tool.manifests])


def build(tool: Tool, settings: Settings) -> Path:
    """Build what the cache lacks and return the directory with the binaries. Raises CommandError."""
    target = settings.bin / f"{tool.module}-{key(tool, go_version=_go_version())}"
    if target.is_dir():
        return target
    with shell.step(f"build {tool.module} (Go, from pinned modules)"):
        settings.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            output = Path(scratch, "bin")
            output.mkdir()
            _go_build(tool, output)
            _copy_manifests(tool, output)
            cachekey.keep(output, target)
    return target


def _go_build(tool: Tool, output: Path) -> None:
    # One `go build` for all programs of a module shares their packages. It names a binary after the last element of
    # its package path, so a program with another name needs a run (and -o) of its own.
    alike = {name: package for name, package in tool.programs.items() if package.endswith(f"/{name}")}
    others = {name: package for name, package in tool.programs.items() if name not in alike}
    runs = [(f"{output}/", list(alike.values()))] if alike else []
    runs += [(str(output / name), [package]) for name, package in others.items()]
    for place, packages in runs:
        shell.run(
            ["go", "build", *tool.flags, "-o", place, *packages],
            env={"CGO_ENABLED": "1" if tool.cgo else "0"},
            cwd=tool.directory,
        )


def _copy_manifests(tool: Tool, output: Path) -> None:
    if not tool.manifests:
        return
    source = shell.run(["go", "list", "-m", "-f", "{{.Dir}}", tool.pinned], cwd=tool.directory).strip()
    for folder in tool.manifests:
        (output / folder).mkdir(parents=True)
        for path in Path(source, folder).glob("*.yaml"):
            shutil.copyfile(path, output / folder / path.name)


@cache
def _go_version() -> str:
    if shutil.which("go") is None:
        raise shell.CommandError(
            "no `go` in PATH: install Go 1.26 or newer (https://go.dev/dl/), it builds the cluster"
        )
    return shell.run(["go", "env", "GOVERSION"], cwd=KUBERNETES.directory).strip()
