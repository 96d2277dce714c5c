"""Checks of a request that are programs: each runs once on what would be published, and nothing is before they pass."""

import pytest
from tests.fakes.audit import orphans
from tests.fakes.merging import CHECKER
from tests.fakes.story import Story, begun
from tests.fakes.world import ROW_IN_A_MESSAGE

from coppice.manifests.secret import read_secret

OLD, NEW, OTHER = "price/1=4711", "price/1=4712", "price/2=20"


def protection(*templates, **more):
    checks = [{"name": f"of-{name}", "jobTemplate": name} for name in templates]
    return [{"branches": ["main"], "approvals": 1, "checks": checks, **more}]


async def _with_clone(story: Story) -> None:
    story.policies()
    story.store(protection=protection("smoke"))
    await story.settle()
    story.commit(OLD, OTHER)
    story.clone()
    await story.settle()
    branch = story.world.login("data", "db-binding").volume.branches["main"]
    branch.rows = (branch.rows - {OLD}) | {NEW}
    story.world.tick(60)


@pytest.fixture
def story() -> Story:
    """Return a story in which a price was changed on a clone, and the store's owners have a program to check that."""
    return begun(_with_clone)


def status(story):
    return story.status("DataChangeRequest", "fix")


def check(story, name="of-smoke"):
    [found] = [entry for entry in status(story)["checks"] if entry["name"] == name]
    return found


def said(story):
    return story.condition("DataChangeRequest", "fix", of="ChecksPassed")


def jobs(story, *templates):
    return [name for name in story.names("Job") if name not in (templates or ("smoke",))]


async def test_a_check_runs_once_on_the_merged_data_before_anything_is_published(story):
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    assert (said(story)["status"], said(story)["reason"]) == ("True", "ChecksPassed")
    assert story.world.checked == [(["price/9"], {NEW, OTHER})]
    found = check(story)
    assert (found["passed"], found["result"], found["job"]) == (True, status(story)["result"], jobs(story)[0])
    assert found["finishedAt"]
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert len(story.world.checked) == 1
    assert jobs(story) == []
    assert not [name for name in story.names("Secret") if name.startswith("fix-check")]


def runs(story):
    """Return how often a Job was made for a check."""
    return sum(write.startswith("ADDED Job data/fix-check-") for write in story.world.writes)


def connections(story):
    return [name for name in story.names("Secret") if name.startswith("fix-check-")]


def prices(story):
    return story.data_of().branches["main"].rows


def replace_job(story, *forbidden, name="smoke", **spec):
    """Delete a Job and apply it again, which is how one is changed."""
    story.delete("Job", name)
    story.job(name, *forbidden, **spec)


async def approve(story):
    story.review()
    await story.operator.live(minutes=2)


# -- what a program gets --


async def test_a_program_reads_one_commit_and_can_do_nothing_else(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    [secret], [job] = connections(story), jobs(story)
    values = read_secret(story.get("Secret", secret))
    assert values["database"] == f"shop/{status(story)['result']}"
    assert values["host"] == f"{status(story)['preview']['clone']}.data.svc"
    assert values["username"] == CHECKER
    made = story.get("Job", job)
    assert {owner["kind"] for owner in made["metadata"]["ownerReferences"]} == {"DataChangeRequest"}
    environment = made["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {entry["valueFrom"]["secretKeyRef"]["name"] for entry in environment} == {secret}
    assert (said(story)["reason"], check(story)["passed"], "finishedAt" in check(story)) == (
        "ChecksRunning",
        False,
        False,
    )


async def test_the_connection_goes_when_the_last_check_has_ended_and_the_job_stays_for_its_log(story):
    story.edit("DataStore", "shop", protection=protection("smoke", "slow"))
    story.world.hanging = lambda pod: pod["spec"]["containers"][0].get("args") == ["slow"]
    story.job("smoke", "price/9")
    story.job("slow", "slow")
    story.request()
    await story.settle()
    assert (check(story)["passed"], check(story, "of-slow")["passed"]) == (True, False)
    assert len(connections(story)) == 1
    assert "of-slow" in said(story)["message"]
    story.world.hanging = lambda pod: False
    await story.settle()
    assert (said(story)["reason"], connections(story)) == ("ChecksPassed", [])
    assert len(jobs(story, "smoke", "slow")) == 2


async def test_what_an_app_writes_meanwhile_takes_nothing_from_under_a_program_nor_from_who_approved(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    branch = story.world.login("data", "db-binding").volume.branches["main"]
    branch.rows |= {"price/3=30"}
    await story.operator.live(minutes=10)
    story.review()
    await story.operator.live(minutes=10)
    assert (said(story)["reason"], runs(story)) == ("ChecksRunning", 1)
    story.world.hanging = lambda pod: False
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert (runs(story), prices(story)) == (1, {NEW, OTHER})


async def test_a_check_that_two_rules_name_runs_once(story):
    story.edit("DataStore", "shop", protection=[*protection("smoke"), *protection("smoke", branches=["ma*"])])
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    assert (runs(story), len(status(story)["checks"])) == (1, 1)


# -- what does not pass --


async def test_a_check_that_fails_is_named_with_its_log_and_nothing_that_it_printed(story):
    story.job("smoke", NEW)
    story.request()
    await story.settle()
    message = story.expect_stalled("DataChangeRequest", "fix", "ChecksFailed")
    [job] = jobs(story)
    assert "1 of 1 checks of the store's owners fail: of-smoke" in message
    assert f"kubectl logs -n data job/{job} --all-containers" in message
    assert (check(story)["passed"], check(story)["message"]) == (False, f"Job {job} failed (BackoffLimitExceeded)")
    await approve(story)
    assert prices(story) == {OLD, OTHER}
    told = str([found.get("status") for found in story.kube.all() if found["kind"].startswith("Data")])
    assert ROW_IN_A_MESSAGE not in told
    assert NEW not in told
    assert runs(story) == 1


async def test_the_same_is_tried_anew_when_the_job_that_failed_is_deleted(story):
    story.world.crashing = lambda pod: pod["metadata"]["labels"].get("coppice.dev/role") == "check"
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    assert said(story)["reason"] == "ChecksFailed"
    story.world.crashing = lambda pod: False
    story.delete("Job", jobs(story)[0])
    await story.operator.live(minutes=1)
    assert (said(story)["status"], runs(story)) == ("True", 2)


async def test_a_job_that_is_put_right_runs_in_the_place_of_the_one_that_failed(story):
    story.job("smoke", NEW)
    story.request()
    await story.settle()
    replace_job(story, "price/9")
    await story.operator.live(minutes=1)
    assert (said(story)["status"], check(story)["passed"], len(jobs(story))) == ("True", True, 1)


async def test_a_job_that_failed_and_is_applied_again_as_it_was_is_tried_anew(story):
    story.world.crashing = lambda pod: pod["metadata"]["labels"].get("coppice.dev/role") == "check"
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    story.world.crashing = lambda pod: False
    replace_job(story, "price/9")
    await story.operator.live(minutes=1)
    assert (said(story)["status"], runs(story), len(jobs(story))) == ("True", 2, 1)


async def test_a_query_that_fails_and_a_program_that_fails_are_both_named(story):
    rules = protection("smoke")
    rules[0]["checks"].append({"name": "no-cents", "sql": NEW})
    story.edit("DataStore", "shop", protection=rules)
    story.job("smoke", NEW)
    story.request()
    await story.settle()
    message = story.expect_stalled("DataChangeRequest", "fix", "ChecksFailed")
    assert "2 of 2 checks of the store's owners fail: no-cents, of-smoke" in message


async def test_a_check_that_hangs_holds_the_change_up_until_its_time_is_over_and_then_has_failed(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    await approve(story)
    assert (said(story)["reason"], prices(story)) == ("ChecksRunning", {OLD, OTHER})
    await story.operator.live(minutes=70)
    message = story.expect_stalled("DataChangeRequest", "fix", "ChecksFailed")
    assert "DeadlineExceeded" in message
    assert (prices(story), runs(story)) == ({OLD, OTHER}, 1)


async def test_how_long_a_check_may_take_is_for_its_owners_to_say(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9", activeDeadlineSeconds=60)
    story.request()
    await story.settle()
    await story.operator.live(minutes=2)
    assert said(story)["reason"] == "ChecksFailed"


async def test_a_job_that_is_not_there_is_waited_for_and_nothing_is_published(story):
    story.request()
    await story.settle()
    await approve(story)
    assert (said(story)["reason"], prices(story)) == ("CheckNotFound", {OLD, OTHER})
    assert "Job smoke of check of-smoke" in said(story)["message"]
    assert (check(story)["passed"], check(story)["message"]) == (False, "there is no Job smoke")
    story.job("smoke", "price/9")
    await story.operator.live(minutes=1)
    assert prices(story) == {NEW, OTHER}


async def test_a_job_that_runs_by_itself_is_refused(story):
    story.job("smoke", "price/9", suspend=False)
    story.request()
    await story.settle()
    story.expect_stalled("DataChangeRequest", "fix", "CheckNotSuspended")
    assert (jobs(story), check(story)["passed"]) == ([], False)


async def test_a_namespace_that_refuses_the_pods_of_a_check_is_named(story):
    story.world.podless = True
    story.job("smoke", "price/9")
    story.request()
    await story.operator.live(minutes=1)
    assert "PodSecurity" in story.expect_stalled("DataChangeRequest", "fix", "CheckNotStarted")


# -- what it holds for --


async def test_a_result_holds_for_the_next_operator_without_its_job_too(story):
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    story.delete("Job", jobs(story)[0])
    story.operator.restart()
    await story.operator.live(minutes=2)
    assert (said(story)["status"], runs(story), jobs(story)) == ("True", 1, [])


async def test_a_job_that_is_applied_again_as_it_was_is_the_same(story):
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    replace_job(story, "price/9")
    await story.operator.live(minutes=2)
    assert (said(story)["status"], runs(story)) == ("True", 1)


async def test_another_program_runs_although_the_one_before_it_has_passed(story):
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    [before] = jobs(story)
    replace_job(story, NEW)
    await story.operator.live(minutes=2)
    assert said(story)["reason"] == "ChecksFailed"
    assert before not in jobs(story)
    await approve(story)
    assert prices(story) == {OLD, OTHER}


async def test_a_program_that_is_changed_on_the_way_gives_way_to_the_other(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", NEW)
    story.request()
    await story.settle()
    [before] = jobs(story)
    replace_job(story, "price/9")
    story.world.hanging = lambda pod: False
    await story.operator.live(minutes=2)
    assert (said(story)["status"], before in jobs(story), len(jobs(story))) == ("True", False, 1)


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
async def test_a_program_that_is_changed_at_the_last_moment_holds_the_change_up(story, moment):
    engine, looks = story.world.engine, []
    look = engine.log

    async def log(at, database, start, *, limit):
        found = await look(at, database, start, limit=limit)
        # The store has fetched what it is about to take, and all but that has been looked at already.
        if start == status(story).get("publishing") and start in story.data_of().commits:
            looks.append(start)
            if len(looks) == moment:
                replace_job(story, NEW)
        return found

    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    engine.log = log
    await approve(story)
    assert len(looks) >= moment
    assert (said(story)["reason"], prices(story)) == ("ChecksFailed", {OLD, OTHER})


async def test_another_result_is_checked_again_and_the_job_of_the_one_before_goes(story):
    story.job("smoke", "price/9")
    story.request(merge="Manual")
    await story.settle()
    [before] = jobs(story)
    story.commit("price/3=30")
    await story.operator.live(minutes=1)
    assert story.world.checked[-1][1] == {NEW, OTHER, "price/3=30"}
    assert (runs(story), before in jobs(story), len(jobs(story))) == (2, False, 1)
    story.commit("price/9=90")
    await story.operator.live(minutes=1)
    assert said(story)["reason"] == "ChecksFailed"


async def test_nothing_runs_on_while_there_is_no_result(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    main = story.data_of().branches["main"]
    main.rows -= {OLD}
    story.commit("price/1=4713")
    await story.operator.live(minutes=1)
    assert story.reason("DataChangeRequest", "fix") == "Conflicts"
    assert (jobs(story), connections(story), status(story)["checks"]) == ([], [], [])


async def test_a_check_that_nobody_asks_for_any_more_goes(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    story.edit("DataStore", "shop", protection=protection())
    await story.settle()
    assert (said(story)["status"], jobs(story), connections(story)) == ("True", [], [])


async def test_a_check_whose_server_went_has_not_failed_and_runs_again(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9", backoffLimit=0)
    story.request()
    await story.settle()
    clone = status(story)["preview"]["clone"]
    [server] = [name for name in story.names("Pod") if name == story.copy(clone=clone)]
    story.delete("Pod", server)
    story.world.crashing = lambda pod: pod["metadata"]["labels"].get("coppice.dev/role") == "check"
    story.world.hanging = lambda pod: False
    story.world.turn()
    story.world.crashing = lambda pod: False
    await story.operator.live(minutes=2)
    assert (said(story)["status"], runs(story)) == ("True", 2)


async def test_a_job_of_somebody_elses_under_the_name_is_left_alone_and_said(story):
    story.job("smoke", NEW)
    story.request()
    await story.settle()
    [name] = jobs(story)
    story.delete("Job", name)
    story.job(name, "price/9")
    await story.operator.live(minutes=1)
    assert story.reason("DataChangeRequest", "fix") == "NameConflict"
    assert name in story.names("Job")


async def test_a_request_that_is_deleted_while_a_check_runs_leaves_nothing(story):
    story.world.hanging = lambda pod: True
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    story.delete("DataChangeRequest", "fix")
    await story.operator.live(minutes=1)
    assert (jobs(story), connections(story), orphans(story.world)) == ([], [], [])
