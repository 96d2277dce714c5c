"""``coppice branch restore``: what a deleted branch held comes back, on one that begins at the tag that keeps it.

What is kept stands in the store's status: nobody has to see rows to find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coppice.cli import options
from coppice.cli.cells import visible
from coppice.cli.make import make
from coppice.cli.problems import Failure
from coppice.cli.read import placed
from coppice.cli.session import Session, command
from coppice.cli.wishes import Source, branch_wish, read_place
from coppice.cli.words import short, title
from coppice.core.plan import Manifest

Kept = Mapping[str, Any]
"""An entry of ``status.deletedBranches`` of a DataStore."""
NEXT: Final = "what was deleted in the last minute may not be listed yet"


@command("branch restore")
@click.argument("branch", required=False, metavar="[BRANCH|TAG]")
@click.option("--from", "store", metavar="[NAMESPACE/]STORE", required=True, help="The DataStore that had the branch.")
@click.option("--as", "other", metavar="BRANCH", help="Another name for the branch; its old one if left out.")
@click.option("--name", help="Name of the DataBranch; made of the branch's own if left out.")
@options.waiting
async def restore(
    session: Session,
    branch: str | None,
    store: str,
    other: str | None,
    name: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Make a deleted BRANCH again as it was; of several deletions the last one, or that of the TAG. Without a name:
    list what can be restored.
    """
    place = read_place(store)
    found = await placed(session, "DataStore", place)
    kept: Sequence[Kept] = (found.get("status") or {}).get("deletedBranches") or ()
    if branch is None:
        session.show({"deletedBranches": list(kept)}, _listed(kept) if kept else f"nothing is kept; {NEXT}")
        return
    chosen = _chosen(found, kept, branch)
    restored = other or str(chosen["branch"])
    _refuse_present(found, restored)
    wish = branch_wish(restored, session.namespace, Source(place, {"tag": str(chosen["tag"])}), name=name)
    made = await make(session, wish, patience if wait else None)
    if (made.get("status") or {}).get("created") is False:
        raise Failure(
            f"somebody else has made branch {restored} meanwhile, and nothing is restored: delete {title(made)}, which "
            "leaves the branch as it is, and choose another name with --as"
        )


def _chosen(store: Manifest, kept: Sequence[Kept], wanted: str) -> Kept:
    """Return the youngest that is meant; the store lists them so."""
    chosen = next((entry for entry in kept if wanted in {entry["branch"], entry["tag"]}), None)
    if chosen is not None:
        return chosen
    names = ", ".join(dict.fromkeys(str(entry["branch"]) for entry in kept)) or "nothing"
    raise Failure(f"{title(store)} does not keep {wanted}, but {names}; {NEXT}")


def _refuse_present(store: Manifest, branch: str) -> None:
    for entry in (store.get("status") or {}).get("branches") or ():
        if entry["name"] == branch:
            raise Failure(
                f"{title(store)} has a branch {branch}, at {short(entry['head'])}: choose another name with --as"
            )


def _listed(kept: Sequence[Kept]) -> RenderableType:
    table = Table("BRANCH", "COMMIT", "DELETED", "KEPT UNTIL", "TAG", box=None, pad_edge=False, header_style="bold")
    for entry in kept:
        table.add_row(
            Text(visible(entry["branch"]), overflow="fold"),
            Text(short(entry["head"]), style="yellow"),
            *(f"{datetime.fromisoformat(entry[key]):%Y-%m-%d %H:%M}" for key in ("deletedAt", "keptUntil")),
            Text(visible(entry["tag"]), overflow="fold"),
        )
    return table
