"""What every engine must do, run for real: see ``coppice.engines.base`` for the words."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from coppice.engines.base import (
    Endpoint,
    EngineError,
    Ledger,
    LoginRefusedError,
    Reference,
    UnknownVersionError,
    UnreachableError,
)
from coppice.reconcile.told import Progress, parse_told

from .conftest import MARKER, Stage, version_of
from .runner import PATIENCE, files, free_port, kill, listening, until

if TYPE_CHECKING:
    from pathlib import Path

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))


async def test_a_store_loads_once(stage: Stage) -> None:
    volume, secret = stage.runner.new("volume"), stage.secret()
    load = stage.runner.load(stage.kit.load)
    async with stage.runner.serving(stage.store(), volume, secret, load=load) as server:
        app = await stage.ensure_app(server)
        assert await stage.kit.count(app) == stage.kit.rows
        await stage.kit.insert(app)
    async with stage.runner.serving(stage.store(), volume, secret, load=load) as server:
        assert await stage.kit.count(stage.app(server)) == stage.kit.rows + 1


async def test_a_store_without_a_load_starts_empty_under_the_fallback_name(stage: Stage) -> None:
    volume, secret = stage.runner.new("volume"), stage.secret()
    async with stage.runner.serving(stage.store(load=False), volume, secret) as server:
        content = await stage.engine.inspect(stage.admin(server))
        assert content.databases == ("fallback",)
        await stage.ensure_app(server, "fallback")


async def test_a_load_killed_in_the_middle_leaves_nothing_half(stage: Stage) -> None:
    volume, workload = stage.runner.new("volume"), stage.store()
    load = stage.runner.load(stage.kit.slow_load)
    assert workload.load_script
    environment = stage.runner.environment(
        workload, volume, stage.secret(), run=stage.runner.new("run"), port=1, load=load
    )
    process = await stage.runner.spawn(workload.load_script, environment, stage.runner.directory / "killed.log")
    await until(lambda: bool(files(volume)))
    assert kill(process), "the load was over before it could be killed"
    await process.wait()

    refused = await stage.runner.run(workload, volume, stage.secret())
    assert refused.code != 0, "a half-loaded volume was served"
    async with stage.runner.serving(workload, volume, stage.secret(), load=load) as server:
        assert await stage.kit.count(stage.admin(server)) == stage.kit.rows


async def test_a_load_says_after_each_file_how_many_are_in(stage: Stage) -> None:
    volume, workload = stage.runner.new("volume"), stage.store()
    load = stage.runner.load({**stage.kit.load, "readme.txt": b"not a file of the load"})
    outcome = await stage.runner.run(workload, volume, script=workload.load_script, load=load)
    told = [parse_told(line) for line in outcome.output.splitlines()]
    total = len(stage.kit.load)
    assert [entry for entry in told if entry] == [Progress("Loading", done, total) for done in range(total + 1)]


async def test_a_load_that_fails_names_its_file_and_can_be_corrected(stage: Stage) -> None:
    volume, workload = stage.runner.new("volume"), stage.store()
    load = stage.runner.load(stage.kit.broken_load)
    outcome = await stage.runner.run(workload, volume, script=workload.load_script, load=load)
    assert outcome.code != 0
    assert "3-broken" in outcome.errors
    assert "3-broken" in outcome.reason
    assert "nowhere" in outcome.errors
    assert "nowhere" not in outcome.reason, "what a program says may quote rows"
    async with stage.runner.serving(workload, volume, stage.secret(), load=stage.runner.load(stage.kit.load)) as server:
        assert await stage.kit.count(stage.admin(server)) == stage.kit.rows


async def test_a_server_killed_in_its_first_boot_starts_again(stage: Stage, loaded: Path) -> None:
    workload, secret = stage.store(), stage.secret()
    for written in range(1, 5):
        volume, port = stage.runner.copy(loaded), free_port()
        before = files(volume)
        run = stage.runner.new("run")
        environment = stage.runner.environment(workload, volume, secret, run=run, port=port, load=None)
        process = await stage.runner.spawn(workload.script, environment, stage.runner.directory / f"{written}.log")
        await until(partial(_got_so_far, volume, before, written, port))
        assert kill(process), "the server ended by itself"
        await process.wait()
        async with stage.runner.serving(workload, volume, secret) as server:
            assert await stage.kit.count(stage.admin(server)) == stage.kit.rows


def _got_so_far(volume: Path, before: set[str], written: int, port: int) -> bool:
    return len(files(volume) - before) >= written or listening(port)


async def test_a_volume_with_something_else_on_it_is_not_taken_for_a_new_store(stage: Stage) -> None:
    volume = stage.runner.new("volume")
    (volume / "holiday.jpg").write_bytes(b"jpg")
    outcome = await stage.runner.run(stage.store(load=False), volume, stage.secret())
    assert outcome.code != 0
    assert "holiday.jpg" in outcome.errors
    assert [file.name for file in volume.iterdir()] == ["holiday.jpg"]


async def test_a_new_file_system_is_an_empty_volume(stage: Stage) -> None:
    volume = stage.runner.new("volume")
    (volume / "lost+found").mkdir()
    async with stage.runner.serving(stage.store(load=False), volume, stage.secret()) as server:
        await stage.engine.inspect(stage.admin(server))


async def test_an_empty_volume_is_refused_where_data_was_expected(stage: Stage, loaded: Path) -> None:
    _, content = await stage.prepared(loaded)
    empty = stage.runner.new("empty")
    preparations = (stage.preparation(), stage.preparation(adopted=True))
    for workload in (stage.store(load=True), stage.clone(version_of(content)), *preparations):
        outcome = await stage.runner.run(workload, empty, stage.secret())
        assert outcome.code != 0
        assert "empty" in outcome.errors
        assert outcome.errors == f"coppice: {outcome.reason}"
        assert list(empty.iterdir()) == []


async def test_a_clone_refuses_the_copy_of_another_snapshot(stage: Stage, loaded: Path) -> None:
    copy, content = await stage.prepared(loaded)
    outcome = await stage.runner.run(stage.clone(version_of(content), marker="another"), copy, stage.secret())
    assert outcome.code != 0
    assert MARKER in outcome.errors
    assert "another" in outcome.errors


async def test_a_clone_refuses_a_raw_copy(stage: Stage, loaded: Path) -> None:
    _, content = await stage.prepared(loaded)
    outcome = await stage.runner.run(stage.clone(version_of(content)), stage.runner.copy(loaded), stage.secret())
    assert outcome.code != 0


async def test_the_report_is_what_the_running_store_said(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        await stage.kit.insert(admin)
        said = await stage.engine.inspect(admin)
        if stage.engine.capture_action is not None:
            await stage.engine.execute(admin, stage.engine.capture_action, {})
            said = await stage.engine.inspect(admin)
        _, reported = await stage.prepared(loaded, server)
        assert reported == said


async def test_a_guarded_login_is_taken_by_the_engines_own_servers(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        at = replace(stage.admin(server), guarded=True)
        # In this order: to read rows may be written down, and then moves a head.
        said = await stage.engine.inspect(stage.admin(server))
        assert await stage.engine.inspect(at) == said
        with pytest.raises(LoginRefusedError):
            await stage.engine.inspect(replace(at, password="wrong"))


async def test_a_preparation_done_twice_says_the_same(stage: Stage, loaded: Path) -> None:
    copy, content = await stage.prepared(loaded)
    again = await stage.runner.run(stage.preparation(), copy)
    assert stage.engine.report(again.last_line) == content


async def test_something_else_than_a_report_is_an_error(stage: Stage) -> None:
    for line in ("", "{}", "Killed", '{"rows": []}', '{"rows": [1]}'):
        with pytest.raises(EngineError):
            stage.engine.report(line)


async def test_the_clone_is_the_snapshot_uncommitted_rows_too(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        await stage.kit.insert(stage.admin(source))
        copy, content = await stage.prepared(loaded, source)
        await stage.kit.insert(stage.admin(source))
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        assert await stage.engine.inspect(stage.admin(clone), database=content.database) == content
        assert await stage.kit.count(stage.admin(clone)) == stage.kit.rows + 1


async def test_every_write_acknowledged_before_the_snapshot_is_in_the_clone(stage: Stage, loaded: Path) -> None:
    acknowledged = 0

    async def write(at: Endpoint) -> None:
        nonlocal acknowledged
        while True:
            await stage.kit.insert(at)
            acknowledged += 1

    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        app = await stage.ensure_app(source)
        writers = [asyncio.create_task(write(app)) for _ in range(4)]
        for _ in range(3):
            seen = acknowledged
            await until(lambda: acknowledged > seen + 10)  # noqa: B023 - awaited here
            promised = acknowledged
            copy, content = await stage.prepared(loaded, source)
            async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
                held = await stage.kit.count(stage.admin(clone))
                assert stage.kit.rows + promised <= held <= stage.kit.rows + promised + len(writers)
        assert not any(writer.done() for writer in writers), "a writer saw an error"
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


@pytest.mark.versions
async def test_equal_hashes_mean_equal_rows(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        before = version_of(await stage.engine.inspect(admin))
        await stage.kit.insert(admin)
        dirty = version_of(await stage.engine.inspect(admin))
        assert dirty.head == before.head
        assert dirty.working_root != before.working_root
        await stage.kit.version(admin)
        committed = version_of(await stage.engine.inspect(admin))
        assert committed.head != dirty.head
        assert committed.working_root == dirty.working_root


async def test_a_clone_opens_to_its_own_password_only_from_its_first_packet(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        await stage.ensure_app(source)
        await stage.kit.connect_outside(stage.admin(source), stage.runner.new("outside"))
        copy, content = await stage.prepared(loaded, source)
        theirs = [stage.admin(source), stage.app(source), source.endpoint("boss", "boss"), source.endpoint("root", "")]

    port = free_port()
    over = asyncio.Event()
    opened: list[str] = []
    refused: list[str] = []

    async def hammer(at: Endpoint) -> None:
        while not over.is_set():
            try:
                await stage.engine.inspect(at)
                opened.append(at.username)
            except LoginRefusedError:
                refused.append(at.username)
            except EngineError:
                await asyncio.sleep(0)

    workload = stage.clone(version_of(content))
    async with asyncio.TaskGroup() as hammers:
        for at in theirs:
            hammers.create_task(hammer(Endpoint("127.0.0.1", port, at.username, at.password)))
        try:
            async with stage.runner.serving(workload, copy, stage.secret(), port=port) as clone:
                await stage.ensure_app(clone)
                assert await stage.kit.count(stage.app(clone)) == stage.kit.rows
                await until(lambda: {at.username for at in theirs} <= set(refused))
        finally:
            over.set()
    assert opened == []


async def test_nothing_by_which_the_source_acted_on_others_is_in_the_clone(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        await stage.ensure_app(source)
        await stage.kit.connect_outside(stage.admin(source), stage.runner.new("outside"))
        assert await stage.kit.outside(stage.admin(source)), "the source has nothing to lose"
        copy, content = await stage.prepared(loaded, source)
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        assert await stage.kit.outside(stage.admin(clone)) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("pod", ["the same", "another"])
async def test_a_restart_keeps_a_clones_data_users_and_branch(
    stage: Stage, loaded: Path, ending: int, pod: str
) -> None:
    copy, content = await stage.prepared(loaded)
    secret, run = stage.secret(), stage.runner.new("run")
    workload = stage.clone(version_of(content))
    async with stage.runner.serving(workload, copy, secret, run=run) as clone:
        app = await stage.ensure_app(clone)
        await stage.kit.insert(app)
        before = await stage.engine.inspect(stage.admin(clone), database=content.database)
        await clone.stop(ending)
    async with stage.runner.serving(workload, copy, secret, run=run if pod == "the same" else None) as clone:
        assert await stage.kit.count(stage.app(clone)) == stage.kit.rows + 1
        assert await stage.engine.inspect(stage.admin(clone), database=content.database) == before


async def test_a_clone_of_a_clone_has_neither_the_users_nor_the_branch_choice_of_the_first(
    stage: Stage, loaded: Path
) -> None:
    copy, content = await stage.prepared(loaded)
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as first:
        await stage.ensure_app(first)
        await stage.kit.insert(stage.admin(first))
        second_copy, second_content = await stage.prepared(copy, first)
        first_logins = [stage.admin(first), stage.app(first)]
    async with stage.runner.serving(stage.clone(version_of(second_content)), second_copy, stage.secret()) as second:
        assert await stage.kit.count(stage.admin(second)) == stage.kit.rows + 1
        for at in first_logins:
            with pytest.raises(LoginRefusedError):
                await stage.engine.inspect(second.endpoint(at.username, at.password))


@pytest.mark.versions
async def test_a_branch_is_what_an_app_gets_that_names_none(stage: Stage, loaded: Path) -> None:
    database = stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        admin = stage.admin(source)
        head = version_of(await stage.engine.inspect(admin)).head
        await stage.engine.execute(
            admin,
            "create-branch",
            {"database": database, "branch": "feature/it's 50% $new".replace(" ", "-"), "commit": head},
        )
        branch = "feature/it's-50%-$new"
        await stage.kit.insert(admin, branch)
        asked = await stage.engine.resolve(admin, database, Reference(branch=branch))
        copy, content = await stage.prepared(loaded, source)
    assert version_of(content, branch) == asked
    secret, workload = stage.secret(), stage.clone(asked)
    for _ in range(2):
        async with stage.runner.serving(workload, copy, secret) as clone:
            app = await stage.ensure_app(clone)
            assert (await stage.engine.inspect(stage.admin(clone), database=database)).default_branch == branch
            assert await stage.kit.count(app) == stage.kit.rows + 1
            assert await stage.kit.count(app, "main") == stage.kit.rows


@pytest.mark.versions
async def test_a_tag_a_commit_and_a_time_give_a_branch_of_their_own(stage: Stage, loaded: Path) -> None:
    database = stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as source:
        admin = stage.admin(source)
        old = version_of(await stage.engine.inspect(admin))
        await stage.kit.tag(admin, "v1")
        await stage.kit.insert(admin)
        new = await stage.kit.version(admin)
        asked = [
            await stage.engine.resolve(admin, database, Reference(tag="v1")),
            await stage.engine.resolve(admin, database, Reference(commit=old.head)),
            await stage.engine.resolve(admin, database, Reference(commit=old.head[:8])),
        ]
        latest = await stage.engine.resolve(admin, database, Reference(time="2999-01-01T00:00:00+01:00"))
        copy, _ = await stage.prepared(loaded, source)
    assert latest.head == new
    assert {(version.head, version.working_root, version.new_branch) for version in asked} == {
        (old.head, old.working_root, True)
    }
    version = asked[0]
    assert version.branch not in {"main", ""}
    secret = stage.secret()
    for added in range(2):
        async with stage.runner.serving(stage.clone(version), copy, secret) as clone:
            app = await stage.ensure_app(clone)
            assert await stage.kit.count(app) == stage.kit.rows + added
            state = await stage.engine.inspect(stage.admin(clone), database=database)
            assert state.default_branch == version.branch
            if not added:
                found = version_of(state)
                assert (found.head, found.working_root) == (version.head, version.working_root)
                await stage.kit.insert(app)


@pytest.mark.versions
@pytest.mark.parametrize(
    ("reference", "named"),
    [
        (Reference(branch="nope"), "main"),
        (Reference(branch="v1"), "main"),
        (Reference(tag="nope"), "v1"),
        (Reference(commit="v" * 32), "commit"),
        (Reference(commit="vvvvvvv"), "commit"),
        (Reference(commit="abc"), "7"),
        (Reference(commit="HEAD~1"), "7"),
        (Reference(time="1999-01-01T00:00:00Z"), "1999"),
        (Reference(time="yesterday"), "yesterday"),
    ],
)
async def test_what_does_not_exist_is_refused_by_name(
    stage: Stage, loaded: Path, reference: Reference, named: str
) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        await stage.kit.tag(stage.admin(server), "v1")
        with pytest.raises(UnknownVersionError, match=named):
            await stage.engine.resolve(stage.admin(server), stage.kit.database, reference)
        with pytest.raises(UnknownVersionError, match="elsewhere"):
            await stage.engine.resolve(stage.admin(server), "elsewhere", reference)


@pytest.mark.versions
async def test_a_commit_is_contained_in_the_heads_that_come_after_it(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, database = stage.admin(server), stage.kit.database
        first = version_of(await stage.engine.inspect(admin)).head
        await stage.engine.execute(admin, "create-branch", {"database": database, "branch": "side", "commit": first})
        await stage.kit.insert(admin)
        second = await stage.kit.version(admin)
        await stage.kit.insert(admin, "side")
        side = await stage.kit.version(admin, "side")
        unknown = "v" * 32
        for commit, heads, expected in (
            (first, (second,), True),
            (first, (first,), True),
            (second, (first,), False),
            (second, (side,), False),
            (second, (side, second), True),
            (first, (unknown, side), True),
            (first, (unknown,), False),
            (unknown, (second,), False),
            (first, (), False),
        ):
            assert await stage.engine.contains(admin, database, commit, heads) is expected, (commit, heads)


@pytest.mark.versions
async def test_branches_are_made_and_deleted_once_and_never_over_somebody_elses_work(
    stage: Stage, loaded: Path
) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, database = stage.admin(server), stage.kit.database
        head = version_of(await stage.engine.inspect(admin)).head
        make = {"database": database, "branch": "b", "commit": head}
        await stage.engine.execute(admin, "create-branch", make)
        await stage.engine.execute(admin, "create-branch", make)
        await stage.kit.insert(admin, "b")
        delete = {"database": database, "branch": "b", "head": head, "keep": "coppice/deleted/b/1"}
        with pytest.raises(EngineError, match="uncommitted"):
            await stage.engine.execute(admin, "delete-branch", delete)
        moved = await stage.kit.version(admin, "b")
        with pytest.raises(EngineError, match=moved):
            await stage.engine.execute(admin, "create-branch", make)
        with pytest.raises(EngineError, match=moved):
            await stage.engine.execute(admin, "delete-branch", delete)
        await stage.engine.execute(admin, "delete-branch", {**delete, "head": moved})
        await stage.engine.execute(admin, "delete-branch", {**delete, "head": moved})
        assert (await stage.engine.inspect(admin)).state_of("b") is None


@pytest.mark.versions
async def test_what_a_deleted_branch_held_is_there_under_its_tag_until_that_is_deleted(
    stage: Stage, loaded: Path
) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, database = stage.admin(server), stage.kit.database
        begun = datetime.now(UTC) - timedelta(seconds=2)
        first = version_of(await stage.engine.inspect(admin)).head
        await stage.engine.execute(admin, "create-branch", {"database": database, "branch": "b_", "commit": first})
        await stage.kit.insert(admin, "b_")
        head, keep = await stage.kit.version(admin, "b_"), "coppice/deleted/b_/20260302T090000Z"
        await stage.engine.execute(
            admin, "delete-branch", {"database": database, "branch": "b_", "head": head, "keep": keep}
        )
        used = await stage.engine.activity(admin)
        [tag] = await stage.engine.tags(admin, database, "coppice/deleted/b_/")
        assert (tag.name, tag.commit) == (keep, head)
        assert begun <= tag.at <= datetime.now(UTC)
        assert await stage.engine.tags(admin, database, "coppice/deleted/b%") == []
        assert await stage.engine.activity(admin) == used

        found = await stage.engine.resolve(admin, database, Reference(tag=keep))
        await stage.engine.execute(admin, "create-branch", {"database": database, "branch": "b_", "commit": found.head})
        assert version_of(await stage.engine.inspect(admin), "b_").head == head

        await stage.engine.execute(admin, "delete-tag", {"database": database, "tag": keep})
        await stage.engine.execute(admin, "delete-tag", {"database": database, "tag": keep})
        assert await stage.engine.tags(admin, database, "coppice/deleted/") == []


@pytest.mark.versions
async def test_what_a_program_has_loaded_becomes_a_version_once(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        before = version_of(await stage.engine.inspect(admin))
        await stage.kit.insert(await stage.ensure_app(server))
        written = version_of(await stage.engine.inspect(admin))
        await stage.engine.execute(admin, "commit-load", {})
        after = version_of(await stage.engine.inspect(admin))
        assert after.head != before.head
        version = await stage.engine.resolve(admin, stage.kit.database, Reference(commit=after.head))
        assert version.working_root == after.working_root == written.working_root
        await stage.engine.execute(admin, "commit-load", {})
        assert version_of(await stage.engine.inspect(admin)) == after


async def test_the_binding_uri_connects(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        await stage.ensure_app(server)
        binding = stage.engine.binding(
            host="127.0.0.1", database=stage.kit.database, password=server.secret["app-password"]
        )
        assert set(binding) == {"type", "provider", "host", "port", "username", "password", "database", "uri"}
        uri = urlsplit(binding["uri"])
        assert (uri.scheme, uri.hostname, uri.port) == (binding["type"], binding["host"], int(binding["port"]))
        assert (uri.username, uri.password, uri.path) == (
            binding["username"], binding["password"], f"/{binding['database']}",
        )  # fmt: skip
        assert await stage.kit.count(server.endpoint(uri.username or "", uri.password or "")) == stage.kit.rows


async def test_the_app_may_change_everything_in_its_database_and_nothing_on_the_server(
    stage: Stage, loaded: Path
) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        app = await stage.ensure_app(server)
        await stage.kit.insert(app)
        await stage.kit.version(app)
        assert set(await stage.kit.refused(app, stage.runner.new("files"))) == stage.kit.gaps


async def test_ensuring_the_app_user_again_keeps_its_password_or_sets_the_new_one(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        old = await stage.ensure_app(server)
        await stage.ensure_app(server)
        assert await stage.kit.count(old) == stage.kit.rows
        new = {"username": old.username, "password": "another'pass\\word", "database": stage.kit.database}
        await stage.engine.execute(stage.admin(server), "ensure-app-user", new)
        assert await stage.kit.count(server.endpoint(old.username, new["password"])) == stage.kit.rows
        with pytest.raises(LoginRefusedError):
            await stage.engine.inspect(old)


async def test_every_failure_is_told_apart_and_holds_no_password(stage: Stage, loaded: Path) -> None:
    with pytest.raises(UnreachableError) as nobody:
        await stage.engine.inspect(Endpoint("127.0.0.1", free_port(), "root", "hunter2"))
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        with pytest.raises(LoginRefusedError) as wrong:
            await stage.engine.inspect(server.endpoint(stage.engine.admin_user, "hunter2"))
        with pytest.raises(EngineError) as missing:
            await stage.engine.inspect(stage.admin(server), database="nope")
        with pytest.raises(EngineError) as unnamed:
            await stage.engine.execute(stage.admin(server), "sing", {})
        with pytest.raises(EngineError) as nowhere:
            await stage.engine.execute(
                stage.admin(server), "ensure-app-user", {"username": "a", "password": "hunter2", "database": "nope"}
            )
        secret = server.secret["admin-password"]
    for failure in (nobody, wrong, missing, unnamed, nowhere):
        assert "hunter2" not in str(failure.value)
        assert secret not in str(failure.value)
    assert "hunter2" not in repr(Endpoint("h", 1, "u", "hunter2"))


async def test_only_others_are_activity(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, engine, database = stage.admin(server), stage.engine, stage.kit.database
        app = await stage.ensure_app(server)
        idle = await stage.kit.idle(app)
        token = (await engine.activity(admin)).token

        async def ours() -> None:
            content = await engine.inspect(admin)
            await engine.resolve(admin, database, Reference(branch=content.default_branch))
            if engine.versioned:
                await engine.resolve(admin, database, Reference(commit=version_of(content).head))
            else:
                await engine.execute(admin, engine.capture_action or "commit-load", {})
            await engine.contains(admin, database, "v" * 32, (version_of(content).head,))
            await stage.ensure_app(server)
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.close()

        for act in (stage.kit.count, stage.kit.insert):
            await ours()
            await idle.ping()
            assert (await engine.activity(admin)).token == token
            await act(app)
            async with asyncio.timeout(PATIENCE):
                while (now := await engine.activity(admin)).token == token:  # noqa: ASYNC110 - as in until()
                    await asyncio.sleep(0)  # recorded by the server in the background
            assert now.connections == 1
            token = now.token
        idle.close()


async def test_credentials_are_completed_and_never_changed(stage: Stage) -> None:
    fresh = stage.engine.credentials({})
    assert stage.engine.credentials(fresh) == fresh
    assert stage.engine.credentials({"app-password": "kept"})["app-password"] == "kept"
    assert all(len(value) >= 32 for value in fresh.values())
    assert stage.engine.credentials({}) != fresh


async def test_nothing_secret_is_in_a_workload(stage: Stage, loaded: Path) -> None:
    _, content = await stage.prepared(loaded)
    for workload in (stage.store(), stage.clone(version_of(content))):
        assert set(workload.secret_environment.values()) <= set(stage.engine.credentials({}))
        assert set(workload.secret_environment).isdisjoint(workload.environment)


async def test_the_schema_tells_definitions_object_by_object_and_nothing_of_rows(stage: Stage, loaded: Path) -> None:
    engine, kit, database = stage.engine, stage.kit, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, app = stage.admin(server), await stage.ensure_app(server)
        before = await engine.schema(admin, database)
        assert list(before) == ["table product"]
        assert all(len(value) >= 12 and int(value, 16) >= 0 for value in before.values())
        await kit.insert(app)
        assert await engine.schema(admin, database) == before

        for statement in (
            "CREATE TABLE extra (id INT PRIMARY KEY, note VARCHAR(20))",
            "CREATE VIEW noted AS SELECT id FROM extra WHERE note IS NOT NULL",
        ):
            await kit.run(app, statement)
        after = await engine.schema(admin, database)
        assert after.keys() == {"table product", "table extra", "view noted"}
        assert after["table product"] == before["table product"]

        seen = dict(after)
        for statement in (
            "ALTER TABLE extra ADD COLUMN more INT",
            "CREATE INDEX by_note ON extra (note)",
            "ALTER TABLE extra ADD CONSTRAINT positive CHECK (id > 0)",
        ):
            await kit.run(app, statement)
            now = await engine.schema(admin, database)
            assert {name for name in now if now[name] != seen[name]} == {"table extra"}, statement
            seen = dict(now)
        await kit.run(app, "DROP VIEW noted")
        await kit.run(app, "DROP TABLE extra")
        assert await engine.schema(admin, database) == before


async def test_a_clone_has_the_schema_of_its_source(stage: Stage, loaded: Path) -> None:
    engine, database = stage.engine, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        said = await engine.schema(stage.admin(server), database)
        copy, content = await stage.prepared(loaded, server)
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        assert await engine.schema(stage.admin(clone), database) == said


async def test_the_ledger_of_a_migration_tool_is_read(stage: Stage, loaded: Path) -> None:
    engine, kit, database = stage.engine, stage.kit, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, app = stage.admin(server), await stage.ensure_app(server)
        assert await engine.ledger(admin, database) is None
        await kit.run(app, "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        assert await engine.ledger(admin, database) == Ledger("alembic", ())
        await kit.run(app, "INSERT INTO alembic_version VALUES ('1975ea83b712')")
        assert await engine.ledger(admin, database) == Ledger("alembic", ("1975ea83b712",))


LEDGERS = {
    "flyway": (
        "CREATE TABLE flyway_schema_history (installed_rank INT PRIMARY KEY, version VARCHAR(50), type VARCHAR(20), success BOOLEAN)",
        "INSERT INTO flyway_schema_history VALUES (1, NULL, 'SCHEMA', true), (2, '1', 'SQL', true), (3, '1.1', 'SQL', true)",
        "INSERT INTO flyway_schema_history VALUES (4, '1.1', 'UNDO_SQL', true), (5, NULL, 'SQL', true), (6, '2', 'SQL', false)",
    ),
    "liquibase": (
        "CREATE TABLE DATABASECHANGELOG (ID VARCHAR(255), EXECTYPE VARCHAR(10), ORDEREXECUTED INT)",
        "INSERT INTO DATABASECHANGELOG VALUES ('seed', 'MARK_RAN', 2), ('it''s \"new\", a/b', 'EXECUTED', 1)",
    ),
    "alembic": (
        "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('1975ea83b712')",
    ),
    "django": (
        "CREATE TABLE django_migrations (id INT PRIMARY KEY, app VARCHAR(255), name VARCHAR(255))",
        "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial'), (2, 'auth', '0001_initial'), (3, 'shop', '0002_price')",
    ),
    "rails": (
        "CREATE TABLE ar_internal_metadata (value VARCHAR(255))",
        "CREATE TABLE schema_migrations (version VARCHAR(255) PRIMARY KEY)",
        "INSERT INTO schema_migrations VALUES " + ", ".join(f"('{number}')" for number in range(950, 1060)),
    ),
    "empty": ("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",),
    "of another shape": ("CREATE TABLE alembic_version (version INT PRIMARY KEY)",),
    "longer than any": (
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES (REPEAT('x', 60000)), (REPEAT('y', 60000)), (REPEAT('z', 60000))",
    ),
    "of another tool": ("CREATE TABLE schema_migrations (version VARCHAR(255) PRIMARY KEY)",),
}
REPORTED = {
    "flyway": Ledger("flyway", ("1",), ("2",)),
    "liquibase": Ledger("liquibase", ('it\'s "new", a/b', "seed")),
    "alembic": Ledger("alembic", ("1975ea83b712",)),
    "django": Ledger("django", ("auth.0001_initial", "shop.0002_price")),
    "rails": Ledger("rails", tuple(str(number) for number in range(960, 1060))),
    "empty": Ledger("alembic", ()),
}
REWRITTEN = {"liquibase", "of another shape"}
"""Whose ledgers are read once more after the database was written anew: the one that quotes, and one that is none."""


@pytest.mark.parametrize("tool", LEDGERS)
async def test_the_report_says_how_far_migrations_are(stage: Stage, loaded: Path, tool: str) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        app = await stage.ensure_app(server)
        for statement in LEDGERS[tool]:
            await stage.kit.run(app, statement)
        copy, content = await stage.prepared(loaded, server)
    assert content.ledger == REPORTED.get(tool)
    if not (THOROUGH or tool in REWRITTEN):
        return
    again = await stage.runner.run(stage.preparation(rewrite=stage.engine.maskable), copy)
    assert stage.engine.report(again.last_line).ledger == content.ledger


async def test_to_be_asked_for_schema_ledger_and_locks_is_no_activity(stage: Stage, loaded: Path) -> None:
    engine, kit, database = stage.engine, stage.kit, stage.kit.database
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin, app = stage.admin(server), await stage.ensure_app(server)
        await kit.run(app, "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        token = (await engine.activity(admin)).token
        await engine.schema(admin, database)
        await engine.ledger(admin, database)
        assert list(await engine.locks(admin, database)) == []
        assert (await engine.activity(admin)).token == token
