"""What a clone's users cannot reach: the source's passwords, raw data, other teams' stores, the API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.harness.shell import CommandError
from e2e.suite.data import CLIENT, Clone, Login, Store, sql
from e2e.suite.kube import SYSTEM
from e2e.suite.manifests import data_clone, data_grant, data_snapshot, data_store, python_pod, resource
from e2e.suite.watch import watching
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.harness.cluster import Cluster
    from e2e.suite.kube import Kube

TIMED_OUT = 124
"""The exit code of `timeout` for a program that it had to end."""
OUTSIDER = ("legacy", "an-old-password")
LEGACY = f"""
CREATE USER '{OUTSIDER[0]}'@'%' IDENTIFIED BY '{OUTSIDER[1]}'; GRANT ALL ON *.* TO '{OUTSIDER[0]}'@'%';
CALL dolt_remote('add', 'backup', 'http://backup.example.invalid/shop');
SET PERSIST max_connections = 77
"""


@pytest.fixture(scope="module")
def secrets(store: Store) -> list[tuple[str, str]]:
    """What somebody who knows the source would try: its users with their passwords, and a root without one."""
    store.sql("CALL dolt_branch('quiet'); " + LEGACY)
    passwords = store.passwords
    known = [("root", passwords["admin-password"]), ("app", passwords["app-password"]), OUTSIDER]
    server = store.kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    for user, password in known:
        assert sql(store.kube, server, "SELECT 1", Login(user, password, store.name)), "they work on the source"
    return [*known, ("root", ""), ("app", "")]


@pytest.fixture
def hammer(kube: Kube, tenant: str, secrets: list[tuple[str, str]]) -> Iterator[str]:
    """A Pod in the tenant's namespace that tries the source's passwords on whatever comes to life there."""
    image, logins = kube.operator_image(), {"LOGINS": json.dumps(secrets)}
    kube.apply(python_pod("hammer", tenant, image=image, runs="hammer", env=logins))
    kube.run("wait", "-n", tenant, "--for=condition=Ready", "pod/hammer", "--timeout=60s")
    eventually(lambda: kube.run("logs", "-n", tenant, "hammer"), "the hammer has begun")
    yield "hammer"
    kube.run("delete", "-n", tenant, "pod/hammer")


def test_the_sources_passwords_never_work_on_a_clone(kube: Kube, store: Store, tenant: str, hammer: str) -> None:
    clone = Clone(kube, tenant, "hammered").apply(store).ready()
    address = clone.pod["status"]["podIP"]

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in kube.run("logs", "-n", tenant, hammer).splitlines()]

    def seen() -> dict[str, int]:
        return next((entry["seen"].get(address, {}) for entry in reversed(told()) if "seen" in entry), {})

    denied = seen().get("denied", 0)
    if not seen():
        pytest.skip(f"this cluster's network gives Pods no consecutive addresses: {address} was not expected")
    eventually(lambda: seen().get("denied", 0) > denied + 100, "it goes on while the clone is Ready")
    assert seen()["closed"] > 0, "it was there before the server listened"
    assert not [entry for entry in told() if "success" in entry]
    assert clone.sql("SELECT COUNT(*) AS items FROM item") == [{"items": 3}]
    clone.delete()


def test_nothing_of_the_sources_accounts_reaches_a_clone(
    kube: Kube, store: Store, tenant: str, secrets: list[tuple[str, str]]
) -> None:
    del secrets
    clone = Clone(kube, tenant, "clean").apply(store).ready()

    users = {row["User"] for row in clone.admin_sql("SELECT User FROM mysql.user")}
    assert OUTSIDER[0] not in users
    assert clone.admin_sql("SELECT * FROM dolt_remotes") == []
    [persisted] = clone.admin_sql("SHOW VARIABLES LIKE 'max_connections'")
    assert persisted["Value"] != "77"
    [scheduler] = clone.admin_sql("SHOW VARIABLES LIKE 'event_scheduler'")
    assert scheduler["Value"] == "OFF"
    assert clone.binding["password"] not in store.passwords.values()
    assert clone.admin_password not in store.passwords.values()


def prepared_handles(kube: Kube, store: Store) -> set[str]:
    """Return what the storage calls the store's prepared snapshots."""
    names = {
        snapshot["status"]["prepared"]["volumeSnapshotName"]
        for snapshot in kube.items("datasnapshots", "-n", store.namespace)
        if "prepared" in snapshot.get("status", {})
    }
    made = {(store.namespace, name) for name in names}
    bound = [(content["spec"]["volumeSnapshotRef"], content) for content in kube.items("volumesnapshotcontents")]
    return {content["status"]["snapshotHandle"] for of, content in bound if (of["namespace"], of["name"]) in made}


def test_only_prepared_snapshots_come_into_the_tenants_namespace(
    kube: Kube, store: Store, namespace: str, tmp_path: Path
) -> None:
    kube.apply(data_grant("watched", store.namespace, store=store.name, to=[namespace]))
    of_content = (".metadata.name", ".spec.volumeSnapshotRef.namespace", ".spec.source.snapshotHandle")
    of_snapshot = (".metadata.name", ".spec.source.volumeSnapshotContentName")
    of_claim = (".metadata.name", ".spec.dataSourceRef.name")
    here = ("-n", namespace)
    with (
        watching(kube, tmp_path / "contents", "volumesnapshotcontents", fields=of_content) as contents,
        watching(kube, tmp_path / "snapshots", "volumesnapshots", *here, fields=of_snapshot) as snapshots,
        watching(kube, tmp_path / "claims", "persistentvolumeclaims", *here, fields=of_claim) as claims,
    ):
        Clone(kube, namespace).apply(store).ready()
        eventually(lambda: contents() and snapshots() and claims(), "the watches have told what they saw")
        handles = {name: handle for name, where, handle in contents() if where == namespace}
        aliases = {name for name, _ in snapshots()}
        behind = {content for _, content in snapshots()}
        sources = {source for _, source in claims()}

    assert sources == aliases, "claims are made from the aliases alone"
    assert behind == handles.keys(), "and these are of contents made for this namespace"
    assert handles
    assert set(handles.values()) <= prepared_handles(kube, store)


def test_nothing_raw_is_left_in_the_tenants_namespace(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "clean").apply(store).ready()

    def aliases() -> list[str]:
        contents = kube.items("volumesnapshotcontents", "-l", f"coppice.dev/owner-uid={clone.uid}")
        return [item["metadata"]["name"] for item in (*contents, *kube.items("volumesnapshots", "-n", tenant))]

    eventually(lambda: not aliases(), "the aliases of the snapshot are gone")
    snapshots = kube.items("datasnapshots", "-n", store.namespace)
    contents = {item["metadata"]["name"] for item in kube.items("volumesnapshotcontents")}
    for snapshot in snapshots:
        prepared = kube.get("volumesnapshot", snapshot["status"]["prepared"]["volumeSnapshotName"], store.namespace)
        assert prepared is not None, "the owners' prepared snapshot outlives its aliases"
        assert prepared["status"]["boundVolumeSnapshotContentName"] in contents
        assert kube.get("volumesnapshot", f"{snapshot['metadata']['name']}-raw", store.namespace) is None


def test_all_pods_are_restricted_and_engines_have_no_token(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "clean").apply(store).ready()
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    for pod in (clone.pod, server):
        where, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
        with pytest.raises(CommandError, match="No such file"):
            kube.run("exec", "-n", where, name, "--", "ls", "/var/run/secrets/kubernetes.io")
    for where in (tenant, store.namespace, SYSTEM):
        # The API server says of every Pod that is there what it would say of a new one.
        level = "pod-security.kubernetes.io/enforce=restricted"
        said = kube.run("label", "namespace", where, level, "--overwrite", "--dry-run=server", "-o", "name")
        assert said.strip() == f"namespace/{where}"
        enforced = kube.get("namespace", where)
        assert enforced is not None
        assert enforced["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.fixture(scope="module")
def editor(kube: Kube, tenant: str) -> str:
    """Somebody who has Kubernetes' own role `edit` in the tenant's namespace, and nothing else."""
    kube.run("create", "serviceaccount", "editor", "-n", tenant)
    kube.run("create", "rolebinding", "editor", "-n", tenant, "--clusterrole=edit", f"--serviceaccount={tenant}:editor")
    return f"--as=system:serviceaccount:{tenant}:editor"


def may(kube: Kube, who: str, verb: str, what: str, namespace: str) -> bool:
    """Return whether somebody may do something; ``what`` is a resource, or resource/subresource."""
    kind, _, part = what.partition("/")
    # `can-i` ends with an error where the answer is no.
    try:
        return kube.run("auth", "can-i", verb, kind, f"--subresource={part}", "-n", namespace, who).strip() == "yes"
    except CommandError as error:
        if "no" not in str(error).splitlines():
            raise
        return False


def test_an_editor_may_write_clones_and_nothing_else(kube: Kube, store: Store, tenant: str, editor: str) -> None:
    for verb in ("create", "update", "delete"):
        assert may(kube, editor, verb, "dataclones.coppice.dev", tenant)
    for kind in ("datastores", "datagrants", "datasnapshots", "databranches"):
        assert may(kube, editor, "list", f"{kind}.coppice.dev", tenant)
        assert not may(kube, editor, "create", f"{kind}.coppice.dev", tenant)
        assert not may(kube, editor, "patch", f"{kind}.coppice.dev/status", tenant)
        assert not may(kube, editor, "get", f"{kind}.coppice.dev", store.namespace)
    assert not may(kube, editor, "patch", "dataclones.coppice.dev/status", tenant)
    assert not may(kube, editor, "create", "volumesnapshots.snapshot.storage.k8s.io", tenant)
    assert not may(kube, editor, "create", "volumesnapshotcontents.snapshot.storage.k8s.io", tenant)
    assert not may(kube, editor, "get", "secrets", store.namespace)

    for manifest in (
        data_store("own", tenant),
        data_grant("own", tenant, store="own", to=[tenant]),
        data_snapshot("own", tenant, store="own"),
        resource("DataBranch", "own", tenant, {"store": {"name": "own"}, "branchName": "own", "from": {"branch": "x"}}),
    ):
        with pytest.raises(CommandError, match="Forbidden"):
            kube.run("apply", "-f", "-", editor, stdin=json.dumps(manifest))


def test_an_editor_may_have_a_clone(kube: Kube, store: Store, tenant: str, editor: str) -> None:
    manifest = data_clone("edited", tenant, store=store.name, owners=store.namespace)
    kube.run("apply", "-f", "-", editor, stdin=json.dumps(manifest))
    clone = Clone(kube, tenant, "edited").ready()
    assert clone.sql("SELECT COUNT(*) AS items FROM item") == [{"items": 3}]
    clone.delete()


def test_without_a_grant_there_is_no_clone(kube: Kube, store: Store, tenant: str, namespace: str) -> None:
    """`namespace` is one that the grant does not name."""
    assert namespace != tenant
    clone = Clone(kube, namespace).apply(store)
    said = kube.until_reason("NotGranted", "dclone", clone.name, namespace)
    assert store.namespace in said["message"]
    assert "ask the owners" in said["message"]

    guess = Clone(kube, namespace, "guess").apply(Store(kube, store.namespace, "no-such-store"))
    unknown = kube.until_reason("NotGranted", "dclone", guess.name, namespace)
    assert unknown["message"] == said["message"].replace(store.name, "no-such-store"), "stores cannot be guessed"

    assert kube.owned_by(clone.uid) == []
    assert kube.owned_by(guess.uid) == []


def test_a_grant_of_masked_data_gives_no_raw_data(kube: Kube, store: Store, namespace: str) -> None:
    kube.apply(data_grant("masked-only", store.namespace, store=store.name, to=[namespace], data="Masked"))
    clone = Clone(kube, namespace).apply(store)
    said = kube.until_reason("MaskedOnly", "dclone", clone.name, namespace)
    assert "data: Raw" in said["message"]
    assert kube.owned_by(clone.uid) == []

    named = Clone(kube, namespace, "named").apply(store, source={"snapshot": f"{store.name}-00001"})
    kube.until_reason("MaskedOnly", "dclone", named.name, namespace)
    assert kube.owned_by(named.uid) == []


def test_a_claim_from_a_guessed_snapshot_stays_empty_handed(kube: Kube, store: Store, tenant: str, editor: str) -> None:
    clone = Clone(kube, tenant, "clean").apply(store).ready()
    alias = clone.pod["metadata"]["name"]
    eventually(lambda: not kube.items("volumesnapshots", "-n", tenant), "the alias is gone")
    guesses = {f"guess-{n}": name for n, name in enumerate((alias, f"{store.name}-00001", f"{store.name}-00001-raw"))}
    for name, source in guesses.items():
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": kube.cluster.storage_class,
            "resources": {"requests": {"storage": "1Gi"}},
            "dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": source},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
        kube.run("apply", "-n", tenant, "-f", "-", editor, stdin=json.dumps(claim))

    def told(name: str) -> bool:
        return any("not found" in event["message"] for event in kube.events("PersistentVolumeClaim", name, tenant))

    eventually(lambda: all(told(name) for name in guesses), "the provisioner finds no such snapshots")
    claims = kube.items("persistentvolumeclaims", "-n", tenant)
    assert {item["status"]["phase"] for item in claims if item["metadata"]["name"] in guesses} == {"Pending"}
    kube.run("delete", "-n", tenant, *(f"pvc/{name}" for name in guesses))


def test_a_store_says_whether_the_network_keeps_policies(kube: Kube, cluster: Cluster, store: Store) -> None:
    said = eventually(
        lambda: kube.condition("dstore", store.name, store.namespace, "NetworkGuarded"),
        "the store says so or not",
    )
    assert said["status"] == str(cluster.network_policies_enforced)


def test_the_network_keeps_clones_apart(
    kube: Kube, cluster: Cluster, store: Store, tenant: str, namespace: str
) -> None:
    clone = Clone(kube, tenant, "clean").apply(store).ready()
    pod, login = clone.pod, Login("app", clone.binding["password"], "shop")
    reach = ("timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/${KUBERNETES_SERVICE_HOST}/${KUBERNETES_SERVICE_PORT}")
    assert sql(kube, pod, "SELECT 1 AS one", login) == [{"one": 1}], "what is nearer gets in"
    kube.run("exec", "-n", tenant, CLIENT, "--", *reach)  # What has no policy gets out.
    if not cluster.network_policies_enforced:
        pytest.skip("this cluster's network enforces no NetworkPolicies")
    foreign = {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}
    with pytest.raises(CommandError, match="timed out"):
        sql(kube, foreign, "SELECT 1", login)
    with pytest.raises(CommandError, match=f"terminated with exit code {TIMED_OUT}"):
        kube.run("exec", "-n", tenant, pod["metadata"]["name"], "--", *reach)
