"""What the executor writes, in which order, and what it refuses to touch."""

import base64

import pytest
from tests.fakes.kube import FakeKube
from tests.fakes.patching import PatchingFakeEngine, patch_between
from tests.unit.runtime.builders import NOON, Recorder, clone, ready, secret

from coppice.core import labels
from coppice.core.plan import EngineCall, Event, Plan, Publication, Ref, Scale, SecretKey, ServerRef
from coppice.engines.base import PUBLISH_ACTION, EngineError, UnderWayError, UnreachableError
from coppice.kube.errors import ConflictError, NameConflictError, WiringConflictError
from coppice.runtime.executor import Executor
from coppice.runtime.metrics import Metrics


class Engine:
    admin_user = "root"
    capture_action = "flush"

    def __init__(self, error=None):
        self.calls = []
        self.error = error

    async def execute(self, at, action, arguments):
        self.calls.append((at, action, dict(arguments)))
        if self.error:
            raise self.error


@pytest.fixture
def kube():
    return FakeKube(clone())


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def execute(kube, recorder, engine, metrics):
    executor = Executor(client=kube, live=kube, engines={"dolt": engine}, recorder=recorder, metrics=metrics)

    async def run(plan):
        return await executor.execute(plan, kube.peek("DataClone", "app", "db"), NOON)

    return run


def writes(kube):
    return [(call.verb, call.key.kind, call.manager) for call in kube.calls if call.verb not in {"get", "list"}]


async def test_the_order_is_that_of_the_plan(kube, execute, recorder):
    owner = kube.peek("DataClone", "app", "db")
    old = kube.add(secret(owner, "old"))
    kept = kube.add(secret(owner, "kept"))
    edited = kube.add(secret(owner, "edited", surplus="eA=="))
    alias = kube.add(secret(owner, "alias"))
    plan = Plan(
        add_finalizer=True,
        create=(secret(owner, "new"),),
        prune=({**edited, "data": {"surplus": None}},),
        apply=(kept,),
        delete=(Ref.of(old),),
        discard=(Ref.of(alias),),
        status={"conditions": [ready("True", "Made")]},
        events=(Event("Ready", "done"),),
    )
    await execute(plan)
    assert writes(kube) == [
        ("apply", "DataClone", "coppice-finalizer"),
        ("create", "Secret", "coppice"),
        ("prune", "Secret", "coppice"),
        ("apply", "Secret", "coppice"),
        ("delete", "Secret", ""),
        ("delete", "Secret", ""),
        ("apply", "DataClone", "coppice-status"),
    ]
    assert recorder.events == [("db", "Ready")]
    assert [kube.peek("Secret", "app", name) for name in ("old", "alias")] == [None, None]


async def test_a_plan_that_changes_nothing_writes_nothing_and_reports_nothing(kube, execute, recorder):
    plan = Plan(add_finalizer=True, status={"conditions": [ready("True", "Made")]}, events=(Event("Ready", "done"),))
    await execute(plan)
    before = kube.mutations
    await execute(plan)
    assert kube.mutations == before
    assert recorder.events == [("db", "Ready")]


async def test_creating_twice_is_creating_once(kube, execute):
    owner = kube.peek("DataClone", "app", "db")
    await execute(Plan(create=(secret(owner, password="eA=="),)))
    await execute(Plan(create=(secret(owner, password="eQ=="),)))
    assert kube.peek("Secret", "app", "db")["data"] == {"password": "eA=="}


@pytest.mark.parametrize("how", ["create", "apply"])
async def test_somebody_elses_object_of_our_name_is_left_alone(kube, execute, how):
    owner = kube.peek("DataClone", "app", "db")
    theirs = secret({**owner, "metadata": {**owner["metadata"], "uid": "another"}}, password="eA==")
    kube.add(theirs)
    before = kube.peek("Secret", "app", "db")
    with pytest.raises(NameConflictError, match="Secret app/db exists already"):
        await execute(Plan(**{how: (secret(owner, password="eQ=="),)}))
    assert kube.peek("Secret", "app", "db") == before


async def test_an_apply_without_uid_makes_and_after_a_crash_keeps(kube, execute):
    owner = kube.peek("DataClone", "app", "db")
    await execute(Plan(apply=(secret(owner, one="MQ==", two="Mg=="),)))
    await execute(Plan(apply=(secret(owner, one="MQ=="),)))
    assert kube.peek("Secret", "app", "db")["data"] == {"one": "MQ=="}


async def test_an_apply_with_uid_makes_nothing(kube, execute):
    owner = kube.peek("DataClone", "app", "db")
    gone = kube.add(secret(owner))
    kube.remove("Secret", "app", "db")
    with pytest.raises(ConflictError):
        await execute(Plan(apply=(gone,)))
    assert kube.peek("Secret", "app", "db") is None


@pytest.mark.parametrize("how", ["create", "apply"])
async def test_nothing_is_made_without_an_owner(kube, execute, how):
    orphan = secret(kube.peek("DataClone", "app", "db"))
    del orphan["metadata"]["labels"][labels.OWNER_UID]
    with pytest.raises(ValueError, match="owner-uid"):
        await execute(Plan(**{how: (orphan,)}))
    assert kube.all("Secret") == []


async def test_the_finalizer_goes_last(kube, execute):
    await execute(Plan(add_finalizer=True))
    kube.remove("DataClone", "app", "db")
    await execute(Plan(status={"conditions": [ready("False", "Deleting")]}, remove_finalizer=True))
    assert kube.peek("DataClone", "app", "db") is None
    assert [call.manager for call in kube.calls][-2:] == ["coppice-status", "coppice-finalizer"]


async def test_a_status_is_not_written_to_a_successor_of_the_same_name(kube, recorder, engine, metrics):
    executor = Executor(client=kube, live=kube, engines={"dolt": engine}, recorder=recorder, metrics=metrics)
    observed = kube.peek("DataClone", "app", "db")
    kube.remove("DataClone", "app", "db")
    kube.add(clone())
    with pytest.raises(ConflictError):
        await executor.execute(Plan(status={"conditions": [ready("True", "Made")]}), observed, NOON)
    assert "status" not in kube.peek("DataClone", "app", "db")


def call(**secret_arguments):
    target = ServerRef(host="10.0.0.1", port=3306, secret_namespace="app", secret_name="db")
    return EngineCall("dolt", target, "ensure-app-user", {"username": "app"}, secret_arguments)


async def test_an_engine_call_gets_its_secrets_when_it_is_made(kube, execute, engine):
    values = {key: base64.b64encode(key.encode()).decode() for key in ("admin-password", "app-password")}
    kube.add(secret(kube.peek("DataClone", "app", "db"), **values))
    await execute(Plan(calls=(call(password="app-password"),)))
    ((at, action, arguments),) = engine.calls
    assert (at.host, at.port, at.username, at.password) == ("10.0.0.1", 3306, "root", "admin-password")
    assert (action, arguments) == ("ensure-app-user", {"username": "app", "password": "app-password"})
    assert "admin-password" not in repr(at)


async def test_without_its_secret_an_engine_is_not_reachable(execute):
    with pytest.raises(UnreachableError, match="Secret app/db is not there"):
        await execute(Plan(calls=(call(),)))


async def test_a_secret_that_was_emptied_by_hand_is_named(kube, execute, engine):
    kube.add(secret(kube.peek("DataClone", "app", "db"), **{"admin-password": "eA=="}))
    with pytest.raises(EngineError, match="Secret app/db has no app-password any more"):
        await execute(Plan(calls=(call(password="app-password"),)))
    assert engine.calls == []


def borrowing_call():
    target = ServerRef(host="10.0.0.1", port=3306, secret_namespace="app", secret_name="db")
    borrowed = {"password": SecretKey("app", "other", "remote-password")}
    return EngineCall("dolt", target, "ensure-fetch-user", {}, borrowed_arguments=borrowed)


async def test_an_engine_call_borrows_from_the_secret_of_another_server(kube, execute, engine):
    owner = kube.peek("DataClone", "app", "db")
    kube.add(secret(owner, **{"admin-password": base64.b64encode(b"ours").decode()}))
    kube.add(secret(owner, "other", **{"remote-password": base64.b64encode(b"theirs").decode()}))
    await execute(Plan(calls=(borrowing_call(),)))
    ((at, action, arguments),) = engine.calls
    assert (at.password, action, arguments) == ("ours", "ensure-fetch-user", {"password": "theirs"})


async def test_what_an_older_secret_lacks_is_in_the_one_beside_it(kube, execute, engine):
    owner = kube.peek("DataClone", "app", "db")
    kube.add(secret(owner, **{"admin-password": base64.b64encode(b"ours").decode()}))
    kube.add(secret(owner, "other", **{"admin-password": "eA=="}))
    kube.add(secret(owner, "other-added", **{"remote-password": base64.b64encode(b"added").decode()}))
    await execute(Plan(calls=(borrowing_call(),)))
    assert [arguments for _, _, arguments in engine.calls] == [{"password": "added"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "Secret app/other is not there, and ensure-fetch-user needs it"),
        ({"admin-password": "eA=="}, "Secret app/other has no remote-password any more"),
    ],
)
async def test_what_cannot_be_borrowed_is_named_and_nothing_is_done(kube, execute, engine, values, message):
    owner = kube.peek("DataClone", "app", "db")
    kube.add(secret(owner, **{"admin-password": "eA=="}))
    if values is not None:
        kube.add(secret(owner, "other", **values))
    with pytest.raises(EngineError, match=message):
        await execute(Plan(calls=(borrowing_call(),)))
    assert engine.calls == []


def foreign_call(action="flush"):
    return EngineCall("dolt", ServerRef("10.0.0.1", 3306, "app", "theirs", adopted_by="shop"), action, {})


def add_login(kube, *, store="shop", consent=labels.STORE, **values):
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": "theirs", "namespace": "app", "annotations": {consent: store}}
    kube.add({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


async def test_a_call_to_an_adopted_server_uses_its_secrets_login_and_is_guarded(kube, execute, engine):
    add_login(kube, username="looker", password="secret", **{"ca.crt": "PEM"})
    await execute(Plan(calls=(foreign_call(),)))
    ((at, action, arguments),) = engine.calls
    assert (at.username, at.password, at.guarded, at.ca) == ("looker", "secret", True, "PEM")
    assert (action, arguments) == ("flush", {})


@pytest.mark.parametrize(("store", "values"), [("other", {"password": "x"}), ("shop", {})])
async def test_a_secret_that_was_taken_back_is_not_sent(kube, execute, engine, store, values):
    add_login(kube, store=store, username="looker", **values)
    with pytest.raises(EngineError, match="Secret app/theirs is not to be used any more"):
        await execute(Plan(calls=(foreign_call(),)))
    assert engine.calls == []


async def test_nothing_else_is_done_to_an_adopted_server(kube, execute, engine):
    add_login(kube, username="looker", password="secret")
    with pytest.raises(ValueError, match="ensure-app-user"):
        await execute(Plan(calls=(foreign_call("ensure-app-user"),)))
    assert engine.calls == []


WRITER = ServerRef("10.0.0.1", 3306, "app", "theirs", adopted_by="shop", writes=True)


async def test_an_adopted_server_is_written_to_with_its_writer_and_by_publications_alone(kube, execute, engine):
    add_login(kube, consent=labels.WRITER_OF, username="writer", password="secret")
    await execute(Plan(calls=(EngineCall("dolt", WRITER, PUBLISH_ACTION, {}),)))
    ((at, action, _),) = engine.calls
    assert (at.username, at.guarded, action) == ("writer", True, PUBLISH_ACTION)
    for other in ("ensure-app-user", "flush"):
        with pytest.raises(ValueError, match=other):
            await execute(Plan(calls=(EngineCall("dolt", WRITER, other, {}),)))
    with pytest.raises(ValueError, match=PUBLISH_ACTION):
        await execute(Plan(calls=(foreign_call(PUBLISH_ACTION),)))
    assert len(engine.calls) == 1


async def test_who_agreed_to_be_looked_at_has_not_agreed_to_be_written_to(kube, execute, engine):
    add_login(kube, username="looker", password="secret")
    with pytest.raises(EngineError, match="Secret app/theirs is not to be used any more"):
        await execute(Plan(calls=(EngineCall("dolt", WRITER, PUBLISH_ACTION, {}),)))
    assert engine.calls == []


# -- publications --


def publication(target=None):
    server = target or ServerRef("10.0.0.1", 3306, "app", "db", as_app=True)
    return Publication("live", server, "shop", "salt", "publishing", "all", patch_between([], ["album/1"]))


class LiveDatabase(PatchingFakeEngine):
    """Notes what it is asked to write, and what the object's status says in the middle of it."""

    def __init__(self, kube):
        super().__init__()
        self.kube, self.seen, self.error = kube, [], None
        self.meanwhile = lambda: None

    def status(self):
        return self.kube.peek("DataClone", "app", "db").get("status") or {}

    async def write(self, target, database, patch, salt, begun):
        self.meanwhile()
        await begun("xid:7")
        self.seen.append((target, database, patch, salt, self.status()["publishing"]))
        if self.error:
            raise self.error


@pytest.fixture
def live(kube):
    owner = kube.peek("DataClone", "app", "db")
    kube.add(secret(owner, **{"admin-password": "eA==", "app-password": "eQ=="}))
    return LiveDatabase(kube)


@pytest.fixture
def publish(kube, recorder, metrics, live):
    executor = Executor(client=kube, live=kube, engines={"live": live}, recorder=recorder, metrics=metrics)
    before = kube.peek("DataClone", "app", "db")

    async def run(target=None, *, guarded=True):
        status = {"conditions": [ready("False", "Publishing")], "publishing": None}
        plan = Plan(publication=publication(target), status=status, guarded=guarded)
        return await executor.execute(plan, before, NOON)

    return run


async def test_a_transaction_is_noted_before_it_is_committed_and_the_note_stays(publish, live):
    await publish()
    ((target, database, patch, salt, noted),) = live.seen
    assert (target.username, target.password, database, salt) == (live.app_user, "y", "shop", "salt")
    assert (patch, noted) == (publication().patch, "xid:7/all")
    assert live.status()["publishing"] == "xid:7/all"
    assert live.status()["conditions"][0]["reason"] == "Publishing"


async def test_what_has_changed_since_it_was_looked_at_is_not_written_for(kube, publish, live):
    def edit():
        kube.change("DataClone", "app", "db", lambda found: found["spec"].update(power="Off"))

    live.meanwhile = edit
    with pytest.raises(ConflictError):
        await publish()
    assert (live.seen, live.status()) == ([], {})


async def test_the_note_outlives_an_error_after_it_and_whatever_is_said_of_that(kube, publish, live, metrics):
    live.error = EngineError("the connection broke")
    before = kube.peek("DataClone", "app", "db")
    with pytest.raises(EngineError):
        await publish()
    assert live.status()["publishing"] == "xid:7/all"
    assert metrics.engine_call_errors.labels("live", PUBLISH_ACTION)._value.get() == 1
    executor = Executor(client=kube, live=kube, engines={}, recorder=Recorder(), metrics=metrics)
    with pytest.raises(ConflictError):
        await executor.execute(Plan(status={"conditions": [ready("False", "EngineError")]}, guarded=True), before, NOON)
    assert live.status()["publishing"] == "xid:7/all"


async def test_an_adopted_database_is_published_to_by_its_writer(kube, publish, live):
    add_login(kube, consent=labels.WRITER_OF, username="writer", password="secret")
    await publish(ServerRef("10.0.0.1", 3306, "app", "theirs", adopted_by="shop", writes=True))
    assert [(target.username, target.guarded) for target, *_ in live.seen] == [("writer", True)]
    with pytest.raises(ValueError, match=PUBLISH_ACTION):
        await publish(ServerRef("10.0.0.1", 3306, "app", "theirs", adopted_by="shop"))


async def test_an_engine_that_patches_nothing_publishes_nothing(kube, recorder, metrics, engine):
    executor = Executor(client=kube, live=kube, engines={"live": engine}, recorder=recorder, metrics=metrics)
    engine.name = "dolt"
    with pytest.raises(TypeError, match="dolt"):
        await executor.execute(Plan(publication=publication()), kube.peek("DataClone", "app", "db"), NOON)


async def test_nothing_is_written_after_a_failed_call(kube, execute, engine, metrics):
    kube.add(secret(kube.peek("DataClone", "app", "db"), **{"admin-password": "eA=="}))
    engine.error = EngineError("no such database")
    with pytest.raises(EngineError):
        await execute(Plan(calls=(call(),), status={"conditions": [ready("True", "Made")]}))
    assert writes(kube) == []
    labels_ = {"engine": "dolt", "action": "ensure-app-user"}
    assert metrics.registry.get_sample_value("coppice_engine_call_errors_total", labels_) == 1


async def test_what_only_takes_long_is_no_error_of_the_engine(kube, execute, engine, metrics):
    kube.add(secret(kube.peek("DataClone", "app", "db"), **{"admin-password": "eA=="}))
    engine.error = UnderWayError("it is at it")
    with pytest.raises(UnderWayError):
        await execute(Plan(calls=(call(),)))
    labels_ = {"engine": "dolt", "action": "ensure-app-user"}
    assert metrics.registry.get_sample_value("coppice_engine_call_errors_total", labels_) is None


def wiring(kube, name, **metadata):
    found = kube.peek("Deployment", "app", name)
    containers = [{"name": "app", "env": [{"name": "HOST", "value": "db"}]}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "app", "uid": found["metadata"]["uid"], **metadata},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


def deployment(name, env):
    containers = [{"name": "app", "image": "web:1", "env": env}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "app"},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


async def test_wiring_is_never_forced_and_holds_up_nothing_but_the_report(kube, execute):
    owner = kube.peek("DataClone", "app", "db")
    old = kube.add(secret(owner, "old"))
    taken = kube.add(deployment("taken", [{"name": "HOST", "value": "elsewhere"}]))
    kube.add(deployment("free", []))
    plan = Plan(
        delete=(Ref.of(old),),
        wire=(wiring(kube, "taken"), wiring(kube, "free")),
        status={"conditions": [ready("True", "Made")]},
    )
    with pytest.raises(WiringConflictError) as caught:
        await execute(plan)
    assert list(caught.value.refusals) == ["taken"]
    assert kube.peek("Deployment", "app", "taken")["spec"] == taken["spec"]
    assert kube.peek("Deployment", "app", "free")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert kube.peek("Secret", "app", "old") is None
    assert "status" not in kube.peek("DataClone", "app", "db")
    assert ("apply", "Deployment", "coppice-wiring") in writes(kube)


async def test_a_deployment_that_was_made_anew_is_no_conflict_and_is_left_alone(kube, execute):
    kube.add(deployment("web", []))
    gone = kube.add(deployment("gone", []))
    stale = wiring(kube, "web", uid="another")
    vanished = wiring(kube, gone["metadata"]["name"])
    kube.remove("Deployment", "app", "gone")
    await execute(Plan(wire=(stale, vanished), status={"conditions": [ready("True", "Made")]}))
    assert kube.peek("Deployment", "app", "web")["spec"]["template"]["spec"]["containers"][0]["env"] == []
    assert kube.peek("Deployment", "app", "gone") is None


def sleep(kube, name, *, force=False):
    found = kube.peek("Deployment", "app", name)
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    return Scale({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 0}}, force)


async def test_scaling_takes_nothing_by_force_that_the_plan_does_not_say(kube, execute):
    for name in ("taken", "free"):
        kube.add(deployment(name, []))
    plan = Plan(
        scale=(sleep(kube, "taken"), sleep(kube, "free", force=True)),
        wire=(wiring(kube, "free"),),
        status={"conditions": [ready("True", "Made")]},
    )
    with pytest.raises(WiringConflictError) as caught:
        await execute(plan)
    assert (list(caught.value.refusals), list(caught.value.unscaled)) == ([], ["taken"])
    assert kube.peek("Deployment", "app", "taken")["spec"]["replicas"] == 1
    free = kube.peek("Deployment", "app", "free")["spec"]
    assert free["replicas"] == 0
    assert free["template"]["spec"]["containers"][0]["env"], "its version changed, and it is wired all the same"
    assert "status" not in kube.peek("DataClone", "app", "db")


async def test_a_deployment_that_somebody_scaled_meanwhile_is_not_scaled_and_all_is_looked_at_again(kube, execute):
    kube.add(deployment("web", []))
    stale = sleep(kube, "web", force=True)
    kube.scale("app", "web", 3)
    with pytest.raises(ConflictError):
        await execute(Plan(scale=(stale,), status={"conditions": [ready("True", "Made")]}))
    assert kube.peek("Deployment", "app", "web")["spec"]["replicas"] == 3
    assert "status" not in kube.peek("DataClone", "app", "db")
