"""The chain of facts for a store whose server somebody else runs. Pure.

It writes nothing of theirs: whatever it finds, all that it plans is the store's own status, and DataSnapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coppice.core import labels
from coppice.engines.base import LoginRefusedError, UnguardedError, UnreachableError
from coppice.manifests.secret import is_meant_for
from coppice.reconcile.adopted import Adoption, claims_of, is_up, selector_of
from coppice.reconcile.classes import NoStorage, StorageChoice, storage_of
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.observed import claim_state, is_deleting, label
from coppice.reconcile.stores import ENGINE, SERVER, STORAGE, StorePlan

LOOK_SECONDS: Final = 10.0
"""Between two looks at what somebody else has to make or change: it is not watched."""
KEPT: Final = "snapshots and clones that there are stay as they are"


@dataclass(frozen=True, slots=True)
class AdoptedPlan(StorePlan):
    """The chain for an adopted store."""

    def steps(self) -> Sequence[Callable[[Draft], Fact]]:
        """Return the chain."""
        return (
            self._engine_is_known,
            self._claim_is_there,
            self._class_can_snapshot,
            self._secret_is_usable,
            self._service_selects,
            self._server_is_found,
            self._server_answers,
            self._version_is_offered,
        )

    @property
    def _source(self) -> Adoption:
        if self.observation.adoption is None:
            raise TypeError("the store is not adopted")
        return self.observation.adoption

    @property
    def _claim_words(self) -> str:
        return f"PersistentVolumeClaim {self._source.wanted.claim_name}"

    def _engine_is_known(self, draft: Draft) -> Fact:
        del draft
        if self.observation.engine is None:
            return self.unknown_engine()
        return holds(ENGINE, "Supported", f"{self.store.spec.engine}; the server says which version")

    def _claim_is_there(self, draft: Draft) -> Fact:
        del draft
        claim, words = self._source.claim, self._claim_words
        if claim is None:
            message = f"there is no {words} in this namespace: correct spec.adopted.claimName, or bring it back; {KEPT}"
            return stalls(STORAGE, "ClaimNotFound", message, retry_after=LOOK_SECONDS)
        owner = label(claim, labels.OWNER_KIND)
        if owner is not None:
            return stalls(
                STORAGE,
                "NotASource",
                f"{words} is Coppice's own, of {owner} {label(claim, labels.OWNER_NAME)}: only a database that Coppice "
                "does not run can be adopted; name that one's claim",
            )
        if is_deleting(claim):
            message = f"{words} is being deleted, and cannot be captured any more; {KEPT}"
            return stalls(STORAGE, "ClaimDeleting", message, retry_after=LOOK_SECONDS)
        state = claim_state(claim)
        if state.lost:
            message = f"the volume of {words} is gone: bring the database back from its backup; {KEPT}"
            return stalls(STORAGE, "ClaimLost", message)
        if not state.bound:
            return waits(STORAGE, "ClaimPending", f"waits for the volume of {words}", retry_after=LOOK_SECONDS)
        return holds(STORAGE, "Bound", f"{words} with {state.capacity}")

    def storage(self) -> StorageChoice | NoStorage:
        """Return the class of the claim, and that of its snapshots."""
        return storage_of(self.observation.classes, self._source.claim, self._source.wanted.snapshot_class_name)

    def _class_can_snapshot(self, draft: Draft) -> Fact:
        del draft
        choice = self.storage()
        if isinstance(choice, NoStorage):
            return stalls(STORAGE, choice.reason, choice.message, retry_after=60)
        message = f"{self._claim_words} of {choice.storage_class} with snapshots by {choice.snapshot_class}"
        return holds(STORAGE, "CanSnapshot", message)

    def _secret_is_usable(self, draft: Draft) -> Fact:
        del draft
        store, name, secret = self._source.store, self._source.wanted.credentials_secret, self._source.secret
        where = self._source.namespace
        if secret is None:
            message = (
                f"there is no Secret {name} in this namespace: create it with username and password of a login that "
                f"may look into the database, and the annotation {labels.STORE}={store}"
            )
            return waits(SERVER, "CredentialsNotFound", message, retry_after=LOOK_SECONDS)
        if not is_meant_for(secret, store):
            return stalls(
                SERVER,
                "CredentialsNotMeant",
                f"Secret {name} does not say that it may be used for this DataStore, and is not sent anywhere. If it "
                f"may: kubectl annotate secret {name} -n {where} {labels.STORE}={store}",
                retry_after=LOOK_SECONDS,
            )
        if self._source.login is None:
            return stalls(
                SERVER,
                "CredentialsIncomplete",
                f"Secret {name} does not hold a username and a password, both as text: put them into it",
                retry_after=LOOK_SECONDS,
            )
        return holds(SERVER, "CredentialsFound", f"Secret {name} may be used")

    def _service_selects(self, draft: Draft) -> Fact:
        del draft
        name, service = self._source.wanted.service, self._source.service
        if service is None:
            message = f"there is no Service {name} in this namespace: create it, or correct spec.adopted.service"
            return waits(SERVER, "ServiceNotFound", message, retry_after=LOOK_SECONDS)
        if not selector_of(service):
            return stalls(
                SERVER,
                "NotAService",
                f"Service {name} selects no Pods (it is an ExternalName, or its endpoints are set by hand), so that it "
                "may lead anywhere, and no login is sent there: name a Service whose spec.selector is the server's Pod",
                retry_after=LOOK_SECONDS,
            )
        return holds(SERVER, "ServiceFound", f"Service {name} selects Pods")

    def _server_is_found(self, draft: Draft) -> Fact:
        del draft
        source, wanted = self._source, self._source.wanted
        pod = source.pod
        if pod is not None:
            return holds(SERVER, "Running", f"Pod {pod['metadata']['name']} is Ready and uses {self._claim_words}")
        ready = tuple(entry for entry in source.selected if is_up(entry))
        if not ready:
            there = ", ".join(sorted(str(entry["metadata"]["name"]) for entry in source.selected)) or "none"
            message = f"no Pod that Service {wanted.service} selects is Ready (there are: {there}); {KEPT}"
            return waits(SERVER, "SourceDown", message, retry_after=LOOK_SECONDS)
        used = ", ".join(claims_of(ready)) or "none"
        return stalls(
            SERVER,
            "ClaimNotServed",
            f"Service {wanted.service} leads to no Pod that uses {self._claim_words}; those that it leads to use: "
            f"{used}. Name the claim of the server in spec.adopted.claimName (it is another one after a failover)",
            retry_after=LOOK_SECONDS,
        )

    def _server_answers(self, draft: Draft) -> Fact:
        del draft
        answer, secret, at = self.observation.answer, self._source.wanted.credentials_secret, self._server_words
        error = None if answer is None else answer.error
        if answer is None or isinstance(error, UnreachableError):
            message = (
                f"{at} does not answer: it may be starting, listen on another port than the Service says, or be closed "
                "to the operator by a NetworkPolicy"
            )
            return waits(SERVER, "NotAnswering", message, retry_after=LOOK_SECONDS)
        if isinstance(error, LoginRefusedError):
            message = f"{at} refuses the login in Secret {secret}: correct the Secret, or make that login in the server"
            return stalls(SERVER, "CredentialsRefused", message, retry_after=30)
        if isinstance(error, UnguardedError):
            return stalls(SERVER, "LoginNotGuarded", f"the password was not sent to {at}: {error}", retry_after=30)
        if error is not None or answer.content is None:
            return waits(SERVER, "EngineError", f"{at} answered with an error: {error}", retry_after=LOOK_SECONDS)
        return holds(SERVER, "Answering", f"{at} answers")

    @property
    def _server_words(self) -> str:
        pod = self._source.pod
        return "the server" if pod is None else f"the server in Pod {pod['metadata']['name']}"

    def _version_is_offered(self, draft: Draft) -> Fact:
        del draft
        content = self.content
        if content is None:
            raise TypeError("the chain goes on without an answer")
        offered = self._offered
        if offered is None:
            return self.unsupported_version(content.engine_version)
        engine = self.store.spec.engine
        return holds(ENGINE, "Supported", f"{engine} {content.engine_version}; copies run with {offered}")

    @property
    def _offered(self) -> str | None:
        content = self.content
        return None if content is None else self.environment.offered(self.store.spec.engine, content.engine_version)

    def status(self) -> dict[str, Any]:
        """Return what was last seen of the database."""
        engine, claim = self.observation.engine, self._source.claim
        host = f"{self._source.wanted.service}.{self._source.namespace}.svc"
        return {
            "endpoint": None if engine is None else {"host": host, "port": self._source.service_port(engine)},
            "capacity": claim_state(claim).capacity if claim is not None else None,
            "source": self._seen(),
            **self.content_status(kept=True),
        }

    def _seen(self) -> dict[str, Any] | None:
        before: dict[str, Any] | None = (self.observation.manifest.get("status") or {}).get("source")
        pod, engine = self._source.pod, self.observation.engine
        if pod is None or engine is None:
            return before
        offered = self._offered if self.content is not None else (before or {}).get("offeredVersion")
        return {
            "pod": pod["metadata"]["name"],
            "port": self._source.server_port(engine),
            "userID": self._source.user_id(engine),
            "offeredVersion": offered,
        }
