"""What a benchmark's store is: an engine, as much data as asked for, and what is asked of a copy of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from e2e.bench.api import BenchError
from e2e.bench.figures import say
from e2e.suite.manifests import POSTGRESQL

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.lab import Lab
    from e2e.bench.prober import Login

STORE: Final = "store"
ENGINES: Final = ("dolt", "postgresql")
MEGABYTES: Final = {"10MB": 10, "1GB": 1024, "5GB": 5120}
_ROWS_OF_MEGABYTE: Final = 1000
_MEGABYTES_OF_SCALE: Final = 15
"""What pgbench makes for each unit of its scale, indexes included."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A store of one engine and size.

    ``admin`` is the administrator's login, ``question`` what is asked of a new server: some rows of the data, and no
    more of them for more data. ``dump`` is the name of the dump that is restored for comparison.
    """

    engine: str
    size: str
    port: int
    admin: str
    question: str

    @property
    def megabytes(self) -> int:
        return MEGABYTES[self.size]

    @property
    def name(self) -> str:
        """Return what its namespaces begin with."""
        return f"bench-{self.engine}-{self.size.lower()}"

    @property
    def managed(self) -> Manifest:
        """Return what the DataStore says of its server: room for the data, a copy within the server, and its log."""
        large = self.megabytes >= MEGABYTES["1GB"]
        room = f"{max(2, self.megabytes * 3 // 1024)}Gi" if self.engine == "postgresql" else "8Gi" if large else "2Gi"
        version = {"version": POSTGRESQL["version"]} if self.engine == "postgresql" else {}
        memory = "1Gi" if self.engine == "postgresql" or not large else "3Gi"
        return {**version, "storage": {"size": room}, "resources": {"memory": memory, "cpu": "100m"}}

    @property
    def source(self) -> Manifest:
        """Return what a clone asks for: what there is a prepared snapshot of, though a log's end moves by itself."""
        return {"branch": "main", **({"maxAge": "1h"} if self.engine == "postgresql" else {})}

    async def fill(self, lab: Lab, login: Login) -> None:
        """Have the data in the store, once."""
        with suppress(BenchError):
            await lab.prober.execute(login, [self.question])
            return
        say(f"filling the store with {self.size}")
        await (_pgbench if self.engine == "postgresql" else _items)(lab, login, self.megabytes)


def subject(engine: str, size: str) -> Subject:
    """Return the store of an engine with data of a size."""
    if engine == "postgresql":
        return Subject(engine, size, 5432, "coppice_admin", "SELECT abalance FROM pgbench_accounts WHERE aid < 100")
    return Subject(engine, size, 3306, "root", "SELECT COUNT(*) FROM item WHERE id < 100")


async def _pgbench(lab: Lab, login: Login, megabytes: int) -> None:
    """Fill a store as pgbench does, from beside its server."""
    scale = max(1, megabytes // _MEGABYTES_OF_SCALE)
    program = (
        f"read -r PGPASSWORD; export PGPASSWORD; exec pgbench -h 127.0.0.1 -p {login.port} -U {login.user}"
        f" -q -i -I dtGvp -s {scale} {login.database}"
    )
    where = ("-n", lab.owners, f"{STORE}-server", "-c", "engine")
    await lab.kubectl("exec", "-i", *where, "--", "sh", "-c", program, stdin=f"{login.password}\n")


async def _items(lab: Lab, login: Login, megabytes: int) -> None:
    """Fill a Dolt store with data that do not compress, in rows of a kilobyte, as one Dolt commit."""
    await lab.prober.execute(
        login, ["DROP TABLE IF EXISTS filling", "CREATE TABLE filling (id INT PRIMARY KEY, payload VARCHAR(1100))"]
    )
    for first in range(0, megabytes * _ROWS_OF_MEGABYTE, 10 * _ROWS_OF_MEGABYTE):
        rows = min(10 * _ROWS_OF_MEGABYTE, megabytes * _ROWS_OF_MEGABYTE - first)
        await lab.prober.execute(login, _rows(first, rows))
    await lab.prober.execute(login, ["RENAME TABLE filling TO item", "CALL dolt_commit('-Am', 'items')"])


def _rows(first: int, rows: int) -> list[str]:
    """Return the statements for some rows; base64 of 740 random bytes is 1000 characters."""
    numbers = f"WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < {rows})"
    insert = f"INSERT INTO filling {numbers} SELECT id + {first}, TO_BASE64(RANDOM_BYTES(740)) FROM n"  # two numbers
    return ["SET cte_max_recursion_depth = 100000", insert]
