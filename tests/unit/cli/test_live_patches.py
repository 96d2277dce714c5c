"""What the operator computes of a request into a live database, and what a person does, with their own logins, is the
same: a patch that was approved is printed, and what became another one is not.
"""

from __future__ import annotations

import asyncio
import functools

import pytest
from tests.fakes.engine import Server
from tests.fakes.patching import PatchingFakeEngine, PatchingWorld
from tests.fakes.person import Person, words
from tests.fakes.story import Story

from coppice.engines.base import Endpoint
from coppice.kube.client import Caller

ALBUMS = ("album/1.title=Blue", "album/2.title=Red")
PROPOSED = ["--from", "db", "--into", "main", "--title", "Fix"]


class Tunnelled(PatchingFakeEngine):
    """The engine of a person's machine: which server is at the other end of a tunnel is told by the password."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story

    def _enter(self, at: Endpoint) -> Server:
        servers = self._story.world.engine.servers.values()
        return next(server for server in servers if server.volume.users.get(at.username) == at.password)


@functools.cache
def _opened() -> Story:
    story = Story(PatchingWorld())
    asyncio.run(_open(story))
    return story


async def _open(story: Story) -> None:
    story.policies()
    story.store(protection=[{"branches": ["main"], "reviewers": {"users": ["bob@example.com"]}}])
    await story.settle()
    story.commit(*ALBUMS)
    story.clone()
    await story.settle()
    edit(story, "album/1.title=Blue", "album/1.title=Bluer")
    story.world.tick(60)


def edit(story: Story, old: str, new: str) -> None:
    branch = story.world.login("data", "db-binding").volume.branches["main"]
    branch.rows = (branch.rows - {old}) | {new}


@pytest.fixture
def ann() -> Person:
    """Somebody in the namespace of a store whose database keeps no versions."""
    person = Person(_opened().fork(), "data")
    person.cluster.caller = Caller("ann@example.com", ())
    person.engine = Tunnelled(person.story)
    return person


def test_an_approved_patch_is_printed_and_is_published_once_somebody_has_run_it(ann: Person) -> None:
    said = words(ann.expect("propose", *PROPOSED, "--publish", "patch"))
    assert "the live database, by publish: Patch" in said
    assert "is not handed over yet (ApprovalsMissing)" in ann.expect_refusal("patch", "fix")
    assert "title Blue Bluer" in words(ann.expect("diff", "request/fix", "--rows"))

    ann.story.review()
    ann.settle()
    assert ann.story.reason("DataChangeRequest", "fix") == "HandOver"
    assert ann.expect("patch", "fix").startswith("-- ")

    ann.story.data_of().branches["main"].rows = frozenset({"album/1.title=Bluer", "album/2.title=Red"})
    ann.settle()
    ann.story.world.tick(60)
    ann.settle()
    assert ann.story.condition("DataChangeRequest", "fix", of="Published")["reason"] == "HandedOver"
    assert "is in the live database already" in ann.expect_refusal("patch", "fix")


def test_a_patch_that_became_another_is_not_printed(ann: Person) -> None:
    ann.expect("propose", *PROPOSED, "--publish", "patch")
    ann.story.review()
    ann.settle()
    edit(ann.story, "album/2.title=Red", "album/2.title=Redder")
    assert "is not what was approved any more" in ann.expect_refusal("patch", "fix")

    ann.story.world.tick(60)
    ann.settle()
    assert "is not handed over yet (ApprovalsMissing)" in ann.expect_refusal("patch", "fix")


def test_conflicts_have_the_ids_that_the_operator_has_given_them(ann: Person) -> None:
    ann.story.data_of().branches["main"].rows = frozenset({"album/1.title=Navy", "album/2.title=Red"})
    ann.expect("propose", *PROPOSED, "--publish", "database")
    [listed] = ann.story.status("DataChangeRequest", "fix")["conflicts"]["listed"]
    said = words(ann.expect("diff", "request/fix", "--conflicts"))
    assert f"{listed['id']} Cell album.title" in said
    assert "title Blue Navy Bluer" in said

    ann.expect("resolve", "fix", "--conflict", listed["id"], "--take", "source")
    assert "title Navy Bluer" in words(ann.expect("diff", "request/fix", "--rows"))
    ann.story.review()
    ann.settle()
    assert "album/1.title=Bluer" in ann.story.data_of().branches["main"].rows
