"""How a plan is put together: facts one after another, each with what it takes to make it true.

A step looks at the observation, adds to the draft what is missing, and returns a ``Fact``; the first fact that does
not hold ends the chain. So every plan reads as a list of named facts, and a status always says which of them is being
waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from coppice.core import labels
from coppice.core.compare import covers, surplus_keys
from coppice.core.plan import EngineCall, Event, Manifest, Plan, Publication, Ref
from coppice.manifests.meta import Owner, build_annotations, build_identity, is_owned
from coppice.reconcile.edits import VALUES, edited_keys, judge_edits
from coppice.reconcile.observed import annotation, condition, is_deleting, is_true, parse_time, pod_state
from coppice.reconcile.trouble import find_trouble

READY = "Ready"
STALLED = "Stalled"
RECONCILING = "Reconciling"
BINDING = "BindingExact"
"""A condition beside the chain, there only where somebody adds keys to a binding Secret."""
KEYS_REMEMBERED = timedelta(hours=1)
"""How long a key that was taken out is known: one that comes back within that time comes back every time."""
MAX_KEYS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """One condition: whether it holds and why. ``stalled``: waiting does not help, somebody must act (the message
    says how).
    """

    type: str
    holds: bool
    reason: str
    message: str
    stalled: bool = False
    at_rest: bool = False
    unknown: bool = False
    retry_after: float | None = None

    @property
    def condition(self) -> dict[str, str]:
        """Return the fact as a Kubernetes condition."""
        return _condition(self.type, None if self.unknown else self.holds, self.reason, self.message)


def holds(kind: str, reason: str, message: str) -> Fact:
    """Return a fact that holds."""
    return Fact(kind, holds=True, reason=reason, message=message)


def waits(kind: str, reason: str, message: str, *, retry_after: float | None = None) -> Fact:
    """Return a fact that time, or an event, will make true."""
    return Fact(kind, holds=False, reason=reason, message=message, retry_after=retry_after)


def stalls(kind: str, reason: str, message: str, *, retry_after: float | None = 300.0) -> Fact:
    """Return a fact that somebody must make true; it is looked at again from time to time all the same."""
    return Fact(kind, holds=False, reason=reason, message=message, stalled=True, retry_after=retry_after)


def rests(kind: str, reason: str, message: str) -> Fact:
    """Return a fact that does not hold because nobody wants it to: nothing is in progress and nothing is wrong."""
    return Fact(kind, holds=False, reason=reason, message=message, at_rest=True)


def unknown(kind: str, reason: str, message: str) -> Fact:
    """Return that nobody can tell whether a fact holds; for what stands beside a chain."""
    return Fact(kind, holds=False, reason=reason, message=message, unknown=True)


def _condition(kind: str, value: bool | None, reason: str, message: str) -> dict[str, str]:  # noqa: FBT001
    status = "Unknown" if value is None else str(value)
    return {"type": kind, "status": status, "reason": reason, "message": message}


@dataclass(slots=True)
class Draft:
    """A plan in the making, for one object."""

    manifest: Manifest
    now: datetime
    facts: list[Fact] = field(default_factory=list)
    create: list[Manifest] = field(default_factory=list)
    prune: list[Manifest] = field(default_factory=list)
    apply: list[Manifest] = field(default_factory=list)
    calls: list[EngineCall] = field(default_factory=list)
    publication: Publication | None = None
    delete: list[Ref] = field(default_factory=list)
    discards: list[Ref] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    asides: list[Fact] = field(default_factory=list)
    goes_on_after: float | None = None
    """Seconds until a step that has begun something does the next part of it."""

    @property
    def owner(self) -> Owner:
        """Return the identity of the object that is being reconciled."""
        return Owner.of(self.manifest)

    def make_once(self, desired: Manifest, observed: Manifest | None, kind: str) -> Fact | None:
        """Plan an object that is never changed once it is there; return why it cannot be had, or None."""
        if observed is None:
            self.create.append(desired)
            return None
        return self._not_ours(observed, kind)

    def keep(self, desired: Manifest, observed: Manifest | None, kind: str, *, exact: bool = True) -> Fact | None:
        """Plan an object that is kept as it should be; return why it cannot be had, or None.

        The data of a Secret are ours as a whole where apps take all of its keys into their environment (``envFrom``):
        ``exact``. Labels and annotations of others are theirs.
        """
        if observed is None:
            # Made by apply as well: what a create writes can never be taken away by a later apply.
            self.apply.append(desired)
            return None
        problem = self._not_ours(observed, kind)
        if problem is not None:
            return problem
        if desired["kind"] == "Secret" and exact:
            self._keep_exact(observed, surplus_keys(observed, desired, "data"))
            if not self._keep_values(observed, desired):
                return None
        if not covers(observed, desired):
            self.apply.append(with_uid(desired, observed))
        return None

    def writes(self, desired: Manifest) -> bool:
        """Return whether an object is in the plan to be applied."""
        name = desired["metadata"]["name"]
        return any((entry["kind"], entry["metadata"]["name"]) == (desired["kind"], name) for entry in self.apply)

    def _keep_values(self, secret: Manifest, desired: Manifest) -> bool:
        """Say that somebody has changed values of a Secret, if so; return whether it may be written now."""
        status, metadata = self.manifest.get("status") or {}, self.manifest["metadata"]
        # With another specification we change them ourselves.
        settled = status.get("observedGeneration") == metadata.get("generation")
        edited = edited_keys(secret, desired) if settled else []
        verdict = judge_edits(condition(self.manifest, VALUES), secret["metadata"]["name"], edited, self.now)
        if verdict.message:
            self.asides.append(Fact(VALUES, verdict.holds, verdict.reason, verdict.message))
        return verdict.writes

    def _keep_exact(self, secret: Manifest, surplus: Collection[str]) -> None:
        """Take keys that somebody added out of a Secret, and say so. One that comes back is left and said: two that
        insist would go on without end.
        """
        known = self._known_keys()
        left = surplus if len(known) >= MAX_KEYS_TOLD else [key for key in surplus if key in known]
        out = [key for key in surplus if key not in left]
        if out:
            self.prune.append(_without(secret, "data", out))
        if not surplus and not known:
            return
        name, told = secret["metadata"]["name"], ", ".join(sorted({*known, *surplus})[:MAX_KEYS_TOLD])
        if left:
            message = (
                f"somebody adds keys to Secret {name} again that were taken out; they are left, and apps that take all "
                f"of the Secret get them. Have that ended, or keys of your own in another Secret: {told}"
            )
            self.asides.append(stalls(BINDING, "KeysLeft", message))
        else:
            message = (
                f"keys that somebody added to Secret {name} were taken out, for apps may take all of it into their "
                f"environment. Put keys of your own into another Secret: {told}"
            )
            self.asides.append(holds(BINDING, "KeysRemoved", message))

    def _known_keys(self) -> frozenset[str]:
        """Return the keys that were taken out of the Secret lately, or were left in it, by what the status says."""
        before = condition(self.manifest, BINDING)
        since = None if before is None else parse_time(before.get("lastTransitionTime"))
        if before is None or since is None or (before["status"] == "True" and self.now - since >= KEYS_REMEMBERED):
            return frozenset()
        return frozenset(before["message"].rpartition(": ")[2].split(", "))

    def route(self, pod: Manifest | None, kind: str) -> Fact | None:
        """Return that a Service does not lead to a server that answers yet, or None: only a Ready Pod is routed to.

        Kubelet may miss when to run a readiness probe first, since it triggers one before it has stored the status that
        the probe goes by (pkg/kubelet/kubelet_pods.go, generateAPIPodStatus, and prober/worker.go), and the next try is
        a period later. A Pod that changes is looked at at once.
        """
        if pod is None or pod_state(pod).ready:
            return None
        if annotation(pod, labels.ANSWERING) is None:
            self.apply.append(build_annotations(pod, {labels.ANSWERING: "true"}))
        name = pod["metadata"]["name"]
        return waits(kind, "NotRouted", f"the server answers; its Service leads to it as soon as Pod {name} is Ready")

    def run_server(self, desired: Manifest, observed: Manifest | None, kind: str, *, replace_outdated: bool) -> Fact:
        """Plan the Pod of a server and return whether it runs.

        One that has ended, or that was made from other inputs than are wanted now, is replaced; ``replace_outdated``
        is False where nobody can tell what is wanted.
        """
        problem = self.make_once(desired, observed, kind)
        if problem is not None:
            return problem
        if observed is None:
            return waits(kind, "Starting", f"Pod {desired['metadata']['name']} is being started")
        if replace_outdated and _is_outdated(observed, desired):
            return self._replace_server(observed, kind)
        return self.leave_server(observed, kind)

    def leave_server(self, observed: Manifest, kind: str) -> Fact:
        """Return whether a server runs that is left as it was made; one that has ended goes."""
        problem = self._not_ours(observed, kind)
        if problem is not None:
            return problem
        name, state = observed["metadata"]["name"], pod_state(observed)
        if state.failed or state.succeeded:
            return self._replace_server(observed, kind)
        trouble = find_trouble(observed)
        if trouble is not None:
            if trouble.is_hopeless(self.now):
                return stalls(kind, trouble.reason, trouble.words(name), retry_after=60)
            return waits(kind, trouble.reason, trouble.words(name), retry_after=10)
        if state.ip is None or not state.running:
            return waits(kind, "Starting", f"waits for Pod {name}")
        return holds(kind, "Running", f"Pod {name} runs")

    def _replace_server(self, observed: Manifest, kind: str) -> Fact:
        self.drop(observed)
        name = observed["metadata"]["name"]
        return waits(kind, "Restarting", f"Pod {name} is replaced by one as is asked for now", retry_after=2)

    def drop(self, observed: Manifest | None) -> None:
        """Plan the deletion of an object of ours that is not needed any more."""
        self._delete(observed, self.delete)

    def discard(self, observed: Manifest) -> None:
        """Plan the deletion of an object of ours that can be made again at any time."""
        self._delete(observed, self.discards)

    def _delete(self, observed: Manifest | None, refs: list[Ref]) -> None:
        if observed is None or not is_owned(observed, self.owner.uid) or is_deleting(observed):
            return
        ref = Ref.of(observed)
        if ref not in refs:
            refs.append(ref)

    def _not_ours(self, observed: Manifest, kind: str) -> Fact | None:
        name = f"{observed['kind']} {observed['metadata']['name']}"
        if is_owned(observed, self.owner.uid):
            going = f"{name} is being deleted and will be made anew"
            return waits(kind, "BeingDeleted", going, retry_after=2) if is_deleting(observed) else None
        if not self._is_of_predecessor(observed):
            theirs = f"{name} exists and was not made for this object: rename or delete one of the two"
            return stalls(kind, "NameConflict", theirs, retry_after=60)
        if is_deleting(observed) or self._is_collected(observed):
            return waits(
                kind, "Leftover", f"{name} of the deleted object of this name is on its way out", retry_after=2
            )
        kept = (
            f"{name} was kept of a deleted {self.owner.kind} of this name and nobody removes it: if nothing needs it, "
            f"kubectl delete {observed['kind'].lower()} {observed['metadata']['name']} -n {self.owner.namespace}; "
            f"else make this {self.owner.kind} under another name"
        )
        return stalls(kind, "NameConflict", kept, retry_after=60)

    def _is_of_predecessor(self, observed: Manifest) -> bool:
        """Return whether an object was made for another object of our name."""
        owner = self.owner
        theirs = observed["metadata"].get("labels") or {}
        return {key: theirs.get(key) for key in (labels.OWNER_KIND, labels.OWNER_NAMESPACE, labels.OWNER_NAME)} == {
            labels.OWNER_KIND: owner.kind,
            labels.OWNER_NAMESPACE: owner.namespace,
            labels.OWNER_NAME: owner.name,
        }

    def _is_collected(self, observed: Manifest) -> bool:
        """Return whether Kubernetes is about to delete what was made for a predecessor.

        Not what was kept on purpose (``kubectl delete --cascade=orphan``, a restored backup), which bears no reference
        and which the sweep leaves alone as well (``coppice.core.orphans``). An owner of our name is gone, for it is
        not us.
        """
        owner, references = self.owner, observed["metadata"].get("ownerReferences") or ()
        return any((entry["kind"], entry["name"]) == (owner.kind, owner.name) for entry in references)

    def finish(self, types: Sequence[str], status: Mapping[str, Any], *, requeue_after: float | None = None) -> Plan:
        """Return the plan with its status: a condition for each of ``types``, Ready, and the two that kstatus reads
        (Stalled, Reconciling).
        """
        summary = self._summary()
        conditions = [*self._conditions(types), *_summary_conditions(summary)]
        waits_for = [fact.retry_after for fact in self.facts if not fact.holds and fact.retry_after is not None]
        delays = [*waits_for, *(delay for delay in (self.goes_on_after, requeue_after) if delay is not None)]
        plan = Plan(
            calls=tuple(self.calls),
            create=tuple(self.create),
            prune=tuple(self.prune),
            apply=tuple(self.apply),
            delete=tuple(self.delete),
            discard=tuple(self.discards),
            publication=self.publication,
            status={**status, "conditions": conditions},
            events=(*self.events, *self._transition(summary)),
            requeue_after=min(delays) if delays else None,
        )
        for aside in self.asides:
            plan = beside(plan, aside, self.manifest)
        return plan

    def _summary(self) -> Fact:
        for fact in self.facts:
            if not fact.holds:
                return replace(fact, type=READY)
        return holds(READY, "Ready", self.facts[-1].message if self.facts else "")

    def _conditions(self, types: Sequence[str]) -> list[dict[str, str]]:
        by_type = {fact.type: fact for fact in self.facts}
        return [
            by_type[kind].condition
            if kind in by_type
            else _condition(kind, None, "Pending", "not looked at before the conditions above hold")
            for kind in types
        ]

    def _transition(self, summary: Fact) -> tuple[Event, ...]:
        before, stalled = condition(self.manifest, READY), is_true(self.manifest, STALLED)
        same = before is not None and before["reason"] == summary.reason and before["status"] == str(summary.holds)
        if same and stalled == summary.stalled:
            return ()
        return (Event(summary.reason, summary.message, "Warning" if summary.stalled else "Normal"),)


def _is_outdated(observed: Manifest, desired: Manifest) -> bool:
    """Return whether a server's Pod was made from other inputs, or says something else of how it is known."""
    wanted = desired["metadata"]["annotations"]
    return any(annotation(observed, key) != wanted.get(key) for key in (labels.INPUTS, labels.TLS_CA))


def _summary_conditions(summary: Fact) -> list[dict[str, str]]:
    working = not (summary.holds or summary.stalled or summary.at_rest)
    return [
        summary.condition,
        _condition(STALLED, summary.stalled, summary.reason, summary.message if summary.stalled else ""),
        _condition(RECONCILING, working, summary.reason, summary.message if working else ""),
    ]


def with_uid(desired: Manifest, observed: Manifest) -> dict[str, Any]:
    """Return ``desired`` bound to the identity of ``observed``, so that applying it can neither hit another object
    nor make one.
    """
    metadata = {**desired["metadata"], "uid": observed["metadata"]["uid"]}
    return {**desired, "metadata": metadata}


def _without(observed: Manifest, field_name: str, keys: Collection[str]) -> dict[str, Any]:
    """Return the merge patch that takes keys of a field away from an object, if it still is as observed."""
    body = build_identity(observed)
    metadata = {**body["metadata"], "resourceVersion": observed["metadata"]["resourceVersion"]}
    return {**body, "metadata": metadata, field_name: dict.fromkeys(keys)}


def beside(plan: Plan, fact: Fact | None, manifest: Manifest, *, each_message: bool = False) -> Plan:
    """Return a plan with a condition beside its chain, and an event when its status or reason is another than before;
    with ``each_message`` also when only its message is.
    """
    status = plan.status
    if fact is None or status is None:
        return plan
    keys = ("status", "reason", *(("message",) if each_message else ()))
    before, now = condition(manifest, fact.type), fact.condition
    changed = before is None or any(before[key] != now[key] for key in keys)
    event = Event(fact.reason, fact.message, "Normal" if fact.holds and not fact.stalled else "Warning")
    return replace(
        plan,
        status={**status, "conditions": [*status["conditions"], now]},
        events=(*plan.events, event) if changed else plan.events,
    )


def condemned(manifest: Manifest, refs: Sequence[Ref], *, message: str) -> Plan:
    """Return the plan of an object under deletion that still has something to remove."""
    entry = _condition(READY, value=False, reason="Deleting", message=message)
    return Plan(delete=tuple(refs), status={**(manifest.get("status") or {}), "conditions": [entry]}, requeue_after=2)
