"""Change requests on bad days: whoever else writes, and whenever the operator dies, the target is as it was or as
somebody approved it, and nothing that anybody wrote is lost.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping

import pytest
from tests.fakes.audit import orphans
from tests.fakes.merging import change_set
from tests.fakes.story import Story, begun

from coppice.engines.digests import sealed
from coppice.manifests.secret import read_secret

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
SEEDS = range(300 if THOROUGH else 12)
PROTECTED = [{"branches": ["main"], "reviewers": {"users": ["bob@example.com", "carol@example.com"]}}]
ALBUMS = ("album/1.title=Blue", "album/2.title=Red", "album/3.title=Green")
SECRET = "Row-Value-4111"
"""Part of every value that an app writes: it must stand in no object."""


def change(story: Story, old: str, new: str, *, clone: str = "db", namespace: str = "data") -> None:
    """Change a row through an app that is bound to a clone; nobody commits it."""
    branch = story.world.login(namespace, f"{clone}-binding").volume.branches["main"]
    branch.rows = (branch.rows - {old}) | {new}


class Witness:
    """Sees every change of the store's branch that is the operator's, and remembers everybody else's."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.written: list[str] = []
        self.published: list[str] = []
        self._head = story.data_of().branches["main"].head
        story.world.engine.after_call = self._look

    def write(self, row: str) -> None:
        """Somebody else commits to the branch, past any request."""
        self._head = self.story.commit(row)
        self.written.append(self._head)

    def _look(self, action: str) -> None:
        if action != "publish":
            return
        volume = self.story.data_of()
        head, before = volume.branches["main"].head, self._head
        if head == before:
            return
        commit = volume.commits[head]
        assert commit.parent == before, "a publication came after another version than it was computed for"
        changed = change_set(volume.commits[before].rows, commit.rows).digest
        done = sealed(changed, read_secret(self.story.get("Secret", "shop-admin"))["admin-password"])
        assert self._approved(str(commit.other), done), "somebody approved something else than was published"
        for program in self._programs():
            seen = [rows for forbidden, rows in self.story.world.checked if forbidden == program]
            assert commit.rows in seen, "a program of the owners' has not seen what was published"
            assert not [row for row in commit.rows if row.startswith(tuple(program))], "a program has refused it"
        self.published.append(head)
        self._head = head

    def _programs(self) -> list[list[str]]:
        """Return what the owners' programs refuse to see, as they are now."""
        rules = self.story.get("DataStore", "shop")["spec"]["protection"]
        names = [check["jobTemplate"] for rule in rules for check in rule.get("checks", ()) if "jobTemplate" in check]
        jobs = [self.story.get("Job", name) for name in names]
        return [job["spec"]["template"]["spec"]["containers"][0]["args"] for job in jobs]

    def _approved(self, source: str, digest: str) -> bool:
        return any(
            (review["spec"].get("patch") or {}).get("source") == source
            and review["spec"]["patch"]["digest"] == digest
            and review["spec"]["verdict"] == "Approve"
            for review in self.story.kube.all("DataReview")
        )

    def check(self) -> None:
        """Nothing is lost: whatever anybody wrote is in the branch's history."""
        volume = self.story.data_of()
        history = volume.ancestors(volume.branches["main"].head)
        assert {*self.written, *self.published} <= set(history)
        assert volume.branches["main"].rows == volume.commits[volume.branches["main"].head].rows
        assert len(set(self.published)) == len(self.published)
        shown = [str({key: value for key, value in found.items() if key != "data"}) for found in self.story.kube.all()]
        assert not [text for text in shown if SECRET in text], "a row's value stands in an object"
        assert not [event for _, event in self.story.operator.log.events if SECRET in event.message]


async def _open(story: Story) -> None:
    story.policies()
    story.store(protection=PROTECTED)
    await story.settle()
    story.commit(*ALBUMS)
    story.clone()
    await story.settle()
    change(story, ALBUMS[0], f"album/1.title={SECRET}-a")
    story.world.tick(60)


@pytest.fixture
def shop() -> Story:
    """Return a story with a protected store and a clone of it in which a title was changed."""
    return begun(_open)


def published(story: Story, name: str = "fix") -> str | None:
    found = story.status("DataChangeRequest", name).get("published")
    return None if found is None else str(found["commit"])


async def test_a_change_is_proposed_approved_and_published(shop: Story) -> None:
    witness = Witness(shop)
    shop.request()
    await shop.settle()
    assert published(shop) is None
    preview = shop.status("DataChangeRequest", "fix")["preview"]
    assert preview["ready"]
    assert f"album/1.title={SECRET}-a" in shop.rows(preview["clone"])

    shop.review()
    await shop.settle()
    shop.expect_ready("DataChangeRequest", "fix")
    head = shop.data_of().branches["main"]
    assert (head.head, published(shop)) == (witness.published[0], witness.published[0])
    assert head.rows == {f"album/1.title={SECRET}-a", *ALBUMS[1:]}
    message = shop.data_of().commits[head.head].message
    assert "Proposed-by: anna@example.com" in message
    assert "Reviewed-by: bob@example.com" in message
    assert shop.names("DataClone") == ["db"]
    witness.check()


async def test_an_approval_holds_when_the_target_moves_and_the_change_stays_the_same(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(merge="Manual")
    await shop.settle()
    shop.review()
    witness.write("album/4.title=Yellow")
    await shop.operator.live(minutes=2)
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=2)
    assert len(witness.published) == 1
    assert shop.data_of().branches["main"].rows == {
        f"album/1.title={SECRET}-a",
        *ALBUMS[1:],
        "album/4.title=Yellow",
    }
    witness.check()


async def test_an_approval_is_void_when_more_is_proposed(shop: Story) -> None:
    witness = Witness(shop)
    shop.request(merge="Manual")
    await shop.settle()
    shop.review()
    await shop.settle()
    change(shop, ALBUMS[1], f"album/2.title={SECRET}-b")
    await shop.operator.live(minutes=2)
    assert shop.condition("DataReview", "fix-bob", of="Counted")["reason"] == "OtherPatch"
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=5)
    assert (published(shop), witness.published) == (None, [])

    shop.review(reviewer="carol@example.com")
    await shop.operator.live(minutes=2)
    assert len(witness.published) == 1
    witness.check()


async def test_a_conflict_is_named_without_a_value_and_resolved(shop: Story) -> None:
    witness = Witness(shop)
    data = shop.data_of()
    data.branches["main"].rows = (data.branches["main"].rows - {ALBUMS[0]}) | {f"album/1.title={SECRET}-theirs"}
    witness.write("album/5.title=Black")
    shop.request()
    await shop.settle()
    assert shop.condition("DataChangeRequest", "fix", of="Mergeable")["reason"] == "Conflicts"
    conflicts = shop.status("DataChangeRequest", "fix")["conflicts"]
    [listed] = conflicts["listed"]
    assert (conflicts["open"], listed["kind"], listed["table"], listed["column"]) == (1, "Cell", "album", "title")

    shop.edit("DataChangeRequest", "fix", resolutions=[{"conflict": listed["id"], "take": "Source"}])
    await shop.operator.live(minutes=1)
    shop.review()
    await shop.operator.live(minutes=1)
    assert len(witness.published) == 1
    assert f"album/1.title={SECRET}-a" in shop.data_of().branches["main"].rows
    assert "album/5.title=Black" in shop.data_of().branches["main"].rows
    witness.check()


async def test_a_published_change_is_undone_and_what_came_after_it_stays(shop: Story) -> None:
    witness = Witness(shop)
    shop.request()
    await shop.settle()
    shop.review()
    await shop.settle()
    witness.write("album/6.title=White")
    shop.request("back", source={"revertOf": "fix"})
    await shop.operator.live(minutes=1)
    shop.review("back")
    await shop.operator.live(minutes=1)
    assert shop.data_of().branches["main"].rows == {*ALBUMS, "album/6.title=White"}
    witness.check()


async def test_two_requests_into_one_branch_come_one_after_the_other(shop: Story) -> None:
    witness = Witness(shop)
    shop.clone("other")
    await shop.settle()
    change(shop, ALBUMS[1], f"album/2.title={SECRET}-b", clone="other")
    shop.request()
    shop.request("more", source={"clone": {"name": "other"}})
    await shop.settle()
    shop.review()
    shop.review("more")
    await shop.operator.live(minutes=5)
    assert sorted(witness.published) == sorted([str(published(shop)), str(published(shop, "more"))])
    assert shop.data_of().branches["main"].rows == {
        f"album/1.title={SECRET}-a",
        f"album/2.title={SECRET}-b",
        ALBUMS[2],
    }
    witness.check()


@pytest.mark.parametrize("reviewed", ["anna@example.com", "dave@example.com", "system:serviceaccount:data:ci"])
async def test_whoever_has_no_say_publishes_nothing(shop: Story, reviewed: str) -> None:
    witness = Witness(shop)
    shop.request()
    await shop.settle()
    patch = shop.status("DataChangeRequest", "fix")["patch"]
    wanted = {"request": "fix", "reviewer": reviewed, "verdict": "Approve", "patch": patch}
    shop.add("DataReview", "fix-x", wanted, "data")
    await shop.operator.live(minutes=5)
    assert (published(shop), witness.published) == (None, [])
    witness.check()


async def test_nothing_is_counted_while_nobody_vouches_for_who_reviews(shop: Story) -> None:
    witness = Witness(shop)
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        for name in shop.names(kind):
            shop.kube.remove(kind, None, name)
    shop.request()
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataChangeRequest", "fix", "IdentityUnenforced")
    assert shop.condition("DataReview", "fix-bob", of="Counted")["reason"] == "IdentityUnenforced"
    assert witness.published == []

    shop.policies()
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataChangeRequest", "fix", "IdentityUnenforced")
    assert witness.published == []

    shop.request("again")
    await shop.settle()
    shop.review("again")
    await shop.operator.live(minutes=5)
    assert len(witness.published) == 1
    witness.check()


async def test_the_clone_goes_before_the_publication_and_nothing_of_it_is_lost(shop: Story) -> None:
    witness = Witness(shop)
    shop.request()
    await shop.settle()
    shop.delete("DataClone", "db")
    await shop.operator.live(minutes=2)
    shop.review()
    await shop.operator.live(minutes=2)
    assert len(witness.published) == 1
    assert f"album/1.title={SECRET}-a" in shop.data_of().branches["main"].rows
    witness.check()


async def _open_next_door(story: Story) -> None:
    story.policies()
    story.store(protection=PROTECTED)
    story.grant(verbs=["Clone", "Propose"])
    await story.settle()
    story.commit(*ALBUMS)
    story.clone(namespace="app")
    await story.settle()
    change(story, ALBUMS[0], f"album/1.title={SECRET}-a", namespace="app")
    story.world.tick(60)


@pytest.fixture
def next_door() -> Story:
    """Return a story in which the clone that was changed is in another namespace."""
    return begun(_open_next_door)


NEXT_DOOR = {"clone": {"name": "db", "namespace": "app"}}


async def test_a_clone_next_door_is_proposed_by_a_grant_and_leaves_nothing_behind(next_door: Story) -> None:
    witness = Witness(next_door)
    next_door.request(source=NEXT_DOOR)
    await next_door.settle()
    next_door.review()
    await next_door.operator.live(minutes=2)
    assert len(witness.published) == 1
    assert next_door.names("NetworkPolicy", "app") == ["db"]
    assert [name for name in next_door.names("NetworkPolicy") if "fix" in name] == []
    next_door.delete("DataChangeRequest", "fix")
    await next_door.settle()
    assert orphans(next_door.world) == []
    witness.check()


async def test_a_request_that_is_deleted_while_it_is_open_leaves_nothing_behind(next_door: Story) -> None:
    witness = Witness(next_door)
    next_door.request(source=NEXT_DOOR)
    await next_door.settle()
    next_door.delete("DataChangeRequest", "fix")
    await next_door.operator.live(minutes=2)
    assert orphans(next_door.world) == []
    assert (next_door.names("DataClone"), next_door.names("NetworkPolicy", "app")) == (["db"], ["db"])
    assert witness.published == []
    witness.check()


async def test_without_a_grant_nothing_next_door_is_looked_at(next_door: Story) -> None:
    next_door.edit("DataGrant", "previews", verbs=["Clone"])
    await next_door.settle()
    before = len(next_door.world.engine.calls)
    next_door.request(source=NEXT_DOOR)
    await next_door.settle()
    next_door.expect_stalled("DataChangeRequest", "fix", "NotGranted")
    assert next_door.world.engine.calls[before:] == []


async def test_somebody_is_faster_at_the_very_moment_and_nothing_is_lost(shop: Story) -> None:
    witness, tries = Witness(shop), []

    def hurry(action: str) -> None:
        if action == "publish" and len(tries) < 3:
            tries.append(action)
            witness.write(f"album/{len(tries)}0.title={SECRET}")

    shop.world.engine.before_call = hurry
    shop.request()
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=2)
    assert (len(tries), len(witness.written), len(witness.published)) == (3, 3, 1)
    witness.check()


async def test_what_somebody_has_not_committed_is_not_buried(shop: Story) -> None:
    witness = Witness(shop)
    shop.request()
    await shop.settle()
    shop.data_of().write("main", "album/7.title=Unsaved")
    shop.review()
    await shop.operator.live(minutes=2)
    assert witness.published == []
    assert "album/7.title=Unsaved" in shop.data_of().branches["main"].rows
    assert shop.condition("DataChangeRequest", "fix", of="Published")["reason"] == "TargetBusy"

    witness.write("album/8.title=Saved")
    await shop.operator.live(minutes=2)
    assert len(witness.published) == 1
    witness.check()


async def proposed_and_approved(start: Story, disturb: Callable[[Story], None]) -> tuple[Story, Witness]:
    """Propose and approve, with the operator disturbed from the beginning."""
    story = start.fork()
    witness = Witness(story)
    disturb(story)
    story.request()
    await story.operator.live(minutes=2)
    story.review()
    await story.operator.live(minutes=2)
    return story, witness


def all_disturbances(start: Story, quiet: Story) -> list[Callable[[Story], None]]:
    """Return what kills the operator at each call and write of a day that went on without it."""
    calls = len(quiet.world.engine.calls) - len(start.world.engine.calls)
    writes = quiet.kube.mutations - start.kube.mutations
    disturbances: list[Callable[[Story], None]] = [
        lambda story, number=number, when=when: story.kill_at(number, when)
        for number in range(1, calls + 1)
        for when in ("before", "after")
    ]
    disturbances += [
        lambda story, number=number: story.kube.crash_after(number)
        for number in range(1, writes + 1, 1 if THOROUGH else 3)
    ]
    return disturbances


async def test_killed_at_any_write_or_call_the_change_is_published_once_and_whole(shop: Story) -> None:
    quiet, _ = await proposed_and_approved(shop, lambda story: None)
    expected = quiet.data_of().branches["main"]
    for place, disturb in enumerate(all_disturbances(shop, quiet)):
        story, witness = await proposed_and_approved(shop, disturb)
        assert story.operator.crashes == 1, place
        assert story.data_of().branches["main"] == expected, place
        assert witness.published == [expected.head], place
        assert story.names("DataClone") == ["db"], place
        witness.check()


CHECKED = [{**PROTECTED[0], "checks": [{"name": "no-badness", "jobTemplate": "smoke"}]}]
GOOD, BAD = "album/1.title=Bad", "album/1.title="
"""What a program of the owners' refuses: nothing that anybody writes, or what the first request brings."""


async def _open_checked(story: Story) -> None:
    await _open(story)
    story.edit("DataStore", "shop", protection=CHECKED)
    story.job("smoke", GOOD)
    await story.settle()


@pytest.fixture
def checked() -> Story:
    """Return a story in which the owners have a program that checks what comes into the branch."""
    return begun(_open_checked)


def replace_program(story: Story, forbidden: str) -> None:
    """Delete the owners' Job and apply it again, which is how one is changed."""
    story.delete("Job", "smoke")
    story.job("smoke", forbidden)


async def test_killed_at_any_write_or_call_each_program_runs_once_and_before_the_publication(checked: Story) -> None:
    quiet, _ = await proposed_and_approved(checked, lambda story: None)
    expected = quiet.data_of().branches["main"]
    assert len(quiet.world.checked) == 1
    for place, disturb in enumerate(all_disturbances(checked, quiet)[:: 1 if THOROUGH else 2]):
        story, witness = await proposed_and_approved(checked, disturb)
        assert story.operator.crashes == 1, place
        assert story.data_of().branches["main"] == expected, place
        assert witness.published == [expected.head], place
        assert len(story.world.checked) == 1, place
        assert story.names("Job") == ["smoke"], place
        assert [name for name in story.names("Secret") if name.startswith("fix-")] == [], place
        witness.check()


async def test_killed_at_any_write_or_call_nothing_comes_of_what_a_program_refuses(checked: Story) -> None:
    replace_program(checked, BAD)
    quiet, _ = await proposed_and_approved(checked, lambda story: None)
    assert quiet.reason("DataChangeRequest", "fix") == "ChecksFailed"
    for place, disturb in enumerate(all_disturbances(checked, quiet)[:: 1 if THOROUGH else 3]):
        story, witness = await proposed_and_approved(checked, disturb)
        assert story.operator.crashes == 1, place
        assert story.reason("DataChangeRequest", "fix") == "ChecksFailed", place
        assert (witness.published, len(story.world.checked)) == ([], len(quiet.world.checked)), place
        witness.check()


class Bustle:
    """A reviewer or two, an app, another writer and an operator that dies now and then, in an order by chance."""

    CLONES: Mapping[str, str] = {"fix": "db", "more": "other"}

    def __init__(self, story: Story, witness: Witness, chance: random.Random) -> None:
        self.story, self.witness, self.chance = story, witness, chance
        moves = (self._write, self._propose_more, self._review, self._kill, story.operator.restart, self._rest)
        self._moves: tuple[Callable[[], None], ...] = moves

    async def step(self, number: int) -> None:
        """Somebody does something, and a while passes."""
        self._row = f"title={SECRET}-{number}"
        self._key = number
        self.chance.choice(self._moves)()
        for _ in range(self.chance.randint(0, 4)):
            await self.story.operator.run_due()
            self.story.world.turn()
            self.story.world.tick(self.chance.choice([0.05, 1, 31]))

    @property
    def open(self) -> list[str]:
        return [request for request in self.CLONES if published(self.story, request) is None]

    def withdraw(self) -> None:
        """Take back whatever anybody has said of a request."""
        for name in self.story.names("DataReview"):
            self.story.delete("DataReview", name)

    def _write(self) -> None:
        self.witness.write(f"album/{100 + self._key}.{self._row}")

    def _propose_more(self) -> None:
        for request in self.open:
            change(self.story, "", f"album/{request}-{self._key}.{self._row}", clone=self.CLONES[request])

    def _review(self) -> None:
        for request in self.open:
            if "patch" not in self.story.status("DataChangeRequest", request):
                continue
            reviewer = self.chance.choice(["bob@example.com", "carol@example.com"])
            name = f"{request}-{reviewer.partition('@')[0]}"
            if name in self.story.names("DataReview"):
                self.story.delete("DataReview", name)
            self.story.review(request, reviewer, verdict=self.chance.choice(["Approve", "Approve", "RequestChanges"]))

    def _kill(self) -> None:
        self.story.kube.crash_after(self.chance.randint(1, 5))

    def _rest(self) -> None:
        """Nobody does anything."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_in_whatever_order_no_write_is_lost(shop: Story, seed: int) -> None:
    witness = Witness(shop)
    shop.clone("other")
    await shop.settle()
    change(shop, ALBUMS[1], f"album/2.title={SECRET}-b", clone="other")
    shop.request()
    shop.request("more", source={"clone": {"name": "other"}})
    bustle = Bustle(shop, witness, random.Random(seed))
    for number in range(30):
        await bustle.step(number)
    bustle.withdraw()
    await shop.operator.live(minutes=3)
    for request in bustle.open:
        shop.review(request)
    await shop.operator.live(minutes=3)
    assert bustle.open == []
    assert len(witness.published) == 2
    witness.check()


class CheckedBustle(Bustle):
    """The same, with owners who change what their program refuses, and somebody who deletes Jobs of checks."""

    def __init__(self, story: Story, witness: Witness, chance: random.Random) -> None:
        super().__init__(story, witness, chance)
        self._moves = (*self._moves, self._change_program, self._delete_job, self._hang)

    def _change_program(self) -> None:
        replace_program(self.story, self.chance.choice([GOOD, BAD]))

    def _delete_job(self) -> None:
        for name in self.story.names("Job"):
            if name != "smoke":
                self.story.delete("Job", name)

    def _hang(self) -> None:
        hangs = self.chance.choice([True, False])
        self.story.world.hanging = lambda pod: hangs


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_nothing_is_published_that_the_owners_program_has_not_passed(
    checked: Story, seed: int
) -> None:
    witness = Witness(checked)
    checked.clone("other")
    await checked.settle()
    change(checked, ALBUMS[1], f"album/2.title={SECRET}-b", clone="other")
    checked.request()
    checked.request("more", source={"clone": {"name": "other"}})
    bustle = CheckedBustle(checked, witness, random.Random(seed))
    for number in range(30):
        await bustle.step(number)
    bustle.withdraw()
    replace_program(checked, GOOD)
    checked.world.hanging = lambda pod: False
    await checked.operator.live(minutes=3)
    for request in bustle.open:
        checked.review(request)
    await checked.operator.live(minutes=3)
    assert bustle.open == []
    assert len(witness.published) == 2
    assert checked.names("Job") == ["smoke"]
    witness.check()
