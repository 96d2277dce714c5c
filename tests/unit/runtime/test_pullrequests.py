"""Whose pull request has news looks again, and what outlives its pull request is counted."""

import pytest
from tests.fakes.forges import Told
from tests.unit.runtime.builders import clone

from coppice.core.key import Key
from coppice.core.pullrequests import PullRequestKey
from coppice.runtime.metrics import Metrics
from coppice.runtime.pullrequests import PullRequestClones, count_answer

SHOP = PullRequestKey("github.com", "acme/shop", 42)
SAID = {"provider": "github", "repository": "Acme/Shop", "number": 42}
CLOSED = {"pullRequest": {"state": "Closed"}}


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def forges():
    return Told()


@pytest.fixture
def clones(metrics, forges):
    return PullRequestClones(metrics, forges)


def see(clones, name="db", status=None, **spec):
    key = Key("DataClone", "app", name)
    clones.seen(key, clone(name, **{"pullRequest": SAID, **spec}) | {"status": status or {}})
    return key


def outliving(metrics, dry_run="false"):
    return metrics.registry.get_sample_value("coppice_closed_pull_request_clones", {"dry_run": dry_run})


def test_a_clone_is_found_by_its_pull_request_however_that_is_written(clones):
    key = see(clones)
    other = see(clones, "other", pullRequest={**SAID, "number": 7})
    assert clones.of(SHOP) == {key}
    assert clones.of(SHOP._replace(number=7)) == {other}
    assert clones.of(SHOP._replace(host="gitlab.com")) == set()


@pytest.mark.parametrize("said", [None, {}, "acme/shop", {**SAID, "repository": "../.."}, {**SAID, "number": "many"}])
def test_what_names_no_pull_request_is_found_by_none(clones, said):
    see(clones)
    see(clones, pullRequest=said)
    assert clones.of(SHOP) == set()


def test_other_kinds_are_let_go_by(clones):
    clones.seen(Key("DataStore", "app", "db"), clone(pullRequest=SAID))
    assert clones.of(SHOP) == set()


def test_a_clone_that_is_gone_is_found_no_more(clones, metrics):
    key, other = see(clones, status=CLOSED), see(clones, "other", status=CLOSED)
    clones.gone(key)
    assert clones.of(SHOP) == {other}
    clones.listed({})
    assert clones.of(SHOP) == set()
    assert outliving(metrics) == 0


def test_a_list_shows_what_no_event_told(clones):
    key = Key("DataClone", "app", "db")
    clones.listed({key: clone(pullRequest=SAID)})
    assert clones.of(SHOP) == {key}


@pytest.mark.parametrize(
    ("status", "count"),
    [
        ({}, 0),
        ({"pullRequest": {"state": "Open"}}, 0),
        (CLOSED, 1),
        ({"pullRequest": {"state": "Closed", "endedAt": "2030-01-01T12:00:00Z"}}, 0),
        ({**CLOSED, "conditions": [{"type": "Ready", "status": "False", "reason": "Expired"}]}, 0),
        ({**CLOSED, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]}, 1),
    ],
)
def test_what_has_data_though_its_pull_request_is_closed_is_counted(clones, metrics, status, count):
    assert outliving(metrics) == 0
    see(clones, status=status)
    assert outliving(metrics) == count
    see(clones, status={"pullRequest": {"state": "Open"}})
    assert outliving(metrics) == 0


def test_on_dry_run_it_is_counted_apart(clones, metrics, forges):
    forges.dry_run = True
    see(clones, status=CLOSED)
    assert (outliving(metrics), outliving(metrics, "true")) == (0, 1)


@pytest.mark.parametrize(
    ("status", "word"), [(200, "2xx"), (201, "2xx"), (304, "304"), (403, "4xx"), (502, "5xx"), (0, "none")]
)
def test_answers_are_counted_by_class(metrics, status, word):
    count_answer(metrics, "github.com", status)
    labels = {"host": "github.com", "status": word}
    assert metrics.registry.get_sample_value("coppice_forge_requests_total", labels) == 1
