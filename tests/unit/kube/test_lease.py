"""The lease in virtual time, against the in-memory API."""

import asyncio

import pytest
from tests.fakes.kube import FakeKube

from coppice.kube.errors import TransientError
from coppice.kube.lease import Lease, LeaseLostError, LeaseTerms

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

TERMS = LeaseTerms(duration=15, renew_deadline=10, retry=2)


def lease(kube, identity):
    return Lease(kube, namespace="coppice-system", name="coppice", identity=identity, terms=TERMS)


def spec(kube):
    return kube.peek("Lease", "coppice-system", "coppice")["spec"]


class Hanging(FakeKube):
    """An API server that stops answering on demand."""

    silent = False

    async def get(self, *args, **kwargs):
        if self.silent:
            await asyncio.sleep(3600)
        return await super().get(*args, **kwargs)


async def test_the_first_leads_at_once(looptime):
    kube = FakeKube()
    await lease(kube, "a").acquire()
    assert looptime == 0
    assert spec(kube)["holderIdentity"] == "a"
    assert spec(kube)["leaseTransitions"] == 0


async def test_the_second_waits_until_it_has_seen_no_renewal_for_the_duration(looptime):
    kube = FakeKube()
    await lease(kube, "a").acquire()
    await lease(kube, "b").acquire()
    assert 15 <= looptime < 15 + 2 * 1.2
    assert spec(kube)["holderIdentity"] == "b"
    assert spec(kube)["leaseTransitions"] == 1


async def test_a_renewed_lease_is_never_taken(looptime):
    kube = FakeKube()
    first = lease(kube, "a")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(300):
            await lease(kube, "b").acquire()
    assert spec(kube)["holderIdentity"] == "a"
    holding.cancel()


async def test_a_released_lease_is_taken_within_a_try(looptime):
    kube = FakeKube()
    first, second = lease(kube, "a"), lease(kube, "b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    await first.release()
    await waiting
    assert looptime < 2 * 1.2 + 0.1


async def test_only_the_holder_releases():
    kube = FakeKube()
    await lease(kube, "a").acquire()
    await lease(kube, "b").release()
    assert spec(kube)["holderIdentity"] == "a"


async def test_a_lease_that_cannot_be_renewed_is_lost_before_it_expires(looptime):
    kube = FakeKube()
    first = lease(kube, "a")
    await first.acquire()
    for mutation in range(1, 20):
        kube.fail_at(mutation, TransientError("down", status=503))
    with pytest.raises(LeaseLostError):
        await first.hold()
    assert looptime <= TERMS.duration - TERMS.retry


async def test_a_silent_api_server_loses_the_lease_in_time(looptime):
    kube = Hanging()
    first = lease(kube, "a")
    await first.acquire()
    kube.silent = True
    with pytest.raises(LeaseLostError):
        await first.hold()
    assert looptime <= TERMS.renew_deadline + 0.1


async def test_one_failed_renewal_is_survived(looptime):
    kube = FakeKube()
    first = lease(kube, "a")
    await first.acquire()
    kube.fail_at(1, TransientError("down", status=503))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await first.hold()
    assert spec(kube)["holderIdentity"] == "a"


async def test_one_failed_renewal_after_a_takeover_is_survived(looptime):
    """The previous holder's record, seen while waiting, must not be mistaken for a new one."""
    kube = FakeKube()
    await lease(kube, "a").acquire()
    second = lease(kube, "b")
    await second.acquire()
    kube.fail_at(1, TransientError("down", status=503))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await second.hold()


async def test_a_stolen_lease_is_lost_at_once(looptime):
    kube = FakeKube()
    first = lease(kube, "a")
    await first.acquire()
    kube.change("Lease", "coppice-system", "coppice", lambda found: found["spec"].update(holderIdentity="b"))
    with pytest.raises(LeaseLostError, match="held by b"):
        await first.hold()
    assert looptime < 3


async def test_of_two_that_try_at_once_one_leads(looptime):
    kube = FakeKube()
    await lease(kube, "dead").acquire()
    contenders = [asyncio.create_task(lease(kube, name).acquire()) for name in "ab"]
    done, waiting = await asyncio.wait(contenders, timeout=20)
    assert (len(done), len(waiting)) == (1, 1)
    waiting.pop().cancel()
