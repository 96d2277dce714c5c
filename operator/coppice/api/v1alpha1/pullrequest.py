"""What a DataClone says of the pull request that it is for, and what its forge has told of that.

What is said attests nothing: who may write the object may write any of it. ``coppice.reconcile.grants`` has the rules
by which it is believed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from coppice.api.schema import Rule, immutable, immutable_optional
from coppice.api.v1alpha1.base import SpecModel, StatusModel
from coppice.api.v1alpha1.common import SUBDOMAIN_PATTERN, Text, Time

_SEGMENT = r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*"
"""One part of a path: never only dots, for it goes into the address of a request."""
REPOSITORY_PATTERN = f"^{_SEGMENT}(/{_SEGMENT})+$"
GRANTED_REPOSITORY_PATTERN = f"{SUBDOMAIN_PATTERN[:-1]}(/{_SEGMENT}){{2,}}$"
APP_URL_PATTERN = r"""^https?://[^\x00-\x20\x7f<>"'()\\`\[\]]+$"""
"""No character that ends a link where it is shown."""
INSTEAD = "delete the DataClone and create it anew"

Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
Repository = Annotated[str, StringConstraints(min_length=3, max_length=255, pattern=REPOSITORY_PATTERN)]
GrantedRepository = Annotated[str, StringConstraints(min_length=5, max_length=509, pattern=GRANTED_REPOSITORY_PATTERN)]
"""A repository with its host: github.com/acme/shop."""


class Provider(StrEnum):
    """Whose API a forge has."""

    GITHUB = "github"
    GITLAB = "gitlab"


PUBLIC_HOSTS = {Provider.GITHUB: "github.com", Provider.GITLAB: "gitlab.com"}


class PullRequestRef(SpecModel):
    """Names a pull request; GitLab calls it a merge request."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.provider != '{Provider.GITHUB}' || self.repository.indexOf('/') == self.repository.lastIndexOf('/')",
            "a repository on GitHub is owner/name",
            field_path=".repository",
        ),
        immutable_optional("host", INSTEAD),
    )

    provider: Annotated[Provider, immutable("provider", INSTEAD)] = Field(
        description="Whose API the forge has: github or gitlab."
    )
    host: Host | None = Field(
        default=None,
        description="Host name of the forge, as administrators and grants call it; github.com or gitlab.com if left "
        "out.",
    )
    repository: Annotated[Repository, immutable("repository", INSTEAD)] = Field(
        description="Path of the repository that the pull request is made to, for example acme/shop. Upper and lower "
        "case are the same."
    )
    number: Annotated[int, Field(ge=1, le=2147483647), immutable("number", INSTEAD)] = Field(
        description="Number of the pull request in that repository."
    )
    app_url: Annotated[str, StringConstraints(max_length=2048, pattern=APP_URL_PATTERN)] | None = Field(
        default=None,
        alias="appURL",
        description="Where the application of this pull request answers, for people who read about it there.",
    )

    @property
    def forge(self) -> str:
        """Return the host name of the forge."""
        return self.host or PUBLIC_HOSTS[self.provider]


class PullRequestState(StrEnum):
    """How a pull request is, as far as it is known. One that was merged is closed."""

    OPEN = "Open"
    CLOSED = "Closed"
    UNKNOWN = "Unknown"


class PullRequestStatus(StatusModel):
    """What the forge has told of the pull request."""

    state: PullRequestState = Field(
        description="Open, Closed (merged, too), or Unknown: the condition PullRequestOpen says why."
    )
    fork: bool | None = Field(
        default=None,
        description="Whether its commits come from another repository. Left out: not known, or not told, because no "
        "grant says that this namespace speaks for the repository.",
    )
    head_revision: Text | None = Field(
        default=None, description="The newest commit of the pull request; left out like fork."
    )
    closed_at: Time | None = Field(default=None, description="When it was closed.")
    ended_at: Time | None = Field(
        default=None, description="When the clone ended by that; it has no data until the pull request is reopened."
    )
    checked_at: Time | None = Field(
        default=None, description="When the rest of this was found; it does not move while the forge says the same."
    )
    url: Annotated[str, StringConstraints(max_length=2048)] | None = Field(
        default=None, description="Where people read it; left out like fork."
    )
