"""Days with a mirror: whatever happens to its refreshes, a copy that was complete is never lost for one that is not."""

from __future__ import annotations

import json
import os
import random
from base64 import b64encode
from collections.abc import Callable

import pytest
from tests.fakes.audit import orphans
from tests.fakes.kube import Object
from tests.simulation.test_properties import Day

from coppice.core import labels

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
HOSTS = ("db.example.com", "other.example.com")


class MirrorDay(Day):
    """A day with a store that mirrors one of two databases."""

    def __init__(self) -> None:
        self.seen: set[frozenset[str]] = set()
        self.complete = False
        super().__init__()

    def make_store(self) -> None:
        story = self.story
        for host in HOSTS:
            if host not in story.world.elsewhere:
                story.source(f"row/{host}", host=host)
                self.seen.add(story.world.elsewhere[host].rows)
        if self.find("Secret", "data", "prod-read") is None:
            story.source_secret()
        story.mirror(
            mirror={"schedule": "*/20 * * * *"},
            clones={"profiles": {"large": {"memory": "1Gi"}}},
            snapshots={"keep": {"last": 2}},
        )

    def write_elsewhere(self, pick: random.Random) -> None:
        self.rows += 1
        source = self.story.world.elsewhere[pick.choice(HOSTS)]
        source.rows |= {f"row/{self.rows}"}
        self.seen.add(source.rows)

    def request(self, pick: random.Random) -> None:
        del pick
        if self.find("DataStore", "data", "shop") is not None:
            self.story.annotate("DataStore", "shop", refresh="now")

    def turn_source(self, pick: random.Random) -> None:
        """The source, the network or the program has a bad day, or a good one again."""
        world = self.story.world
        world.dump_fails = pick.choice([None, None, "DumpFailed", "SourceUnreachable"])
        world.restore_fails = pick.choice([None, None, None, "RestoreFailed"])
        world.silent = pick.random() < 0.2

    def turn_secret(self, pick: random.Random) -> None:
        """Somebody edits the Secret, takes the consent back, deletes it or puts it right."""
        if self.find("Secret", "data", "prod-read") is None:
            self.story.source_secret(host=pick.choice(HOSTS))
            return
        act = pick.randrange(4)
        if act == 0:
            self.story.delete("Secret", "prod-read")
        else:
            values = {1: {"host": pick.choice(HOSTS)}, 2: {"password": "guess"}, 3: {"password": "reads"}}[act]
            self.story.kube.change("Secret", "data", "prod-read", lambda secret: _put(secret, values))

    def turn_version(self, pick: random.Random) -> None:
        if self.find("DataStore", "data", "shop") is not None:
            self.story.edit("DataStore", "shop", mirror={"version": pick.choice(["1.0", "2.0"])})

    def lose_half(self, pick: random.Random) -> None:
        """Somebody deletes the claim of a refresh that is on its way."""
        for claim in self.copies():
            if not _is_complete(claim) and pick.random() < 0.5:
                self.story.kube.remove("PersistentVolumeClaim", "data", claim["metadata"]["name"])

    def copies(self) -> list[Object]:
        return [
            claim
            for claim in self.story.kube.all("PersistentVolumeClaim", "data")
            if labels.MIRRORED in (claim["metadata"].get("annotations") or {})
        ]

    def check(self) -> None:
        super().check()
        whole = [claim for claim in self.copies() if _is_complete(claim)]
        if self.complete:
            assert whole, "the last complete copy is gone"
        self.complete = self.complete or bool(whole)
        for claim in whole:
            volume = self.story.world.volumes[claim["metadata"]["uid"]]
            assert volume.branches["main"].rows in self.seen, "a copy holds what no source ever held"

    async def mend(self) -> None:
        world = self.story.world
        world.dump_fails, world.restore_fails, world.silent = None, None, False
        if self.find("Secret", "data", "prod-read") is not None:
            self.story.delete("Secret", "prod-read")
        self.story.source_secret()
        if self.find("DataStore", "data", "shop") is not None:
            self.story.annotate("DataStore", "shop", refresh="now")
        for pod in self.story.kube.all("Pod", "data"):
            if pod["metadata"]["labels"].get(labels.ROLE) in {"dump", "restore"}:
                self.story.delete("Pod", pod["metadata"]["name"])
        await super().mend()
        assert orphans(world) == []

    def expect_all_well(self) -> None:
        super().expect_all_well()
        [claim] = self.copies()
        volume = self.story.world.volumes[claim["metadata"]["uid"]]
        assert volume.branches["main"].rows <= self.story.world.elsewhere[HOSTS[0]].rows
        assert self.story.condition("DataStore", "shop", of="MirrorFresh")["status"] == "True"

    async def clear(self) -> None:
        self.complete = False
        self.story.edit("DataStore", "shop", deletionPolicy="Delete")
        self.story.delete("Secret", "prod-read")
        await super().clear()


def _put(secret: Object, values: dict[str, str]) -> None:
    secret["data"] |= {key: b64encode(value.encode()).decode() for key, value in values.items()}


def _is_complete(claim: Object) -> bool:
    return "held" in json.loads(claim["metadata"]["annotations"][labels.MIRRORED])


OPERATIONS: tuple[Callable[[MirrorDay, random.Random], None], ...] = (
    *(MirrorDay.write_elsewhere, MirrorDay.write_elsewhere, MirrorDay.request, MirrorDay.request),
    *(MirrorDay.turn_source, MirrorDay.turn_source, MirrorDay.turn_secret, MirrorDay.turn_version, MirrorDay.lose_half),
    *(MirrorDay.make_snapshot, MirrorDay.make_clone, MirrorDay.reset, MirrorDay.delete_something, MirrorDay.meddle),
    *(MirrorDay.end_pod, MirrorDay.end_pod, MirrorDay.break_storage, MirrorDay.kill, MirrorDay.kill, MirrorDay.refuse),
    *(MirrorDay.wait, MirrorDay.wait, MirrorDay.replace_store),
)


@pytest.mark.parametrize("seed", range(100 if THOROUGH else 6))
async def test_a_day_with_a_mirror_ends_with_a_whole_and_fresh_copy(seed: int) -> None:
    pick = random.Random(seed)
    day = MirrorDay()
    await day.story.settle()
    for _ in range(50):
        operation, chance = pick.choice(OPERATIONS), random.Random(pick.randrange(2**16))
        operation(day, chance)
        await day.go_on(chance)
    await day.finish()
