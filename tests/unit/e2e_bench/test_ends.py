"""What the benchmark of ending clones waits for and reports."""

from e2e.bench.api import Seen
from e2e.bench.ends import Run, is_called, is_of, report

from coppice.core import labels


def test_what_was_made_is_known_by_its_owner_or_its_name_when_it_goes() -> None:
    of_clone = Seen(0.0, "DELETED", {"metadata": {"name": "ending", "labels": {labels.OWNER_UID: "u1"}}})
    by_hand = Seen(0.0, "DELETED", {"metadata": {"name": "ending", "labels": {"bench": "ending"}}})
    foreign = Seen(0.0, "DELETED", {"metadata": {"name": "ending"}})
    assert [is_of("u1")(seen) for seen in (of_clone, by_hand, foreign)] == [True, False, False]
    assert [is_called("ending")(seen) for seen in (of_clone, by_hand, foreign)] == [False, True, False]


def test_an_end_is_compared_with_a_deletion() -> None:
    run = Run({"pod": 1.0, "claim": 1.25, "volume": 2.0}, {"pod": 0.75, "claim": 1.0, "volume": 1.5})
    lines = [line.split() for line in report([run]).splitlines()]
    [ours] = [line for line in lines if line[:1] == ["Coppice,"]]
    assert ours[-7:] == ["1.25", "/", "1.25", "2.00", "/", "2.00", "+0.50"]
