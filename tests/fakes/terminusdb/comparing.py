"""Two versions of the double's documents: how they differ, and what ``apply`` makes of that.

As in the source of 12.0.6, with its faults: which two versions are compared is for the caller to say, a deletion does not look at what it deletes, a
patch of a document that is not there is passed over, and the schema is not compared at all. Only the double shows: every changed value is swapped as a
whole, where the real server has operations for parts of lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from databases import Place, place
from refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Databases

    Content = dict[str, Any]


class Comparing:
    """The routes ``diff``, ``apply`` and ``reset``."""

    databases: Databases
    user: str
    body: Any

    def diff_post(self, path: str) -> Any:
        at = place(path)
        self.databases.may(self.user, "instance_read_access", at.database)
        before, after = (self._content(at, self.body[f"{side}_data_version"]) for side in ("before", "after"))
        found = list(patches(before, after))
        start = int(self.body.get("start", 0))
        return found[start : start + int(self.body["count"])] if "count" in self.body else found[start:]

    def apply_post(self, path: str) -> Any:
        at, databases = place(path), self.databases
        databases.may(self.user, "instance_write_access", at.database)
        info = {**self.body["commit_info"], "user": self.user}
        with databases.writing():
            before, after = (self._content(at, self.body[f"{side}_commit"]) for side in ("before", "after"))
            documents = dict(databases.graph(at, "instance"))
            known = dict(documents)
            lenient = self.body.get("match_final_state", True)
            witnesses = [each for patch in patches(before, after) for each in _apply(documents, patch, lenient=lenient)]
            if witnesses:
                raise RefusedError(409, "api:ApplyError", "", **{"api:witnesses": witnesses})
            put = {name: document for name, document in documents.items() if known.get(name) is not document}
            databases.write(at, "instance", put, tuple(known.keys() - documents.keys()), info)
        return {"@type": "api:ApplyResponse", "api:status": "api:success"}

    def reset_post(self, path: str) -> Any:
        at = place(path)
        self.databases.may(self.user, "commit_write_access", at.database)
        self.databases.move_branch(at, self.databases.head(place(self.body["commit_descriptor"])))
        return {"@type": "api:ResetResponse", "api:status": "api:success"}

    def _content(self, at: Place, version: str) -> Content:
        """Return the documents of a version: ``commit:C``, ``branch:C``, a commit, or the name of a branch."""
        kind, _, commit = version.rpartition(":")
        try:
            return self.databases.graph(Place(at.database, commit=commit), "instance")
        except RefusedError:
            if kind:
                raise
            return self.databases.graph(Place(at.database, branch=version), "instance")


def patches(before: Content, after: Content) -> Iterator[Content]:
    """Return how each document that differs does."""
    # What a layer has from its parent is the very same object: that is seen at once, however many there are.
    names = [name for name, new in after.items() if before.get(name) is not new]
    names += [name for name in before if name not in after]
    for name in sorted(names):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None:
            yield {"@op": "Insert", "@insert": new}
        elif new is None:
            yield {"@op": "Delete", "@delete": old}
        else:
            swapped = {
                word: {"@op": "SwapValue", "@before": old.get(word), "@after": new.get(word)}
                for word in sorted({*old, *new})
                if old.get(word) != new.get(word)
            }
            yield {"@id": name, "@type": new["@type"], **swapped}


def _apply(documents: Content, patch: Content, *, lenient: bool) -> Iterator[Content]:
    if (gone := patch.get("@delete")) is not None:
        if documents.pop(gone["@id"], None) is None and not lenient:
            yield {"@op": "DeleteConflict", "@id_does_not_exists": gone["@id"]}
        return
    if (new := patch.get("@insert")) is not None:
        if new["@id"] in documents and not (lenient and documents[new["@id"]] == new):
            yield {"@op": "InsertConflict", "@id_already_exists": new["@id"]}
        documents.setdefault(new["@id"], new)
        return
    if (document := documents.get(patch["@id"])) is None:
        return
    witness = {}
    changed = dict(document)
    for word, swap in patch.items():
        if not isinstance(swap, dict):
            continue
        found = document.get(word)
        if found != swap["@before"] and not (lenient and found == swap["@after"]):
            witness[word] = {"@op": "Conflict", "@expected": swap["@before"], "@found": found}
        changed[word] = swap["@after"]
    documents[patch["@id"]] = {word: value for word, value in changed.items() if value is not None}
    if witness:
        yield {"@id": patch["@id"], **witness}
