"""Quoting, and the driver's errors in the contract's words."""

from __future__ import annotations

import asyncio

import pymysql.err
import pytest

from coppice.engines import mysql
from coppice.engines.base import EngineError, LoginRefusedError, UnreachableError


def test_names_and_strings_cannot_end_their_own_quotes() -> None:
    assert mysql.identifier("a`; DROP") == "`a``; DROP`"
    assert mysql.literal("it's \\' -- ") == "'it''s \\\\'' -- '"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (pymysql.err.OperationalError(1045, "Access denied for 'root' using 'hunter2'"), LoginRefusedError),
        (pymysql.err.OperationalError(2003, "Can't connect"), UnreachableError),
        (pymysql.err.OperationalError(2013, "Lost connection"), UnreachableError),
        (pymysql.err.InterfaceError(0, ""), UnreachableError),
        (ConnectionResetError(), UnreachableError),
        (asyncio.IncompleteReadError(b"", 4), UnreachableError),
        (pymysql.err.ProgrammingError(1064, "syntax error"), mysql.StatementError),
        (pymysql.err.InternalError("Packet sequence number wrong"), mysql.StatementError),
    ],
)
def test_the_drivers_errors_become_the_contracts(raised: Exception, expected: type[EngineError]) -> None:
    with pytest.raises(expected) as caught, mysql._translated():
        raise raised
    assert type(caught.value) is expected
    assert caught.value.__suppress_context__
    assert "hunter2" not in str(caught.value)
