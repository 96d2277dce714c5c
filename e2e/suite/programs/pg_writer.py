"""Moves money between accounts without pause, so that the sum of all balances stays; tells the number of each transfer
once the server has acknowledged it.
"""

from __future__ import annotations

import json
import os
import random
import threading

import psycopg

TELLING = threading.Lock()


def tell(**what: object) -> None:
    """Print a line that no other writer's line is mixed with."""
    with TELLING:
        print(json.dumps(what), flush=True)


def transfer(writer: int) -> None:
    """Make one transfer after another; an error ends it and is told."""
    with psycopg.connect(os.environ["URI"]) as connection:
        while True:
            try:
                with connection.transaction():
                    # In the order of the keys, or two would wait for each other.
                    giver, taker = sorted(random.sample(range(1, 51), 2))
                    connection.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", (giver,))
                    connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (taker,))
                    [made] = connection.execute("INSERT INTO transfer DEFAULT VALUES RETURNING id").fetchone() or [0]
            except psycopg.Error as error:
                tell(writer=writer, error=repr(error))
                return
            tell(writer=writer, transfer=made)


for number in range(2):
    threading.Thread(target=transfer, args=(number,)).start()
