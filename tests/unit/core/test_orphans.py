"""What counts as left behind, and what may be removed: by example, and by any mixture of objects."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import handover_name
from coppice.core.orphans import KINDS, MADE_FOR, find_orphans, in_order
from coppice.kube.resources import RESOURCES
from coppice.manifests.meta import Owner, build_metadata

OWNER = Owner("coppice.dev/v1alpha1", "DataClone", "db", "app", "uid-gone")
STORE = Owner("coppice.dev/v1alpha1", "DataStore", "shop", "app", "uid-gone")
SNAPSHOT = Owner("coppice.dev/v1alpha1", "DataSnapshot", "shop-00001", "app", "uid-gone")
REQUEST = Owner("coppice.dev/v1alpha1", "DataChangeRequest", "fix", "app", "uid-gone")


def made(kind="Pod", owner=OWNER, uid="uid-child", **metadata):
    namespace = None if RESOURCES[kind].namespaced else ""
    found = {"apiVersion": RESOURCES[kind].api_version, "kind": kind, "spec": {}}
    found["metadata"] = {**build_metadata("child", owner, namespace=namespace), "uid": uid, **metadata}
    if kind == "VolumeSnapshotContent":
        found["spec"]["deletionPolicy"] = "Retain"
    return found


def captured(meant, namespace, **metadata):
    """Return what a commit has in its clone's namespace, if that is what is ``meant``."""
    found = made("VolumeSnapshot", SNAPSHOT, ownerReferences=None)
    name = handover_name(SNAPSHOT.uid, meant)
    found["metadata"] = {**found["metadata"], "name": name, "namespace": namespace, **metadata}
    return found


def relabelled(**changes):
    found = made()
    for key, value in changes.items():
        found["metadata"]["labels"][getattr(labels, key)] = value
    return found


@pytest.mark.parametrize("owner", [OWNER, SNAPSHOT, REQUEST], ids=lambda owner: owner.kind)
def test_what_was_made_for_an_owner_that_is_gone_is_an_orphan(owner):
    for kind in MADE_FOR[owner.kind]:
        [found] = find_orphans([made(kind, owner)], alive={"uid-other"})
        assert (found.owner, found.owner_uid) == (Key(owner.kind, "app", owner.name), "uid-gone")
        assert found.uid == "uid-child"
        assert found.is_removable


def test_the_way_to_a_clone_elsewhere_that_a_request_has_left_is_one():
    way = made("NetworkPolicy", REQUEST, ownerReferences=None)
    way["metadata"] |= {"name": handover_name(REQUEST.uid, "preview"), "namespace": "preview"}
    [found] = find_orphans([way], alive={"uid-other"})
    assert found.owner == Key("DataChangeRequest", "app", "fix")
    assert find_orphans([way], alive={"uid-gone"}) == ()


def test_what_a_commit_has_left_in_its_clones_namespace_is_one():
    [found] = find_orphans([captured("preview", "preview")], alive={"uid-other"})
    assert found.owner == Key("DataSnapshot", "app", SNAPSHOT.name)
    assert found.is_removable
    assert find_orphans([captured("preview", "preview")], alive={"uid-gone"}) == ()


def released(uid):
    return made("PersistentVolumeClaim", ownerReferences=None, annotations={labels.RELEASED: uid})


def test_what_its_owners_finalizer_was_to_remove_is_one():
    [found] = find_orphans([released("uid-child")], alive={"uid-other"})
    assert found.is_removable
    assert find_orphans([released("uid-child")], alive={"uid-gone"}) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_a_living_owner_is_none(kind):
    assert find_orphans([made(kind)], alive={"uid-gone"}) == ()


def test_what_says_no_more_who_manages_it_is_one():
    found = made()
    del found["metadata"]["labels"][labels.MANAGED_BY]
    assert len(find_orphans([found], alive=set())) == 1


@pytest.mark.parametrize("kind", ["Pod", "Service", "Secret", "PersistentVolumeClaim", "VolumeSnapshot"])
def test_what_a_store_leaves_is_none(kind):
    assert find_orphans([made(kind, STORE)], alive=set()) == ()


def mirrored(mark='{"store": "uid-gone"}', **metadata):
    found = made("PersistentVolumeClaim", STORE, name="shop-mirror-00002", annotations={labels.MIRRORED: mark})
    del found["metadata"]["ownerReferences"]
    found["metadata"].update(metadata)
    return found


def test_a_copy_that_a_mirror_has_not_finished_is_one():
    [found] = find_orphans([mirrored()], alive={"uid-other"})
    assert (found.owner, found.is_removable) == (Key("DataStore", "app", "shop"), True)
    assert find_orphans([mirrored()], alive={"uid-gone"}) == ()


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(mirrored('{"store": "uid-gone", "held": {}}'), id="complete"),
        pytest.param(mirrored('{"store": "uid-gone", "held": null}'), id="somebody changed the mark"),
        pytest.param(mirrored("nonsense"), id="nonsense"),
        pytest.param(mirrored("[]"), id="no mark"),
        pytest.param(mirrored("{}"), id="an empty mark"),
        pytest.param(mirrored(annotations=None), id="without a mark"),
        pytest.param(mirrored(name="shop-data"), id="of another name"),
        pytest.param(mirrored(namespace="elsewhere"), id="in another namespace"),
        pytest.param(mirrored(ownerReferences=[{"uid": "uid-else"}]), id="needed by somebody else"),
    ],
)
def test_any_other_claim_of_a_store_is_none(found):
    assert find_orphans([found], alive=set()) == ()


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(relabelled(MANAGED_BY="helm"), id="managed by somebody else"),
        pytest.param(relabelled(OWNER_KIND="DataStore"), id="a store's"),
        pytest.param(relabelled(OWNER_KIND="DataGrant"), id="of a kind that has nothing"),
        pytest.param(relabelled(OWNER_NAME=""), id="without an owner's name"),
        pytest.param(relabelled(OWNER_UID=""), id="without an owner's UID"),
        pytest.param(relabelled(OWNER_NAMESPACE="elsewhere"), id="copied to another namespace"),
        pytest.param(made(ownerReferences=[]), id="kept by --cascade=orphan"),
        pytest.param(
            released("uid-of-another"), id="restored from a backup of what its owner's finalizer was to remove"
        ),
        pytest.param(made(ownerReferences=[{"uid": "uid-gone"}, {"uid": "uid-else"}]), id="needed by somebody else"),
        pytest.param(made(ownerReferences=[{"uid": "uid-else"}]), id="taken over"),
        pytest.param(made("StorageClass", SNAPSHOT), id="not made so"),
        pytest.param(captured("preview", "elsewhere"), id="what was made for another namespace, copied to a third"),
        pytest.param(captured("app", "app"), id="what is in the owner's own namespace, without a reference"),
        pytest.param(captured("preview", "preview", ownerReferences=[{"uid": "uid-else"}]), id="that, taken over"),
        pytest.param({"kind": "Pod", "metadata": {"name": "x", "namespace": "app", "uid": "u"}}, id="without labels"),
    ],
)
def test_what_somebody_else_has_a_hand_in_is_none(found):
    assert find_orphans([found], alive=set()) == ()


def test_a_content_that_takes_the_backends_snapshot_with_it_is_counted_and_kept():
    content = made("VolumeSnapshotContent")
    content["spec"]["deletionPolicy"] = "Delete"
    [found] = find_orphans([content], alive=set())
    assert not found.is_removable


def test_what_is_being_deleted_is_counted_and_left_to_its_finalizers():
    [found] = find_orphans([made(deletionTimestamp="2030-01-01T12:00:00Z")], alive=set())
    assert not found.is_removable


def test_users_go_before_what_they_use():
    owners = {kind: OWNER if kind in MADE_FOR["DataClone"] else SNAPSHOT for kind in KINDS}
    found = find_orphans([made(kind, owners[kind]) for kind in reversed(KINDS)], alive=set())
    assert [orphan.manifest["kind"] for orphan in in_order(found)] == list(KINDS)
    assert all(set(kinds) <= set(KINDS) for kinds in MADE_FOR.values())


def any_object(kind, owner_kind, uid, policy):
    found = copy.deepcopy(made(kind, Owner("coppice.dev/v1alpha1", owner_kind, "x", "app", uid)))
    found["spec"]["deletionPolicy"] = policy
    return found


UIDS = st.sampled_from(["u1", "u2", "u3"])
OBJECTS = st.builds(
    any_object,
    st.sampled_from(KINDS),
    st.sampled_from(["DataStore", "DataSnapshot", "DataClone", "DataBranch"]),
    UIDS,
    st.sampled_from(["Retain", "Delete"]),
)


@given(st.lists(OBJECTS, max_size=8), st.sets(UIDS))
def test_never_what_has_a_living_owner_nor_a_stores_nor_bytes_of_others(objects, alive):
    for orphan in find_orphans(objects, alive):
        metadata = orphan.manifest["metadata"]
        assert metadata["labels"][labels.OWNER_UID] not in alive
        assert metadata["labels"][labels.OWNER_KIND] in {"DataSnapshot", "DataClone"}
        if orphan.is_removable and orphan.manifest["kind"] == "VolumeSnapshotContent":
            assert orphan.manifest["spec"]["deletionPolicy"] == "Retain"
