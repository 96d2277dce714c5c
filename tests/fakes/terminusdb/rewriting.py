"""Histories made anew in the double: ``squash`` and ``rebase``.

As in the source of 12.0.6: a squash takes a branch, and makes of its head a commit without a parent, of layers without parents, to which no branch leads;
a rebase says again, commit by commit, what this branch has said since the newest common commit, triple by triple and upon the other one. Two values of a
property that has one are refused; those of one that has many are united, and nobody is told. Only the double shows: the value of a property of the schema is
one triple, and a list has no order.

Coppice calls no ``rebase``: whoever writes to a store may, for the app's login has the right to, and what Coppice reads afterwards is a history like any
other. That is why it is here, with the errors that the server has for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from checks import DATA, MANY, SCHEMA, check, properties
from databases import Databases, place
from refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Place

    Content = dict[str, Any]
    Triples = set[tuple[str, str, str]]

OK = {"api:status": "api:success"}
SQUASHING, REBASING = "api:SquashErrorResponse", "api:RebaseErrorResponse"


class Rewriting:
    """The routes ``squash`` and ``rebase``."""

    databases: Databases
    user: str
    body: Any

    def squash_post(self, path: str) -> Any:
        info, at = self.body["commit_info"], place(path)
        if at.branch is None:
            words = f"The path {path} is not a branch descriptor"
            raise RefusedError(400, "api:NotABranchDescriptorError", words, response=SQUASHING)
        self.databases.may(self.user, "commit_write_access", at.database)
        try:
            old = self.databases.head(at)
        except RefusedError:
            words = f"The path {path} can not be resolved to a resource"
            raise RefusedError(400, "api:UnresolvableAbsoluteDescriptor", words, response=SQUASHING) from None
        new = self.databases.squash(at.database, old, {**info, "user": self.user})
        made, was = (f"{at.database}/local/commit/{commit['identifier']}" for commit in (new, old))
        return {"@type": "api:SquashResponse", "api:commit": made, "api:old_commit": was, **OK}

    def rebase_post(self, path: str) -> Any:
        author, at, onto = self.body["author"], place(path), place(self.body["rebase_from"])
        for action in ("commit_read_access", "schema_write_access", "instance_write_access"):
            self.databases.may(self.user, action, at.database)
        self._expect_branches(path, at, onto)
        with self.databases.writing():
            ours, theirs = self.databases.log(at), self.databases.log(onto)
            known = {commit["@id"] for commit in theirs}
            common = next((commit for commit in ours if commit["@id"] in known), None)
            own = [commit for commit in ours[: None if common is None else ours.index(common)] if "parent" in commit]
            forwarded = theirs[: None if common is None else theirs.index(common)]
            tip, made, reports = theirs[0], [], []
            for commit in reversed(own):
                tip = self._upon(tip, commit, author, at)
                made.append(tip)
                reports.append(_report(commit, tip))
            new = {commit["@id"]: commit for commit in made}
            self.databases.change_commits(at.database, {**new, **self.databases.branch(at.branch or "", tip["@id"])})
        shared = {} if common is None else {"api:common_commit_id": common["identifier"]}
        return {
            "@type": "api:RebaseResponse",
            "api:forwarded_commits": [commit["identifier"] for commit in reversed(forwarded)],
            "api:rebase_report": reports,
            **shared,
            **OK,
        }

    def _expect_branches(self, path: str, at: Place, onto: Place) -> None:
        if at.branch is None:
            words = f"The following rebase target absolute resource descriptor does not describe a branch: {path}"
            raise RefusedError(400, "api:NotATargetBranchDescriptorError", words, response=REBASING)
        if onto.branch is None and onto.commit is None:
            words = "The following rebase source absolute resource descriptor does not describe a branch"
            raise RefusedError(400, "api:NotASourceBranchDescriptorError", words, response=REBASING)
        if onto.repository != "local":
            raise RefusedError(500, "", "a rebase from what was fetched fails")

    def _upon(self, tip: Content, commit: Content, author: str, at: Place) -> Content:
        """Return what one commit has said, said upon another."""
        before = self.databases.commits(at.database)[commit["parent"]]
        schemas, instances = (
            [self.databases.layer(each, graph) for each in (before, commit, tip)] for graph in ("schema", "instance")
        )
        witnesses: list[Content] = []
        classes = _said_again(*schemas, {}, witnesses)
        documents = _said_again(*instances, classes, witnesses)
        if not witnesses:
            try:
                check(classes, documents, documents, instances[2].keys() - documents.keys())
            except RefusedError as error:
                witnesses = error.more["api:witnesses"]
        if witnesses:
            words = f"Rebase failed on commit {commit['identifier']} due to schema validation errors"
            more = {"api:their_commit": commit["identifier"], "api:witness": witnesses}
            raise RefusedError(400, "api:RebaseSchemaValidationError", words, response=REBASING, **more)
        info = {"author": author, "message": commit["message"], "user": self.user}
        return self.databases.commit_upon(tip, {"schema": classes, "instance": documents}, info)


def _said_again(before: Content, after: Content, tip: Content, classes: Content, witnesses: list[Content]) -> Content:
    many = {kind: {w for w, wanted in properties(classes, kind).items() if _has_many(wanted)} for kind in classes}
    old, new, there = (set(_triples(content, many)) for content in (before, after, tip))
    values: dict[str, dict[str, list[Any]]] = {}
    for name, word, value in sorted((there - (old - new)) | (new - old)):
        values.setdefault(name, {}).setdefault(word, []).append(json.loads(value))
    found: Content = {}
    for name, words in values.items():
        kind = words.get("@type", [""])[0]
        document = {}
        for word, each in words.items():
            if word in many.get(kind, ()):
                document[word] = each
            else:
                document[word] = each[0]
                if len(each) > 1:
                    about = {"instance": f"{DATA}{name}", "class": f"{SCHEMA}{kind}", "predicate": f"{SCHEMA}{word}"}
                    witnesses.append({"@type": "instance_not_cardinality_one", **about})
        found[name] = tip[name] if document == tip.get(name) else document
    return found


def _triples(content: Content, many: dict[str, set[str]]) -> Iterator[tuple[str, str, str]]:
    for name, document in content.items():
        lists = many.get(str(document.get("@type")), set())
        for word, value in document.items():
            for each in value if word in lists else [value]:
                yield name, word, json.dumps(each, sort_keys=True)


def _has_many(wanted: Any) -> bool:
    return isinstance(wanted, dict) and wanted.get("@type") in MANY


def _report(commit: Content, made: Content) -> Content:
    return {
        "@type": "api:RebaseReport",
        "api:origin_commit": commit["identifier"],
        "api:applied": [made["identifier"]],
        "api:commit_type": "api:valid_commit",
    }
