"""What the API server says, in words that name the object and the next step."""

from __future__ import annotations

import pytest

from coppice.cli.problems import explain
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    TransientError,
)

DENIED = (
    'POST /apis/coppice.dev/v1alpha1/namespaces/data/{resource}: {resource}.coppice.dev is forbidden: User "ann" cannot '
    '{verb} resource "{resource}" in API group "coppice.dev" in the namespace "data"'
)


@pytest.mark.parametrize(
    ("verb", "resource", "role"),
    [
        ("create", "dataclones", "edit"),
        ("list", "dataclones", "view"),
        ("create", "datasnapshots", "coppice-store-admin"),
        ("patch", "datagrants", "coppice-grant-admin"),
        ("create", "datachangerequests", "coppice-author"),
        ("patch", "datareviews", "coppice-reviewer"),
        ("get", "datastores", "view"),
    ],
)
def test_a_verb_that_one_lacks_is_named_with_a_role_that_has_it(verb, resource, role):
    said = explain(ForbiddenError(DENIED.format(verb=verb, resource=resource), status=403))
    assert said == (
        f"ann may not {verb} {resource}.coppice.dev in namespace data: ask for a role there that has this verb, for "
        f"example {role}"
    )


def test_a_verb_on_all_namespaces_and_one_of_the_core_group_are_named():
    said = explain(
        ForbiddenError('secrets is forbidden: User "ann" cannot list resource "secrets" in API group "" at the cluster')
    )
    assert said.startswith("ann may not list secrets in all namespaces")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ForbiddenError("POST /x: exceeded quota: clones"), "the API server does not allow it: exceeded quota: clones"),
        (
            AlreadyExistsError('POST /x: dataclones "db" already exists'),
            'dataclones "db" already exists: choose another',
        ),
        (ConflictError("PATCH /x: uid mismatch"), "uid mismatch: somebody else has changed or replaced it"),
        (InvalidError("POST /x: spec: too long"), "the API server refuses it: spec: too long"),
        (NotFoundError("GET /x: 404 page not found"), "this cluster has no Coppice of this version"),
        (
            NotFoundError('POST /x: namespaces "b" not found', reason="NotFound"),
            "create the namespace, or name another",
        ),
        (NotFoundError('GET /x: pods "b" not found', reason="NotFound"), 'pods "b" not found'),
        (TransientError("GET /x: Unauthorized", status=401), "does not accept your credentials: log in"),
        (TransientError("GET /x: refused"), "the API server does not answer"),
        (KubeError("something else"), "something else"),
    ],
)
def test_every_answer_has_words(error, said):
    assert said in explain(error)
    assert not explain(error).startswith(("GET", "POST", "PATCH"))
