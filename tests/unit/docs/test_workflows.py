"""What CI runs exists, and the actions it trusts cannot change under their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def text(request):
    return request.param.read_text()


def test_actions_are_pinned_by_commit_and_say_their_version(text):
    used = re.findall(r"^.*\buses:.*$", text, re.MULTILINE)
    assert used
    assert [line for line in used if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_the_token_may_only_read(text):
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_jobs_end_and_run_everything_that_make_test_does(text):
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = yaml.safe_load(text)["jobs"]
    assert [name for name, job in jobs.items() if "timeout-minutes" not in job] == []
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {
        target for command in commands for target in re.findall(r"\bmake ([a-z][a-z0-9-]*)$", command, re.MULTILINE)
    }
    assert made <= targets
    tested = re.search(r"^test: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tested is not None
    assert set(tested.group(1).split()) <= made


def test_the_version_that_is_replaced_by_the_newest_is_there(text):
    for version, files in re.findall(r"sed --in-place 's/\\b([\d\\.]+)\\b/latest/' (.*)$", text, re.MULTILINE):
        for name in files.split():
            assert re.search(version, (ROOT / name).read_text()), name
