"""``coppice propose``, ``review``, ``resolve``, ``revert``, ``rebase``: changes on their way from branch to branch.

Everything is written as the person who calls, whom the API server names: it takes no other for an author or reviewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from coppice.api.v1alpha1 import Publish, ReviewedPatch, Verdict
from coppice.cli import options, proposals
from coppice.cli.cells import visible
from coppice.cli.completion import names_of
from coppice.cli.problems import Failure
from coppice.cli.read import placed, the
from coppice.cli.session import Session, command, plain
from coppice.cli.sides import tables
from coppice.cli.versions import read_branch, read_subject
from coppice.cli.waiting import until_computed
from coppice.cli.wishes import (
    Opinion,
    Place,
    Proposal,
    change_name,
    change_wish,
    decisions,
    edit_of,
    generated_name,
    object_name,
    opinion_spec,
    read_place,
    review_name,
    review_wish,
)
from coppice.cli.words import short, state, store_of, title
from coppice.core.plan import Manifest
from coppice.kube.errors import AlreadyExistsError, ConflictError, ForbiddenError

REQUEST: Final = "DataChangeRequest"
MAX_TITLE: Final = 200
AMENDMENTS: Final = 5
"""How often an edit is tried again after somebody else's of another part: the operator writes the status."""

_name: Final = click.option("--name", help="Name of the DataChangeRequest; made of the title if left out.")


@command("propose")
@click.option(
    "--from",
    "source",
    metavar="[NAMESPACE/]CLONE|[NAMESPACE/]STORE:BRANCH",
    required=True,
    help="The clone whose changes are proposed, or a branch of the store.",
)
@click.option("--into", metavar="BRANCH", required=True, help="The branch of the same store that they go into.")
@click.option("--title", "headline", required=True, help="What the change is, in one line.")
@click.option("--description", help="Why, for those who review.")
@click.option(
    "--publish",
    type=click.Choice(["database", "patch"]),
    help="Of an engine without versions: database has it written to the live database once it is approved, patch makes "
    "SQL of it that somebody runs.",
)
@click.option("--manual", is_flag=True, help="Publish it only once a maintainer says so, even when it is approved.")
@_name
@options.waiting
async def propose(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    source: str,
    into: str,
    headline: str,
    description: str | None,
    publish: str | None,
    manual: bool,  # noqa: FBT001
    name: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Propose the changes of a clone or branch for another branch, or those of a clone for the live database: a
    DataChangeRequest beside the store.
    """
    if publish is not None and ":" in source:
        raise click.UsageError("a live database gets what a clone has changed: name a clone with --from")
    store, changes = await _proposed(session, source)
    me = await session.cluster.whoami()
    chosen = None if publish is None else Publish(publish.capitalize())
    proposal = Proposal(store, changes, into, me.name, headline, description, manual, chosen)
    await _ask(session, name or change_name(headline), proposal, patience if wait else None)


async def _proposed(session: Session, text: str) -> tuple[Place, dict[str, Any]]:
    """Return the store, and the source as ``spec.from`` has it."""
    if ":" in text:
        store, branch = read_branch(text, "shop:feature/autumn")
        return store, {"branch": branch}
    clone = await placed(session, "DataClone", read_place(text))
    metadata = clone["metadata"]
    owners, _, name = store_of(clone["spec"]["from"], metadata["namespace"]).partition("/")
    elsewhere = {} if owners == metadata["namespace"] else {"namespace": metadata["namespace"]}
    return Place(name, owners), {"clone": {"name": metadata["name"], **elsewhere}}


async def _ask(session: Session, name: str, proposal: Proposal, patience: timedelta | None) -> None:
    """Make a request; with ``patience`` wait until it says what it would change."""
    made = await session.cluster.create(change_wish(name, session.namespace, proposal))
    if patience is None:
        session.show(plain(made), f"{title(made)} is asked for")
        return
    await _report(session, await until_computed(session, made, patience))


async def _report(session: Session, request: Manifest) -> None:
    session.show(plain(request), *_outlined(request), f"  {'next step':<11}{proposals.advice(request)}")


def _outlined(request: Manifest) -> Iterator[RenderableType]:
    yield Text.assemble((title(request), "bold"), "  ", state(request))
    for name, value in proposals.outline(request):
        if value:
            yield Text(f"  {name:<11}{visible(value)}")
    rows = proposals.rows_of(request)
    if rows:
        yield Padding(tables(rows), (0, 0, 0, 2), expand=False)
    elif proposals.is_computed(request):
        yield "  no row changes"
    more = proposals.unlisted(request)
    if more:
        yield f"  {more}"
    yield from (Text(f"  {visible(text)}") for text in (request.get("status") or {}).get("schema") or ())


@command("revert")
@click.argument("request", shell_complete=names_of(REQUEST))
@click.option("--title", "headline", help="What the change is, in one line.")
@_name
@options.waiting
async def revert(
    session: Session,
    request: str,
    headline: str | None,
    name: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Propose to take back what a published REQUEST brought; what came after it stays."""
    found = await placed(session, REQUEST, read_place(request))
    if not (found.get("status") or {}).get("published"):
        raise Failure(f"{title(found)} is not published ({state(found)}): delete it, and nothing comes of it")
    spec, metadata = found["spec"], found["metadata"]
    if proposals.is_rebase(found):
        raise Failure(f"{title(found)} has changed a clone alone: {proposals.advice(found)}")
    if proposals.is_for_database(found):
        raise Failure(f"{title(found)} went into a live database, which keeps no versions: {proposals.advice(found)}")
    me = await session.cluster.whoami()
    proposal = Proposal(
        Place(spec["store"]["name"], metadata["namespace"]),
        {"revertOf": metadata["name"]},
        spec["into"]["branch"],
        me.name,
        headline or f"Revert: {spec['title']}"[:MAX_TITLE],
    )
    await _ask(session, name or object_name(f"revert-{metadata['name']}"), proposal, patience if wait else None)


@command("rebase")
@click.argument("what", metavar="[NAMESPACE/]STORE:BRANCH|clone/[NAMESPACE/]CLONE")
@click.option("--onto", help="The branch that it is brought up to; the one that it was made from, if left out.")
@_name
@options.waiting
async def rebase(
    session: Session,
    what: str,
    onto: str | None,
    name: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Bring a working branch or clone up to its parent's head, keeping its own changes: a request, which waits where
    both have changed the same.
    """
    subject = read_subject(what)
    if subject.kind == "DataClone" and not subject.point:
        await _rebase_clone(session, subject.place, onto, name, patience if wait else None)
        return
    store, working = read_branch(what, "shop:feature/autumn")
    parent = onto or await _parent(session, store, working)
    me = await session.cluster.whoami()
    headline = f"Bring {working} up to {parent}"[:MAX_TITLE]
    proposal = Proposal(store, {"branch": parent}, working, me.name, headline)
    chosen = name or generated_name(object_name(f"rebase-{working}")[:30].strip("-"))
    await _ask(session, chosen, proposal, patience if wait else None)


async def _rebase_clone(
    session: Session, place: Place, onto: str | None, name: str | None, patience: timedelta | None
) -> None:
    store, source = await _proposed(session, f"{place.within(session.namespace)}/{place.name}")
    clone = await placed(session, "DataClone", place)
    parent = onto or clone["spec"]["from"].get("branch")
    if parent is None:
        raise Failure(f"{title(clone)} is of no branch: name with --onto the one that it is brought up to")
    me = await session.cluster.whoami()
    headline = f"Bring clone {place.name} up to {parent}"[:MAX_TITLE]
    proposal = Proposal(store, source, parent, me.name, headline, publish=Publish.REBASE)
    chosen = name or generated_name(object_name(f"rebase-{place.name}")[:30].strip("-"))
    await _ask(session, chosen, proposal, patience)


async def _parent(session: Session, store: Place, working: str) -> str:
    """Return the branch that another one was made from, as its DataBranch says."""
    owners = store.within(session.namespace)
    for namespace in dict.fromkeys((owners, session.namespace)):
        for found in await session.cluster.list("DataBranch", namespace):
            spec = found["spec"]
            if spec["branchName"] == working and store_of(spec, namespace) == f"{owners}/{store.name}":
                parent: str | None = spec["from"].get("branch")
                if parent is not None:
                    return parent
    raise Failure(f"no DataBranch says which branch {working} was made from: name it with --onto")


@command("review")
@click.argument("request", shell_complete=names_of(REQUEST))
@click.option("--approve", "verdict", flag_value=Verdict.APPROVE.value, help="It may be published as it is now.")
@click.option(
    "--request-changes",
    "verdict",
    flag_value=Verdict.REQUEST_CHANGES.value,
    help="It must not be published: say why with --comment.",
)
@click.option("--comment", "-m", help="Why, for the author; without data that others may not see.")
@click.option("--yes", "-y", "sure", is_flag=True, help="Do not ask.")
async def review(
    session: Session,
    request: str,
    verdict: str | None,
    comment: str | None,
    sure: bool,  # noqa: FBT001
) -> None:
    """Show what a REQUEST would change, and approve it or ask for changes. A later review takes the place of yours."""
    found = await placed(session, REQUEST, read_place(request))
    if verdict is None:
        await _report(session, found)
        return
    said = Verdict(verdict)
    patch = proposals.patch_to_review(found) if said is Verdict.APPROVE else _seen_patch(found)
    me = await session.cluster.whoami()
    if said is Verdict.APPROVE and me.name == found["spec"]["author"]:
        raise Failure(f"{title(found)} is your own ({me.name}): somebody else has to approve it")
    session.explain(*_outlined(found), *_bound(patch))
    if not sure:
        question = "Approve exactly this?" if said is Verdict.APPROVE else "Ask for changes?"
        click.confirm(question, abort=True, err=True)
    groups = proposals.groups_that_count(await _store_of(session, found), me.groups)
    made = await _give(session, found, Opinion(me.name, tuple(groups), said, patch, comment))
    name = found["metadata"]["name"]
    session.show(plain(made), f"{title(made)}: {said.value}; coppice status {name} shows what it comes to")


def _seen_patch(request: Manifest) -> dict[str, str] | None:
    """Return what was looked at, if anything: changes can be asked for before there is something to approve."""
    patch = (request.get("status") or {}).get("patch")
    return {key: patch[key] for key in ReviewedPatch.model_fields} if patch else None


def _bound(patch: Any) -> Iterator[RenderableType]:
    if patch:
        yield f"  {'reviewed':<11}source {short(patch['source'])}, patch {short(patch['digest'])}"


async def _store_of(session: Session, request: Manifest) -> Manifest | None:
    try:
        return await session.cluster.get(
            "DataStore", request["spec"]["store"]["name"], request["metadata"]["namespace"]
        )
    except ForbiddenError:
        return None


async def _give(session: Session, request: Manifest, opinion: Opinion) -> Manifest:
    """Write somebody's review: a new one, or what they say now in the place of what they said before."""
    metadata = request["metadata"]
    name = review_name(request, opinion.reviewer)
    try:
        return await session.cluster.create(review_wish(request, name, opinion))
    except AlreadyExistsError:
        earlier = await the(session, "DataReview", name, metadata["namespace"])
    spec = earlier["spec"]
    if (spec["request"], spec["reviewer"]) != (metadata["name"], opinion.reviewer):
        # Somebody else has taken the name.
        return await session.cluster.create(review_wish(request, generated_name(metadata["name"]), opinion))
    nothing = dict.fromkeys(("patch", "comment"))
    return await session.cluster.amend(edit_of(earlier, {**nothing, **opinion_spec(opinion)}))


@command("resolve")
@click.argument("request", shell_complete=names_of(REQUEST))
@click.option("--conflict", "conflicts", metavar="ID", multiple=True, help="One conflict; as often as needed.")
@click.option("--row", "rows", metavar="ID", multiple=True, help="All conflicts of a row; as often as needed.")
@click.option("--table", "named_tables", metavar="TABLE", multiple=True, help="All conflicts of a table.")
@click.option("--all", "everything", is_flag=True, help="All conflicts.")
@click.option(
    "--take",
    type=click.Choice(["source", "target"]),
    help="source takes what is proposed, target leaves what is there.",
)
@options.waiting
async def resolve(  # noqa: PLR0913, PLR0917 - one parameter for each option
    session: Session,
    request: str,
    conflicts: tuple[str, ...],
    rows: tuple[str, ...],
    named_tables: tuple[str, ...],
    everything: bool,  # noqa: FBT001
    take: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Decide conflicts of a REQUEST; without --take, list those that wait. The closest decision counts."""
    found = await placed(session, REQUEST, read_place(request))
    if take is None:
        if conflicts or rows or named_tables or everything:
            raise click.UsageError("say which side: --take source, or --take target")
        _list_conflicts(session, found)
        return
    if everything == bool(conflicts or rows or named_tables):
        raise click.UsageError("name what is decided: --conflict, --row and --table, or --all")
    wished = decisions(conflicts, rows, named_tables, take)
    unknown = proposals.unknown_subjects(found, wished)
    if unknown:
        name = found["metadata"]["name"]
        raise Failure(f"{title(found)} has no conflict {', '.join(unknown)}: coppice resolve {name} lists those it has")
    decided = await _decide(session, found, wished)
    if not wait:
        session.show(plain(decided), f"{title(decided)} is told; its change is computed anew")
        return
    await _report(session, await until_computed(session, decided, patience))


async def _decide(session: Session, seen: Manifest, wished: list[dict[str, Any]]) -> Manifest:
    """Edit the resolutions of a request as it was seen; ConflictError when somebody else has edited it meanwhile."""
    present = seen
    for _ in range(AMENDMENTS):
        whole = proposals.resolved(present["spec"].get("resolutions") or (), wished)
        try:
            return await session.cluster.amend(edit_of(present, {"resolutions": whole}))
        except ConflictError:
            metadata = seen["metadata"]
            present = await the(session, seen["kind"], metadata["name"], metadata["namespace"])
            if any(present["metadata"][key] != metadata[key] for key in ("uid", "generation")):
                raise
    raise Failure(f"{title(seen)} is being written to all the time: ask again")


def _list_conflicts(session: Session, request: Manifest) -> None:
    conflicts = (request.get("status") or {}).get("conflicts") or {}
    listed, name = conflicts.get("listed") or (), request["metadata"]["name"]
    lines = [
        "  ".join(
            part
            for part in (entry["id"], f"row {entry['row']}" if entry.get("row") else "", entry["kind"], _where(entry))
            if part
        )
        for entry in listed
    ]
    more = conflicts.get("open", 0) - len(listed)
    further = [f"and {more} more, which are listed once these are decided"] if more > 0 else []
    session.show(conflicts or {"open": 0, "decided": 0}, *(lines or ["no conflict waits for a decision"]), *further)
    for mended in proposals.mended_at_source(request):
        session.say(f"{mended}: no side can be taken, mend it on the source")
    if listed:
        session.say(f"coppice diff request/{name} --conflicts shows the values; decide with --take source|target")


def _where(entry: Any) -> str:
    column = f".{entry['column']}" if entry.get("column") else ""
    detail = f" ({entry['detail']})" if entry.get("detail") else ""
    return visible(f"{entry['table']}{column}{detail}")
