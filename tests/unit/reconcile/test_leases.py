"""The arithmetic of leases, with a clock that is turned by hand: first the rules in a table, then a clone's life."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from tests.fakes.story import begun

from coppice.api.v1alpha1 import Lease
from coppice.core import labels
from coppice.core.conditions import timestamp
from coppice.core.durations import parse_duration
from coppice.reconcile.lease import LeaseTerms, expires_at, lease_terms, warned_from
from coppice.reconcile.observed import parse_time

MONDAY = datetime(2026, 11, 2, 9, tzinfo=UTC)
DEFAULT = LeaseTerms(idle=timedelta(hours=2), longest=timedelta(days=3))
NO_END = None


def after(text):
    return None if text is None else MONDAY + parse_duration(text)


@dataclass(frozen=True)
class Case:
    """A clone of Monday, nine o'clock; times are counted from then. ``ends`` and ``warned`` are what is expected."""

    ends: str | None
    warned: str | None = None
    idle: str | None = None
    max: str | None = None
    granted: str | None = None
    used: str | None = None
    extended: str | None = None
    before: str = "1h"
    refused: str | None = None


LEASES = {
    "who asks for nothing has the administrator's idle": Case("2h", "1h30m"),
    "use moves the end": Case("7h", "6h30m", used="5h"),
    "but not beyond the administrator's max": Case("3d", "2d23h", used="2d23h30m"),
    "a clone's own idle": Case("30m", "22m30s", idle="30m"),
    "a clone's own max ends it whatever it is used": Case("8h", "7h", max="8h", used="7h59m"),
    "who asks for max alone ends by no idling": Case("20d", "19d23h", max="20d"),
    "both: the earlier one": Case("5h", "4h", idle="4h", max="10h", used="1h"),
    "both: the other one": Case("10h", "9h", idle="4h", max="10h", used="9h"),
    "an extension begins anew": Case("7h", "6h30m", extended="5h"),
    "and moves the max as well": Case("13h", "12h", max="8h", extended="5h"),
    "no end at all in one's own namespace": Case(NO_END, idle="Never", max="Never"),
    "no end by idling": Case("3d", "2d23h", idle="Never"),
    "the grant bounds max": Case("1d", "23h", idle="Never", max="9d", granted="1d", refused="lease.max 9d"),
    "the grant bounds idle": Case(
        "1d", "23h", idle="2d", max="9d", granted="1d", refused="lease.idle 2d and lease.max 9d"
    ),
    "the grant bounds Never": Case("1d", "23h", max="Never", granted="1d", refused="lease.max Never"),
    "the grant bounds what the administrator gives, and nothing was refused": Case(
        "1h", "45m", granted="1h", used="59m"
    ),
    "the grant counts from the last extension": Case(
        "29h", "28h", max="9d", granted="1d", extended="5h", refused="lease.max 9d"
    ),
    "a grant that is longer gives no more than was asked for": Case("8h", "7h", max="8h", granted="7d"),
    "the warning is the administrator's": Case("3d", "2d20h", idle="Never", before="4h"),
    "but no more than a quarter of the lease": Case("8m", "6m", idle="Never", max="8m"),
    "or of the time without use": Case("9h", "8h30m", used="7h", before="3d"),
}


@pytest.mark.parametrize("case", LEASES.values(), ids=LEASES)
def test_leases(case):
    granted = None if case.granted is None else parse_duration(case.granted)
    terms = lease_terms(Lease(idle=case.idle, max=case.max), allowed=granted, default=DEFAULT)
    asked = after(case.extended) or MONDAY
    ends = expires_at(terms, asked=asked, active=after(case.used) or MONDAY)
    assert ends == after(case.ends)
    assert terms.refused == case.refused
    if ends is not None:
        assert warned_from(terms, ends, asked=asked, before=parse_duration(case.before)) == after(case.warned)


@dataclass(frozen=True)
class Scene:
    """What happens at a time of the clone's life, and what one sees afterwards; times count from its beginning.

    ``left``: until the lease ends, in minutes or so.
    """

    at: str
    deed: str
    reason: str
    left: str | None
    warned: str | None = None
    apps: int = 1


LIFE = (
    Scene("5m", "", "Ready", "1h55m"),
    Scene("20m", "query", "Ready", "2h"),
    Scene("48m", "", "Ready", "1h32m"),
    Scene("52m", "", "Asleep", "1h28m", apps=0),
    Scene("1h48m", "", "Asleep", "32m", apps=0),
    Scene("1h52m", "", "Asleep", "28m", warned="EndsUnused", apps=0),
    Scene("1h53m", "wake", "Ready", "2h"),
    Scene("2h24m", "", "Asleep", "1h29m", apps=0),
    Scene("2h30m", "revision", "Ready", "2h"),
    Scene("3h5m", "", "Asleep", "1h25m", apps=0),
    Scene("3h10m", "reset", "Ready", "2h"),
    Scene("5h12m", "", "Expired", None, apps=0),
    Scene("6h", "query", "Expired", None, apps=0),
    Scene("7h", "wake", "Expired", None, apps=0),
    Scene("8h", "extend", "Ready", "2h"),
    Scene("8h20m", "power: On", "Ready", "1h40m"),
    Scene("9h45m", "", "Ready", "15m", warned="EndsUnused"),
    Scene("9h46m", "query", "Ready", "2h"),
    # The grant's day since the last extension, however busy the clone is.
    Scene("10h", "busy until 29h", "Ready", "2h"),
    Scene("30h30m", "query", "Ready", "1h30m"),
    Scene("31h10m", "query", "Ready", "50m", warned="EndsSoon"),
    Scene("31h20m", "extend", "Ready", "2h"),
    Scene("32h", "power: Off", "PoweredOff", "1h20m", apps=0),
    Scene("33h25m", "", "Expired", None, apps=0),
    Scene("34h", "revision", "PoweredOff", "2h", apps=0),
    Scene("34h10m", "power: Auto", "Ready", "1h50m"),
)


async def preview(story):
    """Begin a clone in another namespace, for which the grant gives a day, and an app that sleeps with it."""
    story.grant(maxLease="1d")
    story.store()
    story.clone(namespace="app", lease={"idle": "2h", "max": "1d"})
    await story.settle()
    story.expect_ready("DataClone", "db", "app")
    template = {"spec": {"containers": [{"name": "app", "image": "web:1"}]}}
    metadata = {"name": "web", "namespace": "app", "annotations": {labels.SLEEP_OPT_IN: "db"}}
    story.kube.add(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
    )


@pytest.fixture
def review():
    return begun(preview, sleep=timedelta(minutes=30), idle=timedelta(hours=2))


async def do(story, deed, number):
    if deed == "query":
        story.world.tick(1)
        if story.is_ready("DataClone", "db", "app"):
            story.rows(namespace="app")
    elif deed == "revision":
        story.edit("DataClone", "db", "app", revision=f"commit-{number}")
    elif deed.startswith("busy"):
        for _ in range(19):
            await story.operator.live(hours=1)
            story.rows(namespace="app")
    elif deed.startswith("power"):
        story.edit("DataClone", "db", "app", power=deed.removeprefix("power: "))
    elif deed:
        story.annotate("DataClone", "db", "app", **{deed: timestamp(story.world.now)})
    await story.settle()
    await story.operator.live(seconds=65)


def warning(story):
    found = [entry for entry in story.status("DataClone", "db", "app")["conditions"] if entry["type"] == "LeaseEnding"]
    return (found[0]["reason"], found[0]["message"]) if found else (None, "")


async def test_the_life_of_a_preview(review):
    begins = review.world.now
    for number, scene in enumerate(LIFE):
        where = f"{scene.at}: {scene.deed}"
        pause = begins + parse_duration(scene.at) - review.world.now
        await review.operator.live(seconds=max(pause.total_seconds(), 1))
        await do(review, scene.deed, number)
        status = review.status("DataClone", "db", "app")
        assert review.reason("DataClone", "db", "app") == scene.reason, where
        reason, words = warning(review)
        assert reason == scene.warned, where
        if scene.left is not None:
            ends = parse_time(status["expiresAt"])
            left = ends - review.world.now
            assert abs(left - parse_duration(scene.left)) < timedelta(minutes=3), f"{where}: {left}"
        if reason is not None:
            assert status["expiresAt"] in words, where
            assert "coppice extend db" in words, where
        assert review.get("Deployment", "web", "app")["spec"]["replicas"] == scene.apps, where
    told = [reason for reason in review.events("DataClone", "db") if reason.startswith("Ends")]
    assert told == ["EndsUnused", "EndsUnused", "EndsUnused", "EndsSoon", "EndsUnused"]


async def test_a_warning_says_when_no_grant_is_left_to_extend_by(review):
    review.delete("DataGrant", "previews")
    await review.operator.live(minutes=95)
    reason, words = warning(review)
    assert reason == "EndsSoon"
    assert "grant" in words


async def test_a_warning_is_told_once(review):
    await review.operator.live(minutes=118)
    assert review.events("DataClone", "db").count("EndsUnused") == 1
