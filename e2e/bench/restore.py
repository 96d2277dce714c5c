"""The other ways to a copy: all data through a dump into a new server on an empty claim, or copied by the server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from e2e.bench.api import BenchError, both, bound, named, ready
from e2e.bench.by_hand import DATABASE, Laps
from e2e.bench.lab import decoded, settle
from e2e.bench.prober import Login
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.by_hand import Plan
    from e2e.bench.lab import Lab

_DUMP: Final = """
set -eu; cd /var/lib/coppice/data/dolt/databases/*/; export HOME=/tmp DOLT_ROOT_PATH=/tmp
dolt dump --force --file-name /tmp/dump.sql >&2; cat /tmp/dump.sql; rm /tmp/dump.sql
"""
_LOAD: Final = "export HOME=/tmp DOLT_ROOT_PATH=/tmp; cd /var/lib/coppice/data; dolt --data-dir . sql; touch .loaded"
_SERVE_DOLT: Final = """
export HOME=/tmp DOLT_ROOT_PATH=/tmp; cd /var/lib/coppice/data
until [ -e .loaded ]; do sleep 0.02; done
exec dolt --data-dir . sql-server --host 0.0.0.0 --port 3306
"""
_SERVE_POSTGRESQL: Final = """
set -eu; export HOME=/tmp
programs=$(echo /usr/lib/postgresql/*/bin); [ ! -d "$programs" ] || PATH=$programs:$PATH
data=/var/lib/coppice/data/restored
settings="-k /tmp -c fsync=off -c full_page_writes=off -c wal_level=minimal -c max_wal_senders=0"
printf %s "$ADMIN_PASSWORD" >/tmp/password
initdb -D "$data" -U "$ADMIN" -A scram-sha-256 --pwfile=/tmp/password >/dev/null
printf 'local all all trust\nhost all all all scram-sha-256\n' >"$data/pg_hba.conf"
pg_ctl -D "$data" -w -o "$settings -c listen_addresses=" start >/dev/null
createdb -h /tmp -U "$ADMIN" "$DATABASE"
pg_dump -Fc -Z0 -h "$STORE" -U "$ADMIN" "$DATABASE" | pg_restore -h /tmp -U "$ADMIN" -d "$DATABASE"
pg_ctl -D "$data" -w -m fast stop >/dev/null
exec postgres -D "$data" $settings -c 'listen_addresses=*'
"""
"""It listens once all data are there."""
_PAUSE_SECONDS: Final = 0.5
_TRIES: Final = 60


async def dump_and_restore(lab: Lab, plan: Plan) -> Laps:
    """Pipe the store's dump into a new server's volume, start it, and ask it; the server needs no preparation."""
    api, where, subject = lab.api, named(plan.namespace, plan.name), lab.subject
    started, secret = time.time(), plan.secret()
    service, *_ = await asyncio.gather(
        api.create(plan.service(subject.port)), api.create(secret), api.create(plan.claim(empty=True))
    )
    await api.until("PersistentVolumeClaim", both(where, bound), f"claim {plan.name} is Bound")
    password = decoded(secret)["admin-password"]
    await api.create(await _restoring(lab, plan, password))
    if subject.engine == "dolt":
        await api.until("Pod", both(where, ready), f"Pod {plan.name} is Ready")
        await _pipe(lab, plan)
    login = Login(service["spec"]["clusterIP"], subject.admin, password, DATABASE, subject.port)
    answered = await lab.prober.query(login, subject.question)
    return {"query": answered - started}


async def _restoring(lab: Lab, plan: Plan, password: str) -> Manifest:
    """Return the Pod of the new server: of Dolt one that waits for the dump, of PostgreSQL one that fetches it."""
    resources = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
    if lab.subject.engine == "dolt":
        environment = {"DOLT_ROOT_HOST": "%", "DOLT_ROOT_PASSWORD": password}
        return plan.pod(command=["/bin/sh", "-c", _SERVE_DOLT], env=_environment(environment), resources=resources)
    login = await lab.store_login()
    environment = {
        "ADMIN": login.user,
        "ADMIN_PASSWORD": password,
        "PGPASSWORD": login.password,
        "STORE": login.host,
        "DATABASE": DATABASE,
    }
    return plan.pod(command=["/bin/sh", "-c", _SERVE_POSTGRESQL], env=_environment(environment), resources=resources)


def _environment(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


async def copy_in_the_server(lab: Lab, name: str) -> Laps:
    """Have the store's own server copy the database, file by file, and ask the copy.

    Nobody may be connected to the original meanwhile: whoever is there makes it fail, and it is tried again.
    """
    login = await lab.store_login()
    outside, inside = (replace(login, database=database) for database in ("postgres", name))
    copying = f"CREATE DATABASE {name} TEMPLATE {login.database} STRATEGY FILE_COPY"
    for _ in range(_TRIES):
        started = time.time()
        try:
            await lab.prober.execute(outside, [copying])
            break
        except BenchError as error:
            if "being accessed by other users" not in str(error):
                raise
            await settle(_PAUSE_SECONDS)
    else:
        raise BenchError(f"somebody has been connected to {login.database} all the time")
    answered = await lab.prober.query(inside, lab.subject.question)
    await lab.prober.execute(outside, [f"DROP DATABASE {name} WITH (FORCE)"])
    return {"query": answered - started}


async def _pipe(lab: Lab, plan: Plan) -> None:
    kubectl = f"{lab.cluster.kubectl} exec -c engine -n"
    dump = f"{kubectl} {lab.owners} {STORE}-server -- sh -c {_quoted(_DUMP)}"
    load = f"{kubectl} {plan.namespace} -i {plan.name} -- sh -c {_quoted(_LOAD)}"
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {dump} 2>/dev/null | {load} >/dev/null", executable="/bin/bash", env=lab.cluster.environment
    )
    if await process.wait() != 0:
        raise BenchError("the dump could not be restored; see standard error")


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"
