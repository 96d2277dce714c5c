"""The driver as a running server: sockets, threads, and an orderly end."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from coppice.csi import health, pool, registration, rpc
from coppice.csi.controller import Controller
from coppice.csi.identity import Identity
from coppice.csi.node import Node
from coppice.csi.proto import csi_pb2
from coppice.csi.settings import Settings
from coppice.csi.volumes import Volumes

_log = logging.getLogger(__name__)
_SERVICES = csi_pb2.DESCRIPTOR.services_by_name
_THREADS = 16
_GRACE_SECONDS = 10


class Stop:
    """A wish to end the driver, from a signal or from the kubelet's refusal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.failed = False

    def ask(self) -> None:
        """End in order."""
        self._event.set()

    def fail(self) -> None:
        """End in order, and with an error."""
        self.failed = True
        self._event.set()

    def wait(self) -> None:
        """Wait for either."""
        self._event.wait()


def run(settings: Settings, stop: Stop) -> None:
    """Serve until `stop`. Volumes stay mounted and the pool too: Pods go on using them.

    Raises PoolError, CatalogError or OSError if the driver cannot start.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(pool.opened(settings.pool))
        volumes = Volumes.recovered(opened)
        stack.enter_context(_forgetting(volumes))
        services = [
            rpc.handler(_SERVICES["Identity"], Identity(opened)),
            rpc.handler(_SERVICES["Controller"], Controller(volumes, settings.node_id)),
            rpc.handler(_SERVICES["Node"], Node(volumes, settings.node_id)),
        ]
        stack.enter_context(_serving(settings.endpoint, services))
        if settings.health_port is not None:
            stack.enter_context(health.serving(settings.health_port, settings.endpoint))
        if settings.registration_directory is not None:
            # Last: the kubelet calls back as soon as it sees this socket.
            registrar = registration.Registration(settings.endpoint, stop.fail)
            socket = registration.socket_path(settings.registration_directory)
            stack.enter_context(_serving(socket, [rpc.handler(registration.SERVICE, registrar)]))
        _log.info("node %s: serving at %s", settings.node_id, settings.endpoint)
        stop.wait()


@contextmanager
def _serving(socket: Path, services: "list[grpc.GenericRpcHandler[Any, Any]]") -> Iterator[None]:
    socket.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    # A socket left by a killed driver; the kubelet notices the new one in its place.
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix=socket.stem), handlers=services)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield
    finally:
        server.stop(_GRACE_SECONDS).wait()
        socket.unlink(missing_ok=True)


@contextmanager
def _forgetting(volumes: Volumes) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=volumes.forget_deleted, args=(stop,), name="forget-deleted", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        volumes.wake()
        thread.join()
