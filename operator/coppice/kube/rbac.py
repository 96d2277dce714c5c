"""What the operator may do, as RBAC rules: the table of resources and what is beside it, without a wildcard."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from coppice.kube.resources import RESOURCES, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

Rule = dict[str, list[str]]

_OWN_GROUP: Final = "coppice.dev"

_BESIDE_THE_TABLE: Final = (
    Resource("", "v1", "pods/log", ("get",)),
    # kopf notices a kind whose definition comes later by watching these.
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", ("get", "list", "watch"), namespaced=False),
)


def rules_of(resources: Iterable[Resource]) -> list[Rule]:
    """Return the rules for these resources: sorted, plurals with equal verbs (and names) in one rule."""
    plurals: dict[tuple[str, tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for resource in resources:
        plurals[resource.group, tuple(sorted(resource.verbs)), resource.names].add(resource.plural)
    return [
        {"apiGroups": [group], "resources": sorted(kinds), "verbs": list(verbs), **_only(names)}
        for (group, verbs, names), kinds in sorted(plurals.items(), key=lambda item: (item[0][0], sorted(item[1])))
    ]


def _only(names: tuple[str, ...]) -> Rule:
    return {"resourceNames": list(names)} if names else {}


def cluster_rules() -> list[Rule]:
    """Return what the operator needs in all namespaces."""
    own = [resource for resource in RESOURCES.values() if resource.group == _OWN_GROUP]
    return rules_of(
        [
            *(resource for resource in RESOURCES.values() if not _is_lease(resource)),
            *_BESIDE_THE_TABLE,
            *(Resource(_OWN_GROUP, kind.version, f"{kind.plural}/status", ("patch",)) for kind in own),
            # For blockOwnerDeletion where the cluster enforces it (OwnerReferencesPermissionEnforcement).
            *(Resource(_OWN_GROUP, kind.version, f"{kind.plural}/finalizers", ("update",)) for kind in own),
        ]
    )


def namespace_rules() -> list[Rule]:
    """Return what the operator needs in its own namespace only: its lease."""
    return rules_of(resource for resource in RESOURCES.values() if _is_lease(resource))


def _is_lease(resource: Resource) -> bool:
    return resource.plural == "leases"
