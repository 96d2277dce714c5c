"""Asks a database that the environment names, as `coppice run` sets it, and prints the rows as JSON."""

import json
import os
import sys

if "PGHOST" in os.environ:
    import psycopg

    # Nothing but what libpq reads by itself.
    connection = psycopg.connect("", autocommit=True)
else:
    import pymysql

    names = {"host": "MYSQL_HOST", "user": "MYSQL_USER", "password": "MYSQL_PWD", "database": "MYSQL_DATABASE"}
    login = {key: os.environ[name] for key, name in names.items()}
    connection = pymysql.connect(**login, port=int(os.environ["MYSQL_TCP_PORT"]), autocommit=True)
with connection, connection.cursor() as cursor:
    cursor.execute(sys.argv[1])
    print(json.dumps([list(row) for row in cursor.fetchall()]))
