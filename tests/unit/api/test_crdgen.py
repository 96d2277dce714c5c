"""The CRDs: in step with the models, structural, bounded, described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from coppice import crdgen
from coppice.api.v1alpha1 import KINDS

ROOT = Path(__file__).parents[3]
MANIFESTS = crdgen.crd_manifests()
FORBIDDEN = {
    "$ref", "$defs", "title", "const", "examples", "prefixItems", "uniqueItems", "deprecated", "oneOf", "anyOf", "allOf", "not",
    "exclusiveMinimum", "exclusiveMaximum", "propertyNames", "definitions", "patternProperties", "nullable",
}  # fmt: skip


def root_schema(plural: str) -> dict[str, Any]:
    return MANIFESTS[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas below spec and status, with their paths."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        if path or name in ("spec", "status"):
            yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


NODES = [
    pytest.param(schema, id=f"{plural}{path}")
    for plural in MANIFESTS
    for path, schema in nodes(root_schema(plural))
    if path
]


def run(option, root):
    return CliRunner().invoke(crdgen.main, [option, "--root", str(root)])


def test_committed_files_are_those_the_models_make():
    result = run("--check", ROOT)
    assert result.exit_code == 0, result.output


def test_check_names_the_files_that_drifted_and_write_puts_them_right(tmp_path):
    assert run("--check", tmp_path).exit_code == 1
    assert run("--write", tmp_path).exit_code == 0
    stale = tmp_path / "crds" / "dataclones.yaml"
    stale.write_text(stale.read_text() + "# changed by hand\n")
    (tmp_path / "crds" / "datadreams.yaml").write_text("{}")
    result = run("--check", tmp_path)
    assert result.exit_code == 1
    assert "crds/dataclones.yaml, crds/datadreams.yaml out of date" in result.output
    assert run("--write", tmp_path).exit_code == 0
    assert run("--check", tmp_path).exit_code == 0


def test_the_reference_names_every_field_and_rule():
    text = crdgen.generated_files()["docs/api.md"]
    for plural in MANIFESTS:
        for path, schema in nodes(root_schema(plural)):
            if path.count(".") > 1 and not path.endswith(("[]", "{}")) and ".conditions[]" not in path:
                assert f"| `{path.split('.', 2)[2]}`" in text
            for rule in schema.get("x-kubernetes-validations", []):
                assert rule["message"] in text


def test_every_kind_has_a_definition():
    assert [manifest["spec"]["names"]["kind"] for manifest in MANIFESTS.values()] == list(KINDS)


@pytest.mark.parametrize("plural", MANIFESTS)
def test_a_definition_is_small_enough_for_client_side_apply(plural):
    # kubectl apply copies the object into an annotation of at most 262,144 bytes.
    assert len(crdgen.crd_yaml(MANIFESTS[plural]).encode()) < 200_000


@pytest.mark.parametrize("plural", MANIFESTS)
def test_yaml_says_what_the_manifest_says(plural):
    assert yaml.safe_load(crdgen.crd_yaml(MANIFESTS[plural])) == MANIFESTS[plural]


@pytest.mark.parametrize("plural", MANIFESTS)
def test_names_status_and_category(plural):
    spec = MANIFESTS[plural]["spec"]
    assert MANIFESTS[plural]["metadata"]["name"] == f"{plural}.coppice.dev"
    assert spec["names"]["categories"] == ["coppice"]
    assert spec["names"]["shortNames"]
    assert spec["versions"][0]["subresources"] == {"status": {}}
    assert "status" not in MANIFESTS[plural]


@pytest.mark.parametrize("schema", NODES)
def test_schema_is_structural(schema):
    assert not FORBIDDEN & schema.keys()
    assert not (schema.keys() & {"properties"} and schema.keys() & {"additionalProperties"})
    assert schema.get("x-kubernetes-int-or-string") or schema["type"] in {
        "object",
        "array",
        "string",
        "integer",
        "boolean",
    }
    assert [key for key in schema if key.startswith("x-coppice")] == []


@pytest.mark.parametrize("schema", NODES)
def test_schema_is_bounded_so_that_rules_have_a_known_cost(schema):
    kind = schema.get("type", "string")
    if kind == "array":
        assert "maxItems" in schema
    elif kind == "string":
        assert "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time"
    elif kind == "object" and "properties" not in schema:
        assert "maxProperties" in schema


@pytest.mark.parametrize("schema", NODES)
def test_every_field_is_described(schema):
    for name, field in schema.get("properties", {}).items():
        assert field.get("description", "").endswith((".", '".')), name


@pytest.mark.parametrize("schema", NODES)
def test_every_rule_has_a_message(schema):
    for rule in schema.get("x-kubernetes-validations", []):
        assert rule["message"]


def test_a_status_has_no_rules():
    for plural in MANIFESTS:
        for path, schema in nodes(root_schema(plural)):
            assert not (path.startswith(".status") and "x-kubernetes-validations" in schema), path


def test_visible_defaults_are_these():
    found = {
        f"{plural}{path}": schema["default"]
        for plural in MANIFESTS
        for path, schema in nodes(root_schema(plural))
        if "default" in schema
    }
    assert found == {
        "databranches.spec.history": "Full",
        "datastores.spec.deletionPolicy": "Retain",
        "datastores.spec.managed.commitPolicy": "Explicit",
        "datastores.spec.mirror.method": "LogicalDump",
        "datagrants.spec.data": "Masked",
        "databranches.spec.deletionPolicy": "Retain",
        "dataclones.spec.refresh": "Never",
        "dataclones.spec.onRevision": "Keep",
        "dataclones.spec.onClose": "Discard",
        "dataclones.spec.power": "Auto",
        "dataclones.spec.durability": "Fast",
        "dataclones.spec.commitPolicy": "Explicit",
        "datachangerequests.spec.publish": "Branch",
        "datachangerequests.spec.merge": "WhenApproved",
    }


def test_conditions_merge_by_type():
    for plural in MANIFESTS:
        conditions = root_schema(plural)["properties"]["status"]["properties"]["conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]
        assert {"type", "status", "reason", "lastTransitionTime"} <= set(conditions["items"]["required"])
