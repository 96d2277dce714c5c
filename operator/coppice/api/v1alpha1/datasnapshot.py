"""DataSnapshot: an immutable, prepared point of a store."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, Column, CrdInfo, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import Count, DataKind, LocalStoreRef, ObservedStatus, Text, Time, name_rules


class DataSnapshotSpec(SpecModel):
    """Which store to make a snapshot of."""

    store: LocalStoreRef = Field(description="The DataStore in this namespace.")


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

    store_uid: Text | None = Field(default=None, alias="storeUID", description="UID of the DataStore it was made from.")
    captured_at: Time | None = Field(default=None, description="The point in time the snapshot holds.")
    engine: Text | None = Field(default=None, description="Engine of the store.")
    version: Text | None = Field(default=None, description="Version of the engine that wrote the data.")
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
    """An immutable, prepared point of a store."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataSnapshot",
        plural="datasnapshots",
        short_names=("dsnap",),
        columns=(
            *condition_column("Ready"),
            Column("Store", ".spec.store.name", "The DataStore."),
            Column("Data", ".status.data", "Masked or raw rows."),
            Column("Captured", ".status.capturedAt", "Age of the point in time it holds.", type="date"),
            Column("Migration", ".status.ledger.version", "The migration that was applied last.", priority=1),
            Column("Size", ".status.prepared.restoreSize", "Least size of a volume made from it.", priority=1),
            AGE,
        ),
        rules=name_rules(52),
    )

    kind: Literal["DataSnapshot"] = "DataSnapshot"
    spec: Annotated[DataSnapshotSpec, immutable("spec", "create another DataSnapshot")] = Field(
        description="Which store to make a snapshot of. Immutable."
    )
    status: DataSnapshotStatus = Field(
        default_factory=DataSnapshotStatus, description="What the snapshot holds; written by the operator alone."
    )
