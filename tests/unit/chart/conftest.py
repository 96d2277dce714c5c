"""Renders the chart with the real helm, where there is one."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.harness.settings import from_environment
from tests.fakes.required import lacks

CHART = Path(__file__).parents[3] / "helm" / "coppice"
KUBERNETES = "1.35.0"

Helm = Callable[..., str]
Render = Callable[..., list[dict[str, Any]]]


def _find_helm() -> str | None:
    """$HELM, one in PATH, or one that the harness built (``python -m e2e.harness tools helm``)."""
    built = sorted(from_environment(os.environ).bin.glob("helm-*/helm"))
    return os.environ.get("HELM") or shutil.which("helm") or (str(built[-1]) if built else None)


@pytest.fixture(scope="session")
def helm() -> Helm:
    program = _find_helm()
    if program is None:
        lacks("no helm: put it in PATH, or run python -m e2e.harness tools helm")

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    @functools.cache
    def rendered(*arguments: str) -> str:
        return helm(*arguments)

    def documents(*arguments: str) -> Iterator[dict[str, Any]]:
        return yaml.load_all(rendered(*arguments), Loader=yaml.CSafeLoader)

    def run(*arguments: str, values: str | None = None, apis: Sequence[str] = ()) -> list[dict[str, Any]]:
        options = [f"--kube-version={KUBERNETES}", "--namespace=coppice-system", *arguments]
        options += [f"--values={CHART / 'ci' / values}.yaml"] if values else []
        options += [f"--api-versions={api}" for api in apis]
        return [document for document in documents("template", "coppice", str(CHART), *options) if document]

    return run
