"""What the status of a Pod or Job means."""

from __future__ import annotations

from typing import Any

import pytest

from coppice.reconcile.observed import JobState, job_state, pod_state


def pod(policy: str, phase: str, *states: dict[str, Any]) -> dict[str, Any]:
    statuses = [{"name": f"c{number}", "state": state} for number, state in enumerate(states)]
    return {"spec": {"restartPolicy": policy}, "status": {"phase": phase, "containerStatuses": statuses}}


ENDED = {"terminated": {"exitCode": 0}}
FAILED = {"terminated": {"exitCode": 1}}
RUNS: dict[str, Any] = {"running": {}}


@pytest.mark.parametrize(
    ("manifest", "succeeded"),
    [
        (pod("Never", "Pending"), False),
        (pod("Never", "Running", RUNS), False),
        # Kubelet tells of the program's end long before it calls the Pod Succeeded.
        (pod("Never", "Pending", ENDED), True),
        (pod("Never", "Running", ENDED), True),
        (pod("Never", "Succeeded", ENDED), True),
        (pod("Never", "Running", FAILED), False),
        (pod("Never", "Running", ENDED, RUNS), False),
        (pod("Never", "Running", ENDED, {"waiting": {}}), False),
        # A server's program is started again.
        (pod("Always", "Running", ENDED), False),
    ],
)
def test_when_a_pod_has_done_its_work(manifest, succeeded):
    assert pod_state(manifest).succeeded is succeeded


def job(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "status": {"conditions": [dict(zip(("type", "status", "reason"), each, strict=True)) for each in conditions]}
    }


@pytest.mark.parametrize(
    ("manifest", "state"),
    [
        ({"status": {}}, JobState(succeeded=False, failure=None)),
        (job(("Suspended", "True", "JobSuspended")), JobState(succeeded=False, failure=None)),
        # Its Pods are still ending: whether it counts as failed is not said yet.
        (job(("FailureTarget", "True", "BackoffLimitExceeded")), JobState(succeeded=False, failure=None)),
        (job(("SuccessCriteriaMet", "True", "CompletionsReached")), JobState(succeeded=False, failure=None)),
        (job(("Complete", "True", "CompletionsReached")), JobState(succeeded=True, failure=None)),
        (job(("Complete", "False", "")), JobState(succeeded=False, failure=None)),
        (job(("Failed", "True", "DeadlineExceeded")), JobState(succeeded=False, failure="DeadlineExceeded")),
        (job(("Failed", "False", "DeadlineExceeded")), JobState(succeeded=False, failure=None)),
    ],
)
def test_how_a_job_has_ended(manifest, state):
    assert job_state(manifest) == state
