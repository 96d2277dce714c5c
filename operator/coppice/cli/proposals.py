"""What a change request says: where its change can be looked at, what it conflicts in, what is decided. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from coppice.api.v1alpha1 import Publish, ReviewedPatch
from coppice.cli.problems import Failure
from coppice.cli.words import aspect, counted, is_current, is_stalled, next_step, state, title
from coppice.core.plan import Manifest
from coppice.engines.merging import Conflict, Decision, MergeInputs, Signature
from coppice.engines.patching import PatchInputs

HANDED: Final = "HandOver"
"""Why a patch is not published: everything is as it should be, and somebody is to run it."""
DECIDABLE: Final = frozenset({"Cell", "Row"})
"""Kinds of conflicts in which a side can be taken; the others are mended on the source."""


@dataclass(frozen=True, slots=True)
class Where:
    """An object whose data somebody is to look at."""

    kind: str
    name: str
    namespace: str

    @property
    def place(self) -> tuple[str, str, str]:
        """Return kind, name and namespace."""
        return self.kind, self.name, self.namespace


@dataclass(frozen=True, slots=True)
class Look(Where):
    """And between which versions; ``note`` says what that is not."""

    before: str
    after: str
    note: str = ""


def look_at(request: Manifest) -> Look:
    """Return where the change of a request can be seen: what was published, or else what would be; raises Failure."""
    status, namespace = request.get("status") or {}, request["metadata"]["namespace"]
    published, preview = status.get("published"), status.get("preview") or {}
    target, source = status.get("target") or {}, status.get("source") or {}
    if published:
        where = _source(request) if is_rebase(request) else None
        place = _store(request) if where is None else where.place
        return Look(*place, published["before"], published["commit"])
    if preview.get("ready") and target.get("head") and status.get("result"):
        return Look("DataClone", preview["clone"], namespace, target["head"], status["result"])
    where = _source(request)
    if where is None or not source.get("head") or not status.get("base"):
        raise Failure(f"{title(request)} has nothing to show yet ({state(request)}): {next_step(request)}")
    note = (
        f"there is no preview of the result: this is what the source changes, before it is merged with what is new on "
        f"{request['spec']['into']['branch']}"
    )
    return Look(where.kind, where.name, where.namespace, status["base"], source["head"], note)


def conflicts_at(request: Manifest) -> Where:
    """Return whose data hold both sides of a request; raises Failure."""
    preview = (request.get("status") or {}).get("preview")
    if preview:
        return Where("DataClone", preview["clone"], request["metadata"]["namespace"])
    if "branch" in request["spec"]["from"]:
        return Where(*_store(request))
    raise Failure(
        f"{title(request)} has no preview, which alone has both sides: set spec.preview to true, and wait until "
        "status.preview names a clone"
    )


def _store(request: Manifest) -> tuple[str, str, str]:
    return "DataStore", request["spec"]["store"]["name"], request["metadata"]["namespace"]


def _source(request: Manifest) -> Where | None:
    """Return whose data hold what is proposed; None where no server does but the scratch one."""
    source, namespace = request["spec"]["from"], request["metadata"]["namespace"]
    if "branch" in source:
        return Where(*_store(request))
    clone = source.get("clone")
    return Where("DataClone", clone["name"], clone.get("namespace") or namespace) if clone else None


def merge_of(request: Manifest) -> MergeInputs:
    """Return the merge that a request is, but for the database; raises Failure before it is computed."""
    spec, status = request["spec"], request.get("status") or {}
    target, source = status.get("target"), status.get("source")
    if not target or not source:
        raise Failure(f"{title(request)} is not computed yet ({state(request)}): {next_step(request)}")
    return MergeInputs(
        database="",
        target=target["head"],
        source=source["head"],
        author=Signature.of(spec["author"]),
        message=spec["title"],
        salt=request["metadata"]["uid"],
        decisions=decisions_of(request),
    )


def decisions_of(request: Manifest) -> tuple[Decision, ...]:
    """Return what is decided of its conflicts."""
    return tuple(_decision(entry) for entry in request["spec"].get("resolutions") or ())


def judged_by(request: Manifest) -> PatchInputs:
    """Return what a change for a live database is merged by."""
    return PatchInputs(request["metadata"]["uid"], decisions_of(request))


def servers_of(request: Manifest) -> tuple[Where, Where, Where]:
    """Return what a change for a live database is computed from: the copy of the snapshot that the clone came from,
    the clone, and the store; raises Failure where there is nothing to compute yet, or any more.
    """
    status, clone = request.get("status") or {}, _source(request)
    if status.get("published"):
        raise Failure(
            f"{title(request)} is in the live database, which keeps no earlier version to compare it with: coppice "
            f"review {_name(request)} shows what it changed, in numbers"
        )
    if not status.get("scratch") or clone is None:
        raise Failure(f"{title(request)} has nothing to show yet ({state(request)}): {next_step(request)}")
    return Where("DataClone", status["scratch"], request["metadata"]["namespace"]), clone, Where(*_store(request))


def patch_to_print(request: Manifest) -> str:
    """Return the digest by which what is handed over is told from anything else; raises Failure where nothing is."""
    publish, status, name = request["spec"].get("publish"), request.get("status") or {}, _name(request)
    if publish != Publish.PATCH:
        raise Failure(
            f"{title(request)} is published by the operator, and nothing is handed over: coppice diff request/{name} "
            "--sql shows what it changes. For SQL that somebody runs make another with publish: Patch"
        )
    if status.get("published"):
        raise Failure(f"{title(request)} is in the live database already")
    published = aspect(request, "Published")
    if not is_current(request) or published is None or published.reason != HANDED:
        raise Failure(f"{title(request)} is not handed over yet ({state(request)}): {advice(request)}")
    return str(status.get("result"))


def is_for_database(request: Manifest) -> bool:
    """Return whether it goes into a live database, and not into a branch or clone."""
    return request["spec"].get("publish") in {Publish.DATABASE, Publish.PATCH}


def in_database(inputs: MergeInputs, database: str) -> MergeInputs:
    """Return a merge in this database."""
    return replace(inputs, database=database)


def _decision(resolution: Mapping[str, Any]) -> Decision:
    named = {key: resolution.get(key) for key in ("conflict", "row", "table")}
    return Decision(take=resolution["take"], **named)


def side_taken(conflict: Conflict, decisions: Sequence[Decision]) -> str | None:
    """Return the side that is taken in a conflict; the closest decision wins."""
    if conflict.kind not in DECIDABLE:
        return None
    reaches = (
        lambda one: one.conflict == conflict.id,
        lambda one: one.row is not None and one.row == conflict.row,
        lambda one: one.table == conflict.table,
        lambda one: one.conflict is None and one.row is None and one.table is None,
    )
    return next((one.take for holds in reaches for one in decisions if holds(one)), None)


def is_rebase(request: Manifest) -> bool:
    """Return whether it changes the clone that it is from, and no branch."""
    return bool(request["spec"].get("publish") == Publish.REBASE)


def is_computed(request: Manifest) -> bool:
    """Return whether its status says what would change, of the specification as it stands."""
    computed = aspect(request, "Computed")
    return is_current(request) and computed is not None and computed.holds


def patch_to_review(request: Manifest) -> Mapping[str, str]:
    """Return what an approval would be of; raises Failure where there is nothing that could be approved."""
    status = request.get("status") or {}
    if is_rebase(request):
        raise Failure(f"{title(request)} changes a clone alone, and nobody has to approve it")
    if status.get("published"):
        raise Failure(f"{title(request)} is published already: {advice(request)}")
    if not is_current(request):
        raise Failure(
            f"{title(request)} has been changed since its change was computed: wait until coppice status "
            f"{_name(request)} shows the new one, and review that"
        )
    patch: Mapping[str, str] | None = status.get("patch")
    if not patch:
        raise Failure(f"{title(request)} has nothing that could be approved ({state(request)}): {advice(request)}")
    return {key: patch[key] for key in ReviewedPatch.model_fields}


def advice(request: Manifest) -> str:
    """Return what a person can do about a request now."""
    status, name = request.get("status") or {}, _name(request)
    if status.get("published"):
        if is_rebase(request):
            return f"nothing; on the clone, dolt_reset to {status['published']['before']} takes it back"
        if is_for_database(request):
            return "nothing; to take it back, make the opposite change on a new clone and propose that"
        return f"nothing; coppice revert {name} takes it back"
    if not is_computed(request) or is_stalled(request):
        return next_step(request)
    waiting = (status.get("conflicts") or {}).get("open", 0)
    if waiting:
        return f"coppice diff request/{name} --conflicts shows what both sides changed, coppice resolve {name} decides"
    checks = aspect(request, "ChecksPassed")
    if checks is not None and not checks.holds and checks.reason != "ChecksFailed":
        return checks.message
    failed = [check["name"] for check in status.get("checks") or () if not check["passed"]]
    if failed:
        return f"mend on the source what {', '.join(failed)} found: the change is computed anew"
    approved = aspect(request, "Approved")
    if approved is not None and not approved.holds:
        return f"somebody else looks with coppice diff request/{name} --rows, and says so with coppice review {name}"
    return next_step(request)


def resolved(present: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the resolutions with further ones: a later word on the same thing takes the place of an earlier one."""
    by_subject = {_subject(entry): dict(entry) for entry in (*present, *decisions)}
    return list(by_subject.values())


def _subject(resolution: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(resolution.get(key) for key in ("conflict", "row", "table"))


def unknown_subjects(request: Manifest, decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return ids and tables that no conflict of a request has, as far as its status lists them all."""
    conflicts = (request.get("status") or {}).get("conflicts") or {}
    listed = conflicts.get("listed") or ()
    if conflicts.get("open", 0) > len(listed):
        return []
    known = {entry.get(key) for entry in listed for key in ("id", "row", "table")}
    known |= {value for entry in request["spec"].get("resolutions") or () for value in _subject(entry)}
    return [value for entry in decisions for value in _subject(entry) if value is not None and value not in known]


def mended_at_source(request: Manifest) -> list[str]:
    """Return what waits and no side can be taken in: it is mended on the source."""
    listed = ((request.get("status") or {}).get("conflicts") or {}).get("listed") or ()
    return [f"{entry['kind']} {entry['table']}" for entry in listed if entry["kind"] not in DECIDABLE]


def groups_that_count(store: Manifest | None, groups: Sequence[str], most: int = 20) -> list[str]:
    """Return the groups that a reviewer speaks for: those that a store's rules name; the first ones if it is unseen."""
    if store is None:
        return list(groups)[:most]
    rules = store["spec"].get("protection") or ()
    named = {group for rule in rules for group in (rule.get("reviewers") or {}).get("groups") or ()}
    return [group for group in groups if group in named][:most]


def outline(request: Manifest) -> Iterator[tuple[str, str]]:
    """Return what a reviewer has to know of a request, as names and values; its tables stand apart."""
    spec, status = request["spec"], request.get("status") or {}
    yield "title", spec["title"]
    yield "why", spec.get("description") or ""
    yield "author", spec["author"]
    yield "from", source_of(spec["from"])
    live = f" (the live database, by publish: {spec['publish']})" if is_for_database(request) else ""
    yield "into", f"{spec['store']['name']}:{spec['into']['branch']}{live}"
    conflicts = status.get("conflicts") or {}
    if conflicts.get("open") or conflicts.get("decided"):
        decided = f", {conflicts.get('decided', 0)} decided"
        yield "conflicts", f"{conflicts.get('open', 0)} to be decided{decided}"
    yield "checks", ", ".join(_check(entry) for entry in status.get("checks") or ())
    yield "reviews", ", ".join(_review(entry) for entry in status.get("reviews") or ())
    preview = status.get("preview")
    if preview:
        yield "preview", f"DataClone {preview['clone']}{'' if preview.get('ready') else ', not there yet'}"
    published = status.get("published")
    if published:
        tag = f", tag {published['tag']}" if published.get("tag") else ""
        yield "published", f"{published['commit']} at {published['at']}{tag}"


def source_of(source: Mapping[str, Any]) -> str:
    """Return where changes come from: ``DataClone shop-pr-42/db``."""
    if source.get("branch"):
        return f"branch {source['branch']}"
    if source.get("revertOf"):
        return f"what {source['revertOf']} brought, taken back"
    clone = source["clone"]
    return f"DataClone {'/'.join(part for part in (clone.get('namespace'), clone['name']) if part)}"


def _check(check: Mapping[str, Any]) -> str:
    said = "passed" if check["passed"] else check.get("message") or "failed"
    return f"{check['name']} {said}"


def _review(review: Mapping[str, Any]) -> str:
    why = "" if review["counts"] else f" (does not count: {review.get('why') or 'see the review'})"
    return f"{review['verdict']} by {review['reviewer']}{why}"


def rows_of(request: Manifest) -> list[tuple[str, int, int, int, bool]]:
    """Return the tables that change, with the numbers of their rows."""
    tables = (request.get("status") or {}).get("tables") or ()
    return [(entry["table"], entry["added"], entry["modified"], entry["deleted"], False) for entry in tables]


def unlisted(request: Manifest) -> str:
    """Return how many tables change beside those that the status lists."""
    status = request.get("status") or {}
    more = (status.get("tableCount") or 0) - len(status.get("tables") or ())
    return f"and {counted(more, 'table')} more" if more > 0 else ""


def _name(request: Manifest) -> str:
    return str(request["metadata"]["name"])
