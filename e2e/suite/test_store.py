"""A store's days: points in its history, schedules, crashes, its end, and its restoration."""

from __future__ import annotations

import copy
import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from e2e.suite.data import Clone, Store, ask_clones
from e2e.suite.manifests import data_clone, data_grant, data_snapshot, data_store, example, resource
from e2e.suite.pool import Pool
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

BACKUP_GUIDE = Path(__file__).parents[2] / "docs" / "backup.md"
NAMES = "SELECT name FROM item ORDER BY id"
COUNT = "SELECT COUNT(*) AS items FROM item"


@pytest.fixture(scope="module", autouse=True)
def every_minute(kube: Kube, store: Store) -> None:
    """A schedule, set at the beginning: one of the stories waits for what it makes."""
    kube.patch("dstore", store.name, store.namespace, {"spec": {"snapshots": {"schedule": "* * * * *"}}})


def test_a_clone_can_be_of_any_point_in_a_stores_history(kube: Kube, store: Store) -> None:
    # A time has whole seconds: the one that has begun may have begun before the last commit.
    first = store.sql("SELECT dolt_hashof('HEAD') AS head, NOW() + INTERVAL 1 SECOND AS time")[0]
    store.sql("CALL dolt_tag('v1')")
    kube.apply(*example("experiment/experiment.yaml", store.namespace, store=store.name, owners=store.namespace))
    kube.ready(store.namespace, "dsnap/experiment-7", "dclone/experiment-7")
    branch = {"store": {"name": store.name}, "branchName": "feature/autumn", "from": {"tag": "v1"}}
    kube.apply(resource("DataBranch", "autumn", store.namespace, branch))
    kube.ready(store.namespace, "dbranch/autumn")
    store.sql("CALL dolt_checkout('feature/autumn'); INSERT INTO item VALUES (7, 'chestnut', 70); "
              "CALL dolt_commit('-A', '-m', 'autumn')")  # fmt: skip
    store.commit("INSERT INTO item VALUES (4, 'fig', 40)", "a fourth item")
    store.sql("INSERT INTO item VALUES (5, 'quince', 50)")

    moment = str(first["time"]).replace(" ", "T") + "Z"
    points = {
        "main": ({"branch": "main"}, "apple pear plum fig quince"),
        "autumn": ({"branch": "feature/autumn"}, "apple pear plum chestnut"),
        "tag": ({"tag": "v1"}, "apple pear plum"),
        "commit": ({"commit": first["head"]}, "apple pear plum"),
        "time": ({"time": moment}, "apple pear plum"),
        "snapshot": ({"snapshot": "experiment-7"}, "apple pear plum"),
    }
    kube.apply(*(data_clone(name, store.namespace, store=store.name, source=at) for name, (at, _) in points.items()))
    kube.ready(store.namespace, *(f"dclone/{name}" for name in points))

    held = {
        name: " ".join(row["name"] for row in rows) for name, rows in ask_clones(kube, store.namespace, NAMES).items()
    }
    assert held == {"experiment-7": "apple pear plum"} | {name: expected for name, (_, expected) in points.items()}
    assert Clone(kube, store.namespace, "commit").status["source"]["head"] == first["head"]
    assert Clone(kube, store.namespace, "autumn").status["source"]["branch"] == "feature/autumn"
    kube.run("delete", "-n", store.namespace, *(f"dclone/{name}" for name in held))


def test_a_server_that_was_killed_comes_back_with_all_it_acknowledged(kube: Kube, store: Store) -> None:
    there = store.sql(COUNT)[0]["items"]
    store.sql("INSERT INTO item VALUES (20, 'medlar', 5)")
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    kube.run("delete", "-n", store.namespace, f"pod/{store.name}-server", "--grace-period=0", "--force")

    def another() -> bool:
        found = kube.get("pod", f"{store.name}-server", store.namespace)
        assert server is not None
        return found is not None and found["metadata"]["uid"] != server["metadata"]["uid"]

    eventually(another, "there is another server")
    eventually(lambda: kube.reason("dstore", store.name, store.namespace) == "Ready", "it answers")
    assert store.sql(COUNT) == [{"items": there + 1}]


@pytest.mark.alone
def test_a_clone_survives_the_death_of_the_storage_driver(kube: Kube, store: Store, tenant: str) -> None:
    pool = Pool.of(kube)
    store.sql("INSERT INTO item VALUES (30, 'sloe', 3)")

    def asked_for() -> set[str]:
        """What the driver has been asked for in the store's namespace: raw snapshots, scratch claims, prepared ones."""
        made = kube.items("volumesnapshots,persistentvolumeclaims", "-n", store.namespace)
        return {item["metadata"]["uid"] for item in made}

    before = asked_for()
    clone = Clone(kube, tenant, "orphaned").apply(store)
    eventually(lambda: asked_for() - before, "the driver has been asked for something")
    pool.restart_driver()
    clone.ready()
    assert clone.sql(COUNT) == store.sql(COUNT)
    eventually(lambda: pool.subvolumes() == pool.handles(), "the pool holds what the cluster knows, and no more")
    clone.delete()


def test_a_store_that_is_deleted_and_made_again_has_its_data(kube: Kube, owners: str) -> None:
    store = Store(kube, owners, "kept").create()
    store.commit("CREATE TABLE item (id INT PRIMARY KEY); INSERT INTO item VALUES (1), (2)")
    passwords = store.passwords
    kube.run("delete", "-n", owners, "dstore/kept", "--wait", "--timeout=120s")
    assert kube.get("pvc", "kept-data", owners) is not None
    eventually(lambda: kube.get("pod", "kept-server", owners) is None, "its server is gone")

    store.create()
    assert store.passwords == passwords
    assert store.sql(COUNT) == [{"items": 2}]
    kube.run("delete", "-n", owners, "dstore/kept", "pvc/kept-data", "secret/kept-admin", "--timeout=120s")


def test_a_store_whose_data_may_go_leaves_nothing(kube: Kube, owners: str) -> None:
    pool = Pool.of(kube)
    store = Store(kube, owners, "brief").create(deletionPolicy="Delete")
    store.commit("CREATE TABLE item (id INT PRIMARY KEY)")
    kube.apply(data_snapshot("by-hand", owners, store="brief"))
    Clone(kube, owners, "brief-db").apply(store).ready().delete()
    kube.ready(owners, "dsnap/by-hand")
    claim = kube.get("pvc", "brief-data", owners)
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    handle = volume["spec"]["csi"]["volumeHandle"]
    assert handle in pool.subvolumes()

    kube.run("delete", "-n", owners, "dstore/brief", "--wait", "--timeout=120s")
    eventually(lambda: kube.get("pvc", "brief-data", owners) is None, "the claim is gone")
    eventually(lambda: handle not in pool.subvolumes(), "the subvolume is gone")
    assert kube.get("secret", "brief-admin", owners) is None
    left = [
        item["metadata"]["name"]
        for item in kube.items("dsnap", "-n", owners)
        if item["spec"]["store"]["name"] == "brief"
    ]
    assert left == ["by-hand"]
    kube.run("delete", "-n", owners, "dsnap/by-hand")


def test_a_store_with_many_branches_has_snapshots_that_name_them_all(kube: Kube, owners: str) -> None:
    forest = Store(kube, owners, "forest").create(deletionPolicy="Delete")
    # Their report is longer than the pieces in which a container runtime writes a line.
    forest.sql("; ".join(f"CALL dolt_branch('tree-{number:03}')" for number in range(250)))
    kube.apply(data_snapshot("all-of-it", owners, store=forest.name))
    kube.ready(owners, "dsnap/all-of-it")
    assert len(kube.status("dsnap", "all-of-it", owners)["branches"]) == 251
    kube.run("delete", "-n", owners, "dsnap/all-of-it", f"dstore/{forest.name}", "--wait", "--timeout=120s")


def loading(namespace: str, image: str) -> tuple[Manifest, Manifest]:
    """Return the Job and the store of the example, with the cluster's image of the engine."""
    job, orders = example("load/load.yaml", namespace, store="orders", owners=namespace)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return job, orders


def test_a_job_fills_a_new_store_once_and_its_mistakes_are_told(kube: Kube, store: Store, namespace: str) -> None:
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    job, orders = loading(namespace, server["spec"]["containers"][0]["image"])
    where = ("dstore", "orders", namespace)

    def retry(change: Manifest, args: list[str]) -> None:
        """Apply the Job anew, with another security context and other arguments."""
        kube.run("delete", "-n", namespace, "job/orders-load", "--ignore-not-found")
        wrong = copy.deepcopy(job)
        wrong["spec"] |= {"backoffLimit": 0}
        wrong["spec"]["template"]["spec"]["containers"][0] |= {"args": args, **change}
        kube.apply(wrong)

    kube.apply(orders)
    assert "Job orders-load" in kube.until_reason("LoadNotFound", *where)["message"]
    retry({"securityContext": {"allowPrivilegeEscalation": True}}, ["exit 0"])
    assert "PodSecurity" in kube.until_reason("LoadNotStarted", *where)["message"]
    retry({}, ["printf '%s' \"$password\"; exit 3"])
    told = kube.until_reason("LoadFailed", *where)["message"]
    assert "BackoffLimitExceeded" in told
    assert "exit code 3" in told
    password = kube.run("logs", "-n", namespace, "job/orders-loading")
    assert password == kube.binding(namespace, "orders-admin")["app-password"]
    assert password not in json.dumps(kube.get(*where))
    assert kube.get("secret", "orders-binding", namespace) is None

    kube.run("delete", "-n", namespace, "job/orders-load")
    kube.apply(job)
    kube.ready(namespace, "dstore/orders")
    filled = Store(kube, namespace, "orders")
    assert filled.sql("SELECT COUNT(*) AS items FROM orders") == [{"items": 3}]
    assert filled.sql("SELECT message FROM dolt_log LIMIT 1") == [{"message": "Initial load"}]
    filled.sql("DELETE FROM orders WHERE id = 1")

    kube.run(
        "patch", "dstore", "orders", "-n", namespace, "--subresource=status", "--type=merge", "-p", '{"status":null}'
    )
    kube.run("delete", "-n", namespace, "pod/orders-server", "job/orders-load")
    kube.apply(job)
    kube.ready(namespace, "dstore/orders")
    assert filled.sql("SELECT COUNT(*) AS items FROM orders") == [{"items": 2}]
    eventually(lambda: [found["metadata"]["name"] for found in kube.items("jobs,pods", "-n", namespace)
                        if found["metadata"]["name"] not in {"client", "orders-load"}] == ["orders-server"],
               "nothing is left of the load")  # fmt: skip


def test_a_load_on_its_way_goes_with_its_store(kube: Kube, store: Store, namespace: str) -> None:
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    job, orders = loading(namespace, server["spec"]["containers"][0]["image"])
    job["spec"]["template"]["spec"]["containers"][0]["args"] = ["sleep 3600"]
    job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    orders["spec"]["deletionPolicy"] = "Delete"
    kube.apply(job, orders)
    eventually(lambda: kube.items("pods", "-n", namespace, "-l", "coppice.dev/role=load"), "the load runs")
    kube.run("delete", "-n", namespace, "dstore/orders", "--wait", "--timeout=120s")
    eventually(lambda: kube.items("pods,jobs,pvc,secrets", "-n", namespace) == kube.items("job", "-n", namespace),
               "all but the user's own Job is gone")  # fmt: skip
    assert [found["metadata"]["name"] for found in kube.items("jobs", "-n", namespace)] == ["orders-load"]


def documented_claim(kube: Kube, store: Store, snapshot: str) -> Manifest:
    """Return the claim that the guide has for a restoration, for this store and snapshot."""
    guide = BACKUP_GUIDE.read_text(encoding="utf-8")
    text = re.search(r"```yaml\n(apiVersion: v1\nkind: PersistentVolumeClaim\n.*?)```", guide, re.DOTALL)
    assert text is not None
    claim: Manifest = yaml.safe_load(text.group(1).replace("shop-00042", snapshot).replace("shop", store.name))
    claim["metadata"]["namespace"] = store.namespace
    claim["spec"]["storageClassName"] = kube.cluster.storage_class
    claim["spec"]["resources"]["requests"]["storage"] = "1Gi"
    return claim


def wishes(store: Store) -> list[Manifest]:
    """Return what the owners have in their Git repository."""
    autumn = {"store": {"name": store.name}, "branchName": "autumn", "from": {"branch": "main"}}
    return [
        data_store(store.name, store.namespace),
        data_grant("previews", store.namespace, store=store.name, to=["elsewhere"]),
        resource("DataBranch", "autumn", store.namespace, autumn),
    ]


def test_a_store_is_restored_from_a_snapshot_as_the_guide_says(kube: Kube, namespace: str) -> None:
    store = Store(kube, namespace, "lost")
    kube.apply(*wishes(store))
    kube.ready(namespace, "dstore/lost", "dbranch/autumn", "dgrant/previews")
    store.commit("CREATE TABLE item (id INT PRIMARY KEY); INSERT INTO item VALUES (1), (2), (3)")
    store.sql("CALL dolt_checkout('autumn'); CALL dolt_merge('main'); INSERT INTO item VALUES (4); "
              "CALL dolt_commit('-A', '-m', 'autumn')")  # fmt: skip
    kube.apply(data_snapshot("good", namespace, store="lost"))
    kube.ready(namespace, "dsnap/good")
    Clone(kube, namespace, "before").apply(store).ready()
    captured, old = kube.status("dsnap", "good", namespace), store.passwords
    store.commit("DELETE FROM item", "a mistake")

    kube.run("delete", "-n", namespace, "dclone,dbranch,dgrant,dstore", "--all", "--timeout=120s")
    kube.run("delete", "-n", namespace, "pvc/lost-data", "secret/lost-admin", "--timeout=120s")
    made = ("pods,pvc,secrets,services,networkpolicies", "-n", namespace, "-l", "app.kubernetes.io/managed-by=coppice")
    eventually(lambda: not kube.items(*made), "nothing is left of the store but its snapshots")

    kube.apply(documented_claim(kube, store, "good"), *wishes(store))
    kube.ready(namespace, "dstore/lost", "dbranch/autumn", "dgrant/previews")
    assert store.sql(COUNT) == [{"items": 3}]
    assert store.sql("SELECT COUNT(*) AS items FROM item AS OF 'autumn'") == [{"items": 4}]
    assert store.passwords["admin-password"] != old["admin-password"]
    told = kube.binding(namespace, "lost-binding")
    assert told["password"] == store.passwords["app-password"]
    assert kube.status("dsnap", "good", namespace)["identity"] == captured["identity"]
    Clone(kube, namespace, "of-now").apply(store)
    Clone(kube, namespace, "of-then").apply(store, source={"snapshot": "good"})
    kube.ready(namespace, "dclone/of-now", "dclone/of-then")
    assert ask_clones(kube, namespace, COUNT) == {"of-now": [{"items": 3}], "of-then": [{"items": 3}]}


def lasting(kube: Kube, *found: str) -> Manifest:
    """Return an object's status without its conditions, which have times of their own, and what every look changes."""
    passing = {"conditions", "activity", "lastActivityAt", "expiresAt"}
    return {key: value for key, value in kube.status(*found).items() if key not in passing}


def test_statuses_that_are_lost_come_back_from_the_cluster(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "stripped").apply(store).ready()
    clone.sql("INSERT INTO item VALUES (99, 'mine', 1)")
    snapshot = ("dsnap", str(clone.status["snapshot"]["name"]), store.namespace)
    made, owned = [snapshot, ("dclone", clone.name, tenant)], [("dstore", store.name), ("dgrant", "previews")]
    before, pod = [lasting(kube, *found) for found in made], clone.pod["metadata"]["uid"]
    objects = [*made, *((kind, name, store.namespace) for kind, name in owned)]
    for kind, name, where in objects:
        kube.run("patch", kind, name, "-n", where, "--subresource=status", "--type=merge", "-p", '{"status":null}')
        kube.run("annotate", kind, name, "-n", where, "restored=yes")

    for kind, name, where in objects:
        kube.ready(where, f"{kind}/{name}")
    assert [lasting(kube, *found) for found in made] == before
    assert clone.pod["metadata"]["uid"] == pod
    assert clone.sql("SELECT name FROM item WHERE id = 99") == [{"name": "mine"}]
    clone.delete()


def test_a_schedule_makes_snapshots(kube: Kube, store: Store) -> None:
    def scheduled() -> list[Manifest]:
        return kube.items("dsnap", "-n", store.namespace, "-l", "coppice.dev/purpose=schedule")

    eventually(lambda: len(scheduled()) >= 2, "the one that was due is made, and the next one when its time has come")
    kube.patch("dstore", store.name, store.namespace, {"spec": {"snapshots": {"schedule": None}}})
    kube.ready(store.namespace, *(f"dsnap/{made['metadata']['name']}" for made in scheduled()))
    times = sorted(datetime.fromisoformat(made["metadata"]["creationTimestamp"]) for made in scheduled())
    assert all(time.second < 15 for time in times[1:]), "their time is the full minute"
