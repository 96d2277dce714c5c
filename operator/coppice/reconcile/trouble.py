"""What keeps a Pod from running, in the scheduler's or kubelet's words, and whether time may mend it. Pure.

Whoever waits for an object (kstatus, Argo CD, ``kubectl wait``) takes Stalled for failed, so a Pod is given up only
when waiting has become pointless; what is wrong is said from the beginning. A Pod that becomes Ready has no trouble any
more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.manifests.pod import LOAD_CONTAINER, ROLES, TLS_CONTAINER
from coppice.reconcile.observed import created_at, label, parse_time

KUBELET_PATIENCE = timedelta(minutes=2)
"""How long kubelet may fail to start a container: a registry that is away for a moment, a Secret that is restored."""
SCHEDULER_PATIENCE = timedelta(minutes=10)
"""How long the scheduler may find no node: an autoscaler takes minutes to add one."""
LOAD_FAILURES = 2
"""An initial load does the same at every try, and one try may take long."""
SERVER_FAILURES = 3
BRIEF = timedelta(minutes=10)
"""Kubelet starts its back-off anew for a container that ran for longer (MaxContainerBackOff, twice)."""
MAX_QUOTED = 300
"""How many characters of somebody else's words are quoted."""
MAX_REASON = 1000
"""How many of those in which a script of an engine's says why it failed."""

_ON_ITS_WAY = {"ContainerCreating", "PodInitializing"}
_IN_VAIN = {"InvalidImageName", "ErrImageNeverPull"}
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", *_IN_VAIN}
_CRASHES = "CrashLoopBackOff"
_KILLED = 137


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a Pod and what to do about it; from ``hopeless_from`` on time is not expected to mend it."""

    reason: str
    message: str
    advice: str
    hopeless_from: datetime | None

    def words(self, pod: str) -> str:
        """Return what a condition says of it."""
        return f"Pod {pod}: {self.message}: {self.advice}"

    def is_hopeless(self, now: datetime) -> bool:
        """Return whether somebody must act."""
        return self.hopeless_from is not None and now >= self.hopeless_from


def find_trouble(pod: Manifest) -> Trouble | None:
    """Return what is wrong with a Pod, or None for one that is on its way or well."""
    status = pod.get("status") or {}
    conditions = {str(entry.get("type")): entry for entry in status.get("conditions") or ()}
    if _status_of(conditions, "Ready") == "True":
        return None
    if _status_of(conditions, "PodScheduled") == "False":
        return _unscheduled(pod, conditions["PodScheduled"])
    since = _moment(conditions.get("Ready")) or created_at(pod)
    return next((found for entry in _containers(status) if (found := _container_trouble(pod, entry, since))), None)


def _status_of(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> str | None:
    return (conditions.get(kind) or {}).get("status")


def _moment(condition: Mapping[str, Any] | None) -> datetime | None:
    return parse_time((condition or {}).get("lastTransitionTime"))


def _containers(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))


def _unscheduled(pod: Manifest, condition: Mapping[str, Any]) -> Trouble:
    return Trouble(
        reason="ServerTrouble",
        message=f"not scheduled: {quoted(condition.get('message')) or 'no reason given'}",
        advice="make room on a node for what it asks for, or ask for less",
        hopeless_from=(_moment(condition) or created_at(pod)) + SCHEDULER_PATIENCE,
    )


def _container_trouble(pod: Manifest, container: Mapping[str, Any], since: datetime) -> Trouble | None:
    """Return what is wrong with a container of a Pod that has not been Ready ``since``."""
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason")
    if not reason or reason in {*_ON_ITS_WAY, _CRASHES}:
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if ended is None or (ended.get("exitCode", 0) == 0 and reason != _CRASHES):
            return None
        return _crashes(pod, container, ended)
    words = f"{reason}: {quoted(waiting.get('message'))}".rstrip(": ")
    return Trouble(
        reason="ServerTrouble",
        message=f"container {container['name']}: {words}",
        advice=_image_advice(container["name"])
        if reason in _IMAGE
        else "put right what kubelet names; it tries again by itself",
        hopeless_from=created_at(pod) if reason in _IN_VAIN else since + KUBELET_PATIENCE,
    )


def _image_advice(container: str) -> str:
    value = "tls.image" if container == TLS_CONTAINER else "engines.<engine>.images"
    return (
        "see that the image is in its registry and that the nodes may pull it (the administrator names it in "
        f"{value} of the chart)"
    )


def _crashes(pod: Manifest, container: Mapping[str, Any], ended: Mapping[str, Any]) -> Trouble | None:
    """Return that a container ends in failure, if so; one that runs again is given a chance before it is told of."""
    name, state = str(container["name"]), container.get("state") or {}
    running = "running" in state
    failures = int(container.get("restartCount", 0)) + (0 if running else 1)
    # A server that ran for long has not come to grief over what it was given; a load has, however late.
    hopeless = failures >= LOAD_FAILURES if name == LOAD_CONTAINER else failures >= SERVER_FAILURES and _is_brief(ended)
    if running and not hopeless:
        return None
    words = _reason(pod, ended) or quoted((state.get("waiting") or {}).get("message"))
    times = "" if failures == 1 else f", {failures} times by now"
    return Trouble(
        reason="LoadFailed" if name == LOAD_CONTAINER else "ServerTrouble",
        message=f"container {name} ended with exit code {ended['exitCode']}{times}{f' ({words})' if words else ''}",
        advice=_crash_advice(pod, name, int(ended["exitCode"])),
        hopeless_from=created_at(pod) if hopeless else None,
    )


def _crash_advice(pod: Manifest, container: str, code: int) -> str:
    log = f"see kubectl logs {pod['metadata']['name']} -c {container}"
    if container == LOAD_CONTAINER:
        return f"{log} and correct the initial load; it is tried again by itself"
    return f"{log}; it may need more memory" if code == _KILLED else log


def _is_brief(ended: Mapping[str, Any]) -> bool:
    """Return whether a container ended soon after its start."""
    started, finished = parse_time(ended.get("startedAt")), parse_time(ended.get("finishedAt"))
    return started is None or finished is None or finished - started < BRIEF


def reason_of_failure(pod: Manifest) -> str:
    """Return why a Pod that runs once has failed, in the words of the engine's script; empty where it said nothing."""
    ended = ((entry.get("state") or {}).get("terminated") for entry in _containers(pod.get("status") or {}))
    return next((words for entry in ended if entry and (words := _reason(pod, entry))), "")


def _reason(pod: Manifest, ended: Mapping[str, Any]) -> str:
    """Return what a container left for whoever asks why it ended; of users' programs nobody knows what that holds."""
    return quoted(ended.get("message"), MAX_REASON) if label(pod, labels.ROLE) in ROLES else ""


def quoted(words: str | None, longest: int = MAX_QUOTED) -> str:
    """Return somebody else's words in one line, shortened where they are long."""
    text = " ".join((words or "").split())
    return text if len(text) <= longest else f"{text[:longest]}..."
