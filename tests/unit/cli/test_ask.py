"""``coppice reset``, ``extend``, ``wake`` and ``delete``: asked, waited for until it is done, and done to nothing else."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.person import Person
from tests.fakes.story import Story, begun

from coppice.reconcile.observed import parse_time


def live(person: Person, **length: float) -> None:
    asyncio.run(person.story.operator.live(**length))


def test_a_reset_is_done_when_the_command_ends(bea):
    bea.story.world.login("app", "db-binding").volume.write("main", "mallory")
    said = bea.expect("reset", "db")
    assert "DataClone app/db has a new copy; the copy before it is kept until" in said
    assert bea.story.status("DataClone", "db", "app")["copy"] == "2"
    assert bea.story.rows(namespace="app") == {"alice"}


def test_two_requests_are_two(bea):
    bea.expect("reset", "db")
    bea.expect("reset", "db")
    assert bea.story.status("DataClone", "db", "app")["copy"] == "3"


def test_a_request_takes_none_away_that_was_made_before(bea):
    bea.expect("reset", "db", "--no-wait")
    bea.expect("extend", "db")
    annotations = bea.story.get("DataClone", "db", "app")["metadata"]["annotations"]
    assert {"coppice.dev/reset-requested-at", "coppice.dev/extend-requested-at"} <= annotations.keys()
    assert bea.cluster.managers == ["coppice-command-reset", "coppice-command-extend"]
    bea.settle()
    assert bea.story.status("DataClone", "db", "app")["copy"] == "2"


def test_an_extension_lets_the_lease_begin_anew(bea):
    before = bea.story.status("DataClone", "db", "app")["expiresAt"]
    bea.story.world.tick(3 * 3600)
    said = bea.expect("extend", "db")
    after = bea.story.status("DataClone", "db", "app")["expiresAt"]
    assert after > before
    assert "the lease ends" in said


def test_an_extension_brings_an_expired_clone_back(bea):
    bea.story.world.tick(24 * 3600 + 60)
    bea.settle()
    assert bea.story.reason("DataClone", "db", "app") == "Expired"
    assert "coppice extend db" in bea.expect("status", "db")
    bea.expect("extend", "db")
    bea.story.expect_ready("DataClone", "db", "app")


def test_without_a_grant_an_extension_is_waited_for_in_vain(bea):
    bea.story.delete("DataGrant", "previews")
    bea.settle()
    said = bea.expect_refusal("extend", "db", "--timeout", "1m", code=3)
    assert "GrantRevoked" in said


async def _sleeping(story: Story) -> None:
    story.store()
    await story.settle()
    story.clone()
    await story.operator.live(hours=1)


@pytest.fixture
def sleeper() -> Person:
    from datetime import timedelta

    return Person(begun(_sleeping, sleep=timedelta(minutes=30)), "data")


def test_a_clone_that_sleeps_is_woken(sleeper):
    assert sleeper.story.reason("DataClone", "db") == "Asleep"
    assert "coppice wake db" in sleeper.expect("status", "db")
    assert "DataClone data/db is awake" in sleeper.expect("wake", "db")
    sleeper.story.expect_ready("DataClone", "db")


def test_a_clone_that_sleeps_is_woken_by_an_extension(sleeper):
    assert "the lease ends" in sleeper.expect("extend", "db")
    sleeper.story.expect_ready("DataClone", "db")


def test_a_clone_that_is_off_is_not_woken_and_that_is_said(sleeper):
    sleeper.story.edit("DataClone", "db", power="Off")
    sleeper.settle()
    said = sleeper.expect("wake", "db")
    assert "is not awake (PoweredOff): set spec.power to On or Auto" in said


@pytest.mark.parametrize("verb", ["reset", "extend", "wake", "delete", "connect"])
def test_a_clone_that_is_not_there_is_named(ann, verb):
    said = ann.expect_refusal(verb, "db")
    assert "there is no DataClone db in namespace app: there is none at all" in said


@pytest.mark.parametrize("verb", ["reset", "extend", "wake"])
def test_a_request_is_for_exactly_the_clone_that_was_seen(bea, verb):
    get = bea.cluster.get

    async def replaced(kind, name, namespace):
        found = await get(kind, name, namespace)
        bea.cluster.get = get
        bea.story.delete("DataClone", "db", "app")
        await bea.story.settle()
        bea.story.clone(namespace="app")
        return found

    bea.cluster.get = replaced
    assert "somebody else has changed or replaced it meanwhile" in bea.expect_refusal(verb, "db")
    assert "annotations" not in bea.story.get("DataClone", "db", "app")["metadata"]


def test_a_request_that_is_not_allowed_names_the_verb(bea):
    bea.cluster.denied.add(("patch", "DataClone", "app"))
    assert "may not patch dataclones.coppice.dev in namespace app" in bea.expect_refusal("reset", "db")


def test_a_deletion_says_what_goes_and_asks(bea):
    said = bea.expect_refusal("delete", "db", typed="n\n")
    assert "DataClone app/db goes, and with it its server, its volume" in said
    assert "it was made of data/shop main at" in said
    assert "Secret db-binding goes" in said
    assert bea.story.names("DataClone", "app") == ["db"]

    assert "DataClone app/db is gone" in bea.expect("delete", "db", typed="y\n")
    bea.settle()
    assert bea.story.kube.all(None, "app") == []


def test_a_deletion_does_not_ask_who_is_sure(bea):
    bea.expect("delete", "db", "--yes")
    bea.settle()
    assert bea.story.kube.all(None, "app") == []


def test_nobody_who_can_be_asked_is_no_consent(bea):
    bea.expect_refusal("delete", "db", typed="")
    assert bea.story.names("DataClone", "app") == ["db"]


def test_a_deletion_that_is_not_waited_for_is_on_its_way(bea):
    assert "is being deleted" in bea.expect("delete", "db", "--yes", "--no-wait")
    assert "deletionTimestamp" in bea.story.get("DataClone", "db", "app")["metadata"]
    assert "wait: it is being deleted" in bea.expect("status", "db")


def test_a_clone_made_anew_while_one_is_asked_is_not_deleted(bea):
    ask = bea.cluster.delete

    async def replaced(ref):
        bea.story.delete("DataClone", "db", "app")
        await bea.story.settle()
        bea.story.clone(namespace="app")
        await ask(ref)

    bea.cluster.delete = replaced
    bea.expect("delete", "db", "--yes")
    assert "deletionTimestamp" not in bea.story.get("DataClone", "db", "app")["metadata"]


def test_a_commit_that_is_still_being_made_is_named_before(bea):
    bea.story.world.engine.versioned = False
    parent = bea.story.status("DataClone", "db", "app")["snapshot"]["name"]
    bea.story.commit_clone("autumn-1", parent, namespace="app")
    said = bea.expect_refusal("delete", "db", typed="n\n")
    assert "DataSnapshot data/autumn-1 is still being made of it" in said
    bea.cluster.denied.add(("list", "DataSnapshot", "data"))
    assert "autumn-1" not in bea.expect_refusal("delete", "db", typed="n\n")


def test_the_copy_before_a_reset_goes_too_and_that_is_said(bea):
    bea.expect("reset", "db")
    assert "so does the copy before the last reset" in bea.expect_refusal("delete", "db", typed="n\n")


def test_a_deletion_that_something_holds_is_waited_for_in_vain(bea):
    hold = ["example.com/hold"]
    bea.story.kube.change("DataClone", "app", "db", lambda found: found["metadata"].update(finalizers=hold))
    said = bea.expect_refusal("delete", "db", "--yes", "--timeout", "10s", code=3)
    assert "is not gone after 10s" in said


def test_the_time_of_a_request_is_one_the_operator_reads(bea):
    bea.expect("wake", "db", "--no-wait")
    token = bea.story.get("DataClone", "db", "app")["metadata"]["annotations"]["coppice.dev/wake-requested-at"]
    assert parse_time(token) == bea.story.world.now
