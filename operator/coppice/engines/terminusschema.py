"""Schemas of TerminusDB: how two differ, and what becomes of two that come from one.

The server's comparison of versions leaves the schema out, and so does what it writes by one: the documents that are the
schema are compared here, class by class, and within a class word by word (a property, ``@key``, ``@inherits``, …).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coppice.engines.merging import Side
from coppice.engines.terminusapi import Api
from coppice.engines.terminuspaths import commit_path

CONTEXT: Final = "@context"
KEY: Final = "@key"
_OPTIONAL: Final = "Optional"
_LOOSE: Final = frozenset({_OPTIONAL, "Set", "List", "Array"})
"""The kinds of property that a document may be without."""

Class = Mapping[str, Any]
Schema = Mapping[str, Class]


class TighterError(Exception):
    """There is no schema that allows what each of two allows: a property has two types. It names class and property."""

    def __init__(self, name: str, word: str) -> None:
        super().__init__(f"{name}.{word}")
        self.name = name
        self.word = word


@dataclass(frozen=True, slots=True)
class Clash:
    """A class that both sides have changed, and not to the same."""

    name: str
    base: Class | None
    ours: Class | None
    theirs: Class | None
    detail: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What becomes of two schemas. ``replaced`` are the words of a class that one side has taken away or changed: what
    the other side says by them has no meaning any more.
    """

    schema: Schema
    clashes: Sequence[Clash] = ()
    replaced: Mapping[Side, Mapping[str, frozenset[str]]] = field(default_factory=dict)


async def schema_at(api: Api, database: str, commit: str) -> Schema:
    """Return the schema of a commit: its classes by their names, and what they all rest on."""
    found = await api.get(f"document/{commit_path(database, commit)}", graph_type="schema", as_list="true")
    return {str(each.get("@id", CONTEXT)) if each.get("@type") != CONTEXT else CONTEXT: each for each in found}


def documents_of(schema: Schema) -> Sequence[Class]:
    """Return a schema as it is written: what all rest on first."""
    return [schema[name] for name in sorted(schema, key=lambda name: (name != CONTEXT, name))]


def properties(schema: Schema, name: str) -> Mapping[str, Any]:
    """Return the properties of a class and of those that it inherits from."""
    found: dict[str, Any] = {}
    waiting, seen = [name], set[str]()
    while waiting:
        known = schema.get(waiting.pop(), {})
        if known.get("@id") in seen:
            continue
        seen.add(str(known.get("@id")))
        inherits = known.get("@inherits", [])
        waiting.extend([inherits] if isinstance(inherits, str) else inherits)
        found = {**{word: kind for word, kind in known.items() if not word.startswith("@")}, **found}
    return found


def statements(old: Schema, new: Schema) -> Sequence[str]:
    """Return how one schema becomes another, for people to read: TerminusDB has no language for it."""
    found: list[str] = []
    for name in _names(old, new):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        what = "prefixes" if name == CONTEXT else f"class {name}"
        if before is None or after is None:
            found.append(f"ADD {what} {_text(after)}" if before is None else f"DROP {what}")
            continue
        for word in _names(before, after):
            found.extend(_change(what, word, before, after))
    return found


def _change(what: str, word: str, before: Class, after: Class) -> Iterable[str]:
    if before.get(word) == after.get(word):
        return
    if word not in after:
        yield f"ALTER {what} DROP {word}"
    elif word not in before:
        yield f"ALTER {what} ADD {word} {_text(after[word])}"
    else:
        yield f"ALTER {what} CHANGE {word} FROM {_text(before[word])} TO {_text(after[word])}"


def merged(base: Schema, ours: Schema, theirs: Schema) -> Merged:
    """Merge two schemas by what they come from."""
    found: dict[str, Class] = {}
    clashes: list[Clash] = []
    for name in _names(base, ours, theirs):
        versions = (base.get(name), ours.get(name), theirs.get(name))
        known, words = _merged_class(*versions)
        if words is not None:
            clashes.append(Clash(name, *versions, words))
        if known is not None:
            found[name] = known
    replaced: dict[Side, Mapping[str, frozenset[str]]] = {
        "Target": _replaced(base, ours, theirs),
        "Source": _replaced(base, theirs, ours),
    }
    return Merged(found, clashes, replaced)


def _merged_class(base: Class | None, ours: Class | None, theirs: Class | None) -> tuple[Class | None, str | None]:
    if theirs in (ours, base):
        return ours, None
    if ours == base:
        return theirs, None
    if ours is None or theirs is None:
        return ours, "one side has dropped the class, and the other has changed it"
    if base is None:
        return ours, "both sides have made this class"
    found: dict[str, Any] = {}
    for word in (*ours, *(word for word in theirs if word not in ours)):
        old, mine, other = base.get(word), ours.get(word), theirs.get(word)
        if mine != other and old not in (mine, other):
            return ours, f"both sides have changed {word}"
        kept = other if mine == old else mine
        if kept is not None:
            found[word] = kept
    return found, None


def _replaced(base: Schema, side: Schema, other: Schema) -> Mapping[str, frozenset[str]]:
    """Return the words of each class that a side has taken away or changed, and the other not to the same; all of a
    class that it has dropped, which ``@id`` stands for. Whether a document may be without a property is the server's to
    see.
    """
    found: dict[str, frozenset[str]] = {}
    for name, known in base.items():
        now, there = side.get(name), other.get(name, {})
        words = {
            word for word in known if _inner(known[word]) != _inner((now or {}).get(word)) != _inner(there.get(word))
        }
        if words and name != CONTEXT:
            found[name] = frozenset(words if now is not None else {"@id"})
    return found


def loosened(old: Schema, new: Schema) -> Schema:
    """Return a schema that allows what either of two allows; raises TighterError where there is none."""
    found: dict[str, Class] = {}
    for name in _names(old, new):
        before, after = old.get(name), new.get(name)
        if before is None or after is None or before == after or name == CONTEXT:
            known = after if after is not None else before
        else:
            known = _loosened_class(name, before, after)
        found[name] = known or {}
    return found


def _loosened_class(name: str, before: Class, after: Class) -> Class:
    found: dict[str, Any] = {}
    for word in (*after, *(word for word in before if word not in after)):
        old, new = before.get(word), after.get(word)
        if word.startswith("@"):
            kept = new if word in after else old
        elif old == new:
            kept = new
        elif old is None or new is None:
            kept = _optional(new if old is None else old)
        elif _inner(old) == _inner(new):
            kept = _optional(new)
        else:
            raise TighterError(name, word)
        found[word] = kept
    return found


def _optional(kind: Any) -> Any:
    if isinstance(kind, Mapping) and kind.get("@type") in _LOOSE:
        return kind
    return {"@type": _OPTIONAL, "@class": kind}


def _inner(kind: Any) -> Any:
    """Return what a property is of, whether or not a document may be without it."""
    return kind["@class"] if isinstance(kind, Mapping) and kind.get("@type") == _OPTIONAL else kind


def _names(*parts: Mapping[str, Any]) -> Sequence[str]:
    return sorted({name for part in parts for name in part})


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
