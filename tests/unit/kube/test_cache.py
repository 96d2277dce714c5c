"""What the watches have told: never older than what is known, complete or not used, and harmless where it is wrong."""

import pytest
from tests.fakes.kube import FakeKube

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Ref
from coppice.kube.cache import CachedKube, WatchCache
from coppice.kube.errors import AlreadyExistsError

POD = Key("Pod", "app", "db-0")
MINE = {labels.OWNER_UID: "u1"}


def pod(version, *, name="db-0", namespace="app", owner="u1", uid="p1", **metadata):
    found = {labels.MANAGED_BY: labels.MANAGER, labels.OWNER_UID: owner}
    identity = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**identity, "labels": found, **metadata}}


def version_of(cache, key=POD):
    found = cache.get(key)
    return None if found is None else int(found["metadata"]["resourceVersion"])


@pytest.fixture
def cache():
    return WatchCache()


@pytest.mark.parametrize(("versions", "kept"), [((1, 2), 2), ((2, 1), 2), ((2, 2), 2), ((9, 10), 10)])
def test_the_newest_is_kept_whatever_the_order(cache, versions, kept):
    for version in versions:
        cache.take("Pod", pod(version))
    assert version_of(cache) == kept


def test_what_was_deleted_does_not_come_back_by_an_event_that_is_late(cache):
    cache.take("Pod", pod(1))
    cache.deleted("Pod", pod(3))
    cache.take("Pod", pod(2))
    assert cache.get(POD) is None
    cache.take("Pod", pod(4, uid="p2"))
    assert version_of(cache) == 4


def test_a_late_word_of_a_deletion_takes_nothing_that_came_after(cache):
    cache.take("Pod", pod(5, uid="p2"))
    cache.deleted("Pod", pod(3))
    assert version_of(cache) == 5


def test_a_list_takes_away_what_no_event_said_was_deleted(cache):
    cache.take("Pod", pod(1))
    cache.take("Pod", pod(2, name="other"))
    cache.listed("Pod", [pod(2, name="other")], cache.now())
    assert cache.get(POD) is None
    assert [found["metadata"]["name"] for found in cache.list("Pod", None, MINE)] == ["other"]


def test_a_list_knows_nothing_of_what_came_after_it_was_asked_for(cache):
    begun = cache.now()
    cache.take("Pod", pod(7))
    cache.take("Pod", pod(8, name="gone"))
    cache.deleted("Pod", pod(9, name="gone"))
    cache.listed("Pod", [pod(8, name="gone")], begun)
    assert version_of(cache) == 7
    assert cache.get(POD._replace(name="gone")) is None


def test_a_list_puts_right_what_a_restored_api_server_has_forgotten(cache):
    cache.take("Pod", pod(9))
    cache.take("Pod", pod(8, name="back"))
    cache.deleted("Pod", pod(9, name="back"))
    cache.listed("Pod", [pod(3), pod(4, name="back")], cache.now())
    assert version_of(cache) == 3
    assert version_of(cache, POD._replace(name="back")) == 4


def test_a_list_is_answered_only_once_all_of_a_kind_are_known(cache):
    cache.take("Pod", pod(1))
    assert cache.list("Pod", "app", MINE) is None
    cache.listed("Pod", [], begun=0)
    assert cache.list("Pod", "app", MINE) == [cache.get(POD)]


@pytest.mark.parametrize(
    ("namespace", "wanted", "names"),
    [
        ("app", MINE, ["a"]),
        (None, MINE, ["a", "b"]),
        ("app", {labels.OWNER_UID: "u2"}, ["c"]),
        ("app", {**MINE, labels.ROLE: "clone"}, []),
        ("app", {}, ["a", "c"]),
        (None, {}, ["a", "c", "b"]),
        ("nowhere", MINE, []),
    ],
)
def test_lists_by_namespace_and_owner(cache, namespace, wanted, names):
    listed = [pod(3, name="c", owner="u2"), pod(2, name="b", namespace="data"), pod(1, name="a")]
    cache.listed("Pod", listed, cache.now())
    assert [found["metadata"]["name"] for found in cache.list("Pod", namespace, wanted)] == names


def test_an_object_that_changes_its_labels_is_found_by_the_new_ones_only(cache):
    cache.listed("Pod", [pod(1)], cache.now())
    cache.take("Pod", pod(2, owner="u2"))
    assert cache.list("Pod", "app", MINE) == []
    assert len(cache.list("Pod", "app", {labels.OWNER_UID: "u2"})) == 1


@pytest.mark.parametrize(
    ("kind", "manifest"),
    [
        pytest.param("Pod", pod("x"), id="no comparable version"),
        pytest.param("Pod", pod(1, labels={labels.MANAGED_BY: labels.MANAGER}), id="no event will come"),
        pytest.param("Deployment", pod(1), id="large"),
        pytest.param("ConfigMap", pod(1), id="not watched"),
    ],
)
def test_what_could_not_be_kept_up_to_date_is_not_kept(cache, kind, manifest):
    cache.take(kind, manifest)
    cache.listed(kind, [manifest], cache.now())
    assert len(cache) == 0


def test_of_what_is_not_kept_no_deletion_is_remembered(cache):
    cache.deleted("Deployment", pod(1))
    assert cache._deleted == {}


def test_every_reader_gets_an_object_of_its_own_without_ballast(cache):
    cache.take("Pod", pod(1, managedFields=[{"manager": "kubelet"}]))
    cache.get(POD)["metadata"]["labels"].clear()
    assert cache.get(POD) == pod(1)


def test_a_kind_that_the_cluster_has_no_more_is_not_one_without_objects(cache):
    cache.listed("Pod", [pod(1)], cache.now())
    cache.unlisted("Pod")
    assert cache.get(POD) is None
    assert cache.list("Pod", "app", MINE) is None


def test_it_grows_only_by_what_is_there(cache):
    for round_ in range(3):
        for number in range(10):
            cache.take("Pod", pod(100 * round_ + number, name=f"db-{number}"))
        for number in range(10):
            cache.deleted("Pod", pod(100 * round_ + 50 + number, name=f"db-{number}"))
    cache.listed("Pod", [], cache.now())
    assert len(cache) == 0
    assert (cache._filed, cache._deleted) == ({}, {})


@pytest.fixture
def kube():
    return FakeKube()


@pytest.fixture
def cached(kube, cache):
    return CachedKube(kube, cache)


def fresh(name="db-0"):
    manifest = pod(1, name=name)
    del manifest["metadata"]["uid"], manifest["metadata"]["resourceVersion"]
    return {**manifest, "spec": {}}


async def test_what_is_not_known_may_exist(kube, cached):
    kube.add(fresh())
    assert await cached.get("Pod", "db-0", "app") is not None
    assert len(await cached.list("Pod", "app", MINE)) == 1


async def test_what_is_known_costs_no_request(kube, cache, cached):
    made = await cached.create(fresh())
    cache.listed("Pod", [made], cache.now())
    kube.calls.clear()
    assert await cached.get("Pod", "db-0", "app") == made
    assert await cached.list("Pod", "app", MINE) == [made]
    assert kube.calls == []


async def test_own_writes_are_known_before_any_event(kube, cache, cached):
    cache.listed("Pod", [], cache.now())
    made = await cached.create(fresh())
    identity = {"name": "db-0", "namespace": "app", "uid": made["metadata"]["uid"], "annotations": {"a": "b"}}
    await cached.apply({"apiVersion": "v1", "kind": "Pod", "metadata": identity})
    [found] = await cached.list("Pod", "app", MINE)
    assert found["metadata"]["annotations"] == {"a": "b"}


async def test_a_list_that_could_find_what_the_watch_does_not_select_is_live(kube, cache, cached):
    stranger = fresh("theirs")
    stranger["metadata"]["labels"] = {"app": "theirs"}
    kube.add(stranger)
    cache.listed("Pod", [], cache.now())
    assert len(await cached.list("Pod", "app", {"app": "theirs"})) == 1
    assert len(await cached.list("Pod", "app")) == 1


async def test_what_was_to_be_made_and_is_there_is_known_whatever_became_of_its_event(kube, cache, cached):
    there = kube.add(fresh())
    cache.listed("Pod", [], cache.now())
    assert await cached.list("Pod", "app", MINE) == []
    with pytest.raises(AlreadyExistsError):
        await cached.create(fresh())
    kube.calls.clear()
    assert await cached.list("Pod", "app", MINE) == [there]
    assert kube.calls == []


async def test_what_is_there_without_an_owner_is_not_taken_for_ours(kube, cache, cached):
    theirs = fresh()
    del theirs["metadata"]["labels"][labels.OWNER_UID]
    kube.add(theirs)
    cache.listed("Pod", [], cache.now())
    with pytest.raises(AlreadyExistsError):
        await cached.create(fresh())
    assert await cached.list("Pod", "app", MINE) == []
    assert len(cache) == 0


async def test_a_survey_finds_what_is_watched_known_or_not(kube, cache, cached):
    ours, theirs = kube.add(fresh()), fresh("theirs")
    theirs["metadata"]["labels"] = {"app": "theirs"}
    kube.add(theirs)
    assert await cached.survey("Pod") == [ours]
    cache.listed("Pod", [ours], cache.now())
    kube.calls.clear()
    assert await cached.survey("Pod") == [ours]
    assert kube.calls == []


async def test_what_was_told_to_go_is_there_until_an_event_says_it_is_gone(cached):
    made = await cached.create(fresh())
    await cached.delete(Ref.of(made))
    assert await cached.get("Pod", "db-0", "app") == made
