"""What people read of a clone where its pull request is discussed."""

from __future__ import annotations

import pytest
from tests.fakes.forges import KEY
from tests.fakes.story import Story, begun

from coppice.core.pullrequests import Mark, MarkState, PullRequestKey

PULL_REQUEST = {"provider": "github", "repository": "acme/shop", "number": 42}


async def _with_clone(story: Story) -> None:
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")
    story.clone(
        namespace="app",
        pullRequest={**PULL_REQUEST, "appURL": "https://pr-42.example.com"},
        lease={"idle": "2h", "max": "3d"},
        power="Auto",
    )
    await story.settle()


@pytest.fixture
def story() -> Story:
    return begun(_with_clone)


def text(story: Story) -> str:
    comment: str = story.get("DataClone", "db", "app")["status"]["comment"]
    return comment


def test_it_says_what_the_data_are_when_it_ends_and_how_to_connect(story):
    status = story.get("DataClone", "db", "app")["status"]
    lines = text(story).splitlines()
    assert lines[:4] == ["<!-- coppice: app/db -->", "**Database `app/db`: ready**", "", "| | |"]
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines[5:])
    assert rows["App"] == "https://pr-42.example.com"
    assert rows["Data"].startswith(f"`data/shop` branch `main` at `{status['source']['head'][:12]}`, as of 20")
    assert rows["Schema"] == "as it came with the data"
    assert "UTC at the latest, or after 2h without use; `coppice extend db -n app`" in rows["Ends"]
    assert rows["Connect"] == "`coppice connect db -n app`, or in the cluster with Secret `db-binding`"


async def test_a_clone_of_no_pull_request_has_none(story):
    story.clone("other", namespace="app")
    await story.settle()
    assert "comment" not in story.get("DataClone", "other", "app")["status"]


async def test_neither_time_nor_use_changes_it(story):
    before = text(story)
    for _ in range(5):
        story.world.tick(600)
        story.rows("db", namespace="app")
        await story.settle()
    assert text(story) == before


async def test_it_says_why_there_is_no_database_now(story):
    story.world.tick(4 * 24 * 3600)
    await story.settle()
    assert text(story).splitlines()[1].startswith("**Database `app/db`: Expired** (the lease ended at 20")
    assert "coppice.dev/extend-requested-at" in text(story)
    assert "| Connect |" not in text(story)


async def test_a_change_request_of_the_clone_is_linked(story):
    story.request("autumn", **{"from": {"clone": {"name": "db", "namespace": "app"}}})
    story.request("others", **{"from": {"clone": {"name": "db"}}})
    await story.settle()
    assert "| Changes | proposed in DataChangeRequest `data/autumn` |" in text(story)


async def test_nothing_in_a_name_is_markup(story):
    main = story.data_of().branches["main"]
    story.data_of().branches["a`|<b>"] = main
    story.clone("odd", namespace="app", source={"branch": "a`|<b>"}, pullRequest=PULL_REQUEST)
    story.clone("none", namespace="app", source={"branch": "]|(x)`<b>"}, pullRequest=PULL_REQUEST)
    await story.settle()
    comments = [story.get("DataClone", name, "app")["status"]["comment"] for name in ("odd", "none")]
    assert "branch `a'/<b>` at" in comments[0]
    assert ")/(x)'(b)" in comments[1]
    for comment in comments:
        outside = "".join(comment.splitlines()[1:]).split("`")[::2]
        assert not any(character in part for part in outside for character in "<[@")


# -- what the operator writes on the pull request itself --


@pytest.fixture
async def spoken_for(opened):
    """A shop whose data are granted to one repository, for which the namespace speaks."""
    opened.grant(repositories=["github.com/acme/shop"], to={"namespaceSelector": {"matchLabels": {"previews": "yes"}}})
    labels = {"previews": "yes", "coppice.dev/pull-request": "42"}
    opened.kube.change("Namespace", None, "app", lambda one: one["metadata"].update(labels=labels))
    opened.world.forges.open(head="f" * 40)
    opened.world.forges.writes = True
    return opened


def postings(story):
    return story.operator.log.postings


async def test_the_text_and_a_mark_are_written_where_the_operator_may(spoken_for):
    spoken_for.clone(namespace="app", pullRequest=PULL_REQUEST, revision="whatever")
    await spoken_for.settle()
    last = postings(spoken_for)[-1]
    assert (last.subject, last.key, last.comment) == ("app/db", KEY, text(spoken_for))
    assert last.mark == Mark("f" * 40, MarkState.SUCCESS, "the data are ready")
    assert postings(spoken_for)[0].mark == Mark("f" * 40, MarkState.PENDING, postings(spoken_for)[0].mark.text)


async def test_what_somebody_must_act_upon_fails_the_commit(spoken_for):
    spoken_for.clone(namespace="app", pullRequest=PULL_REQUEST, source={"branch": "nowhere"})
    await spoken_for.settle()
    assert postings(spoken_for)[-1].mark == Mark("f" * 40, MarkState.FAILURE, "UnknownVersion")


async def test_of_a_closed_one_the_text_says_so_and_no_commit_is_marked(spoken_for):
    spoken_for.clone(namespace="app", pullRequest=PULL_REQUEST)
    await spoken_for.settle()
    spoken_for.world.forges.close()
    spoken_for.world.tick(3600)
    await spoken_for.settle()
    last = postings(spoken_for)[-1]
    assert last.mark is None
    assert "PullRequestClosed" in last.comment


async def test_nothing_is_written_where_the_administrator_has_not_said_so(spoken_for):
    spoken_for.world.forges.writes = False
    spoken_for.clone(namespace="app", pullRequest=PULL_REQUEST)
    await spoken_for.settle()
    assert postings(spoken_for) == []


@pytest.mark.parametrize("change", ["number", "repository", "label", "grant"])
async def test_nobody_has_the_operator_write_to_what_they_do_not_speak_for(spoken_for, change):
    said = dict(PULL_REQUEST)
    match change:
        case "number":
            said["number"] = 43
        case "repository":
            said["repository"] = "acme/web"
        case "label":
            spoken_for.kube.change(
                "Namespace", None, "app", lambda one: one["metadata"].update(labels={"previews": "yes"})
            )
        case "grant":
            spoken_for.delete("DataGrant", "previews")
            spoken_for.grant()
    for number in (42, 43):
        for repository in ("acme/shop", "acme/web"):
            spoken_for.world.forges.open(PullRequestKey("github.com", repository, number))
    spoken_for.clone(namespace="app", pullRequest=said)
    await spoken_for.settle()
    assert postings(spoken_for) == []
    assert "comment" in spoken_for.get("DataClone", "db", "app")["status"]
