"""TerminusDB's test material: over the protocol double, or over the real program that COPPICE_TERMINUSDB_BIN names."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from coppice.engines.base import Endpoint

REAL = "COPPICE_TERMINUSDB_BIN"
DOUBLE = Path(__file__).parents[1] / "fakes/terminusdb/bin"

SCHEMA = b'{"@id": "Product", "@type": "Class", "@key": {"@type": "Lexical", "@fields": ["id"]}, "id": "xsd:string", "name": "xsd:string"}'
NO_SQL = "the statements are SQL, which TerminusDB does not speak"
NO_CHOICE = "a path without a branch is main on every TerminusDB: a clone's binding names its branch instead"


class TerminusDBKit:
    database = "shop"
    rows = 3
    user = None
    load_names_database = False
    load: Mapping[str, bytes] = {
        "1-product.schema.json": SCHEMA,
        "2-product.json": b"".join(
            b'{"@type": "Product", "id": "%s", "name": "%s"}' % pair
            for pair in ((b"1", b"one"), (b"2", b"two"), (b"3", b"three"))
        ),
    }
    slow_load: Mapping[str, bytes] = {
        **load,
        "3-more.schema.json": b'{"@id": "More", "@type": "Class", "name": "xsd:string"}',
        **{f"4-more-{number}.json": b'{"@type": "More", "name": "%d"}' % number for number in range(5)},
    }
    broken_load: Mapping[str, bytes] = {**load, "3-broken.json": b'{"@type": "nowhere", "name": "secret row"}'}
    gaps: frozenset[str] = frozenset()
    beyond: Mapping[str, str] = {
        "test_a_guarded_login_is_taken_by_the_engines_own_servers": "TerminusDB has no TLS, and takes passwords as they are",
        "test_equal_hashes_mean_equal_rows": "every write is a commit",
        "test_what_a_program_has_loaded_becomes_a_version_once": "every write is a commit",
        "test_branches_are_made_and_deleted_once_and_never_over_somebody_elses_work": "every write is a commit",
        "test_a_tag_a_commit_and_a_time_give_a_branch_of_their_own": NO_CHOICE,
        "test_a_branch_is_what_an_app_gets_that_names_none": NO_CHOICE,
        "test_only_others_are_activity": "TerminusDB does not say who reads or is connected",
        "test_the_schema_tells_definitions_object_by_object_and_nothing_of_rows": NO_SQL,
        "test_the_ledger_of_a_migration_tool_is_read": NO_SQL,
        "test_the_report_says_how_far_migrations_are": NO_SQL,
        "test_to_be_asked_for_schema_ledger_and_locks_is_no_activity": NO_SQL,
    }
    """test_terminusdb.py asks for what holds instead."""

    def path(self) -> str | None:
        rest = os.environ.get("PATH", "")
        named = os.environ.get(REAL)
        folders = [str(Path(named).parent)] if named else [str(DOUBLE), str(Path(sys.executable).parent)]
        path = os.pathsep.join([*folders, rest])
        return path if shutil.which("terminusdb", path=path) else None

    async def count(self, at: Endpoint, branch: str | None = None) -> int:
        return len(await documents(at, self._path(branch)))

    async def insert(self, at: Endpoint, branch: str | None = None) -> None:
        product = {"@type": "Product", "id": secrets.token_hex(16), "name": "more"}
        await call(at, "POST", f"document/{self._path(branch)}?author=app&message=more", product)

    async def run(self, at: Endpoint, statement: str) -> None:
        raise NotImplementedError

    async def version(self, at: Endpoint, branch: str | None = None) -> str:
        [newest] = await call(at, "GET", f"log/{self._path(branch)}?count=1")
        return str(newest["identifier"])

    async def tag(self, at: Endpoint, name: str) -> None:
        tag = f"branch/{self._path(f'coppice-tag.{name}.0')}"
        await call(at, "POST", tag, {"origin": self._path("main")})

    async def connect_outside(self, at: Endpoint, directory: Path) -> None:
        await call(at, "POST", "users", {"name": "boss", "password": "boss"})
        grant = {"operation": "grant", "scope": "admin/shop", "user": "boss", "roles": ["Consumer Role"]}
        await call(at, "POST", "capabilities", {**grant, "scope_type": "database"})
        await call(
            at, "POST", "remote/admin/shop", {"remote_name": "origin", "remote_location": "http://192.0.2.1/x/y"}
        )

    async def outside(self, at: Endpoint) -> Sequence[str]:
        users = [
            f"login: {user['name']}" for user in await call(at, "GET", "users") if user["name"] not in {"admin", "app"}
        ]
        remotes = (await call(at, "GET", "remote/admin/shop"))["api:remote_names"]
        return [*users, *(f"remote: {name}" for name in remotes)]

    async def idle(self, at: Endpoint) -> IdleTerminusDB:
        return IdleTerminusDB(httpx.AsyncClient(base_url=_base(at), auth=(at.username, at.password)))

    async def refused(self, at: Endpoint, directory: Path) -> Sequence[str]:
        grant = {
            "operation": "grant",
            "scope": "admin/shop",
            "user": "app",
            "roles": ["Admin Role"],
            "scope_type": "database",
        }
        tried: Sequence[tuple[str, str, Any]] = (
            ("GET", "users", None),
            ("POST", "users", {"name": "friend", "password": "x"}),
            ("PUT", "users", {"name": "admin", "password": "x"}),
            ("DELETE", "users/admin", None),
            ("POST", "capabilities", grant),
            ("POST", "roles", {"name": "mine", "action": ["manage_capabilities"]}),
            ("POST", "db/admin/other", {"label": "other"}),
            ("DELETE", "db/admin/shop", None),
            ("POST", "remote/admin/shop", {"remote_name": "out", "remote_location": "http://192.0.2.1/x/y"}),
        )
        allowed = []
        for method, path, body in tried:
            async with httpx.AsyncClient(base_url=_base(at), auth=(at.username, at.password)) as client:
                answer = await client.request(method, path, json=body)
            if answer.status_code != 403:
                allowed.append(f"{method} {path}: {answer.status_code}")
        return allowed

    def _path(self, branch: str | None) -> str:
        return f"admin/shop/local/branch/{branch}" if branch else "admin/shop"


class IdleTerminusDB:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ping(self) -> None:
        await self._client.get("ok")

    def close(self) -> None:
        pass


async def documents(at: Endpoint, path: str, kind: str = "Product") -> list[Any]:
    found: list[Any] = await call(at, "GET", f"document/{path}?type={kind}&as_list=true")
    return found


async def call(at: Endpoint, method: str, path: str, body: Any = None) -> Any:
    """Call the API as any app would."""
    async with httpx.AsyncClient(
        base_url=_base(at), auth=(at.username, at.password), timeout=60, trust_env=False, verify=False
    ) as client:
        answer = await client.request(method, path, json=body)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def _base(at: Endpoint) -> str:
    return f"http://{at.host}:{at.port}/api"
