"""Where the database is, read from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 3306
NEEDED = ("host", "username", "password", "database")


class SettingsError(Exception):
    """The environment does not say where the database is."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where to connect and as whom."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    database: str


def database_from(environment: Mapping[str, str]) -> Database:
    """Return the database of ``DATABASE_URL``, or of the variables host, port, username, password and database.

    The lower-case names are those of a service binding's Secret (servicebinding.io), taken over by ``envFrom``.
    """
    url = environment.get("DATABASE_URL")
    if url:
        return _from_url(url)
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise SettingsError(f"set DATABASE_URL, or the missing variables: {', '.join(missing)}")
    return Database(
        host=environment["host"],
        port=_port(environment.get("port", "")),
        username=environment["username"],
        password=environment["password"],
        database=environment["database"],
    )


def _from_url(url: str) -> Database:
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise SettingsError("DATABASE_URL is not a URL; expected mysql://user:password@host:port/database") from None
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme.partition("+")[0] != "mysql" or not parts.hostname or not parts.username or not database:
        raise SettingsError("DATABASE_URL is not of the form mysql://user:password@host:port/database")
    return Database(
        host=parts.hostname,
        port=port,
        username=unquote(parts.username),
        password=unquote(parts.password or ""),
        database=database,
    )


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"port is {text!r}, not a number from 1 to 65535")
    return int(text)
