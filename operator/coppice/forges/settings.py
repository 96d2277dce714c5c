"""Which forges there are, as the administrator has set them up, and the client of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from coppice.api.v1alpha1.pullrequest import PUBLIC_HOSTS, Provider
from coppice.core.durations import parse_duration
from coppice.core.pullrequests import GRACE, ForgeTerms
from coppice.forges import github, gitlab
from coppice.forges.client import ForgeClient
from coppice.forges.http import ForgeHttp

INTERVAL: Final = timedelta(minutes=1)
"""How often a forge is asked for each pull request, where nobody has set another time."""
SHORTEST_INTERVAL: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class ForgeSettings:
    """One forge: what it is called, where its API is, and how to ask it."""

    provider: Provider
    host: str
    url: str
    token_file: Path
    interval: timedelta = INTERVAL
    terms: ForgeTerms = field(default_factory=ForgeTerms)


def read_forges(text: str) -> tuple[ForgeSettings, ...]:
    """Return the forges of a JSON list; raise ``ValueError`` or ``TypeError`` for any other text."""
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise TypeError
    forges = tuple(_read(entry) for entry in entries)
    if len({forge.host for forge in forges}) < len(forges):
        raise ValueError
    return forges


def forge_settings(provider: str, host: str, url: str, token_file: Path) -> ForgeSettings:
    """Return how to ask a forge that is not among the administrator's; its API is in the usual place where ``url`` is
    empty. Raises ValueError.
    """
    return _read({"provider": provider, "host": host, "url": url, "tokenFile": str(token_file)})


def connect(
    settings: ForgeSettings,
    *,
    clock: Callable[[], datetime],
    told: Callable[[int], None] = lambda _: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ForgeClient:
    """Return the client of a forge; ``told`` is called with the status code of each answer, 0 where none came."""
    headers = github.HEADERS if settings.provider is Provider.GITHUB else gitlab.HEADERS
    http = ForgeHttp(
        settings.host,
        settings.url,
        settings.token_file,
        clock=clock,
        headers=headers,
        told=told,
        transport=transport,
    )
    return github.GitHub(http) if settings.provider is Provider.GITHUB else gitlab.GitLab(http)


def _read(entry: Any) -> ForgeSettings:
    values = {**_DEFAULTS, **entry}
    if set(values) != _FIELDS:
        raise ValueError
    provider = Provider(values["provider"])
    host = _text(values["host"] or PUBLIC_HOSTS[provider]).lower()
    interval = parse_duration(_text(values["interval"]))
    if interval < SHORTEST_INTERVAL:
        raise ValueError
    return ForgeSettings(
        provider=provider,
        host=host,
        url=_address(values["url"] or _default_url(provider, host)),
        token_file=Path(_text(values["tokenFile"])),
        interval=interval,
        terms=ForgeTerms(
            grace=parse_duration(_text(values["grace"])),
            dry_run=_flag(values["dryRun"]),
            comments=_flag(values["comments"]),
            statuses=_flag(values["statuses"]),
        ),
    )


def _default_url(provider: Provider, host: str) -> str:
    """Return where the API of a forge is: github.com's has a host of its own, all others are below a path."""
    if provider is Provider.GITLAB:
        return f"https://{host}/api/v4"
    return "https://api.github.com" if host == PUBLIC_HOSTS[provider] else f"https://{host}/api/v3"


def _address(value: Any) -> str:
    url = httpx.URL(_text(value))
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise ValueError
    return str(url)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_DEFAULTS: Final[Mapping[str, Any]] = {
    "host": "",
    "url": "",
    "interval": "1m",
    "grace": f"{int(GRACE.total_seconds())}s",
    "dryRun": False,
    "comments": False,
    "statuses": False,
}
_FIELDS: Final = {*_DEFAULTS, "provider", "tokenFile"}
