"""DataReview: one person's verdict on one state of a DataChangeRequest."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, SET, Column, CrdInfo, Rule, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel
from coppice.api.v1alpha1.common import Label, ObservedStatus, Person, name_rules

Digest = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[0-9A-Za-z]+$")]


class Verdict(StrEnum):
    """What a reviewer says."""

    APPROVE = "Approve"
    REQUEST_CHANGES = "RequestChanges"


class ReviewedPatch(SpecModel):
    """The state that was looked at, as status.patch of the DataChangeRequest names it."""

    proposal: Digest = Field(
        description="Digest of which DataChangeRequest it is (its UID), of which DataStore, from where and into what."
    )
    source: Digest = Field(description="Hash of the newest commit that is proposed.")
    resolutions: Digest = Field(description="Digest of spec.resolutions.")
    digest: Digest = Field(description="Digest of all that changes on the target.")


class DataReviewSpec(SpecModel):
    """One person's verdict."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.verdict != 'Approve' || has(self.patch)",
            "an approval says what was looked at: copy status.patch of the DataChangeRequest, or use coppice review",
            field_path=".patch",
            reason="FieldValueRequired",
        ),
    )

    request: Annotated[Label, immutable("request", "make another DataReview")] = Field(
        description="Name of the DataChangeRequest in this namespace."
    )
    reviewer: Annotated[Person, immutable("reviewer", "make another DataReview")] = Field(
        description="Whose verdict it is: your own user name, as kubectl auth whoami prints it. The API server refuses "
        "any other."
    )
    groups: Annotated[tuple[Person, ...], Field(max_length=20), SET] = Field(
        default=(),
        description="Groups that the reviewer speaks for, of those that kubectl auth whoami prints. The API server "
        "refuses any other.",
    )
    verdict: Verdict = Field(description="Approve, or RequestChanges, which keeps the change from being published.")
    patch: ReviewedPatch | None = Field(default=None, description="What was looked at.")
    comment: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        default=None, description="Why, for the author; without data that others may not see."
    )


class DataReviewStatus(ObservedStatus):
    """What the review comes to."""


class DataReview(Resource):
    """One person's verdict on one state of a DataChangeRequest."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataReview",
        plural="datareviews",
        short_names=("drev",),
        columns=(
            Column("Request", ".spec.request", "The DataChangeRequest."),
            Column("Reviewer", ".spec.reviewer", "Whose verdict it is."),
            Column("Verdict", ".spec.verdict", "What they say."),
            *condition_column("Counted"),
            AGE,
        ),
        rules=name_rules(63),
    )

    kind: Literal["DataReview"] = "DataReview"
    spec: DataReviewSpec = Field(description="One person's verdict.")
    status: DataReviewStatus = Field(
        default_factory=DataReviewStatus, description="What the operator has seen; written by the operator alone."
    )
