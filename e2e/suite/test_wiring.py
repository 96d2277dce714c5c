"""Apps that know nothing of a Secret: a Deployment says whose data it wants, and has them in its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.data import Clone
from e2e.suite.manifests import example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

OWN = [{"name": "DATABASE_URL", "value": "mysql://me@elsewhere/mine"}]


def env_of(kube: Kube, name: str, namespace: str) -> list[dict[str, Any]]:
    """Return the environment that a Deployment's container has."""
    found = kube.get("deployment", name, namespace)
    assert found is not None
    env: list[dict[str, Any]] = found["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return env


def until_said(kube: Kube, clone: Clone, condition: str, reason: str) -> Manifest:
    """Wait until a condition of the clone has this reason; return the condition."""

    def said() -> Manifest:
        found = kube.condition("dclone", clone.name, clone.namespace, condition)
        return found if found.get("reason") == reason else {}

    return eventually(said, f"the condition {condition} of clone {clone.name} says {reason}")


def test_a_deployment_that_asks_for_a_clone_has_its_address(kube: Kube, store: Store, tenant: str) -> None:
    manifest, app = example("wiring/app.yaml", tenant, store=store.name, owners=store.namespace)
    kube.apply(manifest, app)
    clone = Clone(kube, tenant, manifest["metadata"]["name"])
    kube.run("wait", "-n", tenant, "--for=condition=Wired", f"dclone/{clone.name}", "--timeout=240s")
    kube.run("rollout", "status", "-n", tenant, "deployment/app", "--timeout=240s")
    asked = ("exec", "-n", tenant, "deployment/app", "--", "printenv", "DATABASE_URL")
    assert kube.run(*asked).strip() == clone.binding["DATABASE_URL"] == clone.binding["uri"]

    kube.run("annotate", "-n", tenant, "deployment/app", "coppice.dev/clone-")
    eventually(lambda: env_of(kube, "app", tenant) == [], "without the annotation the variable goes")
    clone.delete()


def test_what_an_app_has_already_stays_and_the_clone_says_so(kube: Kube, store: Store, tenant: str) -> None:
    manifest, app = example("wiring/app.yaml", tenant, store=store.name, owners=store.namespace)
    manifest["metadata"]["name"] = "refused"
    app["metadata"].update(name="stubborn", annotations={"coppice.dev/clone": "refused"})
    [container] = app["spec"]["template"]["spec"]["containers"]
    container["env"] = OWN
    kube.apply(manifest, {**app, "spec": {**app["spec"], "replicas": 0}})
    clone = Clone(kube, tenant, "refused").ready()

    said = until_said(kube, clone, "Wired", "WiringConflict")
    assert "Deployment stubborn: container app has another DATABASE_URL" in said["message"]
    assert clone.reason == "Ready", "the data are there all the same"
    assert env_of(kube, "stubborn", tenant) == OWN

    container["env"] = []
    kube.apply({**app, "spec": {**app["spec"], "replicas": 0}})
    until_said(kube, clone, "Wired", "Wired")
    [entry] = env_of(kube, "stubborn", tenant)
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "refused-binding", "key": "DATABASE_URL"}
    clone.delete()


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_app_sleeps_and_wakes_with_its_clone(kube: Kube, store: Store, tenant: str, side: str) -> None:
    manifest, app = example("wiring/app.yaml", tenant, store=store.name, owners=store.namespace)
    name = manifest["metadata"]["name"] = app["metadata"]["name"] = f"nap-{side}"
    app["metadata"]["annotations"] = {"coppice.dev/sleep-with-clone": name}
    kube.apply(manifest)
    kube.run("apply", f"--server-side={str(side == 'server').lower()}", "-f", "-", stdin=kube.yaml(app))
    clone = Clone(kube, tenant, name).ready()

    def pods() -> int:
        return int((kube.get("deployment", name, tenant) or {})["spec"]["replicas"])

    until_said(kube, clone, "AppsScaled", "ScaledUp")
    clone.patch(power="Off")
    until_said(kube, clone, "AppsScaled", "ScaledDown")
    assert pods() == 0

    kube.run("scale", "-n", tenant, f"deployment/{name}", "--replicas=1")
    said = until_said(kube, clone, "AppsScaled", "ScalingConflict")
    assert "by kubectl" in said["message"]
    clone.patch(power="On")
    clone.ready()
    until_said(kube, clone, "AppsScaled", "ScaledUp")
    assert pods() == 1

    clone.patch(power="Off")
    eventually(lambda: pods() == 0, "the next time it sleeps again")
    clone.delete()
    assert pods() == 1
    found = kube.get("deployment", name, tenant)
    assert found is not None
    assert "coppice.dev/asleep-with" not in found["metadata"]["annotations"]
