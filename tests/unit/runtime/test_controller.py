"""One reconciliation: what each kind of error leads to, and that a crash anywhere is survived."""

import asyncio
import copy
import logging
from dataclasses import replace

import pytest
from tests.fakes.kube import Crash, FakeKube
from tests.unit.runtime.builders import NOON, CloneReconciler, Recorder, clone, converged, secret

from coppice.core.key import Key
from coppice.core.plan import Plan, Ref
from coppice.engines.base import UnderWayError
from coppice.kube.errors import ConflictError, ForbiddenError, InvalidError, TransientError
from coppice.runtime.controller import REFUSED_SECONDS, Controller, Outcome
from coppice.runtime.dependencies import Dependencies
from coppice.runtime.executor import Executor
from coppice.runtime.metrics import Metrics

KEY = Key("DataClone", "app", "db")


class World:
    """A controller over a fake cluster."""

    def __init__(self, *objects, reconciler=None):
        self.kube = FakeKube(*objects)
        self.reconciler = reconciler or CloneReconciler()
        self.start()

    def start(self, reader=None):
        """Start the operator anew: everything it had in memory is lost. What it reads may lag behind."""
        self.recorder, self.metrics, self.dependencies = Recorder(), Metrics(), Dependencies()
        executor = Executor(client=self.kube, live=self.kube, engines={}, recorder=self.recorder, metrics=self.metrics)
        self.controller = Controller(
            reconcilers={"DataClone": self.reconciler},
            reader=reader or self.kube,
            live=self.kube,
            executor=executor,
            dependencies=self.dependencies,
            metrics=self.metrics,
            clock=lambda: NOON,
        )

    async def run_once(self):
        return await self.controller.run_once(KEY)

    async def settle(self):
        for _ in range(10):
            before = self.kube.all()
            await self.run_once()
            if self.kube.all() == before:
                return
        raise AssertionError("does not converge")

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, {"kind": "DataClone", **labels})

    def condition(self):
        return self.kube.peek(*KEY)["status"]["conditions"][0]


async def test_it_converges_and_rests():
    world = World(clone())
    await world.settle()
    assert converged(world.kube)[1] == [("Ready", "True", "Made")]
    before = world.kube.mutations
    assert await world.run_once() == Outcome()
    assert world.kube.mutations == before
    assert world.recorder.events == [("db", "Ready")]


@pytest.mark.parametrize("mutation", range(1, 5))
async def test_a_crash_after_any_write_leads_to_the_same_end(mutation):
    expected = World(clone())
    await expected.settle()
    assert expected.kube.mutations == 4
    world = World(clone())
    world.kube.crash_after(mutation)
    with pytest.raises(Crash):
        await world.settle()
    world.start()
    await world.settle()
    assert converged(world.kube) == converged(expected.kube)


async def test_what_was_read_wakes_the_reader_until_it_is_gone():
    world = World(clone())
    await world.run_once()
    assert world.dependencies.readers_of(Key("Secret", "app", "db"), {}) == {KEY}
    world.kube.change(*KEY, lambda found: found["metadata"].update(finalizers=[]))
    world.kube.remove(*KEY)
    assert await world.run_once() == Outcome()
    assert len(world.dependencies) == 0


class Tidy(CloneReconciler):
    """A Secret that has no password any more goes."""

    def plan(self, observation):
        found = observation.secret
        return Plan(delete=(Ref.of(found),) if found is not None and not found.get("data") else ())


async def test_nothing_is_deleted_for_what_was_true_once():
    world = World(clone(), reconciler=Tidy())
    world.kube.add(secret(world.kube.peek(*KEY)))
    world.start(reader=copy.deepcopy(world.kube))
    world.kube.change("Secret", "app", "db", lambda found: found.update(data={"password": "eA=="}))
    await world.run_once()
    assert world.kube.peek("Secret", "app", "db") is not None
    world.kube.change("Secret", "app", "db", lambda found: found.update(data={}))
    await world.run_once()
    assert world.kube.peek("Secret", "app", "db") is None


class Renewing(CloneReconciler):
    """A Secret is kept as it should be."""

    def plan(self, observation):
        found = observation.secret
        uid = {} if found is None else {"uid": found["metadata"]["uid"]}
        desired = secret(observation.manifest)
        return Plan(apply=({**desired, "metadata": {**desired["metadata"], **uid}},))


async def test_what_failed_for_something_that_is_gone_is_looked_at_anew():
    world = World(clone(), reconciler=Renewing())
    world.kube.add(secret(world.kube.peek(*KEY)))
    world.start(reader=copy.deepcopy(world.kube))
    world.kube.remove("Secret", "app", "db")
    assert await world.run_once() == Outcome(retry=True)
    assert await world.run_once() == Outcome()
    assert world.kube.peek("Secret", "app", "db") is not None


async def test_nothing_is_made_for_an_object_that_is_gone():
    world = World(clone())
    world.start(reader=copy.deepcopy(world.kube))
    world.kube.remove(*KEY)
    assert await world.run_once() == Outcome()
    assert world.kube.all() == []


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (TransientError("busy", status=429, retry_after=7), 7),
        (TransientError("down", status=503), None),
        (ConflictError("changed", status=409), None),
    ],
)
async def test_what_may_pass_backs_off_and_says_nothing(error, delay):
    world = World(clone())
    world.kube.fail_at(1, error)
    assert await world.run_once() == Outcome(delay, retry=True)
    assert "status" not in world.kube.peek(*KEY)
    assert world.sample("coppice_reconcile_errors_total", **{"class": type(error).__name__}) == 1


@pytest.mark.parametrize("error", [InvalidError("no", status=422), ForbiddenError("exceeded quota", status=403)])
async def test_what_is_refused_becomes_a_condition_and_is_tried_again_slowly(error):
    world = World(clone())
    world.kube.fail_at(2, error)
    assert await world.run_once() == Outcome(REFUSED_SECONDS)
    assert world.condition()["reason"] == type(error).__name__
    assert world.condition()["message"] == str(error)
    assert world.recorder.events == [("db", "Refused")]
    await world.settle()
    assert world.condition()["status"] == "True"


async def test_what_goes_on_is_told_as_planned_and_looked_at_again_soon():
    world = World(clone())
    world.reconciler.plan = lambda observation: replace(CloneReconciler().plan(observation), requeue_after=2)
    world.kube.fail_at(2, UnderWayError("it is at it"))
    assert await world.run_once() == Outcome(2)
    assert (world.condition()["status"], world.condition()["reason"]) == ("False", "Pending")
    assert world.kube.peek("Secret", "app", "db") is None
    assert world.sample("coppice_reconcile_errors_total", **{"class": "UnderWayError"}) is None


async def test_a_foreign_object_of_the_same_name_becomes_a_condition():
    world = World(clone())
    world.reconciler.plan = lambda observation: CloneReconciler().plan(
        type(observation)(observation.manifest, observation.now, None)
    )
    metadata = {"name": "db", "namespace": "app"}
    world.kube.add({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}})
    assert await world.run_once() == Outcome(REFUSED_SECONDS)
    assert world.condition()["reason"] == "NameConflictError"


async def test_a_bug_is_logged_once_per_generation_and_without_its_data(caplog):
    class Buggy(CloneReconciler):
        def plan(self, observation):
            raise RuntimeError(f"row: {observation.manifest['metadata']['uid']}")

    world = World(clone(), reconciler=Buggy())
    with caplog.at_level(logging.ERROR):
        assert await world.run_once() == Outcome(retry=True)
        assert await world.run_once() == Outcome(retry=True)
        assert len(caplog.records) == 1
        world.kube.change(*KEY, lambda found: found["spec"].update(profile="large"))
        await world.run_once()
    assert len(caplog.records) == 2
    assert "RuntimeError" in caplog.text
    assert "in plan" in caplog.text
    assert world.kube.peek(*KEY)["metadata"]["uid"] not in caplog.text
    assert world.sample("coppice_reconcile_errors_total", **{"class": "RuntimeError"}) == 3
    assert world.sample("coppice_reconciles_total", outcome="bug") == 3


async def test_a_report_that_is_refused_itself_is_no_bug():
    world = World(clone())
    world.kube.fail_at(2, InvalidError("no", status=422))
    world.kube.fail_at(3, ForbiddenError("neither", status=403))
    assert await world.run_once() == Outcome(REFUSED_SECONDS, retry=True)


async def test_cancellation_is_not_swallowed():
    class Slow(CloneReconciler):
        async def observe(self, reader, key, now):
            await asyncio.sleep(3600)

    task = asyncio.create_task(World(clone(), reconciler=Slow()).run_once())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_plans_delay_is_kept():
    class Polling(CloneReconciler):
        def plan(self, observation):
            return Plan(requeue_after=5)

    assert await World(clone(), reconciler=Polling()).run_once() == Outcome(5)


async def test_clones_are_counted_by_state_and_their_steps_timed():
    world = World(clone())
    await world.settle()
    value = world.metrics.registry.get_sample_value
    assert value("coppice_clones", {"state": "Ready"}) == 1
    assert value("coppice_clones", {"state": "Pending"}) == 0
    assert value("coppice_clone_step_seconds_count", {"step": "total"}) == 1
    world.kube.change(*KEY, lambda found: found["metadata"].update(finalizers=[]))
    world.kube.remove(*KEY)
    await world.run_once()
    assert value("coppice_clones", {"state": "Ready"}) == 0


async def test_a_clone_met_half_way_has_no_steps():
    world = World(clone())
    await world.run_once()
    world.start()
    await world.settle()
    assert world.metrics.registry.get_sample_value("coppice_clone_step_seconds_count", {"step": "total"}) is None
