"""Which pull request a job is for, in the words of three CI systems."""

from __future__ import annotations

import pytest

from coppice.cli.pipelines import Found, read_job, read_page
from coppice.cli.wishes import WrongWordsError

GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/shop", "GITHUB_SERVER_URL": "https://github.com"}
EVENT = {"action": "synchronize", "pull_request": {"number": 42, "head": {"sha": "1a2b3c"}}}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_SERVER_HOST": "gitlab.example.com",
    "CI_MERGE_REQUEST_IID": "7",
    "CI_MERGE_REQUEST_PROJECT_PATH": "acme/web/shop",
    "CI_COMMIT_SHA": "merged",
}
JENKINS = {"CHANGE_ID": "42", "CHANGE_URL": "https://github.com/acme/shop/pull/42", "GIT_COMMIT": "1a2b3c"}


def told(found: Found | None) -> object:
    assert found is not None
    return found.pull_request.model_dump(mode="json", by_alias=True, exclude_unset=True), found.revision


@pytest.mark.parametrize(
    ("environ", "event", "expected"),
    [
        (GITHUB, EVENT, ({"provider": "github", "repository": "acme/shop", "number": 42}, "1a2b3c")),
        (
            {**GITHUB, "GITHUB_SERVER_URL": "https://git.example.com"},
            EVENT,
            ({"provider": "github", "host": "git.example.com", "repository": "acme/shop", "number": 42}, "1a2b3c"),
        ),
        (
            GITLAB,
            {},
            (
                {"provider": "gitlab", "host": "gitlab.example.com", "repository": "acme/web/shop", "number": 7},
                "merged",
            ),
        ),
        (
            {**GITLAB, "CI_SERVER_HOST": "gitlab.com", "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": "1a2b3c"},
            {},
            ({"provider": "gitlab", "repository": "acme/web/shop", "number": 7}, "1a2b3c"),
        ),
        (JENKINS, {}, ({"provider": "github", "repository": "acme/shop", "number": 42}, "1a2b3c")),
        (
            {**JENKINS, "CHANGE_URL": "https://git.example.com/acme/web/shop/-/merge_requests/7"},
            {},
            ({"provider": "gitlab", "host": "git.example.com", "repository": "acme/web/shop", "number": 7}, "1a2b3c"),
        ),
    ],
    ids=["github", "github-enterprise", "gitlab", "gitlab-merged-results", "jenkins", "jenkins-gitlab"],
)
def test_a_job_for_a_pull_request_says_so(environ, event, expected):
    assert told(read_job(environ, event)) == expected


@pytest.mark.parametrize(
    ("environ", "event"),
    [
        ({}, {}),
        (GITHUB, {"ref": "refs/heads/main"}),
        (GITHUB, {"pull_request": None}),
        ({}, EVENT),
        ({"GITLAB_CI": "true", "CI_COMMIT_BRANCH": "main"}, {}),
        ({"GIT_COMMIT": "1a2b3c", "CHANGE_ID": "42"}, {}),
    ],
    ids=["nowhere", "github-push", "github-nothing", "no-github", "gitlab-branch", "jenkins-without-page"],
)
def test_any_other_job_is_for_none(environ, event):
    assert read_job(environ, event) is None


@pytest.mark.parametrize(
    "page",
    ["", "42", "github.com/acme/shop/pull/42", "https://github.com/acme/shop/issues/42", "https://x/acme/pull/42"],
)
def test_what_is_no_page_of_a_pull_request_is_refused(page):
    with pytest.raises(WrongWordsError, match="is no page of a pull request, such as"):
        read_page(page)
