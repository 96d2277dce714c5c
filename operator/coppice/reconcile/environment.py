"""What the administrator has set for all objects: which engines there are, which images run them, and the defaults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from coppice.core.pullrequests import Forges, NoForges
from coppice.engines.base import Engine
from coppice.manifests.pod import Resources


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings as plan functions see them.

    ``images``: by engine, then by the version as users write it. ``server`` is what a server gets where neither store
    nor profile says.
    ``idle`` and ``longest`` are the lease of a clone that asks for none; ``undo`` is how long a replaced copy is kept,
    ``sleep`` after how long without activity a server is stopped, ``warning`` how long before its end that is said of a
    lease.
    ``service_account`` is who the operator is in its namespace.
    ``most`` is what a profile may give a clone, by resource; one that is not in it, or empty, has no bound.
    ``forges`` is what the forges have told of pull requests.
    ``tls_image`` is what takes TLS before a server that has none; None where the administrator offers no such image.
    ``reaches`` tells whether a packet to a port gets to a host; None when it cannot tell.
    """

    engines: Mapping[str, Engine]
    images: Mapping[str, Mapping[str, str]]
    operator_namespace: str
    server: Resources
    idle: timedelta
    longest: timedelta
    undo: timedelta
    reaches: Callable[[str, int], Awaitable[bool | None]]
    sleep: timedelta = timedelta(minutes=30)
    warning: timedelta = timedelta(hours=1)
    most: Mapping[str, str] = field(default_factory=dict)
    forges: Forges = field(default_factory=NoForges)
    service_account: str = "coppice"
    tls_image: str | None = None

    @property
    def user(self) -> str:
        """Return the name by which the API server knows the operator."""
        return f"system:serviceaccount:{self.operator_namespace}:{self.service_account}"

    def image(self, engine: str, version: str) -> str | None:
        """Return the image for an engine's version, or None if the administrator offers none."""
        return self.images.get(engine, {}).get(version)

    def offered(self, engine: str, running: str) -> str | None:
        """Return the version whose image runs what a server of version ``running`` wrote: the longest one offered that
        this begins with, part by part (15 for 15.18, but not for 150.1); None if there is none.
        """
        word = running.partition(" ")[0]
        fitting = (version for version in self.images.get(engine, {}) if f"{word}.".startswith(f"{version}."))
        return max(fitting, key=len, default=None)
