"""What the owners of a store have in hand: their consent and its terms, what clones get, and the store's own end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from e2e.suite.data import Clone
from e2e.suite.manifests import data_grant
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.kube import Kube

COUNT = "SELECT COUNT(*) AS items FROM item"
GRANT = "previews"


def grant(kube: Kube, store: Store, tenant: str, **terms: Any) -> None:
    """Give the tenant's namespace clones on these terms."""
    kube.apply(data_grant(GRANT, store.namespace, store=store.name, to=[tenant], **terms))


@pytest.fixture(scope="module")
def clone(kube: Kube, store: Store, tenant: str) -> Clone:
    """A clone that somebody has written to, and that asks for three days."""
    clone = Clone(kube, tenant).apply(store, lease={"max": "3d"}).ready()
    clone.sql("INSERT INTO item VALUES (99, 'mine', 1)")
    return clone


def test_a_grant_that_is_revoked_stops_the_server_and_a_new_one_brings_the_data_back(
    kube: Kube, store: Store, tenant: str, clone: Clone
) -> None:
    told = clone.binding
    kube.run("delete", "-n", store.namespace, f"dgrant/{GRANT}")
    said = kube.until_reason("GrantRevoked", "dclone", clone.name, tenant)
    assert f"no DataGrant in namespace {store.namespace}" in said["message"]
    assert kube.condition("dclone", clone.name, tenant, "Stalled")["status"] == "True"
    eventually(lambda: not clone.pods, "its server is gone")
    [claim] = kube.items("pvc", "-n", tenant, "-l", f"coppice.dev/owner-uid={clone.uid}")
    assert claim["status"]["phase"] == "Bound"

    grant(kube, store, tenant)
    clone.ready()
    assert clone.sql(COUNT) == [{"items": 4}]
    assert clone.binding == told


def test_a_clone_too_many_waits_for_its_place(kube: Kube, store: Store, tenant: str, clone: Clone) -> None:
    grant(kube, store, tenant, maxClones={"perNamespace": 2})
    first = Clone(kube, tenant, "first").apply(store).ready()
    second = Clone(kube, tenant, "second").apply(store)
    said = kube.until_reason("Queued", "dclone", second.name, tenant)
    assert f"DataGrant {GRANT} has no room: place 1 in the queue" in said["message"]
    assert kube.owned_by(second.uid) == []
    assert clone.reason == first.reason == "Ready"

    first.delete()
    second.ready()
    assert second.sql(COUNT) == [{"items": 3}]
    second.delete()


def test_a_grant_with_a_shorter_lease_shortens_those_that_run(
    kube: Kube, store: Store, tenant: str, clone: Clone
) -> None:
    assert not kube.condition("dclone", clone.name, tenant, "LeaseGranted")
    grant(kube, store, tenant, maxLease="1h")
    eventually(
        lambda: kube.reason("dclone", clone.name, tenant, "LeaseGranted") == "LeaseShortened",
        "the clone says that it gets less than it asks for",
    )
    assert "lease.max 3d" in kube.condition("dclone", clone.name, tenant, "LeaseGranted")["message"]
    status = clone.status
    ends, begun = datetime.fromisoformat(status["expiresAt"]), datetime.fromisoformat(status["renewedAt"])
    assert ends - begun == timedelta(hours=1)
    assert clone.reason == "Ready"


def test_a_clone_runs_where_the_store_says(kube: Kube, store: Store, tenant: str) -> None:
    selector = {"kubernetes.io/os": "linux"}
    kube.patch("dstore", store.name, store.namespace, {"spec": {"clones": {"nodeSelector": selector}}})
    placed = Clone(kube, tenant, "placed").apply(store).ready()
    assert placed.pod["spec"]["nodeSelector"] == selector
    placed.delete()


def test_an_alias_that_lost_its_snapshot_before_anybody_protected_that_goes_with_its_clone(
    kube: Kube, store: Store, tenant: str
) -> None:
    """What is left where a clone is deleted while its volume is asked for: nobody tells the storage's sidecar."""
    doomed = Clone(kube, tenant, "doomed").apply(store).ready()
    contents = kube.items("volumesnapshotcontents")
    prepared = next(entry for entry in contents if entry["spec"]["volumeSnapshotRef"]["namespace"] == store.namespace)
    alias = f"coppice-{doomed.uid}"
    kube.apply(
        {
            **{key: prepared[key] for key in ("apiVersion", "kind")},
            "metadata": {
                "name": alias,
                "labels": {
                    "app.kubernetes.io/managed-by": "coppice",
                    "coppice.dev/owner-kind": "DataClone",
                    "coppice.dev/owner-name": doomed.name,
                    "coppice.dev/owner-namespace": tenant,
                    "coppice.dev/owner-uid": doomed.uid,
                },
                "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
            },
            "spec": {
                "deletionPolicy": "Retain",
                "driver": prepared["spec"]["driver"],
                "source": {"snapshotHandle": prepared["status"]["snapshotHandle"]},
                "volumeSnapshotClassName": prepared["spec"]["volumeSnapshotClassName"],
                "volumeSnapshotRef": {"name": "gone", "namespace": tenant, "uid": str(UUID(int=0))},
            },
        }
    )
    doomed.delete()
    assert kube.get("volumesnapshotcontent", alias) is None


def test_a_clone_outlives_its_store_and_serves_on(kube: Kube, store: Store, tenant: str, clone: Clone) -> None:
    told, pod = clone.binding, clone.pod["metadata"]["uid"]
    kube.run("delete", "-n", store.namespace, f"dstore/{store.name}", "--wait", "--timeout=120s")
    eventually(
        lambda: kube.reason("dclone", clone.name, tenant, "SourceReady") == "SourceGone",
        "the clone says that its source is gone",
    )
    assert clone.reason == "Ready"
    assert clone.sql(COUNT) == [{"items": 4}]
    assert clone.binding == told
    late = Clone(kube, tenant, "late").apply(store)
    said = kube.until_reason("StoreNotFound", "dclone", late.name, tenant)
    assert f"DataStore {store.name}" in said["message"]
    assert kube.owned_by(late.uid) == []
    assert kube.get("pvc", f"{store.name}-data", store.namespace) is not None

    store.create()
    late.ready()
    assert late.sql(COUNT) == [{"items": 3}]
    eventually(
        lambda: kube.reason("dclone", clone.name, tenant, "SourceReady") == "StoreReady",
        "the clone has its source again",
    )
    assert clone.pod["metadata"]["uid"] == pod
