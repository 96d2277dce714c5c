"""Options that several commands share, and how their words are read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import click

from coppice.core.durations import parse_duration

PATIENCE: Final = "5m"

Decorated = Callable[..., Any]


def duration(text: str) -> timedelta:
    """Return a length of time as the API has it: 90s, 1h30m, 3d."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def all_of(*options: Decorated) -> Callable[[Decorated], Decorated]:
    """Return one decorator for several options, which are listed in this order."""

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


waiting: Final = all_of(
    click.option("--wait/--no-wait", default=True, show_default=True, help="Whether to wait until it is done."),
    click.option(
        "--timeout",
        "patience",
        type=duration,
        default=PATIENCE,
        show_default=True,
        help="How long to wait; what is not ready then is left as it is.",
    ),
)

source: Final = all_of(
    click.option(
        "--from",
        "store",
        metavar="[NAMESPACE/]STORE[:BRANCH]",
        required=True,
        help="The DataStore, and its branch: main if neither a branch nor another point is named.",
    ),
    click.option("--tag", help="The state that this tag names, in the place of a branch."),
    click.option("--commit", help="The state of this commit."),
    click.option("--snapshot", help="The DataSnapshot of this name, in the store's namespace."),
    click.option("--time", help="The state of the store's default branch at this time (RFC 3339)."),
    click.option("--migration", help="The newest snapshot that has nothing beyond this version of the migration tool."),
)
"""A point of a store."""
