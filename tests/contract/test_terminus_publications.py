"""A store of TerminusDB takes a result: by compare-and-set, whoever else writes.

Three servers: a store, a clone of it that somebody works on, and a scratch server, which fetches from the clone and whose result the store takes.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from coppice.engines import terminusremotes
from coppice.engines.base import EngineError, UnknownVersionError, UnreachableError
from coppice.engines.merging import MergeInputs, TargetMovedError
from coppice.engines.terminusapi import Api
from coppice.engines.terminusdb import TerminusDBEngine

from .conftest import Stage, open_stage, version_of
from .merge_kit import AUTHOR, SALT
from .terminus_kit import call
from .terminus_merging import Database, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from .runner import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

Step = Callable[[httpx.Request], Awaitable[None]]

PRODUCT = {
    "@id": "Product", "@type": "Class", "@key": {"@type": "Lexical", "@fields": ["id"]}, "id": "xsd:string", "name": "xsd:string",
    "price": {"@type": "Optional", "@class": "xsd:integer"},
}  # fmt: skip
WITH_STOCK = {**PRODUCT, "stock": {"@type": "Optional", "@class": "xsd:integer"}}


def product(number: int, name: str = "like all", **more: Any) -> dict[str, Any]:
    return {"@id": f"Product/{number}", "@type": "Product", "id": str(number), "name": name, "price": 1, **more}


@dataclass
class Trio:
    stage: Stage
    volume: Path
    store: Server
    clone: Server
    scratch: Server
    engine: TerminusDBEngine = field(default_factory=TerminusDBEngine)
    numbers: Iterable[int] = field(default_factory=count)

    @asynccontextmanager
    async def on(self, volume: Path, port: int | None) -> AsyncIterator[Trio]:
        """Run the store on another volume, at a port where it may have been before."""
        workload = self.stage.store(load=False, database="shop")
        async with self.stage.runner.serving(workload, volume, self.store.secret, port=port) as store:
            yield replace(self, volume=volume, store=store)

    def database(self, server: Server) -> Database:
        return Database(Store(self.stage.admin(server)), "shop")

    def host(self, server: Server) -> str:
        return f"127.0.0.1:{server.port}"

    async def line(self) -> Line:
        """Begin a branch of the store, and one of the clone that somebody works on."""
        name = f"b{next(iter(self.numbers))}"
        for server in (self.store, self.clone):
            await self.database(server).branch(name)
        return Line(self, name, self.database(self.store), self.database(self.clone))

    async def act(self, server: Server, action: str, **arguments: str) -> None:
        await self.engine.execute(self.stage.admin(server), action, {"database": "shop", **arguments})

    async def let(self, by: Server, of: Server) -> None:
        await self.act(of, "ensure-fetch-user", password=by.secret["remote-password"])

    async def fetch(self, by: Server, of: Server, commit: str) -> None:
        await self.let(by, of)
        password = by.secret["remote-password"]
        await self.act(by, "fetch", host=self.host(of), commit=commit, password=password)
        await self.act(of, "drop-fetch-user")


@dataclass
class Line:
    """A branch of the store, and the clone's of the same name."""

    trio: Trio
    name: str
    store: Database
    clone: Database

    async def merged(self) -> tuple[MergeInputs, str]:
        """Merge what the clone is at into what the store is at, on the scratch server."""
        trio = self.trio
        target, source = await self.store.head(self.name), await self.clone.head(self.name)
        await trio.fetch(trio.scratch, trio.clone, source)
        await trio.fetch(trio.scratch, trio.store, target)
        inputs = MergeInputs("shop", target, source, AUTHOR, "Autumn prices", SALT)
        outcome = await trio.engine.merge(trio.stage.admin(trio.scratch), inputs)
        assert outcome.result is not None, outcome
        return inputs, outcome.result

    async def publish(self, inputs: MergeInputs, result: str, branch: str | None = None) -> None:
        await self.trio.let(self.trio.store, self.trio.scratch)
        await self.take(inputs, result, branch)

    async def take(self, inputs: MergeInputs, result: str, branch: str | None = None) -> None:
        """Have the store take a result from a scratch server that lets it fetch."""
        trio = self.trio
        move = {"branch": branch or self.name, "expected": inputs.target, "source": inputs.source, "result": result}
        password = trio.store.secret["remote-password"]
        await trio.act(trio.store, "publish", host=trio.host(trio.scratch), password=password, **move)

    async def fetch_result(self, result: str) -> None:
        trio = self.trio
        password = trio.store.secret["remote-password"]
        await trio.act(trio.store, "fetch-result", host=trio.host(trio.scratch), result=result, password=password)

    async def fast_forward(self, expected: str, result: str) -> None:
        """Have the clone take a result."""
        trio = self.trio
        await trio.act(trio.scratch, "offer", commit=result)
        await trio.let(trio.clone, trio.scratch)
        move = {"branch": self.name, "expected": expected, "result": result}
        password = trio.clone.secret["remote-password"]
        await trio.act(trio.clone, "fast-forward", host=trio.host(trio.scratch), password=password, **move)

    async def products(self) -> dict[str, tuple[Any, ...]]:
        documents = await self.store.documents(await self.store.head(self.name))
        return {each["id"]: (each["name"], each.get("price")) for each in documents}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio() -> AsyncIterator[Trio]:
    with open_stage("terminusdb") as stage:
        volume, run = stage.runner.new("volume"), stage.runner
        workload = stage.store(load=False, database="shop")
        async with run.serving(workload, volume, stage.secret()) as store:
            products = [product(number) for number in range(1, 4)]
            await Database(Store(stage.admin(store)), "shop").redefine("main", [PRODUCT], products)
            first, content = await stage.prepared(volume, store)
            second, _ = await stage.prepared(volume, store)
            clone = stage.clone(version_of(content))
            async with (
                run.serving(clone, first, stage.secret()) as one,
                run.serving(clone, second, stage.secret()) as other,
            ):
                yield Trio(stage, volume, store, one, other)


async def _left(trio: Trio, server: Server) -> list[str]:
    """Return what publications and fetches have made on a server and not taken away."""
    at = trio.stage.admin(server)
    remotes = (await call(at, "GET", "remote/admin/shop"))["api:remote_names"]
    return [*remotes, *(name for name in await trio.database(server).branches() if name.startswith("coppice"))]


async def test_a_result_lands_as_the_commit_that_was_made_and_again_changes_nothing(trio: Trio) -> None:
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7)])
    await line.store.write(line.name, [product(1, "mine")])
    inputs, result = await line.merged()
    for _ in range(2):
        await line.publish(inputs, result)
        assert await line.store.head(line.name) == result
    assert (await line.products())["1"] == ("mine", 7)
    assert await _left(trio, trio.store) == []
    assert await _left(trio, trio.clone) == []
    [made] = await trio.engine.log(trio.stage.admin(trio.store), "shop", line.name, limit=1)
    assert made.parents == (inputs.target, inputs.source)
    assert (made.author, made.email, made.message) == (AUTHOR.name, AUTHOR.email, "Autumn prices")
    await line.store.write(line.name, gone=["Product/2"])
    await line.publish(inputs, result)


async def test_a_schema_comes_with_the_documents_that_it_is_for(trio: Trio) -> None:
    line = await trio.line()
    await line.clone.redefine(line.name, [WITH_STOCK], [product(1, stock=5), product(2), product(3)])
    await line.store.write(line.name, [product(4)])
    inputs, result = await line.merged()
    await line.publish(inputs, result)
    documents = {each["id"]: each.get("stock") for each in await line.store.documents(result)}
    assert documents == {"1": 5, "2": None, "3": None, "4": None}
    changes = await trio.engine.changes(trio.stage.admin(trio.store), "shop", inputs.target, result)
    assert changes.statements == ('ALTER class Product ADD stock {"@class": "xsd:integer", "@type": "Optional"}',)


async def test_a_target_that_has_moved_stays_where_it_is_and_is_merged_anew(trio: Trio) -> None:
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7)])
    inputs, result = await line.merged()
    head = await line.store.write(line.name, [product(2, "mine")])
    with pytest.raises(TargetMovedError, match=f"is at {head}"):
        await line.publish(inputs, result)
    assert await line.store.head(line.name) == head
    with pytest.raises(TargetMovedError, match="no branch gone"):
        await line.publish(inputs, result, branch="gone")
    await line.publish(*await line.merged())
    found = await line.products()
    assert (found["1"], found["2"]) == (("like all", 7), ("mine", 1))


async def test_what_moves_while_the_store_fetches_wins(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the branch comes first, and the pull is what compares."""
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7)])
    inputs, result = await line.merged()
    pull = terminusremotes._pull
    heads = []

    async def late(*arguments: Any) -> None:
        heads.append(await line.store.write(line.name, [product(2, "mine")]))
        await pull(*arguments)

    monkeypatch.setattr(terminusremotes, "_pull", late)
    with pytest.raises(TargetMovedError, match=r"is at \w+"):
        await line.publish(inputs, result)
    assert [await line.store.head(line.name)] == heads
    assert await _left(trio, trio.store) == []


async def test_a_branch_that_is_set_back_while_the_store_fetches_stays_back(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull would go over it: what it looks for is that the branch's head has not gone another way."""
    line = await trio.line()
    earlier = await line.store.head(line.name)
    await line.clone.write(line.name, [product(1, price=7)])
    await line.store.write(line.name, [product(2, "regretted")])
    inputs, result = await line.merged()
    fetch = terminusremotes._fetch

    async def long(*arguments: Any) -> None:
        await fetch(*arguments)
        back = {"commit_descriptor": f"admin/shop/local/commit/{earlier}"}
        await call(trio.stage.admin(trio.store), "POST", f"reset/admin/shop/local/branch/{line.name}", back)

    monkeypatch.setattr(terminusremotes, "_fetch", long)
    with pytest.raises(TargetMovedError, match=f"is at {earlier}"):
        await line.publish(inputs, result)
    assert await line.store.head(line.name) == earlier
    assert await _left(trio, trio.store) == []


async def test_a_commit_that_is_not_the_merge_stays_out(trio: Trio) -> None:
    line = await trio.line()
    source = await line.clone.write(line.name, [product(1, price=7)])
    inputs, result = await line.merged()
    scratch = trio.database(trio.scratch)
    await call(
        trio.stage.admin(trio.scratch), "POST", f"branch/admin/shop/local/branch/planted-{line.name}",
        {"origin": f"admin/shop/local/commit/{inputs.target}"},
    )  # fmt: skip
    planted = await scratch.write(f"planted-{line.name}", [product(1, price=7)])
    for other in (planted, source):
        with pytest.raises(EngineError, match="not the merge"):
            await line.publish(inputs, other)
        assert await line.store.head(line.name) == inputs.target
    with pytest.raises(EngineError, match="has no commit"):
        await line.publish(inputs, "0" * 31)
    assert await _left(trio, trio.store) == []
    await line.publish(inputs, result)


async def test_who_may_not_fetch_gets_nothing(trio: Trio) -> None:
    line = await trio.line()
    source = await line.clone.write(line.name, [product(1, price=7)])
    where = {"host": trio.host(trio.clone), "commit": source}
    for password in ("", trio.clone.secret["admin-password"], trio.scratch.secret["remote-password"]):
        with pytest.raises(EngineError, match="lets nobody fetch"):
            await trio.act(trio.scratch, "fetch", password=password, **where)
    assert source not in (await trio.database(trio.scratch).branches()).values()
    await trio.let(trio.scratch, trio.clone)
    at = trio.stage.admin(trio.clone)
    login = ("coppice-fetch", trio.scratch.secret["remote-password"])
    async with httpx.AsyncClient(base_url=f"http://{at.host}:{at.port}/api", auth=login, verify=False) as client:
        info = "author=x&message=x&create=true"
        written = await client.put(f"document/admin/shop?{info}", json=[product(9)])
        assert written.status_code == 403
        assert (await client.get("users")).status_code == 403
    await trio.act(trio.clone, "drop-fetch-user")


async def test_a_push_would_be_refused_as_soon_as_anything_was_committed(trio: Trio) -> None:
    """That is why results are pulled: on a busy store a push never comes through."""
    line = await trio.line()
    at = trio.stage.admin(trio.scratch)
    place = f"{at.host}:{trio.store.port}/admin/shop"
    await call(at, "POST", "remote/admin/shop", {"remote_name": "store", "remote_location": f"http://{place}"})
    admin = trio.stage.admin(trio.store)
    async with httpx.AsyncClient(
        base_url=f"http://{at.host}:{at.port}/api", auth=(at.username, at.password), verify=False
    ) as client:
        login = httpx.BasicAuth(admin.username, admin.password)._auth_header
        headers = {"Authorization-Remote": login}
        fetched = await client.post("fetch/admin/shop/store/_commits", headers=headers)
        assert fetched.status_code == 200
        await line.store.write(line.name, [product(8)])
        body = {"remote": "store", "remote_branch": f"pushed-{line.name}"}
        pushed = await client.post("push/admin/shop/local/branch/main", json=body, headers=headers)
        assert (pushed.status_code, "diverged" in pushed.text) == (400, True)
        await client.post("fetch/admin/shop/store/_commits", headers=headers)
        assert (await client.post("push/admin/shop/local/branch/main", json=body, headers=headers)).status_code == 200
    await call(at, "DELETE", "remote/admin/shop?remote_name=store")


async def test_what_was_fetched_before_is_published_and_what_was_left_is_swept(trio: Trio) -> None:
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7)])
    inputs, result = await line.merged()
    await trio.let(trio.store, trio.scratch)
    at = trio.stage.admin(trio.store)
    with pytest.raises(UnknownVersionError):
        await trio.engine.log(at, "shop", result, limit=1)
    for _ in range(2):
        await line.fetch_result(result)
        [found] = await trio.engine.log(at, "shop", result, limit=1)
        assert (found.hash, found.parents) == (result, (inputs.target, inputs.source))
    assert await line.store.head(line.name) == inputs.target
    assert await _left(trio, trio.store) == [f"coppice-{result[:16]}"]
    await trio.act(trio.store, "sweep")
    assert await _left(trio, trio.store) == []
    await line.publish(inputs, result)
    assert await line.store.head(line.name) == result


async def test_of_two_requests_at_once_neither_takes_away_what_the_other_one_fetches(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is fetched already goes with the other's publication, is fetched again, and is not in its way."""
    lines = [await trio.line(), await trio.line()]
    for line in lines:
        await line.clone.write(line.name, [product(1, price=7)])
    merged = [await line.merged() for line in lines]
    (one, other), (result, others) = lines, (merged[0][1], merged[1][1])
    at, fetch = trio.stage.admin(trio.store), terminusremotes._fetch
    await trio.let(trio.store, trio.scratch)

    async def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(terminusremotes, "_fetch", fetch)
        await other.take(*merged[1])
        await fetch(*arguments)

    await other.fetch_result(others)
    monkeypatch.setattr(terminusremotes, "_fetch", meanwhile)
    await one.fetch_result(result)
    assert await other.store.head(other.name) == others
    [found] = await trio.engine.log(at, "shop", result, limit=1)
    assert found.hash == result
    await one.take(*merged[0])
    assert await one.store.head(one.name) == result
    assert await _left(trio, trio.store) == []


async def test_a_clone_comes_up_to_its_parent_and_keeps_what_it_has(trio: Trio) -> None:
    line = await trio.line()
    theirs = await line.store.write(line.name, [product(1, price=7)])
    own = await line.clone.write(line.name, [product(1, "mine")])
    await trio.fetch(trio.scratch, trio.clone, own)
    await trio.fetch(trio.scratch, trio.store, theirs)
    inputs = MergeInputs("shop", own, theirs, AUTHOR, "Rebase", SALT)
    outcome = await trio.engine.merge(trio.stage.admin(trio.scratch), inputs)
    assert outcome.result is not None
    for _ in range(2):
        await line.fast_forward(own, outcome.result)
        assert await line.clone.head(line.name) == outcome.result
    [first] = [each for each in await line.clone.documents(outcome.result) if each["id"] == "1"]
    assert (first["name"], first["price"]) == ("mine", 7)
    with pytest.raises(EngineError, match="not the merge"):
        await line.fast_forward(outcome.result, theirs)
    later = await line.clone.write(line.name, [product(2, "later")])
    await line.fast_forward(own, outcome.result)
    assert await line.clone.head(line.name) == later
    await line.store.write(line.name, [product(3, price=8)])
    inputs, result = await line.merged()
    merged = await trio.engine.merge_base(trio.stage.admin(trio.scratch), "shop", inputs.target, inputs.source)
    assert merged == theirs, "the parent's head is what both have had since"
    await line.publish(inputs, result)
    assert await line.products() == {"1": ("mine", 7), "2": ("later", 1), "3": ("like all", 8)}


@pytest.mark.parametrize("seed", range(3))
async def test_no_update_is_lost_whoever_else_writes(trio: Trio, seed: int) -> None:
    chance = random.Random(seed)
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7), product(100, "theirs")])
    written: list[str] = []

    async def write(writer: int) -> None:
        for number in range(4):
            await asyncio.sleep(chance.random() / 10)
            await line.store.write(line.name, [product(1000 * (writer + 1) + number)])
            written.append(str(1000 * (writer + 1) + number))

    async def publish() -> None:
        for attempt in range(100):
            try:
                await line.publish(*await line.merged())
            except TargetMovedError:
                await asyncio.sleep(chance.random() * 0.01 * attempt)
                continue
            return
        pytest.fail("a busy store starves a publication")

    await asyncio.gather(publish(), *(write(writer) for writer in range(2)))
    found = await line.products()
    assert {"1", "2", "3", "100", *written} == found.keys()
    assert found["1"] == ("like all", 7)
    assert await _left(trio, trio.store) == []


class KilledError(Exception):
    """Whoever did it is no more."""


class Requests:
    """What the operator asks of servers: something may come before each request, or before its answer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.answered: list[str] = []
        self._before, self._after, send = _nothing, _nothing, Api._send

        async def seen(api: Api, request: httpx.Request) -> Any:
            await self._before(request)
            answer = await send(api, request)
            self.answered.append(request.url.path)
            await self._after(request)
            return answer

        patch.setattr(Api, "_send", seen)

    def watch(self, *, before: Step | None = None, after: Step | None = None) -> None:
        self.answered, self._before, self._after = [], before or _nothing, after or _nothing

    async def kills(self, number: int, work: Awaitable[object]) -> bool:
        """Do something, and return whether the operator died over it at this request: it may be over before."""
        self.watch(before=dies(number))
        try:
            await work
        except KilledError:
            return True
        finally:
            self._before = _nothing
        return False

    @property
    def pulled(self) -> bool:
        return any("/pull/" in path for path in self.answered)


async def _nothing(_: httpx.Request) -> None:
    pass


def changing(number: int) -> Callable[[httpx.Request], bool]:
    """Return what is true of one request: of those that change something, for in the others nothing can break off."""
    left = iter(range(number, -1, -1))
    return lambda request: request.method != "GET" and next(left, None) == 0


def dies(number: int) -> Step:
    """Return the operator's death at a request, after which it sends no other one."""
    due, dead = changing(number), False

    async def die(request: httpx.Request) -> None:
        nonlocal dead
        dead = dead or due(request)
        if dead:
            raise KilledError

    return die


def killed(server: Server, number: int) -> Step:
    """Return the death of a server at a request."""
    due = changing(number)

    async def kill(request: httpx.Request) -> None:
        if due(request):
            await server.stop(signal.SIGKILL)
            raise httpx.ReadError("nobody is there", request=request)

    return kill


@dataclass
class Due:
    """A result, and branches that are to take it."""

    line: Line
    inputs: MergeInputs
    result: str
    numbers: Iterable[int] = field(default_factory=count)

    async def branch(self, trio: Trio) -> Line:
        """Return another branch of a store, which is where the result begins."""
        name, store = f"{self.line.name}-{next(iter(self.numbers))}", trio.database(trio.store)
        await store.branch(name, self.line.name)
        return Line(trio, name, store, self.line.clone)

    async def take(self, line: Line) -> None:
        await line.take(self.inputs, self.result)

    async def is_whole(self, line: Line, *, moved: bool) -> None:
        """See that a branch is exactly where it was, or exactly at the result."""
        assert await line.store.head(line.name) == (self.result if moved else self.inputs.target)
        found = await line.products()
        assert (found["1"], found["2"]) == (("like all", 7 if moved else 1), ("mine", 1))


async def _due(trio: Trio) -> Due:
    line = await trio.line()
    await line.clone.write(line.name, [product(1, price=7)])
    await line.store.write(line.name, [product(2, "mine")])
    due = Due(line, *await line.merged())
    await trio.let(trio.store, trio.scratch)
    return due


@pytest.mark.parametrize("then", ["publish", "sweep"])
async def test_an_operator_that_dies_at_any_request_leaves_it_before_or_after_and_the_next_one_goes_on(
    trio: Trio, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    due, requests, moved = await _due(trio), Requests(monkeypatch), []
    for living in count():
        line = await due.branch(trio)
        if not await requests.kills(living, due.take(line)):
            break
        moved.append(requests.pulled)
        await due.is_whole(line, moved=moved[-1])
        if then == "sweep":
            await trio.act(trio.store, "sweep")
            assert await _left(trio, trio.store) == []
        await due.take(line)
        await due.is_whole(line, moved=True)
        assert await _left(trio, trio.store) == []
    assert set(moved) == {False, True}


async def test_an_operator_that_dies_as_the_store_fetches_a_result_leaves_nothing_that_stays(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, requests, left = await _due(trio), Requests(monkeypatch), []
    line = await due.branch(trio)
    for living in count():
        if not await requests.kills(living, line.fetch_result(due.result)):
            break
        left += await _left(trio, trio.store)
        await trio.act(trio.store, "sweep")
        assert await _left(trio, trio.store) == []
    assert set(left) == {f"coppice-{due.result[:16]}"}
    await due.is_whole(line, moved=False)
    await due.take(line)
    await due.is_whole(line, moved=True)
    assert await _left(trio, trio.store) == []


async def test_an_operator_that_dies_as_a_scratch_server_fetches_leaves_what_can_be_merged_or_is_not_there(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, at, there = Requests(monkeypatch), trio.stage.admin(trio.scratch), []
    line = await trio.line()
    await trio.fetch(trio.scratch, trio.store, await line.store.head(line.name))
    await trio.let(trio.scratch, trio.clone)
    fetch = {"host": trio.host(trio.clone), "password": trio.scratch.secret["remote-password"]}
    for living in count():
        commit = await line.clone.write(line.name, [product(1, price=living)])
        if not await requests.kills(living, trio.act(trio.scratch, "fetch", commit=commit, **fetch)):
            break
        try:
            await trio.engine.log(at, "shop", commit, limit=1)
        except UnknownVersionError:
            there.append(False)
            await trio.act(trio.scratch, "fetch", commit=commit, **fetch)
        else:
            there.append(True)
        inputs = MergeInputs("shop", await line.store.head(line.name), commit, AUTHOR, "Autumn prices", SALT)
        assert (await trio.engine.merge(at, inputs)).result is not None
    assert set(there) == {False, True}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_store_that_is_killed_at_any_step_is_before_or_after_and_goes_on(
    trio: Trio, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """``after``: it has done what it was asked for, and nobody hears of it."""
    due, requests, moved = await _due(trio), Requests(monkeypatch), []
    volume, port, line = trio.stage.runner.copy(trio.volume, trio.store), None, None
    for living in count():
        async with trio.on(volume, port) as mine:
            port = mine.store.port
            if line is not None:
                await due.is_whole(line, moved=moved[-1])
                await due.take(line)
                await due.is_whole(line, moved=True)
                assert await _left(mine, mine.store) == []
            line = await due.branch(mine)
            requests.watch(**{when: killed(mine.store, living)})
            try:
                await due.take(line)
            except UnreachableError:
                moved.append(requests.pulled)
            else:
                break
            finally:
                requests.watch()
    assert set(moved) == {False, True}
