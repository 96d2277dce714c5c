"""The ground every kind stands on: model settings, metadata, and parsing that never raises for a user's object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from coppice.api.schema import VALIDATIONS, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    from coppice.api.schema import CrdInfo, JsonSchema

GROUP = "coppice.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def _wire_name(name: str) -> str:
    return to_camel(name.rstrip("_"))


def _without_empty(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    compact = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in compact.items() if item not in ([], {})}


class ApiModel(BaseModel):
    """A part of an object: immutable, camelCase on the wire."""

    model_config = ConfigDict(frozen=True, alias_generator=_wire_name, populate_by_name=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules over the whole model, enforced by the API server."""
    exactly_one_of: ClassVar[tuple[str, ...]] = ()
    """Wire names of which exactly one is set; enforced by the API server and here."""

    def dump(self) -> dict[str, Any]:
        """Return the JSON form without what is not set or empty: GitOps tools take empty lists for drift."""
        compact: dict[str, Any] = _without_empty(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return compact

    @classmethod
    def all_rules(cls) -> tuple[Rule, ...]:
        """Return the model's CEL rules with the one that ``exactly_one_of`` stands for."""
        names = cls.exactly_one_of
        if not names:
            return cls.rules
        present = ", ".join(f"has(self.{name})" for name in names)
        message = f"set exactly one of {', '.join(names)}"
        return (Rule(f"[{present}].exists_one(given, given)", message), *cls.rules)

    @model_validator(mode="after")
    def _check_exactly_one(self) -> Self:
        given = [name for name in self.exactly_one_of if self._by_wire_name(name) is not None]
        if self.exactly_one_of and len(given) != 1:
            raise ValueError(f"set exactly one of {', '.join(self.exactly_one_of)}")
        return self

    def _by_wire_name(self, wire_name: str) -> object:
        name = next(name for name, field in type(self).model_fields.items() if field.alias == wire_name)
        return getattr(self, name)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Add the model's CEL rules to its schema."""
        schema = handler(core_schema)
        rules = cls.all_rules()
        if rules:
            handler.resolve_ref_schema(schema)[VALIDATIONS] = [rule.manifest() for rule in rules]
        return schema


class SpecModel(ApiModel):
    """A part of a spec: a field nobody knows is an error, because ignoring it could ignore a wish."""

    model_config = ConfigDict(extra="forbid")


class StatusModel(ApiModel):
    """A part of a status: fields of a newer version are ignored."""

    model_config = ConfigDict(extra="ignore")


class Metadata(StatusModel):
    """The object metadata Coppice looks at."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()

    @property
    def is_deleting(self) -> bool:
        """Whether somebody has asked to delete the object."""
        return self.deletion_timestamp is not None


@dataclass(frozen=True, slots=True)
class InvalidResource:
    """An object that cannot be read: written for another version of Coppice, or past a missing validation.

    ``problems`` name fields and what is wrong with them, never the values.
    """

    api_version: str
    kind: str
    metadata: Metadata
    problems: tuple[str, ...]
    status: Mapping[str, Any]
    """The status as stored, so that conditions can be kept."""

    @property
    def message(self) -> str:
        """One line for a condition: what is wrong and what to do."""
        return f"{'; '.join(self.problems)}: correct the object, or upgrade the operator if it is older than the CRDs"


class Resource(ApiModel):
    """One object of a Coppice kind."""

    model_config = ConfigDict(extra="ignore")

    crd: ClassVar[CrdInfo]

    api_version: str = API_VERSION
    kind: str
    metadata: Metadata

    @classmethod
    def parse(cls, manifest: Mapping[str, Any]) -> Self | InvalidResource:
        """Return the object, or what is wrong with it; raise ``ValidationError`` only for broken metadata."""
        try:
            return cls.model_validate(manifest)
        except ValidationError as error:
            return InvalidResource(
                api_version=manifest.get("apiVersion", API_VERSION),
                kind=manifest.get("kind", cls.crd.kind),
                metadata=Metadata.model_validate(manifest.get("metadata", {})),
                problems=tuple(_problem(entry["loc"], entry["msg"]) for entry in error.errors(include_input=False)),
                status=manifest.get("status") or {},
            )


def _problem(location: tuple[int | str, ...], message: str) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return f"{path}: {message}" if path else message
