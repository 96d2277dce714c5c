"""Secrets: the operator's own key to a server, the binding an app gets, and what users' Secrets say of a login."""

from __future__ import annotations

import binascii
import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coppice.core import labels
from coppice.core.names import child
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


_EVER_THERE: Final = frozenset({"admin-password", "app-password"})
"""Keys that every operator has given a server's Secret: where one is gone, the server knows what it was."""


def added_name(name: str) -> str:
    """Return the name of the Secret with what a server's Secret lacks, because an older operator made it.

    That one is immutable, and what was proven under it stands under its UID: it is neither changed nor replaced.
    """
    return child(name, "added")


def lacking_keys(secret: Manifest | None, wanted: Collection[str]) -> list[str]:
    """Return the keys that a server's Secret lacks and that may be added; none where it is still to be made."""
    return [] if secret is None else sorted(set(wanted) - (secret.get("data") or {}).keys() - _EVER_THERE)


def build_binding_secret(
    name: str,
    owner: Owner,
    values: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the Secret an app reads, as servicebinding.io lays it out."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": build_metadata(name, owner, labels=labels, annotations=annotations),
        "type": f"servicebinding.io/{values['type']}",
        "data": _encoded(values),
    }


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    # `data` and not `stringData`: only what is stored can be compared with what is wanted.
    return {key: b64encode(value.encode()).decode() for key, value in values.items()}


def read_secret(manifest: Manifest) -> dict[str, str]:
    """Return a Secret's values as text."""
    return {key: b64decode(value).decode() for key, value in (manifest.get("data") or {}).items()}


USERNAME: Final = "username"
PASSWORD: Final = "password"  # noqa: S105 - the name of a key
CA: Final = "ca.crt"


@dataclass(frozen=True, slots=True)
class Login:
    """What a user's Secret says of the login to an adopted server."""

    username: str
    password: str = field(repr=False)
    ca: str | None = None


def is_meant_for(manifest: Manifest, owner: str, *, consent: str = labels.STORE) -> bool:
    """Return whether a user's Secret bears the annotation by which it may be used for a DataStore or DataClone.

    Without it whoever may write those could have the operator send any Secret of the namespace to a server of their
    own, or serve any certificate of it. ``consent`` is ``labels.WRITER_OF`` for what writes, and
    ``labels.CLONE_OPT_IN`` for a DataClone: who agreed to the one has not agreed to the other.
    """
    return bool((manifest["metadata"].get("annotations") or {}).get(consent) == owner)


def read_login(manifest: Manifest) -> Login | None:
    """Return the login in a user's Secret; None if it lacks a part, or one is no text."""
    data = manifest.get("data") or {}
    try:
        values = {key: b64decode(data[key]).decode() for key in (USERNAME, PASSWORD, CA) if key in data}
    except (UnicodeDecodeError, binascii.Error):
        return None
    if not values.get(USERNAME) or not values.get(PASSWORD):
        return None
    return Login(values[USERNAME], values[PASSWORD], values.get(CA))


SSL_MODES: Final = ("disable", "require", "verify-ca", "verify-full")
"""Those of libpq that say what is wanted; the others take what they get."""
_SOURCE_KEYS: Final = ("host", "port", USERNAME, PASSWORD, "database", "sslmode", CA)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_DATABASE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class SourceLogin:
    """What a user's Secret says of a mirror's source: no more than what the operator has to know."""

    host: str
    port: int
    database: str


def read_source(manifest: Manifest, default_port: int) -> SourceLogin | str:
    """Return where a mirror's source is, or the first thing that is missing or wrong in the Secret, by its key alone.

    A host is one host: no list, no socket's path, and nothing that libpq would read as more than a name.
    """
    data = manifest.get("data") or {}
    try:
        values = {key: b64decode(data[key]).decode() for key in _SOURCE_KEYS if key in data}
    except (UnicodeDecodeError, binascii.Error):
        return "one of its values is no text"
    checks = (
        (_HOST.fullmatch(values.get("host", "")), "host is missing or no name or address of one host"),
        (_PORT.fullmatch(values.get("port", "1")) and int(values.get("port", "1")) < 65536, "port is no port"),
        (_is_line(values.get(USERNAME, "")), "username is missing or more than one line"),
        (_is_line(values.get(PASSWORD, "")), "password is missing or more than one line"),
        (
            _DATABASE.fullmatch(values.get("database", "")),
            "database is missing, or no name of letters, digits, '_' and '-'",
        ),
        (values.get("sslmode", "require") in SSL_MODES, f"sslmode is none of {', '.join(SSL_MODES)}"),
        (
            CA in values or not values.get("sslmode", "").startswith("verify"),
            "sslmode asks for verification, and there is no ca.crt to verify with",
        ),
    )
    wrong = next((words for right, words in checks if not right), None)
    if wrong is not None:
        return wrong
    return SourceLogin(values["host"], int(values.get("port", default_port)), values["database"])


def login_state(manifest: Manifest, key: Manifest) -> str:
    """Return what tells one login in a user's Secret from another, whatever else is done to that.

    It can be shown to everybody: without ``key``, the Secret with a server's random password, nobody can try a guess.
    """
    data = manifest.get("data") or {}
    said = json.dumps([manifest["metadata"]["uid"], [data.get(name) for name in _SOURCE_KEYS]])
    secret = json.dumps(key.get("data") or {}, sort_keys=True)
    return hmac.digest(secret.encode(), said.encode(), "sha256").hex()[:16]


def _is_line(text: str) -> bool:
    return bool(text) and text.isprintable()
