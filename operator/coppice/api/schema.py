"""What a pydantic model cannot say about a custom resource by itself: CEL rules, list types, printer columns.

The markers sit in ``Annotated`` types and in class variables of the models, so that a field, its meaning and its
rules stand in one place; ``coppice.crdgen`` turns all of it into structural schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

VALIDATIONS = "x-kubernetes-validations"
SHOW_DEFAULT = "x-coppice-show-default"

JsonSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule the API server enforces; ``self`` is the annotated field, or the model that lists the rule.

    The message tells the user what to do. ``field_path`` and ``reason`` are those of ``x-kubernetes-validations``.
    """

    expression: str
    message: str
    field_path: str | None = None
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] | None = None

    def manifest(self) -> JsonSchema:
        """Return the rule as one entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.expression, "message": self.message, "fieldPath": self.field_path, "reason": self.reason}
        return {key: value for key, value in entry.items() if value is not None}

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Add the rule to the field's schema."""
        schema = handler(core_schema)
        schema[VALIDATIONS] = [*schema.get(VALIDATIONS, []), self.manifest()]
        return schema


@dataclass(frozen=True, slots=True)
class Keyword:
    """One extra keyword in a field's schema, such as ``x-kubernetes-list-type``."""

    name: str
    value: Any

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Set the keyword in the field's schema."""
        schema = handler(core_schema)
        schema[self.name] = self.value
        return schema


SET = Keyword("x-kubernetes-list-type", "set")
BY_TYPE = (Keyword("x-kubernetes-list-type", "map"), Keyword("x-kubernetes-list-map-keys", ["type"]))
ShowDefault = Keyword(SHOW_DEFAULT, True)
"""The API server fills the default in, so that it shows in the object; all other defaults live in code alone."""


def immutable(what: str, instead: str = "delete the object and create it anew") -> Rule:
    """Return the rule that ``what`` never changes; ``instead`` says what to do when it must."""
    return Rule("self == oldSelf", f"{what} is immutable: {instead}", reason="FieldValueForbidden")


def immutable_optional(path: str, instead: str, *, parent: str = "") -> Rule:
    """Return the rule that an optional field never changes, appears or goes; it stands where the field itself may not.

    ``parent`` is the optional object on the way to the field. Optional types of CEL (``self.?field.orValue``) would be
    shorter, but lose the bounds of the field, and with them the rule's known cost.
    """

    def value(root: str) -> str:
        steps = [f"{root}.{parent}", f"{root}.{parent}.{path}"] if parent else [f"{root}.{path}"]
        present = " && ".join(f"has({step})" for step in steps)
        return f"({present} ? {steps[-1]} : '')"

    full = f"{parent}.{path}" if parent else path
    return Rule(
        f"{value('self')} == {value('oldSelf')}",
        f"{full} is immutable: {instead}",
        field_path=f".{parent or path}",
        reason="FieldValueForbidden",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; priority 1 shows with ``-o wide`` only."""

    name: str
    json_path: str
    description: str
    type: Literal["string", "integer", "date", "boolean"] = "string"
    priority: Literal[0, 1] = 0


@dataclass(frozen=True, slots=True)
class CrdInfo:
    """What the API server needs to know of a kind beside its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def singular(self) -> str:
        """The name of one object in ``kubectl get``."""
        return self.kind.lower()


def condition_column(condition: str, *, wide_reason: bool = True) -> tuple[Column, ...]:
    """Return the columns for one condition: its status, and its reason in the wide form."""
    path = f'.status.conditions[?(@.type=="{condition}")]'
    status = Column(condition, f"{path}.status", f"Status of the condition {condition}.")
    reason = Column("Reason", f"{path}.reason", f"Why {condition} has this status.", priority=1)
    return (status, reason) if wide_reason else (status,)


AGE = Column("Age", ".metadata.creationTimestamp", "Time since the object was created.", type="date")
