"""DataStore: a database under management, in the namespace of its owners."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import (
    AGE,
    SET,
    Column,
    CrdInfo,
    Keyword,
    Rule,
    ShowDefault,
    condition_column,
    immutable,
    immutable_optional,
)
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import (
    CRON_PATTERN,
    ENGINE_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_PATTERN,
    LABEL_VALUE_PATTERN,
    SERVICE_NAME_PATTERN,
    BindingStatus,
    CommitPolicy,
    ComputeResources,
    Count,
    DatabaseName,
    DeletionPolicy,
    Endpoint,
    NameRef,
    ObjectName,
    ObservedStatus,
    Person,
    Quantity,
    ServiceName,
    Text,
    Time,
    keys_rule,
    name_rules,
)
from coppice.api.v1alpha1.datasnapshot import Finding

DIRECTORY_PATTERN = r"^[.]?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[.]?[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"
"""A path inside of a volume: relative, and never up."""


class Storage(SpecModel):
    """The volume a managed store lives on."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
            "a volume never shrinks: ask for the present size or more",
            field_path=".size",
            reason="FieldValueForbidden",
        ),
        immutable_optional("storageClassName", "create another DataStore with the other class and load it"),
    )

    size: Quantity = Field(description="Size of the volume, for example 20Gi. It can grow later, never shrink.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="StorageClass of the volume; the cluster's default if left out."
    )
    snapshot_class_name: ObjectName | None = Field(
        default=None,
        description="VolumeSnapshotClass for snapshots of the volume; the default of the same driver if left out.",
    )


class Load(SpecModel):
    """Where the data of a new store comes from."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("configMap", "claim", "jobTemplate")

    config_map: NameRef | None = Field(
        default=None, description="A ConfigMap whose *.sql and *.sql.gz entries are run in name order."
    )
    claim: NameRef | None = Field(
        default=None, description="A PersistentVolumeClaim whose *.sql and *.sql.gz files are run in name order."
    )
    job_template: ObjectName | None = Field(
        default=None,
        description="A suspended Job in this namespace. A Job made from its Pod template fills the empty database, "
        "with the connection in its containers' environment; the store is Ready once it has succeeded.",
    )


EngineVersion = Annotated[
    str, StringConstraints(min_length=1, max_length=32, pattern=r"^[0-9]+(\.[0-9]+){0,3}(-[0-9A-Za-z.]+)?$")
]
CronSchedule = Annotated[str, StringConstraints(max_length=100, pattern=CRON_PATTERN)]


class Tls(SpecModel):
    """TLS before a server that has none of its own."""

    secret_name: ObjectName = Field(
        description="Secret of the type kubernetes.io/tls with tls.crt, tls.key and, by which clients know it, ca.crt. "
        "It bears the annotation coppice.dev/store with the name of this DataStore: whoever may write the Secret "
        "agrees that it is used here. A renewed certificate is taken over by itself."
    )


class Managed(SpecModel):
    """A server the operator runs."""

    version: EngineVersion = Field(
        description='Version of the engine, for example "1.83". The administrator says which ones there are.'
    )
    database: DatabaseName | None = Field(
        default=None,
        description="Database that is created at first boot and that applications get. "
        "Left out: the one the load created, else one named as the store.",
    )
    storage: Storage = Field(description="The volume that holds the data.")
    resources: ComputeResources | None = Field(default=None, description="What the server gets of a node.")
    load: Load | None = Field(
        default=None, description="Initial data, read at first boot only; later changes have no effect."
    )
    commit_policy: Annotated[CommitPolicy, ShowDefault] = Field(
        default=CommitPolicy.EXPLICIT,
        description="Versioned engines: Explicit leaves commits to the applications, "
        "PerTransaction makes one of each SQL commit.",
    )
    tls: Tls | None = Field(
        default=None,
        description="Have a proxy beside the server take TLS, and let nobody to the server but by it. For engines "
        "whose server has no TLS: terminusdb.",
    )


class Writer(SpecModel):
    """The login that approved changes are written with."""

    secret_name: ObjectName = Field(
        description="Secret with username and password of a login that may write to the tables, and ca.crt where the "
        "server's TLS certificate is to be verified. It bears the annotation coppice.dev/writer-of with the name of "
        "this DataStore: whoever may write the Secret agrees that approved changes are written with it."
    )


class Adopted(SpecModel):
    """A server that somebody else runs in this namespace."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.writer) || self.writer.secretName != self.credentialsSecret",
            "whoever looks does not write: put a login for publications alone into another Secret",
            field_path=".writer.secretName",
        ),
    )

    claim_name: ObjectName = Field(
        description="PersistentVolumeClaim that holds the data. Name another one when the server has moved there."
    )
    service: ServiceName = Field(
        description="Service that leads to the server. It selects Pods, and one of those uses the claim."
    )
    credentials_secret: ObjectName = Field(
        description="Secret with username and password of the login that Coppice looks with, and ca.crt where the "
        "server's TLS certificate is to be verified. It bears the annotation coppice.dev/store with the name of this "
        "DataStore: whoever may write the Secret agrees that it is used here."
    )
    writer: Writer | None = Field(
        default=None,
        description="What approved DataChangeRequests with publish: Database are written with, and nothing else is: "
        "approved by one person at least, unless spec.protection says something else. Left out: nothing is ever "
        "written to the server.",
    )
    database: DatabaseName | None = Field(
        default=None, description="Database that applications get. Left out: the only one that there is."
    )
    snapshot_class_name: ObjectName | None = Field(
        default=None,
        description="VolumeSnapshotClass for snapshots of the claim; the default of the same driver if left out.",
    )
    directory: Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=DIRECTORY_PATTERN)] | None = (
        Field(
            default=None,
            description="Where on the volume the server's data directory is, for example pgdata. "
            "Left out: where the engine finds one.",
        )
    )
    user_id: Annotated[int, Field(ge=1, le=2147483647)] | None = Field(
        default=None,
        alias="userID",
        description="Numeric user that the server runs as and that owns the files: copies run as the same. "
        "Left out: what runAsUser of its Pod says, else the engine's own.",
    )


class MirrorFrom(SpecModel):
    """Where a mirror's data come from."""

    secret_name: ObjectName = Field(
        description="Secret of this namespace with host, username, password and database of the source, named as "
        "servicebinding.io does; port, sslmode and ca.crt as needed. It bears the annotation coppice.dev/store with "
        "the name of this DataStore: whoever may write the Secret agrees that it is used here."
    )


class MirrorMethod(StrEnum):
    """How the data of a mirror are brought."""

    LOGICAL_DUMP = "LogicalDump"


class Mirror(SpecModel):
    """A copy, on a server that the operator runs, of a database that is out of reach of snapshots."""

    from_: MirrorFrom = Field(description="Where the data come from.")
    method: Annotated[MirrorMethod, ShowDefault] = Field(
        default=MirrorMethod.LOGICAL_DUMP,
        description="How they are brought. LogicalDump: a dump of one moment over the network, restored into a new "
        "volume.",
    )
    schedule: CronSchedule | None = Field(
        default=None,
        description='When to refresh the copy: five cron fields in UTC, for example "0 * * * *". Left out: once, and '
        "whenever the annotation coppice.dev/refresh-requested-at asks for it.",
    )
    version: EngineVersion = Field(
        description="Version of the engine that holds the copy: the source's, or a newer one. Another one is that of "
        "the next refresh, which is made at once."
    )
    storage: Storage = Field(
        description="The volume of each copy: it holds the data and, until they are restored, their compressed dump. "
        "While a refresh is on its way there are two such volumes."
    )
    resources: ComputeResources | None = Field(
        default=None, description="What the server gets of a node, and what fills the copy."
    )
    jobs: Annotated[int, Field(ge=1, le=16)] = Field(
        default=2,
        description="Tables that are read and restored at the same time. The source sees one connection for each of "
        "them, and one more. 2 if left out.",
    )


class Keep(SpecModel):
    """How many snapshots stay; one may count for several lines."""

    last: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="Keep this many of the newest snapshots. 3 if left out."
    )
    hourly: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="Keep the newest snapshot of each of this many hours. 0 if left out."
    )
    daily: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="Keep the newest snapshot of each of this many days. 0 if left out."
    )


class Snapshots(SpecModel):
    """When snapshots are made and how long they stay."""

    schedule: CronSchedule | None = Field(
        default=None,
        description='When to make a snapshot: five cron fields in UTC, for example "*/30 * * * *". '
        "Left out: only when a clone needs one.",
    )
    keep: Keep = Field(
        default_factory=Keep, description="Which of the snapshots made by the operator stay. Those in use always do."
    )


class Mask(SpecModel):
    """How rows are made fit for others to see."""

    job_template: ObjectName = Field(
        description="A suspended Job in this namespace. A Job made from its Pod template changes the rows of the "
        "scratch copy that each snapshot is made from, with the connection to it in its containers' environment; the "
        "snapshot is Masked once it has succeeded."
    )


class Clones(SpecModel):
    """What clones of this store get."""

    profiles: Annotated[
        dict[str, ComputeResources],
        Field(max_length=20),
        keys_rule(LABEL_PATTERN, 63, "names of profiles hold only lower-case letters, digits and '-'"),
    ] = Field(
        default_factory=dict,
        description="Sizes of clones by name; a clone that names none gets the one called default. "
        "What a size leaves out is the administrator's.",
    )
    node_selector: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE_PATTERN)]],
        Field(max_length=20),
        keys_rule(LABEL_KEY_PATTERN, 317, "keys are those of node labels, for example kubernetes.io/arch"),
    ] = Field(default_factory=dict, description="Labels of the nodes clones may run on.")
    own_bytes: Quantity | None = Field(
        default=None,
        description="How much of its own a clone may write, for example 5Gi. It takes a StorageClass like the store's "
        "with parameters.ownBytes of this size; the condition ClonesBounded says whether there is one.",
    )


BRANCH_GLOB_PATTERN = r"^[A-Za-z0-9_*]([.]?[A-Za-z0-9_*-])*(/[A-Za-z0-9_*]([.]?[A-Za-z0-9_*-])*)*$"
"""The name of a branch, where ``*`` stands for anything."""


class ProtectionReviewers(SpecModel):
    """Whose approvals count."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.users) && self.users.size() > 0) || (has(self.groups) && self.groups.size() > 0)",
            "name users or groups, or leave reviewers out: then approvals of everybody who may review count",
            reason="FieldValueRequired",
        ),
    )

    users: Annotated[tuple[Person, ...], Field(max_length=50), SET] = Field(
        default=(), description="These people, by their user names."
    )
    groups: Annotated[tuple[Person, ...], Field(max_length=50), SET] = Field(
        default=(), description="Everybody in one of these groups."
    )


class Check(SpecModel):
    """What must hold of the merged data."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("sql", "jobTemplate")

    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=LABEL_PATTERN)] = Field(
        description="What it is called in status.checks of a DataChangeRequest."
    )
    sql: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = Field(
        default=None, description="A query that must find nothing, for example SELECT 1 FROM track WHERE price < 0."
    )
    job_template: ObjectName | None = Field(
        default=None,
        description="A suspended Job in this namespace. A Job made from its Pod template runs once for each result, "
        "with a connection that reads the merged data, and nothing else, in its containers' environment; the check "
        "passes once it has succeeded.",
    )


class ProtectedBranches(SpecModel):
    """Branches that nobody writes to but by a DataChangeRequest that was approved."""

    branches: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=BRANCH_GLOB_PATTERN)], ...],
        Field(min_length=1, max_length=50),
        SET,
    ] = Field(description='Their names; * stands for anything, for example "release/*".')
    approvals: Annotated[int, Field(ge=0, le=10)] = Field(
        default=1, description="How many people must approve, without the author. 1 if left out."
    )
    reviewers: ProtectionReviewers | None = Field(
        default=None, description="Whose approvals count. Left out: those of everybody who may review."
    )
    checks: Annotated[
        tuple[Check, ...],
        Field(max_length=20),
        Keyword("x-kubernetes-list-type", "map"),
        Keyword("x-kubernetes-list-map-keys", ["name"]),
    ] = Field(default=(), description="What must hold of the merged data before it is published.")


class DataStoreSpec(SpecModel):
    """What the owners of a database want."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("managed", "adopted", "mirror")
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.managed) == has(oldSelf.managed) && has(self.adopted) == has(oldSelf.adopted) "
            "&& has(self.mirror) == has(oldSelf.mirror)",
            "who runs the server is immutable: create another DataStore",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.adopted) || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'",
            "the data of an adopted database are never deleted: leave deletionPolicy out",
            field_path=".deletionPolicy",
            reason="FieldValueForbidden",
        ),
    )

    engine: Annotated[
        str,
        StringConstraints(min_length=1, max_length=32, pattern=ENGINE_PATTERN),
        immutable("engine", "create another DataStore for the other engine"),
    ] = Field(description="The engine: dolt, postgresql, terminusdb, or the name of one that is plugged in.")
    deletion_policy: Annotated[DeletionPolicy, ShowDefault] = Field(
        default=DeletionPolicy.RETAIN,
        description="Whether the data stays (Retain) or goes (Delete) when this object is deleted. "
        "The data of an adopted database always stay.",
    )
    managed: Managed | None = Field(default=None, description="A server that the operator runs.")
    adopted: Adopted | None = Field(
        default=None,
        description="A server that somebody else runs in this namespace: never restarted or relabelled, and written to "
        "by nothing but approved DataChangeRequests, if it has a writer.",
    )
    mirror: Mirror | None = Field(
        default=None,
        description="A copy of a database outside (a managed cloud service, another cluster), refreshed as a whole: "
        "read there, and never written to.",
    )
    snapshots: Snapshots = Field(
        default_factory=Snapshots, description="When snapshots are made and how long they stay."
    )
    mask: Mask | None = Field(
        default=None,
        description="What every new snapshot of this store is masked with before anything is made from it; "
        "clones in this namespace are of masked snapshots, too. Left out: rows stay as they are.",
    )
    clones: Clones = Field(default_factory=Clones, description="What clones of this store get.")
    protection: Annotated[tuple[ProtectedBranches, ...], Field(max_length=20)] = Field(
        default=(),
        description="Branches that are changed by approved DataChangeRequests only. The rules of all entries that "
        "match a branch hold for it. Where the engine keeps no branches they hold for DataChangeRequests alone: "
        "whoever has a login writes to the database as before. What is written to an adopted database takes one "
        "approval where no entry matches.",
    )


class BranchHead(StatusModel):
    """Where one branch is."""

    name: Text = Field(description="Name of the branch.")
    head: Text = Field(description="Hash of the newest commit.")
    working_root: Text | None = Field(
        default=None, description="Hash of the working set: differs from the head's where SQL commits wait."
    )


class DeletedBranch(StatusModel):
    """A branch that a DataBranch has deleted, and that can be restored."""

    branch: Text = Field(description="Name of the branch.")
    head: Text = Field(description="Hash of its newest commit.")
    tag: Text = Field(description="Tag at that commit: what from.tag of a new DataBranch names.")
    deleted_at: Time = Field(description="When it was deleted.")
    kept_until: Time = Field(description="When the tag goes.")


class LastSnapshot(StatusModel):
    """The newest snapshot that is ready."""

    name: Text = Field(description="Name of the DataSnapshot.")
    time: Time = Field(description="The point in time it holds.")


class SourceStatus(StatusModel):
    """Where an adopted database was last seen."""

    pod: Text = Field(description="Pod of the server.")
    port: Count | None = Field(default=None, description="Port that the server listens on there.")
    user_id: Count = Field(alias="userID", description="Numeric user that copies run as.")
    offered_version: Text | None = Field(
        default=None,
        description="Which of the versions that the administrator offers copies run with: the longest one that the "
        "running server's begins with.",
    )


class RefreshStatus(StatusModel):
    """A refresh of a mirror that is on its way."""

    phase: Text = Field(description="What it is at: Waiting, Connecting, Dumping, Restoring or Checking.")
    since: Time = Field(description="When it began.")
    done: Count | None = Field(default=None, description="Tables that this phase has done.")
    total: Count | None = Field(default=None, description="Tables that there are.")


class MirrorStatus(StatusModel):
    """How old the data of a mirror are, and what comes next."""

    refreshed_at: Time | None = Field(
        default=None, description="What was committed at the source before this moment is in the copy that is served."
    )
    source_version: Text | None = Field(default=None, description="Version of the source's server at that moment.")
    tables: Count | None = Field(default=None, description="Tables whose rows were restored.")
    findings: Annotated[tuple[Finding, ...], Field(max_length=20)] = Field(
        default=(), description="What is not in the copy as in the source."
    )
    next_refresh_at: Time | None = Field(default=None, description="When the next refresh begins, if time brings one.")
    refresh: RefreshStatus | None = Field(default=None, description="The refresh that is on its way.")
    refresh_requested_at: Text | None = Field(
        default=None, description="The request by annotation that the copy was made for or after."
    )


class LoadStatus(StatusModel):
    """An initial load that is on its way."""

    done: Count = Field(description="Files that are in.")
    total: Count = Field(description="Files that there are.")


class OptimizationStatus(StatusModel):
    """How far the optimization is that was asked for last, or how it ended."""

    requested_at: Text = Field(description="The request by annotation that it is for.")
    started_at: Time = Field(description="When it began.")
    finished_at: Time | None = Field(default=None, description="When it ended.")
    part: Text | None = Field(default=None, description="What is being optimized: a graph, by its path.")
    silent_tries: Count | None = Field(
        default=None, description="How often the server was silent over that part; after the third time it has failed."
    )
    done: Count = Field(description="Parts that are done, those that failed among them.")
    total: Count = Field(description="Parts that there are.")
    failed: Annotated[tuple[Text, ...], Field(max_length=20)] = Field(
        default=(),
        description="Parts that could not be optimized, each with why, the first ones; failedCount has their number.",
    )
    failed_count: Count | None = Field(default=None, description="Number of parts that could not be optimized.")
    last_part_at: Time | None = Field(default=None, description="When the last part was done.")
    unmeasured: Count | None = Field(
        default=None, description="Parts that were done since the data were last measured: there must be room for each."
    )
    bytes_before: Count | None = Field(default=None, description="What the data took on the volume before.")
    bytes_after: Count | None = Field(default=None, description="What they took when they were measured afterwards.")
    layers_before: Count | None = Field(default=None, description="Layers that there were before.")
    layers_after: Count | None = Field(default=None, description="Layers that there were afterwards.")


class SizeSample(StatusModel):
    """What the data took at one moment."""

    at: Time = Field(description="When it was measured.")
    bytes: Count = Field(description="What the data took on the volume.")
    layers: Count = Field(description="Files of the engine's kind that this was.")


class SizeStatus(StatusModel):
    """How large the data are, and how they grow."""

    bytes: Count = Field(description="What the data take on the volume.")
    layers: Count = Field(description="Files of the engine's kind that this is.")
    samples: Annotated[tuple[SizeSample, ...], Field(max_length=8)] = Field(
        default=(),
        description="What it was, day by day, the oldest first: one for each of the last eight days, today among them.",
    )


class DataStoreStatus(ObservedStatus):
    """What the operator has seen of the database."""

    endpoint: Endpoint | None = Field(default=None, description="Where the server listens.")
    binding: BindingStatus | None = Field(
        default=None, description="The Secret with the connection, in the form of servicebinding.io."
    )
    version: Text | None = Field(default=None, description="Version of the running server.")
    source: SourceStatus | None = Field(default=None, description="Where an adopted database was last seen.")
    databases: Annotated[tuple[Text, ...], Field(max_length=100)] = Field(
        default=(), description="Databases of the store, the one that applications get first."
    )
    branches: Annotated[tuple[BranchHead, ...], Field(max_length=100)] = Field(
        default=(), description="Branches and where they are, the first ones by name; branchCount has their number."
    )
    branch_count: Count | None = Field(default=None, description="Number of branches.")
    deleted_branches: Annotated[tuple[DeletedBranch, ...], Field(max_length=50)] = Field(
        default=(),
        description="Branches that were deleted in the last seven days and can be restored, the newest of them first.",
    )
    protected: Annotated[tuple[Text, ...], Field(max_length=1000)] = Field(
        default=(), description="Branches that the server lets nobody write to but Coppice, as spec.protection says it."
    )
    protected_on: Text | None = Field(
        default=None, description="UID of the server's Pod that was told so; another one is told again."
    )
    last_snapshot: LastSnapshot | None = Field(default=None, description="The newest snapshot that is ready.")
    mirror: MirrorStatus | None = Field(default=None, description="How old the data of a mirror are.")
    capacity: Text | None = Field(default=None, description="Size of the volume as provisioned.")
    load: LoadStatus | None = Field(default=None, description="An initial load that is on its way.")
    size: SizeStatus | None = Field(
        default=None, description="How large the data are and how they grow, where the engine tells."
    )
    optimization: OptimizationStatus | None = Field(
        default=None, description="The optimization that the annotation coppice.dev/optimize-requested-at asked for."
    )


class DataStore(Resource):
    """A database under management, in the namespace of its owners."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataStore",
        plural="datastores",
        short_names=("dstore",),
        columns=(
            *condition_column("Ready"),
            Column("Engine", ".spec.engine", "The engine."),
            Column("Version", ".status.version", "Version of the running server."),
            Column("Branches", ".status.branchCount", "Number of branches.", type="integer"),
            Column("Snapshot", ".status.lastSnapshot.time", "Age of the newest snapshot.", type="date"),
            Column("Endpoint", ".status.endpoint.host", "Where the server listens.", priority=1),
            Column("Mirrored", ".status.mirror.refreshedAt", "Age of a mirror's data.", type="date", priority=1),
            Column("Source", ".status.source.pod", "Pod of an adopted database's server.", priority=1),
            Column("Capacity", ".status.capacity", "Size of the volume.", priority=1),
            AGE,
        ),
        rules=name_rules(40, SERVICE_NAME_PATTERN),
    )

    kind: Literal["DataStore"] = "DataStore"
    spec: DataStoreSpec = Field(description="What the owners of the database want.")
    status: DataStoreStatus = Field(
        default_factory=DataStoreStatus, description="What the operator has seen; written by the operator alone."
    )
