"""examples/argocd as it stands, but for where git, the forge and the store are, in a cluster with an Argo CD."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml

from e2e.story import QUICKSTART
from e2e.suite import argocd, repository
from e2e.suite.kube import SYSTEM
from e2e.suite.manifests import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.forge import Forge

    from e2e.suite.argocd import ArgoCD
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest
    from e2e.suite.repository import Repository

EXAMPLE = EXAMPLES / "argocd"
APPLICATION_SET = EXAMPLE / "applicationset.yaml"
PREVIEWS = "shop-previews"
"""What the ApplicationSet is called."""
SHOP = "acme/shop"
PRICE = "0.99"
"""Of the first track, in the store's data."""


@contextmanager
def installed(kube: Kube, folder: Path, forge: Forge, owners: str) -> Iterator[tuple[ArgoCD, Repository]]:
    """Have the owners' store by one Application, in a namespace of that name, and previews by an ApplicationSet."""
    kube.delete_namespace(owners)
    kube.make_namespace(owners)
    with (
        argocd.running(kube, folder, _settings(kube)) as running,
        forge.serving(running.address),
        repository.serving(folder, running.address) as git,
    ):
        _fill(git.checkout, owners)
        kube.apply(*_owners(git, owners))
        running.until_synced("shop-data", git.push("main", "the shop"))
        kube.apply(*_previews(git, forge))
        yield running, git
        for kind in ("applicationsets", "applications"):
            kube.run("delete", "-n", argocd.NAMESPACE, f"{kind}.argoproj.io", "--all", "--timeout=120s")
    kube.delete_namespace(owners, wait=False)


def name_of(number: int) -> str:
    """Return what the Application and the namespace of a pull request are called."""
    return f"shop-pr-{number}"


def _settings(kube: Kube) -> str:
    """Return what the chart has for Argo CD."""
    found = kube.get("configmap", "coppice-argocd", SYSTEM)
    assert found is not None, "the release has argocd.settings"
    return str(found["data"]["argocd-cm.yaml"])


def _fill(checkout: Path, owners: str) -> None:
    """Put the owners' manifests and the example into a repository."""
    data = checkout / "deploy/data"
    shutil.copytree(QUICKSTART / "data", data)
    kustomization = data / "kustomization.yaml"
    text = kustomization.read_text().replace("namespace: data", f"namespace: {owners}")
    for other in ("namespace", "branch", "app"):
        text = text.replace(f"- {other}.yaml\n", "")
    kustomization.write_text(text)
    preview = checkout / "deploy/preview"
    shutil.copytree(EXAMPLE / "preview", preview)
    clone = preview / "clone.yaml"
    clone.write_text(clone.read_text().replace("namespace: data", f"namespace: {owners}"))


def _owners(git: Repository, owners: str) -> list[Manifest]:
    """Return the Application with the store and the grant. Its SQL is too long for an annotation."""
    server = "https://kubernetes.default.svc"
    project = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    application = {
        "project": "owners",
        "source": {"repoURL": git.url, "targetRevision": "main", "path": "deploy/data"},
        "destination": {"server": server, "namespace": owners},
        "syncPolicy": {"automated": {"prune": True}, "syncOptions": ["ServerSideApply=true"]},
    }
    return [_argo("AppProject", "owners", project), _argo("Application", "shop-data", application)]


def _previews(git: Repository, forge: Forge) -> list[Manifest]:
    """Return the example, which looks at this machine for git and the forge."""
    text = APPLICATION_SET.read_text()
    project, previews = yaml.safe_load_all(text.replace("https://github.com/acme/shop.git", git.url))
    [generator] = previews["spec"]["generators"]
    generator["pullRequest"]["github"]["api"] = f"{forge.url}/"
    return [project, previews]


def _argo(kind: str, named: str, spec: Manifest) -> Manifest:
    metadata = {"name": named, "namespace": argocd.NAMESPACE}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
