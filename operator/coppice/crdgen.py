"""Turns the API's pydantic models into CustomResourceDefinitions.

A JSON schema is not yet a structural schema
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema):
references are inlined, ``null`` alternatives and titles go, and a default stays only where a model asks for it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import yaml

from coppice.api.schema import SHOW_DEFAULT, VALIDATIONS
from coppice.api.v1alpha1 import GROUP, KINDS, VERSION
from coppice.apidoc import reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.api.schema import Column, JsonSchema
    from coppice.api.v1alpha1 import Resource

CATEGORY = "coppice"
REFERENCE = "docs/api.md"
HEADER = "# Generated from operator/coppice/api by `python -m coppice.crdgen --write`; do not edit.\n"

_API_VERSION_TEXT = "Group and version of this object's schema: coppice.dev/v1alpha1."
_KIND_TEXT = "Kind of this object."
_DROPPED = {"title", "default", "anyOf", "$ref", "const", SHOW_DEFAULT}


def crd_manifests() -> dict[str, dict[str, Any]]:
    """Return the CustomResourceDefinition of every kind by its plural."""
    return {model.crd.plural: _crd(model) for model in KINDS.values()}


def generated_files() -> dict[str, str]:
    """Return the text of every file that is made from the models, by its path in the checkout."""
    manifests = crd_manifests()
    definitions = {f"crds/{plural}.yaml": crd_yaml(manifest) for plural, manifest in manifests.items()}
    return {**definitions, REFERENCE: reference(manifests)}


def crd_yaml(manifest: Mapping[str, Any]) -> str:
    """Return a definition as it is stored in ``crds/``: same manifest, same bytes."""
    return HEADER + yaml.dump(manifest, Dumper=_PlainDumper, sort_keys=True, width=120, allow_unicode=True)


_METADATA: Final = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}}
"""A name is never longer; said here, it gives rules that take it apart a known cost."""


def structural_schema(model: type[Resource]) -> JsonSchema:
    """Return the structural schema of a kind, ``status`` included."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    fields = {name: _structural(schema["properties"][name], definitions) for name in ("spec", "status")}
    return {
        "type": "object",
        "description": model.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": _API_VERSION_TEXT},
            "kind": {"type": "string", "description": _KIND_TEXT},
            "metadata": _METADATA,
            **fields,
        },
        VALIDATIONS: [rule.manifest() for rule in model.crd.rules],
    }


def _crd(model: type[Resource]) -> dict[str, Any]:
    info = model.crd
    names = {
        "kind": info.kind,
        "listKind": f"{info.kind}List",
        "plural": info.plural,
        "singular": info.singular,
        "shortNames": list(info.short_names),
        "categories": [CATEGORY],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in info.columns],
        "schema": {"openAPIV3Schema": structural_schema(model)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _column(column: Column) -> dict[str, Any]:
    fields = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.json_path,
        "description": column.description,
    }
    return {**fields, "priority": column.priority} if column.priority else fields


def _structural(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> JsonSchema:
    schema = _resolved(schema, definitions)
    result = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if schema.get(SHOW_DEFAULT):
        result["default"] = schema["default"]
    if "properties" in result:
        result["properties"] = {name: _structural(field, definitions) for name, field in result["properties"].items()}
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    # A structural schema forbids `additionalProperties` beside `properties`; unknown fields are pruned or warned about.
    if "properties" in result or not result.get("additionalProperties", True):
        result.pop("additionalProperties", None)
    elif "additionalProperties" in result:
        result["additionalProperties"] = _structural(result["additionalProperties"], definitions)
    return result


def _resolved(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> JsonSchema:
    """Put what a reference or an optional value stands for in its place; what is said beside it wins."""
    if "$ref" in schema:
        inner = definitions[schema["$ref"].removeprefix("#/$defs/")]
    elif "anyOf" in schema:
        (inner,) = (branch for branch in schema["anyOf"] if branch != {"type": "null"})
    else:
        return schema
    inner = _resolved(inner, definitions)
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    merged = {**inner, **beside}
    rules = [*inner.get(VALIDATIONS, []), *beside.get(VALIDATIONS, [])]
    return {**merged, VALIDATIONS: rules} if rules else merged


class _PlainDumper(yaml.SafeDumper):
    """Writes every value in full: anchors would hide what a definition says, and break tools that read lines."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


@click.command()
@click.option("--write/--check", required=True, help="Write the files, or fail if they differ from the models.")
@click.option("--root", type=click.Path(path_type=Path), default=Path(), help="The checkout that has crds/ and docs/.")
def main(*, write: bool, root: Path) -> None:
    """Write the CustomResourceDefinitions and their reference to files, or check that the files are up to date."""
    wanted = generated_files()
    found = {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in (*(root / "crds").glob("*.yaml"), root / REFERENCE)
        if path.exists()
    }
    stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if not write and stale:
        click.echo(f"{', '.join(stale)} out of date: run `python -m coppice.crdgen --write`", err=True)
        sys.exit(1)
    for name in stale:
        if name not in wanted:
            (root / name).unlink()
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(wanted[name], encoding="utf-8")


if __name__ == "__main__":
    main()
