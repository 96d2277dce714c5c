"""The `coppice` command against a real API server: what it makes is accepted as it stands, and what is refused is told.

Nobody reconciles here, so that nothing is waited for.
"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tests.cel.test_objects import url

from coppice.cli.main import main

NAMESPACE = "command"
POINTS = {
    "tag": "v1",
    "commit": "1a2b3c4d",
    "snapshot": "shop-00001",
    "time": "2026-03-02T09:00:00Z",
    "migration": "42",
}


@pytest.fixture(scope="module")
def kubeconfig(cluster, tmp_path_factory):
    """A kubeconfig whose context names a namespace for these tests."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.request("POST", "/api/v1/namespaces", body)
    path = tmp_path_factory.mktemp("command") / "kubeconfig"
    path.write_text(cluster.kubeconfig().replace("namespace: default", f"namespace: {NAMESPACE}"))
    yield str(path)
    cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


@pytest.fixture
def run(kubeconfig):
    def call(*words, code=0, typed=None):
        done = CliRunner().invoke(main, ["--kubeconfig", kubeconfig, *words], input=typed)
        assert done.exit_code == code, f"{done.exit_code}: {done.output}{done.exception or ''}"
        return done

    return call


def made(cluster, kind, name):
    return cluster.request("GET", url(kind, name, NAMESPACE)).body


def test_a_clone_is_made_asked_and_deleted(cluster, run):
    asked = ("--lease", "3d", "--idle", "2h", "--profile", "large", "--secret", "login")
    told = json.loads(run("clone", "db", "--from", "data/shop:main", *asked, "--no-wait", "-o", "json").stdout)
    clone = made(cluster, "DataClone", "db")
    assert told["metadata"]["uid"] == clone["metadata"]["uid"]
    assert clone["spec"]["lease"] == {"max": "3d", "idle": "2h"}
    assert clone["metadata"]["managedFields"][0]["manager"] == "coppice-command"

    for verb in ("reset", "extend", "wake"):
        run(verb, "db", "--no-wait")
    annotations = made(cluster, "DataClone", "db")["metadata"]["annotations"]
    assert set(annotations) == {f"coppice.dev/{verb}-requested-at" for verb in ("reset", "extend", "wake")}

    assert "DataClone command/db  Not looked at yet" in run("status", "db").stdout
    assert "db" in run("status").stdout
    assert "DataClone command/db" in run("tree").stdout
    run("delete", "db", typed="n\n", code=1)
    run("delete", "db", "--yes")
    assert made(cluster, "DataClone", "db")["code"] == 404


@pytest.mark.parametrize("point", POINTS)
def test_every_point_is_accepted(cluster, run, point):
    run("clone", f"at-{point}", "--from", "data/shop", f"--{point}", POINTS[point], "--no-wait")
    run("branch", f"at/{point}", "--from", "shop", f"--{point}", POINTS[point], "--no-wait")
    assert made(cluster, "DataClone", f"at-{point}")["spec"]["from"][point] == POINTS[point]
    assert made(cluster, "DataBranch", f"at-{point}")["spec"]["branchName"] == f"at/{point}"


def test_snapshots_are_accepted(cluster, run):
    run("snapshot", "monday", "--from", "shop", "--no-wait")
    assert made(cluster, "DataSnapshot", "monday")["spec"] == {"store": {"name": "shop"}}
    run("clone", "work", "--from", "shop", "--no-wait")
    status = {"snapshot": {"name": "shop-00001", "uid": "u"}, "source": {"store": f"{NAMESPACE}/shop"}}
    body = {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataClone",
        "metadata": {"name": "work", "namespace": NAMESPACE},
        "status": status,
    }
    path = f"{url('DataClone', 'work', NAMESPACE)}/status?fieldManager=coppice-status&force=true"
    assert cluster.request("APPLY", path, body).ok
    run("snapshot", "--clone", "work", "--branch", "autumn", "--no-wait")
    commit = made(cluster, "DataSnapshot", "autumn-1")
    assert commit["spec"]["commit"] == {"branch": "autumn", "parent": "shop-00001"}
    run("snapshot", "--clone", "work", "--branch", "autumn", "--parent", "autumn-1", "--no-wait")
    assert made(cluster, "DataSnapshot", "autumn-2")["spec"]["commit"]["parent"] == "autumn-1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clone", "Db", "--from", "shop"), "the API server refuses it"),
        (("clone", "9db", "--from", "shop"), "metadata.name must start with a letter"),
        (("clone", "x", "--from", "shop", "--lease", "1h", "--idle", "2h"), "idle cannot be longer than max"),
        (("snapshot", "main-1", "--clone", "gone", "--branch", "main"), "there is no DataClone gone"),
        (("clone", "x", "--from", "shop", "-n", "nowhere"), "create the namespace, or name another one"),
    ],
)
def test_what_the_api_server_refuses_is_told_in_its_words(run, words, said):
    assert said in " ".join(run(*words, code=1).stderr.split())


def test_a_name_that_is_taken_is_told(run):
    run("clone", "twice", "--from", "shop", "--no-wait")
    assert "already exists: choose another name" in run("clone", "twice", "--from", "shop", code=1).stderr


def test_a_cluster_that_cannot_be_had_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = CliRunner().invoke(main, ["status"])
    assert (done.exit_code, "set KUBECONFIG" in done.stderr) == (1, True)


def test_a_context_that_is_not_there_is_told(run):
    assert "other" in run("--context", "other", "status", code=1).stderr
