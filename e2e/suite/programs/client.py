"""Runs SQL statements on servers, both given as JSON on standard input, and prints the rows of each server as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import pymysql
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor


def ask(server: dict[str, Any], statements: str) -> list[dict[str, Any]]:
    """Return the rows of all statements."""
    how = {"autocommit": True, "cursorclass": DictCursor, "client_flag": CLIENT.MULTI_STATEMENTS, "connect_timeout": 5}
    with pymysql.connect(**server, **how) as connection, connection.cursor() as cursor:
        cursor.execute(statements)
        rows = list(cursor.fetchall())
        while cursor.nextset():
            rows += cursor.fetchall()
        return rows


asked = json.load(sys.stdin)
print(json.dumps([ask(server, asked["statements"]) for server in asked["servers"]], default=str))
