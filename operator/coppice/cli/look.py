"""``coppice status`` and ``coppice tree``: what there is, how it is, and what can be done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from coppice.cli.completion import names_of
from coppice.cli.forest import Node, Seen, grow
from coppice.cli.problems import Failure
from coppice.cli.proposals import advice
from coppice.cli.session import Session, command, plain
from coppice.cli.wishes import read_place
from coppice.cli.words import SUMMARY, aspects, facts, is_ready, is_stalled, next_step, state, title
from coppice.core.plan import Manifest
from coppice.kube.errors import ForbiddenError

KINDS: Final = (
    "DataClone",
    "DataStore",
    "DataBranch",
    "DataSnapshot",
    "DataChangeRequest",
    "DataReview",
    "DataGrant",
)
_TOLD_IN_A_LIST: Final = frozenset(
    {"of", "lease", "engine", "snapshot", "branch", "head", "captured", "store", "to"}
    | {"title", "author", "into", "conflicts", "verdict", "request", "reviewer"}
)
_SIGNS: Final = {"True": ("✓", "green"), "False": ("✗", "red"), "Unknown": ("·", "dim")}


@command("status")
@click.argument("name", required=False, shell_complete=names_of(*KINDS))
async def status(session: Session, name: str | None) -> None:
    """Show how everything in a namespace is; or of one object every condition, and what to do now."""
    found = [entry for entries in await _all(session, session.namespace) for entry in entries]
    if name is None:
        session.show({"items": [plain(entry) for entry in found]}, _listed(found, session))
        return
    meant = [entry for entry in found if entry["metadata"]["name"] == name]
    if not meant:
        kinds = ", ".join(KINDS[:-1])
        raise Failure(
            f"there is no {kinds} or {KINDS[-1]} {name} in namespace {session.namespace}: coppice status lists what "
            "there is, and --namespace names another one"
        )
    shown = [part for entry in meant for part in _described(entry, session.now())]
    session.show({"items": [plain(entry) for entry in meant]}, *shown)


async def _all(session: Session, namespace: str) -> list[Sequence[Manifest]]:
    return list(await asyncio.gather(*(session.cluster.list(kind, namespace) for kind in KINDS)))


def _listed(found: Sequence[Manifest], session: Session) -> RenderableType:
    if not found:
        return f"nothing of Coppice in namespace {session.namespace}"
    table = Table("KIND", "NAME", "STATE", "WHAT", "NEXT STEP", box=None, pad_edge=False, header_style="bold")
    for entry in found:
        told = [(name, value) for name, value in facts(entry, session.now()) if name in _TOLD_IN_A_LIST]
        known = [f"lease {value}" if name == "lease" else value for name, value in told]
        step = "" if is_ready(entry) else _step(entry)
        name = entry["metadata"]["name"]
        table.add_row(entry["kind"], Text(name), _colored(entry), Text("; ".join(known)), Text(step))
    return table


def _colored(manifest: Manifest) -> Text:
    color = "green" if is_ready(manifest) else "red" if is_stalled(manifest) else "yellow"
    return Text(state(manifest), style=color)


def _described(manifest: Manifest, now: datetime) -> Iterator[RenderableType]:
    yield Text.assemble((title(manifest), "bold"), "  ", _colored(manifest))
    yield from (f"  {name:<11}{value}" for name, value in facts(manifest, now))
    steps = [found for found in aspects(manifest) if found.type not in SUMMARY]
    if steps:
        table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False, show_edge=False)
        for found in steps:
            sign, color = _SIGNS[found.status]
            table.add_row(Text(sign, style=color), found.type, found.reason, Text(found.message, overflow="fold"))
        yield Padding(table, (0, 0, 0, 2), expand=False)
    yield f"  {'next step':<11}{_step(manifest)}"


def _step(manifest: Manifest) -> str:
    return advice(manifest) if manifest["kind"] == "DataChangeRequest" else next_step(manifest)


@command("tree")
@click.argument("store", metavar="[[NAMESPACE/]STORE]", required=False)
async def tree(session: Session, store: str | None) -> None:
    """Show the stores of a namespace with their branches, snapshots, and the clones made of those."""
    place = read_place(store) if store is not None else None
    owners = place.within(session.namespace) if place is not None else session.namespace
    seen = await _seen(session, owners)
    roots = grow(seen, session.now())
    if place is not None:
        roots = [root for root in roots if root.name == f"{owners}/{place.name}"]
    if not roots and place is not None:
        raise Failure(
            f"there is no DataStore {place.name} in namespace {owners}, or you may not read it: coppice tree -n "
            f"{owners} shows what you can see there"
        )
    trees: list[RenderableType] = [_drawn(root) for root in roots]
    nothing = f"no DataStore, and no clone of one, in namespace {session.namespace}"
    session.show({"stores": [root.dump() for root in roots]}, *(trees or [nothing]))


async def _seen(session: Session, owners: str) -> Seen:
    """Return what may be read: of the owners' namespace, and clones of all namespaces or, else, of one's own."""
    stores, branches, snapshots, clones = await asyncio.gather(
        _readable(session, "DataStore", owners),
        _everywhere(session, "DataBranch", owners),
        _readable(session, "DataSnapshot", owners),
        _everywhere(session, "DataClone", owners),
    )
    return Seen(stores, branches, snapshots, clones)


async def _readable(session: Session, kind: str, namespace: str) -> Sequence[Manifest]:
    try:
        return await session.cluster.list(kind, namespace)
    except ForbiddenError:
        if namespace == session.namespace:
            raise
        return ()


async def _everywhere(session: Session, kind: str, owners: str) -> Sequence[Manifest]:
    """Return the objects of all namespaces that name a store of the owners', or else those of one's own namespace."""
    try:
        found = await session.cluster.list(kind)
    except ForbiddenError:
        return await session.cluster.list(kind, session.namespace)
    return [entry for entry in found if owners in {entry["metadata"]["namespace"], _owners_of(entry)}]


def _owners_of(manifest: Manifest) -> str:
    spec = manifest["spec"]
    store = spec["store"] if "store" in spec else spec["from"]["store"]
    return str(store.get("namespace") or manifest["metadata"]["namespace"])


def _drawn(root: Node) -> Tree:
    drawn = Tree(_label(root))
    for child in root.children:
        _draw(child, drawn)
    return drawn


def _draw(node: Node, parent: Tree) -> None:
    branch = parent.add(_label(node))
    for child in node.children:
        _draw(child, branch)


def _label(node: Node) -> Text:
    return Text.assemble(f"{node.kind} ", (node.name, "bold"), f"  {node.about}" if node.about else "")
