"""Clones of a store that is written to without pause: nothing acknowledged is missing, nothing is torn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from e2e.suite.data import Clone, Row, Store, ask_clones
from e2e.suite.kube import THOROUGH
from e2e.suite.manifests import data_clone, python_pod
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube

WAVES = 5 if THOROUGH else 2
CLONES = 4 if THOROUGH else 3
"""In each wave. They share a snapshot, which is captured after they were asked for."""
WRITERS = ("sql", "sql", "dolt")
ORDERS = """
CREATE TABLE orders (id CHAR(36) PRIMARY KEY, writer INT NOT NULL, number INT NOT NULL);
CREATE TABLE order_lines (id CHAR(36) PRIMARY KEY, order_id CHAR(36) NOT NULL, item INT NOT NULL)
"""
HELD = """
SELECT writer, COUNT(*) AS orders, MAX(number) AS last, torn
FROM orders, (
  SELECT COUNT(*) AS torn FROM (
    SELECT id FROM (SELECT id FROM orders UNION ALL SELECT order_id AS id FROM order_lines) AS parts
    GROUP BY id HAVING COUNT(*) <> 3) AS broken) AS counted
GROUP BY writer, torn
"""


@dataclass(frozen=True, slots=True)
class Writers:
    """A Pod beside the store whose threads write to it, each orders of its own, counted from 1."""

    kube: Kube
    namespace: str

    def log(self, *words: str) -> list[Row]:
        """Return what the writers told."""
        return [json.loads(line) for line in self.kube.run("logs", "-n", self.namespace, "writer", *words).splitlines()]

    def acknowledged(self) -> dict[int, int]:
        """Return by writer the last order that the server has acknowledged."""
        return acknowledged(self.log("--tail=500"))

    def stop(self) -> list[Row]:
        """End them and return all they told."""
        log = self.log()
        self.kube.run("delete", "-n", self.namespace, "pod/writer")
        return log


def acknowledged(log: list[Row]) -> dict[int, int]:
    """Return by writer the last order in a log."""
    return {entry["writer"]: entry["order"] for entry in log if "error" not in entry}


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str) -> Store:
    """A store with memory for as many rows as are written until the last clone is there."""
    return Store(kube, owners).create(managed={"resources": {"memory": "1Gi"}})


@pytest.fixture
def writers(kube: Kube, store: Store) -> Iterator[Writers]:
    """Writers that have begun."""
    store.commit(ORDERS, "tables for orders")
    told = kube.binding(store.namespace, f"{store.name}-binding")
    environment = {key.upper(): told[key] for key in ("host", "username", "password", "database")}
    pod = python_pod(
        "writer",
        store.namespace,
        image=kube.operator_image(),
        runs="writer",
        env={**environment, "WRITERS": json.dumps(WRITERS)},
    )
    kube.apply(pod)
    kube.run("wait", "-n", store.namespace, "--for=condition=Ready", "pod/writer", "--timeout=60s")
    writers = Writers(kube, store.namespace)
    eventually(lambda: len(writers.acknowledged()) == len(WRITERS), "all writers have written")
    yield writers
    kube.run("delete", "-n", store.namespace, "pod/writer", "--ignore-not-found")


def held(rows: list[Row]) -> dict[int, Row]:
    """Return by writer what a clone holds of its orders."""
    return {row["writer"]: row for row in rows}


def captured(clone: Clone) -> float:
    """Return the second in which the clone's snapshot was captured: what was told before it is in the snapshot."""
    return datetime.fromisoformat(clone.status["source"]["capturedAt"]).timestamp()


def test_clones_of_many_snapshots_hold_every_order_acknowledged_before(
    kube: Kube, store: Store, tenant: str, writers: Writers
) -> None:
    asked: dict[str, dict[int, int]] = {}
    for wave in range(WAVES):
        names = [f"db-{wave}-{number}" for number in range(CLONES)]
        asked |= dict.fromkeys(names, writers.acknowledged())
        kube.apply(*(data_clone(name, tenant, store=store.name, owners=store.namespace) for name in names))
        kube.ready(tenant, *(f"dclone/{name}" for name in names))
    log = writers.stop()

    assert not [entry for entry in log if "error" in entry]
    clones = ask_clones(kube, tenant, HELD)
    assert clones.keys() == asked.keys()
    snapshots = {}
    for name, rows in clones.items():
        clone, found = Clone(kube, tenant, name), held(rows)
        snapshots[name] = clone.status["snapshot"]["name"]
        moment = captured(clone)
        due = acknowledged([entry for entry in log if entry["at"] < moment])
        for writer, last in asked[name].items():
            assert due[writer] >= last, f"{name} is of a snapshot from before it was asked for"
            assert found[writer]["last"] >= due[writer], f"{name} lacks acknowledged orders of writer {writer}"
            assert found[writer]["orders"] == found[writer]["last"], f"{name} has gaps in writer {writer}'s orders"
            assert found[writer]["torn"] == 0, f"{name} has orders of which only a part is there"
    assert len(set(snapshots.values())) >= WAVES, snapshots
    assert all(acknowledged(log)[writer] > last for writer, last in asked[names[0]].items()), "they wrote to the end"
