"""A request's status: counts, names and hashes, never a row's value. Pure.

What cannot be told now stays as it was told last: a server that is away for a moment makes no review void.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coppice.api.v1alpha1 import DataChangeRequest
from coppice.api.v1alpha1.datachangerequest import (
    MAX_CHECKS,
    MAX_LISTED_CONFLICTS,
    MAX_REVIEWS,
    MAX_STATEMENTS,
    MAX_TABLES,
)
from coppice.engines.digests import sealed
from coppice.engines.merging import AssertionResult, ChangeSet, ConflictName, MergeOutcome
from coppice.engines.patching import BrokenRulesError
from coppice.reconcile.changerequest.chain import OpenRequest
from coppice.reconcile.changerequest.checks import check_runs
from coppice.reconcile.changerequest.judgement import changes_anything, judge_request, patch_of, target_head
from coppice.reconcile.changerequest.mergechain import shown, shows
from coppice.reconcile.changerequest.observation import RequestObservation
from coppice.reconcile.changerequest.rules import rules_of
from coppice.reconcile.changerequest.sources import patches
from coppice.reconcile.observed import format_time, is_true

_MAX_STATEMENT: Final = 2000
_MAX_TEXT: Final = 256
_OF_THE_RUNTIME: Final = frozenset({"conditions", "observedGeneration"})


def request_status(request: DataChangeRequest, seen: RequestObservation, chain: OpenRequest) -> dict[str, Any]:
    """Return the status of a request that is open, after its chain has run."""
    preview = _preview_of_clone(request, seen) if patches(request) else _preview(request, seen, chain.brought_to)
    scratch = seen.scratch.manifest
    name = None if scratch is None else scratch["metadata"]["name"]
    committed = format_time(seen.now) if chain.commits else request.status.dump().get("committedAt")
    now = {"publishing": chain.publishing, "preview": preview, "scratch": name, "committedAt": committed}
    now |= _broken(seen)
    if seen.outcome is None:
        return {**told_before(seen), **now}
    patch, verdict = patch_of(request, seen), judge_request(request, seen)
    reviews = [] if verdict is None else [entry.dump() for entry in verdict.reviews[:MAX_REVIEWS]]
    if seen.unenforced is not None:
        reviews = [{**entry, "counts": False, "why": "IdentityUnenforced"} for entry in reviews]
    return {
        **_versions(request, seen),
        **_changes(seen.outcome.changes),
        "base": seen.outcome.base,
        "result": _result(seen),
        "patch": None if patch is None else patch.dump(),
        "conflicts": _conflicts(seen.outcome),
        "checks": _checks(request, seen),
        "reviews": reviews,
        **now,
    }


def told_before(seen: RequestObservation) -> dict[str, Any]:
    """Return what the status says already."""
    status: Mapping[str, Any] = seen.manifest.get("status") or {}
    return {key: value for key, value in status.items() if key not in _OF_THE_RUNTIME}


def _versions(request: DataChangeRequest, seen: RequestObservation) -> dict[str, Any]:
    """Return what was merged with what; a live database has no version that it would stay at."""
    proposed, head = seen.proposed, target_head(seen)
    if proposed is None or head is None:
        raise TypeError("a merge is of two versions")
    source = {"branch": proposed.branch, "head": proposed.head}
    if seen.patching is not None:
        return {"source": source, "target": None}
    return {"source": source, "target": {"branch": request.spec.into.branch, "head": head}}


def _result(seen: RequestObservation) -> str | None:
    """Return what whoever computes the same can see that it is the same by: a commit, or a digest that nobody can try
    values by who may not read them anyway.
    """
    outcome, patching = seen.outcome, seen.patching
    if outcome is None or outcome.result is None or patching is None:
        return None if outcome is None else outcome.result
    return None if outcome.changes is None else sealed(outcome.changes.digest, patching.mark)


def _broken(seen: RequestObservation) -> dict[str, Any]:
    """Return the rules that the live database has just refused it by."""
    if not isinstance(seen.refused, BrokenRulesError):
        return {}
    found = seen.refused.conflicts
    return {"conflicts": {"open": len(found), "decided": 0, "listed": [_conflict(entry) for entry in found]}}


def _changes(changes: ChangeSet | None) -> dict[str, Any]:
    if changes is None:
        return {"tables": [], "tableCount": None, "schema": []}
    return {
        "tables": [
            {"table": entry.table, "added": entry.added, "modified": entry.modified, "deleted": entry.deleted}
            for entry in changes.tables[:MAX_TABLES]
        ],
        "tableCount": len(changes.tables),
        "schema": [statement[:_MAX_STATEMENT] for statement in changes.statements[:MAX_STATEMENTS]],
    }


def _conflicts(outcome: MergeOutcome) -> dict[str, Any] | None:
    if not outcome.total:
        return None
    listed = [_conflict(entry) for entry in outcome.conflicts[:MAX_LISTED_CONFLICTS]]
    return {"open": outcome.total - outcome.decided, "decided": outcome.decided, "listed": listed}


def _conflict(entry: ConflictName) -> dict[str, Any]:
    return {
        "id": entry.id,
        "row": entry.row or None,
        "kind": entry.kind,
        "table": entry.table,
        "column": entry.column,
        "detail": entry.detail[:_MAX_TEXT] or None,
    }


def _checks(request: DataChangeRequest, seen: RequestObservation) -> list[dict[str, Any]]:
    """Return what the checks say, first those that fail; of those that pass first the programs, which run once."""
    if seen.patching is not None:
        programs = {check.name: None for check in rules_of(seen).checks if check.job_template is not None}
        runs = [{"name": name, "passed": False, "message": "is a program, and not run"} for name in programs]
    else:
        runs = [run.status for run in check_runs(request, seen)] if changes_anything(seen) else []
    said = [*runs, *map(_check, seen.checks)]
    return sorted(said, key=lambda check: bool(check["passed"]))[:MAX_CHECKS]


def _passes(check: AssertionResult) -> bool:
    return not (check.found or check.error)


def _check(check: AssertionResult) -> dict[str, Any]:
    found = f"found {check.found} rows" if check.found else None
    return {"name": check.name, "passed": _passes(check), "message": check.error[:_MAX_TEXT] or found}


def _preview_of_clone(request: DataChangeRequest, seen: RequestObservation) -> dict[str, Any] | None:
    """Return where people see what is proposed: on the clone itself, if whoever looks at the request may know it."""
    clone = seen.origin.manifest
    if clone is None or not request.spec.preview or clone["metadata"]["namespace"] != request.metadata.namespace:
        return None
    return {"clone": clone["metadata"]["name"], "ready": is_true(clone, "Ready")}


def _preview(request: DataChangeRequest, seen: RequestObservation, brought_to: str | None) -> dict[str, Any] | None:
    scratch, wanted, before = seen.scratch, shown(seen), request.status.preview
    if scratch.manifest is None or not request.spec.preview:
        return None
    told: dict[str, Any] = {} if before is None else {"commit": before.commit, "setAt": before.dump().get("setAt")}
    if brought_to is not None:
        told = {"commit": brought_to, "setAt": format_time(seen.now)}
    ready = wanted is not None and shows(seen, wanted)
    return {"clone": scratch.manifest["metadata"]["name"], "ready": ready, **told}
