"""A watch is dead when a list knows more than its events, for too long."""

from coppice.core.key import Key
from coppice.runtime.health import GRACE_SECONDS, Watches

A, B = Key("DataClone", "app", "a"), Key("DataClone", "app", "b")
LATER = 10 + GRACE_SECONDS + 1


def test_a_list_that_agrees_with_the_events_is_no_cause_for_alarm():
    watches = Watches()
    watches.event(A, "1", 0, deleted=False)
    assert watches.listed("DataClone", {A: "1"}, 10) == set()
    assert watches.silent(LATER) == set()


def test_an_event_may_be_late_but_not_for_ever():
    watches = Watches()
    watches.listed("DataClone", {A: "1"}, 10)
    assert watches.silent(10 + GRACE_SECONDS) == set()
    assert watches.silent(LATER) == {"DataClone"}
    watches.event(A, "1", LATER, deleted=False)
    assert watches.silent(LATER) == set()


def test_a_change_that_no_event_told_is_as_bad_as_a_new_object():
    watches = Watches()
    watches.event(A, "1", 0, deleted=False)
    watches.listed("DataClone", {A: "2"}, 10)
    assert watches.silent(LATER) == {"DataClone"}


def test_an_event_that_overtakes_the_list_accuses_nobody():
    watches = Watches()
    watches.event(A, "2", 11, deleted=False)
    watches.event(B, "1", 11, deleted=False)
    assert watches.listed("DataClone", {A: "1"}, 10) == set()
    assert watches.silent(LATER) == set()
    assert watches.listed("DataClone", {A: "2", B: "1"}, 20) == set()
    assert watches.silent(2 * LATER) == set()


def test_a_later_list_does_not_set_the_clock_back():
    watches = Watches()
    watches.listed("DataClone", {A: "1"}, 10)
    watches.listed("DataClone", {A: "2"}, 10 + GRACE_SECONDS)
    assert watches.silent(LATER) == {"DataClone"}


def test_what_is_gone_without_an_event_is_named_once_and_no_longer_suspect():
    watches = Watches()
    watches.event(A, "1", 0, deleted=False)
    watches.event(B, "1", 0, deleted=False)
    watches.event(Key("Pod", "app", "a"), "1", 0, deleted=False)
    assert watches.listed("DataClone", {B: "1"}, 10) == {A}
    assert watches.listed("DataClone", {B: "1"}, 10) == set()
    watches.listed("DataClone", {B: "2"}, 10)
    assert watches.listed("DataClone", {}, 10) == {B}
    assert watches.silent(LATER) == set()


def test_a_deletion_leaves_nothing_behind():
    watches = Watches()
    watches.event(A, "1", 0, deleted=False)
    watches.event(A, "2", 0, deleted=True)
    assert watches.listed("DataClone", {}, 10) == set()
