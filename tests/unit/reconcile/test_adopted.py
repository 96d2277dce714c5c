"""Databases that somebody else runs: found, looked at, captured and cloned, and never touched."""

from __future__ import annotations

import os

import pytest
from tests.fakes.deaths import Deaths
from tests.fakes.source import (
    ADDRESS,
    NAMES,
    OWNER,
    add_claim,
    add_pod,
    add_source,
    encoded,
    server_of,
    stands,
    touched,
    unready,
)

from coppice.core.key import Key
from coppice.engines.base import EngineError, UnreachableError

CLAIM, POD, SERVICE, SECRET = (NAMES[kind] for kind in ("PersistentVolumeClaim", "Pod", "Service", "Secret"))


@pytest.fixture
def source(story):
    """A story with somebody's database in it; whatever happens, the operator writes nothing to that."""
    server = add_source(story, "alice")
    users, rows = dict(server.volume.users), server.volume.branches["main"].rows
    yield story
    assert touched(story) == []
    assert (server.volume.users, server.volume.marker, server.volume.layout) == (users, "", "pgdata")
    assert rows <= server.volume.branches["main"].rows


async def adopted(story, **spec):
    story.adopted(**spec)
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def with_snapshot(story, **spec):
    await adopted(story, **spec)
    story.snapshot("first")
    await story.settle()
    story.expect_ready("DataSnapshot", "first")


def own(story):
    """Return what the operator has made, by kind and name."""
    return sorted(
        (found["kind"], found["metadata"]["name"])
        for found in story.kube.all(None, "data")
        if "coppice.dev/owner-uid" in (found["metadata"].get("labels") or {})
    )


# -- the store --


async def test_a_database_that_somebody_else_runs_is_looked_at_and_nothing_is_made(source):
    await adopted(source)
    status = source.status("DataStore", "shop")
    assert status["endpoint"] == {"host": "pg.data.svc", "port": 3306}
    assert (status["version"], status["capacity"], status["databases"]) == ("1.0.0-fake", "3Gi", ["shop"])
    assert status["source"] == {"pod": POD, "port": 3306, "userID": OWNER, "offeredVersion": "1.0"}
    assert "binding" not in status
    assert own(source) == []
    assert source.condition("DataStore", "shop", of="EngineSupported")["message"].endswith("copies run with 1.0")


async def test_only_the_login_of_its_secret_is_used_and_guarded(source):
    await with_snapshot(source)
    asked = {(at.username, at.password, at.guarded) for at in source.world.engine.logins if at.host == ADDRESS}
    assert asked == {("coppice", "looks", True)}


async def test_a_certificate_to_verify_with_comes_from_the_secret(story):
    add_source(story, ca_crt="PEM")
    await adopted(story)
    assert story.world.engine.logins[-1].ca == "PEM"


async def test_it_is_looked_at_now_and_then_and_left_alone(source):
    await adopted(source)
    before = len(source.world.writes)
    await source.operator.live(hours=1)
    assert source.world.writes[before:] == []


async def test_what_its_server_holds_is_told_as_it_moves(source):
    await adopted(source)
    head = server_of(source).volume.commit("main", "bob", at=source.world.now)
    await source.operator.live(minutes=2)
    assert source.status("DataStore", "shop")["branches"][0]["head"] == head


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        (lambda story: story.delete("Service", SERVICE), "ServiceNotFound", "Service pg"),
        (lambda story: story.delete("Secret", SECRET), "CredentialsNotFound", "coppice.dev/store=shop"),
        (lambda story: story.kube.change("Pod", "data", POD, unready), "SourceDown", "pg-0"),
        (lambda story: story.delete("Pod", POD), "SourceDown", "none"),
        (lambda story: setattr(server_of(story), "listening", False), "NotAnswering", "pg-0"),
        (lambda story: setattr(server_of(story), "fault", EngineError("no such table")), "EngineError", "no such"),
        (lambda story: story.kube.change("PersistentVolumeClaim", "data", CLAIM, pending), "ClaimPending", CLAIM),
    ],
)
async def test_what_may_come_is_waited_for_and_named(source, change, reason, hint):
    change(source)
    source.adopted()
    await source.settle()
    found = source.condition("DataStore", "shop")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert hint in found["message"]
    assert source.condition("DataStore", "shop", of="Stalled")["status"] == "False"


def pending(claim):
    claim["status"] = {"phase": "Waiting"}


def lost(claim):
    claim["status"] = {"phase": "Lost"}


def external(service):
    service["spec"] = {"type": "ExternalName", "externalName": "db.example.org", "selector": {"app": "pg"}}


def by_hand(service):
    service["spec"].pop("selector")


def binary(secret):
    secret["data"]["password"] = "/w=="


@pytest.mark.parametrize(
    ("kind", "change", "reason", "hint"),
    [
        ("Service", external, "NotAService", "spec.selector"),
        ("Service", by_hand, "NotAService", "spec.selector"),
        ("Secret", lambda found: found["metadata"].pop("annotations"), "CredentialsNotMeant", "kubectl annotate"),
        (
            "Secret",
            lambda found: found["metadata"]["annotations"].update({"coppice.dev/store": "other"}),
            "CredentialsNotMeant",
            "coppice.dev/store=shop",
        ),
        ("Secret", lambda found: found["data"].pop("password"), "CredentialsIncomplete", SECRET),
        ("Secret", binary, "CredentialsIncomplete", "text"),
        ("Secret", lambda found: found["data"].update(encoded(password="wrong")), "CredentialsRefused", SECRET),
        ("PersistentVolumeClaim", lost, "ClaimLost", CLAIM),
        (
            "PersistentVolumeClaim",
            lambda found: found["metadata"].update(
                labels={"coppice.dev/owner-kind": "DataStore", "coppice.dev/owner-name": "other"}
            ),
            "NotASource",
            "DataStore other",
        ),
    ],
)
async def test_what_somebody_must_put_right_is_said_and_put_right(story, kind, change, reason, hint):
    add_source(story, "alice")
    before = story.get(kind, NAMES[kind])
    story.kube.change(kind, "data", NAMES[kind], change)
    story.adopted()
    await story.settle()
    assert hint in story.expect_stalled("DataStore", "shop", reason)
    if reason in {"NotAService", "CredentialsNotMeant", "CredentialsIncomplete"}:
        assert story.world.engine.logins == [], "a login was sent"
    story.kube.change(kind, "data", NAMES[kind], lambda found: put_back(found, before))
    await story.operator.live(minutes=6)
    story.expect_ready("DataStore", "shop")
    assert touched(story) == []


def put_back(found, before):
    for key in ("spec", "data", "status"):
        if key in before:
            found[key] = before[key]
    found["metadata"]["annotations"] = before["metadata"].get("annotations", {})
    found["metadata"]["labels"] = before["metadata"].get("labels", {})


@pytest.mark.parametrize(
    ("storage_class", "hint"), [("dumb", "VolumeSnapshotClass"), ("none", "fast"), (None, "no StorageClass")]
)
async def test_a_claim_that_cannot_be_snapshotted_is_said(source, storage_class, hint):
    source.delete("PersistentVolumeClaim", CLAIM)
    source.delete("Pod", POD)
    source.world.turn()
    add_claim(source, storage_class=storage_class, status={"phase": "Bound", "capacity": {"storage": "3Gi"}})
    source.adopted()
    await source.settle()
    assert hint in source.condition("DataStore", "shop")["message"]
    assert source.condition("DataStore", "shop", of="Stalled")["status"] == "True"


async def test_no_login_is_sent_to_a_pod_that_does_not_use_the_claim(source):
    source.delete("Pod", POD)
    add_claim(source, "data-pg-1")
    impostor = add_pod(source, server_volume(source), name="pg-1", claim="data-pg-1", address="10.9.0.2")
    source.adopted()
    await source.settle()
    message = source.expect_stalled("DataStore", "shop", "ClaimNotServed")
    assert "data-pg-1" in message
    assert "claimName" in message
    assert source.world.engine.logins == []
    assert impostor.uses == 0


def server_volume(story):
    return story.world.volume("data", CLAIM)


async def test_a_server_that_wants_the_password_itself_does_not_get_it(source):
    server_of(source).wants_clear = True
    source.adopted()
    await source.settle()
    assert "in clear" in source.expect_stalled("DataStore", "shop", "LoginNotGuarded")


async def test_a_version_without_an_image_is_said(source):
    source.operator.settings = {"images": {"fake": {"9": "example.com/fake:9", "1.0.1": "example.com/fake:1.0.1"}}}
    source.operator.restart()
    source.adopted()
    await source.settle()
    message = source.expect_stalled("DataStore", "shop", "UnsupportedVersion")
    assert "1.0.0-fake" in message
    assert "1.0.1, 9" in message


async def test_an_unknown_engine_is_said(source):
    source.adopted(engine="oracle")
    await source.settle()
    source.expect_stalled("DataStore", "shop", "UnknownEngine")


@pytest.mark.parametrize(
    ("ports", "service", "container"),
    [
        ([{"port": 3306}], 3306, 3306),
        ([{"port": 5000, "targetPort": 6000}], 5000, 6000),
        ([{"port": 80}, {"port": 5000, "targetPort": 3306}], 5000, 3306),
        ([{"port": 80}, {"port": 90}], 3306, 3306),
        ([{"port": 80, "targetPort": "sql"}], 80, 3306),
        ([{"port": 80, "targetPort": "nothing"}], 80, 3306),
        ([], 3306, 3306),
    ],
)
async def test_the_port_is_the_one_that_the_service_leads_to(source, ports, service, container):
    source.kube.change("Service", "data", SERVICE, lambda found: found["spec"].update(ports=ports))
    await adopted(source)
    assert source.status("DataStore", "shop")["endpoint"]["port"] == service
    assert source.world.engine.logins[-1].port == container


@pytest.mark.parametrize(("asked", "of_pod", "found"), [(None, OWNER, OWNER), (70, OWNER, 70), (None, None, 999)])
async def test_the_user_is_the_one_asked_for_else_that_of_the_pod_else_the_engines(story, asked, of_pod, found):
    add_source(story, user=of_pod)
    server_of(story).volume.owner = found
    await with_snapshot(story, **({} if asked is None else {"adopted": {"userID": asked}}))
    assert story.status("DataStore", "shop")["source"]["userID"] == found
    assert story.status("DataSnapshot", "first")["userID"] == found


async def test_a_source_that_runs_as_root_is_copied_by_the_engines_own_user(story):
    add_source(story, user=0)
    server_of(story).volume.owner = 999
    await with_snapshot(story)
    assert story.status("DataSnapshot", "first")["userID"] == 999


async def test_the_container_that_has_the_claim_says_the_user(source):
    source.delete("Pod", POD)
    proxy = {"name": "proxy", "image": "proxy", "securityContext": {"runAsUser": 1337}}
    add_pod(source, server_volume(source), before=[proxy], securityContext={"runAsUser": 70})
    await adopted(source)
    assert source.status("DataStore", "shop")["source"]["userID"] == 70


# -- deletion --


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_whatever_the_policy_nothing_of_it_goes_with_the_store(source, policy):
    """The API server refuses Delete; an object that was written past it changes nothing."""
    await with_snapshot(source, deletionPolicy=policy)
    source.clone()
    await source.settle()
    assert source.get("DataStore", "shop")["metadata"].get("finalizers", []) == []
    source.delete("DataStore", "shop")
    await source.settle()
    assert source.names("DataStore") == []
    assert set(NAMES) == set(stands(source))
    source.expect_ready("DataSnapshot", "first")
    assert source.rows() == {"alice"}


async def test_a_store_of_coppices_own_names_is_no_danger_to_a_source_that_has_them(story):
    """The source's objects are called what a managed store's would be."""
    for kind, name in (("Secret", "shop-admin"), ("Secret", "shop-binding"), ("Service", "shop")):
        add = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "data"}}
        story.kube.add({**add, **({"data": {}} if kind == "Secret" else {"spec": {"selector": {"app": "pg"}}})})
    add_source(story, "alice")
    before = story.kube.all("Secret", "data")
    await with_snapshot(story)
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.kube.all("Secret", "data") == before


# -- snapshots and clones --


async def test_a_snapshot_is_prepared_as_the_sources_user_and_so_are_its_clones(source):
    await with_snapshot(source, adopted={"directory": "pgdata"})
    status = source.status("DataSnapshot", "first")
    assert (status["version"], status["userID"], status["storageClassName"]) == ("1.0", OWNER, "fast")
    source.clone()
    await source.settle()
    source.expect_ready("DataClone", "db")
    assert source.rows() == {"alice"}
    security = source.get("Pod", source.copy())["spec"]["securityContext"]
    assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {OWNER}
    clone = source.world.login("data", "db-binding").volume
    assert "boss" not in clone.users
    assert clone.remotes == set()


async def test_a_clone_in_another_namespace_is_made_as_of_any_store(source):
    source.grant()
    await adopted(source)
    source.clone(namespace="app")
    await source.settle()
    assert source.rows(namespace="app") == {"alice"}


async def test_a_wrong_directory_fails_the_snapshot_and_not_the_store(source):
    await adopted(source, adopted={"directory": "elsewhere"})
    source.snapshot("first")
    await source.settle()
    message = source.expect_stalled("DataSnapshot", "first", "PreparationFailed")
    assert "Pod first-prepare failed: the volume is not laid out as elsewhere. Put that right" in message
    source.expect_ready("DataStore", "shop")


async def test_the_data_of_another_server_than_the_one_that_answers_make_no_snapshot(source):
    data = source.world.volume("data", CLAIM)
    data.server = "1f"
    await with_snapshot(source)
    source.expect_ready("DataSnapshot", "first")
    other = data.copy()
    other.server = "2e"
    source.world.volumes[source.get("PersistentVolumeClaim", CLAIM)["metadata"]["uid"]] = other
    source.snapshot("second")
    await source.settle()
    message = source.expect_stalled("DataSnapshot", "second", "OtherServer")
    assert f"the data on claim {CLAIM} are of another server than the one behind Service {SERVICE}" in message
    assert source.names("VolumeSnapshot") == ["first", "second-raw"]


async def test_its_server_makes_ready_before_it_is_captured_and_with_its_own_login(source):
    engine = source.world.engine
    engine.capture_action = "flush"
    await adopted(source)
    captured = []
    engine.before_call = lambda action: captured.append((action, source.names("VolumeSnapshot")))
    source.snapshot("first")
    await source.settle()
    source.expect_ready("DataSnapshot", "first")
    assert captured == [("flush", [])]
    assert {at.username for at in engine.logins if at.host == ADDRESS} == {"coppice"}


async def test_a_secret_that_was_taken_back_is_not_used_for_the_next_capture(source):
    engine = source.world.engine
    engine.capture_action = "flush"
    await adopted(source)
    source.kube.change("Secret", "data", SECRET, lambda found: found["metadata"].pop("annotations"))
    before = len(engine.logins)
    source.snapshot("first")
    await source.settle()
    assert "kubectl annotate" in source.condition("DataSnapshot", "first")["message"]
    assert len(engine.logins) == before
    assert source.names("VolumeSnapshot") == []


async def test_a_database_that_was_named_just_now_is_not_captured_before_anybody_could_log_in(source):
    """Whoever may write the DataStore, but not log in to a neighbour's database, gets no copy of that."""
    await adopted(source)
    add_claim(source, "theirs")
    source.world.turn()
    source.world.turn()
    neighbour = source.world.volume("data", "theirs")
    neighbour.initialise("shop", frozenset({"secret"}), source.world.now)
    neighbour.users = {"them": "well-kept"}
    add_pod(source, neighbour, name="theirs-0", claim="theirs", address="10.9.0.3", labels={"app": "theirs"})
    service = {"metadata": {"name": "theirs", "namespace": "data"}, "spec": {"selector": {"app": "theirs"}}}
    source.kube.add({"apiVersion": "v1", "kind": "Service", **service})
    source.snapshot("first")
    source.edit("DataStore", "shop", adopted={"claimName": "theirs", "service": "theirs"})
    await source.operator.reconcile(Key("DataSnapshot", "data", "first"))
    await source.settle()
    source.expect_stalled("DataStore", "shop", "CredentialsRefused")
    assert source.names("VolumeSnapshot") == []


async def test_nothing_is_captured_of_a_source_that_is_down_and_it_is_named(source):
    await adopted(source)
    source.kube.change("Pod", "data", POD, unready)
    source.snapshot("first")
    await source.settle()
    assert source.reason("DataSnapshot", "first") == "StoreNotReady"
    await source.operator.live(minutes=3)
    message = source.condition("DataSnapshot", "first")["message"]
    assert "no Pod that Service pg selects is Ready" in message
    assert source.names("VolumeSnapshot") == []
    ready = {"type": "Ready", "status": "True"}
    source.kube.change("Pod", "data", POD, lambda found: found["status"].update(conditions=[ready]))
    await source.operator.live(minutes=3)
    source.expect_ready("DataSnapshot", "first")


async def test_a_source_that_goes_while_it_is_copied_loses_no_snapshot(source):
    await adopted(source)
    source.snapshot("first")
    await source.operator.until(lambda: raw_is_ready(source))
    lose(source)
    await source.settle()
    source.expect_ready("DataSnapshot", "first")
    assert source.status("DataSnapshot", "first")["userID"] == OWNER


def raw_is_ready(story):
    raw = story.kube.peek("VolumeSnapshot", "data", "first-raw")
    return raw is not None and (raw.get("status") or {}).get("readyToUse")


def lose(story):
    """The node is gone, and with it all that was on it."""
    story.delete("Pod", POD)
    story.delete("PersistentVolumeClaim", CLAIM)
    story.delete("Service", SERVICE)
    story.delete("Secret", SECRET)


async def test_a_source_that_is_gone_loses_no_snapshot_and_no_clone_and_new_ones_can_be_made(source):
    await with_snapshot(source)
    source.clone()
    await source.settle()
    lose(source)
    await source.operator.live(minutes=5)
    assert "stay as they are" in source.expect_stalled("DataStore", "shop", "ClaimNotFound")
    source.expect_ready("DataSnapshot", "first")
    source.expect_ready("DataClone", "db")
    assert source.rows() == {"alice"}
    source.clone("again", source={"snapshot": "first"})
    await source.settle()
    assert source.rows("again") == {"alice"}
    source.annotate("DataClone", "db", reset="now")
    await source.operator.live(minutes=1)
    assert source.rows() == {"alice"}, "the copy that serves goes on"


async def test_after_a_failover_the_other_claim_is_named_and_taken(source):
    await with_snapshot(source)
    source.delete("Pod", POD)
    add_claim(source, "data-pg-1")
    source.world.turn()
    source.world.turn()
    volume = source.world.volume("data", "data-pg-1")
    copied = server_volume(source).copy()
    volume.__dict__.update(copied.__dict__)
    add_pod(source, volume, name="pg-1", claim="data-pg-1", address="10.9.0.2")
    await source.operator.live(minutes=2)
    assert "data-pg-1" in source.expect_stalled("DataStore", "shop", "ClaimNotServed")
    source.edit("DataStore", "shop", adopted={"claimName": "data-pg-1"})
    await source.settle()
    source.expect_ready("DataStore", "shop")
    source.clone()
    await source.settle()
    assert source.rows() == {"alice"}


async def test_scheduled_snapshots_come_and_go_as_of_any_store(source):
    await adopted(source, snapshots={"schedule": "0 * * * *", "keep": {"last": 1}})
    await source.operator.live(hours=3)
    assert len(source.names("DataSnapshot")) == 1
    source.expect_ready("DataSnapshot", source.names("DataSnapshot")[0])


async def test_a_silent_source_is_said_and_comes_back_by_itself(source):
    await adopted(source)
    server_of(source).fault = UnreachableError("silence")
    await source.operator.live(minutes=2)
    assert source.reason("DataStore", "shop") == "NotAnswering"
    assert source.status("DataStore", "shop")["version"] == "1.0.0-fake"
    server_of(source).fault = None
    await source.operator.live(minutes=1)
    source.expect_ready("DataStore", "shop")


# -- branches --


async def test_no_branch_is_made_in_it(source):
    await adopted(source)
    source.branch("autumn", deletionPolicy="Delete")
    await source.settle()
    assert "DataClone" in source.expect_stalled("DataBranch", "autumn", "AdoptedStore")
    assert "autumn" not in server_of(source).volume.branches
    source.delete("DataBranch", "autumn")
    await source.settle()
    assert source.names("DataBranch") == []


async def test_a_branch_that_is_there_is_not_deleted_with_an_object_of_its_name(source):
    server_of(source).volume.branches["autumn"] = server_of(source).volume.branches["main"]
    await adopted(source)
    source.branch("autumn", deletionPolicy="Delete")
    await source.settle()
    source.delete("DataBranch", "autumn")
    await source.settle()
    assert "autumn" in server_of(source).volume.branches


async def test_a_commit_of_it_is_resolved_by_asking_it(source):
    head = server_of(source).volume.branches["main"].head
    await adopted(source)
    source.clone(source={"commit": head})
    await source.settle()
    source.expect_ready("DataClone", "db")


# -- crashes --


async def take(story):
    """Adopt, capture and clone."""
    story.adopted()
    story.snapshot("first")
    story.clone()
    await story.settle()


async def give_up(story):
    story.delete("DataClone", "db")
    story.delete("DataStore", "shop")
    await story.settle()


async def test_a_crash_at_any_write_touches_nothing_of_it(story):
    add_source(story, "alice")
    await story.settle()
    before = stands(story)
    deaths = Deaths(story, every=1 if os.environ.get("COPPICE_THOROUGH") else 3)
    await take(story)
    deaths.stop()
    assert len(deaths.moments) > 4
    for when, after in deaths.moments:
        await after.settle()
        await give_up(after)
        assert (touched(after), stands(after)) == ([], before), when


async def test_the_services_of_two_adopted_stores_may_share_a_namespace(source):
    await adopted(source)
    add_secret_for = {"name": "other-coppice", "namespace": "data", "annotations": {"coppice.dev/store": "other"}}
    data = encoded(username="coppice", password="looks")
    source.kube.add({"apiVersion": "v1", "kind": "Secret", "metadata": add_secret_for, "data": data})
    source.adopted("other", adopted={"credentialsSecret": "other-coppice"})
    await source.settle()
    source.expect_ready("DataStore", "other")
    source.expect_ready("DataStore", "shop")


async def test_its_migrations_are_read_in_snapshots_and_nobody_asks_its_server_for_them(story):
    add_source(story, "alice", "flyway 1")
    asked = []

    async def ledger(at, database):
        asked.append((at.host, database))

    story.world.engine.ledger = ledger
    await with_snapshot(story)
    story.clone(source={"migration": "1"})
    story.clone("early", source={"migration": "0.5"})
    await story.settle()
    story.expect_ready("DataClone", "db")
    assert "first is at flyway 1" in story.expect_stalled("DataClone", "early", "NoSnapshotFits")
    assert asked == []
    assert story.names("DataSnapshot") == ["first"]
