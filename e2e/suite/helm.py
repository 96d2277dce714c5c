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

    def upgrade(self, values: str, *changes: str, chart: Path = CHART) -> None:
        """Install or upgrade the release, from the checkout's chart unless another is given."""
        words = ("upgrade", "--install", RELEASE, str(chart), "--values=-", *changes, *PATIENCE)
        self.run(*words, stdin=values)

    def rendered(self, values: str) -> str:
        """Return what an upgrade of the release would apply to the cluster as it is."""
        return self.run("upgrade", RELEASE, str(CHART), "--values=-", "--dry-run=server", stdin=values)

    def uninstall(self) -> None:
        """Remove the release."""
        self.run("uninstall", RELEASE, *PATIENCE)
