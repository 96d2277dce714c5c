"""TerminusDB, as its users meet it; over the double of its protocol, for no registry has the server."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from tests.fakes.certificates import Authority

from e2e.harness.shell import CommandError
from e2e.suite import documents
from e2e.suite.data import Clone, Store
from e2e.suite.manifests import EXAMPLES, data_snapshot, resource
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.harness.cluster import Cluster
    from e2e.suite.kube import Kube

NAMESPACE = "data-terminusdb"
DIRECTORY = "/var/lib/coppice/data/terminusdb/db"
TRACKS = "document/admin/{database}?type=Track&as_list=true"
GENRES = "document/admin/{database}?type=Genre&as_list=true"
NOT_LET_IN = r"terminated with exit code (124|1)\b"
"""Of a knock: `timeout` had to end it, or it was refused."""
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
    [genres, refused] = asked(kube, theirs, ("GET", GENRES.format(**theirs), None), ("GET", "users", None))
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


def certify(kube: Kube, authority: Authority, server: str, consent: str) -> dict[str, str]:
    """Make the Secret with which a server may take TLS, as cert-manager does; return what names it in a spec."""
    name, issued = f"{server}-tls", authority.issue(hosts=[f"{server}.{NAMESPACE}.svc"])
    values = {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.certificate}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {consent: server}}
    data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data})
    return {"secretName": name}


def knock(kube: Kube, host: str, port: int) -> None:
    """Connect from a Pod, and say nothing."""
    reach = ("timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}")
    kube.run("exec", "-n", NAMESPACE, documents.CLIENT, "--", *reach)


def test_a_store_and_a_clone_take_tls_and_no_stranger_comes_past_it(
    kube: Kube, cluster: Cluster, albums: Store
) -> None:
    authority = Authority()
    clone = Clone(kube, NAMESPACE, "guarded")
    tls = certify(kube, authority, clone.name, "coppice.dev/clone")
    wanted = {"tls": certify(kube, authority, albums.name, "coppice.dev/store")}
    kube.patch("dstore", albums.name, NAMESPACE, {"spec": {"managed": wanted}})
    eventually(lambda: albums.status["endpoint"]["port"] == 6364, "the store asks for TLS")
    kube.ready(NAMESPACE, f"dstore/{albums.name}")
    clone.apply(albums, tls=tls).ready()
    theirs, ours = kube.binding(NAMESPACE, "albums-binding"), clone.binding
    for binding in (theirs, ours):
        assert binding["uri"].startswith("https://")
        assert (binding["port"], binding["ca.crt"]) == ("6364", authority.certificate)
        [genres] = asked(kube, binding, ("GET", GENRES.format(**binding), None))
        assert (genres["status"], len(genres["content"])) == (200, 25)
    with pytest.raises(CommandError, match="CERTIFICATE_VERIFY_FAILED"):
        asked(kube, {**ours, "ca.crt": Authority("other").certificate}, ("GET", "info", None))
    plain = [ours["host"], *([clone.pod["status"]["podIP"]] if cluster.network_policies_enforced else [])]
    for host in plain:
        knock(kube, host, 6364)
        with pytest.raises(CommandError, match=NOT_LET_IN):
            knock(kube, host, 6363)
    clone.delete()


def test_a_store_is_optimized_when_somebody_asks_and_says_how_large_it_is(kube: Kube, albums: Store) -> None:
    moment = kube.time()
    annotation = f"coppice.dev/optimize-requested-at={moment}"
    kube.run("annotate", "-n", NAMESPACE, f"dstore/{albums.name}", "--overwrite", annotation)
    kube.until_reason("Optimized", "dstore", albums.name, NAMESPACE, "RequestAccepted")
    told = albums.status["optimization"]
    assert (told["requestedAt"], told["done"]) == (moment, told["total"])
    assert told["finishedAt"] >= told["startedAt"]
    assert "failed" not in told
    assert albums.status["size"]["bytes"] > 0
    binding = kube.binding(NAMESPACE, "albums-binding")
    [genres] = asked(kube, binding, ("GET", GENRES.format(**binding), None))
    assert len(genres["content"]) == 25
