"""Writes the reference of the API from the same definitions the API server gets, so that it cannot be out of date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RULES = "x-kubernetes-validations"

_INTRODUCTION = """\
# API reference: `coppice.dev/v1alpha1`

<!-- Generated from operator/coppice/api by `python -m coppice.crdgen --write`; do not edit. -->

The same text answers `kubectl explain <kind>.spec --recursive`. All kinds are namespaced and in the category `coppice`:
`kubectl get coppice` lists them. A field marked * is required. `[]` stands for each entry of a list, `{}` for each
value of a map.

A duration is days, hours, minutes and seconds in this order, none of them zero: `90s`, `1h30m`, `3d`. A quantity is
written as everywhere in Kubernetes: `512Mi`, `20Gi`, `500m`.

One-off requests to a DataClone are annotations whose value is new each time, for example the present time:
`coppice.dev/reset-requested-at`, `coppice.dev/undo-requested-at`, `coppice.dev/extend-requested-at`,
`coppice.dev/wake-requested-at`. What has been done is in `status.handled`. To a DataStore there are
`coppice.dev/refresh-requested-at` (a mirror; `status.mirror.refreshRequestedAt` is the one that its data are of) and
`coppice.dev/optimize-requested-at` (`status.optimization` is what came of it).
"""


def reference(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the reference as Markdown."""
    return "\n".join([_INTRODUCTION, *(_kind(manifest) for manifest in manifests.values())])


def _kind(manifest: Mapping[str, Any]) -> str:
    names = manifest["spec"]["names"]
    root = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [
        f"## {names['kind']}",
        root["description"],
        f"Short name: `{'`, `'.join(names['shortNames'])}`.",
        _table("spec", root["properties"]["spec"]),
        "Rules:",
        "\n".join(f"- `{place}`: {rule['message']}." for place, rule in _rules(root)),
        _table("status", root["properties"]["status"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(name: str, schema: Mapping[str, Any]) -> str:
    head = f"### {name}\n\n{schema['description']}\n\n| field | type | meaning |\n|---|---|---|"
    return "\n".join([head, *_rows("", schema)])


def _rows(prefix: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        mark = "*" if name in schema.get("required", []) else ""
        yield f"| `{path}`{mark} | {_type(field)} | {_escaped(' '.join([field['description'], *_bounds(field)]))} |"
        if name == "conditions":  # the same in every kind, and known from the API conventions
            continue
        yield from _rows(f"{path}.", field)
        for mark, inner in (("[]", "items"), ("{}", "additionalProperties")):
            yield from _rows(f"{path}{mark}.", field.get(inner, {}))


def _type(schema: Mapping[str, Any]) -> str:
    if "x-kubernetes-int-or-string" in schema:
        return "quantity"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return {"date-time": "time"}.get(schema.get("format", ""), str(schema["type"]))


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    values = schema.get("enum", schema.get("items", {}).get("enum", []))
    if values:
        yield f"One of {', '.join(f'`{value}`' for value in values)}."
    if "default" in schema:
        yield f"Default `{schema['default']}`."
    if "minimum" in schema and "maximum" in schema:
        yield f"{schema['minimum']} to {schema['maximum']}."
    if "maxItems" in schema or "maxProperties" in schema:
        yield f"At most {schema.get('maxItems', schema.get('maxProperties'))} entries."


def _rules(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, str]]]:
    for rule in schema.get(RULES, []):
        yield path or "metadata.name", rule
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}".lstrip("."))
    for mark, inner in (("[]", "items"), ("{}", "additionalProperties")):
        if inner in schema:
            yield from _rules(schema[inner], f"{path}{mark}")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
