"""The suite runs against the cluster the harness knows, or the one COPPICE_E2E_KUBECONFIG names; each story has
namespaces of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.harness.cluster import current
from e2e.suite.kube import Kube

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from e2e.harness.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with Coppice in it."""
    return current()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """kubectl, as a user has it."""
    return Kube(cluster)


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, removed with everything in it."""
    name = kube.new_namespace(request.node.name)
    yield name
    kube.delete_namespace(name)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """When a story fails, show what a user in trouble would look at."""
    outcome = yield
    report = outcome.get_result()
    kube = item.funcargs.get("kube") if hasattr(item, "funcargs") else None
    if report.when == "call" and report.failed and isinstance(kube, Kube):
        report.sections.append(("the cluster", kube.describe_trouble()))
