"""A PostgreSQL that somebody else runs, and what its owners add to have it adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.harness.images import refs
from e2e.suite.data import Login
from e2e.suite.manifests import resource

if TYPE_CHECKING:
    from e2e.suite.manifests import Manifest

PROGRAMS = "/usr/lib/postgresql/15/bin"
WRITER = "pg-coppice-writer"
KEEPER = Login("keeper", "keeps", "ledger")
SERVE = r"""
data=/volume/{directory}
if ! id -un >/dev/null 2>&1; then
  export LD_PRELOAD="$(echo /usr/lib/*/libnss_wrapper.so)" NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
  echo "postgres:x:$(id -u):$(id -g)::/tmp:/bin/false" >/tmp/passwd; echo "postgres:x:$(id -g):" >/tmp/group
fi
mkdir -p "$data"
if [ ! -f "$data/PG_VERSION" ]; then
  printf theirs >/tmp/password
  {programs}/initdb -D "$data" {options} -U theirs -A scram-sha-256 --pwfile=/tmp/password -E UTF8 --locale=C.UTF-8 \
    >/dev/null
  {{ echo "host all all all scram-sha-256"; echo "local all all trust"; }} >"$data/pg_hba.conf"
  {programs}/pg_ctl -D "$data" -o "-c listen_addresses= -k /tmp" -w start >/dev/null
  {programs}/psql -X -q -h /tmp -U theirs -v ON_ERROR_STOP=1 -d postgres -c "CREATE DATABASE ledger"
  {programs}/psql -X -q -h /tmp -U theirs -v ON_ERROR_STOP=1 -d ledger <<'SQL'
    CREATE ROLE keeper LOGIN PASSWORD 'keeps';
    CREATE ROLE coppice LOGIN PASSWORD 'change-me';
    GRANT pg_checkpoint, pg_monitor TO coppice;
    CREATE TABLE entry (n int PRIMARY KEY, note text); ALTER TABLE entry OWNER TO keeper;
    INSERT INTO entry SELECT * FROM generate_series(1, 1000);
    CREATE ROLE coppice_writer LOGIN PASSWORD 'change-me-as-well';
    GRANT CONNECT, TEMPORARY ON DATABASE ledger TO coppice_writer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON entry TO coppice_writer;
SQL
  {programs}/pg_ctl -D "$data" -m fast -w stop >/dev/null
fi
exec {programs}/postgres -D "$data" -c "listen_addresses=*" -k /tmp -c archive_mode=on -c "archive_command=exit 1"
"""


def their_writer(namespace: str) -> Manifest:
    """Return the Secret by which its owners agree that approved changes are written to it."""
    metadata = {"name": WRITER, "namespace": namespace, "annotations": {"coppice.dev/writer-of": "ledger"}}
    login = {"username": "coppice_writer", "password": "change-me-as-well"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": login}


def their_server(namespace: str, directory: str, user: int, options: str = "") -> list[Manifest]:
    """Return a server that somebody runs by a StatefulSet, and what its owners add to have it adopted; ``options`` are
    initdb's.
    """
    security = {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {
        "name": "postgresql",
        "image": refs()["postgresql"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-eu", "-c", SERVE.format(directory=directory, programs=PROGRAMS, options=options)],
        "ports": [{"name": "postgresql", "containerPort": 5432}],
        "readinessProbe": {
            "exec": {"command": [f"{PROGRAMS}/pg_isready", "-h", "127.0.0.1", "-U", "theirs"]},
            "periodSeconds": 1,
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/volume"}, {"name": "elsewhere", "mountPath": "/elsewhere"}],
    }
    labels = {"app": "pg"}
    elsewhere = {"name": "elsewhere", "emptyDir": {}}
    spec = {"securityContext": security, "containers": [container], "volumes": [elsewhere]}
    pod = {"metadata": {"labels": labels}, "spec": spec}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    adopted = {"claimName": "data-pg-0", "service": "pg", "credentialsSecret": "pg-coppice", "database": "ledger"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pg", "namespace": namespace},
         "spec": {"selector": labels, "ports": [{"port": 5432}]}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "pg", "namespace": namespace},
         "spec": {
             "serviceName": "pg", "selector": {"matchLabels": labels},
             "template": pod,
             "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
         }},
        {"apiVersion": "v1", "kind": "Secret",
         "metadata": {"name": "pg-coppice", "namespace": namespace, "annotations": {"coppice.dev/store": "ledger"}},
         "stringData": {"username": "coppice", "password": "change-me"}},
        resource("DataStore", "ledger", namespace, {"engine": "postgresql", "adopted": adopted}),
    ]  # fmt: skip
