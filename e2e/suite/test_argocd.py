"""Pull requests as most people meet them: Argo CD sees one, and there is a preview with its own data.

What is applied is examples/argocd as it stands, but for where git, the forge and the store are.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.fakes.forge import Forge

from e2e.harness.shell import CommandError
from e2e.leftovers import outside
from e2e.story import QUICKSTART, Shop
from e2e.suite import argocd, repository
from e2e.suite.data import Clone
from e2e.suite.kube import OPERATOR, OPERATOR_PODS, SYSTEM
from e2e.suite.manifests import EXAMPLES
from e2e.suite.marks import rarely
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.forge import PullRequest

    from e2e.suite.argocd import ArgoCD
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest
    from e2e.suite.repository import Repository

EXAMPLE = EXAMPLES / "argocd"
OWNERS = "argocd-data"
TRACK = 1
PRICE = "0.99"


@dataclass(frozen=True, slots=True)
class Team:
    """Who works on the shop: with git, the forge and Argo CD."""

    kube: Kube
    argocd: ArgoCD
    forge: Forge
    git: Repository

    @property
    def preview(self) -> Path:
        """The folder with the preview's manifests, in the checkout."""
        return self.git.checkout / "deploy/preview"

    def open(self, title: str) -> PullRequest:
        """Push the checkout to a branch and open a pull request that is to have a preview."""
        branch = title.replace(" ", "-")
        sha = self.git.push(branch, title)
        pull = self.forge.repository("acme/shop").open(title, branch, sha, labels=("preview",))
        self.look()
        return pull

    def push(self, pull: PullRequest, message: str) -> None:
        """Push the checkout to a pull request's branch."""
        pull.sha = self.git.push(pull.branch, message)
        self.look()

    def look(self) -> None:
        """Let Argo CD know that something has happened at the forge."""
        self.argocd.look("shop-previews")

    def healthy(self, pull: PullRequest) -> Manifest:
        """Wait until a pull request's preview is what its newest commit says, and well."""
        return self.argocd.until_synced(name(pull), pull.sha)

    def until_price(self, pull: PullRequest, price: str, what: str) -> None:
        """Wait until a preview's app shows this price of a track. Its Pod may be missing from its Service meanwhile."""

        def shown() -> bool:
            with suppress(CommandError):
                return str(Shop(self.kube.cluster, name(pull)).track(TRACK)["UnitPrice"]) == price
            return False

        eventually(shown, what)

    def reprice(self, pull: PullRequest, price: float) -> None:
        """Change a track's price in a preview's app."""
        Shop(self.kube.cluster, name(pull)).reprice(TRACK, price)

    def change(self, file: str, old: str, new: str) -> None:
        """Edit a manifest of the preview."""
        path = self.preview / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def quiet(self, pull: PullRequest) -> Manifest:
        """Wait until the app's Deployment is served as it is wanted; nobody changes it any more. Return it."""
        self.kube.run("rollout", "status", "-n", name(pull), "deployment/app", "--timeout=120s")
        found = self.kube.get("deployment", "app", name(pull))
        self.argocd.refresh(name(pull))
        hold(seconds=5)
        self.healthy(pull)
        again = self.kube.get("deployment", "app", name(pull))
        assert found is not None
        assert again is not None
        assert again["metadata"]["generation"] == found["metadata"]["generation"], "two fight over the Deployment"
        return again

    def is_leaving(self, pull: PullRequest) -> bool:
        """Return whether a preview is being removed."""
        found = self.argocd.application(name(pull))
        return not found or "deletionTimestamp" in found["metadata"]

    def is_ending(self, pull: PullRequest) -> bool:
        """Return whether a preview's clone is being deleted."""
        found = self.kube.get("dclone", "db", name(pull))
        return found is not None and "deletionTimestamp" in found["metadata"]

    @contextmanager
    def without_operator(self) -> Iterator[None]:
        """Have no operator while the block runs."""
        self._scale(0)
        try:
            eventually(lambda: not self.kube.items("pods", *OPERATOR_PODS), "the operator is gone")
            yield
        finally:
            self._scale(1)

    def is_back(self, pull: PullRequest, uid: str) -> bool:
        """Return whether there is another clone than the one with this UID."""
        found = self.kube.get("dclone", "db", name(pull))
        if found is None:
            self.look()
        return found is not None and found["metadata"]["uid"] != uid

    def until_gone(self, pull: PullRequest) -> None:
        """Wait until nothing is left of a preview, in the cluster and in Argo CD."""
        eventually(lambda: not self.argocd.application(name(pull)), f"Application {name(pull)} is gone")
        assert self.kube.get("namespace", name(pull)) is None
        eventually(lambda: not self.leftovers(pull), f"nothing is left of {name(pull)}")

    def leftovers(self, pull: PullRequest) -> list[str]:
        """Return what a preview left outside of its namespace."""
        label = f"coppice.dev/owner-namespace={name(pull)}"
        labelled = self.kube.run("get", "volumesnapshotcontents,volumesnapshots", "-A", "-l", label, "-o", "name")
        return [*labelled.split(), *outside(self.kube.cluster, name(pull))]

    def _scale(self, replicas: int) -> None:
        self.kube.run("scale", *OPERATOR, "deployment/coppice", f"--replicas={replicas}")


def name(pull: PullRequest) -> str:
    """Return what a preview's Application and namespace are called."""
    return f"shop-pr-{pull.number}"


@pytest.fixture(scope="module")
def team(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The example, installed: the owners' store by one Application, previews by an ApplicationSet."""
    kube.delete_namespace(OWNERS)
    kube.make_namespace(OWNERS)
    folder, forge = tmp_path_factory.mktemp("argocd"), Forge()
    with (
        argocd.running(kube, folder, _settings(kube)) as running,
        forge.serving(running.address),
        repository.serving(folder, running.address) as git,
    ):
        team = Team(kube, running, forge, git)
        _fill(git.checkout)
        kube.apply(*_owners(team))
        running.until_synced("shop-data", git.push("main", "the shop"))
        kube.apply(*_previews(team))
        yield team
        for kind in ("applicationsets", "applications"):
            kube.run("delete", "-n", argocd.NAMESPACE, f"{kind}.argoproj.io", "--all", "--timeout=120s")
    kube.delete_namespace(OWNERS, wait=False)


def test_a_pull_request_has_its_own_data_while_it_is_open(team: Team) -> None:
    pull = team.open("a change")
    operation = team.healthy(pull)["status"]["operationState"]
    assert "retryCount" not in operation, "the first sync has got through"
    clone = Clone(team.kube, name(pull))
    app = team.kube.get("deployment", "app", name(pull))
    assert app is not None
    since = team.kube.condition("dclone", "db", name(pull))["lastTransitionTime"]
    assert app["metadata"]["creationTimestamp"] >= since, "the app comes when its data are there"
    assert clone.status["revision"] == pull.sha
    assert clone.manifest["spec"]["pullRequest"]["number"] == pull.number
    team.until_price(pull, PRICE, "the preview has the store's data")

    # A push keeps the data, as the clone says. What Coppice adds to a Deployment, Argo CD does not take away.
    team.reprice(pull, 7.77)
    team.change("clone.yaml", "  lease:", '  binding:\n    keys: {DATABASE_URL: "{uri}"}\n  lease:')
    team.change("app.yaml", "  name: app\nspec:", "  name: app\n  annotations: {coppice.dev/clone: db}\nspec:")
    team.push(pull, "the app asks for the clone's address")
    team.healthy(pull)
    team.kube.run("wait", "-n", name(pull), "--for=condition=Wired", "dclone/db", "--timeout=60s")
    before = team.quiet(pull)
    assert clone.status["revision"] == pull.sha
    team.until_price(pull, "7.77", "the preview has the data that it had")
    assert before["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] == "DATABASE_URL"

    # With another policy a push makes the data anew, for an app that goes on asking at the same address.
    team.change("clone.yaml", "onRevision: Keep", "onRevision: Reset")
    team.push(pull, "new data with each push")
    team.until_price(pull, PRICE, "the preview has the store's data anew")
    team.healthy(pull)

    # Closed by mistake, and opened again while everything is being removed.
    uid = clone.uid
    pull.state = "closed"
    team.look()
    eventually(lambda: team.is_leaving(pull), "the preview is being removed")
    pull.state = "open"
    team.look()
    eventually(lambda: team.is_back(pull, uid), "the preview is made anew")
    team.healthy(pull)
    team.until_price(pull, PRICE, "the preview that was made anew has the store's data")

    pull.state = "closed"
    team.look()
    team.until_gone(pull)


@rarely
@pytest.mark.alone
def test_what_happens_while_the_operator_is_away_is_made_up_for(team: Team) -> None:
    with team.without_operator():
        pull = team.open("a change at night")
        eventually(lambda: team.kube.get("dclone", "db", name(pull)), "Argo CD has applied the clone")
    operation = team.healthy(pull)["status"]["operationState"]
    assert "retryCount" not in operation, "the first sync has waited"

    with team.without_operator():
        pull.state = "closed"
        team.look()
        eventually(lambda: team.is_ending(pull), "Argo CD has deleted the clone")
    team.until_gone(pull)


def test_an_expired_clone_is_left_alone_and_goes_with_the_label(team: Team) -> None:
    team.change("clone.yaml", "idle: 2h\n    max: 3d", "max: 20s")
    team.change("kustomization.yaml", "- app.yaml\n", "")
    pull = team.open("a look")
    team.argocd.until_synced(name(pull), pull.sha, health="Suspended")
    clone = Clone(team.kube, name(pull))
    team.kube.until_reason("Expired", "dclone", "db", name(pull))
    uid, operation = clone.uid, team.argocd.application(name(pull))["status"]["operationState"]["startedAt"]

    team.argocd.refresh(name(pull))
    hold(seconds=5)
    found = team.argocd.until_synced(name(pull), pull.sha, health="Suspended")
    assert found["status"]["operationState"]["startedAt"] == operation, "nothing was applied again"
    assert clone.uid == uid
    assert not clone.pods

    pull.labels.clear()
    team.look()
    team.until_gone(pull)


def test_a_store_that_git_has_not_any_more_keeps_its_data(team: Team) -> None:
    claims = ("-n", OWNERS, "-l", "coppice.dev/owner-kind=DataStore,coppice.dev/owner-name=shop")
    before = [claim["metadata"]["uid"] for claim in team.kube.items("persistentvolumeclaims", *claims)]
    kustomization = team.git.checkout / "deploy/data/kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("- store.yaml\n", ""))
    sha = team.git.push("main", "the store is somebody else's by now")
    team.argocd.refresh("shop-data")
    team.kube.run("wait", "-n", OWNERS, "--for=delete", "dstore/shop", "--timeout=120s")
    team.argocd.until_synced("shop-data", sha, health="Degraded")
    assert team.kube.reason("dgrant", "previews", OWNERS) == "StoreNotFound"
    assert [claim["metadata"]["uid"] for claim in team.kube.items("persistentvolumeclaims", *claims)] == before != []


def _settings(kube: Kube) -> str:
    """Return what the chart has for Argo CD."""
    found = kube.get("configmap", "coppice-argocd", SYSTEM)
    assert found is not None, "the release has argocd.settings"
    return str(found["data"]["argocd-cm.yaml"])


def _fill(checkout: Path) -> None:
    """Put the owners' manifests and the example into a repository."""
    data = checkout / "deploy/data"
    shutil.copytree(QUICKSTART / "data", data)
    kustomization = data / "kustomization.yaml"
    text = kustomization.read_text().replace("namespace: data", f"namespace: {OWNERS}")
    for other in ("namespace", "branch", "app"):
        text = text.replace(f"- {other}.yaml\n", "")
    kustomization.write_text(text)
    preview = checkout / "deploy/preview"
    shutil.copytree(EXAMPLE / "preview", preview)
    clone = preview / "clone.yaml"
    clone.write_text(clone.read_text().replace("namespace: data", f"namespace: {OWNERS}"))


def _owners(team: Team) -> list[Manifest]:
    """Return the Application with the store and the grant. Its SQL is too long for an annotation."""
    server = "https://kubernetes.default.svc"
    project = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    application = {
        "project": "owners",
        "source": {"repoURL": team.git.url, "targetRevision": "main", "path": "deploy/data"},
        "destination": {"server": server, "namespace": OWNERS},
        "syncPolicy": {"automated": {"prune": True}, "syncOptions": ["ServerSideApply=true"]},
    }
    return [_argo("AppProject", "owners", project), _argo("Application", "shop-data", application)]


def _previews(team: Team) -> list[Manifest]:
    """Return the example, which looks at this machine for git and the forge."""
    text = (EXAMPLE / "applicationset.yaml").read_text()
    project, previews = yaml.safe_load_all(text.replace("https://github.com/acme/shop.git", team.git.url))
    [generator] = previews["spec"]["generators"]
    generator["pullRequest"]["github"]["api"] = f"{team.forge.url}/"
    return [project, previews]


def _argo(kind: str, named: str, spec: Manifest) -> Manifest:
    metadata = {"name": named, "namespace": argocd.NAMESPACE}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
