"""One JSON object per line, and no secret in it."""

import json
import logging

import pytest

from coppice.runtime.logs import JsonFormatter, redact, set_up


@pytest.fixture
def _root():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql://app:s3cr3t@db:3306/shop", "mysql://app:***@db:3306/shop"),
        ("Authorization: Bearer eyJhbGciOi.xyz", "Authorization: Bearer ***"),
        ('{"admin-password": "s3cr3t", "a": 1}', '{"admin-password": "***", "a": 1}'),
        ("password=s3cr3t&x=1", "password=***&x=1"),
        ("token: s3cr3t", "token: ***"),
        ("ALTER USER root IDENTIFIED BY 's3cr3t'", "ALTER USER root IDENTIFIED BY ***"),
        ("GET /api/v1/namespaces/app/secrets/db: 404", "GET /api/v1/namespaces/app/secrets/db: 404"),
        ("Secret app/db is not there", "Secret app/db is not there"),
    ],
)
def test_what_looks_like_a_secret_is_blacked_out(text, expected):
    assert redact(text) == expected


def line(**fields):
    record = logging.LogRecord("coppice", logging.WARNING, "", 0, "hello %s", ("world",), None)
    vars(record).update(fields)
    return json.loads(JsonFormatter().format(record))


def test_a_line_says_when_what_and_of_which_object():
    found = line(kind="DataClone", namespace="app", object="db", body={"data": "x"})
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "coppice",
        "message": "hello world",
        "kind": "DataClone",
        "namespace": "app",
        "object": "db",
    }


def test_a_traceback_is_one_field_and_redacted():
    try:
        raise RuntimeError("password=s3cr3t")  # noqa: TRY301 - to have a traceback
    except RuntimeError as error:
        found = line(exc_info=(type(error), error, error.__traceback__))
    assert "RuntimeError: password=***" in found["traceback"]


@pytest.mark.usefixtures("_root")
def test_libraries_that_print_bodies_never_get_to_debug(capsys):
    set_up("debug")
    logging.getLogger("kopf.anything").debug("the whole body")
    logging.getLogger("kopf.objects").info("Handler succeeded.")
    logging.getLogger("coppice.x").debug("ours")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(entry)["message"] for entry in lines] == ["ours"]
