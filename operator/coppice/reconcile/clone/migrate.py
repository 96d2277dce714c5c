"""The link of the chain that runs a clone's migrations on a copy, before apps are told of it. Pure.

Each copy has a Job, a Secret and a Service of its own, so that what is meant for one copy never reaches another. The
claim says that the copy has been proven before the first Job may change it, and what has run after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final

from coppice.api.v1alpha1 import BINDING_KEYS, DataClone, OnRevision
from coppice.core import labels
from coppice.core.names import child
from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.manifests.job import MIGRATE_ROLE, UserJob, build_user_job
from coppice.manifests.network import build_service
from coppice.manifests.secret import build_binding_secret
from coppice.reconcile.clone.binding import app_login, binding_values
from coppice.reconcile.clone.names import MIGRATED
from coppice.reconcile.clone.observation import CloneObservation
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy, Marks, build_marks, copy_name, is_proven
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.jobs import (
    LOOK_SECONDS,
    are_inputs,
    is_made_from,
    lacks_pods,
    pods_trouble,
    still_running,
    template_inputs,
    waits_for_pods,
)
from coppice.reconcile.locks import LOCK_SECONDS, Held, locks_of, look_again
from coppice.reconcile.migrations import Attempt, Finished, Migrated, Schema, content_of, read_attempt, record
from coppice.reconcile.observed import exit_code, format_time, is_deleting, job_span, job_state, label

_JOB_NAME: Final = "batch.kubernetes.io/job-name"
_JOB_UID: Final = "batch.kubernetes.io/controller-uid"
"""Labels that Kubernetes gives the Pods of a Job. They stay when it is deleted without them (``--cascade=orphan``)."""


class Step(Enum):
    """What is to be done for the migrations of a copy."""

    REST = auto()
    RECORD = auto()
    BEGIN = auto()
    REPLACE = auto()
    RUNNING = auto()
    FAILED = auto()
    GOING = auto()
    MISSING = auto()
    RESUMED = auto()


@dataclass(frozen=True, slots=True)
class Work:
    """The migrations of one copy: what is wanted, what is on the way, and what has been done."""

    clone: DataClone
    copy: Copy
    template: Manifest | None
    job: Manifest | None

    @property
    def attempt(self) -> Attempt | None:
        """Return what the Job runs, if that is on the volume of this very copy."""
        attempt = None if self.job is None else read_attempt(self.job)
        return attempt if attempt is not None and attempt.claim == self.copy.claim["metadata"]["uid"] else None

    @property
    def finished(self) -> Finished | None:
        """Return the Job that has succeeded, until that is written on the claim."""
        job, attempt, done = self.job, self.attempt, self.copy.migrated
        if job is None or attempt is None or not job_state(job).succeeded or attempt.is_written_in(done):
            return None
        started, finished = job_span(job)
        return Finished(job, attempt, started, finished or started)

    @property
    def has_run(self) -> bool:
        """Return whether what is wanted has run on the copy, and nothing has been left half done since."""
        done, template = self.copy.migrated, self.template
        if done is None or template is None or done.begun:
            return False
        return content_of(template) in done.ran or are_inputs(done.inputs, template)

    @property
    def is_for_later(self) -> bool:
        """Return whether what is wanted comes with the next revision, to a new copy."""
        revision, done = self.clone.spec.revision, self.copy.migrated
        if self.clone.spec.on_revision is not OnRevision.RESET_IF_MIGRATIONS_CHANGED or done is None or done.begun:
            return False
        return revision is not None and revision == done.revision

    def step(self) -> Step:
        """Return what is to be done next."""
        job, template = self.job, self.template
        if self.finished is not None:
            return Step.RECORD
        if job is not None and is_deleting(job) and not self.has_run:
            return Step.GOING
        runs = job is not None and self.attempt is not None and job_state(job).is_on_its_way
        if template is None or is_deleting(template):
            return self._step_without_template(runs=runs)
        if runs and self._is_wanted(template):
            return Step.RUNNING
        if self.has_run or self.is_for_later:
            return Step.REST
        if job is not None and self._has_failed and is_made_from(job, template):
            return Step.FAILED
        if template["spec"].get("suspend") is not True:
            return Step.RESUMED
        return Step.BEGIN if job is None else Step.REPLACE

    def _step_without_template(self, *, runs: bool) -> Step:
        if runs:
            return Step.RUNNING
        if self._has_failed:
            return Step.FAILED
        done = self.copy.migrated
        return Step.MISSING if done is None or done.begun else Step.REST

    def _is_wanted(self, template: Manifest) -> bool:
        attempt, job = self.attempt, self.job
        if attempt is None or job is None:
            return False
        return attempt.content == content_of(template) or is_made_from(job, template)

    @property
    def _has_failed(self) -> bool:
        return self.job is not None and self.attempt is not None and job_state(self.job).failure is not None


def migration_name(clone: DataClone, copy: Copy) -> str:
    """Return the name of the Job that runs the migrations of a copy, of its Secret and its Service."""
    return child(copy_name(clone.metadata.name, clone.metadata.uid, copy.number), "migrate")


def work_of(seen: CloneObservation, clone: DataClone, copy: Copy) -> Work:
    """Return the migrations of a copy."""
    job = next((job for job in seen.migration.jobs if label(job, labels.COPY) == str(copy.number)), None)
    return Work(clone, copy, seen.migration.template, job)


def asks_for_connection(seen: CloneObservation, clone: DataClone, copy: Copy) -> bool:
    """Return whether a copy needs what a Job connects with."""
    return work_of(seen, clone, copy).step() in {Step.BEGIN, Step.RUNNING, Step.FAILED}


def asks_for_schema(seen: CloneObservation, clone: DataClone, copy: Copy) -> bool:
    """Return whether the next step on a copy needs what is defined in its database."""
    if clone.spec.migrations is None:
        return False
    step = work_of(seen, clone, copy).step()
    return step is Step.RECORD or (step is Step.BEGIN and is_proven(copy))


def asks_for_locks(seen: CloneObservation, clone: DataClone, copy: Copy) -> bool:
    """Return whether a migration runs on a copy, so that it may lock what others would wait for."""
    return clone.spec.migrations is not None and work_of(seen, clone, copy).step() is Step.RUNNING


def asks_for_ledger(seen: CloneObservation, clone: DataClone, copy: Copy) -> bool:
    """Return whether what is written down in a copy is to be compared with what the release has. Not while a migration
    is at it.
    """
    wanted = clone.spec.migrations
    if wanted is None or wanted.versions is None or not is_proven(copy):
        return False
    return work_of(seen, clone, copy).step() is not Step.RUNNING


def migrations_have_run(at: Situation, draft: Draft) -> Fact:
    """Return whether what the clone's migrations ask for has run on the wanted copy."""
    run = _Run(at, draft, work_of(at.seen, at.clone, at.wanted_copy))
    if at.clone.spec.migrations is None:
        return run.none_is_wanted()
    match run.work.step():
        case Step.RECORD:
            return run.record()
        case Step.REST:
            return run.rest()
        case Step.GOING | Step.REPLACE:
            return run.replace()
        case Step.BEGIN:
            return run.begin()
        case Step.RUNNING:
            return run.progress()
        case Step.FAILED:
            return run.failure()
        case Step.MISSING:
            return waits(
                MIGRATED,
                "MigrationTemplateMissing",
                f"waits for Job {run.template} with the migrations: apply it in this namespace with spec.suspend: true"
                f"{run.meanwhile}",
                retry_after=LOOK_SECONDS,
            )
        case Step.RESUMED:
            return stalls(
                MIGRATED,
                "MigrationNotSuspended",
                f"Job {run.template} is not suspended, so that it runs by itself and without the connection: delete it "
                f"and apply it again with spec.suspend: true{run.meanwhile}",
                retry_after=LOOK_SECONDS,
            )


@dataclass(frozen=True, slots=True)
class _Run:
    """One step of the migrations of the wanted copy."""

    at: Situation
    draft: Draft
    work: Work

    @property
    def name(self) -> str:
        """Return the name of the Job, its Secret and its Service."""
        return migration_name(self.at.clone, self.work.copy)

    @property
    def template(self) -> str:
        """Return the name of the user's Job."""
        wanted = self.at.clone.spec.migrations
        return "" if wanted is None else wanted.job_template

    @property
    def meanwhile(self) -> str:
        """Return what serves until the wanted copy does."""
        serving = self.at.seen.serving
        if serving is None:
            return ". Apps are told of the clone once its migrations have run"
        return "" if serving is self.work.copy else f". Copy {serving.number} serves meanwhile"

    @property
    def _pods(self) -> list[Manifest]:
        """Return the Pods that have run on this copy, or still do, of whichever Job."""
        return [pod for pod in self.at.seen.migration.pods if label(pod, _JOB_NAME) == self.name]

    @property
    def _own_pods(self) -> list[Manifest]:
        uid = (self.work.job or {"metadata": {"uid": None}})["metadata"]["uid"]
        return [pod for pod in self._pods if label(pod, _JOB_UID) == uid]

    def none_is_wanted(self) -> Fact:
        """Remove everything; what still runs is waited for, since apps come next."""
        for entry in self._made:
            self.draft.drop(entry)
        pod = still_running(self._pods)
        if pod is not None:
            message = f"no migrations are asked for any more, and the end of Pod {pod} is waited for"
            return waits(MIGRATED, "BeingDeleted", message, retry_after=LOOK_SECONDS)
        return holds(MIGRATED, "NoMigrations", "none are asked for")

    @property
    def _made(self) -> list[Manifest]:
        seen, number = self.at.seen.migration, str(self.work.copy.number)
        made = (*seen.jobs, *seen.secrets, *seen.services)
        return [entry for entry in made if label(entry, labels.COPY) == number]

    def rest(self) -> Fact:
        """Keep the Job, for its log, and nothing else."""
        for entry in self._made:
            if entry["kind"] != "Job":
                self.draft.drop(entry)
        done = self.work.copy.migrated
        message = "" if done is None else f"Job {done.job} has run at {format_time(done.finished_at)}"
        if self.work.template is None:
            message += f"; Job {self.template} is not there any more, and nothing else will run"
        elif not self.work.has_run:
            message += f"; Job {self.template} is another one since, and runs on a new copy with the next spec.revision"
        return holds(MIGRATED, "Migrated", message)

    def replace(self) -> Fact:
        """End the Job that is there; it is gone when its Pods are."""
        self.draft.drop(self.work.job)
        message = f"Job {self.name} is being deleted, with its Pods, before it begins anew{self.meanwhile}"
        return waits(MIGRATED, "Migrating", message, retry_after=2)

    def begin(self) -> Fact:
        """Make ready, then start the Job: once it runs, nothing of the copy can be proven any more."""
        leftover = waits_for_pods(MIGRATED, self._pods, self.at.namespace, effect=self.meanwhile)
        if leftover is not None:
            return leftover
        copy, draft = self.work.copy, self.draft
        unready = self._make_ready() or draft.route(copy.pod, MIGRATED)
        if unready is not None:
            return unready
        schema = self._schema()
        if isinstance(schema, Fact):
            return schema
        draft.calls.append(app_login(self.at, copy, self._engine))
        draft.create.append(self._job(schema))
        return waits(MIGRATED, "Migrating", f"Job {self.name} is being started, made from Job {self.template}")

    def _make_ready(self) -> Fact | None:
        """Return that something has to be written first, or None: the Job is made in a plan of its own, after it."""
        copy, draft = self.work.copy, self.draft
        written = len(draft.apply)
        problem = self._surround()
        if problem is not None:
            return problem
        done = copy.migrated if copy.migrated is None else replace(copy.migrated, begun=content_of(self._source))
        if not is_proven(copy) or done != copy.migrated:
            proven = copy.proven_under or self.at.secret_uid
            draft.apply.append(build_marks(copy, replace(Marks.of(copy), proven_under=proven, migrated=done)))
        if len(draft.apply) == written:
            return None
        return waits(MIGRATED, "Migrating", f"Job {self.name} is being made ready{self.meanwhile}", retry_after=1)

    def _surround(self) -> Fact | None:
        """Keep what the Job connects with: to this copy alone, whichever the clone's own Service leads to."""
        copy, seen, at = self.work.copy, self.at.seen.migration, self.at
        marks = {labels.ROLE: MIGRATE_ROLE, labels.COPY: str(copy.number)}
        values = binding_values(at, self._engine, f"{self.name}.{at.namespace}.svc")
        secret = build_binding_secret(self.name, self.draft.owner, values, {}, labels=marks)
        service = build_service(
            self.name,
            self.draft.owner,
            port=at.tls(self._engine).port_of(copy.pod),
            selector={labels.COPY: str(copy.number)},
            labels=marks,
        )
        keep = self.draft.keep
        # The Job takes single keys from the Secret: one that somebody adds is nobody's business.
        return keep(secret, seen.secret, MIGRATED, exact=False) or keep(service, seen.service, MIGRATED)

    @property
    def _source(self) -> Manifest:
        if self.work.template is None:
            raise TypeError("a migration begins without the user's Job")
        return self.work.template

    @property
    def _engine(self) -> Engine:
        engine = self.at.engine_of(self.work.copy)
        if engine is None:
            raise TypeError("the chain goes on without an engine")
        return engine

    def _schema(self) -> Schema | Fact:
        schema = self.at.seen.migration.schema
        if isinstance(schema, Schema):
            return schema
        words = "it does not answer yet" if schema is None else str(schema)
        message = f"what is defined in the database could not be read, and is asked for again: {words}{self.meanwhile}"
        return waits(MIGRATED, "EngineError", message, retry_after=1)

    def _job(self, before: Schema) -> dict[str, Any]:
        template, copy = self._source, self.work.copy
        attempt = Attempt(
            content=content_of(template),
            claim=str(copy.claim["metadata"]["uid"]),
            revision=self.at.clone.spec.revision or "",
            schema=before.fingerprint,
            version=before.newest,
        )
        return build_user_job(
            UserJob(
                name=self.name,
                owner=self.draft.owner,
                role=MIGRATE_ROLE,
                template=template,
                secret=self.name,
                keys=(*BINDING_KEYS, *self.at.clone.spec.binding.keys),
                inputs=template_inputs(template),
                labels={labels.COPY: str(copy.number)},
                annotations=attempt.annotations(before),
            )
        )

    def record(self) -> Fact:
        """Write down on the claim what has run; apps are told in the next plan."""
        schema, finished, copy = self._schema(), self.work.finished, self.work.copy
        if isinstance(schema, Fact) or finished is None:
            return schema if isinstance(schema, Fact) else self.rest()
        done = record(finished, schema, copy.migrated, copy.locks)
        marks = replace(Marks.of(copy), migrated=done, locks=None)
        self.draft.apply.append(build_marks(copy, marks))
        return waits(MIGRATED, "Migrating", f"Job {self.name} has succeeded, and that is written down", retry_after=1)

    def progress(self) -> Fact:
        """Return how far the Job is."""
        job, pods = self.work.job, self._own_pods
        problem = self._surround()
        if problem is not None:
            return problem
        if job is not None and lacks_pods(job, pods, self.at.seen.now):
            return stalls(
                MIGRATED,
                "MigrationNotStarted",
                f"Job {self.name} has no Pod: something in this namespace refuses it (PodSecurity, a quota, a missing "
                f"ServiceAccount); the events of `kubectl describe job {self.name}` say what{self.meanwhile}",
                retry_after=LOOK_SECONDS,
            )
        if job is not None:
            self._look_at_locks(job)
        message = f"Job {self.name}, made from Job {self.template}, runs{pods_trouble(pods)}{self.meanwhile}"
        return waits(MIGRATED, "Migrating", message, retry_after=LOCK_SECONDS if self._engine.locking else LOOK_SECONDS)

    def _look_at_locks(self, job: Manifest) -> None:
        copy = self.work.copy
        locks = look_again(job, copy.locks, self.at.seen.migration.locks)
        if locks is not None:
            self.draft.apply.append(build_marks(copy, replace(Marks.of(copy), locks=locks)))

    def failure(self) -> Fact:
        """Return that the migration has failed; what it did is kept, and the way in with it."""
        problem = self._surround()
        if problem is not None or self.work.job is None:
            return problem or self.rest()
        failure, pods = job_state(self.work.job).failure, self._own_pods
        return stalls(
            MIGRATED,
            "MigrationFailed",
            f"Job {self.name}, made from Job {self.template}, failed ({failure}){pods_trouble(pods)}. Read "
            f"`kubectl logs -n {self.at.namespace} job/{self.name} --all-containers`, correct it, then delete Job "
            f"{self.template} and apply it again: it is tried anew, on what the failed one has left. The copy is kept; "
            f"Secret {self.name} has a login to look at it. To begin with a new copy, ask for a reset as well"
            f"{self.meanwhile}",
            retry_after=LOOK_SECONDS,
        )


def migrations_status(at: Situation, served: Copy | None) -> dict[str, Any] | None:
    """Return what the status says of the migrations: of the one that is on its way or has failed, else of the last."""
    wanted = at.target.copy
    if at.clone.spec.migrations is None:
        return None
    if wanted is not None:
        pending = _pending_status(at, work_of(at.seen, at.clone, wanted))
        if pending is not None:
            return pending
    done = None if wanted is None else wanted.migrated
    if done is None and served is not None:
        done = served.migrated
    return None if done is None else _done_status(done)


def _pending_status(at: Situation, work: Work) -> dict[str, Any] | None:
    job, attempt, done = work.job, work.attempt, work.copy.migrated
    if job is None or attempt is None or attempt.is_written_in(done):
        return None
    started, ended = job_span(job)
    pods = [pod for pod in at.seen.migration.pods if label(pod, _JOB_UID) == job["metadata"]["uid"]]
    return {
        "job": job["metadata"]["name"],
        "hash": attempt.content,
        "startedAt": format_time(started),
        "finishedAt": None if ended is None else format_time(ended),
        "durationSeconds": None if ended is None else int((ended - started).total_seconds()),
        "exitCode": exit_code(pods),
        "schemaBefore": attempt.schema,
        "locks": _locks_status(locks_of(job, work.copy.locks)),
    }


def _done_status(done: Migrated) -> dict[str, Any]:
    ledger = {
        "tool": done.tool,
        "versionBefore": done.version_before,
        "versionAfter": done.version_after,
        "failed": list(done.failed) or None,
    }
    return {
        "job": done.job,
        "hash": done.content,
        "startedAt": format_time(done.started_at),
        "finishedAt": format_time(done.finished_at),
        "durationSeconds": int((done.finished_at - done.started_at).total_seconds()),
        "schemaBefore": done.schema_before,
        "schemaAfter": done.schema_after,
        "changes": None if done.changes is None else list(done.changes),
        "changeCount": done.change_count,
        "ledger": None if done.tool is None else ledger,
        "locks": _locks_status(done.locks),
    }


def _locks_status(locks: Sequence[Held]) -> list[dict[str, Any]] | None:
    return [one.status for one in locks] or None
