"""The restore that docs/backup.md describes, done with the manifest that stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from tests.fakes.story import Story

BACKUP = Path(__file__).parents[3] / "docs/backup.md"
SPEC = {"engine": "fake", "managed": {"version": "1.0", "storage": {"size": "2Gi"}}}


def documented_claim(*, engine: str, snapshot: str) -> dict[str, Any]:
    """Return the claim of the guide, for the engine and snapshot of this test."""
    text = re.search(r"```yaml\n(apiVersion: v1\nkind: PersistentVolumeClaim\n.*?)```", BACKUP.read_text(), re.DOTALL)
    assert text is not None
    claim: dict[str, Any] = yaml.safe_load(text.group(1))
    claim["metadata"]["annotations"]["coppice.dev/engine"] = engine
    claim["spec"]["dataSourceRef"]["name"] = snapshot
    return claim


async def test_a_store_is_restored_from_a_snapshot():
    story = Story()
    story.store()
    await story.settle()
    story.commit("alice")
    story.snapshot("monday")
    await story.settle()
    story.commit("mallory")

    story.delete("DataStore", "shop")
    await story.settle()
    story.delete("PersistentVolumeClaim", "shop-data")
    story.delete("Secret", "shop-admin")
    await story.settle()
    story.kube.add(documented_claim(engine="fake", snapshot="monday"))
    story.add("DataStore", "shop", SPEC, "data")
    await story.settle()

    story.expect_ready("DataStore", "shop")
    assert story.world.rows("data", "shop-binding") == {"alice"}
