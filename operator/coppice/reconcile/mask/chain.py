"""How a scratch copy is masked, step by step. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from coppice.api.v1alpha1 import BINDING_KEYS
from coppice.core import labels
from coppice.core.plan import EngineCall, Manifest, ServerRef
from coppice.engines.base import CloneServer, Content, Preparation, UnreachableError, Version
from coppice.manifests.job import MASK_ROLE, UserJob, build_user_job
from coppice.manifests.meta import build_annotations
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import ENGINE_CONTAINER, ServerPod, build_pod
from coppice.manifests.secret import build_binding_secret, build_engine_secret
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.jobs import (
    LOOK_SECONDS,
    is_made_from,
    lacks_pods,
    pods_trouble,
    still_running,
    template_digest,
    template_inputs,
    waits_for_pods,
)
from coppice.reconcile.mask.mark import FAILED, SUCCEEDED, Mark, MaskRecord, table_token
from coppice.reconcile.mask.seen import MaskSeen, by_name, job_name, mask_service_name, rewrite_name, server_name
from coppice.reconcile.observed import created_at, is_deleting, job_state, label, parse_time, pod_state
from coppice.reconcile.preparation import (
    PREPARED,
    ScratchCopy,
    mask_unsupported,
    prepare_pod_name,
    run_preparation,
    scratch_name,
)
from coppice.reconcile.reads import Server
from coppice.reconcile.trouble import find_trouble

MAX_SOURCES: Final = 500
"""Of how many branches it is said where they were in the store."""
SERVER_PAUSE: Final = timedelta(minutes=5)
"""How long after the server of a scratch copy has ended by itself the next one is tried, on a new copy."""


@dataclass(frozen=True, slots=True)
class Masking:
    """One snapshot on its way through the mask. ``content`` is what the first preparation has reported, if it can still
    be read.
    """

    copy: ScratchCopy
    seen: MaskSeen
    content: Content | None = None

    @property
    def is_marked(self) -> bool:
        """Return whether a mask may have changed the copy."""
        return Mark.of(self.copy.claim) is not None

    @property
    def rewrite_name(self) -> str:
        """Return the name of the Pod that prepares the masked copy."""
        return rewrite_name(self.copy.name, self.copy.claim)

    @property
    def has_begun(self) -> bool:
        """Return whether the copy is not what its first preparation has made of it any more, or soon."""
        return bool(Mark.of(self.copy.claim) or self._server or self._rewrite)

    @property
    def record(self) -> MaskRecord | None:
        """Return what is to be said of the copy once it is sealed; None for one without a mask."""
        mark = Mark.of(self.copy.claim)
        if self.copy.store.spec.mask is None:
            return None
        if mark is None or mark.outcome != SUCCEEDED:
            raise TypeError("the chain goes on without a mask")
        return MaskRecord(mark.template, mark.digest, mark.tables, mark.count, mark.sources)

    @property
    def _server(self) -> Manifest | None:
        return self.seen.in_service(self.copy.name, self.copy.claim)

    @property
    def _rewrite(self) -> Manifest | None:
        return self.seen.in_rewrite(self.copy.name, self.copy.claim)

    @property
    def _job(self) -> Manifest | None:
        return by_name(self.seen.jobs, job_name(self.copy.name, self.copy.claim))

    @property
    def _job_pods(self) -> list[Manifest]:
        uid = None if self._job is None else self._job["metadata"]["uid"]
        return [pod for pod in self._mask_pods if _controller(pod) == uid]

    @property
    def _mask_pods(self) -> list[Manifest]:
        return [pod for pod in self.seen.pods if label(pod, labels.ROLE) == MASK_ROLE]

    @property
    def _secret(self) -> Manifest | None:
        return by_name(self.seen.secrets, server_name(self.copy.name, self.copy.claim))

    @property
    def _binding(self) -> Manifest | None:
        return by_name(self.seen.secrets, job_name(self.copy.name, self.copy.claim))

    @property
    def _template(self) -> str:
        if self.copy.store.spec.mask is None:
            raise TypeError("the chain goes on without a mask")
        return self.copy.store.spec.mask.job_template

    def run(self, draft: Draft) -> Fact:
        """Plan what is next for the mask, and return whether the copy may be sealed."""
        mark = Mark.of(self.copy.claim)
        if self.copy.store.spec.mask is None:
            cleaned = holds(PREPARED, "Cleaned", "the scratch copy has been prepared")
            return self._begin_again(draft, "the store has no mask any more") if self.has_begun else cleaned
        if not self.copy.engine.maskable:
            return mask_unsupported(PREPARED, self.copy.store)
        self._drop_strangers(draft)
        if mark is not None and mark.outcome == FAILED:
            return self._failed(draft)
        problem = self._template_problem()
        if problem is not None:
            return problem
        if mark is None:
            return self._begin(draft)
        if (mark.template, mark.digest) != (self._template, self._digest):
            return self._begin_again(draft, f"Job {self._template} is another one now")
        return self._rewritten(draft, mark) if mark.outcome == SUCCEEDED else self._go_on(draft, mark)

    @property
    def _digest(self) -> str:
        if self.seen.template is None:
            raise TypeError("the chain goes on without a Job")
        return template_digest(self.seen.template)

    def _drop_strangers(self, draft: Draft) -> None:
        """Remove what was made for an earlier copy."""
        names = (server_name, job_name, rewrite_name)
        own = {prepare_pod_name(self.copy.name), *(of(self.copy.name, self.copy.claim) for of in names)}
        for entry in (*self.seen.jobs, *self.seen.engine_pods, *self.seen.secrets):
            if entry["metadata"]["name"] not in own:
                draft.drop(entry)

    def _begin_again(self, draft: Draft, why: str) -> Fact:
        for entry in (*self.seen.jobs, *self.seen.engine_pods, *self.seen.secrets, self.copy.claim):
            draft.drop(entry)
        message = f"{why}: the scratch copy is thrown away, and the mask begins anew on another"
        return waits(PREPARED, "Masking", message, retry_after=2)

    def _template_problem(self) -> Fact | None:
        found, name = self.seen.template, self._template
        if found is None or is_deleting(found):
            message = f"waits for Job {name} that masks the rows: apply it in this namespace with spec.suspend: true"
            return waits(PREPARED, "MaskNotFound", message, retry_after=LOOK_SECONDS)
        if found["spec"].get("suspend") is not True:
            message = (
                f"Job {name} is not suspended, so that it runs by itself and without the connection: delete it and "
                "apply it again with spec.suspend: true"
            )
            return stalls(PREPARED, "MaskNotSuspended", message, retry_after=LOOK_SECONDS)
        return None

    # -- before the Job can log in --

    def _begin(self, draft: Draft) -> Fact:
        if self._rewrite is not None or self._binding is not None:
            return self._begin_again(draft, "what is said of the mask was taken off the scratch claim")
        if self.content is None:
            return self._begin_again(draft, f"Pod {prepare_pod_name(self.copy.name)} was deleted with its report")
        around = self._keep_around(draft)
        if around is not None:
            return around
        server = self._server
        if server is None:
            return self._start_server(draft)
        problem = self._server_problem(draft, server) or self._answer_problem() or draft.route(server, PREPARED)
        return problem or self._make_job(draft, server)

    def _keep_around(self, draft: Draft) -> Fact | None:
        """Keep the NetworkPolicy and the Service; the policy is there before the Pod that it closes."""
        policy = build_policy(
            scratch_name(self.copy.name),
            draft.owner,
            role="scratch",
            ports=[self.copy.engine.port],
            operator_namespace=self.copy.environment.operator_namespace,
            clients={labels.OWNER_UID: draft.owner.uid, labels.ROLE: MASK_ROLE},
        )
        service = build_service(
            mask_service_name(self.copy.name),
            draft.owner,
            port=self.copy.engine.port,
            selector={labels.ROLE: "scratch"},
        )
        problem = draft.keep(policy, self.seen.policy, PREPARED) or draft.keep(service, self.seen.service, PREPARED)
        if problem is None and (self.seen.policy is None or self.seen.service is None):
            return waits(PREPARED, "Masking", "the way to the scratch copy is being made")
        return problem

    def _start_server(self, draft: Draft) -> Fact:
        content = self._reported
        state = content.state_of(content.default_branch)
        if state is None:
            message = (
                f"Pod {prepare_pod_name(self.copy.name)} does not say where branch {content.default_branch} is: delete "
                "this DataSnapshot to try again"
            )
            return stalls(PREPARED, "PreparationFailed", message)
        if self._secret is None:
            name = server_name(self.copy.name, self.copy.claim)
            draft.create.append(build_engine_secret(name, draft.owner, self.seen.fresh_credentials))
        version = Version(state.database, state.branch, state.head, state.working_root)
        draft.create.append(self._server_pod(draft, version))
        return waits(PREPARED, "Masking", "a server is being started on the scratch copy")

    def _server_pod(self, draft: Draft, version: Version) -> dict[str, Any]:
        inputs = CloneServer(version=version, commit_policy="Explicit", marker=draft.owner.uid, durable=True)
        return build_pod(
            ServerPod(
                name=server_name(self.copy.name, self.copy.claim),
                owner=draft.owner,
                role="scratch",
                image=self.copy.image,
                user_id=self.copy.user_id,
                workload=self.copy.engine.clone_server(inputs),
                claim=str(self.copy.claim["metadata"]["name"]),
                secret=server_name(self.copy.name, self.copy.claim),
                resources=self.copy.environment.server,
                node_selector=self.copy.store.spec.clones.node_selector,
            )
        )

    def _server_problem(self, draft: Draft, server: Manifest) -> Fact | None:
        """Return that the server does not run, or None: one that has ended may have left anything."""
        name, state = server["metadata"]["name"], pod_state(server)
        if is_deleting(server) or state.disrupted:
            return self._begin_again(draft, f"Pod {name} was taken away")
        if state.failed or state.succeeded:
            return self._server_failed(draft, server)
        if self._secret is None:
            return self._begin_again(draft, f"Secret {name} was deleted")
        trouble = find_trouble(server)
        if trouble is not None and trouble.is_hopeless(draft.now):
            return stalls(PREPARED, "MaskServerFailed", trouble.words(name), retry_after=60)
        if trouble is not None or state.ip is None or not state.running:
            words = f"waits for Pod {name}" if trouble is None else trouble.words(name)
            return waits(PREPARED, "Masking", words, retry_after=LOOK_SECONDS)
        return None

    def _server_failed(self, draft: Draft, server: Manifest) -> Fact:
        name, rest = server["metadata"]["name"], _ended_at(server) + SERVER_PAUSE - draft.now
        if rest <= timedelta(0):
            return self._begin_again(draft, f"Pod {name} has ended by itself")
        message = (
            f"Pod {name}, the server of the scratch copy, has ended by itself: see kubectl logs -n "
            f"{draft.owner.namespace} {name} -c {ENGINE_CONTAINER}; it may need more memory. The mask is tried anew, "
            f"on another copy, {SERVER_PAUSE.seconds // 60} minutes later"
        )
        return stalls(PREPARED, "MaskServerFailed", message, retry_after=rest.total_seconds())

    def _answer_problem(self) -> Fact | None:
        answer = self.seen.answer
        if answer is None or isinstance(answer.error, UnreachableError):
            return waits(PREPARED, "Masking", "the scratch copy's server does not answer yet", retry_after=1)
        if answer.error is not None:
            message = f"the scratch copy's server answered with an error: {answer.error}"
            return waits(PREPARED, "EngineError", message, retry_after=LOOK_SECONDS)
        return None

    def _make_job(self, draft: Draft, server: Manifest) -> Fact:
        """Make the Job, whose containers wait for their Secret; once it is there, let it begin."""
        job, template, name = self._job, self.seen.template, job_name(self.copy.name, self.copy.claim)
        if template is None:
            raise TypeError("the chain goes on without a Job")
        if job is not None and (is_deleting(job) or not is_made_from(job, template)):
            draft.drop(job)
            return waits(PREPARED, "Masking", f"Job {name} is made anew", retry_after=2)
        if job is not None:
            return self._let_in(draft, server, job)
        leftover = waits_for_pods(PREPARED, self._mask_pods, draft.owner.namespace)
        if leftover is not None:
            return leftover
        desired = UserJob(
            name=name,
            owner=draft.owner,
            role=MASK_ROLE,
            template=template,
            secret=name,
            keys=BINDING_KEYS,
            inputs=template_inputs(template),
        )
        draft.create.append(build_user_job(desired))
        return waits(PREPARED, "Masking", f"Job {name} is being started, made from Job {self._template}")

    def _let_in(self, draft: Draft, server: Manifest, job: Manifest) -> Fact:
        if self.seen.tables is None:
            return waits(PREPARED, "Masking", "the scratch copy's server is asked for its tables", retry_after=1)
        mark = Mark(
            server=str(server["metadata"]["uid"]),
            job=str(job["metadata"]["uid"]),
            template=self._template,
            digest=self._digest,
            database=self._reported.database,
            sources=self._reported.branches[:MAX_SOURCES],
            before=frozenset(table_token(name, token) for name, token in self.seen.tables.items()),
        )
        # Before the Secret: no copy is changed that is not known to be.
        draft.apply.append(self._marked(mark))
        problem = self._log_in(draft, server, mark)
        return problem or waits(PREPARED, "Masking", f"Job {job['metadata']['name']} is let in")

    @property
    def _reported(self) -> Content:
        if self.content is None:
            raise TypeError("the chain goes on without a report")
        return self.content

    def _marked(self, mark: Mark) -> dict[str, Any]:
        return build_annotations(self.copy.claim, {labels.MASKING: mark.dump()})

    def _log_in(self, draft: Draft, server: Manifest, mark: Mark) -> Fact | None:
        """Make the Job's login, then write it down in the Secret that the Job waits for."""
        namespace, secret = draft.owner.namespace, self._secret
        if secret is None:
            raise TypeError("the chain goes on without a Secret")
        host = f"{mask_service_name(self.copy.name)}.{namespace}.svc"
        password = Server(server, secret).credentials["app-password"]
        values = self.copy.engine.binding(host=host, database=mark.database, password=password)
        desired = build_binding_secret(job_name(self.copy.name, self.copy.claim), draft.owner, values, {})
        if self._binding is None:
            target = ServerRef(str(pod_state(server).ip), self.copy.engine.port, namespace, secret["metadata"]["name"])
            arguments = {"username": self.copy.engine.app_user, "database": mark.database}
            draft.calls.append(
                EngineCall(
                    self.copy.store.spec.engine, target, "ensure-mask-user", arguments, {"password": "app-password"}
                )
            )
        return draft.keep(desired, self._binding, PREPARED)

    # -- from then on --

    def _go_on(self, draft: Draft, mark: Mark) -> Fact:
        job, server = self._job, self._server
        if job is None or is_deleting(job) or job["metadata"]["uid"] != mark.job:
            return self._begin_again(draft, f"Job {job_name(self.copy.name, self.copy.claim)} was deleted")
        if server is None or server["metadata"]["uid"] != mark.server:
            return self._begin_again(draft, f"Pod {server_name(self.copy.name, self.copy.claim)} was deleted")
        # Before the Job: one whose server went fails for that, and not for its program.
        problem = self._server_problem(draft, server)
        if problem is not None:
            return problem
        if job_state(job).failure is not None:
            return self._fail(draft, mark)
        if job_state(job).succeeded:
            return self._succeed(draft, mark)
        return self._keep_around(draft) or self._log_in(draft, server, mark) or self._progress(draft, job)

    def _progress(self, draft: Draft, job: Manifest) -> Fact:
        name, pods = job["metadata"]["name"], self._job_pods
        if lacks_pods(job, pods, draft.now):
            message = (
                f"Job {name} has no Pod: something in this namespace refuses it (PodSecurity, a quota, a missing "
                f"ServiceAccount); the events of `kubectl describe job {name}` say what"
            )
            return stalls(PREPARED, "MaskNotStarted", message, retry_after=LOOK_SECONDS)
        message = f"Job {name} masks the rows of the scratch copy{pods_trouble(pods)}"
        return waits(PREPARED, "Masking", message, retry_after=LOOK_SECONDS)

    def _succeed(self, draft: Draft, mark: Mark) -> Fact:
        running = still_running(self._mask_pods)
        if running is not None:
            message = f"the Job has succeeded; waits for the end of its Pod {running}"
            return waits(PREPARED, "Masking", message, retry_after=LOOK_SECONDS)
        problem = self._answer_problem()
        if problem is not None or self.seen.tables is None:
            return problem or waits(PREPARED, "Masking", "the scratch copy's server is asked for its tables")
        draft.apply.append(self._marked(mark.ended_with(self.seen.tables)))
        self._stop(draft)
        return waits(PREPARED, "Masking", "the rows are masked; the scratch copy's server is being stopped")

    def _stop(self, draft: Draft) -> None:
        """Remove the server, and when it is gone what was around it."""
        around = (self.seen.service, self.seen.policy, self._binding, self._secret)
        for entry in around if self._server is None else (self._server,):
            draft.drop(entry)

    def _fail(self, draft: Draft, mark: Mark) -> Fact:
        draft.apply.append(self._marked(replace(mark, before=frozenset(), outcome=FAILED)))
        return self._failed(draft)

    def _failed(self, draft: Draft) -> Fact:
        """Return that the Job has failed. It stays, for its log; a Job that is put right is tried on another copy."""
        job, template, name = self._job, self.seen.template, job_name(self.copy.name, self.copy.claim)
        if job is None or is_deleting(job):
            return self._begin_again(draft, f"Job {name}, which had failed, was deleted")
        if template is not None and not is_deleting(template) and not is_made_from(job, template):
            return self._begin_again(draft, f"Job {self._template} is another one now")
        self._stop(draft)
        failure, logs = job_state(job).failure, f"kubectl logs -n {draft.owner.namespace} job/{name} --all-containers"
        message = (
            f"Job {name}, made from Job {self._template}, failed ({failure}){pods_trouble(self._job_pods)}: no "
            f"snapshot is made. Read `{logs}`, put it right, then delete Job {self._template} and apply it again, or "
            f"delete Job {name} to have the same tried anew: either begins on a new copy"
        )
        return stalls(PREPARED, "MaskFailed", message, retry_after=LOOK_SECONDS)

    def _rewritten(self, draft: Draft, mark: Mark) -> Fact:
        """Have the copy prepared for the second time, once its server is gone."""
        self._stop(draft)
        if self._server is not None:
            name = self._server["metadata"]["name"]
            return waits(PREPARED, "Masking", f"waits for the end of Pod {name}, the scratch copy's server")
        inputs = Preparation(marker=draft.owner.uid, database=mark.database, rewrite=True)
        desired = self.copy.preparation(self.rewrite_name, draft.owner, inputs)
        return run_preparation(draft, desired, self._rewrite)


def _controller(pod: Manifest) -> str | None:
    return next((str(entry["uid"]) for entry in pod["metadata"].get("ownerReferences") or ()), None)


def _ended_at(pod: Manifest) -> datetime:
    """Return when the server of a Pod that runs once has ended."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = [parse_time(((entry.get("state") or {}).get("terminated") or {}).get("finishedAt")) for entry in containers]
    return max((moment for moment in ended if moment is not None), default=created_at(pod))
