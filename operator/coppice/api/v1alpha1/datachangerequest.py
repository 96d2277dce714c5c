"""DataChangeRequest: a proposal to bring what changed on a clone or branch into a branch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, Column, CrdInfo, Rule, ShowDefault, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel, StatusModel
from coppice.api.v1alpha1.common import (
    Count,
    Label,
    LocalStoreRef,
    ObservedStatus,
    Person,
    RefName,
    Text,
    Time,
    name_rules,
)

MAX_TABLES = 100
MAX_STATEMENTS = 50
MAX_LISTED_CONFLICTS = 100
MAX_REVIEWS = 50
MAX_CHECKS = 50

ConflictId = Annotated[str, StringConstraints(min_length=16, max_length=16, pattern=r"^[0-9a-f]{16}$")]
TableName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ProposedClone(SpecModel):
    """Names the DataClone whose changes are proposed."""

    name: Label = Field(description="Name of the DataClone.")
    namespace: Label | None = Field(
        default=None,
        description="Namespace of the DataClone; this object's own if left out. Another one needs a DataGrant for it "
        "in this namespace with the verb Propose.",
    )


class ChangeSource(SpecModel):
    """Where the changes are."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("branch", "clone", "revertOf")

    branch: RefName | None = Field(default=None, description="A branch of the store.")
    clone: ProposedClone | None = Field(default=None, description="A clone of the store: the branch that it works on.")
    revert_of: Label | None = Field(
        default=None,
        description="A published DataChangeRequest in this namespace: what it brought is taken back, and what came "
        "after it stays.",
    )


class ChangeTarget(SpecModel):
    """Where the changes go."""

    branch: RefName = Field(
        description="A branch of the store; of an engine without branches in its server the one that the live server "
        "is, as status.branches of the DataStore names it."
    )


class Publish(StrEnum):
    """What an approved change becomes."""

    BRANCH = "Branch"
    DATABASE = "Database"
    PATCH = "Patch"
    REBASE = "Rebase"


class MergePolicy(StrEnum):
    """When an approved change is published."""

    WHEN_APPROVED = "WhenApproved"
    MANUAL = "Manual"


class Take(StrEnum):
    """Which side of a conflict is taken."""

    SOURCE = "Source"
    TARGET = "Target"


class Resolution(SpecModel):
    """One decision; the one that says most exactly what is meant wins."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.conflict), has(self.row), has(self.table)].filter(given, given).size() <= 1",
            "name one of conflict, row and table, or none of them for everything",
        ),
    )

    conflict: ConflictId | None = Field(
        default=None, description="One conflict, by its id in status.conflicts: a single cell, or a whole row."
    )
    row: ConflictId | None = Field(default=None, description="All conflicts of one row, by its id in status.conflicts.")
    table: TableName | None = Field(default=None, description="All conflicts of a table.")
    take: Take = Field(description="Source takes what is proposed, Target leaves what is there.")


class DataChangeRequestSpec(SpecModel):
    """What is proposed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.from.branch) || self.from.branch != self.into.branch",
            "from and into name the same branch: nothing would change",
            field_path=".from.branch",
        ),
        Rule(
            "!has(self.publish) || self.publish != 'Rebase' || has(self.from.clone)",
            "a clone is rebased: name it in from.clone; a branch is by a request from its parent into it",
            field_path=".publish",
        ),
        Rule(
            "!has(self.publish) || !(self.publish in ['Database', 'Patch']) || has(self.from.clone)",
            "a live database gets what a clone has changed: name it in from.clone",
            field_path=".publish",
        ),
    )

    title: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description="What the change is, in one line; the first line of the commit."
    )
    description: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        default=None, description="Why, for those who review; it goes into the commit."
    )
    store: Annotated[LocalStoreRef, immutable("store", "make another DataChangeRequest")] = Field(
        description="The DataStore, in this namespace, that the change goes into."
    )
    author: Annotated[Person, immutable("author", "make another DataChangeRequest")] = Field(
        description="Who proposes it: your own user name, as kubectl auth whoami prints it. The API server refuses "
        "any other."
    )
    from_: Annotated[ChangeSource, immutable("from", "make another DataChangeRequest from the other source")] = Field(
        description="Where the changes are."
    )
    into: Annotated[ChangeTarget, immutable("into", "make another DataChangeRequest into the other branch")] = Field(
        description="Where the changes go."
    )
    publish: Annotated[Publish, ShowDefault, immutable("publish", "make another DataChangeRequest")] = Field(
        default=Publish.BRANCH,
        description="What the change becomes. Branch: a commit on the branch, once it is approved. Rebase: the clone "
        "in from is brought up to the branch and keeps its own changes; the branch stays as it is, and nobody has to "
        "approve. Both are for engines that merge. For those that do not: Database: once it is approved, one "
        "transaction on the live server, which fails as a whole if a row is not as it was reviewed. Patch: the same as "
        "SQL that somebody runs there, printed by coppice patch.",
    )
    merge: Annotated[MergePolicy, ShowDefault] = Field(
        default=MergePolicy.WHEN_APPROVED,
        description="When an approved change is published: WhenApproved, or Manual: once a maintainer sets "
        "spec.merge to WhenApproved.",
    )
    not_before: Time | None = Field(default=None, description="Publish it at this time at the earliest.")
    resolutions: Annotated[tuple[Resolution, ...], Field(max_length=200)] = Field(
        default=(), description="How conflicts are resolved; part of what is approved."
    )
    preview: bool = Field(
        default=True,
        description="Whether people are shown a clone with the change merged in while the request is open, to look at "
        "before they approve. True if left out. It is computed on a server of its own in any case, which runs until "
        "the request is published or deleted.",
    )


class VersionStatus(StatusModel):
    """One side of the merge."""

    branch: Text | None = Field(default=None, description="The branch.")
    head: Text = Field(
        description="Hash of the newest commit; of an engine without commits a digest of what is proposed."
    )


class TableStatus(StatusModel):
    """What changes in a table."""

    table: Annotated[str, StringConstraints(max_length=256)] = Field(description="Name of the table.")
    added: Count = Field(description="Rows that are added.")
    modified: Count = Field(description="Rows that are changed.")
    deleted: Count = Field(description="Rows that are deleted.")


class ConflictStatus(StatusModel):
    """One conflict, without any value: coppice diff --conflicts shows them."""

    id: Text = Field(description="What a resolution calls it.")
    row: Text | None = Field(default=None, description="What a resolution calls all conflicts of its row.")
    kind: Text = Field(description="Cell, Row, Schema, ForeignKey, Unique, Check or NotNull.")
    table: Text = Field(description="Name of the table.")
    column: Text | None = Field(default=None, description="Name of the column, where it is of one.")
    detail: Text | None = Field(default=None, description="Name of the constraint that is broken.")


class ConflictsStatus(StatusModel):
    """What both sides changed."""

    open: Count = Field(description="How many wait for a decision.")
    decided: Count = Field(description="How many spec.resolutions decides.")
    listed: Annotated[tuple[ConflictStatus, ...], Field(max_length=MAX_LISTED_CONFLICTS)] = Field(
        default=(), description="The first of those that wait."
    )


class CheckStatus(StatusModel):
    """One check of the owners'."""

    name: Text = Field(description="Its name in spec.protection of the DataStore.")
    passed: bool = Field(description="Whether it found nothing, or its Job has succeeded.")
    message: Text | None = Field(default=None, description="What it found, in numbers, or how its Job is.")
    job: Text | None = Field(default=None, description="The Job that runs it, or has run it, for its log.")
    digest: Text | None = Field(
        default=None, description="Digest of what that Job runs: of the Job's that spec.protection names."
    )
    result: Text | None = Field(
        default=None, description="Hash of the merged commit that it was run on; one of another commit runs anew."
    )
    finished_at: Time | None = Field(default=None, description="When its Job ended; it runs until then.")


class ReviewStatus(StatusModel):
    """What one person's review comes to."""

    review: Text = Field(description="Name of the DataReview.")
    reviewer: Text = Field(description="Who it is of.")
    verdict: Text = Field(description="Approve or RequestChanges.")
    counts: bool = Field(description="Whether it counts for what is proposed now.")
    why: Text | None = Field(default=None, description="Why it does not.")


class PatchStatus(StatusModel):
    """What would be published now: an approval names all of it."""

    proposal: Text = Field(
        description="Digest of which DataChangeRequest it is (its UID), of which DataStore, from where and into what: "
        "one that is made anew under its name is another."
    )
    source: Text = Field(
        description="Hash of the newest commit that is proposed; of an engine without commits a digest of all that "
        "the clone has changed."
    )
    resolutions: Text = Field(description="Digest of spec.resolutions.")
    digest: Text = Field(
        description="Digest of all that changes on the target, by a key of the store's: no value can be tried by it."
    )


class PreviewStatus(StatusModel):
    """Where people look at the change."""

    clone: Text = Field(description="Name of the DataClone in this namespace.")
    ready: bool = Field(
        default=False, description="Whether it shows what would be published now, and nobody has written to it since."
    )
    commit: Text | None = Field(default=None, description="Hash of the commit that it was brought to last.")
    set_at: Time | None = Field(default=None, description="When. What is written to it is taken back after a minute.")


class PublishedStatus(StatusModel):
    """What became of it."""

    commit: Text = Field(
        description="Hash of the commit on the target's branch; of what was written to a live database xid: and the "
        "transaction, by its number and its server, or patch: and the digest where somebody else has run it."
    )
    before: Text | None = Field(
        default=None,
        description="Where the branch was before; of a rebase, where the clone was; of a live database nothing.",
    )
    tag: Text | None = Field(default=None, description="The tag at that commit, if it could be made.")
    at: Time = Field(description="When.")


class DataChangeRequestStatus(ObservedStatus):
    """What the operator has computed; it holds no values of rows."""

    source: VersionStatus | None = Field(default=None, description="What is proposed.")
    committed_at: Time | None = Field(
        default=None, description="When the operator last committed what nobody had committed on the clone."
    )
    target: VersionStatus | None = Field(default=None, description="What it was merged with.")
    base: Text | None = Field(
        default=None,
        description="Hash of the newest commit that both have; of an engine without commits the DataSnapshot that the "
        "clone was made from.",
    )
    scratch: Text | None = Field(
        default=None, description="Name of the DataClone in this namespace on whose server it is computed."
    )
    result: Text | None = Field(
        default=None,
        description="Hash of the merged commit on the scratch server; of an engine without commits a digest of what is "
        "left to write, by the password of that server's applications: coppice patch compares it.",
    )
    patch: PatchStatus | None = Field(default=None, description="What an approval names.")
    tables: Annotated[tuple[TableStatus, ...], Field(max_length=MAX_TABLES)] = Field(
        default=(), description="What changes, table by table; the first of them."
    )
    table_count: Count | None = Field(default=None, description="How many tables change.")
    schema_: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=2000)], ...], Field(max_length=MAX_STATEMENTS)
    ] = Field(default=(), description="Changes of definitions, as SQL; the first of them, cut where they are long.")
    conflicts: ConflictsStatus | None = Field(default=None, description="What both sides changed.")
    checks: Annotated[tuple[CheckStatus, ...], Field(max_length=MAX_CHECKS)] = Field(
        default=(), description="What the owners' checks say of the result."
    )
    reviews: Annotated[tuple[ReviewStatus, ...], Field(max_length=MAX_REVIEWS)] = Field(
        default=(), description="What people say of it."
    )
    preview: PreviewStatus | None = Field(default=None, description="Where people look at the change.")
    publishing: Text | None = Field(
        default=None,
        description="Hash of the commit that the target's branch is about to become; xid: and the "
        "transaction that is about to be committed on a live database; patch: and the digest of what is handed over; "
        "of both with the digest of all that the clone had changed.",
    )
    published: PublishedStatus | None = Field(default=None, description="What became of it.")


class DataChangeRequest(Resource):
    """A proposal: what changed on a clone or branch, into a branch."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataChangeRequest",
        plural="datachangerequests",
        short_names=("dcr",),
        columns=(
            *condition_column("Published"),
            *condition_column("Mergeable", wide_reason=False),
            *condition_column("Approved", wide_reason=False),
            Column("Into", ".spec.into.branch", "The branch it goes into."),
            Column("Author", ".spec.author", "Who proposes it."),
            Column("Title", ".spec.title", "What the change is.", priority=1),
            AGE,
        ),
        rules=name_rules(40),
    )

    kind: Literal["DataChangeRequest"] = "DataChangeRequest"
    spec: DataChangeRequestSpec = Field(description="What is proposed.")
    status: DataChangeRequestStatus = Field(
        default_factory=DataChangeRequestStatus, description="What the operator has computed; written by it alone."
    )
