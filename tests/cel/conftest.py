"""Makes the API server known to the tests here, with the definitions installed."""

import pytest
from tests.fakes.apiserver import ApiServer, api_server

from coppice.crdgen import crd_manifests

__all__ = ["api_server", "cluster"]


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> ApiServer:
    """An API server that knows the kinds of Coppice."""
    api_server.install_crds(crd_manifests())
    return api_server
