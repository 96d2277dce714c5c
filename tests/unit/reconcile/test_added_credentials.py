"""What a newer operator's servers have to know and the Secrets of an older one lack: it is added, and nothing changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.fakes.story import Story

from coppice.manifests.secret import lacking_keys, read_secret


@pytest.fixture(autouse=True)
def old(story: Story) -> None:
    story.world.engine.passwords = ("app-password",)


async def upgraded(story: Story) -> None:
    """Go on with an operator whose servers have one password more."""
    story.world.engine.passwords = ("app-password", "remote-password")
    story.operator.restart()
    await story.settle()


async def with_old_store(story: Story, **spec: object) -> None:
    story.store(**spec)
    await story.settle()
    story.commit("alice")


def keys(story: Story, name: str) -> set[str]:
    return set(read_secret(story.get("Secret", name)))


def sources(pod: Mapping[str, object]) -> dict[str, str]:
    """Return from which Secret each key comes that a server is given."""
    spec = pod["spec"]
    assert isinstance(spec, dict)
    references = [entry.get("valueFrom", {}).get("secretKeyRef") for entry in spec["containers"][0]["env"]]
    return {entry["key"]: entry["name"] for entry in references if entry}


def uid(story: Story, kind: str, name: str) -> str:
    return str(story.get(kind, name)["metadata"]["uid"])


async def test_a_store_that_runs_keeps_its_server_and_its_secret(story: Story) -> None:
    await with_old_store(story)
    before = [uid(story, "Pod", "shop-server"), story.get("Secret", "shop-admin")]
    await upgraded(story)
    assert [uid(story, "Pod", "shop-server"), story.get("Secret", "shop-admin")] == before
    assert keys(story, "shop-admin-added") == {"remote-password"}
    writes = len(story.world.writes)
    await story.operator.live(minutes=30)
    assert story.world.writes[writes:] == []


async def test_the_next_server_of_a_store_has_what_was_added(story: Story) -> None:
    await with_old_store(story)
    story.world.engine.passwords = ("app-password", "remote-password")
    story.delete("Pod", "shop-server")
    story.operator.restart()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert sources(story.get("Pod", "shop-server")) == {
        "admin-password": "shop-admin",
        "remote-password": "shop-admin-added",
    }
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_what_was_added_outlives_the_store_and_goes_with_its_data(story: Story) -> None:
    await with_old_store(story)
    await upgraded(story)
    added = read_secret(story.get("Secret", "shop-admin-added"))
    story.delete("DataStore", "shop")
    await story.settle()
    await with_old_store(story, deletionPolicy="Delete")
    assert read_secret(story.get("Secret", "shop-admin-added")) == added
    assert story.world.rows("data", "shop-binding") == {"alice"}
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.names("Secret") == []


async def test_a_store_that_is_made_now_needs_one_secret(story: Story) -> None:
    await upgraded(story)
    await with_old_store(story)
    assert keys(story, "shop-admin") == {"admin-password", "app-password", "remote-password"}
    assert [name for name in story.names("Secret") if name.endswith("-added")] == []


async def test_a_clone_keeps_what_it_was_proven_under_and_its_next_server_has_more(story: Story) -> None:
    await with_old_store(story)
    story.clone()
    await story.settle()
    [engine_secret] = [name for name in story.names("Secret") if name.endswith("-engine")]
    before = [uid(story, "Pod", story.copy()), uid(story, "Secret", engine_secret)]
    await upgraded(story)
    assert [uid(story, "Pod", story.copy()), uid(story, "Secret", engine_secret)] == before
    assert keys(story, f"{engine_secret}-added") == {"remote-password"}

    story.delete("Pod", story.copy())
    await story.settle()
    story.expect_ready("DataClone", "db")
    assert sources(story.get("Pod", story.copy()))["remote-password"] == f"{engine_secret}-added"
    assert story.rows() == {"alice"}

    story.delete("DataClone", "db")
    await story.settle()
    assert [name for name in story.names("Secret") if "-engine" in name] == []


def test_a_password_that_a_server_knows_already_is_never_made_anew() -> None:
    emptied = {"data": {"admin-password": "eA=="}}
    assert lacking_keys(emptied, ["admin-password", "app-password", "remote-password"]) == ["remote-password"]
