"""The API server of the tests here, where one is installed."""

import pytest
from tests.fakes.apiserver import ApiServer, api_server

from coppice.crdgen import crd_manifests

__all__ = ["api_server", "cluster"]


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> ApiServer:
    """The API server with the kinds of Coppice and the operator's namespace."""
    api_server.install_crds(crd_manifests())
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "coppice-system"}}
    api_server.request("POST", "/api/v1/namespaces", body)
    return api_server
