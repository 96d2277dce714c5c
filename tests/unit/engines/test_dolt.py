"""What the Dolt engine says without a server."""

from __future__ import annotations

import json
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from tests.unit.engines.shellcheck import complaints, scripts_of

from coppice.engines.base import (
    PATHS,
    BranchState,
    CloneServer,
    CommitPolicy,
    EngineError,
    Ledger,
    Preparation,
    StoreServer,
    Version,
    Workload,
)
from coppice.engines.dolt import MAX_BRANCHES, DoltEngine

ENGINE = DoltEngine()
VERSION = Version("Chinook", "feature/a", "h" * 32, "w" * 32)
ROWS = (
    {"v": "1.83.2", "m": "Chinook"},
    {"d": "Chinook", "c": "main"},
    {"1": 1},
    {"d": "Chinook/main", "b": "main", "h": "a" * 32, "w": "b" * 32},
    {"d": "Chinook/x/y", "b": "x/y", "h": "c" * 32, "w": "d" * 32},
    {"d": "other", "c": "main"},
    {"d": "other/main", "b": "main", "h": "e" * 32, "w": "f" * 32},
)


def _store(*, policy: CommitPolicy = "Explicit", has_load: bool = True) -> Workload:
    return ENGINE.store_server(
        StoreServer(database=None, fallback_database="shop", commit_policy=policy, has_load=has_load)
    )


def _clone(version: Version = VERSION, policy: CommitPolicy = "Explicit") -> Workload:
    return ENGINE.clone_server(CloneServer(version=version, commit_policy=policy, marker="uid"))


def _preparation() -> Workload:
    return ENGINE.preparation(Preparation(marker="uid", database="Chinook"))


def _adoption() -> Workload:
    return ENGINE.preparation(Preparation(marker="uid", database="Chinook", adopted=True, directory="a/b"))


SCRIPTS = scripts_of({"store": _store(), "clone": _clone(), "preparation": _preparation(), "adoption": _adoption()})


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_are_plain_sh(name: str) -> None:
    assert complaints(SCRIPTS[name]) == ""


def test_every_workload_names_its_paths_for_whoever_runs_it_elsewhere() -> None:
    for workload in (_store(), _clone(), _preparation()):
        assert workload.environment.items() >= PATHS.items()
        assert workload.environment["COPPICE_PORT"] == "3306"
        for script in (workload.script, workload.load_script or ""):
            assert "/var/lib/coppice" not in script
            assert "/run/coppice" not in script


@pytest.mark.parametrize("policy", ["Explicit", "PerTransaction"])
def test_a_clones_configuration_has_nothing_that_acts_by_itself(policy: CommitPolicy) -> None:
    config = yaml.safe_load(_clone(policy=policy).environment["COPPICE_SERVER_CONFIG"])
    behavior = config["behavior"]
    assert behavior["event_scheduler"] == "OFF"
    assert behavior["auto_gc_behavior"] == {"enable": False}
    assert behavior["dolt_transaction_commit"] is (policy == "PerTransaction")
    assert set(config["remotesapi"]) == {"port"}
    assert not {"cluster", "mcp_server", "metrics", "user"} & set(config)
    assert set(config["system_variables"]) == {"secure_file_priv"}


def test_a_stores_own_events_run_and_its_garbage_is_collected() -> None:
    behavior = yaml.safe_load(_store().environment["COPPICE_SERVER_CONFIG"])["behavior"]
    assert behavior["event_scheduler"] == "ON"
    assert behavior["auto_gc_behavior"] == {"enable": True}


def test_each_server_has_a_password_of_its_own_for_what_it_fetches() -> None:
    secret = DoltEngine().credentials({"admin-password": "kept"})
    assert secret["admin-password"] == "kept"
    assert set(secret) == {"admin-password", "app-password", "remote-password"}
    for workload in (_store(), _clone()):
        assert workload.secret_environment["DOLT_REMOTE_PASSWORD"] == "remote-password"
        assert workload.remotes_port == 3307
    assert _preparation().secret_environment == {}


def test_nothing_a_user_named_is_in_a_file_where_dolt_replaces_variables() -> None:
    odd = Version("${HOME}", "${DOLT_ROOT_PASSWORD}", "h" * 32, "w" * 32, new_branch=True)
    config = _clone(odd).environment["COPPICE_SERVER_CONFIG"]
    assert config == _clone().environment["COPPICE_SERVER_CONFIG"]
    assert "PASSWORD" not in config


def test_telemetry_and_the_version_check_are_off() -> None:
    for workload in (_store(), _clone(), _preparation()):
        settings = json.loads(workload.environment["COPPICE_CLI_CONFIG"])
        assert settings["metrics.disabled"] == settings["versioncheck.disabled"] == "true"


def test_a_clone_opens_on_its_branch_without_remotes() -> None:
    state = json.loads(_clone().environment["COPPICE_REPO_STATE"])
    assert state == {"head": "refs/heads/feature/a", "remotes": {}, "backups": {}, "branches": {}}


def test_only_a_new_branch_is_cut() -> None:
    assert _clone().environment["COPPICE_CUT"] == ""
    cut = _clone(Version("Chi`nook", "o'k", "h" * 32, "w" * 32, new_branch=True)).environment["COPPICE_CUT"]
    assert cut == f"USE `Chi``nook`; CALL dolt_branch('-f', 'o''k', '{'h' * 32}');"


def test_there_is_a_load_script_only_where_there_is_a_load() -> None:
    assert _store(has_load=True).load_script
    assert _store(has_load=False).load_script is None
    assert _clone().load_script is None


def test_a_report_is_read_whole() -> None:
    content = ENGINE.report(json.dumps({"rows": ROWS}))
    assert (content.engine_version, content.database, content.default_branch) == ("1.83.2", "Chinook", "main")
    assert content.databases == ("Chinook", "other")
    assert content.state_of("x/y") == BranchState("Chinook", "x/y", "c" * 32, "d" * 32)
    assert content.state_of("nope") is None
    assert not content.truncated


def test_a_ledger_stands_at_the_end_of_a_report() -> None:
    assert ENGINE.report(json.dumps({"rows": ROWS})).ledger is None
    rows = [*ROWS, {"t": "rails"}, {"version": "20260301120000"}, {"version": "20260401120000"}]
    assert ENGINE.report(json.dumps({"rows": rows})).ledger == Ledger("rails", ("20260301120000", "20260401120000"))
    assert ENGINE.report(json.dumps({"rows": [*ROWS, {"t": "rails"}]})).ledger == Ledger("rails", ())


def test_a_report_with_more_branches_than_are_kept_says_so() -> None:
    more = [{"d": f"Chinook/b{n}", "b": f"b{n}", "h": "a" * 32, "w": "b" * 32} for n in range(MAX_BRANCHES - 1)]
    content = ENGINE.report(json.dumps({"rows": [*ROWS, *more]}))
    assert content.truncated
    assert len([state for state in content.branches if state.database == "Chinook"]) == MAX_BRANCHES


@pytest.mark.parametrize("gone", "vmcd")
def test_a_report_that_lacks_something_is_none(gone: str) -> None:
    rows = [{key: value for key, value in row.items() if key != gone} for row in ROWS]
    with pytest.raises(EngineError):
        ENGINE.report(json.dumps({"rows": rows}))


def test_a_binding_survives_every_character() -> None:
    binding = ENGINE.binding(host="db.shop.svc", database="my shop/1", password="p@ss:w/o?#%rd")
    uri = urlsplit(binding["uri"])
    assert (uri.scheme, uri.hostname, uri.port, uri.username) == ("mysql", "db.shop.svc", 3306, "app")
    assert unquote(uri.password or "") == binding["password"]
    assert unquote(uri.path) == "/my shop/1"
