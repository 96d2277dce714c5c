"""The fake must refuse what the API server refuses, or plans are tested in a world that does not exist."""

import pytest
from tests.fakes.kube import Crash, FakeKube

from coppice.core.plan import Ref
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TransientError,
)


def clone(**spec):
    return {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataClone",
        "metadata": {"name": "db", "namespace": "app"},
        "spec": spec,
    }


def service(**ports):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "app", "labels": {"app": "db"}},
        "spec": {"selector": {"a": "b"}, **ports},
    }


def with_uid(manifest, uid):
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}}


async def test_apply_with_uid_never_makes_or_takes_over_an_object():
    kube = FakeKube()
    with pytest.raises(ConflictError):
        await kube.apply(with_uid(service(), "uid-of-old"))
    made = await kube.apply(service())
    with pytest.raises(ConflictError):
        await kube.apply(with_uid(service(), "uid-of-old"))
    assert await kube.apply(with_uid(service(), made["metadata"]["uid"])) == made


async def test_what_an_apply_leaves_out_goes_unless_somebody_else_owns_it():
    kube = FakeKube()
    await kube.apply(service(clusterIP="None"))
    kube.change("Service", "app", "db", lambda found: found["spec"].update(type="ClusterIP"))
    found = await kube.apply(service())
    assert found["spec"] == {"selector": {"a": "b"}, "type": "ClusterIP"}


async def test_pruning_takes_away_what_others_own_from_the_version_that_was_read_only():
    kube = FakeKube()
    await kube.apply(service(clusterIP="None"))
    edited = kube.change("Service", "app", "db", lambda found: found["spec"].update(type="ClusterIP"))
    patch = {**edited, "spec": {"type": None}}
    stale = {**patch, "metadata": {**edited["metadata"], "resourceVersion": "0"}}
    with pytest.raises(ConflictError):
        await kube.prune(stale)
    assert (await kube.prune(patch))["spec"] == {"selector": {"a": "b"}, "clusterIP": "None"}
    assert (await kube.apply(service()))["spec"] == {"selector": {"a": "b"}}
    kube.remove("Service", "app", "db")
    with pytest.raises(NotFoundError):
        await kube.prune(patch)


async def test_an_equal_apply_changes_nothing():
    kube = FakeKube()
    seen = []
    made = await kube.apply(service())
    kube.subscribe(lambda kind, manifest: seen.append(kind))
    assert await kube.apply(service()) == made
    assert seen == []


async def test_without_force_another_managers_field_is_a_conflict():
    kube = FakeKube()
    await kube.apply(service(clusterIP="None"), manager="other")
    with pytest.raises(ConflictError, match=r"spec\.clusterIP is owned by other"):
        await kube.apply(service(clusterIP=""), force=False)
    forced = await kube.apply(service(clusterIP=""))
    assert forced["spec"]["clusterIP"] == ""


async def test_finalizers_are_a_set_with_an_owner_each():
    kube = FakeKube(clone())
    kube.change("DataClone", "app", "db", lambda found: found["metadata"].update(finalizers=["theirs"]))
    bare = clone()
    del bare["spec"]
    ours = {**bare, "metadata": {**bare["metadata"], "finalizers": ["coppice.dev/cleanup"]}}
    await kube.apply(ours, manager="coppice-finalizer")
    assert kube.peek("DataClone", "app", "db")["metadata"]["finalizers"] == ["theirs", "coppice.dev/cleanup"]
    await kube.apply(bare, manager="coppice-finalizer")
    assert kube.peek("DataClone", "app", "db")["metadata"]["finalizers"] == ["theirs"]


async def test_a_finalizer_holds_a_deleted_object_until_it_is_removed():
    held = clone()
    held["metadata"]["finalizers"] = ["coppice.dev/cleanup"]
    kube = FakeKube()
    await kube.apply(held, manager="coppice-finalizer")
    kube.remove("DataClone", "app", "db")
    assert "deletionTimestamp" in kube.peek("DataClone", "app", "db")["metadata"]
    await kube.apply(clone(), manager="coppice-finalizer")
    assert kube.peek("DataClone", "app", "db") is None


async def test_status_is_written_only_through_its_subresource_and_bumps_no_generation():
    kube = FakeKube(clone(profile="default"))
    await kube.apply({**clone(), "status": {"phase": "x"}})
    assert "status" not in kube.peek("DataClone", "app", "db")
    conditions = [
        {"type": "Ready", "status": "False", "reason": "Wait"},
        {"type": "Bound", "status": "True", "reason": "Yes"},
    ]
    await kube.apply({**clone(), "status": {"conditions": conditions}}, manager="coppice-status", subresource="status")
    await kube.apply(
        {**clone(), "status": {"conditions": conditions[1:]}}, manager="coppice-status", subresource="status"
    )
    found = kube.peek("DataClone", "app", "db")
    assert found["status"]["conditions"] == conditions[1:]
    assert found["metadata"]["generation"] == 1
    assert found["spec"] == {"profile": "default"}


async def test_only_a_change_of_specification_is_a_new_generation():
    kube = FakeKube(clone(profile="default"))
    kube.change("DataClone", "app", "db", lambda found: found["metadata"].update(annotations={"a": "b"}))
    assert kube.peek("DataClone", "app", "db")["metadata"]["generation"] == 1
    kube.change("DataClone", "app", "db", lambda found: found["spec"].update(profile="large"))
    assert kube.peek("DataClone", "app", "db")["metadata"]["generation"] == 2


async def test_a_deleted_job_outlasts_its_pods():
    kube = FakeKube()
    job = await kube.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "load", "namespace": "app"}})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "load", "uid": job["metadata"]["uid"]}
    kube.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "load-1", "namespace": "app", "ownerReferences": [owner], "finalizers": ["kubelet"]},
        }
    )
    await kube.delete(Ref.of(job))
    kube.collect_garbage()
    assert kube.peek("Job", "app", "load") is not None
    kube.change("Pod", "app", "load-1", lambda found: found["metadata"].update(finalizers=[]))
    kube.collect_garbage()
    assert kube.all(None, "app") == []


async def test_create_refuses_a_taken_name_and_delete_another_uid():
    kube = FakeKube()
    made = await kube.create(service())
    with pytest.raises(AlreadyExistsError):
        await kube.create(service())
    await kube.delete(Ref("v1", "Service", "db", "uid-of-old", "app"))
    assert kube.peek("Service", "app", "db") is not None
    await kube.delete(Ref.of(made))
    assert kube.peek("Service", "app", "db") is None
    await kube.delete(Ref.of(made))


async def test_claims_grow_and_do_nothing_else():
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "db", "namespace": "app"},
        "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
    }
    kube = FakeKube()
    await kube.create(claim)
    await kube.apply({**claim, "spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    with pytest.raises(InvalidError):
        await kube.apply({**claim, "spec": {"storageClassName": "slow"}})


async def test_garbage_goes_with_its_last_owner():
    kube = FakeKube(clone())
    uid = kube.peek("DataClone", "app", "db")["metadata"]["uid"]
    owned = service()
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "coppice.dev/v1alpha1", "kind": "DataClone", "name": "db", "uid": uid}
    ]
    await kube.create(owned)
    kube.collect_garbage()
    assert kube.peek("Service", "app", "db") is not None
    kube.remove("DataClone", "app", "db")
    kube.collect_garbage()
    assert kube.all() == []


async def test_nothing_is_made_in_a_dying_namespace():
    kube = FakeKube(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app", "finalizers": ["kubernetes"]}}
    )
    kube.remove_namespace("app")
    with pytest.raises(ForbiddenError, match="terminated"):
        await kube.create(service())


async def test_faults_come_at_the_call_they_are_set_for():
    kube = FakeKube()
    kube.fail_at(1, TransientError("slow down", status=429, retry_after=3))
    with pytest.raises(TransientError):
        await kube.create(service())
    assert kube.all() == []
    kube.crash_after(1)
    with pytest.raises(Crash):
        await kube.create(service())
    assert len(kube.all()) == 1


async def test_secrets_are_stored_encoded_and_immutable_ones_stay():
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "app"},
        "immutable": True,
        "stringData": {"password": "x"},
    }
    kube = FakeKube()
    made = await kube.create(secret)
    assert made["data"] == {"password": "eA=="}
    with pytest.raises(InvalidError):
        await kube.apply({**secret, "stringData": {"password": "y"}})


async def test_a_kind_whose_definition_is_not_installed_is_not_found():
    kube = FakeKube()
    kube.missing_kinds.add("VolumeSnapshot")
    with pytest.raises(NotFoundError):
        await kube.list("VolumeSnapshot", "app")


async def test_lists_match_all_labels():
    kube = FakeKube(service())
    assert await kube.list("Service", "app", {"app": "db"})
    assert not await kube.list("Service", "app", {"app": "db", "more": "x"})
    assert not await kube.list("Service", "other")
