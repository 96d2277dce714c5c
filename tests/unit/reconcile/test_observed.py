"""What a Pod's status means."""

from __future__ import annotations

from typing import Any

import pytest

from coppice.reconcile.observed import pod_state


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
