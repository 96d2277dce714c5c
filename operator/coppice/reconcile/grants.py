"""Whether a namespace may have something of a store, and on which terms. Pure.

Inside the store's own namespace nothing is needed: who works there owns the data. Elsewhere a DataGrant in the
store's namespace must say so; several add up, and the first one by name that allows what is asked counts. One that is
for repositories allows it to clones of their pull requests alone (``coppice.reconcile.belief``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from coppice.api.v1alpha1 import NEVER, DataGrant, DataKind, LabelSelector, MaxClones, Verb
from coppice.api.v1alpha1.datagrant import GrantTo, SelectorOperator, SelectorRequirement
from coppice.core.durations import parse_duration
from coppice.core.plan import Manifest
from coppice.core.pullrequests import PullRequestKey
from coppice.reconcile.belief import FORGE_UNAVAILABLE, Alleged, Refusal, Speaker, believed, judge_alleged
from coppice.reconcile.observed import is_deleting


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what: a namespace with its labels, a verb, and a store by name.

    ``alleged``: what the clone that is meant says of its pull request. ``settled``: it is gone, and what is left of it
    was judged while it was there.
    """

    namespace: str
    namespace_labels: Mapping[str, str]
    store: str
    verb: Verb
    alleged: Alleged | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What is allowed. ``grant`` is the DataGrant's name, None inside the store's own namespace; ``longest`` is None
    for no limit. ``speaks_for``: the pull request of the clone, where its repository and number are believed.
    """

    grant: str | None
    raw: bool
    longest: timedelta | None
    max_clones: MaxClones
    speaks_for: PullRequestKey | None = None


OWN_NAMESPACE = Terms(grant=None, raw=True, longest=None, max_clones=MaxClones())


_NEARNESS = ("PullRequestRequired", "RepositoryNotGranted", "PullRequestMismatch", "ForkNotGranted", FORGE_UNAVAILABLE)
"""Of several grants that do not give it the one that comes nearest says why."""


def find_terms(grants: Sequence[Manifest], request: Request) -> Terms | Refusal | None:
    """Return the terms under which the request is allowed, or why not; None where no grant means it at all."""
    refusals = []
    for manifest in sorted(grants, key=lambda entry: str(entry["metadata"]["name"])):
        grant = DataGrant.parse(manifest)
        if isinstance(grant, DataGrant) and not is_deleting(manifest) and _allows(grant, request):
            refusal = _doubt(grant, request)
            if refusal is None:
                return _terms(grant, request)
            refusals.append(replace(refusal, speaks_for=_speaks_for(grant, request)))
    return max(refusals, key=lambda refusal: _NEARNESS.index(refusal.reason), default=None)


def _doubt(grant: DataGrant, request: Request) -> Refusal | None:
    """Return why the request is not of a pull request that the grant is for."""
    repositories = grant.spec.repositories
    if repositories is None or request.settled:
        return None
    return judge_alleged(request.alleged, _speaker(grant, request), repositories, forks=grant.spec.forks)


def _speaker(grant: DataGrant, request: Request) -> Speaker:
    return Speaker(request.namespace, request.namespace_labels, grant.metadata.name, grant.metadata.namespace)


def _terms(grant: DataGrant, request: Request) -> Terms:
    spec = grant.spec
    return Terms(
        grant=grant.metadata.name,
        raw=spec.data is DataKind.RAW,
        longest=None if spec.max_lease == NEVER else parse_duration(spec.max_lease),
        max_clones=spec.max_clones,
        speaks_for=_speaks_for(grant, request),
    )


def _speaks_for(grant: DataGrant, request: Request) -> PullRequestKey | None:
    return believed(request.alleged, _speaker(grant, request), grant.spec.repositories or ())


def _allows(grant: DataGrant, request: Request) -> bool:
    spec = grant.spec
    return spec.store == request.store and request.verb in spec.verbs and selects(spec.to, request)


def selects(to: GrantTo, request: Request) -> bool:
    """Return whether a grant's ``to`` means the namespace of the request."""
    if to.namespaces is not None:
        return request.namespace in to.namespaces
    if to.namespace_selector is not None:
        return matches(to.namespace_selector, request.namespace_labels)
    return False


def matches(selector: LabelSelector, found: Mapping[str, str]) -> bool:
    """Return whether labels meet a selector; an empty one, which the CRD forbids, selects nothing."""
    if not selector.match_labels and not selector.match_expressions:
        return False
    by_value = all(found.get(key) == value for key, value in selector.match_labels.items())
    return by_value and all(_meets(requirement, found) for requirement in selector.match_expressions)


def _meets(requirement: SelectorRequirement, found: Mapping[str, str]) -> bool:
    value = found.get(requirement.key)
    match requirement.operator:
        case SelectorOperator.IN:
            return value in requirement.values
        case SelectorOperator.NOT_IN:
            return value not in requirement.values
        case SelectorOperator.EXISTS:
            return value is not None
        case SelectorOperator.DOES_NOT_EXIST:
            return value is None
