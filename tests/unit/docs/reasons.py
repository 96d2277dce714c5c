"""The reasons of conditions that the reconcilers can give, read from their source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from coppice.core.pullrequests import UnknownReason

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "operator/coppice/reconcile"
REASON = re.compile(r"[A-Z][A-Za-z]+")
POSITION = {
    "holds": 1,
    "waits": 1,
    "rests": 1,
    "stalls": 1,
    "Fact": 1,
    "waits_for_volume": 1,
    "waits_for_capture": 1,
    "_condition": 2,
    "Wait": 0,
    "Refusal": 0,
    "NoStorage": 0,
    "Event": 0,
}
"""Where the reason stands among the positional arguments of everything that takes one."""


def reasons_in(source: str) -> set[str]:
    """Return the literal reasons in a module. Raises AssertionError for one that is put together at run time."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        for value in _values(node):
            found |= _literals(value)
    return found


def all_reasons() -> set[str]:
    """Return the reasons in all reconcilers."""
    of_forges = {str(reason) for reason in UnknownReason}
    return of_forges.union(*(reasons_in(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))))


def _values(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        position = POSITION.get(name)
        if position is not None and len(node.args) > position:
            yield node.args[position]
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "reason")
    elif isinstance(node, ast.FunctionDef) and node.name == "_explain":
        returned = [entry.value for entry in ast.walk(node) if isinstance(entry, ast.Return)]
        yield from (value.elts[0] for value in returned if isinstance(value, ast.Tuple))


def _literals(value: ast.expr) -> set[str]:
    if isinstance(value, ast.Constant):
        assert REASON.fullmatch(str(value.value)), f"{value.value!r} is not a reason"
        return {str(value.value)}
    if isinstance(value, ast.IfExp):
        return _literals(value.body) | _literals(value.orelse)
    # A name or attribute hands on what is a literal elsewhere.
    assert isinstance(value, ast.Name | ast.Attribute), f"a reason is put together: {ast.unparse(value)}"
    return set()
