"""The preview of a pull request without Argo CD: the same manifests, rendered and applied by kubectl.

``IN_WAVES`` is what Argo CD does, by somebody who applies each wave at the moment in which the one before it is
healthy; ``AT_ONCE`` applies everything in one go, and the app's Pod waits for the Secret that it names.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import yaml

from e2e.bench.api import both, named, ready
from e2e.suite.previews import APPLICATION_SET, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from e2e.bench.api import Api, Manifest
    from e2e.harness.cluster import Cluster

IN_WAVES: Final = "kubectl, wave by wave"
AT_ONCE: Final = "kubectl, all at once"
_WAVE: Final = "argocd.argoproj.io/sync-wave"


@dataclass(frozen=True, slots=True)
class ByKubectl:
    """Applies previews; ``checkout`` is the app's repository."""

    api: Api
    cluster: Cluster
    checkout: Path

    async def rendered(self, number: int, sha: str) -> list[Manifest]:
        """Return what Argo CD would apply for a pull request."""
        overlay = write_overlay(self.checkout, number, sha)
        return list(yaml.safe_load_all(await self._kubectl("kustomize", str(overlay))))

    async def apply(self, variant: str, number: int, manifests: Sequence[Manifest]) -> None:
        """Apply a preview."""
        for wave in in_waves(manifests) if variant == IN_WAVES else [manifests]:
            await self._kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(wave))
            if variant == IN_WAVES and any(manifest["kind"] == "DataClone" for manifest in wave):
                where = named(name_of(number), "db")
                await self.api.until("DataClone", both(where, ready), f"the clone of {number} is Ready")

    async def delete(self, manifests: Sequence[Manifest]) -> float:
        """Delete a preview, and return when that was begun."""
        begun = time.time()
        await self._kubectl("delete", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(manifests))
        return begun

    async def _kubectl(self, *words: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.cluster.run_kubectl, *words, stdin=stdin)


def write_overlay(checkout: Path, number: int, sha: str) -> Path:
    """Write what kustomize is to do for a pull request beside the app's repository, and return its folder."""
    overlay = checkout.parent / f"overlay-{number}"
    overlay.mkdir(exist_ok=True)
    preview = os.path.relpath(checkout / "deploy/preview", overlay)
    kustomization = {"resources": [preview], **read_kustomize(APPLICATION_SET.read_text(), number, sha)}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return overlay


def read_kustomize(application_set: str, number: int, sha: str) -> dict[str, Any]:
    """Return what an ApplicationSet has kustomize do for a pull request."""
    [kustomize] = [
        manifest["spec"]["template"]["spec"]["source"]["kustomize"]
        for manifest in yaml.safe_load_all(application_set)
        if manifest["kind"] == "ApplicationSet"
    ]
    text = json.dumps(kustomize).replace("{{.number}}", str(number)).replace("{{.head_sha}}", sha)
    found: dict[str, Any] = json.loads(text)
    return found


def in_waves(manifests: Sequence[Manifest]) -> list[list[Manifest]]:
    """Return manifests in the order of their waves."""
    ordered = sorted(manifests, key=_wave)
    return [list(wave) for _, wave in groupby(ordered, key=_wave)]


def _wave(manifest: Manifest) -> int:
    return int((manifest["metadata"].get("annotations") or {}).get(_WAVE, "0"))
