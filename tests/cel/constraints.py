"""Finds everything a definition demands of a spec, so that nothing is demanded without a test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from coppice.crdgen import crd_manifests

KEYWORDS = (
    "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties", "enum", "format",
    "x-kubernetes-list-type", "x-kubernetes-int-or-string",
)  # fmt: skip
RULES = "x-kubernetes-validations"


@dataclass(frozen=True)
class Constraint:
    """One demand: where it stands, which it is, and its argument (of a rule its message, of ``required`` the field)."""

    kind: str
    path: str
    keyword: str
    argument: Any
    schema: dict[str, Any]

    @property
    def id(self) -> str:
        shown = f" {self.argument}" if self.keyword in ("rule", "required") else ""
        return f"{self.kind}{self.path or '.'} {self.keyword}{shown}"

    @property
    def wire_path(self) -> str:
        """The path as the API server's answers begin it: without the leading dot and what follows a list or a map."""
        return self.path.partition("[]")[0].partition("{}")[0].lstrip(".")


def constraints() -> list[Constraint]:
    """Return the demands of all kinds on names and specs."""
    found = []
    for manifest in crd_manifests().values():
        kind = manifest["spec"]["names"]["kind"]
        root = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        found += [Constraint(kind, "", "rule", rule["message"], root) for rule in root[RULES]]
        found += list(_below(kind, ".spec", root["properties"]["spec"]))
    return found


def _below(kind: str, path: str, schema: dict[str, Any]) -> Iterator[Constraint]:
    for keyword in KEYWORDS:
        if keyword in schema:
            yield Constraint(kind, path, keyword, schema[keyword], schema)
    for name in schema.get("required", []):
        yield Constraint(kind, path, "required", name, schema)
    for rule in schema.get(RULES, []):
        yield Constraint(kind, path, "rule", rule["message"], schema)
    for name, field in schema.get("properties", {}).items():
        yield from _below(kind, f"{path}.{name}", field)
    if "items" in schema:
        yield from _below(kind, f"{path}[]", schema["items"])
    if "additionalProperties" in schema:
        yield from _below(kind, f"{path}{{}}", schema["additionalProperties"])
