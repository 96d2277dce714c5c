"""The main story as the examples tell it: only `kubectl apply` and `kubectl wait`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e import story
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

TRACK = 1


def test_a_preview_app_runs_on_its_own_copy_of_the_data(kube: Kube) -> None:
    cluster = kube.cluster
    kube.delete_namespace(story.PREVIEW)
    kube.delete_namespace(story.OWNERS)

    story.apply_owners(cluster)
    story.wait_for_owners(cluster)
    story.apply_preview(cluster)
    story.wait_for_clone(cluster)
    story.wait_for_app(cluster)

    shop, preview = story.Shop(cluster, story.OWNERS), story.Shop(cluster, story.PREVIEW)
    assert preview.track(TRACK) == shop.track(TRACK)

    preview.reprice(TRACK, 7.77)
    assert str(preview.track(TRACK)["UnitPrice"]) == "7.77"
    assert str(shop.track(TRACK)["UnitPrice"]) == "0.99"

    story.delete_clone(cluster)
    eventually(lambda: not story.leftovers(cluster), "nothing is left of the clone")
    assert str(shop.track(TRACK)["UnitPrice"]) == "0.99"
