"""A database elsewhere: copied as a whole, refreshed beside the copy that serves, which a refresh that fails leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e.harness.images import refs
from e2e.suite.data import Clone, Login, Row, Store, sql
from e2e.suite.manifests import data_grant, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

PROGRAMS = "/usr/lib/postgresql/15/bin"
SERVE = f"""
printf theirs >/tmp/password
{PROGRAMS}/initdb -D /volume/data -U theirs -A scram-sha-256 --pwfile=/tmp/password -E UTF8 --locale=C.UTF-8 >/dev/null
echo "host all all all scram-sha-256" >/volume/data/pg_hba.conf
echo "local all all trust" >>/volume/data/pg_hba.conf
{PROGRAMS}/pg_ctl -D /volume/data -o "-c listen_addresses= -k /tmp" -w start >/dev/null
{PROGRAMS}/psql -X -q -h /tmp -U theirs -v ON_ERROR_STOP=1 -d postgres -c "CREATE DATABASE orders"
{PROGRAMS}/psql -X -q -h /tmp -U theirs -v ON_ERROR_STOP=1 -d orders <<'SQL'
  CREATE ROLE coppice_mirror LOGIN PASSWORD 'change-me' CONNECTION LIMIT 5;
  GRANT pg_read_all_data TO coppice_mirror;
  CREATE TABLE customer (id int PRIMARY KEY, name text);
  INSERT INTO customer SELECT n, 'customer ' || n FROM generate_series(1, 1000) n;
  CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customer, total int);
  INSERT INTO orders (customer, total) SELECT n % 1000 + 1, n FROM generate_series(1, 20000) n;
SQL
{PROGRAMS}/pg_ctl -D /volume/data -m fast -w stop >/dev/null
exec {PROGRAMS}/postgres -D /volume/data -c "listen_addresses=*" -k /tmp
"""
OWNER = Login("theirs", "theirs", "orders")
TOTALS = "SELECT count(*)::int AS orders, sum(total)::int AS total FROM orders"


@dataclass(frozen=True)
class Elsewhere:
    """A server that somebody runs in another namespace, and that is reached by its name alone."""

    kube: Kube
    namespace: str

    @property
    def pod(self) -> Manifest:
        found = self.kube.get("pod", "server", self.namespace)
        assert found is not None
        return found

    def sql(self, statements: str) -> list[Row]:
        """Do something there as its owners."""
        return sql(self.kube, self.pod, statements, OWNER)

    def open(self, port: int) -> None:
        """Lead its name to the server, or to where nobody listens."""
        self.kube.patch("service", "server", self.namespace, {"spec": {"ports": [{"port": 5432, "targetPort": port}]}})


@pytest.fixture(scope="module")
def elsewhere(kube: Kube) -> Iterator[Elsewhere]:
    """A server with orders in it."""
    namespace = kube.new_namespace("elsewhere")
    security = {"runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999,
                "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {
        "name": "postgresql",
        "image": refs()["postgresql"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-eu", "-c", SERVE],
        "ports": [{"containerPort": 5432}],
        "readinessProbe": {"exec": {"command": [f"{PROGRAMS}/pg_isready", "-h", "127.0.0.1"]}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/volume"}],
    }
    pod = {"securityContext": security, "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}
    labels = {"app": "server"}
    kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": namespace},
         "spec": {"selector": labels, "ports": [{"port": 5432}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server", "namespace": namespace, "labels": labels},
         "spec": pod},
    )  # fmt: skip
    kube.run("wait", "-n", namespace, "--for=condition=Ready", "pod/server", "--timeout=120s")
    yield Elsewhere(kube, namespace)
    kube.delete_namespace(namespace, wait=False)


@pytest.fixture(scope="module")
def mirror(kube: Kube, elsewhere: Elsewhere) -> Iterator[Store]:
    """The example's store, with the server's address in its Secret."""
    namespace = kube.new_namespace("mirror")
    for manifest in example("mirror/mirror.yaml", namespace, store="orders", owners=namespace):
        if manifest["kind"] == "Secret":
            manifest["stringData"] |= {"host": f"server.{elsewhere.namespace}.svc.cluster.local", "sslmode": "disable"}
        if manifest["kind"] == "DataStore":
            manifest["spec"]["mirror"] |= {"storage": {"size": "1Gi"}, "resources": {"memory": "256Mi"}}
        if manifest["kind"] != "DataClone":
            kube.apply(manifest)
    kube.ready(namespace, "dstore/orders")
    yield Store(kube, namespace, "orders")
    kube.delete_namespace(namespace, wait=False)


def refresh(store: Store) -> str:
    """Ask for a refresh, and return the request."""
    token = store.kube.time()
    request = f"coppice.dev/refresh-requested-at={token}"
    store.kube.run("annotate", "-n", store.namespace, "dstore/orders", "--overwrite", request)
    return token


def refreshed(store: Store) -> None:
    """Ask for a refresh, and wait until its copy is served."""
    token = refresh(store)
    eventually(
        lambda: store.status["mirror"].get("refreshRequestedAt") == token and _is_ready(store), "the copy is refreshed"
    )


def _is_ready(store: Store) -> bool:
    ready: bool = store.kube.condition("dstore", "orders", store.namespace)["status"] == "True"
    return ready


def copies(store: Store) -> list[str]:
    """Return the claims of a mirror's copies."""
    claims = store.kube.items("pvc", "-n", store.namespace, "-l", "coppice.dev/store=orders")
    return sorted(claim["metadata"]["name"] for claim in claims)


def until_not_fresh(store: Store, reason: str) -> str:
    """Wait until the refreshes fail for a reason, and return what the store says of it. A source that is too busy to
    answer is asked once more, as its owners would: the store itself waits for minutes.
    """
    kube = store.kube

    def failing() -> Manifest:
        found = kube.condition("dstore", "orders", store.namespace, "MirrorFresh")
        if found.get("reason") == "SourceUnreachable" != reason:
            refresh(store)
        return found if found.get("reason") == reason else {}

    found = eventually(failing, f"the refresh fails for {reason}")
    assert found["status"] == "False"
    return str(found["message"])


def test_a_database_elsewhere_is_a_store_and_clones_of_it_are_in_other_namespaces(
    kube: Kube, mirror: Store, elsewhere: Elsewhere, namespace: str
) -> None:
    status = mirror.status
    assert status["mirror"]["sourceVersion"].startswith("15.")
    assert (status["mirror"]["tables"], status["databases"]) == (2, ["orders"])
    assert copies(mirror) == ["orders-mirror-00001"]
    assert "binding" not in status
    kube.apply(data_grant("previews", mirror.namespace, store="orders", to=[namespace]))
    clone = Clone(kube, namespace).apply(mirror).ready()
    assert clone.sql(TOTALS) == elsewhere.sql(TOTALS)
    clone.sql("ALTER TABLE orders ADD COLUMN mine int; DELETE FROM orders WHERE id > 10")
    assert elsewhere.sql("SELECT count(*)::int AS n FROM orders") == [{"n": 20000}]


def test_a_refresh_brings_new_rows_and_another_schema_and_clones_live_across_it(
    kube: Kube, mirror: Store, elsewhere: Elsewhere, namespace: str
) -> None:
    kube.apply(data_grant("across", mirror.namespace, store="orders", to=[namespace]))
    before = Clone(kube, namespace, "before").apply(mirror).ready()
    before.sql("CREATE TABLE mine (n int)")
    pod = before.pod["metadata"]["uid"]
    elsewhere.sql(
        "ALTER TABLE customer RENAME COLUMN name TO full_name; CREATE TABLE returned (id int REFERENCES orders);"
        " INSERT INTO returned VALUES (1)"
    )
    refreshed(mirror)
    eventually(lambda: copies(mirror) == ["orders-mirror-00002"], "the copy before is gone")
    after = Clone(kube, namespace, "after").apply(mirror).ready()
    assert after.sql("SELECT count(full_name)::int AS n FROM customer") == [{"n": 1000}]
    assert after.sql("SELECT id FROM returned") == [{"id": 1}]
    assert before.sql("SELECT count(name)::int AS n FROM customer, (SELECT count(*) FROM mine) m") == [{"n": 1000}]
    assert before.pod["metadata"]["uid"] == pod


def test_a_dump_that_fails_in_the_middle_keeps_the_copy_and_is_put_right(
    kube: Kube, mirror: Store, elsewhere: Elsewhere, namespace: str
) -> None:
    kube.apply(data_grant("kept", mirror.namespace, store="orders", to=[namespace]))
    held = copies(mirror)
    elsewhere.sql("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    refresh(mirror)
    message = until_not_fresh(mirror, "ReadForbidden")
    assert "orders" in message
    assert "is kept and served" in message
    assert _is_ready(mirror)
    assert "row-level security" in kube.run("logs", "-n", mirror.namespace, "orders-dump")
    clone = Clone(kube, namespace, "kept").apply(mirror).ready()
    assert clone.sql(TOTALS) == elsewhere.sql(TOTALS)
    elsewhere.sql("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
    refreshed(mirror)
    eventually(lambda: len(copies(mirror)) == 1 and copies(mirror) != held, "one copy is left, the new one")


def test_a_source_that_is_out_of_reach_costs_nothing_but_freshness(
    kube: Kube, mirror: Store, elsewhere: Elsewhere, namespace: str
) -> None:
    kube.apply(data_grant("without", mirror.namespace, store="orders", to=[namespace]))
    elsewhere.open(5433)
    refresh(mirror)
    assert "see that it is up" in until_not_fresh(mirror, "SourceUnreachable")
    assert Clone(kube, namespace, "without").apply(mirror).ready().sql(TOTALS) == [
        {"orders": 20000, "total": 200010000}
    ]
    elsewhere.open(5432)
    refreshed(mirror)
    assert kube.condition("dstore", "orders", mirror.namespace, "MirrorFresh")["status"] == "True"


def test_the_login_is_in_nothing_but_the_secret(kube: Kube, mirror: Store) -> None:
    everything = kube.run("get", "dstore,pods,pvc,events,networkpolicies", "-n", mirror.namespace, "-o", "yaml")
    assert "change-me" not in everything
