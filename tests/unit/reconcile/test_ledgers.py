"""What a snapshot says of its migrations, and clones and branches that name one of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.fakes.story import begun

from coppice.api.v1alpha1 import DataSnapshot
from coppice.engines.base import EngineError, Ledger
from coppice.reconcile.ledgers import describe, dump, find_within, load, status


async def _history(story):
    """A store with a snapshot at each of two migrations, which has gone on to a third."""
    story.store()
    await story.settle()
    for version in ("1", "2"):
        story.commit(f"row of {version}", f"flyway {version}")
        story.snapshot(f"at-{version}")
        await story.settle()
        story.world.now += timedelta(minutes=1)
    story.commit("row of 3", "flyway 3")


@pytest.fixture
def shop():
    return begun(_history)


async def test_a_snapshot_says_what_is_written_down_in_it(shop):
    assert shop.status("DataSnapshot", "at-2")["ledger"] == {"tool": "flyway", "version": "2", "versions": ["1", "2"]}


async def test_a_snapshot_without_a_migration_tool_says_nothing_of_one(shop):
    shop.store("plain")
    await shop.settle()
    shop.add("DataSnapshot", "other", {"store": {"name": "plain"}}, "data")
    await shop.settle()
    shop.expect_ready("DataSnapshot", "other")
    assert "ledger" not in shop.status("DataSnapshot", "other")


async def test_what_it_says_is_rebuilt_when_its_status_is_lost(shop):
    before = shop.status("DataSnapshot", "at-2")
    shop.kube.change("DataSnapshot", "data", "at-2", lambda found: found.pop("status"))
    await shop.settle()
    assert shop.status("DataSnapshot", "at-2")["ledger"] == before["ledger"]


@pytest.mark.parametrize(("version", "snapshot"), [("1", "at-1"), ("1.5", "at-1"), ("2", "at-2"), ("2.9", "at-2")])
async def test_a_migration_is_the_newest_snapshot_that_has_nothing_beyond_it(shop, version, snapshot):
    shop.clone(source={"migration": version})
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.status("DataClone", "db")["snapshot"]["name"] == snapshot
    assert len(shop.names("DataSnapshot")) == 2


async def test_where_none_fits_but_the_database_does_one_is_made_and_only_one(shop):
    for name in ("at-1", "at-2"):
        shop.delete("DataSnapshot", name)
    await shop.settle()
    shop.clone(source={"migration": "3"})
    shop.clone("other", source={"migration": "4"})
    await shop.settle()
    for name in ("db", "other"):
        shop.expect_ready("DataClone", name)
        assert shop.rows(name) >= {"row of 3", "flyway 3"}
    assert shop.names("DataSnapshot") == ["shop-00001"]


async def test_where_none_fits_that_is_said_with_what_there_is(shop):
    shop.clone(source={"migration": "0.9"})
    await shop.settle()
    message = shop.expect_stalled("DataClone", "db", "NoSnapshotFits")
    for words in ("migration 0.9", "at-2 is at flyway 2, at-1 is at flyway 1", "the database is at flyway 3 now"):
        assert words in message
    await shop.operator.live(minutes=30)
    assert len(shop.names("DataSnapshot")) == 2


async def test_a_word_that_is_no_version_of_the_tool_is_never_guessed_at(shop):
    shop.clone(source={"migration": "latest"})
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "NoSnapshotFits")
    assert len(shop.names("DataSnapshot")) == 2


async def test_a_database_that_goes_on_meanwhile_is_not_followed_by_snapshots_without_end(shop):
    for name in ("at-1", "at-2"):
        shop.delete("DataSnapshot", name)
    await shop.settle()
    told = Ledger("flyway", ("1", "2", "3"))

    async def behind(at, database):
        return told

    shop.commit("flyway 4")
    shop.world.engine.ledger = behind
    shop.clone(source={"migration": "3"})
    await shop.settle()
    await shop.operator.live(minutes=10)
    shop.expect_stalled("DataClone", "db", "NoSnapshotFits")
    assert shop.names("DataSnapshot") == ["shop-00001"]


async def test_a_snapshot_on_its_way_is_waited_for(shop):
    shop.world.snapshot_error = "busy"
    shop.snapshot("at-3")
    shop.clone(source={"migration": "0.5"})
    await shop.operator.live(minutes=1)
    assert shop.reason("DataClone", "db") == "SnapshotPending"
    shop.world.snapshot_error = None
    await shop.operator.live(minutes=2)
    shop.expect_stalled("DataClone", "db", "NoSnapshotFits")


async def test_without_the_stores_server_what_there_is_serves_and_the_rest_waits(shop):
    async def refuse(at, database):
        raise EngineError("no such column")

    shop.world.engine.ledger = refuse
    shop.clone(source={"migration": "2"})
    shop.clone("other", source={"migration": "0.5"})
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.reason("DataClone", "other") == "StoreNotReady"
    assert "no such column" in shop.condition("DataClone", "other")["message"]


async def test_only_what_a_grant_gives_is_chosen_from(shop):
    shop.grant(data="Masked")
    shop.clone(namespace="app", source={"migration": "2"})
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "MaskedOnly", "app")


async def test_a_reset_has_the_newest_there_is_then(shop):
    shop.clone(source={"migration": "2"})
    await shop.settle()
    shop.data_of().branches["main"].rows -= {"flyway 3"}
    shop.commit("later")
    shop.snapshot("undone")
    await shop.settle()
    assert shop.status("DataClone", "db")["snapshot"]["name"] == "at-2"
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert shop.status("DataClone", "db")["snapshot"]["name"] == "undone"


async def test_a_branch_can_start_at_a_migration(shop):
    [there] = [entry["head"] for entry in shop.status("DataSnapshot", "at-1")["branches"]]
    shop.branch("old", source={"migration": "1"})
    shop.branch("none", source={"migration": "0.5"})
    await shop.settle()
    assert shop.data_of().branches["old"].head == there
    message = shop.expect_stalled("DataBranch", "none", "UnknownVersion")
    assert "at-1 is at flyway 1" in message


async def test_a_masked_snapshot_keeps_what_is_written_down(story):
    story.world.engine.versioned, story.world.engine.maskable = False, True
    story.store(mask={"jobTemplate": "shop-mask"})
    story.grant(data="Masked", verbs=["Clone"])
    story.mask_job("customer")
    await story.settle()
    story.commit("customer/alice", "flyway 7")
    story.snapshot("mine")
    story.clone(namespace="app", source={"migration": "7"})
    await story.settle()
    assert story.status("DataSnapshot", "mine")["ledger"]["version"] == "7"
    story.expect_ready("DataClone", "db", "app")
    assert story.status("DataClone", "db", "app")["snapshot"]["name"] == "mine"
    assert "customer/alice" not in story.rows(namespace="app")
    story.commit("flyway 8")
    story.clone("early", namespace="app", source={"migration": "6"})
    await story.settle()
    message = story.expect_stalled("DataClone", "early", "NoSnapshotFits", "app")
    assert "mine is at flyway 7" in message
    assert "flyway 8" not in message


# -- how it is kept --


def test_what_is_kept_is_bounded():
    long = Ledger("rails", tuple(str(number) for number in range(1000)), tuple("f" * 300 for _ in range(50)))
    kept = load(dump(long))
    assert kept.applied == long.applied[-100:]
    assert len(kept.failed) == 10
    assert all(len(version) < 257 for version in kept.failed)
    assert status(long)["version"] == "999"


def snapshot(name, ledger):
    told = {} if ledger is None else {key: value for key, value in status(ledger).items() if value is not None}
    return DataSnapshot.model_validate(
        {
            "metadata": {"name": name, "namespace": "data", "uid": name},
            "spec": {"store": {"name": "shop"}},
            "status": {"ledger": told} if told else {},
        }
    )


def test_what_snapshots_are_at_is_told_of_the_first_few():
    ledgers = [None, Ledger("alembic", ()), Ledger("alembic", ("a1", "b2")), *[Ledger("flyway", ("1",))] * 4]
    text = describe([snapshot(f"s{number}", ledger) for number, ledger in enumerate(ledgers)])
    assert text == (
        "s0 is at no version of a tool that is known, s1 is at the beginning of alembic, s2 is at alembic a1, b2, "
        "s3 is at flyway 1, s4 is at flyway 1, and 2 more"
    )
    assert describe([]) == "there is none that is Ready"


def test_what_one_snapshot_says_of_the_order_counts_for_an_older_one():
    newer = snapshot("newer", Ledger("liquibase", ("init", "seed", "view", "index")))
    older = snapshot("older", Ledger("liquibase", ("init", "seed")))
    found = find_within([newer, older], "view")
    assert found is not None
    assert found.metadata.name == "older"
    assert find_within([older], "view") is None
    assert find_within([older], "view", Ledger("liquibase", ("init", "seed", "view"))) is older
