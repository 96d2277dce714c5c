"""What a snapshot has to know of its volume, and which image reads what a server wrote."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coppice.core import labels
from coppice.manifests.pod import Resources
from coppice.reconcile.backing import Backing, recorded_backing
from coppice.reconcile.environment import Environment


def raw(text):
    annotations = {} if text is None else {labels.BACKING: text}
    return {"metadata": {"name": "first-raw", "annotations": annotations}}


@pytest.mark.parametrize(
    "backing",
    [
        Backing("1.0", "shop", "2Gi", "fast"),
        Backing("1.0", "shop", "2Gi", None),
        Backing("15", "shop", "2Gi", "fast", adopted=True, user_id=26, directory="pgdata"),
    ],
)
def test_what_is_written_down_is_read_again(backing):
    assert recorded_backing(raw(backing.text)) == backing


@pytest.mark.parametrize("text", [None, "", "nonsense", "{}", "[]", "1", '{"version": "1.0", "more": "x"}'])
def test_what_somebody_else_wrote_is_nothing(text):
    assert recorded_backing(raw(text)) is None


@pytest.mark.parametrize(
    ("running", "offered"),
    [
        ("15.18", "15"),
        ("15", "15"),
        ("15.2", "15.2"),
        ("15.2.1", "15.2"),
        ("15.20", "15"),
        ("15.18 (Debian 15.18-1)", "15"),
        ("1.83.2", "1.83"),
        ("1.8", None),
        ("150.1", None),
        ("5.15", None),
        ("", None),
    ],
)
def test_the_longest_version_that_the_running_one_begins_with_is_offered(running, offered):
    images = {"dolt": dict.fromkeys(("15", "15.2", "1.83", "17"), "example.com/image")}
    environment = Environment(
        engines={},
        images=images,
        operator_namespace="coppice-system",
        server=Resources(memory="256Mi", cpu="100m"),
        idle=timedelta(days=1),
        longest=timedelta(days=1),
        undo=timedelta(hours=1),
        reaches=lambda host, port: None,
    )
    assert environment.offered("dolt", running) == offered
    assert environment.offered("other", running) is None
