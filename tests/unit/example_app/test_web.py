"""The example app's pages and JSON interface, over a catalog in memory."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import pytest
from examples.app.chinook.catalog import DatabaseError
from examples.app.chinook.web import PAGE_SIZE, InvalidInputError, build_app, parse_price

Row = dict[str, Any]


def track(number: int) -> Row:
    names = {"Name": f"Track {number}", "Album": "A <b>", "Artist": None, "Genre": "Rock"}
    return {"TrackId": number, **names, "Milliseconds": 61_000, "UnitPrice": Decimal("0.99")}


@dataclass
class Shop:
    rows: dict[int, Row] = field(default_factory=lambda: {number: track(number) for number in range(1, PAGE_SIZE + 2)})
    broken: bool = False

    def check(self) -> None:
        if self.broken:
            raise DatabaseError("db:3306 is not usable (error 2003)")

    def counts(self) -> Row:
        return {"artists": 1, "albums": 2, "tracks": len(self.rows)}

    def tracks(self, *, search: str, limit: int, offset: int) -> list[Row]:
        self.check()
        found = [row for row in self.rows.values() if search in row["Name"]]
        return found[offset : offset + limit]

    def track(self, track_id: int) -> Row | None:
        return self.rows.get(track_id)

    def set_price(self, track_id: int, price: Decimal) -> Row | None:
        if track_id in self.rows:
            self.rows[track_id]["UnitPrice"] = price
        return self.rows.get(track_id)


def ask(shop: Shop, url: str, *, method: str = "GET", body: bytes = b"") -> tuple[int, str]:
    status: list[str] = []
    parts = urlsplit(url)
    environment: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": parts.path, "QUERY_STRING": parts.query}
    environment |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    setup_testing_defaults(environment)
    chunks = build_app(shop)(environment, lambda line, headers, _=None: status.append(line))
    return int(status[0].split()[0]), b"".join(chunks).decode()


def test_the_page_lists_tracks_and_escapes_what_is_in_them():
    status, page = ask(Shop(), "/")
    assert status == 200
    assert page.count("data-track=") == PAGE_SIZE
    assert "A &lt;b&gt;" in page
    assert "1:01" in page
    assert "?q=&amp;page=2" in page


def test_the_last_page_ends():
    _, page = ask(Shop(), "/?page=2")
    assert page.count("data-track=") == 1
    assert "Next" not in page


def test_tracks_as_json():
    status, text = ask(Shop(), "/api/tracks?limit=2&offset=1")
    assert status == 200
    assert [row["TrackId"] for row in json.loads(text)["tracks"]] == [2, 3]


def test_a_price_is_changed():
    shop = Shop()
    status, text = ask(shop, "/api/tracks/3", method="PUT", body=b'{"UnitPrice": 1.49}')
    assert (status, json.loads(text)["UnitPrice"]) == (200, 1.49)
    assert shop.rows[3]["UnitPrice"] == Decimal("1.49")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_track_that_is_not_there(method: str):
    assert ask(Shop(), "/api/tracks/9999", method=method, body=b'{"UnitPrice": 1}')[0] == 404


@pytest.mark.parametrize(
    "url", ["/?page=0", "/?page=x", "/api/tracks?limit=0", "/api/tracks?limit=1001", "/api/tracks?offset=-1"]
)
def test_numbers_must_be_numbers(url: str):
    assert ask(Shop(), url)[0] == 400


def test_health_is_that_of_the_database():
    assert ask(Shop(), "/healthz")[0] == 200
    status, text = ask(Shop(broken=True), "/healthz")
    assert status == 503
    assert "db:3306" in json.loads(text)["error"]


@pytest.mark.parametrize("price", ["0", "0.99", "12", '"3.50"', "99999999.99"])
def test_prices(price: str):
    assert parse_price(f'{{"UnitPrice": {price}}}'.encode()) == Decimal(price.strip('"'))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{}",
        b'{"UnitPrice": 1, "Name": "x"}',
        *(
            f'{{"UnitPrice": {value}}}'.encode()
            for value in ("-0.01", "0.995", "100000000", "true", "null", '"x"', "NaN", "1e400", "{}", "[]")
        ),
    ],
)
def test_what_is_no_price(body: bytes):
    with pytest.raises(InvalidInputError):
        parse_price(body)
