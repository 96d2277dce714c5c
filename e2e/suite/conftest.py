"""The suite runs against the cluster the harness knows, or the one COPPICE_E2E_KUBECONFIG names; each story has
namespaces of its own.

A module's stories share a store, its owners' namespace, and a namespace that has the owners' grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.harness.cluster import current
from e2e.suite.data import Store
from e2e.suite.helm import Helm
from e2e.suite.kube import OPERATOR, SUITE_LABEL, TIMEOUT, Kube
from e2e.suite.manifests import data_grant

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from e2e.harness.cluster import Cluster

ITEMS = """
CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(64) NOT NULL, price INT NOT NULL);
INSERT INTO item VALUES (1, 'apple', 10), (2, 'pear', 20), (3, 'plum', 30)
"""


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with Coppice in it."""
    return current()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """kubectl, as a user has it. In the end, what the stories deleted without waiting has to be gone."""
    kube = Kube(cluster)
    yield kube
    kube.run("delete", "namespace", "-l", f"{SUITE_LABEL}=true", "--wait", TIMEOUT)


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


def _story(request: pytest.FixtureRequest) -> str:
    return str(request.module.__name__).rpartition(".")[2].removeprefix("test_")


@pytest.fixture(scope="module", autouse=True)
def no_bugs(kube: Kube) -> Iterator[None]:
    """Whatever the stories do, the operator never stumbles: its log has no traceback."""
    since = f"--since-time={kube.time()}"
    yield
    log = kube.run("logs", *OPERATOR, "deployment/coppice", since)
    bugs = [line for line in log.splitlines() if '"bug' in line or "Traceback" in line]
    assert not bugs, "\n".join(bugs)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """When a story fails, show what a user in trouble would look at."""
    outcome = yield
    report = outcome.get_result()
    kube = item.funcargs.get("kube") if hasattr(item, "funcargs") else None
    if report.when != "teardown" and report.failed and isinstance(kube, Kube):
        report.sections.append(("the cluster", kube.describe_trouble()))
