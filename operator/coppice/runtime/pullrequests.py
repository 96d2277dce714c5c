"""Which DataClones are for which pull request, and what is told of that: names to wake, and numbers to watch.

A forge's news are of a pull request; who has to look again are the clones that name it. Kubernetes has no index of
them, and their reconciler reads the forge's word from memory: so each is filed here, before it is looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from coppice.api.v1alpha1 import PullRequestRef
from coppice.core.pullrequests import PullRequestKey

if TYPE_CHECKING:
    from coppice.core.key import Key
    from coppice.core.plan import Manifest
    from coppice.core.pullrequests import Forges
    from coppice.forges.book import Book
    from coppice.runtime.metrics import Metrics

NO_ANSWER: Final = "none"
DRY_RUN: Final = ("false", "true")


class PullRequestClones:
    """Files each DataClone under its pull request, and counts those that are closed and have not ended."""

    KIND = "DataClone"

    def __init__(self, metrics: Metrics, forges: Forges) -> None:
        self._metrics = metrics
        self._forges = forges
        self._keys: dict[Key, PullRequestKey] = {}
        self._filed: defaultdict[PullRequestKey, set[Key]] = defaultdict(set)
        self._outliving: dict[Key, str] = {}
        for word in DRY_RUN:
            metrics.closed_clones.labels(word).set(0)

    def of(self, key: PullRequestKey) -> set[Key]:
        """Return the clones that are for a pull request."""
        return set(self._filed.get(key, ()))

    def seen(self, key: Key, manifest: Manifest) -> None:
        """File a clone as it is, and count it; any other object is let go by."""
        if key.kind != self.KIND:
            return
        found = _key_of((manifest.get("spec") or {}).get("pullRequest"))
        if self._keys.get(key) != found:
            self._unfile(key)
            if found is not None:
                self._keys[key] = found
                self._filed[found].add(key)
        if found is None or not _outlives(manifest.get("status") or {}):
            self._count(key, None)
        else:
            terms = self._forges.terms(found.host)
            self._count(key, DRY_RUN[terms is not None and terms.dry_run])

    def gone(self, key: Key) -> None:
        """Forget a clone."""
        self._unfile(key)
        self._count(key, None)

    def listed(self, found: Mapping[Key, Manifest]) -> None:
        """Take in a list of all clones."""
        for key, manifest in found.items():
            self.seen(key, manifest)
        for key in [key for key in self._keys if key not in found]:
            self.gone(key)

    def _count(self, key: Key, dry_run: str | None) -> None:
        if self._outliving.get(key) == dry_run:
            return
        if dry_run is None:
            del self._outliving[key]
        else:
            self._outliving[key] = dry_run
        tally = Counter(self._outliving.values())
        for word in DRY_RUN:
            self._metrics.closed_clones.labels(word).set(tally[word])

    def _unfile(self, key: Key) -> None:
        found = self._keys.pop(key, None)
        if found is not None:
            self._filed[found].discard(key)
            if not self._filed[found]:
                del self._filed[found]


def count_answer(metrics: Metrics, host: str, status: int) -> None:
    """Count what a forge answered, by the class of the status; an unchanged answer is its own: GitHub counts none."""
    word = "304" if status == 304 else f"{status // 100}xx" if status else NO_ANSWER
    metrics.forge_requests.labels(host, word).inc()


def tell_forges(metrics: Metrics, forges: Book) -> None:
    """Set the gauges that are read off the book."""
    for host, desk in forges.desks.items():
        oldest, limit = desk.ledger.oldest(), desk.client.limit
        metrics.forge_oldest.labels(host).set(0 if oldest is None else oldest.timestamp())
        if limit.remaining is not None:
            metrics.forge_remaining.labels(host).set(limit.remaining)


def _key_of(said: Any) -> PullRequestKey | None:
    """Return the pull request that an object names, however it is written; None where it names none that can be one."""
    try:
        return PullRequestKey.named_by(PullRequestRef.model_validate(said))
    except ValueError:
        return None


def _outlives(status: Mapping[str, Any]) -> bool:
    """Return whether a clone has data though its pull request is closed."""
    told = status.get("pullRequest") or {}
    if told.get("state") != "Closed" or told.get("endedAt"):
        return False
    return not any(
        entry["type"] == "Ready" and entry["reason"] == "Expired" for entry in status.get("conditions") or ()
    )
