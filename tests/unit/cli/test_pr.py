"""``coppice pr``: a CI job has a clone for its pull request, at its newest commit, and takes it away again."""

from __future__ import annotations

import json

import pytest
from tests.fakes.forge import Forge

from coppice.kube.errors import ConflictError

PAGE = "https://github.com/acme/shop/pull/42"
UP = ("pr", "up", "--from", "data/shop:main", "--pull-request", PAGE)
DOWN = ("pr", "down", "--pull-request", PAGE)
STATUS = ("pr", "status", "--pull-request", PAGE)


def the_clone(person, name="pr-42"):
    return person.story.get("DataClone", name, "app")


def test_a_job_has_a_clone_named_after_the_pull_request(ann):
    asked = (
        "--revision",
        "1a2b3c",
        "--on-revision",
        "reset",
        "--lease",
        "3d",
        "--app-url",
        "https://pr-42.example.com",
    )
    said = ann.expect(*UP, *asked)
    assert "DataClone app/pr-42: Ready" in said
    assert "Secret pr-42-binding" in said
    assert the_clone(ann)["spec"] == {
        "from": {"store": {"name": "shop", "namespace": "data"}, "branch": "main"},
        "lease": {"max": "3d"},
        "revision": "1a2b3c",
        "onRevision": "Reset",
        "pullRequest": {
            "provider": "github",
            "repository": "acme/shop",
            "number": 42,
            "appURL": "https://pr-42.example.com",
        },
    }


def test_the_ci_system_says_which_one_it_is(ann, monkeypatch, tmp_path):
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7, "head": {"sha": "f00"}}}))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/shop")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    ann.expect("pr", "up", "--from", "data/shop:main", "--no-wait")
    spec = the_clone(ann, "pr-7")["spec"]
    assert (spec["pullRequest"]["number"], spec["revision"]) == (7, "f00")
    ann.expect("pr", "down", "--no-wait")
    assert ann.story.names("DataClone", "app") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_an_event_that_cannot_be_read_is_no_event(ann, monkeypatch, tmp_path, text):
    event = tmp_path / "event.json"
    event.write_text(text)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    said = ann.expect_refusal("pr", "up", "--from", "data/shop:main", code=2)
    assert "this is no job for a pull request: name one, --pull-request URL" in said


def test_a_push_tells_the_clone_of_the_new_commit_and_leaves_its_data(ann):
    ann.expect(*UP, "--revision", "1")
    before = the_clone(ann)
    ann.story.commit("bob")
    ann.expect(*UP, "--revision", "2")
    after = the_clone(ann)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (after["spec"]["revision"], after["status"]["revision"]) == ("2", "2")
    assert ann.story.rows("pr-42", namespace="app") == {"alice"}


def test_a_push_brings_new_data_where_that_is_asked_for(ann):
    ann.expect(*UP, "--revision", "1", "--on-revision", "Reset")
    ann.story.commit("bob")
    ann.expect(*UP, "--revision", "2", "--on-revision", "Reset")
    assert ann.story.rows("pr-42", namespace="app") == {"alice", "bob"}


def test_what_is_changed_is_kept_where_that_is_asked_for(ann):
    ann.expect(*UP, "--revision", "1")
    assert "onClose" not in the_clone(ann)["spec"]
    ann.expect(*UP, "--revision", "1", "--keep-changes")
    assert the_clone(ann)["spec"]["onClose"] == "KeepChanges"


def test_another_ones_clone_of_the_same_name_is_left_alone(ann):
    ann.expect("clone", "pr-42", "--from", "data/shop:main")
    other = ("--pull-request", "https://github.com/acme/web/pull/42")
    ann.expect(*UP[:4], "mine", *other)
    before = [the_clone(ann, name)["spec"] for name in ("pr-42", "mine")]
    for words in ((*UP, "--revision", "2"), DOWN, STATUS, (*UP[:4], "mine", *UP[4:]), (*DOWN[:2], "mine", *DOWN[2:])):
        assert "is not for this pull request: choose another name" in ann.expect_refusal(*words)
    assert [the_clone(ann, name)["spec"] for name in ("pr-42", "mine")] == before


def test_repositories_are_the_same_however_they_are_spelled(ann):
    ann.expect(*UP)
    ann.expect(*DOWN[:2], "--pull-request", PAGE.replace("acme/shop", "Acme/Shop"))
    assert ann.story.names("DataClone", "app") == []


def test_a_forge_that_is_named_is_the_same_as_the_usual_one_that_is_left_out(ann):
    said = {"provider": "github", "host": "github.com", "repository": "acme/shop", "number": 42}
    ann.story.clone("pr-42", namespace="app", pullRequest=said)
    ann.expect(*DOWN)
    assert ann.story.names("DataClone", "app") == []


def test_another_source_is_no_silent_change(ann):
    ann.expect(*UP)
    said = ann.expect_refusal("pr", "up", "--from", "data/shop:other", "--pull-request", PAGE)
    assert "is a copy of something else: coppice pr down, and then coppice pr up" in said


def test_who_writes_at_the_same_time_does_not_lose(ann):
    ann.expect(*UP, "--revision", "1")
    amend, refusals = ann.cluster.amend, [ConflictError("DataClone has been modified", status=409)] * 2

    async def contested(manifest):
        if refusals:
            raise refusals.pop()
        return await amend(manifest)

    ann.cluster.amend = contested
    ann.expect(*UP, "--revision", "2")
    assert the_clone(ann)["spec"]["revision"] == "2"
    refusals += [ConflictError("DataClone has been modified", status=409)] * 9
    assert "changed by others all the time" in ann.expect_refusal(*UP, "--revision", "3")


def test_one_that_is_on_its_way_out_is_waited_for(ann):
    ann.expect(*UP, "--revision", "1")
    before = the_clone(ann)["metadata"]["uid"]
    ann.expect(*DOWN, "--no-wait")
    said = ann.expect(*UP, "--revision", "2")
    assert "Ready" in said
    assert the_clone(ann)["metadata"]["uid"] != before


def test_where_there_is_none_nothing_is_left_to_do(ann):
    assert "there is no DataClone app/pr-42: nothing is left to do" in ann.expect(*DOWN)


def test_the_text_for_a_comment_is_written_to_a_file(ann, tmp_path):
    path = tmp_path / "comment.md"
    ann.expect(*UP, "--app-url", "https://pr-42.example.com", "--comment", str(path))
    ann.settle()
    ann.expect(*STATUS, "--comment", str(path))
    text = path.read_text()
    assert text.startswith("<!-- coppice: app/pr-42 -->\n**Database `app/pr-42`: ready**")
    assert "| App | https://pr-42.example.com |" in text
    assert text == the_clone(ann)["status"]["comment"]


@pytest.fixture
def served():
    forge = Forge(tokens={"t0p-s3cret"})
    forge.repository("acme/shop").pulls[42] = forge.repository("acme/shop").open("prices", "prices", "a" * 40)
    with forge.serving() as url:
        forge.url = url
        yield forge


def test_the_comment_on_the_pull_request_is_written_once(ann, served, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "t0p-s3cret")
    monkeypatch.setenv("GITHUB_API_URL", f"{served.url}/api/v3")
    ann.expect(*UP, "--revision", "1")
    ann.settle()
    for _ in range(2):
        said = ann.expect("pr", "comment", "--pull-request", PAGE)
    assert "the comment on DataClone app/pr-42 is up to date" in said
    assert served.repository("acme/shop").comments_of(42) == [the_clone(ann)["status"]["comment"]]


def test_a_token_can_be_in_a_file_and_one_that_is_refused_is_not_told(ann, served, tmp_path):
    ann.expect(*UP)
    file = tmp_path / "token"
    file.write_text("wr0ng")
    words = ("pr", "comment", "--pull-request", PAGE, "--api", f"{served.url}/api/v3", "--token-file", str(file))
    said = ann.expect_refusal(*words)
    assert "token" in said
    assert "wr0ng" not in said
    file.write_text("t0p-s3cret")
    ann.expect(*words)
    assert len(served.repository("acme/shop").comments_of(42)) == 1


def test_without_a_token_or_with_a_wrong_address_it_is_said_what_is_lacking(ann, monkeypatch):
    ann.expect(*UP)
    words = ("pr", "comment", "--pull-request", PAGE)
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    said = ann.expect_refusal(*words)
    assert "there is no token: name a file with --token-file, or set GITHUB_TOKEN or GITLAB_TOKEN" in said
    monkeypatch.setenv("GITHUB_TOKEN", "t0p-s3cret")
    assert "is not the address of an API" in ann.expect_refusal(*words, "--api", "ftp://x", code=2)


def test_status_tells_what_to_do_and_fails_where_the_clone_is_not_ready(ann):
    ann.story.delete("DataGrant", "previews")
    ann.expect(*UP, "--no-wait")
    said = ann.expect_refusal(*STATUS)
    assert "DataClone app/pr-42: Not looked at yet" in said
    ann.settle()
    said = ann.expect_refusal(*STATUS)
    assert "no DataGrant in namespace data" in said
    assert "next step: " in said
