"""The operator itself: one of two replicas leads, and while none is there, everything serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.suite.change import AUTHOR, Person, Request
from e2e.suite.data import Clone
from e2e.suite.kube import OPERATOR, OPERATOR_PODS, SYSTEM
from e2e.suite.manifests import data_grant
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.suite.data import Store
    from e2e.suite.helm import Helm
    from e2e.suite.kube import Kube

pytestmark = pytest.mark.alone
COUNT = "SELECT COUNT(*) AS items FROM item"


def leader(kube: Kube) -> str:
    """Return the name of the Pod that holds the lease, or an empty string."""
    lease = kube.get("lease", "coppice-operator", SYSTEM)
    return str(lease["spec"].get("holderIdentity") or "") if lease is not None else ""


@pytest.fixture
def scale(kube: Kube) -> Iterator[Callable[[int], None]]:
    """Set how many replicas the operator has; in the end there is one that leads."""

    def scale(replicas: int) -> None:
        kube.run("scale", *OPERATOR, "deployment/coppice", f"--replicas={replicas}")
        kube.run("rollout", "status", *OPERATOR, "deployment/coppice", "--timeout=120s")

    yield scale
    scale(1)
    eventually(lambda: leader(kube) in pods(kube), "the one that is left leads")


def pods(kube: Kube) -> list[str]:
    """Return the names of the operator's Pods."""
    return [pod["metadata"]["name"] for pod in kube.items("pods", *OPERATOR_PODS)]


@pytest.fixture
def two_replicas(kube: Kube, helm: Helm) -> None:
    """A release with two replicas, of which one may be away at a time."""
    helm.upgrade(helm.values(), "--set=operator.replicas=2")

    def well() -> int:
        budget = kube.get("poddisruptionbudget", "coppice", SYSTEM) or {}
        return int(budget.get("status", {}).get("currentHealthy", 0))

    eventually(lambda: well() == 2, "the disruption budget counts two that are well")


@pytest.mark.usefixtures("two_replicas")
def test_when_the_leader_dies_the_other_replica_goes_on(kube: Kube, store: Store, tenant: str) -> None:
    died = leader(kube)
    assert died in pods(kube)
    clone = Clone(kube, tenant, "through").apply(store)
    kube.run("delete", "pod", *OPERATOR, died, "--grace-period=0", "--force")
    clone.ready()
    assert clone.sql(COUNT) == [{"items": 3}]
    assert leader(kube) in set(pods(kube)) - {died}
    clone.delete()


def test_without_an_operator_all_serve_and_what_was_missed_is_made_up_for(
    kube: Kube, store: Store, tenant: str, scale: Callable[[int], None]
) -> None:
    clone = Clone(kube, tenant, "steady").apply(store).ready()
    gone = Clone(kube, tenant, "gone").apply(store).ready()
    told, old = clone.binding, gone.uid
    scale(0)
    eventually(lambda: not pods(kube), "there is no operator")

    assert clone.sql(COUNT) == [{"items": 3}]
    assert store.sql(COUNT) == [{"items": 3}]
    kube.run("delete", "-n", tenant, "secret/steady-binding", "service/steady")
    kube.run("delete", "-n", tenant, "dclone/gone", "--wait=false")
    late = Clone(kube, tenant, "late").apply(store)

    scale(1)
    late.ready()
    eventually(lambda: kube.get("service", clone.name, tenant), "the Service is there again")
    eventually(lambda: kube.get("secret", "steady-binding", tenant), "the Secret is there again")
    assert clone.binding == told
    eventually(lambda: not kube.owned_by(old), "what was deleted meanwhile is gone with all it had")


def test_a_change_that_the_operator_died_over_is_published_once(kube: Kube, store: Store, tenant: str) -> None:
    kube.apply(data_grant("previews", store.namespace, store=store.name, to=[tenant], verbs=["Clone", "Propose"]))
    Clone(kube, tenant, "change").apply(store).ready().sql("INSERT INTO item VALUES (7, 'medlar', 70)")
    ann, request = Person(kube, AUTHOR), Request(kube, store, "medlar")
    for namespace, role in ((store.namespace, "coppice-author"), (tenant, "edit")):
        kube.run("create", "rolebinding", "ann", "-n", namespace, f"--clusterrole={role}", f"--user={AUTHOR}")
    ann.apply(request.manifest({"clone": {"name": "change", "namespace": tenant}}))
    # What the branch is to become is written down in the same moment.
    request.until("ChecksPassed")
    kube.run("delete", "pod", *OPERATOR, leader(kube), "--grace-period=0", "--force")

    published = request.until("Published")["published"]
    log = store.sql("SELECT commit_hash, message FROM dolt_log('main')")
    [found] = [commit for commit in log if "Proposed-by" in commit["message"]]
    assert found["commit_hash"] == published["commit"]
    assert store.sql(COUNT) == [{"items": 4}]
