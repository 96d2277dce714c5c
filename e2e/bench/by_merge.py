"""The change that is proposed, and the same brought into a branch without Coppice: by Dolt's own fetch, merge and push,
as somebody would who knows Dolt, has administrators' passwords, and keeps a scratch server at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from coppice.engines.dolt import DoltEngine
from e2e.bench.proposals import CLONE, CLONE_BY_HAND, COMPUTED, PARTIES, PUBLISHED, ROWS, ChangeSet, Servers
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.by_hand import Laps
    from e2e.bench.lab import Lab

_TARGET: Final = "stage"
"""The branch that changes are proposed for; no rule protects it."""
_TARGET_BY_HAND: Final = "stage-by-hand"
_SCRATCH: Final = "scratch-by-hand"
_USER: Final = "by-hand"


@dataclass(slots=True)
class Dolt:
    """Changes of a Dolt store's clones."""

    lab: Lab
    rows: int
    changed: int
    servers: Servers = field(init=False)

    def __post_init__(self) -> None:
        """Know where its servers are."""
        self.servers = Servers(self.lab)

    async def prepare(self) -> None:
        """Make the clones and branches, and let the scratch server fetch and push."""
        lab = self.lab
        await self.servers.take_up()
        for name in (CLONE, CLONE_BY_HAND, _SCRATCH):
            await self.servers.make_clone(name)
        for branch in (_TARGET, _TARGET_BY_HAND):
            await lab.prober.execute(self.servers.logins[STORE], [f"CALL dolt_branch('-f', '{branch}', 'main')"])
        if await lab.api.client.get("NetworkPolicy", _USER, lab.owners) is None:
            await lab.api.create(_open_ways(lab.owners))
        await self._connect()

    @property
    def proposal(self) -> Manifest:
        """Return what a request says of where the change is and where it goes."""
        return {"from": {"clone": {"name": CLONE}}, "into": {"branch": _TARGET}}

    async def change(self, run: int) -> None:
        """Change and commit rows on the clone, and as many other ones on the branch meanwhile."""
        await self._change(CLONE, _TARGET, run * PARTIES)

    async def by_hand(self, run: int) -> Laps:
        """Bring another clone's changes into another branch, and return how long each step took: what reads and merges,
        the push, and reading all rows.
        """
        await self._change(CLONE_BY_HAND, _TARGET_BY_HAND, run * PARTIES + 2)
        fetched, at = f"CALL dolt_fetch('--user', '{_USER}', '{STORE}')", self.servers.logins[_SCRATCH]
        await self.lab.prober.execute(at, [fetched, f"CALL dolt_checkout('-B', 'merged', '{STORE}/{_TARGET_BY_HAND}')"])
        steps = {
            "fetch": f"CALL dolt_fetch('--user', '{_USER}', '{CLONE_BY_HAND}')",
            "merge": f"CALL dolt_merge('--no-ff', '-m', 'merge', '{CLONE_BY_HAND}/main')",
            "count": "SELECT * FROM dolt_diff_stat('HEAD^1', 'HEAD')",
            PUBLISHED: f"CALL dolt_push('--user', '{_USER}', '{STORE}', 'merged:{_TARGET_BY_HAND}')",
            ROWS: "SELECT * FROM dolt_diff('HEAD^1', 'HEAD', 'item')",
        }
        moments = await self.lab.prober.execute(at, ["CALL dolt_checkout('merged')", *steps.values()])
        took = {step: end - begin for step, (begin, end) in zip(steps, pairwise(moments), strict=True)}
        return {**took, COMPUTED: took["fetch"] + took["merge"] + took["count"]}

    async def _change(self, clone: str, target: str, number: int) -> None:
        """Make and commit two sets of changes, of this number and the next one."""
        for server, branch, which in ((clone, "main", number), (STORE, target, number + 1)):
            changes = ChangeSet(self.rows, self.changed, which).statements()
            committed = f"CALL dolt_commit('-Am', 'change {which}')"
            statements = [f"CALL dolt_checkout('{branch}')", "START TRANSACTION", *changes, committed]
            await self.lab.prober.execute(self.servers.logins[server], statements)

    async def _connect(self) -> None:
        """Make the scratch server's login on the other two: who fetches or pushes sends its own server's password."""
        prober, servers = self.lab.prober, self.servers
        password = (await servers.passwords(await servers.pod(_SCRATCH)))["remote-password"]
        for server, right in ((CLONE_BY_HAND, "CLONE_ADMIN"), (STORE, "SUPER")):
            user = f"'{_USER}'@'%' IDENTIFIED BY '{password}'"
            await prober.execute(
                servers.logins[server],
                [f"CREATE USER IF NOT EXISTS {user}", f"ALTER USER {user}", f"GRANT {right} ON *.* TO '{_USER}'@'%'"],
            )
            host, database = (await servers.pod(server))["status"]["podIP"], servers.logins[server].database
            url = f"http://{host}:{DoltEngine.remotes_port}/{database}"
            await prober.execute(servers.logins[_SCRATCH], [f"CALL dolt_remote('add', '{server}', '{url}')"])


def _open_ways(namespace: str) -> Manifest:
    """Return the NetworkPolicy by which the servers of a namespace reach each other, as the scratch server has to."""
    spec = {"podSelector": {}, "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}
    metadata = {"name": _USER, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
