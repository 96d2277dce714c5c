"""What the benchmark of pull requests renders, splits and reports."""

from pathlib import Path

import yaml
from e2e.bench.api import Seen, ending, vanished
from e2e.bench.by_kubectl import AT_ONCE, IN_WAVES, in_waves, read_kustomize, write_overlay
from e2e.bench.pull_requests import BY_ARGOCD, NotedForge, Run, is_synced, report, split
from e2e.bench.wake import Run as Waking
from e2e.bench.wake import is_asleep
from e2e.bench.wake import report as report_waking
from e2e.suite.previews import APPLICATION_SET, EXAMPLE
from tests.fakes.forge import API, Request

SHA = "a" * 40
ARGO = {
    "application": 1.0,
    "clone": 3.0,
    "clone ready": 5.0,
    "app": 6.0,
    "available": 8.0,
    "answer": 8.5,
    "synced": 9.0,
}


def test_kubectl_applies_what_the_application_set_would() -> None:
    found = read_kustomize(APPLICATION_SET.read_text(), 42, SHA)
    assert found["namespace"] == "shop-pr-42"
    patches = {patch["target"]["kind"]: yaml.safe_load(patch["patch"]) for patch in found["patches"]}
    values = {entry["path"]: entry["value"] for entry in patches["DataClone"]}
    assert values["/spec/revision"] == SHA
    assert values["/spec/pullRequest"]["number"] == 42
    assert "{{" not in str(found)


def test_an_overlay_lies_beside_the_repository_and_finds_its_preview(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "deploy/preview").mkdir(parents=True)
    overlay = write_overlay(checkout, 7, SHA)
    [resource] = yaml.safe_load((overlay / "kustomization.yaml").read_text())["resources"]
    assert (overlay / resource).resolve() == checkout / "deploy/preview"
    assert checkout not in overlay.parents, "the next push would have it"


def test_the_waves_are_those_of_the_example() -> None:
    manifests = [
        manifest
        for file in ("app", "clone", "namespace")
        for manifest in yaml.safe_load_all((EXAMPLE / f"preview/{file}.yaml").read_text())
    ]
    kinds = [[manifest["kind"] for manifest in wave] for wave in in_waves(manifests)]
    assert kinds == [["Namespace"], ["DataClone"], ["Deployment", "Service"]]


def test_a_forge_notes_when_it_first_shows_and_first_lacks_a_pull_request() -> None:
    forge = NotedForge()
    pull = forge.repository("acme/shop").open("a change", "branch", SHA)
    for _ in range(2):
        forge.answer(Request("GET", f"{API}/repos/acme/shop/pulls"))
        listed = dict(forge.listed)
    assert set(listed) == {pull.number}
    assert not forge.unlisted
    pull.state = "closed"
    forge.answer(Request("GET", f"{API}/repos/acme/shop/pulls"))
    assert forge.listed == listed
    assert forge.unlisted[pull.number] >= listed[pull.number]


def test_an_error_lists_nothing() -> None:
    forge = NotedForge()
    forge.repository("acme/shop").open("a change", "branch", SHA)
    forge.answer(Request("GET", f"{API}/repos/acme/shop/pulls"))
    forge.fail(1, status=502)
    forge.answer(Request("GET", f"{API}/repos/acme/shop/pulls"))
    assert not forge.unlisted


def test_the_parts_of_argo_cd_coppice_and_the_app_are_the_whole() -> None:
    parts = split(ARGO)
    assert parts["Argo CD's or kubectl's part"] == 4.0
    assert parts["Coppice: until the clone is Ready"] == 2.0
    assert parts["app: until its first answer"] == 2.5
    assert parts["the whole"] == 8.5 == 4.0 + 2.0 + 2.5


def test_an_app_that_is_applied_early_has_its_part_from_when_its_data_are_there() -> None:
    parts = split({"clone": 0.5, "app": 0.5, "clone ready": 2.5, "answer": 4.0})
    assert parts["until the app is applied"] == 0.0
    assert parts["app: until its first answer"] == 1.5
    assert sum(parts[step] for step in list(parts)[:5]) == parts["the whole"] == 4.0


def test_the_report_has_a_column_for_each_way_and_the_ratio_to_the_same_waves() -> None:
    plain = {"clone": 0.5, "clone ready": 2.5, "app": 2.75, "available": 4.0, "answer": 4.25}
    gone = {"clone": 1.0, "namespace": 2.0, "nothing": 2.5}
    runs = {
        BY_ARGOCD: [Run(ARGO, {"noticed": 0.5, **gone, "application": 3.0})],
        IN_WAVES: [Run(plain, gone)],
        AT_ONCE: [Run(plain, gone)],
    }
    told = {line.split("  ")[0]: line.split("  ")[-1] for line in report(runs).splitlines()}
    lines = {line.split("  ")[0]: line.split() for line in report(runs).splitlines() if line}
    assert lines[f"the whole, ratio to {IN_WAVES}"][-3:] == ["2.00", "1.00", "1.00"]
    assert lines["Application Healthy after"][-5:] == ["9.00", "/", "9.00", "-", "-"]
    assert lines["taken notice"][-5:] == ["0.50", "/", "0.50", "-", "-"]
    assert told["nothing left"].strip() == "2.50 / 2.50"


def application(sync: str, health: str, phase: str) -> Seen:
    status = {"sync": {"status": sync}, "health": {"status": health}, "operationState": {"phase": phase}}
    return Seen(0.0, "MODIFIED", {"metadata": {}, "status": status})


def test_an_application_is_done_by_all_that_it_says() -> None:
    assert is_synced(application("Synced", "Healthy", "Succeeded"))
    assert not is_synced(application("OutOfSync", "Healthy", "Succeeded"))
    assert not is_synced(application("Synced", "Progressing", "Succeeded"))
    assert not is_synced(application("Synced", "Healthy", "Running"))
    assert not is_synced(Seen(0.0, "ADDED", {"metadata": {}}))


def test_an_object_that_is_being_deleted_has_not_vanished() -> None:
    gone = vanished("shop-pr-1", "db")
    metadata = {"name": "db", "namespace": "shop-pr-1", "deletionTimestamp": "2030-01-01T12:00:00Z"}
    leaving = Seen(0.0, "MODIFIED", {"metadata": metadata})
    assert ending(leaving)
    assert not gone(leaving)
    assert gone(Seen(0.0, "DELETED", {"metadata": metadata}))
    assert not gone(Seen(0.0, "DELETED", {"metadata": {**metadata, "namespace": "shop-pr-2"}}))


def test_a_clone_sleeps_by_its_own_word() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "Asleep"}
    assert is_asleep({"status": {"conditions": [condition]}})
    assert not is_asleep({"status": {"conditions": [{**condition, "reason": "PoweredOff"}]}})
    assert not is_asleep({})


def test_waking_is_compared_with_a_pod_by_hand() -> None:
    run = Waking({"pod ready": 1.5, "clone ready": 1.75, "query": 2.0}, {"pod ready": 0.75, "query": 1.0})
    lines = [line.split() for line in report_waking([run, run]).splitlines() if " / " in line]
    assert lines[1][-7:] == ["1.75", "/", "1.75", "2.00", "/", "2.00", "2.00"]
    assert lines[2][-4:] == ["-", "1.00", "/", "1.00"]
