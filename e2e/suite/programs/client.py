"""Runs SQL statements on servers, both given as JSON on standard input, and prints the rows of each server as JSON.

Asked again under the same ``token`` it runs nothing, and prints the same: what a program prints at its end may be lost
on the way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pymysql
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor

POSTGRESQL = 5432


def ask(server: dict[str, Any], statements: str) -> list[dict[str, Any]]:
    """Return the rows of all statements, in the protocol that the port stands for."""
    return ask_postgresql(server, statements) if server["port"] == POSTGRESQL else ask_mysql(server, statements)


def ask_postgresql(server: dict[str, Any], statements: str) -> list[dict[str, Any]]:
    # Here, for an earlier operator's image, which the upgrade test has, lacks it.
    import psycopg  # noqa: PLC0415
    from psycopg.rows import dict_row  # noqa: PLC0415

    where = {**server, "dbname": server["database"], "connect_timeout": 5}
    del where["database"]
    rows: list[dict[str, Any]] = []
    with psycopg.connect(**where, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(statements)
        more: bool | None = True
        while more:
            rows += cursor.fetchall() if cursor.description else []
            more = cursor.nextset()
    return rows


def ask_mysql(server: dict[str, Any], statements: str) -> list[dict[str, Any]]:
    how = {"autocommit": True, "cursorclass": DictCursor, "client_flag": CLIENT.MULTI_STATEMENTS, "connect_timeout": 5}
    with pymysql.connect(**server, **how) as connection, connection.cursor() as cursor:
        cursor.execute(statements)
        rows = list(cursor.fetchall())
        while cursor.nextset():
            rows += cursor.fetchall()
        return rows


asked = json.load(sys.stdin)
kept = Path("/dev/shm") / asked["token"]
if not kept.exists():
    kept.write_text(
        json.dumps([ask(server, asked["statements"]) for server in asked["servers"]], default=str), encoding="utf-8"
    )
print(kept.read_text(encoding="utf-8"))
