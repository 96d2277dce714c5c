"""The chain of facts for a store that mirrors a database outside. Pure.

Its server is nobody's to write to: there is no login but the operator's, no Service and no binding. What there is of
the store is the newest complete copy; how the next one comes along stands beside the chain once there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from coppice.api.v1alpha1 import ComputeResources, Mirror
from coppice.api.v1alpha1.datastore import Storage
from coppice.core import labels
from coppice.engines.base import MirrorInputs, StoreServer
from coppice.manifests.network import build_policy
from coppice.manifests.secret import SourceLogin
from coppice.reconcile.classes import NoStorage
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.managedstore import ServedPlan
from coppice.reconcile.mirror.copies import MirrorCopy, inherited_copy, is_of_engine, source_digest
from coppice.reconcile.mirror.refresh import LOOK_SECONDS, MIRRORED, Refresh, build_mark, rough_age
from coppice.reconcile.mirror.seen import MirrorSeen
from coppice.reconcile.observed import claim_state, created_at, format_time, label, pod_state
from coppice.reconcile.requests import not_a_time, read_request, unreadable
from coppice.reconcile.schedule import unscheduled
from coppice.reconcile.storenames import default_database
from coppice.reconcile.stores import ENGINE, HEALTH_PERIOD, SERVER, STORAGE
from coppice.reconcile.told import DONE, Progress

FRESH: Final = "MirrorFresh"
SCHEDULED: Final = "RefreshScheduled"
"""Conditions beside the chain: the store serves what it has either way."""
_UNDER_WAY: Final = "Refreshing"


@dataclass(frozen=True, slots=True)
class MirrorPlan(ServedPlan):
    """The chain for a mirror."""

    def steps(self) -> Sequence[Callable[[Draft], Fact]]:
        """Return the chain."""
        return (
            self._engine_can_mirror,
            self.class_can_snapshot,
            self._copies_are_ours,
            self._copy_is_there,
            self._server_runs,
            self.server_answers,
            self._older_copies_go,
        )

    @property
    def types(self) -> Sequence[str]:
        """Return the conditions of the chain."""
        return (ENGINE, STORAGE, MIRRORED, SERVER)

    @property
    def look_again(self) -> float:
        """Return the seconds until the next look at a store of which nothing is heard."""
        return HEALTH_PERIOD if self._seen.current is None else LOOK_SECONDS

    @property
    def _mirror(self) -> Mirror:
        if self.store.spec.mirror is None:
            raise TypeError("the store is no mirror")
        return self.store.spec.mirror

    @property
    def _seen(self) -> MirrorSeen:
        if self.observation.mirror is None:
            raise TypeError("the store is no mirror")
        return self.observation.mirror

    @property
    def asked_version(self) -> str:
        """Return the version that is asked for."""
        return self._mirror.version

    @property
    def asked_storage(self) -> Storage:
        """Return what is asked for of the volume."""
        return self._mirror.storage

    @property
    def asked_resources(self) -> ComputeResources | None:
        """Return what is asked for of a node."""
        return self._mirror.resources

    def _engine_can_mirror(self, draft: Draft) -> Fact:
        engine = self.observation.engine
        if engine is not None and engine.mirror(MirrorInputs("", 1, expects_rows=False)) is None:
            return stalls(
                ENGINE,
                "MirrorUnsupported",
                f"engine {self.store.spec.engine} cannot mirror: a dump of its rows would not hold their history. Make "
                "another DataStore with managed or adopted",
            )
        return self.engine_is_supported(draft)

    def _copies_are_ours(self, draft: Draft) -> Fact:
        """Take over the copy of an earlier store of this name and source; one of another source is never served."""
        foreign = [copy for copy in self._seen.copies if not is_of_engine(copy, self.store.spec.engine)]
        if foreign:
            claim = foreign[0].claim["metadata"]["name"]
            return stalls(
                STORAGE,
                "ForeignData",
                f"PersistentVolumeClaim {claim} holds data of another engine: create this store under another name",
                retry_after=60,
            )
        problem = self.keep_secret(draft)
        if problem is not None:
            return problem
        for copy in self._seen.copies:
            if copy.held is None and not self._is_labelled(copy):
                draft.apply.append(build_mark(copy, draft.owner, None))
        inherited = self._inherited
        if inherited is None:
            return draft.facts[-1]
        # Nothing else knows whose it is but the mark: until that has been read again nobody serves it.
        ours = replace(inherited, wish=replace(inherited.wish, store=draft.owner.uid))
        draft.apply.append(build_mark(ours, draft.owner, ours.held))
        return waits(MIRRORED, "Refreshing", "the copy of an earlier store of this name and source is taken over")

    @property
    def _inherited(self) -> MirrorCopy | None:
        login = self._seen.login(self.engine.port)
        if self._seen.served is not None or not isinstance(login, SourceLogin):
            return None
        return inherited_copy(self._seen.copies, source_digest(login), self.observation.server.secret)

    def _is_labelled(self, copy: MirrorCopy) -> bool:
        return label(copy.claim, labels.OWNER_UID) == self.store.metadata.uid

    def _refresh(self) -> Refresh:
        choice, image = self.storage(), self.environment.image(self.store.spec.engine, self.asked_version)
        if isinstance(choice, NoStorage) or image is None:
            raise TypeError("the chain goes on without a storage class or an image")
        return Refresh(
            store=self.store,
            wanted=self._mirror,
            engine=self.engine,
            seen=self._seen,
            storage=choice,
            image=image,
            resources=self.resources,
            request=read_request(self.observation.manifest, labels.REFRESH_REQUESTED_AT),
            admin=self.observation.server.secret,
        )

    def _copy_is_there(self, draft: Draft) -> Fact:
        """Keep the refreshes going; whatever becomes of them, a complete copy is served."""
        fact, served = self._refresh().run(draft), self._seen.served
        draft.asides.extend(entry for entry in (self._refreshes_come(), self._request_is_read()) if entry is not None)
        if served is None or served.held is None:
            draft.drop(self.observation.server.pod)
            return fact
        moment = format_time(served.held.refreshed_at)
        draft.asides.append(self._freshness(fact, served))
        return holds(MIRRORED, "Mirrored", f"a complete copy of the source as of {moment} is there")

    def _freshness(self, fact: Fact, served: MirrorCopy) -> Fact:
        """Return what a refresh means for the copy that is served."""
        if fact.holds or served.held is None:
            return replace(fact, type=FRESH)
        current = self._seen.current
        first = current is None or current.wish.attempt == 1
        moment = served.held.refreshed_at
        kept = (
            f"{fact.message}. The copy of {format_time(moment)}, {rough_age(self.observation.now - moment)} old, is "
            "kept and served"
        )
        return replace(fact, type=FRESH, holds=first and fact.reason == _UNDER_WAY, message=kept)

    def _refreshes_come(self) -> Fact | None:
        return unscheduled(
            SCHEDULED,
            self._mirror.schedule,
            self.observation.now,
            field="spec.mirror.schedule",
            effect="nothing is refreshed by it",
        )

    def _request_is_read(self) -> Fact | None:
        odd = unreadable(self.observation.manifest, [labels.REFRESH_REQUESTED_AT])
        return not_a_time(odd[0]) if odd else None

    def _server_runs(self, draft: Draft) -> Fact:
        served = self._served
        version = served.wish.version
        image = self.environment.image(self.store.spec.engine, version)
        if image is None:
            return self.unsupported_version(version)
        # From nobody but the operator: those of the store's own Pods that there are listen to nobody either.
        policy = build_policy(
            self.name,
            draft.owner,
            role="store",
            ports=[self.engine.port],
            operator_namespace=self.environment.operator_namespace,
            clients={labels.OWNER_UID: draft.owner.uid},
        )
        problem = draft.keep(policy, self.observation.policy, SERVER)
        if problem is not None:
            return problem
        inputs = StoreServer(
            database=None,
            fallback_database=default_database(self.name),
            commit_policy="Explicit",
            has_load=False,
            marker=served.uid,
        )
        desired = self.build_server(
            draft.owner,
            image=image,
            inputs=inputs,
            claim=str(served.claim["metadata"]["name"]),
            digested=(served.uid,),
            load=None,
        )
        return draft.run_server(desired, self.observation.server.pod, SERVER, replace_outdated=True)

    @property
    def _served(self) -> MirrorCopy:
        if self._seen.served is None:
            raise TypeError("the chain goes on without a copy")
        return self._seen.served

    @property
    def answering(self) -> Fact:
        """Return that the server answers, and where."""
        return holds(SERVER, "Answering", "the server of the copy answers, and nobody but the operator is let in")

    def _older_copies_go(self, draft: Draft) -> Fact:
        """Remove what the copy that is served has replaced: not before its server has answered from it. Until then
        one that an earlier store retained is not even this store's to delete.
        """
        for copy in self._seen.copies:
            if copy.number < self._served.number and not self._is_labelled(copy):
                draft.apply.append(build_mark(copy, draft.owner, copy.held))
            elif copy.number < self._served.number:
                draft.drop(copy.claim)
        return self.answering

    def status(self) -> dict[str, Any]:
        """Return what was last seen of the copy that is served, and how the next one comes along."""
        served = self._seen.served
        return {
            "capacity": None if served is None else claim_state(served.claim).capacity,
            "mirror": self._mirror_status(served),
            **self.content_status(kept=served is not None),
        }

    def _mirror_status(self, served: MirrorCopy | None) -> dict[str, Any]:
        held = None if served is None else served.held
        status: dict[str, Any] = {"refresh": self._progress(), "nextRefreshAt": self._next_refresh()}
        if served is None or held is None:
            return status
        return {
            **status,
            "refreshedAt": format_time(held.refreshed_at),
            "sourceVersion": held.source_version,
            "tables": held.tables,
            "findings": [{"reason": found.reason, "message": found.message} for found in held.findings],
            "refreshRequestedAt": served.wish.requested or None,
        }

    def _next_refresh(self) -> str | None:
        known = self.observation.engine is not None and not isinstance(self.storage(), NoStorage)
        if not known or self.environment.image(self.store.spec.engine, self.asked_version) is None:
            return None
        due = self._refresh().due_at(self.observation.now)
        return None if due is None or due <= self.observation.now else format_time(due)

    def _progress(self) -> dict[str, Any] | None:
        current, seen = self._seen.current, self._seen
        if current is None:
            return None
        running = next((program for program in (seen.restore, seen.dump) if program.runs_on(current)), None)
        told = None if running is None else running.told
        if running is not None and running.pod is not None and pod_state(running.pod).failed:
            return None
        phase = told if isinstance(told, Progress) and told.phase != DONE else Progress("Waiting")
        since = format_time(created_at(current.claim))
        return {"phase": phase.phase, "since": since, "done": phase.done, "total": phase.total}
