"""What is believed of the admission policies that are in the cluster; what a real API server makes of them is in
``tests/cel/test_admission.py``.
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

import pytest

from coppice.manifests.admission import BINDING, POLICY, REQUESTS, REVIEWS, build_policies
from coppice.reconcile.changerequest.identity import TAKEN_UP, identity_problem, unvouched

KEYS = [(kind, name) for name in (REQUESTS, REVIEWS) for kind in (POLICY, BINDING)]


def stored():
    """The policies as the API server hands them out: with what it adds."""
    found = {(one["kind"], one["metadata"]["name"]): copy.deepcopy(one) for one in build_policies()}
    for (kind, name), one in found.items():
        one["metadata"] = {
            "name": name,
            "uid": "u",
            "creationTimestamp": "2026-05-01T12:00:00Z",
            "labels": {"app.kubernetes.io/name": "coppice"},
        }
        if kind == POLICY:
            one["spec"]["matchConstraints"] |= {"namespaceSelector": {}, "objectSelector": {}}
            one["status"] = {"observedGeneration": 1, "typeChecking": {}}
    return found


def test_there_is_a_policy_and_a_binding_for_both_kinds():
    assert [(one["kind"], one["metadata"]["name"]) for one in build_policies()] == KEYS


def test_policies_with_what_the_api_server_adds_are_ours():
    assert identity_problem(stored()) is None


@pytest.mark.parametrize("key", KEYS)
def test_one_that_is_absent_unknown_or_going_is_named_with_the_next_step(key):
    found = stored()
    going = {**found[key], "metadata": {**found[key]["metadata"], "deletionTimestamp": "2026-05-01T12:00:00Z"}}
    others = {other: one for other, one in found.items() if other != key}
    for instead in ({**found, key: None}, {**found, key: going}, others):
        problem = identity_problem(instead)
        assert problem is not None
        assert problem.startswith(f"{key[0]} {key[1]} is absent: have the administrator install")


def places(value, path=()):
    """Every place in a specification."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in entries:
        yield from places(inner, (*path, step))


def without(spec, path):
    """The specification with one thing taken away."""
    result = copy.deepcopy(spec)
    parent = result
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    return result


@pytest.mark.parametrize("key", KEYS)
def test_whatever_of_a_specification_is_missing_is_noticed(key):
    wanted = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in build_policies()}[key]
    taken = [path for path in places(wanted) if path]
    assert taken
    for path in taken:
        found = stored()
        found[key]["spec"] = without(wanted, path)
        assert f"{key[0]} {key[1]} is not as Coppice made it" in (identity_problem(found) or ""), path


@pytest.mark.parametrize(
    ("key", "place", "more"),
    [
        ((POLICY, REVIEWS), (), {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}),
        ((POLICY, REVIEWS), (), {"matchConditions": [{"name": "never", "expression": "false"}]}),
        ((POLICY, REVIEWS), ("matchConstraints",), {"excludeResourceRules": [{"operations": ["DELETE"]}]}),
        ((POLICY, REVIEWS), ("matchConstraints",), {"objectSelector": {"matchLabels": {"a": "b"}}}),
        ((POLICY, REVIEWS), ("matchConstraints", "resourceRules", 0), {"resourceNames": ["one"]}),
        ((BINDING, REQUESTS), (), {"matchResources": {"namespaceSelector": {}}}),
        ((BINDING, REQUESTS), (), {"paramRef": {"name": "one", "parameterNotFoundAction": "Allow"}}),
    ],
)
def test_whatever_is_added_is_noticed(key, place, more):
    found = stored()
    target = found[key]["spec"]
    for step in place:
        target = target[step]
    target.update(more)
    assert f"{key[0]} {key[1]} is not as Coppice made it" in (identity_problem(found) or "")


@pytest.mark.parametrize("key", KEYS)
def test_what_may_be_older_than_any_policy_was_vouched_for_by_nobody(key):
    found, youngest = stored(), datetime.fromisoformat("2026-05-02T12:00:00Z")
    found[key]["metadata"]["creationTimestamp"] = youngest.isoformat()
    for made in (youngest - timedelta(hours=1), youngest, youngest + TAKEN_UP):
        assert f"older than {key[0]} {key[1]}" in (unvouched(found, made) or "")
    assert unvouched(found, youngest + TAKEN_UP + timedelta(seconds=1)) is None
