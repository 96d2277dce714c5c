"""What changed on a copy of a PostgreSQL comes to the live database: merged with what others did there meanwhile,
approved, and written in one transaction, or handed over as SQL that somebody runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.change import AUTHOR, REVIEWER, Person, Request
from e2e.suite.data import Clone, Store, sql
from e2e.suite.editor import Editor
from e2e.suite.kube import OPERATOR, OPERATOR_PODS
from e2e.suite.manifests import POSTGRESQL, example
from e2e.suite.theirs import KEEPER, PROGRAMS, WRITER, their_server, their_writer
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

TRACKS = """
    CREATE TABLE track (track_id int PRIMARY KEY, name text NOT NULL, unit_price numeric(10,2) NOT NULL);
    INSERT INTO track VALUES (1, 'Restless', 0.99), (2, 'Princess', 0.99), (3, 'Snowballed', 0.99);
    ALTER TABLE track OWNER TO app;
"""
WORD = "quince7731"
"""A value that stands in rows, and nowhere else."""


@pytest.fixture(scope="module")
def music(kube: Kube) -> Iterator[Store]:
    """The store of the example, with a few rows of its own, whose owners want changes approved."""
    namespace = kube.new_namespace("live-changes")
    [wanted] = example("live/1-store.yaml", namespace, store="music", owners=namespace)
    protection = wanted["spec"]["protection"]
    store = Store(kube, namespace, "music").create(engine="postgresql", managed=POSTGRESQL, protection=protection)
    store.sql(TRACKS)
    take_part(kube, namespace)
    yield store
    kube.delete_namespace(namespace, wait=False)


def take_part(kube: Kube, namespace: str) -> None:
    """Let the author propose clones of a namespace, and the reviewer review."""
    for person, role in ((AUTHOR, "coppice-author"), (AUTHOR, "edit"), (REVIEWER, "coppice-reviewer")):
        kube.run("create", "rolebinding", role, "-n", namespace, f"--clusterrole={role}", f"--user={person}")


def into(store: Store, name: str, clone: Clone, publish: str = "Database") -> Manifest:
    """Return a request into a live database."""
    request = Request(store.kube, store, name).manifest({"clone": {"name": clone.name}})
    request["spec"]["publish"] = publish
    return request


def prices(store: Store) -> dict[int, tuple[str, str]]:
    """Return the tracks of the live database."""
    rows = store.sql("SELECT track_id, name, unit_price::text AS price FROM track ORDER BY 1")
    return {row["track_id"]: (row["name"], row["price"]) for row in rows}


def psql(kube: Kube, server: Manifest, script: str, **login: str) -> str:
    """Run a script as the documentation says, and return what is printed."""
    metadata = server["metadata"]
    words = (
        "exec",
        "-i",
        "-n",
        metadata["namespace"],
        metadata["name"],
        "--",
        "env",
        *(f"{k}={v}" for k, v in login.items()),
    )
    return kube.run(*words, f"{PROGRAMS}/psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=script)


def coppice_patch(kube: Kube, request: Request) -> str:
    """Return what the command prints of an approved change, for somebody who may see it."""
    editor = Editor(kube.cluster.kubeconfig)
    return editor.run("patch", request.name, "--namespace", request.store.namespace).stdout


def test_a_change_is_merged_with_what_others_did_and_written_in_one_transaction(
    kube: Kube, music: Store, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, music.namespace, "music-db").apply(music).ready()
    clone.sql(f"UPDATE track SET unit_price = 1.29 WHERE track_id = 1; INSERT INTO track VALUES (4, '{WORD}', 0.5)")
    clone.sql("ALTER TABLE track ADD CONSTRAINT nothing_is_free CHECK (unit_price >= 0)")
    music.sql("UPDATE track SET name = 'Restless and Wild' WHERE track_id = 1")

    request = Request(kube, music, "autumn-prices")
    ann.apply(*example("live/2-database.yaml", music.namespace, store="music", owners=music.namespace))
    request.until("ChecksPassed")
    status = request.status
    assert [(one["added"], one["modified"], one["deleted"]) for one in status["tables"]] == [(1, 1, 0)]
    assert "nothing_is_free" in str(status["schema"])
    request.until_reason("Approved", "ApprovalsMissing")
    assert prices(music)[1] == ("Restless and Wild", "0.99")

    bea.apply(request.review(REVIEWER))
    published = request.until("Published")["published"]
    assert published["commit"].startswith("xid:")
    assert prices(music)[1] == ("Restless and Wild", "1.29")
    assert prices(music)[4] == (WORD, "0.50")
    uid = kube.get("dcr", request.name, music.namespace)["metadata"]["uid"]  # type: ignore[index]
    eventually(lambda: not kube.owned_by(uid), "the copy that it was compared with is gone")
    said = kube.run("get", "dcr,drev,dclone,dstore,dsnap,events", "-n", music.namespace, "-o", "yaml")
    assert WORD not in said + kube.run("logs", *OPERATOR, "deployment/coppice", "--tail=-1")


def test_the_same_cell_changed_twice_waits_for_a_decision_and_a_check_holds_up(
    kube: Kube, music: Store, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, music.namespace, "second").apply(music).ready()
    clone.sql(
        "UPDATE track SET unit_price = 2.22 WHERE track_id = 2; UPDATE track SET unit_price = 0 WHERE track_id = 3"
    )
    music.sql("UPDATE track SET unit_price = 3.33 WHERE track_id = 2")
    request = Request(kube, music, "second")
    ann.apply(into(music, request.name, clone))
    request.until_reason("Mergeable", "Conflicts")
    [conflict] = request.status["conflicts"]["listed"]
    assert (conflict["kind"], conflict["column"]) == ("Cell", "unit_price")
    decision = {"spec": {"resolutions": [{"conflict": conflict["id"], "take": "Source"}]}}
    kube.patch("dcr", request.name, music.namespace, decision)
    assert "no-free-tracks" in request.until_reason("ChecksPassed", "ChecksFailed")
    clone.sql("UPDATE track SET unit_price = 0.33 WHERE track_id = 3")
    request.until("ChecksPassed")
    bea.apply(request.review(REVIEWER))
    music.sql("UPDATE track SET name = 'Princess of the Dawn' WHERE track_id = 2")
    request.until("Published")
    assert prices(music)[2] == ("Princess of the Dawn", "2.22")
    assert prices(music)[3] == ("Snowballed", "0.33")


def test_a_patch_is_handed_over_run_by_somebody_and_seen_to_be_there(
    kube: Kube, music: Store, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, music.namespace, "music-db").ready()
    clone.delete()
    clone.apply(music).ready().sql("UPDATE track SET unit_price = 4.44 WHERE track_id = 1")
    request = Request(kube, music, "autumn-patch")
    ann.apply(*example("live/3-patch.yaml", music.namespace, store="music", owners=music.namespace))
    request.until("ChecksPassed")
    bea.apply(request.review(REVIEWER))
    request.until_reason("Published", "HandOver")
    script = coppice_patch(kube, request)
    assert prices(music)[1][1] == "1.29"

    binding = kube.binding(music.namespace, "music-binding")
    keys = {"PGHOST": "host", "PGUSER": "username", "PGPASSWORD": "password", "PGDATABASE": "database"}
    psql(kube, music.server, script, **{name: binding[key] for name, key in keys.items()})
    request.until_reason("Published", "HandedOver")
    assert prices(music)[1][1] == "4.44"


def ask(kube: Kube, namespace: str, statements: str) -> list[dict[str, Any]]:
    """Ask the adopted database as its owners do."""
    server = kube.get("pod", "pg-0", namespace)
    assert server is not None
    return sql(kube, server, statements, KEEPER)


def test_an_adopted_database_is_written_to_by_a_login_that_its_owners_gave_for_that(
    kube: Kube, ann: Person, bea: Person
) -> None:
    namespace = kube.new_namespace("ledger")
    kube.apply(*their_server(namespace, "pgdata", 999))
    kube.ready(namespace, "dstore/ledger")
    take_part(kube, namespace)
    store = Store(kube, namespace, "ledger")
    clone = Clone(kube, namespace, "books").apply(store).ready()
    clone.sql("UPDATE entry SET note = 'mended' WHERE n = 7; DELETE FROM entry WHERE n = 8")
    request = Request(kube, store, "mended")
    ann.apply(into(store, request.name, clone))
    assert "writer" in request.until_reason("SourceReady", "WriterMissing")

    kube.patch("dstore", "ledger", namespace, {"spec": {"adopted": {"writer": {"secretName": WRITER}}}})
    request.until_reason("SourceReady", "WriterNotFound")
    kube.apply(their_writer(namespace))
    request.until_reason("Approved", "ApprovalsMissing")
    bea.apply(request.review(REVIEWER))
    request.until("Published")
    found = ask(kube, namespace, "SELECT n, note FROM entry WHERE n IN (7, 8)")
    assert found == [{"n": 7, "note": "mended"}]
    assert ask(kube, namespace, "SELECT count(*) AS n FROM entry") == [{"n": 999}]
    kube.delete_namespace(namespace, wait=False)


@pytest.mark.alone
def test_a_change_that_the_operator_died_over_is_written_once(
    kube: Kube, music: Store, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, music.namespace, "third").apply(music).ready()
    clone.sql("INSERT INTO track VALUES (70, 'Fast as a Shark', 1)")
    request = Request(kube, music, "third")
    ann.apply(into(music, request.name, clone))
    request.until("ChecksPassed")
    bea.apply(request.review(REVIEWER))
    request.until("Approved")
    kube.run("delete", "pod", *OPERATOR_PODS, "--grace-period=0", "--force")
    request.until("Published")
    assert prices(music)[70] == ("Fast as a Shark", "1.00")
