"""What people read of a clone where its pull request is discussed: one text, ready to be posted. Pure.

It says no more than the object's own status does, and nothing that passes by itself: a text that changed with every use
of the clone would be posted with every use. So it names when the lease ends at the latest, not the end that each use
moves, and when the data are of, not how old they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from coppice.core.durations import format_duration
from coppice.core.plan import Manifest, Plan
from coppice.core.pullrequests import Mark, MarkState, Posting, PullRequest, State, Unknown
from coppice.reconcile.clone.lifetime import lease_of
from coppice.reconcile.clone.names import secret_name
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import renewed_at

MAX_CHANGES: Final = 5
"""How many changes of the schema are named, and how many change requests."""
MAX_TEXT: Final = 4000
"""Characters of the whole; forges take more than ten times as many."""
_MAX_CELL: Final = 500
_HASH: Final = 12


def marker(manifest: Manifest) -> str:
    """Return the line that no reader sees, by which the comment of a clone is found again."""
    metadata = manifest["metadata"]
    return f"<!-- coppice: {metadata['namespace']}/{metadata['name']} -->"


def with_comment(plan: Plan, at: Situation) -> Plan:
    """Return a clone's plan with the text in its status, for one that is for a pull request, and with what is to be
    said there where the operator may.
    """
    status = plan.status
    if status is None or at.clone.spec.pull_request is None:
        return plan
    comment = _text(at, status)
    return replace(plan, status={**status, "comment": comment}, posting=_posting(at, status, comment))


def _posting(at: Situation, status: Manifest, comment: str) -> Posting | None:
    """Return what is to be said: only where the namespace speaks for the repository. Else whoever may make a clone
    could have the operator's token write to any pull request.
    """
    alleged = at.seen.alleged
    if alleged is None or at.source.speaks_for != alleged.key:
        return None
    terms = at.environment.forges.terms(alleged.key.host)
    if terms is None or not (terms.comments or terms.statuses):
        return None
    subject = f"{at.namespace}/{at.name}"
    mark = _mark(alleged.known, status) if terms.statuses else None
    return Posting(subject, alleged.key, comment if terms.comments else None, mark)


def _mark(known: PullRequest | Unknown, status: Manifest) -> Mark | None:
    """Return the mark for the newest commit, as the forge knows it: a clone may name any."""
    if not isinstance(known, PullRequest) or known.state is not State.OPEN:
        return None
    conditions = {entry["type"]: entry for entry in status["conditions"]}
    ready = conditions["Ready"]
    if ready["status"] == "True":
        return Mark(known.head, MarkState.SUCCESS, "the data are ready")
    stalled, working = (conditions[kind]["status"] == "True" for kind in ("Stalled", "Reconciling"))
    state = MarkState.FAILURE if stalled else MarkState.PENDING if working else MarkState.SUCCESS
    return Mark(known.head, state, _cell(str(ready["reason"])))


def _text(at: Situation, status: Manifest) -> str:
    ready = next(entry for entry in status["conditions"] if entry["type"] == "Ready")
    rows = [f"| {name} | {text} |" for name, text in _rows(at, status) if text]
    lines = [marker(at.seen.manifest), f"**Database `{at.namespace}/{at.name}`: {_headline(ready)}"]
    table = ["", "| | |", "|---|---|", *rows] if rows else []
    return "\n".join([*lines, *table])[:MAX_TEXT]


def _headline(ready: Manifest) -> str:
    """Return how the clone is, with the end of the bold print."""
    if ready["status"] == "True":
        return "ready**"
    return f"{_cell(str(ready['reason']))}** ({_cell(str(ready['message']))})"


def _rows(at: Situation, status: Manifest) -> Iterator[tuple[str, str]]:
    reference, binding = at.clone.spec.pull_request, status.get("binding")
    yield "App", reference.app_url if reference is not None and reference.app_url else ""
    yield "Data", _data(status.get("source"))
    yield "Schema", _schema(status.get("migrations"))
    yield "Changes", _requests(at.seen.requests)
    yield "Kept", _kept(status.get("kept"))
    yield "Ends", _end(at, status)
    if binding is not None:
        by_hand = f"coppice connect {at.name} -n {at.namespace}"
        yield "Connect", f"`{by_hand}`, or in the cluster with Secret `{secret_name(at.clone)}`"


def _data(source: Manifest | None) -> str:
    if source is None:
        return ""
    branch = f" branch `{_code(source['branch'])}`" if source.get("branch") else ""
    taken = f", as of {_moment(source['capturedAt'])}" if source.get("capturedAt") else ""
    return f"`{source['store']}`{branch} at `{_code(source['head'])[:_HASH]}`{taken}"


def _schema(migrations: Manifest | None) -> str:
    """Return what the migrations have made of the schema that came with the data."""
    if migrations is None:
        return "as it came with the data"
    if not migrations.get("finishedAt"):
        return f"migrations are running: Job `{migrations['job']}`"
    if migrations.get("exitCode"):
        return f"migrations failed: Job `{migrations['job']}`"
    ledger, count = migrations.get("ledger") or {}, migrations.get("changeCount") or 0
    before, after = ledger.get("versionBefore"), ledger.get("versionAfter")
    moved = f"{_code(ledger['tool'])} `{_code(before or '-')}` to `{_code(after or '-')}`, " if after != before else ""
    named = [f"`{_code(change)}`" for change in (migrations.get("changes") or ())[:MAX_CHANGES]]
    more = f" and {count - len(named)} more" if count > len(named) else ""
    return (
        f"{moved}{count} change{'' if count == 1 else 's'} by migrations{': ' if named else ''}{', '.join(named)}{more}"
    )


def _requests(requests: Sequence[Manifest]) -> str:
    """Name the change requests that take what was changed here to where it is reviewed."""
    named = sorted((entry["metadata"]["namespace"], entry["metadata"]["name"]) for entry in requests)
    told = [f"DataChangeRequest `{namespace}/{name}`" for namespace, name in named[:MAX_CHANGES]]
    more = f" and {len(named) - len(told)} more" if len(named) > len(told) else ""
    return f"proposed in {', '.join(told)}{more}" if told else ""


def _kept(kept: Manifest | None) -> str:
    """Name the branch that has what was changed here, once it has."""
    if kept is None or not kept.get("finishedAt") or not kept.get("branch"):
        return ""
    by = f"DataSnapshot `{kept['snapshot']}`" if kept.get("snapshot") else f"DataChangeRequest `{kept['request']}`"
    return f"what was changed is on branch `{_code(kept['branch'])}`, by {by}"


def _end(at: Situation, status: Manifest) -> str:
    if status.get("copy") is None:
        return ""
    lease = lease_of(at)
    latest = renewed_at(at.seen, at.clone) + lease.longest if lease.longest is not None else None
    parts = [
        *([f"{_moment(latest)} at the latest"] if latest is not None else []),
        *([f"after {format_duration(lease.idle)} without use"] if lease.idle is not None else []),
    ]
    if not parts:
        return ""
    return f"{', or '.join(parts)}; `coppice extend {at.name} -n {at.namespace}` lets it begin anew"


def _moment(moment: Any) -> str:
    at = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _cell(text: str) -> str:
    """Return words for a cell of a table, or a line: nothing in them ends it, or is markup."""
    plain = " ".join(text.split()).replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")
    return plain.replace("*", "").replace("@", "(at)").replace("[", "(").replace("]", ")")[:_MAX_CELL]


def _code(text: str) -> str:
    """Return words for a code span in a cell."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")[:_MAX_CELL]
