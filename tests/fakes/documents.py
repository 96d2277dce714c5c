"""An engine in memory that is to the reconcilers what TerminusDB is: it merges versions, and there is nothing but
commits. It has no rights by branch, answers no query, has one port for everybody, and is told with each fetch by which
password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.fakes.engine import FakeEngine, Server
from tests.fakes.merging import MergingFakeEngine
from tests.fakes.world import World

from coppice.engines.base import Endpoint, EngineError, Workload
from coppice.engines.merging import Assertion, AssertionResult


class DocumentsFakeEngine(MergingFakeEngine):
    """See ``coppice.engines.merging.MergingEngine``."""

    remotes_port = FakeEngine.port
    protects = False

    def _server(self, script: Mapping[str, object], load_script: str | None = None) -> Workload:
        made = super()._server(script, load_script)
        return replace(made, remotes_port=None, secret_environment={"ADMIN_PASSWORD": "admin-password"})

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        return [AssertionResult(check.name, error="it answers no query") for check in checks]

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        if action == "protect":
            raise EngineError(f"no action {action}")
        await super().execute(at, action, arguments)

    @staticmethod
    def _do_commit_work(at: Endpoint, server: Server, arguments: dict[str, str]) -> None:
        """Do nothing: every write is a commit."""

    @staticmethod
    def _password(server: Server, arguments: Mapping[str, str]) -> str:
        return arguments["password"]


class DocumentsWorld(World):
    """A cluster whose databases hold documents."""

    engine_class = DocumentsFakeEngine
