"""The passwords of a server: the administrator's and the application's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping


def completed(secret: Mapping[str, str]) -> Mapping[str, str]:
    """Return a Secret's content, completed with random passwords (192 bits, safe in a URL)."""
    return {key: secret.get(key) or secrets.token_urlsafe(24) for key in ("admin-password", "app-password")}
