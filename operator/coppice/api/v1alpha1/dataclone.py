"""DataClone: a running, disposable environment made from a prepared snapshot."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, Column, CrdInfo, Rule, ShowDefault, condition_column, immutable, immutable_optional
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import (
    CRON_PATTERN,
    NEVER,
    SERVICE_NAME_PATTERN,
    BindingStatus,
    CommitPolicy,
    Count,
    Duration,
    DurationOrNever,
    Endpoint,
    From,
    Label,
    MigrationVersion,
    ObjectName,
    ObservedStatus,
    ServiceName,
    StoreRef,
    Text,
    Time,
    keys_rule,
    name_rules,
)
from coppice.api.v1alpha1.pullrequest import INSTEAD, PullRequestRef, PullRequestStatus

BINDING_KEYS = ("type", "provider", "host", "port", "uri", "username", "password", "database")
"""The keys every binding Secret has; the last six of them are also the placeholders of a template."""
PLACEHOLDERS = ("host", "port", "uri", "username", "password", "database")
KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
TEMPLATE_PATTERN = r"^([^{{}}]|\{{\{{|\}}\}}|\{{({})\}})*$".format("|".join(PLACEHOLDERS))


ON_HEAD_CHANGE = "OnHeadChange"
REFRESH_PATTERN = f"^({NEVER}|{ON_HEAD_CHANGE})$|{CRON_PATTERN}"
Refresh = Annotated[str, StringConstraints(max_length=100, pattern=REFRESH_PATTERN)]
"""When a clone is made anew by itself."""


class Power(StrEnum):
    """Whether the server of a clone runs."""

    AUTO = "Auto"
    ON = "On"
    OFF = "Off"


class Durability(StrEnum):
    """What a clone's server sees to before it acknowledges a write."""

    FAST = "Fast"
    DURABLE = "Durable"


class OnRevision(StrEnum):
    """What a new revision does to the data."""

    KEEP = "Keep"
    RESET = "Reset"
    RESET_IF_MIGRATIONS_CHANGED = "ResetIfMigrationsChanged"


class OnClose(StrEnum):
    """What becomes of what was changed on a clone when its data go for good."""

    DISCARD = "Discard"
    KEEP_CHANGES = "KeepChanges"


class CloneFrom(From):
    """What a clone is a copy of."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxAge) || has(self.branch)",
            "maxAge goes with branch only: the other points in history do not age",
            field_path=".maxAge",
        ),
    )

    store: StoreRef = Field(description="The DataStore.")
    max_age: Duration | None = Field(
        default=None,
        description="How old a snapshot of the branch may be, for example 1h; a new one is made if there is none. "
        "Left out: the branch as it is when the clone is asked for.",
    )


class Binding(SpecModel):
    """How applications get the connection."""

    secret_name: ObjectName | None = Field(
        default=None, description="Name of the Secret with the connection; <name of this object>-binding if left out."
    )
    service_name: ServiceName | None = Field(
        default=None, description="Name of the Service; the name of this object if left out."
    )
    keys: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=1024, pattern=TEMPLATE_PATTERN)]],
        Field(max_length=32),
        keys_rule(KEY_PATTERN, 63, "keys are names of environment variables, for example DATABASE_URL"),
        Rule(
            f"self.all(key, !(key in {list(BINDING_KEYS)}))",
            f"{', '.join(BINDING_KEYS)} are there anyway: choose other names",
        ),
    ] = Field(
        default_factory=dict,
        description="Further keys of the Secret: name and template, for example DATABASE_URL: "
        '"{uri}". Placeholders: {host} {port} {uri} {username} {password} {database}; a brace is written twice.',
    )


def _cel_seconds(value: str) -> str:
    """Return a CEL expression for the seconds of a duration string; CEL itself knows no days.

    ``split`` would read better, but its result has no bounds, and with them goes the rule's known cost. Without a ``d``
    its index is -1, and the rest is the whole.
    """
    days = f"({value}.contains('d') ? int({value}.substring(0, {value}.indexOf('d'))) : 0)"
    rest = f"duration('0s' + {value}.substring({value}.indexOf('d') + 1)).getSeconds()"
    return f"{days} * 86400 + {rest}"


class Lease(SpecModel):
    """How long a clone lives."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.idle) || !has(self.max) || self.idle == '{NEVER}' || self.max == '{NEVER}' "
            f"|| {_cel_seconds('self.idle')} <= {_cel_seconds('self.max')}",
            "idle cannot be longer than max: lower idle or raise max",
            field_path=".idle",
        ),
    )

    idle: DurationOrNever | None = Field(
        default=None,
        description="Life after the last activity, for example 2h. Never: idling does not end it. "
        "Left out: the administrator's value, or Never where max is set.",
    )
    max: DurationOrNever | None = Field(
        default=None,
        description="Longest life, for example 3d. Never, where the grant allows it: no end. "
        "Left out: the administrator's value.",
    )


class Migrations(SpecModel):
    """A program that changes each copy before applications use it."""

    job_template: ObjectName = Field(
        description="A suspended Job in this namespace. A Job made from its Pod template, with the connection in its "
        "containers' environment, has to succeed before a copy serves; once on each copy, and again when it changes."
    )
    versions: Annotated[tuple[MigrationVersion, ...], Field(max_length=2000)] | None = Field(
        default=None,
        description="The versions that the release has, as its migration tool writes them down in the database. What "
        "the data have besides is named by the condition LedgerDiverged.",
    )


class CloneTls(SpecModel):
    """TLS before the server of a clone."""

    secret_name: ObjectName = Field(
        description="Secret of the type kubernetes.io/tls in this namespace, with tls.crt, tls.key and, by which "
        "clients know it, ca.crt. It bears the annotation coppice.dev/clone with the name of this DataClone: whoever "
        "may write the Secret agrees that it is used here. A renewed certificate is taken over by itself."
    )


class DataCloneSpec(SpecModel):
    """The environment that is wanted."""

    rules: ClassVar[tuple[Rule, ...]] = (
        immutable_optional("secretName", "delete the DataClone and create it anew", parent="binding"),
        immutable_optional("serviceName", "delete the DataClone and create it anew", parent="binding"),
        Rule(
            f"self.refresh == '{NEVER}' || has(self.from.branch)",
            "a clone that is refreshed follows a branch: set from.branch, or refresh Never",
            field_path=".refresh",
        ),
        Rule(
            f"self.onRevision != '{OnRevision.RESET_IF_MIGRATIONS_CHANGED}' || has(self.migrations)",
            "without migrations none can change: set migrations, or onRevision to Keep or Reset",
            field_path=".onRevision",
        ),
        Rule(
            "!has(oldSelf.pullRequest) || has(self.pullRequest)",
            f"pullRequest stays: {INSTEAD}",
            field_path=".pullRequest",
            reason="FieldValueForbidden",
        ),
    )

    from_: Annotated[CloneFrom, immutable("from", "delete the DataClone and create it anew")] = Field(
        description="What the clone is a copy of."
    )
    profile: Label = Field(
        default="default",
        description="Size of the clone: a name in clones.profiles of the store; the one called default if left out.",
    )
    binding: Binding = Field(default_factory=Binding, description="How applications get the connection.")
    tls: CloneTls | None = Field(
        default=None,
        description="Have a proxy beside the server take TLS, and let nobody to the server but by it. For engines "
        "whose server has no TLS: terminusdb.",
    )
    lease: Lease = Field(
        default_factory=Lease,
        description="How long the clone lives, bounded by the grant; the administrator's values if left out.",
    )
    refresh: Annotated[Refresh, ShowDefault] = Field(
        default=NEVER,
        description="When the clone is made anew by itself: Never, OnHeadChange of its branch, or at the times of five "
        'cron fields in UTC, for example "0 3 * * *". Changes in it go.',
    )
    revision: Annotated[str, StringConstraints(max_length=253)] | None = Field(
        default=None, description="Any string, for example a commit of the application; a change triggers onRevision."
    )
    on_revision: Annotated[OnRevision, ShowDefault] = Field(
        default=OnRevision.KEEP,
        description="What a new revision does: Keep the data, Reset it to a new copy of the source, or "
        "ResetIfMigrationsChanged: a new copy where the migrations are others too, else the data are kept.",
    )
    migrations: Migrations | None = Field(
        default=None, description="A program that changes each copy before applications use it."
    )
    pull_request: PullRequestRef | None = Field(
        default=None,
        description="The pull request that the clone is for. When it is closed the clone ends, and it comes back when "
        "it is reopened, where the administrator has configured its forge. Grants may be for some repositories only; "
        "what is said here is believed by them as far as the namespace and the forge say so too.",
    )
    on_close: Annotated[OnClose, ShowDefault] = Field(
        default=OnClose.DISCARD,
        description="What becomes of what was changed here when the pull request is closed, the lease ends or this "
        "object is deleted: Discard, or KeepChanges: first it is left on a new branch of the store, which status.kept "
        "names. From another namespace that takes a DataGrant with the verb Propose. A reset keeps nothing.",
    )
    power: Annotated[Power, ShowDefault] = Field(
        default=Power.AUTO,
        description="Whether the server runs: Auto (sleeps when idle), On or Off. The data stay in any case.",
    )
    durability: Annotated[Durability, ShowDefault, immutable("durability", "make another DataClone")] = Field(
        default=Durability.FAST,
        description="What a commit of a transaction waits for: Fast, for no disk where the engine can do without, "
        "since a clone is disposable; Durable, until it outlives the node. A Durable clone can be committed to a "
        "branch while it runs, and the DataSnapshot that its copy was made from is kept as long as the copy.",
    )
    commit_policy: Annotated[CommitPolicy, ShowDefault] = Field(
        default=CommitPolicy.EXPLICIT,
        description="Versioned engines: Explicit leaves commits to the applications, "
        "PerTransaction makes one of each SQL commit.",
    )


class SnapshotIdentity(StatusModel):
    """The snapshot a copy was made from."""

    name: Text = Field(description="Name of the DataSnapshot in the store's namespace.")
    uid: Text = Field(description="UID of the DataSnapshot.")


class CloneSource(StatusModel):
    """What the present copy holds."""

    store: Text = Field(description="The DataStore as namespace/name.")
    branch: Text | None = Field(default=None, description="Name of the branch, if the clone is of one.")
    head: Text | None = Field(default=None, description="Hash of the commit the copy started at.")
    working_root: Text | None = Field(default=None, description="Hash of the working set the copy started with.")
    captured_at: Time | None = Field(default=None, description="The point in time the copy holds.")


class ResolvedReference(StatusModel):
    """What a tag, commit or time was last seen to name."""

    head: Text = Field(description="Hash of the commit.")
    since: Time = Field(description="Since when it has been seen to name this commit.")


class HandledRequests(StatusModel):
    """The annotations coppice.dev/<verb>-requested-at that were acted upon, value by value."""

    reset_requested_at: Text | None = Field(default=None, description="The last reset that was done.")
    undo_requested_at: Text | None = Field(
        default=None,
        description="The last undo that was done, or refused: then the condition RequestAccepted says why.",
    )
    extend_requested_at: Text | None = Field(default=None, description="The last extension that was done.")
    wake_requested_at: Text | None = Field(default=None, description="The last wake-up that was done.")


class PreviousCopy(StatusModel):
    """The copy that the last reset, or its undo, replaced; kept for a while."""

    copy_id: Text = Field(alias="copy", description="Number of the copy.")
    kept_until: Time = Field(description="When it goes.")


class KeptChanges(StatusModel):
    """Where the changes of a copy are left, in the store's namespace; it is written down before anything is made."""

    claim: Text = Field(description="UID of the copy's claim.")
    since: Time = Field(description="Since when the data were to go.")
    branch: Text | None = Field(
        default=None,
        description="The branch of the store, or the line of DataSnapshots; nothing if nothing was changed.",
    )
    request: Text | None = Field(
        default=None,
        description="The DataChangeRequest that brings the changes there; a DataBranch of the same name makes the "
        "branch.",
    )
    snapshot: Text | None = Field(default=None, description="The DataSnapshot that holds them.")
    finished_at: Time | None = Field(default=None, description="When they were there, or there were none.")


class LedgerStatus(StatusModel):
    """What a migration tool has written down in the database."""

    tool: Text = Field(description="The tool: flyway, liquibase, alembic, django or rails.")
    version_before: Text | None = Field(default=None, description="The newest version that came with the data.")
    version_after: Text | None = Field(default=None, description="The newest version since.")
    failed: Annotated[tuple[Text, ...], Field(max_length=10)] = Field(
        default=(), description="The last versions that failed, as the tool says."
    )


class LockedTable(StatusModel):
    """A table that a migration was seen to lock against everybody, who only reads included."""

    table: Text = Field(description="The table, with its schema where that is not the default one.")
    held_seconds: Count = Field(description="How long it was locked at least, without a break.")
    waited_seconds: Count = Field(
        description="How long the migration waited at least to lock it; who came after it waited as well."
    )


class MigrationsStatus(StatusModel):
    """The migration that is on its way or has failed; else the last one that has run on the present copy."""

    job: Text = Field(description="The Job that runs it: kubectl logs job/<name>.")
    hash: Text = Field(description="Digest of the Pod template that it runs.")
    started_at: Time | None = Field(default=None, description="When it started.")
    finished_at: Time | None = Field(default=None, description="When it ended.")
    duration_seconds: Count | None = Field(default=None, description="How long it took, in seconds.")
    exit_code: int | None = Field(default=None, description="The code with which its program last ended in failure.")
    schema_before: Text | None = Field(default=None, description="Digest of all definitions before it.")
    schema_after: Text | None = Field(default=None, description="Digest of all definitions after it.")
    changes: Annotated[tuple[Text, ...], Field(max_length=50)] | None = Field(
        default=None, description="What it created, altered or dropped, by kind and name; the first 50 of them."
    )
    change_count: Count | None = Field(default=None, description="How many of them there are.")
    ledger: LedgerStatus | None = Field(
        default=None, description="What a migration tool has written down in the database."
    )
    locks: Annotated[tuple[LockedTable, ...], Field(max_length=20)] = Field(
        default=(),
        description="The tables that it was seen to lock against everybody, those first that others would have had to "
        "keep away from for longest. It is looked at once a second, where the engine has such locks.",
    )


class DataCloneStatus(ObservedStatus):
    """What the operator has made."""

    binding: BindingStatus | None = Field(
        default=None, description="The Secret with the connection, in the form of servicebinding.io."
    )
    endpoint: Endpoint | None = Field(default=None, description="Where the server listens.")
    snapshot: SnapshotIdentity | None = Field(default=None, description="The snapshot the present copy is made from.")
    source: CloneSource | None = Field(default=None, description="What the present copy holds.")
    resolved: ResolvedReference | None = Field(
        default=None, description="What the tag, commit or time of spec.from was last seen to name in the store."
    )
    copy_id: Text | None = Field(
        default=None, alias="copy", description="Number of the present copy; a reset makes another."
    )
    previous: PreviousCopy | None = Field(
        default=None, description="The copy that the last reset, or its undo, replaced, while it is kept."
    )
    expires_at: Time | None = Field(default=None, description="When the lease ends if nothing happens.")
    last_activity_at: Time | None = Field(default=None, description="When the clone was last used.")
    activity: Text | None = Field(
        default=None, description="An opaque mark of what the server had been asked when it was last looked at."
    )
    renewed_at: Time | None = Field(
        default=None,
        description="When somebody last asked for the clone: its creation, an extension or a new revision.",
    )
    revision: Text | None = Field(default=None, description="The revision that was acted upon.")
    migrations: MigrationsStatus | None = Field(default=None, description="The clone's migrations.")
    pull_request: PullRequestStatus | None = Field(
        default=None, description="What the forge has told of the pull request."
    )
    kept: KeptChanges | None = Field(
        default=None, description="Where onClose: KeepChanges has left, or leaves, what was changed."
    )
    comment: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None,
        description="What people read of the clone where its pull request is discussed (Markdown): which data it has, "
        "what migrations have changed, when it ends, and how to connect.",
    )
    handled: HandledRequests | None = Field(default=None, description="Requests by annotation that were acted upon.")


class DataClone(Resource):
    """A running, disposable environment made from a prepared snapshot."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataClone",
        plural="dataclones",
        short_names=("dclone",),
        columns=(
            *condition_column("Ready"),
            Column("Store", ".spec.from.store.name", "The DataStore."),
            Column(
                "From",
                ".spec.from['branch','tag','commit','snapshot','time','migration']",
                "What the clone is a copy of.",
            ),
            Column("Expires", ".status.expiresAt", "When the lease ends if nothing happens."),
            Column(
                "Pull-Request", ".spec.pullRequest.number", "The pull request it is for.", type="integer", priority=1
            ),
            Column("Pull-Request-State", ".status.pullRequest.state", "Whether that is open.", priority=1),
            Column("Endpoint", ".status.endpoint.host", "Where the server listens.", priority=1),
            Column("Binding", ".status.binding.name", "The Secret with the connection.", priority=1),
            AGE,
        ),
        rules=name_rules(40, SERVICE_NAME_PATTERN),
    )

    kind: Literal["DataClone"] = "DataClone"
    spec: DataCloneSpec = Field(description="The environment that is wanted.")
    status: DataCloneStatus = Field(
        default_factory=DataCloneStatus, description="What the operator has made; written by the operator alone."
    )
