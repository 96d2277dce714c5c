"""What was left behind goes, and nothing else does: however stale, wrong or unwilling the API server is."""

import logging

import pytest
from tests.fakes.kube import FakeKube
from tests.unit.runtime.builders import clone, secret

from coppice.core import labels
from coppice.core.orphans import find_orphans
from coppice.kube.errors import ForbiddenError, NotFoundError, TransientError
from coppice.runtime.metrics import Metrics
from coppice.runtime.sweep import GRACE_SECONDS, Sweeper

SECRET = ("Secret", "app", "child")


@pytest.fixture
def kube():
    """A world with a child whose owner is gone."""
    kube = FakeKube(clone())
    kube.add(secret(kube.peek("DataClone", "app", "db"), "child"))
    kube.remove("DataClone", "app", "db")
    return kube


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def sweeper(kube, metrics):
    return Sweeper(kube, metrics)


def listed(kube, *, alive=()):
    return find_orphans(kube.all("Secret"), set(alive))


async def sweep_twice(sweeper, orphans):
    await sweeper.sweep(orphans, 0)
    await sweeper.sweep(orphans, GRACE_SECONDS)


async def test_an_orphan_goes_is_counted_and_named(kube, sweeper, metrics, caplog):
    owner = kube.peek(*SECRET)["metadata"]["labels"][labels.OWNER_UID]
    with caplog.at_level(logging.INFO):
        await sweep_twice(sweeper, listed(kube))
    assert kube.peek(*SECRET) is None
    assert metrics.registry.get_sample_value("coppice_orphans_removed_total", {"kind": "Secret"}) == 1
    expected = f"removed Secret app/child: it was made for DataClone app/db ({owner}), which is gone"
    assert caplog.messages == [expected]


async def test_it_is_left_to_the_garbage_collector_for_a_while(kube, sweeper):
    await sweeper.sweep(listed(kube), 0)
    await sweeper.sweep(listed(kube), GRACE_SECONDS - 1)
    assert kube.peek(*SECRET) is not None


async def test_what_was_none_in_between_begins_anew(kube, sweeper):
    await sweeper.sweep(listed(kube), 0)
    await sweeper.sweep((), 5)
    await sweeper.sweep(listed(kube), GRACE_SECONDS)
    assert kube.peek(*SECRET) is not None


async def test_a_list_without_the_owner_is_not_believed():
    kube = FakeKube(clone())
    kube.add(secret(kube.peek("DataClone", "app", "db"), "child"))
    await sweep_twice(Sweeper(kube, Metrics()), listed(kube))
    assert kube.counts()["delete"] == 0


async def test_an_owner_of_the_same_name_is_another_one(kube, sweeper):
    kube.add(clone())
    kube.add(secret(kube.peek("DataClone", "app", "db"), "of-the-new-one"))
    await sweep_twice(sweeper, listed(kube))
    assert [found["metadata"]["name"] for found in kube.all("Secret")] == ["of-the-new-one"]


async def test_a_child_that_was_made_anew_meanwhile_stays(kube, sweeper):
    orphans = listed(kube)
    child = kube.peek(*SECRET)
    kube.remove(*SECRET)
    kube.add(child)
    await sweep_twice(sweeper, orphans)
    assert kube.counts()["delete"] == 0


async def test_a_child_that_was_taken_over_meanwhile_stays(kube, sweeper):
    orphans = listed(kube)
    kube.change(*SECRET, lambda found: found["metadata"].pop("ownerReferences"))
    await sweep_twice(sweeper, orphans)
    assert kube.counts()["delete"] == 0


@pytest.mark.parametrize(
    "error",
    [
        ForbiddenError("no", status=403),
        TransientError("etcd is unhappy", status=500),
        NotFoundError("404 page not found", status=404),
    ],
)
@pytest.mark.parametrize("kind", ["DataClone", "Secret"])
async def test_who_cannot_look_again_removes_nothing_and_says_so(kube, sweeper, monkeypatch, caplog, error, kind):
    right = kube.get

    async def get(wanted, name, namespace=None):
        if wanted == kind:
            raise error
        return await right(wanted, name, namespace)

    monkeypatch.setattr(kube, "get", get)
    await sweep_twice(sweeper, listed(kube))
    assert kube.counts()["delete"] == 0
    assert "cannot be removed" in caplog.text
    monkeypatch.undo()
    await sweeper.sweep(listed(kube), GRACE_SECONDS + 1)
    assert kube.peek(*SECRET) is None


async def test_one_that_cannot_be_removed_holds_up_no_other(kube, sweeper):
    other = kube.peek(*SECRET)
    other["metadata"]["name"] = "child-2"
    kube.add(other)
    await sweeper.sweep(listed(kube), 0)
    kube.fail_at(1, ForbiddenError("no", status=403))
    await sweeper.sweep(listed(kube), GRACE_SECONDS)
    assert len(kube.all("Secret")) == 1
