"""What is written down of migrations, and what is made of marks that somebody else has written."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from coppice.core import labels
from coppice.engines.base import Ledger
from coppice.reconcile.migrations import (
    MAX_CHANGES,
    MAX_PACKED,
    MAX_RAN,
    Attempt,
    Finished,
    Schema,
    content_of,
    read_attempt,
    read_migrated,
    record,
)

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
END = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)


def definition(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def schema(ledger=None, **tables):
    return Schema({f"table {name}": definition(text) for name, text in tables.items()}, ledger)


def attempt_of(content="a", before=None):
    before = before or schema()
    return Attempt(content, claim="1", revision="r", schema=before.fingerprint, version=before.newest), before


def finished(content="a", before=None, **changed):
    attempt, before = attempt_of(content, before)
    annotations = {**attempt.annotations(before), labels.INPUTS: "x-y", **changed}
    return Finished({"metadata": {"name": "job", "annotations": annotations}}, attempt, START, END)


def claim(done):
    return {"metadata": {"annotations": {labels.MIGRATED: done.text}}}


def users_job(**changes):
    own = {"job-name": "a", "batch.kubernetes.io/controller-uid": "1", "team": "shop"}
    template = {"metadata": {"creationTimestamp": None, "labels": own}, "spec": {"containers": [{"image": "i:1"}]}}
    return {"metadata": {"name": "a", "uid": "1"}, "spec": {"suspend": True, "template": template, **changes}}


def test_what_counts_of_a_users_job_is_what_it_runs():
    one, other = users_job(), users_job(suspend=False, backoffLimit=3, activeDeadlineSeconds=9)
    other["metadata"] = {"name": "b", "uid": "2"}
    other["spec"]["template"]["metadata"]["labels"] |= {"job-name": "b", "batch.kubernetes.io/controller-uid": "2"}
    assert content_of(one) == content_of(other)
    for change in ({"image": "i:2"}, {"image": "i:1", "args": ["more"]}):
        other["spec"]["template"]["spec"]["containers"] = [change]
        assert content_of(one) != content_of(other)
    noted = users_job()
    noted["spec"]["template"]["metadata"]["annotations"] = {"commit": "3f1c2aa"}
    assert content_of(noted) != content_of(one)


def test_what_has_run_is_read_as_it_was_written():
    ledger = Ledger("flyway", ("1", "2"), ("3",))
    before = schema(Ledger("flyway", ("1",)), album="id", gone="id", same="id")
    done = record(finished(before=before), schema(ledger, album="id, title", new="id", same="id"), None)
    assert read_migrated(claim(done)) == done
    assert done.changes == ("altered table album", "dropped table gone", "created table new")
    assert (done.tool, done.version_before, done.version_after, done.failed) == ("flyway", "1", "2", ("3",))
    assert done.schema_before != done.schema_after


def test_equal_definitions_have_equal_fingerprints():
    assert schema(a="1", b="2").fingerprint == schema(b="2", a="1").fingerprint
    assert schema(a="1", b="2").fingerprint != schema(a="2", b="1").fingerprint


def test_changes_are_counted_and_not_all_of_them_are_named():
    names = {f"t{number:03}": "id" for number in range(MAX_CHANGES + 7)}
    done = record(finished(), schema(**names, **{"x" * 300: "id"}), None)
    assert done.changes is not None
    assert (len(done.changes), done.change_count) == (MAX_CHANGES, MAX_CHANGES + 8)
    [long] = record(finished(), schema(**{"x" * 300: "id"}), None).changes or ()
    assert len(long) <= 256


def test_a_schema_that_is_too_large_for_the_job_is_told_by_its_fingerprint_alone():
    before = schema(**{definition(str(number)): str(number) for number in range(20_000)})
    assert before.pack() is None
    done = record(finished(before=before), schema(), None)
    assert (done.changes, done.change_count) == (None, None)
    assert done.schema_before == before.fingerprint
    assert read_migrated(claim(done)) == done


def test_a_schema_of_a_thousand_tables_is_not_too_large():
    packed = schema(**{f"some_table_with_a_name_{number}": str(number) for number in range(2_000)}).pack()
    assert packed is not None
    assert len(packed) < MAX_PACKED


def test_what_has_run_before_is_known_for_long_but_not_for_ever():
    done = None
    for number in range(MAX_RAN + 3):
        done = record(finished(str(number)), schema(), done)
    assert done is not None
    assert done.ran == tuple(str(number) for number in range(3, MAX_RAN + 3))
    again = record(finished("10"), schema(), done)
    assert again.ran.count("10") == 1
    assert again.ran[-1] == "10"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "nonsense", '{"content": "a"}', '{"startedAt": 3}'])
def test_marks_of_others_are_none(text):
    assert read_migrated({"metadata": {"annotations": {labels.MIGRATED: text}}}) is None
    assert read_attempt({"metadata": {"annotations": {labels.MIGRATION: text}}}) is None


@pytest.mark.parametrize("packed", ["", "nonsense", "!!", "W10="])
def test_a_packed_schema_of_others_is_not_compared_with(packed):
    assert record(finished(**{labels.SCHEMA: packed}), schema(album="id"), None).changes is None


def test_an_attempt_is_read_as_it_was_written():
    attempt, before = attempt_of(before=schema(album="id"))
    assert read_attempt({"metadata": {"annotations": attempt.annotations(before)}}) == attempt
