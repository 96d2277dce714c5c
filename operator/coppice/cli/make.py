"""``coppice clone``, ``coppice branch`` and ``coppice snapshot``: what a person asks for is made, and waited for."""

from __future__ import annotations

from datetime import timedelta

import click

from coppice.cli import options
from coppice.cli.read import the
from coppice.cli.session import Session, command, plain
from coppice.cli.waiting import until_settled
from coppice.cli.wishes import (
    branch_wish,
    clone_wish,
    commit_wish,
    read_place,
    read_source,
    snapshot_wish,
)
from coppice.cli.words import facts, state, title
from coppice.core.plan import Manifest


@command("clone")
@click.argument("name")
@options.source
@click.option("--lease", metavar="DURATION|Never", help="Longest life: 3d. The administrator's if left out.")
@click.option("--idle", metavar="DURATION|Never", help="Life after the last use: 2h.")
@click.option("--profile", help="Size of the clone: a name in clones.profiles of the store.")
@click.option("--secret", metavar="NAME", help="Secret that gets the connection; NAME-binding if left out.")
@options.waiting
async def clone(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    name: str,
    store: str,
    lease: str | None,
    idle: str | None,
    profile: str | None,
    secret: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
    **points: str | None,
) -> None:
    """Make a clone NAME of a store: a running copy that is yours alone."""
    terms = {"max": lease, "idle": idle}
    wish = clone_wish(name, session.namespace, read_source(store, points), lease=terms, profile=profile, secret=secret)
    await make(session, wish, patience if wait else None)


@command("branch")
@click.argument("branch")
@options.source
@click.option("--name", help="Name of the DataBranch; made of the branch's own if left out.")
@click.option("--squash", is_flag=True, help="Begin with one commit that has all the data, and none of those before.")
@options.waiting
async def branch(
    session: Session,
    branch: str,
    store: str,
    name: str | None,
    squash: bool,  # noqa: FBT001
    wait: bool,  # noqa: FBT001
    patience: timedelta,
    **points: str | None,
) -> None:
    """Make a BRANCH in a store, under the engine's own name: feature/autumn."""
    wish = branch_wish(branch, session.namespace, read_source(store, points), name=name, squash=squash)
    await make(session, wish, patience if wait else None)


@command("snapshot")
@click.argument("name", required=False)
@click.option("--from", "store", metavar="[NAMESPACE/]STORE", help="The DataStore to make a snapshot of.")
@click.option("--clone", metavar="[NAMESPACE/]CLONE", help="The DataClone to commit to a branch.")
@click.option("--branch", help="With --clone: the branch that the commit is the newest state of.")
@click.option("--parent", help="With --clone: the snapshot that it goes on from; the one the clone was made of.")
@options.waiting
async def snapshot(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    name: str | None,
    store: str | None,
    clone: str | None,
    branch: str | None,
    parent: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Make a snapshot NAME of a store; or commit a clone to a branch, under a NAME that follows from the parent's."""
    if (store is None) == (clone is None):
        raise click.UsageError("say what is captured: --from a store, or --clone")
    if clone is not None:
        wish = await _commit(session, clone, branch, parent, name)
    else:
        if branch is not None or parent is not None:
            raise click.UsageError("--branch and --parent go with --clone: a snapshot of a store has all its branches")
        if name is None:
            raise click.UsageError("a snapshot of a store needs a NAME")
        wish = snapshot_wish(name, read_place(store or ""), session.namespace)
    await make(session, wish, patience if wait else None)


async def _commit(session: Session, clone: str, branch: str | None, parent: str | None, name: str | None) -> Manifest:
    if branch is None:
        raise click.UsageError("--clone goes with --branch: the branch that the clone is committed to")
    place = read_place(clone)
    found = await the(session, "DataClone", place.name, place.within(session.namespace))
    return commit_wish(found, branch, parent=parent, name=name)


async def make(session: Session, wish: Manifest, patience: timedelta | None) -> Manifest:
    """Create what is wished for; with ``patience`` wait until it is there."""
    made = await session.cluster.create(wish)
    if patience is None:
        session.show(plain(made), f"{title(made)} is asked for")
        return made
    made = await until_settled(session, made, patience)
    known = [f"  {name:<10}{value}" for name, value in facts(made, session.now())]
    session.show(plain(made), f"{title(made)}: {state(made)}", *known)
    return made
