"""The restore that docs/backup.md describes, done with the manifest that stands there."""

from __future__ import annotations

import re
from copy import deepcopy
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


async def test_a_snapshot_made_anew_neither_takes_nor_replaces_what_was_kept_of_one_before():
    story = Story()
    story.store()
    await story.settle()
    story.snapshot("monday")
    await story.settle()
    kept = deepcopy(story.get("VolumeSnapshot", "monday"))
    del kept["metadata"]["ownerReferences"], kept["metadata"]["resourceVersion"]
    story.delete("DataSnapshot", "monday")
    await story.settle()
    story.kube.add(kept)
    uid = story.get("VolumeSnapshot", "monday")["metadata"]["uid"]

    story.snapshot("monday")
    await story.settle()
    message = story.expect_stalled("DataSnapshot", "monday", "NameConflict")
    assert "kubectl delete volumesnapshot monday -n data" in message
    assert story.get("VolumeSnapshot", "monday")["metadata"]["uid"] == uid
