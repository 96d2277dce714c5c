"""Every rule, pattern and bound of the definitions against a real API server: what it accepts and what it refuses."""

import itertools

import pytest
from tests.cel.cases import RULES, STRINGS, Case, case, cases, constraints
from tests.fakes.apiserver import ApiServer, Reply

from coppice.api.v1alpha1 import API_VERSION, KINDS

CASES = [pytest.param(found, id=found.id) for found in constraints()]
NUMBERS = itertools.count()


def path(kind: str, name: str = "") -> str:
    return f"/apis/{API_VERSION}/namespaces/default/{KINDS[kind].crd.plural}{name and '/'}{name}"


def send(cluster: ApiServer, one: Case, manifest: dict) -> Reply:
    """Create the object, or change the one that is there, without keeping the result."""
    kind = manifest["kind"]
    if one.old is None:
        return cluster.request("POST", f"{path(kind)}?dryRun=All&fieldValidation=Strict", manifest)
    name = f"there-{next(NUMBERS)}"
    created = cluster.request("POST", path(kind), {**one.old, "metadata": {"name": name}})
    assert created.ok, created.body
    version = created.body["metadata"]["resourceVersion"]
    metadata = {**manifest["metadata"], "name": name, "resourceVersion": version}
    return cluster.request(
        "PUT", f"{path(kind, name)}?dryRun=All&fieldValidation=Strict", {**manifest, "metadata": metadata}
    )


def test_every_constraint_has_examples_of_both_sides():
    for one in cases():
        assert one.good, one.constraint.id
        assert one.bad, one.constraint.id


def test_the_tables_hold_nothing_that_is_not_demanded():
    rules = {(f"{found.kind}{found.path}", found.argument) for found in constraints() if found.keyword == "rule"}
    patterns = {found.argument for found in constraints() if found.keyword == "pattern"}
    assert RULES.keys() - rules == set()
    assert STRINGS.keys() - patterns == set()


@pytest.mark.parametrize("constraint", CASES)
def test_accepted(cluster, constraint):
    one = case(constraint)
    for manifest in one.good:
        reply = send(cluster, one, manifest)
        assert reply.ok, reply.body["message"]


@pytest.mark.parametrize("constraint", CASES)
def test_refused(cluster, constraint):
    one = case(constraint)
    for manifest in one.bad:
        reply = send(cluster, one, manifest)
        assert reply.status == 422, (manifest["spec"], reply.body)
        found = [
            cause for cause in reply.causes if one.fragment in cause["message"] and at(cause["field"], one.constraint)
        ]
        assert found, reply.body["message"]


def at(field: str, constraint) -> bool:
    return field.startswith(constraint.wire_path) or field == "<nil>"
