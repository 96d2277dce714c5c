"""The shop's page and its JSON interface."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bottle import Bottle, HTTPResponse, SimpleTemplate, request

from .catalog import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_SIZE = 50
MOST_TRACKS = 1000
HIGHEST_PRICE = Decimal("99999999.99")

Row = dict[str, Any]


class Tracks(Protocol):
    """What the pages need of the catalog."""

    def check(self) -> None:
        """Prove that tracks can be read."""

    def counts(self) -> Row:
        """Return the numbers of artists, albums and tracks."""

    def tracks(self, *, search: str, limit: int, offset: int) -> Sequence[Row]:
        """Return tracks in the order of their ids."""

    def track(self, track_id: int) -> Row | None:
        """Return one track, or None."""

    def set_price(self, track_id: int, price: Decimal) -> Row | None:
        """Change a track's price, and return the track."""


class InvalidInputError(Exception):
    """The request asks for what makes no sense; the message says why."""


def build_app(catalog: Tracks) -> Bottle:
    """Return the WSGI application over a catalog."""
    app = Bottle()
    template = SimpleTemplate((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))

    def page() -> str:
        search, number = request.query.getunicode("q", ""), _number("page", default=1, least=1)
        rows = catalog.tracks(search=search, limit=PAGE_SIZE + 1, offset=(number - 1) * PAGE_SIZE)
        return template.render(
            counts=catalog.counts(),
            rows=[_shown(row) for row in rows[:PAGE_SIZE]],
            search=search,
            number=number,
            more=len(rows) > PAGE_SIZE,
        )

    def many() -> HTTPResponse:
        limit, offset = _number("limit", default=100, least=1, most=MOST_TRACKS), _number("offset", default=0, least=0)
        rows = catalog.tracks(search=request.query.getunicode("q", ""), limit=limit, offset=offset)
        return _json({"tracks": [_plain(row) for row in rows]})

    def one(track_id: int) -> HTTPResponse:
        return _found(track_id, catalog.track(track_id))

    def change(track_id: int) -> HTTPResponse:
        return _found(track_id, catalog.set_price(track_id, parse_price(request.body.read())))

    def health() -> HTTPResponse:
        catalog.check()
        return _json({"status": "ok"})

    app.install(_errors)
    app.route("/", "GET", page)
    app.route("/api/tracks", "GET", many)
    app.route("/api/tracks/<track_id:int>", "GET", one)
    app.route("/api/tracks/<track_id:int>", "PUT", change)
    app.route("/healthz", "GET", health)
    return app


def parse_price(body: bytes) -> Decimal:
    """Return the price of ``{"UnitPrice": 1.99}``: not negative, in whole cents; raises InvalidInputError."""
    try:
        document = json.loads(body, parse_float=Decimal, parse_int=Decimal)
    except ValueError:
        raise InvalidInputError("the body is not JSON") from None
    if not isinstance(document, dict) or set(document) != {"UnitPrice"}:
        raise InvalidInputError('expected {"UnitPrice": <number>} and nothing else')
    try:
        price = Decimal(document["UnitPrice"])
    except (InvalidOperation, TypeError, ValueError):
        raise InvalidInputError("UnitPrice is not a number") from None
    if isinstance(document["UnitPrice"], bool) or not price.is_finite():
        raise InvalidInputError("UnitPrice is not a number")
    if not 0 <= price <= HIGHEST_PRICE or price != price.quantize(Decimal("0.01")):
        raise InvalidInputError(f"UnitPrice is not an amount from 0 to {HIGHEST_PRICE} in whole cents")
    return price


def _errors(callback: Any) -> Any:
    def wrapped(*positional: Any, **named: Any) -> Any:
        try:
            return callback(*positional, **named)
        except InvalidInputError as error:
            return _json({"error": str(error)}, status=400)
        except DatabaseError as error:
            return _json({"error": f"the database {error}"}, status=503)

    return wrapped


def _number(name: str, *, default: int, least: int, most: int = 2**31 - 1) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise InvalidInputError(f"{name} is not a number from {least} to {most}")
    return int(text)


def _found(track_id: int, row: Row | None) -> HTTPResponse:
    return _json({"error": f"there is no track {track_id}"}, status=404) if row is None else _json(_plain(row))


def _json(document: Any, *, status: int = 200) -> HTTPResponse:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return HTTPResponse(json.dumps(document, ensure_ascii=False).encode(), status=status, headers=headers)


def _plain(row: Row) -> Row:
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def _shown(row: Row) -> Row:
    seconds = int(row["Milliseconds"]) // 1000
    return {**row, "Length": f"{seconds // 60}:{seconds % 60:02d}", "Price": f"{row['UnitPrice']:.2f}"}
