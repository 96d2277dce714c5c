"""What an object's status means, in words: is it well, what is waited for, what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from coppice.core.durations import format_duration
from coppice.core.plan import Manifest

SUMMARY: Final = ("Ready", "Stalled", "Reconciling")
"""Conditions that say how it is on the whole; the others are the steps, and what stands beside them."""
_READY: Final = {"DataChangeRequest": "Published", "DataReview": "Counted"}
"""By kind, where it is not Ready: the condition that says that all is done."""
HASH_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class Aspect:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str

    @property
    def holds(self) -> bool:
        """Return whether it is True."""
        return self.status == "True"


def title(manifest: Manifest) -> str:
    """Return what an object is called: ``DataClone shop-pr-42/db``."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {metadata['namespace']}/{metadata['name']}"


def aspects(manifest: Manifest) -> list[Aspect]:
    """Return the conditions in the order of the steps."""
    found = (manifest.get("status") or {}).get("conditions") or ()
    return [Aspect(entry["type"], entry["status"], entry["reason"], entry.get("message", "")) for entry in found]


def aspect(manifest: Manifest, kind: str) -> Aspect | None:
    """Return one condition, or None."""
    return next((found for found in aspects(manifest) if found.type == kind), None)


def readiness(manifest: Manifest) -> Aspect | None:
    """Return the condition that says whether it is as it should be, or None."""
    return aspect(manifest, "Ready") or aspect(manifest, _READY.get(manifest["kind"], "Ready"))


def is_current(manifest: Manifest) -> bool:
    """Return whether the status is about the specification as it stands."""
    seen = (manifest.get("status") or {}).get("observedGeneration") or 0
    return bool(seen >= manifest["metadata"].get("generation", 0))


def is_ready(manifest: Manifest) -> bool:
    """Return whether the object is as it should be."""
    ready = readiness(manifest)
    return is_current(manifest) and ready is not None and ready.holds


def is_stalled(manifest: Manifest) -> bool:
    """Return whether somebody must act."""
    return is_current(manifest) and _holds(manifest, "Stalled")


def is_resting(manifest: Manifest) -> bool:
    """Return whether it is not ready because nobody wants it to be: the server sleeps, or is off."""
    ready = readiness(manifest)
    if ready is None or ready.holds or not is_current(manifest):
        return False
    return not _holds(manifest, "Stalled") and not _holds(manifest, "Reconciling")


def _holds(manifest: Manifest, kind: str) -> bool:
    found = aspect(manifest, kind)
    return found is not None and found.holds


def state(manifest: Manifest) -> str:
    """Return how it is, in a word or two."""
    if "deletionTimestamp" in manifest["metadata"]:
        return "Deleting"
    ready = readiness(manifest)
    if ready is None or not is_current(manifest):
        return "Not looked at yet"
    return ready.type if ready.holds else ready.reason


def waited_for(manifest: Manifest) -> str:
    """Return the step that is being waited for: ``VolumeReady: ClaimPending: ...``."""
    ready = readiness(manifest)
    if ready is None or not is_current(manifest):
        return "the operator"
    steps = [found for found in aspects(manifest) if found.type not in SUMMARY and not found.holds]
    step = next((found for found in steps if found.reason == ready.reason), ready)
    return ": ".join(part for part in (step.type, step.reason, step.message) if part)


def next_step(manifest: Manifest) -> str:
    """Return what a person can do now."""
    name, kind = manifest["metadata"]["name"], manifest["kind"]
    ready = readiness(manifest)
    if "deletionTimestamp" in manifest["metadata"]:
        return "wait: it is being deleted"
    if ready is None or not is_current(manifest):
        return "wait; if it stays so, the operator does not run: kubectl get pods -n coppice-system"
    if kind == "DataClone" and ready.reason in _OF_A_CLONE:
        return _OF_A_CLONE[ready.reason].format(name=name)
    if ready.holds:
        return f"coppice connect {name}" if kind == "DataClone" else "nothing"
    if _holds(manifest, "Stalled"):
        return ready.message
    return "wait: it is on its way" if _holds(manifest, "Reconciling") else ready.message


_OF_A_CLONE: Final = {
    "Asleep": "coppice wake {name}",
    "Expired": "coppice extend {name}, for a new copy; or coppice delete {name}",
    "PoweredOff": "set spec.power to On or Auto",
}


def facts(manifest: Manifest, now: datetime) -> list[tuple[str, str]]:
    """Return what else is worth knowing of an object, as names and values."""
    status, spec = manifest.get("status") or {}, manifest["spec"]
    found = _FACTS[manifest["kind"]](spec, status, manifest["metadata"]["namespace"], now)
    return [(name, value) for name, value in found if value]


def _clone_facts(spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str, now: datetime) -> Facts:
    yield "of", f"{store_of(spec['from'], namespace)}, {point_of(spec['from'])}"
    yield "holds", version_of(status, now)
    yield "binding", _named("Secret", status.get("binding"))
    yield "server", _endpoint(status)
    yield "lease", lease_of(status, now)
    previous = status.get("previous")
    if previous:
        yield (
            "undo",
            f"copy {previous['copy']}, before the last reset, is kept until {_moment(previous['keptUntil'], now)}",
        )
    migrations = status.get("migrations")
    if migrations:
        yield "migrations", f"Job {migrations['job']}, {migrations.get('changeCount', 0)} changes"


def _store_facts(spec: Mapping[str, Any], status: Mapping[str, Any], _namespace: str, now: datetime) -> Facts:
    yield "engine", " ".join(part for part in (spec["engine"], status.get("version")) if part)
    yield "databases", ", ".join(status.get("databases") or ())
    yield "branches", str(status.get("branchCount") or "")
    kept = len(status.get("deletedBranches") or ())
    yield "deleted", f"{kept} that coppice branch restore can have back" if kept else ""
    yield "binding", _named("Secret", status.get("binding"))
    yield "server", _endpoint(status)
    last = status.get("lastSnapshot")
    yield "snapshot", f"{last['name']}, of {_moment(last['time'], now)}" if last else ""
    refreshed = (status.get("mirror") or {}).get("refreshedAt")
    yield "mirror", f"of {_moment(refreshed, now)}" if refreshed else ""


def _branch_facts(spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str, _now: datetime) -> Facts:
    yield "branch", f"{spec['branchName']} of {store_of(spec, namespace)}"
    squashed = ", squashed" if spec.get("history") == "Squashed" else ""
    yield "from", f"{point_of(spec['from'])}{_at(status.get('base'))}{squashed}"
    yield "head", short(status.get("head"))


def _snapshot_facts(spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str, now: datetime) -> Facts:
    yield "of", f"{namespace}/{spec['store']['name']}"
    commit = spec.get("commit")
    yield "commit", f"on branch {commit['branch']}, after {commit['parent']}" if commit else ""
    yield "clone", (status.get("commit") or {}).get("clone", "")
    captured = status.get("capturedAt")
    yield "captured", _moment(captured, now) if captured else ""
    yield "data", status.get("data", "")
    heads = [f"{entry['branch']} at {short(entry['head'])}" for entry in status.get("branches") or ()]
    yield "branches", ", ".join(heads)
    yield "migration", (status.get("ledger") or {}).get("version", "")


def _grant_facts(spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str, _now: datetime) -> Facts:
    yield "store", f"{namespace}/{spec['store']}"
    to = spec["to"]
    labels = (to.get("namespaceSelector") or {}).get("matchLabels") or {}
    chosen = [*(to.get("namespaces") or ()), *(f"those with {key}={value}" for key, value in sorted(labels.items()))]
    yield "to", ", ".join(chosen)
    yield "verbs", ", ".join(spec["verbs"])
    yield "data", spec.get("data", "Masked")
    yield "clones", str(status.get("clones") or "")


def _request_facts(spec: Mapping[str, Any], status: Mapping[str, Any], namespace: str, _now: datetime) -> Facts:
    yield "title", spec["title"]
    yield "author", spec["author"]
    yield "into", f"{namespace}/{spec['store']['name']}, branch {spec['into']['branch']}"
    tables = status.get("tableCount")
    yield "changes", counted(tables, "table") if tables is not None else ""
    conflicts = (status.get("conflicts") or {}).get("open")
    yield "conflicts", f"{conflicts} to be decided" if conflicts else ""
    yield "preview", _clone_named(status.get("preview"))
    yield "commit", short((status.get("published") or {}).get("commit"))


def _clone_named(preview: Mapping[str, Any] | None) -> str:
    return f"DataClone {preview['clone']}" if preview and preview.get("ready") else ""


def _review_facts(spec: Mapping[str, Any], _status: Mapping[str, Any], _namespace: str, _now: datetime) -> Facts:
    yield "verdict", spec["verdict"]
    yield "request", spec["request"]
    yield "reviewer", spec["reviewer"]


Facts = Iterator[tuple[str, str]]
_FACTS: Final = {
    "DataClone": _clone_facts,
    "DataStore": _store_facts,
    "DataBranch": _branch_facts,
    "DataSnapshot": _snapshot_facts,
    "DataGrant": _grant_facts,
    "DataChangeRequest": _request_facts,
    "DataReview": _review_facts,
}


def store_of(reference: Mapping[str, Any], namespace: str) -> str:
    """Return the store that a specification's part names, as namespace/name."""
    store = reference["store"]
    return f"{store.get('namespace') or namespace}/{store['name']}"


def point_of(source: Mapping[str, Any]) -> str:
    """Return the point of a store that ``spec.from`` names: ``branch main``."""
    return next(f"{name} {source[name]}" for name in _POINTS if source.get(name) is not None)


_POINTS: Final = ("branch", "tag", "commit", "snapshot", "time", "migration")


def version_of(status: Mapping[str, Any], now: datetime | None = None) -> str:
    """Return which data a clone holds: store, branch and head; with ``now`` also from when."""
    source = status.get("source")
    if not source:
        return ""
    branch = f" {source['branch']}" if source.get("branch") else ""
    captured = source.get("capturedAt")
    when = f", captured {_moment(captured, now) if now else captured}" if captured else ""
    return f"{source['store']}{branch}{_at(source.get('head'))}{when}"


def lease_of(status: Mapping[str, Any], now: datetime) -> str:
    """Return when a clone's lease ends."""
    ends = status.get("expiresAt")
    if ends:
        return f"{'ended' if _parsed(ends) <= now else 'ends'} {_moment(ends, now)}"
    return "has no end" if status.get("binding") else ""


def counted(number: int, what: str) -> str:
    """Return a number of things: ``1 row``, ``2 rows``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def short(name: str | None) -> str:
    """Return so much of a hash as tells it from others."""
    return (name or "")[:HASH_LENGTH]


def _at(head: str | None) -> str:
    return f" at {short(head)}" if head else ""


def _named(kind: str, reference: Mapping[str, str] | None) -> str:
    return f"{kind} {reference['name']}" if reference else ""


def _endpoint(status: Mapping[str, Any]) -> str:
    endpoint = status.get("endpoint")
    return f"{endpoint['host']}:{endpoint['port']}" if endpoint else ""


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _moment(text: str, now: datetime) -> str:
    """Return a time, and how far it is: ``2026-11-22 21:16 UTC (in 1h58m)``."""
    moment = _parsed(text)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC ({_distance(moment - now)})"


def _distance(span: timedelta) -> str:
    length = about(abs(span))
    if length is None:
        return "now"
    return f"in {length}" if span > timedelta() else f"{length} ago"


def about(span: timedelta) -> str | None:
    """Return a length of time with no more detail than anybody reads: 45s, 12m, 1h58m, 3d4h; None below a second."""
    seconds = int(span.total_seconds())
    for unit, finest in ((86400, 3600), (3600, 60), (60, 60)):
        if seconds >= unit:
            return format_duration(timedelta(seconds=seconds // finest * finest))
    return format_duration(timedelta(seconds=seconds)) if seconds else None


def what_goes(clone: Manifest, waiting: list[str], now: datetime) -> list[str]:
    """Return what is gone when a clone is deleted; ``waiting`` names DataSnapshots that are still made of it."""
    status = clone.get("status") or {}
    held = version_of(status, now)
    lines = [f"{title(clone)} goes, and with it its server, its volume and everything that was changed on that"]
    if held:
        lines.append(f"it was made of {held}, which stays")
    if status.get("binding"):
        lines.append(f"Secret {status['binding']['name']} goes: applications that read it lose their database")
    if status.get("previous"):
        lines.append("so does the copy before the last reset, which could be brought back until now")
    lines += [f"{name} is still being made of it, and comes to nothing" for name in waiting]
    return lines
