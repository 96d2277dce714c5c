"""People who propose and review, and their DataChangeRequests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2e.harness.shell import CommandError
from e2e.suite.kube import TIMEOUT
from e2e.suite.manifests import resource

if TYPE_CHECKING:
    from e2e.suite.data import Store
    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

AUTHOR, REVIEWER = "ann@example.com", "bea@example.com"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as the API server knows them."""

    kube: Kube
    name: str
    groups: tuple[str, ...] = ()

    @property
    def _identity(self) -> tuple[str, ...]:
        return ("--as", self.name, *(word for group in self.groups for word in ("--as-group", group)))

    def apply(self, *manifests: Manifest) -> None:
        """Create objects. Raises CommandError."""
        self.kube.run("create", "-f", "-", *self._identity, stdin=self.kube.yaml(*manifests))

    def refused(self, *manifests: Manifest) -> str:
        """Create objects that must be refused; return the words."""
        return self.may_not("create", "-f", "-", stdin=self.kube.yaml(*manifests))

    def may_not(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl, which must be refused; return the words."""
        try:
            self.kube.run(*words, *self._identity, stdin=stdin)
        except CommandError as error:
            return str(error)
        raise AssertionError(f"{self.name} may {' '.join(words)}")


@dataclass(frozen=True, slots=True)
class Request:
    """A DataChangeRequest that is on its way."""

    kube: Kube
    store: Store
    name: str

    @property
    def status(self) -> dict[str, Any]:
        """Return its status."""
        return self.kube.status("dcr", self.name, self.store.namespace)

    def manifest(self, source: Manifest, *, author: str = AUTHOR, into: str = "main") -> Manifest:
        """Return the object as its author writes it."""
        values = {"title": "Autumn fruit", "store": {"name": self.store.name}, "author": author, "from": source}
        return resource("DataChangeRequest", self.name, self.store.namespace, {**values, "into": {"branch": into}})

    def review(self, person: str, verdict: str = "Approve", **spec: Any) -> Manifest:
        """Return a person's review of what would be published now."""
        values = {"request": self.name, "reviewer": person, "verdict": verdict, "patch": self.status["patch"]}
        name = f"{self.name}-{person.partition('@')[0]}"
        return resource("DataReview", name, self.store.namespace, {**values, "groups": ["data-owners"], **spec})

    def until(self, condition: str, value: str = "True") -> dict[str, Any]:
        """Wait for a condition; return the status."""
        where = ("-n", self.store.namespace)
        self.kube.run("wait", *where, f"--for=condition={condition}={value}", f"dcr/{self.name}", TIMEOUT)
        return self.status

    def until_reason(self, condition: str, reason: str) -> str:
        """Wait until a condition has a reason; return the message."""
        return str(self.kube.until_reason(reason, "dcr", self.name, self.store.namespace, condition)["message"])
