"""The other way to a copy: a new server on an empty claim, and the data through a dump."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from e2e.bench.api import BenchError, both, bound, named, ready
from e2e.bench.by_hand import DATABASE, PORT, Laps
from e2e.bench.lab import QUESTION, STORE, decoded
from e2e.bench.prober import Login

if TYPE_CHECKING:
    from e2e.bench.by_hand import Plan
    from e2e.bench.lab import Lab

DUMP = """
set -eu; cd /var/lib/coppice/data/dolt/databases/*/; export HOME=/tmp DOLT_ROOT_PATH=/tmp
dolt dump --force --file-name /tmp/dump.sql >&2; cat /tmp/dump.sql; rm /tmp/dump.sql
"""
LOAD = "export HOME=/tmp DOLT_ROOT_PATH=/tmp; cd /var/lib/coppice/data; dolt --data-dir . sql; touch .loaded"
SERVE = """
export HOME=/tmp DOLT_ROOT_PATH=/tmp; cd /var/lib/coppice/data
until [ -e .loaded ]; do sleep 0.02; done
exec dolt --data-dir . sql-server --host 0.0.0.0 --port 3306
"""


async def dump_and_restore(lab: Lab, plan: Plan) -> Laps:
    """Pipe the store's dump into a new server's volume, start it, and ask it; the server needs no preparation."""
    api, where = lab.api, named(plan.namespace, plan.name)
    started, secret = time.time(), plan.secret()
    service, *_ = await asyncio.gather(
        api.create(plan.service()), api.create(secret), api.create(plan.claim(empty=True))
    )
    await api.until("PersistentVolumeClaim", both(where, bound), f"claim {plan.name} is Bound")
    pod = plan.pod(
        command=["/bin/sh", "-c", SERVE],
        env=[
            {"name": "DOLT_ROOT_HOST", "value": "%"},
            {"name": "DOLT_ROOT_PASSWORD", "value": decoded(secret)["admin-password"]},
        ],
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
    )
    await api.create(pod)
    served = await api.until("Pod", both(where, ready), f"Pod {plan.name} is Ready")
    await _pipe(lab, plan)
    loaded = time.time()
    login = Login(service["spec"]["clusterIP"], "root", decoded(secret)["admin-password"], DATABASE, PORT)
    answered = await lab.prober.query(login, QUESTION)
    return {"pod ready": served.at - started, "loaded": loaded - started, "query": answered - started}


async def _pipe(lab: Lab, plan: Plan) -> None:
    kubectl = f"{lab.cluster.kubectl} exec -c engine -n"
    dump = f"{kubectl} {lab.owners} {STORE}-server -- sh -c {_quoted(DUMP)}"
    load = f"{kubectl} {plan.namespace} -i {plan.name} -- sh -c {_quoted(LOAD)}"
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {dump} 2>/dev/null | {load} >/dev/null", executable="/bin/bash", env=lab.cluster.environment
    )
    if await process.wait() != 0:
        raise BenchError("the dump could not be restored; see standard error")


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"
