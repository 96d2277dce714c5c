"""The example app finds its database in the environment alone."""

from __future__ import annotations

import pytest
from examples.app.chinook.settings import Database, SettingsError, database_from

BINDING = {"type": "mysql", "host": "db", "port": "3307", "username": "app", "password": "s", "database": "Chinook"}


def test_a_bindings_keys():
    assert database_from(BINDING) == Database(host="db", port=3307, username="app", password="s", database="Chinook")


def test_the_port_has_a_default():
    assert database_from({**BINDING, "port": ""}).port == 3306


def test_a_url_wins_and_is_decoded():
    url = "mysql://app:p%40ss%2Fw%3Ard@db:3307/chinook%2Fautumn"
    found = database_from({**BINDING, "DATABASE_URL": url})
    assert found == Database(host="db", port=3307, username="app", password="p@ss/w:rd", database="chinook/autumn")


@pytest.mark.parametrize("url", ["mysql+pymysql://app@db/x", "mysql://app@[::1]/x"])
def test_usual_forms_of_urls(url: str):
    assert database_from({"DATABASE_URL": url}).database == "x"


@pytest.mark.parametrize(
    "url",
    ["postgres://app:secret@db/x", "mysql://db/x", "mysql://app:secret@db", "mysql://app:secret@db:port/x", "no url"],
)
def test_other_urls_are_refused_without_showing_them(url: str):
    with pytest.raises(SettingsError) as caught:
        database_from({"DATABASE_URL": url})
    assert "secret" not in str(caught.value)


def test_what_is_missing_is_named():
    with pytest.raises(SettingsError, match="host, password"):
        database_from({"username": "app", "database": "x"})


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_a_port_must_be_one(port: str):
    with pytest.raises(SettingsError, match="port"):
        database_from({**BINDING, "port": port})


def test_the_password_is_not_printed():
    assert "hunter2" not in repr(database_from({**BINDING, "password": "hunter2"}))
