"""Missed events: whatever happens between the API server and the operator, the end state is the same."""

import asyncio
import threading
from datetime import timedelta

import pytest
from tests.fakes.http_api import HttpApi, kubeconfig
from tests.fakes.kube import FakeKube
from tests.unit.runtime.builders import CloneReconciler, clone, converged
from tests.unit.runtime.process import Ended, running

from coppice.kube.aio import AioKubeClient
from coppice.kube.lease import LeaseLostError

LEASE = ("Lease", "coppice-system", "coppice-operator")
NAMES = ("a", "b", "c")
EXPECTED = (["coppice.dev/cleanup"], [("Ready", "True", "Made")], {"password": "eA=="}, True)


@pytest.fixture
async def api(tmp_path, monkeypatch):
    api = HttpApi(FakeKube())
    async with api.serve() as url:
        (tmp_path / "config").write_text(kubeconfig(url))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        monkeypatch.setitem(AioKubeClient.__init__.__kwdefaults__, "request_seconds", 1.0)
        yield api


def outcome(api, name):
    finalizers, conditions, binding, data, owned = converged(api.kube, name)
    assert binding == {"name": name}
    return finalizers, conditions, data, owned


def all_converged(api, names=NAMES):
    def check():
        try:
            return all(outcome(api, name) == EXPECTED for name in names)
        except (AssertionError, KeyError):
            return False

    return check


def lease(api):
    return api.kube.peek(*LEASE)["spec"]


def reads_of(api, kind):
    return [call for call in api.kube.calls if call.verb == "get" and call.key.kind == kind]


def lose_children(api):
    for name in NAMES:
        api.kube.remove("Secret", "app", name)


@pytest.fixture
def clones(api):
    for name in NAMES:
        api.kube.add(clone(name))


async def test_a_good_day(api, clones):
    async with running() as operator:
        await operator.until(all_converged(api))


@pytest.mark.parametrize(
    "mood",
    [
        pytest.param(lambda api: api.forget_history(), id="410"),
        pytest.param(lambda api: api.hang_up_streams(), id="disconnect"),
        pytest.param(lambda api: setattr(api, "repeat", 3), id="duplicate"),
        pytest.param(lambda api: setattr(api, "shuffle", True), id="stale and out of order"),
        pytest.param(lambda api: api.fail(5, status=500), id="500"),
        pytest.param(lambda api: api.fail(5, status=429, headers={"Retry-After": "1"}), id="429"),
        pytest.param(lambda api: api.fail(5, method="PATCH", path="/dataclones/", status=409), id="409"),
        pytest.param(lambda api: api.fail(2, method="POST", path="/secrets", hang=True, act=True), id="time-out"),
        pytest.param(lambda api: api.fail(3, method="POST", path="/secrets", hang_up=True, act=True), id="hang-up"),
        pytest.param(lambda api: api.fail(3, method="GET", path="/secrets", status=503), id="503 on reads"),
    ],
)
async def test_a_bad_day(api, clones, mood):
    async with running() as operator:
        await operator.until(all_converged(api))
        mood(api)
        lose_children(api)
        await operator.until(all_converged(api))


async def test_events_lost_without_a_trace_are_made_up_for_by_the_resync(api, clones):
    async with running(resync=timedelta(seconds=1)) as operator:
        await operator.until(all_converged(api))
        api.deaf = True
        lose_children(api)
        await operator.until(all_converged(api))


async def test_objects_that_come_while_the_watch_is_dead_are_found(api):
    async with running(resync=timedelta(seconds=1)) as operator:
        api.deaf = True
        for name in NAMES:
            api.kube.add(clone(name))
        await operator.until(all_converged(api))


async def test_an_object_deleted_silently_is_forgotten(api, clones):
    async with running(resync=timedelta(seconds=1)) as operator:
        await operator.until(all_converged(api))
        api.deaf = True
        for name in NAMES:
            api.kube.change("DataClone", "app", name, lambda found: found["metadata"].pop("finalizers"))
            api.kube.remove("DataClone", "app", name)
        await operator.until(lambda: len(operator.operator._dependencies) == 0)


async def test_a_watch_that_says_nothing_fails_the_probe(api, clones, monkeypatch):
    monkeypatch.setattr("coppice.runtime.health.GRACE_SECONDS", 0.5)
    async with running(resync=timedelta(seconds=1)) as operator:
        await operator.until(all_converged(api))
        assert await operator.probe("/healthz") == (200, "ok")
        api.deaf = True
        api.kube.change("DataClone", "app", "a", lambda found: found["spec"].update(profile="large"))

        async def is_sick():
            return await operator.probe("/healthz") == (500, "no event of DataClone arrives any more")

        await operator.until(is_sick)


async def test_an_error_in_a_stream_ends_the_process_instead_of_leaving_it_deaf(api, clones):
    """kopf before 1.45.2 lost the watch and stayed alive."""
    with pytest.raises(Ended) as caught:  # noqa: PT012 - it ends in the middle
        async with running() as operator:
            await operator.until(all_converged(api))
            api.break_streams(500)
            await operator.ended()
    assert "etcd is unhappy" in str(caught.value.__cause__)
    assert lease(api)["holderIdentity"] == ""


async def test_without_its_definitions_the_operator_is_not_ready_and_starts_when_they_come(api, clones, monkeypatch):
    monkeypatch.setattr("coppice.runtime.leader.RETRY_RESYNC_SECONDS", 0.1)
    api.kube.missing_kinds.add("DataClone")
    async with running() as operator:

        async def is_unready():
            return (await operator.probe("/readyz"))[0] == 500

        async def is_ready():
            return await operator.probe("/readyz") == (200, "ok")

        await operator.until(is_unready)
        api.install("DataClone")
        await operator.until(all_converged(api))
        lose_children(api)
        await operator.until(all_converged(api))
        await operator.until(is_ready)


async def test_without_the_snapshot_kinds_everything_else_works(api, clones):
    api.kube.missing_kinds |= {"VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass"}
    async with running() as operator:
        await operator.until(all_converged(api))
        assert await operator.probe("/healthz") == (200, "ok")


async def test_nothing_is_written_on_objects_but_what_plans_say(api, clones):
    async with running() as operator:
        await operator.until(all_converged(api))
    for name in NAMES:
        metadata = api.kube.peek("DataClone", "app", name)["metadata"]
        assert "annotations" not in metadata
        assert metadata["finalizers"] == ["coppice.dev/cleanup"]
    writes = {(call.verb, call.key.kind, call.manager) for call in api.kube.calls if call.verb not in {"get", "list"}}
    assert writes <= {
        ("apply", "DataClone", "coppice-finalizer"),
        ("apply", "DataClone", "coppice-status"),
        ("create", "Secret", "coppice"),
        ("apply", "Event", "coppice"),
        ("create", "Lease", "coppice"),
        ("replace", "Lease", ""),
    }


async def test_a_converged_world_is_left_alone(api, clones):
    async with running() as operator:
        await operator.until(all_converged(api))
        await operator.until(lambda: len(api.kube.all("Event")) == len(NAMES))
        before = api.kube.mutations
        for name in NAMES:
            api.kube.change("Secret", "app", name, lambda found: found["metadata"].update(annotations={"a": "b"}))
        looks = len(reads_of(api, "DataClone"))
        await operator.until(lambda: len(reads_of(api, "DataClone")) >= looks + len(NAMES))
        written = [call for call in api.kube.calls if call.verb not in {"get", "list"} and call.key.kind != "Lease"]
        assert api.kube.mutations - before <= 2  # the lease's
        assert len([call for call in written if call.key.kind == "Secret"]) == len(NAMES)


async def test_a_lost_lease_ends_everything(api, clones):
    with pytest.raises(Ended) as caught:  # noqa: PT012 - it ends in the middle
        async with running() as operator:
            await operator.until(all_converged(api))
            api.kube.change(*LEASE, lambda found: found["spec"].update(holderIdentity="another"))
            await operator.ended()
    assert isinstance(caught.value.__cause__, LeaseLostError)
    assert lease(api)["holderIdentity"] == "another"


async def test_at_the_end_running_work_is_finished_and_the_lease_given_back(api, clones):
    begun, release = threading.Event(), threading.Event()

    class Slow(CloneReconciler):
        async def observe(self, reader, key, now):
            begun.set()
            await asyncio.to_thread(release.wait)
            return await super().observe(reader, key, now)

    async with running(Slow(), workers=1) as operator:
        await operator.until(begun.is_set)
        operator.request_stop()
        await operator.until(lambda: operator.operator.queue._closed)
        assert lease(api)["holderIdentity"] == "a"
        release.set()
    assert len(api.kube.all("Secret")) == 1
    assert lease(api)["holderIdentity"] == ""


async def test_work_that_does_not_end_is_cut_off(api, clones):
    begun = threading.Event()

    class Endless(CloneReconciler):
        async def observe(self, reader, key, now):
            begun.set()
            await asyncio.Event().wait()

    async with running(Endless(), drain=timedelta(seconds=0.1), stuck=timedelta(seconds=0.1)) as operator:
        await operator.until(begun.is_set)

        async def is_stuck():
            return "a reconciliation has been running" in (await operator.probe("/healthz"))[1]

        await operator.until(is_stuck)
    assert lease(api)["holderIdentity"] == ""
