"""Somebody who has the role `edit` in one namespace, a kubeconfig, and the `coppice` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from e2e.suite.manifests import PROGRAMS

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

NAME = "editor"
COMMAND = (sys.executable, "-m", "coppice")


@dataclass(frozen=True, slots=True)
class Editor:
    """A person with the command; what they may is what Kubernetes' own role gives them."""

    kubeconfig: Path

    @classmethod
    def of(cls, kube: Kube, namespace: str, directory: Path) -> Editor:
        """Let somebody work in a namespace."""
        kube.run("create", "serviceaccount", NAME, "-n", namespace)
        subject = f"--serviceaccount={namespace}:{NAME}"
        kube.run("create", "rolebinding", NAME, "-n", namespace, "--clusterrole=edit", subject)
        token = kube.run("create", "token", NAME, "-n", namespace).strip()
        known = json.loads(kube.run("config", "view", "--minify", "--flatten", "--raw", "-o", "json"))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": NAME,
            "clusters": [{"name": NAME, "cluster": known["clusters"][0]["cluster"]}],
            "users": [{"name": NAME, "user": {"token": token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}],
        }
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        path.chmod(0o600)
        return cls(path)

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command, which has to end with this code."""
        done = subprocess.run(
            [*COMMAND, *words],
            check=False,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, f"coppice {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command; what it tells comes by ``stderr``."""
        environment, quiet = self._environment, subprocess.DEVNULL
        return subprocess.Popen(
            [*COMMAND, *words], env=environment, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True
        )

    def json(self, *words: str) -> Any:
        """Run the command and return its result."""
        return json.loads(self.run(*words, "--output", "json").stdout)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def query(statement: str) -> list[str]:
    """Return the command that asks the database in its environment for some rows."""
    return [sys.executable, str(PROGRAMS / "query.py"), statement]
