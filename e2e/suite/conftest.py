"""The suite runs against the cluster the harness knows, or the one COPPICE_E2E_KUBECONFIG names; each story has
namespaces of its own. Several modules are played at the same time; those marked ``alone`` follow (e2e/run.py).

A module's stories share a store, its owners' namespace, and a namespace that has the owners' grant.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from e2e.harness.cluster import current
from e2e.suite.change import AUTHOR, REVIEWER, Person
from e2e.suite.data import ITEMS, Store
from e2e.suite.helm import Helm
from e2e.suite.kube import OPERATOR, TIMEOUT, Kube
from e2e.suite.manifests import data_grant
from e2e.suite.watch import OperatorLog

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from e2e.harness.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with Coppice in it."""
    return current()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """kubectl, as a user has it. In the end, what these stories deleted without waiting has to be gone."""
    kube = Kube(cluster)
    yield kube
    if kube.made:
        kube.run("delete", "namespace", *kube.made, "--ignore-not-found", "--wait", TIMEOUT)


@pytest.fixture(scope="session")
def operator_log(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorLog]:
    """The operator's log from now on, over the deaths of its Pods."""
    with OperatorLog(kube, tmp_path_factory.mktemp("operator") / "log").follow() as log:
        yield log
    assert not bugs(log.after(0))


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    name = kube.new_namespace(request.node.name)
    yield name
    kube.delete_namespace(name, wait=False)


@pytest.fixture
def helm(kube: Kube) -> Iterator[Helm]:
    """The release, which is in the end as it was."""
    helm = Helm(kube)
    values = helm.values()
    yield helm
    helm.upgrade(values)


@pytest.fixture(scope="module")
def owners(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """The namespace of a module's store."""
    name = kube.new_namespace(f"{_story(request)}-data")
    yield name
    kube.delete_namespace(name, wait=False)


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str) -> Store:
    """A store with three rows in it."""
    store = Store(kube, owners).create()
    store.commit(ITEMS, "three items")
    return store


@pytest.fixture(scope="module")
def tenant(kube: Kube, store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that may have clones of the store."""
    name = kube.new_namespace(f"{_story(request)}-preview")
    kube.apply(data_grant("previews", store.namespace, store=store.name, to=[name]))
    yield name
    kube.delete_namespace(name, wait=False)


@pytest.fixture(scope="module")
def ann(kube: Kube) -> Person:
    """Who proposes changes."""
    return Person(kube, AUTHOR)


@pytest.fixture(scope="module")
def bea(kube: Kube) -> Person:
    """Who reviews them for the owners."""
    return Person(kube, REVIEWER, ("data-owners",))


def _story(request: pytest.FixtureRequest) -> str:
    return str(request.module.__name__).rpartition(".")[2].removeprefix("test_")


@pytest.fixture(scope="module", autouse=True)
def no_bugs(kube: Kube, operator_log: OperatorLog) -> Iterator[None]:
    """Whatever the stories do, the operator never stumbles: its log has no traceback, and nothing but the stories ends
    it: they kill Pods, never a container.
    """
    since, begun, before = f"--since-time={kube.time()}", operator_log.size(), Counter(operator_log.restarts)
    yield
    # Stories that end with the death of an operator's Pod leave one that has no log yet.
    kube.run("rollout", "status", *OPERATOR, "deployment/coppice", TIMEOUT)
    # What is followed comes a moment later than what is asked for.
    present = kube.run("logs", *OPERATOR, "deployment/coppice", since).splitlines()
    found = bugs([*present, *operator_log.after(begun)])
    assert not found, "\n".join(found)
    restarted = Counter(operator_log.restarts) - before
    assert not restarted, f"the operator ended by itself: {dict(restarted)}"


def bugs(log: list[str]) -> list[str]:
    """Return the lines that tell of a bug, each once."""
    return list(dict.fromkeys(line for line in log if '"bug' in line or "Traceback" in line))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """When a story fails, show what a user in trouble would look at."""
    outcome = yield
    report = outcome.get_result()
    kube = item.funcargs.get("kube") if hasattr(item, "funcargs") else None
    if report.when != "teardown" and report.failed and isinstance(kube, Kube):
        report.sections.append(("the cluster", kube.describe_trouble()))
