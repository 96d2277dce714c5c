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
_ROWS_AT_ONCE: Final = 10_000
"""Dolt gives up on a recursion that is deeper."""
_SMALL: Final = (
    "id INT PRIMARY KEY, name VARCHAR(64) NOT NULL, price DECIMAL(10, 2) NOT NULL, stock INT NOT NULL,"
    " note VARCHAR(200) NOT NULL"
)
"""The columns of rows as a shop has them, a hundred bytes each."""


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
    def terms(self) -> Manifest:
        """Return what else the DataStore says."""
        return {}

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


@dataclass(frozen=True, slots=True)
class Rows(Subject):
    """A store of one table of so many small rows, with the numbers from 1 on."""

    count: int

    @property
    def name(self) -> str:
        """Return what its namespaces begin with."""
        return f"bench-{self.engine}-{self.count}-rows"

    @property
    def managed(self) -> Manifest:
        """Return what the DataStore says of its server."""
        version = {"version": POSTGRESQL["version"]} if self.engine == "postgresql" else {}
        return {**version, "storage": {"size": "4Gi"}, "resources": {"memory": "1Gi", "cpu": "100m"}}

    @property
    def terms(self) -> Manifest:
        """Return what else the DataStore says: its clones have as much memory as it has."""
        return {"clones": {"profiles": {"default": {"memory": "1Gi", "cpu": "100m"}}}}

    async def fill(self, lab: Lab, login: Login) -> None:
        """Have the rows in the store, once; in PostgreSQL, which has no branches to begin from, those that a run before
        this one has left as well, and no others.
        """
        if self.engine == "postgresql":
            say(f"seeing to {self.size} in the store")
            await lab.prober.execute(login, small_rows(self.count))
            return
        with suppress(BenchError):
            await lab.prober.execute(login, [self.question])
            return
        say(f"filling the store with {self.size}")
        await _small_items(lab, login, self.count)


def rows_of(engine: str, count: int) -> Rows:
    """Return the store of an engine with a table of so many rows."""
    port, admin = (5432, "coppice_admin") if engine == "postgresql" else (3306, "root")
    return Rows(engine, f"{count:,} rows", port, admin, "SELECT COUNT(*) FROM item WHERE id < 100", count)


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
    """Fill a Dolt store with data that do not compress, in rows of a kilobyte: base64 of 740 random bytes is 1000
    characters.
    """
    columns, values = "id INT PRIMARY KEY, payload VARCHAR(1100)", "TO_BASE64(RANDOM_BYTES(740))"
    await _fill_dolt(lab, login, columns, values, megabytes * _ROWS_OF_MEGABYTE)


async def _small_items(lab: Lab, login: Login, rows: int) -> None:
    """Fill a Dolt store with rows as a shop has them, a hundred bytes each."""
    values = "CONCAT('item ', UUID()), RAND() * 1000, 100, TO_BASE64(RANDOM_BYTES(33))"
    await _fill_dolt(lab, login, _SMALL, values, rows)


def small_rows(rows: int) -> list[str]:
    """Return the statements by which a PostgreSQL has such rows: applications own them, as approved changes are written
    the way applications write.
    """
    values = (
        "n, 'item ' || gen_random_uuid(), (random() * 1000)::numeric(10, 2), 100,"
        " encode(sha256(n::text::bytea), 'base64')"
    )
    return [
        "BEGIN",
        f"CREATE TABLE IF NOT EXISTS item ({_SMALL})",
        "ALTER TABLE item OWNER TO app",
        f"DELETE FROM item WHERE id > {rows}",
        f"INSERT INTO item SELECT {values} FROM generate_series(1, {rows}) AS n ON CONFLICT DO NOTHING",
        "COMMIT",
        "VACUUM ANALYZE item",
    ]


async def _fill_dolt(lab: Lab, login: Login, columns: str, values: str, rows: int) -> None:
    """Fill a Dolt store, as one Dolt commit."""
    await lab.prober.execute(login, ["DROP TABLE IF EXISTS filling", f"CREATE TABLE filling ({columns})"])
    for first in range(0, rows, _ROWS_AT_ONCE):
        await lab.prober.execute(login, _rows(first, min(_ROWS_AT_ONCE, rows - first), values))
    await lab.prober.execute(login, ["RENAME TABLE filling TO item", "CALL dolt_commit('-Am', 'items')"])


def _rows(first: int, rows: int, values: str) -> list[str]:
    """Return the statements for some rows, whose numbers begin after ``first``."""
    numbers = f"WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < {rows})"
    return [
        "SET cte_max_recursion_depth = 100000",
        f"INSERT INTO filling {numbers} SELECT id + {first}, {values} FROM n",
    ]
