"""DataSnapshot: an immutable, prepared point of a store, or of a clone of it that is committed to a branch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from coppice.api.schema import AGE, Column, CrdInfo, Rule, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import (
    LABEL_PATTERN,
    LIVE_BRANCH,
    Count,
    DataKind,
    Label,
    LocalStoreRef,
    ObservedStatus,
    Text,
    Time,
    name_rules,
)

MAX_NAME = 52


def _commit_rule() -> Rule:
    """Return the rule that ties a commit's name to its place in the line: to create it is the compare-and-set."""
    commit, name = "self.spec.commit", "self.metadata.name"
    number, before = (f"{whole}.substring(size({commit}.branch) + 1)" for whole in (name, f"{commit}.parent"))
    return Rule(
        f"!has({commit}) || ({name}.startsWith({commit}.branch + '-') && {number}.matches('^[1-9][0-9]*$') "
        f"&& ({number} == '1' || ({commit}.parent.startsWith({commit}.branch + '-') "
        f"&& int({before}) == int({number}) - 1)))",
        "metadata.name of a commit is <branch>-1 where it begins the branch; else it goes on from the parent: that of "
        "feature-2 is feature-1",
    )


class CloneRef(SpecModel):
    """Names a DataClone."""

    name: Label = Field(description="Name of the DataClone.")
    namespace: Label | None = Field(
        default=None,
        description="Namespace of the DataClone; this object's own if left out. Another one needs a DataGrant for it "
        "in this namespace with the verb Branch.",
    )


class SnapshotFrom(SpecModel):
    """What is captured instead of the store."""

    clone: CloneRef = Field(
        description="A clone of the store. It has to be Durable, or off; and to be there before this object is."
    )


class SnapshotCommit(SpecModel):
    """The place of a commit: of an engine that keeps no branches, a branch is a line of DataSnapshots."""

    branch: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MAX_NAME - 2, pattern=LABEL_PATTERN),
        Rule(
            f"self != '{LIVE_BRANCH}'",
            f"{LIVE_BRANCH} is the store's own line, and nothing is committed to that: choose another branch",
            reason="FieldValueForbidden",
        ),
    ] = Field(
        description="The branch that it is the newest state of. The name of this object is <branch>-<n>, where n is "
        "one more than that of the commit before it, and 1 begins a branch."
    )
    parent: Label = Field(
        description="The DataSnapshot in this namespace that the clone's present copy was made from: <branch>-<n-1>; "
        "for the first commit of a branch any one."
    )


class DataSnapshotSpec(SpecModel):
    """Which store to make a snapshot of, or which of its clones to commit."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.from) == has(self.commit)",
            "from and commit go together: from.clone says what is committed, commit where to; leave out both for a "
            "snapshot of the store",
        ),
        Rule(
            "!has(self.commit) || self.commit.branch != self.store.name",
            "the branch has the name of the store, whose own snapshots are called like that: choose another one",
            field_path=".commit",
        ),
    )

    store: LocalStoreRef = Field(description="The DataStore in this namespace.")
    from_: SnapshotFrom | None = Field(
        default=None,
        description="A clone of the store to capture instead of the store itself; with commit. One of another "
        "namespace needs a DataGrant with the verb Branch, and nobody there is asked once more.",
    )
    commit: SnapshotCommit | None = Field(
        default=None,
        description="Makes it a commit: the newest state of a branch. For engines that keep no branches of their own.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.from_ is None) != (self.commit is None):
            raise ValueError("from and commit go together")
        return self


class PreparedSnapshot(StatusModel):
    """The volume snapshot that clones are made from."""

    volume_snapshot_name: Text = Field(description="Name of the VolumeSnapshot in this namespace.")
    restore_size: Text | None = Field(default=None, description="Least size of a volume made from it.")


class SnapshotBranch(StatusModel):
    """What one branch of one database is at in the snapshot."""

    database: Text = Field(description="Name of the database.")
    branch: Text = Field(description="Name of the branch.")
    head: Text = Field(description="Hash of the newest commit.")
    working_root: Text | None = Field(
        default=None, description="Hash of the working set: differs from the head's where SQL commits waited."
    )
    source_head: Text | None = Field(
        default=None,
        description="Of masked data: the newest commit of the branch in the store.",
    )
    source_working_root: Text | None = Field(
        default=None, description="Of masked data: hash of the branch's working set in the store."
    )


class Finding(StatusModel):
    """Something that whoever gets the data should know."""

    reason: Text = Field(description="One word in CamelCase that says what was found; made for programs.")
    message: Annotated[str, StringConstraints(max_length=1024)] = Field(
        description="What was found, by the names of the things in question; made for people."
    )


class MaskStatus(StatusModel):
    """What the rows were masked with."""

    job_template: Text = Field(description="The Job that the mask was made from.")
    digest: Text = Field(
        description="Digest of what that Job runs: the same program under the same names has the same one."
    )
    tables: Annotated[tuple[Text, ...], Field(max_length=100)] = Field(
        default=(), description="Tables that the mask changed, the first ones by name; tableCount has their number."
    )
    table_count: Count = Field(description="Number of tables that the mask changed.")


class CommitStatus(StatusModel):
    """Where a commit comes from."""

    sequence: Count = Field(description="Its number on the branch.")
    parent_uid: Text = Field(alias="parentUID", description="UID of the parent: another of its name is another one.")
    clone: Text = Field(description="The DataClone that was committed, as namespace/name.")
    clone_uid: Text = Field(alias="cloneUID", description="UID of that DataClone.")


class SnapshotLedger(StatusModel):
    """What a migration tool has written down in the database that applications get."""

    tool: Text = Field(description="The tool: flyway, liquibase, alembic, django or rails.")
    version: Text | None = Field(default=None, description="The version that was applied last.")
    versions: Annotated[tuple[Text, ...], Field(max_length=100)] = Field(
        default=(),
        description="What was applied, the last 100 as the tool counts, the newest last; of Django the newest of each "
        "app, of Alembic where the database is.",
    )
    failed: Annotated[tuple[Text, ...], Field(max_length=10)] = Field(
        default=(), description="The last versions that failed and were not put right, as the tool says."
    )


class DataSnapshotStatus(ObservedStatus):
    """What the snapshot holds."""

    store_uid: Text | None = Field(default=None, alias="storeUID", description="UID of the DataStore it is of.")
    captured_at: Time | None = Field(default=None, description="The point in time the snapshot holds.")
    engine: Text | None = Field(default=None, description="Engine of the store.")
    version: Text | None = Field(default=None, description="Version of the engine that wrote the data.")
    torn_copies: Annotated[tuple[Text, ...], Field(max_length=10)] = Field(
        default=(),
        description="UIDs of what was captured in the middle of a write, and so was given up for another copy.",
    )
    commit: CommitStatus | None = Field(
        default=None, description="Where a commit comes from; nothing for a snapshot of the store."
    )
    data: DataKind | None = Field(default=None, description="Whether rows are as in the store (Raw) or Masked.")
    mask: MaskStatus | None = Field(default=None, description="What the rows were masked with; nothing for Raw.")
    prepared: PreparedSnapshot | None = Field(
        default=None, description="The volume snapshot that clones are made from."
    )
    storage_class_name: Text | None = Field(
        default=None, description="StorageClass of the volume it was made from; copies have the same or one like it."
    )
    user_id: Count | None = Field(
        default=None,
        alias="userID",
        description="Numeric user that owns the files, where the store was an adopted one: copies run as the same.",
    )
    source_capacity: Text | None = Field(default=None, description="Size of the volume it was made from.")
    database: Text | None = Field(default=None, description="The database that applications get.")
    default_branch: Text | None = Field(
        default=None, description="The branch of that database that applications get if they name none."
    )
    branches: Annotated[tuple[SnapshotBranch, ...], Field(max_length=500)] = Field(
        default=(), description="Branches of all databases and what they are at."
    )
    findings: Annotated[tuple[Finding, ...], Field(max_length=20)] = Field(
        default=(), description="What preparation found in the data, for example tables that are empty in every copy."
    )
    ledger: SnapshotLedger | None = Field(
        default=None, description="What a migration tool has written down in the database that applications get."
    )
    identity: Text | None = Field(
        default=None, description="Digest over all heads and working sets: equal digests mean equal data."
    )


class DataSnapshot(Resource):
    """An immutable, prepared point of a store, or of a clone that is committed."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataSnapshot",
        plural="datasnapshots",
        short_names=("dsnap",),
        columns=(
            *condition_column("Ready"),
            Column("Store", ".spec.store.name", "The DataStore."),
            Column("Branch", ".spec.commit.branch", "The branch that it is a commit on."),
            Column("Parent", ".spec.commit.parent", "The DataSnapshot that it goes on from."),
            Column("Data", ".status.data", "Masked or raw rows."),
            Column("Captured", ".status.capturedAt", "Age of the point in time it holds.", type="date"),
            Column("Clone", ".status.commit.clone", "The DataClone that was committed.", priority=1),
            Column("Migration", ".status.ledger.version", "The migration that was applied last.", priority=1),
            Column("Size", ".status.prepared.restoreSize", "Least size of a volume made from it.", priority=1),
            AGE,
        ),
        rules=(*name_rules(MAX_NAME), _commit_rule()),
    )

    kind: Literal["DataSnapshot"] = "DataSnapshot"
    spec: Annotated[DataSnapshotSpec, immutable("spec", "create another DataSnapshot")] = Field(
        description="Which store to make a snapshot of, or which of its clones to commit. Immutable."
    )
    status: DataSnapshotStatus = Field(
        default_factory=DataSnapshotStatus, description="What the snapshot holds; written by the operator alone."
    )
