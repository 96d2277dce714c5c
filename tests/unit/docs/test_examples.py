"""The examples, and the objects in the guides, are what the API takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.docs.test_links import PAGES, ROOT, tracked

from coppice.api.v1alpha1 import API_VERSION, InvalidResource, parse

JOBS = ("examples/github-actions/", "examples/gitlab-ci/")
"""What is there is for CI systems, and of no cluster."""
EXAMPLES = [
    path
    for path in (*tracked("examples/*.yaml"), *tracked("examples/*.yml"))
    if not str(path.relative_to(ROOT)).startswith(JOBS)
]
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each kind, closed: a field that the API server would drop is an error here."""
    found = {}
    for path in (ROOT / "crds").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
        found[spec["names"]["kind"]] = _closed({**schema, "properties": {**schema["properties"], "metadata": {}}})
    return found


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


SCHEMAS = schemas()


def in_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in EXAMPLES:
        for document in yaml.safe_load_all(path.read_text()):
            if document is not None:
                yield str(path.relative_to(ROOT)), document


def in_pages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole objects in the guides' blocks; an excerpt, without a kind, is none."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("kind") in SCHEMAS:
                    yield str(page.relative_to(ROOT)), {"apiVersion": API_VERSION, **document}


def check(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    metadata = {"namespace": "default", "uid": "1", **manifest["metadata"]}
    parsed = parse({**manifest, "metadata": metadata})
    assert not isinstance(parsed, InvalidResource), parsed.message


def named(found: tuple[str, dict[str, Any]]) -> str:
    return f"{found[0]} {found[1].get('kind')}"


@pytest.mark.parametrize("found", list(in_examples()), ids=named)
def test_examples_are_objects(found):
    manifest = found[1]
    assert manifest["apiVersion"]
    assert manifest["kind"]
    if manifest["apiVersion"] == API_VERSION:
        check(manifest)


@pytest.mark.parametrize("found", list(in_pages()), ids=named)
def test_objects_in_the_guides_are_valid(found):
    check(found[1])


def test_every_kind_has_an_example_or_is_made_by_the_operator():
    shown = {manifest["kind"] for _, manifest in in_examples() if manifest["apiVersion"] == API_VERSION}
    assert set(SCHEMAS) - shown <= {"DataSnapshot"}


def test_an_unknown_field_and_a_wrong_value_are_noticed():
    good = next(manifest for _, manifest in in_examples() if manifest["kind"] == "DataClone")
    for bad in ({"lesae": {"idle": "2h"}}, {"lease": {"idle": "two hours"}}, {"power": "Maybe"}):
        with pytest.raises(jsonschema.ValidationError):
            check({**good, "spec": {**good["spec"], **bad}})
