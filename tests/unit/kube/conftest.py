"""Tests of the adapter run against a real API server where one is installed, and against a fake one for its bad days."""

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import Configuration
from tests.fakes.apiserver import ApiServer, api_server

from coppice.kube.aio import AioKubeClient

__all__ = ["api_server"]


@pytest.fixture
def configuration(api_server: ApiServer) -> Configuration:
    configuration = Configuration(host=api_server.url, ssl_ca_cert=str(api_server.ca_file))
    configuration.api_key["BearerToken"] = f"Bearer {api_server.token}"
    return configuration


@pytest.fixture
async def client(configuration: Configuration) -> AsyncIterator[AioKubeClient]:
    client = AioKubeClient(configuration)
    yield client
    await client.aclose()


@pytest.fixture
def namespace(api_server: ApiServer, request: pytest.FixtureRequest) -> str:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}
    return api_server.request("POST", "/api/v1/namespaces", body).body["metadata"]["name"]
