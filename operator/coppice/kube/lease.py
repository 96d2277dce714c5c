"""Who leads: a coordination Lease that one replica holds, in the manner of client-go's leaderelection package.

Another replica's clock is never compared with ours: a lease counts as expired when *we* have seen no change of it for
its duration. The holder gives up before that (``renew_deadline`` < ``duration``), so two replicas never lead at once
unless a process is frozen in between; then apply with UIDs and deterministic names keep the overlap harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from coppice.kube.errors import AlreadyExistsError, ConflictError, KubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.core.plan import Manifest

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Somebody else leads, or the lease could not be renewed in time: the process must end at once."""


class LeaseClient(Protocol):
    """The part of the client a lease needs: optimistic replacement, not apply, decides a race."""

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return the object or None."""
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create the object."""
        ...

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object if its resourceVersion is still the one given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Seconds a lease lasts unrenewed, a holder tries before it gives up, and anybody waits between two tries."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class Lease:
    """One replica's side of a lease."""

    def __init__(
        self,
        client: LeaseClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        terms: LeaseTerms | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._terms = terms or LeaseTerms()
        self._clock = clock
        self._seen: Any = None
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._try():  # noqa: ASYNC110 - what is waited for is on another machine
            await asyncio.sleep(self._terms.retry * random.uniform(1.0, 1.2))  # noqa: S311 - no secret
        logger.info("leading", extra={"lease": self._name, "identity": self._identity})

    async def hold(self) -> None:
        """Renew for as long as this replica leads; ends only with LeaseLostError."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while True:
            await asyncio.sleep(self._terms.retry)
            started = loop.time()
            if await self._try_until(renewed_at + self._terms.renew_deadline):
                renewed_at = started
            elif self._held_by_other():
                raise LeaseLostError(f"lease {self._name} is held by {self._seen['holderIdentity']}")

    async def _try_until(self, deadline: float) -> bool:
        """Try once; raises LeaseLostError when there is no answer before the deadline, or it has passed."""
        try:
            if asyncio.get_running_loop().time() < deadline:
                async with asyncio.timeout_at(deadline):
                    return await self._try()
        except TimeoutError:
            pass
        raise LeaseLostError(f"lease {self._name} was not renewed within {self._terms.renew_deadline:g} s")

    async def release(self) -> None:
        """Let go, so that another replica need not wait for the lease to expire; never raises."""
        with suppress(KubeError, TimeoutError):
            async with asyncio.timeout(self._terms.retry):
                found = await self._client.get("Lease", self._name, self._namespace)
                if found is not None and found["spec"].get("holderIdentity") == self._identity:
                    spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.replace({**found, "spec": spec})

    async def _try(self) -> bool:
        """Take or renew the lease if it is free, expired or ours; False if it is not, or if the API server fails."""
        try:
            found = await self._client.get("Lease", self._name, self._namespace)
            if found is None:
                self._observe((await self._client.create(self._manifest({}, transitions=0)))["spec"])
                return True
            spec = found.get("spec") or {}
            self._observe(spec)
            holder = spec.get("holderIdentity")
            if holder and holder != self._identity and not self._expired(spec):
                return False
            transitions = spec.get("leaseTransitions", 0) + (holder != self._identity)
            acquired = spec.get("acquireTime") if holder == self._identity else None
            ours = self._manifest(found, transitions=transitions, acquired=acquired)
            self._observe((await self._client.replace(ours))["spec"])
        except (AlreadyExistsError, ConflictError):
            return False
        except KubeError as error:
            logger.warning("cannot update lease %s: %s", self._name, error)
            return False
        return True

    def _observe(self, spec: Any) -> None:
        if spec != self._seen:
            self._seen, self._seen_at = spec, asyncio.get_running_loop().time()

    def _expired(self, spec: Any) -> bool:
        # The holder's own duration counts: it may run with other terms than we do.
        duration = spec.get("leaseDurationSeconds") or self._terms.duration
        return asyncio.get_running_loop().time() >= self._seen_at + float(duration)

    def _held_by_other(self) -> bool:
        return bool(self._seen) and self._seen.get("holderIdentity") not in {None, "", self._identity}

    def _manifest(self, found: Manifest, *, transitions: int, acquired: str | None = None) -> dict[str, Any]:
        now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = found.get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._terms.duration)),
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
