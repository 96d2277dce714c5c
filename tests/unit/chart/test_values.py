"""The schema knows every value, and refuses what the chart does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from coppice.api.v1alpha1.common import DURATION_PATTERN

CHART = Path(__file__).parents[3] / "helm" / "coppice"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SETS = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))


def check(values: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(values, SCHEMA)


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """What Helm makes of a file of values over the defaults."""
    nested = {
        name for name in values.keys() & over.keys() if isinstance(values[name], dict) and isinstance(over[name], dict)
    }
    return {**values, **over, **{name: merged(values[name], over[name]) for name in nested}}


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def differences(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Values without a schema and schemas without a default, where the schema lists its properties."""
    properties = resolve(schema).get("properties")
    if properties is None:
        return
    yield from (f"{path}.{name}" for name in sorted(values.keys() ^ (properties.keys() - {"global"})))
    for name in values.keys() & properties.keys():
        if isinstance(values[name], dict):
            yield from differences(values[name], properties[name], f"{path}.{name}")


def replaced(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(VALUES)
    *parents, last = path.split(".")
    here = values
    for name in parents:
        here = here[name]
    here[last] = value
    return values


def test_the_defaults_fit():
    check(VALUES)


@pytest.mark.parametrize("name", SETS)
def test_the_value_sets_fit(name: str):
    check(merged(VALUES, yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())))


def test_durations_are_those_of_the_api():
    assert SCHEMA["definitions"]["duration"]["pattern"] == DURATION_PATTERN


def test_schema_and_defaults_know_the_same_values():
    assert list(differences(VALUES, SCHEMA)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("unknown", 1),
        ("operator.unknown", 1),
        ("operator.image.version", "1"),
        ("local.storageClass.parameters", {"ownBytes": 5}),
        ("local.boundedClasses", [{"name": "small"}]),
        ("local.boundedClasses", [{"name": "small", "ownBytes": 5}]),
        ("local.boundedClasses", [{"name": "small", "ownBytes": "much"}]),
        ("operator.replicas", "2"),
        ("operator.replicas", -1),
        ("operator.logLevel", "verbose"),
        ("operator.image.digest", "latest"),
        ("servers.memory", "much"),
        ("servers", {"disk": "1Gi"}),
        ("clones.lease.idle", "2 hours"),
        ("clones.lease.idle", ""),
        ("clones.limits.memory", "much"),
        ("clones.limits", {"disk": "1Gi"}),
        ("operator.resync", 600),
        ("engines.dolt", {"image": "x"}),
        ("local.nodeSelector", {}),
        ("local.storageClass.volumeBindingMode", "Later"),
        ("forges", [{"provider": "github"}]),
        ("forges", [{"provider": "gitea", "tokenSecret": {"name": "t"}}]),
        ("forges", [{"provider": "github", "tokenSecret": {"name": "t"}, "token": "ghp_x"}]),
        ("forges", [{"provider": "github", "tokenSecret": {"name": "t"}, "interval": "often"}]),
        ("forges", [{"provider": "github", "tokenSecret": {"name": "t"}, "host": "https://github.com"}]),
        ("forges", [{"provider": "gitlab", "tokenSecret": {"name": "t"}, "host": "git.example.com:8443"}]),
        ("forges", [{"provider": "github", "tokenSecret": {"name": "t"}, "url": "https://me:secret@github.com"}]),
        ("snapshotController.install", "maybe"),
        ("snapshotController.replicas", 0),
    ],
)
def test_what_means_nothing_is_refused(path: str, value: Any):
    with pytest.raises(jsonschema.ValidationError):
        check(replaced(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("engines.dolt.images", {"1.83": "a", "2.3": "b"}),
        ("engines.other", {"images": {"1": "c"}}),
        ("forges", [{"provider": "gitlab", "host": "git.example.com", "tokenSecret": {"name": "t", "key": "api"}}]),
        ("snapshotController.install", True),
        ("operator.podSecurityContext", {"runAsUser": None}),
        ("clones.lease.max", "1d12h"),
        ("global", {"anything": 1}),
    ],
)
def test_what_administrators_need_is_accepted(path: str, value: Any):
    check(replaced(path, value))
