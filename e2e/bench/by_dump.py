"""The change that is proposed for a live PostgreSQL, and the same brought there without Coppice: by full dumps of the
clone and of the live table, compared with a dump of what the clone was before, and written in one transaction, as
somebody would who knows PostgreSQL, has administrators' passwords, and has kept that third dump.

In each run both clones are made anew: what they differ in from their snapshot is then as much in the last run as in the
first one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.bench.api import BenchError
from e2e.bench.lab import build_client, settle
from e2e.bench.proposals import CLONE, CLONE_BY_HAND, COMPUTED, PARTIES, PUBLISHED, ChangeSet, Servers
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.by_hand import Laps
    from e2e.bench.lab import Lab

PROGRAM: Final = Path(__file__).parent / "programs" / "dump.sh"
_POD: Final = "dump-by-hand"


@dataclass(slots=True)
class Postgresql:
    """Changes of a PostgreSQL store's clones."""

    lab: Lab
    rows: int
    changed: int
    servers: Servers = field(init=False)

    def __post_init__(self) -> None:
        """Know where its servers are."""
        self.servers = Servers(self.lab)

    async def prepare(self) -> None:
        """Have the clones come from the rows as they are now, and make the Pod that dumps and compares."""
        await self.servers.take_up()
        for name in (CLONE, CLONE_BY_HAND):
            await self.servers.remove_clone(name)
        await self.lab.remove_snapshots()
        if await self.lab.api.client.get("Pod", _POD, self.lab.owners) is None:
            server = await self.servers.pod(STORE)
            resources = server["spec"]["containers"][0]["resources"]
            await self.lab.api.create(build_client(_POD, server, resources=resources))
        await self.lab.kubectl("wait", "-n", self.lab.owners, f"pod/{_POD}", "--for=condition=Ready", "--timeout=60s")

    @property
    def proposal(self) -> Manifest:
        """Return what a request says of where the change is and where it goes.

        It is looked at before it is published: then the server is gone that it is compared on.
        """
        source = {"clone": {"name": CLONE}}
        return {"from": source, "into": {"branch": "main"}, "publish": "Database", "merge": "Manual"}

    async def change(self, run: int) -> None:
        """Change rows on a new clone, and as many other ones on the live server meanwhile."""
        await self.servers.make_clone(CLONE)
        await self._change(CLONE, run * PARTIES)

    async def by_hand(self, run: int) -> Laps:
        """Bring another clone's changes into the live table, and return how long each step took."""
        await self.servers.make_clone(CLONE_BY_HAND)
        await self._run("keep")
        await self._change(CLONE_BY_HAND, run * PARTIES + 2)
        await settle(3.0)
        return read_laps(await self._run("bring"), self.changed)

    async def _change(self, clone: str, number: int) -> None:
        """Make two sets of changes, of this number and the next one."""
        for server, which in ((clone, number), (STORE, number + 1)):
            statements = ChangeSet(self.rows, self.changed, which).statements()
            await self.lab.prober.execute(self.servers.logins[server], ["BEGIN", *statements, "COMMIT"])

    async def _run(self, what: str) -> str:
        """Run the program in its Pod, and return what it tells."""
        clone, live = self.servers.logins[CLONE_BY_HAND], self.servers.logins[STORE]
        where = ("-i", "-n", self.lab.owners, _POD)
        words = (what, *(f"postgresql://{at.user}@{at.host}:{at.port}/{at.database}" for at in (clone, live)))
        program = PROGRAM.read_text(encoding="utf-8")
        passwords = f"{clone.password}\n{live.password}\n"
        return await self.lab.kubectl("exec", *where, "--", "bash", "-c", program, "dump", *words, stdin=passwords)


def read_laps(told: str, changed: int) -> Laps:
    """Return how long each step took by what the program tells; raises BenchError where it brought other rows."""
    found = json.loads(told)
    if found["rows"] != changed:
        raise BenchError(f"{found['rows']} rows are brought by hand, and {changed} were changed")
    begin, dumped, compared, published = (found[name] for name in ("begin", "dumped", "compared", "published"))
    laps = {"dump": dumped - begin, "compare": compared - dumped}
    return {**laps, COMPUTED: compared - begin, PUBLISHED: published - compared}
