"""A Deployment that asks for a clone by annotation gets its binding; what its user wrote stays as it is."""

import pytest
from tests.fakes.kube import FakeKube
from tests.fakes.story import begun

from coppice.api.v1alpha1 import BINDING_KEYS
from coppice.core import labels
from coppice.kube.errors import ConflictError, ForbiddenError
from coppice.reconcile.wiring import wire


def ref(key, secret="db-binding"):
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def deployment(name="web", *, clone="db", **envs):
    """Return a user's Deployment with a container for each of ``envs``: its name and its environment."""
    containers = [{"name": container, "image": "web:1", "env": env} for container, env in (envs or {"app": []}).items()]
    spec = {"containers": containers, "initContainers": [{"name": "setup", "image": "web:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "data",
            "annotations": {} if clone is None else {labels.CLONE_OPT_IN: clone},
        },
        "spec": {"replicas": 1, "template": {"spec": spec}},
    }


def env(story, container="app", name="web"):
    found = story.get("Deployment", name)["spec"]["template"]["spec"]["containers"]
    return next(entry.get("env", []) for entry in found if entry["name"] == container)


def opt_out(story, name="web"):
    story.kube.change("Deployment", "data", name, lambda it: it["metadata"]["annotations"].pop(labels.CLONE_OPT_IN))


def wired(story):
    return story.condition("DataClone", "db", of="Wired")


def wiring_writes(story):
    return [call.key.name for call in story.kube.calls if call.manager == "coppice-wiring"]


async def bound(story):
    story.store()
    story.clone(binding={"keys": {"DATABASE_URL": "{uri}", "DB_HOST": "{host}"}})
    await story.settle()
    story.expect_ready("DataClone", "db")


@pytest.fixture
def shop():
    return begun(bound)


async def test_without_a_deployment_that_asks_nothing_is_said(shop):
    shop.kube.add(deployment("stranger", clone=None))
    shop.kube.add(deployment("other", clone="another"))
    await shop.settle()
    assert [entry["type"] for entry in shop.status("DataClone", "db")["conditions"] if entry["type"] == "Wired"] == []
    assert wiring_writes(shop) == []


async def test_a_deployment_gets_the_keys_asked_for_in_every_container(shop):
    shop.kube.add(deployment(app=[{"name": "LOG", "value": "info"}], sidecar=[]))
    await shop.settle()
    assert env(shop) == [{"name": "LOG", "value": "info"}, ref("DATABASE_URL"), ref("DB_HOST")]
    assert env(shop, "sidecar") == [ref("DATABASE_URL"), ref("DB_HOST")]
    assert "env" not in shop.get("Deployment", "web")["spec"]["template"]["spec"]["initContainers"][0]
    assert (wired(shop)["status"], wired(shop)["reason"]) == ("True", "Wired")
    assert "web" in wired(shop)["message"]
    assert shop.events("DataClone", "db").count("Wired") == 1


async def test_a_deployment_that_is_wired_is_written_once(shop):
    shop.kube.add(deployment())
    await shop.settle()
    await shop.operator.live(minutes=10)
    assert wiring_writes(shop) == ["web"]
    assert shop.events("DataClone", "db").count("Wired") == 1


async def test_a_deployment_may_be_there_before_the_clone(story):
    story.kube.add(deployment())
    story.store()
    story.clone()
    await story.settle()
    assert env(story) == [ref(key) for key in BINDING_KEYS]
    story.expect_ready("DataClone", "db")


async def test_a_value_of_the_users_own_is_never_touched_and_nothing_beside_it_is_written(shop):
    mine = {"name": "DATABASE_URL", "value": "mysql://elsewhere"}
    before = shop.kube.add(deployment(app=[], sidecar=[mine]))
    shop.kube.add(deployment("other"))
    await shop.settle()
    assert shop.get("Deployment", "web")["spec"] == before["spec"]
    assert env(shop, name="other") == [ref("DATABASE_URL"), ref("DB_HOST")]
    found = wired(shop)
    assert (found["status"], found["reason"]) == ("False", "WiringConflict")
    for word in ("Deployment web", "container sidecar", "DATABASE_URL", labels.CLONE_OPT_IN):
        assert word in found["message"]
    assert "elsewhere" not in found["message"]
    shop.expect_ready("DataClone", "db")
    assert shop.events("DataClone", "db").count("WiringConflict") == 1


async def test_a_conflict_ends_when_the_key_is_removed(shop):
    shop.kube.add(deployment(app=[{"name": "DB_HOST", "value": "elsewhere"}]))
    await shop.settle()

    def remove(found):
        del found["spec"]["template"]["spec"]["containers"][0]["env"]

    shop.kube.change("Deployment", "data", "web", remove)
    await shop.settle()
    assert env(shop) == [ref("DATABASE_URL"), ref("DB_HOST")]
    assert wired(shop)["reason"] == "Wired"


async def test_the_same_entry_by_the_users_hand_stays_theirs(shop):
    shop.kube.add(deployment(app=[ref("DB_HOST")]))
    await shop.settle()
    assert wired(shop)["reason"] == "Wired"
    opt_out(shop)
    await shop.settle()
    assert env(shop) == [ref("DB_HOST")]


async def test_without_the_annotation_ours_goes_and_theirs_stays(shop):
    shop.kube.add(deployment(app=[{"name": "LOG", "value": "info"}], sidecar=[]))
    await shop.settle()
    opt_out(shop)
    await shop.settle()
    assert env(shop) == [{"name": "LOG", "value": "info"}]
    assert env(shop, "sidecar") == []
    assert shop.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1"
    assert "Wired" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}
    assert wiring_writes(shop) == ["web", "web"]


async def test_other_keys_replace_what_is_ours(shop):
    shop.kube.add(deployment())
    await shop.settle()

    def change(found):
        found["spec"]["binding"]["keys"] = {"DB_HOST": "{host}", "DB_USER": "{username}"}

    shop.kube.change("DataClone", "data", "db", change)
    await shop.settle()
    assert env(shop) == [ref("DB_HOST"), ref("DB_USER")]


async def test_a_reset_and_sleep_keep_the_wiring(shop):
    shop.kube.add(deployment())
    await shop.settle()
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.edit("DataClone", "db", power="Off")
    await shop.settle()
    assert env(shop) == [ref("DATABASE_URL"), ref("DB_HOST")]
    assert wired(shop)["status"] == "True"
    assert wiring_writes(shop) == ["web"]
    assert shop.events("DataClone", "db").count("Wired") == 1


@pytest.mark.parametrize("error", [ConflictError("env is owned by kubectl"), ForbiddenError("policy says no")])
async def test_what_the_api_server_refuses_is_a_condition_and_is_tried_again_slowly(shop, error, monkeypatch):
    tries = []
    apply = shop.kube.apply

    async def refuse(manifest, **options):
        if manifest["kind"] != "Deployment":
            return await apply(manifest, **options)
        tries.append(shop.world.now)
        raise error

    monkeypatch.setattr(shop.kube, "apply", refuse)
    shop.kube.add(deployment())
    await shop.settle()
    found = wired(shop)
    assert (found["status"], found["reason"]) == ("False", "WiringConflict")
    assert str(error) in found["message"]
    shop.expect_ready("DataClone", "db")
    assert shop.events("DataClone", "db").count("WiringConflict") == 1
    tries.clear()
    await shop.operator.live(minutes=5)
    assert 0 < len(tries) <= 6
    monkeypatch.undo()
    await shop.operator.live(minutes=2)
    assert wired(shop)["status"] == "True"


def test_a_value_that_somebody_put_over_ours_is_theirs():
    """What server-side apply leaves us then is the name of the entry alone."""
    name = {"k:" + '{"name":"DB_HOST"}': {".": {}, "f:name": {}}}
    tree = {"f:containers": {"k:" + '{"name":"app"}': {".": {}, "f:name": {}, "f:env": name}}}
    managed = {
        "manager": "coppice-wiring",
        "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": tree}}},
    }
    kube = FakeKube(deployment(app=[{"name": "DB_HOST", "value": "elsewhere"}]))
    found = kube.peek("Deployment", "data", "web")
    found["metadata"]["managedFields"] = [managed]
    wiring = wire([found], "db", secret="db-binding", keys=["DB_HOST"])
    assert wiring.apply == ()
    assert wiring.fact.reason == "WiringConflict"
