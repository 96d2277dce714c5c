"""What the benchmark of forges counts."""

from pathlib import Path

import pytest
from e2e.bench.forge import ALLOWED, Day, Hour, Line, report

from coppice.api.v1alpha1.pullrequest import Provider

MINUTES = 60
"""Of an hour; a forge is asked once in each."""


@pytest.mark.parametrize("provider", list(Provider))
async def test_pull_requests_of_one_repository_are_asked_for_together(provider: Provider, tmp_path: Path) -> None:
    day = Day(provider, tmp_path / "token", count=30)
    first, quiet, busy = await day.hour(), await day.hour(), await day.hour(busy=True)
    await day.book.aclose()
    assert (first.requests, first.unchanged) == (MINUTES, MINUTES - 1)
    assert (quiet.requests, quiet.unchanged) == (MINUTES, MINUTES)
    assert quiet.counted(provider) == (0 if provider is Provider.GITHUB else MINUTES)
    assert busy.requests > MINUTES
    assert len(busy.delays) == 30, "each push and each closing has become known"
    assert 0 < max(busy.delays) <= 60


async def test_each_by_itself_is_a_request_for_each_in_every_minute(tmp_path: Path) -> None:
    day = Day(Provider.GITLAB, tmp_path / "token", count=5)
    hour = await day.hour_by_themselves()
    await day.book.aclose()
    assert hour == Hour(5 * MINUTES, 5 * (MINUTES - 1))


def test_only_github_does_not_count_what_has_not_changed() -> None:
    hour = Hour(100, 90, (1.0, 2.0, 30.0))
    told = report([Line(provider, "an hour", hour) for provider in Provider]).splitlines()
    [github] = [line.split() for line in told if line.startswith("github")]
    [gitlab] = [line.split() for line in told if line.startswith("gitlab")]
    assert github[-7:] == ["100", "90", "10", f"{10 / ALLOWED[Provider.GITHUB]:.2%}", "2.00", "/", "30.00"]
    assert gitlab[-5] == "100"
