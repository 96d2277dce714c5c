"""The adapter against a real API server: every rule the reconciliation relies on, as the API server has it."""

import pytest
from tests.fakes.apiserver import ApiServer

from coppice.core import labels
from coppice.core.plan import Ref
from coppice.kube.aio import AioKubeClient
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    TransientError,
)
from coppice.manifests.job import UserJob, build_user_job
from coppice.manifests.meta import Owner

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "dataclones.coppice.dev"},
    "spec": {
        "group": "coppice.dev",
        "names": {"kind": "DataClone", "plural": "dataclones"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {
                                "type": "object",
                                "properties": {
                                    "observedGeneration": {"type": "integer"},
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type"],
                                            "x-kubernetes-preserve-unknown-fields": True,
                                            "properties": {"type": {"type": "string"}},
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="session")
def clones(api_server: ApiServer) -> None:
    api_server.install_crds({"dataclones": WIDGETS})


def secret(namespace, name="db", **data):
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "stringData": data,
    }


def clone(namespace, **fields):
    metadata = {"name": "db", "namespace": namespace}
    return {"apiVersion": "coppice.dev/v1alpha1", "kind": "DataClone", "metadata": metadata, **fields}


def same(manifest, **fields):
    """An apply body for exactly this object."""
    metadata = {key: manifest["metadata"][key] for key in ("name", "namespace", "uid")}
    body = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}
    body["metadata"].update(fields.pop("metadata", {}))
    return {**body, **fields}


async def test_what_is_not_there_is_none_and_a_kind_that_is_not_there_is_an_error(client, namespace):
    assert await client.get("Secret", "db", namespace) is None
    with pytest.raises(NotFoundError):
        await client.get("VolumeSnapshot", "db", namespace)
    with pytest.raises(NotFoundError):
        await client.list("VolumeSnapshot", namespace)


async def test_create_once(client, namespace):
    made = await client.create(secret(namespace, password="x"))
    assert made["kind"] == "Secret"
    assert await client.get("Secret", "db", namespace) == made
    with pytest.raises(AlreadyExistsError):
        await client.create(secret(namespace, password="y"))


async def test_an_object_that_the_server_refuses_is_invalid(client, namespace):
    with pytest.raises(InvalidError, match="Invalid value"):
        await client.create(secret(namespace, name="No Name"))


async def test_apply_with_uid_neither_makes_nor_takes_over(client, namespace):
    """Design invariant 6: an apply that carries metadata.uid cannot re-create what is gone."""
    made = await client.create(secret(namespace, password="x"))
    await client.delete(Ref.of(made))
    with pytest.raises(ConflictError):
        await client.apply(same(made, stringData={"password": "y"}))
    assert await client.get("Secret", "db", namespace) is None
    await client.create(secret(namespace, password="z"))
    with pytest.raises(ConflictError):
        await client.apply(same(made, stringData={"password": "y"}))


async def test_a_status_of_an_object_that_is_gone_is_a_conflict_or_not_found(client, namespace, clones):
    made = await client.create(clone(namespace, spec={}))
    await client.delete(Ref.of(made))
    with pytest.raises((ConflictError, NotFoundError)):
        await client.apply(same(made, status={"observedGeneration": 1}), manager="coppice-status", subresource="status")


async def test_a_status_that_is_guarded_is_written_to_the_object_as_it_was_observed_alone(client, namespace, clones):
    seen = await client.create(clone(namespace, spec={}))
    version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
    status = {"observedGeneration": 1}
    how = {"manager": "coppice-status", "subresource": "status"}
    noted = await client.apply(same(seen, metadata=version, status=status), **how)
    with pytest.raises(ConflictError):
        await client.apply(same(seen, metadata=version, status={"observedGeneration": 2}), **how)
    assert (await client.get("DataClone", "db", namespace))["status"] == status
    version = {"resourceVersion": noted["metadata"]["resourceVersion"]}
    await client.apply(same(seen, metadata=version, status={"observedGeneration": 3}), **how)
    assert (await client.get("DataClone", "db", namespace))["status"] == {"observedGeneration": 3}


async def test_delete_spares_a_recreated_object(client, namespace):
    made = await client.create(secret(namespace))
    await client.delete(Ref.of(made))
    again = await client.create(secret(namespace))
    await client.delete(Ref.of(made))
    assert (await client.get("Secret", "db", namespace))["metadata"]["uid"] == again["metadata"]["uid"]
    await client.delete(Ref.of(again))
    await client.delete(Ref.of(again))


async def test_a_job_made_from_another_is_taken_and_outlasts_its_pods(client, namespace):
    container = {"name": "load", "image": "loader", "env": [{"name": "URL", "value": "$(uri)"}]}
    theirs = await client.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "theirs", "namespace": namespace},
            "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
    )
    owner = Owner("coppice.dev/v1alpha1", "DataStore", "shop", namespace, "11111111-0000-4000-8000-000000000001")
    made = await client.create(build_user_job(UserJob("ours", owner, "load", theirs, "ours", ("uri",), inputs="1")))
    assert (made["spec"]["suspend"], made["spec"]["backoffLimit"]) == (False, 6)
    assert [entry["name"] for entry in made["spec"]["template"]["spec"]["containers"][0]["env"]] == ["uri", "URL"]
    await client.delete(Ref.of(made))
    going = await client.get("Job", "ours", namespace)
    assert "foregroundDeletion" in going["metadata"]["finalizers"]


async def test_finalizers_have_a_manager_of_their_own(client, namespace, clones):
    """Server-side apply with a dedicated manager adds and removes only ours, without read-modify-write."""
    made = await client.create(
        clone(namespace, metadata={"name": "db", "namespace": namespace, "finalizers": ["a.b/c"]})
    )
    await client.apply(same(made, metadata={"finalizers": ["coppice.dev/cleanup"]}), manager="coppice-finalizer")
    await client.apply(same(made, spec={"x": 1}))
    found = await client.get("DataClone", "db", namespace)
    assert sorted(found["metadata"]["finalizers"]) == ["a.b/c", "coppice.dev/cleanup"]
    await client.delete(Ref.of(made))
    await client.apply(same(made), manager="coppice-finalizer")
    assert (await client.get("DataClone", "db", namespace))["metadata"]["finalizers"] == ["a.b/c"]


async def test_the_last_finalizer_lets_a_deleted_object_go(client, namespace, clones):
    made = await client.create(clone(namespace))
    await client.apply(same(made, metadata={"finalizers": ["coppice.dev/cleanup"]}), manager="coppice-finalizer")
    await client.delete(Ref.of(made))
    assert "deletionTimestamp" in (await client.get("DataClone", "db", namespace))["metadata"]
    await client.apply(same(made), manager="coppice-finalizer")
    assert await client.get("DataClone", "db", namespace) is None


async def test_what_an_apply_leaves_out_goes(client, namespace):
    bare = secret(namespace)
    del bare["stringData"]
    made = await client.apply({**bare, "data": {"one": "MQ==", "two": "Mg=="}})
    found = await client.apply(same(made, data={"one": "MQ=="}))
    assert found["data"] == {"one": "MQ=="}


async def test_what_somebody_else_added_goes_by_pruning_and_by_nothing_else(client, namespace):
    """Server-side apply takes away only what its own manager has set; a key added by hand needs a patch."""
    made = await client.apply({**secret(namespace), "data": {"one": "MQ==", "two": "Mg=="}})
    await client.apply(same(made, data={"extra": "eA=="}), manager="kubectl-edit")
    found = await client.apply(same(made, data={"one": "MQ==", "two": "Mg=="}))
    assert sorted(found["data"]) == ["extra", "one", "two"]
    version = {"resourceVersion": found["metadata"]["resourceVersion"]}
    pruned = await client.prune(same(made, metadata=version, data={"extra": None, "two": None}))
    assert pruned["data"] == {"one": "MQ=="}
    again = await client.apply(same(made, data={"one": "MQ=="}))
    assert again["data"] == {"one": "MQ=="}


async def test_nothing_is_pruned_from_another_version_or_another_object(client, namespace):
    made = await client.apply({**secret(namespace), "data": {"one": "MQ=="}})
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    await client.apply(same(made, data={"two": "Mg=="}), manager="kubectl-edit")
    with pytest.raises(ConflictError):
        await client.prune(same(made, metadata=version, data={"one": None}))
    await client.delete(Ref.of(made))
    with pytest.raises(NotFoundError):
        await client.prune(same(made, metadata=version, data={"one": None}))
    again = await client.apply({**secret(namespace), "data": {"one": "MQ=="}})
    with pytest.raises(ConflictError):
        await client.prune(same(made, metadata=version, data={"one": None}))
    newest = {"resourceVersion": again["metadata"]["resourceVersion"]}
    with pytest.raises(ConflictError):
        await client.prune(same(made, metadata=newest, data={"one": None}))


async def test_an_amendment_replaces_what_it_names_and_keeps_the_rest(client, namespace, clones):
    made = await client.create(clone(namespace, spec={"list": [1, 2], "kept": 1, "gone": 1}))
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    found = await client.amend(same(made, metadata=version, spec={"list": [3], "gone": None}))
    assert found["spec"] == {"list": [3], "kept": 1}


async def test_nothing_is_amended_that_has_changed_since(client, namespace, clones):
    made = await client.create(clone(namespace, spec={"list": [1]}))
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    await client.amend(same(made, metadata=version, spec={"list": [2]}))
    with pytest.raises(ConflictError):
        await client.amend(same(made, metadata=version, spec={"list": [3]}))


async def test_the_api_server_says_who_asks(client):
    caller = await client.whoami()
    assert caller.name
    assert "system:authenticated" in caller.groups


async def test_what_was_applied_as_string_data_never_goes(client, namespace):
    """A trap: the API server moves stringData to data but keeps its owners where it was."""
    made = await client.apply(secret(namespace, one="1", two="2"))
    found = await client.apply(same(made, stringData={"one": "1"}))
    assert sorted(found["data"]) == ["one", "two"]


async def test_an_apply_after_a_create_leaves_old_fields_behind(client, namespace):
    """Why the executor makes what it keeps by apply: a create's fields belong to another entry of the same manager."""
    made = await client.create({**secret(namespace), "data": {"one": "MQ==", "two": "Mg=="}})
    found = await client.apply(same(made, data={"one": "MQ=="}))
    assert sorted(found["data"]) == ["one", "two"]


async def test_without_force_a_foreign_field_is_a_conflict(client, namespace):
    made = await client.apply({**secret(namespace), "data": {"password": "eA=="}}, manager="somebody")
    with pytest.raises(ConflictError, match="somebody"):
        await client.apply(same(made, data={"password": "eQ=="}), force=False)


async def test_an_equal_apply_is_not_a_new_version(client, namespace, clones):
    made = await client.create(clone(namespace))
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    written = [
        await client.apply(same(made, status=status), manager="coppice-status", subresource="status") for _ in range(2)
    ]
    assert written[0]["metadata"]["resourceVersion"] == written[1]["metadata"]["resourceVersion"]


async def test_replace_needs_the_version_that_was_read(client, namespace):
    made = await client.create(secret(namespace))
    await client.replace({**made, "stringData": {"a": "b"}})
    with pytest.raises(ConflictError):
        await client.replace({**made, "stringData": {"a": "c"}})


async def test_lists_are_read_in_pages_and_by_label(client, namespace, monkeypatch):
    monkeypatch.setattr("coppice.kube.aio.CHUNK", 2)
    for index in range(5):
        await client.create(secret(namespace, name=f"s{index}"))
    found = await client.list("Secret", namespace)
    assert [item["metadata"]["name"] for item in found] == ["s0", "s1", "s2", "s3", "s4"]
    assert {item["kind"] for item in found} == {"Secret"}
    assert [item["metadata"]["name"] for item in await client.list("Secret", namespace, {"app": "s3"})] == ["s3"]
    assert {"s0"} <= {item["metadata"]["name"] for item in await client.list("Secret", None, {"app": "s0"})}


async def test_a_survey_finds_whatever_has_an_owner_of_any_namespace(client, namespace):
    owned = secret(namespace, name="ours")
    owned["metadata"]["labels"] = {labels.OWNER_UID: "u1"}
    await client.create(owned)
    await client.create(secret(namespace, name="theirs"))
    found = [item["metadata"]["name"] for item in await client.survey("Secret")]
    assert "ours" in found
    assert "theirs" not in found


async def test_the_log_of_a_pod_that_is_gone_or_not_started_is_empty(client, namespace):
    assert await client.log_tail(namespace, "db", "main", 10) == ""


async def test_a_name_cannot_escape_its_place(client, namespace):
    assert await client.get("Secret", "../../../nodes", namespace) is None


async def test_no_answer_is_transient(configuration):
    configuration.host = "https://127.0.0.1:1"
    client = AioKubeClient(configuration)
    with pytest.raises(TransientError):
        await client.get("Secret", "db", "app")
    await client.aclose()


async def test_the_events_of_an_object_are_those_about_it_and_not_about_one_of_its_name_before_it(client, namespace):
    def core(name, uid):
        """What client-go's older recorder writes, as storage drivers do."""
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"kind": "Secret", "name": "db", "namespace": namespace, "uid": uid},
            "reason": "ProvisioningFailed",
            "message": "no room",
            "type": "Warning",
            "firstTimestamp": "2026-03-02T09:00:00Z",
            "lastTimestamp": "2026-03-02T09:01:00Z",
            "source": {"component": "driver"},
        }

    made = await client.create(secret(namespace))
    for name, uid in (("mine", made["metadata"]["uid"]), ("before", "another")):
        await client._json("POST", f"/api/v1/namespaces/{namespace}/events", {}, core(name, uid))
    [found] = await client.events_of(made)
    assert (found["kind"], found["reason"], found["note"]) == ("Event", "ProvisioningFailed", "no room")
    assert found["deprecatedFirstTimestamp"] == "2026-03-02T09:00:00Z"
    assert found["deprecatedLastTimestamp"] == "2026-03-02T09:01:00Z"
