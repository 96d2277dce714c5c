"""How many clones live by each grant: counted for all grants at once, and now and then.

A count for each grant at each event of a clone would cost the product of their numbers; so a grant is not woken by
clones, and its figure may be a while old.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import ValidationError

from coppice.api.v1alpha1 import PullRequestRef, Verb
from coppice.core.plan import Manifest
from coppice.core.pullrequests import Forges
from coppice.kube.client import KubeReader
from coppice.reconcile.belief import look_up
from coppice.reconcile.clone.queue import has_data, is_guest, store_of
from coppice.reconcile.grants import Request, Terms, find_terms
from coppice.reconcile.observed import is_deleting

PERIOD = timedelta(seconds=60)
"""For how long a count is good enough."""

Grant = tuple[str, str]
"""Namespace and name."""


@dataclass(slots=True)
class Census:
    """The last count, shared by all grants."""

    _taken_at: datetime | None = None
    _counts: Mapping[Grant, int] = field(default_factory=dict)
    _counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def clones_by(self, reader: KubeReader, forges: Forges, grant: Grant, now: datetime) -> int:
        """Return how many clones live by a grant, as of at most ``PERIOD`` ago; a grant that is new is counted now."""
        async with self._counting:
            if self._taken_at is None or now - self._taken_at >= PERIOD or grant not in self._counts:
                clones, namespaces, grants = await asyncio.gather(
                    reader.survey("DataClone"), reader.survey("Namespace"), reader.survey("DataGrant")
                )
                self._counts = count_clones(clones, namespaces, grants, forges)
                self._taken_at = now
            return self._counts.get(grant, 0)


def count_clones(
    clones: Sequence[Manifest], namespaces: Sequence[Manifest], grants: Sequence[Manifest], forges: Forges
) -> dict[Grant, int]:
    """Return for every grant the clones that have data by it: each counts for the grant that allows it now."""
    labels_of = {str(entry["metadata"]["name"]): entry["metadata"].get("labels") or {} for entry in namespaces}
    grants_of = defaultdict(list)
    for entry in grants:
        grants_of[str(entry["metadata"]["namespace"]), str(entry["spec"]["store"])].append(entry)
    guests = Counter(
        (store_of(entry), str(entry["metadata"]["namespace"]), _said_by(entry))
        for entry in clones
        if is_guest(entry) and has_data(entry) and not is_deleting(entry)
    )
    counts = {(str(entry["metadata"]["namespace"]), str(entry["metadata"]["name"])): 0 for entry in grants}
    for ((where, store), namespace, said), number in guests.items():
        alleged = look_up(said, forges)
        request = Request(namespace, labels_of.get(namespace, {}), store, Verb.CLONE, alleged)
        terms = find_terms(grants_of[where, store], request)
        if isinstance(terms, Terms) and terms.grant is not None:
            counts[where, terms.grant] += number
    return counts


def _said_by(entry: Manifest) -> PullRequestRef | None:
    """Return the pull request that a clone says it is for, if it says so in words that are understood."""
    said = entry["spec"].get("pullRequest")
    try:
        return None if said is None else PullRequestRef.model_validate(said)
    except ValidationError:
        return None
