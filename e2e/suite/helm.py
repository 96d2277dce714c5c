"""The release of the chart, as an administrator has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.harness import shell, toolchain
from e2e.harness.settings import from_environment

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

CHART = Path(__file__).parents[2] / "helm" / "coppice"
RELEASE = "coppice"
NAMESPACE = "--namespace=coppice-system"
PATIENCE = ("--wait", "--timeout=3m")


@dataclass(frozen=True, slots=True)
class Helm:
    """Helm, against the suite's cluster."""

    kube: Kube

    def run(self, *words: str, stdin: str | None = None) -> str:
        """Run helm and return what it prints. Raises CommandError."""
        program = toolchain.installed_or_built("helm", from_environment(os.environ))
        return shell.run([program, *words, NAMESPACE], env=self.kube.cluster.environment, stdin=stdin)

    def values(self) -> str:
        """Return the values that the release was installed with."""
        return self.run("get", "values", RELEASE, "--output=yaml")

    def upgrade(self, values: str, *changes: str) -> None:
        """Install or upgrade the release from the checkout's chart."""
        words = ("upgrade", "--install", RELEASE, str(CHART), "--values=-", *changes, *PATIENCE)
        self.run(*words, stdin=values)

    def uninstall(self) -> None:
        """Remove the release."""
        self.run("uninstall", RELEASE, *PATIENCE)
