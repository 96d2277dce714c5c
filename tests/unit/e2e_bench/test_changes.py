"""What the benchmark of change requests changes, weighs and reports."""

import json
import subprocess
import sys

import pytest
from e2e.bench.api import BenchError
from e2e.bench.by_dump import read_laps
from e2e.bench.changes import SCRATCH, Run, report
from e2e.bench.proposals import COMPUTED, PUBLISHED, ROWS, ChangeSet
from e2e.bench.weights import PROGRAM, Weighed, Weight, read_weight

MEBIBYTE = 1024**2


@pytest.mark.parametrize(("rows", "changed", "sets"), [(1_000_000, 1000, 200), (20_000, 100, 40), (50, 5, 4)])
def test_a_set_has_as_many_rows_as_asked_for_and_none_in_common_with_another(
    rows: int, changed: int, sets: int
) -> None:
    seen: set[int] = set()
    for number in range(sets):
        change = ChangeSet(rows, changed, number)
        touched = [*change.modified, *change.deleted, *change.added]
        assert len(touched) == changed
        assert seen.isdisjoint(touched)
        seen.update(touched)
        assert all(1 <= row <= rows for row in [*change.modified, *change.deleted])
        assert all(row > rows for row in change.added)


def test_some_rows_are_added_and_as_many_deleted() -> None:
    change = ChangeSet(1_000_000, 1000, 0)
    assert [len(rows) for rows in (change.added, change.deleted, change.modified)] == [100, 100, 800]


def test_a_table_that_is_too_small_for_so_many_sets_is_refused_by_its_numbers() -> None:
    with pytest.raises(ValueError, match=r"1000 rows are too few for 11 times 100 changes"):
        ChangeSet(1000, 100, 10).statements()


def test_the_operators_weight_is_read_in_bytes() -> None:
    told = "VmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\ncontainer: 314572800\n"
    assert read_weight(told) == Weight(100 * MEBIBYTE, 200 * MEBIBYTE, 300 * MEBIBYTE)


def test_a_weight_that_is_not_there_is_told() -> None:
    with pytest.raises(BenchError, match="VmRSS"):
        read_weight("VmRSS:\t  102400 kB\n")


def test_a_program_is_weighed_without_whoever_started_it() -> None:
    hold = f"held = b'x' * {100 * MEBIBYTE}; print(1); print(2)"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), sys.executable, "-c", hold], check=True, capture_output=True, text=True
    )
    told = Weighed(**json.loads(done.stdout))
    assert told.lines == 2
    assert 100 * MEBIBYTE < told.bytes < 150 * MEBIBYTE


def test_the_scratch_server_is_no_part_of_the_sum() -> None:
    weight = Weight(100 * MEBIBYTE, 120 * MEBIBYTE, 300 * MEBIBYTE)
    run = Run(
        laps={SCRATCH: 5.0, COMPUTED: 1.0, PUBLISHED: 0.5},
        by_hand={"fetch": 0.5, COMPUTED: 0.5, PUBLISHED: 0.25, ROWS: 0.125},
        before=weight,
        after=weight,
        shown=Weighed(0.5, 1000, 90 * MEBIBYTE),
    )
    told = {line.split("  ")[0]: line.split() for line in report([run, run], 1_000_000, 1000).splitlines() if line}
    assert told["diff and publish, the sum"][-7:] == ["1.50", "/", "1.50", "0.75", "/", "0.75", "2.00"]
    assert told[SCRATCH][-4:] == ["5.00", "/", "5.00", "-"]
    assert told["operator, at most meanwhile"][-2:] == ["120.0", "120.0"]


def test_dumping_and_comparing_are_what_is_computed_by_hand() -> None:
    told = '{"rows": 1000, "begin": 100.5, "dumped": 102.5, "compared": 103.0, "published": 103.25}\n'
    assert read_laps(told, 1000) == {"dump": 2.0, "compare": 0.5, COMPUTED: 2.5, PUBLISHED: 0.25}


def test_by_hand_exactly_the_changed_rows_are_brought() -> None:
    told = '{"rows": 3000, "begin": 1.0, "dumped": 2.0, "compared": 3.0, "published": 4.0}'
    with pytest.raises(BenchError, match="3000 rows are brought by hand, and 1000 were changed"):
        read_laps(told, 1000)


def test_a_step_that_is_nothing_by_hand_has_no_ratio() -> None:
    weight = Weight(MEBIBYTE, MEBIBYTE, MEBIBYTE)
    ours, theirs = {SCRATCH: 5.0, COMPUTED: 1.0, PUBLISHED: 0.5}, {COMPUTED: 4.0, PUBLISHED: 0.25}
    run = Run(ours, theirs, before=weight, after=weight, shown=Weighed(0.5, 1000, MEBIBYTE))
    [line] = [line for line in report([run], 1_000_000, 1000).splitlines() if line.startswith(ROWS)]
    assert line.split()[-4:] == ["0.50", "/", "0.50", "-"]
