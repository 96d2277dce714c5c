"""What a database that somebody else runs is written to with: a Secret of its own, whose owners agreed to that."""

from __future__ import annotations

import pytest
from tests.fakes.source import add_secret, add_source

from coppice.api.v1alpha1 import Adopted
from coppice.core import labels
from coppice.engines.base import Content, EngineError, LoginRefusedError, UnguardedError, UnreachableError
from coppice.reconcile.adopted import read_adoption, read_writer
from coppice.reconcile.changerequest.writer import writer_problem
from coppice.reconcile.reads import Answer

ANSWERS = Answer(content=Content("15.0", "shop", "main", ("shop",), ()))


def wanted(*, writer=True):
    named = {"claimName": "data-pg-0", "service": "pg", "credentialsSecret": "pg-coppice"}
    return Adopted.model_validate({**named, **({"writer": {"secretName": "pg-writer"}} if writer else {})})


async def read(story, *, writer=True):
    looked = await read_adoption(story.kube, "data", "shop", wanted(writer=writer))
    return looked, await read_writer(story.kube, looked)


@pytest.fixture
def source(story):
    add_source(story, "alice")
    return story


async def test_a_server_is_the_same_for_both_logins_and_each_has_its_own_secret(source):
    add_secret(source, name="pg-writer", store=None, consent={labels.WRITER_OF: "shop"}, username="w", password="x")
    looked, writer = await read(source)
    engine = source.world.engine
    assert [(at.host, at.username, at.guarded) for at in (looked.endpoint(engine), writer.endpoint(engine))] == [
        ("10.9.0.1", "coppice", True),
        ("10.9.0.1", "w", True),
    ]
    refs = [one.server_ref(engine) for one in (looked, writer)]
    assert [(ref.secret_name, ref.adopted_by, ref.writes) for ref in refs] == [
        ("pg-coppice", "shop", False),
        ("pg-writer", "shop", True),
    ]
    assert writer_problem("shop", writer, ANSWERS) is None


async def test_without_a_writer_nothing_is_read_and_the_field_is_named(source):
    _, writer = await read(source, writer=False)
    problem = writer_problem("shop", writer, None)
    assert (writer, problem.reason, problem.stalled) == (None, "WriterMissing", True)
    assert "spec.adopted.writer.secretName" in problem.message


@pytest.mark.parametrize(
    ("secret", "reason", "hint"),
    [
        (None, "WriterNotFound", "coppice.dev/writer-of=shop"),
        ({"store": "shop"}, "WriterNotMeant", "kubectl annotate secret pg-writer -n data coppice.dev/writer-of=shop"),
        ({"store": "shop", "consent": {labels.WRITER_OF: "other"}}, "WriterNotMeant", "coppice.dev/writer-of=shop"),
        ({"store": None, "consent": {labels.WRITER_OF: "shop"}, "password": ""}, "WriterIncomplete", "pg-writer"),
    ],
)
async def test_a_secret_that_may_not_be_used_is_named_and_opens_nothing(source, secret, reason, hint):
    if secret is not None:
        add_secret(source, **{"name": "pg-writer", "username": "w", "password": "hidden", **secret})
    _, writer = await read(source)
    problem = writer_problem("shop", writer, ANSWERS)
    assert problem.reason == reason
    assert hint in problem.message
    assert "hidden" not in problem.message
    assert writer.endpoint(source.world.engine) is None


@pytest.mark.parametrize(
    ("answer", "reason", "stalled"),
    [
        (None, "StoreNotReady", False),
        (Answer(error=UnreachableError("no")), "StoreNotReady", False),
        (Answer(error=EngineError("odd")), "StoreNotReady", False),
        (Answer(error=LoginRefusedError("no")), "WriterRefused", True),
        (Answer(error=UnguardedError("asks for it in the clear")), "WriterNotGuarded", True),
    ],
)
async def test_what_the_server_says_to_the_writer_is_told(source, answer, reason, stalled):
    add_secret(source, name="pg-writer", store=None, consent={labels.WRITER_OF: "shop"}, username="w", password="x")
    _, writer = await read(source)
    problem = writer_problem("shop", writer, answer)
    assert (problem.type, problem.reason, problem.stalled) == ("SourceReady", reason, stalled)
