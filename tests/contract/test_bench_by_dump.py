"""What the benchmark of change requests does by hand on PostgreSQL: a full dump and compare, which brings what it says."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from e2e.bench.by_dump import PROGRAM, read_laps
from e2e.bench.proposals import COMPUTED, PUBLISHED, ChangeSet
from e2e.bench.subjects import small_rows

from coppice.engines.pgcompare import changes

from .pg_kit import Cluster, Trio, contents, run, serving_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from coppice.engines.pgcompare import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS, CHANGED = 2000, 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with serving_cluster() as cluster:
        yield cluster


async def filled(cluster: Cluster) -> Trio:
    *fill, _ = small_rows(ROWS)
    return await cluster.new(";".join(fill))


async def change(place: Place, number: int) -> None:
    await run(place, ";".join(["BEGIN", *ChangeSet(ROWS, CHANGED, number).statements(), "COMMIT"]))


async def program(where: Path, *words: str, stdin: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", PROGRAM.read_text(), "dump", *words),
        env={**os.environ, "TMPDIR": str(where)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, errors = await process.communicate(stdin.encode())
    return process.returncode or 0, told.decode(), errors.decode()


def uri(place: Place) -> str:
    return f"postgresql://{place.at.username}@{place.at.host}:{place.at.port}/{place.database}"


async def keep(where: Path, trio: Trio) -> None:
    assert await program(where, "keep", uri(trio.clone), stdin=f"{trio.clone.at.password}\n") == (0, "", "")


async def bring(where: Path, trio: Trio) -> tuple[int, str, str]:
    passwords = f"{trio.clone.at.password}\n{trio.target.at.password}\n"
    return await program(where, "bring", uri(trio.clone), uri(trio.target), stdin=passwords)


async def test_what_a_clone_has_changed_is_brought_beside_what_others_did(cluster: Cluster, tmp_path: Path) -> None:
    trio = await filled(cluster)
    await keep(tmp_path, trio)
    await change(trio.clone, 0)
    await change(trio.target, 1)
    code, told, errors = await bring(tmp_path, trio)
    assert (code, errors) == (0, "")
    laps = read_laps(told, CHANGED)
    assert all(laps[step] > 0 for step in (COMPUTED, PUBLISHED))
    for number in (0, 1):
        await change(trio.base, number)
    assert await contents(trio.target) == await contents(trio.base)


async def test_a_row_that_both_have_changed_is_brought_by_nobody(cluster: Cluster, tmp_path: Path) -> None:
    trio = await filled(cluster)
    await keep(tmp_path, trio)
    await change(trio.clone, 0)
    await run(trio.target, f"UPDATE item SET note = 'theirs' WHERE id = {ChangeSet(ROWS, CHANGED, 0).modified[7]}")
    before = await contents(trio.target)
    code, told, errors = await bring(tmp_path, trio)
    assert (code, told, errors) == (1, "", "both sides have changed a row\n")
    assert await contents(trio.target) == before


async def test_a_store_that_a_run_has_changed_has_all_its_rows_again_and_no_others(cluster: Cluster) -> None:
    trio = await filled(cluster)
    await change(trio.base, 0)
    *fill, _ = small_rows(ROWS)
    await run(trio.base, ";".join(fill))
    found = await contents(trio.base)
    assert sorted(int(row[1:].partition(",")[0]) for row in found["item"]) == list(range(1, ROWS + 1))


async def test_a_change_is_as_many_rows_as_it_says(cluster: Cluster) -> None:
    trio = await filled(cluster)
    await change(trio.clone, 0)
    counted = await changes(trio.base, trio.clone)
    assert [(table.added, table.modified, table.deleted) for table in counted.tables] == [(10, 80, 10)]
