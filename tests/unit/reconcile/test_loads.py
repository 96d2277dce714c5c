"""A new store that a Job fills: the owners' program, run for them once, before anybody else may connect."""

from __future__ import annotations

import pytest
from tests.fakes.operator import Operator
from tests.unit.reconcile.foreign import add_foreign

from coppice.kube.errors import TransientError
from coppice.manifests.secret import read_secret
from coppice.reconcile.observed import is_true

LOADING = "shop-loading"
BY_JOB = {"managed": {"load": {"jobTemplate": "shop-load"}}}


async def loaded(story, **spec):
    story.job("shop-load", "alice", "bob")
    story.store(**BY_JOB, **spec)
    await story.settle()
    story.expect_ready("DataStore", "shop")


def loads(story):
    """Return how often a Pod was made to load."""
    return sum(write.startswith("ADDED Pod data/shop-loading") for write in story.world.writes)


def mark(story):
    return story.get("PersistentVolumeClaim", "shop-data")["metadata"]["annotations"]["coppice.dev/load"]


async def test_a_job_fills_a_new_store_and_nothing_of_it_is_left(story):
    await loaded(story)
    assert story.world.rows("data", "shop-binding") == {"alice", "bob"}
    assert loads(story) == 1
    assert mark(story) == "Done"
    assert story.names("Job") == ["shop-load"]
    assert story.names("Pod") == ["shop-server"]
    assert LOADING not in story.names("Secret")
    assert [reason for reason in story.events("DataStore", "shop") if reason.startswith("Load")] == [
        "Loading",
        "Loaded",
    ]


async def test_the_job_begins_once_the_name_that_it_connects_to_leads_to_the_server(story):
    story.world.untold = lambda service: service == "shop"
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.operator.settle(patience=5)
    assert story.reason("DataStore", "shop") == "NotAnswering"
    assert loads(story) == 0
    story.world.untold = lambda service: False
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 1


async def test_what_a_job_loads_is_a_version_that_branches_and_tags_can_begin_at(story):
    await loaded(story)
    branch = story.data_of().branches["main"]
    assert story.data_of().commits[branch.head].rows == {"alice", "bob"}
    story.branch("autumn")
    await story.settle()
    assert story.data_of().branches["autumn"].rows == {"alice", "bob"}


async def test_the_job_runs_the_users_program_with_the_connection_and_as_often_as_they_say(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice", backoffLimit=3, activeDeadlineSeconds=60, ttlSecondsAfterFinished=1, completions=5)
    story.store(**BY_JOB)
    await story.settle()
    job = story.get("Job", LOADING)
    template = job["spec"].pop("template")
    assert job["spec"] == {"backoffLimit": 3, "activeDeadlineSeconds": 60}
    [container] = template["spec"]["containers"]
    assert (container["image"], container["args"]) == ("example.com/loader", ["alice"])
    references = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"]}
    assert references == {key: {"name": LOADING, "key": key} for key in read_secret(story.get("Secret", LOADING))}
    assert read_secret(story.get("Secret", LOADING))["username"] == story.world.engine.app_user


async def test_nobody_but_the_job_is_told_how_to_connect_before_it_has_succeeded(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(snapshots={"schedule": "* * * * *"}, **BY_JOB)
    story.branch("autumn")
    story.clone()
    await story.operator.live(minutes=10)
    condition = story.condition("DataStore", "shop")
    assert (condition["status"], condition["reason"]) == ("False", "Loading")
    assert "ImagePullBackOff" in condition["message"]
    assert "shop-binding" not in story.names("Secret")
    assert story.names("VolumeSnapshot") == []
    assert set(story.data_of().branches) == {"main"}

    story.world.broken_images.clear()
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")
    story.expect_ready("DataBranch", "autumn")
    story.expect_ready("DataClone", "db")
    assert story.rows() == {"alice"}
    assert story.data_of().branches["autumn"].rows == {"alice"}


async def test_a_load_that_is_done_is_never_run_again(story):
    await loaded(story)
    story.world.login("data", "shop-binding").volume.write("main", "carol")

    def lose_status(found):
        found["status"] = {}

    story.kube.change("DataStore", "data", "shop", lose_status)
    story.delete("Pod", "shop-server")
    story.operator.restart()
    await story.settle()
    story.delete("Job", "shop-load")
    story.job("shop-load", "mallory")
    story.edit("DataStore", "shop", managed={"version": "2.0"})
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")
    story.delete("DataStore", "shop")
    await story.settle()
    story.store(**BY_JOB)
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 1
    assert mark(story) == "Done"
    assert story.world.rows("data", "shop-binding") == {"alice", "bob", "carol"}


async def test_a_leader_that_has_not_heard_of_the_last_ones_work_runs_no_load_again(story):
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.operator.until(lambda: any(is_true(job, "Complete") for job in story.kube.all("Job")))
    heir = Operator(story.world)
    heir.deaf_to = frozenset({"PersistentVolumeClaim", "Secret"})
    await story.settle()
    await heir.live(minutes=2)
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 1


async def test_a_job_named_later_does_not_touch_the_data_that_are_there(story):
    story.store()
    await story.settle()
    story.job("shop-load", "mallory")
    story.edit("DataStore", "shop", **BY_JOB)
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 0


async def test_a_job_that_comes_late_is_waited_for_before_anything_is_made(story):
    story.store(**BY_JOB)
    await story.settle()
    condition = story.condition("DataStore", "shop")
    assert condition["reason"] == "LoadNotFound"
    assert "Job shop-load" in condition["message"]
    assert "spec.suspend: true" in condition["message"]
    assert story.names("PersistentVolumeClaim") == []
    story.job("shop-load", "alice")
    await story.operator.live(seconds=30)
    story.expect_ready("DataStore", "shop")


async def test_a_job_that_runs_by_itself_is_said_and_not_run_again(story):
    story.job("shop-load", "alice", suspend=False)
    story.store(**BY_JOB)
    await story.settle()
    assert "Job shop-load" in story.expect_stalled("DataStore", "shop", "LoadNotSuspended")
    story.delete("Job", "shop-load")
    story.job("shop-load", "alice")
    await story.operator.live(seconds=30)
    story.expect_ready("DataStore", "shop")


async def test_a_job_that_fails_is_said_and_one_that_is_put_right_is_tried(story):
    story.world.crashing = lambda pod: pod["spec"]["containers"][0].get("args", [""])[0] == "wrong"
    story.job("shop-load", "wrong", "row of secrets")
    story.store(**BY_JOB)
    await story.settle()
    message = story.expect_stalled("DataStore", "shop", "LoadFailed")
    for word in (
        LOADING,
        "BackoffLimitExceeded",
        "exit code 1",
        "kubectl logs -n data job/shop-loading",
        "Job shop-load ",
    ):
        assert word in message
    assert "row" not in message
    assert loads(story) == 2
    assert story.events("DataStore", "shop").count("LoadFailed") == 1
    writes = len(story.world.writes)
    await story.operator.live(minutes=30)
    assert len(story.world.writes) == writes, "it is tried again although nothing was changed"

    story.delete("Job", "shop-load")
    await story.operator.live(seconds=30)
    story.expect_stalled("DataStore", "shop", "LoadFailed")
    story.job("shop-load", "alice")
    await story.operator.live(seconds=30)
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 3
    assert story.world.rows("data", "shop-binding") == {"wrong", "alice"}, (
        "what the failed one wrote is not ours to undo"
    )


async def test_a_job_that_hangs_is_replaced_when_the_users_is_and_two_never_run_at_once(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    story.delete("Job", "shop-load")
    story.job("shop-load", "bob")

    def running():
        return [name for name in story.names("Pod") if name.startswith(LOADING)]

    first = running()
    await story.operator.until(lambda: running() != first)
    assert running() == [], "another Pod was there before the first had gone"
    story.world.broken_images.clear()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert story.world.rows("data", "shop-binding") == {"bob"}


def edit_users_job(story, **spec):
    story.kube.change("Job", "data", "shop-load", lambda found: found["spec"].update(spec))


async def test_a_load_goes_on_while_the_users_job_is_changed_in_what_is_not_copied(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    begun = story.get("Job", LOADING)["metadata"]["uid"]
    for spec in ({"suspend": False}, {"suspend": True}, {"parallelism": 2}):
        edit_users_job(story, **spec)
        await story.operator.live(minutes=1)
        assert story.get("Job", LOADING)["metadata"]["uid"] == begun
    story.world.broken_images.clear()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 1


async def test_a_load_goes_on_when_a_newer_api_server_reads_more_into_the_users_job(story):
    """What an API server fills in when it reads an object changes its content, but not its generation."""
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    begun, job = (story.get("Job", name)["metadata"] for name in (LOADING, "shop-load"))
    edit_users_job(story, podFailurePolicy={"rules": []})
    story.kube.change("Job", "data", "shop-load", lambda found: found["metadata"].update(generation=job["generation"]))
    assert story.get("Job", "shop-load")["metadata"]["generation"] == job["generation"]
    await story.operator.live(minutes=1)
    assert story.get("Job", LOADING)["metadata"]["uid"] == begun["uid"]


async def test_a_load_begins_anew_when_what_is_copied_of_the_users_job_is_changed(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    edit_users_job(story, backoffLimit=5)
    await story.operator.live(minutes=1)
    assert story.get("Job", LOADING)["spec"]["backoffLimit"] == 5
    assert loads(story) == 2


@pytest.mark.parametrize("gone", ["Job", "DataStore"])
async def test_a_pod_that_outlives_its_job_is_waited_for(story, gone):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    [pod] = [name for name in story.names("Pod") if name.startswith(LOADING)]
    story.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=["example.com/grace"]))
    if gone == "Job":
        story.delete("Job", LOADING)
    else:
        story.delete("DataStore", "shop")
        story.store(**BY_JOB)
    await story.settle()
    assert [name for name in story.names("Pod") if name.startswith(LOADING)] == [pod]
    assert pod in story.condition("DataStore", "shop")["message"]
    story.world.broken_images.clear()
    story.kube.change("Pod", "data", pod, lambda found: found["metadata"].update(finalizers=[]))
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")
    assert loads(story) == 2


async def test_a_namespace_that_refuses_the_jobs_pods_is_said(story):
    story.world.podless = True
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.operator.live(minutes=1)
    message = story.expect_stalled("DataStore", "shop", "LoadNotStarted")
    assert "PodSecurity" in message
    assert "kubectl describe job shop-loading" in message
    story.world.podless = False
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")


async def test_a_load_that_has_succeeded_counts_whatever_the_spec_says_by_then(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    story.world.broken_images.clear()
    story.delete("Job", "shop-load")
    story.kube.change("DataStore", "data", "shop", lambda found: found["spec"]["managed"].pop("load"))
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")
    assert story.world.rows("data", "shop-binding") == {"alice"}


@pytest.mark.parametrize("load", [None, {"configMap": {"name": "seed"}}])
async def test_a_store_half_loaded_waits_for_its_job_whatever_the_load_says_since(story, load):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    story.world.broken_images.clear()
    story.delete("Job", LOADING)

    def change(found):
        found["spec"]["managed"]["load"] = load

    story.kube.change("DataStore", "data", "shop", change)
    await story.settle()
    assert "jobTemplate" in story.expect_stalled("DataStore", "shop", "LoadNotFound")
    story.edit("DataStore", "shop", **BY_JOB)
    await story.settle()
    story.expect_ready("DataStore", "shop")


@pytest.mark.parametrize(("kind", "name"), [("Job", LOADING), ("Secret", LOADING)])
async def test_what_has_the_jobs_name_and_is_not_ours_is_left_alone_and_said(story, kind, name):
    add_foreign(story, kind, name)
    before = story.get(kind, name)
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    assert name in story.expect_stalled("DataStore", "shop", "NameConflict")
    assert story.get(kind, name) == before
    story.delete(kind, name)
    await story.operator.live(minutes=6)
    story.expect_ready("DataStore", "shop")


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_the_job_goes_with_its_store_and_before_its_data(story, policy):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(deletionPolicy=policy, **BY_JOB)
    await story.settle()
    assert story.names("Job") == ["shop-load", LOADING]
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.names("Job") == ["shop-load"], "the user's own stays"
    assert story.names("Pod") == []
    assert story.names("PersistentVolumeClaim") == ([] if policy == "Delete" else ["shop-data"])


async def test_no_policy_of_ours_holds_the_jobs_pod(story):
    story.world.broken_images.add("example.com/loader")
    story.job("shop-load", "alice")
    story.store(**BY_JOB)
    await story.settle()
    [pod] = [pod for pod in story.kube.all("Pod") if pod["metadata"]["name"].startswith(LOADING)]
    for policy in story.kube.all("NetworkPolicy"):
        assert not policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["labels"]["team"] == "shop", "the namespace's own policies select it as they did"


async def test_how_many_files_are_in_is_told_while_the_servers_pod_reads_them(story):
    story.kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed", "namespace": "data"}})
    story.world.loads["data", "seed"] = frozenset({"alice"})
    story.world.load_lasts = True
    story.store(managed={"load": {"configMap": {"name": "seed"}}})
    for told, shown in (("", None), ("row 1\n", None), (_line(0), 0), (f"{_line(1)}{_line(2)}INSERT 0 1\n", 2)):
        story.kube.logs["data", "shop-server", "load"] = told
        await story.operator.live(seconds=70)
        expected = None if shown is None else {"done": shown, "total": 3}
        assert story.status("DataStore", "shop").get("load") == expected
    condition = story.condition("DataStore", "shop")
    assert (condition["reason"], condition["message"]) == ("Loading", "2 of 3 files of the initial load are in")
    story.world.load_lasts = False
    await story.operator.live(seconds=70)
    story.expect_ready("DataStore", "shop")
    assert "load" not in story.status("DataStore", "shop")


async def test_a_load_whose_log_cannot_be_read_goes_on(story):
    story.kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed", "namespace": "data"}})
    story.world.loads["data", "seed"] = frozenset({"alice"})
    story.world.load_lasts = True
    story.kube.unlogged = TransientError("dial tcp 10.0.0.7:10250: i/o timeout", status=500)
    story.store(managed={"load": {"configMap": {"name": "seed"}}})
    await story.operator.live(seconds=70)
    assert story.reason("DataStore", "shop") == "Starting"
    story.world.load_lasts = False
    await story.operator.live(seconds=70)
    story.expect_ready("DataStore", "shop")


def _line(done):
    return f'{{"phase": "Loading", "done": {done}, "total": 3}}\n'
