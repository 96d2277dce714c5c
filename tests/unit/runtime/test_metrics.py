"""Every metric is documented, and clones are counted and timed as the documentation says."""

import re
from pathlib import Path

import pytest

from coppice.core.key import Key
from coppice.runtime.metrics import CloneMetrics, Metrics, MirrorMetrics, RequestMetrics, SizeMetrics

DOCUMENT = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
KEY = Key("DataClone", "app", "db")


def status(**conditions):
    return {"conditions": [{"type": kind, "status": value, "reason": "R"} for kind, value in conditions.items()]}


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def clones(metrics, clock):
    return CloneMetrics(metrics, monotonic=lambda: clock[0])


def test_the_documentation_names_every_metric_with_its_labels_and_no_other(metrics):
    documented = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(coppice_\w+)` \| \w+:?([^|]*)\|", DOCUMENT, re.MULTILINE)
    }
    assert documented == _real(metrics)


def _real(metrics):
    found = {}
    for collector in metrics.registry._collector_to_names:
        name = getattr(collector, "_name", "")
        if name.startswith("coppice_"):
            found[f"{name}_total" if collector._type == "counter" else name] = set(collector._labelnames)
    return found


def manifest(uid="1", **fields):
    return {"metadata": {"uid": uid}, **fields}


def test_each_step_is_timed_from_the_one_before_and_the_total_from_the_start(metrics, clones, clock):
    clones.seen(KEY, manifest())
    clock[0] = 2.0
    clones.changed(KEY, {}, status(Claimed="True", Ready="False"))
    clock[0] = 5.0
    clones.changed(KEY, status(Claimed="True", Ready="False"), status(Claimed="True", Started="True", Ready="True"))
    value = metrics.registry.get_sample_value
    assert value("coppice_clone_step_seconds_sum", {"step": "Claimed"}) == 2
    assert value("coppice_clone_step_seconds_sum", {"step": "Started"}) == 3
    assert value("coppice_clone_step_seconds_sum", {"step": "total"}) == 5


def test_a_successor_of_the_same_name_starts_anew(metrics, clones, clock):
    clones.seen(KEY, manifest("1"))
    clock[0] = 100.0
    clones.seen(KEY, manifest("2"))
    clock[0] = 101.0
    clones.changed(KEY, {}, status(Ready="True"))
    assert metrics.registry.get_sample_value("coppice_clone_step_seconds_sum", {"step": "total"}) == 1


def test_what_is_ready_or_gone_takes_no_memory_for_its_steps(clones):
    clones.seen(KEY, manifest())
    clones.changed(KEY, {}, status(Ready="True"))
    clones.seen(Key("DataClone", "app", "other"), manifest())
    clones.gone(Key("DataClone", "app", "other"))
    assert clones._marks == {}


def mirrored(refreshed=None, **conditions):
    mirror = {} if refreshed is None else {"refreshedAt": refreshed}
    return {**status(**conditions), "mirror": {"refresh": None, **mirror}}


def test_the_oldest_data_of_all_mirrors_are_told_and_how_many_fare_how(metrics):
    mirrors, shop, till = MirrorMetrics(metrics), Key("DataStore", "data", "shop"), Key("DataStore", "data", "till")

    def told():
        states = {
            sample.labels["state"]: sample.value
            for metric in metrics.registry.collect()
            for sample in metric.samples
            if metric.name == "coppice_mirrors" and sample.value
        }
        return metrics.registry.get_sample_value("coppice_mirror_oldest_timestamp_seconds"), states

    mirrors.changed(Key("DataStore", "data", "managed"), status(Ready="True"))
    assert told() == (0, {})
    mirrors.changed(shop, mirrored(Ready="False"))
    assert told() == (0, {"R": 1})
    mirrors.changed(shop, mirrored("2026-03-02T09:00:00Z", Ready="True", MirrorFresh="True"))
    mirrors.changed(till, mirrored("2026-03-02T08:00:00Z", Ready="True", MirrorFresh="False"))
    assert told() == (1772442000 - 3600, {"Fresh": 1, "R": 1})
    mirrors.changed(till, mirrored("2026-03-02T10:00:00Z", Ready="True", MirrorFresh="True"))
    assert told() == (1772442000, {"Fresh": 2})
    mirrors.gone(shop)
    mirrors.gone(shop)
    assert told() == (1772442000 + 3600, {"Fresh": 1})
    mirrors.changed(till, status(Ready="True"))
    assert told() == (0, {})


def test_nothing_that_is_told_of_mirrors_has_a_name_in_it(metrics):
    MirrorMetrics(metrics).changed(Key("DataStore", "its-namespace", "its-name"), mirrored("2026-03-02T09:00:00Z"))
    assert "its-" not in metrics.exposition().decode()


def test_how_requests_fare_how_old_the_oldest_is_and_how_many_conflicts_wait(metrics):
    requests, first, second = RequestMetrics(metrics), *(Key("DataChangeRequest", "data", name) for name in "ab")

    def made(hour):
        return {"metadata": {"creationTimestamp": f"2026-03-02T{hour}:00:00Z"}}

    def told():
        names = ("coppice_change_request_oldest_timestamp_seconds", "coppice_change_request_conflicts")
        states = {
            sample.labels["state"]: sample.value
            for metric in metrics.registry.collect()
            for sample in metric.samples
            if metric.name == "coppice_change_requests" and sample.value
        }
        return [metrics.registry.get_sample_value(name) for name in names], states

    requests.changed(first, made("08"), {**status(Ready="False"), "conflicts": {"open": 3, "decided": 1}})
    requests.changed(second, made("09"), {**status(Ready="False"), "conflicts": {"open": 2, "decided": 0}})
    assert told() == ([1772442000 - 3600, 5], {"R": 2})
    requests.changed(first, made("08"), {**status(Ready="True"), "conflicts": {"open": 3, "decided": 1}})
    assert told() == ([1772442000, 2], {"Published": 1, "R": 1})
    requests.gone(second)
    requests.gone(second)
    assert told() == ([0, 0], {"Published": 1})
    requests.gone(first)
    assert told() == ([0, 0], {})


def test_nothing_that_is_told_of_requests_has_a_name_in_it(metrics):
    made = {"metadata": {"creationTimestamp": "2026-03-02T09:00:00Z"}}
    RequestMetrics(metrics).changed(Key("DataChangeRequest", "its-namespace", "its-name"), made, status(Ready="False"))
    assert "its-" not in metrics.exposition().decode()


def test_clones_of_pull_requests_are_counted_by_how_that_is_and_one_that_has_ended_is_none_of_a_closed_one(
    metrics, clones
):
    def told(key, state, **more):
        before = {} if state is None else {"pullRequest": {"state": state, **more}}
        clones.changed(key, {}, {**status(Ready="True"), **before})

    def counted():
        samples = (sample for metric in metrics.registry.collect() for sample in metric.samples)
        return {
            sample.labels["state"]: sample.value
            for sample in samples
            if sample.name == "coppice_pull_request_clones" and sample.value
        }

    other = Key("DataClone", "app", "other")
    told(KEY, "Open")
    told(other, "Open")
    told(Key("DataClone", "app", "plain"), None)
    assert counted() == {"Open": 2}
    told(KEY, "Closed", closedAt="2026-03-02T09:00:00Z")
    assert counted() == {"Open": 1, "Closed": 1}
    told(KEY, "Closed", endedAt="2026-03-02T09:10:00Z")
    assert counted() == {"Open": 1, "Ended": 1}
    clones.gone(KEY)
    clones.gone(other)
    assert counted() == {}


def test_how_full_stores_are_is_told_of_those_that_tell(metrics):
    sizes = SizeMetrics(metrics)
    large, small = (Key("DataStore", "data", name) for name in ("large", "small"))
    sizes.changed(large, {"size": {"bytes": 1 << 30}, "capacity": "4Gi"})
    sizes.changed(small, {"size": {"bytes": 1 << 20}, "capacity": "2Mi"})
    sizes.changed(Key("DataStore", "data", "silent"), {"capacity": "1Gi"})
    assert (metrics.store_bytes._value.get(), metrics.store_fullest._value.get()) == ((1 << 30) + (1 << 20), 0.5)
    sizes.changed(small, {"capacity": "2Mi"})
    assert (metrics.store_bytes._value.get(), metrics.store_fullest._value.get()) == (1 << 30, 0.25)
    sizes.gone(large)
    assert (metrics.store_bytes._value.get(), metrics.store_fullest._value.get()) == (0, 0)
