"""What runs while this replica leads: who is woken by what, and what a resync finds."""

import asyncio

import pytest
from tests.fakes.forge import Forge
from tests.fakes.forge_transport import transport
from tests.fakes.kube import FakeKube
from tests.unit.runtime.builders import NOON, CloneReconciler, clone, secret

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Ref
from coppice.core.pullrequests import PullRequestKey
from coppice.forges.book import Book
from coppice.forges.settings import ForgeSettings
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


class Forges:
    """An operator with a forge, and what the forge tells."""

    def __init__(self, kube, folder):
        self.forge = Forge(now=NOON.timestamp)
        self.forge.repository("acme/shop").open("prices", "prices", "a" * 40)
        (folder / "token").write_text("t0ken")
        settings = ForgeSettings(Provider.GITHUB, "github.com", "https://x.example/api/v3", folder / "token")
        self.book = Book([settings], clock=lambda: NOON, transports={"github.com": transport(self.forge)})
        self.operator = Operator(
            Settings(), client=kube, reconcilers=[CloneReconciler()], engines={}, forges=self.book, clock=lambda: NOON
        )

    async def ask(self):
        """Look, as a reconciler would, and ask what is due."""
        self.book.look(PullRequestKey("github.com", "acme/shop", 1))
        for desk in self.book.desks.values():
            while await self.book.step(desk) == 0:
                pass


@pytest.fixture
async def forges(tmp_path):
    kube = FakeKube(clone(pullRequest={"provider": "github", "repository": "acme/shop", "number": 1}))
    forges = Forges(kube, tmp_path)
    forges.operator.on_event("DataClone", kube.peek(*KEY), deleted=False)
    assert await due(forges.operator) == {KEY}
    yield forges
    await forges.book.aclose()


async def test_news_of_a_pull_request_wake_its_clones(forges):
    await forges.ask()
    assert await due(forges.operator) == {KEY}


async def test_a_clone_that_is_gone_is_not_woken_by_its_pull_request(forges):
    forges.operator.on_event("DataClone", clone(), deleted=True)
    await due(forges.operator)
    await forges.ask()
    assert await due(forges.operator) == set()


async def test_a_forge_is_asked_from_the_start_until_the_end_and_its_state_is_told(forges):
    operator = forges.operator
    operator.start()
    await forges.ask()
    assert operator.ailments() == []
    operator.refresh_metrics()
    text = operator.metrics.exposition().decode()
    assert 'coppice_forge_rate_limit_remaining{host="github.com"} 4999.0' in text
    assert 'coppice_forge_requests_total{host="github.com",status="2xx"} 1.0' in text
    labels_of = {"host": "github.com"}
    found = operator.metrics.registry.get_sample_value("coppice_forge_oldest_reading_timestamp_seconds", labels_of)
    assert found == NOON.timestamp()
    await operator.drain()
    assert all(task.done() for task in operator._background)


async def test_a_forge_that_says_nothing_holds_up_no_reconciliation(forges, monkeypatch):
    monkeypatch.setattr(forges.book.desks["github.com"].client.http, "get", lambda *_: asyncio.sleep(3600))
    forges.book.look(PullRequestKey("github.com", "acme/shop", 1))
    operator = forges.operator
    operator.start()
    while (operator._client.peek(*KEY).get("status") or {}).get("conditions") is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await operator.drain()
    assert all(task.done() for task in operator._background)
