"""The owners' checks that are programs: each runs once on what a merge has come to, before anything is published. Pure.

A Job made from the user's reads the merged commit on the scratch server, by a login that can do nothing else. What it
came to stands in the status, with the commit and a digest of what ran: it holds for that commit and that program, for
whichever operator comes next, and for nothing else. So a run whose Job has gone without a word never passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from coppice.api.v1alpha1 import BINDING_KEYS, CheckStatus, DataChangeRequest, DataClone
from coppice.core import labels
from coppice.core.names import child, digest
from coppice.core.plan import EngineCall, Manifest, SecretKey
from coppice.engines.merging import MergingEngine
from coppice.manifests.job import CHECK_ROLE, UserJob, build_user_job
from coppice.manifests.secret import build_binding_secret, read_secret
from coppice.reconcile.changerequest.observation import CheckJobs, Party, RequestObservation
from coppice.reconcile.changerequest.rules import rules_of
from coppice.reconcile.clone.names import service_name
from coppice.reconcile.draft import Draft, Fact, stalls, waits
from coppice.reconcile.jobs import (
    LOOK_SECONDS,
    is_made_from,
    lacks_pods,
    pods_trouble,
    template_digest,
    template_inputs,
)
from coppice.reconcile.observed import annotation, created_at, format_time, is_deleting, job_span, job_state

CHECKED: Final = "ChecksPassed"
DEADLINE: Final = 3600
"""Seconds after which a check has failed that says nothing of that itself."""
MAX_TOLD: Final = 3
"""Of how many failed checks it is said where their logs are."""
_MAX_TEXT: Final = 256


class Step(Enum):
    """What is to be done for a check."""

    PASSED = auto()
    FAILED = auto()
    MISSING = auto()
    RESUMED = auto()
    GOING = auto()
    REPLACE = auto()
    BEGIN = auto()
    RUNNING = auto()


_UNDER_WAY: Final = frozenset({Step.GOING, Step.REPLACE, Step.BEGIN, Step.RUNNING})


@dataclass(frozen=True, slots=True)
class CheckRun:
    """One check of one result: the Job that the owners name, ours with its Pods, and what the status has said of it.
    ``server`` is the UID of the scratch server's Pod.
    """

    check: str
    template_name: str
    template: Manifest | None
    result: str
    server: str
    name: str = ""
    job: Manifest | None = None
    pods: tuple[Manifest, ...] = ()
    told: CheckStatus | None = None

    @property
    def digest(self) -> str | None:
        """Return a digest of what is to run; None where there is nothing."""
        return None if self.template is None else template_digest(self.template)

    def step(self) -> Step:
        """Return what is to be done next."""
        job, template = self.job, self.template
        if template is None or is_deleting(template):
            return Step.MISSING
        if (self.told is not None and self.told.passed) or (job is not None and job_state(job).succeeded):
            return Step.PASSED
        if job is not None and is_deleting(job):
            return Step.GOING
        if job is not None and job_state(job).failure is None:
            return Step.RUNNING
        if job is not None and annotation(job, labels.CHECKED_ON) == self.server and is_made_from(job, template):
            return Step.FAILED
        if template["spec"].get("suspend") is not True:
            return Step.RESUMED
        return Step.BEGIN if job is None else Step.REPLACE

    @property
    def status(self) -> dict[str, Any]:
        """Return what the status says: that it has ended where it has, and until then never that it passed."""
        step = self.step()
        said = {"name": self.check, "passed": step is Step.PASSED, "message": self._message(step)[:_MAX_TEXT] or None}
        if step is Step.MISSING:
            return said
        return {**said, "job": self.name, "digest": self.digest, "result": self.result, "finishedAt": self._ended(step)}

    def _ended(self, step: Step) -> str | None:
        if step not in {Step.PASSED, Step.FAILED}:
            return None
        if self.told is not None and self.told.finished_at is not None and self.told.passed:
            return format_time(self.told.finished_at)
        return None if self.job is None else format_time(job_span(self.job)[1] or created_at(self.job))

    def _message(self, step: Step) -> str:
        match step:
            case Step.PASSED:
                return ""
            case Step.FAILED:
                return f"Job {self.name} failed ({self.failure})"
            case Step.MISSING:
                return f"there is no Job {self.template_name}"
            case Step.RESUMED:
                return f"Job {self.template_name} is not suspended"
            case _:
                return f"Job {self.name} runs"

    @property
    def failure(self) -> str:
        """Return Kubernetes' word for why the Job has failed."""
        return "" if self.job is None else job_state(self.job).failure or ""


def check_runs(request: DataChangeRequest, seen: RequestObservation) -> tuple[CheckRun, ...]:
    """Return the checks that are programs, each for what would be published now; none before that is known."""
    outcome, scratch = seen.outcome, seen.scratch.party
    if outcome is None or outcome.result is None or scratch is None or scratch.server.pod is None:
        return ()
    wanted = {(check.name, check.job_template): None for check in rules_of(seen).checks if check.job_template}
    server = str(scratch.server.pod["metadata"]["uid"])
    return tuple(_run(request, seen, CheckRun(*names, None, outcome.result, server)) for names in wanted)


def _run(request: DataChangeRequest, seen: RequestObservation, run: CheckRun) -> CheckRun:
    """Return a run with all that is there for it."""
    template = seen.check_jobs.templates.get(run.template_name)
    if template is None:
        return run
    what = template_digest(template)
    name = _name(request, run.check, run.template_name, what, run.result)
    job = next((job for job in seen.check_jobs.jobs if job["metadata"]["name"] == name), None)
    uid = None if job is None else job["metadata"]["uid"]
    told = next(
        (
            said
            for said in request.status.checks
            if (said.job, said.digest, said.result) == (name, what, run.result) and said.finished_at is not None
        ),
        None,
    )
    pods = tuple(pod for pod in seen.check_jobs.pods if _controller(pod) == uid)
    return CheckRun(
        run.check, run.template_name, template, run.result, run.server, name=name, job=job, pods=pods, told=told
    )


def _name(request: DataChangeRequest, *of: str) -> str:
    return child(f"{request.metadata.name}-check", digest(request.metadata.uid, *of))


def _controller(pod: Manifest) -> str | None:
    return next((str(entry["uid"]) for entry in pod["metadata"].get("ownerReferences") or ()), None)


def all_have_passed(runs: Sequence[CheckRun]) -> bool:
    """Return whether every check that is a program has passed."""
    return all(run.step() is Step.PASSED for run in runs)


def are_running(runs: Sequence[CheckRun]) -> bool:
    """Return whether a program is at work that another result would end."""
    return any(run.step() is Step.RUNNING for run in runs)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the checks of a request on its scratch server."""

    request: DataChangeRequest
    seen: RequestObservation
    engine: MergingEngine
    database: str
    runs: tuple[CheckRun, ...]

    def run(self, draft: Draft) -> Fact | None:
        """Plan what is next for each check; return why they do not all pass, or None. What is wrong with one keeps no
        other from being run.
        """
        by_step = {step: [run for run in self.runs if run.step() is step] for step in Step}
        self._forget(draft)
        for run in by_step[Step.REPLACE]:
            draft.drop(run.job)
        begun = self._begin(draft, by_step[Step.BEGIN])
        return (
            self._missing(by_step[Step.MISSING])
            or self._resumed(by_step[Step.RESUMED])
            or begun
            or self._refused(draft, by_step[Step.RUNNING])
            or self._running([run for run in self.runs if run.step() in _UNDER_WAY])
        )

    def _forget(self, draft: Draft) -> None:
        """Remove what was made for another result or program, and the connection when all have ended."""
        names = {run.name for run in self.runs}
        waiting = any(run.step() in _UNDER_WAY for run in self.runs)
        secret = self._secret_name if waiting else ""
        for job in self.seen.check_jobs.jobs:
            if job["metadata"]["name"] not in names:
                draft.drop(job)
        for found in self.seen.check_jobs.secrets:
            if found["metadata"]["name"] != secret:
                draft.drop(found)

    @property
    def _secret_name(self) -> str:
        return _name(self.request, self.runs[0].result)

    def _begin(self, draft: Draft, runs: Sequence[CheckRun]) -> Fact | None:
        """Make the connection, then the login that it is of, then the Jobs."""
        if not runs:
            return None
        unready = self._connect(draft)
        if unready is not None:
            return unready
        name, scratch = self._secret_name, self._scratch
        password = SecretKey(draft.owner.namespace, name, "password")
        arguments = {"database": self.database, "username": self.engine.app_user}
        borrowed = {"password": password}
        at = scratch.ref(self.engine)
        call = EngineCall(self.engine.name, at, "ensure-check-user", arguments, borrowed_arguments=borrowed)
        draft.calls.append(call)
        draft.create += [self._job(draft, run) for run in runs]
        return None

    @property
    def _scratch(self) -> Party:
        if self.seen.scratch.party is None:
            raise TypeError("a check runs on a scratch server")
        return self.seen.scratch.party

    def _connect(self, draft: Draft) -> Fact | None:
        """Keep the Secret that the Jobs connect with; its password is the one that it was made with."""
        clone, there = self.seen.scratch.clone, self.seen.check_jobs.secrets
        if not isinstance(clone, DataClone):
            raise TypeError("a check runs on a scratch clone")
        found = next((entry for entry in there if entry["metadata"]["name"] == self._secret_name), None)
        password = self.seen.check_jobs.password if found is None else read_secret(found).get("password")
        values = self.engine.check_binding(
            host=f"{service_name(clone)}.{clone.metadata.namespace}.svc",
            database=self.database,
            commit=self.runs[0].result,
            password=password or self.seen.check_jobs.password,
        )
        desired = build_binding_secret(self._secret_name, draft.owner, values, {}, labels={labels.ROLE: CHECK_ROLE})
        # A Job takes single keys from it: one that somebody adds is nobody's business.
        problem = draft.keep(desired, found, CHECKED, exact=False)
        if problem is None and draft.writes(desired):
            return waits(CHECKED, "ChecksRunning", "the checks are being made ready", retry_after=1)
        return problem

    def _job(self, draft: Draft, run: CheckRun) -> dict[str, Any]:
        if run.template is None:
            raise TypeError("a check begins without the owners' Job")
        return build_user_job(
            UserJob(
                name=run.name,
                owner=draft.owner,
                role=CHECK_ROLE,
                template=run.template,
                secret=self._secret_name,
                keys=BINDING_KEYS,
                inputs=template_inputs(run.template),
                annotations={labels.CHECKED_ON: run.server},
                deadline=DEADLINE,
            )
        )

    # -- what is said --

    @staticmethod
    def _missing(runs: Sequence[CheckRun]) -> Fact | None:
        if not runs:
            return None
        message = (
            f"waits for Job {runs[0].template_name} of check {runs[0].check}: apply it in this namespace with "
            "spec.suspend: true"
        )
        return waits(CHECKED, "CheckNotFound", message, retry_after=LOOK_SECONDS)

    @staticmethod
    def _resumed(runs: Sequence[CheckRun]) -> Fact | None:
        if not runs:
            return None
        message = (
            f"Job {runs[0].template_name} of check {runs[0].check} is not suspended, so that it runs by itself and "
            "without the connection: delete it and apply it again with spec.suspend: true"
        )
        return stalls(CHECKED, "CheckNotSuspended", message, retry_after=LOOK_SECONDS)

    @staticmethod
    def _refused(draft: Draft, runs: Sequence[CheckRun]) -> Fact | None:
        for run in runs:
            if run.job is not None and lacks_pods(run.job, run.pods, draft.now):
                message = (
                    f"Job {run.name} of check {run.check} has no Pod: something in this namespace refuses it "
                    "(PodSecurity, a quota, a missing ServiceAccount); the events of "
                    f"`kubectl describe job {run.name}` say what"
                )
                return stalls(CHECKED, "CheckNotStarted", message, retry_after=LOOK_SECONDS)
        return None

    @staticmethod
    def _running(runs: Sequence[CheckRun]) -> Fact | None:
        if not runs:
            return None
        names = ", ".join(run.check for run in runs)
        trouble = next((words for run in runs if (words := pods_trouble(run.pods))), "")
        message = f"waits for checks of the store's owners: {names}{trouble}"
        return waits(CHECKED, "ChecksRunning", message, retry_after=LOOK_SECONDS)


def drop_checks(draft: Draft, seen: CheckJobs) -> None:
    """Plan the end of all that was made for checks."""
    for found in (*seen.jobs, *seen.secrets):
        draft.drop(found)


def failed_runs(runs: Sequence[CheckRun]) -> tuple[CheckRun, ...]:
    """Return the checks whose Job has failed."""
    return tuple(run for run in runs if run.step() is Step.FAILED)


def log_words(runs: Sequence[CheckRun], namespace: str) -> str:
    """Return where it is written what failed, and how the same is tried anew; never what a program printed."""
    return "".join(
        f". Job {run.name}, made from Job {run.template_name}, failed ({run.failure}){pods_trouble(run.pods)}: read "
        f"`kubectl logs -n {namespace} job/{run.name} --all-containers`; delete it to have the same tried anew"
        for run in runs[:MAX_TOLD]
    )
