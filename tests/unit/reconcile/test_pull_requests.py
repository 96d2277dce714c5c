"""The days of a clone that is for a pull request: who gets one, what ends it, and what brings it back."""

from __future__ import annotations

import pytest
from tests.fakes.forges import KEY
from tests.fakes.story import Story

from coppice.core import labels
from coppice.core.pullrequests import NoForges, PullRequestKey
from coppice.reconcile.clone.pullrequest import LOOK_PERIOD

SAID = {"provider": "github", "repository": "acme/shop", "number": 42}
SELECTOR = {"namespaceSelector": {"matchLabels": {"coppice.dev/previews": "true"}}}


@pytest.fixture
def shop(opened):
    """A shop whose data are granted to pull requests of its repository, of which number 42 is open."""
    opened.commit("alice")
    opened.grant(repositories=["github.com/acme/shop"], to=SELECTOR)
    label(opened, number="42")
    opened.world.forges.open()
    return opened


def label(story, *, number=None, fork=None):
    said = {"coppice.dev/previews": "true", "coppice.dev/pull-request": number, "coppice.dev/fork": fork}
    found = {key: value for key, value in said.items() if value is not None}
    story.kube.change("Namespace", None, "app", lambda one: one["metadata"].update(labels=found))


async def cloned(story, **spec):
    story.clone(namespace="app", pullRequest=SAID, **spec)
    await story.settle()
    story.expect_ready("DataClone", "db", "app")


def told(story):
    return story.status("DataClone", "db", "app")["pullRequest"]


def is_open(story):
    found = story.condition("DataClone", "db", "app", of="PullRequestOpen")
    return found["status"], found["reason"]


def leftovers(story):
    kinds = ("Pod", "PersistentVolumeClaim", "Secret", "Service", "NetworkPolicy", "VolumeSnapshot")
    return {kind: names for kind in kinds if (names := story.names(kind, "app"))}


def expect_ended(story):
    message = story.expect_stalled("DataClone", "db", "PullRequestClosed", "app")
    assert "github.com/acme/shop#42 was closed" in message
    assert leftovers(story) == {}
    assert told(story)["state"] == "Closed"
    assert "endedAt" in told(story)


# -- who gets one --


async def test_a_pull_request_gets_its_own_data_and_the_status_tells_what_its_forge_says(shop):
    await cloned(shop)
    assert shop.rows(namespace="app") == {"alice"}
    assert is_open(shop) == ("True", "Open")
    assert {key: told(shop)[key] for key in ("state", "fork", "headRevision", "url")} == {
        "state": "Open",
        "fork": False,
        "headRevision": "abc",
        "url": "https://github.com/acme/shop/pull/42",
    }


async def test_a_forks_manifest_that_claims_not_to_be_one_gets_nothing(shop):
    """Its author names the number of another pull request, which is no fork."""
    shop.world.forges.open(PullRequestKey("github.com", "acme/shop", 7), fork=True)
    label(shop, number="7")
    shop.clone(namespace="app", pullRequest=SAID)
    shop.clone("honest", namespace="app", pullRequest={**SAID, "number": 7})
    shop.clone("silent", namespace="app")
    shop.clone("other", namespace="app", pullRequest={**SAID, "repository": "mallory/shop"})
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "PullRequestMismatch", "app")
    shop.expect_stalled("DataClone", "honest", "ForkNotGranted", "app")
    shop.expect_stalled("DataClone", "silent", "PullRequestRequired", "app")
    shop.expect_stalled("DataClone", "other", "RepositoryNotGranted", "app")
    assert leftovers(shop) == {}
    assert shop.status("DataClone", "honest", "app")["pullRequest"]["fork"] is True


async def test_who_only_claims_a_repository_learns_no_more_of_it_than_whether_it_is_open(shop):
    """The operator's token may read what the author of the manifest may not."""
    shop.grant("everybody", to={"namespaces": ["app"]})
    label(shop)
    secret = PullRequestKey("github.com", "acme/secret", 1)
    shop.world.forges.open(secret, head="5ec2e7")
    shop.clone(namespace="app", pullRequest={**SAID, "repository": "acme/secret", "number": 1})
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert told(shop).keys() == {"state", "checkedAt"}
    assert "5ec2e7" not in str(shop.get("DataClone", "db", "app"))


async def test_until_the_forge_has_told_nothing_is_given_and_nothing_refused(shop):
    shop.world.forges.away = True
    shop.clone(namespace="app", pullRequest=SAID)
    await shop.operator.live(minutes=5)
    assert shop.reason("DataClone", "db", "app") == "ForgeUnavailable"
    assert shop.condition("DataClone", "db", "app", of="Stalled")["status"] == "False"
    assert is_open(shop) == ("Unknown", "ForgeUnavailable")
    assert leftovers(shop) == {}
    shop.world.forges.away = False
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db", "app")


async def test_without_a_forge_the_namespace_says_whether_it_is_a_fork(opened):
    story = Story(opened.world, forges=NoForges())
    story.grant(repositories=["github.com/acme/shop"], to=SELECTOR)
    label(story, number="42")
    story.clone(namespace="app", pullRequest=SAID)
    await story.settle()
    story.expect_stalled("DataClone", "db", "ForkNotGranted", "app")
    label(story, number="42", fork="false")
    await story.settle()
    story.expect_ready("DataClone", "db", "app")
    assert is_open(story) == ("Unknown", "NotConfigured")
    assert "NotConfigured" not in story.events("DataClone", "db"), "that is not news of each clone"


async def test_a_pull_request_whose_label_goes_is_stopped_and_comes_back_with_it(shop):
    await cloned(shop)
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    label(shop)
    await shop.settle()
    message = shop.expect_stalled("DataClone", "db", "ForkNotGranted", "app")
    assert "The server is stopped and the data are kept until the lease ends" in message
    assert shop.names("Pod", "app") == []
    label(shop, number="42")
    await shop.settle()
    assert shop.rows(namespace="app") == {"alice", "mine"}


async def test_a_clone_that_has_its_data_does_not_feel_that_a_new_operator_has_not_been_told_yet(shop):
    await cloned(shop)
    before, events = shop.get("DataClone", "db", "app")["status"], shop.events("DataClone", "db")
    shop.world.forges.away = True
    shop.operator.restart()
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db", "app")
    assert shop.events("DataClone", "db") == events
    assert told(shop) == before["pullRequest"]
    assert is_open(shop) == ("True", "Open")
    shop.annotate("DataClone", "db", "app", reset="now")
    await shop.operator.live(minutes=1)
    assert shop.reason("DataClone", "db", "app") == "ForgeUnavailable", "no new data while it is not known for whom"
    assert shop.rows(namespace="app") == {"alice"}, "what there is serves on"


# -- its end --


async def test_a_closed_pull_request_ends_its_clone_after_the_grace_and_the_object_stays(shop):
    await cloned(shop)
    shop.world.forges.close()
    await shop.operator.live(minutes=9)
    shop.expect_ready("DataClone", "db", "app")
    assert is_open(shop) == ("False", "Closed")
    assert "Closed" in shop.events("DataClone", "db"), "people are warned before the end"
    await shop.operator.live(minutes=2)
    expect_ended(shop)
    assert "expiresAt" not in shop.status("DataClone", "db", "app")


async def test_reopened_within_the_grace_nothing_has_happened(shop):
    await cloned(shop)
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    shop.world.forges.close()
    await shop.operator.live(minutes=5)
    shop.world.forges.open()
    await shop.operator.live(hours=1)
    assert shop.rows(namespace="app") == {"alice", "mine"}
    assert is_open(shop) == ("True", "Open")
    assert "closedAt" not in told(shop)


async def test_reopened_after_its_end_it_comes_back_by_itself_with_a_copy_of_now_and_a_new_lease(shop):
    await cloned(shop, lease={"max": "2d"})
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    shop.world.forges.close()
    await shop.operator.live(days=3)
    expect_ended(shop)
    shop.commit("bob")
    shop.world.forges.open()
    await shop.operator.live(seconds=LOOK_PERIOD + 60)
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == {"alice", "bob"}
    assert "endedAt" not in told(shop)
    await shop.operator.live(days=1)
    shop.expect_ready("DataClone", "db", "app")


async def test_an_app_that_sleeps_with_its_clone_ends_and_comes_back_with_the_pull_request(shop):
    await cloned(shop)
    template = {"spec": {"containers": [{"name": "app", "image": "web:1"}]}}
    metadata = {"name": "web", "namespace": "app", "annotations": {labels.SLEEP_OPT_IN: "db"}}
    shop.kube.add({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}})
    for close, replicas in ((True, 0), (False, 1)):
        (shop.world.forges.close if close else shop.world.forges.open)()
        await shop.operator.live(minutes=15)
        assert shop.is_ready("DataClone", "db", "app") is not close
        assert shop.get("Deployment", "web", "app")["spec"]["replicas"] == replicas


async def test_a_forge_that_goes_away_within_the_grace_ends_nothing(shop):
    """It may have been reopened since, and nobody could know."""
    await cloned(shop)
    shop.world.forges.close()
    await shop.operator.live(minutes=5)
    shop.world.forges.away = True
    await shop.operator.live(hours=12)
    shop.expect_ready("DataClone", "db", "app")
    shop.world.forges.away = False
    await shop.operator.live(minutes=2)
    expect_ended(shop)


@pytest.mark.parametrize("how", ["away", "lost", "unset"])
async def test_an_end_is_remembered_by_an_operator_that_was_told_nothing(shop, how):
    await cloned(shop)
    shop.world.forges.close()
    await shop.operator.live(minutes=15)
    expect_ended(shop)
    shop.world.forges.away = how == "away"
    if how == "lost":
        shop.world.forges.there.clear()
    later = Story(shop.world, **({"forges": NoForges()} if how == "unset" else {}))
    await later.operator.live(hours=1)
    expect_ended(later)


async def test_on_dry_run_nothing_ends_and_the_condition_tells_what_would(shop):
    shop.world.forges.dry_run = True
    await cloned(shop)
    shop.world.forges.close()
    await shop.operator.live(hours=1)
    shop.expect_ready("DataClone", "db", "app")
    assert is_open(shop) == ("False", "Closed")
    assert "would end at" in shop.condition("DataClone", "db", "app", of="PullRequestOpen")["message"]
    assert "endedAt" not in told(shop)


async def test_a_clone_of_a_pull_request_that_is_closed_already_is_never_made(shop):
    shop.world.forges.close()
    shop.world.tick(3600)
    shop.clone(namespace="app", pullRequest=SAID)
    await shop.settle()
    expect_ended(shop)
    assert shop.names("DataSnapshot", "data") == [], "nothing was made for it"


async def test_a_forge_that_no_longer_knows_it_ends_nothing(shop):
    """A token that expired, a repository that was renamed, an answer that is wrong."""
    await cloned(shop)
    shop.world.forges.there.clear()
    shop.world.forges.forget()
    label(shop, number="42", fork="false")
    shop.edit("DataGrant", "previews", forks=True)
    await shop.operator.live(hours=1)
    shop.expect_ready("DataClone", "db", "app")
    assert is_open(shop) == ("Unknown", "NotFound")
    assert told(shop)["state"] == "Unknown"


# -- bad days --


async def test_reopened_while_its_data_go_the_end_state_is_a_clone_that_serves(shop):
    """Killed after each write of the end in turn, an operator comes back to a pull request that is open again."""
    await cloned(shop)
    shop.world.forges.close()
    await shop.operator.live(minutes=9)
    writes = shop.kube.mutations
    twin = shop.fork()
    await twin.operator.live(minutes=5)
    expect_ended(twin)
    for written in range(1, twin.kube.mutations - writes + 1):
        story = shop.fork()
        story.kube.crash_after(written)
        while not story.operator.crashes:
            await story.operator.live(seconds=1)
        story.world.forges.open()
        await story.operator.live(minutes=10)
        story.expect_ready("DataClone", "db", "app")
        assert story.rows(namespace="app") == {"alice"}


async def test_closed_while_it_waits_in_the_queue_it_leaves_its_place(shop):
    shop.edit("DataGrant", "previews", maxClones={"total": 1})
    shop.world.forges.open(PullRequestKey("github.com", "acme/shop", 1))
    label(shop, number="any")
    shop.clone("first", namespace="app", pullRequest={**SAID, "number": 1})
    await shop.settle()
    shop.clone("db", namespace="app", pullRequest=SAID)
    await shop.settle()
    assert shop.reason("DataClone", "db", "app") == "Queued"
    third = PullRequestKey("github.com", "acme/shop", 3)
    shop.world.forges.open(third)
    shop.world.tick(1)
    shop.clone("third", namespace="app", pullRequest={**SAID, "number": 3})
    await shop.settle()
    assert "place 2" in shop.condition("DataClone", "third", "app")["message"]
    shop.world.forges.close()
    await shop.operator.live(minutes=15)
    shop.expect_stalled("DataClone", "db", "PullRequestClosed", "app")
    assert "place 1" in shop.condition("DataClone", "third", "app")["message"]
    shop.world.forges.close(PullRequestKey("github.com", "acme/shop", 1))
    await shop.operator.live(minutes=15)
    shop.expect_ready("DataClone", "third", "app")


async def test_closed_while_the_grant_is_revoked_nothing_is_left_either(shop):
    await cloned(shop)
    shop.delete("DataGrant", "previews")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "GrantRevoked", "app")
    shop.world.forges.close()
    await shop.operator.live(minutes=15)
    expect_ended(shop)


@pytest.mark.parametrize("ended", [False, True])
async def test_an_extension_or_a_new_revision_does_not_outlive_the_pull_request(shop, ended):
    await cloned(shop, revision="1")
    shop.world.forges.close()
    await shop.operator.live(minutes=15 if ended else 5)
    shop.annotate("DataClone", "db", "app", extend="now")
    shop.edit("DataClone", "db", "app", revision="2")
    await shop.operator.live(minutes=15)
    expect_ended(shop)


async def test_a_clone_that_had_expired_before_comes_back_when_its_pull_request_is_reopened(shop):
    await cloned(shop, lease={"max": "1h"})
    await shop.operator.live(hours=2)
    shop.expect_stalled("DataClone", "db", "Expired", "app")
    shop.world.forges.close()
    await shop.operator.live(minutes=30)
    expect_ended(shop)
    shop.world.forges.open()
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db", "app")


# -- what people do to a pull request --


@pytest.mark.parametrize("policy", ["Keep", "Reset"])
async def test_a_force_push_is_a_new_revision_and_nothing_else(shop, policy):
    await cloned(shop, revision="abc", onRevision=policy)
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    shop.world.forges.open(head="def")
    shop.edit("DataClone", "db", "app", revision="def")
    await shop.settle()
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == ({"alice", "mine"} if policy == "Keep" else {"alice"})
    assert told(shop)["headRevision"] == "def"


async def test_a_renamed_branch_is_no_other_pull_request(shop):
    """The branch is in no field of it: whoever renames it changes nothing here but, at most, the revision."""
    await cloned(shop)
    await shop.operator.live(minutes=2)
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    writes = len(shop.world.writes)
    shop.world.forges.open(KEY)
    await shop.operator.live(minutes=30)
    assert shop.rows(namespace="app") == {"alice", "mine"}
    assert shop.world.writes[writes:] == []


async def test_checked_at_moves_only_with_what_it_dates(shop):
    await cloned(shop)
    first = told(shop)["checkedAt"]
    await shop.operator.live(minutes=30)
    assert told(shop)["checkedAt"] == first
    shop.world.forges.open(head="def")
    await shop.operator.live(minutes=2)
    assert told(shop)["checkedAt"] > first


async def test_in_the_stores_own_namespace_a_closed_pull_request_ends_its_clone_as_well(shop):
    shop.clone(pullRequest=SAID)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    shop.world.forges.close()
    await shop.operator.live(minutes=15)
    shop.expect_stalled("DataClone", "db", "PullRequestClosed")


# -- data that fit the code --


async def test_a_pull_request_that_is_behind_has_data_that_are_and_is_told_when_there_are_none_any_more(shop):
    shop.commit("flyway 1")
    shop.snapshot("at-1")
    await shop.settle()
    shop.world.tick(60)
    shop.commit("flyway 2")
    await cloned(shop, source={"migration": "1"})
    assert shop.rows(namespace="app") == {"alice", "flyway 1"}
    shop.world.forges.close()
    await shop.operator.live(minutes=15)
    expect_ended(shop)
    shop.delete("DataSnapshot", "at-1")
    await shop.settle()
    shop.world.forges.open()
    await shop.operator.live(minutes=10)
    message = shop.expect_stalled("DataClone", "db", "NoSnapshotFits", "app")
    assert "migration 1" in message
    assert is_open(shop) == ("True", "Open"), "what it waits for is not its forge"
