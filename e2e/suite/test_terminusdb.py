"""TerminusDB, as its users meet it; over the double of its protocol, for no registry has the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite import documents
from e2e.suite.data import Clone, Store
from e2e.suite.manifests import EXAMPLES, data_snapshot, resource
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube

NAMESPACE = "data-terminusdb"
DIRECTORY = "/var/lib/coppice/data/terminusdb/db"
TRACKS = "document/admin/{database}?type=Track&as_list=true"
LABEL = '"$(ls {directory}/*albums.label)"'


@pytest.fixture(scope="module")
def albums(kube: Kube) -> Iterator[Store]:
    """The example: a store with Chinook as documents, and a clone of it."""
    kube.delete_namespace(NAMESPACE)
    kube.make_namespace(NAMESPACE)
    documents.make_client(kube, NAMESPACE)
    kube.run("apply", "--server-side", "-k", str(EXAMPLES / "terminusdb"))
    kube.run("wait", "-n", NAMESPACE, "--for=condition=Ready", f"pod/{documents.CLIENT}", "--timeout=60s")
    kube.ready(NAMESPACE, "dstore/albums")
    yield Store(kube, NAMESPACE, "albums")
    kube.delete_namespace(NAMESPACE, wait=False)


def asked(kube: Kube, binding: dict[str, str], *calls: documents.Call) -> list[dict[str, Any]]:
    """Make calls with the login of a binding, from a Pod of its namespace."""
    return documents.asked(kube, NAMESPACE, binding, *calls)


def test_the_example_is_a_store_and_a_copy_of_its_own(kube: Kube, albums: Store) -> None:
    clone = Clone(kube, NAMESPACE, "albums-db").ready()
    assert albums.status["databases"] == ["albums"]
    theirs, ours = kube.binding(NAMESPACE, "albums-binding"), clone.binding
    assert ours["DOCUMENTS"] == f"http://{ours['host']}:6363/api/document/admin/albums"
    genre = {"@type": "Genre", "number": 99, "name": "Mine"}
    [tracks, made] = asked(
        kube,
        ours,
        ("GET", TRACKS.format(**ours), None),
        ("POST", "document/admin/albums?author=me&message=mine", genre),
    )
    assert (tracks["status"], len(tracks["content"]), made["status"]) == (200, 3503, 200)
    [genres, refused] = asked(
        kube, theirs, ("GET", "document/admin/albums?type=Genre&as_list=true", None), ("GET", "users", None)
    )
    assert len(genres["content"]) == 25
    assert refused["status"] == 403
    [stranger] = asked(kube, {**ours, "password": theirs["password"]}, ("GET", "info", None))
    assert stranger["status"] == 401


def test_a_clone_of_a_branch_is_bound_to_it(kube: Kube, albums: Store) -> None:
    spec = {
        "store": {"name": albums.name},
        "branchName": "jazz",
        "from": {"branch": "main"},
        "deletionPolicy": "Delete",
    }
    kube.apply(resource("DataBranch", "jazz", NAMESPACE, spec))
    kube.ready(NAMESPACE, "dbranch/jazz")
    genre = {"@type": "Genre", "number": 98, "name": "Free Jazz"}
    there = "document/admin/albums/local/branch/jazz"
    [made] = asked(kube, kube.binding(NAMESPACE, "albums-binding"), ("POST", f"{there}?author=me&message=more", genre))
    assert made["status"] == 200
    clone = Clone(kube, NAMESPACE, "jazz").apply(albums, source={"branch": "jazz"}).ready()
    assert clone.binding["database"] == "albums/local/branch/jazz"
    path = f"document/admin/{clone.binding['database']}?type=Genre&as_list=true"
    [genres] = asked(kube, clone.binding, ("GET", path, None))
    assert len(genres["content"]) == 26
    clone.delete()
    kube.run("delete", "-n", NAMESPACE, "dbranch/jazz", "--wait", "--timeout=60s")


def test_a_copy_with_a_torn_label_is_taken_anew(kube: Kube, albums: Store) -> None:
    server = albums.server["metadata"]["name"]
    label = LABEL.format(directory=DIRECTORY)
    tear = f"cp {label} /tmp/label && : >{label}"
    mend = f"cat /tmp/label >{label}"
    kube.run("exec", "-n", NAMESPACE, server, "-c", "engine", "--", "sh", "-c", tear)
    try:
        kube.apply(data_snapshot("torn", NAMESPACE, store=albums.name))
        eventually(lambda: kube.status("dsnap", "torn", NAMESPACE).get("tornCopies"), "the copy is seen to be torn")
    finally:
        kube.run("exec", "-n", NAMESPACE, server, "-c", "engine", "--", "sh", "-c", mend)
    kube.ready(NAMESPACE, "dsnap/torn")
    clone = Clone(kube, NAMESPACE, "whole").apply(albums, source={"snapshot": "torn"}).ready()
    [tracks] = asked(kube, clone.binding, ("GET", TRACKS.format(**clone.binding), None))
    assert len(tracks["content"]) == 3503
    clone.delete()
