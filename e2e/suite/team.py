"""Who works on the shop of examples/argocd, and what they see of its previews."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2e.leftovers import outside
from e2e.story import Shop
from e2e.suite import argocd, previews
from e2e.suite.data import Clone
from e2e.suite.kube import OPERATOR, OPERATOR_PODS
from e2e.suite.previews import PREVIEWS, SHOP
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.forge import Forge, PullRequest, Repository

    from e2e.suite import repository
    from e2e.suite.argocd import ArgoCD
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

TRACK = 1


@dataclass(frozen=True, slots=True)
class Team:
    """Who works on the shop: with git, the forge and Argo CD."""

    kube: Kube
    argocd: ArgoCD
    forge: Forge
    git: repository.Repository

    @property
    def preview(self) -> Path:
        """The folder with the preview's manifests, in the checkout."""
        return self.git.checkout / "deploy/preview"

    def open(self, title: str) -> PullRequest:
        """Push the checkout to a branch and open a pull request that is to have a preview."""
        branch = title.replace(" ", "-")
        sha = self.git.push(branch, title)
        pull = self.forge.repository(SHOP).open(title, branch, sha, labels=("preview",))
        self.look()
        return pull

    def push(self, pull: PullRequest, message: str) -> None:
        """Push the checkout to a pull request's branch."""
        pull.sha = self.git.push(pull.branch, message)
        self.look()

    def close(self, pull: PullRequest) -> None:
        """Close a pull request."""
        pull.state, pull.updated = "closed", time.time()
        self.look()

    def reopen(self, pull: PullRequest) -> None:
        """Open a closed pull request again."""
        pull.state, pull.updated = "open", time.time()
        self.look()

    def unlabel(self, pull: PullRequest) -> None:
        """Take away the label by which a pull request has a preview."""
        pull.labels.clear()
        self.look()

    def clone(self, pull: PullRequest) -> Clone:
        """Return the clone of a preview."""
        return Clone(self.kube, name(pull))

    def comments(self, pull: PullRequest) -> list[str]:
        """Return what is written on a pull request."""
        return self._talk.comments_of(pull.number)

    def says(self, pull: PullRequest, words: str) -> bool:
        """Return whether the only comment on a pull request has these words in its headline."""
        comments = self.comments(pull)
        assert len(comments) < 2, "a comment is changed in its place"
        return any(words in comment.splitlines()[1] for comment in comments)

    def mark(self, pull: PullRequest) -> str | None:
        """Return what the newest commit of a pull request shows of its preview's data."""
        return self._talk.status_of(pull.sha, f"coppice/{name(pull)}/db")

    def look(self) -> None:
        """Let Argo CD know that something has happened at the forge."""
        self.argocd.look(PREVIEWS)

    def healthy(self, pull: PullRequest) -> Manifest:
        """Wait until a pull request's preview is what its newest commit says, and well."""
        return self.argocd.until_synced(name(pull), pull.sha)

    def until_price(self, pull: PullRequest, price: str, what: str) -> None:
        """Wait until a preview's app shows this price of a track."""
        shop = Shop(self.kube.cluster, name(pull))
        eventually(lambda: str(shop.track(TRACK)["UnitPrice"]) == price, what)

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

    def is_told(self, pull: PullRequest) -> bool:
        """Return whether a preview's clone has been told of the newest commit."""
        return bool(self.clone(pull).manifest["spec"]["revision"] == pull.sha)

    def takes_along(self, pull: PullRequest) -> bool:
        """Return whether a preview's objects go with its Application."""
        return bool(self.argocd.application(name(pull))["metadata"].get("finalizers"))

    def is_leaving(self, pull: PullRequest) -> bool:
        """Return whether a preview is being removed."""
        found = self.argocd.application(name(pull))
        return not found or "deletionTimestamp" in found["metadata"]

    def is_ending(self, pull: PullRequest) -> bool:
        """Return whether a preview's clone is being deleted."""
        found = self.kube.get("dclone", "db", name(pull))
        return found is not None and "deletionTimestamp" in found["metadata"]

    @contextmanager
    def preserving(self) -> Iterator[None]:
        """Have Applications whose objects stay when they go, while the block runs."""
        self._preserve(yes=True)
        try:
            yield
        finally:
            self._preserve(yes=False)

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

    @property
    def _talk(self) -> Repository:
        return self.forge.repository(SHOP)

    def _preserve(self, *, yes: bool) -> None:
        change = {"spec": {"syncPolicy": {"preserveResourcesOnDeletion": yes}}}
        self.kube.patch("applicationsets.argoproj.io", PREVIEWS, argocd.NAMESPACE, change)

    def _scale(self, replicas: int) -> None:
        self.kube.run("scale", *OPERATOR, "deployment/coppice", f"--replicas={replicas}")


def name(pull: PullRequest) -> str:
    """Return what a preview's Application and namespace are called."""
    return previews.name_of(pull.number)
