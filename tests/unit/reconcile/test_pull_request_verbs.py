"""What is done with a clone elsewhere asks the same grants as the clone did: a request from it, a commit of it, a branch."""

from __future__ import annotations

import pytest
from tests.fakes.forges import KEY
from tests.fakes.story import Story, begun

SAID = {"provider": "github", "repository": "acme/shop", "number": 42}
REPOSITORIES = ["github.com/acme/shop"]
OLD, NEW = "price/1=4711", "price/1=4712"


async def _open(story: Story) -> None:
    """Everybody in the namespace may clone, and a pull request of the shop's repository may do more."""
    story.policies()
    story.store()
    story.grant(verbs=["Clone"])
    story.grant("pull-requests", verbs=["Propose", "Branch"], repositories=REPOSITORIES)
    label(story, "42")
    story.world.forges.open()
    await story.settle()
    story.commit(OLD)


async def _of_an_engine_without_branches(story: Story) -> None:
    story.world.engine.versioned, story.world.engine.capture_action = False, "flush"
    await _open(story)


def label(story: Story, number: str) -> None:
    found = {"coppice.dev/pull-request": number}
    story.kube.change("Namespace", None, "app", lambda one: one["metadata"].update(labels=found))


async def worked_in(story: Story, **spec) -> None:
    story.clone(namespace="app", durability="Durable", **spec)
    await story.settle()
    server = story.world.login("app", "db-binding")
    server.volume.commit("main", NEW, at=story.world.now)
    story.world.tick(60)


def propose(story: Story) -> None:
    story.request(source={"clone": {"name": "db", "namespace": "app"}})


def commit(story: Story) -> None:
    parent = story.status("DataClone", "db", "app")["snapshot"]["name"]
    story.commit_clone("feature-1", parent, namespace="app")


ACTS = {
    "DataChangeRequest": (_open, propose, "fix"),
    "DataSnapshot": (_of_an_engine_without_branches, commit, "feature-1"),
}


@pytest.fixture
def story() -> Story:
    return begun(_open)


@pytest.fixture(params=ACTS)
def doing(request):
    """A story, what is done with the clone in it, and the object by which it is."""
    begin, act, name = ACTS[request.param]
    return begun(begin), act, request.param, name


async def test_a_clone_that_is_of_no_pull_request_has_no_part_in_a_grant_for_some(doing):
    story, act, kind, name = doing
    await worked_in(story)
    act(story)
    await story.settle()
    story.expect_stalled(kind, name, "PullRequestRequired")


async def test_a_clone_of_a_pull_request_has_it_as_far_as_that_is_believed(doing):
    story, act, kind, name = doing
    await worked_in(story, pullRequest=SAID)
    label(story, "43")
    act(story)
    await story.settle()
    story.expect_stalled(kind, name, "PullRequestMismatch")
    label(story, "42")
    story.world.forges.open(fork=True)
    await story.operator.live(minutes=6)
    story.expect_stalled(kind, name, "ForkNotGranted")
    story.world.forges.open()
    await story.operator.live(minutes=6)
    assert story.reason(kind, name) not in {"ForkNotGranted", "NotGranted"}


async def test_until_the_forge_has_told_it_waits(doing):
    story, act, kind, name = doing
    await worked_in(story, pullRequest=SAID)
    story.world.forges.away = True
    story.operator.restart()
    act(story)
    await story.settle()
    assert story.reason(kind, name) == "ForgeUnavailable"
    assert story.condition(kind, name, of="Stalled")["status"] == "False"
    story.world.forges.away = False
    await story.operator.live(minutes=1)
    assert story.reason(kind, name) not in {"ForgeUnavailable", "ForkNotGranted", "NotGranted"}


async def test_what_was_proposed_of_a_clone_outlives_it_as_under_any_grant(story):
    await worked_in(story, pullRequest=SAID)
    story.request(source={"clone": {"name": "db", "namespace": "app"}}, merge="Manual")
    await story.settle()
    head = story.status("DataChangeRequest", "fix")["source"]["head"]
    story.delete("DataClone", "db", "app")
    await story.settle()
    assert story.status("DataChangeRequest", "fix")["source"]["head"] == head
    assert story.reason("DataChangeRequest", "fix") != "PullRequestRequired"


async def test_a_branch_is_of_no_pull_request(story):
    story.branch("autumn", namespace="app", store={"name": "shop", "namespace": "data"})
    await story.settle()
    story.expect_stalled("DataBranch", "autumn", "PullRequestRequired", "app")


async def test_each_clone_counts_for_the_grant_that_gives_it_its_data(story):
    story.edit("DataGrant", "pull-requests", verbs=["Clone"])
    # By name before the grant for everybody, so that it counts where it allows.
    story.delete("DataGrant", "previews")
    story.grant("the-others", verbs=["Clone"])
    story.clone(namespace="app", pullRequest=SAID)
    story.clone("second", namespace="app", pullRequest=SAID)
    story.clone("third", namespace="app")
    story.clone("fourth", namespace="app", pullRequest={**SAID, "number": 7})
    await story.operator.live(minutes=3)
    assert story.status("DataGrant", "pull-requests")["clones"] == 2
    assert story.status("DataGrant", "the-others")["clones"] == 2
    assert story.world.forges.known.keys() == {KEY}
