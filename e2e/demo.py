"""`make demo`: the main story on a real cluster, told as it happens, with the time of each step."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from e2e import story
from e2e.install import installed
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.harness.cluster import Cluster

TRACK = 1


def main() -> None:
    """Play the story once."""
    with _step("a Kubernetes cluster with Coppice in it"):
        cluster = installed()
    with _step("the owners declare a store with the Chinook sample data, a branch, and a grant"):
        story.apply_owners(cluster)
        story.wait_for_owners(cluster)
    _show(cluster, story.OWNERS, "dstore,dbranch,dgrant")
    with _step("pull request 42: a clone in another namespace, from a snapshot of the running store"):
        story.apply_preview(cluster)
        story.wait_for_clone(cluster)
    _show(cluster, story.PREVIEW, "dclone")
    with _step("the app in the preview serves"):
        story.wait_for_app(cluster)
    shop, preview = story.Shop(cluster, story.OWNERS), story.Shop(cluster, story.PREVIEW)
    _say(f"    preview shows: {preview.track(TRACK)}")
    with _step("somebody changes a price through the preview"):
        preview.reprice(TRACK, 7.77)
    _say(f"    preview: {preview.track(TRACK)['UnitPrice']}   store: {shop.track(TRACK)['UnitPrice']}")
    if preview.track(TRACK)["UnitPrice"] == shop.track(TRACK)["UnitPrice"]:
        sys.exit("the change reached the store: this must never happen")
    with _step("the clone is deleted, and leaves nothing behind"):
        story.delete_clone(cluster)
        eventually(lambda: not story.leftovers(cluster), "nothing is left of the clone")
    _say(_HOW_TO_LOOK_FURTHER)


def _show(cluster: Cluster, namespace: str, kinds: str) -> None:
    _say("".join(f"    {line}\n" for line in cluster.run_kubectl("get", kinds, "-n", namespace).splitlines()).rstrip())


@contextmanager
def _step(what: str) -> Iterator[None]:
    started = time.monotonic()
    _say(f"\n▶ {what}")
    yield
    _say(f"    {time.monotonic() - started:.1f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


_HOW_TO_LOOK_FURTHER = """
The cluster is still there. To look further:
    eval "$(python3 -m e2e.harness env)"
    kubectl get dstore,dbranch,dsnap,dgrant,dclone -A
    kubectl describe dsnap -n data
    kubectl apply -f examples/quickstart/preview   # the clone again: its snapshot is there, so it is faster now
    kubectl port-forward -n shop-pr-42 service/app 8080:80
To remove it: make cluster-down"""


if __name__ == "__main__":
    main()
