"""What the chart tells Argo CD of Coppice's kinds, judged by Argo CD itself, on statuses as the operator writes them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from tests.fakes.required import lacks

from coppice.api.v1alpha1 import API_VERSION
from coppice.core import labels
from coppice.core.conditions import complete_status
from coppice.engines.base import EngineError
from coppice.kube.resources import RESOURCES
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls, waits
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.requests import read_request

Render = Callable[..., list[dict[str, Any]]]
Ask = Callable[..., str]
Manifest = dict[str, Any]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = {value for name, value in vars(labels).items() if name.isupper()}
KINDS = sorted(kind for kind, resource in RESOURCES.items() if resource.group == "coppice.dev")


@pytest.fixture(scope="session")
def settings(render: Render) -> Manifest:
    """What is merged into argocd-cm."""
    (shipped,) = [
        manifest
        for manifest in render("--set=argocd.settings=true")
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] == "coppice-argocd"
    ]
    loaded: Manifest = yaml.safe_load(shipped["data"]["argocd-cm.yaml"])
    return loaded


@pytest.fixture(scope="session")
def ask(settings: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Ask the program itself what it makes of an object."""
    program = shutil.which("argocd")
    if program is None:
        lacks('no argocd: put it in PATH: eval "$(python -m e2e.harness assets argocd)"')
    folder = tmp_path_factory.mktemp("argocd")
    metadata = {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **settings}
    (folder / "argocd-cm.yaml").write_text(yaml.safe_dump(whole))

    def run(verb: str, manifest: Manifest, *words: str) -> str:
        path = folder / "object.yaml"
        path.write_text(yaml.safe_dump(manifest))
        command = [program, "admin", "settings", "resource-overrides", verb, str(path), *words]
        command.append(f"--argocd-cm-path={folder / 'argocd-cm.yaml'}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return run


def health(ask: Ask, manifest: Manifest) -> tuple[str, str]:
    status, message = ask("health", manifest).split("\n", 1)
    return status.removeprefix("STATUS: "), message.removeprefix("MESSAGE: ")


def new(kind: str) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": "one", "namespace": "data", "uid": "1", "generation": 2},
    }


def told(kind: str, *facts: Fact) -> Manifest:
    """Return an object with the status that the operator writes for these facts."""
    draft = Draft(new(kind), NOW, facts=list(facts))
    plan = draft.finish(("First", "Second"), {})
    assert plan.status is not None
    return {**draft.manifest, "status": complete_status(plan.status, draft.manifest, NOW)}


def refused(kind: str) -> Manifest:
    plan = plan_failure(new(kind), EngineError("no room"))
    assert plan.status is not None
    return {**new(kind), "status": complete_status(plan.status, new(kind), NOW)}


def changed(manifest: Manifest) -> Manifest:
    """Return the object after its user has changed it, before the operator has seen that."""
    return {**manifest, "metadata": {**manifest["metadata"], "generation": 3}}


FIRST = holds("First", "Found", "it is there")
CASES: dict[str, tuple[Callable[[str], Manifest], str, str]] = {
    "new": (new, "Progressing", "Coppice has not looked at it yet"),
    "on its way": (
        lambda kind: told(kind, FIRST, waits("Second", "Starting", "the server starts")),
        "Progressing",
        "Starting: the server starts",
    ),
    "ready": (
        lambda kind: told(kind, FIRST, holds("Second", "Answering", "it answers")),
        "Healthy",
        "Ready: it answers",
    ),
    "changed since": (
        lambda kind: changed(told(kind, FIRST)),
        "Progressing",
        "Coppice has not looked at the newest specification yet",
    ),
    "stalled": (
        lambda kind: told(kind, FIRST, stalls("Second", "NotGranted", "ask the owners")),
        "Degraded",
        "NotGranted: ask the owners",
    ),
    "refused": (refused, "Degraded", "EngineError: the database refused: no room"),
    "asleep": (
        lambda kind: told(kind, FIRST, rests("Second", "Asleep", "nobody has used it")),
        "Suspended",
        "Asleep: nobody has used it",
    ),
    "closed": (
        lambda kind: told(kind, stalls("First", "PullRequestClosed", "nobody works on it")),
        "Suspended",
        "PullRequestClosed: nobody works on it",
    ),
    "expired": (
        lambda kind: told(kind, stalls("First", "Expired", "the lease ended")),
        "Suspended",
        "Expired: the lease ended",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_as_healthy_as_its_conditions_say(ask: Ask, kind: str):
    found = {name: health(ask, make(kind)) for name, (make, _, _) in CASES.items()}
    assert found == {name: (status, message) for name, (_, status, message) in CASES.items()}


def test_every_kind_is_told_of(settings: Manifest):
    told_of = {key.rpartition("_")[2] for key in settings["data"] if key.startswith("resource.customizations.health.")}
    assert told_of == set(KINDS)
    assert settings.keys() == {"data"}, "it is a patch: as a manifest it would be applied, and take away what was there"


def test_a_clone_is_woken_in_the_user_interface_when_it_is_asleep(ask: Ask):
    for case, cannot in (("asleep", "false"), ("ready", "true"), ("new", "true")):
        make, _, _ = CASES[case]
        listed = dict(line.split() for line in ask("list-actions", make("DataClone")).splitlines()[1:])
        assert listed == {"extend": "false", "reset": "false", "wake": cannot}


@pytest.mark.parametrize("verb", ["extend", "reset", "wake"])
def test_an_action_writes_the_request_and_nothing_else(ask: Ask, verb: str):
    shown = ask("run-action", new("DataClone"), verb)
    added = [line[2:].strip() for line in shown.splitlines() if line.startswith("> ")]
    assert added[0] == "annotations:"
    key, moment = added[1].split(": ", 1)
    assert key == f"{labels.PREFIX}/{verb}-requested-at" in LABELS
    request = read_request({"metadata": {"annotations": {key: moment.strip('"')}}}, key)
    assert request is not None, "the operator reads it"
    assert len(added) == 2
    assert not [line for line in shown.splitlines() if line.startswith("< ")]


def test_nothing_is_told_unless_it_is_asked_for(render: Render):
    assert not [manifest for manifest in render() if manifest["metadata"]["name"] == "coppice-argocd"]
