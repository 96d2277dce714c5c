"""DataGrant: the owners' consent, on their terms, in the store's namespace."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from coppice.api.schema import AGE, SET, Column, CrdInfo, Rule, ShowDefault, condition_column, immutable
from coppice.api.v1alpha1.base import Resource, SpecModel
from coppice.api.v1alpha1.common import (
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    Count,
    DataKind,
    DurationOrNever,
    Label,
    ObservedStatus,
    keys_rule,
    name_rules,
)
from coppice.api.v1alpha1.pullrequest import GrantedRepository

LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE_PATTERN)]


class Verb(StrEnum):
    """What a namespace may do with a store."""

    CLONE = "Clone"
    BRANCH = "Branch"
    PROPOSE = "Propose"


class SelectorOperator(StrEnum):
    """How a selector compares the value of a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(SpecModel):
    """One demand on the labels of a namespace."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "In and NotIn need values; Exists and DoesNotExist take none",
            field_path=".operator",
        ),
    )

    key: Annotated[str, StringConstraints(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN)] = Field(
        description="Key of the label."
    )
    operator: SelectorOperator = Field(description="How the label is compared: In, NotIn, Exists or DoesNotExist.")
    values: Annotated[tuple[LabelValue, ...], Field(max_length=50)] = Field(
        default=(), description="Values for In and NotIn."
    )


class LabelSelector(SpecModel):
    """Selects namespaces by their labels; all demands must hold."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) "
            "|| (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "an empty selector would select every namespace: name labels, or the key kubernetes.io/metadata.name "
            "with the operator Exists if every namespace is meant",
        ),
    )

    match_labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=20),
        keys_rule(LABEL_KEY_PATTERN, 317, "keys are those of labels, for example coppice.dev/previews"),
    ] = Field(default_factory=dict, description="Labels the namespace has, with these values.")
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=20)] = Field(
        default=(), description="Further demands on the labels of the namespace."
    )


class GrantTo(SpecModel):
    """The namespaces that are given something."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("namespaceSelector", "namespaces")

    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces by their labels. Who may label namespaces decides who is meant."
    )
    namespaces: Annotated[tuple[Label, ...], Field(min_length=1, max_length=200), SET] | None = Field(
        default=None, description="Namespaces by name."
    )


class MaxClones(SpecModel):
    """How many clones there may be at once under this grant."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.perNamespace) || !has(self.total) || self.perNamespace <= self.total",
            "perNamespace cannot be more than total: raise total or lower perNamespace",
            field_path=".perNamespace",
        ),
    )

    per_namespace: Annotated[int, Field(ge=0, le=10000)] | None = Field(
        default=None, description="Clones in one namespace; no bound if left out. 0 lets no new ones in."
    )
    total: Annotated[int, Field(ge=0, le=10000)] | None = Field(
        default=None, description="Clones in all namespaces together; no bound if left out. 0 lets no new ones in."
    )


class DataGrantSpec(SpecModel):
    """What the owners of a store allow, and to whom."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.forks) || !self.forks || has(self.repositories)",
            "forks are those of repositories: set repositories, or leave forks out",
            field_path=".forks",
        ),
    )

    store: Annotated[Label, immutable("store", "create another DataGrant for the other store")] = Field(
        description="Name of the DataStore in this namespace."
    )
    to: GrantTo = Field(description="The namespaces that are given something.")
    verbs: Annotated[tuple[Verb, ...], Field(min_length=1, max_length=3), SET] = Field(
        description="What they may do: Clone (run copies of their own), Branch (create branches in the store; where "
        "the engine keeps no branches: its owners may commit clones of these namespaces, and so take what is in them, "
        "without asking there once more), Propose (the store's owners may propose what was changed on clones of these "
        "namespaces, in a DataChangeRequest, without asking there once more)."
    )
    data: Annotated[DataKind, ShowDefault] = Field(
        default=DataKind.MASKED,
        description="Masked allows clones of masked snapshots only; Raw allows all rows as they are. "
        "It is always all bytes of a snapshot, never one branch of it.",
    )
    repositories: Annotated[tuple[GrantedRepository, ...], Field(min_length=1, max_length=100), SET] | None = Field(
        default=None,
        description="The repositories that these namespaces speak for, with the host, for example "
        "github.com/acme/shop. With it the grant is for DataClones of a pull request (spec.pullRequest) of one of them "
        "only, as number of which the label coppice.dev/pull-request of the namespace counts. Left out: for all "
        "objects of these namespaces.",
    )
    forks: bool = Field(
        default=False,
        description="Whether pull requests from forks are meant, too: with repositories. One of which it is not known "
        "counts as one from a fork: the forge says it where one is configured, else the label coppice.dev/fork of the "
        "namespace.",
    )
    max_lease: DurationOrNever = Field(
        default="7d",
        description="Longest life of a clone without a renewal, for example 7d (the value if left out). "
        "Never allows clones that stay.",
    )
    max_clones: MaxClones = Field(
        default_factory=MaxClones, description="How many clones there may be at once under this grant."
    )


class DataGrantStatus(ObservedStatus):
    """How the grant is used."""

    clones: Count | None = Field(
        default=None,
        description="Clones that have data by this grant, without those in the queue; counted about once a minute.",
    )


class DataGrant(Resource):
    """The owners' consent: which namespaces may clone or branch, on which terms."""

    crd: ClassVar[CrdInfo] = CrdInfo(
        kind="DataGrant",
        plural="datagrants",
        short_names=("dgrant",),
        columns=(
            *condition_column("Ready"),
            Column("Store", ".spec.store", "The DataStore."),
            Column("Verbs", ".spec.verbs", "What is allowed."),
            Column("Data", ".spec.data", "Masked or raw rows."),
            Column("Clones", ".status.clones", "Clones that live by this grant.", type="integer"),
            Column("Repositories", ".spec.repositories", "The pull requests it is for.", priority=1),
            Column("Max-Lease", ".spec.maxLease", "Longest life of a clone.", priority=1),
            AGE,
        ),
        rules=name_rules(63),
    )

    kind: Literal["DataGrant"] = "DataGrant"
    spec: DataGrantSpec = Field(description="What the owners of a store allow, and to whom.")
    status: DataGrantStatus = Field(
        default_factory=DataGrantStatus, description="What the operator has seen; written by the operator alone."
    )
