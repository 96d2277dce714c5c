"""Upgrades and removal of the chart while people work with their clones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.data import Clone
from e2e.suite.kube import OPERATOR
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.helm import Helm
    from e2e.suite.kube import Kube

COUNT = "SELECT COUNT(*) AS items FROM item"


@pytest.fixture
def clone(kube: Kube, store: Store, tenant: str) -> Clone:
    """A clone that somebody has written to."""
    clone = Clone(kube, tenant).apply(store).ready()
    clone.sql("INSERT IGNORE INTO item VALUES (99, 'mine', 1)")
    return clone


def identities(kube: Kube, store: Store, clone: Clone) -> dict[str, Any]:
    """Return what must not change: the servers' Pods, by UID and number of restarts, and what apps are told."""
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    servers = [
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in (server, clone.pod)
    ]
    return {"servers": servers, "binding": clone.binding, "copy": clone.status["copy"]}


def test_an_upgrade_leaves_servers_alone(kube: Kube, store: Store, tenant: str, clone: Clone, helm: Helm) -> None:
    before = identities(kube, store, clone)
    helm.upgrade(helm.values(), "--set=operator.workers=4", "--set-string=operator.podAnnotations.upgraded=yes")
    kube.run("rollout", "status", *OPERATOR, "deployment/coppice", "--timeout=120s")

    other = Clone(kube, tenant, "after").apply(store).ready()
    assert other.sql(COUNT) == [{"items": 3}]
    assert clone.reason == "Ready"
    assert identities(kube, store, clone) == before
    other.delete()


def test_what_is_there_outlives_an_uninstallation(
    kube: Kube, store: Store, tenant: str, clone: Clone, helm: Helm
) -> None:
    before, values = identities(kube, store, clone), helm.values()
    helm.uninstall()
    eventually(lambda: not kube.items("pods", *OPERATOR), "nothing of the release runs")
    assert clone.sql(COUNT) == [{"items": 4}]
    assert store.sql(COUNT) == [{"items": 3}]
    assert identities(kube, store, clone) == before

    helm.upgrade(values)
    other = Clone(kube, tenant, "after").apply(store).ready()
    assert other.sql(COUNT) == [{"items": 3}]
    eventually(lambda: clone.reason == "Ready", "the clone is well")
    assert identities(kube, store, clone) == before
    uid = clone.uid
    clone.delete()
    eventually(lambda: not kube.owned_by(uid), "and it goes when it is told to")
