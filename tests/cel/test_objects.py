"""Whole objects against a real API server: defaults, columns, statuses, merged conditions, the examples' forms."""

import re
from datetime import UTC, datetime

import pytest
from tests.cel.cases import CLONE_STORE, COMMIT, POINTS, SPECS, manifest, put

from coppice.api.v1alpha1 import API_VERSION, KINDS, Condition, InvalidResource, parse
from coppice.crdgen import structural_schema

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HEAD = "0123456789abcdefghijklmnopqrstuv"
READY = Condition(
    type="Ready", status="True", reason="Ready", message="", last_transition_time=NOW, observed_generation=1
)


def url(kind, name="", namespace="default"):
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{KINDS[kind].crd.plural}{name and '/'}{name}"


@pytest.fixture(params=KINDS)
def stored(request, cluster):
    """One object of each kind, in a namespace of its own, gone afterwards."""
    kind = request.param
    # A commit is the only snapshot that has every column, and its branch names it.
    body = manifest(kind, COMMIT if kind == "DataSnapshot" else SPECS[kind][0])
    if kind != "DataSnapshot":
        body = put(body, ".metadata.name", f"whole-{kind.lower()}")
    reply = cluster.request("POST", f"{url(kind)}?fieldValidation=Strict", body)
    assert reply.ok, reply.body
    yield reply.body
    cluster.request("DELETE", url(kind, body["metadata"]["name"]))


def full(schema):
    """A value that has every field of a schema; the text Ready is also a condition's type and matches every pattern."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return "2026-05-01T12:00:00Z"
    if schema["type"] == "object":
        return {name: full(field) for name, field in schema["properties"].items()}
    return {
        "array": lambda: [full(schema["items"])],
        "string": lambda: "Ready",
        "integer": lambda: 1,
        "boolean": lambda: False,
    }[schema["type"]]()


def shown_conditions(kind):
    """The conditions that columns of ``kubectl get`` show."""
    paths = " ".join(column.json_path for column in KINDS[kind].crd.columns)
    return sorted(set(re.findall(r'type=="(\w+)"\)\]\.status', paths)))


def columns(cluster, kind, name):
    table = cluster.request("GET", url(kind, name), accept=TABLE).body
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def test_what_is_stored_is_what_is_read(stored):
    read = parse(stored)
    assert not isinstance(read, InvalidResource)
    assert read.metadata.name == stored["metadata"]["name"]
    assert {**read.spec.dump(), **stored["spec"]} == read.spec.dump()


def test_a_full_status_is_kept_whole(cluster, stored):
    kind, name = stored["kind"], stored["metadata"]["name"]
    status = full(structural_schema(KINDS[kind])["properties"]["status"])
    (condition,) = status["conditions"]
    status["conditions"] = [{**condition, "type": name} for name in shown_conditions(kind)]
    applied = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "uid": stored["metadata"]["uid"]},
        "status": status,
    }
    flags = "fieldManager=coppice-status&force=true&fieldValidation=Strict"
    reply = cluster.request("APPLY", f"{url(kind, name)}/status?{flags}", applied)
    assert reply.ok, reply.body
    assert reply.body["status"] == status
    assert reply.body["metadata"]["generation"] == 1
    read = parse(reply.body)
    assert not isinstance(read, InvalidResource)
    assert read.status.dump() == status
    shown = columns(cluster, kind, name)
    assert {shown[name] for name in shown_conditions(kind)} == {"True"}
    assert [cell for cell in shown.values() if cell is None] == []


def test_conditions_of_others_stay(cluster, stored):
    kind, name = stored["kind"], stored["metadata"]["name"]
    for manager, condition_type in (("coppice-status", "Ready"), ("somebody", "Reviewed")):
        condition = {**READY.dump(), "type": condition_type}
        applied = {"apiVersion": API_VERSION, "kind": kind, "status": {"conditions": [condition]}}
        reply = cluster.request("APPLY", f"{url(kind, name)}/status?fieldManager={manager}", applied)
        assert reply.ok, reply.body
    assert [entry["type"] for entry in reply.body["status"]["conditions"]] == ["Ready", "Reviewed"]


def test_a_status_in_a_manifest_is_nothing(cluster):
    body = {**manifest("DataGrant", SPECS["DataGrant"][0]), "status": {"clones": 0}}
    reply = cluster.request("POST", f"{url('DataGrant')}?dryRun=All", body)
    assert reply.ok
    assert "status" not in reply.body


def test_defaults_that_show(cluster):
    least = {"from": {"store": {"name": "shop"}, "branch": "main"}}
    reply = cluster.request("POST", f"{url('DataClone')}?dryRun=All", manifest("DataClone", least))
    assert reply.body["spec"] == {
        **least,
        "refresh": "Never",
        "onRevision": "Keep",
        "onClose": "Discard",
        "power": "Auto",
        "durability": "Fast",
        "commitPolicy": "Explicit",
    }


@pytest.mark.parametrize("point", POINTS, ids=lambda point: next(iter(point)))
def test_the_from_column_shows_any_point(cluster, point):
    (kind, value), name = next(iter(point.items())), f"from-{next(iter(point))}"
    spec = {**SPECS["DataClone"][0], "from": {**CLONE_STORE, **point}}
    reply = cluster.request("POST", url("DataClone"), put(manifest("DataClone", spec), ".metadata.name", name))
    assert reply.ok, reply.body
    assert columns(cluster, "DataClone", name)["From"] == value, kind


def test_an_unknown_field_is_refused_where_the_user_asks_for_it(cluster):
    body = put(manifest("DataClone", SPECS["DataClone"][0]), ".spec.turbo", value=True)
    assert cluster.request("POST", f"{url('DataClone')}?dryRun=All&fieldValidation=Strict", body).status == 400
    reply = cluster.request("POST", f"{url('DataClone')}?dryRun=All&fieldValidation=Warn", body, warn=True)
    assert "spec.turbo" in reply.body["warnings"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_short_names_and_category_are_known(cluster, kind):
    resources = cluster.request("GET", f"/apis/{API_VERSION}").body["resources"]
    (resource,) = (entry for entry in resources if entry["name"] == KINDS[kind].crd.plural)
    assert resource["shortNames"] == list(KINDS[kind].crd.short_names)
    assert resource["categories"] == ["coppice"]
