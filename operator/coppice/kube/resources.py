"""Every Kubernetes kind Coppice touches, with what it may do to it: the one source of requests, watches and RBAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coppice.core import labels
from coppice.core.plan import Manifest


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind with its place in the API and the verbs that the operator needs.

    ``watched``: events of it wake the objects that read it; ``labelled`` watches only what carries the UID of an owner,
    by which it is known as ours; ``large`` objects are the users' own, of any number and size, and not kept in memory.
    ``outlasts``: a deleted one is there until all that it owns is gone (foreground deletion).
    ``names``: the only objects that it is about; all of the kind where there are none.
    """

    group: str
    version: str
    plural: str
    verbs: tuple[str, ...]
    namespaced: bool = True
    watched: bool = True
    labelled: bool = True
    large: bool = False
    outlasts: bool = False
    names: tuple[str, ...] = ()

    def selects(self, manifest: Manifest) -> bool:
        """Return whether an object is among those that are watched."""
        return not self.labelled or labels.OWNER_UID in (manifest["metadata"].get("labels") or {})

    @property
    def selector(self) -> str:
        """Return the same as the API's label selector, empty for all objects."""
        return labels.OWNER_UID if self.labelled else ""

    @property
    def cached(self) -> bool:
        """Return whether what the watch tells is kept."""
        return self.watched and not self.large

    @property
    def api_version(self) -> str:
        """Return ``group/version``, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


_READ = ("get", "list", "watch")
_OWN = (*_READ, "patch")
_MADE = (*_READ, "create", "patch", "delete")


IDENTITY_POLICIES: Final = ("datachangerequests.coppice.dev", "datareviews.coppice.dev")
"""The admission policies, and their bindings, without which no review counts: whatever the name of the release."""


def _identity(plural: str) -> Resource:
    return Resource(
        "admissionregistration.k8s.io", "v1", plural, ("get",), namespaced=False, watched=False, names=IDENTITY_POLICIES
    )


RESOURCES: dict[str, Resource] = {
    "DataStore": Resource("coppice.dev", "v1alpha1", "datastores", _OWN, labelled=False),
    "DataGrant": Resource("coppice.dev", "v1alpha1", "datagrants", _OWN, labelled=False),
    "DataSnapshot": Resource("coppice.dev", "v1alpha1", "datasnapshots", _MADE, labelled=False),
    # What a clone leaves to a branch is proposed, and whoever proposes a clone may update it: so says the policy.
    "DataBranch": Resource("coppice.dev", "v1alpha1", "databranches", (*_OWN, "create"), labelled=False),
    "DataClone": Resource("coppice.dev", "v1alpha1", "dataclones", (*_MADE, "update"), labelled=False),
    "DataChangeRequest": Resource("coppice.dev", "v1alpha1", "datachangerequests", (*_OWN, "create"), labelled=False),
    # Reviews are people's: nobody else has a say in what they are.
    "DataReview": Resource("coppice.dev", "v1alpha1", "datareviews", _READ, labelled=False),
    "Namespace": Resource("", "v1", "namespaces", _READ, namespaced=False, labelled=False),
    "Pod": Resource("", "v1", "pods", _MADE),
    # Outlasts its Pods, so that another Job of its name never runs beside them.
    "Job": Resource("batch", "v1", "jobs", (*_READ, "create", "delete"), outlasts=True),
    "PersistentVolumeClaim": Resource("", "v1", "persistentvolumeclaims", _MADE),
    "PersistentVolume": Resource("", "v1", "persistentvolumes", ("get",), namespaced=False, watched=False),
    "VolumeAttachment": Resource(
        "storage.k8s.io", "v1", "volumeattachments", ("list",), namespaced=False, watched=False
    ),
    "Secret": Resource("", "v1", "secrets", _MADE),
    "ConfigMap": Resource("", "v1", "configmaps", ("get",), watched=False),
    "Service": Resource("", "v1", "services", _MADE),
    "NetworkPolicy": Resource("networking.k8s.io", "v1", "networkpolicies", _MADE),
    "StorageClass": Resource("storage.k8s.io", "v1", "storageclasses", _READ, namespaced=False, labelled=False),
    "VolumeSnapshot": Resource("snapshot.storage.k8s.io", "v1", "volumesnapshots", _MADE),
    "VolumeSnapshotContent": Resource(
        "snapshot.storage.k8s.io", "v1", "volumesnapshotcontents", _MADE, namespaced=False
    ),
    "VolumeSnapshotClass": Resource(
        "snapshot.storage.k8s.io", "v1", "volumesnapshotclasses", _READ, namespaced=False, labelled=False
    ),
    "Deployment": Resource("apps", "v1", "deployments", (*_READ, "patch"), labelled=False, large=True),
    "ValidatingAdmissionPolicy": _identity("validatingadmissionpolicies"),
    "ValidatingAdmissionPolicyBinding": _identity("validatingadmissionpolicybindings"),
    "Event": Resource("events.k8s.io", "v1", "events", ("list", "create", "patch"), watched=False),
    "Lease": Resource("coordination.k8s.io", "v1", "leases", ("get", "create", "update"), watched=False),
}
"""By kind. The chart's ClusterRole is generated from this table (``coppice rbac``)."""
