"""What every command for people begins with: the cluster that is meant, the namespace, and where to write.

``command`` makes a click command of a coroutine function: it adds the options that all of them have, hands the
function a ``Session``, and turns what goes wrong into words and an exit code. The function waits by ``Session.pause``
and has the time from ``Session.now``, so that tests can play a story through it on a clock of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final, Protocol

import click
from rich.console import Console, RenderableType

from coppice.cli.environment import WrongTemplateError
from coppice.cli.everywhere import everywhere
from coppice.cli.problems import Failure, explain
from coppice.cli.wishes import WrongWordsError
from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.kube.aio import AioKubeClient
from coppice.kube.client import Caller, KubeClient
from coppice.kube.errors import KubeError
from coppice.kube.login import LoginError, load_login
from coppice.kube.portforward import PortStream

MANAGER: Final = "coppice-command"
"""Field manager of what people create by the command; requests have one each, see ``coppice.cli.ask``."""
INTERRUPTED: Final = 130
PARAMETERS: Final = "__click_params__"
"""Where click's decorators note what they add."""
_PIPE_WIDTH: Final = 200
"""Columns of a table that no terminal shows: nobody wants it cut at 80."""


class Cluster(KubeClient, Protocol):
    """What the commands need of a cluster."""

    async def dial(self, namespace: str, pod: str, port: int) -> PortStream:
        """Open a connection to a port of a Pod; raises KubeError."""
        ...

    async def amend(self, manifest: Manifest) -> Manifest:
        """Merge patch with ``metadata.uid`` and ``metadata.resourceVersion``; ConflictError when it has changed since.

        Lists are replaced as a whole, and what is null goes.
        """
        ...

    async def whoami(self) -> Caller:
        """Return whom the API server takes the person for."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster, and the namespace that is meant where none is named."""

    cluster: Cluster
    namespace: str


@asynccontextmanager
async def connected(kubeconfig: str | None, context: str | None) -> AsyncIterator[Connection]:
    """Connect to the cluster that a kubeconfig and its context name."""
    login = await load_login({**os.environ, **({"KUBECONFIG": kubeconfig} if kubeconfig else {})}, context=context)
    client = AioKubeClient(login.configuration, manager=MANAGER)
    try:
        yield Connection(client, login.namespace)
    finally:
        await client.aclose()


Connect = Callable[[str | None, str | None], AbstractAsyncContextManager[Connection]]


def _now() -> datetime:
    return datetime.now(UTC)


def _engines() -> Mapping[str, Engine]:
    # Most commands need no engine, and none of their drivers.
    found: Mapping[str, Engine] = import_module("coppice.engines.registry").engines()
    return found


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world around a command; tests have another one."""

    connect: Connect = connected
    now: Callable[[], datetime] = _now
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    engines: Callable[[], Mapping[str, Engine]] = _engines


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH, highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class Session:
    """One call of a command by a person: results go to ``out``, what happens meanwhile to ``err``."""

    cluster: Cluster
    namespace: str
    around: Surroundings
    as_json: bool
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    def now(self) -> datetime:
        """Return the time."""
        return self.around.now()

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await self.around.pause(seconds)

    def say(self, text: str) -> None:
        """Write a line of what happens, which is no result."""
        self.err.print(text, soft_wrap=True)

    def show(self, data: Any, *lines: RenderableType) -> None:
        """Write the result: as JSON if that is asked for, else in words."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2))
            return
        for line in lines:
            self.out.print(line, soft_wrap=isinstance(line, str))

    def explain(self, *lines: RenderableType) -> None:
        """Write what somebody has to see before they decide, which is no result."""
        for line in lines:
            self.err.print(line, soft_wrap=isinstance(line, str))


def plain(manifest: Manifest) -> dict[str, Any]:
    """Return an object without what nobody reads."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    return {**manifest, "metadata": metadata}


Act = Callable[..., Awaitable[int | None]]


def command(name: str, **attributes: Any) -> Callable[[Act], click.Command]:
    """Make a click command of a coroutine function from a Session and the command's own parameters; what it returns is
    the exit code.
    """

    def decorate(act: Act) -> click.Command:
        @click.pass_context
        def callback(context: click.Context, /, **given: Any) -> None:
            code = _run(context.find_object(Surroundings) or Surroundings(), act, given)
            if code:
                context.exit(code)

        callback.__doc__ = act.__doc__
        # click lists parameters from the last one that was added: the command's own stand before those of all.
        whole = everywhere(callback)
        parameters = [*getattr(whole, PARAMETERS), *getattr(act, PARAMETERS, ())]
        setattr(whole, PARAMETERS, parameters)
        finish: Callable[[Callable[..., Any]], click.Command] = click.command(name, **attributes)
        return finish(whole)

    return decorate


def _run(around: Surroundings, act: Act, given: Mapping[str, Any]) -> int:
    try:
        return asyncio.run(_act(around, act, **given)) or 0
    except (KubeError, LoginError) as error:
        raise Failure(explain(error) if isinstance(error, KubeError) else str(error)) from error
    except (WrongWordsError, WrongTemplateError) as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        return INTERRUPTED


async def _act(
    around: Surroundings,
    act: Act,
    *,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    output: str | None,
    **given: Any,
) -> int | None:
    async with around.connect(kubeconfig, context) as connection:
        session = Session(connection.cluster, namespace or connection.namespace, around, as_json=output == "json")
        return await act(session, **given)
