"""The small pure rules, as tables: schedules and retention, leases, consent, storage classes, which snapshot is chosen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.api.v1alpha1 import API_VERSION, DataStore, Lease, Verb
from coppice.core import labels
from coppice.core.conditions import timestamp
from coppice.engines.base import UnknownVersionError, UnreachableError, Version
from coppice.reconcile.choice import Chosen, MakeSnapshot, Wait, Wanted, choose
from coppice.reconcile.classes import ClusterClasses, NoStorage, StorageChoice, choose_storage
from coppice.reconcile.grants import Request, find_terms
from coppice.reconcile.lease import LeaseTerms, expires_at, lease_terms
from coppice.reconcile.schedule import SnapshotLine, next_number, plan_snapshots
from coppice.reconcile.stores import newest_ready

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
STORE_UID = "uid-store"


def ago(**length: float) -> str:
    return timestamp(NOW - timedelta(**length))


# -- schedule and retention --


def store(**snapshots):
    return {
        "apiVersion": API_VERSION,
        "kind": "DataStore",
        "metadata": {"name": "shop", "namespace": "data", "uid": STORE_UID, "creationTimestamp": ago(days=30)},
        "spec": {
            "engine": "fake",
            "managed": {"version": "1.0", "storage": {"size": "1Gi"}},
            "snapshots": snapshots,
        },
    }


def snapshot(number, created, *, purpose="schedule", state="Ready", owner=STORE_UID, deleting=False, **status):
    metadata = {
        "name": f"shop-{number:05d}",
        "namespace": "data",
        "uid": f"uid-snapshot-{number}",
        "creationTimestamp": created,
        "labels": {labels.OWNER_UID: owner, **({labels.PURPOSE: purpose} if purpose else {})},
        **({"deletionTimestamp": created} if deleting else {}),
    }
    conditions = [
        {"type": kind, "status": str(kind == state), "reason": "Because", "lastTransitionTime": created}
        for kind in ("Ready", "Stalled")
    ]
    spec = {"store": {"name": "shop"}}
    body = {"apiVersion": API_VERSION, "kind": "DataSnapshot", "metadata": metadata, "spec": spec}
    return {**body, "status": {"conditions": conditions, **status}}


def plan(snapshots, *, ready=True, **settings):
    manifest = store(**settings)
    parsed = DataStore.parse(manifest)
    assert isinstance(parsed, DataStore)
    return plan_snapshots(SnapshotLine(manifest, parsed, snapshots, NOW, ready))


def dropped(snapshots, **keep):
    return sorted(ref.name for ref in plan(snapshots, keep=keep).delete)


@pytest.mark.parametrize(
    ("schedule", "last", "due", "next_in"),
    [
        ("*/30 * * * *", {"minutes": 0}, False, 1800.0),
        ("*/30 * * * *", {"minutes": 30}, True, 1.0),
        ("*/30 * * * *", {"hours": 9}, True, 1.0),  # one for all that were missed
        ("0 3 * * *", {"hours": 8}, False, 15 * 3600.0),
        ("0 3 * * *", {"hours": 10}, True, 1.0),
        ("*/30 * * * *", None, True, 1.0),
        (None, {"hours": 9}, False, None),
        ("0 0 31 2 *", {"hours": 9}, False, None),  # a day that never comes
    ],
)
def test_a_scheduled_snapshot_is_made_when_it_is_due(schedule, last, due, next_in):
    found = [] if last is None else [snapshot(1, ago(**last))]
    result = plan(found, **({} if schedule is None else {"schedule": schedule}))
    assert (len(result.create) == 1, result.next_in) == (due, next_in)


def test_a_snapshot_of_another_purpose_does_not_count_as_a_scheduled_one():
    assert plan([snapshot(1, ago(minutes=1), purpose="clone")], schedule="*/30 * * * *").create


def test_a_store_that_is_not_ready_is_not_captured_and_keeps_nobody_busy():
    result = plan([snapshot(1, ago(hours=9))], ready=False, schedule="*/30 * * * *")
    assert (result.create, result.next_in) == ((), None)


def test_the_next_number_is_taken_by_nobody():
    found = [snapshot(3, ago(hours=1)), snapshot(12, ago(hours=2), purpose=None), snapshot(7, ago(hours=3))]
    assert next_number(found, "shop") == 13
    assert next_number([], "shop") == 1
    assert next_number(found, "shop-2") == 1


def test_the_last_ones_stay():
    found = [snapshot(number, ago(hours=number)) for number in range(1, 6)]
    assert dropped(found, last=2) == ["shop-00003", "shop-00004", "shop-00005"]


def test_one_of_each_hour_and_day_stays():
    found = [snapshot(number, ago(minutes=20 * number)) for number in range(1, 13)]  # 11:40 down to 08:00
    assert dropped(found, last=1, hourly=3) == [
        f"shop-{number:05d}" for number in range(1, 13) if number not in {1, 4, 7}
    ]
    days = [snapshot(number, ago(hours=12 * number)) for number in range(1, 9)]
    assert dropped(days, last=1, daily=2) == [f"shop-{number:05d}" for number in range(1, 9) if number not in {1, 2}]


@pytest.mark.parametrize(
    ("entry", "goes"),
    [
        (snapshot(1, ago(hours=5)), True),
        (snapshot(1, ago(hours=5), purpose=None), False),  # a user's own
        (snapshot(1, ago(hours=5), owner="uid-of-an-earlier-store"), False),
        (snapshot(1, ago(minutes=5)), False),  # a clone may be on its way from it
        (snapshot(1, ago(hours=5), state="Stalled"), True),  # failed
        (snapshot(1, ago(hours=5), state="Reconciling"), False),  # slow, but on its way
        (snapshot(1, ago(hours=5), deleting=True), False),
    ],
)
def test_what_goes_besides_the_kept_ones(entry, goes):
    kept = snapshot(2, ago(minutes=1))
    assert dropped([entry, kept], last=1) == (["shop-00001"] if goes else [])


@given(st.lists(st.integers(0, 60 * 24 * 9), max_size=40), st.integers(1, 5), st.integers(0, 30), st.integers(0, 9))
def test_retention_drops_no_newest_ones_and_comes_to_rest(ages, last, hourly, daily):
    keep = {"last": last, "hourly": hourly, "daily": daily}
    found = [snapshot(number, ago(minutes=age)) for number, age in enumerate(ages)]
    gone = set(dropped(found, **keep))
    newest = sorted(found, key=lambda entry: entry["metadata"]["creationTimestamp"], reverse=True)[:1]
    assert not gone & {entry["metadata"]["name"] for entry in newest}
    rest = [entry for entry in found if entry["metadata"]["name"] not in gone]
    assert dropped(rest, **keep) == []


# -- leases --

DEFAULT = LeaseTerms(idle=timedelta(hours=2), longest=timedelta(days=3))


@pytest.mark.parametrize(
    ("lease", "allowed", "idle", "longest", "refused"),
    [
        ({}, None, {"hours": 2}, {"days": 3}, None),
        ({}, {"days": 1}, {"hours": 2}, {"days": 1}, None),
        ({"max": "1h"}, None, None, {"hours": 1}, None),  # who asks for one end gets no other
        ({"max": "Never"}, None, None, None, None),
        ({"max": "Never"}, {"days": 7}, None, {"days": 7}, "lease.max Never"),
        ({"max": "30d"}, {"days": 7}, None, {"days": 7}, "lease.max 30d"),
        ({"max": "7d"}, {"days": 7}, None, {"days": 7}, None),
        ({"idle": "30m"}, None, {"minutes": 30}, {"days": 3}, None),
        ({"idle": "Never"}, None, None, {"days": 3}, None),
        ({"idle": "30m", "max": "1d"}, {"hours": 1}, {"minutes": 30}, {"hours": 1}, "lease.max 1d"),
        ({"idle": "30d"}, {"days": 1}, {"days": 30}, {"days": 1}, "lease.idle 30d"),
        ({"idle": "Never"}, {"days": 1}, None, {"days": 1}, None),
        ({"idle": "2d", "max": "3d"}, {"days": 1}, {"days": 2}, {"days": 1}, "lease.idle 2d and lease.max 3d"),
    ],
)
def test_a_lease_is_what_was_asked_for_within_what_is_allowed(lease, allowed, idle, longest, refused):
    terms = lease_terms(
        Lease.model_validate(lease),
        allowed=None if allowed is None else timedelta(**allowed),
        default=DEFAULT,
    )
    assert terms.idle == (None if idle is None else timedelta(**idle))
    assert terms.longest == (None if longest is None else timedelta(**longest))
    assert terms.refused == refused


@pytest.mark.parametrize(
    ("idle", "longest", "active", "end"),
    [
        (None, None, 0, None),
        (None, 3, 2, 3),
        (1, None, 2, 3),
        (1, 2, 0, 1),
        (1, 2, 1.5, 2),  # use does not move the longest end
    ],
)
def test_a_lease_ends_after_the_last_use_or_whatever_happens(idle, longest, active, end):
    terms = LeaseTerms(
        idle=None if idle is None else timedelta(hours=idle),
        longest=None if longest is None else timedelta(hours=longest),
    )
    found = expires_at(terms, asked=NOW, active=NOW + timedelta(hours=active))
    assert found == (None if end is None else NOW + timedelta(hours=end))


# -- consent --


def grant(name="previews", *, deleting=False, **spec):
    wanted = {"store": "shop", "to": {"namespaces": ["app"]}, "verbs": ["Clone"], **spec}
    metadata = {"name": name, "namespace": "data", **({"deletionTimestamp": ago(hours=1)} if deleting else {})}
    return {"apiVersion": API_VERSION, "kind": "DataGrant", "metadata": metadata, "spec": wanted}


def selector(*expressions, **match_labels):
    found = {"matchLabels": match_labels} if match_labels else {}
    if expressions:
        found["matchExpressions"] = [
            dict(zip(("key", "operator", "values"), entry, strict=False)) for entry in expressions
        ]
    return {"namespaceSelector": found}


@pytest.mark.parametrize(
    ("given_grant", "allowed"),
    [
        (grant(), True),
        (grant(deleting=True), False),
        (grant(store="other"), False),
        (grant(verbs=["Branch"]), False),
        (grant(to={"namespaces": ["web"]}), False),
        (grant(to=selector(team="a")), True),
        (grant(to=selector(team="b")), False),
        (grant(to=selector(team="a", tier="x")), False),
        (grant(to=selector(("team", "In", ["a", "b"]))), True),
        (grant(to=selector(("team", "NotIn", ["a"]))), False),
        (grant(to=selector(("team", "NotIn", ["b"]))), True),
        (grant(to=selector(("tier", "NotIn", ["x"]))), True),  # as in Kubernetes: a label that is not there is not in
        (grant(to=selector(("team", "Exists"))), True),
        (grant(to=selector(("tier", "Exists"))), False),
        (grant(to=selector(("tier", "DoesNotExist"))), True),
        (grant(to=selector(("team", "Exists"), team="b")), False),
        (grant(to={"namespaceSelector": {}}), False),
        (grant(to={}), False),
        (grant(verbs="everything"), False),  # what cannot be read gives nothing
    ],
)
def test_a_grant_gives_what_it_says_and_nothing_else(given_grant, allowed):
    request = Request("app", {"team": "a"}, "shop", Verb.CLONE)
    assert (find_terms([given_grant], request) is not None) is allowed


def test_of_several_grants_the_first_by_name_that_allows_it_counts():
    request = Request("app", {}, "shop", Verb.CLONE)
    grants = [grant("c", maxLease="3d"), grant("b", maxLease="2d"), grant("a", maxLease="1d", verbs=["Branch"])]
    terms = find_terms(grants, request)
    assert terms is not None
    assert (terms.grant, terms.longest, terms.raw) == ("b", timedelta(days=2), False)


# -- storage classes --


def storage_class(name, driver="a", *, default=False, created="2026-01-01T00:00:00Z"):
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": created}
    return {"kind": "StorageClass", "metadata": metadata, "provisioner": driver}


def snapshot_class(name, driver="a", *, default=False):
    annotations = {"snapshot.storage.kubernetes.io/is-default-class": "true"} if default else {}
    return {"kind": "VolumeSnapshotClass", "metadata": {"name": name, "annotations": annotations}, "driver": driver}


@pytest.mark.parametrize(
    ("storage", "snapshots", "asked", "chosen"),
    [
        ([storage_class("x", default=True)], [snapshot_class("s")], (None, None), ("x", "s")),
        ([storage_class("x"), storage_class("y", "b")], [snapshot_class("s", "b")], ("y", None), ("y", "s")),
        ([storage_class("x")], [snapshot_class("s"), snapshot_class("t", default=True)], ("x", None), ("x", "t")),
        ([storage_class("x")], [snapshot_class("s"), snapshot_class("t", default=True)], ("x", "s"), ("x", "s")),
        (
            [storage_class("x", default=True), storage_class("y", default=True, created="2026-02-01T00:00:00Z")],
            [snapshot_class("s")],
            (None, None),
            ("y", "s"),
        ),
        ([storage_class("x")], [snapshot_class("s")], (None, None), "NoDefaultStorageClass"),
        ([storage_class("x")], [snapshot_class("s")], ("z", None), "StorageClassNotFound"),
        ([storage_class("x")], [snapshot_class("s", "b")], ("x", None), "StorageCannotSnapshot"),
        ([storage_class("x")], [snapshot_class("s", "b")], ("x", "s"), "SnapshotClassNotFound"),
        ([storage_class("x")], None, ("x", None), "SnapshotAPIUnavailable"),
    ],
)
def test_classes_are_chosen_or_it_is_said_why_not(storage, snapshots, asked, chosen):
    found = choose_storage(
        ClusterClasses(tuple(storage), None if snapshots is None else tuple(snapshots)),
        storage=asked[0],
        snapshot=asked[1],
    )
    if isinstance(found, StorageChoice):
        assert (found.storage_class, found.snapshot_class) == chosen
    else:
        assert isinstance(found, NoStorage)
        assert found.reason == chosen


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_snapshots_of_one_second_the_newest_is_the_same_at_every_look(order):
    found = [snapshot(1, ago(hours=2), capturedAt=ago(hours=1)), snapshot(2, ago(hours=1), capturedAt=ago(hours=1))]
    newest = newest_ready(tuple(found[place] for place in order))
    assert newest is not None
    assert newest["metadata"]["name"] == "shop-00002"


# -- which snapshot --

HEAD = Version("shop", "main", "head-2", "root-2")
OLDER = Version("shop", "main", "head-1", "root-1")


def prepared(number, captured, version=HEAD, *, data="Raw", store_uid=STORE_UID, **more):
    return snapshot(
        number,
        captured,
        storeUID=store_uid,
        capturedAt=captured,
        data=data,
        prepared={"volumeSnapshotName": f"shop-{number:05d}"},
        database="shop",
        defaultBranch="main",
        branches=[
            {"database": "shop", "branch": "main", "head": version.head, "workingRoot": version.working_root},
        ],
        **more,
    )


def wanted(
    *,
    live=HEAD,
    asked=None,
    raw=True,
    by_grant=False,
    holding=(),
    known=None,
    known_head=None,
    versioned=True,
    **source,
):
    from coppice.api.v1alpha1 import CloneFrom

    return Wanted(
        source=CloneFrom.model_validate({"store": {"name": "shop"}, **(source or {"branch": "main"})}),
        asked_at=NOW - timedelta(**(asked or {"seconds": 5})),
        now=NOW,
        store_uid=STORE_UID,
        raw=raw,
        by_grant=by_grant,
        live=live,
        holding=frozenset(holding),
        known_since=NOW - timedelta(**(known or asked or {"seconds": 5})),
        known_head=known_head,
        versioned=versioned,
    )


def name_of(choice):
    return choice.snapshot.metadata.name if isinstance(choice, Chosen) else type(choice).__name__


SECONDS_AGO_2 = ago(seconds=2)
HOUR_AGO = ago(hours=1)


@pytest.mark.parametrize(
    ("request_", "snapshots", "expected"),
    [
        # A branch: captured surely later than asked, or not moved since.
        (wanted(), [prepared(1, SECONDS_AGO_2, OLDER)], "shop-00001"),
        (wanted(asked={"seconds": 2}), [prepared(1, SECONDS_AGO_2, OLDER)], "MakeSnapshot"),  # within the same second
        (wanted(), [prepared(1, HOUR_AGO, OLDER)], "MakeSnapshot"),
        (wanted(), [prepared(1, HOUR_AGO, HEAD)], "shop-00001"),
        (wanted(live=Version("shop", "main", "head-2", "dirty")), [prepared(1, HOUR_AGO, HEAD)], "MakeSnapshot"),
        (wanted(), [prepared(1, HOUR_AGO, HEAD), prepared(2, SECONDS_AGO_2, HEAD)], "shop-00002"),
        (wanted(branch="main", maxAge="2h"), [prepared(1, HOUR_AGO, OLDER)], "shop-00001"),
        (wanted(branch="main", maxAge="30m"), [prepared(1, HOUR_AGO, OLDER)], "MakeSnapshot"),
        (wanted(branch="gone"), [prepared(1, SECONDS_AGO_2)], "MakeSnapshot"),
        # Another store's, a failed or a leaving one is none.
        (wanted(), [prepared(1, SECONDS_AGO_2, store_uid="other")], "MakeSnapshot"),
        (wanted(), [prepared(1, SECONDS_AGO_2, deleting=True)], "MakeSnapshot"),
        # Without an answer of the store only what needs none is used.
        (wanted(live=None), [prepared(1, SECONDS_AGO_2)], "shop-00001"),
        (wanted(live=None), [prepared(1, HOUR_AGO)], "Wait"),
        (wanted(live=UnreachableError("silence")), [], "Wait"),
        (wanted(live=UnknownVersionError("no such branch")), [], "Wait"),
        # A commit: held by a snapshot, or captured after it was asked for.
        (wanted(commit="abcd"), [prepared(1, HOUR_AGO)], "MakeSnapshot"),
        (wanted(commit="abcd", holding={"shop-00001"}), [prepared(1, HOUR_AGO)], "shop-00001"),
        (wanted(commit="abcd"), [prepared(1, SECONDS_AGO_2)], "shop-00001"),
        # A tag: captured after it was seen to name this commit; it may have named another before.
        (wanted(tag="v1", known={"seconds": 5}), [prepared(1, SECONDS_AGO_2)], "shop-00001"),
        (wanted(tag="v1", known={"seconds": 2}), [prepared(1, SECONDS_AGO_2)], "MakeSnapshot"),
        (wanted(tag="v1", known={"seconds": 0}), [prepared(1, SECONDS_AGO_2)], "MakeSnapshot"),
        (wanted(tag="v1", known={"seconds": 0}, holding={"shop-00001"}), [prepared(1, HOUR_AGO)], "shop-00001"),
        # A follower: only news, and only newer ones.
        (wanted(asked={"hours": 1}, known_head="head-1"), [prepared(1, HOUR_AGO, OLDER)], "MakeSnapshot"),
        (wanted(asked={"hours": 1}, known_head="head-1"), [prepared(1, SECONDS_AGO_2, HEAD)], "shop-00001"),
        (
            wanted(asked={"minutes": 5}, known_head="head-3", branch="main", maxAge="2h"),
            [prepared(1, HOUR_AGO, OLDER)],
            "MakeSnapshot",
        ),
        # Masked or nothing.
        (wanted(raw=False), [prepared(1, SECONDS_AGO_2)], "Wait"),
        (wanted(raw=False), [prepared(1, SECONDS_AGO_2, data="Masked")], "shop-00001"),
        (wanted(raw=False, snapshot="shop-00001"), [prepared(1, SECONDS_AGO_2)], "Wait"),
        # By name.
        (wanted(live=None, snapshot="shop-00001"), [prepared(1, HOUR_AGO, OLDER)], "shop-00001"),
        (wanted(live=None, snapshot="shop-00009"), [prepared(1, HOUR_AGO)], "Wait"),
        (wanted(by_grant=True, snapshot="shop-00001"), [prepared(1, HOUR_AGO, OLDER)], "shop-00001"),
        # An earlier store's: its owners may have it, a grant gives the store that there is.
        (wanted(snapshot="shop-00001"), [prepared(1, HOUR_AGO, store_uid="other")], "shop-00001"),
        (wanted(by_grant=True, snapshot="shop-00001"), [prepared(1, HOUR_AGO, store_uid="other")], "Wait"),
        # An engine without history: the snapshots are all there is.
        (wanted(versioned=False), [prepared(1, HOUR_AGO, OLDER)], "MakeSnapshot"),
        (
            wanted(versioned=False, live=None, commit="0000000100A0"),
            [prepared(1, HOUR_AGO, Version("shop", "main", "0000000100A0", "w"))],
            "shop-00001",
        ),
        (wanted(versioned=False, live=None, commit="head"), [prepared(1, HOUR_AGO, OLDER)], "Wait"),
        (wanted(versioned=False, live=None, tag="v1"), [prepared(1, HOUR_AGO, OLDER)], "Wait"),
        (wanted(versioned=False, live=None, time=ago(minutes=59)), [prepared(1, HOUR_AGO, OLDER)], "shop-00001"),
        (
            wanted(versioned=False, live=None, time=ago(minutes=59)),
            [prepared(1, HOUR_AGO, OLDER), prepared(2, SECONDS_AGO_2, HEAD)],
            "shop-00001",
        ),
        (wanted(versioned=False, live=None, time=ago(minutes=61)), [prepared(1, HOUR_AGO, OLDER)], "Wait"),
        # On its way, failed just now, failed a while ago.
        (wanted(), [snapshot(1, SECONDS_AGO_2, state="Reconciling")], "Wait"),
        (wanted(), [snapshot(1, SECONDS_AGO_2, state="Stalled")], "Wait"),
        (wanted(), [snapshot(1, HOUR_AGO, state="Stalled")], "MakeSnapshot"),
        (wanted(), [], "MakeSnapshot"),
    ],
)
def test_which_snapshot_a_clone_is_made_from(request_, snapshots, expected):
    found = choose(request_, snapshots)
    assert isinstance(found, Chosen | MakeSnapshot | Wait)
    assert name_of(found) == expected


def test_a_clone_of_a_branch_comes_up_with_what_the_snapshot_holds_of_it_and_not_with_what_is_live():
    found = choose(wanted(), [prepared(1, SECONDS_AGO_2, OLDER)])
    assert isinstance(found, Chosen)
    assert found.version == OLDER
