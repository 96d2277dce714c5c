"""Masked data, as their owners and those who get them meet them: the example, and masks that fail."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from e2e.suite.data import Clone, Store
from e2e.suite.kube import THOROUGH
from e2e.suite.manifests import EXAMPLES, POSTGRESQL, data_grant, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

STORE = "music"
LEAKS = """
SELECT count(*)::int AS rows, count(*) FILTER (WHERE email NOT LIKE '%@example.com' OR fax IS NOT NULL)::int AS leaks
FROM customer
"""

SAME = "UPDATE customer SET email = 'x@example.com' WHERE customer_id < 30"
BROKEN: dict[str, tuple[str, Manifest, str]] = {
    "stops half-way": (f"{SAME}; COMMIT; SELECT 1 / 0", {}, "exit code"),
}
if THOROUGH:
    BROKEN |= {
        "hangs": ("SELECT pg_sleep(3600)", {"activeDeadlineSeconds": 5}, "DeadlineExceeded"),
        "fails": ("UPDATE nobody SET email = NULL", {}, "exit code"),
        "forgets rows": (SAME, {}, "exit code"),
    }


@pytest.fixture(scope="module")
def written(kube: Kube) -> Iterator[list[Manifest]]:
    """The example's Job and store in a namespace of their own, with the cluster's image and the sample data."""
    owners = kube.new_namespace("masking")
    kube.run(
        "create", "configmap", "chinook-sql", "-n", owners, f"--from-file={EXAMPLES / 'postgresql' / 'chinook.sql'}"
    )
    job, store, _ = example("masking/mask.yaml", owners, store=STORE, owners=owners)
    store["spec"]["managed"] |= POSTGRESQL
    del store["spec"]["snapshots"]
    kube.apply(store)
    kube.ready(owners, f"dstore/{STORE}")
    server = Store(kube, owners, STORE).server
    pod = job["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] = server["spec"]["containers"][0]["image"]
        container["command"][0] = "/usr/lib/postgresql/15/bin/psql"
    yield [job, store]
    kube.delete_namespace(owners, wait=False)


@pytest.fixture
def job(written: list[Manifest]) -> Manifest:
    """The example's Job."""
    return copy.deepcopy(written[0])


@pytest.fixture
def chinook(kube: Kube, written: list[Manifest]) -> Iterator[Store]:
    """The store, without a snapshot."""
    namespace = written[1]["metadata"]["namespace"]
    yield Store(kube, namespace, STORE)
    kube.run("delete", "dsnap", "-n", namespace, "--all", "--wait")


@pytest.fixture
def previews(kube: Kube, chinook: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that may have masked clones."""
    namespace = kube.new_namespace(request.node.name)
    kube.apply(data_grant("previews", chinook.namespace, store=STORE, to=[namespace], data="Masked"))
    yield namespace
    kube.delete_namespace(namespace)


def again(kube: Kube, job: Manifest) -> None:
    """Apply the Job anew, as one does who corrects it."""
    kube.run("delete", "-n", job["metadata"]["namespace"], "job/chinook-mask", "--ignore-not-found")
    kube.apply(job)


def masks_with(job: Manifest, statement: str) -> Manifest:
    """Return the Job with another mask, which is not one transaction."""
    [mask] = job["spec"]["template"]["spec"]["initContainers"]
    mask["command"].remove("--single-transaction")
    mask["args"] = [statement]
    return job


def failed(kube: Kube, namespace: str) -> Manifest:
    """Wait until a snapshot says that its mask failed; return the condition."""

    def found() -> Manifest:
        for snapshot in kube.items("dsnap", "-n", namespace):
            for condition in snapshot.get("status", {}).get("conditions", ()):
                if (condition["type"], condition["reason"]) == ("Ready", "MaskFailed"):
                    return dict(condition)
        return {}

    return eventually(found, "a snapshot says that its mask has failed")


def test_others_get_masked_rows_only_and_a_forgotten_column_makes_no_snapshot(
    kube: Kube, chinook: Store, previews: str, job: Manifest
) -> None:
    again(kube, job)
    clone = Clone(kube, previews).apply(chinook).ready()
    assert clone.sql(LEAKS) == [{"rows": 59, "leaks": 0}]
    snapshot = kube.status("dsnap", clone.status["snapshot"]["name"], chinook.namespace)
    assert snapshot["data"] == "Masked"
    assert snapshot["mask"]["tables"] == ["public.customer", "public.employee", "public.invoice"]
    first = snapshot["mask"]["digest"]
    assert chinook.sql(LEAKS) == [{"rows": 59, "leaks": 59}]

    chinook.sql("ALTER TABLE customer ADD COLUMN birthday date DEFAULT '1970-01-01'")
    late = Clone(kube, previews, "late").apply(chinook)
    message = failed(kube, chinook.namespace)["message"]
    assert "exit code" in message
    assert late.reason.startswith("Snapshot"), late.reason
    assert kube.get("secret", "late-binding", previews) is None
    [check] = [
        pod
        for pod in kube.items("pods", "-n", chinook.namespace, "-l", "coppice.dev/role=mask")
        if pod["status"]["phase"] == "Failed"
    ]
    told = kube.run("logs", "-n", chinook.namespace, check["metadata"]["name"], "-c", "check")
    assert "customer.birthday" in told

    [mask] = job["spec"]["template"]["spec"]["initContainers"]
    mask["args"] = [mask["args"][0] + ";UPDATE customer SET birthday = NULL"]
    [checks] = job["spec"]["template"]["spec"]["containers"]
    checks["args"] = [checks["args"][0].replace("'customer.fax',", "'customer.fax', 'customer.birthday',")]
    again(kube, job)
    late.ready()
    assert late.sql("SELECT count(birthday)::int AS left FROM customer") == [{"left": 0}]
    assert kube.status("dsnap", late.status["snapshot"]["name"], chinook.namespace)["mask"]["digest"] != first
    chinook.sql("ALTER TABLE customer DROP COLUMN birthday")


@pytest.mark.parametrize(("statement", "limits", "told"), BROKEN.values(), ids=BROKEN)
def test_a_mask_that_does_not_succeed_gives_nobody_anything(
    kube: Kube, chinook: Store, previews: str, job: Manifest, statement: str, limits: Manifest, told: str
) -> None:
    broken = masks_with(copy.deepcopy(job), statement)
    broken["spec"] |= limits
    again(kube, broken)
    clone = Clone(kube, previews).apply(chinook)
    assert told in failed(kube, chinook.namespace)["message"]
    assert kube.get("secret", "db-binding", previews) is None
    [snapshot] = kube.items("dsnap", "-n", chinook.namespace)
    name = snapshot["metadata"]["name"]
    assert kube.get("volumesnapshot", name, chinook.namespace) is None
    corrected = masks_with(job, "UPDATE customer SET email = 'x@example.com', fax = NULL")
    [checks] = corrected["spec"]["template"]["spec"]["containers"]
    checks["args"] = ["SELECT 1"]
    again(kube, corrected)
    clone.ready()
    assert clone.sql(LEAKS) == [{"rows": 59, "leaks": 0}]
