"""Every read is remembered, and only those of the last reconciliation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.kube import FakeKube

from coppice.core.key import Key
from coppice.runtime.dependencies import Dependencies

CLONE = Key("DataClone", "app", "db")
OTHER = Key("DataClone", "app", "other")
POD = Key("Pod", "app", "db-0")


@pytest.fixture
def dependencies():
    return Dependencies()


async def test_what_is_missing_wakes_its_reader_when_it_appears(dependencies):
    tracking = dependencies.track(FakeKube(), FakeKube(), CLONE)
    assert await tracking.get("Pod", "db-0", "app") is None
    tracking.commit()
    assert dependencies.readers_of(POD, {}) == {CLONE}
    assert dependencies.readers_of(POD._replace(namespace="elsewhere"), {}) == set()


@pytest.mark.parametrize(
    ("namespace", "labels", "event", "woken"),
    [
        ("app", {"a": "b"}, {"a": "b", "c": "d"}, True),
        ("app", {"a": "b", "c": "d"}, {"a": "b"}, False),
        (None, {"a": "b"}, {"a": "b"}, True),
        ("other", {"a": "b"}, {"a": "b"}, False),
        ("app", None, {}, True),
        (None, None, {"x": "y"}, True),
        ("app", {"a": "b"}, {"a": "other"}, False),
    ],
)
async def test_a_list_is_woken_by_what_would_be_in_it(dependencies, namespace, labels, event, woken):
    tracking = dependencies.track(FakeKube(), FakeKube(), CLONE)
    await tracking.list("Pod", namespace, labels)
    tracking.commit()
    assert dependencies.readers_of(POD, event) == ({CLONE} if woken else set())
    assert dependencies.readers_of(Key("Service", "app", "db-0"), event) == set()


async def test_a_survey_wakes_nobody(dependencies):
    tracking = dependencies.track(FakeKube(), FakeKube(), CLONE)
    assert await tracking.survey("Pod") == []
    tracking.commit()
    assert dependencies.readers_of(POD, {}) == set()


async def test_reads_count_from_the_moment_they_are_made_not_from_the_end(dependencies):
    """An event between the read and the end of the reconciliation must not be lost."""

    class Racing(FakeKube):
        async def get(self, *args, **kwargs):
            self.woken = dependencies.readers_of(POD, {})
            return await super().get(*args, **kwargs)

    kube = Racing()
    await dependencies.track(kube, kube, CLONE).get("Pod", "db-0", "app")
    assert kube.woken == {CLONE}


async def test_a_later_reconciliation_replaces_the_reads_of_the_earlier(dependencies):
    first = dependencies.track(FakeKube(), FakeKube(), CLONE)
    await first.get("Pod", "db-0", "app")
    await first.list("Pod", "app", {"a": "b"})
    first.commit()
    second = dependencies.track(FakeKube(), FakeKube(), CLONE)
    await second.get("Secret", "db", "app")
    second.commit()
    assert dependencies.readers_of(POD, {"a": "b"}) == set()
    assert len(dependencies) == 1


async def test_a_failed_reconciliation_keeps_the_earlier_reads(dependencies):
    first = dependencies.track(FakeKube(), FakeKube(), CLONE)
    await first.get("Pod", "db-0", "app")
    first.commit()
    await dependencies.track(FakeKube(), FakeKube(), CLONE).get("Secret", "db", "app")
    assert dependencies.readers_of(POD, {}) == {CLONE}


reads = st.one_of(
    st.tuples(st.sampled_from(["Pod", "Secret"]), st.sampled_from("ab"), st.sampled_from(["app", "other"])),
    st.tuples(
        st.just("list"),
        st.sampled_from([None, "app"]),
        st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2),
    ),
)


@given(st.lists(st.tuples(st.sampled_from([CLONE, OTHER]), st.lists(reads, max_size=4)), max_size=8))
def test_the_index_equals_a_search_through_all_reads_and_empties_without_rest(rounds):
    dependencies = Dependencies()
    expected = {}
    for key, made in rounds:
        tracking = dependencies.track(FakeKube(), FakeKube(), key)
        for read in made:
            coroutine = tracking.list("Pod", read[1], read[2]) if read[0] == "list" else tracking.get(*read)
            with pytest.raises(StopIteration):
                coroutine.send(None)
        tracking.commit()
        expected[key] = made
    for namespace in ("app", "other"):
        for labels in ({}, {"x": "1"}, {"x": "1", "y": "2"}):
            wanted = {
                key
                for key, made in expected.items()
                for read in made
                if read == ("Pod", "a", namespace)
                or (read[0] == "list" and read[1] in (None, namespace) and read[2].items() <= labels.items())
            }
            assert dependencies.readers_of(Key("Pod", namespace, "a"), labels) == wanted
    dependencies.forget(CLONE)
    dependencies.forget(OTHER)
    assert (dependencies._reads, dependencies._readers, dependencies._filed) == ({}, {}, {})
