"""What happens to a clone as time goes by: reset, sleep, the end of its lease and its return, a branch that moves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from e2e.suite.data import Clone
from e2e.suite.manifests import data_clone, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.helm import Helm
    from e2e.suite.kube import Kube

COUNT = "SELECT COUNT(*) AS items FROM item"
MINE = "INSERT INTO item VALUES (99, 'mine', 1)"
ADDED = "SELECT name FROM item WHERE id > 90"


def items(clone: Clone) -> int:
    """Return how many items a clone has now."""
    return int(clone.sql(COUNT)[0]["items"])


def serves(clone: Clone, copy: str) -> bool:
    """Return whether a copy, and no other, is what apps get now."""
    status = clone.status
    return clone.reason == "Ready" and status["copy"] == copy


def service_uid(kube: Kube, clone: Clone) -> str:
    """Return the UID of the Service that apps connect to."""
    found = kube.get("service", clone.name, clone.namespace)
    assert found is not None
    return str(found["metadata"]["uid"])


def test_a_reset_gives_new_data_at_the_same_address(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "reset").apply(store).ready()
    there = items(clone)
    clone.sql(MINE)
    told, service = clone.binding, service_uid(kube, clone)
    store.commit("INSERT INTO item VALUES (4, 'fig', 40)", "a fourth item")

    moment = clone.request("reset")
    eventually(lambda: serves(clone, "2"), "the second copy serves")

    assert items(clone) == there + 1
    assert clone.sql("SELECT name FROM item WHERE id = 4") == [{"name": "fig"}]
    assert clone.binding == told
    assert service_uid(kube, clone) == service
    status = clone.status
    assert status["handled"]["resetRequestedAt"] == moment
    assert status["previous"]["copy"] == "1"
    assert datetime.fromisoformat(status["previous"]["keptUntil"]) > datetime.now(UTC)
    claims = kube.items("pvc", "-n", tenant, "-l", f"coppice.dev/owner-uid={clone.uid}")
    assert sorted(claim["metadata"]["labels"]["coppice.dev/copy"] for claim in claims) == ["1", "2"]
    eventually(lambda: len(clone.pods) == 1, "only the second copy has a server")


def test_an_undo_brings_the_data_back_and_can_be_undone(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "undo").apply(store).ready()
    clone.sql(MINE)
    told, service = clone.binding, service_uid(kube, clone)
    clone.request("reset")
    eventually(lambda: serves(clone, "2"), "the second copy serves")
    clone.sql("INSERT INTO item VALUES (98, 'later', 1)")

    moment = clone.request("undo")
    eventually(lambda: serves(clone, "1"), "the first copy serves again")
    assert clone.sql(ADDED) == [{"name": "mine"}]
    assert clone.status["handled"]["undoRequestedAt"] == moment
    assert clone.status["previous"]["copy"] == "2"

    clone.request("undo")
    eventually(lambda: serves(clone, "2"), "the second copy serves again")
    assert clone.sql(ADDED) == [{"name": "later"}]
    assert clone.status["previous"]["copy"] == "1"
    assert clone.binding == told
    assert service_uid(kube, clone) == service
    clone.delete()


def test_a_clone_that_sleeps_keeps_its_data(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "sleeper").apply(store).ready()
    clone.sql(MINE)
    there, told = items(clone), clone.binding

    clone.patch(power="Off")
    said = kube.until_reason("PoweredOff", "dclone", clone.name, tenant)
    assert "spec.power" in said["message"]
    eventually(lambda: not clone.pods, "its server is gone")

    clone.patch(power="On")
    clone.ready()
    assert items(clone) == there
    assert clone.binding == told


def test_an_expired_clone_leaves_nothing_and_comes_back_on_request(kube: Kube, store: Store, tenant: str) -> None:
    lease = {"max": "30s"}
    clone = Clone(kube, tenant, "short").apply(store, lease=lease).ready()
    clone.sql(MINE)
    there, ends = items(clone), clone.status["expiresAt"]

    said = kube.until_reason("Expired", "dclone", clone.name, tenant)
    assert ends in said["message"]
    assert "coppice.dev/extend-requested-at" in said["message"]
    eventually(lambda: not kube.owned_by(clone.uid), "nothing is left of it but the object")

    # What a GitOps tool does over and over, and a change that wakes the operator.
    kube.apply(data_clone(clone.name, tenant, store=store.name, owners=store.namespace, lease=lease))
    kube.run("annotate", "-n", tenant, f"dclone/{clone.name}", "looked-at=true")
    Clone(kube, tenant, "later").apply(store).ready().delete()
    assert clone.reason == "Expired"
    assert kube.owned_by(clone.uid) == []

    clone.request("extend")
    clone.ready()
    assert items(clone) == there - 1, "it is a new copy"
    assert clone.status["expiresAt"] > ends
    clone.delete()


def test_a_new_revision_resets_only_what_asks_for_it(kube: Kube, store: Store, tenant: str) -> None:
    resets = Clone(kube, tenant, "resets").apply(store, revision="one", onRevision="Reset")
    keeps = Clone(kube, tenant, "keeps").apply(store, revision="one")
    kube.ready(tenant, "dclone/resets", "dclone/keeps")
    there = items(resets)
    for clone in (resets, keeps):
        clone.sql(MINE)
        clone.patch(revision="two")

    eventually(lambda: serves(resets, "2"), "the revision has a copy of its own")
    assert items(resets) == there
    assert resets.status["revision"] == "two"
    eventually(lambda: keeps.status.get("revision") == "two", "the other one has seen its revision")
    assert serves(keeps, "1")
    assert items(keeps) == there + 1
    resets.delete()
    keeps.delete()


def test_every_sql_commit_is_a_dolt_commit_where_that_is_asked_for(kube: Kube, store: Store, tenant: str) -> None:
    every = Clone(kube, tenant, "every").apply(store, commitPolicy="PerTransaction")
    some = Clone(kube, tenant, "some").apply(store)
    kube.ready(tenant, "dclone/every", "dclone/some")
    log = "SELECT COUNT(*) AS commits FROM dolt_log"
    made = {clone.name: clone.sql(f"{log}; {MINE}; {log}") for clone in (every, some)}
    grown = {name: rows[1]["commits"] - rows[0]["commits"] for name, rows in made.items()}
    assert grown == {"every": 1, "some": 0}
    every.delete()
    some.delete()


def test_a_clone_gets_what_its_profile_says(kube: Kube, store: Store, tenant: str) -> None:
    profiles = {"default": {"memory": "192Mi"}, "large": {"memory": "300Mi", "cpu": "30m"}}
    kube.patch("dstore", store.name, store.namespace, {"spec": {"clones": {"profiles": profiles}}})
    clone = Clone(kube, tenant, "large").apply(store, profile="large").ready()
    given = clone.pod["spec"]["containers"][0]["resources"]
    assert given["limits"]["memory"] == "300Mi"
    assert given["requests"] == {"cpu": "30m", "memory": "300Mi"}
    clone.delete()


def test_an_environment_that_stays_follows_its_branch(kube: Kube, store: Store) -> None:
    kube.apply(*example("staging/staging.yaml", store.namespace, store=store.name, owners=store.namespace))
    clone = Clone(kube, store.namespace, "staging").ready()
    assert "expiresAt" not in clone.status
    told = clone.binding
    assert told["DATABASE_URL"] == told["uri"]
    head = store.commit("INSERT INTO item VALUES (5, 'quince', 50)", "a fifth item")
    eventually(
        lambda: clone.status.get("source", {}).get("head") == head and clone.reason == "Ready", "it is at the new head"
    )
    assert clone.sql("SELECT name FROM item WHERE id = 5") == [{"name": "quince"}]
    assert clone.binding == told


@pytest.mark.alone
def test_a_clone_that_nobody_uses_sleeps_and_a_word_wakes_it(kube: Kube, store: Store, tenant: str, helm: Helm) -> None:
    clone = Clone(kube, tenant, "dozer").apply(store).ready()
    clone.sql(MINE)
    there, told = items(clone), clone.binding

    helm.upgrade(helm.values(), "--set=clones.sleep=20s")
    said = kube.until_reason("Asleep", "dclone", clone.name, tenant)
    assert "coppice.dev/wake-requested-at" in said["message"]
    eventually(lambda: not clone.pods, "its server is gone")

    moment = clone.request("wake")
    clone.ready()
    assert items(clone) == there
    assert clone.binding == told
    assert clone.status["handled"]["wakeRequestedAt"] == moment
