"""Words to tell a user's day with: objects by a line of Python each, and what the user would look at."""

from __future__ import annotations

import asyncio
import functools
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.fakes.engine import Volume
from tests.fakes.kube import Crash, Object
from tests.fakes.operator import Operator
from tests.fakes.world import Elsewhere, World

from coppice.api.v1alpha1 import API_VERSION, InvalidResource, parse
from coppice.core.conditions import timestamp
from coppice.manifests.admission import build_policies
from coppice.reconcile.copies import copy_name

Begin = Callable[["Story"], Awaitable[None]]


def begun(begin: Begin, **settings: Any) -> Story:
    """Return a story that goes on, on its own, from a beginning; each beginning is played once for all who share it."""
    return _begun(begin, tuple(sorted(settings.items()))).fork()


@functools.cache
def _begun(begin: Begin, settings: tuple[tuple[str, Any], ...]) -> Story:
    story = Story(**dict(settings))
    asyncio.run(begin(story))
    return story


class Story:
    """A world with an operator in it. Stores live in the namespace ``data``, apps in ``app``."""

    def __init__(self, world: World | None = None, **settings: Any) -> None:
        self.world = World() if world is None else world
        self.operator = Operator(self.world, **settings)

    def fork(self) -> Story:
        """Return a story that goes on from here, on its own, with an operator that has just started."""
        return Story(self.world.fork(), **self.operator.settings)

    def kill_at(self, number: int, when: str) -> None:
        """Kill the operator before the n-th call to an engine from now has reached it, or after it was carried out."""
        seen, inner = 0, getattr(self.world.engine, f"{when}_call")

        def count(action: str) -> None:
            nonlocal seen
            inner(action)
            seen += 1
            if seen == number:
                raise Crash

        setattr(self.world.engine, f"{when}_call", count)

    @property
    def kube(self) -> Any:
        return self.world.kube

    async def settle(self) -> None:
        await self.operator.settle()

    # -- objects --

    def add(self, kind: str, name: str, spec: Mapping[str, Any], namespace: str, **metadata: Any) -> None:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "spec": dict(spec),
        }
        parsed = parse(manifest)
        assert not isinstance(parsed, InvalidResource), parsed.message
        self.kube.add(manifest)

    def store(self, name: str = "shop", *, storage: Mapping[str, Any] | None = None, **spec: Any) -> None:
        managed = {"version": "1.0", "storage": {"size": "2Gi", **(storage or {})}, **spec.pop("managed", {})}
        self.add("DataStore", name, {"engine": "fake", "managed": managed, **spec}, "data")

    def adopted(self, name: str = "shop", **spec: Any) -> None:
        adopted = {"claimName": "data-pg-0", "service": "pg", "credentialsSecret": "pg-coppice"}
        self.add(
            "DataStore", name, {"engine": "fake", "adopted": {**adopted, **spec.pop("adopted", {})}, **spec}, "data"
        )

    def mirror(self, name: str = "shop", **spec: Any) -> None:
        mirror = {"from": {"secretName": "prod-read"}, "version": "1.0", "storage": {"size": "2Gi"}}
        self.add("DataStore", name, {"engine": "fake", "mirror": {**mirror, **spec.pop("mirror", {})}, **spec}, "data")

    def source(self, *rows: str, host: str = "db.example.com") -> Elsewhere:
        """Bring up a database outside, with these rows."""
        self.world.elsewhere[host] = Elsewhere(rows=frozenset(rows))
        return self.world.elsewhere[host]

    def source_secret(self, *, store: str | None = "shop", **values: str) -> None:
        """Apply the Secret with the login to a database outside."""
        login = {
            "host": "db.example.com",
            "username": "reader",
            "password": "reads",
            "database": "shop",
            **{key.replace("_", "."): value for key, value in values.items()},
        }
        self.kube.add(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": "prod-read",
                    "namespace": "data",
                    **({} if store is None else {"annotations": {"coppice.dev/store": store}}),
                },
                "data": {key: b64encode(value.encode()).decode() for key, value in login.items()},
            }
        )

    def clone(self, name: str = "db", *, namespace: str = "data", store: str = "shop", **spec: Any) -> None:
        source = spec.pop("source", {"branch": "main"})
        store_ref = {"name": store} if namespace == "data" else {"name": store, "namespace": "data"}
        self.add("DataClone", name, {"from": {"store": store_ref, **source}, **spec}, namespace)

    def branch(self, name: str, *, namespace: str = "data", **spec: Any) -> None:
        source = spec.pop("source", {"branch": "main"})
        store_ref = {"name": "shop"} if namespace == "data" else {"name": "shop", "namespace": "data"}
        self.add("DataBranch", name, {"store": store_ref, "branchName": name, "from": source, **spec}, namespace)

    def snapshot(self, name: str) -> None:
        self.add("DataSnapshot", name, {"store": {"name": "shop"}}, "data")

    def commit_clone(self, name: str, parent: str, *, clone: str = "db", namespace: str = "data") -> None:
        """Commit a clone; the branch is the name without its number."""
        reference = {"name": clone} if namespace == "data" else {"name": clone, "namespace": namespace}
        commit = {"branch": name.rpartition("-")[0], "parent": parent}
        spec = {"store": {"name": "shop"}, "from": {"clone": reference}, "commit": commit}
        self.add("DataSnapshot", name, spec, "data")

    def grant(self, name: str = "previews", **spec: Any) -> None:
        wanted = {
            "store": "shop",
            "to": {"namespaces": ["app"]},
            "verbs": ["Clone", "Branch"],
            "data": "Raw",
            "maxLease": "Never",
            **spec,
        }
        self.add("DataGrant", name, wanted, "data")

    def policies(self) -> None:
        """Install what the chart installs, a while ago: the policies by which the API server vouches for authors and
        reviewers.
        """
        for manifest in build_policies():
            self.kube.add(manifest)
        self.world.tick(60)

    def request(self, name: str = "fix", *, author: str = "anna@example.com", into: str = "main", **spec: Any) -> None:
        """Propose what a clone holds, or whatever ``source`` says."""
        source = spec.pop("source", {"clone": {"name": "db"}})
        wanted = {
            "title": "Correct the album titles",
            "store": {"name": "shop"},
            "author": author,
            "from": source,
            "into": {"branch": into},
            **spec,
        }
        self.add("DataChangeRequest", name, wanted, "data")

    def review(
        self, request: str = "fix", reviewer: str = "bob@example.com", verdict: str = "Approve", **spec: Any
    ) -> str:
        """Say what somebody thinks of what is proposed now, after a moment; return the name of the review."""
        self.world.tick(1)
        patch = self.status("DataChangeRequest", request).get("patch")
        name = f"{request}-{reviewer.partition('@')[0]}"
        wanted = {"request": request, "reviewer": reviewer, "verdict": verdict, **({"patch": patch} if patch else {})}
        self.add("DataReview", name, {**wanted, **spec}, "data")
        return name

    def job(
        self, name: str = "shop-load", *rows: str, suspend: bool = True, namespace: str = "data", **spec: Any
    ) -> None:
        """Apply a Job that writes rows, as the API server stores it: with labels of its own in the Pod template."""
        own = {"batch.kubernetes.io/job-name": name, "job-name": name, "team": "shop"}
        container = {"name": "load", "image": "example.com/loader", "command": ["load"], "args": list(rows)}
        template = {"metadata": {"labels": own}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        self.kube.add(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"suspend": suspend, "backoffLimit": 1, "template": template, **spec},
            }
        )

    def mask_job(
        self, *tables: str, name: str = "shop-mask", check: bool = False, suspend: bool = True, **spec: Any
    ) -> None:
        """Apply a Job that masks some tables, or all; with ``check`` it fails on rows that it has forgotten."""
        mask = {"name": "mask", "image": "example.com/masker", "args": ["mask", *tables]}
        looks = {"name": "check", "image": "example.com/masker", "args": ["check"]}
        containers = {"initContainers": [mask], "containers": [looks]} if check else {"containers": [mask]}
        template = {
            "metadata": {"labels": {"job-name": name, "team": "shop"}},
            "spec": {"restartPolicy": "Never", **containers},
        }
        self.kube.add(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": "data"},
                "spec": {"suspend": suspend, "backoffLimit": 0, "template": template, **spec},
            }
        )

    def get(self, kind: str, name: str, namespace: str = "data") -> Object:
        found: Object | None = self.kube.peek(kind, namespace, name)
        assert found is not None, f"there is no {kind} {namespace}/{name}"
        return found

    def edit(self, kind: str, name: str, namespace: str = "data", **spec: Any) -> None:
        def change(found: Object) -> None:
            for key, value in spec.items():
                if value is None:
                    found["spec"].pop(key, None)
                elif isinstance(value, Mapping) and isinstance(found["spec"].get(key), dict):
                    found["spec"][key].update(value)
                else:
                    found["spec"][key] = value

        self.kube.change(kind, namespace, name, change)

    def annotate(self, kind: str, name: str, namespace: str = "data", **verbs: str) -> None:
        """Ask for something by annotation, in the way ``kubectl annotate`` does: ``reset="now"`` and the like."""

        def change(found: Object) -> None:
            annotations = found["metadata"].setdefault("annotations", {})
            for verb, value in verbs.items():
                text = timestamp(self.world.now) if value == "now" else value
                annotations[f"coppice.dev/{verb}-requested-at"] = text

        self.kube.change(kind, namespace, name, change)

    def delete(self, kind: str, name: str, namespace: str = "data") -> None:
        self.kube.remove(kind, namespace, name)

    def copy(self, number: int = 1, clone: str = "db", namespace: str = "data") -> str:
        """Return the name of a clone's n-th claim and Pod."""
        return copy_name(clone, self.get("DataClone", clone, namespace)["metadata"]["uid"], number)

    # -- what one sees --

    def condition(self, kind: str, name: str, namespace: str = "data", *, of: str = "Ready") -> Object:
        conditions = (self.get(kind, name, namespace).get("status") or {}).get("conditions", [])
        found = [entry for entry in conditions if entry["type"] == of]
        assert found, f"{kind} {namespace}/{name} has no condition {of}: {conditions}"
        return dict(found[0])

    def reason(self, kind: str, name: str, namespace: str = "data") -> str:
        return str(self.condition(kind, name, namespace)["reason"])

    def is_ready(self, kind: str, name: str, namespace: str = "data") -> bool:
        return bool(self.condition(kind, name, namespace)["status"] == "True")

    def expect_ready(self, kind: str, name: str, namespace: str = "data") -> None:
        found = self.condition(kind, name, namespace)
        assert found["status"] == "True", f"{kind} {namespace}/{name}: {found['reason']}: {found['message']}"

    def expect_stalled(self, kind: str, name: str, reason: str, namespace: str = "data") -> str:
        """Expect a condition that says why, and one event that says the same; return its message."""
        found = self.condition(kind, name, namespace)
        stalled = self.condition(kind, name, namespace, of="Stalled")
        assert (found["status"], found["reason"], stalled["status"]) == ("False", reason, "True"), found
        return str(found["message"])

    def plans(self, kind: str) -> int:
        """Return how many plans have been made for objects of a kind."""
        return len([key for key, _ in self.operator.log.plans if key.kind == kind])

    def events(self, kind: str, name: str) -> list[str]:
        return [event.reason for key, event in self.operator.log.events if (key.kind, key.name) == (kind, name)]

    def status(self, kind: str, name: str, namespace: str = "data") -> Object:
        return dict(self.get(kind, name, namespace).get("status") or {})

    def rows(self, clone: str = "db", namespace: str = "data") -> frozenset[str]:
        """Return what an app sees that knows nothing but the clone's binding Secret."""
        return self.world.rows(namespace, f"{clone}-binding")

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        return [found["metadata"]["name"] for found in self.kube.all(kind, namespace)]

    def data_of(self, store: str = "shop") -> Volume:
        """Return the store's own data, for writing to it like an app that is connected all the time."""
        return self.world.volume("data", f"{store}-data")

    def commit(self, *rows: str, branch: str = "main") -> str:
        return self.data_of().commit(branch, *rows, at=self.world.now)
