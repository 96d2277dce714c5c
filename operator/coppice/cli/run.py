"""``coppice run``: a command on a copy of production's data that is there for it alone, and gone when it ends.

The clone has a lease that is extended for as long as the command runs: if this process is killed, the lease ends and
the data go by themselves. The clone is deleted by its UID, so that nothing else of its name can be meant.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import click

from coppice.cli import options
from coppice.cli.ask import request
from coppice.cli.child import BY_SIGNAL, NO_DATA, NOT_FOUND, Interruptions, problem_with
from coppice.cli.environment import around, read_templates, variables
from coppice.cli.problems import Failure, InVain, explain
from coppice.cli.session import Session, command
from coppice.cli.tunnel import reached
from coppice.cli.waiting import until_settled
from coppice.cli.wishes import clone_wish, generated_name, read_source
from coppice.cli.words import is_ready, next_step, state, title, version_of
from coppice.core import labels
from coppice.core.durations import format_duration, parse_duration
from coppice.core.plan import Manifest, Ref
from coppice.kube.errors import KubeError, TransientError

LEASE: Final = "30m"
RENEWALS: Final = 3
"""How often in the length of a lease it is extended: one or two extensions may fail."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be run, on what, and on which terms."""

    wish: Manifest
    program: Sequence[str]
    asked: Mapping[str, str]
    patience: timedelta
    keep: bool


@dataclass(slots=True)
class Outcome:
    """How it ended: the exit code, and whether it is the command's own."""

    code: int = NO_DATA
    ran: bool = False


@command("run", context_settings={"allow_interspersed_args": False})
@options.source
@click.option(
    "--lease",
    type=options.duration,
    default=LEASE,
    show_default=True,
    help="How long the clone outlives this process, should that be killed. It is extended while the command runs.",
)
@click.option("--profile", help="Size of the clone: a name in clones.profiles of the store.")
@click.option(
    "--env",
    "templates",
    multiple=True,
    metavar="NAME=TEMPLATE",
    help="One more variable for the command, for example DB_HOST={host}. Placeholders: {host} {port} {uri} {username} "
    "{password} {database}.",
)
@click.option("--keep-on-failure", "keep", is_flag=True, help="Leave the clone there if the command fails.")
@click.option(
    "--timeout",
    "patience",
    type=options.duration,
    default=options.PATIENCE,
    show_default=True,
    help="How long to wait for the clone; one that does not come in time is deleted.",
)
@click.argument("program", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
async def run(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    store: str,
    lease: timedelta,
    profile: str | None,
    templates: tuple[str, ...],
    keep: bool,  # noqa: FBT001
    patience: timedelta,
    program: tuple[str, ...],
    **points: str | None,
) -> int:
    """Run a COMMAND on a clone of a store that is made for it: coppice run --from data/shop:main -- pytest -x.

    The command has the connection in its environment (DATABASE_URL, PGHOST or MYSQL_HOST and their like, COPPICE_HOST
    and the other keys of the binding), and its exit code is handed on. Then the clone is deleted.
    """
    source, asked = read_source(store, points), read_templates(templates)
    code = problem_with(program[0], os.environ.get("PATH"))
    if code:
        session.say(f"{program[0]}: {'not found' if code == NOT_FOUND else 'cannot be run'}; no clone was made")
        return code
    wish = clone_wish(
        generated_name("run"), session.namespace, source, lease={"max": format_duration(lease)}, profile=profile
    )
    return await _run(session, Errand(wish, program, asked, patience, keep))


async def _run(session: Session, errand: Errand) -> int:
    """Return the command's exit code, or our own where it was not run."""
    interruptions = Interruptions()
    with interruptions.heeded():
        try:
            clone = await _make(session, errand.wish)
        except KubeError as error:
            session.say(explain(error))
            return NO_DATA
        outcome = Outcome()
        try:
            await _work(session, clone, errand, interruptions, outcome)
        except BaseException:
            await _discard(session, clone)
            raise
        failed = outcome.ran and outcome.code != 0 and interruptions.received is None
        await (_keep if failed and errand.keep else _discard)(session, clone)
        return outcome.code


async def _make(session: Session, wish: Manifest) -> Manifest:
    try:
        return await session.cluster.create(wish)
    except TransientError:
        # It may be there all the same: only the answer was lost. Nobody else makes up this name.
        metadata = wish["metadata"]
        made = await session.cluster.get(wish["kind"], metadata["name"], metadata["namespace"])
        if made is None:
            raise
        return made


async def _work(
    session: Session, clone: Manifest, errand: Errand, interruptions: Interruptions, outcome: Outcome
) -> None:
    """Run the command once the clone is there, and note how that ended; whatever it is, the clone goes after it."""
    try:
        with interruptions.ending():
            async with _reachable(session, clone, errand) as environment:
                outcome.code = await interruptions.run(errand.program, environment)
                outcome.ran = True
                if outcome.code != 0:
                    await _tell_if_lost(session, clone)
    except asyncio.CancelledError:
        if not outcome.ran:
            outcome.code = BY_SIGNAL + (interruptions.received or 0)
    except InVain as error:
        session.say(error.what)
    except Failure as error:
        session.say(error.message)
    except KubeError as error:
        session.say(explain(error))


@asynccontextmanager
async def _reachable(session: Session, clone: Manifest, errand: Errand) -> AsyncIterator[dict[str, str]]:
    """Wait for a clone, and hold a tunnel to it and its lease; gives the command's environment."""
    clone = await until_settled(session, clone, errand.patience)
    if not is_ready(clone):
        raise Failure(f"{title(clone)} is not ready ({state(clone)}): {next_step(clone)}")
    async with reached(session, clone) as at, _renewed(session, clone):
        session.say(f"data: {version_of(clone['status'])} ({title(clone)})")
        yield {
            **around(os.environ, at.values["type"]),
            **variables(at.values, errand.asked),
            **_version_variables(clone),
        }


async def _tell_if_lost(session: Session, clone: Manifest) -> None:
    """Tell whether a command may have failed because its database was taken away."""
    metadata = clone["metadata"]
    found = await session.cluster.get("DataClone", metadata["name"], metadata["namespace"])
    if found is None or found["metadata"]["uid"] != metadata["uid"]:
        session.say(f"{title(clone)} was deleted while the command ran")
    elif not is_ready(found):
        session.say(f"{title(found)} is not ready any more ({state(found)}): {next_step(found)}")


def _version_variables(clone: Manifest) -> dict[str, str]:
    """Return which data these are, for a report of the command's own."""
    source, metadata = clone["status"]["source"], clone["metadata"]
    known = {
        "COPPICE_CLONE": f"{metadata['namespace']}/{metadata['name']}",
        "COPPICE_STORE": source["store"],
        "COPPICE_BRANCH": source.get("branch"),
        "COPPICE_HEAD": source.get("head"),
    }
    return {name: value for name, value in known.items() if value}


@asynccontextmanager
async def _renewed(session: Session, clone: Manifest) -> AsyncIterator[None]:
    """Extend the lease of a clone until the block ends."""
    task = asyncio.create_task(_renew(session, clone, lease_length(clone).total_seconds() / RENEWALS))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def lease_length(clone: Manifest) -> timedelta:
    """Return how long a clone lives after an extension: what was asked for, or less where the grant says so."""
    asked, status = parse_duration(clone["spec"]["lease"]["max"]), clone.get("status") or {}
    if "expiresAt" not in status or "renewedAt" not in status:
        return asked
    granted = datetime.fromisoformat(status["expiresAt"]) - datetime.fromisoformat(status["renewedAt"])
    return min(asked, granted)


async def _renew(session: Session, clone: Manifest, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await request(session, clone, labels.EXTEND_REQUESTED_AT)
        except TransientError:
            continue
        except KubeError as error:
            session.say(f"the lease of {title(clone)} cannot be extended: {explain(error)}")


async def _discard(session: Session, clone: Manifest) -> None:
    """Delete exactly this clone; what cannot be deleted now goes when its lease ends."""
    try:
        await session.cluster.delete(Ref.of(clone))
    except KubeError as error:
        session.say(f"{title(clone)} could not be deleted, and goes when its lease ends: {explain(error)}")
    else:
        session.say(f"{title(clone)} is deleted")


async def _keep(session: Session, clone: Manifest) -> None:
    """Leave the clone to whoever wants to know why the command failed, for the length of its lease."""
    name, namespace = clone["metadata"]["name"], clone["metadata"]["namespace"]
    try:
        await request(session, clone, labels.EXTEND_REQUESTED_AT)
    except KubeError as error:
        session.say(f"its lease cannot be extended: {explain(error)}")
    lease = clone["spec"]["lease"]["max"]
    session.say(
        f"{title(clone)} is kept for {lease} at most: coppice connect {name} -n {namespace}, and when it has served, "
        f"coppice delete {name} -n {namespace}"
    )
