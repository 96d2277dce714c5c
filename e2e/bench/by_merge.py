"""The change that is proposed, and the same brought into a branch without Coppice: by Dolt's own fetch, merge and push,
as somebody would who knows Dolt, has administrators' passwords, and keeps a scratch server at hand.

Both have clones of their own and change other rows, so that neither finds what the other has brought already.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from coppice.core import labels
from coppice.engines.dolt import DoltEngine
from e2e.bench.api import both, named, ready
from e2e.bench.lab import decoded
from e2e.bench.prober import Login
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.by_hand import Laps
    from e2e.bench.lab import Lab

_CLONE: Final = "work"
"""Whose changes are proposed."""
_TARGET: Final = "stage"
"""The branch that they are proposed for; no rule protects it."""
COMPUTED: Final = "fetched, merged, compared"
PUBLISHED: Final = "published"
ROWS: Final = "all changed rows read"
"""The steps, as tables of figures call them."""
_CLONE_BY_HAND: Final = "work-by-hand"
_TARGET_BY_HAND: Final = "stage-by-hand"
_SCRATCH: Final = "scratch-by-hand"
_USER: Final = "by-hand"
_PARTIES: Final = 4
"""Who changes rows in a run: two clones, and others on either branch meanwhile."""


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """So many rows of a table of so many rows: a tenth is added, a tenth deleted, the rest modified. ``number``: no two
    of different numbers have a row in common, up to some hundreds of them.
    """

    rows: int
    changed: int
    number: int

    @property
    def _some(self) -> int:
        return self.changed // 10

    @property
    def modified(self) -> list[int]:
        """Return rows all over the first nine tenths of the table."""
        return self._spread(1, self.rows * 9 // 10, self.changed - 2 * self._some)

    @property
    def deleted(self) -> list[int]:
        """Return rows all over the last tenth of the table."""
        first = self.rows * 9 // 10 + 1
        return self._spread(first, self.rows - first + 1, self._some)

    @property
    def added(self) -> list[int]:
        """Return new rows after all others."""
        first = self.rows + 1 + self.number * self._some
        return list(range(first, first + self._some))

    def _spread(self, first: int, of: int, count: int) -> list[int]:
        if not count:
            return []
        step = of // count
        if self.number >= step:
            raise ValueError(f"{self.rows} rows are too few for {self.number + 1} times {self.changed} changes")
        return [first + self.number + place * step for place in range(count)]

    def statements(self) -> list[str]:
        """Return the statements that make the changes and commit them."""
        new = ", ".join(f"({row}, 'new {row}', 9.99, {self.number}, 'added')" for row in self.added)
        made = [
            f"UPDATE item SET price = price + 1, stock = {self.number} WHERE id IN {_listed(self.modified)}",
            *(
                [f"DELETE FROM item WHERE id IN {_listed(self.deleted)}", f"INSERT INTO item VALUES {new}"]
                if new
                else []
            ),
        ]
        return ["START TRANSACTION", *made, f"CALL dolt_commit('-Am', 'change {self.number}')"]


def _listed(rows: list[int]) -> str:
    return f"({', '.join(map(str, rows))})"


@dataclass(slots=True)
class Dolt:
    """Changes of a Dolt store's clones."""

    lab: Lab
    rows: int
    changed: int
    logins: dict[str, Login] = field(default_factory=dict)

    async def prepare(self) -> None:
        """Make the clones and branches, and let the scratch server fetch and push."""
        lab = self.lab
        for name in (_CLONE, _CLONE_BY_HAND, _SCRATCH):
            kept = await lab.api.client.get("DataClone", name, lab.owners)
            if kept is not None:
                await lab.remove_clone(dict(kept))
            lab.api.forget()
            await lab.clone(lab.owners, name)
            await lab.api.until("DataClone", both(named(lab.owners, name), ready), f"{name} is Ready")
            self.logins[name] = await self._administrator(name)
        self.logins[STORE] = await lab.store_login()
        for branch in (_TARGET, _TARGET_BY_HAND):
            await lab.prober.execute(self.logins[STORE], [f"CALL dolt_branch('-f', '{branch}', 'main')"])
        if await lab.api.client.get("NetworkPolicy", _USER, lab.owners) is None:
            await lab.api.create(_open_ways(lab.owners))
        await self._connect()

    @property
    def proposal(self) -> Manifest:
        """Return what a request says of where the change is and where it goes."""
        return {"from": {"clone": {"name": _CLONE}}, "into": {"branch": _TARGET}}

    async def change(self, run: int) -> None:
        """Change and commit rows on the clone, and as many other ones on the branch meanwhile."""
        await self._change(_CLONE, _TARGET, run * _PARTIES)

    async def by_hand(self, run: int) -> Laps:
        """Bring another clone's changes into another branch, and return how long each step took: what reads and merges,
        the push, and reading all rows.
        """
        await self._change(_CLONE_BY_HAND, _TARGET_BY_HAND, run * _PARTIES + 2)
        fetched, at = f"CALL dolt_fetch('--user', '{_USER}', '{STORE}')", self.logins[_SCRATCH]
        await self.lab.prober.execute(at, [fetched, f"CALL dolt_checkout('-B', 'merged', '{STORE}/{_TARGET_BY_HAND}')"])
        steps = {
            "fetch": f"CALL dolt_fetch('--user', '{_USER}', '{_CLONE_BY_HAND}')",
            "merge": f"CALL dolt_merge('--no-ff', '-m', 'merge', '{_CLONE_BY_HAND}/main')",
            "count": "SELECT * FROM dolt_diff_stat('HEAD^1', 'HEAD')",
            PUBLISHED: f"CALL dolt_push('--user', '{_USER}', '{STORE}', 'merged:{_TARGET_BY_HAND}')",
            ROWS: "SELECT * FROM dolt_diff('HEAD^1', 'HEAD', 'item')",
        }
        moments = await self.lab.prober.execute(at, ["CALL dolt_checkout('merged')", *steps.values()])
        took = {step: end - begin for step, (begin, end) in zip(steps, pairwise(moments), strict=True)}
        return {**took, COMPUTED: took["fetch"] + took["merge"] + took["count"]}

    async def _change(self, clone: str, target: str, number: int) -> None:
        """Make two sets of changes, of this number and the next one."""
        for server, branch, which in ((clone, "main", number), (STORE, target, number + 1)):
            statements = ChangeSet(self.rows, self.changed, which).statements()
            await self.lab.prober.execute(self.logins[server], [f"CALL dolt_checkout('{branch}')", *statements])

    async def _administrator(self, clone: str) -> Login:
        pod = await self._pod(clone)
        password = (await self._passwords(pod))["admin-password"]
        return replace(await self.lab.store_login(), host=pod["status"]["podIP"], password=password)

    async def _pod(self, clone: str) -> Manifest:
        lab = self.lab
        if clone == STORE:
            return dict(await lab.api.client.get("Pod", f"{STORE}-server", lab.owners) or {})
        found = await lab.api.client.get("DataClone", clone, lab.owners) or {}
        [pod] = await lab.api.client.list("Pod", lab.owners, {labels.OWNER_UID: found["metadata"]["uid"]})
        return dict(pod)

    async def _passwords(self, pod: Manifest) -> dict[str, str]:
        variables = pod["spec"]["containers"][0]["env"]
        [name] = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in variables if "valueFrom" in entry}
        return decoded(await self.lab.api.client.get("Secret", name, self.lab.owners))

    async def _connect(self) -> None:
        """Make the scratch server's login on the other two: who fetches or pushes sends its own server's password."""
        prober = self.lab.prober
        password = (await self._passwords(await self._pod(_SCRATCH)))["remote-password"]
        for server, right in ((_CLONE_BY_HAND, "CLONE_ADMIN"), (STORE, "SUPER")):
            user = f"'{_USER}'@'%' IDENTIFIED BY '{password}'"
            await prober.execute(
                self.logins[server],
                [f"CREATE USER IF NOT EXISTS {user}", f"ALTER USER {user}", f"GRANT {right} ON *.* TO '{_USER}'@'%'"],
            )
            host, database = (await self._pod(server))["status"]["podIP"], self.logins[server].database
            url = f"http://{host}:{DoltEngine.remotes_port}/{database}"
            await prober.execute(self.logins[_SCRATCH], [f"CALL dolt_remote('add', '{server}', '{url}')"])


def _open_ways(namespace: str) -> Manifest:
    """Return the NetworkPolicy by which the servers of a namespace reach each other, as the scratch server has to."""
    spec = {"podSelector": {}, "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}
    metadata = {"name": _USER, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
