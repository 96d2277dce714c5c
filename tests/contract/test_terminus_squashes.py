"""TerminusDB's histories made anew: what its ``squash`` and ``rebase`` do, and branches that begin with a squash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .conftest import Stage, open_stage
from .terminus_kit import call, documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.engines.base import Endpoint

MAIN = "admin/shop/local/branch/main"
CLASS_OF_NOTES = {
    "@id": "Note",
    "@type": "Class",
    "@key": {"@type": "Lexical", "@fields": ["id"]},
    "id": "xsd:string",
    "words": {"@type": "Set", "@class": "xsd:string"},
}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("terminusdb") as stage:
        yield stage


async def _log(at: Endpoint, path: str = "admin/shop") -> list[Any]:
    found: list[Any] = await call(at, "GET", f"log/{path}")
    return found


async def _branch(at: Endpoint, name: str, origin: str = MAIN) -> str:
    await call(at, "POST", f"branch/admin/shop/local/branch/{name}", {"origin": origin})
    return f"admin/shop/local/branch/{name}"


async def _rename(at: Endpoint, path: str, name: str) -> None:
    product = {"@type": "Product", "@id": "Product/1", "id": "1", "name": name}
    await call(at, "PUT", f"document/{path}?author=a&message=m", product)


async def test_a_squash_has_the_documents_and_no_history_and_no_branch_leads_to_it(stage: Stage, loaded: Path) -> None:
    info = {"commit_info": {"author": "a", "message": "all in one"}}
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        before = await _log(admin)
        squashed = await call(admin, "POST", "squash/admin/shop", info)
        assert await _log(admin) == before
        assert squashed["api:old_commit"].endswith(before[0]["identifier"])
        [only] = await _log(admin, squashed["api:commit"])
        assert (only["message"], "parent" in only) == ("all in one", False)
        assert await documents(admin, squashed["api:commit"]) == await documents(admin, "admin/shop")
        assert only["user"].endswith("User/admin")
        [main] = await call(admin, "GET", "document/admin/shop/local/_commits?type=Branch&as_list=true")
        assert main["head"].endswith(before[0]["identifier"])


async def test_two_branches_that_are_rebased_upon_each_other_have_one_history(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        work = await _branch(admin, "work")
        await _rename(admin, work, "work's")
        await stage.kit.insert(admin)
        for path, onto in ((work, MAIN), (MAIN, work)):
            await call(admin, "POST", f"rebase/{path}", {"author": "a", "rebase_from": onto})
        assert await _log(admin, work) == await _log(admin)
        found = await documents(admin, "admin/shop")
        assert len(found) == stage.kit.rows + 1
        assert "work's" in {document["name"] for document in found}


async def test_a_rebase_that_conflicts_is_refused_and_changes_nothing(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        work = await _branch(admin, "work")
        await _rename(admin, work, "work's")
        await _rename(admin, MAIN, "main's")
        before = await _log(admin, work)
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await call(admin, "POST", f"rebase/{work}", {"author": "a", "rebase_from": MAIN})
        told = refused.value.response.json()
        assert (refused.value.response.status_code, told["@type"]) == (400, "api:RebaseErrorResponse")
        assert told["api:error"]["@type"] == "api:RebaseSchemaValidationError"
        assert told["api:error"]["api:their_commit"] == before[0]["identifier"]
        assert [each["@type"] for each in told["api:error"]["api:witness"]] == ["instance_not_cardinality_one"]
        assert await _log(admin, work) == before


async def test_a_rebase_unites_the_values_of_both_and_says_nothing(stage: Stage, loaded: Path) -> None:
    async with stage.runner.serving(stage.store(), loaded, stage.secret()) as server:
        admin = stage.admin(server)
        await call(admin, "POST", "document/admin/shop?graph_type=schema&author=a&message=m", CLASS_OF_NOTES)
        note = {"@type": "Note", "@id": "Note/1", "id": "1"}
        await call(admin, "POST", "document/admin/shop?author=a&message=m", {**note, "words": ["old"]})
        work = await _branch(admin, "work")
        for path, words in ((work, ["one"]), (MAIN, ["two"])):
            await call(admin, "PUT", f"document/{path}?author=a&message=m", {**note, "words": words})
        await call(admin, "POST", f"rebase/{work}", {"author": "a", "rebase_from": MAIN})
        [found] = await documents(admin, work, "Note")
        assert sorted(found["words"]) == ["one", "two"]
