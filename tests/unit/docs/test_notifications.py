"""What the example has Argo CD tell of a preview."""

from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).parents[3] / "examples/argocd/notifications.yaml"
STATES = {"error", "failure", "pending", "success"}
"""A commit status is one of them."""


def parts(kind: str) -> dict[str, Any]:
    data = yaml.safe_load(EXAMPLE.read_text())["data"]
    return {name.partition(".")[2]: yaml.safe_load(text) for name, text in data.items() if name.startswith(f"{kind}.")}


def test_each_condition_has_its_template_and_each_template_its_condition() -> None:
    sent = [name for conditions in parts("trigger").values() for entry in conditions for name in entry["send"]]
    assert sorted(sent) == sorted(parts("template"))


def test_the_head_subscribes_to_a_trigger_that_is_there() -> None:
    [trigger] = parts("trigger")
    assert f"notifications.argoproj.io/subscribe.{trigger}.github" in EXAMPLE.read_text()


def test_a_status_follows_the_preview_in_its_place() -> None:
    statuses = [template["github"]["status"] for template in parts("template").values()]
    assert {status["state"] for status in statuses} <= STATES
    assert len({status["label"] for status in statuses}) == 1, "another label would leave the last state standing"
