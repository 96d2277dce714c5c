"""Writes orders to a store without pause; tells of each, once the server has acknowledged it, with its time.

An order is three rows in two tables, written in one transaction. Keys are drawn, never counted by the server. Runs in a
Pod: WRITERS is a list of "sql" (an SQL commit each) and "dolt" (a Dolt commit each).
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from typing import Any

import pymysql
from pymysql.constants.CR import CR_CONN_HOST_ERROR as NO_CONNECTION


def write(number: int, kind: str) -> None:
    """Write one order after another."""
    connection = connect()
    order = 0
    while True:
        order += 1
        try:
            # Not autocommit=False: Dolt's greeting does not say that autocommit is on, and PyMySQL would leave it so.
            connection.begin()
            with connection.cursor() as cursor:
                write_order(cursor, number, order)
                if kind == "dolt":
                    cursor.execute("CALL dolt_commit('-A', '-m', %s)", (f"order {order}",))
            connection.commit()
        except pymysql.Error as error:
            tell({"writer": number, "order": order, "error": repr(error)})
            return
        tell({"writer": number, "order": order})


def connect() -> Any:
    """Connect through the Service, whose route may be a moment later than the server."""
    while True:
        try:
            return pymysql.connect(
                host=os.environ["HOST"],
                user=os.environ["USERNAME"],
                password=os.environ["PASSWORD"],
                database=os.environ["DATABASE"],
                connect_timeout=1,
            )
        except pymysql.OperationalError as error:
            if error.args[0] != NO_CONNECTION:
                raise


def write_order(cursor: Any, number: int, order: int) -> None:
    """Write an order and its two lines."""
    key = str(uuid.uuid4())
    cursor.execute("INSERT INTO orders (id, writer, number) VALUES (%s, %s, %s)", (key, number, order))
    for item in (1, 2):
        line = (str(uuid.uuid4()), key, item)
        cursor.execute("INSERT INTO order_lines (id, order_id, item) VALUES (%s, %s, %s)", line)


def tell(what: dict[str, Any]) -> None:
    """Write a line to the log: in one call, as several threads do."""
    os.write(1, json.dumps({**what, "at": time.time()}).encode() + b"\n")


for index, wanted in enumerate(json.loads(os.environ["WRITERS"])):
    threading.Thread(target=write, args=(index, wanted)).start()
