"""The models: strict on specs, lenient on statuses, never an exception for what a user wrote."""

import copy
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from coppice.api.v1alpha1 import (
    DataClone,
    DataCloneStatus,
    DataGrant,
    DataKind,
    DataStore,
    InvalidResource,
    Power,
    parse,
)

CLONE = {
    "apiVersion": "coppice.dev/v1alpha1",
    "kind": "DataClone",
    "metadata": {"name": "db", "namespace": "shop-pr-42", "uid": "u1", "generation": 3, "managedFields": [{}]},
    "spec": {"from": {"store": {"name": "shop", "namespace": "data"}, "branch": "main", "maxAge": "1h"}},
}
STORE = {
    "apiVersion": "coppice.dev/v1alpha1",
    "kind": "DataStore",
    "metadata": {"name": "shop", "namespace": "data"},
    "spec": {"engine": "dolt", "managed": {"version": "1.83", "storage": {"size": 1073741824}}},
}


def clone(**spec):
    return {**CLONE, "spec": {**CLONE["spec"], **spec}}


def test_wire_names_and_defaults():
    db = DataClone.parse(CLONE)
    assert isinstance(db, DataClone)
    assert (db.metadata.name, db.metadata.uid, db.metadata.generation) == ("db", "u1", 3)
    assert db.spec.from_.store.namespace == "data"
    assert db.spec.from_.max_age == "1h"
    assert db.spec.power is Power.AUTO
    assert db.spec.profile == "default"
    assert db.status.conditions == ()


def test_parse_finds_the_kind():
    assert isinstance(parse(CLONE), DataClone)
    assert isinstance(parse(STORE), DataStore)
    with pytest.raises(KeyError):
        parse({**STORE, "kind": "DataDream"})


def test_an_integer_quantity_is_text():
    store = DataStore.parse(STORE)
    assert isinstance(store, DataStore)
    assert store.spec.managed.storage.size == "1073741824"
    assert store.spec.snapshots.keep.last == 3


@pytest.mark.parametrize("size", [True, 1.5, "lots", "-1Gi"])
def test_other_quantities_are_refused(size):
    manifest = copy.deepcopy(STORE)
    manifest["spec"]["managed"]["storage"]["size"] = size
    assert isinstance(DataStore.parse(manifest), InvalidResource)


def test_an_unknown_value_of_a_newer_version_is_a_problem_not_a_crash():
    stored = {**clone(power="Dim"), "status": {"copy": "c1"}}
    bad = DataClone.parse(stored)
    assert isinstance(bad, InvalidResource)
    assert bad.metadata.name == "db"
    assert bad.status == {"copy": "c1"}
    (problem,) = bad.problems
    assert problem.startswith("spec.power: ")
    assert "upgrade the operator" in bad.message


def test_an_unknown_field_of_a_spec_is_a_problem():
    bad = DataClone.parse(clone(turbo=True))
    assert isinstance(bad, InvalidResource)
    assert bad.problems == ("spec.turbo: Extra inputs are not permitted",)


def test_problems_do_not_repeat_values():
    bad = DataClone.parse(clone(binding={"keys": {"URL": "{pass:hunter2}"}}, revision={"token": "hunter2"}))
    assert isinstance(bad, InvalidResource)
    assert "hunter2" not in bad.message


@pytest.mark.parametrize("point", [{}, {"branch": "main", "tag": "v1"}])
def test_exactly_one_point_even_where_the_api_server_did_not_look(point):
    bad = DataClone.parse(clone(**{"from": {"store": {"name": "shop"}, **point}}))
    assert isinstance(bad, InvalidResource)
    assert "set exactly one of branch, tag, commit, snapshot, time" in bad.message


@pytest.mark.parametrize("how", [{}, {"sql": "SELECT 1", "jobTemplate": "smoke"}])
def test_a_check_is_a_query_or_a_program(how):
    protection = [{"branches": ["main"], "checks": [{"name": "prices", **how}]}]
    bad = DataStore.parse({**STORE, "spec": {**STORE["spec"], "protection": protection}})
    assert isinstance(bad, InvalidResource)
    assert "set exactly one of sql, jobTemplate" in bad.message


def test_a_status_ignores_what_it_does_not_know():
    db = DataClone.parse({**CLONE, "status": {"copy": "c1", "mood": "fine"}})
    assert isinstance(db, DataClone)
    assert db.status.copy_id == "c1"


def test_a_missing_spec_is_a_problem():
    assert isinstance(DataClone.parse({"metadata": {"name": "db"}}), InvalidResource)


def test_models_are_immutable():
    db = DataClone.parse(CLONE)
    with pytest.raises(ValidationError):
        db.spec.power = Power.OFF


def test_dump_leaves_out_what_is_empty():
    when = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert DataCloneStatus().dump() == {}
    assert DataCloneStatus(copy_id="c1", expires_at=when, observed_generation=0).dump() == {
        "copy": "c1",
        "expiresAt": "2026-05-01T12:00:00Z",
        "observedGeneration": 0,
    }


def test_a_time_without_a_zone_is_refused():
    bad = DataClone.parse(clone(**{"from": {"store": {"name": "shop"}, "time": "2026-05-01T12:00:00"}}))
    assert isinstance(bad, InvalidResource)


def test_a_grant_is_masked_and_bounded_unless_it_says_otherwise():
    grant = DataGrant.parse(
        {"metadata": {"name": "g"}, "spec": {"store": "shop", "to": {"namespaces": ["a"]}, "verbs": ["Clone"]}}
    )
    assert isinstance(grant, DataGrant)
    assert grant.spec.data is DataKind.MASKED
    assert grant.spec.max_lease == "7d"
    assert grant.spec.forks is False


def test_find_a_condition():
    ready = {"type": "Ready", "status": "False", "reason": "Waiting", "lastTransitionTime": "2026-05-01T12:00:00Z"}
    db = DataClone.parse({**CLONE, "status": {"conditions": [ready]}})
    assert isinstance(db, DataClone)
    condition = db.status.condition("Ready")
    assert condition is not None
    assert condition.reason == "Waiting"
    assert db.status.condition("Stalled") is None
