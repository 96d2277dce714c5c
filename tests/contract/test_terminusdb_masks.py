"""A masked copy of a TerminusDB: what the mask has replaced is nowhere in its bytes any more, and no history is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.engines.base import LoginRefusedError

from .conftest import Stage, open_stage, version_of
from .runner import files, kill, until
from .terminus_kit import call, documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.engines.base import Content

SECRET = "alice.at.home"
MASKED = "person"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("terminusdb") as stage:
        yield stage


async def prepared(stage: Stage, loaded: Path) -> tuple[Path, Content]:
    """Return a copy with a secret on two branches, under a tag, in history and in another database."""
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        await call(admin, "POST", "db/admin/other", {"label": "other", "schema": True})
        await stage.engine.execute(
            admin,
            "create-branch",
            {
                "database": "shop",
                "branch": "dev",
                "commit": version_of(await stage.engine.inspect(admin, database="shop")).head,
            },
        )
        for branch in ("dev", "main"):
            await call(
                admin,
                "POST",
                f"document/admin/shop/local/branch/{branch}?author=a&message={SECRET}",
                {"@type": "Product", "id": "7", "name": f"{SECRET} {branch}"},
            )
        await stage.kit.tag(admin, "v1")
        return await stage.prepared(loaded, server)


async def mask(stage: Stage, copy: Path, content: Content) -> dict[str, set[str]]:
    """Run a mask, and return which tables changed when its login came, and when it wrote."""
    async with stage.runner.serving(stage.clone(version_of(content), durable=True), copy, stage.secret()) as server:
        admin, app = stage.admin(server), stage.app(server)
        before = await stage.engine.tables(admin, "shop")
        arguments = {"username": app.username, "password": app.password, "database": "shop"}
        for _ in range(2):
            await stage.engine.execute(admin, "ensure-mask-user", arguments)
        assert await documents(app, "admin/shop")
        with_login = await stage.engine.tables(admin, "shop")
        await call(
            app, "PUT", "document/admin/shop?author=mask&message=mask", {"@type": "Product", "id": "7", "name": MASKED}
        )
        after = await stage.engine.tables(admin, "shop")
    return {
        "login": {name for name in before if before[name] != with_login[name]},
        "mask": {name for name in before if before[name] != after[name]},
    }


async def rewritten(stage: Stage, copy: Path) -> Content:
    outcome = await stage.runner.run(stage.preparation(rewrite=True), copy)
    assert outcome.code == 0, outcome.errors
    return stage.engine.report(outcome.last_line)


def found_in(copy: Path) -> list[str]:
    return [str(path) for path in copy.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def test_what_the_mask_has_replaced_and_all_history_is_nowhere_in_the_bytes(stage: Stage, loaded: Path) -> None:
    copy, content = await prepared(stage, loaded)
    assert await mask(stage, copy, content) == {"login": set(), "mask": {"documents"}}
    assert found_in(copy), "there is nothing for the second preparation to do"
    masked = await rewritten(stage, copy)
    assert found_in(copy) == []
    assert masked.databases == content.databases == ("other", "shop")
    assert [(state.database, state.branch) for state in masked.branches] == [("other", "main"), ("shop", "main")]
    assert version_of(masked).head not in {state.head for state in content.branches}
    async with stage.runner.serving(stage.clone(version_of(masked)), copy, stage.secret()) as clone:
        admin = stage.admin(clone)
        assert await stage.engine.inspect(admin, database="shop") == masked
        found = {entry["@id"]: entry["name"] for entry in await documents(admin, "admin/shop")}
        assert found == {"Product/1": "one", "Product/2": "two", "Product/3": "three", "Product/7": MASKED}
        assert set(await stage.engine.schema(admin, "shop")) == {"class Product", "prefixes"}
        assert await stage.engine.tags(admin, "shop", "") == []
        with pytest.raises(LoginRefusedError):
            await stage.engine.inspect(stage.app(clone))


async def test_a_rewrite_that_is_killed_is_begun_again(stage: Stage, loaded: Path) -> None:
    copy, content = await prepared(stage, loaded)
    await mask(stage, copy, content)
    workload = stage.preparation(rewrite=True)
    for written in (1, 12, 20):
        before = files(copy)
        environment = stage.runner.environment(
            workload, copy, stage.secret(), run=stage.runner.new(f"run-{written}"), port=1, load=None
        )
        process = await stage.runner.spawn(workload.script, environment, stage.runner.directory / f"{written}.log")
        await until(lambda: len(files(copy) - before) >= written)  # noqa: B023 - awaited here
        assert kill(process), "the rewrite was over before it could be killed"
        await process.wait()
    masked = await rewritten(stage, copy)
    assert found_in(copy) == []
    async with stage.runner.serving(stage.clone(version_of(masked)), copy, stage.secret()) as clone:
        assert await stage.kit.count(stage.admin(clone)) == stage.kit.rows + 1


@pytest.mark.parametrize("complete", [True, False])
async def test_between_the_old_copy_and_the_new_one_nothing_is_lost(
    stage: Stage, loaded: Path, *, complete: bool
) -> None:
    """Killed when the new copy is complete: before the old one goes, or before the new one has its name."""
    copy, content = await prepared(stage, loaded)
    await mask(stage, copy, content)
    await rewritten(stage, copy)
    (copy / "terminusdb").rename(copy / ".anew")
    if complete:
        (copy / "terminusdb").mkdir()
        (copy / "terminusdb/half").write_text(SECRET)
    masked = await rewritten(stage, copy)
    assert found_in(copy) == []
    assert {entry.name for entry in copy.iterdir()} == {"terminusdb"}
    async with stage.runner.serving(stage.clone(version_of(masked)), copy, stage.secret()) as clone:
        assert await stage.kit.count(stage.admin(clone)) == stage.kit.rows + 1
