"""The certificate with which the server of a store or clone takes TLS, from a user's Secret.

The Secret is not Coppice's, so that no watch tells of it: it is read anew at every look. A certificate that is renewed
there gets to the proxy by itself; only with another authority is the Pod made anew, for clients know the proxy by that.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from coppice.core.plan import Manifest
from coppice.engines.base import Engine
from coppice.engines.tls import proxy
from coppice.manifests.pod import Proxy
from coppice.manifests.secret import CA, is_meant_for
from coppice.reconcile.draft import Fact, holds, stalls, waits

KEYS: Final = ("tls.crt", "tls.key", CA)
LOOK_SECONDS: Final = 10.0
_BEGINNING: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Wish:
    """What asks for TLS: the Secret, the annotation in it by which it may be used, and the field that says so."""

    secret: str
    consent: str
    owner: str
    field: str


def certificate_is_there(wish: Wish, secret: Manifest | None, engine: Engine, image: str | None, kind: str) -> Fact:
    """Return whether the server can take TLS as is asked for."""
    name = wish.secret
    if engine.tls is None:
        message = f"engine {engine.name} takes no TLS by a proxy: leave {wish.field} out"
        return stalls(kind, "TLSUnsupported", message)
    if image is None:
        message = "the administrator offers no image that takes TLS (tls.image of the chart): have it set"
        return stalls(kind, "TLSNotOffered", message, retry_after=60)
    if secret is None:
        message = f"waits for Secret {name} with {', '.join(KEYS)}: create it in this namespace"
        return waits(kind, "CertificateNotFound", message, retry_after=LOOK_SECONDS)
    if not is_meant_for(secret, wish.owner, consent=wish.consent):
        message = f"Secret {name} does not say that it may be used here: annotate it with {wish.consent}={wish.owner}"
        return stalls(kind, "CertificateNotMeant", message, retry_after=LOOK_SECONDS)
    lacking = [key for key in KEYS if not _text(secret, key)]
    if lacking or not _text(secret, CA).lstrip().startswith(_BEGINNING):
        wrong = ", ".join(lacking) or f"a certificate in PEM under {CA}"
        return stalls(kind, "CertificateIncomplete", f"Secret {name} lacks {wrong}", retry_after=LOOK_SECONDS)
    return holds(kind, "CertificateFound", f"the certificate is in Secret {name}")


def port_of(engine: Engine, wish: object) -> int:
    """Return the port on which clients connect: the proxy's where TLS is asked for and can be had."""
    return engine.port if wish is None or engine.tls is None else engine.tls.port


def proxy_for(secret: Manifest, engine: Engine, image: str) -> Proxy:
    """Return what takes TLS before a server; the certificate is there."""
    if engine.tls is None:
        raise TypeError("the chain goes on without TLS")
    workload = proxy(port=engine.tls.port, server_port=engine.port)
    return Proxy(image=image, workload=workload, secret=secret["metadata"]["name"], ca=_text(secret, CA))


def secured(values: Mapping[str, str], engine: Engine, ca: str) -> dict[str, str]:
    """Return a binding that leads to the proxy, with the authority by which it is known."""
    if engine.tls is None:
        raise TypeError("the chain goes on without TLS")
    parts = urlsplit(values["uri"])
    place = parts.netloc.removesuffix(f":{values['port']}")
    uri = urlunsplit(parts._replace(scheme=engine.tls.scheme, netloc=f"{place}:{engine.tls.port}"))
    return {**values, "port": str(engine.tls.port), "uri": uri, CA: ca}


def _text(secret: Manifest, key: str) -> str:
    try:
        return b64decode((secret.get("data") or {}).get(key, "")).decode()
    except (UnicodeDecodeError, binascii.Error):
        return ""
