"""What the TerminusDB engine says without a server."""

from __future__ import annotations

import json
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from tests.unit.engines.shellcheck import complaints, scripts_of

from coppice.engines import terminusapi, terminusdb
from coppice.engines.base import (
    PATHS,
    BranchState,
    CloneServer,
    Endpoint,
    EngineError,
    Preparation,
    StoreServer,
    Version,
)
from coppice.engines.terminusdb import MAX_BRANCHES, OLDEST, TerminusDBEngine
from coppice.engines.tls import proxy

ENGINE = TerminusDBEngine()
VERSION = Version("shop", "main", "a" * 31, "a" * 31)
STORE = ENGINE.store_server(
    StoreServer(database=None, fallback_database="shop", commit_policy="Explicit", has_load=True)
)
CLONE = ENGINE.clone_server(CloneServer(version=VERSION, commit_policy="Explicit", marker="uid"))
PREPARATION = ENGINE.preparation(Preparation(marker="uid", database="shop"))
ADOPTION = ENGINE.preparation(Preparation(marker="uid", database="shop", adopted=True, directory="a/b"))
REWRITE = ENGINE.preparation(Preparation(marker="uid", database="shop", rewrite=True))
TLS = proxy(port=6364, server_port=6363)
SCRIPTS = scripts_of(
    {"store": STORE, "clone": CLONE, "preparation": PREPARATION, "adoption": ADOPTION, "rewrite": REWRITE, "tls": TLS}
)
AT = Endpoint("10.0.0.1", 6363, "admin", "hunter2")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_are_plain_sh(name: str) -> None:
    assert complaints(SCRIPTS[name]) == ""


def test_every_workload_names_its_paths_for_whoever_runs_it_elsewhere() -> None:
    for workload in (STORE, CLONE, PREPARATION, ADOPTION):
        assert workload.environment.items() >= PATHS.items()
        assert workload.environment["COPPICE_PORT"] == "6363"
        for script in (workload.script, workload.load_script or ""):
            assert "/var/lib/coppice" not in script
            assert "/run/coppice" not in script


def test_old_versions_are_refused_unless_the_administrator_allows_them() -> None:
    assert STORE.environment["COPPICE_OLDEST"] == OLDEST
    assert STORE.environment["COPPICE_ANY_VERSION"] == ""
    willing = TerminusDBEngine(any_version=True).preparation(Preparation(marker="uid", database="shop"))
    assert willing.environment["COPPICE_ANY_VERSION"] == "yes"


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("12.0.5", True),
        ("11.9.9", True),
        ("9.0", True),
        ("12.0.6", False),
        ("12.0.10", False),
        ("12.1", False),
        ("13.0.0-rc1", False),
    ],
)
async def test_versions_are_compared_number_by_number(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    refused: bool,  # noqa: FBT001 - a table
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/info":
            return httpx.Response(200, json={"api:info": {"terminusdb": {"version": version}}})
        if request.url.path == "/api/db":
            return httpx.Response(200, json=[{"path": "admin/shop"}])
        if request.url.path.endswith("_commits"):
            branch = {"@id": "Branch/main", "@type": "Branch", "name": "main", "head": "ValidCommit/" + "a" * 31}
            return httpx.Response(200, json=[branch])
        return httpx.Response(200, json=[])

    def session(at: Endpoint) -> object:
        return terminusapi.session(at, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(terminusdb, "session", session)
    if refused:
        with pytest.raises(EngineError, match="loses documents"):
            await ENGINE.inspect(AT)
    else:
        assert (await ENGINE.inspect(AT)).engine_version == version


def _report(count: int) -> str:
    branches = [{"@id": f"Branch/b{n}", "name": f"b{n}", "head": f"ValidCommit/{n:031}"} for n in range(count)]
    main = {"@id": "Branch/main", "name": "main", "head": "InitialCommit/m"}
    empty = {"@id": "Branch/new", "name": "new"}
    return json.dumps(
        {
            "v": "12.0.6",
            "m": "shop",
            "d": [{"p": "admin/shop", "b": [*branches, main, empty]}, {"p": "team/other", "b": [main]}],
        }
    )


def test_a_report_names_the_branches_that_have_a_commit() -> None:
    content = ENGINE.report(_report(1))
    assert (content.engine_version, content.database, content.default_branch) == ("12.0.6", "shop", "main")
    assert content.databases == ("shop", "team/other")
    assert content.branches == (
        BranchState("shop", "b0", "0" * 31, "0" * 31),
        BranchState("shop", "main", "m", "m"),
        BranchState("team/other", "main", "m", "m"),
    )
    assert not content.truncated


def test_more_branches_than_are_listed_are_told_and_main_is_always_listed() -> None:
    content = ENGINE.report(_report(MAX_BRANCHES))
    assert content.truncated
    assert content.state_of("main") is not None
    assert sum(state.database == "shop" for state in content.branches) == MAX_BRANCHES


def test_a_masked_copy_is_made_anew_before_it_is_prepared() -> None:
    assert "read_graph" in REWRITE.script
    assert "read_graph" not in PREPARATION.script


@pytest.mark.parametrize(("branch", "database"), [(None, "shop"), ("main", "shop"), ("dev", "shop/local/branch/dev")])
def test_the_binding_of_a_clone_leads_to_its_branch(branch: str | None, database: str) -> None:
    binding = ENGINE.binding(host="db.shop.svc", database="shop", password="x", branch=branch)
    assert binding["database"] == database
    assert unquote(urlsplit(binding["uri"]).path) == f"/{database}"


def test_a_clone_of_a_commit_is_told_where_to_cut_its_branch() -> None:
    version = Version("shop", "coppice", "b" * 31, "b" * 31, new_branch=True)
    told = ENGINE.clone_server(CloneServer(version=version, commit_policy="Explicit", marker="uid")).environment
    assert (told["COPPICE_NEW_BRANCH"], told["COPPICE_HEAD"]) == ("coppice", "b" * 31)
    assert CLONE.environment["COPPICE_NEW_BRANCH"] == ""
