"""What the driver decides without touching a disk: sizes, bounds, parameters, pages, locks, names."""

import struct
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.csi import btrfs, ioctls, paging, parameters, rpc, sizes
from coppice.csi.catalog import State, VolumeRecord
from coppice.csi.errors import CsiError
from coppice.csi.locks import Locks
from coppice.csi.quota import limit_at_start
from coppice.csi.volumes import snapshot_id, volume_id

GIB = 1024**3
SIZES = st.integers(min_value=0, max_value=2**50)


def refusal(call: Callable[..., object], *arguments: object, **named: object) -> grpc.StatusCode:
    with pytest.raises(CsiError) as error:
        call(*arguments, **named)
    return error.value.code


class TestSizes:
    @pytest.mark.parametrize(
        ("required", "limit", "source", "capacity"),
        [(5, 0, 0, 5), (0, 0, 0, GIB), (0, 7, 0, 7), (0, 0, 9, 9), (12, 20, 9, 12)],
    )
    def test_of_a_new_volume(self, required: int, limit: int, source: int, capacity: int) -> None:
        assert sizes.capacity_of_new(required=required, limit=limit, source=source, pool=10 * GIB) == capacity

    @pytest.mark.parametrize(
        ("required", "limit", "source"),
        [(8, 0, 9), (0, 8, 9), (11, 10, 0), (10 * GIB + 1, 0, 0)],
        ids=["less than the source", "limited below the source", "limited below itself", "larger than the pool"],
    )
    def test_that_cannot_be_had(self, required: int, limit: int, source: int) -> None:
        code = refusal(sizes.capacity_of_new, required=required, limit=limit, source=source, pool=10 * GIB)
        assert code is grpc.StatusCode.OUT_OF_RANGE

    @given(current=SIZES, required=SIZES)
    def test_only_grow(self, current: int, required: int) -> None:
        assert sizes.capacity_of_grown(current=current, required=required, limit=0, pool=2**50) >= current

    @given(required=SIZES, limit=SIZES, source=SIZES)
    def test_what_was_made_fits_the_same_request_again(self, required: int, limit: int, source: int) -> None:
        try:
            capacity = sizes.capacity_of_new(required=required, limit=limit, source=source, pool=2**50)
        except CsiError:
            return
        assert sizes.fits(capacity, required=required, limit=limit)


class TestOwnBytes:
    @given(own=SIZES, headroom=SIZES, used=SIZES)
    def test_a_server_always_finds_its_headroom(self, own: int, headroom: int, used: int) -> None:
        limit = limit_at_start(own, headroom, used)
        assert limit >= own
        assert limit - used >= headroom

    @given(own=SIZES, used=SIZES)
    def test_the_bound_stays_while_there_is_room(self, own: int, used: int) -> None:
        if used + 64 <= own:
            assert limit_at_start(own, 64, used) == own


class TestParameters:
    def test_default_to_no_bound_and_an_open_root(self) -> None:
        parsed = parameters.parse({"csi.storage.k8s.io/pvc/name": "shop"})
        assert parsed == parameters.ClassParameters()
        assert parsed.own_bytes is None
        assert parsed.owner.mode == 0o777

    def test_are_all_read(self) -> None:
        parsed = parameters.parse(
            {"ownBytes": "5Gi", "ownBytesHeadroom": "32Mi", "uid": "999", "gid": "998", "mode": "0750"}
        )
        assert parsed.own_bytes == 5 * GIB
        assert parsed.own_bytes_headroom == 32 * 1024**2
        assert parsed.owner == parameters.Owner(uid=999, gid=998, mode=0o750)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"ownbytes": "5Gi"},
            {"ownBytes": "five"},
            {"ownBytes": "-1Gi"},
            {"uid": "postgres"},
            {"gid": "-1"},
            {"mode": "0888"},
            {"mode": "17777"},
            {"uid": str(2**32 - 1)},
        ],
        ids=str,
    )
    def test_are_refused_when_wrong(self, wrong: dict[str, str]) -> None:
        assert refusal(parameters.parse, wrong) is grpc.StatusCode.INVALID_ARGUMENT


class TestPages:
    @given(names=st.sets(st.text(), max_size=20), size=st.integers(min_value=1, max_value=7))
    def test_together_are_everything_once(self, names: set[str], size: int) -> None:
        records = sorted((record(volume_id(name)) for name in names), key=lambda entry: entry.id)
        seen, token = list(paging.page(records, "", size)[0]), paging.page(records, "", size)[1]
        while token:
            shown, token = paging.page(records, token, size)
            seen += shown
        assert seen == records

    def test_want_a_token_of_ours_and_a_sensible_size(self) -> None:
        assert refusal(paging.page, [], "invalid-token", 1) is grpc.StatusCode.ABORTED
        assert refusal(paging.page, [], "", -1) is grpc.StatusCode.INVALID_ARGUMENT


class TestLocks:
    def test_one_alone_or_several_together(self) -> None:
        locks = Locks()
        with locks.shared("a"), locks.shared("a"), locks.exclusive("b"):
            assert refusal(locks.exclusive("a").__enter__) is grpc.StatusCode.ABORTED
            assert refusal(locks.shared("b").__enter__) is grpc.StatusCode.ABORTED
        with locks.exclusive("a"):
            assert refusal(locks.shared("a").__enter__) is grpc.StatusCode.ABORTED

    def test_an_error_lets_go(self) -> None:
        locks = Locks()
        for lock in (locks.exclusive, locks.shared, locks.exclusive):
            with pytest.raises(RuntimeError), lock("a"):
                raise RuntimeError


class TestNames:
    @given(st.text(min_size=1, max_size=300))
    def test_make_short_ids_that_are_safe_in_paths(self, name: str) -> None:
        assert volume_id(name) == volume_id(name)
        assert len(snapshot_id(name)) < 64
        assert snapshot_id(name).replace("-", "").isalnum()

    def test_of_procedures(self) -> None:
        assert rpc.snake_case("NodeGetVolumeStats") == "node_get_volume_stats"


class TestKernelInterface:
    def test_request_numbers_are_those_of_the_headers(self) -> None:
        """BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_QUOTA_CTL, BTRFS_IOC_QGROUP_LIMIT and BTRFS_IOC_SYNC, as a C compiler has them."""
        assert ioctls.iow(0x94, 23, 4096) == 0x50009417
        assert ioctls.iowr(0x94, 40, 16) == 0xC0109428
        assert ioctls.ior(0x94, 43, 48) == 0x8030942B
        assert ioctls.io(0x94, 8) == 0x9408

    def test_a_tree_searchs_answer(self) -> None:
        key = struct.pack("=7Q4I4Q", *range(7), 156, 156, 2, 0, 0, 0, 0, 0)
        items = b"".join(
            struct.pack("=QQQII", 1, 257, child, 156, 18 + len(name))
            + struct.pack("=QQH", directory, 0, len(name))
            + name
            for child, directory, name in [(300, 256, b"a"), (301, 258, "ü".encode())]
        )
        answer = (key + items).ljust(4096, b"\0")
        assert btrfs.parse_root_references(answer) == ([(256, "a"), (258, "ü")], 301)


def record(identifier: str) -> VolumeRecord:
    return VolumeRecord(id=identifier, name="n", state=State.READY, capacity=1)
