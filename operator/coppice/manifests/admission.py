"""Admission policies that tie authors and reviewers to whoever the API server knows them for.

The rules of review are about people, and an object's author can write any name into it. The API server alone knows who
asks, and only while it answers: these policies have it refuse every other name (ADR 21). They are part of the chart,
and the operator counts no review while they are not in the cluster exactly as they are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

GROUP: Final = "coppice.dev"
API_GROUP: Final = "admissionregistration.k8s.io"
API_VERSION: Final = f"{API_GROUP}/v1"
POLICY: Final = "ValidatingAdmissionPolicy"
BINDING: Final = "ValidatingAdmissionPolicyBinding"
REQUESTS: Final = f"datachangerequests.{GROUP}"
REVIEWS: Final = f"datareviews.{GROUP}"

MAINTAIN: Final = "publish"
"""A verb of RBAC that is no operation of the API server: who has it on DataChangeRequests maintains those of others."""

_ME: Final = "request.userInfo.username"
_CREATES: Final = "request.operation == 'CREATE'"
_DELETES: Final = "request.operation == 'DELETE'"
_UPDATES: Final = "request.operation == 'UPDATE'"

_CONTROLLERS: Final = (
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:kube-controller-manager",
)
"""Who empties a deleted namespace and removes what has lost its owner; the last where all controllers are one user."""

_VARIABLES: Final[Mapping[str, str]] = {
    "sweeps": f"{_ME} in [{', '.join(repr(name) for name in _CONTROLLERS)}]",
    # What has lost its owner is removed: whoever may change owners may remove.
    "same": f"{_UPDATES} && object.spec == oldObject.spec && (variables.sweeps || "
    "(has(object.metadata.ownerReferences) ? object.metadata.ownerReferences : []) == "
    "(has(oldObject.metadata.ownerReferences) ? oldObject.metadata.ownerReferences : []))",
}
# Of what is there: a deletion of all has no name.
_MAINTAINS: Final = (
    f"authorizer.group('{GROUP}').resource('datachangerequests').namespace(request.namespace).name(oldObject.metadata.name)"
    f".check('{MAINTAIN}').allowed()"
)

_CLONE: Final = "object.spec.from.clone"
_UPDATES_CLONE: Final = (
    f"authorizer.group('{GROUP}').resource('dataclones')"
    f".namespace(has({_CLONE}.namespace) ? {_CLONE}.namespace : request.namespace).name({_CLONE}.name)"
    ".check('update').allowed()"
)
"""Whose right it is to write to a clone: what they left there uncommitted is committed for whoever proposes it."""


def build_policies() -> list[dict[str, Any]]:
    """Return the policies and their bindings: cluster-wide objects, whose names are the same in every cluster."""
    return [
        *_enforced(REQUESTS, {**_VARIABLES, "maintains": _MAINTAINS}, _REQUEST_RULES),
        *_enforced(REVIEWS, _VARIABLES, _REVIEW_RULES),
    ]


def _rule(expression: str, message: str) -> dict[str, Any]:
    return {"expression": expression, "message": message, "reason": "Forbidden"}


def _own_name(expression: str, field: str) -> dict[str, Any]:
    message = f"{field} must be your own user name"
    return {**_rule(expression, message), "messageExpression": f"'{message}, ' + {_ME}"}


_REQUEST_RULES: Final = (
    _own_name(f"!({_CREATES}) || object.spec.author == {_ME}", "spec.author"),
    _rule(
        f"!({_CREATES}) || !has({_CLONE}) || {_UPDATES_CLONE}",
        "a clone is proposed by whoever may update it: ask for the role edit in the namespace of the DataClone",
    ),
    _rule(
        f"!({_UPDATES}) || object.spec.author == oldObject.spec.author",
        "spec.author is immutable: make another DataChangeRequest",
    ),
    _rule(
        f"{_CREATES} || variables.same || oldObject.spec.author == {_ME} || variables.maintains "
        f"|| ({_DELETES} && variables.sweeps)",
        "only its author and whoever may publish (a maintainer) change or delete a DataChangeRequest",
    ),
    _rule(
        f"!({_UPDATES}) || oldObject.spec.merge == object.spec.merge || object.spec.merge == 'Manual' "
        "|| variables.maintains",
        "only whoever may publish (a maintainer) sets spec.merge to WhenApproved where it was Manual",
    ),
    _rule(
        f"!({_UPDATES}) || !has(oldObject.spec.notBefore) || (has(object.spec.notBefore) "
        "&& timestamp(object.spec.notBefore) >= timestamp(oldObject.spec.notBefore)) || variables.maintains",
        "only whoever may publish (a maintainer) takes spec.notBefore away or sets an earlier time",
    ),
)

_REVIEW_RULES: Final = (
    _rule(
        f"{_CREATES} || variables.same || oldObject.spec.reviewer == {_ME} || ({_DELETES} && variables.sweeps)",
        "nobody changes or removes a review of somebody else: make one of your own",
    ),
    _own_name(f"{_DELETES} || variables.same || object.spec.reviewer == {_ME}", "spec.reviewer"),
    _rule(
        f"{_DELETES} || variables.same || !({_ME}.startsWith('system:serviceaccount:') || {_ME} == 'system:anonymous')",
        "people review, no service accounts: use a login of your own",
    ),
    _rule(
        f"{_DELETES} || variables.same || !has(object.spec.groups) "
        "|| object.spec.groups.all(group, group in request.userInfo.groups)",
        "spec.groups names groups that you are in, as kubectl auth whoami prints them",
    ),
)


def _enforced(name: str, variables: Mapping[str, str], rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a policy on all writes of a kind and the binding that has it refuse, in every namespace."""
    matched = {
        "apiGroups": [GROUP],
        "apiVersions": ["v1alpha1"],
        "resources": [name.partition(".")[0]],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "scope": "Namespaced",
    }
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [matched]},
        "variables": [{"name": key, "expression": expression} for key, expression in variables.items()],
        "validations": [dict(rule) for rule in rules],
    }
    return [
        {"apiVersion": API_VERSION, "kind": POLICY, "metadata": {"name": name}, "spec": policy},
        {
            "apiVersion": API_VERSION,
            "kind": BINDING,
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
