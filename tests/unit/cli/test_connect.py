"""``coppice connect``: a tunnel that follows the clone, a shell that is told the password by no argument."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from coppice.cli.connect import shell_for
from coppice.kube.errors import KubeError, TransientError

POSTGRESQL = {
    "type": "postgresql",
    "host": "127.0.0.1",
    "port": "4000",
    "username": "app",
    "password": "sesame",
    "database": "shop",
}


def program(path: Path, name: str, script: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """The only place where programs are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_engines_own_shell_is_started_with_the_connection(bea, path):
    program(path, "mysql", f'echo "$@" > {path}/arguments; echo "$MYSQL_PWD" > {path}/password; exit 3')
    done = bea.run("connect", "db")
    assert done.exit_code == 3, done.output
    words = (path / "arguments").read_text().split()
    assert words[:3] == ["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]
    assert words[4:] == ["--user=app", "shop"]
    password = (path / "password").read_text().strip()
    assert password == bea.story.world.login("app", "db-binding").volume.users["app"]
    assert password not in done.output
    assert "DataClone app/db has data/shop main at" in done.stderr


def test_each_engine_has_its_shell(path):
    assert shell_for(POSTGRESQL) is None
    for name in ("psql", "mariadb"):
        program(path, name, "true")
    assert shell_for(POSTGRESQL) == [str(path / "psql")]
    assert (shell_for({**POSTGRESQL, "type": "mysql"}) or [])[0] == str(path / "mariadb")
    assert shell_for({**POSTGRESQL, "type": "other"}) is None


def ended_by_a_signal(person) -> list[float]:
    """Let somebody end the command as soon as it waits; return how long it would have waited."""
    pauses: list[float] = []

    async def told(seconds: float) -> None:
        pauses.append(seconds)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)

    person._pause = told
    return pauses


def test_without_a_shell_the_tunnel_is_held_and_no_password_shown(bea, path):
    pauses = ended_by_a_signal(bea)
    done = bea.run("connect", "db")
    assert done.exit_code == 0, done.output
    assert pauses
    assert done.stdout.startswith("mysql://app@127.0.0.1:")
    assert "the password is in the clone's Secret" in done.stderr
    assert "password-" not in done.output


def test_what_is_asked_for_is_shown_with_the_password(bea, path):
    program(path, "mysql", "exit 3")
    ended_by_a_signal(bea)
    lines = dict(
        line.removeprefix("export ").split("=", 1) for line in bea.expect("connect", "db", "--print").splitlines()
    )
    password = bea.story.world.login("app", "db-binding").volume.users["app"]
    assert lines["MYSQL_PWD"] == password
    assert lines["DATABASE_URL"] == f"mysql://app:{password}@127.0.0.1:{lines['COPPICE_PORT']}/shop"


def test_as_json_it_has_no_password_unless_that_is_asked_for(bea):
    ended_by_a_signal(bea)
    told = bea.expect_json("connect", "db")
    assert told["uri"] == f"mysql://app@127.0.0.1:{told['port']}/shop"
    assert told.keys() == {"host", "port", "uri"}
    ended_by_a_signal(bea)
    assert "MYSQL_PWD" in bea.expect_json("connect", "db", "--print")["environment"]


def test_further_keys_of_the_binding_lead_through_the_tunnel_too(bea, path):
    keys = {"DSN": "{username}@{host}:{port}"}
    bea.story.edit("DataClone", "db", "app", binding={"keys": keys})
    bea.settle()
    program(path, "mysql", f'echo "$DSN" "$MYSQL_TCP_PORT" > {path}/seen')
    bea.expect("connect", "db")
    dsn, port = (path / "seen").read_text().split()
    assert dsn == f"app@127.0.0.1:{port}"


def test_a_port_that_is_taken_is_told(bea, path):
    async def taken() -> str:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = str(server.sockets[0].getsockname()[1])
        try:
            return await asyncio.to_thread(bea.expect_refusal, "connect", "db", "--port", port)
        finally:
            server.close()

    assert "of this machine cannot be used" in asyncio.run(taken())


def test_a_clone_that_is_not_there_yet_cannot_be_connected_to(ann):
    ann.expect("clone", "db", "--from", "data/shop", "--no-wait")
    assert "is not there yet (Not looked at yet)" in ann.expect_refusal("connect", "db")


def test_a_clone_that_is_off_is_told_with_the_next_step(bea):
    bea.story.edit("DataClone", "db", "app", power="Off")
    bea.settle()
    said = bea.expect_refusal("connect", "db")
    assert "has no server that runs (PoweredOff): set spec.power to On or Auto" in said


def test_a_secret_of_somebody_else_is_not_believed(bea):
    secret = bea.story.get("Secret", "db-binding", "app")
    bea.story.delete("Secret", "db-binding", "app")
    metadata = {"name": "db-binding", "namespace": "app"}
    bea.story.kube.add({**secret, "metadata": metadata})
    assert "Secret app/db-binding, which has the login to DataClone app/db, is not there" in bea.expect_refusal(
        "connect", "db"
    )


def test_a_clone_that_goes_ends_the_tunnel(bea, path):
    pauses = []

    async def gone(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            bea.cluster.faults.append(TransientError("GET /x: no answer"))
            return
        bea.story.delete("DataClone", "db", "app")
        await bea.story.settle()

    bea._pause = gone
    assert "DataClone app/db is gone, and the tunnel with it" in bea.expect_refusal("connect", "db")
    assert len(pauses) == 2


def test_a_connection_that_cannot_be_made_later_is_told(bea, path):
    script = f"""
        exec 3<>/dev/tcp/127.0.0.1/$MYSQL_TCP_PORT && read -r where <&3
        echo "$where" > {path}/seen
    """
    (path / "mysql").write_text(f"#!/bin/bash\n{script}\n")
    (path / "mysql").chmod(0o755)
    dial, asked = bea.cluster.dial, []

    async def once(*where):
        asked.append(where)
        if len(asked) > 1:
            raise KubeError("the Pod is not there")
        return await dial(*where)

    bea.cluster.dial = once
    assert "no connection: the Pod is not there" in bea.run("connect", "db").stderr
    assert (path / "seen").read_text() == "\n"


def test_each_connection_goes_to_the_copy_that_serves_then(bea, path, monkeypatch):
    ask = f"exec 3<>/dev/tcp/127.0.0.1/$MYSQL_TCP_PORT && read -r where <&3 && echo $where >> {path}/seen"
    (path / "mysql").write_text(f"#!/bin/bash\n({ask})\ntouch {path}/reset\n({ask})\n")
    (path / "mysql").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:{os.defpath}")
    get = bea.cluster.get

    async def reset_between(kind, name, namespace):
        if (path / "reset").exists():
            (path / "reset").unlink()
            bea.story.annotate("DataClone", "db", "app", reset="now")
            await bea.story.settle()
        return await get(kind, name, namespace)

    bea.cluster.get = reset_between
    bea.expect("connect", "db")
    first, second = (path / "seen").read_text().split()
    assert (first, second) == tuple(f"{bea.story.copy(number, namespace='app')}:3306" for number in (1, 2))
