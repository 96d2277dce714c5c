"""The certificate with which the server of a store or clone takes TLS, from a user's Secret.

The Secret is not Coppice's, so that no watch tells of it: it is read anew at every look. A certificate that is renewed
there gets to the proxy by itself; only with another authority is the Pod made anew, for clients know the proxy by that.

How a server is reached is how its Pod was made, not how it is asked for now: Service, NetworkPolicy and binding follow
the Pods that are there.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.engines.tls import proxy
from coppice.manifests.meta import is_owned
from coppice.manifests.pod import Proxy, tls_of
from coppice.manifests.secret import CA, is_meant_for
from coppice.reconcile.draft import Draft, Fact, stalls, waits

USABLE = "CertificateUsable"
"""A condition beside the chain, there only where a server goes on with a certificate that would not be had anew."""
KEYS: Final = ("tls.crt", "tls.key", CA)
LOOK_SECONDS: Final = 10.0
_TYPE: Final = "kubernetes.io/tls"
_BEGINNING: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Wish:
    """What asks for TLS: the Secret, the annotation in it by which it may be used, and the field that says so."""

    secret: str
    consent: str
    owner: str
    field: str


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS before the server of a store or clone: what asks for it, if anything does, and what there is for it."""

    engine: Engine
    wish: Wish | None
    secret: Manifest | None
    image: str | None

    def problem(self, kind: str) -> Fact | None:
        """Return why no server can be made that takes TLS as is asked for, or None."""
        wish = self.wish
        if wish is None:
            return None
        if self.engine.tls is None:
            message = f"engine {self.engine.name} takes no TLS by a proxy: leave {wish.field} out"
            return stalls(kind, "TLSUnsupported", message)
        if self.image is None:
            message = "the administrator offers no image that takes TLS (tls.image of the chart): have it set"
            return stalls(kind, "TLSNotOffered", message, retry_after=60)
        if self.secret is None:
            message = f"waits for Secret {wish.secret} with {', '.join(KEYS)}: create it in this namespace"
            return waits(kind, "CertificateNotFound", message, retry_after=LOOK_SECONDS)
        return _unusable(self.secret, wish, kind)

    def lacks(self, draft: Draft, pod: Manifest | None, kind: str) -> Fact | None:
        """Return why a server cannot have TLS as is asked for, or None; one that has it goes on, and it is said beside
        the chain what it would need to be made anew.
        """
        problem = self.problem(kind)
        if problem is None or pod is None:
            return problem
        if tls_of(pod) is None:
            return replace(problem, message=f"{problem.message}. Until then the server goes on without TLS")
        message = f"{problem.message}. The server goes on with what it was given, and is not made anew before"
        draft.asides.append(replace(problem, type=USABLE, message=message))
        return None

    @property
    def is_had(self) -> bool:
        """Return whether a server can be made as is asked for."""
        return self.problem(USABLE) is None

    @property
    def proxy(self) -> Proxy | None:
        """Return what takes TLS before a server that is made now; there is no problem."""
        if self.wish is None:
            return None
        if self.engine.tls is None or self.secret is None or self.image is None:
            raise TypeError("the chain goes on without a certificate")
        workload = proxy(port=self.engine.tls.port, server_port=self.engine.port)
        return Proxy(
            image=self.image, workload=workload, secret=self.secret["metadata"]["name"], ca=_text(self.secret, CA)
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return what tells such a server's Pod from one with other TLS; there is no problem."""
        found = self.proxy
        return () if found is None else (found.image, found.secret, found.ca)

    def port_of(self, pod: Manifest | None) -> int:
        """Return the port on which clients connect to a server; before there is one, to one as is asked for."""
        if pod is not None:
            found = tls_of(pod)
            return self.engine.port if found is None else found[0]
        return self.engine.port if self.wish is None or self.engine.tls is None else self.engine.tls.port

    def ports_of(self, pods: Iterable[Manifest | None]) -> list[int]:
        """Return the ports on which clients connect to servers of which some are still to be made."""
        return sorted({self.port_of(pod) for pod in pods})

    def told_port(self, service: Manifest | None, pod: Manifest | None, uid: str) -> int:
        """Return the port to which the Service of an owner leads, or is to lead where there is none."""
        if service is None or not is_owned(service, uid):
            return self.port_of(pod)
        return int(service["spec"]["ports"][0]["port"])

    def bind(self, values: Mapping[str, str], pod: Manifest | None) -> dict[str, str]:
        """Return a binding that leads to a server as it was made: to its proxy, with the authority by which that is
        known, where it has one.
        """
        found = None if pod is None else tls_of(pod)
        if found is None:
            return dict(values)
        port, ca = found
        if self.engine.tls is None or ca is None:
            raise TypeError("the chain goes on without TLS")
        parts = urlsplit(values["uri"])
        place = parts.netloc.removesuffix(f":{values['port']}")
        uri = urlunsplit(parts._replace(scheme=self.engine.tls.scheme, netloc=f"{place}:{port}"))
        return {**values, "port": str(port), "uri": uri, CA: ca}


def _unusable(secret: Manifest, wish: Wish, kind: str) -> Fact | None:
    name = wish.secret
    if not is_meant_for(secret, wish.owner, consent=wish.consent):
        message = f"Secret {name} does not say that it may be used here: annotate it with {wish.consent}={wish.owner}"
        return stalls(kind, "CertificateNotMeant", message, retry_after=LOOK_SECONDS)
    if secret.get("type") != _TYPE:
        message = f"Secret {name} is not of the type {_TYPE}: make it anew as one"
        return stalls(kind, "CertificateOfOtherType", message, retry_after=LOOK_SECONDS)
    lacking = [key for key in KEYS if not _text(secret, key)]
    if lacking or not _text(secret, CA).lstrip().startswith(_BEGINNING):
        wrong = ", ".join(lacking) or f"a certificate in PEM under {CA}"
        return stalls(kind, "CertificateIncomplete", f"Secret {name} lacks {wrong}", retry_after=LOOK_SECONDS)
    return None


def _text(secret: Manifest, key: str) -> str:
    try:
        return b64decode((secret.get("data") or {}).get(key, "")).decode()
    except (UnicodeDecodeError, binascii.Error):
        return ""
