"""What the PostgreSQL engine says without a server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

import pytest
from tests.unit.engines.shellcheck import complaints, scripts_of

from coppice.engines.base import (
    PATHS,
    SOURCE_PATH,
    CloneServer,
    Endpoint,
    EngineError,
    Ledger,
    LoginRefusedError,
    MirrorFailure,
    MirrorInputs,
    MirrorWorkloads,
    Preparation,
    StoreServer,
    UnguardedError,
    UnreachableError,
    Version,
    Workload,
)
from coppice.engines.libpq import StatementError, literal, not_connected
from coppice.engines.postgresql import PostgreSQLEngine
from coppice.reconcile.told import Restored, parse_told

ENGINE = PostgreSQLEngine()
REPORT = {
    "v": "15.18",
    "s": "7123456789012345678",
    "h": "1w00000000025b6030",
    "m": "shop",
    "d": ["audit", "shop"],
}


def _store(*, has_load: bool = True) -> Workload:
    return ENGINE.store_server(
        StoreServer(database=None, fallback_database="shop", commit_policy="Explicit", has_load=has_load)
    )


def _clone() -> Workload:
    return ENGINE.clone_server(CloneServer(Version("shop", "main", "h", "w"), commit_policy="Explicit", marker="uid"))


def _preparation() -> Workload:
    return ENGINE.preparation(Preparation(marker="uid", database="shop"))


def _mirror(*, jobs: int = 2, expects_rows: bool = False) -> MirrorWorkloads:
    return ENGINE.mirror(MirrorInputs(marker="uid", jobs=jobs, expects_rows=expects_rows))


SCRIPTS = scripts_of(
    {
        "dump": _mirror().dump,
        "restore": _mirror().restore,
        "store": _store(),
        "clone": _clone(),
        "preparation": _preparation(),
        "adoption": ENGINE.preparation(Preparation(marker="uid", database="shop", adopted=True)),
    }
)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_are_plain_sh(name: str) -> None:
    assert complaints(SCRIPTS[name]) == ""


def test_every_workload_names_its_paths_for_whoever_runs_it_elsewhere() -> None:
    for workload in (_store(), _clone(), _preparation(), _mirror().dump, _mirror().restore):
        assert workload.environment.items() >= PATHS.items()
        assert workload.environment["COPPICE_PORT"] == "5432"


def test_a_clone_acts_on_nobody_whatever_its_source_did() -> None:
    settings = dict(line.split("=", 1) for line in _clone().environment["COPPICE_SETTINGS"].splitlines())
    assert settings["archive_mode"] == "off"
    assert settings["max_wal_senders"] == settings["max_logical_replication_workers"] == "0"
    assert settings["log_statement"] == "none"


def test_a_store_keeps_what_it_acknowledges_and_so_does_a_copy_that_is_captured_again() -> None:
    inputs = CloneServer(Version("shop", "main", "h", "w"), commit_policy="Explicit", marker="uid", durable=True)
    for workload in (_store(), ENGINE.clone_server(inputs)):
        assert "fsync" not in workload.environment["COPPICE_SETTINGS"]
    assert "fsync=off" in _clone().environment["COPPICE_SETTINGS"]


def test_only_a_masked_copy_is_written_anew() -> None:
    assert _preparation().environment["COPPICE_REWRITE"] == ""
    rewrite = ENGINE.preparation(Preparation(marker="uid", database="shop", rewrite=True))
    assert rewrite.environment["COPPICE_REWRITE"] == "yes"


def test_there_is_a_load_script_only_where_there_is_a_load() -> None:
    assert _store(has_load=True).load_script
    assert _store(has_load=False).load_script is None
    assert _clone().load_script is None


def test_a_mirrors_programs_have_no_passwords_and_only_one_knows_where_the_source_is() -> None:
    mirror = _mirror(expects_rows=True)
    assert mirror.dump.secret_environment == mirror.restore.secret_environment == {}
    assert mirror.dump.environment["COPPICE_SOURCE"] == SOURCE_PATH
    assert "COPPICE_SOURCE" not in mirror.restore.environment
    assert mirror.dump.environment["COPPICE_EXPECTS_ROWS"] == "yes"
    assert _mirror().dump.environment["COPPICE_EXPECTS_ROWS"] == ""


def test_a_restore_reports_whatever_the_source_calls_its_version(tmp_path: Path) -> None:
    facts = tmp_path / "mirror"
    facts.write_text(
        'shop\n2026-03-02T09:00:00Z\n15.4 (a "b" \\c)\n3\n2\n{"reason": "LocaleReplaced", "message": "x"}\n'
    )
    functions = re.findall(r"^(?:names|report)\(\) \{\n.*?^\}\n", _mirror().restore.script, re.MULTILINE | re.DOTALL)
    command = ["sh", "-c", "".join([*functions, 'report "$1"']), "sh", str(facts)]
    told = parse_told(subprocess.run(command, text=True, capture_output=True, check=True).stdout)
    assert isinstance(told, Restored)
    assert (told.version, told.database, told.tables, told.filled) == ("15.4 (a  b  c)", "shop", 3, 2)
    assert [found.reason for found in told.findings] == ["LocaleReplaced"]


def test_a_mirrors_server_is_told_which_volume_to_expect() -> None:
    inputs = StoreServer(
        database=None, fallback_database="shop", commit_policy="Explicit", has_load=False, marker="uid"
    )
    assert ENGINE.store_server(inputs).environment["COPPICE_MARKER"] == "uid"
    assert "COPPICE_MARKER" not in _store().environment


def test_every_word_in_which_a_refresh_fails_is_one_of_the_contract() -> None:
    said = {
        word for script in SCRIPTS.values() for word in re.findall(r"(?:give_up|fail_with) ([A-Z][a-z]\w+)", script)
    }
    assert said == set(get_args(MirrorFailure))


def test_a_report_is_read_whole() -> None:
    content = ENGINE.report(json.dumps({**REPORT, "f": [{"reason": "ForeignServers", "message": "shop: elsewhere"}]}))
    assert (content.engine_version, content.database, content.default_branch) == ("15.18", "shop", "main")
    assert content.databases == ("audit", "shop")
    [state] = content.branches
    assert state.head == "1w00000000025b6030"
    assert state.working_root == f"{7123456789012345678:016x}-{state.head}"
    assert [found.reason for found in content.findings] == ["ForeignServers"]
    assert content.ledger is None


@pytest.mark.parametrize(
    ("told", "ledger"),
    [(None, None), ({"t": "alembic", "r": [{"version_num": "1975ea83b712"}]}, Ledger("alembic", ("1975ea83b712",)))],
)
def test_a_report_may_have_a_ledger(told: object, ledger: Ledger | None) -> None:
    assert ENGINE.report(json.dumps({**REPORT, "f": [], "l": told})).ledger == ledger


def test_a_ledger_of_no_tool_is_no_report() -> None:
    with pytest.raises(EngineError):
        ENGINE.report(json.dumps({**REPORT, "f": [], "l": {"t": "mine", "r": []}}))


@pytest.mark.parametrize("gone", "vshmdf")
def test_a_report_that_lacks_something_is_none(gone: str) -> None:
    whole = {**REPORT, "f": []}
    with pytest.raises(EngineError):
        ENGINE.report(json.dumps({key: value for key, value in whole.items() if key != gone}))


def test_a_binding_survives_every_character() -> None:
    binding = ENGINE.binding(host="db.shop.svc", database="my shop/1", password="p@ss:w/o?#%rd")
    uri = urlsplit(binding["uri"])
    assert (uri.scheme, uri.hostname, uri.port, uri.username) == ("postgresql", "db.shop.svc", 5432, "app")
    assert unquote(uri.password or "") == binding["password"]
    assert unquote(uri.path) == "/my shop/1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('failed: FATAL:  password authentication failed for user "app"', LoginRefusedError),
        ('failed: FATAL:  role "app" is not permitted to log in', LoginRefusedError),
        ("failed: fe_sendauth: no password supplied", LoginRefusedError),
        ("failed: FATAL:  the database system is starting up", UnreachableError),
        ("failed: FATAL:  sorry, too many clients already", UnreachableError),
        ("failed: Connection refused", UnreachableError),
        ('failed: FATAL:  database "x" does not exist', StatementError),
        (
            'authentication method requirement "scram-sha-256" failed: server requested a cleartext password',
            UnguardedError,
        ),
        ("failed: SSL error: certificate verify failed", UnguardedError),
        ("failed: server does not support SSL, but SSL was required", UnguardedError),
    ],
)
def test_why_a_connection_was_not_made_is_told_apart(words: str, expected: type[EngineError]) -> None:
    assert type(not_connected(Endpoint("10.0.0.1", 5432, "app", "secret"), words)) is expected


def test_of_a_servers_words_only_the_first_line_is_kept() -> None:
    error = StatementError("23505", "duplicate key\nDETAIL:  Key (email)=(somebody@example.org) already exists.")
    assert "somebody" not in str(error)


def test_a_string_is_quoted() -> None:
    assert literal("o'clock") == "'o''clock'"
