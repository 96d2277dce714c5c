"""Executes a plan: the only place that writes to the cluster on behalf of an object.

Everything happens in the order of the plan's fields, each step safe to repeat. What exists is changed only under the
UID the plan saw, and what is there under our name but not ours is left alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from coppice.core import labels
from coppice.core.conditions import complete_status, same_status
from coppice.core.plan import noted
from coppice.engines.base import PUBLISH_ACTION, Endpoint, EngineError, UnderWayError, UnreachableError
from coppice.engines.patching import PatchingEngine
from coppice.kube.client import FINALIZER_MANAGER, SCALING_MANAGER, STATUS_MANAGER, WIRING_MANAGER
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NameConflictError,
    WiringConflictError,
)
from coppice.manifests.meta import build_identity
from coppice.manifests.secret import added_name, is_meant_for, read_login, read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from coppice.core.plan import EngineCall, Event, Manifest, Plan, Publication, Scale, ServerRef
    from coppice.core.pullrequests import Posting
    from coppice.engines.base import Engine
    from coppice.kube.client import KubeClient, KubeReader
    from coppice.runtime.metrics import Metrics

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Where the events of plans go."""

    def record(self, manifest: Manifest, event: Event) -> None:
        """Take an event of an object; never fails and never waits."""
        ...


class Noticeboard(Protocol):
    """Where goes what people are to read on pull requests."""

    def want(self, posting: Posting) -> None:
        """Have this said from now on; never fails and never waits."""
        ...


class Executor:
    """Carries out plans. Raises ``KubeError`` and ``EngineError``; what was done until then stays done.

    What it reads on the way it reads ``live``.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        live: KubeReader,
        engines: Mapping[str, Engine],
        recorder: Recorder,
        metrics: Metrics,
        board: Noticeboard | None = None,
    ) -> None:
        self._client = client
        self._live = live
        self._engines = engines
        self._recorder = recorder
        self._board = board
        self._metrics = metrics

    async def execute(self, plan: Plan, manifest: Manifest, now: datetime) -> Mapping[str, Any]:
        """Carry out a plan for an object as it was observed; return its status afterwards."""
        finalized = labels.FINALIZER in (manifest["metadata"].get("finalizers") or ())
        if plan.add_finalizer and not finalized:
            await self._apply_finalizers(manifest, [labels.FINALIZER])
        await self._write(plan)
        observed, remembered = manifest, {}
        if plan.publication is not None:
            observed = await self._publish(plan.publication, manifest)
            remembered = {plan.publication.note: observed["status"][plan.publication.note]}
        current: Mapping[str, Any] = observed.get("status") or {}
        status = current if plan.status is None else complete_status({**plan.status, **remembered}, manifest, now)
        changed = not same_status(current, status)
        if changed:
            await self._write_status(observed, status, guarded=plan.guarded)
        if plan.remove_finalizer and finalized:
            await self._apply_finalizers(manifest, [])
        # A state that shows in the status already has been reported: whatever woke us, it is no transition.
        if changed or plan.status is None:
            for event in plan.events:
                self._recorder.record(manifest, event)
        if plan.posting is not None and self._board is not None:
            self._board.want(plan.posting)
        return status

    async def _write(self, plan: Plan) -> None:
        for call in plan.calls:
            await self._call(call)
        for desired in plan.create:
            await self._create(desired)
        for patch in plan.prune:
            await self._client.prune(patch)
        for desired in plan.apply:
            await self._apply(desired)
        for ref in (*plan.delete, *plan.discard):
            await self._client.delete(ref)
        unscaled = await self._scale(plan.scale)
        refusals = await self._wire(plan.wire)
        if refusals or unscaled:
            raise WiringConflictError(refusals, unscaled)

    async def _write_status(self, observed: Manifest, status: Mapping[str, Any], *, guarded: bool) -> Manifest:
        """Write an object's status; ``guarded``: if it still is as it was observed, else ConflictError."""
        body = {**build_identity(observed), "status": status}
        if guarded:
            body["metadata"]["resourceVersion"] = observed["metadata"]["resourceVersion"]
        return await self._client.apply(body, manager=STATUS_MANAGER, subresource="status")

    async def _publish(self, publication: Publication, manifest: Manifest) -> Manifest:
        """Write to a live database; return the object with the note of it in its status.

        While the API server does not take the note, nothing is committed, and where it has taken it and this process
        ends before the commit, or does not hear of it, the note leads to what became of it.
        """
        engine = self._engines[publication.engine]
        if not isinstance(engine, PatchingEngine):
            raise TypeError(f"the engine {engine.name} publishes no patches")
        endpoint = await self._opened(publication.target, engine, PUBLISH_ACTION)
        seen = manifest

        async def begun(transaction: str) -> None:
            nonlocal seen
            await self._expect_unchanged(publication)
            status = {**(manifest.get("status") or {}), publication.note: noted(transaction, publication.of)}
            seen = await self._write_status(manifest, status, guarded=True)

        try:
            await engine.write(endpoint, publication.database, publication.patch, publication.salt, begun)
        except EngineError:
            self._metrics.engine_call_errors.labels(publication.engine, PUBLISH_ACTION).inc()
            raise
        return seen

    async def _expect_unchanged(self, publication: Publication) -> None:
        """Raise ConflictError where something is not as it was that a publication rests on."""
        for witness in publication.rests_on:
            if not witness.is_still(await self._live.get(witness.kind, witness.name, witness.namespace)):
                raise ConflictError(f"{witness.kind} {witness.namespace}/{witness.name} is not as it was")
        company = publication.company
        if company is None:
            return
        for found in await self._live.list(company.kind, company.namespace):
            if company.is_joined_by(found):
                raise ConflictError(f"{company.kind} {company.namespace}/{found['metadata']['name']} is new")

    async def _apply_finalizers(self, manifest: Manifest, finalizers: list[str]) -> None:
        body = build_identity(manifest)
        if finalizers:
            body["metadata"]["finalizers"] = finalizers
        await self._client.apply(body, manager=FINALIZER_MANAGER)

    async def _create(self, desired: Manifest) -> None:
        """Create what is made once; one that is there and ours is left as it is."""
        _owner_uid(desired)
        try:
            await self._client.create(desired)
        except AlreadyExistsError:
            existing = await self._existing(desired)
            if existing is None:
                raise ConflictError(f"{_name(desired)} came and went") from None
            _require_ours(existing, desired)

    async def _apply(self, desired: Manifest) -> None:
        """Apply what is kept as it should be.

        With ``metadata.uid`` the API server sees to it that exactly that object is meant. Without, the plan means to
        make it, and it is made by apply as well: what a create writes can never be taken away by a later apply, because
        its fields stay with another entry of the same manager.
        """
        if "uid" in desired["metadata"]:
            await self._client.apply(desired)
            return
        _owner_uid(desired)
        existing = await self._existing(desired)
        if existing is None:
            await self._client.apply(desired, force=False)
            return
        _require_ours(existing, desired)
        metadata = {**desired["metadata"], "uid": existing["metadata"]["uid"]}
        await self._client.apply({**desired, "metadata": metadata})

    async def _scale(self, scales: Sequence[Scale]) -> dict[str, str]:
        """Make users' Deployments sleep or wake; return why not, by name. One that has changed is looked at again."""
        refusals = {}
        for scale in scales:
            metadata = scale.patch["metadata"]
            try:
                await self._client.apply(scale.patch, manager=SCALING_MANAGER, force=scale.force)
            except (ConflictError, InvalidError, ForbiddenError) as error:
                existing = await self._existing(scale.patch)
                seen = {} if existing is None else existing["metadata"]
                if any(seen.get(key) != metadata[key] for key in ("uid", "resourceVersion")):
                    raise ConflictError(f"{_name(scale.patch)} is not as it was") from error
                refusals[str(metadata["name"])] = str(error)
        return refusals

    async def _wire(self, patches: Sequence[Manifest]) -> dict[str, str]:
        """Apply what users' objects asked for; return why not, by name. One that refuses does not keep the others from
        having it.
        """
        refusals = {}
        for patch in patches:
            try:
                await self._client.apply(patch, manager=WIRING_MANAGER, force=False)
            except (ConflictError, InvalidError, ForbiddenError) as error:
                existing = await self._existing(patch)
                # One that went or was made anew has woken us already.
                if existing is not None and existing["metadata"]["uid"] == patch["metadata"]["uid"]:
                    refusals[str(patch["metadata"]["name"])] = str(error)
        return refusals

    async def _existing(self, desired: Manifest) -> Manifest | None:
        metadata = desired["metadata"]
        return await self._live.get(desired["kind"], metadata["name"], metadata.get("namespace"))

    async def _call(self, call: EngineCall) -> None:
        """Execute an engine call; its Secret is read only now, so that no password is ever part of a plan."""
        engine = self._engines[call.engine]
        endpoint = await self._opened(call.target, engine, call.action)
        arguments = dict(call.arguments)
        if call.secret_arguments:
            secret = await self._values(await self._secret_of(call.target), set(call.secret_arguments.values()))
            arguments |= {name: secret[key] for name, key in call.secret_arguments.items()}
        arguments |= await self._borrowed(call)
        try:
            await engine.execute(endpoint, call.action, arguments)
        except UnderWayError:
            raise
        except EngineError:
            self._metrics.engine_call_errors.labels(call.engine, call.action).inc()
            raise

    async def _opened(self, target: ServerRef, engine: Engine, action: str) -> Endpoint:
        """Return where to log in to a server, for an action that may be done there."""
        found = await self._secret_of(target)
        if target.adopted_by is not None:
            if action != (PUBLISH_ACTION if target.writes else engine.capture_action):
                raise ValueError(f"{action} is not to be done to a server of somebody else's")
            return _adopted_endpoint(target, found)
        user, key = (engine.app_user, "app-password") if target.as_app else (engine.admin_user, "admin-password")
        return Endpoint(target.host, target.port, user, (await self._values(found, {key}))[key], ca=target.ca)

    async def _secret_of(self, target: ServerRef) -> Manifest:
        found = await self._live.get("Secret", target.secret_name, target.secret_namespace)
        if found is None:
            raise UnreachableError(f"Secret {target.secret_namespace}/{target.secret_name} is not there")
        return found

    async def _borrowed(self, call: EngineCall) -> dict[str, str]:
        """Return the arguments that other servers' Secrets hold."""
        values = {}
        for argument, wanted in call.borrowed_arguments.items():
            found = await self._live.get("Secret", wanted.name, wanted.namespace)
            if found is None:
                raise EngineError(f"Secret {wanted.namespace}/{wanted.name} is not there, and {call.action} needs it")
            values[argument] = (await self._values(found, {wanted.key}))[wanted.key]
        return values

    async def _values(self, secret: Manifest, needed: AbstractSet[str]) -> dict[str, str]:
        """Return the values of a server's Secret, or of the one that completes it: at least those that are needed."""
        values, metadata = read_secret(secret), secret["metadata"]
        if not needed <= values.keys():
            added = await self._live.get("Secret", added_name(metadata["name"]), metadata["namespace"])
            values = {**({} if added is None else read_secret(added)), **values}
        if missing := sorted(needed - values.keys()):
            raise EngineError(f"Secret {metadata['namespace']}/{metadata['name']} has no {', '.join(missing)} any more")
        return values


def _adopted_endpoint(target: ServerRef, secret: Manifest) -> Endpoint:
    """Return where to log in to a server of somebody else's, if their Secret still says that it may be used for it."""
    login, consent = read_login(secret), labels.WRITER_OF if target.writes else labels.STORE
    if login is None or not is_meant_for(secret, str(target.adopted_by), consent=consent):
        raise EngineError(f"Secret {target.secret_namespace}/{target.secret_name} is not to be used any more")
    return Endpoint(target.host, target.port, login.username, login.password, guarded=True, ca=login.ca)


def _owner_uid(manifest: Manifest) -> str:
    """Return on whose behalf an object is made; everything made without it could never be cleaned up."""
    uid = (manifest["metadata"].get("labels") or {}).get(labels.OWNER_UID)
    if not uid:
        raise ValueError(f"{_name(manifest)} has no {labels.OWNER_UID} label")
    return str(uid)


def _require_ours(existing: Manifest, desired: Manifest) -> None:
    if (existing["metadata"].get("labels") or {}).get(labels.OWNER_UID) != _owner_uid(desired):
        metadata = desired["metadata"]
        raise NameConflictError(desired["kind"], metadata.get("namespace"), metadata["name"])


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata'].get('namespace', '')}/{manifest['metadata']['name']}"
