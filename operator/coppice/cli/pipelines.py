"""Which pull request a CI system works on, by what it puts into a job's environment. Pure.

Sources: "Default environment variables" and the payload of ``pull_request`` at docs.github.com, "Predefined CI/CD
variables" at docs.gitlab.com, and the multibranch variables of Jenkins' Branch API plug-in (``CHANGE_ID``,
``CHANGE_URL``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from coppice.api.v1alpha1 import Provider, PullRequestRef
from coppice.api.v1alpha1.pullrequest import PUBLIC_HOSTS
from coppice.cli.wishes import WrongWordsError

EVENT: Final = "GITHUB_EVENT_PATH"
"""Names the file in which GitHub Actions has the event that the job was started by."""
_PAGES: Final = (
    (Provider.GITHUB, re.compile(r"/(?P<repository>[^/]+/[^/]+)/pull/(?P<number>\d+)")),
    (Provider.GITLAB, re.compile(r"/(?P<repository>.+?)/-/merge_requests/(?P<number>\d+)")),
)
"""How the pages of pull requests are called, by the forge's kind."""
_EXAMPLE: Final = "https://github.com/acme/shop/pull/42"


@dataclass(frozen=True, slots=True)
class Found:
    """A pull request, and its newest commit where that is known."""

    pull_request: PullRequestRef
    revision: str | None = None


def read_page(url: str) -> PullRequestRef:
    """Return the pull request that a page is about."""
    page = urlsplit(url)
    for provider, pattern in _PAGES:
        found = pattern.match(page.path)
        if found and page.hostname:
            return _reference(provider, page.hostname, found["repository"], int(found["number"]))
    raise WrongWordsError(f"{url!r} is no page of a pull request, such as {_EXAMPLE}")


def read_job(environ: Mapping[str, str], event: Mapping[str, Any]) -> Found | None:
    """Return what a job is for, or None where it is for no pull request; ``event`` is what GitHub's file has."""
    found = _of_github(environ, event) or _of_gitlab(environ)
    if found is not None or not environ.get("CHANGE_URL"):
        return found
    return Found(read_page(environ["CHANGE_URL"]), environ.get("GIT_COMMIT"))


def _of_github(environ: Mapping[str, str], event: Mapping[str, Any]) -> Found | None:
    opened = event.get("pull_request")
    if not environ.get("GITHUB_ACTIONS") or not isinstance(opened, Mapping):
        return None
    host = urlsplit(environ.get("GITHUB_SERVER_URL", "")).hostname or PUBLIC_HOSTS[Provider.GITHUB]
    reference = _reference(Provider.GITHUB, host, environ["GITHUB_REPOSITORY"], int(opened["number"]))
    return Found(reference, opened["head"]["sha"])


def _of_gitlab(environ: Mapping[str, str]) -> Found | None:
    if not environ.get("CI_MERGE_REQUEST_IID"):
        return None
    reference = _reference(
        Provider.GITLAB,
        environ["CI_SERVER_HOST"],
        environ["CI_MERGE_REQUEST_PROJECT_PATH"],
        int(environ["CI_MERGE_REQUEST_IID"]),
    )
    # Of merged results CI_COMMIT_SHA is a commit that is in no branch.
    return Found(reference, environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or environ.get("CI_COMMIT_SHA"))


def _reference(provider: Provider, host: str, repository: str, number: int) -> PullRequestRef:
    named = {} if host == PUBLIC_HOSTS[provider] else {"host": host}
    return PullRequestRef.model_validate(
        {"provider": provider.value, **named, "repository": repository, "number": number}
    )
