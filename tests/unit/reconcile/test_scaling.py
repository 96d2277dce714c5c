"""A Deployment that asks for it has no Pods while its clone sleeps, and nobody is fought over how many it has."""

import json
from datetime import timedelta

import pytest
from tests.fakes.story import begun

from coppice.core import labels
from coppice.kube.errors import ConflictError, ForbiddenError

MANAGER = "coppice-scaling"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def deployment(name="web", *, clone="db", namespace="data", applied=None, **spec):
    """Return a user's Deployment, as a client sends it that sends all of an object."""
    annotations = {} if clone is None else {labels.SLEEP_OPT_IN: clone}
    if applied is not None:
        annotations[LAST_APPLIED] = json.dumps({"spec": applied})
    template = {"spec": {"containers": [{"name": "app", "image": "web:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"template": template, **spec},
    }


def replicas(story, name="web", namespace="data"):
    return story.get("Deployment", name, namespace)["spec"]["replicas"]


def mark(story, name="web"):
    return story.get("Deployment", name)["metadata"]["annotations"].get(labels.ASLEEP_WITH)


def is_ours(story, name="web"):
    return any(entry["manager"] == MANAGER for entry in story.get("Deployment", name)["metadata"]["managedFields"])


def said(story, clone="db", namespace="data"):
    return story.condition("DataClone", clone, namespace, of="AppsScaled")


def says_nothing(story):
    return "AppsScaled" not in {entry["type"] for entry in story.status("DataClone", "db")["conditions"]}


def writes(story):
    return [call.key.name for call in story.kube.calls if call.manager == MANAGER]


def ask(story, clone, name="web"):
    def change(found):
        found["metadata"]["annotations"].pop(labels.SLEEP_OPT_IN, None)
        if clone is not None:
            found["metadata"]["annotations"][labels.SLEEP_OPT_IN] = clone

    story.kube.change("Deployment", "data", name, change)


async def off(story):
    story.edit("DataClone", "db", power="Off")
    await story.settle()
    assert story.reason("DataClone", "db") == "PoweredOff"


async def awake(story):
    story.edit("DataClone", "db", power="On")
    await story.settle()
    story.expect_ready("DataClone", "db")


async def served(story):
    story.store()
    story.clone(lease={"max": "Never"})
    await story.settle()
    story.expect_ready("DataClone", "db")


async def dozed(story):
    await served(story)
    story.kube.add(deployment())
    await off(story)
    assert replicas(story) == 0


@pytest.fixture
def shop():
    return begun(served)


@pytest.fixture
def tired():
    """A clone that sleeps after half an hour without use, with an app beside it."""
    story = begun(served, sleep=timedelta(minutes=30))
    story.kube.add(deployment())
    return story


@pytest.fixture
def sleeping():
    return begun(dozed)


async def test_it_sleeps_when_nobody_uses_the_clone_and_wakes_with_it(tired):
    await tired.operator.live(minutes=28)
    assert replicas(tired) == 1
    assert (said(tired)["status"], said(tired)["reason"]) == ("True", "ScaledUp")
    await tired.operator.live(minutes=5)
    assert (replicas(tired), mark(tired)) == (0, "db")
    assert (said(tired)["status"], said(tired)["reason"]) == ("True", "ScaledDown")
    tired.annotate("DataClone", "db", wake="now")
    await tired.settle()
    tired.expect_ready("DataClone", "db")
    assert (replicas(tired), mark(tired), is_ours(tired)) == (1, None, False)
    assert said(tired)["reason"] == "ScaledUp"
    assert writes(tired) == ["web", "web"]
    assert tired.events("DataClone", "db").count("ScaledDown") == 1


async def test_a_new_revision_wakes_it(tired):
    await tired.operator.live(minutes=35)
    assert replicas(tired) == 0
    tired.edit("DataClone", "db", revision="abc")
    await tired.settle()
    assert replicas(tired) == 1


async def test_a_refresh_of_a_clone_that_nobody_uses_wakes_no_app(tired):
    tired.edit("DataClone", "db", refresh="OnHeadChange")
    await tired.operator.live(minutes=35)
    tired.commit("news")
    await tired.operator.live(minutes=5)
    assert tired.status("DataClone", "db")["copy"] == "2"
    assert replicas(tired) == 0
    assert writes(tired) == ["web"]


async def test_a_deployment_that_does_not_ask_is_left_alone(shop):
    shop.kube.add(deployment("stranger", clone=None))
    shop.kube.add(deployment("other", clone="another"))
    await off(shop)
    assert says_nothing(shop)
    assert writes(shop) == []


async def test_sleep_is_written_once(sleeping):
    await sleeping.operator.live(minutes=20)
    assert writes(sleeping) == ["web"]
    assert said(sleeping)["reason"] == "ScaledDown"


async def test_one_that_is_made_while_the_clone_sleeps_sleeps_too(sleeping):
    sleeping.kube.add(deployment("later"))
    await sleeping.settle()
    assert replicas(sleeping, "later") == 0


async def test_one_that_is_made_anew_under_its_name_sleeps_again(sleeping):
    sleeping.kube.remove("Deployment", "data", "web")
    sleeping.kube.add(deployment())
    await sleeping.settle()
    assert replicas(sleeping) == 0
    await awake(sleeping)
    assert replicas(sleeping) == 1


async def test_without_the_annotation_it_is_given_back_at_once(sleeping):
    ask(sleeping, None)
    await sleeping.settle()
    assert (replicas(sleeping), is_ours(sleeping)) == (1, False)
    assert says_nothing(sleeping)


async def test_one_that_turns_to_a_clone_that_is_not_there_is_given_back(sleeping):
    ask(sleeping, "another")
    await sleeping.settle()
    assert (replicas(sleeping), is_ours(sleeping)) == (1, False)


async def test_one_that_turns_to_another_clone_goes_by_that_one(sleeping):
    sleeping.clone("other", lease={"max": "Never"})
    sleeping.clone("third", lease={"max": "Never"}, power="Off")
    await sleeping.settle()
    ask(sleeping, "third")
    await sleeping.settle()
    assert (replicas(sleeping), mark(sleeping)) == (0, "third")
    ask(sleeping, "other")
    await sleeping.settle()
    assert replicas(sleeping) == 1
    sleeping.edit("DataClone", "other", power="Off")
    await sleeping.settle()
    assert (replicas(sleeping), mark(sleeping)) == (0, "other")


async def test_a_mark_that_somebody_writes_over_is_written_again(sleeping):
    sleeping.kube.annotate("data", "web", {labels.ASLEEP_WITH: "nothing"})
    await sleeping.settle()
    assert (replicas(sleeping), mark(sleeping)) == (0, "db")


async def test_a_mark_that_somebody_writes_over_keeps_nobody_from_being_given_back(sleeping):
    sleeping.kube.annotate("data", "web", {labels.ASLEEP_WITH: "nothing"})
    ask(sleeping, None)
    await sleeping.settle()
    assert (replicas(sleeping), is_ours(sleeping)) == (1, False)


@pytest.mark.parametrize("namespace", ["data", "app"])
async def test_a_clone_that_is_deleted_in_its_sleep_gives_it_back(story, namespace):
    story.grant()
    story.store()
    story.clone(namespace=namespace)
    await story.settle()
    story.kube.add(deployment(namespace=namespace))
    story.edit("DataClone", "db", namespace, power="Off")
    await story.settle()
    assert replicas(story, namespace=namespace) == 0
    story.delete("DataClone", "db", namespace)
    await story.settle()
    assert story.kube.peek("DataClone", namespace, "db") is None
    assert replicas(story, namespace=namespace) == 1


async def test_a_clone_that_is_made_anew_in_its_sleep_wakes_it(sleeping):
    def unhold(found):
        found["metadata"]["finalizers"] = []

    sleeping.kube.change("DataClone", "data", "db", unhold)
    sleeping.delete("DataClone", "db")
    sleeping.clone()
    await sleeping.settle()
    assert replicas(sleeping) == 1


async def test_it_sleeps_with_an_expired_clone_and_comes_back_with_it(shop):
    shop.kube.add(deployment())
    shop.edit("DataClone", "db", lease={"max": "1h"})
    await shop.operator.live(minutes=62)
    assert shop.reason("DataClone", "db") == "Expired"
    assert (replicas(shop), said(shop)["reason"]) == (0, "ScaledDown")
    shop.kube.remove("Deployment", "data", "web")
    shop.kube.add(deployment())
    await shop.operator.live(minutes=1)
    assert replicas(shop) == 0
    shop.annotate("DataClone", "db", extend="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert replicas(shop) == 1


CHOSEN = {
    "in a manifest that is applied server-side": ("Apply", "argocd-controller", 1, "stands in its manifest"),
    "by a person who scales": ("scale", "kubectl", 3, "scale it to 1"),
    "by an autoscaler": ("scale", "kube-controller-manager", 1, "an autoscaler"),
    "by hand": ("Update", "kubectl-edit", 2, "scale it to 1"),
}


@pytest.mark.parametrize(("by", "manager", "number", "words"), CHOSEN.values(), ids=CHOSEN)
async def test_where_somebody_says_how_many_pods_it_has_it_is_left_alone_and_that_is_said(
    shop, by, manager, number, words
):
    shop.kube.add(deployment())
    shop.kube.scale("data", "web", number, manager=manager, by=by)
    shop.kube.add(deployment("other"))
    await shop.settle()
    assert said(shop)["reason"] == "ScalingConflict", "it is said before the clone sleeps"
    await off(shop)
    assert (replicas(shop), replicas(shop, "other")) == (number, 0)
    found = said(shop)
    assert (found["status"], found["reason"]) == ("False", "ScalingConflict")
    for text in ("Deployment web", words, labels.SLEEP_OPT_IN):
        assert text in found["message"]
    assert "Deployment other" not in found["message"]
    assert writes(shop) == ["other"]
    assert shop.events("DataClone", "db").count("ScalingConflict") == 1


@pytest.mark.parametrize(("applied", "slept"), [({}, True), ({"replicas": 1}, False)])
async def test_what_a_client_applied_tells_whether_somebody_chose_one_pod(shop, applied, slept):
    shop.kube.add(deployment(applied=applied, replicas=1))
    await off(shop)
    assert replicas(shop) == (0 if slept else 1)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"spec": 1}'])
async def test_what_somebody_wrote_in_the_place_of_what_was_applied_says_nothing(shop, text):
    shop.kube.add(deployment())
    shop.kube.change("Deployment", "data", "web", lambda it: it["metadata"]["annotations"].update({LAST_APPLIED: text}))
    await off(shop)
    assert replicas(shop) == 0


async def test_one_that_has_no_pods_anyway_stays_so(shop):
    shop.kube.add(deployment(replicas=0))
    await off(shop)
    await awake(shop)
    assert replicas(shop) == 0
    assert writes(shop) == []


@pytest.mark.parametrize(("by", "number"), [("Update", 1), ("scale", 2), ("Apply", 1)])
async def test_what_somebody_scales_in_its_sleep_is_not_scaled_again(sleeping, by, number):
    """Argo CD heals itself, or a person wants the app now."""
    sleeping.kube.scale("data", "web", number, manager="them", by=by)
    await sleeping.settle()
    await sleeping.operator.live(minutes=5)
    assert replicas(sleeping) == number
    found = said(sleeping)
    assert (found["status"], found["reason"]) == ("False", "ScalingConflict")
    assert f"scaled to {number} while the clone sleeps, by them" in found["message"]
    assert writes(sleeping) == ["web"]
    await awake(sleeping)
    assert (replicas(sleeping), mark(sleeping), is_ours(sleeping)) == (number, None, False)


async def test_what_was_scaled_up_once_sleeps_the_next_time(sleeping):
    sleeping.kube.scale("data", "web", 1, by="Update")
    await sleeping.settle()
    await awake(sleeping)
    await off(sleeping)
    assert (replicas(sleeping), said(sleeping)["reason"]) == (0, "ScaledDown")


@pytest.mark.parametrize("error", [ConflictError("owned by another"), ForbiddenError("policy says no")])
async def test_what_the_api_server_refuses_is_said_and_tried_again_slowly(shop, error, monkeypatch):
    tries, apply = [], shop.kube.apply

    async def refuse(manifest, **options):
        if options.get("manager") != MANAGER:
            return await apply(manifest, **options)
        tries.append(shop.world.now)
        raise error

    monkeypatch.setattr(shop.kube, "apply", refuse)
    shop.kube.add(deployment())
    await off(shop)
    found = said(shop)
    assert (found["status"], found["reason"]) == ("False", "ScalingConflict")
    assert str(error) in found["message"]
    tries.clear()
    await shop.operator.live(minutes=5)
    assert 0 < len(tries) <= 6
    monkeypatch.undo()
    await shop.operator.live(minutes=2)
    assert replicas(shop) == 0


async def test_a_clone_that_goes_says_why_it_cannot_give_one_back_and_does_when_it_can(sleeping, monkeypatch):
    apply = sleeping.kube.apply

    async def refuse(manifest, **options):
        if options.get("manager") != MANAGER:
            return await apply(manifest, **options)
        raise ForbiddenError("policy says no")

    monkeypatch.setattr(sleeping.kube, "apply", refuse)
    sleeping.delete("DataClone", "db")
    await sleeping.settle()
    assert "policy says no" in sleeping.condition("DataClone", "db")["message"]
    monkeypatch.undo()
    await sleeping.operator.live(minutes=2)
    assert replicas(sleeping) == 1
    assert sleeping.kube.peek("DataClone", "data", "db") is None


async def test_one_that_changed_since_it_was_seen_is_looked_at_again(shop, monkeypatch):
    """Somebody scales it in between: an apply would take the number from them."""
    apply, raced = shop.kube.apply, []

    async def race(manifest, **options):
        if options.get("manager") == MANAGER and not raced:
            raced.append(manifest)
            shop.kube.scale("data", "web", 3)
        return await apply(manifest, **options)

    monkeypatch.setattr(shop.kube, "apply", race)
    shop.kube.add(deployment())
    await off(shop)
    assert raced
    assert replicas(shop) == 3
    assert said(shop)["reason"] == "ScalingConflict"
