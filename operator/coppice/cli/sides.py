"""Rows side by side, each drawn as it comes: how many there are is not known before, nor does it matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import chop_cells, set_cell_size
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coppice.cli.cells import changed_columns, named, shown, visible
from coppice.engines.merging import ChangeSet, Conflict, RowChange, Value

_SIGNS: Final = {"Added": ("+", "green"), "Modified": ("~", "yellow"), "Deleted": ("-", "red")}
_MARGIN: Final = 4
_GAP: Final = 2
_NAME_WIDTH: Final = 24
_MISSING: Final = "—"
"""Where a row or column is not there at all."""

Cells = Mapping[str, Value] | None


def row_sides(change: RowChange, width: int) -> Text:
    """Return one changed row: before on the left, after on the right."""
    sign, color = _SIGNS[change.kind]
    drawn = Text.assemble((f"{sign} {visible(change.table)}", color), f"  {named(change.key)}")
    sides = [(change.before, "red"), (change.after, "green")]
    return _beside(drawn, changed_columns(change), sides, width)


def conflict_sides(conflict: Conflict, taken: str | None, width: int) -> Text:
    """Return one conflict: what both came from, what is on the target, what is proposed."""
    where = visible(conflict.table if conflict.column is None else f"{conflict.table}.{conflict.column}")
    known = "".join(f"  {part}" for part in (named(conflict.key), visible(conflict.detail)) if part)
    decided = f"  {taken} is taken" if taken else ""
    drawn = Text.assemble((f"{conflict.id}  {conflict.kind} {where}", "yellow"), known, (decided, "green"))
    if conflict.row:
        drawn.append(f"\n{' ' * _MARGIN}row {conflict.row}", "dim")
    sides = [_cells(conflict, value) for value in (conflict.base, conflict.ours, conflict.theirs)]
    columns = list(dict.fromkeys(name for side in sides for name in side or ()))
    _append(drawn, [(head, "dim") for head in ("", "base", "target", "source")], width)
    return _beside(drawn, columns, list(zip(sides, ("", "red", "green"), strict=True)), width)


def _cells(conflict: Conflict, value: object) -> Cells:
    if value is None and conflict.column is None:
        return None
    if isinstance(value, Mapping):
        return value
    return {conflict.column or "definition": value if isinstance(value, str | int | float | None) else str(value)}


def _beside(drawn: Text, columns: Sequence[str], sides: Sequence[tuple[Cells, str]], width: int) -> Text:
    """Append cells beside each other, in columns that are as wide for every row of every table."""
    for name in columns:
        _append(drawn, [(visible(name), ""), *(_side(cells, name, color) for cells, color in sides)], width)
    return drawn


def _append(drawn: Text, cells: Sequence[tuple[str, str]], width: int) -> None:
    """Append one line of cells, or as many as the longest of them takes."""
    each = max((width - _MARGIN - _NAME_WIDTH - _GAP) // (len(cells) - 1) - _GAP, 1)
    sizes = [_NAME_WIDTH, *(each for _ in cells[1:])]
    pieces = [chop_cells(text, size) or [""] for (text, _), size in zip(cells, sizes, strict=True)]
    for line in zip_longest(*pieces, fillvalue=""):
        drawn.append(f"\n{' ' * _MARGIN}")
        for place, (piece, size) in enumerate(zip(line, sizes, strict=True)):
            # Nothing but blanks behind the last one.
            rest = any(line[place + 1 :])
            drawn.append(set_cell_size(piece, size) + " " * _GAP if rest else piece, cells[place][1])


def _side(cells: Cells, name: str, color: str) -> tuple[str, str]:
    if cells is None or name not in cells:
        return _MISSING, "dim"
    return shown(cells[name]), color if cells[name] is not None else "dim italic"


def summary(changes: ChangeSet) -> Iterator[RenderableType]:
    """Return how many rows change, table by table, and the changes of definitions."""
    if not changes.tables and not changes.statements:
        yield "nothing differs"
        return
    rows = [(entry.table, entry.added, entry.modified, entry.deleted, entry.schema) for entry in changes.tables]
    yield tables(rows)
    yield from (Text(visible(text)) for text in changes.statements)


def tables(rows: Sequence[tuple[str, int, int, int, bool]]) -> Table:
    """Return tables with the numbers of their rows that change."""
    table = Table("TABLE", "ADDED", "CHANGED", "DELETED", "", box=None, pad_edge=False, header_style="bold")
    for name, added, modified, deleted, schema in rows:
        numbers = [
            Text(str(count) if count else "", style=color)
            for count, color in ((added, "green"), (modified, "yellow"), (deleted, "red"))
        ]
        table.add_row(Text(visible(name)), *numbers, "definition" if schema else "")
    return table
