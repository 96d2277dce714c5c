"""The refresh of a mirror: when one is due, the two programs that fill its copy, and what becomes of one that fails.
Pure.

The copy that is served has no part in it. A refresh that fails is begun anew with the next number, after a pause that
doubles; until then its programs' Pods are kept for their logs, while they themselves have given the bytes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from coppice.api.v1alpha1 import DataStore, Mirror
from coppice.core import labels
from coppice.core.durations import format_duration
from coppice.core.plan import Manifest
from coppice.engines.base import Engine, MirrorInputs, MirrorWorkloads, Workload
from coppice.manifests.meta import Owner, build_identity
from coppice.manifests.network import build_closed_policy, build_outbound_policy
from coppice.manifests.pod import Resources, Role, ServerPod, build_pod
from coppice.manifests.secret import SourceLogin, login_state
from coppice.manifests.storage import Claim, build_claim
from coppice.reconcile.classes import StorageChoice
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.mirror.copies import Held, MirrorCopy, Wish, copy_name, mark_text, source_digest
from coppice.reconcile.mirror.seen import DUMP, RESTORE, MirrorSeen, Program, program_name
from coppice.reconcile.observed import (
    claim_state,
    created_at,
    exit_code,
    format_time,
    is_deleting,
    parse_time,
    pod_state,
)
from coppice.reconcile.provisioning import waits_for_volume
from coppice.reconcile.requests import Request
from coppice.reconcile.schedule import next_time
from coppice.reconcile.told import GivenUp, Restored
from coppice.reconcile.trouble import find_trouble

MIRRORED: Final = "Mirrored"
LOOK_SECONDS: Final = 10.0
"""Between two looks at a program at work, and at what somebody else has to make or change: it is not watched."""
FIRST_PAUSE: Final = timedelta(minutes=5)
LONGEST_PAUSE: Final = timedelta(hours=1)
"""After a refresh that failed: a source that is down, or in need, is not to be asked without end."""
PATIENCE: Final = 3
"""How often what may pass can fail until somebody is asked to look."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a refresh fails. ``passes``: time may mend it."""

    reason: str
    words: str
    advice: str
    passes: bool = False


_OF_THE_DUMP: Final = Failure(
    reason="DumpFailed", words="the dump ended in the middle", advice="read the log of the Pod", passes=True
)
_OF_THE_RESTORE: Final = Failure(
    reason="RestoreFailed",
    words="what was dumped could not be restored",
    advice="read the log of the Pod: most often the image or the version lacks what the source has",
)
FAILURES: Final[Mapping[str, Failure]] = {
    failure.reason: failure
    for failure in (
        _OF_THE_DUMP,
        _OF_THE_RESTORE,
        Failure(
            reason="SourceUnreachable",
            words="the source does not answer",
            advice="see that it is up, that the Secret has its host and port, and that networks let this cluster in",
            passes=True,
        ),
        Failure(
            reason="SourceRefusesLogin",
            words="the source refuses the login or the database",
            advice="correct the Secret, or make that login there",
        ),
        Failure(
            reason="SourceNotGuarded",
            words="the source could not prove who it is, and was shown no password",
            advice="put the right ca.crt into the Secret, or sslmode if this network is to be trusted",
        ),
        Failure(
            reason="SourceTooNew",
            words="the source is newer than spec.mirror.version",
            advice="name its version there",
        ),
        Failure(
            reason="SourceEmpty",
            words="the source holds no rows at all, while the copy has some",
            advice="see that the Secret names the right database; if it does, make this DataStore anew",
        ),
        Failure(
            reason="SourceLocked",
            words="somebody held a lock on a table for longer than a dump waits",
            advice="refresh when no migration runs there",
            passes=True,
        ),
        Failure(
            reason="ReadForbidden",
            words="the login may not read everything",
            advice="give it the right to (docs/mirroring.md has the role)",
        ),
        Failure(
            reason="ExtensionsMissing",
            words="the image lacks extensions that the source has",
            advice="have the administrator offer an image with them",
        ),
        Failure(
            reason="VolumeFull",
            words="the volume of the new copy is too small",
            advice="raise spec.mirror.storage.size: it has to hold the data and their compressed dump",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class _Failed:
    failure: Failure
    detail: str
    pod: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Refresh:
    """What to do about the next copy.

    ``request`` is the one that stands, ``admin`` the Secret of the server that the copy will have.
    """

    store: DataStore
    wanted: Mirror
    engine: Engine
    seen: MirrorSeen
    storage: StorageChoice
    image: str
    resources: Resources
    request: Request | None
    admin: Manifest | None

    def run(self, draft: Draft) -> Fact:
        """Plan the next step; return whether nothing is to be done, or how it goes."""
        current = self.seen.current
        self._clean(draft, current)
        if current is None:
            return self._begin(draft)
        if is_deleting(current.claim) or claim_state(current.claim).lost:
            self._end(draft, current)
            return self._under_way("the volume of the next copy is gone, and another one is made")
        failed = self._failed(current)
        if self._is_outdated(current):
            return self._anew(draft, current, attempt=1)
        if failed is None:
            return self._fill(draft, current)
        if draft.now < self._next_try(current, failed):
            return self._report(current, failed)
        if self.seen.restore.succeeded_on(current) and not self._is_asked(current):
            return self._tell_again(draft, current)
        return self._anew(draft, current, attempt=current.wish.attempt + 1)

    def due_at(self, now: datetime) -> datetime | None:
        """Return when the next refresh begins: now where it is wanted, None if time brings none."""
        current, served = self.seen.current, self.seen.served
        if current is not None:
            failed = self._failed(current)
            return None if failed is None else self._next_try(current, failed)
        if served is None or self._is_changed(served.wish):
            return now
        return None if self.wanted.schedule is None else next_time(self.wanted.schedule, created_at(served.claim))

    # -- when --

    @property
    def _token(self) -> str:
        return "" if self.request is None else self.request.token

    @property
    def _login(self) -> SourceLogin | str | None:
        return self.seen.login(self.engine.port)

    def _is_changed(self, wish: Wish) -> bool:
        """Return whether a copy was made for something else than is wanted now."""
        login = self._login
        moved = isinstance(login, SourceLogin) and source_digest(login) != wish.source
        return moved or wish.version != self.wanted.version or self._token not in {"", wish.requested}

    def _is_outdated(self, current: MirrorCopy) -> bool:
        """Return whether a copy is on its way from another source, or to another version, than is wanted now."""
        login = self._login
        moved = isinstance(login, SourceLogin) and source_digest(login) != current.wish.source
        return moved or current.wish.version != self.wanted.version

    def _is_asked(self, current: MirrorCopy) -> bool:
        """Return whether somebody has put the Secret right, or asks for a refresh, since a copy was begun."""
        secret, admin = self.seen.secret, self.admin
        corrected = secret is not None and admin is not None and login_state(secret, admin) != current.wish.login
        return corrected or self._token not in {"", current.wish.requested}

    def _next_try(self, current: MirrorCopy, failed: _Failed) -> datetime:
        if self._is_asked(current):
            return failed.at
        pause: timedelta = FIRST_PAUSE * int(2 ** min(current.wish.attempt - 1, 10))
        return failed.at + min(pause, LONGEST_PAUSE)

    # -- begin and end --

    def _begin(self, draft: Draft) -> Fact:
        due = self.due_at(draft.now)
        if due is None or due > draft.now:
            return self._at_rest(due)
        problem = self._obstacle()
        if problem is not None:
            return problem
        draft.create.append(self._next_claim(draft.owner, attempt=1))
        return self._under_way("a volume for the next copy is being made")

    def _anew(self, draft: Draft, current: MirrorCopy, *, attempt: int) -> Fact:
        """Begin with the next number. It comes before the old one goes: it knows which try it is."""
        problem = self._obstacle()
        if problem is not None:
            return problem
        draft.create.append(self._next_claim(draft.owner, attempt))
        self._end(draft, current)
        return self._under_way("the refresh begins anew")

    def _tell_again(self, draft: Draft, current: MirrorCopy) -> Fact:
        """Have a program tell again what it has restored: the source need not be read for that.

        The mark comes before the Pod goes: however often it tells nothing, the pauses grow.
        """
        again = replace(current, wish=replace(current.wish, attempt=current.wish.attempt + 1))
        draft.apply.append(build_mark(again, draft.owner, None))
        draft.drop(self.seen.restore.pod)
        return self._under_way(f"Pod {program_name(self.seen.store, RESTORE)} is to tell again what it has restored")

    def _end(self, draft: Draft, current: MirrorCopy) -> None:
        """Remove a copy that is not complete, and its programs: even a Pod that has ended holds its claim."""
        draft.drop(self.seen.restore.pod)
        draft.drop(self.seen.dump.pod)
        draft.drop(current.claim)

    def _clean(self, draft: Draft, current: MirrorCopy | None) -> None:
        """Remove what is left of earlier refreshes that came to no end, and of one that has."""
        served = self.seen.served
        for program in (self.seen.restore, self.seen.dump):
            if current is None or not program.runs_on(current):
                draft.drop(program.pod)
            if current is None:
                draft.drop(program.policy)
        for copy in self.seen.copies:
            if copy.held is None and copy is not current and (served is None or copy.number > served.number):
                draft.drop(copy.claim)

    def _next_claim(self, owner: Owner, attempt: int) -> dict[str, Any]:
        login, secret, admin = self._login, self.seen.secret, self.admin
        if not isinstance(login, SourceLogin) or secret is None or admin is None:
            raise TypeError("a refresh begins with a login, and with the Secret of its server")
        number = max((copy.number for copy in self.seen.copies), default=0) + 1
        source, state = source_digest(login), login_state(secret, admin)
        wish = Wish(owner.uid, self.wanted.version, source, state, self._token, attempt)
        return build_claim(
            Claim(
                name=copy_name(owner.name, number),
                owner=owner,
                size=self.wanted.storage.size,
                storage_class=self.storage.storage_class,
                labels={labels.STORE: owner.name, labels.COPY: str(number)},
                annotations={labels.ENGINE: self.store.spec.engine, labels.MIRRORED: mark_text(wish, None)},
                owned=False,
            )
        )

    # -- the programs --

    def _fill(self, draft: Draft, current: MirrorCopy) -> Fact:
        state, complaint = claim_state(current.claim), self.seen.complaint
        told = complaint is not None and self.seen.dump.pod is not None
        if not state.bound and (told or not self.storage.waits_for_consumer):
            return waits_for_volume(MIRRORED, "Refreshing", current.claim, complaint, draft.now)
        dumped = self._dump(draft, current)
        return dumped if not dumped.holds else self._restore(draft, current)

    def _dump(self, draft: Draft, current: MirrorCopy) -> Fact:
        done = holds(MIRRORED, "Refreshing", "the source has been dumped")
        if self.seen.dump.succeeded_on(current) or self.seen.restore.runs_on(current):
            return done
        login, problem = self._login, self._secret_problem()
        if problem is not None or not isinstance(login, SourceLogin):
            draft.drop(self.seen.dump.pod)
            return problem or done
        policy = build_outbound_policy(program_name(self.seen.store, DUMP), draft.owner, role="dump", port=login.port)
        desired = self._pod(draft.owner, current, "dump", self._workloads(current).dump)
        return self._run(draft, desired, policy, self.seen.dump, current)

    def _restore(self, draft: Draft, current: MirrorCopy) -> Fact:
        program = self.seen.restore
        policy = build_closed_policy(program_name(self.seen.store, RESTORE), draft.owner, role="restore")
        desired = self._pod(draft.owner, current, "restore", self._workloads(current).restore)
        fact = self._run(draft, desired, policy, program, current)
        if not fact.holds:
            return fact
        if not isinstance(program.told, Restored) or self.admin is None:
            return self._under_way("the copy waits for the Secret of its server")
        draft.apply.append(_completed(current, draft.owner, program.told, str(self.admin["metadata"]["uid"])))
        return self._under_way("the copy is complete")

    def _workloads(self, current: MirrorCopy) -> MirrorWorkloads:
        held = None if self.seen.served is None else self.seen.served.held
        expects_rows = held is not None and held.filled > 0
        inputs = MirrorInputs(marker=current.uid, jobs=self.wanted.jobs, expects_rows=expects_rows)
        workloads = self.engine.mirror(inputs)
        if workloads is None:
            raise TypeError("the chain goes on without a way to mirror")
        return workloads

    def _pod(self, owner: Owner, current: MirrorCopy, role: Role, workload: Workload) -> dict[str, Any]:
        return build_pod(
            ServerPod(
                name=program_name(owner.name, role),
                owner=owner,
                role=role,
                image=self.image,
                user_id=self.engine.user_id,
                workload=workload,
                claim=str(current.claim["metadata"]["name"]),
                secret=None,
                resources=self.resources,
                annotations={labels.INPUTS: current.uid},
                source=self.wanted.from_.secret_name if role == "dump" else None,
                grace_seconds=5,
            )
        )

    def _run(self, draft: Draft, desired: Manifest, policy: Manifest, program: Program, current: MirrorCopy) -> Fact:
        """Plan a program's policy and Pod; return whether it has ended well."""
        name = desired["metadata"]["name"]
        problem = draft.keep(policy, program.policy, MIRRORED)
        if problem is None and program.policy is None:
            # Before the Pod, and not in the same plan: what is kept is written after what is made.
            return self._under_way(f"NetworkPolicy {name} is being made")
        problem = problem or draft.make_once(desired, program.pod, MIRRORED)
        if problem is not None:
            return problem
        if program.pod is None:
            return self._under_way(f"Pod {name} is being started")
        state = pod_state(program.pod)
        if not program.runs_on(current):
            return self._under_way(f"Pod {name} of an earlier refresh is on its way out")
        if state.failed and state.disrupted:
            draft.drop(program.pod)
            return self._under_way(f"Pod {name} was disrupted and will be made anew")
        if state.succeeded:
            return holds(MIRRORED, "Refreshing", f"Pod {name} has ended well")
        trouble = find_trouble(program.pod)
        if trouble is None:
            return self._under_way(f"Pod {name} is at work; status.mirror.refresh says how far")
        if trouble.is_hopeless(draft.now):
            return stalls(MIRRORED, "RefreshStuck", trouble.words(name), retry_after=60)
        return self._under_way(trouble.words(name))

    # -- words --

    def _under_way(self, message: str) -> Fact:
        return waits(MIRRORED, "Refreshing", message, retry_after=LOOK_SECONDS)

    def _at_rest(self, due: datetime | None) -> Fact:
        served = self.seen.served
        if served is None or served.held is None:
            raise TypeError("without a copy a refresh is due")
        then = "on request" if due is None else f"at {format_time(due)}"
        message = f"the source as of {format_time(served.held.refreshed_at)}; it is refreshed {then}"
        return holds(MIRRORED, "Refreshed", message)

    def _obstacle(self) -> Fact | None:
        """Return why no copy can be begun now."""
        problem = self._secret_problem()
        if problem is None and self.admin is None:
            return self._under_way("the Secret of the server is being made")
        return problem

    def _secret_problem(self) -> Fact | None:
        """Return why there is no login to the source that may be used."""
        login, name, store = self._login, self.wanted.from_.secret_name, self.seen.store
        if isinstance(login, SourceLogin):
            return None
        if self.seen.secret is None:
            message = (
                f"there is no Secret {name} in this namespace: create it with host, username, password and database of "
                f"the source, and the annotation {labels.STORE}={store}"
            )
            return waits(MIRRORED, "CredentialsNotFound", message, retry_after=LOOK_SECONDS)
        if login is None:
            return stalls(
                MIRRORED,
                "CredentialsNotMeant",
                f"Secret {name} does not say that it may be used for this DataStore, and is not used. If it may: "
                f"kubectl annotate secret {name} -n {self.store.metadata.namespace} {labels.STORE}={store}",
                retry_after=LOOK_SECONDS,
            )
        message = f"Secret {name} cannot be used: {login}. Put that right in the Secret"
        return stalls(MIRRORED, "CredentialsIncomplete", message, retry_after=LOOK_SECONDS)

    def _failed(self, current: MirrorCopy) -> _Failed | None:
        """Return why the programs on a copy have come to no good end, if so."""
        for program, fallback in ((self.seen.restore, _OF_THE_RESTORE), (self.seen.dump, _OF_THE_DUMP)):
            pod = program.pod
            if pod is None or not program.runs_on(current):
                continue
            state = pod_state(pod)
            told, name = program.told, str(pod["metadata"]["name"])
            if program is self.seen.restore and state.succeeded and not isinstance(told, Restored):
                return _Failed(_OF_THE_RESTORE, "the last line of its log is no report", name, _ended_at(pod))
            if not state.failed or state.disrupted:
                continue
            if isinstance(told, GivenUp):
                return _Failed(FAILURES.get(told.failure, fallback), told.detail, name, _ended_at(pod))
            code = exit_code([pod])
            return _Failed(fallback, "" if code is None else f"exit code {code}", name, _ended_at(pod))
        return None

    def _report(self, current: MirrorCopy, failed: _Failed) -> Fact:
        """Return how a refresh has failed, and what it means for the data that are served."""
        failure, attempt = failed.failure, current.wish.attempt
        detail = f" ({failed.detail})" if failed.detail else ""
        times = "" if attempt == 1 else f", {attempt} times by now"
        message = (
            f"{failure.words}{detail}{times}: {failure.advice}. Its log: kubectl logs -n "
            f"{self.store.metadata.namespace} {failed.pod}. It is tried again at "
            f"{format_time(self._next_try(current, failed))}, and at once when the login in the Secret is changed"
        )
        state = waits if failure.passes and attempt < PATIENCE else stalls
        return state(MIRRORED, failure.reason, message, retry_after=LOOK_SECONDS)


def _ended_at(pod: Manifest) -> datetime:
    """Return when the program of a Pod that runs once has ended."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = [((entry.get("state") or {}).get("terminated") or {}).get("finishedAt") for entry in containers]
    moments = [moment for moment in map(parse_time, ended) if moment is not None]
    return max(moments, default=created_at(pod))


def _completed(copy: MirrorCopy, owner: Owner, restored: Restored, admin: str) -> dict[str, Any]:
    """Return the write that makes a copy the one that is served."""
    held = Held(
        refreshed_at=restored.at,
        source_version=restored.version,
        database=restored.database,
        tables=restored.tables,
        filled=restored.filled,
        findings=restored.findings,
        admin=admin,
    )
    return build_mark(copy, owner, held)


def build_mark(copy: MirrorCopy, owner: Owner, held: Held | None) -> dict[str, Any]:
    """Return the apply that says whose a copy is and what it holds, and claims nothing else of it.

    All of it every time: an apply takes away what it leaves out.
    """
    body = build_identity(copy.claim)
    marks = {labels.MIRRORED: mark_text(copy.wish, held)}
    return {**body, "metadata": {**body["metadata"], "labels": owner.labels, "annotations": marks}}


def rough_age(age: timedelta) -> str:
    """Return an age that does not change at every look."""
    minutes = int(age.total_seconds()) // 60
    if minutes < 10:
        return "less than 10m"
    return format_duration(timedelta(minutes=minutes // 10 * 10) if minutes < 60 else timedelta(hours=minutes // 60))
