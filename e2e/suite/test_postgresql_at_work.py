"""A PostgreSQL that pgbench writes to all the time: its copies are whole, and start whatever is killed meanwhile."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from e2e.harness.shell import CommandError
from e2e.suite.data import Clone, Store, ask_clones
from e2e.suite.kube import OPERATOR_PODS, THOROUGH
from e2e.suite.manifests import POSTGRESQL, client_pod, data_clone, data_grant
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube

WAVES = 5 if THOROUGH else 2
CLONES = 4 if THOROUGH else 3
"""In each wave. They share a snapshot, which is captured after they were asked for."""
DEATHS = 6 if THOROUGH else 3
LOAD = """
export PGPASSWORD="$password"
trap 'kill -INT $!; wait $!; exit 0' TERM
export PGHOST="$host" PGPORT="$port" PGUSER="$username" PGDATABASE="$database"
pgbench -n -c 4 -T 1800 -l --aggregate-interval=1 --log-prefix=/tmp/log &
wait $!
echo failed >/tmp/failed
sleep 1800
"""
CHECKED = """
export PGPASSWORD="$password"
pg_amcheck --heapallindexed -h "$host" -p "$port" -U "$username" "$database"
"""
BALANCES = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts)::text AS accounts,
       (SELECT sum(tbalance) FROM pgbench_tellers)::text AS tellers,
       (SELECT sum(bbalance) FROM pgbench_branches)::text AS branches,
       (SELECT sum(delta) FROM pgbench_history)::text AS history,
       (SELECT count(*)::int FROM pgbench_history) AS transactions
"""
"""Each transaction adds the same to one account, one teller and one branch, and a row to the history."""


@dataclass(frozen=True, slots=True)
class Load:
    """A Pod in which pgbench works."""

    kube: Kube
    namespace: str

    def _read(self, command: str) -> str:
        return self.kube.run("exec", "-n", self.namespace, "load", "--", "sh", "-c", command)

    def acknowledged(self, before: float) -> int:
        """Return how many transactions the server had acknowledged before a moment, by whole seconds
        (https://www.postgresql.org/docs/15/pgbench.html, "Aggregated Logging": begin of the second, number). The last
        line may be half of one. There is no log before pgbench has begun.
        """
        whole, _, _ = self._read('for log in /tmp/log.*; do [ ! -e "$log" ] || cat "$log"; done').rpartition("\n")
        lines = (line.split() for line in whole.splitlines())
        return sum(int(line[1]) for line in lines if int(line[0]) + 1 <= before)

    def has_failed(self) -> bool:
        """Return whether pgbench has ended, which it does over an error only."""
        return "failed" in self._read("ls /tmp")


@pytest.fixture(scope="module")
def bank(kube: Kube) -> Iterator[Store]:
    """A store with pgbench's tables, and what checks its pages and indexes."""
    namespace = kube.new_namespace("pgbench")
    store = Store(kube, namespace, "bank").create(engine="postgresql", managed=POSTGRESQL)
    kube.apply(client_pod("tables", namespace, store.server, "sleep 3600", secret="bank-binding"))
    kube.run("wait", "-n", namespace, "--for=condition=Ready", "pod/tables", "--timeout=60s")
    fill = 'PGPASSWORD="$password" pgbench -q -i -s 4 -h "$host" -p "$port" -U "$username" "$database"'
    kube.run("exec", "-n", namespace, "tables", "--", "sh", "-c", fill)
    store.sql("CREATE EXTENSION amcheck; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app")
    yield store
    kube.delete_namespace(namespace, wait=False)


@pytest.fixture
def load(kube: Kube, bank: Store) -> Iterator[Load]:
    """Pgbench at work."""
    kube.apply(client_pod("load", bank.namespace, bank.server, LOAD, secret="bank-binding"))
    kube.run("wait", "-n", bank.namespace, "--for=condition=Ready", "pod/load", "--timeout=60s")
    load = Load(kube, bank.namespace)
    eventually(lambda: load.acknowledged(before=float("inf")) > 0, "pgbench works")
    yield load
    kube.run("delete", "-n", bank.namespace, "pod/load", "--wait")


@pytest.fixture
def teller(kube: Kube, bank: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that may have clones of the bank."""
    namespace = kube.new_namespace(request.node.name)
    kube.apply(data_grant("tellers", bank.namespace, store=bank.name, to=[namespace]))
    yield namespace
    kube.delete_namespace(namespace, wait=False)


def test_copies_of_a_working_database_are_whole_and_hold_what_was_acknowledged(
    kube: Kube, bank: Store, teller: str, load: Load
) -> None:
    for wave in range(WAVES):
        names = [f"db-{wave}-{number}" for number in range(CLONES)]
        kube.apply(*(data_clone(name, teller, store=bank.name, owners=bank.namespace) for name in names))
        kube.ready(teller, *(f"dclone/{name}" for name in names))
    assert not load.has_failed()
    snapshots = set()
    for name, [held] in ask_clones(kube, teller, BALANCES).items():
        status = Clone(kube, teller, name).status
        snapshots.add(status["snapshot"]["name"])
        captured = datetime.fromisoformat(status["source"]["capturedAt"]).timestamp()
        assert held["accounts"] == held["tellers"] == held["branches"] == held["history"], name
        assert held["transactions"] >= load.acknowledged(before=captured) > 0, name
    assert len(snapshots) >= WAVES
    for name in (f"db-{wave}-0" for wave in range(WAVES)):
        # The first of each wave: all of a wave are copies of one snapshot.
        check = client_pod(f"check-{name}", teller, bank.server, CHECKED, secret=f"{name}-binding")
        kube.apply(check)
        phase = end_of(kube, teller, f"check-{name}")
        assert phase == "Succeeded", kube.run("logs", "-n", teller, f"check-{name}")


def end_of(kube: Kube, namespace: str, name: str) -> str:
    """Wait until a Pod has ended; return how."""

    def ended() -> str:
        phase = str((kube.get("pod", name, namespace) or {})["status"].get("phase"))
        return phase if phase in {"Succeeded", "Failed"} else ""

    return eventually(ended, f"Pod {name} has ended")


@pytest.mark.parametrize("victim", ["server", "process", "operator"] if THOROUGH else ["server"])
def test_whatever_is_killed_while_copies_start_they_come_up_right(
    kube: Kube, bank: Store, teller: str, victim: str
) -> None:
    kube.apply(data_clone("first", teller, store=bank.name, owners=bank.namespace))
    kube.ready(teller, "dclone/first")
    snapshot = Clone(kube, teller, "first").status["snapshot"]["name"]
    expected = ask_clones(kube, teller, BALANCES)["first"]
    chance = random.Random(victim)
    names = [f"db-{number}" for number in range(DEATHS)]
    for name in names:
        clone = Clone(kube, teller, name).apply(bank, source={"snapshot": snapshot})
        eventually(partial(kube.owned_by, clone.uid), "something is made for the clone")
        hold(seconds=chance.uniform(0, 2))
        kill(kube, teller, clone.uid, victim)
    # Chance may have come too early every time.
    eventually(partial(kill, kube, teller, clone.uid, victim), "there is something to be killed")
    kube.ready(teller, *(f"dclone/{name}" for name in names))
    assert ask_clones(kube, teller, BALANCES) == dict.fromkeys(("first", *names), expected)


def kill(kube: Kube, namespace: str, uid: str, victim: str) -> int:
    """Kill the Pod of a clone, its server's process, or the operator, if it is there by now; return how many were."""
    if victim == "operator":
        return len(kube.run("delete", "pods", *OPERATOR_PODS, "--now", "--wait=false").splitlines())
    hits = 0
    for pod in kube.items("pods", "-n", namespace, "-l", f"coppice.dev/owner-uid={uid}"):
        name = pod["metadata"]["name"]
        if victim == "server":
            kube.run("delete", "-n", namespace, "pod", name, "--grace-period=0", "--force", "--ignore-not-found")
            hits += 1
        elif pod["status"]["phase"] == "Running":
            # The container may end, or not have begun, between the look and the word.
            with suppress(CommandError):
                kube.run("exec", "-n", namespace, name, "--", "sh", "-c", "kill -QUIT 1")
                hits += 1
    return hits
