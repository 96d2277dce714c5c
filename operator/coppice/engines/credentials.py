"""The passwords of a server, the administrator's and the application's, and what an application is told to connect."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote

from coppice.engines.base import Endpoint


def completed(secret: Mapping[str, str], *more: str) -> Mapping[str, str]:
    """Return a Secret's content, completed with random passwords (192 bits, safe in a URL); ``more`` are further keys
    that the engine has.
    """
    return {key: secret.get(key) or secrets.token_urlsafe(24) for key in ("admin-password", "app-password", *more)}


def binding_values(kind: str, provider: str, app: Endpoint, database: str) -> Mapping[str, str]:
    """Return the binding Secret's keys (https://servicebinding.io/spec/core/1.1.0/#well-known-secret-entries); ``kind``
    is the scheme of the URI, too.
    """
    login = f"{quote(app.username, safe='')}:{quote(app.password, safe='')}"
    return {
        "type": kind,
        "provider": provider,
        "host": app.host,
        "port": str(app.port),
        "username": app.username,
        "password": app.password,
        "database": database,
        "uri": f"{kind}://{login}@{app.host}:{app.port}/{quote(database, safe='')}",
    }
