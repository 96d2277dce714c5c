"""A bound to what a clone writes of its own: where there is none the store says so, and a clone that is full starts
again. On coppice-local, whose StorageClasses have such a bound.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import pytest

from e2e.harness.shell import CommandError
from e2e.suite.data import Clone, Store
from e2e.suite.pool import Pool
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube

CLASS = "coppice-e2e-bounded"
OWN_BYTES = "16Mi"
BOUNDED, LEFT = "ClonesBounded", "OwnBytesLeft"
ENOUGH = 30
"""More rows than go into a copy and its headroom."""


def class_like_the_stores(kube: Kube, store: Store) -> dict[str, Any]:
    """Return the StorageClass that an administrator makes for the bound."""
    claim = kube.get("pvc", f"{store.name}-data", store.namespace)
    assert claim is not None
    found = kube.get("storageclass", claim["spec"]["storageClassName"])
    assert found is not None
    same = ("apiVersion", "kind", "provisioner", "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion")
    parameters = {**found.get("parameters", {}), "ownBytes": OWN_BYTES, "ownBytesHeadroom": OWN_BYTES}
    return {**{key: found[key] for key in same}, "metadata": {"name": CLASS}, "parameters": parameters}


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str) -> Store:
    """A store whose clones shall be bounded, in a cluster without a class for that."""
    Pool.of(kube)
    kube.run("delete", "storageclass", CLASS, "--ignore-not-found")
    store = Store(kube, owners).create(clones={"ownBytes": OWN_BYTES})
    store.commit("CREATE TABLE ballast (id INT PRIMARY KEY AUTO_INCREMENT, bytes LONGTEXT NOT NULL)", "a table")
    return store


@pytest.fixture(scope="module")
def bounded(kube: Kube, store: Store) -> Iterator[Store]:
    """The store, in a cluster that has the class."""
    kube.apply(class_like_the_stores(kube, store))
    until(kube, store, "OwnBytesBounded")
    yield store
    kube.run("delete", "storageclass", CLASS)


def until(kube: Kube, store: Store, reason: str) -> dict[str, Any]:
    """Wait until the store says this of its bound; return the condition."""
    return kube.until_reason(reason, "dstore", store.name, store.namespace, BOUNDED)


def flood(clone: Clone) -> int:
    """Write rows that cannot be compressed until no more go in; return how many were acknowledged."""
    for written in range(ENOUGH):
        row = base64.b64encode(os.urandom(3_000_000)).decode()
        try:
            clone.sql(f"INSERT INTO ballast (bytes) VALUES ('{row}')")
        except CommandError:
            return written
    raise AssertionError("nothing bounds the clone")


def rows(clone: Clone) -> int:
    """Return how many rows the clone has."""
    return int(clone.sql("SELECT COUNT(*) AS found FROM ballast")[0]["found"])


def warnings(kube: Kube, kind: str, name: str, namespace: str, reason: str) -> list[str]:
    """Return the types of the Events of an object that have this reason, once there are any."""
    return eventually(
        lambda: [event["type"] for event in kube.events(kind, name, namespace) if event["reason"] == reason],
        f"there is an Event {reason}",
    )


def claim_class(kube: Kube, clone: Clone) -> str:
    """Return the StorageClass of the clone's claim."""
    [claim] = kube.items("pvc", "-n", clone.namespace, "-l", f"coppice.dev/owner-uid={clone.uid}")
    return str(claim["spec"]["storageClassName"])


def test_without_such_a_class_the_store_says_so_and_clones_are_made(kube: Kube, store: Store, tenant: str) -> None:
    said = until(kube, store, "OwnBytesUnbounded")
    assert said["status"] == "False"
    assert f"parameters.ownBytes: {OWN_BYTES}" in said["message"]
    assert warnings(kube, "DataStore", store.name, store.namespace, said["reason"]) == ["Warning"]
    clone = Clone(kube, tenant, "unbounded").apply(store).ready()
    assert claim_class(kube, clone) != CLASS


def test_a_full_clone_starts_again_once_and_a_reset_makes_room(kube: Kube, bounded: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "full").apply(bounded).ready()
    assert claim_class(kube, clone) == CLASS
    first = clone.pod["metadata"]["uid"]

    acknowledged = flood(clone)
    assert acknowledged > 0
    eventually(lambda: kube.condition("dclone", clone.name, tenant, LEFT), "the clone says that it has no room left")
    second = eventually(lambda: replaced(clone, first), "the clone has a new Pod")
    clone.ready()
    assert rows(clone) >= acknowledged
    assert warnings(kube, "DataClone", clone.name, tenant, "OwnBytesUsedUp") == ["Warning"]

    flood(clone)
    said = kube.until_reason("OwnBytesUsedUp", "dclone", clone.name, tenant)
    assert "reset" in said["message"]
    assert clone.pod["metadata"]["uid"] == second

    clone.request("reset")
    eventually(lambda: clone.status.get("copy") == "2", "the clone has another copy")
    clone.ready()
    assert rows(clone) == 0
    eventually(lambda: not kube.condition("dclone", clone.name, tenant, LEFT), "there is nothing to say any more")


def replaced(clone: Clone, before: str) -> str:
    """Return the UID of the clone's Pod if it is another one than before."""
    found = [str(pod["metadata"]["uid"]) for pod in clone.pods if "deletionTimestamp" not in pod["metadata"]]
    return next((uid for uid in found if uid != before), "")
