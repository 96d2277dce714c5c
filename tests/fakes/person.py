"""Somebody at a terminal: the `coppice` command in a story's world, where the operator works while the command waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from click.testing import CliRunner, Result
from tests.fakes.story import Story

from coppice.cli.main import main
from coppice.cli.session import Connection, Surroundings
from coppice.core.plan import Manifest, Ref
from coppice.engines.base import Engine
from coppice.kube.client import Caller
from coppice.kube.errors import ConflictError, ForbiddenError, KubeError, NotFoundError
from coppice.kube.resources import RESOURCES

LONGEST_PAUSE = 60.0


class Echo:
    """A connection to a port of a Pod that says where it ends, and repeats what it is told."""

    def __init__(self, pod: str, port: int) -> None:
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._said.put_nowait(f"{pod}:{port}\n".encode())

    async def send(self, data: bytes) -> None:
        self._said.put_nowait(data)

    async def receive(self) -> bytes | None:
        return await self._said.get()

    async def aclose(self) -> None:
        self._said.put_nowait(None)


class AsPerson:
    """A person's access to the API server: what they may not is refused in its words."""

    def __init__(self, story: Story) -> None:
        self._kube = story.kube
        self.denied: set[tuple[str, str, str | None]] = set()
        """Verb, kind and namespace (None: all of them at once)."""
        self.faults: list[KubeError] = []
        """What the next requests get in the place of an answer."""
        self.after_create: list[KubeError] = []
        """The same, but the object is made."""
        self.managers: list[str] = []
        self.caller = Caller("ann", ("data-owners", "system:authenticated"))

    def _ask(self, verb: str, kind: str, namespace: str | None) -> None:
        if self.faults:
            raise self.faults.pop(0)
        if (verb, kind, namespace) in self.denied:
            resource = RESOURCES[kind]
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            raise ForbiddenError(
                f'{resource.plural} is forbidden: User "ann" cannot {verb} resource "{resource.plural}" in API group '
                f'"{resource.group}"{where}',
                status=403,
                reason="Forbidden",
            )

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        self._ask("get", kind, namespace)
        found: Manifest | None = await self._kube.get(kind, name, namespace)
        return found

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        self._ask("list", kind, namespace)
        found: Sequence[Manifest] = await self._kube.list(kind, namespace, labels)
        return found

    async def create(self, manifest: Manifest) -> Manifest:
        self._ask("create", manifest["kind"], manifest["metadata"]["namespace"])
        made: Manifest = await self._kube.create(manifest)
        if self.after_create:
            raise self.after_create.pop(0)
        return made

    async def apply(self, manifest: Manifest, *, manager: str, **how: Any) -> Manifest:
        self._ask("patch", manifest["kind"], manifest["metadata"]["namespace"])
        self.managers.append(manager)
        made: Manifest = await self._kube.apply(manifest, manager=manager, **how)
        return made

    async def amend(self, manifest: Manifest) -> Manifest:
        kind, metadata = manifest["kind"], manifest["metadata"]
        self._ask("patch", kind, metadata["namespace"])
        place = (kind, metadata["namespace"], metadata["name"])
        present = self._kube.peek(*place)
        if present is None:
            raise NotFoundError(f"{place} not found", status=404, reason="NotFound")
        if any(present["metadata"][key] != metadata[key] for key in ("uid", "resourceVersion")):
            raise ConflictError(f"{place} has been modified", status=409, reason="Conflict")
        changed: Manifest = self._kube.change(*place, lambda found: _merge(found["spec"], manifest["spec"]))
        return changed

    async def whoami(self) -> Caller:
        return self.caller

    async def delete(self, ref: Ref) -> None:
        self._ask("delete", ref.kind, ref.namespace)
        await self._kube.delete(ref)

    async def dial(self, namespace: str, pod: str, port: int) -> Echo:
        if ("create", "Pod", namespace) in self.denied:
            raise ForbiddenError("GET portforward: 403", status=403)
        return Echo(pod, port)


def words(text: str) -> str:
    """Return what was printed, however its lines were broken."""
    return " ".join(text.split())


def _merge(present: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """Do what RFC 7386 says."""
    for key, value in patch.items():
        if value is None:
            present.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(present.get(key), dict):
            _merge(present[key], value)
        else:
            present[key] = value


class Person:
    """Somebody whose kubeconfig names a namespace of a story."""

    def __init__(self, story: Story, namespace: str = "app") -> None:
        self.story, self.namespace = story, namespace
        self.cluster = AsPerson(story)
        self.asked_for: list[tuple[str | None, str | None]] = []
        """Which kubeconfig and context was asked for."""
        self.engine: Engine = story.world.engine
        """What they have installed beside the command."""

    def run(self, *words: str, typed: str | None = None) -> Result:
        """Run the command; ``typed`` is what they answer."""
        return CliRunner().invoke(main, words, obj=self.around, input=typed)

    @property
    def around(self) -> Surroundings:
        """Return the world around the command."""
        return Surroundings(
            self._connect, lambda: self.story.world.now, self._pause, lambda: {self.engine.name: self.engine}
        )

    def expect(self, *words: str, **how: Any) -> str:
        """Run the command, which has to succeed; return what it writes as its result."""
        done = self.run(*words, **how)
        assert done.exit_code == 0, f"{done.exit_code}: {done.output}{done.exception or ''}"
        return done.stdout

    def expect_json(self, *words: str) -> Any:
        return json.loads(self.expect(*words, "--output", "json"))

    def expect_refusal(self, *words: str, code: int = 1, **how: Any) -> str:
        """Run the command, which has to end with this code; return all that it says, blanks evened out."""
        done = self.run(*words, **how)
        assert done.exit_code == code, f"{done.exit_code}: {done.output}{done.exception or ''}"
        return " ".join(done.output.split())

    def settle(self) -> None:
        asyncio.run(self.story.settle())

    @asynccontextmanager
    async def _connect(self, kubeconfig: str | None, context: str | None) -> AsyncIterator[Connection]:
        self.asked_for.append((kubeconfig, context))
        yield Connection(self.cluster, self.namespace)

    async def _pause(self, seconds: float) -> None:
        """Let the operator and the world do what they do in this time."""
        await self.story.operator.run_due()
        self.story.world.turn()
        self.story.world.tick(min(seconds, LONGEST_PAUSE))
