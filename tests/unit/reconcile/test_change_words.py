"""What a request's resolutions and title become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.api.v1alpha1 import DataChangeRequest, Resolution
from coppice.engines.merging import Decision, Signature
from coppice.reconcile.changerequest.message import commit_message
from coppice.reconcile.changerequest.resolutions import decisions_of, digest_of

ID, OTHER = "0123456789abcdef", "fedcba9876543210"


def resolved(**entry):
    return Resolution.model_validate({"take": "Source", **entry})


def request(**spec):
    values = {"title": "Autumn prices", "store": {"name": "shop"}, "author": "ann", "from": {"branch": "autumn"}}
    return DataChangeRequest.model_validate(
        {
            "kind": "DataChangeRequest",
            "metadata": {"name": "prices", "namespace": "data"},
            "spec": {**values, "into": {"branch": "main"}, **spec},
        }
    )


def test_resolutions_are_decisions():
    assert decisions_of([resolved(conflict=ID), resolved(take="Target")]) == (
        Decision(take="Source", conflict=ID),
        Decision(take="Target"),
    )


def test_the_digest_is_of_what_is_decided_and_not_of_the_order():
    one, other = resolved(conflict=ID), resolved(table="album", take="Target")
    assert digest_of([one, other]) == digest_of([other, one])
    assert len({digest_of(each) for each in ([], [one], [other], [one, other], [resolved(row=ID)])}) == 5
    assert digest_of([one]) != digest_of([resolved(conflict=OTHER)])
    assert digest_of([one]) != digest_of([resolved(conflict=ID, take="Target")])


def test_of_two_that_contradict_each_other_the_first_holds():
    source, target = resolved(conflict=ID), resolved(conflict=ID, take="Target")
    assert digest_of([source, target]) == digest_of([source]) != digest_of([target, source])


def test_the_commit_names_author_reviewers_and_request():
    assert commit_message(request(description="As agreed."), ["dan", "bea"]) == (
        "Autumn prices\n\nAs agreed.\n\n"
        "Proposed-by: ann\nReviewed-by: bea\nReviewed-by: dan\nCoppice-Request: data/prices"
    )
    assert commit_message(request(), []) == "Autumn prices\n\nProposed-by: ann\nCoppice-Request: data/prices"


@given(st.text(max_size=200))
def test_no_description_passes_for_a_trailer(description):
    last = commit_message(request(description=f"{description}\nReviewed-by: eve"), ["bea"]).splitlines()
    assert [line for line in last if line.startswith("Reviewed-by:")] == ["Reviewed-by: bea"]
    assert last[-3:] == ["Proposed-by: ann", "Reviewed-by: bea", "Coppice-Request: data/prices"]


@pytest.mark.parametrize(
    ("author", "name", "email"),
    [
        ("ann", "ann", "ann@users.coppice.invalid"),
        ("ann@example.com", "ann@example.com", "ann@example.com"),
        (
            "system:serviceaccount:ci:bot",
            "system:serviceaccount:ci:bot",
            "system-serviceaccount-ci-bot@users.coppice.invalid",
        ),
        ("ann <root@shop>\nx", "ann root@shop x", "ann-root-shop-x@users.coppice.invalid"),
    ],
)
def test_the_author_of_the_commit_is_whoever_proposed_it(author, name, email):
    assert (Signature.of(author).name, Signature.of(author).email) == (name, email)
