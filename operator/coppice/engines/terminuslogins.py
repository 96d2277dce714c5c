"""Logins of a TerminusDB server, each with one role on every database. The server has no rights on branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coppice.engines.terminusapi import Api
from coppice.engines.terminuspaths import path

APP_ROLE: Final = "coppice-app"
"""The role of the application's login."""


async def ensure_login(api: Api, name: str, password: str, role: str, actions: Sequence[str]) -> None:
    """Have a login with one role on every database, and no other right; the role is written anew each time."""
    roles = {entry["name"] for entry in await api.get("roles")}
    body = {"name": role, "action": list(actions)}
    await api.call("PUT" if role in roles else "POST", "roles", body=body, repeatable=role in roles)
    users = {entry["name"] for entry in await api.get("users")}
    user = {"name": name, "password": password}
    await api.call("PUT" if name in users else "POST", "users", body=user, repeatable=name in users)
    for entry in await api.get("db"):
        grant = {"operation": "grant", "scope": path(entry["path"]), "scope_type": "database"}
        await api.call("POST", "capabilities", body={**grant, "user": name, "roles": [role]})
