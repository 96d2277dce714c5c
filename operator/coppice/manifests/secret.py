"""Secrets: the operator's own key to a server, and the binding an app gets."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from coppice.core.plan import Manifest
from coppice.manifests.meta import Owner, build_metadata


def build_engine_secret(name: str, owner: Owner, values: Mapping[str, str], *, owned: bool = True) -> dict[str, Any]:
    """Return the Secret with a server's credentials: made once, immutable, because the server has taken them over."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": build_metadata(name, owner, owned=owned),
        "type": "Opaque",
        "immutable": True,
        "data": _encoded(values),
    }


def build_binding_secret(
    name: str, owner: Owner, values: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """Return the Secret an app reads, as servicebinding.io lays it out."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": build_metadata(name, owner, annotations=annotations),
        "type": f"servicebinding.io/{values['type']}",
        "data": _encoded(values),
    }


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    # `data` and not `stringData`: only what is stored can be compared with what is wanted.
    return {key: b64encode(value.encode()).decode() for key, value in values.items()}


def read_secret(manifest: Manifest) -> dict[str, str]:
    """Return a Secret's values as text."""
    return {key: b64decode(value).decode() for key, value in (manifest.get("data") or {}).items()}
