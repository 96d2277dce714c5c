"""What is wrong with a Pod that does not come up, and whether to wait for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coppice.core import labels
from coppice.manifests.job import LOAD_ROLE, MASK_ROLE, MIGRATE_ROLE
from coppice.reconcile.observed import format_time
from coppice.reconcile.trouble import MAX_REASON, find_trouble, reason_of_failure

MADE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
UNREADY = {"type": "Ready", "status": "False", "lastTransitionTime": format_time(MADE + 30 * MINUTE)}
READY = {"type": "Ready", "status": "True"}
MISSING = 'secret "db-engine" not found'


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "engine", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def crashed(times: int, *, state: str = "waiting", name: str = "engine", lasted: int = 1, code: int = 1) -> Any:
    """Return a container that has ended so often, each time after so many seconds."""
    ended = {"exitCode": code, "startedAt": format_time(MADE), "finishedAt": format_time(MADE + lasted * SECOND)}
    states = {
        "waiting": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}},
        "running": {"running": {}},
    }
    restarts = times if state == "running" else times - 1
    return {"name": name, "state": states[state], "lastState": {"terminated": ended}, "restartCount": restarts}


def troubled(*containers: Any, load: Any = None, conditions: Any = ()) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "db-1", "creationTimestamp": format_time(MADE)},
        "status": {
            "conditions": list(conditions),
            "initContainerStatuses": [] if load is None else [load],
            "containerStatuses": list(containers),
        },
    }


@pytest.mark.parametrize(
    ("manifest", "reason", "hopeless_after"),
    [
        # What no time mends.
        (troubled(waiting("InvalidImageName", "could not parse")), "ServerTrouble", timedelta()),
        (troubled(waiting("ErrImageNeverPull")), "ServerTrouble", timedelta()),
        (troubled(crashed(3)), "ServerTrouble", timedelta()),
        (troubled(crashed(3, code=0)), "ServerTrouble", timedelta()),
        (troubled(crashed(3, state="running")), "ServerTrouble", timedelta()),
        (troubled(load=crashed(2, name="load")), "LoadFailed", timedelta()),
        (troubled(load=crashed(2, name="load", lasted=3600)), "LoadFailed", timedelta()),
        (troubled(load=crashed(2, name="load", state="running")), "LoadFailed", timedelta()),
        # What may pass, if not for long.
        (troubled(waiting("ErrImagePull", "no such host")), "ServerTrouble", 2 * MINUTE),
        (troubled(waiting("ImagePullBackOff")), "ServerTrouble", 2 * MINUTE),
        (troubled(waiting("CreateContainerConfigError", MISSING)), "ServerTrouble", 2 * MINUTE),
        (troubled(waiting("CreateContainerError")), "ServerTrouble", 2 * MINUTE),
        (troubled(waiting("ImagePullBackOff"), conditions=[UNREADY]), "ServerTrouble", 32 * MINUTE),
        # Kubelet's newest words count.
        (troubled({**crashed(9), **waiting("ErrImagePull")}), "ServerTrouble", 2 * MINUTE),
        (troubled(conditions=[UNSCHEDULED]), "ServerTrouble", 10 * MINUTE),
        # What kubelet puts right, or has not tried often yet.
        (troubled(crashed(1)), "ServerTrouble", None),
        (troubled(crashed(2)), "ServerTrouble", None),
        (troubled(crashed(9, lasted=3600)), "ServerTrouble", None),
        (troubled(load=crashed(1, name="load")), "LoadFailed", None),
    ],
)
def test_what_is_wrong_with_a_pod_and_from_when_on_waiting_is_in_vain(manifest, reason, hopeless_after):
    trouble = find_trouble(manifest)
    assert trouble is not None
    assert trouble.reason == reason
    if hopeless_after is None:
        assert not trouble.is_hopeless(MADE + timedelta(days=9))
    else:
        assert not trouble.is_hopeless(MADE + hopeless_after - SECOND)
        assert trouble.is_hopeless(MADE + hopeless_after)


@pytest.mark.parametrize(
    "manifest",
    [
        troubled(),
        troubled(waiting("ContainerCreating")),
        troubled(waiting("PodInitializing"), load={"name": "load", "state": {"running": {}}, "restartCount": 0}),
        troubled(waiting("PodInitializing"), load=crashed(1, name="load", state="running")),
        troubled(crashed(2, state="running")),
        troubled(crashed(9, state="running", lasted=3600)),
        # A server that has got over it.
        troubled(crashed(9, state="running"), conditions=[READY]),
    ],
)
def test_a_pod_that_is_on_its_way_or_well_has_no_trouble(manifest):
    assert find_trouble(manifest) is None


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (troubled(waiting("ErrImagePull", "no such host")), ["container engine", "ErrImagePull", "no such host"]),
        (troubled(waiting("CreateContainerConfigError", MISSING)), [MISSING]),
        (troubled(conditions=[UNSCHEDULED]), ["0/3 nodes are available"]),
        (troubled(crashed(3)), ["exit code 1", "3 times", "back-off 20s", "kubectl logs db-1 -c engine"]),
        (troubled(crashed(3, code=137)), ["exit code 137", "memory"]),
        (troubled(load=crashed(2, name="load")), ["exit code 1", "2 times", "kubectl logs db-1 -c load"]),
    ],
)
def test_what_is_wrong_with_a_pod_is_said_in_kubelets_words_with_what_to_do(manifest, words):
    trouble = find_trouble(manifest)
    assert trouble is not None
    text = f"{trouble.message}: {trouble.advice}"
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(("name", "value"), [("engine", "engines.<engine>.images"), ("tls", "tls.image")])
def test_an_image_that_cannot_be_had_is_sought_where_the_administrator_named_it(name, value):
    trouble = find_trouble(troubled({**waiting("ErrImagePull"), "name": name}))
    assert trouble is not None
    assert f"names it in {value} of the chart" in trouble.advice


def test_kubelets_words_are_quoted_up_to_a_length():
    trouble = find_trouble(troubled(waiting("ErrImagePull", "x" * 5000)))
    assert trouble is not None
    assert "xxx" in trouble.message
    assert len(trouble.message) < 500


def of_role(role: str, message: str, **state: Any) -> dict[str, Any]:
    """Return the Pod of a role whose container has ended with a message for kubelet."""
    container = crashed(3)
    container["lastState"]["terminated"]["message"] = message
    pod = troubled({**container, **state})
    return {**pod, "metadata": {**pod["metadata"], "labels": {labels.ROLE: role}}}


@pytest.mark.parametrize("role", ["store", "clone", "scratch", "prepare"])
def test_a_script_of_an_engine_is_quoted_in_its_own_words_instead_of_kubelets(role):
    trouble = find_trouble(of_role(role, "the volume is a copy\nof another snapshot\n"))
    assert trouble is not None
    assert "(the volume is a copy of another snapshot)" in trouble.message
    assert "back-off" not in trouble.message


@pytest.mark.parametrize("role", [LOAD_ROLE, MASK_ROLE, MIGRATE_ROLE, ""])
def test_a_users_program_is_not_quoted_for_its_words_may_be_rows(role):
    pod = of_role(role, "duplicate key 4111")
    trouble = find_trouble(pod)
    assert trouble is not None
    assert "4111" not in trouble.message
    ended = {"state": {"terminated": {"exitCode": 1, "message": "duplicate key 4111"}}}
    assert reason_of_failure(of_role(role, "", **ended)) == ""


def test_a_reason_is_told_in_one_line_of_bounded_length():
    ended = {"state": {"terminated": {"exitCode": 1, "message": "no\n" * 1000}}}
    reason = reason_of_failure(of_role("prepare", "", **ended))
    assert reason.startswith("no no ")
    assert len(reason) == MAX_REASON + len("...")


def test_a_pod_that_says_nothing_gives_no_reason():
    assert reason_of_failure(troubled({"name": "engine", "state": {"terminated": {"exitCode": 137}}})) == ""
    assert reason_of_failure(troubled()) == ""
