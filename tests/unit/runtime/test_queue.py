"""The queue in virtual time, by example and by random schedules."""

import asyncio
from collections import Counter

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.runtime.queue import WorkQueue

pytestmark = pytest.mark.looptime


async def take(queue, count):
    return [await queue.get() for _ in range(count)]


async def test_keys_come_once_and_in_order():
    queue = WorkQueue()
    for key in "abab":
        queue.add(key)
    assert queue.depth == 2
    assert await take(queue, 2) == ["a", "b"]


async def test_of_slow_keys_few_are_worked_on_and_the_others_go_past():
    queue = WorkQueue(slow=str.isupper, slow_limit=2)
    for key in "ABCaDb":
        queue.add(key)
    assert await take(queue, 4) == ["A", "B", "a", "b"]
    waiting = asyncio.create_task(queue.get())
    queue.done("a")
    await asyncio.sleep(1)
    assert not waiting.done()
    queue.done("B")
    assert await waiting == "C"
    queue.add("A")
    queue.done("A")
    assert await queue.get() == "D"
    assert queue.depth == 1


async def test_a_key_added_during_its_work_comes_again_and_not_before(looptime):
    queue = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await queue.get()
    queue.done("a")
    assert await queue.get() == "a"
    assert looptime == 10


async def test_of_two_delays_the_earlier_counts_and_an_addition_overtakes_both(looptime):
    queue = WorkQueue()
    queue.add_after("a", 50)
    queue.add_after("a", 20)
    queue.add_after("a", 70)
    await queue.get()
    assert looptime == 20
    queue.done("a")
    queue.add_after("a", 50)
    queue.add("a")
    await queue.get()
    queue.done("a")
    assert looptime == 20
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


async def test_failures_back_off_with_a_limit_and_forget_starts_anew(looptime):
    queue = WorkQueue(backoff=1, backoff_limit=8)
    waits = []
    for _ in range(6):
        since = asyncio.get_running_loop().time()
        queue.retry("a")
        await queue.get()
        waits.append(asyncio.get_running_loop().time() - since)
        queue.done("a")
    for wait, limit in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert limit / 2 <= wait <= limit
    queue.forget("a")
    before = asyncio.get_running_loop().time()
    queue.retry("a")
    await queue.get()
    assert asyncio.get_running_loop().time() - before <= 1


async def test_what_the_server_asked_to_wait_is_waited(looptime):
    queue = WorkQueue(backoff=1)
    queue.retry("a", at_least=30)
    await queue.get()
    assert looptime == 30


async def test_ages(looptime):
    queue = WorkQueue()
    assert (queue.oldest_wait, queue.longest_work) == (0, 0)
    queue.add("a")
    await asyncio.sleep(3)
    queue.add("b")
    await asyncio.sleep(2)
    assert queue.oldest_wait == 5
    await queue.get()
    await asyncio.sleep(7)
    assert (queue.oldest_wait, queue.longest_work) == (9, 7)
    queue.done("a")
    assert queue.longest_work == 0


async def test_closing_wakes_the_idle_and_takes_nothing_more():
    queue = WorkQueue()
    queue.add_after("later", 1)
    idle = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    queue.add("a")
    queue.add_after("a", 1)
    assert await idle is None
    assert await queue.get() is None


SCHEDULE = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "after", "retry"]), st.integers(0, 5), st.integers(0, 3))
)


@settings(max_examples=200)
@given(schedule=SCHEDULE, workers=st.integers(1, 4))
def test_no_addition_is_lost_and_no_key_is_worked_on_twice_at_once(schedule, workers):
    """Whatever is added, by whom and when: some work on that key begins no earlier than the addition is due."""

    async def run():
        queue = WorkQueue(backoff=1, backoff_limit=4)
        loop = asyncio.get_running_loop()
        active, begun, due = Counter(), {}, {}

        async def work(seconds):
            while (key := await queue.get()) is not None:
                active[key] += 1
                assert active[key] == 1
                begun[key] = loop.time()
                await asyncio.sleep(seconds * 0.001)
                active[key] -= 1
                queue.done(key)

        tasks = [asyncio.create_task(work(number)) for number in range(workers)]
        for key, action, delay, pause in schedule:
            if action == "add":
                queue.add(key)
                due[key] = loop.time()
            elif action == "after":
                queue.add_after(key, delay * 0.001)
            else:
                queue.retry(key)
            await asyncio.sleep(pause * 0.001)
        while queue.depth or queue.longest_work:  # noqa: ASYNC110 - a poll is the observer that cannot interfere
            await asyncio.sleep(0.001)
        for key, moment in due.items():
            assert begun[key] >= moment
        queue.close()
        await asyncio.gather(*tasks)

    # pytest's marker does not reach into the examples of hypothesis.
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(run())
