"""Databases elsewhere: copied as a whole, made new beside the old, and never lost for a refresh that fails."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from tests.fakes.audit import orphans

from coppice.api.v1alpha1 import DataStore
from coppice.core import labels
from coppice.engines.base import Finding, MirrorFailure
from coppice.manifests.secret import login_state
from coppice.reconcile.backing import present_backing
from coppice.reconcile.mirror.refresh import FAILURES, rough_age
from coppice.reconcile.told import GivenUp, Progress, Restored, parse_told

HOST = "db.example.com"


@pytest.fixture
def source(story):
    """A story with a database outside, and a Secret by which it may be read."""
    story.source("album/1")
    story.source_secret()
    return story


async def mirrored(story, **spec):
    story.mirror(mirror={"schedule": "0 * * * *", **spec.pop("mirror", {})}, **spec)
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def failing(story, word="DumpFailed"):
    """Have a store with a good copy whose next refresh fails."""
    await mirrored(story)
    story.world.dump_fails = word
    story.annotate("DataStore", "shop", refresh="now")
    await story.settle()


def elsewhere(story):
    return story.world.elsewhere[HOST]


def refill(story, *rows):
    elsewhere(story).rows = frozenset(rows)


def claims(story):
    return [name for name in story.names("PersistentVolumeClaim", "data") if "mirror" in name]


def held(story):
    """Return the rows that the store's server serves."""
    [server] = [
        server
        for server in story.world.engine.servers.values()
        if server.pod_uid == story.get("Pod", "shop-server")["metadata"]["uid"]
    ]
    return server.volume.branches["main"].rows


def fresh(story):
    return story.condition("DataStore", "shop", of="MirrorFresh")


def mirror_status(story):
    return story.status("DataStore", "shop")["mirror"]


def correct(story, **values):
    def change(secret):
        secret["data"] |= {key: b64encode(value.encode()).decode() for key, value in values.items()}

    story.kube.change("Secret", "data", "prod-read", change)


# -- the copy --


async def test_a_database_elsewhere_becomes_a_store_that_nobody_logs_in_to(source):
    await mirrored(source)
    assert held(source) == {"album/1"}
    status = source.status("DataStore", "shop")
    assert mirror_status(source) == {
        "refreshedAt": "2026-03-02T09:00:00Z",
        "sourceVersion": "14.9",
        "tables": 3,
        "findings": [],
        "nextRefreshAt": "2026-03-02T10:00:00Z",
    }
    assert "binding" not in status
    assert "endpoint" not in status
    assert source.names("Service", "data") == []
    assert source.names("Secret", "data") == ["prod-read", "shop-admin"]
    assert source.names("Pod", "data") == ["shop-server"]
    assert claims(source) == ["shop-mirror-00001"]


async def test_only_the_operator_is_let_in_to_its_server(source):
    await mirrored(source)
    [rule] = source.get("NetworkPolicy", "shop")["spec"]["ingress"]
    uid = source.get("DataStore", "shop")["metadata"]["uid"]
    assert rule["from"][0] == {"podSelector": {"matchLabels": {labels.OWNER_UID: uid}}}


async def test_the_login_is_given_to_the_one_program_that_reads_and_the_network_too(source):
    source.world.silent = True
    source.mirror()
    await source.settle()
    [pod] = source.kube.all("Pod", "data")
    assert pod["metadata"]["name"] == "shop-dump"
    assert [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume] == ["prod-read"]
    policy = source.get("NetworkPolicy", "shop-dump")["spec"]
    assert policy["podSelector"]["matchLabels"][labels.ROLE] == "dump"
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [3306, 53, 53]
    source.world.silent = False
    source.delete("Pod", "shop-dump")
    source.world.restore_fails = "RestoreFailed"
    await source.settle()
    pod = source.get("Pod", "shop-restore")
    assert [volume for volume in pod["spec"]["volumes"] if "secret" in volume] == []
    assert "egress" not in source.get("NetworkPolicy", "shop-restore")["spec"]


async def test_how_far_it_is_stands_in_the_status(source):
    source.world.silent = True
    source.mirror()
    await source.settle()
    assert source.reason("DataStore", "shop") == "Refreshing"
    refresh = mirror_status(source)["refresh"]
    assert (refresh["phase"], refresh["done"], refresh["total"]) == ("Dumping", 1, 3)
    assert refresh["since"] == "2026-03-02T09:00:00Z"


async def test_snapshots_and_clones_are_made_of_it_as_of_any_store(source):
    await mirrored(source)
    source.grant()
    source.clone()
    source.clone("next", namespace="app")
    await source.settle()
    assert source.rows() == source.rows("next", "app") == {"album/1"}


# -- refreshes --


async def test_it_is_refreshed_by_its_schedule_beside_the_copy_that_serves(source):
    await mirrored(source)
    refill(source, "album/1", "album/2")
    await source.operator.live(minutes=61)
    assert held(source) == {"album/1", "album/2"}
    assert claims(source) == ["shop-mirror-00002"]
    assert mirror_status(source)["refreshedAt"] >= "2026-03-02T10:00:00Z"
    assert elsewhere(source).reads == 2
    assert orphans(source.world) == []


async def test_nothing_is_written_between_two_refreshes(source):
    await mirrored(source)
    await source.operator.live(minutes=1)
    before = len(source.world.writes)
    await source.operator.live(minutes=50)
    assert source.world.writes[before:] == []


async def test_without_a_schedule_it_is_refreshed_on_request_and_once_for_each(source):
    await mirrored(source, mirror={"schedule": None})
    await source.operator.live(hours=30)
    assert elsewhere(source).reads == 1
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert elsewhere(source).reads == 2
    asked = source.get("DataStore", "shop")["metadata"]["annotations"]["coppice.dev/refresh-requested-at"]
    assert mirror_status(source)["refreshRequestedAt"] == asked
    await source.operator.live(hours=2)
    assert elsewhere(source).reads == 2


async def test_a_request_that_comes_during_a_refresh_is_for_another_one(source):
    await mirrored(source, mirror={"schedule": None})
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.world.tick(60)
    source.annotate("DataStore", "shop", refresh="now")
    source.world.silent = False
    source.delete("Pod", "shop-dump")
    await source.settle()
    assert elsewhere(source).reads == 3


async def test_a_request_that_is_no_time_is_named_and_not_acted_upon(source):
    await mirrored(source, mirror={"schedule": None})
    source.annotate("DataStore", "shop", refresh="soon")
    await source.settle()
    source.expect_ready("DataStore", "shop")
    assert source.condition("DataStore", "shop", of="RequestAccepted")["reason"] == "NotATime"
    assert elsewhere(source).reads == 1


async def test_a_schedule_that_never_comes_is_named(source):
    await mirrored(source, mirror={"schedule": "0 0 31 2 *"})
    found = source.condition("DataStore", "shop", of="RefreshScheduled")
    assert (found["reason"], "spec.mirror.schedule" in found["message"]) == ("ScheduleNeverComes", True)


async def test_clones_live_across_a_switch_and_new_ones_are_of_the_new_copy(source):
    await mirrored(source)
    source.clone()
    await source.settle()
    source.world.login("data", "db-binding").volume.write("main", "mine")
    refill(source, "album/2")
    await source.operator.live(minutes=61)
    assert source.rows() == {"album/1", "mine"}
    source.clone("db2")
    await source.settle()
    assert source.rows("db2") == {"album/2"}


async def test_a_snapshot_that_is_taken_during_a_switch_holds_one_of_the_copies(source):
    """The claim that it names may be replaced before the driver has looked at it: it is taken anew."""
    await mirrored(source)
    source.world.snapshot_error = "busy"
    source.snapshot("mine")
    await source.settle()
    raw = source.get("VolumeSnapshot", "mine-raw")
    assert raw["spec"]["source"]["persistentVolumeClaimName"] == "shop-mirror-00001"
    refill(source, "album/2")
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.world.snapshot_error = None
    await source.operator.live(minutes=5)
    source.expect_ready("DataSnapshot", "mine")
    source.clone(source={"snapshot": "mine"})
    await source.settle()
    assert source.rows() == {"album/2"}


async def test_the_old_copy_stays_until_the_server_answers_from_the_new_one(source):
    await mirrored(source)
    source.world.crashing = lambda pod: pod["metadata"]["name"] == "shop-server"
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert claims(source) == ["shop-mirror-00001", "shop-mirror-00002"]
    source.world.crashing = lambda pod: False
    source.world.tick(600)
    await source.operator.live(minutes=11)
    source.expect_ready("DataStore", "shop")
    assert claims(source) == ["shop-mirror-00002"]


async def test_another_version_is_that_of_the_next_copy_which_is_made_at_once(source):
    await mirrored(source)
    source.edit("DataStore", "shop", mirror={"version": "2.0"})
    await source.settle()
    source.expect_ready("DataStore", "shop")
    pod = source.get("Pod", "shop-server")
    assert pod["spec"]["containers"][0]["image"] == "example.com/fake:2.0"
    assert elsewhere(source).reads == 2
    source.snapshot("mine")
    await source.settle()
    assert source.status("DataSnapshot", "mine")["version"] == "2.0"


async def test_until_the_next_copy_is_there_the_server_runs_with_the_version_that_wrote_the_one_it_has(source):
    await mirrored(source)
    source.world.silent = True
    source.edit("DataStore", "shop", mirror={"version": "2.0"})
    await source.settle()
    source.expect_ready("DataStore", "shop")
    assert source.get("Pod", "shop-server")["spec"]["containers"][0]["image"] == "example.com/fake:1.0"
    assert source.get("Pod", "shop-dump")["spec"]["containers"][0]["image"] == "example.com/fake:2.0"


async def test_another_source_is_read_at_once(source):
    await mirrored(source)
    source.source("album/9", host="other.example.com")
    correct(source, host="other.example.com")
    await source.operator.live(minutes=2)
    assert held(source) == {"album/9"}


async def test_a_refresh_from_another_source_than_is_named_by_now_begins_anew(source):
    await mirrored(source)
    source.source("album/9", host="other.example.com")
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    correct(source, host="other.example.com")
    source.world.silent = False
    await source.operator.live(minutes=1)
    assert held(source) == {"album/9"}
    assert claims(source) == ["shop-mirror-00003"]


async def test_what_a_snapshot_says_of_its_volume_is_the_database_of_the_copy_and_not_the_one_before(source):
    """Between the switch and the new server's first answer the status has the database of the copy before."""
    await mirrored(source)
    correct(source, database="till")
    await source.operator.live(minutes=2)
    assert source.status("DataStore", "shop")["databases"] == ["till"]
    [name] = claims(source)
    claim, manifest = source.get("PersistentVolumeClaim", name), source.get("DataStore", "shop")
    manifest["status"]["databases"] = ["shop"]
    backing = present_backing(DataStore.parse(manifest), source.world.engine, claim, None)
    assert backing.database == "till"


# -- what goes wrong --


@pytest.mark.parametrize("word", get_args(MirrorFailure))
async def test_a_refresh_that_fails_keeps_the_last_good_copy_and_says_why_and_how_old_it_is(source, word):
    await failing(source, word)
    source.expect_ready("DataStore", "shop")
    assert held(source) == {"album/1"}
    found = fresh(source)
    assert (found["status"], found["reason"]) == ("False", word)
    assert "table album" in found["message"]
    assert "2026-03-02T09:00:00Z, less than 10m old, is kept and served" in found["message"]
    assert "kubectl logs -n data shop-dump" in found["message"]
    await source.operator.live(hours=3)
    assert "3h old" in fresh(source)["message"]
    source.clone()
    await source.settle()
    assert source.rows() == {"album/1"}


async def test_a_first_refresh_that_fails_is_what_the_store_says(source):
    source.world.dump_fails = "SourceRefusesLogin"
    source.mirror()
    await source.settle()
    message = source.expect_stalled("DataStore", "shop", "SourceRefusesLogin")
    assert "2026-03-02T09:05:0" in message
    assert source.names("Pod", "data") == ["shop-dump"]


async def test_what_may_pass_is_waited_for_and_after_some_tries_said(source):
    source.world.dump_fails = "SourceUnreachable"
    source.mirror()
    await source.settle()
    assert source.condition("DataStore", "shop", of="Stalled")["status"] == "False"
    await source.operator.live(minutes=20)
    source.expect_stalled("DataStore", "shop", "SourceUnreachable")


async def test_a_program_that_was_killed_is_a_failure_by_its_exit_code(source):
    await mirrored(source)
    source.world.crashing = lambda pod: pod["metadata"]["name"] == "shop-dump"
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert (fresh(source)["reason"], "exit code 1" in fresh(source)["message"]) == ("DumpFailed", True)


async def test_a_restore_that_fails_reads_the_source_again_only_after_a_pause(source):
    await mirrored(source)
    source.world.restore_fails = "RestoreFailed"
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert (fresh(source)["reason"], elsewhere(source).reads) == ("RestoreFailed", 2)
    source.world.restore_fails = None
    await source.operator.live(minutes=6)
    assert (fresh(source)["reason"], elsewhere(source).reads) == ("Refreshed", 3)
    assert claims(source) == ["shop-mirror-00003"]


async def test_it_is_tried_again_with_pauses_that_grow(source):
    await failing(source)
    reads = []
    for _ in range(5):
        await source.operator.live(minutes=60)
        reads.append(elsewhere(source).reads - 1)
    # After 5, 10, 20 and 40 minutes, then every hour; and the schedule does not come on top.
    assert reads == [4, 5, 6, 7, 8]
    source.world.dump_fails = None
    await source.operator.live(minutes=60)
    assert fresh(source)["reason"] == "Refreshed"
    assert len(claims(source)) == 1


@pytest.mark.parametrize("act", ["secret", "request"])
async def test_whoever_puts_it_right_need_not_wait(source, act):
    await failing(source)
    await source.operator.live(minutes=1)
    source.world.dump_fails = None
    if act == "secret":
        elsewhere(source).password = "changed"
        correct(source, password="changed")
    else:
        source.annotate("DataStore", "shop", refresh="now")
    await source.operator.live(minutes=1)
    assert fresh(source)["reason"] == "Refreshed"


async def test_whoever_touches_the_secret_and_leaves_its_login_alone_changes_nothing_of_a_pause(source):
    await failing(source)
    before = elsewhere(source).reads
    for number in range(4):

        def touch(secret, number=number):
            secret["metadata"]["annotations"]["synced-at"] = str(number)
            secret["data"]["other"] = b64encode(str(number).encode()).decode()

        source.kube.change("Secret", "data", "prod-read", touch)
        await source.operator.live(minutes=1)
    assert elsewhere(source).reads == before


def test_the_state_of_a_login_is_another_with_another_login_and_to_nobody_without_the_key_a_guess():
    def secret(uid="u", **data):
        return {"metadata": {"uid": uid}, "data": {"password": "eA==", **data}}

    key, other = {"data": {"admin-password": "eQ=="}}, {"data": {"admin-password": "eg=="}}
    state = login_state(secret(), key)
    assert login_state(secret(more="x"), key) == state
    states = [
        state,
        login_state(secret(password="eQ=="), key),
        login_state(secret("v"), key),
        login_state(secret(), other),
    ]
    assert len({*states, login_state(secret(username="eA=="), key)}) == 5


async def test_a_source_without_rows_is_taken_for_the_wrong_one_where_the_copy_has_some(source):
    await mirrored(source)
    refill(source)
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert fresh(source)["reason"] == "SourceEmpty"
    assert held(source) == {"album/1"}


async def test_an_empty_source_is_mirrored_where_there_was_nothing_before(story):
    story.source()
    story.source_secret()
    await mirrored(story)
    assert held(story) == frozenset()


@pytest.mark.parametrize(
    ("secret", "reason", "hint"),
    [
        (None, "CredentialsNotFound", "coppice.dev/store=shop"),
        ({"store": None}, "CredentialsNotMeant", "kubectl annotate secret prod-read -n data coppice.dev/store=shop"),
        ({"store": "till"}, "CredentialsNotMeant", "coppice.dev/store=shop"),
        ({"host": ""}, "CredentialsIncomplete", "host"),
        ({"host": "/var/run"}, "CredentialsIncomplete", "host"),
        ({"host": "a,b"}, "CredentialsIncomplete", "host"),
        ({"port": "0x1"}, "CredentialsIncomplete", "port"),
        ({"port": "70000"}, "CredentialsIncomplete", "port"),
        ({"username": ""}, "CredentialsIncomplete", "username"),
        ({"password": "two\nlines"}, "CredentialsIncomplete", "password"),
        ({"database": "a=b"}, "CredentialsIncomplete", "database"),
        ({"sslmode": "prefer"}, "CredentialsIncomplete", "sslmode"),
        ({"sslmode": "verify-full"}, "CredentialsIncomplete", "ca.crt"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named_and_nothing_is_begun(story, secret, reason, hint):
    story.source("album/1")
    if secret is not None:
        story.source_secret(**secret)
    story.mirror()
    await story.settle()
    found = story.condition("DataStore", "shop")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert hint in found["message"]
    assert "two" not in found["message"]
    assert story.names("Pod", "data") == claims(story) == []
    if secret is not None:
        story.delete("Secret", "prod-read")
    story.source_secret()
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")


async def test_a_login_that_is_taken_back_is_not_used_any_more_from_then_on(source):
    await mirrored(source)
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.kube.change("Secret", "data", "prod-read", lambda secret: secret["metadata"].pop("annotations"))
    await source.operator.live(seconds=20)
    assert "shop-dump" not in source.names("Pod", "data")
    assert fresh(source)["reason"] == "CredentialsNotMeant"
    source.expect_ready("DataStore", "shop")


async def test_a_program_that_its_node_took_away_is_made_anew_on_the_same_copy(source):
    await mirrored(source)
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.world.silent = False
    source.world.evict(source.get("Pod", "shop-dump"))
    await source.settle()
    assert fresh(source)["reason"] == "Refreshed"
    assert claims(source) == ["shop-mirror-00002"]


async def test_a_program_that_cannot_start_is_named(source):
    await mirrored(source)
    source.world.broken_images.add("example.com/fake:2.0")
    source.edit("DataStore", "shop", mirror={"version": "2.0"})
    await source.operator.live(minutes=4)
    source.expect_ready("DataStore", "shop")
    assert (fresh(source)["reason"], "ImagePullBackOff" in fresh(source)["message"]) == ("RefreshStuck", True)


def rewrite_report(story, change, *, times=1000):
    """Have what a restore tells be changed, some times; return the Pods whose report was."""
    changed = set()

    def listen(kind, manifest):
        del kind
        metadata, ended = manifest["metadata"], (manifest.get("status") or {}).get("phase") == "Succeeded"
        if (manifest["kind"], metadata["name"], ended) != ("Pod", "shop-restore", True):
            return
        key = ("data", "shop-restore", "engine")
        if metadata["uid"] not in changed and len(changed) < times and key in story.kube.logs:
            changed.add(metadata["uid"])
            story.kube.logs[key] = change(story.kube.logs[key])

    story.kube.subscribe(listen)
    return changed


async def test_a_report_that_is_lost_is_told_again_after_a_pause_and_the_source_is_not_read_for_it(source):
    lost = rewrite_report(source, lambda _: "", times=1)
    source.mirror()
    await source.settle()
    source.expect_stalled("DataStore", "shop", "RestoreFailed")
    await source.operator.live(minutes=6)
    source.expect_ready("DataStore", "shop")
    assert len(lost) == 1
    assert elsewhere(source).reads == 1


async def test_a_report_that_nobody_can_read_is_a_try_that_failed_and_the_pauses_grow(source):
    await mirrored(source, mirror={"schedule": None})
    told = rewrite_report(source, lambda text: text.replace('"version": "14.9"', '"version": "14.9 "x""'))
    source.annotate("DataStore", "shop", refresh="now")
    await source.operator.live(minutes=1)
    assert (fresh(source)["reason"], "no report" in fresh(source)["message"]) == ("RestoreFailed", True)
    await source.operator.live(minutes=60)
    assert "4 times by now" in fresh(source)["message"]
    assert (len(told), elsewhere(source).reads) == (4, 2)
    source.annotate("DataStore", "shop", refresh="now")
    await source.operator.live(minutes=1)
    assert (len(told), elsewhere(source).reads) == (5, 3)
    source.expect_ready("DataStore", "shop")


async def test_a_report_may_be_longer_than_what_the_runtime_keeps_in_one_piece(source):
    found = json.dumps([{"reason": "SettingsLeftOut", "message": f"{number} {'x' * 280}"} for number in range(100)])
    rewrite_report(source, lambda text: text.replace('"findings": []', f'"findings": {found}'))
    await mirrored(source)
    assert len(mirror_status(source)["findings"]) == 20


async def test_a_copy_whose_claim_was_deleted_is_made_again_and_no_empty_one_in_its_place(source):
    await mirrored(source)
    source.delete("PersistentVolumeClaim", "shop-mirror-00001")
    await source.settle()
    source.expect_ready("DataStore", "shop")
    assert held(source) == {"album/1"}
    assert elsewhere(source).reads == 2


async def test_a_claim_of_a_refresh_that_was_deleted_is_made_again(source):
    await mirrored(source)
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.delete("PersistentVolumeClaim", "shop-mirror-00002")
    source.world.silent = False
    await source.settle()
    assert fresh(source)["reason"] == "Refreshed"
    assert orphans(source.world) == []


async def test_a_claim_of_the_first_refresh_that_was_deleted_is_made_again(source):
    source.world.silent = True
    source.mirror()
    await source.settle()
    source.delete("PersistentVolumeClaim", "shop-mirror-00001")
    source.world.silent = False
    await source.settle()
    source.expect_ready("DataStore", "shop")


async def test_a_program_has_its_policy_before_it_begins(source):
    await mirrored(source)
    for name in ("shop-dump", "shop-restore"):
        written = [entry for entry in source.world.writes if f"data/{name}" in entry and entry.startswith("ADDED")]
        assert [entry.split()[1] for entry in written] == ["NetworkPolicy", "Pod"]


async def test_a_lost_password_is_made_up_for_by_a_new_copy(source):
    await mirrored(source)
    source.delete("Secret", "shop-admin")
    await source.settle()
    source.expect_ready("DataStore", "shop")
    assert elsewhere(source).reads == 2


async def test_a_volume_that_is_not_the_refreshs_is_not_served(source):
    await mirrored(source)
    source.world.volume("data", "shop-mirror-00001").marker = "another"
    source.delete("Pod", "shop-server")
    await source.settle()
    assert not source.is_ready("DataStore", "shop")


async def test_an_engine_without_a_way_is_refused_by_name(source):
    source.world.engine.mirrors = False
    source.mirror()
    await source.settle()
    assert "managed or adopted" in source.expect_stalled("DataStore", "shop", "MirrorUnsupported")
    assert source.names("Pod", "data") == claims(source) == []


async def test_full_storage_holds_up_the_refresh_alone(source):
    await mirrored(source)
    source.world.full = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.operator.live(minutes=4)
    source.expect_ready("DataStore", "shop")
    assert fresh(source)["reason"] == "ProvisioningFailed"


async def test_a_class_that_waits_for_a_consumer_gets_one(source):
    await mirrored(source, mirror={"storage": {"size": "2Gi", "storageClassName": "late"}})
    assert held(source) == {"album/1"}


# -- the end --


async def test_with_the_store_go_its_programs_and_half_made_copies_and_the_complete_one_stays(source):
    await mirrored(source)
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    source.delete("DataStore", "shop")
    await source.settle()
    assert claims(source) == ["shop-mirror-00001"]
    assert source.names("Pod", "data") == []
    assert orphans(source.world) == []


async def test_half_made_copies_go_as_well_with_a_store_whose_specification_nobody_can_read(source):
    await mirrored(source)
    source.world.silent = True
    source.annotate("DataStore", "shop", refresh="now")
    await source.settle()
    assert claims(source) == ["shop-mirror-00001", "shop-mirror-00002"]
    source.edit("DataStore", "shop", mirror={"version": None})
    source.delete("DataStore", "shop")
    await source.settle()
    assert source.names("DataStore", "data") == []
    assert claims(source) == ["shop-mirror-00001"]
    assert orphans(source.world) == []


async def test_with_delete_all_of_it_goes(source):
    await mirrored(source, deletionPolicy="Delete")
    source.snapshot("mine")
    await source.settle()
    source.delete("DataStore", "shop")
    await source.settle()
    assert claims(source) == source.names("Pod", "data") == []
    assert source.names("Secret", "data") == ["prod-read"]
    assert source.names("DataSnapshot", "data") == ["mine"]


async def test_a_store_of_the_same_name_takes_the_copy_over(source):
    await mirrored(source)
    source.delete("DataStore", "shop")
    await source.settle()
    await mirrored(source)
    assert held(source) == {"album/1"}
    assert elsewhere(source).reads == 1
    await source.operator.live(minutes=61)
    assert claims(source) == ["shop-mirror-00002"]


async def test_a_store_of_the_same_name_and_another_source_does_not_stay_with_what_was_there(source):
    await mirrored(source)
    source.delete("DataStore", "shop")
    await source.settle()
    source.source("album/9", host="other.example.com")
    correct(source, host="other.example.com")
    await mirrored(source)
    assert held(source) == {"album/9"}


async def made_anew(source, host, **spec):
    """Have a store of the same name whose source is another, that does not answer."""
    await mirrored(source)
    source.delete("DataStore", "shop")
    await source.settle()
    correct(source, host=host)
    source.mirror(**spec)
    source.grant()
    source.clone("next", namespace="app")
    await source.operator.live(minutes=30)


async def test_what_an_earlier_store_held_of_another_source_is_kept_and_never_handed_out(source):
    await made_anew(source, "down.example.com")
    assert source.reason("DataStore", "shop") == "SourceUnreachable"
    assert not source.is_ready("DataStore", "shop")
    assert "refreshedAt" not in mirror_status(source)
    assert source.names("DataSnapshot", "data") == source.names("PersistentVolumeClaim", "app") == []
    assert source.names("Secret", "app") == []
    assert "shop-server" not in source.names("Pod", "data")
    assert "shop-mirror-00001" in claims(source)
    source.source("album/9", host="down.example.com")
    await source.operator.live(minutes=70)
    source.expect_ready("DataStore", "shop")
    assert source.rows("next", "app") == held(source) == {"album/9"}
    assert len(claims(source)) == 1


async def test_it_is_taken_over_once_the_secret_names_its_source_again(source):
    await made_anew(source, "down.example.com")
    source.world.silent = True
    correct(source, host=HOST)
    await source.operator.live(minutes=2)
    source.expect_ready("DataStore", "shop")
    assert source.rows("next", "app") == held(source) == {"album/1"}


async def test_it_is_not_the_new_stores_to_delete_before_its_own_copy_is_there(source):
    await made_anew(source, "down.example.com", deletionPolicy="Delete")
    source.delete("DataStore", "shop")
    await source.settle()
    assert claims(source) == ["shop-mirror-00001"]


async def test_without_the_secret_nobody_knows_whose_copy_it_is(source):
    await mirrored(source)
    source.delete("DataStore", "shop")
    source.delete("Secret", "prod-read")
    await source.settle()
    source.mirror()
    await source.operator.live(minutes=2)
    assert source.reason("DataStore", "shop") == "CredentialsNotFound"
    source.source_secret()
    await source.operator.live(minutes=2)
    source.expect_ready("DataStore", "shop")
    assert elsewhere(source).reads == 1


async def test_a_store_whose_secret_is_edited_keeps_its_copy_while_the_new_source_is_silent(source):
    await mirrored(source)
    correct(source, host="down.example.com")
    await source.operator.live(minutes=30)
    source.expect_ready("DataStore", "shop")
    assert held(source) == {"album/1"}


async def test_a_store_of_the_same_name_and_another_engine_touches_nothing(source):
    await mirrored(source)
    source.delete("DataStore", "shop")
    await source.settle()
    claim = source.get("PersistentVolumeClaim", "shop-mirror-00001")
    source.kube.change(
        "PersistentVolumeClaim", "data", claim["metadata"]["name"], lambda c: c["metadata"]["annotations"].update({labels.ENGINE: "dolt"})
    )  # fmt: skip
    source.mirror()
    await source.settle()
    source.expect_stalled("DataStore", "shop", "ForeignData")


async def test_a_claim_of_the_next_name_that_is_somebody_elses_is_left_alone(source):
    source.kube.add(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "shop-mirror-00001", "namespace": "data"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    source.mirror()
    await source.settle()
    source.expect_stalled("DataStore", "shop", "NameConflict")


# -- what the programs tell --


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"phase": "Dumping", "done": 1, "total": 3}', Progress("Dumping", 1, 3)),
        ('{"phase": "Connecting"}', Progress("Connecting")),
        ('{"phase": "Done"}', Progress("Done")),
        ('{"failed": "VolumeFull", "detail": ""}', GivenUp("VolumeFull", "")),
        (
            json.dumps(
                {
                    "phase": "Done",
                    "at": "2026-03-02T09:00:00Z",
                    "version": "15.4",
                    "database": "shop",
                    "tables": 3,
                    "filled": 2,
                    "findings": [{"reason": "LocaleReplaced", "message": "x"}],
                }
            ),
            Restored(datetime(2026, 3, 2, 9, tzinfo=UTC), "15.4", "shop", 3, 2, (Finding("LocaleReplaced", "x"),)),
        ),
        (
            '{"phase": "Done", "at": "today", "version": "15.4", "database": "a", "tables": 3, "filled": 2, "findings": []}',
            None,
        ),
        (
            '{"phase": "Done", "at": "2026-03-02T09:00:00Z", "version": "15.4", "tables": 3, "filled": 2, "findings": []}',
            None,
        ),
        ('{"phase": "Done", "at": "2026-03-02T09:00:00Z"}', None),
        ('{"failed": "VolumeFull"}', None),
        ("coppice: the server does not start", None),
        ("Killed", None),
        ("[]", None),
        ("{}", None),
        ("", None),
    ],
)
def test_the_last_line_of_a_log_tells_how_it_is_or_nothing(line, told):
    assert parse_told(line) == told


def test_every_failure_of_the_contract_has_its_words():
    assert FAILURES.keys() == set(get_args(MirrorFailure))


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(minutes=9), "less than 10m"),
        (timedelta(minutes=19), "10m"),
        (timedelta(minutes=59), "50m"),
        (timedelta(minutes=61), "1h"),
        (timedelta(days=2, hours=3, minutes=5), "2d3h"),
    ],
)
def test_an_age_is_told_roughly(age, words):
    assert rough_age(age) == words


# -- the mark --


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"version": "1"}', json.dumps({"held": {}})])
async def test_a_claim_with_another_mark_is_no_copy(source, text):
    await mirrored(source)
    source.kube.change(
        "PersistentVolumeClaim", "data", "shop-mirror-00001", lambda c: c["metadata"]["annotations"].update({labels.MIRRORED: text})
    )  # fmt: skip
    await source.settle()
    assert not source.is_ready("DataStore", "shop") or claims(source) != ["shop-mirror-00001"]


async def test_nothing_of_the_login_is_in_the_mark(source):
    await mirrored(source)
    mark = source.get("PersistentVolumeClaim", "shop-mirror-00001")["metadata"]["annotations"][labels.MIRRORED]
    assert not [word for word in (HOST, "reader", "reads") if word in mark]
