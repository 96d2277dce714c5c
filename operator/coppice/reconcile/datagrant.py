"""DataGrant: consent is read where it is needed; here it is only looked at, so that its owner sees whether it takes
effect and who uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from coppice.api.v1alpha1 import DataGrant, InvalidResource
from coppice.core.key import Key
from coppice.core.plan import Manifest, Plan
from coppice.engines.base import EngineError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.reconcile.census import PERIOD, Census
from coppice.reconcile.draft import Draft, holds, stalls
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.observed import is_deleting

STORE = "StoreFound"
TYPES = (STORE,)


@dataclass(frozen=True, slots=True)
class GrantObservation:
    """A DataGrant, the store it speaks of, and how many clones live by it."""

    manifest: Manifest
    now: datetime
    grant: DataGrant | InvalidResource
    store: Manifest | None
    clones: int


@dataclass(frozen=True, slots=True)
class DataGrantReconciler:
    """Keeps the status of DataGrants."""

    environment: Environment
    kind: str = "DataGrant"
    census: Census = field(default_factory=Census, compare=False)

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> GrantObservation | None:
        """Read the grant and its store, and who uses it."""
        manifest = await reader.get("DataGrant", key.name, key.namespace)
        if manifest is None:
            return None
        store = await reader.get("DataStore", manifest["spec"]["store"], key.namespace)
        clones = await self.census.clones_by(reader, self.environment.forges, (str(key.namespace), key.name), now)
        return GrantObservation(manifest, now, DataGrant.parse(manifest), store, clones)

    def plan(self, observation: GrantObservation) -> Plan:
        """Return the status of the grant."""
        if is_deleting(observation.manifest):
            return Plan()
        draft = Draft(observation.manifest, observation.now)
        grant = observation.grant
        if isinstance(grant, InvalidResource):
            draft.facts.append(stalls(STORE, "InvalidSpec", grant.message))
        elif observation.store is None:
            draft.facts.append(
                stalls(
                    STORE,
                    "StoreNotFound",
                    f"there is no DataStore {grant.spec.store} in this namespace: create it, or make this DataGrant "
                    "anew with the right name",
                    retry_after=None,
                )
            )
        else:
            draft.facts.append(holds(STORE, "InForce", f"in force for DataStore {grant.spec.store}"))
        return draft.finish(TYPES, {"clones": observation.clones}, requeue_after=PERIOD.total_seconds())

    def failed(self, observation: GrantObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)
