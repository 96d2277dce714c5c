"""Types that several kinds share: names, durations, quantities, references, conditions, points in a store."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints, WithJsonSchema

from coppice.api.schema import BY_TYPE, Rule
from coppice.api.v1alpha1.base import SpecModel, StatusModel

if TYPE_CHECKING:
    from typing import Any


def _cron_field(value: str) -> str:
    """Return the pattern of one field: a list of values, ranges and steps."""
    item = rf"(\*|{value}(-{value})?)(/[1-9][0-9]?)?"
    return f"{item}(,{item})*"


LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SERVICE_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
ENGINE_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
DATABASE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]*$"
REF_PATTERN = r"^[^\x00-\x20\x7f~^:?*\[\\@{}]+$"
"""A branch or tag an engine may already have: no blanks, control characters or revision operators."""
NEW_BRANCH_PATTERN = r"^[A-Za-z0-9_]([.]?[A-Za-z0-9_-])*(/[A-Za-z0-9_]([.]?[A-Za-z0-9_-])*)*$"
COMMIT_PATTERN = r"^[0-9A-Za-z]+$"
MIGRATION_PATTERN = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$"
"""Whatever a tool lets a version be, without control characters and without blanks around it."""
DURATION_PATTERN = r"^([1-9][0-9]{0,3}d)?([1-9][0-9]{0,4}h)?([1-9][0-9]{0,5}m)?([1-9][0-9]{0,6}s)?$"
NEVER = "Never"
LIVE_BRANCH = "main"
"""Where an engine keeps no branches of its own: the store's own line, which nothing is committed to."""
DURATION_OR_NEVER_PATTERN = f"^{NEVER}$|{DURATION_PATTERN}"
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"
CRON_PATTERN = "^{}$".format(
    " ".join(
        _cron_field(value)
        for value in (
            "([0-5]?[0-9])",
            "([01]?[0-9]|2[0-3])",
            "(0?[1-9]|[12][0-9]|3[01])",
            f"(0?[1-9]|1[0-2]|{_MONTHS})",
            f"([0-7]|{_DAYS})",
        )
    )
)
"""Minute, hour, day of month, month, day of week, as in crontab(5)."""
QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
REASON_PATTERN = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"

Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
"""An RFC 1123 label: the name of a namespace, a store, a snapshot."""
ServiceName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=SERVICE_NAME_PATTERN)]
"""An RFC 1035 label, as Services need."""
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
"""An RFC 1123 subdomain: the name of a Secret, a ConfigMap, a claim, a class."""
DatabaseName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=DATABASE_PATTERN)]
RefName = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=REF_PATTERN)]
CommitName = Annotated[str, StringConstraints(min_length=4, max_length=64, pattern=COMMIT_PATTERN)]
MigrationVersion = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=MIGRATION_PATTERN)]
"""A version as a migration tool writes it down: 42, 20260301120000, shop.0042_price, 1975ea83b712."""
Duration = Annotated[str, StringConstraints(min_length=2, max_length=24, pattern=DURATION_PATTERN)]
"""Days, hours, minutes and seconds in this order, none of them zero: 90s, 2h, 1h30m, 3d."""
DurationOrNever = Annotated[str, StringConstraints(min_length=2, max_length=24, pattern=DURATION_OR_NEVER_PATTERN)]
Person = Annotated[str, StringConstraints(min_length=1, max_length=253)]
"""A user, or a group of users, as the API server knows them."""
Text = Annotated[str, StringConstraints(max_length=256)]
"""A short string of a status."""
Time = AwareDatetime
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    StringConstraints(max_length=27, pattern=QUANTITY_PATTERN),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 27, "pattern": QUANTITY_PATTERN}),
    Rule(
        "quantity(string(self)).isGreaterThan(quantity('0'))", "must be greater than zero", reason="FieldValueInvalid"
    ),
]
"""A Kubernetes quantity above zero, as text."""


def name_rules(max_length: int, pattern: str = LABEL_PATTERN) -> tuple[Rule, ...]:
    """Return the rules for ``metadata.name`` of a kind whose name goes into the names of other objects."""
    start = "start with a letter" if pattern == SERVICE_NAME_PATTERN else "start with a letter or digit"
    return (
        Rule(
            f"size(self.metadata.name) <= {max_length}",
            f"metadata.name must have at most {max_length} characters: choose a shorter one",
        ),
        Rule(
            f"self.metadata.name.matches('{pattern}')",
            f"metadata.name must {start} and hold only lower-case letters, digits and '-': choose another one",
        ),
    )


def keys_rule(pattern: str, max_length: int, what: str) -> Rule:
    """Return the rule for the keys of a map; structural schemas have no keyword for them."""
    return Rule(f"self.all(key, size(key) <= {max_length} && key.matches('{pattern}'))", what)


class DeletionPolicy(StrEnum):
    """What happens to the data when the object goes."""

    RETAIN = "Retain"
    DELETE = "Delete"


class CommitPolicy(StrEnum):
    """When an SQL commit becomes a commit of a versioned engine."""

    EXPLICIT = "Explicit"
    PER_TRANSACTION = "PerTransaction"


class DataKind(StrEnum):
    """Whether rows are as in the source or masked."""

    MASKED = "Masked"
    RAW = "Raw"


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One aspect of an object's state, as in the Kubernetes API conventions."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*$")] = Field(
        description="The aspect, for example Ready."
    )
    status: ConditionStatus = Field(description="Whether the condition holds: True, False or Unknown.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=REASON_PATTERN)] = Field(
        description="One word in CamelCase that says why; made for programs."
    )
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(
        default="", description="What is going on, with the names of the objects and the next step; made for people."
    )
    last_transition_time: Time = Field(description="When the status of the condition last changed.")
    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation the condition was computed from."
    )


Conditions = Annotated[tuple[Condition, ...], Field(max_length=32), *BY_TYPE]


class ObservedStatus(StatusModel):
    """What every status has."""

    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation this status was computed from."
    )
    conditions: Conditions = Field(default=(), description="The state of the object, aspect by aspect.")

    def condition(self, condition_type: str) -> Condition | None:
        """Return the condition of this type, if it is there."""
        return next((condition for condition in self.conditions if condition.type == condition_type), None)


class StoreRef(SpecModel):
    """Names a DataStore."""

    name: Label = Field(description="Name of the DataStore.")
    namespace: Label | None = Field(
        default=None,
        description="Namespace of the DataStore; this object's own if left out. Another one needs a DataGrant there.",
    )


class LocalStoreRef(SpecModel):
    """Names a DataStore in the object's own namespace."""

    name: Label = Field(description="Name of the DataStore in this namespace.")


class NameRef(SpecModel):
    """Names an object of a known kind in the same namespace."""

    name: ObjectName = Field(description="Name of the object in this namespace.")


class BindingStatus(StatusModel):
    """Names the Secret with the connection, as servicebinding.io asks."""

    name: Text = Field(description="Name of the Secret in this namespace.")


class Endpoint(StatusModel):
    """Where a server listens."""

    host: Text = Field(description="Host name inside the cluster.")
    port: Port = Field(description="TCP port.")


class ComputeResources(SpecModel):
    """What a database server gets of a node."""

    memory: Quantity | None = Field(
        default=None, description="Memory of the server, requested and at most, for example 512Mi."
    )
    cpu: Quantity | None = Field(default=None, description="CPU of the server, requested, for example 500m.")


class From(SpecModel):
    """A point in a store's history."""

    exactly_one_of: ClassVar[tuple[str, ...]] = ("branch", "tag", "commit", "snapshot", "time", "migration")

    branch: RefName | None = Field(default=None, description="The newest state of this branch.")
    tag: RefName | None = Field(default=None, description="The state this tag names.")
    commit: CommitName | None = Field(default=None, description="The state of this commit, by its hash.")
    snapshot: Label | None = Field(default=None, description="The DataSnapshot of this name in the store's namespace.")
    time: Time | None = Field(
        default=None, description="The state of the store's default branch at this time (RFC 3339)."
    )
    migration: MigrationVersion | None = Field(
        default=None,
        description="The newest DataSnapshot that has nothing beyond this version of the migration tool (Flyway, "
        "Liquibase, Alembic, Django or Rails), by what the tool has written down in the database.",
    )
