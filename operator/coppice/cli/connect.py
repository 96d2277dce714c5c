"""``coppice connect``: the engine's own shell on a clone, or a tunnel for any other program."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

import click

from coppice.cli.child import Interruptions
from coppice.cli.completion import names_of
from coppice.cli.environment import around, variables, without_password
from coppice.cli.read import the
from coppice.cli.session import Session, command
from coppice.cli.tunnel import Reached, reached
from coppice.cli.words import title, version_of
from coppice.kube.errors import KubeError, TransientError

_SHELLS: Final[Mapping[str, Sequence[str]]] = {"postgresql": ("psql",), "mysql": ("mysql", "mariadb")}
"""By the ``type`` of a binding: programs, the first of which that is installed is taken."""


@command("connect")
@click.argument("clone", shell_complete=names_of("DataClone"))
@click.option("--port", type=click.IntRange(1, 65535), help="Port of this machine; a free one if left out.")
@click.option("--print", "shows", is_flag=True, help="Print the variables, password included, and hold the tunnel.")
async def connect(session: Session, clone: str, port: int | None, shows: bool) -> int:  # noqa: FBT001
    """Open a tunnel to a CLONE and the engine's own shell (psql, mysql) in it; without one, hold the tunnel."""
    found = await the(session, "DataClone", clone, session.namespace)
    async with reached(session, found, port or 0) as at:
        shell = None if shows or session.as_json else shell_for(at.values)
        if shell is None:
            return await _hold(session, at, shows=shows)
        session.say(f"{title(found)} has {version_of(found.get('status') or {}, session.now())}")
        environment = {**around(os.environ, at.values["type"]), **variables(at.values, {})}
        interruptions = Interruptions()
        with interruptions.heeded():
            return await interruptions.run(shell, environment)


def shell_for(values: Mapping[str, str]) -> list[str] | None:
    """Return how to start the engine's own shell, or None where it is not installed. The password is not part of it."""
    program = next(filter(None, map(shutil.which, _SHELLS.get(values["type"], ()))), None)
    if program is None:
        return None
    if values["type"] == "postgresql":
        return [program]
    # What option files say comes before the environment, and may be another server's host and password.
    address = [f"--host={values['host']}", f"--port={values['port']}", f"--user={values['username']}"]
    return [program, "--no-defaults", "--protocol=tcp", *address, values["database"]]


async def _hold(session: Session, at: Reached, *, shows: bool) -> int:
    """Hold the tunnel until we are told to end."""
    told = variables(at.values, {}) if shows else {}
    uri = without_password(at.values)
    where = {"host": at.values["host"], "port": int(at.values["port"]), "uri": uri}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in told.items()] or [uri]
    session.show({**where, **({"environment": told} if shows else {})}, *lines)
    if not shows:
        session.say("the password is in the clone's Secret; --print shows it")
    session.say("the tunnel is open until you end this with Ctrl-C")
    interruptions = Interruptions()
    with interruptions.heeded():
        try:
            with interruptions.ending():
                while True:
                    await _still_there(session, at)
        except asyncio.CancelledError:
            return 0


async def _still_there(session: Session, at: Reached) -> None:
    """Wait a while; raises KubeError once the clone is gone, when nothing comes through any more."""
    await session.pause(_LOOK_SECONDS)
    metadata = at.of["metadata"]
    try:
        found = await session.cluster.get("DataClone", metadata["name"], metadata["namespace"])
    except TransientError:
        return
    if found is None or found["metadata"]["uid"] != metadata["uid"]:
        raise KubeError(f"{title(at.of)} is gone, and the tunnel with it")


_LOOK_SECONDS: Final = 10.0
