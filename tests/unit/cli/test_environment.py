"""What a program is given to find its database by, and what it must not inherit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.api.v1alpha1 import BINDING_KEYS
from coppice.cli.environment import around, read_templates, through_tunnel, variables, without_password
from coppice.engines.dolt import DoltEngine
from coppice.engines.postgresql import PostgreSQLEngine

ENGINES = {"postgresql": PostgreSQLEngine(), "mysql": DoltEngine()}


def local(engine: str, password: str = "sesame", **templates: str) -> dict[str, str]:
    values = dict(ENGINES[engine].binding(host="db.app.svc", database="shop", password=password))
    return through_tunnel(values, templates, host="127.0.0.1", port=4000)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_value_leads_through_the_tunnel(engine):
    values = local(engine, DSN="{username}:{password}@{host}:{port}/{database}", WHOLE="{uri}")
    assert values["uri"] == values["WHOLE"] == f"{engine}://app:sesame@127.0.0.1:4000/shop"
    assert values["DSN"] == "app:sesame@127.0.0.1:4000/shop"
    assert not [value for value in variables(values, {}).values() if "db.app.svc" in value]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_keys_of_the_binding_have_a_prefix(engine):
    found = variables(local(engine), {})
    assert {f"COPPICE_{key.upper()}" for key in BINDING_KEYS} <= found.keys()
    assert not {key.upper() for key in BINDING_KEYS} & found.keys()


def test_each_engines_own_programs_find_the_clone():
    found = variables(local("postgresql"), {})
    assert {name: value for name, value in found.items() if name.startswith("PG")} == {
        "PGHOST": "127.0.0.1",
        "PGPORT": "4000",
        "PGUSER": "app",
        "PGPASSWORD": "sesame",
        "PGDATABASE": "shop",
    }
    found = variables(local("mysql"), {})
    assert (found["MYSQL_HOST"], found["MYSQL_TCP_PORT"], found["MYSQL_PWD"]) == ("127.0.0.1", "4000", "sesame")


def test_what_is_asked_for_counts_most():
    values = local("mysql", DATABASE_URL="jdbc:{uri}")
    assert variables(values, {})["DATABASE_URL"] == f"jdbc:{values['uri']}"
    assert variables(values, {"DATABASE_URL": "mine"})["DATABASE_URL"] == "mine"


def test_an_engine_that_nobody_knows_has_the_standard_variables():
    values = {"type": "other", "host": "x", "port": "1", "username": "u", "password": "p", "database": "d"}
    found = variables(through_tunnel(values, {}, host="127.0.0.1", port=4000), {})
    assert found == {
        "COPPICE_TYPE": "other",
        "COPPICE_HOST": "127.0.0.1",
        "COPPICE_PORT": "4000",
        "COPPICE_USERNAME": "u",
        "COPPICE_PASSWORD": "p",
        "COPPICE_DATABASE": "d",
    }


@given(st.text(min_size=1))
def test_a_password_is_nowhere_in_what_may_be_shown(password):
    shown = without_password(local("postgresql", password))
    assert shown == "postgresql://app@127.0.0.1:4000/shop"


@pytest.mark.parametrize(
    "name",
    ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGSSLMODE", "PGOPTIONS", "PGTARGETSESSIONATTRS"],
)
def test_nothing_inherited_leads_postgresql_to_another_server(name):
    assert around({name: "production", "PATH": "/bin", "PGTZ": "UTC"}, "postgresql") == {"PATH": "/bin", "PGTZ": "UTC"}
    assert around({name: "production"}, "mysql") == {name: "production"}


def test_nothing_inherited_leads_mysql_to_another_server():
    inherited = {"MYSQL_UNIX_PORT": "/x", "MYSQL_TEST_LOGIN_FILE": "/y", "MYSQL_HOST": "production", "MYSQLISH": "1"}
    assert around(inherited, "mysql") == {"MYSQLISH": "1"}


def test_templates_are_read():
    assert read_templates(("A={host}={port}", "B=", "C={{x}}")) == {"A": "{host}={port}", "B": "", "C": "{{x}}"}
