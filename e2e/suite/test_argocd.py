"""Pull requests as most people meet them: Argo CD sees one, and there is a preview with its own data.

What is applied is the example (``e2e.suite.previews``).
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.fakes.forge import Forge

from e2e.suite import argocd, previews, relay
from e2e.suite.data import Clone, Store
from e2e.suite.kube import SYSTEM
from e2e.suite.manifests import example
from e2e.suite.previews import PRICE, SHOP
from e2e.suite.team import TRACK, Team, name
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.helm import Helm
    from e2e.suite.kube import Kube

OWNERS = "argocd-data"
TOKEN = "t0p-s3cret"
GRACE = timedelta(seconds=10)


@pytest.fixture(scope="module")
def installed(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The example, installed: the owners' store by one Application, previews by an ApplicationSet."""
    folder, forge = tmp_path_factory.mktemp("argocd"), Forge()
    with previews.installed(kube, folder, forge, OWNERS) as (running, git):
        yield Team(kube, running, forge, git)


@pytest.fixture
def team(installed: Team) -> Team:
    """Who works on the shop, as the example has it."""
    installed.git.reset()
    return installed


@pytest.fixture
def asked(installed: Team, helm: Helm) -> Iterator[None]:
    """The operator asks the forge, and writes there, and the owners' grant is for the shop's repository alone."""
    kube, secret = installed.kube, {"name": "forge-of-argocd"}
    values = {"provider": "github", "tokenSecret": secret, "interval": "10s", "grace": f"{GRACE.seconds}s"}
    metadata = {**secret, "namespace": SYSTEM}
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": TOKEN}})
    kube.patch("dgrant", "previews", OWNERS, {"spec": {"repositories": [f"github.com/{SHOP}"]}})
    with relay.serving(kube, OWNERS, installed.forge) as url:
        forge = {**values, "url": url, "comments": True, "statuses": True}
        helm.upgrade(helm.values(), f"--set-json=forges={json.dumps([forge])}")
        yield
    kube.patch("dgrant", "previews", OWNERS, {"spec": {"repositories": None}})
    kube.run("delete", "-n", SYSTEM, f"secret/{secret['name']}")


def without_app(team: Team) -> None:
    """Have previews of the data alone."""
    team.change("kustomization.yaml", "- app.yaml\n", "")


def with_migrations(team: Team) -> None:
    """Have previews whose data are migrated, anew where that changes.

    Clone, Job and app share the last wave, whose health no sync waits for: a suspended Job is Suspended for ever.
    """
    team.change("kustomization.yaml", "- app.yaml\n", "- app.yaml\n- migrate.yaml\n")
    team.change("clone.yaml", '  annotations:\n    argocd.argoproj.io/sync-wave: "-1"\n', "")
    policy = "onRevision: ResetIfMigrationsChanged\n  migrations: {jobTemplate: shop-migrate}"
    team.change("clone.yaml", "onRevision: Keep", policy)


def set_price(team: Team, price: str) -> None:
    """Have the migrations set the track's price."""
    job, _ = example("migrations/migrations.yaml", "preview", store="shop", owners=OWNERS)
    options = {"ignore-healthcheck": "true", "sync-options": "Force=true"}
    job["metadata"]["annotations"] = {f"argocd.argoproj.io/{key}": value for key, value in options.items()}
    [container] = job["spec"]["template"]["spec"]["containers"]
    container["image"] = Store(team.kube, OWNERS).server["spec"]["containers"][0]["image"]
    update = f"UPDATE Track SET UnitPrice = {price} WHERE TrackId = {TRACK};"
    container["args"] = [re.sub(r"CREATE TABLE .*;", update, container["args"][0])]
    assert update in container["args"][0]
    (team.preview / "migrate.yaml").write_text(yaml.safe_dump(job))


def test_a_pull_request_has_its_own_data_while_it_is_open(team: Team) -> None:
    pull = team.open("a change")
    operation = team.healthy(pull)["status"]["operationState"]
    assert "retryCount" not in operation, "the first sync has got through"
    clone = team.clone(pull)
    app = team.kube.get("deployment", "app", name(pull))
    assert app is not None
    since = team.kube.condition("dclone", "db", name(pull))["lastTransitionTime"]
    assert app["metadata"]["creationTimestamp"] >= since, "the app comes when its data are there"
    assert clone.status["revision"] == pull.sha
    assert clone.manifest["spec"]["pullRequest"]["number"] == pull.number
    team.until_price(pull, PRICE, "the preview has the store's data")

    # A push keeps the data, as the clone says. What Coppice adds to a Deployment, Argo CD does not take away.
    team.reprice(pull, 7.77)
    team.change("clone.yaml", "  lease:", '  binding:\n    keys: {DATABASE_URL: "{uri}"}\n  lease:')
    team.change("app.yaml", "  name: app\nspec:", "  name: app\n  annotations: {coppice.dev/clone: db}\nspec:")
    team.push(pull, "the app asks for the clone's address")
    team.healthy(pull)
    team.kube.run("wait", "-n", name(pull), "--for=condition=Wired", "dclone/db", "--timeout=60s")
    before = team.quiet(pull)
    assert clone.status["revision"] == pull.sha
    team.until_price(pull, "7.77", "the preview has the data that it had")
    assert before["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] == "DATABASE_URL"

    # With another policy a push makes the data anew, for an app that goes on asking at the same address.
    team.change("clone.yaml", "onRevision: Keep", "onRevision: Reset")
    team.push(pull, "new data with each push")
    team.until_price(pull, PRICE, "the preview has the store's data anew")
    team.healthy(pull)

    # Closed by mistake, and opened again while everything is being removed.
    uid = clone.uid
    team.close(pull)
    eventually(lambda: team.is_leaving(pull), "the preview is being removed")
    team.reopen(pull)
    eventually(lambda: team.is_back(pull, uid), "the preview is made anew")
    team.healthy(pull)
    team.until_price(pull, PRICE, "the preview that was made anew has the store's data")

    team.close(pull)
    team.until_gone(pull)


def test_a_push_with_other_migrations_has_the_data_made_anew(team: Team) -> None:
    with_migrations(team)
    set_price(team, "1.29")
    pull = team.open("a price")
    team.healthy(pull)
    clone = team.clone(pull)
    team.until_price(pull, "1.29", "the preview has data that were migrated")

    team.reprice(pull, 7.77)
    team.push(pull, "the same migrations")
    team.healthy(pull)
    assert clone.status["revision"] == pull.sha
    assert clone.status["copy"] == "1"
    team.until_price(pull, "7.77", "the preview has the data that it had")

    set_price(team, "2.49")
    team.push(pull, "other migrations")
    team.until_price(pull, "2.49", "the preview has data that were migrated by the others")
    team.healthy(pull)
    assert clone.status["copy"] == "2"

    # An Application that somebody deletes takes the preview along.
    pull.labels.clear()
    team.kube.run("delete", "-n", argocd.NAMESPACE, "applications.argoproj.io", name(pull), "--timeout=120s")
    team.until_gone(pull)


def test_an_expired_clone_is_left_alone_and_goes_with_the_label(team: Team) -> None:
    team.change("clone.yaml", "idle: 2h\n    max: 3d", "max: 20s")
    without_app(team)
    pull = team.open("a look")
    team.argocd.until_synced(name(pull), pull.sha, health="Suspended")
    clone = team.clone(pull)
    team.kube.until_reason("Expired", "dclone", "db", name(pull))
    uid, operation = clone.uid, team.argocd.application(name(pull))["status"]["operationState"]["startedAt"]

    team.argocd.refresh(name(pull))
    hold(seconds=5)
    found = team.argocd.until_synced(name(pull), pull.sha, health="Suspended")
    assert found["status"]["operationState"]["startedAt"] == operation, "nothing was applied again"
    assert clone.uid == uid
    assert not clone.pods

    team.unlabel(pull)
    team.until_gone(pull)


def test_what_was_changed_in_a_preview_outlives_its_pull_request(team: Team, kube: Kube) -> None:
    """Argo CD deletes in the foreground, namespace and all: the clone goes before that, once its changes are kept."""
    verbs = {"spec": {"verbs": ["Clone", "Propose"]}}
    grant = kube.get("dgrant", "previews", OWNERS)
    assert grant is not None
    # Owned by nobody who compares it: the owners' Application has no self-heal.
    kube.patch("dgrant", "previews", OWNERS, verbs)
    team.change("clone.yaml", "  onRevision:", "  onClose: KeepChanges\n  onRevision:")
    pull = team.open("work worth keeping")
    team.healthy(pull)
    clone = team.clone(pull)
    uid = clone.uid
    kube.until_reason("KeptAtTheEnd", "dclone", "db", name(pull), "ChangesKept")
    team.reprice(pull, 5.55)

    team.close(pull)
    team.until_gone(pull)
    [request] = kube.items("dcr", "-n", OWNERS, "-l", f"coppice.dev/owner-uid={uid}")
    branch = request["spec"]["into"]["branch"]
    assert branch.startswith(f"kept-{name(pull)}-db-")
    again = Clone(kube, OWNERS, "again").apply(Store(kube, OWNERS), source={"branch": branch}).ready()
    kept = again.sql("SELECT CAST(UnitPrice AS CHAR) AS price FROM Track WHERE TrackId = 1")
    assert kept == [{"price": "5.55"}]
    again.delete()
    kube.patch("dgrant", "previews", OWNERS, {"spec": {"verbs": grant["spec"]["verbs"]}})


@pytest.mark.alone
def test_what_happens_while_the_operator_is_away_is_made_up_for(team: Team) -> None:
    without_app(team)
    team.change("clone.yaml", "onRevision: Keep", "onRevision: Reset")
    pushed, closed = team.open("pushed at night"), team.open("closed at night")
    team.healthy(pushed)
    team.healthy(closed)

    with team.without_operator():
        opened = team.open("opened at night")
        team.push(pushed, "a change at night")
        team.close(closed)
        eventually(lambda: team.kube.get("dclone", "db", name(opened)), "Argo CD has applied a clone")
        eventually(lambda: team.is_told(pushed), "Argo CD has told a clone of the newest commit")
        eventually(lambda: team.is_ending(closed), "Argo CD has deleted a clone")

    operation = team.healthy(opened)["status"]["operationState"]
    assert "retryCount" not in operation, "the first sync has waited"
    team.healthy(pushed)
    eventually(lambda: team.clone(pushed).status["copy"] == "2", "the pushed commit has a copy of its own")
    team.until_gone(closed)

    for pull in (opened, pushed):
        team.close(pull)
    for pull in (opened, pushed):
        team.until_gone(pull)


@pytest.mark.alone
@pytest.mark.usefixtures("asked")
def test_the_pull_request_is_told_and_its_end_ends_what_argo_cd_has_left(team: Team, kube: Kube) -> None:
    without_app(team)
    pull = team.open("a talk")
    eventually(lambda: team.mark(pull) == "success", "the commit shows that the data are ready")
    clone = team.clone(pull)
    eventually(lambda: team.says(pull, "ready**"), "a comment says so, too")
    [first] = team.comments(pull)
    assert first.startswith(f"<!-- coppice: {name(pull)}/db -->\n")

    team.change("clone.yaml", "max: 3d", "max: 2d")
    team.push(pull, "a shorter talk")
    eventually(lambda: team.mark(pull) == "success", "the newest commit shows it, too")
    eventually(lambda: team.comments(pull) != [first] and team.says(pull, "ready**"), "the comment says when that ends")

    # Without its objects an Application goes and the preview stays, until the forge says that nobody needs it.
    with team.preserving():
        eventually(lambda: not team.takes_along(pull), "the Application is to go alone")
        team.unlabel(pull)
        eventually(lambda: not team.argocd.application(name(pull)), "the Application is gone")
    uid = clone.uid
    team.close(pull)
    kube.until_reason("PullRequestClosed", "dclone", "db", name(pull))
    told = {key: datetime.fromisoformat(clone.status["pullRequest"][key]) for key in ("closedAt", "endedAt")}
    assert told["endedAt"] - told["closedAt"] >= GRACE
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the clone but the object")
    assert clone.uid == uid
    eventually(lambda: team.says(pull, "PullRequestClosed**"), "the comment says that the data are gone")

    kube.delete_namespace(name(pull))
    eventually(lambda: team.says(pull, "deleted**"), "the comment says that the clone is gone")
    eventually(lambda: not team.leftovers(pull), "nothing is left of the preview")
    written = [request for request in team.forge.asked if request.method != "GET"]
    assert {request.headers["authorization"] for request in written} == {f"Bearer {TOKEN}"}


def test_a_store_that_git_has_not_any_more_keeps_its_data(team: Team) -> None:
    claims = ("-n", OWNERS, "-l", "coppice.dev/owner-kind=DataStore,coppice.dev/owner-name=shop")
    before = [claim["metadata"]["uid"] for claim in team.kube.items("persistentvolumeclaims", *claims)]
    kustomization = team.git.checkout / "deploy/data/kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("- store.yaml\n", ""))
    sha = team.git.push("main", "the store is somebody else's by now")
    team.argocd.refresh("shop-data")
    team.kube.run("wait", "-n", OWNERS, "--for=delete", "dstore/shop", "--timeout=120s")
    team.argocd.until_synced("shop-data", sha, health="Degraded")
    assert team.kube.reason("dgrant", "previews", OWNERS) == "StoreNotFound"
    assert [claim["metadata"]["uid"] for claim in team.kube.items("persistentvolumeclaims", *claims)] == before != []
