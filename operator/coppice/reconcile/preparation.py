"""The Pods that prepare a snapshot's scratch copy: the first one makes a raw copy fit to be handed out, the second one
does it with a copy that a mask has run on. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coppice.api.v1alpha1 import DataStore
from coppice.core import labels
from coppice.core.names import child
from coppice.core.plan import Manifest
from coppice.engines.base import Engine, Preparation
from coppice.manifests.meta import Owner
from coppice.manifests.pod import ServerPod, build_pod
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import annotation, pod_state
from coppice.reconcile.trouble import find_trouble, reason_of_failure

PREPARED: Final = "Prepared"


def scratch_name(snapshot: str) -> str:
    """Return the name of the claim that is prepared."""
    return child(snapshot, "scratch")


def prepare_pod_name(snapshot: str) -> str:
    """Return the name of the Pod that prepares, and of the NetworkPolicy of all that do."""
    return child(snapshot, "prepare")


@dataclass(frozen=True, slots=True)
class ScratchCopy:
    """A snapshot's scratch copy, and what is needed to run something on it.

    ``name`` is the snapshot's; the files belong to ``user_id``.
    """

    environment: Environment
    name: str
    store: DataStore
    engine: Engine
    image: str
    claim: Manifest
    user_id: int

    def preparation(self, name: str, owner: Owner, inputs: Preparation) -> dict[str, Any]:
        """Return the Pod that prepares exactly this copy; a claim of its name that is made since is another one."""
        return build_pod(
            ServerPod(
                name=name,
                owner=owner,
                role="prepare",
                image=self.image,
                user_id=self.user_id,
                workload=self.engine.preparation(inputs),
                claim=str(self.claim["metadata"]["name"]),
                secret=None,
                resources=self.environment.server,
                node_selector=self.store.spec.clones.node_selector,
                annotations={labels.INPUTS: str(self.claim["metadata"]["uid"])},
            )
        )


def run_preparation(draft: Draft, desired: Manifest, observed: Manifest | None) -> Fact:
    """Plan a preparation's Pod, and return whether it has ended well."""
    problem = draft.make_once(desired, observed, PREPARED)
    if problem is not None:
        return problem
    name = desired["metadata"]["name"]
    if observed is None:
        return waits(PREPARED, "Preparing", "the scratch copy is being prepared")
    if annotation(observed, labels.INPUTS) != desired["metadata"]["annotations"][labels.INPUTS]:
        draft.drop(observed)
        return waits(PREPARED, "Preparing", f"Pod {name} has prepared another copy and is made anew", retry_after=2)
    state = pod_state(observed)
    if state.failed and state.disrupted:
        draft.drop(observed)
        return waits(PREPARED, "Preparing", f"Pod {name} was disrupted and will be made anew", retry_after=2)
    if state.failed:
        why = reason_of_failure(observed)
        return stalls(
            PREPARED,
            "PreparationFailed",
            f"Pod {name} failed{f': {why}' if why else ''}. Put that right (see also kubectl logs {name}), then delete "
            "this DataSnapshot to try again",
            retry_after=None,
        )
    if state.succeeded:
        return holds(PREPARED, "Cleaned", "the scratch copy has been prepared")
    trouble = find_trouble(observed)
    if trouble is None:
        return waits(PREPARED, "Preparing", f"Pod {name} prepares the scratch copy", retry_after=30)
    if trouble.is_hopeless(draft.now):
        return stalls(PREPARED, "PreparationStuck", trouble.words(name), retry_after=60)
    return waits(PREPARED, "Preparing", trouble.words(name), retry_after=30)


def mask_unsupported(kind: str, store: DataStore) -> Fact:
    """Return that the store's engine cannot be masked."""
    message = (
        f"copies of engine {store.spec.engine} cannot be masked: its history would still hold the rows as they were. "
        "Remove spec.mask of the DataStore, and give others no data of it but by a grant with data: Raw"
    )
    return stalls(kind, "MaskUnsupported", message)
