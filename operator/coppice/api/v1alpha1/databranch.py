"""DataBranch: a named, durable line of data in a store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, Column, CrdInfo, Rule, ShowDefault, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import (
    NEW_BRANCH_PATTERN,
    Count,
    DeletionPolicy,
    From,
    ObservedStatus,
    StoreRef,
    Text,
    Time,
    name_rules,
)


class History(StrEnum):
    """How much of the past a branch has."""

    FULL = "Full"
    SQUASHED = "Squashed"


class DataBranchSpec(SpecModel):
    """The branch that is wanted."""

    store: Annotated[StoreRef, immutable("store", "create another DataBranch for the other store")] = Field(
        description="The DataStore that gets the branch."
    )
    branch_name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=200, pattern=NEW_BRANCH_PATTERN),
        immutable("branchName", "create another DataBranch with the other name"),
        Rule(
            "self.lowerAscii() != 'head' && !self.matches('^[0-9a-v]{32}$') && !self.endsWith('.lock')",
            "must not be HEAD, look like a commit hash or end in .lock: choose another name",
            reason="FieldValueInvalid",
        ),
    ] = Field(description="The engine's own name of the branch, for example feature/autumn.")
    from_: Annotated[From, immutable("from", "create another DataBranch from the other point")] = Field(
        description="Where the branch starts."
    )
    history: Annotated[History, ShowDefault, immutable("history", "create another DataBranch")] = Field(
        default=History.FULL,
        description="What the branch has of the commits before the one it starts from: Full, all of them; Squashed, "
        "none: it begins with one commit that has all the data. No branch that is there changes by that. A squashed "
        "branch shares no commit with any other, so that neither can be merged into the other. Engines that squash: "
        "terminusdb.",
    )
    deletion_policy: Annotated[DeletionPolicy, ShowDefault] = Field(
        default=DeletionPolicy.RETAIN,
        description="Whether the branch stays in the store (Retain) or goes (Delete) when this object is deleted. "
        "Delete never removes a branch this object did not create; what it held is kept for seven days, by the tag in "
        "status.deletedBranches of the DataStore.",
    )


class SquashStatus(StatusModel):
    """How far the squash is that a branch begins with: of the commit in ``base``."""

    tries: Count = Field(description="How often it was begun.")
    started_at: Time = Field(description="When it was begun last.")
    failed_at: Time | None = Field(default=None, description="When that failed.")
    problem: Text | None = Field(default=None, description="What the server said of it.")
    finished_at: Time | None = Field(default=None, description="When the branch was seen to be there.")


class DataBranchStatus(ObservedStatus):
    """What the operator has seen of the branch."""

    created: bool | None = Field(
        default=None, description="Whether this object created the branch; false if it was there before."
    )
    base: Text | None = Field(
        default=None,
        description="Hash of the commit the branch started from; of a squashed one, of that whose data it has.",
    )
    squash: SquashStatus | None = Field(
        default=None, description="Of a branch that begins squashed, how far that is, or how it ended."
    )
    head: Text | None = Field(default=None, description="Hash of the newest commit.")
    working_root: Text | None = Field(
        default=None, description="Hash of the working set: differs from the head's where SQL commits wait."
    )


class DataBranch(Resource):
    """A named, durable line of data in a store."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataBranch",
        plural="databranches",
        short_names=("dbranch",),
        columns=(
            *condition_column("Ready"),
            Column("Store", ".spec.store.name", "The DataStore."),
            Column("Branch", ".spec.branchName", "The engine's own name of the branch."),
            Column("Head", ".status.head", "Hash of the newest commit."),
            AGE,
        ),
        rules=name_rules(40),
    )

    kind: Literal["DataBranch"] = "DataBranch"
    spec: DataBranchSpec = Field(description="The branch that is wanted.")
    status: DataBranchStatus = Field(
        default_factory=DataBranchStatus, description="What the operator has seen; written by the operator alone."
    )
