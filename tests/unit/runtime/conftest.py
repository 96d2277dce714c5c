"""The API server of the tests here, where one is installed."""

from tests.fakes.apiserver import api_server

__all__ = ["api_server"]
