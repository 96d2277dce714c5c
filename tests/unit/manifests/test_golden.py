"""Every builder's output beside the YAML in ``tests/golden``: what reaches a cluster changes only where somebody sees it.

``UPDATE_GOLDEN=1 pytest tests/unit/manifests`` writes the files anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.manifests.podsecurity import restricted_violations

from coppice.core import labels
from coppice.engines.base import CloneServer, Finding, Preparation, StoreServer, Version, Workload
from coppice.engines.dolt import DoltEngine
from coppice.manifests.job import UserJob, build_user_job
from coppice.manifests.meta import Owner
from coppice.manifests.network import (
    Peer,
    build_closed_policy,
    build_outbound_policy,
    build_passage,
    build_policy,
    build_service,
)
from coppice.manifests.pod import Proxy, Resources, ServerPod, build_pod
from coppice.manifests.secret import build_binding_secret, build_engine_secret, read_secret
from coppice.manifests.storage import (
    Claim,
    build_alias_content,
    build_alias_snapshot,
    build_claim,
    build_volume_snapshot,
)
from coppice.reconcile.backing import Backing
from coppice.reconcile.mirror.copies import Held, Wish, mark_text

GOLDEN = Path(__file__).parents[2] / "golden"
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))

STORE = Owner("coppice.dev/v1alpha1", "DataStore", "shop", "data", "11111111-0000-4000-8000-000000000001")
SNAPSHOT = Owner("coppice.dev/v1alpha1", "DataSnapshot", "shop-00001", "data", "22222222-0000-4000-8000-000000000002")
CLONE = Owner("coppice.dev/v1alpha1", "DataClone", "db", "shop-pr-42", "33333333-0000-4000-8000-000000000003")
REQUEST = Owner("coppice.dev/v1alpha1", "DataChangeRequest", "prices", "data", "44444444-0000-4000-8000-000000000004")
RESOURCES = Resources(memory="256Mi", cpu="100m")
SCRIPT = Workload(
    script="serve\n",
    environment={"COPPICE_PORT": "3306", "COPPICE_DATA": "/var/lib/coppice/data"},
    secret_environment={"ADMIN_PASSWORD": "admin-password"},
    wait_script="wait\n",
    port=3306,
    remotes_port=3307,
)
BINDING = {
    "type": "mysql",
    "provider": "dolt",
    "host": "db.shop-pr-42.svc",
    "port": "3306",
    "username": "app",
    "password": "an-app-password",
    "database": "chinook",
    "uri": "mysql://app:an-app-password@db.shop-pr-42.svc:3306/chinook",
}


WISH = Wish(
    store="uid-shop",
    version="15",
    source="0123456789abcdef",
    login="0123abcd",
    requested="2026-03-02T09:30:00Z",
    attempt=1,
)
HELD = Held(
    refreshed_at=datetime(2026, 3, 2, 9, 31, tzinfo=UTC),
    source_version="14.9",
    database="shop",
    tables=12,
    filled=11,
    findings=(Finding("LocaleReplaced", "texts are ordered by their bytes"),),
    admin="44444444-0000-4000-8000-000000000004",
)


PROXY = Proxy(
    image="example.com/stunnel:5",
    workload=Workload(script="take $TLS\n", environment={"COPPICE_PORT": "6364"}, port=6364),
    secret="shop-tls",
    ca="-----BEGIN CERTIFICATE-----\n",
)


def server(**changes: Any) -> ServerPod:
    settings: dict[str, Any] = {
        "name": "db-1",
        "owner": CLONE,
        "role": "clone",
        "image": "example.com/dolt:1.83.2",
        "user_id": 999,
        "workload": SCRIPT,
        "claim": "db-1",
        "secret": "db-engine",
        "resources": RESOURCES,
        "node_selector": {"pool": "preview"},
        "labels": {labels.COPY: "1"},
        "annotations": {labels.INPUTS: "0123abcd"},
        "grace_seconds": 5,
    }
    return ServerPod(**{**settings, **changes})


def store_server() -> ServerPod:
    loading = Workload(**{**{key: getattr(SCRIPT, key) for key in SCRIPT.__slots__}, "load_script": "load\n"})
    return server(
        name="shop-server",
        owner=STORE,
        role="store",
        claim="shop-data",
        secret="shop-admin",
        workload=loading,
        load_volume={"configMap": {"name": "shop-sql", "optional": True}},
        node_selector={},
        labels={},
        grace_seconds=30,
    )


def preparation() -> ServerPod:
    prepare = Workload(script="prepare\n", environment={"COPPICE_MARKER": SNAPSHOT.uid})
    return server(
        name="shop-00001-prepare",
        owner=SNAPSHOT,
        role="prepare",
        claim="shop-00001-scratch",
        secret=None,
        workload=prepare,
        labels={},
        annotations={},
    )


def scratch_server() -> ServerPod:
    return server(
        name="shop-00001-4e1f0-scratch",
        owner=SNAPSHOT,
        role="scratch",
        claim="shop-00001-scratch",
        secret="shop-00001-4e1f0-scratch",
        labels={},
        annotations={},
        grace_seconds=30,
    )


def dump() -> ServerPod:
    read = Workload(script="dump\n", environment={"COPPICE_SOURCE": "/coppice/source"})
    return server(
        name="shop-dump",
        owner=STORE,
        role="dump",
        claim="shop-mirror-00002",
        secret=None,
        source="prod-read",
        workload=read,
        node_selector={},
        labels={},
        grace_seconds=30,
    )


def passage(number: int) -> dict[str, Any]:
    fetcher = Peer("data", REQUEST.uid, "scratch")
    source = Peer("shop-pr-42", CLONE.uid, "clone")
    return build_passage("prices", REQUEST, fetcher=fetcher, source=source, port=3307)[number]


def users_job() -> dict[str, Any]:
    """Return a suspended Job as the API server stores it."""
    own = "44444444-0000-4000-8000-000000000004"
    template = {
        "metadata": {
            "creationTimestamp": None,
            "labels": {"job-name": "shop-load", "batch.kubernetes.io/controller-uid": own, "team": "shop"},
            "annotations": {"sidecar.example.com/inject": "false"},
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "loader",
            "initContainers": [{"name": "fetch", "image": "example.com/fetch"}],
            "containers": [
                {
                    "name": "load",
                    "image": "example.com/load",
                    "env": [{"name": "DATABASE_URL", "value": "$(uri)"}, {"name": "host", "value": "my-own"}],
                }
            ],
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "shop-load", "namespace": "data", "uid": own, "labels": {"argocd": "tracks-this"}},
        "spec": {
            "suspend": True,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": own}},
            "backoffLimit": 3,
            "activeDeadlineSeconds": 600,
            "ttlSecondsAfterFinished": 60,
            "completions": 1,
            "template": template,
        },
    }


BUILT: dict[str, Callable[[], dict[str, Any]]] = {
    "pod-clone": lambda: build_pod(server()),
    "pod-store": lambda: build_pod(store_server()),
    "pod-store-tls": lambda: build_pod(replace(store_server(), proxy=PROXY)),
    "pod-prepare": lambda: build_pod(preparation()),
    "pod-prepare-adopted": lambda: build_pod(replace(preparation(), user_id=26)),
    "pod-scratch": lambda: build_pod(scratch_server()),
    "pod-dump": lambda: build_pod(dump()),
    "pod-restore": lambda: build_pod(replace(dump(), name="shop-restore", role="restore", source=None)),
    "claim-store": lambda: build_claim(
        Claim(
            name="shop-data",
            owner=STORE,
            size="20Gi",
            storage_class="fast",
            labels={labels.STORE: "shop"},
            annotations={labels.ENGINE: "dolt"},
            owned=False,
        )
    ),
    "claim-clone": lambda: build_claim(
        Claim(
            name="db-1",
            owner=CLONE,
            size="20Gi",
            storage_class="fast",
            from_snapshot="shop-00001",
            labels={labels.COPY: "1"},
        )
    ),
    "claim-mirror": lambda: build_claim(
        Claim(
            name="shop-mirror-00002",
            owner=STORE,
            size="20Gi",
            storage_class="fast",
            labels={labels.STORE: "shop", labels.COPY: "2"},
            annotations={labels.ENGINE: "postgresql", labels.MIRRORED: mark_text(WISH, HELD)},
            owned=False,
        )
    ),
    "volumesnapshot-raw": lambda: build_volume_snapshot(
        "shop-00001-raw",
        SNAPSHOT,
        claim="shop-data",
        snapshot_class="snap",
        annotations={
            labels.STORE_UID: STORE.uid,
            labels.BACKING: Backing("15", "shop", "20Gi", "fast", adopted=True, user_id=26, directory="pgdata").text,
        },
    ),
    "volumesnapshot-alias": lambda: build_alias_snapshot("db-1", CLONE, content="coppice-0123", snapshot_class="snap"),
    "volumesnapshotcontent-alias": lambda: build_alias_content(
        "coppice-0123", CLONE, driver="csi.example.com", handle="handle-1", snapshot_class="snap", alias="db-1"
    ),
    "secret-engine": lambda: build_engine_secret(
        "db-engine", CLONE, {"admin-password": "an-admin-password", "app-password": "an-app-password"}
    ),
    "secret-binding": lambda: build_binding_secret("db-binding", CLONE, BINDING, {labels.COPY: "1"}),
    "job-load": lambda: build_user_job(
        UserJob(
            "shop-loading", STORE, "load", users_job(), secret="shop-loading", keys=tuple(BINDING), inputs="0123abcd"
        )
    ),
    "job-migrate": lambda: build_user_job(
        UserJob(
            "db-4e1f0-1-migrate",
            CLONE,
            "migrate",
            users_job(),
            secret="db-4e1f0-1-migrate",
            keys=("uri", "DATABASE_URL"),
            inputs="0123abcd",
            labels={labels.COPY: "1"},
            annotations={labels.MIGRATION: "{}"},
        )
    ),
    "secret-migrate": lambda: build_binding_secret(
        "db-4e1f0-1-migrate", CLONE, BINDING, {}, labels={labels.ROLE: "migrate", labels.COPY: "1"}
    ),
    "service-migrate": lambda: build_service(
        "db-4e1f0-1-migrate",
        CLONE,
        port=3306,
        selector={labels.COPY: "1"},
        labels={labels.ROLE: "migrate", labels.COPY: "1"},
    ),
    "job-mask": lambda: build_user_job(
        UserJob(
            "shop-00001-4e1f0-masking",
            SNAPSHOT,
            "mask",
            users_job(),
            secret="shop-00001-4e1f0-masking",
            keys=tuple(BINDING),
            inputs="0123abcd",
        )
    ),
    "job-check": lambda: build_user_job(
        UserJob(
            "prices-check-4e1f0a2b",
            REQUEST,
            "check",
            users_job(),
            secret="prices-check-0a1b2c3d",
            keys=tuple(BINDING),
            inputs="0123abcd",
            annotations={labels.CHECKED_ON: "uid-of-the-server"},
            deadline=3600,
        )
    ),
    "service": lambda: build_service("db", CLONE, port=3306, selector={labels.COPY: "1"}),
    "networkpolicy": lambda: build_policy("db", CLONE, role="clone", ports=[3306], operator_namespace="coppice-system"),
    "networkpolicy-scratch": lambda: build_policy(
        "shop-00001-scratch",
        SNAPSHOT,
        role="scratch",
        ports=[3306],
        operator_namespace="coppice-system",
        clients={labels.OWNER_UID: SNAPSHOT.uid, labels.ROLE: "mask"},
    ),
    "networkpolicy-dump": lambda: build_outbound_policy("shop-dump", STORE, role="dump", port=5432),
    "networkpolicy-passage-in": lambda: passage(0),
    "networkpolicy-passage-out": lambda: passage(1),
    "networkpolicy-prepare": lambda: build_closed_policy("shop-00001-prepare", SNAPSHOT, role="prepare"),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_builder_gives_what_is_written_down(name):
    path = GOLDEN / f"{name}.yaml"
    built = BUILT[name]()
    if UPDATE:
        path.write_text(yaml.safe_dump(built, sort_keys=False), encoding="utf-8")
    assert built == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_nothing_is_written_down_that_no_builder_gives():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(BUILT)


def dolt_pods() -> dict[str, dict[str, Any]]:
    """Return the Pods as they are with a real engine's scripts."""
    engine = DoltEngine()
    version = Version("chinook", "coppice", "0" * 32, "1" * 32, new_branch=True)
    return {
        "store": build_pod(
            server(
                role="store",
                workload=engine.store_server(
                    StoreServer(database=None, fallback_database="shop", commit_policy="Explicit", has_load=True)
                ),
                load_volume={"persistentVolumeClaim": {"claimName": "dump", "readOnly": True}},
            )
        ),
        "clone": build_pod(
            server(workload=engine.clone_server(CloneServer(version=version, commit_policy="Explicit", marker="m")))
        ),
        "prepare": build_pod(
            server(
                role="prepare",
                secret=None,
                workload=engine.preparation(Preparation(marker="m", database="chinook")),
            )
        ),
        "adoption": build_pod(
            server(
                role="prepare",
                secret=None,
                user_id=26,
                workload=engine.preparation(Preparation(marker="m", database="chinook", adopted=True)),
            )
        ),
    }


PODS = {name: build() for name, build in BUILT.items() if name.startswith("pod-")} | dolt_pods()


@pytest.mark.parametrize("name", PODS)
def test_every_pod_meets_pod_security_restricted(name):
    assert restricted_violations(PODS[name]) == []


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_alone(name):
    """No service account's token, no environment made of other Services, no file system but its volumes."""
    spec = PODS[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in containers)
    assert all(container["resources"]["limits"]["memory"] for container in containers)
    assert "nodeName" not in spec  # a claim that waits for its first consumer would wait for ever
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.parametrize("name", ["store", "pod-store"])
def test_the_load_runs_without_the_passwords_and_cannot_change_what_it_reads(name):
    load = PODS[name]["spec"]["initContainers"][0]
    mount = next(mount for mount in load["volumeMounts"] if mount["name"] == "load")
    assert mount["readOnly"] is True
    assert not [entry for entry in load["env"] if "valueFrom" in entry]


def test_what_is_half_done_on_a_scratch_copy_is_not_gone_on_with():
    assert PODS["pod-scratch"]["spec"]["restartPolicy"] == "Never"


def test_a_preparation_runs_once_and_needs_no_password():
    spec = PODS["pod-prepare"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert not [entry for entry in spec["containers"][0]["env"] if "valueFrom" in entry]


def test_the_login_of_a_mirror_is_mounted_for_the_program_that_reads_and_not_for_the_one_that_restores():
    assert "prod-read" in str(PODS["pod-dump"])
    assert "prod-read" not in str(PODS["pod-restore"])
    [container] = PODS["pod-dump"]["spec"]["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "source"]
    assert mount["readOnly"] is True


def test_passwords_stand_in_secrets_only_and_come_back_as_they_were():
    written = {name: str(build()) for name, build in BUILT.items() if not name.startswith("secret-")}
    reference = "{{'name': 'password', 'valueFrom': {{'secretKeyRef': {{'name': '{}', 'key': 'password'}}}}}}"
    references = [
        reference.format(name) for name in ("shop-loading", "shop-00001-4e1f0-masking", "prices-check-0a1b2c3d")
    ]
    for word in ("admin-password", *references):
        written = {name: text.replace(word, "") for name, text in written.items()}
    assert not [name for name, text in written.items() if "password" in text]
    assert read_secret(BUILT["secret-binding"]()) == BINDING


def test_an_alias_never_takes_the_snapshot_with_it():
    assert BUILT["volumesnapshotcontent-alias"]()["spec"]["deletionPolicy"] == "Retain"


@pytest.mark.parametrize(("name", "owned"), [("claim-store", False), ("claim-clone", True), ("secret-engine", True)])
def test_what_outlives_its_object_has_no_owner_reference(name, owned):
    metadata = BUILT[name]()["metadata"]
    assert ("ownerReferences" in metadata) is owned
    assert metadata["labels"][labels.OWNER_UID]


@pytest.mark.parametrize("name", BUILT)
def test_everything_says_whose_it_is(name):
    metadata = BUILT[name]()["metadata"]
    assert metadata["labels"].keys() >= {
        labels.MANAGED_BY,
        labels.OWNER_KIND,
        labels.OWNER_NAME,
        labels.OWNER_NAMESPACE,
        labels.OWNER_UID,
    }
    if BUILT[name]()["kind"] == "VolumeSnapshotContent":
        assert "ownerReferences" not in metadata  # cluster-scoped: garbage collection would remove it at once


def test_what_kubelet_reads_as_a_reference_reaches_a_container_as_it_stands() -> None:
    text = "DO $$ BEGIN; x=$(ADMIN_PASSWORD) $((1 + 1)) $HOME $$(y)"
    workload = Workload(script=text, environment={"SQL": text}, wait_script=text, port=1, secret_environment={})
    pod = build_pod(
        ServerPod(
            name="p", owner=STORE, role="store", image="i", user_id=1, workload=workload, claim="c", secret=None,
            resources=Resources("1Mi", "1m"),
        )
    )  # fmt: skip
    [container] = pod["spec"]["containers"]
    given = [container["command"][-1], container["env"][0]["value"], container["readinessProbe"]["exec"]["command"][-1]]
    assert [_as_kubelet_expands(entry) for entry in given] == [text] * 3


def _as_kubelet_expands(text: str) -> str:
    """k8s.io/kubernetes third_party/forked/golang/expansion, with every reference defined."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "REPLACED", text)
