"""What programs find in their volumes, and what is refused: the traps of copy-on-write storage."""

import errno
import os
import re
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tests.csi.driver import MIB, NODE, Driver, as_user, capability, started, write

from coppice.csi import btrfs, mounts
from coppice.csi.errors import CsiError
from coppice.csi.identity import Identity
from coppice.csi.pool import PoolSettings
from coppice.csi.proto import csi_pb2
from coppice.csi.quota import QuotaMode
from coppice.csi.settings import TOPOLOGY_KEY
from coppice.engines.base import OUT_OF_BYTES, CloneServer, Version
from coppice.engines.dolt import DoltEngine

USER = 1000
LIMITS = {"ownBytes": "16Mi", "ownBytesHeadroom": "8Mi"}


def start_clone(data: Path, run: Path) -> int:
    """Start a clone's server on a volume without a database; return its exit code."""
    version = Version("shop", "main", "a" * 32, "b" * 32)
    workload = DoltEngine().clone_server(CloneServer(version=version, commit_policy="Explicit", marker="marker"))
    environment = {
        **workload.environment,
        "PATH": os.defpath,
        "COPPICE_DATA": str(data),
        "COPPICE_RUN": str(run),
        "DOLT_ROOT_PASSWORD": "secret",
    }
    return subprocess.run(["/bin/sh", "-eu", "-c", workload.script], env=environment, check=False).returncode


def refused(
    code: grpc.StatusCode, message: str, call: Callable[..., object], *arguments: object, **named: object
) -> None:
    with pytest.raises(CsiError, match=message) as error:
        call(*arguments, **named)
    assert error.value.code is code, error.value.message


class TestCopies:
    def test_a_clone_has_the_snapshots_data_and_neither_changes_the_other(self, driver: Driver) -> None:
        store = driver.create("store")
        (driver.data(store) / "row").write_text("old")
        snapshot = driver.snapshot("s", store)
        (driver.data(store) / "row").write_text("new")
        clone = driver.create("clone", snapshot=snapshot)
        assert (driver.data(clone) / "row").read_text() == "old"
        (driver.data(clone) / "row").write_text("changed in the clone")
        assert (driver.data(store) / "row").read_text() == "new"
        assert (driver.snapshot_data(snapshot) / "row").read_text() == "old"

    def test_a_snapshot_holds_what_was_written_but_not_yet_on_disk(self, driver: Driver) -> None:
        store = driver.create("store")
        with (driver.data(store) / "row").open("w") as file:
            file.write("not synchronised")
            file.flush()
            snapshot = driver.snapshot("s", store)
        assert (driver.snapshot_data(snapshot) / "row").read_text() == "not synchronised"

    def test_a_snapshot_cannot_be_written(self, driver: Driver) -> None:
        snapshot = driver.snapshot("s", driver.create("store"))
        with pytest.raises(OSError) as error:
            (driver.snapshot_data(snapshot) / "row").write_text("x")
        assert error.value.errno == errno.EROFS

    def test_sources_may_go_in_any_order(self, driver: Driver) -> None:
        store = driver.create("store")
        (driver.data(store) / "row").write_text("kept")
        snapshot = driver.snapshot("s", store)
        driver.delete(store)
        clone = driver.create("clone", snapshot=snapshot)
        driver.delete_snapshot(snapshot)
        assert (driver.data(clone) / "row").read_text() == "kept"
        assert driver.subvolumes() == {clone}

    def test_twenty_clones_at_once(self, driver: Driver) -> None:
        store = driver.create("store")
        (driver.data(store) / "row").write_text("shared")
        snapshot = driver.snapshot("s", store)
        with ThreadPoolExecutor(20) as pool:
            clones = list(pool.map(lambda number: driver.create(f"clone-{number}", snapshot=snapshot), range(20)))
        assert len(set(clones)) == 20
        assert {(driver.data(clone) / "row").read_text() for clone in clones} == {"shared"}

    def test_data_that_is_gone_is_said_and_not_replaced_by_an_empty_volume(self, driver: Driver) -> None:
        store = driver.create("store")
        btrfs.destroy_subvolume(driver.data(store))
        refused(grpc.StatusCode.DATA_LOSS, "is in the catalogue but .* is gone", driver.publish, store)
        refused(grpc.StatusCode.DATA_LOSS, "is gone", driver.snapshot, "s", store)
        driver.delete(store)
        assert driver.listed() == []

    def test_a_subvolume_that_the_catalogue_does_not_name_is_left_alone(
        self, settings: PoolSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with started(settings, tmp_path / "targets") as first:
            stranger = first.pool.root / "volumes" / "stranger"
            btrfs.create_subvolume(stranger)
        with started(settings, tmp_path / "targets"):
            assert btrfs.is_subvolume(stranger)
        assert "is not in the catalogue: left alone" in caplog.text


class TestMountedVolumes:
    def test_are_not_deleted(self, driver: Driver) -> None:
        """The kernel would delete a mounted subvolume and leave the program without its directory."""
        volume = driver.create("a")
        path = driver.publish(volume)
        (path / "row").write_text("in use")
        refused(grpc.StatusCode.FAILED_PRECONDITION, f"is mounted at {re.escape(str(path))}", driver.delete, volume)
        (path / "row").write_text("still in use")
        driver.unpublish(volume, path)
        driver.delete(volume)
        assert driver.listed() == []

    def test_are_not_deleted_while_only_a_directory_of_them_is_mounted(self, driver: Driver, tmp_path: Path) -> None:
        volume = driver.create("a")
        path = driver.publish(volume)
        (path / "sub").mkdir()
        subpath = tmp_path / "sub path"  # a blank is escaped in the mount table
        subpath.mkdir()
        mounts.bind(path / "sub", subpath, 0)
        driver.unpublish(volume, path)
        refused(grpc.StatusCode.FAILED_PRECONDITION, "sub path", driver.delete, volume)
        mounts.unmount(subpath)
        driver.delete(volume)

    def test_publishing_twice_mounts_once(self, driver: Driver) -> None:
        volume = driver.create("a")
        path = driver.publish(volume)
        driver.publish(volume)
        assert len([mount for mount in mounts.read() if mount.mount_point == str(path)]) == 1

    def test_a_read_only_publication_that_was_cut_short_becomes_read_only(self, driver: Driver) -> None:
        volume = driver.create("a")
        path = driver.publish(volume)  # as if the driver had died between bind and remount
        driver.publish(volume, readonly=True)
        with pytest.raises(OSError) as error:
            (path / "row").write_text("x")
        assert error.value.errno == errno.EROFS

    def test_unpublishing_never_deletes_what_lies_at_the_path(self, driver: Driver) -> None:
        volume = driver.create("a")
        path = driver.targets / "not-a-mount"
        path.mkdir()
        (path / "precious").write_text("kept")
        with pytest.raises(OSError) as error:
            driver.unpublish(volume, path)
        assert error.value.errno == errno.ENOTEMPTY
        assert (path / "precious").read_text() == "kept"

    def test_a_target_that_shows_something_else_is_not_covered(self, driver: Driver) -> None:
        one, other = driver.create("one"), driver.create("other")
        driver.publish(one, target="t")
        refused(grpc.StatusCode.FAILED_PRECONDITION, "already shows", driver.publish, other, target="t")


class TestNestedSubvolumes:
    @pytest.fixture
    def volume(self, driver: Driver) -> str:
        """A volume in which an unprivileged user made a subvolume two directories down, with another one inside."""
        volume = driver.create("a")
        outer = Path("some", "where", "outer")

        def nest() -> None:
            outer.parent.mkdir(parents=True)
            btrfs.create_subvolume(outer)
            (outer / "row").write_text("easily lost")
            btrfs.create_subvolume(outer / "inner")

        assert as_user(USER, driver.data(volume), nest)
        return volume

    def test_are_not_silently_missing_from_a_snapshot(self, driver: Driver, volume: str) -> None:
        refused(grpc.StatusCode.FAILED_PRECONDITION, "some/where/outer", driver.snapshot, "s", volume)
        assert driver.listed_snapshots() == []
        assert driver.subvolumes() == {volume}

    def test_are_not_silently_missing_from_a_clone(self, driver: Driver, volume: str) -> None:
        refused(grpc.StatusCode.FAILED_PRECONDITION, "some/where/outer", driver.create, "clone", volume=volume)
        assert driver.listed() == [volume]
        assert driver.subvolumes() == {volume}

    def test_made_while_the_snapshot_is_taken_are_noticed(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = driver.create("store")
        snapshot = btrfs.create_snapshot

        def nest_first(source: Path, target: Path, *, read_only: bool) -> None:
            btrfs.create_subvolume(source / "late")
            snapshot(source, target, read_only=read_only)

        monkeypatch.setattr(btrfs, "create_snapshot", nest_first)
        refused(grpc.StatusCode.FAILED_PRECONDITION, "late", driver.snapshot, "s", store)
        assert driver.subvolumes() == {store}

    def test_go_with_their_volume(self, driver: Driver, volume: str) -> None:
        driver.delete(volume)
        assert driver.subvolumes() == set()

    def test_many_are_all_found(self, driver: Driver) -> None:
        """More than one page of a tree search."""
        path = driver.data(driver.create("a"))
        wanted = {path / f"nested-{number:03}-{'n' * 100}" for number in range(60)}
        for nested in wanted:
            btrfs.create_subvolume(nested)
        assert set(btrfs.nested_subvolumes(path)) == wanted


class TestOwners:
    def test_any_user_may_write_to_a_new_volume(self, driver: Driver) -> None:
        """A restricted Pod runs as some user; with fsGroupPolicy None nobody else would give it the volume."""
        path = driver.publish(driver.create("a"))

        def initialise() -> None:
            Path("data").mkdir(mode=0o700)
            Path("data", "row").write_text("x")

        assert as_user(USER, path, initialise)

    def test_root_may_open_for_creation_what_another_user_made(self, driver: Driver) -> None:
        """With a sticky bit, fs.protected_regular would refuse that."""
        path = driver.publish(driver.create("a"))
        assert as_user(USER, path, lambda: Path("row").write_text("by a user"))
        (path / "row").open("w").close()

    def test_the_class_can_name_the_owner(self, driver: Driver) -> None:
        status = driver.data(driver.create("a", parameters={"uid": "5", "gid": "6", "mode": "2750"})).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o2750)

    def test_a_data_directory_stays_private_whatever_the_pods_group(self, driver: Driver) -> None:
        """kubelet's own fsGroup handling makes 0700 into 2770, and PostgreSQL then refuses to start."""
        store = driver.create("store")
        path = driver.publish(store)
        assert as_user(USER, path, lambda: Path("pg").mkdir(mode=0o700))
        clone = driver.create("clone", snapshot=driver.snapshot("s", store))
        before = driver.data(clone).stat()
        seen = driver.publish(clone, mount_group="2000")
        status = (seen / "pg").stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (USER, USER, 0o700)
        assert (seen.stat().st_gid, seen.stat().st_mode) == (before.st_gid, before.st_mode)


@pytest.fixture(params=[QuotaMode.SIMPLE, QuotaMode.FULL])
def counting(request: pytest.FixtureRequest, settings: PoolSettings, tmp_path: Path) -> Driver:
    """A driver with each kind of quota; simple ones need Linux 6.7."""
    with started(replace(settings, quota=request.param), tmp_path / "targets") as running:
        if running.pool.quota.mode is not request.param:
            pytest.skip(f"this kernel has no {request.param} quotas")
        yield running


class TestOwnBytes:
    @pytest.fixture
    def store(self, counting: Driver) -> str:
        """A store with 40 MiB, more than a clone may write by itself."""
        store = counting.create("store")
        write(counting.data(store) / "big", 40 * MIB)
        btrfs.sync(counting.pool.root)
        return store

    def clone(self, driver: Driver, store: str) -> str:
        return driver.create("clone", snapshot=driver.snapshot("s", store), parameters=LIMITS)

    def test_a_clone_costs_next_to_nothing_at_birth(self, counting: Driver, store: str) -> None:
        clone = self.clone(counting, store)
        usage = counting.usage(clone, counting.publish(clone))
        assert usage.used < MIB
        assert usage.total == 16 * MIB
        assert 15 * MIB < usage.available <= 16 * MIB

    def test_statistics_are_the_volumes_own_not_the_pools(self, counting: Driver, store: str) -> None:
        usage = counting.usage(store, counting.publish(store))
        assert 40 * MIB <= usage.used < 41 * MIB
        assert usage.total == 64 * MIB

    def test_a_full_clone_can_start_again(self, counting: Driver, store: str) -> None:
        clone = self.clone(counting, store)
        path = counting.publish(clone)
        with pytest.raises(OSError) as error:
            write(path / "flood", 32 * MIB)
        assert error.value.errno == errno.EDQUOT
        btrfs.sync(counting.pool.root)
        with pytest.raises(OSError):
            write(path / "lock", MIB)
        counting.unpublish(clone, path)

        path = counting.publish(clone)  # the next Pod
        write(path / "lock", MIB)

    def test_a_clones_server_says_by_its_exit_code_that_its_volume_is_full(
        self, counting: Driver, store: str, tmp_path: Path
    ) -> None:
        clone = self.clone(counting, store)
        path = counting.publish(clone)
        (path / "dolt").mkdir()
        empty = start_clone(path, tmp_path)
        assert empty != OUT_OF_BYTES
        with pytest.raises(OSError):
            write(path / "flood", 32 * MIB)
        assert start_clone(path, tmp_path) == OUT_OF_BYTES
        counting.unpublish(clone, path)
        assert start_clone(counting.publish(clone), tmp_path) == empty

    def test_the_bound_is_back_once_there_is_room(self, counting: Driver, store: str) -> None:
        clone = self.clone(counting, store)
        path = counting.publish(clone)
        with pytest.raises(OSError):
            write(path / "flood", 32 * MIB)
        btrfs.sync(counting.pool.root)
        counting.publish(clone)
        (path / "flood").unlink()
        (path / "lock").unlink(missing_ok=True)
        while counting.usage(clone, path).used > MIB:
            btrfs.sync(counting.pool.root)
        counting.publish(clone)
        with pytest.raises(OSError):
            write(path / "flood", 18 * MIB)

    def test_the_store_itself_is_not_bound(self, counting: Driver) -> None:
        path = counting.publish(counting.create("store", parameters=LIMITS))
        write(path / "big", 40 * MIB)

    def test_a_limit_that_cannot_be_kept_is_refused(self, settings: PoolSettings, tmp_path: Path) -> None:
        with started(replace(settings, quota=QuotaMode.OFF), tmp_path / "targets") as driver:
            refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                "quotas are off",
                driver.create,
                "a",
                parameters={"ownBytes": "1Gi"},
            )


class TestFullPool:
    @pytest.fixture
    def full(self, driver: Driver) -> tuple[str, str]:
        """A store with a snapshot, in a pool that has since been filled to the last byte."""
        store = driver.create("store")
        (driver.data(store) / "row").write_text("kept")
        snapshot = driver.snapshot("s", store)
        with pytest.raises(OSError) as error:
            write(driver.data(store) / "flood", 1024 * MIB)
        assert error.value.errno == errno.ENOSPC
        return store, snapshot

    def test_nothing_new_is_begun(self, driver: Driver, full: tuple[str, str]) -> None:
        store, snapshot = full
        before = driver.subvolumes()
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        refused(exhausted, "delete clones or snapshots", driver.create, "new")
        refused(exhausted, "no room for", driver.create, "clone", snapshot=snapshot)
        refused(exhausted, "no room for", driver.snapshot, "s2", store)
        assert driver.subvolumes() == before
        assert driver.controller.get_capacity(csi_pb2.GetCapacityRequest()).available_capacity == 0

    def test_the_driver_is_healthy_and_deletes(self, driver: Driver, full: tuple[str, str]) -> None:
        store, snapshot = full
        assert Identity(driver.pool).probe(csi_pb2.ProbeRequest()).ready.value
        driver.delete(store)
        while driver.pool.free_bytes() < 200 * MIB:  # the kernel's cleaner runs after a commit
            btrfs.sync(driver.pool.root)
        clone = driver.create("clone", snapshot=snapshot)
        assert (driver.data(clone) / "row").read_text() == "kept"

    def test_a_host_without_blocks_for_a_sparse_image_counts_too(self, settings: PoolSettings, tmp_path: Path) -> None:
        settings.directory.mkdir()
        mounts.mount("none", settings.directory, filesystem="tmpfs", data="size=300m")
        with started(settings, tmp_path / "targets") as driver:
            assert driver.pool.free_bytes() < 300 * MIB
            write(settings.directory / "somebody-else", 280 * MIB)
            refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", driver.create, "a")


class TestLists:
    def test_show_at_once_what_was_made_and_not_what_is_gone(self, driver: Driver) -> None:
        volume = driver.create("a")
        snapshot = driver.snapshot("s", volume)
        assert (driver.listed(), driver.listed_snapshots()) == ([volume], [snapshot])
        driver.delete_snapshot(snapshot)
        driver.delete(volume)
        assert (driver.listed(), driver.listed_snapshots()) == ([], [])

    def test_pages_neither_skip_nor_repeat_when_entries_go_between(self, driver: Driver) -> None:
        everything = sorted(driver.create(f"v{number}") for number in range(5))
        first = driver.controller.list_volumes(csi_pb2.ListVolumesRequest(max_entries=2))
        driver.delete(everything[0])
        driver.delete(everything[1])  # the token's own entry
        rest = driver.controller.list_volumes(csi_pb2.ListVolumesRequest(starting_token=first.next_token))
        seen = [entry.volume.volume_id for entry in (*first.entries, *rest.entries)]
        assert seen == everything

    def test_a_name_can_be_used_again_at_once(self, driver: Driver) -> None:
        old = driver.create("a")
        (driver.data(old) / "row").write_text("of the old one")
        driver.delete(old)
        new = driver.create("a")
        assert list(driver.data(new).iterdir()) == []
        driver.volumes.drop_deleted_records()
        assert driver.listed() == [new]

    def test_a_name_used_again_meanwhile_stays(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        """Dropping the old record waits for the disk, and a new object may take its name in that time."""
        driver.delete(driver.create("a"))
        sync = btrfs.sync

        def create_then_sync(path: Path) -> None:
            monkeypatch.undo()
            driver.create("a")
            sync(path)

        monkeypatch.setattr(btrfs, "sync", create_then_sync)
        driver.volumes.drop_deleted_records()
        assert len(driver.listed()) == 1


class TestTopology:
    def test_a_volume_for_another_node_is_not_made_here(self, driver: Driver) -> None:
        elsewhere = csi_pb2.Topology(segments={TOPOLOGY_KEY: "another"})
        here = csi_pb2.Topology(segments={TOPOLOGY_KEY: NODE})
        request = csi_pb2.CreateVolumeRequest(
            name="a",
            capacity_range=csi_pb2.CapacityRange(required_bytes=MIB),
            volume_capabilities=[capability()],
            accessibility_requirements=csi_pb2.TopologyRequirement(requisite=[elsewhere]),
        )
        refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"only be made on node {NODE}",
            driver.controller.create_volume,
            request,
        )
        request.accessibility_requirements.requisite.append(here)
        created = driver.controller.create_volume(request).volume
        assert list(created.accessible_topology) == [here]


def test_the_headroom_is_not_given_away_before_it_is_needed(driver: Driver) -> None:
    clone = driver.create("clone", volume=driver.create("store"), parameters=LIMITS)
    path = driver.publish(clone)
    driver.publish(clone)
    with pytest.raises(OSError):
        write(path / "flood", 18 * MIB)
    assert (path / "flood").stat().st_size <= 16 * MIB
