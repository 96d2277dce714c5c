"""The shop's queries, each over a connection of its own: a database that was swapped needs no restart of the app."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.cursors import DictCursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from .settings import Database

TRACKS = """
SELECT t.TrackId, t.Name, t.UnitPrice, t.Milliseconds, al.Title AS Album, ar.Name AS Artist, g.Name AS Genre
FROM Track t
LEFT JOIN Album al ON al.AlbumId = t.AlbumId
LEFT JOIN Artist ar ON ar.ArtistId = al.ArtistId
LEFT JOIN Genre g ON g.GenreId = t.GenreId
"""
MATCHES = " WHERE t.Name LIKE %(pattern)s OR al.Title LIKE %(pattern)s OR ar.Name LIKE %(pattern)s"
COUNTS = """
SELECT
  (SELECT COUNT(*) FROM Artist) AS artists,
  (SELECT COUNT(*) FROM Album) AS albums,
  (SELECT COUNT(*) FROM Track) AS tracks
"""

Row = dict[str, Any]


class DatabaseError(Exception):
    """The database did not answer, or refused; the message is fit to be shown."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Reads and changes the tracks of one database. Every method raises DatabaseError."""

    database: Database

    def check(self) -> None:
        """Prove that tracks can be read."""
        self._select("SELECT TrackId FROM Track LIMIT 1", {})

    def counts(self) -> Row:
        """Return the numbers of artists, albums and tracks."""
        return self._select(COUNTS, {})[0]

    def tracks(self, *, search: str, limit: int, offset: int) -> Sequence[Row]:
        """Return tracks in the order of their ids; ``search`` looks in the names of tracks, albums and artists."""
        where = MATCHES if search else ""
        window = {"pattern": f"%{_literal(search)}%", "limit": limit, "offset": offset}
        return self._select(f"{TRACKS}{where} ORDER BY t.TrackId LIMIT %(limit)s OFFSET %(offset)s", window)

    def track(self, track_id: int) -> Row | None:
        """Return one track, or None."""
        rows = self._select(f"{TRACKS} WHERE t.TrackId = %(id)s", {"id": track_id})
        return rows[0] if rows else None

    def set_price(self, track_id: int, price: Decimal) -> Row | None:
        """Change a track's price, and return the track as it is then, or None when there is none."""
        with self._cursor() as cursor:
            cursor.execute("UPDATE Track SET UnitPrice = %s WHERE TrackId = %s", (price, track_id))
        return self.track(track_id)

    def _select(self, query: str, values: Row) -> Sequence[Row]:
        with self._cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    @contextmanager
    def _cursor(self) -> Iterator[DictCursor]:
        try:
            connection = pymysql.connect(
                host=self.database.host,
                port=self.database.port,
                user=self.database.username,
                password=self.database.password,
                database=self.database.database,
                autocommit=True,
                charset="utf8mb4",
                connect_timeout=5,
                read_timeout=20,
                cursorclass=DictCursor,
            )
            with connection, connection.cursor() as cursor:
                yield cursor
        except pymysql.MySQLError as error:
            raise DatabaseError(f"{self.database.host}:{self.database.port} {_reason(error)}") from error


def _literal(text: str) -> str:
    """Escape what LIKE would take for a pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _reason(error: pymysql.MySQLError) -> str:
    code = error.args[0] if error.args else "?"
    return (
        f"answered with error {code}"
        if isinstance(error, pymysql.ProgrammingError)
        else f"is not usable (error {code})"
    )
