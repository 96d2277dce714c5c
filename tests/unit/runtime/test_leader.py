"""What runs while this replica leads: who is woken by what, and what a resync finds."""

import asyncio

import pytest
from tests.fakes.kube import FakeKube
from tests.unit.runtime.builders import NOON, CloneReconciler, clone, secret

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Ref
from coppice.runtime.leader import Operator
from coppice.runtime.settings import Settings

KEY = Key("DataClone", "app", "db")


@pytest.fixture
def kube():
    return FakeKube(clone())


@pytest.fixture
def operator(kube):
    return Operator(Settings(), client=kube, reconcilers=[CloneReconciler()], engines={}, clock=lambda: NOON)


async def due(operator):
    """Take everything that is due."""
    found = set()
    while operator.queue.depth:
        key = await operator.queue.get()
        operator.queue.done(key)
        found.add(key)
    return found


async def test_an_event_wakes_the_object_itself(operator, kube):
    operator.on_event("DataClone", kube.peek(*KEY), deleted=False)
    assert await due(operator) == {KEY}


async def test_a_child_wakes_its_owner_though_nobody_has_read_it(operator, kube):
    operator.on_event("Secret", secret(kube.peek(*KEY)), deleted=True)
    assert await due(operator) == {KEY}


@pytest.mark.parametrize("kind", ["Deployment", "DataStore"])
async def test_an_owner_of_another_kind_is_not_ours_to_wake(operator, kube, kind):
    child = secret(kube.peek(*KEY))
    child["metadata"]["labels"][labels.OWNER_KIND] = kind
    operator.on_event("Secret", child, deleted=False)
    assert await due(operator) == set()


async def test_a_stranger_wakes_nobody(operator):
    metadata = {"name": "x", "namespace": "app", "uid": "1"}
    operator.on_event("Secret", {"kind": "Secret", "metadata": metadata}, deleted=False)
    assert await due(operator) == set()


@pytest.mark.looptime
async def test_the_first_resync_is_due_at_once_and_later_ones_are_spread(operator, kube):
    for number in range(20):
        kube.add(clone(f"c{number}"))
    await operator.resync(spread=1)
    assert len(await due(operator)) == 21
    await operator.resync(spread=1)
    assert operator.queue.depth == 0
    seen = {await operator.queue.get() for _ in range(21)}
    assert len(seen) == 21


async def test_orphans_are_counted_but_not_what_a_store_leaves_on_purpose(operator, kube):
    owner = kube.peek(*KEY)
    kube.add(secret(owner, "mine"))
    gone = {**owner, "metadata": {**owner["metadata"], "uid": "gone"}}
    kube.add(secret(gone, "orphan"))
    kept = secret(gone, "kept")
    kept["metadata"]["labels"][labels.OWNER_KIND] = "DataStore"
    kube.add(kept)
    await operator.resync(spread=1)
    value = operator.metrics.registry.get_sample_value
    assert value("coppice_orphans", {"kind": "Secret"}) == 1
    assert value("coppice_orphans", {"kind": "Pod"}) == 0
    assert value("coppice_last_resync_timestamp_seconds") == NOON.timestamp()


@pytest.mark.looptime
async def test_what_is_left_of_a_clone_goes_though_no_event_told_of_it(operator, kube):
    owner = kube.peek(*KEY)
    policy = {**secret(owner, "policy"), "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    for child in (secret(owner, "mine"), policy):
        kube.add(child)
    kube.remove(*KEY)
    operator.start()
    await asyncio.sleep(50)
    assert kube.peek("Secret", "app", "mine") is not None
    value = operator.metrics.registry.get_sample_value
    assert value("coppice_orphans", {"kind": "NetworkPolicy"}) == 1
    await asyncio.sleep(400)
    assert kube.all("Secret") == kube.all("NetworkPolicy") == []
    await asyncio.sleep(600)
    assert value("coppice_orphans", {"kind": "NetworkPolicy"}) == 0
    assert operator.ailments() == []
    await operator.drain()


@pytest.mark.looptime
async def test_a_child_that_went_before_its_watch_began_comes_back_soon(operator, kube):
    operator.start()
    await asyncio.sleep(1)
    operator.on_event("DataClone", kube.peek(*KEY), deleted=False)
    await asyncio.sleep(1)
    before = kube.peek("Secret", "app", "db")
    await kube.delete(Ref.of(before))
    await asyncio.sleep(20)
    after = kube.peek("Secret", "app", "db")
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    await operator.drain()


@pytest.mark.looptime
async def test_resyncs_come_less_often_until_there_is_one_in_a_period(operator, kube, monkeypatch):
    times = []

    async def resync(*, spread):
        times.append((asyncio.get_running_loop().time(), spread))

    monkeypatch.setattr(operator, "resync", resync)
    operator.start()
    await asyncio.sleep(2000)
    assert [round(at) for at, _ in times] == [0, 10, 70, 430, 1030, 1630]
    assert [round(spread) for _, spread in times] == [1, 6, 36, 60, 60, 60]
    await operator.drain()


@pytest.mark.looptime
async def test_late_resyncs_and_ended_tasks_are_ailments(operator, kube):
    assert operator.ailments() == []
    kube.missing_kinds.add("DataClone")
    operator.start()
    await asyncio.sleep(1)
    assert operator.unready() == ["the kinds of Coppice have not been listed yet"]
    assert operator.ailments() == []
    await asyncio.sleep(1801)
    assert operator.ailments() == ["the last resync was 1802 s ago"]
    kube.missing_kinds.clear()
    await asyncio.sleep(10)
    assert operator.ailments() == operator.unready() == []
    operator._workers[3].cancel()
    await asyncio.sleep(0)
    assert operator.ailments() == ["worker 3 has ended"]
    await operator.drain()
