"""The operator's settings: environment variables, read once at start-up. The chart sets them from its values."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from coppice.core.durations import parse_duration
from coppice.core.quantities import quantity_bytes
from coppice.forges.settings import ForgeSettings, read_forges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class SettingsError(Exception):
    """A variable has a value that cannot be used; the message names it and says what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this operator runs, and what it offers to all objects."""

    namespace: str = "coppice-system"
    """``COPPICE_NAMESPACE``: the operator's own namespace, where its lease is. The chart sets it to the Pod's."""

    identity: str = "coppice"
    """``COPPICE_IDENTITY``: this replica's name in the lease and in Events; must differ between replicas.

    The chart sets it to the Pod's name; the host's name by default.
    """

    service_account: str = "coppice"
    """``COPPICE_SERVICE_ACCOUNT``: who the operator is in its namespace; the author of what it proposes itself."""

    lease_name: str = "coppice-operator"
    """``COPPICE_LEASE_NAME``: name of the Lease. Two operators that serve the same cluster must use the same one."""

    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """``COPPICE_IMAGES``: JSON ``{engine: {version: image}}``. A version without an image cannot be used by a store."""

    tls_image: str | None = None
    """``COPPICE_TLS_IMAGE``: what takes TLS before servers that have none; it has the program ``stunnel``."""
    any_version: tuple[str, ...] = ()
    """``COPPICE_ANY_VERSION``: JSON ``["terminusdb"]``: engines that run versions of their server too that they refuse
    otherwise, because those lose data. Whoever names one here takes that risk.
    """

    server_memory: str = "512Mi"
    """``COPPICE_SERVER_MEMORY``: request and limit of a database server where neither store nor profile says."""

    server_cpu: str = "500m"
    """``COPPICE_SERVER_CPU``: CPU request of a database server where neither store nor profile says."""

    clone_memory: str = ""
    """``COPPICE_CLONE_MEMORY``: the most memory that a store's profile may give a clone; empty for no bound."""

    clone_cpu: str = ""
    """``COPPICE_CLONE_CPU``: the most CPU that a store's profile may give a clone; empty for no bound."""

    lease_idle: timedelta = timedelta(hours=2)
    """``COPPICE_LEASE_IDLE``: a DataClone that asks for no lease expires after this long without activity."""

    lease_max: timedelta = timedelta(days=3)
    """``COPPICE_LEASE_MAX``: a DataClone that asks for no lease expires at the latest after this long."""

    lease_warning: timedelta = timedelta(hours=1)
    """``COPPICE_LEASE_WARNING``: the end of a lease is told this long before, in its last quarter at the earliest."""

    sleep: timedelta = timedelta(minutes=30)
    """``COPPICE_SLEEP``: the server of a clone with ``power: Auto`` is stopped after this long without activity."""

    undo: timedelta = timedelta(hours=1)
    """``COPPICE_UNDO``: how long the replaced copy of a clone is kept after a reset. It takes up storage until then."""

    forges: tuple[ForgeSettings, ...] = ()
    """``COPPICE_FORGES``: JSON ``[{"provider": "github", "tokenFile": "/path"}]``: where pull requests are.

    Optional in each: ``host`` and ``url`` (the public one's by default), ``interval`` (1m), ``grace`` (10m), and
    ``dryRun``, ``comments`` and ``statuses`` (all false).
    """

    resync: timedelta = timedelta(minutes=10)
    """``COPPICE_RESYNC``: how often every object is looked at again, though no event came.

    This bounds how long a lost event can go unnoticed. Three missed resyncs fail the liveness probe.
    """

    workers: int = 16
    """``COPPICE_WORKERS``: how many objects are reconciled at the same time; each holds at most a few requests.

    DataChangeRequests are a quarter of them at most: one may wait for a server that says nothing.
    """

    log_level: str = "info"
    """``COPPICE_LOG_LEVEL``: debug, info, warning or error. No level logs objects' contents."""

    metrics_port: int = 8080
    """``COPPICE_METRICS_PORT``: where ``/metrics`` is served; 0 picks a free port."""

    probes_port: int = 8081
    """``COPPICE_PROBES_PORT``: where ``/healthz`` and ``/readyz`` are served; 0 picks a free port."""

    stuck: timedelta = timedelta(minutes=5)
    """``COPPICE_STUCK``: a reconciliation that takes longer fails the liveness probe."""

    drain: timedelta = timedelta(seconds=20)
    """``COPPICE_DRAIN``: how long running reconciliations may take to finish at shutdown before they are cut off.

    Must be shorter than the Pod's ``terminationGracePeriodSeconds``. What is cut off is taken up by the next leader.
    """


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of an environment; raises SettingsError. An empty variable counts as unset."""
    variables = os.environ if environ is None else environ
    values: dict[str, Any] = {"identity": socket.gethostname()}
    for variable, (name, parse, expected) in _VARIABLES.items():
        text = variables.get(variable)
        if not text:
            continue
        try:
            values[name] = parse(text)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{variable}={text!r} is not {expected}") from error
    return Settings(**values)


def _images(text: str) -> Mapping[str, Mapping[str, str]]:
    images = json.loads(text)
    return {
        str(engine): {str(version): _string(image) for version, image in versions.items()}
        for engine, versions in _mapping(images).items()
        if _mapping(versions) is versions
    }


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list):
        raise TypeError
    return tuple(_string(name) for name in names)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _at_least(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise ValueError
        return number

    return parse


def _level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise ValueError
    return text


def _quantity(text: str) -> str:
    quantity_bytes(text)
    return text


_NAME = "a name"
_DURATION = "a duration such as 90s, 10m or 3d"
_PORT = "a port number"

_VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], Any], str]]] = {
    "COPPICE_NAMESPACE": ("namespace", _string, _NAME),
    "COPPICE_IDENTITY": ("identity", _string, _NAME),
    "COPPICE_SERVICE_ACCOUNT": ("service_account", _string, _NAME),
    "COPPICE_LEASE_NAME": ("lease_name", _string, _NAME),
    "COPPICE_IMAGES": ("images", _images, 'JSON of the form {"dolt": {"1.83": "image"}}'),
    "COPPICE_TLS_IMAGE": ("tls_image", _string, "the name of an image"),
    "COPPICE_ANY_VERSION": ("any_version", _names, 'JSON of the form ["terminusdb"]'),
    "COPPICE_SERVER_MEMORY": ("server_memory", _quantity, "a quantity such as 512Mi"),
    "COPPICE_SERVER_CPU": ("server_cpu", _string, "a quantity such as 500m"),
    "COPPICE_CLONE_MEMORY": ("clone_memory", _quantity, "a quantity such as 8Gi"),
    "COPPICE_CLONE_CPU": ("clone_cpu", _quantity, "a quantity such as 4"),
    "COPPICE_LEASE_IDLE": ("lease_idle", parse_duration, _DURATION),
    "COPPICE_LEASE_MAX": ("lease_max", parse_duration, _DURATION),
    "COPPICE_LEASE_WARNING": ("lease_warning", parse_duration, _DURATION),
    "COPPICE_SLEEP": ("sleep", parse_duration, _DURATION),
    "COPPICE_UNDO": ("undo", parse_duration, _DURATION),
    "COPPICE_FORGES": ("forges", read_forges, 'JSON of the form [{"provider": "github", "tokenFile": "/path"}]'),
    "COPPICE_RESYNC": ("resync", parse_duration, _DURATION),
    "COPPICE_WORKERS": ("workers", _at_least(1), "a number from 1"),
    "COPPICE_LOG_LEVEL": ("log_level", _level, f"one of {', '.join(LOG_LEVELS)}"),
    "COPPICE_METRICS_PORT": ("metrics_port", _at_least(0), _PORT),
    "COPPICE_PROBES_PORT": ("probes_port", _at_least(0), _PORT),
    "COPPICE_STUCK": ("stuck", parse_duration, _DURATION),
    "COPPICE_DRAIN": ("drain", parse_duration, _DURATION),
}
