"""What the scaling of Deployments rests on, at a real API server: who owns the number of Pods, by whichever way a
Deployment came, and what becomes of the number when its owner gives it up.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from tests.fakes.apiserver import ApiServer

from coppice.core import labels
from coppice.kube.client import SCALING_MANAGER
from coppice.kube.errors import ConflictError
from coppice.reconcile.scaling import scale


@dataclass
class App:
    """A user's Deployment that asks to sleep with the clone ``db``."""

    server: ApiServer
    client: Any
    namespace: str

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

    def applied(self, **spec):
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}}
        metadata = {"name": "web", "namespace": self.namespace, "annotations": {labels.SLEEP_OPT_IN: "db"}}
        selector = {"matchLabels": {"app": "web"}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {**spec, "selector": selector, "template": template},
        }

    def send(self, method, path, body):
        reply = self.server.request(method, path, body)
        assert reply.ok, reply.body

    def create(self, **spec):
        self.send("POST", f"{self.path}?fieldManager=helm", self.applied(**spec))

    def apply(self, **spec):
        self.send("APPLY", f"{self.path}/web?fieldManager=argocd-controller&force=true", self.applied(**spec))

    def scale(self, replicas):
        self.send("PATCH", f"{self.path}/web/scale?fieldManager=kubectl", {"spec": {"replicas": replicas}})

    async def found(self):
        return await self.client.get("Deployment", "web", self.namespace)

    async def step(self, *, asleep):
        """Do what is planned; return the number of Pods, and the reason that is said."""
        scaling = scale([await self.found()], "db", asleep=asleep)
        for entry in scaling.apply:
            await self.client.apply(entry.patch, manager=SCALING_MANAGER, force=entry.force)
        found = await self.found()
        assert scale([found], "db", asleep=asleep).apply == (), "it is done at once"
        return found["spec"]["replicas"], scale([found], "db", asleep=asleep).fact.reason


@pytest.fixture
def app(api_server, client, namespace):
    return App(api_server, client, namespace)


@pytest.mark.parametrize("way", ["create", "apply"])
async def test_a_number_that_nobody_chose_goes_and_comes_back(app, way):
    getattr(app, way)()
    for _ in range(2):
        assert await app.step(asleep=True) == (0, "ScaledDown")
        assert await app.step(asleep=False) == (1, "ScaledUp")
    owners = (await app.found())["metadata"]["managedFields"]
    assert SCALING_MANAGER not in {entry["manager"] for entry in owners}


async def test_a_manifest_without_a_number_is_applied_again_and_changes_nothing(app):
    app.apply()
    await app.step(asleep=True)
    app.apply()
    assert await app.step(asleep=True) == (0, "ScaledDown")


async def test_a_number_in_a_manifest_is_left_alone(app):
    app.apply(replicas=1)
    assert await app.step(asleep=True) == (1, "ScalingConflict")


@pytest.mark.parametrize("number", [1, 3])
async def test_who_scales_it_in_its_sleep_has_it(app, number):
    app.create()
    await app.step(asleep=True)
    app.scale(number)
    assert await app.step(asleep=True) == (number, "ScalingConflict")
    assert await app.step(asleep=False) == (number, "ScaledUp" if number == 1 else "ScalingConflict")
    assert labels.ASLEEP_WITH not in (await app.found())["metadata"]["annotations"]


async def test_a_manifest_that_gets_a_number_in_its_sleep_has_it(app):
    app.apply()
    await app.step(asleep=True)
    app.apply(replicas=2)
    assert await app.step(asleep=True) == (2, "ScalingConflict")
    assert await app.step(asleep=False) == (2, "ScalingConflict")


async def test_what_changed_since_it_was_seen_is_not_written_even_by_force(app):
    app.create()
    [entry] = scale([await app.found()], "db", asleep=True).apply
    assert entry.force
    app.scale(3)
    with pytest.raises(ConflictError):
        await app.client.apply(entry.patch, manager=SCALING_MANAGER, force=entry.force)
    assert (await app.found())["spec"]["replicas"] == 3
