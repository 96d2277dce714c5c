"""Whatever people and machines do to clones in whatever order: in the end nothing is left that nobody asked for."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from e2e import leftovers
from e2e.harness.shell import CommandError
from e2e.suite.data import Clone, Store
from e2e.suite.kube import OPERATOR_PODS, OWNED_KINDS, OWNER_KINDS, THOROUGH, Kube
from e2e.suite.pool import Pool
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.alone
OPERATIONS = int(os.environ.get("COPPICE_E2E_OPERATIONS", "200" if THOROUGH else "60"))
NAMES = ("one", "two", "three", "four")


@dataclass(slots=True)
class Chaos:
    """Somebody who does things to clones at random, and does not wait for what comes of it."""

    kube: Kube
    store: Store
    namespace: str
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def go_on(self) -> None:
        """Do one thing."""
        ways: dict[Callable[[], None], int] = {
            self.create: 40,
            self.reset: 15,
            self.power: 15,
            self.delete: 15,
            self.wait: 10,
            self.kill_operator: 3,
            self.remake_namespace: 2,
        }
        [way] = self.dice.choices(list(ways), weights=list(ways.values()))
        way()
        self.done[way.__name__] += 1

    def create(self) -> None:
        """Apply a clone, which may be there already."""
        clone = self._any()
        self._as_it_goes(lambda: clone.apply(self.store))

    def reset(self) -> None:
        """Ask for a new copy, if the clone is there."""
        self._if_there(self._any(), "annotate", "--overwrite", f"coppice.dev/reset-requested-at={self.kube.time()}")

    def power(self) -> None:
        """Turn the clone on or off, if it is there."""
        change = f'{{"spec": {{"power": "{self.dice.choice(["On", "Off", "Auto"])}"}}}}'
        self._if_there(self._any(), "patch", "--type=merge", f"--patch={change}")

    def delete(self) -> None:
        """Delete the clone, if it is there."""
        self.kube.run(
            "delete", "-n", self.namespace, f"dclone/{self._any().name}", "--ignore-not-found", "--wait=false"
        )

    def wait(self) -> None:
        """Let the operator come to an end with one clone, so that later things happen to ready ones too."""
        clone = self._any()
        # What is applied to an object that is being deleted goes with it.
        eventually(lambda: not is_going(self.kube, clone), f"{clone.name} that was deleted is gone")
        clone.apply(self.store)
        clone.patch(power="On")
        clone.ready()

    def kill_operator(self) -> None:
        """Kill the operator without a word of warning."""
        self.kube.run("delete", "pods", *OPERATOR_PODS, "--grace-period=0", "--force", "--ignore-not-found")

    def remake_namespace(self) -> None:
        """Delete the clones' namespace with all that is in it, and make it again."""
        self.kube.delete_namespace(self.namespace)
        self.kube.make_namespace(self.namespace)

    def _any(self) -> Clone:
        return Clone(self.kube, self.namespace, self.dice.choice(NAMES))

    def _if_there(self, clone: Clone, verb: str, *words: str) -> None:
        if self.kube.get("dclone", clone.name, self.namespace) is not None:
            self._as_it_goes(lambda: self.kube.run(verb, "-n", self.namespace, f"dclone/{clone.name}", *words))

    def _as_it_goes(self, act: Callable[[], object]) -> None:
        # A clone that is being deleted may go between the look, kubectl's own included, and the word.
        try:
            act()
        except CommandError as error:
            if "(NotFound)" not in str(error):
                raise
            self.done["too late"] += 1


@pytest.fixture(scope="module")
def held_before(kube: Kube) -> set[str]:
    """What the pool holds without the story."""
    return Pool.of(kube).subvolumes()


@pytest.fixture(scope="module")
def owners(held_before: set[str], owners: str) -> str:
    """The namespace of the store, which is made after that look into the pool."""
    del held_before
    return owners


def orphans(kube: Kube, *namespaces: str) -> list[str]:
    """Return what was made for objects of these namespaces that are gone."""
    alive = {item["metadata"]["uid"] for item in kube.items(OWNER_KINDS, "-A")}
    made = kube.items(OWNED_KINDS, "-A", "-l", f"coppice.dev/owner-namespace in ({','.join(namespaces)})")
    return [
        f"{item['kind']} {item['metadata']['name']}"
        for item in made
        if item["metadata"]["labels"]["coppice.dev/owner-uid"] not in alive
    ]


def is_going(kube: Kube, clone: Clone) -> bool:
    """Return whether a clone is being deleted."""
    found = kube.get("dclone", clone.name, clone.namespace)
    return found is not None and "deletionTimestamp" in found["metadata"]


def is_settled(clone: Clone) -> bool:
    """Return whether the operator, which may just have been killed, has done all that was asked of a clone."""
    manifest = clone.manifest
    status = manifest.get("status", {})
    asked = manifest["metadata"].get("annotations", {}).get("coppice.dev/reset-requested-at")
    return (
        status.get("observedGeneration") == manifest["metadata"]["generation"]
        and status.get("handled", {}).get("resetRequestedAt") == asked
        and clone.reason == "Ready"
    )


def has_finalizer(kube: Kube, store: Store) -> bool:
    """Return whether a store that is deleted now waits for the operator."""
    found = kube.get("dstore", store.name, store.namespace)
    return found is not None and bool(found["metadata"].get("finalizers"))


def test_after_many_random_operations_nothing_is_left_over(
    kube: Kube, held_before: set[str], store: Store, tenant: str
) -> None:
    pool = Pool.of(kube)
    seed = int(os.environ.get("COPPICE_E2E_SEED", random.SystemRandom().randrange(10**6)))
    print(f"COPPICE_E2E_SEED={seed}")
    chaos = Chaos(kube, store, tenant, random.Random(seed))
    for _ in range(OPERATIONS):
        chaos.go_on()
    print(dict(chaos.done))

    eventually(lambda: not orphans(kube, tenant, store.namespace), "nothing is there whose owner is gone")
    named = [Clone(kube, tenant, name) for name in NAMES]
    eventually(lambda: not any(is_going(kube, clone) for clone in named), "what was deleted is gone")
    clones = [clone for clone in named if kube.get("dclone", clone.name, tenant) is not None]
    for clone in clones:
        clone.patch(power="On")
    eventually(lambda: all(is_settled(clone) for clone in clones), "every clone is as it was last asked for")
    for clone in clones:
        assert clone.sql("SELECT COUNT(*) AS items FROM item") == [{"items": 3}]

    kube.run("delete", "-n", tenant, "dclone", "--all", "--timeout=120s")
    kube.patch("dstore", store.name, store.namespace, {"spec": {"deletionPolicy": "Delete"}})
    eventually(lambda: has_finalizer(kube, store), "the operator has taken note that the data may go")
    kube.run("delete", "-n", store.namespace, "dgrant,dsnap,dstore", "--all", "--timeout=120s")
    both = f"coppice.dev/owner-namespace in ({tenant},{store.namespace})"
    eventually(lambda: not kube.items(OWNED_KINDS, "-A", "-l", both), "nothing is left at all")
    eventually(
        lambda: not leftovers.outside(kube.cluster, tenant, store.namespace),
        "no volume and no snapshot's content is left, whatever its labels",
    )
    eventually(lambda: pool.subvolumes() == pool.handles(), "the pool holds what the cluster knows, and no more")
    assert pool.subvolumes() <= held_before, "and nothing that was not there before"
