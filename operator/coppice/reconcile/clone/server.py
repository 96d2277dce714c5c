"""The link of the chain that runs a copy's server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coppice.api.v1alpha1 import Durability, Power
from coppice.core import labels
from coppice.core.names import digest
from coppice.core.quantities import parse_quantity
from coppice.engines.base import CloneServer, CommitPolicy, Engine
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import Resources, ServerPod, build_pod
from coppice.manifests.secret import added_name, build_engine_secret
from coppice.reconcile.clone.keep import keeps_awake, keeps_still
from coppice.reconcile.clone.leftovers import end_migration
from coppice.reconcile.clone.lifetime import is_unused, last_activity
from coppice.reconcile.clone.names import ENGINE, service_name
from coppice.reconcile.clone.room import starts_without_room
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy
from coppice.reconcile.draft import Draft, Fact, rests, stalls
from coppice.reconcile.observed import format_time

GRACE_SECONDS = 5


def server_runs(at: Situation, draft: Draft) -> Fact:
    """Return whether the wanted copy's server runs, or that it is not to."""
    copy = at.wanted_copy
    resting = _rests(at, copy)
    if resting is not None:
        for pod in at.seen.pods:
            draft.drop(pod)
        end_migration(at, draft, copy)
        return resting
    engine = at.engine_of(copy)
    if engine is None:
        return stalls(ENGINE, "UnknownEngine", f"this operator has no engine {copy.origin.engine} any more")
    uncertified = at.tls(engine).lacks(draft, copy.pod, ENGINE)
    # Without a certificate there is no server to be, and what is around one is for those that are there.
    problem = _surround(at, draft, engine) if uncertified is None or at.seen.pods else None
    return problem or uncertified or _run(at, draft, copy, engine)


def _run(at: Situation, draft: Draft, copy: Copy, engine: Engine) -> Fact:
    if copy.pod is not None and not at.tls(engine).is_had:
        return draft.leave_server(copy.pod, ENGINE)
    desired = _pod(at, draft, copy, engine)
    if isinstance(desired, Fact):
        return desired
    full = starts_without_room(at, draft, copy)
    if full is not None:
        return full
    # Without the store nobody knows its profiles: a server that runs is left as it is.
    return draft.run_server(desired, copy.pod, ENGINE, replace_outdated=at.store is not None)


def keep_serving(at: Situation, draft: Draft) -> None:
    """See to the server that apps have while another copy is wanted, which may be long in coming."""
    serving, terms = at.seen.serving, at.source.terms
    if serving is None or serving is at.target.copy or terms is None or not (terms.raw or serving.origin.masked):
        return
    engine = at.engine_of(serving)
    if _rests(at, serving) is not None:
        draft.drop(serving.pod)
    elif engine is not None and not at.tls(engine).is_had:
        if serving.pod is not None:
            draft.leave_server(serving.pod, ENGINE)
    elif engine is not None:
        desired = _pod(at, draft, serving, engine)
        if not isinstance(desired, Fact) and _complete(at, draft) is None:
            draft.run_server(desired, serving.pod, ENGINE, replace_outdated=False)


def _rests(at: Situation, copy: Copy) -> Fact | None:
    """Return why the server is not to run, if so. A copy that nobody has been told of yet is not put to sleep, nor one
    on which a migration runs.
    """
    if keeps_awake(at, copy):
        return None
    if keeps_still(at, copy) and at.clone.spec.durability is Durability.FAST:
        return rests(ENGINE, "StoppedToKeep", "the server is stopped while what was changed is committed to a branch")
    if at.clone.spec.power is Power.OFF:
        message = "the server is off and the data are kept: set spec.power to On or Auto to have it again"
        return rests(ENGINE, "PoweredOff", message)
    if not is_unused(at) or at.seen.serving is not copy or at.is_migrating(copy):
        return None
    used = format_time(last_activity(at))
    return rests(
        ENGINE,
        "Asleep",
        f"nobody has used the clone since {used}: the server is stopped and the data are kept. "
        f"To wake it, annotate it with {labels.WAKE_REQUESTED_AT}=<now>, or set spec.power to On",
    )


def surround_early(at: Situation, draft: Draft, engine: Engine) -> None:
    """Make what a server needs while its volume is being made; what stands in the way is told when it is its turn."""
    if at.clone.spec.power is not Power.OFF and (at.tls(engine).is_had or at.seen.pods):
        _surround(at, draft, engine)


def _surround(at: Situation, draft: Draft, engine: Engine) -> Fact | None:
    """Keep the operator's Secret and the policy; for the first copy also the Service, so that the route is there in
    time: nobody can log in yet.

    The policy is for the servers that are there, as each was made, and for the one that is to be.
    """
    copy, tls = at.target.copy, at.tls(engine)
    coming = [None] if tls.is_had and (copy is None or copy.pod is None) else []
    secret = build_engine_secret(at.engine_secret, draft.owner, at.seen.fresh_credentials)
    policy = build_policy(
        at.name,
        draft.owner,
        role="clone",
        ports=tls.ports_of([*at.seen.pods, *coming]),
        operator_namespace=at.environment.operator_namespace,
    )
    problem = (
        draft.make_once(secret, at.seen.secret, ENGINE)
        or _complete(at, draft)
        or draft.keep(policy, at.seen.policy, ENGINE)
    )
    if problem is None and at.seen.serving is None:
        problem = keep_service(at, draft, at.target.number, engine, copy)
    return problem


def _complete(at: Situation, draft: Draft) -> Fact | None:
    """Make the Secret with what that of an older operator lacks of what a server is to have."""
    lacking, name = at.lacking_credentials, added_name(at.engine_secret)
    if not lacking or any(entry["metadata"]["name"] == name for entry in draft.create):
        return None
    values = {key: at.seen.fresh_credentials[key] for key in lacking}
    return draft.make_once(build_engine_secret(name, draft.owner, values), at.seen.added, ENGINE)


def keep_service(at: Situation, draft: Draft, number: int, engine: Engine, copy: Copy | None) -> Fact | None:
    """Lead the Service to the server of a copy that has this number, once it has a claim."""
    port = at.tls(engine).port_of(None if copy is None else copy.pod)
    selector = {labels.COPY: str(number)}
    service = build_service(service_name(at.clone), draft.owner, port=port, selector=selector)
    return draft.keep(service, at.seen.service, ENGINE)


def _pod(at: Situation, draft: Draft, copy: Copy, engine: Engine) -> dict[str, Any] | Fact:
    origin = copy.origin
    image = at.environment.image(origin.engine, origin.engine_version)
    if image is None:
        message = (
            f"the administrator offers no image for {origin.engine} {origin.engine_version}, which wrote the snapshot: "
            f"have it added again (engines.{origin.engine}.images of the chart)"
        )
        return stalls(ENGINE, "UnsupportedVersion", message)
    resources = _resources(at)
    if isinstance(resources, Fact):
        return resources
    tls = at.tls(engine)
    policy: CommitPolicy = at.clone.spec.commit_policy.value
    # The claim's UID: what the Pod expects on its volume is part of its script. That it is durable never changes.
    claim = str(copy.claim["metadata"]["uid"])
    inputs = digest(image, policy, resources.memory, resources.cpu, claim, *tls.inputs)
    server = CloneServer(
        version=origin.version,
        commit_policy=policy,
        marker=origin.snapshot_uid,
        durable=at.clone.spec.durability is Durability.DURABLE,
    )
    return build_pod(
        ServerPod(
            name=at.copy_name(copy.number),
            owner=draft.owner,
            role="clone",
            image=image,
            user_id=origin.user_id or engine.user_id,
            workload=engine.clone_server(server),
            claim=at.copy_name(copy.number),
            secret=at.engine_secret,
            resources=resources,
            node_selector=at.store.spec.clones.node_selector if at.store is not None else {},
            labels={labels.COPY: str(copy.number)},
            annotations={labels.INPUTS: inputs},
            added=at.lacking_credentials,
            proxy=tls.proxy,
            grace_seconds=GRACE_SECONDS,
        )
    )


def _resources(at: Situation) -> Resources | Fact:
    default, profile = at.environment.server, at.clone.spec.profile
    profiles = at.store.spec.clones.profiles if at.store is not None else {}
    asked = profiles.get(profile)
    if asked is not None:
        found = Resources(memory=asked.memory or default.memory, cpu=asked.cpu or default.cpu)
        return _too_large(at, {"memory": asked.memory, "cpu": asked.cpu}) or found
    if profile == "default" or at.store is None:
        return default
    offered = ", ".join(sorted({"default", *profiles}))
    return stalls(ENGINE, "UnknownProfile", f"{at.source_words} has no profile {profile}; there are: {offered}")


def _too_large(at: Situation, asked: Mapping[str, str | None]) -> Fact | None:
    """Return that the clone's profile gives more than the administrator lets any give, if so."""
    for resource, size in asked.items():
        most = at.environment.most.get(resource)
        if size and most and parse_quantity(size) > parse_quantity(most):
            message = (
                f"profile {at.clone.spec.profile} of {at.source_words} gives {resource} {size}, and the administrator "
                f"lets a profile give at most {most} (clones.limits.{resource} of the chart): choose a smaller one, or "
                "have one of the two changed"
            )
            return stalls(ENGINE, "ProfileTooLarge", message)
    return None
