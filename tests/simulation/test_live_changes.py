"""Requests for a live database on bad days: whoever else writes, and whenever the operator dies, the database is as it
was or as somebody approved it, nothing that anybody wrote is lost, and what became of a transaction is told.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections.abc import Callable

import pytest
from tests.fakes.audit import orphans
from tests.fakes.kube import Crash
from tests.fakes.merging import change_set, rows_of
from tests.fakes.operator import Mood
from tests.fakes.patching import FakePatch, PatchingFakeEngine, PatchingWorld
from tests.fakes.story import Story

from coppice.engines.digests import sealed
from coppice.manifests.secret import read_secret

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
SEEDS = range(300 if THOROUGH else 12)
PROTECTED = [{"branches": ["main"], "reviewers": {"users": ["bob@example.com", "carol@example.com"]}}]
ALBUMS = ("album/1.title=Blue", "album/2.title=Red", "album/3.title=Green")
SECRET = "Row-Value-4111"
"""Part of every value that an app writes: it must stand in no object."""


def engine_of(story: Story) -> PatchingFakeEngine:
    engine = story.world.engine
    assert isinstance(engine, PatchingFakeEngine)
    return engine


def change(story: Story, old: str, new: str, *, clone: str = "db") -> None:
    """Change a row through an app that is bound to a clone."""
    branch = story.world.login("data", f"{clone}-binding").volume.branches["main"]
    branch.rows = (branch.rows - {old}) | {new}


def live(story: Story) -> frozenset[str]:
    return story.data_of().branches["main"].rows


class Witness:
    """Sees every transaction on the live database that is the operator's, and remembers everybody else's rows."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.expected = set(live(story))
        self.written: list[str] = []
        engine_of(story).written = self._look

    def write(self, *rows: str, without: tuple[str, ...] = ()) -> None:
        """Somebody else writes to the live database, past any request."""
        branch = self.story.data_of().branches["main"]
        branch.rows = (branch.rows - set(without)) | set(rows)
        self.expected = (self.expected - set(without)) | set(rows)

    def _look(self, patch: FakePatch, before: frozenset[str]) -> None:
        assert before == self.expected, "something was lost before"
        after = live(self.story)
        digest = change_set(before, after).digest
        done = sealed(digest, read_secret(self.story.get("Secret", "shop-admin"))["admin-password"])
        assert self._approved(done), "somebody approved something else than was written"
        self.expected = (self.expected - rows_of(patch.before)) | rows_of(patch.after)
        self.written.append(digest)

    def _approved(self, digest: str) -> bool:
        return any(
            (review["spec"].get("patch") or {}).get("digest") == digest and review["spec"]["verdict"] == "Approve"
            for review in self.story.kube.all("DataReview")
        )

    def check(self) -> None:
        """Nothing is lost, and each transaction of the operator's is known by its name."""
        assert live(self.story) == self.expected
        committed = [name for name, fate in self.story.data_of().transactions.items() if fate == "Committed"]
        assert len(committed) == len(self.written)
        told = [name for request in self.story.names("DataChangeRequest") if (name := published(self.story, request))]
        assert sorted(told) == sorted(committed)
        shown = [str({key: value for key, value in found.items() if key != "data"}) for found in self.story.kube.all()]
        assert not [text for text in shown if SECRET in text], "a row's value stands in an object"
        assert not [event for _, event in self.story.operator.log.events if SECRET in event.message]


@functools.cache
def _opened() -> Story:
    story = Story(PatchingWorld())

    async def play() -> None:
        story.policies()
        story.store(protection=PROTECTED)
        await story.settle()
        story.commit(*ALBUMS)
        story.clone()
        await story.settle()
        change(story, ALBUMS[0], f"album/1.title={SECRET}-a")
        story.world.tick(60)

    asyncio.run(play())
    return story


@pytest.fixture
def shop() -> Story:
    """Return a story with a store and a clone of it in which a title was changed."""
    return _opened().fork()


def published(story: Story, name: str = "fix") -> str | None:
    found = story.status("DataChangeRequest", name).get("published")
    return None if found is None else str(found["commit"])


def reason(story: Story, of: str, name: str = "fix") -> str:
    return str(story.condition("DataChangeRequest", name, of=of)["reason"])


async def test_a_change_is_proposed_approved_and_written_in_one_transaction(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(publish="Database")
    await shop.settle()
    assert published(shop) is None
    assert shop.status("DataChangeRequest", "fix")["preview"] == {"clone": "db", "ready": True}
    shop.review()
    await shop.settle()
    shop.expect_ready("DataChangeRequest", "fix")
    assert live(shop) == {f"album/1.title={SECRET}-a", *ALBUMS[1:]}
    assert shop.names("DataClone") == ["db"]
    witness.check()
    shop.delete("DataChangeRequest", "fix")
    await shop.settle()
    assert orphans(shop.world) == []


async def test_an_idle_request_is_compared_and_judged_once(shop: Story) -> None:
    shop.request(publish="Database")
    await shop.settle()
    engine = engine_of(shop)
    before = engine.compared, engine.judged
    await shop.operator.live(minutes=10)
    assert (engine.compared, engine.judged) == before


async def test_an_approval_holds_when_other_rows_of_the_live_database_change(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(publish="Database", merge="Manual")
    await shop.settle()
    shop.review()
    witness.write("album/4.title=Yellow")
    await shop.operator.live(minutes=2)
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=2)
    assert len(witness.written) == 1
    witness.check()


async def test_an_approval_is_void_when_more_is_changed_on_the_clone(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(publish="Database", merge="Manual")
    await shop.settle()
    shop.review()
    await shop.settle()
    change(shop, ALBUMS[1], f"album/2.title={SECRET}-b")
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=5)
    assert shop.condition("DataReview", "fix-bob", of="Counted")["reason"] == "OtherPatch"
    assert (published(shop), witness.written) == (None, [])
    shop.review(reviewer="carol@example.com")
    await shop.operator.live(minutes=2)
    assert len(witness.written) == 1
    witness.check()


async def test_a_conflict_is_named_without_a_value_and_resolved(shop: Story) -> None:
    witness = Witness(shop)
    witness.write(f"album/1.title={SECRET}-theirs", without=(ALBUMS[0],))
    shop.request(publish="Database")
    await shop.settle()
    assert reason(shop, "Mergeable") == "Conflicts"
    [listed] = shop.status("DataChangeRequest", "fix")["conflicts"]["listed"]
    assert (listed["kind"], listed["table"], listed["column"]) == ("Cell", "album", "title")
    shop.edit("DataChangeRequest", "fix", resolutions=[{"conflict": listed["id"], "take": "Source"}])
    await shop.operator.live(minutes=1)
    shop.review()
    await shop.operator.live(minutes=1)
    assert len(witness.written) == 1
    assert f"album/1.title={SECRET}-a" in live(shop)
    witness.check()


async def test_somebody_is_faster_at_the_very_moment_and_nothing_is_lost(shop: Story) -> None:
    witness, tries = Witness(shop), []
    shop.request(publish="Database")
    await shop.settle()

    def hurry(action: str) -> None:
        if action == "write" and not tries:
            tries.append(action)
            witness.write(f"album/1.title={SECRET}-theirs", without=(ALBUMS[0],))

    engine_of(shop).before_call = hurry
    shop.review()
    await shop.operator.live(minutes=2)
    assert (published(shop), reason(shop, "Mergeable")) == (None, "Conflicts")
    assert tries == ["write"]
    witness.check()


async def test_a_request_that_is_withdrawn_while_it_is_written_is_not_committed(shop: Story) -> None:
    witness, engine = Witness(shop), engine_of(shop)
    shop.request(publish="Database")
    await shop.settle()
    edited: list[str] = []

    def edit(action: str) -> None:
        if action == "write" and not edited:
            edited.append(action)
            shop.edit("DataChangeRequest", "fix", merge="Manual")

    engine.before_call = edit
    shop.review()
    await shop.operator.live(minutes=2)
    assert (published(shop), reason(shop, "Published"), edited) == (None, "Manual", ["write"])
    assert set(shop.data_of().transactions.values()) == {"Aborted"}
    witness.check()


async def test_what_the_live_databases_rules_refuse_is_a_conflict_until_the_clone_is_changed(shop: Story) -> None:
    witness, engine = Witness(shop), engine_of(shop)
    engine.breaks = lambda rows: "title_unique" if f"album/1.title={SECRET}-a" in rows else ""
    shop.request(publish="Database")
    await shop.settle()
    shop.review()
    tries: list[str] = []
    engine.before_call = lambda action: tries.append(action) if action == "write" else None
    await shop.operator.live(minutes=4)
    assert tries == ["write"]
    shop.expect_stalled("DataChangeRequest", "fix", "RulesBroken")
    [listed] = shop.status("DataChangeRequest", "fix")["conflicts"]["listed"]
    assert (listed["kind"], listed["detail"]) == ("Unique", "title_unique")
    assert witness.written == []

    change(shop, f"album/1.title={SECRET}-a", f"album/1.title={SECRET}-c")
    await shop.operator.live(minutes=2)
    assert "conflicts" not in shop.status("DataChangeRequest", "fix")
    shop.review(reviewer="carol@example.com")
    await shop.operator.live(minutes=2)
    assert len(witness.written) == 1
    witness.check()


def kill_between(story: Story, moment: str) -> None:
    """Kill the operator once in the middle of a transaction."""
    killed: list[str] = []

    def die(done: str) -> None:
        if done == moment and not killed:
            killed.append(done)
            raise Crash

    engine_of(story).between = die


@pytest.mark.parametrize(("moment", "fates"), [("noted", ["Aborted", "Committed"]), ("committed", ["Committed"])])
async def test_an_operator_that_dies_around_the_commit_learns_what_became_of_it(
    shop: Story, moment: str, fates: list[str]
) -> None:
    witness = Witness(shop)
    kill_between(shop, moment)
    shop.request(publish="Database")
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=2)
    assert shop.operator.crashes == 1
    assert list(shop.data_of().transactions.values()) == fates
    assert len(witness.written) == 1
    witness.check()


async def test_while_a_transaction_is_open_nobody_writes_again(shop: Story) -> None:
    witness, engine = Witness(shop), engine_of(shop)
    kill_between(shop, "noted")
    engine.fates = lambda name: "Open"
    shop.request(publish="Database")
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=2)
    [name] = shop.data_of().transactions
    assert reason(shop, "Published") == "Publishing"
    assert shop.status("DataChangeRequest", "fix")["publishing"].startswith(f"{name}/")
    engine.fates = lambda name: None
    await shop.operator.live(minutes=2)
    assert len(witness.written) == 1
    witness.check()


async def test_when_nobody_can_tell_what_became_of_a_transaction_somebody_has_to_look(shop: Story) -> None:
    witness, engine = Witness(shop), engine_of(shop)
    kill_between(shop, "noted")
    engine.fates = lambda name: "Unknown"
    shop.request(publish="Database")
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=5)
    assert "xid:700" in shop.expect_stalled("DataChangeRequest", "fix", "OutcomeUnknown")
    assert len(shop.data_of().transactions) == 1
    witness.check()

    witness.write(f"album/1.title={SECRET}-a", without=(ALBUMS[0],))
    await shop.operator.live(minutes=10)
    assert published(shop) == "xid:700@fake-1"


async def test_a_patch_is_handed_over_and_found_in_the_live_database(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(publish="Patch")
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=2)
    assert reason(shop, "Published") == "HandOver"
    assert "coppice patch fix" in shop.condition("DataChangeRequest", "fix", of="Published")["message"]
    assert len(shop.names("DataClone")) == 2
    witness.write(f"album/1.title={SECRET}-a", without=(ALBUMS[0],))
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataChangeRequest", "fix")
    assert reason(shop, "Published") == "HandedOver"
    assert str(published(shop)).startswith("patch:")
    assert shop.names("DataClone") == ["db"]
    assert shop.data_of().transactions == {}


async def proposed_and_approved(start: Story, disturb: Callable[[Story], None]) -> tuple[Story, Witness]:
    """Propose and approve, with the operator disturbed from the beginning."""
    story = start.fork()
    witness = Witness(story)
    disturb(story)
    story.request(publish="Database")
    await story.operator.live(minutes=2)
    story.review()
    await story.operator.live(minutes=2)
    return story, witness


async def test_killed_at_any_write_or_call_the_change_is_written_once_and_whole(shop: Story) -> None:
    calls: list[str] = []
    quiet, _ = await proposed_and_approved(shop, lambda story: setattr(story.world.engine, "before_call", calls.append))
    expected, writes = live(quiet), quiet.kube.mutations - shop.kube.mutations
    disturbances: list[Callable[[Story], None]] = [
        lambda story, number=number, when=when: story.kill_at(number, when)
        for number in range(1, len(calls) + 1)
        for when in ("before", "after")
    ]
    disturbances += [lambda story, number=number: story.kube.crash_after(number) for number in range(1, writes + 1)]
    for place, disturb in enumerate(disturbances):
        story, witness = await proposed_and_approved(shop, disturb)
        assert story.operator.crashes == 1, place
        assert live(story) == expected, place
        assert len(witness.written) == 1, place
        assert story.names("DataClone") == ["db"], place
        witness.check()


@pytest.mark.parametrize("mood", Mood, ids=lambda mood: mood.name.lower())
@pytest.mark.parametrize("moment", ["noted", "committed", ""])
async def test_however_it_hears_of_things_it_is_written_once_and_told(shop: Story, mood: Mood, moment: str) -> None:
    witness = Witness(shop)
    shop.operator.mood = mood
    kill_between(shop, moment)
    shop.request(publish="Database")
    await shop.operator.live(minutes=2)
    shop.review()
    await shop.operator.live(minutes=5)
    assert len(witness.written) == 1
    witness.check()


class Bustle:
    """A reviewer or two, an app, another writer and an operator that dies now and then, in an order by chance."""

    def __init__(self, story: Story, witness: Witness, chance: random.Random) -> None:
        self.story, self.witness, self.chance = story, witness, chance
        self._number = 0
        story.world.engine.between = self._between

    async def step(self, number: int) -> None:
        """Somebody does something, and a while passes."""
        self._number = number
        self.chance.choice([self._write, self._collide, self._work, self._review, self._kill, self._restart])()
        for _ in range(self.chance.randint(0, 4)):
            await self.story.operator.run_due()
            self.story.world.turn()
            self.story.world.tick(self.chance.choice([0.05, 1, 31]))

    @property
    def open(self) -> bool:
        return published(self.story) is None

    def _between(self, done: str) -> None:
        if self.chance.random() < 0.3:
            raise Crash

    def _write(self) -> None:
        self.witness.write(f"album/{100 + self._number}.title={SECRET}-{self._number}")

    def _collide(self) -> None:
        """Somebody changes the very cell that is to be written."""
        found = [row for row in live(self.story) if row.startswith("album/1.title=")]
        self.witness.write(f"album/1.title={SECRET}-{self._number}", without=tuple(found))

    def _work(self) -> None:
        change(self.story, "", f"album/{200 + self._number}.title={SECRET}-{self._number}")

    def _review(self) -> None:
        if not self.open or "patch" not in self.story.status("DataChangeRequest", "fix"):
            return
        reviewer = self.chance.choice(["bob@example.com", "carol@example.com"])
        name = f"fix-{reviewer.partition('@')[0]}"
        if name in self.story.names("DataReview"):
            self.story.delete("DataReview", name)
        self.story.review(reviewer=reviewer, verdict=self.chance.choice(["Approve", "Approve", "RequestChanges"]))

    def _kill(self) -> None:
        self.story.kube.crash_after(self.chance.randint(1, 5))

    def _restart(self) -> None:
        self.story.operator.restart()


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_in_whatever_order_no_write_is_lost(shop: Story, seed: int) -> None:
    witness = Witness(shop)
    shop.request(publish="Database", resolutions=[{"take": "Source"}])
    bustle = Bustle(shop, witness, random.Random(seed))
    for number in range(30):
        await bustle.step(number)
    shop.world.engine.between = lambda done: None
    for name in shop.names("DataReview"):
        shop.delete("DataReview", name)
    await shop.operator.live(minutes=3)
    if bustle.open:
        shop.review()
        await shop.operator.live(minutes=3)
    assert not bustle.open
    assert len(witness.written) == 1
    witness.check()
