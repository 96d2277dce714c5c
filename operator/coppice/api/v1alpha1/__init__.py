"""The kinds of ``coppice.dev/v1alpha1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coppice.api.v1alpha1.base import API_VERSION, GROUP, VERSION, InvalidResource, Metadata, Resource
from coppice.api.v1alpha1.common import (
    LIVE_BRANCH,
    NEVER,
    BindingStatus,
    CommitPolicy,
    ComputeResources,
    Condition,
    ConditionStatus,
    DataKind,
    DeletionPolicy,
    Endpoint,
    From,
    ObservedStatus,
    StoreRef,
)
from coppice.api.v1alpha1.databranch import DataBranch, DataBranchSpec, DataBranchStatus
from coppice.api.v1alpha1.datachangerequest import (
    ChangeSource,
    ChangeTarget,
    CheckStatus,
    ConflictsStatus,
    ConflictStatus,
    DataChangeRequest,
    DataChangeRequestSpec,
    DataChangeRequestStatus,
    MergePolicy,
    PatchStatus,
    PreviewStatus,
    ProposedClone,
    Publish,
    PublishedStatus,
    Resolution,
    ReviewStatus,
    TableStatus,
    Take,
    VersionStatus,
)
from coppice.api.v1alpha1.dataclone import (
    BINDING_KEYS,
    ON_HEAD_CHANGE,
    PLACEHOLDERS,
    Binding,
    CloneFrom,
    CloneSource,
    DataClone,
    DataCloneSpec,
    DataCloneStatus,
    Durability,
    HandledRequests,
    Lease,
    OnRevision,
    Power,
    PreviousCopy,
    SnapshotIdentity,
)
from coppice.api.v1alpha1.datagrant import DataGrant, DataGrantSpec, DataGrantStatus, LabelSelector, MaxClones, Verb
from coppice.api.v1alpha1.datareview import DataReview, DataReviewSpec, DataReviewStatus, ReviewedPatch, Verdict
from coppice.api.v1alpha1.datasnapshot import (
    CloneRef,
    DataSnapshot,
    DataSnapshotSpec,
    DataSnapshotStatus,
    Finding,
    PreparedSnapshot,
    SnapshotBranch,
    SnapshotCommit,
)
from coppice.api.v1alpha1.datastore import (
    Adopted,
    BranchHead,
    Check,
    DataStore,
    DataStoreSpec,
    DataStoreStatus,
    Keep,
    LastSnapshot,
    Load,
    Managed,
    Mirror,
    ProtectedBranches,
    ProtectionReviewers,
    Snapshots,
    Storage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: dict[str, type[Resource]] = {
    model.crd.kind: model
    for model in (
        DataStore,
        DataGrant,
        DataSnapshot,
        DataBranch,
        DataClone,
        DataChangeRequest,
        DataReview,
    )
}
"""Every kind of the group by name."""


def parse(manifest: Mapping[str, Any]) -> Resource | InvalidResource:
    """Return the object of any Coppice kind, or what is wrong with it.

    Raises ``KeyError`` for a kind that is not of this group and version: the caller asked for the wrong thing.
    """
    return KINDS[manifest["kind"]].parse(manifest)


__all__ = [
    "API_VERSION",
    "BINDING_KEYS",
    "GROUP",
    "KINDS",
    "LIVE_BRANCH",
    "NEVER",
    "ON_HEAD_CHANGE",
    "PLACEHOLDERS",
    "VERSION",
    "Adopted",
    "Binding",
    "BindingStatus",
    "BranchHead",
    "ChangeSource",
    "ChangeTarget",
    "Check",
    "CheckStatus",
    "CloneFrom",
    "CloneRef",
    "CloneSource",
    "CommitPolicy",
    "ComputeResources",
    "Condition",
    "ConditionStatus",
    "ConflictStatus",
    "ConflictsStatus",
    "DataBranch",
    "DataBranchSpec",
    "DataBranchStatus",
    "DataChangeRequest",
    "DataChangeRequestSpec",
    "DataChangeRequestStatus",
    "DataClone",
    "DataCloneSpec",
    "DataCloneStatus",
    "DataGrant",
    "DataGrantSpec",
    "DataGrantStatus",
    "DataKind",
    "DataReview",
    "DataReviewSpec",
    "DataReviewStatus",
    "DataSnapshot",
    "DataSnapshotSpec",
    "DataSnapshotStatus",
    "DataStore",
    "DataStoreSpec",
    "DataStoreStatus",
    "DeletionPolicy",
    "Durability",
    "Endpoint",
    "Finding",
    "From",
    "HandledRequests",
    "InvalidResource",
    "Keep",
    "LabelSelector",
    "LastSnapshot",
    "Lease",
    "Load",
    "Managed",
    "MaxClones",
    "MergePolicy",
    "Metadata",
    "Mirror",
    "ObservedStatus",
    "OnRevision",
    "PatchStatus",
    "Power",
    "PreparedSnapshot",
    "PreviewStatus",
    "PreviousCopy",
    "ProposedClone",
    "ProtectedBranches",
    "ProtectionReviewers",
    "Publish",
    "PublishedStatus",
    "Resolution",
    "Resource",
    "ReviewStatus",
    "ReviewedPatch",
    "SnapshotBranch",
    "SnapshotCommit",
    "SnapshotIdentity",
    "Snapshots",
    "Storage",
    "StoreRef",
    "TableStatus",
    "Take",
    "Verb",
    "Verdict",
    "VersionStatus",
    "parse",
]
