"""Every test of the contract runs over every engine; one whose programs are not installed is skipped by name."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fakes.required import lacks

from coppice.engines.base import (
    TORN_COPY,
    CloneServer,
    CommitPolicy,
    Content,
    Endpoint,
    Engine,
    Preparation,
    StoreServer,
    Version,
    Workload,
)
from coppice.engines.registry import engines

from . import ipc
from .kit import Kit, kits
from .runner import Runner, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEMORY = Path("/dev/shm")
ROOM = 4 << 30
MARKER = "5b0e1c1e-6f0f-4e4b-9e5e-1f1c7c0f4a01"


@dataclass(frozen=True)
class Stage:
    """An engine, its test material, and somewhere to run it."""

    engine: Engine
    kit: Kit
    runner: Runner

    def secret(self) -> Mapping[str, str]:
        return self.engine.credentials({})

    def store(self, *, load: bool = True, database: str | None = None, policy: CommitPolicy = "Explicit") -> Workload:
        if load and not self.kit.load_names_database:
            database = database or self.kit.database
        return self.engine.store_server(
            StoreServer(database=database, fallback_database="fallback", commit_policy=policy, has_load=load)
        )

    def clone(
        self, version: Version, *, marker: str = MARKER, policy: CommitPolicy = "Explicit", durable: bool = False
    ) -> Workload:
        inputs = CloneServer(version=version, commit_policy=policy, marker=marker, durable=durable)
        return self.engine.clone_server(inputs)

    def preparation(
        self, *, marker: str = MARKER, adopted: bool = False, rewrite: bool = False, origin: str | None = None
    ) -> Workload:
        inputs = Preparation(marker=marker, database=self.kit.database, adopted=adopted, rewrite=rewrite, origin=origin)
        return self.engine.preparation(inputs)

    def admin(self, server: Server) -> Endpoint:
        return server.endpoint(self.engine.admin_user, server.secret["admin-password"])

    def app(self, server: Server) -> Endpoint:
        return server.endpoint(self.engine.app_user, server.secret["app-password"])

    async def ensure_app(self, server: Server, database: str | None = None) -> Endpoint:
        at = self.app(server)
        arguments = {"username": at.username, "password": at.password, "database": database or self.kit.database}
        await self.engine.execute(self.admin(server), "ensure-app-user", arguments)
        return at

    async def protect(self, server: Server, database: str, *branches: str) -> None:
        arguments = {"database": database, "branches": json.dumps(branches), "username": self.engine.app_user}
        await self.engine.execute(self.admin(server), "protect", arguments)

    async def prepared(self, volume: Path, server: Server | None = None) -> tuple[Path, Content]:
        """Return a prepared copy of a volume, and the report."""
        copy = self.runner.copy(volume, server)
        outcome = await self.runner.run(self.preparation(), copy)
        while outcome.code == TORN_COPY and server is not None:
            copy = self.runner.copy(volume, server)
            outcome = await self.runner.run(self.preparation(), copy)
        assert outcome.code == 0, outcome.errors
        return copy, self.engine.report(outcome.last_line)


def version_of(content: Content, branch: str | None = None) -> Version:
    state = content.state_of(branch or content.default_branch)
    assert state is not None
    return Version(state.database, state.branch, state.head, state.working_root)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about versions for an engine that has none."""
    vain = [item for item in items if item.get_closest_marker("versions") and not _has_versions(item)]
    config.hook.pytest_deselected(items=vain)
    items[:] = [item for item in items if item not in vain]


def _has_versions(item: pytest.Item) -> bool:
    return engines()[item.callspec.params["stage"]].versioned  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def _shared_memory() -> None:
    ipc.of_its_own()


@pytest.fixture(params=sorted(engines()))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    why = kits()[request.param].beyond.get(request.node.originalname)
    if why is not None:
        pytest.skip(why)
    with open_stage(request.param) as stage:
        yield stage


@contextmanager
def open_stage(name: str) -> Iterator[Stage]:
    """Set up an engine by its name; where its programs are not installed the test is skipped, or fails."""
    kit = kits()[name]
    path = kit.path()
    if path is None:
        lacks(f"the programs of the engine {name} are not installed")
    with open_directory() as directory:
        runner = Runner(directory, path, kit.user)
        yield Stage(engines()[name], kit, runner)
        runner.close()


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that another user may pass through: pytest's own are closed, and closed again by each pytest.

    It is in memory where there is room: no test takes a machine's power away, and waiting for its disk is half the time.
    """
    with tempfile.TemporaryDirectory(prefix="coppice-contract-", dir=_memory(), ignore_cleanup_errors=True) as made:
        directory = Path(made)
        directory.chmod(0o711)
        yield directory


def _memory() -> Path | None:
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None


@pytest.fixture(scope="session")
def _volumes() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def _loaded() -> dict[str, Path]:
    return {}


@pytest.fixture
async def loaded(stage: Stage, _loaded: dict[str, Path], _volumes: Path) -> Path:
    """A store's volume, loaded but never started; every test has its own copy."""
    if stage.engine.name not in _loaded:
        volume = _volumes / stage.engine.name
        volume.mkdir()
        stage.runner.give(volume)
        workload = stage.store()
        assert workload.load_script
        load = stage.runner.load(stage.kit.load)
        outcome = await stage.runner.run(workload, volume, script=workload.load_script, load=load)
        assert outcome.code == 0, outcome.errors
        _loaded[stage.engine.name] = volume
    return stage.runner.copy(_loaded[stage.engine.name])
