"""A store whose snapshots are masked: the owners' program on a scratch copy, and nothing handed out that it has not ended.

Whatever these stories do, the world looks on: a prepared snapshot that says of its rows what is not so is a violation
(``tests.fakes.world``), and every story ends with ``settle``, which has none.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fakes.engine import is_masked
from tests.fakes.operator import Operator

from coppice.core.conditions import timestamp
from coppice.manifests.secret import read_secret
from coppice.reconcile.observed import is_true

MASK = {"mask": {"jobTemplate": "shop-mask"}}


@pytest.fixture
def shop(story):
    """A world with a masked store to be, and its Job."""
    engine = story.world.engine
    engine.versioned, engine.maskable = False, True
    return story


async def opened(shop, *rows, **spec):
    shop.store(**MASK, **spec)
    shop.grant(data="Masked", verbs=["Clone"])
    await shop.settle()
    shop.commit(*(rows or ("customer/alice", "customer/bob", "order/1")))


async def masked(shop, *tables, **spec):
    shop.mask_job(*tables, **spec)
    await opened(shop)
    shop.snapshot("mine")
    await shop.settle()


async def test_the_job_is_let_in_once_the_name_that_it_connects_to_leads_to_the_server(shop):
    shop.world.untold = lambda service: service.startswith("mask-")
    shop.mask_job("customer", "order")
    shop.store(**MASK)
    await shop.settle()
    shop.commit("customer/alice", "customer/bob", "order/1")
    shop.snapshot("mine")
    await shop.operator.settle(patience=5)
    assert shop.reason("DataSnapshot", "mine") == "Masking"
    assert on_the_way(shop, SECRET) is None
    shop.world.untold = lambda service: False
    await end_well(shop)


def jobs(shop):
    return [name for name in shop.names("Job") if name.endswith("-masking")]


def runs(shop):
    """Return how often a Pod was made to mask."""
    return sum(write.startswith("ADDED Pod data/mine-") and "-masking-" in write for write in shop.world.writes)


def copies(shop):
    """Return how often a scratch copy was made."""
    return sum(write == "ADDED PersistentVolumeClaim data/mine-scratch" for write in shop.world.writes)


def on_the_way(shop, part):
    """Return the object that is made for the present copy, by a part of its name; None before it is there."""
    kind, suffix = part
    found = [found for found in shop.kube.all(kind, "data") if found["metadata"]["name"].endswith(suffix)]
    return found[0] if found else None


SERVER = ("Pod", "-scratch")
JOB = ("Job", "-masking")
SECRET = ("Secret", "-masking")
REWRITE = ("Pod", "-rewrite")


async def in_the_middle(shop, *tables, **spec):
    """Come to where the program has changed half of the rows."""
    shop.world.hanging = lambda pod: True
    await masked(shop, *tables, **spec)
    assert half_masked(shop)


def half_masked(shop):
    rows = shop.world.volume("data", "mine-scratch").branches["main"].rows
    return any(is_masked(row) for row in rows) and not all(is_masked(row) for row in rows)


async def end_well(shop, tables=("customer", "order")):
    """Let the program come to its end, and expect a snapshot that is masked through and through."""
    shop.world.hanging = lambda pod: False
    await shop.operator.live(minutes=6)
    shop.expect_ready("DataSnapshot", "mine")
    status = shop.status("DataSnapshot", "mine")
    assert (status["data"], status["mask"]["tables"]) == ("Masked", list(tables))
    [kept] = shop.world.snapshots.values()
    assert all(is_masked(row) for row in kept.branches["main"].rows)
    assert kept.old_rows == frozenset()
    assert shop.names("Job") == ["shop-mask"]
    assert shop.names("Pod") == ["shop-server"]
    assert shop.names("PersistentVolumeClaim") == ["shop-data"]
    assert shop.names("Secret") == ["shop-admin", "shop-binding"]
    assert shop.names("Service") == ["shop"]
    assert shop.names("NetworkPolicy") == ["shop"]


async def test_a_snapshot_is_masked_and_says_with_what(shop):
    await masked(shop)
    await end_well(shop)
    mask = shop.status("DataSnapshot", "mine")["mask"]
    assert (mask["jobTemplate"], mask["tableCount"], len(mask["digest"])) == ("shop-mask", 2, 32)
    assert (runs(shop), copies(shop)) == (1, 1)
    assert shop.data_of().branches["main"].rows == {"customer/alice", "customer/bob", "order/1"}


async def test_masked_data_is_what_a_grant_of_masked_data_gives(shop):
    shop.mask_job()
    await opened(shop)
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app")
    assert all(is_masked(row) for row in shop.rows(namespace="app"))


async def test_with_a_mask_raw_grants_and_the_owners_themselves_get_masked_rows_too(shop):
    shop.mask_job()
    await opened(shop)
    shop.grant("raw", to={"namespaces": ["app2"]})
    shop.world.add_namespace("app2")
    shop.clone()
    shop.clone(namespace="app2")
    await shop.settle()
    for namespace in ("data", "app2"):
        assert all(is_masked(row) for row in shop.rows(namespace=namespace))


async def test_the_job_runs_the_users_program_on_the_scratch_copy_and_as_often_as_they_say(shop):
    await in_the_middle(shop, backoffLimit=3, activeDeadlineSeconds=600, ttlSecondsAfterFinished=1, completions=5)
    job, secret = on_the_way(shop, JOB), on_the_way(shop, SECRET)
    template = job["spec"].pop("template")
    assert job["spec"] == {"backoffLimit": 3, "activeDeadlineSeconds": 600}
    [container] = template["spec"]["containers"]
    assert (container["image"], container["args"]) == ("example.com/masker", ["mask"])
    references = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"]}
    values = read_secret(secret)
    assert references == {key: {"name": secret["metadata"]["name"], "key": key} for key in values}
    assert (values["host"], values["username"]) == ("mask-mine.data.svc", shop.world.engine.app_user)
    assert values["password"] != read_secret(shop.get("Secret", "shop-binding"))["password"]
    assert template["metadata"]["labels"]["team"] == "shop"
    assert "job-name" not in template["metadata"]["labels"]
    await end_well(shop)


async def test_only_the_job_and_the_operator_have_a_way_to_the_scratch_copy_from_its_first_moment(shop):
    unguarded = []

    def look(event, found):
        if event == "ADDED" and found["kind"] == "Pod" and found["metadata"]["name"].endswith("-scratch"):
            policy = shop.kube.peek("NetworkPolicy", "data", "mine-scratch")
            chosen = policy["spec"]["podSelector"]["matchLabels"].items() if policy is not None else set()
            if not chosen or not chosen <= found["metadata"]["labels"].items():
                unguarded.append(found)

    shop.kube.subscribe(look)
    await in_the_middle(shop)
    assert unguarded == []
    policy = shop.get("NetworkPolicy", "mine-scratch")["spec"]
    [rule] = policy["ingress"]
    clients, operator = rule["from"]
    assert operator == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "coppice-system"}}}
    [pod] = [pod for pod in shop.kube.all("Pod") if "-masking-" in pod["metadata"]["name"]]
    assert clients["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert not clients["podSelector"]["matchLabels"].items() <= on_the_way(shop, SERVER)["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy


async def test_the_job_waits_for_its_secret_until_the_copy_is_marked(shop):
    unmarked = []

    def look(event, found):
        if event == "ADDED" and found["kind"] == "Secret" and found["metadata"]["name"].endswith("-masking"):
            claim = shop.get("PersistentVolumeClaim", "mine-scratch")
            if "coppice.dev/masking" not in claim["metadata"].get("annotations", {}):
                unmarked.append(found)

    shop.kube.subscribe(look)
    await in_the_middle(shop)
    assert unmarked == []


async def test_a_mask_that_touches_nothing_is_told(shop):
    await masked(shop, "nowhere")
    status = shop.status("DataSnapshot", "mine")
    assert (status["mask"]["tables"], status["mask"]["tableCount"]) == ([], 0)
    assert [found["reason"] for found in status["findings"]] == ["NothingMasked"]


async def test_a_store_whose_engine_cannot_be_masked_is_refused_and_serves_all_the_same(story):
    story.mask_job()
    story.store()
    await story.settle()
    story.edit("DataStore", "shop", **MASK)
    await story.settle()
    story.snapshot("mine")
    await story.settle()
    assert "spec.mask" in story.expect_stalled("DataStore", "shop", "MaskUnsupported")
    assert story.condition("DataSnapshot", "mine")["reason"] == "StoreNotReady"
    story.delete("Pod", "shop-server")
    await story.operator.live(minutes=1)
    assert story.names("Pod") == ["shop-server"]
    assert story.world.rows("data", "shop-binding") == frozenset()
    assert story.names("VolumeSnapshot") == []


async def test_a_mask_named_while_a_snapshot_is_on_its_way_to_an_engine_that_knows_none_seals_nothing(story):
    story.mask_job()
    story.store()
    await story.settle()
    story.snapshot("mine")
    await story.operator.until(lambda: story.kube.peek("Pod", "data", "mine-prepare") is not None)
    story.edit("DataStore", "shop", **MASK)
    await story.settle()
    story.expect_stalled("DataSnapshot", "mine", "MaskUnsupported")
    assert "mine" not in story.names("VolumeSnapshot")


# -- it fails --


async def test_a_mask_that_fails_is_said_once_and_seals_nothing(shop):
    shop.world.crashing = lambda pod: "-masking-" in pod["metadata"]["name"]
    await masked(shop)
    message = shop.expect_stalled("DataSnapshot", "mine", "MaskFailed")
    job = on_the_way(shop, JOB)["metadata"]["name"]
    for word in (job, "Job shop-mask ", "BackoffLimitExceeded", "exit code 1", f"kubectl logs -n data job/{job}"):
        assert word in message
    assert shop.events("DataSnapshot", "mine").count("MaskFailed") == 1
    assert [name for name in shop.names("Pod") if "-masking-" in name], "its log is gone"
    assert on_the_way(shop, SERVER) is None
    assert on_the_way(shop, SECRET) is None
    writes = len(shop.world.writes)
    await shop.operator.live(minutes=30)
    assert len(shop.world.writes) == writes, "it is tried again although nothing was changed"
    assert "mine" not in shop.names("VolumeSnapshot")


@pytest.mark.parametrize("how", ["the users'", "ours"])
async def test_a_mask_that_is_put_right_begins_on_a_new_copy(shop, how):
    shop.world.crashing = lambda pod: "-masking-" in pod["metadata"]["name"]
    await masked(shop)
    shop.world.crashing = lambda pod: False
    if how == "ours":
        shop.delete("Job", on_the_way(shop, JOB)["metadata"]["name"])
    else:
        shop.delete("Job", "shop-mask")
        await shop.operator.live(seconds=30)
        shop.expect_stalled("DataSnapshot", "mine", "MaskFailed")
        shop.mask_job()
    await end_well(shop)
    assert copies(shop) == 2


async def test_a_check_that_finds_a_forgotten_table_fails_closed(shop):
    await masked(shop, "customer", check=True)
    shop.expect_stalled("DataSnapshot", "mine", "MaskFailed")
    assert "mine" not in shop.names("VolumeSnapshot")
    shop.delete("Job", "shop-mask")
    shop.mask_job("customer", "order", check=True)
    await end_well(shop)


async def test_a_mask_that_takes_too_long_is_cut_off(shop):
    await in_the_middle(shop, activeDeadlineSeconds=60)
    await shop.operator.live(minutes=2)
    assert "DeadlineExceeded" in shop.expect_stalled("DataSnapshot", "mine", "MaskFailed")
    assert "mine" not in shop.names("VolumeSnapshot")


async def test_a_program_that_is_tried_again_is_believed_when_it_succeeds(shop):
    shop.world.crashing = lambda pod: "-masking-0-" in pod["metadata"]["name"]
    await masked(shop, backoffLimit=1)
    assert runs(shop) == 2
    await end_well(shop)


async def test_an_evicted_program_fails_its_job(shop):
    await in_the_middle(shop)
    [pod] = [pod for pod in shop.kube.all("Pod") if "-masking-" in pod["metadata"]["name"]]
    shop.world.evict(pod)
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "mine", "MaskFailed")


# -- somebody or something interferes --


@pytest.mark.parametrize("part", [JOB, SERVER, SECRET, ("Secret", "-scratch")], ids=str)
async def test_what_is_deleted_in_the_middle_has_it_begin_anew_or_is_made_again(shop, part):
    await in_the_middle(shop)
    shop.delete(part[0], on_the_way(shop, part)["metadata"]["name"])
    await shop.operator.run_due()
    await end_well(shop)
    assert copies(shop) == (1 if part == SECRET else 2)


@pytest.mark.parametrize("part", [("Pod", "-prepare"), ("Service", "mask-mine"), ("NetworkPolicy", "mine-scratch")])
async def test_what_is_not_needed_any_more_or_can_be_made_again_may_go(shop, part):
    await in_the_middle(shop)
    shop.delete(part[0], on_the_way(shop, part)["metadata"]["name"])
    await shop.operator.live(minutes=1)
    await end_well(shop)
    assert copies(shop) == 1


async def test_a_server_that_is_evicted_in_the_middle_has_it_begin_anew_at_once(shop):
    await in_the_middle(shop)
    shop.world.evict(on_the_way(shop, SERVER))
    shop.world.hanging = lambda pod: False
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")
    await end_well(shop)
    assert copies(shop) == 2


async def test_a_server_that_ends_by_itself_is_said_and_tried_anew_later(shop):
    await in_the_middle(shop)
    shop.world.kill(on_the_way(shop, SERVER))
    await shop.settle()
    message = shop.expect_stalled("DataSnapshot", "mine", "MaskServerFailed")
    assert on_the_way(shop, SERVER)["metadata"]["name"] in message
    assert copies(shop) == 1
    await end_well(shop)
    assert copies(shop) == 2


async def test_a_server_that_dies_after_the_program_has_ended_seals_nothing_of_that_copy(shop):
    await in_the_middle(shop)
    shop.operator.deaf = True
    shop.world.hanging = lambda pod: False
    for _ in range(3):
        shop.world.turn()
    assert is_true(on_the_way(shop, JOB), "Complete")
    shop.world.evict(on_the_way(shop, SERVER))
    shop.operator.deaf = False
    shop.operator.restart()
    await end_well(shop)
    assert copies(shop) == 2


@pytest.mark.parametrize("when", ["before", "in the middle", "after"])
async def test_a_mask_that_is_changed_meanwhile_begins_anew_with_the_new_one(shop, when):
    if when == "in the middle":
        await in_the_middle(shop, "customer")
    else:
        shop.mask_job("customer")
        await opened(shop)
        shop.snapshot("mine")
        part = JOB if when == "before" else REWRITE
        await shop.operator.until(lambda: on_the_way(shop, part) is not None)
    shop.delete("Job", "shop-mask")
    shop.mask_job("customer", "order")
    await shop.operator.run_due()
    await end_well(shop)


async def test_another_mask_named_in_the_middle_begins_anew(shop):
    await in_the_middle(shop, "customer")
    shop.mask_job("customer", "order", name="better-mask")
    shop.edit("DataStore", "shop", mask={"jobTemplate": "better-mask"})
    shop.world.hanging = lambda pod: False
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataSnapshot", "mine")
    assert shop.status("DataSnapshot", "mine")["mask"]["jobTemplate"] == "better-mask"


@pytest.mark.parametrize("when", ["in the middle", "after"])
async def test_a_mask_that_is_taken_out_of_the_store_meanwhile_leaves_rows_as_they_are(shop, when):
    if when == "in the middle":
        await in_the_middle(shop)
    else:
        shop.mask_job()
        await opened(shop)
        shop.snapshot("mine")
        await shop.operator.until(lambda: on_the_way(shop, REWRITE) is not None)
    shop.edit("DataStore", "shop", mask=None)
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataSnapshot", "mine")
    status = shop.status("DataSnapshot", "mine")
    assert (status["data"], status.get("mask")) == ("Raw", None)
    [kept] = shop.world.snapshots.values()
    assert not [row for row in kept.branches["main"].rows if is_masked(row)]
    assert shop.names("Pod") == ["shop-server"]


async def test_a_mask_that_comes_while_a_snapshot_is_on_its_way_is_run_on_it(shop):
    shop.mask_job()
    shop.store()
    await shop.settle()
    shop.commit("customer/alice")
    shop.snapshot("mine")
    await shop.operator.until(lambda: shop.kube.peek("Pod", "data", "mine-prepare") is not None)
    shop.edit("DataStore", "shop", **MASK)
    await end_well(shop, tables=("customer",))


async def test_a_job_that_is_not_there_is_waited_for_and_one_that_runs_by_itself_is_said(shop):
    await opened(shop)
    shop.snapshot("mine")
    await shop.settle()
    assert "Job shop-mask" in shop.condition("DataSnapshot", "mine")["message"]
    assert shop.condition("DataSnapshot", "mine")["reason"] == "MaskNotFound"
    shop.mask_job(suspend=False)
    await shop.settle()
    assert "spec.suspend: true" in shop.expect_stalled("DataSnapshot", "mine", "MaskNotSuspended")
    shop.delete("Job", "shop-mask")
    shop.mask_job()
    await end_well(shop)


@pytest.mark.parametrize("again", ["the same", "another"])
async def test_a_job_that_is_gone_in_the_middle_is_waited_for_before_anything_is_sealed(shop, again):
    await in_the_middle(shop, "customer")
    shop.delete("Job", "shop-mask")
    shop.world.hanging = lambda pod: False
    await shop.operator.live(minutes=1)
    assert shop.condition("DataSnapshot", "mine")["reason"] == "MaskNotFound"
    shop.mask_job(*(("customer",) if again == "the same" else ("customer", "order")))
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataSnapshot", "mine")
    assert copies(shop) == (1 if again == "the same" else 2)


async def test_a_leader_that_has_not_heard_of_the_last_ones_work_seals_nothing_half(shop):
    await in_the_middle(shop)
    heir = Operator(shop.world)
    heir.deaf_to = frozenset({"PersistentVolumeClaim", "Secret"})
    shop.world.hanging = lambda pod: False
    await shop.settle()
    await heir.live(minutes=2)
    await end_well(shop)
    assert runs(shop) == 1


async def test_a_pod_that_outlives_its_job_is_waited_for_before_the_next_is_let_in(shop):
    await in_the_middle(shop)
    [pod] = [name for name in shop.names("Pod") if "-masking-" in name]
    shop.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=["example.com/grace"]))
    shop.delete("Job", on_the_way(shop, JOB)["metadata"]["name"])
    await shop.operator.live(minutes=1)
    assert pod in shop.condition("DataSnapshot", "mine")["message"]
    assert runs(shop) == 1
    shop.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=[]))
    await end_well(shop)
    assert runs(shop) == 2


async def test_a_namespace_that_refuses_the_jobs_pods_is_said(shop):
    shop.world.podless = True
    await masked(shop)
    await shop.operator.live(minutes=1)
    assert "PodSecurity" in shop.expect_stalled("DataSnapshot", "mine", "MaskNotStarted")
    shop.world.podless = False
    await end_well(shop)


# -- clones of masked rows --


async def test_a_mask_that_fails_holds_up_clones_and_makes_no_heap(shop):
    shop.world.crashing = lambda pod: "-masking-" in pod["metadata"]["name"]
    shop.mask_job()
    await opened(shop)
    shop.clone(namespace="app")
    await shop.operator.live(minutes=9)
    [snapshot] = shop.names("DataSnapshot")
    assert shop.reason("DataClone", "db", "app") == "SnapshotPending"
    assert snapshot in shop.condition("DataClone", "db", "app")["message"]
    shop.world.crashing = lambda pod: False
    shop.delete("Job", "shop-mask")
    shop.mask_job()
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db", "app")
    assert shop.names("DataSnapshot") == [snapshot]


async def test_snapshots_whose_mask_fails_do_not_pile_up(shop):
    shop.world.crashing = lambda pod: "-masking-" in pod["metadata"]["name"]
    shop.mask_job()
    await opened(shop, snapshots={"schedule": "*/5 * * * *"})
    shop.clone(namespace="app")
    await shop.operator.live(hours=2)
    assert len(shop.names("DataSnapshot")) <= 4
    assert len(jobs(shop)) <= 4


async def test_clones_of_a_branch_that_has_not_moved_share_a_snapshot_until_the_mask_is_another(shop):
    shop.mask_job("customer")
    await opened(shop)
    for name in ("first", "second"):
        shop.clone(name, namespace="app")
        await shop.settle()
        shop.world.tick(60)
    assert len(shop.names("DataSnapshot")) == 1
    shop.delete("Job", "shop-mask")
    shop.mask_job("customer", "order")
    shop.clone("third", namespace="app")
    await shop.settle()
    assert len(shop.names("DataSnapshot")) == 2
    assert all(is_masked(row) for row in shop.rows("third", "app"))


async def test_a_mask_that_is_added_is_meant_for_every_clone_from_then_on(shop):
    shop.mask_job()
    shop.store()
    await shop.settle()
    shop.commit("customer/alice")
    shop.clone("before")
    await shop.settle()
    shop.edit("DataStore", "shop", **MASK)
    shop.world.tick(60)
    shop.clone("after")
    await shop.settle()
    assert shop.rows("before") == {"customer/alice"}
    assert all(is_masked(row) for row in shop.rows("after"))


async def test_a_clone_that_follows_a_masked_branch_is_renewed_when_the_store_has_moved_and_only_then(shop):
    shop.mask_job()
    await opened(shop)
    shop.clone(namespace="app", refresh="OnHeadChange")
    await shop.operator.live(minutes=30)
    assert len(shop.names("DataSnapshot")) == 1
    shop.commit("customer/carol")
    await shop.operator.live(minutes=30)
    assert len(shop.names("DataSnapshot")) == 2
    assert len(shop.rows(namespace="app")) == 4


async def test_a_commit_of_the_store_is_had_from_the_snapshot_that_was_made_of_it(shop):
    await masked(shop)
    head = shop.status("DataSnapshot", "mine")["branches"][0]["sourceHead"]
    assert head == shop.data_of().branches["main"].head
    shop.clone(namespace="app", source={"commit": head})
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert all(is_masked(row) for row in shop.rows(namespace="app"))


@pytest.mark.parametrize("source", [{"branch": "dev"}, {"tag": "v1"}, {"commit": "first"}, {"time": "first"}])
async def test_masked_data_of_an_engine_with_history_have_none(story, source):
    """Masked data are a new root, of the default branch alone: nobody waits for what never comes."""
    story.world.engine.maskable = True
    story.mask_job("customer", "order")
    await opened(story)
    volume = story.data_of()
    first = volume.branches["main"].head
    volume.tags["v1"] = first
    volume.branches["dev"] = replace(volume.branches["main"])
    story.world.tick(60)
    asked = {key: {"commit": first, "time": timestamp(story.world.now)}.get(key, name) for key, name in source.items()}
    story.clone("latest", source={"branch": "main"})
    await story.operator.live(minutes=5)
    story.expect_ready("DataClone", "latest")
    assert all(is_masked(row) for row in story.rows("latest"))
    story.clone("asked", source=asked)
    await story.operator.live(minutes=20)
    assert "from.branch main" in story.expect_stalled("DataClone", "asked", "MaskedHistory")
    assert len(story.names("DataSnapshot")) == 1
