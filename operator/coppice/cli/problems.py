"""What a person reads when a command cannot do what it was asked: the object, and the next step. Pure.

Exit codes: 1 what was asked for cannot be had, 2 the command was used wrongly (click's own), 3 waited in vain.
"""

from __future__ import annotations

import re
from typing import Final

import click

from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    TransientError,
)

REFUSED: Final = 1
IN_VAIN: Final = 3

_REQUEST: Final = re.compile(r"^(GET|POST|PATCH|PUT|DELETE) \S+: ")
"""What ``coppice.kube`` writes before the words of the API server."""
_DENIED: Final = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
"""The words of Kubernetes' authorizer (k8s.io/apiserver, pkg/endpoints/handlers/responsewriters/errors.go)."""
_READ: Final = frozenset({"get", "list", "watch"})
_OWNERS: Final = {"datastores": "coppice-store-admin", "datasnapshots": "coppice-store-admin"} | {
    "databranches": "coppice-store-admin",
    "datagrants": "coppice-grant-admin",
    "datachangerequests": "coppice-author",
    "datareviews": "coppice-reviewer",
}


class Failure(click.ClickException):
    """What was asked for cannot be had; the message says why, and what to do."""

    exit_code = REFUSED


class InVain(Failure):
    """It is still on its way, and nobody waits any more: what is waited for, and what becomes of it."""

    exit_code = IN_VAIN

    def __init__(self, what: str, then: str) -> None:
        super().__init__(f"{what}. {then}")
        self.what = what


def explain(error: KubeError) -> str:
    """Return what the API server's answer means to the person who asked."""
    said = _REQUEST.sub("", str(error))
    match error:
        case NotFoundError() if error.reason != "NotFound":
            return (
                "this cluster has no Coppice of this version (its API has no such kind): install it, or name another "
                f"cluster with --context. {said}"
            )
        case NotFoundError() if said.startswith("namespaces "):
            return f"{said}: create the namespace, or name another one with --namespace"
        case ForbiddenError():
            return _denied(said)
        case AlreadyExistsError():
            return f"{said}: choose another name"
        case ConflictError():
            return f"{said}: somebody else has changed or replaced it meanwhile. Look at it, and ask again"
        case TransientError() if error.status == 401:
            return f"the cluster does not accept your credentials: log in to it again. {said}"
        case TransientError():
            return (
                "the API server does not answer: see that it can be reached, or name another cluster with --context. "
                f"{error}"
            )
        case InvalidError():
            return f"the API server refuses it: {said}"
        case _:
            return said


def _denied(said: str) -> str:
    found = _DENIED.search(said)
    if found is None:
        return f"the API server does not allow it: {said}"
    group, resource, verb = found["group"], found["resource"], found["verb"]
    what = f"{resource}.{group}" if group else resource
    where = f"in namespace {found['namespace']}" if found["namespace"] else "in all namespaces"
    return (
        f"{found['user']} may not {verb} {what} {where}: ask for a role there that has this verb, for example "
        f"{_role(resource, verb)}"
    )


def _role(resource: str, verb: str) -> str:
    """Return a role that has a verb: those that the chart has or adds to."""
    if resource in _OWNERS and verb not in _READ:
        return _OWNERS[resource]
    return "view" if resource.startswith("data") and verb in _READ else "edit"
